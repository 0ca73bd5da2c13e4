/* SPDX-License-Identifier: BSD-3-Clause */
/* Caps on new flows, and what becomes of the attempts beyond them: whole workers, a turn each millisecond. */
#include "talk.h"

#include "hash.h"
#include "place.h"
#include "storm.h"
#include "streak.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#define MS 1000000ull
#ifdef __SANITIZE_THREAD__ /* one thread: nothing to find, and these take minutes */
#define ACCURACY_S 4
#define SOURCES    50000
#else
#define ACCURACY_S 20
#define SOURCES    1000000
#endif
#define SECOND     (1000 * MS)
#define HOLD       (900 * MS)
#define TURNS      8 /* that take what a test feeds at once */
#define NUMBERS    60000
#define OPTION_LEN 8

/* --- clients --- */

/* An attempt, by number. Each has ports of its own, and unless its test says otherwise, an address of its own, too. */
struct attempt {
	uint8_t proto;
	bool v6;
	uint32_t number;
	uint32_t client;
	uint32_t isn;
	uint16_t data_len;
};

/* Each client has an address, or a /64, of its own; 256 of them share a prefix. */
static struct ipaddr address(bool v6, uint32_t client)
{
	struct ipaddr a = rig_client(client, v6);

	if (v6) {
		a.b[5] = client >> 8;
		a.b[6] = 0;
		a.b[7] = client;
	}
	return a;
}

/* The first packet. A SYN carries its number in an option that nobody knows (RFC 4727), too. */
static size_t make_first(const struct attempt *a, uint8_t *frame)
{
	struct talk t = {.v6 = a->v6, .proto = a->proto};
	struct frame_spec spec = with_payload(from_client(&t, TCP_SYN, a->isn, 0), OPTION_LEN + a->data_len);
	struct rte_tcp_hdr *tcp = (void *)(frame + ETH + (a->v6 ? 40 : 20));
	const uint8_t option[OPTION_LEN] = {253, 6, a->number >> 8, a->number, 1, 1, 1, 1};
	size_t len;

	spec.src = address(a->v6, a->client);
	spec.sport_be = htons(1024 + a->number);
	len = frame_make(&spec, frame);
	if (a->proto == PROTO_UDP)
		return len;
	memcpy(tcp + 1, option, sizeof(option));
	tcp->data_off = (sizeof(*tcp) + OPTION_LEN) / 4 << 4;
	tcp->cksum = 0;
	tcp->cksum = a->v6 ? rte_ipv6_udptcp_cksum((void *)(frame + ETH), tcp)
			   : rte_ipv4_udptcp_cksum((void *)(frame + ETH), tcp);
	return len;
}

static void attempt_as(struct attempt a)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make_first(&a, frame);

	feed_raw(RIG_WAN, a.number % n_workers, frame, len);
}

static void attempt(bool v6, uint32_t number)
{
	attempt_as((struct attempt){PROTO_TCP, v6, number, number, ISN, 0});
}

/* --- what they see, and what the upstream does --- */

static struct {
	unsigned admitted, refused; /* all */
	/* By number; of the admitted, which it was: */
	uint32_t order[NUMBERS];
	uint64_t admitted_ns[NUMBERS], refused_ns[NUMBERS];
	uint32_t syn_seq[NUMBERS], rst_ack[NUMBERS];
	uint64_t digest; /* of every frame and its time */
} seen;

static void on_syn(const struct sent *s)
{
	const uint8_t *option = (const uint8_t *)(tcp(s) + 1);
	uint32_t number = option[2] << 8 | option[3];

	assert_int_equal(option[0], 253);
	assert_int_equal(s->p.tcp_flags, TCP_SYN);
	assert_int_equal(s->p.payload_len, 0);
	assert_int_equal(seen.admitted_ns[number], 0); /* B-4 */
	seen.order[seen.admitted++] = number;
	seen.admitted_ns[number] = rig.now_ns;
	seen.syn_seq[number] = seq(s);
}

/* B-9 */
static void on_rst(const struct sent *s)
{
	uint32_t number = ntohs(s->p.dport_be) - 1024;

	assert_int_equal(s->p.tcp_flags, TCP_RST | TCP_ACK);
	assert_int_equal(seq(s), 0);
	seen.refused++;
	seen.refused_ns[number] = rig.now_ns;
	seen.rst_ack[number] = ack(s);
}

static void look(void)
{
	struct sent s;

	while (take(&s)) {
		seen.digest = hash_public(s.frame, s.len, seen.digest + rig.now_ns);
		assert_null(frame_checksum_error(s.frame));
		if (s.p.kind == PACKET_UDP)
			seen.admitted++;
		else if (s.port == RIG_LAN)
			on_syn(&s);
		else
			on_rst(&s);
	}
}

/* What was fed is worked on before the clock moves. */
static void pass(uint64_t ms)
{
	for (int i = 0; i < TURNS; i++)
		turn();
	look();
	for (uint64_t i = 0; i < ms; i++) {
		rig.now_ns += MS;
		turn();
		look();
	}
}

/* --- the gateway --- */

static void set_cap(enum storm_cap cap, uint64_t per_s, uint64_t burst)
{
	assert_int_equal(gcra_rate_init(&rig.service.storm.caps[cap], per_s, SECOND, burst), 0);
}

static void set_mode(enum cure_mode mode)
{
	rig.policy.modes.of[CURE_STORM] = mode;
}

