/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cells that all workers and decide share: one per backend slot, one per service slot. Each field says who changes it,
 * and how. They live beside the policy, for as long as the slot has its owner: a new snapshot does not touch them.
 *
 * Reading one costs a line that others may be writing: established packets stay away from them, new flows may look.
 */
#pragma once

#include "bucket.h"
#include "policy.h"

#include <stdbool.h>
#include <stdint.h>

/* Times are of the dataplane's clock, on which workers agree, unlike on their running clocks. */
struct backend_shared {
	uint64_t breaker;       /* streak.h; workers and decide, by compare-and-swap */
	uint64_t silent_ns;     /* workers, relaxed: when a silence was counted last, */
	uint64_t since_ns;      /* and when the first SYN of the streak was sent */
	uint64_t due_ns;        /* decide, relaxed: when it tries an open one next, or tried it last; 0: never */
	uint64_t trial;         /* trial.h: the flow that a half-open one is tried by; workers and decide, likewise */
	uint64_t responses;     /* streak.h: failed responses in a row; likewise */
	uint32_t share;         /* decide, relaxed: in the ramp, of its flows, of 2^32 - 1 */
	uint32_t limit;         /* decide, relaxed: work that it may have at a time, with the bits LIMIT_*; 0: none */
	uint32_t told_ms;       /* workers, by compare-and-swap: CLOCK_MS when decide was told of failures last */
	uint32_t checks_failed; /* workers, by addition: of the failures in a row, the gateway's own SYNs; or more */
	struct gcra rate;       /* new flows of services that cap them; workers, by compare-and-swap */
	/* What these agree on, the longest interval and the smallest burst; decide, relaxed. All zero: nothing yet. */
	struct gcra_rate cap;
} __attribute__((aligned(64)));

struct service_shared {
	uint64_t last_resort_ns; /* workers, by compare-and-swap: the last flow let through though all is open; 0: none
				  */
	struct gcra rate;        /* new flows, of all clients; workers, by compare-and-swap */
	struct gcra_line line;   /* of those who wait for it; likewise */
	/* limit.h; decide, relaxed: */
	uint64_t pace_interval; /* between two of those that waited, in 2^-16 ns; 0: as there is room */
	uint32_t n_limits;      /* of its backends that have one, */
	uint32_t n_congested;   /* and those that are congested */
	uint32_t hold_ms;       /* how long an attempt may wait for one of them */
	struct gcra pace;       /* of those that waited; workers, by compare-and-swap */
	/* fairness.h; decide, relaxed: between two new flows of one within its share, in 2^-16 ns; 0: not shared out */
	uint64_t share_intervals[FAIR_LEVELS];
	uint64_t active[FAIR_LEVELS]; /* workers, by addition: who connected, client or network, each once a second */
	uint64_t budget;              /* budget.h, of retries; workers, by compare-and-swap, and decide as it begins */
	uint32_t budget_cap;          /* decide, relaxed: in tokens; 0: nobody needs one */
} __attribute__((aligned(64)));

/* Which flows are to end: written by decide through dataplane_reap*(), read by workers; relaxed. See reap.c. */
struct reap_cells {
	uint64_t *orders; /* by backend slot; 0: none */
	uint64_t all;     /* the order for every flow; 0: none */
	uint32_t n_orders;
	uint32_t survey; /* number of the survey that is wanted */
	uint32_t number; /* of changes to the above: stored last, with release */
};

struct cells {
	struct backend_shared *backends; /* by slot */
	struct service_shared *services; /* by slot */
	struct reap_cells reap;
	bool udp6_zero; /* a flow was born with FLOW_MARK_UDP6_ZERO, ever */
};

uint64_t cells_bytes(uint32_t n_backends, uint32_t n_services);
/* All zero: the state of a slot that nobody had before. Returns 0 or -ENOMEM. */
int cells_init(struct cells *c, uint32_t n_backends, uint32_t n_services);
void cells_fini(struct cells *c);
/* For the slot's next owner. The slot must be unused. */
void cells_reset_backend(struct cells *c, uint32_t slot);
void cells_reset_service(struct cells *c, uint32_t slot);
