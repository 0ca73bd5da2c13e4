/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The query part of a request, checked as a whole: pure functions, no connection and no gateway behind them.
 */
#pragma once

#include "breaker.h"
#include "cure.h"
#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API_QUERY_MAX       511  /* bytes of the raw text: it must fit api_command.query */
#define API_FLOWS_LIMIT_MAX 1000 /* rows of anything */

/* Which parameters a path knows; a bit each. */
enum api_param {
	PARAM_ADDRESS = 1 << 0,
	PARAM_PORT = 1 << 1,
	PARAM_SERVICE = 1 << 2,
	PARAM_BACKEND = 1 << 3,
	PARAM_LIMIT = 1 << 4,
	PARAM_CURSOR = 1 << 5,
	PARAM_CURE = 1 << 6,
	PARAM_MODE = 1 << 7,
	PARAM_SET = 1 << 8,
	PARAM_DEADLINE = 1 << 9,
	PARAM_SINCE = 1 << 10,
	PARAM_FOLLOW = 1 << 11,
	PARAM_FORCE = 1 << 12, /* `set`, of a breaker */
	PARAM_RESET = 1 << 13, /* `set`, of a limiter */
};

/*
 * Where a page of flows goes on: the worker, the dataplane's cursor there, and rows of that batch already given. Of a
 * page of paths or backends the position alone.
 */
struct api_cursor {
	unsigned worker;
	uint64_t position;
	unsigned skip;
};

struct api_query {
	unsigned given; /* enum api_param */
	struct ipaddr address;
	uint16_t port_be;
	char service[64];
	char backend[80];
	unsigned limit; /* API_FLOWS_LIMIT_MAX if not given */
	struct api_cursor cursor;
	enum cure cure;
	enum cure_mode mode;
	uint64_t deadline_ns;
	enum breaker_force force;
	uint64_t since; /* number of an event */
	bool follow;
};

#define API_QUERY_ERR 256

/*
 * Parses "a=1&b=2" (NULL or "": nothing given); names and values may be percent-encoded. Returns 0, or -EINVAL with a
 * sentence in `err` that names the parameter: one that is not in `allowed`, twice there, without a value, or of a bad
 * value. `*out` is complete on success only.
 */
int api_query_parse(const char *text, unsigned allowed, struct api_query *out, char err[static API_QUERY_ERR]);

/* "1.4096.7": what /v1/flows, /v1/paths and /v1/backends give as `next` and take as `cursor`. */
#define API_CURSOR_STRLEN 48
void api_cursor_format(const struct api_cursor *cursor, char out[static API_CURSOR_STRLEN]);
