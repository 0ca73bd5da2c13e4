/* SPDX-License-Identifier: BSD-3-Clause */
#include "snat.h"
#include "hash.h"
#include "memory.h"

#include <errno.h>

void snat_partition_init(struct snat_partition *p, unsigned n_workers)
{
	p->owner[0] = 0;
	for (unsigned b = 1; b < SNAT_BLOCKS; b++)
		p->owner[b] = (b - 1) % n_workers;
}

static uint32_t ports_per_worker_max(unsigned n_workers)
{
	return (SNAT_BLOCKS - 1 + n_workers - 1) / n_workers * SNAT_BLOCK_PORTS;
}

uint64_t snat_pool_bytes(uint32_t n_pairs, unsigned n_workers)
{
	return n_pairs * (sizeof(struct snat_pair) + ports_per_worker_max(n_workers) / 8);
}

int snat_pool_init(struct snat_pool *pool, const struct snat_partition *partition, unsigned worker, uint32_t n_pairs,
		   const uint8_t *secret)
{
	uint32_t n_blocks = 0, words;

	*pool = (struct snat_pool){.n_pairs = n_pairs, .secret = secret};
	for (unsigned b = 1; b < SNAT_BLOCKS; b++)
		if (partition->owner[b] == worker)
			pool->blocks[n_blocks++] = b * SNAT_BLOCK_PORTS;
	pool->n_ports = n_blocks * SNAT_BLOCK_PORTS;
	words = pool->n_ports / 64;
	pool->pairs = memory_alloc(n_pairs * sizeof(*pool->pairs));
	pool->maps = memory_alloc((size_t)n_pairs * words * sizeof(*pool->maps));
	if (!pool->pairs || !pool->maps) {
		snat_pool_fini(pool);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_pairs; i++)
		pool->pairs[i].map = &pool->maps[(size_t)i * words];
	return 0;
}

void snat_pool_fini(struct snat_pool *pool)
{
	memory_free(pool->pairs);
	memory_free(pool->maps);
	pool->pairs = NULL;
	pool->maps = NULL;
}

static uint64_t pair_key(unsigned snat, uint32_t backend_slot)
{
	return ((uint64_t)snat << 32 | backend_slot) + 1;
}

/* A pair lives in either of two buckets, so that next to all of them can be in use at a time. */
static struct snat_pair *pair_bucket(const struct snat_pool *pool, uint64_t hash, unsigned choice)
{
	return &pool->pairs[hash >> 24 * choice & (pool->n_pairs - 1) & ~(uint64_t)(SNAT_PAIR_WAYS - 1)];
}

static struct snat_pair *find(const struct snat_pool *pool, uint64_t key, uint64_t hash)
{
	for (unsigned choice = 0; choice < 2; choice++) {
		struct snat_pair *bucket = pair_bucket(pool, hash, choice);

		for (unsigned i = 0; i < SNAT_PAIR_WAYS; i++)
			if (bucket[i].key == key)
				return &bucket[i];
	}
	return NULL;
}

/* Of the bucket that has more of them. */
static struct snat_pair *find_unused(const struct snat_pool *pool, uint64_t hash)
{
	struct snat_pair *unused = NULL;
	unsigned most = 0;

	for (unsigned choice = 0; choice < 2; choice++) {
		struct snat_pair *bucket = pair_bucket(pool, hash, choice), *last = NULL;
		unsigned n = 0;

		for (unsigned i = 0; i < SNAT_PAIR_WAYS; i++)
			if (!bucket[i].used) {
				last = &bucket[i];
				n++;
			}
		if (n > most) {
			most = n;
			unused = last;
		}
	}
	return unused;
}

/*
 * A pair whose ports are all free may give way to another. The search of a new pair begins at a place of its own (RFC
 * 6056 algorithm 4: a keyed hash of the peer), so that a pair that gave way does not reuse the same ports at once.
 */
static struct snat_pair *find_or_claim(struct snat_pool *pool, uint64_t key, uint64_t hash)
{
	struct snat_pair *pair = find(pool, key, hash);

	if (pair)
		return pair;
	pair = find_unused(pool, hash);
	if (pair) {
		pair->cursor = pair->key ? pair->cursor : (hash >> 32) % pool->n_ports;
		pair->key = key;
	}
	return pair;
}

/* The first free bit at or after `from`, or -1. The caller wraps round. */
static int64_t first_free(const uint64_t *map, uint32_t from, uint32_t n)
{
	uint32_t word = from / 64, n_words = n / 64;
	uint64_t free = ~map[word] & ~UINT64_C(0) << from % 64;

	while (!free) {
		if (++word == n_words)
			return -1;
		free = ~map[word];
	}
	return (int64_t)word * 64 + __builtin_ctzll(free);
}

uint16_t snat_take(struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	uint64_t key = pair_key(snat, backend_slot);
	struct snat_pair *pair = find_or_claim(pool, key, hash_keyed(&key, sizeof(key), pool->secret));
	int64_t i;

	if (!pair || pair->used == pool->n_ports)
		return 0;
	i = first_free(pair->map, pair->cursor, pool->n_ports);
	if (i < 0)
		i = first_free(pair->map, 0, pool->n_ports);
	pair->map[i / 64] |= UINT64_C(1) << i % 64;
	pair->used++;
	pair->cursor = i + 1 == pool->n_ports ? 0 : i + 1;
	return htons(pool->blocks[i / SNAT_BLOCK_PORTS] + i % SNAT_BLOCK_PORTS);
}

void snat_give_back(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be)
{
	uint64_t key = pair_key(snat, backend_slot);
	struct snat_pair *pair = find(pool, key, hash_keyed(&key, sizeof(key), pool->secret));
	uint16_t port = ntohs(port_be);

	if (!pair)
		return;
	for (uint32_t b = 0; b < pool->n_ports / SNAT_BLOCK_PORTS; b++)
		if (port - pool->blocks[b] < SNAT_BLOCK_PORTS && port >= pool->blocks[b]) {
			uint32_t i = b * SNAT_BLOCK_PORTS + port - pool->blocks[b];

			pair->map[i / 64] &= ~(UINT64_C(1) << i % 64);
			pair->used--;
		}
}

uint32_t snat_used(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	uint64_t key = pair_key(snat, backend_slot);
	const struct snat_pair *pair = find(pool, key, hash_keyed(&key, sizeof(key), pool->secret));

	return pair ? pair->used : 0;
}
