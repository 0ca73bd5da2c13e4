/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one gate before anything that a cure does: whether it is done, and that it is counted either way.
 *
 *   if (action_due(w, flow_mode(track, CURE_PATH), ACTION_clamp))
 *           clamp(it);
 */
#pragma once

#include "core.h"

/* True: do it. The caller does not get here with what is off, or else nothing is counted and nothing done. */
static inline bool action_due(struct worker *w, enum cure_mode mode, enum action action)
{
	if (mode == CURE_ENFORCE)
		w->ledger.did[action]++;
	else if (mode == CURE_SHADOW)
		w->ledger.would[action]++;
	return mode == CURE_ENFORCE;
}

/* A flow's mode of a cure: that of its birth. */
static inline enum cure_mode flow_mode(const struct flow_track *track, enum cure cure)
{
	return cure_packed_mode(track->modes, cure);
}
