/* SPDX-License-Identifier: BSD-3-Clause */
#include "observe.h"
#include "observe_worker.h"
#include "outcome.h"
#include "steer.h"
#include "streak.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* --- ledger --- */

uint64_t ledger_class(const struct ledger *l, enum verdict_class class)
{
	uint64_t sum = 0;

	for (unsigned v = 0; v < VERDICT_COUNT; v++)
		if (verdict_info[v].class == class)
			sum += l->verdicts[v];
	return sum;
}

int64_t ledger_balance(const struct ledger *l)
{
	uint64_t sum = l->inside;

	for (unsigned v = 0; v < VERDICT_COUNT; v++)
		sum += l->verdicts[v];
	return (int64_t)(l->rx + l->taken_over - sum);
}

void ledger_add(struct ledger *sum, const struct ledger *l)
{
	sum->rx += l->rx;
	sum->taken_over += l->taken_over;
	sum->inside += l->inside;
	sum->tx += l->tx;
	sum->tx_failed += l->tx_failed;
	for (unsigned v = 0; v < VERDICT_COUNT; v++)
		sum->verdicts[v] += l->verdicts[v];
	for (unsigned m = 0; m < MADE_COUNT; m++)
		sum->made[m] += l->made[m];
	for (unsigned a = 0; a < ACTION_COUNT; a++) {
		sum->did[a] += l->did[a];
		sum->would[a] += l->would[a];
	}
	for (unsigned p = 0; p < PTB_COUNT; p++)
		sum->ptb[p] += l->ptb[p];
	sum->mss_malformed += l->mss_malformed;
}

/* --- words under a sequence count --- */

void observe_store_words(void *to, const void *from, size_t bytes)
{
	uint64_t *t = to;
	const uint64_t *f = from;

	for (size_t i = 0; i < bytes / sizeof(*t); i++)
		__atomic_store_n(&t[i], f[i], __ATOMIC_RELAXED);
}

void observe_load_words(void *to, const void *from, size_t bytes)
{
	uint64_t *t = to;
	const uint64_t *f = from;

	for (size_t i = 0; i < bytes / sizeof(*t); i++)
		t[i] = __atomic_load_n(&f[i], __ATOMIC_RELAXED);
}

static_assert(sizeof(struct ledger) % 8 == 0, "copied by words");
static_assert(sizeof(struct worker_report) % 8 == 0, "copied by words");

static void read_published(const struct worker *w, struct ledger *ledger, struct worker_report *report)
{
	uint64_t seq;

	do {
		seq = __atomic_load_n(&w->published.seq, __ATOMIC_ACQUIRE);
		observe_load_words(ledger, &w->published.ledger, sizeof(*ledger));
		observe_load_words(report, &w->published.report, sizeof(*report));
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (seq & 1 || seq != __atomic_load_n(&w->published.seq, __ATOMIC_RELAXED));
}

unsigned dataplane_n_workers(const struct dataplane *dp)
{
	return dp->config.n_workers;
}

uint64_t observe_now_ns(const struct dataplane *dp)
{
	return dataplane_now_ns(dp);
}

void observe_ledger(const struct dataplane *dp, unsigned worker, struct ledger *out)
{
	struct worker_report report;

	read_published(dp->workers[worker], out, &report);
}

void observe_worker(const struct dataplane *dp, unsigned worker, struct worker_report *out)
{
	struct ledger ledger;

	read_published(dp->workers[worker], &ledger, out);
}

size_t observe_ports(const struct dataplane *dp, struct port_report *out, size_t max)
{
	size_t n = 0;

	for (unsigned i = 0; i < dp->n_ports; i++) {
		const struct port *port = dp->ports[i];

		for (unsigned q = 0; q < port->config.n_queues; q++, n++) {
			if (n >= max)
				continue;
			out[n] = (struct port_report){.queue = q};
			memcpy(out[n].name, port->config.name, sizeof(out[n].name));
			memcpy(out[n].device, port->config.device, sizeof(out[n].device));
			port->ops->report(port->queues[q], &out[n]);
		}
	}
	return n;
}

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void add_idle_times(const struct backend_cell *c, struct backend_report *out)
{
	uint64_t survived_ms = __atomic_load_n(&c->idle_survived_ms, __ATOMIC_RELAXED);
	uint64_t lost_ms = __atomic_load_n(&c->idle_lost_ms, __ATOMIC_RELAXED);

	if (survived_ms > out->idle_survived_ms)
		out->idle_survived_ms = survived_ms;
	if (lost_ms && (!out->idle_lost_ms || lost_ms < out->idle_lost_ms))
		out->idle_lost_ms = lost_ms;
}

void observe_backend(const struct dataplane *dp, uint32_t slot, struct backend_report *out)
{
	uint64_t word = dataplane_breaker(dp, slot);

	*out = (struct backend_report){
		.breaker = streak_state(word),
		.streak = word,
		.checks_failed = __atomic_load_n(&dp->cells.backends[slot].checks_failed, __ATOMIC_RELAXED),
		.streak_since_ns = load(&dp->cells.backends[slot].since_ns),
	};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct backend_cell *c = &dp->workers[i]->backends[slot];

		out->flows += load(&c->users);
		out->new_flows += load(&c->new_flows);
		out->connects += load(&c->connects);
		out->failures += load(&c->failures);
		out->resteered += load(&c->resteered);
		out->overloads += load(&c->overloads);
		out->unfinished += load(&c->unfinished);
		out->probes += load(&c->probes);
		out->packets_up += load(&c->packets[DIR_UP]);
		out->packets_down += load(&c->packets[DIR_DOWN]);
		out->bytes_up += load(&c->bytes[DIR_UP]);
		out->bytes_down += load(&c->bytes[DIR_DOWN]);
		out->silent_clients += load(&c->dead[DIR_UP]);
		out->silent_backends += load(&c->dead[DIR_DOWN]);
		add_idle_times(c, out);
	}
}

