/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SNAT ports. The port space is parted among the workers, so that a reply names its owner: blocks of 1024 ports, dealt
 * out in turn. Within its blocks a worker hands out ports per (SNAT address, backend), so that one port may serve
 * different backends at a time, never two flows of one backend.
 */
#pragma once

#include "dataplane.h"
#include "ipaddr.h"

#include <stdbool.h>
#include <stdint.h>

#define SNAT_BLOCK_PORTS 1024
#define SNAT_BLOCKS      (65536 / SNAT_BLOCK_PORTS) /* block 0, the well-known ports, is never used */

/* Which worker owns a SNAT port; frozen at start. */
struct snat_partition {
	uint8_t owner[SNAT_BLOCKS];
};

void snat_partition_init(struct snat_partition *p, unsigned n_workers);

static inline unsigned snat_owner(const struct snat_partition *p, uint16_t port_be)
{
	return p->owner[ntohs(port_be) / SNAT_BLOCK_PORTS];
}

/* The SNAT addresses, frozen at start. */
struct snat_addresses {
	unsigned n;
	struct ipaddr addr[DATAPLANE_MAX_SNAT];
};

/* Index, or -1. */
static inline int snat_index(const struct snat_addresses *s, const struct ipaddr *addr)
{
	for (unsigned i = 0; i < s->n; i++)
		if (ipaddr_equal(&s->addr[i], addr))
			return i;
	return -1;
}

/* The ports of one (SNAT address, backend) at one worker. */
struct snat_pair {
	uint64_t key;  /* 0: never used */
	uint32_t used; /* ports taken, or at rest */
	uint32_t resting;
	uint32_t cursor;  /* where the next search begins: a port rests as long as can be before it is used again */
	uint64_t *map;    /* bit per port of this worker: taken, or at rest */
	uint32_t told_ms; /* when it was news last */
	uint8_t told;     /* enum snat_news */
};

enum snat_news {
	SNAT_NO_NEWS,
	SNAT_SCARCE,    /* four ports of five are taken; once, until it was less than two of three */
	SNAT_EXHAUSTED, /* none was free; once in SNAT_NEWS_MS */
};

#define SNAT_NEWS_MS 10000

/*
 * A port whose backend closed first rests, for that one is in TIME_WAIT: all equally long, which makes them a ring. Of
 * a full one the oldest gives way, and so it does where no other port is free. Numbers that lie ahead (numbers.h) make
 * such a port good for use, rest makes sure.
 */
struct snat_rest {
	uint64_t key;
	uint32_t port; /* place in the pair's map */
	uint32_t since_ms;
};

#define SNAT_RESTS_MAX 16384 /* a power of two */
#define SNAT_REST_MS   60000 /* TIME_WAIT of Linux */

struct snat_pool {
	uint16_t blocks[SNAT_BLOCKS]; /* the first port of each block of this worker */
	uint32_t n_ports;
	struct snat_pair *pairs; /* buckets of SNAT_PAIR_WAYS */
	uint32_t n_pairs;
	uint64_t *maps;
	struct snat_rest *rests;
	uint32_t oldest, newest; /* of the ring, count up for ever */
	uint64_t cut_short;      /* gave way before their time */
	const uint8_t *secret;
};

#define SNAT_PAIR_WAYS 8

uint64_t snat_pool_bytes(uint32_t n_pairs, unsigned n_workers);
/* n_pairs: a power of two, at least SNAT_PAIR_WAYS. Returns 0 or -ENOMEM. */
int snat_pool_init(struct snat_pool *pool, const struct snat_partition *partition, unsigned worker, uint32_t n_pairs,
		   const uint8_t *secret);
void snat_pool_fini(struct snat_pool *pool);

/* A port in network byte order, or 0 if there is none. Times are the worker's running clock. */
uint16_t snat_take(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t now_ms, enum snat_news *news);
void snat_give_back(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be);
/* The same, but it rests before it is free, while less than half of the pair's ports are taken. */
void snat_lay_to_rest(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be, uint32_t now_ms);
/* Half of the pair's ports are taken. */
bool snat_is_pressed(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot);

static inline uint32_t snat_resting(const struct snat_pool *pool)
{
	return pool->newest - pool->oldest;
}

void snat_wake(struct snat_pool *pool, uint32_t now_ms);

/* Once per loop: those that have rested enough are free. */
static inline void snat_run(struct snat_pool *pool, uint32_t now_ms)
{
	if (__builtin_expect(pool->oldest != pool->newest, 0))
		snat_wake(pool, now_ms);
}

/* Ports taken for that pair, or at rest. */
uint32_t snat_used(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot);
