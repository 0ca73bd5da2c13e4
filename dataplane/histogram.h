/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long something took, in fixed buckets: written by one worker with relaxed stores, read by anyone. Ever, by powers
 * of two; and lately, four times as fine, so that a quantile of the last minute is right to a quarter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define HISTOGRAM_OCTAVES  26 /* 2^26 us: 67 s; what took longer counts as that */
#define HISTOGRAM_MAX_US   ((UINT32_C(1) << HISTOGRAM_OCTAVES) - 1)
#define HISTOGRAM_FINE     (4 * (HISTOGRAM_OCTAVES - 1))
#define HISTOGRAM_EPOCH_NS 30000000000ull /* `lately` is the last 30 to 60 s */

struct histogram_epoch {
	uint32_t number; /* time / HISTOGRAM_EPOCH_NS; 0: never begun */
	uint32_t n[HISTOGRAM_FINE];
};

struct histogram {
	uint64_t sum_us;
	uint64_t octaves[HISTOGRAM_OCTAVES]; /* of at least 2^i us (the first: of anything less, too), below 2^(i+1) */
	struct histogram_epoch epochs[2];    /* by the parity of their numbers */
};

void histogram_add(struct histogram *h, uint32_t us, uint64_t now_ns);

/* The sum of several, as of one moment. All zero: none yet. */
struct histogram_sum {
	uint64_t n, sum_us;
	uint64_t octaves[HISTOGRAM_OCTAVES];
	uint64_t n_lately, lately[HISTOGRAM_FINE];
};

void histogram_sum(struct histogram_sum *sum, const struct histogram *h, uint64_t now_ns);
/* Lately: the time within which that share of them (in thousandths) was done; 0: there were none. */
uint32_t histogram_quantile_us(const struct histogram_sum *sum, unsigned permille);
/* The same of one histogram, for its writer: its half. */
uint32_t histogram_median_us(const struct histogram *h, uint64_t now_ns);
