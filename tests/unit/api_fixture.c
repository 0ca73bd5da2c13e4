/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_fixture.h"

#include "clock.h"
#include "events.h"
#include "outcome.h"
#include "owners.h"
#include "policy.h"
#include "streak.h"

#include <curl/curl.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* --- observe.h --- */

uint64_t ledger_class(const struct ledger *l, enum verdict_class class)
{
	uint64_t sum = 0;

	for (int v = 0; v < VERDICT_COUNT; v++)
		if (verdict_info[v].class == class)
			sum += l->verdicts[v];
	return sum;
}

int64_t ledger_balance(const struct ledger *l)
{
	uint64_t sum = l->inside;

	for (int v = 0; v < VERDICT_COUNT; v++)
		sum += l->verdicts[v];
	return (int64_t)(l->rx + l->taken_over - sum);
}

void ledger_add(struct ledger *sum, const struct ledger *l)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)l;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		to[i] += from[i];
}

unsigned dataplane_n_workers(const struct dataplane *dp)
{
	return dp->n_workers;
}

void observe_ledger(const struct dataplane *dp, unsigned worker, struct ledger *out)
{
	*out = dp->ledgers[worker];
}

void observe_worker(const struct dataplane *dp, unsigned worker, struct worker_report *out)
{
	*out = (struct worker_report){
		.loops = 1000 + worker,
		.policy_number = 7,
		.flows_v4 = dp->n_flows[worker],
		.flows_v4_max = 1000,
		.flows_v6_max = 500,
		.pressure_v4 = worker ? PRESSURE_KNOWN : PRESSURE_NONE,
		.pressed_v4[PRESSURE_KNOWN] = 3 * worker,
	};
}

size_t observe_ports(const struct dataplane *dp, struct port_report *out, size_t max)
{
	static const struct port_report ports[] = {
		{.name = "wan", .device = "eth1", .rx_packets = 150, .lost_new_ring = 3},
		{.name = "lan", .device = "eth2", .queue = 1, .lost_no_buffer = 4, .lost_new_ring = 5},
	};

	for (size_t i = 0; i < 2 && i < max; i++)
		out[i] = ports[i];
	return 2;
}

void observe_backend(const struct dataplane *dp, uint32_t slot, struct backend_report *out)
{
	*out = (struct backend_report){
		.flows = 10 + slot,
		.new_flows = 100 + slot,
		.connects = 90,
		.failures = slot,
		.resteered = 30 + slot,
		.probes = 40 + slot,
		.breaker = slot == 1 ? BREAKER_OPEN : BREAKER_CLOSED,
	};
	if (slot == 1) {
		out->streak = streak_word(&(struct streak){.state = BREAKER_OPEN, .failures = {2, 3}});
		out->streak_since_ns = clock_monotonic_ns() - 12000000000;
		out->overloads = 8;
	}
	if (slot != 2)
		return;
	out->silent_clients = 4;
	out->silent_backends = 5;
	out->idle_survived_ms = 108250;
	out->idle_lost_ms = 183000;
}

void observe_signals(const struct dataplane *dp, uint32_t slot, struct signal_report *out)
{
	*out = (struct signal_report){
		.wip = 12 + slot,
		.waiting = 3,
		.open = 4 + slot,
		.zombies = 5,
		.one_way = 1,
		.success = 80,
		.failed = 2,
		.neutral = 6,
		.exchanges = 300,
		.answered = 290,
		.gave_up = 7,
		.resets_before = 8,
		.resets_after = 9,
		.stalls = 10,
		.shut = 11,
		.retransmissions_up = 13,
		.retransmissions_down = 14,
	};
}

/* Slot 0 has none. */
void observe_durations(const struct dataplane *dp, uint32_t slot, enum signal_duration which, struct histogram_sum *out)
{
	struct histogram h = {0};

	*out = (struct histogram_sum){0};
	for (unsigned i = 0; i < 100 && slot; i++)
		histogram_add(&h, (which == DURATION_HANDSHAKE ? 200 : 20000) * (i == 99 ? 100 : 1), 1);
	histogram_sum(out, &h, 1);
}

void observe_service(const struct dataplane *dp, uint32_t slot, struct service_report *out)
{
	*out = (struct service_report){
		.flows = 20 + slot,
		.attempts = 209 + slot,
		.new_flows = 200 + slot,
		.refused = 2,
		.silent = 3,
		.holding = 4,
		.held = 70,
		.held_admitted = 65,
		.refused_storm = 5,
		.retries = 7,
	};
	if (slot == 1)
		out->would_silence = 6;
}

