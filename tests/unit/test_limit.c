/* SPDX-License-Identifier: BSD-3-Clause */
/* What backends may have under way at a time: who finds room, who waits, in which order, and for how long. */
#include "limit_talk.h"

#include "limit.h"
#include "streak.h"

#include <string.h>

static void request(const struct talk *t)
{
	exchange(RIG_WAN, with_payload(from_client(t, TCP_ACK, ISN + 1, PEER + 1), 100));
}

static void response(const struct talk *t)
{
	feed(RIG_LAN, with_payload(from_backend(t, TCP_ACK, PEER + 1, ISN + 101), 100));
	turn();
}

static uint32_t wip(void)
{
	uint32_t n = 0;

	for (uint32_t slot = 0; slot < rig.dp->config.n_backend_slots; slot++)
		n += observe_wip(rig.dp, slot);
	return n;
}

/* B-1, with one backend: three at a time, and as one gets its response, the one that came first goes. */
static void test_room(bool v6, unsigned workers)
{
	struct talk t[CLIENTS];
	struct sent s;

	begin_limits(workers, 1, 0);
	limit_all(3, 0);
	for (unsigned i = 0; i < 3; i++) {
		ask(v6, i);
		t[i] = went(v6, i);
		request(&t[i]);
	}
	assert_int_equal(wip(), 3);
	for (unsigned i = 3; i < 6; i++) {
		ask(v6, i);
		take_none();
	}
	assert_int_equal(did(ACTION_hold_limit), 3);
	pass_ms(40);
	take_none();
	response(&t[0]);
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	/* Queues are the workers' own: between two of them nothing is said of the order. */
	for (unsigned i = 3; workers == 1 && i < 6; i++) {
		rig.now_ns += MS;
		turn();
		t[i] = went(v6, i);
		/* It is connected, and most likely asks in a moment. */
		rig.now_ns += MS;
		turn();
		take_none();
		request(&t[i]);
		response(&t[i - 2]);
		take_right(&s);
		assert_int_equal(s.port, RIG_WAN);
	}
	rig.now_ns += MS;
	turn();
	assert_int_equal(take_all(), workers == 1 ? 0 : 1);
	assert_int_equal(wip(), workers == 1 ? 2 : 3);
	stop();
}

/* One that asks nothing is no work after half a second. */
static void test_idle(bool v6, unsigned workers)
{
	const struct service_limit spread = {.n_limits = 1, .hold_ms = 800};
	unsigned ms = 0;
	struct sent s;

	begin_limits(workers, 1, 0);
	(void)establish(v6, 0);
	limit_all(1, 0);
	dataplane_service_limit(rig.dp, 0, &spread);
	ask(v6, 1);
	take_none();
	assert_int_equal(wip(), 0);
	for (; !take(&s); ms += 10) {
		assert_true(ms < 540);
		rig.now_ns += 10 * MS;
		turn();
	}
	assert_true(ms >= 240);
	assert_int_equal(s.port, RIG_LAN);
	stop();
}

/* A connection that was kept is work again as soon as it asks, whatever the limit says. */
static void test_kept_connections_go_on(bool v6, unsigned workers)
{
	struct talk t;

	begin_limits(workers, 1, 0);
	t = establish(v6, 0);
	limit_all(1, 0);
	request(&t);
	ask(v6, 1);
	take_none();
	exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 101), 100));
	exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 101, PEER + 101), 100));
	take_none();
	stop();
}

/* The flow's next choice has room. */
static void test_spare(bool v6, unsigned workers)
{
	struct talk first, second;

	begin_limits(workers, 2, 0);
	limit_all(1, 0);
	first = begin(PROTO_TCP, v6, 0);
	second = begin(PROTO_TCP, v6, 1);
	assert_false(ipaddr_equal(&first.backend, &second.backend));
	ask(v6, 2);
	take_none();
	/* Without a limit, some go where others went: the second one above, or one of these. */
	limit_all(0, 0);
	rig.now_ns += MS;
	turn();
	assert_int_equal(take_all(), 1);
	for (unsigned i = 3; i < 12; i++)
		(void)begin(PROTO_TCP, v6, i);
	limit_all(9, 0);
	for (unsigned i = 12; wip() < 18; i++)
		(void)begin(PROTO_TCP, v6, i);
	assert_true(did(ACTION_spare) > 0);
	ask(v6, CLIENTS);
	take_none();
	stop();
}

