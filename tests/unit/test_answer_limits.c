/* SPDX-License-Identifier: BSD-3-Clause */
#include "answer_limits.h"
#include "hash.h"
#include "memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS 1000000000ull
#define MS_NS     1000000ull
#define START_NS  (500 * SECOND_NS)
#define LATER_NS  (START_NS + 61 * SECOND_NS) /* after the grace for strays */

typedef bool limit_fn(struct answer_limits *limits, const struct ipaddr *addr, uint64_t now_ns);

static const uint8_t secret[HASH_SECRET_LEN] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

/* Instead of DPDK's memory, which a unit test does without. */
void *memory_alloc(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

	return p ? memset(p, 0, bytes) : NULL;
}

void memory_free(void *p)
{
	free(p);
}

static struct answer_limits *create(unsigned n_workers)
{
	struct answer_limits *l = answer_limits_create(n_workers, secret, START_NS);

	assert_non_null(l);
	return l;
}

static struct ipaddr v4(uint32_t host)
{
	return ipaddr_v4(htonl(0xc6120000 + host)); /* 198.18.0.0 */
}

/* 10 000 packets of one source in the second that begins at `now_ns`. */
static unsigned second_of(limit_fn *limit, struct answer_limits *l, const struct ipaddr *addr, uint64_t now_ns)
{
	unsigned n = 0;

	for (uint64_t i = 0; i < 10000; i++)
		n += limit(l, addr, now_ns + i * SECOND_NS / 10000);
	return n;
}

static void test_one_source(void **state)
{
	static const struct {
		limit_fn *limit;
		unsigned per_s;
	} cases[] = {{answer_limits_stray, 10}, {answer_limits_refused, 2}};
	struct answer_limits *l = create(1);
	struct ipaddr a = v4(1);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (uint64_t s = 0; s < 5; s++)
			assert_int_equal(second_of(cases[i].limit, l, &a, LATER_NS + s * SECOND_NS), cases[i].per_s);
	/* The grace for strays is of the whole gateway; a source gets no more than ever. */
	for (uint64_t s = 0; s < 5; s++)
		assert_int_equal(second_of(answer_limits_stray, l, &a, START_NS + s * SECOND_NS), 10);
	answer_limits_destroy(l);
}

/* C-7: ten at once, and ten a second. */
static void test_icmp_of_one(void **state)
{
	struct answer_limits *l = create(1);
	struct ipaddr a = v4(1);

	for (int i = 0; i < 10; i++)
		assert_true(answer_limits_icmp(l, &a, LATER_NS));
	assert_false(answer_limits_icmp(l, &a, LATER_NS));
	for (uint64_t s = 0; s < 5; s++)
		assert_int_equal(second_of(answer_limits_icmp, l, &a, LATER_NS + s * SECOND_NS), s ? 10 : 9);
	answer_limits_destroy(l);
}

static void test_icmp_of_one_over_workers(void **state)
{
	struct answer_limits *workers[4];
	struct ipaddr a = v4(1);
	unsigned n = 0;

	for (int w = 0; w < 4; w++)
		workers[w] = create(4);
	for (uint64_t s = 0; s < 20; s++)
		for (int w = 0; w < 4; w++)
			n += second_of(answer_limits_icmp, workers[w], &a, LATER_NS + s * SECOND_NS);
	assert_in_range(n, 190, 210); /* 10/s, and at most 10 at once */
	for (int w = 0; w < 4; w++)
		answer_limits_destroy(workers[w]);
}

/* Three at once, then one a second, however many packets of the flow are too big. */
static void test_flow(void **state)
{
	struct answer_limits *l = create(1);
	struct ipaddr a = v4(1);
	unsigned n = 0;

	for (int i = 0; i < 3; i++)
		assert_true(answer_limits_ptb(l, 77, &a, LATER_NS));
	assert_false(answer_limits_ptb(l, 77, &a, LATER_NS));
	/* Another flow to the same destination has its own, and both share the destination's ten. */
	for (int i = 0; i < 3; i++)
		assert_true(answer_limits_ptb(l, 78, &a, LATER_NS));
	for (int i = 0; i < 4; i++)
		assert_true(answer_limits_ptb(l, 79 + i, &a, LATER_NS));
	assert_false(answer_limits_ptb(l, 90, &a, LATER_NS));
	for (uint64_t ms = 1; ms <= 10000; ms++)
		n += answer_limits_ptb(l, 77, &a, LATER_NS + ms * MS_NS);
	assert_int_equal(n, 10);
	answer_limits_destroy(l);
}

