/* SPDX-License-Identifier: BSD-3-Clause */
/* Whole packets through whole workers, between ports in memory and on a clock of the test's own. */
#include "talk.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_udp.h>

/* --- translation --- */

static void check_translated(const struct frame_spec *in, const struct sent *out)
{
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(in, frame);
	unsigned ttl_off = ETH + (out->p.family == 4 ? 8 : 7);

	assert_int_equal(out->len, len);
	assert_int_equal(out->frame[ttl_off], frame[ttl_off] - 1); /* D-7 */
	assert_memory_equal(out->frame + out->p.payload_off, frame + out->p.payload_off, in->payload_len);
}

static void nat(uint8_t proto, bool v6)
{
	struct talk t;
	struct frame_spec in;
	struct sent s;

	start((struct rig_config){.n_backends = 2});
	t = begin(proto, v6, 7);
	for (unsigned len = 0; len < 1300; len += 61) {
		in = with_payload(from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1), len);
		s = exchange(RIG_LAN, in);
		assert_int_equal(s.port, RIG_WAN);
		check_translated(&in, &s);
		in = with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), len);
		s = exchange(RIG_WAN, in);
		assert_int_equal(s.port, RIG_LAN);
		check_translated(&in, &s);
	}
	assert_int_equal(n_flows(), 1);
	stop();
}

static void test_nat(void **state)
{
	nat(PROTO_TCP, false);
	nat(PROTO_TCP, true);
	nat(PROTO_UDP, false);
	nat(PROTO_UDP, true);
}

/* D-6: a wrong checksum stays wrong, whichever bit is. */
static void test_wrong_stays_wrong(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		start((struct rig_config){.n_backends = 2});
		t = establish(v6, 3);
		for (unsigned bit = 0; bit < 16; bit++) {
			struct frame_spec spec = with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 9);
			uint8_t frame[FRAME_MAX];
			size_t len = frame_make(&spec, frame);
			struct sent s;

			frame[ETH + (v6 ? 40 : 20) + 16 + bit / 8] ^= 1 << bit % 8;
			feed_raw(RIG_WAN, 0, frame, len);
			turn();
			assert_true(take(&s));
			assert_non_null(frame_checksum_error(s.frame));
		}
		stop();
	}
}

static void test_udp_zero_checksum(void **state)
{
	struct talk t;
	struct frame_spec spec;
	uint8_t frame[FRAME_MAX];
	struct sent s;
	size_t len;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_UDP, false, 1);
	spec = with_payload(from_client(&t, 0, 0, 0), 5);
	len = frame_make(&spec, frame);
	memset(frame + ETH + 20 + 6, 0, 2);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_right(&s);
	assert_int_equal(((const struct rte_udp_hdr *)(s.frame + s.p.l4_off))->dgram_cksum, 0);
	stop();
}

static void test_vlan_and_padding(void **state)
{
	struct frame_spec spec = from_client(&(struct talk){.proto = PROTO_TCP, .client = 5}, TCP_SYN, ISN, 0);
	uint8_t frame[FRAME_MAX] = {0};
	struct sent s;
	size_t len;

	start((struct rig_config){.n_backends = 1});
	len = frame_tag(frame, frame_make(&spec, frame), 0x8100, 0xa000);
	feed_raw(RIG_WAN, 0, frame, len + 6); /* and six bytes beyond the IP packet */
	turn();
	take_right(&s);
	assert_int_equal(s.p.l3_off, ETH);
	assert_int_equal(s.p.payload_len, 0);
	/* A VLAN is another network, which no port has. */
	len = frame_tag(frame, frame_make(&spec, frame), 0x8100, 5);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_vlan), 1);
	stop();
}

/* What hangs behind the IP packet in a frame passes no MTU. */
static void test_trailer(void **state)
{
	struct frame_spec spec = from_client(&(struct talk){.proto = PROTO_TCP, .client = 5}, TCP_SYN, ISN, 0);
	uint8_t frame[FRAME_MAX] = {0};
	struct sent s;
	size_t len;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 1300});
	len = frame_make(&spec, frame);
	for (int tagged = 0; tagged < 2; tagged++) {
		feed_raw(RIG_WAN, 0, frame, ETH + 1301 + 4 * tagged);
		turn();
		take_right(&s);
		assert_int_equal(s.port, RIG_LAN);
		assert_int_equal(s.len, len);
		frame_tag(frame, len, 0x8100, 0xa000);
	}
	stop();
}

