/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_docs.h"
#include "api_early.h"

#include "clock.h"
#include "json_row.h"
#include "limiter.h"
#include "observe.h"
#include "outcome.h"
#include "owners.h"
#include "storm_words.h"
#include "streak.h"
#include "tables.h"
#include "view.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

/* Seconds, to the millisecond: more digits would pretend to more than a scrape can know. */
static double seconds(uint64_t ns)
{
	return (double)(ns / 1000000) / 1e3;
}

static double seconds_between(uint64_t from_ns, uint64_t to_ns)
{
	return to_ns > from_ns ? seconds(to_ns - from_ns) : 0;
}

struct api_clock api_clock_now(const struct api_source *src)
{
	struct api_clock clock = {.now_ns = observe_now_ns(src->dp)};
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	clock.wall_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000;
	return clock;
}

double api_wall_s(const struct api_clock *clock, uint64_t at_ns)
{
	return (double)(clock->wall_ms - (int64_t)(clock->now_ns - at_ns) / 1000000) / 1e3;
}

static_assert(API_OWNER_LEN >= OWNER_SERVICE_LEN && API_OWNER_LEN >= OWNER_BACKEND_LEN, "either fits");

const char *api_service_owner(const struct api_source *src, uint32_t slot, uint64_t at_ns,
			      char out[static API_OWNER_LEN])
{
	return src->owners && owners_service(src->owners, slot, at_ns, out) ? out : NULL;
}

const char *api_backend_owner(const struct api_source *src, uint32_t slot, uint64_t at_ns,
			      char out[static API_OWNER_LEN])
{
	return src->owners && owners_backend(src->owners, slot, at_ns, out) ? out : NULL;
}

static const char *state_text(const struct view *view)
{
	static const char *const text[] = {
		[GATEWAY_STARTING] = "starting",
		[GATEWAY_READY] = "ready",
		[GATEWAY_DRAINING] = "draining",
	};
	return text[view ? view->state : GATEWAY_STARTING];
}

static const char *life_text(const struct view_backend *b)
{
	static const char *const text[] = {
		[LIFE_NEW] = "new",
		[LIFE_ACTIVE] = "active",
		[LIFE_DRAINING] = "draining",
		[LIFE_GONE] = "gone",
	};
	return text[b->life];
}

uint64_t api_pinned(const struct view_backend *b, const struct backend_report *r)
{
	return b->life == LIFE_DRAINING || b->life == LIFE_GONE ? r->flows : 0;
}

struct port_report *api_ports(const struct api_source *src, size_t *n)
{
	size_t max = observe_ports(src->dp, NULL, 0);
	struct port_report *ports = max ? calloc(max, sizeof(*ports)) : NULL;

	*n = 0;
	if (ports) {
		size_t filled = observe_ports(src->dp, ports, max);

		*n = filled < max ? filled : max;
	}
	return ports;
}

static const struct json_field worker_fields[] = {
	JSON_FIELD(worker_report, loops),         JSON_FIELD(worker_report, bursts),
	JSON_FIELD(worker_report, sleeps),        JSON_FIELD(worker_report, wakeups),
	JSON_FIELD(worker_report, policy_number), JSON_FIELD(worker_report, policy_regress),
	JSON_FIELD(worker_report, expired),       JSON_FIELD(worker_report, flows_v4),
	JSON_FIELD(worker_report, flows_v4_max),  JSON_FIELD(worker_report, flows_v6),
	JSON_FIELD(worker_report, flows_v6_max),  JSON_FIELD(worker_report, stalled_ns),
	JSON_FIELD(worker_report, tuples),        JSON_FIELD(worker_report, tuples_cut),
	JSON_FIELD(worker_report, out_of_window), JSON_FIELD(worker_report, damaged),
	JSON_FIELD(worker_report, wants_denied),
};

struct table_row {
	const char *family, *level;
	uint64_t flows, capacity;
};

