/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Early shedding: what the gates discard before it costs a worker anything, and for how long. Only SYNs that workers
 * would refuse in silence all the same:
 *
 *   - of a client that insists beyond a cap of its own or its prefix's (insist.h): for as long as its worker says, a
 *     second at most. In that time its bucket fills no further than it may: what the cap gives, the client gets.
 *   - of everybody, where so many come that all but a few are in vain: more than SHARE_MIN_PER_S, and more than
 *     SHARE_TIMES as many as are admitted, and half of them refused in silence by the service's cap or its backends'
 *     limits. Then a share is let through: so many as those two say, whoever they are from. That is blind, unlike the
 *     workers' order of shedding; so workers get ten times what they can let in to choose from.
 *
 * A SYN is discarded whether its flow exists or not: one that is sent again within that second comes to its worker only
 * with the next repeat. Whoever forges a client's address can so keep it out no better than by using up its cap.
 *
 * Decide's alone, but for what serve may read. Times are the dataplane's clock; `clock_ns` is CLOCK_MONOTONIC, the
 * gates', at `now_ns`.
 */
#pragma once

#include "cure.h"
#include "policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dataplane;
struct events;
struct note;
struct services;
struct shed;
struct shedding;
struct view;

#define SHEDDING_TICK_NS   100000000ull
#define SHEDDING_CLIENTS   16384
#define SHEDDING_LISTENERS 1024            /* that share at once */
#define SHEDDING_KEPT_NS   600000000000ull /* so long it is remembered of a client */
#define SHARE_MIN_PER_S    20000
#define SHARE_TIMES        10
#define SHARE_NS           300000000ull /* without another tick it is over */

struct shedding_config {
	struct shed *shed;    /* NULL: no port has a gate, and nothing is shed */
	uint32_t max_clients; /* as the gates' */
	uint32_t n_service_slots;
};

/* Of memory for so many clients. */
uint64_t shedding_bytes(uint32_t max_clients);
/* NULL with errno set. */
struct shedding *shedding_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct shedding_config *config);
void shedding_destroy(struct shedding *s);

/* A worker's NOTE_INSISTS; `mode`: of the cure storm. */
void shedding_note(struct shedding *s, const struct note *note, enum cure_mode mode, uint64_t now_ns,
		   uint64_t clock_ns);
/* Once per SHEDDING_TICK_NS. */
void shedding_tick(struct shedding *s, enum cure_mode mode, uint64_t now_ns, uint64_t clock_ns);
/* Nothing is shed any more, from now on: what it went by has changed. */
void shedding_end_all(struct shedding *s, uint64_t now_ns, uint64_t clock_ns);

/* Fills what a view's services say of it. */
void shedding_view(const struct shedding *s, struct view *view);

/* --- any thread --- */

/* What is remembered of a client at a listener. */
struct shedding_row {
	struct ipaddr client; /* IPv6: one of its /64 */
	struct ipaddr vip;
	struct slot_ref service;
	uint64_t first_ns, until_ns;
	uint64_t packets; /* discarded */
	uint32_t times;   /* it was entered */
	uint16_t port_be;
	uint8_t cap; /* STORM_CLIENT or STORM_PREFIX */
};

/* How many there are of the client; fills at most `max`. NULL for `s` is fine: none. */
size_t shedding_of_client(const struct shedding *s, const struct ipaddr *client, struct shedding_row *rows, size_t max);

/* What was discarded of the client at all listeners that are remembered of it. */
uint64_t shedding_packets_of_client(const struct shedding *s, const struct ipaddr *client);

struct shedding_report {
	uint64_t clients; /* that are remembered */
	uint64_t now;     /* of those: shed */
	uint64_t full;    /* times that there was no room for one */
};
void shedding_report(const struct shedding *s, struct shedding_report *out);
