/* SPDX-License-Identifier: BSD-3-Clause */
#include "parse.h"

#include <endian.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <string.h>

#include <rte_branch_prediction.h>
#include <rte_ether.h>
#include <rte_icmp.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#define IPV6_MAX_EXTENSIONS      8
#define IPV6_MAX_EXTENSION_BYTES 256
/* Shorter frames are padded. */
#define ETHER_PAYLOAD_MIN        (RTE_ETHER_MIN_LEN - RTE_ETHER_CRC_LEN - RTE_ETHER_HDR_LEN)

#define VLAN_ID_MASK             0x0fff

enum {
	ICMP4_UNREACHABLE = 3,
	ICMP4_ECHO_REQUEST = 8,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER_PROBLEM = 12,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_ECHO_REQ = 128,
};

struct ipv6_fragment {
	uint8_t next;
	uint8_t reserved;
	uint16_t offset_be; /* in units of 8 in the upper 13 bits, "more" in the lowest */
	uint32_t id_be;
} __attribute__((packed));

#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_FRAGMENT_MORE   0x0001

/*
 * Bit f is set if TCP flags f (FIN to URG; ECE and CWR do not matter) are what a stack may send. The nine combinations
 * are those that Linux's conntrack lets through, each with and without PSH, so that a kernel NAT in our place would
 * refuse the same. Refused: none at all, SYN with FIN or RST, FIN with RST, RST with URG, and all but SYN and RST
 * without ACK (RFC 9293 3.4: once a connection is established ACK is always set).
 */
#define FLAGS_OK(f)          (UINT64_C(1) << (f) | UINT64_C(1) << ((f) | TCP_PSH))
static const uint64_t tcp_flags_ok = FLAGS_OK(TCP_SYN) | FLAGS_OK(TCP_SYN | TCP_URG) | FLAGS_OK(TCP_SYN | TCP_ACK) |
				     FLAGS_OK(TCP_RST) | FLAGS_OK(TCP_RST | TCP_ACK) | FLAGS_OK(TCP_ACK) |
				     FLAGS_OK(TCP_ACK | TCP_URG) | FLAGS_OK(TCP_FIN | TCP_ACK) |
				     FLAGS_OK(TCP_FIN | TCP_ACK | TCP_URG);

static inline uint32_t ip_end(const struct packet *p)
{
	return (uint32_t)p->l3_off + p->ip_len;
}

static inline enum verdict parse_tcp(const uint8_t *frame, uint32_t l4_off, uint32_t end, struct packet *p)
{
	const struct rte_tcp_hdr *tcp = (const void *)(frame + l4_off);
	uint32_t room = end - l4_off, header;

	if (unlikely(room < sizeof(*tcp)))
		return VERDICT_drop_l4_header;
	header = tcp->data_off >> 4 << 2;
	if (unlikely(header < sizeof(*tcp) || header > room))
		return VERDICT_drop_l4_header;
	if (unlikely(!(tcp_flags_ok >> (tcp->tcp_flags & 0x3f) & 1)))
		return VERDICT_drop_tcp_flags;
	p->kind = PACKET_TCP;
	p->tcp_flags = tcp->tcp_flags;
	p->sport_be = tcp->src_port;
	p->dport_be = tcp->dst_port;
	p->payload_off = l4_off + header;
	p->payload_len = room - header;
	return VERDICT_NONE;
}

static inline enum verdict parse_udp(const uint8_t *frame, uint32_t l4_off, uint32_t end, struct packet *p)
{
	const struct rte_udp_hdr *udp = (const void *)(frame + l4_off);
	uint32_t room = end - l4_off, length;
	bool fragment = p->flags & PACKET_FRAGMENT;

	if (unlikely(room < sizeof(*udp)))
		return VERDICT_drop_l4_header;
	length = be16toh(udp->dgram_len);
	/* The length is the datagram's, and in a first fragment most of it is yet to come. */
	if (unlikely(length < sizeof(*udp) || (length > room && !fragment)))
		return VERDICT_drop_l4_header;
	if (unlikely(p->family == 6 && udp->dgram_cksum == 0 && !fragment && !(p->flags & PACKET_UDP6_ZERO)))
		return VERDICT_drop_udp6_zero_checksum;
	p->kind = PACKET_UDP;
	p->sport_be = udp->src_port;
	p->dport_be = udp->dst_port;
	p->payload_off = l4_off + sizeof(*udp);
	p->payload_len = (length < room ? length : room) - sizeof(*udp);
	return VERDICT_NONE;
}

