/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiters.h"
#include "dataplane.h"
#include "events.h"
#include "hash.h"
#include "observe.h"
#include "services.h"
#include "streak.h"
#include "view.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OVERLOAD_US   200000         /* a SYN that is counted as overload went unanswered for as long at least */
#define PACE_PERCENT  90             /* of the most that was answered lately, those that waited are let through */
#define PACE_MIN      10             /* a second; below, as there is room */
#define PACE_AFTER_NS 10000000000ull /* that goes on for so long after the last limit, and after a breaker was open */
#define SHARE_TIMES   2              /* of what is answered, divided by all */
#define SECOND_NS     1000000000ull
#define SECOND_TICKS  10 /* about */
#define TOLD_EVERY_NS 10000000000ull
#define TOLD_A_SECOND 10 /* events, about: the ring of them is for others, too */
#define DESCRIPTION   240
#define BASE_CHANGED  8          /* what changed by one part of so many is worth to be written, */
#define RATE_CHANGED  3          /* and an answer less or more in so many a second, */
#define RATE_MIN      30         /* if there are so many */
#define LIMIT_UNKNOWN UINT32_MAX /* of a slot that has just been given to another one */

struct backend {
	uint32_t generation;           /* of its slot */
	uint32_t limit;                /* as the workers know it, or LIMIT_UNKNOWN */
	uint64_t timeout_ns;           /* the shortest patience of the clients of its services; 0: none names it */
	struct gcra_rate cap, put_cap; /* what its services' storm.backend_rate agree on; and what workers were told */
	uint64_t told_ns;              /* when an event of it was told last */
	uint32_t n_untold;             /* limits, with the one that is to be told */
	bool told;                     /* that it is limited now */
	bool impatient;                /* that is told */
	uint32_t n_again;              /* of limiter.n_again, told */
	uint64_t again_after_ns;       /* for so long it had been limited then */
	bool was_open;                 /* its breaker */
	uint64_t left_open_ns;         /* when that was over last; 0: never */
	struct limiter_past saved;     /* base_ns 0: nothing of it */
	struct slot_info who;          /* proto 0: nobody */
	struct limiter limiter;
};

/* Of all its backends, while sides are gone through. */
struct service {
	uint32_t generation;                  /* of its slot */
	uint32_t n_limits, n_congested;       /* of its backends: with a limit, and congested */
	bool left_open;                       /* one of them was dead, and is back since less than PACE_AFTER_NS */
	uint64_t hold_ns, calm_hold_ns, rate; /* the shortest of those that are congested, and of the others */
	uint64_t limited_ns;                  /* when one of them was last; 0: never */
	uint64_t waited, waited_ns;           /* for room, as a sum, and when one more did; 0: never */
	bool has_backends;
	/* Who connected, as sums, of the ticks of the last second; from `n_active` ticks on it is shared out. */
	uint64_t active[SECOND_TICKS][FAIR_LEVELS];
	unsigned n_active;
	struct service_limit sent;
};

struct limiters {
	struct dataplane *dp;
	const struct services *services;
	struct events *events;
	struct limiters_config config;
	struct backend *backends;    /* by slot */
	struct service *services_at; /* by slot */
	struct limiter_memory *memory;
	bool idle;    /* nothing is measured, nothing limited */
	bool unsaved; /* something was forgotten that is saved */
	bool wall;    /* is enforced: what breakers say is so */
	uint64_t told_second;
	unsigned n_told;     /* in that second */
	uint32_t tell_first; /* slot */
	uint64_t now_ns;
};

uint64_t limiters_bytes(uint32_t n_backend_slots)
{
	return (uint64_t)n_backend_slots * sizeof(struct backend);
}

struct limiters *limiters_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct limiters_config *config)
{
	struct limiters *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	*l = (struct limiters){.dp = dp, .services = services, .events = events, .config = *config, .idle = true};
	l->backends = calloc(config->n_backend_slots, sizeof(*l->backends));
	l->services_at = calloc(config->n_service_slots, sizeof(*l->services_at));
	l->memory = limiter_memory_create();
	if (l->backends && l->services_at && l->memory)
		return l;
	limiters_destroy(l);
	return NULL;
}

