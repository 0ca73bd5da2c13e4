/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One Ethernet frame into the facts that the later stages need. Nothing is copied but ports and lengths: addresses are
 * read in place through the helpers below, which hold as long as the frame does.
 */
#pragma once

#include "ipaddr.h"
#include "verdict.h"

#include <stdbool.h>
#include <stdint.h>

#include <rte_ip.h>

enum packet_kind {
	PACKET_TCP,
	PACKET_UDP,
	PACKET_ICMP_ECHO_REQUEST,
	PACKET_ICMP_ERROR, /* v4 types 3, 11, 12; v6 types 1 to 4: they quote a packet */
	PACKET_ICMP_OTHER,
	PACKET_FRAGMENT_LATER, /* not the first fragment: no L4 header, so no ports */
};

/* In `flags` of struct packet. */
enum packet_flag {
	PACKET_FRAGMENT = 1 << 0,  /* any fragment; with a kind other than PACKET_FRAGMENT_LATER the first one */
	PACKET_VLAN = 1 << 1,      /* a tag, of a priority alone */
	PACKET_OPTIONS = 1 << 2,   /* IPv4 options or IPv6 extension headers */
	PACKET_DF = 1 << 3,        /* IPv4 "don't fragment" */
	PACKET_TRAILER = 1 << 4,   /* more hangs behind it in the frame than Ethernet's padding */
	PACKET_UDP6_ZERO = 1 << 5, /* UDP over IPv6 may come without checksum: parse_udp6_zero() */
};

enum tcp_flag {
	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_PSH = 0x08,
	TCP_ACK = 0x10,
	TCP_URG = 0x20,
	TCP_ECE = 0x40,
	TCP_CWR = 0x80,
};

/* Offsets count bytes from the start of the frame. */
struct packet {
	uint8_t family;    /* 4 or 6 */
	uint8_t proto;     /* of the L4 header; of PACKET_FRAGMENT_LATER, what the (fragment) header says comes next */
	uint8_t tcp_flags; /* enum tcp_flag */
	uint8_t kind;      /* enum packet_kind */
	uint8_t flags;     /* enum packet_flag */
	uint8_t ttl;       /* or hop limit */
	uint16_t l3_off;
	uint16_t l4_off; /* of PACKET_FRAGMENT_LATER: its data */
	uint16_t payload_off;
	uint16_t ip_len; /* of the whole IP packet, its header too; the frame may be longer by padding */
	uint16_t sport_be;
	uint16_t dport_be;
	uint16_t payload_len; /* TCP, UDP and ICMP data in this frame */
	uint16_t frag_off;    /* IPv6 fragment header; 0 if there is none */
};

/*
 * Returns VERDICT_NONE, or the verdict that ends the packet; then *p is not to be used, but that its ports are 0.
 * `frame` needs no alignment.
 * Each length is checked before what it covers is read, in the order of the bytes on the wire.
 *
 * Not verified here: ICMP, TCP and UDP checksums (a wrong one stays wrong through the incremental update, and the
 * receiver drops it), TTL, destination.
 */
enum verdict parse(const uint8_t *frame, uint32_t len, struct packet *p);
/* The same for what that refused as UDP without checksum over IPv6 alone: it passes, with PACKET_UDP6_ZERO. */
enum verdict parse_udp6_zero(const uint8_t *frame, uint32_t len, struct packet *p);

/*
 * Of a TCP packet that was parsed. False: its checksum is wrong. Then it may be translated, and stays wrong, so that
 * its receiver throws it away; but nothing is to be concluded from it, nor made of it, for what is made is right.
 */
bool packet_tcp_is_right(const uint8_t *frame, const struct packet *p);

static inline const struct rte_ipv4_hdr *packet_ip4(const uint8_t *frame, const struct packet *p)
{
	return (const void *)(frame + p->l3_off);
}

/* Type of service, or traffic class. */
static inline uint8_t packet_tos(const uint8_t *frame, const struct packet *p)
{
	const uint8_t *ip = frame + p->l3_off;

	return p->family == 4 ? ip[1] : (uint8_t)(ip[0] << 4 | ip[1] >> 4);
}

#define TOS_ECN 0x03 /* RFC 3168 5 */

static inline const struct rte_ipv6_hdr *packet_ip6(const uint8_t *frame, const struct packet *p)
{
	return (const void *)(frame + p->l3_off);
}

static inline uint32_t packet_src4_be(const uint8_t *frame, const struct packet *p)
{
	return packet_ip4(frame, p)->src_addr;
}

static inline uint32_t packet_dst4_be(const uint8_t *frame, const struct packet *p)
{
	return packet_ip4(frame, p)->dst_addr;
}

static inline struct ipaddr packet_src(const uint8_t *frame, const struct packet *p)
{
	return p->family == 4 ? ipaddr_v4(packet_src4_be(frame, p)) : ipaddr_v6(packet_ip6(frame, p)->src_addr);
}

static inline struct ipaddr packet_dst(const uint8_t *frame, const struct packet *p)
{
	return p->family == 4 ? ipaddr_v4(packet_dst4_be(frame, p)) : ipaddr_v6(packet_ip6(frame, p)->dst_addr);
}