/* B-3: whoever finds no room until its client's patience is over hears of it, not all at the same time. */
static void test_end(bool v6, unsigned workers)
{
	uint64_t begin_ns, first_ns = 0, last_ns = 0;
	unsigned n = 0;
	struct sent s;

	begin_limits(workers, 1, 0);
	(void)begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	begin_ns = rig.now_ns;
	for (unsigned i = 1; i <= 16; i++)
		ask(v6, i);
	take_none();
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	for (unsigned ms = 0; ms < HOLD_MS + 10; ms++) {
		rig.now_ns += MS;
		turn();
		while (take(&s)) {
			if (s.port != RIG_WAN)
				continue;
			check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
			first_ns = first_ns ? first_ns : rig.now_ns;
			last_ns = rig.now_ns;
			n++;
		}
	}
	assert_int_equal(verdicts(VERDICT_answer_storm_limit), n);
	assert_int_equal(n + verdicts(VERDICT_shed_storm_limit), 16);
	assert_true(first_ns - begin_ns >= HOLD_MS * MS * 3 / 4);
	assert_true(last_ns - begin_ns <= (HOLD_MS + 2) * MS);
	/* Those of IPv6 are one client. */
	assert_true(v6 || (n == 16 && last_ns - first_ns >= 20 * MS));
	stop();
}

