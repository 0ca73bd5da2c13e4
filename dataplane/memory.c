/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory.h"

#include <errno.h>
#include <rte_malloc.h>
#include <string.h>

/*
 * Every page is written here, at start: tables that were only promised would fault in on the packet path, and a process
 * that grows with its first flood cannot be told from one that leaks.
 */
void *memory_alloc(size_t bytes)
{
	size_t size = bytes ? bytes : 1;
	void *p = rte_malloc(NULL, size, 2 * RTE_CACHE_LINE_SIZE);

	if (!p) {
		errno = ENOMEM;
		return NULL;
	}
	return memset(p, 0, size);
}

void memory_free(void *p)
{
	rte_free(p);
}
