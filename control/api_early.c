/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_early.h"

#include "observe.h"
#include "shedding.h"
#include "view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROWS_SHOWN   16
#define SENTENCE_LEN 480

static bool is_early(const struct gate_counter *c)
{
	return strncmp(c->name, "gate_shed_", strlen("gate_shed_")) == 0;
}

json_t *api_early_counts(const struct view *view)
{
	json_t *counts = json_object();

	for (size_t i = 0; view && i < view->n_gates; i++)
		for (size_t c = 0; c < view->gates[i].n_counters; c++) {
			const struct gate_counter *counter = &view->gates[i].counters[c];
			json_int_t before = json_integer_value(json_object_get(counts, counter->name));

			if (is_early(counter))
				json_object_set_new(counts, counter->name,
						    json_integer(before + (json_int_t)counter->packets));
		}
	return counts;
}

void api_early_about(const struct view *view, json_t *about)
{
	for (size_t c = 0; view && view->n_gates && c < view->gates[0].n_counters; c++) {
		const struct gate_counter *counter = &view->gates[0].counters[c];

		if (is_early(counter))
			json_object_set_new(
				about, counter->name,
				json_pack("{s:s,s:s,s:s}", "class", "shed", "cause", "storm", "help", counter->help));
	}
}

uint64_t api_early_of_client(const struct api_source *src, const struct ipaddr *client)
{
	return shedding_packets_of_client(src->shedding, client);
}

uint64_t api_early_of_service(const struct view_service *s)
{
	return s->early.of_clients + s->early.of_all;
}

static void add(json_t *rows, const char *scope, const char *service, uint64_t count, json_t *first, json_t *last,
		const char *sentence)
{
	json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:I,s:o,s:o,s:s?,s:n,s:s}", "cure", "storm", "reason",
					      "shed_early", "scope", scope, "count", (json_int_t)count, "first", first,
					      "last", last, "service", service, "backend", "sentence", sentence));
}

/* "until 0.2 s from now", "until 12.1 s ago" */
static const char *say_until(uint64_t until_ns, uint64_t now_ns, char out[static 40])
{
	bool is_over = until_ns <= now_ns;

	snprintf(out, 40, "until %.1f s %s", (is_over ? now_ns - until_ns : until_ns - now_ns) / 1e9,
		 is_over ? "ago" : "from now");
	return out;
}

static void add_others(json_t *rows, size_t n, uint64_t packets)
{
	char sentence[SENTENCE_LEN];

	snprintf(sentence, sizeof(sentence), "%" PRIu64 " SYNs to %zu more listeners were discarded likewise", packets,
		 n);
	add(rows, "client", NULL, packets, json_null(), json_null(), sentence);
}

void api_early_explain_client(const struct api_source *src, const struct api_clock *clock, const struct ipaddr *client,
			      json_t *rows)
{
	struct shedding_row of[ROWS_SHOWN];
	size_t n = shedding_of_client(src->shedding, client, of, ROWS_SHOWN);
	uint64_t all = shedding_packets_of_client(src->shedding, client), shown = 0;

	for (size_t i = 0; i < n && i < ROWS_SHOWN; i++) {
		const struct shedding_row *r = &of[i];
		uint64_t last_ns = r->until_ns < clock->now_ns ? r->until_ns : clock->now_ns;
		char vip[IPADDR_PORT_STRLEN], until[40], owner[API_OWNER_LEN], sentence[SENTENCE_LEN];

		ipaddr_port_format(&r->vip, r->port_be, vip);
		snprintf(sentence, sizeof(sentence),
			 "%" PRIu64
			 " SYNs to %s were discarded by the XDP program, before any worker saw them: %s, for "
			 "workers had refused it in silence again and again; entered %u times, the last time %s",
			 r->packets, vip,
			 r->cap == STORM_CLIENT ? "the client insists beyond its cap (storm.client_rate)"
						: "the client insists beyond its prefix's cap (storm.prefix_rate)",
			 r->times, say_until(r->until_ns, clock->now_ns, until));
		add(rows, "client", api_service_owner(src, r->service.slot, last_ns, owner), r->packets,
		    json_real(api_wall_s(clock, r->first_ns)), json_real(api_wall_s(clock, last_ns)), sentence);
		shown += r->packets;
	}
	if (n > ROWS_SHOWN)
		add_others(rows, n - ROWS_SHOWN, all > shown ? all - shown : 0);
}

void api_early_explain_service(const struct api_source *src, const struct view_service *s, json_t *rows)
{
	const struct view_early *e = &s->early;
	uint64_t now_ns = observe_now_ns(src->dp);
	char now[160] = "", sentence[SENTENCE_LEN];

	if (!api_early_of_service(s) && !e->clients_since_ns && !e->all_since_ns)
		return;
	if (e->pass)
		snprintf(now, sizeof(now),
			 "; of %" PRIu64 " a second that come it lets %.1f%% through now, of whomever, as %" PRIu64
			 " are let in: for %.1f s",
			 e->offered, e->pass / 4294967296.0 * 100, e->admitted, (now_ns - e->all_since_ns) / 1e9);
	else if (e->clients_since_ns)
		snprintf(now, sizeof(now), "; clients insist for %.1f s", (now_ns - e->clients_since_ns) / 1e9);
	snprintf(sentence, sizeof(sentence),
		 "the XDP program discarded %" PRIu64 " SYNs of clients that insist beyond their caps, and %" PRIu64
		 " of everybody where nearly all were in vain; no worker saw them, and they are no attempts%s",
		 e->of_clients, e->of_all, now);
	add(rows, "total", s->name, api_early_of_service(s), json_null(), json_null(), sentence);
}
