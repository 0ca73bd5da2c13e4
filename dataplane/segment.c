/* SPDX-License-Identifier: BSD-3-Clause */
#include "segment.h"
#include "route.h"
#include "tcp_options.h"
#include "tx.h"

#include <limits.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>

#define MADE_TTL 64

static uint16_t tcp_len(const struct segment_made *s)
{
	return sizeof(struct rte_tcp_hdr) + (s->timestamps ? TCP_TIMESTAMP_LEN : 0);
}

/* Without checksum. */
static void write_tcp(struct rte_tcp_hdr *tcp, const struct segment_made *s)
{
	const uint32_t timestamps_be[] = {htonl(TCP_TIMESTAMP_LAYOUT), htonl(s->tsval), htonl(s->tsecr)};

	static_assert(sizeof(timestamps_be) == TCP_TIMESTAMP_LEN, "RFC 7323 A");
	*tcp = (struct rte_tcp_hdr){
		.src_port = s->sport_be,
		.dst_port = s->dport_be,
		.sent_seq = htonl(s->seq),
		.recv_ack = htonl(s->ack),
		.data_off = tcp_len(s) / 4 << 4,
		.tcp_flags = s->flags,
		.rx_win = s->window_be,
	};
	if (s->timestamps)
		memcpy(tcp + 1, timestamps_be, sizeof(timestamps_be));
}

uint16_t segment_write4(void *at, uint32_t src_be, uint32_t dst_be, const struct segment_made *s)
{
	struct rte_ipv4_hdr *ip = at;
	struct rte_tcp_hdr *tcp = (void *)(ip + 1);

	*ip = (struct rte_ipv4_hdr){
		.version_ihl = RTE_IPV4_VHL_DEF,
		.type_of_service = s->dscp,
		.total_length = htons(sizeof(*ip) + tcp_len(s)),
		.fragment_offset = htons(RTE_IPV4_HDR_DF_FLAG),
		.time_to_live = MADE_TTL,
		.next_proto_id = PROTO_TCP,
		.src_addr = src_be,
		.dst_addr = dst_be,
	};
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	write_tcp(tcp, s);
	tcp->cksum = rte_ipv4_udptcp_cksum(ip, tcp);
	return sizeof(*ip) + tcp_len(s);
}

uint16_t segment_write6(void *at, const uint8_t src[16], const uint8_t dst[16], const struct segment_made *s)
{
	struct rte_ipv6_hdr *ip = at;
	struct rte_tcp_hdr *tcp = (void *)(ip + 1);

	*ip = (struct rte_ipv6_hdr){
		.vtc_flow = htonl(6u << 28 | (uint32_t)s->dscp << 20),
		.payload_len = htons(tcp_len(s)),
		.proto = PROTO_TCP,
		.hop_limits = MADE_TTL,
	};
	memcpy(ip->src_addr, src, 16);
	memcpy(ip->dst_addr, dst, 16);
	write_tcp(tcp, s);
	tcp->cksum = rte_ipv6_udptcp_cksum(ip, tcp);
	return sizeof(*ip) + tcp_len(s);
}

static uint16_t write_for(const struct worker *w, flow_ref ref, void *ip, struct segment_made *s)
{
	if (flow_ref_is_v6(ref)) {
		const struct flow_key6 *out = &flow_half6(&w->flows, ref)->out;

		s->sport_be = out->sport_be;
		s->dport_be = out->dport_be;
		return segment_write6(ip, out->src, out->dst, s);
	}
	const struct flow_key4 *out = &flow_half4(&w->flows, ref)->out;

	s->sport_be = out->sport_be;
	s->dport_be = out->dport_be;
	return segment_write4(ip, out->src_be, out->dst_be, s);
}

/* As rewrite.c does with what is forwarded: see numbers.h. */
static void shift_numbers(const struct flow_half *half, flow_ref ref, struct segment_made *s)
{
	if (flow_ref_dir(ref) != DIR_UP)
		return;
	s->seq += half->seq_shift;
	s->tsval += half->ts_shift;
}

bool segment_send_made(struct worker *w, const struct burst *b, flow_ref ref, struct segment_made *s, enum made kind)
{
	struct item it = {.p.l3_off = RTE_ETHER_HDR_LEN};
	struct fib_hop hop;
	uint16_t len;

	if (route_flow(w, b, ref, flow_half(&w->flows, ref), flow_cold(&w->flows, ref)->hash[flow_ref_dir(ref)],
		       &hop) != VERDICT_NONE)
		return false;
	it.m = rte_pktmbuf_alloc(w->dp->pool);
	if (!it.m)
		return false;
	it.frame = rte_pktmbuf_mtod(it.m, uint8_t *);
	shift_numbers(flow_half(&w->flows, ref), ref, s);
	s->dscp = flow_track(&w->flows, ref)->dscp[flow_ref_dir(ref)];
	len = write_for(w, ref, it.frame + RTE_ETHER_HDR_LEN, s);
	((struct rte_ether_hdr *)it.frame)->ether_type =
		htons(flow_ref_is_v6(ref) ? RTE_ETHER_TYPE_IPV6 : RTE_ETHER_TYPE_IPV4);
	it.m->data_len = it.m->pkt_len = RTE_ETHER_HDR_LEN + len;
	route_put_l2(&it, &hop);
	w->ledger.made[kind]++;
	tx_put(w, it.out_port, it.m);
	return true;
}

bool segment_send(struct worker *w, const struct burst *b, flow_ref ref, uint32_t seq, uint32_t ack, uint8_t flags,
		  enum made kind)
{
	struct segment_made s = {.seq = seq, .ack = ack, .flags = flags};

	return segment_send_made(w, b, ref, &s, kind);
}
