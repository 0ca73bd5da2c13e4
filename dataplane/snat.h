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
	uint64_t key;    /* 0: never used */
	uint32_t used;   /* ports taken */
	uint32_t cursor; /* where the next search begins: a port rests as long as can be before it is used again */
	uint64_t *map;   /* bit per port of this worker: taken */
};

struct snat_pool {
	uint16_t blocks[SNAT_BLOCKS]; /* the first port of each block of this worker */
	uint32_t n_ports;
	struct snat_pair *pairs; /* buckets of SNAT_PAIR_WAYS */
	uint32_t n_pairs;
	uint64_t *maps;
	const uint8_t *secret;
};

#define SNAT_PAIR_WAYS 8

uint64_t snat_pool_bytes(uint32_t n_pairs, unsigned n_workers);
/* n_pairs: a power of two, at least SNAT_PAIR_WAYS. Returns 0 or -ENOMEM. */
int snat_pool_init(struct snat_pool *pool, const struct snat_partition *partition, unsigned worker, uint32_t n_pairs,
		   const uint8_t *secret);
void snat_pool_fini(struct snat_pool *pool);

/* A port in network byte order, or 0 if there is none. */
uint16_t snat_take(struct snat_pool *pool, unsigned snat, uint32_t backend_slot);
void snat_give_back(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be);
/* Ports taken for that pair. */
uint32_t snat_used(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot);
