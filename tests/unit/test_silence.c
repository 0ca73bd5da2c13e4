/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections that say nothing: asked, heard, or ended, on a clock of the test's own. */
#include "ends.h"

#include "silence.h"

#include <netinet/in.h>
#include <string.h>

/* --- both answer --- */

static void lives_on(bool v6, bool with_timestamps, uint32_t isn, uint32_t peer)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.established_ms = 3 * PROBE_MS;
	handshake(v6, isn, peer, with_timestamps);
	converse();
	/* Longer than a connection may idle that nobody asks. */
	for (int i = 0; i < 6; i++) {
		await_probes();
		answer_probe(i % 2);
		pass_ms(40);
		answer_probe(!(i % 2));
	}
	assert_int_equal(did(ACTION_keepalive), 12);
	assert_int_equal(rig.worker->ledger.made[MADE_keepalive], 12);
	assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
	/* And no number moved. */
	converse();
	assert_int_equal(rig.worker->out_of_window, 0);
	assert_in_range(backend().idle_survived_ms, PROBE_MS - PROBE_MS / 10, PROBE_MS + PROBE_MS / 10);
	assert_int_equal(backend().idle_lost_ms, 0);
	stop();
}

static void test_both_answer(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		lives_on(v6, true, ISN, PEER);
		lives_on(v6, false, ISN, PEER);
	}
}

/* Numbers that wrap within the first words, and right at the probe. */
static void test_wrap(void **state)
{
	lives_on(false, true, UINT32_MAX - 50, UINT32_MAX - 150);
	lives_on(false, false, UINT32_MAX - 101, UINT32_MAX - 201);
	lives_on(true, true, UINT32_MAX - 100, UINT32_MAX - 200);
}

/* One side sent FIN and may hear for hours: that is a connection, too. */
static void test_half_closed(void **state)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.fin_wait_ms = 3 * PROBE_MS;
	handshake(false, ISN, PEER, true);
	say(DIR_UP, TCP_ACK | TCP_FIN, 0);
	say(DIR_DOWN, TCP_ACK, 0);
	for (int i = 0; i < 5; i++) {
		await_probes();
		answer_probe(DIR_UP);
		answer_probe(DIR_DOWN);
	}
	assert_int_equal(only_state(false), FLOW_FIN_WAIT);
	say(DIR_DOWN, TCP_ACK | TCP_FIN, 10);
	say(DIR_UP, TCP_ACK, 0);
	assert_int_equal(only_state(false), FLOW_TIME_WAIT);
	stop();
}

/* --- where timestamps stand --- */

static void check_tsval(const uint8_t *options, unsigned len, uint32_t expected)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	feed_options(DIR_UP, with_payload(spec_of(DIR_UP, TCP_ACK, ends[DIR_UP].next, ends[DIR_DOWN].next), 10),
		     options, len);
	ends[DIR_UP].next += 10;
	passes(DIR_UP);
	say(DIR_DOWN, TCP_ACK, 0);
	ends[DIR_UP].tsval = expected;
	await_probes();
	stop();
}

static void test_timestamp_layouts(void **state)
{
	static const uint8_t bare[] = {8, 10, 0, 0, 5, 0, 9, 9, 9, 9, 1, 1};
	static const uint8_t behind_sack[] = {1, 1, 5, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 8, 10, 0, 0, 6, 0, 9, 9, 9, 9};
	static const uint8_t at_the_end[] = {1, 1, 1, 1, 1, 1, 8, 10, 0, 0, 7, 0, 9, 9, 9, 9};
	static const uint8_t older[] = {1, 1, 8, 10, 0xff, 0xff, 0xff, 0xf0, 9, 9, 9, 9};
	static const uint8_t behind_the_end[] = {0, 0, 8, 10, 0, 0, 5, 0, 9, 9, 9, 9};
	static const uint8_t cut[] = {1, 1, 1, 1, 8, 10, 0, 0};
	static const uint8_t wrong_length[] = {1, 1, 8, 9, 0, 0, 5, 0, 9, 9, 9, 9};
	static const uint8_t no_length[] = {77, 0, 8, 10, 0, 0, 5, 0, 9, 9, 9, 9};
	static const uint8_t last_byte[] = {1, 1, 1, 8};
	const uint32_t kept = 0xfffffff0 + 50;

	check_tsval(bare, sizeof(bare), 0x500);
	check_tsval(behind_sack, sizeof(behind_sack), 0x600);
	check_tsval(at_the_end, sizeof(at_the_end), 0x700);
	check_tsval(older, sizeof(older), kept);
	check_tsval(behind_the_end, sizeof(behind_the_end), kept);
	check_tsval(cut, sizeof(cut), kept);
	check_tsval(wrong_length, sizeof(wrong_length), kept);
	check_tsval(no_length, sizeof(no_length), kept);
	check_tsval(last_byte, sizeof(last_byte), kept);
	check_tsval(NULL, 0, kept);
}

