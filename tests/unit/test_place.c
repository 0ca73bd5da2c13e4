/* SPDX-License-Identifier: BSD-3-Clause */
/* When a SNAT port is free again, and who hears that few are. */
#include "talk.h"

#include <stdlib.h>

/* A whole connection; `down`: the backend closes first. */
static struct talk converse(bool v6, unsigned client, bool down)
{
	struct talk t = establish(v6, client);

	if (down) {
		exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 1));
		exchange(RIG_WAN, from_client(&t, TCP_FIN | TCP_ACK, ISN + 1, PEER + 2));
		exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 2, ISN + 2));
	} else {
		exchange(RIG_WAN, from_client(&t, TCP_FIN | TCP_ACK, ISN + 1, PEER + 1));
		exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 2));
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 2, PEER + 2));
	}
	return t;
}

/* The client comes again at once: the backend that closed first is in TIME_WAIT, so the old port rests. */
static void test_backend_closed(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, down = n & 2;
		struct talk t;
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		t = converse(v6, 3, down);
		assert_int_equal(only_state(v6), FLOW_TIME_WAIT);
		s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 5000, 0));
		assert_int_not_equal(s.p.sport_be, t.snat_port_be);
		assert_int_equal(snat_resting(&rig.worker->snat), down);
		check_books();
		pass_ms(SNAT_REST_MS + 100);
		assert_int_equal(snat_resting(&rig.worker->snat), 0);
		stop();
	}
}

/*
 * Both close at the same time: the backend's FIN, which does not acknowledge the client's, makes it the one in
 * TIME_WAIT, too, whichever of the two comes here first.
 */
static void test_both_closed(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, backend_first = n & 2;
		struct talk t;
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		t = establish(v6, 3);
		if (backend_first)
			exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 1));
		exchange(RIG_WAN, from_client(&t, TCP_FIN | TCP_ACK, ISN + 1, PEER + 1));
		if (!backend_first)
			exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 1));
		exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 2, ISN + 2));
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 2, PEER + 2));
		assert_int_equal(only_state(v6), FLOW_TIME_WAIT);
		s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 5000, 0));
		assert_int_not_equal(s.p.sport_be, t.snat_port_be);
		assert_int_equal(snat_resting(&rig.worker->snat), 1);
		stop();
	}
}

/* A RST leaves no TIME_WAIT, and one that is over is over. */
static void test_no_rest(void **state)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 5000, 0));
	assert_int_equal(snat_resting(&rig.worker->snat), 0);
	pass_ms(100000);
	assert_int_equal(n_flows(), 0);
	converse(false, 4, true);
	pass_ms(59000);
	assert_int_equal(n_flows(), 1);
	pass_ms(2000);
	assert_int_equal(n_flows(), 0);
	assert_int_equal(snat_resting(&rig.worker->snat), 0);
	stop();
}

static unsigned notes_of_ports(bool exhausted)
{
	struct note notes[64];
	unsigned n = 0;

	for (size_t got; (got = dataplane_notes(rig.dp, notes, 64)) > 0;)
		for (size_t i = 0; i < got; i++)
			if (notes[i].kind == NOTE_PORTS) {
				assert_int_equal(notes[i].ports.exhausted, exhausted);
				assert_int_equal(notes[i].ports.backend_slot, 0);
				assert_int_equal(notes[i].ports.n_ports, rig.worker->snat.n_ports);
				n++;
			}
	return n;
}

/* To the last port: TIME_WAIT is short from the middle on, decide hears at four fifths, and what is refused, aloud. */
static void test_exhausted(void **state)
{
	uint32_t n_ports, client = 0;
	struct sent s;

	start((struct rig_config){.n_backends = 1, .flows_v4 = 70000});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	rig.service.timeouts.syn_sent_ms = 600000;
	n_ports = rig.worker->snat.n_ports;
	while (client < n_ports / 2)
		begin(PROTO_TCP, false, client++);
	converse(false, client++, true);
	assert_int_equal(n_flows(), n_ports / 2 + 1);
	pass_ms(2500);
	assert_int_equal(n_flows(), n_ports / 2);
	assert_int_equal(snat_resting(&rig.worker->snat), 0);
	assert_int_equal(notes_of_ports(false), 0);
	while (n_flows() < n_ports)
		begin(PROTO_TCP, false, client++);
	assert_int_equal(notes_of_ports(false), 1);
	for (unsigned i = 0; i < 3; i++) {
		struct talk t = {.proto = PROTO_TCP, .client = client++};

		s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
	}
	assert_int_equal(verdicts(VERDICT_answer_ports_exhausted), 3);
	assert_int_equal(notes_of_ports(true), 1);
	stop();
}

