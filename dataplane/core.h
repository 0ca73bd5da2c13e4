/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the stages of one worker share: the worker, the dataplane around it, and the burst that is under way.
 *
 * Who writes what: everything in struct worker is its worker's alone, unless its comment names another. Everything in
 * struct dataplane is fixed at start, unless its comment names a writer.
 */
#pragma once

#include "answer_limits.h"
#include "bucket.h"
#include "cells.h"
#include "client_buckets.h"
#include "credits.h"
#include "dataplane.h"
#include "fib.h"
#include "flow.h"
#include "hold.h"
#include "insist.h"
#include "mtu.h"
#include "observe.h"
#include "parse.h"
#include "policy.h"
#include "port.h"
#include "refused.h"
#include "signal_cells.h"
#include "snat.h"
#include "tuples.h"
#include "verdict.h"
#include "wheel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct rte_mbuf;
struct rte_ring;

#define BURST_MAX 32

/* One packet on its way through the stages. It is on its way while its verdict is VERDICT_NONE. */
struct item {
	struct rte_mbuf *m;
	uint8_t *frame;
	uint64_t hash; /* of its flow key, TCP and UDP only */
	flow_ref ref;
	uint8_t verdict; /* enum verdict */
	uint8_t out_port;
	struct packet p;
	uint8_t attempt; /* of a first packet, once it is judged: retry.h */
};

struct burst {
	unsigned n;
	enum rx_class class;
	bool taken_over; /* from another worker: its owner is known to be us */
	bool udp6_zero;  /* some packet is UDP over IPv6 without checksum, and may be allowed */
	const struct policy *policy;
	const struct fib_view *fib;
	const struct fib_cell *cells; /* of neighbours */
	uint32_t fib_gen;
	uint32_t ports_up; /* bit per port: its link is up */
	struct item items[BURST_MAX];
};

/* --- counters that are read by others: written by one worker, with relaxed stores --- */

static inline void count_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

#define BACKEND_LATELY 4

struct backend_cell {
	uint64_t users; /* flows that name the slot: it is not reused before this is 0 */
	uint64_t new_flows, connects, failures;
	uint64_t packets[DIRS], bytes[DIRS]; /* rolled up each 64 packets of a flow, and at its end */
	/* The wall's: */
	uint64_t held; /* tuples that name the slot: nor before this is 0 */
	uint64_t resteered, overloads, probes;
	uint64_t unfinished; /* handshakes that it answered and the client did not */
	uint64_t heard_ms; /* of the dataplane's clock, about: when the backend was heard last; others read it; 0: never
			    */
	uint32_t handshake_ms8;          /* EWMA of how long handshakes took, in eighths */
	uint32_t handshakes;             /* that went into it, until there are enough */
	flow_ref waiting;                /* the first flow that waits for an answer to its SYN; 0: none does */
	flow_ref lately[BACKEND_LATELY]; /* flows whose SYN was answered lately; 0: none */
	/* silence.c's */
	uint64_t dead[DIRS];                        /* flows that ended because that direction's sender was silent */
	uint32_t idle_survived_ms, idle_lost_ms;    /* levels; 0: none yet */
	uint64_t alive_ms;                          /* when the backend last spoke; the running clock */
	uint64_t suspect_idle_ms, suspect_until_ms; /* idle_lost_ms, if the backend speaks until then */
} __attribute__((aligned(64)));

static_assert(sizeof(struct backend_cell) == 192, "three lines");

/* The same names as in struct service_report, which says what they are. */
struct service_cell {
	uint64_t users;   /* flows that name the slot: it is not reused before this is 0, */
	uint64_t holding; /* nor before this is */
	uint64_t attempts, repeated, new_flows, refused, silent, silent_many, silent_rate, held, held_admitted,
		refused_storm, first_attempts, retries;
	uint64_t would_hold, would_refuse, would_silence;
	uint64_t waited; /* held, or would be, because there was no room */
};

/* Frames that wait for the end of the loop. */
#define TX_BUFFER 128

struct tx_buffer {
	unsigned n;
	struct rte_mbuf *m[TX_BUFFER];
};

/* A memory of the neighbours that were asked for lately. */
#define WANT_MEMORY 64

struct want_memory {
	struct neighbour_want want;
	uint64_t asked_ms;
};

/* What was told to decide of path MTUs lately, and which "packet too big" is not believed yet: path.c. */
#define PATH_TOLD 64
#define PATH_HELD 256

