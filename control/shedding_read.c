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

/* The next of the client's places, from *i on, which goes behind it; false: there is none. */
static bool next_of_client(const struct shedding *s, const struct ipaddr *client, uint32_t *i, struct shedding_row *row)
{
	if (!s || !s->config.shed || !__atomic_load_n(&s->n_used, __ATOMIC_RELAXED))
		return false;
	while (*i < s->config.max_clients) {
		uint32_t at = (*i)++;

		if (__atomic_load_n(&s->places[at].used, __ATOMIC_RELAXED) && read_row(s, at, row) &&
		    shedding_same_client(&row->client, client))
			return true;
	}
	return false;
}

size_t shedding_of_client(const struct shedding *s, const struct ipaddr *client, struct shedding_row *rows, size_t max)
{
	struct shedding_row row;
	uint32_t i = 0;
	size_t n = 0;

	for (; next_of_client(s, client, &i, &row); n++)
		if (n < max)
			rows[n] = row;
	return n;
}

uint64_t shedding_packets_of_client(const struct shedding *s, const struct ipaddr *client)
{
	struct shedding_row row;
	uint64_t packets = 0;
	uint32_t i = 0;

	while (next_of_client(s, client, &i, &row))
		packets += row.packets;
	return packets;
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
