/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane.h"
#include "budget.h"
#include "core.h"
#include "grace.h"
#include "memory.h"
#include "observe_worker.h"
#include "outcome_worker.h"
#include "reap.h"
#include "signals.h"
#include "steer.h"
#include "streak.h"
#include "trial.h"
#include "worker.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define PATH_MTUS 65536 /* learned, in all; a power of two */

#ifdef GRACE_TSAN
char grace_anchor;
#endif

static uint64_t monotonic_ns(void *arg)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* --- life --- */

static uint32_t share(uint32_t total, unsigned n)
{
	return (total + n - 1) / n;
}

size_t dataplane_memory_plan(const struct dataplane_config *config, unsigned n_queues,
			     struct memory_part parts[static MEMORY_PARTS_MAX])
{
	unsigned n = config->n_workers;
	size_t i = 0;

	parts[i++] =
		(struct memory_part){"packets", (uint64_t)config->n_mbufs * port_pool_object_size(config->max_frame)};
	parts[i++] = (struct memory_part){"flows IPv4", flow_table_bytes(share(config->flows_v4, n), 0) * n};
	parts[i++] = (struct memory_part){"flows IPv6", flow_table_bytes(0, share(config->flows_v6, n)) * n};
	parts[i++] = (struct memory_part){"routes and neighbours", fib_bytes(config->n_routes, config->n_neighbours)};
	parts[i++] = (struct memory_part){"SNAT ports and counters", worker_bytes(config) * n};
	parts[i++] = (struct memory_part){"signals of backends", signals_bytes(config) * n};
	parts[i++] = (struct memory_part){"outcomes of clients", outcomes_bytes(config) * n};
	parts[i++] =
		(struct memory_part){"shared cells", cells_bytes(config->n_backend_slots, config->n_service_slots)};
	parts[i++] = (struct memory_part){"learned path MTUs", mtu_table_bytes(PATH_MTUS)};
	parts[i++] =
		(struct memory_part){"clients and prefixes", (2 + FAIR_LEVELS) * client_table_bytes(CLIENT_ENTRIES)};
	parts[i++] =
		(struct memory_part){"failures and refusals", credits_bytes(CREDIT_ENTRIES) + refused_bytes(n) * n};
	parts[i++] = (struct memory_part){"connections held",
					  holds_bytes(share(config->n_holds, n), config->n_service_slots) * n};
	parts[i++] = (struct memory_part){"rings between workers",
					  (uint64_t)n * (n - 1) * RX_CLASSES * HANDOVER_RING * sizeof(void *)};
	parts[i++] = (struct memory_part){"rings of ports", (uint64_t)n_queues * (2048 * 16 * 3 + 4096 * 8 + 2048 * 8)};
	return i;
}

static int rings_create(struct dataplane *dp)
{
	unsigned n = dp->config.n_workers;
	char name[RTE_RING_NAMESIZE];

	for (unsigned class = 0; class < RX_CLASSES; class ++)
		for (unsigned from = 0; from < n; from++)
			for (unsigned to = 0; to < n; to++) {
				if (from == to)
					continue;
				snprintf(name, sizeof(name), "h%p.%u.%u.%u", (void *)dp, class, from, to);
				dp->rings[class][from][to] = rte_ring_create(name, HANDOVER_RING, SOCKET_ID_ANY,
									     RING_F_SP_ENQ | RING_F_SC_DEQ);
				if (!dp->rings[class][from][to])
					return -rte_errno;
			}
	return 0;
}

static void snat_init(struct dataplane *dp)
{
	dp->snat.n = dp->config.n_snat;
	for (unsigned i = 0; i < dp->snat.n; i++)
		dp->snat.addr[i] = dp->config.snat[i];
	snat_partition_init(&dp->partition, dp->config.snat_ports, dp->config.n_workers);
}

