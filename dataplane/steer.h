/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Steering: which worker owns a packet. owner() is a pure function frozen at start; NIC queues are only expected to
 * agree with it, and where they do not, the packet is handed over.
 */
#pragma once

#include "core.h"

/* Decides owners, and hands over what is not ours; such items end with VERDICT_handed_over or its failure. */
void steer_burst(struct worker *w, struct burst *b);

/* Takes up to `n` packets that others handed to this worker. */
unsigned steer_take(struct worker *w, enum rx_class class, struct rte_mbuf **m, unsigned n);
/* True if another worker's packet waits. */
bool steer_pending(const struct worker *w);
/* Wakes the owner of the packets just given, if it sleeps. */
void worker_wake(struct worker *w);
