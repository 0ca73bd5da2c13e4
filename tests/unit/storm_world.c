/* SPDX-License-Identifier: BSD-3-Clause */
#include "storm_world.h"

#include "limiters.h"

#include <math.h>

#define MS          1000000ull
#define FLOWS       16384
#define ASKS        100
#define ANSWERS_LEN 200
#define ISN_STEP    1000u /* a connection has so many numbers of its own, by which it is known */
#define FEEDS_MAX   32    /* before the gateway has a turn */
#define ATTEMPTS    (1u << 20)
#define NONE        UINT32_MAX
#define SPOOFED_ISN 0xf0000000u /* no attempt's */
#define NOT_ASKED   UINT64_MAX
#define TIMES       (WORLD_SECONDS * 2000)

enum client_state { CLIENT_NEW, CLIENT_SYN_SENT, CLIENT_CONNECTED, CLIENT_ASKED, CLIENT_GONE };

struct attempt {
	uint32_t client; /* its network and host, by rig_client() */
	uint16_t port;
	uint8_t try_number, state, syns;
	uint32_t began_ms, request_ms;     /* of this attempt, and of its request's first */
	uint32_t next, next_syn, next_ask; /* in lists of timers */
	/* The upstream's: */
	struct ipaddr snat, backend;
	uint16_t snat_port_be;
	uint32_t up_isn;
	bool up_asked, up_queued, up_reset, up_closed;
};

static struct world_config config;
static struct attempt *attempts;
static uint32_t n_attempts;
static struct limiters *limiters;
static uint64_t begin_at_ns, random_state;
static unsigned n_fed;
static uint32_t by_snat_port[WORLD_BACKENDS][65536];
/* Timers of clients, by millisecond: lists of attempts. */
static uint32_t deadline_first[TIMES], syn_first[TIMES], ask_first[TIMES];
struct busy {
	uint64_t until_ns;
	uint32_t attempt;
};
/* What it has taken and nobody serves yet, in order, and until when workers are busy. */
static struct upstream {
	uint32_t queue[FLOWS];
	uint32_t head, tail;
	struct busy busy[WORLD_WORKERS];
} upstreams[WORLD_BACKENDS];

struct world world;

static double uniform(void)
{
	return ((frame_random(&random_state) >> 11) + 0.5) / 9007199254740992.0;
}

unsigned world_ms(void)
{
	return (rig.now_ns - begin_at_ns) / MS;
}

static struct world_second *second(uint32_t ms)
{
	assert_true(ms / 1000 < WORLD_SECONDS);
	return &world.at[ms / 1000];
}

static unsigned network_of(const struct attempt *a)
{
	return a->client >> 8 & 0xff;
}

static uint32_t isn_of(uint32_t id)
{
	return id * ISN_STEP;
}

static struct ipaddr address_of(const struct attempt *a)
{
	struct ipaddr addr = rig_client(a->client & 0xffff, config.v6);

	/* A /48 of its network, a /64 of its own. */
	if (config.v6) {
		addr.b[5] = network_of(a);
		addr.b[7] = a->client & 0xff;
	}
	return addr;
}

static void feed_counted(enum rig_port port, struct frame_spec spec)
{
	feed(port, spec);
	if (++n_fed >= FEEDS_MAX) {
		n_fed = 0;
		turn();
	}
}

static void from(uint32_t id, uint8_t flags, uint32_t offset, uint32_t ack_no, uint16_t len)
{
	const struct attempt *a = &attempts[id];
	struct talk t = {.v6 = config.v6, .proto = PROTO_TCP, .client = (uint32_t)a->port << 16};
	struct frame_spec spec = from_client(&t, flags, isn_of(id) + offset, ack_no);

	spec.src = address_of(a);
	feed_counted(RIG_WAN, len ? with_payload(spec, len) : spec);
}

static void from_upstream(const struct attempt *a, uint8_t flags, uint32_t number, uint32_t offset, uint16_t len)
{
	struct talk t = {config.v6, PROTO_TCP, 0, a->snat, a->backend, a->snat_port_be};
	struct frame_spec spec = from_backend(&t, flags, number, a->up_isn + offset);

	feed_counted(RIG_LAN, len ? with_payload(spec, len) : spec);
}

/* --- clients --- */

/* The kernel's timeouts of a SYN: of Linux 6.5 and later, all but the first doubled before that
 * (`tcp_syn_linear_timeouts`). */
