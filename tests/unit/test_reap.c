/* SPDX-License-Identifier: BSD-3-Clause */
/* Flows that end by order. */
#include "talk.h"

#include "dataplane.h"
#include "reap.h"

#include <netinet/in.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RST_PER_S        9000
#define BURST_RST        1350 /* 150 ms of that */
#define SCANNED_PER_LOOP 128
#define SCANNED_AT_MOST  4096
#define ENDED_PER_LOOP   32

static const struct reap_order now_all = {.cause = REAP_DRAIN};

static uint32_t slot_of(bool v6, enum ip_proto proto, unsigned backend)
{
	return rig.backends[v6][proto == PROTO_UDP][backend].ref.slot;
}

/* Turns without the clock, until nothing is left to walk. */
static void turns(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		turn();
}

/* A whole walk, and what it does. */
static void walk(void)
{
	pass_ms(120);
}

/* One RST on each side: towards the backend in s[0], towards the client in s[1]. */
static void take_both(struct sent s[2])
{
	struct sent first;

	take_right(&first);
	take_right(&s[first.port == RIG_WAN ? 0 : 1]);
	s[first.port == RIG_WAN ? 1 : 0] = first;
	take_none();
}

/* --- the numbers --- */

static void check_both(bool v6, uint32_t backend_expects, uint32_t client_expects, uint32_t client_sent,
		       uint32_t backend_sent)
{
	struct sent s[2];

	dataplane_reap(rig.dp, slot_of(v6, PROTO_TCP, 0), &now_all);
	walk();
	take_both(s);
	check_rst(&s[0], RIG_LAN, TCP_RST | TCP_ACK, backend_expects, backend_sent);
	check_rst(&s[1], RIG_WAN, TCP_RST | TCP_ACK, client_expects, client_sent);
	assert_int_equal(did(ACTION_drain_rst), 1);
}

static void check_gone(void)
{
	assert_int_equal(n_flows(), 0);
}

/* D-3: what each side acknowledged last. */
static void test_idle(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = establish(v6, 3);
		exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 100));
		exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 101), 200));
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 101, PEER + 201));
		pass_ms(5000);
		check_both(v6, ISN + 101, PEER + 201, ISN + 101, PEER + 201);
		check_gone();
		stop();
	}
}

/* A client that lacks a part of the data says so, and is answered with the number that it expects: twice. */
static void check_asked_back(const struct talk *t)
{
	assert_int_equal(only_state(t->v6), FLOW_RESETTING);
	for (int i = 0; i < 2; i++) {
		struct sent s = exchange(RIG_WAN, from_client(t, TCP_ACK, ISN + 1, PEER + 101));

		check_rst(&s, RIG_WAN, TCP_RST, PEER + 101, 0);
	}
	refused(RIG_WAN, from_client(t, TCP_ACK, ISN + 1, PEER + 101), VERDICT_shed_reset_again);
	pass_ms(5500);
	take_none();
	check_gone();
}

/* Data that is under way is there before the RST; data that was lost long ago is not. */
static void test_busy(void **state)
{
	for (int lost = 0; lost < 2; lost++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = establish(false, 3);
		exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 200));
		if (lost)
			pass_ms(2000);
		check_both(false, ISN + 1, lost ? PEER + 1 : PEER + 201, ISN + 1, PEER + 201);
		check_asked_back(&t);
		stop();
	}
}

/* Neither side has said all that a RST needs to know of it. */
static void test_handshake(void **state)
{
	for (int answered = 0; answered < 2; answered++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_TCP, true, 3);
		if (answered)
			exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
		pass_ms(2000);
		/* A client in SYN-SENT looks at the acknowledgement alone. */
		check_both(true, ISN + 1, answered ? PEER + 1 : 0, ISN + 1, answered ? PEER + 1 : 0);
		check_gone();
		stop();
	}
}

static const uint8_t first_backend_mac[6] = {2, 0, 0, 0, 3, 1};

static void put_backend(bool v6, enum neighbour_state state)
{
	dataplane_neighbour_update(rig.dp, RIG_LAN, &rig.backends[v6][SET_TCP][0].addr, state, first_backend_mac);
}

