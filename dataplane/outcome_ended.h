/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker's memory of the flows that ended last: which client stood behind a SNAT port. A backend's log names that
 * port, and is read later.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stdint.h>

struct ended_flow {
	struct ipaddr client;
	uint32_t born_cs, ended_cs; /* hundredths of seconds of the dataplane's clock, modulo 2^32 */
	uint32_t service_slot, backend_slot;
	uint16_t client_port_be, snat_port_be;
	uint8_t snat_index;
	uint8_t proto;
	uint8_t state; /* enum flow_state: its last one */
	uint8_t unused;
};

struct ended_ring {
	struct ended_flow *flows;
	uint32_t mask;
	/* Of all that ever were written, how many are begun and how many done; a reader looks at both. */
	uint64_t begun, done;
};

uint64_t ended_ring_bytes(uint32_t n);
/* n: a power of two. Returns 0 or -ENOMEM. */
int ended_ring_init(struct ended_ring *r, uint32_t n);
void ended_ring_fini(struct ended_ring *r);

/* The worker's. */
void ended_add(struct ended_ring *r, const struct ended_flow *flow);

/*
 * Anyone's: calls `fn` with a copy of each, the latest first, until it returns false. True if the oldest were
 * overwritten some time: then *oldest_cs is the end of the oldest that is left.
 */
bool ended_read(const struct ended_ring *r, bool (*fn)(void *arg, const struct ended_flow *flow), void *arg,
		uint32_t *oldest_cs);
