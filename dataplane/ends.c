/* SPDX-License-Identifier: BSD-3-Clause */
#include "ends.h"
#include "place.h"
#include "segment.h"
#include "silence.h"
#include "tcp.h"

#define UNDER_WAY_MS 1000 /* what was sent longer ago and not acknowledged was lost behind us */

static bool is_handshake(enum flow_state state)
{
	return state == FLOW_SYN_SENT || state == FLOW_SYN_RECV;
}

/*
 * What the receiver acknowledged last, unless something is on its way that will be there before the RST: then what
 * follows that.
 */
static uint32_t expected_seq(const struct worker *w, flow_ref ref)
{
	const struct flow_half *sender = flow_half(&w->flows, ref);

	if (is_handshake(sender->state))
		return sender->end;
	if ((uint32_t)w->run_ms - sender->last_ms < UNDER_WAY_MS)
		return tcp_end(w, ref);
	return flow_half(&w->flows, flow_ref_other(ref))->ack;
}

unsigned ends_tell(struct worker *w, flow_ref up, enum made kind)
{
	unsigned untold = 0;

	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		uint32_t ack = flow_half(&w->flows, up | !dir)->end;

		if (!segment_send(w, &w->burst, up | dir, expected_seq(w, up | dir), ack, TCP_RST | TCP_ACK, kind))
			untold |= 1 << dir;
	}
	return untold;
}

bool ends_are_idle(const struct worker *w, flow_ref up)
{
	const struct flow_half *client = flow_half(&w->flows, up);

	if (client->udp)
		return true;
	return !is_handshake(client->state) && !tcp_has_unacknowledged(w, up | DIR_UP) &&
	       !tcp_has_unacknowledged(w, up | DIR_DOWN);
}

/* Data is under way, and may get lost: who lacks it when the RST comes asks back. */
static bool may_ask_back(const struct worker *w, flow_ref up)
{
	return !is_handshake(flow_half(&w->flows, up)->state) && !ends_are_idle(w, up);
}

void ends_end(struct worker *w, flow_ref up, enum made kind)
{
	bool stays = may_ask_back(w, up);
	unsigned untold = ends_tell(w, up, kind);

	if (!untold && !stays) {
		flow_end(w, up, true);
		return;
	}
	silence_tell_later(w, up, untold);
	/* The RST that went is one of those that an end gets. */
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		flow_half(&w->flows, up | dir)->probes = !(untold >> !dir & 1);
}
