/* SPDX-License-Identifier: BSD-3-Clause */
/* Decide's breakers over a whole worker: what SYNs meet, what is told of it, and what is sent. */
#include "breakers_talk.h"

#include "view.h"

/* --- one backend --- */

static void refusing(bool v6, unsigned workers)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(workers, 3, CURE_ENFORCE);
	run(v6, &client, 1000, 10);
	expect_nothing();
	says[2] = REFUSES;
	s = run(v6, &client, 1000, 10);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(state_of(v6, 2), BREAKER_OPEN);
	expect("breaker_open", id_of(v6, 2), "5 SYNs in a row refused");
	expect_nothing();
	/* While it is open it gets probes, one a second, and nothing else. */
	s = run(v6, &client, 10000, 10);
	assert_int_equal(s.rsts, 0);
	assert_in_range(s.probes, 9, 11);
	assert_int_equal(s.syns[2], s.probes);
	/* Back with three answers in a row, three flows, and then more and more. */
	says[2] = ANSWERS;
	s = run(v6, &client, 3500, 10);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(state_of(v6, 2), BREAKER_RAMP);
	expect("breaker_half_open", id_of(v6, 2), "probes in a row answered");
	expect("breaker_ramp", id_of(v6, 2), "3 flows in a row got a response");
	expect_nothing();
	s = run(v6, &client, 3000, 10);
	assert_int_equal(s.probes, 0);
	assert_in_range(s.syns[2], 3, 24); /* a tenth of a hundred or a bit more */
	run(v6, &client, 27000, 10);
	assert_int_equal(state_of(v6, 2), BREAKER_CLOSED);
	expect("breaker_closed", id_of(v6, 2), "30 s without opening again");
	expect_nothing();
	s = run(v6, &client, 3000, 10);
	assert_in_range(s.syns[2], 70, 130);
	run(v6, &client, 11000, 0);
	end_all();
}

static void test_refusing(void **state)
{
	each_way(refusing);
}

static void silent(bool v6, unsigned workers)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(workers, 3, CURE_ENFORCE);
	run(v6, &client, 2000, 10);
	says[1] = SILENT;
	for (int i = 0; i < 100 && state_of(v6, 1) != BREAKER_OPEN; i++)
		assert_int_equal(run(v6, &client, 10, 10).rsts, 0);
	/* The others were heard meanwhile: there is nothing to wait for. */
	run(v6, &client, 10, 10);
	expect("breaker_open", id_of(v6, 1), "5 SYNs in a row unanswered");
	run(v6, &client, 500, 10);
	s = run(v6, &client, 10000, 10);
	assert_in_range(s.probes, 9, 11);
	assert_int_equal(s.syns[1], s.probes);
	says[1] = ANSWERS;
	run(v6, &client, 3500, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	expect("breaker_half_open", id_of(v6, 1), "");
	expect("breaker_ramp", id_of(v6, 1), "");
	expect_nothing();
	end_all();
}

static void test_silent(void **state)
{
	each_way(silent);
	/* A month after the start as on the first day. */
	begin_ns = 30 * 86400000000000ull;
	silent(false, 1);
	begin_ns = 0;
}

/* After a minute every five seconds is enough. */
static void test_open_for_long(void **state)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	says[3] = REFUSES;
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	run(false, &client, 66000, 0);
	s = run(false, &client, 50000, 0);
	assert_in_range(s.probes, 9, 11);
	end_all();
}

/* All refuse: clients hear it at once, the backends hear of one a second, and one that answers is enough. */
static void test_all_refuse(void **state)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	says[1] = says[2] = says[3] = REFUSES;
	run(false, &client, 1000, 10);
	for (unsigned i = 1; i <= 3; i++)
		assert_int_equal(state_of(false, i), BREAKER_OPEN);
	s = run(false, &client, 5000, 10);
	assert_int_equal(s.rsts, 500); /* the last resorts among them are refused by their backends */
	assert_in_range(s.probes, 12, 18);
	assert_in_range(s.syns[1] + s.syns[2] + s.syns[3] - s.probes, 4, 6);
	says[2] = ANSWERS;
	run(false, &client, 3500, 10);
	assert_int_equal(state_of(false, 2), BREAKER_RAMP);
	/* There is no other: it gets them all. */
	s = run(false, &client, 1000, 10);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(s.syns[2], 100);
	end_all();
}

