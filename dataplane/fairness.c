/* SPDX-License-Identifier: BSD-3-Clause */
#include "fairness.h"
#include "lookup.h"

#define BURST        10 /* of a share, at once */
#define SECOND       ((uint64_t)1000000000 << GCRA_FRACTION_BITS)
#define OWED_MAX     SECOND /* by who took more */
#define COUNTED_ONCE UINT64_C(1000000000)
#define TURN_OF      8                   /* went, and a stranger that waits is next, whoever waits with him, */
#define TURN_NS      UINT64_C(100000000) /* no more often than that */

/* Shares change, and what was taken of a small one must not look like long ago to a large one: all have one window. */
static struct gcra_rate rate_of(uint64_t interval)
{
	struct gcra_rate rate = gcra_rate_of(interval, BURST);

	rate.window = gcra_rate_of(SECOND, BURST).window;
	return rate;
}

struct fair_shares fair_find(const struct worker *w, const struct slot_ref *service, const struct ipaddr *client)
{
	const struct service_shared *shared = &w->cells->services[service->slot];
	struct fair_shares shares = {.queue = hold_queue_at(service->slot, !ipaddr_is_v4(client))};

	for (enum fair_level level = 0; level < FAIR_LEVELS; level++) {
		const struct client_table *table = &w->dp->shares[level];
		uint64_t interval = __atomic_load_n(&shared->share_intervals[level], __ATOMIC_RELAXED);

		if (!interval)
			continue;
		shares.at[level].rate = rate_of(interval);
		shares.at[level].tag = client_tag(table, service, client);
		shares.at[level].cell = client_lookup(table, shares.at[level].tag);
	}
	return shares;
}

static bool is_within(const struct worker *w, const struct fair_shares *shares, enum fair_level level)
{
	const struct gcra *bucket = shares->at[level].cell.bucket;

	return !bucket || gcra_test(bucket, &shares->at[level].rate, w->now_ns);
}

enum hold_rank fair_rank(const struct worker *w, const struct fair_shares *shares, const struct slot_ref *service,
			 const struct ipaddr *client)
{
	uint64_t tag = shares->at[FAIR_CLIENT].tag;

	if (!is_within(w, shares, FAIR_NETWORK))
		return RANK_NETWORK_BEYOND;
	if (!is_within(w, shares, FAIR_CLIENT))
		return RANK_CLIENT_BEYOND;
	if (!tag)
		tag = client_tag(&w->dp->shares[FAIR_CLIENT], service, client);
	/* The same tag: both tables know a client by its address, or its /64. */
	return credits_served_lately(&w->dp->credits, tag, w->now_ns) ? RANK_KNOWN : RANK_STRANGER;
}

static struct client_cell find_or_claim(struct worker *w, const struct fair_shares *shares, enum fair_level level)
{
	struct client_cell cell = shares->at[level].cell;

	return cell.bucket ? cell : client_claim(&w->dp->shares[level], shares->at[level].tag, w->now_ns);
}

static void owe(struct worker *w, const struct client_cell *cell, const struct fair_shares *shares,
		enum fair_level level)
{
	if (cell->bucket)
		gcra_owe(cell->bucket, &shares->at[level].rate, OWED_MAX, w->now_ns);
}

void fair_take(struct worker *w, const struct fair_shares *shares, flow_ref up)
{
	struct client_cell cell;
	bool at_once;

	/* Decide writes one after the other. */
	if (!shares->at[FAIR_CLIENT].rate.interval || !shares->at[FAIR_NETWORK].rate.interval)
		return;
	at_once =
		up == FLOW_REF_NONE || (is_within(w, shares, FAIR_CLIENT) &&
					credits_served_lately(&w->dp->credits, shares->at[FAIR_CLIENT].tag, w->now_ns));
	w->holds.queues[shares->queue].taken++;
	cell = find_or_claim(w, shares, FAIR_CLIENT);
	owe(w, &cell, shares, FAIR_CLIENT);
	if (up != FLOW_REF_NONE)
		flow_track(&w->flows, up)->owes = !at_once;
	if (!at_once)
		return;
	cell = find_or_claim(w, shares, FAIR_NETWORK);
	owe(w, &cell, shares, FAIR_NETWORK);
}

bool fair_is_strangers_turn(const struct worker *w, uint32_t queue)
{
	const struct hold_queue *q = &w->holds.queues[queue];

	return q->taken >= TURN_OF && w->now_ns - q->turn_ns >= TURN_NS &&
	       hold_is_queued_of(&w->holds, queue, RANK_STRANGER);
}

void fair_stranger_went(struct worker *w, uint32_t queue)
{
	w->holds.queues[queue].taken = 0;
	w->holds.queues[queue].turn_ns = w->now_ns;
}

/* Of two workers at the same moment one counts it, and none whose clock is behind the other's. */
static void count_active(struct worker *w, struct service_shared *shared, const struct client_cell *cell,
			 enum fair_level level)
{
	uint64_t counted_ns = atomic_load_explicit(cell->counted_ns, memory_order_relaxed);

	if (w->now_ns >= counted_ns + COUNTED_ONCE &&
	    atomic_compare_exchange_strong_explicit(cell->counted_ns, &counted_ns, w->now_ns, memory_order_relaxed,
						    memory_order_relaxed))
		__atomic_fetch_add(&shared->active[level], 1, __ATOMIC_RELAXED);
}

void fair_connected(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);
	uint32_t slot = track->service_slot;
	const struct policy_service *svc = policy_service_at(w->burst.policy, slot);
	struct fair_shares shares;
	struct flow_addrs addrs;
	bool owes = track->owes;

	track->owes = 0;
	/* Its service may be gone. */
	if (!svc || flow_half(&w->flows, ref)->udp)
		return;
	flow_addrs(&w->flows, flow_ref_up(ref), &addrs);
	shares = fair_find(w, &svc->ref, &addrs.client);
	for (enum fair_level level = 0; level < FAIR_LEVELS; level++) {
		struct client_cell cell;

		if (!shares.at[level].rate.interval)
			continue;
		cell = find_or_claim(w, &shares, level);
		if (!cell.bucket)
			continue;
		count_active(w, &w->cells->services[slot], &cell, level);
		if (level == FAIR_NETWORK && owes)
			owe(w, &cell, &shares, level);
	}
}