static void fake_flow(unsigned worker, unsigned i, struct flow_row *out)
{
	*out = (struct flow_row){
		.vip = ipaddr_v4(inet_addr("198.18.100.1")),
		.snat = ipaddr_v4(inet_addr("198.18.101.10")),
		.backend = ipaddr_v4(inet_addr("198.18.3.21")),
		.client_port_be = htons((uint16_t)(20000 + worker * 1000 + i)),
		.vip_port_be = htons(80),
		.snat_port_be = htons((uint16_t)(1024 + i)),
		.backend_port_be = htons(8080),
		.proto = PROTO_TCP,
		.worker = (uint8_t)worker,
		.state = i % 2 ? "established" : "syn_sent",
		.service_slot = 0,
		.backend_slot = i % 2,
		.age_ms = 61500,
		.packets_up = 12,
	};
	if (i % 10 == 0)
		ipaddr_parse("2001:db8:2::7", &out->client);
	else
		ipaddr_parse("198.18.2.7", &out->client);
}

static bool fake_matches(const struct flow_row *r, const struct flow_filter *filter)
{
	if (filter->by_addr && !ipaddr_equal(&r->client, &filter->addr))
		return false;
	if (filter->by_port && r->client_port_be != filter->port_be)
		return false;
	if (filter->service_slot != SLOT_NONE && r->service_slot != filter->service_slot)
		return false;
	return filter->backend_slot == SLOT_NONE || r->backend_slot == filter->backend_slot;
}

/* The cursor is the index of the flow; a call looks at as many flows as a batch has rows, whether they match or not. */
int observe_flows(struct dataplane *dp, unsigned worker, const struct flow_filter *filter, uint64_t *cursor,
		  struct flow_row rows[static FLOW_QUERY_ROWS], int timeout_ms)
{
	unsigned i = (unsigned)*cursor;
	int n = 0;

	if ((int)worker == dp->mute_worker)
		return -ETIMEDOUT;
	if (*cursor > dp->n_flows[worker])
		return -EINVAL;
	for (int looked = 0; looked < FLOW_QUERY_ROWS && i < dp->n_flows[worker]; looked++, i++) {
		fake_flow(worker, i, &rows[n]);
		n += fake_matches(&rows[n], filter);
	}
	*cursor = i < dp->n_flows[worker] ? i : UINT64_MAX;
	return n;
}

static const struct path_row fake_paths[FAKE_PATHS] = {
	{.kind = PATH_CLIENT, .prefix_len = 32, .source = "ptb", .mtu = 1400, .age_ms = 1500, .expires_ms = 598500},
	{.kind = PATH_PREFIX, .prefix_len = 24, .source = "members", .mtu = 1400, .age_ms = 500, .expires_ms = 599500},
	{.kind = PATH_UPSTREAM, .prefix_len = 128, .source = "ptb", .mtu = 1280, .age_ms = 61000, .expires_ms = 539000},
};

/* An entry at every tenth position. */
size_t observe_paths(const struct dataplane *dp, uint64_t *cursor, struct path_row *rows, size_t max)
{
	static const char *const addr[FAKE_PATHS] = {"198.18.2.7", "198.18.2.0", "2001:db8:3::15"};
	size_t n = 0;

	for (; *cursor < 10 * FAKE_PATHS && n < max; ++*cursor) {
		if (*cursor % 10)
			continue;
		rows[n] = fake_paths[*cursor / 10];
		ipaddr_parse(addr[*cursor / 10], &rows[n++].addr);
	}
	if (*cursor >= 10 * FAKE_PATHS)
		*cursor = UINT64_MAX;
	return n;
}

void observe_path(const struct dataplane *dp, struct path_report *out)
{
	*out = (struct path_report){.learned = {1, 1, 1}, .evicted = 4};
}

/* --- outcome.h: what is fixed is told in api_fixture.h --- */

uint64_t observe_now_ns(const struct dataplane *dp)
{
	return clock_monotonic_ns();
}

static struct ipaddr address(const char *text)
{
	struct ipaddr a;

	if (ipaddr_parse(text, &a))
		abort();
	return a;
}