struct path_told {
	uint64_t what; /* hash of address, side and MTU */
	uint64_t at_ms;
};

struct path_held {
	uint64_t flow; /* hash of the direction's key */
	uint64_t at_ms;
	uint32_t una; /* what the receiver had acknowledged then */
};

struct path_memory {
	struct gcra_rate note_rate;
	struct gcra notes;
	struct path_told told[PATH_TOLD];
	struct path_held held[PATH_HELD];
};

/* Of the wall, at one worker. */
#define WALL_OPENED_MAX 16

/* The gateway's own SYNs whose silence is to be judged: probe.c. */
#define CHECKS_MAX      64

struct checks {
	struct check {
		uint32_t position; /* of its tuple */
		uint32_t due_ms;   /* of the running clock */
		uint8_t doubts;    /* how often its answer may have been lost */
	} of[CHECKS_MAX];
	unsigned n;
	uint32_t due_ms; /* of the first of them */
};

struct wall {
	uint32_t opened[WALL_OPENED_MAX]; /* slots of backends that opened, whose waiting flows go elsewhere */
	unsigned n_opened;
	/* The flow that is being placed tries this half-open backend, in that generation; SLOT_NONE: it tries none. */
	uint32_t trial_slot;
	uint8_t trial_generation;
	struct checks checks;
};

/* What the worker may ask of its own accord: its share. silence.c's. */
struct silence_pace {
	struct gcra_rate probe_rate;
	struct gcra probes;
};

/* Whether silence is evidence: hearing.h. */
struct hearing {
	bool wanted;        /* by someone who would take silence for evidence */
	bool behind;        /* within a turn: some ring was not read to its end */
	unsigned turns;     /* since the rings' ends were marked */
	uint64_t marked_ns; /* when that was */
	uint64_t
		others_ns; /* what came to others until then was in our rings when they were marked; 0: not looked at */
	uint64_t heard_ns; /* what came until then, to whichever worker, was read */
};

/* Frames that were lost on their way in, by the port that they came to: hearing.c. */
struct losses {
	_Atomic uint64_t asked_ns; /* when devices were asked last */
	_Atomic bool asking;       /* some worker does, and has what is not atomic */
	struct port_losses {
		_Atomic uint64_t noticed_ns; /* when more had been lost than before; 0: never */
		uint64_t lost;
	} ports[DATAPLANE_MAX_PORTS];
};

struct flow_command; /* observe.c */
struct reap_oldest;  /* reap.c */

/* A worker's walk over its flow table: reap.c. */
struct reaper {
	bool walking;
	bool starved;               /* the walk waits for the limit on RSTs */
	uint64_t cursor;            /* the entry to look at next */
	uint64_t next_ms;           /* when the next walk for orders begins */
	uint64_t walked_ns;         /* the last loop that walked */
	uint32_t seen;              /* the number of changes that was seen */
	uint32_t survey;            /* that the walk under way is for */
	uint32_t surveyed;          /* the last one that was walked whole; read by decide */
	struct reap_oldest *oldest; /* by backend slot; read by decide */
};
struct outcomes; /* outcome_worker.h */

/* How full a family's pool is, and the walk over it: pressure.c. */
#define PRESSURE_CLASSES 32 /* of idle times */

struct pressure_pool {
	uint32_t up[PRESSURE_LEVELS], down[PRESSURE_LEVELS]; /* entries in use from which on, and under which */
	enum pressure_level level;
	uint64_t reached[PRESSURE_LEVELS]; /* ever */
	bool walking;
	bool starved;    /* the walk waits for the limits on evictions and RSTs */
	uint32_t cursor; /* the entry to look at next */
	uint64_t next_ms;
	uint64_t walked_ns; /* the last loop that walked */
	/* How many this walk ends: all above one class, and some of that. */
	uint32_t evict_want, evict_from, evict_some;
	uint32_t idle[PRESSURE_CLASSES]; /* what this walk saw of each */
	uint32_t leaving;                /* and of those that were ended, and are only there until both ends know */
};

struct pressure {
	struct pressure_pool pools[SET_FAMILIES];
	struct gcra_rate evict_rate;
	struct gcra evicts;
};

