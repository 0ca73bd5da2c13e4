// SPDX-License-Identifier: BSD-3-Clause
/*
 * An AF_XDP port against the kernel: g0 is the port's, on its veth peer c0 a raw socket sends and receives. Every test
 * also checks that all buffers are in the pool again after the port was closed.
 */
#include "netlab.h"
#include "port.h"

#include "redirect.skel.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <cap-ng.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <rte_cycles.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define EAL_BYTES   (192u << 20)
#define MAX_FRAME   1600
#define N_MBUFS     16384
#define RX_RING     2048 /* of port_xsk.c: what a class can hold while nobody polls */
#define FILL_RING   4096
#define BURST       32
#define PATIENCE_MS 3000
#define VLAN_TCI    0x2064

/* --- frames --- */

struct wire_frame {
	uint8_t bytes[MAX_FRAME];
	unsigned len;
};

enum kind {
	OTHER, /* an ethertype for experiments: no kernel answers it */
	SYN,
	TAGGED,
	TAGGED_SYN,
};

/* Contents follow from `seed`, so that no two frames of a test are equal. */
static void make_frame(struct wire_frame *f, enum kind kind, unsigned len, uint32_t seed)
{
	unsigned l3 = 14;

	f->len = len;
	for (unsigned i = 0; i < len; i++)
		f->bytes[i] = (seed = seed * 1664525 + 1013904223) >> 24;
	memcpy(f->bytes, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5", 14);
	if (kind == TAGGED || kind == TAGGED_SYN) {
		memcpy(&f->bytes[12], (uint8_t[]){0x81, 0x00, VLAN_TCI >> 8, VLAN_TCI & 0xff, 0x88, 0xb5}, 6);
		l3 = 18;
	}
	if (kind == SYN || kind == TAGGED_SYN) {
		memcpy(&f->bytes[l3 - 2], "\x08\x00\x45", 3);
		f->bytes[l3 + 9] = IPPROTO_TCP;
		f->bytes[l3 + 33] = 0x02;
	} else {
		f->bytes[l3] = 0;
	}
}

static const struct {
	enum kind kind;
	unsigned len;
} shapes[] = {
	{OTHER, 60}, {OTHER, 14},  {OTHER, 61},    {OTHER, 590},     {OTHER, 1514},      {SYN, 60},
	{SYN, 1514}, {TAGGED, 64}, {TAGGED, 1518}, {TAGGED_SYN, 64}, {TAGGED_SYN, 1518},
};

/* --- the lab --- */

struct lab {
	struct rte_mempool *pool;
	unsigned available; /* in the pool, before the port was opened */
	struct port *port;
	struct redirect_bpf *redirect;
	int link_fd;
	int raw_fd;
};

static struct port_config config_of(const char *device, unsigned n_queues)
{
	struct port_config config = {.kind = PORT_XSK, .n_queues = n_queues};

	snprintf(config.name, sizeof(config.name), "%s", device);
	snprintf(config.device, sizeof(config.device), "%s", device);
	return config;
}

static void make_veth(unsigned n_queues)
{
	assert_int_equal(
		netlab_run("ip link add g0 address 02:00:00:00:00:01 numrxqueues %u numtxqueues %u type veth peer "
			   "name c0 address 02:00:00:00:00:02 numrxqueues %u numtxqueues %u",
			   n_queues, n_queues, n_queues, n_queues),
		0);
	assert_int_equal(netlab_run("ip link set c0 arp off up && ip link set g0 arp off up"), 0);
}

static int open_raw(const char *device)
{
	int fd = netlab_open_raw(device), bytes = 64 << 20, yes = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)), 0);
	assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &yes, sizeof(yes)), 0);
	return fd;
}

static struct port *open_port(const char *device, unsigned n_queues, struct rte_mempool *pool)
{
	struct port_config config = config_of(device, n_queues);
	char err[256] = "";
	struct port *port = port_xsk_open(&config, pool, err, sizeof(err));

	if (!port)
		fail_msg("%s", err);
	return port;
}