/* --- answers --- */

static void test_strays(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP};
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		s = exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK | TCP_PSH, 500, 4000000000u), 10));
		check_rst(&s, RIG_WAN, TCP_RST, 4000000000u, 0);
		rest();
		s = exchange(RIG_WAN, from_client(&t, TCP_SYN | TCP_ACK, 500, 77));
		check_rst(&s, RIG_WAN, TCP_RST, 77, 0);
		t.snat = rig.dp->snat.addr[v6]; /* either family, in turn */
		t.backend = rig.backends[v6][SET_TCP][0].addr;
		t.snat_port_be = htons(2000);
		s = exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, 500, 99));
		check_rst(&s, RIG_LAN, TCP_RST, 99, 0);
		refused(RIG_WAN, from_client(&t, TCP_RST, 500, 0), VERDICT_drop_stray_rst);
		refused(RIG_LAN, from_backend(&t, TCP_SYN, 500, 0), VERDICT_drop_snat_syn);
		t.proto = PROTO_UDP;
		refused(RIG_LAN, from_backend(&t, 0, 0, 0), VERDICT_drop_stray_udp);
		assert_int_equal(n_flows(), 0);
		stop();
	}
}

/* B-9: ack = ISN + 1 + what else the SYN carried. */
static void test_no_backend(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 1};
		struct sent s;

		start((struct rig_config){.n_backends = 0});
		s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
		t.client++;
		rest();
		s = exchange(RIG_WAN, with_payload(from_client(&t, TCP_SYN, UINT32_MAX, 0), 5));
		check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, 5);
		t.proto = PROTO_UDP;
		s = exchange(RIG_WAN, with_payload(from_client(&t, 0, 0, 0), 30));
		assert_int_equal(s.port, RIG_WAN);
		assert_int_equal(s.p.kind, PACKET_ICMP_ERROR);
		stop();
	}
}

/* Ten bytes either way, by the way that it has always gone. */
static void goes_on(const struct talk *t)
{
	struct sent s = exchange(RIG_WAN, with_payload(from_client(t, TCP_ACK, ISN + 1, PEER + 1), 10));

	assert_int_equal(s.port, RIG_LAN);
	assert_int_equal(s.p.sport_be, t->snat_port_be);
	s = exchange(RIG_LAN, with_payload(from_backend(t, TCP_ACK, PEER + 1, ISN + 11), 10));
	assert_int_equal(s.port, RIG_WAN);
	assert_int_equal(s.p.dport_be, rig_client_port_be(t->client));
}

static void test_table_full(void **state)
{
	struct talk t = {.proto = PROTO_TCP}, old;
	struct sent s;

	start((struct rig_config){.n_backends = 2, .flows_v4 = 10});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF; /* silent backends are none of this test's business */
	old = establish(false, 100);
	for (t.client = 0; t.client < 9; t.client++)
		exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
	assert_int_equal(verdicts(VERDICT_answer_table_full), 1);
	/* The other family has its own. */
	t.v6 = true;
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	assert_int_equal(s.port, RIG_LAN);
	t = (struct talk){.proto = PROTO_UDP, .client = 11};
	refused(RIG_WAN, from_client(&t, 0, 0, 0), VERDICT_drop_table_full);
	goes_on(&old);
	/* Those that were never answered make room when they end; the established one goes on. */
	pass_ms(15200);
	assert_int_equal(n_flows(), 1);
	s = exchange(RIG_WAN, from_client(&t, 0, 0, 0));
	assert_int_equal(s.port, RIG_LAN);
	goes_on(&old);
	stop();
}

