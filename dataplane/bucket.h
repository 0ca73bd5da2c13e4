/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token buckets as GCRA: all that a bucket is, is one theoretical arrival time (TAT).
 *
 *   admit iff TAT - now <= burst / rate        taking one: TAT' = max(now, TAT) + 1 / rate
 *
 * An idle bucket therefore admits burst + 1 at once. Testing and taking are apart, so that a packet that passes several
 * buckets takes from none unless all admit it: a refusal leaves every bucket as it was. Cells may be shared by workers;
 * between one worker's test and its take others may take, so that the overshoot is at most one per worker.
 *
 * Times are kept in 2^-16 ns, so that an interval's rounding stays below one token in 20 s up to 2 500 000/s. 64 bits
 * of that wrap every 78 h, which is why "ahead of now" is judged within a window: beyond it a TAT is of the past.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GCRA_FRACTION_BITS 16

/* Read-only once made; shared by all cells of one kind. In 2^-16 ns. */
struct gcra_rate {
	uint64_t interval;  /* 1 / rate */
	uint64_t tolerance; /* burst / rate */
	uint64_t window;    /* no TAT is ever further ahead of any worker's now */
};

/* All zero: an idle bucket. */
struct gcra {
	_Atomic uint64_t tat;
};

/*
 * `tokens` per `per_ns`, and `burst` more at once. Returns 0, -EINVAL (tokens or per_ns 0) or -ERANGE (beyond what the
 * clock above can hold: more than one token per ns, or less than about one in half an hour).
 */
int gcra_rate_init(struct gcra_rate *rate, uint64_t tokens, uint64_t per_ns, uint64_t burst);
/* What a rate without a burst of its own gets: 100 ms of it, at least 10. */
uint64_t gcra_default_burst(uint64_t tokens, uint64_t per_ns);

/* Without side effects. */
static inline bool gcra_test(const struct gcra *cell, const struct gcra_rate *rate, uint64_t now_ns)
{
	uint64_t tat = atomic_load_explicit(&cell->tat, memory_order_relaxed);
	uint64_t ahead = tat - (now_ns << GCRA_FRACTION_BITS);

	return ahead <= rate->tolerance || ahead > rate->window;
}

/* After gcra_test() of this and of all other buckets concerned. Never refuses. */
static inline void gcra_take(struct gcra *cell, const struct gcra_rate *rate, uint64_t now_ns)
{
	uint64_t now = now_ns << GCRA_FRACTION_BITS;
	uint64_t tat = atomic_load_explicit(&cell->tat, memory_order_relaxed);
	uint64_t next;

	do
		next = (tat - now > rate->window ? now : tat) + rate->interval;
	while (!atomic_compare_exchange_weak_explicit(&cell->tat, &tat, next, memory_order_relaxed,
						      memory_order_relaxed));
}
