/* SPDX-License-Identifier: BSD-3-Clause */
#include "names.h"

#include "clock.h"
#include "nameset.h"
#include "resolver.h"

#include <event2/event.h>

#include <sys/queue.h>
#include <sys/random.h>

#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#define MSEC          1000000ULL
#define SEC           (1000 * MSEC)

/* 4096 names of two families, twice: while a configuration replaces another, the names of both are watched. */
#define ENTRIES_MAX   16384
#define IN_FLIGHT_MAX 64
/* Looking at all entries costs some 10 ns each: not more often than this, however many names fall due one by one. */
#define POLL_MIN_NS   (10 * MSEC)

struct entry {
	TAILQ_ENTRY(entry) link; /* in `queue` */
	struct names *names;
	struct resolver_query *query; /* in flight */
	struct nameset set;
	uint64_t queries, refused;
	size_t n_refused; /* of the last answer */
	struct ipaddr refused_address;
	unsigned n_watches; /* 0: gone as soon as nobody iterates */
	uint8_t family;
	bool heard;    /* DNS has said something, if only that it cannot say */
	bool answered; /* it had addresses */
	bool queued;
	bool announce; /* a new watch has not heard yet */
	char name[];
};

struct names {
	struct event *timer;
	struct resolver *resolver;
	struct names_config config;
	struct nameset_limits limits;
	names_changed_fn *changed;
	void *arg;
	struct entry **entries; /* sorted by name, then family */
	size_t n_entries;
	TAILQ_HEAD(, entry) queue; /* due, waiting for a place in flight */
	unsigned n_in_flight;
	unsigned n_iterating; /* entries may be added but not removed while > 0 */
	uint64_t armed_ns;    /* when the timer fires; UINT64_MAX: it is not set */
	bool held;
	struct ipaddr usable[DNSREPLY_MAX_ADDRESSES]; /* of the answer in hand */
};

static uint64_t system_now_ns(void *arg)
{
	return clock_monotonic_ns();
}

static double system_uniform(void *arg)
{
	uint64_t bits = 0;

	/* Never short for 8 bytes once the pool is ready; before, 0 is as good as any. */
	if (getrandom(&bits, sizeof(bits), GRND_NONBLOCK) != sizeof(bits))
		bits = 0;
	return (double)(bits >> 11) * 0x1p-53;
}

static uint64_t now_ns(const struct names *names)
{
	return names->config.now_ns(names->config.arg);
}

static double chance(const struct names *names)
{
	return names->config.uniform(names->config.arg);
}

static struct name_view entry_view(const struct entry *entry)
{
	const struct nameset *set = &entry->set;

	return (struct name_view){
		.name = entry->name,
		.family = entry->family,
		.state = set->state,
		.heard = entry->heard,
		.addresses = set->addresses,
		.n_addresses = set->n_addresses,
		.ttl_ns = set->ttl_ns,
		.last_answer_ns = set->last_answer_ns,
		.age_ns = nameset_age_ns(set, now_ns(entry->names)),
		.next_query_ns = set->next_query_ns,
		.queries = entry->queries,
		.failures = set->failures,
		.refused = entry->refused,
		.n_refused = entry->n_refused,
		.refused_address = entry->refused_address,
		.last_error = set->last_error,
	};
}

static void free_entry(struct entry *entry)
{
	nameset_fini(&entry->set);
	free(entry);
}

/* Removes what is no longer watched, once nobody iterates. */
static void end_iteration(struct names *names)
{
	size_t n = 0;

	if (--names->n_iterating > 0)
		return;
	for (size_t i = 0; i < names->n_entries; i++) {
		if (names->entries[i]->n_watches > 0)
			names->entries[n++] = names->entries[i];
		else
			free_entry(names->entries[i]);
	}
	names->n_entries = n;
}

static void notify(struct entry *entry)
{
	struct name_view view = entry_view(entry);

	entry->announce = false;
	entry->names->changed(entry->names->arg, &view);
}

