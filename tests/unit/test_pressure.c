/* SPDX-License-Identifier: BSD-3-Clause */
/* What becomes of whom while a flow table fills up. */
#include "ends.h"

#include "pressure.h"

#include <string.h>

#define N         200   /* flows that a worker has room for, of each family */
#define NEARLY    190   /* 95 % */
#define SAME_HOST 65536 /* to a client's number: another port of the same host, of the same /64 */

/* Silent backends are none of this file's business. */
static void begin_table(unsigned workers)
{
	begin_rig((struct rig_config){.n_backends = 2,
				      .n_workers = workers,
				      .flows_v4 = workers * N,
				      .flows_v6 = workers * N,
				      .n_clients = 8192});
	rig.service.timeouts.probe_ms = 0;
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
}

static uint32_t in_use(unsigned worker, bool v6)
{
	const struct flow_table *t = &rig.dp->workers[worker]->flows;

	return v6 ? t->pool6.in_use : t->pool4.in_use;
}

static struct worker_report report(unsigned worker)
{
	struct worker_report r;

	worker_publish(rig.dp->workers[worker]);
	observe_worker(rig.dp, worker, &r);
	return r;
}

static enum pressure_level level(unsigned worker, bool v6)
{
	return v6 ? report(worker).pressure_v6 : report(worker).pressure_v4;
}

static uint64_t reached(unsigned worker, bool v6, enum pressure_level l)
{
	return v6 ? report(worker).pressed_v6[l] : report(worker).pressed_v4[l];
}

/* The first packet of a host that nobody knows; of IPv6, in a network of its own. */
static struct frame_spec stranger(uint8_t proto, bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = proto, .client = client};
	struct frame_spec spec = from_client(&t, proto == PROTO_TCP ? TCP_SYN : 0, ISN, 0);

	if (v6) {
		spec.src.b[5] = 1 + (client >> 16);
		spec.src.b[6] = client >> 8;
		spec.src.b[7] = client;
	}
	return spec;
}

/* SYNs that nobody answers, of new hosts, until every worker has at least `n` flows, or refuses. */
static unsigned flood(bool v6, unsigned first, uint32_t n)
{
	unsigned client = first;

	for (uint32_t least = 0; least < n && client < first + 4 * n_workers * N; client++) {
		feed(RIG_WAN, stranger(PROTO_TCP, v6, client));
		turn();
		take_all();
		least = UINT32_MAX;
		for (unsigned w = 0; w < n_workers; w++)
			least = in_use(w, v6) < least ? in_use(w, v6) : least;
	}
	return client;
}

/* The next client from `client` on whose flow would be that worker's. */
static unsigned client_of(unsigned worker, bool v6, unsigned client)
{
	for (;; client += SAME_HOST) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
		struct frame_spec spec = from_client(&t, TCP_SYN, ISN, 0);
		struct flow_key4 key4 = {.src_be = ipaddr_v4_be(&spec.src), .dst_be = ipaddr_v4_be(&spec.dst)};
		struct flow_key6 key6 = {.sport_be = spec.sport_be, .dport_be = spec.dport_be};
		uint64_t hash;

		key4.sport_be = spec.sport_be;
		key4.dport_be = spec.dport_be;
		memcpy(key6.src, spec.src.b, 16);
		memcpy(key6.dst, spec.dst.b, 16);
		hash = v6 ? flow_hash6(&key6, PROTO_TCP, rig.dp->config.secret)
			  : flow_hash4(&key4, PROTO_TCP, rig.dp->config.secret);
		if (((uint32_t)(hash >> 32 & 0xffff) * n_workers >> 16) == worker)
			return client;
	}
}

static struct sent syn_of(bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};

	return exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
}

/* --- levels and who is refused --- */