/* Agreed on is what both say; what one alone says is not. */
static void test_timestamps_of_one(void **state)
{
	static const uint8_t options[] = {1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0};

	for (int by = 0; by < DIRS; by++) {
		struct sent s;

		begin_rig((struct rig_config){0});
		talk = (struct talk){.proto = PROTO_TCP, .client = 5};
		ends[DIR_UP] = (struct end){.next = ISN + 1, .window = 5000};
		ends[DIR_DOWN] = (struct end){.next = PEER + 1, .window = 6000};
		timestamps = false;
		feed_options(DIR_UP, from_client(&talk, TCP_SYN, ISN, 0), options, by == DIR_UP ? 12 : 0);
		s = passes(DIR_UP);
		learn(&talk, &s);
		feed_options(DIR_DOWN, from_backend(&talk, TCP_SYN | TCP_ACK, PEER, ISN + 1), options,
			     by == DIR_DOWN ? 12 : 0);
		passes(DIR_DOWN);
		say(DIR_UP, TCP_ACK, 0);
		await_probes();
		stop();
	}
}

/* --- a peer is gone --- */

/* Asked three times, ten seconds apart; the other end hears it exactly ten seconds after the last. */
static void dies(bool v6, enum flow_dir dead)
{
	uint64_t last_ns;

	begin_rig((struct rig_config){0});
	handshake(v6, ISN, PEER, true);
	converse();
	last_ns = rig.now_ns;
	await_probes();
	answer_probe(!dead);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(!dead);
	pass_ms(PROBE_EVERY_MS - 400);
	take_none();
	await_made(500);
	assert_in_range((rig.now_ns - last_ns) / 1000000, PROBE_MS * 9 / 10 + 30000, PROBE_MS * 11 / 10 + 31000);
	check_resets();
	assert_int_equal(did(ACTION_rst_peer_dead), 1);
	assert_int_equal(rig.worker->ledger.made[MADE_rst_peer_dead], 2);
	assert_int_equal(backend().silent_clients, dead == DIR_UP);
	assert_int_equal(backend().silent_backends, dead == DIR_DOWN);
	assert_int_equal(only_state(v6), FLOW_RESETTING);
	pass_ms(5200);
	take_none();
	assert_int_equal(n_flows(), 0);
	stop();
}

static void test_one_dead(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (enum flow_dir dead = DIR_UP; dead < DIRS; dead++)
			dies(v6, dead);
}

static void test_both_dead(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	await_probes();
	for (int i = 1; i < PROBES; i++) {
		await_made(PROBE_EVERY_MS + 300);
		check_probes();
	}
	await_made(PROBE_EVERY_MS + 300);
	check_resets();
	assert_int_equal(backend().silent_clients, 1);
	assert_int_equal(backend().silent_backends, 1);
	assert_int_equal(did(ACTION_rst_peer_dead), 1);
	stop();
}

/* The last moment is early enough. */
static void test_late_answer(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	await_probes();
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	pass_ms(PROBE_EVERY_MS - 400);
	answer_probe(DIR_DOWN);
	pass_ms(PROBE_MS / 2);
	take_none();
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	assert_int_equal(did(ACTION_rst_peer_dead), 0);
	stop();
}

/* Its kernel knows nothing of the connection: the RST has the number of the probe, which is what its peer expects. */
static void test_reset_answer(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		struct sent s;

		begin_rig((struct rig_config){0});
		handshake(false, ISN, PEER, true);
		converse();
		await_probes();
		feed(port_of[dir], spec_of(dir, TCP_RST, ack(&made[!dir]), 0));
		s = passes(dir);
		assert_int_equal(s.p.tcp_flags, TCP_RST);
		assert_int_equal(seq(&s), ends[dir].next);
		assert_int_equal(only_state(false), FLOW_CLOSED);
		/* What the other one answers meanwhile helps nobody, and nobody is asked any more. */
		answer_probe(!dir);
		pass_ms(10300);
		take_none();
		assert_int_equal(n_flows(), 0);
		stop();
	}
}

