/* SPDX-License-Identifier: BSD-3-Clause */
#include "tx.h"

#include <rte_mbuf.h>

void tx_give(struct worker *w, unsigned port)
{
	struct tx_buffer *tx = &w->tx[port];
	unsigned sent = w->dp->ports[port]->ops->tx(w->tx_queue[port], tx->m, tx->n);

	w->ledger.tx += sent;
	if (sent < tx->n) {
		w->ledger.tx_failed += tx->n - sent;
		rte_pktmbuf_free_bulk(&tx->m[sent], tx->n - sent);
	}
	tx->n = 0;
}

void tx_flush(struct worker *w)
{
	for (unsigned port = 0; port < w->dp->n_ports; port++) {
		if (w->tx[port].n)
			tx_give(w, port);
		w->dp->ports[port]->ops->flush(w->tx_queue[port]);
	}
}
