/* SPDX-License-Identifier: BSD-3-Clause */
/* Credits, the budget and what was refused, each by itself. */
#include "budget.h"
#include "credits.h"
#include "hash.h"
#include "memory_heap.h"
#include "refused.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SECOND  1000000000ull
#define BEGIN   (1000 * SECOND)
#define UNIT_NS (1ull << 24)

static struct credit_table credits;

static void begin_credits(uint32_t n_entries)
{
	assert_int_equal(credits_init(&credits, n_entries), 0);
}

static uint64_t tag(uint64_t n)
{
	return hash_public(&n, sizeof(n), 7);
}

/* --- credits --- */

static void test_add_and_take(void **state)
{
	begin_credits(CREDIT_ENTRIES);
	assert_false(credits_take(&credits, tag(1), BEGIN));
	for (int i = 0; i < 3; i++)
		credits_add(&credits, tag(1), BEGIN);
	assert_int_equal(credits_count(&credits, tag(1), BEGIN), 3);
	assert_int_equal(credits_count(&credits, tag(2), BEGIN), 0);
	for (int i = 0; i < 3; i++)
		assert_true(credits_take(&credits, tag(1), BEGIN));
	assert_false(credits_take(&credits, tag(1), BEGIN));
	credits_fini(&credits);
}

/* For more than five seconds and at most ten; the older ones are taken first. */
static void test_lives(void **state)
{
	begin_credits(CREDIT_ENTRIES);
	for (uint64_t at_ns = BEGIN; at_ns < BEGIN + 5 * SECOND; at_ns += SECOND / 4) {
		memset(credits.sets, 0, credits_bytes(CREDIT_ENTRIES));
		credits_add(&credits, tag(1), at_ns);
		assert_int_equal(credits_count(&credits, tag(1), at_ns + 5 * SECOND), 1);
		assert_int_equal(credits_count(&credits, tag(1), at_ns + 10 * SECOND), 0);
		assert_false(credits_take(&credits, tag(1), at_ns + 10 * SECOND));
	}
	memset(credits.sets, 0, credits_bytes(CREDIT_ENTRIES));
	credits_add(&credits, tag(1), BEGIN);
	credits_add(&credits, tag(1), BEGIN + 5 * SECOND);
	assert_true(credits_take(&credits, tag(1), BEGIN + 5 * SECOND));
	assert_int_equal(credits_count(&credits, tag(1), BEGIN + 10 * SECOND), 1);
	/* Long ago is as good as never, however the clocks go round. */
	for (unsigned years = 1; years < 6; years++)
		assert_int_equal(credits_count(&credits, tag(1), BEGIN + years * 31536000 * SECOND), 0);
	credits_fini(&credits);
}

/* Of 255 the newest stay. */
static void test_saturates(void **state)
{
	begin_credits(CREDIT_ENTRIES);
	for (int i = 0; i < 1000; i++)
		credits_add(&credits, tag(1), BEGIN);
	assert_int_equal(credits_count(&credits, tag(1), BEGIN), CREDITS_MAX);
	for (int i = 0; i < 100; i++)
		credits_add(&credits, tag(1), BEGIN + 5 * SECOND);
	assert_int_equal(credits_count(&credits, tag(1), BEGIN + 5 * SECOND), CREDITS_MAX);
	assert_int_equal(credits_count(&credits, tag(1), BEGIN + 10 * SECOND), 100);
	credits_fini(&credits);
}

/* A worker whose clock is a loop behind changes what one ahead has written. */
static void test_clocks_apart(void **state)
{
	begin_credits(CREDIT_ENTRIES);
	credits_add(&credits, tag(1), BEGIN + 5 * SECOND);
	credits_add(&credits, tag(1), BEGIN + 5 * SECOND - 1000);
	assert_int_equal(credits_count(&credits, tag(1), BEGIN + 5 * SECOND), 2);
	credits_served(&credits, tag(1), BEGIN + 6 * SECOND);
	assert_true(credits_served_lately(&credits, tag(1), BEGIN + 6 * SECOND - 1000));
	credits_fini(&credits);
}

