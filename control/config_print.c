/* SPDX-License-Identifier: BSD-3-Clause */
/* The effective configuration and the commented example, both out of the schema. */
#include "config_schema.h"

#include <stdio.h>
#include <string.h>

#define COLUMNS 116

/* Plain where YAML reads the text as it stands, else in double quotes. */
static void print_scalar(FILE *out, const char *text)
{
	static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./%-";

	if (*text && *text != '-' && *text != '%' && strspn(text, harmless) == strlen(text)) {
		fputs(text, out);
		return;
	}
	putc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putc('\\', out);
		putc(*text, out);
	}
	putc('"', out);
}

static void print_indent(FILE *out, unsigned depth)
{
	fprintf(out, "%*s", (int)depth * 2, "");
}

/* --- the effective configuration --- */

static void print_map(FILE *out, const struct config_map *map, const void *base, unsigned depth, bool in_item);

static void print_value(FILE *out, const struct config_key *key, const void *field)
{
	char text[CONFIG_TEXT_MAX];

	config_value_format(key, field, text);
	print_scalar(out, text);
}

static void print_list(FILE *out, const struct config_key *key, const void *base, unsigned depth)
{
	const struct config_list *list = key->list;
	const char *items = config_list_items(key, base);
	size_t n = config_list_count(list, base);

	if (list->item.map) {
		putc('\n', out);
		for (size_t i = 0; i < n; i++) {
			print_indent(out, depth + 1);
			fputs("- ", out);
			print_map(out, list->item.map, items + i * list->item.size, depth + 2, true);
		}
		return;
	}
	fputs(" [", out);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? ", " : "", out);
		print_value(out, &list->item, items + i * list->item.size);
	}
	fputs("]\n", out);
}

/* Of keys that exclude each other, those without a value are empty texts or zero addresses. */
static bool is_absent(const struct config_key *key, const void *field)
{
	static const struct ipaddr none;

	if (!(key->flags & KEY_ONE_OF))
		return false;
	if (key->flags & KEY_UNSUPPORTED)
		return true;
	return key->type == TYPE_ADDRESS ? memcmp(field, &none, sizeof(none)) == 0 : *(const char *)field == '\0';
}

/* `in_item`: the first key stands on the line of its item's dash. */
static void print_map(FILE *out, const struct config_map *map, const void *base, unsigned depth, bool in_item)
{
	for (size_t i = 0; i < map->n_keys; i++) {
		const struct config_key *key = &map->keys[i];
		const char *field = (const char *)base + key->offset;

		if (is_absent(key, field))
			continue;
		if (!in_item)
			print_indent(out, depth);
		in_item = false;
		fprintf(out, "%s:", key->name);
		if (key->type == TYPE_MAP) {
			putc('\n', out);
			print_map(out, key->map, field, depth + 1, false);
		} else if (key->type == TYPE_LIST) {
			print_list(out, key, base, depth);
		} else {
			putc(' ', out);
			print_value(out, key, field);
			putc('\n', out);
		}
	}
}

void config_print(const struct config *config, struct _IO_FILE *out)
{
	print_map(out, &config_root, config, 0, false);
}

/* --- the example --- */

static void example_map(FILE *out, const struct config_map *map, unsigned depth, unsigned item, bool in_item);

/* Breaks the text at blanks into lines of comment. */
static void print_comment(FILE *out, unsigned depth, const char *text)
{
	size_t room = COLUMNS - depth * 2, len;

	for (; *text; text += len + strspn(text + len, " ")) {
		len = strlen(text);
		if (len > room)
			for (len = room; len > 1 && text[len] != ' ';)
				len--;
		print_indent(out, depth);
		fprintf(out, "# %.*s\n", (int)len, text);
	}
}

