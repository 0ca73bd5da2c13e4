/* SPDX-License-Identifier: BSD-3-Clause */
#include "events.h"
#include "clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

struct events {
	FILE *log;
	pthread_mutex_t lock; /* held for a copy, never for a wait: decide is not held up by readers */
	pthread_cond_t added;
	bool ending;
	uint64_t last; /* number of the newest */
	struct event_record ring[EVENTS_KEPT];
};

const char *event_severity_name(enum event_severity severity)
{
	static const char *const names[] = {
		[EVENT_INFO] = "info",
		[EVENT_WARNING] = "warning",
		[EVENT_CRITICAL] = "critical",
	};
	return names[severity];
}

struct events *events_create(FILE *log)
{
	struct events *e = calloc(1, sizeof(*e));
	pthread_condattr_t attr;

	if (!e)
		return NULL;
	e->log = log;
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->added, &attr);
	pthread_condattr_destroy(&attr);
	return e;
}

void events_destroy(struct events *e)
{
	if (!e)
		return;
	pthread_cond_destroy(&e->added);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static struct event_record *place_of(struct events *e, uint64_t number)
{
	return &e->ring[number % EVENTS_KEPT];
}

void events_add(struct events *e, enum event_severity severity, const char *kind, const char *cause,
		const char *subject, const char *format, ...)
{
	struct event_record record = {
		.at_ns = clock_monotonic_ns(), .severity = severity, .kind = kind, .cause = cause};
	struct timespec wall;
	va_list args;

	if (!e)
		return;
	clock_gettime(CLOCK_REALTIME, &wall);
	record.wall_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000;
	snprintf(record.subject, sizeof(record.subject), "%s", subject);
	va_start(args, format);
	vsnprintf(record.text, sizeof(record.text), format, args);
	va_end(args);
	if (e->log)
		fprintf(e->log, "spillway: %s: %s: %s\n", kind, record.subject, record.text);
	pthread_mutex_lock(&e->lock);
	record.number = ++e->last;
	*place_of(e, record.number) = record;
	pthread_cond_broadcast(&e->added);
	pthread_mutex_unlock(&e->lock);
}

static void wait_for_next(struct events *e, uint64_t since, unsigned wait_ms)
{
	uint64_t until_ns = clock_monotonic_ns() + (uint64_t)wait_ms * 1000000;
	struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
	int late = 0;

	while (e->last <= since && !e->ending && !late)
		late = pthread_cond_timedwait(&e->added, &e->lock, &until);
}

size_t events_read(struct events *e, uint64_t since, struct event_record *out, size_t max, uint64_t *lost,
		   unsigned wait_ms)
{
	uint64_t oldest, next = since + 1;
	size_t n = 0;

	pthread_mutex_lock(&e->lock);
	if (wait_ms)
		wait_for_next(e, since, wait_ms);
	oldest = e->last > EVENTS_KEPT ? e->last - EVENTS_KEPT + 1 : 1;
	*lost = next < oldest ? oldest - next : 0;
	for (next += *lost; next <= e->last && n < max; next++)
		out[n++] = *place_of(e, next);
	pthread_mutex_unlock(&e->lock);
	return n;
}

uint64_t events_last(struct events *e)
{
	uint64_t last;

	pthread_mutex_lock(&e->lock);
	last = e->last;
	pthread_mutex_unlock(&e->lock);
	return last;
}

void events_wake(struct events *e)
{
	pthread_mutex_lock(&e->lock);
	e->ending = true;
	pthread_cond_broadcast(&e->added);
	pthread_mutex_unlock(&e->lock);
}

bool events_ended(struct events *e)
{
	bool ended;

	pthread_mutex_lock(&e->lock);
	ended = e->ending;
	pthread_mutex_unlock(&e->lock);
	return ended;
}
