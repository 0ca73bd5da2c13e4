/* SPDX-License-Identifier: BSD-3-Clause */
#include "answer.h"
#include "checksum.h"
#include "icmp.h"
#include "route.h"
#include "segment.h"

#include <rte_ether.h>
#include <rte_icmp.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>

#define MADE_TTL 64

/* --- RST --- */

/*
 * RFC 9293 3.10.7.1: a segment with ACK gets <SEQ=SEG.ACK><CTL=RST>; one without gets
 * <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>, which for a SYN is its ISN + 1 (+ data).
 */
static struct segment_made rst_to(const struct worker *w, const struct item *it)
{
	const struct rte_tcp_hdr *to = (const void *)(it->frame + it->p.l4_off);
	uint32_t len = it->p.payload_len + !!(it->p.tcp_flags & TCP_SYN) + !!(it->p.tcp_flags & TCP_FIN);
	struct segment_made rst = {.sport_be = to->dst_port, .dport_be = to->src_port};

	if (it->ref != FLOW_REF_NONE)
		rst.dscp = flow_track(&w->flows, it->ref)->dscp[!flow_ref_dir(it->ref)];
	if (it->p.tcp_flags & TCP_ACK) {
		rst.seq = ntohl(to->recv_ack);
		rst.flags = TCP_RST;
	} else {
		rst.ack = ntohl(to->sent_seq) + len;
		rst.flags = TCP_RST | TCP_ACK;
	}
	return rst;
}

static void make_rst(const struct worker *w, struct item *it)
{
	struct segment_made rst = rst_to(w, it);
	uint8_t *ip = it->frame + it->p.l3_off;

	if (it->p.family == 4) {
		it->p.ip_len =
			segment_write4(ip, packet_dst4_be(it->frame, &it->p), packet_src4_be(it->frame, &it->p), &rst);
	} else {
		struct rte_ipv6_hdr old = *packet_ip6(it->frame, &it->p);

		it->p.ip_len = segment_write6(ip, old.dst_addr, old.src_addr, &rst);
	}
}

/* --- echo --- */

/* Everything but type, addresses and TTL stays; swapping addresses changes no sum. */
static void make_echo4(struct item *it)
{
	struct rte_ipv4_hdr *ip = (void *)(it->frame + it->p.l3_off);
	struct rte_icmp_hdr *icmp = (void *)(it->frame + it->p.l4_off);
	uint32_t src_be = ip->src_addr;
	uint16_t ttl_old_be, ttl_new_be, sum;

	memcpy(&ttl_old_be, &ip->time_to_live, 2);
	ip->time_to_live = MADE_TTL;
	memcpy(&ttl_new_be, &ip->time_to_live, 2);
	ip->hdr_checksum = csum_update16(ip->hdr_checksum, ttl_old_be, ttl_new_be);
	ip->src_addr = ip->dst_addr;
	ip->dst_addr = src_be;
	icmp->icmp_type = RTE_IP_ICMP_ECHO_REPLY;
	sum = csum_update16(icmp->icmp_cksum, htons(0x0800), 0);
	/* A reply may be nothing but zeros, whose sum is ~0; for all others 0 and ~0 are the same. */
	icmp->icmp_cksum = sum ? sum : 0xffff;
}

static void make_echo6(struct item *it)
{
	struct rte_ipv6_hdr *ip = (void *)(it->frame + it->p.l3_off), old = *ip;
	struct rte_icmp_hdr *icmp = (void *)(it->frame + it->p.l4_off);

	memcpy(ip->src_addr, old.dst_addr, 16);
	memcpy(ip->dst_addr, old.src_addr, 16);
	ip->hop_limits = MADE_TTL;
	icmp->icmp_type = 129; /* echo reply, RFC 4443 4.2 */
	icmp->icmp_cksum = csum_update16(icmp->icmp_cksum, htons(0x8000), htons(0x8100));
}

static void make_echo(struct item *it)
{
	if (it->p.family == 4)
		make_echo4(it);
	else
		make_echo6(it);
}

/* --- ICMP errors --- */

/*
 * In the name of the address that the packet came to: it is routable, and the sender's own firewall knows it. Returns
 * false if such a packet is not answered.
 */