/* Two seconds up, two down, for minutes: each opening lasts longer, clients hardly notice, nor do the events overflow.
 */
static void test_a11_10_flapping(void **state)
{
	uint64_t lost, n_clients;
	unsigned client = 0, n_open = 0, rsts = 0;
	struct event_record e;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	for (int i = 0; i < 75; i++) {
		says[2] = i % 2 ? REFUSES : ANSWERS;
		rsts += run(false, &client, 2000, 20).rsts;
		rsts += run(false, &client, 2000, 20).rsts;
	}
	n_clients = client;
	assert_true(rsts < n_clients / 50);
	while (events_read(f.events, f.events_seen, &e, 1, &lost, 0)) {
		f.events_seen = e.number;
		n_open += strcmp(e.kind, "breaker_open") == 0;
	}
	assert_in_range(n_open, 3, 75);
	run(false, &client, 11000, 0);
	end_all();
}

/* `consecutive` is the service's; what a reload changes holds for the next SYN. */
static void test_consecutive(void **state)
{
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 2, CURE_ENFORCE);
	configure(2, 1000);
	says[1] = REFUSES;
	run(false, &client, 5000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	configure(2, 2);
	run(false, &client, 100, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	end_all();
}

/* One that left DNS or the file is not probed: its slot is to become free. */
static void test_leaves_while_open(void **state)
{
	unsigned client = 0;
	struct slot_info info;
	uint32_t slot;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	says[3] = REFUSES;
	run(false, &client, 1000, 10);
	slot = slot_of_backend(false, 3);
	configure(2, 5);
	services_reap(f.services);
	assert_true(services_backend(f.services, slot, &info));
	s = run(false, &client, 20500, 0);
	assert_int_equal(s.syns[3], 0);
	services_reap(f.services);
	assert_false(services_backend(f.services, slot, &info));
	/* And when it comes back it is no better than it was. */
	run(false, &client, 2000, 0);
	configure(3, 5);
	run(false, &client, 10, 0);
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	end_all();
}

/* --- sides --- */

/* All silent: that is not theirs. Whatever was opened is taken back, clients' SYNs go on, and the first answer ends it.
 */
static void side(bool v6, unsigned workers)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(workers, 4, CURE_ENFORCE);
	run(v6, &client, 2000, 10);
	for (unsigned i = 1; i <= 4; i++)
		says[i] = SILENT;
	run(v6, &client, 1000, 10);
	for (unsigned i = 1; i <= 4; i++) {
		assert_int_equal(state_of(v6, i), BREAKER_CLOSED);
		assert_true(is_marked(v6, i));
	}
	expect("side_down", "shop", v6 ? "IPv6: 4 of 4 backends fell silent" : "IPv4: 4 of 4 backends fell silent");
	expect_nothing();
	s = run(v6, &client, 3000, 10);
	assert_int_equal(s.rsts, 0);
	assert_int_equal(s.probes, 0);
	/* The other family is another side. */
	assert_false(is_marked(!v6, 1));
	says[2] = ANSWERS;
	run(v6, &client, 100, 10);
	expect("side_up", "shop", v6 ? "IPv6" : "IPv4");
	/* The others are on their own now. */
	run(v6, &client, 1000, 10);
	assert_int_equal(state_of(v6, 2), BREAKER_CLOSED);
	for (unsigned i = 1; i <= 4; i++)
		if (i != 2) {
			assert_int_equal(state_of(v6, i), BREAKER_OPEN);
			f.events_seen++;
		}
	expect_nothing();
	end_all();
}

static void test_side(void **state)
{
	each_way(side);
}

