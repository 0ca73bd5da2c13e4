/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The start header: how control creates, feeds and stops the dataplane. Everything that changes while it runs goes
 * through dataplane_publish(), the route functions below, or nothing.
 *
 * All functions are for the decide thread unless they say otherwise.
 */
#pragma once

#include "ipaddr.h"
#include "policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATAPLANE_MAX_WORKERS 16
#define DATAPLANE_MAX_PORTS   16
#define DATAPLANE_MAX_QUEUES  64 /* per port */
#define DATAPLANE_MAX_SNAT    64

/* Both are in it; host order. */
struct port_range {
	uint16_t first, last;
};

#define SNAT_PORTS_DEFAULT ((struct port_range){1024, 65535})

static inline uint32_t port_range_size(struct port_range range)
{
	return range.last - range.first + 1;
}

enum idle_policy {
	IDLE_SLEEP, /* poll() when idle */
	IDLE_SPIN,
};

struct dataplane_config {
	unsigned n_workers;
	int cpus[DATAPLANE_MAX_WORKERS]; /* CPU of each worker; -1: not pinned */
	enum idle_policy idle;
	uint32_t flows_v4; /* table sizes, all workers together */
	uint32_t flows_v6;
	bool evict_idle;    /* connections that idle, rather than refuse new ones: pressure.h */
	uint32_t n_mbufs;   /* of the one packet pool */
	uint32_t max_frame; /* longest frame any port may carry, without FCS */
	uint32_t n_service_slots;
	uint32_t n_backend_slots;
	/* (SNAT address, backend) that can have flows at a time: two thirds of it, at least. A power of two. */
	uint32_t n_snat_pairs;
	uint32_t n_routes; /* per family */
	uint32_t n_neighbours;
	uint32_t n_holds;   /* new connections that may wait for their turn, all workers together */
	uint32_t n_clients; /* records of clients, all workers together */
	struct ipaddr snat[DATAPLANE_MAX_SNAT];
	unsigned n_snat;
	struct port_range snat_ports; /* of each of them, one per worker at least; all zero: SNAT_PORTS_DEFAULT */
	uint8_t secret[192];          /* of the keyed hashes; random at start, fixed in tests */
	uint8_t isn_key[16];          /* of what backends see of a hash, likewise */
	/* Monotonic nanoseconds, never 0; the dataplane has no clock of its own. NULL: CLOCK_MONOTONIC. */
	uint64_t (*now_ns)(void *arg);
	void *now_arg;
};

/* Bytes that a dataplane of this configuration takes, by part; the sum of `bytes` is the plan's total. */
struct memory_part {
	const char *name;
	uint64_t bytes;
};
#define MEMORY_PARTS_MAX 24
size_t dataplane_memory_plan(const struct dataplane_config *config, unsigned n_queues,
			     struct memory_part parts[static MEMORY_PARTS_MAX]);

/* Starts DPDK's EAL for this process, once. `huge`: use hugepages; else plain pages. Returns 0 or -errno. */
int dataplane_eal_init(uint64_t memory_bytes, bool huge);

/* NULL with errno set. */
struct dataplane *dataplane_create(const struct dataplane_config *config);
void dataplane_destroy(struct dataplane *dp);

/* --- ports --- */

enum port_kind {
	PORT_XSK, /* `device` is a netdev */
	PORT_ETH, /* `device` is a DPDK device: PCI address or "vdev:net_...,args" */
};

struct port_config {
	char name[32];
	char device[64];
	enum port_kind kind;
	unsigned n_queues;
	bool force_copy; /* PORT_XSK: do not ask for zero-copy */
	bool skb_mode;   /* PORT_XSK: generic XDP */
};

/*
 * Opens the port and gives its queues to the workers (queue q to worker q % n_workers). Returns the port's index or
 * -errno, then with a sentence in `err` that says what is wrong and how to mend it. Before dataplane_start() only.
 */
int dataplane_add_port(struct dataplane *dp, const struct port_config *config, char *err, size_t err_len);

enum rx_class {
	RX_KNOWN, /* everything else */
	RX_NEW,   /* SYN without ACK, and any SYN for a SNAT address */
	RX_CLASSES,
};

/* PORT_XSK: the sockets that the gate's xskmap needs. -1 if there is none. */
int dataplane_port_fd(const struct dataplane *dp, int port, unsigned queue, enum rx_class class);
/* The worker that serves a queue stores CLOCK_MONOTONIC ns at `cell` in each loop, relaxed. NULL: nowhere. */
void dataplane_port_set_heartbeat(struct dataplane *dp, int port, unsigned queue, uint64_t *cell);
void dataplane_port_set_mac(struct dataplane *dp, int port, const uint8_t mac[static 6]);
void dataplane_port_set_link(struct dataplane *dp, int port, bool up, uint32_t mtu);

