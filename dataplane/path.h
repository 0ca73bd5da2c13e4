/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The path cure at the workers: SYNs announce no more than both sides of a path carry, and what routers say of it is
 * judged and passed on to decide. No established packet comes here.
 */
#pragma once

#include "core.h"
#include "icmp.h"

/* Returns 0 or -errno. */
int path_memory_init(struct path_memory *m);

/*
 * A SYN or SYN-ACK of a flow, on its way out. Its MSS becomes at most what fits the smallest of: both egress links, and
 * what was learned of client and backend. Segments of either direction cross both paths, and a small link is nearly
 * always small both ways: what a download taught shall save the next upload, too.
 */
void path_clamp(struct worker *w, const struct burst *b, struct item *it);

/*
 * A "packet too big" that passed all tests of ICMP errors; `replies` names the direction that acknowledges the quoted
 * one. Learns from it if that may be. VERDICT_NONE: it is to be translated and sent on; else why not.
 */
enum verdict path_ptb(struct worker *w, flow_ref replies, const uint8_t *icmp, const struct icmp_quote *q,
		      uint32_t mtu);
/* One that failed them: counts it, and returns `verdict`. */
enum verdict path_ptb_refused(struct worker *w, enum verdict verdict);
