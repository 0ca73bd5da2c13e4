/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Prometheus' text format, version 0.0.4, or OpenMetrics 1.0.0, as the scraper asks. The number of series is bounded by
 * the configuration: no label comes from a client's packet.
 */
#include "api_docs.h"
#include "api_early.h"
#include "observe.h"
#include "outcome.h"
#include "shedding.h"
#include "tables.h"
#include "view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A label value: backslash, quote and newline are escaped. */
static void put_label(FILE *out, const char *name, const char *value)
{
	fprintf(out, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			fputc('\\', out);
		fputs(*value == '\n' ? "\\n" : (char[]){*value, '\0'}, out);
	}
	fputc('"', out);
}

static void put_family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_single(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	put_family(out, name, type, help);
	fprintf(out, "%s %llu\n", name, (unsigned long long)value);
}

/* A family per verdict, so that each carries its own help; the labels let a query add them up by class or cause. */
static void put_verdicts(FILE *out, const struct ledger *sum)
{
	for (int v = 0; v < VERDICT_COUNT; v++) {
		const struct verdict_info *info = &verdict_info[v];
		char name[96];

		snprintf(name, sizeof(name), "spillway_verdict_%s_packets_total", info->name);
		put_family(out, name, "counter", info->help);
		fprintf(out, "%s{class=\"%s\",cause=\"%s\"} %llu\n", name, verdict_class_name(info->class),
			cause_name(info->cause), (unsigned long long)sum->verdicts[v]);
	}
}

static void put_ledger(FILE *out, const struct ledger *sum)
{
	put_single(out, "spillway_rx_packets_total", "counter", "packets taken in from ports", sum->rx);
	put_single(out, "spillway_taken_over_packets_total", "counter", "packets taken over from other workers",
		   sum->taken_over);
	put_single(out, "spillway_tx_packets_total", "counter", "packets that left through ports", sum->tx);
	put_single(out, "spillway_tx_failed_packets_total", "counter", "packets that a device did not take",
		   sum->tx_failed);
	put_single(out, "spillway_inside_packets", "gauge", "packets held by workers now", sum->inside);
	put_family(out, "spillway_ledger_balance_packets", "gauge", "packets that went missing unnamed: must be 0");
	fprintf(out, "spillway_ledger_balance_packets %lld\n", (long long)ledger_balance(sum));
	put_family(out, "spillway_made_packets_total", "counter", "packets that the gateway made itself, by kind");
	for (int i = 0; i < MADE_COUNT; i++)
		fprintf(out, "spillway_made_packets_total{kind=\"%s\"} %llu\n", made_name[i],
			(unsigned long long)sum->made[i]);
}

static void put_actions(FILE *out, const struct ledger *sum)
{
	put_family(out, "spillway_actions_total", "counter",
		   "what cures did (mode enforce), and would have done (mode shadow)");
	for (int i = 0; i < ACTION_COUNT; i++) {
		const struct action_info *a = &action_info[i];

		fprintf(out, "spillway_actions_total{cure=\"%s\",action=\"%s\",mode=\"enforce\"} %llu\n",
			cure_name[a->cure], a->name, (unsigned long long)sum->did[i]);
		fprintf(out, "spillway_actions_total{cure=\"%s\",action=\"%s\",mode=\"shadow\"} %llu\n",
			cure_name[a->cure], a->name, (unsigned long long)sum->would[i]);
	}
}

