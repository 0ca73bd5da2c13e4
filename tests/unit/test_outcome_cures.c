/* SPDX-License-Identifier: BSD-3-Clause */
/* What the cures do to a client is an outcome of it, as often as it is counted; what they would do, too. */
#include "outcome_talk.h"
#include "wall_talk.h"

#include "dataplane.h"
#include "reap.h"
#include "storm.h"

#include <netinet/in.h>

#define SECOND 1000000000ull

static const enum cure_mode modes[] = {CURE_ENFORCE, CURE_SHADOW, CURE_OFF};

static void begin_as(enum cure cure, enum cure_mode mode, unsigned workers, unsigned n_backends)
{
	begin_rig(workers, n_backends);
	rig.policy.modes.of[cure] = mode;
}

/* Only that client had to do with the cure: its outcomes and the ledger are one. */
static void check_counted(const struct client_row *row, enum action a)
{
	assert_int_equal(count_of(row, OUTCOME_ACTION(a)), did(a));
	assert_int_equal(count_of(row, OUTCOME_WOULD(a)), would(a));
}

static const struct outcome_row *outcome_of(const struct client_row *row, outcome_reason reason)
{
	for (unsigned i = 0; i < row->n; i++)
		if (row->outcomes[i].reason == reason)
			return &row->outcomes[i];
	return NULL;
}

/* --- wall --- */

/* The outcome names the backend that failed; the port towards it names the client, too. */
static void resteered(bool v6, enum cure_mode mode)
{
	struct ipaddr addr = rig_client(3, v6);
	const struct outcome_row *moved_on;
	struct ended_row ended[2];
	struct client_row row;
	uint64_t since_ns;
	struct talk t;

	begin_as(CURE_WALL, mode, 1, N_BACKENDS);
	t = begin(PROTO_TCP, v6, 3);
	if (mode == CURE_ENFORCE) {
		struct talk now = refuse(&t);

		finish(&now);
		assert_int_equal(observe_ended(rig.dp, &t.snat, t.snat_port_be, ended, 2, &since_ns), 1);
		assert_true(ipaddr_equal(&ended[0].client, &addr));
		assert_int_equal(ended[0].backend_slot, slot_of(v6, &t.backend));
	} else {
		exchange(RIG_LAN, refusal(&t));
		assert_int_equal(observe_ended(rig.dp, &t.snat, t.snat_port_be, ended, 2, &since_ns), 0);
	}
	row = client(&addr);
	check_counted(&row, ACTION_resteer);
	assert_int_equal(did(ACTION_resteer), mode == CURE_ENFORCE);
	assert_int_equal(would(ACTION_resteer), mode == CURE_SHADOW);
	assert_int_equal(row.counts[OUTCOME_RESTEERED], mode == CURE_ENFORCE);
	assert_int_equal(row.counts[OUTCOME_CONNECTED], mode == CURE_ENFORCE);
	assert_int_equal(row.counts[OUTCOME_REFUSED], mode != CURE_ENFORCE);
	moved_on = outcome_of(&row, mode == CURE_ENFORCE ? OUTCOME_ACTION(ACTION_resteer)
							 : OUTCOME_ATTEMPT(ATTEMPT_refused_by_backend));
	assert_non_null(moved_on);
	assert_int_equal(moved_on->backend_slot, slot_of(v6, &t.backend));
	/* What was absorbed is nothing that the client met. */
	assert_null(outcome_of(&row, OUTCOME_VERDICT(VERDICT_absorb_refusal)));
	stop();
}

static void test_resteered(void **state)
{
	for (unsigned m = 0; m < 3; m++) {
		resteered(false, modes[m]);
		resteered(true, modes[m]);
	}
}

static void test_silent_backend(void **state)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;
	struct talk t, now;
	struct sent s;

	begin_as(CURE_WALL, CURE_ENFORCE, 1, N_BACKENDS);
	t = begin(PROTO_TCP, false, 3);
	assert_in_range(ms_until_sent(&s, 3000), 200, 1500);
	now = moved(&t, &s);
	row = client(&addr);
	assert_int_equal(count_of(&row, OUTCOME_ACTION(ACTION_resteer)), 1);
	/* Nobody answers there either: then the attempt has failed. */
	pass_ms(20000);
	take_all();
	row = client(&addr);
	check_counted(&row, ACTION_resteer);
	assert_int_equal(count_of(&row, OUTCOME_ATTEMPT(ATTEMPT_unanswered)), 1);
	assert_int_equal(outcome_of(&row, OUTCOME_ATTEMPT(ATTEMPT_unanswered))->backend_slot,
			 slot_of(false, &now.backend));
	stop();
}

