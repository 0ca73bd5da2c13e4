/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the stages ask about a packet: which flow it belongs to, and whether an address is one of ours.
 */
#pragma once

#include "core.h"

#include <string.h>

/* Read from the frame, in words: what was just stored in pieces would be slow to load. */
static inline struct flow_key4 item_key4(const struct item *it)
{
	struct flow_key4 key;

	memcpy(&key.addrs_be, &packet_ip4(it->frame, &it->p)->src_addr, sizeof(key.addrs_be)); /* both addresses */
	memcpy(&key.ports_be, it->frame + it->p.l4_off, sizeof(key.ports_be));
	return key;
}

static inline struct flow_key6 item_key6(const struct item *it)
{
	struct flow_key6 key;

	memcpy(key.addrs_be, packet_ip6(it->frame, &it->p)->src_addr, sizeof(key.addrs_be)); /* both addresses */
	memcpy(&key.ports_be, it->frame + it->p.l4_off, sizeof(key.ports_be));
	return key;
}

/* Under which its flow is found; TCP and UDP only. */
static inline uint64_t item_hash(const struct worker *w, const struct item *it)
{
	if (it->p.family == 4) {
		struct flow_key4 key = item_key4(it);

		return flow_hash4(&key, it->p.proto, w->flows.secret);
	}
	struct flow_key6 key = item_key6(it);

	return flow_hash6(&key, it->p.proto, w->flows.secret);
}

/* FLOW_REF_NONE if there is none. */
flow_ref flow_find(const struct worker *w, const struct item *it);

/* True for SNAT addresses and the addresses of listeners. */
static inline bool is_ours(const struct worker *w, const struct policy *policy, const struct ipaddr *addr)
{
	return snat_index(&w->dp->snat, addr) >= 0 || listener_has_address(policy->listeners, addr);
}
