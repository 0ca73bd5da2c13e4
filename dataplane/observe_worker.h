/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of observe.h. */
#pragma once

#include "core.h"

/* Answers a waiting flow query: at most FLOW_QUERY_ROWS rows, and a bounded number of entries looked at. */
void observe_serve_command(struct worker *w);

/* True: one waits. */
bool observe_command_waits(struct worker *w);

/* Copies `bytes` (a multiple of 8) with relaxed stores / loads of words. */
void observe_store_words(void *to, const void *from, size_t bytes);
void observe_load_words(void *to, const void *from, size_t bytes);
