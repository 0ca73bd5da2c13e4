/* SPDX-License-Identifier: BSD-3-Clause */
#include "rewrite.h"
#include "checksum.h"
#include "path.h"
#include "place.h"
#include "route.h"

#include <assert.h>
#include <rte_tcp.h>
#include <rte_udp.h>

/* Source and destination port lie alike in both headers. */
static inline void put_l4(uint8_t *l4, uint8_t proto, uint32_t ports_be, uint16_t delta)
{
	memcpy(l4, &ports_be, sizeof(ports_be));
	if (proto == PROTO_TCP) {
		struct rte_tcp_hdr *tcp = (void *)l4;

		tcp->cksum = csum_apply(tcp->cksum, delta);
	} else {
		struct rte_udp_hdr *udp = (void *)l4;

		udp->dgram_cksum = csum_apply_udp(udp->dgram_cksum, delta);
	}
}

static inline void rewrite4(const struct flow_half4 *half, struct item *it)
{
	struct rte_ipv4_hdr *ip = (void *)(it->frame + it->p.l3_off);

	ip->time_to_live--;
	ip->hdr_checksum = csum_apply(ip->hdr_checksum, half->common.ip_delta);
	memcpy(&ip->src_addr, &half->out.addrs_be, sizeof(half->out.addrs_be)); /* both addresses */
	put_l4(it->frame + it->p.l4_off, half->common.proto, half->out.ports_be, half->common.l4_delta);
}

static inline void rewrite6(const struct flow_half6 *half, struct item *it)
{
	struct rte_ipv6_hdr *ip = (void *)(it->frame + it->p.l3_off);

	ip->hop_limits--;
	memcpy(ip->src_addr, half->out.addrs_be, sizeof(half->out.addrs_be)); /* both addresses */
	put_l4(it->frame + it->p.l4_off, half->common.proto, half->out.ports_be, half->common.l4_delta);
}

static inline void account(struct worker *w, const struct item *it, struct flow_half *half)
{
	half->bytes += it->p.ip_len;
	if (__builtin_expect(++half->packets == FLOW_ROLL_UP_PACKETS, 0))
		flow_roll_up(w, it->ref);
}

/* Its sender hears what fits, unless it lets routers cut it. */
static __attribute__((noinline)) enum verdict too_long(struct worker *w, const struct burst *b, struct item *it,
						       struct flow_half *half, const struct fib_hop *hop)
{
	if (it->p.family != 4 || it->p.flags & PACKET_DF)
		return VERDICT_answer_too_big;
	account(w, it, half);
	route_put_l2(it, hop);
	if (it->p.tcp_flags & TCP_SYN)
		path_clamp(w, b, it);
	return VERDICT_forwarded_fragments;
}

/* All that is not translation: may it leave, which way, and its account. */
static inline enum verdict leave(struct worker *w, const struct burst *b, struct item *it, struct flow_half *half)
{
	struct fib_hop hop;
	enum verdict verdict;

	if (__builtin_expect(it->p.ttl <= 1, 0))
		return VERDICT_answer_ttl_exceeded;
	verdict = route_flow(w, b, it->ref, half, it->hash, &hop);
	if (__builtin_expect(verdict != VERDICT_NONE, 0))
		return verdict;
	if (__builtin_expect(it->p.ip_len > half->mtu, 0))
		return too_long(w, b, it, half, &hop);
	account(w, it, half);
	route_put_l2(it, &hop);
	if (__builtin_expect(it->p.tcp_flags & TCP_SYN, 0))
		path_clamp(w, b, it);
	return VERDICT_forwarded;
}

static_assert(VERDICT_forwarded == 0 && VERDICT_forwarded_fragments == 1, "one comparison tells both");

static inline enum verdict rewrite(struct worker *w, const struct burst *b, struct item *it)
{
	enum verdict verdict;

	if (flow_ref_is_v6(it->ref)) {
		struct flow_half6 *half = flow_half6(&w->flows, it->ref);

		verdict = leave(w, b, it, &half->common);
		if (verdict == VERDICT_forwarded)
			rewrite6(half, it);
	} else {
		struct flow_half4 *half = flow_half4(&w->flows, it->ref);

		verdict = leave(w, b, it, &half->common);
		if (verdict <= VERDICT_forwarded_fragments)
			rewrite4(half, it);
	}
	return verdict;
}

enum verdict rewrite_item(struct worker *w, const struct burst *b, struct item *it)
{
	return rewrite(w, b, it);
}

void rewrite_burst(struct worker *w, struct burst *b)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->items[i].verdict == VERDICT_NONE)
			b->items[i].verdict = rewrite(w, b, &b->items[i]);
}
