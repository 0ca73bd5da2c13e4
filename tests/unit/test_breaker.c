/* SPDX-License-Identifier: BSD-3-Clause */
#include "breaker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define S  1000000000ull
#define MS 1000000ull

/* the edges of the state machine, and no others. */
static void test_edges(void **state)
{
	static const bool may[BREAKER_STATES][BREAKER_STATES] = {
		[BREAKER_CLOSED] = {[BREAKER_OPEN] = true, [BREAKER_RAMP] = true},
		[BREAKER_OPEN] = {[BREAKER_HALF_OPEN] = true},
		[BREAKER_HALF_OPEN] = {[BREAKER_RAMP] = true, [BREAKER_OPEN] = true},
		[BREAKER_RAMP] = {[BREAKER_CLOSED] = true, [BREAKER_OPEN] = true},
	};

	for (int from = 0; from < BREAKER_STATES; from++)
		for (int to = 0; to < BREAKER_STATES; to++)
			assert_int_equal(breaker_may(from, to), may[from][to]);
}

/* Probes each second from `at_ns` on, answered or not; returns when it was half-open, or 0: not until then. */
static uint64_t probe_until(struct breaker *b, uint64_t at_ns, uint64_t until_ns, bool answers)
{
	for (; at_ns < until_ns; at_ns += 10 * MS) {
		if (breaker_step(b, at_ns))
			return at_ns;
		if (breaker_probe(b, at_ns, UINT32_MAX / 2) && answers)
			breaker_answered(b);
	}
	return 0;
}

static void test_life(void **state)
{
	struct breaker b = {0};

	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(breaker_due_ns(&b), UINT64_MAX);
	assert_false(breaker_probe(&b, 100 * S, 0));
	breaker_open(&b, BREAKER_CONNECT, 100 * S, UINT32_MAX / 2);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_int_equal(b.since_ns, 100 * S);
	/* The first one at once. */
	assert_int_equal(breaker_due_ns(&b), 100 * S);
	assert_true(breaker_probe(&b, 100 * S, 0));
	assert_false(breaker_probe(&b, 100 * S, 0));
	assert_int_equal(b.probes, 1);
	/* Three in a row, and a fourth answer to the same probe is none. */
	breaker_answered(&b);
	breaker_answered(&b);
	assert_int_equal(b.answers, 1);
	assert_in_range(probe_until(&b, 100 * S, 110 * S, true), 101900 * MS, 102100 * MS);
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
	assert_int_equal(breaker_due_ns(&b), UINT64_MAX);
	breaker_ramp(&b, 110 * S);
	assert_int_equal(breaker_due_ns(&b), 140 * S);
	assert_false(breaker_step(&b, 140 * S - 1));
	assert_true(breaker_step(&b, 140 * S));
	assert_int_equal(b.state, BREAKER_CLOSED);
	/* The next time it begins anew. */
	breaker_open(&b, BREAKER_CONNECT, 300 * S, 0);
	assert_int_equal(b.probes, 0);
	assert_int_equal(b.answers, 0);
	assert_true(breaker_probe(&b, 300 * S, 0));
}

/* an application has its time, whatever its kernel says, and then its last answer counts. */
static void test_a2_open_time(void **state)
{
	static const uint32_t chances[] = {0, UINT32_MAX / 2, UINT32_MAX};

	for (int i = 0; i < 3; i++)
		for (uint32_t n = 1; n <= 7; n++) {
			uint64_t nominal_ns = n < 5 ? (5 * S) << (n - 1) : 60 * S, at_ns;
			struct breaker b = {.openings = n - 1, .since_ns = 1000 * S};

			breaker_open(&b, BREAKER_RESPONSE, 1000 * S, chances[i]);
			at_ns = probe_until(&b, 1000 * S, 2000 * S, true);
			assert_true(at_ns - 1000 * S >= nominal_ns * 3 / 4);
			assert_true(at_ns - 1000 * S <= nominal_ns * 5 / 4 + 10 * MS);
		}
}

/* A row that is broken begins anew; silence keeps it open for ever. */
static void test_answers_in_a_row(void **state)
{
	struct breaker b = {0};
	uint64_t at_ns;

	breaker_open(&b, BREAKER_CONNECT, 10 * S, UINT32_MAX);
	assert_int_equal(probe_until(&b, 10 * S, 11 * S + 500 * MS, true), 0);
	assert_int_equal(b.answers, 2);
	assert_int_equal(probe_until(&b, 11 * S + 500 * MS, 13 * S + 500 * MS, false), 0);
	assert_int_equal(b.answers, 0);
	assert_int_equal(probe_until(&b, 13 * S + 500 * MS, 500 * S, false), 0);
	at_ns = probe_until(&b, 500 * S, 520 * S, true);
	/* Its time is over: the first answer is enough. */
	assert_in_range(at_ns, 500 * S, 505 * S + 100 * MS);
}

