/* SPDX-License-Identifier: BSD-3-Clause */
#include "client_buckets.h"
#include "hash.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>

#define V4_MAPPED_BYTES 12

static_assert(sizeof(struct client_set) == 128, "a line to test, another for those who wait");

uint64_t client_table_bytes(uint32_t n_entries)
{
	return (uint64_t)n_entries / CLIENT_WAYS * sizeof(struct client_set);
}

int client_table_init(struct client_table *t, uint32_t n_entries, unsigned v4_bits, unsigned v6_bits,
		      const uint8_t *secret)
{
	*t = (struct client_table){
		.sets = memory_alloc(client_table_bytes(n_entries)),
		.mask = n_entries / CLIENT_WAYS - 1,
		.v4_bytes = V4_MAPPED_BYTES + v4_bits / 8,
		.v6_bytes = v6_bits / 8,
		.secret = secret,
	};
	return t->sets ? 0 : -ENOMEM;
}

void client_table_fini(struct client_table *t)
{
	memory_free(t->sets);
}

uint64_t client_tag(const struct client_table *t, const struct slot_ref *service, const struct ipaddr *addr)
{
	struct {
		struct ipaddr addr;
		struct slot_ref service; /* with its generation: who has the slot next begins with idle buckets */
	} key = {.service = *service};
	uint64_t tag;

	memcpy(key.addr.b, addr->b, ipaddr_is_v4(addr) ? t->v4_bytes : t->v6_bytes);
	tag = hash_keyed(&key, sizeof(key), t->secret);
	return tag ? tag : 1;
}

static struct client_set *set_of(const struct client_table *t, uint64_t tag)
{
	return &t->sets[tag & t->mask];
}

static struct client_cell cell_of(struct client_set *set, unsigned way)
{
	return (struct client_cell){&set->buckets[way], &set->lines[way], &set->counted_ns[way]};
}

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

struct client_cell client_lookup(const struct client_table *t, uint64_t tag)
{
	struct client_set *set = set_of(t, tag);

	for (unsigned way = 0; way < CLIENT_WAYS; way++)
		if (load(&set->tags[way]) == tag)
			return cell_of(set, way);
	return (struct client_cell){0};
}

/* A free way, or else the one whose bucket has had all its tokens for longest. */
static unsigned idlest_way(const struct client_set *set, uint64_t now_ns)
{
	uint64_t least = UINT64_MAX;
	unsigned idlest = 0;

	for (unsigned way = 0; way < CLIENT_WAYS; way++) {
		uint64_t rank = load(&set->tags[way]) ? gcra_rank(&set->buckets[way], now_ns) : 0;

		if (rank < least) {
			least = rank;
			idlest = way;
		}
	}
	return idlest;
}

struct client_cell client_claim(struct client_table *t, uint64_t tag, uint64_t now_ns)
{
	struct client_set *set = set_of(t, tag);
	struct client_cell cell;

	for (unsigned i = 0; i < CLIENT_WAYS; i++) {
		unsigned way = idlest_way(set, now_ns);
		uint64_t evicted = load(&set->tags[way]);

		cell = client_lookup(t, tag);
		if (cell.bucket)
			return cell;
		if (!atomic_compare_exchange_strong_explicit(&set->tags[way], &evicted, tag, memory_order_relaxed,
							     memory_order_relaxed))
			continue;
		cell = cell_of(set, way);
		atomic_store_explicit(&cell.bucket->tat, now_ns << GCRA_FRACTION_BITS, memory_order_relaxed);
		atomic_store_explicit(&cell.line->next, now_ns << GCRA_FRACTION_BITS, memory_order_relaxed);
		atomic_store_explicit(cell.counted_ns, 0, memory_order_relaxed);
		return cell;
	}
	return (struct client_cell){0};
}
