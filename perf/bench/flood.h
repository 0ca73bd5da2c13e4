/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* Shared by the flood program and its loader. */
#pragma once

#include <linux/types.h>

#define FLOOD_FRAME_LEN  60 /* without FCS: the shortest on Ethernet */
#define FLOOD_FRAME6_LEN 74 /* a SYN without options */
#define FLOOD_FIRST_PORT 1024
#define FLOOD_PORTS      60000

enum flood_mode {
	FLOOD_UDP,  /* flows in turn: source ports, then source addresses count up */
	FLOOD_SYN,  /* random source port and sequence number, addresses in turn */
	FLOOD_SYN6, /* the same of IPv6 */
};

/*
 * SYNs come from each of a power of two of sources before one comes again, though not in their order: neighbours in
 * time are of different networks. IPv6 has each in a /64 of its own: they count in the second word of the address.
 */
#define FLOOD_TURN    2654435761u /* odd */
#define FLOOD_WORD6   1
#define FLOOD_STRIDE6 256 /* 2^20 of them are a /36, which is as many /48s as a /12 has /24s */

struct flood_plan {
	__u8 frame[FLOOD_FRAME6_LEN + 2] __attribute__((aligned(4)));
	__u32 mode;
	__u32 ifindex;
	__u32 source; /* the word that counts, host byte order */
	__u32 n_flows;
	__u32 n_sources; /* of SYNs */
	__u32 first;     /* whose turn it is at first */
	__u32 ip_sum;    /* one's complement sums in wire order, not inverted */
	__u32 l4_sum;
	__u32 interval_ns; /* between frames; 0: none */
};
