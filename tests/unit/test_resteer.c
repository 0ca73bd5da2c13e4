/* SPDX-License-Identifier: BSD-3-Clause */
/* A SYN that failed goes to another backend, and what the one before still has to say about it. */
#include "wall_talk.h"

#include "wall.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static void refused_goes_elsewhere(bool v6, unsigned workers)
{
	begin_rig(workers, N_BACKENDS);
	for (unsigned client = 0; client < 4; client++) {
		struct talk t = begin(PROTO_TCP, v6, client), now = refuse(&t);
		struct sent s;

		/* The client's own next SYN follows. */
		s = exchange(RIG_WAN, from_client(&now, TCP_SYN, ISN, 0));
		learn(&t, &s);
		assert_true(ipaddr_equal(&t.backend, &now.backend) && t.snat_port_be == now.snat_port_be);
		finish(&now);
	}
	assert_int_equal(verdicts(VERDICT_absorb_refusal), 4);
	assert_int_equal(did(ACTION_resteer), 4);
	assert_int_equal(made(MADE_syn_resteer), 4);
	assert_int_equal(n_tuples(), 4);
	pass_ms(10100);
	assert_int_equal(n_tuples(), 0);
	stop();
}

static void test_refused_goes_elsewhere(void **state)
{
	each_way(refused_goes_elsewhere);
}

static const uint8_t linux_options[] = {2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7};

/* What is sent again is all that the client sent, but for one hop. */
static void test_syn_is_the_clients(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 5};
		unsigned l4 = ETH + (v6 ? 40 : 20);
		uint8_t frame[FRAME_MAX];
		size_t len = make_syn(frame, &t, TCP_ECE | TCP_CWR, linux_options, sizeof(linux_options));
		struct sent first, again;

		begin_rig(1, N_BACKENDS);
		feed_raw(RIG_WAN, 0, frame, len);
		turn();
		take_right(&first);
		learn(&t, &first);
		again = exchange(RIG_LAN, refusal(&t));
		assert_int_equal(again.len, first.len);
		assert_int_equal(again.p.ttl, first.p.ttl);
		/* All of the transport header but source port and checksum. */
		assert_memory_equal(again.frame + l4 + 2, first.frame + l4 + 2, 14);
		assert_memory_equal(again.frame + l4 + 18, first.frame + l4 + 18, 22);
		stop();
	}
}

/* What is wrong with a SYN that backends or routers may pass over in silence. */
enum odd {
	ODD_CHECKSUM,
	ODD_TTL,
	ODD_MD5,
	ODD_AO,
	ODD_MALFORMED,
	ODD_UNKNOWN,
	ODD_MSS,
	ODD_MSS_LENGTH,
	ODD_PSH,
	ODD_URG,
	ODD_DATA,
	ODDS,
};

static size_t make_odd(uint8_t *frame, const struct talk *t, enum odd odd)
{
	static const uint8_t options[ODDS][20] = {
		[ODD_CHECKSUM] = {2, 4, 5, 180},
		[ODD_TTL] = {2, 4, 5, 180},
		[ODD_MD5] = {19, 18},
		[ODD_AO] = {1, 1, 29, 16},
		[ODD_MALFORMED] = {2, 0},
		[ODD_UNKNOWN] = {2, 4, 5, 180, 77, 2},
		[ODD_MSS] = {2, 4, 2, 23},
		[ODD_MSS_LENGTH] = {2, 6, 5, 180},
	};
	size_t len = make_syn(frame, t, odd == ODD_PSH ? TCP_PSH : odd == ODD_URG ? TCP_URG : 0, options[odd], 20);

	if (odd == ODD_CHECKSUM)
		frame[ETH + (t->v6 ? 40 : 20) + 16] ^= 0x40;
	if (odd == ODD_TTL)
		frame[ETH + (t->v6 ? 7 : 8)] = 16;
	if (odd == ODD_TTL && !t->v6)
		frame_fix_ip4(frame + ETH);
	if (odd == ODD_DATA) { /* what were options */
		frame[ETH + (t->v6 ? 40 : 20) + 12] = 5 << 4;
		fix_tcp(frame, t->v6);
	}
	return len;
}