/* D-24: from 95 % on only clients that had a success come in, and nobody in the last 5 % pays for a stranger. */
static void strangers(bool v6, unsigned workers)
{
	unsigned next, host = 20000;
	struct sent s;
	uint64_t refused_before;

	begin_table(workers);
	establish(v6, host);
	next = flood(v6, 0, NEARLY);
	for (unsigned w = 0; w < workers; w++) {
		assert_int_equal(in_use(w, v6), NEARLY);
		assert_int_equal(level(w, v6), PRESSURE_KNOWN);
		assert_int_equal(level(w, !v6), PRESSURE_NONE);
		assert_int_equal(reached(w, v6, PRESSURE_SHORT), 1);
		assert_int_equal(reached(w, v6, PRESSURE_KNOWN), 1);
	}
	/* The other family has its own. */
	s = syn_of(!v6, 30000);
	assert_int_equal(s.port, RIG_LAN);
	/* A stranger is told; one that sends datagrams is not. */
	rest();
	refused_before = verdicts(VERDICT_answer_table_pressed);
	s = exchange(RIG_WAN, stranger(PROTO_TCP, v6, next));
	check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
	assert_int_equal(verdicts(VERDICT_answer_table_pressed), refused_before + 1);
	refused(RIG_WAN, stranger(PROTO_UDP, v6, next + 1), VERDICT_drop_table_pressed);
	/* Whoever has connected at one worker is known to all, by another port of its host as well. */
	for (unsigned w = 0; w < workers; w++) {
		for (unsigned client = client_of(w, v6, host + SAME_HOST); in_use(w, v6) < N;
		     client = client_of(w, v6, client + SAME_HOST)) {
			s = syn_of(v6, client);
			assert_int_equal(s.port, RIG_LAN);
		}
		/* Until there is no room for anyone. */
		rest();
		s = syn_of(v6, client_of(w, v6, host + 500 * SAME_HOST));
		check_rst(&s, RIG_WAN, TCP_RST | TCP_ACK, 0, ISN + 1);
		assert_int_equal(verdicts(VERDICT_answer_table_full), w + 1);
		assert_int_equal(level(w, v6), PRESSURE_FULL);
		assert_int_equal(reached(w, v6, PRESSURE_FULL), 1);
	}
	stop();
}

static void test_strangers(void **state)
{
	each_way(strangers);
}

/* A SYN, or a query, of another port of that host. */
static enum rig_port way_of(uint8_t proto, bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = proto, .client = client + SAME_HOST};
	struct sent s = {.port = RIG_WAN};

	feed(RIG_WAN, from_client(&t, proto == PROTO_TCP ? TCP_SYN : 0, ISN, 0));
	turn();
	take(&s);
	take_none();
	return s.port;
}

/*
 * A success counts for a minute, and a connection that is long is none by being there. An answered query is one for
 * queries alone: whoever sent it need not be who is named as its sender.
 */
static void test_known_for_a_minute(void **state)
{
	for (int n = 0; n < 8; n++) {
		bool v6 = n & 1, udp = n & 2, late = n & 4;
		struct talk t;

		begin_table(1);
		if (udp) {
			t = begin(PROTO_UDP, v6, 20000);
			exchange(RIG_LAN, from_backend(&t, 0, 0, 0));
		} else {
			establish(v6, 20000);
		}
		pass_ms(late ? 60100 : 57000);
		rig.service.timeouts.syn_sent_ms = 600000;
		flood(v6, 0, NEARLY);
		rest();
		assert_int_equal(way_of(PROTO_UDP, v6, 20000), late ? RIG_WAN : RIG_LAN);
		assert_int_equal(way_of(PROTO_TCP, v6, 20000), late || udp ? RIG_WAN : RIG_LAN);
		stop();
	}
}

/* A flood of strangers is refused without a trace: it pushes nobody out of the memory of those that are known. */
static void test_flood_forgets_nobody(void **state)
{
	begin_rig((struct rig_config){.n_backends = 2, .flows_v4 = N, .n_clients = 256});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	rig.service.timeouts.syn_sent_ms = 600000;
	for (unsigned host = 0; host < 20; host++)
		establish(false, 20000 + host);
	flood(false, 0, NEARLY);
	for (unsigned client = 1000; client < 9000; client++) {
		struct talk t = {.proto = PROTO_TCP, .client = client};

		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		if (client % 64 == 0) {
			turn();
			turn();
			take_all();
		}
	}
	turn();
	take_all();
	assert_int_equal(in_use(0, false), NEARLY);
	for (unsigned host = 0; host < 10; host++)
		assert_int_equal(syn_of(false, 20000 + host + SAME_HOST).port, RIG_LAN);
	stop();
}

