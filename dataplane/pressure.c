/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers of flows that were in a short state before it became short are brought forward by a walk over the pool, some
 * entries per loop: scan.h. One walk is enough for each time that a pool becomes pressed: whoever enters such a state
 * while it is gets the short timer there and then. The walk is over long before the shortest of them: a million entries
 * take 8 000 loops, which is tenths of a second.
 *
 * Evicting takes walks as well, each of which counts what idles by classes of idle time, and ends what the walk before
 * found to be the idlest: all of some classes, and of one class as many as are wanted. So of two connections, one that
 * has idled for a quarter longer than the other goes first; those of a class go by their places in the table.
 */
#include "pressure.h"
#include "ends.h"
#include "outcome_worker.h"
#include "pipeline.h"
#include "scan.h"
#include "silence.h"
#include "tcp.h"

#define KNOWN_MS       60000
#define EVICT_IDLE_MS  600000
/* Of the whole gateway: no second has more than a thousand. */
#define EVICTS_PER_S   960
#define EVICTS_AT_ONCE 40
#define REST_MIN_MS    5

static const struct {
	uint32_t up, down; /* percent */
} marks[PRESSURE_LEVELS] = {
	[PRESSURE_SHORT] = {90, 88},
	[PRESSURE_KNOWN] = {95, 93},
	[PRESSURE_FULL] = {100, 98},
};

/* --- the level --- */

static struct flow_pool *pool_of(struct worker *w, bool v6)
{
	return v6 ? &w->flows.pool6 : &w->flows.pool4;
}

static uint32_t share_of(uint32_t capacity, uint32_t percent)
{
	return ((uint64_t)capacity * percent + 99) / 100;
}

int pressure_init(struct pressure *p, const struct flow_table *t, unsigned n_workers)
{
	uint64_t at_once = RTE_MAX(EVICTS_AT_ONCE / n_workers, 1u);

	for (int v6 = 0; v6 < SET_FAMILIES; v6++)
		for (enum pressure_level l = PRESSURE_SHORT; l < PRESSURE_LEVELS; l++) {
			uint32_t capacity = v6 ? t->pool6.capacity : t->pool4.capacity;

			p->pools[v6].up[l] = share_of(capacity, marks[l].up);
			p->pools[v6].down[l] = share_of(capacity, marks[l].down);
		}
	return gcra_rate_init(&p->evict_rate, EVICTS_PER_S, n_workers * UINT64_C(1000000000), at_once - 1);
}

static void begin_walk(const struct worker *w, struct pressure_pool *p)
{
	p->walking = true;
	p->walked_ns = w->now_ns;
	p->cursor = 0;
	p->leaving = 0;
	memset(p->idle, 0, sizeof(p->idle));
}

static void rise(const struct worker *w, struct pressure_pool *p)
{
	/* What waits longer than it may from now on. */
	if (p->level == PRESSURE_NONE) {
		begin_walk(w, p);
		p->evict_from = PRESSURE_CLASSES;
	}
	p->level++;
	p->reached[p->level]++;
}

static void look(struct worker *w, bool v6)
{
	struct pressure_pool *p = &w->pressure.pools[v6];
	uint32_t in_use = pool_of(w, v6)->in_use;

	while (p->level + 1 < PRESSURE_LEVELS && in_use >= p->up[p->level + 1])
		rise(w, p);
	while (p->level != PRESSURE_NONE && in_use < p->down[p->level])
		p->level--;
	if (p->level == PRESSURE_NONE)
		p->walking = p->starved = false;
}

enum pressure_answer pressure_ask(struct worker *w, bool v6, bool udp, const struct ipaddr *client)
{
	look(w, v6);
	if (__builtin_expect(w->pressure.pools[v6].level < PRESSURE_KNOWN, 1))
		return PRESSURE_ROOM;
	if (!flow_room(&w->flows, v6))
		return PRESSURE_NO_ROOM;
	return outcome_connected_lately(w, client, udp, KNOWN_MS) ? PRESSURE_ROOM : PRESSURE_STRANGER;
}

/* --- short states --- */

/* UINT32_MAX: it is as long as ever. */
static uint32_t short_ms(enum flow_state state)
{
	switch (state) {
	case FLOW_SYN_SENT:
		return 4000;
	case FLOW_SYN_RECV:
		return 10000;
	case FLOW_TIME_WAIT:
	case FLOW_CLOSED:
		return 2000;
	default:
		return UINT32_MAX;
	}
}

uint32_t pressure_timeout_ms(const struct worker *w, bool v6, enum flow_state state, uint32_t plain_ms)
{
	if (__builtin_expect(!pressure_is_felt(w, v6), 1))
		return plain_ms;
	return RTE_MIN(plain_ms, short_ms(state));
}

static void shorten(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	uint32_t ms = short_ms(flow_half(&w->flows, up)->state);

	if (track->look != LOOK_IDLE || track->timeout_ms <= ms)
		return;
	track->timeout_ms = ms;
	wheel_move(&w->wheel, &w->flows, up, w->run_ms);
}

/* --- evicting --- */

