/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiter_memory.h"

#include <stdlib.h>
#include <string.h>

/* In the order in which they came: few come and go, so that a search is cheaper than an index would be. */
struct limiter_memory {
	size_t n;
	struct {
		struct limiter_known known;
		uint64_t put_ns; /* its ages are as of then */
	} of[LIMITER_MEMORY_MAX];
};

struct limiter_memory *limiter_memory_create(void)
{
	return calloc(1, sizeof(struct limiter_memory));
}

void limiter_memory_destroy(struct limiter_memory *m)
{
	free(m);
}

static void drop(struct limiter_memory *m, size_t i)
{
	memmove(&m->of[i], &m->of[i + 1], (--m->n - i) * sizeof(m->of[0]));
}

/* As of now; false: it is too old. */
static bool known_now(const struct limiter_memory *m, size_t i, uint64_t now_ns, struct limiter_known *out)
{
	*out = m->of[i].known;
	out->past.base_age_ns += now_ns - m->of[i].put_ns;
	out->past.rate_age_ns += now_ns - m->of[i].put_ns;
	return out->past.base_age_ns < LIMITER_MEMORY_NS;
}

static bool take(struct limiter_memory *m, size_t i, uint64_t now_ns, struct limiter_known *out)
{
	bool worth;

	if (i == m->n)
		return false;
	worth = known_now(m, i, now_ns, out);
	drop(m, i);
	return worth;
}

static size_t find(const struct limiter_memory *m, const struct slot_info *who)
{
	size_t i = 0;

	while (i < m->n && !(m->of[i].known.who.proto == who->proto && m->of[i].known.who.port_be == who->port_be &&
			     ipaddr_equal(&m->of[i].known.who.addr, &who->addr)))
		i++;
	return i;
}

bool limiter_memory_take(struct limiter_memory *m, const struct slot_info *who, uint64_t now_ns,
			 struct limiter_known *out)
{
	return take(m, find(m, who), now_ns, out);
}

bool limiter_memory_take_id(struct limiter_memory *m, const char *id, uint64_t now_ns, struct limiter_known *out)
{
	char text[SLOT_ID_STRLEN];
	size_t i = 0;

	while (i < m->n && strcmp(slots_id(&m->of[i].known.who, text), id) != 0)
		i++;
	return take(m, i, now_ns, out);
}

bool limiter_memory_put(struct limiter_memory *m, const struct limiter_known *known, uint64_t now_ns)
{
	struct limiter_known before;

	if (known->past.base_age_ns >= LIMITER_MEMORY_NS)
		return false;
	limiter_memory_take(m, &known->who, now_ns, &before);
	if (m->n == LIMITER_MEMORY_MAX)
		drop(m, 0);
	m->of[m->n].known = *known;
	m->of[m->n++].put_ns = now_ns;
	return true;
}

void limiter_memory_foreach(const struct limiter_memory *m, uint64_t now_ns,
			    void (*fn)(void *arg, const struct limiter_known *known), void *arg)
{
	for (size_t i = 0; i < m->n; i++) {
		struct limiter_known known;

		if (known_now(m, i, now_ns, &known))
			fn(arg, &known);
	}
}

void limiter_memory_clear(struct limiter_memory *m)
{
	m->n = 0;
}

size_t limiter_memory_count(const struct limiter_memory *m)
{
	return m->n;
}
