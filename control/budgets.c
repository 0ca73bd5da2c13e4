/* SPDX-License-Identifier: BSD-3-Clause */
#include "budgets.h"
#include "budget.h"
#include "dataplane.h"
#include "observe.h"
#include "services.h"

#include <stdlib.h>

#define SECONDS   10
#define SECOND_NS 1000000000ull

struct service {
	uint32_t generation;    /* of its slot */
	uint32_t cap;           /* as the workers know it */
	bool present, strained; /* while sides are gone through */
	uint32_t share_ppm;
	/* First attempts that were admitted, ever, as of each of the last seconds; the oldest is overwritten next. */
	uint64_t first[SECONDS];
	unsigned at, n;
	uint64_t uncounted; /* such attempts as of when workers counted none any more; or never did */
};

struct budgets {
	struct dataplane *dp;
	const struct services *services;
	struct service *services_at; /* by slot */
	uint32_t n_slots;
	uint64_t counted_ns; /* when first attempts were counted last */
	bool wall;           /* enforced: breakers matter */
	bool idle;           /* nobody needs a token */
};

struct budgets *budgets_create(struct dataplane *dp, const struct services *services, uint32_t n_service_slots)
{
	struct budgets *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	*b = (struct budgets){.dp = dp, .services = services, .n_slots = n_service_slots, .idle = true};
	b->services_at = calloc(n_service_slots, sizeof(*b->services_at));
	if (b->services_at)
		return b;
	free(b);
	return NULL;
}

void budgets_destroy(struct budgets *budgets)
{
	if (!budgets)
		return;
	free(budgets->services_at);
	free(budgets);
}

static uint64_t first_attempts(const struct budgets *b, uint32_t slot)
{
	struct service_report r;

	observe_service(b->dp, slot, &r);
	return r.first_attempts;
}

static void count(struct budgets *b, uint32_t slot)
{
	struct service *svc = &b->services_at[slot];

	svc->first[svc->at] = first_attempts(b, slot);
	svc->at = (svc->at + 1) % SECONDS;
	svc->n += svc->n < SECONDS;
}

static void look_at_side(void *arg, const struct services_side *side)
{
	struct budgets *b = arg;
	struct service *svc = &b->services_at[side->service_ref.slot];

	/* Another one's cell is as new. */
	if (!svc->n || svc->generation != side->service_ref.generation) {
		*svc = (struct service){.generation = side->service_ref.generation};
		svc->uncounted = first_attempts(b, side->service_ref.slot);
		count(b, side->service_ref.slot);
	}
	svc->present = true;
	svc->share_ppm = side->part->storm.retry_budget_ppm;
	for (uint32_t i = 0; i < side->set->n_backends && !svc->strained; i++)
		svc->strained = dataplane_backend_is_strained(b->dp, side->set->backends[i].ref.slot, b->wall);
}

/* In parts of tokens; of so many first attempts. */
static uint64_t earned_by(const struct service *svc, uint64_t first)
{
	const uint64_t most = (uint64_t)BUDGET_CAP_MAX * BUDGET_TOKEN;

	return first < most / (svc->share_ppm + 1) ? first * svc->share_ppm : most;
}

/* What was admitted since the oldest count, of ten seconds ago or of when counting began. */
static uint32_t cap_of(const struct service *svc, uint64_t first)
{
	uint64_t oldest = svc->first[svc->n == SECONDS ? svc->at : 0];
	uint64_t tokens = earned_by(svc, first - oldest) / BUDGET_TOKEN;

	return tokens > BUDGET_CAP_MIN ? tokens : BUDGET_CAP_MIN;
}

static void put(struct budgets *b, uint32_t slot, bool again)
{
	struct service *svc = &b->services_at[slot];
	uint32_t cap = svc->strained ? svc->cap : 0;
	uint64_t first;

	if (cap == svc->cap && !(svc->strained && (again || !cap)))
		return;
	first = first_attempts(b, slot);
	if (svc->strained)
		cap = cap_of(svc, first);
	else
		svc->uncounted = first;
	if (cap != svc->cap)
		dataplane_service_budget(b->dp, slot, cap, earned_by(svc, first - svc->uncounted));
	svc->cap = cap;
}

static void forget_all(struct budgets *b)
{
	for (uint32_t slot = 0; slot < b->n_slots; slot++) {
		if (b->services_at[slot].cap)
			dataplane_service_budget(b->dp, slot, 0, 0);
		b->services_at[slot] = (struct service){0};
	}
	b->counted_ns = 0;
	b->idle = true;
}

void budgets_tick(struct budgets *budgets, const struct cure_modes *modes, uint64_t now_ns)
{
	bool again = now_ns - budgets->counted_ns >= SECOND_NS;

	if (modes->of[CURE_STORM] == CURE_OFF) {
		if (!budgets->idle)
			forget_all(budgets);
		return;
	}
	budgets->idle = false;
	budgets->wall = modes->of[CURE_WALL] == CURE_ENFORCE;
	for (uint32_t slot = 0; slot < budgets->n_slots; slot++)
		budgets->services_at[slot].strained = budgets->services_at[slot].present = false;
	services_sides(budgets->services, look_at_side, budgets);
	for (uint32_t slot = 0; slot < budgets->n_slots; slot++) {
		put(budgets, slot, again);
		if (again && budgets->services_at[slot].present)
			count(budgets, slot);
	}
	if (again)
		budgets->counted_ns = now_ns;
}