static void test_ports_exhausted(void **state)
{
	const uint32_t n_ports = 63 * 1024;
	struct talk t = {.proto = PROTO_TCP}, old;
	struct sent s;

	start((struct rig_config){.n_backends = 1, .flows_v4 = n_ports * 5 / 4});
	old = establish(false, n_ports + 100);
	/* All the other ports. */
	while (t.client < n_ports - 1) {
		unsigned n = n_ports - 1 - t.client < 512 ? n_ports - 1 - t.client : 512;

		for (unsigned i = 0; i < n; i++, t.client++)
			feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		for (unsigned i = 0; i < 512 / (4 * BURST_MAX); i++)
			turn();
		for (unsigned i = 0; i < n; i++) {
			assert_true(take(&s));
			assert_int_equal(s.port, RIG_LAN);
		}
	}
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
	assert_int_equal(verdicts(VERDICT_answer_ports_exhausted), 1);
	goes_on(&old);
	stop();
}

static void test_unanswerable(void **state)
{
	struct talk t = {.proto = PROTO_TCP};
	struct frame_spec spec = from_client(&t, TCP_ACK, 1, 1);
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(&spec, frame);

	start((struct rig_config){.n_backends = 1});
	memset(frame, 0xff, 6); /* broadcast on the link */
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_unanswerable), 1);
	/* In the name of our own addresses. */
	spec = from_client(&t, TCP_SYN, 1, 0);
	spec.src = rig_vip(false);
	refused(RIG_WAN, spec, VERDICT_drop_ip_source);
	spec.src = rig.dp->snat.addr[0];
	refused(RIG_WAN, spec, VERDICT_drop_ip_source);
	spec.proto = IPPROTO_ICMP;
	spec.sport_be = htons(0x0800);
	refused(RIG_WAN, spec, VERDICT_drop_ip_source);
	stop();
}

static void test_echo(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct frame_spec spec = with_payload(from_client(&(struct talk){.v6 = v6, .client = 9}, 0, 0, 0), 56);
		struct ipaddr src, dst;
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		spec.proto = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
		spec.sport_be = htons(v6 ? 0x8000 : 0x0800);
		s = exchange(RIG_WAN, spec);
		src = packet_src(s.frame, &s.p);
		dst = packet_dst(s.frame, &s.p);
		assert_int_equal(s.port, RIG_WAN);
		assert_int_equal(s.frame[s.p.l4_off], v6 ? 129 : 0);
		assert_true(ipaddr_equal(&src, &spec.dst) && ipaddr_equal(&dst, &spec.src));
		assert_int_equal(s.p.payload_len, 56);
		assert_int_equal(s.p.ttl, 64);
		/* 100/s, of which a tenth at once. */
		for (int i = 0; i < 50; i++)
			feed(RIG_WAN, spec);
		turn();
		while (take(&s))
			;
		assert_true(verdicts(VERDICT_answer_echo) <= 12);
		assert_int_equal(verdicts(VERDICT_answer_echo) + verdicts(VERDICT_shed_icmp_limit), 51);
		stop();
	}
}

/* The reply is nothing but zeros, and its checksum therefore not. */
static void test_echo_of_zeros(void **state)
{
	struct frame_spec spec = from_client(&(struct talk){0}, 0, 0, 0);
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	spec.proto = IPPROTO_ICMP;
	spec.sport_be = htons(0x0800);
	s = exchange(RIG_WAN, spec);
	assert_int_equal(s.frame[s.p.l4_off + 2] << 8 | s.frame[s.p.l4_off + 3], 0xffff);
	stop();
}

/* A reply that would be longer than its way takes is none. */
static void test_long_echo(void **state)
{
	struct talk t;
	struct frame_spec spec;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 1300});
	t = establish(false, 4);
	spec = with_payload(from_backend(&t, 0, 0, 0), 1300 - 20 - 8 + 1);
	spec.dst = rig_vip(false);
	spec.proto = IPPROTO_ICMP;
	spec.sport_be = htons(0x0800);
	refused(RIG_LAN, spec, VERDICT_drop_too_big);
	spec.payload_len--;
	exchange(RIG_LAN, spec);
	stop();
}

/* --- ICMP errors --- */

