/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory_heap.h"
#include "wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#define N_FLOWS 5000

static const uint8_t secret[HASH_SECRET_LEN] = {3, 1, 4, 1, 5, 9, 2, 6};

struct bench {
	struct flow_table t;
	struct wheel *w;
	uint64_t now_ms;
};

static void begin(struct bench *b, uint64_t now_ms)
{
	b->now_ms = now_ms;
	assert_int_equal(flow_table_init(&b->t, N_FLOWS, 1, secret), 0);
	b->w = malloc(sizeof(*b->w));
	assert_non_null(b->w);
	wheel_init(b->w, now_ms);
}

static void end(struct bench *b)
{
	free(b->w);
	flow_table_fini(&b->t);
}

/* A packet of either direction: the later one counts. */
static void refresh(struct bench *b, flow_ref ref)
{
	flow_half(&b->t, b->now_ms & 1 ? ref : flow_ref_other(ref))->last_ms = b->now_ms;
}

/* The wheel needs an entry's times and links only, so the flow needs no key. */
static flow_ref add(struct bench *b, uint32_t entry, uint32_t timeout_ms)
{
	flow_ref ref = flow_ref_make(false, entry, DIR_UP);

	flow_half(&b->t, ref)->last_ms = b->now_ms;
	flow_half(&b->t, flow_ref_other(ref))->last_ms = b->now_ms;
	flow_track(&b->t, ref)->timeout_ms = timeout_ms;
	wheel_add(b->w, &b->t, ref, b->now_ms);
	return ref;
}

/* Moves time on until something expires, at most to `end_ms`; returns how much. */
static uint32_t run_until(struct bench *b, uint64_t end_ms, uint64_t step_ms, flow_ref *expired, uint32_t room)
{
	uint32_t n = 0;

	while (n == 0 && b->now_ms < end_ms) {
		b->now_ms += step_ms;
		n = wheel_advance(b->w, &b->t, b->now_ms, room, expired);
	}
	return n;
}

/* Never before the deadline, at most a tick and the step of the clock after it; also beyond one turn. */
static void test_deadlines(void **state)
{
	static const uint64_t starts_ms[] = {0, 1, 127, 128, 1000, UINT32_MAX - 5000ull, 5ull << 32};
	static const uint32_t timeouts_ms[] = {0, 1, 127, 128, 129, 10000, 300000, 524288, 525000, 7440000};

	for (size_t i = 0; i < sizeof(starts_ms) / sizeof(starts_ms[0]); i++)
		for (size_t j = 0; j < sizeof(timeouts_ms) / sizeof(timeouts_ms[0]); j++) {
			uint64_t due_ms = starts_ms[i] + timeouts_ms[j];
			flow_ref ref, expired[4];
			struct bench b;

			begin(&b, starts_ms[i]);
			assert_int_equal(wheel_advance(b.w, &b.t, b.now_ms, 4, expired), 0);
			ref = add(&b, 7, timeouts_ms[j]);
			assert_int_equal(run_until(&b, due_ms + 1000, 7, expired, 4), 1);
			assert_int_equal(expired[0], ref);
			assert_in_range(b.now_ms, due_ms, due_ms + WHEEL_TICK_MS + 7);
			assert_int_equal(b.w->n_flows, 0);
			end(&b);
		}
}

/* 30 days, which the configuration allows, are more milliseconds than a signed word holds. */
static void test_longest(void **state)
{
	const uint32_t timeout_ms = 30u * 86400 * 1000;
	flow_ref expired[4];
	struct bench b;

	begin(&b, 1234567);
	add(&b, 0, timeout_ms);
	assert_int_equal(run_until(&b, 1234567 + timeout_ms + 200000ull, 100000, expired, 4), 1);
	assert_true(b.now_ms >= 1234567ull + timeout_ms);
	end(&b);
}

/* Packets only note their time; the wheel finds out when the old slot comes. */
static void test_refreshed(void **state)
{
	flow_ref ref, expired[4];
	struct bench b;

	begin(&b, 50000);
	ref = add(&b, 3, 1000);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(run_until(&b, b.now_ms + 900, 10, expired, 4), 0);
		refresh(&b, ref);
	}
	assert_int_equal(run_until(&b, b.now_ms + 2000, 1, expired, 4), 1);
	assert_in_range(b.now_ms, 50000 + 90000 + 1000, 50000 + 90000 + 1000 + WHEEL_TICK_MS + 1);
	end(&b);
}

/* A look counts from the moment it was asked for, whatever the flow's idle time; also one that is overdue. */
static void test_looks(void **state)
{
	static const uint32_t looks_ms[] = {0, 1, 10000, 300000, 7440000};

	for (size_t i = 0; i < sizeof(looks_ms) / sizeof(looks_ms[0]); i++) {
		flow_ref ref, expired[4];
		struct bench b;
		uint64_t due_ms;

		begin(&b, UINT32_MAX - 5000ull);
		ref = add(&b, 7, 1000);
		assert_int_equal(run_until(&b, b.now_ms + 2000, 7, expired, 4), 1);
		due_ms = b.now_ms + looks_ms[i];
		flow_track(&b.t, ref)->look = LOOK_LATER;
		flow_track(&b.t, ref)->look_ms = looks_ms[i] ? due_ms : due_ms - 5000;
		wheel_add(b.w, &b.t, ref, b.now_ms);
		refresh(&b, ref);
		assert_int_equal(run_until(&b, due_ms + 1000, 7, expired, 4), 1);
		assert_in_range(b.now_ms, due_ms, due_ms + WHEEL_TICK_MS + 7);
		end(&b);
	}
}

