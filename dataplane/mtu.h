/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Learned path MTUs: what routers said fits on the way to a client or a backend, for connections that begin later. One
 * writer (decide); workers look up the two addresses of a SYN, and nothing per established packet.
 *
 * The table has a fixed size, in sets of four behind a keyed hash. What workers read is apart from what decide knows of
 * an entry, and is two words: a lookup takes no lock, waits for nobody, and touches one line. An entry lives for ten
 * minutes after a router last said the same (RFC 1191 6.3, RFC 8201 4): a smaller MTU takes its place at once, a larger
 * one has to wait for its end. Of a full set the entry that was confirmed longest ago makes room, a backend's never for
 * a client's.
 *
 * When four clients of one prefix (IPv4 /24, IPv6 /64) have the same MTU, the prefix gets it too, for those of whom
 * nothing is known. A full set has no room for prefixes.
 */
#pragma once

#include "dataplane.h"
#include "ipaddr.h"
#include "observe.h"

#include <stdbool.h>
#include <stdint.h>

#define MTU_WAYS         4
#define MTU_LIFE_S       600
#define MTU_AGREE        4 /* clients of a prefix */
#define MTU_AGED_AT_ONCE 4096

/*
 * Both words carry the hash, so that what is read of them while decide gives the cell to another address fits neither.
 * Written by decide, read by workers, each with relaxed accesses.
 */
struct mtu_cell {
	uint64_t tag;
	uint64_t value; /* upper half of the tag, end of life in s modulo 2^16, MTU; MTU 0: empty */
};

struct mtu_set {
	struct mtu_cell ways[MTU_WAYS];
} __attribute__((aligned(64)));

struct mtu_record; /* decide's part */

struct mtu_table {
	struct mtu_set *sets;
	uint32_t mask; /* of sets */
	uint32_t n;    /* entries in use; relaxed: workers do not look into an empty table */
	const uint8_t *secret;
	/* decide's, but for what others read of it by mtu_read(): */
	struct mtu_record *records; /* as the cells lie */
	uint32_t *chains;           /* clients by the hash of their prefix */
	uint32_t oldest, newest;    /* by their last confirmation */
	uint64_t of_kind[PATH_KINDS];
	uint64_t evicted;
};

uint64_t mtu_table_bytes(uint32_t n_entries);
/* `n_entries`: a power of two, at least MTU_WAYS. Returns 0 or -ENOMEM; mtu_table_fini() is due in either case. */
int mtu_table_init(struct mtu_table *t, uint32_t n_entries, const uint8_t *secret);
void mtu_table_fini(struct mtu_table *t);

/* --- decide; time never goes back --- */

struct path_lesson mtu_learn(struct mtu_table *t, bool upstream, const struct ipaddr *addr, uint32_t mtu,
			     uint64_t now_ns);
/* Removes what has reached its end, at most MTU_AGED_AT_ONCE. */
void mtu_age(struct mtu_table *t, uint64_t now_ns);

/* --- workers: 0 if nothing is known --- */

/* Of the client's address, else of its prefix. */
uint16_t mtu_of_client(const struct mtu_table *t, const struct ipaddr *client, uint64_t now_ns);
uint16_t mtu_of_upstream(const struct mtu_table *t, const struct ipaddr *backend, uint64_t now_ns);
/* Of exactly this address. *young: it was confirmed within the last minute. */
uint16_t mtu_of_address(const struct mtu_table *t, bool upstream, const struct ipaddr *addr, uint64_t now_ns,
			bool *young);

/* --- any thread --- */

/* The next rows from *at on, at most `max`; moves *at, to UINT64_MAX after the last. */
size_t mtu_read(const struct mtu_table *t, uint64_t *at, struct path_row *rows, size_t max, uint64_t now_ns);
