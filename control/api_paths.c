/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_docs.h"

#include "json_row.h"
#include "observe.h"

#include <stdio.h>

struct path_json {
	char address[IPADDR_STRLEN + 4]; /* a prefix with its length */
	const char *side, *source;
	uint16_t mtu;
	double age_s, expires_s;
};

static const struct json_field path_fields[] = {
	JSON_FIELD(path_json, address), JSON_FIELD(path_json, mtu),   JSON_FIELD(path_json, side),
	JSON_FIELD(path_json, source),  JSON_FIELD(path_json, age_s), JSON_FIELD(path_json, expires_s),
};

static json_t *path_json(const struct path_row *r)
{
	struct path_json row = {
		.side = r->kind == PATH_UPSTREAM ? "upstream" : "client",
		.source = r->source,
		.mtu = r->mtu,
		.age_s = r->age_ms / 1e3,
		.expires_s = r->expires_ms / 1e3,
	};
	char addr[IPADDR_STRLEN];

	ipaddr_format(&r->addr, addr);
	if (r->kind == PATH_PREFIX)
		snprintf(row.address, sizeof(row.address), "%s/%u", addr, r->prefix_len);
	else
		snprintf(row.address, sizeof(row.address), "%s", addr);
	return JSON_ROW(path_fields, &row);
}

/* Prefixes end at whole bytes. */
static bool concerns(const struct path_row *r, const struct ipaddr *addr)
{
	unsigned bits = r->prefix_len + (ipaddr_is_v4(&r->addr) ? 96 : 0);

	return ipaddr_is_v4(&r->addr) == ipaddr_is_v4(addr) && memcmp(r->addr.b, addr->b, bits / 8) == 0;
}

/* The address that was asked for may have an entry of its own, and its prefix another one. */
unsigned api_doc_paths(const struct api_source *src, const struct view *view, const struct api_query *query,
		       json_t **doc, char err[static API_QUERY_ERR])
{
	struct api_cursor cursor = query->cursor;
	char next[API_CURSOR_STRLEN];
	json_t *rows = json_array();

	while (cursor.position != UINT64_MAX && json_array_size(rows) < query->limit) {
		struct path_row batch[PATH_QUERY_ROWS];
		size_t room = query->limit - json_array_size(rows);
		size_t n = observe_paths(src->dp, &cursor.position, batch,
					 room < PATH_QUERY_ROWS ? room : PATH_QUERY_ROWS);

		for (size_t i = 0; i < n; i++)
			if (!(query->given & PARAM_ADDRESS) || concerns(&batch[i], &query->address))
				json_array_append_new(rows, path_json(&batch[i]));
	}
	api_cursor_format(&cursor, next);
	*doc = json_pack("{s:o,s:s?}", "paths", rows, "next", cursor.position == UINT64_MAX ? NULL : next);
	return 200;
}
