/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What happened to an address, in the words of the five cures: a client, a backend, a VIP, or the client behind a SNAT
 * port. It is asked for when something burns, so it answers in bounded time: it reads what workers remember, and asks
 * them only for flows, and for those not longer than FLOWS_TIME_MS.
 */
#include "api_docs.h"

#include "api_early.h"
#include "clock.h"
#include "events.h"
#include "explain_findings.h"
#include "explain_slots.h"
#include "json_row.h"
#include "observe.h"
#include "outcome.h"
#include "policy.h"
#include "view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLOWS_TIME_MS  30
#define TUPLE_TIME_MS  40
#define FLOWS_SHOWN    32
#define EVENTS_SHOWN   32
#define EVENTS_AT_ONCE 32
#define EVENTS_BACK_MS 60000 /* how long before the first finding an event may have caused it */
#define PATHS_SHOWN    16
#define ENDED_SHOWN    8
#define CONCERNED_MAX  64

/* Names of what the answer is about: events with such a subject belong to it. */
struct concerned {
	size_t n;
	char names[CONCERNED_MAX][API_OWNER_LEN];
};

struct explain {
	const struct api_source *src;
	const struct view *view;
	const struct api_query *query;
	struct api_clock clock;
	struct ipaddr about; /* the address, or the client behind the SNAT tuple */
	bool is_client, is_backend, is_vip, is_snat;
	struct client_sum client;
	struct findings findings;
	struct seconds_sum seconds;
	struct concerned services, backends;
	json_t *tuples, *flows;
	uint64_t tuples_since_ns; /* 0: all that ended are known */
	bool flows_complete;
};

static void concern(struct concerned *c, const char *name)
{
	if (!name)
		return;
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->names[i], name) == 0)
			return;
	if (c->n < CONCERNED_MAX)
		snprintf(c->names[c->n++], API_OWNER_LEN, "%s", name);
}

static bool concerns(const struct concerned *c, const char *name)
{
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->names[i], name) == 0)
			return true;
	return false;
}

/* --- which address it is --- */

