/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Big tables: zeroed, cache-line aligned, taken from hugepages where DPDK has them (a table of a million flows read at
 * random misses the TLB at each packet otherwise), allocated once at start.
 */
#pragma once

#include <stddef.h>

/* NULL with errno set. A size of 0 gives a valid pointer. */
void *memory_alloc(size_t bytes);
/* NULL is fine. */
void memory_free(void *p);
