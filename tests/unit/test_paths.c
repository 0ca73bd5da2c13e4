/* SPDX-License-Identifier: BSD-3-Clause */
/* Notes of workers become lessons and events. */
#include "paths.h"

#include "events.h"
#include "observe.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define SECOND_NS 1000000000ull

static struct rig rig;
static struct events *events;
static struct paths *paths;
static uint64_t now_ns, since;

static int setup(void **state)
{
	const struct rig_config config = {.flows_v4 = 64, .flows_v6 = 64, .n_mbufs = 1023, .n_backends = 1};

	if (rig_create(&rig, &config))
		return -1;
	events = events_create(NULL);
	paths = paths_create(rig.dp, events);
	now_ns = 100 * SECOND_NS;
	since = 0;
	return events && paths ? 0 : -1;
}

static int teardown(void **state)
{
	paths_destroy(paths);
	events_destroy(events);
	rig_destroy(&rig);
	return 0;
}

static void hear(const char *text, bool upstream, uint32_t mtu, enum cure_mode mode)
{
	struct note note = {.kind = NOTE_PATH_MTU, .path = {.mtu = mtu, .upstream = upstream}};

	assert_int_equal(ipaddr_parse(text, &note.path.to), 0);
	paths_note(paths, &note, mode, now_ns);
}

/* The events since the last call, as "SUBJECT: TEXT\n" each. */
static const char *heard(void)
{
	static struct event_record records[64];
	static char text[64 * 400];
	uint64_t lost;
	size_t n = events_read(events, since, records, 64, &lost, 0), len = 0;

	*text = '\0';
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(records[i].kind, "path_mtu_learned");
		assert_string_equal(records[i].cause, "path");
		len += snprintf(text + len, sizeof(text) - len, "%s: %s\n", records[i].subject, records[i].text);
	}
	since += n;
	assert_int_equal(lost, 0);
	return text;
}

static uint64_t learned(enum path_kind kind)
{
	struct path_report r;

	observe_path(rig.dp, &r);
	return r.learned[kind];
}

static void test_told_once_a_minute(void **state)
{
	hear("198.19.0.1", false, 1400, CURE_ENFORCE);
	hear("198.19.0.2", false, 1400, CURE_ENFORCE);
	assert_string_equal(heard(), "198.19.0.1: at most 1400 bytes: a router said so of what goes to this client; "
				     "new connections are clamped\n");
	hear("198.19.1.1", false, 1300, CURE_SHADOW);
	assert_string_equal(heard(), "198.19.1.1: at most 1300 bytes: a router said so of what goes to this client; "
				     "new connections would be clamped\n");
	/* A backend's prefix says nothing of its neighbours. */
	hear("2001:db8:3::1", true, 68, CURE_ENFORCE);
	hear("2001:db8:3::2", true, 1400, CURE_ENFORCE);
	assert_string_equal(heard(),
			    "2001:db8:3::1: at most 1280 bytes: a router said so of what goes to this backend; "
			    "new connections are clamped\n"
			    "2001:db8:3::2: at most 1400 bytes: a router said so of what goes to this backend; "
			    "new connections are clamped\n");
	/* The fourth client that says so says it for the prefix. */
	hear("198.19.0.3", false, 1400, CURE_ENFORCE);
	hear("198.19.0.4", false, 1400, CURE_ENFORCE);
	assert_string_equal(heard(), "198.19.0.0/24: at most 1400 bytes: clients of this prefix agree; "
				     "new connections are clamped\n");
	now_ns += 60 * SECOND_NS;
	hear("198.19.0.5", false, 1400, CURE_ENFORCE);
	assert_non_null(strstr(heard(), "198.19.0.5: "));
	/* Nothing new. */
	now_ns += 60 * SECOND_NS;
	hear("198.19.0.5", false, 1400, CURE_ENFORCE);
	hear("198.19.0.5", false, 1450, CURE_ENFORCE);
	assert_string_equal(heard(), "");
	assert_int_equal(learned(PATH_CLIENT), 6);
	assert_int_equal(learned(PATH_PREFIX), 1);
	assert_int_equal(learned(PATH_UPSTREAM), 2);
}

/* Learned they are; told are twenty in a minute, and how many were not. */
static void test_flood(void **state)
{
	unsigned n = 0;

	for (int i = 0; i < 200; i++) {
		char text[32];

		snprintf(text, sizeof(text), "198.19.%d.1", i);
		hear(text, false, 1400, CURE_ENFORCE);
	}
	for (const char *at = heard(); (at = strchr(at, '\n')); at++)
		n++;
	assert_int_equal(n, 20);
	assert_int_equal(learned(PATH_CLIENT), 200);
	now_ns += 60 * SECOND_NS;
	hear("198.18.77.1", false, 1400, CURE_ENFORCE);
	assert_non_null(strstr(heard(), "; 180 more were not told\n"));
}

static void test_age(void **state)
{
	hear("198.19.0.1", false, 1400, CURE_ENFORCE);
	rig.now_ns += 600 * SECOND_NS;
	paths_tick(paths);
	assert_int_equal(learned(PATH_CLIENT), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_told_once_a_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_age, setup, teardown),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
