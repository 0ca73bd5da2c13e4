/* SPDX-License-Identifier: BSD-3-Clause */
#include "explain_slots.h"

#include "api_early.h"
#include "breaker.h"
#include "clock.h"
#include "observe.h"
#include "storm_words.h"
#include "view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SENTENCE_LEN (EXPLAIN_BREAKER_LEN + 120)

/* Of what it is about: one of the two, the other one is NULL. */
struct subject {
	const char *service, *backend;
};

/* `count` may be NULL: what is found is a state. */
__attribute__((format(printf, 6, 7))) static void add(json_t *rows, const struct subject *subject, const char *cure,
						      const char *reason, const uint64_t *count, const char *format,
						      ...)
{
	char sentence[SENTENCE_LEN];
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:o,s:n,s:n,s:s?,s:s?,s:s}", "cure", cure, "reason", reason,
					      "scope", subject->backend ? "backend" : "total", "count",
					      count ? json_integer((json_int_t)*count) : json_null(), "first", "last",
					      "service", subject->service, "backend", subject->backend, "sentence",
					      sentence));
}

static double seconds(uint64_t ms)
{
	return (double)ms / 1e3;
}

/* --- wall --- */

static double ago_s(uint64_t now_ns, uint64_t at_ns)
{
	return now_ns > at_ns ? (double)(now_ns - at_ns) / 1e9 : 0;
}

/* What opened it, or will, as far as its word says that: decide may not have confirmed it, or not shown it yet. */
static void say_word(const struct api_source *src, const struct backend_report *r, const struct streak *s, char *out,
		     size_t size)
{
	double since_s = ago_s(observe_now_ns(src->dp), r->streak_since_ns);
	char evidence[BREAKER_EVIDENCE_LEN];

	breaker_evidence(s, r->checks_failed, evidence, sizeof(evidence));
	if (s->state != BREAKER_CLOSED && streak_length(s))
		snprintf(out, size, "breaker %s: %s, the first %.1f s ago", breaker_state_name[s->state], evidence,
			 since_s);
	else if (s->state != BREAKER_CLOSED)
		snprintf(out, size, "breaker %s", breaker_state_name[s->state]);
	else if (streak_length(s))
		snprintf(out, size, "breaker still closed: %s, the first %.1f s ago", evidence, since_s);
	else
		snprintf(out, size, "takes new flows");
}

/* What it takes to leave the state. */
static void say_next(const struct view_breaker *b, uint64_t now_ns, char *out, size_t size)
{
	size_t len;

	switch (b->state) {
	case BREAKER_OPEN:
		len = snprintf(out, size, "it is probed again in %.1f s", ago_s(b->probe_ns, now_ns));
		if (*b->check && len < size)
			snprintf(out + len, size - len, ", and tried by no flow while its checks fail: %s", b->check);
		else if (b->cause == BREAKER_RESPONSE && len < size)
			snprintf(out + len, size - len, ", and real flows try it in %.1f s if it answers",
				 ago_s(b->until_ns, now_ns));
		break;
	case BREAKER_HALF_OPEN:
		snprintf(out, size, "real flows try it, one at a time");
		break;
	default:
		snprintf(out, size, "it gets %u%% of its flows, and all of them in %.1f s",
			 (unsigned)(b->share / (UINT32_MAX / 100)), ago_s(b->closes_ns, now_ns));
	}
}

/* As decide has it: "breaker open: 5 SYNs in a row refused; for 12.1 s, the 3rd time of late; it is probed …". */
static void say_state(const struct view_breaker *b, uint64_t now_ns, char *out, size_t size)
{
	char next[180], again[48] = "";

	if (b->openings > 1)
		snprintf(again, sizeof(again), ", opened %u times of late", b->openings);
	say_next(b, now_ns, next, sizeof(next));
	snprintf(out, size, "breaker %s: %s; for %.1f s%s; %s", breaker_state_name[b->state],
		 b->is_new ? "new to its set, which has others" : b->evidence, ago_s(now_ns, b->since_ns), again, next);
}

