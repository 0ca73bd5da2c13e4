/* SPDX-License-Identifier: BSD-3-Clause */
#include "known.h"
#include "events.h"
#include "hash.h"

#include <stdio.h>
#include <stdlib.h>

#define NAME_CHAINS 4096

struct known {
	struct events *events;
	uint64_t n_changes;
	struct known_name *names;
	struct known_name *chains[NAME_CHAINS]; /* the same by hash: a file may have 65536 backends with names */
};

/* --- sets --- */

static struct address_set *set_create(const struct name_address *addresses, size_t n)
{
	struct address_set *set = malloc(sizeof(*set) + n * sizeof(set->addresses[0]));

	if (!set)
		return NULL;
	set->refs = 1;
	set->n = n;
	/* A name without an answer yet has no array. */
	if (n)
		memcpy(set->addresses, addresses, n * sizeof(set->addresses[0]));
	return set;
}

static struct address_set *set_ref(struct address_set *set)
{
	set->refs++;
	return set;
}

static void set_unref(struct address_set *set)
{
	if (set && --set->refs == 0)
		free(set);
}

static void set_replace(struct address_set **at, struct address_set *set)
{
	struct address_set *old = *at;

	*at = set_ref(set);
	set_unref(old);
}

static bool same_set(const struct address_set *a, const struct address_set *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!ipaddr_equal(&a->addresses[i].addr, &b->addresses[i].addr))
			return false;
	return true;
}

static int by_address(const void *a, const void *b)
{
	const struct name_address *x = a, *y = b;

	return memcmp(x->addr.b, y->addr.b, sizeof(x->addr.b));
}

bool address_set_has(const struct address_set *set, const struct ipaddr *addr)
{
	const struct name_address key = {.addr = *addr};

	return set->n && bsearch(&key, set->addresses, set->n, sizeof(key), by_address);
}

/* --- names --- */

struct known *known_create(struct events *events)
{
	struct known *known = calloc(1, sizeof(*known));

	if (known)
		known->events = events;
	return known;
}

static void name_free(struct known_name *k)
{
	set_unref(k->now);
	set_unref(k->kept);
	free(k);
}

void known_destroy(struct known *known)
{
	struct known_name *next;

	if (!known)
		return;
	for (struct known_name *k = known->names; k; k = next) {
		next = k->next;
		name_free(k);
	}
	free(known);
}

static struct known_name *const *chain_of(const struct known *known, const char *name, uint8_t family)
{
	return &known->chains[hash_public(name, strlen(name), family) % NAME_CHAINS];
}

struct known_name *known_find(const struct known *known, const char *name, uint8_t family)
{
	for (struct known_name *k = *chain_of(known, name, family); k; k = k->next_in_chain)
		if (k->family == family && strcmp(k->name, name) == 0)
			return k;
	return NULL;
}

struct known_name *known_first(const struct known *known)
{
	return known->names;
}

static struct known_name *name_create(struct known *known, const char *name, uint8_t family)
{
	struct known_name **chain = (struct known_name **)chain_of(known, name, family);
	struct known_name *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->now = set_create(NULL, 0);
	if (!k->now) {
		free(k);
		return NULL;
	}
	k->kept = set_ref(k->now);
	snprintf(k->name, sizeof(k->name), "%s", name);
	k->family = family;
	k->next = known->names;
	known->names = k;
	k->next_in_chain = *chain;
	*chain = k;
	return k;
}

static void name_remove(struct known *known, struct known_name *k)
{
	struct known_name **at = &known->names;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	at = (struct known_name **)chain_of(known, k->name, k->family);
	while (*at != k)
		at = &(*at)->next_in_chain;
	*at = k->next_in_chain;
	name_free(k);
}

void known_watch(struct known *known, struct names *names, const char *name, uint8_t family)
{
	struct known_name *k = known_find(known, name, family);
	int err;

	if (!k)
		k = name_create(known, name, family);
	if (!k || k->uses++)
		return;
	err = names_watch(names, name, family);
	if (!err)
		return;
	k->heard = true;
	k->failures = 1;
	snprintf(k->last_error, sizeof(k->last_error), "cannot be asked for: %s", strerror(-err));
}

void known_unwatch(struct known *known, struct names *names, const char *name, uint8_t family)
{
	struct known_name *k = known_find(known, name, family);

	if (!k || --k->uses)
		return;
	names_unwatch(names, name, family);
	name_remove(known, k);
}

/* --- events --- */

/* "shop.lab.test AAAA"; a long name is cut at its front: its end says less often which one it is. */
static const char *subject_of(const struct known_name *k, char out[static 80])
{
	snprintf(out, 80, "%.70s %s", k->name, k->family == 4 ? "A" : "AAAA");
	return out;
}

static uint64_t seconds(uint64_t ns)
{
	return ns / 1000000000;
}