void limiters_destroy(struct limiters *limiters)
{
	if (!limiters)
		return;
	free(limiters->backends);
	free(limiters->services_at);
	limiter_memory_destroy(limiters->memory);
	free(limiters);
}

static uint64_t since_ns(const struct limiter *l, uint64_t now_ns, uint64_t clock_ns)
{
	return l->since_ns ? clock_ns - (now_ns - l->since_ns) : 0;
}

/* One that no service names any more has no limit, whatever is known of it. */
static bool is_limited(const struct backend *b)
{
	return b->timeout_ns && b->limiter.state == LIMITER_LIMITING;
}

void limiters_view(const struct limiters *limiters, struct view *view, uint64_t now_ns, uint64_t clock_ns)
{
	for (size_t i = 0; i < view->n_backends; i++) {
		struct view_backend *to = &view->backends[i];
		const struct backend *b = &limiters->backends[to->slot];

		if (b->generation != to->generation)
			continue;
		to->limiter = (struct view_limiter){
			.limiting = is_limited(b),
			.stalled = b->timeout_ns && b->limiter.stalled,
			.limit = b->limiter.limit,
			.wip = b->limiter.wip,
			.since_ns = since_ns(&b->limiter, now_ns, clock_ns),
			.usual_ns = b->limiter.base_ns,
			.calm_ns = limiter_calm_ns(&b->limiter),
			.from = b->limiter.base_from,
			.first_byte_ns = b->limiter.first_byte_ns,
			.rate = b->limiter.rate,
		};
	}
}

/* --- one backend --- */

static uint32_t limit_word(const struct limiter *l)
{
	return (l->limit < LIMIT_WORK ? l->limit : LIMIT_WORK) | (l->soft ? LIMIT_SOFT : 0) |
	       (l->state == LIMITER_LIMITING ? LIMIT_CONGESTED : 0);
}

static void put_limit(struct limiters *l, uint32_t slot, uint32_t limit)
{
	if (l->backends[slot].limit == limit)
		return;
	l->backends[slot].limit = limit;
	dataplane_backend_limit(l->dp, slot, limit);
}

static void put_cap(struct limiters *l, uint32_t slot)
{
	struct backend *b = &l->backends[slot];

	if (b->cap.interval == b->put_cap.interval && b->cap.tolerance == b->put_cap.tolerance)
		return;
	b->put_cap = b->cap;
	dataplane_backend_rate(l->dp, slot, &b->cap);
}

/* Its state may change every second or two: of one that does, not each change is told. */
static bool may_tell(const struct limiters *l, const struct backend *b)
{
	return !b->told_ns || l->now_ns - b->told_ns >= TOLD_EVERY_NS;
}

/*
 * Until people know what is so: a limit that began too soon after the last one that was told is told later, if it
 * lasts, and who heard of its beginning hears of its end.
 */
static void tell_state(struct limiters *l, struct backend *b, enum cure_mode mode)
{
	char id[SLOT_ID_STRLEN], text[DESCRIPTION], untold[80] = "";
	bool limiting = is_limited(b);

	if (limiting == b->told || (limiting && !may_tell(l, b)))
		return;
	b->told = limiting;
	if (b->timeout_ns)
		limiter_describe(&b->limiter, text, sizeof(text));
	else
		snprintf(text, sizeof(text), "no service names it any more");
	if (limiting) {
		b->told_ns = l->now_ns;
		if (b->n_untold > 1)
			snprintf(untold, sizeof(untold), "; it was limited %u times more since the last that was told",
				 b->n_untold - 1);
		b->n_untold = 0;
	}
	l->n_told++;
	events_add(l->events, limiting ? EVENT_WARNING : EVENT_INFO, limiting ? "limiting" : "limit_over",
		   cure_name[CURE_STORM], slots_id(&b->who, id), "%s%s%s", text,
		   limiting && mode == CURE_SHADOW ? " (shadow: it gets more all the same)" : "", untold);
}

static void tell_impatient(struct limiters *l, struct backend *b)
{
	char id[SLOT_ID_STRLEN];

	if (b->impatient == b->limiter.impatient)
		return;
	b->impatient = b->limiter.impatient;
	if (!b->impatient)
		return;
	l->n_told++;
	events_add(l->events, EVENT_WARNING, "client_timeout_short", cure_name[CURE_STORM], slots_id(&b->who, id),
		   "a first byte usually takes %.0f ms: with clients that wait for %.0f ms, a limit cannot keep what "
		   "it admits from being given up; see storm.client_timeout",
		   b->limiter.base_ns / 1e6, b->timeout_ns / 1e6);
}

