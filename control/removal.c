/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Backends that left: no service names them any more, so they get no new flow, and keep the ones they have. A backend
 * is (protocol, address, port), whichever services use it; while one of several still names it, it has not left, and
 * the flows of the others are not told apart: their host is not going away.
 *
 * Its flows end by themselves, or at the deadline of `drain`: the longest of the services that named it last, off being
 * the longest of all. The deadline counts from an answer of DNS that does not have it, from a reload or from a command;
 * not from an expiry, and it waits while its name is not fresh, for then DNS may be wrong. The flows end over a quarter
 * of `drain`, at most 30 s, idle ones first.
 */
#include "dataplane.h"
#include "drain.h"
#include "events.h"
#include "observe.h"
#include "services_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SEC            1000000000ULL
#define SPREAD_MAX_NS  (30 * SEC)
#define SPREAD_SHARE   4          /* of drain */
#define ROUND_NS       (60 * SEC) /* between two words on flows that stay */
#define ROUND_BACKENDS 16         /* those with the most flows */
#define SAID_AT_ONCE   32         /* the ring of events is for others, too */

struct removal {
	char *name;        /* of DNS, that gave the backend last; NULL: the configuration gave it */
	uint64_t drain_ns; /* 0: off */
	uint64_t named;    /* number of the last policy that names it; 0: none did */
	uint64_t removed_ns;
	uint64_t counts_from_ns; /* of the deadline; 0: not yet */
	bool by_command;
	bool ordered;   /* the deadline came: the dataplane was told */
	bool gone_said; /* the last flow ended */
	/* With names in shadow, for one that DNS names no more although it is used: */
	uint64_t would_named; /* number of the last policy in which DNS named it */
	uint64_t would_ns;    /* since when not */
	bool would_ordered;
};

struct removals {
	unsigned n_said;   /* events in this round */
	uint64_t round_ns; /* of the next word on flows that stay; 0: there are none */
	bool surveying;    /* for that word */
	struct removal slots[];
};

struct removals *removals_create(uint32_t n_backend_slots)
{
	return calloc(1, sizeof(struct removals) + n_backend_slots * sizeof(struct removal));
}

void removals_destroy(struct removals *r, uint32_t n_backend_slots)
{
	if (!r)
		return;
	for (uint32_t i = 0; i < n_backend_slots; i++)
		free(r->slots[i].name);
	free(r);
}

static struct removal *removal_of(const struct services *s, uint32_t slot)
{
	return &s->removals->slots[slot];
}

static uint64_t flows_of(const struct services *s, uint32_t slot)
{
	struct backend_report report;

	observe_backend(s->dp, slot, &report);
	return report.flows;
}

/* --- events --- */

__attribute__((format(printf, 5, 6))) static void say(struct services *s, enum event_severity severity,
						      const char *kind, const struct slot_info *info,
						      const char *format, ...)
{
	char id[SLOT_ID_STRLEN], text[200];
	va_list args;

	if (s->removals->n_said++ >= SAID_AT_ONCE)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	slots_id(info, id);
	events_add(s->config.events, severity, kind, "names", id, "%s", text);
}

static void say_rest(struct services *s)
{
	if (s->removals->n_said > SAID_AT_ONCE)
		events_add(s->config.events, EVENT_WARNING, "backends_more", "names", "backends",
			   "the same of %u more, which are not told one by one", s->removals->n_said - SAID_AT_ONCE);
	s->removals->n_said = 0;
}

static unsigned long long seconds(uint64_t ns)
{
	return ns / SEC;
}

/* --- who names what --- */

static uint64_t longer(uint64_t a_ns, uint64_t b_ns)
{
	return !a_ns || !b_ns ? 0 : a_ns > b_ns ? a_ns : b_ns;
}

static uint8_t proto_of(unsigned set)
{
	return set % SET_PROTOS == SET_TCP ? PROTO_TCP : PROTO_UDP;
}

static void note_set(struct services *s, const struct policy_set *set, const struct service *svc)
{
	for (uint32_t b = 0; b < set->n_backends; b++) {
		struct removal *r = removal_of(s, set->backends[b].ref.slot);

		r->drain_ns = r->named == s->policy->number ? longer(r->drain_ns, svc->config->drain_ns)
							    : svc->config->drain_ns;
		r->named = s->policy->number;
		if (!svc->part->would_differ)
			r->would_named = s->policy->number;
	}
}

