/* SPDX-License-Identifier: BSD-3-Clause */
/* What was connected a moment ago and has asked nothing yet: work that is to come, as far as it is believed. */
#include "talk.h"

#include "observe.h"

#define MS      1000000ull
#define CLIENTS 100

static void begin_fresh(unsigned workers)
{
	start((struct rig_config){.flows_v4 = 4096, .flows_v6 = 4096, .n_backends = 1, .n_workers = workers});
}

static uint32_t slot_of(bool v6)
{
	return rig.backends[v6][SET_TCP][0].ref.slot;
}

static uint32_t committed(bool v6)
{
	return observe_committed(rig.dp, slot_of(v6));
}

static struct talk answered(bool v6, unsigned client)
{
	struct talk t = begin(PROTO_TCP, v6, client);

	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	return t;
}

static void finish(const struct talk *t)
{
	exchange(RIG_WAN, from_client(t, TCP_ACK, ISN + 1, PEER + 1));
}

static void ask(const struct talk *t)
{
	exchange(RIG_WAN, with_payload(from_client(t, TCP_ACK, ISN + 1, PEER + 1), 100));
}

/* From the answer to its SYN on, for a quarter of a second and what there is to the end of the next; then it is idle.
 */
static void test_fresh(bool v6, unsigned workers)
{
	struct talk t[10];

	begin_fresh(workers);
	for (unsigned i = 0; i < 10; i++) {
		t[i] = answered(v6, i);
		assert_int_equal(committed(v6), i + 1);
	}
	assert_int_equal(observe_wip(rig.dp, slot_of(v6)), 0);
	for (unsigned i = 0; i < 8; i++)
		finish(&t[i]);
	assert_int_equal(committed(v6), 10);
	/* Who asks is one, and not two. */
	for (unsigned i = 0; i < 4; i++)
		ask(&t[i]);
	assert_int_equal(observe_wip(rig.dp, slot_of(v6)), 4);
	assert_int_equal(committed(v6), 10);
	exchange(RIG_WAN, from_client(&t[7], TCP_RST, ISN + 1, 0));
	assert_int_equal(committed(v6), 9);
	pass_ms(200);
	assert_int_equal(committed(v6), 9);
	pass_ms(400);
	assert_int_equal(committed(v6), 4);
	stop();
}

/* Handshakes that nobody finishes are soon no work that is to come; once others finish theirs, they are. */
static void test_in_vain(bool v6, unsigned workers)
{
	unsigned client = 0;
	struct talk t;

	begin_fresh(workers);
	for (unsigned ms = 0; ms < 2000; ms += 40) {
		for (unsigned i = 0; i < 40; i++)
			(void)answered(v6, client++);
		pass_ms(40);
	}
	/* Of 250 ms 250 at least are unanswered. */
	assert_true(committed(v6) < 60);
	for (unsigned ms = 0; ms < 8000; ms += 40) {
		for (unsigned i = 0; i < 4; i++) {
			t = answered(v6, client++);
			rig.now_ns += MS;
			turn();
			finish(&t);
		}
		pass_ms(36);
	}
	pass_ms(600);
	assert_int_equal(committed(v6), 0);
	for (unsigned i = 0; i < 20; i++)
		(void)answered(v6, client++);
	assert_in_range(committed(v6), 18, 20);
	stop();
}

/* The same of them where the worker does not run for a while, which is none of theirs, when they are doubted already.
 */
static void test_far_away_and_stall(bool v6, unsigned workers)
{
	struct talk t[CLIENTS];

	begin_fresh(workers);
	for (unsigned i = 0; i < CLIENTS; i++)
		t[i] = answered(v6, i);
	pass_ms(600);
	rig.now_ns += 400 * MS;
	for (unsigned i = 0; i < CLIENTS; i++)
		finish(&t[i]);
	pass_ms(560);
	for (unsigned i = 0; i < 10; i++)
		(void)answered(v6, CLIENTS + i);
	assert_in_range(committed(v6), 9, 10);
	stop();
}

/* Clients that are far away finish theirs when they are fresh no more: that is no reason to doubt them. */
static void test_far_away(bool v6, unsigned workers)
{
	enum { AWAY = 15 }; /* steps of 40 ms */
	struct talk t[AWAY][4];
	unsigned client = 0;

	begin_fresh(workers);
	for (unsigned step = 0; step < 100; step++) {
		for (unsigned i = 0; i < 4; i++) {
			if (step >= AWAY)
				finish(&t[step % AWAY][i]);
			t[step % AWAY][i] = answered(v6, client++);
		}
		pass_ms(40);
	}
	/* 25 to 52 are fresh, or would be. */
	assert_true(committed(v6) >= 20);
	stop();
}

/* While the worker did not run, what finishes handshakes waited in its rings: nobody is doubted for that. */
static void test_stall(bool v6, unsigned workers)
{
	struct talk t[CLIENTS];

	for (unsigned ms = 60; ms < 800; ms += 70) {
		begin_fresh(workers);
		for (unsigned i = 0; i < CLIENTS; i++)
			t[i] = answered(v6, i);
		rig.now_ns += ms * MS;
		for (unsigned i = 0; i < CLIENTS; i++)
			finish(&t[i]);
		pass_ms(1200);
		assert_int_equal(committed(v6), 0);
		for (unsigned i = 0; i < 10; i++)
			(void)answered(v6, CLIENTS + i);
		assert_int_equal(committed(v6), 10);
		stop();
	}
}

#define EACH(name)                                                                                                     \
	static void name##_each(void **state)                                                                          \
	{                                                                                                              \
		each_way(name);                                                                                        \
	}
EACH(test_fresh)
EACH(test_in_vain)
EACH(test_far_away)
EACH(test_far_away_and_stall)
EACH(test_stall)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fresh_each),    cmocka_unit_test(test_in_vain_each),
		cmocka_unit_test(test_far_away_each), cmocka_unit_test(test_far_away_and_stall_each),
		cmocka_unit_test(test_stall_each),
	};

	if (rig_eal(512, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
