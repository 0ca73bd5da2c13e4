/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The limiter against an upstream of W workers with a queue, which does not notice that clients left, and clients with
 * deadlines and naive retries: a model of both by the millisecond, on a clock and chances of its own.
 */
#include "limiter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define S  1000000000ull

/* --- the model --- */

struct trouble {
	unsigned from_ms, until_ms; /* in that time: */
	double capacity;            /* this part of the workers runs, */
	double surge;               /* and so many times as much is asked */
};

struct kind {
	const char *name;
	double rate; /* requests a second */
	unsigned n_workers;
	double work_ms; /* mean; exponential */
	unsigned timeout_ms, retries, backlog;
	bool limits;         /* the limiter is there */
	unsigned restart_ms; /* then the gateway is another one; 0: never */
	bool recalls;        /* which knows what was usual */
	unsigned herd;       /* come together when the trouble begins */
	struct trouble trouble;
	unsigned seconds;
};

enum { FREE, HELD, QUEUED, RUNNING };

static unsigned octave_of_ms(double ms)
{
	return ms < 0.002 ? 0 : (unsigned)log2(ms * 1000);
}

struct attempt {
	uint8_t where;
	bool left;      /* its client has */
	bool lost;      /* the gateway that had it is gone */
	unsigned tries; /* left to it */
	unsigned born_ms, asked_ms, gone_ms, done_ms;
};

#define ATTEMPTS_MAX 65536
#define SECONDS_MAX  120

struct world {
	const struct kind *kind;
	struct limiter limiter;
	struct limiter_counts counts;
	struct attempt attempts[ATTEMPTS_MAX];
	uint32_t queue[ATTEMPTS_MAX], head, tail;
	uint32_t held[ATTEMPTS_MAX], held_head, held_tail;
	uint32_t free[ATTEMPTS_MAX], n_free;
	uint32_t running[256], n_running;
	uint32_t zombie_ends[SECONDS_MAX * 1000 + 20000];
	uint32_t zombies, open;
	uint64_t random;
	unsigned now_ms;
	unsigned good[SECONDS_MAX], refused[SECONDS_MAX], asked[SECONDS_MAX], waited[SECONDS_MAX];
	/* By ms: answers in the trouble, since their clients began, and since they were let in. */
	unsigned took[SECONDS_MAX * 1000], took_inside[SECONDS_MAX * 1000];
	unsigned wasted, changes, dropped;
	bool restarted;
	double mean_ms; /* of first bytes, as zombies go by it */
};

static struct world *world;