/* Levels fall later than they rise: at 88, 93 and 98 %. */
static void test_hysteresis(void **state)
{
	static const struct {
		uint32_t in_use;
		enum pressure_level level;
	} steps[] = {
		{179, PRESSURE_NONE},  {180, PRESSURE_SHORT}, {189, PRESSURE_SHORT}, {190, PRESSURE_KNOWN},
		{199, PRESSURE_KNOWN}, {200, PRESSURE_FULL},  {196, PRESSURE_FULL},  {195, PRESSURE_KNOWN},
		{199, PRESSURE_KNOWN}, {186, PRESSURE_KNOWN}, {185, PRESSURE_SHORT}, {189, PRESSURE_SHORT},
		{176, PRESSURE_SHORT}, {175, PRESSURE_NONE},  {179, PRESSURE_NONE},  {180, PRESSURE_SHORT},
	};

	for (int v6 = 0; v6 < 2; v6++) {
		begin_table(1);
		for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
			struct flow_pool *pool = v6 ? &rig.worker->flows.pool6 : &rig.worker->flows.pool4;
			uint32_t before = pool->in_use;

			pool->in_use = steps[i].in_use;
			worker_run_once(rig.worker);
			assert_int_equal(level(0, v6), steps[i].level);
			pool->in_use = before;
		}
		assert_int_equal(reached(0, v6, PRESSURE_SHORT), 2);
		assert_int_equal(reached(0, v6, PRESSURE_KNOWN), 1);
		assert_int_equal(reached(0, v6, PRESSURE_FULL), 1);
		rig_destroy(&rig);
	}
}

/* --- short states --- */

/* A flow in that state, as of now. */
static void enter(enum flow_state state, bool v6, unsigned client)
{
	struct talk t =
		state == FLOW_SYN_SENT || state == FLOW_SYN_RECV ? begin(PROTO_TCP, v6, client) : establish(v6, client);

	if (state == FLOW_SYN_RECV)
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	if (state == FLOW_CLOSED)
		exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
	if (state != FLOW_TIME_WAIT)
		return;
	exchange(RIG_WAN, from_client(&t, TCP_FIN | TCP_ACK, ISN + 1, PEER + 1));
	exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 1, ISN + 2));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 2, PEER + 2));
}

static const struct {
	enum flow_state state;
	uint32_t short_ms, plain_ms;
} states[] = {
	{FLOW_SYN_SENT, 4000, 15000},
	{FLOW_SYN_RECV, 10000, 60000},
	{FLOW_TIME_WAIT, 2000, 60000},
	{FLOW_CLOSED, 2000, 10000},
};

/* It lives for that long and not longer, but for a tick of the wheel and a step of the test. */
static void check_life(bool v6, uint32_t others, uint32_t ms)
{
	const uint32_t late_ms = 128 + 2 * STEP_NS / 1000000;

	pass_ms(ms - 100);
	take_all();
	assert_int_equal(in_use(0, v6), others + 1);
	pass_ms(100 + late_ms);
	assert_int_equal(in_use(0, v6), others);
}

/* `before`: it was there when the table filled up, so that its timer has to come forward. */
static void shorter(unsigned i, bool v6, bool before, uint32_t others)
{
	begin_table(1);
	if (before)
		enter(states[i].state, v6, 20000);
	for (unsigned client = 0; client < others; client++)
		establish(v6, client);
	turn();
	turn();
	if (!before)
		enter(states[i].state, v6, 20000);
	check_life(v6, others, others >= N * 9 / 10 ? states[i].short_ms : states[i].plain_ms);
	/* No connection has paid for it. */
	assert_int_equal(in_use(0, v6), others);
	stop();
}