static void begin_with(struct rig_config config, uint64_t hold_ns)
{
	config.n_backends = config.n_backends ? config.n_backends : 2;
	memset(&seen, 0, sizeof(seen));
	start(config);
	rig.now_ns += 345678;
	rig.service.storm.hold_ns = hold_ns;
	/* Nobody answers a SYN here: it shall not go to another backend for that. */
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
}

static void begin_storm(uint64_t hold_ns)
{
	begin_with((struct rig_config){.flows_v4 = 4096, .flows_v6 = 4096}, hold_ns);
}

static struct service_report report(void)
{
	struct service_report r;

	observe_service(rig.dp, 0, &r);
	return r;
}

static uint64_t inside(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->ledger.inside;
	return n;
}

/* The first worker's flow that began last is over, as if it had never been. */
static void end_last(bool v6)
{
	const struct flow_pool *pool = v6 ? &rig.worker->flows.pool6 : &rig.worker->flows.pool4;

	flow_end(rig.worker, flow_ref_make(v6, pool->free[pool->in_use - 1], DIR_UP), true);
}

/* --- the bucket --- */

/* 100/s with a burst of 50 under 1000/s for some time: within a promille of what it should be, and one a worker. */
static void accuracy(bool v6, unsigned workers, uint64_t hold_ns)
{
	const unsigned n = 1000 * ACCURACY_S;
	const unsigned expected = 51 + n / 10 - 1; /* at the beginning, and by the last attempt */

	begin_with((struct rig_config){.flows_v4 = 4096, .flows_v6 = 4096, .n_workers = workers, .n_holds = 4096},
		   hold_ns);
	set_cap(STORM_SERVICE, 100, 50);
	for (uint32_t client = 0; client < n; client++) {
		attempt(v6, client);
		pass(1);
		if (client % 1000 == 0)
			check_books();
	}
	print_message("IPv%d, %u workers, hold %3u ms: %u admitted of %u, expected %u\n", v6 ? 6 : 4, workers,
		      (unsigned)(hold_ns / MS), seen.admitted, n, expected);
	assert_in_range(seen.admitted, expected - expected / 1000, expected + expected / 1000 + workers);
	pass(HOLD / MS + 2);
	assert_int_equal(inside(), 0);
	assert_int_equal(seen.admitted + seen.refused, n);
	assert_int_equal(report().attempts, n);
	assert_int_equal(report().refused_storm, seen.refused);
	stop();
}

static void accuracy_at_once(bool v6, unsigned workers)
{
	accuracy(v6, workers, 0);
}

static void accuracy_held(bool v6, unsigned workers)
{
	accuracy(v6, workers, HOLD);
}

static void test_accuracy(void **state)
{
	each_way(accuracy_at_once);
	each_way(accuracy_held);
}

/* What is free is not kept from anyone. */
static void test_under_the_cap(void **state)
{
	begin_storm(HOLD);
	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++)
		set_cap(cap, 100, 10);
	for (uint32_t i = 0; i < 1000; i++) {
		attempt_as((struct attempt){PROTO_TCP, false, i, i % 3 * 256, ISN, 0});
		pass(0);
		assert_int_equal(seen.admitted, i + 1);
		pass(10);
	}
	assert_int_equal(report().held, 0);
	assert_int_equal(report().refused, 0);
	stop();
}

/* A client at its cap is told apart from others of its prefix, and a prefix from others. */
static void apart(bool v6, unsigned workers)
{
	begin_with((struct rig_config){.flows_v4 = 64, .flows_v6 = 64, .n_workers = workers}, 0);
	set_cap(STORM_CLIENT, 1, 1);
	set_cap(STORM_PREFIX, 1, 5);
	for (uint32_t i = 0; i < 4; i++)
		attempt_as((struct attempt){PROTO_TCP, v6, i, 7, ISN, 0});
	pass(0);
	assert_in_range(seen.admitted, 2, 1 + workers);
	assert_int_equal(verdicts(VERDICT_answer_storm_client) + verdicts(VERDICT_shed_storm_client),
			 4 - seen.admitted);
	for (uint32_t i = 8; i < 18; i++)
		attempt(v6, i);
	pass(0);
	assert_in_range(seen.admitted, 6, 5 + workers);
	assert_int_equal(verdicts(VERDICT_answer_storm_prefix) + verdicts(VERDICT_answer_storm_client) +
				 verdicts(VERDICT_shed_storm_client),
			 14 - seen.admitted);
	attempt(v6, 300);
	pass(0);
	assert_int_equal(seen.admitted_ns[300], rig.now_ns);
	assert_int_equal(report().refused_storm, 15 - seen.admitted);
	stop();
}

static void test_apart(void **state)
{
	each_way(apart);
}

/* --- B-7 --- */

struct buckets {
	uint8_t service[sizeof(struct service_shared)];
	uint8_t clients[CLIENT_ENTRIES / CLIENT_WAYS * sizeof(struct client_set)];
	uint8_t prefixes[CLIENT_ENTRIES / CLIENT_WAYS * sizeof(struct client_set)];
};

static struct buckets buckets;

static void remember_buckets(void)
{
	memcpy(buckets.service, &rig.dp->cells.services[0], sizeof(buckets.service));
	memcpy(buckets.clients, rig.dp->clients.sets, sizeof(buckets.clients));
	memcpy(buckets.prefixes, rig.dp->prefixes.sets, sizeof(buckets.prefixes));
}

static void check_buckets_unchanged(void)
{
	assert_memory_equal(buckets.service, &rig.dp->cells.services[0], sizeof(buckets.service));
	assert_memory_equal(buckets.clients, rig.dp->clients.sets, sizeof(buckets.clients));
	assert_memory_equal(buckets.prefixes, rig.dp->prefixes.sets, sizeof(buckets.prefixes));
}