static void note_would(struct services *s, const struct policy_set *set, uint8_t proto)
{
	for (uint32_t b = 0; b < set->n_backends; b++) {
		uint32_t slot = slots_find(s->backends, proto, &set->backends[b].addr, set->backends[b].port_be);

		if (slot != SLOT_NONE)
			removal_of(s, slot)->would_named = s->policy->number;
	}
}

/* Without memory the name stays unknown: then the backend counts as one of the configuration. */
static void note_name(struct services *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be, const char *name)
{
	uint32_t slot = slots_find(s->backends, proto, addr, port_be);
	struct removal *r = slot == SLOT_NONE ? NULL : removal_of(s, slot);

	if (!r || (r->name && strcmp(r->name, name) == 0))
		return;
	free(r->name);
	r->name = strdup(name);
}

static void note_names(struct services *s, const struct service *svc)
{
	for (size_t i = 0; i < svc->config->n_backends; i++) {
		const struct config_backend *b = &svc->config->backends[i];

		for (uint8_t family = 4; b->kind == BACKEND_DNS && family <= 6; family += 2) {
			const struct known_name *k = known_find(s->known, b->name, family);
			const struct address_set *set = k ? known_set(k, s->names_mode) : NULL;

			for (size_t a = 0; set && a < set->n; a++) {
				note_name(s, PROTO_TCP, &set->addresses[a].addr, b->port_be, b->name);
				note_name(s, PROTO_UDP, &set->addresses[a].addr, b->port_be, b->name);
			}
		}
	}
}

static void note_service(struct services *s, struct service *svc)
{
	for (unsigned i = 0; i < SET_FAMILIES * SET_PROTOS; i++) {
		note_set(s, &svc->part->sets[i / SET_PROTOS][i % SET_PROTOS], svc);
		note_would(s, &svc->part->would[i / SET_PROTOS][i % SET_PROTOS], proto_of(i));
	}
	if (svc->renamed)
		note_names(s, svc);
	svc->renamed = false;
}

/* --- leaving and coming back --- */

/* The name that gave the backend, if it is still asked for. */
static const struct known_name *name_of(const struct services *s, const struct slot_info *info, const struct removal *r)
{
	return r->name ? known_find(s->known, r->name, ipaddr_is_v4(&info->addr) ? 4 : 6) : NULL;
}

/* It is DNS that no longer has it, rather than the configuration or a command. */
static bool is_by_dns(const struct services *s, const struct slot_info *info, const struct removal *r)
{
	const struct known_name *k = name_of(s, info, r);

	return k && !r->by_command && !address_set_has(known_set(k, s->names_mode), &info->addr);
}

/* DNS is sure of what it says, as far as this backend is concerned. */
static bool is_sure(const struct services *s, const struct slot_info *info, const struct removal *r)
{
	return !is_by_dns(s, info, r) || name_of(s, info, r)->state == NAME_FRESH;
}

static const char *why(const struct services *s, const struct slot_info *info, const struct removal *r)
{
	if (r->by_command)
		return "taken out by command";
	return is_by_dns(s, info, r) ? "DNS no longer names it" : "the configuration no longer names it";
}

static void leave(struct services *s, const struct slot_info *info, struct removal *r)
{
	uint64_t now_ns = services_now_ns(s), flows = flows_of(s, info->ref.slot);

	r->removed_ns = now_ns;
	r->by_command = drains_has(s->drains, info);
	if (r->by_command && drains_deadline_ns(s->drains, info) != DRAIN_BY_SERVICE)
		r->drain_ns = drains_deadline_ns(s->drains, info);
	r->counts_from_ns = is_sure(s, info, r) ? now_ns : 0;
	if (!s->removals->round_ns)
		s->removals->round_ns = now_ns + ROUND_NS;
	say(s, EVENT_INFO, "backend_removed", info, "%s%s%s%s; %llu flows stay, %s", why(s, info, r),
	    r->name ? " (" : "", r->name ? r->name : "", r->name ? ")" : "", (unsigned long long)flows,
	    r->drain_ns && s->names_mode == CURE_ENFORCE ? "until the drain deadline" : "until they end");
}

static void come_back(struct services *s, const struct slot_info *info, struct removal *r)
{
	say(s, EVENT_INFO, "backend_returned", info, "after %llu s, with %llu flows of before",
	    seconds(services_now_ns(s) - r->removed_ns), (unsigned long long)flows_of(s, info->ref.slot));
	r->removed_ns = r->counts_from_ns = 0;
	r->by_command = r->gone_said = false;
}

