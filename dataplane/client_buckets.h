/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Token buckets of clients, or of prefixes, one per service: a table of fixed size that all workers share. The sets of
 * a keyed hash have four ways each; a way is known by the other bits of the hash. Nothing but an admitted flow claims a
 * way: of a full set the one whose bucket was idle longest makes room, so that among a crowd of passers-by those who
 * come often stay known.
 *
 * All fields are changed by workers, relaxed. Two workers that claim at the same moment, or one that takes a token
 * while another gives the way away, may cost somebody one token or give one too many; nothing else can go wrong.
 */
#pragma once

#include "bucket.h"
#include "ipaddr.h"
#include "policy.h"

#include <stdint.h>

#define CLIENT_WAYS    4
#define CLIENT_ENTRIES 65536

struct client_set {
	/* What every new flow looks at: */
	_Atomic uint64_t tags[CLIENT_WAYS]; /* 0: free */
	struct gcra buckets[CLIENT_WAYS];
	/* What only matters to those who have to wait: */
	struct gcra_line lines[CLIENT_WAYS];
	_Atomic uint64_t counted_ns[CLIENT_WAYS]; /* fairness.c's: when it was counted as active last */
} __attribute__((aligned(64)));

struct client_table {
	struct client_set *sets;
	uint64_t mask;
	uint8_t v4_bytes, v6_bytes; /* of an address that count */
	const uint8_t *secret;
};

/* The bucket and the line of a client; all NULL: not known, which is as good as an idle bucket. */
struct client_cell {
	struct gcra *bucket;
	struct gcra_line *line;
	_Atomic uint64_t *counted_ns;
};

uint64_t client_table_bytes(uint32_t n_entries);
/*
 * `n_entries`: a power of two, at least CLIENT_WAYS. Clients are told apart by that many bits of their addresses,
 * multiples of 8. `secret` must outlive the table. Returns 0 or -ENOMEM.
 */
int client_table_init(struct client_table *t, uint32_t n_entries, unsigned v4_bits, unsigned v6_bits,
		      const uint8_t *secret);
void client_table_fini(struct client_table *t);

/* By what the client of a service is known; never 0. */
uint64_t client_tag(const struct client_table *t, const struct slot_ref *service, const struct ipaddr *addr);
/* Without side effects. */
struct client_cell client_lookup(const struct client_table *t, uint64_t tag);
/* The same, or a way that was another's, now idle. All NULL if other workers were faster time after time. */
struct client_cell client_claim(struct client_table *t, uint64_t tag, uint64_t now_ns);