/* One of the three caps refuses: none of them has changed, to the byte, nor has anybody become known. */
static void refused_by(enum storm_cap cap, bool v6)
{
	begin_storm(0);
	for (enum storm_cap other = 0; other < STORM_CAPS; other++)
		set_cap(other, other == cap ? 1 : 1000, other == cap ? 0 : 500);
	attempt(v6, 0);
	pass(0);
	assert_int_equal(seen.admitted, 1);
	remember_buckets();
	for (uint32_t i = 1; i < 200; i++) {
		uint32_t client = cap == STORM_CLIENT ? 0 : cap == STORM_PREFIX ? i : i * 256;

		attempt_as((struct attempt){i & 1 ? PROTO_UDP : PROTO_TCP, v6, i, client, ISN, 0});
		pass(1);
	}
	assert_int_equal(seen.admitted, 1);
	assert_int_equal(verdicts(VERDICT_answer_storm_client + cap) + verdicts(VERDICT_shed_storm_client + cap), 199);
	check_buckets_unchanged();
	stop();
}

static void test_refused_changes_no_bucket(void **state)
{
	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++) {
		refused_by(cap, false);
		refused_by(cap, true);
	}
}

/* Nor has it when what comes after the caps refuses: no backend, no place. */
static void test_unplaced_changes_no_bucket(void **state)
{
	for (int full = 0; full < 2; full++) {
		begin_with((struct rig_config){.flows_v4 = 1, .n_backends = 1}, HOLD);
		for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++)
			set_cap(cap, 1000, 500);
		attempt(false, 0);
		pass(0);
		if (!full)
			rig.service.sets[SET_V4][SET_TCP].n_backends = 0;
		remember_buckets();
		for (uint32_t client = 1; client < 20; client++)
			attempt(false, client);
		pass(1);
		assert_int_equal(seen.refused, 19);
		assert_int_equal(verdicts(full ? VERDICT_answer_table_full : VERDICT_answer_service_down), 19);
		assert_int_equal(report().refused_storm, 0);
		check_buckets_unchanged();
		stop();
	}
}

/* --- the ladder --- */

/* Without a hold: a RST at once, twice a second, then silence; each says which cap it was. */
static void rst_then_silence(enum storm_cap cap, bool v6)
{
	begin_storm(0);
	set_cap(cap, 1, 0);
	attempt_as((struct attempt){PROTO_TCP, v6, 100, 0, ISN, 0});
	pass(0);
	for (uint32_t i = 0; i < 10; i++) {
		attempt_as((struct attempt){PROTO_TCP, v6, i, 0, ISN + i, i * 10});
		pass(99);
		if (i % 6 == 0)
			assert_int_equal(seen.rst_ack[i], ISN + i + 1 + i * 10);
	}
	assert_int_equal(seen.admitted, 1);
	assert_int_equal(seen.refused, 2);
	assert_int_equal(verdicts(VERDICT_answer_storm_client + cap), 2);
	assert_int_equal(verdicts(VERDICT_shed_storm_client + cap), 8);
	assert_int_equal(did(ACTION_refuse_client + cap), 2);
	assert_int_equal(did(ACTION_silence_client + cap), 8);
	assert_int_equal(report().refused, 2);
	assert_int_equal(report().silent, 8);
	assert_int_equal(report().refused_storm, 10);
	/* Of a cap that all share: what early shedding goes by. */
	assert_int_equal(report().silent_many, cap == STORM_SERVICE ? 8 : 0);
	assert_int_equal(report().silent_rate, cap == STORM_SERVICE ? 8 : 0);
	stop();
}

static void test_rst_then_silence(void **state)
{
	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++) {
		rst_then_silence(cap, false);
		rst_then_silence(cap, true);
	}
}

/* UDP is neither held nor told. */
static void test_udp(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 10, 4);
		for (uint32_t client = 0; client < 20; client++)
			attempt_as((struct attempt){PROTO_UDP, v6, client, client, 0, 0});
		pass(0);
		assert_int_equal(seen.admitted, 5);
		assert_int_equal(seen.refused, 0);
		assert_int_equal(verdicts(VERDICT_shed_storm_service), 15);
		assert_int_equal(report().silent, 15);
		assert_int_equal(inside(), 0);
		stop();
	}
}

/* --- holding --- */

/* One over the cap waits for a token, then goes its way as if it had come just now; what it repeats is absorbed. */
static void held(bool v6, unsigned workers)
{
	begin_with((struct rig_config){.n_workers = workers}, HOLD);
	set_cap(STORM_SERVICE, 10, 0);
	attempt(v6, 0);
	pass(0);
	attempt(v6, 2);
	pass(0);
	assert_int_equal(seen.admitted, 1);
	assert_int_equal(inside(), 1);
	assert_int_equal(report().holding, 1);
	assert_int_equal(rte_mempool_in_use_count(rig.dp->pool), 0); /* its packet is gone */
	assert_false(dataplane_service_unused(rig.dp, 0));
	for (int i = 1; i <= 3; i++) {
		attempt(v6, 2);
		pass(20);
		assert_int_equal(verdicts(VERDICT_absorb_held), i);
	}
	assert_int_equal(seen.admitted, 1);
	check_books();
	pass(70);
	assert_int_equal(seen.admitted, 2);
	assert_int_equal(seen.order[1], 2);
	assert_int_equal(seen.syn_seq[2], seen.syn_seq[0]);
	assert_in_range(seen.admitted_ns[2] - seen.admitted_ns[0], 100 * MS, 122 * MS);
	assert_int_equal(inside(), 0);
	assert_int_equal(report().held, 1);
	assert_int_equal(report().held_admitted, 1);
	assert_int_equal(report().attempts, 2);
	assert_int_equal(n_flows(), 2);
	/* Now its flow knows it. */
	seen.admitted_ns[2] = 0;
	attempt(v6, 2);
	pass(0);
	assert_int_equal(seen.admitted, 3);
	assert_int_equal(report().attempts, 2);
	stop();
}