/* `listen` as in the view: "198.18.100.1:80/tcp,[2001:db8:100::1]:80/tcp". */
static bool listens_on(const char *listen, const struct ipaddr *addr, uint16_t port_be)
{
	char text[IPADDR_PORT_STRLEN];
	size_t len;

	ipaddr_port_format(addr, port_be, text);
	/* Up to the colon before the port, or with the port and the slash behind it. */
	len = port_be ? strlen(text) : (size_t)(strrchr(text, ':') + 1 - text);
	for (const char *at = listen; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (strncmp(at, text, len) == 0 && (!port_be || at[len] == '/'))
			return true;
	return false;
}

/* A backend may be somebody's client, too. */
static bool is_known_client(const struct explain *e)
{
	for (unsigned w = 0; w < dataplane_n_workers(e->src->dp); w++) {
		struct outcome_blind blind;
		struct client_row row;

		if (observe_client(e->src->dp, w, &e->query->address, &row, &blind))
			return true;
	}
	return false;
}

static void find_roles(struct explain *e)
{
	const struct ipaddr *addr = &e->query->address;
	uint16_t port_be = e->query->given & PARAM_PORT ? e->query->port_be : 0;

	for (size_t i = 0; e->view && i < e->view->n_backends; i++) {
		const struct view_backend *b = &e->view->backends[i];

		if (!ipaddr_equal(&b->addr, addr) || (port_be && b->port_be != port_be))
			continue;
		e->is_backend = true;
		concern(&e->backends, b->id);
	}
	for (size_t i = 0; e->view && i < e->view->n_services; i++) {
		const struct view_service *s = &e->view->services[i];

		if (!s->listen || !listens_on(s->listen, addr, port_be))
			continue;
		e->is_vip = true;
		concern(&e->services, s->name);
	}
	e->is_snat = observe_snat_owner(e->src->dp, addr, port_be) >= 0;
	e->is_client = !e->is_snat && ((!e->is_backend && !e->is_vip) || is_known_client(e));
}

/* --- SNAT tuples --- */

static struct tuple_backend *tuple_backends(const struct view *view, size_t *n)
{
	struct tuple_backend *backends = calloc((view ? view->n_backends : 0) + 1, sizeof(*backends));

	*n = 0;
	for (size_t i = 0; backends && view && i < view->n_backends; i++) {
		const struct view_backend *b = &view->backends[i];

		backends[(*n)++] = (struct tuple_backend){b->addr, b->port_be, b->proto};
	}
	return backends;
}

static json_t *tuple_json(const struct explain *e, const struct ipaddr *client, uint16_t client_port_be, uint8_t proto,
			  const char *service, const char *backend, const char *state)
{
	char text[IPADDR_PORT_STRLEN];

	return json_pack("{s:s,s:s,s:s?,s:s?,s:s}", "client", ipaddr_port_format(client, client_port_be, text), "proto",
			 proto == PROTO_TCP ? "tcp" : "udp", "service", service, "backend", backend, "state", state);
}

static void add_live(struct explain *e, const struct flow_row *f)
{
	char service[API_OWNER_LEN], backend[API_OWNER_LEN];
	const char *its_service = api_service_owner(e->src, f->service_slot, e->clock.now_ns, service);
	const char *its_backend = api_backend_owner(e->src, f->backend_slot, e->clock.now_ns, backend);
	json_t *json = tuple_json(e, &f->client, f->client_port_be, f->proto, its_service, its_backend, f->state);

	concern(&e->services, its_service);
	concern(&e->backends, its_backend);
	json_object_set_new(json, "began", json_real(api_wall_s(&e->clock, e->clock.now_ns - f->age_ms * 1000000ull)));
	json_object_set_new(json, "ended", json_null());
	json_array_append_new(e->tuples, json);
	json_array_append_new(e->flows, api_flow_json(f, e->view));
}

static void add_ended(struct explain *e, const struct ended_row *f)
{
	char service[API_OWNER_LEN], backend[API_OWNER_LEN];
	const char *its_service = api_service_owner(e->src, f->service_slot, f->ended_ns, service);
	const char *its_backend = api_backend_owner(e->src, f->backend_slot, f->ended_ns, backend);
	json_t *json = tuple_json(e, &f->client, f->client_port_be, f->proto, its_service, its_backend, f->state);

	concern(&e->services, its_service);
	concern(&e->backends, its_backend);
	json_object_set_new(json, "began", json_real(api_wall_s(&e->clock, f->born_ns)));
	json_object_set_new(json, "ended", json_real(api_wall_s(&e->clock, f->ended_ns)));
	json_array_append_new(e->tuples, json);
}

/* Flows that use the SNAT port now, then those that did; the client of the first is what the rest is about. */
static void find_tuples(struct explain *e)
{
	const struct ipaddr *snat = &e->query->address;
	struct flow_row rows[FLOW_QUERY_ROWS];
	struct ended_row ended[ENDED_SHOWN];
	size_t n_backends, n_ended;
	struct tuple_backend *backends = tuple_backends(e->view, &n_backends);
	int n = backends ? observe_tuple(e->src->dp, snat, e->query->port_be, backends, n_backends, rows, TUPLE_TIME_MS)
			 : -1;

	free(backends);
	e->flows_complete = n >= 0;
	for (int i = 0; i < n; i++)
		add_live(e, &rows[i]);
	n_ended = observe_ended(e->src->dp, snat, e->query->port_be, ended, ENDED_SHOWN, &e->tuples_since_ns);
	for (size_t i = 0; i < n_ended; i++)
		add_ended(e, &ended[i]);
	e->is_client = n > 0 || n_ended > 0;
	if (e->is_client)
		e->about = n > 0 ? rows[0].client : ended[0].client;
}

/* --- flows --- */

static int remaining_ms(uint64_t end_ns)
{
	uint64_t now_ns = clock_monotonic_ns();

	return now_ns < end_ns ? (int)((end_ns - now_ns) / 1000000) + 1 : 0;
}

static void find_flows(struct explain *e)
{
	const struct flow_filter filter = {
		.lane = QUERY_EXPLAIN,
		.by_addr = true,
		.addr = e->query->address,
		.by_port = e->query->given & PARAM_PORT,
		.port_be = e->query->port_be,
		.service_slot = SLOT_NONE,
		.backend_slot = SLOT_NONE,
	};
	uint64_t end_ns = clock_monotonic_ns() + FLOWS_TIME_MS * 1000000ull;

	for (unsigned w = 0; w < dataplane_n_workers(e->src->dp); w++)
		for (uint64_t cursor = 0; cursor != UINT64_MAX;) {
			struct flow_row rows[FLOW_QUERY_ROWS];
			int left_ms = remaining_ms(end_ns);
			int n = left_ms ? observe_flows(e->src->dp, w, &filter, &cursor, rows, left_ms) : -1;

			if (n < 0)
				return;
			for (int i = 0; i < n; i++) {
				if (json_array_size(e->flows) == FLOWS_SHOWN)
					return;
				json_array_append_new(e->flows, api_flow_json(&rows[i], e->view));
			}
		}
	e->flows_complete = true;
}

/* --- findings --- */

static void concern_found(struct explain *e)
{
	for (size_t i = 0; i < e->findings.n; i++) {
		const struct finding *f = &e->findings.of[i];
		char name[API_OWNER_LEN];

		concern(&e->services, api_service_owner(e->src, f->service_slot, f->last_ns, name));
		concern(&e->backends, api_backend_owner(e->src, f->backend_slot, f->last_ns, name));
	}
}

static size_t vip_slots(const struct explain *e, uint32_t slots[static CONCERNED_MAX])
{
	size_t n = 0;

	for (size_t i = 0; e->view && i < e->view->n_services && n < CONCERNED_MAX; i++)
		if (concerns(&e->services, e->view->services[i].name))
			slots[n++] = e->view->services[i].slot;
	return n;
}

static void find_out(struct explain *e)
{
	uint32_t slots[CONCERNED_MAX];
	size_t n;

	if (e->is_client) {
		findings_of_client(e->src, &e->about, &e->client, &e->findings);
		findings_of_seconds(e->src, &e->about, NULL, 0, &e->seconds, &e->findings);
	}
	if (e->is_vip) {
		n = vip_slots(e, slots);
		findings_of_seconds(e->src, NULL, slots, n, &e->seconds, &e->findings);
	}
	findings_sort(&e->findings);
	concern_found(e);
}

static bool is_failure(const struct finding *f)
{
	return outcome_info(f->reason).cause != CAUSE_NONE;
}

static json_t *findings_json(struct explain *e)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < e->findings.n; i++) {
		e->findings.of[i].about = e->about;
		if (is_failure(&e->findings.of[i]))
			json_array_append_new(rows, finding_json(e->src, e->view, &e->clock, &e->findings.of[i]));
	}
	if (e->is_client)
		api_early_explain_client(e->src, &e->clock, &e->about, rows);
	for (size_t i = 0; e->is_backend && i < e->view->n_backends; i++)
		if (concerns(&e->backends, e->view->backends[i].id))
			explain_backend(e->src, &e->view->backends[i], rows);
	for (size_t i = 0; e->is_vip && i < e->view->n_services; i++)
		if (concerns(&e->services, e->view->services[i].name))
			explain_service(e->src, &e->view->services[i], rows);
	return rows;
}

