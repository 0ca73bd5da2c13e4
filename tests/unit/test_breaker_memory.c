/* SPDX-License-Identifier: BSD-3-Clause */
#include "breaker_memory.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define S 1000000000ull

static unsigned n_forgotten;
static struct breaker_past last;

static void on_forgotten(void *arg, const struct breaker_past *past)
{
	n_forgotten++;
	last = *past;
}

static struct breaker_past past_of(unsigned n, uint64_t left_ns)
{
	return (struct breaker_past){
		.who = {.proto = IPPROTO_TCP, .port_be = htons(80), .addr = ipaddr_v4(htonl(0xc6120000 + n))},
		.left_ns = left_ns,
		.breaker = {.state = BREAKER_OPEN, .openings = n},
	};
}

static struct breaker_memory *begin(void)
{
	struct breaker_memory *m = breaker_memory_create(on_forgotten, NULL);

	assert_non_null(m);
	n_forgotten = 0;
	return m;
}

/* By all three of protocol, address and port; and what is taken is gone. */
static void test_identity(void **state)
{
	struct breaker_past a = past_of(1, 1), b = past_of(1, 2), c = past_of(1, 3), out;
	struct breaker_memory *m = begin();

	b.who.port_be = htons(81);
	c.who.proto = IPPROTO_UDP;
	breaker_memory_put(m, &a);
	breaker_memory_put(m, &b);
	assert_false(breaker_memory_take(m, &c.who, &out));
	breaker_memory_put(m, &c);
	assert_true(breaker_memory_take(m, &b.who, &out));
	assert_int_equal(out.left_ns, 2);
	assert_false(breaker_memory_take(m, &b.who, &out));
	/* The slot is another one by then. */
	c.who.ref = (struct slot_ref){7, 8};
	assert_true(breaker_memory_take_id(m, "udp:198.18.0.1:80", &out));
	assert_int_equal(out.left_ns, 3);
	assert_int_equal(breaker_memory_count(m), 1);
	a.breaker.openings = 9;
	breaker_memory_put(m, &a);
	assert_int_equal(breaker_memory_count(m), 1);
	assert_true(breaker_memory_take(m, &a.who, &out));
	assert_int_equal(out.breaker.openings, 9);
	assert_int_equal(n_forgotten, 0);
	breaker_memory_destroy(m);
}

static void test_age(void **state)
{
	struct breaker_past first = past_of(1, 100 * S), second = past_of(2, 200 * S), held = past_of(3, 50 * S), out;
	struct breaker_memory *m = begin();

	held.streak.forced = true;
	breaker_memory_put(m, &held);
	breaker_memory_put(m, &first);
	breaker_memory_put(m, &second);
	breaker_memory_age(m, 100 * S + BREAKER_MEMORY_NS - 1);
	assert_int_equal(n_forgotten, 0);
	breaker_memory_age(m, 100 * S + BREAKER_MEMORY_NS);
	assert_int_equal(n_forgotten, 1);
	assert_int_equal(last.breaker.openings, 1);
	breaker_memory_age(m, 86400 * S);
	assert_int_equal(n_forgotten, 2);
	assert_true(breaker_memory_take(m, &held.who, &out));
	breaker_memory_destroy(m);
}

/* The oldest goes; what an operator said goes last. */
static void test_full(void **state)
{
	struct breaker_memory *m = begin();
	struct breaker_past p;

	for (unsigned n = 0; n < BREAKER_MEMORY_MAX; n++) {
		p = past_of(n, n);
		p.streak.forced = n < 2;
		breaker_memory_put(m, &p);
	}
	for (unsigned n = 2; n < BREAKER_MEMORY_MAX; n++) {
		p = past_of(BREAKER_MEMORY_MAX + n, n);
		p.streak.forced = true;
		breaker_memory_put(m, &p);
		assert_int_equal(n_forgotten, n - 1);
		assert_int_equal(last.breaker.openings, n);
		assert_int_equal(breaker_memory_count(m), BREAKER_MEMORY_MAX);
	}
	p = past_of(9999, 0);
	breaker_memory_put(m, &p);
	assert_true(last.streak.forced);
	assert_int_equal(last.breaker.openings, 0);
	/* The one that no operator made. */
	breaker_memory_clear(m);
	assert_int_equal(breaker_memory_count(m), BREAKER_MEMORY_MAX - 1);
	breaker_memory_destroy(m);
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
