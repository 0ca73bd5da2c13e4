/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Maglev tables (Eisenbud et al., NSDI 2016, section 3.4). Weights: a backend takes its turn in a round only when its
 * weight, relative to the heaviest, says so; the shares then follow the weights while the permutations stay the same.
 * In the first round each takes one: a light backend must not be without any place.
 */
#include "hash.h"
#include "policy.h"

#include <errno.h>
#include <stdlib.h>

static const uint32_t table_sizes[] = {2039, 16381, 65537};

/* Up to here the medium table keeps well below the bound on moved places: 1.3 % at 64, 1.5 % at 100. */
#define MAGLEV_MEDIUM_MAX 80

uint32_t maglev_table_size(uint32_t n)
{
	if (n <= 1)
		return n ? table_sizes[0] : 0;
	return table_sizes[n <= MAGLEV_MEDIUM_MAX ? 1 : 2];
}

struct walker {
	const struct policy_backend *backend;
	uint32_t index; /* into the caller's backends[] */
	uint32_t offset, skip, next;
	uint32_t credit;
};

static int by_address(const void *a, const void *b)
{
	const struct policy_backend *x = ((const struct walker *)a)->backend, *y = ((const struct walker *)b)->backend;
	int order = memcmp(x->addr.b, y->addr.b, sizeof(x->addr.b));

	return order ? order : (int)ntohs(x->port_be) - (int)ntohs(y->port_be);
}

/* Takes the walker's next free place. The permutation visits every place, so there is one while the table has room. */
static void take_place(struct walker *w, uint16_t *table, bool *taken, uint32_t size)
{
	while (taken[w->next])
		w->next = w->next + w->skip >= size ? w->next + w->skip - size : w->next + w->skip;
	taken[w->next] = true;
	table[w->next] = w->index;
}

static void fill(struct walker *walkers, uint32_t n, uint32_t max_weight, uint16_t *table, bool *taken, uint32_t size)
{
	uint32_t filled = 0;

	while (filled < size)
		for (uint32_t i = 0; i < n && filled < size; i++) {
			struct walker *w = &walkers[i];

			w->credit += w->backend->weight;
			if (w->credit < max_weight)
				continue;
			w->credit -= max_weight;
			take_place(w, table, taken, size);
			filled++;
		}
}

int maglev_build(const struct policy_backend *backends, uint32_t n, uint16_t *table, uint32_t size)
{
	struct walker *walkers;
	uint32_t max_weight = 0;
	bool *taken;
	int err = 0;

	if (n == 0 || n > UINT16_MAX || (size != table_sizes[0] && size != table_sizes[1] && size != table_sizes[2]))
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++)
		max_weight = backends[i].weight > max_weight ? backends[i].weight : max_weight;
	if (max_weight == 0)
		return -EINVAL;
	walkers = calloc(n, sizeof(*walkers));
	taken = calloc(size, sizeof(*taken));
	if (!walkers || !taken) {
		err = -ENOMEM;
		goto out;
	}
	for (uint32_t i = 0; i < n; i++) {
		char text[IPADDR_PORT_STRLEN];
		size_t len;

		ipaddr_port_format(&backends[i].addr, backends[i].port_be, text);
		len = strlen(text);
		walkers[i].backend = &backends[i];
		walkers[i].index = i;
		walkers[i].offset = hash_public(text, len, 1) % size;
		walkers[i].skip = hash_public(text, len, 2) % (size - 1) + 1;
		walkers[i].next = walkers[i].offset;
		walkers[i].credit = backends[i].weight ? max_weight - backends[i].weight : 0;
	}
	qsort(walkers, n, sizeof(*walkers), by_address);
	fill(walkers, n, max_weight, table, taken, size);
out:
	free(walkers);
	free(taken);
	return err;
}
