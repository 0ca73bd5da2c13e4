/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiter_memory.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#define S 1000000000ull

static struct limiter_known known_of(unsigned n, uint64_t age_ns)
{
	return (struct limiter_known){
		.who = {.proto = IPPROTO_TCP, .port_be = htons(80), .addr = ipaddr_v4(htonl(0xc6120000 + n))},
		.from = LIMITER_BASE_LEFT,
		.past = {.base_ns = n, .base_age_ns = age_ns, .rate = 400, .rate_age_ns = age_ns},
	};
}

static void count(void *arg, const struct limiter_known *known)
{
	++*(unsigned *)arg;
}

static unsigned count_at(const struct limiter_memory *m, uint64_t now_ns)
{
	unsigned n = 0;

	limiter_memory_foreach(m, now_ns, count, &n);
	return n;
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
	assert_int_equal(count_at(m, S), 2);
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

/* It ages while it lies there. */
static void test_age(void **state)
{
	struct limiter_known old = known_of(1, LIMITER_MEMORY_NS), young = known_of(2, LIMITER_MEMORY_NS - 10 * S), out;
	struct limiter_memory *m = limiter_memory_create();

	assert_false(limiter_memory_put(m, &old, 5 * S));
	assert_true(limiter_memory_put(m, &young, 5 * S));
	assert_int_equal(count_at(m, 14 * S), 1);
	assert_int_equal(count_at(m, 15 * S), 0);
	assert_true(limiter_memory_take(m, &young.who, 14 * S, &out));
	assert_int_equal(out.past.base_age_ns, LIMITER_MEMORY_NS - S);
	assert_int_equal(out.past.rate_age_ns, LIMITER_MEMORY_NS - S);
	limiter_memory_put(m, &young, 5 * S);
	assert_false(limiter_memory_take(m, &young.who, 15 * S, &out));
	/* Too old for anybody: it is gone. */
	assert_int_equal(count_at(m, 5 * S), 0);
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
	assert_int_equal(count_at(m, 2 * S), LIMITER_MEMORY_MAX);
	known = known_of(0, 0);
	assert_false(limiter_memory_take(m, &known.who, 2 * S, &out));
	known = known_of(1, 0);
	assert_true(limiter_memory_take(m, &known.who, 2 * S, &out));
	limiter_memory_clear(m);
	assert_int_equal(count_at(m, 2 * S), 0);
	known = known_of(2, 0);
	assert_false(limiter_memory_take(m, &known.who, 2 * S, &out));
	/* All of its room is there again, twice. */
	for (unsigned n = 0; n < 2 * LIMITER_MEMORY_MAX; n++) {
		known = known_of(n, 0);
		assert_true(limiter_memory_put(m, &known, S + n));
	}
	assert_int_equal(count_at(m, 2 * S), LIMITER_MEMORY_MAX);
	limiter_memory_clear(m);
	assert_int_equal(count_at(m, 2 * S), 0);
	limiter_memory_destroy(m);
}

#define N_MANY (LIMITER_MEMORY_MAX + 1000)

/* Whatever comes and goes in whatever order, it has what it was given last, by who it is, and drops who came first. */
static void test_many(void **state)
{
	static unsigned put_at[N_MANY]; /* 0: it is not there */
	struct limiter_memory *m = limiter_memory_create();
	struct limiter_known known, out;
	unsigned n = 0;

	srand(1);
	for (unsigned step = 1; step < 100000; step++) {
		unsigned who = rand() % N_MANY, oldest = 0;

		known = known_of(who, 0);
		if (rand() % 8 == 0) {
			assert_int_equal(limiter_memory_take(m, &known.who, step, &out), put_at[who] != 0);
			if (put_at[who])
				assert_int_equal(out.past.rate, put_at[who]);
			n -= put_at[who] != 0;
			put_at[who] = 0;
			continue;
		}
		if (!put_at[who] && n++ == LIMITER_MEMORY_MAX) {
			for (unsigned i = 0; i < N_MANY; i++)
				if (put_at[i] && (!put_at[oldest] || put_at[i] < put_at[oldest]))
					oldest = i;
			put_at[oldest] = 0;
			n--;
		}
		known.past.rate = put_at[who] = step;
		assert_true(limiter_memory_put(m, &known, step));
	}
	assert_int_equal(count_at(m, 100000), n);
	limiter_memory_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
