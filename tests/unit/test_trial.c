/* SPDX-License-Identifier: BSD-3-Clause */
/* The place of the one flow that tries a half-open backend, on clocks that differ by a little. */
#include "trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define NOW 5000u

static uint64_t word;

static bool take(uint8_t network, uint32_t now_ms)
{
	uint8_t generation;

	return trial_take(&word, network, now_ms, &generation);
}

static void begin(uint32_t now_ms)
{
	word = 0;
	trial_begin(&word, false, now_ms);
}

static void test_left(void **state)
{
	for (uint32_t now_ms = NOW; now_ms; now_ms = now_ms == NOW ? UINT32_MAX - 50 : 0) {
		begin(now_ms);
		/* Its worker looked at the clock before decide did. */
		assert_false(trial_is_left(&word, now_ms - 3));
		assert_false(trial_is_left(&word, now_ms + TRIAL_LEFT_MS - 1));
		assert_true(trial_is_left(&word, now_ms + TRIAL_LEFT_MS));
		assert_true(trial_is_left(&word, now_ms + (UINT32_MAX >> 1)));
	}
}

static void test_yields(void **state)
{
	begin(NOW);
	assert_true(take(7, NOW));
	assert_int_equal(trial_end(&word, trial_read(word).generation, false, NOW + 20), 0);
	assert_false(take(7, NOW + 19));
	assert_false(take(7, NOW + 20 + TRIAL_YIELD_MS - 1));
	assert_true(take(8, NOW + 19));
	assert_int_equal(trial_end(&word, trial_read(word).generation, false, NOW + 40), 0);
	assert_true(take(8, NOW + 40 + TRIAL_YIELD_MS));
}

static void test_won(void **state)
{
	begin(NOW);
	for (unsigned i = 1; i <= TRIAL_WINS; i++) {
		assert_true(take(7, NOW + i * 500));
		if (i == 2) {
			trial_win(&word, word, NOW + i * 500 + 400);
			assert_false(trial_is_left(&word, NOW + i * 500 + 400 + TRIAL_LEFT_MS - 1));
		} else {
			assert_int_equal(trial_end(&word, trial_read(word).generation, true, NOW + i * 500 + 10), i);
		}
	}
	assert_false(take(8, NOW + 9000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_left),
		cmocka_unit_test(test_yields),
		cmocka_unit_test(test_won),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