static bool make_icmp(struct item *it, uint16_t mtu)
{
	uint8_t made[ICMP6_ERROR_MAX], *ip = it->frame + it->p.l3_off;
	struct ipaddr src = packet_dst(it->frame, &it->p);
	size_t size = it->p.family == 4 ? ICMP4_ERROR_MAX : ICMP6_ERROR_MAX, len;

	switch (it->verdict) {
	case VERDICT_answer_ttl_exceeded:
		len = icmp_build_time_exceeded(made, size, &src, ip, it->p.ip_len);
		break;
	case VERDICT_answer_unreachable:
	case VERDICT_answer_wall_unreachable:
		len = icmp_build_port_unreachable(made, size, &src, ip, it->p.ip_len);
		break;
	default:
		len = icmp_build_ptb(made, size, &src, ip, it->p.ip_len, mtu);
	}
	if (len == 0 || it->p.l3_off + len > (size_t)it->m->data_len + rte_pktmbuf_tailroom(it->m))
		return false;
	memcpy(ip, made, len);
	it->p.ip_len = len;
	return true;
}

/* --- which, whether, where to --- */

/*
 * To a backend, about a SYN of ours: a RST that it does not get costs it a half-open connection, until it sends its
 * SYN-ACK again. So these go before refusals; those to ends of flows go before them, as a flow ends once.
 */
static enum verdict limit_backend(struct worker *w, enum verdict verdict)
{
	return answer_limits_backend(w->limits, w->now_ns) ? verdict : VERDICT_shed_backend_rst;
}

static enum verdict limit(struct worker *w, const struct item *it, const struct ipaddr *to)
{
	enum verdict verdict = it->verdict;

	switch (verdict) {
	case VERDICT_answer_ghost:
	case VERDICT_answer_probe:
		return limit_backend(w, verdict);
	case VERDICT_answer_stray_rst:
		return answer_limits_stray(w->limits, to, w->now_ns) ? verdict : VERDICT_shed_stray_limit;
	case VERDICT_answer_reset_again:
		return verdict; /* limited in silence.c */
	case VERDICT_answer_echo:
		return answer_limits_echo(w->limits, w->now_ns) ? verdict : VERDICT_shed_icmp_limit;
	case VERDICT_answer_too_big:
		return answer_limits_ptb(w->limits, it->hash, to, w->now_ns) ? verdict : VERDICT_shed_icmp_limit;
	case VERDICT_answer_ttl_exceeded:
		return answer_limits_icmp(w->limits, to, w->now_ns) ? verdict : VERDICT_shed_icmp_limit;
	default:
		return verdict; /* refused flows: limited where they are refused, in admit.c and storm.c */
	}
}

static bool make(const struct worker *w, struct item *it)
{
	switch (it->verdict) {
	case VERDICT_answer_echo:
		make_echo(it);
		return true;
	case VERDICT_answer_ttl_exceeded:
	case VERDICT_answer_unreachable:
	case VERDICT_answer_wall_unreachable:
	case VERDICT_answer_too_big:
		return make_icmp(it, it->ref == FLOW_REF_NONE ? 0 : flow_half(&w->flows, it->ref)->mtu);
	default:
		make_rst(w, it);
		return true;
	}
}

void answer(struct worker *w, const struct burst *b, struct item *it)
{
	struct ipaddr to = packet_src(it->frame, &it->p);
	enum verdict routed;
	struct fib_hop hop;
	uint16_t mtu;

	/* What came to many is answered by none (RFC 1122 3.2.2, 4.2.3.10). */
	if (it->frame[0] & RTE_ETHER_GROUP_ADDR) {
		it->verdict = VERDICT_drop_unanswerable;
		return;
	}
	it->verdict = limit(w, it, &to);
	if (verdict_info[it->verdict].class != CLASS_ANSWERED)
		return;
	routed = route_address(w, b, &to, it->hash, &hop, &mtu);
	if (routed != VERDICT_NONE) {
		it->verdict = routed;
		return;
	}
	if (!make(w, it)) {
		it->verdict = VERDICT_drop_unanswerable;
		return;
	}
	/* An echo reply is as long as its request; what is made here never is. */
	if (it->p.ip_len > mtu) {
		it->verdict = VERDICT_drop_too_big;
		return;
	}
	route_put_l2(it, &hop);
	it->m->data_len = it->m->pkt_len = RTE_ETHER_HDR_LEN + it->p.ip_len;
}