static void put_paths(FILE *out, const struct api_source *src, const struct ledger *sum)
{
	static const char *const kind_name[PATH_KINDS] = {
		[PATH_CLIENT] = "client", [PATH_PREFIX] = "client_prefix", [PATH_UPSTREAM] = "upstream"};
	struct path_report r;

	observe_path(src->dp, &r);
	put_family(out, "spillway_learned_path_mtus", "gauge", "path MTUs that were learned, now");
	for (int k = 0; k < PATH_KINDS; k++)
		fprintf(out, "spillway_learned_path_mtus{of=\"%s\"} %llu\n", kind_name[k],
			(unsigned long long)r.learned[k]);
	put_single(out, "spillway_learned_path_mtus_evicted_total", "counter",
		   "learned path MTUs that made room for others", r.evicted);
	put_family(out, "spillway_ptb_received_total", "counter",
		   "ICMP errors \"packet too big\" from outside, by what they came to");
	for (int i = 0; i < PTB_COUNT; i++)
		fprintf(out, "spillway_ptb_received_total{result=\"%s\"} %llu\n", ptb_name[i],
			(unsigned long long)sum->ptb[i]);
	put_single(out, "spillway_mss_malformed_total", "counter",
		   "SYNs and SYN-ACKs whose options cannot be read: they passed as they came", sum->mss_malformed);
}

struct metric {
	const char *name, *type, *help;
	size_t offset; /* of a uint64_t in the report */
};

static uint64_t metric_value(const struct metric *m, const void *report)
{
	return *(const uint64_t *)((const char *)report + m->offset);
}

struct backend_sample {
	struct backend_report report;
	uint64_t pinned;
};

static const struct metric backend_metrics[] = {
	{"spillway_backend_flows", "gauge", "flows to the backend now", offsetof(struct backend_sample, report.flows)},
	{"spillway_backend_new_flows_total", "counter", "flows begun",
	 offsetof(struct backend_sample, report.new_flows)},
	{"spillway_backend_connects_total", "counter", "handshakes done (TCP) or first replies (UDP)",
	 offsetof(struct backend_sample, report.connects)},
	{"spillway_backend_failures_total", "counter", "attempts that the backend refused or never answered",
	 offsetof(struct backend_sample, report.failures)},
	{"spillway_backend_resteered_total", "counter",
	 "SYNs that it did not answer, or refused, and that another one got",
	 offsetof(struct backend_sample, report.resteered)},
	{"spillway_backend_overloads_total", "counter", "SYNs that it did not answer although it was heard meanwhile",
	 offsetof(struct backend_sample, report.overloads)},
	{"spillway_backend_unfinished_total", "counter", "handshakes that it answered and the client never completed",
	 offsetof(struct backend_sample, report.unfinished)},
	{"spillway_backend_probes_total", "counter",
	 "SYNs of the gateway's own that it was sent: while it is open, and to check it",
	 offsetof(struct backend_sample, report.probes)},
	{"spillway_backend_breaker_state", "gauge", "0 closed, 1 open, 2 half open, 3 ramp",
	 offsetof(struct backend_sample, report.breaker)},
	{"spillway_backend_silent_clients_total", "counter", "connections ended because their client was silent",
	 offsetof(struct backend_sample, report.silent_clients)},
	{"spillway_backend_silent_backends_total", "counter", "connections ended because the backend was silent",
	 offsetof(struct backend_sample, report.silent_backends)},
	{"spillway_backend_pinned_flows", "gauge", "flows to the backend although it is no longer named",
	 offsetof(struct backend_sample, pinned)},
};

static double limiter_limiting(const struct view_backend *b)
{
	return b->limiter.limiting;
}

static double limiter_limit(const struct view_backend *b)
{
	return b->limiter.limiting ? b->limiter.limit : 0;
}

static double limiter_hard_max(const struct view_backend *b)
{
	return b->hard_max;
}

static double limiter_wip(const struct view_backend *b)
{
	return b->limiter.wip;
}

static double limiter_base(const struct view_backend *b)
{
	return b->limiter.usual_ns / 1e9;
}

static double limiter_first_byte(const struct view_backend *b)
{
	return b->limiter.first_byte_ns / 1e9;
}

static double limiter_rate(const struct view_backend *b)
{
	return b->limiter.rate;
}

/* What decide knows of a backend, in the unit that the metric is of. */
static const struct limiter_metric {
	const char *name, *help;
	double (*value)(const struct view_backend *b);
} limiter_metrics[] = {
	{"limiting", "1 if the backend is congested, and limited", limiter_limiting},
	{"limit", "work that it may have at a time, congested as it is; 0: it is not limited", limiter_limit},
	{"hard_max", "the same by storm.hard_max, congested or not; 0: none", limiter_hard_max},
	{"wip", "work that it had at decide's last look", limiter_wip},
	{"base_seconds", "how long first bytes take when nothing is wrong; 0: not known yet", limiter_base},
	{"first_byte_seconds", "how long they took of late, those that never came included", limiter_first_byte},
	{"answers_per_second", "answers in the best second of the last ten", limiter_rate},
};

