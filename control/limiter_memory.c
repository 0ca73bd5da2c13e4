/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiter_memory.h"
#include "hash.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

struct entry {
	TAILQ_ENTRY(entry) by_age;
	LIST_ENTRY(entry) by_who; /* or in the list of the free ones */
	struct limiter_known known;
	uint64_t put_ns; /* its ages are as of then */
};

LIST_HEAD(chain, entry);

/* All of a region's backends may come or go at once: nothing here takes longer where there are many. */
struct limiter_memory {
	TAILQ_HEAD(, entry) by_age; /* the oldest first */
	struct chain free, by_who[LIMITER_MEMORY_MAX];
	struct entry entries[LIMITER_MEMORY_MAX];
};

void limiter_memory_clear(struct limiter_memory *m)
{
	TAILQ_INIT(&m->by_age);
	LIST_INIT(&m->free);
	for (size_t i = 0; i < LIMITER_MEMORY_MAX; i++) {
		LIST_INIT(&m->by_who[i]);
		LIST_INSERT_HEAD(&m->free, &m->entries[i], by_who);
	}
}

struct limiter_memory *limiter_memory_create(void)
{
	struct limiter_memory *m = calloc(1, sizeof(*m));

	if (m)
		limiter_memory_clear(m);
	return m;
}

void limiter_memory_destroy(struct limiter_memory *m)
{
	free(m);
}

static struct chain *chain_of(struct limiter_memory *m, const struct slot_info *who)
{
	uint64_t seed = (uint64_t)who->proto << 16 | who->port_be;

	return &m->by_who[hash_public(who->addr.b, sizeof(who->addr.b), seed) % LIMITER_MEMORY_MAX];
}

static void drop(struct limiter_memory *m, struct entry *e)
{
	TAILQ_REMOVE(&m->by_age, e, by_age);
	LIST_REMOVE(e, by_who);
	LIST_INSERT_HEAD(&m->free, e, by_who);
}

/* As of now; false: it is too old. */
static bool known_now(const struct entry *e, uint64_t now_ns, struct limiter_known *out)
{
	*out = e->known;
	out->past.base_age_ns += now_ns - e->put_ns;
	out->past.rate_age_ns += now_ns - e->put_ns;
	return out->past.base_age_ns < LIMITER_MEMORY_NS;
}

static bool take(struct limiter_memory *m, struct entry *e, uint64_t now_ns, struct limiter_known *out)
{
	bool worth;

	if (!e)
		return false;
	worth = known_now(e, now_ns, out);
	drop(m, e);
	return worth;
}

static struct entry *find(struct limiter_memory *m, const struct slot_info *who)
{
	struct entry *e;

	LIST_FOREACH(e, chain_of(m, who), by_who)
	{
		if (e->known.who.proto == who->proto && e->known.who.port_be == who->port_be &&
		    ipaddr_equal(&e->known.who.addr, &who->addr))
			break;
	}
	return e;
}

bool limiter_memory_take(struct limiter_memory *m, const struct slot_info *who, uint64_t now_ns,
			 struct limiter_known *out)
{
	return take(m, find(m, who), now_ns, out);
}

/* An operator's word, and rare: all are gone through. */
bool limiter_memory_take_id(struct limiter_memory *m, const char *id, uint64_t now_ns, struct limiter_known *out)
{
	char text[SLOT_ID_STRLEN];
	struct entry *e;

	TAILQ_FOREACH(e, &m->by_age, by_age)
	{
		if (strcmp(slots_id(&e->known.who, text), id) == 0)
			break;
	}
	return take(m, e, now_ns, out);
}

bool limiter_memory_put(struct limiter_memory *m, const struct limiter_known *known, uint64_t now_ns)
{
	struct limiter_known before;
	struct entry *e;

	if (known->past.base_age_ns >= LIMITER_MEMORY_NS)
		return false;
	limiter_memory_take(m, &known->who, now_ns, &before);
	if (LIST_EMPTY(&m->free))
		drop(m, TAILQ_FIRST(&m->by_age));
	e = LIST_FIRST(&m->free);
	LIST_REMOVE(e, by_who);
	e->known = *known;
	e->put_ns = now_ns;
	LIST_INSERT_HEAD(chain_of(m, &known->who), e, by_who);
	TAILQ_INSERT_TAIL(&m->by_age, e, by_age);
	return true;
}

void limiter_memory_foreach(const struct limiter_memory *m, uint64_t now_ns,
			    void (*fn)(void *arg, const struct limiter_known *known), void *arg)
{
	const struct entry *e;

	TAILQ_FOREACH(e, &m->by_age, by_age)
	{
		struct limiter_known known;

		if (known_now(e, now_ns, &known))
			fn(arg, &known);
	}
}
