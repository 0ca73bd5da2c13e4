/* SPDX-License-Identifier: BSD-3-Clause */
#include "snat.h"
#include "hash.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>

#define WAKE_BUDGET 64 /* ports that have rested enough, per loop */

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
	return n_pairs * (sizeof(struct snat_pair) + ports_per_worker_max(n_workers) / 8) +
	       SNAT_RESTS_MAX * sizeof(struct snat_rest);
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
	pool->rests = memory_alloc(SNAT_RESTS_MAX * sizeof(*pool->rests));
	if (!pool->pairs || !pool->maps || !pool->rests) {
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
	memory_free(pool->rests);
	pool->rests = NULL;
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
		pair->told = SNAT_NO_NEWS;
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

static struct snat_pair *find_pair(const struct snat_pool *pool, uint64_t key)
{
	return find(pool, key, hash_keyed(&key, sizeof(key), pool->secret));
}

static void set_free(struct snat_pair *pair, uint32_t port)
{
	pair->map[port / 64] &= ~(UINT64_C(1) << port % 64);
	pair->used--;
}

/* --- rest --- */

/* Its pair stays as long as a port of it is not free. */
static void wake_oldest(struct snat_pool *pool)
{
	const struct snat_rest *rest = &pool->rests[pool->oldest++ & (SNAT_RESTS_MAX - 1)];
	struct snat_pair *pair = find_pair(pool, rest->key);

	assert(pair);
	pair->resting--;
	set_free(pair, rest->port);
}

void snat_wake(struct snat_pool *pool, uint32_t now_ms)
{
	for (unsigned i = 0; i < WAKE_BUDGET && snat_resting(pool); i++) {
		if (now_ms - pool->rests[pool->oldest & (SNAT_RESTS_MAX - 1)].since_ms < SNAT_REST_MS)
			return;
		wake_oldest(pool);
	}
}

/* Each port that rests is woken once, whoever asks: this costs no more than laying it down did. */
static void wake_one_of(struct snat_pool *pool, const struct snat_pair *pair)
{
	while (pair->used == pool->n_ports && pair->resting) {
		wake_oldest(pool);
		pool->cut_short++;
	}
}

/* --- taking and giving back --- */

static enum snat_news news_of(struct snat_pair *pair, uint32_t n_ports, bool exhausted, uint32_t now_ms)
{
	if (exhausted) {
		if (pair->told == SNAT_EXHAUSTED && now_ms - pair->told_ms < SNAT_NEWS_MS)
			return SNAT_NO_NEWS;
		pair->told = SNAT_EXHAUSTED;
		pair->told_ms = now_ms;
		return SNAT_EXHAUSTED;
	}
	if (pair->told == SNAT_NO_NEWS && pair->used >= n_ports / 5 * 4) {
		pair->told = SNAT_SCARCE;
		return SNAT_SCARCE;
	}
	if (pair->told != SNAT_NO_NEWS && pair->used < n_ports / 3 * 2)
		pair->told = SNAT_NO_NEWS;
	return SNAT_NO_NEWS;
}

uint16_t snat_take(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t now_ms, enum snat_news *news)
{
	uint64_t key = pair_key(snat, backend_slot);
	struct snat_pair *pair = find_or_claim(pool, key, hash_keyed(&key, sizeof(key), pool->secret));
	int64_t i;

	*news = SNAT_NO_NEWS;
	if (!pair)
		return 0;
	wake_one_of(pool, pair);
	if (pair->used == pool->n_ports) {
		*news = news_of(pair, pool->n_ports, true, now_ms);
		return 0;
	}
	i = first_free(pair->map, pair->cursor, pool->n_ports);
	if (i < 0)
		i = first_free(pair->map, 0, pool->n_ports);
	pair->map[i / 64] |= UINT64_C(1) << i % 64;
	pair->used++;
	pair->cursor = i + 1 == pool->n_ports ? 0 : i + 1;
	*news = news_of(pair, pool->n_ports, false, now_ms);
	return htons(pool->blocks[i / SNAT_BLOCK_PORTS] + i % SNAT_BLOCK_PORTS);
}

/* Place of the port in a pair's map; n_ports: it is not this worker's. */
static uint32_t place_of(const struct snat_pool *pool, uint16_t port)
{
	for (uint32_t b = 0; b < pool->n_ports / SNAT_BLOCK_PORTS; b++)
		if (port >= pool->blocks[b] && port - pool->blocks[b] < SNAT_BLOCK_PORTS)
			return b * SNAT_BLOCK_PORTS + port - pool->blocks[b];
	return pool->n_ports;
}

void snat_give_back(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be)
{
	struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));
	uint32_t port = place_of(pool, ntohs(port_be));

	if (pair && port < pool->n_ports)
		set_free(pair, port);
}

static bool is_pressed(const struct snat_pool *pool, const struct snat_pair *pair)
{
	return pair->used * 2 >= pool->n_ports;
}

void snat_lay_to_rest(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be, uint32_t now_ms)
{
	uint64_t key = pair_key(snat, backend_slot);
	struct snat_pair *pair = find_pair(pool, key);
	uint32_t port = place_of(pool, ntohs(port_be));

	if (!pair || port == pool->n_ports)
		return;
	if (is_pressed(pool, pair)) {
		set_free(pair, port);
		return;
	}
	if (snat_resting(pool) == SNAT_RESTS_MAX) {
		wake_oldest(pool);
		pool->cut_short++;
	}
	pair->resting++;
	pool->rests[pool->newest++ & (SNAT_RESTS_MAX - 1)] = (struct snat_rest){key, port, now_ms};
}

bool snat_is_pressed(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	const struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	return pair && is_pressed(pool, pair);
}

uint32_t snat_used(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	const struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	return pair ? pair->used : 0;
}