static void put_limiters(FILE *out, const struct view *view)
{
	for (size_t m = 0; m < sizeof(limiter_metrics) / sizeof(limiter_metrics[0]); m++) {
		const struct limiter_metric *metric = &limiter_metrics[m];
		char name[64];

		snprintf(name, sizeof(name), "spillway_backend_limiter_%s", metric->name);
		put_family(out, name, "gauge", metric->help);
		for (size_t i = 0; view && i < view->n_backends; i++) {
			fprintf(out, "%s{", name);
			put_label(out, "backend", view->backends[i].id);
			fprintf(out, "} %.9g\n", metric->value(&view->backends[i]));
		}
	}
}

static void put_backends(FILE *out, const struct api_source *src, const struct view *view)
{
	for (size_t m = 0; m < sizeof(backend_metrics) / sizeof(backend_metrics[0]); m++) {
		const struct metric *metric = &backend_metrics[m];

		put_family(out, metric->name, metric->type, metric->help);
		for (size_t i = 0; view && i < view->n_backends; i++) {
			struct backend_sample sample;

			observe_backend(src->dp, view->backends[i].slot, &sample.report);
			sample.pinned = api_pinned(&view->backends[i], &sample.report);
			fprintf(out, "%s{", metric->name);
			put_label(out, "backend", view->backends[i].id);
			fprintf(out, "} %llu\n", (unsigned long long)metric_value(metric, &sample));
		}
	}
}

#define SIGNAL_METRIC(name, type, member, help)                                                                        \
	{                                                                                                              \
		"spillway_backend_" name, type, help, offsetof(struct signal_report, member)                           \
	}

static const struct metric signal_metrics[] = {
	SIGNAL_METRIC("work", "gauge", wip, "work under way: unanswered SYNs, open exchanges and zombies"),
	SIGNAL_METRIC("waiting", "gauge", waiting, "of that, SYNs that were not answered yet"),
	SIGNAL_METRIC("exchanges_open", "gauge", open, "of that, clients that wait for the first byte of a response"),
	SIGNAL_METRIC("zombies", "gauge", zombies, "of that, exchanges whose client has left"),
	SIGNAL_METRIC("one_way_flows", "gauge", one_way, "exchanges open for longer than 30 s: uploads and logs"),
	SIGNAL_METRIC("exchanges_total", "counter", exchanges, "requests seen: payload of a client after a response"),
	SIGNAL_METRIC("answered_total", "counter", answered, "responses that began"),
	SIGNAL_METRIC("gave_up_total", "counter", gave_up, "clients that left before the first byte, after long"),
	SIGNAL_METRIC("success_total", "counter", success, "flows to which the backend sent a byte"),
	SIGNAL_METRIC("failed_total", "counter", failed, "flows that it refused, never answered, or reset first"),
	SIGNAL_METRIC("neutral_total", "counter", neutral, "flows that ended without either"),
	SIGNAL_METRIC("resets_before_total", "counter", resets_before, "RSTs before the first byte of a response"),
	SIGNAL_METRIC("resets_after_total", "counter", resets_after, "RSTs after the first byte of a response"),
	SIGNAL_METRIC("stalls_total", "counter", stalls, "flows whose client sent again and again, and no word came"),
	SIGNAL_METRIC("shut_total", "counter", shut, "flows whose client it took nothing from for five seconds"),
	SIGNAL_METRIC("retransmissions_up_total", "counter", retransmissions_up, "payload that clients sent again"),
	SIGNAL_METRIC("retransmissions_down_total", "counter", retransmissions_down, "payload that it sent again"),
	SIGNAL_METRIC("unmeasured_flows_total", "counter", unrecorded, "flows not measured, for want of room"),
};

