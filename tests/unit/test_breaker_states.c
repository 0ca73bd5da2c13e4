/* SPDX-License-Identifier: BSD-3-Clause */
/* The machine of a breaker over whole workers and decide: what opens it, who tries it, and how it comes back. */
#include "breakers_talk.h"

#include "trial.h"

#include <errno.h>

static void fresh(unsigned workers, unsigned n)
{
	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(workers, n, CURE_ENFORCE);
}

/* Clients of `n_networks` /24s, one by one, `each` of each, all to one backend. */
static void ask_from(unsigned n_networks, unsigned each, unsigned *client)
{
	for (unsigned i = 0; i < n_networks * each; i++) {
		unsigned number = (i % n_networks) * 256 + 1 + (*client)++ % 250;

		feed(RIG_WAN, from_client(&(struct talk){.proto = PROTO_TCP, .client = number}, TCP_SYN, ISN, 0));
		pass(10);
		for (unsigned t = 0; t < 4; t++) {
			talk_back();
			turn();
		}
	}
	talk_back();
}

/* Four backends, 400 connections a second, and the first is lost: after how many ms its breaker is open. */
static uint64_t dies(bool v6, unsigned workers, enum says how, struct seen *seen)
{
	unsigned client = 0;
	uint64_t ms = 0;

	fresh(workers, 4);
	at_once = 4;
	run(v6, &client, 1000, 10);
	says[1] = how;
	*seen = (struct seen){0};
	for (; state_of(v6, 1) != BREAKER_OPEN && ms < 2000; ms += 10)
		seen->rsts += run(v6, &client, 10, 10).rsts;
	/* Whoever waited for it has another one at once, or when its own time is over. */
	seen->rsts += run(v6, &client, 1000, 10).rsts;
	seen->syns[1] = run(v6, &client, 2000, 10).syns[1];
	at_once = 1;
	run(v6, &client, 11000, 0);
	end_all();
	return ms;
}

static void killed(bool v6, unsigned workers)
{
	struct seen s;

	assert_true(dies(v6, workers, REFUSES, &s) <= 100);
	assert_int_equal(s.rsts, 0);
	assert_in_range(s.syns[1], 1, 3);
}

static void test_a11_1_killed(void **state)
{
	each_way(killed);
}

static void unplugged(bool v6, unsigned workers)
{
	struct seen s;

	assert_true(dies(v6, workers, SILENT, &s) <= 500);
	assert_int_equal(s.rsts, 0);
	assert_in_range(s.syns[1], 1, 3);
}

static void test_a11_2_unplugged(void **state)
{
	each_way(unplugged);
}

/*
 * A.11.4: one of two falls silent and answers again after 12 s. Its time is over by then, so that one probe is enough;
 * it gets a tenth of its share at first, and after the ramp all of it.
 */
static void returns(bool v6, unsigned workers)
{
	unsigned client = 0, waited_ms = 0, fair_per_s;
	struct seen s;

	fresh(workers, 2);
	at_once = 10;
	fair_per_s = run(v6, &client, 5000, 10).syns[1] / 5;
	at_once = 1;
	says[1] = SILENT;
	run(v6, &client, 12000, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_OPEN);
	says[1] = ANSWERS;
	at_once = 10;
	do {
		s = run(v6, &client, 10, 10);
		waited_ms += 10;
	} while (s.syns[1] == s.probes && waited_ms < 5000);
	assert_true(waited_ms <= 1200);
	s = run(v6, &client, 3000, 10);
	assert_in_range(s.syns[1] - s.probes, 3 * fair_per_s * 5 / 100, 3 * fair_per_s * 15 / 100);
	at_once = 1;
	run(v6, &client, 27500, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_CLOSED);
	at_once = 10;
	assert_true(run(v6, &client, 5000, 10).syns[1] >= 5 * fair_per_s * 95 / 100);
	at_once = 1;
	run(v6, &client, 11000, 0);
	end_all();
}

static void test_a11_4_returns(void **state)
{
	each_way(returns);
}