static uint64_t draw(struct world *w)
{
	uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static double uniform(struct world *w)
{
	return (draw(w) >> 11) * 0x1p-53;
}

static double exponential(struct world *w, double mean)
{
	return -mean * log(1 - uniform(w));
}

static unsigned poisson(struct world *w, double mean)
{
	double limit = exp(-mean), product = uniform(w);
	unsigned n = 0;

	for (; product > limit; n++)
		product *= uniform(w);
	return n;
}

static bool in_trouble(const struct world *w)
{
	return w->now_ms >= w->kind->trouble.from_ms && w->now_ms < w->kind->trouble.until_ms;
}

static void begin_attempt(struct world *w, unsigned tries);
static void refuse(struct world *w, uint32_t i);

static void give_to_upstream(struct world *w, uint32_t i)
{
	if (w->tail - w->head >= w->kind->backlog) {
		w->dropped++;
		refuse(w, i);
		return;
	}
	w->attempts[i].where = QUEUED;
	w->attempts[i].asked_ms = w->now_ms;
	w->queue[w->tail++ % ATTEMPTS_MAX] = i;
	w->open++;
}

static uint32_t wip(const struct world *w)
{
	return w->open + w->zombies;
}

static bool is_admitted(const struct world *w)
{
	return (!w->kind->limits && !w->restarted) || wip(w) < w->limiter.limit;
}

static void refuse(struct world *w, uint32_t i)
{
	unsigned tries = w->attempts[i].tries;

	w->refused[w->now_ms / 1000]++;
	w->attempts[i].where = FREE;
	w->free[w->n_free++] = i;
	if (tries)
		begin_attempt(w, tries - 1);
}

static void begin_attempt(struct world *w, unsigned tries)
{
	uint32_t i;

	assert_true(w->n_free);
	i = w->free[--w->n_free];
	w->attempts[i] = (struct attempt){.tries = tries, .born_ms = w->now_ms};
	if (is_admitted(w) && w->held_head == w->held_tail)
		give_to_upstream(w, i);
	else {
		w->attempts[i].where = HELD;
		w->waited[w->now_ms / 1000]++;
		w->held[w->held_tail++ % ATTEMPTS_MAX] = i;
	}
}

static void run_holds(struct world *w)
{
	while (w->held_head != w->held_tail) {
		uint32_t i = w->held[w->held_head % ATTEMPTS_MAX];

		if (is_admitted(w)) {
			w->held_head++;
			give_to_upstream(w, i);
		} else if ((w->now_ms - w->attempts[i].born_ms) * MS >= w->limiter.hold_ns) {
			w->held_head++;
			if (w->limiter.soft)
				give_to_upstream(w, i);
			else
				refuse(w, i);
		} else {
			return;
		}
	}
}

/* A client that gives up: its work goes on, for as long as the gateway believes. */
static void leave(struct world *w, uint32_t i)
{
	struct attempt *a = &w->attempts[i];
	unsigned waited_ms = w->now_ms - a->asked_ms, zombie_ms = 2 * w->mean_ms > 1000 ? 2 * w->mean_ms : 1000;

	a->left = true;
	a->gone_ms = w->now_ms + (zombie_ms < 10000 ? zombie_ms : 10000);
	w->open--;
	w->zombies++;
	w->zombie_ends[a->gone_ms]++;
	w->counts.gave_up++;
	w->counts.gave_up_us += waited_ms * 1000;
	if (a->tries)
		begin_attempt(w, a->tries - 1);
}

static void run_clients(struct world *w)
{
	double rate = w->kind->rate * (in_trouble(w) && w->kind->trouble.surge ? w->kind->trouble.surge : 1);
	unsigned n = poisson(w, rate / 1000) + (w->now_ms == w->kind->trouble.from_ms ? w->kind->herd : 0);

	while (n--) {
		w->asked[w->now_ms / 1000]++;
		begin_attempt(w, w->kind->retries);
	}
	/* In order of their beginning, for what is upstream waits in this order. */
	for (uint32_t at = w->head; at != w->tail; at++) {
		uint32_t i = w->queue[at % ATTEMPTS_MAX];

		if (!w->attempts[i].left && w->now_ms - w->attempts[i].born_ms >= w->kind->timeout_ms)
			leave(w, i);
	}
	for (uint32_t at = 0; at < w->n_running; at++)
		if (!w->attempts[w->running[at]].left &&
		    w->now_ms - w->attempts[w->running[at]].born_ms >= w->kind->timeout_ms)
			leave(w, w->running[at]);
}

static void answer(struct world *w, uint32_t i)
{
	struct attempt *a = &w->attempts[i];
	double took_ms = w->now_ms - a->asked_ms;

	if (a->lost) {
		w->wasted++;
		a->where = FREE;
		w->free[w->n_free++] = i;
		return;
	}
	if (a->left) {
		w->wasted++;
		if (a->gone_ms > w->now_ms) {
			w->zombies--;
			w->zombie_ends[a->gone_ms]--;
		}
	} else {
		w->open--;
		w->good[w->now_ms / 1000]++;
		if (in_trouble(w)) {
			w->took[w->now_ms - a->born_ms]++;
			w->took_inside[w->now_ms - a->asked_ms]++;
		}
		w->counts.timed++;
		w->counts.timed_us += took_ms * 1000;
		w->counts.octaves[octave_of_ms(took_ms)]++;
		w->mean_ms += (took_ms - w->mean_ms) / 16;
	}
	w->counts.answered++;
	a->where = FREE;
	w->free[w->n_free++] = i;
}

static void run_upstream(struct world *w)
{
	double part = in_trouble(w) && w->kind->trouble.capacity >= 0 ? w->kind->trouble.capacity : 1;
	unsigned n_workers = round(w->kind->n_workers * part);

	for (uint32_t at = w->n_running; at-- > 0;)
		if (w->attempts[w->running[at]].done_ms <= w->now_ms && (part || !in_trouble(w))) {
			answer(w, w->running[at]);
			w->running[at] = w->running[--w->n_running];
		}
	while (w->n_running < n_workers && w->head != w->tail) {
		uint32_t i = w->queue[w->head++ % ATTEMPTS_MAX];

		w->attempts[i].where = RUNNING;
		w->attempts[i].done_ms = w->now_ms + lround(exponential(w, w->kind->work_ms));
		w->running[w->n_running++] = i;
	}
}

/* It has told its clients, who come again; what it had given to the upstream is there still. */
static void lose(struct world *w, uint32_t i)
{
	struct attempt *a = &w->attempts[i];
	bool left = a->left;

	a->lost = a->left = true;
	if (!left && a->tries)
		begin_attempt(w, a->tries - 1);
}

static void restart(struct world *w)
{
	uint64_t clock_ns = 1000 * S + w->now_ms * MS;
	uint32_t tail = w->tail, n_running = w->n_running;
	struct limiter_past past;
	bool known = limiter_past(&w->limiter, clock_ns, &past);

	w->restarted = true;
	w->limiter = (struct limiter){0};
	w->counts = (struct limiter_counts){0};
	if (w->kind->recalls && known)
		limiter_recall(&w->limiter, &past, LIMITER_BASE_RESTART, clock_ns);
	w->open = w->zombies = 0;
	memset(w->zombie_ends, 0, sizeof(w->zombie_ends));
	for (; w->held_head != w->held_tail; w->held_head++)
		w->free[w->n_free++] = w->held[w->held_head % ATTEMPTS_MAX];
	for (uint32_t at = w->head; at != tail; at++)
		lose(w, w->queue[at % ATTEMPTS_MAX]);
	for (uint32_t at = 0; at < n_running; at++)
		lose(w, w->running[at]);
}

static void run(const struct kind *kind, uint64_t seed)
{
	struct limiter_parameters p = {.client_timeout_ns = kind->timeout_ms * MS};
	struct world *w = world;

	memset(w, 0, sizeof(*w));
	w->kind = kind;
	w->random = seed;
	for (uint32_t i = 0; i < ATTEMPTS_MAX; i++)
		w->free[w->n_free++] = i;
	for (w->now_ms = 0; w->now_ms < kind->seconds * 1000; w->now_ms++) {
		w->zombies -= w->zombie_ends[w->now_ms];
		if (w->now_ms && w->now_ms == kind->restart_ms)
			restart(w);
		if (w->now_ms % 100 == 0) {
			w->counts.wip = wip(w);
			w->changes += limiter_tick(&w->limiter, &w->counts, &p, 1000 * S + w->now_ms * MS, draw(w));
		}
		run_upstream(w);
		run_holds(w);
		run_clients(w);
	}
}

/* A second, on the mean. */
static double mean(const unsigned *per_second, unsigned from_s, unsigned until_s)
{
	unsigned n = 0;

	for (unsigned s = from_s; s < until_s; s++)
		n += per_second[s];
	return (double)n / (until_s - from_s);
}

/* So many of a hundred of those that were answered in the trouble took no longer. */
static unsigned percentile_ms(const unsigned *by_ms, unsigned percent)
{
	unsigned n = 0, seen = 0, ms = 0;

	for (unsigned i = 0; i < SECONDS_MAX * 1000; i++)
		n += by_ms[i];
	while (seen * 100 < n * percent)
		seen += by_ms[ms++];
	return ms;
}

static void say(const char *what)
{
	const struct kind *k = world->kind;
	unsigned from_s = k->trouble.from_ms / 1000, until_s = k->trouble.until_ms / 1000;

	print_message("%-28s %-9s before %5.1f, during %5.1f, next 10 s %5.1f/s; wasted %u; refused before %.2f %%\n",
		      k->name, what, mean(world->good, 10, from_s), mean(world->good, from_s, until_s),
		      mean(world->good, until_s + 1, until_s + 11), world->wasted,
		      100 * mean(world->refused, 0, from_s) / mean(world->asked, 0, from_s));
}

#define STALL_5S                                                                                                       \
	{                                                                                                              \
		.from_ms = 20000, .until_ms = 25000                                                                    \
	}
#define PLAIN                                                                                                          \
	.rate = 400, .n_workers = 10, .work_ms = 20, .timeout_ms = 1000, .retries = 3, .backlog = 4096, .seconds = 60, \
	.limits = true

/* B.12.1 */
static void test_stall(void **state)
{
	struct kind k = {.name = "stall of 5 s at 0.8 C", PLAIN, .trouble = STALL_5S};

	for (uint64_t seed = 1; seed <= 5; seed++) {
		run(&k, seed);
		say("limited");
		assert_true(mean(world->good, 27, 37) >= 380);
		assert_true(mean(world->good, 27, 60) >= 380);
		assert_true(world->wasted <= 400);
		assert_int_equal(mean(world->refused, 0, 20) * 20, 0);
	}
}

/* The disease: without a limit the same trouble never ends. */
static void test_stall_unlimited(void **state)
{
	struct kind k = {.name = "stall of 5 s at 0.8 C", PLAIN, .trouble = STALL_5S};

	k.limits = false;
	run(&k, 1);
	say("unlimited");
	assert_true(mean(world->good, 50, 60) < 40);
}

/* B.12.2 */
static void test_part_of_capacity(void **state)
{
	struct kind k = {.name = "0.3 of the capacity", PLAIN, .trouble = {20000, 30000, 0.3, 0}};

	for (uint64_t seed = 1; seed <= 5; seed++) {
		run(&k, seed);
		say("limited");
		assert_true(mean(world->good, 20, 30) >= 135);
		assert_true(mean(world->good, 32, 42) >= 380);
	}
	k.limits = false;
	run(&k, 1);
	say("unlimited");
	assert_true(mean(world->good, 20, 30) <= 60);
	assert_true(mean(world->good, 50, 60) < 40);
}

/* B.12.3 */
static void test_surge(void **state)
{
	struct kind k = {.name = "2.5 times the load", PLAIN, .trouble = {20000, 30000, -1, 2.5}};

	for (uint64_t seed = 1; seed <= 5; seed++) {
		run(&k, seed);
		say("limited");
		assert_true(mean(world->good, 20, 30) >= 450);
		assert_true(mean(world->good, 32, 42) >= 380);
		print_message("99 of 100 took %u ms, %u of them upstream\n", percentile_ms(world->took, 99),
			      percentile_ms(world->took_inside, 99));
		/* The model's line is served in its order: it may wait for all that the client's patience leaves. */
		assert_true(percentile_ms(world->took_inside, 99) <= 400);
		assert_true(percentile_ms(world->took, 99) <= 860 + 140);
	}
	k.limits = false;
	run(&k, 1);
	say("unlimited");
	assert_true(mean(world->good, 20, 30) <= 150);
	assert_true(mean(world->good, 50, 60) < 40);
}

static void test_long_stall(void **state)
{
	struct kind k = {.name = "stall of 30 s", PLAIN, .trouble = {20000, 50000, 0, 0}};

	k.seconds = 80;
	run(&k, 1);
	say("limited");
	assert_true(mean(world->good, 52, 62) >= 380);
}

/* B.12.10 */
static void test_impatient_clients(void **state)
{
	struct kind k = {.name = "stall, T = 0.3 s, N = 10", PLAIN, .trouble = STALL_5S};

	k.timeout_ms = 300;
	k.retries = 10;
	for (uint64_t seed = 1; seed <= 2; seed++) {
		run(&k, seed);
		say("limited");
		assert_true(mean(world->good, 27, 37) >= 380);
	}
}

/*
 * The gateway is another one in the middle of the stall, or just after it, and does not know what it had given to the
 * upstream.
 */
static void test_restart_in_a_stall(void **state)
{
	static const unsigned restarts_ms[] = {22000, 24900, 25300};
	struct kind k = {.name = "restart in a stall", PLAIN, .trouble = STALL_5S, .recalls = true};

	for (unsigned i = 0; i < 3; i++)
		for (uint64_t seed = 1; seed <= 1; seed++) {
			k.restart_ms = restarts_ms[i];
			run(&k, seed);
			say("recalled");
			assert_true(mean(world->good, 27, 37) >= 380);
			assert_true(world->limiter.base_ns < 25 * MS);
		}
}

/* The same while the upstream is slow: who takes for usual what it meets then lets the storm in, which never ends. */
static void test_restart_in_congestion(void **state)
{
	struct kind k = {.name = "restart at 0.3 of C", PLAIN, .trouble = {20000, 50000, 0.3, 0}};

	k.seconds = 70;
	for (uint64_t seed = 1; seed <= 2; seed++)
		for (int recalls = 0; recalls < 2; recalls++) {
			k.restart_ms = 25000;
			k.recalls = recalls;
			run(&k, seed);
			say(recalls ? "recalled" : "forgotten");
			assert_true(recalls ? mean(world->good, 27, 50) >= 135 : mean(world->good, 27, 50) < 100);
			if (recalls)
				assert_true(mean(world->good, 52, 62) >= 380);
		}
}

/* There was no limit before, so that the storm never ended by itself: what its queue holds is all that it costs. */
static void test_start_in_a_storm(void **state)
{
	struct kind k = {.name = "start in a storm", PLAIN, .trouble = STALL_5S, .restart_ms = 40000};

	k.limits = false;
	for (int recalls = 0; recalls < 2; recalls++) {
		k.recalls = recalls;
		run(&k, 1);
		say(recalls ? "recalled" : "forgotten");
		assert_true(mean(world->good, 30, 40) < 40);
		assert_true(mean(world->good, 51, 60) >= 380);
	}
}

/* 2000 at once, after a time with half the load: a queue of 128 does not overflow. */
static void test_herd(void **state)
{
	struct kind k = {.name = "2000 at once", PLAIN, .trouble = {20000, 21000, -1, 1}};

	k.herd = 2000;
	k.rate = 200;
	k.timeout_ms = 30000;
	k.backlog = 128;
	run(&k, 1);
	say("limited");
	assert_int_equal(world->dropped, 0);
	assert_true(mean(world->good, 20, 26) * 6 >= 2000 + 200 * 4);
	k.limits = false;
	run(&k, 1);
	say("unlimited");
	assert_true(world->dropped >= 1000);
}

/* B-6: nothing is refused that could be served. */
static void test_healthy(void **state)
{
	struct kind many = {.name = "W = 100 x 200 ms, 0.8 C", PLAIN, .trouble = STALL_5S};

	many.n_workers = 100;
	many.work_ms = 200;
	run(&many, 1);
	say("limited");
	assert_int_equal(mean(world->refused, 0, 20) * 20, 0);
	assert_true(mean(world->good, 27, 37) >= 360);
}

/* B.12.4 */
static void test_healthy_minute(void **state)
{
	struct kind k = {.name = "0.8 C", PLAIN};

	for (uint64_t seed = 1; seed <= 2; seed++) {
		run(&k, seed);
		assert_int_equal(world->changes, 0);
		assert_int_equal(mean(world->refused, 0, 60) * 60, 0);
		assert_int_equal(mean(world->waited, 0, 60) * 60, 0);
	}
}

/* B.12.5 */
static void test_nearly_full(void **state)
{
	struct kind k = {.name = "0.95 C", PLAIN, .trouble = {110000, 111000, -1, 0}};

	k.rate = 475;
	k.seconds = 110;
	for (uint64_t seed = 1; seed <= 2; seed++) {
		run(&k, seed);
		say("limited");
		assert_true(mean(world->good, 10, 100) >= 0.97 * mean(world->asked, 10, 100));
	}
}

static void test_few_and_slow(void **state)
{
	struct kind k = {.name = "8/s of 600 ms, T = 5 s", PLAIN, .trouble = {60000, 65000, 0, 0}};

	k.rate = 8;
	k.work_ms = 600;
	k.timeout_ms = 5000;
	k.seconds = 90;
	run(&k, 1);
	say("limited");
	assert_int_equal(mean(world->refused, 0, 60) * 60, 0);
	assert_true(mean(world->good, 66, 76) >= 7);
}

/* --- by hand --- */

static struct limiter_counts counts;
static struct limiter l;
static uint64_t now_ns;
static const struct limiter_parameters patient = {.client_timeout_ns = S};

/* Ticks for so long, in each of which of `n` responses `n_quick` come after `quick_ms` and the others after `ms`. */
static unsigned mixed_ticks(unsigned n_ticks, unsigned n_quick, double quick_ms, unsigned n, double ms,
			    uint32_t wip_now)
{
	unsigned changes = 0;

	for (unsigned i = 0; i < n_ticks; i++) {
		now_ns += LIMITER_TICK_NS;
		counts.answered += n;
		counts.timed += n;
		counts.timed_us += (n_quick * quick_ms + (n - n_quick) * ms) * 1000;
		counts.octaves[octave_of_ms(quick_ms)] += n_quick;
		counts.octaves[octave_of_ms(ms)] += n - n_quick;
		counts.wip = wip_now;
		changes += limiter_tick(&l, &counts, &patient, now_ns, UINT32_MAX / 2);
	}
	return changes;
}

static unsigned ticks(unsigned n_ticks, unsigned n, double ms, uint32_t wip_now)
{
	return mixed_ticks(n_ticks, 0, 0, n, ms, wip_now);
}

static void begin(void)
{
	memset(&l, 0, sizeof(l));
	memset(&counts, 0, sizeof(counts));
	now_ns = 100 * S;
}

static void test_states(void **state)
{
	begin();
	assert_int_equal(ticks(100, 40, 20, 8), 0);
	assert_int_equal(l.base_ns, 20 * MS);
	assert_int_equal(l.rate, 400);
	assert_false(l.soft);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
	/* Slow, but within base + slack. */
	assert_int_equal(ticks(10, 40, 115, 46), 0);
	assert_int_equal(ticks(1, 40, 125, 50), 1);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_int_equal(l.limit, 400 * 140 / 1000);
	assert_false(l.soft);
	/* Not yet for a second below three quarters of that. */
	assert_int_equal(ticks(10, 40, 89, 20), 0);
	assert_int_equal(ticks(5, 40, 95, 20), 0);
	assert_int_equal(ticks(10, 40, 89, 20), 0);
	assert_int_equal(ticks(1, 40, 89, 20), 1);
	assert_int_equal(l.state, LIMITER_OPEN);
}

static void test_stalled(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	/* Too little to speak of a stall. */
	assert_int_equal(ticks(100, 0, 0, LIMITER_MIN - 1), 0);
	assert_int_equal(ticks(2, 0, 0, LIMITER_MIN), 0);
	assert_int_equal(ticks(1, 0, 0, LIMITER_MIN), 1);
	assert_true(l.stalled);
	/* All that it answered is longer ago than ten seconds. */
	assert_int_equal(l.limit, LIMITER_MIN);
}

/* Nobody looked for three seconds: that is no silence of the backend's. */
static void test_not_looked_at(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	now_ns += 3 * S;
	assert_int_equal(ticks(1, 0, 0, 100), 0);
	assert_int_equal(ticks(1, 0, 0, 100), 0);
	assert_int_equal(ticks(1, 0, 0, 100), 1);
	assert_true(l.stalled);
}

/* Long polls: answers come a second apart, and each took its time. */
static void test_rare_answers(void **state)
{
	begin();
	for (int i = 0; i < 300; i++) {
		ticks(6, 0, 0, 30);
		ticks(1, 1, 20000, 30);
		assert_true(i < 2 || l.state == LIMITER_OPEN || now_ns < 130 * S);
	}
	assert_int_equal(l.state, LIMITER_OPEN);
}

/* As long as it is not known how slow it may be, only clients that leave say that it is too slow, or stands still. */
static void test_unknown(void **state)
{
	begin();
	assert_int_equal(ticks(3, 30, 5000, 500), 0);
	assert_int_equal(l.base_ns, 0);
	assert_int_equal(ticks(40, 0, 0, 500), 0);
	assert_true(l.stalled);
	assert_true(l.soft);
	counts.gave_up += LIMITER_MIN - 1;
	assert_int_equal(ticks(1, 0, 0, 500), 0);
	counts.gave_up += 3;
	assert_int_equal(ticks(1, 0, 0, 500), 1);
	assert_false(l.soft);
	assert_int_equal(l.limit, 60 * 300 / 1000);
	/* Those that left long ago say nothing. */
	begin();
	counts.gave_up += 10;
	ticks(40, 0, 0, 500);
	counts.gave_up += LIMITER_MIN - 1;
	assert_int_equal(ticks(1, 0, 0, 500), 0);
}

/* The first hundred are the quick ones: what was measured is forgotten, until the slow ones can be in it. */
static void test_young(void **state)
{
	struct limiter_past past;

	begin();
	ticks(5, 40, 2, 100);
	assert_int_equal(l.base_ns, 2 * MS);
	assert_false(limiter_past(&l, now_ns, &past));
	/* What is under way for each that is answered. */
	ticks(10, 40, 100, 100);
	assert_int_equal(l.base_ns, 250 * MS);
	ticks(20, 40, 200, 80);
	assert_int_equal(l.state, LIMITER_OPEN);
	ticks(60, 40, 200, 80);
	assert_int_equal(l.base_ns, 200 * MS);
	assert_true(limiter_past(&l, now_ns, &past));
	/* A hundred of which none was slow, by chance. */
	ticks(3, 40, 2, 80);
	assert_int_equal(l.base_ns, 200 * MS);
	ticks(10, 40, 450, 200);
	assert_int_equal(l.state, LIMITER_LIMITING);
}

/* What is known from before counts from the first late answers on, though less than a hundred are known. */
static void test_recalled(void **state)
{
	const struct limiter_past past = {20 * MS, 1800 * S, 400, 5 * S};
	struct limiter_past next;
	char text[240];

	begin();
	limiter_recall(&l, &past, LIMITER_BASE_RESTART, now_ns + LIMITER_TICK_NS);
	ticks(1, 0, 0, 0);
	assert_int_equal(ticks(1, 4, 900, 300), 1);
	assert_int_equal(l.base_ns, 20 * MS);
	assert_int_equal(l.limit, 400 * 140 / 1000);
	limiter_describe(&l, text, sizeof(text));
	assert_non_null(strstr(text, " (usually 20.0, from before the restart), 400 answers a second"));
	/* A hundred that were late change nothing, and what is left to the next life is as old as it was. */
	ticks(100, 40, 900, 300);
	assert_int_equal(l.base_ns, 20 * MS);
	assert_true(limiter_past(&l, now_ns, &next));
	assert_int_equal(next.base_ns, 20 * MS);
	assert_int_equal(next.base_age_ns, 1810 * S + LIMITER_TICK_NS);
	/* For a minute it stands beside what is measured, then only that counts. */
	ticks(200, 40, 30, 8);
	assert_int_equal(l.state, LIMITER_OPEN);
	assert_int_equal(l.base_from, LIMITER_BASE_RESTART);
	ticks(600, 40, 30, 8);
	assert_int_equal(l.base_ns, 30 * MS);
	assert_int_equal(l.base_from, LIMITER_BASE_MEASURED);
	assert_true(limiter_past(&l, now_ns, &next));
	assert_in_range(next.base_age_ns, 0, S);
	assert_int_equal(next.rate, 400);
}

/* What a backend answered more than a minute ago is no measure of what it can do. */
static void test_old_rate(void **state)
{
	const struct limiter_past past = {20 * MS, 60 * S, 400, LIMITER_RATE_WORTH_NS};

	begin();
	limiter_recall(&l, &past, LIMITER_BASE_RESTART, now_ns + LIMITER_TICK_NS);
	ticks(1, 0, 0, 0);
	assert_int_equal(ticks(1, 4, 900, 300), 1);
	assert_int_equal(l.limit, LIMITER_MIN);
}

/* Nothing answers so much, but somebody may say so. */
static void test_absurd_rate(void **state)
{
	const struct limiter_past past = {20000 * MS, 0, UINT64_C(1) << 53, 0};

	begin();
	limiter_recall(&l, &past, LIMITER_BASE_RESTART, now_ns + LIMITER_TICK_NS);
	ticks(1, 0, 0, 0);
	assert_int_equal(ticks(1, 20, 50000, 300), 1);
	assert_int_equal(l.rate, UINT32_MAX);
	assert_int_equal(l.limit, UINT32_MAX);
}

/* Nothing that was measured in congestion is left to the next one. */
static void test_worth_remembering(void **state)
{
	struct limiter_past past;

	begin();
	assert_false(limiter_past(&l, now_ns, &past));
	ticks(2, 40, 20, 8);
	assert_false(limiter_past(&l, now_ns, &past));
	/* Stalled before anything was known: what comes then is of congestion. */
	counts.gave_up += LIMITER_MIN + 8;
	ticks(10, 0, 0, 100);
	assert_int_equal(l.state, LIMITER_LIMITING);
	ticks(3, 40, 100, 30);
	assert_in_range(l.base_ns, 100 * MS, 160 * MS);
	assert_int_equal(l.base_from, LIMITER_BASE_LIMITED);
	assert_false(limiter_past(&l, now_ns, &past));
	/* Later there is something better. */
	ticks(700, 40, 100, 30);
	assert_int_equal(l.state, LIMITER_OPEN);
	assert_int_equal(l.base_from, LIMITER_BASE_MEASURED);
	assert_true(limiter_past(&l, now_ns, &past));
	/* In congestion it is what it was before. */
	ticks(100, 40, 900, 300);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_true(limiter_past(&l, now_ns, &past));
	assert_int_equal(past.base_ns, 100 * MS);
	assert_in_range(past.base_age_ns, 10 * S - 5 * LIMITER_TICK_NS, 10 * S + 5 * LIMITER_TICK_NS);
	/* A gateway that began in a storm may take for usual what is none: too long for any client. */
	begin();
	ticks(10, 40, 700, 300);
	assert_true(l.impatient);
	assert_false(limiter_past(&l, now_ns, &past));
}

/* A hundred of which some came in congestion and some after it are no measure of anything. */
static void test_group_of_two_states(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	ticks(2, 40, 500, 100);
	assert_int_equal(l.state, LIMITER_LIMITING);
	/* Nothing else is known any more. */
	memset(l.bases, 0, sizeof(l.bases));
	assert_int_equal(ticks(50, 1, 20, 8), 1);
	assert_int_equal(l.state, LIMITER_OPEN);
	ticks(6, 2, 20, 8);
	assert_int_equal(l.base_ns, 20 * MS);
}

/* Twice as much with every three seconds of the thirty that it lasts. */
static void test_ramp(void **state)
{
	struct limiter_parameters p = {.client_timeout_ns = S, .most = limiter_ramp(UINT32_MAX / 10)};

	assert_int_equal(limiter_ramp(0), LIMITER_MIN);
	assert_int_equal(limiter_ramp(UINT32_MAX / 10), LIMITER_MIN);
	assert_int_equal(limiter_ramp(UINT32_MAX / 10 * 2 + 10), 2 * LIMITER_MIN);
	assert_in_range(limiter_ramp(UINT32_MAX / 20 * 5), 2 * LIMITER_MIN * 5 / 4, 2 * LIMITER_MIN * 2);
	assert_in_range(limiter_ramp(UINT32_MAX), LIMITER_MIN * 511, LIMITER_MIN * 512);
	for (uint64_t share = 0, last = 0; share <= UINT32_MAX; share += 1 << 20) {
		assert_true(limiter_ramp(share) >= last);
		last = limiter_ramp(share);
	}
	/* It is as soft as any limit of one that is not congested; one that is gets no more than either allows. */
	begin();
	ticks(100, 40, 20, 8);
	limiter_tick(&l, &counts, &p, now_ns += LIMITER_TICK_NS, 0);
	assert_true(l.soft);
	assert_int_equal(l.limit, LIMITER_MIN);
	ticks(5, 40, 200, 80);
	limiter_tick(&l, &counts, &p, now_ns += LIMITER_TICK_NS, 0);
	assert_false(l.soft);
	assert_int_equal(l.limit, LIMITER_MIN);
}

/* An operator's word: one that is well learns anew; one that is limited is asked for it with half as much. */
static void test_reset(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	assert_false(limiter_reset(&l, now_ns));
	assert_int_equal(l.base_ns, 0);
	ticks(100, 40, 60, 24);
	assert_int_equal(l.base_ns, 60 * MS);
	/* Three times as slow for good. */
	ticks(20, 40, 180, 60);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_int_equal(l.limit, 400 * 220 / 1000);
	assert_true(limiter_reset(&l, now_ns));
	ticks(1, 40, 180, 60);
	assert_int_equal(l.limit, 400 * 220 / 1000 / 2);
	assert_int_equal(ticks(25, 40, 180, 60), 1);
	assert_int_equal(l.base_ns, 180 * MS);
	assert_int_equal(l.state, LIMITER_OPEN);
	assert_int_equal(l.n_again, 1);
	assert_int_equal(l.refuted_ns, 60 * MS);
}

/* The least of a minute; nothing that was slow in congestion. */
static void test_base(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	ticks(500, 40, 30, 8);
	assert_int_equal(l.base_ns, 20 * MS);
	ticks(150, 40, 30, 8);
	assert_int_equal(l.base_ns, 30 * MS);
	ticks(1000, 40, 500, 200);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_int_equal(l.base_ns, 30 * MS);
	/* What is faster is believed at any time. */
	ticks(10, 40, 25, 10);
	assert_int_equal(l.base_ns, 25 * MS);
}

/* After ten minutes it is asked what it takes with half as much. */
static void test_measured_again(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	ticks(6010, 40, 160, 60);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_int_equal(l.limit, 400 * 140 / 1000 / 2);
	ticks(15, 40, 80, 28);
	assert_in_range(l.base_ns, 80 * MS, 100 * MS);
	assert_int_equal(l.probing_until_ns, 0);
	assert_int_equal(l.n_again, 1);
	assert_int_equal(l.refuted_ns, 20 * MS);
	/* One that answers next to nothing says nothing. */
	begin();
	ticks(100, 40, 20, 8);
	ticks(6030, 0, 0, 60);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_int_equal(l.n_again, 1);
	assert_int_equal(l.refuted_ns, 0);
	assert_int_equal(l.base_ns, 20 * MS);
}

/* Work may grow to twice what was usual at once, and then as answers come; what lasts becomes usual. */
static void test_window(void **state)
{
	begin();
	ticks(2, 40, 20, 8);
	assert_true(l.soft);
	ticks(98, 40, 20, 8);
	assert_false(l.soft);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
	/* Twice is nothing yet: the first answers of a burst come early in any case. */
	ticks(2, 40, 20, 60);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
	ticks(1, 40, 20, 60);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN + 10);
	ticks(2, 40, 20, 70);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN + 30);
	ticks(1, 40, 20, 8);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
	ticks(40, 40, 20, 50);
	assert_int_equal(l.limit, 2 * 70);
	ticks(100, 40, 20, 50);
	assert_int_equal(l.limit, 2 * 50);
}

