/* SPDX-License-Identifier: BSD-3-Clause */
#include "breaker.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

const char *const breaker_force_name[3] = {"auto", "open", "close"};

#define EDGE(to) (1u << (to))

static const uint8_t edges[BREAKER_STATES] = {
	/* To the ramp: a backend that is new to its set. */
	[BREAKER_CLOSED] = EDGE(BREAKER_OPEN) | EDGE(BREAKER_RAMP),
	[BREAKER_OPEN] = EDGE(BREAKER_HALF_OPEN),
	[BREAKER_HALF_OPEN] = EDGE(BREAKER_RAMP) | EDGE(BREAKER_OPEN),
	[BREAKER_RAMP] = EDGE(BREAKER_CLOSED) | EDGE(BREAKER_OPEN),
};

bool breaker_may(enum breaker_state from, enum breaker_state to)
{
	return edges[from] & EDGE(to);
}

static void enter(struct breaker *b, enum breaker_state state, uint64_t now_ns)
{
	assert(breaker_may(b->state, state));
	b->state = state;
	b->since_ns = now_ns;
}

/* A part of `ns` up and down. */
static uint64_t spread(uint64_t ns, unsigned part, uint32_t chance)
{
	return ns - ns / part + (uint64_t)((unsigned __int128)(2 * (ns / part)) * chance >> 32);
}

static uint64_t open_ns(uint32_t openings, uint32_t chance)
{
	uint64_t ns = BREAKER_OPEN_NS;

	for (uint32_t i = 1; i < openings && ns < BREAKER_OPEN_MAX_NS; i++)
		ns *= 2;
	return spread(ns < BREAKER_OPEN_MAX_NS ? ns : BREAKER_OPEN_MAX_NS, 4, chance);
}

uint32_t breaker_openings(const struct breaker *b, uint64_t now_ns)
{
	uint64_t healed = b->state == BREAKER_CLOSED ? (now_ns - b->since_ns) / BREAKER_HEAL_NS : 0;

	return healed < b->openings ? b->openings - healed : 0;
}

void breaker_open(struct breaker *b, enum breaker_cause cause, uint64_t now_ns, uint32_t chance)
{
	b->openings = breaker_openings(b, now_ns) + 1;
	enter(b, BREAKER_OPEN, now_ns);
	b->cause = cause;
	b->until_ns = now_ns + open_ns(b->openings, chance);
	b->probes = 0;
	b->answers = 0;
	b->owed = false;
	b->probe_ns = now_ns;
}

void breaker_annul(struct breaker *b, uint64_t now_ns)
{
	if (b->state == BREAKER_OPEN && b->openings)
		b->openings--;
	b->state = BREAKER_CLOSED;
	b->since_ns = now_ns;
}

static void plan_probe(struct breaker *b, uint64_t now_ns, uint32_t chance)
{
	bool soon = now_ns - b->since_ns < BREAKER_PROBE_SOON_NS;

	b->probe_ns = now_ns + spread(soon ? BREAKER_PROBE_NS : BREAKER_PROBE_LATER_NS, 10, chance);
}

bool breaker_probe(struct breaker *b, uint64_t now_ns, uint32_t chance)
{
	if (b->state != BREAKER_OPEN || now_ns < b->probe_ns)
		return false;
	if (b->owed)
		b->answers = 0;
	b->owed = true;
	b->probes++;
	plan_probe(b, now_ns, chance);
	return true;
}

/* Two answers to one probe are one. */
void breaker_answered(struct breaker *b)
{
	if (b->state != BREAKER_OPEN || !b->owed)
		return;
	b->owed = false;
	b->answers++;
}

void breaker_resume(struct breaker *b, uint64_t now_ns)
{
	b->answers = 0;
	b->owed = false;
	b->probe_ns = now_ns;
}

void breaker_ramp(struct breaker *b, uint64_t now_ns)
{
	b->openings = breaker_openings(b, now_ns);
	enter(b, BREAKER_RAMP, now_ns);
	b->failed_ns = now_ns;
}

void breaker_failed(struct breaker *b, uint64_t now_ns)
{
	b->failed_ns = now_ns;
}

/* A check says nothing of what SYNs opened: it goes by the kernel, on a way of its own. */
static bool is_barred(const struct breaker *b)
{
	return b->barred && b->cause == BREAKER_RESPONSE;
}

/* A kernel that answers three times in a row has come back; an application has its time first. */
static bool may_be_tried(const struct breaker *b, uint64_t now_ns)
{
	return (b->cause == BREAKER_CONNECT && b->answers >= BREAKER_ANSWERS) ||
	       (now_ns >= b->until_ns && b->answers > 0 && !b->owed && !is_barred(b));
}

bool breaker_step(struct breaker *b, uint64_t now_ns)
{
	if (b->state == BREAKER_OPEN && may_be_tried(b, now_ns)) {
		enter(b, BREAKER_HALF_OPEN, now_ns);
		return true;
	}
	if (b->state == BREAKER_RAMP && now_ns - b->failed_ns >= BREAKER_RAMP_NS) {
		enter(b, BREAKER_CLOSED, now_ns);
		return true;
	}
	return false;
}

uint32_t breaker_share(const struct breaker *b, uint64_t now_ns)
{
	uint64_t ms = (now_ns - b->since_ns) / 1000000, all_ms = BREAKER_RAMP_NS / 1000000;

	if (b->state != BREAKER_RAMP || ms >= all_ms)
		return UINT32_MAX;
	if (ms < all_ms * BREAKER_RAMP_MIN / 100)
		ms = all_ms * BREAKER_RAMP_MIN / 100;
	return UINT32_MAX / all_ms * ms;
}

uint64_t breaker_due_ns(const struct breaker *b)
{
	switch (b->state) {
	case BREAKER_OPEN:
		return b->answers && !b->owed && !is_barred(b) && b->until_ns < b->probe_ns ? b->until_ns : b->probe_ns;
	case BREAKER_RAMP:
		return b->failed_ns + BREAKER_RAMP_NS;
	default:
		return UINT64_MAX;
	}
}

/* --- words for people --- */

static const char *const failure_words[CONNECT_FAILURES] = {
	[CONNECT_SILENT] = "unanswered",
	[CONNECT_REFUSED] = "refused",
	[CONNECT_UNREACHABLE] = "called unreachable",
	[CONNECT_STALLED] = "stalled",
};

static size_t say_failures(const struct streak *s, char *out, size_t size)
{
	uint32_t n = streak_length(s);
	size_t len = 0;

	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		if (s->failures[kind] == n)
			return snprintf(out, size, "%u SYNs in a row %s", n, failure_words[kind]);
	len += snprintf(out, size, "%u SYNs in a row failed", n);
	for (int kind = 0; kind < CONNECT_FAILURES && len < size; kind++)
		if (s->failures[kind])
			len += snprintf(out + len, size - len, "%s %u %s", strchr(out, ':') ? "," : ":",
					s->failures[kind], failure_words[kind]);
	return len;
}

void breaker_evidence(const struct streak *s, uint64_t checks, char *out, size_t size)
{
	uint32_t n = streak_length(s);
	size_t len = say_failures(s, out, size);

	if (!checks || len >= size)
		return;
	if (checks >= n)
		snprintf(out + len, size - len, ", all of them checks");
	else
		snprintf(out + len, size - len, ", %u of them checks", (unsigned)checks);
}
