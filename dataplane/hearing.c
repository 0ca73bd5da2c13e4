/* SPDX-License-Identifier: BSD-3-Clause */
#include "hearing.h"
#include "steer.h"

#define ASK_EVERY_NS    10000000 /* asking a device may be a system call, or a walk over its registers */
#define FRAMES_PER_TURN (KNOWN_BURSTS * BURST_MAX)

/* --- what was read --- */

static unsigned turns_for(unsigned frames)
{
	return (frames + FRAMES_PER_TURN - 1) / FRAMES_PER_TURN;
}

unsigned hearing_turns(const struct worker *w)
{
	/* Of the other workers' rings another one comes first each turn. */
	unsigned n = w->dp->config.n_workers * turns_for(HANDOVER_RING);

	for (unsigned i = 0; i < w->dp->n_ports; i++)
		if (turns_for(w->dp->ports[i]->depth) > n)
			n = turns_for(w->dp->ports[i]->depth);
	return n;
}

/* --- what was lost --- */

/* Not SYNs, which nobody's answers are among: a flood of them loses little else. */
static uint64_t lost_of(const struct dataplane *dp, unsigned port)
{
	const struct port *p = dp->ports[port];
	uint64_t lost = 0;

	for (unsigned q = 0; q < p->config.n_queues; q++) {
		struct port_report r = {0};

		p->ops->report(p->queues[q], &r);
		lost += r.lost_known_ring + r.lost_no_buffer;
	}
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		lost += __atomic_load_n(&dp->workers[i]->handover_lost[port], __ATOMIC_RELAXED);
	return lost;
}

static bool is_asked(const struct losses *l, uint64_t now_ns)
{
	uint64_t asked_ns = atomic_load_explicit(&l->asked_ns, memory_order_relaxed);

	return asked_ns && (int64_t)(now_ns - asked_ns) < ASK_EVERY_NS;
}

/* One worker for all; who comes meanwhile goes by what was known before. */
void hearing_ask(struct worker *w)
{
	struct losses *l = &w->dp->losses;

	if (is_asked(l, w->now_ns) || atomic_exchange_explicit(&l->asking, true, memory_order_acquire))
		return;
	for (unsigned i = 0; i < w->dp->n_ports && !is_asked(l, w->now_ns); i++) {
		uint64_t lost = lost_of(w->dp, i);

		if (lost != l->ports[i].lost)
			atomic_store_explicit(&l->ports[i].noticed_ns, w->now_ns, memory_order_relaxed);
		l->ports[i].lost = lost;
	}
	atomic_store_explicit(&l->asked_ns, w->now_ns, memory_order_relaxed);
	atomic_store_explicit(&l->asking, false, memory_order_release);
}

bool hearing_lost_lately(struct worker *w, unsigned port, uint32_t age_ms)
{
	uint64_t noticed_ns;

	hearing_ask(w);
	noticed_ns = atomic_load_explicit(&w->dp->losses.ports[port].noticed_ns, memory_order_relaxed);
	/* Another worker's clock may be a loop ahead. */
	return noticed_ns && (int64_t)(w->now_ns / 1000000 - noticed_ns / 1000000) < (int64_t)age_ms;
}