void observe_service(const struct dataplane *dp, uint32_t slot, struct service_report *out)
{
	*out = (struct service_report){0};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct service_cell *c = &dp->workers[i]->services[slot];

		out->flows += load(&c->users);
		out->attempts += load(&c->attempts);
		out->repeated += load(&c->repeated);
		out->new_flows += load(&c->new_flows);
		out->refused += load(&c->refused);
		out->silent += load(&c->silent);
		out->holding += load(&c->holding);
		out->held += load(&c->held);
		out->held_admitted += load(&c->held_admitted);
		out->refused_storm += load(&c->refused_storm);
		out->first_attempts += load(&c->first_attempts);
		out->retries += load(&c->retries);
		out->silent_many += load(&c->silent_many);
		out->silent_rate += load(&c->silent_rate);
		out->would_hold += load(&c->would_hold);
		out->would_refuse += load(&c->would_refuse);
		out->would_silence += load(&c->would_silence);
		out->waited += load(&c->waited);
	}
}

/* --- flow queries --- */

#define SCAN_PER_LOOP   4096 /* entries looked at per loop */
#define TUPLES_PER_LOOP 256  /* flows looked up per loop */

/*
 * Owned by the asking thread until it stands in worker->command, by the worker until `done_fd` is written; if the asker
 * gives up first, it takes the command back by exchange, or waits out the worker that has it.
 */
struct flow_command {
	void (*run)(struct worker *w, struct flow_command *c); /* moves the cursor, to UINT64_MAX after the last */
	const struct flow_filter *filter;
	const struct tuple_query *tuple;
	uint64_t cursor;
	struct flow_row *rows;
	int n_rows;
	int done_fd;
};

static bool matches(const struct flow_filter *f, const struct flow_addrs *a, const struct flow_track *track)
{
	const struct ipaddr *addrs[] = {&a->client, &a->vip, &a->snat, &a->backend};
	const uint16_t ports_be[] = {a->client_port_be, a->vip_port_be, a->snat_port_be, a->backend_port_be};

	if (f->service_slot != SLOT_NONE && f->service_slot != track->service_slot)
		return false;
	if (f->backend_slot != SLOT_NONE && f->backend_slot != track->backend_slot)
		return false;
	if (!f->by_addr && !f->by_port)
		return true;
	for (unsigned i = 0; i < 4; i++)
		if ((!f->by_addr || ipaddr_equal(addrs[i], &f->addr)) && (!f->by_port || ports_be[i] == f->port_be))
			return true;
	return false;
}