static void icmp_translated(bool v6, uint8_t proto)
{
	uint8_t frame[FRAME_MAX], type = v6 ? 1 : 3, code = v6 ? 4 : 3;
	struct frame_spec up, down;
	struct sent s, error;
	struct talk t;
	size_t len;

	start((struct rig_config){.n_backends = 2});
	t = proto == PROTO_TCP ? establish(v6, 3) : begin(proto, v6, 3);
	up = with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 100);
	down = with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 100);
	/* A router behind the gateway about what the client sent. */
	s = exchange(RIG_WAN, up);
	len = make_error(frame, s.frame, t.backend, type, code, 0);
	feed_raw(RIG_LAN, 0, frame, len);
	turn();
	take_right(&error);
	check_error(&error, RIG_WAN, &up);
	/* A router before it about what the backend sent. */
	s = exchange(RIG_LAN, down);
	len = make_error(frame, s.frame, rig_client(3, v6), type, code, 0);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_right(&error);
	check_error(&error, RIG_LAN, &down);
	if (proto == PROTO_TCP) {
		/* Once all is acknowledged, nothing is under way that an error could be about. */
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 101, PEER + 101));
		feed_raw(RIG_WAN, 0, frame, len);
		turn();
		take_none();
		assert_int_equal(verdicts(VERDICT_drop_icmp_sequence), 1);
	}
	/* Damaged on the way. */
	frame[len - 1] ^= 1;
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_icmp_checksum), 1);
	stop();
}

static void test_icmp_translated(void **state)
{
	icmp_translated(false, PROTO_TCP);
	icmp_translated(true, PROTO_TCP);
	icmp_translated(false, PROTO_UDP);
	icmp_translated(true, PROTO_UDP);
}

/* A forged acknowledgement of what was never sent makes no forged error plausible. */
static void test_icmp_forged_ack(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct sent s;
	struct talk t;
	size_t len;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	s = exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 100));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1000000));
	((struct rte_tcp_hdr *)(s.frame + s.p.l4_off))->sent_seq = htonl(PEER + 5000000);
	len = make_error(frame, s.frame, rig_client(3, false), 3, 1, 0);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_icmp_sequence), 1);
	stop();
}

static void test_icmp_about_syn(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct frame_spec syn;
	struct sent s, error;
	struct talk t = {.proto = PROTO_TCP, .client = 3};
	size_t len;

	start((struct rig_config){.n_backends = 1});
	syn = from_client(&t, TCP_SYN, ISN, 0);
	s = exchange(RIG_WAN, syn);
	len = make_error(frame, s.frame, packet_dst(s.frame, &s.p), 3, 1, 0);
	feed_raw(RIG_LAN, 0, frame, len);
	turn();
	take_right(&error);
	check_error(&error, RIG_WAN, &syn);
	/* Of no flow: one port beside it. */
	s.frame[s.p.l4_off + 1] ^= 1;
	len = make_error(frame, s.frame, packet_dst(s.frame, &s.p), 3, 1, 0);
	feed_raw(RIG_LAN, 0, frame, len);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_icmp_no_flow), 1);
	/* An ICMP error ends no flow (RFC 5382 REQ-10). */
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	stop();
}

static void test_too_big(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct frame_spec big;
		struct talk t;
		struct sent s;

		start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
		t = establish(v6, 4);
		big = with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 1361 - (v6 ? 20 : 0));
		s = exchange(RIG_WAN, big);
		check_error(&s, RIG_WAN, &big);
		assert_int_equal(s.frame[s.p.l4_off], v6 ? 2 : 3);
		assert_int_equal(s.frame[s.p.l4_off + 6] << 8 | s.frame[s.p.l4_off + 7], 1400);
		big.payload_len--;
		s = exchange(RIG_WAN, big);
		assert_int_equal(s.port, RIG_LAN);
		stop();
	}
}

