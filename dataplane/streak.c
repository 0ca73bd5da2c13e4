/* SPDX-License-Identifier: BSD-3-Clause */
#include "streak.h"

const char *const breaker_state_name[BREAKER_STATES] = {
	[BREAKER_CLOSED] = "closed",
	[BREAKER_OPEN] = "open",
	[BREAKER_HALF_OPEN] = "half_open",
	[BREAKER_RAMP] = "ramp",
};

/* Bits 0-7: state; 8 to 10: flags; from 16 on: 12 bits for each kind of failure. */
#define ANSWERED            (UINT64_C(1) << 8)
#define SIDE_DOWN           (UINT64_C(1) << 9)
#define FORCED              (UINT64_C(1) << 10)
#define FAILURE_BITS        12
#define FAILURE_MAX         ((1 << FAILURE_BITS) - 1)
#define FAILURE_SHIFT(kind) (16 + FAILURE_BITS * (kind))

struct streak streak_read(uint64_t word)
{
	struct streak s = {
		.state = streak_state(word),
		.answered = word & ANSWERED,
		.side_down = word & SIDE_DOWN,
		.forced = word & FORCED,
	};

	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		s.failures[kind] = word >> FAILURE_SHIFT(kind) & FAILURE_MAX;
	return s;
}

uint64_t streak_word(const struct streak *s)
{
	uint64_t word =
		s->state | (s->answered ? ANSWERED : 0) | (s->side_down ? SIDE_DOWN : 0) | (s->forced ? FORCED : 0);

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

static uint32_t limit_in(enum breaker_state state, uint32_t limit)
{
	switch (state) {
	case BREAKER_HALF_OPEN:
		return 1;
	case BREAKER_RAMP:
		return limit < STREAK_RAMP_LIMIT ? limit : STREAK_RAMP_LIMIT;
	default:
		return limit;
	}
}

enum streak_result streak_fail(uint64_t *word, enum connect_failure kind, uint32_t limit)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct streak s;

	do {
		s = streak_read(seen);
		if (s.forced || s.state == BREAKER_OPEN ||
		    (s.side_down && (kind == CONNECT_SILENT || kind == CONNECT_STALLED)))
			return STREAK_IGNORED;
		/* No limit is that high; but the bits beside belong to another kind. */
		if (s.failures[kind] < FAILURE_MAX)
			s.failures[kind]++;
		if (streak_length(&s) >= limit_in(s.state, limit))
			s.state = BREAKER_OPEN;
	} while (!swap(word, &seen, streak_word(&s)));
	return s.state == BREAKER_OPEN ? STREAK_OPENED : STREAK_COUNTED;
}

/* What is not open only forgets; decide hears of an open one, and of a side. */
bool streak_answered_after_failures(uint64_t *word, uint64_t seen)
{
	bool tell;

	do {
		struct streak s = streak_read(seen);

		tell = s.state == BREAKER_OPEN || s.side_down;
		if (s.forced || s.answered || (!tell && !streak_length(&s)))
			return false; /* decide was told; or there is nothing to forget */
	} while (!swap(word, &seen, tell ? seen | ANSWERED : seen & STREAK_STATE_MASK));
	return tell;
}

bool streak_reopen(uint64_t *word)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct streak s;

	do {
		s = streak_read(seen);
		if (s.state != BREAKER_HALF_OPEN)
			return false;
		s.state = BREAKER_OPEN;
	} while (!swap(word, &seen, streak_word(&s)));
	return true;
}

/* --- responses: 16 bits of count, then a network each --- */

#define NETWORK_AT(word, i) ((uint16_t)((word) >> 16 * ((i) + 1)))

struct response_streak response_read(uint64_t word)
{
	struct response_streak r = {.n = word & 0xffff};

	while (r.n_networks < RESPONSE_NETWORKS && NETWORK_AT(word, r.n_networks))
		r.n_networks++;
	return r;
}

static uint64_t with_network(uint64_t word, uint16_t network)
{
	for (unsigned i = 0; i < RESPONSE_NETWORKS; i++) {
		if (NETWORK_AT(word, i) == network)
			return word;
		if (!NETWORK_AT(word, i))
			return word | (uint64_t)network << 16 * (i + 1);
	}
	return word;
}

struct response_streak response_fail(uint64_t *word, uint16_t network)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED), to;

	do
		to = with_network((seen & 0xffff) < 0xffff ? seen + 1 : seen, network);
	while (!swap(word, &seen, to));
	return response_read(to);
}
