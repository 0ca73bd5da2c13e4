/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients by page: a row each, whichever workers saw it. */
#include "api_docs.h"

#include "api_early.h"

#include "json_row.h"
#include "observe.h"
#include "outcome.h"
#include "storm_words.h"
#include "view.h"

#include <stdlib.h>
#include <string.h>

struct client_json {
	char address[IPADDR_STRLEN];
	double since;
	uint64_t connected, refused, silent, resteered, reset, shed_early;
};

static const struct json_field client_fields[] = {
	JSON_FIELD(client_json, address), JSON_FIELD(client_json, since),      JSON_FIELD(client_json, connected),
	JSON_FIELD(client_json, refused), JSON_FIELD(client_json, silent),     JSON_FIELD(client_json, resteered),
	JSON_FIELD(client_json, reset),   JSON_FIELD(client_json, shed_early),
};

static json_t *last_json(const struct api_source *src, const struct api_clock *clock, const struct outcome_row *o)
{
	struct outcome_info info = outcome_info(o->reason);
	char service[API_OWNER_LEN], backend[API_OWNER_LEN];

	return json_pack("{s:s,s:f,s:s?,s:s?}", "reason", info.name, "at", api_wall_s(clock, o->last_ns), "service",
			 api_service_owner(src, o->service_slot, o->last_ns, service), "backend",
			 api_backend_owner(src, o->backend_slot, o->last_ns, backend));
}

struct storm_json {
	const char *test, *answer; /* storm_words.h */
	bool shadow;               /* it was not done */
	uint32_t count;
	double first, last;
	const char *service;
	char lets_in[STORM_WORDS_LEN]; /* "when it is its turn: its own cap lets in 20 a second"; "": nobody knows */
};

static const struct json_field storm_fields[] = {
	JSON_FIELD(storm_json, test),    JSON_FIELD(storm_json, answer),  JSON_FIELD(storm_json, shadow),
	JSON_FIELD(storm_json, count),   JSON_FIELD(storm_json, first),   JSON_FIELD(storm_json, last),
	JSON_FIELD(storm_json, service), JSON_FIELD(storm_json, lets_in),
};

static const struct view_service *service_named(const struct view *view, const char *name)
{
	for (size_t i = 0; view && name && i < view->n_services; i++)
		if (strcmp(view->services[i].name, name) == 0)
			return &view->services[i];
	return NULL;
}

/* What the cure storm held of it, or sent away, by which of its tests. */
static json_t *storm_json(const struct api_source *src, const struct view *view, const struct api_clock *clock,
			  const struct client_row *c)
{
	json_t *rows = json_array();

	for (unsigned i = 0; i < c->n; i++) {
		const struct outcome_row *o = &c->outcomes[i];
		char service[API_OWNER_LEN];
		struct storm_outcome storm;
		struct storm_json row;

		if (!storm_outcome_read(o->reason, &storm))
			continue;
		row = (struct storm_json){
			.test = storm_test_name[storm.test],
			.answer = storm_answer_name[storm.answer],
			.shadow = storm.shadow,
			.count = o->count,
			.first = api_wall_s(clock, o->first_ns),
			.last = api_wall_s(clock, o->last_ns),
			.service = api_service_owner(src, o->service_slot, o->last_ns, service),
		};
		if (service_named(view, row.service))
			storm_say_lets_in(view, service_named(view, row.service), storm.test, &c->addr, row.lets_in,
					  sizeof(row.lets_in));
		json_array_append_new(rows, JSON_ROW(storm_fields, &row));
	}
	return rows;
}

static json_t *client_json(const struct api_source *src, const struct view *view, const struct api_clock *clock,
			   const struct client_row *c)
{
	struct client_json row = {
		.since = api_wall_s(clock, c->since_ns),
		.connected = c->counts[OUTCOME_CONNECTED],
		.refused = c->counts[OUTCOME_REFUSED],
		.silent = c->counts[OUTCOME_SILENT],
		.resteered = c->counts[OUTCOME_RESTEERED],
		.reset = c->counts[OUTCOME_RESET],
		.shed_early = api_early_of_client(src, &c->addr),
	};
	json_t *json;

	ipaddr_format(&c->addr, row.address);
	json = JSON_ROW(client_fields, &row);
	json_object_set_new(json, "last", c->n ? last_json(src, clock, &c->outcomes[0]) : json_null());
	json_object_set_new(json, "storm", storm_json(src, view, clock, c));
	return json;
}

static bool same_kind(const struct outcome_row *a, const struct outcome_row *b)
{
	return a->reason == b->reason && a->service_slot == b->service_slot &&
	       (a->backend_slot == b->backend_slot || outcome_is_common(a->reason));
}