static const struct json_field table_fields[] = {
	JSON_FIELD(table_row, family),
	JSON_FIELD(table_row, level),
	JSON_FIELD(table_row, flows),
	JSON_FIELD(table_row, capacity),
};

static json_t *status_tables(const struct api_source *src)
{
	struct table_state tables[SET_FAMILIES];
	json_t *rows = json_array();

	tables_read(src->dp, tables);
	for (int v6 = 0; v6 < SET_FAMILIES; v6++) {
		struct table_row row = {table_family_name[v6], table_level_name[tables[v6].level], tables[v6].flows,
					tables[v6].capacity};

		json_array_append_new(rows, JSON_ROW(table_fields, &row));
	}
	return rows;
}

static json_t *status_workers(const struct api_source *src)
{
	json_t *rows = json_array();

	for (unsigned w = 0; w < dataplane_n_workers(src->dp); w++) {
		struct worker_report r;
		json_t *row;

		observe_worker(src->dp, w, &r);
		row = JSON_ROW(worker_fields, &r);
		json_object_set_new(row, "worker", json_integer(w));
		json_object_set_new(row, "last_loop_s",
				    json_real(seconds_between(r.last_loop_ns, clock_monotonic_ns())));
		json_array_append_new(rows, row);
	}
	return rows;
}

static const struct json_field port_fields[] = {
	JSON_FIELD(port_report, name),
	JSON_FIELD(port_report, device),
	JSON_FIELD(port_report, queue),
	JSON_FIELD(port_report, zero_copy),
	JSON_FIELD(port_report, rx_packets),
	JSON_FIELD(port_report, rx_bytes),
	JSON_FIELD(port_report, tx_packets),
	JSON_FIELD(port_report, tx_bytes),
	JSON_FIELD(port_report, lost_known_ring),
	JSON_FIELD(port_report, lost_new_ring),
	JSON_FIELD(port_report, lost_no_buffer),
	JSON_FIELD(port_report, lost_invalid),
	JSON_FIELD(port_report, tx_full),
	JSON_FIELD(port_report, pool_empty),
};

static json_t *status_ports(const struct api_source *src)
{
	json_t *rows = json_array();
	size_t n;
	struct port_report *ports = api_ports(src, &n);

	for (size_t i = 0; i < n; i++)
		json_array_append_new(rows, JSON_ROW(port_fields, &ports[i]));
	free(ports);
	return rows;
}

static const struct json_field kernel_fields[] = {
	JSON_FIELD(netlink_report, routes_v4),  JSON_FIELD(netlink_report, routes_v6),
	JSON_FIELD(netlink_report, neighbours), JSON_FIELD(netlink_report, changes),
	JSON_FIELD(netlink_report, resyncs),    JSON_FIELD(netlink_report, refused),
};

static json_t *status_kernel(const struct view *view)
{
	static const struct netlink_report nothing;

	return JSON_ROW(kernel_fields, view ? &view->kernel : &nothing);
}

/* A row per port, a column per exit of its gate. */
static json_t *status_gates(const struct view *view)
{
	json_t *rows = json_array();

	for (size_t i = 0; view && i < view->n_gates; i++) {
		const struct view_gate *g = &view->gates[i];
		json_t *row = json_pack("{s:s}", "port", g->port);

		for (size_t c = 0; c < g->n_counters; c++)
			json_object_set_new(row, g->counters[c].name, json_integer((json_int_t)g->counters[c].packets));
		json_array_append_new(rows, row);
	}
	return rows;
}

static const char *trouble(const struct view *view)
{
	return view && *view->trouble ? view->trouble : NULL;
}

static const struct json_field clients_fields[] = {
	JSON_FIELD(clients_report, records),
	JSON_FIELD(clients_report, places),
	JSON_FIELD(clients_report, forgotten),
};

static json_t *status_clients(const struct api_source *src)
{
	struct clients_report r;

	observe_clients(src->dp, &r);
	return JSON_ROW(clients_fields, &r);
}

