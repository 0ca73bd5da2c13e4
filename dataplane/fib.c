/* SPDX-License-Identifier: BSD-3-Clause */
#include "fib.h"
#include "grace.h"
#include "hash.h"
#include "memory.h"

#include <errno.h>
#include <rte_branch_prediction.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <rte_memzone.h>
#include <rte_rib.h>
#include <rte_rib6.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <stdio.h>

#define N_GROUPS  4096
#define CELL_WAYS 8
#define CELL_NONE UINT32_MAX

struct group_hop {
	struct route_nexthop hop;
	uint32_t cell; /* of the gateway; CELL_NONE for on-link and foreign hops */
};

/* What a route leads to; equal ones are shared. Immutable while `refs` > 0. */
struct group {
	uint32_t refs; /* routes, counted once per route (not per copy) */
	enum route_kind kind;
	uint32_t mtu;
	uint32_t weight_sum;
	unsigned n_hops;
	struct group_hop hops[ROUTE_MAX_NEXTHOPS];
};

struct fib_view {
	struct rte_rib *rib4;
	struct rte_rib6 *rib6;
};

struct fib {
	struct fib_view views[2];
	struct fib_view *current; /* RCU */
	_Atomic uint32_t generation;
	struct group groups[N_GROUPS];
	int n_groups; /* ever used: the others are empty */
	struct fib_cell *cells;
	uint32_t n_cells; /* a power of two */
	uint32_t *pins;   /* by cell: groups that name it; writer only */
	const uint8_t *secret;
	struct {
		uint8_t mac[6];
		_Atomic uint32_t mtu;
	} ports[DATAPLANE_MAX_PORTS];
};

/* --- cells --- */

static uint32_t round_up_pow2(uint32_t n)
{
	uint32_t p = CELL_WAYS;

	while (p < n)
		p *= 2;
	return p;
}

/* With a choice of two buckets, no key finds both full before two cells of three are in use. */
static uint32_t cells_for(uint32_t n_neighbours)
{
	return round_up_pow2(n_neighbours + n_neighbours / 2);
}

/* The first cells of the two buckets in which a key may live. */
struct cell_choice {
	uint32_t bucket[2];
};

static struct cell_choice cell_choice(const struct fib *fib, int port, const struct ipaddr *addr)
{
	struct {
		struct ipaddr addr;
		uint64_t port;
	} key = {*addr, port};
	uint64_t hash = hash_keyed(&key, sizeof(key), fib->secret);
	uint32_t mask = (fib->n_cells - 1) & ~(CELL_WAYS - 1u);

	return (struct cell_choice){{hash & mask, hash >> 32 & mask}};
}

static bool cell_is(const struct fib_cell *c, int port, const struct ipaddr *addr)
{
	return __atomic_load_n(&c->addr.q_be[0], __ATOMIC_RELAXED) == addr->q_be[0] &&
	       __atomic_load_n(&c->addr.q_be[1], __ATOMIC_RELAXED) == addr->q_be[1] &&
	       __atomic_load_n(&c->port, __ATOMIC_RELAXED) == port;
}

static uint32_t cell_find(const struct fib *fib, int port, const struct ipaddr *addr)
{
	struct cell_choice choice = cell_choice(fib, port, addr);

	for (unsigned i = 0; i < 2 * CELL_WAYS; i++) {
		uint32_t cell = choice.bucket[i / CELL_WAYS] + i % CELL_WAYS;
		const struct fib_cell *c = &fib->cells[cell];

		if (__atomic_load_n(&c->used, __ATOMIC_ACQUIRE) && cell_is(c, port, addr))
			return cell;
	}
	return CELL_NONE;
}

static void cell_write(struct fib_cell *c, const struct fib_hop *hop)
{
	uint64_t words[2];

	memcpy(words, hop, sizeof(words));
	__atomic_store_n(&c->seq, c->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&c->words[0], words[0], __ATOMIC_RELAXED);
	__atomic_store_n(&c->words[1], words[1], __ATOMIC_RELAXED);
	__atomic_store_n(&c->seq, c->seq + 1, __ATOMIC_RELEASE);
}

static void move_generation(struct fib *fib)
{
	uint32_t next = atomic_load_explicit(&fib->generation, memory_order_relaxed) + 1;

	atomic_store_explicit(&fib->generation, next ? next : 1, memory_order_release);
}

