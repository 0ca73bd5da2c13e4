/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SYNs of the gateway's own. The kernel of a backend that is there again answers one; the RST that it gets for that
 * comes before any accept(), so that no application sees a probe, and no client's flow has to be the first to try.
 */
#pragma once

#include "core.h"
#include "streak.h"

/* As decide ordered; in shadow only counted. */
void probe_run(struct worker *w, const struct order *order);

/*
 * A check is a probe of a backend whose breaker is not open: what becomes of it is the evidence that a client's SYN
 * would be. Of more than CHECKS_MAX under way the next one is not sent.
 */

/* It was refused, with a RST or an ICMP error that only who saw its SYN can have sent. */
void probe_check_failed(struct worker *w, struct tuple *t, enum connect_failure kind);
/* The rest of probe_run_checks(). */
void probe_judge_checks(struct worker *w);
/* True: the time of one is over. */
static inline bool probe_checks_due(const struct worker *w)
{
	return w->wall.checks.n && (int32_t)((uint32_t)w->run_ms - w->wall.checks.due_ms) >= 0;
}