static struct outcome_row outcome(outcome_reason reason, uint32_t count, uint32_t service, uint32_t backend,
				  unsigned first_s, unsigned last_s)
{
	uint64_t now_ns = clock_monotonic_ns();

	return (struct outcome_row){
		reason, count, service, backend, now_ns - first_s * 1000000000ull, now_ns - last_s * 1000000000ull};
}

static struct client_row victim(unsigned worker)
{
	struct client_row row = {.addr = address(FAKE_VICTIM)};

	if (worker == 0) {
		row.since_ns = clock_monotonic_ns() - 20000000000;
		row.counts[OUTCOME_REFUSED] = 3;
		row.counts[OUTCOME_CONNECTED] = 2;
		row.outcomes[row.n++] = outcome(OUTCOME_VERDICT(VERDICT_answer_service_down), 3, 1, SLOT_NONE, 10, 5);
		row.outcomes[row.n++] = outcome(OUTCOME_ATTEMPT(ATTEMPT_connected), 2, 0, 0, 20, 15);
	} else {
		row.since_ns = clock_monotonic_ns() - 40000000000;
		row.counts[OUTCOME_SILENT] = 1;
		row.counts[OUTCOME_CONNECTED] = 1;
		row.outcomes[row.n++] = outcome(OUTCOME_ATTEMPT(ATTEMPT_connected), 1, 0, 1, 2, 2);
		row.outcomes[row.n++] = outcome(OUTCOME_ATTEMPT(ATTEMPT_unanswered), 1, 0, 1, 40, 40);
	}
	return row;
}

static struct client_row other_client(unsigned i)
{
	struct client_row row = {.since_ns = clock_monotonic_ns(), .n = 1};
	char text[32];

	snprintf(text, sizeof(text), "198.18.5.%u", i);
	row.addr = address(text);
	row.counts[OUTCOME_CONNECTED] = i;
	row.outcomes[0] = outcome(OUTCOME_ATTEMPT(ATTEMPT_connected), i, 0, 0, 1, 1);
	return row;
}

bool observe_client(const struct dataplane *dp, unsigned worker, const struct ipaddr *addr, struct client_row *out,
		    struct outcome_blind *blind)
{
	struct ipaddr known = address(FAKE_VICTIM);

	*blind = (struct outcome_blind){0};
	if (worker == 1)
		*blind =
			(struct outcome_blind){clock_monotonic_ns() - 100000000000, clock_monotonic_ns() - 50000000000};
	if (ipaddr_equal(addr, &known)) {
		*out = victim(worker);
		return true;
	}
	for (unsigned i = 0; worker == 0 && i < FAKE_CLIENTS; i++) {
		*out = other_client(i);
		if (ipaddr_equal(addr, &out->addr))
			return true;
	}
	return false;
}

uint32_t observe_client_places(const struct dataplane *dp, unsigned worker)
{
	return 100;
}

bool observe_client_at(const struct dataplane *dp, unsigned worker, uint32_t place, struct client_row *out)
{
	if (place == 5)
		*out = victim(worker);
	else if (worker == 0 && place >= 10 && place < 10 + 2 * FAKE_CLIENTS && place % 2 == 0)
		*out = other_client((place - 10) / 2);
	else
		return false;
	return true;
}

void observe_clients(const struct dataplane *dp, struct clients_report *out)
{
	*out = (struct clients_report){.records = FAKE_CLIENTS + 1, .places = 200, .forgotten = 17};
}

void observe_seconds(const struct dataplane *dp, unsigned worker, second_row_fn *fn, void *arg)
{
	struct second_row row = {
		.at_ns = clock_monotonic_ns() - 5000000000,
		.service_slot = 1,
		.reason = OUTCOME_VERDICT(VERDICT_answer_service_down),
		.count = 7,
	};
	struct second_row unnamed = {.unnamed = true, .reason = row.reason, .count = 4};
	struct ipaddr a = address(FAKE_VICTIM), b = address("2001:db8:2::7");
	unsigned len;

	row.prefix = outcome_prefix(worker ? &b : &a, &len);
	fn(arg, &row);
	if (worker == 0)
		fn(arg, &unnamed);
}

int observe_snat_owner(const struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be)
{
	struct ipaddr ours = address("198.18.101.10");

	return ipaddr_equal(snat, &ours) ? 0 : -ENOENT;
}

