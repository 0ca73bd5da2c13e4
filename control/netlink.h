/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Linux owns addresses, neighbours and routes; this mirrors them into the dataplane (libmnl). Runs in the decide thread
 * on its libevent base, in the network namespace of the thread that created it.
 *
 * Mirrored are the main tables of IPv4 and IPv6. Of the routes to a prefix the dataplane gets the one that the kernel
 * would use: lowest metric, not dead. Next hop objects are resolved; a leg that leaves through no port is left out
 * while another leaves through one. Policy rules, other tables, and routes for one TOS or one source prefix are not
 * mirrored.
 *
 * Only differences reach the dataplane, also when the kernel is asked for everything again: because events were lost,
 * or because it changes routes without a message (IPv4 routes of a link that goes down or of a removed source address).
 * Route changes are gathered for 20 ms or to 1024; neighbours and links are told at once. A port that was opened on a
 * netdev stays down once that was deleted, also if another one is made under its name: its sockets died with it.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dataplane;
struct event_base;
struct netlink;

struct netlink_port {
	int port;           /* index in the dataplane */
	const char *device; /* netdev */
	uint32_t ifindex;   /* of the netdev that it was opened on; 0: none yet, whichever has the name will do */
};

struct netlink_report {
	uint64_t routes_v4, routes_v6; /* prefixes that the dataplane was told */
	uint64_t neighbours;           /* of the ports, resolved or not */
	uint64_t changes, resyncs;     /* changes: told the dataplane; resyncs: ENOBUFS, everything dumped again */
	uint64_t refused;              /* times that one did not fit the dataplane's tables, or the mirror's */
	uint64_t last_sync_ns;         /* how long the last full dump took */
};

/* What a port's netdev is now. */
struct netlink_link {
	bool present; /* there is one of its name */
	bool lost;    /* the one that the port was opened on is gone for good; one that is present is another */
	bool up;
	uint32_t mtu;
	uint8_t mac[6]; /* all zero: it has none, or none of 6 bytes */
};

/* Something of it changed. May be NULL. Also called for each port that is there while netlink_create() runs. */
typedef void netlink_link_fn(void *arg, int port, const struct netlink_link *link);

/*
 * Subscribes, dumps everything once (blocking, so that it is complete on return) and follows from then on. A port whose
 * netdev does not exist yet is bound when it appears. NULL with errno set.
 */
struct netlink *netlink_create(struct event_base *base, struct dataplane *dp, const struct netlink_port *ports,
			       size_t n_ports, netlink_link_fn *link_changed, void *arg);
void netlink_destroy(struct netlink *nl);

/*
 * Next hops in use are kept resolved by the kernel (NTF_EXT_MANAGED; where it is not known, NTF_USE every 10 s): the
 * gateways of the routes to these addresses, or the addresses themselves if on link; found again whenever routes
 * change. Replaces the set of before; an address may be there more than once. What the operator made permanent is left
 * alone. Returns 0, or -E2BIG or -ENOMEM: not all of them are kept resolved, the others are when a packet needs them.
 */
int netlink_keep_resolved(struct netlink *nl, const struct ipaddr *addrs, size_t n);
/* Asks the kernel once to resolve (port, addr). */
void netlink_resolve(struct netlink *nl, int port, const struct ipaddr *addr);

void netlink_report(const struct netlink *nl, struct netlink_report *out);

/*
 * The host's addresses alone, read once and not followed, for checks before there is a dataplane. Only
 * netlink_only_on() and netlink_destroy() take it. NULL with errno set.
 */
struct netlink *netlink_read_addresses(void);

/*
 * The ifindex of a link with the address set[i] and with none of its family that is not in `set`; 0: there is no such
 * link. Link-local addresses of IPv6 do not count.
 */
uint32_t netlink_only_on(const struct netlink *nl, const struct ipaddr *set, size_t n, size_t i);
