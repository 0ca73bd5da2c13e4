/* SPDX-License-Identifier: BSD-3-Clause */
/* Walks over a worker's tables: how much in a loop, and how much rest. */
#pragma once

#include <stdint.h>

#include <rte_common.h>

#define SCAN_PER_LOOP 128  /* entries looked at per loop: 9 us where none is in a cache */
#define SCAN_PER_MS   1750 /* or so many, where loops take long: an eighth of their time */
#define SCAN_MAX      4096 /* whatever it took: 300 us */
#define SCAN_REST     3500 /* entries per ms of rest after a walk: four times as long as it took, 70 ms a million */
#define SCAN_NAP_MS   5    /* while the limit on RSTs has none: it gives some 20 flows in that time */

/*
 * A walk ends in its time also where traffic makes every loop long, and the worker had next to none for it.
 * `walked_ns`: when the last loop walked, now this one.
 */
static inline uint32_t scan_budget(uint64_t *walked_ns, uint64_t now_ns)
{
	uint64_t by_time = (now_ns - *walked_ns) * SCAN_PER_MS / 1000000;

	*walked_ns = now_ns;
	return RTE_MIN(RTE_MAX(by_time, (uint64_t)SCAN_PER_LOOP), (uint64_t)SCAN_MAX);
}
