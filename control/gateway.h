/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Decide: the one thread that changes anything. Starts the parts in their order, then follows DNS, the kernel, timers
 * and commands on one event loop, and publishes.
 */
#pragma once

#include "config.h"

struct gateway;

/*
 * Starts everything up to serving. Says what is wrong on stderr. Takes `config`, and borrows the path for reloads.
 * NULL: not started, and nothing left behind but a guard that was there before.
 */
struct gateway *gateway_start(struct config *config, const char *config_path);
/* Runs until SIGTERM or SIGINT; SIGHUP reloads. */
void gateway_run(struct gateway *gw);
/* A clean stop: nothing is left behind. */
void gateway_stop(struct gateway *gw);