static enum packet_kind icmp4_kind(uint8_t type)
{
	switch (type) {
	case ICMP4_ECHO_REQUEST:
		return PACKET_ICMP_ECHO_REQUEST;
	case ICMP4_UNREACHABLE:
	case ICMP4_TIME_EXCEEDED:
	case ICMP4_PARAMETER_PROBLEM:
		return PACKET_ICMP_ERROR;
	default:
		return PACKET_ICMP_OTHER;
	}
}

static enum packet_kind icmp6_kind(uint8_t type)
{
	if (type == ICMP6_ECHO_REQ)
		return PACKET_ICMP_ECHO_REQUEST;
	return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER_PROBLEM ? PACKET_ICMP_ERROR : PACKET_ICMP_OTHER;
}

static inline enum verdict parse_icmp(const uint8_t *frame, uint32_t l4_off, uint32_t end, struct packet *p)
{
	const struct rte_icmp_hdr *icmp = (const void *)(frame + l4_off);
	uint32_t room = end - l4_off;

	if (unlikely(room < sizeof(*icmp)))
		return VERDICT_drop_l4_header;
	p->kind = p->family == 4 ? icmp4_kind(icmp->icmp_type) : icmp6_kind(icmp->icmp_type);
	p->payload_off = l4_off + sizeof(*icmp);
	p->payload_len = room - sizeof(*icmp);
	return VERDICT_NONE;
}