struct status_row {
	const char *state;
	bool ready;
	const char *reason; /* that it is not although the state is; else null */
	const char *version;
	double uptime_s;
	uint64_t policy_number;
	double policy_age_s; /* since it was published; null before the first */
	uint64_t publish_took_us;
	double tick_p99_ms, tick_max_ms; /* how late decide's ticks were in the last minute */
};

static const struct json_field status_fields[] = {
	JSON_FIELD(status_row, state),        JSON_FIELD(status_row, ready),
	JSON_FIELD(status_row, reason),       JSON_FIELD(status_row, version),
	JSON_FIELD(status_row, uptime_s),     JSON_FIELD(status_row, policy_number),
	JSON_FIELD(status_row, policy_age_s), JSON_FIELD(status_row, publish_took_us),
	JSON_FIELD(status_row, tick_p99_ms),  JSON_FIELD(status_row, tick_max_ms),
};

unsigned api_doc_status(const struct api_source *src, const struct view *view, const struct api_query *query,
			json_t **doc, char err[static API_QUERY_ERR])
{
	uint64_t now_ns = clock_monotonic_ns();
	struct status_row row = {
		.state = state_text(view),
		.ready = view_is_ready(view),
		.reason = trouble(view),
		.version = src->version,
		.uptime_s = seconds_between(src->started_ns, now_ns),
		.policy_number = view ? view->policy_number : 0,
		.policy_age_s = view && view->published_ns ? seconds_between(view->published_ns, now_ns) : NAN,
		.publish_took_us = view ? view->publish_took_ns / 1000 : 0,
		.tick_p99_ms = view ? view->tick_p99_us / 1e3 : NAN,
		.tick_max_ms = view ? view->tick_max_us / 1e3 : NAN,
	};

	*doc = JSON_ROW(status_fields, &row);
	json_object_set_new(*doc, "tables", status_tables(src));
	json_object_set_new(*doc, "workers", status_workers(src));
	json_object_set_new(*doc, "ports", status_ports(src));
	json_object_set_new(*doc, "gates", status_gates(view));
	json_object_set_new(*doc, "kernel", status_kernel(view));
	json_object_set_new(*doc, "clients", status_clients(src));
	return 200;
}

unsigned api_doc_ready(const struct api_source *src, const struct view *view, const struct api_query *query,
		       json_t **doc, char err[static API_QUERY_ERR])
{
	*doc = json_pack("{s:s,s:s*}", "state", state_text(view), "reason", trouble(view));
	return view_is_ready(view) ? 200 : 503;
}

struct service_row {
	const char *name, *listen;
	uint32_t backends;
	/* Of its backends' limiters: */
	uint32_t limiting;      /* how many are congested */
	double limiting_since;  /* the first of them; null: none is */
	double limit;           /* of their work at a time, together; null: not all of them have one */
	uint64_t wip;           /* what they have */
	double usual_ms;        /* what first bytes take when nothing is wrong, of the one with the slowest of late, */
	double first_byte_ms;   /* and what they took of late; null: not known */
	uint64_t answers_per_s; /* in the best second of the last ten, together */
	double hard_max;        /* of each one's work; null: none */
	double backend_rate;    /* of each one's new TCP flows a second; null: none */
	const char *down_reason;
	struct service_report r;
	uint64_t shed_early;
};

#define SERVICE_COUNT(member) JSON_FIELD_AS(service_row, r.member, #member)