static void test_held(void **state)
{
	each_way(held);
}

/* Data that came with a SYN is not kept: its sender sends it again (RFC 7413 4.1.3), or hears that it was for nothing.
 */
/* With all breakers open there is nothing to wait for. */
static void hopeless(bool v6, unsigned workers)
{
	const struct streak open = {.state = BREAKER_OPEN};

	for (int n_open = 1; n_open <= 2; n_open++) {
		begin_with((struct rig_config){.flows_v4 = 64, .flows_v6 = 64, .n_workers = workers}, 0);
		rig.policy.modes.of[CURE_WALL] = CURE_ENFORCE;
		set_cap(STORM_SERVICE, 10, 1);
		for (uint32_t i = 0; i < 4; i++)
			attempt(v6, i);
		pass(0);
		assert_true(seen.refused); /* no token is left */
		memset(&seen, 0, sizeof(seen));
		rig.service.storm.hold_ns = HOLD;
		for (int i = 0; i < n_open; i++)
			rig.dp->cells.backends[rig.backends[v6][SET_TCP][i].ref.slot].breaker = streak_word(&open);
		for (uint32_t i = 4; i < 8; i++)
			attempt(v6, i);
		pass(0);
		assert_int_equal(seen.admitted, 0);
		assert_int_equal(report().held, n_open == 2 ? 0 : 4);
		assert_int_equal(seen.refused, n_open == 2 ? 4 : 0);
		stop();
	}
}

static void test_hopeless(void **state)
{
	each_way(hopeless);
}

static void test_fast_open(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 2, 0);
		for (uint32_t client = 0; client < 5; client++)
			attempt_as((struct attempt){PROTO_TCP, v6, client, client, ISN, client ? 100 : 0});
		pass(1000);
		assert_int_equal(seen.admitted, 2);
		assert_int_equal(seen.refused, 3);
		assert_int_equal(seen.rst_ack[4], ISN + 1 + 100);
		stop();
	}
}

static void feed_damaged(bool v6, uint32_t number, unsigned offset)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make_first(&(struct attempt){PROTO_TCP, v6, number, number, ISN, 0}, frame);

	frame[ETH + (v6 ? 40 : 20) + offset] ^= 0x04;
	feed_raw(RIG_WAN, 0, frame, len);
}

/* What came damaged is not made again, for it would leave whole: it is refused, and replaces nothing. */
static void test_damaged(void **state)
{
	static const unsigned offsets[] = {4, 7, 14, 16, 17, 20 + 3, 20 + OPTION_LEN - 1};

	for (int v6 = 0; v6 < 2; v6++) {
		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 10, 0);
		attempt(v6, 0);
		attempt(v6, 1);
		pass(0);
		for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
			feed_damaged(v6, 2 + i, offsets[i]);
			feed_damaged(v6, 1, offsets[i]);
			pass(1);
			assert_int_equal(inside(), 1);
			assert_int_equal(verdicts(VERDICT_answer_storm_service), i + 1);
			assert_int_equal(verdicts(VERDICT_absorb_held), i + 1);
		}
		pass(200);
		assert_int_equal(seen.admitted, 2);
		assert_int_equal(seen.syn_seq[1], seen.syn_seq[0]);
		stop();
	}
}

/* The client began anew on the same ports: one SYN upstream, the newer one. */
static void test_other_isn(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 10, 0);
		attempt(v6, 0);
		attempt(v6, 1);
		pass(10);
		attempt_as((struct attempt){PROTO_TCP, v6, 1, 1, ISN + 1000, 0});
		pass(200);
		assert_int_equal(seen.admitted, 2);
		assert_int_equal(seen.syn_seq[1] - seen.syn_seq[0], 1000);
		assert_int_equal(verdicts(VERDICT_absorb_held), 1);
		assert_int_equal(report().attempts, 2);
		stop();
	}
}

/* Two SYNs of a client in one burst: the second finds the first one held. */
static void test_twice_in_a_burst(void **state)
{
	begin_storm(HOLD);
	set_cap(STORM_SERVICE, 10, 0);
	attempt(false, 0);
	pass(0);
	attempt(false, 1);
	attempt(false, 1);
	pass(0);
	assert_int_equal(inside(), 1);
	assert_int_equal(verdicts(VERDICT_absorb_held), 1);
	pass(200);
	assert_int_equal(seen.admitted, 2);
	stop();
}

/* --- attempts whose flow is there --- */

static unsigned upstream_syns(void)
{
	unsigned n = 0;

	for (struct sent s; take(&s);)
		n += s.port == RIG_LAN && s.p.tcp_flags == TCP_SYN;
	return n;
}

