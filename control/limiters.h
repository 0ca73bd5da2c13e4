/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The limiters of all backends: reads ten times a second what workers counted, and tells them what each backend may
 * have at a time, and how long who finds no room may wait. What changes is an event. Decide's alone.
 */
#pragma once

#include "cure.h"
#include "limiter.h"

struct dataplane;
struct events;
struct limiters;
struct services;
struct view;

struct limiters_config {
	uint32_t n_backend_slots, n_service_slots;
};

/* NULL: out of memory. */
struct limiters *limiters_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct limiters_config *config);
void limiters_destroy(struct limiters *limiters);

/* Once per LIMITER_TICK_NS; `mode`: of the cure storm. `now_ns`: the dataplane's clock. */
void limiters_tick(struct limiters *limiters, enum cure_mode mode, uint64_t now_ns);

/* Fills what a view's backends say of their limiters. `clock_ns`: the view's clock at limiters_tick()'s `now_ns`. */
void limiters_view(const struct limiters *limiters, struct view *view, uint64_t now_ns, uint64_t clock_ns);
