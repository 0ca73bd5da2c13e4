/* SPDX-License-Identifier: BSD-3-Clause */
/* When decide has a service's retries need tokens, and how many tokens there may be. */
#include "breakers_talk.h"

#include "budgets.h"

#include "budget.h"

#define TICK  100000000ull
#define FIRST 1 /* backend, by number */

static struct budgets *budgets;
static struct cure_modes modes;

static void begin_budgets(void)
{
	begin_all(1, 2, CURE_ENFORCE);
	budgets = budgets_create(rig.dp, f.services, 4);
	assert_non_null(budgets);
	modes = (struct cure_modes){.of = {[CURE_WALL] = CURE_ENFORCE, [CURE_STORM] = CURE_ENFORCE}};
}

static void end_budgets(void)
{
	budgets_destroy(budgets);
	memset(&rig.worker->services[0], 0, sizeof(rig.worker->services[0]));
	end_all();
}

/* Ticks, with so many first attempts admitted in each, as many retries, and as many UDP flows. */
static void ticks(unsigned n, unsigned first)
{
	for (unsigned i = 0; i < n; i++) {
		rig.now_ns += TICK;
		rig.worker->services[0].new_flows += 3 * first;
		rig.worker->services[0].first_attempts += first;
		rig.worker->services[0].retries += first;
		budgets_tick(budgets, &modes, rig.now_ns);
	}
}

static const struct service_shared *service(void)
{
	return &rig.dp->cells.services[0];
}

static void set_limit(uint32_t limit)
{
	dataplane_backend_limit(rig.dp, slot_of_backend(false, FIRST), limit);
}

static void set_state(enum breaker_state state)
{
	rig.dp->cells.backends[slot_of_backend(true, FIRST)].breaker = streak_word(&(struct streak){.state = state});
}

static void test_when(void **state)
{
	begin_budgets();
	ticks(50, 10);
	assert_int_equal(service()->budget_cap, 0);
	set_limit(100 | LIMIT_SOFT);
	ticks(1, 10);
	assert_int_equal(service()->budget_cap, 0);
	set_limit(100);
	ticks(1, 10);
	assert_int_equal(service()->budget_cap, 0);
	set_limit(100 | LIMIT_CONGESTED);
	ticks(1, 10);
	assert_true(service()->budget_cap != 0);
	set_limit(0);
	ticks(1, 10);
	assert_int_equal(service()->budget_cap, 0);
	for (enum breaker_state s = BREAKER_CLOSED; s < BREAKER_STATES; s++) {
		set_state(s);
		ticks(1, 10);
		assert_int_equal(service()->budget_cap != 0, s != BREAKER_CLOSED);
	}
	/* What the wall only would do is nothing to go by. */
	modes.of[CURE_WALL] = CURE_SHADOW;
	ticks(1, 10);
	assert_int_equal(service()->budget_cap, 0);
	set_limit(100 | LIMIT_CONGESTED);
	for (enum cure_mode mode = CURE_OFF; mode <= CURE_ENFORCE; mode++) {
		modes.of[CURE_STORM] = mode;
		ticks(1, 10);
		assert_int_equal(service()->budget_cap != 0, mode != CURE_OFF);
	}
	set_limit(0);
	set_state(BREAKER_CLOSED);
	end_budgets();
}

/* A fifth of the first attempts of ten seconds, as was earned before it begins; they sink as fewer come, to ten. */
static void test_how_many(void **state)
{
	begin_budgets();
	ticks(300, 40);
	set_limit(100 | LIMIT_CONGESTED);
	ticks(1, 40);
	assert_in_range(service()->budget_cap, 800 - 80, 800 + 8);
	assert_int_equal(budget_parts(service()->budget, service()->budget_cap, rig.now_ns),
			 service()->budget_cap * BUDGET_TOKEN);
	ticks(50, 0);
	assert_in_range(service()->budget_cap, 400 - 80, 400 + 8);
	ticks(60, 0);
	assert_int_equal(service()->budget_cap, BUDGET_CAP_MIN);
	/* Nobody filled it up meanwhile, nor empties it with each tick. */
	rig.dp->cells.services[0].budget = budget_full(3, rig.now_ns);
	ticks(1, 0);
	assert_in_range(budget_parts(service()->budget, BUDGET_CAP_MIN, rig.now_ns), 3 * BUDGET_TOKEN,
			4 * BUDGET_TOKEN);
	set_limit(0);
	end_budgets();
}

/* Congestion that comes and goes does not fill it up: only what was earned meanwhile is added. */
static void test_comes_and_goes(void **state)
{
	begin_budgets();
	ticks(300, 40);
	for (int i = 0; i < 10; i++) {
		uint64_t parts;

		set_limit(100 | LIMIT_CONGESTED);
		ticks(1, 40);
		parts = budget_parts(service()->budget, service()->budget_cap, rig.now_ns);
		/* In nine ticks 72, in ten of them 5; all at first. */
		assert_in_range(parts / BUDGET_TOKEN, i ? 70 : 700, i ? 82 : 808);
		while (budget_spend(&rig.dp->cells.services[0].budget, service()->budget_cap, rig.now_ns))
			;
		set_limit(0);
		ticks(9, 40);
		assert_int_equal(service()->budget_cap, 0);
	}
	end_budgets();
}

/* A gateway that has just started, or storm that has just been turned on, counts from there. */
static void test_begins_small(void **state)
{
	begin_budgets();
	modes.of[CURE_STORM] = CURE_OFF;
	ticks(300, 1000);
	modes.of[CURE_STORM] = CURE_ENFORCE;
	set_limit(100 | LIMIT_CONGESTED);
	ticks(1, 40);
	assert_int_equal(service()->budget_cap, BUDGET_CAP_MIN);
	ticks(30, 40);
	assert_in_range(service()->budget_cap, 8 * 20, 8 * 31);
	modes.of[CURE_STORM] = CURE_OFF;
	ticks(1, 40);
	assert_int_equal(service()->budget_cap, 0);
	modes.of[CURE_STORM] = CURE_ENFORCE;
	ticks(1, 40);
	assert_int_equal(service()->budget_cap, BUDGET_CAP_MIN);
	set_limit(0);
	end_budgets();
}

/* The share is the configuration's. */
static void test_share(void **state)
{
	more_yaml = "    storm: {retry_budget: 50%}\n";
	begin_budgets();
	ticks(300, 40);
	set_limit(100 | LIMIT_CONGESTED);
	ticks(1, 40);
	assert_in_range(service()->budget_cap, 2000 - 200, 2000 + 20);
	set_limit(0);
	end_budgets();
	more_yaml = "";
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_when),           cmocka_unit_test(test_how_many),
		cmocka_unit_test(test_comes_and_goes), cmocka_unit_test(test_begins_small),
		cmocka_unit_test(test_share),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
