/* SPDX-License-Identifier: BSD-3-Clause */
/* What the upstream side's numbers are, on the wire itself. */
#include "numbers_talk.h"
#include "tcp_options.h"

#include <stdlib.h>
#include <string.h>

/* D-2: whatever the options' layout, over both wraps. */
static void test_constant(void **state)
{
	for (int n = 0; n < 12; n++) {
		bool v6 = n & 1;
		uint32_t isn = -60u - n, next = isn + 1;
		struct shifts d;
		struct talk t;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, isn);
		for (uint32_t i = 0; i < 40; i++, next += 10) {
			struct segment up = {.flags = TCP_ACK, .seq = next, .ack = PEER + 1, .len = 10};
			struct segment down = {.flags = TCP_ACK, .seq = PEER + 1, .ack = next + d.seq};
			uint32_t edges[] = {next + 20 + d.seq, next + 30 + d.seq, next + 40 + d.seq, next + 50 + d.seq};
			unsigned lead = n / 2 % 3, n_edges = i % 3 * 2;
			struct sent s;

			add_nops(&up, lead);
			add_timestamps(&up, TSVAL + i, ECHO + i);
			s = pass(&t, true, &up);
			assert_int_equal(seq(&s), up.seq + d.seq);
			assert_int_equal(ack(&s), up.ack);
			assert_int_equal(tsval(&s), TSVAL + i + d.ts);
			assert_int_equal(tsecr(&s), ECHO + i);
			assert_int_equal(s.p.payload_len, 10);

			/* Timestamps before SACK, and after it. */
			add_nops(&down, lead);
			if (n >= 6 && n_edges)
				add_sack(&down, edges, n_edges);
			add_timestamps(&down, ECHO + i, TSVAL + i + d.ts);
			if (n < 6 && n_edges)
				add_sack(&down, edges, n_edges);
			s = pass(&t, false, &down);
			assert_int_equal(seq(&s), down.seq);
			assert_int_equal(ack(&s), next);
			assert_int_equal(tsval(&s), ECHO + i);
			/* 0 is what says "none". */
			assert_int_equal(tsecr(&s), TSVAL + i + d.ts ? TSVAL + i : 0);
			for (unsigned e = 0; e < n_edges; e++)
				assert_int_equal(get32(option_of(&s, TCP_OPTION_SACK) + 2 + 4 * e), next + 20 + 10 * e);
		}
		assert_int_equal(rig.worker->out_of_window, 0);
		stop();
	}
}

/* SACK of what the backend sent, and what nobody acknowledged, are no numbers of the client's. */
static void test_left_alone(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		uint32_t edges[] = {PEER + 10, PEER + 20};
		struct segment up = {.flags = TCP_ACK, .seq = ISN + 1, .ack = PEER + 1};
		struct segment no_echo = {.flags = TCP_ACK, .seq = PEER + 1}, rst = {.flags = TCP_RST, .seq = PEER + 7};
		struct talk t;
		struct shifts d;
		struct sent s;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		add_sack(&up, edges, 2);
		s = pass(&t, true, &up);
		assert_memory_equal(option_of(&s, TCP_OPTION_SACK), up.options, 10);
		no_echo.ack = ISN + 1 + d.seq;
		add_nops(&no_echo, 2);
		add_timestamps(&no_echo, ECHO, 0);
		s = pass(&t, false, &no_echo);
		assert_int_equal(tsecr(&s), 0);
		/* In the window, so that it passes. */
		add_timestamps(&rst, ECHO, 5);
		s = pass(&t, false, &rst);
		assert_int_equal(ack(&s), 0);
		assert_int_equal(tsecr(&s), 5);
		stop();
	}
}

/* What is malformed is not read beyond; what was wrong stays wrong. */
static void test_damaged(void **state)
{
	static const uint8_t odd[][8] = {{5, 0},
					 {5, 1},
					 {5, 40},
					 {5},
					 {1, 1, 1, 1, 1, 1, 8, 10},
					 {5, 3, 0, 8, 10, 1, 1, 1},
					 {8, 9},
					 {5, 7, 1, 2, 3, 4, 5}};

	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;
		struct shifts d;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
			struct segment down = {
				.flags = TCP_ACK, .seq = PEER + 1, .ack = ISN + 1 + d.seq, .options_len = 8};
			struct sent s;

			memcpy(down.options, odd[i], 8);
			s = pass(&t, false, &down);
			assert_int_equal(ack(&s), ISN + 1);
			pass_damaged(&t, false, &down, 27);
		}
		stop();
	}
}