static void test_ttl(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (int known = 0; known < 2; known++) {
			struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 4};
			struct frame_spec spec;
			uint8_t frame[FRAME_MAX];
			struct sent s;
			size_t len;

			start((struct rig_config){.n_backends = 1});
			if (known)
				t = establish(v6, 4);
			spec = from_client(&t, known ? TCP_ACK : TCP_SYN, ISN, 0);
			len = frame_make(&spec, frame);
			frame[ETH + (v6 ? 7 : 8)] = 1;
			if (!v6)
				frame_fix_ip4(frame + ETH);
			feed_raw(RIG_WAN, 0, frame, len);
			turn();
			take_right(&s);
			check_error(&s, RIG_WAN, &spec);
			assert_int_equal(s.frame[s.p.l4_off], v6 ? 3 : 11);
			assert_int_equal(n_flows(), known);
			stop();
		}
}

/* --- lives of flows --- */

/* D-1, D-3: silence ends with a RST to either end, each with the number that it expects. */
static void test_idle(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct sent s[2];
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		rig.service.timeouts.established_ms = 60000;
		rig.service.timeouts.probe_ms = 0;
		t = establish(v6, 3);
		exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 100));
		exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 101), 200));
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 101, PEER + 201));
		pass_ms(59900);
		take_none();
		assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
		pass_ms(300);
		take_right(&s[0]);
		take_right(&s[1]);
		take_none();
		if (s[0].port == RIG_WAN) {
			struct sent other = s[0];

			s[0] = s[1];
			s[1] = other;
		}
		check_rst(&s[0], RIG_LAN, TCP_RST | TCP_ACK, ISN + 101, PEER + 201);
		check_rst(&s[1], RIG_WAN, TCP_RST | TCP_ACK, PEER + 201, ISN + 101);
		assert_int_equal(only_state(v6), FLOW_RESETTING);
		pass_ms(5200);
		take_none();
		assert_int_equal(n_flows(), 0);
		stop();
	}
}

/* SYNs that anybody may forge keep no flow alive. */
static void test_syn_refreshes_nothing(void **state)
{
	struct sent s;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	rig.service.timeouts.established_ms = 60000;
	rig.service.timeouts.probe_ms = 0;
	t = establish(false, 3);
	pass_ms(40000);
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 123456, 0));
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER + 123456, ISN + 1));
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	pass_ms(20300);
	take_right(&s);
	take_right(&s);
	assert_int_equal(only_state(false), FLOW_RESETTING);
	stop();
}

static void close_by_fin(const struct talk *t)
{
	exchange(RIG_WAN, from_client(t, TCP_FIN | TCP_ACK, ISN + 1, PEER + 1));
	assert_int_equal(only_state(t->v6), FLOW_FIN_WAIT);
	exchange(RIG_LAN, from_backend(t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 2));
	assert_int_equal(only_state(t->v6), FLOW_LAST_ACK);
	exchange(RIG_WAN, from_client(t, TCP_ACK, ISN + 2, PEER + 2));
	assert_int_equal(only_state(t->v6), FLOW_TIME_WAIT);
}

static void test_close(void **state)
{
	struct talk t, again;
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	again = t = establish(false, 3);
	close_by_fin(&t);
	/* The same SYN once more is a late duplicate, one with a new number a new connection. */
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	assert_int_equal(only_state(false), FLOW_TIME_WAIT);
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 90000, 0));
	learn(&again, &s);
	assert_int_not_equal(again.snat_port_be, t.snat_port_be);
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	stop();
}

static void test_reset(void **state)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	/* In the window, but not what the client expects: it will ask back, so the flow lives. */
	exchange(RIG_LAN, from_backend(&t, TCP_RST, PEER + 50, 0));
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	exchange(RIG_LAN, from_backend(&t, TCP_RST, PEER + 1, 0));
	assert_int_equal(only_state(false), FLOW_CLOSED);
	pass_ms(10200);
	assert_int_equal(n_flows(), 0);
	take_none();
	stop();
}

/* Refused; a client that tries again with the number it had gets a flow again. */
static void test_refused_and_again(void **state)
{
	struct talk t;
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_TCP, true, 3);
	exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + 1));
	assert_int_equal(only_state(true), FLOW_CLOSED);
	assert_int_equal(rig.worker->backends[SET_PROTOS * RIG_BACKENDS_MAX].failures, 1);
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	learn(&t, &s);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	assert_int_equal(only_state(true), FLOW_ESTABLISHED);
	stop();
}

