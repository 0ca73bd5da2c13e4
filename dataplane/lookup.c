/* SPDX-License-Identifier: BSD-3-Clause */
#include "lookup.h"

flow_ref flow_find(const struct worker *w, const struct item *it)
{
	if (it->p.family == 4) {
		struct flow_key4 key = item_key4(it);

		return flow_lookup4(&w->flows, &key, it->p.proto, it->hash);
	}
	struct flow_key6 key = item_key6(it);

	return flow_lookup6(&w->flows, &key, it->p.proto, it->hash);
}