/* --- answers, and what is none --- */

static void is_forwarded(enum flow_dir dir, uint8_t flags, uint32_t seq_off, uint32_t ack_off, uint16_t window,
			 uint16_t len)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	ends[dir].window += window;
	feed_numbers(dir, flags, ends[dir].next + seq_off, ends[!dir].next + ack_off, len);
	passes(dir);
	/* A sign of life all the same: ten seconds later only the other one is asked. */
	assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 0);
	pass_ms(PROBE_EVERY_MS + 300);
	assert_true(take(&made[0]));
	take_none();
	assert_int_equal(made[0].port, port_of[!dir]);
	stop();
}

static void test_what_says_more_is_forwarded(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		is_forwarded(dir, TCP_ACK, 0, 0, 1, 0);
		is_forwarded(dir, TCP_ACK, (uint32_t)-1, 0, 0, 0);
		is_forwarded(dir, TCP_ACK, 0, (uint32_t)-1, 0, 0);
		is_forwarded(dir, TCP_ACK | TCP_ECE, 0, 0, 0, 0);
		is_forwarded(dir, TCP_ACK | TCP_PSH, 0, 0, 0, 0);
		is_forwarded(dir, TCP_ACK, (uint32_t)-1, 0, 0, 1); /* a keepalive of its own, with a byte */
	}
}

/* Without a question, or a second time, the same words are the peer's. */
static void test_only_answers_are_absorbed(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	say(DIR_UP, TCP_ACK, 0);
	say(DIR_DOWN, TCP_ACK, 0);
	await_probes();
	answer_probe(DIR_UP);
	say(DIR_UP, TCP_ACK, 0);
	answer_probe(DIR_DOWN);
	say(DIR_DOWN, TCP_ACK, 0);
	stop();
}

/* Data crosses the probe: its acknowledgement looks like an answer, and must arrive. */
static void test_acknowledgement_is_no_answer(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	say(DIR_DOWN, TCP_ACK | TCP_PSH, 500);
	say(DIR_UP, TCP_ACK, 0);
	assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 0);
	stop();
	/* And so must one that says that it still waits for the data. */
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	say(DIR_DOWN, TCP_ACK | TCP_PSH, 500);
	feed_numbers(DIR_UP, TCP_ACK, ends[DIR_UP].next, ends[DIR_DOWN].next - 500, 0);
	passes(DIR_UP);
	stop();
}

/* --- data under way --- */

/* Asked from what they know to have had, 300 s after the last word: who sent asks itself, until it must have given up.
 */
static void until_last_ask(bool v6, enum flow_dir sender)
{
	begin_rig((struct rig_config){0});
	handshake(v6, ISN, PEER, true);
	converse();
	pass_ms(40);
	say(sender, TCP_ACK | TCP_PSH, 1000);
	pass_ms(299000);
	take_none();
	assert_int_equal(did(ACTION_keepalive), 0);
	await_made(1500);
	ends[sender].next -= 1000;
	check_probes();
	ends[sender].next += 1000;
}

/*
 * Neither answers, and both learn it; to the one whose next number is not known the RST comes from behind the data, and
 * it asks back.
 */
static void test_unacknowledged(void **state)
{
	for (enum flow_dir sender = DIR_UP; sender < DIRS; sender++) {
		struct sent s;

		until_last_ask(false, sender);
		for (int i = 1; i < PROBES; i++)
			await_made(PROBE_EVERY_MS + 300);
		await_made(PROBE_EVERY_MS + 300);
		check_reset(&made[sender], sender, ends[sender].next);
		/* In the other one's name: what the sender acknowledged last. */
		check_reset(&made[!sender], !sender, ends[!sender].next);
		assert_int_equal(did(ACTION_keepalive), 2 * PROBES);
		assert_int_equal(did(ACTION_rst_peer_dead), 1);
		assert_int_equal(backend().silent_clients, 1);
		assert_int_equal(backend().silent_backends, 1);
		/* It had only a part of it. */
		for (int i = 0; i < 3; i++) {
			feed_numbers(!sender, TCP_ACK, ends[!sender].next, ends[sender].next - 400, 0);
			turn();
			take_right(&s);
			assert_int_equal(s.port, port_of[!sender]);
			assert_int_equal(s.p.tcp_flags, TCP_RST);
			assert_int_equal(seq(&s), ends[sender].next - 400);
		}
		refused(port_of[!sender], spec_of(!sender, TCP_ACK, 1, 2), VERDICT_shed_reset_again);
		refused(port_of[!sender], spec_of(!sender, TCP_RST, 1, 2), VERDICT_drop_stray_rst);
		assert_int_equal(verdicts(VERDICT_answer_reset_again), 3);
		pass_ms(5200);
		take_none();
		assert_int_equal(n_flows(), 0);
		stop();
	}
}

