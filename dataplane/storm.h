/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cure `storm`: caps on new flows, and the ladder for what is beyond them. A TCP attempt is held until it is its
 * turn; if that does not come in time, or it cannot be held, its client gets a RST, as often as the limits allow;
 * beyond those, silence, which makes the client's own kernel wait. A UDP flow goes unanswered at once: its client has
 * no handshake that could be kept waiting, and an ICMP error would say that nobody listens, which is wrong.
 *
 * The same ladder is for what its backends do not bear now: limit.h. Its lower rungs are for retries beyond the
 * service's budget: retry.h.
 *
 * All caps are tested before anything is taken from any of them, and nothing is taken before the flow has its place:
 * whoever is refused leaves every bucket as it was. Tests that need to know the backend come between the two, in
 * admit_serve().
 *
 * In shadow the same is done with descriptors that hold nothing: the buckets are taken from when a held attempt would
 * have been admitted, so that the counts are those of enforce as long as clients send the same.
 */
#pragma once

#include "core.h"
#include "fairness.h"
#include "retry.h"

/* What stands between one attempt and its flow. All zero: nothing does. */
struct storm_caps {
	enum retry_class class;
	struct {
		const struct gcra_rate *rate; /* NULL: no cap */
		struct gcra *bucket;          /* NULL: a client that is not known yet */
		struct gcra_line *line;
		uint64_t tag; /* of the client or prefix */
	} at[STORM_CAPS];
	const struct gcra_rate
		*backend; /* of what its backend is given, as its service says; NULL: no cap, or it is not TCP */
	bool replaces;    /* it takes the place of its flow's SYN that nothing has answered */
	struct fair_shares shares;
};

/*
 * Whether the caps let the attempt through: VERDICT_NONE, and what is to be taken if it gets its place; or what became
 * of it.
 */
enum verdict storm_admit(struct worker *w, const struct policy *policy, const struct policy_service *svc,
			 struct item *it, struct storm_caps *caps);
/* The attempt has its place: that flow (in shadow of a hold FLOW_REF_NONE), and that backend, or SLOT_NONE. */
void storm_take(struct worker *w, const struct policy_service *svc, const struct storm_caps *caps, flow_ref up,
		uint32_t backend_slot);

bool storm_absorb_syn(struct worker *w, const struct item *it);

/* `it`: a first packet. True if its attempt is held already: it ends here. */
static inline bool storm_absorb(struct worker *w, const struct item *it)
{
	return it->p.proto == PROTO_TCP && w->holds.n_real && storm_absorb_syn(w, it);
}

/* Tries those held whose time has come: a bounded number per call. */
void storm_run_due(struct worker *w);

static inline void storm_run(struct worker *w)
{
	if (__builtin_expect(w->holds.n != 0, 0))
		storm_run_due(w);
}

/* The worker has ended: so do its holds, silently, for their clients try again. */
void storm_stop(struct worker *w);