/* RST and SYN by turns, in one burst or apart: each SYN is an attempt, and there are tokens for three. */
static void again_after_reset(bool v6, bool burst)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 5};
	unsigned syns = 0;

	begin_storm(0);
	set_cap(STORM_SERVICE, 1, 2);
	for (uint32_t i = 0, isn = ISN; i < BURST_MAX / 2; i++, isn += 1000) {
		feed(RIG_WAN, from_client(&t, TCP_SYN, isn, 0));
		if (!burst)
			turn();
		feed(RIG_WAN, from_client(&t, TCP_RST, isn + 1, 0));
		if (!burst)
			turn();
	}
	turn();
	syns += upstream_syns();
	assert_int_equal(syns, 3);
	assert_int_equal(report().attempts, BURST_MAX / 2);
	assert_int_equal(report().new_flows, 3);
	assert_int_equal(report().refused + report().silent, BURST_MAX / 2 - 3);
	stop();
}

static void test_again_after_reset(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		again_after_reset(v6, false);
		again_after_reset(v6, true);
	}
}

/* While nothing answers, a SYN with another number is another attempt; the same once more is not. */
static void test_another_isn_is_another_attempt(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 5};

		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 1, 2);
		for (uint32_t isn = ISN; isn < ISN + 5000; isn += 1000) {
			feed(RIG_WAN, from_client(&t, TCP_SYN, isn, 0));
			feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
			turn();
		}
		/* The first one again each time, and two others. */
		assert_int_equal(upstream_syns(), 5 + 3);
		assert_int_equal(report().attempts, 5);
		assert_int_equal(report().new_flows, 3);
		assert_int_equal(report().refused + report().silent, 2);
		assert_int_equal(inside(), 0);
		stop();
	}
}

/* A refused one is an outcome of its client, and the flow that is there goes on. */
static void test_refused_beside_its_flow(void **state)
{
	struct talk t;
	struct sent s;

	begin_storm(0);
	set_cap(STORM_SERVICE, 1, 0);
	t = begin(PROTO_TCP, false, 5);
	s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 5000, 0));
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 5001);
	assert_int_equal(verdicts(VERDICT_answer_storm_service), 1);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 5001));
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	stop();
}

/*
 * A herd that comes at once leaves in the order in which it came, a token's time apart but for the jitter; those for
 * whom there is no token in time are refused, not all at once, and none is held for longer than HOLD + 2 ms (B-3).
 */
static void herd(bool v6, unsigned workers)
{
	const uint32_t n = 400, burst = 20, per_s = 100;
	const uint64_t interval_ns = SECOND / per_s;
	uint64_t came_ns, earliest_ns = UINT64_MAX, latest_ns = 0, most_jitter_ns = 0, least_jitter_ns = UINT64_MAX;

	begin_with((struct rig_config){.flows_v4 = 1024, .flows_v6 = 1024, .n_workers = workers, .n_holds = 4096},
		   HOLD);
	set_cap(STORM_SERVICE, per_s, burst);
	for (uint32_t client = 0; client < n; client++)
		attempt(v6, client);
	came_ns = rig.now_ns;
	pass(0);
	assert_in_range(seen.admitted, burst + 1, burst + workers);
	assert_int_equal(inside(), n - seen.admitted);
	pass((HOLD + 2 * MS) / MS);
	assert_int_equal(inside(), 0);
	assert_int_equal(seen.admitted + seen.refused, n);
	assert_in_range(seen.admitted, burst + 89, burst + 91 + workers);
	for (uint32_t i = burst + workers; i < seen.admitted; i++) {
		uint64_t waited_ns = seen.admitted_ns[seen.order[i]] - came_ns;
		uint64_t turn_ns = (i - burst) * interval_ns;

		/* Workers share the line; a place may be lost where both let their first one through. */
		assert_true(waited_ns + (workers - 1) * interval_ns >= turn_ns);
		assert_true(waited_ns <= turn_ns + interval_ns + 2 * MS);
		most_jitter_ns = waited_ns - turn_ns > most_jitter_ns ? waited_ns - turn_ns : most_jitter_ns;
		least_jitter_ns = waited_ns - turn_ns < least_jitter_ns ? waited_ns - turn_ns : least_jitter_ns;
		if (workers == 1)
			assert_int_equal(seen.order[i], i);
	}
	if (workers == 1)
		assert_true(least_jitter_ns < 3 * MS && most_jitter_ns > interval_ns / 2);
	for (uint32_t client = 0; client < n; client++) {
		uint64_t ended_ns = seen.refused_ns[client];

		if (!ended_ns)
			continue;
		assert_int_equal(seen.admitted_ns[client], 0);
		earliest_ns = ended_ns < earliest_ns ? ended_ns : earliest_ns;
		latest_ns = ended_ns > latest_ns ? ended_ns : latest_ns;
	}
	assert_in_range(earliest_ns - came_ns, HOLD / 2, HOLD / 2 + 100 * MS);
	assert_in_range(latest_ns - came_ns, HOLD - 100 * MS, HOLD + 2 * MS);
	stop();
}

static void test_herd(void **state)
{
	each_way(herd);
}

/* B-3 over a walk of arrivals and rates: however long the queue, whatever the cap. */
static void test_no_hold_is_longer(void **state)
{
	uint64_t random = 5, came_ns[2048];
	uint32_t n = 0;

	begin_with((struct rig_config){.flows_v4 = 4096, .n_holds = 4096}, HOLD);
	set_cap(STORM_CLIENT, 3, 1);
	set_cap(STORM_PREFIX, 20, 5);
	set_cap(STORM_SERVICE, 150, 10);
	for (unsigned ms = 0; ms < 5000; ms++) {
		for (uint64_t i = frame_random(&random) % 1000 < 10 ? 60 : 0; i > 0 && n < 2048; i--) {
			came_ns[n] = rig.now_ns;
			attempt(false, n++);
		}
		pass(1);
	}
	pass((HOLD + 2 * MS) / MS);
	assert_int_equal(inside(), 0);
	assert_true(n > 1500 && report().held > 1000 && report().held_admitted > 200);
	for (uint32_t client = 0; client < n; client++) {
		uint64_t end_ns = seen.admitted_ns[client] + seen.refused_ns[client];

		assert_true(!seen.admitted_ns[client] != !seen.refused_ns[client]);
		assert_true(end_ns - came_ns[client] <= HOLD + 2 * MS);
	}
	stop();
}

