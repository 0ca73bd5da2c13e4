// SPDX-License-Identifier: BSD-3-Clause
/* DPDK ports without hardware: rings that send to themselves, and capture files. */
#include "port.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define EAL_BYTES (96u << 20)
#define MAX_FRAME 1600
#define N_MBUFS   8192
#define BURST     32

struct lab {
	struct rte_mempool *pool;
	unsigned available; /* in the pool, before a port was opened */
	struct port *port;
	char dir[32];
};

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	if (!lab)
		return -1;
	*state = lab;
	strcpy(lab->dir, "/tmp/test_port_eth.XXXXXX");
	lab->pool = port_pool_create("lab", N_MBUFS, MAX_FRAME);
	if (!lab->pool || !mkdtemp(lab->dir))
		return -1;
	lab->available = rte_mempool_avail_count(lab->pool);
	return 0;
}

static void path_of(const struct lab *lab, const char *name, char path[static 64])
{
	snprintf(path, 64, "%s/%s", lab->dir, name);
}

/* Every buffer must be in the pool again. */
static int teardown(void **state)
{
	static const char *const names[] = {"in.pcap", "out.pcap"};
	struct lab *lab = *state;
	char path[64];
	int lost;

	if (lab->port)
		lab->port->ops->close(lab->port);
	lost = (int)lab->available - (int)rte_mempool_avail_count(lab->pool);
	if (lost)
		fprintf(stderr, "%d of %u buffers did not come back\n", lost, lab->available);
	rte_mempool_free(lab->pool);
	for (unsigned i = 0; i < RTE_DIM(names); i++) {
		path_of(lab, names[i], path);
		unlink(path);
	}
	if (chdir("/") || rmdir(lab->dir))
		perror(lab->dir);
	free(lab);
	return lost ? -1 : 0;
}

static struct port_config config_of(const char *device, unsigned n_queues)
{
	struct port_config config = {.name = "port", .kind = PORT_ETH, .n_queues = n_queues};

	snprintf(config.device, sizeof(config.device), "%s", device);
	return config;
}

static void open_port(struct lab *lab, const char *device, unsigned n_queues)
{
	struct port_config config = config_of(device, n_queues);
	char err[256] = "";

	lab->port = port_eth_open(&config, lab->pool, err, sizeof(err));
	if (!lab->port)
		fail_msg("%s", err);
	lab->port->index = 5;
}

static struct port_report report_of(const struct port *port, unsigned queue)
{
	struct port_report report = {0};

	port->ops->report(port->queues[queue], &report);
	return report;
}

static void fill(uint8_t *bytes, unsigned len, uint32_t seed)
{
	for (unsigned i = 0; i < len; i++)
		bytes[i] = (seed = seed * 1664525 + 1013904223) >> 24;
}

static struct rte_mbuf *make_frame(struct lab *lab, unsigned len, uint32_t seed)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(lab->pool);

	assert_non_null(m);
	fill((uint8_t *)rte_pktmbuf_append(m, len), len, seed);
	return m;
}

static void assert_frame(const struct rte_mbuf *m, unsigned len, uint32_t seed)
{
	uint8_t bytes[MAX_FRAME];

	fill(bytes, len, seed);
	assert_int_equal(m->port, 5);
	assert_int_equal(m->pkt_len, len);
	assert_int_equal(m->data_len, len);
	assert_memory_equal(rte_pktmbuf_mtod(m, void *), bytes, len);
}

/* --- rings --- */

static void rings_return_what_was_sent(void **state)
{
	struct lab *lab = *state;

	open_port(lab, "vdev:net_ring0", 2);
	for (unsigned queue = 0; queue < 2; queue++) {
		struct port_queue *q = lab->port->queues[queue];
		struct rte_mbuf *m[BURST];

		for (unsigned i = 0; i < BURST; i++)
			m[i] = make_frame(lab, 60 + 40 * i, 100 * queue + i);
		assert_int_equal(lab->port->ops->tx(q, m, BURST), BURST);
		lab->port->ops->flush(q);
		assert_int_equal(lab->port->ops->rx(lab->port->queues[!queue], RX_KNOWN, m, BURST), 0);
		assert_int_equal(lab->port->ops->rx(q, RX_NEW, m, BURST), 0);
		assert_int_equal(lab->port->ops->rx(q, RX_KNOWN, m, BURST), BURST);
		for (unsigned i = 0; i < BURST; i++)
			assert_frame(m[i], 60 + 40 * i, 100 * queue + i);
		rte_pktmbuf_free_bulk(m, BURST);
		assert_int_equal(report_of(lab->port, queue).rx_packets, BURST);
		assert_int_equal(report_of(lab->port, queue).tx_packets, BURST);
		assert_int_equal(report_of(lab->port, queue).tx_bytes, BURST * 60 + 40 * (BURST - 1) * BURST / 2);
		assert_int_equal(report_of(lab->port, queue).rx_bytes, report_of(lab->port, queue).tx_bytes);
	}
}

/* What the device does not take stays with the caller and is counted. */
static void full_device_leaves_the_rest(void **state)
{
	struct lab *lab = *state;
	unsigned n_sent = 0, n_received = 0;
	struct rte_mbuf *m[BURST];
	struct port_queue *q;
	uint16_t n = BURST;

	open_port(lab, "vdev:net_ring0", 1);
	q = lab->port->queues[0];
	while (n == BURST && n_sent < N_MBUFS / 2) {
		for (unsigned i = 0; i < BURST; i++)
			m[i] = make_frame(lab, 60, n_sent + i);
		n = lab->port->ops->tx(q, m, BURST);
		n_sent += n;
		rte_pktmbuf_free_bulk(&m[n], BURST - n);
	}
	assert_true(n < BURST);
	assert_int_equal(report_of(lab->port, 0).tx_packets, n_sent);
	assert_int_equal(report_of(lab->port, 0).tx_full, BURST - n);
	assert_int_equal(report_of(lab->port, 0).tx_bytes, n_sent * 60);
	while ((n = lab->port->ops->rx(q, RX_KNOWN, m, BURST))) {
		assert_frame(m[0], 60, n_received);
		n_received += n;
		rte_pktmbuf_free_bulk(m, n);
	}
	assert_int_equal(n_received, n_sent);
}

