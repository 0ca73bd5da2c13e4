/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Events of the cure silence, from what the workers count: connections end by the thousand when a host dies, and that
 * is one event.
 */
#pragma once

#include <stdint.h>

#define SILENCE_EVENT_EVERY_NS 10000000000ull

struct dataplane;
struct events;
struct silence_events;
struct view;

/* NULL with errno set. */
struct silence_events *silence_events_create(uint32_t n_backend_slots);
void silence_events_destroy(struct silence_events *s);

/*
 * Says what the counters of the backends in `view` have come to since the last event of that kind, at most once in
 * SILENCE_EVENT_EVERY_NS.
 */
void silence_events_tick(struct silence_events *s, const struct dataplane *dp, const struct view *view,
			 struct events *events, uint64_t now_ns);
