/* SPDX-License-Identifier: BSD-3-Clause */
#include "api_events.h"

#include "api_docs.h"
#include "events.h"
#include "json_row.h"

#include <microhttpd.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AT_ONCE  32   /* records copied under the lock that events are added under */
#define WAIT_MS  1000 /* between looks at whether all streams are to end */
#define BEAT_MS  5000 /* an empty line after so much silence: it finds clients that have gone */
#define SEND_MAX 4096

struct event_json {
	uint64_t number;
	double at;
	const char *severity, *kind, *cure, *subject, *text;
};

static const struct json_field event_fields[] = {
	JSON_FIELD(event_json, number), JSON_FIELD(event_json, at),   JSON_FIELD(event_json, severity),
	JSON_FIELD(event_json, kind),   JSON_FIELD(event_json, cure), JSON_FIELD(event_json, subject),
	JSON_FIELD(event_json, text),
};

json_t *api_event_json(const struct event_record *e)
{
	struct event_json row = {
		.number = e->number,
		.at = e->wall_ms / 1e3,
		.severity = event_severity_name(e->severity),
		.kind = e->kind,
		.cure = e->cause,
		.subject = e->subject,
		.text = e->text,
	};

	return JSON_ROW(event_fields, &row);
}

/* Without `since`, the newest `limit`; a number that is still to come is of an earlier life of the gateway: all. */
static uint64_t first_since(struct events *events, const struct api_query *query)
{
	uint64_t last = events_last(events);

	if (query->given & PARAM_SINCE)
		return query->since <= last ? query->since : 0;
	return last > query->limit ? last - query->limit : 0;
}

unsigned api_doc_events(const struct api_source *src, const struct view *view, const struct api_query *query,
			json_t **doc, char err[static API_QUERY_ERR])
{
	uint64_t since = first_since(src->events, query), lost_in_all = 0, lost;
	json_t *rows = json_array();
	size_t left = query->limit, n;

	do {
		struct event_record records[AT_ONCE];

		n = events_read(src->events, since, records, left < AT_ONCE ? left : AT_ONCE, &lost, 0);
		lost_in_all += n ? lost : 0;
		for (size_t i = 0; i < n; i++)
			json_array_append_new(rows, api_event_json(&records[i]));
		since = n ? records[n - 1].number : since;
		left -= n;
	} while (n == AT_ONCE && left > 0);
	*doc = json_pack("{s:o,s:I,s:I}", "events", rows, "last", (json_int_t)since, "lost", (json_int_t)lost_in_all);
	return 200;
}

/* --- the stream --- */

struct stream {
	struct api_streams *streams;
	struct events *events;
	uint64_t since;
	char *text; /* lines that wait to be sent, from `at` on */
	size_t len, at;
};

static void add_line(struct stream *s, json_t *json)
{
	char *line = json ? json_dumps(json, JSON_COMPACT) : NULL;
	size_t len = line ? strlen(line) : 0;
	char *text = line ? realloc(s->text, s->len + len + 1) : NULL;

	if (text) {
		memcpy(text + s->len, line, len);
		text[s->len + len] = '\n';
		s->text = text;
		s->len += len + 1;
	}
	free(line);
	json_decref(json);
}

/* Waits for events, or for the time of a beat. False: the stream is over. */
static bool fill(struct stream *s)
{
	struct event_record records[AT_ONCE];
	uint64_t lost;
	size_t n = 0;

	s->len = s->at = 0;
	for (unsigned waited_ms = 0; n == 0 && waited_ms < BEAT_MS; waited_ms += WAIT_MS) {
		n = events_read(s->events, s->since, records, AT_ONCE, &lost, WAIT_MS);
		if (n == 0 && (s->streams->ending || events_ended(s->events)))
			return false;
	}
	if (n == 0) {
		free(s->text);
		s->text = strdup("\n");
		s->len = s->text ? 1 : 0;
		return s->text != NULL;
	}
	if (lost)
		add_line(s, json_pack("{s:I}", "lost", (json_int_t)lost));
	for (size_t i = 0; i < n; i++)
		add_line(s, api_event_json(&records[i]));
	s->since = records[n - 1].number;
	return s->len > 0;
}

static ssize_t stream_read(void *arg, uint64_t position, char *out, size_t max)
{
	struct stream *s = arg;
	size_t n;

	if (s->at == s->len && !fill(s))
		return MHD_CONTENT_READER_END_OF_STREAM;
	n = s->len - s->at < max ? s->len - s->at : max;
	memcpy(out, s->text + s->at, n);
	s->at += n;
	return (ssize_t)n;
}

static void stream_free(void *arg)
{
	struct stream *s = arg;

	if (!s)
		return;
	atomic_fetch_sub(&s->streams->n, 1);
	free(s->text);
	free(s);
}

struct MHD_Response *api_events_stream(struct api_streams *streams, struct events *events,
				       const struct api_query *query)
{
	struct stream *s = calloc(1, sizeof(*s));
	struct MHD_Response *response;

	if (!s)
		return NULL;
	*s = (struct stream){.streams = streams, .events = events, .since = first_since(events, query)};
	if (atomic_fetch_add(&streams->n, 1) >= API_STREAMS_MAX) {
		stream_free(s);
		return NULL;
	}
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, SEND_MAX, stream_read, s, stream_free);
	if (response)
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
	else
		stream_free(s);
	return response;
}

void api_streams_end(struct api_streams *streams)
{
	streams->ending = true;
	for (unsigned waited_ms = 0; streams->n && waited_ms < 2 * WAIT_MS; waited_ms += 10)
		usleep(10000);
}
