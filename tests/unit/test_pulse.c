/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether threads keep their time, on a clock and workers of the test's own. */
#include "events.h"
#include "observe.h"
#include "pulse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#define MS 1000000ull

struct dataplane {
	struct worker_report workers[2];
};

unsigned dataplane_n_workers(const struct dataplane *dp)
{
	return 2;
}

void observe_worker(const struct dataplane *dp, unsigned worker, struct worker_report *out)
{
	*out = dp->workers[worker];
}

static void test_late(void **state)
{
	struct pulse p = {0};
	uint64_t now_ns = 5000 * MS;
	uint32_t p99_us, max_us;

	pulse_late(&p, &p99_us, &max_us);
	assert_int_equal(max_us, 0);
	pulse_tick(&p, now_ns);
	pulse_late(&p, &p99_us, &max_us);
	assert_int_equal(max_us, 0);
	pulse_tick(&p, now_ns += 251 * MS);
	pulse_late(&p, &p99_us, &max_us);
	assert_int_equal(p99_us, 1000);
	assert_int_equal(max_us, 1000);
	/* The tick after a late one comes early: neither is late again for it. */
	pulse_tick(&p, now_ns += 350 * MS);
	pulse_tick(&p, now_ns += 150 * MS);
	pulse_late(&p, &p99_us, &max_us);
	assert_int_equal(max_us, 100000);
	assert_int_equal(p99_us, 100000);
	/* Two of 240 are more than one in a hundred; a minute later they are forgotten. */
	for (int i = 0; i < PULSE_TICKS - 5; i++)
		pulse_tick(&p, now_ns += 250 * MS);
	pulse_tick(&p, now_ns += 290 * MS);
	pulse_tick(&p, now_ns += 280 * MS);
	pulse_late(&p, &p99_us, &max_us);
	assert_int_equal(max_us, 100000);
	assert_int_equal(p99_us, 30000);
	for (int i = 0; i < PULSE_TICKS; i++)
		pulse_tick(&p, now_ns += 250 * MS);
	pulse_late(&p, &p99_us, &max_us);
	assert_int_equal(max_us, 0);
}

static struct dataplane dp;

/* How many events of that kind, and the last one's text. */
static unsigned told(struct events *e, const char *kind, const char *subject)
{
	static struct event_record records[64];
	uint64_t lost;
	size_t n = events_read(e, 0, records, 64, &lost, 0);
	unsigned found = 0;

	for (size_t i = 0; i < n; i++)
		found += strcmp(records[i].kind, kind) == 0 && strcmp(records[i].subject, subject) == 0;
	return found;
}

static void test_workers(void **state)
{
	struct events *e = events_create(NULL);
	uint64_t now_ns = 100000 * MS;
	struct pulse p = {0};

	dp = (struct dataplane){.workers = {{.last_loop_ns = now_ns}, {.last_loop_ns = now_ns}}};
	pulse_workers(&p, &dp, e, now_ns);
	assert_int_equal(events_last(e), 0);
	/* One stalls again and again: told once in ten seconds. */
	for (int i = 0; i < 80; i++) {
		now_ns += 250 * MS;
		dp.workers[0].last_loop_ns = dp.workers[1].last_loop_ns = now_ns;
		dp.workers[1].stalled_ns += 60 * MS;
		pulse_workers(&p, &dp, e, now_ns);
	}
	assert_int_equal(told(e, "worker_stalled", "worker0"), 0);
	assert_int_equal(told(e, "worker_stalled", "worker1"), 2);
	/* One hangs, and comes back. */
	for (int i = 0; i < 80; i++) {
		now_ns += 250 * MS;
		dp.workers[1].last_loop_ns = now_ns;
		pulse_workers(&p, &dp, e, now_ns);
	}
	assert_int_equal(told(e, "worker_hung", "worker0"), 1);
	assert_int_equal(told(e, "worker_hung", "worker1"), 0);
	assert_int_equal(told(e, "worker_runs", "worker0"), 0);
	dp.workers[0].last_loop_ns = now_ns;
	pulse_workers(&p, &dp, e, now_ns);
	assert_int_equal(told(e, "worker_runs", "worker0"), 1);
	events_destroy(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