static void cannot_be_slept_on(void **state)
{
	struct lab *lab = *state;
	struct pollfd fds[RX_CLASSES];
	struct port_queue *q;

	open_port(lab, "vdev:net_ring0", 1);
	q = lab->port->queues[0];
	assert_int_equal(lab->port->ops->sleep_on(q, fds), 0);
	assert_int_equal(lab->port->ops->fd(q, RX_KNOWN), -1);
	assert_int_equal(lab->port->ops->fd(q, RX_NEW), -1);
	assert_false(lab->port->ops->tx_pending(q));
}

/* The same name again: nothing of the device may be left. */
static void opens_again_after_close(void **state)
{
	struct lab *lab = *state;

	for (unsigned i = 0; i < 3; i++) {
		open_port(lab, "vdev:net_ring0", 1);
		lab->port->ops->close(lab->port);
		lab->port = NULL;
	}
}

/* --- capture files --- */

static const unsigned lens[] = {60, 61, 594, 1514, 1518, 5000, 64};
#define TOO_LONG 5 /* of `lens` */

static void write_capture(const char *path)
{
	pcap_t *pcap = pcap_open_dead(DLT_EN10MB, 65535);
	pcap_dumper_t *dumper = pcap_dump_open(pcap, path);
	uint8_t bytes[5000];

	assert_non_null(dumper);
	for (unsigned i = 0; i < RTE_DIM(lens); i++) {
		struct pcap_pkthdr header = {.caplen = lens[i], .len = lens[i], .ts.tv_sec = i};

		fill(bytes, lens[i], i);
		pcap_dump((uint8_t *)dumper, &header, bytes);
	}
	pcap_dump_close(dumper);
	pcap_close(pcap);
}

static void assert_capture(const char *path)
{
	char err[PCAP_ERRBUF_SIZE] = "";
	pcap_t *pcap = pcap_open_offline(path, err);
	struct pcap_pkthdr *header;
	const uint8_t *found;
	uint8_t bytes[5000];

	if (!pcap)
		fail_msg("%s", err);
	for (unsigned i = 0; i < RTE_DIM(lens); i++) {
		if (i == TOO_LONG)
			continue;
		fill(bytes, lens[i], i);
		assert_int_equal(pcap_next_ex(pcap, &header, &found), 1);
		assert_int_equal(header->caplen, lens[i]);
		assert_memory_equal(found, bytes, lens[i]);
	}
	assert_int_equal(pcap_next_ex(pcap, &header, &found), PCAP_ERROR_BREAK);
	pcap_close(pcap);
}

/* The driver makes a chain of what is longer than a buffer: that is dropped and counted. */
static void captures_go_in_and_out(void **state)
{
	struct lab *lab = *state;
	struct rte_mbuf *m[BURST];
	uint16_t n;

	/* Whole paths would not fit into a device's name. */
	assert_int_equal(chdir(lab->dir), 0);
	write_capture("in.pcap");
	open_port(lab, "vdev:net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap", 1);
	n = lab->port->ops->rx(lab->port->queues[0], RX_KNOWN, m, BURST);
	assert_int_equal(n, RTE_DIM(lens) - 1);
	assert_int_equal(report_of(lab->port, 0).lost_invalid, 1);
	assert_int_equal(report_of(lab->port, 0).rx_packets, n);
	assert_int_equal(lab->port->ops->tx(lab->port->queues[0], m, n), n);
	lab->port->ops->close(lab->port);
	lab->port = NULL;
	assert_capture("out.pcap");
}

/* --- what cannot be opened --- */

static void assert_refused(struct lab *lab, const char *device, unsigned n_queues, const char *hint)
{
	struct port_config config = config_of(device, n_queues);
	char err[256] = "";

	errno = 0;
	assert_null(port_eth_open(&config, lab->pool, err, sizeof(err)));
	assert_int_not_equal(errno, 0);
	if (!strstr(err, hint) || !strstr(err, device))
		fail_msg("\"%s\" does not name %s and \"%s\"", err, device, hint);
	assert_int_equal(rte_mempool_avail_count(lab->pool), lab->available);
}

static void refusals_name_the_mending_command(void **state)
{
	struct lab *lab = *state;

	assert_refused(lab, "0000:ff:1f.0", 1, "dpdk-devbind.py");
	assert_refused(lab, "vdev:net_absent0", 1, "driver's name");
	assert_refused(lab, "vdev:net_ring0", 60, "gateway.workers");
	/* A refused device is gone again. */
	open_port(lab, "vdev:net_ring0", 1);
}

static int group_setup(void **state)
{
	return dataplane_eal_init(EAL_BYTES, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(rings_return_what_was_sent, setup, teardown),
		cmocka_unit_test_setup_teardown(full_device_leaves_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(cannot_be_slept_on, setup, teardown),
		cmocka_unit_test_setup_teardown(opens_again_after_close, setup, teardown),
		cmocka_unit_test_setup_teardown(captures_go_in_and_out, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_name_the_mending_command, setup, teardown),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