/* A token that comes while somebody waits is not for a newcomer. */
static void test_nobody_overtakes(void **state)
{
	begin_storm(HOLD);
	set_cap(STORM_SERVICE, 10, 0);
	attempt(false, 0);
	pass(0);
	attempt(false, 1);
	pass(99);
	/* The next turn has a token; its owner may be late by the jitter. */
	for (uint32_t client = 2; client < 8; client++) {
		attempt(false, client);
		pass(1);
	}
	pass(1000);
	assert_int_equal(seen.admitted, 8);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(seen.order[i], i);
	stop();
}

/* Who waits for its own cap keeps nobody else waiting; who waits for two stands in both lines. */
static void test_caps_together(void **state)
{
	begin_with((struct rig_config){.flows_v4 = 1024, .n_holds = 4096}, HOLD);
	set_cap(STORM_PREFIX, 10, 0);
	set_cap(STORM_SERVICE, 100, 0);
	/* 50 of one prefix, then 20 prefixes of one each. */
	for (uint32_t client = 0; client < 50; client++)
		attempt(false, client);
	for (uint32_t prefix = 1; prefix <= 20; prefix++)
		attempt(false, prefix * 256);
	pass(0);
	assert_int_equal(seen.admitted, 1);
	pass(300);
	/* In 300 ms the service gives 30, of which the one prefix may have 3. */
	for (uint32_t prefix = 1; prefix <= 20; prefix++)
		assert_true(seen.admitted_ns[prefix * 256] != 0);
	assert_in_range(seen.admitted, 1 + 20 + 1, 1 + 20 + 3);
	pass(602);
	assert_in_range(seen.admitted, 1 + 20 + 6, 1 + 20 + 9);
	assert_int_equal(verdicts(VERDICT_answer_storm_prefix), 70 - seen.admitted);
	assert_int_equal(did(ACTION_hold_prefix), 49);
	assert_int_equal(did(ACTION_hold_service), 20);
	stop();
}

/* --- where it is full, or changes --- */

/* A service takes what it leaves to others, half of that without hope; the rest is refused at once. */
static void test_full(void **state)
{
	for (int hopeless = 0; hopeless < 2; hopeless++) {
		begin_with((struct rig_config){.flows_v4 = 256, .n_holds = 96}, HOLD);
		set_cap(STORM_SERVICE, hopeless ? 1 : 1000, 0);
		for (uint32_t client = 0; client < 200; client++)
			attempt(false, client);
		pass(0);
		assert_int_equal(seen.admitted, 1);
		assert_int_equal(inside(), hopeless ? 32 : 48);
		assert_int_equal(seen.refused, 199 - inside());
		check_books();
		pass(902);
		assert_int_equal(inside(), 0);
		assert_int_equal(seen.admitted, hopeless ? 1 : 49);
		stop();
	}
}

/* Its service is gone, or no longer listens there: the client hears it, and the slot is free then. */
static void test_service_gone(void **state)
{
	for (int listeners_only = 0; listeners_only < 2; listeners_only++) {
		static const struct policy_service *const none[1];
		struct policy other;

		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 10, 0);
		for (uint32_t client = 0; client < 5; client++)
			attempt(false, client);
		pass(10);
		assert_int_equal(inside(), 4);
		other = rig.policy;
		other.number++;
		other.listeners = listener_table_create(NULL, 0);
		if (!listeners_only)
			other.services = none;
		dataplane_publish(rig.dp, &other);
		pass(30);
		check_books();
		/* No flow, but those that wait. */
		end_last(false);
		assert_false(dataplane_service_unused(rig.dp, 0));
		pass(500);
		assert_int_equal(seen.admitted, 1);
		assert_int_equal(verdicts(VERDICT_answer_service_down), 4);
		assert_int_equal(seen.rst_ack[4], ISN + 1);
		assert_int_equal(inside(), 0);
		assert_true(dataplane_service_unused(rig.dp, 0));
		dataplane_publish(rig.dp, &rig.policy);
		listener_table_destroy((struct listener_table *)other.listeners);
		stop();
	}
}

/* Another cap, or none: those held go by what is said now; in shadow and off they stay what they are. */
static void test_policy_change(void **state)
{
	for (enum cure_mode mode = CURE_OFF; mode <= CURE_ENFORCE; mode++) {
		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 1, 0);
		attempt(false, 0);
		attempt(false, 1);
		attempt(false, 2);
		pass(10);
		assert_int_equal(inside(), 2);
		set_mode(mode);
		attempt(false, 1);
		pass(0);
		assert_int_equal(verdicts(VERDICT_absorb_held), 1);
		rig.service.storm.caps[STORM_SERVICE] = (struct gcra_rate){0};
		attempt(false, 3);
		pass(0);
		assert_int_equal(seen.order[1], 3);
		pass(902);
		assert_int_equal(seen.admitted, 4);
		stop();
	}
}

