/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The query part of API requests: whatever it takes is in range, whatever it refuses comes with a reason and leaves the
 * result alone, and a cursor survives a round trip.
 */
#include "api_query.h"

#include "dataplane.h"
#include "observe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ALL_PARAMS (PARAM_FOLLOW * 2 - 1) /* that is the last one */

static void require(bool condition)
{
	if (!condition)
		abort();
}

static void check_taken(const struct api_query *q, unsigned allowed)
{
	char text[API_CURSOR_STRLEN], query[API_CURSOR_STRLEN + 16], err[API_QUERY_ERR];
	struct api_query again;

	require((q->given & ~allowed) == 0);
	require(q->limit >= 1 && q->limit <= API_FLOWS_LIMIT_MAX);
	require(!(q->given & PARAM_PORT) || ((q->given & PARAM_ADDRESS) && q->port_be != 0));
	require(memchr(q->service, '\0', sizeof(q->service)) && memchr(q->backend, '\0', sizeof(q->backend)));
	require(q->cure < CURES && q->mode <= CURE_ENFORCE);
	require(q->since < UINT64_MAX && (!q->follow || q->given & PARAM_FOLLOW));
	require(q->cursor.worker < DATAPLANE_MAX_WORKERS && q->cursor.skip < FLOW_QUERY_ROWS);
	require(!(q->given & PARAM_DEADLINE) || (q->deadline_ns >= 1000000000 && q->deadline_ns <= 604800000000000));
	api_cursor_format(&q->cursor, text);
	snprintf(query, sizeof(query), "cursor=%s", text);
	require(api_query_parse(query, PARAM_CURSOR, &again, err) == 0);
	require(again.cursor.worker == q->cursor.worker && again.cursor.position == q->cursor.position &&
		again.cursor.skip == q->cursor.skip);
}

/* The first two bytes may choose the parameters that the path knows. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct api_query untouched = {.limit = 12345};
	struct api_query q = untouched;
	unsigned allowed = size > 1 && data[0] & 0x80 ? ((data[0] & 0x7fu) | data[1] << 7) : ALL_PARAMS;
	char *text = malloc(size + 1), err[API_QUERY_ERR] = "";

	require(text != NULL);
	memcpy(text, data, size);
	text[size] = '\0';
	if (api_query_parse(text, allowed, &q, err) == 0) {
		check_taken(&q, allowed);
	} else {
		require(*err && memchr(err, '\0', sizeof(err)));
		require(memcmp(&q, &untouched, sizeof(q)) == 0);
	}
	free(text);
	return 0;
}
