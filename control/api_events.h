/* SPDX-License-Identifier: BSD-3-Clause */
/* Events as a stream: JSON lines, chunked, until the client goes or the gateway stops. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct MHD_Response;
struct api_query;
struct events;

#define API_STREAMS_MAX 8

struct api_streams {
	_Atomic unsigned n;
	_Atomic bool ending; /* all end within a second, though nothing happens */
};

/* Ends all, in good form where their clients read; waits for that, two seconds at most. */
void api_streams_end(struct api_streams *streams);

/*
 * A response whose body is the stream that the query asks for; it blocks the thread that sends it, and no other. NULL:
 * there are API_STREAMS_MAX already, or no memory.
 */
struct MHD_Response *api_events_stream(struct api_streams *streams, struct events *events,
				       const struct api_query *query);
