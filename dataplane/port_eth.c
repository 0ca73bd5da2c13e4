/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any DPDK port: a PCI device bound to vfio-pci, or a virtual one ("vdev:net_ring0", "vdev:net_pcap0,rx_pcap=…"). It
 * has no classes: everything comes as RX_KNOWN. It cannot be slept on.
 */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>

#define RX_RING 1024
#define TX_RING 1024

struct port_queue {
	struct port *port;
	uint16_t eth; /* DPDK's number of the device */
	uint16_t queue;
	/* read by others */
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, tx_full, too_long;
};

static inline void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static uint64_t bytes_of(struct rte_mbuf *const *m, unsigned n)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += m[i]->data_len;
	return bytes;
}

/*
 * A frame in more than one segment is none of ours: buffers hold the longest frame that is allowed. (A driver makes
 * such a chain of a longer one.) Returns how many are left.
 */
static uint16_t drop_chains(struct port_queue *q, struct rte_mbuf **m, uint16_t n)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < n; i++) {
		if (likely(m[i]->nb_segs == 1))
			m[kept++] = m[i];
		else
			rte_pktmbuf_free(m[i]);
	}
	if (kept < n)
		count(&q->too_long, n - kept);
	return kept;
}

static uint16_t eth_rx(struct port_queue *q, enum rx_class class, struct rte_mbuf **m, uint16_t n)
{
	if (class != RX_KNOWN)
		return 0;
	n = drop_chains(q, m, rte_eth_rx_burst(q->eth, q->queue, m, n));
	for (uint16_t i = 0; i < n; i++)
		m[i]->port = q->port->index;
	if (n) {
		count(&q->rx_packets, n);
		count(&q->rx_bytes, bytes_of(m, n));
	}
	return n;
}

static uint16_t eth_tx(struct port_queue *q, struct rte_mbuf **m, uint16_t n)
{
	uint64_t bytes = bytes_of(m, n);
	uint16_t sent = rte_eth_tx_burst(q->eth, q->queue, m, n);

	/* What was sent may be freed and gone by now; what was not is still ours. */
	count(&q->tx_packets, sent);
	count(&q->tx_bytes, bytes - bytes_of(&m[sent], n - sent));
	count(&q->tx_full, n - sent);
	return sent;
}

static void eth_flush(struct port_queue *q)
{
}

static unsigned eth_sleep_on(struct port_queue *q, struct pollfd *fds)
{
	return 0;
}

static bool eth_tx_pending(const struct port_queue *q)
{
	return false;
}

static int eth_fd(const struct port_queue *q, enum rx_class class)
{
	return -1;
}

static void eth_report(const struct port_queue *q, struct port_report *out)
{
	struct rte_eth_stats stats;

	out->rx_packets = __atomic_load_n(&q->rx_packets, __ATOMIC_RELAXED);
	out->rx_bytes = __atomic_load_n(&q->rx_bytes, __ATOMIC_RELAXED);
	out->tx_packets = __atomic_load_n(&q->tx_packets, __ATOMIC_RELAXED);
	out->tx_bytes = __atomic_load_n(&q->tx_bytes, __ATOMIC_RELAXED);
	out->tx_full = __atomic_load_n(&q->tx_full, __ATOMIC_RELAXED);
	out->lost_invalid = __atomic_load_n(&q->too_long, __ATOMIC_RELAXED);
	/* The device counts for all its queues together; they stand with the first one. */
	if (q->queue || rte_eth_stats_get(q->eth, &stats))
		return;
	out->lost_known_ring = stats.imissed;
	out->lost_no_buffer = stats.rx_nombuf;
	out->lost_invalid += stats.ierrors + stats.oerrors;
}

static void eth_close(struct port *port)
{
	uint16_t eth = port->queues[0] ? port->queues[0]->eth : RTE_MAX_ETHPORTS;
	struct rte_eth_dev_info info;

	if (eth != RTE_MAX_ETHPORTS && rte_eth_dev_is_valid_port(eth)) {
		int known = rte_eth_dev_info_get(eth, &info);

		rte_eth_dev_stop(eth);
		rte_eth_dev_close(eth);
		if (known == 0)
			rte_dev_remove(info.device);
	}
	for (unsigned i = 0; i < port->config.n_queues; i++)
		free(port->queues[i]);
	free(port);
}

static const struct port_ops eth_ops = {
	.rx = eth_rx,
	.tx = eth_tx,
	.flush = eth_flush,
	.sleep_on = eth_sleep_on,
	.tx_pending = eth_tx_pending,
	.fd = eth_fd,
	.report = eth_report,
	.close = eth_close,
};