/* A backend that takes no timestamps: there is nothing to shift, nor later on. */
static void test_declined(void **state)
{
	struct segment syn_ack = {.flags = TCP_SYN | TCP_ACK, .seq = PEER};
	struct segment data = {.flags = TCP_ACK, .seq = ISN + 1, .ack = PEER + 1};
	struct shifts d;
	struct talk t;
	struct sent s;

	begin_bare((struct rig_config){0});
	d = begin_numbers(&t, false, 3, ISN, TSVAL);
	syn_ack.ack = ISN + 1 + d.seq;
	pass(&t, false, &syn_ack);
	add_nops(&data, 2);
	add_timestamps(&data, TSVAL + 4, 0);
	s = pass(&t, true, &data);
	assert_int_equal(tsval(&s), TSVAL + 4 + d.ts);
	assert_int_equal(seq(&s), ISN + 1 + d.seq);
	stop();
}

static void test_off(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct shifts d;
		struct talk t;

		begin_bare((struct rig_config){0});
		rig.service.reuse.isn = false;
		d = establish_numbers(&t, v6, ISN);
		assert_int_equal(d.seq, 0);
		assert_int_not_equal(d.ts, 0);
		stop();
		begin_bare((struct rig_config){0});
		rig.service.reuse.timestamps = false;
		d = establish_numbers(&t, v6, ISN);
		assert_int_equal(d.ts, 0);
		assert_int_not_equal(d.seq, 0);
		stop();
	}
}

/* --- one connection after the other --- */

/*
 * A SYN that is sent again is the same there too; of two with different numbers either may be answered, so both are
 * shifted alike. The next life of the same ports lies ahead, in the same instant too.
 */
static void test_again(void **state)
{
	struct segment syn = syn_of(ISN, TSVAL + 1000, true), rst = {.flags = TCP_RST | TCP_ACK};
	struct shifts d;
	struct talk t;
	struct sent s;

	begin_bare((struct rig_config){0});
	d = begin_numbers(&t, false, 3, ISN, TSVAL);
	rig.now_ns += 1000000000;
	turn();
	s = pass(&t, true, &syn);
	assert_int_equal(seq(&s) - ISN, d.seq);
	assert_int_equal(tsval(&s) - TSVAL - 1000, d.ts);
	syn = syn_of(77, TSVAL + 1001, true);
	s = pass(&t, true, &syn);
	assert_int_equal(seq(&s) - 77, d.seq);
	assert_int_equal(tsval(&s) - TSVAL - 1001, d.ts);
	for (uint32_t i = 0; i < 3; i++) {
		struct sent before = s;
		uint32_t isn = syn.seq;

		rst.ack = seq(&s) + 1;
		syn = syn_of(i, i, true);
		put(&t, false, &rst);
		put_behind(&t, true, &syn);
		turn();
		take_right(&s);
		/* In the numbers of the life that it ends. */
		check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, isn + 1);
		take_right(&s);
		assert_int_equal(s.p.sport_be, before.p.sport_be);
		assert_true((int32_t)(seq(&s) - seq(&before)) > 0 && (int32_t)(tsval(&s) - tsval(&before)) > 0);
	}
	stop();
}

/* Of two SYNs, only the second one has timestamps, which the backend takes: they are of the gateway's clock, as any. */
static void test_late_timestamps(void **state)
{
	for (int other_number = 0; other_number < 2; other_number++) {
		struct talk t = {.proto = PROTO_TCP, .client = 3};
		struct segment first = syn_of(ISN, 0, false), second = syn_of(ISN + other_number, TSVAL, true);
		struct sent s;
		uint32_t shift;

		begin_bare((struct rig_config){0});
		s = pass(&t, true, &first);
		shift = seq(&s) - ISN;
		s = pass(&t, true, &second);
		assert_int_equal(seq(&s) - ISN - other_number, shift);
		assert_int_equal(tsval(&s), (uint32_t)(rig.now_ns / 1000000));
		/* Chosen once. */
		second = syn_of(ISN + 7, TSVAL + 40, true);
		shift = tsval(&s) - TSVAL;
		rig.now_ns += 10000000;
		s = pass(&t, true, &second);
		assert_int_equal(tsval(&s), TSVAL + 40 + shift);
		stop();
	}
}