/* From `l4_off` to `end`: what IP says is there. */
static inline enum verdict parse_l4(const uint8_t *frame, uint32_t l4_off, uint32_t end, struct packet *p)
{
	if (likely(p->proto == IPPROTO_TCP))
		return parse_tcp(frame, l4_off, end, p);
	if (likely(p->proto == IPPROTO_UDP))
		return parse_udp(frame, l4_off, end, p);
	if (p->proto == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return parse_icmp(frame, l4_off, end, p);
	return VERDICT_drop_protocol;
}

/*
 * `offset` in bytes. The rules that need no other fragment: all but the last carry a multiple of 8 bytes, none is
 * empty, and none reaches past the longest datagram. One that would overwrite a TCP header from its ninth byte on is an
 * attack on filters (RFC 3128).
 */
static enum verdict parse_fragment(struct packet *p, uint32_t offset, bool more)
{
	uint32_t data = ip_end(p) - p->l4_off;

	if (data == 0 || (more && data % 8) || offset + data > UINT16_MAX)
		return VERDICT_drop_fragment;
	p->flags |= PACKET_FRAGMENT;
	if (offset == 0)
		return VERDICT_NONE;
	if (offset == 8 && p->proto == IPPROTO_TCP)
		return VERDICT_drop_l4_header;
	p->kind = PACKET_FRAGMENT_LATER;
	p->payload_off = p->l4_off;
	p->payload_len = data;
	return VERDICT_NONE;
}

/* Whether a packet of `total` bytes lies whole in the `room` behind the link header; usually it fills it. */
static inline bool fits(uint32_t total, uint32_t room, struct packet *p)
{
	if (likely(total == room))
		return true;
	if (total < room && room > ETHER_PAYLOAD_MIN)
		p->flags |= PACKET_TRAILER;
	return total < room;
}

static inline uint32_t load32(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

/* Over the whole header, its checksum included: right if the sum is ~0. */
static inline bool ip4_checksum_ok(const uint8_t *ip, uint32_t header_len)
{
	uint32_t half;
	uint64_t sum = (uint64_t)load32(ip) + load32(ip + 4) + load32(ip + 8) + load32(ip + 12) + load32(ip + 16);

	for (uint32_t i = sizeof(struct rte_ipv4_hdr); unlikely(i < header_len); i += 4)
		sum += load32(ip + i);
	/* One's complement addition of the halves: the carry comes round by adding the sum rotated by half its width.
	 */
	sum += sum << 32 | sum >> 32;
	half = sum >> 32;
	half += half << 16 | half >> 16;
	return half >> 16 == 0xffff;
}

/* 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/4 and 255.255.255.255: RFC 1122 3.2.1.3, RFC 1812 5.3.7. */
static inline bool ip4_source_bad(uint32_t src_be)
{
	uint8_t net = be32toh(src_be) >> 24;

	return net == 0 || net == 127 || (net & 0xf0) == 224 || src_be == UINT32_MAX;
}

static enum verdict parse_ip4_options(const uint8_t *option, const uint8_t *end)
{
	while (option < end && *option != IPOPT_EOL) {
		if (*option == IPOPT_NOP) {
			option++;
			continue;
		}
		if (*option == IPOPT_LSRR || *option == IPOPT_SSRR)
			return VERDICT_drop_source_route;
		if (end - option < 2 || option[1] < 2 || option[1] > end - option)
			return VERDICT_drop_ip_options;
		option += option[1];
	}
	return VERDICT_NONE;
}

static enum verdict parse_ip4_fragment(const struct rte_ipv4_hdr *ip, struct packet *p)
{
	uint16_t field = be16toh(ip->fragment_offset);

	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP && p->proto != IPPROTO_ICMP)
		return VERDICT_drop_protocol;
	return parse_fragment(p, (field & RTE_IPV4_HDR_OFFSET_MASK) * RTE_IPV4_HDR_OFFSET_UNITS,
			      field & RTE_IPV4_HDR_MF_FLAG);
}

/* Behind the first byte; `header` is the header's length, a constant where it can be. */
static __rte_always_inline enum verdict parse_ip4_header(const uint8_t *frame, uint32_t room, uint32_t l3_off,
							 uint32_t header, struct packet *p)
{
	const struct rte_ipv4_hdr *ip = (const void *)(frame + l3_off);
	uint32_t total = be16toh(ip->total_length);
	enum verdict verdict;

	if (unlikely(total < header))
		return VERDICT_drop_ip_header;
	if (unlikely(!fits(total, room, p)))
		return VERDICT_drop_truncated;
	if (unlikely(!ip4_checksum_ok((const uint8_t *)ip, header)))
		return VERDICT_drop_ip_checksum;
	if (unlikely(ip4_source_bad(ip->src_addr)))
		return VERDICT_drop_ip_source;
	p->family = 4;
	p->ttl = ip->time_to_live;
	p->proto = ip->next_proto_id;
	p->ip_len = total;
	p->l4_off = l3_off + header;
	p->flags |= ip->fragment_offset & htobe16(RTE_IPV4_HDR_DF_FLAG) ? PACKET_DF : 0;
	if (header > sizeof(*ip)) {
		p->flags |= PACKET_OPTIONS;
		verdict = parse_ip4_options((const uint8_t *)(ip + 1), frame + p->l4_off);
		if (verdict != VERDICT_NONE)
			return verdict;
	}
	if (unlikely(ip->fragment_offset & htobe16(RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK))) {
		verdict = parse_ip4_fragment(ip, p);
		if (verdict != VERDICT_NONE || p->kind == PACKET_FRAGMENT_LATER)
			return verdict;
	}
	return parse_l4(frame, l3_off + header, l3_off + total, p);
}

static __rte_always_inline enum verdict parse_ip4(const uint8_t *frame, uint32_t len, uint32_t l3_off, struct packet *p)
{
	uint32_t room = len - l3_off, header;

	if (unlikely(room < sizeof(struct rte_ipv4_hdr)))
		return VERDICT_drop_truncated;
	if (likely(frame[l3_off] == RTE_IPV4_VHL_DEF))
		return parse_ip4_header(frame, room, l3_off, sizeof(struct rte_ipv4_hdr), p);
	if (frame[l3_off] >> 4 != 4)
		return VERDICT_drop_ip_version;
	header = (frame[l3_off] & 0x0f) << 2;
	if (header < sizeof(struct rte_ipv4_hdr))
		return VERDICT_drop_ip_header;
	return parse_ip4_header(frame, room, l3_off, header, p);
}

static enum verdict parse_ip6_fragment(const uint8_t *frame, struct packet *p)
{
	const struct ipv6_fragment *fragment = (const void *)(frame + p->l4_off);
	uint16_t field = be16toh(fragment->offset_be);

	if (p->frag_off)
		return VERDICT_drop_ip_options;
	p->frag_off = p->l4_off;
	p->l4_off += sizeof(*fragment);
	p->proto = fragment->next;
	/* An "atomic fragment" is a whole packet (RFC 6946). */
	if (!(field & (IPV6_FRAGMENT_OFFSET | IPV6_FRAGMENT_MORE)))
		return VERDICT_NONE;
	return parse_fragment(p, field & IPV6_FRAGMENT_OFFSET, field & IPV6_FRAGMENT_MORE);
}

/* Steps over the extension header at p->l4_off, of type p->proto. */
static enum verdict parse_ip6_extension(const uint8_t *frame, struct packet *p)
{
	/* RFC 7112: the first fragment has the whole chain, else nobody on the way can tell what the packet is. */
	const enum verdict too_short = p->flags & PACKET_FRAGMENT ? VERDICT_drop_l4_header : VERDICT_drop_truncated;
	const uint8_t *header = frame + p->l4_off;
	uint32_t room = ip_end(p) - p->l4_off, size;

	if (room < 8)
		return too_short;
	if (p->proto == IPPROTO_FRAGMENT)
		return parse_ip6_fragment(frame, p);
	size = (header[1] + 1) * 8;
	/* Type 0 (RFC 5095), or any with segments left: then we are a stop on its way, not its end (RFC 8200 4.4). */
	if (p->proto == IPPROTO_ROUTING && (header[2] == 0 || header[3] != 0))
		return VERDICT_drop_source_route;
	if (p->proto == IPPROTO_HOPOPTS && p->l4_off != p->l3_off + sizeof(struct rte_ipv6_hdr))
		return VERDICT_drop_ip_options;
	if (size > IPV6_MAX_EXTENSION_BYTES)
		return VERDICT_drop_ip_options;
	if (size > room)
		return too_short;
	p->l4_off += size;
	p->proto = header[0];
	return VERDICT_NONE;
}

static bool ip6_is_extension(uint8_t proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_DSTOPTS || proto == IPPROTO_ROUTING ||
	       proto == IPPROTO_FRAGMENT;
}

static enum verdict parse_ip6_extensions(const uint8_t *frame, struct packet *p)
{
	const uint32_t first = p->l4_off;
	enum verdict verdict;

	for (unsigned n = 0; ip6_is_extension(p->proto); n++) {
		if (n == IPV6_MAX_EXTENSIONS)
			return VERDICT_drop_ip_options;
		p->flags |= PACKET_OPTIONS;
		verdict = parse_ip6_extension(frame, p);
		if (verdict != VERDICT_NONE || p->kind == PACKET_FRAGMENT_LATER)
			return verdict;
		if (p->l4_off - first > IPV6_MAX_EXTENSION_BYTES)
			return VERDICT_drop_ip_options;
	}
	return VERDICT_NONE;
}

/*
 * ::, ::1 and multicast. Also ::ffff:0:0/96, which no host may put on the wire (RFC 4942 2.2) and which would pass for
 * IPv4 wherever addresses of both families are kept in one type.
 */
static inline bool ip6_source_bad(const struct ipaddr *src)
{
	return src->b[0] == 0xff || ipaddr_is_v4(src) ||
	       (src->q_be[0] == 0 && (src->q_be[1] == 0 || src->q_be[1] == htobe64(1)));
}

static __rte_always_inline enum verdict parse_ip6(const uint8_t *frame, uint32_t len, uint32_t l3_off, struct packet *p)
{
	const struct rte_ipv6_hdr *ip = (const void *)(frame + l3_off);
	uint32_t room = len - l3_off, total;
	struct ipaddr src, dst;
	enum verdict verdict;

	if (unlikely(room < sizeof(*ip)))
		return VERDICT_drop_truncated;
	if (unlikely(frame[l3_off] >> 4 != 6))
		return VERDICT_drop_ip_version;
	total = sizeof(*ip) + be16toh(ip->payload_len);
	/* A length of 0 says jumbogram (RFC 2675), or nothing to forward. */
	if (unlikely(ip->payload_len == 0 || !fits(total, room, p)))
		return VERDICT_drop_truncated;
	if (unlikely(total > UINT16_MAX))
		return VERDICT_drop_ip_header;
	src = ipaddr_v6(ip->src_addr);
	dst = ipaddr_v6(ip->dst_addr);
	if (unlikely(ip6_source_bad(&src)))
		return VERDICT_drop_ip_source;
	if (unlikely(ipaddr_is_v4(&dst)))
		return VERDICT_drop_not_ours;
	p->family = 6;
	p->ttl = ip->hop_limits;
	p->proto = ip->proto;
	p->ip_len = total;
	p->l4_off = l3_off + sizeof(*ip);
	if (unlikely(ip6_is_extension(p->proto))) {
		verdict = parse_ip6_extensions(frame, p);
		if (verdict != VERDICT_NONE || p->kind == PACKET_FRAGMENT_LATER)
			return verdict;
	}
	return parse_l4(frame, p->l4_off, l3_off + total, p);
}

/* Behind the Ethernet header. The offset is a constant where there is no tag. */
static __rte_always_inline enum verdict parse_l3(const uint8_t *frame, uint32_t len, uint32_t l3_off, uint16_t type_be,
						 struct packet *p)
{
	p->l3_off = l3_off;
	if (likely(type_be == htobe16(RTE_ETHER_TYPE_IPV4)))
		return parse_ip4(frame, len, l3_off, p);
	if (likely(type_be == htobe16(RTE_ETHER_TYPE_IPV6)))
		return parse_ip6(frame, len, l3_off, p);
	return VERDICT_drop_not_ip;
}

static __rte_noinline enum verdict parse_tagged(const uint8_t *frame, uint32_t len, struct packet *p)
{
	const struct rte_vlan_hdr *vlan = (const void *)(frame + RTE_ETHER_HDR_LEN);

	if (len < RTE_ETHER_HDR_LEN + sizeof(*vlan))
		return VERDICT_drop_truncated;
	/* Without an identifier it is a priority alone (IEEE 802.1Q 6.9), and the answer may go without. */
	if (vlan->vlan_tci & htobe16(VLAN_ID_MASK))
		return VERDICT_drop_vlan;
	p->flags |= PACKET_VLAN;
	return parse_l3(frame, len, RTE_ETHER_HDR_LEN + sizeof(*vlan), vlan->eth_proto, p);
}

static __rte_always_inline enum verdict parse_frame(const uint8_t *frame, uint32_t len, uint8_t flags, struct packet *p)
{
	uint16_t type_be;

	*p = (struct packet){.flags = flags};
	if (unlikely(len < RTE_ETHER_HDR_LEN))
		return VERDICT_drop_truncated;
	memcpy(&type_be, frame + offsetof(struct rte_ether_hdr, ether_type), sizeof(type_be));
	if (unlikely(type_be == htobe16(RTE_ETHER_TYPE_VLAN) || type_be == htobe16(RTE_ETHER_TYPE_QINQ)))
		return parse_tagged(frame, len, p);
	return parse_l3(frame, len, RTE_ETHER_HDR_LEN, type_be, p);
}

enum verdict parse(const uint8_t *frame, uint32_t len, struct packet *p)
{
	return parse_frame(frame, len, 0, p);
}

enum verdict parse_udp6_zero(const uint8_t *frame, uint32_t len, struct packet *p)
{
	return parse_frame(frame, len, PACKET_UDP6_ZERO, p);
}

bool packet_tcp_is_right(const uint8_t *frame, const struct packet *p)
{
	const uint8_t *ip = frame + p->l3_off;
	uint16_t len = p->ip_len - (p->l4_off - p->l3_off);
	bool v4 = p->family == 4;
	const uint8_t *addrs =
		ip + (v4 ? offsetof(struct rte_ipv4_hdr, src_addr) : offsetof(struct rte_ipv6_hdr, src_addr));
	uint32_t sum = rte_raw_cksum(addrs, v4 ? 8 : 32) + rte_raw_cksum(frame + p->l4_off, len) + htons(IPPROTO_TCP) +
		       htons(len);

	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16) == 0xffff;
}
