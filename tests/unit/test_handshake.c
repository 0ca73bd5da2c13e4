/* SPDX-License-Identifier: BSD-3-Clause */
/* Handshakes in which something comes twice, or otherwise the second time: each end's choice is what counts. */
#include "ends.h"

#include "outcome_worker.h"

#include <netinet/in.h>

#define OTHER_PEER 0x90000000u
#define OTHER_ISN  0x60000000u

static uint64_t connects(void)
{
	return backend().connects;
}

/* An open connection, and the numbers that both ends went by. */
static void goes_on(uint32_t isn, uint32_t peer)
{
	ends[DIR_UP].next = isn + 1;
	ends[DIR_DOWN].next = peer + 1;
	assert_int_equal(only_state(talk.v6), FLOW_ESTABLISHED);
	for (int i = 0; i < 50; i++) {
		pass_ms(2000);
		converse();
	}
	assert_int_equal(rig.worker->out_of_window, 0);
	assert_int_equal(connects(), 1);
	/* An open one is asked, with its own numbers. */
	await_probes();
}

static void begin_open(bool v6)
{
	static const uint8_t scale[] = {1, 3, 3, SCALE};
	struct sent s;

	begin_rig((struct rig_config){0});
	talk = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = 5};
	ends[DIR_UP] = (struct end){.next = ISN + 1, .window = 501};
	ends[DIR_DOWN] = (struct end){.next = PEER + 1, .window = 227};
	timestamps = false;
	feed_options(DIR_UP, from_client(&talk, TCP_SYN, ISN, 0), scale, sizeof(scale));
	s = passes(DIR_UP);
	learn(&talk, &s);
}

static void syn_ack(uint32_t peer, uint32_t acked)
{
	static const uint8_t scale[] = {1, 3, 3, SCALE};

	feed_options(DIR_DOWN, from_backend(&talk, TCP_SYN | TCP_ACK, peer, acked), scale, sizeof(scale));
	passes(DIR_DOWN);
}

/* --- a second SYN --- */

/* Fast open: sent again without its data, and the first one is answered (RFC 7413 4.1.3). */
static void test_fast_open_again(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (uint32_t acked = 0; acked <= 100; acked += 50) {
			struct sent s;

			begin_rig((struct rig_config){0});
			talk = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = 5};
			ends[DIR_UP].window = ends[DIR_DOWN].window = 5000;
			timestamps = false;
			s = exchange(RIG_WAN, with_payload(from_client(&talk, TCP_SYN, ISN, 0), 100));
			learn(&talk, &s);
			pass_ms(500);
			exchange(RIG_WAN, from_client(&talk, TCP_SYN, ISN, 0));
			exchange(RIG_LAN, from_backend(&talk, TCP_SYN | TCP_ACK, PEER, ISN + 1 + acked));
			exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1 + acked, PEER + 1));
			goes_on(ISN + acked, PEER);
			stop();
		}
}

/* The same with a SYN of another number before it. */
static void test_fast_open_of_the_second(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_open(v6);
		exchange(RIG_WAN, with_payload(from_client(&talk, TCP_SYN, OTHER_ISN, 0), 100));
		exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
		syn_ack(PEER, OTHER_ISN + 101);
		exchange(RIG_WAN, from_client(&talk, TCP_ACK, OTHER_ISN + 101, PEER + 1));
		goes_on(OTHER_ISN + 100, PEER);
		stop();
	}
}

static const uint8_t plain[] = {1, 1, 1, 1};

/* Someone else's SYN comes between the client's and its answer, or the client began anew: the backend says which. */
static void two_syns(bool v6, bool first)
{
	begin_open(v6);
	feed_options(DIR_UP, from_client(&talk, TCP_SYN, OTHER_ISN, 0), plain, sizeof(plain));
	passes(DIR_UP);
	/* The first one again is no news. */
	feed_options(DIR_UP, from_client(&talk, TCP_SYN, ISN, 0), plain, sizeof(plain));
	passes(DIR_UP);
	syn_ack(PEER, (first ? ISN : OTHER_ISN) + 1);
	assert_int_equal(only_state(v6), FLOW_SYN_RECV);
	ends[DIR_UP].next = (first ? ISN : OTHER_ISN) + 1;
	say(DIR_UP, TCP_ACK, 0);
	assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
	/* Windows are those of the SYN that was answered. */
	feed(RIG_LAN, from_backend(&talk, TCP_RST, PEER + 1 + 501 + 1, 0));
	turn();
	assert_int_equal(verdicts(VERDICT_drop_rst_window), !first);
	if (first)
		take_right(&(struct sent){0});
	goes_on((first ? ISN : OTHER_ISN), PEER);
	stop();
}

