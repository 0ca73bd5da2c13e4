/* SPDX-License-Identifier: BSD-3-Clause */
#include "nameset.h"

#include <errno.h>
#include <stdlib.h>

#define MSEC                1000000ULL
#define SEC                 (1000 * MSEC)

#define EXPIRE_GRACE_NS     (2 * SEC) /* an answer in flight at expiry must not change anything */
#define NEGATIVE_CONFIRM    3
#define NEGATIVE_CONFIRM_NS (30 * SEC)
#define NEGATIVE_RECHECK_NS (5 * SEC)
#define BACKOFF_MAX_NS      (30 * SEC)
#define SHORT_TTL_NS        (2 * SEC)

const char *name_state_text(enum name_state state)
{
	static const char *const texts[] = {
		[NAME_INIT] = "init",   [NAME_FRESH] = "fresh", [NAME_STALE] = "stale",
		[NAME_DOUBT] = "doubt", [NAME_GONE] = "gone",   [NAME_EXPIRED] = "expired",
	};

	return texts[state];
}

static uint64_t clamp_ns(uint64_t v, uint64_t min, uint64_t max)
{
	return v < min ? min : v > max ? max : v;
}

void nameset_init(struct nameset *set, uint64_t now_ns)
{
	*set = (struct nameset){.state = NAME_INIT, .next_query_ns = now_ns, .last_error = ""};
}

void nameset_fini(struct nameset *set)
{
	free(set->addresses);
	*set = (struct nameset){.last_error = ""};
}

static int compare_addresses(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ipaddr));
}

/* Sorts and removes duplicates; returns how many are left. */
static size_t sort_unique(struct ipaddr *addresses, size_t n)
{
	size_t n_unique = 0;

	qsort(addresses, n, sizeof(*addresses), compare_addresses);
	for (size_t i = 0; i < n; i++)
		if (n_unique == 0 || !ipaddr_equal(&addresses[n_unique - 1], &addresses[i]))
			addresses[n_unique++] = addresses[i];
	return n_unique;
}

static int replace_addresses(struct nameset *set, const struct ipaddr *addresses, size_t n, uint64_t expires_ns)
{
	struct ipaddr *sorted = malloc(n * sizeof(*sorted));
	struct name_address *fresh = NULL;
	size_t n_unique, n_used;

	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, addresses, n * sizeof(*sorted));
	n_unique = sort_unique(sorted, n);
	n_used = n_unique < NAMESET_MAX_ADDRESSES ? n_unique : NAMESET_MAX_ADDRESSES;
	fresh = malloc(n_used * sizeof(*fresh));
	if (!fresh) {
		free(sorted);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n_used; i++)
		fresh[i] = (struct name_address){.addr = sorted[i], .expires_ns = expires_ns};
	free(sorted);
	free(set->addresses);
	set->addresses = fresh;
	set->n_addresses = n_used;
	set->last_error = n_used < n_unique ? "more than 1024 addresses: the rest is not used" : "";
	return 0;
}

/*
 * At 75 to 90 % of the TTL. A remainder under 2 s usually means that the resolver's own copy is about to expire: asking
 * before that would get the same copy with a still shorter TTL, so ask just after. TTL 0 is never a cached copy.
 */
static uint64_t refresh_after_ns(uint64_t ttl_ns, uint32_t ttl_s, double chance)
{
	if (ttl_ns >= SHORT_TTL_NS)
		return (uint64_t)((double)ttl_ns * (0.75 + 0.15 * chance));
	if (ttl_s == 0)
		return ttl_ns + (uint64_t)(chance * 150 * MSEC);
	return ttl_ns + 50 * MSEC + (uint64_t)(chance * 200 * MSEC);
}

