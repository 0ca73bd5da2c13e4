/* SPDX-License-Identifier: BSD-3-Clause */
#include "snat.h"
#include "hash.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>

#define WAKE_BUDGET 64 /* ports that have rested enough, per loop */

void snat_partition_init(struct snat_partition *p, struct port_range range, unsigned n_workers)
{
	if (!range.last)
		range = SNAT_PORTS_DEFAULT;
	*p = (struct snat_partition){.first = range.first, .n_ports = port_range_size(range)};
	assert(p->n_ports >= n_workers);
	while ((p->n_ports - 1) >> p->shift >= SNAT_BLOCKS)
		p->shift++;
	p->n_blocks = ((p->n_ports - 1) >> p->shift) + 1;
	for (unsigned b = 0; b < p->n_blocks; b++)
		p->owner[b] = b % n_workers;
}

/* Only the last block of the range may have less than the others. */
static uint32_t block_ports(const struct snat_partition *p, unsigned block)
{
	return block + 1 < p->n_blocks ? 1u << p->shift : p->n_ports - ((uint32_t)block << p->shift);
}

static uint32_t map_words(uint32_t n_ports)
{
	return (n_ports + 63) / 64;
}

/* Of the worker that has most. */
uint64_t snat_pool_bytes(const struct dataplane_config *config)
{
	struct snat_partition p;
	uint32_t n_blocks;

	snat_partition_init(&p, config->snat_ports, config->n_workers);
	n_blocks = (p.n_blocks + config->n_workers - 1) / config->n_workers;
	return config->n_snat_pairs * (sizeof(struct snat_pair) + 8ull * map_words(n_blocks << p.shift)) +
	       SNAT_RESTS_MAX * sizeof(struct snat_rest);
}

static void take_blocks(struct snat_pool *pool, unsigned worker)
{
	const struct snat_partition *p = pool->partition;
	unsigned n = 0;

	for (unsigned b = 0; b < p->n_blocks; b++) {
		if (p->owner[b] != worker)
			continue;
		pool->place[b] = n;
		pool->blocks[n++] = p->first + (b << p->shift);
		pool->n_ports += block_ports(p, b);
	}
	pool->n_words = map_words(pool->n_ports);
}

