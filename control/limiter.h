/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The delay-budget limiter of one backend: how much work it may have at a time, so that what is admitted is answered
 * before its client has given up.
 *
 * While first bytes come as they always did, nothing is limited. When they take longer than the backend can explain, or
 * stop, it is congested, and by Little's law what it may have at a time is the rate at which it answered of late times
 * the delay that is allowed to it. So a backend whose clients retry is never given work that is stale before it is
 * begun (Bronson et al., "Metastable failures in distributed systems", HotOS'21). What a client gave up is work until
 * the backend is through with it, and a first byte of at least the time that the client waited.
 *
 * Who comes together, after an outage or a restart of theirs, may be too many at once for a backend that bears them one
 * after the other. So while nothing is wrong, too, there is a window: work may at once grow to twice what it bore of
 * late, and then, as long as first bytes come about when they always did, by a part of what is answered. Where they
 * come later with much of the window under way, it narrows to what is answered in half of the time that is tolerated,
 * and such a second teaches nothing. Until it is known what is usual, the window is soft: who finds no room waits for a
 * moment, and goes then in any case.
 *
 * Where answers take very different times, their mean swings, and says little of a line; the quickest do, for in a line
 * all wait. So as long as some first bytes are far quicker than the mean, and few clients give up, it bears what it
 * has: its window is not narrowed, and grows; that of a young one doubles. Whether it is congested the mean says all
 * the same.
 *
 * Of a backend that has just begun to answer the quick answers come first. So what is usual is measured anew until it
 * has answered for eight seconds, and until then it is congested only if clients give up as well. And how much it bears
 * shows only in that some answers stay quick, or that it answers more when it has more: without that, the window of a
 * young one stays where it is.
 *
 * Fed once per tick with sums that only grow, by a clock and a chance that are passed in. Nothing here has side
 * effects.
 */
#pragma once

#include "histogram.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIMITER_TICK_NS       100000000ull
#define LIMITER_MIN           16           /* work at a time that it may always have */
#define LIMITER_SLACK_NS      100000000ull /* what a first byte may take more than usual */
#define LIMITER_SLACK_MIN_NS  10000000ull  /* even where the clients' patience does not allow for it */
#define LIMITER_TOLERANCE     2            /* or so many times as long */
#define LIMITER_GAIN          2
#define LIMITER_FIRST_BASE    100000000ull  /* of one of which too little is known, for what stalls */
#define LIMITER_STALL_NS      300000000ull  /* without an answer, but five times its base at least */
#define LIMITER_YOUNG_NS      1000000000ull /* after that, and two, four and eight times as long, what was measured */
#define LIMITER_YOUNG_TIMES   3             /* before is forgotten: the slowest of what it does was not in it */
#define LIMITER_WINDOW_MIN    64            /* work that may begin at once though no more than that was seen of late */
#define LIMITER_AGAIN_NS      600000000000ull /* congested for so long, it may be that it will not become faster again */
#define LIMITER_RATE_WORTH_NS 60000000000ull  /* what it answered that long ago says nothing of what it can now */

/* Of all workers, ever. */
struct limiter_counts {
	uint64_t answered;                   /* responses that began */
	uint64_t timed, timed_us;            /* of those, where the time is known: how many, and their sum */
	uint64_t gave_up, gave_up_us;        /* clients that left unanswered, and how long they had waited in all */
	uint64_t octaves[HISTOGRAM_OCTAVES]; /* of the times that are known; all zero: not told */
	uint32_t wip; /* work now: unanswered SYNs, open exchanges, and what their clients left behind */
};

/* Where what is known of its first bytes comes from. */
enum limiter_base {
	LIMITER_BASE_NONE,
	LIMITER_BASE_MEASURED,
	LIMITER_BASE_RESTART, /* measured by the gateway's last life */
	LIMITER_BASE_LEFT,    /* measured before the backend left its services */
	LIMITER_BASE_LIMITED, /* measured while it was limited: nothing that is worth to be remembered */
	LIMITER_BASES,
};

extern const char *const limiter_base_name[LIMITER_BASES]; /* "none", "measured", "restart", "left", "limited" */

/* What a limiter leaves to the next one of the same backend. */
struct limiter_past {
	uint64_t base_ns, base_age_ns; /* and since when nothing has shown that it is so still */
	uint64_t rate, rate_age_ns;    /* answers in a second */
};

#define LIMITER_EASY_TICKS   3  /* the first answers of a burst come early in any case */
#define LIMITER_SECOND_TICKS 10 /* in which answers per second are counted, any ten in a row */
#define LIMITER_RATE_SECONDS 10
#define LIMITER_BASE_SLOTS   12 /* of 5 s each */

enum limiter_state {
	LIMITER_OPEN,
	LIMITER_LIMITING,
	LIMITER_STATES,
};

extern const char *const limiter_state_name[LIMITER_STATES]; /* "open", "limiting" */

/* All zero: nothing is known. */
struct limiter {
	enum limiter_state state;
	uint64_t since_ns; /* in that state; 0: ever */
	uint32_t limit;    /* of work at a time; 0: before the first tick */
	bool soft;         /* it only spreads what comes: not enough is known of it yet, or it has just come back */
	/* As of the last tick: */
	uint64_t base_ns;       /* how long first bytes take when nothing is wrong; 0: not known yet */
	uint64_t base_seen_ns;  /* when that was seen last, without congestion; may be before the clock began */
	uint64_t first_byte_ns; /* of late */
	enum limiter_base base_from;
	uint64_t rate; /* the most that it answered in a second, of the last ten */
	uint64_t slack_ns;
	/* An attempt may wait for so long: what its client's patience leaves beside the work; a quarter of it in
	 * congestion. */
	uint64_t hold_ns;
	uint32_t wip;
	bool stalled;   /* it has work, and answers nothing */
	bool impatient; /* its clients' timeout is too short for what it usually takes */

	struct limiter_counts seen;
	uint64_t tick_ns;     /* of the last one */
	uint64_t answered_ns; /* the last tick with an answer, or without enough work to miss one */
	uint64_t calm_ns;     /* since then first bytes are short enough to end the congestion; 0: they are not */
	/* Answers, by tick, and the most that a second had of those that ended in each second: */
	uint64_t tick_number;
	uint32_t answers[LIMITER_SECOND_TICKS], rates[LIMITER_RATE_SECONDS];
	/* Means of a hundred first bytes, the least of each 5 s. */
	struct {
		uint64_t number, least_ns; /* 0: none */
		enum limiter_base from;
	} bases[LIMITER_BASE_SLOTS];
	/* Of the hundred that is not whole yet; work under way meanwhile, times how long: */
	uint64_t n_group, group_us, n_group_answered, group_work_us;
	uint64_t young_ns;  /* since it first answered; 0: it has not */
	uint32_t n_young;   /* how often all was measured anew since */
	bool ripe;          /* what is known of its first bytes is more than how it began */
	uint64_t n_left;    /* clients that gave up of late */
	uint64_t frozen_ns; /* by which times of bases are behind the clock: they do not age in congestion */
	/* How work may grow: */
	uint32_t window, peaks[LIMITER_RATE_SECONDS]; /* the most under way, by second */
	uint32_t n_easy, n_tried; /* ticks in a row in which it was at ease, and that with much of its window */
	/* Of one that is young: ticks with answers; the most that some answered; its work before them, and of late: */
	uint32_t n_answering, paid, paid_work, had[LIMITER_EASY_TICKS];
	struct limiter_spread {
		uint64_t octaves[HISTOGRAM_OCTAVES], n, us; /* of first bytes that are not judged yet */
		uint64_t n_answered, work_us;               /* and meanwhile; work under way, times how long, */
		uint64_t n_left;                            /* and clients that gave up */
		uint64_t in_a_row;                          /* so many that were judged differed much */
		uint64_t judged_ns, took_ns;                /* when some were, last, and how long they had come in */
	} spread;
	/* When it was congested for too long: */
	uint64_t again_ns, probing_until_ns; /* 0: not planned; not under way */
	uint64_t n_probed, probed_us;
	uint32_t n_again;    /* how often that came to an end */
	uint64_t refuted_ns; /* what was usual before the last time; 0: it came to nothing, and is so still */
};

struct limiter_parameters {
	uint64_t client_timeout_ns; /* how long its clients wait */
	uint32_t most;              /* in its breaker's ramp: work at a time; 0: it is in none */
};

/* True: the state changed. The last tick may be any time ago: rates go by the clock, not by ticks. */
bool limiter_tick(struct limiter *l, const struct limiter_counts *counts, const struct limiter_parameters *p,
		  uint64_t now_ns, uint32_t chance);

/* Before its first tick: what was known of the backend, which is too old nowhere. */
void limiter_recall(struct limiter *l, const struct limiter_past *past, enum limiter_base from, uint64_t now_ns);
/* False: there is nothing that is worth to be remembered. */
bool limiter_past(const struct limiter *l, uint64_t now_ns, struct limiter_past *out);
/*
 * What is usual is to be measured anew. One that is limited is asked at once with half as much, as it is after ten
 * minutes, for what it takes in congestion would be taken for usual else; true: that has been begun.
 */
bool limiter_reset(struct limiter *l, uint64_t now_ns);

/* First bytes that take less, for a second, end the congestion. */
uint64_t limiter_calm_ns(const struct limiter *l);

/* What a backend may have at a time in its breaker's ramp, of which it has come so far: of 2^32 - 1. */
uint32_t limiter_ramp(uint32_t share);

/* "first bytes take 480.0 ms (usually 20.0), 412 answers a second at the most, 97 under way: at most 59" */
void limiter_describe(const struct limiter *l, char *out, size_t size);
/* "20.0", "20.0, from before the restart", … */
#define LIMITER_USUAL_LEN 64
void limiter_say_usual(uint64_t base_ns, enum limiter_base from, char out[static LIMITER_USUAL_LEN]);
