/* SPDX-License-Identifier: BSD-3-Clause */
#include "frames.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_ether.h>
#include <rte_icmp.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

static const uint8_t ethernet_addresses[12] = {0x02, 0, 0, 0, 0, 0x01, 0x02, 0, 0, 0, 0, 0x02};

static size_t l4_header_len(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return sizeof(struct rte_tcp_hdr);
	case IPPROTO_UDP:
		return sizeof(struct rte_udp_hdr);
	default:
		return sizeof(struct rte_icmp_hdr);
	}
}

static void make_l4(const struct frame_spec *spec, void *l4, size_t len)
{
	memset(l4, 0, l4_header_len(spec->proto));
	if (spec->proto == IPPROTO_TCP) {
		*(struct rte_tcp_hdr *)l4 = (struct rte_tcp_hdr){
			.src_port = spec->sport_be,
			.dst_port = spec->dport_be,
			.sent_seq = spec->seq_be,
			.recv_ack = spec->ack_be,
			.data_off = sizeof(struct rte_tcp_hdr) / 4 << 4,
			.tcp_flags = spec->tcp_flags ? spec->tcp_flags : RTE_TCP_ACK_FLAG,
			.rx_win = spec->shut ? 0 : htons(65535),
		};
	} else if (spec->proto == IPPROTO_UDP) {
		*(struct rte_udp_hdr *)l4 = (struct rte_udp_hdr){
			.src_port = spec->sport_be,
			.dst_port = spec->dport_be,
			.dgram_len = htons(len),
		};
	} else {
		memcpy(l4, &spec->sport_be, sizeof(spec->sport_be));
	}
}

static size_t make_ip4(const struct frame_spec *spec, uint8_t *packet, size_t l4_len)
{
	struct rte_ipv4_hdr *ip = (void *)packet;
	void *l4 = ip + 1;

	*ip = (struct rte_ipv4_hdr){
		.version_ihl = RTE_IPV4_VHL_DEF,
		.total_length = htons(sizeof(*ip) + l4_len),
		.packet_id = htons(0x1234),
		.fragment_offset = htons(RTE_IPV4_HDR_DF_FLAG),
		.time_to_live = 64,
		.next_proto_id = spec->proto,
		.src_addr = ipaddr_v4_be(&spec->src),
		.dst_addr = ipaddr_v4_be(&spec->dst),
	};
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	if (spec->proto == IPPROTO_TCP)
		((struct rte_tcp_hdr *)l4)->cksum = rte_ipv4_udptcp_cksum(ip, l4);
	else if (spec->proto == IPPROTO_UDP)
		((struct rte_udp_hdr *)l4)->dgram_cksum = rte_ipv4_udptcp_cksum(ip, l4);
	else
		((struct rte_icmp_hdr *)l4)->icmp_cksum = ~rte_raw_cksum(l4, l4_len);
	return sizeof(*ip) + l4_len;
}

/* With the pseudo-header (RFC 4443 2.3). */
static uint16_t checksum_icmp6(const struct rte_ipv6_hdr *ip, const void *icmp, size_t len)
{
	uint32_t sum = rte_ipv6_phdr_cksum(ip, 0) + rte_raw_cksum(icmp, len);

	return ~((sum & 0xffff) + (sum >> 16));
}

static size_t make_ip6(const struct frame_spec *spec, uint8_t *packet, size_t l4_len)
{
	struct rte_ipv6_hdr *ip = (void *)packet;
	void *l4 = ip + 1;

	*ip = (struct rte_ipv6_hdr){
		.vtc_flow = htonl(6U << 28),
		.payload_len = htons(l4_len),
		.proto = spec->proto,
		.hop_limits = 64,
	};
	memcpy(ip->src_addr, spec->src.b, sizeof(ip->src_addr));
	memcpy(ip->dst_addr, spec->dst.b, sizeof(ip->dst_addr));
	if (spec->proto == IPPROTO_TCP)
		((struct rte_tcp_hdr *)l4)->cksum = rte_ipv6_udptcp_cksum(ip, l4);
	else if (spec->proto == IPPROTO_UDP)
		((struct rte_udp_hdr *)l4)->dgram_cksum = rte_ipv6_udptcp_cksum(ip, l4);
	else
		((struct rte_icmp_hdr *)l4)->icmp_cksum = checksum_icmp6(ip, l4, l4_len);
	return sizeof(*ip) + l4_len;
}

