/* SPDX-License-Identifier: BSD-3-Clause */
/* What the upstream side's numbers are, on the wire itself. */
#include "checksum.h"
#include "numbers.h"
#include "talk.h"
#include "tcp_options.h"

#include <stdlib.h>
#include <string.h>

#define TSVAL 0xfffffffau /* of the client's SYN: wraps soon */
#define ECHO  900000u     /* of the backend's SYN-ACK */

/* --- segments with options --- */

struct segment {
	uint8_t flags;
	uint32_t seq, ack;
	uint16_t len;
	uint8_t options[40], options_len;
};

static void put32(uint8_t *at, uint32_t value)
{
	uint32_t value_be = htonl(value);

	memcpy(at, &value_be, 4);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value_be;

	memcpy(&value_be, at, 4);
	return ntohl(value_be);
}

static void add_nops(struct segment *g, unsigned n)
{
	memset(g->options + g->options_len, TCP_OPTION_NOP, n);
	g->options_len += n;
}

static void add_timestamps(struct segment *g, uint32_t tsval, uint32_t tsecr)
{
	uint8_t *at = g->options + g->options_len;

	at[0] = TCP_OPTION_TIMESTAMPS;
	at[1] = TCP_OPTION_TIMESTAMPS_LEN;
	put32(at + 2, tsval);
	put32(at + 6, tsecr);
	g->options_len += TCP_OPTION_TIMESTAMPS_LEN;
}

static void add_sack(struct segment *g, const uint32_t *edges, unsigned n)
{
	uint8_t *at = g->options + g->options_len;

	at[0] = TCP_OPTION_SACK;
	at[1] = 2 + 4 * n;
	for (unsigned i = 0; i < n; i++)
		put32(at + 2 + 4 * i, edges[i]);
	g->options_len += at[1];
}

static size_t make(uint8_t *frame, const struct talk *t, bool up, const struct segment *g)
{
	struct frame_spec spec =
		up ? from_client(t, g->flags, g->seq, g->ack) : from_backend(t, g->flags, g->seq, g->ack);
	unsigned pad = -g->options_len & 3, options_len = g->options_len + pad;
	uint8_t *ip = frame + ETH;
	struct rte_tcp_hdr *header = (void *)(ip + (t->v6 ? 40 : 20));
	size_t len;

	len = frame_make(&(struct frame_spec){.src = spec.src,
					      .dst = spec.dst,
					      .sport_be = spec.sport_be,
					      .dport_be = spec.dport_be,
					      .proto = PROTO_TCP,
					      .tcp_flags = g->flags,
					      .seq_be = spec.seq_be,
					      .ack_be = spec.ack_be,
					      .payload_len = g->len + options_len},
			 frame);
	memcpy(header + 1, g->options, g->options_len);
	memset((uint8_t *)(header + 1) + g->options_len, TCP_OPTION_END, pad);
	header->data_off = (20 + options_len) / 4 << 4;
	header->cksum = 0;
	header->cksum = t->v6 ? rte_ipv6_udptcp_cksum((void *)ip, header) : rte_ipv4_udptcp_cksum((void *)ip, header);
	return len;
}

static struct sent pass(const struct talk *t, bool up, const struct segment *g)
{
	uint8_t frame[FRAME_MAX];
	struct sent s;

	feed_raw(up ? RIG_WAN : RIG_LAN, 0, frame, make(frame, t, up, g));
	turn();
	take_right(&s);
	take_none();
	assert_int_equal(s.port, up ? RIG_LAN : RIG_WAN);
	return s;
}

static const uint8_t *option_of(const struct sent *s, uint8_t kind)
{
	const uint8_t *options = (const uint8_t *)(tcp(s) + 1);
	unsigned len = tcp_options_len(tcp(s));

	for (unsigned at = 0; (at = tcp_option_at(options, len, at)) < len; at += options[at + 1])
		if (options[at] == kind)
			return options + at;
	return NULL;
}

static uint32_t tsval(const struct sent *s)
{
	return get32(option_of(s, TCP_OPTION_TIMESTAMPS) + 2);
}

static uint32_t tsecr(const struct sent *s)
{
	return get32(option_of(s, TCP_OPTION_TIMESTAMPS) + 6);
}

/* --- a connection --- */

struct shifts {
	uint32_t seq, ts;
};

static struct segment syn_of(uint32_t isn, uint32_t clock, bool with_timestamps)
{
	struct segment syn = {.flags = TCP_SYN, .seq = isn};

	if (with_timestamps) {
		add_timestamps(&syn, clock, 0);
		add_nops(&syn, 1);
	}
	return syn;
}

static struct shifts begin_numbers(struct talk *t, bool v6, unsigned client, uint32_t isn, uint32_t clock)
{
	struct segment syn = syn_of(isn, clock, true);
	struct sent s;

	*t = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = client};
	s = pass(t, true, &syn);
	learn(t, &s);
	return (struct shifts){seq(&s) - isn, tsval(&s) - clock};
}