/* --- the client --- */

static json_t *outcomes_json(const struct explain *e)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < e->findings.n; i++) {
		const struct finding *f = &e->findings.of[i];
		struct outcome_info info = outcome_info(f->reason);
		char service[API_OWNER_LEN], backend[API_OWNER_LEN];

		if (f->scope != SCOPE_CLIENT)
			continue;
		json_array_append_new(
			rows, json_pack("{s:s,s:s,s:I,s:f,s:f,s:s?,s:s?}", "reason", info.name, "meant",
					outcome_class_name[info.class], "count", (json_int_t)f->count, "first",
					api_wall_s(&e->clock, f->first_ns), "last", api_wall_s(&e->clock, f->last_ns),
					"service", api_service_owner(e->src, f->service_slot, f->last_ns, service),
					"backend", api_backend_owner(e->src, f->backend_slot, f->last_ns, backend)));
	}
	return rows;
}

static json_t *client_json(const struct explain *e)
{
	const struct client_row *row = &e->client.row;
	char text[IPADDR_STRLEN];
	json_t *json;

	if (!e->client.known)
		return json_null();
	json = json_pack("{s:s,s:f}", "address", ipaddr_format(&row->addr, text), "since",
			 api_wall_s(&e->clock, row->since_ns));
	for (int c = 0; c < OUTCOME_CLASSES; c++)
		json_object_set_new(json, outcome_class_name[c], json_integer((json_int_t)row->counts[c]));
	json_object_set_new(json, "outcomes", outcomes_json(e));
	return json;
}

