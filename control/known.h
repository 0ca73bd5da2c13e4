/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What DNS said of each watched name, and which of it the packet path goes by: the current set with the cure names in
 * enforce; with shadow and off the first answer, or what was published last when the mode was changed to one of them.
 */
#pragma once

#include "cure.h"
#include "names.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct events;
struct known;

/* Immutable, counted. */
struct address_set {
	unsigned refs;
	size_t n;
	struct name_address addresses[]; /* sorted by address */
};

struct known_name {
	struct known_name *next; /* of all */
	struct known_name *next_in_chain;
	char name[256];
	uint8_t family;
	unsigned uses;
	enum name_state state;
	bool heard;               /* its first question is answered, or cannot be asked */
	struct address_set *now;  /* what DNS says; never NULL */
	struct address_set *kept; /* what shadow and off go by; in enforce: what was published last; never NULL */
	bool settled;             /* `kept` is an answer: what shadow and off keep */
	bool refused_said;        /* since the last answer without such */
	uint64_t ttl_ns, age_ns, next_query_ns, queries, failures;
	uint64_t refused;                /* addresses that no backend can have */
	uint64_t changes, would_changes; /* of the set: followed, and not */
	char last_error[64];
};

/* NULL: out of memory. */
struct known *known_create(struct events *events);
void known_destroy(struct known *known);

/* Counted. A name that cannot be watched has no addresses, and says why where names are shown. */
void known_watch(struct known *known, struct names *names, const char *name, uint8_t family);
void known_unwatch(struct known *known, struct names *names, const char *name, uint8_t family);

/* NULL if it is not watched. */
struct known_name *known_find(const struct known *known, const char *name, uint8_t family);
/* The first of all; the others by `next`. */
struct known_name *known_first(const struct known *known);

/*
 * DNS spoke. Says what changed its state, and returns true if that changes what is published with `mode`: the set, or
 * in shadow what is measured beside it. False too for a name that nobody watches, and without memory.
 */
bool known_take(struct known *known, const struct name_view *view, enum cure_mode mode);

/* How often any set changed, followed or not. */
uint64_t known_changes(const struct known *known);

/* What a policy made with `mode` goes by. */
const struct address_set *known_set(const struct known_name *k, enum cure_mode mode);
/* What shadow and off go by is not what DNS says. */
bool known_differs(const struct known_name *k);
/* A policy was published with `mode`. */
void known_published(struct known *known, enum cure_mode mode);

bool address_set_has(const struct address_set *set, const struct ipaddr *addr);
