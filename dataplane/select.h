/* SPDX-License-Identifier: BSD-3-Clause */
#pragma once

#include "core.h"

/* The backend for a new flow of that hash, or NULL if the set is empty. */
const struct policy_backend *select_backend(const struct policy_set *set, uint64_t hash);
