/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Placing: a new flow gets its table entry, its SNAT port and its two index places, all or nothing; and its end.
 */
#pragma once

#include "core.h"

enum place_result {
	PLACE_OK,
	PLACE_TABLE_FULL,
	PLACE_PORTS_EXHAUSTED,
};

/*
 * Makes the flow of `it` (a client's first packet) to `backend` and sets it->ref, or says why not: nothing has changed
 * then. The flow is in its first state and on the timing wheel.
 */
enum place_result place(struct worker *w, struct item *it, const struct policy *policy,
			const struct policy_service *svc, const struct policy_backend *backend);

/* Takes the flow off everything but the wheel (`wheel`: off that too). */
void flow_end(struct worker *w, flow_ref ref, bool wheel);

/*
 * Adds what the flow transferred since the last time to its own and its backend's counters. At the latest after
 * FLOW_ROLL_UP_PACKETS of a direction, so that 32 bits hold their bytes.
 */
#define FLOW_ROLL_UP_PACKETS 64
void flow_roll_up(struct worker *w, flow_ref ref);
