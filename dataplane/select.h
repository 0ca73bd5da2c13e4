/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which backend a new flow goes to. Backends whose breaker is open stay in the Maglev table: their flows go to their
 * next choice and come back, and those of the others never move.
 */
#pragma once

#include "core.h"
#include "streak.h"

/* The first choice for a new flow of that hash, or NULL if the set is empty. */
const struct policy_backend *select_backend(const struct policy_set *set, uint64_t hash);
/* Another number of the flow, of 32 bits: where its next choices begin. */
uint64_t select_second_hash(uint64_t hash);
/* The best choice whose breaker is closed, or where there is none, in the ramp; `avoid_slot` excepted (SLOT_NONE: none
 * is); NULL: there is none. */
const struct policy_backend *select_next(const struct cells *cells, const struct policy_set *set, uint64_t hash,
					 uint32_t avoid_slot);
/* The open one that decide will try first; NULL: none is. */
const struct policy_backend *select_first_due(const struct cells *cells, const struct policy_set *set);

static inline enum breaker_state select_state(const struct cells *cells, uint32_t slot)
{
	return streak_state(__atomic_load_n(&cells->backends[slot].breaker, __ATOMIC_RELAXED));
}

/* Of any client; a half-open one takes those that try it. */
static inline bool select_takes_flows(const struct cells *cells, uint32_t slot)
{
	enum breaker_state state = select_state(cells, slot);

	return state == BREAKER_CLOSED || state == BREAKER_RAMP;
}
