/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One backend's breaker as decide sees it: what becomes of it when something happens, by a clock and a chance (any
 * number, evenly spread) that are passed in. Nothing here has side effects; breakers.c has them.
 */
#pragma once

#include "streak.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first probe is due at once: of what was not the backend's fault, or is over, nothing shall remain. */
#define BREAKER_PROBE_NS       1000000000ull  /* between two probes of an open one, */
#define BREAKER_PROBE_LATER_NS 5000000000ull  /* when it has been open for */
#define BREAKER_PROBE_SOON_NS  60000000000ull /* this long; each +-10 %, so that many do not probe in step */

/* All zero: closed. */
struct breaker {
	enum breaker_state state;
	uint64_t since_ns; /* in that state */
	uint64_t probe_ns; /* open: when the next probe is due */
	uint32_t probes;   /* ordered since it opened */
};

/* True if it may go from the one to the other in one step. */
bool breaker_may(enum breaker_state from, enum breaker_state to);

/* Failures in a row have opened it; it was closed. */
void breaker_open(struct breaker *b, uint64_t now_ns);
/* It answered a SYN, or it was another's fault; it was open. */
void breaker_close(struct breaker *b, uint64_t now_ns);
/* True: a probe is due, and is counted as ordered; the next one is planned. */
bool breaker_probe(struct breaker *b, uint64_t now_ns, uint32_t chance);
/* When there is something to do next; UINT64_MAX: not by itself. */
uint64_t breaker_due_ns(const struct breaker *b);

#define BREAKER_EVIDENCE_LEN 160
/* "5 SYNs in a row refused", "5 SYNs in a row failed: 2 unanswered, 3 refused" */
void breaker_evidence(const struct streak *s, char *out, size_t size);