static void fill_row(const struct worker *w, flow_ref ref, const struct flow_addrs *a, struct flow_row *row)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	const struct flow_cold *cold = flow_cold(&w->flows, ref);
	const struct flow_half *up = flow_half(&w->flows, ref), *down = flow_half(&w->flows, flow_ref_other(ref));
	uint32_t idle_ms = flow_idle_ms(&w->flows, ref, w->run_ms);

	*row = (struct flow_row){
		.client = a->client,
		.vip = a->vip,
		.snat = a->snat,
		.backend = a->backend,
		.client_port_be = a->client_port_be,
		.vip_port_be = a->vip_port_be,
		.snat_port_be = a->snat_port_be,
		.backend_port_be = a->backend_port_be,
		.proto = a->proto,
		.worker = w->index,
		.state = flow_state_name[up->state],
		.service_slot = track->service_slot,
		.backend_slot = track->backend_slot,
		.age_ms = flow_age_ms(&w->flows, ref, w->now_ns),
		.idle_ms = idle_ms,
		.expires_ms = wheel_left_ms(&w->flows, ref, w->run_ms),
		.packets_up = cold->packets[DIR_UP] + up->packets,
		.packets_down = cold->packets[DIR_DOWN] + down->packets,
		.bytes_up = cold->bytes[DIR_UP] + up->bytes,
		.bytes_down = cold->bytes[DIR_DOWN] + down->bytes,
	};
}

/* The cursor counts the entries of the IPv4 pool, then those of the IPv6 pool. */
static void look_at(const struct worker *w, uint64_t entry, struct flow_command *c)
{
	uint64_t n_v4 = w->flows.pool4.capacity;
	flow_ref ref = flow_ref_make(entry >= n_v4, entry >= n_v4 ? entry - n_v4 : entry, DIR_UP);
	struct flow_addrs addrs;

	if (flow_half(&w->flows, ref)->state == FLOW_FREE)
		return;
	flow_addrs(&w->flows, ref, &addrs);
	if (matches(c->filter, &addrs, flow_track(&w->flows, ref)))
		fill_row(w, ref, &addrs, &c->rows[c->n_rows++]);
}

static void scan(struct worker *w, struct flow_command *c)
{
	uint64_t n_entries = (uint64_t)w->flows.pool4.capacity + w->flows.pool6.capacity;
	uint64_t end = c->cursor + SCAN_PER_LOOP < n_entries ? c->cursor + SCAN_PER_LOOP : n_entries;

	while (c->cursor < end && c->n_rows < FLOW_QUERY_ROWS)
		look_at(w, c->cursor++, c);
	if (c->cursor >= n_entries)
		c->cursor = UINT64_MAX;
}

/* Who may send to the SNAT address and port that is asked for. */
struct tuple_query {
	struct ipaddr snat;
	uint16_t port_be;
	const struct tuple_backend *backends;
	size_t n;
};

static flow_ref find_tuple(const struct worker *w, const struct tuple_query *q, const struct tuple_backend *b)
{
	if (ipaddr_is_v4(&q->snat)) {
		const struct flow_key4 key = {
			.src_be = ipaddr_v4_be(&b->addr),
			.dst_be = ipaddr_v4_be(&q->snat),
			.sport_be = b->port_be,
			.dport_be = q->port_be,
		};

		return flow_lookup4(&w->flows, &key, b->proto, flow_hash4(&key, b->proto, w->flows.secret));
	}
	struct flow_key6 key = {.sport_be = b->port_be, .dport_be = q->port_be};

	memcpy(key.src, b->addr.b, 16);
	memcpy(key.dst, q->snat.b, 16);
	return flow_lookup6(&w->flows, &key, b->proto, flow_hash6(&key, b->proto, w->flows.secret));
}

static void look_for_tuple(struct worker *w, struct flow_command *c)
{
	uint64_t end = c->cursor + TUPLES_PER_LOOP < c->tuple->n ? c->cursor + TUPLES_PER_LOOP : c->tuple->n;

	for (; c->cursor < end && c->n_rows < FLOW_QUERY_ROWS; c->cursor++) {
		const struct tuple_backend *b = &c->tuple->backends[c->cursor];
		flow_ref ref = ipaddr_is_v4(&b->addr) == ipaddr_is_v4(&c->tuple->snat) ? find_tuple(w, c->tuple, b)
										       : FLOW_REF_NONE;
		struct flow_addrs addrs;

		if (ref == FLOW_REF_NONE)
			continue;
		flow_addrs(&w->flows, flow_ref_up(ref), &addrs);
		fill_row(w, flow_ref_up(ref), &addrs, &c->rows[c->n_rows++]);
	}
	if (c->cursor >= c->tuple->n || c->n_rows == FLOW_QUERY_ROWS)
		c->cursor = UINT64_MAX;
}

