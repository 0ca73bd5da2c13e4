/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets in, packets out, byte for byte: the pipeline of one worker with a fixed secret, driven by the timestamps of a
 * capture. A case is a directory:
 *
 *   in.pcap    frames in order; each goes into the port whose MAC address it has
 *   out.pcap   all that leaves, in order, with the time at which it left; its source MAC tells the port
 *   options    lines "name value" (optional): those of read_options(); "@seconds name value" is an event: see events[]
 *   verdicts   lines "verdict number": how the packets of in.pcap ended; of all others it is 0
 *
 *   replay [--rings] DIR          compares with out.pcap; 0: the same
 *   replay [--rings] --write DIR  writes out.pcap
 *
 * --rings: the ports are DPDK devices over rings instead of ports in memory, which must not change a byte.
 *
 * --modes off|shadow|enforce: of all cures; enforce without it. What the product promises of them is then compared, too
 * (P-4): a cure in shadow changes no byte and no moment of what leaves, and counts as `would` what enforce does. Such
 * a case has, beside out.pcap,
 *
 *   off.pcap       what leaves with all cures off, and in shadow
 *   counts         lines "action number": what enforce does, and what shadow counts; of all others it is 0
 *   counts.shadow  what shadow counts, only where it cannot be the same: make.py says in each such case, why
 *
 * --write writes verdicts, too; --write --modes enforce out.pcap and counts, off writes off.pcap, and shadow
 * counts.shadow: its frames are never written, but compared with those of off.
 */
#include "action.h"
#include "answer_limits.h"
#include "budget.h"
#include "core.h"
#include "memport.h"
#include "rig.h"
#include "storm.h"
#include "streak.h"
#include "tcp.h"
#include "worker.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

/* The worker takes a longer gap for one in which it did not run, and does not let flows age in it. */
#define STEP_NS      10000000
#define FRAME_LEN    1514
#define RING_SIZE    64
#define REPEAT_BURST 32

#define MS_NS        UINT64_C(1000000)
#define NOTES_MAX    64

/* New flows per second, and how many more at once; rate 0: no cap. */
struct cap {
	uint32_t rate, burst;
};

struct replay;

/* Something that is not a packet. */
struct event {
	uint64_t at_ns;
	void (*happen)(struct replay *r, uint32_t value);
	uint32_t value;
};

#define EVENTS_MAX 32

struct replay {
	struct rig rig;
	struct rig_config config;
	uint32_t flows; /* per family */
	struct policy_timeouts timeouts;
	struct cap caps[STORM_CAPS];
	uint32_t hold_ms;
	uint32_t hard_max;
	struct cap backend;
	uint32_t n_running; /* workers that do; 0: all */
	struct event events[EVENTS_MAX];
	unsigned n_events, next_event;
	uint8_t last[FRAME_LEN]; /* the frame that came last */
	uint32_t last_len;
	struct rte_mbuf **taken; /* buffers that are kept from the worker */
	unsigned n_taken;
	enum cure_mode mode; /* of all cures */
	bool counting;       /* it was told: the actions are compared or written, too */
	bool write;
	bool rings;
	struct rte_ring *in[RIG_PORTS], *out[RIG_PORTS]; /* as the device sees them; only with `rings` */
	char devices[RIG_PORTS][RTE_ETH_NAME_MAX_LEN + 8];
	const char *dir;
	pcap_t *expected;       /* NULL: written */
	pcap_dumper_t *written; /* NULL: compared */
	uint64_t n_in, n_out;
	bool failed;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "replay: %s: %s\n", what, why);
	exit(2);
}

/* --- output --- */

static void print_frame(const char *what, const uint8_t *frame, size_t len)
{
	fprintf(stderr, "  %-9s", what);
	for (size_t i = 0; i < len; i++)
		fprintf(stderr, "%02x", frame[i]);
	fprintf(stderr, "\n");
}

