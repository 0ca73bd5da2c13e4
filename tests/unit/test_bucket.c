/* SPDX-License-Identifier: BSD-3-Clause */
#include "bucket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define SECOND_NS 1000000000ull
#define HOUR_NS   (3600 * SECOND_NS)
#define START_NS  (12345 * SECOND_NS)

static bool try_take(struct gcra *cell, const struct gcra_rate *rate, uint64_t now_ns)
{
	if (!gcra_test(cell, rate, now_ns))
		return false;
	gcra_take(cell, rate, now_ns);
	return true;
}

static struct gcra_rate make_rate(uint64_t tokens, uint64_t burst)
{
	struct gcra_rate rate;

	assert_int_equal(gcra_rate_init(&rate, tokens, SECOND_NS, burst), 0);
	return rate;
}

/* Attempts at ten times the rate for `seconds`; returns how many were admitted. */
static uint64_t overload(struct gcra *cell, const struct gcra_rate *rate, uint64_t per_s, uint64_t seconds)
{
	uint64_t admitted = 0;

	for (uint64_t i = 0; i < 10 * per_s * seconds; i++)
		admitted +=
			try_take(cell, rate, START_NS + (uint64_t)((unsigned __int128)i * SECOND_NS / (10 * per_s)));
	return admitted;
}

/* Within one token of burst + rate x time, at rates whose interval is no whole number of ns too. */
static void test_accuracy(void **state)
{
	static const struct {
		uint64_t per_s, seconds;
	} cases[] = {{1, 20}, {3, 20}, {7, 20}, {10, 20}, {1000, 20}, {30011, 20}, {99991, 5}, {999983, 1}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t burst = gcra_default_burst(cases[i].per_s, SECOND_NS);
		struct gcra_rate rate = make_rate(cases[i].per_s, burst);
		struct gcra cell = {0};
		uint64_t expected = burst + cases[i].per_s * cases[i].seconds;
		uint64_t admitted = overload(&cell, &rate, cases[i].per_s, cases[i].seconds);

		assert_in_range(admitted, expected - 1, expected + 1);
	}
}

/* What rounding can add up to in 20 s, where simulating each attempt would take too long. */
static void test_interval_rounding(void **state)
{
	static const uint64_t rates[] = {3, 7, 300007, 999983, 1500001, 2499997};

	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct gcra_rate rate = make_rate(rates[i], 10);
		uint64_t span = (20 * SECOND_NS) << GCRA_FRACTION_BITS;

		assert_in_range(span / rate.interval, 20 * rates[i] - 1, 20 * rates[i] + 1);
	}
}

static void test_burst(void **state)
{
	struct gcra_rate rate = make_rate(100, 5);
	struct gcra cell = {0};
	unsigned admitted = 0;

	for (int i = 0; i < 100; i++)
		admitted += try_take(&cell, &rate, START_NS);
	assert_int_equal(admitted, 6);
	assert_false(try_take(&cell, &rate, START_NS + 9999999));
	assert_true(try_take(&cell, &rate, START_NS + 10000000));
	assert_false(try_take(&cell, &rate, START_NS + 10000000));
	/* However long it is idle, it saves up no more than the burst. */
	for (int i = 0; i < 100; i++)
		admitted += try_take(&cell, &rate, START_NS + HOUR_NS);
	assert_int_equal(admitted, 12);
}

static void test_denied_leaves_it_unchanged(void **state)
{
	struct gcra_rate rate = make_rate(10, 0);
	struct gcra cell = {0};
	uint64_t tat;

	gcra_take(&cell, &rate, START_NS);
	tat = cell.tat;
	for (uint64_t i = 0; i < 1000; i++)
		assert_false(try_take(&cell, &rate, START_NS + i));
	assert_int_equal(cell.tat, tat);
}

