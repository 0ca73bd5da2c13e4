/* SPDX-License-Identifier: BSD-3-Clause */
/* Handshakes that are not as they should be: what they leave of the numbers, and what a backend in TIME_WAIT gets. */
#include "numbers_talk.h"

#define OLD_SEQ      4444u /* of the acknowledgement that a backend in TIME_WAIT gives a SYN */
#define OLD_ACK      5555u

/* In the TCP header. */
#define AT_SEQ_END   7
#define AT_ACK       8
#define AT_CHECKSUM  16
#define AT_SYN_TSVAL 22

static const struct segment of_old_life = {.flags = TCP_ACK, .seq = OLD_SEQ, .ack = OLD_ACK};

static uint32_t clock_ms(void)
{
	return CLOCK_MS(rig.now_ns);
}

/* It gets a RST that it believes, and the SYN again, with these numbers of the wire. */
static void check_assisted(const struct talk *t, const struct sent *syn)
{
	struct sent rst, again;

	put(t, false, &of_old_life);
	turn();
	take_right(&rst);
	check_rst(&rst, RIG_LAN, TCP_RST, OLD_ACK, 0);
	take_right(&again);
	take_none();
	assert_int_equal(again.port, RIG_LAN);
	assert_int_equal(again.p.tcp_flags, TCP_SYN);
	assert_int_equal(again.p.sport_be, t->snat_port_be);
	assert_int_equal(seq(&again), seq(syn));
	assert_int_equal(tsval(&again), tsval(syn));
}

/* It is the client's to end the old life. */
static void check_not_assisted(const struct talk *t, uint32_t seq_shift)
{
	struct sent s = pass(t, false, &of_old_life);

	assert_int_equal(s.p.tcp_flags, TCP_ACK);
	assert_int_equal(ack(&s), OLD_ACK - seq_shift);
	assert_int_equal(verdicts(VERDICT_absorb_time_wait), 0);
}

static struct talk client_of(bool v6)
{
	return (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = 4};
}

/* --- what a burst holds of the old life leaves with the numbers of that --- */

/* Data and the RST that ends it, then the SYN of the next one. */
static void test_burst_of_two_lives(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment data = {.flags = TCP_ACK, .seq = ISN + 1, .ack = PEER + 1, .len = 10};
		struct segment rst = {.flags = TCP_RST | TCP_ACK, .seq = ISN + 11, .ack = PEER + 1};
		struct segment syn = syn_of(999999, TSVAL, true);
		struct shifts d;
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		/* A timestamp of its own, so that both constants show. */
		add_nops(&data, 2);
		add_timestamps(&data, TSVAL + 5, ECHO);
		rig.now_ns += 5000000000ull;
		turn();
		put(&t, true, &data);
		put(&t, true, &rst);
		put(&t, true, &syn);
		turn();
		take_right(&s);
		assert_int_equal(seq(&s), data.seq + d.seq);
		assert_int_equal(tsval(&s), TSVAL + 5 + d.ts);
		take_right(&s);
		check_rst(&s, RIG_LAN, TCP_RST | TCP_ACK, rst.seq + d.seq, PEER + 1);
		take_right(&s);
		assert_int_equal(s.p.tcp_flags, TCP_SYN);
		assert_int_equal(s.p.sport_be, t.snat_port_be);
		assert_int_not_equal(seq(&s) - syn.seq, d.seq);
		take_none();
		stop();
	}
}

/* The last acknowledgement of a connection that both ends closed. */
static void test_burst_after_the_end(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment fin = {.flags = TCP_ACK | TCP_FIN, .seq = ISN + 1, .ack = PEER + 1};
		struct segment back = {.flags = TCP_ACK | TCP_FIN, .seq = PEER + 1};
		struct segment last = {.flags = TCP_ACK, .seq = ISN + 2, .ack = PEER + 2};
		struct segment syn = syn_of(999999, TSVAL, true);
		struct shifts d;
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		pass(&t, true, &fin);
		back.ack = ISN + 2 + d.seq;
		pass(&t, false, &back);
		rig.now_ns += 50000000ull;
		turn();
		put(&t, true, &last);
		put(&t, true, &syn);
		turn();
		take_right(&s);
		assert_int_equal(s.p.tcp_flags, TCP_ACK);
		assert_int_equal(seq(&s), last.seq + d.seq);
		take_right(&s);
		assert_int_equal(s.p.tcp_flags, TCP_SYN);
		assert_int_equal(s.p.sport_be, t.snat_port_be);
		take_none();
		stop();
	}
}