static void serve_lane(struct worker *w, enum query_lane lane)
{
	struct flow_command *c = atomic_exchange_explicit(&w->commands[lane], NULL, memory_order_acq_rel);
	uint64_t one = 1;

	if (!c)
		return;
	c->run(w, c);
	while (write(c->done_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void observe_serve_command(struct worker *w)
{
	for (int lane = 0; lane < QUERY_LANES; lane++)
		if (__builtin_expect(!!atomic_load_explicit(&w->commands[lane], memory_order_relaxed), 0))
			serve_lane(w, lane);
}

bool observe_command_waits(struct worker *w)
{
	for (int lane = 0; lane < QUERY_LANES; lane++)
		if (atomic_load(&w->commands[lane]))
			return true;
	return false;
}

static int wait_done(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count;
	int n;

	do
		n = poll(&p, 1, timeout_ms);
	while (n < 0 && errno == EINTR);
	/* Whoever wrote it is through with the command: the read says so to ThreadSanitizer, too. */
	return n > 0 && read(fd, &count, sizeof(count)) > 0 ? 0 : -ETIMEDOUT;
}

static int ask(struct worker *w, enum query_lane lane, struct flow_command *c, int timeout_ms)
{
	atomic_store_explicit(&w->commands[lane], c, memory_order_release);
	worker_wake(w);
	if (wait_done(c->done_fd, timeout_ms) == 0)
		return c->n_rows;
	if (atomic_exchange(&w->commands[lane], NULL) == c)
		return -ETIMEDOUT;
	/* The worker has it in hand and answers within this very loop, unless it was stopped meanwhile. */
	wait_done(c->done_fd, -1);
	return c->n_rows;
}

static struct timespec in_ms(int ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += (ts.tv_nsec / 1000000 + ms) / 1000;
	ts.tv_nsec = (ts.tv_nsec / 1000000 + ms) % 1000 * 1000000;
	return ts;
}

/* One query to a worker, alone in its lane. */
static int ask_alone(struct dataplane *dp, unsigned worker, enum query_lane lane, struct flow_command *c,
		     int timeout_ms)
{
	struct timespec until = in_ms(timeout_ms);
	int n;

	c->done_fd = eventfd(0, EFD_CLOEXEC);
	if (c->done_fd < 0)
		return -errno;
	n = -pthread_mutex_timedlock(&dp->query_locks[lane], &until);
	if (!n) {
		n = ask(dp->workers[worker], lane, c, timeout_ms);
		pthread_mutex_unlock(&dp->query_locks[lane]);
	}
	close(c->done_fd);
	return n;
}

int observe_flows(struct dataplane *dp, unsigned worker, const struct flow_filter *filter, uint64_t *cursor,
		  struct flow_row rows[static FLOW_QUERY_ROWS], int timeout_ms)
{
	struct flow_command c = {.run = scan, .filter = filter, .cursor = *cursor, .rows = rows};
	int n;

	if (worker >= dp->config.n_workers)
		return -EINVAL;
	if (*cursor == UINT64_MAX)
		return 0;
	n = ask_alone(dp, worker, filter->lane, &c, timeout_ms);
	if (n >= 0)
		*cursor = c.cursor;
	return n;
}

int observe_tuple(struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be,
		  const struct tuple_backend *backends, size_t n_backends, struct flow_row rows[static FLOW_QUERY_ROWS],
		  int timeout_ms)
{
	const struct tuple_query query = {*snat, port_be, backends, n_backends};
	struct flow_command c = {.run = look_for_tuple, .tuple = &query, .rows = rows};
	uint64_t end_ns = dataplane_now_ns(dp) + timeout_ms * 1000000ull;
	int owner = observe_snat_owner(dp, snat, port_be), n = owner;

	while (n >= 0 && c.cursor != UINT64_MAX) {
		n = ask_alone(dp, owner, QUERY_EXPLAIN, &c, timeout_ms);
		if (c.cursor != UINT64_MAX && dataplane_now_ns(dp) > end_ns)
			n = -ETIMEDOUT;
	}
	return n;
}

/* --- learned path MTUs --- */

size_t observe_paths(const struct dataplane *dp, uint64_t *cursor, struct path_row *rows, size_t max)
{
	return mtu_read(&dp->mtus, cursor, rows, max, dataplane_now_ns(dp));
}

void observe_path(const struct dataplane *dp, struct path_report *out)
{
	for (int k = 0; k < PATH_KINDS; k++)
		out->learned[k] = __atomic_load_n(&dp->mtus.of_kind[k], __ATOMIC_RELAXED);
	out->evicted = __atomic_load_n(&dp->mtus.evicted, __ATOMIC_RELAXED);
}
