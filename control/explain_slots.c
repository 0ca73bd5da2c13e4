/* SPDX-License-Identifier: BSD-3-Clause */
#include "explain_slots.h"

#include "breaker.h"
#include "clock.h"
#include "observe.h"
#include "view.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define SENTENCE_LEN 320

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

static double streak_age_s(const struct api_source *src, const struct backend_report *r)
{
	uint64_t now_ns = observe_now_ns(src->dp);

	return now_ns > r->streak_since_ns ? (double)(now_ns - r->streak_since_ns) / 1e9 : 0;
}

static void say_breaker(const struct api_source *src, const struct backend_report *r, char *out, size_t size)
{
	struct streak s = streak_read(r->streak);
	char evidence[BREAKER_EVIDENCE_LEN];

	breaker_evidence(&s, evidence, sizeof(evidence));
	if (s.side_down)
		snprintf(out, size, "breaker %s; its whole side is silent or out of reach, which opens none",
			 breaker_state_name[s.state]);
	else if (s.state != BREAKER_CLOSED && streak_length(&s))
		snprintf(out, size, "breaker %s: %s, the first %.1f s ago", breaker_state_name[s.state], evidence,
			 streak_age_s(src, r));
	else if (s.state != BREAKER_CLOSED)
		snprintf(out, size, "breaker %s", breaker_state_name[s.state]);
	else if (streak_length(&s))
		snprintf(out, size, "breaker still closed: %s, the first %.1f s ago", evidence, streak_age_s(src, r));
	else
		snprintf(out, size, "takes new flows");
}

void explain_breaker(const struct api_source *src, const struct view_backend *b, char *out, size_t size)
{
	struct backend_report r;

	observe_backend(src->dp, b->slot, &r);
	say_breaker(src, &r, out, size);
}

static void wall(const struct api_source *src, const struct subject *subject, const struct backend_report *r,
		 json_t *rows)
{
	char breaker[SENTENCE_LEN / 2];

	say_breaker(src, r, breaker, sizeof(breaker));
	if (r->streak)
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

void explain_backend(const struct api_source *src, const struct view_backend *b, json_t *rows)
{
	const struct subject subject = {NULL, b->id};
	struct backend_report r;

	observe_backend(src->dp, b->slot, &r);
	wall(src, &subject, &r, rows);
	names(&subject, b, &r, rows);
	silence(&subject, &r, rows);
}

/* --- services --- */

static void storm(const struct subject *subject, const struct service_report *r, json_t *rows)
{
	uint64_t would = r->would_hold + r->would_refuse + r->would_silence;

	if (r->held)
		add(rows, subject, "storm", "held", &r->held,
		    "%" PRIu64 " new connections beyond a cap were held until their turn: %" PRIu64
		    " were let in, %" PRIu64 " wait now, the others were refused",
		    r->held, r->held_admitted, r->holding);
	if (r->refused_storm)
		add(rows, subject, "storm", "refused_storm", &r->refused_storm,
		    "%" PRIu64 " attempts beyond a cap were refused, with RST or in silence", r->refused_storm);
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
}