static void compare(struct replay *r, const uint8_t *frame, size_t len)
{
	struct pcap_pkthdr *header;
	const uint8_t *want;

	if (r->failed)
		return;
	if (pcap_next_ex(r->expected, &header, &want) != 1) {
		fprintf(stderr, "%s: after input %lu: one frame more than expected\n", r->dir, r->n_in);
		print_frame("got", frame, len);
		r->failed = true;
		return;
	}
	if (header->caplen == len && memcmp(want, frame, len) == 0 &&
	    (uint64_t)header->ts.tv_sec * 1000000000 + header->ts.tv_usec == r->rig.now_ns)
		return;
	fprintf(stderr, "%s: output %lu, after input %lu, differs (time: got %lu ns, want %lu.%09lu s)\n", r->dir,
		r->n_out, r->n_in, r->rig.now_ns, header->ts.tv_sec, header->ts.tv_usec);
	print_frame("expected", want, header->caplen);
	print_frame("got", frame, len);
	r->failed = true;
}

static void emit(struct replay *r, struct rte_mbuf *m)
{
	struct pcap_pkthdr header = {
		.ts = {.tv_sec = r->rig.now_ns / 1000000000, .tv_usec = r->rig.now_ns % 1000000000},
		.caplen = m->data_len,
		.len = m->data_len,
	};

	r->n_out++;
	if (r->written)
		pcap_dump((u_char *)r->written, &header, rte_pktmbuf_mtod(m, u_char *));
	else
		compare(r, rte_pktmbuf_mtod(m, uint8_t *), m->data_len);
	rte_pktmbuf_free(m);
}

/* --- decide --- */

static const struct policy_backend *backend_of(const struct replay *r, uint32_t slot)
{
	return &r->rig.backends[slot / RIG_BACKENDS_MAX / SET_PROTOS][slot / RIG_BACKENDS_MAX % SET_PROTOS]
			       [slot % RIG_BACKENDS_MAX];
}

/* One probe as a breaker opens, and no more. */
static void on_backend(struct replay *r, uint32_t slot)
{
	struct streak streak = streak_read(dataplane_breaker(r->rig.dp, slot));
	const struct policy_backend *b = backend_of(r, slot);

	if (streak.state == BREAKER_OPEN && !streak.answered)
		dataplane_order(r->rig.dp, 0, &(struct order){ORDER_PROBE, slot, b->addr, b->port_be});
}

/* As much of decide as makes the cures act: it learns what routers say, and has backends probed. */
static void decide(struct replay *r)
{
	struct note notes[NOTES_MAX];
	size_t n = dataplane_notes(r->rig.dp, notes, NOTES_MAX);

	for (size_t i = 0; i < n; i++) {
		const struct note *note = &notes[i];

		if (note->kind == NOTE_PATH_MTU)
			dataplane_path_learn(r->rig.dp, note->path.upstream, &note->path.to, note->path.mtu);
		else if (note->kind == NOTE_BACKEND)
			on_backend(r, note->backend.slot);
	}
}

/* --- turns --- */

static void take_out(struct replay *r, int port)
{
	struct rte_mbuf *m;

	if (r->rings) {
		while (rte_ring_sc_dequeue(r->out[port], (void **)&m) == 0)
			emit(r, m);
		return;
	}
	for (unsigned queue = 0; queue < r->rig.dp->config.n_workers; queue++)
		while (memport_take(r->rig.ports[port], queue, &m, 1))
			emit(r, m);
}

/* Of each worker, one after the other; all frames come to the first one, so that one turn is enough. */
static void turn(struct replay *r)
{
	unsigned n = r->n_running ? r->n_running : r->rig.dp->config.n_workers;

	for (unsigned i = 0; i < n; i++)
		worker_run_once(r->rig.dp->workers[i]);
	for (int port = 0; port < RIG_PORTS; port++)
		take_out(r, port);
	decide(r);
}

/* What has happened until now; the clock stops for each, but for those of one moment. */
static uint64_t happen(struct replay *r)
{
	while (r->next_event < r->n_events && r->events[r->next_event].at_ns <= r->rig.now_ns) {
		const struct event *e = &r->events[r->next_event++];

		e->happen(r, e->value);
	}
	return r->next_event < r->n_events ? r->events[r->next_event].at_ns : UINT64_MAX;
}

