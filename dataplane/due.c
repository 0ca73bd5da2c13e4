/* SPDX-License-Identifier: BSD-3-Clause */
#include "due.h"
#include "outcome_worker.h"
#include "pipeline.h"
#include "place.h"
#include "signals.h"
#include "silence.h"
#include "wall.h"

#define DUE_BUDGET 64 /* flows that the wheel looks at per loop */

static void end_unanswered(struct worker *w, flow_ref up)
{
	count_add(&w->backends[flow_track(&w->flows, up)->backend_slot].failures, 1);
	signals_decide(w, up, SIGNAL_FAILED);
	outcome_flow(w, up, OUTCOME_ATTEMPT(ATTEMPT_unanswered));
}

/* No failure of the backend's: it answered. */
static void end_unfinished(struct worker *w, flow_ref up)
{
	count_add(&w->backends[flow_track(&w->flows, up)->backend_slot].unfinished, 1);
	outcome_flow(w, up, OUTCOME_ATTEMPT(ATTEMPT_unfinished));
}

/* The flow is off the wheel. True: it is over. False: it lives on, with a timeout that lies ahead. */
static bool is_over(struct worker *w, flow_ref up)
{
	switch ((enum flow_state)flow_half(&w->flows, up)->state) {
	case FLOW_SYN_SENT:
		if (wall_due(w, up))
			return false;
		end_unanswered(w, up);
		return true;
	case FLOW_SYN_RECV:
		end_unfinished(w, up);
		return true;
	case FLOW_UDP_UNREPLIED:
		/* Some were. */
		if (!flow_half(&w->flows, up | DIR_DOWN)->end)
			end_unanswered(w, up);
		return true;
	case FLOW_ESTABLISHED:
	case FLOW_FIN_WAIT:
		return silence_is_over(w, up);
	case FLOW_RESETTING:
		return silence_is_told(w, up);
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
