/* SPDX-License-Identifier: BSD-3-Clause */
/* The descriptors of held connections and their wheel, on a clock of the test's own. */
#include "hold.h"
#include "memory_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#define CAPACITY 1000
#define MS       1000000ull
#define START_NS (12345678 * MS + 345678)

static struct holds hs;
static uint64_t now_ns;

static void begin(uint32_t capacity)
{
	now_ns = START_NS;
	assert_int_equal(holds_init(&hs, capacity, 4, now_ns), 0);
}

static struct hold numbered(uint32_t i)
{
	return (struct hold){
		.src = ipaddr_v4(htonl(0xc6130000 + i / 7)),
		.dst = ipaddr_v4(htonl(0xc6126401)),
		.sport_be = htons(1024 + i % 7),
		.dport_be = htons(80),
		.hash = i % 50, /* many share a chain */
		.service.slot = i % 4,
	};
}

static struct hold *add(uint32_t i, uint64_t due_ns, uint64_t end_ns)
{
	struct hold h = numbered(i), *added;

	h.end_ns = end_ns;
	added = hold_add(&hs, &h, now_ns);
	assert_non_null(added);
	hold_schedule(&hs, added, due_ns);
	return added;
}

static struct hold *find(uint32_t i)
{
	struct hold h = numbered(i);

	return hold_lookup(&hs, h.hash, &h.src, &h.dst, h.sport_be, h.dport_be);
}

/* Never early, never more than a slot late, and within a slot in the order of their ends; a walk of a thousand. */
static void test_due(void **state)
{
	uint64_t due_ns[CAPACITY];
	uint32_t n = 0;

	srand(7);
	begin(CAPACITY);
	for (uint32_t i = 0; i < CAPACITY; i++) {
		due_ns[i] = now_ns + rand() % 3000000 * 1000ull;
		add(i, due_ns[i], due_ns[i] + rand() % 100 * MS);
	}
	for (; n < CAPACITY; now_ns += MS) {
		struct hold *due[CAPACITY];
		uint32_t n_due = hold_due(&hs, now_ns, CAPACITY, due);

		for (uint32_t i = 0; i < n_due; i++) {
			uint64_t was_due_ns = due_ns[due[i] - hs.holds];

			assert_true(now_ns >= was_due_ns && now_ns < was_due_ns + 2 * MS);
			assert_true(i == 0 || due[i - 1]->end_ns <= due[i]->end_ns);
			hold_del(&hs, due[i]);
		}
		n += n_due;
		assert_true(now_ns < START_NS + 3002 * MS);
	}
	assert_int_equal(hs.n, 0);
	holds_fini(&hs);
}

/* What is put in a slot late, but ends early, does not come behind the others. */
static void test_order_in_a_slot(void **state)
{
	static const unsigned ends_ms[] = {30, 10, 20, 5, 40, 20};
	struct hold *due[6];

	begin(6);
	for (uint32_t i = 0; i < 6; i++)
		add(i, now_ns + MS, now_ns + ends_ms[i] * MS);
	assert_int_equal(hold_due(&hs, now_ns, 6, due), 0);
	assert_int_equal(hold_due(&hs, now_ns + 2 * MS, 6, due), 6);
	for (int i = 1; i < 6; i++)
		assert_true(due[i - 1]->end_ns <= due[i]->end_ns);
	/* Of equal ones the first is first. */
	assert_ptr_equal(due[2], &hs.holds[2]);
	assert_ptr_equal(due[3], &hs.holds[5]);
	holds_fini(&hs);
}

static void test_full(void **state)
{
	struct hold extra = numbered(2), *due[2];

	begin(2);
	for (int round = 0; round < 5; round++) {
		add(0, now_ns, now_ns);
		add(1, now_ns, now_ns);
		assert_null(hold_add(&hs, &extra, now_ns));
		assert_int_equal(hs.of_service[0], 1);
		assert_int_equal(hs.of_service[1], 1);
		now_ns += MS;
		assert_int_equal(hold_due(&hs, now_ns, 2, due), 2);
		hold_del(&hs, due[0]);
		hold_del(&hs, due[1]);
		assert_int_equal(hs.of_service[0] + hs.of_service[1], 0);
	}
	holds_fini(&hs);
}

static void test_lookup(void **state)
{
	struct hold shadow = numbered(0);

	begin(CAPACITY);
	shadow.shadow = true;
	hold_schedule(&hs, hold_add(&hs, &shadow, now_ns), now_ns);
	assert_null(find(0));
	for (uint32_t i = 0; i < CAPACITY - 1; i++)
		add(i, now_ns, now_ns);
	assert_int_equal(hs.n, CAPACITY);
	assert_int_equal(hs.n_real, CAPACITY - 1);
	now_ns += MS;
	while (hs.n) {
		struct hold *due[32];
		uint32_t n = hold_due(&hs, now_ns, 32, due);

		for (uint32_t i = 0; i < n; i++)
			hold_del(&hs, due[i]);
		/* Those that are still there are found, the others are not. */
		for (uint32_t i = 0; i < CAPACITY - 1; i++) {
			const struct hold *h = find(i);
			struct hold expected = numbered(i);

			assert_int_equal(h != NULL, i + 1 >= CAPACITY - hs.n_real);
			assert_true(!h || (h->sport_be == expected.sport_be && ipaddr_equal(&h->src, &expected.src)));
		}
	}
	holds_fini(&hs);
}

