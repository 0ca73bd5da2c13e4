/* SPDX-License-Identifier: BSD-3-Clause */
#include "outcome_talk.h"

struct client_row client(const struct ipaddr *addr)
{
	struct client_row sum = {0};

	for (unsigned i = 0; i < n_workers; i++) {
		struct outcome_blind blind;
		struct client_row row;

		if (!observe_client(rig.dp, i, addr, &row, &blind))
			continue;
		for (int c = 0; c < OUTCOME_CLASSES; c++)
			sum.counts[c] += row.counts[c];
		for (unsigned o = 0; o < row.n; o++)
			sum.outcomes[sum.n++] = row.outcomes[o];
	}
	return sum;
}

uint64_t count_of(const struct client_row *row, outcome_reason reason)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < row->n; i++)
		n += row->outcomes[i].reason == reason ? row->outcomes[i].count : 0;
	return n;
}
