/* SPDX-License-Identifier: BSD-3-Clause */
#include "hash.h"
#include "memory_heap.h"
#include "snat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define N_PORTS (63 * 1024)

static uint8_t secret[HASH_SECRET_LEN];
static struct snat_partition partition;

static struct snat_pool pool_of(struct port_range range, unsigned worker, unsigned n_workers, uint32_t n_pairs)
{
	struct snat_pool p;

	snat_partition_init(&partition, range, n_workers);
	assert_int_equal(snat_pool_init(&p, &partition, worker, n_pairs, secret), 0);
	return p;
}

static struct snat_pool pool(unsigned worker, unsigned n_workers, uint32_t n_pairs)
{
	return pool_of(SNAT_PORTS_DEFAULT, worker, n_workers, n_pairs);
}

static uint32_t now_ms;
static enum snat_news news;

static uint16_t take(struct snat_pool *p, unsigned snat, uint32_t slot)
{
	return snat_take(p, snat, slot, now_ms, &news);
}

/* Every port but the well-known ones has one owner, and the shares are even. */
static void test_partition(void **state)
{
	for (unsigned n = 1; n <= DATAPLANE_MAX_WORKERS; n++) {
		uint32_t owned[DATAPLANE_MAX_WORKERS] = {0}, sum = 0;

		snat_partition_init(&partition, SNAT_PORTS_DEFAULT, n);
		for (uint32_t port = 0; port < 65536; port++) {
			unsigned owner = snat_owner(&partition, htons(port));

			assert_true(owner < n);
			owned[owner] += port >= 1024;
		}
		for (unsigned i = 0; i < n; i++) {
			struct snat_pool p = pool(i, n, 64);

			assert_int_equal(p.n_ports, owned[i]);
			assert_true(owned[i] >= N_PORTS / n - 1024 && owned[i] <= N_PORTS / n + 1024);
			sum += owned[i];
			snat_pool_fini(&p);
		}
		assert_int_equal(sum, N_PORTS);
	}
}

/*
 * Every port of a range, and none beside it, is some worker's to take once, and comes back: also of ranges that no
 * block fits, and with one port per worker.
 */
static void take_all(struct port_range range, unsigned n_workers)
{
	static bool taken[65536];
	uint32_t n = 0, least = UINT32_MAX, most = 0;

	memset(taken, 0, sizeof(taken));
	for (unsigned w = 0; w < n_workers; w++) {
		struct snat_pool p = pool_of(range, w, n_workers, 64);
		uint32_t got = 0;
		uint16_t port_be, last_be = 0;

		while ((port_be = take(&p, 0, 7))) {
			uint16_t port = ntohs(port_be);

			assert_in_range(port, range.first, range.last);
			assert_false(taken[port]);
			assert_int_equal(snat_owner(&partition, port_be), w);
			taken[port] = true;
			last_be = port_be;
			got++;
		}
		assert_int_equal(got, p.n_ports);
		assert_true(got > 0);
		snat_give_back(&p, 0, 7, last_be);
		/* What is another's, or beside the range, changes nothing. */
		for (uint32_t port = 0; port < 65536; port++)
			if (port < range.first || port > range.last || snat_owner(&partition, htons(port)) != w)
				snat_give_back(&p, 0, 7, htons(port));
		assert_int_equal(snat_used(&p, 0, 7), got - 1);
		assert_int_equal(take(&p, 0, 7), last_be);
		n += got;
		least = got < least ? got : least;
		most = got > most ? got : most;
		snat_pool_fini(&p);
	}
	assert_int_equal(n, port_range_size(range));
	/* A block is at most a thirty-second part of what has more than as many ports. */
	assert_true(most - least <= port_range_size(range) / 32 + 1);
}

static void test_ranges(void **state)
{
	static const struct port_range ranges[] = {
		{1024, 65535},  {1024, 65534},  {1025, 65535},  {20000, 29999}, {65526, 65535}, {1024, 1033},
		{40000, 40063}, {40000, 40064}, {30000, 30128}, {5000, 5015},   {65520, 65535},
	};

	for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		for (unsigned n = 1; n <= DATAPLANE_MAX_WORKERS && n <= port_range_size(ranges[i]); n++)
			take_all(ranges[i], n);
}

