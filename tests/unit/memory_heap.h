/* SPDX-License-Identifier: BSD-3-Clause */
/* Instead of DPDK's memory, which a unit test does without. Included once by the test that needs it. */
#pragma once

#include "memory.h"

#include <stdlib.h>
#include <string.h>

void *memory_alloc(size_t bytes)
{
	size_t size = bytes ? (bytes + 63) / 64 * 64 : 64;
	void *p = aligned_alloc(64, size);

	return p ? memset(p, 0, size) : NULL;
}

void memory_free(void *p)
{
	free(p);
}
