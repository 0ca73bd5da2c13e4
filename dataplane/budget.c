/* SPDX-License-Identifier: BSD-3-Clause */
#include "budget.h"

#include <assert.h>

/* Time goes by units of 16.8 ms, which go round in three days; parts of tokens have the other 40 bits. */
#define UNIT_SHIFT     24
#define UNIT_MASK      0xffffffu
#define PARTS_BITS     40
#define PARTS_MASK     ((UINT64_C(1) << PARTS_BITS) - 1)
#define PARTS_PER_UNIT ((UINT64_C(1) << UNIT_SHIFT) * BUDGET_FLOOR * BUDGET_TOKEN / 1000000000)
#define UNITS_AHEAD    64 /* that another worker's clock may be */

static_assert((uint64_t)BUDGET_CAP_MAX * BUDGET_TOKEN <= PARTS_MASK, "the largest cap fits");

static uint32_t unit_at(uint64_t now_ns)
{
	return now_ns >> UNIT_SHIFT & UNIT_MASK;
}

static uint64_t pack(uint64_t parts, uint32_t unit)
{
	return parts | (uint64_t)unit << PARTS_BITS;
}

static uint64_t capped(uint64_t parts, uint32_t cap)
{
	uint64_t most = (uint64_t)cap * BUDGET_TOKEN;

	return parts < most ? parts : most;
}

/* What has come since, added. */
static uint64_t refilled(uint64_t word, uint32_t cap, uint64_t now_ns)
{
	uint32_t unit = word >> PARTS_BITS, passed = (unit_at(now_ns) - unit) & UNIT_MASK;

	if (passed > UNIT_MASK - UNITS_AHEAD)
		return pack(capped(word & PARTS_MASK, cap), unit);
	return pack(capped((word & PARTS_MASK) + passed * PARTS_PER_UNIT, cap), unit_at(now_ns));
}

uint64_t budget_full(uint32_t cap, uint64_t now_ns)
{
	return pack((uint64_t)cap * BUDGET_TOKEN, unit_at(now_ns));
}

uint64_t budget_parts(uint64_t word, uint32_t cap, uint64_t now_ns)
{
	return refilled(word, cap, now_ns) & PARTS_MASK;
}

bool budget_has(const uint64_t *word, uint32_t cap, uint64_t now_ns)
{
	return budget_parts(__atomic_load_n(word, __ATOMIC_RELAXED), cap, now_ns) >= BUDGET_TOKEN;
}

static bool swap(uint64_t *word, uint64_t *seen, uint64_t to)
{
	return __atomic_compare_exchange_n(word, seen, to, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

void budget_earn(uint64_t *word, uint32_t cap, uint64_t parts, uint64_t now_ns)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED), to;

	do {
		to = refilled(seen, cap, now_ns);
		to = pack(capped((to & PARTS_MASK) + parts, cap), to >> PARTS_BITS);
	} while (!swap(word, &seen, to));
}

bool budget_spend(uint64_t *word, uint32_t cap, uint64_t now_ns)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED), to;

	do {
		to = refilled(seen, cap, now_ns);
		if ((to & PARTS_MASK) < BUDGET_TOKEN)
			return false;
	} while (!swap(word, &seen, to - BUDGET_TOKEN));
	return true;
}
