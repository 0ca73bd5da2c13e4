/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SNAT tuples of one worker that belong to no flow but are not free either: each stays for TUPLE_LIFE_MS, so that what
 * still comes for it is known for what it is, and its port is not another flow's too early. All live equally long,
 * which makes them a ring; a keyed hash finds them. Of a full one the oldest gives way.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stdint.h>

enum tuple_kind {
	TUPLE_GHOST, /* a SYN went out from it, but the flow was given to another backend meanwhile */
	TUPLE_PROBE, /* the gateway's own SYN went out from it */
};

struct tuple {
	struct ipaddr backend;
	uint16_t backend_port_be;
	uint16_t snat_port_be;
	uint8_t snat_index;
	uint8_t kind;   /* enum tuple_kind */
	bool answered;  /* its SYN was */
	uint16_t limit; /* of a probe that is a check: that of its order; 0: nothing is to be counted (any more) */
	bool zombie;    /* the backend may still have work of it, */
	uint32_t zombie_unit; /* until the end of that unit: signals.c */
	uint32_t backend_slot;
	uint32_t isn;     /* of the SYN, host order */
	uint32_t syn_ms;  /* CLOCK_MS of the SYN */
	uint32_t born_ms; /* of the worker's running clock */
	uint32_t next;    /* in its chain: the position, or that of one that is gone */
};

#define TUPLES_MAX    4096 /* a power of two */
#define TUPLE_LIFE_MS 10000

struct tuples {
	struct tuple *ring;
	uint32_t *heads;         /* of chains, newest first */
	uint32_t oldest, newest; /* positions count up for ever, from 1; newest: the next one to come */
	const uint8_t *secret;
	uint64_t cut_short; /* gave way before their time */
};

uint64_t tuples_bytes(void);
/* Returns 0 or -ENOMEM. `secret` (HASH_SECRET_LEN) must outlive it. */
int tuples_init(struct tuples *t, const uint8_t *secret);
void tuples_fini(struct tuples *t);

static inline uint32_t tuples_count(const struct tuples *t)
{
	return t->newest - t->oldest;
}

/* There must be room. `born_ms` never goes back. */
void tuples_add(struct tuples *t, const struct tuple *tuple);
/* The one that comes next to its end; NULL: there is none. */
const struct tuple *tuples_oldest(const struct tuples *t);
void tuples_drop_oldest(struct tuples *t);

/* True if the oldest one's time is over. */
static inline bool tuples_due(const struct tuples *t, uint64_t now_ms)
{
	return t->newest != t->oldest && (uint32_t)now_ms - tuples_oldest(t)->born_ms >= TUPLE_LIFE_MS;
}

/* The one that was added last, to be found again by its position. */
static inline uint32_t tuples_last(const struct tuples *t)
{
	return t->newest - 1;
}

/* NULL: it is gone. */
struct tuple *tuples_at(const struct tuples *t, uint32_t position);
/* NULL if there is none. */
struct tuple *tuples_find(const struct tuples *t, const struct ipaddr *backend, uint16_t backend_port_be,
			  uint8_t snat_index, uint16_t snat_port_be);
