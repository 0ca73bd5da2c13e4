/* SPDX-License-Identifier: BSD-3-Clause */
#include "trial.h"

#define AHEAD_MS 10000

struct trial trial_read(uint64_t word)
{
	return (struct trial){
		.phase = (enum trial_phase)(word & 0xff),
		.wins = word >> 8,
		.generation = word >> 16,
		.network = word >> 24,
		.since_ms = word >> 32,
	};
}

uint64_t trial_word(const struct trial *t)
{
	return t->phase | (uint64_t)t->wins << 8 | (uint64_t)t->generation << 16 | (uint64_t)t->network << 24 |
	       (uint64_t)t->since_ms << 32;
}

static bool swap(uint64_t *word, uint64_t *seen, const struct trial *to)
{
	return __atomic_compare_exchange_n(word, seen, trial_word(to), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Workers and decide look at the clock at different moments: a change may be of a moment that lies ahead. */
static uint32_t ms_since(const struct trial *t, uint32_t now_ms)
{
	uint32_t ms = now_ms - t->since_ms;

	return ms > UINT32_MAX - AHEAD_MS ? 0 : ms;
}

/* Who only holds the place, again and again, shall not keep it from everybody else. */
static bool has_to_yield(const struct trial *t, uint8_t network, uint32_t now_ms)
{
	return t->network == network && ms_since(t, now_ms) < TRIAL_YIELD_MS;
}

bool trial_is_left(const uint64_t *word, uint32_t now_ms)
{
	struct trial t = trial_read(__atomic_load_n(word, __ATOMIC_RELAXED));

	return t.phase == TRIAL_FREE && ms_since(&t, now_ms) >= TRIAL_LEFT_MS;
}

bool trial_take(uint64_t *word, uint8_t network, uint32_t now_ms, uint8_t *generation)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct trial t;

	do {
		t = trial_read(seen);
		if (t.phase != TRIAL_FREE || t.wins >= TRIAL_WINS || has_to_yield(&t, network, now_ms))
			return false;
		t.phase = TRIAL_SYN;
		t.network = network;
		t.since_ms = now_ms;
	} while (!swap(word, &seen, &t));
	*generation = t.generation;
	return true;
}

static bool is_current(const struct trial *t, uint8_t generation)
{
	return t->phase != TRIAL_FREE && t->generation == generation;
}

bool trial_move(uint64_t *word, uint8_t generation, enum trial_phase phase, uint32_t now_ms)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct trial t;

	do {
		t = trial_read(seen);
		if (!is_current(&t, generation))
			return false;
		t.phase = phase;
		t.since_ms = now_ms;
	} while (!swap(word, &seen, &t));
	return true;
}

unsigned trial_end(uint64_t *word, uint8_t generation, bool won, uint32_t now_ms)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct trial t;

	do {
		t = trial_read(seen);
		if (!is_current(&t, generation))
			return 0;
		t.phase = TRIAL_FREE;
		t.wins += won;
		t.network = won ? 0 : t.network;
		t.generation = (t.generation + 1) % TRIAL_GENERATIONS;
		t.since_ms = now_ms;
	} while (!swap(word, &seen, &t));
	return t.wins;
}

void trial_win(uint64_t *word, uint64_t seen, uint32_t now_ms)
{
	struct trial t = trial_read(seen);

	t.phase = TRIAL_FREE;
	t.wins++;
	t.network = 0;
	t.generation = (t.generation + 1) % TRIAL_GENERATIONS;
	t.since_ms = now_ms;
	swap(word, &seen, &t);
}

void trial_begin(uint64_t *word, bool keep_wins, uint32_t now_ms)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);
	struct trial t;

	do {
		t = trial_read(seen);
		t.phase = TRIAL_FREE;
		t.wins = keep_wins ? t.wins : 0;
		t.network = keep_wins ? t.network : 0;
		t.generation = (t.generation + 1) % TRIAL_GENERATIONS;
		t.since_ms = now_ms;
	} while (!swap(word, &seen, &t));
}