/* Puts the port's sockets into a program of its own and attaches it. Returns the link's descriptor. */
static int attach(struct redirect_bpf *redirect, const struct port *port)
{
	int link_fd;

	for (uint32_t queue = 0; queue < port->config.n_queues; queue++)
		for (enum rx_class class = RX_KNOWN; class < RX_CLASSES; class ++) {
			uint32_t slot = 2 * queue + class;
			int fd = port->ops->fd(port->queues[queue], class);

			assert_int_equal(bpf_map_update_elem(bpf_map__fd(redirect->maps.sockets), &slot, &fd, 0), 0);
		}
	link_fd = bpf_link_create(bpf_program__fd(redirect->progs.redirect), if_nametoindex(port->config.device),
				  BPF_XDP, NULL);
	assert_true(link_fd >= 0);
	return link_fd;
}

static void lab_open_size(struct lab *lab, unsigned n_queues, unsigned n_mbufs, unsigned max_frame)
{
	unsigned mtu = max_frame - 18; /* header and VLAN tag */

	make_veth(n_queues);
	assert_int_equal(netlab_run("ip link set g0 mtu %u && ip link set c0 mtu %u", mtu, mtu), 0);
	lab->pool = port_pool_create("lab", n_mbufs, max_frame);
	assert_non_null(lab->pool);
	lab->available = rte_mempool_avail_count(lab->pool);
	lab->port = open_port("g0", n_queues, lab->pool);
	lab->port->index = 3;
	lab->redirect = redirect_bpf__open_and_load();
	assert_non_null(lab->redirect);
	lab->link_fd = attach(lab->redirect, lab->port);
	lab->raw_fd = open_raw("c0");
}

static void lab_open(struct lab *lab)
{
	lab_open_size(lab, 1, N_MBUFS, MAX_FRAME);
}

static int setup(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));

	if (!lab)
		return -1;
	lab->link_fd = lab->raw_fd = -1;
	*state = lab;
	return 0;
}

/* Returns 0 if every buffer is in the pool again. */
static int lab_close(struct lab *lab)
{
	int lost = 0;

	if (lab->link_fd >= 0)
		close(lab->link_fd);
	if (lab->raw_fd >= 0)
		close(lab->raw_fd);
	redirect_bpf__destroy(lab->redirect);
	if (lab->port)
		lab->port->ops->close(lab->port);
	if (lab->pool)
		lost = (int)lab->available - (int)rte_mempool_avail_count(lab->pool);
	rte_mempool_free(lab->pool);
	if (lost)
		fprintf(stderr, "%d of %u buffers did not come back\n", lost, lab->available);
	return lost ? -1 : 0;
}

static int teardown(void **state)
{
	int rc = lab_close(*state);

	free(*state);
	if (if_nametoindex("g0"))
		rc |= netlab_run("ip link del g0");
	if (if_nametoindex("g1"))
		rc |= netlab_run("ip link del g1");
	return rc;
}

static struct port_queue *queue_of(const struct lab *lab)
{
	return lab->port->queues[0];
}

static struct port_report report_of(const struct port *port, unsigned queue)
{
	struct port_report report = {0};

	port->ops->report(port->queues[queue], &report);
	return report;
}

/* The kernel may still be busy with what was sent: waits until a counter is `expected`, and not more. */
static void await_counter(const struct port *port, size_t offset, uint64_t expected)
{
	uint64_t deadline_ns = monotonic_ns() + PATIENCE_MS * 1000000ull;
	struct port_report report;
	uint64_t value;

	do {
		report = report_of(port, 0);
		memcpy(&value, (uint8_t *)&report + offset, sizeof(value));
	} while (value < expected && monotonic_ns() < deadline_ns);
	assert_int_equal(value, expected);
}

#define AWAIT(port, counter, expected) await_counter(port, offsetof(struct port_report, counter), expected)

/* --- in --- */

static void send_raw(int fd, const struct wire_frame *f)
{
	assert_int_equal(send(fd, f->bytes, f->len, 0), f->len);
}

/* Sleeps as a worker does, until a class has frames. Returns how many were taken. */
static unsigned receive(struct port *port, enum rx_class class, struct rte_mbuf **m, unsigned n)
{
	uint64_t deadline_ns = monotonic_ns() + PATIENCE_MS * 1000000ull;
	struct port_queue *q = port->queues[0];
	struct pollfd fds[RX_CLASSES];
	unsigned taken = 0;

	while (taken < n && monotonic_ns() < deadline_ns) {
		unsigned got = port->ops->rx(q, class, &m[taken], RTE_MIN(n - taken, (unsigned)BURST));

		taken += got;
		if (!got)
			poll(fds, port->ops->sleep_on(q, fds), 1);
	}
	return taken;
}

