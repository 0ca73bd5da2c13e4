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
 *
 * Those who wait for a bucket stand in a line: places one interval apart, of which the next free one is all that is
 * kept. The line says when somebody may hope for a token, so that those who came first get theirs first, whatever
 * worker they wait at; the bucket alone gives it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GCRA_FRACTION_BITS 16

/* The longest that anybody may stand in a line. */
#define GCRA_LINE_MAX_NS   3000000000ull

/* No window is longer: what lies further ahead is of the past, up to 58 h ago. */
#define GCRA_WINDOW_MAX    ((uint64_t)1 << 62)

/* Read-only once made; shared by all cells of one kind. In 2^-16 ns. All zero: no limit. */
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
/* The same of an interval in 2^-16 ns, where all of it is known to fit: at least one token a second, and few at once.
 */
struct gcra_rate gcra_rate_of(uint64_t interval, uint64_t burst);
/* What a rate without a burst of its own gets: 100 ms of it, at least 10. */
uint64_t gcra_default_burst(uint64_t tokens, uint64_t per_ns);

/* All zero: nobody waits. */
struct gcra_line {
	_Atomic uint64_t next; /* the next free place */
};

/* How long until the bucket admits, in 2^-16 ns; 0: it does. Without side effects. */
static inline uint64_t gcra_wait(const struct gcra *cell, const struct gcra_rate *rate, uint64_t now_ns)
{
	uint64_t tat = atomic_load_explicit(&cell->tat, memory_order_relaxed);
	uint64_t ahead = tat - (now_ns << GCRA_FRACTION_BITS);

	return ahead <= rate->tolerance || ahead > rate->window ? 0 : ahead - rate->tolerance;
}

/* Without side effects. */
static inline bool gcra_test(const struct gcra *cell, const struct gcra_rate *rate, uint64_t now_ns)
{
	return gcra_wait(cell, rate, now_ns) == 0;
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

/*
 * The same without a test before it, for a bucket that only says who takes more than its rate, and keeps nobody from
 * it: beyond the tolerance it owes no more than `owed_max` (2^-16 ns), however much it takes. With the tolerance, an
 * interval and that, the window must not be reached: what lies beyond it would be of the past, and nothing owed.
 */
static inline void gcra_owe(struct gcra *cell, const struct gcra_rate *rate, uint64_t owed_max, uint64_t now_ns)
{
	uint64_t now = now_ns << GCRA_FRACTION_BITS;
	uint64_t tat = atomic_load_explicit(&cell->tat, memory_order_relaxed);
	uint64_t ahead;

	do {
		ahead = tat - now > rate->window ? 0 : tat - now;
		if (ahead > rate->tolerance + owed_max)
			ahead = rate->tolerance + owed_max;
	} while (!atomic_compare_exchange_weak_explicit(&cell->tat, &tat, now + ahead + rate->interval,
							memory_order_relaxed, memory_order_relaxed));
}

/* Has another rate from now on: what was taken at the one before is owed no longer than a burst of this one. */
static inline void gcra_clamp(struct gcra *cell, const struct gcra_rate *rate, uint64_t now_ns)
{
	uint64_t now = now_ns << GCRA_FRACTION_BITS;
	uint64_t tat = atomic_load_explicit(&cell->tat, memory_order_relaxed);

	while (tat - now <= GCRA_WINDOW_MAX && tat - now > rate->tolerance &&
	       !atomic_compare_exchange_weak_explicit(&cell->tat, &tat, now + rate->tolerance, memory_order_relaxed,
						      memory_order_relaxed))
		;
}

/* Of two buckets, the one with the lower rank has been idle for longer. */
static inline uint64_t gcra_rank(const struct gcra *cell, uint64_t now_ns)
{
	uint64_t tat = atomic_load_explicit(&cell->tat, memory_order_relaxed);

	return tat - (now_ns << GCRA_FRACTION_BITS) - (GCRA_WINDOW_MAX + 1);
}

/* How long until the next free place, in 2^-16 ns; 0: nobody waits. */
static inline uint64_t gcra_line_wait(const struct gcra_line *line, const struct gcra_rate *rate, uint64_t now_ns)
{
	uint64_t ahead = atomic_load_explicit(&line->next, memory_order_relaxed) - (now_ns << GCRA_FRACTION_BITS);

	return ahead > rate->window ? 0 : ahead;
}

/*
 * Takes the next free place that is not before `*wait` from now, and sets `*wait` to it. False, and nothing changed, if
 * that is beyond `max_wait` (at most GCRA_LINE_MAX_NS). All in 2^-16 ns.
 */
static inline bool gcra_line_join(struct gcra_line *line, const struct gcra_rate *rate, uint64_t now_ns,
				  uint64_t max_wait, uint64_t *wait)
{
	uint64_t now = now_ns << GCRA_FRACTION_BITS;
	uint64_t next = atomic_load_explicit(&line->next, memory_order_relaxed);
	uint64_t place;

	do {
		place = next - now > rate->window ? 0 : next - now;
		if (place < *wait)
			place = *wait;
		if (place > max_wait)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&line->next, &next, now + place + rate->interval,
							memory_order_relaxed, memory_order_relaxed));
	*wait = place;
	return true;
}