/*
 * Nobody finds the cell any more, then no flow goes on with its index (the generation moves), then nobody is left who
 * began before that. In another order a flow could find the old owner under the new generation and keep the cell.
 */
static void cell_release(struct fib *fib, struct fib_cell *c)
{
	__atomic_store_n(&c->used, false, __ATOMIC_RELAXED);
	move_generation(fib);
	grace_wait();
}

static void set_macs(struct fib_hop *hop, const uint8_t *dst, const uint8_t *src)
{
	uint8_t macs[12];

	memcpy(macs, &hop->macs_lo, 8);
	memcpy(macs + 8, &hop->macs_hi, 4);
	if (dst)
		memcpy(macs, dst, 6);
	if (src)
		memcpy(macs + 6, src, 6);
	memcpy(&hop->macs_lo, macs, 8);
	memcpy(&hop->macs_hi, macs + 8, 4);
}

/* A bucket's empty cells, and one of its cells for a new key: an empty one, or one that nobody can use or needs. */
struct cell_room {
	unsigned n_empty;
	uint32_t cell; /* CELL_NONE: all are in use */
};

static struct cell_room cell_room(const struct fib *fib, uint32_t bucket)
{
	struct cell_room room = {.cell = CELL_NONE};

	for (uint32_t i = bucket; i < bucket + CELL_WAYS; i++) {
		bool empty = !fib->cells[i].used;

		room.n_empty += empty;
		if (empty || (!room.n_empty && !fib->cells[i].hop.usable && !fib->pins[i]))
			room.cell = i;
	}
	return room;
}

/* Of the emptier bucket; if neither has an empty cell, one that gives way. */
static uint32_t cell_claim(struct fib *fib, int port, const struct ipaddr *addr)
{
	struct cell_choice choice = cell_choice(fib, port, addr);
	struct cell_room first = cell_room(fib, choice.bucket[0]), second = cell_room(fib, choice.bucket[1]);
	uint32_t victim = second.n_empty > first.n_empty || first.cell == CELL_NONE ? second.cell : first.cell;
	struct fib_hop hop = {.port = port};
	struct fib_cell *c;

	if (victim == CELL_NONE)
		return CELL_NONE;
	c = &fib->cells[victim];
	if (c->used)
		cell_release(fib, c);
	set_macs(&hop, NULL, fib->ports[port].mac);
	cell_write(c, &hop);
	__atomic_store_n(&c->addr.q_be[0], addr->q_be[0], __ATOMIC_RELAXED);
	__atomic_store_n(&c->addr.q_be[1], addr->q_be[1], __ATOMIC_RELAXED);
	__atomic_store_n(&c->port, port, __ATOMIC_RELAXED);
	__atomic_store_n(&c->used, true, __ATOMIC_RELEASE);
	return victim;
}

static uint32_t cell_get(struct fib *fib, int port, const struct ipaddr *addr)
{
	uint32_t i = cell_find(fib, port, addr);

	return i != CELL_NONE ? i : cell_claim(fib, port, addr);
}

int fib_neighbour(struct fib *fib, int port, const struct ipaddr *addr, enum neighbour_state state,
		  const uint8_t mac[static 6])
{
	uint32_t i = cell_find(fib, port, addr);
	struct fib_hop hop;

	/* A neighbour that cannot be used needs no cell: nothing would be read from it. */
	if (i == CELL_NONE && state != NEIGHBOUR_USABLE)
		return 0;
	if (i == CELL_NONE)
		i = cell_claim(fib, port, addr);
	if (i == CELL_NONE)
		return -ENOSPC;
	hop = fib->cells[i].hop;
	hop.usable = state == NEIGHBOUR_USABLE;
	if (hop.usable)
		set_macs(&hop, mac, NULL);
	cell_write(&fib->cells[i], &hop);
	return 0;
}

void fib_port_mac(struct fib *fib, int port, const uint8_t mac[static 6])
{
	memcpy(fib->ports[port].mac, mac, 6);
	for (uint32_t i = 0; i < fib->n_cells; i++) {
		struct fib_hop hop = fib->cells[i].hop;

		if (!fib->cells[i].used || fib->cells[i].port != port)
			continue;
		set_macs(&hop, NULL, mac);
		cell_write(&fib->cells[i], &hop);
	}
}