static void put_signals(FILE *out, const struct api_source *src, const struct view *view)
{
	for (size_t m = 0; m < sizeof(signal_metrics) / sizeof(signal_metrics[0]); m++) {
		const struct metric *metric = &signal_metrics[m];

		put_family(out, metric->name, metric->type, metric->help);
		for (size_t i = 0; view && i < view->n_backends; i++) {
			struct signal_report r;

			observe_signals(src->dp, view->backends[i].slot, &r);
			fprintf(out, "%s{", metric->name);
			put_label(out, "backend", view->backends[i].id);
			fprintf(out, "} %llu\n", (unsigned long long)metric_value(metric, &r));
		}
	}
}

#define FIRST_OCTAVE 6 /* below 128 us nobody looks closer */

static void put_buckets(FILE *out, const char *name, const char *backend, const struct histogram_sum *sum)
{
	uint64_t below = 0;

	for (unsigned octave = 0; octave < HISTOGRAM_OCTAVES; octave++) {
		below += sum->octaves[octave];
		if (octave < FIRST_OCTAVE || octave == HISTOGRAM_OCTAVES - 1)
			continue;
		fprintf(out, "%s_bucket{", name);
		put_label(out, "backend", backend);
		fprintf(out, ",le=\"%.6f\"} %llu\n", (UINT32_C(2) << octave) / 1e6, (unsigned long long)below);
	}
	fprintf(out, "%s_bucket{", name);
	put_label(out, "backend", backend);
	fprintf(out, ",le=\"+Inf\"} %llu\n%s_sum{", (unsigned long long)sum->n, name);
	put_label(out, "backend", backend);
	fprintf(out, "} %.6f\n%s_count{", sum->sum_us / 1e6, name);
	put_label(out, "backend", backend);
	fprintf(out, "} %llu\n", (unsigned long long)sum->n);
}

static void put_durations(FILE *out, const struct api_source *src, const struct view *view, enum signal_duration which,
			  const char *name, const char *help)
{
	put_family(out, name, "histogram", help);
	for (size_t i = 0; view && i < view->n_backends; i++) {
		struct histogram_sum sum;

		observe_durations(src->dp, view->backends[i].slot, which, &sum);
		put_buckets(out, name, view->backends[i].id, &sum);
	}
}

#define SERVICE_METRIC(name, type, member, help)                                                                       \
	{                                                                                                              \
		"spillway_service_" name, type, help, offsetof(struct service_sample, report.member)                   \
	}

struct service_sample {
	struct service_report report;
	uint64_t shed_early;
};

static const struct metric service_metrics[] = {
	SERVICE_METRIC("flows", "gauge", flows, "flows of the service now"),
	SERVICE_METRIC("attempts_total", "counter", attempts,
		       "first packets of new flows: the sum of new_flows, refused, silent and holding"),
	SERVICE_METRIC("new_flows_total", "counter", new_flows, "flows begun"),
	SERVICE_METRIC("refused_total", "counter", refused, "new flows refused, and their clients told"),
	SERVICE_METRIC("silent_total", "counter", silent, "new flows refused in silence"),
	SERVICE_METRIC("refused_storm_total", "counter", refused_storm, "of both, those beyond a cap"),
	SERVICE_METRIC("retries_total", "counter", retries, "of new_flows, those that were told to be retries"),
	SERVICE_METRIC("held_total", "counter", held, "new connections held until their turn"),
	SERVICE_METRIC("held_admitted_total", "counter", held_admitted, "of those, the ones whose turn came"),
	SERVICE_METRIC("holding", "gauge", holding, "new connections held now"),
	SERVICE_METRIC("would_hold_total", "counter", would_hold, "in shadow: would have been held"),
	SERVICE_METRIC("would_refuse_total", "counter", would_refuse, "in shadow: would have been refused with RST"),
	SERVICE_METRIC("would_silence_total", "counter", would_silence, "in shadow: would have gone unanswered"),
	{"spillway_service_shed_early_total", "counter",
	 "SYNs that the XDP program discarded before any worker saw them: no attempts",
	 offsetof(struct service_sample, shed_early)},
};

