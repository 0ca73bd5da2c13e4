/* SPDX-License-Identifier: BSD-3-Clause */
/* TCP segments without data that the gateway makes itself. */
#pragma once

#include "core.h"

#include <rte_tcp.h>

struct segment_made {
	uint16_t sport_be, dport_be;
	uint32_t seq, ack; /* host order */
	uint8_t flags;
	uint8_t dscp;    /* where IP has it; with its two low bits 0 it is Not-ECT (RFC 3168 6.1.4) */
	bool timestamps; /* with the option, below */
	uint16_t window_be;
	uint32_t tsval, tsecr; /* host order */
};

/* Write IP and TCP header with checksums at `ip`; return the packet's length. TTL 64, DF. */
uint16_t segment_write4(void *ip, uint32_t src_be, uint32_t dst_be, const struct segment_made *s);
uint16_t segment_write6(void *ip, const uint8_t src[16], const uint8_t dst[16], const struct segment_made *s);

/*
 * Sends a segment to the receiver of the flow's direction `ref`, in the name of its sender and with the numbers that
 * that one has: the receiver gets those that it knows, and the DSCP of that sender. True: it left, and is counted as
 * made. False: there is no buffer, or no way now (a neighbour that is not resolved is asked for).
 */
bool segment_send(struct worker *w, const struct burst *b, flow_ref ref, uint32_t seq, uint32_t ack, uint8_t flags,
		  enum made kind);
/* The same of all numbers; the ports are filled in, and *s is as it left. */
bool segment_send_made(struct worker *w, const struct burst *b, flow_ref ref, struct segment_made *s, enum made kind);
