/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What becomes of new flows, and of those that are not yet or no longer connections, while a worker's flow table fills
 * up. Families have pools of their own, and so has each worker: each is pressed by itself, by how much of it is in use.
 *
 *   from    until    then
 *   90 %    88 %     SYN_SENT, SYN_RECV, TIME_WAIT and CLOSED are short
 *   95 %    93 %     and new flows are only for clients that had a success in the last minute, a connection of TCP or,
 *                    for those of UDP, an answer; with evict_idle, connections that have idled for ten minutes end,
 *                    with RST to both sides
 *   100 %   98 %     (there is no room for anyone)
 *
 * No connection ends for want of room otherwise. Packets of flows never come here.
 */
#pragma once

#include "core.h"

int pressure_init(struct pressure *p, const struct flow_table *t, unsigned n_workers);

/* Before anything is taken for a flow of the client: whether it may have an entry. */
enum pressure_answer {
	PRESSURE_ROOM,
	PRESSURE_STRANGER, /* only for clients that are known to succeed */
	PRESSURE_NO_ROOM,
};
enum pressure_answer pressure_ask(struct worker *w, bool v6, bool udp, const struct ipaddr *client);

/* Short states are short. */
static inline bool pressure_is_felt(const struct worker *w, bool v6)
{
	return w->pressure.pools[v6].level != PRESSURE_NONE;
}

/* The timeout of that state: `plain_ms`, or less. */
uint32_t pressure_timeout_ms(const struct worker *w, bool v6, enum flow_state state, uint32_t plain_ms);

/* Once per loop. Returns 0 if there is nothing left to do at once. */
unsigned pressure_run(struct worker *w);

/* How long a worker may sleep, `max_ms` at the most. */
unsigned pressure_nap_ms(const struct worker *w, unsigned max_ms);
