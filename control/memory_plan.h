/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The memory plan: what a configuration will take, printed at start and by --check, and refused if it exceeds
 * gateway.memory.
 */
#pragma once

#include "config.h"

#include <stddef.h>

struct _IO_FILE;

/*
 * Queues that a port will have: as configured, else all that the netdev has, or, of a DPDK device, which makes as many
 * as are asked for, one per worker. -errno with a sentence in `err`: -E2BIG if the netdev has more than any port can;
 * anything else: it is not here.
 */
int memory_plan_queues(const struct config_port *port, unsigned n_workers, char *err, size_t err_len);
/* The longest frame that the ports need: the largest MTU of their devices, with Ethernet header and one tag. */
uint32_t memory_plan_max_frame(const struct config *config);
/*
 * Prints the plan to `out`; -ENOMEM, after a line that says so, if it is more than config->memory_bytes. SNAT has room
 * for fewer pairs if that makes it fit; if it has fewer then than the configuration can use, a line says so.
 */
int memory_plan_check(const struct config *config, struct dataplane_config *dataplane, unsigned n_queues,
		      struct _IO_FILE *out);
/* Starts DPDK with the memory of the plan: on hugepages if enough are free, else on plain pages. 0 or -errno. */
int memory_plan_start(const struct dataplane_config *dataplane, unsigned n_queues);
