/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A Linux netdev through AF_XDP. Per queue two sockets share one UMEM, fill and completion ring: `known` receives
 * established traffic and transmits, `new` receives SYNs; the gate's program chooses. The UMEM is the packet pool
 * itself, registered once per queue, so that a frame goes from one port to another without a copy in user space.
 *
 * A chunk of the UMEM is an object of the pool, its header and mbuf included; addresses are those of the object
 * (unaligned mode: the upper 16 bits carry the offset of the data within it).
 *
 * A buffer is with the kernel from the moment when it enters the fill or the transmit ring until it leaves a receive or
 * the completion ring. In between the kernel and the driver keep buffers in lists of their own, which no ring shows:
 * hence `held`, from which close gives all of them back.
 */
#include "port.h"

#include <errno.h>
#include <limits.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_reciprocal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <xdp/xsk.h>

#define RX_RING        2048
#define TX_RING        2048
#define FILL_RING      4096
#define COMP_RING      2048
#define REFILL         64  /* buffers given to the kernel at a time */
#define KICKS_MAX      64  /* system calls per flush: each sends at least 32 frames where the device has room */
#define TX_BUDGET      512 /* frames per kick, where the kernel lets us choose (6.17) */
/* The kernel charges a frame of any size with about 1 KiB; the default of 208 KiB would bound what is under way. */
#define SEND_BUFFER    (TX_RING * 2048)
#define ETHER_OVERHEAD 18 /* header and one VLAN tag */

#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

struct port_queue {
	struct port *port;
	struct rte_mempool *pool;
	struct xsk_umem *umem;
	uint8_t *umem_base;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons comp;
	struct xsk_ring_cons rx[RX_CLASSES];
	struct xsk_socket *sockets[RX_CLASSES];
	int fds[RX_CLASSES];
	unsigned owed;        /* buffers taken from the fill ring and not replaced yet */
	unsigned outstanding; /* frames given to the kernel and not completed */
	bool starved;         /* the pool could not pay what is owed */
	bool tx_refused;      /* the device is down or gone: what waits will wait for long */
	bool zero_copy;
	struct rte_reciprocal object_units; /* size of an object in HELD_UNIT bytes */
	uint64_t *held;                     /* a bit per object: the kernel has it */
	uint64_t slept_at_packets;          /* rx_packets at the last sleep_on() */
	/* read by others */
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, tx_full, pool_empty;
};

static inline void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* --- buffers: an address is an object's offset in the UMEM --- */

/* Objects begin and end at multiples of this; with it, 32 bits number any place in 256 GiB. */
#define HELD_UNIT RTE_MEMPOOL_ALIGN

static inline struct rte_mbuf *mbuf_of_object(const struct port_queue *q, uint64_t addr)
{
	return (struct rte_mbuf *)(q->umem_base + addr + q->pool->header_size);
}

static inline uint64_t object_of_mbuf(const struct port_queue *q, const struct rte_mbuf *m)
{
	return (uint64_t)((const uint8_t *)m - q->umem_base) - q->pool->header_size;
}

static uint32_t object_size(const struct rte_mempool *pool)
{
	return pool->header_size + pool->elt_size + pool->trailer_size;
}

/* Objects are at least their size apart, so no two share a slot. */
static inline uint32_t held_slot(const struct port_queue *q, uint64_t addr)
{
	return rte_reciprocal_divide(addr / HELD_UNIT, q->object_units);
}

static inline void hold(struct port_queue *q, uint64_t addr)
{
	uint32_t slot = held_slot(q, addr);

	q->held[slot / 64] |= 1ull << slot % 64;
}

static inline void release(struct port_queue *q, uint64_t addr)
{
	uint32_t slot = held_slot(q, addr);

	q->held[slot / 64] &= ~(1ull << slot % 64);
}

/* --- receive --- */

static bool give_buffers(struct port_queue *q, unsigned n)
{
	void *objects[REFILL];
	uint32_t index;

	if (rte_mempool_get_bulk(q->pool, objects, n))
		return false;
	if (xsk_ring_prod__reserve(&q->fill, n, &index) != n) {
		rte_mempool_put_bulk(q->pool, objects, n);
		return false;
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t addr = object_of_mbuf(q, objects[i]);

		hold(q, addr);
		*xsk_ring_prod__fill_addr(&q->fill, index + i) = addr;
	}
	xsk_ring_prod__submit(&q->fill, n);
	q->owed -= n;
	return true;
}

/*
 * Keeps the fill ring full. What the pool cannot give stays owed and is tried again at the next call; of a nearly empty
 * pool the last few are taken one by one, for without a buffer in the kernel nothing would ever be received again.
 */
