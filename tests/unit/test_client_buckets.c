/* SPDX-License-Identifier: BSD-3-Clause */
/* The buckets of clients and prefixes. */
#include "client_buckets.h"
#include "memory_heap.h"

#include "hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#define SECOND_NS 1000000000ull
#define START_NS  (12345 * SECOND_NS)
#define HOUR_NS   (3600 * SECOND_NS)

/* All of it counts: a hash with a secret of zeros tells nothing apart. */
static uint8_t secret[HASH_SECRET_LEN];

static struct client_table make(uint32_t n_entries, unsigned v4_bits, unsigned v6_bits)
{
	struct client_table t;

	assert_int_equal(client_table_init(&t, n_entries, v4_bits, v6_bits, secret), 0);
	return t;
}

static struct gcra_rate per_s(uint64_t tokens, uint64_t burst)
{
	struct gcra_rate rate;

	assert_int_equal(gcra_rate_init(&rate, tokens, SECOND_NS, burst), 0);
	return rate;
}

static struct ipaddr address(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

static void test_who_is_one_client(void **state)
{
	static const struct {
		const char *a, *b;
		bool one_client, one_prefix;
	} cases[] = {
		{"198.18.1.7", "198.18.1.7", true, true},
		{"198.18.1.7", "198.18.1.8", false, true},
		{"198.18.1.7", "198.18.2.7", false, false},
		{"2001:db8:1:2::7", "2001:db8:1:2:ffff::1", true, true},
		{"2001:db8:1:2::7", "2001:db8:1:3::7", false, true},
		{"2001:db8:1:2::7", "2001:db8:2:2::7", false, false},
		{"198.18.1.7", "2001:db8:1:2::7", false, false},
	};
	struct client_table clients = make(64, 32, 64), prefixes = make(64, 24, 48);
	const struct slot_ref service = {3, 1};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipaddr a = address(cases[i].a), b = address(cases[i].b);

		assert_int_equal(client_tag(&clients, &service, &a) == client_tag(&clients, &service, &b),
				 cases[i].one_client);
		assert_int_equal(client_tag(&prefixes, &service, &a) == client_tag(&prefixes, &service, &b),
				 cases[i].one_prefix);
	}
	client_table_fini(&clients);
	client_table_fini(&prefixes);
}

/* Another service has its own bucket for the client, and so has the slot's next owner. */
static void test_service_is_part_of_it(void **state)
{
	struct client_table t = make(64, 32, 64);
	const struct slot_ref services[] = {{3, 1}, {3, 2}, {4, 1}};
	struct ipaddr a = address("198.18.1.7");

	for (int i = 0; i < 3; i++)
		for (int j = 0; j < i; j++)
			assert_true(client_tag(&t, &services[i], &a) != client_tag(&t, &services[j], &a));
	client_table_fini(&t);
}

static void test_claim(void **state)
{
	struct client_table t = make(CLIENT_WAYS, 32, 64);
	struct client_cell cells[CLIENT_WAYS];

	for (uint64_t tag = 1; tag <= CLIENT_WAYS; tag++) {
		assert_null(client_lookup(&t, tag).bucket);
		cells[tag - 1] = client_claim(&t, tag, START_NS);
		assert_ptr_equal(client_claim(&t, tag, START_NS).bucket, cells[tag - 1].bucket);
	}
	for (uint64_t tag = 1; tag <= CLIENT_WAYS; tag++) {
		struct client_cell cell = client_lookup(&t, tag);

		assert_ptr_equal(cell.bucket, cells[tag - 1].bucket);
		assert_ptr_equal(cell.line, cells[tag - 1].line);
		for (uint64_t other = 1; other < tag; other++)
			assert_true(cells[other - 1].bucket != cell.bucket && cells[other - 1].line != cell.line);
	}
	client_table_fini(&t);
}

