/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients by page: a row each, whichever workers saw it. */
#include "api_docs.h"

#include "json_row.h"
#include "observe.h"
#include "outcome.h"

struct client_json {
	char address[IPADDR_STRLEN];
	double since;
	uint64_t connected, refused, silent, resteered, reset;
};

static const struct json_field client_fields[] = {
	JSON_FIELD(client_json, address), JSON_FIELD(client_json, since),  JSON_FIELD(client_json, connected),
	JSON_FIELD(client_json, refused), JSON_FIELD(client_json, silent), JSON_FIELD(client_json, resteered),
	JSON_FIELD(client_json, reset),
};

static json_t *last_json(const struct api_source *src, const struct api_clock *clock, const struct outcome_row *o)
{
	struct outcome_info info = outcome_info(o->reason);
	char service[API_OWNER_LEN], backend[API_OWNER_LEN];

	return json_pack("{s:s,s:f,s:s?,s:s?}", "reason", info.name, "at", api_wall_s(clock, o->last_ns), "service",
			 api_service_owner(src, o->service_slot, o->last_ns, service), "backend",
			 api_backend_owner(src, o->backend_slot, o->last_ns, backend));
}

static json_t *client_json(const struct api_source *src, const struct api_clock *clock, const struct client_row *c)
{
	struct client_json row = {
		.since = api_wall_s(clock, c->since_ns),
		.connected = c->counts[OUTCOME_CONNECTED],
		.refused = c->counts[OUTCOME_REFUSED],
		.silent = c->counts[OUTCOME_SILENT],
		.resteered = c->counts[OUTCOME_RESTEERED],
		.reset = c->counts[OUTCOME_RESET],
	};
	json_t *json;

	ipaddr_format(&c->addr, row.address);
	json = JSON_ROW(client_fields, &row);
	json_object_set_new(json, "last", c->n ? last_json(src, clock, &c->outcomes[0]) : json_null());
	return json;
}

/* The sums of both, and the later one's last outcome; `into` keeps its others. */
static void merge(struct client_row *into, const struct client_row *c)
{
	for (int i = 0; i < OUTCOME_CLASSES; i++)
		into->counts[i] += c->counts[i];
	if (c->since_ns < into->since_ns)
		into->since_ns = c->since_ns;
	if (c->n && (!into->n || c->outcomes[0].last_ns > into->outcomes[0].last_ns)) {
		into->outcomes[0] = c->outcomes[0];
		into->addr = c->addr;
	}
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

static void fill_page(const struct api_source *src, const struct api_clock *clock, struct api_cursor *at,
		      unsigned limit, json_t *rows)
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
			json_array_append_new(rows, client_json(src, clock, &row));
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
		fill_page(src, &clock, &at, query->limit, rows);
	} else {
		if (gather(src, 0, &query->address, &row, false))
			json_array_append_new(rows, client_json(src, &clock, &row));
		at.worker = dataplane_n_workers(src->dp);
	}
	api_cursor_format(&at, next);
	*doc = json_pack("{s:o,s:s?}", "clients", rows, "next", at.worker < dataplane_n_workers(src->dp) ? next : NULL);
	return 200;
}