static void tell_again(struct limiters *l, struct backend *b)
{
	char id[SLOT_ID_STRLEN];

	if (b->n_again == b->limiter.n_again)
		return;
	b->n_again = b->limiter.n_again;
	l->n_told++;
	if (b->limiter.refuted_ns)
		events_add(l->events, EVENT_WARNING, "usual_measured_again", cure_name[CURE_STORM],
			   slots_id(&b->who, id),
			   "limited for %.0f s; asked with half as much, first bytes take %.1f ms, which is usual from "
			   "now on (it was %.1f): slower for good?",
			   b->again_after_ns / 1e9, b->limiter.base_ns / 1e6, b->limiter.refuted_ns / 1e6);
	else
		events_add(
			l->events, EVENT_WARNING, "usual_measured_again", cure_name[CURE_STORM], slots_id(&b->who, id),
			"limited for %.0f s; asked with half as much, it answered too little to say what first bytes "
			"take now: what was usual stays",
			b->again_after_ns / 1e9);
}

/* All that is not told yet, as far as it goes: whom nothing is left for is the first in the next second. */
static void tell_all(struct limiters *l, enum cure_mode mode)
{
	uint64_t second = l->now_ns / SECOND_NS;

	if (second != l->told_second)
		l->n_told = 0;
	l->told_second = second;
	for (uint32_t i = 0, first = l->tell_first; i < l->config.n_backend_slots; i++) {
		uint32_t slot = (first + i) % l->config.n_backend_slots;
		struct backend *b = &l->backends[slot];

		if (l->n_told >= TOLD_A_SECOND) {
			l->tell_first = slot;
			return;
		}
		if (!b->who.proto)
			continue;
		tell_state(l, b, mode);
		if (!b->timeout_ns)
			continue;
		tell_impatient(l, b);
		tell_again(l, b);
	}
}

/* The slot has another owner, or none: what was known of the one before may be of use to it again. */
static void leave(struct limiters *l, struct backend *b)
{
	struct limiter_known known = {.who = b->who, .from = LIMITER_BASE_LEFT};
	uint64_t timeout_ns = b->timeout_ns;
	struct gcra_rate cap = b->cap;

	if (!b->who.proto)
		return;
	/* Now or never; those that are too many for it are told of as gone in any case. */
	b->timeout_ns = 0;
	if (l->n_told < TOLD_A_SECOND)
		tell_state(l, b, CURE_ENFORCE);
	if (limiter_past(&b->limiter, l->now_ns, &known.past))
		limiter_memory_put(l->memory, &known, l->now_ns);
	*b = (struct backend){.limit = b->limit, .timeout_ns = timeout_ns, .cap = cap};
}

static void arrive(struct limiters *l, const struct slot_info *info, struct backend *b)
{
	struct limiter_known known;

	leave(l, b);
	b->generation = info->ref.generation;
	b->limit = LIMIT_UNKNOWN;
	b->who = *info;
	if (limiter_memory_take(l->memory, info, l->now_ns, &known))
		limiter_recall(&b->limiter, &known.past, known.from, l->now_ns);
}

/*
 * In the ramp it may have little at a time at first, too, while others can take the rest. In shadow there is no ramp,
 * and who would have been shut out never was.
 */
static uint32_t look_at_breaker(struct limiters *l, uint32_t slot, struct backend *b)
{
	enum breaker_state state = l->wall ? streak_state(dataplane_breaker(l->dp, slot)) : BREAKER_CLOSED;

	if (b->was_open && state != BREAKER_OPEN)
		b->left_open_ns = l->now_ns;
	b->was_open = state == BREAKER_OPEN;
	return state == BREAKER_RAMP ? limiter_ramp(dataplane_backend_share_now(l->dp, slot)) : 0;
}

