/* SPDX-License-Identifier: BSD-3-Clause */
#include "worker.h"
#include "due.h"
#include "grace.h"
#include "hearing.h"
#include "memory.h"
#include "note.h"
#include "observe_worker.h"
#include "order.h"
#include "outcome_worker.h"
#include "path.h"
#include "pipeline.h"
#include "pressure.h"
#include "reap.h"
#include "signals.h"
#include "silence.h"
#include "steer.h"
#include "storm.h"
#include "tx.h"
#include "wall.h"

#include <errno.h>
#include <poll.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <rte_ring.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define IDLE_LOOPS     256      /* empty loops before sleeping */
#define SLEEP_MAX_MS   100      /* the heartbeat's limit is 3 s */
#define STALL_NS       50000000 /* a longer gap between two loops: the worker did not run */
#define PUBLISH_NS     50000    /* counters are published this often under load */
#define UNSLEEPABLE_US 50       /* nap where a port cannot wake us */

/* --- one turn --- */

/*
 * Flows age by a clock that stands still while the worker does not run (stopped, or starved of its CPU): packets that
 * came meanwhile still wait in the rings, and nobody may be blamed for silence before they were read.
 */
static void read_clock(struct worker *w, uint64_t slept_ns)
{
	uint64_t now_ns = dataplane_now_ns(w->dp), gap_ns = now_ns - w->now_ns;

	if (w->now_ns && gap_ns > slept_ns + STALL_NS) {
		w->stalled_ns += gap_ns - slept_ns;
		signals_stalled(w, gap_ns - slept_ns);
	}
	w->now_ns = now_ns;
	w->run_ms = (now_ns - w->stalled_ns) / 1000000;
	w->run_us = (now_ns - w->stalled_ns) / 1000;
}

static void run_burst(struct worker *w, struct rte_mbuf *const *m, unsigned n, enum rx_class class, bool taken_over)
{
	w->burst.n = n;
	w->burst.class = class;
	w->burst.taken_over = taken_over;
	for (unsigned i = 0; i < n; i++)
		w->burst.items[i].m = m[i];
	pipeline_run(w);
}

static unsigned receive_queue(struct worker *w, struct port *port, unsigned queue, enum rx_class class,
			      unsigned max_bursts)
{
	struct rte_mbuf *m[BURST_MAX];
	unsigned total = 0, n = BURST_MAX;

	for (unsigned i = 0; i < max_bursts && n == BURST_MAX; i++) {
		n = port->ops->rx(port->queues[queue], class, m, BURST_MAX);
		if (n)
			run_burst(w, m, n, class, false);
		total += n;
	}
	w->hearing.behind |= class == RX_KNOWN && n == BURST_MAX;
	return total;
}

static unsigned receive_ports(struct worker *w, enum rx_class class, unsigned max_bursts)
{
	unsigned total = 0;

	for (unsigned i = 0; i < w->dp->n_ports; i++) {
		struct port *port = w->dp->ports[i];

		for (unsigned q = w->index; q < port->config.n_queues; q += w->dp->config.n_workers)
			total += receive_queue(w, port, q, class, max_bursts);
	}
	return total;
}

static unsigned receive_handed(struct worker *w, enum rx_class class, unsigned max_bursts)
{
	struct rte_mbuf *m[BURST_MAX];
	unsigned total = 0, n = BURST_MAX;

	if (w->dp->config.n_workers == 1)
		return 0;
	for (unsigned i = 0; i < max_bursts && n == BURST_MAX; i++) {
		n = steer_take(w, class, m, BURST_MAX);
		if (n)
			run_burst(w, m, n, class, true);
		total += n;
	}
	w->hearing.behind |= class == RX_KNOWN && n == BURST_MAX;
	return total;
}

