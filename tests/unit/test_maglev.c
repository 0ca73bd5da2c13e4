/* SPDX-License-Identifier: BSD-3-Clause */
#include "../slower.h"
#include "policy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define MAX_BACKENDS 1024
#define MAX_TABLE    65537

static struct policy_backend backends[MAX_BACKENDS], others[MAX_BACKENDS];
static uint16_t table[MAX_TABLE], other_table[MAX_TABLE];
static uint32_t places[MAX_BACKENDS];

static void make_backends(uint32_t n, bool v6)
{
	for (uint32_t i = 0; i < n; i++) {
		uint8_t addr[16] = {0x20, 0x01, 0x0d, 0xb8, [14] = i >> 8, [15] = i & 0xff};

		backends[i] = (struct policy_backend){
			.addr = v6 ? ipaddr_v6(addr) : ipaddr_v4(htonl(0xc6120300 + i)),
			.port_be = htons(8080),
			.weight = 1,
			.ref = {.slot = i},
		};
	}
}

static uint32_t build(uint32_t n)
{
	uint32_t size = maglev_table_size(n);

	assert_int_equal(maglev_build(backends, n, table, size), 0);
	memset(places, 0, sizeof(places));
	for (uint32_t i = 0; i < size; i++) {
		assert_in_range(table[i], 0, n - 1);
		places[table[i]]++;
	}
	return size;
}

static void test_sizes(void **state)
{
	assert_int_equal(maglev_table_size(0), 0);
	assert_int_equal(maglev_table_size(1), 2039);
	assert_int_equal(maglev_table_size(2), 16381);
	assert_int_equal(maglev_table_size(80), 16381);
	assert_int_equal(maglev_table_size(81), 65537);
	assert_int_equal(maglev_table_size(65535), 65537);
}

static void test_bad_arguments(void **state)
{
	make_backends(2, false);
	assert_int_equal(maglev_build(backends, 0, table, 2039), -EINVAL);
	assert_int_equal(maglev_build(backends, 2, table, 2040), -EINVAL);
	assert_int_equal(maglev_build(backends, 65536, table, 65537), -EINVAL);
	backends[0].weight = backends[1].weight = 0;
	assert_int_equal(maglev_build(backends, 2, table, 2039), -EINVAL);
}

static void test_balance(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (uint32_t n = 1; n <= 100; n++) {
			uint32_t size, max = 0;

			make_backends(n, v6);
			size = build(n);
			for (uint32_t i = 0; i < n; i++)
				max = places[i] > max ? places[i] : max;
			if ((double)max * n / size > 1.01)
				fail_msg("%u backends: max/mean %.4f", n, (double)max * n / size);
		}
}

/* The share of the survivors' places, in percent, that change hands when `gone` of n leaves. */
static double moved_percent(uint32_t n, uint32_t gone)
{
	uint32_t size = maglev_table_size(n), m = 0, kept = 0, moved = 0;

	assert_int_equal(maglev_table_size(n - 1), size);
	for (uint32_t i = 0; i < n; i++)
		if (i != gone)
			others[m++] = backends[i];
	assert_int_equal(maglev_build(others, m, other_table, size), 0);
	for (uint32_t i = 0; i < size; i++) {
		if (table[i] == gone)
			continue;
		kept++;
		moved += others[other_table[i]].ref.slot != backends[table[i]].ref.slot;
	}
	return 100.0 * moved / kept;
}

static void test_few_move_when_one_leaves(void **state)
{
	static const uint32_t sizes[] = {4, 5, 8, 10, 16, 20, 32, 64, 80, 82, 100, 200, 300, 500};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t n = sizes[i], step = n > 10 ? n / 10 : 1;
		double worst = 0;

		make_backends(n, i % 2);
		build(n);
		for (uint32_t gone = 0; gone < n; gone += step) {
			double moved = moved_percent(n, gone);

			worst = moved > worst ? moved : worst;
		}
		print_message("1 of %u leaves: at most %.2f %% of the others' places move\n", n, worst);
		assert_true(worst < 1.5);
	}
}

/* The same set in another order gives every place to the same backend (E-6). */
static void test_order_does_not_matter(void **state)
{
	uint32_t n = 97, size;

	make_backends(n, false);
	for (uint32_t i = 0; i < n; i++) {
		backends[i].weight = 1 + i % 7;
		/* Equal addresses with two ports are two backends. */
		if (i % 2)
			backends[i].addr = backends[i - 1].addr, backends[i].port_be = htons(8081);
	}
	size = build(n);
	for (unsigned round = 1; round < 6; round++) {
		uint32_t stride = 7 * round; /* coprime to 97 */

		for (uint32_t i = 0; i < n; i++)
			others[i] = backends[(uint64_t)i * stride % n];
		assert_int_equal(maglev_build(others, n, other_table, size), 0);
		for (uint32_t i = 0; i < size; i++)
			assert_int_equal(others[other_table[i]].ref.slot, backends[table[i]].ref.slot);
	}
}

/* The table is what gateways agree on, and a gateway with itself before a restart: another build must not change it. */
static void test_table_is_the_same_for_ever(void **state)
{
	uint64_t sum = 0;
	uint32_t size;

	make_backends(10, false);
	size = build(10);
	for (uint32_t i = 0; i < size; i++)
		sum = sum * 31 + table[i];
	assert_int_equal(sum, 0x1ebf9d912db70880);
}

static void check_weights(uint32_t n)
{
	uint32_t size = build(n);
	uint64_t total = 0;

	for (uint32_t i = 0; i < n; i++)
		total += backends[i].weight;
	for (uint32_t i = 0; i < n; i++) {
		double want = (double)size * backends[i].weight / total;
		double off = places[i] > want ? places[i] - want : want - places[i];

		/* One place is the resolution. */
		if (off > 0.02 * want && off > 1)
			fail_msg("weight %u of %ju: %u places, %.1f wanted", backends[i].weight, (uintmax_t)total,
				 places[i], want);
	}
}

static void test_weights(void **state)
{
	for (uint32_t n = 2; n <= 300; n += n < 20 ? 1 : 40) {
		make_backends(n, true);
		for (uint32_t i = 0; i < n; i++)
			backends[i].weight = 1 + i % 10;
		check_weights(n);
		for (uint32_t i = 0; i < n; i++)
			backends[i].weight = i % 3 ? 1000 : 100;
		check_weights(n);
	}
}

/* The lightest beside the heaviest still has a place, and weight 0 has none. */
static void test_light_backend_has_a_place(void **state)
{
	make_backends(100, false);
	for (uint32_t i = 0; i < 99; i++)
		backends[i].weight = 1000;
	backends[7].weight = 0;
	build(100);
	assert_int_equal(places[99], 1);
	assert_int_equal(places[7], 0);
}

static double build_ms(uint32_t n)
{
	struct timespec from, to;

	make_backends(n, false);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
	build(n);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
	return (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6;
}

static void test_build_is_quick(void **state)
{
	double few = build_ms(16), many = build_ms(600);

	print_message("build: 16 backends %.2f ms, 600 backends %.2f ms\n", few, many);
	/* Generous, for slow machines: a quadratic build would take seconds. */
	assert_true(few < 20 * SLOWER);
	assert_true(many < 100 * SLOWER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_balance),
		cmocka_unit_test(test_few_move_when_one_leaves),
		cmocka_unit_test(test_order_does_not_matter),
		cmocka_unit_test(test_table_is_the_same_for_ever),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_light_backend_has_a_place),
		cmocka_unit_test(test_build_is_quick),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