/* The sender is still there, its peer is not: that one alone is asked on, and was the silent one. */
static void test_unacknowledged_by_the_dead(void **state)
{
	for (enum flow_dir sender = DIR_UP; sender < DIRS; sender++) {
		struct sent s;

		until_last_ask(true, sender);
		answer_probe(sender);
		for (int i = 1; i < PROBES; i++) {
			pass_ms(PROBE_EVERY_MS + 200);
			take_right(&s);
			take_none();
			assert_int_equal(s.port, port_of[!sender]);
			assert_int_equal(seq(&s), ends[sender].next - 1000 - 1);
		}
		await_made(PROBE_EVERY_MS + 300);
		check_resets();
		assert_int_equal(backend().silent_clients, sender == DIR_DOWN);
		assert_int_equal(backend().silent_backends, sender == DIR_UP);
		assert_int_equal(backend().idle_lost_ms, 0);
		stop();
	}
}

/* The data was forged, or damaged on its way: nobody waits for it, and both are well. */
static void test_unacknowledged_by_nobody(void **state)
{
	for (enum flow_dir sender = DIR_UP; sender < DIRS; sender++)
		for (int v6 = 0; v6 < 2; v6++) {
			until_last_ask(v6, sender);
			ends[sender].next -= 1000;
			answer_probe(sender);
			answer_probe(!sender);
			await_probes();
			answer_probe(DIR_UP);
			answer_probe(DIR_DOWN);
			converse();
			assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
			assert_int_equal(rig.worker->out_of_window, 0);
			stop();
		}
}

/* The sender hears at last that its peer waits for it, sends it again, and it is acknowledged. */
static void test_unacknowledged_and_mended(void **state)
{
	until_last_ask(false, DIR_UP);
	ends[DIR_UP].next -= 1000;
	feed_next(DIR_DOWN, TCP_ACK, 0);
	passes(DIR_DOWN);
	say(DIR_UP, TCP_ACK | TCP_PSH, 1000);
	say(DIR_DOWN, TCP_ACK, 0);
	await_probes();
	stop();
}

/* The client speaks while the backend owes an answer: its data asks, and silence counts on. */
static void test_data_while_asked(void **state)
{
	struct sent s;

	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	answer_probe(DIR_UP);
	say(DIR_UP, TCP_ACK | TCP_PSH, 100);
	for (int i = 1; i < PROBES; i++) {
		pass_ms(PROBE_EVERY_MS - 200);
		/* Once more, as its timer wants. */
		feed_numbers(DIR_UP, TCP_ACK | TCP_PSH, ends[DIR_UP].next - 100, ends[DIR_DOWN].next, 100);
		s = passes(DIR_UP);
		assert_int_equal(s.p.payload_len, 100);
		pass_ms(400);
		take_none();
	}
	await_made(PROBE_EVERY_MS);
	check_resets();
	assert_int_equal(did(ACTION_keepalive), 2);
	stop();
}

/* The client died, too, right after it sent: that takes as long as any data without acknowledgement, and is asked. */
static void test_data_and_silence_while_asked(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	answer_probe(DIR_UP);
	say(DIR_UP, TCP_ACK | TCP_PSH, 100);
	pass_ms(295000);
	take_none();
	for (int i = 0; i < PROBES; i++)
		await_made(10400);
	await_made(10400);
	check_resets();
	assert_int_equal(did(ACTION_keepalive), 2 + 2 * PROBES);
	stop();
}

/* --- after the end --- */

