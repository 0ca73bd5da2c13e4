/* SPDX-License-Identifier: BSD-3-Clause */
#include "mtu.h"

#include "../slower.h"
#include "hash.h"
#include "memory_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define SECOND_NS 1000000000ull
#define START_NS  (65530 * SECOND_NS) /* seconds modulo 2^16 wrap soon */
#define LIFE_NS   (600 * SECOND_NS)

static const uint8_t secret[HASH_SECRET_LEN] = {9, 8, 7, 6, 5, 4, 3, 2, 1};

static struct mtu_table table;
static uint64_t now_ns;

static void start(uint32_t n_entries)
{
	assert_int_equal(mtu_table_init(&table, n_entries, secret), 0);
	now_ns = START_NS;
}

static void stop(void)
{
	mtu_table_fini(&table);
}

static struct ipaddr address(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

static enum path_outcome learn(bool upstream, const char *text, uint32_t mtu)
{
	struct ipaddr a = address(text);

	return mtu_learn(&table, upstream, &a, mtu, now_ns).outcome;
}

static uint16_t of_client(const char *text)
{
	struct ipaddr a = address(text);

	return mtu_of_client(&table, &a, now_ns);
}

static uint16_t of_upstream(const char *text)
{
	struct ipaddr a = address(text);

	return mtu_of_upstream(&table, &a, now_ns);
}

static void test_learn(void **state)
{
	start(1024);
	assert_int_equal(of_client("198.19.0.1"), 0);
	assert_int_equal(learn(false, "198.19.0.1", 1400), PATH_LEARNED);
	assert_int_equal(of_client("198.19.0.1"), 1400);
	assert_int_equal(of_client("198.19.0.2"), 0);
	/* A client is no backend, nor the other way round. */
	assert_int_equal(of_upstream("198.19.0.1"), 0);
	assert_int_equal(learn(true, "198.18.3.1", 1300), PATH_LEARNED);
	assert_int_equal(of_upstream("198.18.3.1"), 1300);
	assert_int_equal(of_client("198.18.3.1"), 0);
	/* Less at once, more not. */
	assert_int_equal(learn(false, "198.19.0.1", 1450), PATH_LARGER);
	assert_int_equal(of_client("198.19.0.1"), 1400);
	assert_int_equal(learn(false, "198.19.0.1", 1280), PATH_LEARNED);
	assert_int_equal(of_client("198.19.0.1"), 1280);
	assert_int_equal(learn(false, "198.19.0.1", 1280), PATH_CONFIRMED);
	stop();
}

/* C-5: never under the floors. */
static void test_floors(void **state)
{
	struct ipaddr a = address("198.19.0.1");
	struct path_lesson lesson;

	start(1024);
	lesson = mtu_learn(&table, false, &a, 68, now_ns);
	assert_int_equal(lesson.mtu, 576);
	assert_int_equal(lesson.before, 0);
	assert_int_equal(of_client("198.19.0.1"), 576);
	learn(true, "2001:db8:3::1", 0);
	assert_int_equal(of_upstream("2001:db8:3::1"), 1280);
	learn(true, "2001:db8:3::2", 70000);
	assert_int_equal(of_upstream("2001:db8:3::2"), 65535);
	stop();
}

/* C-5: 600 s after the last router said so it is gone, for workers at once and whether or not decide looks. */
static void test_age(void **state)
{
	start(1024);
	learn(false, "198.19.0.1", 1400);
	now_ns += LIFE_NS - SECOND_NS - 1;
	assert_int_equal(of_client("198.19.0.1"), 1400);
	assert_int_equal(learn(false, "198.19.0.1", 1400), PATH_CONFIRMED);
	now_ns += LIFE_NS - SECOND_NS - 1;
	assert_int_equal(of_client("198.19.0.1"), 1400);
	now_ns += SECOND_NS + 1;
	assert_int_equal(of_client("198.19.0.1"), 0);
	assert_int_equal(table.n, 1);
	/* And then a larger one is news. */
	assert_int_equal(learn(false, "198.19.0.1", 1450), PATH_LEARNED);
	assert_int_equal(of_client("198.19.0.1"), 1450);
	now_ns += LIFE_NS;
	mtu_age(&table, now_ns - 1);
	assert_int_equal(table.n, 1);
	mtu_age(&table, now_ns);
	assert_int_equal(table.n, 0);
	assert_int_equal(table.of_kind[PATH_CLIENT], 0);
	stop();
}

static void test_young(void **state)
{
	struct ipaddr a = address("2001:db8:1000::1");
	bool young;

	start(1024);
	assert_int_equal(mtu_of_address(&table, false, &a, now_ns, &young), 0);
	assert_false(young);
	mtu_learn(&table, false, &a, 1400, now_ns);
	assert_int_equal(mtu_of_address(&table, false, &a, now_ns + 50 * SECOND_NS, &young), 1400);
	assert_true(young);
	assert_int_equal(mtu_of_address(&table, false, &a, now_ns + 62 * SECOND_NS, &young), 1400);
	assert_false(young);
	assert_int_equal(mtu_of_address(&table, true, &a, now_ns, &young), 0);
	stop();
}

/* --- prefixes --- */

static void test_promotion(void **state)
{
	static const char *const families[][6] = {
		{"198.19.0.1", "198.19.0.2", "198.19.0.3", "198.19.0.4", "198.19.0.99", "198.19.1.1"},
		{"2001:db8:1::1", "2001:db8:1::2", "2001:db8:1::3", "2001:db8:1::4", "2001:db8:1::ffff:0:0:1",
		 "2001:db8:1:1::1"},
	};

	for (int f = 0; f < 2; f++) {
		const char *const *a = families[f];

		start(1024);
		for (int i = 0; i < 3; i++)
			learn(false, a[i], 1400);
		learn(false, a[0], 1400); /* the same one again is no other */
		assert_int_equal(of_client(a[4]), 0);
		assert_int_equal(learn(false, a[3], 1300), PATH_LEARNED); /* does not agree */
		assert_int_equal(of_client(a[4]), 0);
		learn(true, a[4], 1400); /* nor does a backend */
		assert_int_equal(of_client(a[4]), 0);
		now_ns += 10 * SECOND_NS;
		learn(false, a[4], 1400);
		now_ns += 10 * SECOND_NS;
		assert_int_equal(table.of_kind[PATH_PREFIX], 1);
		/* An address that is known is known better than its prefix; others have the prefix's. */
		assert_int_equal(of_client(a[3]), 1300);
		assert_int_equal(of_client(f ? "2001:db8:1::77" : "198.19.0.77"), 1400);
		assert_int_equal(of_client(a[5]), 0);
		/* Its own life, from when the fourth member said so. */
		now_ns = START_NS + LIFE_NS + 9 * SECOND_NS - 1;
		assert_int_equal(of_client(a[0]), 1400);
		now_ns += SECOND_NS + 1;
		assert_int_equal(of_client(a[0]), 0);
		stop();
	}
}

/* Members that are gone agree with nobody. */
static void test_promotion_of_the_living(void **state)
{
	start(1024);
	learn(false, "198.19.0.1", 1400);
	learn(false, "198.19.0.2", 1400);
	now_ns += LIFE_NS;
	learn(false, "198.19.0.3", 1400);
	learn(false, "198.19.0.4", 1400);
	assert_int_equal(of_client("198.19.0.9"), 0);
	learn(false, "198.19.0.1", 1400);
	learn(false, "198.19.0.2", 1400);
	assert_int_equal(of_client("198.19.0.9"), 1400);
	stop();
}

/* --- full --- */

static void test_full_set(void **state)
{
	start(MTU_WAYS);
	learn(true, "198.18.3.1", 1400);
	for (int i = 0; i < 3; i++) {
		char text[32];

		now_ns += SECOND_NS;
		snprintf(text, sizeof(text), "198.19.%d.1", i);
		assert_int_equal(learn(false, text, 1300), PATH_LEARNED);
	}
	now_ns += SECOND_NS;
	assert_int_equal(learn(false, "198.19.0.1", 1300), PATH_CONFIRMED);
	/* The client that was confirmed longest ago goes, not the backend, which is older. */
	assert_int_equal(learn(false, "198.19.7.1", 1300), PATH_LEARNED);
	assert_int_equal(of_client("198.19.1.1"), 0);
	assert_int_equal(of_client("198.19.0.1"), 1300);
	assert_int_equal(of_client("198.19.2.1"), 1300);
	assert_int_equal(of_upstream("198.18.3.1"), 1400);
	assert_int_equal(table.evicted, 1);
	/* Backends make clients go. */
	for (int i = 2; i <= 4; i++) {
		char text[32];

		now_ns += SECOND_NS;
		snprintf(text, sizeof(text), "198.18.3.%d", i);
		assert_int_equal(learn(true, text, 1300), PATH_LEARNED);
	}
	assert_int_equal(table.of_kind[PATH_CLIENT], 0);
	assert_int_equal(learn(false, "198.19.0.1", 1300), PATH_NO_ROOM);
	assert_int_equal(learn(true, "198.18.3.5", 1300), PATH_LEARNED);
	assert_int_equal(of_upstream("198.18.3.1"), 0);
	assert_int_equal(table.n, MTU_WAYS);
	stop();
}

/* Addresses are still learned, prefixes no more. */
static void test_no_room_for_prefixes(void **state)
{
	start(MTU_WAYS);
	for (int i = 0; i < 4; i++) {
		char text[32];

		snprintf(text, sizeof(text), "198.19.0.%d", i);
		learn(false, text, 1300);
	}
	assert_int_equal(of_client("198.19.0.9"), 0);
	assert_int_equal(table.of_kind[PATH_PREFIX], 0);
	assert_int_equal(learn(false, "198.19.0.8", 1300), PATH_LEARNED);
	stop();
}

/* --- rows --- */

static void test_rows(void **state)
{
	struct path_row rows[8];
	unsigned n_of_kind[PATH_KINDS] = {0}, n = 0;
	uint64_t at = 0;
	size_t got;

	start(1024);
	for (int i = 1; i <= 20; i++) {
		char text[32];

		snprintf(text, sizeof(text), "198.19.0.%d", i);
		learn(false, text, 1400);
	}
	learn(true, "2001:db8:3::1", 1300);
	now_ns += 5 * SECOND_NS;
	while (at != UINT64_MAX) {
		got = mtu_read(&table, &at, rows, 8, now_ns);
		for (size_t i = 0; i < got; i++) {
			n_of_kind[rows[i].kind]++;
			assert_int_equal(rows[i].age_ms, 5000);
			assert_int_equal(rows[i].expires_ms, 595000);
			assert_int_equal(rows[i].mtu, rows[i].kind == PATH_UPSTREAM ? 1300 : 1400);
			assert_int_equal(rows[i].prefix_len, rows[i].kind == PATH_UPSTREAM ? 128
							     : rows[i].kind == PATH_PREFIX ? 24
											   : 32);
			assert_string_equal(rows[i].source, rows[i].kind == PATH_PREFIX ? "members" : "ptb");
		}
		n += got;
	}
	assert_int_equal(n, 22);
	assert_int_equal(n_of_kind[PATH_CLIENT], 20);
	assert_int_equal(n_of_kind[PATH_PREFIX], 1);
	/* What has reached its end is no row, though it may still be there. */
	now_ns += LIFE_NS;
	at = 0;
	assert_int_equal(mtu_read(&table, &at, rows, 8, now_ns), 0);
	assert_true(at == UINT64_MAX);
	at = UINT64_MAX - 1;
	assert_int_equal(mtu_read(&table, &at, rows, 8, now_ns), 0);
	assert_true(at == UINT64_MAX);
	stop();
}

/* --- random walks --- */

static uint64_t random_state = 7;

static uint32_t pick(uint32_t n)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(random_state >> 33) % n;
}

