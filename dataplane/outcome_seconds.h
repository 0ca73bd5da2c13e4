/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker's outcomes of the last two minutes, added up per client prefix, service, reason and second. A second has a
 * page of its own, a small hash table; what finds no room there is counted by reason alone. The page of a second is
 * taken for the one 128 seconds later.
 */
#pragma once

#include "outcome.h"

#include <assert.h>

#define SECONDS_PAGES 128
#define SECONDS_CELLS 1024 /* per page, all workers together */
#define SECONDS_WAYS  4    /* a line of cells */

static_assert(SECONDS_PAGES > OUTCOME_SECONDS + 1, "a page is not reused while it is shown");

/* Written once, but for the count, until its page is taken for another second. */
struct seconds_cell {
	uint64_t key; /* 0: empty; written last */
	uint32_t service_slot;
	uint32_t count;
};

struct seconds_page {
	uint32_t seq;  /* odd while the page is being emptied */
	uint32_t used; /* 0: never */
	uint32_t second;
	uint32_t unnamed[OUTCOME_REASONS];
};

struct seconds_table {
	struct seconds_page *pages;
	struct seconds_cell *cells; /* n_cells per page */
	uint32_t n_cells;
	const uint8_t *secret;
};

uint64_t seconds_table_bytes(uint32_t n_cells);
/* n_cells: of a page, a power of two. Returns 0 or -ENOMEM. `secret` must outlive the table. */
int seconds_table_init(struct seconds_table *t, uint32_t n_cells, const uint8_t *secret);
void seconds_table_fini(struct seconds_table *t);

/* The worker's. */
void seconds_note(struct seconds_table *t, const struct ipaddr *addr, uint32_t service_slot, outcome_reason reason,
		  uint32_t second);

/* Anyone's: every row of the OUTCOME_SECONDS that end with `now`. */
void seconds_read(const struct seconds_table *t, uint32_t now, second_row_fn *fn, void *arg);
