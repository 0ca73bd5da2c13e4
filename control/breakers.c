/* SPDX-License-Identifier: BSD-3-Clause */
#include "breakers.h"
#include "breaker.h"
#include "dataplane.h"
#include "events.h"
#include "hash.h"
#include "observe.h"
#include "services.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define SILENCE_WINDOW_NS 10000000000ull /* who fell silent within it did so together */
#define WAYS_AGAIN_NS     250000000ull   /* while there is no way to a side, it is looked for this often */
#define TOLD_AT_ONCE      3              /* openings of a backend that are told within */
#define TOLD_NS           10000000000ull /* this time: it may open and close in milliseconds */
#define DOUBT_NS          300000000ull   /* two ticks of the wheel: by then the others' SYNs were due, too */

struct backend {
	uint32_t generation; /* of its slot */
	bool noted;
	bool listed;         /* in `open` */
	bool alone;          /* others of its side were heard since it was last: its silence is its own */
	bool sided;          /* it is of a side that is down; while sides are looked at */
	uint64_t doubted_ns; /* it opened on silence then, and it is not known yet whether alone; 0: no doubt */
	bool told;           /* that it is open */
	uint32_t n_told, n_untold;
	uint64_t told_ns; /* when the time began in which n_told openings were told */
	struct breaker breaker;
};

enum side_state {
	SIDE_UP,
	SIDE_SILENT, /* until one of its backends answers */
	SIDE_NO_WAY, /* until there is one */
};

struct side {
	uint32_t generation; /* of its service's slot */
	enum side_state state;
};

struct breakers {
	struct dataplane *dp;
	const struct services *services;
	struct events *events;
	struct breakers_config config;
	struct backend *backends; /* by slot */
	uint32_t *noted, n_noted;
	uint32_t *open, n_open;             /* slots whose breaker is open, in no order */
	struct side (*sides)[SET_FAMILIES]; /* by service slot */
	uint64_t look_ns;                   /* when sides are looked at next, without any news */
};

struct breakers *breakers_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct breakers_config *config)
{
	struct breakers *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->dp = dp;
	b->services = services;
	b->events = events;
	b->config = *config;
	b->look_ns = UINT64_MAX;
	b->backends = calloc(config->n_backend_slots, sizeof(*b->backends));
	b->noted = calloc(config->n_backend_slots, sizeof(*b->noted));
	b->open = calloc(config->n_backend_slots, sizeof(*b->open));
	b->sides = calloc(config->n_service_slots, sizeof(*b->sides));
	if (b->backends && b->noted && b->open && b->sides)
		return b;
	breakers_destroy(b);
	errno = ENOMEM;
	return NULL;
}

void breakers_destroy(struct breakers *b)
{
	if (!b)
		return;
	free(b->backends);
	free(b->noted);
	free(b->open);
	free(b->sides);
	free(b);
}

/* Spreads, and is the same in every run with the same slots and times. */
static uint32_t chance(uint32_t slot, uint64_t now_ns)
{
	return hash_public(&now_ns, sizeof(now_ns), slot);
}

/* --- words --- */

/* Changes the word by `fn`, which says what is to become of what it reads. Returns what it was before. */
static struct streak change_word(struct breakers *b, uint32_t slot, struct streak (*fn)(struct streak s))
{
	uint64_t seen = dataplane_breaker(b->dp, slot);
	struct streak s, to;

	do {
		s = streak_read(seen);
		to = fn(s);
	} while (!dataplane_breaker_change(b->dp, slot, &seen, streak_word(&to)));
	return s;
}

static struct streak to_closed(struct streak s)
{
	return (struct streak){0};
}

/* Refusals say that it is the backend after all. */
static bool is_only_silent(const struct streak *s)
{
	return s->failures[CONNECT_SILENT] && streak_length(s) == s->failures[CONNECT_SILENT];
}

static struct streak to_side_down(struct streak s)
{
	if (s.state == BREAKER_CLOSED || is_only_silent(&s))
		return (struct streak){.side_down = true};
	return s;
}

static struct streak to_side_up(struct streak s)
{
	if (s.state == BREAKER_CLOSED)
		return (struct streak){0};
	s.side_down = false;
	return s;
}

/* --- which are open --- */

static void list(struct breakers *b, uint32_t slot)
{
	if (!b->backends[slot].listed)
		b->open[b->n_open++] = slot;
	b->backends[slot].listed = true;
}

