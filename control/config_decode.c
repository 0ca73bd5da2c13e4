/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes to fields, as the schema says. An error never ends the walk: the reader counts it, the field keeps its default.
 */
#include "config_schema.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_LEN 192

struct walk {
	struct config_reader *r;
	char path[PATH_MAX_LEN];
	size_t len;
};

static void decode_value(struct walk *w, const struct config_key *key, const yaml_node_t *node, void *base);

/* Longer paths are cut: only unknown keys can make them so long. */
__attribute__((format(printf, 2, 3))) static size_t path_push(struct walk *w, const char *format, ...)
{
	size_t before = w->len;
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(w->path + w->len, sizeof(w->path) - w->len, format, args);
	va_end(args);
	w->len += n;
	if (w->len >= sizeof(w->path))
		w->len = sizeof(w->path) - 1;
	return before;
}

static void path_pop(struct walk *w, size_t before)
{
	w->len = before;
	w->path[before] = '\0';
}

static void *field_of(const struct config_key *key, void *base)
{
	return (char *)base + key->offset;
}

void config_defaults(const struct config_map *map, void *base)
{
	for (size_t i = 0; i < map->n_keys; i++) {
		const struct config_key *key = &map->keys[i];
		const char *hint;

		if (key->type == TYPE_MAP)
			config_defaults(key->map, field_of(key, base));
		else if (key->fallback)
			config_value_parse(key, key->fallback, field_of(key, base), &hint);
	}
}

static const char *node_words(const yaml_node_t *node, char out[static CONFIG_QUOTE_MAX])
{
	if (node->type == YAML_SCALAR_NODE)
		return config_quote(node, out);
	return node->type == YAML_MAPPING_NODE ? "a map" : "a list";
}

static void expected(struct walk *w, const yaml_node_t *node, const char *what, const char *hint)
{
	char found[CONFIG_QUOTE_MAX];

	config_error_at(w->r, node->start_mark, w->len ? w->path : "yaml", "expected %s, found %s%s%s", what,
			node_words(node, found), hint ? ": " : "", hint ? hint : "");
}

static void keep_position(const struct config_key *key, const yaml_node_t *node, void *field)
{
	unsigned *line_column = (unsigned *)((char *)field + key->position);

	if (key->position) {
		line_column[0] = node->start_mark.line + 1;
		line_column[1] = node->start_mark.column + 1;
	}
}

static void decode_scalar(struct walk *w, const struct config_key *key, const yaml_node_t *node, void *field)
{
	char what[CONFIG_TEXT_MAX];
	const char *hint = NULL;

	keep_position(key, node, field);
	if (node->type == YAML_SCALAR_NODE) {
		const char *text = (const char *)node->data.scalar.value;

		if (memchr(text, '\0', node->data.scalar.length))
			hint = "a value has no NUL character";
		else if (config_value_parse(key, text, field, &hint) == 0)
			return;
	}
	config_value_describe(key, what);
	expected(w, node, what, hint);
}

/* Letters to insert, delete or change to make a of b; texts of more than 31 letters are not alike. */
static unsigned distance(const char *a, size_t a_len, const char *b)
{
	unsigned row[32], b_len = strlen(b);

	if (a_len >= 32 || b_len >= 32)
		return 32;
	for (unsigned j = 0; j <= b_len; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
		}
	}
	return row[b_len];
}

static void unknown_key(struct walk *w, const struct config_map *map, const yaml_node_t *node)
{
	const char *name = (const char *)node->data.scalar.value, *near = NULL;
	size_t len = node->data.scalar.length, room = 0, before;
	char quoted[CONFIG_QUOTE_MAX], all[CONFIG_TEXT_MAX];
	unsigned best = len < 5 ? 2 : 3;

	for (size_t i = 0; i < map->n_keys; i++) {
		unsigned d = distance(name, len, map->keys[i].name);

		if (d < best) {
			best = d;
			near = map->keys[i].name;
		}
		room += snprintf(all + room, sizeof(all) - room, "%s%s", i ? ", " : "", map->keys[i].name);
	}
	config_quote(node, quoted);
	before = path_push(w, "%s%.*s", w->len ? "." : "", (int)strlen(quoted) - 2, quoted + 1);
	if (len == 2 && memcmp(name, "<<", 2) == 0)
		config_error_at(w->r, node->start_mark, w->path, "expected no merge key: they are not supported");
	else if (near)
		config_error_at(w->r, node->start_mark, w->path, "unknown key, did you mean %s?", near);
	else
		config_error_at(w->r, node->start_mark, w->path, "unknown key, expected one of %s", all);
	path_pop(w, before);
}

static const struct config_key *find_key(const struct config_map *map, const yaml_node_t *node)
{
	for (size_t i = 0; i < map->n_keys; i++)
		if (strlen(map->keys[i].name) == node->data.scalar.length &&
		    memcmp(map->keys[i].name, node->data.scalar.value, node->data.scalar.length) == 0)
			return &map->keys[i];
	return NULL;
}

/* What stands in a map: a bit and a line per key. */
struct seen {
	uint32_t bits;
	unsigned line[32];
	bool unsupported;
};