static void test_short_states(void **state)
{
	for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++)
		for (int way = 0; way < 4; way++) {
			shorter(i, way & 1, way & 2, N * 9 / 10);
			shorter(i, way & 1, way & 2, N * 9 / 10 - 2);
		}
}

/* What the backend says again to nobody prolongs nothing; when there is room, it does. */
static void test_syn_ack_again(void **state)
{
	for (int n = 0; n < 4; n++) {
		bool v6 = n & 1, pressed = n & 2;
		uint32_t others = N * 9 / 10 - (pressed ? 0 : 2);
		struct talk t;

		begin_table(1);
		rig.service.timeouts.syn_recv_ms = 10000;
		for (unsigned client = 0; client < others; client++)
			establish(v6, client);
		turn();
		t = begin(PROTO_TCP, v6, 20000);
		for (uint32_t ms = 0; ms < 9000; ms += 3000) {
			exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
			pass_ms(3000);
		}
		pass_ms(2000);
		assert_int_equal(in_use(0, v6), others + !pressed);
		stop();
	}
}

/* With the wall, too: the SYN's deadline stays what it was, and what is left after it is short. */
static void test_short_syn_of_the_wall(void **state)
{
	begin_table(1);
	rig.policy.modes.of[CURE_WALL] = CURE_SHADOW;
	for (unsigned client = 0; client < N * 9 / 10; client++)
		establish(false, client);
	enter(FLOW_SYN_SENT, false, 20000);
	check_life(false, N * 9 / 10, 4000);
	stop();
}

/* A walk is some entries per loop, whatever the size of the table. */
static void test_bounded_walk(void **state)
{
	enum { MANY = 20000 };
	uint32_t before = 0;
	unsigned loops = 0;

	begin_rig((struct rig_config){.n_backends = 2, .flows_v4 = MANY});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	rig.worker->flows.pool4.in_use = MANY * 9 / 10;
	while (worker_run_once(rig.worker)) {
		assert_true(rig.worker->pressure.pools[SET_V4].cursor - before <= 128);
		before = rig.worker->pressure.pools[SET_V4].cursor;
		loops++;
	}
	assert_in_range(loops, MANY / 128, MANY / 128 + 1);
	assert_int_equal(pressure_nap_ms(rig.worker, 100), 100);
	rig.worker->flows.pool4.in_use = 0;
	stop();
}

/* Where loops are long, each does its share of that time, up to a bound. */
static void test_walk_of_long_loops(void **state)
{
	enum { MANY = 100000 };
	static const struct {
		uint64_t loop_ns;
		uint32_t share;
	} cases[] = {{1500000, 2625}, {40000000, 4096}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct pressure_pool *p;
		unsigned loops = 0;

		begin_rig((struct rig_config){.n_backends = 2, .flows_v4 = MANY});
		rig.policy.modes.of[CURE_WALL] = CURE_OFF;
		p = &rig.worker->pressure.pools[SET_V4];
		rig.worker->flows.pool4.in_use = MANY * 9 / 10;
		do {
			uint32_t before = p->cursor;

			worker_run_once(rig.worker);
			assert_true(p->cursor - before <= cases[i].share);
			rig.now_ns += cases[i].loop_ns;
			loops++;
		} while (p->walking);
		assert_in_range(loops, MANY / cases[i].share, MANY / cases[i].share + 2);
		rig.worker->flows.pool4.in_use = 0;
		stop();
	}
}

/* --- evicting --- */

/* The workers run all the while, and hear nothing. */
static void idle_for(uint32_t s)
{
	rig.now_ns += s * UINT64_C(1000000000);
	for (unsigned w = 0; w < n_workers; w++)
		rig.dp->workers[w]->now_ns = rig.now_ns;
}