static void refill(struct port_queue *q)
{
	unsigned n = REFILL;

	while (n && q->owed >= REFILL)
		if (!give_buffers(q, n))
			n /= 8;
	if (q->owed >= REFILL && !q->starved)
		count(&q->pool_empty, 1);
	q->starved = q->owed >= REFILL;
}

/* A driver that ran out of receive buffers stops polling until it is told that there are some. */
static void wake_receiver(struct port_queue *q)
{
	if (xsk_ring_prod__needs_wakeup(&q->fill))
		recvfrom(q->fds[RX_KNOWN], NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static inline void take_frame(struct port_queue *q, struct rte_mbuf *m, uint64_t offset, uint32_t len)
{
	m->data_off = offset - q->pool->header_size - sizeof(struct rte_mbuf);
	m->data_len = m->pkt_len = len;
	m->port = q->port->index;
	m->ol_flags = 0;
	m->packet_type = 0;
}

static uint16_t xsk_rx(struct port_queue *q, enum rx_class class, struct rte_mbuf **m, uint16_t n)
{
	struct xsk_ring_cons *rx = &q->rx[class];
	uint64_t bytes = 0;
	uint32_t index;

	n = xsk_ring_cons__peek(rx, n, &index);
	for (unsigned i = 0; i < n; i++) {
		uint64_t addr = xsk_umem__extract_addr(xsk_ring_cons__rx_desc(rx, index + i)->addr);

		m[i] = mbuf_of_object(q, addr);
		rte_prefetch0(m[i]);
		release(q, addr);
	}
	for (unsigned i = 0; i < n; i++) {
		const struct xdp_desc *desc = xsk_ring_cons__rx_desc(rx, index + i);

		take_frame(q, m[i], xsk_umem__extract_offset(desc->addr), desc->len);
		rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
		bytes += desc->len;
	}
	if (n) {
		xsk_ring_cons__release(rx, n);
		q->owed += n;
		count(&q->rx_packets, n);
		count(&q->rx_bytes, bytes);
	}
	/* Also without a frame: there will be none as long as the kernel has no buffer. */
	if (q->owed >= REFILL)
		refill(q);
	wake_receiver(q);
	return n;
}

/* --- transmit --- */

static void reap(struct port_queue *q)
{
	struct rte_mbuf *done[64];
	uint32_t index;
	unsigned n;

	while (q->outstanding && (n = xsk_ring_cons__peek(&q->comp, RTE_DIM(done), &index))) {
		for (unsigned i = 0; i < n; i++) {
			uint64_t addr = xsk_umem__extract_addr(*xsk_ring_cons__comp_addr(&q->comp, index + i));

			release(q, addr);
			done[i] = mbuf_of_object(q, addr);
		}
		xsk_ring_cons__release(&q->comp, n);
		rte_pktmbuf_free_bulk(done, n);
		q->outstanding -= n;
	}
}

/* The completion ring must have room for whatever is under way. */
static unsigned tx_room(struct port_queue *q, unsigned n)
{
	unsigned room;

	if (COMP_RING - q->outstanding < n)
		reap(q);
	room = RTE_MIN(xsk_prod_nb_free(&q->tx, n), COMP_RING - q->outstanding);
	return RTE_MIN(room, n);
}

static uint16_t xsk_tx(struct port_queue *q, struct rte_mbuf **m, uint16_t n)
{
	unsigned room = tx_room(q, n);
	uint64_t bytes = 0;
	uint32_t index;

	if (room < n)
		count(&q->tx_full, n - room);
	if (room == 0 || xsk_ring_prod__reserve(&q->tx, room, &index) != room)
		return 0;
	for (unsigned i = 0; i < room; i++) {
		struct xdp_desc *desc = xsk_ring_prod__tx_desc(&q->tx, index + i);
		uint64_t addr = object_of_mbuf(q, m[i]);
		uint64_t offset = rte_pktmbuf_mtod(m[i], uint8_t *) - q->umem_base - addr;

		hold(q, addr);
		desc->addr = addr | offset << XSK_UNALIGNED_BUF_OFFSET_SHIFT;
		desc->len = m[i]->data_len;
		desc->options = 0;
		bytes += m[i]->data_len;
	}
	xsk_ring_prod__submit(&q->tx, room);
	q->outstanding += room;
	count(&q->tx_packets, room);
	count(&q->tx_bytes, bytes);
	return room;
}

/* Frames in the transmit ring that the kernel did not take yet. */
static unsigned tx_waiting(const struct port_queue *q)
{
	return q->tx.cached_prod - __atomic_load_n(q->tx.consumer, __ATOMIC_ACQUIRE);
}

/*
 * True if another kick may help at once. EAGAIN: the kernel sent its budget, or the device or the send buffer is full;
 * EBUSY: the device dropped a frame; ENOBUFS: no memory for one. Anything else: the device is down or gone.
 */
static bool kick(struct port_queue *q)
{
	unsigned waiting = tx_waiting(q);

	if (sendto(q->fds[RX_KNOWN], NULL, 0, MSG_DONTWAIT, NULL, 0) < 0) {
		q->tx_refused = errno != EAGAIN && errno != EBUSY && errno != ENOBUFS && errno != EINTR;
		return !q->tx_refused && tx_waiting(q) < waiting;
	}
	q->tx_refused = false;
	return tx_waiting(q) < waiting;
}

static void xsk_flush(struct port_queue *q)
{
	if (q->outstanding == 0)
		return;
	for (int i = 0; i < KICKS_MAX && tx_waiting(q) && xsk_ring_prod__needs_wakeup(&q->tx); i++)
		if (!kick(q))
			break;
	reap(q);
}

/* Nothing tells us when the device has room again or when the pool has buffers again: the worker must look. */
static bool xsk_tx_pending(const struct port_queue *q)
{
	return q->starved || (q->outstanding && !q->tx_refused && tx_waiting(q));
}

/* --- sleep, report --- */

/*
 * The socket of a deleted device reports an error for ever, and poll() would return at once for ever. A negative
 * descriptor is one that poll() passes over; the worker wakes up every so often and asks again.
 */
static void leave_out_failed(struct pollfd *fds)
{
	if (poll(fds, RX_CLASSES, 0) <= 0)
		return;
	for (unsigned class = 0; class < RX_CLASSES; class ++)
		if (fds[class].revents & (POLLERR | POLLHUP | POLLNVAL))
			fds[class].fd = -1;
}

static unsigned xsk_sleep_on(struct port_queue *q, struct pollfd *fds)
{
	refill(q);
	for (unsigned class = 0; class < RX_CLASSES; class ++)
		fds[class] = (struct pollfd){.fd = q->fds[class], .events = POLLIN};
	/* A queue that received something since the last time is alive: no system call for it. */
	if (q->rx_packets == q->slept_at_packets)
		leave_out_failed(fds);
	q->slept_at_packets = q->rx_packets;
	return RX_CLASSES;
}

static int xsk_fd(const struct port_queue *q, enum rx_class class)
{
	return q->fds[class];
}

static struct xdp_statistics statistics(const struct port_queue *q, enum rx_class class)
{
	struct xdp_statistics s = {0};
	socklen_t len = sizeof(s);

	if (getsockopt(q->fds[class], SOL_XDP, XDP_STATISTICS, &s, &len))
		return (struct xdp_statistics){0};
	return s;
}

/*
 * In copy mode the kernel counts frames that it had no buffer for, or only a too short one, per socket. A zero-copy
 * driver notices earlier and counts how often it found the fill ring empty, which is the same number at both sockets.
 */
static uint64_t lost_no_buffer(bool zero_copy, const struct xdp_statistics *known, const struct xdp_statistics *new)
{
	return zero_copy ? known->rx_fill_ring_empty_descs : known->rx_dropped + new->rx_dropped;
}

static void xsk_report(const struct port_queue *q, struct port_report *out)
{
	struct xdp_statistics known = statistics(q, RX_KNOWN), new = statistics(q, RX_NEW);

	out->rx_packets = __atomic_load_n(&q->rx_packets, __ATOMIC_RELAXED);
	out->rx_bytes = __atomic_load_n(&q->rx_bytes, __ATOMIC_RELAXED);
	out->tx_packets = __atomic_load_n(&q->tx_packets, __ATOMIC_RELAXED);
	out->tx_bytes = __atomic_load_n(&q->tx_bytes, __ATOMIC_RELAXED);
	out->tx_full = __atomic_load_n(&q->tx_full, __ATOMIC_RELAXED);
	out->pool_empty = __atomic_load_n(&q->pool_empty, __ATOMIC_RELAXED);
	out->lost_known_ring = known.rx_ring_full;
	out->lost_new_ring = new.rx_ring_full;
	out->lost_no_buffer = lost_no_buffer(q->zero_copy, &known, &new);
	/* Those of the fill ring are the same number at both sockets. */
	out->lost_invalid = known.rx_invalid_descs + known.tx_invalid_descs;
	out->zero_copy = q->zero_copy;
}

/* --- close --- */

static void return_held(struct rte_mempool *pool, void *arg, void *object, unsigned index)
{
	struct port_queue *q = arg;
	uint32_t slot = held_slot(q, object_of_mbuf(q, object));

	if (q->held[slot / 64] & 1ull << slot % 64)
		rte_mempool_put(pool, object);
}

/* The kernel ends a zero-copy pool some time after the last socket is closed; until then the device may write there. */
static void wait_for_device(void)
{
	struct timespec grace = {.tv_nsec = 200000000};

	nanosleep(&grace, NULL);
}

static void queue_close(struct port_queue *q)
{
	if (!q)
		return;
	for (int class = RX_CLASSES - 1; class >= 0; class --)
		if (q->sockets[class])
			xsk_socket__delete(q->sockets[class]);
	if (q->umem)
		xsk_umem__delete(q->umem);
	if (q->zero_copy)
		wait_for_device();
	if (q->held)
		rte_mempool_obj_iter(q->pool, return_held, q);
	free(q->held);
	free(q);
}

static void xsk_close(struct port *port)
{
	for (unsigned i = 0; i < port->config.n_queues; i++)
		queue_close(port->queues[i]);
	free(port);
}

static const struct port_ops xsk_ops = {
	.rx = xsk_rx,
	.tx = xsk_tx,
	.flush = xsk_flush,
	.sleep_on = xsk_sleep_on,
	.tx_pending = xsk_tx_pending,
	.fd = xsk_fd,
	.report = xsk_report,
	.close = xsk_close,
};

/* --- open --- */

/* What the kernel leaves free in a buffer before the frame: the object's header, the mbuf and our own headroom. */
static uint32_t frame_headroom(const struct rte_mempool *pool)
{
	return pool->header_size + sizeof(struct rte_mbuf) + RTE_PKTMBUF_HEADROOM;
}

static uint32_t frame_room(const struct rte_mempool *pool)
{
	return object_size(pool) - frame_headroom(pool) - XDP_PACKET_HEADROOM;
}

static int open_umem(struct port_queue *q)
{
	const struct rte_mempool_memhdr *chunk = STAILQ_FIRST(&q->pool->mem_list);
	uintptr_t page = sysconf(_SC_PAGESIZE), begin = (uintptr_t)chunk->addr & ~(page - 1);
	uint64_t size = (uintptr_t)chunk->addr + chunk->len - begin;
	struct xsk_umem_config config = {
		.fill_size = FILL_RING,
		.comp_size = COMP_RING,
		.frame_size = object_size(q->pool),
		.frame_headroom = frame_headroom(q->pool),
		.flags = XDP_UMEM_UNALIGNED_CHUNK_FLAG,
	};

	q->umem_base = (uint8_t *)begin;
	q->object_units = rte_reciprocal_value(config.frame_size / HELD_UNIT);
	q->held = calloc(size / config.frame_size / 64 + 1, sizeof(*q->held));
	if (!q->held)
		return -ENOMEM;
	return xsk_umem__create(&q->umem, q->umem_base, size, &q->fill, &q->comp, &config);
}

/*
 * Objects lie across the borders of plain pages, which need not be neighbours on the bus: the kernel would refuse those
 * buffers to a device that writes into them itself. Copying has no such trouble.
 */
static bool must_copy(const struct port_config *config, const struct rte_mempool *pool)
{
	const struct rte_memseg_list *list = rte_mem_virt2memseg_list(STAILQ_FIRST(&pool->mem_list)->addr);

	return config->force_copy || config->skb_mode || !list || list->page_sz <= (uint64_t)sysconf(_SC_PAGESIZE);
}

static int open_socket(struct port_queue *q, unsigned queue, enum rx_class class)
{
	const struct port_config *pc = &q->port->config;
	struct xsk_socket_config config = {
		.rx_size = RX_RING,
		.tx_size = TX_RING,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = XDP_USE_NEED_WAKEUP | (must_copy(pc, q->pool) ? XDP_COPY : 0),
	};
	int rc = xsk_socket__create_shared(&q->sockets[class], pc->device, queue, q->umem, &q->rx[class],
					   class == RX_KNOWN ? &q->tx : NULL, &q->fill, &q->comp, &config);

	if (rc == 0)
		q->fds[class] = xsk_socket__fd(q->sockets[class]);
	return rc;
}

/* The kernel frees a queue some milliseconds after its last user closed it: a restart must not fail for that. */
static int open_first_socket(struct port_queue *q, unsigned queue)
{
	struct timespec pause = {.tv_nsec = 20000000};
	int rc = -EBUSY;

	for (int i = 0; i < 25 && rc == -EBUSY; i++) {
		if (i)
			nanosleep(&pause, NULL);
		rc = open_socket(q, queue, RX_KNOWN);
	}
	return rc;
}

static void set_options(struct port_queue *q)
{
	int budget = TX_BUDGET, send_buffer = SEND_BUFFER, fd = q->fds[RX_KNOWN];
	struct xdp_options options = {0};
	socklen_t len = sizeof(options);

	if (getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &len) == 0)
		q->zero_copy = options.flags & XDP_OPTIONS_ZEROCOPY;
	/* Both only spare system calls. Older kernels do not know the budget: then a kick sends 32 frames. */
	setsockopt(fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer, sizeof(send_buffer));
}

static int queue_open(struct port *port, unsigned queue, struct rte_mempool *pool)
{
	struct port_queue *q = calloc(1, sizeof(*q));
	int rc;

	if (!q)
		return -ENOMEM;
	port->queues[queue] = q;
	q->port = port;
	q->pool = pool;
	q->fds[RX_KNOWN] = q->fds[RX_NEW] = -1;
	rc = open_umem(q);
	if (!rc)
		rc = open_first_socket(q, queue);
	if (!rc)
		rc = open_socket(q, queue, RX_NEW);
	if (rc)
		return rc;
	set_options(q);
	q->owed = FILL_RING;
	refill(q);
	return q->starved ? -ENOBUFS : 0;
}

static void explain(const struct port_config *config, unsigned queue, int error, char *err, size_t err_len)
{
	const char *device = config->device;

	switch (-error) {
	case EBUSY:
		snprintf(err, err_len, "%s: another AF_XDP program holds queue %u: end it (ss --xdp -p shows it)",
			 device, queue);
		break;
	case EPERM:
		snprintf(
			err, err_len,
			"%s: no right to open AF_XDP sockets: run as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
			device);
		break;
	case ENODEV:
		snprintf(err, err_len, "%s: no such device (ip link shows what there is)", device);
		break;
	case EINVAL:
		snprintf(err, err_len, "%s: no queue %u (ethtool -l %s shows how many there are; -L changes it)",
			 device, queue, device);
		break;
	case ENOBUFS:
		snprintf(err, err_len,
			 "%s: the packet pool is too small to give queue %u %u receive buffers: raise "
			 "gateway.packets",
			 device, queue, FILL_RING);
		break;
	default:
		snprintf(err, err_len, "%s: AF_XDP on queue %u: %s", device, queue, strerror(-error));
	}
}

/* Longer frames would be dropped at the socket. */
static int check_mtu(const struct port_config *config, uint32_t room, char *err, size_t err_len)
{
	size_t name_len = strlen(config->device);
	struct ifreq ifr = {0};
	int fd, rc;

	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(ifr.ifr_name, config->device, RTE_MIN(name_len, sizeof(ifr.ifr_name) - 1));
	rc = name_len >= sizeof(ifr.ifr_name) ? -ENODEV : fd < 0 || ioctl(fd, SIOCGIFMTU, &ifr) ? -errno : 0;
	if (fd >= 0)
		close(fd);
	if (rc)
		explain(config, 0, rc, err, err_len);
	if (rc || ifr.ifr_mtu + ETHER_OVERHEAD <= (int)room)
		return rc;
	snprintf(err, err_len, "%s: an MTU of %d does not fit the packet buffers: ip link set %s mtu %u",
		 config->device, ifr.ifr_mtu, config->device, room - ETHER_OVERHEAD);
	return -EMSGSIZE;
}

static int queues_open(struct port *port, struct rte_mempool *pool, char *err, size_t err_len)
{
	for (unsigned i = 0; i < port->config.n_queues; i++) {
		int rc = queue_open(port, i, pool);

		if (rc) {
			explain(&port->config, i, rc, err, err_len);
			return rc;
		}
	}
	return 0;
}

struct port *port_xsk_open(const struct port_config *config, struct rte_mempool *pool, char *err, size_t err_len)
{
	struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	struct port *port = calloc(1, sizeof(*port));
	int rc;

	if (!port) {
		snprintf(err, err_len, "%s: out of memory", config->device);
		return NULL;
	}
	/* Kernels before 5.11 count the UMEM against it; later ones do not care, so failing to raise it is no error. */
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	port->ops = &xsk_ops;
	port->config = *config;
	port->depth = RX_RING;
	rc = check_mtu(config, frame_room(pool), err, err_len);
	if (!rc)
		rc = queues_open(port, pool, err, err_len);
	if (!rc)
		return port;
	xsk_close(port);
	errno = -rc;
	return NULL;
}
