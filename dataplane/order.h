/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of orders (dataplane.h): by value, in a ring of its own. */
#pragma once

#include "core.h"

/* The next one; false: none. order_done() is due for each when nothing of it is left to do. */
bool order_take(struct worker *w, struct order *order);
void order_done(struct worker *w);
/* True if one waits. */
bool order_pending(const struct worker *w);