static void send_syn(uint32_t id)
{
	static const unsigned later_ms[] = {1000, 1000, 1050, 1000, 1000, 2000, 4200, 8500, 16500, 33000};
	struct attempt *a = &attempts[id];
	uint32_t again = world_ms() + later_ms[a->syns];

	if (a->syns + 1u < sizeof(later_ms) / sizeof(later_ms[0]) && again < TIMES) {
		a->next_syn = syn_first[again];
		syn_first[again] = id;
		a->syns++;
	}
	from(id, TCP_SYN, 0, 0, 0);
}

static void begin_attempt(uint32_t client, unsigned try_number, uint32_t request_ms)
{
	static uint16_t ports[65536];
	uint32_t id = n_attempts++, deadline = world_ms() + config.timeout_ms;
	struct attempt *a = &attempts[id];

	assert_true(id < ATTEMPTS);
	*a = (struct attempt){
		.client = client,
		.port = ports[client & 0xffff]++ % 40000,
		.try_number = try_number,
		.state = CLIENT_SYN_SENT,
		.began_ms = world_ms(),
		.request_ms = request_ms,
		.next = deadline_first[deadline],
	};
	assert_true(deadline < TIMES);
	deadline_first[deadline] = id;
	second(world_ms())->attempts++;
	world.all.begun++;
	world.of[network_of(a)].attempts++;
	send_syn(id);
}

static void fail_attempt(struct attempt *a)
{
	a->state = CLIENT_GONE;
	if (a->try_number < config.retries) {
		begin_attempt(a->client, a->try_number + 1, a->request_ms);
		return;
	}
	second(a->request_ms)->failed++;
	world.of[network_of(a)].failed++;
}

static void ask(uint32_t id)
{
	attempts[id].state = CLIENT_ASKED;
	from(id, TCP_ACK | TCP_PSH, 1, PEER + 1, ASKS);
}

static void run_timers(void)
{
	for (uint32_t id = syn_first[world_ms()], next; id != NONE; id = next) {
		next = attempts[id].next_syn;
		if (attempts[id].state == CLIENT_SYN_SENT)
			send_syn(id);
	}
	for (uint32_t id = ask_first[world_ms()]; id != NONE; id = attempts[id].next_ask)
		if (attempts[id].state == CLIENT_CONNECTED)
			ask(id);
	for (uint32_t id = deadline_first[world_ms()]; id != NONE; id = attempts[id].next) {
		struct attempt *a = &attempts[id];

		if (a->state == CLIENT_CONNECTED || a->state == CLIENT_ASKED)
			from(id, TCP_FIN | TCP_ACK, a->state == CLIENT_ASKED ? 1 + ASKS : 1, PEER + 1, 0);
		if (a->state != CLIENT_GONE)
			fail_attempt(a);
	}
}

static void to_client(const struct sent *s)
{
	uint32_t id = (ack(s) - 1) / ISN_STEP;
	struct attempt *a = &attempts[id];

	if (!(s->p.tcp_flags & TCP_ACK) || id >= n_attempts)
		return;
	if (s->p.tcp_flags & TCP_RST) {
		if (a->state != CLIENT_GONE)
			fail_attempt(a);
		return;
	}
	if (a->state == CLIENT_GONE) {
		from(id, TCP_RST, ack(s) - isn_of(id), 0, 0);
		return;
	}
	if (s->p.tcp_flags & TCP_SYN && a->state == CLIENT_SYN_SENT) {
		a->state = CLIENT_CONNECTED;
		world.all.connected++;
		world.all.connect_us += (world_ms() - a->began_ms) * 1000;
		if (!config.acks_late)
			from(id, TCP_ACK, 1, PEER + 1, 0);
		if (config.asks_after_ms) {
			a->next_ask = ask_first[world_ms() + config.asks_after_ms];
			ask_first[world_ms() + config.asks_after_ms] = id;
		} else {
			ask(id);
		}
	} else if (s->p.payload_len && a->state == CLIENT_ASKED) {
		a->state = CLIENT_GONE;
		second(world_ms())->done++;
		world.took[RTE_MIN(world_ms() - a->began_ms, (unsigned)WORLD_MS_MAX)]++;
		world.of[network_of(a)].done++;
		from(id, TCP_RST | TCP_ACK, 1 + ASKS, PEER + 1 + ANSWERS_LEN, 0);
	}
}

/* --- the upstream --- */

/* The addresses that configure() gives them end in their number, from 1 on. */
static unsigned upstream_of(const struct ipaddr *backend)
{
	return backend->b[15] - 1;
}