void fib_port_mtu(struct fib *fib, int port, uint32_t mtu)
{
	atomic_store_explicit(&fib->ports[port].mtu, mtu, memory_order_relaxed);
	move_generation(fib);
}

const struct fib_cell *fib_cells(const struct fib *fib)
{
	return fib->cells;
}

struct neighbour_want fib_want(const struct fib *fib, uint32_t cell)
{
	return (struct neighbour_want){.port = fib->cells[cell].port, .addr = fib->cells[cell].addr};
}

/* --- groups --- */

static bool same_hops(const struct group *g, const struct route_change *c)
{
	if (g->kind != c->kind || g->mtu != c->mtu || g->n_hops != c->n_nexthops)
		return false;
	for (unsigned i = 0; i < g->n_hops; i++) {
		const struct route_nexthop *a = &g->hops[i].hop, *b = &c->nexthops[i];

		if (a->port != b->port || a->on_link != b->on_link || a->weight != b->weight ||
		    (!a->on_link && !ipaddr_equal(&a->gateway, &b->gateway)))
			return false;
	}
	return true;
}

static void unpin(struct fib *fib, const struct group *g, unsigned n_hops)
{
	for (unsigned i = 0; i < n_hops; i++)
		if (g->hops[i].cell != CELL_NONE)
			fib->pins[g->hops[i].cell]--;
}

static int group_fill(struct fib *fib, struct group *g, const struct route_change *c)
{
	unsigned n_pinned;

	*g = (struct group){.kind = c->kind, .mtu = c->mtu, .n_hops = c->n_nexthops};
	for (n_pinned = 0; n_pinned < c->n_nexthops; n_pinned++) {
		unsigned i = n_pinned;
		const struct route_nexthop *hop = &c->nexthops[i];

		g->hops[i] = (struct group_hop){*hop, CELL_NONE};
		g->weight_sum += hop->weight;
		if (hop->on_link || hop->port < 0)
			continue;
		g->hops[i].cell = cell_get(fib, hop->port, &hop->gateway);
		if (g->hops[i].cell == CELL_NONE)
			goto undo;
		fib->pins[g->hops[i].cell]++;
	}
	return 0;
undo:
	unpin(fib, g, n_pinned);
	return -ENOSPC;
}

/* Index of a group equal to the change's target with one more reference, or -ENOSPC. */
static int group_get(struct fib *fib, const struct route_change *c)
{
	int empty = -1;

	for (int i = 0; i < fib->n_groups; i++) {
		if (!fib->groups[i].refs) {
			empty = empty < 0 ? i : empty;
			continue;
		}
		if (same_hops(&fib->groups[i], c)) {
			fib->groups[i].refs++;
			return i;
		}
	}
	if (empty < 0 && fib->n_groups < N_GROUPS)
		empty = fib->n_groups++;
	if (empty < 0 || group_fill(fib, &fib->groups[empty], c))
		return -ENOSPC;
	fib->groups[empty].refs = 1;
	return empty;
}

static void group_put(struct fib *fib, uint64_t group)
{
	struct group *g = &fib->groups[group];

	if (--g->refs == 0)
		unpin(fib, g, g->n_hops);
}

/* --- routes --- */

#define NO_GROUP UINT64_MAX

/* Sets or removes (group == NO_GROUP) one prefix in one copy. `*old` = the group it had, or NO_GROUP. */
static int set4(struct rte_rib *rib, const struct route_change *c, uint64_t group, uint64_t *old)
{
	uint32_t ip = ntohl(ipaddr_v4_be(&c->prefix));
	struct rte_rib_node *node = rte_rib_lookup_exact(rib, ip, c->prefix_len);

	*old = NO_GROUP;
	if (node)
		rte_rib_get_nh(node, old);
	if (group == NO_GROUP) {
		if (node)
			rte_rib_remove(rib, ip, c->prefix_len);
		return 0;
	}
	if (!node)
		node = rte_rib_insert(rib, ip, c->prefix_len);
	if (!node)
		return -ENOSPC;
	rte_rib_set_nh(node, group);
	return 0;
}