static void cancel(struct services *s, uint32_t slot, bool *ordered)
{
	if (*ordered)
		dataplane_reap_cancel(s->dp, slot, REAP_DRAIN);
	*ordered = false;
}

static void look_before(void *arg, const struct slot_info *info)
{
	struct services *s = arg;
	struct removal *r = removal_of(s, info->ref.slot);

	if (info->life == SLOT_USED)
		cancel(s, info->ref.slot, &r->ordered);
	if (s->names_mode != CURE_SHADOW)
		cancel(s, info->ref.slot, &r->would_ordered);
}

void removals_before_publish(struct services *s)
{
	slots_foreach(s->backends, look_before, s);
}

static void note_would_leave(struct services *s, const struct slot_info *info, struct removal *r)
{
	if (s->names_mode != CURE_SHADOW || r->would_named == s->policy->number) {
		cancel(s, info->ref.slot, &r->would_ordered);
		r->would_ns = 0;
	} else if (!r->would_ns) {
		r->would_ns = services_now_ns(s);
	}
}

static void look_after(void *arg, const struct slot_info *info)
{
	struct services *s = arg;
	struct removal *r = removal_of(s, info->ref.slot);

	if (info->life == SLOT_USED)
		note_would_leave(s, info, r);
	if (info->life == SLOT_USED && r->removed_ns)
		come_back(s, info, r);
	else if (info->life == SLOT_LINGERING && !r->removed_ns && r->named)
		leave(s, info, r);
}

void removals_after_publish(struct services *s)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (s->services[i].part)
			note_service(s, &s->services[i]);
	slots_foreach(s->backends, look_after, s);
	say_rest(s);
}

/* --- deadlines --- */

static uint64_t spread_ns(uint64_t drain_ns)
{
	uint64_t part_ns = drain_ns / SPREAD_SHARE;

	return part_ns < SPREAD_MAX_NS ? part_ns : SPREAD_MAX_NS;
}

static void order(struct services *s, uint32_t slot, uint64_t drain_ns, uint64_t min_age_s)
{
	dataplane_reap(s->dp, slot,
		       &(struct reap_order){
			       .cause = REAP_DRAIN,
			       .spread_ms = spread_ns(drain_ns) / 1000000,
			       .min_age_s = min_age_s < REAP_MIN_AGE_MAX_S ? min_age_s : REAP_MIN_AGE_MAX_S,
		       });
}

static bool is_due(const struct services *s, const struct slot_info *info, const struct removal *r, uint64_t now_ns)
{
	return s->names_mode != CURE_OFF && r->drain_ns && r->counts_from_ns &&
	       now_ns >= r->counts_from_ns + r->drain_ns && is_sure(s, info, r);
}

static void tick_removed(struct services *s, const struct slot_info *info, struct removal *r, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	if (r->gone_said)
		return;
	if (!flows_of(s, slot)) {
		say(s, EVENT_INFO, "backend_gone", info, "it has no flows any more, %llu s after it left%s",
		    seconds(now_ns - r->removed_ns), r->ordered ? "; its drain deadline ended them" : "");
		r->gone_said = true;
		return;
	}
	if (!r->counts_from_ns && is_sure(s, info, r))
		r->counts_from_ns = now_ns;
	if (!is_due(s, info, r, now_ns)) {
		cancel(s, slot, &r->ordered);
		return;
	}
	if (!r->ordered)
		say(s, EVENT_WARNING, "drain_deadline", info, "%llu flows are left after %llu s: they %s over %.1f s",
		    (unsigned long long)flows_of(s, slot), seconds(now_ns - r->removed_ns),
		    s->names_mode == CURE_ENFORCE ? "are ended" : "would be ended", spread_ns(r->drain_ns) / 1e9);
	/* Another order may have been there, and be over. */
	if (dataplane_reap_ordered(s->dp, slot) == REAP_NONE)
		order(s, slot, r->drain_ns, 0);
	r->ordered = true;
}

/* In shadow the backend goes on: only flows that began before DNS dropped it would be left by now. */
static void tick_would(struct services *s, const struct slot_info *info, struct removal *r, uint64_t now_ns)
{
	const struct known_name *k = name_of(s, info, r);
	uint64_t since_ns = now_ns - r->would_ns;

	if (!r->drain_ns || since_ns < r->drain_ns || (k && k->state != NAME_FRESH))
		return;
	if (since_ns > r->drain_ns + spread_ns(r->drain_ns) + SEC) {
		cancel(s, info->ref.slot, &r->would_ordered);
		return;
	}
	if (r->would_ordered || dataplane_reap_ordered(s->dp, info->ref.slot) != REAP_NONE)
		return;
	order(s, info->ref.slot, r->drain_ns, (since_ns + SEC - 1) / SEC);
	r->would_ordered = true;
}

