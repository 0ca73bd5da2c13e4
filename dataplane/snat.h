/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SNAT ports. Their range is parted among the workers, so that a reply names its owner: equal blocks, dealt out in
 * turn. Within its blocks a worker hands out ports per (SNAT address, backend), so that one port may serve different
 * backends at a time, never two flows of one backend.
 */
#pragma once

#include "dataplane.h"
#include "ipaddr.h"

#include <stdbool.h>
#include <stdint.h>

#define SNAT_BLOCKS 64

/*
 * Which worker owns a SNAT port; frozen at start. Blocks are the smallest power of two that makes at most SNAT_BLOCKS
 * of the range, so that of a small one each worker has its share; the last one may be cut short.
 */
struct snat_partition {
	uint16_t first; /* port of the range, host order */
	uint8_t shift;  /* log2 of a block's ports */
	uint8_t n_blocks;
	uint32_t n_ports;               /* of the range */
	uint8_t owner[SNAT_BLOCKS + 1]; /* the last: of ports that are in no block */
};

/* The range has at least one port per worker. */
void snat_partition_init(struct snat_partition *p, struct port_range range, unsigned n_workers);

static inline unsigned snat_owner(const struct snat_partition *p, uint16_t port_be)
{
	uint32_t block = (uint16_t)(ntohs(port_be) - p->first) >> p->shift;

	return p->owner[block < SNAT_BLOCKS ? block : SNAT_BLOCKS];
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
	uint32_t rests_first, rests_last; /* of the ring, if there are any */
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
	uint64_t key;  /* 0: woken already */
	uint32_t next; /* of the same pair */
	uint32_t port; /* place in the pair's map */
	uint32_t since_ms;
};

#define SNAT_RESTS_MAX 16384 /* a power of two */
#define SNAT_REST_MS   60000 /* TIME_WAIT of Linux */

struct snat_pool {
	const struct snat_partition *partition;
	uint16_t blocks[SNAT_BLOCKS]; /* the first port of each block of this worker */
	uint8_t place[SNAT_BLOCKS];   /* of a block of the range among them */
	unsigned worker;
	uint32_t n_ports, n_words; /* ports of this worker, and words of a map of them */
	struct snat_pair *pairs;   /* buckets of SNAT_PAIR_WAYS */
	uint32_t n_pairs;
	uint64_t *maps;
	struct snat_rest *rests;
	uint32_t oldest, newest; /* of the ring, count up for ever */
	uint32_t n_resting;
	uint32_t n_full; /* pairs without a free port */
	const uint8_t *secret;
};

#define SNAT_PAIR_WAYS 8

uint64_t snat_pool_bytes(const struct dataplane_config *config);
/* n_pairs: a power of two, at least SNAT_PAIR_WAYS. The partition outlives the pool. Returns 0 or -ENOMEM. */
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

/* No port of the pair is free, and none rests. */
bool snat_is_exhausted(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot);
/*
 * Of such a pair: the n-th port from where the last search ended, the first one is 0: in the order in which they were
 * taken, until some were skipped. Network byte order.
 */
uint16_t snat_taken(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t n);
/* The next search begins n ports further on. */
void snat_skip(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t n);

static inline uint32_t snat_resting(const struct snat_pool *pool)
{
	return pool->n_resting;
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
