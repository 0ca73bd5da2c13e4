/* SPDX-License-Identifier: BSD-3-Clause */
/* SYNs of the gateway's own, and the orders that they are sent by. */
#include "wall_talk.h"

#include <netinet/in.h>
#include <string.h>

static void probed(bool v6, unsigned workers)
{
	begin_rig(workers, N_BACKENDS);
	for (unsigned worker = 0; worker < workers; worker++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP};
		uint32_t isn, slot;
		struct sent s;

		set_breaker(v6, 1, BREAKER_OPEN);
		order_probe(v6, worker, 1);
		assert_false(dataplane_backend_unused(rig.dp, 200));
		turn();
		take_right(&s);
		take_none();
		learn(&t, &s);
		isn = seq(&s);
		assert_true(ipaddr_equal(&t.backend, &rig.backends[v6][SET_TCP][1].addr));
		assert_true(snat_index(&rig.dp->snat, &t.snat) >= 0);
		assert_int_equal(snat_owner(&rig.dp->partition, t.snat_port_be), worker);
		assert_int_equal(s.p.tcp_flags, TCP_SYN);
		assert_int_equal(s.p.ttl, 64);
		/* MSS and nothing else. */
		assert_int_equal(s.p.payload_off - s.p.l4_off, 24);
		assert_memory_equal(s.frame + s.p.l4_off + 20, v6 ? "\2\4\5\240" : "\2\4\5\264", 4);
		/* Of nobody: no flow, no service, no failure. */
		assert_int_equal(n_flows(), 0);
		assert_int_equal(report_of(v6, &t.backend).flows, 0);
		assert_int_equal(report_of(v6, &t.backend).new_flows, 0);
		assert_true(dataplane_service_unused(rig.dp, 0));
		assert_true(dataplane_backend_unused(rig.dp, 200));
		assert_false(dataplane_backend_unused(rig.dp, slot_of(v6, &t.backend)));
		/* Wherever the answer comes in. */
		s = exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, isn + 1));
		assert_int_equal(s.port, RIG_LAN);
		assert_int_equal(s.p.tcp_flags, TCP_RST);
		assert_int_equal(seq(&s), isn + 1);
		assert_true(streak_of(v6, &t.backend).answered);
		assert_int_equal(take_notes(&slot), 1);
		assert_int_equal(slot, slot_of(v6, &t.backend));
		assert_int_equal(verdicts(VERDICT_answer_probe), worker + 1);
	}
	assert_int_equal(did(ACTION_probe), workers);
	assert_int_equal(report_of(v6, &rig.backends[v6][SET_TCP][1].addr).probes, workers);
	assert_int_equal(report_of(v6, &rig.backends[v6][SET_TCP][1].addr).failures, 0);
	pass_ms(10200);
	assert_int_equal(n_tuples(), 0);
	stop();
}

static void test_probe(void **state)
{
	each_way(probed);
}

/* D-9: these RSTs are of the gateway's limit as well. One that was not sent is when the backend says it again. */
static void test_answers_are_limited(void **state)
{
	struct talk t = {.proto = PROTO_TCP};
	struct sent s;
	uint32_t isn;

	begin_rig(1, N_BACKENDS);
	set_breaker(false, 1, BREAKER_OPEN);
	order_probe(false, 0, 1);
	turn();
	take_right(&s);
	learn(&t, &s);
	isn = seq(&s);
	while (answer_limits_backend(rig.worker->limits, rig.now_ns))
		;
	refused(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, isn + 1), VERDICT_shed_backend_rst);
	/* Ends of flows would hear theirs, */
	assert_true(answer_limits_ends(rig.worker->limits, DIRS, rig.now_ns));
	/* and it was heard all the same. */
	assert_true(streak_of(false, &t.backend).answered);
	pass_ms(1000);
	s = exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, isn + 1));
	check_rst(&s, RIG_LAN, TCP_RST, isn + 1, 0);
	assert_int_equal(verdicts(VERDICT_answer_probe), 1);
	stop();
}

/* RST, ICMP error, and answers to something else. */
static void test_probe_is_not_answered(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP};
		uint8_t frame[FRAME_MAX];
		struct sent s, rst;
		size_t len;

		begin_rig(1, N_BACKENDS);
		set_breaker(v6, 1, BREAKER_OPEN);
		order_probe(v6, 0, 1);
		turn();
		take_right(&s);
		learn(&t, &s);
		refused(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, seq(&s) + 1), VERDICT_absorb_probe);
		len = make_error(frame, s.frame, t.backend, v6 ? 1 : 3, 1, 0);
		feed_raw(RIG_LAN, 0, frame, len);
		turn();
		take_none();
		assert_int_equal(verdicts(VERDICT_absorb_probe), 2);
		rst = exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, seq(&s) + 2));
		assert_int_equal(seq(&rst), seq(&s) + 2);
		rst = exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER, 12345));
		assert_int_equal(seq(&rst), 12345);
		assert_false(streak_of(v6, &t.backend).answered);
		assert_int_equal(streak_of(v6, &t.backend).state, BREAKER_OPEN);
		stop();
	}
}

