/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Retries told apart, and budgeted. A part of the cure `storm`, of TCP alone.
 *
 * What fails gives its client a credit (credits.h), once per attempt:
 *   - what was refused here, by a RST or by silence, whatever for but want of a token (below);
 *   - a SYN that its backend refused, or did not answer in time, and that no other backend takes; of a flow without the
 *     wall, which looks at no SYN's time, one that went unanswered to the end;
 *   - a connection that its backend reset before the first byte of a response, or whose client left without one after
 *     more than twice the usual time (signals.h).
 * What is given to another backend has not failed yet. In shadow, what would have been refused was not.
 *
 * While decide says so (some backend of the service is congested, or its breaker is not closed), a new SYN of a client
 * with a credit takes one, and is a retry. It needs a token of the service's budget (budget.h) beside all else; without
 * one it is refused at once, and never held. What is held spends its token when it is admitted, or finds that there is
 * none any more. Every other attempt that is admitted earns its share of a token.
 *
 * A retry without a token has used up its credit and gets none for that. Else one credit would go on from retry to
 * retry, and from the last of them to whatever its client, or another one behind the same address, asks next: where few
 * addresses have many users all would be retries before long, for good, while the upstream has nothing to do. (In the
 * lab, 20 addresses, 250 requests a second, 20 retries each, after a stall: 27 and 425 answers by turns.) So who tries
 * again at once is refused here every second time at least, and goes the way of first attempts the other time.
 *
 * A SYN with the five-tuple and number of an earlier one is no other attempt: what has a flow or is held never gets
 * here, and of what failed the SYN is remembered for a minute (refused.h). Such a repeat takes back the credit that the
 * failure gave, if it did, is what it was, first attempt or retry, and if it is refused again, that gives the credit
 * again, and is not counted once more among the service's attempts and refusals, but apart. Only when it is admitted or
 * held after all, it is counted as another attempt.
 *
 * Giving a SYN to another backend spends a token, too, while there is one. For want of one it is not done for a retry,
 * nor where the silent backend is alive and has too much to do, for then the others will soon have, too. But a first
 * attempt whose backend is dead is given to another one in any case: that no client hears of one dead backend of
 * several is the wall's promise, these are the SYNs of a second at the most until its breaker opens, each once, and a
 * gateway that has just started has earned no tokens for them yet.
 *
 * A half-open backend is tried by first attempts; by a retry if nobody else came for a tenth of a second, for where
 * a whole service was out, nobody comes who is none.
 */
#pragma once

#include "core.h"

/* In the `attempt` of struct item, of a first packet. */
enum attempt_flag {
	ATTEMPT_REPEATED = 1 << 0, /* its SYN was refused before */
	ATTEMPT_RETRY = 1 << 1,    /* it is a retry, and treated as such */
};

enum retry_class {
	RETRY_NONE, /* storm is off, or it is not TCP */
	RETRY_FIRST,
	RETRY_AGAIN,
};

/* --- before it is admitted or not --- */

/* A first packet that nothing has absorbed: sets it->attempt, and counts it as an attempt unless it is a repeat. */
void retry_begin(struct worker *w, const struct policy_service *svc, struct item *it);
/* It was admitted, or is held: repeated or not, it counts. */
void retry_went_on(struct worker *w, const struct policy_service *svc, const struct item *it);
/* Takes its client's credit, if it needs and has one. `mode`: of storm, not off. */
enum retry_class retry_classify(struct worker *w, const struct policy_service *svc, struct item *it,
				enum cure_mode mode);
/* Whether there is a token for one of that class, or it needs none; without side effects. */
bool retry_may_go(const struct worker *w, uint32_t service_slot, enum retry_class class);

/* --- what became of it --- */

/*
 * It has its place. `class`: not RETRY_NONE. `up`: its flow; in shadow of a hold FLOW_REF_NONE. `replaces`: the place
 * is that of an attempt that nothing has answered, which has earned already what one does.
 */
void retry_take(struct worker *w, const struct policy_service *svc, enum retry_class class, flow_ref up, bool replaces);
/*
 * It was refused, and that is the service's to count; aloud: its client is told. `budget`: for want of a token.
 */
void retry_refused(struct worker *w, uint32_t service_slot, const struct item *it, bool aloud, bool budget);
/* The attempt that a flow is has failed. Also after it was said already. */
void retry_failed(struct worker *w, flow_ref ref);
/* Its handshake is done. */
void retry_served(struct worker *w, flow_ref ref);

/* --- another backend for its SYN --- */

/* Whether it may have one; if not, that is counted. `overload`: its backend is alive. */
bool retry_may_move(struct worker *w, flow_ref up, bool overload);
/* It has one. */
void retry_moved(struct worker *w, flow_ref up);