/* The clock wraps every 78 h: an idle cell admits whatever the distance, and a busy one never does by wrapping. */
static void test_idle_across_the_wrap(void **state)
{
	struct gcra_rate rate = make_rate(10, 10);

	for (uint64_t start_h = 0; start_h < 400; start_h += 13) {
		for (uint64_t idle_h = 1; idle_h < 500; idle_h += 1) {
			struct gcra cell = {0};
			uint64_t now_ns = START_NS + start_h * HOUR_NS;

			while (try_take(&cell, &rate, now_ns))
				;
			assert_false(gcra_test(&cell, &rate, now_ns));
			assert_true(gcra_test(&cell, &rate, now_ns + idle_h * HOUR_NS));
		}
	}
}

/* The clock of another worker may be behind: that is no reason for a fresh burst. */
static void test_clock_behind(void **state)
{
	struct gcra_rate rate = make_rate(1, 10);
	struct gcra cell = {0};

	while (try_take(&cell, &rate, START_NS))
		;
	assert_false(gcra_test(&cell, &rate, START_NS - 100000000));
	/* Sixteen workers that all tested before any took. */
	for (int i = 0; i < 16; i++)
		gcra_take(&cell, &rate, START_NS);
	assert_false(gcra_test(&cell, &rate, START_NS));
	assert_false(gcra_test(&cell, &rate, START_NS - 500000000));
}

static void test_rates_refused(void **state)
{
	struct gcra_rate rate = {1, 2, 3};

	assert_int_equal(gcra_rate_init(&rate, 0, SECOND_NS, 1), -EINVAL);
	assert_int_equal(gcra_rate_init(&rate, 1, 0, 1), -EINVAL);
	assert_int_equal(gcra_rate_init(&rate, SECOND_NS + 1, SECOND_NS, 1), 0); /* rounds to one per ns */
	rate = (struct gcra_rate){1, 2, 3};
	assert_int_equal(gcra_rate_init(&rate, 2 * SECOND_NS, SECOND_NS, 1), -ERANGE);
	assert_int_equal(gcra_rate_init(&rate, 1, 24 * HOUR_NS, 1), -ERANGE);
	assert_int_equal(gcra_rate_init(&rate, 1, SECOND_NS, UINT64_MAX), -ERANGE);
	assert_int_equal(gcra_rate_init(&rate, 1, UINT64_MAX, UINT64_MAX), -ERANGE);
	assert_int_equal(rate.interval, 1);
	assert_int_equal(rate.tolerance, 2);
	assert_int_equal(gcra_rate_init(&rate, 1, HOUR_NS / 2, 0), 0);
	assert_int_equal(gcra_default_burst(5000, SECOND_NS), 500);
	assert_int_equal(gcra_default_burst(5, SECOND_NS), 10);
}

#define THREADS 4
#define ROUNDS  300
#define BURST   50

struct crowd {
	struct gcra cell;
	struct gcra_rate rate;
	pthread_barrier_t barrier;
	_Atomic unsigned taken[ROUNDS];
};

static void *take_all(void *arg)
{
	struct crowd *c = arg;

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t now_ns = START_NS + round * HOUR_NS;

		pthread_barrier_wait(&c->barrier);
		while (try_take(&c->cell, &c->rate, now_ns))
			c->taken[round]++;
	}
	return NULL;
}

/* Never fewer than burst + 1, never more than one each too many. */
static void test_concurrent(void **state)
{
	static struct crowd crowd;
	pthread_t threads[THREADS];

	crowd.rate = make_rate(10, BURST);
	pthread_barrier_init(&crowd.barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_all, &crowd), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd.barrier);
	for (unsigned round = 0; round < ROUNDS; round++)
		assert_in_range(crowd.taken[round], BURST + 1, BURST + THREADS);
}

/* --- lines --- */

/* What a bucket says of its next token is true, to the ns. */
static void test_wait(void **state)
{
	struct gcra_rate rate = make_rate(100, 5);
	struct gcra cell = {0};

	for (int i = 0; i < 20; i++) {
		uint64_t wait_ns = gcra_wait(&cell, &rate, START_NS) >> GCRA_FRACTION_BITS;

		assert_int_equal(wait_ns, i < 6 ? 0 : (i - 5) * 10000000);
		assert_int_equal(gcra_test(&cell, &rate, START_NS), wait_ns == 0);
		assert_true(gcra_test(&cell, &rate, START_NS + wait_ns));
		assert_true(wait_ns == 0 || !gcra_test(&cell, &rate, START_NS + wait_ns - 1));
		gcra_take(&cell, &rate, START_NS);
	}
}