struct worker {
	/* the packet path's */
	struct dataplane *dp;
	unsigned index;
	struct flow_table flows;
	struct wheel wheel;
	struct snat_pool snat;
	unsigned reclaim_turn; /* of the SNAT addresses, modulo their number: place.c */
	struct tuples tuples;
	struct wall wall;
	struct answer_limits *limits;
	struct holds holds;
	struct refused refused;
	uint64_t random;               /* state of a generator: jitter */
	struct backend_cell *backends; /* by slot */
	struct service_cell *services; /* by slot */
	struct cells *cells;           /* shared by all workers */
	struct outcomes *outcomes;     /* read by others, too */
	struct port_queue *tx_queue[DATAPLANE_MAX_PORTS];
	struct tx_buffer tx[DATAPLANE_MAX_PORTS];
	struct burst burst;
	struct silence_pace silence;
	struct signals signals;
	struct hearing hearing;
	struct insist insist;

	/* time */
	uint64_t now_ns;     /* of this loop, by the clock that was passed in */
	uint64_t stalled_ns; /* time in which the worker did not run */
	uint64_t run_ms;     /* now - stalled: what flows age by */
	uint32_t run_us;     /* the same, modulo 2^32 */

	uint16_t fragmented; /* packets that were cut, modulo the worker's share of identifications */

	/* own counters; published at the end of a loop */
	struct ledger ledger;
	uint64_t loops, bursts, sleeps, wakeups, expired, out_of_window, damaged;
	uint64_t policy_number, policy_regress;
	uint64_t published_at_ns;

	struct reaper reaper;
	struct pressure pressure;
	struct want_memory wants[WANT_MEMORY];
	struct path_memory path;
	uint64_t handover_lost[DATAPLANE_MAX_PORTS]; /* established traffic that found a full ring; others read it */
	uint64_t wants_denied;                       /* wishes beyond dp->want_rate */
	struct rte_ring *orders;                     /* from decide: order.c */
	uint64_t orders_done;                        /* read by decide */
	struct rte_ring *notes;                      /* to decide: note.c */
	bool notes_added;                            /* and decide was not told yet */
	uint64_t notes_lost;

	/* read by others */
	struct {
		uint64_t seq; /* odd: being written */
		struct ledger ledger;
		struct worker_report report;
	} published __attribute__((aligned(64)));

	_Atomic bool asleep;         /* read by those who would wake it */
	_Atomic uint64_t drained_ns; /* what came until then was read, or is in the ring of its owner */

	/* written by others */
	_Atomic bool stop;
	_Atomic(struct flow_command *) commands[QUERY_LANES]; /* by serve threads */
	int wake_fd;

	pthread_t thread;
	bool running;
	int cpu;
};

struct dataplane {
	struct dataplane_config config;
	struct worker *workers[DATAPLANE_MAX_WORKERS];
	struct port *ports[DATAPLANE_MAX_PORTS];
	unsigned n_ports;
	struct rte_mempool *pool;
	struct fib *fib;
	struct snat_addresses snat;
	struct snat_partition partition;
	struct policy *policy; /* RCU; written by decide; its readers treat it as const */
	/* From worker to worker, a ring per class, so that a flood of SYNs cannot fill the way of what is established.
	 */
	struct rte_ring *rings[RX_CLASSES][DATAPLANE_MAX_WORKERS][DATAPLANE_MAX_WORKERS];
	struct cells cells;                      /* changed by workers and decide, as each says */
	struct losses losses;                    /* changed by workers, as hearing.c says */
	struct client_table clients, prefixes;   /* changed by workers, as client_buckets.h says */
	struct client_table shares[FAIR_LEVELS]; /* likewise; fairness.h */
	struct credit_table credits;             /* changed by workers, as credits.h says */
	struct mtu_table mtus;                   /* written by decide, read by workers */
	struct gcra wants;                       /* of all workers: what decide is asked to resolve */
	struct gcra_rate want_rate;
	uint64_t orders_given[DATAPLANE_MAX_WORKERS]; /* decide's */
	uint32_t ports_up;                            /* bit per port; written by decide, relaxed */
	int notes_fd;                                 /* eventfd: workers left notes */
	unsigned notes_from;                          /* the worker whose notes are taken first; decide's */
	pthread_mutex_t query_locks[QUERY_LANES];
};

/* Of the dataplane's clock, modulo 2^32, where the difference of two of them is what counts. */
#define CLOCK_MS(ns) ((uint32_t)((ns) / 1000000))

/* CLOCK_MONOTONIC in production; tests pass their own. */
static inline uint64_t dataplane_now_ns(const struct dataplane *dp)
{
	return dp->config.now_ns(dp->config.now_arg);
}
