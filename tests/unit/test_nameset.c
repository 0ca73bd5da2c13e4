/* SPDX-License-Identifier: BSD-3-Clause */
#include "nameset.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MSEC 1000000ULL
#define SEC  (1000 * MSEC)
#define HOUR (3600 * SEC)
#define T0   (1000 * SEC)

static const struct nameset_limits limits = {.min_ttl_ns = SEC, .max_ttl_ns = 300 * SEC, .stale_ns = 24 * HOUR};

static struct ipaddr addr(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

static void answer(struct nameset *set, uint64_t now_ns, double chance, uint32_t ttl_s)
{
	struct ipaddr a = addr("198.18.3.21");

	assert_int_equal(nameset_answer(set, &limits, now_ns, chance, &a, 1, ttl_s), 0);
}

static struct nameset fresh(uint32_t ttl_s)
{
	struct nameset set;

	nameset_init(&set, T0);
	answer(&set, T0, 0.5, ttl_s);
	return set;
}

static bool negative(struct nameset *set, uint64_t now_ns, uint32_t ttl_s)
{
	return nameset_negative(set, now_ns, "no such name", ttl_s);
}

static bool failure(struct nameset *set, uint64_t now_ns)
{
	return nameset_failure(set, now_ns, 0.5, "SERVFAIL");
}

static void test_init(void **state)
{
	struct nameset set;

	nameset_init(&set, T0);
	assert_int_equal(set.state, NAME_INIT);
	assert_int_equal(set.next_query_ns, T0);
	assert_true(nameset_deadline_ns(&set) == UINT64_MAX);
	assert_false(failure(&set, T0));
	assert_false(negative(&set, T0 + SEC, 5));
	assert_false(nameset_tick(&set, T0 + 100 * HOUR));
	assert_int_equal(set.state, NAME_INIT);
	assert_int_equal(set.n_addresses, 0);
	nameset_fini(&set);
}

static void test_refresh_time(void **state)
{
	static const struct {
		uint32_t ttl_s;
		uint64_t min_ms, max_ms; /* after the answer, for chance 0 and 1 */
		uint64_t ttl_ms;
	} cases[] = {
		{0, 1000, 1150, 1000},
		{1, 1050, 1250, 1000},
		{2, 1500, 1800, 2000},
		{10, 7500, 9000, 10000},
		{60, 45000, 54000, 60000},
		{300, 225000, 270000, 300000},
		{86400, 225000, 270000, 300000},
		{0x80000000u, 225000, 270000, 300000},
		{UINT32_MAX, 225000, 270000, 300000},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (double chance = 0; chance < 1; chance += 0.0625) {
			struct nameset set;

			nameset_init(&set, T0);
			answer(&set, T0, chance, cases[i].ttl_s);
			assert_in_range(set.next_query_ns - T0, cases[i].min_ms * MSEC, cases[i].max_ms * MSEC);
			if (chance == 0)
				assert_int_equal(set.next_query_ns - T0, cases[i].min_ms * MSEC);
			assert_int_equal(set.ttl_ns, cases[i].ttl_ms * MSEC);
			assert_int_equal(set.expires_ns, T0 + set.ttl_ns);
			assert_int_equal(set.addresses[0].expires_ns, set.expires_ns);
			assert_int_equal(set.state, NAME_FRESH);
			nameset_fini(&set);
		}
	}
}

/* Never more often than once a second, nor than 0.75 TTL, whatever the answers say. */
static void test_query_rate(void **state)
{
	struct nameset set;
	unsigned seed = 1;

	nameset_init(&set, T0);
	for (int i = 0; i < 20000; i++) {
		uint64_t now = set.next_query_ns;
		uint32_t ttl_s = (uint32_t)rand_r(&seed) % 400;

		answer(&set, now, (double)(rand_r(&seed) % 1000) / 1000, ttl_s);
		assert_true(set.next_query_ns - now >= SEC);
		assert_true(set.next_query_ns - now >= set.ttl_ns / 4 * 3);
		assert_true(set.next_query_ns < set.expires_ns + 2 * SEC);
	}
	nameset_fini(&set);
}

static void test_set_is_replaced_whole(void **state)
{
	struct ipaddr first[] = {addr("198.18.3.22"), addr("198.18.3.21"), addr("198.18.3.22")};
	struct ipaddr second[] = {addr("198.18.3.23"), addr("198.18.3.22")};
	struct nameset set;

	nameset_init(&set, T0);
	assert_int_equal(nameset_answer(&set, &limits, T0, 0, first, 3, 60), 0);
	assert_int_equal(set.n_addresses, 2);
	assert_memory_equal(&set.addresses[0].addr, &first[1], sizeof(struct ipaddr));
	assert_memory_equal(&set.addresses[1].addr, &first[0], sizeof(struct ipaddr));
	assert_int_equal(nameset_answer(&set, &limits, T0 + 50 * SEC, 0, second, 2, 60), 0);
	assert_int_equal(set.n_addresses, 2);
	assert_memory_equal(&set.addresses[0].addr, &second[1], sizeof(struct ipaddr));
	assert_memory_equal(&set.addresses[1].addr, &second[0], sizeof(struct ipaddr));
	assert_int_equal(set.addresses[0].expires_ns, T0 + 110 * SEC);
	nameset_fini(&set);
}

static void test_address_limit(void **state)
{
	static struct ipaddr many[NAMESET_MAX_ADDRESSES + 1];
	struct nameset set;

	for (uint32_t i = 0; i <= NAMESET_MAX_ADDRESSES; i++)
		many[NAMESET_MAX_ADDRESSES - i] = ipaddr_v4(htonl(0xc6120000 + i));
	nameset_init(&set, T0);
	assert_int_equal(nameset_answer(&set, &limits, T0, 0, many + 1, NAMESET_MAX_ADDRESSES, 60), 0);
	assert_string_equal(set.last_error, "");
	assert_int_equal(nameset_answer(&set, &limits, T0, 0, many, NAMESET_MAX_ADDRESSES + 1, 60), 0);
	assert_int_equal(set.n_addresses, NAMESET_MAX_ADDRESSES);
	assert_int_equal(ipaddr_v4_be(&set.addresses[0].addr), htonl(0xc6120000));
	assert_int_equal(ipaddr_v4_be(&set.addresses[1023].addr), htonl(0xc6120000 + 1023));
	assert_string_not_equal(set.last_error, "");
	nameset_fini(&set);
}

static void test_stale_after_grace(void **state)
{
	struct nameset set = fresh(5);

	assert_false(failure(&set, T0 + 4 * SEC));
	assert_int_equal(set.state, NAME_FRESH);
	assert_int_equal(nameset_deadline_ns(&set), T0 + 7 * SEC);
	assert_false(nameset_tick(&set, T0 + 7 * SEC));
	assert_true(nameset_tick(&set, T0 + 7 * SEC + 1));
	assert_int_equal(set.state, NAME_STALE);
	assert_int_equal(set.n_addresses, 1);
	assert_int_equal(nameset_deadline_ns(&set), T0 + 5 * SEC + 24 * HOUR);
	assert_false(nameset_tick(&set, T0 + 5 * SEC + 24 * HOUR));
	assert_true(nameset_tick(&set, T0 + 5 * SEC + 24 * HOUR + 1));
	assert_int_equal(set.state, NAME_EXPIRED);
	assert_int_equal(set.n_addresses, 0);
	assert_true(nameset_deadline_ns(&set) == UINT64_MAX);
	assert_false(failure(&set, T0 + 25 * HOUR));
	assert_false(negative(&set, T0 + 25 * HOUR, 5));
	assert_int_equal(set.state, NAME_EXPIRED);
	answer(&set, T0 + 26 * HOUR, 0, 5);
	assert_int_equal(set.state, NAME_FRESH);
	nameset_fini(&set);
}

/* A gateway that slept through everything: one tick goes all the way. */
static void test_fresh_to_expired_at_once(void **state)
{
	struct nameset set = fresh(5);

	assert_true(nameset_tick(&set, T0 + 48 * HOUR));
	assert_int_equal(set.state, NAME_EXPIRED);
	nameset_fini(&set);
}

static void test_no_stale_allowed(void **state)
{
	static const struct nameset_limits strict = {.min_ttl_ns = SEC, .max_ttl_ns = 300 * SEC, .stale_ns = 0};
	struct ipaddr a = addr("198.18.3.21");
	struct nameset set;

	nameset_init(&set, T0);
	assert_int_equal(nameset_answer(&set, &strict, T0, 0.5, &a, 1, 5), 0);
	assert_false(nameset_tick(&set, T0 + 7 * SEC));
	assert_true(nameset_tick(&set, T0 + 7 * SEC + 1));
	assert_int_equal(set.state, NAME_EXPIRED);
	nameset_fini(&set);
}

/* SERVFAIL for ten minutes: the set is kept, the queries come 1, 2, 4, 8, 16, 30, 30 … s apart, ±25 %. */
static void test_backoff(void **state)
{
	static const uint64_t base_s[] = {1, 2, 4, 8, 16, 30, 30, 30};

	for (double chance = 0; chance < 1; chance += 0.25) {
		struct nameset set = fresh(60);
		uint64_t now = set.next_query_ns, end = now + 600 * SEC;

		for (size_t i = 0; now < end; i++) {
			uint64_t base = base_s[i < 8 ? i : 7] * SEC, wait_ns;

			nameset_failure(&set, now, chance, "SERVFAIL");
			wait_ns = (uint64_t)((double)base * (0.75 + 0.5 * chance));
			assert_int_equal(set.next_query_ns - now, wait_ns > SEC ? wait_ns : SEC);
			assert_int_equal(set.n_addresses, 1);
			assert_int_equal(set.state, now > T0 + 62 * SEC ? NAME_STALE : NAME_FRESH);
			assert_int_equal(set.failures, i + 1);
			now = set.next_query_ns;
		}
		answer(&set, now, 0, 60);
		assert_int_equal(set.state, NAME_FRESH);
		assert_string_equal(set.last_error, "");
		failure(&set, now + 60 * SEC);
		assert_int_equal(set.next_query_ns, now + 61 * SEC);
		nameset_fini(&set);
	}
}

static void test_negative_to_gone(void **state)
{
	struct nameset set = fresh(60);
	uint64_t now = T0 + 50 * SEC, first = now;
	unsigned n = 0;

	for (;;) {
		bool changed = negative(&set, now, NAMESET_TTL_UNKNOWN);

		n++;
		assert_int_equal(set.n_addresses, 1);
		assert_int_equal(set.next_query_ns, now + 5 * SEC);
		if (set.state == NAME_GONE)
			break;
		assert_int_equal(set.state, NAME_DOUBT);
		assert_int_equal(changed, n == 1);
		assert_true(now - first < 30 * SEC);
		now = set.next_query_ns;
	}
	assert_int_equal(now - first, 30 * SEC);
	assert_false(negative(&set, now + 5 * SEC, 5));
	assert_false(failure(&set, now + 10 * SEC));
	assert_int_equal(set.state, NAME_GONE);
	assert_true(nameset_tick(&set, T0 + 25 * HOUR));
	assert_int_equal(set.state, NAME_EXPIRED);
	nameset_fini(&set);
}

static void test_gone_needs_three(void **state)
{
	struct nameset set = fresh(60);

	assert_true(negative(&set, T0 + 50 * SEC, 5));
	assert_false(negative(&set, T0 + 200 * SEC, 5));
	assert_int_equal(set.state, NAME_DOUBT);
	assert_true(negative(&set, T0 + 205 * SEC, 5));
	assert_int_equal(set.state, NAME_GONE);
	answer(&set, T0 + 210 * SEC, 0, 60);
	assert_int_equal(set.state, NAME_FRESH);
	/* The run starts anew. */
	assert_true(negative(&set, T0 + 260 * SEC, 5));
	assert_int_equal(set.state, NAME_DOUBT);
	nameset_fini(&set);
}

static void test_failure_in_doubt(void **state)
{
	struct nameset set = fresh(60);

	negative(&set, T0 + 50 * SEC, 5);
	failure(&set, T0 + 55 * SEC);
	failure(&set, T0 + 70 * SEC);
	assert_int_equal(set.state, NAME_DOUBT);
	negative(&set, T0 + 75 * SEC, 5);
	negative(&set, T0 + 81 * SEC, 5);
	assert_int_equal(set.state, NAME_GONE);
	nameset_fini(&set);
}

static void test_doubt_without_word_expires(void **state)
{
	struct nameset set = fresh(60);

	negative(&set, T0 + 50 * SEC, 5);
	failure(&set, T0 + 55 * SEC);
	assert_false(nameset_tick(&set, T0 + 23 * HOUR));
	assert_true(nameset_tick(&set, T0 + 25 * HOUR));
	assert_int_equal(set.state, NAME_EXPIRED);
	nameset_fini(&set);
}

static void test_stale_to_doubt(void **state)
{
	struct nameset set = fresh(5);

	nameset_tick(&set, T0 + 8 * SEC);
	assert_int_equal(set.state, NAME_STALE);
	assert_true(negative(&set, T0 + 9 * SEC, 5));
	assert_int_equal(set.state, NAME_DOUBT);
	nameset_fini(&set);
}

static void test_negative_recheck(void **state)
{
	static const struct {
		uint32_t ttl_s;
		uint64_t recheck_s;
	} cases[] = {{0, 1}, {1, 1}, {3, 3}, {5, 5}, {6, 5}, {3600, 5}, {NAMESET_TTL_UNKNOWN, 5}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nameset set = fresh(60);

		negative(&set, T0 + 50 * SEC, cases[i].ttl_s);
		assert_int_equal(set.next_query_ns, T0 + (50 + cases[i].recheck_s) * SEC);
		nameset_fini(&set);
	}
}

static void test_restore(void **state)
{
	struct ipaddr a = addr("198.18.3.21");
	struct nameset set;

	nameset_init(&set, T0);
	assert_int_equal(nameset_restore(&set, &limits, T0, &a, 0, 60 * SEC, HOUR), -EINVAL);
	assert_int_equal(nameset_restore(&set, &limits, T0, &a, 1, 60 * SEC, 24 * HOUR + 60 * SEC), -ESTALE);
	assert_int_equal(set.state, NAME_INIT);
	/* T0 is 1000 s after boot: the answer is from before. */
	assert_int_equal(nameset_restore(&set, &limits, T0, &a, 1, 60 * SEC, 23 * HOUR), 0);
	assert_int_equal(set.state, NAME_STALE);
	assert_int_equal(set.n_addresses, 1);
	assert_int_equal(set.next_query_ns, T0);
	assert_int_equal(nameset_deadline_ns(&set), T0 + HOUR + 60 * SEC);
	assert_int_equal(nameset_restore(&set, &limits, T0, &a, 1, 60 * SEC, HOUR), -EALREADY);
	assert_false(failure(&set, T0 + SEC));
	assert_false(nameset_tick(&set, T0 + HOUR + 60 * SEC));
	assert_true(nameset_tick(&set, T0 + HOUR + 60 * SEC + 1));
	assert_int_equal(set.state, NAME_EXPIRED);
	nameset_fini(&set);
}

/* Once there was an answer, the set is empty in EXPIRED alone; and time moves every state to its deadline. */
static void test_random_walk(void **state)
{
	unsigned seed = 7;

	for (int walk = 0; walk < 300; walk++) {
		struct nameset set;
		uint64_t now = T0;

		nameset_init(&set, now);
		for (int step = 0; step < 300; step++) {
			enum name_state before = set.state;
			bool changed = true;

			now += (uint64_t)rand_r(&seed) % (rand_r(&seed) % 50 ? 10 * SEC : 10 * HOUR);
			switch (rand_r(&seed) % 8) {
			case 0:
				answer(&set, now, 0.3, (uint32_t)rand_r(&seed) % 100);
				assert_int_equal(set.state, NAME_FRESH);
				break;
			case 1:
			case 2:
			case 3:
				changed = negative(&set, now, 5);
				break;
			default:
				changed = failure(&set, now);
			}
			if (before != set.state)
				assert_true(changed);
			assert_int_equal(set.n_addresses, set.state == NAME_INIT || set.state == NAME_EXPIRED ? 0 : 1);
			assert_true(set.next_query_ns > now);
			if (set.state == NAME_FRESH)
				assert_true(now <= set.last_answer_ns + set.ttl_ns + 2 * SEC);
		}
		nameset_fini(&set);
	}
}

/* Of an answer from before the clock began, too: or a set would grow younger with every boot. */
static void test_age(void **state)
{
	struct nameset set = fresh(60);
	struct ipaddr a = addr("198.18.3.21");

	assert_int_equal(nameset_age_ns(&set, T0 + 7 * SEC), 7 * SEC);
	nameset_fini(&set);
	nameset_init(&set, 10 * SEC);
	assert_int_equal(nameset_age_ns(&set, 11 * SEC), 0);
	assert_int_equal(nameset_restore(&set, &limits, 10 * SEC, &a, 1, 60 * SEC, HOUR), 0);
	assert_int_equal(nameset_age_ns(&set, 11 * SEC), HOUR + SEC);
	answer(&set, 20 * SEC, 0, 60);
	assert_int_equal(nameset_age_ns(&set, 21 * SEC), SEC);
	nameset_fini(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_refresh_time),
		cmocka_unit_test(test_query_rate),
		cmocka_unit_test(test_set_is_replaced_whole),
		cmocka_unit_test(test_address_limit),
		cmocka_unit_test(test_stale_after_grace),
		cmocka_unit_test(test_fresh_to_expired_at_once),
		cmocka_unit_test(test_no_stale_allowed),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_negative_to_gone),
		cmocka_unit_test(test_gone_needs_three),
		cmocka_unit_test(test_failure_in_doubt),
		cmocka_unit_test(test_doubt_without_word_expires),
		cmocka_unit_test(test_stale_to_doubt),
		cmocka_unit_test(test_negative_recheck),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_random_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
