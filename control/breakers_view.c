/* SPDX-License-Identifier: BSD-3-Clause */
/* What people are told of breakers: their state, since when, by which evidence, and what comes next. */
#include "breakers_private.h"
#include "dataplane.h"
#include "view.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL: decide has not met it yet, or there is nothing to say. */
static const struct backend *worth_showing(const struct breakers *b, const struct view_backend *row, struct streak *s)
{
	const struct backend *backend = &b->backends[row->slot];

	*s = streak_read(dataplane_breaker(b->dp, row->slot));
	if (backend->generation != row->generation)
		return NULL;
	return backend->breaker.state != BREAKER_CLOSED || s->forced || s->side_down || *backend->evidence ? backend
													   : NULL;
}

static void show(struct view_breaker *out, const struct backend *backend, const struct streak *s, uint64_t now_ns)
{
	const struct breaker *breaker = &backend->breaker;

	*out = (struct view_breaker){
		.state = s->forced ? s->state : breaker->state,
		.forced = s->forced,
		.is_new = backend->greeted && breaker->state == BREAKER_RAMP,
		.cause = breaker->cause,
		.since_ns = breaker->since_ns,
		.opened_ns = backend->opened_ns,
		.openings = breaker_openings(breaker, now_ns),
		.share = breaker_share(breaker, now_ns),
	};
	if (out->state == BREAKER_OPEN && !s->forced) {
		out->probe_ns = breaker->probe_ns;
		out->until_ns = breaker->until_ns;
		if (breaker->barred && breaker->cause == BREAKER_RESPONSE)
			snprintf(out->check, sizeof(out->check), "%s", backend->check_why);
	}
	if (out->state == BREAKER_RAMP)
		out->closes_ns = breaker->failed_ns + BREAKER_RAMP_NS;
	memcpy(out->evidence, backend->evidence, sizeof(out->evidence));
}

/* --- sides --- */

struct side_search {
	const struct breakers *b;
	struct view_breaker **by_slot;
};

/* Only on those that are marked: one that answered meanwhile is measured. */
static void show_side(void *arg, const struct services_side *of)
{
	const struct side_search *search = arg;
	const struct side *side = &search->b->sides[of->service_ref.slot][of->family];

	if (side->generation != of->service_ref.generation || side->state == SIDE_UP)
		return;
	for (uint32_t i = 0; i < of->set->n_backends; i++) {
		struct view_breaker *row = search->by_slot[of->set->backends[i].ref.slot];

		if (!row || row->side_ns)
			continue;
		row->side_ns = side->since_ns;
		snprintf(row->side, sizeof(row->side), "%s, %s", of->service, side->evidence);
	}
}

int breakers_view(const struct breakers *b, struct view *view, uint64_t now_ns)
{
	struct view_breaker **by_slot = calloc(b->config.n_backend_slots, sizeof(*by_slot));
	struct streak s;
	size_t n = 0;

	for (size_t i = 0; i < view->n_backends; i++)
		n += worth_showing(b, &view->backends[i], &s) != NULL;
	view->breakers = calloc(n + 1, sizeof(*view->breakers));
	if (!by_slot || !view->breakers) {
		free(by_slot);
		return -ENOMEM;
	}
	n = 0;
	for (size_t i = 0; i < view->n_backends; i++) {
		struct view_backend *row = &view->backends[i];
		const struct backend *backend = worth_showing(b, row, &s);

		if (!backend)
			continue;
		show(&view->breakers[n], backend, &s, now_ns);
		row->breaker = by_slot[row->slot] = &view->breakers[n++];
	}
	services_sides(b->services, show_side, &(struct side_search){b, by_slot});
	free(by_slot);
	return 0;
}
