/* SPDX-License-Identifier: BSD-3-Clause */
#include "route.h"
#include "hash.h"
#include "note.h"

#include <rte_ether.h>
#include <rte_mbuf.h>

static void want(struct worker *w, const struct neighbour_want *want)
{
	uint64_t hash = hash_keyed(want->addr.b, sizeof(want->addr.b), w->dp->config.secret) + want->port;
	struct want_memory *memory = &w->wants[hash % WANT_MEMORY];

	if (memory->asked_ms && memory->want.port == want->port && ipaddr_equal(&memory->want.addr, &want->addr) &&
	    w->run_ms - memory->asked_ms < 1000)
		return;
	if (!gcra_test(&w->dp->wants, &w->dp->want_rate, w->now_ns)) {
		w->wants_denied++;
		return;
	}
	if (!note_add(w, &(struct note){.kind = NOTE_NEIGHBOUR, .want = *want}))
		return;
	gcra_take(&w->dp->wants, &w->dp->want_rate, w->now_ns);
	*memory = (struct want_memory){.want = *want, .asked_ms = w->run_ms ? w->run_ms : 1};
}

static enum verdict refuse(struct worker *w, enum fib_result result, const struct neighbour_want *wanted)
{
	switch (result) {
	case FIB_NO_ROUTE:
		return VERDICT_drop_no_route;
	case FIB_BLACKHOLE:
		return VERDICT_drop_route_blackhole;
	default:
		want(w, wanted);
		return VERDICT_drop_neighbour;
	}
}

enum verdict route_hop_unusable(struct worker *w, uint32_t cell, const struct fib_hop *hop)
{
	struct neighbour_want wanted = fib_want(w->dp->fib, cell);

	if (hop->usable)
		return VERDICT_drop_link_down;
	want(w, &wanted);
	return VERDICT_drop_neighbour;
}

enum verdict route_address(struct worker *w, const struct burst *b, const struct ipaddr *addr, uint64_t hash,
			   struct fib_hop *hop, uint16_t *mtu)
{
	struct neighbour_want wanted;
	uint32_t cell;
	enum fib_result result = fib_lookup(w->dp->fib, b->fib, addr, hash, &cell, mtu, &wanted);

	return result == FIB_OK ? route_use_cell(w, b, cell, hop) : refuse(w, result, &wanted);
}

static struct ipaddr out_address(const struct flow_table *t, flow_ref ref)
{
	return flow_ref_is_v6(ref) ? ipaddr_v6(flow_half6(t, ref)->out.dst) : ipaddr_v4(flow_half4(t, ref)->out.dst_be);
}

static_assert(FIB_NEIGHBOURS_MAX * 3 / 2 <= UINT16_MAX, "a cell fits the half");

static void keep(struct flow_half *half, uint32_t cell, uint32_t generation)
{
	half->neighbour = cell;
	half->route_gen = generation;
}

enum verdict route_flow_again(struct worker *w, const struct burst *b, flow_ref ref, struct flow_half *half,
			      uint64_t hash)
{
	struct ipaddr dst = out_address(&w->flows, ref);
	struct neighbour_want wanted;
	uint32_t cell;
	enum fib_result result = fib_lookup(w->dp->fib, b->fib, &dst, hash, &cell, &half->mtu, &wanted);

	if (result != FIB_OK)
		return refuse(w, result, &wanted);
	keep(half, cell, b->fib_gen);
	return VERDICT_NONE;
}

uint16_t route_flow_mtu(const struct worker *w, const struct burst *b, flow_ref ref)
{
	uint64_t hash = flow_cold(&w->flows, ref)->hash[flow_ref_dir(ref)];
	struct flow_half *half = flow_half(&w->flows, ref);
	struct ipaddr dst = out_address(&w->flows, ref);
	struct neighbour_want wanted;
	uint32_t cell;

	if (half->route_gen == b->fib_gen)
		return half->mtu;
	/* Kept if it will do for the direction's first packet, too. */
	switch (fib_lookup(w->dp->fib, b->fib, &dst, hash, &cell, &half->mtu, &wanted)) {
	case FIB_OK:
		keep(half, cell, b->fib_gen);
		return half->mtu;
	case FIB_NO_NEIGHBOUR:
		return half->mtu;
	default:
		return UINT16_MAX;
	}
}

void route_strip(struct item *it)
{
	unsigned tag_len = it->p.l3_off - RTE_ETHER_HDR_LEN;

	it->frame += tag_len;
	rte_pktmbuf_adj(it->m, tag_len);
	it->p.l3_off -= tag_len;
	it->p.l4_off -= tag_len;
	it->p.payload_off -= tag_len;
	it->m->data_len = it->m->pkt_len = RTE_ETHER_HDR_LEN + it->p.ip_len;
}