static void test_served(void **state)
{
	begin_credits(CREDIT_ENTRIES);
	assert_false(credits_served_lately(&credits, tag(1), BEGIN));
	credits_served(&credits, tag(1), BEGIN);
	credits_add(&credits, tag(1), BEGIN);
	credits_add(&credits, tag(2), BEGIN);
	assert_true(credits_served_lately(&credits, tag(1), BEGIN));
	assert_true(credits_served_lately(&credits, tag(1), BEGIN + 59 * SECOND));
	assert_false(credits_served_lately(&credits, tag(1), BEGIN + 60 * SECOND));
	assert_false(credits_served_lately(&credits, tag(2), BEGIN));
	credits_fini(&credits);
}

/* One set: a failure finds a place only where nobody was served lately, and there it is the one with the fewest. */
static void test_eviction(void **state)
{
	begin_credits(CREDIT_WAYS);
	for (int i = 0; i < 3; i++)
		credits_served(&credits, tag(i), BEGIN);
	for (int i = 0; i < 5; i++)
		credits_add(&credits, tag(3), BEGIN);
	credits_add(&credits, tag(4), BEGIN);
	assert_int_equal(credits_count(&credits, tag(3), BEGIN), 0);
	assert_int_equal(credits_count(&credits, tag(4), BEGIN), 1);
	credits_served(&credits, tag(4), BEGIN + SECOND);
	credits_add(&credits, tag(5), BEGIN + SECOND);
	assert_int_equal(credits_count(&credits, tag(5), BEGIN + SECOND), 0);
	/* A served one takes the place of the one whose turn is longest ago. */
	credits_served(&credits, tag(0), BEGIN + 2 * SECOND);
	credits_served(&credits, tag(1), BEGIN + 2 * SECOND);
	credits_served(&credits, tag(6), BEGIN + 3 * SECOND);
	assert_false(credits_served_lately(&credits, tag(2), BEGIN + 3 * SECOND));
	for (int i = 0; i < 7; i++)
		assert_int_equal(credits_served_lately(&credits, tag(i), BEGIN + 3 * SECOND),
				 i == 0 || i == 1 || i == 4 || i == 6);
	/* Of nobody who was served only a minute ago a place is kept. */
	credits_add(&credits, tag(7), BEGIN + 61 * SECOND);
	assert_int_equal(credits_count(&credits, tag(7), BEGIN + 61 * SECOND), 1);
	credits_fini(&credits);
}

/* B-8: a million who are refused push out nobody who was served, and what they do not find room for is forgotten. */
static void test_flood(void **state)
{
	unsigned known = 0;

	begin_credits(CREDIT_ENTRIES);
	for (uint64_t i = 0; i < 20000; i++)
		credits_served(&credits, tag(i), BEGIN);
	for (uint64_t i = 0; i < 20000; i++)
		known += credits_served_lately(&credits, tag(i), BEGIN);
	assert_in_range(known, 19000, 20000);
	for (uint64_t i = 0; i < 1000000; i++)
		credits_add(&credits, tag(1000000 + i), BEGIN + i * 50000);
	for (uint64_t i = 0; i < 20000; i++)
		known -= credits_served_lately(&credits, tag(i), BEGIN + 50 * SECOND);
	assert_int_equal(known, 0);
	credits_fini(&credits);
}

/* --- the budget --- */

static void test_budget(void **state)
{
	uint64_t word = budget_full(20, BEGIN), before;

	for (int i = 0; i < 20; i++) {
		assert_true(budget_has(&word, 20, BEGIN));
		assert_true(budget_spend(&word, 20, BEGIN));
	}
	before = word;
	assert_false(budget_has(&word, 20, BEGIN));
	assert_false(budget_spend(&word, 20, BEGIN));
	assert_true(word == before);
	for (int i = 0; i < 5; i++) {
		assert_false(budget_has(&word, 20, BEGIN));
		budget_earn(&word, 20, BUDGET_TOKEN / 5, BEGIN);
	}
	assert_true(budget_spend(&word, 20, BEGIN));
	/* Five a second, up to the cap, and when that sinks, no more. */
	assert_in_range(budget_parts(word, 20, BEGIN + 2 * SECOND), 10 * BUDGET_TOKEN - BUDGET_TOKEN / 10,
			10 * BUDGET_TOKEN + BUDGET_TOKEN / 10);
	assert_int_equal(budget_parts(word, 20, BEGIN + 60 * SECOND), 20 * BUDGET_TOKEN);
	assert_int_equal(budget_parts(word, 12, BEGIN + 60 * SECOND), 12 * BUDGET_TOKEN);
	budget_earn(&word, 12, 5 * BUDGET_TOKEN, BEGIN + 60 * SECOND);
	assert_int_equal(budget_parts(word, 20, BEGIN + 60 * SECOND), 12 * BUDGET_TOKEN);
	/* The largest cap, and a share that is the smallest. */
	word = budget_full(BUDGET_CAP_MAX, BEGIN);
	assert_true(budget_parts(word, BUDGET_CAP_MAX, BEGIN) == (uint64_t)BUDGET_CAP_MAX * BUDGET_TOKEN);
	word = budget_full(0, BEGIN);
	budget_earn(&word, 10, 1, BEGIN);
	assert_int_equal(budget_parts(word, 10, BEGIN), 1);
}