/*
 * The backend still has an older connection of that port in TIME_WAIT: it answers with an ACK of that, the client
 * resets it and sends its SYN again.
 */
static void test_stale_ack(void **state)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	rig.service.reuse.assist = false;
	t = begin(PROTO_TCP, false, 3);
	exchange(RIG_LAN, from_backend(&t, TCP_ACK, 5555, 4444));
	exchange(RIG_WAN, from_client(&t, TCP_RST, 4444, 0));
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	stop();
}

/* RFC 7413: data in the SYN, acknowledged or not. */
static void test_fast_open(void **state)
{
	for (unsigned acked = 0; acked <= 100; acked += 50) {
		struct talk t = {.proto = PROTO_TCP};
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		s = exchange(RIG_WAN, with_payload(from_client(&t, TCP_SYN, ISN, 0), 100));
		learn(&t, &s);
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 102 + 1));
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN));
		assert_int_equal(only_state(false), FLOW_SYN_SENT);
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1 + acked));
		assert_int_equal(only_state(false), FLOW_SYN_RECV);
		stop();
	}
}

/* The client gave up and began anew on the same port before anything answered. */
static void test_other_isn(void **state)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_TCP, false, 3);
	exchange(RIG_WAN, from_client(&t, TCP_SYN, 3000000000u, 0));
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 2));
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, 3000000001u));
	assert_int_equal(only_state(false), FLOW_SYN_RECV);
	stop();
}

/* Both ends open at once: backends do not open towards the gateway, whatever state the connection is in. */
static void test_simultaneous_open(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_TCP, v6, 3);
		refused(RIG_LAN, from_backend(&t, TCP_SYN, PEER, 0), VERDICT_drop_snat_syn);
		assert_int_equal(only_state(v6), FLOW_SYN_SENT);
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
		refused(RIG_LAN, from_backend(&t, TCP_SYN, PEER, 0), VERDICT_drop_snat_syn);
		assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
		stop();
	}
}

/* --- several packets in a burst --- */

static unsigned take_by_port(unsigned by_port[RIG_PORTS])
{
	struct sent s;
	unsigned n = 0;

	by_port[RIG_WAN] = by_port[RIG_LAN] = 0;
	for (; take(&s); n++) {
		assert_null(frame_checksum_error(s.frame));
		by_port[s.port]++;
	}
	return n;
}

static void test_two_syns(void **state)
{
	const struct talk t = {.proto = PROTO_TCP}, u = {.proto = PROTO_UDP, .client = 1};
	unsigned left[RIG_PORTS];

	start((struct rig_config){.n_backends = 3});
	for (int i = 0; i < 3; i++) {
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		feed(RIG_WAN, from_client(&u, 0, 0, 0));
	}
	turn();
	take_by_port(left);
	assert_int_equal(left[RIG_LAN], 6);
	assert_int_equal(n_flows(), 2);
	stop();
}

/* A new life of a closed flow among packets of the old one, before and behind it. */
static void test_reborn_in_burst(void **state)
{
	unsigned left[RIG_PORTS];
	struct talk t;

	start((struct rig_config){.n_backends = 3});
	t = establish(false, 3);
	close_by_fin(&t);
	feed(RIG_WAN, from_client(&t, TCP_ACK, ISN + 2, PEER + 2));
	feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + 90000, 0));
	feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + 90000, 0));
	feed(RIG_WAN, from_client(&t, TCP_ACK, ISN + 2, PEER + 2));
	turn();
	take_by_port(left);
	assert_int_equal(left[RIG_WAN], 1);
	assert_int_equal(left[RIG_LAN], 4);
	assert_int_equal(n_flows(), 1);
	assert_int_equal(rig.worker->flows.adds, 2);
	/* Nothing of the old flow is left: its backend side is a stray now. */
	feed(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 2, ISN + 2));
	turn();
	assert_int_equal(verdicts(VERDICT_answer_stray_rst), 2);
	take_by_port(left);
	stop();
}

