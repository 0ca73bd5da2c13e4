/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* Shared by the flood program and its loader. */
#pragma once

#include <linux/types.h>

#define FLOOD_FRAME_LEN  60 /* without FCS: the shortest on Ethernet */
#define FLOOD_FIRST_PORT 1024
#define FLOOD_PORTS      60000

enum flood_mode {
	FLOOD_UDP, /* flows in turn: source ports, then source addresses count up */
	FLOOD_SYN, /* random source port, sequence number, and address among so many */
};

struct flood_plan {
	__u8 frame[FLOOD_FRAME_LEN] __attribute__((aligned(4)));
	__u32 mode;
	__u32 ifindex;
	__u32 source; /* host byte order */
	__u32 n_flows;
	__u32 n_sources; /* of SYNs */
	__u32 ip_sum;    /* one's complement sums in wire order, not inverted */
	__u32 l4_sum;
	__u32 interval_ns; /* between frames; 0: none */
};
