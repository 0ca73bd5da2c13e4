/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spillwayctl: a thin client. It knows the HTTP API and nothing else of the gateway.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

enum ctl_exit {
	EXIT_OK = 0,
	EXIT_USAGE = 1,
	EXIT_UNREACHABLE = 2,
	EXIT_REFUSED = 3, /* by the gateway, or it is not ready */
};

struct ctl {
	const char *socket_path;
	bool json;
	bool follow; /* events only */
	char **args; /* of the command */
	int n_args;
};

/* --- client.c --- */

/*
 * One request. Returns EXIT_OK with the parsed answer in `*doc` (the caller's), or another code after having said why
 * on stderr. With ctl->json the answer's text goes to stdout as it came, whatever its status.
 */
enum ctl_exit client_request(const struct ctl *ctl, const char *method, const char *path, json_t **doc);

/*
 * One request whose answer is a stream of lines: `line` is told each that is not empty, until it returns false or the
 * stream ends. Returns EXIT_OK if the gateway ended it, or another code after having said why.
 */
typedef bool client_line_fn(void *arg, const char *line);
enum ctl_exit client_stream(const struct ctl *ctl, const char *path, client_line_fn *line, void *arg);

/* Percent-encodes; from malloc, NULL if out of memory. */
char *client_escape(const char *text);

/* --- table.c --- */

enum column_kind {
	COLUMN_TEXT,
	COLUMN_NUMBER,
	COLUMN_WHOLE, /* the same without decimals: what may be null is no integer in JSON */
	COLUMN_SECONDS,
	COLUMN_BYTES,
	COLUMN_TIME, /* Unix seconds, shown as local time; the day, too, unless it is today */
};

struct column {
	const char *key; /* in each row */
	const char *heading;
	enum column_kind kind;
};

/* Aligned, two spaces between columns, "-" for null and for what is not there. `rows`: an array of objects. */
void table_print(FILE *out, const struct column *columns, size_t n_columns, const json_t *rows);

/* The same after an empty line; nothing of no rows, which it takes. */
void table_print_more(FILE *out, const struct column *columns, size_t n_columns, json_t *rows);
/* Of a list within each row: its rows, to which the row's own `owner` is added. The caller's. */
json_t *table_rows_within(const json_t *rows, const char *list, const char *owner);

/* One value as a table would show it. */
#define CELL_STRLEN 512
const char *cell_format(enum column_kind kind, const json_t *value, char out[static CELL_STRLEN]);

/* --- query.c: lists that come in pages --- */

#define ROWS_DEFAULT 1000

struct page_query {
	const char *path, *key; /* of the list, and of its rows in the answer */
	char text[1024];        /* "&address=…": all but limit and cursor */
	char cursor[128];
	unsigned long limit;
};

/* Each returns false for what does not fit, or is no such argument. */
bool query_add(struct page_query *q, const char *key, const char *value);
/* "198.18.2.7", "198.18.2.7:34567", "2001:db8::7", "[2001:db8::7]:34567" */
bool query_add_endpoint(struct page_query *q, const char *arg);
/* "limit=5", "cursor=…": what every such list knows. */
bool query_set_page(struct page_query *q, const char *arg);

/* Adds the rows, until there are q->limit or no more; with --json those of one page. */
enum ctl_exit query_pages(const struct ctl *ctl, struct page_query *q, json_t *rows);
void query_print(const struct page_query *q, const struct column *columns, size_t n_columns, const json_t *rows);
/* Both, the whole of a command. */
enum ctl_exit query_show(const struct ctl *ctl, struct page_query *q, const struct column *columns, size_t n_columns);

/* --- commands.c, observe.c --- */

enum ctl_exit usage(const char *what);

typedef enum ctl_exit command_fn(const struct ctl *ctl);

command_fn command_status, command_services, command_backends, command_flows, command_paths, command_names,
	command_ledger, command_reload, command_cure, command_breaker, command_limiter, command_drain, command_check,
	command_clients, command_events, command_explain;