static void put_services(FILE *out, const struct api_source *src, const struct view *view)
{
	for (size_t m = 0; m < sizeof(service_metrics) / sizeof(service_metrics[0]); m++) {
		const struct metric *metric = &service_metrics[m];

		put_family(out, metric->name, metric->type, metric->help);
		for (size_t i = 0; view && i < view->n_services; i++) {
			struct service_sample sample = {.shed_early = api_early_of_service(&view->services[i])};

			observe_service(src->dp, view->services[i].slot, &sample.report);
			fprintf(out, "%s{", metric->name);
			put_label(out, "service", view->services[i].name);
			fprintf(out, "} %llu\n", (unsigned long long)metric_value(metric, &sample));
		}
	}
}

/* Added up over the names: a label for each would be one from DNS, and there may be thousands. */
static void put_names(FILE *out, const struct view *view)
{
	static const char *const states[] = {"init", "fresh", "stale", "doubt", "gone", "expired"};
	uint64_t changes = 0, would_changes = 0, refused = 0;

	put_family(out, "spillway_names", "gauge", "DNS names by state, IPv4 and IPv6 apart");
	for (size_t state = 0; state < sizeof(states) / sizeof(states[0]); state++) {
		unsigned n = 0;

		for (size_t i = 0; view && i < view->n_names; i++)
			n += strcmp(view->names[i].state, states[state]) == 0;
		fprintf(out, "spillway_names{state=\"%s\"} %u\n", states[state], n);
	}
	for (size_t i = 0; view && i < view->n_names; i++) {
		changes += view->names[i].changes;
		would_changes += view->names[i].would_changes;
		refused += view->names[i].refused;
	}
	put_family(out, "spillway_name_changes", "gauge",
		   "changes of the sets of the names that are watched: followed, or in shadow not followed");
	fprintf(out, "spillway_name_changes{mode=\"enforce\"} %llu\n", (unsigned long long)changes);
	fprintf(out, "spillway_name_changes{mode=\"shadow\"} %llu\n", (unsigned long long)would_changes);
	put_single(out, "spillway_name_refused_addresses", "gauge",
		   "addresses in answers that no backend can have, of the names that are watched", refused);
}

static void put_lost(FILE *out, const struct port_report *port, const char *reason, uint64_t packets)
{
	fputs("spillway_port_lost_packets_total{", out);
	put_label(out, "port", port->name);
	fprintf(out, ",queue=\"%u\",reason=\"%s\"} %llu\n", port->queue, reason, (unsigned long long)packets);
}

static void put_ports(FILE *out, const struct api_source *src)
{
	size_t n;
	struct port_report *ports = api_ports(src, &n);

	put_family(out, "spillway_port_lost_packets_total", "counter", "packets that the device lost, by reason");
	for (size_t i = 0; i < n; i++) {
		put_lost(out, &ports[i], "known_ring", ports[i].lost_known_ring);
		put_lost(out, &ports[i], "new_ring", ports[i].lost_new_ring);
		put_lost(out, &ports[i], "no_buffer", ports[i].lost_no_buffer);
		put_lost(out, &ports[i], "invalid", ports[i].lost_invalid);
		put_lost(out, &ports[i], "tx_full", ports[i].tx_full);
	}
	free(ports);
}

/* A family per exit of the program; all gates have the same. */
static void put_gates(FILE *out, const struct view *view)
{
	size_t n = view && view->n_gates ? view->gates[0].n_counters : 0;

	for (size_t c = 0; c < n; c++) {
		char name[96];

		snprintf(name, sizeof(name), "spillway_%s_packets_total", view->gates[0].counters[c].name);
		put_family(out, name, "counter", view->gates[0].counters[c].help);
		for (size_t i = 0; i < view->n_gates; i++) {
			fprintf(out, "%s{", name);
			put_label(out, "port", view->gates[i].port);
			fprintf(out, "} %llu\n", (unsigned long long)view->gates[i].counters[c].packets);
		}
	}
}