/* There is no way to the backend: the client hears at once, the backend when there is, with the number it expects. */
static void told_later(bool v6, enum flow_state state)
{
	struct talk t;
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	t = state == FLOW_ESTABLISHED ? establish(v6, 3) : begin(PROTO_TCP, v6, 3);
	if (state == FLOW_SYN_RECV)
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	put_backend(v6, NEIGHBOUR_GONE);
	dataplane_reap(rig.dp, slot_of(v6, PROTO_TCP, 0), &now_all);
	walk();
	take_right(&s);
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, state == FLOW_SYN_SENT ? 0 : PEER + 1, ISN + 1);
	/* The order stands, and ends it but once. */
	pass_ms(3000);
	take_none();
	assert_int_equal(only_state(v6), FLOW_RESETTING);
	assert_int_equal(did(ACTION_drain_rst), 1);
	put_backend(v6, NEIGHBOUR_USABLE);
	pass_ms(1200);
	take_right(&s);
	check_rst(&s, RIG_LAN, TCP_RST | TCP_ACK, ISN + 1, state == FLOW_SYN_SENT ? 0 : PEER + 1);
	pass_ms(5500);
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(did(ACTION_drain_rst), 1);
	assert_int_equal(did(ACTION_rst_untold), 0);
	assert_int_equal(rig.worker->ledger.made[MADE_rst_drain], 1);
	assert_int_equal(rig.worker->ledger.made[MADE_rst_later], 1);
	stop();
}

static void test_told_later(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		told_later(v6, FLOW_SYN_SENT);
		told_later(v6, FLOW_SYN_RECV);
		told_later(v6, FLOW_ESTABLISHED);
	}
}

/* It never comes back: the slot is free all the same, and that somebody was not told is counted. */
static void test_untold(void **state)
{
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	establish(false, 3);
	put_backend(false, NEIGHBOUR_GONE);
	dataplane_reap_all(rig.dp, &(struct reap_order){.cause = REAP_STOP});
	walk();
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	pass_ms(11500);
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_true(dataplane_backend_unused(rig.dp, slot_of(false, PROTO_TCP, 0)));
	assert_int_equal(did(ACTION_rst_stop), 1);
	assert_int_equal(did(ACTION_rst_untold), 1);
	stop();
}

/* UDP has no RST, and who closed or was reset knows already. */
static void test_silent(void **state)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	begin(PROTO_UDP, false, 1);
	t = establish(false, 2);
	exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
	assert_int_equal(n_flows(), 2);
	dataplane_reap(rig.dp, slot_of(false, PROTO_UDP, 0), &now_all);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
	walk();
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(did(ACTION_drain_rst), 1); /* the UDP flow: it lived */
	stop();
}

/* --- which flows --- */

static void test_one_slot_only(void **state)
{
	unsigned of_first = 0;

	start((struct rig_config){.n_backends = 2});
	for (unsigned client = 0; client < 32; client++) {
		struct talk t = establish(false, client);

		of_first += ipaddr_equal(&t.backend, &rig.backends[SET_V4][SET_TCP][0].addr);
	}
	assert_in_range(of_first, 1, 31);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
	walk();
	assert_int_equal(take_all(), 2 * of_first);
	assert_int_equal(n_flows(), 32 - of_first);
	dataplane_reap_all(rig.dp, &(struct reap_order){.cause = REAP_STOP});
	walk();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(did(ACTION_rst_stop), 32 - of_first);
	take_all();
	stop();
}

static void test_cancel(void **state)
{
	start((struct rig_config){.n_backends = 1});
	establish(false, 1);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
	assert_int_equal(dataplane_reap_ordered(rig.dp, slot_of(false, PROTO_TCP, 0)), REAP_DRAIN);
	/* Not the order of another cause. */
	dataplane_reap_cancel(rig.dp, slot_of(false, PROTO_TCP, 0), REAP_STOP);
	assert_int_equal(dataplane_reap_ordered(rig.dp, slot_of(false, PROTO_TCP, 0)), REAP_DRAIN);
	dataplane_reap_cancel(rig.dp, slot_of(false, PROTO_TCP, 0), REAP_DRAIN);
	assert_int_equal(dataplane_reap_ordered(rig.dp, slot_of(false, PROTO_TCP, 0)), REAP_NONE);
	assert_int_equal(rig.dp->cells.reap.n_orders, 0);
	walk();
	take_none();
	assert_int_equal(n_flows(), 1);
	stop();
}