static void tick_backend(struct limiters *l, uint32_t slot)
{
	struct backend *b = &l->backends[slot];
	struct limiter_parameters p = {.client_timeout_ns = b->timeout_ns};
	struct limiter_counts counts;
	struct work_report work;
	struct slot_info info;
	uint32_t n_again;
	bool changed;

	if (!services_backend(l->services, slot, &info)) {
		leave(l, b);
		put_limit(l, slot, 0);
		return;
	}
	observe_work(l->dp, slot, &work);
	if (!b->who.proto || b->generation != info.ref.generation)
		arrive(l, &info, b);
	put_cap(l, slot);
	/* One that nobody names any more has the flows that it has. */
	if (!b->timeout_ns) {
		put_limit(l, slot, 0);
		return;
	}
	counts = (struct limiter_counts){
		.answered = work.answered,
		.timed = work.timed,
		.timed_us = work.timed_us,
		.gave_up = work.gave_up + work.overloads,
		.gave_up_us = work.gave_up_us + work.overloads * OVERLOAD_US,
		.wip = work.wip,
	};
	if (work.timed != b->limiter.seen.timed)
		observe_first_bytes(l->dp, slot, counts.octaves);
	else
		memcpy(counts.octaves, b->limiter.seen.octaves, sizeof(counts.octaves));
	p.most = look_at_breaker(l, slot, b);
	n_again = b->limiter.n_again;
	changed = limiter_tick(&b->limiter, &counts, &p, l->now_ns, hash_public(&l->now_ns, sizeof(l->now_ns), slot));
	put_limit(l, slot, limit_word(&b->limiter));
	b->n_untold += changed && b->limiter.state == LIMITER_LIMITING;
	if (b->limiter.n_again != n_again)
		b->again_after_ns = l->now_ns - b->limiter.since_ns;
}

/* --- services --- */

/* No more often than either, and no more at once. */
static struct gcra_rate agreed(const struct gcra_rate *a, const struct gcra_rate *b)
{
	uint64_t burst_a, burst_b = b->tolerance / b->interval;

	if (!a->interval)
		return *b;
	burst_a = a->tolerance / a->interval;
	return gcra_rate_of(a->interval > b->interval ? a->interval : b->interval,
			    burst_a < burst_b ? burst_a : burst_b);
}

static void learn_side(void *arg, const struct services_side *side)
{
	struct limiters *l = arg;
	uint64_t timeout_ns = side->part->storm.client_timeout_ns;

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		struct backend *b = &l->backends[side->set->backends[i].ref.slot];

		if (!b->timeout_ns || timeout_ns < b->timeout_ns)
			b->timeout_ns = timeout_ns;
		if (side->set->rate.interval)
			b->cap = agreed(&b->cap, &side->set->rate);
	}
}

static void begin_service(struct service *svc)
{
	svc->n_limits = svc->n_congested = 0;
	svc->left_open = svc->has_backends = false;
	svc->hold_ns = svc->calm_hold_ns = UINT64_MAX;
	svc->rate = 0;
}

static void add_side(void *arg, const struct services_side *side)
{
	struct limiters *l = arg;
	struct service *svc = &l->services_at[side->service_ref.slot];

	/* Another one's cell is as new. */
	if (svc->generation != side->service_ref.generation) {
		*svc = (struct service){.generation = side->service_ref.generation};
		begin_service(svc);
	}
	svc->has_backends = true;
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		const struct backend *b = &l->backends[side->set->backends[i].ref.slot];
		bool congested = b->limiter.state == LIMITER_LIMITING;
		uint64_t *hold_ns = congested ? &svc->hold_ns : &svc->calm_hold_ns;

		svc->rate += b->limiter.rate;
		svc->left_open |= b->left_open_ns && l->now_ns - b->left_open_ns < PACE_AFTER_NS;
		if (!b->limit)
			continue;
		svc->n_limits++;
		svc->n_congested += congested;
		if (b->limiter.hold_ns < *hold_ns)
			*hold_ns = b->limiter.hold_ns;
	}
}

static uint32_t at_most_u32(uint64_t n)
{
	return n < UINT32_MAX ? n : UINT32_MAX;
}