static int dataplane_init(struct dataplane *dp)
{
	const struct dataplane_config *config = &dp->config;
	char name[32];
	int err;

	snat_init(dp);
	err = gcra_rate_init(&dp->want_rate, NEIGHBOUR_WANTS_PER_S, 1000000000, NEIGHBOUR_WANTS_BURST);
	if (err)
		return err;
	dp->notes_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (dp->notes_fd < 0)
		return -errno;
	snprintf(name, sizeof(name), "packets%p", (void *)dp);
	dp->pool = port_pool_create(name, config->n_mbufs, config->max_frame);
	if (!dp->pool)
		return -rte_errno;
	dp->fib = fib_create(config->n_routes, config->n_neighbours, config->secret);
	if (!dp->fib)
		return -errno;
	err = cells_init(&dp->cells, config->n_backend_slots, config->n_service_slots);
	if (!err)
		err = mtu_table_init(&dp->mtus, PATH_MTUS, dp->config.secret);
	if (!err)
		err = client_table_init(&dp->clients, CLIENT_ENTRIES, 32, 64, dp->config.secret);
	if (!err)
		err = client_table_init(&dp->prefixes, CLIENT_ENTRIES, 24, 48, dp->config.secret);
	if (!err)
		err = client_table_init(&dp->shares[FAIR_CLIENT], CLIENT_ENTRIES, 32, 64, dp->config.secret);
	if (!err)
		err = client_table_init(&dp->shares[FAIR_NETWORK], CLIENT_ENTRIES, 24, 48, dp->config.secret);
	if (!err)
		err = credits_init(&dp->credits, CREDIT_ENTRIES);
	if (!err)
		err = rings_create(dp);
	for (unsigned i = 0; i < config->n_workers && !err; i++) {
		dp->workers[i] = worker_create(dp, i);
		err = dp->workers[i] ? 0 : -errno;
	}
	return err;
}

struct dataplane *dataplane_create(const struct dataplane_config *config)
{
	struct dataplane *dp = memory_alloc(sizeof(*dp));
	int err;

	if (!dp)
		return NULL;
	dp->config = *config;
	if (!dp->config.now_ns)
		dp->config.now_ns = monotonic_ns;
	dp->notes_fd = -1;
	for (int i = 0; i < QUERY_LANES; i++)
		pthread_mutex_init(&dp->query_locks[i], NULL);
	err = dataplane_init(dp);
	if (!err)
		return dp;
	dataplane_destroy(dp);
	errno = -err;
	return NULL;
}

/* Packets that wait between workers go back to the pool before it is freed. */
static void rings_destroy(struct dataplane *dp)
{
	struct rte_mbuf *m;

	for (unsigned class = 0; class < RX_CLASSES; class ++)
		for (unsigned from = 0; from < dp->config.n_workers; from++)
			for (unsigned to = 0; to < dp->config.n_workers; to++) {
				struct rte_ring *ring = dp->rings[class][from][to];

				while (ring && rte_ring_sc_dequeue(ring, (void **)&m) == 0)
					rte_pktmbuf_free(m);
				rte_ring_free(ring);
			}
}

void dataplane_destroy(struct dataplane *dp)
{
	if (!dp)
		return;
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		worker_destroy(dp->workers[i]);
	rings_destroy(dp);
	for (unsigned i = 0; i < dp->n_ports; i++)
		dp->ports[i]->ops->close(dp->ports[i]);
	fib_destroy(dp->fib);
	cells_fini(&dp->cells);
	mtu_table_fini(&dp->mtus);
	client_table_fini(&dp->clients);
	client_table_fini(&dp->prefixes);
	for (unsigned level = 0; level < FAIR_LEVELS; level++)
		client_table_fini(&dp->shares[level]);
	credits_fini(&dp->credits);
	rte_mempool_free(dp->pool);
	if (dp->notes_fd >= 0)
		close(dp->notes_fd);
	for (int i = 0; i < QUERY_LANES; i++)
		pthread_mutex_destroy(&dp->query_locks[i]);
	memory_free(dp);
}

/* --- ports --- */

static void refuse_queues(const struct port_config *config, unsigned n_workers, char *err, size_t err_len)
{
	char command[128] = "raise the port's `queues`";

	if (config->kind == PORT_XSK)
		snprintf(command, sizeof(command), "ethtool -L %s combined %u", config->device, n_workers);
	snprintf(err, err_len,
		 "%s has %u queues for %u workers; each worker needs a queue of its own: give it more (%s) or list "
		 "fewer CPUs in gateway.workers",
		 config->device, config->n_queues, n_workers, command);
}

