/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_docs.h"

#include "clock.h"
#include "json_row.h"
#include "observe.h"
#include "policy.h"
#include "view.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#define WORKER_TIMEOUT_MS 1000
/* A filter that matches little may scan a whole table for one page: then the page ends early, with a cursor. */
#define PAGE_TIME_NS      2000000000ull
#define QUEUE_TIME_S      5

/* Workers answer one query at a time anyway; one page at a time also bounds the memory that pages take. */
static pthread_mutex_t page_lock = PTHREAD_MUTEX_INITIALIZER;

struct flow_json {
	char client[IPADDR_PORT_STRLEN], vip[IPADDR_PORT_STRLEN], snat[IPADDR_PORT_STRLEN];
	char backend[IPADDR_PORT_STRLEN + 4]; /* the id of its row in /v1/backends */
	const char *proto, *state, *service;
	uint8_t worker;
	double age_s, idle_s, expires_s;
	uint64_t packets_up, packets_down, bytes_up, bytes_down;
};

static const struct json_field flow_fields[] = {
	JSON_FIELD(flow_json, proto),     JSON_FIELD(flow_json, client),     JSON_FIELD(flow_json, vip),
	JSON_FIELD(flow_json, snat),      JSON_FIELD(flow_json, backend),    JSON_FIELD(flow_json, service),
	JSON_FIELD(flow_json, state),     JSON_FIELD(flow_json, age_s),      JSON_FIELD(flow_json, idle_s),
	JSON_FIELD(flow_json, expires_s), JSON_FIELD(flow_json, packets_up), JSON_FIELD(flow_json, packets_down),
	JSON_FIELD(flow_json, bytes_up),  JSON_FIELD(flow_json, bytes_down), JSON_FIELD(flow_json, worker),
};

static const char *service_name(const struct view *view, uint32_t slot)
{
	for (size_t i = 0; view && i < view->n_services; i++)
		if (view->services[i].slot == slot)
			return view->services[i].name;
	return NULL;
}

json_t *api_flow_json(const struct flow_row *f, const struct view *view)
{
	struct flow_json row = {
		.proto = f->proto == PROTO_TCP ? "tcp" : "udp",
		.state = f->state,
		.service = service_name(view, f->service_slot),
		.worker = f->worker,
		.age_s = f->age_ms / 1e3,
		.idle_s = f->idle_ms / 1e3,
		.expires_s = f->expires_ms / 1e3,
		.packets_up = f->packets_up,
		.packets_down = f->packets_down,
		.bytes_up = f->bytes_up,
		.bytes_down = f->bytes_down,
	};
	char backend[IPADDR_PORT_STRLEN];

	ipaddr_port_format(&f->client, f->client_port_be, row.client);
	ipaddr_port_format(&f->vip, f->vip_port_be, row.vip);
	ipaddr_port_format(&f->snat, f->snat_port_be, row.snat);
	snprintf(row.backend, sizeof(row.backend), "%s:%s", row.proto,
		 ipaddr_port_format(&f->backend, f->backend_port_be, backend));
	return JSON_ROW(flow_fields, &row);
}

static uint32_t service_slot(const struct view *view, const char *name)
{
	for (size_t i = 0; view && i < view->n_services; i++)
		if (strcmp(view->services[i].name, name) == 0)
			return view->services[i].slot;
	return SLOT_NONE;
}

static uint32_t backend_slot(const struct view *view, const char *id)
{
	for (size_t i = 0; view && i < view->n_backends; i++)
		if (strcmp(view->backends[i].id, id) == 0)
			return view->backends[i].slot;
	return SLOT_NONE;
}

static int make_filter(const struct view *view, const struct api_query *q, struct flow_filter *filter,
		       char err[static API_QUERY_ERR])
{
	*filter = (struct flow_filter){
		.by_addr = q->given & PARAM_ADDRESS,
		.addr = q->address,
		.by_port = q->given & PARAM_PORT,
		.port_be = q->port_be,
		.service_slot = SLOT_NONE,
		.backend_slot = SLOT_NONE,
	};
	if (q->given & PARAM_SERVICE) {
		filter->service_slot = service_slot(view, q->service);
		if (filter->service_slot == SLOT_NONE) {
			snprintf(err, API_QUERY_ERR, "no service '%s'", q->service);
			return -EINVAL;
		}
	}
	if (q->given & PARAM_BACKEND) {
		filter->backend_slot = backend_slot(view, q->backend);
		if (filter->backend_slot == SLOT_NONE) {
			snprintf(err, API_QUERY_ERR, "no backend '%s'", q->backend);
			return -EINVAL;
		}
	}
	return 0;
}

struct page {
	const struct view *view;
	struct flow_filter filter;
	struct api_cursor cursor; /* where the next page begins; worker = number of workers: nowhere */
	unsigned limit;
	json_t *rows;
};

/* One query to one worker. What does not fit the page stays: `skip` counts what was taken of this batch. */
static int page_batch(const struct api_source *src, struct page *page)
{
	struct flow_row rows[FLOW_QUERY_ROWS];
	uint64_t position = page->cursor.position;
	int n = observe_flows(src->dp, page->cursor.worker, &page->filter, &position, rows, WORKER_TIMEOUT_MS);

	if (n < 0)
		return n;
	for (int i = (int)page->cursor.skip; i < n; i++) {
		if (json_array_size(page->rows) == page->limit) {
			page->cursor.skip = (unsigned)i;
			return 0;
		}
		json_array_append_new(page->rows, api_flow_json(&rows[i], page->view));
	}
	page->cursor.skip = 0;
	page->cursor.position = position;
	if (position == UINT64_MAX)
		page->cursor = (struct api_cursor){.worker = page->cursor.worker + 1};
	return 0;
}

static int page_fill(const struct api_source *src, struct page *page)
{
	uint64_t end_ns = clock_monotonic_ns() + PAGE_TIME_NS;
	unsigned n_workers = dataplane_n_workers(src->dp);

	do {
		int err = page->cursor.worker < n_workers ? page_batch(src, page) : 0;

		if (err < 0)
			return err;
	} while (page->cursor.worker < n_workers && json_array_size(page->rows) < page->limit &&
		 clock_monotonic_ns() < end_ns);
	return 0;
}

static json_t *page_json(const struct api_source *src, struct page *page)
{
	char next[API_CURSOR_STRLEN];

	api_cursor_format(&page->cursor, next);
	return json_pack("{s:o,s:s?}", "flows", page->rows, "next",
			 page->cursor.worker < dataplane_n_workers(src->dp) ? next : NULL);
}

unsigned api_doc_flows(const struct api_source *src, const struct view *view, const struct api_query *query,
		       json_t **doc, char err[static API_QUERY_ERR])
{
	struct page page = {.view = view, .cursor = query->cursor, .limit = query->limit};
	struct timespec until;
	int error;

	if (make_filter(view, query, &page.filter, err) < 0)
		return 400;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += QUEUE_TIME_S;
	if (pthread_mutex_timedlock(&page_lock, &until) != 0) {
		snprintf(err, API_QUERY_ERR, "other queries for flows are under way: try again");
		return 503;
	}
	page.rows = json_array();
	error = page_fill(src, &page);
	pthread_mutex_unlock(&page_lock);
	if (error < 0) {
		json_decref(page.rows);
		snprintf(err, API_QUERY_ERR, "worker %u did not answer: %s", page.cursor.worker, strerror(-error));
		return error == -ETIMEDOUT ? 504 : 500;
	}
	*doc = page_json(src, &page);
	return 200;
}
