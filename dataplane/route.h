/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From an address or a flow to a port and the frame's addresses.
 */
#pragma once

#include "core.h"

#include <rte_ether.h>

/* Looks the flow's way up in the FIB and keeps it in the half: see route_flow(). */
enum verdict route_flow_again(struct worker *w, const struct burst *b, flow_ref ref, struct flow_half *half,
			      uint64_t hash);
/* The hop of that cell cannot be used: says why, and asks for the neighbour if that is it. */
enum verdict route_hop_unusable(struct worker *w, uint32_t cell, const struct fib_hop *hop);

static inline enum verdict route_use_cell(struct worker *w, const struct burst *b, uint32_t cell, struct fib_hop *hop)
{
	*hop = fib_cell_read(&b->cells[cell]);
	if (__builtin_expect(!hop->usable || !(b->ports_up >> hop->port & 1), 0))
		return route_hop_unusable(w, cell, hop);
	return VERDICT_NONE;
}

/*
 * Where the flow's packets of this direction leave; kept in the flow while the FIB's generation stands. VERDICT_NONE
 * and *hop, or why not.
 */
static inline enum verdict route_flow(struct worker *w, const struct burst *b, flow_ref ref, struct flow_half *half,
				      uint64_t hash, struct fib_hop *hop)
{
	if (__builtin_expect(half->route_gen != b->fib_gen, 0)) {
		enum verdict verdict = route_flow_again(w, b, ref, half, hash);

		if (verdict != VERDICT_NONE)
			return verdict;
	}
	return route_use_cell(w, b, half->neighbour, hop);
}

/* The same for one address, kept nowhere. */
enum verdict route_address(struct worker *w, const struct burst *b, const struct ipaddr *addr, uint64_t hash,
			   struct fib_hop *hop, uint16_t *mtu);

/* The MTU of a direction's way out; UINT16_MAX if there is none. Asks for no neighbour. */
uint16_t route_flow_mtu(const struct worker *w, const struct burst *b, flow_ref ref);

/* Takes off the VLAN tag and what hangs behind the packet, which would pass any MTU. */
void route_strip(struct item *it);

/* Strips the frame and writes its addresses in front of the packet; sets the item's out_port. */
static inline void route_put_l2(struct item *it, const struct fib_hop *hop)
{
	if (__builtin_expect(it->p.flags & (PACKET_VLAN | PACKET_TRAILER), 0))
		route_strip(it);
	memcpy(it->frame, &hop->macs_lo, sizeof(hop->macs_lo));
	memcpy(it->frame + sizeof(hop->macs_lo), &hop->macs_hi, sizeof(hop->macs_hi));
	it->out_port = hop->port;
}