static void poll_soon(struct names *names)
{
	names->armed_ns = 0;
	event_add(names->timer, &(struct timeval){0});
}

static void arm(struct names *names, uint64_t at_ns)
{
	uint64_t now = now_ns(names);
	uint64_t delay_ns = at_ns > now + POLL_MIN_NS ? at_ns - now : POLL_MIN_NS;
	struct timeval tv = {.tv_sec = (time_t)(delay_ns / SEC), .tv_usec = (suseconds_t)(delay_ns % SEC / 1000)};

	if (at_ns >= names->armed_ns)
		return;
	names->armed_ns = at_ns;
	event_add(names->timer, &tv);
}

static bool is_held(const struct entry *entry)
{
	return entry->names->held && entry->answered;
}

static uint64_t entry_due_ns(const struct entry *entry)
{
	uint64_t deadline_ns = nameset_deadline_ns(&entry->set);

	if (is_held(entry))
		return UINT64_MAX;
	if (entry->query || entry->queued || deadline_ns < entry->set.next_query_ns)
		return deadline_ns;
	return entry->set.next_query_ns;
}

static void on_reply(void *arg, const struct dnsreply *reply);

static void start_queued(struct names *names)
{
	struct entry *entry;

	while (names->n_in_flight < IN_FLIGHT_MAX && (entry = TAILQ_FIRST(&names->queue))) {
		TAILQ_REMOVE(&names->queue, entry, link);
		entry->queued = false;
		entry->queries++;
		entry->query = resolver_ask(names->resolver, entry->name, entry->family, on_reply, entry);
		if (entry->query) {
			names->n_in_flight++;
			continue;
		}
		nameset_failure(&entry->set, now_ns(names), chance(names), "out of memory");
		arm(names, entry_due_ns(entry));
	}
}

/* An IPv4 address in IPv6 clothes would lead flows of one family to a backend of the other. */
static bool is_usable(const struct entry *entry, const struct ipaddr *addr)
{
	const struct names *names = entry->names;

	if (ipaddr_is_v4(addr) != (entry->family == 4))
		return false;
	return !names->config.usable || names->config.usable(names->arg, addr);
}

/* The addresses of an answer that backends can have; the others are counted. */
static size_t pick_usable(struct entry *entry, const struct dnsreply *reply)
{
	struct names *names = entry->names;
	size_t n = 0;

	for (size_t i = 0; i < reply->n_addresses; i++) {
		const struct ipaddr *addr = &reply->addresses[i];

		if (is_usable(entry, addr))
			names->usable[n++] = *addr;
		else
			entry->refused_address = *addr;
	}
	entry->n_refused = reply->n_addresses - n;
	entry->refused += entry->n_refused;
	return n;
}

/* An answer without any address that could be used is no answer: the last good set is better. */
static bool take_addresses(struct entry *entry, const struct dnsreply *reply)
{
	struct names *names = entry->names;
	uint64_t now = now_ns(names);
	size_t n = pick_usable(entry, reply);

	if (n == 0) {
		nameset_failure(&entry->set, now, chance(names), "no address that a backend can have");
		return true;
	}
	if (nameset_answer(&entry->set, &names->limits, now, chance(names), names->usable, n, reply->ttl_s) < 0)
		return nameset_failure(&entry->set, now, chance(names), "out of memory");
	entry->answered = true;
	return true;
}

/* Returns true if those who watch should hear of it. */
static bool take_reply(struct entry *entry, const struct dnsreply *reply)
{
	struct names *names = entry->names;
	uint64_t now = now_ns(names);

	switch (reply->kind) {
	case DNSREPLY_ADDRESSES:
		return take_addresses(entry, reply);
	case DNSREPLY_NO_NAME:
	case DNSREPLY_NO_DATA:
		return nameset_negative(&entry->set, now, reply->error, reply->negative_ttl_s);
	default:
		return nameset_failure(&entry->set, now, chance(names), reply->error);
	}
}