static void decode_key(struct walk *w, const struct config_map *map, struct seen *seen, const yaml_node_t *name,
		       const yaml_node_t *value, void *base)
{
	const struct config_key *key = find_key(map, name);
	size_t i, before;

	if (!key) {
		unknown_key(w, map, name);
		return;
	}
	i = key - map->keys;
	before = path_push(w, "%s%s", w->len ? "." : "", key->name);
	if (seen->bits & 1u << i) {
		config_error_at(w->r, name->start_mark, w->path, "duplicate key, first at line %u", seen->line[i]);
	} else if (key->flags & KEY_UNSUPPORTED) {
		config_error_at(w->r, name->start_mark, w->path, "not supported yet");
		seen->unsupported = true;
	} else {
		if (key->flags & KEY_NO_EFFECT)
			config_warning_at(w->r, name->start_mark, w->path, "has no effect yet");
		decode_value(w, key, value, base);
	}
	seen->bits |= 1u << i;
	seen->line[i] = name->start_mark.line + 1;
	path_pop(w, before);
}

static void check_missing(struct walk *w, const struct config_map *map, const struct seen *seen,
			  const yaml_node_t *node)
{
	unsigned one_of = 0, n_seen = 0;
	char names[CONFIG_TEXT_MAX] = "";

	if (seen->unsupported)
		return;
	for (size_t i = 0; i < map->n_keys; i++) {
		const struct config_key *key = &map->keys[i];
		bool is_seen = seen->bits & 1u << i;

		if ((key->flags & KEY_REQUIRED) && !is_seen) {
			size_t before = path_push(w, "%s%s", w->len ? "." : "", key->name);

			config_error_at(w->r, node->start_mark, w->path, "missing: %s", key->help);
			path_pop(w, before);
		}
		if (!(key->flags & KEY_ONE_OF))
			continue;
		n_seen += is_seen;
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", one_of++ ? ", " : "", key->name);
	}
	if (one_of && n_seen != 1)
		config_error_at(w->r, node->start_mark, w->path, "expected exactly one of %s, found %u", names, n_seen);
}

static void decode_map(struct walk *w, const struct config_key *key, const yaml_node_t *node, void *base)
{
	const struct config_map *map = key->map;
	struct seen seen = {0};

	static_assert(sizeof(seen.line) / sizeof(seen.line[0]) == sizeof(seen.bits) * 8, "a bit and a line per key");
	keep_position(key, node, base);
	if (node->type != YAML_MAPPING_NODE) {
		expected(w, node, "a map of keys and values", NULL);
		return;
	}
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
		const yaml_node_t *name = yaml_document_get_node(&w->r->doc, p->key);

		if (name->type == YAML_SCALAR_NODE)
			decode_key(w, map, &seen, name, yaml_document_get_node(&w->r->doc, p->value), base);
		else
			expected(w, name, "a word as key", NULL);
	}
	check_missing(w, map, &seen, node);
}

/* The array that takes `n` items; NULL if there is no memory. The count is stored with it, so that it can be freed. */
static char *list_room(const struct config_list *list, void *field, void *base, size_t n)
{
	char *count = (char *)base + list->count_offset, *items = field;

	if (list->dynamic) {
		items = calloc(n, list->item.size);
		*(void **)field = items;
	}
	if (!items)
		n = 0;
	if (list->count_size == sizeof(size_t))
		*(size_t *)count = n;
	else
		*(unsigned *)count = n;
	return items;
}

static void decode_list(struct walk *w, const struct config_key *key, const yaml_node_t *node, void *base)
{
	const struct config_list *list = key->list;
	size_t n;
	char *items;

	if (node->type != YAML_SEQUENCE_NODE) {
		expected(w, node, "a list", NULL);
		return;
	}
	n = node->data.sequence.items.top - node->data.sequence.items.start;
	if (n < list->min_items || n > list->max_items) {
		config_error_at(w->r, node->start_mark, w->path, "expected a list of %zu to %zu items, found %zu",
				list->min_items, list->max_items, n);
		n = n > list->max_items ? list->max_items : n;
	}
	if (n == 0)
		return;
	items = list_room(list, field_of(key, base), base, n);
	if (!items) {
		config_error_at(w->r, node->start_mark, w->path, "out of memory");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		size_t before = path_push(w, "[%zu]", i);
		const yaml_node_t *item = yaml_document_get_node(&w->r->doc, node->data.sequence.items.start[i]);

		if (list->item.map)
			config_defaults(list->item.map, items + i * list->item.size);
		decode_value(w, &list->item, item, items + i * list->item.size);
		path_pop(w, before);
	}
}

static void decode_value(struct walk *w, const struct config_key *key, const yaml_node_t *node, void *base)
{
	if (key->type == TYPE_MAP)
		decode_map(w, key, node, field_of(key, base));
	else if (key->type == TYPE_LIST)
		decode_list(w, key, node, base);
	else
		decode_scalar(w, key, node, field_of(key, base));
}

void config_decode(struct config_reader *r, struct config *config)
{
	const struct config_key root = {.type = TYPE_MAP, .map = &config_root};
	struct walk w = {.r = r};

	/* 0 is a CPU: one that could not be read must not look like it. */
	memset(config->workers, 0xff, sizeof(config->workers));
	config_defaults(&config_root, config);
	decode_value(&w, &root, yaml_document_get_root_node(&r->doc), config);
}
