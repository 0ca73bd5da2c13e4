/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_query.h"

#include "config.h"
#include "dataplane.h"
#include "observe.h"

#include <microhttpd.h>

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define DEADLINE_MIN_NS 1000000000ull
#define DEADLINE_MAX_NS (7 * 86400 * 1000000000ull)

/* Each returns false for a value that it does not take. */
typedef bool param_fn(const char *value, struct api_query *q);

/* Decimal digits only: no sign, space or base prefix. */
static bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, (unsigned)(*text - '0'), &n))
			return false;
	}
	*out = n;
	return n <= max;
}

static bool copy_text(const char *value, char *out, size_t size)
{
	size_t len = strlen(value);

	if (len == 0 || len >= size)
		return false;
	memcpy(out, value, len + 1);
	return true;
}

static bool param_address(const char *value, struct api_query *q)
{
	return ipaddr_parse(value, &q->address) == 0;
}

static bool param_port(const char *value, struct api_query *q)
{
	uint64_t n;

	if (!parse_number(value, UINT16_MAX, &n) || n == 0)
		return false;
	q->port_be = htons((uint16_t)n);
	return true;
}

static bool param_service(const char *value, struct api_query *q)
{
	return copy_text(value, q->service, sizeof(q->service));
}

static bool param_backend(const char *value, struct api_query *q)
{
	return copy_text(value, q->backend, sizeof(q->backend));
}

static bool param_limit(const char *value, struct api_query *q)
{
	uint64_t n;

	if (!parse_number(value, API_FLOWS_LIMIT_MAX, &n) || n == 0)
		return false;
	q->limit = (unsigned)n;
	return true;
}

static bool param_cursor(const char *value, struct api_query *q)
{
	static const uint64_t max[] = {DATAPLANE_MAX_WORKERS - 1, UINT64_MAX - 1, FLOW_QUERY_ROWS - 1};
	char text[API_CURSOR_STRLEN];
	uint64_t n[3];
	char *rest = text;

	if (!copy_text(value, text, sizeof(text)))
		return false;
	for (int i = 0; i < 3; i++) {
		const char *part = strsep(&rest, ".");

		if (!part || !parse_number(part, max[i], &n[i]))
			return false;
	}
	q->cursor = (struct api_cursor){(unsigned)n[0], n[1], (unsigned)n[2]};
	return rest == NULL;
}

/* The index of `value` among `names`, or -1. */
static int find_word(const char *const *names, int n, const char *value)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], value) == 0)
			return i;
	return -1;
}

static bool param_cure(const char *value, struct api_query *q)
{
	int i = find_word(cure_name, CURES, value);

	q->cure = i < 0 ? 0 : i;
	return i >= 0;
}

static bool param_mode(const char *value, struct api_query *q)
{
	int i = find_word(cure_mode_name, CURE_ENFORCE + 1, value);

	q->mode = i < 0 ? 0 : i;
	return i >= 0;
}

/* The only word there is. */
static bool param_set(const char *value, struct api_query *q)
{
	return strcmp(value, "auto") == 0;
}

static bool param_force(const char *value, struct api_query *q)
{
	int i = find_word(breaker_force_name, FORCE_CLOSE + 1, value);

	q->force = i < 0 ? FORCE_AUTO : i;
	return i >= 0;
}

static bool param_reset(const char *value, struct api_query *q)
{
	return strcmp(value, "reset") == 0;
}

static bool param_deadline(const char *value, struct api_query *q)
{
	return config_parse_duration(value, &q->deadline_ns) == 0 && q->deadline_ns >= DEADLINE_MIN_NS &&
	       q->deadline_ns <= DEADLINE_MAX_NS;
}

static bool param_since(const char *value, struct api_query *q)
{
	return parse_number(value, UINT64_MAX - 1, &q->since);
}

static bool param_follow(const char *value, struct api_query *q)
{
	q->follow = strcmp(value, "1") == 0;
	return q->follow || strcmp(value, "0") == 0;
}