int dataplane_add_port(struct dataplane *dp, const struct port_config *config, char *err, size_t err_len)
{
	struct port *port;

	if (dp->n_ports == DATAPLANE_MAX_PORTS) {
		snprintf(err, err_len, "more than %d ports", DATAPLANE_MAX_PORTS);
		return -ENOSPC;
	}
	if (config->n_queues > DATAPLANE_MAX_QUEUES) {
		snprintf(err, err_len, "%s: %u queues, a port has %d at most", config->device, config->n_queues,
			 DATAPLANE_MAX_QUEUES);
		return -E2BIG;
	}
	if (config->n_queues < dp->config.n_workers) {
		refuse_queues(config, dp->config.n_workers, err, err_len);
		return -EINVAL;
	}
	port = config->kind == PORT_XSK ? port_xsk_open(config, dp->pool, err, err_len)
					: port_eth_open(config, dp->pool, err, err_len);
	if (!port)
		return -errno;
	port->index = dp->n_ports;
	dp->ports[dp->n_ports++] = port;
	fib_port_mac(dp->fib, port->index, port->mac);
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		dp->workers[i]->tx_queue[port->index] = port->queues[i];
	return port->index;
}

int dataplane_port_fd(const struct dataplane *dp, int port, unsigned queue, enum rx_class class)
{
	const struct port *p = dp->ports[port];

	return p->ops->fd(p->queues[queue], class);
}

void dataplane_port_set_heartbeat(struct dataplane *dp, int port, unsigned queue, uint64_t *cell)
{
	__atomic_store_n(&dp->ports[port]->heartbeat[queue], cell, __ATOMIC_RELAXED);
}

void dataplane_port_set_mac(struct dataplane *dp, int port, const uint8_t mac[static 6])
{
	fib_port_mac(dp->fib, port, mac);
}

void dataplane_port_set_link(struct dataplane *dp, int port, bool up, uint32_t mtu)
{
	fib_port_mtu(dp->fib, port, mtu);
	__atomic_store_n(&dp->ports_up, (dp->ports_up & ~(1u << port)) | (uint32_t)up << port, __ATOMIC_RELAXED);
}

/* --- run --- */

int dataplane_start(struct dataplane *dp)
{
	int err = dp->policy ? 0 : -EINVAL;

	for (unsigned i = 0; i < dp->config.n_workers && !err; i++)
		err = worker_start(dp->workers[i]);
	if (err)
		dataplane_stop(dp);
	return err;
}

void dataplane_stop(struct dataplane *dp)
{
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		worker_stop(dp->workers[i]);
}

const struct policy *dataplane_publish(struct dataplane *dp, const struct policy *policy)
{
	const struct policy *old = dp->policy;

	grace_publish(dp->policy, (struct policy *)policy);
	grace_wait();
	return old;
}

/* In the order in which a worker goes through it: an order makes a tuple, and so does a flow before it lets go. */
bool dataplane_backend_unused(const struct dataplane *dp, uint32_t slot)
{
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct worker *w = dp->workers[i];

		if (__atomic_load_n(&w->orders_done, __ATOMIC_ACQUIRE) != dp->orders_given[i] ||
		    __atomic_load_n(&w->backends[slot].users, __ATOMIC_ACQUIRE) ||
		    __atomic_load_n(&w->backends[slot].held, __ATOMIC_ACQUIRE) ||
		    __atomic_load_n(&w->signals.counts[slot].zombies, __ATOMIC_ACQUIRE))
			return false;
	}
	return true;
}

bool dataplane_service_unused(const struct dataplane *dp, uint32_t slot)
{
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct service_cell *c = &dp->workers[i]->services[slot];

		/* In this order: what is held becomes a flow, never the other way round. */
		if (__atomic_load_n(&c->holding, __ATOMIC_ACQUIRE) || __atomic_load_n(&c->users, __ATOMIC_ACQUIRE))
			return false;
	}
	return true;
}

/*
 * Nobody adds to an unused slot's counters: no policy that a worker can see names it. Others may read them meanwhile,
 * so they are zeroed word by word.
 */
void dataplane_backend_reset(struct dataplane *dp, uint32_t slot)
{
	static const struct backend_cell zero;
	static const struct signal_counts no_signals;

	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		observe_store_words(&dp->workers[i]->backends[slot], &zero, sizeof(zero));
		observe_store_words(&dp->workers[i]->signals.counts[slot], &no_signals, sizeof(no_signals));
	}
	cells_reset_backend(&dp->cells, slot);
	reap_forget(dp, slot);
}

void dataplane_service_reset(struct dataplane *dp, uint32_t slot)
{
	static const struct service_cell zero;

	for (unsigned i = 0; i < dp->config.n_workers; i++)
		observe_store_words(&dp->workers[i]->services[slot], &zero, sizeof(zero));
	cells_reset_service(&dp->cells, slot);
}

/* --- breakers --- */

uint64_t dataplane_breaker(const struct dataplane *dp, uint32_t slot)
{
	return __atomic_load_n(&dp->cells.backends[slot].breaker, __ATOMIC_RELAXED);
}

