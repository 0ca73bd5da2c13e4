/* SPDX-License-Identifier: BSD-3-Clause */
#include "memport.h"

#include "core.h"

#include <errno.h>
#include <stdlib.h>

#include <rte_mbuf.h>

/* Positions count up for ever; the place is taken modulo the room. */
struct fifo {
	uint32_t head, tail;
	struct rte_mbuf *m[MEMPORT_ROOM];
};

static_assert((MEMPORT_ROOM & (MEMPORT_ROOM - 1)) == 0, "positions wrap with the room");

struct port_queue {
	struct port *port;
	struct fifo in[RX_CLASSES];
	struct fifo out;
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, tx_full, lost[RX_CLASSES], lost_no_buffer;
};

static uint16_t fifo_put(struct fifo *f, struct rte_mbuf *const *m, uint16_t n)
{
	uint32_t room = MEMPORT_ROOM - (f->tail - f->head);

	n = n < room ? n : room;
	for (uint16_t i = 0; i < n; i++)
		f->m[f->tail++ & (MEMPORT_ROOM - 1)] = m[i];
	return n;
}

static uint16_t fifo_get(struct fifo *f, struct rte_mbuf **m, uint16_t n)
{
	uint32_t waiting = f->tail - f->head;

	n = n < waiting ? n : waiting;
	for (uint16_t i = 0; i < n; i++)
		m[i] = f->m[f->head++ & (MEMPORT_ROOM - 1)];
	return n;
}

static uint16_t memport_rx(struct port_queue *q, enum rx_class class, struct rte_mbuf **m, uint16_t n)
{
	n = fifo_get(&q->in[class], m, n);
	for (uint16_t i = 0; i < n; i++) {
		m[i]->port = q->port->index;
		q->rx_bytes += m[i]->data_len;
	}
	q->rx_packets += n;
	return n;
}

static uint16_t memport_tx(struct port_queue *q, struct rte_mbuf **m, uint16_t n)
{
	uint16_t sent = fifo_put(&q->out, m, n);

	for (uint16_t i = 0; i < sent; i++)
		q->tx_bytes += m[i]->data_len;
	q->tx_packets += sent;
	q->tx_full += n - sent;
	return sent;
}

static void memport_flush(struct port_queue *q)
{
}

static unsigned memport_sleep_on(struct port_queue *q, struct pollfd *fds)
{
	return 0;
}

static bool memport_tx_pending(const struct port_queue *q)
{
	return false;
}

static int memport_fd(const struct port_queue *q, enum rx_class class)
{
	return -1;
}

static void memport_report(const struct port_queue *q, struct port_report *out)
{
	out->rx_packets = q->rx_packets;
	out->rx_bytes = q->rx_bytes;
	out->tx_packets = q->tx_packets;
	out->tx_bytes = q->tx_bytes;
	out->tx_full = q->tx_full;
	out->lost_known_ring = q->lost[RX_KNOWN];
	out->lost_new_ring = q->lost[RX_NEW];
	out->lost_no_buffer = q->lost_no_buffer;
}

static void fifo_free(struct fifo *f)
{
	struct rte_mbuf *m;

	while (fifo_get(f, &m, 1))
		rte_pktmbuf_free(m);
}

static void memport_close(struct port *port)
{
	for (unsigned i = 0; i < port->config.n_queues; i++) {
		struct port_queue *q = port->queues[i];

		if (!q)
			continue;
		for (unsigned class = 0; class < RX_CLASSES; class ++)
			fifo_free(&q->in[class]);
		fifo_free(&q->out);
		free(q);
	}
	free(port);
}

static const struct port_ops memport_ops = {
	.rx = memport_rx,
	.tx = memport_tx,
	.flush = memport_flush,
	.sleep_on = memport_sleep_on,
	.tx_pending = memport_tx_pending,
	.fd = memport_fd,
	.report = memport_report,
	.close = memport_close,
};

static struct port *memport_open(const char *name, unsigned n_queues)
{
	struct port *port = calloc(1, sizeof(*port));

	if (!port)
		return NULL;
	port->ops = &memport_ops;
	port->config.n_queues = n_queues;
	port->depth = MEMPORT_ROOM;
	snprintf(port->config.name, sizeof(port->config.name), "%s", name);
	for (unsigned i = 0; i < n_queues; i++) {
		port->queues[i] = calloc(1, sizeof(struct port_queue));
		if (!port->queues[i]) {
			memport_close(port);
			errno = ENOMEM;
			return NULL;
		}
		port->queues[i]->port = port;
	}
	return port;
}

struct port *memport_add(struct dataplane *dp, const char *name, const uint8_t mac[static 6])
{
	struct port *port = memport_open(name, dp->config.n_workers);

	if (!port)
		return NULL;
	port->index = dp->n_ports;
	dp->ports[dp->n_ports++] = port;
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		dp->workers[i]->tx_queue[port->index] = port->queues[i];
	dataplane_port_set_mac(dp, port->index, mac);
	dataplane_port_set_link(dp, port->index, true, 1500);
	return port;
}

uint16_t memport_feed(struct port *port, unsigned queue, enum rx_class class, struct rte_mbuf *const *m, uint16_t n)
{
	return fifo_put(&port->queues[queue]->in[class], m, n);
}

void memport_lose(struct port *port, unsigned queue, enum rx_class class, unsigned n)
{
	port->queues[queue]->lost[class] += n;
}

void memport_lose_buffers(struct port *port, unsigned queue, unsigned n)
{
	port->queues[queue]->lost_no_buffer += n;
}

uint16_t memport_take(struct port *port, unsigned queue, struct rte_mbuf **m, uint16_t n)
{
	return fifo_get(&port->queues[queue]->out, m, n);
}
