/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets in, packets out, byte for byte: the pipeline of one worker with a fixed secret, driven by the timestamps of a
 * capture. A case is a directory:
 *
 *   in.pcap    frames in order; each goes into the port whose MAC address it has
 *   out.pcap   all that leaves, in order, with the time at which it left; its source MAC tells the port
 *   options    lines "name value" (optional): backends, lan_mtu, flows
 *
 *   replay [--rings] DIR          compares with out.pcap; 0: the same
 *   replay [--rings] --write DIR  writes out.pcap
 *
 * --rings: the ports are DPDK devices over rings instead of ports in memory, which must not change a byte.
 */
#include "core.h"
#include "memport.h"
#include "rig.h"
#include "worker.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

/* The worker takes a longer gap for one in which it did not run, and does not let flows age in it. */
#define STEP_NS   10000000
#define FRAME_LEN 1514
#define RING_SIZE 64

struct replay {
	struct rig rig;
	struct rig_config config;
	bool rings;
	struct rte_ring *in[RIG_PORTS], *out[RIG_PORTS]; /* as the device sees them; only with `rings` */
	char devices[RIG_PORTS][RTE_ETH_NAME_MAX_LEN + 8];
	const char *dir;
	pcap_t *expected;       /* NULL: write */
	pcap_dumper_t *written; /* NULL: compare */
	uint64_t n_in, n_out;
	bool failed;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "replay: %s: %s\n", what, why);
	exit(2);
}

/* --- output --- */

static void print_frame(const char *what, const uint8_t *frame, size_t len)
{
	fprintf(stderr, "  %-9s", what);
	for (size_t i = 0; i < len; i++)
		fprintf(stderr, "%02x", frame[i]);
	fprintf(stderr, "\n");
}

static void compare(struct replay *r, const uint8_t *frame, size_t len)
{
	struct pcap_pkthdr *header;
	const uint8_t *want;

	if (r->failed)
		return;
	if (pcap_next_ex(r->expected, &header, &want) != 1) {
		fprintf(stderr, "%s: after input %lu: one frame more than expected\n", r->dir, r->n_in);
		print_frame("got", frame, len);
		r->failed = true;
		return;
	}
	if (header->caplen == len && memcmp(want, frame, len) == 0 &&
	    (uint64_t)header->ts.tv_sec * 1000000000 + header->ts.tv_usec == r->rig.now_ns)
		return;
	fprintf(stderr, "%s: output %lu, after input %lu, differs (time: got %lu ns, want %lu.%09lu s)\n", r->dir,
		r->n_out, r->n_in, r->rig.now_ns, header->ts.tv_sec, header->ts.tv_usec);
	print_frame("expected", want, header->caplen);
	print_frame("got", frame, len);
	r->failed = true;
}

static void emit(struct replay *r, struct rte_mbuf *m)
{
	struct pcap_pkthdr header = {
		.ts = {.tv_sec = r->rig.now_ns / 1000000000, .tv_usec = r->rig.now_ns % 1000000000},
		.caplen = m->data_len,
		.len = m->data_len,
	};

	r->n_out++;
	if (r->written)
		pcap_dump((u_char *)r->written, &header, rte_pktmbuf_mtod(m, u_char *));
	else
		compare(r, rte_pktmbuf_mtod(m, uint8_t *), m->data_len);
	rte_pktmbuf_free(m);
}

/* --- turns --- */

static void turn(struct replay *r)
{
	worker_run_once(r->rig.worker);
	for (int port = 0; port < RIG_PORTS; port++) {
		struct rte_mbuf *m;

		if (r->rings)
			while (rte_ring_sc_dequeue(r->out[port], (void **)&m) == 0)
				emit(r, m);
		else
			while (memport_take(r->rig.ports[port], 0, &m, 1))
				emit(r, m);
	}
}

static void advance(struct replay *r, uint64_t to_ns)
{
	while (r->rig.now_ns < to_ns) {
		uint64_t left_ns = to_ns - r->rig.now_ns;

		r->rig.now_ns += left_ns < STEP_NS ? left_ns : STEP_NS;
		if (r->rig.now_ns < to_ns)
			turn(r);
	}
}

/* As the gate sorts them: a SYN without ACK of a plain TCP packet. */
static enum rx_class class_of(const uint8_t *frame, uint32_t len)
{
	struct packet p;

