/* SPDX-License-Identifier: BSD-3-Clause */
/* A factor for bounds of time: sanitizers make everything slower. */
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOWER 20
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOWER 20
#endif
#ifndef SLOWER
#define SLOWER 1
#endif