/* It waited for a sender for minutes to come; a RST ends it as soon as any. */
static void test_closed_while_waiting(void **state)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.probe_ms = 1000;
	handshake(false, ISN, PEER, true);
	say(DIR_UP, TCP_ACK | TCP_PSH, 100);
	pass_ms(2000);
	say(DIR_UP, TCP_RST | TCP_ACK, 0);
	assert_int_equal(only_state(false), FLOW_CLOSED);
	pass_ms(10300);
	assert_int_equal(n_flows(), 0);
	stop();
}

/* D-9: more RSTs leave than may. Who ends meanwhile does so later; what is said again is not said. */
static void test_ends_are_limited(void **state)
{
	struct sent s;

	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	await_probes();
	for (int i = 1; i < PROBES; i++)
		await_made(PROBE_EVERY_MS + 300);
	for (int ms = 0; ms < PROBE_EVERY_MS + 2000; ms += 40) {
		use_up_ends();
		pass_ms(40);
		take_none();
	}
	assert_true(did(ACTION_put_off) > 0);
	await_made(1500);
	check_resets();
	use_up_ends();
	refused(RIG_LAN, spec_of(DIR_DOWN, TCP_ACK, 1, 2), VERDICT_shed_reset_again);
	pass_ms(400);
	s = exchange(RIG_LAN, spec_of(DIR_DOWN, TCP_ACK, 1, 2));
	assert_int_equal(s.p.tcp_flags, TCP_RST);
	assert_int_equal(verdicts(VERDICT_answer_reset_again), 1);
	stop();
}

static void test_begins_anew_while_resetting(void **state)
{
	struct talk again;
	struct sent s;

	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, false);
	for (int i = 0; i < 4; i++)
		await_made(LATE_MS);
	assert_int_equal(only_state(false), FLOW_RESETTING);
	again = talk;
	s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, ISN, 0));
	learn(&again, &s);
	assert_int_not_equal(again.snat_port_be, talk.snat_port_be);
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	stop();
}

/* --- modes --- */

/* Frames that left, one behind the other. */
struct wire {
	size_t len;
	uint8_t bytes[64 * 1024];
};

static void record(struct wire *wire, struct sent s)
{
	assert_true(wire->len + s.len <= sizeof(wire->bytes));
	memcpy(&wire->bytes[wire->len], s.frame, s.len);
	wire->len += s.len;
}

/* What an answer to a probe looks like, an older acknowledgement, and a RST and data that are out of any window. */
static void say_odd_things(struct wire *wire, enum flow_dir dir)
{
	uint32_t next = ends[dir].next, other = ends[!dir].next;

	record(wire, say(dir, TCP_ACK, 0));
	feed_numbers(dir, TCP_ACK, next - 1, other, 0);
	record(wire, passes(dir));
	feed_numbers(dir, TCP_ACK, next, other - 1, 0);
	record(wire, passes(dir));
	feed_numbers(dir, TCP_RST, next + (64 << 20), 0, 0);
	record(wire, passes(dir));
	feed_numbers(dir, TCP_RST | TCP_ACK, next - (64 << 20), other, 0);
	record(wire, passes(dir));
	feed_numbers(dir, TCP_ACK | TCP_PSH, next + (64 << 20), other, 10);
	record(wire, passes(dir));
}

/* The same words in each mode leave the same bytes; what enforce makes beside them is all the difference. */
static void check_shadow_and_off(bool v6)
{
	static struct wire wires[2];

	for (int shadow = 0; shadow < 2; shadow++) {
		begin_rig((struct rig_config){0});
		rig.service.timeouts.established_ms = 5 * PROBE_MS;
		set_mode(shadow ? CURE_SHADOW : CURE_OFF);
		wires[shadow].len = 0;
		handshake(v6, ISN, PEER, true);
		for (int i = 0; i < 40; i++) {
			record(&wires[shadow], say(i % 2, TCP_ACK | TCP_PSH, 100 + i));
			if (i % 10 == 9) {
				record(&wires[shadow], say(!(i % 2), TCP_ACK, 0));
				pass_ms(LATE_MS);
				take_none();
				say_odd_things(&wires[shadow], DIR_UP);
				say_odd_things(&wires[shadow], DIR_DOWN);
			}
		}
		assert_int_equal(would(ACTION_keepalive), shadow ? 8 : 0);
		assert_int_equal(would(ACTION_refuse_rst), shadow ? 16 : 0);
		assert_int_equal(did(ACTION_refuse_rst), 0);
		assert_int_equal(verdicts(VERDICT_absorb_probe_answer), 0);
		/* Its plain idle time ends it, without a word. */
		pass_ms(5 * PROBE_MS + 300);
		take_none();
		assert_int_equal(n_flows(), 0);
		assert_int_equal(would(ACTION_rst_idle), shadow);
		assert_int_equal(did(ACTION_keepalive) + did(ACTION_rst_idle) + did(ACTION_rst_peer_dead), 0);
		stop();
	}
	assert_int_equal(wires[0].len, wires[1].len);
	assert_memory_equal(wires[0].bytes, wires[1].bytes, wires[0].len);
}

