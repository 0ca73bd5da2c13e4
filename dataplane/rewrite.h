/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Translation in place, with checksums by difference (RFC 1624): a wrong checksum stays wrong.
 */
#pragma once

#include "core.h"

/* Everything that is still on its way leaves: MTU, next hop, translation, account. */
void rewrite_burst(struct worker *w, struct burst *b);
