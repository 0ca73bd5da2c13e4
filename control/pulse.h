/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether the threads keep their time: decide's own tick, and the workers' loops. Decide's alone; what it finds is in
 * the view and among the events.
 */
#pragma once

#include "dataplane.h"

#include <stdbool.h>
#include <stdint.h>

struct events;

#define PULSE_TICK_MS 250
#define PULSE_TICKS   (60000 / PULSE_TICK_MS) /* a minute of them */

struct pulse_worker {
	uint64_t stalled_ns; /* told so far */
	uint64_t told_ns;    /* when */
	bool hung;           /* and told */
};

struct pulse {
	uint64_t last_ns;
	unsigned n, next;
	uint32_t late_us[PULSE_TICKS]; /* ring */
	struct pulse_worker workers[DATAPLANE_MAX_WORKERS];
};

/* Now is a tick: notes how much more than the period passed since the one before. */
void pulse_tick(struct pulse *p, uint64_t now_ns);
/* Of the last minute; 0 before the second tick. */
void pulse_late(const struct pulse *p, uint32_t *p99_us, uint32_t *max_us);
/* An event for each worker that stalled or hangs, at most one in ten seconds, and when it runs again. */
void pulse_workers(struct pulse *p, const struct dataplane *dp, struct events *events, uint64_t now_ns);