/* "vdev:net_ring0,args" or "0000:03:00.0" as DPDK wants it; returns DPDK's number of the device or -errno. */
static int probe(const char *device)
{
	const char *devargs = strncmp(device, "vdev:", 5) == 0 ? device + 5 : device;
	char name[64];
	uint16_t eth;
	int rc = rte_dev_probe(devargs);

	if (rc && rc != -EEXIST)
		return rc;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(devargs, ","), devargs);
	return rte_eth_dev_get_port_by_name(name, &eth) ? -ENODEV : eth;
}

static void explain_probe(const char *device, int error, char *err, size_t err_len)
{
	if (strncmp(device, "vdev:", 5) == 0)
		snprintf(err, err_len,
			 "%s: DPDK cannot make this device: %s: check the driver's name and its arguments", device,
			 strerror(-error));
	else
		snprintf(err, err_len,
			 "%s: DPDK cannot use this device: %s: bind it with dpdk-devbind.py -b vfio-pci %s", device,
			 strerror(-error), device);
}

static struct rte_eth_conf conf_of(const struct rte_eth_dev_info *info, unsigned n_queues)
{
	uint64_t hashes = info->flow_type_rss_offloads & (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP);
	struct rte_eth_conf conf = {0};

	if (n_queues > 1 && hashes) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = hashes;
	}
	return conf;
}

static int configure(struct port *port, uint16_t eth, const struct rte_eth_dev_info *info, struct rte_mempool *pool)
{
	unsigned n_queues = port->config.n_queues;
	struct rte_eth_conf conf = conf_of(info, n_queues);
	uint16_t n_rx = RX_RING, n_tx = TX_RING;
	int rc = rte_eth_dev_configure(eth, n_queues, n_queues, &conf);

	if (!rc)
		rc = rte_eth_dev_adjust_nb_rx_tx_desc(eth, &n_rx, &n_tx);
	port->depth = n_rx;
	for (unsigned i = 0; i < n_queues && !rc; i++) {
		rc = rte_eth_rx_queue_setup(eth, i, n_rx, SOCKET_ID_ANY, NULL, pool);
		if (!rc)
			rc = rte_eth_tx_queue_setup(eth, i, n_tx, SOCKET_ID_ANY, NULL);
	}
	return rc ? rc : rte_eth_dev_start(eth);
}

static int queues_open(struct port *port, uint16_t eth)
{
	for (unsigned i = 0; i < port->config.n_queues; i++) {
		struct port_queue *q = calloc(1, sizeof(*q));

		if (!q)
			return -ENOMEM;
		*q = (struct port_queue){.port = port, .eth = eth, .queue = i};
		port->queues[i] = q;
	}
	return 0;
}

static int start(struct port *port, uint16_t eth, struct rte_mempool *pool, char *err, size_t err_len)
{
	unsigned n_queues = port->config.n_queues;
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int rc = rte_eth_dev_info_get(eth, &info);

	if (!rc && (n_queues > info.max_rx_queues || n_queues > info.max_tx_queues)) {
		snprintf(err, err_len,
			 "%s: the device has %u receive and %u transmit queues, but %u workers need one each: "
			 "list fewer CPUs in gateway.workers",
			 port->config.device, info.max_rx_queues, info.max_tx_queues, n_queues);
		return -EINVAL;
	}
	if (!rc)
		rc = configure(port, eth, &info, pool);
	if (rc) {
		snprintf(err, err_len, "%s: DPDK cannot start the device: %s", port->config.device, strerror(-rc));
		return rc;
	}
	/* Not every driver can, and one that cannot receives everything already. */
	rte_eth_promiscuous_enable(eth);
	if (rte_eth_macaddr_get(eth, &mac) == 0)
		memcpy(port->mac, mac.addr_bytes, sizeof(port->mac));
	return 0;
}

struct port *port_eth_open(const struct port_config *config, struct rte_mempool *pool, char *err, size_t err_len)
{
	struct port *port = calloc(1, sizeof(*port));
	int eth, rc;

	if (!port) {
		snprintf(err, err_len, "%s: out of memory", config->device);
		return NULL;
	}
	port->ops = &eth_ops;
	port->config = *config;
	eth = probe(config->device);
	if (eth < 0)
		explain_probe(config->device, eth, err, err_len);
	rc = eth < 0 ? eth : queues_open(port, eth);
	if (!rc)
		rc = start(port, eth, pool, err, err_len);
	if (!rc)
		return port;
	eth_close(port);
	errno = -rc;
	return NULL;
}