#define MODEL 512

/* One address each, in a prefix of its own, so that nothing is promoted. */
static struct ipaddr model_address(uint32_t i)
{
	return ipaddr_v4(htonl(0xc6130000 + (i << 8) + 1));
}

/* The same rules over a plain array; the table has room for all, so that nothing is evicted. */
static void test_random_walk(void **state)
{
	struct {
		uint32_t mtu;
		uint64_t until_ns;
	} model[MODEL] = {{0}};

	start(65536);
	for (unsigned step = 0; step < 200000 / SLOWER; step++) {
		uint32_t i = pick(MODEL), mtu = 500 + pick(1000), within = mtu < 576 ? 576 : mtu;
		struct ipaddr a = model_address(i);

		now_ns += pick(SECOND_NS);
		if (model[i].until_ns <= now_ns)
			model[i].mtu = 0;
		if (pick(4) == 0 && (!model[i].mtu || within <= model[i].mtu)) {
			model[i].mtu = within;
			model[i].until_ns = now_ns + LIFE_NS;
			mtu_learn(&table, false, &a, mtu, now_ns);
		} else if (pick(4) == 0 && model[i].mtu) {
			assert_int_equal(mtu_learn(&table, false, &a, model[i].mtu + 1, now_ns).outcome, PATH_LARGER);
		}
		if (pick(8) == 0)
			mtu_age(&table, now_ns);
		/* Within its last second a worker may take it for gone. */
		if (model[i].until_ns < now_ns || model[i].until_ns > now_ns + SECOND_NS)
			assert_int_equal(mtu_of_client(&table, &a, now_ns), model[i].mtu);
		else
			assert_true(mtu_of_client(&table, &a, now_ns) == 0 || model[i].mtu);
	}
	assert_int_equal(table.evicted, 0);
	now_ns += LIFE_NS;
	mtu_age(&table, now_ns);
	assert_int_equal(table.n, 0);
	assert_true(table.oldest == UINT32_MAX && table.newest == UINT32_MAX);
	for (uint32_t i = 0; i <= table.mask; i++)
		assert_int_equal(table.chains[i], UINT32_MAX);
	stop();
}