/* The help, and in parentheses what may be written and what stands if nothing is. */
static void explain_key(FILE *out, const struct config_key *key, unsigned depth)
{
	const char *fallback = key->derived ? key->derived : key->fallback;
	char text[1024], brief[CONFIG_TEXT_MAX] = "";
	const char *between = " (";
	size_t len = snprintf(text, sizeof(text), "%s", key->help);

	if (key->list && !key->list->item.map)
		config_value_brief(&key->list->item, brief);
	else if (!key->map && !key->list)
		config_value_brief(key, brief);
	if (key->list || *brief) {
		len += snprintf(text + len, sizeof(text) - len, "%s%s%s", between, key->list ? "list: " : "",
				*brief ? brief : "maps");
		between = "; ";
	}
	if (fallback || (key->flags & KEY_REQUIRED)) {
		len += snprintf(text + len, sizeof(text) - len, "%s%s%s", between, fallback ? "default: " : "required",
				fallback ? fallback : "");
		between = "; ";
	}
	if (key->flags & KEY_FIXED) {
		len += snprintf(text + len, sizeof(text) - len, "%sa change needs a restart", between);
		between = "; ";
	}
	if (key->flags & KEY_NO_EFFECT) {
		len += snprintf(text + len, sizeof(text) - len, "%sno effect yet", between);
		between = "; ";
	}
	snprintf(text + len, sizeof(text) - len, "%s", *between == ';' ? ")" : "");
	print_comment(out, depth, text);
}

/* The part of "a|b" for this item; the whole if there is but one; "" if that item leaves the key out. */
static void pick_example(const struct config_key *key, unsigned item, char out[static CONFIG_TEXT_MAX])
{
	const char *text = key->example ? key->example : key->fallback ? key->fallback : "";

	for (; item && strchr(text, '|'); item--)
		text = strchr(text, '|') + 1;
	snprintf(out, CONFIG_TEXT_MAX, "%.*s", (int)strcspn(text, "|"), text);
}

static void example_list(FILE *out, const struct config_key *key, unsigned depth)
{
	char text[CONFIG_TEXT_MAX];

	if (key->list->item.map) {
		putc('\n', out);
		for (unsigned i = 0; i < key->list->examples; i++)
			example_map(out, key->list->item.map, depth + 2, i, true);
		return;
	}
	fputs(" [", out);
	for (unsigned i = 0; i < key->list->examples; i++) {
		pick_example(&key->list->item, i, text);
		fputs(i ? ", " : "", out);
		print_scalar(out, text);
	}
	fputs("]\n", out);
}

static void example_key(FILE *out, const struct config_key *key, unsigned depth, unsigned item, bool *in_item)
{
	char text[CONFIG_TEXT_MAX] = "", line[CONFIG_TEXT_MAX + 64];

	if (!key->map && !key->list) {
		pick_example(key, item, text);
		if (!*text) {
			/* Another item has it: the first shows it without saying it. */
			pick_example(key, 1, text);
			if (item == 0 && *text) {
				snprintf(line, sizeof(line), "%s: %s", key->name, text);
				print_comment(out, depth, line);
			}
			return;
		}
	}
	print_indent(out, *in_item ? depth - 1 : depth);
	fprintf(out, "%s%s:", *in_item ? "- " : "", key->name);
	*in_item = false;
	if (key->map) {
		putc('\n', out);
		example_map(out, key->map, depth + 1, 0, false);
	} else if (key->list) {
		example_list(out, key, depth);
	} else {
		putc(' ', out);
		print_scalar(out, text);
		putc('\n', out);
	}
}

/* The first item of a list explains every key, the others show what differs. */
static void example_map(FILE *out, const struct config_map *map, unsigned depth, unsigned item, bool in_item)
{
	for (size_t i = 0; i < map->n_keys; i++) {
		const struct config_key *key = &map->keys[i];

		if (item && !key->map && !key->list && !key->example)
			continue;
		if (depth == 0 && i)
			putc('\n', out);
		if (item == 0)
			explain_key(out, key, in_item ? depth - 1 : depth);
		example_key(out, key, depth, item, &in_item);
	}
}

void config_print_example(struct _IO_FILE *out)
{
	fputs("# Every key of Spillway's configuration. What has a default may be left out.\n\n", out);
	example_map(out, &config_root, 0, 0, false);
}
