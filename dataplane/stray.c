/* SPDX-License-Identifier: BSD-3-Clause */
#include "stray.h"
#include "probe.h"
#include "signals.h"
#include "wall.h"

#include <rte_tcp.h>

#define EXPIRE_BUDGET 64 /* tuples that end per loop */

/* Last, and with release: see place_leave_slot(). */
static void let_go(struct worker *w)
{
	const struct tuple *t = tuples_oldest(&w->tuples);
	uint64_t *held = &w->backends[t->backend_slot].held;

	snat_give_back(&w->snat, t->snat_index, t->backend_slot, t->snat_port_be);
	tuples_drop_oldest(&w->tuples);
	__atomic_store_n(held, *held - 1, __ATOMIC_RELEASE);
}

void stray_keep(struct worker *w, const struct tuple *tuple)
{
	if (tuples_count(&w->tuples) == TUPLES_MAX) {
		let_go(w);
		w->tuples.cut_short++;
	}
	tuples_add(&w->tuples, tuple);
	count_add(&w->backends[tuple->backend_slot].held, 1);
}

unsigned stray_expire(struct worker *w)
{
	for (unsigned i = 0; tuples_due(&w->tuples, w->run_ms); i++) {
		if (i == EXPIRE_BUDGET)
			return tuples_count(&w->tuples);
		let_go(w);
	}
	return 0;
}

static struct tuple *find(const struct worker *w, const struct item *it, unsigned snat)
{
	struct ipaddr src;

	if (!tuples_count(&w->tuples))
		return NULL;
	src = packet_src(it->frame, &it->p);
	return tuples_find(&w->tuples, &src, it->p.sport_be, snat, it->p.dport_be);
}

/* However late: the backend is there, and takes connections. */
static void hear_answer(struct worker *w, struct tuple *t, const struct rte_tcp_hdr *tcp)
{
	if (t->answered || ntohl(tcp->recv_ack) != t->isn + 1)
		return;
	t->answered = true;
	wall_heard_answer(w, t->backend_slot, CLOCK_MS(w->now_ns) - t->syn_ms);
}

/* The RST's number is that which the packet acknowledges: whatever connection it is of, the backend lets go of it. */
static enum verdict to_probe(struct worker *w, struct tuple *t, const struct item *it)
{
	const struct rte_tcp_hdr *tcp = (const void *)(it->frame + it->p.l4_off);
	bool to_syn = it->p.tcp_flags & TCP_ACK && ntohl(tcp->recv_ack) == t->isn + 1;

	if (it->p.tcp_flags & TCP_RST && to_syn)
		probe_check_failed(w, t, CONNECT_REFUSED);
	if (it->p.tcp_flags & TCP_RST || !(it->p.tcp_flags & TCP_ACK))
		return VERDICT_absorb_probe;
	if (it->p.tcp_flags & TCP_SYN)
		hear_answer(w, t, tcp);
	return VERDICT_answer_probe;
}

/* A SYN-ACK is reset, and a RST says so itself: either way the backend has no work of it. */
static enum verdict to_ghost(struct worker *w, struct tuple *t, const struct item *it)
{
	if (it->p.tcp_flags & (TCP_SYN | TCP_RST))
		signals_ghost_answered(w, t);
	if ((it->p.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST)) != (TCP_SYN | TCP_ACK))
		return VERDICT_drop_ghost;
	hear_answer(w, t, (const void *)(it->frame + it->p.l4_off));
	return VERDICT_answer_ghost;
}

enum verdict stray_packet(struct worker *w, const struct item *it, unsigned snat)
{
	struct tuple *t = find(w, it, snat);

	if (!t)
		return VERDICT_NONE;
	wall_heard(w, t->backend_slot, 0);
	return t->kind == TUPLE_PROBE ? to_probe(w, t, it) : to_ghost(w, t, it);
}

void stray_settle(struct worker *w, flow_ref down)
{
	struct burst *b = &w->burst;

	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];
		struct ipaddr dst;
		int snat;

		if (it->verdict != VERDICT_NONE || it->ref != down)
			continue;
		dst = packet_dst(it->frame, &it->p);
		snat = snat_index(&w->dp->snat, &dst);
		if (snat >= 0)
			it->verdict = stray_packet(w, it, snat);
	}
}

enum verdict stray_quoted(struct worker *w, const struct icmp_quote *q, bool refusal)
{
	int snat = snat_index(&w->dp->snat, &q->src);
	struct tuple *t;

	if (snat < 0 || q->proto != PROTO_TCP || !tuples_count(&w->tuples))
		return VERDICT_NONE;
	t = tuples_find(&w->tuples, &q->dst, q->dport_be, snat, q->sport_be);
	if (!t)
		return VERDICT_NONE;
	if (refusal && q->has_seq && ntohl(q->seq_be) == t->isn)
		probe_check_failed(w, t, CONNECT_UNREACHABLE);
	return t->kind == TUPLE_PROBE ? VERDICT_absorb_probe : VERDICT_drop_ghost;
}