/* The slot's next owner has nothing to do with what was ordered for the one before. */
static void test_slot_reuse(void **state)
{
	uint32_t slot;

	start((struct rig_config){.n_backends = 1});
	slot = slot_of(false, PROTO_TCP, 0);
	establish(false, 1);
	dataplane_reap(rig.dp, slot, &now_all);
	walk();
	assert_int_equal(take_all(), 2);
	assert_true(dataplane_backend_unused(rig.dp, slot));
	dataplane_backend_reset(rig.dp, slot);
	assert_int_equal(rig.dp->cells.reap.n_orders, 0);
	establish(false, 2);
	walk();
	take_none();
	assert_int_equal(n_flows(), 1);
	stop();
}

static void test_min_age(void **state)
{
	start((struct rig_config){.n_backends = 1});
	establish(false, 1);
	pass_ms(10000);
	establish(false, 2);
	pass_ms(1000);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &(struct reap_order){.cause = REAP_DRAIN, .min_age_s = 5});
	/* The second one was young when it was ordered, and stays so. */
	pass_ms(60000);
	assert_int_equal(take_all(), 2);
	assert_int_equal(n_flows(), 1);
	stop();
}

/* Time in which the workers did not run is time all the same: the same for the flows' age and for the order's. */
static void test_min_age_over_a_stall(void **state)
{
	start((struct rig_config){.n_backends = 1});
	establish(false, 1);
	pass_ms(6000);
	establish(false, 2);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &(struct reap_order){.cause = REAP_DRAIN, .min_age_s = 5});
	rig.now_ns += 20000000000;
	walk();
	assert_int_equal(take_all(), 2);
	assert_int_equal(n_flows(), 1);
	stop();
}

/* Beyond what 32 bits of milliseconds hold, flows and orders alike. */
static void test_min_age_of_months(void **state)
{
	const uint64_t wrap_ms = UINT64_C(1) << 32;

	start((struct rig_config){.n_backends = 1});
	establish(false, 1);
	rig.now_ns += (wrap_ms + 1000) * 1000000;
	turn();
	establish(false, 2);
	dataplane_survey(rig.dp);
	turns(16);
	assert_int_equal(dataplane_oldest_ms(rig.dp, slot_of(false, PROTO_TCP, 0)), wrap_ms + 1000);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &(struct reap_order){.cause = REAP_DRAIN, .min_age_s = 5});
	pass_ms(200);
	assert_int_equal(take_all(), 2);
	assert_int_equal(n_flows(), 1);
	/* The second one was young when it was ordered, and stays so. */
	for (int half = 1; half <= 3; half++) {
		rig.now_ns += wrap_ms / 2 * 1000000;
		walk();
		walk();
		assert_int_equal(n_flows(), 1);
	}
	stop();
}

/* --- when --- */

/* Evenly over the spread: who is idle in its first half, the others in the second. */
static void test_spread(void **state)
{
	enum { N = 60, SPREAD_MS = 12000 };
	unsigned ended = 0;

	start((struct rig_config){.n_backends = 1, .flows_v4 = 3 * N});
	for (unsigned client = 0; client < 2 * N; client++) {
		struct talk t = establish(false, client);

		if (client >= N)
			exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 200));
	}
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0),
		       &(struct reap_order){.cause = REAP_DRAIN, .spread_ms = SPREAD_MS});
	for (unsigned quarter = 1; quarter <= 4; quarter++) {
		pass_ms(SPREAD_MS / 4);
		ended += take_all() / 2;
		assert_int_equal(did(ACTION_drain_rst), ended);
		assert_in_range(ended, quarter * N / 2 - N / 4, quarter * N / 2 + N / 4);
		if (quarter == 2)
			assert_in_range(ended, N - 2, N);
	}
	walk();
	ended += take_all() / 2;
	assert_int_equal(ended, 2 * N);
	pass_ms(5500);
	assert_int_equal(n_flows(), 0);
	stop();
}