/* An empty wheel is not looked at; the first hold after hours is due when it says, not at once. */
static void test_after_a_rest(void **state)
{
	struct hold *due[1];

	begin(1);
	now_ns += 5 * 3600 * 1000 * MS;
	add(0, now_ns + 10 * MS, now_ns + 10 * MS);
	assert_int_equal(hold_due(&hs, now_ns + 9 * MS, 1, due), 0);
	assert_int_equal(hold_due(&hs, now_ns + 11 * MS, 1, due), 1);
	holds_fini(&hs);
}

/* The worker did not run for longer than a turn of the wheel: all have come, each once. */
static void test_after_a_stall(void **state)
{
	struct hold *due[CAPACITY];
	uint32_t n = 0, got;

	begin(CAPACITY);
	for (uint32_t i = 0; i < CAPACITY; i++)
		add(i, now_ns + i * 3 * MS, now_ns + i * 3 * MS);
	now_ns += 3600 * 1000 * MS;
	while ((got = hold_due(&hs, now_ns, 33, due)) > 0) {
		assert_int_equal(hold_is_behind(&hs, now_ns), n + got < CAPACITY);
		for (uint32_t i = 0; i < got; i++)
			hold_del(&hs, due[i]);
		n += got;
	}
	assert_int_equal(n, CAPACITY);
	assert_false(hold_is_behind(&hs, now_ns));
	holds_fini(&hs);
}

/* Tried and put back again: not before the next slot, or it would be tried for ever. */
static void test_put_back(void **state)
{
	struct hold *due[1];

	begin(1);
	add(0, now_ns, now_ns);
	now_ns += MS;
	assert_int_equal(hold_due(&hs, now_ns, 1, due), 1);
	hold_schedule(&hs, due[0], now_ns);
	assert_int_equal(hold_due(&hs, now_ns, 1, due), 0);
	assert_int_equal(hold_due(&hs, now_ns + MS, 1, due), 1);
	holds_fini(&hs);
}

static void test_sleep(void **state)
{
	struct hold *due[1];

	begin(2);
	assert_int_equal(hold_sleep_ms(&hs, now_ns, 100), 100);
	for (unsigned ms = 0; ms < 150; ms += 7) {
		uint64_t due_ns = now_ns + ms * MS;
		uint32_t sleep_ms;

		add(0, due_ns, due_ns);
		sleep_ms = hold_sleep_ms(&hs, now_ns, 100);
		assert_in_range(sleep_ms, ms < 100 ? ms : 100, ms + 1 < 100 ? ms + 1 : 100);
		/* Whoever sleeps that long does not wake in vain, unless there is more to wait for. */
		assert_int_equal(hold_due(&hs, now_ns + sleep_ms * MS, 1, due), ms < 100);
		if (ms >= 100)
			assert_int_equal(hold_due(&hs, due_ns + MS, 1, due), 1);
		hold_del(&hs, due[0]);
	}
	holds_fini(&hs);
}

static void check_waiting(void)
{
	uint32_t n = 0;

	for (uint32_t queue = 0; queue < 8; queue++) {
		if (!hs.queues[queue].n)
			continue;
		assert_int_equal(hs.waiting[hs.queues[queue].at], queue);
		n++;
	}
	assert_int_equal(hs.n_waiting, n);
}

/* Those that wait for room leave their queues in any order; the queues that are left have their turns. */
static void test_queues(void **state)
{
	enum { N = 200 };
	struct hold *held[N] = {0};

	srand(7);
	begin(N);
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t at = rand() % N, turns[8] = {0};

		if (held[at] && rand() % 4) {
			hold_unqueue(&hs, held[at]);
			hold_del(&hs, held[at]);
			held[at] = NULL;
		} else if (!held[at] && rand() % 16 == 0) {
			held[at] = add(at, now_ns + 50 * MS, now_ns + 50 * MS);
			held[at]->rank = rand() % HOLD_RANKS;
			hold_queue(&hs, held[at]);
		}
		check_waiting();
		if (hs.n_waiting)
			(void)hold_pick_queue(&hs, 0, rand() % hs.n_waiting);
		check_waiting();
		for (uint32_t turn = 0; turn < hs.n_waiting; turn++)
			turns[hold_pick_queue(&hs, turn, rand() % (hs.n_waiting - turn))]++;
		for (uint32_t queue = 0; queue < 8; queue++)
			assert_int_equal(turns[queue], hs.queues[queue].n > 0);
	}
	holds_fini(&hs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_due),          cmocka_unit_test(test_order_in_a_slot),
		cmocka_unit_test(test_full),         cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_after_a_rest), cmocka_unit_test(test_after_a_stall),
		cmocka_unit_test(test_put_back),     cmocka_unit_test(test_sleep),
		cmocka_unit_test(test_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
