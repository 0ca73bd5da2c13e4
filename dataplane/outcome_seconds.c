/* SPDX-License-Identifier: BSD-3-Clause */
#include "outcome_seconds.h"
#include "hash.h"
#include "memory.h"
#include "policy.h"
#include "seq.h"

#include <errno.h>

static_assert(sizeof(struct seconds_cell) * SECONDS_WAYS == 64, "one line");

/* --- life --- */

uint64_t seconds_table_bytes(uint32_t n_cells)
{
	return (uint64_t)SECONDS_PAGES * (sizeof(struct seconds_page) + n_cells * sizeof(struct seconds_cell));
}

int seconds_table_init(struct seconds_table *t, uint32_t n_cells, const uint8_t *secret)
{
	*t = (struct seconds_table){.n_cells = n_cells, .secret = secret};
	t->pages = memory_alloc(SECONDS_PAGES * sizeof(*t->pages));
	t->cells = memory_alloc((size_t)SECONDS_PAGES * n_cells * sizeof(*t->cells));
	if (t->pages && t->cells)
		return 0;
	seconds_table_fini(t);
	return -ENOMEM;
}

void seconds_table_fini(struct seconds_table *t)
{
	memory_free(t->pages);
	memory_free(t->cells);
	t->pages = NULL;
	t->cells = NULL;
}

/* --- keys: 48 bits of prefix, 16 of reason; an IPv4 prefix looks like one of IPv6 that no host is in --- */

#define V4_MARK 0xffffff000000ull

static uint64_t prefix_bits(const struct ipaddr *addr)
{
	if (ipaddr_is_v4(addr))
		return V4_MARK | ntohl(ipaddr_v4_be(addr)) >> 8;
	return __builtin_bswap64(addr->q_be[0]) >> 16;
}

static struct ipaddr prefix_addr(uint64_t bits)
{
	struct ipaddr addr = {.q_be = {__builtin_bswap64(bits << 16)}};

	return (bits & V4_MARK) == V4_MARK ? ipaddr_v4(htonl((uint32_t)bits << 8)) : addr;
}

struct ipaddr outcome_prefix(const struct ipaddr *addr, unsigned *len)
{
	*len = ipaddr_is_v4(addr) ? 24 : 48;
	return prefix_addr(prefix_bits(addr));
}

static struct seconds_cell *cells_of(const struct seconds_table *t, const struct seconds_page *page)
{
	return &t->cells[(size_t)(page - t->pages) * t->n_cells];
}

/* --- the worker's --- */

static void count(uint32_t *counter)
{
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static void begin_page(struct seconds_table *t, struct seconds_page *page, uint32_t second)
{
	struct seconds_cell *cells = cells_of(t, page);

	seq_write_begin(&page->seq);
	for (uint32_t i = 0; i < t->n_cells; i++)
		__atomic_store_n(&cells[i].key, 0, __ATOMIC_RELAXED);
	for (int i = 0; i < OUTCOME_REASONS; i++)
		__atomic_store_n(&page->unnamed[i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&page->second, second, __ATOMIC_RELAXED);
	__atomic_store_n(&page->used, 1, __ATOMIC_RELAXED);
	seq_write_end(&page->seq);
}

static void begin_cell(struct seconds_cell *cell, uint64_t key, uint32_t service_slot)
{
	__atomic_store_n(&cell->service_slot, service_slot, __ATOMIC_RELAXED);
	__atomic_store_n(&cell->count, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&cell->key, key, __ATOMIC_RELEASE);
}

void seconds_note(struct seconds_table *t, const struct ipaddr *addr, uint32_t service_slot, outcome_reason reason,
		  uint32_t second)
{
	struct seconds_page *page = &t->pages[second % SECONDS_PAGES];
	const uint64_t key[] = {prefix_bits(addr) << 16 | reason, service_slot};
	uint32_t line = hash_keyed(key, sizeof(key), t->secret) & (t->n_cells / SECONDS_WAYS - 1);
	struct seconds_cell *cells = &cells_of(t, page)[line * SECONDS_WAYS];

	if (page->second != second || !page->used)
		begin_page(t, page, second);
	for (int i = 0; i < SECONDS_WAYS; i++) {
		if (cells[i].key == key[0] && cells[i].service_slot == service_slot) {
			count(&cells[i].count);
			return;
		}
		if (!cells[i].key) {
			begin_cell(&cells[i], key[0], service_slot);
			return;
		}
	}
	count(&page->unnamed[reason]);
}

/* --- anyone's --- */

#define CELLS_AT_ONCE 64

static void tell_cell(uint32_t second, const struct seconds_cell *cell, second_row_fn *fn, void *arg)
{
	struct second_row row = {
		.at_ns = second * 1000000000ull,
		.prefix = prefix_addr(cell->key >> 16),
		.service_slot = cell->service_slot,
		.reason = cell->key & 0xffff,
		.count = cell->count,
	};

	fn(arg, &row);
}

static void load_cell(const struct seconds_cell *from, struct seconds_cell *to)
{
	to->key = __atomic_load_n(&from->key, __ATOMIC_ACQUIRE);
	to->service_slot = __atomic_load_n(&from->service_slot, __ATOMIC_RELAXED);
	to->count = __atomic_load_n(&from->count, __ATOMIC_RELAXED);
}

/* A page that is taken for another second while it is read is over: what was told of it stays true. */
static void read_cells(const struct seconds_table *t, const struct seconds_page *page, uint32_t seq, uint32_t second,
		       second_row_fn *fn, void *arg)
{
	const struct seconds_cell *cells = cells_of(t, page);
	struct seconds_cell copy[CELLS_AT_ONCE];

	for (uint32_t i = 0; i < t->n_cells;) {
		uint32_t n = 0;

		for (; n < CELLS_AT_ONCE && i + n < t->n_cells; n++)
			load_cell(&cells[i + n], &copy[n]);
		if (seq_read_again(&page->seq, seq))
			return;
		for (uint32_t c = 0; c < n; c++)
			if (copy[c].key)
				tell_cell(second, &copy[c], fn, arg);
		i += n;
	}
}

static void read_unnamed(const struct seconds_page *page, uint32_t seq, uint32_t second, second_row_fn *fn, void *arg)
{
	uint32_t unnamed[OUTCOME_REASONS];

	for (int r = 0; r < OUTCOME_REASONS; r++)
		unnamed[r] = __atomic_load_n(&page->unnamed[r], __ATOMIC_RELAXED);
	if (seq_read_again(&page->seq, seq))
		return;
	for (int r = 0; r < OUTCOME_REASONS; r++) {
		struct second_row row = {
			.at_ns = second * 1000000000ull,
			.unnamed = true,
			.service_slot = SLOT_NONE,
			.reason = r,
			.count = unnamed[r],
		};

		if (row.count)
			fn(arg, &row);
	}
}

void seconds_read(const struct seconds_table *t, uint32_t now, second_row_fn *fn, void *arg)
{
	for (uint32_t i = 0; i < SECONDS_PAGES; i++) {
		const struct seconds_page *page = &t->pages[i];
		uint32_t seq = seq_read_begin(&page->seq);
		uint32_t second = __atomic_load_n(&page->second, __ATOMIC_RELAXED);
		uint32_t used = __atomic_load_n(&page->used, __ATOMIC_RELAXED);

		if (!used || now - second >= OUTCOME_SECONDS || seq_read_again(&page->seq, seq))
			continue;
		read_cells(t, page, seq, second, fn, arg);
		read_unnamed(page, seq, second, fn, arg);
	}
}