/*
 * Work that first bytes say is too much is not learnt as usual, nor does it grow: the window narrows to what is
 * answered in half of the time that is tolerated.
 */
static void test_window_uneasy(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	ticks(50, 40, 40, 64);
	/* 400 a second, 20 ms and half of 100. */
	assert_in_range(l.limit, 28, 32);
	assert_int_equal(l.state, LIMITER_OPEN);
	for (int i = 0; i < 10; i++) {
		ticks(2, 40, 20, 64);
		assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
		ticks(8, 40, 40, 64);
		assert_true(l.limit < LIMITER_WINDOW_MIN);
	}
	/* Of ticks that are late, too. */
	ticks(2, 40, 20, 64);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
	for (unsigned i = 0; i < 25; i++) {
		now_ns += LIMITER_TICK_NS;
		ticks(1, 80, 40, 64);
	}
	assert_in_range(l.limit, 28, 32);
	/* With little to do it is asked again how much it bears. */
	ticks(1, 40, 40, 8);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN);
	ticks(3, 40, 20, 64);
	assert_int_equal(l.limit, LIMITER_WINDOW_MIN + 10);
}

/*
 * One that was never seen but with a line before it: 500 answers a second whatever it has, so that first bytes take as
 * long as what it has is long, and that is what is usual. A longer line is no ease; more answers are.
 */