static const struct json_field service_fields[] = {
	JSON_FIELD(service_row, name),
	JSON_FIELD_LIST(service_row, listen),
	JSON_FIELD(service_row, backends),
	JSON_FIELD(service_row, limiting),
	JSON_FIELD(service_row, limiting_since),
	JSON_FIELD(service_row, limit),
	JSON_FIELD(service_row, wip),
	JSON_FIELD(service_row, usual_ms),
	JSON_FIELD(service_row, first_byte_ms),
	JSON_FIELD(service_row, answers_per_s),
	JSON_FIELD(service_row, hard_max),
	JSON_FIELD(service_row, backend_rate),
	SERVICE_COUNT(flows),
	SERVICE_COUNT(attempts),
	SERVICE_COUNT(new_flows),
	SERVICE_COUNT(refused),
	SERVICE_COUNT(silent),
	SERVICE_COUNT(refused_storm),
	SERVICE_COUNT(held),
	SERVICE_COUNT(held_admitted),
	SERVICE_COUNT(holding),
	SERVICE_COUNT(would_hold),
	SERVICE_COUNT(would_refuse),
	SERVICE_COUNT(would_silence),
	SERVICE_COUNT(retries),
	JSON_FIELD(service_row, shed_early),
	JSON_FIELD(service_row, down_reason),
};

static double wall_s(uint64_t at_ns, uint64_t now_ns)
{
	struct timespec wall;

	clock_gettime(CLOCK_REALTIME, &wall);
	return (double)wall.tv_sec + (double)(wall.tv_nsec / 1000000) / 1e3 - seconds_between(at_ns, now_ns);
}

static double ms_or_none(uint64_t ns)
{
	return ns ? ns / 1e6 : NAN;
}

/* Its backends are those that the policy has for it: one that only drains takes none of its flows. */
static void fill_limits(const struct view *view, const struct view_service *s, struct service_row *row)
{
	uint64_t since_ns = UINT64_MAX, limit = 0, slowest_ns = 0;
	uint32_t n = 0;

	row->limiting_since = row->limit = row->usual_ms = row->first_byte_ms = NAN;
	row->hard_max = s->hard_max ? s->hard_max : NAN;
	row->backend_rate = s->backend_rate ? s->backend_rate : NAN;
	for (size_t i = 0; i < s->n_backends; i++) {
		const struct view_backend *b = &view->backends[s->backends[i]];

		if (b->proto != PROTO_TCP)
			continue;
		n++;
		row->wip += b->limiter.wip;
		row->answers_per_s += b->limiter.rate;
		if (b->limiter.first_byte_ns > slowest_ns) {
			slowest_ns = b->limiter.first_byte_ns;
			row->usual_ms = ms_or_none(b->limiter.usual_ns);
			row->first_byte_ms = ms_or_none(slowest_ns);
		}
		if (!b->limiter.limiting)
			continue;
		row->limiting++;
		limit += b->limiter.limit;
		since_ns = b->limiter.since_ns < since_ns ? b->limiter.since_ns : since_ns;
	}
	if (row->limiting)
		row->limiting_since = wall_s(since_ns, clock_monotonic_ns());
	if (n && row->limiting == n)
		row->limit = limit;
}

json_t *api_service_json(const struct api_source *src, const struct view *view, const struct view_service *s)
{
	struct service_row row = {
		.name = s->name,
		.listen = s->listen,
		.backends = s->n_backends,
		.down_reason = *s->down_reason ? s->down_reason : NULL,
		.shed_early = api_early_of_service(s),
	};

	fill_limits(view, s, &row);
	observe_service(src->dp, s->slot, &row.r);
	return JSON_ROW(service_fields, &row);
}

unsigned api_doc_services(const struct api_source *src, const struct view *view, const struct api_query *query,
			  json_t **doc, char err[static API_QUERY_ERR])
{
	struct storm_rates *rates = storm_rates_read(src, view);
	json_t *rows = json_array();

	for (size_t i = 0; view && i < view->n_services; i++) {
		json_t *row = api_service_json(src, view, &view->services[i]);

		/* Who stood in whose way, in the last ten seconds. */
		json_object_set_new(row, "storm", rates ? storm_rates_json(&rates[i]) : json_array());
		json_array_append_new(rows, row);
	}
	free(rates);
	*doc = json_pack("{s:o}", "services", rows);
	return 200;
}