/* --- events --- */

struct event_ring {
	size_t n, next;
	struct event_record of[EVENTS_SHOWN];
};

/* A cure that found something, and when that began. */
static bool may_be_cause(const struct explain *e, const struct event_record *event)
{
	for (size_t i = 0; i < e->findings.n; i++) {
		const struct finding *f = &e->findings.of[i];
		int64_t from_ms = (int64_t)(api_wall_s(&e->clock, f->first_ns) * 1e3) - EVENTS_BACK_MS;

		if (is_failure(f) && strcmp(cause_name(outcome_info(f->reason).cause), event->cause) == 0 &&
		    event->wall_ms >= from_ms)
			return true;
	}
	return false;
}

static bool event_matches(const struct explain *e, const struct event_record *event, const char *address)
{
	return concerns(&e->services, event->subject) || concerns(&e->backends, event->subject) ||
	       strcmp(event->subject, address) == 0 || may_be_cause(e, event);
}

/* The latest EVENTS_SHOWN, oldest first. */
static json_t *events_json(const struct explain *e)
{
	struct event_record records[EVENTS_AT_ONCE];
	struct event_ring *ring = calloc(1, sizeof(*ring));
	uint64_t since = 0, lost;
	char address[IPADDR_STRLEN];
	json_t *rows = json_array();
	size_t n;

	if (!ring)
		return rows;
	ipaddr_format(&e->about, address);
	do {
		n = events_read(e->src->events, since, records, EVENTS_AT_ONCE, &lost, 0);
		for (size_t i = 0; i < n; i++) {
			if (!event_matches(e, &records[i], address))
				continue;
			ring->of[ring->next++ % EVENTS_SHOWN] = records[i];
			ring->n += ring->n < EVENTS_SHOWN;
		}
		since = n ? records[n - 1].number : since;
	} while (n == EVENTS_AT_ONCE);
	for (size_t i = 0; i < ring->n; i++)
		json_array_append_new(rows, api_event_json(&ring->of[(ring->next - ring->n + i) % EVENTS_SHOWN]));
	free(ring);
	return rows;
}

/* --- the document --- */

static json_t *roles_json(const struct explain *e)
{
	json_t *roles = json_array();

	if (e->is_snat)
		json_array_append_new(roles, json_string("snat"));
	if (e->is_vip)
		json_array_append_new(roles, json_string("vip"));
	if (e->is_backend)
		json_array_append_new(roles, json_string("backend"));
	if (e->is_client && !e->is_snat)
		json_array_append_new(roles, json_string("client"));
	return roles;
}

static json_t *services_json(const struct explain *e)
{
	json_t *rows = json_array();

	for (size_t i = 0; e->view && i < e->view->n_services; i++)
		if (concerns(&e->services, e->view->services[i].name))
			json_array_append_new(rows, api_service_json(e->src, e->view, &e->view->services[i]));
	return rows;
}

