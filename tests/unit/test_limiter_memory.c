/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiter_memory.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define S 1000000000ull

static struct limiter_known known_of(unsigned n, uint64_t age_ns)
{
	return (struct limiter_known){
		.who = {.proto = IPPROTO_TCP, .port_be = htons(80), .addr = ipaddr_v4(htonl(0xc6120000 + n))},
		.from = LIMITER_BASE_LEFT,
		.past = {.base_ns = n, .base_age_ns = age_ns, .rate = 400, .rate_age_ns = age_ns},
	};
}

/* By all three of protocol, address and port; what is taken is gone; what is put again is there once. */
static void test_identity(void **state)
{
	struct limiter_known a = known_of(1, 0), b = known_of(1, 0), c = known_of(1, 0), out;
	struct limiter_memory *m = limiter_memory_create();

	b.who.port_be = htons(81);
	c.who.proto = IPPROTO_UDP;
	assert_true(limiter_memory_put(m, &a, S));
	assert_true(limiter_memory_put(m, &b, S));
	a.past.base_ns = 7;
	assert_true(limiter_memory_put(m, &a, S));
	assert_int_equal(limiter_memory_count(m), 2);
	assert_false(limiter_memory_take(m, &c.who, S, &out));
	/* The slot is another one by then. */
	a.who.ref = (struct slot_ref){7, 8};
	assert_true(limiter_memory_take(m, &a.who, S, &out));
	assert_int_equal(out.past.base_ns, 7);
	assert_false(limiter_memory_take(m, &a.who, S, &out));
	assert_true(limiter_memory_take_id(m, "tcp:198.18.0.1:81", S, &out));
	assert_false(limiter_memory_take_id(m, "tcp:198.18.0.1:81", S, &out));
	limiter_memory_destroy(m);
}

static void count(void *arg, const struct limiter_known *known)
{
	++*(unsigned *)arg;
}

/* It ages while it lies there. */
static void test_age(void **state)
{
	struct limiter_known old = known_of(1, LIMITER_MEMORY_NS), young = known_of(2, LIMITER_MEMORY_NS - 10 * S), out;
	struct limiter_memory *m = limiter_memory_create();
	unsigned n = 0;

	assert_false(limiter_memory_put(m, &old, 5 * S));
	assert_true(limiter_memory_put(m, &young, 5 * S));
	limiter_memory_foreach(m, 14 * S, count, &n);
	limiter_memory_foreach(m, 15 * S, count, &n);
	assert_int_equal(n, 1);
	assert_true(limiter_memory_take(m, &young.who, 14 * S, &out));
	assert_int_equal(out.past.base_age_ns, LIMITER_MEMORY_NS - S);
	assert_int_equal(out.past.rate_age_ns, LIMITER_MEMORY_NS - S);
	limiter_memory_put(m, &young, 5 * S);
	assert_false(limiter_memory_take(m, &young.who, 15 * S, &out));
	/* Too old for anybody: it is gone. */
	assert_int_equal(limiter_memory_count(m), 0);
	limiter_memory_destroy(m);
}

/* When it is full, the oldest goes. */
static void test_full(void **state)
{
	struct limiter_memory *m = limiter_memory_create();
	struct limiter_known known, out;

	for (unsigned n = 0; n <= LIMITER_MEMORY_MAX; n++) {
		known = known_of(n, 0);
		assert_true(limiter_memory_put(m, &known, S + n));
	}
	assert_int_equal(limiter_memory_count(m), LIMITER_MEMORY_MAX);
	known = known_of(0, 0);
	assert_false(limiter_memory_take(m, &known.who, 2 * S, &out));
	known = known_of(1, 0);
	assert_true(limiter_memory_take(m, &known.who, 2 * S, &out));
	limiter_memory_clear(m);
	assert_int_equal(limiter_memory_count(m), 0);
	limiter_memory_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
