/* SPDX-License-Identifier: BSD-3-Clause */
#include "admit.h"
#include "limit.h"
#include "lookup.h"
#include "outcome_worker.h"
#include "place.h"
#include "pressure.h"
#include "select.h"
#include "stray.h"
#include "tcp.h"
#include "wall.h"

/* A TCP packet in the middle of nothing: the sender is told, except where telling would be wrong. */
static enum verdict stray_tcp(const struct item *it)
{
	return it->p.tcp_flags & TCP_RST ? VERDICT_drop_stray_rst : VERDICT_answer_stray_rst;
}

static bool is_bare_syn(const struct item *it)
{
	return (it->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static enum verdict to_snat(struct worker *w, const struct item *it, unsigned snat)
{
	enum verdict verdict;

	if (it->p.proto == PROTO_UDP)
		return VERDICT_drop_stray_udp;
	verdict = stray_packet(w, it, snat);
	if (verdict != VERDICT_NONE)
		return verdict;
	return is_bare_syn(it) ? VERDICT_drop_snat_syn : stray_tcp(it);
}

static bool may_answer(struct worker *w, const struct item *it)
{
	struct ipaddr client = packet_src(it->frame, &it->p);

	return it->p.proto == PROTO_TCP ? answer_limits_refused(w->limits, &client, w->now_ns)
					: answer_limits_icmp(w->limits, &client, w->now_ns);
}

enum verdict admit_refuse(struct worker *w, uint32_t service_slot, const struct item *it, enum verdict for_tcp,
			  enum verdict for_udp)
{
	bool tcp = it->p.proto == PROTO_TCP;
	enum verdict verdict = tcp ? for_tcp : for_udp;

	if (verdict_info[verdict].class == CLASS_ANSWERED && !may_answer(w, it))
		verdict = tcp ? VERDICT_shed_refused_limit : VERDICT_shed_icmp_limit;
	retry_refused(w, service_slot, it, verdict_info[verdict].class == CLASS_ANSWERED, false);
	return verdict;
}

enum verdict admit_room(struct worker *w, const struct policy_service *svc, const struct item *it)
{
	struct ipaddr client = packet_src(it->frame, &it->p);
	uint32_t service_slot = svc->ref.slot;

	/* A service that is down says so, whether there would be room or not. */
	if (!svc->sets[it->p.family == 6][it->p.proto == PROTO_UDP].n_backends)
		return VERDICT_NONE;
	switch (pressure_ask(w, it->p.family == 6, it->p.proto == PROTO_UDP, &client)) {
	case PRESSURE_ROOM:
		return VERDICT_NONE;
	case PRESSURE_STRANGER:
		return admit_refuse(w, service_slot, it, VERDICT_answer_table_pressed, VERDICT_drop_table_pressed);
	default:
		return admit_refuse(w, service_slot, it, VERDICT_answer_table_full, VERDICT_drop_table_full);
	}
}

/* Names in shadow: the flow began where the first answer pointed. DNS points elsewhere by now; does it for this flow?
 */
static void count_would_follow(struct worker *w, const struct policy_service *svc, const struct item *it)
{
	bool v6 = it->p.family == 6, udp = it->p.proto == PROTO_UDP;
	const struct policy_backend *is = select_backend(&svc->sets[v6][udp], it->hash);
	const struct policy_backend *would = select_backend(&svc->would[v6][udp], it->hash);

	if (!would || !ipaddr_equal(&would->addr, &is->addr) || would->port_be != is->port_be)
		outcome_action_due_at(w, it->ref, CURE_SHADOW, ACTION_follow,
				      flow_track(&w->flows, it->ref)->backend_slot);
}

/*
 * The one that the wall chose may have all the work that it bears, while another has not. One that is tried, or the
 * last resort, is what it is. `*paying_slot`: whose token it takes; in shadow that of the one that would have it.
 */
static const struct policy_backend *choose_with_room(struct worker *w, const struct policy *policy,
						     const struct policy_service *svc, const struct policy_set *set,
						     const struct item *it, const struct policy_backend *chosen,
						     uint32_t *paying_slot)
{
	enum cure_mode mode = policy->modes.of[CURE_STORM];
	const struct policy_backend *spare;
	struct ipaddr client;

	*paying_slot = chosen->ref.slot;
	if (mode == CURE_OFF || it->p.proto != PROTO_TCP ||
	    limit_has_room(w, limit_caps_of(set), chosen->ref.slot, false) ||
	    !select_takes_flows(w->cells, chosen->ref.slot))
		return chosen;
	spare = limit_find(w, set, it->hash, false);
	if (!spare)
		spare = limit_find(w, set, it->hash, true);
	if (!spare || spare == chosen)
		return chosen;
	*paying_slot = spare->ref.slot;
	client = packet_src(it->frame, &it->p);
	return outcome_attempt_due(w, mode, &client, svc->ref.slot, chosen->ref.slot, ACTION_spare) ? spare : chosen;
}

enum verdict admit_serve(struct worker *w, const struct policy *policy, const struct policy_service *svc,
			 struct item *it, const struct storm_caps *caps)
{
	const struct policy_set *set = &svc->sets[it->p.family == 6][it->p.proto == PROTO_UDP];
	const struct policy_backend *backend;
	uint32_t slot = svc->ref.slot, paying_slot;
	enum place_result placed;

	if (!set->n_backends)
		return admit_refuse(w, slot, it, VERDICT_answer_service_down, VERDICT_answer_unreachable);
	backend = wall_choose(w, policy, svc, set, it);
	if (!backend)
		return admit_refuse(w, slot, it, VERDICT_answer_wall_open, VERDICT_answer_wall_unreachable);
	backend = choose_with_room(w, policy, svc, set, it, backend, &paying_slot);
	placed = place(w, it, policy, svc, backend);
	wall_placed(w, placed == PLACE_OK ? it->ref : FLOW_REF_NONE);
	switch (placed) {
	case PLACE_OK:
		storm_take(w, svc, caps, it->ref, paying_slot);
		if (__builtin_expect(svc->would_differ, 0))
			count_would_follow(w, svc, it);
		if (it->p.proto == PROTO_TCP)
			tcp_begin(w, it);
		return VERDICT_NONE;
	case PLACE_TABLE_FULL:
		return admit_refuse(w, slot, it, VERDICT_answer_table_full, VERDICT_drop_table_full);
	default:
		return admit_refuse(w, slot, it, VERDICT_answer_ports_exhausted, VERDICT_drop_ports_exhausted);
	}
}

static enum verdict first_packet(struct worker *w, const struct policy *policy, struct item *it,
				 const struct policy_listener *listener)
{
	const struct policy_service *svc = policy->services[listener->service_slot];
	struct storm_caps caps;
	enum verdict verdict;

	/* It would go no further, so it shall leave nothing behind. */
	if (it->p.ttl <= 1)
		return VERDICT_answer_ttl_exceeded;
	if (storm_absorb(w, it))
		return VERDICT_absorb_held;
	retry_begin(w, svc, it);
	verdict = admit_room(w, svc, it);
	if (verdict == VERDICT_NONE)
		verdict = storm_admit(w, policy, svc, it, &caps);
	if (verdict == VERDICT_NONE)
		verdict = admit_serve(w, policy, svc, it, &caps);
	if (verdict == VERDICT_NONE || verdict == VERDICT_INSIDE)
		retry_went_on(w, svc, it);
	return verdict;
}

enum verdict admit_again(struct worker *w, const struct policy *policy, struct item *it)
{
	struct ipaddr dst = packet_dst(it->frame, &it->p);
	const struct policy_listener *listener = listener_lookup(policy->listeners, &dst, it->p.dport_be, PROTO_TCP);
	const struct policy_service *svc;
	struct storm_caps caps;
	enum verdict verdict;
	uint32_t backend_slot;

	if (!listener)
		return VERDICT_drop_not_ours;
	if (it->p.ttl <= 1)
		return VERDICT_answer_ttl_exceeded;
	svc = policy->services[listener->service_slot];
	retry_begin(w, svc, it);
	if (!wall_takes_again(w, policy, svc, it))
		return admit_refuse(w, svc->ref.slot, it, VERDICT_answer_wall_open, VERDICT_answer_wall_unreachable);
	verdict = storm_admit(w, policy, svc, it, &caps);
	if (verdict != VERDICT_NONE)
		return verdict;
	backend_slot = flow_track(&w->flows, it->ref)->backend_slot;
	storm_take(w, svc, &caps, it->ref, backend_slot);
	retry_went_on(w, svc, it);
	count_add(&w->services[svc->ref.slot].new_flows, 1);
	count_add(&w->backends[backend_slot].new_flows, 1);
	return VERDICT_NONE;
}

static enum verdict admit(struct worker *w, const struct policy *policy, struct item *it)
{
	struct ipaddr src = packet_src(it->frame, &it->p), dst = packet_dst(it->frame, &it->p);
	const struct policy_listener *listener;
	int snat = snat_index(&w->dp->snat, &dst);

	/* What we send never comes back in; an answer to it would. */
	if (is_ours(w, policy, &src))
		return VERDICT_drop_ip_source;
	if (snat >= 0)
		return to_snat(w, it, snat);
	listener = listener_lookup(policy->listeners, &dst, it->p.dport_be, it->p.proto);
	if (!listener)
		return VERDICT_drop_not_ours;
	if (it->p.proto == PROTO_TCP && !is_bare_syn(it))
		return stray_tcp(it);
	return first_packet(w, policy, it, listener);
}

/* No packet of the burst keeps the reference of a flow that ended: the entry may be another flow's at once. */
static void forget_flow(struct burst *b, flow_ref ended)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->items[i].ref != FLOW_REF_NONE && (b->items[i].ref ^ ended) <= 1)
			b->items[i].ref = FLOW_REF_NONE;
}