/* It is passed on, and what becomes of it is between its sender and the backend. */
static void odd_syn(bool v6, enum odd odd)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 5};
	uint8_t frame[FRAME_MAX];
	size_t len = make_odd(frame, &t, odd);
	struct sent s;

	begin_rig(1, N_BACKENDS);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	assert_true(take(&s));
	learn(&t, &s);
	pass_ms(2000);
	take_none();
	assert_int_equal(*word_of(v6, &t.backend), 0);
	s = exchange(RIG_LAN, refusal(&t));
	assert_int_equal(s.port, RIG_WAN);
	assert_int_equal(*word_of(v6, &t.backend), 0);
	assert_int_equal(did(ACTION_resteer), 0);
	stop();
	/* As the second SYN of a flow it ends what the first one had begun, unless it is none to anybody. */
	if (odd == ODD_CHECKSUM)
		return;
	begin_rig(1, N_BACKENDS);
	t = begin(PROTO_TCP, v6, 5);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	assert_true(take(&s));
	pass_ms(2000);
	take_none();
	assert_int_equal(*word_of(v6, &t.backend), 0);
	s = exchange(RIG_LAN, refusal(&t));
	assert_int_equal(s.port, RIG_WAN);
	stop();
}

/* And what is not odd: what it says of ECN, the least MSS, fast open with data. */
static void ordinary_syn(bool v6, uint8_t flags, const uint8_t *options, unsigned len)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 5};
	uint8_t frame[FRAME_MAX];
	size_t frame_len = make_syn(frame, &t, flags, options, len);
	struct sent s;

	if (len == 12) { /* the last eight are data */
		frame[ETH + (v6 ? 40 : 20) + 12] = (20 + 4) / 4 << 4;
		fix_tcp(frame, v6);
	}
	begin_rig(1, N_BACKENDS);
	feed_raw(RIG_WAN, 0, frame, frame_len);
	turn();
	take_right(&s);
	learn(&t, &s);
	assert_in_range(ms_until_sent(&s, 3000), 1000, 1000 + WHEEL_TICK_MS);
	assert_int_equal(streak_of(v6, &t.backend).failures[CONNECT_SILENT], 1);
	stop();
}

static void test_ordinary_syns(void **state)
{
	static const uint8_t least_mss[] = {2, 4, 2, 24}, fast_open[12] = {34, 2, 1, 1};

	for (int v6 = 0; v6 < 2; v6++) {
		ordinary_syn(v6, 0, NULL, 0);
		ordinary_syn(v6, TCP_ECE | TCP_CWR, linux_options, sizeof(linux_options));
		ordinary_syn(v6, 0, least_mss, sizeof(least_mss));
		ordinary_syn(v6, 0, fast_open, sizeof(fast_open));
	}
}

static void test_odd_syns_say_nothing(void **state)
{
	for (enum odd odd = 0; odd < ODDS; odd++) {
		odd_syn(false, odd);
		odd_syn(true, odd);
	}
}

/* Nor do their handshakes, which take as long as others', make the backend's SYNs be waited for longer. */
static void test_odd_handshakes(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t frame[FRAME_MAX];
		unsigned client;
		struct sent s;

		begin_rig(1, 1);
		client = warm_up(v6, 0);
		for (unsigned i = 0; i < 20; i++) {
			struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client + i};

			feed_raw(RIG_WAN, 0, frame, make_odd(frame, &t, ODD_TTL));
			turn();
			take_right(&s);
			learn(&t, &s);
			exchange(RIG_LAN, syn_ack(&t));
		}
		assert_int_equal(
			wall_syn_timeout_ms(&rig.worker->backends[slot_of(v6, &rig.backends[v6][SET_TCP][0].addr)]),
			200);
		stop();
	}
}

/* A damaged SYN behind a right one: it is passed on, and the first one is what goes elsewhere. */
static void test_damaged_again(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t frame[FRAME_MAX];
		struct talk t;
		struct sent s;
		size_t len;

		begin_rig(1, N_BACKENDS);
		t = begin(PROTO_TCP, v6, 5);
		len = make_odd(frame, &t, ODD_CHECKSUM);
		feed_raw(RIG_WAN, 0, frame, len);
		turn();
		assert_true(take(&s));
		assert_non_null(frame_checksum_error(s.frame));
		t = refuse(&t);
		finish(&t);
		stop();
	}
}