static void test_shadow_and_off_change_no_byte(void **state)
{
	check_shadow_and_off(false);
	check_shadow_and_off(true);
}

/* Whose data is not acknowledged for so long would be asked, and be dead: said once, and it idles on. */
static void test_shadow_of_the_dead(void **state)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.established_ms = 400000;
	set_mode(CURE_SHADOW);
	handshake(false, ISN, PEER, true);
	say(DIR_UP, TCP_ACK | TCP_PSH, 100);
	pass_ms(329800);
	assert_int_equal(would(ACTION_keepalive), 2 * PROBES);
	assert_int_equal(would(ACTION_rst_peer_dead), 0);
	pass_ms(70000);
	assert_int_equal(would(ACTION_keepalive), 2 * PROBES);
	assert_int_equal(would(ACTION_rst_peer_dead), 1);
	assert_int_equal(n_flows(), 1);
	pass_ms(500);
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(would(ACTION_rst_peer_dead), 1);
	assert_int_equal(would(ACTION_rst_idle), 0);
	stop();
}

static void test_mode_of_birth_binds(void **state)
{
	begin_rig((struct rig_config){0});
	set_mode(CURE_OFF);
	handshake(false, ISN, PEER, true);
	set_mode(CURE_ENFORCE);
	converse();
	pass_ms(2 * LATE_MS);
	take_none();
	stop();
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	set_mode(CURE_OFF);
	converse();
	await_probes();
	stop();
}

/* --- probe: off --- */

static void test_reload_switches_probing(void **state)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.established_ms = 4 * PROBE_MS;
	handshake(false, ISN, PEER, true);
	converse();
	await_probes();
	rig.service.timeouts.probe_ms = 0;
	answer_probe(DIR_UP);
	/* From the last sign of life, the plain idle time. */
	pass_ms(4 * PROBE_MS - 500);
	take_none();
	await_made(1000);
	check_resets();
	assert_int_equal(did(ACTION_rst_idle), 1);
	stop();
}

/* D-3, with data in flight as well: the RST of an idle end comes from behind it. */
static void test_idle_end_with_data(void **state)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.established_ms = 4 * PROBE_MS;
	rig.service.timeouts.probe_ms = 0;
	handshake(true, ISN, PEER, true);
	converse();
	say(DIR_DOWN, TCP_ACK | TCP_PSH, 300);
	await_made(4 * PROBE_MS + 500);
	check_resets();
	assert_int_equal(rig.worker->ledger.made[MADE_rst_idle], 2);
	stop();
}

/* --- many --- */

static unsigned take_probes(void)
{
	unsigned n = 0;
	struct sent s;

	for (; take(&s); n++)
		assert_int_equal(s.p.tcp_flags, TCP_ACK);
	return n;
}

static void establish_many(unsigned n)
{
	for (unsigned client = 0; client < n; client++)
		establish(false, client);
}

/* Each loop does a bounded share of what is due. */
static void test_bounded_work(void **state)
{
	unsigned total = 0, most = 0;

	begin_rig((struct rig_config){.flows_v4 = 1200, .n_backends = 4});
	establish_many(1000);
	pass_ms(PROBE_MS * 9 / 10 - 200);
	take_none();
	/* Without sleep between turns that have work. */
	for (int i = 0; i < 110; i++, rig.now_ns += STEP_NS)
		for (unsigned more = 1; more;) {
			unsigned n;

			more = worker_run_once(rig.worker);
			n = take_probes();
			total += n;
			most = n > most ? n : most;
		}
	assert_int_equal(total, 2000);
	assert_true(most <= 128);
	stop();
}