/* Its packets come to every worker, as those of different ports do. */
static void test_one_source_over_workers(void **state)
{
	struct answer_limits *workers[4];
	struct ipaddr a = v4(1);
	unsigned n = 0;

	for (int w = 0; w < 4; w++)
		workers[w] = create(4);
	for (uint64_t s = 0; s < 20; s++)
		for (int w = 0; w < 4; w++)
			n += second_of(answer_limits_stray, workers[w], &a, LATER_NS + s * SECOND_NS);
	assert_in_range(n, 190, 204); /* 10/s; each worker's first comes at once */
	for (int w = 0; w < 4; w++)
		answer_limits_destroy(workers[w]);
}

/* One packet each of ever new sources, 50 000/s for a second. */
static unsigned sources_second(limit_fn *limit, struct answer_limits *l, uint64_t now_ns)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < 50000; i++) {
		struct ipaddr a = v4(i);

		n += limit(l, &a, now_ns + i * (SECOND_NS / 50000));
	}
	return n;
}

/* In all: the rate, and 100 ms of it as a burst; of ICMP, a second's. */
static void test_in_all(void **state)
{
	struct answer_limits *l = create(1);

	assert_in_range(sources_second(answer_limits_stray, l, START_NS), 21990, 22002);
	assert_in_range(sources_second(answer_limits_stray, l, LATER_NS), 1099, 1102);
	assert_in_range(sources_second(answer_limits_refused, l, LATER_NS), 9899, 9902);
	assert_in_range(sources_second(answer_limits_icmp, l, LATER_NS), 1998, 2001);
	answer_limits_destroy(l);
}

static void test_shares_of_all(void **state)
{
	struct answer_limits *l = create(4);

	assert_in_range(sources_second(answer_limits_stray, l, LATER_NS), 274, 277);
	answer_limits_destroy(l);
}

/* Flows that end on purpose share the limit of refusals, which cannot starve them: those may be silent. */
static void test_ends_come_first(void **state)
{
	struct answer_limits *l = create(1);
	unsigned refused = 0, ended = 0;

	for (uint32_t i = 0; i < 50000; i++) {
		uint64_t now_ns = LATER_NS + i * (SECOND_NS / 50000);
		struct ipaddr a = v4(i);

		refused += answer_limits_refused(l, &a, now_ns);
		if (i % 50 == 0)
			ended += answer_limits_ends(l, 2, now_ns);
	}
	assert_int_equal(ended, 1000);
	assert_in_range(refused + 2 * ended, 9890, 10352);
	/* Alone: two RSTs each, 9 000 in a second and 150 ms of it at once. */
	for (uint32_t i = ended = 0; i < 50000; i++)
		ended += answer_limits_ends(l, 2, LATER_NS + 2 * SECOND_NS + i * (SECOND_NS / 50000));
	assert_in_range(2 * ended, 10346, 10354);
	answer_limits_destroy(l);
}

/* However much backends have to be told, ends of flows hear theirs; what is told to backends leaves refusals nothing.
 */
static void test_backends_come_second(void **state)
{
	struct answer_limits *l = create(1);
	unsigned refused = 0, told = 0, ended = 0;

	for (uint32_t i = 0; i < 100000; i++) {
		uint64_t now_ns = LATER_NS + i * (SECOND_NS / 50000);
		struct ipaddr a = v4(i);

		told += answer_limits_backend(l, now_ns);
		refused += i >= 50000 && answer_limits_refused(l, &a, now_ns);
		if (i % 50 == 0)
			ended += answer_limits_ends(l, 2, now_ns);
	}
	assert_int_equal(ended, 2000);
	assert_int_equal(refused, 0);
	assert_in_range(told + 2 * ended, 18000, 18000 + 1350 + 4);
	answer_limits_destroy(l);
}

/* D-9: everything that resets, at once and as much of each as may come: 10 000 RST/s, and what goes at once. */
static void test_whole_gateway(void **state)
{
	for (unsigned n_workers = 1; n_workers <= 3; n_workers += 2) {
		struct answer_limits *workers[3];
		unsigned n = 0;

		for (unsigned w = 0; w < n_workers; w++)
			workers[w] = create(n_workers);
		for (uint32_t i = 0; i < 5 * 20000; i++)
			for (unsigned w = 0; w < n_workers; w++) {
				struct ipaddr a = v4(i);
				uint64_t now_ns = LATER_NS + i * (SECOND_NS / 20000);

				n += answer_limits_stray(workers[w], &a, now_ns);
				n += answer_limits_refused(workers[w], &a, now_ns);
				n += 2 * answer_limits_ends(workers[w], 2, now_ns);
				n += answer_limits_ends(workers[w], 1, now_ns);
				n += answer_limits_backend(workers[w], now_ns);
			}
		assert_in_range(n, 5 * 10000, 5 * 10000 + 100 + 1350 + 4 * n_workers);
		for (unsigned w = 0; w < n_workers; w++)
			answer_limits_destroy(workers[w]);
	}
}

