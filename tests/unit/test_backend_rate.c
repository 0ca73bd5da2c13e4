/* SPDX-License-Identifier: BSD-3-Clause */
/* The operator's cap on the new connections of each backend: what is given, to whom, whose token, and what it is
 * called. */
#include "limit_talk.h"

#include "limit.h"

static void put_rate(bool v6, uint64_t per_s, uint64_t burst)
{
	assert_int_equal(gcra_rate_init(&rig.service.sets[v6][SET_TCP].rate, per_s, SECOND, burst), 0);
}

static uint32_t slot_of(bool v6, unsigned backend)
{
	return rig.backends[v6][SET_TCP][backend].ref.slot;
}

static struct backend_shared *shared_of(bool v6, unsigned backend)
{
	return &rig.dp->cells.backends[slot_of(v6, backend)];
}

static uint64_t given(uint32_t slot)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->backends[slot].new_flows;
	return n;
}

static uint64_t refused_for(enum verdict answer, enum verdict shed)
{
	return verdicts(answer) + verdicts(shed);
}

/* Far more room than comes, and SYNs that nobody answers stay where they are. */
static void begin_rated(bool v6, unsigned workers, unsigned n_backends, uint64_t per_s, uint64_t burst)
{
	begin_limits(workers, n_backends, 0);
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	limit_all(1000 | LIMIT_SOFT, 0);
	put_rate(v6, per_s, burst);
}

/*
 * B-28: more than comes, while it comes. Each backend is given what it may have, not one more than the workers can miss
 * of each other; and whoever waits or is refused hears why, also if he only stands behind others.
 */
static void test_accuracy(bool v6, unsigned workers)
{
	enum { RATE = 100, BURST = 10, SECONDS = 2 };

	begin_rated(v6, workers, 2, RATE, BURST);
	for (unsigned ms = 0; ms < SECONDS * 1000; ms++) {
		ask(v6, ms);
		rig.now_ns += MS;
		turn();
		(void)take_all();
	}
	for (unsigned i = 0; i < 2; i++)
		assert_in_range(given(slot_of(v6, i)), RATE * SECONDS * 95 / 100, RATE * SECONDS + BURST + workers);
	assert_true(did(ACTION_hold_backend) > 100);
	assert_int_equal(did(ACTION_hold_limit), 0);
	assert_true(refused_for(VERDICT_answer_storm_backend, VERDICT_shed_storm_backend) > 100);
	assert_int_equal(refused_for(VERDICT_answer_storm_limit, VERDICT_shed_storm_limit), 0);
	/* The other family's backends have a cap of their own. */
	for (unsigned i = 0; i < 32; i++)
		(void)begin(PROTO_TCP, !v6, i);
	stop();
}

/* Who came at once, and waited in vain, hears so at moments of his own, as it comes again otherwise. */
static void test_ends_apart(bool v6, unsigned workers)
{
	unsigned n, most = 0, moments = 0;

	begin_rated(v6, workers, 1, 20, 1);
	for (unsigned i = 0; i < 150; i++)
		ask(v6, i << 8);
	(void)take_all();
	for (unsigned ms = 0; ms <= HOLD_MS; ms++) {
		uint64_t before = refused_for(VERDICT_answer_storm_backend, VERDICT_shed_storm_backend);

		rig.now_ns += MS;
		turn();
		(void)take_all();
		n = refused_for(VERDICT_answer_storm_backend, VERDICT_shed_storm_backend) - before;
		most = n > most ? n : most;
		moments += n > 0;
	}
	assert_true(most <= 12);
	assert_true(moments >= 40);
	stop();
}

/* What decide says of all its services' caps is what it is given; one that is raised holds at once, without a burst. */
static void test_agreed(bool v6, unsigned workers)
{
	struct gcra_rate lower;

	begin_rated(v6, workers, 1, 100, 10);
	assert_int_equal(gcra_rate_init(&lower, 1, SECOND, 1), 0);
	dataplane_backend_rate(rig.dp, slot_of(v6, 0), &lower);
	for (unsigned i = 0; i < 2; i++)
		(void)begin(PROTO_TCP, v6, i);
	ask(v6, 2);
	take_none();
	assert_int_equal(did(ACTION_hold_backend), 1);
	pass_ms(HOLD_MS + 40);
	(void)take_all();
	dataplane_backend_rate(rig.dp, slot_of(v6, 0), &rig.service.sets[v6][SET_TCP].rate);
	(void)begin(PROTO_TCP, v6, 3);
	ask(v6, 4);
	take_none();
	pass_ms(1000);
	(void)take_all();
	for (unsigned i = 5; i < 5 + 11; i++)
		(void)begin(PROTO_TCP, v6, i);
	/* As often, but not so many at once: what was taken is forgiven as far as it is more than that. */
	assert_int_equal(gcra_rate_init(&lower, 100, SECOND, 2), 0);
	dataplane_backend_rate(rig.dp, slot_of(v6, 0), &lower);
	(void)begin(PROTO_TCP, v6, 16);
	ask(v6, 17);
	take_none();
	pass_ms(1000);
	(void)take_all();
	for (unsigned i = 18; i < 18 + 3; i++)
		(void)begin(PROTO_TCP, v6, i);
	ask(v6, 21);
	take_none();
	stop();
}

