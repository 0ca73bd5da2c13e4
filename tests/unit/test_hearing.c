/* SPDX-License-Identifier: BSD-3-Clause */
/* Nobody is blamed for silence while the gateway did not hear, or could not ask. */
#include "ends.h"

#include "hearing.h"
#include "silence.h"
#include "streak.h"

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

/* Until both ends were asked three times, and one of them answered each time. */
static void until_silent(enum flow_dir dead)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	answer_probe(!dead);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(!dead);
}

/* --- rings that are never empty --- */

/* Of no flow of ours: more than a turn reads, always. */
static void flood(enum rig_port port, unsigned queue, unsigned n)
{
	struct frame_spec stray = {
		.proto = PROTO_UDP, .src = rig_client(1, false), .dst = rig_client(2, false), .sport_be = htons(7)};
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(&stray, frame);

	while (n--)
		feed_raw(port, queue, frame, len);
}

/* The rings are empty, too. */
static void stop_flooded(void)
{
	for (int i = 0; i < MEMPORT_ROOM / 128 + 1; i++)
		turn();
	stop();
}

/* `ms` of it. Returns how many RSTs left; all else must be probes. */
static unsigned flooded_ms(enum rig_port port, unsigned queue, uint64_t ms)
{
	unsigned rsts = 0;

	for (uint64_t at = 0; at < ms; at += STEP_NS / 1000000) {
		rig.now_ns += STEP_NS;
		for (unsigned i = 0; i < n_workers; i++)
			worker_run_once(rig.dp->workers[i]);
		flood(port, queue, 128);
		for (struct sent s; take(&s);) {
			assert_true(s.p.tcp_flags == TCP_ACK || s.p.tcp_flags == (TCP_RST | TCP_ACK));
			rsts += !!(s.p.tcp_flags & TCP_RST);
		}
	}
	return rsts;
}

/* Silence is silence all the same, whichever port and worker are flooded. */
static void dead_in_a_flood(enum rig_port port, unsigned workers, unsigned queue)
{
	begin_rig((struct rig_config){.n_workers = workers});
	handshake(false, ISN, PEER, true);
	converse();
	flood(port, queue, 300);
	assert_int_equal(flooded_ms(port, queue, PROBE_MS * 11 / 10 + 3 * PROBE_EVERY_MS + 3000), 2);
	assert_int_equal(did(ACTION_rst_peer_dead), 1);
	stop_flooded();
	/* And so is idling. */
	begin_rig((struct rig_config){.n_workers = workers});
	rig.service.timeouts.established_ms = 30000;
	rig.service.timeouts.probe_ms = 0;
	handshake(false, ISN, PEER, true);
	converse();
	flood(port, queue, 300);
	assert_int_equal(flooded_ms(port, queue, 33000), 2);
	assert_int_equal(did(ACTION_rst_idle), 1);
	stop_flooded();
}

static void test_dead_in_a_flood(void **state)
{
	for (enum rig_port port = 0; port < RIG_PORTS; port++) {
		dead_in_a_flood(port, 1, 0);
		dead_in_a_flood(port, 2, 0);
		dead_in_a_flood(port, 2, 1);
	}
}

/*
 * The answer lies as deep in the ring as can be `early_ms` before it is due, and the ring is never empty behind it: it
 * is read first. False: too late, it was due already.
 */
static bool answer_in_a_flood(unsigned early_ms)
{
	const struct flow_table *flows;
	bool late;

	until_silent(DIR_DOWN);
	pass_ms(PROBE_EVERY_MS - early_ms);
	flows = &rig.worker->flows;
	late = flow_track(flows, flow_ref_make(false, flows->pool4.free[0], DIR_UP))->look_ms <= rig.worker->run_ms;
	if (!late) {
		take_none();
		flood(RIG_LAN, 0, MEMPORT_ROOM - 1);
		feed_next(DIR_DOWN, TCP_ACK, 0);
		assert_int_equal(flooded_ms(RIG_LAN, 0, STEP_NS / 1000000 * MEMPORT_ROOM / 128), 0);
		assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 2);
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	}
	stop_flooded();
	return !late;
}

static void test_answer_in_a_flood(void **state)
{
	unsigned early_ms = 400;

	while (answer_in_a_flood(early_ms))
		early_ms -= 20;
	assert_in_range(early_ms, 1, 200);
}

/* --- frames that were lost --- */