/* Of new flows a second. */
static void share_out(struct limiters *l, uint32_t slot, uint32_t shares[static FAIR_LEVELS])
{
	struct service *svc = &l->services_at[slot];
	uint64_t *then = svc->active[svc->n_active % SECOND_TICKS], now[FAIR_LEVELS];

	dataplane_service_active(l->dp, slot, now);
	for (unsigned level = 0; level < FAIR_LEVELS; level++) {
		uint64_t first = svc->n_active < SECOND_TICKS ? svc->active[0][level] : then[level];
		uint64_t n = svc->n_active && now[level] > first ? now[level] - first : 1;
		uint64_t share = SHARE_TIMES * svc->rate / n;

		shares[level] = share ? at_most_u32(share) : 1;
	}
	memcpy(then, now, sizeof(now));
	svc->n_active++;
}

static bool is_same(const struct service_limit *a, const struct service_limit *b)
{
	return a->n_limits == b->n_limits && a->n_congested == b->n_congested && a->hold_ms == b->hold_ms &&
	       a->pace == b->pace && !memcmp(a->shares, b->shares, sizeof(a->shares));
}

/* For whatever room, that of a window or an operator's maximum, too: then it is shared out. */
static bool somebody_waited_lately(struct limiters *l, struct service *svc, uint32_t slot)
{
	struct service_report report;

	observe_service(l->dp, slot, &report);
	if (report.waited != svc->waited)
		svc->waited_ns = l->now_ns;
	svc->waited = report.waited;
	return svc->waited_ns && l->now_ns - svc->waited_ns < PACE_AFTER_NS;
}

/* Who still waits when the last limit is over goes at the same pace, lest they are the next storm. */
static void put_service(struct limiters *l, uint32_t slot)
{
	struct service *svc = &l->services_at[slot];
	bool lately, waited = svc->has_backends && !l->idle && somebody_waited_lately(l, svc, slot);
	struct service_limit limit = {
		.n_limits = svc->n_limits,
		.n_congested = svc->n_congested,
		.hold_ms = svc->n_limits ? (svc->n_congested ? svc->hold_ns : svc->calm_hold_ns) / 1000000 : 0,
	};
	uint64_t pace = svc->rate * PACE_PERCENT / 100;

	if (svc->n_congested)
		svc->limited_ns = l->now_ns;
	lately = svc->left_open || (svc->limited_ns && l->now_ns - svc->limited_ns < PACE_AFTER_NS);
	if (lately && pace >= PACE_MIN)
		limit.pace = at_most_u32(pace);
	if (lately || waited)
		share_out(l, slot, limit.shares);
	else
		svc->n_active = 0;
	if (is_same(&limit, &svc->sent))
		return;
	svc->sent = limit;
	dataplane_service_limit(l->dp, slot, &limit);
}

static void tick_services(struct limiters *l)
{
	for (uint32_t slot = 0; slot < l->config.n_service_slots; slot++)
		begin_service(&l->services_at[slot]);
	services_sides(l->services, add_side, l);
	for (uint32_t slot = 0; slot < l->config.n_service_slots; slot++)
		put_service(l, slot);
}

/* Nothing is measured any more: what was known is of another time. */
static void forget_all(struct limiters *l)
{
	l->idle = true;
	for (uint32_t slot = 0; slot < l->config.n_backend_slots; slot++) {
		put_limit(l, slot, 0);
		l->backends[slot].cap = (struct gcra_rate){0};
		put_cap(l, slot);
		l->backends[slot] = (struct backend){0};
	}
	for (uint32_t slot = 0; slot < l->config.n_service_slots; slot++) {
		l->services_at[slot].limited_ns = l->services_at[slot].waited_ns = 0;
		begin_service(&l->services_at[slot]);
		put_service(l, slot);
	}
	limiter_memory_clear(l->memory);
	l->unsaved = true;
}

static bool is_new(const struct limiters *l, uint32_t slot)
{
	const struct backend *b = &l->backends[slot];
	struct slot_info info;

	return services_backend(l->services, slot, &info) && (!b->who.proto || b->generation != info.ref.generation);
}

void limiters_meet(struct limiters *limiters, const struct cure_modes *modes, uint64_t now_ns)
{
	if (modes->of[CURE_STORM] == CURE_OFF)
		return;
	limiters->now_ns = now_ns;
	limiters->wall = modes->of[CURE_WALL] == CURE_ENFORCE;
	limiters->idle = false;
	for (uint32_t slot = 0; slot < limiters->config.n_backend_slots; slot++)
		limiters->backends[slot].cap = (struct gcra_rate){0};
	services_sides(limiters->services, learn_side, limiters);
	for (uint32_t slot = 0; slot < limiters->config.n_backend_slots; slot++)
		if (is_new(limiters, slot))
			tick_backend(limiters, slot);
		else
			put_cap(limiters, slot);
	tick_services(limiters);
}

