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
	char **args; /* of the command */
	int n_args;
};

/* --- client.c --- */

/*
 * One request. Returns EXIT_OK with the parsed answer in `*doc` (the caller's), or another code after having said why
 * on stderr. With ctl->json the answer's text goes to stdout as it came, whatever its status.
 */
enum ctl_exit client_request(const struct ctl *ctl, const char *method, const char *path, json_t **doc);

/* Percent-encodes; from malloc, NULL if out of memory. */
char *client_escape(const char *text);

/* --- table.c --- */

enum column_kind {
	COLUMN_TEXT,
	COLUMN_NUMBER,
	COLUMN_SECONDS,
	COLUMN_BYTES,
};

struct column {
	const char *key; /* in each row */
	const char *heading;
	enum column_kind kind;
};

/* Aligned, two spaces between columns, "-" for null and for what is not there. `rows`: an array of objects. */
void table_print(FILE *out, const struct column *columns, size_t n_columns, const json_t *rows);

/* One value as a table would show it. */
#define CELL_STRLEN 512
const char *cell_format(enum column_kind kind, const json_t *value, char out[static CELL_STRLEN]);

/* --- commands.c --- */

typedef enum ctl_exit command_fn(const struct ctl *ctl);

command_fn command_status, command_services, command_backends, command_flows, command_paths, command_names,
	command_ledger, command_reload, command_cure, command_drain, command_check;