static int set6(struct rte_rib6 *rib, const struct route_change *c, uint64_t group, uint64_t *old)
{
	struct rte_rib6_node *node = rte_rib6_lookup_exact(rib, c->prefix.b, c->prefix_len);

	*old = NO_GROUP;
	if (node)
		rte_rib6_get_nh(node, old);
	if (group == NO_GROUP) {
		if (node)
			rte_rib6_remove(rib, c->prefix.b, c->prefix_len);
		return 0;
	}
	if (!node)
		node = rte_rib6_insert(rib, c->prefix.b, c->prefix_len);
	if (!node)
		return -ENOSPC;
	rte_rib6_set_nh(node, group);
	return 0;
}

static int set_route(struct fib_view *view, const struct route_change *c, uint64_t group, uint64_t *old)
{
	return ipaddr_is_v4(&c->prefix) ? set4(view->rib4, c, group, old) : set6(view->rib6, c, group, old);
}

/* How one change went in the first copy, to be repeated in the second. */
struct applied {
	uint64_t group, old;
	bool refused;
};

static void apply_first(struct fib *fib, struct fib_view *view, const struct route_change *c, struct applied *a)
{
	int group;

	*a = (struct applied){.group = NO_GROUP, .old = NO_GROUP};
	if (!c->remove) {
		group = group_get(fib, c);
		if (group < 0) {
			a->refused = true;
			return;
		}
		a->group = group;
	}
	if (set_route(view, c, a->group, &a->old)) {
		group_put(fib, a->group);
		a->refused = true;
	}
}

size_t fib_update(struct fib *fib, const struct route_change *changes, size_t n)
{
	struct fib_view *idle = fib->current == &fib->views[0] ? &fib->views[1] : &fib->views[0];
	struct fib_view *live = fib->current;
	struct applied *applied = calloc(n, sizeof(*applied));
	size_t refused = 0;

	if (!applied)
		return n;
	for (size_t i = 0; i < n; i++) {
		apply_first(fib, idle, &changes[i], &applied[i]);
		refused += applied[i].refused;
	}
	grace_publish(fib->current, idle);
	move_generation(fib);
	grace_wait();
	/* Groups lose their last reference only now that nobody can find them any more. */
	for (size_t i = 0; i < n; i++) {
		uint64_t old;

		if (applied[i].refused)
			continue;
		set_route(live, &changes[i], applied[i].group, &old);
		if (applied[i].old != NO_GROUP)
			group_put(fib, applied[i].old);
	}
	free(applied);
	return refused;
}

uint32_t fib_generation(const struct fib *fib)
{
	return atomic_load_explicit(&fib->generation, memory_order_acquire);
}

const struct fib_view *fib_view(const struct fib *fib)
{
	return grace_find(fib->current);
}

static bool lookup_group(const struct fib_view *view, const struct ipaddr *addr, uint64_t *group)
{
	if (ipaddr_is_v4(addr)) {
		struct rte_rib_node *node = rte_rib_lookup(view->rib4, ntohl(ipaddr_v4_be(addr)));

		return node && rte_rib_get_nh(node, group) == 0;
	}
	struct rte_rib6_node *node = rte_rib6_lookup(view->rib6, addr->b);

	return node && rte_rib6_get_nh(node, group) == 0;
}

static const struct group_hop *choose_hop(const struct group *g, uint64_t hash)
{
	uint32_t at = ((hash & UINT32_MAX) * g->weight_sum) >> 32;

	for (unsigned i = 0; i < g->n_hops; i++) {
		if (at < g->hops[i].hop.weight)
			return &g->hops[i];
		at -= g->hops[i].hop.weight;
	}
	return NULL;
}

static uint16_t effective_mtu(const struct fib *fib, const struct group *g, int port)
{
	uint32_t mtu = atomic_load_explicit(&fib->ports[port].mtu, memory_order_relaxed);

	if (g->mtu && g->mtu < mtu)
		mtu = g->mtu;
	return mtu < UINT16_MAX ? mtu : UINT16_MAX;
}

