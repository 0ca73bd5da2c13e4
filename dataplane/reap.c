/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Flows have no list by backend: they would pay for it at every birth and end. Who orders their end makes the workers
 * walk their tables instead, some entries per loop, again and again while there are orders. Which flow ends when
 * follows from its hash and the order's time alone, so that the workers need not agree on anything.
 *
 * A slot's order cannot meet the flows of its next owner: the slot is given away when it has no flows, and reset then.
 */
#include "reap.h"
#include "ends.h"
#include "memory.h"
#include "outcome_worker.h"
#include "pipeline.h"
#include "place.h"
#include "scan.h"
#include "signals.h"
#include "steer.h"
#include "tcp.h"

#include <errno.h>

#define ENDS_PER_LOOP  32  /* flows ended per loop: the RSTs are no longer a burst than what else leaves */
#define WALK_EVERY_MS  100 /* a spread is as fine as this */

/* --- orders, a word each: whoever reads one reads a whole one --- */

#define SPREAD_UNIT_MS 100
#define START_UNIT_MS  16 /* an order may stand for a year */

#define CAUSE_BITS     2
#define MIN_AGE_BITS   20
#define SPREAD_BITS    10
#define START_BITS     32

static_assert(CAUSE_BITS + MIN_AGE_BITS + SPREAD_BITS + START_BITS == 64, "one word");
static_assert(REAP_SPREAD_MAX_MS == ((1 << SPREAD_BITS) - 1) * SPREAD_UNIT_MS, "what the field holds");
static_assert(REAP_MIN_AGE_MAX_S == (1 << MIN_AGE_BITS) - 1, "what the field holds");
static_assert(REAP_DEAD < 1 << CAUSE_BITS, "what the field holds");

static uint64_t pack(const struct reap_order *o, uint64_t start_ms)
{
	uint64_t spread = RTE_MIN(o->spread_ms, (uint32_t)REAP_SPREAD_MAX_MS) / SPREAD_UNIT_MS;
	uint64_t min_age_s = RTE_MIN(o->min_age_s, (uint32_t)REAP_MIN_AGE_MAX_S);

	return (start_ms / START_UNIT_MS) << (SPREAD_BITS + MIN_AGE_BITS + CAUSE_BITS) |
	       spread << (MIN_AGE_BITS + CAUSE_BITS) | min_age_s << CAUSE_BITS | o->cause;
}

static enum reap_cause cause_of(uint64_t packed)
{
	return packed & ((1 << CAUSE_BITS) - 1);
}

/* A worker's clock is that of its loop: it may be behind the order's. */
static int64_t since_ms(const struct worker *w, uint32_t start)
{
	return (int64_t)(int32_t)((uint32_t)(w->now_ns / 1000000 / START_UNIT_MS) - start) * START_UNIT_MS;
}

/* `start`: see since_ms(). */
static struct reap_order unpack(uint64_t packed, uint32_t *start)
{
	*start = packed >> (SPREAD_BITS + MIN_AGE_BITS + CAUSE_BITS);
	return (struct reap_order){
		.cause = cause_of(packed),
		.spread_ms = (packed >> (MIN_AGE_BITS + CAUSE_BITS) & ((1 << SPREAD_BITS) - 1)) * SPREAD_UNIT_MS,
		.min_age_s = packed >> CAUSE_BITS & ((1 << MIN_AGE_BITS) - 1),
	};
}

static uint64_t clock_ms(uint64_t now_ns)
{
	return now_ns / 1000000;
}

/* --- decide's side --- */