static void tick_slot(void *arg, const struct slot_info *info)
{
	struct services *s = arg;
	struct removal *r = removal_of(s, info->ref.slot);

	if (info->life == SLOT_LINGERING && r->removed_ns)
		tick_removed(s, info, r, services_now_ns(s));
	else if (info->life == SLOT_USED && r->would_ns)
		tick_would(s, info, r, services_now_ns(s));
}

/* --- flows that stay --- */

struct pinned {
	struct slot_info info;
	uint64_t flows;
};

struct round {
	const struct services *s;
	uint64_t now_ns;
	struct pinned most[ROUND_BACKENDS]; /* flows first */
	size_t n, n_backends;
	uint64_t n_flows;
};

static void insert(struct round *round, const struct slot_info *info, uint64_t flows)
{
	size_t i = round->n < ROUND_BACKENDS ? round->n++ : ROUND_BACKENDS - 1;

	if (i == ROUND_BACKENDS - 1 && round->most[i].flows >= flows)
		return;
	for (; i > 0 && round->most[i - 1].flows < flows; i--)
		round->most[i] = round->most[i - 1];
	round->most[i] = (struct pinned){*info, flows};
}

static void look_for_round(void *arg, const struct slot_info *info)
{
	struct round *round = arg;
	const struct removal *r = removal_of(round->s, info->ref.slot);
	uint64_t flows;

	if (info->life != SLOT_LINGERING || !r->removed_ns || round->now_ns - r->removed_ns < ROUND_NS)
		return;
	flows = flows_of(round->s, info->ref.slot);
	if (!flows)
		return;
	round->n_backends++;
	round->n_flows += flows;
	insert(round, info, flows);
}

static void say_round(struct services *s, const struct round *round)
{
	for (size_t i = 0; i < round->n; i++) {
		const struct pinned *p = &round->most[i];

		say(s, EVENT_WARNING, "backend_pinned", &p->info,
		    "%llu flows are there %llu s after it left, the oldest began %llu s ago",
		    (unsigned long long)p->flows, seconds(round->now_ns - removal_of(s, p->info.ref.slot)->removed_ns),
		    (unsigned long long)dataplane_oldest_ms(s->dp, p->info.ref.slot) / 1000);
	}
	if (round->n_backends > round->n)
		events_add(s->config.events, EVENT_WARNING, "backend_pinned", "names", "backends",
			   "%zu removed backends have %llu flows in all; the %zu with the most were told",
			   round->n_backends, (unsigned long long)round->n_flows, round->n);
}

static bool any_removed(const struct services *s)
{
	for (uint32_t i = 0; i < s->config.n_backend_slots; i++)
		if (removal_of(s, i)->removed_ns && !removal_of(s, i)->gone_said)
			return true;
	return false;
}

static void tick_round(struct services *s, uint64_t now_ns)
{
	struct removals *r = s->removals;
	struct round round = {.s = s, .now_ns = now_ns};

	if (!r->round_ns || now_ns < r->round_ns)
		return;
	if (!r->surveying) {
		dataplane_survey(s->dp);
		r->surveying = true;
	}
	if (!dataplane_survey_done(s->dp))
		return;
	r->surveying = false;
	slots_foreach(s->backends, look_for_round, &round);
	say_round(s, &round);
	r->round_ns = any_removed(s) ? now_ns + ROUND_NS : 0;
}

void removals_tick(struct services *s)
{
	slots_foreach(s->backends, tick_slot, s);
	tick_round(s, services_now_ns(s));
	say_rest(s);
}

/* --- the end --- */

bool removals_may_free(const struct services *s, uint32_t slot)
{
	return !drains_has(s->drains, slots_info(s->backends, slot));
}

void removals_freed(struct services *s, uint32_t slot)
{
	free(removal_of(s, slot)->name);
	*removal_of(s, slot) = (struct removal){0};
}

uint64_t removals_since_ns(const struct services *s, uint32_t slot)
{
	return removal_of(s, slot)->removed_ns;
}

uint64_t removals_deadline_ns(const struct services *s, uint32_t slot)
{
	const struct removal *r = removal_of(s, slot);

	return r->counts_from_ns && r->drain_ns && s->names_mode == CURE_ENFORCE ? r->counts_from_ns + r->drain_ns : 0;
}
