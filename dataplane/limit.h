/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a backend may have under way at a time, as decide says (limiter.h): unanswered SYNs, fresh connections, open
 * exchanges and what clients left behind (signals.h). Who finds no room waits in the service's queue, at its worker: by
 * rank (fairness.h), and within one in the order in which they came, until it is a line that is not worked off
 * (storm.c), for as long as decide says that their clients have patience for; the queue is looked at once a
 * millisecond. Nobody of a later rank overtakes it.
 *
 * While it is congested, who waited in vain hears so; while only what comes at once is spread, nobody is told to go
 * away: silence lets his kernel ask once more. With a soft limit he goes all the same.
 *
 * An operator's maximum (storm.hard_max, of a service) is never soft, whatever decide knows of the backend; nor is his
 * cap on the new flows of each (storm.backend_rate): who is beyond it waits in the same queue, as no single backend is
 * what he waits for. Services that share a backend take from one bucket, those of them that cap it, by the lowest of
 * their rates and bursts: with those of their own each would take what the bucket owes to the other. SYNs that another
 * backend had before (resteer.h) are not asked for a token. A connection that ends and begins anew in one burst keeps
 * its backend, and is refused if that one has no room.
 *
 * Workers read each other's levels without a lock: a backend gets at most one burst per worker more than its limit.
 */
#pragma once

#include "core.h"

/*
 * The work that it may have; 0: as much as comes. Who has waited for long enough, or cannot, is `late`: for it, a soft
 * limit is none. `hard_max`: of the set.
 */
static inline uint32_t limit_most(const struct worker *w, uint32_t hard_max, uint32_t backend_slot, bool late)
{
	uint32_t limit = __atomic_load_n(&w->cells->backends[backend_slot].limit, __ATOMIC_RELAXED);
	uint32_t most = late && limit & LIMIT_SOFT ? 0 : limit & LIMIT_WORK;

	return hard_max && (!most || hard_max < most) ? hard_max : most;
}

/* What an operator says of each backend: of a policy_set. */
struct limit_caps {
	uint32_t hard_max;
	const struct gcra_rate *rate;
};

static inline struct limit_caps limit_caps_of(const struct policy_set *set)
{
	return (struct limit_caps){set->hard_max, &set->rate};
}

/* Of the backend, for a set that caps it: its own until decide has said what all agree on. */
static inline struct gcra_rate limit_rate(const struct worker *w, const struct gcra_rate *own, uint32_t backend_slot)
{
	const struct gcra_rate *cap = &w->cells->backends[backend_slot].cap;
	uint64_t interval = __atomic_load_n(&cap->interval, __ATOMIC_RELAXED);

	if (interval < own->interval)
		return *own;
	return (struct gcra_rate){interval, __atomic_load_n(&cap->tolerance, __ATOMIC_RELAXED),
				  __atomic_load_n(&cap->window, __ATOMIC_RELAXED)};
}

static inline bool limit_has_token(const struct worker *w, const struct gcra_rate *own, uint32_t backend_slot)
{
	struct gcra_rate rate;

	if (!own->interval)
		return true;
	rate = limit_rate(w, own, backend_slot);
	return gcra_test(&w->cells->backends[backend_slot].rate, &rate, w->now_ns);
}

static inline bool limit_has_room(const struct worker *w, struct limit_caps caps, uint32_t backend_slot, bool late)
{
	uint32_t most = limit_most(w, caps.hard_max, backend_slot, late);

	return (!most || observe_committed(w->dp, backend_slot) < most) && limit_has_token(w, caps.rate, backend_slot);
}

/* Somebody waits for one of the service's backends of that family. */
static inline bool limit_is_queued(const struct worker *w, uint32_t service_slot, bool v6)
{
	return w->holds.queues[hold_queue_at(service_slot, v6)].n;
}

/* True: some backend of the service has a limit, or somebody waits for one. */
static inline bool limit_applies(const struct worker *w, const struct policy_service *svc, bool v6)
{
	return __atomic_load_n(&w->cells->services[svc->ref.slot].n_limits, __ATOMIC_RELAXED) ||
	       svc->sets[v6][SET_TCP].hard_max || svc->sets[v6][SET_TCP].rate.interval ||
	       limit_is_queued(w, svc->ref.slot, v6);
}

/* True: none of its backends is congested. */
static inline bool limit_only_spreads(const struct worker *w, uint32_t service_slot)
{
	return !__atomic_load_n(&w->cells->services[service_slot].n_congested, __ATOMIC_RELAXED);
}

/* The flow's best choice that takes flows and has room, of the first few; NULL: there is none. */
const struct policy_backend *limit_find(const struct worker *w, const struct policy_set *set, uint64_t hash, bool late);
/* Why none has room for it: STORM_HARD_MAX or STORM_BACKEND if that is all. */
enum storm_cap limit_reason(const struct worker *w, const struct policy_set *set, uint64_t hash);
/* The same of that backend. */
enum storm_cap limit_reason_of(const struct worker *w, const struct policy_set *set, uint32_t backend_slot);

/* Whether one of those that waited may go now; takes nothing. */
bool limit_may_go(const struct worker *w, uint32_t service_slot);
/* It went. */
void limit_went(struct worker *w, uint32_t service_slot);
/* How long an attempt of the service may wait, of what it may wait at all. */
uint64_t limit_hold_ns(const struct worker *w, const struct policy_service *svc);
