/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether silence is evidence. It is, if everything that had come by then was read and nothing was there: by this
 * worker, and by the others, in whose rings our packets may lie first. Each worker says up to when its rings are empty;
 * who wants to know looks at that before it reads its own rings, where the others have put what is ours by then.
 */
#pragma once

#include "core.h"

/* Before the rings of a turn are read. */
static inline void hearing_begin(struct worker *w)
{
	struct hearing *h = &w->hearing;

	h->behind = false;
	h->others_ns = h->wanted ? UINT64_MAX : 0;
	if (__builtin_expect(!h->wanted, 1))
		return;
	for (unsigned i = 0; i < w->dp->config.n_workers; i++) {
		uint64_t drained_ns = atomic_load_explicit(&w->dp->workers[i]->drained_ns, memory_order_acquire);

		if (i != w->index && drained_ns < h->others_ns)
			h->others_ns = drained_ns;
	}
	h->wanted = false;
}

/* After all rings of established traffic were. */
static inline void hearing_end(struct worker *w)
{
	struct hearing *h = &w->hearing;

	if (h->behind)
		return;
	atomic_store_explicit(&w->drained_ns, w->now_ns, memory_order_release);
	if (w->dp->config.n_workers == 1)
		h->heard_ns = w->now_ns;
	else if (h->others_ns)
		h->heard_ns = h->others_ns < w->now_ns ? h->others_ns : w->now_ns;
}

/*
 * `ms`: of the running clock, not ahead of it. False: what came until then may still be unread. It will be known after
 * the next turn, so ask again.
 */
static inline bool hearing_since(struct worker *w, uint32_t ms)
{
	uint64_t late_ns = (uint64_t)((uint32_t)w->run_ms - ms) * 1000000;

	if (w->hearing.heard_ns + late_ns >= w->now_ns)
		return true;
	w->hearing.wanted = true;
	return false;
}

/*
 * True if frames may have been lost in the last `age_ms`. Devices are asked once per loop at the most; what they lost
 * since they were asked before counts as lost now.
 */
bool hearing_lost_lately(struct worker *w, uint32_t age_ms);
