/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wall on the packet path: what SYNs and their answers say of a backend, and what becomes of a SYN that has failed.
 *
 * Each SYN that a flow sends to a backend is watched until it is answered, refused, or silent for too long. A failure
 * is counted in the backend's streak; too many in a row open its breaker, here and at once (decide confirms). The flow
 * itself is given to another backend, once, before its client learns anything; when a breaker opens, all flows that
 * wait for that backend are. From the handshake on a flow has nothing to do with any of this.
 */
#pragma once

#include "action.h"
#include "core.h"
#include "streak.h"

/* In flow_track's `wall`; all 0 where the cure is off. */
enum wall_flag {
	WALL_WATCHED = 1 << 0, /* timeout_ms is that of its SYN, not that of its state */
	WALL_WAITING = 1 << 1, /* in its backend's list of flows that could go elsewhere */
	WALL_SPENT = 1 << 2,   /* was given to another backend, and is not once more; or never is */
	WALL_BLAMED = 1 << 3,  /* its SYN was counted against the backend that has it now; or never is */
};

/* --- a new flow --- */

/* The backend for `it`, of a set that is not empty; NULL: it is to be refused. */
const struct policy_backend *wall_choose(struct worker *w, const struct policy *policy,
					 const struct policy_service *svc, const struct policy_set *set,
					 const struct item *it);
/* It was placed, as that flow or, FLOW_REF_NONE, not at all. */
void wall_placed(struct worker *w, flow_ref up);
/* Whether the backend of a flow that is over takes the client's next SYN, too, where that follows at once. */
bool wall_takes_again(struct worker *w, const struct policy *policy, const struct policy_service *svc,
		      const struct item *it);
/* The breakers of all backends of `set`, which is not empty, are open: there is nothing to wait for. */
bool wall_is_shut(const struct worker *w, const struct policy *policy, const struct policy_set *set, uint64_t hash);
/* It sends its client's SYN now: sets timeout_ms. Its timer is the caller's to move. */
void wall_begin(struct worker *w, const struct item *syn);
/* The same for a SYN that was made again. */
void wall_watch(struct worker *w, flow_ref up);

/* --- what comes of the SYN; `up`: in state FLOW_SYN_SENT --- */

/* It was answered. */
void wall_answered(struct worker *w, flow_ref up);
/* It was refused. True: the flow has another backend now, and what said so is not for the client. */
bool wall_failed(struct worker *w, flow_ref up, enum connect_failure kind);
/* Its time has come, and it is off the wheel. True: it lives on, with a timeout that lies ahead. */
bool wall_due(struct worker *w, flow_ref up);

/* --- what comes of its exchanges --- */

/* It began before its backend was open last: one that was restarted resets such flows, which says nothing of it now. */
bool wall_predates(const struct worker *w, flow_ref ref);
/* Its backend reset it instead of a response; `network`: a hash of its client's, never 0. */
void wall_response_failed(struct worker *w, flow_ref ref, uint32_t network);
/* What its backend said in that time may have been lost here, or nothing reached it. */
bool wall_is_deaf(struct worker *w, flow_ref up, uint32_t age_ms);
/* Its backend is silent to data. */
void wall_stalled(struct worker *w, flow_ref ref);
/* Decide is to look at that backend. */
void wall_tell(struct worker *w, uint32_t slot);

/* Its client sent a SYN once more, perhaps another one. */
void wall_again(struct worker *w, const struct item *syn);
/* Its backend has two SYNs of it and may answer either: from now on it is not given to another one. */
void wall_stay(struct worker *w, flow_ref up);

/* A SYN of it, or an answer, passes: that refreshes the flow, but the first one's deadline stays. */
static inline void wall_keep_deadline(const struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);
	uint32_t idle_ms = flow_idle_ms(&w->flows, ref, w->run_ms);

	if (track->wall & WALL_WATCHED)
		track->timeout_ms -= idle_ms < track->timeout_ms ? idle_ms : track->timeout_ms;
}

/* The rest of wall_leave(). */
void wall_stop_waiting(struct worker *w, flow_ref ref);

/* It leaves FLOW_SYN_SENT, for whatever state or reason. */
static inline void wall_leave(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	if (track->wall & WALL_WAITING)
		wall_stop_waiting(w, ref);
	track->wall = 0;
}

/* --- backends --- */

/* What a SYN's silence is of. */
enum syn_silence_of {
	SILENCE_OF_BACKEND,
	SILENCE_OVERLOAD, /* it speaks, only not to new flows */
	SILENCE_OF_SIDE,  /* there is no way to it, or its whole side is silent */
	SILENCE_UNKNOWN,  /* the gateway may have missed the answer, or never sent the SYN */
};

/* Of a SYN of the gateway's own; `doubts`: how often that was not known. */
enum syn_silence_of wall_judge_probe(struct worker *w, const struct tuple *t, uint8_t *doubts);
/* Such a SYN failed, and counts. */
void wall_check_failed(struct worker *w, const struct tuple *t, enum connect_failure kind);

/* How long a SYN to the backend may stay unanswered. */
uint32_t wall_syn_timeout_ms(const struct backend_cell *cell);
/* A packet of the backend came `ago_ms` ago. */
void wall_heard(struct worker *w, uint32_t slot, uint32_t ago_ms);
/* Anything came of the backend within that time, to any worker, as far as that is kept. */
bool wall_heard_since(const struct worker *w, uint32_t slot, uint32_t age_ms);
/* A packet of a flow passes. Whatever a backend has to say while a SYN waits for it, it is not silent. */
static inline void wall_hear(struct worker *w, flow_ref ref)
{
	if (flow_ref_dir(ref) == DIR_DOWN && flow_half(&w->flows, ref)->state == FLOW_SYN_SENT)
		wall_heard(w, flow_track(&w->flows, ref)->backend_slot, 0);
}

/* It answered a SYN of ours after that time. */
void wall_heard_answer(struct worker *w, uint32_t slot, uint32_t took_ms);

/* Once per loop: orders, breakers that opened, tuples whose time is over. Returns 0 if nothing is left to do. */
unsigned wall_run(struct worker *w);
