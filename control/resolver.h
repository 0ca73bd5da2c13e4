/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One question to the DNS servers, on a libevent loop: UDP with EDNS 1232, TCP when truncated, the next server when
 * one does not answer or cannot, the rest of a CNAME chain that a server left out. c-ares does the transport.
 */
#pragma once

#include "dnsreply.h"

struct event_base;
struct resolver;
struct resolver_query;

/* `reply` is valid during the call only. */
typedef void resolver_done_fn(void *arg, const struct dnsreply *reply);

/* `servers_csv` NULL: those of the system's resolver file. NULL with errno set; EINVAL: a bad list. */
struct resolver *resolver_create(struct event_base *base, const char *servers_csv, uint64_t timeout_ns);
/* Not from within `done`. Ends all queries without calling it. */
void resolver_destroy(struct resolver *resolver);

/*
 * Asks for the absolute name's addresses. `done` is called exactly once, from the loop, unless cancelled; after that
 * the query is gone. NULL with errno set.
 */
struct resolver_query *resolver_ask(struct resolver *resolver, const char *name, uint8_t family, resolver_done_fn *done,
				    void *arg);
void resolver_cancel(struct resolver_query *query);
