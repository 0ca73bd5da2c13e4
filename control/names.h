/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names to address sets: A and AAAA by c-ares, each record's own TTL, last good set kept on failure (semantics of the
 * states below follow RFC 8767 with one stated deviation: an authoritative "no such name" does not empty a set).
 * Runs in the decide thread on its libevent base; the packet path never waits for it.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct names;

enum name_state {
	NAME_INIT,    /* never resolved */
	NAME_FRESH,   /* within TTL and grace */
	NAME_STALE,   /* resolver failing: last good set */
	NAME_DOUBT,   /* authoritative "no such name" or "no data": last good set */
	NAME_GONE,    /* negative confirmed: last good set, critical */
	NAME_EXPIRED, /* too old: nothing */
};

const char *name_state_text(enum name_state state);

/* False: no backend can have this address; it is left out of answers. `arg` as for names_changed_fn. */
typedef bool names_usable_fn(void *arg, const struct ipaddr *addr);

struct names_config {
	const char *servers_csv;         /* "198.18.3.53:53,…" or NULL: the system's */
	uint64_t min_ttl_ns, max_ttl_ns; /* 0: 1 s, 300 s */
	uint64_t stale_ns;       /* how long after its TTL a set may serve; 0: not longer than the grace of 2 s */
	uint64_t timeout_ns;     /* per try; default 1 s if 0 */
	names_usable_fn *usable; /* NULL: all are */
	/* Passed in so that tests decide what time and chance are. NULL: CLOCK_MONOTONIC, getrandom(). */
	uint64_t (*now_ns)(void *arg);
	double (*uniform)(void *arg); /* [0, 1) */
	void *arg;
};

struct name_address {
	struct ipaddr addr;
	uint64_t expires_ns; /* monotonic; last_seen + TTL. In STALE, DOUBT and GONE the past: eligible all the same */
};

/* Valid during the callback only. */
struct name_view {
	const char *name;
	uint8_t family; /* 4 or 6 */
	enum name_state state;
	bool heard;                           /* the first question is answered, in whatever way */
	const struct name_address *addresses; /* eligible for new flows, sorted by address */
	size_t n_addresses;
	uint64_t ttl_ns; /* of the last answer, effective (minimum of the CNAME chain) */
	uint64_t last_answer_ns;
	uint64_t age_ns; /* of that answer: it may be older than the monotonic clock */
	uint64_t next_query_ns;
	uint64_t queries, failures;
	uint64_t refused;              /* addresses left out, ever */
	size_t n_refused;              /* of the last answer */
	struct ipaddr refused_address; /* one of those */
	const char *last_error;        /* "" if the last answer was good and used whole */
};

/*
 * Called when the set or the state of a watched name changed, after every good answer (the addresses may be the same,
 * their expires_ns are new), after the first answer of any kind, and once after each watch began with what is known.
 * Always from the loop or names_poll(). It may watch and unwatch, but not destroy.
 */
typedef void names_changed_fn(void *arg, const struct name_view *view);

/* NULL with errno set. EINVAL: servers_csv is no list of servers. */
struct names *names_create(struct event_base *base, const struct names_config *config, names_changed_fn *changed,
			   void *arg);
void names_destroy(struct names *names);

/*
 * Counted: watching the same (name, family) twice shares one query. Names are absolute, "a.test" and "A.test." are one.
 * Returns 0, -EINVAL (no host name or family), -ENOSPC (16384 of these) or -ENOMEM.
 */
int names_watch(struct names *names, const char *name, uint8_t family);
void names_unwatch(struct names *names, const char *name, uint8_t family);

/*
 * Gives a watched name that has no answer yet what an earlier life of the gateway knew, from an answer `age_ns` ago: it
 * is STALE from then on, so a gateway that starts while DNS is down works. Returns 0, -ENOENT (not watched), -EALREADY
 * (there is an answer), -ESTALE (too old to serve), -EINVAL or -ENOMEM.
 */
int names_restore(struct names *names, const char *name, uint8_t family, const struct ipaddr *addresses, size_t n,
		  uint64_t ttl_ns, uint64_t age_ns);

/* While held, a name that has had an answer is not asked again and does not age: it was resolved once, and that is it.
 */
void names_hold(struct names *names, bool hold);

/* Every watched name, sorted. */
void names_foreach(struct names *names, names_changed_fn *fn, void *arg);

/* Does now what is due. Timers do it by themselves; who passed in a clock calls it after moving the hands. */
void names_poll(struct names *names);