/* Of an attempt, or of the gateway itself, which ends it with a RST. */
static void syn_to_upstream(const struct sent *s)
{
	struct talk t = {.v6 = config.v6, .proto = PROTO_TCP};
	struct attempt probe = {0}, *a = &probe;
	uint32_t id = seq(s) / ISN_STEP, *known;
	const struct upstream *u;

	world.all.syns++;
	learn(&t, s);
	u = &upstreams[upstream_of(&t.backend)];
	if (u->tail - u->head >= config.backlog) {
		world.all.overflows++;
		return;
	}
	known = &by_snat_port[upstream_of(&t.backend)][ntohs(s->p.sport_be)];
	*known = NONE;
	if (seq(s) % ISN_STEP == 0 && id > 0 && id < n_attempts) {
		a = &attempts[id];
		*known = id;
	}
	a->snat = t.snat;
	a->backend = t.backend;
	a->snat_port_be = t.snat_port_be;
	a->up_isn = seq(s);
	from_upstream(a, TCP_SYN | TCP_ACK, PEER, 1, 0);
}

static void to_upstream(const struct sent *s)
{
	struct ipaddr backend = packet_dst(s->frame, &s->p);
	uint32_t id = by_snat_port[upstream_of(&backend)][ntohs(s->p.sport_be)];
	struct upstream *u = &upstreams[upstream_of(&backend)];
	struct attempt *a;

	if (s->p.tcp_flags & TCP_SYN) {
		syn_to_upstream(s);
		return;
	}
	if (id == NONE)
		return;
	a = &attempts[id];
	if (s->p.tcp_flags & TCP_RST) {
		a->up_reset = true;
		return;
	}
	if (!a->up_queued) {
		a->up_queued = true;
		u->queue[u->tail++ % FLOWS] = id;
		world.all.longest = RTE_MAX(world.all.longest, u->tail - u->head);
	}
	if (s->p.payload_len)
		a->up_asked = true;
	if (s->p.tcp_flags & TCP_FIN)
		a->up_closed = true;
}

static void respond(uint32_t id)
{
	const struct attempt *a = &attempts[id];

	world.all.wasted += a->state == CLIENT_GONE;
	from_upstream(a, TCP_ACK | TCP_PSH, PEER + 1, 1 + ASKS, ANSWERS_LEN);
}

static uint64_t service_ns(void)
{
	bool slow = config.slow_percent && uniform() * 100 < config.slow_percent;
	unsigned us = slow ? config.slow_us : config.service_us;

	return (config.steady ? 1 : -log(uniform())) * us * 1000;
}

/* Of one that was reset, or closed unasked, nothing is to be read; one that has not asked yet is waited for. */
static void begin_work(struct busy *b, uint32_t id)
{
	const struct attempt *a = &attempts[id];

	b->attempt = NONE;
	if (a->up_reset || (a->up_closed && !a->up_asked))
		return;
	b->attempt = id;
	b->until_ns = a->up_asked ? rig.now_ns + service_ns() : NOT_ASKED;
}

/* Whoever has nothing to do takes the next one. */
static void run_upstream(struct upstream *u)
{
	for (unsigned i = 0; i < config.n_upstream; i++) {
		struct busy *b = &u->busy[i];

		if (b->attempt != NONE && b->until_ns == NOT_ASKED)
			begin_work(b, b->attempt);
		if (b->attempt != NONE && b->until_ns != NOT_ASKED && rig.now_ns >= b->until_ns) {
			respond(b->attempt);
			b->attempt = NONE;
		}
		while (i < world.n_upstream && b->attempt == NONE && u->head != u->tail)
			begin_work(b, u->queue[u->head++ % FLOWS]);
	}
}

/* --- time --- */

static void settle(void)
{
	struct sent s;
	bool more = true;

	while (more) {
		turn();
		n_fed = 0;
		for (more = false; take(&s); more = true) {
			assert_int_equal(s.p.kind, PACKET_TCP);
			if (s.port == RIG_WAN)
				to_client(&s);
			else
				to_upstream(&s);
		}
	}
}

void world_request(unsigned network, unsigned host)
{
	uint32_t client = network << 8 | host;

	second(world_ms())->requests++;
	world.of[network].requests++;
	begin_attempt(client, 0, world_ms());
}

/* In the name of a host of theirs that is not there. */
static void spoof_in(const struct world_load *load)
{
	uint32_t network = load->first + (uint32_t)(uniform() * load->n_networks);
	uint32_t host = 128 + (uint32_t)(uniform() * 127), port = 1 + (uint32_t)(uniform() * 60000);
	struct talk t = {.v6 = config.v6, .proto = PROTO_TCP, .client = port << 16 | network << 8 | host};
	struct frame_spec spec = from_client(&t, TCP_SYN, SPOOFED_ISN, 0);

	spec.src = address_of(&(struct attempt){.client = t.client & 0xffff});
	world.all.spoofed++;
	feed_counted(RIG_WAN, spec);
}

