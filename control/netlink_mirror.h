/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the kernel mirror, for netlink*.c and its test: one table per kind of object, each beside the functions
 * that keep it. The kernel's messages go into the tables; what the dataplane was told is remembered there too, so that
 * only differences reach it, however often the kernel is asked for everything again.
 *
 * Mark and sweep: a dump has a generation; what it shows carries it, what does not carry it at the end is gone.
 */
#pragma once

#include "clock.h"
#include "dataplane.h"
#include "netlink.h"

#include <event2/event.h>
#include <libmnl/libmnl.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

/* What a dump asks for, in the order in which one kind needs the others. */
enum dump {
	DUMP_LINKS,
	DUMP_ADDRESSES_V4,
	DUMP_ADDRESSES_V6,
	DUMP_NEXTHOPS,
	DUMP_ROUTES_V4,
	DUMP_ROUTES_V6,
	DUMP_NEIGHBOURS,
	N_DUMPS,
	DUMP_NONE = -1,
};
#define NEED(dump)            (1u << (dump))
#define NEED_ALL              (NEED(N_DUMPS) - 1)
#define NEED_ROUTES           (NEED(DUMP_NEXTHOPS) | NEED(DUMP_ROUTES_V4) | NEED(DUMP_ROUTES_V6))

/* Bounds of the mirror itself. Beyond them: not mirrored, counted in `refused`. */
#define MIRROR_MAX_ROUTES     (1u << 20)
#define MIRROR_MAX_NEXTHOPS   (1u << 16)
#define MIRROR_MAX_NEIGHBOURS (1u << 16)
#define MIRROR_MAX_ADDRESSES  (1u << 16)
#define MIRROR_MAX_LINKS      (1u << 16)
#define MIRROR_MAX_WANTED     (1u << 14)

/* One callback of the event loop takes no longer than this. */
#define MIRROR_SLICE_NS       5000000ull

#define ROUTE_BATCH           1024
#define N_PREFIX_BUCKETS      (1u << 16)
#define N_NEXTHOP_BUCKETS     (1u << 12)
#define N_NEIGHBOUR_BUCKETS   (1u << 12)

/* --- links and addresses (netlink_link.c) --- */

struct mirror_port {
	int port;
	char device[IFNAMSIZ];
	uint32_t opened;  /* ifindex of the netdev that it was opened on; 0: whichever has the name will do */
	uint32_t ifindex; /* 0: there is no such netdev now */
	bool lost;        /* `opened` was deleted */
	bool replaced;    /* ... and another one has its name */
	bool up;
	uint32_t mtu;
	uint8_t mac[6];
};

struct link {
	uint32_t ifindex;
	uint32_t flags; /* IFF_UP, IFF_RUNNING and IFF_LOWER_UP */
	uint32_t generation;
};

struct address {
	struct ipaddr addr;
	uint32_t ifindex;
	uint32_t generation;
};

void links_on_message(struct netlink *nl, const struct nlmsghdr *nlh);
void links_sweep(struct netlink *nl);
void addresses_on_message(struct netlink *nl, const struct nlmsghdr *nlh);
void addresses_sweep(struct netlink *nl, bool v4);
/* NULL if no port has that netdev now. */
struct mirror_port *port_of_ifindex(struct netlink *nl, uint32_t ifindex);

/* --- nexthop objects (netlink_nexthop.c) --- */

/* One way out of a route. ifindex 0: a way that the gateway cannot take, as through a tunnel header. */
struct hop {
	struct ipaddr gateway;
	uint32_t ifindex;
	uint16_t weight;
	bool has_gateway;
	bool dead; /* the kernel does not use it now */
};

struct nexthop_member {
	uint32_t id;
	uint16_t weight;
};

struct nexthop {
	struct nexthop *next;
	uint32_t id;
	uint32_t generation;
	bool known; /* false: a route names it, the kernel did not show it yet */
	bool blackhole;
	struct hop hop; /* if it is no group */
	unsigned n_members;
	struct nexthop_member *members;
	struct route *routes; /* that use this object itself, not through a group */
};

