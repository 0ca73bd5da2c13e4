/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands that tell what happened: clients, events, explain. */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

#define N_COLUMNS(columns) (sizeof(columns) / sizeof((columns)[0]))
#define EVENTS_DEFAULT     100
#define EVENTS_BEFORE      10 /* of the past, where the future is followed */

/* --- clients --- */

static const struct column client_columns[] = {
	{"address", "CLIENT", COLUMN_TEXT},        {"connected", "CONNECTED", COLUMN_NUMBER},
	{"refused", "REFUSED", COLUMN_NUMBER},     {"silent", "SILENT", COLUMN_NUMBER},
	{"resteered", "RESTEERED", COLUMN_NUMBER}, {"reset", "RESET", COLUMN_NUMBER},
	{"shed_early", "EARLY", COLUMN_NUMBER},    {"since", "SINCE", COLUMN_TIME},
	{"last_at", "LAST", COLUMN_TIME},          {"last_reason", "OUTCOME", COLUMN_TEXT},
	{"last_service", "SERVICE", COLUMN_TEXT},  {"last_backend", "BACKEND", COLUMN_TEXT},
};

static const struct column storm_columns[] = {
	{"address", "STORM", COLUMN_TEXT}, {"answer", "CLIENT WAS", COLUMN_TEXT}, {"test", "BY TEST", COLUMN_TEXT},
	{"count", "COUNT", COLUMN_NUMBER}, {"first", "SINCE", COLUMN_TIME},       {"last", "LAST", COLUMN_TIME},
	{"shadow", "SHADOW", COLUMN_TEXT}, {"service", "SERVICE", COLUMN_TEXT},   {"lets_in", "IS LET IN", COLUMN_TEXT},
};

/* The last outcome's fields beside the others: a table has no rows in rows. */
static void flatten_last(json_t *rows)
{
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const json_t *last = json_object_get(row, "last");

		json_object_set(row, "last_at", json_object_get(last, "at"));
		json_object_set(row, "last_reason", json_object_get(last, "reason"));
		json_object_set(row, "last_service", json_object_get(last, "service"));
		json_object_set(row, "last_backend", json_object_get(last, "backend"));
	}
}

enum ctl_exit command_clients(const struct ctl *ctl)
{
	struct page_query q = {.path = "/v1/clients", .key = "clients", .limit = ROWS_DEFAULT};
	enum ctl_exit result;
	json_t *rows;

	for (int i = 0; i < ctl->n_args; i++) {
		const char *arg = ctl->args[i];

		if (strchr(arg, '=') ? !query_set_page(&q, arg) : !query_add_endpoint(&q, arg))
			return usage("expected clients [ADDRESS] [limit=N]");
	}
	rows = json_array();
	result = query_pages(ctl, &q, rows);
	if (result == EXIT_OK && !ctl->json) {
		flatten_last(rows);
		query_print(&q, client_columns, N_COLUMNS(client_columns), rows);
		table_print_more(stdout, storm_columns, N_COLUMNS(storm_columns),
				 table_rows_within(rows, "storm", "address"));
	}
	json_decref(rows);
	return result;
}

/* --- events --- */

static const struct column event_columns[] = {
	{"at", "AT", COLUMN_TIME},      {"severity", "SEVERITY", COLUMN_TEXT}, {"cure", "CURE", COLUMN_TEXT},
	{"kind", "EVENT", COLUMN_TEXT}, {"subject", "SUBJECT", COLUMN_TEXT},   {"text", "WHAT", COLUMN_TEXT},
};

/* A stream has no columns to align: each line is on its own. */
static bool print_event(void *arg, const char *line)
{
	const struct ctl *ctl = arg;
	json_t *event = json_loads(line, 0, NULL);
	const json_t *lost = json_object_get(event, "lost");
	char cell[CELL_STRLEN];

	if (ctl->json) {
		printf("%s\n", line);
	} else if (lost) {
		printf("(%lld events were lost: this reader was too slow)\n", (long long)json_integer_value(lost));
	} else {
		for (size_t c = 0; c < N_COLUMNS(event_columns); c++)
			printf("%s%s", c ? "  " : "",
			       cell_format(event_columns[c].kind, json_object_get(event, event_columns[c].key), cell));
		putchar('\n');
	}
	json_decref(event);
	return fflush(stdout) == 0;
}

static enum ctl_exit list_events(const struct ctl *ctl, const char *path)
{
	enum ctl_exit result;
	json_t *doc;

	result = client_request(ctl, "GET", path, &doc);
	if (result == EXIT_OK && !ctl->json)
		table_print(stdout, event_columns, N_COLUMNS(event_columns), json_object_get(doc, "events"));
	json_decref(doc);
	return result;
}

