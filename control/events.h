/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What changed its state, and when: a ring that only decide writes, so that no flood of packets can fill it. Serve
 * reads it at any time; a reader that is too slow loses the oldest and is told how many.
 */
#pragma once

#include "cure.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum event_severity {
	EVENT_INFO,
	EVENT_WARNING,
	EVENT_CRITICAL,
};

struct event_record {
	uint64_t number; /* 1, 2, 3 … */
	uint64_t at_ns;  /* monotonic */
	int64_t wall_ms; /* Unix time, for people */
	enum event_severity severity;
	const char *kind;  /* static text: "link_down", "breaker_open" */
	const char *cause; /* static text: name of a cure, or "gateway" */
	char subject[80];  /* what it is about: a backend's id, a service, a port, a name */
	char text[256];    /* a sentence with the evidence */
};

#define EVENTS_KEPT 4096

struct events;

/* Each event is also said on `log`, a stdio FILE; NULL: not. NULL with errno set. */
struct _IO_FILE;
struct events *events_create(struct _IO_FILE *log);
void events_destroy(struct events *events);

/* Decide. `kind` and `cause` are static text. `events` NULL: nobody is told. */
__attribute__((format(printf, 6, 7))) void events_add(struct events *events, enum event_severity severity,
						      const char *kind, const char *cause, const char *subject,
						      const char *format, ...);

/*
 * Any thread: copies up to `max` records with a number above `since`, oldest first; returns how many. *lost: how many
 * above `since` were overwritten before they could be read. Waits up to `wait_ms` for the first one; 0: does not wait.
 */
size_t events_read(struct events *events, uint64_t since, struct event_record *out, size_t max, uint64_t *lost,
		   unsigned wait_ms);
/* The number of the newest; 0: none yet. */
uint64_t events_last(struct events *events);
/* Ends all waits, now and from now on: at stop. */
void events_wake(struct events *events);
bool events_ended(struct events *events);

const char *event_severity_name(enum event_severity severity);