static void assert_frame(const struct rte_mbuf *m, const struct wire_frame *f)
{
	assert_int_equal(m->pkt_len, f->len);
	assert_int_equal(m->data_len, f->len);
	assert_int_equal(m->nb_segs, 1);
	assert_null(m->next);
	assert_int_equal(m->ol_flags, 0);
	assert_int_equal(rte_mbuf_refcnt_read(m), 1);
	assert_true(m->data_off >= RTE_PKTMBUF_HEADROOM);
	assert_memory_equal(rte_pktmbuf_mtod(m, void *), f->bytes, f->len);
}

static void frames_in_are_frames_out(void **state)
{
	struct lab *lab = *state;
	struct wire_frame f;

	lab_open(lab);
	for (unsigned i = 0; i < RTE_DIM(shapes); i++) {
		bool syn = shapes[i].kind == SYN || shapes[i].kind == TAGGED_SYN;
		struct rte_mbuf *m;

		make_frame(&f, shapes[i].kind, shapes[i].len, i);
		send_raw(lab->raw_fd, &f);
		assert_int_equal(receive(lab->port, syn ? RX_NEW : RX_KNOWN, &m, 1), 1);
		assert_int_equal(m->port, 3);
		assert_frame(m, &f);
		assert_int_equal(lab->port->ops->rx(queue_of(lab), syn ? RX_KNOWN : RX_NEW, &m, 1), 0);
		rte_pktmbuf_free(m);
	}
	assert_int_equal(report_of(lab->port, 0).rx_packets, RTE_DIM(shapes));
}

/* Every buffer goes round several times. */
static void buffers_go_round(void **state)
{
	struct lab *lab = *state;
	struct rte_mbuf *m[BURST];
	struct wire_frame f;

	lab_open_size(lab, 1, FILL_RING + 256, MAX_FRAME);
	for (unsigned i = 0; i < 4 * FILL_RING; i += BURST) {
		for (unsigned j = 0; j < BURST; j++) {
			make_frame(&f, OTHER, 60 + (i + j) % 1400, i + j);
			send_raw(lab->raw_fd, &f);
		}
		assert_int_equal(receive(lab->port, RX_KNOWN, m, BURST), BURST);
		for (unsigned j = 0; j < BURST; j++) {
			make_frame(&f, OTHER, 60 + (i + j) % 1400, i + j);
			assert_frame(m[j], &f);
		}
		rte_pktmbuf_free_bulk(m, BURST);
	}
	assert_int_equal(report_of(lab->port, 0).lost_invalid, 0);
}

/* Nobody polls meanwhile: SYNs overflow their own ring and cost the others nothing. */
static void flood_of_new_costs_known_nothing(void **state)
{
	enum { N_NEW = 3000, N_KNOWN = 50 };
	static struct rte_mbuf *m[N_NEW];
	struct lab *lab = *state;
	struct wire_frame syn, other;
	struct port_report report;

	lab_open(lab);
	for (unsigned i = 0; i < N_NEW; i++) {
		make_frame(&syn, SYN, 60, i);
		send_raw(lab->raw_fd, &syn);
		if (i % (N_NEW / N_KNOWN) == 0) {
			make_frame(&other, OTHER, 60, i);
			send_raw(lab->raw_fd, &other);
		}
	}
	AWAIT(lab->port, lost_new_ring, N_NEW - RX_RING);
	assert_int_equal(receive(lab->port, RX_KNOWN, m, N_KNOWN), N_KNOWN);
	for (unsigned i = 0; i < N_KNOWN; i++) {
		make_frame(&other, OTHER, 60, i * (N_NEW / N_KNOWN));
		assert_frame(m[i], &other);
	}
	rte_pktmbuf_free_bulk(m, N_KNOWN);
	assert_int_equal(receive(lab->port, RX_NEW, m, RX_RING), RX_RING);
	rte_pktmbuf_free_bulk(m, RX_RING);
	report = report_of(lab->port, 0);
	assert_int_equal(report.lost_new_ring, N_NEW - RX_RING);
	assert_int_equal(report.lost_known_ring, 0);
	assert_int_equal(report.lost_no_buffer, 0);
}