/* A flood of addresses in a small table: what is there is right, bounded, and goes. */
static void test_churn(void **state)
{
	uint64_t at = 0, sum = 0;
	struct path_row row;

	start(256);
	for (uint32_t i = 0; i < 300000 / SLOWER; i++) {
		struct ipaddr a = ipaddr_v4(htonl(0xc6130000 + pick(4096)));

		now_ns += SECOND_NS / 100;
		mtu_learn(&table, pick(16) == 0, &a, 1280 + pick(3), now_ns);
		assert_true(table.n <= 256);
		if (pick(64) == 0)
			mtu_age(&table, now_ns);
	}
	while (at != UINT64_MAX)
		sum += mtu_read(&table, &at, &row, 1, now_ns);
	mtu_age(&table, now_ns);
	assert_int_equal(sum, table.n);
	assert_int_equal(table.n, table.of_kind[0] + table.of_kind[1] + table.of_kind[2]);
	assert_true(table.evicted > 0);
	now_ns += LIFE_NS;
	mtu_age(&table, now_ns);
	assert_int_equal(table.n, 0);
	stop();
}

/* --- others read meanwhile --- */

#define READERS 2

static atomic_bool reading;

static uint16_t right_mtu(const struct ipaddr *a)
{
	return 1000 + a->b[15] * 7 + a->b[14];
}