static void divert(enum cure_mode mode)
{
	struct ipaddr backend, addr;
	struct client_row row;
	unsigned number = 0;
	struct talk t;

	begin_as(CURE_WALL, mode, 1, N_BACKENDS);
	backend = rig.backends[0][SET_TCP][0].addr;
	set_breaker(false, 0, BREAKER_OPEN);
	t = begin_to(&backend, false, &number);
	addr = rig_client(t.client, false);
	assert_int_equal(ipaddr_equal(&t.backend, &backend), mode != CURE_ENFORCE);
	row = client(&addr);
	check_counted(&row, ACTION_divert);
	assert_int_equal(row.n, mode != CURE_OFF);
	if (row.n)
		assert_int_equal(row.outcomes[0].backend_slot, slot_of(false, &backend));
	stop();
}

static void test_divert(void **state)
{
	for (unsigned m = 0; m < 3; m++)
		divert(modes[m]);
}

static void all_open(enum cure_mode mode)
{
	struct ipaddr addr = rig_client(7, false);
	struct talk t = {.proto = PROTO_TCP, .client = 7};
	struct client_row row;

	begin_as(CURE_WALL, mode, 1, N_BACKENDS);
	for (unsigned i = 0; i < N_BACKENDS; i++)
		set_breaker(false, i, BREAKER_OPEN);
	rig.dp->cells.services[0].last_resort_ns = rig.now_ns;
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	row = client(&addr);
	assert_int_equal(row.n, mode != CURE_OFF);
	assert_int_equal(count_of(&row, OUTCOME_VERDICT(VERDICT_answer_wall_open)), did(ACTION_refuse_open));
	assert_int_equal(count_of(&row, OUTCOME_WOULD(ACTION_refuse_open)), would(ACTION_refuse_open));
	assert_int_equal(row.counts[OUTCOME_REFUSED], mode == CURE_ENFORCE);
	stop();
}

static void test_all_open(void **state)
{
	for (unsigned m = 0; m < 3; m++)
		all_open(modes[m]);
}

/* --- storm --- */

/* Every rung of the ladder, for one client that comes far too often. */
static void storm(enum cure_mode mode, enum storm_cap cap, uint64_t hold_ns, unsigned workers, bool v6)
{
	struct ipaddr addr = rig_client(1, v6);
	struct talk t = {.v6 = v6, .proto = PROTO_TCP};
	struct client_row row;

	begin_as(CURE_STORM, mode, workers, 1);
	rig.service.storm.hold_ns = hold_ns;
	assert_int_equal(gcra_rate_init(&rig.service.storm.caps[cap], 2, SECOND, 1), 0);
	for (unsigned i = 0; i < 20; i++) {
		t.client = 1 + (i << 16);
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		turn();
		pass_ms(40);
	}
	pass_ms(3000);
	take_all();
	row = client(&addr);
	check_counted(&row, ACTION_hold_client + cap);
	assert_int_equal(count_of(&row, OUTCOME_WOULD(ACTION_refuse_client + cap)), would(ACTION_refuse_client + cap));
	assert_int_equal(count_of(&row, OUTCOME_WOULD(ACTION_silence_client + cap)),
			 would(ACTION_silence_client + cap));
	assert_int_equal(count_of(&row, OUTCOME_VERDICT(VERDICT_answer_storm_client + cap)),
			 did(ACTION_refuse_client + cap));
	assert_int_equal(count_of(&row, OUTCOME_VERDICT(VERDICT_shed_storm_client + cap)),
			 did(ACTION_silence_client + cap));
	assert_int_equal(row.counts[OUTCOME_REFUSED], did(ACTION_refuse_client + cap));
	assert_int_equal(row.counts[OUTCOME_SILENT],
			 did(ACTION_silence_client + cap) + count_of(&row, OUTCOME_ATTEMPT(ATTEMPT_unanswered)));
	if (mode != CURE_OFF)
		assert_true(did(ACTION_silence_client + cap) + would(ACTION_silence_client + cap) > 0);
	assert_int_equal(did(ACTION_hold_client + cap) + would(ACTION_hold_client + cap) > 0,
			 hold_ns && mode != CURE_OFF);
	stop();
}

static void test_storm(void **state)
{
	for (unsigned m = 0; m < 3; m++)
		for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++)
			for (int v6 = 0; v6 < 2; v6++) {
				storm(modes[m], cap, 0, 1, v6);
				storm(modes[m], cap, SECOND * 9 / 10, 1 + v6, v6);
			}
}

/* --- silence --- */

