/* SPDX-License-Identifier: BSD-3-Clause */
#include "hash.h"
#include "memory_heap.h"
#include "tuples.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const uint8_t secret[HASH_SECRET_LEN] = {2, 7, 1, 8, 2, 8};

static struct tuple tuple(uint32_t i, uint32_t born_ms)
{
	const uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = i % 3};

	return (struct tuple){
		.backend = i & 1 ? ipaddr_v6(v6) : ipaddr_v4(htonl(0xc6120300 + i % 3)),
		.backend_port_be = htons(8080 + i % 2),
		.snat_port_be = htons(1024 + i % 60000),
		.snat_index = i % 5,
		.isn = i,
		.born_ms = born_ms,
	};
}

static struct tuple *find(const struct tuples *t, uint32_t i)
{
	const struct tuple want = tuple(i, 0);

	return tuples_find(t, &want.backend, want.backend_port_be, want.snat_index, want.snat_port_be);
}

/* A window moves over a long row of them: what is in it is found, what left it is not. */
static void test_window(void **state)
{
	struct tuples t;

	assert_int_equal(tuples_init(&t, secret), 0);
	assert_null(tuples_oldest(&t));
	assert_null(find(&t, 0));
	for (uint32_t i = 0; i < 50000; i++) {
		const struct tuple it = tuple(i, i);

		if (tuples_count(&t) == TUPLES_MAX) {
			assert_int_equal(tuples_oldest(&t)->isn, i - TUPLES_MAX);
			tuples_drop_oldest(&t);
			assert_null(find(&t, i - TUPLES_MAX));
		}
		tuples_add(&t, &it);
		assert_int_equal(find(&t, i)->isn, i);
		if (i >= TUPLES_MAX) {
			assert_int_equal(find(&t, i - TUPLES_MAX + 1)->isn, i - TUPLES_MAX + 1);
			assert_int_equal(find(&t, i - TUPLES_MAX / 2)->isn, i - TUPLES_MAX / 2);
		}
		assert_null(find(&t, i + 1));
	}
	while (tuples_count(&t))
		tuples_drop_oldest(&t);
	for (uint32_t i = 0; i < 60000; i++)
		assert_null(find(&t, i));
	tuples_fini(&t);
}

/* Each part of the key tells. */
static void test_key(void **state)
{
	struct tuple it = tuple(7, 0);
	struct tuples t;

	assert_int_equal(tuples_init(&t, secret), 0);
	tuples_add(&t, &it);
	assert_non_null(find(&t, 7));
	assert_null(tuples_find(&t, &it.backend, it.backend_port_be, it.snat_index, it.snat_port_be ^ 1));
	assert_null(tuples_find(&t, &it.backend, it.backend_port_be, it.snat_index ^ 1, it.snat_port_be));
	assert_null(tuples_find(&t, &it.backend, it.backend_port_be ^ 1, it.snat_index, it.snat_port_be));
	it.backend.b[0] ^= 1;
	assert_null(tuples_find(&t, &it.backend, it.backend_port_be, it.snat_index, it.snat_port_be));
	tuples_fini(&t);
}

static void test_due(void **state)
{
	struct tuple it = tuple(1, UINT32_MAX - 4000); /* the clock goes round meanwhile */
	struct tuples t;

	assert_int_equal(tuples_init(&t, secret), 0);
	assert_false(tuples_due(&t, 1000000));
	tuples_add(&t, &it);
	assert_false(tuples_due(&t, (UINT64_C(1) << 32) - 1));
	assert_false(tuples_due(&t, (UINT64_C(1) << 32) + TUPLE_LIFE_MS - 4002));
	assert_true(tuples_due(&t, (UINT64_C(1) << 32) + TUPLE_LIFE_MS - 4001));
	tuples_fini(&t);
}

/* Positions count beyond 2^32 without confusion. */
static void test_wrap(void **state)
{
	struct tuples t;

	assert_int_equal(tuples_init(&t, secret), 0);
	t.oldest = t.newest = UINT32_MAX - 3 * TUPLES_MAX;
	for (uint32_t i = 0; i < 8 * TUPLES_MAX; i++) {
		const struct tuple it = tuple(i, 0);

		if (tuples_count(&t) == TUPLES_MAX - 1)
			tuples_drop_oldest(&t);
		tuples_add(&t, &it);
		assert_int_equal(find(&t, i)->isn, i);
		if (i >= TUPLES_MAX) {
			assert_null(find(&t, i - TUPLES_MAX));
			assert_non_null(find(&t, i - TUPLES_MAX + 2));
		}
	}
	tuples_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_due),
		cmocka_unit_test(test_wrap),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