/* --- run --- */

/* The first policy must have been published. Returns 0 or -errno. */
int dataplane_start(struct dataplane *dp);
/* Ends the workers and waits for them. */
void dataplane_stop(struct dataplane *dp);

/*
 * Makes `policy` the current one and waits until no worker can see the old one, which is returned and may be freed.
 * The caller keeps ownership of both. Also before dataplane_start().
 */
const struct policy *dataplane_publish(struct dataplane *dp, const struct policy *policy);

/*
 * True if no worker has a flow, or a connection that waits, of that backend / service slot (nor, of a backend, a tuple
 * or a zombie, nor is there an order about any): then, a grace period later, it may be reused.
 */
bool dataplane_backend_unused(const struct dataplane *dp, uint32_t slot);
bool dataplane_service_unused(const struct dataplane *dp, uint32_t slot);
/* Zeroes the slot's counters and cells, its order too, for its next owner. The slot must be unused. */
void dataplane_backend_reset(struct dataplane *dp, uint32_t slot);
void dataplane_service_reset(struct dataplane *dp, uint32_t slot);

/* --- ending flows --- */

enum reap_cause {
	REAP_NONE,
	REAP_DRAIN, /* the backend was removed, and its time to drain is over */
	REAP_STOP,  /* the gateway stops */
	REAP_DEAD,  /* the backend is silent: only flows whose client has waited for it to acknowledge for REAP_DEAD_MS
		     */
};

#define REAP_DEAD_MS       3000

#define REAP_SPREAD_MAX_MS 102300u
#define REAP_MIN_AGE_MAX_S 1048575u

struct reap_order {
	enum reap_cause cause;
	uint32_t spread_ms; /* the flows end one by one within this time, idle ones in the first half of it */
	uint32_t min_age_s; /* only flows that are older than this, now; 0: all */
};

/*
 * Orders that the flows of a backend slot end: TCP with a RST to both sides, UDP silently. It stands until it is
 * cancelled, replaced by another one for the slot, or the slot is reset for its next owner; a flow is judged by the
 * mode of its birth and by the present one of the cause's cure, the lower of the two. RSTs keep to the gateway's limit,
 * so that it may take longer than the spread. Workers look at a bounded number of entries per loop.
 */
void dataplane_reap(struct dataplane *dp, uint32_t backend_slot, const struct reap_order *order);
/* Takes back the slot's order if it is for that cause. */
void dataplane_reap_cancel(struct dataplane *dp, uint32_t backend_slot, enum reap_cause cause);
/* What the slot's order is for. */
enum reap_cause dataplane_reap_ordered(const struct dataplane *dp, uint32_t backend_slot);
/* The same for every flow, whichever slot it has. */
void dataplane_reap_all(struct dataplane *dp, const struct reap_order *order);

/*
 * Asks the workers how old the oldest flow of each backend is. The ages can be read once the survey is done; they are
 * those of its time.
 */
void dataplane_survey(struct dataplane *dp);
bool dataplane_survey_done(const struct dataplane *dp);
/* 0 if the slot had no flow. */
uint64_t dataplane_oldest_ms(const struct dataplane *dp, uint32_t backend_slot);

/* --- routes and neighbours: mirrored from the kernel by control/netlink.c --- */

#define ROUTE_MAX_NEXTHOPS 8

enum route_kind {
	ROUTE_UNICAST,
	ROUTE_BLACKHOLE, /* also unreachable, prohibit and throw */
	ROUTE_LOCAL,     /* the host's own; the gateway never sends there */
};

struct route_nexthop {
	int port;              /* index of the port; -1: leaves through a netdev that is not ours, no way */
	bool on_link;          /* the destination itself is the neighbour; `gateway` is not used */
	struct ipaddr gateway; /* may be of the other family (RFC 5549) */
	uint16_t weight;       /* >= 1 */
};

struct route_change {
	struct ipaddr prefix; /* IPv4: v4-mapped */
	uint8_t prefix_len;   /* of its own family: 0..32 or 0..128 */
	bool remove;
	enum route_kind kind;
	uint32_t mtu; /* of the route, 0: that of the link */
	unsigned n_nexthops;
	struct route_nexthop nexthops[ROUTE_MAX_NEXTHOPS];
};