enum fib_result fib_lookup(const struct fib *fib, const struct fib_view *view, const struct ipaddr *addr, uint64_t hash,
			   uint32_t *cell, uint16_t *mtu, struct neighbour_want *want)
{
	const struct group_hop *hop;
	const struct group *g;
	uint64_t group;

	if (!lookup_group(view, addr, &group))
		return FIB_NO_ROUTE;
	g = &fib->groups[group];
	if (g->kind != ROUTE_UNICAST)
		return g->kind == ROUTE_BLACKHOLE ? FIB_BLACKHOLE : FIB_NO_ROUTE;
	hop = choose_hop(g, hash);
	if (!hop || hop->hop.port < 0)
		return FIB_NO_ROUTE;
	*mtu = effective_mtu(fib, g, hop->hop.port);
	if (!hop->hop.on_link) {
		*cell = hop->cell;
		return FIB_OK;
	}
	*cell = cell_find(fib, hop->hop.port, addr);
	if (*cell != CELL_NONE)
		return FIB_OK;
	*want = (struct neighbour_want){.port = hop->hop.port, .addr = *addr};
	return FIB_NO_NEIGHBOUR;
}

size_t fib_gateways(const struct fib *fib, struct neighbour_want *out, size_t max)
{
	size_t n = 0;

	for (uint32_t i = 0; i < fib->n_cells && n < max; i++)
		if (fib->pins[i])
			out[n++] = fib_want(fib, i);
	return n;
}

/* --- life --- */

/* A tree needs up to one inner node per route. */
static uint32_t nodes_for(uint32_t n_routes)
{
	return 2 * n_routes;
}

/* rte_rib keeps them in a pool; they are 40 and 56 bytes of it. */
#define NODE_BYTES 64

static uint64_t node_pool_bytes(uint32_t n_nodes)
{
	return (uint64_t)n_nodes * rte_mempool_calc_obj_size(NODE_BYTES, 0, NULL) +
	       rte_ring_get_memsize(rte_align32pow2(n_nodes + 1));
}

uint64_t fib_bytes(uint32_t n_routes, uint32_t n_neighbours)
{
	return 2 * SET_FAMILIES * node_pool_bytes(nodes_for(n_routes)) +
	       (uint64_t)cells_for(n_neighbours) * (sizeof(struct fib_cell) + sizeof(uint32_t)) + sizeof(struct fib);
}

static int view_create(struct fib_view *view, uint32_t n_routes)
{
	static _Atomic unsigned serial;
	struct rte_rib_conf conf4 = {.max_nodes = nodes_for(n_routes)};
	struct rte_rib6_conf conf6 = {.max_nodes = nodes_for(n_routes)};
	char name[RTE_MEMZONE_NAMESIZE];

	snprintf(name, sizeof(name), "routes4.%u", serial);
	view->rib4 = rte_rib_create(name, SOCKET_ID_ANY, &conf4);
	snprintf(name, sizeof(name), "routes6.%u", serial++);
	view->rib6 = rte_rib6_create(name, SOCKET_ID_ANY, &conf6);
	return view->rib4 && view->rib6 ? 0 : -rte_errno;
}

struct fib *fib_create(uint32_t n_routes, uint32_t n_neighbours, const uint8_t *secret)
{
	struct fib *fib;
	int err;

	if (n_neighbours > FIB_NEIGHBOURS_MAX) {
		errno = EINVAL;
		return NULL;
	}
	fib = memory_alloc(sizeof(*fib));
	if (!fib)
		return NULL;
	fib->secret = secret;
	fib->generation = 1;
	fib->n_cells = cells_for(n_neighbours);
	fib->cells = memory_alloc(fib->n_cells * sizeof(*fib->cells));
	fib->pins = memory_alloc(fib->n_cells * sizeof(*fib->pins));
	fib->current = &fib->views[0];
	err = fib->cells && fib->pins ? 0 : -ENOMEM;
	if (!err)
		err = view_create(&fib->views[0], n_routes);
	if (!err)
		err = view_create(&fib->views[1], n_routes);
	if (!err)
		return fib;
	fib_destroy(fib);
	errno = -err;
	return NULL;
}

void fib_destroy(struct fib *fib)
{
	if (!fib)
		return;
	for (int i = 0; i < 2; i++) {
		rte_rib_free(fib->views[i].rib4);
		rte_rib6_free(fib->views[i].rib6);
	}
	memory_free(fib->cells);
	memory_free(fib->pins);
	memory_free(fib);
}