static const struct param {
	const char *name;
	enum api_param bit;
	param_fn *parse;
	const char *expected;
} params[] = {
	{"address", PARAM_ADDRESS, param_address, "an IPv4 or IPv6 address"},
	{"port", PARAM_PORT, param_port, "1 .. 65535"},
	{"service", PARAM_SERVICE, param_service, "the name of a service"},
	{"backend", PARAM_BACKEND, param_backend, "the id of a backend, such as tcp:198.18.3.21:8080"},
	{"limit", PARAM_LIMIT, param_limit, "1 .. 1000"},
	{"cursor", PARAM_CURSOR, param_cursor, "the `next` of an earlier answer"},
	{"cure", PARAM_CURE, param_cure, "wall, names, silence, path or storm"},
	{"mode", PARAM_MODE, param_mode, "enforce, shadow or off"},
	{"set", PARAM_SET, param_set, "auto"},
	{"set", PARAM_FORCE, param_force, "open, close or auto"},
	{"set", PARAM_RESET, param_reset, "reset"},
	{"deadline", PARAM_DEADLINE, param_deadline, "a duration such as 30s, from 1s to 7d"},
	{"since", PARAM_SINCE, param_since, "the number of an event"},
	{"follow", PARAM_FOLLOW, param_follow, "1 or 0"},
};

static_assert(API_FLOWS_LIMIT_MAX == 1000, "the text of `limit` says so");

static const struct param *find_param(const char *name, unsigned allowed)
{
	for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
		if ((params[i].bit & allowed) && strcmp(params[i].name, name) == 0)
			return &params[i];
	return NULL;
}

/* In place; false if the text hides a NUL. */
static bool unescape(char *text)
{
	return MHD_http_unescape(text) == strlen(text);
}

static int parse_pair(char *pair, unsigned allowed, struct api_query *q, char err[static API_QUERY_ERR])
{
	char *value = strchr(pair, '=');
	const struct param *p;

	if (value)
		*value++ = '\0';
	p = unescape(pair) ? find_param(pair, allowed) : NULL;
	if (!p) {
		snprintf(err, API_QUERY_ERR, "unknown parameter '%.64s'", pair);
		return -EINVAL;
	}
	if (q->given & p->bit) {
		snprintf(err, API_QUERY_ERR, "parameter '%s' is there twice", p->name);
		return -EINVAL;
	}
	if (!value || !unescape(value) || !p->parse(value, q)) {
		snprintf(err, API_QUERY_ERR, "bad value '%.80s' of '%s': expected %s", value ? value : "", p->name,
			 p->expected);
		return -EINVAL;
	}
	q->given |= p->bit;
	return 0;
}

int api_query_parse(const char *text, unsigned allowed, struct api_query *out, char err[static API_QUERY_ERR])
{
	struct api_query q = {.limit = API_FLOWS_LIMIT_MAX};
	char copy[API_QUERY_MAX + 1];
	char *rest = copy;

	if (!text || !*text) {
		*out = q;
		return 0;
	}
	if (!copy_text(text, copy, sizeof(copy))) {
		snprintf(err, API_QUERY_ERR, "query longer than %d bytes", API_QUERY_MAX);
		return -EINVAL;
	}
	for (char *pair = strsep(&rest, "&"); pair; pair = strsep(&rest, "&"))
		if (*pair && parse_pair(pair, allowed, &q, err) < 0)
			return -EINVAL;
	if ((q.given & PARAM_PORT) && !(q.given & PARAM_ADDRESS)) {
		snprintf(err, API_QUERY_ERR, "'port' needs 'address': it is the port beside that address");
		return -EINVAL;
	}
	*out = q;
	return 0;
}

void api_cursor_format(const struct api_cursor *cursor, char out[static API_CURSOR_STRLEN])
{
	snprintf(out, API_CURSOR_STRLEN, "%u.%llu.%u", cursor->worker, (unsigned long long)cursor->position,
		 cursor->skip);
}