bool dataplane_breaker_change(struct dataplane *dp, uint32_t slot, uint64_t *seen, uint64_t to)
{
	return __atomic_compare_exchange_n(&dp->cells.backends[slot].breaker, seen, to, false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED);
}

void dataplane_backend_times(const struct dataplane *dp, uint32_t slot, struct backend_times *out)
{
	const struct backend_shared *shared = &dp->cells.backends[slot];

	*out = (struct backend_times){
		.silent_ns = __atomic_load_n(&shared->silent_ns, __ATOMIC_RELAXED),
		.since_ns = __atomic_load_n(&shared->since_ns, __ATOMIC_RELAXED),
	};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		uint64_t heard_ms = __atomic_load_n(&dp->workers[i]->backends[slot].heard_ms, __ATOMIC_RELAXED);

		if (heard_ms * 1000000 > out->heard_ns)
			out->heard_ns = heard_ms * 1000000;
	}
}

void dataplane_backend_due(struct dataplane *dp, uint32_t slot, uint64_t at_ns)
{
	__atomic_store_n(&dp->cells.backends[slot].due_ns, at_ns, __ATOMIC_RELAXED);
}

void dataplane_backend_share(struct dataplane *dp, uint32_t slot, uint32_t share)
{
	__atomic_store_n(&dp->cells.backends[slot].share, share, __ATOMIC_RELAXED);
}

uint32_t dataplane_backend_share_now(const struct dataplane *dp, uint32_t slot)
{
	return __atomic_load_n(&dp->cells.backends[slot].share, __ATOMIC_RELAXED);
}

void dataplane_backend_limit(struct dataplane *dp, uint32_t slot, uint32_t limit)
{
	__atomic_store_n(&dp->cells.backends[slot].limit, limit, __ATOMIC_RELAXED);
}

void dataplane_backend_rate(struct dataplane *dp, uint32_t slot, const struct gcra_rate *rate)
{
	struct backend_shared *shared = &dp->cells.backends[slot];

	__atomic_store_n(&shared->cap.tolerance, rate->tolerance, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->cap.window, rate->window, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->cap.interval, rate->interval, __ATOMIC_RELAXED);
	gcra_clamp(&shared->rate, rate, dataplane_now_ns(dp));
}

static uint64_t interval_of(uint32_t rate_per_s)
{
	return rate_per_s ? (UINT64_C(1000000000) << GCRA_FRACTION_BITS) / rate_per_s : 0;
}

void dataplane_service_limit(struct dataplane *dp, uint32_t slot, const struct service_limit *limit)
{
	struct service_shared *shared = &dp->cells.services[slot];

	for (unsigned level = 0; level < FAIR_LEVELS; level++)
		__atomic_store_n(&shared->share_intervals[level], interval_of(limit->shares[level]), __ATOMIC_RELAXED);
	__atomic_store_n(&shared->pace_interval, interval_of(limit->pace), __ATOMIC_RELAXED);
	__atomic_store_n(&shared->hold_ms, limit->hold_ms, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->n_congested, limit->n_congested, __ATOMIC_RELAXED);
	__atomic_store_n(&shared->n_limits, limit->n_limits, __ATOMIC_RELAXED);
}

void dataplane_service_active(const struct dataplane *dp, uint32_t slot, uint64_t active[static FAIR_LEVELS])
{
	for (unsigned level = 0; level < FAIR_LEVELS; level++)
		active[level] = __atomic_load_n(&dp->cells.services[slot].active[level], __ATOMIC_RELAXED);
}

bool dataplane_backend_is_strained(const struct dataplane *dp, uint32_t slot, bool breaker_too)
{
	const struct backend_shared *shared = &dp->cells.backends[slot];
	uint32_t limit = __atomic_load_n(&shared->limit, __ATOMIC_RELAXED);

	if (limit & LIMIT_CONGESTED)
		return true;
	return breaker_too && streak_state(__atomic_load_n(&shared->breaker, __ATOMIC_RELAXED)) != BREAKER_CLOSED;
}

/* The cap last, as workers do nothing without one. */
void dataplane_service_budget(struct dataplane *dp, uint32_t slot, uint32_t cap, uint64_t earned)
{
	struct service_shared *shared = &dp->cells.services[slot];
	uint32_t before = __atomic_load_n(&shared->budget_cap, __ATOMIC_RELAXED);

	if (cap && !before)
		budget_earn(&shared->budget, cap, earned, dataplane_now_ns(dp));
	if (cap != before)
		__atomic_store_n(&shared->budget_cap, cap, __ATOMIC_RELEASE);
}