static void test_two_syns(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		two_syns(v6, true);
		two_syns(v6, false);
	}
}

/* The second SYN-ACK is for the other SYN: its backend gave the first attempt up meanwhile. */
static void test_each_answered(void **state)
{
	begin_open(false);
	exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
	syn_ack(PEER, ISN + 1);
	syn_ack(OTHER_PEER, OTHER_ISN + 1);
	exchange(RIG_WAN, from_client(&talk, TCP_ACK, OTHER_ISN + 1, OTHER_PEER + 1));
	goes_on(OTHER_ISN, OTHER_PEER);
	stop();
}

/* Its backend has both of them, and may answer at any time: no other one gets either. */
static void test_two_syns_stay(void **state)
{
	for (int answered = 0; answered < 2; answered++) {
		struct sent s;

		begin_rig((struct rig_config){.n_backends = 3});
		rig.policy.modes.of[CURE_WALL] = CURE_ENFORCE;
		talk = begin(PROTO_TCP, false, 5);
		exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
		if (answered)
			exchange(RIG_LAN, from_backend(&talk, TCP_SYN | TCP_ACK, PEER, ISN + 1));
		pass_ms(3000);
		take_none();
		if (answered)
			s = exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, PEER + 1));
		else
			s = exchange(RIG_LAN, from_backend(&talk, TCP_RST | TCP_ACK, 0, ISN + 1));
		assert_int_equal(s.port, answered ? RIG_LAN : RIG_WAN);
		assert_int_equal(did(ACTION_resteer), 0);
		stop();
	}
}

/* An error about either of them is about a SYN that was sent. */
static void test_error_about_first_syn(void **state)
{
	struct frame_spec syn;
	uint8_t frame[FRAME_MAX];
	struct sent s, error;

	begin_rig((struct rig_config){0});
	talk = (struct talk){.proto = PROTO_TCP, .client = 5};
	syn = from_client(&talk, TCP_SYN, ISN, 0);
	s = exchange(RIG_WAN, syn);
	exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
	feed_raw(RIG_LAN, 0, frame, make_error(frame, s.frame, packet_dst(s.frame, &s.p), 3, 1, 0));
	turn();
	take_right(&error);
	check_error(&error, RIG_WAN, &syn);
	stop();
}

/* --- a second SYN-ACK --- */

/* The first one is lost behind the gateway, and the SYN brings another: cookies of another minute, a SYN proxy. */
static void test_second_syn_ack(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_open(v6);
		syn_ack(PEER, ISN + 1);
		pass_ms(1000);
		exchange(RIG_WAN, from_client(&talk, TCP_SYN, ISN, 0));
		syn_ack(OTHER_PEER, ISN + 1);
		assert_int_equal(only_state(v6), FLOW_SYN_RECV);
		exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, OTHER_PEER + 1));
		goes_on(ISN, OTHER_PEER);
		stop();
	}
}

/* Both arrive, and the client went by the first one: its acknowledgement came here after the second. */
static void test_first_of_two_syn_acks(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_open(v6);
		syn_ack(PEER, ISN + 1);
		syn_ack(OTHER_PEER, ISN + 1);
		exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, PEER + 1));
		goes_on(ISN, PEER);
		stop();
	}
}

/* What acknowledges another number, or comes when the handshake is done, is not learned. */
static void test_forged_syn_ack(void **state)
{
	begin_open(false);
	syn_ack(PEER, ISN + 1);
	syn_ack(OTHER_PEER, ISN + 2);
	exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 5, OTHER_PEER + 1));
	assert_int_equal(only_state(false), FLOW_SYN_RECV);
	exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, PEER + 1));
	syn_ack(OTHER_PEER, ISN + 1);
	rig.worker->out_of_window = 0;
	goes_on(ISN, PEER);
	stop();
}

/* Neither its backend nor the gateway takes it for the client's who has seen no SYN-ACK, whatever number it guesses. */
static void test_blind_acknowledgement(void **state)
{
	static const uint32_t guesses[] = {PEER + 2, PEER + 70000, PEER - 1000000, PEER + 0x40000000};

	for (int v6 = 0; v6 < 2; v6++)
		for (size_t i = 0; i < sizeof(guesses) / sizeof(guesses[0]); i++) {
			struct frame_spec syn;

			begin_open(v6);
			syn = from_client(&talk, TCP_SYN, ISN, 0);
			syn_ack(PEER, ISN + 1);
			for (uint32_t seq = ISN + 1; seq < ISN + 3; seq++)
				exchange(RIG_WAN, from_client(&talk, TCP_ACK, seq, guesses[i]));
			/* The backend answers each of these. */
			feed(RIG_LAN, from_backend(&talk, TCP_RST, guesses[i], 0));
			turn();
			take_all();
			assert_int_equal(only_state(v6), FLOW_SYN_RECV);
			assert_false(outcome_connected_lately(rig.worker, &syn.src, false, 60000));
			/* The client's own is good all the same. */
			exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, PEER + 1));
			assert_true(outcome_connected_lately(rig.worker, &syn.src, false, 60000));
			rig.worker->out_of_window = 0;
			goes_on(ISN, PEER);
			stop();
		}
}

