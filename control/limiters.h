/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The limiters of all backends: reads ten times a second what workers counted, and tells them what each backend may
 * have at a time, and how long who finds no room may wait. What changes is an event. Decide's alone.
 *
 * What is usual of a backend is kept when it leaves, and over a restart (saved_limits.h): one that is congested when it
 * is met again is known to be so from the first late answers on.
 */
#pragma once

#include "cure.h"
#include "limiter.h"
#include "limiter_memory.h"

struct dataplane;
struct events;
struct limiters;
struct services;
struct view;

struct limiters_config {
	uint32_t n_backend_slots, n_service_slots;
};

/* Of memory for so many slots, used or not. */
uint64_t limiters_bytes(uint32_t n_backend_slots);
/* NULL: out of memory. */
struct limiters *limiters_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct limiters_config *config);
void limiters_destroy(struct limiters *limiters);

/* Once per LIMITER_TICK_NS. `now_ns`: the dataplane's clock. */
void limiters_tick(struct limiters *limiters, const struct cure_modes *modes, uint64_t now_ns);
/* Backends that came since: they have their limits before their first flow, and not only with the next tick. */
void limiters_meet(struct limiters *limiters, const struct cure_modes *modes, uint64_t now_ns);

/*
 * By an operator's word: what is usual of it is measured anew. Returns 1: it is limited, and asked with half as much
 * now; 0: it is forgotten; -ENOENT: nothing is known of such a backend; -EPERM: the cure is off.
 */
int limiters_reset(struct limiters *limiters, const char *backend_id, enum cure_mode mode, uint64_t now_ns);

/* --- what outlives a restart --- */

/* What was known of a backend, for its limiter when it has one. False: it is too old to be worth anything. */
bool limiters_remember(struct limiters *limiters, const struct limiter_known *known, uint64_t now_ns);
/* All that is known and worth to be remembered, also of backends that left. */
void limiters_known(const struct limiters *limiters, uint64_t now_ns,
		    void (*fn)(void *arg, const struct limiter_known *known), void *arg);
/* True: it is other than when limiters_saved() was called last, by more than a little. */
bool limiters_unsaved(const struct limiters *limiters, uint64_t now_ns);
void limiters_saved(struct limiters *limiters, uint64_t now_ns);

/* Fills what a view's backends say of their limiters. `clock_ns`: the view's clock at limiters_tick()'s `now_ns`. */
void limiters_view(const struct limiters *limiters, struct view *view, uint64_t now_ns, uint64_t clock_ns);
