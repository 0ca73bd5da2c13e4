/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SYNs of the gateway's own. The kernel of a backend that is there again answers one; the RST that it gets for that
 * comes before any accept(), so that no application sees a probe, and no client's flow has to be the first to try.
 */
#pragma once

#include "core.h"

/* As decide ordered; in shadow only counted. */
void probe_run(struct worker *w, const struct order *order);
