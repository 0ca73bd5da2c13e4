/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * C rows to JSON objects by tables: a table lists the members that leave the process, under their own names, in order.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_type {
	JSON_ROW_U64,
	JSON_ROW_I64,
	JSON_ROW_U32,
	JSON_ROW_U16,
	JSON_ROW_U8,
	JSON_ROW_BOOL,
	JSON_ROW_REAL,  /* NAN: null */
	JSON_ROW_TEXT,  /* const char *; NULL: null */
	JSON_ROW_CHARS, /* array of char */
	JSON_ROW_LIST,  /* const char *, comma separated: an array of strings; NULL: an empty one */
	JSON_ROW_NULL,  /* a column whose subsystem does not count yet: never a zero that nobody measured */
};

struct json_field {
	const char *name;
	enum json_type type;
	size_t offset;
};

/* The JSON type follows from the member's C type. */
#define JSON_FIELD_AS(row, member, name)                                                                                 \
	{                                                                                                                \
		name,                                                                                                  \
		_Generic(((struct row *)0)->member, uint64_t                                                           \
			 : JSON_ROW_U64, int64_t                                                                       \
			 : JSON_ROW_I64, uint32_t                                                                      \
			 : JSON_ROW_U32, uint16_t                                                                      \
			 : JSON_ROW_U16, uint8_t                                                                       \
			 : JSON_ROW_U8, bool                                                                           \
			 : JSON_ROW_BOOL, double                                                                       \
			 : JSON_ROW_REAL, const char *                                                                 \
			 : JSON_ROW_TEXT, char *                                                                       \
			 : JSON_ROW_CHARS),                                                                            \
			offsetof(struct row, member) \
	}
#define JSON_FIELD(row, member) JSON_FIELD_AS(row, member, #member)
#define JSON_FIELD_LIST(row, member)                                                                                   \
	{                                                                                                              \
#member, JSON_ROW_LIST, offsetof(struct row, member)                                                   \
	}
#define JSON_FIELD_NULL(name)                                                                                          \
	{                                                                                                              \
		name, JSON_ROW_NULL, 0                                                                                 \
	}

/* NULL if out of memory. Text that is not UTF-8 becomes null rather than failing the row. */
json_t *json_row(const struct json_field *fields, size_t n_fields, const void *row);

#define JSON_ROW(fields, row) json_row(fields, sizeof(fields) / sizeof((fields)[0]), row)
