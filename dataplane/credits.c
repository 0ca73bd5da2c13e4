/* SPDX-License-Identifier: BSD-3-Clause */
#include "credits.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#define CLOCK_MASK   0xffffffu /* 24 bits: generations go round in years, seconds in half a year */
#define SECOND_NS    1000000000ull
#define RANK_UNKNOWN 1   /* not served lately: this, and a credit each; 0: free */
#define RANK_SERVED  512 /* served lately: this, and the less the longer ago */

static_assert(sizeof(struct credit_set) == 64, "one line per set");
static_assert(RANK_UNKNOWN + CREDITS_MAX < RANK_SERVED, "who was served goes last");

/* What a word says. */
struct credits {
	unsigned young, old; /* of this generation, and of the one before */
	uint32_t generation; /* in which that was so */
	uint32_t served_s;   /* 0: never */
};

uint64_t credits_bytes(uint32_t n_entries)
{
	return (uint64_t)n_entries / CREDIT_WAYS * sizeof(struct credit_set);
}

int credits_init(struct credit_table *t, uint32_t n_entries)
{
	t->sets = memory_alloc(credits_bytes(n_entries));
	t->mask = n_entries / CREDIT_WAYS - 1;
	return t->sets ? 0 : -ENOMEM;
}

void credits_fini(struct credit_table *t)
{
	memory_free(t->sets);
}

/* --- words --- */

static uint32_t generation_at(uint64_t now_ns)
{
	return now_ns / CREDITS_GENERATION_NS & CLOCK_MASK;
}

static uint32_t second_at(uint64_t now_ns)
{
	uint32_t s = now_ns / SECOND_NS & CLOCK_MASK;

	return s ? s : 1;
}

static uint64_t pack(const struct credits *c)
{
	return c->young | c->old << 8 | (uint64_t)c->generation << 16 | (uint64_t)c->served_s << 40;
}

/* As of now. A word of another worker, whose clock is a loop ahead, may be of the next generation. */
static struct credits unpack(uint64_t word, uint64_t now_ns)
{
	struct credits c = {
		.young = word & 0xff,
		.old = word >> 8 & 0xff,
		.generation = word >> 16 & CLOCK_MASK,
		.served_s = word >> 40,
	};
	uint32_t passed = (generation_at(now_ns) - c.generation) & CLOCK_MASK;

	if (passed == 0 || passed == CLOCK_MASK)
		return c;
	c.old = passed == 1 ? c.young : 0;
	c.young = 0;
	c.generation = generation_at(now_ns);
	return c;
}

/* The older ones have less time left: they are taken first, and make room for a new one. */
static bool take(struct credits *c)
{
	if (c->old)
		c->old--;
	else if (c->young)
		c->young--;
	else
		return false;
	return true;
}

static bool add(struct credits *c)
{
	if (c->young + c->old == CREDITS_MAX && !take(c))
		return false;
	c->young++;
	return true;
}

static uint32_t served_ago_s(const struct credits *c, uint64_t now_ns)
{
	uint32_t ago_s = (second_at(now_ns) - c->served_s) & CLOCK_MASK;

	if (!c->served_s)
		return UINT32_MAX;
	return ago_s == CLOCK_MASK ? 0 : ago_s;
}

/* --- entries --- */

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static _Atomic uint64_t *lookup(const struct credit_table *t, uint64_t tag)
{
	struct credit_set *set = &t->sets[tag & t->mask];

	for (unsigned way = 0; way < CREDIT_WAYS; way++)
		if (load(&set->tags[way]) == tag)
			return &set->words[way];
	return NULL;
}

static unsigned rank_of(uint64_t word, uint64_t now_ns)
{
	struct credits c = unpack(word, now_ns);
	uint32_t ago_s = served_ago_s(&c, now_ns);

	return ago_s < CREDITS_SERVED_LATELY_S ? RANK_SERVED + CREDITS_SERVED_LATELY_S - ago_s
					       : RANK_UNKNOWN + c.young + c.old;
}

struct place {
	unsigned way, rank;
	uint64_t tag; /* as it was when the rank was found */
};

static struct place lowest(const struct credit_set *set, uint64_t now_ns)
{
	struct place lowest = {.rank = UINT32_MAX};

	for (unsigned way = 0; way < CREDIT_WAYS; way++) {
		struct place at = {.way = way, .tag = load(&set->tags[way])};

		at.rank = at.tag ? rank_of(load(&set->words[way]), now_ns) : 0;
		if (at.rank < lowest.rank)
			lowest = at;
	}
	return lowest;
}

/* Its word, or one that was another's and says nothing yet; NULL: there is no place for it. */
static _Atomic uint64_t *claim(struct credit_table *t, uint64_t tag, uint64_t now_ns, bool served)
{
	struct credit_set *set = &t->sets[tag & t->mask];

	for (unsigned i = 0; i < CREDIT_WAYS; i++) {
		struct place place = lowest(set, now_ns);
		_Atomic uint64_t *word = lookup(t, tag);

		if (word)
			return word;
		if (!served && place.rank >= RANK_SERVED)
			return NULL;
		if (!atomic_compare_exchange_strong_explicit(&set->tags[place.way], &place.tag, tag,
							     memory_order_relaxed, memory_order_relaxed))
			continue;
		atomic_store_explicit(&set->words[place.way], 0, memory_order_relaxed);
		return &set->words[place.way];
	}
	return NULL;
}

static bool change(_Atomic uint64_t *word, uint64_t now_ns, bool (*fn)(struct credits *c))
{
	uint64_t seen = load(word);
	struct credits c;

	do {
		c = unpack(seen, now_ns);
		if (!fn(&c))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(word, &seen, pack(&c), memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

void credits_add(struct credit_table *t, uint64_t tag, uint64_t now_ns)
{
	_Atomic uint64_t *word = claim(t, tag, now_ns, false);

	if (word)
		change(word, now_ns, add);
}

bool credits_take(struct credit_table *t, uint64_t tag, uint64_t now_ns)
{
	_Atomic uint64_t *word = lookup(t, tag);

	return word && change(word, now_ns, take);
}

unsigned credits_count(const struct credit_table *t, uint64_t tag, uint64_t now_ns)
{
	const _Atomic uint64_t *word = lookup(t, tag);
	struct credits c = unpack(word ? load(word) : 0, now_ns);

	return c.young + c.old;
}

void credits_served(struct credit_table *t, uint64_t tag, uint64_t now_ns)
{
	_Atomic uint64_t *word = claim(t, tag, now_ns, true);
	uint64_t seen;
	struct credits c;

	if (!word)
		return;
	seen = load(word);
	do {
		c = unpack(seen, now_ns);
		if (c.served_s == second_at(now_ns))
			return;
		c.served_s = second_at(now_ns);
	} while (!atomic_compare_exchange_weak_explicit(word, &seen, pack(&c), memory_order_relaxed,
							memory_order_relaxed));
}

bool credits_served_lately(const struct credit_table *t, uint64_t tag, uint64_t now_ns)
{
	const _Atomic uint64_t *word = lookup(t, tag);
	struct credits c = unpack(word ? load(word) : 0, now_ns);

	return served_ago_s(&c, now_ns) < CREDITS_SERVED_LATELY_S;
}
