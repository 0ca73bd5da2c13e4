/* SPDX-License-Identifier: BSD-3-Clause */
#include "limit.h"
#include "select.h"

#define CHOICES    16 /* places of the table that are looked at, before backends are, one by one, */
#define BACKENDS   64 /* and of those so many: where they are full, most are */
#define PACE_BURST 4  /* that may go at once */

static bool is_fit(const struct worker *w, struct limit_caps caps, uint32_t slot, bool late)
{
	return (w->burst.policy->modes.of[CURE_WALL] != CURE_ENFORCE || select_takes_flows(w->cells, slot)) &&
	       limit_has_room(w, caps, slot, late);
}

static const struct policy_backend *find(const struct worker *w, const struct policy_set *set, struct limit_caps caps,
					 uint64_t hash, bool late)
{
	const struct policy_backend *b = select_backend(set, hash);
	uint64_t at = select_second_hash(hash);

	for (unsigned i = 0; b && i < CHOICES; i++) {
		if (is_fit(w, caps, b->ref.slot, late))
			return b;
		b = &set->backends[set->table[(at + i) % set->table_size]];
	}
	for (uint32_t i = 0; i < set->n_backends && i < BACKENDS; i++) {
		b = &set->backends[(at + i) % set->n_backends];
		if (is_fit(w, caps, b->ref.slot, late))
			return b;
	}
	return NULL;
}

const struct policy_backend *limit_find(const struct worker *w, const struct policy_set *set, uint64_t hash, bool late)
{
	return find(w, set, limit_caps_of(set), hash, late);
}

static const struct gcra_rate no_rate;

enum storm_cap limit_reason(const struct worker *w, const struct policy_set *set, uint64_t hash)
{
	if ((!set->hard_max && !set->rate.interval) || limit_find(w, set, hash, true))
		return STORM_LIMIT;
	if (set->rate.interval && find(w, set, (struct limit_caps){set->hard_max, &no_rate}, hash, true))
		return STORM_BACKEND;
	return find(w, set, (struct limit_caps){0, &no_rate}, hash, true) ? STORM_HARD_MAX : STORM_LIMIT;
}

enum storm_cap limit_reason_of(const struct worker *w, const struct policy_set *set, uint32_t backend_slot)
{
	if (!limit_has_token(w, &set->rate, backend_slot) &&
	    limit_has_room(w, (struct limit_caps){set->hard_max, &no_rate}, backend_slot, true))
		return STORM_BACKEND;
	return limit_has_room(w, (struct limit_caps){0, &no_rate}, backend_slot, true) ? STORM_HARD_MAX : STORM_LIMIT;
}

static struct gcra_rate pace_of(const struct worker *w, uint32_t service_slot)
{
	uint64_t interval = __atomic_load_n(&w->cells->services[service_slot].pace_interval, __ATOMIC_RELAXED);

	return gcra_rate_of(interval, PACE_BURST);
}

bool limit_may_go(const struct worker *w, uint32_t service_slot)
{
	struct gcra_rate pace = pace_of(w, service_slot);

	return !pace.interval || gcra_test(&w->cells->services[service_slot].pace, &pace, w->now_ns);
}

void limit_went(struct worker *w, uint32_t service_slot)
{
	struct gcra_rate pace = pace_of(w, service_slot);

	if (pace.interval)
		gcra_take(&w->cells->services[service_slot].pace, &pace, w->now_ns);
}

uint64_t limit_hold_ns(const struct worker *w, const struct policy_service *svc)
{
	uint64_t ns = __atomic_load_n(&w->cells->services[svc->ref.slot].hold_ms, __ATOMIC_RELAXED) * UINT64_C(1000000);

	return ns < svc->storm.hold_ns ? ns : svc->storm.hold_ns;
}
