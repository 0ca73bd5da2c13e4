/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ICMP errors: what packet one is about, its translation, and the making of our own. Pure functions over bytes: no
 * state, no flows, no limits (RFC 792, RFC 4443, RFC 4884, RFC 5508).
 *
 * `ip` points at an IP header, `icmp` at an ICMP header, no alignment needed. Lengths of IP packets are those of the
 * packet, not of a frame with padding.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum icmp4_type {
	ICMP4_UNREACHABLE = 3,
	ICMP4_SOURCE_QUENCH = 4,
	ICMP4_REDIRECT = 5,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER_PROBLEM = 12,
};

enum icmp6_type {
	ICMP6_UNREACHABLE = 1,
	ICMP6_TOO_BIG = 2,
	ICMP6_HOP_LIMIT_EXCEEDED = 3,
	ICMP6_PARAMETER_PROBLEM = 4,
	ICMP6_NOT_ERROR = 128, /* from here on: no errors */
	ICMP6_REDIRECT = 137,
};

/* Codes of "unreachable". */
enum icmp_code {
	ICMP4_CODE_PORT = 3,
	ICMP4_CODE_TOO_BIG = 4,
	ICMP6_CODE_PORT = 4,
};

#define ICMP_HEADER_LEN 8
/* Longest error, IP header too: RFC 1812 4.3.2.3, RFC 4443 2.4 (c). */
#define ICMP4_ERROR_MAX 576
#define ICMP6_ERROR_MAX 1280
/* Smaller claims are raised to these before any use (RFC 8201 4). */
#define ICMP4_MTU_FLOOR 576
#define ICMP6_MTU_FLOOR 1280

enum icmp_quote_result {
	ICMP_QUOTE_OK,
	ICMP_QUOTE_TRUNCATED, /* ends before 8 bytes of the quoted transport header */
	ICMP_QUOTE_MALFORMED, /* version or lengths of the quoted packet impossible, too many extension headers */
	ICMP_QUOTE_FRAGMENT,  /* of a fragment that is not the first: no ports */
	ICMP_QUOTE_PROTOCOL,  /* of neither TCP nor UDP */
};

/* The quoted packet. Offsets and lengths in bytes; offsets from the ICMP header. */
struct icmp_quote {
	struct ipaddr src, dst;
	uint16_t sport_be, dport_be;
	uint32_t seq_be;    /* with has_seq */
	uint32_t total_len; /* of the packet when it was whole, as its header says */
	uint16_t l4_off;
	uint16_t l4_len; /* of its transport header and data, as far as quoted; >= 8 */
	uint8_t family;
	uint8_t proto;
	bool has_seq; /* TCP */
};

/*
 * `icmp`..`len` is a whole ICMP error message of that family, whose type the caller knows to be one that quotes.
 * *out is set with ICMP_QUOTE_OK alone. Reads in wire order, each length checked before what it covers.
 */
enum icmp_quote_result icmp_quote_parse(const uint8_t *icmp, size_t len, uint8_t family, struct icmp_quote *out);

/* True if the ICMP message at ip + icmp_off, which fills the rest of the packet, has the right checksum. */
bool icmp_checksum_ok(const uint8_t *ip, size_t ip_len, size_t icmp_off);

/* Is it one of the errors that pass through the gateway? Packet too big is among them. */
bool icmp_error_passes(uint8_t family, uint8_t type, uint8_t code);

static inline bool icmp_is_ptb(uint8_t family, uint8_t type, uint8_t code)
{
	return family == 4 ? type == ICMP4_UNREACHABLE && code == ICMP4_CODE_TOO_BIG : type == ICMP6_TOO_BIG;
}

/*
 * What a "packet too big" means: the MTU it tells, raised to the floor; of an old router that tells none, the plateau
 * below the quoted packet (RFC 1191 7.1). 0 if the quoted packet would fit: then it cannot be about that packet.
 */
uint32_t icmp_ptb_mtu(const uint8_t *icmp, const struct icmp_quote *quote);

/* The deltas are in host order, added modulo 2^32, to what the quote reaches. */
struct icmp_translation {
	struct ipaddr outer_src, outer_dst;
	struct ipaddr src, dst; /* of the quoted packet, as its sender sent it */
	uint16_t sport_be, dport_be;
	uint32_t seq_add, ack_add;
	uint32_t tsval_add, tsecr_add;
	uint32_t mtu; /* of a "packet too big"; 0: as it is */
};

/*
 * Translates, in place, the ICMP error whose header lies at ip + icmp_off and whose quote icmp_quote_parse() has read:
 * outer addresses and TTL 64, the quoted addresses, ports and numbers; quoted checksums by difference, so that what was
 * wrong stays wrong; the others anew. Cuts it to ICMP4_ERROR_MAX or ICMP6_ERROR_MAX, then without extensions
 * (RFC 4884). Returns the packet's new length. Families must agree.
 */
size_t icmp_translate(uint8_t *ip, size_t ip_len, size_t icmp_off, const struct icmp_quote *quote,
		      const struct icmp_translation *t);

/*
 * May an ICMP error be sent about this packet? Not about ICMP errors and redirects, fragments but the first, multicast
 * and broadcast, or sources that are no single host (RFC 1812 4.3.2.7, RFC 4443 2.4 (e)). `ptb`: about IPv6 multicast
 * a "packet too big" may. What cannot be read is not answered.
 */
bool icmp_may_answer(const uint8_t *ip, size_t ip_len, bool ptb);

/*
 * Write an error about the packet at `ip`, from `src` to its source, to `out`, which does not overlap it. They quote as
 * much as the limits and `size` allow. Return the length, or 0 if icmp_may_answer() says no or `size` is too small for
 * the quoted IP header and 8 bytes.
 */
size_t icmp_build_ptb(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip, size_t ip_len,
		      uint32_t mtu);
size_t icmp_build_port_unreachable(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip,
				   size_t ip_len);
size_t icmp_build_time_exceeded(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip, size_t ip_len);