/* Two first packets of one flow in a burst: the first one made the flow. */
static void find_or_admit(struct worker *w, const struct burst *b, struct item *it)
{
	if (it->ref == FLOW_REF_NONE)
		it->ref = flow_find(w, it);
	if (it->ref == FLOW_REF_NONE)
		it->verdict = admit(w, b->policy, it);
}

/*
 * Packets before `it` whose flow just ended, the only ones there without both flow and verdict. They belonged to it, so
 * they are strays now, unless they are SYNs themselves.
 */
static void settle_forgotten(struct worker *w, struct burst *b, const struct item *it)
{
	for (struct item *earlier = b->items; earlier < it; earlier++) {
		if (earlier->verdict != VERDICT_NONE || earlier->ref != FLOW_REF_NONE)
			continue;
		if (is_bare_syn(earlier))
			find_or_admit(w, b, earlier);
		else
			earlier->verdict = admit(w, b->policy, earlier);
	}
}

static void admit_item(struct worker *w, struct burst *b, struct item *it)
{
	flow_ref old;

	find_or_admit(w, b, it);
	if (it->ref == FLOW_REF_NONE || it->verdict != VERDICT_NONE || !tcp_is_reborn(w, it))
		return;
	old = it->ref;
	flow_end(w, old, true);
	forget_flow(b, old);
	it->verdict = admit(w, b->policy, it);
	settle_forgotten(w, b, it);
}

void admit_burst(struct worker *w, struct burst *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (it->verdict == VERDICT_NONE && (it->ref == FLOW_REF_NONE || it->p.tcp_flags & TCP_SYN))
			admit_item(w, b, it);
	}
}