static json_t *backends_json(const struct explain *e)
{
	json_t *rows = json_array();

	for (size_t i = 0; e->view && i < e->view->n_backends; i++)
		if (concerns(&e->backends, e->view->backends[i].id))
			json_array_append_new(rows, api_backend_json(e->src, &e->view->backends[i]));
	return rows;
}

/* What was learned of the way to it. */
static json_t *paths_json(const struct explain *e)
{
	const struct api_query query = {.given = PARAM_ADDRESS, .address = e->about, .limit = PATHS_SHOWN};
	char err[API_QUERY_ERR];
	json_t *doc = NULL, *rows;

	api_doc_paths(e->src, e->view, &query, &doc, err);
	rows = json_incref(json_object_get(doc, "paths"));
	json_decref(doc);
	return rows ? rows : json_array();
}

static json_t *networks_json(const struct explain *e)
{
	json_t *rows = json_array();

	for (size_t i = 0; i < e->seconds.n_top; i++) {
		const struct prefix_sum *p = &e->seconds.top[i];
		char text[IPADDR_STRLEN];
		unsigned len;

		outcome_prefix(&p->prefix, &len);
		json_array_append_new(rows, json_pack("{s:o,s:I}", "network",
						      json_sprintf("%s/%u", ipaddr_format(&p->prefix, text), len),
						      "count", (json_int_t)p->count));
	}
	return rows;
}

static json_t *time_json(const struct explain *e, uint64_t at_ns)
{
	return at_ns ? json_real(api_wall_s(&e->clock, at_ns)) : json_null();
}

static json_t *document(struct explain *e, uint64_t begin_ns)
{
	char address[IPADDR_STRLEN];
	json_t *doc = json_pack("{s:s,s:o,s:o}", "address", ipaddr_format(&e->query->address, address), "port",
				e->query->given & PARAM_PORT ? json_integer(ntohs(e->query->port_be)) : json_null(),
				"roles", roles_json(e));

	json_object_set_new(doc, "client", client_json(e));
	json_object_set_new(doc, "tuples", e->tuples);
	json_object_set_new(doc, "findings", findings_json(e));
	json_object_set_new(doc, "findings_complete", json_boolean(!e->findings.cut));
	json_object_set_new(doc, "networks", networks_json(e));
	json_object_set_new(doc, "paths", paths_json(e));
	json_object_set_new(doc, "events", events_json(e));
	json_object_set_new(doc, "flows", e->flows);
	json_object_set_new(doc, "flows_complete", json_boolean(e->flows_complete));
	json_object_set_new(doc, "services", services_json(e));
	json_object_set_new(doc, "backends", backends_json(e));
	json_object_set_new(doc, "blind_since", time_json(e, e->client.blind.from_ns));
	json_object_set_new(doc, "blind_until", time_json(e, e->client.blind.to_ns));
	json_object_set_new(doc, "tuples_since", time_json(e, e->tuples_since_ns));
	json_object_set_new(doc, "unnamed", json_integer((json_int_t)e->seconds.unnamed));
	json_object_set_new(doc, "took_ms", json_real((clock_monotonic_ns() - begin_ns) / 1e6));
	return doc;
}

unsigned api_doc_explain(const struct api_source *src, const struct view *view, const struct api_query *query,
			 json_t **doc, char err[static API_QUERY_ERR])
{
	uint64_t begin_ns = clock_monotonic_ns();
	struct explain *e;

	if (!(query->given & PARAM_ADDRESS)) {
		snprintf(err, API_QUERY_ERR, "expected address=");
		return 400;
	}
	e = calloc(1, sizeof(*e));
	if (!e)
		return 500;
	e->src = src;
	e->view = view;
	e->query = query;
	e->clock = api_clock_now(src);
	e->about = query->address;
	e->tuples = json_array();
	e->flows = json_array();
	find_roles(e);
	if (e->is_snat && query->given & PARAM_PORT)
		find_tuples(e);
	else
		find_flows(e);
	find_out(e);
	*doc = document(e, begin_ns);
	free(e);
	return 200;
}
