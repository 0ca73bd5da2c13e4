/* SPDX-License-Identifier: BSD-3-Clause */
/* The insides of services.c, for the files beside it alone: removal.c, drain.c. */
#pragma once

#include "config.h"
#include "known.h"
#include "policy.h"
#include "services.h"
#include "slots.h"

struct drains;
struct removals;
struct usable;

struct service {
	char name[64];
	struct slot_ref ref;
	const struct config_service *config; /* NULL: not configured (any more) */
	struct policy_service *part;         /* published */
	bool in_use;                         /* the slot is taken; without config: until its last flow ended */
	bool dirty;                          /* the part has to be built anew */
	bool wanted;                         /* within services_configure(): the new file names it */
	bool renamed;                        /* the part is new: removal.c has not noted yet what gave its backends */
	bool starved;                        /* no slots for what it should have: it stays as it is, and dirty */
};

struct services {
	struct dataplane *dp;
	struct services_config config;
	struct slots *backends;
	struct service *services; /* by slot */
	struct known *known;
	struct names *resolver;
	struct usable *usable;     /* of `current` */
	struct removals *removals; /* backends that left */
	struct drains *drains;     /* backends that were taken out by command */
	const struct config *current;
	const struct config *replaced;    /* by `current`, which is not published yet; its names are watched, too */
	struct listener_table *listeners; /* published */
	struct policy *policy;            /* published */
	enum cure_mode names_mode;        /* of `current` */
	const struct services_watcher *watcher;
	void *watcher_arg;
	bool listeners_dirty, modes_dirty;
	uint64_t publish_took_ns, published_ns;
};

uint64_t services_now_ns(const struct services *s);

/* --- removal.c: what becomes of a backend that no service names any more --- */

/* NULL: out of memory. */
struct removals *removals_create(uint32_t n_backend_slots);
void removals_destroy(struct removals *r, uint32_t n_backend_slots);

/* Before a policy is published: a backend that it names again is not to lose a flow any more. */
void removals_before_publish(struct services *s);
/* After it, all uses of the old one given back: notes who names what, and tells of those that left and came back. */
void removals_after_publish(struct services *s);
/* Now and then: deadlines, and a word on flows that stay. */
void removals_tick(struct services *s);
/* False: a command took the backend out; it is shown until it is put back. */
bool removals_may_free(const struct services *s, uint32_t slot);
/* The slot is about to be given away. */
void removals_freed(struct services *s, uint32_t slot);

/* Since when nobody names it, and when its flows are ended; monotonic, 0: not. */
uint64_t removals_since_ns(const struct services *s, uint32_t slot);
uint64_t removals_deadline_ns(const struct services *s, uint32_t slot);

/* --- drain.c: what users took out --- */

struct drains *drains_create(void);
void drains_destroy(struct drains *d);
/* Bit per SET_TCP, SET_UDP: the service's backend at that address takes no new flows. */
uint8_t drains_out_of(const struct drains *d, const char *service, const struct ipaddr *addr, uint16_t port_be);
/* The deadline that the command gave; DRAIN_BY_SERVICE if none. */
uint64_t drains_deadline_ns(const struct drains *d, const struct slot_info *backend);
/* True if some command took it out of some service. */
bool drains_has(const struct drains *d, const struct slot_info *backend);
bool drains_any(const struct drains *d);
void drains_clear(struct drains *d);