/* D-10: over all ports and once more round, clients of any clock; refused, so that a port is free at once. */
static void test_ahead(void **state)
{
	struct numbers {
		bool used;
		uint32_t isn, tsval;
	} *last = calloc(65536, sizeof(*last));
	uint32_t reused = 0;
	uint64_t random = 77;

	assert_non_null(last);
	begin_bare((struct rig_config){0});
	/* With the wall on, silence and refusals say something of the backend. */
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	for (unsigned i = 0; i < 66000; i++) {
		struct segment syn = syn_of(frame_random(&random), frame_random(&random), true);
		struct talk t = {.proto = PROTO_TCP, .client = i & 1};
		struct sent s = pass(&t, true, &syn);
		struct numbers *n = &last[ntohs(s.p.sport_be)];
		struct segment rst = {.flags = TCP_RST | TCP_ACK, .ack = seq(&s) + 1};

		if (n->used) {
			reused++;
			assert_true((int32_t)(seq(&s) - n->isn) > 0);
			assert_true((int32_t)(tsval(&s) - n->tsval) > 0);
		}
		*n = (struct numbers){true, seq(&s), tsval(&s)};
		learn(&t, &s);
		pass(&t, false, &rst);
		rig.now_ns += 20000;
	}
	assert_true(reused > 1000);
	free(last);
	stop();
}

/* --- TIME_WAIT at the backend --- */

/* The answer of an earlier connection: a RST that it believes, and the SYN again; once for each SYN of the client's. */
static void test_time_wait(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment old = {.flags = TCP_ACK, .seq = 4444, .ack = 5555}, syn = syn_of(ISN, TSVAL, true);
		struct sent rst, again, s;
		struct shifts d, other;
		struct talk t;

		begin_bare((struct rig_config){0});
		d = begin_numbers(&t, v6, 3, ISN, TSVAL);
		put(&t, false, &old);
		turn();
		take_right(&rst);
		check_rst(&rst, RIG_LAN, TCP_RST, 5555, 0);
		assert_int_equal(rst.p.sport_be, t.snat_port_be);
		take_right(&again);
		take_none();
		assert_int_equal(again.p.tcp_flags, TCP_SYN);
		assert_int_equal(seq(&again), ISN + d.seq);
		assert_int_equal(tsval(&again), TSVAL + d.ts);
		assert_int_equal(again.p.sport_be, t.snat_port_be);
		assert_int_equal(verdicts(VERDICT_absorb_time_wait), 1);
		assert_int_equal(rig.worker->ledger.made[MADE_rst_time_wait], 1);
		assert_int_equal(rig.worker->ledger.made[MADE_syn_time_wait], 1);
		/* The client's own repeat may go on; the next such answer is for the client. */
		s = pass(&t, true, &syn);
		assert_int_equal(seq(&s), ISN + d.seq);
		s = pass(&t, false, &old);
		assert_int_equal(ack(&s), 5555 - d.seq);
		/* Another attempt. */
		syn.seq = 7;
		s = pass(&t, true, &syn);
		other.seq = seq(&s) - 7;
		put(&t, false, &old);
		turn();
		take_right(&rst);
		take_right(&again);
		assert_int_equal(seq(&again), 7 + other.seq);
		stop();
	}
}

/* Not where it is none, or is not wanted, or the SYN was one that may not be made again. */
static void test_no_time_wait(void **state)
{
	struct segment data = {.flags = TCP_ACK, .seq = 4444, .ack = 5555, .len = 10};
	struct segment fin = {.flags = TCP_ACK | TCP_FIN, .seq = 4444, .ack = 5555}, old = fin;
	struct segment syn = syn_of(ISN, TSVAL, true);
	struct shifts d;
	struct talk t;
	struct sent s;

	old.flags = TCP_ACK;
	begin_bare((struct rig_config){0});
	d = begin_numbers(&t, false, 3, ISN, TSVAL);
	pass(&t, false, &data);
	pass(&t, false, &fin);
	old.ack = ISN + 1 + d.seq;
	pass(&t, false, &old);
	old.ack = 5555;
	rig.service.reuse.assist = false;
	pass(&t, false, &old);
	stop();

	begin_bare((struct rig_config){0});
	t = (struct talk){.proto = PROTO_TCP, .client = 4};
	s = pass_damaged(&t, true, &syn, 16);
	learn(&t, &s);
	pass(&t, false, &old);
	assert_int_equal(verdicts(VERDICT_absorb_time_wait), 0);
	stop();

	/* Too many RSTs to backends: what is left of the limit is for ends of flows. */
	begin_bare((struct rig_config){0});
	d = begin_numbers(&t, false, 3, ISN, TSVAL);
	while (answer_limits_backend(rig.worker->limits, rig.now_ns))
		;
	pass(&t, false, &old);
	assert_true(answer_limits_ends(rig.worker->limits, DIRS, rig.now_ns));
	stop();
}

