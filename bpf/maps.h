/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* Layouts shared by the XDP program and gate.c. */
#pragma once

#include <linux/types.h>

/*
 * Every way out of the program: X(name, help). Each frame takes exactly one of them, and is counted there. pass_*: to
 * the kernel; drop_*, shed_*: discarded; the others: to an AF_XDP socket. shed_*: in the order of enum spw_shed_cap.
 */
#define SPW_EXITS(X)                                                                                                   \
	X(pass_not_ip, "neither IPv4 nor IPv6 (ARP, LLDP, a second VLAN tag): to the kernel")                          \
	X(pass_malformed, "no sound IP header or no readable destination: to the kernel")                              \
	X(pass_not_ours, "for neither a VIP nor a SNAT address: to the kernel")                                        \
	X(pass_vlan, "for a VIP or a SNAT address, on a VLAN: to the kernel, whose devices of that VLAN no port is")   \
	X(pass_other_mac,                                                                                              \
	  "for a VIP or a SNAT address, in a frame to another host or to a group of hosts: to the kernel")             \
	X(pass_neighbour, "neighbour discovery for a VIP or a SNAT address: to the kernel, which answers it")          \
	X(pass_not_listener, "for a VIP, but for no listener on it: to the kernel")                                    \
	X(pass_unreadable, "for a VIP, but its headers cannot be followed as far as the ports: to the kernel")         \
	X(new, "SYN without ACK for a listener: to the socket of new connections")                                     \
	X(shed_client,                                                                                                 \
	  "SYN of a client beyond its own cap, whom a worker refused in silence again and again: discarded")           \
	X(shed_prefix,                                                                                                 \
	  "SYN of a client beyond its prefix's cap, whom a worker refused in silence again and again: discarded")      \
	X(shed_service, "SYN of the many beyond the service's cap, of which workers see a share: discarded")           \
	X(shed_limit, "SYN of the many beyond what its backends bear now, of which workers see a share: discarded")    \
	X(known, "for a listener, everything but a SYN without ACK: to the socket of known connections")               \
	X(icmp_error, "ICMP error about a packet that the gateway sent as a VIP: to the socket of known connections")  \
	X(echo, "echo request for a VIP: to the socket of known connections")                                          \
	X(fragment, "non-first fragment for a VIP: to the socket of known connections")                                \
	X(snat_syn, "SYN, alone or with ACK, for a SNAT address: to the socket of new connections")                    \
	X(snat, "for a SNAT address, everything else: to the socket of known connections")                             \
	X(drop_hung, "ours, but the queue's worker is hung or never ran: discarded")                                   \
	X(pass_hung, "ours, but the queue's worker is hung or never ran: to the kernel, as on_hang asks")              \
	X(drop_no_socket, "ours, but the queue has no socket: discarded")                                              \
	X(pass_no_socket, "ours, but the queue has no socket: to the kernel, as on_hang asks")                         \
	X(drop_unserved_queue, "ours, but on a receive queue that nobody serves: discarded")                           \
	X(pass_unserved_queue, "ours, but on a receive queue that nobody serves: to the kernel, as on_hang asks")

enum spw_exit {
#define X(name, help) SPW_EXIT_##name,
	SPW_EXITS(X)
#undef X
		SPW_EXIT_COUNT
};

/* Key of spw_addresses. IPv4 in its v4-mapped form, as in struct ipaddr. */
struct spw_address {
	__u32 w_be[4];
};

/* Value of spw_addresses: a set of these. */
enum spw_owner {
	SPW_OWNER_VIP = 1 << 0,
	SPW_OWNER_SNAT = 1 << 1,
};

/* Key of spw_listeners. */
struct spw_listener {
	struct spw_address addr;
	__u16 port_be;
	__u8 proto;
	__u8 zero;
};
_Static_assert(sizeof(struct spw_listener) == 20, "the map compares every byte: no hidden padding");

/* Value of spw_beats, one per served queue, on a cache line of its own. Written by that queue's worker. */
struct spw_beat {
	__u64 monotonic_ns; /* 0: never ran */
	__u64 unused[7];
};
_Static_assert(sizeof(struct spw_beat) == 64, "one cache line per queue");

/* Place in spw_sockets: queue * SPW_SOCKETS_PER_QUEUE + one of these. */
enum spw_socket {
	SPW_SOCKET_KNOWN,
	SPW_SOCKET_NEW,
	SPW_SOCKETS_PER_QUEUE,
};

/* --- early shedding: what workers refuse in silence is discarded before it costs them anything --- */

/* Which cap it is beyond. */
enum spw_shed_cap {
	SPW_SHED_CLIENT,
	SPW_SHED_PREFIX,
	SPW_SHED_SERVICE,
	SPW_SHED_LIMIT,
	SPW_SHED_CAPS,
};

/* Key of spw_shed_clients; its value is a place in spw_shed_entries. An IPv6 client is its /64, the rest zero. */
struct spw_shed_client {
	struct spw_address client;
	struct spw_address vip;
	__u16 port_be;
	__u16 zero;
};
_Static_assert(sizeof(struct spw_shed_client) == 36, "the map compares every byte: no hidden padding");

/* Value of spw_shed_entries, memory shared with control: it never moves, so that no packet goes uncounted. */
struct spw_shed_entry {
	__u64 until_ns; /* CLOCK_MONOTONIC; from then on it is as if it were not there */
	__u64 packets;  /* discarded; by the program, on any CPU */
	__u32 service;  /* slot */
	__u32 cap;      /* enum spw_shed_cap */
	__u64 unused;
};
_Static_assert(sizeof(struct spw_shed_entry) == 32, "two to a cache line");

/* Value of spw_shed_shares, whose key is a listener: of its SYNs workers see a share. */
struct spw_shed_share {
	__u64 until_ns;
	__u32 pass; /* of 2^32 */
	__u32 service;
	__u32 cap;
	__u32 unused;
};

/* The one value of spw_shed_state, shared with control: no entry, and no share, ends later. 0: there is none. */
struct spw_shed_state {
	__u64 clients_until_ns;
	__u64 shares_until_ns;
};

/* Place in spw_shed_counts: slot of the service * SPW_SHED_KINDS + one of these. */
enum spw_shed_kind {
	SPW_SHED_OF_CLIENTS,
	SPW_SHED_OF_ALL,
	SPW_SHED_KINDS,
};