static void tell_workers(struct dataplane *dp)
{
	__atomic_store_n(&dp->cells.reap.number, dp->cells.reap.number + 1, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		worker_wake(dp->workers[i]);
}

static void put_order(struct dataplane *dp, uint64_t *at, uint64_t packed)
{
	struct reap_cells *c = &dp->cells.reap;
	uint32_t n_orders = c->n_orders + !!packed - !!*at;

	__atomic_store_n(at, packed, __ATOMIC_RELAXED);
	__atomic_store_n(&c->n_orders, n_orders, __ATOMIC_RELAXED);
}

void dataplane_reap(struct dataplane *dp, uint32_t backend_slot, const struct reap_order *order)
{
	put_order(dp, &dp->cells.reap.orders[backend_slot], pack(order, clock_ms(dataplane_now_ns(dp))));
	tell_workers(dp);
}

void dataplane_reap_all(struct dataplane *dp, const struct reap_order *order)
{
	put_order(dp, &dp->cells.reap.all, pack(order, clock_ms(dataplane_now_ns(dp))));
	tell_workers(dp);
}

enum reap_cause dataplane_reap_ordered(const struct dataplane *dp, uint32_t backend_slot)
{
	return cause_of(dp->cells.reap.orders[backend_slot]);
}

void dataplane_reap_cancel(struct dataplane *dp, uint32_t backend_slot, enum reap_cause cause)
{
	if (dataplane_reap_ordered(dp, backend_slot) == cause)
		put_order(dp, &dp->cells.reap.orders[backend_slot], 0);
}

void reap_forget(struct dataplane *dp, uint32_t slot)
{
	put_order(dp, &dp->cells.reap.orders[slot], 0);
}

/* --- surveys --- */

/* Written by one worker; read by decide when the worker has walked that survey whole. */
struct reap_oldest {
	uint32_t survey; /* 0: none yet */
	uint64_t age_ms;
};

void dataplane_survey(struct dataplane *dp)
{
	struct reap_cells *c = &dp->cells.reap;
	uint32_t next = c->survey + 1;

	__atomic_store_n(&c->survey, next ? next : 1, __ATOMIC_RELAXED);
	tell_workers(dp);
}

bool dataplane_survey_done(const struct dataplane *dp)
{
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		if (__atomic_load_n(&dp->workers[i]->reaper.surveyed, __ATOMIC_ACQUIRE) != dp->cells.reap.survey)
			return false;
	return true;
}

uint64_t dataplane_oldest_ms(const struct dataplane *dp, uint32_t backend_slot)
{
	uint64_t oldest_ms = 0;

	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct reap_oldest *o = &dp->workers[i]->reaper.oldest[backend_slot];
		uint64_t age_ms = __atomic_load_n(&o->age_ms, __ATOMIC_RELAXED);

		if (__atomic_load_n(&o->survey, __ATOMIC_RELAXED) == dp->cells.reap.survey && age_ms > oldest_ms)
			oldest_ms = age_ms;
	}
	return oldest_ms;
}

static void survey(struct worker *w, flow_ref up, uint32_t backend_slot)
{
	struct reap_oldest *o = &w->reaper.oldest[backend_slot];
	uint64_t age = flow_age_ms(&w->flows, up, w->now_ns);

	if (o->survey == w->reaper.survey && o->age_ms >= age)
		return;
	__atomic_store_n(&o->age_ms, age, __ATOMIC_RELAXED);
	__atomic_store_n(&o->survey, w->reaper.survey, __ATOMIC_RELAXED);
}

/* --- the worker's side --- */

static const struct kind {
	enum cure cure;
	enum action action;
	enum made made;
} kinds[] = {
	[REAP_DRAIN] = {CURE_NAMES, ACTION_drain_rst, MADE_rst_drain},
	[REAP_STOP] = {CURE_SILENCE, ACTION_rst_stop, MADE_rst_stop},
	[REAP_DEAD] = {CURE_WALL, ACTION_rst_dead, MADE_rst_dead},
};

/* The order that concerns a flow of the slot; 0: none. */
static uint64_t order_for(const struct worker *w, uint32_t backend_slot)
{
	const struct reap_cells *c = &w->cells->reap;
	uint64_t all = __atomic_load_n(&c->all, __ATOMIC_RELAXED);

	return all ? all : __atomic_load_n(&c->orders[backend_slot], __ATOMIC_RELAXED);
}