/* Asked three times, then told; in shadow only counted. */
static void silence(enum cure_mode mode)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;

	begin_as(CURE_SILENCE, mode, 1, 1);
	rig.service.timeouts.probe_ms = 20000;
	rig.service.timeouts.established_ms = 50000;
	establish(false, 3);
	pass_ms(65000);
	take_all();
	row = client(&addr);
	check_counted(&row, ACTION_keepalive);
	check_counted(&row, ACTION_rst_peer_dead);
	check_counted(&row, ACTION_rst_idle);
	assert_int_equal(did(ACTION_keepalive) > 0, mode == CURE_ENFORCE);
	assert_int_equal(would(ACTION_keepalive) > 0, mode == CURE_SHADOW);
	assert_int_equal(row.counts[OUTCOME_RESET], mode == CURE_ENFORCE);
	assert_int_equal(row.counts[OUTCOME_CONNECTED], 1);
	stop();
}

static void test_silence(void **state)
{
	for (unsigned m = 0; m < 3; m++)
		silence(modes[m]);
}

/* Whoever has connections to many backends does not forget for them what went wrong. */
static void test_keepalive_is_one_kind(void **state)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;
	struct talk t;

	begin_rig(1, 16);
	rig.service.timeouts.probe_ms = 20000;
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	t = begin(PROTO_TCP, false, 3);
	exchange(RIG_LAN, refusal(&t));
	for (unsigned i = 1; i < 40; i++)
		establish(false, 3 + (i << 16));
	pass_ms(25000);
	take_all();
	row = client(&addr);
	check_counted(&row, ACTION_keepalive);
	assert_true(did(ACTION_keepalive) >= 78);
	assert_int_equal(row.n, 3);
	assert_int_equal(count_of(&row, OUTCOME_ATTEMPT(ATTEMPT_refused_by_backend)), 1);
	stop();
}

/* What was for the gateway itself is nothing that a client met. */
static void test_absorbed(void **state)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;
	struct talk t;

	begin_rig(1, 1);
	rig.service.timeouts.probe_ms = 20000;
	t = establish(false, 3);
	pass_ms(23000);
	assert_int_equal(take_all(), 2);
	refused(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), VERDICT_absorb_probe_answer);
	row = client(&addr);
	assert_int_equal(row.n, 2);
	assert_null(outcome_of(&row, OUTCOME_VERDICT(VERDICT_absorb_probe_answer)));
	stop();
}

/* A forged RST is told by the cure; its verdict says no more. */
static void forged(enum cure_mode mode)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;
	struct talk t;

	begin_as(CURE_SILENCE, mode, 1, 1);
	t = establish(false, 3);
	feed(RIG_LAN, from_backend(&t, TCP_RST, PEER + 0x10000000, 0));
	turn();
	assert_int_equal(take_all(), mode != CURE_ENFORCE);
	row = client(&addr);
	check_counted(&row, ACTION_refuse_rst);
	assert_int_equal(row.n, 1 + (mode != CURE_OFF));
	stop();
}

static void test_forged(void **state)
{
	for (unsigned m = 0; m < 3; m++)
		forged(modes[m]);
}

/* --- names --- */

static void drain(enum cure_mode mode, uint8_t proto)
{
	struct ipaddr addr = rig_client(3, false);
	bool udp = proto == PROTO_UDP;
	struct client_row row;
	struct talk t;

	begin_as(CURE_NAMES, mode, 1, 1);
	if (udp) {
		t = begin(PROTO_UDP, false, 3);
		exchange(RIG_LAN, from_backend(&t, 0, 0, 0));
	} else {
		t = establish(false, 3);
	}
	dataplane_reap(rig.dp, rig.backends[0][udp][0].ref.slot, &(struct reap_order){.cause = REAP_DRAIN});
	pass_ms(300);
	take_all();
	row = client(&addr);
	check_counted(&row, ACTION_drain_rst);
	assert_int_equal(did(ACTION_drain_rst), mode == CURE_ENFORCE);
	assert_int_equal(would(ACTION_drain_rst), mode == CURE_SHADOW);
	/* UDP ends without a word. */
	assert_int_equal(row.counts[OUTCOME_RESET], mode == CURE_ENFORCE && !udp);
	assert_int_equal(n_flows(), mode != CURE_ENFORCE);
	stop();
}

static void test_drain(void **state)
{
	for (unsigned m = 0; m < 3; m++) {
		drain(modes[m], PROTO_TCP);
		drain(modes[m], PROTO_UDP);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resteered), cmocka_unit_test(test_silent_backend),
		cmocka_unit_test(test_divert),    cmocka_unit_test(test_all_open),
		cmocka_unit_test(test_storm),     cmocka_unit_test(test_silence),
		cmocka_unit_test(test_forged),    cmocka_unit_test(test_keepalive_is_one_kind),
		cmocka_unit_test(test_drain),     cmocka_unit_test(test_absorbed),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
