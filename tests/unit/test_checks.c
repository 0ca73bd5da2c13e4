/* SPDX-License-Identifier: BSD-3-Clause */
/* TCP checks over whole workers: no client comes, and what backends are is known all the same. */
#include "breakers_talk.h"

#include "checks.h"
#include "view.h"

static struct checks *checks;

static void no_news(void *arg)
{
	fail();
}

static void run_checks(void)
{
	if (rig.now_ns >= checks_due_ns(checks))
		checks_run(checks, f.mode, rig.now_ns);
}

static void fresh(unsigned workers, unsigned n, enum cure_mode mode, const char *yaml)
{
	memset(says, 0, sizeof(says));
	asks_nothing = false;
	more_yaml = yaml;
	begin_all(workers, n, mode);
	checks = checks_create(rig.dp, f.services, f.breakers, f.base, N_SLOTS, no_news, NULL);
	assert_non_null(checks);
	checks_run(checks, f.mode, rig.now_ns);
	f.decided = run_checks;
}

static void done(void)
{
	checks_destroy(checks);
	more_yaml = "";
	end_all();
}

/* Each backend of either family every five seconds or so, not all in step; each is reset, and nobody accepts it. */
static void every(bool v6, unsigned workers)
{
	unsigned client = 0, in_step = 0;
	struct seen s = {0};

	fresh(workers, 3, CURE_ENFORCE, "    check: {tcp: on}\n");
	for (unsigned i = 0; i < 600; i++) {
		struct seen now = run(v6, &client, 100, 0);

		in_step = now.probes > in_step ? now.probes : in_step;
		for (unsigned b = 1; b <= 3; b++)
			s.syns[b] += now.syns[b];
		s.probes += now.probes;
	}
	for (unsigned b = 1; b <= 3; b++)
		assert_in_range(s.syns[b], 2 * 11, 2 * 14);
	assert_int_equal(s.probes, s.syns[1] + s.syns[2] + s.syns[3]);
	assert_true(in_step <= 4);
	assert_int_equal(s.rsts, 0);
	expect_nothing();
	done();
}

static void test_every(void **state)
{
	each_way(every);
}

/* It opens without a client, says by what, and comes back when it answers: to real flows, one at a time. */
static void test_dead(void **state)
{
	unsigned client = 0;

	for (enum says how = REFUSES; how <= SILENT; how++) {
		fresh(1, 3, CURE_ENFORCE, "    check: {tcp: on, every: 2s}\n");
		run(false, &client, 3000, 0);
		says[2] = how;
		run(false, &client, 13000, 0);
		for (int v6 = 0; v6 < 2; v6++)
			assert_int_equal(state_of(v6, 2), BREAKER_OPEN);
		assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
		for (unsigned i = 0; i < 2; i++) {
			struct event_record e;

			assert_true(next_event(&e));
			assert_string_equal(e.kind, "breaker_open");
			assert_string_equal(e.text, how == REFUSES ? "5 SYNs in a row refused, all of them checks"
								   : "5 SYNs in a row unanswered, all of them checks");
		}
		expect_nothing();
		says[2] = ANSWERS;
		run(false, &client, 4000, 0);
		assert_int_equal(state_of(false, 2), BREAKER_HALF_OPEN);
		run(false, &client, 1000, 10);
		assert_int_equal(state_of(false, 2), BREAKER_RAMP);
		done();
	}
}

/* all silent is a side that is down, and one that answers a check ends it. */
static void test_side(void **state)
{
	unsigned client = 0;

	fresh(1, 4, CURE_ENFORCE, "    check: {tcp: on, every: 1s}\n");
	run(false, &client, 3000, 0);
	for (unsigned i = 1; i <= 4; i++)
		says[i] = SILENT;
	run(false, &client, 20000, 0);
	for (unsigned i = 1; i <= 4; i++) {
		assert_int_equal(state_of(false, i), BREAKER_CLOSED);
		assert_true(is_marked(false, i));
	}
	says[3] = ANSWERS;
	run(false, &client, 2500, 0);
	assert_false(is_marked(false, 3));
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	done();
}

/* Not asked for, in shadow, held by an operator, or taken from the file: nothing is sent. */
static void test_not_wanted(void **state)
{
	unsigned client = 0;

	fresh(1, 2, CURE_ENFORCE, "");
	assert_int_equal(run(false, &client, 20000, 0).probes, 0);
	assert_int_equal(checks_due_ns(checks), UINT64_MAX);
	more_yaml = "    check: {tcp: on, every: 1s}\n";
	configure(2, 5);
	checks_run(checks, f.mode, rig.now_ns);
	assert_in_range(run(false, &client, 10000, 0).probes, 30, 44);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_CLOSE, f.mode, rig.now_ns), 0);
	assert_int_equal(breakers_force(f.breakers, id_of(true, 1), FORCE_OPEN, f.mode, rig.now_ns), 0);
	assert_int_equal(run(false, &client, 10000, 0).syns[1], 0);
	f.mode = CURE_SHADOW;
	configure(2, 5);
	assert_int_equal(run(false, &client, 10000, 0).probes, 0);
	assert_true(rig.worker->ledger.would[ACTION_check] > 0);
	f.mode = CURE_ENFORCE;
	more_yaml = "";
	configure(2, 5);
	checks_run(checks, f.mode, rig.now_ns);
	assert_int_equal(run(false, &client, 10000, 0).probes, 0);
	done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every),
		cmocka_unit_test(test_dead),
		cmocka_unit_test(test_side),
		cmocka_unit_test(test_not_wanted),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