struct backend_row {
	const char *id, *services, *life, *breaker;
	double breaker_since;         /* in that state; null: it never was in another */
	const char *breaker_evidence; /* by which it is not closed; null: it is */
	double breaker_next_s;        /* open: until it is probed again; ramp: until it is closed; null: neither */
	const char *limiter;          /* "open", "limiting" */
	double limiter_since;         /* null: it never was otherwise */
	double limit;                 /* of its work at a time; null: none */
	double hard_max;              /* the same, by an operator's word */
	double usual_ms;              /* what first bytes take when nothing is wrong; null: not known yet */
	const char *usual_from;       /* "measured", "restart", "left" or "limited": limiter.h; null: not known yet */
	double first_byte_ms;         /* what they took of late; null: there was none */
	double calm_ms;               /* limiting: below that, for a second, it is over; null: when it answers */
	uint64_t answers_per_s;       /* in the best second of the last ten */
	uint32_t weight;
	uint64_t flows, new_flows, connects, failures, resteered, overloads, unfinished, probes, pinned;
	uint64_t packets_up, packets_down, bytes_up, bytes_down;
	uint64_t silent_clients, silent_backends;
	struct signal_report signals;
	/* Of the last minute; null: none was measured in it: */
	double handshake_p50_ms, handshake_p99_ms, first_byte_p50_ms, first_byte_p99_ms;
	double removed_s;                              /* since no service names it; null: one does */
	double drain_s;                                /* until its flows are ended; null: they are not */
	double ttl_left, idle_survived_s, idle_lost_s; /* null: no end; none yet */
};

#define SIGNAL_FIELD(member) JSON_FIELD_AS(backend_row, signals.member, #member)

static const struct json_field backend_fields[] = {
	JSON_FIELD(backend_row, id),
	JSON_FIELD_LIST(backend_row, services),
	JSON_FIELD(backend_row, life),
	JSON_FIELD(backend_row, breaker),
	JSON_FIELD(backend_row, breaker_since),
	JSON_FIELD(backend_row, breaker_evidence),
	JSON_FIELD(backend_row, breaker_next_s),
	JSON_FIELD(backend_row, limiter),
	JSON_FIELD(backend_row, limiter_since),
	JSON_FIELD(backend_row, limit),
	JSON_FIELD(backend_row, hard_max),
	JSON_FIELD(backend_row, usual_ms),
	JSON_FIELD(backend_row, usual_from),
	JSON_FIELD(backend_row, first_byte_ms),
	JSON_FIELD(backend_row, calm_ms),
	JSON_FIELD(backend_row, answers_per_s),
	JSON_FIELD(backend_row, weight),
	JSON_FIELD(backend_row, flows),
	JSON_FIELD(backend_row, new_flows),
	JSON_FIELD(backend_row, connects),
	JSON_FIELD(backend_row, failures),
	JSON_FIELD(backend_row, resteered),
	JSON_FIELD(backend_row, overloads),
	JSON_FIELD(backend_row, unfinished),
	JSON_FIELD(backend_row, probes),
	JSON_FIELD(backend_row, pinned),
	JSON_FIELD(backend_row, ttl_left),
	JSON_FIELD(backend_row, packets_up),
	JSON_FIELD(backend_row, packets_down),
	JSON_FIELD(backend_row, bytes_up),
	JSON_FIELD(backend_row, bytes_down),
	JSON_FIELD(backend_row, silent_clients),
	JSON_FIELD(backend_row, silent_backends),
	SIGNAL_FIELD(wip),
	SIGNAL_FIELD(waiting),
	SIGNAL_FIELD(open),
	SIGNAL_FIELD(zombies),
	SIGNAL_FIELD(one_way),
	SIGNAL_FIELD(success),
	SIGNAL_FIELD(failed),
	SIGNAL_FIELD(neutral),
	SIGNAL_FIELD(exchanges),
	SIGNAL_FIELD(answered),
	SIGNAL_FIELD(gave_up),
	SIGNAL_FIELD(resets_before),
	SIGNAL_FIELD(resets_after),
	SIGNAL_FIELD(stalls),
	SIGNAL_FIELD(shut),
	SIGNAL_FIELD(retransmissions_up),
	SIGNAL_FIELD(retransmissions_down),
	JSON_FIELD(backend_row, handshake_p50_ms),
	JSON_FIELD(backend_row, handshake_p99_ms),
	JSON_FIELD(backend_row, first_byte_p50_ms),
	JSON_FIELD(backend_row, first_byte_p99_ms),
	JSON_FIELD(backend_row, idle_survived_s),
	JSON_FIELD(backend_row, idle_lost_s),
	JSON_FIELD(backend_row, removed_s),
	JSON_FIELD(backend_row, drain_s),
};

