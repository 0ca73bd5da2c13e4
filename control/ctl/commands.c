/* SPDX-License-Identifier: BSD-3-Clause */
#include "ctl.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_COLUMNS(columns) (sizeof(columns) / sizeof((columns)[0]))

enum ctl_exit usage(const char *what)
{
	fprintf(stderr, "spillwayctl: %s (see spillwayctl --help)\n", what);
	return EXIT_USAGE;
}

/* The whole of a command that shows one list. */
static enum ctl_exit show_list(const struct ctl *ctl, const char *path, const char *key, const struct column *columns,
			       size_t n_columns)
{
	enum ctl_exit result;
	json_t *doc;

	if (ctl->n_args > 0)
		return usage("this command takes no argument");
	result = client_request(ctl, "GET", path, &doc);
	if (result == EXIT_OK && !ctl->json)
		table_print(stdout, columns, n_columns, json_object_get(doc, key));
	json_decref(doc);
	return result;
}

static const struct column service_columns[] = {
	{"name", "NAME", COLUMN_TEXT},
	{"listen", "LISTEN", COLUMN_TEXT},
	{"backends", "BACKENDS", COLUMN_NUMBER},
	{"flows", "FLOWS", COLUMN_NUMBER},
	{"attempts", "ATTEMPTS", COLUMN_NUMBER},
	{"new_flows", "NEW", COLUMN_NUMBER},
	{"refused", "REFUSED", COLUMN_NUMBER},
	{"silent", "SILENT", COLUMN_NUMBER},
	{"refused_storm", "BY STORM", COLUMN_NUMBER},
	{"shed_early", "EARLY", COLUMN_NUMBER},
	{"held", "HELD", COLUMN_NUMBER},
	{"holding", "HOLDING", COLUMN_NUMBER},
	{"retries", "RETRIES", COLUMN_NUMBER},
	{"down_reason", "DOWN", COLUMN_TEXT},
};

static const struct column shadow_columns[] = {
	{"name", "IN SHADOW", COLUMN_TEXT},
	{"would_hold", "WOULD HOLD", COLUMN_NUMBER},
	{"would_refuse", "WOULD REFUSE", COLUMN_NUMBER},
	{"would_silence", "WOULD SILENCE", COLUMN_NUMBER},
};

/* Of those that have a backend which is limited. */
static const struct column limit_columns[] = {
	{"name", "LIMITED", COLUMN_TEXT},
	{"limiting", "BACKENDS", COLUMN_NUMBER},
	{"limiting_since", "SINCE", COLUMN_TIME},
	{"limit", "LIMIT", COLUMN_WHOLE},
	{"wip", "WORK", COLUMN_NUMBER},
	{"usual_ms", "USUAL MS", COLUMN_NUMBER},
	{"first_byte_ms", "BYTE MS", COLUMN_NUMBER},
	{"answers_per_s", "ANSWERS/S", COLUMN_NUMBER},
};

static const struct column storm_columns[] = {
	{"name", "STORM AT", COLUMN_TEXT},           {"test", "TEST", COLUMN_TEXT},
	{"held_per_s", "HELD/S", COLUMN_NUMBER},     {"refused_per_s", "REFUSED/S", COLUMN_NUMBER},
	{"silent_per_s", "SILENT/S", COLUMN_NUMBER},
};

/* Those of which that number is more than zero. */
static json_t *rows_with(const json_t *rows, const char *key)
{
	json_t *found = json_array(), *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (json_number_value(json_object_get(row, key)) > 0)
			json_array_append(found, row);
	}
	return found;
}

/* Those of which anything stands in the columns from the second on. */
static json_t *rows_counted(const json_t *rows, const struct column *columns, size_t n_columns)
{
	json_t *counted = json_array(), *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		json_int_t sum = 0;

		for (size_t c = 1; c < n_columns; c++)
			sum += json_integer_value(json_object_get(row, columns[c].key));
		if (sum > 0)
			json_array_append(counted, row);
	}
	return counted;
}

enum ctl_exit command_services(const struct ctl *ctl)
{
	enum ctl_exit result;
	json_t *doc, *rows;

