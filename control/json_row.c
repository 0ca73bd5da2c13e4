/* SPDX-License-Identifier: BSD-3-Clause */
#include "json_row.h"

#include <math.h>
#include <string.h>

static json_t *text_or_null(const char *text, size_t len)
{
	json_t *value = text ? json_stringn(text, len) : NULL;

	return value ? value : json_null();
}

static json_t *list_value(const char *text)
{
	json_t *list = json_array();

	while (*text) {
		size_t len = strcspn(text, ",");

		if (len > 0)
			json_array_append_new(list, text_or_null(text, len));
		text += len + (text[len] == ',');
	}
	return list;
}

static json_t *field_value(enum json_type type, const void *member)
{
	const char *text;

	switch (type) {
	case JSON_ROW_U64:
		return json_integer((json_int_t) * (const uint64_t *)member);
	case JSON_ROW_I64:
		return json_integer(*(const int64_t *)member);
	case JSON_ROW_U32:
		return json_integer(*(const uint32_t *)member);
	case JSON_ROW_U16:
		return json_integer(*(const uint16_t *)member);
	case JSON_ROW_U8:
		return json_integer(*(const uint8_t *)member);
	case JSON_ROW_BOOL:
		return json_boolean(*(const bool *)member);
	case JSON_ROW_REAL:
		/* json_real() refuses NAN and infinities. */
		return isfinite(*(const double *)member) ? json_real(*(const double *)member) : json_null();
	case JSON_ROW_TEXT:
		text = *(const char *const *)member;
		return text_or_null(text, text ? strlen(text) : 0);
	case JSON_ROW_CHARS:
		return text_or_null(member, strlen(member));
	case JSON_ROW_LIST:
		text = *(const char *const *)member;
		return list_value(text ? text : "");
	case JSON_ROW_NULL:
		break;
	}
	return json_null();
}

json_t *json_row(const struct json_field *fields, size_t n_fields, const void *row)
{
	json_t *object = json_object();

	for (size_t i = 0; i < n_fields; i++)
		if (json_object_set_new(object, fields[i].name,
					field_value(fields[i].type, (const char *)row + fields[i].offset)) < 0) {
			json_decref(object);
			return NULL;
		}
	return object;
}