/* A.11.5, A-5: an application that resets every request opens, but not by one client's word. */
static void test_a11_5_resets(void **state)
{
	unsigned client = 0;

	fresh(1, 1);
	says[1] = RESETS;
	ask_from(1, 200, &client);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	ask_from(2, 20, &client);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	expect_nothing();
	says[1] = ANSWERS;
	ask_from(1, 1, &client);
	says[1] = RESETS;
	ask_from(4, 1, &client);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	ask_from(4, 1, &client);
	decide();
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	expect("breaker_open", id_of(false, 1), "in a row reset before their first byte, of at least 3 networks");
	/* Its kernel answers every probe, which is nothing new: it has to wait. */
	run(false, &client, 3700, 0);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	run(false, &client, 3700, 0);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	expect("breaker_half_open", id_of(false, 1), "");
	/* One flow is enough to see that nothing is better. */
	ask_from(1, 1, &client);
	decide();
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	expect("breaker_open", id_of(false, 1), "a flow that tried it was reset before its first byte");
	run(false, &client, 100, 0);
	end_all();
}

/* one at a time, whoever else comes; and the third response is enough. */
static void one_at_a_time(bool v6, unsigned workers)
{
	unsigned client = 0;
	struct seen s;

	fresh(workers, 2);
	says[1] = REFUSES;
	run(v6, &client, 1000, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_OPEN);
	says[1] = ANSWERS;
	run(v6, &client, 3500, 0);
	assert_int_equal(state_of(v6, 1), BREAKER_HALF_OPEN);
	says[1] = STALLS;
	s = run(v6, &client, 900, 10);
	assert_int_equal(s.syns[1], 1);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(trial_read(dataplane_trial(rig.dp, slot_of_backend(v6, 1))).phase, TRIAL_ASKED);
	/* No response in a second: that was it. */
	s = run(v6, &client, 300, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_OPEN);
	says[1] = ANSWERS;
	/* The second time it is twice as long, and its kernel's word is not enough. */
	run(v6, &client, 7000, 0);
	assert_int_equal(state_of(v6, 1), BREAKER_OPEN);
	run(v6, &client, 7000, 0);
	assert_int_equal(state_of(v6, 1), BREAKER_HALF_OPEN);
	s = run(v6, &client, 500, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	end_all();
}

static void test_a3_one_at_a_time(void **state)
{
	each_way(one_at_a_time);
}

/* Who connects and asks nothing neither wins nor loses, and gives way to the next one. */
static void test_idle_trials(void **state)
{
	unsigned client = 0;
	struct seen s;

	fresh(1, 2);
	says[1] = REFUSES;
	run(false, &client, 1000, 10);
	says[1] = ANSWERS;
	run(false, &client, 3500, 0);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	asks_nothing = true;
	s = run(false, &client, 3000, 10);
	assert_in_range(s.syns[1], 2, 4);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	asks_nothing = false;
	run(false, &client, 1500, 10);
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	end_all();
}

/* A SYN that fails while it is tried opens it again, and costs its client nothing. */
static void test_trial_refused(void **state)
{
	unsigned client = 0;
	struct seen s;

	fresh(1, 2);
	says[1] = REFUSES;
	run(false, &client, 1000, 10);
	says[1] = ANSWERS;
	run(false, &client, 3500, 0);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	says[1] = REFUSES;
	s = run(false, &client, 100, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	assert_int_equal(s.syns[1], 2); /* and a probe at once */
	assert_int_equal(s.rsts, 0);
	end_all();
}

/* In the ramp two failures are enough. */
static void test_ramp_fails(void **state)
{
	unsigned client = 0;

	fresh(1, 2);
	says[1] = REFUSES;
	run(false, &client, 1000, 10);
	says[1] = ANSWERS;
	run(false, &client, 4000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	run(false, &client, 15000, 10);
	says[1] = REFUSES;
	for (unsigned n = 0; state_of(false, 1) == BREAKER_RAMP; n++) {
		run(false, &client, 10, 10);
		assert_true(n < 100);
	}
	run(false, &client, 10, 0);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	end_all();
}

/* Half of what it does fails, never five in a row: the ratio opens, and says what of. */
static void test_ratio(void **state)
{
	unsigned client = 0;

	fresh(1, 1);
	for (unsigned i = 0; i < 9 && state_of(false, 1) == BREAKER_CLOSED; i++) {
		says[1] = RESETS;
		ask_from(4, 1, &client);
		says[1] = ANSWERS;
		ask_from(1, 1, &client);
	}
	decide();
	/* Handshakes succeed: of ten, eight and two responses; of those four in eighteen fail, and that is no half. */
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	expect_nothing();
	for (unsigned i = 0; i < 12 && state_of(false, 1) == BREAKER_CLOSED; i++) {
		says[1] = REFUSES;
		ask_from(4, 1, &client);
		says[1] = ANSWERS;
		ask_from(1, 1, &client);
	}
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	expect("breaker_open", id_of(false, 1), " in 10 s failed:");
	end_all();
}

/* A.11.7, A-4: their applications fail, all of them: half are left, to do what they can. */
static void test_a11_7_soft_cap(void **state)
{
	unsigned client = 0, n_open = 0;

	fresh(1, 7);
	for (unsigned i = 1; i <= 6; i++)
		says[i] = RESETS;
	for (unsigned i = 0; i < 100; i++) {
		unsigned n = 0;

		ask_from(4, 5, &client);
		for (unsigned b = 1; b <= 7; b++)
			n += state_of(false, b) == BREAKER_OPEN;
		assert_true(n <= 3);
		n_open = n > n_open ? n : n_open;
	}
	assert_int_equal(n_open, 3);
	end_all();
}

/* A.11.8: all are dead. What clients get is an answer, what backends get is next to nothing. */
static void all_dead(bool v6, unsigned workers)
{
	unsigned client = 0, syns = 0;
	struct seen s;

	fresh(workers, 3);
	says[1] = says[2] = says[3] = REFUSES;
	run(v6, &client, 1000, 10);
	s = run(v6, &client, 20000, 10);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(state_of(v6, i), BREAKER_OPEN);
		syns += s.syns[i];
	}
	/* Of IPv6 they are all of one /64, which hears two a second, and then nothing. */
	assert_in_range(s.rsts, v6 ? 40 : 1990, 2000);
	assert_true(s.probes <= 3 * 23);
	assert_true(syns - s.probes <= 21);
	end_all();
}

static void test_a11_8_all_dead(void **state)
{
	each_way(all_dead);
}

/* A.11.9: one in a hundred SYNs, answers and requests is lost, for minutes: nothing opens. */
static void test_a11_9_loss(void **state)
{
	unsigned client = 0;
	uint64_t random = 1;

	fresh(1, 3);
	for (unsigned i = 0; i < 6000; i++) {
		for (unsigned b = 1; b <= 3; b++)
			says[b] = frame_random(&random) % 100 ? ANSWERS : frame_random(&random) % 2 ? SILENT : STALLS;
		run(false, &client, 10, 10);
	}
	expect_nothing();
	run(false, &client, 15000, 0);
	end_all();
}

/* Whoever waits for a silent backend hears that it is gone, spread over five seconds; who does not wait stays. */
static void test_reap_dead(void **state)
{
	unsigned client = 0, resets = 0, asked, first_part = 0;

	fresh(1, 2);
	asks_nothing = true;
	run(false, &client, 400, 10);
	asks_nothing = false;
	says[1] = says[2] = SLOW;
	run(false, &client, 500, 10);
	says[1] = says[2] = STALLS;
	asked = run(false, &client, 2000, 10).syns[1];
	says[2] = ANSWERS;
	says[1] = SILENT;
	while (state_of(false, 1) != BREAKER_OPEN)
		run(false, &client, 10, 10);
	for (unsigned i = 0; i < 10; i++) {
		resets += run(false, &client, 1000, 0).rsts;
		first_part = i == 1 ? resets : first_part;
	}
	/* Those of the other one, which lives, and those whose request it has, wait on. */
	assert_in_range(asked, 70, 150);
	assert_int_equal(resets, asked);
	assert_true(first_part > 0 && first_part < resets * 2 / 3);
	assert_int_equal(did(ACTION_rst_dead), resets);
	run(false, &client, 100, 0);
	end_all();
}

/* An operator's word stands, whatever backends do, until it is taken back. */
static void test_forced(void **state)
{
	unsigned client = 0;
	struct seen s;

	fresh(1, 2);
	assert_int_equal(breakers_force(f.breakers, "tcp:198.18.3.9:8080", FORCE_OPEN, f.mode, rig.now_ns), -ENOENT);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_OPEN, CURE_OFF, rig.now_ns), -EPERM);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_OPEN, f.mode, rig.now_ns), 0);
	s = run(false, &client, 70000, 50);
	assert_int_equal(s.syns[1], 0);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_AUTO, f.mode, rig.now_ns), 0);
	s = run(false, &client, 1000, 10);
	assert_in_range(s.syns[1], 20, 80);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_CLOSE, f.mode, rig.now_ns), 0);
	says[1] = REFUSES;
	s = run(false, &client, 2000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	assert_in_range(s.syns[1], 60, 140);
	expect_nothing();
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_AUTO, f.mode, rig.now_ns), 0);
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	end_all();
}