static bool is_evicting(const struct worker *w, const struct pressure_pool *p)
{
	return w->dp->config.evict_idle && p->level >= PRESSURE_KNOWN;
}

/* Each begins at a quarter more than the one before; the last one has no end. */
static unsigned class_of(uint32_t idle_ms)
{
	uint64_t next_ms = EVICT_IDLE_MS;
	unsigned class = 0;

	while (class + 1 < PRESSURE_CLASSES && idle_ms >= (next_ms += next_ms / 4))
		class ++;
	return class;
}

static bool may_evict(struct worker *w)
{
	struct pressure *p = &w->pressure;

	if (!gcra_test(&p->evicts, &p->evict_rate, w->now_ns) || !answer_limits_ends(w->limits, DIRS, w->now_ns))
		return false;
	gcra_take(&p->evicts, &p->evict_rate, w->now_ns);
	return true;
}

static bool is_wanted(const struct pressure_pool *p, unsigned class)
{
	return p->evict_want && (class > p->evict_from || (class == p->evict_from && p->evict_some));
}

/* False: it shall end, and cannot now. */
static bool look_at_idle(struct worker *w, struct pressure_pool *p, flow_ref up)
{
	enum flow_state state = flow_half(&w->flows, up)->state;
	uint32_t idle_ms;
	unsigned class;

	p->leaving += state == FLOW_RESETTING;
	if (state != FLOW_ESTABLISHED && state != FLOW_FIN_WAIT)
		return true;
	idle_ms = silence_quiet_ms(w, up);
	if (idle_ms <= EVICT_IDLE_MS)
		return true;
	class = class_of(idle_ms);
	if (!is_wanted(p, class)) {
		p->idle[class]++;
		return true;
	}
	if (!may_evict(w))
		return false;
	p->evict_want--;
	p->evict_some -= class == p->evict_from;
	outcome_action_due_at(w, up, CURE_ENFORCE, ACTION_evict_idle, flow_track(&w->flows, up)->backend_slot);
	ends_end(w, up, MADE_rst_evict);
	p->leaving += flow_half(&w->flows, up)->state == FLOW_RESETTING;
	return true;
}

/* What the next walk ends, from the idlest on, until there are enough with those that are leaving. */
static void choose_classes(struct worker *w, bool v6)
{
	struct pressure_pool *p = &w->pressure.pools[v6];
	uint32_t in_use = pool_of(w, v6)->in_use, low = p->down[PRESSURE_KNOWN];
	uint64_t found = 0, stay = in_use - RTE_MIN(p->leaving, in_use);

	p->evict_want = stay >= low ? stay - low + 1 : 0;
	p->evict_from = PRESSURE_CLASSES;
	while (p->evict_from && found < p->evict_want) {
		p->evict_some = p->evict_want - found;
		found += p->idle[--p->evict_from];
	}
}

/* --- walking --- */

static void end_walk(struct worker *w, bool v6)
{
	struct pressure_pool *p = &w->pressure.pools[v6];

	p->walking = false;
	if (!is_evicting(w, p))
		return;
	choose_classes(w, v6);
	p->next_ms = w->run_ms + REST_MIN_MS + pool_of(w, v6)->capacity / SCAN_REST;
}

static void walk(struct worker *w, bool v6)
{
	struct pressure_pool *p = &w->pressure.pools[v6];
	uint32_t capacity = pool_of(w, v6)->capacity;
	uint32_t end = RTE_MIN(p->cursor + scan_budget(&p->walked_ns, w->now_ns), capacity);
	bool evicting = is_evicting(w, p);

	p->starved = false;
	while (p->cursor < end) {
		flow_ref up = flow_ref_make(v6, p->cursor, DIR_UP);

		if (flow_half(&w->flows, up)->state != FLOW_FREE) {
			shorten(w, up);
			p->starved = evicting && !look_at_idle(w, p, up);
		}
		if (p->starved)
			return;
		p->cursor++;
	}
	if (p->cursor == capacity)
		end_walk(w, v6);
}

/* For evicting, walk follows walk. */
static void check_walk(const struct worker *w, struct pressure_pool *p)
{
	if (!p->walking && is_evicting(w, p) && w->run_ms >= p->next_ms)
		begin_walk(w, p);
}

unsigned pressure_run(struct worker *w)
{
	unsigned busy = 0;

	for (int v6 = 0; v6 < SET_FAMILIES; v6++) {
		struct pressure_pool *p = &w->pressure.pools[v6];

		if (__builtin_expect(p->level == PRESSURE_NONE && pool_of(w, v6)->in_use < p->up[PRESSURE_SHORT], 1))
			continue;
		look(w, v6);
		check_walk(w, p);
		if (!p->walking)
			continue;
		pipeline_stamp(w, &w->burst);
		walk(w, v6);
		busy += p->walking && !p->starved;
	}
	return busy;
}

unsigned pressure_nap_ms(const struct worker *w, unsigned max_ms)
{
	for (int v6 = 0; v6 < SET_FAMILIES; v6++)
		if (w->pressure.pools[v6].walking)
			return RTE_MIN((unsigned)SCAN_NAP_MS, max_ms);
	return max_ms;
}