static void on_reply(void *arg, const struct dnsreply *reply)
{
	struct entry *entry = arg;
	struct names *names = entry->names;
	bool first = !entry->heard;

	entry->query = NULL;
	entry->heard = true;
	names->n_in_flight--;
	names->n_iterating++;
	if (take_reply(entry, reply) || first)
		notify(entry);
	arm(names, entry_due_ns(entry));
	end_iteration(names);
	start_queued(names);
}

static void poll_entry(struct entry *entry, uint64_t now)
{
	struct names *names = entry->names;

	if (entry->n_watches == 0)
		return;
	if ((!is_held(entry) && nameset_tick(&entry->set, now)) || entry->announce)
		notify(entry);
	if (entry->n_watches > 0 && !is_held(entry) && !entry->query && !entry->queued &&
	    entry->set.next_query_ns <= now) {
		entry->queued = true;
		TAILQ_INSERT_TAIL(&names->queue, entry, link);
	}
}

void names_poll(struct names *names)
{
	uint64_t now = now_ns(names), due_ns = UINT64_MAX;

	names->armed_ns = UINT64_MAX;
	names->n_iterating++;
	for (size_t i = 0; i < names->n_entries; i++)
		poll_entry(names->entries[i], now);
	end_iteration(names);
	start_queued(names);
	for (size_t i = 0; i < names->n_entries; i++)
		if (entry_due_ns(names->entries[i]) < due_ns)
			due_ns = entry_due_ns(names->entries[i]);
	arm(names, due_ns);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	names_poll(arg);
}

static void set_defaults(struct names *names)
{
	struct names_config *config = &names->config;

	if (!config->now_ns)
		config->now_ns = system_now_ns;
	if (!config->uniform)
		config->uniform = system_uniform;
	if (config->timeout_ns == 0)
		config->timeout_ns = SEC;
	names->limits.min_ttl_ns = config->min_ttl_ns ? config->min_ttl_ns : SEC;
	names->limits.max_ttl_ns = config->max_ttl_ns ? config->max_ttl_ns : 300 * SEC;
	names->limits.stale_ns = config->stale_ns;
	config->servers_csv = NULL; /* the caller's memory */
}

struct names *names_create(struct event_base *base, const struct names_config *config, names_changed_fn *changed,
			   void *arg)
{
	struct names *names = calloc(1, sizeof(*names));
	int saved_errno;

	if (!names)
		return NULL;
	names->config = *config;
	names->changed = changed;
	names->arg = arg;
	names->armed_ns = UINT64_MAX;
	TAILQ_INIT(&names->queue);
	set_defaults(names);
	names->entries = calloc(ENTRIES_MAX, sizeof(*names->entries));
	names->timer = evtimer_new(base, on_timer, names);
	if (!names->entries || !names->timer) {
		errno = ENOMEM;
		goto fail;
	}
	names->resolver = resolver_create(base, config->servers_csv, names->config.timeout_ns);
	if (!names->resolver)
		goto fail;
	return names;

fail:
	saved_errno = errno;
	names_destroy(names);
	errno = saved_errno;
	return NULL;
}

void names_destroy(struct names *names)
{
	if (!names)
		return;
	resolver_destroy(names->resolver);
	for (size_t i = 0; i < names->n_entries; i++)
		free_entry(names->entries[i]);
	free(names->entries);
	if (names->timer)
		event_free(names->timer);
	free(names);
}

static int compare_key(const struct entry *entry, const char *name, uint8_t family)
{
	int order = strcasecmp(entry->name, name);

	return order ? order : entry->family - family;
}