void limiters_tick(struct limiters *limiters, const struct cure_modes *modes, uint64_t now_ns)
{
	enum cure_mode mode = modes->of[CURE_STORM];

	limiters->now_ns = now_ns;
	limiters->wall = modes->of[CURE_WALL] == CURE_ENFORCE;
	if (mode == CURE_OFF) {
		if (!limiters->idle)
			forget_all(limiters);
		return;
	}
	limiters->idle = false;
	for (uint32_t slot = 0; slot < limiters->config.n_backend_slots; slot++) {
		limiters->backends[slot].timeout_ns = 0;
		limiters->backends[slot].cap = (struct gcra_rate){0};
	}
	services_sides(limiters->services, learn_side, limiters);
	for (uint32_t slot = 0; slot < limiters->config.n_backend_slots; slot++)
		tick_backend(limiters, slot);
	tick_services(limiters);
	tell_all(limiters, mode);
}

/* --- an operator's word --- */

static struct backend *find_backend(struct limiters *l, const char *backend_id)
{
	char id[SLOT_ID_STRLEN];

	for (uint32_t slot = 0; slot < l->config.n_backend_slots; slot++)
		if (l->backends[slot].who.proto && strcmp(slots_id(&l->backends[slot].who, id), backend_id) == 0)
			return &l->backends[slot];
	return NULL;
}

int limiters_reset(struct limiters *l, const char *backend_id, enum cure_mode mode, uint64_t now_ns)
{
	struct backend *b = find_backend(l, backend_id);
	struct limiter_known gone;

	if (mode == CURE_OFF)
		return -EPERM;
	if (b)
		return limiter_reset(&b->limiter, now_ns);
	if (!limiter_memory_take_id(l->memory, backend_id, now_ns, &gone))
		return -ENOENT;
	l->unsaved = true;
	return 0;
}

/* --- what outlives a restart --- */

bool limiters_remember(struct limiters *l, const struct limiter_known *known, uint64_t now_ns)
{
	return limiter_memory_put(l->memory, known, now_ns);
}

void limiters_known(const struct limiters *l, uint64_t now_ns, void (*fn)(void *arg, const struct limiter_known *known),
		    void *arg)
{
	for (uint32_t slot = 0; slot < l->config.n_backend_slots; slot++) {
		const struct backend *b = &l->backends[slot];
		struct limiter_known known = {.who = b->who, .from = b->limiter.base_from};

		if (b->who.proto && limiter_past(&b->limiter, now_ns, &known.past))
			fn(arg, &known);
	}
	limiter_memory_foreach(l->memory, now_ns, fn, arg);
}

static bool differs(uint64_t a, uint64_t b, uint64_t part)
{
	return (a > b ? a - b : b - a) > b / part;
}

static bool is_unsaved(const struct backend *b, uint64_t now_ns)
{
	struct limiter_past past;

	if (!b->who.proto || !limiter_past(&b->limiter, now_ns, &past))
		return b->saved.base_ns != 0;
	return differs(past.base_ns, b->saved.base_ns, BASE_CHANGED) ||
	       ((past.rate >= RATE_MIN || b->saved.rate >= RATE_MIN) &&
		differs(past.rate, b->saved.rate, RATE_CHANGED));
}

bool limiters_unsaved(const struct limiters *l, uint64_t now_ns)
{
	for (uint32_t slot = 0; slot < l->config.n_backend_slots; slot++)
		if (is_unsaved(&l->backends[slot], now_ns))
			return true;
	return l->unsaved;
}

void limiters_saved(struct limiters *l, uint64_t now_ns)
{
	for (uint32_t slot = 0; slot < l->config.n_backend_slots; slot++) {
		struct backend *b = &l->backends[slot];

		if (!b->who.proto || !limiter_past(&b->limiter, now_ns, &b->saved))
			b->saved = (struct limiter_past){0};
	}
	l->unsaved = false;
}
