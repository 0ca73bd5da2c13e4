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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_answers_are_limited),
		cmocka_unit_test(test_probe_is_not_answered),
		cmocka_unit_test(test_probes_differ),
		cmocka_unit_test(test_orders_are_bounded),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