/* A RST that comes again, to an attempt that is over, makes no connection of it. */
static void test_reset_attempt_stays_reset(void **state)
{
	begin_open(false);
	syn_ack(PEER, ISN + 1);
	for (int i = 0; i < 2; i++)
		exchange(RIG_WAN, from_client(&talk, TCP_RST, ISN + 1, 0));
	assert_int_equal(only_state(false), FLOW_CLOSED);
	pass_ms(2000);
	exchange(RIG_LAN, from_backend(&talk, TCP_ACK, PEER + 1, ISN + 1));
	assert_int_equal(only_state(false), FLOW_CLOSED);
	stop();
}

/* The same once more, behind data that the backend has sent since (RFC 7413), takes nothing back. */
static void test_syn_ack_again(void **state)
{
	begin_open(false);
	syn_ack(PEER, ISN + 1);
	feed_numbers(DIR_DOWN, TCP_ACK | TCP_PSH, PEER + 1, ISN + 1, 400);
	passes(DIR_DOWN);
	syn_ack(PEER, ISN + 1);
	exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, PEER + 401));
	goes_on(ISN, PEER + 400);
	stop();
}

/* --- a SYN in the middle of a connection --- */

static void check_challenge(const struct sent *s)
{
	assert_int_equal(s->port, RIG_WAN);
	assert_int_equal(s->p.tcp_flags, TCP_ACK);
	assert_int_equal(s->p.payload_len, 0);
	assert_int_equal(seq(s), ends[DIR_DOWN].next);
	assert_int_equal(ack(s), ends[DIR_UP].next);
	assert_int_equal(ntohs(tcp(s)->rx_win), ends[DIR_DOWN].window);
	assert_int_equal(tcp(s)->data_off >> 4, timestamps ? 8 : 5);
}

/* A client that lost its memory is asked, twice a second at the most; its RST ends the old connection everywhere. */
static void test_client_begins_anew(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (int under_way = 0; under_way < 2; under_way++) {
			struct talk again;
			struct sent s;

			begin_rig((struct rig_config){0});
			handshake(v6, ISN, PEER, under_way);
			converse();
			if (under_way) {
				say(DIR_UP, TCP_ACK | TCP_PSH, 300);
				say(DIR_DOWN, TCP_ACK | TCP_PSH, 400);
			}
			s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
			check_challenge(&s);
			pass_ms(480);
			refused(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0), VERDICT_absorb_syn);
			pass_ms(40);
			s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, ISN, 0));
			check_challenge(&s);
			assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
			s = exchange(RIG_WAN, from_client(&talk, TCP_RST, ack(&s), 0));
			assert_int_equal(s.port, RIG_LAN);
			assert_int_equal(only_state(v6), FLOW_CLOSED);
			again = talk;
			s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
			learn(&again, &s);
			assert_int_not_equal(again.snat_port_be, talk.snat_port_be);
			assert_int_equal(did(ACTION_challenge), 3);
			assert_int_equal(rig.worker->ledger.made[MADE_challenge], 2);
			stop();
		}
}

/* Forged between the last data and its acknowledgement, it takes nothing of either with it. */
static void test_syn_before_the_last_acknowledgement(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk again;
		struct sent s;

		begin_rig((struct rig_config){0});
		handshake(v6, ISN, PEER, true);
		say(DIR_UP, TCP_ACK | TCP_FIN, 0);
		say(DIR_DOWN, TCP_ACK | TCP_PSH | TCP_FIN, 1000);
		assert_int_equal(only_state(v6), FLOW_LAST_ACK);
		s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
		check_challenge(&s);
		/* The end was lost behind us, and comes again. */
		feed_numbers(DIR_DOWN, TCP_ACK | TCP_PSH | TCP_FIN, ends[DIR_DOWN].next - 1001, ends[DIR_UP].next,
			     1000);
		passes(DIR_DOWN);
		say(DIR_UP, TCP_ACK, 0);
		assert_int_equal(only_state(v6), FLOW_TIME_WAIT);
		again = talk;
		s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
		learn(&again, &s);
		assert_int_not_equal(again.snat_port_be, talk.snat_port_be);
		stop();
	}
}