static void put_shedding(FILE *out, const struct api_source *src)
{
	struct shedding_report r;

	shedding_report(src->shedding, &r);
	put_single(out, "spillway_early_clients", "gauge",
		   "clients whose SYNs the XDP program discards now, for a second at most", r.now);
	put_single(out, "spillway_early_full_total", "counter",
		   "times that one more found no room there: workers went on refusing it", r.full);
}

static void put_kernel(FILE *out, const struct view *view)
{
	put_single(out, "spillway_kernel_refused_total", "counter",
		   "times that a route or neighbour of the kernel found no room", view ? view->kernel.refused : 0);
	put_single(out, "spillway_kernel_resyncs_total", "counter",
		   "times that the kernel's messages were lost, and all was read again",
		   view ? view->kernel.resyncs : 0);
}

static void put_seconds(FILE *out, const char *name, const char *help, uint32_t us)
{
	put_family(out, name, "gauge", help);
	fprintf(out, "%s %.6f\n", name, us / 1e6);
}

static void put_clients(FILE *out, const struct api_source *src)
{
	struct clients_report r;

	observe_clients(src->dp, &r);
	put_single(out, "spillway_client_records", "gauge", "clients whose outcomes are remembered now", r.records);
	put_single(out, "spillway_client_records_forgotten_total", "counter",
		   "clients whose outcomes were forgotten, for want of room", r.forgotten);
}

static void put_table(FILE *out, const struct table_state tables[SET_FAMILIES], const char *name, const char *help,
		      size_t offset)
{
	put_family(out, name, "gauge", help);
	for (int v6 = 0; v6 < SET_FAMILIES; v6++)
		fprintf(out, "%s{family=\"%s\"} %llu\n", name, table_family_name[v6],
			*(const unsigned long long *)((const char *)&tables[v6] + offset));
}

static void put_tables(FILE *out, const struct api_source *src)
{
	struct table_state tables[SET_FAMILIES];

	tables_read(src->dp, tables);
	put_table(out, tables, "spillway_flow_table_flows", "flows in the table now",
		  offsetof(struct table_state, flows));
	put_table(out, tables, "spillway_flow_table_capacity", "flows that it has room for, all workers together",
		  offsetof(struct table_state, capacity));
	put_family(out, "spillway_flow_table_pressure", "gauge",
		   "of the worker that is pressed most: 0 relaxed, 1 from 90 % on, 2 from 95 % on, 3 full");
	for (int v6 = 0; v6 < SET_FAMILIES; v6++)
		fprintf(out, "spillway_flow_table_pressure{family=\"%s\"} %u\n", table_family_name[v6],
			tables[v6].level);
	put_family(out, "spillway_flow_table_pressed_total", "counter", "how often a worker's part came to a level");
	for (int v6 = 0; v6 < SET_FAMILIES; v6++)
		for (enum pressure_level l = PRESSURE_SHORT; l < PRESSURE_LEVELS; l++)
			fprintf(out, "spillway_flow_table_pressed_total{family=\"%s\",level=\"%s\"} %llu\n",
				table_family_name[v6], table_level_name[l], (unsigned long long)tables[v6].reached[l]);
}

static void put_threads(FILE *out, const struct api_source *src, const struct view *view)
{
	put_seconds(out, "spillway_tick_late_p99_seconds", "lateness of decide's ticks in the last minute",
		    view ? view->tick_p99_us : 0);
	put_seconds(out, "spillway_tick_late_max_seconds", "the latest tick of decide's in the last minute",
		    view ? view->tick_max_us : 0);
	put_family(out, "spillway_worker_stalled_seconds_total", "counter", "time in which the worker did not run");
	for (unsigned w = 0; w < dataplane_n_workers(src->dp); w++) {
		struct worker_report r;

		observe_worker(src->dp, w, &r);
		fprintf(out, "spillway_worker_stalled_seconds_total{worker=\"%u\"} %.3f\n", w, r.stalled_ns / 1e9);
	}
}

/* --- formats --- */