static void test_shorter(void **state)
{
	flow_ref ref, expired[4];
	struct bench b;

	begin(&b, 50000);
	ref = add(&b, 3, 7440000);
	b.now_ms += 500;
	refresh(&b, ref);
	flow_track(&b.t, ref)->timeout_ms = 2000;
	wheel_move(b.w, &b.t, ref, b.now_ms);
	wheel_move(b.w, &b.t, ref, b.now_ms); /* it is there already */
	assert_int_equal(b.w->n_flows, 1);
	assert_int_equal(run_until(&b, b.now_ms + 5000, 1, expired, 4), 1);
	assert_in_range(b.now_ms, 52500, 52500 + WHEEL_TICK_MS + 1);
	end(&b);
}

/* Never more than the budget at a call; the rest comes with the next ones, and nothing twice. */
static void test_budget(void **state)
{
	bool *seen = calloc(N_FLOWS, sizeof(*seen));
	flow_ref expired[16];
	uint32_t calls = 0, n, total = 0;
	struct bench b;

	assert_non_null(seen);
	begin(&b, 50000);
	for (uint32_t i = 0; i < N_FLOWS; i++)
		add(&b, i, 1000 + i % 500);
	/* Half of them lived on: looking at these is work too. */
	b.now_ms += 3000;
	for (uint32_t i = 0; i < N_FLOWS; i += 2)
		refresh(&b, flow_ref_make(false, i, DIR_UP));
	do {
		n = wheel_advance(b.w, &b.t, b.now_ms, 16, expired);
		assert_true(n <= 16);
		for (uint32_t i = 0; i < n; i++) {
			assert_false(seen[flow_ref_entry(expired[i])]);
			seen[flow_ref_entry(expired[i])] = true;
		}
		total += n;
	} while (++calls < N_FLOWS / 16 + 2);
	assert_int_equal(total, N_FLOWS / 2);
	assert_int_equal(b.w->n_flows, N_FLOWS / 2);
	end(&b);
	free(seen);
}

/* Random lives against a list of deadlines. */
static void test_random(void **state)
{
	uint64_t due_ms[256] = {0}; /* 0: not on the wheel */
	flow_ref expired[256];
	uint32_t seed = 1;
	struct bench b;

	begin(&b, UINT32_MAX - 100000ull);
	for (int step = 0; step < 200000; step++) {
		uint32_t i = (seed = seed * 1664525 + 1013904223) >> 24, timeout_ms = (seed >> 4) % 3000;
		flow_ref ref = flow_ref_make(false, i, DIR_UP);
		struct flow_track *track = flow_track(&b.t, ref);

		if (!due_ms[i]) {
			add(&b, i, timeout_ms);
		} else if (seed & 8) {
			wheel_del(b.w, &b.t, ref);
			due_ms[i] = 0;
			continue;
		} else {
			uint32_t before_ms = track->timeout_ms;

			refresh(&b, ref);
			track->timeout_ms = timeout_ms;
			if (timeout_ms < before_ms)
				wheel_move(b.w, &b.t, ref, b.now_ms);
		}
		due_ms[i] = b.now_ms + timeout_ms;
		b.now_ms += seed % 7;
		for (uint32_t n = wheel_advance(b.w, &b.t, b.now_ms, 256, expired); n > 0; n--) {
			uint64_t *due = &due_ms[flow_ref_entry(expired[n - 1])];

			assert_in_range(b.now_ms, *due, *due + WHEEL_TICK_MS + 7);
			*due = 0;
		}
		for (unsigned j = 0; step % 64 == 0 && j < 256; j++)
			assert_true(!due_ms[j] || due_ms[j] + WHEEL_TICK_MS + 7 >= b.now_ms);
	}
	end(&b);
}

/* Who sleeps as long as it says misses nothing, and wakes for nothing only now and then. */
static void test_sleep(void **state)
{
	flow_ref expired[1];
	unsigned naps = 0;
	struct bench b;

	begin(&b, 1000003);
	assert_int_equal(wheel_sleep_ms(b.w, b.now_ms, 100), 100);
	for (uint32_t timeout_ms = 1; timeout_ms < 2000; timeout_ms += 37) {
		uint64_t due_ms = b.now_ms + timeout_ms;

		add(&b, 0, timeout_ms);
		while (!wheel_advance(b.w, &b.t, b.now_ms, 1, expired)) {
			uint32_t sleep_ms = wheel_sleep_ms(b.w, b.now_ms, 100);

			assert_in_range(sleep_ms, 1, 100);
			b.now_ms += sleep_ms;
			naps++;
		}
		assert_in_range(b.now_ms, due_ms, due_ms + WHEEL_TICK_MS);
	}
	assert_true(naps < 54 * (2000 / 2 / 100 + 4));
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_deadlines), cmocka_unit_test(test_longest), cmocka_unit_test(test_refreshed),
		cmocka_unit_test(test_looks),     cmocka_unit_test(test_shorter), cmocka_unit_test(test_budget),
		cmocka_unit_test(test_random),    cmocka_unit_test(test_sleep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
