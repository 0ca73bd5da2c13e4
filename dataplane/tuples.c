/* SPDX-License-Identifier: BSD-3-Clause */
#include "tuples.h"
#include "hash.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>

#define MASK (TUPLES_MAX - 1)

static_assert((TUPLES_MAX & MASK) == 0, "positions wrap with the ring");

uint64_t tuples_bytes(void)
{
	return TUPLES_MAX * (sizeof(struct tuple) + sizeof(uint32_t));
}

int tuples_init(struct tuples *t, const uint8_t *secret)
{
	*t = (struct tuples){.oldest = 1, .newest = 1, .secret = secret};
	t->ring = memory_alloc(TUPLES_MAX * sizeof(*t->ring));
	t->heads = memory_alloc(TUPLES_MAX * sizeof(*t->heads));
	return t->ring && t->heads ? 0 : -ENOMEM;
}

void tuples_fini(struct tuples *t)
{
	memory_free(t->ring);
	memory_free(t->heads);
	t->ring = NULL;
	t->heads = NULL;
}

static uint32_t *head_of(const struct tuples *t, const struct ipaddr *backend, uint16_t backend_port_be,
			 uint8_t snat_index, uint16_t snat_port_be)
{
	const uint64_t key[] = {backend->q_be[0], backend->q_be[1],
				backend_port_be | (uint32_t)snat_port_be << 16 | (uint64_t)snat_index << 32};

	return &t->heads[hash_keyed(key, sizeof(key), t->secret) & MASK];
}

void tuples_add(struct tuples *t, const struct tuple *tuple)
{
	uint32_t *head = head_of(t, &tuple->backend, tuple->backend_port_be, tuple->snat_index, tuple->snat_port_be);
	struct tuple *place = &t->ring[t->newest & MASK];

	assert(tuples_count(t) < TUPLES_MAX);
	*place = *tuple;
	place->next = *head;
	*head = t->newest++;
}

const struct tuple *tuples_oldest(const struct tuples *t)
{
	return t->newest == t->oldest ? NULL : &t->ring[t->oldest & MASK];
}

/* It stays at the end of its chain, which ends where positions are no longer in the ring. */
void tuples_drop_oldest(struct tuples *t)
{
	t->oldest++;
}

static bool in_ring(const struct tuples *t, uint32_t position)
{
	return position - t->oldest < t->newest - t->oldest;
}

struct tuple *tuples_at(const struct tuples *t, uint32_t position)
{
	return in_ring(t, position) ? &t->ring[position & MASK] : NULL;
}

struct tuple *tuples_find(const struct tuples *t, const struct ipaddr *backend, uint16_t backend_port_be,
			  uint8_t snat_index, uint16_t snat_port_be)
{
	uint32_t position = *head_of(t, backend, backend_port_be, snat_index, snat_port_be);

	for (; in_ring(t, position); position = t->ring[position & MASK].next) {
		struct tuple *tuple = &t->ring[position & MASK];

		if (tuple->snat_port_be == snat_port_be && tuple->snat_index == snat_index &&
		    tuple->backend_port_be == backend_port_be && ipaddr_equal(&tuple->backend, backend))
			return tuple;
	}
	return NULL;
}
