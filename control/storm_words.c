/* SPDX-License-Identifier: BSD-3-Clause */
#include "storm_words.h"

#include "clock.h"
#include "observe.h"
#include "view.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS      1000000000ull
#define RATE_SECONDS   10
#define BACKENDS_SHOWN 3

const char *const storm_test_name[STORM_TESTS] = {
	[STORM_CLIENT] = "client", [STORM_PREFIX] = "prefix",     [STORM_SERVICE] = "service",
	[STORM_LIMIT] = "limit",   [STORM_HARD_MAX] = "hard_max", [STORM_BACKEND] = "backend",
	[STORM_RETRY] = "retry",
};
const char *const storm_answer_name[STORM_ANSWERS] = {"held", "refused", "silent"};

/* --- outcomes --- */

static bool is_among(outcome_reason reason, outcome_reason first, enum storm_answer answer, bool shadow,
		     struct storm_outcome *out)
{
	/* A retry without a token is never held. */
	unsigned n = answer == STORM_HELD ? STORM_RETRY : STORM_TESTS;

	if (reason < first || reason >= first + n)
		return false;
	*out = (struct storm_outcome){(enum storm_cap)(reason - first), answer, shadow};
	return true;
}

/* A refusal that is done is its packet's verdict. */
bool storm_outcome_read(outcome_reason reason, struct storm_outcome *out)
{
	return is_among(reason, OUTCOME_VERDICT(VERDICT_answer_storm_client), STORM_REFUSED, false, out) ||
	       is_among(reason, OUTCOME_VERDICT(VERDICT_shed_storm_client), STORM_SILENT, false, out) ||
	       is_among(reason, OUTCOME_ACTION(ACTION_hold_client), STORM_HELD, false, out) ||
	       is_among(reason, OUTCOME_WOULD(ACTION_hold_client), STORM_HELD, true, out) ||
	       is_among(reason, OUTCOME_WOULD(ACTION_refuse_client), STORM_REFUSED, true, out) ||
	       is_among(reason, OUTCOME_WOULD(ACTION_silence_client), STORM_SILENT, true, out);
}

/* --- rates --- */

struct rate_search {
	const struct view *view;
	struct storm_rates *rates; /* as the view's services */
	uint64_t from_ns, until_ns;
};

static void add_second(void *arg, const struct second_row *row)
{
	struct rate_search *search = arg;
	struct storm_outcome o;

	if (row->unnamed || row->at_ns < search->from_ns || row->at_ns >= search->until_ns ||
	    !storm_outcome_read(row->reason, &o))
		return;
	for (size_t i = 0; i < search->view->n_services; i++)
		if (search->view->services[i].slot == row->service_slot)
			search->rates[i].per_s[o.test][o.answer] += (double)row->count / RATE_SECONDS;
}

struct storm_rates *storm_rates_read(const struct api_source *src, const struct view *view)
{
	uint64_t until_ns = observe_now_ns(src->dp) / SECOND_NS * SECOND_NS, ago_ns = RATE_SECONDS * SECOND_NS;
	struct rate_search search = {
		.view = view,
		.rates = calloc((view ? view->n_services : 0) + 1, sizeof(*search.rates)),
		.from_ns = until_ns > ago_ns ? until_ns - ago_ns : 0,
		.until_ns = until_ns,
	};

	for (unsigned w = 0; search.rates && view && w < dataplane_n_workers(src->dp); w++)
		observe_seconds(src->dp, w, add_second, &search);
	return search.rates;
}

json_t *storm_rates_json(const struct storm_rates *rates)
{
	json_t *rows = json_array();

	for (int test = 0; test < STORM_TESTS; test++) {
		const double *per_s = rates->per_s[test];

		if (per_s[STORM_HELD] + per_s[STORM_REFUSED] + per_s[STORM_SILENT] > 0)
			json_array_append_new(rows,
					      json_pack("{s:s,s:f,s:f,s:f}", "test", storm_test_name[test],
							"held_per_s", per_s[STORM_HELD], "refused_per_s",
							per_s[STORM_REFUSED], "silent_per_s", per_s[STORM_SILENT]));
	}
	return rows;
}

/* --- words --- */

static double ago_s(uint64_t now_ns, uint64_t at_ns)
{
	return now_ns > at_ns ? (double)(now_ns - at_ns) / 1e9 : 0;
}