/* The client waits, and not only now: nothing came from the backend since it asked. */
static bool waits_for_the_dead(const struct worker *w, flow_ref up)
{
	const struct flow_half *down = flow_half(&w->flows, flow_ref_other(up));

	return !down->udp && (down->state == FLOW_ESTABLISHED || down->state == FLOW_FIN_WAIT) &&
	       (uint32_t)w->run_ms - down->last_ms >= REAP_DEAD_MS && tcp_has_unacknowledged(w, up) &&
	       signals_waited_ms(w, up) >= REAP_DEAD_MS;
}

/* Idle flows have their moments in the first half of the spread, the others in the second one. */
static bool is_due(const struct worker *w, flow_ref up, uint64_t packed)
{
	uint32_t start;
	struct reap_order order = unpack(packed, &start);
	int64_t elapsed_ms = since_ms(w, start), age_ms = flow_age_ms(&w->flows, up, w->now_ns), moment_ms;

	if (order.min_age_s && age_ms < (int64_t)order.min_age_s * 1000 + elapsed_ms)
		return false;
	if (order.cause == REAP_DEAD)
		return waits_for_the_dead(w, up) &&
		       elapsed_ms >=
			       (int64_t)((uint64_t)(uint32_t)flow_cold(&w->flows, up)->hash[DIR_UP] * order.spread_ms >>
					 32);
	moment_ms = (uint64_t)(uint32_t)flow_cold(&w->flows, up)->hash[DIR_UP] * order.spread_ms >> 33;
	if (!ends_are_idle(w, up))
		moment_ms += order.spread_ms / 2;
	return elapsed_ms >= moment_ms;
}

/* Both ends know already: it goes without a word, and without being counted. */
static bool is_closed(enum flow_state state)
{
	return state == FLOW_TIME_WAIT || state == FLOW_CLOSED;
}

static void count_would(struct worker *w, flow_ref up, enum action action)
{
	struct flow_track *track = flow_track(&w->flows, up);

	if (track->marks & FLOW_MARK_WOULD_END || is_closed(flow_half(&w->flows, up)->state))
		return;
	track->marks |= FLOW_MARK_WOULD_END;
	outcome_action_due_at(w, up, CURE_SHADOW, action, track->backend_slot);
}

/* Both ends hear of it, at once or later. False: not now, as there were too many RSTs. */
static bool end_tcp(struct worker *w, flow_ref up, const struct kind *kind)
{
	if (!answer_limits_ends(w->limits, DIRS, w->now_ns))
		return false;
	outcome_action_due_at(w, up, CURE_ENFORCE, kind->action, flow_track(&w->flows, up)->backend_slot);
	ends_end(w, up, kind->made);
	return true;
}

static bool end_flow(struct worker *w, flow_ref up, const struct kind *kind)
{
	const struct flow_half *half = flow_half(&w->flows, up);

	if (!half->udp && !is_closed(half->state))
		return end_tcp(w, up, kind);
	if (!is_closed(half->state))
		outcome_action_due_at(w, up, CURE_ENFORCE, kind->action, flow_track(&w->flows, up)->backend_slot);
	flow_end(w, up, true);
	return true;
}

/* Returns 1 if it ended, 0 if not, -1 if it shall but cannot now. */
static int look_at(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	uint64_t order = order_for(w, track->backend_slot);
	const struct kind *kind = &kinds[cause_of(order)];
	enum cure_mode mode, now;

	if (w->reaper.survey != w->reaper.surveyed)
		survey(w, up, track->backend_slot);
	/* One that was ended before is over when both ends know. */
	if (!order || flow_half(&w->flows, up)->state == FLOW_RESETTING || !is_due(w, up, order))
		return 0;
	mode = flow_mode(track, kind->cure);
	now = w->burst.policy->modes.of[kind->cure];
	mode = RTE_MIN(now, mode);
	if (mode == CURE_SHADOW)
		count_would(w, up, kind->action);
	if (mode != CURE_ENFORCE)
		return 0;
	return end_flow(w, up, kind) ? 1 : -1;
}

