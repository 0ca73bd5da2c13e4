/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A worker's records of clients: sets of eight, found by a keyed hash, written by the worker and read by anyone.
 *
 * A record is made by the first outcome of a client: a refusal, a failure or a connection, never a SYN alone. It begins
 * on probation; the second outcome, or a connection, makes it a kept one. At most six of a set are kept, and a newcomer
 * takes an empty place or, by chance, that of one on probation: so a flood of refused SYNs, however many addresses it
 * comes from, pushes out its own. A kept record loses its place among the kept
 *   - to one that has connected: one that never has goes first, the longest quiet one of its kind;
 *   - to one that never has: only if it never has either, and was quiet for ten minutes.
 * A set remembers from when to when it has forgotten anything. One that forgot within the last second lets newcomers
 * that have not connected in by chance alone, one of sixteen: so a flood seldom costs more than a look at the set, and
 * whoever is let in stays longer.
 */
#pragma once

#include "outcome.h"

#define RECORD_WAYS     8
#define CLIENT_KEPT_MAX 6
#define CLIENT_FLOOD_CS 100
#define CLIENT_LET_IN   16
#define CLIENT_QUIET_CS (600 * 100)

/* Times are hundredths of seconds of the dataplane's clock, modulo 2^32: 497 days. */
struct client_outcome {
	uint32_t first_cs, last_cs;
	uint32_t service_slot, backend_slot;
	uint32_t count;
	outcome_reason reason;
	uint16_t unused;
};

struct client_record {
	struct ipaddr addr;
	uint32_t counts[OUTCOME_CLASSES];
	uint32_t since_cs;
	uint32_t used;            /* bit per outcome: a new record leaves the lines of the others alone */
	uint32_t connected_cs[2]; /* the last time, by TCP and by UDP; 0: never */
	struct client_outcome outcomes[OUTCOME_KINDS_KEPT];
};

/* A set's first line: a client that is not there costs no other. */
struct record_set {
	uint32_t seq;    /* of all of the set */
	uint32_t forgot; /* 1: there is something between the two times */
	uint32_t first_forgot_cs, last_forgot_cs;
	uint32_t tags[RECORD_WAYS];
	uint8_t lives[RECORD_WAYS]; /* none, on probation, kept */
} __attribute__((aligned(64)));

struct record_table {
	struct record_set *sets;
	struct client_record *records; /* RECORD_WAYS per set */
	uint32_t mask;
	uint64_t random;
	uint64_t in_use, forgotten; /* written with relaxed stores */
	const uint8_t *secret;
};

uint64_t record_table_bytes(uint32_t n_sets);
/* n_sets: a power of two. Returns 0 or -ENOMEM. `secret` must outlive the table. */
int record_table_init(struct record_table *t, uint32_t n_sets, const uint8_t *secret);
void record_table_fini(struct record_table *t);

struct client_news {
	outcome_reason reason;
	enum outcome_class class;
	uint32_t service_slot, backend_slot;
	bool udp; /* of OUTCOME_CONNECTED */
};

/* Where a client's record is, or would be. */
struct client_key {
	struct ipaddr group;
	uint32_t set, tag;
};

struct client_key record_key(const struct record_table *t, const struct ipaddr *addr);

static inline void record_prefetch(const struct record_table *t, const struct client_key *key)
{
	__builtin_prefetch(&t->sets[key->set], 1);
}

/* The worker's: something became of a client. `key`: of the address. */
void record_note(struct record_table *t, const struct client_key *key, const struct ipaddr *addr,
		 const struct client_news *news, uint32_t now_cs);

/* Anyone's: copies. False: there is no record; `set` is filled in either case. */
bool record_read(const struct record_table *t, const struct ipaddr *addr, struct client_record *out,
		 struct record_set *set);
/*
 * True: within that time one of the client's connections was made, or, for UDP, one of its queries answered. An answer
 * shows nothing to TCP: anyone can ask in the name of a client. Also of another worker's table: waits for nobody, so
 * that a set that is being written says false.
 */
bool record_connected_lately(const struct record_table *t, const struct client_key *key, bool udp, uint32_t now_cs,
			     uint32_t within_cs);
bool record_read_at(const struct record_table *t, uint32_t place, struct client_record *out);
uint32_t record_places(const struct record_table *t);
