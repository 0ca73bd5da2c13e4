/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What control publishes to the workers: an immutable snapshot.
 *
 * Ownership: control builds every part, publishes the snapshot with dataplane_publish(), and frees the old one after
 * that call returned (it waits for a grace period). Parts are shared by reference between snapshots: what did not
 * change is not rebuilt. Workers only read; they reach a snapshot through one pointer that they load once per burst.
 * Flows never keep a pointer into it: they keep slots.
 */
#pragma once

#include "bucket.h"
#include "cure.h"
#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOT_NONE     UINT32_MAX

/* Written over freed parts in test builds, so that a reader of freed memory is seen at once. */
#define POLICY_POISON 0xdb

/*
 * A slot names a service or a backend for as long as any flow may point at it. `generation` changes when the slot is
 * given to another one.
 */
struct slot_ref {
	uint32_t slot;
	uint32_t generation;
};

struct policy_backend {
	struct ipaddr addr;
	struct slot_ref ref;
	uint16_t port_be;
	uint16_t weight; /* 1..1000, already scaled; 0 never gets here */
};

/* The backends of one service for one family and protocol, with their Maglev table. */
struct policy_set {
	uint32_t n_backends;
	uint32_t table_size;   /* prime: 2039, 16381 or 65537; 0 if there is no backend */
	const uint16_t *table; /* table[hash % table_size] = index into backends[] */
	const struct policy_backend *backends;
	/* Of TCP, whatever each bears (limit.h): */
	uint32_t hard_max;     /* work that it may have at a time; 0: what it bears */
	struct gcra_rate rate; /* new flows that it is given; its interval 0: as many as come */
};

/* All times in milliseconds. */
struct policy_timeouts {
	uint32_t syn_sent_ms;
	uint32_t syn_recv_ms;
	uint32_t established_ms;
	uint32_t fin_wait_ms;
	uint32_t last_ack_ms;
	uint32_t time_wait_ms;
	uint32_t closed_ms;
	uint32_t udp_unreplied_ms;
	uint32_t udp_replied_ms;
	uint32_t dns_unreplied_ms; /* the same of UDP to port 53 */
	uint32_t dns_replied_ms;
	uint32_t probe_ms;                /* idle time after which both ends are asked; 0: never */
	bool probe_client, probe_backend; /* whether that end is asked */
	uint32_t unacked_ms;              /* silence after which data will not be acknowledged any more */
};

extern const struct policy_timeouts policy_timeouts_default;

/* Caps on new flows, in the order in which they are tested. */
enum storm_cap {
	STORM_CLIENT,  /* of one client: an IPv4 address, an IPv6 /64 */
	STORM_PREFIX,  /* of one prefix: an IPv4 /24, an IPv6 /48 */
	STORM_SERVICE, /* of all */
	STORM_CAPS,
	/* Of its backends, of which one is enough (limit.h): */
	STORM_LIMIT = STORM_CAPS, /* what they bear now */
	STORM_HARD_MAX,           /* what an operator lets them have under way, */
	STORM_BACKEND,            /* and the new flows that he lets them have */
	STORM_RETRY,              /* nor is the budget of retries (retry.h) */
	STORM_TESTS,
};

/* Whose share it is. */
enum fair_level {
	FAIR_CLIENT,  /* an IPv4 address, an IPv6 /64 */
	FAIR_NETWORK, /* a /24, a /48 */
	FAIR_LEVELS,
};

struct policy_storm {
	struct gcra_rate caps[STORM_CAPS]; /* all zero: no cap */
	uint64_t client_timeout_ns;        /* how long its clients wait for an answer */
	uint32_t retry_budget_ppm;         /* tokens that a first attempt earns, in parts per million */
	uint64_t hold_ns; /* how long a TCP flow over a cap may wait, at most GCRA_LINE_MAX_NS; 0: not at all */
	bool early;       /* SYNs that are in vain are discarded before they come to a worker */
};