/* With the handshake half done, too. */
static void test_syn_after_syn_ack(void **state)
{
	struct sent s;

	begin_open(false);
	syn_ack(PEER, ISN + 1);
	s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
	check_challenge(&s);
	exchange(RIG_WAN, from_client(&talk, TCP_RST, ack(&s), 0));
	assert_int_equal(only_state(false), FLOW_CLOSED);
	stop();
}

/* Off and in shadow it is the backend that asks. */
static void test_challenge_modes(void **state)
{
	for (enum cure_mode mode = CURE_OFF; mode < CURE_ENFORCE; mode++) {
		struct sent s;

		begin_rig((struct rig_config){0});
		set_mode(mode);
		handshake(false, ISN, PEER, true);
		s = exchange(RIG_WAN, from_client(&talk, TCP_SYN, OTHER_ISN, 0));
		assert_int_equal(s.port, RIG_LAN);
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
		assert_int_equal(would(ACTION_challenge), mode == CURE_SHADOW);
		stop();
	}
}

/* --- wrong checksums --- */

/* It goes on as it came. */
static void feed_damaged(enum flow_dir dir, uint8_t flags, uint32_t sequence, uint32_t acked)
{
	struct frame_spec spec = spec_of(dir, flags, sequence, acked);
	uint64_t before = rig.worker->damaged;
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(&spec, frame);
	struct sent s;

	frame[ETH + (talk.v6 ? 40 : 20) + 17] ^= 0x20;
	feed_raw(port_of[dir], 0, frame, len);
	turn();
	assert_true(take(&s));
	assert_int_equal(s.port, port_of[!dir]);
	assert_non_null(frame_checksum_error(s.frame));
	assert_int_equal(rig.worker->damaged, before + 1);
	take_none();
}

/* Who receives it throws it away, and so it changes nothing here: in the handshake, */
static void test_damaged_handshake(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_open(v6);
		feed_damaged(DIR_UP, TCP_SYN, OTHER_ISN, 0);
		feed_damaged(DIR_DOWN, TCP_SYN | TCP_ACK, OTHER_PEER, ISN + 1);
		feed_damaged(DIR_DOWN, TCP_RST | TCP_ACK, 0, ISN + 1);
		feed_damaged(DIR_UP, TCP_RST, ISN + 1, 0);
		assert_int_equal(only_state(v6), FLOW_SYN_SENT);
		assert_int_equal(backend().new_flows, 1);
		syn_ack(PEER, ISN + 1);
		exchange(RIG_WAN, from_client(&talk, TCP_ACK, ISN + 1, PEER + 1));
		goes_on(ISN, PEER);
		stop();
	}
}

/* and in a connection, until its end and behind it. */
static void test_damaged_end(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
			begin_rig((struct rig_config){0});
			handshake(v6, ISN, PEER, false);
			feed_damaged(dir, TCP_RST, ends[dir].next, 0);
			feed_damaged(dir, TCP_FIN | TCP_ACK, ends[dir].next, ends[!dir].next);
			assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
			feed(port_of[dir], spec_of(dir, TCP_RST, ends[dir].next, 0));
			passes(dir);
			assert_int_equal(only_state(v6), FLOW_CLOSED);
			feed_damaged(DIR_UP, TCP_SYN, OTHER_ISN, 0);
			assert_int_equal(only_state(v6), FLOW_CLOSED);
			stop();
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fast_open_again),
		cmocka_unit_test(test_fast_open_of_the_second),
		cmocka_unit_test(test_two_syns),
		cmocka_unit_test(test_each_answered),
		cmocka_unit_test(test_two_syns_stay),
		cmocka_unit_test(test_error_about_first_syn),
		cmocka_unit_test(test_second_syn_ack),
		cmocka_unit_test(test_first_of_two_syn_acks),
		cmocka_unit_test(test_forged_syn_ack),
		cmocka_unit_test(test_syn_ack_again),
		cmocka_unit_test(test_client_begins_anew),
		cmocka_unit_test(test_syn_before_the_last_acknowledgement),
		cmocka_unit_test(test_syn_after_syn_ack),
		cmocka_unit_test(test_challenge_modes),
		cmocka_unit_test(test_blind_acknowledgement),
		cmocka_unit_test(test_reset_attempt_stays_reset),
		cmocka_unit_test(test_damaged_handshake),
		cmocka_unit_test(test_damaged_end),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