/*
 * Applies a batch to both copies of the FIB, with one swap and grace period in between; returns how many changes could
 * not be applied because a table was full (each is counted too). Cheap per change, so batch them.
 */
size_t dataplane_route_update(struct dataplane *dp, const struct route_change *changes, size_t n);

struct neighbour_want;

/* The distinct gateways of all routes in use, at most `max`; returns how many. */
size_t dataplane_route_gateways(const struct dataplane *dp, struct neighbour_want *out, size_t max);

enum neighbour_state {
	NEIGHBOUR_UNRESOLVED, /* also failed */
	NEIGHBOUR_USABLE,     /* reachable, stale, delay, probe, permanent */
	NEIGHBOUR_GONE,       /* the kernel deleted it: the cell may be reused */
};

/* Returns 0 or -ENOSPC (table full). */
int dataplane_neighbour_update(struct dataplane *dp, int port, const struct ipaddr *addr, enum neighbour_state state,
			       const uint8_t mac[static 6]);

/* A neighbour that a worker wanted and did not find usable: control asks the kernel to resolve it. */
struct neighbour_want {
	int port;
	struct ipaddr addr;
};

/*
 * Whoever forges the sources of a network on link makes as many wishes as it has addresses. The kernel is asked for no
 * more than this, so that decide has time for all else. What is kept resolved anyway (netlink.h) is not wished for.
 */
#define NEIGHBOUR_WANTS_PER_S 1000
#define NEIGHBOUR_WANTS_BURST 128

/* --- notes: what workers leave for decide, in the order in which each of them left it --- */

enum note_kind {
	NOTE_NEIGHBOUR, /* `want`; each worker repeats a wish at most once a second, all utter NEIGHBOUR_WANTS_PER_S */
	NOTE_BACKEND,   /* `backend`: look at its cell now, rather than with the next tick */
	NOTE_PORTS,     /* `ports`: of that pair's few or none are free */
	NOTE_PATH_MTU,  /* `path`: a router said what fits on the way to an address: dataplane_path_learn() */
	NOTE_INSISTS,   /* `insists`: a client that is refused in silence again and again: insist.h */
};

struct note {
	enum note_kind kind;
	union {
		struct neighbour_want want;
		struct {
			uint32_t slot;
		} backend;
		struct {
			uint32_t backend_slot;
			uint32_t snat;    /* index of the address */
			uint32_t n_ports; /* of this worker, in all */
			bool exhausted;
		} ports;
		struct {
			struct ipaddr to;
			uint32_t mtu;
			bool upstream; /* `to` is a backend, else a client */
		} path;
		struct {
			struct ipaddr client, vip;
			struct slot_ref service;
			uint64_t at_ns;    /* told by the worker; the dataplane's clock */
			uint64_t until_ns; /* its SYNs are in vain until then */
			uint16_t port_be;
			uint8_t cap; /* STORM_CLIENT or STORM_PREFIX */
		} insists;
	};
};

/* Takes up to `max` of them, beginning with another worker each time. */
size_t dataplane_notes(struct dataplane *dp, struct note *out, size_t max);
/* Notes that found their ring full, ever. */
uint64_t dataplane_notes_lost(const struct dataplane *dp);
/* Readable as long as there are notes for control. */
int dataplane_notes_fd(const struct dataplane *dp);

/* --- learned path MTUs, for connections that begin from now on --- */

enum path_outcome {
	PATH_LEARNED,   /* new, or less than what was known */
	PATH_CONFIRMED, /* known: it lives longer now */
	PATH_LARGER,    /* more than what is known, which has to reach its end first */
	PATH_NO_ROOM,
};

struct path_lesson {
	enum path_outcome outcome;
	uint16_t mtu;    /* raised to the floor */
	uint16_t before; /* 0: nothing was known */
	bool prefix_too; /* the client's prefix got it, or less than it had */
};

/* What fits on the way to a client or a backend, checked by the worker that left the note. */
struct path_lesson dataplane_path_learn(struct dataplane *dp, bool upstream, const struct ipaddr *to, uint32_t mtu);
/* A few times a second: forgets what is too old. Workers heed the end of an entry themselves. */
void dataplane_paths_age(struct dataplane *dp);

/* --- orders: what decide wants done by one worker, which wakes up for it --- */

enum order_kind {
	ORDER_OPENED, /* `slot`: the backend's breaker opened: its SYNs that wait for an answer go elsewhere */
	ORDER_PROBE,  /* `slot`, `addr`, `port_be`: send the backend a SYN of the gateway's own */
	ORDER_CHECK,  /* the same while its breaker is not open, and what becomes of it counts: `limit` */
};

