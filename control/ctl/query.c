/* SPDX-License-Identifier: BSD-3-Clause */
/* Arguments of commands into queries, and queries into pages of rows. */
#include "ctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_MAX 1000

bool query_add(struct page_query *q, const char *key, const char *value)
{
	char *escaped = client_escape(value);
	size_t len = strlen(q->text);
	int n = snprintf(q->text + len, sizeof(q->text) - len, "&%s=%s", key, escaped ? escaped : "");
	bool fits = escaped && n > 0 && (size_t)n < sizeof(q->text) - len;

	free(escaped);
	return fits;
}

bool query_add_endpoint(struct page_query *q, const char *arg)
{
	char text[128], *address = text, *port = NULL, *colon;

	if ((size_t)snprintf(text, sizeof(text), "%s", arg) >= sizeof(text))
		return false;
	colon = strrchr(text, ':');
	if (*text == '[') {
		char *end = strchr(text, ']');

		if (!end || (end[1] != '\0' && end[1] != ':'))
			return false;
		port = end[1] ? end + 2 : NULL;
		*end = '\0';
		address++;
	} else if (colon && strchr(text, ':') == colon) {
		*colon = '\0';
		port = colon + 1;
	}
	return query_add(q, "address", address) && (!port || query_add(q, "port", port));
}

bool query_set_page(struct page_query *q, const char *arg)
{
	char *end;

	if (strncmp(arg, "cursor=", 7) == 0)
		return (size_t)snprintf(q->cursor, sizeof(q->cursor), "%s", arg + 7) < sizeof(q->cursor);
	if (strncmp(arg, "limit=", 6) != 0 || arg[6] < '1' || arg[6] > '9')
		return false;
	errno = 0;
	q->limit = strtoul(arg + 6, &end, 10);
	return !*end && errno == 0;
}

/* One page; sets q->cursor to the next one, "" after the last. */
static enum ctl_exit next_page(const struct ctl *ctl, struct page_query *q, unsigned long n_max, json_t *rows)
{
	char *cursor = client_escape(q->cursor), path[1400];
	enum ctl_exit result;
	json_t *doc;

	snprintf(path, sizeof(path), "%s?limit=%lu%s%s%s", q->path, n_max < PAGE_MAX ? n_max : PAGE_MAX, q->text,
		 *q->cursor ? "&cursor=" : "", cursor ? cursor : "");
	free(cursor);
	result = client_request(ctl, "GET", path, &doc);
	if (result == EXIT_OK) {
		const char *next = json_string_value(json_object_get(doc, "next"));

		json_array_extend(rows, json_object_get(doc, q->key));
		snprintf(q->cursor, sizeof(q->cursor), "%s", next ? next : "");
	}
	json_decref(doc);
	return result;
}

enum ctl_exit query_pages(const struct ctl *ctl, struct page_query *q, json_t *rows)
{
	enum ctl_exit result;

	do
		result = next_page(ctl, q, q->limit - json_array_size(rows), rows);
	while (result == EXIT_OK && !ctl->json && *q->cursor && json_array_size(rows) < q->limit);
	return result;
}

void query_print(const struct page_query *q, const struct column *columns, size_t n_columns, const json_t *rows)
{
	table_print(stdout, columns, n_columns, rows);
	if (*q->cursor)
		fprintf(stderr, "There may be more: go on with cursor=%s\n", q->cursor);
}

enum ctl_exit query_show(const struct ctl *ctl, struct page_query *q, const struct column *columns, size_t n_columns)
{
	json_t *rows = json_array();
	enum ctl_exit result = query_pages(ctl, q, rows);

	if (result == EXIT_OK && !ctl->json)
		query_print(q, columns, n_columns, rows);
	json_decref(rows);
	return result;
}
