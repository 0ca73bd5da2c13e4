/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Translation in place, with checksums by difference (RFC 1624): a wrong checksum stays wrong.
 */
#pragma once

#include "core.h"

/* Everything that is still on its way leaves: MTU, next hop, translation, account. */
void rewrite_burst(struct worker *w, struct burst *b);
/* The same for a packet of the flow it->ref that came in no burst: VERDICT_forwarded, or why it may not leave. */
enum verdict rewrite_item(struct worker *w, const struct burst *b, struct item *it);