int snat_pool_init(struct snat_pool *pool, const struct snat_partition *partition, unsigned worker, uint32_t n_pairs,
		   const uint8_t *secret)
{
	*pool = (struct snat_pool){.partition = partition, .worker = worker, .n_pairs = n_pairs, .secret = secret};
	take_blocks(pool, worker);
	pool->pairs = memory_alloc(n_pairs * sizeof(*pool->pairs));
	pool->maps = memory_alloc((size_t)n_pairs * pool->n_words * sizeof(*pool->maps));
	pool->rests = memory_alloc(SNAT_RESTS_MAX * sizeof(*pool->rests));
	if (!pool->pairs || !pool->maps || !pool->rests) {
		snat_pool_fini(pool);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < n_pairs; i++)
		pool->pairs[i].map = &pool->maps[(size_t)i * pool->n_words];
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

/* The first free port at or after `from`, or -1. The caller wraps round. Bits beyond the last port look free. */
static int64_t first_free(const struct snat_pool *pool, const uint64_t *map, uint32_t from)
{
	uint32_t word = from / 64;
	uint64_t free = ~map[word] & ~UINT64_C(0) << from % 64;
	int64_t port;

	while (!free) {
		if (++word == pool->n_words)
			return -1;
		free = ~map[word];
	}
	port = (int64_t)word * 64 + __builtin_ctzll(free);
	return port < pool->n_ports ? port : -1;
}

static struct snat_pair *find_pair(const struct snat_pool *pool, uint64_t key)
{
	return find(pool, key, hash_keyed(&key, sizeof(key), pool->secret));
}

static void set_free(struct snat_pool *pool, struct snat_pair *pair, uint32_t port)
{
	pool->n_full -= pair->used == pool->n_ports;
	pair->map[port / 64] &= ~(UINT64_C(1) << port % 64);
	pair->used--;
}

/* --- rest --- */

/* The pair's oldest one. */
static void wake_first(struct snat_pool *pool, struct snat_pair *pair)
{
	struct snat_rest *rest = &pool->rests[pair->rests_first & (SNAT_RESTS_MAX - 1)];

	pair->rests_first = rest->next;
	pair->resting--;
	pool->n_resting--;
	set_free(pool, pair, rest->port);
	rest->key = 0;
}

/* Its pair stays as long as a port of it is not free. */
static void wake_oldest(struct snat_pool *pool)
{
	uint64_t key = pool->rests[pool->oldest++ & (SNAT_RESTS_MAX - 1)].key;

	if (key)
		wake_first(pool, find_pair(pool, key));
}

void snat_wake(struct snat_pool *pool, uint32_t now_ms)
{
	for (unsigned i = 0; i < WAKE_BUDGET && pool->oldest != pool->newest; i++) {
		const struct snat_rest *rest = &pool->rests[pool->oldest & (SNAT_RESTS_MAX - 1)];

		if (rest->key && now_ms - rest->since_ms < SNAT_REST_MS)
			return;
		wake_oldest(pool);
	}
}

/* A pair that has none but ports at rest gives way, too, if no other does. */
static struct snat_pair *wake_all_of_one(struct snat_pool *pool, uint64_t hash)
{
	for (unsigned i = 0; i < 2 * SNAT_PAIR_WAYS; i++) {
		struct snat_pair *pair = pair_bucket(pool, hash, i / SNAT_PAIR_WAYS) + i % SNAT_PAIR_WAYS;

		if (pair->used != pair->resting)
			continue;
		while (pair->resting)
			wake_first(pool, pair);
		return pair;
	}
	return NULL;
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
	if (!pair)
		pair = wake_all_of_one(pool, hash);
	if (pair) {
		pair->cursor = pair->key ? pair->cursor : (hash >> 32) % pool->n_ports;
		pair->key = key;
		pair->told = SNAT_NO_NEWS;
	}
	return pair;
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
	if (pair->told == SNAT_NO_NEWS && pair->used >= (n_ports * 4 + 4) / 5) {
		pair->told = SNAT_SCARCE;
		return SNAT_SCARCE;
	}
	if (pair->told != SNAT_NO_NEWS && pair->used * 3 < n_ports * 2)
		pair->told = SNAT_NO_NEWS;
	return SNAT_NO_NEWS;
}

static uint16_t port_at(const struct snat_pool *pool, uint32_t place)
{
	unsigned shift = pool->partition->shift;

	return pool->blocks[place >> shift] + (place & ((1u << shift) - 1));
}

uint16_t snat_take(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t now_ms, enum snat_news *news)
{
	uint64_t key = pair_key(snat, backend_slot);
	struct snat_pair *pair = find_or_claim(pool, key, hash_keyed(&key, sizeof(key), pool->secret));
	int64_t i;

	*news = SNAT_NO_NEWS;
	if (!pair)
		return 0;
	if (pair->used == pool->n_ports && pair->resting)
		wake_first(pool, pair);
	if (pair->used == pool->n_ports) {
		*news = news_of(pair, pool->n_ports, true, now_ms);
		return 0;
	}
	i = first_free(pool, pair->map, pair->cursor);
	if (i < 0)
		i = first_free(pool, pair->map, 0);
	pair->map[i / 64] |= UINT64_C(1) << i % 64;
	pair->used++;
	pool->n_full += pair->used == pool->n_ports;
	pair->cursor = i + 1 == pool->n_ports ? 0 : i + 1;
	*news = news_of(pair, pool->n_ports, false, now_ms);
	return htons(port_at(pool, i));
}

/* Place of the port in a pair's map; n_ports: it is not this worker's. */
static uint32_t place_of(const struct snat_pool *pool, uint16_t port)
{
	const struct snat_partition *p = pool->partition;
	uint32_t at = (uint16_t)(port - p->first), block = at >> p->shift;

	if (at >= p->n_ports || p->owner[block] != pool->worker)
		return pool->n_ports;
	return ((uint32_t)pool->place[block] << p->shift) + (at & ((1u << p->shift) - 1));
}

void snat_give_back(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint16_t port_be)
{
	struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));
	uint32_t port = place_of(pool, ntohs(port_be));

	if (pair && port < pool->n_ports)
		set_free(pool, pair, port);
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
		set_free(pool, pair, port);
		return;
	}
	if (pool->newest - pool->oldest == SNAT_RESTS_MAX)
		wake_oldest(pool);
	if (pair->resting++)
		pool->rests[pair->rests_last & (SNAT_RESTS_MAX - 1)].next = pool->newest;
	else
		pair->rests_first = pool->newest;
	pair->rests_last = pool->newest;
	pool->n_resting++;
	pool->rests[pool->newest++ & (SNAT_RESTS_MAX - 1)] =
		(struct snat_rest){.key = key, .port = port, .since_ms = now_ms};
}

bool snat_is_pressed(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	const struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	return pair && is_pressed(pool, pair);
}

bool snat_is_exhausted(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	const struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	return pair && pair->used == pool->n_ports && !pair->resting;
}

uint16_t snat_taken(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t n)
{
	const struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	return pair ? htons(port_at(pool, (pair->cursor + n) % pool->n_ports)) : 0;
}

void snat_skip(struct snat_pool *pool, unsigned snat, uint32_t backend_slot, uint32_t n)
{
	struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	if (pair)
		pair->cursor = (pair->cursor + n) % pool->n_ports;
}

uint32_t snat_used(const struct snat_pool *pool, unsigned snat, uint32_t backend_slot)
{
	const struct snat_pair *pair = find_pair(pool, pair_key(snat, backend_slot));

	return pair ? pair->used : 0;
}
