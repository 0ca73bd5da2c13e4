/* SPDX-License-Identifier: BSD-3-Clause */
/* From counters of workers to few events, on a clock of the test's own. */
#include "silence_events.h"

#include "core.h"
#include "events.h"
#include "rig.h"
#include "view.h"
#include "worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SECOND_NS  1000000000ull
#define N_BACKENDS 3

static struct rig rig;
static struct events *events;
static struct silence_events *silence;
static struct view_backend backends[N_BACKENDS];
static struct view view = {.n_backends = N_BACKENDS, .backends = backends};
static uint64_t now_ns, seen;

static void begin(void)
{
	const struct rig_config config = {.flows_v4 = 64, .flows_v6 = 64, .n_mbufs = 255, .n_backends = 4, .n_snat = 1};

	assert_int_equal(rig_create(&rig, &config), 0);
	events = events_create(NULL);
	silence = silence_events_create(rig.dp->config.n_backend_slots);
	assert_true(events && silence);
	for (uint32_t i = 0; i < N_BACKENDS; i++) {
		snprintf(backends[i].id, sizeof(backends[i].id), "tcp:198.18.3.%u:8080", i);
		backends[i].slot = i;
	}
	now_ns = 3600 * SECOND_NS;
	seen = 0;
}

static void end(void)
{
	silence_events_destroy(silence);
	events_destroy(events);
	rig_destroy(&rig);
}

/* As a worker would count it. */
static void count_dead(uint32_t slot, uint64_t clients, uint64_t backend)
{
	rig.worker->backends[slot].dead[DIR_UP] += clients;
	rig.worker->backends[slot].dead[DIR_DOWN] += backend;
	rig.worker->ledger.did[ACTION_rst_peer_dead] += clients + backend;
	worker_publish(rig.worker);
}

/* The next event; NULL: there is none. */
static const struct event_record *next_event(void)
{
	static struct event_record record;
	uint64_t lost;

	if (!events_read(events, seen, &record, 1, &lost, 0))
		return NULL;
	seen = record.number;
	return &record;
}

static void tick(uint64_t ns)
{
	now_ns += ns;
	silence_events_tick(silence, rig.dp, &view, events, now_ns);
}

static void expect(const char *kind, const char *subject, const char *text)
{
	const struct event_record *e = next_event();

	assert_non_null(e);
	assert_string_equal(e->kind, kind);
	assert_string_equal(e->cause, "silence");
	assert_string_equal(e->subject, subject);
	assert_string_equal(e->text, text);
	assert_null(next_event());
}

static void test_peer_dead(void **state)
{
	begin();
	tick(0);
	assert_null(next_event());
	count_dead(1, 0, 1);
	tick(SECOND_NS);
	expect("peer_dead", "tcp:198.18.3.1:8080",
	       "connections ended with RST: the client was silent on 0, the backend on 1; backends concerned: 1");
	/* A host with thousands of them dies: one event, when it is time for one again. */
	for (int i = 0; i < 36; i++) {
		count_dead(2, 1, 100);
		count_dead(0, 1, 0);
		tick(SECOND_NS / 4);
		assert_null(next_event());
	}
	tick(SECOND_NS);
	expect("peer_dead", "tcp:198.18.3.2:8080",
	       "connections ended with RST: the client was silent on 72, the backend on 3600; backends concerned: 2");
	tick(100 * SECOND_NS);
	assert_null(next_event());
	end();
}

/* Another backend got the slot: its counters began at 0. */
static void test_slot_of_another(void **state)
{
	begin();
	count_dead(1, 5, 5);
	tick(SECOND_NS);
	assert_non_null(next_event());
	memset(rig.worker->backends[1].dead, 0, sizeof(rig.worker->backends[1].dead));
	count_dead(1, 0, 2);
	tick(10 * SECOND_NS);
	expect("peer_dead", "tcp:198.18.3.1:8080",
	       "connections ended with RST: the client was silent on 0, the backend on 2; backends concerned: 1");
	end();
}

static void test_put_off(void **state)
{
	begin();
	for (int i = 0; i < 20; i++) {
		rig.worker->ledger.did[ACTION_put_off] += 7;
		worker_publish(rig.worker);
		tick(SECOND_NS);
		if (i == 0 || i == 10)
			expect("probes_put_off", "gateway",
			       i ? "more idle connections were due than may be probed or ended per second: put off 70 "
				   "times"
				 : "more idle connections were due than may be probed or ended per second: put off 7 "
				   "times");
		assert_null(next_event());
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_peer_dead),
		cmocka_unit_test(test_slot_of_another),
		cmocka_unit_test(test_put_off),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