struct order {
	enum order_kind kind;
	uint32_t slot;
	struct ipaddr addr;
	uint16_t port_be;
	uint16_t limit; /* failures in a row that open a closed one */
};

/* False: the worker's ring is full, nothing was ordered. */
bool dataplane_order(struct dataplane *dp, unsigned worker, const struct order *order);

/* --- breakers: a word per backend slot, see streak.h --- */

uint64_t dataplane_breaker(const struct dataplane *dp, uint32_t slot);
/* False: it is no longer `*seen`, which is what it is then. */
bool dataplane_breaker_change(struct dataplane *dp, uint32_t slot, uint64_t *seen, uint64_t to);
struct backend_times {
	uint64_t silent_ns; /* a silence was counted last */
	uint64_t since_ns;  /* the first SYN of its streak was sent */
	uint64_t heard_ns;  /* it was heard last, by any worker; to the millisecond, and not by each packet */
};
void dataplane_backend_times(const struct dataplane *dp, uint32_t slot, struct backend_times *out);
/* When decide will try it next, or tried it last: of backends that are all open, the last resort is the first one due;
   and what is reset that began before says nothing. */
void dataplane_backend_due(struct dataplane *dp, uint32_t slot, uint64_t at_ns);

/* In the ramp: of the flows that choose it first, those that it gets, of 2^32 - 1. */
void dataplane_backend_share(struct dataplane *dp, uint32_t slot, uint32_t share);
uint32_t dataplane_backend_share_now(const struct dataplane *dp, uint32_t slot);
#define LIMIT_SOFT      (UINT32_C(1) << 31) /* who found no room in time goes all the same */
#define LIMIT_CONGESTED (UINT32_C(1) << 30)
#define LIMIT_WORK      (LIMIT_CONGESTED - 1)

/* The work that it may have at a time (limit.h), with the bits above or not; 0: as much as comes. */
void dataplane_backend_limit(struct dataplane *dp, uint32_t slot, uint32_t limit);
/* What services that cap a backend's new flows agree on, in place of what was; all zero: none does. */
void dataplane_backend_rate(struct dataplane *dp, uint32_t slot, const struct gcra_rate *rate);

struct service_limit {
	uint32_t n_limits;            /* of its backends that have one, */
	uint32_t n_congested;         /* and those that are congested */
	uint32_t hold_ms;             /* how long an attempt may wait for one of them */
	uint32_t pace;                /* of those that waited, so many a second are let through; 0: as there is room */
	uint32_t shares[FAIR_LEVELS]; /* new flows a second that are a fair share; 0: it is not shared out */
};
void dataplane_service_limit(struct dataplane *dp, uint32_t slot, const struct service_limit *limit);
/* Clients and networks that were let through, each once a second, while it is shared out: sums that only grow. */
void dataplane_service_active(const struct dataplane *dp, uint32_t slot, uint64_t active[static FAIR_LEVELS]);
/* It is congested, or, if those are asked for, its breaker is not closed. */
bool dataplane_backend_is_strained(const struct dataplane *dp, uint32_t slot, bool breaker_too);
/*
 * Retries of the service need tokens of a budget of so many (budget.h); 0: they need none. `earned`: when that begins,
 * in parts of tokens, what was earned since it ended last, for workers do not count that.
 */
void dataplane_service_budget(struct dataplane *dp, uint32_t slot, uint32_t cap, uint64_t earned);
/* Half-open: see trial.h. */
uint64_t dataplane_trial(const struct dataplane *dp, uint32_t slot);
void dataplane_trial_win(struct dataplane *dp, uint32_t slot, uint64_t seen);
void dataplane_trial_begin(struct dataplane *dp, uint32_t slot, bool keep_wins);
/* Responses that failed in a row: see streak.h. */
uint64_t dataplane_responses(const struct dataplane *dp, uint32_t slot);
void dataplane_responses_forget(struct dataplane *dp, uint32_t slot);

/* What a packet to an address would meet on its way out. */
enum way {
	WAY_OPEN,
	WAY_NO_ROUTE,
	WAY_LINK_DOWN,
	WAY_NO_ROUTER, /* the next hop, a router, is not resolved */
	WAY_NO_HOST,   /* the address itself is the next hop, and not resolved */
};
enum way dataplane_way(const struct dataplane *dp, const struct ipaddr *addr);
