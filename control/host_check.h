/* SPDX-License-Identifier: BSD-3-Clause */
/* What of a configuration this host cannot do, told by looking at the host: before a start, and by --check. */
#pragma once

#include "config.h"

#include <stddef.h>

/*
 * Refuses a SNAT address that the host itself must send from, because its link has no other: answers to the host would
 * go to the gateway. Returns 0, or -errno with a sentence in `err`: -EADDRINUSE if there is such an address, else the
 * kernel could not be asked.
 */
int host_check_snat(const struct config *config, char *err, size_t err_len);