static void unlist_at(struct breakers *b, uint32_t i)
{
	b->backends[b->open[i]].listed = false;
	b->open[i] = b->open[--b->n_open];
}

/* The backend in that slot, which may have another owner by now; NULL: it has none. */
static struct backend *backend_at(struct breakers *b, uint32_t slot, struct slot_info *info)
{
	struct backend *backend = &b->backends[slot];

	if (!services_backend(b->services, slot, info))
		return NULL;
	if (backend->generation != info->ref.generation) {
		backend->generation = info->ref.generation;
		backend->breaker = (struct breaker){0};
		backend->told_ns = backend->n_untold = 0;
	}
	return backend;
}

static double seconds(uint64_t ns)
{
	return ns / 1e9;
}

/* --- opening and closing --- */

static void tell_workers(struct breakers *b, uint32_t slot)
{
	for (unsigned w = 0; w < dataplane_n_workers(b->dp); w++)
		dataplane_order(b->dp, w, &(struct order){.kind = ORDER_OPENED, .slot = slot});
}

/*
 * It opened on silence alone, and nobody else of its side was heard since. That tells nothing if nobody else was tried;
 * if they were, their own silence will be counted soon. True: wait for that.
 */
static bool is_doubtful(struct breakers *b, uint32_t slot, const struct streak *s, uint64_t now_ns)
{
	struct backend *backend = &b->backends[slot];

	if (!is_only_silent(s) || backend->alone)
		return false;
	if (!backend->doubted_ns) {
		backend->doubted_ns = now_ns;
		tell_workers(b, slot);
	}
	return now_ns < backend->doubted_ns + DOUBT_NS;
}

/* No backend, and nobody who makes one look dead again and again, shall fill the events. */
static bool may_tell(struct backend *backend, uint64_t now_ns)
{
	if (!backend->told_ns || now_ns - backend->told_ns >= TOLD_NS) {
		backend->told_ns = now_ns;
		backend->n_told = 0;
	}
	if (backend->n_told >= TOLD_AT_ONCE) {
		backend->n_untold++;
		return false;
	}
	backend->n_told++;
	return true;
}

static void tell_open(struct breakers *b, const struct slot_info *info, struct backend *backend, const struct streak *s,
		      enum cure_mode mode)
{
	char id[SLOT_ID_STRLEN], evidence[BREAKER_EVIDENCE_LEN], untold[80] = "";

	breaker_evidence(s, evidence, sizeof(evidence));
	if (backend->n_untold)
		snprintf(untold, sizeof(untold), "; it was open %u times more since the last that was told",
			 backend->n_untold);
	backend->n_untold = 0;
	events_add(b->events, EVENT_WARNING, "breaker_open", cure_name[CURE_WALL], slots_id(info, id), "%s%s%s",
		   evidence, mode == CURE_SHADOW ? " (shadow: it gets new flows all the same)" : "", untold);
}

static void confirm(struct breakers *b, const struct slot_info *info, struct backend *backend, const struct streak *s,
		    enum cure_mode mode, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	breaker_open(&backend->breaker, now_ns);
	dataplane_backend_due(b->dp, slot, backend->breaker.probe_ns);
	list(b, slot);
	if (!backend->doubted_ns)
		tell_workers(b, slot);
	backend->told = may_tell(backend, now_ns);
	if (backend->told)
		tell_open(b, info, backend, s, mode);
}

static void close_answered(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	char id[SLOT_ID_STRLEN];

	change_word(b, info->ref.slot, to_closed);
	/* It answered before its opening was looked at: then nobody was told of that. */
	if (backend->breaker.state == BREAKER_CLOSED)
		return;
	if (backend->told)
		events_add(b->events, EVENT_INFO, "breaker_closed", cure_name[CURE_WALL], slots_id(info, id),
			   "answered a SYN %.1f s after it was opened; %u probes were ordered",
			   seconds(now_ns - backend->breaker.since_ns), backend->breaker.probes);
	breaker_close(&backend->breaker, now_ns);
}

/* The wall is off: nothing is measured, so nothing may be left of what was. */
static void forget(struct breakers *b, uint32_t slot)
{
	struct slot_info info;
	struct backend *backend = backend_at(b, slot, &info);

	if (!backend)
		return;
	change_word(b, slot, to_closed);
	backend->breaker = (struct breaker){0};
}

