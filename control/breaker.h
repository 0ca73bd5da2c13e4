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

/* The first probe is due at once: of what was not the backend's fault, or is over, little shall remain. */
#define BREAKER_PROBE_NS       1000000000ull  /* between two probes of an open one, */
#define BREAKER_PROBE_LATER_NS 5000000000ull  /* when it has been open for */
#define BREAKER_PROBE_SOON_NS  60000000000ull /* this long; each +-10 %, so that many do not probe in step */

#define BREAKER_OPEN_NS        5000000000ull  /* how long it stays open, twice as long each time, */
#define BREAKER_OPEN_MAX_NS    60000000000ull /* at the most; +-25 % */
#define BREAKER_HEAL_NS        30000000000ull /* closed for so long, it counts one opening less */
#define BREAKER_ANSWERS        3              /* probes in a row that open the door to real flows */
#define BREAKER_RAMP_NS        30000000000ull
#define BREAKER_RAMP_MIN       10 /* per cent of its flows that it begins with */
#define BREAKER_TRIAL_MIN_NS   1000000000ull
#define BREAKER_TRIAL_MAX_NS   30000000000ull /* what takes longer is no exchange: signals.h */

/* What opened it, which says what it takes to try it again. */
enum breaker_cause {
	BREAKER_CONNECT,  /* SYNs failed: a kernel that answers is news */
	BREAKER_RESPONSE, /* its application failed: that its kernel answers says nothing */
};

/* All zero: closed. */
struct breaker {
	enum breaker_state state;
	enum breaker_cause cause;
	uint64_t since_ns;  /* in that state */
	uint64_t until_ns;  /* open: when its time is over */
	uint64_t probe_ns;  /* open: when the next probe is due */
	uint64_t failed_ns; /* ramp: the last failure */
	uint32_t openings;  /* of late: what its open time doubles by */
	uint32_t probes;    /* ordered since it opened */
	uint32_t answers;   /* of them in a row, the last ones */
	bool owed;          /* the last one was not answered yet */
	bool barred;        /* its last check failed: what its application's fault opened is not tried */
};

/* True if it may go from the one to the other in one step. */
bool breaker_may(enum breaker_state from, enum breaker_state to);

/* Failures have opened it; it was not open. */
void breaker_open(struct breaker *b, enum breaker_cause cause, uint64_t now_ns, uint32_t chance);
/* It was another's fault: as if it had never opened. */
void breaker_annul(struct breaker *b, uint64_t now_ns);
/* True: a probe is due, and is counted as ordered; the next one is planned. */
bool breaker_probe(struct breaker *b, uint64_t now_ns, uint32_t chance);
/* An open one answered a SYN. */
void breaker_answered(struct breaker *b);
/* A half-open one answered as many real flows as it takes; or a closed one is new to its set, which has others. */
void breaker_ramp(struct breaker *b, uint64_t now_ns);
/* An open one is back after a time in which nothing could be known of it: it is probed at once. */
void breaker_resume(struct breaker *b, uint64_t now_ns);
/* A failure that did not open it. */
void breaker_failed(struct breaker *b, uint64_t now_ns);
/* Takes the step that time brings, open to half-open or ramp to closed; false: it is not due. */
bool breaker_step(struct breaker *b, uint64_t now_ns);
/* The share of its flows that it gets, of 2^32 - 1; all of them but in the ramp. */
uint32_t breaker_share(const struct breaker *b, uint64_t now_ns);
/* Of late: what is closed for long enough heals. */
uint32_t breaker_openings(const struct breaker *b, uint64_t now_ns);
/* When there is something to do next; UINT64_MAX: not by itself. */
uint64_t breaker_due_ns(const struct breaker *b);

/* What an operator may say of it. */
enum breaker_force {
	FORCE_AUTO, /* as what it does says */
	FORCE_OPEN,
	FORCE_CLOSE,
};

extern const char *const breaker_force_name[3]; /* "auto", "open", "close" */

#define BREAKER_EVIDENCE_LEN 160
/*
 * "5 SYNs in a row refused", "5 SYNs in a row failed: 2 unanswered, 3 refused", "…, 4 of them checks"; `checks`: so
 * many or more of them were the gateway's own.
 */
void breaker_evidence(const struct streak *s, uint64_t checks, char *out, size_t size);