static void test_window_of_young(void **state)
{
	begin();
	ticks(5, 50, 128, 64);
	assert_true(l.base_ns > 0);
	for (int i = 0; i < 60; i++) {
		ticks(1, 50, 2 * l.limit, l.limit);
		assert_in_range(l.limit, LIMITER_WINDOW_MIN, LIMITER_WINDOW_MIN * 3 / 2);
		assert_false(l.soft);
	}
	begin();
	ticks(5, 50, 128, 64);
	for (int i = 0; i < 60 && l.limit < 1000; i++)
		ticks(1, l.limit * 100 / 128, 128, l.limit);
	assert_true(l.limit >= 1000);
}

/* As long as some are quick nobody stands in line: it may have more, however slow others are. */
static void test_some_are_quick(void **state)
{
	uint32_t limit;

	/* Young. */
	begin();
	mixed_ticks(5, 10, 5, 100, 500, 64);
	assert_true(l.base_ns > 0);
	for (int i = 0; i < 40; i++)
		mixed_ticks(1, 10, 5, 100, 500, l.limit);
	assert_true(l.limit >= 1000);
	/* Where one of ten clients leaves without an answer the quick ones say nothing. */
	begin();
	mixed_ticks(5, 10, 5, 100, 500, 64);
	for (int i = 0; i < 40; i++) {
		counts.gave_up += 10;
		mixed_ticks(1, 10, 5, 100, 500, l.limit);
	}
	assert_true(l.limit < 200);
	/* What was borne stays so much. */
	begin();
	mixed_ticks(5, 10, 5, 100, 500, 64);
	for (int i = 0; i < 40; i++)
		mixed_ticks(1, 10, 5, 100, 500, l.limit);
	limit = l.limit;
	mixed_ticks(3, 10, 200, 100, 500, limit);
	assert_int_equal(l.limit, limit);
	/* All are slow. */
	begin();
	mixed_ticks(5, 10, 5, 100, 500, 64);
	for (int i = 0; i < 10; i++)
		mixed_ticks(1, 10, 200, 100, 500, 64);
	assert_in_range(l.limit, LIMITER_WINDOW_MIN, LIMITER_WINDOW_MIN * 2);
	/* Known for long, and later than usual, but not so late that it is congested. */
	for (int quick = 0; quick < 2; quick++) {
		begin();
		mixed_ticks(200, 10, 5, 100, 500, 300);
		limit = l.limit;
		mixed_ticks(30, 10, quick ? 5 : 400, 100, 650, 450);
		assert_int_equal(l.state, LIMITER_OPEN);
		assert_true(quick ? l.limit >= limit : l.limit < limit);
	}
}