/* B-6: nobody waits where nothing is limited, nor without a hold. */
static void test_no_limit(bool v6, unsigned workers)
{
	struct service_report r;
	unsigned n_silent;

	begin_limits(workers, 1, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		(void)begin(PROTO_TCP, v6, i);
	limit_all(1, 0);
	rig.service.storm.hold_ns = 0;
	ask(v6, CLIENTS);
	assert_int_equal(take_all(), 1);
	assert_int_equal(verdicts(VERDICT_answer_storm_limit), 1);
	assert_int_equal(did(ACTION_hold_limit), 0);
	/* Again and again: silence, for want of room. */
	for (unsigned i = 1; i < 5; i++)
		ask(v6, CLIENTS | i << 16);
	n_silent = 4 - take_all();
	assert_true(n_silent > 0);
	assert_int_equal(verdicts(VERDICT_shed_storm_limit), n_silent);
	observe_service(rig.dp, 0, &r);
	assert_int_equal(r.silent_many, n_silent);
	assert_int_equal(r.silent_rate, 0);
	stop();
}

/* Those who waited are let through one by one when the limit is over, four at the beginning. */
static void test_pace(bool v6)
{
	unsigned n, sum = 0;

	begin_limits(1, 1, 0);
	(void)begin(PROTO_TCP, v6, 0);
	limit_all(1, 100);
	for (unsigned i = 1; i <= 24; i++)
		ask(v6, i);
	take_none();
	limit_all(0, 100);
	for (unsigned ms = 1; ms <= 200; ms++) {
		rig.now_ns += MS;
		turn();
		n = take_all();
		assert_true(n <= (ms == 1 ? 5 : 1));
		sum += n;
	}
	assert_in_range(sum, 23, 24);
	/* Nobody waits any more: who comes now is none of them. */
	rig.now_ns += 20 * MS;
	turn();
	take_all();
	for (unsigned i = 25; i < 35; i++)
		(void)begin(PROTO_TCP, v6, i);
	stop();
}

/* Two queues that wait for the same pace get their turns, whatever the one has to do with the clock of the other. */
static void test_pace_for_both(void **state)
{
	unsigned n[2] = {0};
	struct sent s;

	for (unsigned pace = 50; pace <= 100; pace += 25) {
		begin_limits(1, 1, 0);
		for (int v6 = 0; v6 < 2; v6++)
			(void)begin(PROTO_TCP, v6, 0);
		limit_all(1, pace);
		for (unsigned i = 1; i <= 24; i++)
			for (int v6 = 0; v6 < 2; v6++)
				ask(v6, i);
		take_none();
		limit_all(0, pace);
		for (unsigned ms = 1; ms <= 250; ms++) {
			rig.now_ns += MS;
			turn();
			while (take(&s))
				n[s.p.family == 6] += s.port == RIG_LAN;
		}
		stop();
	}
	assert_true(n[0] + n[1] > 50);
	assert_true(4 * n[0] > n[1] && 4 * n[1] > n[0]);
}

/* Nobody overtakes those who wait, though there be room. */
static void test_no_overtaking(bool v6)
{
	struct talk first;
	struct sent s;

	begin_limits(1, 1, 0);
	first = begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	ask(v6, 1);
	/* Room, and a newcomer, before the queue is looked at again. */
	feed(RIG_LAN, from_backend(&first, TCP_RST | TCP_ACK, 0, ISN + 1));
	ask(v6, 2);
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	take_none();
	rig.now_ns += MS;
	turn();
	(void)went(v6, 1);
	stop();
}

/* Not even who cannot wait, and comes at the very moment: he would be the next one each time. */
static void test_no_overtaking_by_who_cannot_wait(bool v6)
{
	struct talk first;
	struct sent s;

	begin_limits(1, 1, 0);
	first = begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	ask(v6, 1);
	rig.service.storm.hold_ns = 0;
	feed(RIG_LAN, from_backend(&first, TCP_RST | TCP_ACK, 0, ISN + 1));
	ask(v6, 2);
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	take_right(&s);
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
	assert_int_equal(verdicts(VERDICT_answer_storm_limit), 1);
	rig.now_ns += MS;
	turn();
	(void)went(v6, 1);
	pass_ms(560);
	/* Nor of what an operator's maximum leaves. */
	limit_all(0, 1);
	rig.service.storm.hold_ns = 900 * MS;
	rig.service.sets[v6][SET_TCP].hard_max = 1;
	(void)begin(PROTO_TCP, v6, 3);
	ask(v6, 4);
	take_none();
	rig.service.storm.hold_ns = 0;
	rig.service.sets[v6][SET_TCP].hard_max = 2;
	ask(v6, 5);
	take_right(&s);
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
	assert_int_equal(verdicts(VERDICT_answer_storm_hard_max), 1);
	/* Without any, nobody is told to go away. */
	rig.service.sets[v6][SET_TCP].hard_max = 0;
	(void)begin(PROTO_TCP, v6, 6);
	stop();
}

/* Where the first has waited for a quarter of his time, the line is none that is worked off: the last one goes first.
 */
static void test_newest_first(bool v6)
{
	struct talk first;
	struct sent s;

	begin_limits(1, 1, 0);
	first = begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	ask(v6, 1);
	rig.now_ns += (HOLD_MS / 4 + 1) * MS;
	turn();
	ask(v6, 2);
	feed(RIG_LAN, from_backend(&first, TCP_RST | TCP_ACK, 0, ISN + 1));
	turn();
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	rig.now_ns += MS;
	turn();
	(void)went(v6, 2);
	stop();
}

/* What those who wait may not take yet, for their pace, is not kept from who cannot wait. */
static void test_pace_leaves_room(bool v6)
{
	struct talk first;
	struct sent s;

	begin_limits(1, 1, 0);
	first = begin(PROTO_TCP, v6, 0);
	limit_all(1, 1);
	while (limit_may_go(rig.worker, 0))
		limit_went(rig.worker, 0);
	ask(v6, 1);
	take_none();
	rig.service.storm.hold_ns = 0;
	feed(RIG_LAN, from_backend(&first, TCP_RST | TCP_ACK, 0, ISN + 1));
	turn();
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	ask(v6, 2);
	(void)went(v6, 2);
	stop();
}

/* A soft limit spreads what comes at once: nobody is refused for it, held or not. */
static void test_soft(bool v6, unsigned workers)
{
	unsigned n = 0;

	begin_limits(workers, 1, 0);
	limit_all(2 | LIMIT_SOFT, 0);
	for (unsigned i = 0; i < 2; i++)
		(void)begin(PROTO_TCP, v6, i);
	for (unsigned i = 2; i < 12; i++)
		ask(v6, i);
	take_none();
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	for (unsigned ms = 0; ms < HOLD_MS + 10; ms++) {
		rig.now_ns += MS;
		turn();
		n += take_all();
	}
	assert_int_equal(n, 10);
	assert_int_equal(did(ACTION_hold_limit), 10);
	rig.service.storm.hold_ns = 0;
	(void)begin(PROTO_TCP, v6, 12);
	stop();
}

/* What is known and not congested spreads, too; in the end, silence, and the client's kernel asks again. */
static void test_spread(bool v6, unsigned workers)
{
	const struct service_limit spread = {.n_limits = 1, .hold_ms = HOLD_MS};

	begin_limits(workers, 1, 0);
	(void)begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	dataplane_service_limit(rig.dp, 0, &spread);
	ask(v6, 1);
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	pass_ms(HOLD_MS + 40);
	take_none();
	assert_int_equal(verdicts(VERDICT_shed_storm_limit), 1);
	assert_int_equal(did(ACTION_silence_limit), 1);
	/* The same SYN is an attempt once more. */
	ask(v6, 1);
	assert_int_equal(did(ACTION_hold_limit), 2);
	limit_all(0, 0);
	rig.now_ns += MS;
	turn();
	assert_int_equal(take_all(), 1);
	stop();
}

static void put_breaker(bool v6, enum breaker_state state)
{
	const struct streak s = {.state = state};

	rig.dp->cells.backends[rig.backends[v6][SET_TCP][0].ref.slot].breaker = streak_word(&s);
}

/* A backend that takes no flows is not full: what becomes of its clients is the wall's to say. */
static void test_breaker_goes_first(bool v6, unsigned workers)
{
	begin_limits(workers, 1, 0);
	limit_all(2 | LIMIT_SOFT, 0);
	put_breaker(v6, BREAKER_OPEN);
	(void)begin(PROTO_TCP, v6, 0);
	assert_int_equal(did(ACTION_last_resort), 1);
	ask(v6, 1);
	assert_int_equal(take_all(), 1);
	assert_int_equal(verdicts(VERDICT_answer_wall_open), 1);
	assert_int_equal(did(ACTION_hold_limit), 0);
	/* Half-open, it is tried. */
	put_breaker(v6, BREAKER_HALF_OPEN);
	(void)begin(PROTO_TCP, v6, 2);
	assert_int_equal(verdicts(VERDICT_answer_wall_open), 1);
	stop();
}

/* Those who wait for backends of one family keep nobody from those of the other. */
static void test_families_apart(bool v6)
{
	begin_limits(1, 1, 0);
	(void)begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	dataplane_backend_limit(rig.dp, rig.backends[!v6][SET_TCP][0].ref.slot, 0);
	ask(v6, 1);
	take_none();
	(void)begin(PROTO_TCP, !v6, 2);
	ask(v6, 3);
	take_none();
	stop();
}

/* A wheel that stood still has everybody too early: who waits goes on waiting, once. */
static void test_late_wheel(bool v6)
{
	begin_limits(1, 1, 0);
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	(void)begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	ask(v6, 1);
	rig.now_ns += 3900 * MS;
	ask(v6, 2);
	ask(v6, 3);
	for (unsigned ms = 0; ms < HOLD_MS + 10; ms++) {
		rig.now_ns += MS;
		turn();
	}
	take_all();
	check_books();
	assert_int_equal(rig.worker->holds.n, 0);
	assert_int_equal(rig.worker->holds.n_waiting, 0);
	stop();
}

static void put_hard_max(bool v6, uint32_t hard_max)
{
	rig.service.sets[v6][SET_TCP].hard_max = hard_max;
}

/* An operator's word, where nothing is congested and decide has said nothing: it holds, and whoever waited is refused.
 */
static void test_hard_max(bool v6)
{
	struct talk t[3];

	begin_limits(1, 1, 0);
	put_hard_max(v6, 3);
	limit_all(64 | LIMIT_SOFT, 0);
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	for (unsigned i = 0; i < 3; i++) {
		ask(v6, i);
		t[i] = went(v6, i);
		request(&t[i]);
	}
	for (unsigned i = 3; i < 7; i++)
		ask(v6, i);
	take_none();
	assert_int_equal(did(ACTION_hold_hard_max), 4);
	response(&t[0]);
	assert_int_equal(take_all(), 1);
	rig.now_ns += MS;
	turn();
	t[0] = went(v6, 3);
	request(&t[0]);
	/* The last moment of a hold, at which a soft limit is none, does not change that. */
	for (unsigned ms = 0; ms < HOLD_MS + 10; ms++) {
		rig.now_ns += MS;
		turn();
		assert_true(wip() <= 3);
	}
	take_all();
	assert_int_equal(verdicts(VERDICT_answer_storm_hard_max) + verdicts(VERDICT_shed_storm_hard_max), 3);
	assert_int_equal(verdicts(VERDICT_answer_storm_limit) + verdicts(VERDICT_shed_storm_limit), 0);
	/* The other family's backends have a word of their own. */
	for (unsigned i = 8; i < 16; i++)
		(void)begin(PROTO_TCP, !v6, i);
	/* Taken back, it is no more. */
	put_hard_max(v6, 0);
	(void)begin(PROTO_TCP, v6, 7);
	stop();
}

/* Before decide has said anything there is no hold, and what is congested is no matter of the operator's. */
static void test_hard_max_and_limit(bool v6)
{
	begin_limits(1, 1, 0);
	put_hard_max(v6, 3);
	for (unsigned i = 0; i < 3; i++)
		(void)begin(PROTO_TCP, v6, i);
	ask(v6, 3);
	assert_int_equal(take_all(), 1);
	assert_int_equal(verdicts(VERDICT_answer_storm_hard_max), 1);
	limit_all(2, 0);
	ask(v6, 4);
	take_none();
	assert_int_equal(did(ACTION_hold_limit), 1);
	assert_int_equal(did(ACTION_hold_hard_max), 0);
	stop();
}

/* Others take what one may not have. */
static void test_hard_max_spare(bool v6)
{
	begin_limits(1, 2, 0);
	put_hard_max(v6, 8);
	for (unsigned i = 0; i < 16; i++)
		(void)begin(PROTO_TCP, v6, i);
	assert_true(did(ACTION_spare) > 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(observe_wip(rig.dp, rig.backends[v6][SET_TCP][i].ref.slot), 8);
	ask(v6, 16);
	assert_int_equal(take_all(), 1);
	assert_int_equal(verdicts(VERDICT_answer_storm_hard_max), 1);
	stop();
}

/* In shadow all go as they came, and what would have been is counted. */
static void test_shadow(bool v6, unsigned workers)
{
	begin_limits(workers, 1, 0);
	rig.policy.modes.of[CURE_STORM] = CURE_SHADOW;
	limit_all(1, 0);
	for (unsigned i = 0; i < 4; i++)
		(void)begin(PROTO_TCP, v6, i);
	assert_int_equal(would(ACTION_hold_limit), 3);
	assert_int_equal(did(ACTION_hold_limit), 0);
	pass_ms(HOLD_MS + 40);
	assert_int_equal(would(ACTION_refuse_limit) + would(ACTION_silence_limit), 3);
	limit_all(0, 0);
	put_hard_max(v6, 4);
	(void)begin(PROTO_TCP, v6, 4);
	assert_int_equal(would(ACTION_hold_hard_max), 1);
	stop();
}

/* What waits for a service that goes away is told so, and its queue is empty for the next one. */
static void test_service_goes(bool v6, unsigned workers)
{
	struct policy empty;

	begin_limits(workers, 1, 0);
	(void)begin(PROTO_TCP, v6, 0);
	limit_all(1, 0);
	for (unsigned i = 1; i < 4; i++)
		ask(v6, i);
	take_none();
	empty = rig.policy;
	empty.listeners = listener_table_create(NULL, 0);
	empty.number++;
	dataplane_publish(rig.dp, &empty);
	pass_ms(80);
	take_all();
	assert_int_equal(verdicts(VERDICT_answer_service_down) + verdicts(VERDICT_shed_refused_limit), 3);
	dataplane_publish(rig.dp, &rig.policy);
	listener_table_destroy((struct listener_table *)empty.listeners);
	stop();
}

#define EACH(name)                                                                                                     \
	static void name##_each(void **state)                                                                          \
	{                                                                                                              \
		each_way(name);                                                                                        \
	}
#define EACH_FAMILY(name)                                                                                              \
	static void name##_each(void **state)                                                                          \
	{                                                                                                              \
		name(false);                                                                                           \
		name(true);                                                                                            \
	}
EACH(test_room)
EACH(test_idle)
EACH(test_kept_connections_go_on)
EACH(test_spare)
EACH(test_end)
EACH(test_no_limit)
EACH_FAMILY(test_pace)
EACH_FAMILY(test_no_overtaking)
EACH_FAMILY(test_newest_first)
EACH_FAMILY(test_no_overtaking_by_who_cannot_wait)
EACH_FAMILY(test_pace_leaves_room)
EACH(test_soft)
EACH(test_spread)
EACH(test_breaker_goes_first)
EACH_FAMILY(test_families_apart)
EACH_FAMILY(test_late_wheel)
EACH_FAMILY(test_hard_max)
EACH_FAMILY(test_hard_max_and_limit)
EACH_FAMILY(test_hard_max_spare)
EACH(test_shadow)
EACH(test_service_goes)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_room_each),
		cmocka_unit_test(test_idle_each),
		cmocka_unit_test(test_kept_connections_go_on_each),
		cmocka_unit_test(test_spare_each),
		cmocka_unit_test(test_end_each),
		cmocka_unit_test(test_no_limit_each),
		cmocka_unit_test(test_pace_each),
		cmocka_unit_test(test_pace_for_both),
		cmocka_unit_test(test_no_overtaking_each),
		cmocka_unit_test(test_newest_first_each),
		cmocka_unit_test(test_no_overtaking_by_who_cannot_wait_each),
		cmocka_unit_test(test_pace_leaves_room_each),
		cmocka_unit_test(test_soft_each),
		cmocka_unit_test(test_spread_each),
		cmocka_unit_test(test_breaker_goes_first_each),
		cmocka_unit_test(test_families_apart_each),
		cmocka_unit_test(test_late_wheel_each),
		cmocka_unit_test(test_hard_max_each),
		cmocka_unit_test(test_hard_max_and_limit_each),
		cmocka_unit_test(test_hard_max_spare_each),
		cmocka_unit_test(test_shadow_each),
		cmocka_unit_test(test_service_goes_each),
	};

	if (rig_eal(512, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
