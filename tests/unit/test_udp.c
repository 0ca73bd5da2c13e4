/* SPDX-License-Identifier: BSD-3-Clause */
/* Flows of UDP: how long they live, and what becomes of their checksums. */
#include "talk.h"

#include "checksum.h"
#include "icmp.h"
#include "tcp.h"

#include <string.h>

#include <rte_mbuf.h>
#include <rte_udp.h>

#define TICK_MS 300 /* a tick of the wheel, and steps of the test */

static struct sent query(const struct talk *t)
{
	return exchange(RIG_WAN, with_payload(from_client(t, 0, 0, 0), 30));
}

static void reply(const struct talk *t)
{
	struct sent s = exchange(RIG_LAN, with_payload(from_backend(t, 0, 0, 0), 60));

	assert_int_equal(s.port, RIG_WAN);
}

/* The only flow ends after that time, and not before. */
static void check_ends_in(uint32_t ms)
{
	pass_ms(ms - 100);
	assert_int_equal(n_flows(), 1);
	pass_ms(100 + TICK_MS);
	assert_int_equal(n_flows(), 0);
	take_none();
}

static uint32_t slot_of(const struct talk *t)
{
	const struct policy_set *set = &rig.service.sets[t->v6][SET_UDP];

	for (uint32_t i = 0; i < set->n_backends; i++)
		if (ipaddr_equal(&set->backends[i].addr, &t->backend))
			return set->backends[i].ref.slot;
	return SLOT_NONE;
}

static struct backend_report backend_of(const struct talk *t)
{
	struct backend_report r;

	observe_backend(rig.dp, slot_of(t), &r);
	return r;
}

/* --- lives --- */

/* D-28: 30 s until it is answered, five minutes from then on, without a word; either direction refreshes. */
static void lives(bool v6, unsigned workers)
{
	struct talk t;

	start((struct rig_config){.n_backends = 2, .n_workers = workers});
	t = begin(PROTO_UDP, v6, 3);
	check_ends_in(30000);
	assert_int_equal(backend_of(&t).failures, 1);
	t = begin(PROTO_UDP, v6, 3);
	pass_ms(20000);
	query(&t);
	check_ends_in(30000);
	t = begin(PROTO_UDP, v6, 3);
	reply(&t);
	check_ends_in(300000);
	t = begin(PROTO_UDP, v6, 3);
	reply(&t);
	pass_ms(250000);
	query(&t);
	pass_ms(250000);
	reply(&t);
	check_ends_in(300000);
	assert_int_equal(backend_of(&t).failures, 2);
	assert_int_equal(backend_of(&t).connects, 2);
	stop();
}

static void test_lives(void **state)
{
	each_way(lives);
}

/* To port 53, both are ten seconds. */
static void test_dns(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		rig.service.timeouts.dns_unreplied_ms = policy_timeouts_default.dns_unreplied_ms;
		rig.service.timeouts.dns_replied_ms = policy_timeouts_default.dns_replied_ms;
		t = begin(PROTO_UDP, v6, 3);
		check_ends_in(10000);
		t = begin(PROTO_UDP, v6, 3);
		reply(&t);
		check_ends_in(10000);
		stop();
	}
}

/* The next packet finds the same backend, by whichever port of ours. */
static void test_same_backend(void **state)
{
	for (unsigned client = 0; client < 20; client++) {
		struct talk first, second;

		start((struct rig_config){.n_backends = 8});
		first = begin(PROTO_UDP, client & 1, client);
		reply(&first);
		pass_ms(300000 + TICK_MS);
		assert_int_equal(n_flows(), 0);
		second = begin(PROTO_UDP, client & 1, client);
		assert_true(ipaddr_equal(&first.backend, &second.backend));
		stop();
	}
}

/* What ICMP says of it ends nothing: the error goes to its sender, and the next query passes. */
static void test_icmp_ends_nothing(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct talk t;
	struct sent s;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_UDP, false, 3);
	s = query(&t);
	feed_raw(RIG_LAN, 0, frame, make_error(frame, s.frame, t.backend, 3, 3, 0));
	turn();
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	assert_int_equal(n_flows(), 1);
	query(&t);
	stop();
}

/* --- one reply to each query --- */

static void begin_oneshot(unsigned workers)
{
	start((struct rig_config){.n_backends = 1, .n_workers = workers});
	rig.service.udp_oneshot = true;
	rig.service.timeouts.dns_unreplied_ms = 10000;
	rig.service.timeouts.dns_replied_ms = 10000;
}