/* INIT to FRESH is no news: it is what a start is for. */
static void say_state(struct known *known, const struct known_name *k, const struct name_view *view)
{
	uint64_t age_s = seconds(view->age_ns);
	char subject[80];

	if (k->state == view->state)
		return;
	subject_of(k, subject);
	switch (view->state) {
	case NAME_INIT:
		break;
	case NAME_FRESH:
		if (k->state != NAME_INIT)
			events_add(known->events, EVENT_INFO, "name_fresh", "names", subject,
				   "answered again, %zu addresses; it was %s", view->n_addresses,
				   name_state_text(k->state));
		break;
	case NAME_STALE:
		events_add(known->events, EVENT_WARNING, "name_stale", "names", subject,
			   "no answer for %llu s%s%s: the last good %zu addresses serve on", (unsigned long long)age_s,
			   *view->last_error ? ", " : "", view->last_error, view->n_addresses);
		break;
	case NAME_DOUBT:
		events_add(known->events, EVENT_WARNING, "name_doubt", "names", subject,
			   "DNS says: %s; the last good %zu addresses serve on", view->last_error, view->n_addresses);
		break;
	case NAME_GONE:
		events_add(known->events, EVENT_CRITICAL, "name_gone", "names", subject,
			   "DNS has confirmed for 30 s: %s; the last good %zu addresses serve on", view->last_error,
			   view->n_addresses);
		break;
	case NAME_EXPIRED:
		events_add(known->events, EVENT_CRITICAL, "name_expired", "names", subject,
			   "the last good answer is %llu s old and too old to serve: new flows are refused",
			   (unsigned long long)age_s);
		break;
	}
}

static size_t count_missing(const struct address_set *from, const struct address_set *in)
{
	size_t n = 0;

	for (size_t i = 0; i < from->n; i++)
		n += !address_set_has(in, &from->addresses[i].addr);
	return n;
}

/* DNS is obeyed all the same; but more than half at once is seldom meant. */
static void say_mass_change(struct known *known, const struct known_name *k, const struct address_set *next)
{
	size_t removed = count_missing(k->now, next);
	char subject[80];

	if (next->n && k->now->n >= 4 && 2 * removed > k->now->n)
		events_add(known->events, EVENT_WARNING, "mass_change", "names", subject_of(k, subject),
			   "an answer removes %zu of %zu addresses, and has %zu now", removed, k->now->n, next->n);
}

static void say_refused(struct known *known, struct known_name *k, const struct name_view *view)
{
	char subject[80], addr[IPADDR_STRLEN];

	if (view->n_refused && !k->refused_said)
		events_add(known->events, EVENT_WARNING, "address_refused", "names", subject_of(k, subject),
			   "%zu addresses of the answer can be no backends, such as %s: they are left out",
			   view->n_refused, ipaddr_format(&view->refused_address, addr));
	k->refused_said = view->n_refused > 0;
}

/* --- what DNS says --- */

static void take_numbers(struct known_name *k, const struct name_view *view)
{
	k->state = view->state;
	k->heard = view->heard;
	k->ttl_ns = view->ttl_ns;
	k->age_ns = view->age_ns;
	k->next_query_ns = view->next_query_ns;
	k->queries = view->queries;
	k->failures = view->failures;
	k->refused = view->refused;
	snprintf(k->last_error, sizeof(k->last_error), "%s", view->last_error ? view->last_error : "");
}

/* Shadow and off keep the first answer; what an earlier life saved serves until then. */
static bool keep_first(struct known_name *k)
{
	bool changed = !same_set(k->kept, k->now);

	set_replace(&k->kept, k->now);
	k->settled = k->state == NAME_FRESH;
	return changed;
}

bool known_take(struct known *known, const struct name_view *view, enum cure_mode mode)
{
	struct known_name *k = known_find(known, view->name, view->family);
	struct address_set *next = k ? set_create(view->addresses, view->n_addresses) : NULL;
	bool changed;

	if (!next)
		return false;
	say_state(known, k, view);
	say_mass_change(known, k, next);
	say_refused(known, k, view);
	take_numbers(k, view);
	changed = !same_set(k->now, next);
	known->n_changes += changed;
	set_replace(&k->now, next);
	set_unref(next);
	if (mode != CURE_ENFORCE && !k->settled)
		return keep_first(k);
	if (changed && mode == CURE_ENFORCE)
		k->changes++;
	else if (changed && mode == CURE_SHADOW)
		k->would_changes++;
	return changed && mode != CURE_OFF;
}

uint64_t known_changes(const struct known *known)
{
	return known->n_changes;
}

const struct address_set *known_set(const struct known_name *k, enum cure_mode mode)
{
	return mode == CURE_ENFORCE ? k->now : k->kept;
}

bool known_differs(const struct known_name *k)
{
	return !same_set(k->kept, k->now);
}

void known_published(struct known *known, enum cure_mode mode)
{
	for (struct known_name *k = known->names; k && mode == CURE_ENFORCE; k = k->next) {
		set_replace(&k->kept, k->now);
		k->settled = k->state != NAME_INIT;
	}
}
