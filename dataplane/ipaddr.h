/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One address type for both families. IPv4 is kept in its v4-mapped form (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so
 * that equality, hashing and printing need no family beside the address.
 */
#pragma once

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct ipaddr {
	union {
		uint8_t b[16]; /* network byte order */
		uint32_t w_be[4];
		uint64_t q_be[2];
	};
};

/* IP protocol numbers that the gateway translates. */
enum ip_proto {
	PROTO_TCP = 6,
	PROTO_UDP = 17,
};

static inline struct ipaddr ipaddr_v4(uint32_t addr_be)
{
	struct ipaddr a = {.b = {[10] = 0xff, [11] = 0xff}};
	a.w_be[3] = addr_be;
	return a;
}

static inline struct ipaddr ipaddr_v6(const void *bytes)
{
	struct ipaddr a;
	memcpy(a.b, bytes, sizeof(a.b));
	return a;
}

static inline bool ipaddr_is_v4(const struct ipaddr *a)
{
	return a->q_be[0] == 0 && a->w_be[2] == htonl(0xffff);
}

static inline uint32_t ipaddr_v4_be(const struct ipaddr *a)
{
	return a->w_be[3];
}

static inline bool ipaddr_equal(const struct ipaddr *a, const struct ipaddr *b)
{
	return a->q_be[0] == b->q_be[0] && a->q_be[1] == b->q_be[1];
}

/* Longest text: an IPv6 address and its NUL. */
#define IPADDR_STRLEN INET6_ADDRSTRLEN

/* Writes the usual text form ("198.18.0.1", "2001:db8::1") and returns `out`. */
const char *ipaddr_format(const struct ipaddr *a, char out[static IPADDR_STRLEN]);

/* Parses either family, without brackets or prefix length. Returns 0 or -EINVAL; `*out` is untouched on failure. */
int ipaddr_parse(const char *text, struct ipaddr *out);

/* "198.18.3.21:8080" or "[2001:db8:3::15]:8080". */
#define IPADDR_PORT_STRLEN (INET6_ADDRSTRLEN + 8)
const char *ipaddr_port_format(const struct ipaddr *a, uint16_t port_be, char out[static IPADDR_PORT_STRLEN]);
