/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Active checks, for services that ask for them (`check`): when which backend is checked. A TCP check is a SYN of the
 * gateway's own, sent and judged by a worker like a client's; an HTTP check is a GET through the kernel, judged here.
 *
 * The rule: packets open, checks may open too; a check alone never closes what packets opened.
 */
#pragma once

#include "cure.h"

#include <stdint.h>

struct breakers;
struct checks;
struct dataplane;
struct event_base;
struct services;

/* All are borrowed. `news`: a check came to something, breakers_run() is due. NULL with errno set. */
struct checks *checks_create(struct dataplane *dp, const struct services *services, struct breakers *breakers,
			     struct event_base *base, uint32_t n_backend_slots, void (*news)(void *arg), void *arg);
void checks_destroy(struct checks *c);

/* Begins what is due, in mode enforce; of cure wall. */
void checks_run(struct checks *c, enum cure_mode mode, uint64_t now_ns);
/* When checks_run() is due next; UINT64_MAX: not before the services change. */
uint64_t checks_due_ns(const struct checks *c);
