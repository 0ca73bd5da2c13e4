/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A port: bursts of mbufs in and out, whatever the device is. A port has queues; a queue belongs to one worker, which
 * alone calls its functions. Frames are complete Ethernet frames without FCS, one segment each, in the one packet pool.
 */
#pragma once

#include "dataplane.h"
#include "observe.h"

#include <poll.h>
#include <stdint.h>

struct port;
struct rte_mbuf;
struct rte_mempool;
struct port_queue;

struct port_ops {
	/*
	 * Takes up to n frames of one class; sets m->port to the port's index. Frees what was sent meanwhile. A port
	 * without classes (PORT_ETH) gives everything as RX_KNOWN.
	 */
	uint16_t (*rx)(struct port_queue *q, enum rx_class class, struct rte_mbuf **m, uint16_t n);
	/* Queues up to n frames; the accepted ones belong to the port, the others stay with the caller. */
	uint16_t (*tx)(struct port_queue *q, struct rte_mbuf **m, uint16_t n);
	/* Makes queued frames go: at most one kick of the kernel, only if it asks for one. Once per loop. */
	void (*flush)(struct port_queue *q);
	/*
	 * Before sleeping: the descriptors whose POLLIN means work. Returns how many (at most RX_CLASSES), 0 if the
	 * queue cannot be slept on. Also makes sure that the kernel has receive buffers and will wake us.
	 */
	unsigned (*sleep_on)(struct port_queue *q, struct pollfd *fds);
	/* True if frames wait that the kernel did not take, or the pool had no buffers: then do not sleep for long. */
	bool (*tx_pending)(const struct port_queue *q);
	/* Socket of a class, or -1. */
	int (*fd)(const struct port_queue *q, enum rx_class class);
	/* Any thread; counters are read relaxed. */
	void (*report)(const struct port_queue *q, struct port_report *out);
	/* Frees everything, queues too. No worker runs. */
	void (*close)(struct port *port);
};

struct port {
	const struct port_ops *ops;
	struct port_config config;
	int index;
	uint32_t depth; /* frames of a class that may wait in a queue */
	struct port_queue *queues[DATAPLANE_MAX_QUEUES];
	/* Written by decide, read by workers; relaxed. */
	uint64_t *heartbeat[DATAPLANE_MAX_QUEUES];
	uint8_t mac[6]; /* of a port that knows its own (PORT_ETH) when it is opened; all zero otherwise */
};

/*
 * Open a port of the given kind: NULL with errno set and a sentence in `err` that names the mending command. `pool`
 * holds one chunk of memory (port_xsk makes it the UMEM, so that forwarding copies nothing in user space).
 * `port->index` is for the caller to set before the first rx.
 */
struct port *port_xsk_open(const struct port_config *config, struct rte_mempool *pool, char *err, size_t err_len);
struct port *port_eth_open(const struct port_config *config, struct rte_mempool *pool, char *err, size_t err_len);

/*
 * The one packet pool, fit to be a UMEM: objects of at most a page, in one chunk of memory, RTE_PKTMBUF_HEADROOM bytes
 * before each frame. `max_frame` is the longest frame that must fit. NULL with rte_errno set: EMSGSIZE if it is longer
 * than port_xsk_max_frame(), ENOMEM if there is not that much memory in one piece (reserve more hugepages, or start the
 * EAL without them).
 */
struct rte_mempool *port_pool_create(const char *name, uint32_t n_mbufs, uint32_t max_frame);
/* The longest frame that any pool can carry through AF_XDP. */
uint32_t port_xsk_max_frame(void);
/* Size in bytes of one mbuf of such a pool, for the memory plan. */
uint32_t port_pool_object_size(uint32_t max_frame);