/* All at once, and more of them than may be asked in a second: the others wait, and are asked. */
static void test_pace(void **state)
{
	const unsigned n_flows_all = 12000;
	unsigned total = 0, in_second = 0, most = 0;

	begin_rig((struct rig_config){.flows_v4 = n_flows_all * 5 / 4, .n_backends = 4, .n_workers = 1});
	rig.service.timeouts.probe_ms = 1000;
	establish_many(n_flows_all);
	/* Between 0.9 and 1.1 s: 24 000 probes in 0.2 s, of which 2 000 + 4 000 may go. */
	for (unsigned ms = 0; ms < 8000; ms += 20, rig.now_ns += 20000000) {
		for (int i = 0; i < 4; i++) {
			unsigned n;

			worker_run_once(rig.worker);
			n = take_probes();
			total += n;
			in_second += n;
		}
		if (ms % 1000 == 980) {
			most = in_second > most ? in_second : most;
			in_second = 0;
		}
	}
	assert_true(did(ACTION_put_off) > 1000);
	assert_true(total >= 2 * n_flows_all);
	assert_true(most <= 20000 + 2000 + 128);
	stop();
}

/* --- the idle time that a path survives --- */

static void until_dead(enum flow_dir dead)
{
	await_probes();
	answer_probe(!dead);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(!dead);
}

/* A box forgets, the backend lives: others connect to it meanwhile, or soon after. */
static void test_lost_path(void **state)
{
	for (int when = 0; when < 3; when++) {
		struct talk idle;
		struct sent s;

		begin_rig((struct rig_config){0});
		handshake(false, ISN, PEER, true);
		converse();
		until_dead(DIR_DOWN);
		idle = talk;
		if (when == 0)
			establish(false, 77);
		await_made(PROBE_EVERY_MS + 300);
		talk = idle;
		if (when == 1) {
			pass_ms(20000);
			establish(false, 77);
		} else if (when == 2) {
			/* What it says of its own accord passes the box, and it did not hear the RST. */
			assert_int_equal(backend().idle_lost_ms, 0);
			feed_next(DIR_DOWN, TCP_ACK | TCP_PSH, 10);
			turn();
			take_right(&s);
			assert_int_equal(s.p.tcp_flags, TCP_RST);
		}
		assert_in_range(backend().idle_lost_ms, PROBE_MS - PROBE_MS / 10, PROBE_MS + PROBE_MS / 10);
		assert_int_equal(backend().idle_survived_ms, 0);
		stop();
	}
}

/* A dead backend, or one that comes back much later, says nothing about the path; nor does a client. */
static void test_dead_is_not_lost(void **state)
{
	for (enum flow_dir dead = DIR_UP; dead < DIRS; dead++) {
		begin_rig((struct rig_config){0});
		handshake(false, ISN, PEER, true);
		converse();
		until_dead(dead);
		await_made(PROBE_EVERY_MS + 300);
		pass_ms(61000);
		establish(false, 77);
		assert_int_equal(backend().idle_lost_ms, 0);
		assert_int_equal(backend().idle_survived_ms > 0, dead == DIR_UP);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_both_answer),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_half_closed),
		cmocka_unit_test(test_timestamp_layouts),
		cmocka_unit_test(test_timestamps_of_one),
		cmocka_unit_test(test_one_dead),
		cmocka_unit_test(test_both_dead),
		cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_reset_answer),
		cmocka_unit_test(test_what_says_more_is_forwarded),
		cmocka_unit_test(test_only_answers_are_absorbed),
		cmocka_unit_test(test_acknowledgement_is_no_answer),
		cmocka_unit_test(test_unacknowledged),
		cmocka_unit_test(test_unacknowledged_by_the_dead),
		cmocka_unit_test(test_unacknowledged_by_nobody),
		cmocka_unit_test(test_unacknowledged_and_mended),
		cmocka_unit_test(test_data_while_asked),
		cmocka_unit_test(test_data_and_silence_while_asked),
		cmocka_unit_test(test_closed_while_waiting),
		cmocka_unit_test(test_ends_are_limited),
		cmocka_unit_test(test_begins_anew_while_resetting),
		cmocka_unit_test(test_shadow_and_off_change_no_byte),
		cmocka_unit_test(test_shadow_of_the_dead),
		cmocka_unit_test(test_mode_of_birth_binds),
		cmocka_unit_test(test_reload_switches_probing),
		cmocka_unit_test(test_idle_end_with_data),
		cmocka_unit_test(test_bounded_work),
		cmocka_unit_test(test_pace),
		cmocka_unit_test(test_lost_path),
		cmocka_unit_test(test_dead_is_not_lost),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