/* With everything taken from pool and port, frames are lost and counted; once buffers are back, they come again. */
static void empty_pool_recovers(void **state)
{
	enum { N_LOST = 100 };
	static struct rte_mbuf *taken[N_MBUFS], *m[FILL_RING];
	struct lab *lab = *state;
	unsigned n_taken = 0;
	struct wire_frame f;

	lab_open(lab);
	make_frame(&f, OTHER, 60, 1);
	while ((taken[n_taken] = rte_pktmbuf_alloc(lab->pool)))
		n_taken++;
	for (unsigned i = 0; i < FILL_RING; i += BURST) {
		for (unsigned j = 0; j < BURST; j++)
			send_raw(lab->raw_fd, &f);
		assert_int_equal(receive(lab->port, RX_KNOWN, &m[i], BURST), BURST);
	}
	assert_true(lab->port->ops->tx_pending(queue_of(lab)));
	for (unsigned i = 0; i < N_LOST; i++)
		send_raw(lab->raw_fd, &f);
	AWAIT(lab->port, lost_no_buffer, N_LOST);
	assert_int_equal(report_of(lab->port, 0).pool_empty, 1);
	rte_pktmbuf_free_bulk(m, FILL_RING);
	rte_pktmbuf_free_bulk(taken, n_taken);

	assert_int_equal(lab->port->ops->rx(queue_of(lab), RX_NEW, m, BURST), 0);
	assert_false(lab->port->ops->tx_pending(queue_of(lab)));
	for (unsigned i = 0; i < N_LOST; i++)
		send_raw(lab->raw_fd, &f);
	assert_int_equal(receive(lab->port, RX_KNOWN, m, N_LOST), N_LOST);
	rte_pktmbuf_free_bulk(m, N_LOST);
	assert_int_equal(report_of(lab->port, 0).lost_no_buffer, N_LOST);
}

/* Frames longer than a buffer do not come through an MTU that was checked; should one come, it is counted. */
static void too_long_frames_are_counted(void **state)
{
	uint8_t bytes[2500] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};
	struct lab *lab = *state;
	struct wire_frame f;
	struct rte_mbuf *m;

	lab_open(lab);
	assert_int_equal(netlab_run("ip link set g0 mtu 3000 && ip link set c0 mtu 3000"), 0);
	assert_int_equal(send(lab->raw_fd, bytes, sizeof(bytes), 0), sizeof(bytes));
	make_frame(&f, OTHER, 60, 1);
	send_raw(lab->raw_fd, &f);
	assert_int_equal(receive(lab->port, RX_KNOWN, &m, 1), 1);
	assert_frame(m, &f);
	rte_pktmbuf_free(m);
	assert_int_equal(report_of(lab->port, 0).lost_no_buffer, 1);
}

/* --- out --- */

static struct rte_mbuf *mbuf_of(const struct lab *lab, const struct wire_frame *f)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(lab->pool);

	assert_non_null(m);
	memcpy(rte_pktmbuf_append(m, f->len), f->bytes, f->len);
	return m;
}