/* The end of the old life and the SYN of the new one in a burst. */
static void test_end_and_reborn_in_burst(void **state)
{
	unsigned left[RIG_PORTS];
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	feed(RIG_WAN, from_client(&t, TCP_RST | TCP_ACK, ISN + 1, PEER + 1));
	feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + 90000, 0));
	turn();
	take_by_port(left);
	assert_int_equal(left[RIG_LAN], 2);
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 90001));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 90001, PEER + 1));
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	stop();
}

/* More answers and forwarded packets than the transmit buffer holds, in one loop. */
static void test_transmit_buffer(void **state)
{
	unsigned left[RIG_PORTS];
	struct talk t = {.proto = PROTO_UDP};

	start((struct rig_config){.n_backends = 4, .flows_v4 = 1024});
	for (unsigned i = 0; i < 4 * BURST_MAX; i++, t.client++) {
		feed(RIG_WAN, from_client(&t, 0, 0, 0));
		feed(RIG_LAN, from_client(&t, 0, 0, 0));
	}
	turn();
	take_by_port(left);
	assert_int_equal(left[RIG_LAN], 8 * BURST_MAX);
	assert_int_equal(n_flows(), 4 * BURST_MAX);
	stop();
}

/* --- what changes between bursts --- */

static void test_policy_change(void **state)
{
	struct policy none = {.number = 2, .n_services = 1, .services = rig.services};
	struct talk t, u = {.proto = PROTO_TCP, .client = 4};
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	none.listeners = listener_table_create(NULL, 0);
	assert_non_null(none.listeners);
	dataplane_publish(rig.dp, &none);
	/* What is established goes on; what is new finds no listener. */
	s = exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 10));
	assert_int_equal(s.port, RIG_LAN);
	s = exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 11), 10));
	assert_int_equal(s.port, RIG_WAN);
	refused(RIG_WAN, from_client(&u, TCP_SYN, ISN, 0), VERDICT_drop_not_ours);
	/* Its end looks for timeouts that are gone. */
	exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, PEER + 11, ISN + 11));
	pass_ms(10200);
	assert_int_equal(n_flows(), 0);
	dataplane_publish(rig.dp, &rig.policy);
	listener_table_destroy((struct listener_table *)none.listeners);
	stop();
}

static void test_neighbour_change(void **state)
{
	const uint8_t mac[6] = {2, 0, 0, 0, 9, 9};
	struct note note;
	struct talk t;
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &t.backend, NEIGHBOUR_GONE, mac);
	refused(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), VERDICT_drop_neighbour);
	refused(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), VERDICT_drop_neighbour);
	/* Asked for once a second at the most. */
	assert_int_equal(dataplane_notes(rig.dp, &note, 1), 1);
	assert_int_equal(note.kind, NOTE_NEIGHBOUR);
	assert_true(note.want.port == RIG_LAN && ipaddr_equal(&note.want.addr, &t.backend));
	assert_int_equal(dataplane_notes(rig.dp, &note, 1), 0);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &t.backend, NEIGHBOUR_USABLE, mac);
	s = exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	assert_memory_equal(s.frame, mac, 6);
	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	refused(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), VERDICT_drop_link_down);
	stop();
}

/* A worker that did not run blames nobody: flows do not age meanwhile. */
static void test_stall(void **state)
{
	start((struct rig_config){.n_backends = 1});
	begin(PROTO_TCP, false, 3);
	rig.now_ns += 3600 * 1000000000ull;
	turn();
	assert_int_equal(n_flows(), 1);
	pass_ms(14000);
	assert_int_equal(n_flows(), 1);
	pass_ms(1500);
	assert_int_equal(n_flows(), 0);
	stop();
}

