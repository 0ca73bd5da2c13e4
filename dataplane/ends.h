/* SPDX-License-Identifier: BSD-3-Clause */
/* Telling both ends of a TCP flow that it is over, in the name of the other one. */
#pragma once

#include "core.h"

/*
 * One RST to either end, counted as made. Each carries the number that its receiver expects, so that it is taken at
 * once (RFC 5961 3.2); where that cannot be known, as data is under way, the receiver asks back, and the answer to its
 * challenge is exact: see ends_end(). The burst must have been stamped; the flow stays as it is. Returns a bit per
 * direction whose receiver there was no way to.
 */
unsigned ends_tell(struct worker *w, flow_ref up, enum made kind);

/*
 * The same, and the flow is over: as soon as there is a way, where there was none; and where data was under way, after
 * five seconds, in which an end that asks back is answered.
 */
void ends_end(struct worker *w, flow_ref up, enum made kind);

/* Nothing that either end sent waits for its acknowledgement: nobody is in the middle of anything. True for UDP. */
bool ends_are_idle(const struct worker *w, flow_ref up);
