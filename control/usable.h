/* SPDX-License-Identifier: BSD-3-Clause */
/* Which addresses a backend can have: those of hosts, and not the gateway's own, which would be a loop. */
#pragma once

#include "config.h"

struct usable;

/* NULL: out of memory. Keeps nothing of `config`. */
struct usable *usable_create(const struct config *config);
void usable_destroy(struct usable *u);
bool usable_has(const struct usable *u, const struct ipaddr *addr);
