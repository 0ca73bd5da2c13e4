/* SPDX-License-Identifier: BSD-3-Clause */
#include "explain_findings.h"
#include "explain_slots.h"

#include "json_row.h"
#include "observe.h"
#include "policy.h"
#include "storm_words.h"
#include "view.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- gathering --- */

static bool same_kind(const struct finding *a, const struct finding *b)
{
	return a->scope == b->scope && a->reason == b->reason && a->service_slot == b->service_slot &&
	       (a->backend_slot == b->backend_slot || outcome_is_common(a->reason));
}

static void add(struct findings *out, const struct finding *f)
{
	for (size_t i = 0; i < out->n; i++) {
		struct finding *there = &out->of[i];

		if (!same_kind(there, f))
			continue;
		there->count += f->count;
		if (f->first_ns < there->first_ns)
			there->first_ns = f->first_ns;
		if (f->last_ns > there->last_ns) {
			there->last_ns = f->last_ns;
			there->backend_slot = f->backend_slot;
		}
		return;
	}
	if (out->n < FINDINGS_MAX)
		out->of[out->n++] = *f;
	else
		out->cut = true;
}

static void add_record(struct client_sum *client, const struct client_row *row, struct findings *out)
{
	struct client_row *sum = &client->row;

	if (!client->known)
		*sum = (struct client_row){.addr = row->addr, .since_ns = row->since_ns};
	client->known = true;
	if (row->since_ns < sum->since_ns)
		sum->since_ns = row->since_ns;
	for (int c = 0; c < OUTCOME_CLASSES; c++)
		sum->counts[c] += row->counts[c];
	for (unsigned i = 0; i < row->n; i++) {
		const struct outcome_row *o = &row->outcomes[i];

		add(out, &(struct finding){SCOPE_CLIENT, o->reason, o->service_slot, o->backend_slot, o->count,
					   o->first_ns, o->last_ns});
	}
}

void findings_of_client(const struct api_source *src, const struct ipaddr *addr, struct client_sum *client,
			struct findings *out)
{
	*client = (struct client_sum){0};
	for (unsigned w = 0; w < dataplane_n_workers(src->dp); w++) {
		struct outcome_blind blind;
		struct client_row row;

		if (observe_client(src->dp, w, addr, &row, &blind))
			add_record(client, &row, out);
		if (!blind.to_ns)
			continue;
		if (!client->blind.to_ns || blind.from_ns < client->blind.from_ns)
			client->blind.from_ns = blind.from_ns;
		if (blind.to_ns > client->blind.to_ns)
			client->blind.to_ns = blind.to_ns;
	}
}

/* --- seconds --- */

struct second_search {
	const struct ipaddr *prefix; /* NULL: any */
	const uint32_t *services;
	size_t n_services;
	struct seconds_sum *sum;
	struct findings *out;
	/* Rows to be added up by prefix. */
	struct prefix_sum *rows;
	size_t n_rows, max_rows;
};

static bool is_searched(const struct second_search *s, const struct second_row *row)
{
	if (s->prefix)
		return ipaddr_equal(s->prefix, &row->prefix);
	for (size_t i = 0; i < s->n_services; i++)
		if (s->services[i] == row->service_slot)
			return true;
	return false;
}

static void keep_row(struct second_search *s, const struct second_row *row)
{
	if (s->n_rows == s->max_rows) {
		size_t max = s->max_rows ? 2 * s->max_rows : 1024;
		struct prefix_sum *more = realloc(s->rows, max * sizeof(*more));

		if (!more)
			return;
		s->rows = more;
		s->max_rows = max;
	}
	s->rows[s->n_rows++] = (struct prefix_sum){row->prefix, row->count};
}

static int by_prefix(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ipaddr));
}

static int by_count(const void *a, const void *b)
{
	const struct prefix_sum *x = a, *y = b;

	return (x->count < y->count) - (x->count > y->count);
}

static_assert(offsetof(struct prefix_sum, prefix) == 0, "by_prefix() compares it");