/* One for all workers a hundredth of a second; each port for itself. */
static void test_devices_are_asked_rarely(void **state)
{
	struct worker *w[2];

	begin_rig((struct rig_config){.n_workers = 2});
	for (int i = 0; i < 2; i++)
		w[i] = rig.dp->workers[i];
	turn();
	hearing_ask(w[0]);
	memport_lose(rig.ports[RIG_LAN], 1, RX_KNOWN, 1);
	for (int ms = 0; ms < 10; ms++) {
		for (int i = 0; i < 2; i++)
			assert_false(hearing_lost_lately(w[i], RIG_LAN, 1000));
		rig.now_ns += 1000000;
		turn();
	}
	/* Whoever asks, the other one hears of it; also one whose clock is a loop behind. */
	assert_true(hearing_lost_lately(w[1], RIG_LAN, 1000));
	w[0]->now_ns -= 1000000;
	assert_true(hearing_lost_lately(w[0], RIG_LAN, 1000));
	assert_true(hearing_lost_lately(w[0], RIG_LAN, 1));
	w[0]->now_ns += 1000000;
	assert_false(hearing_lost_lately(w[0], RIG_WAN, 1000));
	pass_ms(999);
	assert_true(hearing_lost_lately(w[0], RIG_LAN, 1000));
	pass_ms(1);
	assert_false(hearing_lost_lately(w[0], RIG_LAN, 1000));
	stop();
}

/* Frames are lost all the time; how often is the silent end asked once more? */
static void lossy(enum flow_dir dead, enum rig_port port, enum rx_class class, unsigned more)
{
	unsigned asked = 0, rsts = 0;

	until_silent(dead);
	for (int ms = 0; ms < 5 * PROBE_EVERY_MS && !rsts; ms += 40) {
		memport_lose(rig.ports[port], 0, class, 1);
		pass_ms(40);
		for (struct sent s; take(&s);) {
			asked += s.p.tcp_flags == TCP_ACK;
			rsts += s.p.tcp_flags == (TCP_RST | TCP_ACK);
		}
	}
	assert_int_equal(asked, more);
	assert_int_equal(rsts, 2);
	stop();
}

/* Only where the answer would have come, and not for ever. */
static void test_lossy_ports(void **state)
{
	lossy(DIR_DOWN, RIG_LAN, RX_KNOWN, 3);
	lossy(DIR_DOWN, RIG_LAN, RX_NEW, 0);
	lossy(DIR_DOWN, RIG_WAN, RX_KNOWN, 0);
	lossy(DIR_UP, RIG_WAN, RX_KNOWN, 3);
	lossy(DIR_UP, RIG_LAN, RX_KNOWN, 0);
}

/* The backend's whole side is silent: its own silence says nothing for five minutes more, the client's does. */
static void test_side_down(void **state)
{
	struct sent s;

	for (enum flow_dir dead = DIR_UP; dead < DIRS; dead++) {
		unsigned asked = 0;

		until_silent(dead);
		rig.dp->cells.backends[0].breaker = streak_word(&(struct streak){.side_down = true});
		for (int ms = 0; dead == DIR_DOWN && ms < 31 * PROBE_EVERY_MS - 1000; ms += 40) {
			pass_ms(40);
			while (take(&s)) {
				assert_int_equal(s.p.tcp_flags, TCP_ACK);
				asked++;
			}
		}
		assert_int_equal(asked, dead == DIR_DOWN ? 30 : 0);
		await_made(PROBE_EVERY_MS + 300);
		check_resets();
		stop();
	}
	/* It is back in time. */
	until_silent(DIR_DOWN);
	rig.dp->cells.backends[0].breaker = streak_word(&(struct streak){.side_down = true});
	await_one_probe(DIR_UP);
	answer_probe(DIR_DOWN);
	pass_ms(PROBE_MS / 2);
	take_none();
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	stop();
}

/* --- other workers --- */

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
		cmocka_unit_test(test_dead_in_a_flood),
		cmocka_unit_test(test_answer_in_a_flood),
		cmocka_unit_test(test_devices_are_asked_rarely),
		cmocka_unit_test(test_lossy_ports),
		cmocka_unit_test(test_side_down),
		cmocka_unit_test(test_other_worker_hangs),
		cmocka_unit_test(test_answer_lost_between_workers),
		cmocka_unit_test(test_no_way),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
