/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What services know of their clients (IPv4 addresses, IPv6 /64s): how many of their attempts failed lately, and when
 * one was served last. An attempt that fails gives its client a credit; the next attempt takes one, and is a retry. So
 * no more attempts are taken for retries than failed, however many users share an address.
 *
 * A client has 255 credits at the most. They come in two generations of five seconds each: a credit lives for more than
 * five and at most ten seconds.
 *
 * A table of fixed size that all workers share: sets of four behind a keyed hash. Failures and served attempts make
 * entries, a SYN alone never does. Of a full set, a failure may only take the place of a client that was not served for
 * a minute, of those the one with the fewest credits; if there is none, the newcomer's failure is forgotten, and its
 * next attempt is none that is known to be a retry. A served client may also take the place of the one whose turn is
 * longest ago. So a flood of refused SYNs, whoever they say they are of, makes nobody forgotten who was served.
 *
 * Each entry is one word beside its tag, changed by compare-and-swap. Two workers that claim an entry at the same
 * moment, or one that changes an entry while another gives it away, may cost somebody a credit or give one too many;
 * nothing else can go wrong.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CREDIT_WAYS             4
#define CREDIT_ENTRIES          65536
#define CREDITS_MAX             255
#define CREDITS_GENERATION_NS   5000000000ull
#define CREDITS_SERVED_LATELY_S 60

struct credit_set {
	_Atomic uint64_t tags[CREDIT_WAYS]; /* 0: free */
	_Atomic uint64_t words[CREDIT_WAYS];
} __attribute__((aligned(64)));

struct credit_table {
	struct credit_set *sets;
	uint64_t mask;
};

uint64_t credits_bytes(uint32_t n_entries);
/* `n_entries`: a power of two, at least CREDIT_WAYS. Returns 0 or -ENOMEM. */
int credits_init(struct credit_table *t, uint32_t n_entries);
void credits_fini(struct credit_table *t);

/* `tag`: by what the client of a service is known: client_tag() of a table of clients. Never 0. */

/* One of its attempts failed. */
void credits_add(struct credit_table *t, uint64_t tag, uint64_t now_ns);
/* True: it had a credit, and has it no more. */
bool credits_take(struct credit_table *t, uint64_t tag, uint64_t now_ns);
unsigned credits_count(const struct credit_table *t, uint64_t tag, uint64_t now_ns);
/* One of its attempts was served: its handshake is done. Read before written: a second has one write. */
void credits_served(struct credit_table *t, uint64_t tag, uint64_t now_ns);
/* That was within the last minute. */
bool credits_served_lately(const struct credit_table *t, uint64_t tag, uint64_t now_ns);