/* The backend's refusal, and the client's next try of the same SYN. */
static void test_burst_of_refusal_and_syn(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment rst = {.flags = TCP_RST | TCP_ACK}, syn = syn_of(ISN, TSVAL + 1000, true);
		struct shifts d;
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){0});
		d = begin_numbers(&t, v6, 3, ISN, TSVAL);
		rig.now_ns += 1000000000;
		turn();
		rst.ack = ISN + 1 + d.seq;
		put(&t, false, &rst);
		put_behind(&t, true, &syn);
		turn();
		take_right(&s);
		check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
		take_right(&s);
		assert_int_equal(s.p.tcp_flags, TCP_SYN);
		take_none();
		stop();
	}
}

/* --- timestamps of one SYN, or SYN-ACK, and not of the other --- */

/* In one burst the backend refuses, and the client begins anew: what it sends tells the gateway's clock, no more. */
static void check_next_life(const struct talk *t, const struct segment *rst, const struct segment *syn)
{
	struct sent s;

	put(t, false, rst);
	put_behind(t, true, syn);
	turn();
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	take_right(&s);
	assert_int_equal(tsval(&s), clock_ms());
	take_none();
}

/* A SYN without timestamps says nothing of what the next one's lie ahead of, wherever the clock stands. */
static void test_life_without_timestamps(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, late = n & 2;
		struct segment syn = syn_of(ISN, 0, false), rst = {.flags = TCP_RST | TCP_ACK};
		struct talk t = client_of(v6);
		struct sent s;

		begin_bare((struct rig_config){0});
		while (clock_ms() >> 31 != late)
			rig.now_ns += 1000000000000000;
		turn();
		s = pass(&t, true, &syn);
		learn(&t, &s);
		rst.ack = seq(&s) + 1;
		syn = syn_of(77, TSVAL, true);
		check_next_life(&t, &rst, &syn);
		stop();
	}
}

/* The first SYN of that life had timestamps, and the last one had none. */
static void test_repeat_without_timestamps(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, late = n & 2;
		struct segment syn = syn_of(ISN, 0, false), rst = {.flags = TCP_RST | TCP_ACK};
		struct shifts d;
		struct talk t;

		begin_bare((struct rig_config){0});
		d = begin_numbers(&t, v6, 3, ISN, late ? 0x60000000 : 0xa0000000);
		pass(&t, true, &syn);
		rst.ack = ISN + 1 + d.seq;
		syn = syn_of(77, 5, true);
		check_next_life(&t, &rst, &syn);
		stop();
	}
}

/* Two SYN-ACKs, of which one takes timestamps and one does not: the client may go by either. */
static void test_two_syn_acks(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, declines_first = n & 2;
		struct segment takes = {.flags = TCP_SYN | TCP_ACK, .seq = PEER}, declines = takes;
		struct segment data = {.flags = TCP_ACK, .seq = ISN + 1, .ack = PEER + 1};
		struct shifts d;
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){0});
		d = begin_numbers(&t, v6, 3, ISN, TSVAL);
		takes.ack = declines.ack = ISN + 1 + d.seq;
		declines.seq += 5000;
		add_timestamps(&takes, ECHO, TSVAL + d.ts);
		if (declines_first)
			pass(&t, false, &declines);
		s = pass(&t, false, &takes);
		assert_int_equal(tsecr(&s), TSVAL);
		if (!declines_first)
			pass(&t, false, &declines);
		add_nops(&data, 2);
		add_timestamps(&data, TSVAL + 4, ECHO);
		s = pass(&t, true, &data);
		assert_int_equal(tsval(&s), TSVAL + 4 + d.ts);
		assert_int_equal(seq(&s), ISN + 1 + d.seq);
		stop();
	}
}

/* --- a damaged SYN decides nothing --- */

/* What it says is not what its client has: the right one that comes after it is shifted by what that says. */
static void test_damaged_first(void **state)
{
	static const unsigned damages[] = {AT_SYN_TSVAL, AT_CHECKSUM, AT_SEQ_END};

	for (unsigned n = 0; n < 2 * sizeof(damages) / sizeof(damages[0]); n++) {
		bool v6 = n & 1;
		struct segment syn = syn_of(ISN, TSVAL, true), syn_ack = {.flags = TCP_SYN | TCP_ACK, .seq = PEER};
		struct talk t = client_of(v6);
		struct sent s, answer;

		begin_bare((struct rig_config){0});
		s = pass_damaged(&t, true, &syn, damages[n / 2]);
		learn(&t, &s);
		s = pass(&t, true, &syn);
		assert_int_equal(s.p.sport_be, t.snat_port_be);
		assert_int_equal(tsval(&s), clock_ms());
		check_assisted(&t, &s);
		syn_ack.ack = seq(&s) + 1;
		add_timestamps(&syn_ack, ECHO, tsval(&s));
		answer = pass(&t, false, &syn_ack);
		assert_int_equal(ack(&answer), ISN + 1);
		assert_int_equal(tsecr(&answer), TSVAL);
		stop();
	}
}

