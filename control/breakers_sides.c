/* SPDX-License-Identifier: BSD-3-Clause */
/* Sides: whether it is a backend that is silent, or all that lies between. */
#include "breakers_private.h"
#include "dataplane.h"
#include "events.h"

#include <stdio.h>

#define SILENCE_WINDOW_NS 10000000000ull /* who fell silent within it did so together */
#define WAYS_AGAIN_NS     250000000ull   /* while there is no way to a side, it is looked for this often */

/* What silence opened is as it was: in that state. */
static struct streak side_down_in(struct streak s, enum breaker_state state)
{
	if (s.forced || (s.state == BREAKER_OPEN && !breakers_is_only_silent(&s)))
		return s;
	return (struct streak){.state = s.state == BREAKER_OPEN ? state : s.state, .side_down = true};
}

static struct streak to_side_down(struct streak s)
{
	return side_down_in(s, BREAKER_CLOSED);
}

static struct streak to_side_down_tried(struct streak s)
{
	return side_down_in(s, BREAKER_HALF_OPEN);
}

static struct streak to_side_down_ramp(struct streak s)
{
	return side_down_in(s, BREAKER_RAMP);
}

static struct streak to_side_up(struct streak s)
{
	if (s.state != BREAKER_OPEN && !s.forced)
		return (struct streak){.state = s.state};
	s.side_down = false;
	return s;
}

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
	return breakers_is_only_silent(s) && now_ns - times.silent_ns <= SILENCE_WINDOW_NS;
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

/* Workers open at once; decide may know it as something else still, and then that is what it goes back to. */
static void take_back(struct breakers *b, uint32_t slot, uint64_t now_ns)
{
	static struct streak (*const words[BREAKER_STATES])(struct streak s) = {
		[BREAKER_CLOSED] = to_side_down,
		[BREAKER_OPEN] = to_side_down,
		[BREAKER_HALF_OPEN] = to_side_down_tried,
		[BREAKER_RAMP] = to_side_down_ramp,
	};
	struct slot_info info;
	struct backend *backend = breakers_backend_at(b, slot, &info);
	struct streak was;

	if (!backend)
		return;
	was = breakers_change_word(b, slot, words[backend->breaker.state]);
	if (was.forced || was.state != BREAKER_OPEN)
		return;
	if (backend->breaker.state == BREAKER_HALF_OPEN)
		dataplane_trial_begin(b->dp, slot, true);
	if (backend->breaker.state == BREAKER_OPEN)
		breakers_take_back(b, &info, backend, "it is not alone in its silence", now_ns);
}

/* What workers opened on silence alone is taken back, confirmed or not. */
static void mark_side_down(struct breakers *b, const struct services_side *side, uint64_t now_ns)
{
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;
		struct streak s = streak_read(dataplane_breaker(b->dp, slot));

		if (s.state == BREAKER_CLOSED || fell_silent(b, slot, &s, now_ns))
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

static void say_side(const struct services_side *side, const struct side_count *c, bool blocked, char *out, size_t size)
{
	const char *family = side->family == SET_V4 ? "IPv4" : "IPv6";

	if (blocked)
		snprintf(out, size, "%s: no way to %zu of %zu backends (%s)", family, c->n_blocked + c->n_lost, c->n,
			 way_words[c->way]);
	else
		snprintf(out, size, "%s: %zu of %zu backends fell silent within %llu s", family, c->n_silent, c->n,
			 SILENCE_WINDOW_NS / 1000000000);
}

static void side_down(struct breakers *b, const struct services_side *side, const struct side_count *c, uint64_t now_ns)
{
	struct side *at = side_at(b, side);
	bool blocked = is_side_blocked(c);

	mark_side_down(b, side, now_ns);
	at->state = blocked ? SIDE_NO_WAY : SIDE_SILENT;
	at->since_ns = now_ns;
	say_side(side, c, blocked, at->evidence, sizeof(at->evidence));
	events_add(b->events, EVENT_CRITICAL, "side_down", cure_name[CURE_WALL], side->service,
		   "%s: silence opens no breaker until %s", at->evidence, blocked ? "there is one" : "one answers");
}

static void side_up(struct breakers *b, const struct services_side *side)
{
	enum side_state was = side_at(b, side)->state;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		breakers_change_word(b, side->set->backends[i].ref.slot, to_side_up);
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
			breakers_change_word(b, slot, to_side_up);
	}
}

static void unside(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		b->backends[side->set->backends[i].ref.slot].sided = false;
}

/* --- backends that are new to their set --- */

static bool was_present(const struct breakers *b, const struct policy_backend *backend)
{
	const struct backend *at = &b->backends[backend->ref.slot];

	return b->looks && at->present == b->looks && at->generation == backend->ref.generation;
}

/* Where all are new there is nobody to spare them. */
static void greet(void *arg, const struct services_side *side)
{
	const struct side_look *look = arg;
	struct breakers *b = look->b;
	uint32_t n_known = 0;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		n_known += was_present(b, &side->set->backends[i]);
	for (uint32_t i = 0; n_known && i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;
		bool known = was_present(b, &side->set->backends[i]);
		struct slot_info info;
		struct backend *backend = breakers_backend_at(b, slot, &info);

		if (known || !backend || backend->breaker.state != BREAKER_CLOSED ||
		    streak_state(dataplane_breaker(b->dp, slot)) != BREAKER_CLOSED ||
		    streak_read(dataplane_breaker(b->dp, slot)).forced)
			continue;
		backend->told = false;
		backend->greeted = true;
		breakers_begin_ramp(b, &info, backend, look->now_ns);
	}
}

/* Of one that several services have, each asks whether it was there. */
static void mark_present(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		struct slot_info info;
		struct backend *backend = breakers_backend_at(b, side->set->backends[i].ref.slot, &info);

		if (backend)
			backend->present = b->looks;
	}
}

void breakers_look_at_sides(struct breakers *b, uint64_t now_ns)
{
	struct side_look look = {.b = b, .now_ns = now_ns};

	services_sides(b->services, greet, &look);
	b->looks++;
	services_sides(b->services, mark_present, b);
	services_sides(b->services, breakers_spare, &(struct breakers_spare){b, now_ns});
	services_sides(b->services, look_at_side, &look);
	if (look.n_marked)
		services_sides(b->services, unmark, b);
	services_sides(b->services, unside, b);
	b->look_ns = look.n_without_way ? now_ns + WAYS_AGAIN_NS : UINT64_MAX;
}

static void forget_side(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	side_at(b, side)->state = SIDE_UP;
	for (uint32_t i = 0; i < side->set->n_backends; i++)
		breakers_change_word(b, side->set->backends[i].ref.slot, to_side_up);
}

void breakers_forget_sides(struct breakers *b)
{
	services_sides(b->services, forget_side, b);
	b->look_ns = UINT64_MAX;
}