static void test_kinds_are_apart(void **state)
{
	struct answer_limits *l = create(1);
	struct ipaddr a = v4(1);

	assert_true(answer_limits_stray(l, &a, LATER_NS));
	assert_false(answer_limits_stray(l, &a, LATER_NS));
	assert_true(answer_limits_refused(l, &a, LATER_NS));
	assert_true(answer_limits_icmp(l, &a, LATER_NS));
	answer_limits_destroy(l);
}

static void test_ipv6_by_64(void **state)
{
	static const struct {
		const char *text;
		bool answered;
	} cases[] = {{"2001:db8:1::1", true},   {"2001:db8:1::2", false}, {"2001:db8:1:0:ffff:ffff:ffff:ffff", false},
		     {"2001:db8:1:1::1", true}, {"198.18.0.1", true},     {"198.18.0.2", true}};
	struct answer_limits *l = create(1);
	struct ipaddr a;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(ipaddr_parse(cases[i].text, &a), 0);
		assert_int_equal(answer_limits_stray(l, &a, LATER_NS), cases[i].answered);
	}
	answer_limits_destroy(l);
}

/* Byte for byte, whichever bucket refused, and although source and flow were not known yet. */
static void test_denied_changes_nothing(void **state)
{
	struct answer_limits *l = create(1);
	void *before = malloc(answer_limits_bytes());
	struct ipaddr known = v4(1), fresh = v4(1000000);

	assert_non_null(before);
	assert_true(answer_limits_stray(l, &known, LATER_NS));
	for (int i = 0; i < 3; i++)
		assert_true(answer_limits_ptb(l, 5, &known, LATER_NS));
	memcpy(before, l, answer_limits_bytes());
	assert_false(answer_limits_stray(l, &known, LATER_NS));
	assert_false(answer_limits_ptb(l, 5, &known, LATER_NS));
	assert_memory_equal(before, l, answer_limits_bytes());
	while (answer_limits_icmp(l, &known, LATER_NS))
		;
	memcpy(before, l, answer_limits_bytes());
	assert_false(answer_limits_ptb(l, 6, &known, LATER_NS));
	assert_memory_equal(before, l, answer_limits_bytes());
	for (uint32_t i = 2; i < 2000; i++) {
		struct ipaddr a = v4(i);

		answer_limits_icmp(l, &a, LATER_NS);
	}
	memcpy(before, l, answer_limits_bytes());
	assert_false(answer_limits_icmp(l, &fresh, LATER_NS));
	assert_false(answer_limits_ptb(l, 7, &fresh, LATER_NS));
	assert_memory_equal(before, l, answer_limits_bytes());
	free(before);
	answer_limits_destroy(l);
}

/* A busy source keeps its cell while thousands pass through the table once each. */
static void test_the_idle_make_room(void **state)
{
	struct answer_limits *l = create(1);
	struct ipaddr busy = v4(0xffffff);
	uint32_t passing = 0;
	unsigned n = 0;

	for (uint64_t ms = 0; ms < 20000; ms++) {
		n += answer_limits_stray(l, &busy, START_NS + ms * MS_NS);
		for (int i = 0; i < 3; i++) {
			struct ipaddr a = v4(passing++);

			assert_true(answer_limits_stray(l, &a, START_NS + ms * MS_NS));
		}
	}
	assert_in_range(n, 200, 204);
	answer_limits_destroy(l);
}

static void test_echo(void **state)
{
	struct answer_limits *l = create(1);
	unsigned n = 0;

	for (uint64_t i = 0; i < 20000; i++)
		n += answer_limits_echo(l, LATER_NS + i * MS_NS);
	assert_in_range(n, 100 * 20, 100 * 20 + 12);
	answer_limits_destroy(l);
}

static void test_create(void **state)
{
	assert_null(answer_limits_create(0, secret, START_NS));
	assert_int_equal(errno, EINVAL);
	assert_in_range(answer_limits_bytes(), 5 * 4096 * 16, 5 * 4096 * 16 + 1024);
	answer_limits_destroy(NULL);
	answer_limits_destroy(create(16));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_source),
		cmocka_unit_test(test_icmp_of_one),
		cmocka_unit_test(test_icmp_of_one_over_workers),
		cmocka_unit_test(test_flow),
		cmocka_unit_test(test_one_source_over_workers),
		cmocka_unit_test(test_in_all),
		cmocka_unit_test(test_shares_of_all),
		cmocka_unit_test(test_ends_come_first),
		cmocka_unit_test(test_backends_come_second),
		cmocka_unit_test(test_whole_gateway),
		cmocka_unit_test(test_kinds_are_apart),
		cmocka_unit_test(test_ipv6_by_64),
		cmocka_unit_test(test_denied_changes_nothing),
		cmocka_unit_test(test_the_idle_make_room),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_create),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
