/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The timing wheel of one worker: one level of slots of 128 ms. A flow sits in the slot of its deadline as known when
 * it was put there; packets only note their time. When its slot comes, a flow that lived on moves to its new slot: so
 * the packet path never touches the wheel. Deadlines beyond the wheel's reach come round once per turn.
 */
#pragma once

#include "flow.h"

#include <stdint.h>

#define WHEEL_SLOTS   4096 /* of 128 ms: one turn is 524 s */
#define WHEEL_TICK_MS 128

/* `now_ms` is the worker's running clock, whole; flows keep its low 32 bits. */
struct wheel {
	flow_ref heads[WHEEL_SLOTS];
	uint64_t tick; /* the next slot to look at, counted for ever */
	uint32_t n_flows;
};

/* Until the flow is due. */
uint32_t wheel_left_ms(const struct flow_table *t, flow_ref ref, uint64_t now_ms);

void wheel_init(struct wheel *w, uint64_t now_ms);
/* Puts a flow, whose last_ms (both) and timeout_ms are set, into its slot. */
void wheel_add(struct wheel *w, const struct flow_table *t, flow_ref ref, uint64_t now_ms);
void wheel_del(struct wheel *w, const struct flow_table *t, flow_ref ref);
/* After timeout_ms became shorter: moves the flow forward. Cheap if it is in that slot already. */
void wheel_move(struct wheel *w, const struct flow_table *t, flow_ref ref, uint64_t now_ms);

/*
 * Looks at flows whose slot has come, at most `budget` of them; the expired ones, taken off the wheel, are written to
 * `expired` (room for `budget`). Returns how many. What did not fit the budget comes with the next call.
 */
uint32_t wheel_advance(struct wheel *w, const struct flow_table *t, uint64_t now_ms, uint32_t budget,
		       flow_ref *expired);

/*
 * How long a worker may sleep, `max_ms` (at most a tick) at the most: until the next slot begins, if there is a flow in
 * it. That makes a timer late by a tick, and not by a nap on top of it.
 */
static inline uint32_t wheel_sleep_ms(const struct wheel *w, uint64_t now_ms, uint32_t max_ms)
{
	uint64_t begin_ms = w->tick * WHEEL_TICK_MS;

	if (w->heads[w->tick % WHEEL_SLOTS] == FLOW_REF_NONE || begin_ms >= now_ms + max_ms)
		return max_ms;
	return begin_ms > now_ms ? begin_ms - now_ms : 0;
}

/* True if the last wheel_advance() to now_ms left something for the next. */
static inline bool wheel_is_behind(const struct wheel *w, uint64_t now_ms)
{
	return w->tick <= now_ms / WHEEL_TICK_MS;
}