static void add_outcome(struct outcome_row *into, const struct outcome_row *o)
{
	into->count += o->count;
	if (o->first_ns < into->first_ns)
		into->first_ns = o->first_ns;
	if (o->last_ns > into->last_ns) {
		into->last_ns = o->last_ns;
		into->backend_slot = o->backend_slot;
	}
}

/* Where all places are taken, the kind that was quiet for longest goes, as in a worker's record. */
static void merge_outcome(struct client_row *into, const struct outcome_row *o)
{
	struct outcome_row *quietest = &into->outcomes[0];

	for (unsigned i = 0; i < into->n; i++) {
		struct outcome_row *at = &into->outcomes[i];

		if (same_kind(at, o)) {
			add_outcome(at, o);
			return;
		}
		if (at->last_ns < quietest->last_ns)
			quietest = at;
	}
	if (into->n < OUTCOME_KINDS_KEPT)
		into->outcomes[into->n++] = *o;
	else if (o->last_ns > quietest->last_ns)
		*quietest = *o;
}

static int latest_first(const void *a, const void *b)
{
	const struct outcome_row *x = a, *y = b;

	return (x->last_ns < y->last_ns) - (x->last_ns > y->last_ns);
}

/* The sums of both, class by class and kind by kind. */
static void merge(struct client_row *into, const struct client_row *c)
{
	for (int i = 0; i < OUTCOME_CLASSES; i++)
		into->counts[i] += c->counts[i];
	if (c->since_ns < into->since_ns)
		into->since_ns = c->since_ns;
	if (c->n && (!into->n || c->outcomes[0].last_ns > into->outcomes[0].last_ns))
		into->addr = c->addr;
	for (unsigned i = 0; i < c->n; i++)
		merge_outcome(into, &c->outcomes[i]);
	qsort(into->outcomes, into->n, sizeof(into->outcomes[0]), latest_first);
}

/* What workers `from` and later know of the client, added to `row`. */
static bool gather(const struct api_source *src, unsigned from, const struct ipaddr *addr, struct client_row *row,
		   bool found)
{
	for (unsigned w = from; w < dataplane_n_workers(src->dp); w++) {
		struct outcome_blind blind;
		struct client_row other;

		if (!observe_client(src->dp, w, addr, &other, &blind))
			continue;
		if (found)
			merge(row, &other);
		else
			*row = other;
		found = true;
	}
	return found;
}

/* A client belongs to the page of the first worker that knows it. */
static bool known_before(const struct api_source *src, unsigned worker, const struct ipaddr *addr)
{
	for (unsigned w = 0; w < worker; w++) {
		struct outcome_blind blind;
		struct client_row other;

		if (observe_client(src->dp, w, addr, &other, &blind))
			return true;
	}
	return false;
}

static void fill_page(const struct api_source *src, const struct view *view, const struct api_clock *clock,
		      struct api_cursor *at, unsigned limit, json_t *rows)
{
	unsigned n_workers = dataplane_n_workers(src->dp);

	for (; at->worker < n_workers; *at = (struct api_cursor){.worker = at->worker + 1}) {
		uint32_t places = observe_client_places(src->dp, at->worker);

		for (; at->position < places; at->position++) {
			struct client_row row;

			if (json_array_size(rows) == limit)
				return;
			if (!observe_client_at(src->dp, at->worker, at->position, &row) ||
			    known_before(src, at->worker, &row.addr))
				continue;
			gather(src, at->worker + 1, &row.addr, &row, true);
			json_array_append_new(rows, client_json(src, view, clock, &row));
		}
	}
}

unsigned api_doc_clients(const struct api_source *src, const struct view *view, const struct api_query *query,
			 json_t **doc, char err[static API_QUERY_ERR])
{
	struct api_clock clock = api_clock_now(src);
	struct api_cursor at = query->cursor;
	char next[API_CURSOR_STRLEN];
	json_t *rows = json_array();
	struct client_row row;

	at.skip = 0;
	if (!(query->given & PARAM_ADDRESS)) {
		fill_page(src, view, &clock, &at, query->limit, rows);
	} else {
		if (gather(src, 0, &query->address, &row, false))
			json_array_append_new(rows, client_json(src, view, &clock, &row));
		at.worker = dataplane_n_workers(src->dp);
	}
	api_cursor_format(&at, next);
	*doc = json_pack("{s:o,s:s?}", "clients", rows, "next", at.worker < dataplane_n_workers(src->dp) ? next : NULL);
	return 200;
}