	if (ctl->n_args > 0)
		return usage("services takes no argument");
	result = client_request(ctl, "GET", "/v1/services", &doc);
	if (result == EXIT_OK && !ctl->json) {
		rows = json_object_get(doc, "services");
		table_print(stdout, service_columns, N_COLUMNS(service_columns), rows);
		table_print_more(stdout, limit_columns, N_COLUMNS(limit_columns), rows_with(rows, "limiting"));
		table_print_more(stdout, storm_columns, N_COLUMNS(storm_columns),
				 table_rows_within(rows, "storm", "name"));
		table_print_more(stdout, shadow_columns, N_COLUMNS(shadow_columns),
				 rows_counted(rows, shadow_columns, N_COLUMNS(shadow_columns)));
	}
	json_decref(doc);
	return result;
}

static const struct column name_columns[] = {
	{"name", "NAME", COLUMN_TEXT},
	{"family", "IPv", COLUMN_NUMBER},
	{"state", "STATE", COLUMN_TEXT},
	{"addresses", "ADDRESSES", COLUMN_NUMBER},
	{"ttl_s", "TTL", COLUMN_SECONDS},
	{"next_query_s", "NEXT", COLUMN_SECONDS},
	{"queries", "QUERIES", COLUMN_NUMBER},
	{"failures", "FAILURES", COLUMN_NUMBER},
	{"changes", "CHANGES", COLUMN_NUMBER},
	{"would_changes", "WOULD", COLUMN_NUMBER},
	{"last_error", "LAST ERROR", COLUMN_TEXT},
};

enum ctl_exit command_names(const struct ctl *ctl)
{
	return show_list(ctl, "/v1/names", "names", name_columns, N_COLUMNS(name_columns));
}

/* --- status --- */

static const struct column worker_columns[] = {
	{"worker", "WORKER", COLUMN_NUMBER},
	{"flows_v4", "FLOWS4", COLUMN_NUMBER},
	{"flows_v4_max", "OF", COLUMN_NUMBER},
	{"flows_v6", "FLOWS6", COLUMN_NUMBER},
	{"flows_v6_max", "OF", COLUMN_NUMBER},
	{"policy_number", "POLICY", COLUMN_NUMBER},
	{"loops", "LOOPS", COLUMN_NUMBER},
	{"bursts", "BURSTS", COLUMN_NUMBER},
	{"sleeps", "SLEEPS", COLUMN_NUMBER},
	{"expired", "EXPIRED", COLUMN_NUMBER},
	{"last_loop_s", "LAST LOOP", COLUMN_SECONDS},
};

static const struct column table_columns[] = {
	{"family", "FLOW TABLE", COLUMN_TEXT},
	{"flows", "FLOWS", COLUMN_NUMBER},
	{"capacity", "OF", COLUMN_NUMBER},
	{"level", "LEVEL", COLUMN_TEXT},
};

static const struct column port_columns[] = {
	{"name", "PORT", COLUMN_TEXT},
	{"device", "DEVICE", COLUMN_TEXT},
	{"queue", "QUEUE", COLUMN_NUMBER},
	{"zero_copy", "ZERO-COPY", COLUMN_TEXT},
	{"rx_packets", "RX", COLUMN_NUMBER},
	{"tx_packets", "TX", COLUMN_NUMBER},
	{"lost_known_ring", "LOST KNOWN", COLUMN_NUMBER},
	{"lost_new_ring", "LOST NEW", COLUMN_NUMBER},
	{"lost_no_buffer", "NO BUFFER", COLUMN_NUMBER},
	{"lost_invalid", "INVALID", COLUMN_NUMBER},
	{"tx_full", "TX FULL", COLUMN_NUMBER},
};

#define GATES_SHOWN 16

static const char *gate_label(const char *key)
{
	return strncmp(key, "gate_", 5) == 0 ? key + 5 : key;
}