/* Young once more by an operator's word, and slower than it was: what paid then is no measure. */
static void test_young_again(void **state)
{
	begin();
	ticks(200, 200, 20, 8);
	assert_false(limiter_reset(&l, now_ns));
	ticks(15, 20, 500, 150);
	assert_true(l.limit >= 150);
}

static void test_patience(void **state)
{
	struct limiter_parameters p = {.client_timeout_ns = 200 * MS};

	begin();
	ticks(100, 40, 20, 8);
	now_ns += LIMITER_TICK_NS;
	limiter_tick(&l, &counts, &p, now_ns, 0);
	assert_int_equal(l.slack_ns, 60 * MS);
	assert_false(l.impatient);
	p.client_timeout_ns = 70 * MS;
	now_ns += LIMITER_TICK_NS;
	limiter_tick(&l, &counts, &p, now_ns, 0);
	assert_int_equal(l.slack_ns, 10 * MS);
	assert_true(l.impatient);
}

/* Another owner of the slot: nothing is negative. And a clock that jumps makes no rate. */
static void test_odd_counts(void **state)
{
	begin();
	ticks(100, 40, 20, 8);
	counts = (struct limiter_counts){0};
	assert_int_equal(ticks(1, 0, 0, 0), 0);
	assert_int_equal(l.first_byte_ns, 20 * MS);
	/* What comes in a tick that is an hour late came in all of that time. */
	now_ns += 3600 * S;
	assert_int_equal(ticks(1, 36001, 20, 0), 0);
	assert_int_equal(l.rate, 10);
}

