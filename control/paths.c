/* SPDX-License-Identifier: BSD-3-Clause */
#include "paths.h"
#include "events.h"
#include "hash.h"
#include "observe.h"

#include <stdio.h>
#include <stdlib.h>

#define MINUTE_NS         60000000000ull
#define TOLD_CELLS        256
#define EVENTS_PER_MINUTE 20

/* What an event was told of. */
struct told {
	struct ipaddr prefix;
	enum path_kind kind;
	uint64_t at_ns; /* 0: never */
};

struct paths {
	struct dataplane *dp;
	struct events *events;
	struct told told[TOLD_CELLS];
	uint64_t minute_began_ns;
	unsigned n_in_minute;
	uint64_t n_untold; /* since the last event */
};

struct paths *paths_create(struct dataplane *dp, struct events *events)
{
	struct paths *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->dp = dp;
	p->events = events;
	return p;
}

void paths_destroy(struct paths *p)
{
	free(p);
}

static struct ipaddr prefix_of(const struct ipaddr *addr)
{
	struct ipaddr prefix = *addr;

	if (ipaddr_is_v4(addr))
		prefix.b[15] = 0;
	else
		prefix.q_be[1] = 0;
	return prefix;
}

/* True if this is the prefix's first event within a minute; then it is remembered. */
static bool is_first(struct paths *p, const struct told *event)
{
	uint64_t hash = hash_public(event->prefix.b, sizeof(event->prefix.b), event->kind);
	struct told *told = &p->told[hash % TOLD_CELLS];

	if (told->at_ns && told->kind == event->kind && ipaddr_equal(&told->prefix, &event->prefix) &&
	    event->at_ns - told->at_ns < MINUTE_NS)
		return false;
	*told = *event;
	return true;
}

static bool may_tell(struct paths *p, uint64_t now_ns)
{
	if (!p->minute_began_ns || now_ns - p->minute_began_ns >= MINUTE_NS) {
		p->minute_began_ns = now_ns;
		p->n_in_minute = 0;
	}
	if (p->n_in_minute == EVENTS_PER_MINUTE) {
		p->n_untold++;
		return false;
	}
	p->n_in_minute++;
	return true;
}

static const char *what_follows(enum cure_mode mode)
{
	switch (mode) {
	case CURE_ENFORCE:
		return "new connections are clamped";
	case CURE_SHADOW:
		return "new connections would be clamped";
	default:
		return "new connections are not clamped: the cure is off";
	}
}

static void tell(struct paths *p, enum path_kind kind, const struct ipaddr *to, uint16_t mtu, enum cure_mode mode,
		 uint64_t now_ns)
{
	static const char *const evidence[PATH_KINDS] = {
		[PATH_CLIENT] = "a router said so of what goes to this client",
		[PATH_PREFIX] = "clients of this prefix agree",
		[PATH_UPSTREAM] = "a router said so of what goes to this backend",
	};
	const struct told event = {
		.prefix = kind == PATH_UPSTREAM ? *to : prefix_of(to), .kind = kind, .at_ns = now_ns};
	char subject[IPADDR_STRLEN + 8], text[IPADDR_STRLEN], untold[64] = "";

	if (!is_first(p, &event) || !may_tell(p, now_ns))
		return;
	ipaddr_format(kind == PATH_PREFIX ? &event.prefix : to, text);
	snprintf(subject, sizeof(subject), "%s%s", text, kind != PATH_PREFIX ? "" : ipaddr_is_v4(to) ? "/24" : "/64");
	if (p->n_untold)
		snprintf(untold, sizeof(untold), "; %llu more were not told", (unsigned long long)p->n_untold);
	p->n_untold = 0;
	events_add(p->events, EVENT_INFO, "path_mtu_learned", cure_name[CURE_PATH], subject,
		   "at most %u bytes: %s; %s%s", mtu, evidence[kind], what_follows(mode), untold);
}

void paths_note(struct paths *p, const struct note *note, enum cure_mode mode, uint64_t now_ns)
{
	const struct ipaddr *to = &note->path.to;
	struct path_lesson lesson = dataplane_path_learn(p->dp, note->path.upstream, to, note->path.mtu);

	if (lesson.outcome == PATH_LEARNED)
		tell(p, note->path.upstream ? PATH_UPSTREAM : PATH_CLIENT, to, lesson.mtu, mode, now_ns);
	if (lesson.prefix_too)
		tell(p, PATH_PREFIX, to, lesson.mtu, mode, now_ns);
}

void paths_tick(struct paths *p)
{
	dataplane_paths_age(p->dp);
}