static void beat(struct worker *w)
{
	for (unsigned i = 0; i < w->dp->n_ports; i++) {
		struct port *port = w->dp->ports[i];

		for (unsigned q = w->index; q < port->config.n_queues; q += w->dp->config.n_workers) {
			uint64_t *cell = __atomic_load_n(&port->heartbeat[q], __ATOMIC_RELAXED);

			if (cell)
				__atomic_store_n(cell, w->now_ns, __ATOMIC_RELAXED);
		}
	}
}

/*
 * `slept_ns`: for how long the worker meant to sleep since the last turn. Returns 0 if there was nothing to do: flows
 * whose time has come are work too, or a flood's flows would outlive it at the pace of an idle worker's naps.
 */
static unsigned turn(struct worker *w, uint64_t slept_ns)
{
	unsigned n;

	read_clock(w, slept_ns);
	beat(w);
	hearing_begin(w);
	signals_run(w);
	n = receive_ports(w, RX_KNOWN, KNOWN_BURSTS) + receive_handed(w, RX_KNOWN, KNOWN_BURSTS);
	hearing_end(w);
	n += receive_ports(w, RX_NEW, 1) + receive_handed(w, RX_NEW, 1);
	due_run(w);
	snat_run(&w->snat, w->run_ms);
	n += wheel_is_behind(&w->wheel, w->run_ms) + wall_run(w) + reap_run(w) + pressure_run(w);
	storm_run(w);
	n += hold_is_behind(&w->holds, w->now_ns);
	tx_flush(w);
	note_announce(w);
	observe_serve_command(w);
	w->loops++;
	if (n == 0 || w->now_ns - w->published_at_ns >= PUBLISH_NS)
		worker_publish(w);
	return n;
}

unsigned worker_run_once(struct worker *w)
{
	return turn(w, 0);
}

/* --- publishing --- */

static void fill_report(struct worker *w, struct worker_report *r)
{
	*r = (struct worker_report){
		.loops = w->loops,
		.bursts = w->bursts,
		.sleeps = w->sleeps,
		.wakeups = w->wakeups,
		.policy_number = w->policy_number,
		.policy_regress = w->policy_regress,
		.expired = w->expired,
		.out_of_window = w->out_of_window,
		.damaged = w->damaged,
		.wants_denied = w->wants_denied,
		.stalled_ns = w->stalled_ns,
		.flows_v4 = w->flows.pool4.in_use,
		.flows_v4_max = w->flows.pool4.capacity,
		.flows_v6 = w->flows.pool6.in_use,
		.flows_v6_max = w->flows.pool6.capacity,
		.pressure_v4 = w->pressure.pools[SET_V4].level,
		.pressure_v6 = w->pressure.pools[SET_V6].level,
		.tuples = tuples_count(&w->tuples),
		.tuples_cut = w->tuples.cut_short,
		.last_loop_ns = w->now_ns,
	};
	memcpy(r->pressed_v4, w->pressure.pools[SET_V4].reached, sizeof(r->pressed_v4));
	memcpy(r->pressed_v6, w->pressure.pools[SET_V6].reached, sizeof(r->pressed_v6));
}

/*
 * Copies word by word with relaxed stores between two steps of the sequence (Boehm, "Can seqlocks get along with
 * programming language memory models?", MSPC 2012), so that readers race with nothing but atomics.
 */