/* Two are never alike, and nobody can tell the next number. */
static void test_probes_differ(void **state)
{
	uint32_t isns[50], ports[50];
	struct sent s;

	begin_rig(1, 1);
	for (unsigned i = 0; i < 50; i++) {
		order_probe(false, 0, 0);
		turn();
		take_right(&s);
		isns[i] = seq(&s);
		ports[i] = s.p.sport_be;
		for (unsigned j = 0; j < i; j++)
			assert_true(isns[j] != isns[i] && isns[i] - isns[j] > 10 && ports[j] != ports[i]);
	}
	stop();
}

static void test_orders_are_bounded(void **state)
{
	struct order o = {.kind = ORDER_OPENED, .slot = 1};
	unsigned n = 0;

	begin_rig(1, 1);
	while (n < 10000 && dataplane_order(rig.dp, 0, &o))
		n++;
	assert_in_range(n, 100, 1000);
	assert_false(dataplane_backend_unused(rig.dp, 1));
	turn();
	assert_true(dataplane_backend_unused(rig.dp, 1));
	assert_true(dataplane_order(rig.dp, 0, &o));
	stop();
}

/* --- checks: the same SYN while the breaker is closed, and its failure counts --- */

static void order_check(bool v6, unsigned worker, unsigned backend)
{
	const struct policy_backend *b = &rig.backends[v6][SET_TCP][backend];

	assert_true(dataplane_order(rig.dp, worker, &(struct order){ORDER_CHECK, b->ref.slot, b->addr, b->port_be, 5}));
	turn();
}

static uint64_t failed_checks(bool v6, unsigned backend)
{
	return report_of(v6, &rig.backends[v6][SET_TCP][backend].addr).checks_failed;
}

static struct streak streak_at(bool v6, unsigned backend)
{
	return streak_of(v6, &rig.backends[v6][SET_TCP][backend].addr);
}

/* The SYN that was sent for it. */
static struct talk checked(bool v6, unsigned worker, uint32_t *isn)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP};
	struct sent s;

	order_check(v6, worker, 1);
	take_right(&s);
	take_none();
	learn(&t, &s);
	*isn = seq(&s);
	return t;
}

static void check_refused(bool v6, unsigned workers)
{
	uint32_t isn, slot;
	struct talk t;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	for (unsigned i = 1; i <= 5; i++) {
		t = checked(v6, i % workers, &isn);
		/* A number that it has not seen says nothing. */
		refused(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, isn + 2), VERDICT_absorb_probe);
		assert_int_equal(failed_checks(v6, 1), i - 1);
		refused(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, isn + 1), VERDICT_absorb_probe);
		refused(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, isn + 1), VERDICT_absorb_probe);
		assert_int_equal(failed_checks(v6, 1), i);
		assert_int_equal(streak_at(v6, 1).failures[CONNECT_REFUSED], i);
		assert_int_equal(streak_at(v6, 1).state, i < 5 ? BREAKER_CLOSED : BREAKER_OPEN);
		pass_ms(1100);
		assert_int_equal(streak_at(v6, 1).failures[CONNECT_SILENT], 0);
	}
	assert_true(take_notes(&slot) > 0);
	assert_int_equal(did(ACTION_check), 5);
	assert_int_equal(did(ACTION_probe), 0);
	/* Open, it is no matter of checks any more. */
	t = checked(v6, 0, &isn);
	s = exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, isn + 1));
	check_rst(&s, RIG_LAN, TCP_RST, isn + 1, 0);
	assert_int_equal(streak_at(v6, 1).state, BREAKER_OPEN);
	assert_true(streak_at(v6, 1).answered);
	stop();
}

static void test_check_refused(void **state)
{
	each_way(check_refused);
}

