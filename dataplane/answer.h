/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Answers: a packet that ends here becomes its own answer, in its own buffer, within the limits on what the gateway
 * says.
 */
#pragma once

#include "core.h"

/*
 * For an item whose verdict is of CLASS_ANSWERED: builds the answer and routes it. If a limit forbids it or there is no
 * way back, the verdict becomes the one that says so.
 */
void answer(struct worker *w, const struct burst *b, struct item *it);