/* F1: a second until handshakes are known, ten times theirs after that, and never later than a tick. */
static void silent_goes_elsewhere(bool v6, unsigned workers)
{
	unsigned client;
	struct talk t;
	struct sent s;
	uint64_t ms;

	begin_rig(workers, N_BACKENDS);
	t = begin(PROTO_TCP, v6, 0);
	ms = ms_until_sent(&s, 3000);
	assert_in_range(ms, 1000, 1000 + WHEEL_TICK_MS);
	t = moved(&t, &s);
	finish(&t);
	client = warm_up(v6, 1);
	t = begin(PROTO_TCP, v6, client);
	ms = ms_until_sent(&s, 3000);
	assert_in_range(ms, 200, 200 + WHEEL_TICK_MS);
	t = moved(&t, &s);
	finish(&t);
	assert_int_equal(did(ACTION_resteer), 2);
	stop();
}

static void test_silent_goes_elsewhere(void **state)
{
	each_way(silent_goes_elsewhere);
}

/* A SYN that had a second left goes to a backend of which more is known: its time there is short. */
static void test_timer_moves_with_it(void **state)
{
	unsigned client = 0;
	struct talk t, now;

	begin_rig(1, 2);
	for (; client < 100; client++) {
		t = begin(PROTO_TCP, false, client);
		if (t.backend.b[15] == 1)
			exchange(RIG_LAN, syn_ack(&t));
	}
	t = begin_to(&rig.backends[0][SET_TCP][1].addr, false, &client);
	now = refuse(&t);
	assert_int_equal(wall_syn_timeout_ms(&rig.worker->backends[0]), 200);
	pass_ms(200 + WHEEL_TICK_MS + 40);
	assert_int_equal(streak_of(false, &now.backend).failures[CONNECT_SILENT], 1);
	stop();
}

/* Slow handshakes are waited for. */
static void test_timeout_follows_handshakes(void **state)
{
	struct backend_cell cell = {0};

	assert_int_equal(wall_syn_timeout_ms(&cell), 1000);
	cell.handshakes = 9;
	cell.handshake_ms8 = 5 * 8;
	assert_int_equal(wall_syn_timeout_ms(&cell), 1000);
	cell.handshakes = 10;
	assert_int_equal(wall_syn_timeout_ms(&cell), 200);
	cell.handshake_ms8 = 40 * 8;
	assert_int_equal(wall_syn_timeout_ms(&cell), 400);
	cell.handshake_ms8 = 300 * 8;
	assert_int_equal(wall_syn_timeout_ms(&cell), 1000);
	begin_rig(1, 1);
	for (unsigned client = 0; client < 40; client++) {
		struct talk t = begin(PROTO_TCP, false, client);

		rig.now_ns += 40000000;
		exchange(RIG_LAN, syn_ack(&t));
	}
	assert_int_equal(wall_syn_timeout_ms(&rig.worker->backends[0]), 400);
	/* A SYN that was sent twice tells no time (Karn). */
	for (unsigned client = 40; client < 80; client++) {
		struct talk t = begin(PROTO_TCP, false, client);

		exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		exchange(RIG_LAN, syn_ack(&t));
	}
	assert_int_equal(wall_syn_timeout_ms(&rig.worker->backends[0]), 400);
	stop();
}

/* Whatever the backend says to a SYN but its answer: it is not silent, and the flow goes elsewhere all the same. */
static void test_odd_answers_are_heard(void **state)
{
	static const struct {
		uint8_t flags;
		uint32_t seq, ack;
	} odd[] = {
		{TCP_ACK, 0x5000, 0x777},             /* of a connection that it still has, or in TIME_WAIT */
		{TCP_ACK | TCP_PSH, 0x5000, ISN + 1}, /* its data */
		{TCP_ACK | TCP_FIN, 0x5000, ISN + 1}, /* its end */
		{TCP_SYN | TCP_ACK, 5, 5},            /* for another SYN */
		{TCP_RST, 0x777, 0},                  /* without an acknowledgement, */
		{TCP_RST | TCP_ACK, 0, ISN + 77},     /* and with a wrong one */
	};

	for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		struct sent s;
		struct talk t;

		begin_rig(1, N_BACKENDS);
		t = begin(PROTO_TCP, false, 0);
		pass_ms(100);
		feed(RIG_LAN, from_backend(&t, odd[i].flags, odd[i].seq, odd[i].ack));
		turn();
		take_all();
		assert_in_range(ms_until_sent(&s, 3000), 900, 900 + WHEEL_TICK_MS);
		moved(&t, &s);
		assert_int_equal(*word_of(false, &t.backend), 0);
		assert_int_equal(report_of(false, &t.backend).overloads, 1);
		stop();
	}
}