/* Ticks that are late, all of them or now and then, and early ones after those: what is answered is the same. */
static void test_late_ticks(void **state)
{
	static const unsigned ms[][2] = {{300, 300}, {250, 250}, {110, 110}, {150, 50}, {190, 10}, {1700, 1700}};

	for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i++) {
		begin();
		ticks(1, 0, 0, 0);
		for (unsigned j = 0; j < 40; j++) {
			unsigned n = ms[i][j % 2];

			now_ns += n * MS - LIMITER_TICK_NS;
			ticks(1, n, 20, 20);
			/* The second may begin within a tick. */
			if (now_ns > 103 * S)
				assert_in_range(l.rate, 990, 1100);
		}
		assert_int_equal(l.state, LIMITER_OPEN);
	}
	/* The whole of what it answered counts when it becomes slow. */
	begin();
	for (unsigned i = 0; i < 50; i++) {
		now_ns += 2 * LIMITER_TICK_NS;
		ticks(1, 120, 20, 8);
	}
	now_ns += 2 * LIMITER_TICK_NS;
	ticks(1, 120, 200, 80);
	assert_int_equal(l.state, LIMITER_LIMITING);
	assert_int_equal(l.limit, 400 * 140 / 1000);
	/* A few that come in more than a second are no less than they are. */
	begin();
	ticks(1, 0, 0, 0);
	now_ns += 14 * LIMITER_TICK_NS;
	ticks(1, 9, 20, 0);
	assert_int_equal(l.rate, 6);
}

