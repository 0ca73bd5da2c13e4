/* SPDX-License-Identifier: BSD-3-Clause */
#include "rewrite.h"
#include "checksum.h"
#include "path.h"
#include "place.h"
#include "route.h"
#include "tcp_options.h"

#include <assert.h>
#include <rte_tcp.h>
#include <rte_udp.h>

/* --- the client's numbers: what shifting them adds to the checksum --- */

static inline uint64_t shift_word(uint8_t *at, uint32_t shift)
{
	uint32_t from_be, to_be;

	memcpy(&from_be, at, sizeof(from_be));
	to_be = htonl(ntohl(from_be) + shift);
	memcpy(at, &to_be, sizeof(to_be));
	return csum_sum32(0, from_be, to_be);
}

/* At any offset. */
static void shift_option_word(struct rte_tcp_hdr *tcp, unsigned off, uint32_t shift, uint32_t *delta)
{
	uint32_t word_be;

	memcpy(&word_be, (uint8_t *)tcp + off, sizeof(word_be));
	word_be = htonl(ntohl(word_be) + shift);
	csum_replace((uint8_t *)tcp, off, &word_be, sizeof(word_be), delta);
}

/* An echo counts where there is an acknowledgement (RFC 7323 3.2), and 0 stays 0: it says "none yet". */
static bool is_echo(const struct item *it, const uint8_t *at)
{
	uint32_t word_be;

	memcpy(&word_be, at, sizeof(word_be));
	return it->p.tcp_flags & TCP_ACK && word_be;
}

static void shift_option(const struct flow_half *half, const struct item *it, struct rte_tcp_hdr *tcp, unsigned off,
			 uint32_t *delta)
{
	const uint8_t *option = (const uint8_t *)tcp + off;
	bool down = flow_ref_dir(it->ref) == DIR_DOWN;

	if (option[0] == TCP_OPTION_TIMESTAMPS && option[1] == TCP_OPTION_TIMESTAMPS_LEN) {
		if (!down)
			shift_option_word(tcp, off + 2, half->ts_shift, delta);
		else if (is_echo(it, option + 6))
			shift_option_word(tcp, off + 6, half->ts_shift, delta);
	} else if (option[0] == TCP_OPTION_SACK && down) {
		for (unsigned edge = 2; edge + 4 <= option[1]; edge += 4)
			shift_option_word(tcp, off + edge, half->seq_shift, delta);
	}
}

/* Options other than nothing but timestamps in their usual layout: SACK, SYNs. */
static __attribute__((noinline)) uint64_t shift_options(const struct flow_half *half, const struct item *it,
							struct rte_tcp_hdr *tcp)
{
	const uint8_t *options = (const uint8_t *)(tcp + 1);
	unsigned len = tcp_options_len(tcp);
	uint32_t delta = 0;

	for (unsigned at = 0; (at = tcp_option_at(options, len, at)) < len; at += options[at + 1])
		shift_option(half, it, tcp, sizeof(*tcp) + at, &delta);
	return delta;
}

static inline uint64_t shift_timestamps(const struct flow_half *half, const struct item *it, struct rte_tcp_hdr *tcp)
{
	uint8_t *at = (uint8_t *)(tcp + 1);
	uint32_t layout_be;

	memcpy(&layout_be, at, sizeof(layout_be));
	if (__builtin_expect(tcp->data_off >> 4 != (sizeof(*tcp) + TCP_TIMESTAMP_LEN) / 4 ||
				     layout_be != htonl(TCP_TIMESTAMP_LAYOUT),
			     0))
		return shift_options(half, it, tcp);
	if (flow_ref_dir(it->ref) == DIR_UP)
		return shift_word(at + 4, half->ts_shift);
	return is_echo(it, at + 8) ? shift_word(at + 8, half->ts_shift) : 0;
}

/* The client's sequence number; or what the backend acknowledges, if it does. */
static inline uint64_t shift_numbers(const struct flow_half *half, const struct item *it, struct rte_tcp_hdr *tcp)
{
	enum flow_dir dir = flow_ref_dir(it->ref);
	uint64_t sum = 0;

	static_assert(offsetof(struct rte_tcp_hdr, recv_ack) == offsetof(struct rte_tcp_hdr, sent_seq) + 4, "RFC 9293");
	if (dir == DIR_UP || it->p.tcp_flags & TCP_ACK)
		sum = shift_word((uint8_t *)&tcp->sent_seq + 4 * dir, half->seq_shift);
	if (tcp->data_off > sizeof(*tcp) / 4 << 4)
		sum += shift_timestamps(half, it, tcp);
	return sum;
}

/* --- addresses and ports --- */

/* What a TTL less by one adds to the IPv4 header's checksum. */
#define TTL_LESS ((uint16_t)~htons(0x0100))

/* Source and destination port lie alike in both headers. `sum`: what the change of addresses and ports adds. */
static inline __attribute__((always_inline)) void put_l4(const struct flow_half *half, struct item *it,
							 uint32_t ports_be, uint64_t sum)
{
	uint8_t *l4 = it->frame + it->p.l4_off;

	memcpy(l4, &ports_be, sizeof(ports_be));
	if (!half->udp) {
		struct rte_tcp_hdr *tcp = (void *)l4;

		sum += shift_numbers(half, it, tcp);
		tcp->cksum = csum_apply_sum(tcp->cksum, sum);
	} else {
		struct rte_udp_hdr *udp = (void *)l4;

		udp->dgram_cksum = csum_apply_udp(udp->dgram_cksum, csum_sum_fold(sum));
	}
}

static inline void rewrite4(const struct flow_half4 *half, struct item *it)
{
	struct rte_ipv4_hdr *ip = (void *)(it->frame + it->p.l3_off);
	uint64_t sum = csum_change64(half->in.addrs_be, half->out.addrs_be);

	ip->time_to_live--;
	ip->hdr_checksum = csum_apply_sum(ip->hdr_checksum, sum + TTL_LESS);
	memcpy(&ip->src_addr, &half->out.addrs_be, sizeof(half->out.addrs_be)); /* both addresses */
	put_l4(&half->common, it, half->out.ports_be, csum_sum32(sum, half->in.ports_be, half->out.ports_be));
}

static inline void rewrite6(const struct flow_half6 *half, struct item *it)
{
	struct rte_ipv6_hdr *ip = (void *)(it->frame + it->p.l3_off);

	ip->hop_limits--;
	memcpy(ip->src_addr, half->out.addrs_be, sizeof(half->out.addrs_be)); /* both addresses */
	put_l4(&half->common, it, half->out.ports_be, half->l4_delta);
}

static inline void account(struct worker *w, const struct item *it, struct flow_half *half)
{
	half->volume += FLOW_VOLUME(it->p.ip_len);
	if (__builtin_expect(half->packets == FLOW_ROLL_UP_PACKETS, 0))
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
static inline __attribute__((always_inline)) enum verdict leave(struct worker *w, const struct burst *b,
								struct item *it, struct flow_half *half)
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

static inline __attribute__((always_inline)) enum verdict rewrite(struct worker *w, const struct burst *b,
								  struct item *it)
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