/* The worker ends: whoever waits hears nothing, and will ask the next one. */
static void test_stop(void **state)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		begin_with((struct rig_config){.n_workers = workers}, HOLD);
		set_cap(STORM_SERVICE, 50, 0);
		for (uint32_t client = 0; client < 100; client++)
			attempt(false, client);
		pass(10);
		for (unsigned i = 0; i < workers; i++)
			storm_stop(rig.dp->workers[i]);
		assert_int_equal(inside(), 0);
		assert_int_equal(report().holding, 0);
		assert_int_equal(verdicts(VERDICT_drop_stopped), 100 - seen.admitted);
		assert_int_equal(report().silent, 100 - seen.admitted);
		stop();
	}
}

/* No buffer when its time has come: it waits for one as long as it may. */
static void test_no_buffer(void **state)
{
	for (int for_good = 0; for_good < 2; for_good++) {
		struct rte_mbuf *all[4095];
		unsigned n = 0;

		begin_storm(HOLD);
		set_cap(STORM_SERVICE, 10, 0);
		attempt(false, 0);
		attempt(false, 1);
		pass(0);
		while (n < 4095 && (all[n] = rte_pktmbuf_alloc(rig.dp->pool)))
			n++;
		pass(for_good ? 902 : 300);
		assert_int_equal(seen.admitted, 1);
		assert_int_equal(inside(), !for_good);
		rte_pktmbuf_free_bulk(all, n);
		pass(2);
		assert_int_equal(seen.admitted, for_good ? 1 : 2);
		assert_int_equal(verdicts(VERDICT_drop_no_buffer), for_good);
		stop();
	}
}

/* A worker that did not run: all whose time has passed end now, the client's patience did not stand still. */
static void test_stall(void **state)
{
	begin_storm(HOLD);
	set_cap(STORM_SERVICE, 10, 5);
	for (uint32_t client = 0; client < 40; client++)
		attempt(false, client);
	pass(0);
	assert_int_equal(seen.admitted, 6);
	rig.now_ns += 5 * SECOND;
	pass(0);
	assert_int_equal(inside(), 0);
	assert_int_equal(seen.admitted, 12);
	assert_int_equal(seen.refused, 28);
	stop();
}

static uint32_t fullest_slot(const struct holds *hs)
{
	uint32_t most = 0;

	for (uint32_t slot = 0; slot < HOLD_SLOTS; slot++) {
		uint32_t n = 0;

		for (uint32_t i = hs->slots[slot].first; i != HOLD_NONE; i = hs->holds[i].next)
			n++;
		most = n > most ? n : most;
	}
	return most;
}

/* Whose turn passed unused, for want of tokens, gets another: they are not all tried again and again meanwhile. */
static void test_stall_in_line(void **state)
{
	begin_with((struct rig_config){.flows_v4 = 4096, .n_holds = 4096}, HOLD);
	set_cap(STORM_SERVICE, 1000, 20);
	for (uint32_t client = 0; client < 800; client++)
		attempt(false, client);
	pass(1);
	rig.now_ns += 200 * MS;
	pass(0);
	assert_in_range(seen.admitted, 42, 44);
	pass(10);
	assert_true(fullest_slot(&rig.worker->holds) <= 8);
	pass(692);
	assert_int_equal(inside(), 0);
	assert_in_range(seen.admitted, 42 + 650, 42 + 705);
	stop();
}

/* --- modes --- */

struct outcome {
	uint64_t digest, hold, refuse, silence;
	unsigned admitted;
	struct service_report r;
};

/* A storm of 3 s, the same each time; clients do not care what becomes of them. */
static struct outcome replay(enum cure_mode mode, bool v6, unsigned workers)
{
	struct outcome o = {0};
	uint64_t (*count)(enum action) = mode == CURE_SHADOW ? would : did;
	uint64_t random = 11;

	begin_with((struct rig_config){.flows_v4 = 8192, .flows_v6 = 8192, .n_workers = workers, .n_holds = 256}, HOLD);
	set_mode(mode);
	set_cap(STORM_CLIENT, 4, 2);
	set_cap(STORM_PREFIX, 50, 20);
	set_cap(STORM_SERVICE, 100, 30);
	for (uint32_t ms = 0; ms < 3000; ms++) {
		uint32_t client = frame_random(&random) % 2000;

		/* A few come often. */
		attempt_as((struct attempt){ms % 40 ? PROTO_TCP : PROTO_UDP, v6, ms,
					    client < 1000 ? client % 4 : client, ISN, 0});
		pass(1);
		check_books();
	}
	pass(HOLD / MS + 2);
	o.digest = seen.digest;
	o.admitted = seen.admitted;
	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++) {
		o.hold += count(ACTION_hold_client + cap);
		o.refuse += count(ACTION_refuse_client + cap);
		o.silence += count(ACTION_silence_client + cap);
	}
	o.r = report();
	stop();
	return o;
}

/* Shadow changes no byte and no moment, and counts what enforce does. */
static void shadow(bool v6, unsigned workers)
{
	struct outcome off = replay(CURE_OFF, v6, workers), in_shadow = replay(CURE_SHADOW, v6, workers);
	struct outcome enforced = replay(CURE_ENFORCE, v6, workers);

	assert_int_equal(off.digest, in_shadow.digest);
	assert_true(off.digest != enforced.digest);
	assert_int_equal(off.admitted, 3000);
	assert_int_equal(off.hold + off.refuse + off.silence, 0);
	assert_int_equal(in_shadow.r.holding + in_shadow.r.held + in_shadow.r.refused + in_shadow.r.silent, 0);
	assert_int_equal(in_shadow.r.new_flows, 3000);
	assert_true(enforced.hold > 300 && enforced.refuse > 300 && enforced.silence > 300);
	assert_int_equal(in_shadow.hold, enforced.hold);
	assert_int_equal(in_shadow.refuse, enforced.refuse);
	assert_int_equal(in_shadow.silence, enforced.silence);
	assert_int_equal(in_shadow.r.would_hold, enforced.r.held);
	assert_int_equal(in_shadow.r.would_refuse, enforced.r.refused);
	assert_int_equal(in_shadow.r.would_silence, enforced.r.silent);
}

