/* SPDX-License-Identifier: BSD-3-Clause */
#include "breaker_memory.h"

#include <stdlib.h>
#include <string.h>

/* In the order in which they left: few come and go, so that a search is cheaper than an index would be. */
struct breaker_memory {
	breaker_forgotten_fn *forgotten;
	void *arg;
	size_t n;
	struct breaker_past of[BREAKER_MEMORY_MAX];
};

struct breaker_memory *breaker_memory_create(breaker_forgotten_fn *forgotten, void *arg)
{
	struct breaker_memory *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->forgotten = forgotten;
	m->arg = arg;
	return m;
}

void breaker_memory_destroy(struct breaker_memory *m)
{
	free(m);
}

static void drop(struct breaker_memory *m, size_t i)
{
	memmove(&m->of[i], &m->of[i + 1], (--m->n - i) * sizeof(m->of[0]));
}

static void forget(struct breaker_memory *m, size_t i)
{
	struct breaker_past past = m->of[i];

	drop(m, i);
	m->forgotten(m->arg, &past);
}

static bool is_same(const struct slot_info *a, const struct slot_info *b)
{
	return a->proto == b->proto && a->port_be == b->port_be && ipaddr_equal(&a->addr, &b->addr);
}

static bool take(struct breaker_memory *m, size_t i, struct breaker_past *out)
{
	if (i == m->n)
		return false;
	*out = m->of[i];
	drop(m, i);
	return true;
}

bool breaker_memory_take(struct breaker_memory *m, const struct slot_info *who, struct breaker_past *out)
{
	size_t i = 0;

	while (i < m->n && !is_same(&m->of[i].who, who))
		i++;
	return take(m, i, out);
}

bool breaker_memory_take_id(struct breaker_memory *m, const char *id, struct breaker_past *out)
{
	char text[SLOT_ID_STRLEN];
	size_t i = 0;

	while (i < m->n && strcmp(slots_id(&m->of[i].who, text), id) != 0)
		i++;
	return take(m, i, out);
}

/* The oldest that failures made; where all are an operator's, the oldest of those. */
static size_t first_to_go(const struct breaker_memory *m)
{
	for (size_t i = 0; i < m->n; i++)
		if (!m->of[i].streak.forced)
			return i;
	return 0;
}

void breaker_memory_put(struct breaker_memory *m, const struct breaker_past *past)
{
	struct breaker_past before;

	breaker_memory_take(m, &past->who, &before);
	if (m->n == BREAKER_MEMORY_MAX)
		forget(m, first_to_go(m));
	m->of[m->n++] = *past;
}

void breaker_memory_age(struct breaker_memory *m, uint64_t now_ns)
{
	for (size_t i = m->n; i-- > 0;)
		if (!m->of[i].streak.forced && now_ns - m->of[i].left_ns >= BREAKER_MEMORY_NS)
			forget(m, i);
}

void breaker_memory_clear(struct breaker_memory *m)
{
	for (size_t i = m->n; i-- > 0;)
		if (!m->of[i].streak.forced)
			drop(m, i);
}

size_t breaker_memory_count(const struct breaker_memory *m)
{
	return m->n;
}
