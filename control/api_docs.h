/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the API answers: documents made from the published view and the workers' counters, read at the moment of asking.
 * Nothing here changes anything or waits for decide; a query for flows waits for a worker, for a bounded time.
 */
#pragma once

#include "api_query.h"

#include <jansson.h>
#include <stdint.h>

struct backend_report;
struct dataplane;
struct event_record;
struct events;
struct flow_row;
struct ledger;
struct owners;
struct port_report;
struct shedding;
struct view;
struct view_backend;
struct view_service;

struct api_source {
	struct dataplane *dp;
	const char *version;
	uint64_t started_ns; /* monotonic */
	struct events *events;
	struct owners *owners;
	const struct shedding *shedding; /* NULL: nothing is shed early */
};

/*
 * Makes one document: returns the HTTP status and passes it in `*doc` (the caller's), or, with another status than 200,
 * possibly leaves it NULL and a sentence in `err`. `view` is NULL before the first publish.
 */
typedef unsigned api_doc_fn(const struct api_source *src, const struct view *view, const struct api_query *query,
			    json_t **doc, char err[static API_QUERY_ERR]);

api_doc_fn api_doc_status, api_doc_ready, api_doc_services, api_doc_backends, api_doc_names, api_doc_ledger,
	api_doc_flows, api_doc_paths, api_doc_clients, api_doc_events, api_doc_explain;

enum metrics_format {
	METRICS_PROMETHEUS,  /* text format 0.0.4 */
	METRICS_OPENMETRICS, /* 1.0.0 */
};

/* What a scraper's Accept header asks for; NULL: it has none. */
enum metrics_format api_metrics_format(const char *accept);
const char *api_metrics_type(enum metrics_format format);
/* The text, from malloc; NULL if out of memory. */
char *api_metrics(const struct api_source *src, const struct view *view, enum metrics_format format, size_t *len);

/* --- shared between the documents and the metrics --- */

/* From malloc; NULL if there is none (*n is 0) or no memory. */
struct port_report *api_ports(const struct api_source *src, size_t *n);
/* The sum over the workers. */
void api_ledger_sum(const struct api_source *src, struct ledger *sum);
/* Flows of a backend that DNS or the configuration no longer names. */
uint64_t api_pinned(const struct view_backend *b, const struct backend_report *r);

/* Rows of /v1/services, /v1/backends, /v1/flows and /v1/events. */
json_t *api_service_json(const struct api_source *src, const struct view *view, const struct view_service *s);
json_t *api_backend_json(const struct api_source *src, const struct view_backend *b);
json_t *api_flow_json(const struct flow_row *f, const struct view *view);
json_t *api_event_json(const struct event_record *e);

/* Times leave as Unix seconds; the dataplane has a clock of its own. */
struct api_clock {
	uint64_t now_ns; /* the dataplane's */
	int64_t wall_ms;
};

struct api_clock api_clock_now(const struct api_source *src);
double api_wall_s(const struct api_clock *clock, uint64_t at_ns);

/* Who had a slot at a time of the dataplane's clock: text in `out`, or NULL: nobody, or nobody knows any more. */
#define API_OWNER_LEN 80
const char *api_service_owner(const struct api_source *src, uint32_t slot, uint64_t at_ns,
			      char out[static API_OWNER_LEN]);
const char *api_backend_owner(const struct api_source *src, uint32_t slot, uint64_t at_ns,
			      char out[static API_OWNER_LEN]);