static uint64_t n_entries(const struct worker *w)
{
	return (uint64_t)w->flows.pool4.capacity + w->flows.pool6.capacity;
}

/* The cursor counts the entries of the IPv4 pool, then those of the IPv6 pool. */
static flow_ref entry_at(const struct worker *w, uint64_t cursor)
{
	uint64_t n_v4 = w->flows.pool4.capacity;

	return flow_ref_make(cursor >= n_v4, cursor >= n_v4 ? cursor - n_v4 : cursor, DIR_UP);
}

static void end_walk(struct worker *w)
{
	struct reaper *r = &w->reaper;
	uint64_t rest_ms = n_entries(w) / SCAN_REST;

	r->next_ms = clock_ms(w->now_ns) + RTE_MAX(rest_ms, (uint64_t)WALK_EVERY_MS);
	__atomic_store_n(&r->surveyed, r->survey, __ATOMIC_RELEASE);
}

static void walk(struct worker *w)
{
	struct reaper *r = &w->reaper;
	uint64_t end = RTE_MIN(r->cursor + scan_budget(&r->walked_ns, w->now_ns), n_entries(w));
	unsigned n_ended = 0;

	r->starved = false;
	while (r->cursor < end && n_ended < ENDS_PER_LOOP && !r->starved) {
		flow_ref up = entry_at(w, r->cursor);
		int ended = flow_half(&w->flows, up)->state == FLOW_FREE ? 0 : look_at(w, up);

		r->starved = ended < 0;
		n_ended += ended > 0;
		r->cursor += ended >= 0;
	}
	r->walking = r->cursor < n_entries(w);
	if (!r->walking)
		end_walk(w);
}

/* A survey begins at once, the next walk for orders in its time. */
static bool is_walk_due(const struct worker *w)
{
	const struct reap_cells *c = &w->cells->reap;

	if (__atomic_load_n(&c->survey, __ATOMIC_RELAXED) != w->reaper.surveyed)
		return true;
	return __atomic_load_n(&c->n_orders, __ATOMIC_RELAXED) && clock_ms(w->now_ns) >= w->reaper.next_ms;
}

static void begin_walk(struct worker *w)
{
	w->reaper.walking = true;
	w->reaper.cursor = 0;
	w->reaper.walked_ns = w->now_ns;
	w->reaper.survey = __atomic_load_n(&w->cells->reap.survey, __ATOMIC_RELAXED);
}

unsigned reap_run(struct worker *w)
{
	w->reaper.seen = __atomic_load_n(&w->cells->reap.number, __ATOMIC_ACQUIRE);
	if (!w->reaper.walking) {
		if (__builtin_expect(!is_walk_due(w), 1))
			return 0;
		begin_walk(w);
	}
	pipeline_stamp(w, &w->burst);
	walk(w);
	return w->reaper.walking && !w->reaper.starved;
}

bool reap_is_told(const struct worker *w)
{
	return __atomic_load_n(&w->cells->reap.number, __ATOMIC_RELAXED) != w->reaper.seen;
}

unsigned reap_nap_ms(const struct worker *w, unsigned max_ms)
{
	uint64_t now_ms = clock_ms(w->now_ns);

	if (w->reaper.walking)
		return RTE_MIN((unsigned)SCAN_NAP_MS, max_ms);
	if (!__atomic_load_n(&w->cells->reap.n_orders, __ATOMIC_RELAXED) || now_ms + max_ms <= w->reaper.next_ms)
		return max_ms;
	return now_ms < w->reaper.next_ms ? w->reaper.next_ms - now_ms : 1;
}

uint64_t reap_bytes(uint32_t n_backend_slots)
{
	return (uint64_t)n_backend_slots * sizeof(struct reap_oldest);
}

int reap_init(struct reaper *r, uint32_t n_backend_slots)
{
	r->oldest = memory_alloc(reap_bytes(n_backend_slots));
	return r->oldest ? 0 : -ENOMEM;
}

void reap_fini(struct reaper *r)
{
	memory_free(r->oldest);
}