size_t observe_ended(const struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be, struct ended_row *out,
		     size_t max, uint64_t *since_ns)
{
	*since_ns = clock_monotonic_ns() - 60000000000;
	if (port_be != htons(FAKE_ENDED_PORT))
		return 0;
	out[0] = (struct ended_row){
		.client = address(FAKE_VICTIM),
		.client_port_be = htons(40000),
		.proto = PROTO_TCP,
		.state = "time_wait",
		.service_slot = 0,
		.backend_slot = 1,
		.born_ns = clock_monotonic_ns() - 30000000000,
		.ended_ns = clock_monotonic_ns() - 20000000000,
	};
	return 1;
}

int observe_tuple(struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be,
		  const struct tuple_backend *backends, size_t n, struct flow_row rows[static FLOW_QUERY_ROWS],
		  int timeout_ms)
{
	if (dp->mute_worker == 0)
		return -ETIMEDOUT;
	if (port_be != htons(FAKE_LIVE_PORT))
		return 0;
	fake_flow(0, 1, &rows[0]);
	return 1;
}

/* --- decide --- */

static void decide_answer(struct api_fixture *f, struct api_command *c)
{
	if (f->mode == DECIDE_REFUSE) {
		c->status = 422;
		c->answer = json_pack("{s:s,s:[]}", "error", "the file is refused", "problems");
		for (int line = 1; line <= FAKE_PROBLEMS; line++)
			json_array_append_new(json_object_get(c->answer, "problems"),
					      json_sprintf("gw.yaml:%d:1: unknown key 'flow'", line));
	} else {
		c->status = 200;
		c->answer = json_pack("{s:s,s:s,s:I,s:i}", "path", c->path, "query", c->query, "uid",
				      (json_int_t)c->uid, "policy_number", 8);
	}
	api_command_done(f->api, c);
}

static void *decide_main(void *arg)
{
	struct api_fixture *f = arg;
	struct pollfd fds[] = {{f->notify_fd, POLLIN, 0}, {f->wake_fd, POLLIN, 0}};
	struct api_command *late = NULL, *c;
	uint64_t ignored;

	while (!f->stop) {
		poll(fds, 2, -1);
		if (fds[0].revents && read(f->notify_fd, &ignored, sizeof(ignored)) < 0)
			abort();
		if (fds[1].revents && read(f->wake_fd, &ignored, sizeof(ignored)) < 0)
			abort();
		if (late && f->mode != DECIDE_SLOW) {
			decide_answer(f, late);
			late = NULL;
		}
		while (f->mode != DECIDE_DEAF && !late && (c = api_command_take(f->api))) {
			f->taken++;
			if (f->mode == DECIDE_SLOW)
				late = c;
			else
				decide_answer(f, c);
		}
	}
	if (late)
		decide_answer(f, late);
	return NULL;
}

static void wake(struct api_fixture *f)
{
	if (eventfd_write(f->wake_fd, 1) < 0)
		abort();
}

void api_fixture_mode(struct api_fixture *f, enum decide_mode mode)
{
	f->mode = mode;
	wake(f);
}

/* --- start, stop --- */

/* Each packet ends once, one is inside, one waits in the ring from worker 0 to worker 1. */
static void fill_ledgers(struct dataplane *dp)
{
	dp->ledgers[0] = (struct ledger){.rx = 100, .inside = 1, .tx = 90};
	dp->ledgers[0].verdicts[VERDICT_forwarded] = 90;
	dp->ledgers[0].verdicts[VERDICT_handed_over] = 3;
	dp->ledgers[0].verdicts[VERDICT_drop_truncated] = 6;
	dp->ledgers[1] = (struct ledger){.rx = 50, .taken_over = 2, .tx = 51, .tx_failed = 1};
	dp->ledgers[1].verdicts[VERDICT_forwarded] = 48;
	dp->ledgers[1].verdicts[VERDICT_answer_echo] = 3;
	dp->ledgers[1].verdicts[VERDICT_drop_no_route] = 1;
	dp->ledgers[1].made[MADE_rst_idle] = 1;
	dp->ledgers[1].ptb[PTB_noted] = 2;
	dp->ledgers[0].ptb[PTB_noted] = 1;
	dp->ledgers[0].mss_malformed = 9;
}