static void advance(struct replay *r, uint64_t to_ns)
{
	while (r->rig.now_ns < to_ns) {
		uint64_t next_ns = RTE_MIN(to_ns, happen(r)), left_ns = next_ns - r->rig.now_ns;

		r->rig.now_ns += left_ns < STEP_NS ? left_ns : STEP_NS;
		if (r->rig.now_ns < to_ns)
			turn(r);
	}
	happen(r);
}

/* As the gate sorts them: a SYN without ACK of a plain TCP packet. */
static enum rx_class class_of(const uint8_t *frame, uint32_t len)
{
	struct packet p;

	if (parse(frame, len, &p) != VERDICT_NONE || p.kind != PACKET_TCP)
		return RX_KNOWN;
	return (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? RX_NEW : RX_KNOWN;
}

static void feed(struct replay *r, const uint8_t *frame, uint32_t len)
{
	enum rig_port port = memcmp(frame, rig_mac[RIG_LAN], 6) == 0 ? RIG_LAN : RIG_WAN;
	struct rte_mbuf *m = rte_pktmbuf_alloc(r->rig.dp->pool);
	char *data = m && len <= FRAME_LEN ? rte_pktmbuf_append(m, len) : NULL;
	int fed;

	if (!data)
		die(r->dir, "frame too long, or packets lost");
	memcpy(data, frame, len);
	if (r->rings)
		fed = rte_ring_sp_enqueue(r->in[port], m) == 0;
	else
		fed = memport_feed(r->rig.ports[port], 0, class_of(frame, len), &m, 1);
	if (!fed)
		die(r->dir, "port full");
	r->n_in++;
	memmove(r->last, frame, len);
	r->last_len = len;
}

static void run(struct replay *r, pcap_t *in)
{
	struct pcap_pkthdr *header;
	const uint8_t *frame;

	while (pcap_next_ex(in, &header, &frame) == 1) {
		advance(r, (uint64_t)header->ts.tv_sec * 1000000000 + header->ts.tv_usec);
		feed(r, frame, header->caplen);
		turn(r);
	}
	/* What happens after the last frame. */
	if (r->n_events)
		advance(r, r->events[r->n_events - 1].at_ns);
}

static struct ledger ledger_of_all(const struct replay *r)
{
	struct ledger sum = {0};