static void test_budget_of_a_loop(void **state)
{
	enum { N = 600 };
	unsigned loops = 0, ended = 0;

	start((struct rig_config){.n_backends = 1, .flows_v4 = N * 2, .flows_v6 = 4096});
	for (unsigned client = 0; client < N; client++)
		establish(false, client);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
	do {
		uint64_t before = rig.worker->reaper.cursor;
		unsigned n;

		worker_run_once(rig.worker);
		n = take_all();
		assert_true(n <= 2 * ENDED_PER_LOOP);
		assert_true(rig.worker->reaper.cursor - before <= SCANNED_PER_LOOP);
		ended += n / 2;
		loops++;
	} while (rig.worker->reaper.walking);
	assert_int_equal(ended, N);
	assert_in_range(loops, N / ENDED_PER_LOOP + 4096 / SCANNED_PER_LOOP, 60);
	stop();
}

/* Traffic makes every loop long: a table is walked in its time all the same. */
static void test_budget_of_a_long_loop(void **state)
{
	enum { N = 100000 };
	static const struct {
		uint64_t loop_ns;
		unsigned least, most; /* loops */
	} cases[] = {{1500000, N / SCANNED_AT_MOST, 40}, {40000000, N / SCANNED_AT_MOST, N / SCANNED_AT_MOST + 3}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned loops = 0;

		start((struct rig_config){.n_backends = 1, .flows_v4 = N});
		dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
		do {
			uint64_t before = rig.worker->reaper.cursor;

			rig.now_ns += cases[i].loop_ns;
			worker_run_once(rig.worker);
			assert_true(rig.worker->reaper.cursor - before <= SCANNED_AT_MOST);
			loops++;
		} while (rig.worker->reaper.walking);
		assert_in_range(loops, cases[i].least, cases[i].most);
		stop();
	}
}

/* The whole gateway's limit on RSTs holds, whatever was ordered. */
static void test_rate(void **state)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		enum { N = 1800 };
		unsigned n = 0;
		uint64_t begin_ns;

		start((struct rig_config){.n_backends = 1, .n_workers = workers, .flows_v4 = 2 * N});
		for (unsigned client = 0; client < N; client++)
			establish(false, client);
		begin_ns = rig.now_ns;
		dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
		while (n_flows()) {
			uint64_t ms = (rig.now_ns - begin_ns) / 1000000;

			turns(4);
			n += take_all();
			assert_true(n <= RST_PER_S * ms / 1000 + BURST_RST + 2 * workers);
			rig.now_ns += 1000000;
		}
		assert_int_equal(n, 2 * N);
		/* Nor does it take much longer than the limit makes it; by halves of what the workers have each. */
		assert_in_range((rig.now_ns - begin_ns) / 1000000, 200, 400);
		/* And waiting for it is no work after which a worker would have to rest. */
		assert_true(rig.worker->reaper.next_ms <= rig.now_ns / 1000000 + 100);
		stop();
	}
}

/* --- modes --- */

static const struct order_case {
	enum reap_cause cause;
	enum cure cure;
	enum action action;
} order_cases[] = {
	{REAP_DRAIN, CURE_NAMES, ACTION_drain_rst},
	{REAP_STOP, CURE_SILENCE, ACTION_rst_stop},
};

#define N_CASES (sizeof(order_cases) / sizeof(order_cases[0]))

static void give(const struct order_case *c)
{
	const struct reap_order order = {.cause = c->cause};

	if (c->cause == REAP_STOP)
		dataplane_reap_all(rig.dp, &order);
	else
		dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &order);
}