static void find_top(struct second_search *s)
{
	size_t n = 0;

	if (s->n_rows)
		qsort(s->rows, s->n_rows, sizeof(*s->rows), by_prefix);
	for (size_t i = 0; i < s->n_rows; i++) {
		if (n && ipaddr_equal(&s->rows[n - 1].prefix, &s->rows[i].prefix))
			s->rows[n - 1].count += s->rows[i].count;
		else
			s->rows[n++] = s->rows[i];
	}
	if (n)
		qsort(s->rows, n, sizeof(*s->rows), by_count);
	for (size_t i = 0; i < n && i < PREFIXES_TOP; i++)
		s->sum->top[s->sum->n_top++] = s->rows[i];
	free(s->rows);
}

static void take_second(void *arg, const struct second_row *row)
{
	struct second_search *s = arg;

	if (row->unnamed)
		s->sum->unnamed += row->count;
	if (row->unnamed || outcome_class(row->reason) == OUTCOME_CONNECTED || !is_searched(s, row))
		return;
	add(s->out, &(struct finding){s->prefix ? SCOPE_PREFIX : SCOPE_SERVICE, row->reason, row->service_slot,
				      SLOT_NONE, row->count, row->at_ns, row->at_ns});
	if (!s->prefix)
		keep_row(s, row);
}

void findings_of_seconds(const struct api_source *src, const struct ipaddr *addr, const uint32_t *services, size_t n,
			 struct seconds_sum *sum, struct findings *out)
{
	struct second_search s = {.services = services, .n_services = n, .sum = sum, .out = out};
	struct ipaddr prefix;
	unsigned len;

	if (addr) {
		prefix = outcome_prefix(addr, &len);
		s.prefix = &prefix;
	}
	*sum = (struct seconds_sum){0};
	for (unsigned w = 0; w < dataplane_n_workers(src->dp); w++)
		observe_seconds(src->dp, w, take_second, &s);
	find_top(&s);
}

/* --- showing --- */

static int by_last(const void *a, const void *b)
{
	const struct finding *x = a, *y = b;

	return (x->last_ns < y->last_ns) - (x->last_ns > y->last_ns);
}

void findings_sort(struct findings *f)
{
	qsort(f->of, f->n, sizeof(*f->of), by_last);
}

#define OPEN_SHOWN 3 /* breakers of a service that are open */
#define NOW_LEN    (OPEN_SHOWN * (EXPLAIN_BREAKER_LEN + API_OWNER_LEN + 16) + 64)

struct finding_row {
	const char *cure, *reason, *scope;
	uint64_t count;
	double first, last;
	const char *service, *backend;
	char sentence[NOW_LEN + 320];
};

static const struct json_field finding_fields[] = {
	JSON_FIELD(finding_row, cure),    JSON_FIELD(finding_row, reason),  JSON_FIELD(finding_row, scope),
	JSON_FIELD(finding_row, count),   JSON_FIELD(finding_row, first),   JSON_FIELD(finding_row, last),
	JSON_FIELD(finding_row, service), JSON_FIELD(finding_row, backend), JSON_FIELD(finding_row, sentence),
};

static const struct view_service *service_now(const struct view *view, const char *name)
{
	for (size_t i = 0; view && name && i < view->n_services; i++)
		if (strcmp(view->services[i].name, name) == 0)
			return &view->services[i];
	return NULL;
}

static const struct view_backend *backend_now(const struct view *view, const char *id)
{
	for (size_t i = 0; view && id && i < view->n_backends; i++)
		if (strcmp(view->backends[i].id, id) == 0)
			return &view->backends[i];
	return NULL;
}

static void say_backend(const struct api_source *src, const struct view_backend *backend, char *out, size_t size)
{
	char breaker[EXPLAIN_BREAKER_LEN];

	explain_breaker(src, backend, breaker, sizeof(breaker));
	snprintf(out, size, "; %s now: %s", backend->id, breaker);
}

