/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker's life: loop, sleep, wake. worker_run_once() is the loop's body without threads, RCU or sleep: tests and the
 * bench drive it themselves.
 */
#pragma once

#include "core.h"

/* NULL with errno set. */
struct worker *worker_create(struct dataplane *dp, unsigned index);
void worker_destroy(struct worker *w);

/* One turn: receive, process, advance timers, transmit, publish counters. Returns 0 if there was nothing to do. */
unsigned worker_run_once(struct worker *w);

/* Starts / ends the thread. */
int worker_start(struct worker *w);
void worker_stop(struct worker *w);

/* Copies the ledger and report to where others read them. */
void worker_publish(struct worker *w);

uint64_t worker_bytes(const struct dataplane_config *config);