/* Ports are the columns here: there are few of them, and many ways out of a gate. Those never taken are left out. */
static void print_gates(const json_t *gates)
{
	struct column columns[1 + GATES_SHOWN] = {{"exit", "GATE", COLUMN_TEXT}};
	size_t n = json_array_size(gates) < GATES_SHOWN ? json_array_size(gates) : GATES_SHOWN;
	json_t *rows = json_array(), *first = json_array_get(gates, 0), *unused;
	const char *key;

	for (size_t g = 0; g < n; g++) {
		const char *port = json_string_value(json_object_get(json_array_get(gates, g), "port"));

		columns[1 + g] = (struct column){port ? port : "?", port ? port : "?", COLUMN_NUMBER};
	}
	json_object_foreach(first, key, unused)
	{
		json_t *row = json_pack("{s:s}", "exit", gate_label(key));
		json_int_t sum = 0;

		for (size_t g = 0; g < n; g++) {
			json_t *count = json_object_get(json_array_get(gates, g), key);

			sum += json_integer_value(count);
			json_object_set(row, columns[1 + g].key, count);
		}
		if (sum > 0)
			json_array_append(rows, row);
		json_decref(row);
	}
	table_print(stdout, columns, 1 + n, rows);
	json_decref(rows);
}

static void print_clients(const json_t *clients)
{
	char cell[CELL_STRLEN];

	printf("clients  %s remembered", cell_format(COLUMN_NUMBER, json_object_get(clients, "records"), cell));
	printf(" of at most %s", cell_format(COLUMN_NUMBER, json_object_get(clients, "places"), cell));
	printf(", %s forgotten\n\n", cell_format(COLUMN_NUMBER, json_object_get(clients, "forgotten"), cell));
}

static void print_status(const json_t *doc)
{
	char cell[CELL_STRLEN];

	printf("state    %s\n", cell_format(COLUMN_TEXT, json_object_get(doc, "state"), cell));
	if (json_is_string(json_object_get(doc, "reason")))
		printf("NOT READY: %s\n", json_string_value(json_object_get(doc, "reason")));
	printf("version  %s\n", cell_format(COLUMN_TEXT, json_object_get(doc, "version"), cell));
	printf("uptime   %s\n", cell_format(COLUMN_SECONDS, json_object_get(doc, "uptime_s"), cell));
	printf("policy   %s", cell_format(COLUMN_NUMBER, json_object_get(doc, "policy_number"), cell));
	printf(", published %s ago", cell_format(COLUMN_SECONDS, json_object_get(doc, "policy_age_s"), cell));
	printf(" in %s us\n", cell_format(COLUMN_NUMBER, json_object_get(doc, "publish_took_us"), cell));
	printf("ticks    %s ms late", cell_format(COLUMN_NUMBER, json_object_get(doc, "tick_p99_ms"), cell));
	printf(" at p99, %s ms at most\n", cell_format(COLUMN_NUMBER, json_object_get(doc, "tick_max_ms"), cell));
	print_clients(json_object_get(doc, "clients"));
	table_print(stdout, table_columns, N_COLUMNS(table_columns), json_object_get(doc, "tables"));
	putchar('\n');
	table_print(stdout, worker_columns, N_COLUMNS(worker_columns), json_object_get(doc, "workers"));
	putchar('\n');
	table_print(stdout, port_columns, N_COLUMNS(port_columns), json_object_get(doc, "ports"));
	if (json_array_size(json_object_get(doc, "gates")) > 0) {
		putchar('\n');
		print_gates(json_object_get(doc, "gates"));
	}
}

enum ctl_exit command_status(const struct ctl *ctl)
{
	enum ctl_exit result;
	json_t *doc;

	if (ctl->n_args > 0)
		return usage("status takes no argument");
	result = client_request(ctl, "GET", "/v1/status", &doc);
	if (result != EXIT_OK)
		return result;
	if (!ctl->json)
		print_status(doc);
	result = json_is_true(json_object_get(doc, "ready")) ? EXIT_OK : EXIT_REFUSED;
	json_decref(doc);
	return result;
}

/* --- flows --- */

