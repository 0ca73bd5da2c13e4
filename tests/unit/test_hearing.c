/* SPDX-License-Identifier: BSD-3-Clause */
/* Nobody is blamed for silence while the gateway did not hear, or could not ask. */
#include "ends.h"

#include "silence.h"

#include <netinet/in.h>

/* The worker did not run; the answer waits in the ring. */
static void test_stall(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	pass_ms(PROBE_EVERY_MS - 400);
	feed_next(DIR_DOWN, TCP_ACK, 0);
	rig.now_ns += 3600 * 1000000000ull;
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 2);
	pass_ms(PROBE_MS / 2);
	take_none();
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	stop();
}

/* The ring holds more than a turn reads, the answer behind all of it, when the time is over. */
static void test_answer_deep_in_the_ring(void **state)
{
	struct frame_spec stray = {.proto = PROTO_UDP, .src = rig_client(1, false), .dst = rig_client(2, false)};

	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	pass_ms(PROBE_EVERY_MS - 200);
	for (int i = 0; i < 1000; i++)
		feed(RIG_LAN, stray);
	feed_next(DIR_DOWN, TCP_ACK, 0);
	/* 128 of them at a time, and just not slow enough to be a stall. */
	for (int i = 0; i < 12; i++) {
		rig.now_ns += 49000000;
		turn();
	}
	take_none();
	assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 2);
	assert_int_equal(did(ACTION_rst_peer_dead), 0);
	stop();
}

static struct worker *owner(void)
{
	return rig.dp->workers[rig.dp->workers[0]->wheel.n_flows ? 0 : 1];
}

/* The answer came to another worker, which hangs. It hangs for a minute, and nobody dies of it. */
static void test_other_worker_hangs(void **state)
{
	uint8_t frame[FRAME_MAX], options[12] = {1, 1, 8, 10};
	struct worker *mine, *other;

	begin_rig((struct rig_config){.n_workers = 2});
	handshake(false, ISN, PEER, true);
	converse();
	mine = owner();
	other = rig.dp->workers[mine == rig.dp->workers[0]];
	await_probes();
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	put32(options + 4, ++ends[DIR_DOWN].tsval);
	feed_raw(RIG_LAN, other->index, frame,
		 make_frame(frame, spec_of(DIR_DOWN, TCP_ACK, ends[DIR_DOWN].next, ends[DIR_UP].next),
			    ends[DIR_DOWN].window, options, 12));
	for (int i = 0; i < 1500; i++) {
		rig.now_ns += STEP_NS;
		worker_run_once(mine);
	}
	take_none();
	assert_int_equal(did(ACTION_rst_peer_dead), 0);
	turn();
	turn();
	assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 2);
	pass_ms(PROBE_MS / 2);
	take_none();
	/* And a dead peer is found as soon as with one worker. */
	await_made(LATE_MS);
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	await_made(PROBE_EVERY_MS + 300);
	check_resets();
	stop();
}

/*
 * The answer came to another worker, which found no room in our ring for it: asked once more. The second time there is
 * nothing to be said for the silent one.
 */
static void test_answer_lost_between_workers(void **state)
{
	struct frame_spec stray = {.proto = PROTO_UDP};
	uint8_t frame[FRAME_MAX];
	struct worker *mine, *other;
	struct sent s;

	begin_rig((struct rig_config){.n_workers = 2});
	handshake(false, ISN, PEER, true);
	converse();
	mine = owner();
	other = rig.dp->workers[mine == rig.dp->workers[0]];
	await_probes();
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	/* To a port that is ours as well, and of no flow. */
	stray.src = talk.backend;
	stray.dst = talk.snat;
	stray.sport_be = htons(9);
	stray.dport_be = talk.snat_port_be ^ htons(1);
	for (int i = 0; verdicts(VERDICT_drop_handover_full) == 0; i++) {
		assert_true(i < 10000);
		feed_raw(RIG_LAN, other->index, frame, frame_make(&stray, frame));
		worker_run_once(other);
	}
	pass_ms(PROBE_EVERY_MS - 300);
	take_none();
	for (int i = 0; !take(&s); i++) {
		assert_true(i < 30);
		pass_ms(40);
	}
	check_probe(&s, DIR_UP);
	take_none();
	await_made(PROBE_EVERY_MS + 600);
	check_resets();
	stop();
}

/* Who cannot be asked is not silent. */
static void test_no_way(void **state)
{
	struct sent s;

	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	pass_ms(3 * LATE_MS);
	take_none();
	assert_int_equal(did(ACTION_keepalive), 0);
	dataplane_port_set_link(rig.dp, RIG_LAN, true, 1500);
	await_made(1300);
	check_probes();
	/* It goes away between the first question and the next. */
	answer_probe(DIR_UP);
	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	pass_ms(10 * PROBE_EVERY_MS);
	take_none();
	assert_int_equal(did(ACTION_rst_peer_dead), 0);
	dataplane_port_set_link(rig.dp, RIG_LAN, true, 1500);
	for (int i = 0; !take(&s); i++) {
		assert_true(i * 40 < PROBE_EVERY_MS + 300);
		pass_ms(40);
	}
	take_none();
	check_probe(&s, DIR_UP);
	answer_probe(DIR_DOWN);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stall),
		cmocka_unit_test(test_answer_deep_in_the_ring),
		cmocka_unit_test(test_other_worker_hangs),
		cmocka_unit_test(test_answer_lost_between_workers),
		cmocka_unit_test(test_no_way),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