/* The idlest makes room, however the clock wraps; the next one begins with an idle bucket and an empty line. */
static void test_evict(void **state)
{
	struct gcra_rate rate = per_s(1, 10);

	for (uint64_t hours = 0; hours < 200; hours += 7) {
		struct client_table t = make(CLIENT_WAYS, 32, 64);
		uint64_t now_ns = START_NS + hours * HOUR_NS, wait;
		struct client_cell cell;

		for (uint64_t tag = 1; tag <= CLIENT_WAYS; tag++) {
			cell = client_claim(&t, tag, now_ns);
			for (unsigned i = 0; i < 12 - tag; i++)
				gcra_take(cell.bucket, &rate, now_ns);
			for (int i = 0; i < 3; i++) {
				wait = 0;
				assert_true(gcra_line_join(cell.line, &rate, now_ns, 3 * rate.interval, &wait));
			}
		}
		now_ns += hours % 2 ? SECOND_NS : 50 * HOUR_NS;
		cell = client_claim(&t, 99, now_ns);
		assert_null(client_lookup(&t, CLIENT_WAYS).bucket);
		for (uint64_t tag = 1; tag < CLIENT_WAYS; tag++)
			assert_non_null(client_lookup(&t, tag).bucket);
		assert_int_equal(gcra_line_wait(cell.line, &rate, now_ns), 0);
		for (int i = 0; i < 11; i++) {
			assert_true(gcra_test(cell.bucket, &rate, now_ns));
			gcra_take(cell.bucket, &rate, now_ns);
		}
		assert_false(gcra_test(cell.bucket, &rate, now_ns));
		client_table_fini(&t);
	}
}

/* Whoever comes often stays known, and limited, in a crowd of a million that come once. */
static void test_crowd(void **state)
{
	struct client_table t = make(1024, 32, 64);
	struct gcra_rate rate = per_s(10, 10);
	const struct slot_ref service = {0, 1};
	struct ipaddr busy = address("198.18.1.7");
	uint64_t tag = client_tag(&t, &service, &busy), admitted = 0;
	const uint32_t n = 1000000;

	/* 20 s: 50 000 others each, and 100 attempts of the busy one per second. */
	for (uint32_t i = 0; i < n; i++) {
		uint64_t now_ns = START_NS + i * 20 * SECOND_NS / n;
		struct ipaddr passing = ipaddr_v4(htonl(0xc6200000 + i));
		struct client_cell cell;

		gcra_take(client_claim(&t, client_tag(&t, &service, &passing), now_ns).bucket, &rate, now_ns);
		if (i % (n / 2000))
			continue;
		cell = client_lookup(&t, tag);
		if (cell.bucket && !gcra_test(cell.bucket, &rate, now_ns))
			continue;
		gcra_take(client_claim(&t, tag, now_ns).bucket, &rate, now_ns);
		admitted++;
	}
	assert_in_range(admitted, 200, 215);
	client_table_fini(&t);
}

#define THREADS 4
#define TAGS    64
#define ROUNDS  200

struct crowd {
	struct client_table t;
	struct gcra_rate rate;
	pthread_barrier_t barrier;
	_Atomic unsigned admitted[TAGS];
};

static void *take_all(void *arg)
{
	struct crowd *c = arg;

	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t now_ns = START_NS + round * HOUR_NS;

		pthread_barrier_wait(&c->barrier);
		for (uint64_t tag = 1; tag <= TAGS; tag++)
			for (;;) {
				struct client_cell cell = client_lookup(&c->t, tag);

				if (cell.bucket && !gcra_test(cell.bucket, &c->rate, now_ns))
					break;
				if (!cell.bucket)
					cell = client_claim(&c->t, tag, now_ns);
				if (cell.bucket)
					gcra_take(cell.bucket, &c->rate, now_ns);
				c->admitted[tag - 1]++;
			}
		pthread_barrier_wait(&c->barrier);
	}
	return NULL;
}

/* Workers that claim and take at once: never fewer than the bucket gives, and few more. */
static void test_concurrent(void **state)
{
	static struct crowd c;
	pthread_t threads[THREADS];

	c.t = make(4 * TAGS, 32, 64);
	c.rate = per_s(10, 20);
	pthread_barrier_init(&c.barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_all, &c), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	/* In the first round a claim that is lost to another costs a token each, too. */
	for (int i = 0; i < TAGS; i++)
		assert_in_range(c.admitted[i], 21 * ROUNDS, (21 + THREADS - 1) * ROUNDS + 2 * THREADS);
	pthread_barrier_destroy(&c.barrier);
	client_table_fini(&c.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_is_one_client),
		cmocka_unit_test(test_service_is_part_of_it),
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_evict),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_concurrent),
	};

	for (unsigned i = 0; i < sizeof(secret); i++)
		secret[i] = i * 167 + 13;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
