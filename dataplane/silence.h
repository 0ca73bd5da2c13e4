/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cure for connections that a box on the way forgot (RFC 1122 4.2.3.6, RFC 9293 3.8.4). One that idles is asked on
 * both sides whether it is still there: whatever stands between hears of it before it forgets it. Both answer, and the
 * connection lives on however long it idles. One does not, three times: then its peer hears a RST instead of nothing.
 *
 * A connection ends as FLOW_RESETTING: for a while what either end still sends is answered with the RST that it will
 * take (RFC 5961 3.2: a RST that does not fit exactly makes it ask back).
 */
#pragma once

#include "core.h"

#define PROBES         3     /* of one side; flow_half.probes counts them in two bits */
#define PROBE_EVERY_MS 10000 /* Linux answers one of them in 500 ms */

/* Returns 0 or -EINVAL. */
int silence_init(struct silence_pace *s, unsigned n_workers);

/* For how long a flow that enters `state` may idle until it is looked at; `plain_ms`: without this cure. */
uint32_t silence_timeout_ms(const struct worker *w, flow_ref ref, enum flow_state state,
			    const struct policy_timeouts *timeouts, uint32_t plain_ms);

/*
 * A flow in FLOW_ESTABLISHED or FLOW_FIN_WAIT is due, and off the wheel. True: it is over, and who had to hear of it
 * did. False: it lives on, with a deadline that lies ahead (or is behind only until the next tick).
 */
bool silence_is_over(struct worker *w, flow_ref up);

/*
 * The same for one in FLOW_RESETTING. An end that there was no way to is told each second, for ten, once there is one
 * (RST with the number that it expects): after a long idle time its neighbour may have to be resolved first.
 */
bool silence_is_told(struct worker *w, flow_ref up);

/*
 * A flow that is on the wheel, in any state, was ended, and nobody told the receivers of the directions in `untold`, a
 * bit each: it lives on in FLOW_RESETTING until they are.
 */
void silence_tell_later(struct worker *w, flow_ref up, unsigned untold);

/* For how long neither end has said anything but that it is still there. */
uint32_t silence_quiet_ms(const struct worker *w, flow_ref up);

/*
 * A packet, within the window, of a side that has probes to answer. VERDICT_NONE, or that it ends here: then it is
 * nothing but the answer, and says nothing to the other side.
 */
enum verdict silence_hear(struct worker *w, const struct item *it);
/* A packet, no RST, of a flow in FLOW_RESETTING: its verdict. */
enum verdict silence_tell_again(struct worker *w, const struct item *it);

/*
 * The backend spoke on a connection that did not idle: where another one of that time lost it, the path did that, and
 * not its end.
 */
void silence_backend_lives(struct worker *w, uint32_t backend_slot);
