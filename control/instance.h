/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One gateway per network namespace: a second one would replace the first one's nftables guard, and remove it when it
 * stops. The claim is a socket with an abstract name, which goes with the process and leaves no file.
 */
#pragma once

#include <stddef.h>

/* A descriptor to keep open, or -errno with a sentence in `err` (-EBUSY: another gateway, by its process id). */
int instance_claim(char *err, size_t err_len);
