/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* In memory of just its size, so that a sanitizer sees a look beyond. */
static struct tcp_options read_exact(const uint8_t *options, unsigned len)
{
	uint8_t *copy = calloc(1, len ? len : 1);
	struct tcp_options o;

	if (len)
		memcpy(copy, options, len);
	o = tcp_options_read(copy, len);
	free(copy);
	return o;
}

#define READ(...) read_exact((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_linux(void **state)
{
	struct tcp_options o = READ(2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7);

	assert_true(o.timestamps && o.scaling);
	assert_int_equal(o.tsval, 0x01020304);
	assert_int_equal(o.tsecr, 0x05060708);
	assert_int_equal(o.scale, 7);
}

static void test_none(void **state)
{
	struct tcp_options o = read_exact(NULL, 0);

	assert_false(o.timestamps || o.scaling);
	o = READ(1, 1, 1, 1);
	assert_false(o.timestamps || o.scaling);
}

/* RFC 7323 2.3: more is taken as 14. */
static void test_scale(void **state)
{
	assert_int_equal(READ(3, 3, 0, 1).scale, 0);
	assert_true(READ(3, 3, 0, 1).scaling);
	assert_int_equal(READ(3, 3, 14, 0).scale, 14);
	assert_int_equal(READ(3, 3, 15, 0).scale, 14);
	assert_int_equal(READ(3, 3, 255, 0).scale, 14);
	assert_false(READ(3, 4, 7, 7).scaling);
}

static void test_malformed(void **state)
{
	/* What stands before counts, what comes after does not. */
	assert_true(READ(3, 3, 7, 8, 0, 1, 2, 3).scaling);
	assert_false(READ(8, 0, 3, 3, 7, 1).scaling);
	assert_false(READ(8, 1, 3, 3, 7, 1).scaling);
	assert_false(READ(77, 9, 3, 3, 7, 1).scaling);
	assert_false(READ(0, 3, 3, 7).scaling);
	/* Cut off. */
	assert_false(READ(3).scaling);
	assert_false(READ(3, 3).scaling);
	assert_false(READ(1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7).timestamps);
	assert_false(READ(8, 9, 1, 2, 3, 4, 5, 6, 7).timestamps);
}

/* Any bytes of any length: no look beyond them, and no end that does not come. */
static void test_any_bytes(void **state)
{
	uint64_t seed = 1;

	for (int i = 0; i < 200000; i++) {
		uint8_t bytes[40];

		for (unsigned b = 0; b < sizeof(bytes); b++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			bytes[b] = (seed >> 60) + (seed >> 59 & 1 ? 0 : seed >> 33 & 15);
		}
		assert_true(read_exact(bytes, seed >> 32 & 31).scale <= 14);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linux),     cmocka_unit_test(test_none),      cmocka_unit_test(test_scale),
		cmocka_unit_test(test_malformed), cmocka_unit_test(test_any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
