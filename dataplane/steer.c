/* SPDX-License-Identifier: BSD-3-Clause */
#include "steer.h"
#include "icmp_flow.h"

#include <unistd.h>

/* Of a client's flow, from the hash of the client-side key (client first). */
static unsigned owner_of_hash(const struct dataplane *dp, uint64_t hash)
{
	return (uint32_t)(hash >> 32 & 0xffff) * dp->config.n_workers >> 16;
}

/* Of the flow that an ICMP error is about; this worker if that cannot be told. */
static unsigned owner_of_quoted(const struct worker *w, const struct item *it)
{
	struct icmp_quote q;

	if (!icmp_read_quote(it, &q))
		return w->index;
	if (snat_index(&w->dp->snat, &q.src) >= 0)
		return snat_owner(&w->dp->partition, q.sport_be);
	return owner_of_hash(w->dp, icmp_reply_hash(w, &q));
}

static unsigned owner(const struct worker *w, const struct item *it)
{
	const struct dataplane *dp = w->dp;
	struct ipaddr dst;

	switch (it->p.kind) {
	case PACKET_TCP:
	case PACKET_UDP:
		dst = packet_dst(it->frame, &it->p);
		if (snat_index(&dp->snat, &dst) >= 0)
			return snat_owner(&dp->partition, it->p.dport_be);
		return owner_of_hash(dp, it->hash);
	case PACKET_ICMP_ERROR:
		return owner_of_quoted(w, it);
	default:
		return w->index;
	}
}

void steer_burst(struct worker *w, struct burst *b)
{
	uint32_t given = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];
		unsigned to;

		if (it->verdict != VERDICT_NONE)
			continue;
		to = owner(w, it);
		if (to == w->index)
			continue;
		if (rte_ring_sp_enqueue(w->dp->rings[b->class][w->index][to], it->m)) {
			it->verdict = VERDICT_drop_handover_full;
			if (b->class == RX_KNOWN)
				count_add(&w->handover_lost[it->m->port], 1);
			it->ref = FLOW_REF_NONE; /* a candidate that nobody looked at */
			continue;
		}
		it->verdict = VERDICT_handed_over;
		given |= 1u << to;
	}
	for (; given; given &= given - 1)
		worker_wake(w->dp->workers[__builtin_ctz(given)]);
}

unsigned steer_take(struct worker *w, enum rx_class class, struct rte_mbuf **m, unsigned n)
{
	unsigned n_workers = w->dp->config.n_workers, from = w->loops % n_workers, taken = 0;

	/* Each loop begins with another giver: one that always has a burst ready must not starve the others. */
	for (unsigned i = 0; i < n_workers && taken < n; i++, from = from + 1 == n_workers ? 0 : from + 1)
		if (from != w->index)
			taken += rte_ring_sc_dequeue_burst(w->dp->rings[class][from][w->index], (void **)&m[taken],
							   n - taken, NULL);
	return taken;
}

bool steer_pending(const struct worker *w)
{
	for (unsigned from = 0; from < w->dp->config.n_workers; from++)
		for (int class = 0; class < RX_CLASSES; class ++)
			if (from != w->index && !ring_is_empty(w->dp->rings[class][from][w->index]))
				return true;
	return false;
}

/*
 * The sleeper marks itself asleep, fences, and looks at its rings once more; the waker fills a ring, fences, and looks
 * at the mark. Whichever fence comes second sees the other's store: no packet is slept over.
 */
void worker_wake(struct worker *w)
{
	uint64_t one = 1;

	atomic_thread_fence(memory_order_seq_cst);
	if (!atomic_load_explicit(&w->asleep, memory_order_relaxed))
		return;
	if (write(w->wake_fd, &one, sizeof(one)) < 0)
		return; /* full counter: it is awake already */
}