static void say_breaker(const struct api_source *src, const struct view_breaker *b, const struct backend_report *r,
			char *out, size_t size)
{
	struct streak s = streak_read(r->streak);
	uint64_t now_ns = clock_monotonic_ns();
	size_t len;

	if (s.forced)
		snprintf(out, size, "breaker %s: an operator says so", breaker_state_name[s.state]);
	else if (s.side_down)
		snprintf(out, size, "breaker %s; its whole side is silent or out of reach, which opens none",
			 breaker_state_name[s.state]);
	else if (b && b->state == s.state && s.state != BREAKER_CLOSED)
		say_state(b, now_ns, out, size);
	else
		say_word(src, r, &s, out, size);
	len = strlen(out);
	if (b && s.forced && b->forced)
		snprintf(out + len, size - len, ", for %.1f s, until it is left to itself again",
			 ago_s(now_ns, b->since_ns));
	else if (b && s.side_down && b->side_ns)
		snprintf(out + len, size - len, ", for %.1f s: %s", ago_s(now_ns, b->side_ns), b->side);
	else if (b && s.state == BREAKER_CLOSED && b->opened_ns)
		snprintf(out + len, size - len, "; it was opened last %.1f s ago: %s", ago_s(now_ns, b->opened_ns),
			 b->evidence);
}

void explain_breaker(const struct api_source *src, const struct view_backend *b, char *out, size_t size)
{
	struct backend_report r;

	observe_backend(src->dp, b->slot, &r);
	say_breaker(src, b->breaker, &r, out, size);
}

bool explain_is_open(const struct api_source *src, const struct view_backend *b)
{
	struct backend_report r;

	observe_backend(src->dp, b->slot, &r);
	return r.breaker == BREAKER_OPEN || r.breaker == BREAKER_HALF_OPEN;
}

static void wall(const struct api_source *src, const struct subject *subject, const struct view_backend *b,
		 const struct backend_report *r, json_t *rows)
{
	char breaker[EXPLAIN_BREAKER_LEN];

	say_breaker(src, b->breaker, r, breaker, sizeof(breaker));
	if (r->streak || b->breaker)
		add(rows, subject, "wall", "breaker", NULL, "%s; it was sent %" PRIu64 " SYNs of the gateway's own",
		    breaker, r->probes);
	if (r->failures)
		add(rows, subject, "wall", "failures", &r->failures,
		    "%" PRIu64 " of %" PRIu64 " attempts were refused or never answered; %" PRIu64
		    " of them were given to another backend",
		    r->failures, r->new_flows, r->resteered);
	if (r->overloads)
		add(rows, subject, "wall", "overloads", &r->overloads,
		    "%" PRIu64
		    " SYNs went unanswered although it was heard meanwhile: it lives, and cannot keep up with new "
		    "connections",
		    r->overloads);
}

/* --- names --- */

static void names(const struct subject *subject, const struct view_backend *b, const struct backend_report *r,
		  json_t *rows)
{
	uint64_t pinned = api_pinned(b, r), now_ns = clock_monotonic_ns();
	char since[48] = "", end[64] = "; nothing ends them, as its services have no drain";

	if (!pinned)
		return;
	if (b->removed_ns && b->removed_ns <= now_ns)
		snprintf(since, sizeof(since), ", %.0f s after it left", seconds((now_ns - b->removed_ns) / 1000000));
	if (b->deadline_ns)
		snprintf(end, sizeof(end), "; those left in %.0f s are ended",
			 b->deadline_ns > now_ns ? seconds((b->deadline_ns - now_ns) / 1000000) : 0);
	add(rows, subject, "names", "pinned", &pinned,
	    "%" PRIu64 " flows stay although DNS, the configuration or a command took it out%s%s", pinned, since, end);
}

/* --- silence --- */

