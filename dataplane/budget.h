/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The retry budget of a service, one word: tokens, and when they were counted. Each first attempt that is admitted
 * earns a share of a token; five more come each second; a retry spends one. There is a cap, which is the caller's.
 * Testing and spending are apart, so that who is refused leaves the word as it was; between one worker's test and its
 * spending others may spend, so that the overshoot is at most one per worker.
 *
 * Zero: empty, counted long ago.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_TOKEN   1000000u /* the word counts by such parts */
#define BUDGET_FLOOR   5        /* tokens a second, whatever else */
#define BUDGET_CAP_MIN 10
#define BUDGET_CAP_MAX 1000000

/* As many tokens as the cap allows for. */
uint64_t budget_full(uint32_t cap, uint64_t now_ns);
/* Without side effects. */
uint64_t budget_parts(uint64_t word, uint32_t cap, uint64_t now_ns);
bool budget_has(const uint64_t *word, uint32_t cap, uint64_t now_ns);
/* `parts`: at most BUDGET_CAP_MAX tokens. */
void budget_earn(uint64_t *word, uint32_t cap, uint64_t parts, uint64_t now_ns);
/* False: there was none, and nothing changed. */
bool budget_spend(uint64_t *word, uint32_t cap, uint64_t now_ns);