static void test_shadow(void **state)
{
	each_way(shadow);
}

/* What is only counted takes no RST from those who are refused in earnest. */
static void test_shadow_answers_nobody(void **state)
{
	begin_storm(0);
	set_mode(CURE_SHADOW);
	set_cap(STORM_CLIENT, 1, 0);
	for (uint32_t i = 0; i < 5; i++)
		attempt_as((struct attempt){PROTO_TCP, false, i, 0, ISN, 0});
	pass(0);
	assert_int_equal(seen.admitted, 5);
	assert_int_equal(report().would_refuse, 1);
	assert_int_equal(report().would_silence, 3);
	rig.service.sets[SET_V4][SET_TCP].n_backends = 0;
	attempt_as((struct attempt){PROTO_TCP, false, 5, 0, ISN, 0});
	pass(0);
	assert_int_equal(seen.refused, 1);
	stop();
}

/* Nothing waits in shadow, so a slot may have its next owner before the time of what would have waited is over. */
static void test_shadow_of_another(void **state)
{
	begin_storm(HOLD);
	set_mode(CURE_SHADOW);
	set_cap(STORM_SERVICE, 1, 0);
	for (uint32_t client = 0; client < 10; client++)
		attempt(false, client);
	pass(0);
	assert_int_equal(report().would_hold, 9);
	for (int i = 0; i < 10; i++)
		end_last(false);
	assert_true(dataplane_service_unused(rig.dp, 0));
	dataplane_service_reset(rig.dp, 0);
	rig.service.ref.generation++;
	remember_buckets();
	pass(HOLD / MS + 2);
	assert_int_equal(rig.worker->holds.n, 0);
	assert_int_equal(report().would_refuse + report().would_silence, 0);
	check_buckets_unchanged();
	stop();
}

/* Off: nobody is measured. */
static void test_off(void **state)
{
	begin_storm(HOLD);
	set_mode(CURE_OFF);
	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++)
		set_cap(cap, 1, 0);
	remember_buckets();
	for (uint32_t client = 0; client < 100; client++)
		attempt(false, client);
	pass(100);
	assert_int_equal(seen.admitted, 100);
	check_buckets_unchanged();
	stop();
}

/* --- B-8 --- */

/* A million sources, each once: nothing grows, and the books are right. */
static void test_a_million_sources(void **state)
{
	struct rte_malloc_socket_stats before, after;
	const uint32_t n = SOURCES, batch = 500;

	begin_with((struct rig_config){.flows_v4 = 8192, .n_holds = 1024}, HOLD);
	rig.service.timeouts.syn_sent_ms = 200;
	set_cap(STORM_CLIENT, 10, 1);
	set_cap(STORM_PREFIX, 1000, 100);
	set_cap(STORM_SERVICE, 30000, 1000);
	rte_malloc_get_socket_stats(0, &before);
	for (uint32_t i = 0; i < n; i += batch) {
		struct sent s;

		for (uint32_t j = 0; j < batch; j++) {
			struct talk t = {.proto = PROTO_TCP};
			struct frame_spec spec = from_client(&t, TCP_SYN, ISN, 0);

			spec.src = ipaddr_v4(htonl(0x0b000000 + (i + j) * 16));
			feed(RIG_WAN, spec);
		}
		for (int ms = 0; ms < 10; ms++) {
			turn();
			rig.now_ns += MS;
			while (take(&s))
				;
		}
	}
	rte_malloc_get_socket_stats(0, &after);
	assert_int_equal(after.heap_allocsz_bytes, before.heap_allocsz_bytes);
	assert_int_equal(after.alloc_count, before.alloc_count);
	check_books();
	assert_int_equal(report().attempts, n);
	assert_true(report().new_flows > n / 2 && report().held > n / 100 && report().refused_storm > n / 100);
	for (int ms = 0; ms < 1000; ms++) {
		struct sent s;

		turn();
		rig.now_ns += MS;
		while (take(&s))
			;
	}
	assert_int_equal(inside(), 0);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accuracy),
		cmocka_unit_test(test_under_the_cap),
		cmocka_unit_test(test_apart),
		cmocka_unit_test(test_refused_changes_no_bucket),
		cmocka_unit_test(test_unplaced_changes_no_bucket),
		cmocka_unit_test(test_rst_then_silence),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_hopeless),
		cmocka_unit_test(test_fast_open),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_other_isn),
		cmocka_unit_test(test_twice_in_a_burst),
		cmocka_unit_test(test_again_after_reset),
		cmocka_unit_test(test_another_isn_is_another_attempt),
		cmocka_unit_test(test_refused_beside_its_flow),
		cmocka_unit_test(test_herd),
		cmocka_unit_test(test_no_hold_is_longer),
		cmocka_unit_test(test_nobody_overtakes),
		cmocka_unit_test(test_caps_together),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_service_gone),
		cmocka_unit_test(test_policy_change),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_no_buffer),
		cmocka_unit_test(test_stall),
		cmocka_unit_test(test_stall_in_line),
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_shadow_answers_nobody),
		cmocka_unit_test(test_shadow_of_another),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_a_million_sources),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
