// SPDX-License-Identifier: BSD-3-Clause
/*
 * The yardstick of the veth bench: as little as an AF_XDP forwarder can do. What comes in at one of two devices goes
 * out of the other with its Ethernet addresses swapped; one socket per device (queue 0), one UMEM for both, so that no
 * byte is copied here. Independent of Spillway's own ports, and tuned the same way. Ends at SIGTERM or SIGINT.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xdp/xsk.h>

#define FRAME_SIZE  2048
#define N_FRAMES    16384
#define RING        2048
#define FILL        4096
#define BURST       256 /* of one turn: one system call sends them */
#define IDLE_LOOPS  256
#define TX_BUDGET   512
#define SEND_BUFFER (RING * 2048)

#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

struct device {
	const char *name;
	struct xsk_socket *socket;
	int fd;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons comp, rx;
	unsigned owed; /* buffers that the fill ring lacks */
};

static struct xsk_umem *umem;
static uint8_t *memory;
static uint64_t free_addrs[N_FRAMES];
static unsigned n_free;
static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
	stop = 1;
}

static void refill(struct device *d)
{
	unsigned n = d->owed < n_free ? d->owed : n_free;
	uint32_t index;

	if (n == 0 || xsk_ring_prod__reserve(&d->fill, n, &index) != n)
		return;
	for (unsigned i = 0; i < n; i++)
		*xsk_ring_prod__fill_addr(&d->fill, index + i) = free_addrs[--n_free];
	xsk_ring_prod__submit(&d->fill, n);
	d->owed -= n;
}

static void reap(struct device *d)
{
	uint32_t index;
	unsigned n = xsk_ring_cons__peek(&d->comp, RING, &index);

	for (unsigned i = 0; i < n; i++)
		free_addrs[n_free++] = *xsk_ring_cons__comp_addr(&d->comp, index + i) & ~(uint64_t)(FRAME_SIZE - 1);
	if (n)
		xsk_ring_cons__release(&d->comp, n);
}

static void swap_addresses(uint8_t *frame)
{
	uint8_t destination[6];

	memcpy(destination, frame, 6);
	memcpy(frame, frame + 6, 6);
	memcpy(frame + 6, destination, 6);
}

static unsigned forward(struct device *in, struct device *out)
{
	uint32_t rx_index, tx_index;
	unsigned n = xsk_prod_nb_free(&out->tx, BURST);

	n = xsk_ring_cons__peek(&in->rx, n < BURST ? n : BURST, &rx_index);
	if (n == 0 || xsk_ring_prod__reserve(&out->tx, n, &tx_index) != n)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		const struct xdp_desc *desc = xsk_ring_cons__rx_desc(&in->rx, rx_index + i);

		swap_addresses(memory + desc->addr);
		*xsk_ring_prod__tx_desc(&out->tx, tx_index + i) =
			(struct xdp_desc){.addr = desc->addr, .len = desc->len};
	}
	xsk_ring_cons__release(&in->rx, n);
	xsk_ring_prod__submit(&out->tx, n);
	in->owed += n;
	return n;
}

static void flush(struct device *d)
{
	uint32_t before, after = *d->tx.consumer;

	while (after != d->tx.cached_prod && xsk_ring_prod__needs_wakeup(&d->tx)) {
		before = after;
		sendto(d->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
		after = __atomic_load_n(d->tx.consumer, __ATOMIC_ACQUIRE);
		if (after == before)
			break;
	}
	reap(d);
}

static void loop(struct device *d)
{
	unsigned idle = 0;

	while (!stop) {
		unsigned n = forward(&d[0], &d[1]) + forward(&d[1], &d[0]);

		for (unsigned i = 0; i < 2; i++) {
			flush(&d[i]);
			refill(&d[i]);
		}
		idle = n ? 0 : idle + 1;
		if (idle > IDLE_LOOPS) {
			struct pollfd fds[2] = {{.fd = d[0].fd, .events = POLLIN}, {.fd = d[1].fd, .events = POLLIN}};

			poll(fds, 2, 100);
		}
	}
}

/* A program of five instructions: everything that arrives at a queue goes to the queue's socket. */
static int attach(const struct device *d)
{
	int map_fd = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "sockets", 4, 4, 1, NULL), prog_fd;
	const struct bpf_insn redirect[] = {
		{.code = BPF_LDX | BPF_MEM | BPF_W,
		 .dst_reg = BPF_REG_2,
		 .src_reg = BPF_REG_1,
		 .off = offsetof(struct xdp_md, rx_queue_index)},
		{.code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map_fd},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
		{.code = BPF_JMP | BPF_EXIT},
	};
	uint32_t zero = 0;

	if (map_fd < 0 || bpf_map_update_elem(map_fd, &zero, &d->fd, 0))
		return -errno;
	prog_fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "xskfwd", "BSD", redirect, sizeof(redirect) / sizeof(redirect[0]),
				NULL);
	if (prog_fd < 0 || bpf_link_create(prog_fd, if_nametoindex(d->name), BPF_XDP, NULL) < 0)
		return -errno;
	return 0;
}

static int open_device(struct device *d)
{
	struct xsk_socket_config config = {
		.rx_size = RING,
		.tx_size = RING,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = XDP_USE_NEED_WAKEUP,
	};
	int budget = TX_BUDGET, send_buffer = SEND_BUFFER;
	int rc = xsk_socket__create_shared(&d->socket, d->name, 0, umem, &d->rx, &d->tx, &d->fill, &d->comp, &config);

	if (rc)
		return rc;
	d->fd = xsk_socket__fd(d->socket);
	setsockopt(d->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));
	setsockopt(d->fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer, sizeof(send_buffer));
	d->owed = FILL;
	refill(d);
	return attach(d);
}

static int open_umem(struct device *d)
{
	struct xsk_umem_config config = {.fill_size = FILL, .comp_size = RING, .frame_size = FRAME_SIZE};

	memory = mmap(NULL, (size_t)N_FRAMES * FRAME_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		return -errno;
	for (unsigned i = 0; i < N_FRAMES; i++)
		free_addrs[n_free++] = (uint64_t)i * FRAME_SIZE;
	return xsk_umem__create(&umem, memory, (size_t)N_FRAMES * FRAME_SIZE, &d->fill, &d->comp, &config);
}

int main(int argc, char **argv)
{
	static struct device devices[2];
	struct sigaction action = {.sa_handler = on_signal};
	int rc;

	if (argc != 3) {
		fprintf(stderr, "usage: xskfwd DEVICE DEVICE\n");
		return 2;
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	rc = open_umem(&devices[0]);
	for (unsigned i = 0; i < 2 && !rc; i++) {
		devices[i].name = argv[1 + i];
		rc = open_device(&devices[i]);
		if (rc)
			fprintf(stderr, "xskfwd: %s: %s\n", argv[1 + i], strerror(-rc));
	}
	if (rc)
		return 1;
	puts("ready");
	fflush(stdout);
	loop(devices);
	return 0;
}
