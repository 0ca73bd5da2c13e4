/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of dataplane_reap*(): a walk over its flow table that ends what is ordered to end. */
#pragma once

#include "core.h"

uint64_t reap_bytes(uint32_t n_backend_slots);
/* Returns 0 or -ENOMEM. */
int reap_init(struct reaper *r, uint32_t n_backend_slots);
void reap_fini(struct reaper *r);

/* A bounded step of the walk, if one is due. Returns 1 if it should go on at once, else 0. */
unsigned reap_run(struct worker *w);
/* For how long a worker without packets may sleep, at most `max_ms`. */
unsigned reap_nap_ms(const struct worker *w, unsigned max_ms);
/* True if orders changed since the last reap_run(). */
bool reap_is_told(const struct worker *w);

/* Decide: the slot, which is unused, gets another owner. */
void reap_forget(struct dataplane *dp, uint32_t slot);
