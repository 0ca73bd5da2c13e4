/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Early shedding: which SYNs the gates discard, in maps that all of them share. A client of a listener has a place,
 * whose end is memory shared with the program: it is moved by a store, and what is discarded is counted there. Nothing
 * here decides; that is control's, whose one thread alone writes.
 *
 * Nothing lasts: each entry has its end, on CLOCK_MONOTONIC, and the program minds it by itself. The map of clients has
 * no eviction: a full one takes no more, and what is in it stays what it is.
 */
#pragma once

#include "ipaddr.h"

#include <stddef.h>
#include <stdint.h>

struct shed;

/* In the order of enum spw_shed_cap. */
enum shed_cap {
	SHED_CLIENT,
	SHED_PREFIX,
	SHED_SERVICE,
	SHED_LIMIT,
};

/* A client of a listener. */
struct shed_key {
	struct ipaddr client; /* an IPv6 client is its /64 */
	struct ipaddr vip;
	uint16_t port_be;
};

struct shed_config {
	uint32_t max_clients;
	uint32_t max_shares; /* listeners at once */
	uint32_t n_service_slots;
};

/* NULL with errno set and a sentence in `err`. */
struct shed *shed_open(const struct shed_config *config, char *err, size_t err_len);
/* Gates that use it keep its maps for as long as they are open. NULL is fine. */
void shed_close(struct shed *shed);

struct bpf_object;
/* Before `gate` is loaded; 0 or -errno. */
int shed_share_maps(const struct shed *shed, struct bpf_object *gate);

/* Ties a client to a place (0 … max_clients - 1) that was set; -E2BIG: no room. */
int shed_tie(struct shed *shed, const struct shed_key *key, uint32_t place);
void shed_untie(struct shed *shed, const struct shed_key *key);
/* What the client of the place is shed for, from now on until `until_ns`. */
void shed_set(struct shed *shed, uint32_t place, enum shed_cap cap, uint32_t service_slot, uint64_t until_ns);
void shed_set_until(struct shed *shed, uint32_t place, uint64_t until_ns);
/* Discarded, ever, whoever had the place. */
uint64_t shed_packets(const struct shed *shed, uint32_t place);

/* Of a listener's SYNs, `pass` of 2^32 are let through until `until_ns`; 0 or -errno. */
int shed_set_share(struct shed *shed, const struct ipaddr *vip, uint16_t port_be, enum shed_cap cap,
		   uint32_t service_slot, uint32_t pass, uint64_t until_ns);
void shed_del_share(struct shed *shed, const struct ipaddr *vip, uint16_t port_be);

/* No client's entry, and no share, ends later than these. 0: there is none, and the program looks for none. */
void shed_set_ends(struct shed *shed, uint64_t clients_until_ns, uint64_t shares_until_ns);

/* Of one service, ever. */
struct shed_counts {
	uint64_t of_clients; /* whose own entries they were */
	uint64_t of_all;     /* by its share */
};

/* Any thread. */
struct shed_counts shed_counts(const struct shed *shed, uint32_t service_slot);