int api_fixture_start(struct api_fixture *f)
{
	struct api_config config = {.version = "1.2.3", .timeout_s = 1};
	struct view *view;
	struct timespec ts;
	char err[256] = "";

	*f = (struct api_fixture){.dp = {.n_workers = FAKE_WORKERS, .n_flows = {FAKE_FLOWS_W0, FAKE_FLOWS_W1}},
				  .dir = "/tmp/spillway-test-api.XXXXXX"};
	f->dp.mute_worker = -1;
	fill_ledgers(&f->dp);
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->socket_path, sizeof(f->socket_path), "%s/api.sock", f->dir);
	f->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	config.started_ns = (uint64_t)ts.tv_sec * 1000000000;
	config.socket_path = f->socket_path;
	config.http = "127.0.0.1:0";
	config.notify_fd = f->notify_fd;
	f->events = config.events = events_create(NULL);
	f->owners = config.owners = owners_create(8, 8);
	view = api_fixture_view(GATEWAY_READY);
	owners_note(f->owners, view, clock_monotonic_ns() - 200000000000);
	view_free(view);
	f->api = api_start(&config, &f->dp, err, sizeof(err));
	if (!f->api) {
		fprintf(stderr, "api_start: %s\n", err);
		return -1;
	}
	return pthread_create(&f->decide, NULL, decide_main, f) == 0 ? 0 : -1;
}

void api_fixture_stop(struct api_fixture *f)
{
	if (f->decide) {
		f->stop = true;
		wake(f);
		pthread_join(f->decide, NULL);
	}
	events_wake(f->events);
	api_stop(f->api);
	events_destroy(f->events);
	owners_destroy(f->owners);
	view_publish(NULL);
	close(f->notify_fd);
	close(f->wake_fd);
	unlink(f->socket_path);
	rmdir(f->dir);
}

int api_fixture_setup(void **state)
{
	static struct api_fixture fixture;

	*state = &fixture;
	if (api_fixture_start(&fixture) < 0)
		return -1;
	view_publish(api_fixture_view(GATEWAY_READY));
	return 0;
}

int api_fixture_teardown(void **state)
{
	api_fixture_stop(*state);
	return 0;
}

static void fill_backends(struct view_backend *b, uint64_t now_ns)
{
	strcpy(b[0].id, "tcp:198.18.3.21:8080");
	b[0].addr = address("198.18.3.21");
	strcpy(b[0].services, "shop,blog");
	b[0].life = LIFE_ACTIVE;
	b[0].weight = 1;
	strcpy(b[1].id, "tcp:198.18.3.22:8080");
	b[1].addr = address("198.18.3.22");
	strcpy(b[1].services, "shop");
	b[1].slot = 1;
	b[1].life = LIFE_ACTIVE;
	b[1].weight = 3;
	b[1].expires_ns = now_ns + 29900000000; /* 30 would be said of the first moment of a second alone */
	strcpy(b[2].id, "tcp:[2001:db8:3::15]:8080");
	b[2].addr = address("2001:db8:3::15");
	strcpy(b[2].services, "blog");
	b[2].slot = 2;
	b[2].life = LIFE_GONE;
	b[2].removed_ns = now_ns > 60000000000 ? now_ns - 60000000000 : 1;
	b[2].deadline_ns = now_ns + 19000000000;
	b[2].weight = 1;
	for (int i = 0; i < 3; i++) {
		b[i].port_be = htons(8080);
		b[i].proto = PROTO_TCP;
	}
}

/* Of the second backend. */
static struct view_breaker *make_breaker(uint64_t now_ns)
{
	struct view_breaker *b = calloc(1, sizeof(*b));

	*b = (struct view_breaker){
		.state = BREAKER_OPEN,
		.since_ns = now_ns > 12000000000 ? now_ns - 12000000000 : 1,
		.probe_ns = now_ns + 59900000000, /* likewise not 60 */
		.until_ns = now_ns + 70000000000,
		.openings = 2,
		.evidence = "5 SYNs in a row failed: 2 unanswered, 3 refused",
	};
	b->opened_ns = b->since_ns;
	return b;
}