/* --- sides --- */

#define SIDE_BACKENDS_MIN 3

static bool is_most(size_t n, size_t of)
{
	return n && n * 5 >= of * 4;
}

bool breakers_side_is_silent(size_t n_backends, size_t n_silent)
{
	return n_backends >= SIDE_BACKENDS_MIN && is_most(n_silent, n_backends);
}

struct side_count {
	size_t n, n_silent;
	size_t n_blocked; /* no link, no route */
	size_t n_lost;    /* no router, which may be only about to be found */
	size_t n_marked;  /* as being of a side that is down */
	bool answered;    /* one of those */
	enum way way;     /* what is wrong with it */
};

/* Silent now, and since not longer than the window: one that was opened before it fell silent alone. */
static bool fell_silent(const struct breakers *b, uint32_t slot, const struct streak *s, uint64_t now_ns)
{
	struct backend_times times;

	dataplane_backend_times(b->dp, slot, &times);
	return is_only_silent(s) && now_ns - times.silent_ns <= SILENCE_WINDOW_NS;
}

static void count_way(struct side_count *c, enum way way)
{
	c->n_blocked += way == WAY_NO_ROUTE || way == WAY_LINK_DOWN;
	c->n_lost += way == WAY_NO_ROUTER;
	if (way != WAY_OPEN && way != WAY_NO_HOST)
		c->way = way;
}

/* One that is marked is silent still: another service's side, which has it too, is no better off. */
static struct side_count count_side(const struct breakers *b, const struct services_side *side, uint64_t now_ns)
{
	struct side_count c = {.n = side->set->n_backends};

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		const struct policy_backend *backend = &side->set->backends[i];
		struct streak s = streak_read(dataplane_breaker(b->dp, backend->ref.slot));

		c.n_silent += (s.side_down && !s.answered) || fell_silent(b, backend->ref.slot, &s, now_ns);
		c.n_marked += s.side_down;
		c.answered |= s.side_down && s.answered;
		count_way(&c, dataplane_way(b->dp, &backend->addr));
	}
	return c;
}

/* A router that is not resolved is none to complain of before a SYN got no answer. */
static bool is_side_blocked(const struct side_count *c)
{
	return is_most(c->n_blocked + (c->n_silent ? c->n_lost : 0), c->n);
}

/* More than one in five was heard since: the side is there, whatever else is wrong. */
static bool others_were_heard(const struct breakers *b, const struct services_side *side, uint32_t slot)
{
	struct backend_times times, other;
	uint32_t n = 0;

	if (side->set->n_backends < SIDE_BACKENDS_MIN)
		return true;
	dataplane_backend_times(b->dp, slot, &times);
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		dataplane_backend_times(b->dp, side->set->backends[i].ref.slot, &other);
		n += other.heard_ns > times.since_ns;
	}
	return n * 5 > side->set->n_backends;
}

static void find_lonely(struct breakers *b, const struct services_side *side)
{
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;

		if (b->backends[slot].noted && others_were_heard(b, side, slot))
			b->backends[slot].alone = true;
	}
}

static void take_back(struct breakers *b, uint32_t slot, uint64_t now_ns)
{
	char id[SLOT_ID_STRLEN];
	struct slot_info info;
	struct backend *backend = backend_at(b, slot, &info);

	if (!backend || backend->breaker.state != BREAKER_OPEN)
		return;
	breaker_close(&backend->breaker, now_ns);
	if (backend->told)
		events_add(b->events, EVENT_INFO, "breaker_closed", cure_name[CURE_WALL], slots_id(&info, id),
			   "taken back: it is not alone in its silence");
}

/* What workers opened on silence alone is taken back, confirmed or not. */
static void mark_side_down(struct breakers *b, const struct services_side *side, uint64_t now_ns)
{
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;
		struct streak s = streak_read(dataplane_breaker(b->dp, slot));

		if (s.state != BREAKER_CLOSED && !fell_silent(b, slot, &s, now_ns))
			continue;
		change_word(b, slot, to_side_down);
		take_back(b, slot, now_ns);
	}
}

static const char *const way_words[] = {
	[WAY_OPEN] = "",
	[WAY_NO_ROUTE] = "no route",
	[WAY_LINK_DOWN] = "its link is down",
	[WAY_NO_ROUTER] = "the next hop does not answer",
	[WAY_NO_HOST] = "",
};