static double seconds_or_none(uint64_t ms)
{
	return ms ? (double)ms / 1e3 : NAN;
}

static double quantile_ms(const struct histogram_sum *sum, unsigned permille)
{
	return sum->n_lately ? histogram_quantile_us(sum, permille) / 1e3 : NAN;
}

static void fill_signals(const struct api_source *src, uint32_t slot, struct backend_row *row)
{
	struct histogram_sum handshake, first_byte;

	observe_signals(src->dp, slot, &row->signals);
	observe_durations(src->dp, slot, DURATION_HANDSHAKE, &handshake);
	observe_durations(src->dp, slot, DURATION_FIRST_BYTE, &first_byte);
	row->handshake_p50_ms = quantile_ms(&handshake, 500);
	row->handshake_p99_ms = quantile_ms(&handshake, 990);
	row->first_byte_p50_ms = quantile_ms(&first_byte, 500);
	row->first_byte_p99_ms = quantile_ms(&first_byte, 990);
}

static const char *evidence_of(const struct view_breaker *b)
{
	if (b->forced)
		return "an operator says so";
	if (b->state == BREAKER_CLOSED)
		return NULL;
	return b->is_new ? "new to its set" : b->evidence;
}

/* The state is of this moment, the rest as of the last view: shown where both are of one mind. */
static void fill_breaker(const struct view_breaker *b, const struct backend_report *r, uint64_t now_ns,
			 struct backend_row *row)
{
	row->breaker = breaker_state_name[r->breaker];
	row->breaker_since = row->breaker_next_s = NAN;
	if (!b || b->state != r->breaker)
		return;
	row->breaker_since = wall_s(b->since_ns, now_ns);
	row->breaker_evidence = evidence_of(b);
	if (b->probe_ns)
		row->breaker_next_s = seconds_between(now_ns, b->probe_ns);
	else if (b->closes_ns)
		row->breaker_next_s = seconds_between(now_ns, b->closes_ns);
}

static void fill_limiter(const struct view_limiter *l, uint64_t now_ns, struct backend_row *row)
{
	row->limiter = limiter_state_name[l->limiting ? LIMITER_LIMITING : LIMITER_OPEN];
	row->limiter_since = l->since_ns ? wall_s(l->since_ns, now_ns) : NAN;
	row->limit = l->limiting ? l->limit : NAN;
	row->usual_ms = ms_or_none(l->usual_ns);
	row->usual_from = l->usual_ns ? limiter_base_name[l->from] : NULL;
	row->first_byte_ms = ms_or_none(l->first_byte_ns);
	row->calm_ms = l->limiting && !l->stalled && l->calm_ns != UINT64_MAX ? l->calm_ns / 1e6 : NAN;
	row->answers_per_s = l->rate;
}

