/* SPDX-License-Identifier: BSD-3-Clause */
#include "wheel.h"

void wheel_init(struct wheel *w, uint64_t now_ms)
{
	for (uint32_t i = 0; i < WHEEL_SLOTS; i++)
		w->heads[i] = FLOW_REF_NONE;
	w->tick = now_ms / WHEEL_TICK_MS;
	w->n_flows = 0;
}

/* Idle times are unsigned, so that timeouts up to 49 days are told from the past. Looks are less than 24 days ahead. */
uint32_t wheel_left_ms(const struct flow_table *t, flow_ref ref, uint64_t now_ms)
{
	const struct flow_track *track = flow_track(t, ref);
	uint32_t idle_ms;

	if (track->look != LOOK_IDLE) {
		int32_t left_ms = track->look_ms - (uint32_t)now_ms;

		return left_ms > 0 ? left_ms : 0;
	}
	idle_ms = flow_idle_ms(t, ref, now_ms);
	return idle_ms < track->timeout_ms ? track->timeout_ms - idle_ms : 0;
}

/* The first slot that begins after the deadline: never the one that is being looked at, and less than a turn away. */
static uint16_t slot_for(const struct wheel *w, const struct flow_table *t, flow_ref ref, uint64_t now_ms)
{
	uint64_t tick = (now_ms + wheel_left_ms(t, ref, now_ms)) / WHEEL_TICK_MS + 1;

	if (tick >= w->tick + WHEEL_SLOTS)
		tick = w->tick + WHEEL_SLOTS - 1;
	return tick % WHEEL_SLOTS;
}

static void link_in(struct wheel *w, const struct flow_table *t, flow_ref ref, uint16_t slot)
{
	struct flow_track *track = flow_track(t, ref);

	track->wheel_slot = slot;
	track->wheel_prev = FLOW_REF_NONE;
	track->wheel_next = w->heads[slot];
	if (track->wheel_next != FLOW_REF_NONE)
		flow_track(t, track->wheel_next)->wheel_prev = ref;
	w->heads[slot] = ref;
}

static void unlink_from(struct wheel *w, const struct flow_table *t, flow_ref ref)
{
	struct flow_track *track = flow_track(t, ref);

	if (track->wheel_prev != FLOW_REF_NONE)
		flow_track(t, track->wheel_prev)->wheel_next = track->wheel_next;
	else
		w->heads[track->wheel_slot] = track->wheel_next;
	if (track->wheel_next != FLOW_REF_NONE)
		flow_track(t, track->wheel_next)->wheel_prev = track->wheel_prev;
}

void wheel_add(struct wheel *w, const struct flow_table *t, flow_ref ref, uint64_t now_ms)
{
	link_in(w, t, ref, slot_for(w, t, ref, now_ms));
	w->n_flows++;
}

void wheel_del(struct wheel *w, const struct flow_table *t, flow_ref ref)
{
	unlink_from(w, t, ref);
	w->n_flows--;
}

void wheel_move(struct wheel *w, const struct flow_table *t, flow_ref ref, uint64_t now_ms)
{
	uint16_t slot = slot_for(w, t, ref, now_ms);

	if (slot == flow_track(t, ref)->wheel_slot)
		return;
	unlink_from(w, t, ref);
	link_in(w, t, ref, slot);
}

uint32_t wheel_advance(struct wheel *w, const struct flow_table *t, uint64_t now_ms, uint32_t budget, flow_ref *expired)
{
	uint32_t n = 0;

	while (w->tick <= now_ms / WHEEL_TICK_MS) {
		flow_ref ref;

		while ((ref = w->heads[w->tick % WHEEL_SLOTS]) != FLOW_REF_NONE) {
			if (budget-- == 0)
				return n;
			unlink_from(w, t, ref);
			if (wheel_left_ms(t, ref, now_ms)) {
				link_in(w, t, ref, slot_for(w, t, ref, now_ms));
				continue;
			}
			w->n_flows--;
			expired[n++] = ref;
		}
		w->tick++;
	}
	return n;
}