	if (parse(frame, len, &p) != VERDICT_NONE || p.kind != PACKET_TCP)
		return RX_KNOWN;
	return (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? RX_NEW : RX_KNOWN;
}

static void feed(struct replay *r, const uint8_t *frame, uint32_t len)
{
	enum rig_port port = memcmp(frame, rig_mac[RIG_LAN], 6) == 0 ? RIG_LAN : RIG_WAN;
	struct rte_mbuf *m = rte_pktmbuf_alloc(r->rig.dp->pool);
	char *data = m && len <= FRAME_LEN ? rte_pktmbuf_append(m, len) : NULL;
	int fed;

	if (!data)
		die(r->dir, "frame too long, or packets lost");
	memcpy(data, frame, len);
	if (r->rings)
		fed = rte_ring_sp_enqueue(r->in[port], m) == 0;
	else
		fed = memport_feed(r->rig.ports[port], 0, class_of(frame, len), &m, 1);
	if (!fed)
		die(r->dir, "port full");
}

static void run(struct replay *r, pcap_t *in)
{
	struct pcap_pkthdr *header;
	const uint8_t *frame;

	while (pcap_next_ex(in, &header, &frame) == 1) {
		advance(r, (uint64_t)header->ts.tv_sec * 1000000000 + header->ts.tv_usec);
		r->n_in++;
		feed(r, frame, header->caplen);
		turn(r);
	}
}

/* Nothing may vanish: each packet that came in has its verdict, and each that should leave has left. */
static void check_ledger(struct replay *r)
{
	const struct ledger *l = &r->rig.worker->ledger;

	if (ledger_balance(l) == 0 && l->rx == r->n_in && l->tx == r->n_out)
		return;
	fprintf(stderr, "%s: ledger: in %lu of %lu, out %lu of %lu, balance %ld\n", r->dir, l->rx, r->n_in, l->tx,
		r->n_out, ledger_balance(l));
	r->failed = true;
}

/* --- set-up --- */

static void read_options(struct replay *r)
{
	char path[512], name[32];
	unsigned value;
	FILE *f;

	snprintf(path, sizeof(path), "%s/options", r->dir);
	f = fopen(path, "r");
	if (!f)
		return;
	while (fscanf(f, "%31s %u", name, &value) == 2) {
		if (strcmp(name, "backends") == 0)
			r->config.n_backends = value;
		else if (strcmp(name, "lan_mtu") == 0)
			r->config.lan_mtu = value;
		else if (strcmp(name, "flows") == 0)
			r->config.flows_v4 = r->config.flows_v6 = value;
		else
			die(path, name);
	}
	fclose(f);
}

/* A DPDK device over two rings, opened as any other device is; its name is made from that of the rings. */
static const char *ring_device(struct replay *r, int port, char *device)
{
	char name[32];
	int eth;

	snprintf(name, sizeof(name), "in%d", port);
	r->in[port] = rte_ring_create(name, RING_SIZE, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	snprintf(name, sizeof(name), "out%d", port);
	r->out[port] = rte_ring_create(name, RING_SIZE, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	if (!r->in[port] || !r->out[port])
		die("rings", "no memory");
	snprintf(name, sizeof(name), "replay%d", port);
	eth = rte_eth_from_rings(name, &r->in[port], 1, &r->out[port], 1, SOCKET_ID_ANY);
	if (eth < 0)
		die("rings", "no device");
	memcpy(device, "vdev:", 5);
	rte_eth_dev_get_name_by_port(eth, device + 5);
	return device;
}

static pcap_t *open_capture(const struct replay *r, const char *file)
{
	char path[512], err[PCAP_ERRBUF_SIZE];
	pcap_t *p;

	snprintf(path, sizeof(path), "%s/%s", r->dir, file);
	p = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, err);
	if (!p)
		die(path, err);
	return p;
}

static void open_output(struct replay *r, bool write)
{
	char path[512];
	pcap_t *dead;

	if (!write) {
		r->expected = open_capture(r, "out.pcap");
		return;
	}
	dead = pcap_open_dead_with_tstamp_precision(DLT_EN10MB, 65535, PCAP_TSTAMP_PRECISION_NANO);
	snprintf(path, sizeof(path), "%s/out.pcap", r->dir);
	r->written = dead ? pcap_dump_open(dead, path) : NULL;
	if (!r->written)
		die(path, dead ? pcap_geterr(dead) : "no memory");
	pcap_close(dead);
}

static void close_output(struct replay *r)
{
	struct pcap_pkthdr *header;
	const uint8_t *frame;

	if (r->written) {
		pcap_dump_close(r->written);
		return;
	}
	if (!r->failed && pcap_next_ex(r->expected, &header, &frame) == 1) {
		fprintf(stderr, "%s: output ends after %lu frames, more are expected\n", r->dir, r->n_out);
		print_frame("expected", frame, header->caplen);
		r->failed = true;
	}
	pcap_close(r->expected);
}

int main(int argc, char **argv)
{
	static struct replay r = {
		.config = {.flows_v4 = 256, .flows_v6 = 256, .n_mbufs = 8191, .n_backends = 3, .n_snat = 1}};
	bool write = false;
	pcap_t *in;
	int err;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--write") == 0)
			write = true;
		else if (strcmp(argv[i], "--rings") == 0)
			r.rings = true;
		else
			r.dir = argv[i];
	}
	if (!r.dir) {
		fprintf(stderr, "usage: replay [--rings] [--write] DIR\n");
		return 2;
	}
	read_options(&r);
	err = rig_eal((rig_bytes(&r.config) >> 20) + 64, false, 0);
	if (err)
		die("DPDK", strerror(-err));
	if (r.rings)
		for (int port = 0; port < RIG_PORTS; port++)
			r.config.device[port] = ring_device(&r, port, r.devices[port]);
	err = rig_create(&r.rig, &r.config);
	if (err)
		die("dataplane", strerror(-err));
	in = open_capture(&r, "in.pcap");
	open_output(&r, write);
	run(&r, in);
	close_output(&r);
	check_ledger(&r);
	pcap_close(in);
	rig_destroy(&r.rig);
	return r.failed;
}
