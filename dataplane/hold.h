/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Connections that wait at the gateway for their turn: of each, its SYN as a descriptor; the packet itself is gone. One
 * worker's pool, of fixed size. A hold is found by its five-tuple, and stands on a timing wheel of 1 ms slots at the
 * moment at which it shall be tried again; in a slot, those whose end is nearer come first.
 *
 * Single-threaded: only its worker touches it. Times are the clock that was passed in, not the worker's running clock:
 * the client's patience does not stand still.
 */
#pragma once

#include "flow.h"
#include "ipaddr.h"
#include "policy.h"

#include <stdbool.h>
#include <stdint.h>

#define HOLD_SLOTS   4096 /* of 1 ms: longer than the longest hold */
#define HOLD_TICK_NS 1000000ull
#define HOLD_NONE    UINT32_MAX

/* In which order those who wait for room get it; see fairness.h. */
enum hold_rank {
	RANK_KNOWN,
	RANK_STRANGER,
	RANK_CLIENT_BEYOND,
	RANK_NETWORK_BEYOND,
	HOLD_RANKS,
};

struct hold {
	struct syn_kept syn;
	struct ipaddr src, dst;
	uint16_t sport_be, dport_be;
	uint16_t payload_len; /* that came with the SYN, and is not kept */
	uint8_t in_line;      /* bit per cap: it has a place in that line */
	uint8_t n_missed;     /* turns that it had in vain */
	struct slot_ref service;
	uint64_t hash;     /* of its flow */
	uint64_t end_ns;   /* then it is over, one way or the other */
	uint32_t began_ms; /* CLOCK_MS: since when it waits for what it waits for */
	bool shadow;       /* nothing is held: it only stands for what would be, and is not found */
	uint8_t rank;      /* enum hold_rank */
	bool retry;        /* retry.h: it is one, and needs a token */
	bool queued;       /* it waits for room at its service's backends; on the wheel it stands at its end */
	/* hold.c's: */
	uint16_t slot;
	uint32_t next, prev; /* in the slot */
	uint32_t next_in_queue, prev_in_queue;
	uint32_t next_in_chain; /* of the index, or of the free ones */
};

struct holds {
	struct hold *holds;
	uint32_t capacity;
	uint32_t n;      /* in use */
	uint32_t n_real; /* those that are not shadow */
	uint32_t free;
	uint32_t *chains; /* by hash */
	uint32_t chain_mask;
	uint32_t *of_service; /* how many, by slot */
	struct hold_queue {
		struct {
			uint32_t first, last;
		} ranks[HOLD_RANKS]; /* in the order in which they came */
		uint32_t n;
		uint32_t at;      /* in `waiting`, unless it is empty */
		uint32_t taken;   /* fairness.c's: how many went since a stranger did, while room was shared out, */
		uint64_t turn_ns; /* and when that was */
		uint8_t why;      /* storm.c's: enum storm_cap, for want of what somebody could not go last */
	} * queues;               /* of those that wait for room, by hold_queue_at() */
	uint32_t *waiting;        /* queues that are not empty, in no order */
	uint32_t n_waiting;
	uint64_t queue_tick; /* in which queues were looked at last */
	struct {
		uint32_t first, last;
	} slots[HOLD_SLOTS];
	uint64_t tick; /* the next slot to look at, counted for ever */
};

uint64_t holds_bytes(uint32_t capacity, uint32_t n_services);
/* Returns 0 or -ENOMEM; holds_fini() is due in either case. */
int holds_init(struct holds *hs, uint32_t capacity, uint32_t n_services, uint64_t now_ns);
void holds_fini(struct holds *hs);

/*
 * Takes a copy of `h` in, on no slot yet, so that hold_schedule() is next. NULL if all are in use. What is shadow may
 * be there twice, and beside a real one.
 */
struct hold *hold_add(struct holds *hs, const struct hold *h, uint64_t now_ns);
/* When it shall be tried; at once if that is past. Not while it stands in a slot. */
void hold_schedule(struct holds *hs, struct hold *h, uint64_t due_ns);
/* Takes up to `max` of those whose slot has come off the wheel. Each is then scheduled again or deleted. */
uint32_t hold_due(struct holds *hs, uint64_t now_ns, uint32_t max, struct hold **due);
void hold_del(struct holds *hs, struct hold *h);

/* Each family of a service has a queue of its own: so have their backends. */
static inline uint32_t hold_queue_at(uint32_t service_slot, bool v6)
{
	return 2 * service_slot + v6;
}

/* It stands in a slot, and waits for room as well, behind the others of its service and rank. */
void hold_queue(struct holds *hs, struct hold *h);
/* Somebody waits in that queue whose turn is before that of the next one of that rank. */
bool hold_is_queued(const struct holds *hs, uint32_t queue, enum hold_rank rank);
/* Somebody of that rank waits there. */
static inline bool hold_is_queued_of(const struct holds *hs, uint32_t queue, enum hold_rank rank)
{
	return hs->queues[queue].ranks[rank].first != HOLD_NONE;
}

/* The first rank of which somebody waits in that queue, which is not empty. */
enum hold_rank hold_first_rank(const struct holds *hs, uint32_t queue);
/*
 * One of the queues that are not empty, and not among the first `at`: that many behind it. It is the next of the first
 * ones then, as long as it is not empty. So each is picked once, in an order that is the caller's.
 */
uint32_t hold_pick_queue(struct holds *hs, uint32_t at, uint32_t behind);
/* Of that rank in that queue, where there are some, the one that came first, or last. */
struct hold *hold_queued(const struct holds *hs, uint32_t queue, enum hold_rank rank, bool newest);
/* Takes it off its queue, and out of the slot in which it stands. */
void hold_unqueue(struct holds *hs, struct hold *h);

/* NULL if there is none. */
struct hold *hold_lookup(const struct holds *hs, uint64_t hash, const struct ipaddr *src, const struct ipaddr *dst,
			 uint16_t sport_be, uint16_t dport_be);

/* True if the last hold_due() up to now_ns left something for the next. */
static inline bool hold_is_behind(const struct holds *hs, uint64_t now_ns)
{
	return hs->n && hs->tick <= now_ns / HOLD_TICK_NS;
}

/* How long until the next slot with a hold in it, rounded up, at most `max_ms`. */
uint32_t hold_sleep_ms(const struct holds *hs, uint64_t now_ns, uint32_t max_ms);
