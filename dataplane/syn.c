/* SPDX-License-Identifier: BSD-3-Clause */
#include "syn.h"
#include "lookup.h"

#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>

enum {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
	OPTION_WINDOW_SCALE = 3,
	OPTION_SACK_PERMITTED = 4,
	OPTION_TIMESTAMPS = 8,
	OPTION_FAST_OPEN = 34, /* RFC 7413 4.1.1 */
};

/* --- judging --- */

#define TTL_ENOUGH 16  /* hops between the gateway and any backend */
#define MSS_ENOUGH 536 /* RFC 9293 3.7.1; less is dropped where small segments are feared */

static bool is_common_option(uint8_t option)
{
	return option == OPTION_MSS || option == OPTION_WINDOW_SCALE || option == OPTION_SACK_PERMITTED ||
	       option == OPTION_TIMESTAMPS || option == OPTION_FAST_OPEN;
}

static bool is_mss_common(const uint8_t *option)
{
	return option[1] == 4 && (option[2] << 8 | option[3]) >= MSS_ENOUGH;
}

/* `fast_open`: whether that option is among them. */
static bool are_options_common(const uint8_t *options, uint8_t len, bool *fast_open)
{
	*fast_open = false;
	for (uint8_t at = 0; at < len && options[at] != OPTION_END;) {
		if (options[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (!is_common_option(options[at]) || at + 1 >= len || options[at + 1] < 2 ||
		    options[at + 1] > len - at)
			return false;
		if (options[at] == OPTION_MSS && !is_mss_common(&options[at]))
			return false;
		*fast_open |= options[at] == OPTION_FAST_OPEN;
		at += options[at + 1];
	}
	return true;
}

/* SYN, and what it may say of ECN (RFC 3168 6.1.1). */
static bool are_flags_common(uint8_t flags)
{
	return (flags & ~(TCP_ECE | TCP_CWR)) == TCP_SYN;
}

bool syn_is_ordinary(const struct item *it)
{
	const uint8_t *options = it->frame + it->p.l4_off + sizeof(struct rte_tcp_hdr);
	bool fast_open;

	return it->p.ttl > TTL_ENOUGH && !(it->p.flags & PACKET_OPTIONS) && are_flags_common(it->p.tcp_flags) &&
	       are_options_common(options, it->p.payload_off - it->p.l4_off - sizeof(struct rte_tcp_hdr), &fast_open) &&
	       (fast_open || !it->p.payload_len) && packet_tcp_is_right(it->frame, &it->p);
}

/* --- keeping --- */

/*
 * Options but fast open's, which becomes NOPs: lengths and alignment stay. Malformed ones are kept as they are: the
 * backend shall judge them.
 */
static void keep_options(struct syn_kept *kept, const uint8_t *options, uint8_t len)
{
	memcpy(kept->options, options, len);
	kept->options_len = len;
	for (uint8_t at = 0; at < len && options[at] != OPTION_END;) {
		if (options[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (at + 1 >= len || options[at + 1] < 2 || options[at + 1] > len - at)
			return;
		if (options[at] == OPTION_FAST_OPEN)
			memset(&kept->options[at], OPTION_NOP, options[at + 1]);
		at += options[at + 1];
	}
}

void syn_keep(struct syn_kept *kept, const struct item *it)
{
	const struct rte_tcp_hdr *tcp = (const void *)(it->frame + it->p.l4_off);

	*kept = (struct syn_kept){
		.tcp_flags = it->p.tcp_flags,
		.ttl = it->p.ttl,
		.window_be = tcp->rx_win,
		.isn = ntohl(tcp->sent_seq),
	};
	if (it->p.family == 4) {
		kept->tos = packet_ip4(it->frame, &it->p)->type_of_service;
	} else {
		uint32_t vtc_flow = ntohl(packet_ip6(it->frame, &it->p)->vtc_flow);

		kept->tos = vtc_flow >> 20;
		kept->flow_label = vtc_flow & 0xfffff;
	}
	keep_options(kept, (const uint8_t *)(tcp + 1), it->p.payload_off - it->p.l4_off - sizeof(*tcp));
}

void syn_of_flow(const struct flow_table *t, flow_ref ref, struct syn *out)
{
	struct flow_addrs a;

	flow_addrs(t, ref, &a);
	*out = (struct syn){
		.src = a.client,
		.dst = a.vip,
		.sport_be = a.client_port_be,
		.dport_be = a.vip_port_be,
		.kept = *flow_syn(t, ref),
	};
}

/* --- making --- */

static uint16_t write_ip4(const struct syn *syn, struct rte_ipv4_hdr *ip, uint16_t tcp_len)
{
	*ip = (struct rte_ipv4_hdr){
		.version_ihl = RTE_IPV4_VHL_DEF,
		.type_of_service = syn->kept.tos,
		.total_length = htons(sizeof(*ip) + tcp_len),
		.fragment_offset = htons(RTE_IPV4_HDR_DF_FLAG),
		.time_to_live = syn->kept.ttl,
		.next_proto_id = PROTO_TCP,
		.src_addr = ipaddr_v4_be(&syn->src),
		.dst_addr = ipaddr_v4_be(&syn->dst),
	};
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	return sizeof(*ip);
}

static uint16_t write_ip6(const struct syn *syn, struct rte_ipv6_hdr *ip, uint16_t tcp_len)
{
	*ip = (struct rte_ipv6_hdr){
		.vtc_flow = htonl(6u << 28 | (uint32_t)syn->kept.tos << 20 | syn->kept.flow_label),
		.payload_len = htons(tcp_len),
		.proto = PROTO_TCP,
		.hop_limits = syn->kept.ttl,
	};
	memcpy(ip->src_addr, syn->src.b, 16);
	memcpy(ip->dst_addr, syn->dst.b, 16);
	return sizeof(*ip);
}

/* Returns the length of the frame. */
static uint16_t write_frame(const struct syn *syn, uint8_t *frame)
{
	struct rte_ether_hdr *ether = (void *)frame;
	uint8_t *ip = frame + sizeof(*ether);
	uint16_t tcp_len = sizeof(struct rte_tcp_hdr) + syn->kept.options_len;
	bool v4 = ipaddr_is_v4(&syn->src);
	uint16_t ip_len = v4 ? write_ip4(syn, (void *)ip, tcp_len) : write_ip6(syn, (void *)ip, tcp_len);
	struct rte_tcp_hdr *tcp = (void *)(ip + ip_len);

	*ether = (struct rte_ether_hdr){.ether_type = htons(v4 ? RTE_ETHER_TYPE_IPV4 : RTE_ETHER_TYPE_IPV6)};
	*tcp = (struct rte_tcp_hdr){
		.src_port = syn->sport_be,
		.dst_port = syn->dport_be,
		.sent_seq = htonl(syn->kept.isn),
		.data_off = tcp_len / 4 << 4,
		.tcp_flags = syn->kept.tcp_flags,
		.rx_win = syn->kept.window_be,
	};
	memcpy(tcp + 1, syn->kept.options, syn->kept.options_len);
	tcp->cksum = v4 ? rte_ipv4_udptcp_cksum((void *)ip, tcp) : rte_ipv6_udptcp_cksum((void *)ip, tcp);
	return sizeof(*ether) + ip_len + tcp_len;
}

bool syn_make(const struct worker *w, const struct syn *syn, struct item *it)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(w->dp->pool);

	if (!m)
		return false;
	*it = (struct item){.m = m, .frame = rte_pktmbuf_mtod(m, uint8_t *), .ref = FLOW_REF_NONE};
	m->data_len = m->pkt_len = write_frame(syn, it->frame);
	it->verdict = parse(it->frame, m->data_len, &it->p);
	if (it->verdict != VERDICT_NONE) {
		rte_pktmbuf_free(m);
		return false;
	}
	it->hash = item_hash(w, it);
	return true;
}