enum ctl_exit command_events(const struct ctl *ctl)
{
	struct page_query q = {.limit = ctl->follow ? EVENTS_BEFORE : EVENTS_DEFAULT};
	char path[1400];

	for (int i = 0; i < ctl->n_args; i++) {
		const char *arg = ctl->args[i];
		bool since = strncmp(arg, "since=", 6) == 0;

		if (!(since ? query_add(&q, "since", arg + 6) : query_set_page(&q, arg)) || *q.cursor)
			return usage("expected events [--follow] [since=NUMBER] [limit=N]");
	}
	snprintf(path, sizeof(path), "/v1/events?limit=%lu%s%s", q.limit, q.text, ctl->follow ? "&follow=1" : "");
	return ctl->follow ? client_stream(ctl, path, print_event, (void *)ctl) : list_events(ctl, path);
}

/* --- explain --- */

static const struct column finding_columns[] = {
	{"cure", "CURE", COLUMN_TEXT},       {"count", "COUNT", COLUMN_NUMBER}, {"scope", "SCOPE", COLUMN_TEXT},
	{"first", "FIRST", COLUMN_TIME},     {"last", "LAST", COLUMN_TIME},     {"service", "SERVICE", COLUMN_TEXT},
	{"backend", "BACKEND", COLUMN_TEXT}, {"sentence", "WHAT", COLUMN_TEXT},
};

static const struct column outcome_columns[] = {
	{"reason", "OUTCOME", COLUMN_TEXT},  {"meant", "MEANT", COLUMN_TEXT}, {"count", "COUNT", COLUMN_NUMBER},
	{"first", "FIRST", COLUMN_TIME},     {"last", "LAST", COLUMN_TIME},   {"service", "SERVICE", COLUMN_TEXT},
	{"backend", "BACKEND", COLUMN_TEXT},
};

static const struct column tuple_columns[] = {
	{"client", "CLIENT", COLUMN_TEXT},   {"proto", "PROTO", COLUMN_TEXT}, {"service", "SERVICE", COLUMN_TEXT},
	{"backend", "BACKEND", COLUMN_TEXT}, {"state", "STATE", COLUMN_TEXT}, {"began", "BEGAN", COLUMN_TIME},
	{"ended", "ENDED", COLUMN_TIME},
};

static const struct column network_columns[] = {{"network", "NETWORK", COLUMN_TEXT}, {"count", "COUNT", COLUMN_NUMBER}};

static const struct column path_columns[] = {
	{"address", "PATH TO", COLUMN_TEXT}, {"mtu", "MTU", COLUMN_NUMBER},    {"side", "SIDE", COLUMN_TEXT},
	{"source", "SOURCE", COLUMN_TEXT},   {"age_s", "AGE", COLUMN_SECONDS}, {"expires_s", "EXPIRES", COLUMN_SECONDS},
};

static const struct column service_columns[] = {
	{"name", "SERVICE NOW", COLUMN_TEXT},  {"backends", "BACKENDS", COLUMN_NUMBER},
	{"flows", "FLOWS", COLUMN_NUMBER},     {"attempts", "ATTEMPTS", COLUMN_NUMBER},
	{"new_flows", "NEW", COLUMN_NUMBER},   {"refused", "REFUSED", COLUMN_NUMBER},
	{"silent", "SILENT", COLUMN_NUMBER},   {"held", "HELD", COLUMN_NUMBER},
	{"holding", "HOLDING", COLUMN_NUMBER}, {"down_reason", "DOWN", COLUMN_TEXT},
};

static const struct column backend_columns[] = {
	{"id", "BACKEND NOW", COLUMN_TEXT},        {"life", "LIFE", COLUMN_TEXT},
	{"breaker", "BREAKER", COLUMN_TEXT},       {"flows", "FLOWS", COLUMN_NUMBER},
	{"connects", "CONNECTS", COLUMN_NUMBER},   {"failures", "FAILURES", COLUMN_NUMBER},
	{"resteered", "RESTEERED", COLUMN_NUMBER}, {"pinned", "PINNED", COLUMN_NUMBER},
};

static const struct column flow_columns[] = {
	{"proto", "PROTO", COLUMN_TEXT},  {"client", "CLIENT", COLUMN_TEXT},   {"vip", "VIP", COLUMN_TEXT},
	{"snat", "SNAT", COLUMN_TEXT},    {"backend", "BACKEND", COLUMN_TEXT}, {"state", "STATE", COLUMN_TEXT},
	{"age_s", "AGE", COLUMN_SECONDS}, {"idle_s", "IDLE", COLUMN_SECONDS},
};

