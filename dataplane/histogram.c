/* SPDX-License-Identifier: BSD-3-Clause */
#include "histogram.h"

static unsigned octave_of(uint32_t us)
{
	return us ? 31 - __builtin_clz(us) : 0;
}

/* 0, 1, 2 and 3 us have buckets of their own. */
static unsigned fine_of(uint32_t us)
{
	unsigned octave = octave_of(us);

	return octave < 2 ? us : 4 * (octave - 1) + (us >> (octave - 2) & 3);
}

/* The last that belongs to the bucket. */
static uint32_t fine_end_us(unsigned fine)
{
	unsigned octave = fine / 4 + 1;

	return fine < 4 ? fine : (UINT32_C(5) + fine % 4) * (UINT32_C(1) << (octave - 2)) - 1;
}

static uint32_t epoch_of(uint64_t now_ns)
{
	return now_ns / HISTOGRAM_EPOCH_NS + 1;
}

static void count64(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void begin_epoch(struct histogram_epoch *e, uint32_t number)
{
	for (unsigned i = 0; i < HISTOGRAM_FINE; i++)
		__atomic_store_n(&e->n[i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&e->number, number, __ATOMIC_RELAXED);
}

void histogram_add(struct histogram *h, uint32_t us, uint64_t now_ns)
{
	uint32_t number = epoch_of(now_ns);
	struct histogram_epoch *e = &h->epochs[number & 1];
	uint32_t *fine;

	us = us < HISTOGRAM_MAX_US ? us : HISTOGRAM_MAX_US;
	if (__builtin_expect(e->number != number, 0))
		begin_epoch(e, number);
	fine = &e->n[fine_of(us)];
	count64(&h->sum_us, us);
	count64(&h->octaves[octave_of(us)], 1);
	__atomic_store_n(fine, *fine + 1, __ATOMIC_RELAXED);
}

static bool is_recent(const struct histogram_epoch *e, uint64_t now_ns)
{
	uint32_t number = __atomic_load_n(&e->number, __ATOMIC_RELAXED);

	return number && epoch_of(now_ns) - number <= 1;
}

static void sum_lately(struct histogram_sum *sum, const struct histogram *h, uint64_t now_ns)
{
	for (unsigned e = 0; e < 2; e++)
		for (unsigned i = 0; i < HISTOGRAM_FINE && is_recent(&h->epochs[e], now_ns); i++) {
			uint32_t n = __atomic_load_n(&h->epochs[e].n[i], __ATOMIC_RELAXED);

			sum->lately[i] += n;
			sum->n_lately += n;
		}
}

void histogram_sum(struct histogram_sum *sum, const struct histogram *h, uint64_t now_ns)
{
	sum->sum_us += __atomic_load_n(&h->sum_us, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < HISTOGRAM_OCTAVES; i++) {
		uint64_t n = __atomic_load_n(&h->octaves[i], __ATOMIC_RELAXED);

		sum->octaves[i] += n;
		sum->n += n;
	}
	sum_lately(sum, h, now_ns);
}

uint32_t histogram_quantile_us(const struct histogram_sum *sum, unsigned permille)
{
	uint64_t below = 0, wanted = (sum->n_lately * permille + 999) / 1000;

	for (unsigned i = 0; i < HISTOGRAM_FINE; i++) {
		below += sum->lately[i];
		if (below && below >= wanted)
			return fine_end_us(i);
	}
	return 0;
}

uint32_t histogram_median_us(const struct histogram *h, uint64_t now_ns)
{
	struct histogram_sum sum = {0};

	sum_lately(&sum, h, now_ns);
	return histogram_quantile_us(&sum, 500);
}