static const struct column flow_columns[] = {
	{"proto", "PROTO", COLUMN_TEXT},     {"client", "CLIENT", COLUMN_TEXT},
	{"vip", "VIP", COLUMN_TEXT},         {"snat", "SNAT", COLUMN_TEXT},
	{"backend", "BACKEND", COLUMN_TEXT}, {"service", "SERVICE", COLUMN_TEXT},
	{"state", "STATE", COLUMN_TEXT},     {"age_s", "AGE", COLUMN_SECONDS},
	{"idle_s", "IDLE", COLUMN_SECONDS},  {"expires_s", "EXPIRES", COLUMN_SECONDS},
	{"bytes_up", "UP", COLUMN_BYTES},    {"bytes_down", "DOWN", COLUMN_BYTES},
};

static bool flows_argument(struct page_query *q, const char *arg)
{
	const char *equals = strchr(arg, '=');

	if (!equals)
		return query_add_endpoint(q, arg);
	if (strncmp(arg, "service=", 8) == 0)
		return query_add(q, "service", equals + 1);
	if (strncmp(arg, "backend=", 8) == 0)
		return query_add(q, "backend", equals + 1);
	return query_set_page(q, arg);
}

enum ctl_exit command_flows(const struct ctl *ctl)
{
	struct page_query q = {.path = "/v1/flows", .key = "flows", .limit = ROWS_DEFAULT};

	for (int i = 0; i < ctl->n_args; i++)
		if (!flows_argument(&q, ctl->args[i]))
			return usage("expected flows [ADDRESS[:PORT]] [service=NAME] [backend=ID] [limit=N]");
	return query_show(ctl, &q, flow_columns, N_COLUMNS(flow_columns));
}

/* --- backends --- */

static const struct column backend_columns[] = {
	{"id", "BACKEND", COLUMN_TEXT},
	{"services", "SERVICES", COLUMN_TEXT},
	{"life", "LIFE", COLUMN_TEXT},
	{"breaker", "BREAKER", COLUMN_TEXT},
	{"weight", "WEIGHT", COLUMN_NUMBER},
	{"flows", "FLOWS", COLUMN_NUMBER},
	{"connects", "CONNECTS", COLUMN_NUMBER},
	{"failures", "FAILURES", COLUMN_NUMBER},
	{"resteered", "RESTEERED", COLUMN_NUMBER},
	{"pinned", "PINNED", COLUMN_NUMBER},
	{"wip", "WORK", COLUMN_NUMBER},
	{"zombies", "ZOMBIES", COLUMN_NUMBER},
	{"handshake_p50_ms", "SYN MS", COLUMN_NUMBER},
	{"first_byte_p50_ms", "BYTE MS", COLUMN_NUMBER},
	{"first_byte_p99_ms", "P99", COLUMN_NUMBER},
	{"usual_ms", "USUAL", COLUMN_NUMBER},
	{"limit", "LIMIT", COLUMN_WHOLE},
	{"hard_max", "MAX", COLUMN_WHOLE},
	{"resets_before", "RESETS", COLUMN_NUMBER},
	{"retransmissions_up", "SENT AGAIN", COLUMN_NUMBER},
	{"drain_s", "DRAIN", COLUMN_SECONDS},
	{"ttl_left", "TTL", COLUMN_SECONDS},
	{"idle_survived_s", "IDLE OK", COLUMN_SECONDS},
	{"idle_lost_s", "IDLE LOST", COLUMN_SECONDS},
};

static const struct column breaker_columns[] = {
	{"id", "BREAKER OF", COLUMN_TEXT},
	{"breaker", "IS", COLUMN_TEXT},
	{"breaker_since", "SINCE", COLUMN_TIME},
	{"breaker_next_s", "NEXT", COLUMN_SECONDS},
	{"breaker_evidence", "EVIDENCE", COLUMN_TEXT},
};