/* Both ends hear it, with the numbers that they expect. */
static unsigned take_resets(void)
{
	unsigned n[RIG_PORTS] = {0};
	struct sent s;

	while (take(&s)) {
		if (s.p.tcp_flags == TCP_SYN)
			continue;
		assert_true(s.p.tcp_flags & TCP_RST);
		assert_int_equal(seq(&s), s.port == RIG_LAN ? ISN + 1 : PEER + 1);
		n[s.port]++;
	}
	assert_int_equal(n[RIG_WAN], n[RIG_LAN]);
	return n[RIG_WAN];
}

/* What makes the table too full; returns how many connections ended for it. */
static unsigned one_too_many(bool v6)
{
	feed(RIG_WAN, stranger(PROTO_TCP, v6, 9000));
	for (int i = 0; i < 50; i++, rig.now_ns += 5000000)
		turn();
	return take_resets();
}

/* The idlest of the connections first, those that idled for ten minutes at all; off: nobody. */
static void evict(bool v6, bool on)
{
	static struct talk t[N];
	unsigned n = 0, ended = 0;

	begin_table(1);
	rig.dp->config.evict_idle = on;
	for (; n < 8; n++)
		t[n] = establish(v6, n);
	idle_for(600);
	for (; n < 16; n++)
		t[n] = establish(v6, n);
	idle_for(400);
	/* The first eight have idled for 1000 s, the others for 400 s. */
	for (; n < NEARLY - 1; n++)
		t[n] = establish(v6, n);
	turn();
	take_none();
	ended = one_too_many(v6);
	/* Until there is room for strangers again. */
	assert_int_equal(ended, on ? NEARLY - 185 : 0);
	assert_int_equal(did(ACTION_evict_idle), ended);
	assert_int_equal(in_use(0, v6), NEARLY - ended);
	assert_int_equal(level(0, v6), on ? PRESSURE_SHORT : PRESSURE_KNOWN);
	/* Those that idled less are all there. */
	for (unsigned i = 8; i < n; i++)
		assert_int_equal(
			exchange(RIG_WAN, with_payload(from_client(&t[i], TCP_ACK | TCP_PSH, ISN + 1, PEER + 1), 10))
				.port,
			RIG_LAN);
	stop();
}

static void test_evict_idle(void **state)
{
	for (int way = 0; way < 4; way++)
		evict(way & 1, way & 2);
}

/* With data under way, an end lasts until its receiver has heard: no others have to go meanwhile. */
static void test_evict_under_way(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		unsigned n = 0;

		begin_table(1);
		rig.dp->config.evict_idle = true;
		for (; n < 100; n++) {
			struct talk t = establish(v6, n);

			exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK | TCP_PSH, PEER + 1, ISN + 1), 10));
		}
		idle_for(900);
		for (; n < NEARLY - 1; n++)
			establish(v6, n);
		feed(RIG_WAN, stranger(PROTO_TCP, v6, 9000));
		for (int i = 0; i < 400; i++, rig.now_ns += 5000000)
			turn();
		take_all();
		assert_int_equal(did(ACTION_evict_idle), NEARLY - 185);
		assert_int_equal(in_use(0, v6), NEARLY);
		pass_ms(6000);
		take_all();
		assert_int_equal(did(ACTION_evict_idle), NEARLY - 185);
		assert_int_equal(level(0, v6), PRESSURE_SHORT);
		stop();
	}
}

/* Of two classes of idle time the idler goes first, wherever in the table it is. */
static void test_evict_order(void **state)
{
	static struct talk t[N];
	unsigned n = 0;

	begin_table(1);
	rig.dp->config.evict_idle = true;
	for (; n < 100; n++)
		t[n] = establish(false, n);
	idle_for(300);
	/* These speak again, so that they idle less than those behind them in the table. */
	for (unsigned i = 50; i < 100; i++)
		exchange(RIG_WAN, with_payload(from_client(&t[i], TCP_ACK | TCP_PSH, ISN + 1, PEER + 1), 0));
	for (; n < 104; n++)
		t[n] = establish(false, n);
	for (unsigned i = 0; i < 47; i++)
		exchange(RIG_WAN, with_payload(from_client(&t[i], TCP_ACK | TCP_PSH, ISN + 1, PEER + 1), 0));
	idle_for(700);
	for (; n < NEARLY - 1; n++)
		t[n] = establish(false, n);
	assert_int_equal(one_too_many(false), NEARLY - 185);
	/* The three that never spoke again are among those that ended. */
	for (unsigned i = 47; i < 50; i++) {
		struct sent s = exchange(RIG_WAN, with_payload(from_client(&t[i], TCP_ACK, ISN + 1, PEER + 1), 10));

		assert_int_equal(s.port, RIG_WAN);
	}
	stop();
}

