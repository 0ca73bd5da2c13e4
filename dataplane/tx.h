/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames gather per port and go at the end of the loop, or when the buffer is full.
 */
#pragma once

#include "core.h"

/* Gives the port what has gathered. What the device does not take is lost here, and counted as the device's. */
void tx_give(struct worker *w, unsigned port);

static inline void tx_put(struct worker *w, unsigned port, struct rte_mbuf *m)
{
	struct tx_buffer *tx = &w->tx[port];

	tx->m[tx->n++] = m;
	if (__builtin_expect(tx->n == TX_BUFFER, 0))
		tx_give(w, port);
}

/* Gives everything to the ports and makes it go. */
void tx_flush(struct worker *w);