static void test_words(void **state)
{
	char text[200];

	begin();
	ticks(100, 40, 20, 8);
	ticks(20, 40, 480, 97);
	limiter_describe(&l, text, sizeof(text));
	assert_string_equal(text,
			    "first bytes take 480.0 ms (usually 20.0), 400 answers a second at the most, 97 under "
			    "way: at most 56");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stall),
		cmocka_unit_test(test_stall_unlimited),
		cmocka_unit_test(test_part_of_capacity),
		cmocka_unit_test(test_surge),
		cmocka_unit_test(test_long_stall),
		cmocka_unit_test(test_impatient_clients),
		cmocka_unit_test(test_herd),
		cmocka_unit_test(test_restart_in_a_stall),
		cmocka_unit_test(test_restart_in_congestion),
		cmocka_unit_test(test_start_in_a_storm),
		cmocka_unit_test(test_healthy),
		cmocka_unit_test(test_healthy_minute),
		cmocka_unit_test(test_nearly_full),
		cmocka_unit_test(test_few_and_slow),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_not_looked_at),
		cmocka_unit_test(test_rare_answers),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_young),
		cmocka_unit_test(test_recalled),
		cmocka_unit_test(test_old_rate),
		cmocka_unit_test(test_absurd_rate),
		cmocka_unit_test(test_worth_remembering),
		cmocka_unit_test(test_group_of_two_states),
		cmocka_unit_test(test_ramp),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_base),
		cmocka_unit_test(test_measured_again),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_window_uneasy),
		cmocka_unit_test(test_window_of_young),
		cmocka_unit_test(test_some_are_quick),
		cmocka_unit_test(test_young_again),
		cmocka_unit_test(test_patience),
		cmocka_unit_test(test_odd_counts),
		cmocka_unit_test(test_late_ticks),
		cmocka_unit_test(test_words),
	};
	int failed;

	world = malloc(sizeof(*world));
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	free(world);
	return failed;
}