/* What lets a SNAT port serve the next connection while its backend still remembers the last one: numbers.h, tcp.c. */
struct policy_reuse {
	bool isn, timestamps; /* are translated */
	bool assist;          /* an answer out of TIME_WAIT is settled, and the SYN sent again */
};

enum { SET_V4 = 0, SET_V6 = 1, SET_FAMILIES = 2 };
enum { SET_TCP = 0, SET_UDP = 1, SET_PROTOS = 2 };

#define BREAKER_CONSECUTIVE_DEFAULT 5
#define BREAKER_WINDOW_DEFAULT_S    10
#define BREAKER_RATIO_DEFAULT_PPM   500000

struct policy_service {
	struct slot_ref ref;
	struct policy_timeouts timeouts;
	bool clamp_mss; /* to what its connections' paths carry */
	struct policy_reuse reuse;
	bool udp_oneshot;             /* a UDP flow ends when each query has its reply */
	bool udp6_zero;               /* UDP over IPv6 may come without checksum (RFC 6935) */
	uint32_t breaker_consecutive; /* connect failures in a row that open a backend's breaker */
	uint32_t breaker_window_s;    /* or this share of failures, in parts per million, within that time */
	uint32_t breaker_ratio_ppm;
	struct policy_storm storm;
	struct policy_set sets[SET_FAMILIES][SET_PROTOS];
	/* With names in shadow: what DNS says now, where that differs. Its backends have no slots. */
	bool would_differ;
	struct policy_set would[SET_FAMILIES][SET_PROTOS];
};

struct policy_listener {
	struct ipaddr addr;
	uint32_t service_slot;
	uint16_t port_be;
	uint8_t proto;
};

/* Opaque, immutable, open-addressed. */
struct listener_table;

struct policy {
	uint64_t number; /* 1, 2, 3 …: bursts are stamped with it */
	struct cure_modes modes;
	const struct listener_table *listeners;
	bool udp6_zero;                               /* of any service */
	uint32_t n_services;                          /* slots, not services in use */
	const struct policy_service *const *services; /* by slot; NULL: free */
};

/* NULL: the slot is free, or beyond those that this policy knows. */
static inline const struct policy_service *policy_service_at(const struct policy *policy, uint32_t slot)
{
	return slot < policy->n_services ? policy->services[slot] : NULL;
}

/*
 * Makes a table of `n` listeners; later duplicates of (addr, port, proto) are refused with EEXIST.
 * Returns NULL with errno set. Free with listener_table_destroy() (NULL is fine).
 */
struct listener_table *listener_table_create(const struct policy_listener *listeners, size_t n);
void listener_table_destroy(struct listener_table *table);

/* NULL if there is none. */
const struct policy_listener *listener_lookup(const struct listener_table *table, const struct ipaddr *addr,
					      uint16_t port_be, uint8_t proto);
/* True if any listener has this address, whatever its port: then echo requests to it are ours. */
bool listener_has_address(const struct listener_table *table, const struct ipaddr *addr);

/*
 * Maglev (Eisenbud et al., NSDI 2016) with weights. Permutations come from the text "address:port" with a fixed seed,
 * and backends are taken in the order of address and port whatever the order given, so that equal sets give equal
 * tables on every gateway and after every restart.
 */

/*
 * 2039 for one backend, 16381 for up to 80, 65537 for more; 0 for none. When one of N leaves, less than 1.5 % of the
 * places of the others move as long as the size stays; 100 x N places would not do for N < 21, where up to 3 % moved.
 */
uint32_t maglev_table_size(uint32_t n);

/*
 * Fills table[0 .. size-1] with indices into backends[]. Returns 0, -EINVAL (n = 0, n > 65535, all weights 0, size not
 * one of the above), or -ENOMEM.
 */
int maglev_build(const struct policy_backend *backends, uint32_t n, uint16_t *table, uint32_t size);