/* A list that is empty is left out. */
static void print_list(const char *heading, const json_t *rows, const struct column *columns, size_t n_columns)
{
	if (json_array_size(rows) == 0)
		return;
	printf("\n%s\n", heading);
	table_print(stdout, columns, n_columns, rows);
}

static void print_client(const json_t *doc)
{
	static const char *const sums[] = {"connected", "refused", "silent", "resteered", "reset", "other"};
	const json_t *client = json_object_get(doc, "client");
	char cell[CELL_STRLEN];

	if (!json_is_object(client)) {
		printf("nothing is remembered of it as a client\n");
		return;
	}
	printf("client %s", cell_format(COLUMN_TEXT, json_object_get(client, "address"), cell));
	printf(", known since %s:", cell_format(COLUMN_TIME, json_object_get(client, "since"), cell));
	for (size_t i = 0; i < N_COLUMNS(sums); i++)
		printf(" %s %s", sums[i], cell_format(COLUMN_NUMBER, json_object_get(client, sums[i]), cell));
	putchar('\n');
}

/* What the answer cannot know. */
static void print_blind(const json_t *doc)
{
	char from[CELL_STRLEN], to[CELL_STRLEN];

	if (json_is_number(json_object_get(doc, "blind_since")))
		printf("between %s and %s outcomes of this client may have been forgotten, for want of room\n",
		       cell_format(COLUMN_TIME, json_object_get(doc, "blind_since"), from),
		       cell_format(COLUMN_TIME, json_object_get(doc, "blind_until"), to));
	if (json_is_number(json_object_get(doc, "tuples_since")))
		printf("flows that ended before %s are forgotten\n",
		       cell_format(COLUMN_TIME, json_object_get(doc, "tuples_since"), from));
	if (json_integer_value(json_object_get(doc, "unnamed")) > 0)
		printf("%lld outcomes of the last two minutes were counted, but not by network\n",
		       (long long)json_integer_value(json_object_get(doc, "unnamed")));
	if (!json_is_true(json_object_get(doc, "flows_complete")))
		printf("there may be more flows: spillwayctl flows has them all\n");
}

static bool has_role(const json_t *doc, const char *role)
{
	const json_t *value;
	size_t i;

	json_array_foreach(json_object_get(doc, "roles"), i,
			   value) if (strcmp(json_string_value(value), role) == 0) return true;
	return false;
}

static void print_explanation(const json_t *doc)
{
	char cell[CELL_STRLEN];

	printf("%s is: %s\n", json_string_value(json_object_get(doc, "address")),
	       cell_format(COLUMN_TEXT, json_object_get(doc, "roles"), cell));
	if (has_role(doc, "snat") && json_is_null(json_object_get(doc, "port")))
		printf("which client stands behind it, the port tells: explain ADDRESS:PORT\n");
	else if (has_role(doc, "snat") && json_array_size(json_object_get(doc, "tuples")) == 0)
		printf("no flow uses that port, and none that ended lately did\n");
	if (has_role(doc, "client") || json_is_object(json_object_get(doc, "client")))
		print_client(doc);
	print_list("The flows of that SNAT port", json_object_get(doc, "tuples"), tuple_columns,
		   N_COLUMNS(tuple_columns));
	print_list("What was found", json_object_get(doc, "findings"), finding_columns, N_COLUMNS(finding_columns));
	print_list("The client's outcomes", json_object_get(json_object_get(doc, "client"), "outcomes"),
		   outcome_columns, N_COLUMNS(outcome_columns));
	print_list("Networks that failed most, within two minutes", json_object_get(doc, "networks"), network_columns,
		   N_COLUMNS(network_columns));
	print_list("Events", json_object_get(doc, "events"), event_columns, N_COLUMNS(event_columns));
	print_list("Paths", json_object_get(doc, "paths"), path_columns, N_COLUMNS(path_columns));
	print_list("Services", json_object_get(doc, "services"), service_columns, N_COLUMNS(service_columns));
	print_list("Backends", json_object_get(doc, "backends"), backend_columns, N_COLUMNS(backend_columns));
	print_list("Flows", json_object_get(doc, "flows"), flow_columns, N_COLUMNS(flow_columns));
	putchar('\n');
	print_blind(doc);
}

enum ctl_exit command_explain(const struct ctl *ctl)
{
	struct page_query q = {.limit = 0};
	enum ctl_exit result;
	char path[1400];
	json_t *doc;

	if (ctl->n_args != 1 || !query_add_endpoint(&q, ctl->args[0]))
		return usage("expected explain ADDRESS[:PORT]");
	snprintf(path, sizeof(path), "/v1/explain?%s", q.text + 1);
	result = client_request(ctl, "GET", path, &doc);
	if (result == EXIT_OK && !ctl->json)
		print_explanation(doc);
	json_decref(doc);
	return result;
}
