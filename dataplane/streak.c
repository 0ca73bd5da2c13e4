/* SPDX-License-Identifier: BSD-3-Clause */
#include "streak.h"

const char *const breaker_state_name[BREAKER_STATES] = {
	[BREAKER_CLOSED] = "closed",
	[BREAKER_OPEN] = "open",
	[BREAKER_HALF_OPEN] = "half_open",
	[BREAKER_RAMP] = "ramp",
};

/* Bits 0-7: state; 8, 9: flags; from 16 on: 16 bits for each kind of failure. */
#define ANSWERED            (UINT64_C(1) << 8)
#define SIDE_DOWN           (UINT64_C(1) << 9)
#define FAILURE_BITS        16
#define FAILURE_SHIFT(kind) (16 + FAILURE_BITS * (kind))

struct streak streak_read(uint64_t word)
{
	struct streak s = {
		.state = streak_state(word),
		.answered = word & ANSWERED,
		.side_down = word & SIDE_DOWN,
	};

	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		s.failures[kind] = word >> FAILURE_SHIFT(kind);
	return s;
}

uint64_t streak_word(const struct streak *s)
{
	uint64_t word = s->state | (s->answered ? ANSWERED : 0) | (s->side_down ? SIDE_DOWN : 0);

	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		word |= (uint64_t)s->failures[kind] << FAILURE_SHIFT(kind);
	return word;
}

uint32_t streak_length(const struct streak *s)
{
	uint32_t n = 0;

	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		n += s->failures[kind];
	return n;
}

static bool swap(uint64_t *word, uint64_t *seen, uint64_t to)
{
	return __atomic_compare_exchange_n(word, seen, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

enum streak_result streak_fail(uint64_t *word, enum connect_failure kind, uint32_t limit)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct streak s;

	do {
		s = streak_read(seen);
		if (s.state != BREAKER_CLOSED || (s.side_down && kind == CONNECT_SILENT))
			return STREAK_IGNORED;
		/* No limit is that high; but the bits beside belong to another kind. */
		if (s.failures[kind] < UINT16_MAX)
			s.failures[kind]++;
		if (streak_length(&s) >= limit)
			s.state = BREAKER_OPEN;
	} while (!swap(word, &seen, streak_word(&s)));
	return s.state == BREAKER_OPEN ? STREAK_OPENED : STREAK_COUNTED;
}

bool streak_answered_after_failures(uint64_t *word, uint64_t seen)
{
	bool tell;

	do {
		struct streak s = streak_read(seen);

		if (s.answered)
			return false; /* decide was told */
		tell = s.state != BREAKER_CLOSED || s.side_down;
	} while (!swap(word, &seen, tell ? seen | ANSWERED : 0));
	return tell;
}