#define FEW_PORTS 5u

static struct sent syn_of(unsigned client, bool v6)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};

	return exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 5000, 0));
}

static void start_with_few_ports(void)
{
	start((struct rig_config){.n_backends = 1, .snat_ports = {20000, 20000 + FEW_PORTS - 1}});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
}

/* Every port is of a connection that is over, by FIN or by RST: they serve again, in the order in which they were
 * taken. */
static void test_reclaimed(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, reset = n & 2;
		struct talk t[FEW_PORTS];

		start_with_few_ports();
		for (unsigned i = 0; i < FEW_PORTS; i++) {
			t[i] = reset ? establish(v6, i) : converse(v6, i, i & 1);
			if (reset)
				exchange(RIG_WAN, from_client(&t[i], TCP_RST, ISN + 1, 0));
		}
		for (unsigned i = 0; i < FEW_PORTS; i++) {
			struct sent s = syn_of(10 + i, v6);

			assert_int_equal(s.port, RIG_LAN);
			assert_int_equal(s.p.sport_be, t[i].snat_port_be);
			assert_int_equal(n_flows(), FEW_PORTS);
			check_books();
		}
		if (!v6)
			assert_int_equal(notes_of_ports(false), 1);
		/* None of these is over. */
		assert_int_equal(syn_of(20, v6).port, RIG_WAN);
		assert_int_equal(verdicts(VERDICT_answer_ports_exhausted), 1);
		stop();
	}
}

/* The one that came first is about to begin anew: its SYN is in the same burst. */
static void test_reclaimed_beside(void **state)
{
	struct talk t[FEW_PORTS], other = {.proto = PROTO_TCP, .client = 10};
	struct sent again, first;

	start_with_few_ports();
	for (unsigned i = 0; i < FEW_PORTS; i++)
		t[i] = converse(false, i, true);
	feed(RIG_WAN, from_client(&other, TCP_SYN, ISN, 0));
	feed(RIG_WAN, from_client(&t[0], TCP_SYN, ISN + 5000, 0));
	turn();
	take_right(&first);
	take_right(&again);
	assert_int_equal(first.p.sport_be, t[1].snat_port_be);
	assert_int_equal(again.p.sport_be, t[0].snat_port_be);
	take_none();
	stop();
}

/* Connections that live, however many, hide none that is over: it serves a client that comes again. */
static void reclaimed_behind(bool v6, unsigned n_snat)
{
	enum { PORTS = 40, LIVE = 28 };
	unsigned all = PORTS * n_snat, placed = 0;
	struct talk t[3 * PORTS];

	start((struct rig_config){.n_backends = 1,
				  .n_snat = n_snat,
				  .snat_ports = {20000, 20000 + PORTS - 1},
				  .flows_v4 = 1000,
				  .flows_v6 = 1000});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	rig.service.timeouts.closed_ms = 600000;
	for (unsigned i = 0; i < all; i++)
		t[i] = establish(v6, i);
	assert_int_equal(n_flows(), all);
	for (unsigned i = LIVE * n_snat; i < all; i++)
		exchange(RIG_WAN, from_client(&t[i], TCP_RST, ISN + 1, 0));
	/* A SYN has some looked at, and no more: the first ones find none. */
	assert_int_equal(syn_of(1000, v6).port, RIG_WAN);
	for (unsigned tries = 0; tries < 4 * n_snat && !placed; tries++) {
		rest();
		placed += syn_of(1000, v6).port == RIG_LAN;
	}
	assert_int_equal(placed, 1);
	assert_int_equal(n_flows(), all);
	stop();
}

static void test_reclaimed_behind(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (unsigned n_snat = 1; n_snat <= 3; n_snat++)
			reclaimed_behind(v6, n_snat);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backend_closed),   cmocka_unit_test(test_no_rest),
		cmocka_unit_test(test_exhausted),        cmocka_unit_test(test_reclaimed),
		cmocka_unit_test(test_reclaimed_beside), cmocka_unit_test(test_reclaimed_behind),
		cmocka_unit_test(test_both_closed),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