static void test_four_in_five_of_three(void **state)
{
	assert_false(breakers_side_is_silent(0, 0));
	assert_false(breakers_side_is_silent(1, 1));
	assert_false(breakers_side_is_silent(2, 2));
	assert_false(breakers_side_is_silent(3, 2));
	assert_true(breakers_side_is_silent(3, 3));
	assert_false(breakers_side_is_silent(4, 3));
	assert_true(breakers_side_is_silent(5, 4));
	assert_false(breakers_side_is_silent(10, 7));
	assert_true(breakers_side_is_silent(10, 8));
}

/* Two of two: they may both be dead. Refusals: they speak, so the way to them is there. */
static void test_no_side(void **state)
{
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 2, CURE_ENFORCE);
	run(false, &client, 2000, 10);
	says[1] = says[2] = SILENT;
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	assert_int_equal(state_of(false, 2), BREAKER_OPEN);
	end_all();
}

/* Who fell silent long before the others did so alone. */
static void test_not_together(void **state)
{
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	run(false, &client, 2000, 10);
	says[1] = SILENT;
	run(false, &client, 12000, 10);
	says[2] = SILENT;
	run(false, &client, 12000, 10);
	says[3] = SILENT;
	run(false, &client, 1000, 10);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(state_of(false, i), BREAKER_OPEN);
		expect("breaker_open", id_of(false, i), "unanswered");
	}
	expect_nothing();
	end_all();
}

/* What left its side while that was down is measured again when it comes back, answered or not. */
static void test_mark_outlives_no_side(void **state)
{
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 4, CURE_ENFORCE);
	run(false, &client, 2000, 10);
	for (unsigned i = 1; i <= 4; i++)
		says[i] = SILENT;
	run(false, &client, 1000, 10);
	assert_true(is_marked(false, 3) && is_marked(false, 4));
	configure(2, 5);
	says[1] = ANSWERS;
	run(false, &client, 300, 10);
	assert_false(is_marked(false, 1));
	assert_true(is_marked(false, 3) && is_marked(false, 4));
	configure(4, 5);
	run(false, &client, 5000, 10);
	assert_false(is_marked(false, 3) || is_marked(false, 4));
	assert_int_equal(state_of(false, 3), BREAKER_OPEN);
	assert_int_equal(state_of(false, 4), BREAKER_OPEN);
	end_all();
}

/* At the start of a gateway its router is not resolved yet: that is no side down. */
static void test_router_not_yet_found(void **state)
{
	struct ipaddr router = ipaddr_v4(htonl(0xc61203fe));
	struct route_change change = {
		.prefix = ipaddr_v4(htonl(0xc6120300)),
		.prefix_len = 24,
		.kind = ROUTE_UNICAST,
		.n_nexthops = 1,
		.nexthops = {{.port = RIG_LAN, .gateway = router, .weight = 1}},
	};

	begin_all(1, 2, CURE_ENFORCE);
	assert_int_equal(dataplane_route_update(rig.dp, &change, 1), 0);
	breakers_look_again(f.breakers);
	decide();
	expect_nothing();
	/* No route at all is another matter. */
	change.remove = true;
	assert_int_equal(dataplane_route_update(rig.dp, &change, 1), 0);
	change = (struct route_change){.prefix = ipaddr_v4(0), .remove = true, .kind = ROUTE_UNICAST};
	assert_int_equal(dataplane_route_update(rig.dp, &change, 1), 0);
	breakers_look_again(f.breakers);
	decide();
	expect("side_down", "shop", "IPv4: no way to 2 of 2 backends (no route)");
	expect_nothing();
	end_all();
}

/* No link, no blame; and back without waiting for an answer. */
static void test_link_down(void **state)
{
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 2, CURE_ENFORCE);
	run(false, &client, 1000, 10);
	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	breakers_look_again(f.breakers);
	run(false, &client, 3000, 10);
	for (unsigned i = 1; i <= 2; i++)
		assert_int_equal(state_of(false, i), BREAKER_CLOSED);
	expect("side_down", "shop", "IPv4: no way to 2 of 2 backends (its link is down)");
	expect("side_down", "shop", "IPv6: no way to 2 of 2 backends (its link is down)");
	expect_nothing();
	dataplane_port_set_link(rig.dp, RIG_LAN, true, 1500);
	run(false, &client, 300, 0);
	expect("side_up", "shop", "IPv4: there is a way again");
	expect("side_up", "shop", "IPv6: there is a way again");
	assert_int_equal(breakers_due_ns(f.breakers), UINT64_MAX);
	run(false, &client, 300, 10);
	expect_nothing();
	end_all();
}