static uint64_t add_saturated(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t subtract_saturated(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t serve_after_expiry_ns(const struct nameset_limits *limits)
{
	return limits->stale_ns > EXPIRE_GRACE_NS ? limits->stale_ns : EXPIRE_GRACE_NS;
}

int nameset_answer(struct nameset *set, const struct nameset_limits *limits, uint64_t now_ns, double chance,
		   const struct ipaddr *addresses, size_t n, uint32_t ttl_s)
{
	uint64_t ttl_ns = clamp_ns(ttl_s * SEC, limits->min_ttl_ns, limits->max_ttl_ns);
	int err = replace_addresses(set, addresses, n, now_ns + ttl_ns);

	if (err)
		return err;
	set->state = NAME_FRESH;
	set->ttl_ns = ttl_ns;
	set->last_answer_ns = now_ns;
	set->unclocked_ns = 0;
	set->expires_ns = now_ns + ttl_ns;
	set->useless_ns = add_saturated(set->expires_ns, serve_after_expiry_ns(limits));
	set->next_query_ns = now_ns + refresh_after_ns(ttl_ns, ttl_s, chance);
	set->n_negative = 0;
	set->n_failed = 0;
	return 0;
}

int nameset_restore(struct nameset *set, const struct nameset_limits *limits, uint64_t now_ns,
		    const struct ipaddr *addresses, size_t n, uint64_t ttl_ns, uint64_t age_ns)
{
	uint64_t clamped_ns = clamp_ns(ttl_ns, limits->min_ttl_ns, limits->max_ttl_ns);
	uint64_t serve_ns = add_saturated(clamped_ns, serve_after_expiry_ns(limits));
	/* The answer may be older than a monotonic clock that began with the last boot. */
	uint64_t answered_ns = subtract_saturated(now_ns, age_ns);
	int err;

	if (n == 0)
		return -EINVAL;
	if (set->state != NAME_INIT)
		return -EALREADY;
	if (age_ns >= serve_ns)
		return -ESTALE;
	err = replace_addresses(set, addresses, n, answered_ns + clamped_ns);
	if (err)
		return err;
	set->state = NAME_STALE;
	set->ttl_ns = clamped_ns;
	set->last_answer_ns = answered_ns;
	set->unclocked_ns = subtract_saturated(age_ns, now_ns);
	set->expires_ns = answered_ns + clamped_ns;
	set->useless_ns = add_saturated(now_ns, serve_ns - age_ns);
	return 0;
}

static bool has_set(const struct nameset *set)
{
	return set->state != NAME_INIT && set->state != NAME_EXPIRED;
}

bool nameset_negative(struct nameset *set, uint64_t now_ns, const char *error, uint32_t negative_ttl_s)
{
	uint64_t recheck_ns = clamp_ns(negative_ttl_s * SEC, SEC, NEGATIVE_RECHECK_NS);
	bool changed = nameset_tick(set, now_ns);
	enum name_state before = set->state;

	set->last_error = error;
	set->n_failed = 0;
	set->next_query_ns = now_ns + recheck_ns;
	if (!has_set(set))
		return changed;
	if (set->n_negative++ == 0)
		set->first_negative_ns = now_ns;
	if (set->state != NAME_GONE)
		set->state = NAME_DOUBT;
	if (set->n_negative >= NEGATIVE_CONFIRM && now_ns - set->first_negative_ns >= NEGATIVE_CONFIRM_NS)
		set->state = NAME_GONE;
	return changed || set->state != before;
}

/*
 * RFC 9520 3.2: 1, 2, 4 … 30 s, ±25 % so that many gateways do not ask a struggling server in step, and never less than
 * 1 s.
 */
static uint64_t backoff_ns(unsigned n_failed, double chance)
{
	uint64_t base = n_failed > 5 ? BACKOFF_MAX_NS : SEC << (n_failed - 1);
	uint64_t wait_ns = (uint64_t)((double)base * (0.75 + 0.5 * chance));

	return wait_ns > SEC ? wait_ns : SEC;
}

bool nameset_failure(struct nameset *set, uint64_t now_ns, double chance, const char *error)
{
	set->last_error = error;
	set->failures++;
	if (set->n_failed < UINT32_MAX)
		set->n_failed++;
	set->next_query_ns = now_ns + backoff_ns(set->n_failed, chance);
	return nameset_tick(set, now_ns);
}

uint64_t nameset_age_ns(const struct nameset *set, uint64_t now_ns)
{
	if (set->state == NAME_INIT)
		return 0;
	return add_saturated(subtract_saturated(now_ns, set->last_answer_ns), set->unclocked_ns);
}

static uint64_t stale_at_ns(const struct nameset *set)
{
	return set->expires_ns + EXPIRE_GRACE_NS;
}

uint64_t nameset_deadline_ns(const struct nameset *set)
{
	if (!has_set(set))
		return UINT64_MAX;
	return set->state == NAME_FRESH ? stale_at_ns(set) : set->useless_ns;
}

bool nameset_tick(struct nameset *set, uint64_t now_ns)
{
	enum name_state before = set->state;

	if (set->state == NAME_FRESH && now_ns > stale_at_ns(set))
		set->state = NAME_STALE;
	if (has_set(set) && set->state != NAME_FRESH && now_ns > set->useless_ns) {
		set->state = NAME_EXPIRED;
		free(set->addresses);
		set->addresses = NULL;
		set->n_addresses = 0;
	}
	return set->state != before;
}
