/* SPDX-License-Identifier: BSD-3-Clause */
/* Frames made by hand: what they hold is said by name, lengths and checksums follow. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX 1600

struct frame {
	uint8_t bytes[FRAME_MAX];
	size_t len;
	size_t ip_end; /* where the fixed IP header ends: from here on the destination is known */
};

/* An IPv6 extension header. */
struct frame_extension {
	uint8_t type; /* 0 ends the list if `present` is false */
	bool present;
	uint8_t extra_words; /* 8 bytes each, beyond the first 8 */
	uint16_t fragment;   /* of a fragment header: offset in bytes | 1 if more follow */
};

#define FRAME_MAX_EXTENSIONS 12

/* Everything zero or NULL is left out; the family is that of `dst`. */
struct frame_spec {
	const char *src;
	const char *dst;
	uint8_t proto;
	uint16_t src_port;
	uint16_t dst_port;
	uint8_t tcp_flags;
	uint8_t icmp_type;
	uint8_t icmp_code;
	uint8_t hop_limit;               /* 0: 64 */
	const struct frame_spec *quoted; /* of an ICMP error */
	const char *payload;
	uint16_t payload_len; /* 0: that of the text */
	unsigned n_vlan_tags;
	uint16_t vlan_id;     /* 0: the tags say a priority alone */
	uint8_t option_words; /* IPv4, 4 bytes each */
	uint16_t v4_fragment; /* the IPv4 field: offset in 8 bytes | 0x2000 if more follow */
	struct frame_extension extensions[FRAME_MAX_EXTENSIONS];
	uint16_t ethertype;  /* instead of an IP packet: 46 zero bytes of this type */
	uint8_t version_ihl; /* overrides the first byte of the IP header */
	uint8_t dst_mac[6];
	uint8_t src_mac[6];
};

#define FRAME_TCP_FIN 0x01
#define FRAME_TCP_SYN 0x02
#define FRAME_TCP_RST 0x04
#define FRAME_TCP_ACK 0x10

void frame_build(struct frame *frame, const struct frame_spec *spec);