/* Neither the client's next SYN nor any other packet moves the deadline. */
static void retransmission(bool speaks)
{
	struct sent s;
	struct talk t;
	uint64_t ms = 0;

	begin_rig(1, N_BACKENDS);
	t = begin(PROTO_TCP, false, 0);
	for (; ms < 1000; ms += 50) {
		rig.now_ns += 50000000;
		s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		learn(&t, &s);
		if (speaks)
			exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, 5, 5));
	}
	ms += ms_until_sent(&s, 3000);
	assert_in_range(ms, 1000, 1000 + WHEEL_TICK_MS);
	moved(&t, &s);
	assert_int_equal(streak_of(false, &t.backend).failures[CONNECT_SILENT], !speaks);
	assert_int_equal(report_of(false, &t.backend).overloads, speaks);
	/* And the flow lives as long as it would have, from its last SYN on. */
	pass_ms(14900);
	assert_int_equal(n_flows(), 1);
	pass_ms(300);
	assert_int_equal(n_flows(), 0);
	stop();
}

static void test_retransmission_postpones_nothing(void **state)
{
	retransmission(false);
	retransmission(true);
}

/* F3: destination unreachable alone, and not "fragmentation needed". */
static void unreachable(bool v6, uint8_t type, uint8_t code, bool counts)
{
	struct sent s, error;
	struct talk t = {.v6 = v6, .proto = PROTO_TCP};
	uint8_t frame[FRAME_MAX];
	size_t len;

	begin_rig(1, N_BACKENDS);
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	learn(&t, &s);
	len = make_error(frame, s.frame, t.backend, type, code, !v6 && code == 4 ? 40 : v6 && type == 2 ? 60 : 0);
	feed_raw(RIG_LAN, 0, frame, len);
	turn();
	take_right(&error);
	take_none();
	assert_int_equal(streak_of(v6, &t.backend).failures[CONNECT_UNREACHABLE], counts);
	if (counts) {
		struct talk now = moved(&t, &error);

		assert_int_equal(verdicts(VERDICT_absorb_unreachable), 1);
		/* The same once more is about a ghost. */
		feed_raw(RIG_LAN, 0, frame, len);
		turn();
		take_none();
		assert_int_equal(verdicts(VERDICT_drop_ghost), 1);
		assert_int_equal(streak_of(v6, &t.backend).failures[CONNECT_UNREACHABLE], 1);
		finish(&now);
	} else {
		assert_int_equal(error.port, RIG_WAN);
		assert_int_equal(error.p.kind, PACKET_ICMP_ERROR);
	}
	stop();
}

static void test_unreachable_goes_elsewhere(void **state)
{
	unreachable(false, 3, 0, true);
	unreachable(false, 3, 1, true);
	unreachable(false, 3, 3, true);
	unreachable(false, 3, 13, true);
	unreachable(false, 11, 0, false);
	unreachable(true, 1, 0, true);
	unreachable(true, 1, 4, true);
	unreachable(true, 3, 0, false);
	unreachable(true, 4, 0, false);
}

/* At most once: the second refusal is the client's, in the VIP's name. */
static void test_once(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct ipaddr vip = rig_vip(v6), src;
		struct talk t, now;
		struct sent s;

		begin_rig(1, N_BACKENDS);
		t = begin(PROTO_TCP, v6, 3);
		now = refuse(&t);
		s = exchange(RIG_LAN, refusal(&now));
		src = packet_src(s.frame, &s.p);
		assert_int_equal(s.port, RIG_WAN);
		assert_int_equal(s.p.tcp_flags, TCP_RST | TCP_ACK);
		assert_int_equal(ack(&s), ISN + 1);
		assert_true(ipaddr_equal(&src, &vip));
		assert_int_equal(only_state(v6), FLOW_CLOSED);
		/* Each of the two is one failure's. */
		assert_int_equal(report_of(v6, &t.backend).failures, 1);
		assert_int_equal(report_of(v6, &t.backend).resteered, 1);
		assert_int_equal(report_of(v6, &now.backend).failures, 1);
		assert_int_equal(report_of(v6, &now.backend).resteered, 0);
		assert_int_equal(report_of(v6, &now.backend).new_flows, 1);
		stop();
	}
}

