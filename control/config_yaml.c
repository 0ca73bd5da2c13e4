/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Text to nodes. A first pass over the events refuses what the document API would hide (anchors, aliases, tags,
 * directives, more documents) and what is out of bounds; an alias can make a small file a huge or endless tree.
 */
#include "config_schema.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH    16
#define MAX_NODES    1000000
#define MAX_ERRORS   500
#define MAX_WARNINGS 100

__attribute__((format(printf, 5, 0))) static void say(struct config_reader *r, yaml_mark_t mark, const char *kind,
						      const char *path, const char *format, va_list args)
{
	char text[512], line[1024];

	vsnprintf(text, sizeof(text), format, args);
	snprintf(line, sizeof(line), "%s:%zu:%zu: %s%s: %s", r->file, mark.line + 1, mark.column + 1, kind, path, text);
	r->message(r->arg, line);
}

void config_error_at(struct config_reader *r, yaml_mark_t mark, const char *path, const char *format, ...)
{
	va_list args;

	if (r->n_errors++ >= MAX_ERRORS)
		return;
	va_start(args, format);
	say(r, mark, "", path, format, args);
	va_end(args);
}

void config_warning_at(struct config_reader *r, yaml_mark_t mark, const char *path, const char *format, ...)
{
	va_list args;

	if (r->n_warnings++ >= MAX_WARNINGS)
		return;
	va_start(args, format);
	say(r, mark, "warning: ", path, format, args);
	va_end(args);
}

const char *config_quote(const yaml_node_t *scalar, char out[static CONFIG_QUOTE_MAX])
{
	size_t len = scalar->data.scalar.length, n = 0;

	if (len == 0 && scalar->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		return strcpy(out, "nothing");
	out[n++] = '\'';
	for (size_t i = 0; i < len && n < CONFIG_QUOTE_MAX - 6; i++) {
		unsigned char c = scalar->data.scalar.value[i];

		out[n++] = isprint(c) ? c : '?';
	}
	strcpy(out + n, n - 1 < len ? "...'" : "'");
	return out;
}

/*
 * The reader stops at a byte, not at a mark: counts lines and characters up to it, or up to the first byte of the
 * character whose later bytes are wrong.
 */
static yaml_mark_t mark_of_byte(const char *text, size_t len, size_t offset, bool trailing)
{
	yaml_mark_t mark = {0};

	while (trailing && offset && (offset >= len || (unsigned char)text[offset] < 0xc0))
		offset--;
	for (size_t i = 0; i < len && i < offset; i++) {
		if (text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		} else if (((unsigned char)text[i] & 0xc0) != 0x80) {
			mark.column++;
		}
	}
	return mark;
}

static void syntax_error(struct config_reader *r, const yaml_parser_t *parser, const char *text, size_t len)
{
	const char *hint = "";
	yaml_mark_t mark = parser->problem_mark;

	if (parser->error == YAML_READER_ERROR) {
		mark = mark_of_byte(text, len, parser->problem_offset, strstr(parser->problem, "trailing"));
		config_error_at(r, mark, "yaml", "expected UTF-8 text, found a bad byte or character: %s (0x%02x)",
				parser->problem, (unsigned)parser->problem_value);
		return;
	}
	if (parser->problem && strstr(parser->problem, "cannot start any token"))
		hint = ": indent with spaces, not tabs, and quote a text that begins with a special character";
	config_error_at(r, mark, "yaml", "%s%s%s%s", parser->context ? parser->context : "",
			parser->context ? ", " : "", parser->problem ? parser->problem : "out of memory", hint);
}

struct scan {
	unsigned depth, n_documents, n_nodes;
	bool stop;
};

static const char plain_file[] = "expected a plain file of maps, lists and values";

static void refuse_properties(struct config_reader *r, const yaml_event_t *event, const yaml_char_t *anchor,
			      const yaml_char_t *tag)
{
	if (anchor)
		config_error_at(r, event->start_mark, "yaml", "%s, found the anchor &%.40s", plain_file, anchor);
	if (tag)
		config_error_at(r, event->start_mark, "yaml", "%s, found the tag %.60s", plain_file, tag);
}

static void scan_document(struct config_reader *r, struct scan *s, const yaml_event_t *event)
{
	if (event->data.document_start.version_directive ||
	    event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
		config_error_at(r, event->start_mark, "yaml", "%s, found a %% directive", plain_file);
	if (++s->n_documents == 2) {
		config_error_at(r, event->start_mark, "yaml", "expected one document, found a second");
		s->stop = true;
	}
}

static void scan_event(struct config_reader *r, struct scan *s, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_STREAM_END_EVENT:
		s->stop = true;
		break;
	case YAML_DOCUMENT_START_EVENT:
		scan_document(r, s, event);
		break;
	case YAML_ALIAS_EVENT:
		config_error_at(r, event->start_mark, "yaml", "%s, found the alias *%.40s", plain_file,
				event->data.alias.anchor);
		break;
	case YAML_SCALAR_EVENT:
		s->n_nodes++;
		refuse_properties(r, event, event->data.scalar.anchor, event->data.scalar.tag);
		break;
	case YAML_SEQUENCE_START_EVENT:
		s->n_nodes++, s->depth++;
		refuse_properties(r, event, event->data.sequence_start.anchor, event->data.sequence_start.tag);
		break;
	case YAML_MAPPING_START_EVENT:
		s->n_nodes++, s->depth++;
		refuse_properties(r, event, event->data.mapping_start.anchor, event->data.mapping_start.tag);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		s->depth--;
		break;
	default:
		break;
	}
	if (s->depth > MAX_DEPTH)
		config_error_at(r, event->start_mark, "yaml", "expected at most %u levels", MAX_DEPTH);
	else if (s->n_nodes > MAX_NODES)
		config_error_at(r, event->start_mark, "yaml", "expected at most %u values", MAX_NODES);
	s->stop |= s->depth > MAX_DEPTH || s->n_nodes > MAX_NODES;
}

/* UTF-8 is set, or a byte order mark could make it UTF-16 and every position wrong. */
static int parser_init(yaml_parser_t *parser, const char *text, size_t len)
{
	if (!yaml_parser_initialize(parser))
		return -ENOMEM;
	yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(parser, (const unsigned char *)(text ? text : ""), len);
	return 0;
}

static int scan_text(struct config_reader *r, const char *text, size_t len)
{
	struct scan scan = {0};
	yaml_parser_t parser;

	if (parser_init(&parser, text, len) < 0)
		return -ENOMEM;
	while (!scan.stop) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event)) {
			syntax_error(r, &parser, text, len);
			break;
		}
		scan_event(r, &scan, &event);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	if (!r->n_errors && scan.n_documents == 0)
		config_error_at(r, (yaml_mark_t){0}, "yaml", "expected the keys gateway and services, found nothing");
	return r->n_errors ? -EINVAL : 0;
}

