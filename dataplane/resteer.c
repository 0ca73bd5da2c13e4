/* SPDX-License-Identifier: BSD-3-Clause */
#include "resteer.h"
#include "numbers.h"
#include "outcome_worker.h"
#include "place.h"
#include "rewrite.h"
#include "signals.h"
#include "stray.h"
#include "syn.h"
#include "tx.h"
#include "wall.h"

#include <rte_mbuf.h>

static bool rekey(struct worker *w, flow_ref up, const struct policy_backend *to, unsigned snat, uint16_t port_be)
{
	if (flow_ref_is_v6(up)) {
		struct flow_key6 down = place_down6(w, to, snat, port_be);

		return flow_rekey6(&w->flows, up, &down);
	}
	struct flow_key4 down = place_down4(w, to, snat, port_be);

	return flow_rekey4(&w->flows, up, &down);
}

static struct tuple ghost_of(const struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);
	struct flow_addrs a;

	flow_addrs(&w->flows, up, &a);
	return (struct tuple){
		.kind = TUPLE_GHOST,
		.backend = a.backend,
		.backend_port_be = a.backend_port_be,
		.snat_port_be = a.snat_port_be,
		.snat_index = track->snat_index,
		.backend_slot = track->backend_slot,
		.isn = numbers_of_syn(w, up).isn,
		.syn_ms = track->syn_ms,
		.born_ms = w->run_ms,
	};
}

/* The old backend's part ends here, and the new one's begins. */
static void change_backend(struct worker *w, flow_ref up, uint32_t to_slot)
{
	struct flow_track *track = flow_track(&w->flows, up);
	struct backend_cell *from = &w->backends[track->backend_slot], *to = &w->backends[to_slot];

	flow_roll_up(w, up);
	count_add(&from->failures, 1);
	count_add(&from->resteered, 1);
	count_add(&to->users, 1);
	count_add(&to->new_flows, 1);
	place_leave_slot(&from->users);
	track->backend_slot = to_slot;
}

void resteer_send_syn(struct worker *w, flow_ref up, enum made kind)
{
	struct syn syn;
	struct item it;

	syn_of_flow(&w->flows, up, &syn);
	if (!syn_make(w, &syn, &it))
		return;
	it.ref = up;
	if (rewrite_item(w, &w->burst, &it) != VERDICT_forwarded) {
		rte_pktmbuf_free(it.m);
		return;
	}
	w->ledger.made[kind]++;
	tx_put(w, it.out_port, it.m);
}

bool resteer(struct worker *w, flow_ref up, const struct policy_backend *to)
{
	struct flow_track *track = flow_track(&w->flows, up);
	struct tuple ghost = ghost_of(w, up);
	uint16_t port_be;
	unsigned snat;

	if (!place_take_port(w, !flow_ref_is_v6(up), flow_cold(&w->flows, up)->hash[DIR_UP], to->ref.slot, &snat,
			     &port_be))
		return false;
	if (!rekey(w, up, to, snat, port_be)) {
		snat_give_back(&w->snat, snat, to->ref.slot, port_be);
		return false;
	}
	outcome_moved(w, up);
	wall_leave(w, up);
	signals_move(w, up, &ghost);
	stray_keep(w, &ghost);
	change_backend(w, up, to->ref.slot);
	track->snat_index = snat;
	track->snat_port_be = port_be;
	track->wall = WALL_SPENT;
	track->marks &= ~FLOW_MARK_ASSISTED;
	numbers_begin(w, up, NULL);
	signals_begin(w, up);
	wall_watch(w, up);
	flow_half(&w->flows, up)->last_ms = w->run_ms;
	resteer_send_syn(w, up, MADE_syn_resteer);
	return true;
}
