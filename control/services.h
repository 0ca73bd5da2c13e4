/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The services as decide holds them: what is configured, what DNS said, and what was published of it. One change leads
 * to one rebuilt part; everything else of the snapshot is shared with the one before.
 */
#pragma once

#include "config.h"
#include "names.h"
#include "slots.h"
#include "view.h"

#include <stdbool.h>
#include <stdint.h>

struct dataplane;
struct events;
struct services;

struct services_config {
	uint32_t n_service_slots;
	uint32_t n_backend_slots;
	bool poison;           /* overwrite what is freed: tests */
	struct events *events; /* NULL: nobody is told */
	/* Monotonic; passed in by tests. NULL: CLOCK_MONOTONIC. */
	uint64_t (*now_ns)(void *arg);
	void *now_arg;
};

/* NULL with errno set. */
struct services *services_create(struct dataplane *dp, const struct services_config *config);
/* The dataplane must have stopped. */
void services_destroy(struct services *s);

/*
 * Takes over the services of a new configuration (borrowed): services keep their slot by name. Its names are watched on
 * `names`. Nothing is published yet. Returns 0, or -ENOSPC with nothing changed. Next is services_publish(), and when
 * that succeeded the configuration before is no longer used; or services_revert(), and then the new one is not.
 */
int services_configure(struct services *s, const struct config *config, struct names *names);
/* Back to the configuration before, as if the new one had never been: it could not be published. */
void services_revert(struct services *s);

/* The modes of the cures in the current configuration are others than were published. */
void services_modes_changed(struct services *s);

/* False: no backend can have this address, as it is no host's, or one of the gateway's own. */
bool services_usable(const struct services *s, const struct ipaddr *addr);
/* DNS spoke; marks the services that use the name. */
void services_name_changed(struct services *s, const struct name_view *view);
/* How often the set of any name changed. */
uint64_t services_name_changes(const struct services *s);
/* True if something waits to be published. */
bool services_dirty(const struct services *s);
/* True if no watched name is still in its first query without anything that was saved. */
bool services_resolved(const struct services *s);
/* True if the first question of every watched name is answered, in whatever way. */
bool services_answered(const struct services *s);

/*
 * Rebuilds what changed, publishes it, waits for the workers, frees the old. 0 or -errno: then the old stays. A service
 * for whose backends there are no slots stays as it was, and dirty; the others are published.
 */
int services_publish(struct services *s);
/* Publishes the same without listeners: no new flow begins from now on. At stop; 0 or -ENOMEM. */
int services_close(struct services *s);
/* How many services the last publish left as they were. */
size_t services_starved(const struct services *s);
/* Frees slots whose last flow ended, ends the flows of those whose time to drain is over. Now and then. */
void services_reap(struct services *s);

/* Who keeps something per backend. Each is called with `arg` and what time it is. */
struct services_watcher {
	/* A policy is built and is about to be published: new backends have their slots, and no worker knows them. */
	void (*before_publish)(void *arg, uint64_t now_ns);
	/* The slot is about to be given away; its cell says still what it said. */
	void (*freed)(void *arg, const struct slot_info *info, uint64_t now_ns);
};

/* One at a time; NULL: nobody (any more). */
void services_watch(struct services *s, const struct services_watcher *watcher, void *arg);

/* What a backend's slot stands for; false: nothing. */
bool services_backend(const struct services *s, uint32_t slot, struct slot_info *info);

/* The TCP backends of one family of one service, as published. */
struct services_side {
	const char *service;
	struct slot_ref service_ref;
	unsigned family; /* SET_V4 or SET_V6 */
	const struct policy_set *set;
	const struct policy_service *part;
	const struct config_service *config; /* NULL: it is not configured any more */
};

/* All that have backends. */
void services_sides(const struct services *s, void (*fn)(void *arg, const struct services_side *side), void *arg);

/* A service that has its slot. */
struct services_row {
	const char *name;
	struct slot_ref ref;
	const struct policy_service *part;   /* as published; NULL: not yet */
	const struct config_service *config; /* NULL: it is not configured any more */
};

void services_foreach(const struct services *s, void (*fn)(void *arg, const struct services_row *row), void *arg);

/* Every backend address in use, for keeping next hops resolved; returns how many there are, fills at most max. */
size_t services_addresses(const struct services *s, struct ipaddr *out, size_t max);

/* Fills the parts of a view that are about services, backends and names. Returns 0 or -ENOMEM. */
int services_view(const struct services *s, struct view *view);