/* A router before all of them that does not answer any more, although their SYNs were sent. */
static void test_router_down(void **state)
{
	const uint8_t mac[6] = {2, 0, 0, 0, 3, 0x77};
	struct ipaddr router = ipaddr_v4(htonl(0xc61203fe));
	struct route_change change = {
		.prefix = ipaddr_v4(htonl(0xc6120300)),
		.prefix_len = 24,
		.kind = ROUTE_UNICAST,
		.n_nexthops = 1,
		.nexthops = {{.port = RIG_LAN, .gateway = router, .weight = 1}},
	};
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 2, CURE_ENFORCE);
	/* On the way to the router it is the neighbour itself, and unknown before. */
	dataplane_neighbour_update(rig.dp, RIG_LAN, &router, NEIGHBOUR_USABLE, mac);
	assert_int_equal(dataplane_route_update(rig.dp, &change, 1), 0);
	run(false, &client, 1000, 10);
	says[1] = says[2] = SILENT;
	run(false, &client, 100, 10);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &router, NEIGHBOUR_UNRESOLVED, mac);
	run(false, &client, 1000, 10);
	expect("side_down", "shop", "IPv4: no way to 2 of 2 backends (the next hop does not answer)");
	expect_nothing();
	for (unsigned i = 1; i <= 2; i++)
		assert_int_equal(state_of(false, i), BREAKER_CLOSED);
	end_all();
}

/* --- modes --- */

/* Open and closed by what real flows meet; nobody is sent elsewhere, nothing is probed. */
static void test_shadow(void **state)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_SHADOW);
	run(false, &client, 1000, 10);
	says[2] = REFUSES;
	s = run(false, &client, 5000, 10);
	assert_int_equal(state_of(false, 2), BREAKER_OPEN);
	expect("breaker_open", id_of(false, 2), "5 SYNs in a row refused (shadow");
	assert_int_equal(s.probes, 0);
	assert_in_range(s.syns[2], 100, 250);
	assert_int_equal(s.rsts, s.syns[2]);
	assert_in_range(rig.worker->ledger.would[ACTION_probe], 3, 6);
	says[2] = ANSWERS;
	run(false, &client, 100, 10);
	assert_int_equal(state_of(false, 2), BREAKER_CLOSED);
	expect("breaker_closed", id_of(false, 2), "answered a SYN");
	end_all();
}

/* Switched off, all that was measured is gone; switched on, it begins anew. */
static void test_off(void **state)
{
	unsigned client = 0;
	struct seen s;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 4, CURE_ENFORCE);
	says[2] = REFUSES;
	run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 2), BREAKER_OPEN);
	f.mode = CURE_OFF;
	configure(4, 5);
	s = run(false, &client, 5000, 10);
	assert_int_equal(state_of(false, 2), BREAKER_CLOSED);
	assert_in_range(s.syns[2], 80, 170);
	assert_int_equal(s.probes, 0);
	assert_int_equal(s.rsts, s.syns[2]);
	assert_int_equal(breakers_due_ns(f.breakers), UINT64_MAX);
	f.mode = CURE_ENFORCE;
	configure(4, 5);
	s = run(false, &client, 1000, 10);
	assert_int_equal(state_of(false, 2), BREAKER_OPEN);
	assert_int_equal(s.rsts, 0);
	end_all();
}

/* --- what is shown --- */

static struct view *view;

/* What decide publishes of the backend; NULL: nothing. */
static const struct view_breaker *show(unsigned backend)
{
	view_free(view);
	view = calloc(1, sizeof(*view));
	assert_int_equal(services_view(f.services, view), 0);
	assert_int_equal(breakers_view(f.breakers, view, rig.now_ns), 0);
	for (size_t i = 0; i < view->n_backends; i++)
		if (view->backends[i].slot == slot_of_backend(false, backend))
			return view->backends[i].breaker;
	fail();
	return NULL;
}

