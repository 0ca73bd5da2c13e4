/* SPDX-License-Identifier: BSD-3-Clause */
#include "due.h"
#include "action.h"
#include "pipeline.h"
#include "place.h"
#include "segment.h"
#include "wall.h"

#define DUE_BUDGET    64 /* flows that the wheel looks at per loop */

#define TELL_AGAIN_MS 1000  /* an end that cannot be reached now is told later, */
#define TELL_FOR_MS   10000 /* for so long */

/*
 * RST instead of silence: both ends of a flow that was idle for too long learn that it is over, each from the exact
 * sequence number that it expects (RFC 5961 3.2). True: both have been told.
 */
static bool tell_idle_ends(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		const struct flow_half *back = flow_half(&w->flows, up | !dir);

		if (track->told >> dir & 1)
			continue;
		if (segment_send(w, &w->burst, up | dir, back->ack, back->end, TCP_RST | TCP_ACK, MADE_rst_idle))
			track->told |= 1 << dir;
	}
	return track->told == (1 << DIRS) - 1;
}

/* It is being told already, and no packet of it has come since: that would have been the beginning of another life. */
static bool is_being_told(const struct flow_track *track, uint32_t idle_ms, uint32_t now_ms)
{
	return track->end_ms && idle_ms >= now_ms - track->end_ms;
}

/* True: it is over. False: who was not told is told again soon. */
static bool end_idle(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	uint32_t idle_ms = flow_idle_ms(&w->flows, up, w->run_ms), now_ms = w->run_ms ? w->run_ms : 1;

	if (!is_being_told(track, idle_ms, now_ms)) {
		if (!action_due(w, flow_mode(track, CURE_SILENCE), ACTION_rst_idle))
			return true;
		track->end_ms = now_ms;
		track->told = 0;
	}
	if (tell_idle_ends(w, up))
		return true;
	if (now_ms - track->end_ms >= TELL_FOR_MS) {
		w->ledger.did[ACTION_rst_untold]++;
		return true;
	}
	track->timeout_ms = idle_ms + TELL_AGAIN_MS;
	return false;
}

/* The flow is off the wheel. True: it is over. False: it lives on, with a timeout that lies ahead. */
static bool is_over(struct worker *w, flow_ref up)
{
	switch ((enum flow_state)flow_half(&w->flows, up)->state) {
	case FLOW_SYN_SENT:
		if (wall_due(w, up))
			return false;
		count_add(&w->backends[flow_track(&w->flows, up)->backend_slot].failures, 1);
		return true;
	case FLOW_UDP_UNREPLIED:
		count_add(&w->backends[flow_track(&w->flows, up)->backend_slot].failures, 1);
		return true;
	case FLOW_ESTABLISHED:
	case FLOW_FIN_WAIT:
		return end_idle(w, up);
	default:
		return true;
	}
}

void due_run(struct worker *w)
{
	flow_ref due[DUE_BUDGET];
	uint32_t n = wheel_advance(&w->wheel, &w->flows, w->run_ms, DUE_BUDGET, due);

	if (n)
		pipeline_stamp(w, &w->burst);
	for (uint32_t i = 0; i < n; i++) {
		if (!is_over(w, due[i])) {
			wheel_add(&w->wheel, &w->flows, due[i], w->run_ms);
			continue;
		}
		flow_end(w, due[i], false);
		w->expired++;
	}
}