/* Index of the first entry that is not before (name, family). */
static size_t lower_bound(const struct names *names, const char *name, uint8_t family)
{
	size_t low = 0, high = names->n_entries;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (compare_key(names->entries[mid], name, family) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static struct entry *entry_at(const struct names *names, size_t idx, const char *name, uint8_t family)
{
	return idx < names->n_entries && compare_key(names->entries[idx], name, family) == 0 ? names->entries[idx]
											     : NULL;
}

/* Labels of 1 to 63 letters, digits, '-' and '_', at most 253 bytes, absolute whether or not a dot ends it. */
static bool name_valid(const char *name)
{
	size_t label_len = 0, len = 0;

	for (; name[len]; len++) {
		char c = name[len];

		if (len >= 254)
			return false;
		if (c == '.') {
			if (label_len == 0)
				return false;
			label_len = 0;
			continue;
		}
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
		      c == '_'))
			return false;
		if (++label_len > 63)
			return false;
	}
	return len > 0 && (len < 254 || label_len == 0);
}

static struct entry *create_entry(struct names *names, const char *name, size_t len, uint8_t family)
{
	struct entry *entry = calloc(1, sizeof(*entry) + len + 1);

	if (!entry)
		return NULL;
	entry->names = names;
	entry->family = family;
	memcpy(entry->name, name, len);
	nameset_init(&entry->set, now_ns(names));
	return entry;
}

/* Without the final dot, so that "a.test" and "a.test." are one. */
static void normalize(const char *name, char out[static 256])
{
	size_t len = strlen(name);

	memcpy(out, name, len + 1);
	if (out[len - 1] == '.')
		out[len - 1] = '\0';
}

int names_watch(struct names *names, const char *name, uint8_t family)
{
	struct entry *entry;
	char key[256];
	size_t idx;

	if (!name_valid(name) || (family != 4 && family != 6))
		return -EINVAL;
	normalize(name, key);
	idx = lower_bound(names, key, family);
	entry = entry_at(names, idx, key, family);
	if (!entry) {
		if (names->n_entries == ENTRIES_MAX)
			return -ENOSPC;
		entry = create_entry(names, key, strlen(key), family);
		if (!entry)
			return -ENOMEM;
		memmove(&names->entries[idx + 1], &names->entries[idx],
			(names->n_entries - idx) * sizeof(*names->entries));
		names->entries[idx] = entry;
		names->n_entries++;
	}
	entry->n_watches++;
	entry->announce = true;
	poll_soon(names);
	return 0;
}

static void stop_asking(struct entry *entry)
{
	struct names *names = entry->names;

	if (entry->queued)
		TAILQ_REMOVE(&names->queue, entry, link);
	entry->queued = false;
	if (!entry->query)
		return;
	resolver_cancel(entry->query);
	entry->query = NULL;
	names->n_in_flight--;
	start_queued(names);
}

void names_unwatch(struct names *names, const char *name, uint8_t family)
{
	struct entry *entry;
	char key[256];

	if (!name_valid(name))
		return;
	normalize(name, key);
	entry = entry_at(names, lower_bound(names, key, family), key, family);
	if (!entry || entry->n_watches == 0 || --entry->n_watches > 0)
		return;
	names->n_iterating++;
	stop_asking(entry);
	end_iteration(names);
}

int names_restore(struct names *names, const char *name, uint8_t family, const struct ipaddr *addresses, size_t n,
		  uint64_t ttl_ns, uint64_t age_ns)
{
	struct entry *entry;
	char key[256];
	int err;

	if (!name_valid(name))
		return -EINVAL;
	normalize(name, key);
	entry = entry_at(names, lower_bound(names, key, family), key, family);
	if (!entry || entry->n_watches == 0)
		return -ENOENT;
	err = nameset_restore(&entry->set, &names->limits, now_ns(names), addresses, n, ttl_ns, age_ns);
	if (err)
		return err;
	entry->announce = true;
	poll_soon(names);
	return 0;
}

void names_hold(struct names *names, bool hold)
{
	if (names->held == hold)
		return;
	names->held = hold;
	poll_soon(names);
}

void names_foreach(struct names *names, names_changed_fn *fn, void *arg)
{
	names->n_iterating++;
	for (size_t i = 0; i < names->n_entries; i++) {
		struct name_view view = entry_view(names->entries[i]);

		if (names->entries[i]->n_watches > 0)
			fn(arg, &view);
	}
	end_iteration(names);
}
