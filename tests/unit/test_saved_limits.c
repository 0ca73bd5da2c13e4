/* SPDX-License-Identifier: BSD-3-Clause */
/* What is usual of backends outlives a restart, as far as it is worth it. */
#include "breakers_talk.h"

#include "limiters.h"
#include "saved_limits.h"

#include <jansson.h>
#include <time.h>
#include <unistd.h>

#define TICK   LIMITER_TICK_NS
#define SECOND 1000000000ull

static char dir[40], path[64];
static const struct cure_modes enforced = {.of = {[CURE_STORM] = CURE_ENFORCE, [CURE_WALL] = CURE_ENFORCE}};
static struct limiters *limiters;
static struct saved_limits *saved;

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/spillway-limits-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/limits.json", dir);
	begin_all(1, 2, CURE_ENFORCE);
	limiters = NULL;
	return 0;
}

static void end_life(void)
{
	limiters_destroy(limiters);
	saved_limits_destroy(saved);
	memset(rig.worker->signals.counts, 0, N_SLOTS * sizeof(rig.worker->signals.counts[0]));
}

static int teardown(void **state)
{
	char command[96];

	end_life();
	end_all();
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

/* Another life: what is saved is all that it knows. Returns of how many backends that is something. */
static unsigned begin_life(void)
{
	if (limiters)
		end_life();
	limiters = limiters_create(rig.dp, f.services, f.events, &(struct limiters_config){N_SLOTS, 4});
	saved = saved_limits_create(dir, f.events);
	assert_true(limiters && saved);
	return saved_limits_load(saved, limiters, rig.now_ns);
}

static void ticks(unsigned backend, unsigned n_ticks, unsigned n, unsigned ms, uint32_t open)
{
	struct signal_counts *c = &rig.worker->signals.counts[slot_of_backend(false, backend)];

	for (unsigned i = 0; i < n_ticks; i++) {
		rig.now_ns += TICK;
		c->answered += n;
		c->timed += n;
		c->timed_us += n * ms * 1000;
		c->open = open;
		limiters_tick(limiters, &enforced, rig.now_ns);
		saved_limits_tick(saved, limiters, rig.now_ns);
	}
}

static void said(const char *kind, const char *words)
{
	struct event_record e;

	assert_true(next_event_of("storm", &e));
	assert_string_equal(e.kind, kind);
	if (!strstr(e.text, words))
		fail_msg("expected '%s' in '%s'", words, e.text);
}

static json_t *read_doc(void)
{
	json_t *doc = json_load_file(path, 0, NULL);

	assert_non_null(doc);
	return doc;
}

static json_int_t number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static void write_text(const char *text)
{
	FILE *file = fopen(path, "we");

	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

/* Killed in congestion, it had saved what was usual before; the next life knows it, and limits at once. */
static void test_killed_in_a_storm(void **state)
{
	const json_t *row;
	json_t *doc;

	assert_int_equal(begin_life(), 0);
	ticks(1, 100, 40, 20, 8);
	doc = read_doc();
	assert_int_equal(json_array_size(json_object_get(doc, "backends")), 1);
	row = json_array_get(json_object_get(doc, "backends"), 0);
	assert_string_equal(json_string_value(json_object_get(row, "address")), "198.18.3.1");
	assert_int_equal(number(row, "port"), 8080);
	assert_int_equal(number(row, "base_us"), 20000);
	assert_int_equal(number(row, "rate"), 400);
	json_decref(doc);
	ticks(1, 700, 40, 900, 300);
	said("limiting", "(usually 20.0)");
	/* By a minute's refresh, too, it says what was usual in calm. */
	doc = read_doc();
	row = json_array_get(json_object_get(doc, "backends"), 0);
	assert_int_equal(number(row, "base_us"), 20000);
	assert_in_range(number(doc, "written_ms") - number(row, "seen_ms"), 50000, 70000);
	json_decref(doc);
	assert_int_equal(begin_life(), 1);
	ticks(1, 1, 0, 0, 0);
	ticks(1, 1, 4, 900, 80);
	said("limiting", "(usually 20.0, from before the restart), 400 answers a second at the most");
	/* The other one is not known, and is given time. */
	ticks(2, 2, 4, 900, 80);
	assert_false(next_event_of("storm", &(struct event_record){0}));
}

/* Since this was asked last. */
static bool is_written(void)
{
	return unlink(path) == 0;
}

/* Not more often than every five seconds, not for little, and once a minute in any case. */
static void test_written_when_it_changed(void **state)
{
	begin_life();
	ticks(1, 100, 40, 20, 8);
	assert_true(is_written());
	ticks(1, 300, 45, 20, 8);
	assert_false(is_written());
	/* Half as many answers more in a second than were saved. */
	ticks(1, 11, 60, 20, 8);
	assert_true(is_written());
	ticks(1, 30, 120, 20, 8);
	assert_false(is_written());
	ticks(1, 21, 120, 20, 8);
	assert_true(is_written());
	ticks(1, 590, 120, 20, 8);
	assert_false(is_written());
	ticks(1, 11, 120, 20, 8);
	assert_true(is_written());
}

/* A backend that left is saved with the others. */
static void test_gone_is_saved(void **state)
{
	begin_life();
	ticks(2, 100, 40, 20, 8);
	memset(rig.worker->signals.counts, 0, N_SLOTS * sizeof(rig.worker->signals.counts[0]));
	configure(1, 5);
	turn();
	services_reap(f.services);
	ticks(1, 100, 40, 30, 8);
	saved_limits_write(saved, limiters, rig.now_ns);
	assert_int_equal(begin_life(), 2);
}

/* Nothing is written that the next life refuses. */
static void test_absurd_rate(void **state)
{
	const struct limiter_known known = {
		.who = {.proto = IPPROTO_TCP, .addr = ipaddr_v4(htonl(0xc6120363)), .port_be = htons(80)},
		.from = LIMITER_BASE_LEFT,
		.past = {.base_ns = 20000000, .rate = UINT32_MAX},
	};
	json_t *doc;

	begin_life();
	assert_true(limiters_remember(limiters, &known, rig.now_ns));
	saved_limits_write(saved, limiters, rig.now_ns);
	doc = read_doc();
	assert_int_equal(number(json_array_get(json_object_get(doc, "backends"), 0), "rate"), 10000000);
	json_decref(doc);
	assert_int_equal(begin_life(), 1);
}

static void refuses(const char *text, const char *why)
{
	write_text(text);
	assert_int_equal(begin_life(), 0);
	said("saved_limits_refused", why);
}

#define ONE_ROW                                                                                                        \
	"{\"format\": \"spillway-limits\", \"version\": 1, \"written_ms\": 1, \"backends\": ["                         \
	"{\"address\": \"198.18.3.1\", \"port\": 8080, \"base_us\": 20000, \"seen_ms\": %lld, \"rate\": 1}]}"

static void test_bad_files(void **state)
{
	const json_int_t hour_ago_ms = ((json_int_t)time(NULL) - 3600) * 1000;
	char text[512];

	refuses("{", "damaged: line 1");
	refuses("[]", "not a file of this program's version 1");
	refuses("{\"format\": \"spillway-state\", \"version\": 1, \"backends\": []}", "not a file of this program's");
	refuses("{\"format\": \"spillway-limits\", \"version\": 2, \"written_ms\": 1, \"backends\": []}", "version 1");
	refuses("{\"format\": \"spillway-limits\", \"version\": 1, \"backends\": []}", "no written_ms");
	refuses("{\"format\": \"spillway-limits\", \"version\": 1, \"written_ms\": 1, \"backends\": [{}]}",
		"damaged: backend 0 of the list");
	refuses("{\"format\": \"spillway-limits\", \"version\": 1, \"written_ms\": 1, \"backends\": [{\"address\": "
		"\"198.18.3.1\", \"port\": 8080, \"base_us\": 0, \"seen_ms\": 1, \"rate\": 1}]}",
		"damaged: backend 0 of the list");
	refuses("{\"format\": \"spillway-limits\", \"version\": 1, \"written_ms\": 1, \"backends\": [{\"address\": "
		"\"198.18.3.1\", \"port\": 8080, \"base_us\": 20000, \"seen_ms\": 1, \"rate\": 10000001}]}",
		"damaged: backend 0 of the list");
	/* Too old is not wrong, and from the future is of now. */
	snprintf(text, sizeof(text), ONE_ROW, (long long)hour_ago_ms);
	write_text(text);
	assert_int_equal(begin_life(), 0);
	snprintf(text, sizeof(text), ONE_ROW, (long long)hour_ago_ms + 7200000);
	write_text(text);
	assert_int_equal(begin_life(), 1);
	assert_false(next_event_of("storm", &(struct event_record){0}));
	/* There is none: nothing is said. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(begin_life(), 0);
	assert_false(next_event_of("storm", &(struct event_record){0}));
}

/* What cannot be written is said once. */
static void test_no_directory(void **state)
{
	char command[128];

	begin_life();
	snprintf(command, sizeof(command), "rm -rf '%s' && touch '%s'", dir, dir);
	assert_int_equal(system(command), 0);
	ticks(1, 100, 40, 20, 8);
	said("limits_not_saved", "a restart in a storm would have to learn first what is usual");
	ticks(1, 100, 80, 20, 8);
	assert_false(next_event_of("storm", &(struct event_record){0}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed_in_a_storm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_written_when_it_changed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_is_saved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_absurd_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_directory, setup, teardown),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
