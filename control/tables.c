/* SPDX-License-Identifier: BSD-3-Clause */
#include "tables.h"
#include "events.h"

#include <inttypes.h>
#include <string.h>

const char *const table_level_name[PRESSURE_LEVELS] = {
	[PRESSURE_NONE] = "relaxed",
	[PRESSURE_SHORT] = "pressed",
	[PRESSURE_KNOWN] = "known_only",
	[PRESSURE_FULL] = "full",
};

const char *const table_family_name[SET_FAMILIES] = {[SET_V4] = "ipv4", [SET_V6] = "ipv6"};

static void add_worker(struct table_state *t, unsigned worker, uint32_t level, uint32_t flows, uint32_t capacity,
		       const uint64_t reached[PRESSURE_LEVELS])
{
	t->level = level > t->level ? level : t->level;
	t->flows += flows;
	t->capacity += capacity;
	for (unsigned l = 0; l < PRESSURE_LEVELS; l++)
		t->reached[l] += reached[l];
	if (flows < t->fullest_flows || (t->fullest_capacity && flows == t->fullest_flows))
		return;
	t->fullest = worker;
	t->fullest_flows = flows;
	t->fullest_capacity = capacity;
}

void tables_read(const struct dataplane *dp, struct table_state out[static SET_FAMILIES])
{
	out[SET_V4] = out[SET_V6] = (struct table_state){0};
	for (unsigned i = 0; i < dataplane_n_workers(dp); i++) {
		struct worker_report r;

		observe_worker(dp, i, &r);
		add_worker(&out[SET_V4], i, r.pressure_v4, r.flows_v4, r.flows_v4_max, r.pressed_v4);
		add_worker(&out[SET_V6], i, r.pressure_v6, r.flows_v6, r.flows_v6_max, r.pressed_v6);
	}
}

static void say(const struct table_state *now, enum pressure_level level, const char *family, struct events *events)
{
	static const struct {
		enum event_severity severity;
		const char *words;
	} says[PRESSURE_LEVELS] = {
		[PRESSURE_NONE] = {EVENT_INFO, "relaxed"},
		[PRESSURE_SHORT] = {EVENT_WARNING, "90 % in use: half-open and closed flows end sooner"},
		[PRESSURE_KNOWN] = {EVENT_CRITICAL,
				    "95 % in use: new flows only of clients with a success in the last minute"},
		[PRESSURE_FULL] = {EVENT_CRITICAL, "full: new flows are refused"},
	};

	events_add(events, says[level].severity, "table_pressed", "gateway", family,
		   "%s; %" PRIu64 " of %" PRIu64 " flows, %" PRIu32 " of %" PRIu32 " at worker%u%s", says[level].words,
		   now->flows, now->capacity, now->fullest_flows, now->fullest_capacity, now->fullest,
		   level == PRESSURE_NONE ? "" : ": raise gateway.flows, or see which clients fill it");
}

/* Also one that was over before anybody looked. */
static enum pressure_level highest_since(const struct table_said *said, const struct table_state *now)
{
	enum pressure_level highest = now->level;

	for (enum pressure_level l = PRESSURE_SHORT; l < PRESSURE_LEVELS; l++)
		if (now->reached[l] != said->reached[l] && l > highest)
			highest = l;
	return highest;
}

static void tell(struct table_said *said, const struct table_state *now, const char *family, struct events *events,
		 uint64_t now_ns)
{
	enum pressure_level highest = highest_since(said, now);

	memcpy(said->reached, now->reached, sizeof(said->reached));
	if (highest >= said->level)
		said->since_ns = 0;
	if (highest == said->level)
		return;
	if (highest < said->level && !said->since_ns)
		said->since_ns = now_ns;
	if (highest < said->level && now_ns - said->since_ns < TABLES_RELAX_NS)
		return;
	said->level = highest;
	said->since_ns = 0;
	say(now, highest, family, events);
}

void tables_tick(struct tables *t, const struct dataplane *dp, struct events *events, uint64_t now_ns)
{
	struct table_state now[SET_FAMILIES];

	tables_read(dp, now);
	for (int v6 = 0; v6 < SET_FAMILIES; v6++)
		tell(&t->said[v6], &now[v6], v6 ? "IPv6 flow table" : "IPv4 flow table", events, now_ns);
}
