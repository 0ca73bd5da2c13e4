/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Placing: a new flow gets its table entry, its SNAT port and its two index places, all or nothing; and its end.
 */
#pragma once

#include "core.h"

enum place_result {
	PLACE_OK,
	PLACE_TABLE_FULL,
	PLACE_PORTS_EXHAUSTED,
};

/*
 * Makes the flow of `it` (a client's first packet) to `backend` and sets it->ref, or says why not: there is nothing of
 * it then, though a connection that was over may have lost its entry for it. The flow is in its first state and on the
 * timing wheel.
 */
enum place_result place(struct worker *w, struct item *it, const struct policy *policy,
			const struct policy_service *svc, const struct policy_backend *backend);

/*
 * A SNAT port towards that backend, of any of the family's addresses, the first to be tried being one that the hash
 * names. False: there is none.
 */
bool place_take_port(struct worker *w, bool v4, uint64_t hash, uint32_t backend_slot, unsigned *snat,
		     uint16_t *port_be);
/* What a flow's packets from the backend look like. */
struct flow_key4 place_down4(const struct worker *w, const struct policy_backend *backend, unsigned snat,
			     uint16_t snat_port_be);
struct flow_key6 place_down6(const struct worker *w, const struct policy_backend *backend, unsigned snat,
			     uint16_t snat_port_be);

/* One user of a slot less. Last, and with release: when decide reads 0, this worker is through with the slot. */
static inline void place_leave_slot(uint64_t *users)
{
	__atomic_store_n(users, *users - 1, __ATOMIC_RELEASE);
}

/* Takes the flow off everything but the wheel (`wheel`: off that too). */
void flow_end(struct worker *w, flow_ref ref, bool wheel);

/*
 * Adds what the flow transferred since the last time to its own and its backend's counters. At the latest after
 * FLOW_ROLL_UP_PACKETS of a direction, so that 32 bits hold their bytes.
 */
#define FLOW_ROLL_UP_PACKETS 64
void flow_roll_up(struct worker *w, flow_ref ref);