#define OPENMETRICS "application/openmetrics-text"

const char *api_metrics_type(enum metrics_format format)
{
	return format == METRICS_OPENMETRICS ? OPENMETRICS "; version=1.0.0; charset=utf-8"
					     : "text/plain; version=0.0.4; charset=utf-8";
}

/* One range of an Accept header, such as "application/openmetrics-text;version=1.0.0;q=0.5". */
static bool takes_openmetrics(char *range)
{
	char *rest = range, *part = strsep(&rest, ";");

	part += strspn(part, " \t");
	part[strcspn(part, " \t")] = '\0';
	if (strcasecmp(part, OPENMETRICS) != 0)
		return false;
	while ((part = strsep(&rest, ";"))) {
		part += strspn(part, " \t");
		if (strncasecmp(part, "version=", 8) == 0 && strcmp(part + 8, "1.0.0") != 0)
			return false;
		if (strncasecmp(part, "q=", 2) == 0 && strtod(part + 2, NULL) <= 0)
			return false;
	}
	return true;
}

enum metrics_format api_metrics_format(const char *accept)
{
	char *copy = accept ? strdup(accept) : NULL, *rest = copy, *range;
	enum metrics_format format = METRICS_PROMETHEUS;

	while (rest && (range = strsep(&rest, ",")))
		if (takes_openmetrics(range))
			format = METRICS_OPENMETRICS;
	free(copy);
	return format;
}

static void put_quoted(FILE *out, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '"')
			fputc('\\', out);
		fputc(text[i], out);
	}
}

/* A family of counters goes without the "_total" of its samples. */
static void put_openmetrics_line(FILE *out, const char *line, size_t len)
{
	static const char total[] = "_total";
	size_t name = sizeof("# HELP ") - 1, end;

	if (strncmp(line, "# HELP ", name) == 0 || strncmp(line, "# TYPE ", name) == 0) {
		end = name + strcspn(line + name, " ");
		if (end - name > strlen(total) && strncmp(line + end - strlen(total), total, strlen(total)) == 0) {
			fwrite(line, 1, end - strlen(total), out);
			line += end;
			len -= end;
		}
		put_quoted(out, line, len);
		return;
	}
	fwrite(line, 1, len, out);
}

/* The formats differ in the families' names, in the quotes of help and in the end, no more. */
static char *to_openmetrics(char *text, size_t *len)
{
	char *converted = NULL;
	FILE *out = open_memstream(&converted, len);

	if (!out) {
		free(text);
		return NULL;
	}
	for (const char *line = text, *next; *line; line = next) {
		next = line + strcspn(line, "\n");
		next += *next == '\n';
		put_openmetrics_line(out, line, next - line);
	}
	fputs("# EOF\n", out);
	free(text);
	if (fclose(out) == 0)
		return converted;
	free(converted);
	return NULL;
}

char *api_metrics(const struct api_source *src, const struct view *view, enum metrics_format format, size_t *len)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, len);
	struct ledger sum;

	if (!out)
		return NULL;
	put_single(out, "spillway_ready", "gauge", "1 if the gateway is ready", view_is_ready(view));
	api_ledger_sum(src, &sum);
	put_ledger(out, &sum);
	put_actions(out, &sum);
	put_paths(out, src, &sum);
	put_verdicts(out, &sum);
	put_backends(out, src, view);
	put_limiters(out, view);
	put_signals(out, src, view);
	put_durations(out, src, view, DURATION_HANDSHAKE, "spillway_backend_handshake_seconds",
		      "from a SYN to the backend's answer, where it was sent once");
	put_durations(out, src, view, DURATION_FIRST_BYTE, "spillway_backend_first_byte_seconds",
		      "from a client's last payload to the first byte of the response");
	put_services(out, src, view);
	put_names(out, view);
	put_ports(out, src);
	put_gates(out, view);
	put_shedding(out, src);
	put_kernel(out, view);
	put_tables(out, src);
	put_clients(out, src);
	put_threads(out, src, view);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return format == METRICS_OPENMETRICS ? to_openmetrics(text, len) : text;
}