static void check_silent(bool v6, unsigned workers)
{
	uint32_t isn;
	struct talk t;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	for (unsigned i = 1; i <= 4; i++) {
		t = checked(v6, 0, &isn);
		pass_ms(900);
		assert_int_equal(failed_checks(v6, 1), i - 1);
		pass_ms(200);
		assert_int_equal(failed_checks(v6, 1), i);
		assert_int_equal(streak_at(v6, 1).failures[CONNECT_SILENT], i);
		pass_ms(3000);
		assert_int_equal(failed_checks(v6, 1), i);
	}
	/* One that is answered says that it is there; what was before is over. */
	t = checked(v6, 0, &isn);
	s = exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, isn + 1));
	check_rst(&s, RIG_LAN, TCP_RST, isn + 1, 0);
	pass_ms(1100);
	assert_int_equal(failed_checks(v6, 1), 0);
	assert_int_equal(*word_of(v6, &rig.backends[v6][SET_TCP][1].addr), 0);
	/* In the ramp two are enough. */
	set_breaker(v6, 1, BREAKER_RAMP);
	checked(v6, 0, &isn);
	pass_ms(1100);
	assert_int_equal(streak_at(v6, 1).state, BREAKER_RAMP);
	checked(v6, 0, &isn);
	pass_ms(1100);
	assert_int_equal(streak_at(v6, 1).state, BREAKER_OPEN);
	stop();
}

static void test_check_silent(void **state)
{
	each_way(check_silent);
}

static void test_check_unreachable(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP};
		uint8_t frame[FRAME_MAX];
		struct sent s;
		size_t len;

		begin_rig(1, N_BACKENDS);
		order_check(v6, 0, 1);
		take_right(&s);
		learn(&t, &s);
		/* Time exceeded is no refusal. */
		len = make_error(frame, s.frame, t.backend, v6 ? 3 : 11, 0, 0);
		feed_raw(RIG_LAN, 0, frame, len);
		turn();
		assert_int_equal(failed_checks(v6, 1), 0);
		len = make_error(frame, s.frame, t.backend, v6 ? 1 : 3, 1, 0);
		feed_raw(RIG_LAN, 0, frame, len);
		turn();
		take_none();
		assert_int_equal(failed_checks(v6, 1), 1);
		assert_int_equal(streak_at(v6, 1).failures[CONNECT_UNREACHABLE], 1);
		assert_int_equal(verdicts(VERDICT_absorb_probe), 2);
		stop();
	}
}

/* A-9, for checks as for clients: not while the worker stood still, the side is down, or others hear of it. */
static void test_check_says_nothing(void **state)
{
	struct streak s = {.side_down = true};
	uint32_t isn;
	struct talk t;

	begin_rig(1, N_BACKENDS);
	checked(false, 0, &isn);
	/* The answer waits in a ring, perhaps. */
	rig.now_ns += 5000000000;
	turn();
	assert_int_equal(failed_checks(false, 1), 0);
	pass_ms(1200);
	assert_int_equal(failed_checks(false, 1), 1);
	*word_of(false, &rig.backends[0][SET_TCP][1].addr) = streak_word(&s);
	checked(false, 0, &isn);
	pass_ms(2000);
	assert_int_equal(failed_checks(false, 1), 1);
	assert_int_equal(streak_at(false, 1).failures[CONNECT_SILENT], 0);
	*word_of(false, &rig.backends[0][SET_TCP][1].addr) = 0;
	/* It speaks, though not of this. */
	t = checked(false, 0, &isn);
	pass_ms(10);
	exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER, 12345));
	pass_ms(2000);
	assert_int_equal(failed_checks(false, 1), 1);
	assert_int_equal(report_of(false, &rig.backends[0][SET_TCP][1].addr).overloads, 1);
	/* No way to it. */
	checked(false, 0, &isn);
	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	pass_ms(2000);
	assert_int_equal(failed_checks(false, 1), 1);
	stop();
}

/* More at a time than there is room for are not sent; in shadow none is. */
static void test_checks_are_bounded(void **state)
{
	struct sent s;
	unsigned n = 0;

	begin_rig(1, N_BACKENDS);
	for (unsigned i = 0; i < CHECKS_MAX + 10; i++) {
		order_check(false, 0, i % N_BACKENDS);
		while (take(&s))
			n++;
	}
	assert_int_equal(n, CHECKS_MAX);
	assert_int_equal(did(ACTION_check), CHECKS_MAX);
	pass_ms(1200);
	assert_int_equal(rig.worker->wall.checks.n, 0);
	stop();
	begin_rig(1, N_BACKENDS);
	rig.policy.modes.of[CURE_WALL] = CURE_SHADOW;
	order_check(false, 0, 1);
	take_none();
	assert_int_equal(rig.worker->ledger.would[ACTION_check], 1);
	pass_ms(1200);
	assert_int_equal(failed_checks(false, 1), 0);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check_refused),       cmocka_unit_test(test_check_silent),
		cmocka_unit_test(test_check_unreachable),   cmocka_unit_test(test_check_says_nothing),
		cmocka_unit_test(test_checks_are_bounded),  cmocka_unit_test(test_probe),
		cmocka_unit_test(test_answers_are_limited), cmocka_unit_test(test_probe_is_not_answered),
		cmocka_unit_test(test_probes_differ),       cmocka_unit_test(test_orders_are_bounded),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
