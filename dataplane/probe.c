/* SPDX-License-Identifier: BSD-3-Clause */
#include "probe.h"
#include "action.h"
#include "hash.h"
#include "numbers.h"
#include "place.h"
#include "route.h"
#include "stray.h"
#include "syn.h"
#include "tx.h"
#include "wall.h"

#include <rte_mbuf.h>
#include <rte_tcp.h>

#define PROBE_TTL      64
#define PROBE_WINDOW   65535
#define OPTION_MSS     2
#define CHECK_AGAIN_MS 1000 /* where its answer may have been lost */

/* Ahead of what left from the tuple before, as a client's would be. */
static uint32_t probe_isn(const struct worker *w, const struct order *o, const struct tuple *t)
{
	const struct policy_backend backend = {.addr = o->addr, .port_be = o->port_be};

	if (ipaddr_is_v4(&o->addr)) {
		struct flow_key4 down = place_down4(w, &backend, t->snat_index, t->snat_port_be);

		return numbers_isn(w, &down, sizeof(down));
	}
	struct flow_key6 down = place_down6(w, &backend, t->snat_index, t->snat_port_be);

	return numbers_isn(w, &down, sizeof(down));
}

static struct syn syn_from(const struct worker *w, const struct tuple *t, uint16_t mtu)
{
	uint16_t mss = mtu - (ipaddr_is_v4(&t->backend) ? sizeof(struct rte_ipv4_hdr) : sizeof(struct rte_ipv6_hdr)) -
		       sizeof(struct rte_tcp_hdr);

	return (struct syn){
		.src = w->dp->snat.addr[t->snat_index],
		.dst = t->backend,
		.sport_be = t->snat_port_be,
		.dport_be = t->backend_port_be,
		.kept =
			{
				.options = {OPTION_MSS, 4, mss >> 8, mss & 0xff},
				.options_len = 4,
				.tcp_flags = TCP_SYN,
				.ttl = PROBE_TTL,
				.window_be = htons(PROBE_WINDOW),
				.isn = t->isn,
			},
	};
}

static bool send_syn(struct worker *w, const struct tuple *t)
{
	struct fib_hop hop;
	struct item it;
	struct syn syn;
	uint16_t mtu;

	if (route_address(w, &w->burst, &t->backend, t->isn, &hop, &mtu) != VERDICT_NONE)
		return false;
	syn = syn_from(w, t, mtu);
	if (!syn_make(w, &syn, &it))
		return false;
	route_put_l2(&it, &hop);
	w->ledger.made[MADE_syn_probe]++;
	tx_put(w, it.out_port, it.m);
	return true;
}

/* --- checks --- */

static void watch(struct worker *w, uint32_t position, uint32_t timeout_ms, uint8_t doubts)
{
	struct checks *c = &w->wall.checks;
	uint32_t due_ms = (uint32_t)w->run_ms + timeout_ms;

	if (!c->n || (int32_t)(due_ms - c->due_ms) < 0)
		c->due_ms = due_ms;
	c->of[c->n++] = (struct check){.position = position, .due_ms = due_ms, .doubts = doubts};
}

/* One that was answered, or counted, is settled; one that gave way is nothing. */
static struct tuple *unsettled(const struct worker *w, const struct check *check)
{
	struct tuple *t = tuples_at(&w->tuples, check->position);

	return t && t->limit && !t->answered ? t : NULL;
}

/* True: it is to be judged again. */
static bool judge_check(struct worker *w, struct check *check)
{
	struct tuple *t = unsettled(w, check);

	if (!t)
		return false;
	switch (wall_judge_probe(w, t, &check->doubts)) {
	case SILENCE_UNKNOWN:
		return true;
	case SILENCE_OVERLOAD:
		count_add(&w->backends[t->backend_slot].overloads, 1);
		break;
	case SILENCE_OF_BACKEND:
		probe_check_failed(w, t, CONNECT_SILENT);
		break;
	case SILENCE_OF_SIDE:
		break;
	}
	return false;
}

void probe_judge_checks(struct worker *w)
{
	struct checks all = w->wall.checks;

	w->wall.checks.n = 0;
	for (unsigned i = 0; i < all.n; i++) {
		struct check *check = &all.of[i];
		bool due = (int32_t)((uint32_t)w->run_ms - check->due_ms) >= 0;

		if (!due)
			watch(w, check->position, check->due_ms - (uint32_t)w->run_ms, check->doubts);
		else if (judge_check(w, check))
			watch(w, check->position, CHECK_AGAIN_MS, check->doubts);
	}
}

void probe_check_failed(struct worker *w, struct tuple *t, enum connect_failure kind)
{
	if (!t->limit || t->answered)
		return;
	wall_check_failed(w, t, kind);
	t->limit = 0;
}

/* --- orders --- */

/* False: there was no port, no way or no buffer; the next order comes soon. */
static bool probe(struct worker *w, const struct order *o)
{
	uint64_t hash = hash_keyed(o->addr.b, sizeof(o->addr.b), w->dp->config.secret);
	struct tuple t = {
		.kind = TUPLE_PROBE,
		.backend = o->addr,
		.backend_port_be = o->port_be,
		.backend_slot = o->slot,
		.limit = o->kind == ORDER_CHECK ? o->limit : 0,
		.syn_ms = CLOCK_MS(w->now_ns),
		.born_ms = w->run_ms,
	};
	unsigned snat;

	if (!place_take_port(w, ipaddr_is_v4(&o->addr), hash, o->slot, &snat, &t.snat_port_be))
		return false;
	t.snat_index = snat;
	t.isn = probe_isn(w, o, &t);
	if (!send_syn(w, &t)) {
		snat_give_back(&w->snat, snat, o->slot, t.snat_port_be);
		return false;
	}
	stray_keep(w, &t);
	if (t.limit)
		watch(w, tuples_last(&w->tuples), wall_syn_timeout_ms(&w->backends[o->slot]), 0);
	count_add(&w->backends[o->slot].probes, 1);
	return true;
}

void probe_run(struct worker *w, const struct order *order)
{
	enum cure_mode mode = w->burst.policy->modes.of[CURE_WALL];
	bool check = order->kind == ORDER_CHECK;

	if (mode == CURE_ENFORCE && check && w->wall.checks.n == CHECKS_MAX)
		return;
	if (mode != CURE_ENFORCE || probe(w, order))
		(void)action_due(w, mode, check ? ACTION_check : ACTION_probe);
}