void worker_publish(struct worker *w)
{
	struct worker_report report;
	uint64_t seq = w->published.seq;

	fill_report(w, &report);
	__atomic_store_n(&w->published.seq, seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	observe_store_words(&w->published.ledger, &w->ledger, sizeof(w->ledger));
	observe_store_words(&w->published.report, &report, sizeof(report));
	__atomic_store_n(&w->published.seq, seq + 2, __ATOMIC_RELEASE);
	w->published_at_ns = w->now_ns;
}

/* --- sleeping --- */

struct sleep_set {
	struct pollfd fds[DATAPLANE_MAX_PORTS * DATAPLANE_MAX_QUEUES / 4 * RX_CLASSES + 1];
	unsigned n;
	bool unsleepable; /* some queue cannot wake us */
	bool tx_pending;
};

#define SLEEP_FDS_MAX (sizeof(((struct sleep_set *)0)->fds) / sizeof(struct pollfd))

static void gather_fds(const struct worker *w, struct sleep_set *s)
{
	s->fds[0] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
	s->n = 1;
	s->unsleepable = false;
	s->tx_pending = false;
	for (unsigned i = 0; i < w->dp->n_ports; i++) {
		struct port *port = w->dp->ports[i];

		for (unsigned q = w->index; q < port->config.n_queues; q += w->dp->config.n_workers) {
			unsigned n = 0;

			if (s->n + RX_CLASSES <= SLEEP_FDS_MAX)
				n = port->ops->sleep_on(port->queues[q], &s->fds[s->n]);
			s->unsleepable |= n == 0;
			s->tx_pending |= port->ops->tx_pending(port->queues[q]);
			s->n += n;
		}
	}
}

static void drain_wake(struct worker *w)
{
	uint64_t count;

	if (read(w->wake_fd, &count, sizeof(count)) > 0)
		w->wakeups++;
}

/* Until the next of its own timers. */
static int own_sleep_ms(const struct worker *w)
{
	return hold_sleep_ms(&w->holds, w->now_ns, wheel_sleep_ms(&w->wheel, w->run_ms, SLEEP_MAX_MS));
}

/* Returns for how long it meant to sleep. The caller is an RCU reader, and is offline while asleep. */
static uint64_t sleep_now(struct worker *w)
{
	struct sleep_set s;
	int timeout_ms;

	atomic_store_explicit(&w->asleep, true, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (steer_pending(w) || order_pending(w) || reap_is_told(w) || observe_command_waits(w) ||
	    atomic_load(&w->stop)) {
		atomic_store_explicit(&w->asleep, false, memory_order_relaxed);
		return 0;
	}
	gather_fds(w, &s);
	timeout_ms = s.tx_pending ? 1 : (int)reap_nap_ms(w, pressure_nap_ms(w, own_sleep_ms(w)));
	w->sleeps++;
	worker_publish(w);
	grace_leave();
	if (s.unsleepable)
		usleep(UNSLEEPABLE_US);
	else
		poll(s.fds, s.n, timeout_ms);
	grace_come_back();
	atomic_store_explicit(&w->asleep, false, memory_order_relaxed);
	drain_wake(w);
	return s.unsleepable ? UNSLEEPABLE_US * 1000ull : (uint64_t)timeout_ms * 1000000;
}

static void pin(const struct worker *w)
{
	cpu_set_t set;

	if (w->cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(w->cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	unsigned idle = 0;
	uint64_t slept_ns = 0;
	char name[16];

	pin(w);
	w->now_ns = 0; /* the time since its creation is no stall */
	snprintf(name, sizeof(name), "worker%u", w->index);
	pthread_setname_np(pthread_self(), name);
	/* Failure only costs the packet pool's cache. */
	(void)rte_thread_register();
	urcu_qsbr_register_thread();
	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		unsigned n = turn(w, slept_ns);

		grace_let_go();
		slept_ns = 0;
		idle = n ? 0 : idle + 1;
		if (idle <= IDLE_LOOPS)
			continue;
		if (w->dp->config.idle == IDLE_SPIN)
			rte_pause();
		else
			slept_ns = sleep_now(w);
	}
	urcu_qsbr_unregister_thread();
	rte_thread_unregister();
	return NULL;
}

int worker_start(struct worker *w)
{
	int err;

	atomic_store(&w->stop, false);
	err = pthread_create(&w->thread, NULL, worker_main, w);
	w->running = err == 0;
	return -err;
}

void worker_stop(struct worker *w)
{
	uint64_t one = 1;

	if (!w || !w->running)
		return;
	atomic_store(&w->stop, true);
	while (write(w->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(w->thread, NULL);
	w->running = false;
	storm_stop(w);
	worker_publish(w);
}

/* --- life --- */

#define NOTES_RING  1024
#define ORDERS_RING 256

static uint32_t share(uint32_t total, unsigned n_workers)
{
	return (total + n_workers - 1) / n_workers;
}

uint64_t worker_bytes(const struct dataplane_config *config)
{
	return sizeof(struct worker) + answer_limits_bytes() + tuples_bytes() + snat_pool_bytes(config) +
	       (uint64_t)config->n_backend_slots * sizeof(struct backend_cell) + reap_bytes(config->n_backend_slots) +
	       (uint64_t)config->n_service_slots * sizeof(struct service_cell);
}

/* Between this worker and decide. */
static struct rte_ring *ring_create(const struct worker *w, const char *what, unsigned elem_bytes, unsigned n)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%p", what, (const void *)w);
	return rte_ring_create_elem(name, elem_bytes, n, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
}

static int worker_init(struct worker *w, const struct dataplane_config *config)
{
	int err;

	err = flow_table_init(&w->flows, share(config->flows_v4, config->n_workers),
			      share(config->flows_v6, config->n_workers), config->secret);
	if (!err)
		err = pressure_init(&w->pressure, &w->flows, config->n_workers);
	if (!err)
		err = silence_init(&w->silence, config->n_workers);
	if (!err)
		err = signals_init(&w->signals, config, dataplane_now_ns(w->dp));
	if (!err)
		err = snat_pool_init(&w->snat, &w->dp->partition, w->index, config->n_snat_pairs, config->secret);
	if (!err)
		err = tuples_init(&w->tuples, config->secret);
	if (!err)
		err = holds_init(&w->holds, share(config->n_holds, config->n_workers), config->n_service_slots,
				 dataplane_now_ns(w->dp));
	if (!err)
		err = refused_init(&w->refused, config->n_workers);
	if (err)
		return err;
	w->random = hash_keyed(&w->index, sizeof(w->index), config->secret);
	w->backends = memory_alloc(config->n_backend_slots * sizeof(*w->backends));
	w->services = memory_alloc(config->n_service_slots * sizeof(*w->services));
	err = reap_init(&w->reaper, config->n_backend_slots);
	if (err)
		return err;
	w->outcomes = outcomes_create(config);
	w->limits = answer_limits_create(config->n_workers, config->secret, dataplane_now_ns(w->dp));
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->notes = ring_create(w, "notes", sizeof(struct note), NOTES_RING);
	w->orders = ring_create(w, "orders", sizeof(struct order), ORDERS_RING);
	if (!w->backends || !w->services || !w->limits || !w->notes || !w->orders || !w->outcomes)
		return -ENOMEM;
	if (w->wake_fd < 0)
		return -errno;
	w->now_ns = dataplane_now_ns(w->dp);
	w->run_ms = w->now_ns / 1000000;
	wheel_init(&w->wheel, w->run_ms);
	err = insist_init(&w->insist);
	return err ? err : path_memory_init(&w->path);
}

struct worker *worker_create(struct dataplane *dp, unsigned index)
{
	struct worker *w = memory_alloc(sizeof(*w));
	int err;

	if (!w)
		return NULL;
	w->dp = dp;
	w->index = index;
	w->cells = &dp->cells;
	w->wake_fd = -1;
	w->wall.trial_slot = SLOT_NONE;
	w->cpu = dp->config.cpus[index];
	err = worker_init(w, &dp->config);
	if (!err)
		return w;
	worker_destroy(w);
	errno = -err;
	return NULL;
}

void worker_destroy(struct worker *w)
{
	if (!w)
		return;
	flow_table_fini(&w->flows);
	snat_pool_fini(&w->snat);
	tuples_fini(&w->tuples);
	signals_fini(&w->signals);
	holds_fini(&w->holds);
	refused_fini(&w->refused);
	memory_free(w->backends);
	memory_free(w->services);
	reap_fini(&w->reaper);
	answer_limits_destroy(w->limits);
	outcomes_destroy(w->outcomes);
	rte_ring_free(w->notes);
	rte_ring_free(w->orders);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	memory_free(w);
}
