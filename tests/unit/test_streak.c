/* SPDX-License-Identifier: BSD-3-Clause */
#include "streak.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

static void test_there_and_back(void **state)
{
	for (int st = 0; st < BREAKER_STATES; st++)
		for (int flags = 0; flags < 4; flags++) {
			struct streak s = {.state = st,
					   .answered = flags & 1,
					   .side_down = flags & 2,
					   .failures = {1, 4095, 300, 7}},
				      read = streak_read(streak_word(&s));

			assert_int_equal(streak_state(streak_word(&s)), st);
			assert_int_equal(read.state, s.state);
			assert_int_equal(read.answered, s.answered);
			assert_int_equal(read.side_down, s.side_down);
			assert_memory_equal(read.failures, s.failures, sizeof(s.failures));
			assert_int_equal(streak_length(&read), 1 + 4095 + 300 + 7);
		}
	assert_int_equal(streak_word(&(struct streak){0}), 0);
}

/* Of whatever kinds, the last one opens; and what opened it stays. */
static void test_opens_at_the_limit(void **state)
{
	static const enum connect_failure kinds[] = {CONNECT_SILENT, CONNECT_REFUSED, CONNECT_UNREACHABLE,
						     CONNECT_REFUSED, CONNECT_SILENT};
	uint64_t word = 0;
	struct streak s;

	for (int i = 0; i < 4; i++)
		assert_int_equal(streak_fail(&word, kinds[i], 5), STREAK_COUNTED);
	assert_int_equal(streak_state(word), BREAKER_CLOSED);
	assert_int_equal(streak_fail(&word, kinds[4], 5), STREAK_OPENED);
	s = streak_read(word);
	assert_int_equal(s.state, BREAKER_OPEN);
	assert_int_equal(s.failures[CONNECT_SILENT], 2);
	assert_int_equal(s.failures[CONNECT_REFUSED], 2);
	assert_int_equal(s.failures[CONNECT_UNREACHABLE], 1);
	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		assert_int_equal(streak_fail(&word, kind, 5), STREAK_IGNORED);
	assert_int_equal(streak_length(&(struct streak){.failures = {2, 2, 1}}), 5);
	word = 0;
	assert_int_equal(streak_fail(&word, CONNECT_REFUSED, 1), STREAK_OPENED);
}

static void test_answer_ends_a_streak(void **state)
{
	uint64_t word = 0;

	assert_false(streak_answered(&word));
	for (int i = 0; i < 4; i++)
		streak_fail(&word, CONNECT_SILENT, 5);
	assert_false(streak_answered(&word));
	assert_int_equal(word, 0);
	/* In a row: nine failures with one answer between are no five. */
	for (int i = 0; i < 4; i++)
		assert_int_equal(streak_fail(&word, CONNECT_SILENT, 5), STREAK_COUNTED);
}

/* An open one is decide's to close: it is told once, and the evidence stays. */
static void test_answer_of_an_open_one_is_told(void **state)
{
	uint64_t word = 0, open;

	for (int i = 0; i < 5; i++)
		streak_fail(&word, CONNECT_REFUSED, 5);
	open = word;
	assert_true(streak_answered(&word));
	assert_false(streak_answered(&word));
	assert_true(streak_read(word).answered);
	assert_int_equal(streak_read(word).state, BREAKER_OPEN);
	assert_int_equal(streak_read(word).failures[CONNECT_REFUSED], streak_read(open).failures[CONNECT_REFUSED]);
}

/* One is too many for one that is tried, two for one that has just come back; and none opens it twice. */
static void test_limits_of_states(void **state)
{
	uint64_t word = streak_word(&(struct streak){.state = BREAKER_HALF_OPEN});

	assert_false(streak_answered(&word));
	assert_int_equal(streak_state(word), BREAKER_HALF_OPEN);
	assert_int_equal(streak_fail(&word, CONNECT_SILENT, 5), STREAK_OPENED);
	assert_false(streak_reopen(&word));
	word = streak_word(&(struct streak){.state = BREAKER_HALF_OPEN});
	assert_true(streak_reopen(&word));
	assert_int_equal(streak_state(word), BREAKER_OPEN);
	word = streak_word(&(struct streak){.state = BREAKER_RAMP});
	assert_false(streak_reopen(&word));
	assert_int_equal(streak_fail(&word, CONNECT_REFUSED, 5), STREAK_COUNTED);
	assert_false(streak_answered(&word));
	assert_int_equal(streak_fail(&word, CONNECT_REFUSED, 5), STREAK_COUNTED);
	assert_int_equal(streak_state(word), BREAKER_RAMP);
	assert_int_equal(streak_fail(&word, CONNECT_STALLED, 5), STREAK_OPENED);
}

static void test_responses(void **state)
{
	uint64_t word = 0;
	struct response_streak r = {0};

	for (unsigned i = 1; i <= 100; i++) {
		r = response_fail(&word, 7);
		assert_int_equal(r.n, i);
		assert_int_equal(r.n_networks, 1);
	}
	response_fail(&word, 8);
	response_fail(&word, 7);
	r = response_fail(&word, 9);
	assert_int_equal(r.n_networks, 3);
	r = response_fail(&word, 10);
	assert_int_equal(r.n_networks, 3);
	assert_int_equal(r.n, 104);
	response_began(&word);
	assert_int_equal(word, 0);
}

static void test_side_down(void **state)
{
	uint64_t word = streak_word(&(struct streak){.side_down = true});

	for (int i = 0; i < 100; i++)
		assert_int_equal(streak_fail(&word, CONNECT_SILENT, 5), STREAK_IGNORED);
	/* A refusal is one all the same. */
	for (int i = 0; i < 4; i++)
		assert_int_equal(streak_fail(&word, CONNECT_REFUSED, 5), STREAK_COUNTED);
	assert_true(streak_answered(&word));
	assert_false(streak_answered(&word));
	word = streak_word(&(struct streak){.side_down = true});
	for (int i = 0; i < 5; i++)
		streak_fail(&word, CONNECT_UNREACHABLE, 5);
	assert_int_equal(streak_state(word), BREAKER_OPEN);
}

/* Many threads count at once: each failure is counted, and one of them opens it. */
#define N_THREADS 4
#define N_EACH    4000

static uint64_t shared;
static int opened;

static void *fail_often(void *arg)
{
	for (int i = 0; i < N_EACH; i++)
		if (streak_fail(&shared, (uintptr_t)arg % CONNECT_FAILURES, N_THREADS * N_EACH) == STREAK_OPENED)
			__atomic_fetch_add(&opened, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[N_THREADS];
	struct streak s;

	for (uintptr_t i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fail_often, (void *)i), 0);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	s = streak_read(shared);
	assert_int_equal(opened, 1);
	assert_int_equal(streak_length(&s), N_THREADS * N_EACH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_opens_at_the_limit),
		cmocka_unit_test(test_answer_ends_a_streak),
		cmocka_unit_test(test_answer_of_an_open_one_is_told),
		cmocka_unit_test(test_limits_of_states),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_side_down),
		cmocka_unit_test(test_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