/* --- ICMP errors --- */

/* Segments as they are in the middle of a connection, with options to be added. */
static struct segment middle(const struct shifts *d, bool up)
{
	return up ? (struct segment){.flags = TCP_ACK, .seq = ISN + 1, .ack = PEER + 1, .len = 100}
		  : (struct segment){.flags = TCP_ACK, .seq = PEER + 1, .ack = ISN + 1 + d->seq, .len = 100};
}

/* A router behind the gateway says of it that it is unreachable. */
static void put_error_about(const struct sent *s, bool v6)
{
	uint8_t error[FRAME_MAX];
	size_t len = make_error(error, s->frame, rig_client(77, v6), v6 ? 1 : 3, v6 ? 4 : 3, 0);

	feed_raw(s->port, 0, error, len);
	turn();
}

/* What its sender is told of it is what it sent, but for the TTL and the IPv4 header's checksum. */
static struct sent check_quote(const struct talk *t, bool up, const struct segment *g)
{
	struct sent s = pass(t, up, g), quote;
	unsigned l4_off = t->v6 ? 40 : 20;
	uint8_t frame[FRAME_MAX];
	size_t len = make_segment(frame, t, up, g);

	put_error_about(&s, t->v6);
	take_right(&quote);
	take_none();
	assert_int_equal(quote.port, up ? RIG_WAN : RIG_LAN);
	assert_memory_equal(quote.frame + quote.p.l4_off + 8 + l4_off, frame + ETH + l4_off, len - ETH - l4_off);
	return s;
}

/* C.4: what is quoted to an endpoint is what it sent, to the last number; what was not under way is no quote. */
static void test_quotes(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, up = n & 2;
		struct segment g;
		struct shifts d;
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		g = middle(&d, up);
		add_nops(&g, 2);
		add_timestamps(&g, up ? TSVAL + 9 : ECHO + 9, up ? ECHO : TSVAL + d.ts);
		s = check_quote(&t, up, &g);
		/* The client's own number is none of what went to the backend. */
		if (up) {
			put32(s.frame + s.p.l4_off + 4, ISN + 1);
			put_error_about(&s, v6);
			take_none();
			assert_int_equal(verdicts(VERDICT_drop_icmp_sequence), 1);
		}
		stop();
	}
}

/* An echo of 0, which is none; edges of SACK; more than one option of timestamps. */
static void test_quoted_options(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, up = n & 2;
		struct segment no_echo, sack, twice;
		uint32_t edges[4];
		struct shifts d;
		struct talk t;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		no_echo = sack = twice = middle(&d, up);
		add_nops(&no_echo, 2);
		add_timestamps(&no_echo, ECHO + 9, 0);
		check_quote(&t, up, &no_echo);
		for (unsigned i = 0; i < 4; i++)
			edges[i] = (up ? PEER : ISN + d.seq) + 20 + 10 * i;
		add_sack(&sack, edges, 4);
		check_quote(&t, up, &sack);
		for (unsigned i = 0; i < 2; i++) {
			add_nops(&twice, 2);
			add_timestamps(&twice, up ? TSVAL + i : ECHO + i, up ? ECHO : TSVAL + d.ts + i);
		}
		check_quote(&t, up, &twice);
		stop();
	}
}

/* A RST that acknowledges nothing: neither its field of an acknowledgement nor its echo is a number of the client's. */
static void test_quoted_without_ack(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment before, rst = {.flags = TCP_RST, .seq = PEER + 11, .ack = 4711};
		struct shifts d;
		struct talk t;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		/* So that it lies in the window, and ends nothing. */
		before = middle(&d, false);
		pass(&t, false, &before);
		add_timestamps(&rst, ECHO, 5);
		check_quote(&t, false, &rst);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_constant),
		cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_declined),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_again),
		cmocka_unit_test(test_ahead),
		cmocka_unit_test(test_time_wait),
		cmocka_unit_test(test_no_time_wait),
		cmocka_unit_test(test_quotes),
		cmocka_unit_test(test_quoted_options),
		cmocka_unit_test(test_quoted_without_ack),
		cmocka_unit_test(test_late_timestamps),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