/* Twice as long each time, one time less for each half minute in which it was closed. */
static void test_heals(void **state)
{
	struct breaker b = {0};

	breaker_open(&b, BREAKER_CONNECT, 10 * S, 0);
	for (unsigned i = 0; i < 3; i++) {
		b.state = BREAKER_HALF_OPEN;
		breaker_open(&b, BREAKER_CONNECT, 20 * S, 0);
	}
	assert_int_equal(b.openings, 4);
	b.state = BREAKER_CLOSED;
	b.since_ns = 100 * S;
	breaker_open(&b, BREAKER_CONNECT, 159 * S, UINT32_MAX / 2);
	assert_int_equal(b.openings, 4); /* one healed, one more */
	assert_in_range(b.until_ns, 198 * S, 200 * S);
	b.state = BREAKER_CLOSED;
	b.since_ns = 200 * S;
	breaker_open(&b, BREAKER_CONNECT, 1000 * S, 0);
	assert_int_equal(b.openings, 1);
	breaker_annul(&b, 1001 * S);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(b.openings, 0);
}

/* A tenth at once, then as the time goes; a failure puts off its end. */
static void test_ramp(void **state)
{
	struct breaker b = {.state = BREAKER_HALF_OPEN};

	assert_int_equal(breaker_share(&b, 10 * S), UINT32_MAX);
	breaker_ramp(&b, 10 * S);
	assert_in_range(breaker_share(&b, 10 * S), UINT32_MAX / 101, UINT32_MAX / 10);
	assert_in_range(breaker_share(&b, 13 * S), UINT32_MAX / 11, UINT32_MAX / 10);
	assert_in_range(breaker_share(&b, 25 * S), UINT32_MAX / 2 - UINT32_MAX / 1000, UINT32_MAX / 2);
	breaker_failed(&b, 30 * S);
	assert_int_equal(breaker_share(&b, 40 * S), UINT32_MAX);
	assert_false(breaker_step(&b, 40 * S));
	assert_true(breaker_step(&b, 60 * S));
}

/* Ticks of a millisecond, and each probe as soon as it is due: how many, and how far apart. */
static uint32_t probes_in(struct breaker *b, uint64_t from_ns, uint64_t until_ns, uint64_t min_ns, uint64_t max_ns,
			  uint32_t chance)
{
	uint64_t last_ns = 0;
	uint32_t n = 0;

	for (uint64_t now_ns = from_ns; now_ns < until_ns; now_ns += MS) {
		if (!breaker_probe(b, now_ns, chance))
			continue;
		if (last_ns)
			assert_in_range(now_ns - last_ns, min_ns, max_ns + MS);
		last_ns = now_ns;
		n++;
	}
	return n;
}

/* Every second in the first minute, every five after that, each a tenth more or less. */
static void test_probes(void **state)
{
	static const uint32_t chances[] = {0, UINT32_MAX / 2, UINT32_MAX};

	for (int i = 0; i < 3; i++) {
		struct breaker b = {0};
		uint32_t n;

		breaker_open(&b, BREAKER_CONNECT, 10 * S, 0);
		n = probes_in(&b, 10 * S, 69 * S, 900 * MS, 1100 * MS, chances[i]);
		assert_in_range(n, 54, 67);
		probes_in(&b, 69 * S, 76 * S, 900 * MS, 5500 * MS, chances[i]);
		n = probes_in(&b, 76 * S, 376 * S, 4500 * MS, 5500 * MS, chances[i]);
		assert_in_range(n, 300 / 5.5 - 1, 300 / 4.5 + 1);
	}
}

/* Decide was late: one probe, not all that were missed. */
static void test_late(void **state)
{
	struct breaker b = {0};

	breaker_open(&b, BREAKER_CONNECT, 10 * S, 0);
	assert_true(breaker_probe(&b, 40 * S, 0));
	assert_false(breaker_probe(&b, 40 * S, 0));
	assert_false(breaker_probe(&b, 40 * S + 899 * MS, 0));
	assert_true(breaker_probe(&b, 40 * S + 900 * MS, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_edges),        cmocka_unit_test(test_life),
		cmocka_unit_test(test_a2_open_time), cmocka_unit_test(test_answers_in_a_row),
		cmocka_unit_test(test_heals),        cmocka_unit_test(test_ramp),
		cmocka_unit_test(test_probes),       cmocka_unit_test(test_late),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
