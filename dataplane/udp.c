/* SPDX-License-Identifier: BSD-3-Clause */
#include "udp.h"
#include "outcome_worker.h"
#include "signals.h"
#include "tcp.h"

#define PORT_DNS 53
#define CLOSING  1 /* in `probes` of DIR_UP, as UDP has none */

static uint16_t vip_port_be(const struct worker *w, flow_ref ref)
{
	flow_ref up = flow_ref_up(ref);

	return flow_ref_is_v6(up) ? flow_half6(&w->flows, up)->in.dport_be : flow_half4(&w->flows, up)->in.dport_be;
}

uint32_t udp_timeout_ms(const struct worker *w, flow_ref ref, enum flow_state state,
			const struct policy_timeouts *timeouts)
{
	bool dns = vip_port_be(w, ref) == htons(PORT_DNS);

	if (state == FLOW_UDP_UNREPLIED)
		return dns ? timeouts->dns_unreplied_ms : timeouts->udp_unreplied_ms;
	return dns ? timeouts->dns_replied_ms : timeouts->udp_replied_ms;
}

/* --- one reply to each query: such a flow stays unreplied until it has nothing to wait for --- */

static bool is_oneshot(const struct policy *policy, const struct flow_track *track)
{
	const struct policy_service *svc = policy_service_at(policy, track->service_slot);

	return svc && svc->udp_oneshot;
}

/* With the next tick of the wheel. A query that comes until then finds it still there. */
static void close_soon(struct worker *w, flow_ref up)
{
	flow_track(&w->flows, up)->timeout_ms = 0;
	flow_half(&w->flows, up)->probes = CLOSING;
	wheel_move(&w->wheel, &w->flows, up, w->run_ms);
}

/* A longer timeout is noticed when the slot comes. */
static void reopen(struct worker *w, flow_ref up, const struct policy *policy)
{
	struct flow_track *track = flow_track(&w->flows, up);

	flow_half(&w->flows, up)->probes = 0;
	track->timeout_ms = udp_timeout_ms(w, up, FLOW_UDP_UNREPLIED, flow_timeouts(policy, track));
}

static void on_reply(struct worker *w, flow_ref down, const struct policy *policy)
{
	flow_ref up = flow_ref_up(down);
	const struct flow_track *track = flow_track(&w->flows, down);
	uint32_t n_queries = flow_half(&w->flows, up)->end, n_replies = flow_half(&w->flows, down)->end;

	/* One too many answers nothing that is yet to be asked. */
	if (n_replies > n_queries)
		flow_half(&w->flows, down)->end = n_queries;
	if (n_replies == 1) {
		count_add(&w->backends[track->backend_slot].connects, 1);
		signals_decide(w, down, SIGNAL_SUCCESS);
		outcome_flow(w, down, OUTCOME_ATTEMPT(ATTEMPT_connected));
	}
	if (!is_oneshot(policy, track))
		flow_set_state(w, down, FLOW_UDP_REPLIED, policy);
	else if (n_replies >= n_queries)
		close_soon(w, up);
}

void udp_track_unreplied(struct worker *w, const struct item *it, const struct policy *policy)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);

	half->end++;
	if (flow_ref_dir(it->ref) == DIR_DOWN)
		on_reply(w, it->ref, policy);
	else if (half->probes == CLOSING)
		reopen(w, it->ref, policy);
}

/* --- no checksum over IPv6 (RFC 6935) --- */

enum verdict udp_parse_zero(struct item *it)
{
	return parse_udp6_zero(it->frame, it->m->data_len, &it->p);
}

/* A flow whose service a reload removed goes on as it was born. */
static bool is_flow_allowed(const struct policy *policy, const struct flow_track *track)
{
	const struct policy_service *svc = policy_service_at(policy, track->service_slot);

	return svc ? svc->udp6_zero : !!(track->marks & FLOW_MARK_UDP6_ZERO);
}

/* Any worker may get its packets first. */
void udp_begin_zero(struct worker *w, struct flow_track *track)
{
	track->marks |= FLOW_MARK_UDP6_ZERO;
	if (!__atomic_load_n(&w->cells->udp6_zero, __ATOMIC_RELAXED))
		__atomic_store_n(&w->cells->udp6_zero, true, __ATOMIC_RELAXED);
}

bool udp_may_be_zero(const struct worker *w, const struct policy *policy)
{
	return policy->udp6_zero || __atomic_load_n(&w->cells->udp6_zero, __ATOMIC_RELAXED);
}

static bool is_allowed(const struct worker *w, const struct policy *policy, const struct item *it)
{
	const struct policy_listener *listener;
	const struct policy_service *svc;
	struct ipaddr dst;

	if (it->ref != FLOW_REF_NONE)
		return is_flow_allowed(policy, flow_track(&w->flows, it->ref));
	dst = packet_dst(it->frame, &it->p);
	listener = listener_lookup(policy->listeners, &dst, it->p.dport_be, PROTO_UDP);
	svc = listener ? policy_service_at(policy, listener->service_slot) : NULL;
	return svc && svc->udp6_zero;
}

void udp_judge_zero(const struct worker *w, struct burst *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (it->verdict == VERDICT_NONE && it->p.flags & PACKET_UDP6_ZERO && !is_allowed(w, b->policy, it))
			it->verdict = VERDICT_drop_udp6_zero_checksum;
	}
}