/* There is no other one: the client hears what there is to hear, and the SYN stays. */
static void test_nowhere_else(void **state)
{
	struct talk t;
	struct sent s;

	begin_rig(1, 1);
	t = begin(PROTO_TCP, false, 3);
	pass_ms(2000);
	take_none();
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	assert_int_equal(s.p.sport_be, t.snat_port_be);
	s = exchange(RIG_LAN, refusal(&t));
	assert_int_equal(s.port, RIG_WAN);
	/* One SYN is blamed once, whatever it met. */
	assert_int_equal(streak_of(false, &t.backend).failures[CONNECT_SILENT], 1);
	assert_int_equal(streak_of(false, &t.backend).failures[CONNECT_REFUSED], 0);
	assert_int_equal(did(ACTION_resteer), 0);
	stop();
}

/* Never after the handshake. */
static void test_established_stays(void **state)
{
	struct talk t;
	struct sent s;

	begin_rig(1, N_BACKENDS);
	t = begin(PROTO_TCP, false, 3);
	exchange(RIG_LAN, syn_ack(&t));
	pass_ms(2000);
	take_none();
	s = exchange(RIG_LAN, from_backend(&t, TCP_RST, PEER + 1, 0));
	assert_int_equal(s.port, RIG_WAN);
	assert_int_equal(did(ACTION_resteer), 0);
	assert_int_equal(*word_of(false, &t.backend), 0);
	stop();
}

/* --- ghosts --- */

static void ghost(bool v6, unsigned workers)
{
	struct talk t, now;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	for (unsigned client = 0; client < 4; client++) {
		t = begin(PROTO_TCP, v6, client);
		assert_int_not_equal(ms_until_sent(&s, 2000), UINT64_MAX);
		now = moved(&t, &s);
		/* the client sees one SYN-ACK, that of the backend that it has. */
		s = exchange(RIG_LAN, syn_ack(&t));
		assert_int_equal(s.port, RIG_LAN);
		assert_int_equal(s.p.tcp_flags, TCP_RST);
		assert_int_equal(seq(&s), ISN + 1);
		assert_int_equal(s.p.sport_be, t.snat_port_be);
		refused(RIG_LAN, from_backend(&t, TCP_ACK, PEER, ISN + 1), VERDICT_drop_ghost);
		refused(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + 1), VERDICT_drop_ghost);
		refused(RIG_LAN, with_payload(from_backend(&t, TCP_PSH | TCP_ACK, PEER + 1, ISN + 1), 10),
			VERDICT_drop_ghost);
		finish(&now);
		/* However late: it answered. */
		assert_int_equal(*word_of(v6, &t.backend), 0);
	}
	assert_int_equal(verdicts(VERDICT_answer_ghost), 4);
	/* It keeps the port and the slot for ten seconds. */
	assert_int_equal(n_tuples(), 4);
	assert_false(dataplane_backend_unused(rig.dp, slot_of(v6, &t.backend)));
	pass_ms(10200);
	assert_int_equal(n_tuples(), 0);
	rest();
	s = exchange(RIG_LAN, syn_ack(&t));
	assert_int_equal(verdicts(VERDICT_answer_stray_rst), 1);
	stop();
}

static void test_ghost(void **state)
{
	each_way(ghost);
}

/* A slot that only a ghost holds is not given to another backend. */
static void test_ghost_holds_its_slot(void **state)
{
	struct talk t, now;

	begin_rig(1, 2);
	t = begin(PROTO_TCP, false, 3);
	now = refuse(&t);
	assert_int_equal(report_of(false, &t.backend).flows, 0);
	assert_false(dataplane_backend_unused(rig.dp, slot_of(false, &t.backend)));
	assert_false(dataplane_backend_unused(rig.dp, slot_of(false, &now.backend)));
	exchange(RIG_LAN, refusal(&now));
	pass_ms(10200);
	assert_true(dataplane_backend_unused(rig.dp, slot_of(false, &t.backend)));
	assert_true(dataplane_backend_unused(rig.dp, slot_of(false, &now.backend)));
	stop();
}