/* However often the word is looked at and by however many clocks, time counts once. */
static void test_budget_clocks(void **state)
{
	uint64_t word = budget_full(0, BEGIN);
	unsigned spent = 0;

	for (uint64_t ns = 0; ns < 20 * SECOND; ns += SECOND / 1000) {
		budget_earn(&word, 1000, 0, BEGIN + ns + 3 * UNIT_NS);
		budget_earn(&word, 1000, 0, BEGIN + ns);
		spent += budget_spend(&word, 1000, BEGIN + ns);
	}
	assert_in_range(spent, 99, 101);
}

/* --- what was refused --- */

static void test_refused(void **state)
{
	struct refused r;
	struct refused_syn what;

	assert_int_equal(refused_init(&r, 1), 0);
	assert_false(refused_lookup(&r, tag(1), 5, &what, 1000));
	refused_add(&r, tag(1), 5, (struct refused_syn){.credited = true}, 1000);
	refused_add(&r, tag(2), 5, (struct refused_syn){.retry = true}, 1000);
	assert_true(refused_lookup(&r, tag(1), 5, &what, 1001));
	assert_true(!what.retry && what.credited);
	assert_true(refused_lookup(&r, tag(2), 5, &what, 1000 + REFUSED_MS - 1));
	assert_true(what.retry && !what.credited);
	assert_false(refused_lookup(&r, tag(1), 6, &what, 1001));
	assert_false(refused_lookup(&r, tag(3), 5, &what, 1001));
	assert_false(refused_lookup(&r, tag(1), 5, &what, 1000 + REFUSED_MS));
	/* Refused again, it is remembered for another minute. */
	refused_add(&r, tag(1), 5, (struct refused_syn){0}, 50000);
	assert_true(refused_lookup(&r, tag(1), 5, &what, 1000 + REFUSED_MS));
	assert_false(refused_lookup(&r, tag(2), 5, &what, 1000 + REFUSED_MS));
	/* The clock goes round. */
	refused_add(&r, tag(4), 5, (struct refused_syn){0}, UINT32_MAX - 10);
	assert_true(refused_lookup(&r, tag(4), 5, &what, 100));
	refused_fini(&r);
}

/* As many as there are places, and a few are forgotten; of more, the oldest. */
static void test_refused_full(void **state)
{
	struct refused r;
	unsigned known = 0;
	struct refused_syn what;

	assert_int_equal(refused_init(&r, 4), 0);
	assert_int_equal(refused_bytes(4), REFUSED_ENTRIES / 4 * sizeof(uint64_t));
	for (uint32_t i = 0; i < 1000000; i++)
		refused_add(&r, tag(i), i, (struct refused_syn){0}, 1000 + i / 1000);
	for (uint32_t i = 1000000 - 8000; i < 1000000; i++)
		known += refused_lookup(&r, tag(i), i, &what, 2000);
	assert_in_range(known, 7500, 8000);
	for (uint32_t i = 0; i < 100000; i++)
		assert_false(refused_lookup(&r, tag(i), i, &what, 2000));
	refused_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add_and_take),  cmocka_unit_test(test_lives),
		cmocka_unit_test(test_saturates),     cmocka_unit_test(test_clocks_apart),
		cmocka_unit_test(test_served),        cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_flood),         cmocka_unit_test(test_budget),
		cmocka_unit_test(test_budget_clocks), cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refused_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
