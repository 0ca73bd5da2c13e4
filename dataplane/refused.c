/* SPDX-License-Identifier: BSD-3-Clause */
#include "refused.h"
#include "memory.h"

#include <errno.h>

#define WAYS     8 /* one line */
#define RETRY    (UINT64_C(1) << 32)
#define CREDITED (UINT64_C(1) << 33)
#define TAG_BIT  (UINT64_C(1) << 34) /* set in each that is in use */
#define TAG      (~UINT64_C(0) << 34)

/* A power of two. */
static uint32_t n_sets(unsigned n_workers)
{
	uint32_t n = 1;

	while ((uint64_t)2 * n * WAYS * n_workers <= REFUSED_ENTRIES)
		n *= 2;
	return n;
}

uint64_t refused_bytes(unsigned n_workers)
{
	return (uint64_t)n_sets(n_workers) * WAYS * sizeof(uint64_t);
}

int refused_init(struct refused *r, unsigned n_workers)
{
	*r = (struct refused){.words = memory_alloc(refused_bytes(n_workers)), .mask = n_sets(n_workers) - 1};
	return r->words ? 0 : -ENOMEM;
}

void refused_fini(struct refused *r)
{
	memory_free(r->words);
}

static uint64_t key_of(uint64_t hash, uint32_t isn)
{
	uint64_t key = hash ^ isn * UINT64_C(0x9e3779b97f4a7c15);

	return key ^ key >> 29;
}

static uint64_t *set_of(const struct refused *r, uint64_t key)
{
	return &r->words[(key & r->mask) * WAYS];
}

/* The word of that SYN, or the oldest one of its set. */
static uint64_t *find(const struct refused *r, uint64_t key, uint32_t now_ms, bool *found)
{
	uint64_t *set = set_of(r, key), *oldest = set;
	uint64_t tag = (key | TAG_BIT) & TAG;
	uint32_t most_ms = 0;

	*found = true;
	for (unsigned way = 0; way < WAYS; way++) {
		uint32_t age_ms = set[way] ? now_ms - (uint32_t)set[way] : UINT32_MAX;

		if (set[way] && (set[way] & TAG) == tag)
			return &set[way];
		if (age_ms > most_ms) {
			most_ms = age_ms;
			oldest = &set[way];
		}
	}
	*found = false;
	return oldest;
}

void refused_add(struct refused *r, uint64_t hash, uint32_t isn, struct refused_syn what, uint32_t now_ms)
{
	uint64_t key = key_of(hash, isn);
	bool found;

	*find(r, key, now_ms, &found) =
		((key | TAG_BIT) & TAG) | (what.retry ? RETRY : 0) | (what.credited ? CREDITED : 0) | now_ms;
	r->last_ms = now_ms;
	r->any = true;
}

bool refused_lookup(struct refused *r, uint64_t hash, uint32_t isn, struct refused_syn *what, uint32_t now_ms)
{
	uint64_t *word;
	bool found;

	/* In a healthy time nobody was: then not a line is looked at. */
	if (!r->any || now_ms - r->last_ms >= REFUSED_MS)
		return false;
	word = find(r, key_of(hash, isn), now_ms, &found);
	if (!found || now_ms - (uint32_t)*word >= REFUSED_MS)
		return false;
	*what = (struct refused_syn){.retry = *word & RETRY, .credited = *word & CREDITED};
	*word &= ~CREDITED;
	return true;
}
