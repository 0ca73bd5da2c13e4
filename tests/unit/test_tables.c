/* SPDX-License-Identifier: BSD-3-Clause */
/* From the workers' levels to few events, on a clock of the test's own. */
#include "tables.h"

#include "core.h"
#include "events.h"
#include "rig.h"
#include "worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SECOND_NS 1000000000ull

static struct rig rig;
static struct events *events;
static struct tables tables;
static uint64_t now_ns, seen;

static void begin(void)
{
	const struct rig_config config = {
		.flows_v4 = 2000, .flows_v6 = 64, .n_mbufs = 255, .n_backends = 1, .n_snat = 1, .n_workers = 2};

	assert_int_equal(rig_create(&rig, &config), 0);
	events = events_create(NULL);
	assert_non_null(events);
	tables = (struct tables){0};
	now_ns = 3600 * SECOND_NS;
	seen = 0;
}

static void end(void)
{
	events_destroy(events);
	for (unsigned w = 0; w < 2; w++)
		rig.dp->workers[w]->flows.pool4.in_use = 0;
	rig_destroy(&rig);
}

static void fill(unsigned worker, uint32_t in_use)
{
	struct worker *w = rig.dp->workers[worker];

	w->flows.pool4.in_use = in_use;
	worker_run_once(w);
	worker_publish(w);
}

static void tick(uint64_t after_ms)
{
	now_ns += after_ms * 1000000;
	tables_tick(&tables, rig.dp, events, now_ns);
}

/* The next event says this; NULL: there is none. */
static void expect(enum event_severity severity, const char *text)
{
	struct event_record record;
	uint64_t lost;

	if (!text) {
		assert_int_equal(events_read(events, seen, &record, 1, &lost, 0), 0);
		return;
	}
	assert_int_equal(events_read(events, seen, &record, 1, &lost, 0), 1);
	assert_string_equal(record.kind, "table_pressed");
	assert_string_equal(record.cause, "gateway");
	assert_string_equal(record.subject, "IPv4 flow table");
	assert_int_equal(record.severity, severity);
	if (!strstr(record.text, text))
		fail_msg("expected %s in %s", text, record.text);
	seen = record.number;
}

/* One per change, with the figures of the worker that is fullest; back only when it has lasted. */
static void test_changes(void **state)
{
	begin();
	fill(0, 300);
	fill(1, 899);
	tick(250);
	expect(0, NULL);
	fill(1, 900);
	tick(250);
	expect(EVENT_WARNING, "90 % in use: half-open and closed flows end sooner; 1200 of 2000 flows, "
			      "900 of 1000 at worker1: raise gateway.flows");
	tick(250);
	expect(0, NULL);
	fill(1, 950);
	tick(250);
	expect(EVENT_CRITICAL, "95 % in use: new flows only of clients with a success in the last minute; 1250 of");
	fill(1, 1000);
	tick(250);
	expect(EVENT_CRITICAL, "full: new flows are refused; 1300 of 2000");
	/* To and fro for a minute: nothing new. */
	for (int i = 0; i < 240; i++) {
		fill(1, i % 2 ? 1000 : 800);
		tick(250);
	}
	expect(0, NULL);
	fill(1, 100);
	tick(250);
	for (int i = 0; i < 39; i++) {
		tick(250);
		expect(0, NULL);
	}
	tick(250);
	expect(EVENT_INFO, "relaxed; 400 of 2000 flows, 300 of 1000 at worker0");
	end();
}

/* What came and went between two ticks is told. */
static void test_peak(void **state)
{
	begin();
	fill(1, 20);
	tick(250);
	fill(0, 1000);
	fill(0, 10);
	tick(250);
	expect(EVENT_CRITICAL, "full: new flows are refused; 30 of 2000");
	tick(250);
	tick(TABLES_RELAX_NS / 1000000);
	expect(EVENT_INFO, "relaxed");
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_peak),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