/* A backend that is new among others begins with a tenth of its flows; where all are, they share as ever. */
static void test_slow_start(void **state)
{
	unsigned client = 0;
	struct seen s;

	fresh(1, 2);
	s = run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	assert_int_equal(s.syns[1] + s.syns[2], 100);
	configure(3, 5);
	s = run(false, &client, 3000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_RAMP);
	assert_in_range(s.syns[3], 3, 24);
	s = run(false, &client, 28000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	s = run(false, &client, 1000, 10);
	assert_in_range(s.syns[3], 20, 50);
	/* The same once more is no news. */
	configure(3, 7);
	run(false, &client, 100, 10);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	expect_nothing();
	end_all();
}

/* --- HTTP checks --- */

static void check(unsigned backend, enum check_result result, const char *why)
{
	struct slot_info info;

	assert_true(services_backend(f.services, slot_of_backend(false, backend), &info));
	breakers_checked(f.breakers, info.ref, result, why, f.mode, rig.now_ns);
}

/* Three in a row open, for the application's fault; from then on they have to pass before real flows try it. */
static void test_checks_open(void **state)
{
	unsigned client = 0;

	fresh(1, 3);
	run(false, &client, 1000, 10);
	check(1, CHECK_FAILED, "500");
	check(1, CHECK_FAILED, "503");
	check(1, CHECK_PASSED, "");
	check(1, CHECK_FAILED, "503");
	check(1, CHECK_SILENT, "no connection within 1000 ms");
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	check(1, CHECK_FAILED, "503");
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	expect("breaker_open", id_of(false, 1), "3 checks in a row failed: 503");
	/* half of three is one. */
	for (unsigned i = 0; i < 5; i++)
		check(2, CHECK_FAILED, "503");
	assert_int_equal(state_of(false, 2), BREAKER_CLOSED);
	run(false, &client, 20000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	/* Its probes are answered all the time; nor does decide run in circles for it. */
	assert_true(breakers_due_ns(f.breakers) > rig.now_ns);
	check(1, CHECK_FAILED, "503");
	run(false, &client, 1000, 0);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	check(1, CHECK_PASSED, "");
	run(false, &client, 1200, 0);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	/* In the ramp two are enough, as of all else. */
	check(1, CHECK_FAILED, "503");
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	check(1, CHECK_FAILED, "502");
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	end_all();
}

/* A check alone never closes what packets opened, nor does it keep shut what SYNs did. */
static void test_checks_close_nothing(void **state)
{
	unsigned client = 0;

	fresh(1, 2);
	says[1] = REFUSES;
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	for (unsigned i = 0; i < 100; i++) {
		check(1, CHECK_PASSED, "");
		run(false, &client, 200, 10);
		assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	}
	says[1] = ANSWERS;
	check(1, CHECK_FAILED, "503");
	run(false, &client, 3500, 0);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	end_all();
}

/* What stands against nobody: silence while the side is silent, an operator's word, another owner, shadow, no checks.
 */
static void test_checks_say_nothing(void **state)
{
	struct slot_info info;
	unsigned client = 0;

	fresh(1, 4);
	run(false, &client, 1000, 10);
	for (unsigned i = 1; i <= 4; i++)
		says[i] = SILENT;
	run(false, &client, 1500, 10);
	assert_true(is_marked(false, 1));
	for (unsigned i = 0; i < 5; i++)
		check(1, CHECK_SILENT, "no connection within 1000 ms");
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	for (unsigned i = 1; i <= 4; i++)
		says[i] = ANSWERS;
	run(false, &client, 1000, 10);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 2), FORCE_CLOSE, f.mode, rig.now_ns), 0);
	for (unsigned i = 0; i < 5; i++)
		check(2, CHECK_FAILED, "503");
	assert_int_equal(state_of(false, 2), BREAKER_CLOSED);
	assert_true(services_backend(f.services, slot_of_backend(false, 3), &info));
	info.ref.generation++;
	for (unsigned i = 0; i < 5; i++)
		breakers_checked(f.breakers, info.ref, CHECK_FAILED, "503", f.mode, rig.now_ns);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	info.ref.generation--;
	/* It is open, and its checks are taken from the file: then packets alone decide. */
	for (unsigned i = 0; i < 3; i++)
		check(3, CHECK_FAILED, "503");
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	breakers_unchecked(f.breakers, info.ref);
	run(false, &client, 8000, 0);
	assert_int_equal(state_of(false, 3), BREAKER_HALF_OPEN);
	f.mode = CURE_SHADOW;
	for (unsigned i = 0; i < 5; i++)
		check(4, CHECK_FAILED, "503");
	assert_int_equal(state_of(false, 4), BREAKER_CLOSED);
	end_all();
}

