/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What packets say of a backend, without a look into their payload: did it answer, how soon, and how much of its work
 * is under way.
 *
 * An exchange begins with the first new payload of the client after the handshake, or after payload of the backend, and
 * ends with the next new payload of the backend, its FIN or its RST. Of the time to the first byte only the last new
 * payload of the client counts, and nothing where the client had to send again (Karn). If the client leaves meanwhile,
 * the exchange becomes a zombie: the backend works on, and does not know. An exchange that is open for longer than half
 * a minute is an upload or a log, and no work that is waited for.
 *
 * A connection whose handshake was answered just now is no work yet, but most likely will be as soon as its client has
 * the answer: until somebody says something on it, or for a quarter of a second, or two, it is fresh. Of those who come
 * all at once many would be let in else while the first of them have not asked yet. As long as its client has not
 * finished the handshake, it may be nobody's, sent in the name of a source that is not there: then it never will be
 * work. Such weigh by what became of those before them: of all the time in which handshakes were unfinished of late,
 * the share of those that were finished in the end. So a flood of them takes nobody's place.
 *
 * Flows are measured if wall or storm were not off at their birth. A bit in each half (`watch`) says that its next new
 * payload means something, so that all other packets pay a few instructions, and touch no other line.
 *
 * Durations are of the worker's running clock: backends are not blamed for time in which the worker did not run.
 */
#pragma once

#include "action.h"
#include "core.h"

/* In flow_track's `signals`. */
enum signal_flag {
	SIGNAL_FLAG_MEASURED = 1 << 0,
	SIGNAL_FLAG_WAITING = 1 << 1, /* its SYN is counted as unanswered */
	SIGNAL_FLAG_OPEN = 1 << 2,    /* an exchange is */
	SIGNAL_FLAG_AGAIN = 1 << 3,   /* the client sent again meanwhile: no sample */
	SIGNAL_FLAG_ZOMBIE = 1 << 4,
	SIGNAL_FLAG_GAVE_UP = 1 << 5,  /* the client of a zombie had waited for long */
	SIGNAL_FLAG_ANSWERED = 1 << 6, /* payload of the backend came, ever */
	SIGNAL_FLAG_DECIDED = 1 << 7,  /* its outcome is counted */
	SIGNAL_FLAG_SHUT = 1 << 8,     /* its closed window is counted */
	SIGNAL_FLAG_STALLED = 1 << 9,  /* its stall is counted */
	SIGNAL_FLAG_SENT = 1 << 10,    /* what stall_seq names was sent since the backend's last word, */
	SIGNAL_FLAG_RESENT = 1 << 11,  /* and sent twice */
	SIGNAL_FLAG_TRIAL =
		1 << 12, /* a half-open backend is tried by it: trial.h; its generation is in the bits above */
};

#define SIGNAL_GENERATION_SHIFT 13

#define SIGNAL_FRESH_MS         250
#define SIGNAL_ONE_WAY_MS       30000
#define SIGNAL_ZOMBIE_MIN_MS    1000
#define SIGNAL_ZOMBIE_MAX_MS    10000
#define SIGNAL_SHUT_MS          5000
#define SIGNAL_STALL_MS         1000

uint64_t signals_bytes(const struct dataplane_config *config);
/* Returns 0 or -ENOMEM. */
int signals_init(struct signals *s, const struct dataplane_config *config, uint64_t now_ns);
void signals_fini(struct signals *s);

/* --- of a flow's life --- */

/* It sends a SYN to its backend: the first one to that, or of a new life of its tuple. Its life before is over. */
void signals_begin(struct worker *w, flow_ref up);
/* Its half-open backend is tried by it. False: it is not measured, and says nothing. */
bool signals_try(struct worker *w, flow_ref up, uint8_t generation);
/* Its backend answered the SYN. */
void signals_answered(struct worker *w, flow_ref up);
/* Its client acknowledged that. */
void signals_connected(struct worker *w, flow_ref up);
/* It is given to another backend; what may go on at the old one is remembered in `ghost`. */
void signals_move(struct worker *w, flow_ref up, struct tuple *ghost);
/* Its outcome is known, if it was not before. */
void signals_decide(struct worker *w, flow_ref ref, enum signal_outcome outcome);
/* It was counted as another flow too, which ended without an outcome. */
void signals_superseded(struct worker *w, flow_ref ref);
/* The gateway itself ended it: what is open is over. */
void signals_cut(struct worker *w, flow_ref ref);
/* It is over; the last word on its outcome. */
void signals_over(struct worker *w, flow_ref ref);

void signals_stop_waiting(struct worker *w, flow_ref ref);
/* It leaves FLOW_SYN_SENT, or was refused there. */
static inline void signals_leave(struct worker *w, flow_ref ref)
{
	if (flow_track(&w->flows, ref)->signals & SIGNAL_FLAG_WAITING)
		signals_stop_waiting(w, ref);
}

/* A backend answered what is a ghost's now. */
void signals_ghost_answered(struct worker *w, struct tuple *ghost);

/* --- of its packets; `ref` names the direction --- */

/* New payload came in a half that is watched. */
void signals_data(struct worker *w, flow_ref ref);
/* Payload came that is not new. `seq`: of its first byte; `ack`: what it acknowledges. */
void signals_again(struct worker *w, const struct item *it, uint32_t seq, uint32_t ack);
/* A window of nothing came; the half still says what the one before it was. */
void signals_shut(struct worker *w, flow_ref ref);
/* The first FIN of that direction. */
void signals_fin(struct worker *w, flow_ref ref);
/* A RST that its receiver will take, to a connection. */
void signals_reset(struct worker *w, flow_ref ref);

/* How long its client has been waiting for a response, to a quarter of a second; 0: it is not. */
uint32_t signals_waited_ms(const struct worker *w, flow_ref up);

/* --- of its SYN --- */

/* It counts against its backend; once per SYN, which is the caller's to know. */
void signals_fail(struct worker *w, flow_ref up, enum signal_failure failure);

/* The worker did not run for so long; its clock is that of before. */
void signals_stalled(struct worker *w, uint64_t gap_ns);

/* Once per loop. */
void signals_sweep(struct worker *w, uint32_t unit);
static inline void signals_run(struct worker *w)
{
	uint32_t unit = w->now_ns >> SIGNAL_UNIT_SHIFT;

	if (__builtin_expect(unit != w->signals.unit, 0))
		signals_sweep(w, unit);
}
