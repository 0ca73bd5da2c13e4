/* SPDX-License-Identifier: BSD-3-Clause */
#include "shedding_private.h"

static bool read_row(const struct shedding *s, uint32_t i, struct shedding_row *row)
{
	const struct place *p = &s->places[i];
	union {
		struct shedding_row row;
		uint64_t words[sizeof(p->words) / 8];
	} to;
	uint64_t packets;
	uint32_t begin;
	bool used;

	do {
		begin = seq_read_begin(&p->seq);
		used = __atomic_load_n(&p->used, __ATOMIC_RELAXED);
		for (size_t w = 0; used && w < sizeof(p->words) / 8; w++)
			to.words[w] = __atomic_load_n(&p->words[w], __ATOMIC_RELAXED);
		packets = used ? shed_packets(s->config.shed, i) : 0;
	} while (seq_read_again(&p->seq, begin));
	if (!used)
		return false;
	*row = to.row;
	row->packets = packets - row->packets;
	return true;
}

size_t shedding_of_client(const struct shedding *s, const struct ipaddr *client, struct shedding_row *rows, size_t max)
{
	size_t n = 0;

	if (!s || !s->config.shed || !__atomic_load_n(&s->n_used, __ATOMIC_RELAXED))
		return 0;
	for (uint32_t i = 0; i < s->config.max_clients && n < max; i++)
		if (__atomic_load_n(&s->places[i].used, __ATOMIC_RELAXED) && read_row(s, i, &rows[n]) &&
		    shedding_same_client(&rows[n].client, client))
			n++;
	return n;
}

void shedding_report(const struct shedding *s, struct shedding_report *out)
{
	*out = (struct shedding_report){0};
	if (!s)
		return;
	out->clients = __atomic_load_n(&s->n_used, __ATOMIC_RELAXED);
	out->now = __atomic_load_n(&s->n_live, __ATOMIC_RELAXED);
	out->full = __atomic_load_n(&s->full, __ATOMIC_RELAXED);
}