json_t *api_backend_json(const struct api_source *src, const struct view_backend *b)
{
	struct backend_report r;
	struct backend_row row = {.id = b->id, .services = b->services, .life = life_text(b), .weight = b->weight};
	uint64_t now_ns = clock_monotonic_ns();

	observe_backend(src->dp, b->slot, &r);
	fill_signals(src, b->slot, &row);
	row.flows = r.flows;
	row.new_flows = r.new_flows;
	row.connects = r.connects;
	row.failures = r.failures;
	fill_breaker(b->breaker, &r, now_ns, &row);
	fill_limiter(&b->limiter, now_ns, &row);
	row.hard_max = b->hard_max ? b->hard_max : NAN;
	row.resteered = r.resteered;
	row.overloads = r.overloads;
	row.unfinished = r.unfinished;
	row.probes = r.probes;
	row.pinned = api_pinned(b, &r);
	row.packets_up = r.packets_up;
	row.packets_down = r.packets_down;
	row.bytes_up = r.bytes_up;
	row.bytes_down = r.bytes_down;
	row.silent_clients = r.silent_clients;
	row.silent_backends = r.silent_backends;
	row.idle_survived_s = seconds_or_none(r.idle_survived_ms);
	row.idle_lost_s = seconds_or_none(r.idle_lost_ms);
	row.ttl_left = b->expires_ns ? seconds_between(now_ns, b->expires_ns) : NAN;
	row.removed_s = b->removed_ns ? seconds_between(b->removed_ns, now_ns) : NAN;
	row.drain_s = b->deadline_ns ? seconds_between(now_ns, b->deadline_ns) : NAN;
	return JSON_ROW(backend_fields, &row);
}

/* Rows stand in the order of their slots, so that a slot says where a page goes on, whatever came and went meanwhile.
 */
unsigned api_doc_backends(const struct api_source *src, const struct view *view, const struct api_query *query,
			  json_t **doc, char err[static API_QUERY_ERR])
{
	size_t n = view ? view->n_backends : 0, i = 0;
	char next[API_CURSOR_STRLEN];
	json_t *rows = json_array();

	while (i < n && view->backends[i].slot < query->cursor.position)
		i++;
	for (; i < n && json_array_size(rows) < query->limit; i++)
		json_array_append_new(rows, api_backend_json(src, &view->backends[i]));
	api_cursor_format(&(struct api_cursor){.position = i < n ? view->backends[i].slot : 0}, next);
	*doc = json_pack("{s:o,s:s?}", "backends", rows, "next", i < n ? next : NULL);
	return 200;
}

struct name_row {
	const char *name;
	uint8_t family;
	const char *state;
	uint32_t addresses;
	double ttl_s, next_query_s;
	uint64_t queries, failures;
	uint64_t changes, would_changes; /* of the set: followed; in mode shadow not */
	uint64_t refused;                /* addresses that no backend can have */
	const char *last_error;          /* null: the last answer was good */
};

static const struct json_field name_fields[] = {
	JSON_FIELD(name_row, name),          JSON_FIELD(name_row, family),   JSON_FIELD(name_row, state),
	JSON_FIELD(name_row, addresses),     JSON_FIELD(name_row, ttl_s),    JSON_FIELD(name_row, next_query_s),
	JSON_FIELD(name_row, queries),       JSON_FIELD(name_row, failures), JSON_FIELD(name_row, changes),
	JSON_FIELD(name_row, would_changes), JSON_FIELD(name_row, refused),  JSON_FIELD(name_row, last_error),
};

unsigned api_doc_names(const struct api_source *src, const struct view *view, const struct api_query *query,
		       json_t **doc, char err[static API_QUERY_ERR])
{
	uint64_t now_ns = clock_monotonic_ns();
	json_t *rows = json_array();

	for (size_t i = 0; view && i < view->n_names; i++) {
		const struct view_name *n = &view->names[i];
		struct name_row row = {
			.name = n->name,
			.family = n->family,
			.state = n->state,
			.addresses = n->n_addresses,
			.ttl_s = seconds(n->ttl_ns),
			.next_query_s = seconds_between(now_ns, n->next_query_ns),
			.queries = n->queries,
			.failures = n->failures,
			.changes = n->changes,
			.would_changes = n->would_changes,
			.refused = n->refused,
			.last_error = *n->last_error ? n->last_error : NULL,
		};

		json_array_append_new(rows, JSON_ROW(name_fields, &row));
	}
	*doc = json_pack("{s:o}", "names", rows);
	return 200;
}