static void test_modes(void **state)
{
	for (const struct order_case *c = order_cases; c < order_cases + N_CASES; c++) {
		struct policy shadow;

		start((struct rig_config){.n_backends = 1});
		shadow = rig.policy;
		shadow.number++;
		shadow.modes.of[c->cure] = CURE_SHADOW;
		establish(false, 1);
		dataplane_publish(rig.dp, &shadow);
		establish(false, 2);
		give(c);
		for (int i = 0; i < 5; i++)
			walk();
		take_none();
		/* Once per flow, however often it is looked at: one of shadow, and one that enforce began. */
		assert_int_equal(would(c->action), 2);
		assert_int_equal(did(c->action), 0);
		assert_int_equal(n_flows(), 2);
		/* A change of mode binds new flows: the second one is not ended. */
		rig.policy.number += 2;
		dataplane_publish(rig.dp, &rig.policy);
		walk();
		assert_int_equal(take_all(), 2);
		assert_int_equal(n_flows(), 1);
		assert_int_equal(did(c->action), 1);
		stop();
	}
}

/* The same flows: shadow counts those that enforce ends, UDP and half-open ones too, and sends nothing. */
static void test_would_is_did(void **state)
{
	for (const struct order_case *c = order_cases; c < order_cases + N_CASES; c++) {
		uint64_t n[CURE_ENFORCE + 1];

		for (enum cure_mode mode = CURE_OFF; mode <= CURE_ENFORCE; mode++) {
			struct talk t;

			start((struct rig_config){.n_backends = 1});
			rig.policy.modes.of[c->cure] = mode;
			for (unsigned client = 0; client < 10; client++)
				establish(false, client);
			begin(PROTO_TCP, false, 10);
			t = establish(false, 11);
			exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
			give(c);
			walk();
			assert_int_equal(take_all(), mode == CURE_ENFORCE ? 22 : 0);
			assert_int_equal(n_flows(), mode == CURE_ENFORCE ? 0 : 12);
			assert_int_equal(mode == CURE_SHADOW ? did(c->action) : would(c->action), 0);
			n[mode] = did(c->action) + would(c->action);
			stop();
		}
		assert_int_equal(n[CURE_OFF], 0);
		assert_int_equal(n[CURE_ENFORCE], 11);
		assert_int_equal(n[CURE_SHADOW], n[CURE_ENFORCE]);
	}
}

/* --- two workers --- */

/* E-4: each slot's flows are counted exactly while workers end them. */
static void test_two_workers(void **state)
{
	unsigned owned[2], sent = 0;
	struct backend_report r;

	start((struct rig_config){.n_backends = 1, .n_workers = 2, .flows_v4 = 256});
	for (unsigned client = 0; client < 100; client++)
		establish(false, client);
	for (unsigned i = 0; i < 2; i++)
		owned[i] = rig.dp->workers[i]->wheel.n_flows;
	assert_true(owned[0] > 10 && owned[1] > 10);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0),
		       &(struct reap_order){.cause = REAP_DRAIN, .spread_ms = 4000});
	while (n_flows()) {
		pass_ms(100);
		sent += take_all();
		observe_backend(rig.dp, slot_of(false, PROTO_TCP, 0), &r);
		assert_int_equal(r.flows, n_flows());
	}
	assert_int_equal(sent, 200);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(rig.dp->workers[i]->ledger.did[ACTION_drain_rst], owned[i]);
	stop();
}

static void test_survey(void **state)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		uint32_t slots[2];

		start((struct rig_config){.n_backends = 2, .n_workers = workers, .flows_v4 = 256});
		for (unsigned i = 0; i < 2; i++)
			slots[i] = slot_of(false, PROTO_TCP, i);
		assert_true(dataplane_survey_done(rig.dp));
		for (unsigned client = 0; client < 16; client++)
			establish(false, client);
		pass_ms(8000);
		establish(true, 1);
		pass_ms(2000);
		dataplane_survey(rig.dp);
		assert_false(dataplane_survey_done(rig.dp));
		turns(16);
		assert_true(dataplane_survey_done(rig.dp));
		assert_in_range(dataplane_oldest_ms(rig.dp, slots[0]), 10000, 10100);
		assert_in_range(dataplane_oldest_ms(rig.dp, slots[1]), 10000, 10100);
		assert_int_equal(dataplane_oldest_ms(rig.dp, slot_of(false, PROTO_UDP, 0)), 0);
		/* They end: the next one knows nothing of them. */
		dataplane_reap(rig.dp, slots[0], &now_all);
		walk();
		take_all();
		dataplane_survey(rig.dp);
		turns(16);
		assert_true(dataplane_survey_done(rig.dp));
		assert_int_equal(dataplane_oldest_ms(rig.dp, slots[0]), 0);
		assert_in_range(dataplane_oldest_ms(rig.dp, slots[1]), 10100, 10300);
		stop();
	}
}