/* Places are an interval apart, none before it is asked for, and whoever asks for too much changes nothing. */
static void test_line(void **state)
{
	const uint64_t ms = (uint64_t)1000000 << GCRA_FRACTION_BITS;
	struct gcra_rate rate = make_rate(100, 5);
	struct gcra_line line = {0};
	uint64_t wait = 3 * ms;

	assert_int_equal(gcra_line_wait(&line, &rate, START_NS), 0);
	for (uint64_t i = 0; i < 10; i++) {
		assert_true(gcra_line_join(&line, &rate, START_NS, 93 * ms, &wait));
		assert_int_equal(wait, (3 + 10 * i) * ms);
		wait = 0;
	}
	assert_false(gcra_line_join(&line, &rate, START_NS, 102 * ms, &wait));
	assert_int_equal(wait, 0);
	assert_int_equal(gcra_line_wait(&line, &rate, START_NS), 103 * ms);
	assert_int_equal(gcra_line_wait(&line, &rate, START_NS + 3000000), 100 * ms);
	assert_int_equal(gcra_line_wait(&line, &rate, START_NS + 103000000), 0);
	assert_int_equal(gcra_line_wait(&line, &rate, START_NS + SECOND_NS), 0);
}

/* The longest line is still ahead of a worker whose clock is behind, and an old one never comes back by wrapping. */
static void test_line_far_and_old(void **state)
{
	const uint64_t longest = GCRA_LINE_MAX_NS << GCRA_FRACTION_BITS;

	for (uint64_t per_s = 1; per_s < 2000000; per_s = per_s * 3 + 1) {
		struct gcra_rate rate = make_rate(per_s, 10);
		struct gcra_line line = {0};
		uint64_t wait = longest;

		assert_true(gcra_line_join(&line, &rate, START_NS, longest, &wait));
		assert_int_equal(gcra_line_wait(&line, &rate, START_NS), longest + rate.interval);
		assert_true(gcra_line_wait(&line, &rate, START_NS - SECOND_NS / 2) > longest + rate.interval);
		for (uint64_t h = 1; h < 500; h++)
			assert_int_equal(gcra_line_wait(&line, &rate, START_NS + h * HOUR_NS), 0);
	}
}

#define PLACES 2000

struct queue {
	struct gcra_line line;
	struct gcra_rate rate;
	pthread_barrier_t barrier;
	_Atomic unsigned n_at[THREADS * PLACES];
};

static void *join_many(void *arg)
{
	struct queue *q = arg;

	pthread_barrier_wait(&q->barrier);
	for (unsigned i = 0; i < PLACES; i++) {
		uint64_t wait = 0;

		if (gcra_line_join(&q->line, &q->rate, START_NS, GCRA_LINE_MAX_NS << GCRA_FRACTION_BITS, &wait))
			q->n_at[wait / q->rate.interval]++;
	}
	return NULL;
}

/* No two workers get the same place. */
static void test_line_concurrent(void **state)
{
	static struct queue q;
	pthread_t threads[THREADS];

	q.rate = make_rate(10000, 10);
	pthread_barrier_init(&q.barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, join_many, &q), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&q.barrier);
	for (unsigned i = 0; i < THREADS * PLACES; i++)
		assert_int_equal(q.n_at[i], 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accuracy),
		cmocka_unit_test(test_interval_rounding),
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_denied_leaves_it_unchanged),
		cmocka_unit_test(test_idle_across_the_wrap),
		cmocka_unit_test(test_clock_behind),
		cmocka_unit_test(test_rates_refused),
		cmocka_unit_test(test_concurrent),
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_line_far_and_old),
		cmocka_unit_test(test_line_concurrent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