/* Whoever answers probes and says nothing else idles all the same; one byte makes it young. */
static void test_evict_probed(void **state)
{
	for (int speaks = 0; speaks < 2; speaks++) {
		unsigned n = 0;
		uint64_t end_ns;

		begin_table(1);
		rig.service.timeouts.probe_ms = PROBE_MS;
		rig.dp->config.evict_idle = true;
		handshake(false, ISN, PEER, true);
		converse();
		for (end_ns = rig.now_ns + 590000000000ull; rig.now_ns < end_ns;) {
			await_probes();
			answer_probe(DIR_UP);
			answer_probe(DIR_DOWN);
		}
		if (speaks) {
			say(DIR_UP, TCP_ACK | TCP_PSH, 1);
			say(DIR_DOWN, TCP_ACK, 0);
		}
		for (end_ns = rig.now_ns + 60000000000ull; rig.now_ns < end_ns;) {
			await_probes();
			answer_probe(DIR_UP);
			answer_probe(DIR_DOWN);
		}
		for (; n < NEARLY - 2; n++)
			establish(false, 100 + n);
		feed(RIG_WAN, stranger(PROTO_TCP, false, 9000));
		for (int i = 0; i < 50; i++, rig.now_ns += 5000000)
			turn();
		take_all();
		assert_int_equal(did(ACTION_evict_idle), !speaks);
		stop();
	}
}

/* No second has more than a thousand of them, all workers together. */
static void test_evict_pace(void **state)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		enum { MANY = 6000 };
		unsigned ended[600] = {0}, second = 0;

		begin_rig((struct rig_config){
			.n_backends = 2, .n_workers = workers, .flows_v4 = MANY, .n_clients = 4 * MANY});
		rig.service.timeouts.probe_ms = 0;
		rig.policy.modes.of[CURE_WALL] = CURE_OFF;
		for (unsigned client = 0; client < MANY * 94 / 100; client++)
			establish(false, client);
		idle_for(700);
		/* As if strangers had taken what is left, and as if all had to go. */
		for (unsigned w = 0; w < workers; w++) {
			struct pressure_pool *p = &rig.dp->workers[w]->pressure.pools[SET_V4];

			memset(p->down, 0, sizeof(p->down));
			p->up[PRESSURE_SHORT] = p->up[PRESSURE_KNOWN] = 1;
		}
		rig.dp->config.evict_idle = true;
		for (unsigned at = 0; at < 600; at++, rig.now_ns += 5000000) {
			for (int i = 0; i < 50; i++)
				turn();
			ended[at] = take_resets();
			second += ended[at] - (at >= 200 ? ended[at - 200] : 0);
			assert_true(second <= 1000);
		}
		assert_in_range(did(ACTION_evict_idle), 2700, 3000);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_known_for_a_minute),
		cmocka_unit_test(test_flood_forgets_nobody),
		cmocka_unit_test(test_hysteresis),
		cmocka_unit_test(test_short_states),
		cmocka_unit_test(test_short_syn_of_the_wall),
		cmocka_unit_test(test_syn_ack_again),
		cmocka_unit_test(test_bounded_walk),
		cmocka_unit_test(test_walk_of_long_loops),
		cmocka_unit_test(test_evict_idle),
		cmocka_unit_test(test_evict_order),
		cmocka_unit_test(test_evict_under_way),
		cmocka_unit_test(test_evict_probed),
		cmocka_unit_test(test_evict_pace),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