	for (unsigned i = 0; i < r->rig.dp->config.n_workers; i++)
		ledger_add(&sum, &r->rig.dp->workers[i]->ledger);
	return sum;
}

/* Nothing may vanish: each packet that came in has its verdict, and each that should leave has left. */
static void check_ledger(struct replay *r)
{
	const struct ledger l = ledger_of_all(r);

	if (ledger_balance(&l) == 0 && l.rx == r->n_in && l.tx == r->n_out)
		return;
	fprintf(stderr, "%s: ledger: in %lu of %lu, out %lu of %lu, balance %ld\n", r->dir, l.rx, r->n_in, l.tx,
		r->n_out, ledger_balance(&l));
	r->failed = true;
}

/* --- counts --- */

static FILE *open_counts(const struct replay *r, const char *file, const char *how, char path[static 512])
{
	snprintf(path, 512, "%s/%s", r->dir, file);
	return fopen(path, how);
}

/* Indexed by action. */
static const uint64_t *counted(const struct replay *r, enum cure_mode mode)
{
	const struct ledger *l = &r->rig.worker->ledger;

	return mode == CURE_SHADOW ? l->would : l->did;
}

static void write_counts(const struct replay *r)
{
	const uint64_t *n = counted(r, r->mode);
	char path[512];
	FILE *f = open_counts(r, r->mode == CURE_SHADOW ? "counts.shadow" : "counts", "w", path);

	if (!f)
		die(path, strerror(errno));
	for (int a = 0; a < ACTION_COUNT; a++)
		if (n[a])
			fprintf(f, "%s %lu\n", action_info[a].name, n[a]);
	fclose(f);
}

static enum action action_named(const char *path, const char *name)
{
	for (int a = 0; a < ACTION_COUNT; a++)
		if (strcmp(action_info[a].name, name) == 0)
			return a;
	die(path, name);
	return ACTION_COUNT;
}

static void read_counts(const struct replay *r, uint64_t want[static ACTION_COUNT])
{
	char path[512], name[32];
	uint64_t n;
	FILE *f = r->mode == CURE_SHADOW ? open_counts(r, "counts.shadow", "r", path) : NULL;

	if (!f)
		f = open_counts(r, "counts", "r", path);
	if (!f)
		die(path, strerror(errno));
	while (fscanf(f, "%31s %lu", name, &n) == 2)
		want[action_named(path, name)] = n;
	fclose(f);
}

static void compare_counts(struct replay *r, const char *what, const uint64_t *got, const uint64_t *want)
{
	for (int a = 0; a < ACTION_COUNT; a++) {
		if (got[a] == want[a])
			continue;
		fprintf(stderr, "%s: %s %s: %lu, expected %lu\n", r->dir, what, action_info[a].name, got[a], want[a]);
		r->failed = true;
	}
}

/* Nothing is done but by enforce, and nothing but shadow says what it would do. */
static void check_counts(struct replay *r)
{
	uint64_t want[ACTION_COUNT] = {0};
	const uint64_t none[ACTION_COUNT] = {0};

	if (r->mode != CURE_OFF)
		read_counts(r, want);
	compare_counts(r, "did", counted(r, CURE_ENFORCE), r->mode == CURE_ENFORCE ? want : none);
	compare_counts(r, "would", counted(r, CURE_SHADOW), r->mode == CURE_SHADOW ? want : none);
}

/* --- verdicts --- */

static void write_verdicts(const struct replay *r)
{
	const struct ledger l = ledger_of_all(r);
	char path[512];
	FILE *f = open_counts(r, "verdicts", "w", path);

	if (!f)
		die(path, strerror(errno));
	for (int v = 0; v < VERDICT_COUNT; v++)
		if (l.verdicts[v])
			fprintf(f, "%s %lu\n", verdict_info[v].name, l.verdicts[v]);
	fclose(f);
}

static enum verdict verdict_named(const char *path, const char *name)
{
	for (int v = 0; v < VERDICT_COUNT; v++)
		if (strcmp(verdict_info[v].name, name) == 0)
			return v;
	die(path, name);
	return VERDICT_COUNT;
}

static void check_verdicts(struct replay *r)
{
	const struct ledger l = ledger_of_all(r);
	uint64_t want[VERDICT_COUNT] = {0}, n;
	char path[512], name[48];
	FILE *f = open_counts(r, "verdicts", "r", path);

	if (!f)
		die(path, strerror(errno));
	while (fscanf(f, "%47s %lu", name, &n) == 2)
		want[verdict_named(path, name)] = n;
	fclose(f);
	for (int v = 0; v < VERDICT_COUNT; v++) {
		if (l.verdicts[v] == want[v])
			continue;
		fprintf(stderr, "%s: %s: %lu, expected %lu\n", r->dir, verdict_info[v].name, l.verdicts[v], want[v]);
		r->failed = true;
	}
}

/* --- events --- */

static void set_lan(struct replay *r, uint32_t up)
{
	dataplane_port_set_link(r->rig.dp, RIG_LAN, up, r->config.lan_mtu ? r->config.lan_mtu : 1500);
}

/* Whether the backends are resolved. */
static void set_neighbours(struct replay *r, uint32_t usable)
{
	for (int family = 0; family < SET_FAMILIES; family++)
		for (unsigned i = 0; i < r->config.n_backends; i++) {
			uint8_t mac[6];

			memcpy(mac, rig_backend_mac, sizeof(mac));
			mac[5] = i + 1;
			dataplane_neighbour_update(r->rig.dp, RIG_LAN, &r->rig.backends[family][SET_TCP][i].addr,
						   usable ? NEIGHBOUR_USABLE : NEIGHBOUR_UNRESOLVED, mac);
		}
}

/* The way to the backends: an enum route_kind, ROUTE_LOCAL and above: none at all, that to the clients either. */
static void set_route(struct replay *r, uint32_t kind)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct ipaddr any = v6 ? (struct ipaddr){0} : ipaddr_v4(0);
		struct route_change changes[2] = {
			{.prefix = r->rig.backends[v6][SET_TCP][0].addr,
			 .prefix_len = v6 ? 64 : 24,
			 .remove = kind >= ROUTE_LOCAL,
			 .kind = kind,
			 .n_nexthops = 1,
			 .nexthops = {{.port = RIG_LAN, .on_link = true, .weight = 1}}},
			{.prefix = any, .remove = true},
		};