/* Who sleeps is not left asleep over an order, and without one sleeps as long as ever. */
static void test_naps(void **state)
{
	start((struct rig_config){.n_backends = 1, .flows_v4 = 64, .flows_v6 = 64});
	turn();
	assert_false(reap_is_told(rig.worker));
	assert_int_equal(reap_nap_ms(rig.worker, 100), 100);
	establish(false, 1);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0),
		       &(struct reap_order){.cause = REAP_DRAIN, .spread_ms = 10000});
	assert_true(reap_is_told(rig.worker));
	turn();
	assert_false(reap_is_told(rig.worker));
	rig.now_ns += 40000000;
	turn();
	assert_in_range(reap_nap_ms(rig.worker, 100), 50, 60);
	dataplane_reap_cancel(rig.dp, slot_of(false, PROTO_TCP, 0), REAP_DRAIN);
	assert_int_equal(reap_nap_ms(rig.worker, 100), 100);
	stop();
}

/* Waits for real time: the workers run in threads of their own. */
static void wait_for(bool (*done)(void))
{
	for (int i = 0; i < 5000 && !done(); i++)
		usleep(1000);
	assert_true(done());
}

static uint64_t real_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* The rig's clock, running: `*arg` is how far ahead of the real one it is. */
static uint64_t running_ns(void *arg)
{
	return real_ns() + *(const uint64_t *)arg;
}

static bool no_flow(void)
{
	struct backend_report r;

	observe_backend(rig.dp, slot_of(false, PROTO_TCP, 0), &r);
	return r.flows == 0;
}

static bool surveyed(void)
{
	return dataplane_survey_done(rig.dp);
}

static void test_threads(void **state)
{
	uint64_t ahead_ns;

	start((struct rig_config){.n_backends = 2, .n_workers = 2, .flows_v4 = 256});
	for (unsigned client = 0; client < 200; client++)
		establish(false, client);
	pass_ms(3000);
	ahead_ns = rig.now_ns - real_ns();
	rig.dp->config.now_ns = running_ns;
	rig.dp->config.now_arg = &ahead_ns;
	rig.dp->config.idle = IDLE_SLEEP;
	assert_int_equal(dataplane_start(rig.dp), 0);
	dataplane_survey(rig.dp);
	wait_for(surveyed);
	assert_in_range(dataplane_oldest_ms(rig.dp, slot_of(false, PROTO_TCP, 0)), 3000, 8100);
	dataplane_reap(rig.dp, slot_of(false, PROTO_TCP, 0), &now_all);
	wait_for(no_flow);
	dataplane_reap_cancel(rig.dp, slot_of(false, PROTO_TCP, 0), REAP_DRAIN);
	assert_true(dataplane_backend_unused(rig.dp, slot_of(false, PROTO_TCP, 0)));
	dataplane_backend_reset(rig.dp, slot_of(false, PROTO_TCP, 0));
	dataplane_stop(rig.dp);
	assert_int_equal(take_all(), 2 * did(ACTION_drain_rst));
	assert_int_equal(n_flows(), 200 - did(ACTION_drain_rst));
	assert_in_range(n_flows(), 50, 150);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_silent),
		cmocka_unit_test(test_told_later),
		cmocka_unit_test(test_untold),
		cmocka_unit_test(test_one_slot_only),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_slot_reuse),
		cmocka_unit_test(test_min_age),
		cmocka_unit_test(test_min_age_over_a_stall),
		cmocka_unit_test(test_min_age_of_months),
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_budget_of_a_loop),
		cmocka_unit_test(test_budget_of_a_long_loop),
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_would_is_did),
		cmocka_unit_test(test_two_workers),
		cmocka_unit_test(test_survey),
		cmocka_unit_test(test_naps),
		cmocka_unit_test(test_threads),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
