/* SPDX-License-Identifier: BSD-3-Clause */
/* Whole Ethernet frames for tests and benches, with right lengths and checksums. */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX 2048

struct frame_spec {
	struct ipaddr src, dst; /* of one family, which is the frame's */
	uint16_t sport_be, dport_be;
	uint8_t proto;     /* enum ip_proto, or that of ICMP: then sport_be is the ICMP type and code */
	uint8_t tcp_flags; /* 0: ACK */
	bool shut;         /* TCP: a window of 0, else one of 65535 */
	uint16_t payload_len;
	uint32_t seq_be, ack_be;
};

/* Returns the length written to `frame`, at most FRAME_MAX. */
size_t frame_make(const struct frame_spec *spec, uint8_t *frame);

/* After a test changed bytes of an IPv4 header that starts at `ip`. */
void frame_fix_ip4(uint8_t *ip);

/*
 * Whether an untagged, unfragmented frame's checksums are right, worked out anew over all bytes; NULL, or what is not.
 * A UDP checksum of 0 over IPv4 is right. What is neither TCP, UDP nor ICMP has no transport checksum.
 */
const char *frame_checksum_error(const uint8_t *frame);

/* Puts a VLAN tag (tag protocol `tpid`, host order) behind the addresses; returns the new length. */
size_t frame_tag(uint8_t *frame, size_t len, uint16_t tpid, uint16_t tci);

/* Puts `n` bytes of `insert` into the IPv6 packet right behind its header, as `next` header, mending the length. */
size_t frame_insert6(uint8_t *frame, size_t len, uint8_t next, const uint8_t *insert, size_t n);

/* A generator of reproducible numbers (splitmix64); any seed will do. */
static inline uint64_t frame_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}