		dataplane_route_update(r->rig.dp, changes, 1 + (kind >= ROUTE_LOCAL));
	}
}

static void set_breakers(struct replay *r, uint32_t open)
{
	const struct streak s = {.state = open ? BREAKER_OPEN : BREAKER_CLOSED};

	for (uint32_t slot = 0; slot < r->rig.dp->config.n_backend_slots; slot++)
		r->rig.dp->cells.backends[slot].breaker = streak_word(&s);
}

/* What each backend may have under way at a time, as decide says while it is congested; 0: as much as comes. */
static void set_limit(struct replay *r, uint32_t limit)
{
	const struct dataplane_config *config = &r->rig.dp->config;
	const uint32_t n = limit ? config->n_backend_slots : 0;
	const struct service_limit of_service = {.n_limits = n, .n_congested = n, .hold_ms = 400};

	for (uint32_t slot = 0; slot < config->n_backend_slots; slot++)
		dataplane_backend_limit(r->rig.dp, slot, limit);
	dataplane_service_limit(r->rig.dp, 0, &of_service);
}

/* Retries need tokens, of which there are so many, as decide says while some backend is congested; 0: they do not. */
static void set_budget(struct replay *r, uint32_t cap)
{
	dataplane_service_budget(r->rig.dp, 0, cap, (uint64_t)cap * BUDGET_TOKEN);
}

/* What comes to a host that has run out of buffers; 0: none is left. */
static void set_buffers(struct replay *r, uint32_t any)
{
	if (!r->taken)
		r->taken = calloc(r->config.n_mbufs, sizeof(*r->taken));
	if (!r->taken)
		die(r->dir, "no memory");
	if (any)
		rte_pktmbuf_free_bulk(r->taken, r->n_taken);
	for (r->n_taken = 0; !any && r->n_taken < r->config.n_mbufs; r->n_taken++) {
		r->taken[r->n_taken] = rte_pktmbuf_alloc(r->rig.dp->pool);
		if (!r->taken[r->n_taken])
			break;
	}
}

/* The frame that came last, so many times more, as many at once as a burst has. */
static void repeat(struct replay *r, uint32_t n)
{
	for (uint32_t i = 1; i <= n; i++) {
		feed(r, r->last, r->last_len);
		if (i % REPEAT_BURST == 0 || i == n)
			turn(r);
	}
}

/* As if so many RSTs had just been sent that no more may be. */
static void use_up_rsts(struct replay *r, uint32_t value)
{
	while (answer_limits_ends(r->rig.worker->limits, 1, r->rig.now_ns))
		;
}

static void stop(struct replay *r, uint32_t value)
{
	storm_stop(r->rig.worker);
}

static const struct {
	const char *name;
	void (*happen)(struct replay *r, uint32_t value);
} events[] = {
	{"lan", set_lan},     {"neighbours", set_neighbours}, {"route", set_route},     {"breakers", set_breakers},
	{"limit", set_limit}, {"budget", set_budget},         {"buffers", set_buffers}, {"repeat", repeat},
	{"stop", stop},       {"no_more_rsts", use_up_rsts},
};

static void add_event(struct replay *r, const char *path, double at_s, const char *name, uint32_t value)
{
	if (r->n_events == EVENTS_MAX)
		die(path, "too many events");
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (strcmp(events[i].name, name) == 0) {
			r->events[r->n_events++] = (struct event){at_s * 1e9 + 0.5, events[i].happen, value};
			return;
		}
	die(path, name);
}

/* --- set-up --- */

#define FIELD(name) offsetof(struct replay, name)