/* It was refused because all are open: those that are so still. */
static void say_open(const struct api_source *src, const struct view *view, const struct view_service *svc, char *out,
		     size_t size)
{
	size_t len = 0;
	unsigned n = 0;

	for (size_t i = 0; i < svc->n_backends; i++) {
		const struct view_backend *b = &view->backends[svc->backends[i]];

		if (!explain_is_open(src, b) || n++ >= OPEN_SHOWN)
			continue;
		say_backend(src, b, out + len, size - len);
		len = strlen(out);
	}
	if (n > OPEN_SHOWN)
		snprintf(out + len, size - len, "; and %u more are", n - OPEN_SHOWN);
	else if (!n)
		snprintf(out, size, "; no breaker of %s is open now", svc->name);
}

/* "; it is let in when it is its turn: …" */
static void say_lets_in(const struct view *view, const struct view_service *svc, const struct finding *f, char *out,
			size_t size)
{
	struct storm_outcome o;
	char words[STORM_WORDS_LEN];

	if (!storm_outcome_read(f->reason, &o))
		return;
	storm_say_lets_in(view, svc, o.test, &f->about, words, sizeof(words));
	snprintf(out, size, "; such a one is let in %s", words);
}

/* "; shop now: no IPv4 backend", "; tcp:198.18.3.21:8080 now: breaker open: …", or nothing. */
static void say_now(const struct api_source *src, const struct view *view, const struct finding *f,
		    const struct outcome_info *info, const struct finding_row *row, char *out, size_t size)
{
	const struct view_service *svc = service_now(view, row->service);
	const struct view_backend *backend = backend_now(view, row->backend);

	*out = '\0';
	if (info->cause == CAUSE_NAMES && svc)
		snprintf(out, size, "; %s now: %s", svc->name, *svc->down_reason ? svc->down_reason : "serves");
	else if (info->cause == CAUSE_WALL && backend)
		say_backend(src, backend, out, size);
	else if (info->cause == CAUSE_WALL && svc && !row->backend)
		say_open(src, view, svc, out, size);
	else if (info->cause == CAUSE_STORM && svc)
		say_lets_in(view, svc, f, out, size);
}

/* "3 times to its network within two minutes: SYN to a service …; shop now: no IPv4 backend" */
static void say(const struct api_source *src, const struct view *view, const struct finding *f,
		const struct outcome_info *info, struct finding_row *row)
{
	static const char *const whose[] = {
		[SCOPE_CLIENT] = "",
		[SCOPE_PREFIX] = " to its network within two minutes",
		[SCOPE_SERVICE] = " to anyone within two minutes",
	};
	char times[32] = "once", now[NOW_LEN];

	if (f->count != 1)
		snprintf(times, sizeof(times), "%llu times", (unsigned long long)f->count);
	say_now(src, view, f, info, row, now, sizeof(now));
	snprintf(row->sentence, sizeof(row->sentence), "%s%s: %s%s%s", times, whose[f->scope],
		 info->shadow ? "in shadow, so not done: " : "", info->help, now);
}

json_t *finding_json(const struct api_source *src, const struct view *view, const struct api_clock *clock,
		     const struct finding *f)
{
	static const char *const scopes[] = {
		[SCOPE_CLIENT] = "client", [SCOPE_PREFIX] = "prefix", [SCOPE_SERVICE] = "service"};
	struct outcome_info info = outcome_info(f->reason);
	char service[API_OWNER_LEN], backend[API_OWNER_LEN];
	struct finding_row row = {
		.cure = cause_name(info.cause),
		.reason = info.name,
		.scope = scopes[f->scope],
		.count = f->count,
		.first = api_wall_s(clock, f->first_ns),
		.last = api_wall_s(clock, f->last_ns),
		.service = api_service_owner(src, f->service_slot, f->last_ns, service),
		.backend = api_backend_owner(src, f->backend_slot, f->last_ns, backend),
	};

	say(src, view, f, &info, &row);
	return JSON_ROW(finding_fields, &row);
}
