/* SPDX-License-Identifier: BSD-3-Clause */
#include "select.h"

const struct policy_backend *select_backend(const struct policy_set *set, uint64_t hash)
{
	if (!set->n_backends)
		return NULL;
	return &set->backends[set->table[hash % set->table_size]];
}