static const struct {
	const char *name;
	size_t offset; /* of a uint32_t */
} options[] = {
	{"backends", FIELD(config.n_backends)},
	{"lan_mtu", FIELD(config.lan_mtu)},
	{"untranslated", FIELD(config.untranslated)},
	{"flows", FIELD(flows)},
	{"snat", FIELD(config.n_snat)},
	{"workers", FIELD(config.n_workers)},
	{"running", FIELD(n_running)},
	{"probe_ms", FIELD(timeouts.probe_ms)},
	{"unacked_ms", FIELD(timeouts.unacked_ms)},
	{"idle_ms", FIELD(timeouts.established_ms)},
	{"holds", FIELD(config.n_holds)},
	{"hold_ms", FIELD(hold_ms)},
	{"hard_max", FIELD(hard_max)},
	{"backend_rate", FIELD(backend.rate)},
	{"backend_burst", FIELD(backend.burst)},
	{"client_rate", FIELD(caps[STORM_CLIENT].rate)},
	{"client_burst", FIELD(caps[STORM_CLIENT].burst)},
	{"prefix_rate", FIELD(caps[STORM_PREFIX].rate)},
	{"prefix_burst", FIELD(caps[STORM_PREFIX].burst)},
	{"service_rate", FIELD(caps[STORM_SERVICE].rate)},
	{"service_burst", FIELD(caps[STORM_SERVICE].burst)},
};

static uint32_t *option_named(struct replay *r, const char *path, const char *name)
{
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (strcmp(options[i].name, name) == 0)
			return (uint32_t *)((char *)r + options[i].offset);
	die(path, name);
	return NULL;
}

static void read_options(struct replay *r)
{
	char path[512], name[32];
	uint32_t value;
	FILE *f;

	snprintf(path, sizeof(path), "%s/options", r->dir);
	f = fopen(path, "r");
	if (!f)
		return;
	while (fscanf(f, "%31s", name) == 1) {
		bool event = name[0] == '@';
		double at_s = event ? atof(name + 1) : 0;

		if ((event && fscanf(f, "%31s", name) != 1) || fscanf(f, "%u", &value) != 1)
			die(path, name);
		if (event)
			add_event(r, path, at_s, name, value);
		else
			*option_named(r, path, name) = value;
	}
	fclose(f);
}

/* The policy is the rig's own and no worker thread runs, so it may be changed in place. */
static void set_policy(struct replay *r)
{
	struct policy_service *svc = &r->rig.service;

	for (int cure = 0; cure < CURES; cure++)
		r->rig.policy.modes.of[cure] = r->mode;
	svc->timeouts = r->timeouts;
	svc->storm.hold_ns = r->hold_ms * MS_NS;
	for (int family = 0; family < SET_FAMILIES; family++) {
		struct policy_set *set = &svc->sets[family][SET_TCP];

		set->hard_max = r->hard_max;
		if (r->backend.rate && gcra_rate_init(&set->rate, r->backend.rate, 1000 * MS_NS, r->backend.burst))
			die(r->dir, "impossible cap");
	}
	for (int cap = 0; cap < STORM_CAPS; cap++)
		if (r->caps[cap].rate &&
		    gcra_rate_init(&svc->storm.caps[cap], r->caps[cap].rate, 1000 * MS_NS, r->caps[cap].burst))
			die(r->dir, "impossible cap");
}

