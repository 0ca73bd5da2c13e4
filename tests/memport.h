/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A port in memory, for tests and benches: what is fed is received in the same order, what is sent can be taken. It
 * owns no packet but those that wait in it, costs a few cycles per packet, and never meets a kernel.
 */
#pragma once

#include "port.h"

#include <stdint.h>

/* Frames that may wait per queue and direction. */
#define MEMPORT_ROOM 1024

/* Makes a port and adds it to the dataplane, link up, MTU 1500. NULL with errno set; the dataplane closes it. */
struct port *memport_add(struct dataplane *dp, const char *name, const uint8_t mac[static 6]);

/* Frames for the next rx; the accepted ones belong to the port. */
uint16_t memport_feed(struct port *port, unsigned queue, enum rx_class class, struct rte_mbuf *const *m, uint16_t n);
/* As if the device had had no room for `n` frames in the ring of their class, */
void memport_lose(struct port *port, unsigned queue, enum rx_class class, unsigned n);
/* or no buffers. */
void memport_lose_buffers(struct port *port, unsigned queue, unsigned n);
/* Frames that were sent; they are the caller's now. */
uint16_t memport_take(struct port *port, unsigned queue, struct rte_mbuf **m, uint16_t n);
