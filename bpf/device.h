/* SPDX-License-Identifier: BSD-3-Clause */
/* What the gate asks of a netdev before it attaches; gate_check_device and gate_device_queues live here too. */
#pragma once

#include <stddef.h>

/* Writes the sentence for a device that is not there; returns -ENODEV. */
int device_missing(const char *device, char *err, size_t err_len);
