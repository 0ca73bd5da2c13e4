/* SPDX-License-Identifier: BSD-3-Clause */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* "120ms", "12.3s", "1m05s", "2h04m", "3d04h": two units at most. */
static void format_seconds(double s, char *out, size_t size)
{
	unsigned long n = (unsigned long)s;

	if (s <= 0)
		snprintf(out, size, "0s");
	else if (s < 1)
		snprintf(out, size, "%.0fms", s * 1e3);
	else if (s < 60)
		snprintf(out, size, "%.1fs", s);
	else if (s < 3600)
		snprintf(out, size, "%lum%02lus", n / 60, n % 60);
	else if (s < 86400)
		snprintf(out, size, "%luh%02lum", n / 3600, n % 3600 / 60);
	else
		snprintf(out, size, "%lud%02luh", n / 86400, n % 86400 / 3600);
}

static void format_time(double unix_s, char *out, size_t size)
{
	time_t then = (time_t)unix_s, now = time(NULL);
	struct tm tm, today;
	size_t n;

	localtime_r(&then, &tm);
	localtime_r(&now, &today);
	n = strftime(out, size, tm.tm_yday == today.tm_yday && tm.tm_year == today.tm_year ? "%T" : "%F %T", &tm);
	snprintf(out + n, size - n, ".%03u", (unsigned)((unix_s - (double)then) * 1e3));
}

static void format_bytes(double n, char *out, size_t size)
{
	static const char units[] = "BKMGTP";
	size_t u = 0;

	for (; n >= 1024 && units[u + 1]; u++)
		n /= 1024;
	snprintf(out, size, u ? "%.1f%c" : "%.0f%c", n, units[u]);
}

/* Text comes from configuration, DNS and the network: nothing in it may reach the terminal as a control sequence. */
static void append_plain(const char *text, char *out, size_t size)
{
	size_t len = strlen(out);

	for (; *text && len < size - 1; text++)
		out[len++] = *text >= ' ' && *text < 0x7f ? *text : '?';
	out[len] = '\0';
}

static void format_list(const json_t *list, char *out, size_t size)
{
	const json_t *item;
	size_t i;

	json_array_foreach(list, i, item)
	{
		if (i > 0)
			append_plain(",", out, size);
		append_plain(json_is_string(item) ? json_string_value(item) : "?", out, size);
	}
}

const char *cell_format(enum column_kind kind, const json_t *value, char out[static CELL_STRLEN])
{
	*out = '\0';
	if (json_is_number(value) && kind == COLUMN_SECONDS)
		format_seconds(json_number_value(value), out, CELL_STRLEN);
	else if (json_is_number(value) && kind == COLUMN_TIME)
		format_time(json_number_value(value), out, CELL_STRLEN);
	else if (json_is_number(value) && kind == COLUMN_BYTES)
		format_bytes(json_number_value(value), out, CELL_STRLEN);
	else if (json_is_number(value) && kind == COLUMN_WHOLE)
		snprintf(out, CELL_STRLEN, "%.0f", json_number_value(value));
	else if (json_is_integer(value))
		snprintf(out, CELL_STRLEN, "%lld", (long long)json_integer_value(value));
	else if (json_is_real(value))
		snprintf(out, CELL_STRLEN, "%.3f", json_real_value(value));
	else if (json_is_boolean(value))
		snprintf(out, CELL_STRLEN, "%s", json_is_true(value) ? "yes" : "no");
	else if (json_is_string(value))
		append_plain(json_string_value(value), out, CELL_STRLEN);
	else if (json_is_array(value))
		format_list(value, out, CELL_STRLEN);
	if (!*out)
		strcpy(out, "-");
	return out;
}

static void print_cell(FILE *out, const struct column *c, const char *text, size_t width, bool last)
{
	if (c->kind != COLUMN_TEXT)
		fprintf(out, "%*s", (int)width, text);
	else
		fprintf(out, "%-*s", last ? 0 : (int)width, text);
	fputs(last ? "\n" : "  ", out);
}

static size_t column_width(const struct column *c, const json_t *rows)
{
	size_t i, width = strlen(c->heading);
	char cell[CELL_STRLEN];
	const json_t *row;

	json_array_foreach(rows, i, row)
	{
		size_t len = strlen(cell_format(c->kind, json_object_get(row, c->key), cell));

		width = len > width ? len : width;
	}
	return width;
}

void table_print(FILE *out, const struct column *columns, size_t n_columns, const json_t *rows)
{
	size_t *width = calloc(n_columns, sizeof(*width)), i;
	char cell[CELL_STRLEN];
	const json_t *row;

	if (!width)
		return;
	for (size_t c = 0; c < n_columns; c++)
		width[c] = column_width(&columns[c], rows);
	for (size_t c = 0; c < n_columns; c++)
		print_cell(out, &columns[c], columns[c].heading, width[c], c + 1 == n_columns);
	json_array_foreach(rows, i, row)
	{
		for (size_t c = 0; c < n_columns; c++)
			print_cell(out, &columns[c],
				   cell_format(columns[c].kind, json_object_get(row, columns[c].key), cell), width[c],
				   c + 1 == n_columns);
	}
	free(width);
}

void table_print_more(FILE *out, const struct column *columns, size_t n_columns, json_t *rows)
{
	if (json_array_size(rows) > 0) {
		fputc('\n', out);
		table_print(out, columns, n_columns, rows);
	}
	json_decref(rows);
}

json_t *table_rows_within(const json_t *rows, const char *list, const char *owner)
{
	json_t *all = json_array(), *row, *inner;
	size_t i, j;

	json_array_foreach(rows, i, row)
	{
		json_array_foreach(json_object_get(row, list), j, inner)
		{
			json_object_set(inner, owner, json_object_get(row, owner));
			json_array_append(all, inner);
		}
	}
	return all;
}
