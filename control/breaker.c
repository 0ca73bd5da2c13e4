/* SPDX-License-Identifier: BSD-3-Clause */
#include "breaker.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define EDGE(to) (1u << (to))

static const uint8_t edges[BREAKER_STATES] = {
	[BREAKER_CLOSED] = EDGE(BREAKER_OPEN),
	/* To half-open, once that is built; until then a backend that answers is as good as any. */
	[BREAKER_OPEN] = EDGE(BREAKER_HALF_OPEN) | EDGE(BREAKER_CLOSED),
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

/* +-10 % */
static uint64_t spread(uint64_t ns, uint32_t chance)
{
	return ns - ns / 10 + (ns / 5 * chance >> 32);
}

static void plan_probe(struct breaker *b, uint64_t now_ns, uint32_t chance)
{
	bool soon = now_ns - b->since_ns < BREAKER_PROBE_SOON_NS;

	b->probe_ns = now_ns + spread(soon ? BREAKER_PROBE_NS : BREAKER_PROBE_LATER_NS, chance);
}

void breaker_open(struct breaker *b, uint64_t now_ns)
{
	enter(b, BREAKER_OPEN, now_ns);
	b->probes = 0;
	b->probe_ns = now_ns;
}

void breaker_close(struct breaker *b, uint64_t now_ns)
{
	enter(b, BREAKER_CLOSED, now_ns);
}

bool breaker_probe(struct breaker *b, uint64_t now_ns, uint32_t chance)
{
	if (b->state != BREAKER_OPEN || now_ns < b->probe_ns)
		return false;
	b->probes++;
	plan_probe(b, now_ns, chance);
	return true;
}

uint64_t breaker_due_ns(const struct breaker *b)
{
	return b->state == BREAKER_OPEN ? b->probe_ns : UINT64_MAX;
}

/* --- words for people --- */

static const char *const failure_words[CONNECT_FAILURES] = {
	[CONNECT_SILENT] = "unanswered",
	[CONNECT_REFUSED] = "refused",
	[CONNECT_UNREACHABLE] = "called unreachable",
};

void breaker_evidence(const struct streak *s, char *out, size_t size)
{
	uint32_t n = streak_length(s);
	size_t len = 0;

	for (int kind = 0; kind < CONNECT_FAILURES; kind++)
		if (s->failures[kind] == n) {
			snprintf(out, size, "%u SYNs in a row %s", n, failure_words[kind]);
			return;
		}
	len += snprintf(out, size, "%u SYNs in a row failed", n);
	for (int kind = 0; kind < CONNECT_FAILURES && len < size; kind++)
		if (s->failures[kind])
			len += snprintf(out + len, size - len, "%s %u %s", strchr(out, ':') ? "," : ":",
					s->failures[kind], failure_words[kind]);
}