static void test_view(void **state)
{
	const struct view_breaker *b;
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	run(false, &client, 1000, 10);
	assert_null(show(2));
	says[2] = REFUSES;
	run(false, &client, 1000, 10);
	assert_null(show(1));
	b = show(2);
	assert_int_equal(b->state, BREAKER_OPEN);
	assert_string_equal(b->evidence, "5 SYNs in a row refused");
	assert_in_range(rig.now_ns - b->since_ns, 1, 1000000000);
	assert_int_equal(b->opened_ns, b->since_ns);
	assert_in_range(b->probe_ns, rig.now_ns, rig.now_ns + 1100000000);
	assert_in_range(b->until_ns - b->since_ns, 3750000000, 6250000000);
	assert_int_equal(b->openings, 1);
	says[2] = ANSWERS;
	run(false, &client, 3500, 0);
	b = show(2);
	assert_int_equal(b->state, BREAKER_HALF_OPEN);
	assert_string_equal(b->evidence, "5 SYNs in a row refused");
	assert_int_equal(b->probe_ns, 0);
	run(false, &client, 1000, 10);
	b = show(2);
	assert_int_equal(b->state, BREAKER_RAMP);
	assert_false(b->is_new);
	assert_in_range(b->closes_ns, rig.now_ns + 28000000000, rig.now_ns + 30000000000);
	/* What is new to its set is so for no fault. */
	configure(4, 5);
	run(false, &client, 10, 0);
	b = show(4);
	assert_int_equal(b->state, BREAKER_RAMP);
	assert_true(b->is_new);
	run(false, &client, 31000, 50);
	/* Closed again, it is known why it was open. */
	b = show(2);
	assert_int_equal(b->state, BREAKER_CLOSED);
	assert_string_equal(b->evidence, "5 SYNs in a row refused");
	assert_null(show(1));
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_OPEN, f.mode, rig.now_ns), 0);
	b = show(1);
	assert_true(b->forced);
	assert_int_equal(b->state, BREAKER_OPEN);
	assert_int_equal(b->since_ns, rig.now_ns);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_AUTO, f.mode, rig.now_ns), 0);
	assert_null(show(1));
	for (unsigned i = 1; i <= 4; i++)
		says[i] = SILENT;
	run(false, &client, 1500, 10);
	b = show(1);
	assert_int_equal(b->state, BREAKER_CLOSED);
	assert_string_equal(b->side, "shop, IPv4: 4 of 4 backends fell silent within 10 s");
	assert_in_range(rig.now_ns - b->side_ns, 1, 1500000000);
	view_free(view);
	view = NULL;
	end_all();
}

/* A note that was lost is made up for. */
static void test_lost_note(void **state)
{
	struct note notes[64];
	unsigned client = 0;

	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, 3, CURE_ENFORCE);
	says[1] = REFUSES;
	for (int i = 0; i < 200; i++) {
		feed(RIG_WAN, from_client(&(struct talk){.proto = PROTO_TCP, .client = client++}, TCP_SYN, ISN, 0));
		turn();
		talk_back();
		turn();
		talk_back();
	}
	assert_in_range(dataplane_notes(rig.dp, notes, 64), 1, 3);
	decide();
	expect_nothing();
	breakers_note_all(f.breakers);
	decide();
	expect("breaker_open", id_of(false, 1), "5 SYNs in a row refused");
	run(false, &client, 100, 0);
	end_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusing),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_open_for_long),
		cmocka_unit_test(test_all_refuse),
		cmocka_unit_test(test_consecutive),
		cmocka_unit_test(test_leaves_while_open),
		cmocka_unit_test(test_side),
		cmocka_unit_test(test_four_in_five_of_three),
		cmocka_unit_test(test_no_side),
		cmocka_unit_test(test_not_together),
		cmocka_unit_test(test_link_down),
		cmocka_unit_test(test_router_down),
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_lost_note),
		cmocka_unit_test(test_view),
		cmocka_unit_test(test_a11_10_flapping),
		cmocka_unit_test(test_mark_outlives_no_side),
		cmocka_unit_test(test_router_not_yet_found),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