size_t frame_make(const struct frame_spec *spec, uint8_t *frame)
{
	bool v4 = ipaddr_is_v4(&spec->src);
	uint8_t *packet = frame + RTE_ETHER_HDR_LEN;
	uint8_t *l4 = packet + (v4 ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr));
	size_t header_len = l4_header_len(spec->proto), l4_len = header_len + spec->payload_len;
	uint16_t type_be = htons(v4 ? RTE_ETHER_TYPE_IPV4 : RTE_ETHER_TYPE_IPV6);

	memcpy(frame, ethernet_addresses, sizeof(ethernet_addresses));
	memcpy(frame + sizeof(ethernet_addresses), &type_be, sizeof(type_be));
	make_l4(spec, l4, l4_len);
	for (size_t i = 0; i < spec->payload_len; i++)
		l4[header_len + i] = i;
	return RTE_ETHER_HDR_LEN + (v4 ? make_ip4 : make_ip6)(spec, packet, l4_len);
}

void frame_fix_ip4(uint8_t *ip)
{
	struct rte_ipv4_hdr *header = (void *)ip;

	header->hdr_checksum = 0;
	header->hdr_checksum = rte_ipv4_cksum(header);
}

/* One's complement sum of bytes, which begin at an even offset of what is summed. */
static uint32_t add_sum(uint32_t sum, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static const char *l4_checksum_error(uint8_t proto, uint32_t pseudo, const uint8_t *l4, size_t len, bool v6)
{
	static const uint8_t none[2];

	if (proto == IPPROTO_UDP && !v6 && memcmp(l4 + 6, none, 2) == 0)
		return NULL;
	if (proto == IPPROTO_UDP)
		len = (size_t)l4[4] << 8 | l4[5];
	if (proto == IPPROTO_ICMP)
		return add_sum(0, l4, len) == 0xffff ? NULL : "ICMP checksum";
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP && proto != IPPROTO_ICMPV6)
		return NULL;
	return add_sum(pseudo + proto + len, l4, len) == 0xffff ? NULL : "transport checksum";
}

const char *frame_checksum_error(const uint8_t *frame)
{
	const uint8_t *ip = frame + RTE_ETHER_HDR_LEN;
	size_t header = (ip[0] & 15) * 4;

	if (frame[12] == 0x86)
		return l4_checksum_error(ip[6], add_sum(0, ip + 8, 32), ip + 40, (size_t)ip[4] << 8 | ip[5], true);
	if (add_sum(0, ip, header) != 0xffff)
		return "IPv4 header checksum";
	return l4_checksum_error(ip[9], add_sum(0, ip + 12, 8), ip + header, ((size_t)ip[2] << 8 | ip[3]) - header,
				 false);
}

size_t frame_tag(uint8_t *frame, size_t len, uint16_t tpid, uint16_t tci)
{
	const uint8_t tag[] = {tpid >> 8, tpid, tci >> 8, tci};

	memmove(frame + sizeof(ethernet_addresses) + sizeof(tag), frame + sizeof(ethernet_addresses),
		len - sizeof(ethernet_addresses));
	memcpy(frame + sizeof(ethernet_addresses), tag, sizeof(tag));
	return len + sizeof(tag);
}

size_t frame_insert6(uint8_t *frame, size_t len, uint8_t next, const uint8_t *insert, size_t n)
{
	struct rte_ipv6_hdr *ip = (void *)(frame + RTE_ETHER_HDR_LEN);
	uint8_t *behind = (uint8_t *)(ip + 1);

	memmove(behind + n, behind, frame + len - behind);
	memcpy(behind, insert, n);
	ip->proto = next;
	ip->payload_len = htons(ntohs(ip->payload_len) + n);
	return len + n;
}