/* The plan has room for the worker with most ports, and does not ask for much more. */
static void test_bytes(void **state)
{
	static const struct port_range ranges[] = {{1024, 65535}, {20000, 29999}, {65526, 65535}};

	for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
		for (unsigned n = 1; n <= 8; n++) {
			struct dataplane_config config = {.n_workers = n, .snat_ports = ranges[i], .n_snat_pairs = 64};
			struct snat_pool p = pool_of(ranges[i], 0, n, 64);
			uint64_t needed = 64 * (sizeof(struct snat_pair) + p.n_words * 8ull) +
					  SNAT_RESTS_MAX * sizeof(struct snat_rest);

			assert_in_range(snat_pool_bytes(&config), needed, needed + 64 * 1024 / 8);
			snat_pool_fini(&p);
		}
}

/* D-5: to the last port, none twice, none of another worker; then none at all until one comes back. */
static void test_exhaust(void **state)
{
	for (unsigned n = 1; n <= 3; n++) {
		struct snat_pool p = pool(n - 1, n, 64);
		bool *taken = calloc(65536, 1);

		assert_non_null(taken);
		for (uint32_t i = 0; i < p.n_ports; i++) {
			uint16_t port_be = take(&p, 1, 42);

			assert_true(ntohs(port_be) >= 1024 && !taken[ntohs(port_be)]);
			assert_int_equal(snat_owner(&partition, port_be), n - 1);
			taken[ntohs(port_be)] = true;
		}
		assert_int_equal(take(&p, 1, 42), 0);
		assert_int_equal(snat_used(&p, 1, 42), p.n_ports);
		/* Another backend or address has its own. */
		assert_int_not_equal(take(&p, 1, 43), 0);
		assert_int_not_equal(take(&p, 0, 42), 0);
		snat_give_back(&p, 1, 42, htons(p.blocks[0] + 77));
		assert_int_equal(ntohs(take(&p, 1, 42)), p.blocks[0] + 77);
		assert_int_equal(take(&p, 1, 42), 0);
		snat_pool_fini(&p);
		free(taken);
	}
}

/* A port rests for a whole round before it is used again. */
static void test_rests(void **state)
{
	struct snat_pool p = pool(0, 1, 64);
	uint16_t first_be = take(&p, 0, 1);
	uint32_t n = 0;

	snat_give_back(&p, 0, 1, first_be);
	for (uint16_t port_be; (port_be = take(&p, 0, 1)) != first_be; n++)
		snat_give_back(&p, 0, 1, port_be);
	assert_int_equal(n, N_PORTS - 1);
	snat_pool_fini(&p);
}

static void rest(struct snat_pool *p, uint32_t slot, uint16_t port_be)
{
	snat_lay_to_rest(p, 0, slot, port_be, now_ms);
}

/* One that its backend closed first is not taken for as long as that one's TIME_WAIT lasts, even if the cursor comes.
 */
static void test_quarantine(void **state)
{
	struct snat_pool p = pool(0, 1, 64);
	uint16_t first_be = take(&p, 0, 1);

	now_ms = UINT32_MAX - 30000;
	rest(&p, 1, first_be);
	for (uint32_t i = 0; i < 2 * N_PORTS; i++) {
		uint16_t port_be = take(&p, 0, 1);

		assert_int_not_equal(port_be, first_be);
		snat_give_back(&p, 0, 1, port_be);
	}
	assert_int_equal(snat_used(&p, 0, 1), 1);
	now_ms += SNAT_REST_MS - 1;
	snat_run(&p, now_ms);
	assert_int_equal(snat_resting(&p), 1);
	now_ms++;
	snat_run(&p, now_ms);
	assert_int_equal(snat_resting(&p), 0);
	assert_int_equal(snat_used(&p, 0, 1), 0);
	snat_pool_fini(&p);
}

/* None rests where half are taken, and those at rest are taken before anybody is refused: D-5 holds all the while. */
static void test_rest_gives_way(void **state)
{
	struct snat_pool p = pool(0, 8, 64);
	bool *taken = calloc(65536, 1);
	uint32_t rested = 0;

	assert_non_null(taken);
	for (uint32_t i = 0; i < p.n_ports; i++)
		taken[ntohs(take(&p, 0, 1))] = true;
	for (uint32_t port = 1024; port < 65536; port++)
		if (taken[port]) {
			uint32_t before = snat_resting(&p);

			taken[port] = false;
			rest(&p, 1, htons(port));
			rested += snat_resting(&p) - before;
			assert_int_equal(snat_is_pressed(&p, 0, 1), snat_used(&p, 0, 1) * 2 >= p.n_ports);
		}
	/* Those that do not rest leave until less than half are taken; all others rest. */
	assert_in_range(rested, p.n_ports / 2 - 1, p.n_ports / 2 + 1);
	assert_int_equal(snat_used(&p, 0, 1), rested);
	for (uint32_t i = 0; i < p.n_ports; i++) {
		uint16_t port = ntohs(take(&p, 0, 1));

		assert_true(port && !taken[port]);
		taken[port] = true;
	}
	assert_int_equal(take(&p, 0, 1), 0);
	assert_int_equal(snat_resting(&p), 0);
	snat_pool_fini(&p);
	free(taken);
}

