/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Routes and neighbours as the kernel has them. One writer (decide); workers read.
 *
 * Routes: two copies of a longest-prefix tree (rte_rib). A batch changes the idle copy, the copies are swapped, and
 * after a grace period the other one is changed too. A worker loads the current copy once per burst. Its generation
 * number changes with each swap: a flow keeps the next hop that it found and looks again when the generation moved.
 *
 * Neighbours: fixed cells under a sequence count, updated in place; a cell that changes its owner moves the generation
 * too, so that no flow sends to the wrong host.
 */
#pragma once

#include "dataplane.h"
#include "ipaddr.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

struct fib;      /* everything, owned by decide */
struct fib_view; /* one copy of the routes */

/* What a worker needs to put a packet on the wire. */
struct fib_hop {
	uint64_t macs_lo; /* bytes 0..7 and 8..11 of a frame: destination, source */
	uint32_t macs_hi;
	uint16_t port;
	uint8_t usable;
	uint8_t unused;
};

static_assert(sizeof(struct fib_hop) == 16, "two words");

/*
 * A neighbour. Written by decide: the hop under `seq`, with relaxed stores of whole words, so that its readers race
 * with nothing but atomics. The key (port, addr) changes only while `used` is false and no reader can have seen it
 * true. The layout is shown for fib_cell_read().
 */
struct fib_cell {
	uint32_t seq; /* odd: being written */
	uint16_t port;
	bool used; /* has a key */
	union {
		struct fib_hop hop;
		uint64_t words[2];
	};
	struct ipaddr addr;
} __attribute__((aligned(64)));

enum fib_result {
	FIB_OK,
	FIB_NO_ROUTE,
	FIB_BLACKHOLE,
	FIB_NO_NEIGHBOUR, /* wanted: see *want */
};

uint64_t fib_bytes(uint32_t n_routes, uint32_t n_neighbours);
/* Cells are counted in 16 bits (flow.h), and a third of them stays empty. */
#define FIB_NEIGHBOURS_MAX 43690
/* NULL with errno set; EINVAL: more neighbours than that. `secret` (HASH_SECRET_LEN) must outlive it. */
struct fib *fib_create(uint32_t n_routes, uint32_t n_neighbours, const uint8_t *secret);
void fib_destroy(struct fib *fib);

/* --- writer --- */

/* Waits for a grace period by urcu-qsbr; the caller must not be an online reader. Returns how many did not fit. */
size_t fib_update(struct fib *fib, const struct route_change *changes, size_t n);
int fib_neighbour(struct fib *fib, int port, const struct ipaddr *addr, enum neighbour_state state,
		  const uint8_t mac[static 6]);
void fib_port_mac(struct fib *fib, int port, const uint8_t mac[static 6]);
/* 0: down. Moves the generation, because flows keep the MTU that they found. */
void fib_port_mtu(struct fib *fib, int port, uint32_t mtu);

/* The gateways that routes name, each once. */
size_t fib_gateways(const struct fib *fib, struct neighbour_want *out, size_t max);

/* --- readers --- */

/*
 * Once per burst, inside an RCU read side, the generation before the view: then a route is never kept under a
 * generation that is newer than the view it came from. Never 0.
 */
uint32_t fib_generation(const struct fib *fib);
const struct fib_view *fib_view(const struct fib *fib);

/*
 * Finds the neighbour cell for `addr`; `hash` chooses among the next hops of a multipath route (RFC 2992: the same flow
 * takes the same one). On FIB_OK sets *cell and *mtu, on FIB_NO_NEIGHBOUR *want (and no cell).
 */
enum fib_result fib_lookup(const struct fib *fib, const struct fib_view *view, const struct ipaddr *addr, uint64_t hash,
			   uint32_t *cell, uint16_t *mtu, struct neighbour_want *want);

const struct fib_cell *fib_cells(const struct fib *fib);

/* Reads a cell consistently. */
static inline struct fib_hop fib_cell_read(const struct fib_cell *c)
{
	struct fib_hop hop;
	uint64_t words[2];
	uint32_t seq;

	do {
		seq = __atomic_load_n(&c->seq, __ATOMIC_ACQUIRE);
		words[0] = __atomic_load_n(&c->words[0], __ATOMIC_RELAXED);
		words[1] = __atomic_load_n(&c->words[1], __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__builtin_expect(seq & 1 || seq != __atomic_load_n(&c->seq, __ATOMIC_RELAXED), 0));
	memcpy(&hop, words, sizeof(hop));
	return hop;
}

/* For a hop that is not usable: who should be resolved. */
struct neighbour_want fib_want(const struct fib *fib, uint32_t cell);