/* SYNs of one tuple, each with another number, are one connection at the most: they take nobody's token. */
static void test_replaced(bool v6, unsigned workers)
{
	struct talk t;
	uint64_t tat;

	begin_rated(v6, workers, 1, 10, 10);
	t = begin(PROTO_TCP, v6, 1);
	tat = shared_of(v6, 0)->rate.tat;
	for (unsigned i = 1; i <= 40; i++) {
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + i, 0));
		turn();
	}
	(void)take_all();
	assert_int_equal(shared_of(v6, 0)->rate.tat, tat);
	for (unsigned i = 2; i < 2 + 10; i++)
		(void)begin(PROTO_TCP, v6, i);
	stop();
}

/* A connection that ends and begins anew in one burst is a new one: it needs a token, and of its own backend. */
static void test_anew(bool v6, unsigned workers)
{
	uint32_t slot;
	struct talk t;

	begin_rated(v6, workers, 2, 10, 4);
	t = establish(v6, 1);
	slot = given(slot_of(v6, 0)) ? slot_of(v6, 0) : slot_of(v6, 1);
	for (unsigned i = 0; i < 5; i++) {
		feed(RIG_WAN, from_client(&t, TCP_RST, ISN + 1 + i * 1000, 0));
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + (i + 1) * 1000, 0));
		turn();
		(void)take_all();
		assert_int_equal(given(slot), i < 4 ? 2 + i : 5);
	}
	assert_int_equal(refused_for(VERDICT_answer_storm_backend, VERDICT_shed_storm_backend), 1);
	stop();
}

/* Five that have the same first choice; two of them find tokens of the other one: in shadow, too, they take those. */
static void test_shadow(bool v6, unsigned workers)
{
	unsigned same[5], n = 0;
	struct talk t;

	begin_rated(v6, workers, 2, 100, 100);
	for (unsigned i = 0; n < 5; i++) {
		t = begin(PROTO_TCP, v6, i);
		if (ipaddr_equal(&t.backend, &rig.backends[v6][SET_TCP][0].addr))
			same[n++] = i;
	}
	stop();
	begin_rated(v6, workers, 2, 1, 1);
	rig.policy.modes.of[CURE_STORM] = CURE_SHADOW;
	for (unsigned i = 0; i < 4; i++)
		(void)begin(PROTO_TCP, v6, same[i]);
	assert_int_equal(would(ACTION_spare), 2);
	assert_int_equal(would(ACTION_hold_backend), 0);
	(void)begin(PROTO_TCP, v6, same[4]);
	assert_int_equal(would(ACTION_hold_backend), 1);
	assert_int_equal(did(ACTION_hold_backend), 0);
	stop();
}

/* Where nothing is hard, one that begins anew goes, whoever waits. */
static void test_anew_beside_a_line(bool v6, unsigned workers)
{
	struct talk t;
	struct sent s;

	begin_limits(1, 1, 0);
	t = establish(v6, 1);
	limit_all(2 | LIMIT_SOFT, 0);
	(void)begin(PROTO_TCP, v6, 2);
	ask(v6, 3);
	take_none();
	feed(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
	feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + 1000, 0));
	turn();
	while (take(&s) && s.p.tcp_flags != TCP_SYN)
		;
	assert_int_equal(s.port, RIG_LAN);
	assert_int_equal(s.p.tcp_flags, TCP_SYN);
	assert_int_equal(refused_for(VERDICT_answer_storm_limit, VERDICT_shed_storm_limit), 0);
	stop();
}

#define EACH(name)                                                                                                     \
	static void name##_each(void **state)                                                                          \
	{                                                                                                              \
		each_way(name);                                                                                        \
	}
EACH(test_accuracy)
EACH(test_ends_apart)
EACH(test_agreed)
EACH(test_replaced)
EACH(test_anew)
EACH(test_anew_beside_a_line)
EACH(test_shadow)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accuracy_each),
		cmocka_unit_test(test_ends_apart_each),
		cmocka_unit_test(test_agreed_each),
		cmocka_unit_test(test_replaced_each),
		cmocka_unit_test(test_anew_each),
		cmocka_unit_test(test_shadow_each),
		cmocka_unit_test(test_anew_beside_a_line_each),
	};

	if (rig_eal(512, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