static void answered(bool v6, unsigned workers)
{
	struct talk t;

	begin_oneshot(workers);
	t = begin(PROTO_UDP, v6, 3);
	reply(&t);
	assert_int_equal(n_flows(), 1);
	pass_ms(TICK_MS);
	assert_int_equal(n_flows(), 0);
	/* Whatever comes later has no flow. */
	refused(RIG_LAN, from_backend(&t, 0, 0, 0), VERDICT_drop_stray_udp);
	/* Three queries: the third reply ends it. */
	t = begin(PROTO_UDP, v6, 3);
	query(&t);
	query(&t);
	for (int i = 0; i < 2; i++) {
		reply(&t);
		pass_ms(5000);
		assert_int_equal(n_flows(), 1);
	}
	reply(&t);
	pass_ms(TICK_MS);
	assert_int_equal(n_flows(), 0);
	assert_int_equal(backend_of(&t).connects, 2);
	assert_int_equal(backend_of(&t).failures, 0);
	stop();
}

static void test_oneshot(void **state)
{
	each_way(answered);
}

/* A query that came again has one reply: the flow waits for another, and no failure comes of that. */
static void test_oneshot_repeated(void **state)
{
	struct talk t;

	begin_oneshot(1);
	t = begin(PROTO_UDP, false, 3);
	query(&t);
	reply(&t);
	check_ends_in(10000);
	assert_int_equal(backend_of(&t).failures, 0);
	/* None at all is one. */
	t = begin(PROTO_UDP, false, 3);
	check_ends_in(10000);
	assert_int_equal(backend_of(&t).failures, 1);
	stop();
}

/* A query right behind the reply, before the flow has ended: its reply passes. */
static void test_oneshot_again_at_once(void **state)
{
	struct talk t;

	begin_oneshot(1);
	t = begin(PROTO_UDP, true, 3);
	reply(&t);
	query(&t);
	pass_ms(9000);
	assert_int_equal(n_flows(), 1);
	reply(&t);
	pass_ms(TICK_MS);
	assert_int_equal(n_flows(), 0);
	stop();
}

/* A reply that came twice is none to the queries that come after it. */
static void test_oneshot_surplus(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		begin_oneshot(1);
		t = begin(PROTO_UDP, v6, 3);
		reply(&t);
		reply(&t);
		reply(&t);
		query(&t);
		query(&t);
		reply(&t);
		pass_ms(9000);
		assert_int_equal(n_flows(), 1);
		reply(&t);
		pass_ms(TICK_MS);
		assert_int_equal(n_flows(), 0);
		assert_int_equal(backend_of(&t).connects, 1);
		stop();
	}
}

/* --- checksums --- */

static struct rte_udp_hdr *udp_of(uint8_t *frame, bool v6)
{
	return (void *)(frame + ETH + (v6 ? 40 : 20));
}

static void feed_with_sum(enum rig_port port, const struct frame_spec *spec, uint16_t sum_be)
{
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(spec, frame);

	udp_of(frame, !ipaddr_is_v4(&spec->src))->dgram_cksum = sum_be;
	feed_raw(port, 0, frame, len);
	turn();
}

/* As it stands: the parser of talk.c would refuse some. */
static uint16_t sum_that_leaves(enum rig_port port)
{
	struct rte_mbuf *m = NULL;
	uint16_t sum_be;
	uint8_t *frame;

	for (unsigned q = 0; q < n_workers && !m; q++)
		memport_take(rig.ports[port], q, &m, 1);
	assert_non_null(m);
	frame = rte_pktmbuf_mtod(m, uint8_t *);
	sum_be = udp_of(frame, frame[ETH] >> 4 == 6)->dgram_cksum;
	rte_pktmbuf_free(m);
	return sum_be;
}

/* The same datagram, but for a word of payload that takes up all that its sum was as it left. */
static void feed_sum_of_nothing(const struct frame_spec *spec, uint16_t sum_be)
{
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(spec, frame);
	struct rte_udp_hdr *udp = udp_of(frame, !ipaddr_is_v4(&spec->src));
	uint16_t old_be, new_be;

	memcpy(&old_be, udp + 1, sizeof(old_be));
	new_be = csum_delta_fold((uint32_t)old_be + sum_be);
	memcpy(udp + 1, &new_be, sizeof(new_be));
	udp->dgram_cksum = csum_apply(udp->dgram_cksum, csum_delta_fold(csum_delta16(0, old_be, new_be)));
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
}

/* IPv4: none stays none, in both directions. A sum that comes to nothing leaves as all ones. */
static void test_checksums(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;
		struct frame_spec up, down;
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_UDP, v6, 3);
		up = with_payload(from_client(&t, 0, 0, 0), 30);
		down = with_payload(from_backend(&t, 0, 0, 0), 30);
		if (!v6) {
			feed_with_sum(RIG_WAN, &up, 0);
			assert_int_equal(sum_that_leaves(RIG_LAN), 0);
			feed_with_sum(RIG_LAN, &down, 0);
			assert_int_equal(sum_that_leaves(RIG_WAN), 0);
		}
		s = exchange(RIG_WAN, up);
		feed_sum_of_nothing(&up, udp_of(s.frame, v6)->dgram_cksum);
		take_right(&s);
		assert_int_equal(udp_of(s.frame, v6)->dgram_cksum, 0xffff);
		stop();
	}
}