/* A DPDK device over two rings, opened as any other device is; its name is made from that of the rings. */
static const char *ring_device(struct replay *r, int port, char *device)
{
	char name[32];
	int eth;

	snprintf(name, sizeof(name), "in%d", port);
	r->in[port] = rte_ring_create(name, RING_SIZE, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	snprintf(name, sizeof(name), "out%d", port);
	r->out[port] = rte_ring_create(name, RING_SIZE, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	if (!r->in[port] || !r->out[port])
		die("rings", "no memory");
	snprintf(name, sizeof(name), "replay%d", port);
	eth = rte_eth_from_rings(name, &r->in[port], 1, &r->out[port], 1, SOCKET_ID_ANY);
	if (eth < 0)
		die("rings", "no device");
	memcpy(device, "vdev:", 5);
	rte_eth_dev_get_name_by_port(eth, device + 5);
	return device;
}

static pcap_t *open_capture(const struct replay *r, const char *file)
{
	char path[512], err[PCAP_ERRBUF_SIZE];
	pcap_t *p;

	snprintf(path, sizeof(path), "%s/%s", r->dir, file);
	p = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, err);
	if (!p)
		die(path, err);
	return p;
}

static void open_output(struct replay *r)
{
	const char *file = r->mode == CURE_ENFORCE ? "out.pcap" : "off.pcap";
	char path[512];
	pcap_t *dead;

	if (!r->write || r->mode == CURE_SHADOW) {
		r->expected = open_capture(r, file);
		return;
	}
	dead = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, 65535, PCAP_TSTAMP_PRECISION_NANO);
	snprintf(path, sizeof(path), "%s/%s", r->dir, file);
	r->written = dead ? pcap_dump_open(dead, path) : NULL;
	if (!r->written)
		die(path, dead ? pcap_geterr(dead) : "no memory");
	pcap_close(dead);
}

static void close_output(struct replay *r)
{
	struct pcap_pkthdr *header;
	const uint8_t *frame;

	if (r->written) {
		pcap_dump_close(r->written);
		return;
	}
	if (!r->failed && pcap_next_ex(r->expected, &header, &frame) == 1) {
		fprintf(stderr, "%s: output ends after %lu frames, more are expected\n", r->dir, r->n_out);
		print_frame("expected", frame, header->caplen);
		r->failed = true;
	}
	pcap_close(r->expected);
}

static enum cure_mode mode_named(const char *name)
{
	for (int mode = CURE_OFF; mode <= CURE_ENFORCE; mode++)
		if (name && strcmp(cure_mode_name[mode], name) == 0)
			return mode;
	die("--modes", "off, shadow or enforce");
	return CURE_OFF;
}

/* False: nobody said what to replay. */
static bool read_arguments(struct replay *r, char **argv)
{
	while (*++argv) {
		if (strcmp(*argv, "--write") == 0) {
			r->write = true;
		} else if (strcmp(*argv, "--rings") == 0) {
			r->rings = true;
		} else if (strcmp(*argv, "--modes") == 0) {
			r->mode = mode_named(argv[1]);
			r->counting = true;
			argv++;
		} else {
			r->dir = *argv;
		}
	}
	return r->dir;
}

static void create(struct replay *r)
{
	int err;

	r->config.flows_v4 = r->config.flows_v6 = r->flows;
	err = rig_eal((rig_bytes(&r->config) >> 20) + 64, false, 0);
	if (err)
		die("DPDK", strerror(-err));
	if (r->rings)
		for (int port = 0; port < RIG_PORTS; port++)
			r->config.device[port] = ring_device(r, port, r->devices[port]);
	err = rig_create(&r->rig, &r->config);
	if (err)
		die("dataplane", strerror(-err));
	set_policy(r);
}

int main(int argc, char **argv)
{
	static struct replay r = {
		.config = {.n_mbufs = 8191, .n_backends = 3, .n_snat = 1}, .flows = 256, .mode = CURE_ENFORCE};
	pcap_t *in;

	r.timeouts = policy_timeouts_default;
	/* Cases of UDP are of no port in particular. */
	r.timeouts.dns_unreplied_ms = r.timeouts.udp_unreplied_ms;
	r.timeouts.dns_replied_ms = r.timeouts.udp_replied_ms;
	if (!read_arguments(&r, argv)) {
		fprintf(stderr, "usage: replay [--rings] [--modes off|shadow|enforce] [--write] DIR\n");
		return 2;
	}
	read_options(&r);
	create(&r);
	in = open_capture(&r, "in.pcap");
	open_output(&r);
	run(&r, in);
	close_output(&r);
	check_ledger(&r);
	if (r.mode == CURE_ENFORCE && r.write)
		write_verdicts(&r);
	else if (r.mode == CURE_ENFORCE)
		check_verdicts(&r);
	if (r.counting && r.write && r.mode != CURE_OFF)
		write_counts(&r);
	else if (r.counting)
		check_counts(&r);
	free(r.taken);
	pcap_close(in);
	rig_destroy(&r.rig);
	return r.failed;
}