static void *read_all(void *arg)
{
	uint64_t n_found = 0, at = 0;
	struct path_row row;

	while (atomic_load(&reading)) {
		for (uint32_t i = 0; i < 2048; i++) {
			struct ipaddr a = ipaddr_v4(htonl(0xc6130000 + i * 5));
			uint16_t mtu = mtu_of_upstream(&table, &a, START_NS);

			if (mtu && mtu != right_mtu(&a))
				return "an MTU of another address";
			n_found += mtu != 0;
		}
		if (mtu_read(&table, &at, &row, 1, START_NS) && row.mtu != right_mtu(&row.addr))
			return "a row of two entries";
		at = at == UINT64_MAX ? 0 : at;
	}
	return n_found ? NULL : "nothing was ever found";
}

/* No reader ever sees the MTU of another address, while each cell goes from hand to hand. */
static void test_readers(void **state)
{
	pthread_t threads[READERS];

	start(64);
	atomic_store(&reading, true);
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_all, NULL), 0);
	for (uint32_t i = 0; i < 3000000 / SLOWER; i++) {
		struct ipaddr a = ipaddr_v4(htonl(0xc6130000 + pick(2048) * 5));

		mtu_learn(&table, true, &a, right_mtu(&a), START_NS);
	}
	atomic_store(&reading, false);
	for (int i = 0; i < READERS; i++) {
		void *wrong;

		pthread_join(threads[i], &wrong);
		if (wrong)
			fail_msg("%s", (char *)wrong);
	}
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_learn),     cmocka_unit_test(test_floors),
		cmocka_unit_test(test_age),       cmocka_unit_test(test_young),
		cmocka_unit_test(test_promotion), cmocka_unit_test(test_promotion_of_the_living),
		cmocka_unit_test(test_full_set),  cmocka_unit_test(test_no_room_for_prefixes),
		cmocka_unit_test(test_rows),      cmocka_unit_test(test_random_walk),
		cmocka_unit_test(test_churn),     cmocka_unit_test(test_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
