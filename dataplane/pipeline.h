/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One packet's way, in order. Each stage works on the whole burst; the first refusal ends a packet; the last stage,
 * out, answers, frees and counts.
 */
#pragma once

#include "core.h"

/*
 * Runs w->burst, whose n, class and taken_over are set and whose items have their mbufs. Takes all of them: each one
 * has left, waits in a transmit buffer, was given to another worker, or is freed.
 */
void pipeline_run(struct worker *w);

/* The end of that way alone: of items that are admitted, or have their verdict, in a burst that is stamped. */
void pipeline_finish(struct worker *w);

/* One policy per burst: whatever is published meanwhile, its packets see one and the same. */
void pipeline_stamp(struct worker *w, struct burst *b);
