/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is known of one (name, family): the last good set of addresses, the state, and when to ask next. Answers and
 * failures go in, with the time and chance that the caller passes; no I/O here.
 *
 *   INIT -> FRESH on an answer; FRESH -> STALE when the set is older than its TTL and the grace without a new answer;
 *   FRESH or STALE -> DOUBT on an authoritative negative; DOUBT -> GONE on 3 of them over at least 30 s;
 *   INIT -> STALE with a set that was saved;
 *   STALE, DOUBT or GONE -> EXPIRED when the set expired max_stale ago; any -> FRESH on an answer.
 *
 * In every state but INIT and EXPIRED the set is not empty.
 */
#pragma once

#include "names.h"

#include <stdbool.h>

#define NAMESET_MAX_ADDRESSES 1024
/* dnsreply and callers: no SOA told how long a negative answer holds. */
#define NAMESET_TTL_UNKNOWN   UINT32_MAX

struct nameset_limits {
	uint64_t min_ttl_ns, max_ttl_ns;
	uint64_t stale_ns; /* how long after its TTL a set may serve */
};

struct nameset {
	enum name_state state;
	struct name_address *addresses; /* owned; sorted, without duplicates */
	size_t n_addresses;
	uint64_t ttl_ns;         /* effective, of the last answer */
	uint64_t last_answer_ns; /* 0: none yet, or before the clock began */
	uint64_t unclocked_ns;   /* how long before the clock began */
	uint64_t expires_ns;     /* of the set: last answer + TTL */
	uint64_t useless_ns;     /* when it becomes too old to serve at all */
	uint64_t next_query_ns;
	uint64_t first_negative_ns; /* of the present run of negatives, which failures do not end */
	unsigned n_negative;
	unsigned n_failed; /* failures since the last word of a server, positive or negative */
	uint64_t failures; /* since ever, negatives not among them */
	const char *last_error;
};

/* The first query is due at once. */
void nameset_init(struct nameset *set, uint64_t now_ns);
void nameset_fini(struct nameset *set);

/*
 * A good answer of n >= 1 addresses in any order, received now; `chance` in [0, 1) spreads the next query. The set is
 * replaced as a whole: an address that is missing is ineligible from now on. More than NAMESET_MAX_ADDRESSES: the
 * lowest are kept and last_error says so. Returns 0 or -ENOMEM, then nothing changed.
 */
int nameset_answer(struct nameset *set, const struct nameset_limits *limits, uint64_t now_ns, double chance,
		   const struct ipaddr *addresses, size_t n, uint32_t ttl_s);

/*
 * What an earlier life of the gateway knew, from an answer `age_ns` ago: INIT becomes STALE, and the first query is due
 * as it was. Returns 0, -EALREADY if the state is not INIT, -ESTALE if it is too old to serve, -EINVAL or -ENOMEM.
 */
int nameset_restore(struct nameset *set, const struct nameset_limits *limits, uint64_t now_ns,
		    const struct ipaddr *addresses, size_t n, uint64_t ttl_ns, uint64_t age_ns);

/* "No such name" or "no data" from an authority. These and nameset_tick() return true if the state changed. */
bool nameset_negative(struct nameset *set, uint64_t now_ns, const char *error, uint32_t negative_ttl_s);

/* No usable word from any server. `error` must outlive the set: a literal. */
bool nameset_failure(struct nameset *set, uint64_t now_ns, double chance, const char *error);

/* Applies what the passing of time alone changes. */
bool nameset_tick(struct nameset *set, uint64_t now_ns);

/* Since the last good answer; 0 if there was none. */
uint64_t nameset_age_ns(const struct nameset *set, uint64_t now_ns);

/* When nameset_tick() will have something to do; UINT64_MAX: never. */
uint64_t nameset_deadline_ns(const struct nameset *set);