static const struct column limiter_columns[] = {
	{"id", "LIMITED", COLUMN_TEXT},
	{"limiter_since", "SINCE", COLUMN_TIME},
	{"limit", "LIMIT", COLUMN_WHOLE},
	{"wip", "WORK", COLUMN_NUMBER},
	{"usual_ms", "USUAL MS", COLUMN_NUMBER},
	{"usual_from", "FROM", COLUMN_TEXT},
	{"first_byte_ms", "BYTE MS", COLUMN_NUMBER},
	{"calm_ms", "UNTIL BELOW", COLUMN_NUMBER},
	{"answers_per_s", "ANSWERS/S", COLUMN_NUMBER},
};

static json_t *rows_limited(const json_t *rows)
{
	json_t *found = json_array(), *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const char *limiter = json_string_value(json_object_get(row, "limiter"));

		if (limiter && strcmp(limiter, "limiting") == 0)
			json_array_append(found, row);
	}
	return found;
}

/* Those whose breakers have something to say. */
static json_t *rows_with_evidence(const json_t *rows)
{
	json_t *found = json_array(), *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (json_is_string(json_object_get(row, "breaker_evidence")))
			json_array_append(found, row);
	}
	return found;
}

/* All of them, unless a limit is set. */
enum ctl_exit command_backends(const struct ctl *ctl)
{
	struct page_query q = {.path = "/v1/backends", .key = "backends", .limit = ULONG_MAX};
	json_t *rows;
	enum ctl_exit result;

	for (int i = 0; i < ctl->n_args; i++)
		if (!query_set_page(&q, ctl->args[i]))
			return usage("expected backends [limit=N]");
	rows = json_array();
	result = query_pages(ctl, &q, rows);
	if (result == EXIT_OK && !ctl->json) {
		query_print(&q, backend_columns, N_COLUMNS(backend_columns), rows);
		table_print_more(stdout, breaker_columns, N_COLUMNS(breaker_columns), rows_with_evidence(rows));
		table_print_more(stdout, limiter_columns, N_COLUMNS(limiter_columns), rows_limited(rows));
	}
	json_decref(rows);
	return result;
}

/* --- paths --- */

static const struct column path_columns[] = {
	{"address", "ADDRESS", COLUMN_TEXT}, {"mtu", "MTU", COLUMN_NUMBER},    {"side", "SIDE", COLUMN_TEXT},
	{"source", "SOURCE", COLUMN_TEXT},   {"age_s", "AGE", COLUMN_SECONDS}, {"expires_s", "EXPIRES", COLUMN_SECONDS},
};

enum ctl_exit command_paths(const struct ctl *ctl)
{
	struct page_query q = {.path = "/v1/paths", .key = "paths", .limit = ROWS_DEFAULT};

	for (int i = 0; i < ctl->n_args; i++) {
		const char *arg = ctl->args[i];

		if (strchr(arg, '=') ? !query_set_page(&q, arg) : !query_add(&q, "address", arg))
			return usage("expected paths [ADDRESS] [limit=N]");
	}
	return query_show(ctl, &q, path_columns, N_COLUMNS(path_columns));
}

/* --- ledger --- */

static const char *const ledger_terms[] = {"rx",       "taken_over", "forwarded", "answered",    "shed",
					   "absorbed", "punted",     "dropped",   "handed_over", "inside",
					   "tx",       "made",       "tx_failed", "balance",     "tx_balance"};

#define WORKERS_SHOWN 16

/* The API has a row per worker; people compare terms, so the terms are the rows here. */
static void print_terms(const json_t *doc)
{
	struct column columns[2 + WORKERS_SHOWN] = {{"term", "", COLUMN_TEXT}, {"sum", "ALL", COLUMN_NUMBER}};
	const json_t *workers = json_object_get(doc, "workers");
	size_t n_workers = json_array_size(workers);
	char keys[WORKERS_SHOWN][16];
	json_t *rows = json_array();

	n_workers = n_workers < WORKERS_SHOWN ? n_workers : WORKERS_SHOWN;
	for (size_t w = 0; w < n_workers; w++) {
		snprintf(keys[w], sizeof(keys[w]), "WORKER %zu", w);
		columns[2 + w] = (struct column){keys[w], keys[w], COLUMN_NUMBER};
	}
	for (size_t t = 0; t < N_COLUMNS(ledger_terms); t++) {
		json_t *row = json_pack("{s:s,s:O?}", "term", ledger_terms[t], "sum",
					json_object_get(json_object_get(doc, "sum"), ledger_terms[t]));

		for (size_t w = 0; w < n_workers; w++)
			json_object_set(row, keys[w], json_object_get(json_array_get(workers, w), ledger_terms[t]));
		json_array_append_new(rows, row);
	}
	table_print(stdout, columns, 2 + n_workers, rows);
	json_decref(rows);
}