void nexthops_on_message(struct netlink *nl, const struct nlmsghdr *nlh);
void nexthops_sweep(struct netlink *nl);
void nexthops_free(struct netlink *nl);
/* The route joins its object's list or leaves it, by its nh_id. Returns 0 or -ENOMEM. */
int nexthop_attach(struct netlink *nl, struct route *r);
void nexthop_detach(struct netlink *nl, struct route *r);
/* Writes the object's living hops, at most `max`, and returns how many. */
unsigned nexthop_resolve(struct netlink *nl, uint32_t id, struct hop *out, unsigned max, bool *blackhole);

/* --- routes (netlink_route.c) --- */

/* One route of the kernel's main table: a candidate of its prefix. */
struct route {
	struct route *next; /* of the same prefix, in the kernel's order of preference */
	struct prefix *prefix;
	struct route *nh_next, **nh_pprev; /* in nexthop.routes if nh_id */
	uint64_t rest;                     /* hash of all else that makes two IPv4 routes different ones */
	uint32_t priority;
	uint32_t mtu;
	uint32_t nh_id; /* 0: the hops are here */
	uint32_t generation;
	uint8_t type; /* RTN_ */
	uint16_t n_hops;
	struct hop hops[];
};

#define ROUTE_MAX_HOPS 64 /* of a message that we remember; the dataplane takes fewer */

/* What a message says of a route. */
struct route_message {
	struct ipaddr prefix;
	uint64_t rest;
	uint32_t priority, mtu, nh_id;
	uint8_t prefix_len;
	uint8_t type;
	bool v4;
	uint16_t n_hops;
	struct hop hops[ROUTE_MAX_HOPS];
};

struct prefix {
	struct prefix *next;
	struct prefix *dirty_next;
	struct ipaddr addr;
	struct route *routes;
	uint64_t installed; /* fingerprint of what the dataplane was told last; 0: nothing */
	uint8_t len;
	bool dirty;
};

struct route_table {
	struct prefix *buckets[N_PREFIX_BUCKETS];
	struct prefix *dirty_head, **dirty_tail;
	uint32_t n_dirty;
	uint32_t n_routes;
	uint32_t n_of_len[2][129]; /* prefixes by family (1: IPv4) and length */
	bool lacking;              /* the dataplane refused some */
	bool removed;              /* ... and has had room since */
	struct route_change batch[ROUTE_BATCH];
};

/* False: a route that is not mirrored. */
bool route_read(const struct nlmsghdr *nlh, struct route_message *m);
/* Equal but for `dead`. */
bool hop_same(const struct hop *a, const struct hop *b);
void routes_init(struct netlink *nl);
void routes_free(struct netlink *nl);
void routes_on_message(struct netlink *nl, const struct nlmsghdr *nlh, bool dumped);
/* Removes unmarked routes from bucket *at on. Returns true when through, false when the time is over. */
bool routes_sweep(struct netlink *nl, bool v4, uint32_t *at, uint64_t deadline_ns);
/* Takes up to a batch of changed prefixes to the dataplane. */
void routes_flush(struct netlink *nl);
/* All prefixes are looked at again; `forget`: and told to the dataplane again. */
void routes_touch_all(struct netlink *nl, bool forget);
void route_touch(struct netlink *nl, struct route *r);
void route_remove(struct netlink *nl, struct route *r);
/* What the dataplane should do with packets to `addr`. False: there is no route. */
bool routes_lookup(struct netlink *nl, const struct ipaddr *addr, struct route_change *out);

/* --- neighbours (netlink_neigh.c) --- */

struct neighbour {
	struct neighbour *next;
	struct ipaddr addr;
	uint32_t ifindex;
	uint32_t generation;
	uint16_t nud;
	bool managed; /* the kernel keeps it resolved */
	bool has_mac;
	uint8_t mac[6];
	enum neighbour_state told; /* NEIGHBOUR_GONE: the dataplane does not know it */
	uint8_t told_mac[6];
};

/* A next hop that is to be kept resolved. */
struct wanted {
	struct ipaddr addr;
	uint32_t ifindex;
	uint64_t asked_ns; /* 0: not yet */
};