/* --- DNS drops it, and it comes back --- */

/* It leaves, for so long that its slot is another's by right, and comes back. */
static void leave_for(uint32_t ms, unsigned n, unsigned *client)
{
	uint32_t slot = slot_of_backend(false, n);
	struct slot_info info;

	configure(n - 1, 5);
	run(false, client, 11000, 0);
	services_reap(f.services);
	assert_false(services_backend(f.services, slot, &info));
	run(false, client, ms - 11000, 50);
	configure(n, 5);
}

static void test_state_survives_dns(void **state)
{
	unsigned client = 0;
	struct seen s;

	fresh(1, 3);
	says[3] = REFUSES;
	run(false, &client, 1000, 10);
	expect("breaker_open", id_of(false, 3), "5 SYNs in a row refused");
	leave_for(30000, 3, &client);
	/* Open before any worker could choose it, and probed at once. */
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	s = run(false, &client, 100, 10);
	assert_int_equal(s.probes, 1);
	s = run(false, &client, 3000, 10);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(s.syns[3], s.probes);
	expect_nothing();
	says[3] = ANSWERS;
	run(false, &client, 3500, 10);
	assert_int_equal(state_of(false, 3), BREAKER_RAMP);
	expect("breaker_half_open", id_of(false, 3), "");
	expect("breaker_ramp", id_of(false, 3), "");
	/* In the ramp it leaves again: it has to earn its share anew. */
	run(false, &client, 5000, 0);
	leave_for(15000, 3, &client);
	assert_int_equal(state_of(false, 3), BREAKER_RAMP);
	s = run(false, &client, 3000, 10);
	assert_in_range(s.syns[3], 3, 24);
	run(false, &client, 28000, 0);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	expect("breaker_closed", id_of(false, 3), "");
	expect_nothing();
	end_all();
}