int config_reader_load(struct config_reader *r, const char *text, size_t len)
{
	yaml_parser_t parser;
	int err;

	if (len > CONFIG_MAX_FILE_BYTES) {
		config_error_at(r, (yaml_mark_t){0}, "yaml", "expected at most %u bytes, found %zu",
				CONFIG_MAX_FILE_BYTES, len);
		return -EFBIG;
	}
	err = scan_text(r, text, len);
	if (err)
		return err;
	if (parser_init(&parser, text, len) < 0)
		return -ENOMEM;
	r->loaded = yaml_parser_load(&parser, &r->doc);
	if (!r->loaded)
		syntax_error(r, &parser, text, len);
	yaml_parser_delete(&parser);
	return r->loaded ? 0 : -EINVAL;
}

static void say_unsaid(struct config_reader *r, unsigned n, unsigned max, const char *what)
{
	char line[512];

	if (n <= max)
		return;
	snprintf(line, sizeof(line), "%s: and %u more %s", r->file, n - max, what);
	r->message(r->arg, line);
}

void config_reader_fini(struct config_reader *r)
{
	say_unsaid(r, r->n_errors, MAX_ERRORS, "errors");
	say_unsaid(r, r->n_warnings, MAX_WARNINGS, "warnings");
	if (r->loaded)
		yaml_document_delete(&r->doc);
	r->loaded = false;
}

static yaml_node_t *child_of_map(yaml_document_t *doc, const yaml_node_t *map, const char *name, size_t len)
{
	for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++) {
		const yaml_node_t *key = yaml_document_get_node(doc, pair->key);

		if (key->type == YAML_SCALAR_NODE && key->data.scalar.length == len &&
		    memcmp(key->data.scalar.value, name, len) == 0)
			return yaml_document_get_node(doc, pair->value);
	}
	return NULL;
}

static yaml_node_t *child_of_list(yaml_document_t *doc, const yaml_node_t *list, size_t i)
{
	size_t n = list->data.sequence.items.top - list->data.sequence.items.start;

	return i < n ? yaml_document_get_node(doc, list->data.sequence.items.start[i]) : NULL;
}

yaml_mark_t config_locate(struct config_reader *r, const char *path)
{
	yaml_node_t *node = yaml_document_get_root_node(&r->doc), *child = node;

	while (child && *path) {
		size_t len = strcspn(path, ".[");

		node = child;
		if (*path == '[') {
			char *end;
			size_t i = strtoul(path + 1, &end, 10);

			child = node->type == YAML_SEQUENCE_NODE ? child_of_list(&r->doc, node, i) : NULL;
			path = *end ? end + 1 : end;
		} else {
			child = node->type == YAML_MAPPING_NODE ? child_of_map(&r->doc, node, path, len) : NULL;
			path += len;
		}
		if (*path == '.')
			path++;
	}
	return child ? child->start_mark : node->start_mark;
}