/* It is not made again, which would make it right: with the wall, and without. */
static void test_damaged_is_not_made_again(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, wall = n & 2;
		struct segment syn = syn_of(ISN, TSVAL, true);
		struct talk t = client_of(v6);
		struct sent s;

		begin_bare((struct rig_config){0});
		rig.policy.modes.of[CURE_WALL] = wall ? CURE_ENFORCE : CURE_OFF;
		s = pass_damaged(&t, true, &syn, AT_CHECKSUM);
		learn(&t, &s);
		check_not_assisted(&t, seq(&s) - ISN);
		stop();
	}
}

/* --- TIME_WAIT at the backend --- */

/* A SYN that nobody need answer is not made again either; a plain one that follows is. */
static void test_unusual_syn(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, wall = n & 2;
		struct segment syn = syn_of(ISN, TSVAL, true), plain = syn_of(ISN + 7, TSVAL, true);
		struct talk t = client_of(v6);
		struct sent s;

		begin_bare((struct rig_config){0});
		rig.policy.modes.of[CURE_WALL] = wall ? CURE_ENFORCE : CURE_OFF;
		/* Data without fast open. */
		syn.len = 10;
		s = pass(&t, true, &syn);
		learn(&t, &s);
		check_not_assisted(&t, seq(&s) - ISN);
		s = pass(&t, true, &plain);
		check_assisted(&t, &s);
		stop();
	}
}

/* Of two SYNs with numbers of their own, neither answered within a second, which the wall takes note of. */
static void test_second_syn(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment second = syn_of(77, TSVAL, true);
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){0});
		begin_numbers(&t, v6, 3, ISN, TSVAL);
		pass(&t, true, &second);
		pass_ms(1200);
		take_none();
		s = pass(&t, true, &second);
		check_assisted(&t, &s);
		stop();
	}
}

/* The backend that has the connection now is in TIME_WAIT as well as the one before it. */
static void test_second_backend(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment rst = {.flags = TCP_RST | TCP_ACK}, syn = syn_of(ISN, TSVAL, true);
		struct ipaddr first;
		struct talk t;
		struct sent s;

		begin_bare((struct rig_config){.n_backends = 3});
		t = client_of(v6);
		s = pass(&t, true, &syn);
		learn(&t, &s);
		first = t.backend;
		check_assisted(&t, &s);
		rst.ack = seq(&s) + 1;
		put(&t, false, &rst);
		turn();
		take_right(&s);
		take_none();
		learn(&t, &s);
		assert_false(ipaddr_equal(&t.backend, &first));
		check_assisted(&t, &s);
		stop();
	}
}

/* The wall in shadow changes no byte of it: a SYN whose backend is slow to answer, and in TIME_WAIT. */
static void test_shadow_of_the_wall(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		uint64_t digests[2];

		for (enum cure_mode mode = CURE_OFF; mode <= CURE_SHADOW; mode++) {
			struct segment syn = syn_of(ISN, TSVAL, true);
			struct talk t = client_of(v6);
			struct sent s;

			begin_bare((struct rig_config){.n_backends = 3});
			rig.policy.modes.of[CURE_WALL] = mode;
			s = pass(&t, true, &syn);
			learn(&t, &s);
			pass_ms(1200);
			s = pass(&t, true, &syn);
			check_assisted(&t, &s);
			digests[mode] = taken();
			stop();
		}
		assert_true(digests[CURE_OFF] == digests[CURE_SHADOW]);
	}
}

/* An acknowledgement that came damaged says nothing, and does not use up the help. */
static void test_damaged_answer(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct segment syn = syn_of(ISN, TSVAL, true);
		struct talk t = client_of(v6);
		struct sent s;

		begin_bare((struct rig_config){0});
		s = pass(&t, true, &syn);
		learn(&t, &s);
		pass_damaged(&t, false, &of_old_life, AT_ACK);
		assert_int_equal(verdicts(VERDICT_absorb_time_wait), 0);
		check_assisted(&t, &s);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_burst_of_two_lives),
		cmocka_unit_test(test_burst_after_the_end),
		cmocka_unit_test(test_burst_of_refusal_and_syn),
		cmocka_unit_test(test_life_without_timestamps),
		cmocka_unit_test(test_repeat_without_timestamps),
		cmocka_unit_test(test_two_syn_acks),
		cmocka_unit_test(test_damaged_first),
		cmocka_unit_test(test_damaged_is_not_made_again),
		cmocka_unit_test(test_unusual_syn),
		cmocka_unit_test(test_second_syn),
		cmocka_unit_test(test_second_backend),
		cmocka_unit_test(test_shadow_of_the_wall),
		cmocka_unit_test(test_damaged_answer),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
