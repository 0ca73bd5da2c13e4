/* SPDX-License-Identifier: BSD-3-Clause */
/* What IP and TCP say of how a packet is to be treated and was: DSCP, ECN (RFC 3168), TTL. */
#include "ends.h"

#include "silence.h"

#include <string.h>

#include <rte_ip.h>

#define EF  0xb8 /* DSCP 46 */
#define CS1 0x20
#define ECN 0x03
#define ACE (TCP_ECE | TCP_CWR)

static void put_tos(uint8_t *frame, uint8_t tos)
{
	uint8_t *ip = frame + ETH;

	if (ip[0] >> 4 == 6) {
		ip[0] = 0x60 | tos >> 4;
		ip[1] = (ip[1] & 0x0f) | (uint8_t)(tos << 4);
		return;
	}
	ip[1] = tos;
	frame_fix_ip4(ip);
}

static uint8_t tos_of(const struct sent *s)
{
	return packet_tos(s->frame, &s->p);
}

static void put_ttl(uint8_t *frame, uint8_t ttl)
{
	uint8_t *ip = frame + ETH;

	if (ip[0] >> 4 == 6) {
		ip[7] = ttl;
		return;
	}
	ip[8] = ttl;
	frame_fix_ip4(ip);
}

static struct sent passes_marked(enum rig_port port, struct frame_spec spec, uint8_t tos, uint8_t ttl)
{
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(&spec, frame);
	struct sent s;

	put_tos(frame, tos);
	put_ttl(frame, ttl);
	feed_raw(port, 0, frame, len);
	turn();
	take_right(&s);
	take_none();
	assert_int_not_equal(s.port, port);
	return s;
}

static struct talk establish_marked(bool v6, unsigned client, uint8_t tos_up, uint8_t tos_down)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
	struct sent s = passes_marked(RIG_WAN, from_client(&t, TCP_SYN | ACE, ISN, 0), tos_up, 64);

	assert_int_equal(s.p.tcp_flags, TCP_SYN | ACE);
	learn(&t, &s);
	s = passes_marked(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK | TCP_ECE, PEER, ISN + 1), tos_down, 64);
	assert_int_equal(s.p.tcp_flags, TCP_SYN | TCP_ACK | TCP_ECE);
	passes_marked(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), tos_up, 64);
	return t;
}

/* D-7: all 256 values of the byte leave as they came, both ways and families, TCP and UDP; and TTL one less. */
static void test_ecn_dscp_ttl(void **state)
{
	for (int way = 0; way < 4; way++) {
		bool v6 = way & 1, udp = way & 2;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = udp ? begin(PROTO_UDP, v6, 3) : establish(v6, 3);
		for (unsigned tos = 0; tos < 256; tos++) {
			uint8_t ttl = 2 + tos % 254,
				flags = TCP_ACK | (tos & 1 ? TCP_ECE : 0) | (tos & 2 ? TCP_CWR : 0);
			struct sent s = passes_marked(RIG_WAN, from_client(&t, flags, ISN + 1, PEER + 1), tos, ttl);

			assert_int_equal(tos_of(&s), tos);
			assert_int_equal(s.p.ttl, ttl - 1);
			if (!udp)
				assert_int_equal(s.p.tcp_flags, flags);
			s = passes_marked(RIG_LAN, from_backend(&t, flags, PEER + 1, ISN + 1), tos, ttl);
			assert_int_equal(tos_of(&s), tos);
			assert_int_equal(s.p.ttl, ttl - 1);
			if (!udp)
				assert_int_equal(s.p.tcp_flags, flags);
		}
		stop();
	}
}

/* What the gateway makes in the name of an end: that one's DSCP, TTL 64, and no claim to ECN. */
static void check_made(const struct sent *s, uint8_t flags, uint8_t up, uint8_t down)
{
	assert_int_equal(s->p.tcp_flags, flags);
	assert_int_equal(tos_of(s), s->port == RIG_LAN ? up : down);
	assert_int_equal(s->p.ttl, 64);
}

static void await_both_made(uint8_t flags, uint8_t up, uint8_t down)
{
	await_made(LATE_MS);
	check_made(&made[DIR_UP], flags, up, down);
	check_made(&made[DIR_DOWN], flags, up, down);
}

static void test_made_dscp(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;
		struct sent s;

		begin_rig((struct rig_config){0});
		t = establish_marked(v6, 3, EF | ECN, CS1 | 2);
		/* Data of another class changes nothing: it is the connection's. */
		passes_marked(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 10), CS1, 64);
		passes_marked(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 1, ISN + 11), CS1, 64);
		/* A SYN in the middle: the client is asked. */
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + 7000, 0));
		turn();
		take_right(&s);
		check_made(&s, TCP_ACK, EF, CS1);
		/* Probes, and the RSTs when nobody answers. */
		for (int i = 0; i < PROBES; i++)
			await_both_made(TCP_ACK, EF, CS1);
		await_both_made(TCP_RST | TCP_ACK, EF, CS1);
		/* Said again. */
		s = exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 11, PEER + 1), 10));
		check_made(&s, TCP_RST, EF, CS1);
		stop();
	}
}

/* Before the backend has said anything, what is told to the client has the DSCP that the client's SYN had. */
static void test_made_dscp_of_attempt(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 3};

		start((struct rig_config){.n_backends = 1});
		passes_marked(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0), EF | ECN, 64);
		dataplane_reap_all(rig.dp, &(struct reap_order){.cause = REAP_STOP});
		await_both_made(TCP_RST | TCP_ACK, EF, EF);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ecn_dscp_ttl),
		cmocka_unit_test(test_made_dscp),
		cmocka_unit_test(test_made_dscp_of_attempt),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
