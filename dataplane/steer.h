/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Steering: which worker owns a packet. owner() is a pure function frozen at start; NIC queues are only expected to
 * agree with it, and where they do not, the packet is handed over.
 */
#pragma once

#include "core.h"

#include <rte_ring.h>

#define HANDOVER_RING 1024 /* packets of a class from one worker to another */

/* Decides owners, and hands over what is not ours; such items end with VERDICT_handed_over or its failure. */
void steer_burst(struct worker *w, struct burst *b);

/* Takes up to `n` packets that others handed to this worker. */
unsigned steer_take(struct worker *w, enum rx_class class, struct rte_mbuf **m, unsigned n);
/* True if another worker's packet waits. */
bool steer_pending(const struct worker *w);
/* rte_ring_empty() with atomic loads: the giver may be at work. */
static inline bool ring_is_empty(const struct rte_ring *ring)
{
	return __atomic_load_n(&ring->prod.tail, __ATOMIC_RELAXED) ==
	       __atomic_load_n(&ring->cons.tail, __ATOMIC_RELAXED);
}

/* Wakes the worker if it sleeps: after something was put where it looks before it goes to sleep. */
void worker_wake(struct worker *w);
