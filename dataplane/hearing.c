/* SPDX-License-Identifier: BSD-3-Clause */
#include "hearing.h"

/* Frames that were lost before anybody looked at them, of all ports and workers: an answer may be among them. */
static uint64_t lost_unseen(const struct worker *w)
{
	const struct dataplane *dp = w->dp;
	uint64_t lost = 0;

	for (unsigned i = 0; i < dp->n_ports; i++)
		for (unsigned q = 0; q < dp->ports[i]->config.n_queues; q++) {
			struct port_report r = {0};

			dp->ports[i]->ops->report(dp->ports[i]->queues[q], &r);
			lost += r.lost_known_ring + r.lost_new_ring + r.lost_no_buffer;
		}
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		lost += __atomic_load_n(&dp->workers[i]->published.ledger.verdicts[VERDICT_drop_handover_full],
					__ATOMIC_RELAXED);
	return lost;
}

bool hearing_lost_lately(struct worker *w, uint32_t age_ms)
{
	struct hearing *h = &w->hearing;

	if (h->lost_looked_ns != w->now_ns) {
		uint64_t lost = lost_unseen(w);

		if (lost != h->lost)
			h->lost_at_ns = w->now_ns;
		h->lost = lost;
		h->lost_looked_ns = w->now_ns;
	}
	return h->lost_at_ns && w->now_ns / 1000000 - h->lost_at_ns / 1000000 < age_ms;
}
