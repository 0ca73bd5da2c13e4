/* SPDX-License-Identifier: BSD-3-Clause */
#include "order.h"
#include "steer.h"

#include <rte_ring.h>

/*
 * An order names a slot, which must not get another owner before the order is done: decide counts those that it gave,
 * the worker those that it is through with, and a slot with any under way counts as used.
 */
bool dataplane_order(struct dataplane *dp, unsigned worker, const struct order *order)
{
	struct worker *w = dp->workers[worker];

	if (rte_ring_sp_enqueue_elem(w->orders, (void *)order, sizeof(*order)))
		return false;
	dp->orders_given[worker]++;
	worker_wake(w);
	return true;
}

bool order_take(struct worker *w, struct order *order)
{
	return rte_ring_sc_dequeue_elem(w->orders, order, sizeof(*order)) == 0;
}

/* With release: what the order led to (a tuple that holds the slot) is seen by who sees that it is done. */
void order_done(struct worker *w)
{
	__atomic_store_n(&w->orders_done, w->orders_done + 1, __ATOMIC_RELEASE);
}

bool order_pending(const struct worker *w)
{
	return !ring_is_empty(w->orders);
}