/* The next frame that came to the raw socket, with the VLAN tag put back that the kernel took out. 0: none came. */
static unsigned receive_raw(int fd, uint8_t *bytes, unsigned size, int timeout_ms)
{
	union {
		struct cmsghdr head;
		uint8_t room[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} control;
	struct iovec part = {.iov_base = bytes, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	const struct tpacket_auxdata *aux;
	ssize_t len;

	if (poll(&pollfd, 1, timeout_ms) <= 0 || (len = recvmsg(fd, &msg, 0)) < 0)
		return 0;
	aux = (const struct tpacket_auxdata *)CMSG_DATA(&control.head);
	if (!(aux->tp_status & TP_STATUS_VLAN_VALID))
		return len;
	memmove(&bytes[16], &bytes[12], len - 12);
	bytes[12] = aux->tp_vlan_tpid >> 8, bytes[13] = aux->tp_vlan_tpid & 0xff;
	bytes[14] = aux->tp_vlan_tci >> 8, bytes[15] = aux->tp_vlan_tci & 0xff;
	return len + 4;
}

static void frames_go_out_as_they_are(void **state)
{
	struct lab *lab = *state;
	uint8_t bytes[MAX_FRAME];
	struct wire_frame f;
	struct rte_mbuf *m;

	lab_open(lab);
	for (unsigned i = 0; i < RTE_DIM(shapes); i++) {
		make_frame(&f, shapes[i].kind, shapes[i].len, i);
		m = mbuf_of(lab, &f);
		assert_int_equal(lab->port->ops->tx(queue_of(lab), &m, 1), 1);
		lab->port->ops->flush(queue_of(lab));
		assert_int_equal(receive_raw(lab->raw_fd, bytes, sizeof(bytes), PATIENCE_MS), f.len);
		assert_memory_equal(bytes, f.bytes, f.len);
		assert_false(lab->port->ops->tx_pending(queue_of(lab)));
	}
	assert_int_equal(report_of(lab->port, 0).tx_packets, RTE_DIM(shapes));
}

/* Takes what came and checks that it is in order. Returns how many frames have come in all. */
static unsigned take_sequence(int fd, unsigned n_received, int timeout_ms)
{
	uint8_t bytes[MAX_FRAME];
	struct wire_frame f;
	unsigned len;

	while ((len = receive_raw(fd, bytes, sizeof(bytes), timeout_ms))) {
		make_frame(&f, OTHER, 60 + n_received % 200, n_received);
		assert_int_equal(len, f.len);
		assert_memory_equal(bytes, f.bytes, f.len);
		n_received++;
		timeout_ms = 0;
	}
	return n_received;
}

/* Frames of a sequence, until the port takes no more. Returns how many it took. */
static unsigned send_sequence(const struct lab *lab, unsigned begin, unsigned n)
{
	struct rte_mbuf *m[BURST];
	unsigned sent = 0, accepted = BURST;
	struct wire_frame f;

	while (sent < n && accepted == BURST) {
		for (unsigned j = 0; j < BURST; j++) {
			make_frame(&f, OTHER, 60 + (begin + sent + j) % 200, begin + sent + j);
			m[j] = mbuf_of(lab, &f);
		}
		accepted = lab->port->ops->tx(queue_of(lab), m, BURST);
		rte_pktmbuf_free_bulk(&m[accepted], BURST - accepted);
		sent += accepted;
	}
	return sent;
}

static void ten_thousand_frames_arrive(void **state)
{
	enum { N = 10016 };
	unsigned n_received = 0;
	struct lab *lab = *state;

	lab_open(lab);
	for (unsigned i = 0; i < N; i += BURST) {
		assert_int_equal(send_sequence(lab, i, BURST), BURST);
		lab->port->ops->flush(queue_of(lab));
		n_received = take_sequence(lab->raw_fd, n_received, 0);
	}
	while (n_received < N) {
		unsigned before = n_received;

		lab->port->ops->flush(queue_of(lab));
		n_received = take_sequence(lab->raw_fd, n_received, PATIENCE_MS);
		if (n_received == before)
			fail_msg("%u of %u frames arrived", n_received, N);
	}
	assert_int_equal(report_of(lab->port, 0).tx_full, 0);
}

/* One flush sends a whole ring, however few frames the kernel takes per kick; what does not fit stays with the caller.
 */
static void one_flush_empties_the_ring(void **state)
{
	unsigned n_received = 0;
	struct lab *lab = *state;
	unsigned sent;

	lab_open(lab);
	sent = send_sequence(lab, 0, 2 * RX_RING);
	assert_int_equal(sent, 2048);
	assert_int_equal(report_of(lab->port, 0).tx_full, BURST);
	assert_true(lab->port->ops->tx_pending(queue_of(lab)));
	lab->port->ops->flush(queue_of(lab));
	assert_false(lab->port->ops->tx_pending(queue_of(lab)));
	while (n_received < sent) {
		unsigned before = n_received;

		n_received = take_sequence(lab->raw_fd, n_received, PATIENCE_MS);
		assert_true(n_received > before);
	}
}

/* --- trouble --- */

/* Until a frame gets through in both directions. */
static void assert_both_ways(struct lab *lab)
{
	uint64_t deadline_ns = monotonic_ns() + PATIENCE_MS * 1000000ull;
	bool in = false, out = false;
	uint8_t bytes[MAX_FRAME];
	struct wire_frame f;

	make_frame(&f, OTHER, 100, 7);
	while (!(in && out) && monotonic_ns() < deadline_ns) {
		struct rte_mbuf *m = mbuf_of(lab, &f);

		if (lab->port->ops->tx(queue_of(lab), &m, 1) == 0)
			rte_pktmbuf_free(m);
		lab->port->ops->flush(queue_of(lab));
		while (receive_raw(lab->raw_fd, bytes, sizeof(bytes), 10) == f.len)
			out |= memcmp(bytes, f.bytes, f.len) == 0;
		if (send(lab->raw_fd, f.bytes, f.len, 0) != f.len)
			continue;
		while (lab->port->ops->rx(queue_of(lab), RX_KNOWN, &m, 1)) {
			in |= m->pkt_len == f.len && memcmp(rte_pktmbuf_mtod(m, void *), f.bytes, f.len) == 0;
			rte_pktmbuf_free(m);
		}
	}
	assert_true(out);
	assert_true(in);
}

static void link_goes_down_and_up(void **state)
{
	static const char *const devices[] = {"g0", "c0"};
	struct lab *lab = *state;
	struct wire_frame f;

	lab_open(lab);
	make_frame(&f, OTHER, 100, 7);
	assert_both_ways(lab);
	for (unsigned i = 0; i < RTE_DIM(devices); i++) {
		assert_int_equal(netlab_run("ip link set %s down", devices[i]), 0);
		for (unsigned j = 0; j < 3 * BURST; j++) {
			struct rte_mbuf *m = mbuf_of(lab, &f);

			if (lab->port->ops->tx(queue_of(lab), &m, 1) == 0)
				rte_pktmbuf_free(m);
			lab->port->ops->flush(queue_of(lab));
		}
		assert_false(lab->port->ops->tx_pending(queue_of(lab)));
		assert_int_equal(netlab_run("ip link set %s up", devices[i]), 0);
		/* A raw socket reports the down of its device once. */
		recv(lab->raw_fd, NULL, 0, MSG_DONTWAIT);
		assert_both_ways(lab);
	}
}

/* Sleeps of a worker that has nothing else to do. */
static void assert_sleeps(struct lab *lab)
{
	enum { SLEEP_MS = 50 };
	struct pollfd fds[RX_CLASSES];

	for (unsigned i = 0; i < 4; i++) {
		uint64_t begin_ns = monotonic_ns();
		struct rte_mbuf *m;

		assert_int_equal(lab->port->ops->rx(queue_of(lab), RX_KNOWN, &m, 1), 0);
		assert_int_equal(lab->port->ops->rx(queue_of(lab), RX_NEW, &m, 1), 0);
		lab->port->ops->flush(queue_of(lab));
		assert_int_equal(lab->port->ops->sleep_on(queue_of(lab), fds), RX_CLASSES);
		assert_false(lab->port->ops->tx_pending(queue_of(lab)));
		assert_int_equal(poll(fds, RX_CLASSES, SLEEP_MS), 0);
		assert_true(monotonic_ns() - begin_ns >= SLEEP_MS * 1000000ull);
	}
}

static void device_is_deleted(void **state)
{
	struct lab *lab = *state;

	lab_open(lab);
	assert_both_ways(lab);
	assert_int_equal(netlab_run("ip link del c0"), 0);
	for (unsigned i = 0; i < 100; i++) {
		send_sequence(lab, 0, BURST);
		lab->port->ops->flush(queue_of(lab));
	}
	assert_sleeps(lab);
	assert_true(report_of(lab->port, 0).tx_full > 0);
}

/* The kernel's buffers, what waits in all rings and what was not flushed: closing gives everything back. */
static void close_with_full_rings(void **state)
{
	struct lab *lab = *state;
	struct wire_frame f;

	lab_open(lab);
	for (unsigned i = 0; i < 2 * RX_RING + 100; i++) {
		make_frame(&f, i % 2 ? SYN : OTHER, 60, i);
		send_raw(lab->raw_fd, &f);
	}
	send_sequence(lab, 0, 10 * BURST);
	/* The rings of both classes together hold as much as the kernel has buffers. */
	AWAIT(lab->port, lost_no_buffer, 2 * RX_RING + 100 - FILL_RING);
}

/* The kernel frees a queue late. */
static void reopens_at_once(void **state)
{
	struct lab *lab = *state;

	lab_open(lab);
	for (unsigned i = 0; i < 5; i++) {
		close(lab->link_fd);
		lab->port->ops->close(lab->port);
		assert_int_equal(rte_mempool_avail_count(lab->pool), lab->available);
		lab->port = open_port("g0", 1, lab->pool);
		lab->link_fd = attach(lab->redirect, lab->port);
	}
	assert_both_ways(lab);
}

static void two_queues(void **state)
{
	struct lab *lab = *state;
	uint8_t bytes[MAX_FRAME];
	struct wire_frame f;

	lab_open_size(lab, 2, N_MBUFS, MAX_FRAME);
	for (unsigned queue = 0; queue < 2; queue++) {
		struct rte_mbuf *m;

		make_frame(&f, OTHER, 200, queue);
		m = mbuf_of(lab, &f);
		assert_int_equal(lab->port->ops->tx(lab->port->queues[queue], &m, 1), 1);
		lab->port->ops->flush(lab->port->queues[queue]);
		assert_int_equal(receive_raw(lab->raw_fd, bytes, sizeof(bytes), PATIENCE_MS), f.len);
		assert_memory_equal(bytes, f.bytes, f.len);
		assert_int_equal(report_of(lab->port, queue).tx_packets, 1);
	}
}

/* --- two ports on one pool --- */

static void forward_all(const struct lab *lab, struct port *out, unsigned n)
{
	struct rte_mbuf *m[BURST];
	unsigned done = 0;

	while (done < n) {
		unsigned got = receive(lab->port, RX_KNOWN, m, RTE_MIN(n - done, (unsigned)BURST));

		assert_true(got > 0);
		assert_int_equal(out->ops->tx(out->queues[0], m, got), got);
		out->ops->flush(out->queues[0]);
		done += got;
	}
}

static void forwards_between_ports(void **state)
{
	enum { ROUNDS = 40 };
	struct lab *lab = *state;
	unsigned n_received = 0;
	struct wire_frame f;
	struct port *out;
	int out_fd;

	lab_open(lab);
	assert_int_equal(netlab_run("ip link add g1 type veth peer name c1"), 0);
	assert_int_equal(netlab_run("ip link set c1 arp off up && ip link set g1 arp off up"), 0);
	out = open_port("g1", 1, lab->pool);
	out_fd = open_raw("c1");
	for (unsigned i = 0; i < ROUNDS * 100; i += 100) {
		for (unsigned j = 0; j < 100; j++) {
			make_frame(&f, OTHER, 60 + (i + j) % 200, i + j);
			send_raw(lab->raw_fd, &f);
		}
		forward_all(lab, out, 100);
		while (n_received < i + 100) {
			unsigned before = n_received;

			n_received = take_sequence(out_fd, n_received, PATIENCE_MS);
			assert_true(n_received > before);
		}
	}
	close(out_fd);
	out->ops->close(out);
}

/* --- what cannot be opened --- */

static void assert_refused(const struct port_config *config, struct rte_mempool *pool, int error, const char *hint)
{
	unsigned available = rte_mempool_avail_count(pool);
	char err[256] = "";

	errno = 0;
	assert_null(port_xsk_open(config, pool, err, sizeof(err)));
	assert_int_equal(errno, error);
	if (!strstr(err, hint) || !strstr(err, config->device))
		fail_msg("\"%s\" does not name %s and \"%s\"", err, config->device, hint);
	assert_int_equal(rte_mempool_avail_count(pool), available);
}

static void refusals_name_the_mending_command(void **state)
{
	struct lab *lab = *state;
	struct port_config config = config_of("g0", 1), absent = config_of("absent0", 1);
	struct port_config too_many = config_of("g0", 2), long_name = config_of("a-name-too-long0", 1);
	struct rte_mempool *small;

	lab_open(lab);
	assert_refused(&absent, lab->pool, ENODEV, "ip link");
	assert_refused(&long_name, lab->pool, ENODEV, "ip link");
	assert_refused(&config, lab->pool, EBUSY, "ss --xdp");
	close(lab->link_fd);
	lab->link_fd = -1;
	lab->port->ops->close(lab->port);
	lab->port = NULL;
	assert_refused(&too_many, lab->pool, EINVAL, "ethtool -l g0");
	small = port_pool_create("small", FILL_RING / 2, MAX_FRAME);
	assert_non_null(small);
	assert_refused(&config, small, ENOBUFS, "gateway.packets");
	rte_mempool_free(small);
	assert_int_equal(netlab_run("ip link set g0 mtu 3000"), 0);
	assert_refused(&config, lab->pool, EMSGSIZE, "ip link set g0 mtu");
}

/* In a process of its own, for rights do not come back. */
static void refusal_without_rights(void **state)
{
	struct port_config config = config_of("g0", 1);
	struct lab *lab = *state;
	int status;
	pid_t pid;

	make_veth(1);
	lab->pool = port_pool_create("lab", N_MBUFS, MAX_FRAME);
	assert_non_null(lab->pool);
	lab->available = rte_mempool_avail_count(lab->pool);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char err[256] = "";

		capng_clear(CAPNG_SELECT_BOTH);
		if (capng_apply(CAPNG_SELECT_BOTH))
			_exit(2);
		_exit(!port_xsk_open(&config, lab->pool, err, sizeof(err)) && errno == EPERM &&
				      strstr(err, "CAP_NET_RAW")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- the pool --- */

static void pool_fits_its_frames(void **state)
{
	struct rte_mempool *pool = port_pool_create("edge", 64, port_xsk_max_frame());

	assert_non_null(pool);
	assert_int_equal(pool->nb_mem_chunks, 1);
	assert_true(port_pool_object_size(port_xsk_max_frame()) <= 4096);
	assert_true(port_xsk_max_frame() >= 3000);
	rte_mempool_free(pool);
	assert_null(port_pool_create("long", 64, port_xsk_max_frame() + 64));
	assert_true(port_pool_object_size(100) >= 2048);
}

static void longest_frames_fit(void **state)
{
	struct lab *lab = *state;
	uint8_t bytes[4096] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5};
	unsigned len = port_xsk_max_frame() - 4;
	struct rte_mbuf *m;

	lab_open_size(lab, 1, FILL_RING + 256, port_xsk_max_frame());
	for (unsigned i = 14; i < len; i++)
		bytes[i] = i * 7;
	assert_int_equal(send(lab->raw_fd, bytes, len, 0), len);
	assert_int_equal(receive(lab->port, RX_KNOWN, &m, 1), 1);
	assert_int_equal(m->pkt_len, len);
	assert_memory_equal(rte_pktmbuf_mtod(m, void *), bytes, len);
	rte_pktmbuf_free(m);
}

static int group_setup(void **state)
{
	if (netlab_enter() || netlab_run("sysctl -q -w net.ipv6.conf.default.disable_ipv6=1"))
		return -1;
	return dataplane_eal_init(EAL_BYTES, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pool_fits_its_frames),
		cmocka_unit_test_setup_teardown(frames_in_are_frames_out, setup, teardown),
		cmocka_unit_test_setup_teardown(buffers_go_round, setup, teardown),
		cmocka_unit_test_setup_teardown(flood_of_new_costs_known_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(empty_pool_recovers, setup, teardown),
		cmocka_unit_test_setup_teardown(too_long_frames_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(frames_go_out_as_they_are, setup, teardown),
		cmocka_unit_test_setup_teardown(ten_thousand_frames_arrive, setup, teardown),
		cmocka_unit_test_setup_teardown(one_flush_empties_the_ring, setup, teardown),
		cmocka_unit_test_setup_teardown(link_goes_down_and_up, setup, teardown),
		cmocka_unit_test_setup_teardown(device_is_deleted, setup, teardown),
		cmocka_unit_test_setup_teardown(close_with_full_rings, setup, teardown),
		cmocka_unit_test_setup_teardown(reopens_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(two_queues, setup, teardown),
		cmocka_unit_test_setup_teardown(forwards_between_ports, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_name_the_mending_command, setup, teardown),
		cmocka_unit_test_setup_teardown(refusal_without_rights, setup, teardown),
		cmocka_unit_test_setup_teardown(longest_frames_fit, setup, teardown),
	};

	return cmocka_run_group_tests(tests, group_setup, NULL);
}
