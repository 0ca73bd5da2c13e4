/* SPDX-License-Identifier: BSD-3-Clause */
#include "retry.h"
#include "budget.h"
#include "outcome_worker.h"

#include <rte_tcp.h>

static bool is_tcp(const struct item *it)
{
	return it->p.proto == PROTO_TCP;
}

static uint32_t isn_of(const struct item *it)
{
	const struct rte_tcp_hdr *tcp = (const void *)(it->frame + it->p.l4_off);

	return ntohl(tcp->sent_seq);
}

static uint64_t tag_of(const struct worker *w, const struct policy_service *svc, const struct ipaddr *client)
{
	return client_tag(&w->dp->clients, &svc->ref, client);
}

static uint64_t tag_of_item(const struct worker *w, const struct policy_service *svc, const struct item *it)
{
	struct ipaddr client = packet_src(it->frame, &it->p);

	return tag_of(w, svc, &client);
}

/* False: it has none any more, for its service is gone. */
static bool tag_of_flow(const struct worker *w, flow_ref ref, uint64_t *tag)
{
	const struct policy_service *svc = policy_service_at(w->burst.policy, flow_track(&w->flows, ref)->service_slot);
	struct flow_addrs addrs;

	if (!svc)
		return false;
	flow_addrs(&w->flows, flow_ref_up(ref), &addrs);
	*tag = tag_of(w, svc, &addrs.client);
	return true;
}

/* 0: the budget is not enforced. */
static uint32_t cap_of(const struct worker *w, uint32_t service_slot)
{
	return __atomic_load_n(&w->cells->services[service_slot].budget_cap, __ATOMIC_RELAXED);
}

static bool has_token(const struct worker *w, uint32_t service_slot, uint32_t cap)
{
	return budget_has(&w->cells->services[service_slot].budget, cap, w->now_ns);
}

/* --- before --- */

void retry_begin(struct worker *w, const struct policy_service *svc, struct item *it)
{
	struct refused_syn before;

	it->attempt = 0;
	if (!is_tcp(it) || w->burst.policy->modes.of[CURE_STORM] == CURE_OFF ||
	    !refused_lookup(&w->refused, it->hash, isn_of(it), &before, CLOCK_MS(w->now_ns))) {
		count_add(&w->services[svc->ref.slot].attempts, 1);
		return;
	}
	it->attempt = ATTEMPT_REPEATED | (before.retry ? ATTEMPT_RETRY : 0);
	if (before.credited)
		credits_take(&w->dp->credits, tag_of_item(w, svc, it), w->now_ns);
}

void retry_went_on(struct worker *w, const struct policy_service *svc, const struct item *it)
{
	if (it->attempt & ATTEMPT_REPEATED)
		count_add(&w->services[svc->ref.slot].attempts, 1);
}

enum retry_class retry_classify(struct worker *w, const struct policy_service *svc, struct item *it,
				enum cure_mode mode)
{
	if (!is_tcp(it))
		return RETRY_NONE;
	if (!cap_of(w, svc->ref.slot))
		return RETRY_FIRST;
	if (it->attempt & ATTEMPT_REPEATED)
		return it->attempt & ATTEMPT_RETRY ? RETRY_AGAIN : RETRY_FIRST;
	if (!credits_take(&w->dp->credits, tag_of_item(w, svc, it), w->now_ns))
		return RETRY_FIRST;
	if (mode == CURE_ENFORCE)
		it->attempt |= ATTEMPT_RETRY;
	return RETRY_AGAIN;
}

bool retry_may_go(const struct worker *w, uint32_t service_slot, enum retry_class class)
{
	uint32_t cap = class == RETRY_AGAIN ? cap_of(w, service_slot) : 0;

	return !cap || has_token(w, service_slot, cap);
}

/* --- after --- */

void retry_take(struct worker *w, const struct policy_service *svc, enum retry_class class, flow_ref up, bool replaces)
{
	struct service_shared *shared = &w->cells->services[svc->ref.slot];
	uint32_t cap = cap_of(w, svc->ref.slot);

	if (up != FLOW_REF_NONE) {
		flow_track(&w->flows, up)->retry = class == RETRY_AGAIN;
		flow_track(&w->flows, up)->failed = false;
	}
	if (class == RETRY_AGAIN) {
		count_add(&w->services[svc->ref.slot].retries, 1);
		if (cap)
			budget_spend(&shared->budget, cap, w->now_ns);
	} else if (!replaces) {
		count_add(&w->services[svc->ref.slot].first_attempts, 1);
		if (cap)
			budget_earn(&shared->budget, cap, svc->storm.retry_budget_ppm, w->now_ns);
	}
}

void retry_refused(struct worker *w, uint32_t service_slot, const struct item *it, bool aloud, bool budget)
{
	const struct policy_service *svc = policy_service_at(w->burst.policy, service_slot);
	struct service_cell *cell = &w->services[service_slot];

	if (it->attempt & ATTEMPT_REPEATED)
		count_add(&cell->repeated, 1);
	else
		count_add(aloud ? &cell->refused : &cell->silent, 1);
	if (!svc || !is_tcp(it) || w->burst.policy->modes.of[CURE_STORM] == CURE_OFF)
		return;
	if (!budget)
		credits_add(&w->dp->credits, tag_of_item(w, svc, it), w->now_ns);
	refused_add(&w->refused, it->hash, isn_of(it),
		    (struct refused_syn){.retry = it->attempt & ATTEMPT_RETRY, .credited = !budget},
		    CLOCK_MS(w->now_ns));
}

static bool is_measured(const struct worker *w, flow_ref ref)
{
	return !flow_half(&w->flows, ref)->udp && flow_mode(flow_track(&w->flows, ref), CURE_STORM) != CURE_OFF;
}

void retry_failed(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);
	const struct flow_cold *cold = flow_cold(&w->flows, ref);
	uint64_t tag;

	if (track->failed || !is_measured(w, ref))
		return;
	track->failed = true;
	refused_add(&w->refused, cold->hash[DIR_UP], cold->isn,
		    (struct refused_syn){.retry = track->retry, .credited = true}, CLOCK_MS(w->now_ns));
	if (tag_of_flow(w, ref, &tag))
		credits_add(&w->dp->credits, tag, w->now_ns);
}

void retry_served(struct worker *w, flow_ref ref)
{
	uint64_t tag;

	if (is_measured(w, ref) && tag_of_flow(w, ref, &tag))
		credits_served(&w->dp->credits, tag, w->now_ns);
}

/* --- another backend --- */

bool retry_may_move(struct worker *w, flow_ref up, bool overload)
{
	const struct flow_track *track = flow_track(&w->flows, up);
	uint32_t cap = cap_of(w, track->service_slot);

	if (!cap || !(overload || track->retry) || !is_measured(w, up) || has_token(w, track->service_slot, cap))
		return true;
	return !outcome_action_due(w, up, ACTION_withhold);
}

void retry_moved(struct worker *w, flow_ref up)
{
	uint32_t slot = flow_track(&w->flows, up)->service_slot, cap = cap_of(w, slot);

	if (cap && is_measured(w, up))
		budget_spend(&w->cells->services[slot].budget, cap, w->now_ns);
}