/* The second opening lasts twice as long, also if it was away between the two. */
static void test_openings_survive_dns(void **state)
{
	unsigned client = 0;

	fresh(1, 3);
	says[3] = REFUSES;
	run(false, &client, 1000, 10);
	says[3] = ANSWERS;
	run(false, &client, 40000, 50);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	leave_for(12000, 3, &client);
	/* New to its set, all the same. */
	run(false, &client, 100, 0);
	assert_int_equal(state_of(false, 3), BREAKER_RAMP);
	says[3] = RESETS;
	ask_from(4, 60, &client);
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	run(false, &client, 7400, 0);
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	run(false, &client, 6200, 0);
	assert_int_equal(state_of(false, 3), BREAKER_HALF_OPEN);
	/* One at a time, as before it left. */
	leave_for(12000, 3, &client);
	assert_int_equal(state_of(false, 3), BREAKER_HALF_OPEN);
	says[3] = ANSWERS;
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_RAMP);
	end_all();
}

/* After ten minutes it is a new one; what it was is told to be over. */
static void test_forgotten(void **state)
{
	unsigned client = 0;

	fresh(1, 3);
	says[3] = REFUSES;
	run(false, &client, 1000, 10);
	expect("breaker_open", id_of(false, 3), "");
	leave_for(630000, 3, &client);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	expect("breaker_closed", id_of(false, 3), "forgotten: it is gone, and was open");
	expect_nothing();
	run(false, &client, 10, 0);
	assert_int_equal(state_of(false, 3), BREAKER_RAMP);
	end_all();
}

