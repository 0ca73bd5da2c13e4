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
struct services;

struct services_config {
	uint32_t n_service_slots;
	uint32_t n_backend_slots;
	bool poison; /* overwrite what is freed: tests */
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

/* DNS spoke; marks the services that use the name. */
void services_name_changed(struct services *s, const struct name_view *view);
/* True if something waits to be published. */
bool services_dirty(const struct services *s);
/* True if no watched name is still in its first query. */
bool services_resolved(const struct services *s);

/*
 * Rebuilds what changed, publishes it, waits for the workers, frees the old. 0 or -errno: then the old stays. A service
 * for whose backends there are no slots stays as it was, and dirty; the others are published.
 */
int services_publish(struct services *s);
/* How many services the last publish left as they were. */
size_t services_starved(const struct services *s);
/* Frees slots whose last flow ended. Now and then. */
void services_reap(struct services *s);

/* What a backend's slot stands for; false: nothing. */
bool services_backend(const struct services *s, uint32_t slot, struct slot_info *info);

/* The TCP backends of one family of one service, as published. */
struct services_side {
	const char *service;
	struct slot_ref service_ref;
	unsigned family; /* SET_V4 or SET_V6 */
	const struct policy_set *set;
};

/* All that have backends. */
void services_sides(const struct services *s, void (*fn)(void *arg, const struct services_side *side), void *arg);

/* Every backend address in use, for keeping next hops resolved; returns how many there are, fills at most max. */
size_t services_addresses(const struct services *s, struct ipaddr *out, size_t max);

/* Fills the parts of a view that are about services, backends and names. Returns 0 or -ENOMEM. */
int services_view(const struct services *s, struct view *view);
