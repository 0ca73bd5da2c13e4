/* SPDX-License-Identifier: BSD-3-Clause */
#include "clock.h"
#include "events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

static void add(struct events *e, unsigned n)
{
	events_add(e, EVENT_WARNING, "test", "gateway", "it", "number %u", n);
}

static void test_in_order(void **state)
{
	struct events *e = events_create(NULL);
	struct event_record r[8];
	uint64_t lost;

	assert_int_equal(events_last(e), 0);
	assert_int_equal(events_read(e, 0, r, 8, &lost, 0), 0);
	for (unsigned i = 1; i <= 3; i++)
		add(e, i);
	assert_int_equal(events_read(e, 0, r, 8, &lost, 0), 3);
	assert_int_equal(lost, 0);
	assert_int_equal(r[0].number, 1);
	assert_string_equal(r[2].text, "number 3");
	assert_string_equal(r[2].subject, "it");
	assert_int_equal(events_read(e, 1, r, 1, &lost, 0), 1);
	assert_int_equal(r[0].number, 2);
	assert_int_equal(events_read(e, 3, r, 8, &lost, 0), 0);
	events_destroy(e);
	events_destroy(NULL);
}

/* A slow reader is told how many it lost, and goes on with the oldest that is left. */
static void test_slow_reader(void **state)
{
	struct events *e = events_create(NULL);
	struct event_record r[2];
	uint64_t lost;

	for (unsigned i = 1; i <= EVENTS_KEPT + 10; i++)
		add(e, i);
	assert_int_equal(events_read(e, 3, r, 2, &lost, 0), 2);
	assert_int_equal(lost, 7);
	assert_int_equal(r[0].number, 11);
	assert_string_equal(r[0].text, "number 11");
	assert_int_equal(events_read(e, 10, r, 2, &lost, 0), 2);
	assert_int_equal(lost, 0);
	events_destroy(e);
}

static void *add_late(void *arg)
{
	usleep(20000);
	add(arg, 1);
	return NULL;
}

static void *wake_late(void *arg)
{
	usleep(20000);
	events_wake(arg);
	return NULL;
}

static void test_wait(void **state)
{
	struct events *e = events_create(NULL);
	struct event_record r[2];
	pthread_t thread;
	uint64_t lost, begin_ns = clock_monotonic_ns();

	assert_int_equal(events_read(e, 0, r, 2, &lost, 10), 0);
	assert_true(clock_monotonic_ns() - begin_ns >= 10000000);
	pthread_create(&thread, NULL, add_late, e);
	assert_int_equal(events_read(e, 0, r, 2, &lost, 60000), 1);
	pthread_join(thread, NULL);
	pthread_create(&thread, NULL, wake_late, e);
	assert_int_equal(events_read(e, 1, r, 2, &lost, 60000), 0);
	pthread_join(thread, NULL);
	assert_true(clock_monotonic_ns() - begin_ns < 30000000000);
	events_destroy(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