static struct side *side_at(struct breakers *b, const struct services_side *of)
{
	struct side *side = &b->sides[of->service_ref.slot][of->family];

	if (side->generation != of->service_ref.generation)
		*side = (struct side){.generation = of->service_ref.generation};
	return side;
}

static void side_down(struct breakers *b, const struct services_side *side, const struct side_count *c, uint64_t now_ns)
{
	bool blocked = is_side_blocked(c);

	mark_side_down(b, side, now_ns);
	side_at(b, side)->state = blocked ? SIDE_NO_WAY : SIDE_SILENT;
	if (blocked)
		events_add(b->events, EVENT_CRITICAL, "side_down", cure_name[CURE_WALL], side->service,
			   "%s: no way to %zu of %zu backends (%s): silence opens no breaker until there is one",
			   side->family == SET_V4 ? "IPv4" : "IPv6", c->n_blocked + c->n_lost, c->n, way_words[c->way]);
	else
		events_add(
			b->events, EVENT_CRITICAL, "side_down", cure_name[CURE_WALL], side->service,
			"%s: %zu of %zu backends fell silent within %llu s: silence opens no breaker until one answers",
			side->family == SET_V4 ? "IPv4" : "IPv6", c->n_silent, c->n, SILENCE_WINDOW_NS / 1000000000);
}

static void side_up(struct breakers *b, const struct services_side *side)
{
	enum side_state was = side_at(b, side)->state;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		change_word(b, side->set->backends[i].ref.slot, to_side_up);
	events_add(b->events, EVENT_INFO, "side_up", cure_name[CURE_WALL], side->service, "%s: %s",
		   side->family == SET_V4 ? "IPv4" : "IPv6",
		   was == SIDE_NO_WAY ? "there is a way again" : "it is measured again");
	side_at(b, side)->state = SIDE_UP;
}

struct side_look {
	struct breakers *b;
	uint64_t now_ns;
	unsigned n_without_way, n_marked;
};

/* Also where none of those that fell silent is left: DNS may have brought others. */
static bool is_up_again(enum side_state state, const struct side_count *c)
{
	if (c->answered)
		return true;
	return state == SIDE_NO_WAY ? !is_most(c->n_blocked + c->n_lost, c->n) : !c->n_marked;
}

static void judge_side(struct breakers *b, const struct services_side *side, const struct side_count *c,
		       uint64_t now_ns)
{
	enum side_state state = side_at(b, side)->state;

	if (state != SIDE_UP && is_up_again(state, c))
		side_up(b, side);
	else if (state == SIDE_UP && (is_side_blocked(c) || breakers_side_is_silent(c->n, c->n_silent)))
		side_down(b, side, c, now_ns);
	else
		find_lonely(b, side);
}

static void look_at_side(void *arg, const struct services_side *side)
{
	struct side_look *look = arg;
	struct breakers *b = look->b;
	struct side_count c = count_side(b, side, look->now_ns);

	judge_side(b, side, &c, look->now_ns);
	look->n_without_way += side_at(b, side)->state == SIDE_NO_WAY;
	look->n_marked += c.n_marked;
	for (uint32_t i = 0; i < side->set->n_backends; i++)
		b->backends[side->set->backends[i].ref.slot].sided |= side_at(b, side)->state != SIDE_UP;
}

/* A mark that outlived its side, or came back with its backend: nobody else would take it away. */
static void unmark(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;

		if (!b->backends[slot].sided && streak_read(dataplane_breaker(b->dp, slot)).side_down)
			change_word(b, slot, to_side_up);
	}
}

static void unside(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		b->backends[side->set->backends[i].ref.slot].sided = false;
}

static void look_at_sides(struct breakers *b, uint64_t now_ns)
{
	struct side_look look = {.b = b, .now_ns = now_ns};

	services_sides(b->services, look_at_side, &look);
	if (look.n_marked)
		services_sides(b->services, unmark, b);
	services_sides(b->services, unside, b);
	b->look_ns = look.n_without_way ? now_ns + WAYS_AGAIN_NS : UINT64_MAX;
}

/* The wall is off. */
static void forget_side(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	side_at(b, side)->state = SIDE_UP;
	for (uint32_t i = 0; i < side->set->n_backends; i++)
		change_word(b, side->set->backends[i].ref.slot, to_side_up);
}

/* --- news --- */

