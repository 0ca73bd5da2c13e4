/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A backend's breaker as the workers and decide share it: its state, and the connect failures in a row that led or lead
 * to it, in one word, so that nobody sees the one without the other. Zero: closed, and nothing to say against it.
 *
 * Workers count failures, forget them, and open; all else is decide's. Every change is one compare-and-swap.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum breaker_state {
	BREAKER_CLOSED,
	BREAKER_OPEN,      /* no new flows */
	BREAKER_HALF_OPEN, /* one at a time */
	BREAKER_RAMP,      /* a growing share */
	BREAKER_STATES,
};

extern const char *const breaker_state_name[BREAKER_STATES]; /* "closed", … */

/* Of a SYN that was sent to the backend. */
enum connect_failure {
	CONNECT_SILENT,      /* no answer in time */
	CONNECT_REFUSED,     /* RST */
	CONNECT_UNREACHABLE, /* ICMP error */
	CONNECT_STALLED,     /* not of a SYN: data after it was sent again and again, without a word */
	CONNECT_FAILURES,
};

/* What the word says. */
struct streak {
	enum breaker_state state;
	bool answered;  /* not closed, or its side down: and a SYN was answered; for decide to settle */
	bool forced;    /* an operator says so: it stays in that state, whatever happens */
	bool side_down; /* its whole side fell silent: silence counts for nothing until it is answered */
	uint16_t failures[CONNECT_FAILURES];
};

#define STREAK_STATE_MASK UINT64_C(0xff)

static inline enum breaker_state streak_state(uint64_t word)
{
	return (enum breaker_state)(word & STREAK_STATE_MASK);
}

struct streak streak_read(uint64_t word);
uint64_t streak_word(const struct streak *s);
uint32_t streak_length(const struct streak *s);

enum streak_result {
	STREAK_COUNTED,
	STREAK_OPENED,  /* it was the one too many: the word is open now, with all of them in it */
	STREAK_IGNORED, /* open, or silence while the side is down */
};

#define STREAK_RAMP_LIMIT 2 /* in the ramp; in half-open it is one */

/* One more failure; `limit` of them in a row open a closed one. */
enum streak_result streak_fail(uint64_t *word, enum connect_failure kind, uint32_t limit);

/* The rest of streak_answered(), where there is something to forget or to tell. */
bool streak_answered_after_failures(uint64_t *word, uint64_t seen);

/*
 * A SYN was answered: the streak is over. True if decide should hear of it. Read before written: the line of a healthy
 * backend stays shared.
 */
static inline bool streak_answered(uint64_t *word)
{
	uint64_t seen = __atomic_load_n(word, __ATOMIC_RELAXED);

	return seen && streak_answered_after_failures(word, seen);
}

/* A half-open one failed otherwise than by a SYN. True: it is open now. */
bool streak_reopen(uint64_t *word);

/* --- responses that failed in a row, and how many networks' they were: a word of its own; zero: none --- */

#define RESPONSE_NETWORKS 3

struct response_streak {
	unsigned n, n_networks;
};

struct response_streak response_read(uint64_t word);
/* One more, of a client of that network (a hash, never 0). Returns what it has become. */
struct response_streak response_fail(uint64_t *word, uint16_t network);

/* A response began. Read before written, as above. */
static inline void response_began(uint64_t *word)
{
	if (__builtin_expect(__atomic_load_n(word, __ATOMIC_RELAXED) != 0, 0))
		__atomic_store_n(word, 0, __ATOMIC_RELAXED);
}