/* What a flood left behind ends as fast as the worker can, not at the pace of an idle worker's naps. */
static void test_many_end_at_once(void **state)
{
	const uint32_t n = 1000;
	unsigned turns = 0;

	start((struct rig_config){.n_backends = 2, .flows_v4 = 2 * n});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	for (unsigned client = 0; client < n; client++)
		begin(PROTO_TCP, false, client);
	pass_ms(14800);
	assert_int_equal(n_flows(), n);
	/* Without sleep between turns that have work. */
	for (int i = 0; i < 14; i++, rig.now_ns += STEP_NS)
		while (worker_run_once(rig.worker))
			turns++;
	assert_int_equal(n_flows(), 0);
	assert_true(turns < 100);
	stop();
}

/* --- two workers --- */

static void test_hand_over(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct sent s, error;
	unsigned owned[2] = {0};

	for (int v6 = 0; v6 < 2; v6++) {
		start((struct rig_config){.n_backends = 2, .n_workers = 2});
		for (unsigned client = 0; client < 16; client++) {
			struct talk t = establish(v6, client);
			struct frame_spec up = with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 20);
			size_t len;

			/* The error finds the flow, wherever it comes in. */
			s = exchange(RIG_WAN, up);
			len = make_error(frame, s.frame, t.backend, v6 ? 1 : 3, 1, 0);
			for (unsigned queue = 0; queue < 2; queue++) {
				feed_raw(RIG_LAN, queue, frame, len);
				turn();
				take_right(&error);
				check_error(&error, RIG_WAN, &up);
			}
		}
		for (unsigned i = 0; i < 2; i++)
			owned[i] += rig.dp->workers[i]->wheel.n_flows;
		assert_true(verdicts(VERDICT_handed_over) > 0);
		stop();
	}
	assert_true(owned[0] > 0 && owned[1] > 0);
	assert_int_equal(owned[0] + owned[1], 32);
}

static void test_hand_over_full(void **state)
{
	struct talk t = {.proto = PROTO_TCP};
	unsigned n = 0, total = 0, left[RIG_PORTS];

	start((struct rig_config){.n_backends = 2, .n_workers = 2, .flows_v4 = 4096});
	/* Only the first one runs: what it gives to the second stays in the ring until that is full. */
	while (rig.worker->ledger.verdicts[VERDICT_drop_handover_full] == 0 && n++ < 100) {
		for (unsigned i = 0; i < BURST_MAX; i++, t.client++)
			feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		worker_run_once(rig.worker);
		total += take_by_port(left);
	}
	assert_true(n < 100);
	assert_int_equal(ledger_balance(&rig.worker->ledger), 0);
	for (int i = 0; i < 20; i++)
		turn();
	total += take_by_port(left);
	assert_int_equal(total + verdicts(VERDICT_drop_handover_full), t.client);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nat),
		cmocka_unit_test(test_wrong_stays_wrong),
		cmocka_unit_test(test_udp_zero_checksum),
		cmocka_unit_test(test_vlan_and_padding),
		cmocka_unit_test(test_trailer),
		cmocka_unit_test(test_strays),
		cmocka_unit_test(test_no_backend),
		cmocka_unit_test(test_table_full),
		cmocka_unit_test(test_ports_exhausted),
		cmocka_unit_test(test_unanswerable),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_echo_of_zeros),
		cmocka_unit_test(test_long_echo),
		cmocka_unit_test(test_icmp_translated),
		cmocka_unit_test(test_icmp_forged_ack),
		cmocka_unit_test(test_icmp_about_syn),
		cmocka_unit_test(test_too_big),
		cmocka_unit_test(test_ttl),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_syn_refreshes_nothing),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_refused_and_again),
		cmocka_unit_test(test_stale_ack),
		cmocka_unit_test(test_fast_open),
		cmocka_unit_test(test_other_isn),
		cmocka_unit_test(test_simultaneous_open),
		cmocka_unit_test(test_two_syns),
		cmocka_unit_test(test_reborn_in_burst),
		cmocka_unit_test(test_end_and_reborn_in_burst),
		cmocka_unit_test(test_transmit_buffer),
		cmocka_unit_test(test_policy_change),
		cmocka_unit_test(test_neighbour_change),
		cmocka_unit_test(test_stall),
		cmocka_unit_test(test_many_end_at_once),
		cmocka_unit_test(test_hand_over),
		cmocka_unit_test(test_hand_over_full),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
