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
		[BREAKER_CLOSED] = {[BREAKER_OPEN] = true},
		[BREAKER_OPEN] = {[BREAKER_HALF_OPEN] = true, [BREAKER_CLOSED] = true},
		[BREAKER_HALF_OPEN] = {[BREAKER_RAMP] = true, [BREAKER_OPEN] = true},
		[BREAKER_RAMP] = {[BREAKER_CLOSED] = true, [BREAKER_OPEN] = true},
	};

	for (int from = 0; from < BREAKER_STATES; from++)
		for (int to = 0; to < BREAKER_STATES; to++)
			assert_int_equal(breaker_may(from, to), may[from][to]);
}

static void test_life(void **state)
{
	struct breaker b = {0};

	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(breaker_due_ns(&b), UINT64_MAX);
	assert_false(breaker_probe(&b, 100 * S, 0));
	breaker_open(&b, 100 * S);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_int_equal(b.since_ns, 100 * S);
	/* The first one at once. */
	assert_int_equal(breaker_due_ns(&b), 100 * S);
	assert_true(breaker_probe(&b, 100 * S, 0));
	assert_false(breaker_probe(&b, 100 * S, 0));
	assert_int_equal(b.probes, 1);
	breaker_close(&b, 103 * S);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(b.since_ns, 103 * S);
	assert_int_equal(breaker_due_ns(&b), UINT64_MAX);
	assert_false(breaker_probe(&b, 200 * S, 0));
	/* The next time it begins anew. */
	breaker_open(&b, 300 * S);
	assert_int_equal(b.probes, 0);
	assert_true(breaker_probe(&b, 300 * S, 0));
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

		breaker_open(&b, 10 * S);
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

	breaker_open(&b, 10 * S);
	assert_true(breaker_probe(&b, 40 * S, 0));
	assert_false(breaker_probe(&b, 40 * S, 0));
	assert_false(breaker_probe(&b, 40 * S + 899 * MS, 0));
	assert_true(breaker_probe(&b, 40 * S + 900 * MS, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_late),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