static void say_calm(const struct view_limiter *l, char *out, size_t size)
{
	if (l->stalled || l->calm_ns == UINT64_MAX)
		snprintf(out, size, "it answers again");
	else
		snprintf(out, size, "first bytes of it take less than %.0f ms again", l->calm_ns / 1e6);
}

void storm_say_limited(const struct view_backend *b, uint64_t now_ns, char *out, size_t size)
{
	const struct view_limiter *l = &b->limiter;
	char usual[LIMITER_USUAL_LEN], instead[LIMITER_USUAL_LEN + 16] = "", calm[64];

	*out = '\0';
	if (!l->limiting)
		return;
	limiter_say_usual(l->usual_ns, l->from, usual);
	if (l->usual_ns)
		snprintf(instead, sizeof(instead), " instead of %s", usual);
	say_calm(l, calm, sizeof(calm));
	snprintf(out, size,
		 "it is congested, for %.1f s: %sfirst bytes take %.1f ms%s, and it answered %" PRIu64
		 " a second at the most of late; it is given no more than %u at a time, of which it has %u, until %s",
		 ago_s(now_ns, l->since_ns), l->stalled ? "it answers nothing, " : "", l->first_byte_ns / 1e6, instead,
		 l->rate, l->limit, l->wip, calm);
}

/* A few of a service's backends, each in the words of `say`, which is silent on those that do not matter. */
static unsigned say_backends(const struct view *view, const struct view_service *svc, const struct ipaddr *like,
			     bool (*say)(const struct view_backend *b, char *out, size_t size), char *out, size_t size)
{
	size_t len = 0;
	unsigned n = 0;

	for (size_t i = 0; i < svc->n_backends; i++) {
		const struct view_backend *b = &view->backends[svc->backends[i]];
		char text[160];

		if (ipaddr_is_v4(&b->addr) != ipaddr_is_v4(like) || !say(b, text, sizeof(text)) ||
		    n++ >= BACKENDS_SHOWN)
			continue;
		snprintf(out + len, size - len, "%s%s", len ? ", or " : "", text);
		len = strlen(out);
	}
	if (n > BACKENDS_SHOWN)
		snprintf(out + len, size - len, ", or one of %u more likewise", n - BACKENDS_SHOWN);
	return n;
}

static bool say_limit(const struct view_backend *b, char *out, size_t size)
{
	char calm[64];

	if (!b->limiter.limiting)
		return false;
	say_calm(&b->limiter, calm, sizeof(calm));
	snprintf(out, size, "when %s has less than %u under way (%u now), or %s", b->id, b->limiter.limit,
		 b->limiter.wip, calm);
	return true;
}

static bool say_hard_max(const struct view_backend *b, char *out, size_t size)
{
	snprintf(out, size, "when %s has less than %u under way (%u now)", b->id, b->hard_max, b->limiter.wip);
	return b->hard_max != 0;
}

static void say_cap(const struct view_service *svc, enum storm_cap cap, char *out, size_t size)
{
	static const char *const whose[STORM_CAPS] = {
		[STORM_CLIENT] = "its own", [STORM_PREFIX] = "its network's", [STORM_SERVICE] = "the service's"};

	if (svc->caps[cap])
		snprintf(out, size, "when it is its turn: %s cap lets in %" PRIu64 " a second", whose[cap],
			 svc->caps[cap]);
	else
		snprintf(out, size, "at once: there is no such cap any more");
}

void storm_say_lets_in(const struct view *view, const struct view_service *svc, enum storm_cap test,
		       const struct ipaddr *like, char *out, size_t size)
{
	*out = '\0';
	switch (test) {
	case STORM_CLIENT:
	case STORM_PREFIX:
	case STORM_SERVICE:
		say_cap(svc, test, out, size);
		break;
	case STORM_LIMIT:
		if (!say_backends(view, svc, like, say_limit, out, size))
			snprintf(out, size, "at once: no backend of %s is congested now", svc->name);
		break;
	case STORM_HARD_MAX:
		if (!say_backends(view, svc, like, say_hard_max, out, size))
			snprintf(out, size, "at once: there is no such maximum any more");
		break;
	case STORM_BACKEND:
		if (svc->backend_rate)
			snprintf(out, size, "when it is its turn: each backend is given %" PRIu64 " a second",
				 svc->backend_rate);
		else
			snprintf(out, size, "at once: there is no such cap any more");
		break;
	case STORM_RETRY:
		snprintf(out, size,
			 "as soon as the service's retry budget has a token for it, or ten seconds after its "
			 "last failure");
		break;
	case STORM_TESTS:
		break;
	}
}