static struct shifts establish_numbers(struct talk *t, bool v6, uint32_t isn)
{
	struct shifts d = begin_numbers(t, v6, 3, isn, TSVAL);
	struct segment syn_ack = {.flags = TCP_SYN | TCP_ACK, .seq = PEER, .ack = isn + 1 + d.seq};
	struct segment ack_of_it = {.flags = TCP_ACK, .seq = isn + 1, .ack = PEER + 1};
	struct sent s;

	add_timestamps(&syn_ack, ECHO, TSVAL + d.ts);
	s = pass(t, false, &syn_ack);
	assert_int_equal(ack(&s), isn + 1);
	assert_int_equal(tsecr(&s), TSVAL);
	add_nops(&ack_of_it, 2);
	add_timestamps(&ack_of_it, TSVAL, ECHO);
	pass(t, true, &ack_of_it);
	return d;
}

static void begin_bare(struct rig_config config)
{
	config.n_backends = config.n_backends ? config.n_backends : 1;
	start(config);
	bare = true;
	rig.now_ns += 123456789012345;
	turn();
}

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
			uint8_t frame[FRAME_MAX];
			struct sent s;
			size_t len;

			memcpy(down.options, odd[i], 8);
			s = pass(&t, false, &down);
			assert_int_equal(ack(&s), ISN + 1);
			len = make(frame, &t, false, &down);
			frame[len - 1] ^= 0x10;
			feed_raw(RIG_LAN, 0, frame, len);
			turn();
			assert_true(take(&s));
			assert_non_null(frame_checksum_error(s.frame));
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
	uint8_t frame[FRAME_MAX];
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

		rst.ack = seq(&s) + 1;
		syn = syn_of(i, i, true);
		feed_raw(RIG_LAN, 0, frame, make(frame, &t, false, &rst));
		feed_raw(RIG_LAN, 0, frame, make(frame, &t, true, &syn));
		turn();
		take_right(&s);
		assert_int_equal(s.p.tcp_flags, TCP_RST | TCP_ACK);
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
		uint8_t frame[FRAME_MAX];
		struct talk t;

		begin_bare((struct rig_config){0});
		d = begin_numbers(&t, v6, 3, ISN, TSVAL);
		feed_raw(RIG_LAN, 0, frame, make(frame, &t, false, &old));
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
		feed_raw(RIG_LAN, 0, frame, make(frame, &t, false, &old));
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
	uint8_t frame[FRAME_MAX];
	struct segment syn = syn_of(ISN, TSVAL, true);
	struct shifts d;
	struct talk t;
	struct sent s;
	size_t len;

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
	len = make(frame, &t, true, &syn);
	frame[ETH + 20 + 16] ^= 1;
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	assert_true(take(&s));
	learn(&t, &s);
	pass(&t, false, &old);
	assert_int_equal(verdicts(VERDICT_absorb_time_wait), 0);
	stop();
}

/* --- ICMP errors --- */

/* C.4: what is quoted to an endpoint is what it sent, to the last number; what was not under way is no quote. */
static void test_quotes(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, up = n & 2;
		struct segment g = {.flags = TCP_ACK, .len = 100};
		uint8_t frame[FRAME_MAX], error[FRAME_MAX], type = v6 ? 1 : 3, code = v6 ? 4 : 3;
		struct ipaddr router = rig_client(77, v6);
		struct shifts d;
		struct talk t;
		struct sent s, quote;
		size_t len;

		begin_bare((struct rig_config){0});
		d = establish_numbers(&t, v6, ISN);
		g.seq = up ? ISN + 1 : PEER + 1;
		g.ack = up ? PEER + 1 : ISN + 1 + d.seq;
		add_nops(&g, 2);
		add_timestamps(&g, up ? TSVAL + 9 : ECHO + 9, up ? ECHO : TSVAL + d.ts);
		s = pass(&t, up, &g);
		len = make(frame, &t, up, &g);
		feed_raw(up ? RIG_LAN : RIG_WAN, 0, error, make_error(error, s.frame, router, type, code, 0));
		turn();
		take_right(&quote);
		assert_int_equal(quote.port, up ? RIG_WAN : RIG_LAN);
		/* But for the TTL and the IPv4 header's checksum. */
		assert_memory_equal(quote.frame + quote.p.l4_off + 8 + (v6 ? 40 : 20), frame + ETH + (v6 ? 40 : 20),
				    len - ETH - (v6 ? 40 : 20));
		/* The client's own number is none of what went to the backend. */
		if (up) {
			put32(s.frame + s.p.l4_off + 4, ISN + 1);
			feed_raw(RIG_LAN, 0, error, make_error(error, s.frame, router, type, code, 0));
			turn();
			take_none();
			assert_int_equal(verdicts(VERDICT_drop_icmp_sequence), 1);
		}
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
		cmocka_unit_test(test_late_timestamps),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
