/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What decide publishes for serve: an immutable, reference-counted picture of what the configuration and DNS came to.
 * Counters are not in it; serve reads those from observe.h by slot. Only the gates' are: their maps are decide's.
 */
#pragma once

#include "breaker.h"
#include "gate.h"
#include "ipaddr.h"
#include "limiter.h"
#include "netlink.h"
#include "policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gateway_state {
	GATEWAY_STARTING,
	GATEWAY_READY,
	GATEWAY_DRAINING,
};

enum backend_life {
	LIFE_NEW,
	LIFE_ACTIVE,
	LIFE_DRAINING,
	LIFE_GONE,
};

/* Of a backend whose breaker has something to say. All times are monotonic. */
struct view_breaker {
	enum breaker_state state;
	bool forced; /* by an operator's word */
	bool is_new; /* in the ramp because it is new to its set: it never opened there */
	enum breaker_cause cause;
	uint64_t since_ns;                   /* in that state */
	uint64_t opened_ns;                  /* last; 0: never */
	uint64_t probe_ns, until_ns;         /* open: the next probe; no real flow tries it before */
	uint64_t closes_ns;                  /* in the ramp, unless something fails */
	uint32_t openings;                   /* of late */
	uint32_t share;                      /* of its flows that it gets, of 2^32 - 1 */
	char evidence[BREAKER_EVIDENCE_LEN]; /* of the last opening */
	char check[80];                  /* open, and not to be tried while its checks fail: the last one; "": else */
	uint64_t side_ns;                /* since when its side is down; 0: it is not */
	char side[BREAKER_EVIDENCE_LEN]; /* "shop, IPv4: 4 of 4 backends fell silent within 10 s" */
};

/* What decide limits a backend's work by. */
struct view_limiter {
	bool limiting;
	bool stalled;        /* it answers nothing */
	uint32_t limit, wip; /* at most so much at a time, if limiting; of so much, as of the view */
	uint64_t since_ns;   /* monotonic, limiting or not; 0: ever */
	uint64_t usual_ns;   /* what first bytes take when nothing is wrong; 0: not known yet */
	uint64_t calm_ns; /* below that for a second, it is not limited any more; UINT64_MAX: as soon as it answers */
	enum limiter_base from; /* the usual one */
	uint64_t first_byte_ns; /* what they took of late */
	uint64_t rate;          /* answers in the best second of the last ten */
};

struct view_backend {
	char id[80]; /* "tcp:198.18.3.21:8080" */
	struct ipaddr addr;
	uint16_t port_be;
	uint8_t proto;
	uint32_t slot, generation;
	unsigned weight;
	enum backend_life life;
	uint64_t expires_ns;  /* monotonic end of the DNS lifetime; 0: no end (static address) */
	uint64_t removed_ns;  /* since when no service names it, monotonic; 0: one does */
	uint64_t deadline_ns; /* when its flows are ended; 0: they are not */
	char services[128];   /* names for people, comma separated; "..." at the end if there are more */
	struct view_limiter limiter;
	uint32_t hard_max;                  /* the least of what its services let it have at a time; 0: none says */
	const struct view_breaker *breaker; /* NULL: closed, and never was anything else of late */
};

/* What the XDP program discards of a service's SYNs: shedding.h. Times are the dataplane's clock. */
struct view_early {
	uint64_t of_clients, of_all;             /* ever */
	uint64_t clients_since_ns, all_since_ns; /* 0: not now */
	uint32_t pass;                           /* of 2^32, of all; 0: of all none is discarded */
	uint64_t offered, admitted;              /* SYNs a second, of late */
};

struct view_service {
	char name[64];
	char *listen; /* "198.18.100.1:80/tcp,[2001:db8:100::1]:80/tcp", of any length */
	uint32_t slot;
	unsigned n_backends;       /* of the policy: those that may get its flows */
	char down_reason[128];     /* "" if each listener has a usable backend, and all that it should have */
	uint32_t generation;       /* of the slot */
	uint64_t caps[STORM_CAPS]; /* new flows per second, by enum storm_cap; 0: none */
	uint32_t hard_max;         /* of its backends' work; 0: none */
	uint64_t backend_rate;     /* of each one's new TCP flows; 0: none */
	uint32_t *backends;        /* their places in the view's backends, n_backends of them; from malloc */
	struct view_early early;
};

struct view_name {
	char name[256];
	uint8_t family;
	const char *state; /* static text */
	unsigned n_addresses;
	uint64_t ttl_ns, next_query_ns, queries, failures;
	uint64_t changes, would_changes, refused; /* of the set: followed, and not; addresses left out */
	char last_error[64];
};

struct view_gate {
	char port[64];
	size_t n_counters;
	struct gate_counter counters[GATE_MAX_COUNTERS];
};

struct view {
	_Atomic unsigned refs;
	enum gateway_state state;
	char trouble[256]; /* why it cannot serve although it runs; "": nothing is in the way */
	uint64_t policy_number;
	uint64_t published_ns;             /* monotonic */
	uint64_t publish_took_ns;          /* build and publish of this one */
	struct netlink_report kernel;      /* what is mirrored of it */
	uint32_t tick_p99_us, tick_max_us; /* how late decide's ticks were in the last minute: pulse.h */
	size_t n_backends, n_services, n_names, n_gates;
	struct view_backend *backends; /* in the order of their slots */
	struct view_service *services;
	struct view_name *names;
	struct view_gate *gates;
	struct view_breaker *breakers; /* what backends point to */
};

/* NULL is fine: not yet. */
static inline bool view_is_ready(const struct view *view)
{
	return view && view->state == GATEWAY_READY && !*view->trouble;
}

/* Takes a reference to the current view (never NULL after the first publish); any thread. */
const struct view *view_get(void);
void view_put(const struct view *view);
/* Decide only: makes `view` (refs = 1, allocated with malloc, arrays too) the current one and drops the old. NULL: at
 * the end. */
void view_publish(struct view *view);
void view_free(struct view *view);