/* IPv6 without checksum is dropped, unless its service allows it; then it leaves so, both ways and from worker to
 * worker. */
static void test_udp6_zero(void **state)
{
	for (int way = 0; way < 4; way++) {
		bool allow = way & 1;
		unsigned workers = 1 + way / 2, client = 0;
		uint64_t dropped = 0;

		start((struct rig_config){.n_backends = 2, .n_workers = workers});
		rig.service.udp6_zero = rig.policy.udp6_zero = allow;
		for (; client < 16; client++) {
			struct talk t = begin(PROTO_UDP, true, client);
			struct frame_spec up = from_client(&t, 0, 0, 0), down = from_backend(&t, 0, 0, 0);

			feed_with_sum(RIG_WAN, &up, 0);
			if (allow)
				assert_int_equal(sum_that_leaves(RIG_LAN), 0);
			feed_with_sum(RIG_LAN, &down, 0);
			if (allow)
				assert_int_equal(sum_that_leaves(RIG_WAN), 0);
			take_none();
			dropped += allow ? 0 : 2;
			assert_int_equal(verdicts(VERDICT_drop_udp6_zero_checksum), dropped);
		}
		/* Also the first packet of a flow. */
		{
			struct talk t = {.v6 = true, .proto = PROTO_UDP, .client = 100};
			struct frame_spec up = from_client(&t, 0, 0, 0);

			feed_with_sum(RIG_WAN, &up, 0);
			if (allow)
				assert_int_equal(sum_that_leaves(RIG_LAN), 0);
			take_none();
		}
		stop();
	}
}

/* Another service allows it: this one's are dropped all the same, known flows or not, and so are strays. */
static void test_udp6_zero_by_service(void **state)
{
	struct talk t;
	struct frame_spec spec;

	start((struct rig_config){.n_backends = 1});
	rig.policy.udp6_zero = true;
	t = begin(PROTO_UDP, true, 3);
	spec = from_client(&t, 0, 0, 0);
	feed_with_sum(RIG_WAN, &spec, 0);
	take_none();
	spec.sport_be = htons(9);
	feed_with_sum(RIG_WAN, &spec, 0);
	spec = from_backend(&t, 0, 0, 0);
	feed_with_sum(RIG_LAN, &spec, 0);
	spec.dport_be = htons(9);
	feed_with_sum(RIG_LAN, &spec, 0);
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_udp6_zero_checksum), 4);
	assert_int_equal(n_flows(), 1);
	/* A packet that is broken otherwise says so. */
	{
		uint8_t frame[FRAME_MAX];
		struct frame_spec up = with_payload(from_client(&t, 0, 0, 0), 30);
		size_t len = frame_make(&up, frame);

		udp_of(frame, true)->dgram_cksum = 0;
		udp_of(frame, true)->dgram_len = htons(4);
		feed_raw(RIG_WAN, 0, frame, len);
		turn();
		assert_int_equal(verdicts(VERDICT_drop_l4_header), 1);
	}
	stop();
}

/* A reload removes the service, the only one that allows it: its flows go on as they were born, and none begins. */
static void test_udp6_zero_outlives_service(void **state)
{
	for (int way = 0; way < 4; way++) {
		bool allow = way & 1;
		struct talk t;
		struct frame_spec up, down;

		start((struct rig_config){.n_backends = 1, .n_workers = 1 + way / 2});
		rig.service.udp6_zero = rig.policy.udp6_zero = allow;
		t = begin(PROTO_UDP, true, 3);
		up = from_client(&t, 0, 0, 0);
		down = from_backend(&t, 0, 0, 0);
		rig.policy.udp6_zero = false;
		rig.policy.n_services = 0;
		feed_with_sum(RIG_WAN, &up, 0);
		if (allow)
			assert_int_equal(sum_that_leaves(RIG_LAN), 0);
		feed_with_sum(RIG_LAN, &down, 0);
		if (allow)
			assert_int_equal(sum_that_leaves(RIG_WAN), 0);
		take_none();
		assert_int_equal(verdicts(VERDICT_drop_udp6_zero_checksum), allow ? 0 : 2);
		rig.policy.n_services = 1;
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lives),
		cmocka_unit_test(test_dns),
		cmocka_unit_test(test_same_backend),
		cmocka_unit_test(test_icmp_ends_nothing),
		cmocka_unit_test(test_oneshot),
		cmocka_unit_test(test_oneshot_repeated),
		cmocka_unit_test(test_oneshot_again_at_once),
		cmocka_unit_test(test_oneshot_surplus),
		cmocka_unit_test(test_checksums),
		cmocka_unit_test(test_udp6_zero),
		cmocka_unit_test(test_udp6_zero_by_service),
		cmocka_unit_test(test_udp6_zero_outlives_service),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