/* Of a full ring the oldest gives way, whosever it is. */
static void test_rests_full(void **state)
{
	struct snat_pool p = pool(0, 1, 64);

	for (uint32_t i = 0; i < SNAT_RESTS_MAX + 10; i++)
		rest(&p, i % 2, take(&p, 0, i % 2));
	assert_int_equal(snat_resting(&p), SNAT_RESTS_MAX);
	assert_int_equal(snat_used(&p, 0, 0) + snat_used(&p, 0, 1), SNAT_RESTS_MAX);
	snat_pool_fini(&p);
}

#define BUCKET SNAT_PAIR_WAYS /* pairs of a pool that has no more than one */

/* A backend without a pair gets that of one whose ports all rest, and of no other; the others go on resting. */
static void test_resting_pair_gives_way(void **state)
{
	for (uint32_t idle = 0; idle < BUCKET; idle++) {
		struct snat_pool p = pool(0, 1, BUCKET);

		now_ms = 1;
		for (uint32_t slot = 0; slot < BUCKET; slot++) {
			rest(&p, slot, take(&p, 0, slot));
			if (slot != idle)
				assert_int_not_equal(take(&p, 0, slot), 0);
		}
		assert_int_not_equal(take(&p, 0, BUCKET), 0);
		assert_int_equal(snat_resting(&p), BUCKET - 1);
		assert_int_equal(snat_used(&p, 0, idle), 0);
		for (uint32_t slot = 0; slot < BUCKET; slot++)
			assert_int_equal(snat_used(&p, 0, slot), slot == idle ? 0 : 2);
		/* None is left that would. */
		assert_int_equal(take(&p, 0, BUCKET + 1), 0);
		/* What was woken with its pair is not woken again. */
		now_ms += SNAT_REST_MS;
		snat_run(&p, now_ms);
		assert_int_equal(snat_resting(&p), 0);
		assert_int_equal(snat_used(&p, 0, BUCKET), 1);
		snat_pool_fini(&p);
	}
}

/* Where every port of a pair is taken or rests, its own that rests longest serves, behind however many of others. */
static void test_exhausted_pair_wakes_its_own(void **state)
{
	struct snat_pool p = pool(0, 1, 64);
	uint16_t mine_be[2];

	now_ms = 1;
	for (unsigned i = 0; i < 2; i++)
		mine_be[i] = take(&p, 0, 1);
	for (uint32_t i = 0; i < SNAT_RESTS_MAX - 2; i++)
		rest(&p, 2 + i % 3, take(&p, 0, 2 + i % 3));
	for (unsigned i = 0; i < 2; i++)
		rest(&p, 1, mine_be[i]);
	for (uint32_t i = 2; i < p.n_ports; i++)
		assert_int_not_equal(take(&p, 0, 1), 0);
	assert_int_equal(snat_used(&p, 0, 1), p.n_ports);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(take(&p, 0, 1), mine_be[i]);
		assert_int_equal(snat_resting(&p), SNAT_RESTS_MAX - 1 - i);
	}
	assert_int_equal(take(&p, 0, 1), 0);
	/* All others when their time comes, and these not once more. */
	now_ms += SNAT_REST_MS;
	for (uint32_t i = 0; i < SNAT_RESTS_MAX; i++)
		snat_run(&p, now_ms);
	assert_int_equal(snat_resting(&p), 0);
	assert_int_equal(snat_used(&p, 0, 1), p.n_ports);
	for (uint32_t slot = 2; slot < 5; slot++)
		assert_int_equal(snat_used(&p, 0, slot), 0);
	snat_pool_fini(&p);
}