static void spoof(void)
{
	struct talk t = {.v6 = config.v6, .proto = PROTO_TCP};
	uint32_t number = world.all.spoofed++, number_be = htonl(0x0b000000 + number);
	struct frame_spec spec = from_client(&t, TCP_SYN, SPOOFED_ISN, 0);

	/* 24 bits of it are a network's. */
	spec.src = config.v6 ? rig_client(1, true) : ipaddr_v4(htonl(0x0b000000 + (number << 8)));
	if (config.v6)
		memcpy(&spec.src.b[3], &number_be, 4);
	feed_counted(RIG_WAN, spec);
}

static void arrive(const struct world_load *load)
{
	if (load->spoofed && load->n_networks)
		spoof_in(load);
	else if (load->spoofed)
		spoof();
	else
		world_request(load->first + (unsigned)(uniform() * load->n_networks),
			      1 + (unsigned)(uniform() * load->hosts));
}

void world_run(unsigned ms, const struct world_load *loads, unsigned n_loads)
{
	for (unsigned end = world_ms() + ms; world_ms() < end;) {
		rig.now_ns += MS;
		run_timers();
		for (unsigned i = 0; i < config.n_backends; i++)
			run_upstream(&upstreams[i]);
		for (unsigned i = 0; i < n_loads; i++) {
			double left = loads[i].rate / 1000;

			/* A Poisson number of them. */
			for (left += log(uniform()); left > 0; left += log(uniform()))
				arrive(&loads[i]);
		}
		settle();
		if (world_ms() % 10 == 0)
			decide();
		if (world_ms() % 100 == 0)
			limiters_tick(limiters, &f.config->cures, rig.now_ns);
	}
}

unsigned world_percentile_ms(unsigned percent)
{
	unsigned sum = 0, ms = 0, seen = 0;

	for (unsigned i = 0; i <= WORLD_MS_MAX; i++)
		sum += world.took[i];
	while (ms < WORLD_MS_MAX && (seen += world.took[ms]) * 100ull < sum * (uint64_t)percent)
		ms++;
	return ms;
}

double world_goodput(unsigned from_s, unsigned to_s)
{
	unsigned n = 0;

	for (unsigned i = from_s; i < to_s; i++)
		n += world.at[i].done;
	return (double)n / (to_s - from_s);
}

void world_begin(const struct world_config *wanted)
{
	config = *wanted;
	config.workers = config.workers ? config.workers : 1;
	config.n_backends = config.n_backends ? config.n_backends : 1;
	config.n_upstream = config.n_upstream ? config.n_upstream : 10;
	config.service_us = config.service_us ? config.service_us : 20000;
	config.backlog = config.backlog ? config.backlog : 4096;
	config.timeout_ms = config.timeout_ms ? config.timeout_ms : 1000;
	config.retries = config.no_retries ? 0 : config.retries ? config.retries : 3;
	world = (struct world){.n_upstream = config.n_upstream};
	attempts = calloc(ATTEMPTS, sizeof(*attempts));
	assert_non_null(attempts);
	n_attempts = 1;
	memset(by_snat_port, 0xff, sizeof(by_snat_port));
	memset(deadline_first, 0xff, sizeof(deadline_first));
	memset(syn_first, 0xff, sizeof(syn_first));
	memset(ask_first, 0xff, sizeof(ask_first));
	assert_true(config.n_backends <= WORLD_BACKENDS && config.n_upstream <= WORLD_WORKERS);
	for (unsigned i = 0; i < config.n_backends; i++) {
		upstreams[i].head = upstreams[i].tail = 0;
		memset(upstreams[i].busy, 0xff, sizeof(upstreams[i].busy));
	}
	n_fed = 0;
	random_state = config.seed ? config.seed : 1;
	n_flows_each = FLOWS;
	more_yaml = config.yaml ? config.yaml : "";
	begin_all(config.workers, config.n_backends, CURE_ENFORCE);
	f.config->cures.of[CURE_STORM] = config.storm;
	assert_int_equal(services_configure(f.services, f.config, f.names), 0);
	assert_int_equal(services_publish(f.services), 0);
	limiters = limiters_create(rig.dp, f.services, f.events, &(struct limiters_config){N_SLOTS, 4});
	assert_non_null(limiters);
	begin_at_ns = rig.now_ns;
}

void world_end(void)
{
	limiters_destroy(limiters);
	end_all();
	free(attempts);
	more_yaml = "";
	n_flows_each = 0;
}