void breakers_note(struct breakers *b, uint32_t slot)
{
	if (slot >= b->config.n_backend_slots || b->backends[slot].noted)
		return;
	b->backends[slot].noted = true;
	b->noted[b->n_noted++] = slot;
}

void breakers_note_all(struct breakers *b)
{
	for (uint32_t slot = 0; slot < b->config.n_backend_slots; slot++)
		if (dataplane_breaker(b->dp, slot))
			breakers_note(b, slot);
}

void breakers_look_again(struct breakers *b)
{
	b->look_ns = 0;
}

/* Sides first: what they take back was never open. */
static bool concerns_sides(struct breakers *b)
{
	for (uint32_t i = 0; i < b->n_noted; i++) {
		struct streak s = streak_read(dataplane_breaker(b->dp, b->noted[i]));

		if (s.side_down || (s.state == BREAKER_OPEN && is_only_silent(&s)))
			return true;
	}
	return false;
}

/* True: there may be more to say later. */
static bool settle(struct breakers *b, uint32_t slot, enum cure_mode mode, uint64_t now_ns)
{
	struct streak s = streak_read(dataplane_breaker(b->dp, slot));
	struct slot_info info;
	struct backend *backend = backend_at(b, slot, &info);

	if (!backend)
		return false;
	if (mode == CURE_OFF)
		forget(b, slot);
	else if (s.state == BREAKER_OPEN && s.answered)
		close_answered(b, &info, backend, now_ns);
	else if (s.state == BREAKER_OPEN && backend->breaker.state == BREAKER_CLOSED) {
		if (is_doubtful(b, slot, &s, now_ns))
			return true;
		confirm(b, &info, backend, &s, mode, now_ns);
	}
	backend->doubted_ns = 0;
	backend->alone = false;
	return false;
}

static void settle_all(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	uint32_t n_left = 0;

	for (uint32_t i = 0; i < b->n_noted; i++) {
		uint32_t slot = b->noted[i];

		b->backends[slot].noted = settle(b, slot, mode, now_ns);
		if (b->backends[slot].noted)
			b->noted[n_left++] = slot;
	}
	b->n_noted = n_left;
}

/* --- what is due --- */

static void order_probe(struct breakers *b, const struct slot_info *info, const struct breaker *breaker)
{
	const struct order order = {
		.kind = ORDER_PROBE,
		.slot = info->ref.slot,
		.addr = info->addr,
		.port_be = info->port_be,
	};

	dataplane_order(b->dp, (order.slot + breaker->probes) % dataplane_n_workers(b->dp), &order);
}

/* One that nothing names any more is not probed: a probe would hold its slot. */
static void run_open(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	if (!breaker_probe(&backend->breaker, now_ns, chance(info->ref.slot, now_ns)))
		return;
	dataplane_backend_due(b->dp, info->ref.slot, backend->breaker.probe_ns);
	if (info->life == SLOT_USED)
		order_probe(b, info, &backend->breaker);
}

static void run_all_open(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	for (uint32_t i = b->n_open; i-- > 0;) {
		struct slot_info info;
		struct backend *backend = backend_at(b, b->open[i], &info);

		if (backend && mode == CURE_OFF)
			forget(b, b->open[i]);
		if (backend && backend->breaker.state == BREAKER_OPEN)
			run_open(b, &info, backend, now_ns);
		else
			unlist_at(b, i);
	}
}

void breakers_run(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	if (mode == CURE_OFF) {
		services_sides(b->services, forget_side, b);
		b->look_ns = UINT64_MAX;
	} else if (concerns_sides(b) || now_ns >= b->look_ns) {
		look_at_sides(b, now_ns);
	}
	settle_all(b, mode, now_ns);
	run_all_open(b, mode, now_ns);
}

uint64_t breakers_due_ns(const struct breakers *b)
{
	uint64_t due_ns = b->look_ns;

	for (uint32_t i = 0; i < b->n_noted; i++) {
		uint64_t at_ns = b->backends[b->noted[i]].doubted_ns + DOUBT_NS;

		due_ns = at_ns < due_ns ? at_ns : due_ns;
	}

	for (uint32_t i = 0; i < b->n_open; i++) {
		uint64_t at_ns = breaker_due_ns(&b->backends[b->open[i]].breaker);

		due_ns = at_ns < due_ns ? at_ns : due_ns;
	}
	return due_ns;
}