/* At four fifths once; when there is none, once in ten seconds; both again after it was better. */
static void test_news(void **state)
{
	struct snat_pool p = pool(0, 8, 64);
	uint16_t *ports_be = calloc(p.n_ports, sizeof(*ports_be));

	assert_non_null(ports_be);
	now_ms = 77;
	for (unsigned round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < p.n_ports; i++) {
			ports_be[i] = take(&p, 0, 1);
			assert_int_equal(news, i + 1 == (p.n_ports * 4 + 4) / 5 ? SNAT_SCARCE : SNAT_NO_NEWS);
		}
		for (uint32_t ms = 0; ms < 30000; ms += 10) {
			assert_int_equal(take(&p, 0, 1), 0);
			assert_int_equal(news, ms % SNAT_NEWS_MS ? SNAT_NO_NEWS : SNAT_EXHAUSTED);
			now_ms += 10;
		}
		for (uint32_t i = 0; i < p.n_ports; i++)
			snat_give_back(&p, 0, 1, ports_be[i]);
		ports_be[0] = take(&p, 0, 1);
		assert_int_equal(news, SNAT_NO_NEWS);
		snat_give_back(&p, 0, 1, ports_be[0]);
	}
	snat_pool_fini(&p);
	free(ports_be);
}

/* Takes a port of each of n pairs, none of which had one. Returns how many it got; all are given back. */
static uint32_t take_of_each(struct snat_pool *p, uint32_t first_slot, uint32_t n, uint16_t *ports_be)
{
	uint32_t got = 0;

	for (uint32_t i = 0; i < n; i++) {
		ports_be[i] = take(p, i % 3, first_slot + i);
		got += ports_be[i] != 0;
	}
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(snat_used(p, i % 3, first_slot + i), ports_be[i] != 0);
		if (ports_be[i])
			snat_give_back(p, i % 3, first_slot + i, ports_be[i]);
		assert_int_equal(snat_used(p, i % 3, first_slot + i), 0);
	}
	return got;
}

/* Two thirds of the pairs can be in use at a time, whichever they are; those without ports give way to others. */
static void test_pairs(void **state)
{
	static const uint32_t sizes[] = {64, 256, 4096, 8192};
	uint16_t *ports_be = calloc(8192, sizeof(*ports_be));
	uint32_t slot = 0;

	assert_non_null(ports_be);
	for (unsigned size = 0; size < sizeof(sizes) / sizeof(sizes[0]); size++) {
		struct snat_pool p = pool(0, 8, sizes[size]);
		uint32_t n = sizes[size] / 3 * 2;

		for (unsigned round = 0; round < 50; round++, slot += n)
			assert_int_equal(take_of_each(&p, slot, n, ports_be), n);
		snat_pool_fini(&p);
	}
	free(ports_be);
}

/* Beyond that some are refused, and those that were not keep what they have. */
static void test_too_many_pairs(void **state)
{
	static uint16_t ports_be[512];
	struct snat_pool p = pool(0, 8, 256);
	uint32_t got = take_of_each(&p, 0, 512, ports_be);

	assert_in_range(got, 256 * 2 / 3, 256);
	snat_pool_fini(&p);
}

/* Random takes and returns of a few pairs, against a map. */
static void test_random(void **state)
{
	static bool taken[4][65536];
	struct snat_pool p = pool(1, 2, 64);
	uint32_t seed = 5, n[4] = {0};

	for (uint32_t step = 0; step < 2000000; step++) {
		uint32_t pair = (seed = seed * 1664525 + 1013904223) >> 30;
		uint16_t port = seed >> 8;

		if (taken[pair][port]) {
			snat_give_back(&p, pair & 1, pair >> 1, htons(port));
			taken[pair][port] = false;
			n[pair]--;
		} else if (n[pair] < p.n_ports) {
			port = ntohs(take(&p, pair & 1, pair >> 1));
			assert_true(port && !taken[pair][port]);
			taken[pair][port] = true;
			n[pair]++;
		} else {
			assert_int_equal(take(&p, pair & 1, pair >> 1), 0);
		}
		assert_int_equal(snat_used(&p, pair & 1, pair >> 1), n[pair]);
	}
	snat_pool_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_partition),
		cmocka_unit_test(test_exhaust),
		cmocka_unit_test(test_rests),
		cmocka_unit_test(test_quarantine),
		cmocka_unit_test(test_rest_gives_way),
		cmocka_unit_test(test_rests_full),
		cmocka_unit_test(test_news),
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_too_many_pairs),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_resting_pair_gives_way),
		cmocka_unit_test(test_exhausted_pair_wakes_its_own),
	};
	uint32_t seed = 271828;

	for (unsigned i = 0; i < sizeof(secret); i++)
		secret[i] = (seed = seed * 1664525 + 1013904223) >> 24;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