static int by_count(const void *a, const void *b)
{
	json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "count"));
	json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "count"));

	return (x < y) - (x > y);
}

/* Most first; what never happened is left out. */
static json_t *sorted_counts(json_t *counts, const json_t *about)
{
	size_t n = 0, max = json_object_size(counts);
	json_t **rows = calloc(max ? max : 1, sizeof(json_t *)), *sorted = json_array(), *count;
	const char *name;

	if (!rows)
		return sorted;
	json_object_foreach(counts, name, count)
	{
		const json_t *info = json_object_get(about, name);

		if (json_integer_value(count) != 0 && n < max)
			rows[n++] = json_pack("{s:s,s:O,s:O?,s:O?,s:O?}", "name", name, "count", count, "class",
					      json_object_get(info, "class"), "cause", json_object_get(info, "cause"),
					      "help", json_object_get(info, "help"));
	}
	qsort(rows, n, sizeof(json_t *), by_count);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(sorted, rows[i]);
	free(rows);
	return sorted;
}

static const struct column reason_columns[] = {
	{"count", "PACKETS", COLUMN_NUMBER}, {"name", "REASON", COLUMN_TEXT}, {"class", "CLASS", COLUMN_TEXT},
	{"cause", "CAUSE", COLUMN_TEXT},     {"help", "WHAT", COLUMN_TEXT},
};

static const struct column early_columns[] = {
	{"count", "PACKETS", COLUMN_NUMBER}, {"name", "DISCARDED BEFORE RX", COLUMN_TEXT},
	{"class", "CLASS", COLUMN_TEXT},     {"cause", "CAUSE", COLUMN_TEXT},
	{"help", "WHAT", COLUMN_TEXT},
};

static const struct column made_columns[] = {{"count", "PACKETS", COLUMN_NUMBER}, {"name", "MADE", COLUMN_TEXT}};
static const struct column action_columns[] = {{"count", "TIMES", COLUMN_NUMBER}, {"name", "DONE", COLUMN_TEXT}};
static const struct column lost_columns[] = {{"count", "PACKETS", COLUMN_NUMBER},
					     {"name", "LOST BY DEVICES", COLUMN_TEXT}};

static void print_counts(const json_t *doc, const char *key, const struct column *columns, size_t n_columns)
{
	json_t *rows = sorted_counts(json_object_get(doc, key), json_object_get(doc, "about"));

	if (json_array_size(rows) > 0) {
		putchar('\n');
		table_print(stdout, columns, n_columns, rows);
	}
	json_decref(rows);
}

enum ctl_exit command_ledger(const struct ctl *ctl)
{
	enum ctl_exit result;
	char cell[CELL_STRLEN];
	json_t *doc;

	if (ctl->n_args > 0)
		return usage("ledger takes no argument");
	result = client_request(ctl, "GET", "/v1/ledger", &doc);
	if (result == EXIT_OK && !ctl->json) {
		print_terms(doc);
		print_counts(doc, "reasons", reason_columns, N_COLUMNS(reason_columns));
		print_counts(doc, "early", early_columns, N_COLUMNS(early_columns));
		print_counts(doc, "made", made_columns, N_COLUMNS(made_columns));
		print_counts(doc, "actions", action_columns, N_COLUMNS(action_columns));
		print_counts(doc, "lost", lost_columns, N_COLUMNS(lost_columns));
		printf("\nin rings %s\n", cell_format(COLUMN_NUMBER, json_object_get(doc, "in_rings"), cell));
		printf("balance %s\n", cell_format(COLUMN_NUMBER, json_object_get(doc, "balance"), cell));
	}
	json_decref(doc);
	return result;
}