void neighbours_on_message(struct netlink *nl, const struct nlmsghdr *nlh);
void neighbours_sweep(struct netlink *nl);
void neighbours_forget_port(struct netlink *nl, const struct mirror_port *port);
void neighbours_free(struct netlink *nl);
/* Finds the next hops of the addresses again, after routes have changed. Returns 0, or -errno if not all are kept. */
int wanted_update(struct netlink *nl);
/* Asks the kernel for what it does not manage (any more). Once a second. */
void wanted_tick(struct netlink *nl);
/* The kernel need not care for them any longer. */
void wanted_release(struct netlink *nl);

/* --- the whole (netlink.c) --- */

struct netlink {
	struct event_base *base;
	struct dataplane *dp;
	netlink_link_fn *link_changed;
	void *arg;

	struct mnl_socket *events;   /* subscribed */
	struct mnl_socket *dumps;    /* one dump at a time */
	struct mnl_socket *commands; /* what we ask of neighbours */
	struct event *on_events, *on_dumps, *on_step, *on_flush, *on_keep, *on_tick;
	uint32_t seq, command_seq;

	unsigned need;  /* NEED bits: dumps to come */
	unsigned again; /* NEED bits: dumps of now that proved nothing */
	enum dump dumping;
	bool asked;        /* a dump's answer is coming; else it is being swept */
	bool interrupted;  /* things changed meanwhile, so that absence proves nothing */
	bool full;         /* the dumps of now are all of them */
	bool lost;         /* events were lost: the queue must be seen empty before the next dump */
	bool drained;      /* ... and was */
	int failure;       /* of the running dump */
	int error;         /* of the last one that failed */
	uint32_t sweep_at; /* bucket */
	uint32_t generation;
	uint64_t seed; /* of the hash tables */
	uint64_t started_ns, next_dump_ns;
	uint64_t retell_ns; /* not before that, all routes for a dataplane that refused some */

	struct mirror_port ports[DATAPLANE_MAX_PORTS];
	size_t n_ports;
	struct link *links;
	size_t n_links, links_cap;
	struct address *addresses;
	size_t n_addresses, addresses_cap;
	struct nexthop *nexthops[N_NEXTHOP_BUCKETS];
	uint32_t n_nexthops;
	struct route_table routes;
	struct neighbour *neighbours[N_NEIGHBOUR_BUCKETS];
	uint32_t n_neighbours;

	struct ipaddr *keep; /* what netlink_keep_resolved() was given: sorted, each once */
	size_t n_keep;
	struct wanted *wanted; /* sorted by (ifindex, addr) */
	size_t n_wanted;
	bool keep_stale; /* routes changed since wanted_update() */

	struct netlink_report report;
	uint8_t buffer[32768]; /* the longest message that the kernel makes */
};

/* Hands a message to the table that it concerns. `dumped`: it is of a dump, else an event. */
void mirror_take(struct netlink *nl, const struct nlmsghdr *nlh, bool dumped);
/* Begins the dumps in `need`; they are over when `dumping` is DUMP_NONE. */
void dumps_start(struct netlink *nl);
/* One slice of their work. */
void dump_step(struct netlink *nl);
/* Routes are half known: a dump of them is running. */
bool dumps_routes(const struct netlink *nl);

/* Returns the length, 0 if it was not the kernel that sent, or -errno. */
ssize_t mirror_receive(const struct mnl_socket *s, void *buf, size_t size);
/* Attributes of a message by type, NULL where absent; `max` is the highest of interest. */
void attributes(const struct nlmsghdr *nlh, size_t header_len, const struct nlattr **tb, uint16_t max);
void attributes_of(const void *payload, size_t len, const struct nlattr **tb, uint16_t max);
/* 4 or 16 bytes make an address. False if the attribute is absent or something else. */
bool attribute_address(const struct nlattr *attr, struct ipaddr *out);
/* One request to the kernel and its answer. Returns 0 or -errno. */
int mirror_command(struct netlink *nl, struct nlmsghdr *nlh);