uint64_t dataplane_trial(const struct dataplane *dp, uint32_t slot)
{
	return __atomic_load_n(&dp->cells.backends[slot].trial, __ATOMIC_RELAXED);
}

void dataplane_trial_win(struct dataplane *dp, uint32_t slot, uint64_t seen)
{
	trial_win(&dp->cells.backends[slot].trial, seen, CLOCK_MS(dataplane_now_ns(dp)));
}

void dataplane_trial_begin(struct dataplane *dp, uint32_t slot, bool keep_wins)
{
	trial_begin(&dp->cells.backends[slot].trial, keep_wins, CLOCK_MS(dataplane_now_ns(dp)));
}

uint64_t dataplane_responses(const struct dataplane *dp, uint32_t slot)
{
	return __atomic_load_n(&dp->cells.backends[slot].responses, __ATOMIC_RELAXED);
}

void dataplane_responses_forget(struct dataplane *dp, uint32_t slot)
{
	__atomic_store_n(&dp->cells.backends[slot].responses, 0, __ATOMIC_RELAXED);
}

/* --- routes, neighbours and notes --- */

size_t dataplane_route_update(struct dataplane *dp, const struct route_change *changes, size_t n)
{
	return fib_update(dp->fib, changes, n);
}

size_t dataplane_route_gateways(const struct dataplane *dp, struct neighbour_want *out, size_t max)
{
	return fib_gateways(dp->fib, out, max);
}

int dataplane_neighbour_update(struct dataplane *dp, int port, const struct ipaddr *addr, enum neighbour_state state,
			       const uint8_t mac[static 6])
{
	return fib_neighbour(dp->fib, port, addr, state, mac);
}

/* Read before the rings: a note that comes later is announced anew. */
static void notes_hush(struct dataplane *dp)
{
	uint64_t count;

	while (read(dp->notes_fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

size_t dataplane_notes(struct dataplane *dp, struct note *out, size_t max)
{
	unsigned n_workers = dp->config.n_workers, from = dp->notes_from++ % n_workers;
	uint64_t one = 1;
	size_t n = 0;

	notes_hush(dp);
	for (unsigned i = 0; i < n_workers && n < max; i++)
		n += rte_ring_sc_dequeue_burst_elem(dp->workers[(from + i) % n_workers]->notes, &out[n], sizeof(*out),
						    max - n, NULL);
	/* There may be more. An eventfd refuses only when it is readable already. */
	if (n == max && write(dp->notes_fd, &one, sizeof(one)) < 0)
		return n;
	return n;
}

uint64_t dataplane_notes_lost(const struct dataplane *dp)
{
	uint64_t lost = 0;

	for (unsigned i = 0; i < dp->config.n_workers; i++)
		lost += __atomic_load_n(&dp->workers[i]->notes_lost, __ATOMIC_RELAXED);
	return lost;
}

int dataplane_notes_fd(const struct dataplane *dp)
{
	return dp->notes_fd;
}

struct path_lesson dataplane_path_learn(struct dataplane *dp, bool upstream, const struct ipaddr *to, uint32_t mtu)
{
	return mtu_learn(&dp->mtus, upstream, to, mtu, dataplane_now_ns(dp));
}

void dataplane_paths_age(struct dataplane *dp)
{
	mtu_age(&dp->mtus, dataplane_now_ns(dp));
}

static enum way way_by(const struct dataplane *dp, const struct ipaddr *addr, const struct neighbour_want *hop,
		       bool usable)
{
	if (!(dp->ports_up >> hop->port & 1))
		return WAY_LINK_DOWN;
	if (usable)
		return WAY_OPEN;
	return ipaddr_equal(&hop->addr, addr) ? WAY_NO_HOST : WAY_NO_ROUTER;
}

enum way dataplane_way(const struct dataplane *dp, const struct ipaddr *addr)
{
	struct neighbour_want want;
	uint32_t cell;
	uint16_t mtu;

	switch (fib_lookup(dp->fib, fib_view(dp->fib), addr, 0, &cell, &mtu, &want)) {
	case FIB_OK:
		want = fib_want(dp->fib, cell);
		return way_by(dp, addr, &want, fib_cell_read(&fib_cells(dp->fib)[cell]).usable);
	case FIB_NO_NEIGHBOUR:
		return way_by(dp, addr, &want, false);
	default:
		return WAY_NO_ROUTE;
	}
}
