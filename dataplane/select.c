/* SPDX-License-Identifier: BSD-3-Clause */
#include "select.h"

#define WALK 32 /* places of the table that are looked at before the backends are, one by one */

const struct policy_backend *select_backend(const struct policy_set *set, uint64_t hash)
{
	if (!set->n_backends)
		return NULL;
	return &set->backends[set->table[hash % set->table_size]];
}

/* Another number of the flow: flows of one place of the table spread over all others. */
uint64_t select_second_hash(uint64_t hash)
{
	return (hash >> 32 | hash << 32) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
}

static bool may_go(const struct cells *cells, const struct policy_backend *b, uint32_t avoid_slot,
		   enum breaker_state state)
{
	return b->ref.slot != avoid_slot && select_state(cells, b->ref.slot) == state;
}

static const struct policy_backend *next_in(const struct cells *cells, const struct policy_set *set, uint64_t hash,
					    uint32_t avoid_slot, enum breaker_state state)
{
	const struct policy_backend *b = select_backend(set, hash);
	uint64_t second = select_second_hash(hash);

	if (!b || may_go(cells, b, avoid_slot, state))
		return b;
	for (uint64_t i = 0; i < WALK; i++) {
		b = &set->backends[set->table[(second + i) % set->table_size]];
		if (may_go(cells, b, avoid_slot, state))
			return b;
	}
	for (uint64_t i = 0; i < set->n_backends; i++) {
		b = &set->backends[(second + i) % set->n_backends];
		if (may_go(cells, b, avoid_slot, state))
			return b;
	}
	return NULL;
}

/* One in the ramp has just come back: others' flows are not for it. */
const struct policy_backend *select_next(const struct cells *cells, const struct policy_set *set, uint64_t hash,
					 uint32_t avoid_slot)
{
	const struct policy_backend *b = next_in(cells, set, hash, avoid_slot, BREAKER_CLOSED);

	return b ? b : next_in(cells, set, hash, avoid_slot, BREAKER_RAMP);
}

const struct policy_backend *select_first_due(const struct cells *cells, const struct policy_set *set)
{
	const struct policy_backend *first = NULL;
	uint64_t first_ns = UINT64_MAX;

	for (uint32_t i = 0; i < set->n_backends; i++) {
		const struct policy_backend *b = &set->backends[i];
		uint64_t due_ns = __atomic_load_n(&cells->backends[b->ref.slot].due_ns, __ATOMIC_RELAXED);

		if (select_state(cells, b->ref.slot) == BREAKER_OPEN && (!first || due_ns < first_ns)) {
			first = b;
			first_ns = due_ns;
		}
	}
	return first;
}