/* It is held until he says otherwise, however long it is gone; and he may say so while it is. */
static void test_forced_survives_dns(void **state)
{
	unsigned client = 0;
	char id[SLOT_ID_STRLEN];
	struct seen s;

	fresh(1, 3);
	snprintf(id, sizeof(id), "%s", id_of(false, 3));
	assert_int_equal(breakers_force(f.breakers, id, FORCE_OPEN, f.mode, rig.now_ns), 0);
	leave_for(700000, 3, &client);
	s = run(false, &client, 5000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	assert_int_equal(s.syns[3], 0);
	configure(2, 5);
	run(false, &client, 11000, 0);
	services_reap(f.services);
	assert_int_equal(breakers_force(f.breakers, "tcp:198.18.3.9:8080", FORCE_AUTO, f.mode, rig.now_ns), -ENOENT);
	assert_int_equal(breakers_force(f.breakers, id, FORCE_CLOSE, f.mode, rig.now_ns), 0);
	configure(3, 5);
	says[3] = REFUSES;
	s = run(false, &client, 2000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_CLOSED);
	assert_in_range(s.syns[3], 40, 100);
	configure(2, 5);
	run(false, &client, 11000, 0);
	services_reap(f.services);
	assert_int_equal(breakers_force(f.breakers, id, FORCE_AUTO, f.mode, rig.now_ns), 0);
	assert_int_equal(breakers_force(f.breakers, id, FORCE_AUTO, f.mode, rig.now_ns), -ENOENT);
	configure(3, 5);
	run(false, &client, 2000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	end_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a11_1_killed),
		cmocka_unit_test(test_a11_2_unplugged),
		cmocka_unit_test(test_a11_4_returns),
		cmocka_unit_test(test_a11_5_resets),
		cmocka_unit_test(test_a3_one_at_a_time),
		cmocka_unit_test(test_idle_trials),
		cmocka_unit_test(test_trial_refused),
		cmocka_unit_test(test_ramp_fails),
		cmocka_unit_test(test_ratio),
		cmocka_unit_test(test_a11_7_soft_cap),
		cmocka_unit_test(test_a11_8_all_dead),
		cmocka_unit_test(test_a11_9_loss),
		cmocka_unit_test(test_reap_dead),
		cmocka_unit_test(test_forced),
		cmocka_unit_test(test_slow_start),
		cmocka_unit_test(test_checks_open),
		cmocka_unit_test(test_checks_close_nothing),
		cmocka_unit_test(test_checks_say_nothing),
		cmocka_unit_test(test_state_survives_dns),
		cmocka_unit_test(test_openings_survive_dns),
		cmocka_unit_test(test_forgotten),
		cmocka_unit_test(test_forced_survives_dns),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
