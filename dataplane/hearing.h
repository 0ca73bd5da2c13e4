/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whether silence is evidence. It is, if everything that had come by then was read and nothing was there: by this
 * worker, and by the others, in whose rings our packets may lie first. Each worker says up to when its rings were read;
 * who wants to know looks at that before it reads its own rings, where the others have put what is ours by then.
 *
 * Rings that are never empty, as a flood makes them, are read to where their ends were once, for which a number of
 * turns is enough. And nothing may have been lost on the way into the gateway.
 */
#pragma once

#include "core.h"

#define HEARING_DOUBTS 3 /* how often in a row lost frames put off a judgement */
#define KNOWN_BURSTS   4 /* of established traffic, per ring and turn, before new flows get their turn */

/* Turns in which each ring of established traffic is read to where its end was before. */
unsigned hearing_turns(const struct worker *w);

/* Before the rings of a turn are read. */
static inline void hearing_begin(struct worker *w)
{
	struct hearing *h = &w->hearing;

	h->behind = false;
	if (__builtin_expect(h->turns != 0, 0))
		return;
	h->marked_ns = w->now_ns;
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
	uint64_t read_ns = w->now_ns;

	if (__builtin_expect(h->behind, 0)) {
		if (++h->turns < hearing_turns(w))
			return;
		read_ns = h->marked_ns;
	}
	h->turns = 0;
	atomic_store_explicit(&w->drained_ns, read_ns, memory_order_release);
	if (w->dp->config.n_workers == 1)
		h->heard_ns = read_ns;
	else if (h->others_ns)
		h->heard_ns = h->others_ns < read_ns ? h->others_ns : read_ns;
}

/*
 * `ms`: of the running clock, not ahead of it. False: what came until then may still be unread. It will be known after
 * a turn, or some if rings are never empty, so ask again.
 */
static inline bool hearing_since(struct worker *w, uint32_t ms)
{
	uint64_t late_ns = (uint64_t)((uint32_t)w->run_ms - ms) * 1000000;

	if (w->hearing.heard_ns + late_ns >= w->now_ns)
		return true;
	w->hearing.wanted = true;
	return false;
}

/* Asks the devices what they lost, 100 times a second at the most: from now on, what gets lost counts. */
void hearing_ask(struct worker *w);

/*
 * True if what came to that port in the last `age_ms` may have been lost. What devices lost since they were asked
 * before counts as lost now; of the last hundredth of a second they may not have been asked.
 */
bool hearing_lost_lately(struct worker *w, unsigned port, uint32_t age_ms);
