/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of backends' limits share: what is limited, who asks, and who goes. */
#pragma once

#include "talk.h"

#define MS      1000000ull
#define SECOND  (1000 * MS)
#define HOLD_MS 400
#define CLIENTS 64

/* `n_holds`: 0, or what the pool has. */
void begin_limits(unsigned workers, unsigned n_backends, uint32_t n_holds);
/* Each backend has at most that under way, as decide would say; LIMIT_SOFT: nothing is congested. 0: as much as comes.
 */
void limit_all(uint32_t limit, uint32_t pace);
/* That client's SYN. */
void ask(bool v6, unsigned client);
/* That client's SYN left; what it has from then on. */
struct talk went(bool v6, unsigned client);
