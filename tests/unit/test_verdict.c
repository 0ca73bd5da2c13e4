/* SPDX-License-Identifier: BSD-3-Clause */
#include "verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_names_are_fit_for_metrics(void **state)
{
	for (unsigned i = 0; i < VERDICT_COUNT; i++) {
		const char *name = verdict_info[i].name;

		assert_true(strlen(name) > 0);
		assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_0123456789"), strlen(name));
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(name, verdict_info[j].name);
	}
}

static void test_each_has_help(void **state)
{
	for (unsigned i = 0; i < VERDICT_COUNT; i++) {
		assert_true(strlen(verdict_info[i].help) >= 10);
		for (unsigned j = 0; j < i; j++)
			assert_string_not_equal(verdict_info[i].help, verdict_info[j].help);
	}
}

/* The first word of a name is its class, so that a reader of a metric knows the term of the ledger. */
static void test_prefix_is_the_class(void **state)
{
	static const char *const prefixes[] = {
		[CLASS_FORWARDED] = "forwarded",     [CLASS_ANSWERED] = "answer_", [CLASS_SHED] = "shed_",
		[CLASS_ABSORBED] = "absorb_",        [CLASS_PUNTED] = "punt_",     [CLASS_DROPPED] = "drop_",
		[CLASS_HANDED_OVER] = "handed_over",
	};

	for (unsigned i = 0; i < VERDICT_COUNT; i++)
		assert_memory_equal(verdict_info[i].name, prefixes[verdict_info[i].class],
				    strlen(prefixes[verdict_info[i].class]));
}

/* A refusal must belong to a cure or to the gateway: explain has no other words. */
static void test_refusals_have_a_cause(void **state)
{
	for (unsigned i = 0; i < VERDICT_COUNT; i++)
		if (verdict_info[i].class == CLASS_DROPPED || verdict_info[i].class == CLASS_SHED)
			assert_int_not_equal(verdict_info[i].cause, CAUSE_NONE);
}

static void test_words(void **state)
{
	for (enum cause c = CAUSE_NONE; c <= CAUSE_STORM; c++)
		for (enum cause d = CAUSE_NONE; d < c; d++)
			assert_string_not_equal(cause_name(c), cause_name(d));
	for (enum verdict_class c = CLASS_FORWARDED; c <= CLASS_HANDED_OVER; c++)
		for (enum verdict_class d = CLASS_FORWARDED; d < c; d++)
			assert_string_not_equal(verdict_class_name(c), verdict_class_name(d));
	assert_string_equal(cause_name(CAUSE_NONE), "none");
	assert_string_equal(verdict_class_name(CLASS_HANDED_OVER), "handed_over");
	/* These must never be taken for a verdict. */
	assert_true(VERDICT_COUNT < VERDICT_INSIDE && VERDICT_INSIDE < VERDICT_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_fit_for_metrics),
		cmocka_unit_test(test_each_has_help),
		cmocka_unit_test(test_prefix_is_the_class),
		cmocka_unit_test(test_refusals_have_a_cause),
		cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