/* --- reload, cure, drain, check --- */

/* Posts a command; prints `done` and what it answered. */
static enum ctl_exit post(const struct ctl *ctl, const char *path, const char *done)
{
	char cell[CELL_STRLEN];
	enum ctl_exit result;
	json_t *doc, *value;
	const char *key;

	result = client_request(ctl, "POST", path, &doc);
	if (result == EXIT_OK && !ctl->json) {
		printf("%s\n", done);
		json_object_foreach(doc, key, value)
		{
			printf("%s  %s\n", key, cell_format(COLUMN_TEXT, value, cell));
		}
	}
	json_decref(doc);
	return result;
}

enum ctl_exit command_reload(const struct ctl *ctl)
{
	if (ctl->n_args > 0)
		return usage("reload takes no argument");
	return post(ctl, "/v1/reload", "reloaded");
}

enum ctl_exit command_cure(const struct ctl *ctl)
{
	char *cure, *mode, path[512];

	if (ctl->n_args != 2)
		return usage("expected cure NAME MODE");
	cure = client_escape(ctl->args[0]);
	mode = client_escape(ctl->args[1]);
	snprintf(path, sizeof(path), "/v1/cure?cure=%s&mode=%s", cure ? cure : "", mode ? mode : "");
	free(cure);
	free(mode);
	return post(ctl, path, "set");
}

/* A command about one backend, and a word of what is to be done with it. */
static enum ctl_exit set_backend(const struct ctl *ctl, const char *of, const char *expected)
{
	char *backend, *set, path[512];

	if (ctl->n_args != 2)
		return usage(expected);
	backend = client_escape(ctl->args[0]);
	set = client_escape(ctl->args[1]);
	snprintf(path, sizeof(path), "%s?backend=%s&set=%s", of, backend ? backend : "", set ? set : "");
	free(backend);
	free(set);
	return post(ctl, path, "set");
}

enum ctl_exit command_breaker(const struct ctl *ctl)
{
	return set_backend(ctl, "/v1/breaker", "expected breaker BACKEND open|close|auto");
}

enum ctl_exit command_limiter(const struct ctl *ctl)
{
	return set_backend(ctl, "/v1/limiter", "expected limiter BACKEND reset");
}

/* One KEY=VALUE of drain, as "&KEY=VALUE". */
static bool drain_add(struct page_query *q, const char *arg)
{
	static const char *const keys[] = {"service", "deadline", "set"};

	for (size_t i = 0; i < N_COLUMNS(keys); i++) {
		size_t len = strlen(keys[i]);

		if (strncmp(arg, keys[i], len) == 0 && arg[len] == '=')
			return query_add(q, keys[i], arg + len + 1);
	}
	return false;
}

enum ctl_exit command_drain(const struct ctl *ctl)
{
	struct page_query q = {0};
	char path[1400];
	bool fits = ctl->n_args > 0 && query_add(&q, "backend", ctl->args[0]);

	for (int i = 1; fits && i < ctl->n_args; i++)
		fits = drain_add(&q, ctl->args[i]);
	if (!fits)
		return usage("expected drain BACKEND [service=NAME] [deadline=30s] [set=auto]");
	snprintf(path, sizeof(path), "/v1/drain?%s", q.text + 1);
	return post(ctl, path, "done");
}

enum ctl_exit command_check(const struct ctl *ctl)
{
	char beside[PATH_MAX + 16] = "", self[PATH_MAX + 1] = "";
	char *argv[] = {"spillway", "--check", ctl->n_args == 1 ? ctl->args[0] : NULL, NULL};

	if (ctl->n_args != 1)
		return usage("expected check FILE");
	if (readlink("/proc/self/exe", self, PATH_MAX) > 0)
		snprintf(beside, sizeof(beside), "%s/spillway", dirname(self));
	execv(beside, argv);
	execvp("spillway", argv);
	fprintf(stderr, "spillwayctl: no program 'spillway' beside this one or in PATH: %s\n", strerror(errno));
	return EXIT_UNREACHABLE;
}