static void idle_times(const struct subject *subject, const struct backend_report *r, json_t *rows)
{
	char survived[80] = "";

	if (!r->idle_lost_ms)
		return;
	if (r->idle_survived_ms && r->idle_survived_ms < r->idle_lost_ms)
		snprintf(survived, sizeof(survived), ", others survived %.0f s", seconds(r->idle_survived_ms));
	add(rows, subject, "silence", "idle_lost", NULL,
	    "a connection that idled for %.0f s was lost though the backend lives%s: something on the way forgets idle "
	    "connections; idle.probe should be less",
	    seconds(r->idle_lost_ms), survived);
}

static void silence(const struct subject *subject, const struct backend_report *r, json_t *rows)
{
	if (r->silent_backends)
		add(rows, subject, "silence", "silent_backends", &r->silent_backends,
		    "%" PRIu64 " connections were ended with RST as it was silent on them", r->silent_backends);
	if (r->silent_clients)
		add(rows, subject, "silence", "silent_clients", &r->silent_clients,
		    "%" PRIu64 " connections to it were ended with RST as their clients were silent",
		    r->silent_clients);
	idle_times(subject, r, rows);
}

/* --- storm --- */

static void limited(const struct subject *subject, const struct view_backend *b, json_t *rows)
{
	uint64_t limit = b->limiter.limit, hard_max = b->hard_max;
	char words[STORM_WORDS_LEN];

	storm_say_limited(b, clock_monotonic_ns(), words, sizeof(words));
	if (*words)
		add(rows, subject, "storm", "limit", &limit, "%s", words);
	if (hard_max && b->limiter.wip >= hard_max)
		add(rows, subject, "storm", "hard_max", &hard_max,
		    "it has all the work that it may have at a time (storm.hard_max): %u of %u", b->limiter.wip,
		    b->hard_max);
	if (b->limiter.limiting || (b->limiter.from != LIMITER_BASE_RESTART && b->limiter.from != LIMITER_BASE_LEFT))
		return;
	limiter_say_usual(b->limiter.usual_ns, b->limiter.from, words);
	add(rows, subject, "storm", "usual", NULL, "first bytes of it usually take, in ms, %s", words);
}

void explain_backend(const struct api_source *src, const struct view_backend *b, json_t *rows)
{
	const struct subject subject = {NULL, b->id};
	struct backend_report r;

	observe_backend(src->dp, b->slot, &r);
	wall(src, &subject, b, &r, rows);
	limited(&subject, b, rows);
	names(&subject, b, &r, rows);
	silence(&subject, &r, rows);
}

/* --- services --- */

static void storm(const struct subject *subject, const struct service_report *r, json_t *rows)
{
	uint64_t would = r->would_hold + r->would_refuse + r->would_silence;

	if (r->held)
		add(rows, subject, "storm", "held", &r->held,
		    "%" PRIu64
		    " new connections beyond a cap, or what the backends bore, were held until their turn: %" PRIu64
		    " were let in, %" PRIu64 " wait now, the others were refused",
		    r->held, r->held_admitted, r->holding);
	if (r->refused_storm)
		add(rows, subject, "storm", "refused_storm", &r->refused_storm,
		    "%" PRIu64
		    " attempts beyond a cap, or what the backends bore, were refused, with RST or in silence",
		    r->refused_storm);
	if (would)
		add(rows, subject, "storm", "would", &would,
		    "in shadow, so not done: %" PRIu64 " attempts held, %" PRIu64 " refused with RST, %" PRIu64
		    " left without an answer",
		    r->would_hold, r->would_refuse, r->would_silence);
}

void explain_service(const struct api_source *src, const struct view_service *s, json_t *rows)
{
	const struct subject subject = {s->name, NULL};
	struct service_report r;

	observe_service(src->dp, s->slot, &r);
	if (r.refused + r.silent)
		add(rows, &subject, "gateway", "attempts", &r.attempts,
		    "of %" PRIu64 " attempts %" PRIu64 " were let in, %" PRIu64 " refused aloud, %" PRIu64
		    " in silence, %" PRIu64 " wait now",
		    r.attempts, r.new_flows, r.refused, r.silent, r.holding);
	storm(&subject, &r, rows);
	api_early_explain_service(src, s, rows);
}
