/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * When retries need tokens, and how many a service may have saved: decide's side of retry.h. A service's budget is
 * enforced while one of its backends is congested, or has a breaker that is not closed and with the wall enforced; it
 * holds what the first attempts of the last ten seconds earned, and no less than ten tokens.
 */
#pragma once

#include "cure.h"

#include <stdint.h>

struct budgets;
struct dataplane;
struct services;

/* NULL: out of memory. */
struct budgets *budgets_create(struct dataplane *dp, const struct services *services, uint32_t n_service_slots);
void budgets_destroy(struct budgets *budgets);

/* Ten times a second, after the limiters. `now_ns`: the dataplane's clock. */
void budgets_tick(struct budgets *budgets, const struct cure_modes *modes, uint64_t now_ns);