/* More of them than there is room for: the oldest give way, and what comes for those is a stray. */
static void test_ghosts_full(void **state)
{
	const unsigned n = TUPLES_MAX + 100;
	struct talk *talks = calloc(n, sizeof(*talks));
	struct sent s;

	assert_non_null(talks);
	begin_rig(1, 2);
	rig.service.breaker_consecutive = 60000;
	for (unsigned client = 0; client < n; client++) {
		talks[client] = begin(PROTO_TCP, false, client);
		refuse(&talks[client]);
		/* So that none ends by itself meanwhile. */
		assert_true(rig.now_ns < 2000000000);
	}
	assert_int_equal(n_tuples(), TUPLES_MAX);
	assert_int_equal(rig.worker->tuples.cut_short, 100);
	s = exchange(RIG_LAN, syn_ack(&talks[99]));
	assert_int_equal(s.p.tcp_flags, TCP_RST);
	assert_int_equal(verdicts(VERDICT_answer_stray_rst), 1);
	s = exchange(RIG_LAN, syn_ack(&talks[100]));
	assert_int_equal(verdicts(VERDICT_answer_ghost), 1);
	free(talks);
	stop();
}

/* A refusal among other packets of its flow, from both sides and both backends, in one burst. */
static void test_burst(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t, now;
		struct sent s;

		begin_rig(1, N_BACKENDS);
		rig.service.reuse.assist = false;
		t = begin(PROTO_TCP, v6, 3);
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		feed(RIG_LAN, from_backend(&t, TCP_ACK, 5, 5));
		feed(RIG_LAN, refusal(&t));
		feed(RIG_LAN, refusal(&t));
		feed(RIG_LAN, syn_ack(&t));
		turn();
		/* The client's second SYN passed in the burst of the other port. */
		take_right(&s);
		learn(&t, &s);
		now = take_moved(&t);
		take_right(&s);
		assert_int_equal(s.port, RIG_LAN);
		assert_int_equal(s.p.tcp_flags, TCP_RST);
		assert_int_equal(s.p.sport_be, t.snat_port_be);
		take_none();
		assert_int_equal(verdicts(VERDICT_absorb_refusal), 1);
		assert_int_equal(verdicts(VERDICT_drop_ghost), 2);
		assert_int_equal(verdicts(VERDICT_answer_ghost), 1);
		finish(&now);
		stop();
	}
}

/* The same through one port, where client and backend share a burst. */
static void test_burst_of_both_sides(void **state)
{
	struct talk t, now;
	struct sent s;

	begin_rig(1, N_BACKENDS);
	rig.service.reuse.assist = false;
	t = begin(PROTO_TCP, false, 3);
	feed(RIG_LAN, from_client(&t, TCP_SYN, ISN, 0));
	feed(RIG_LAN, from_backend(&t, TCP_ACK, 5, 5));
	feed(RIG_LAN, refusal(&t));
	feed(RIG_LAN, from_client(&t, TCP_SYN, ISN, 0));
	turn();
	now = take_moved(&t);
	for (int i = 0; i < 2; i++) {
		struct talk again = take_moved(&t);

		assert_true(ipaddr_equal(&again.backend, &now.backend) && again.snat_port_be == now.snat_port_be);
	}
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_ghost), 1);
	s = exchange(RIG_LAN, syn_ack(&now));
	assert_int_equal(s.port, RIG_WAN);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused_goes_elsewhere),
		cmocka_unit_test(test_syn_is_the_clients),
		cmocka_unit_test(test_ordinary_syns),
		cmocka_unit_test(test_odd_syns_say_nothing),
		cmocka_unit_test(test_odd_handshakes),
		cmocka_unit_test(test_damaged_again),
		cmocka_unit_test(test_silent_goes_elsewhere),
		cmocka_unit_test(test_timer_moves_with_it),
		cmocka_unit_test(test_timeout_follows_handshakes),
		cmocka_unit_test(test_odd_answers_are_heard),
		cmocka_unit_test(test_retransmission_postpones_nothing),
		cmocka_unit_test(test_unreachable_goes_elsewhere),
		cmocka_unit_test(test_once),
		cmocka_unit_test(test_nowhere_else),
		cmocka_unit_test(test_established_stays),
		cmocka_unit_test(test_ghost),
		cmocka_unit_test(test_ghost_holds_its_slot),
		cmocka_unit_test(test_ghosts_full),
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_burst_of_both_sides),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
