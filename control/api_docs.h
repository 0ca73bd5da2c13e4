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
struct ledger;
struct port_report;
struct view;
struct view_backend;

struct api_source {
	struct dataplane *dp;
	const char *version;
	uint64_t started_ns; /* monotonic */
};

/*
 * Makes one document: returns the HTTP status and passes it in `*doc` (the caller's), or, with another status than 200,
 * possibly leaves it NULL and a sentence in `err`. `view` is NULL before the first publish.
 */
typedef unsigned api_doc_fn(const struct api_source *src, const struct view *view, const struct api_query *query,
			    json_t **doc, char err[static API_QUERY_ERR]);

api_doc_fn api_doc_status, api_doc_ready, api_doc_services, api_doc_backends, api_doc_names, api_doc_ledger,
	api_doc_flows, api_doc_paths;

/* The Prometheus text, from malloc; NULL if out of memory. */
char *api_metrics(const struct api_source *src, const struct view *view, size_t *len);

/* --- shared between the documents and the metrics --- */

/* From malloc; NULL if there is none (*n is 0) or no memory. */
struct port_report *api_ports(const struct api_source *src, size_t *n);
/* The sum over the workers. */
void api_ledger_sum(const struct api_source *src, struct ledger *sum);
/* Flows of a backend that DNS or the configuration no longer names. */
uint64_t api_pinned(const struct view_backend *b, const struct backend_report *r);
