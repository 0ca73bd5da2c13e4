/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nftables guard: one table ("inet spillway") that drops, in prerouting and in input and silently, what is for a
 * listener or a SNAT address, so that the kernel never answers behind the gateway's back. It outlives a crash (that is
 * its purpose) and is removed by a clean stop.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guard_listener {
	struct ipaddr addr;
	uint16_t port_be;
	uint8_t proto;
};

/*
 * Installs or replaces the table in one transaction. `listeners_pass`: listeners are left to the kernel when the
 * gateway is dead (on_death: pass); SNAT addresses are always guarded. Returns 0 or -errno with a sentence in `err`.
 */
int guard_install(const struct guard_listener *listeners, size_t n_listeners, const struct ipaddr *snat, size_t n_snat,
		  bool listeners_pass, char *err, size_t err_len);
/* True if there is a table of that name: a gateway that died left it, or one runs. */
bool guard_installed(void);
/* No error if it is not there. */
int guard_remove(void);