struct view *api_fixture_view(enum gateway_state state)
{
	struct view *v = calloc(1, sizeof(*v));
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	*v = (struct view){.refs = 1, .state = state, .policy_number = 7, .publish_took_ns = 1500000};
	v->published_ns = (uint64_t)ts.tv_sec * 1000000000;
	v->kernel = (struct netlink_report){.routes_v4 = 4, .routes_v6 = 6, .neighbours = 3, .refused = 2};
	v->n_services = 2;
	v->services = calloc(2, sizeof(*v->services));
	v->services[0] =
		(struct view_service){"shop", strdup("198.18.100.1:80/tcp,[2001:db8:100::1]:80/tcp"), 0, 2, ""};
	v->services[1] =
		(struct view_service){"blog", strdup("198.18.100.2:80/tcp"), 1, 0, "no usable backend \"now\""};
	v->services[0].early = (struct view_early){.of_clients = 80, .of_all = 9, .clients_since_ns = 1};
	v->services[0].backends = calloc(2, sizeof(*v->services[0].backends));
	v->services[0].backends[1] = 1;
	v->n_backends = 3;
	v->backends = calloc(3, sizeof(*v->backends));
	fill_backends(v->backends, v->published_ns);
	v->breakers = make_breaker(v->published_ns);
	v->backends[1].breaker = v->breakers;
	v->n_names = 2;
	v->names = calloc(2, sizeof(*v->names));
	v->names[0] = (struct view_name){"shop.lab.test", 4, "fresh", 2, 5000000000, UINT64_MAX / 2, 9, 0, 2, 1, 3, ""};
	v->names[1] = (struct view_name){"gone.lab.test", 6, "gone", 0, 0, 0, 5, 5, 0, 0, 0, "NXDOMAIN \xff"};
	v->n_gates = 2;
	v->gates = calloc(2, sizeof(*v->gates));
	v->gates[0] = (struct view_gate){
		"wan",
		3,
		{{"gate_known", "to known", 11}, {"gate_new", "to new", 0}, {"gate_shed_client", "insists", 84}}};
	v->gates[1] = (struct view_gate){
		"lan",
		3,
		{{"gate_known", "to known", 12}, {"gate_new", "to new", 0}, {"gate_shed_client", "insists", 5}}};
	v->tick_p99_us = 1500;
	v->tick_max_us = 22500;
	return v;
}

struct view *api_fixture_many_backends(size_t n, uint32_t first_slot)
{
	struct view *v = api_fixture_view(GATEWAY_READY);

	v->services[0].n_backends = 0;
	free(v->backends);
	v->n_backends = n;
	v->backends = calloc(n, sizeof(*v->backends));
	for (size_t i = 0; i < n; i++) {
		struct view_backend *b = &v->backends[i];

		b->slot = first_slot + 2 * i;
		b->life = LIFE_ACTIVE;
		b->weight = 1;
		snprintf(b->id, sizeof(b->id), "tcp:198.18.3.21:%u", b->slot);
	}
	return v;
}

/* --- client --- */

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;
	char *body = realloc(r->body, r->len + n + 1);

	if (!body)
		return 0;
	r->body = body;
	memcpy(body + r->len, data, n);
	r->len += n;
	body[r->len] = '\0';
	return n;
}

static size_t take_header(char *data, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;

	if (n > 7 && strncasecmp(data, "Allow: ", 7) == 0)
		snprintf(r->allow, sizeof(r->allow), "%.*s", (int)(n - 9), data + 7);
	return n;
}

int api_fixture_request(struct api_fixture *f, bool tcp, const char *method, const char *path, const char *host,
			const char *body, struct reply *out)
{
	CURL *curl = curl_easy_init();
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	char url[2048], host_line[256], accept_line[512];
	const char *type = NULL;
	int code;

	*out = (struct reply){0};
	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", tcp ? api_http_port(f->api) : 80, path);
	if (host) {
		snprintf(host_line, sizeof(host_line), "Host:%s%s", *host ? " " : "", host);
		headers = curl_slist_append(headers, host_line);
	}
	if (f->accept) {
		snprintf(accept_line, sizeof(accept_line), "Accept: %s", f->accept);
		headers = curl_slist_append(headers, accept_line);
	}
	if (!tcp)
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, f->socket_path);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, 20l);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1l);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, out);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, out);
	if (body)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
	if (strcmp(method, "HEAD") == 0)
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1l);
	else
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
	code = (int)curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &out->status);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
	snprintf(out->type, sizeof(out->type), "%s", type ? type : "");
	curl_slist_free_all(headers);
	curl_easy_cleanup(curl);
	return code;
}

void reply_free(struct reply *r)
{
	free(r->body);
	*r = (struct reply){0};
}
