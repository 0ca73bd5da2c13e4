/* SPDX-License-Identifier: BSD-3-Clause */
/* Sets that outlive a restart. The loop never runs: nobody is asked anything. */
#include "saved.h"

#include "events.h"
#include "names.h"

#include <event2/event.h>
#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEC    1000000000ULL
#define BOOT   (100 * SEC) /* what the monotonic clock says: the host has just begun */
#define STALE  (86400 * SEC)
#define N_KEPT 3

static char dir[64], path[96];
static struct event_base *base;
static struct events *events;
static struct names *names;

static void on_name(void *arg, const struct name_view *view)
{
}

static uint64_t at_boot(void *arg)
{
	return BOOT;
}

static double half(void *arg)
{
	return 0.5;
}

static void watch_all(void)
{
	const struct names_config config = {
		.servers_csv = "127.0.0.1:9", .stale_ns = STALE, .now_ns = at_boot, .uniform = half};

	names = names_create(base, &config, on_name, NULL);
	assert_non_null(names);
	assert_int_equal(names_watch(names, "a.test", 4), 0);
	assert_int_equal(names_watch(names, "a.test", 6), 0);
	assert_int_equal(names_watch(names, "b.test", 4), 0);
	assert_int_equal(names_watch(names, "never.test", 4), 0);
}

static int setup(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/spillway-saved-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/names.json", dir);
	base = event_base_new();
	events = events_create(NULL);
	watch_all();
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	names_destroy(names);
	events_destroy(events);
	event_base_free(base);
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	return system(command);
}

/* The next life: the same names, and nothing known of them. */
static void restart(void)
{
	names_destroy(names);
	watch_all();
}

static void restore(const char *name, const char *first, const char *second, uint64_t age_ns)
{
	struct ipaddr addrs[2];

	assert_int_equal(ipaddr_parse(first, &addrs[0]), 0);
	assert_int_equal(ipaddr_parse(second, &addrs[1]), 0);
	assert_int_equal(names_restore(names, name, ipaddr_is_v4(addrs) ? 4 : 6, addrs, 2, 60 * SEC, age_ns), 0);
}

static void restore_all(void)
{
	restore("a.test", "198.18.3.22", "198.18.3.21", 10 * SEC);
	restore("a.test", "2001:db8:3::21", "2001:db8:3::22", 3600 * SEC);
	restore("b.test", "198.18.3.23", "198.18.3.24", 80000 * SEC);
}

static struct saved *open_saved(void)
{
	struct saved *saved = saved_create(dir, STALE, events);

	assert_non_null(saved);
	return saved;
}

static unsigned load(void)
{
	struct saved *saved = open_saved();
	unsigned n = saved_load(saved, names);

	saved_destroy(saved);
	return n;
}

static void save(void)
{
	struct saved *saved = open_saved();

	saved_write(saved, names);
	saved_destroy(saved);
}

struct kept {
	char name[32];
	uint8_t family;
	enum name_state state;
	size_t n;
	struct ipaddr addrs[2];
	uint64_t age_ns, ttl_ns;
};

static struct kept kept[8];
static size_t n_kept;

static void look_at(void *arg, const struct name_view *view)
{
	struct kept *k = &kept[n_kept++];

	*k = (struct kept){.family = view->family,
			   .state = view->state,
			   .n = view->n_addresses,
			   .age_ns = view->age_ns,
			   .ttl_ns = view->ttl_ns};
	snprintf(k->name, sizeof(k->name), "%s", view->name);
	for (size_t i = 0; i < view->n_addresses; i++)
		k->addrs[i] = view->addresses[i].addr;
}

static void look(void)
{
	n_kept = 0;
	names_foreach(names, look_at, NULL);
	assert_int_equal(n_kept, N_KEPT + 1);
}

/* The events since the last look. */
static size_t told(const char *with)
{
	static struct event_record records[EVENTS_KEPT];
	static uint64_t seen;
	uint64_t lost;
	size_t n, found = 0;

	if (seen > events_last(events))
		seen = 0;
	n = events_read(events, seen, records, EVENTS_KEPT, &lost, 0);
	seen = events_last(events);
	for (size_t i = 0; i < n; i++)
		found += strstr(records[i].text, with) != NULL;
	assert_int_equal(found, n);
	return n;
}

static void write_text(const char *text, size_t len)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
}

static char *read_text(size_t *len)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 65536);

	assert_non_null(f);
	*len = fread(text, 1, 65535, f);
	fclose(f);
	return text;
}

/* --- */

static void test_round_trip(void **state)
{
	static struct kept before[N_KEPT + 1];

	restore_all();
	look();
	memcpy(before, kept, sizeof(before));
	/* Through two lives: ages are not forgotten on the way, although the clock is younger than they are. */
	for (int life = 0; life < 2; life++) {
		save();
		restart();
		look();
		assert_int_equal(kept[0].state, NAME_INIT);
		assert_int_equal(load(), N_KEPT);
		look();
		for (size_t i = 0; i < N_KEPT; i++) {
			assert_string_equal(kept[i].name, before[i].name);
			assert_int_equal(kept[i].family, before[i].family);
			assert_int_equal(kept[i].state, NAME_STALE);
			assert_int_equal(kept[i].n, 2);
			assert_memory_equal(kept[i].addrs, before[i].addrs, sizeof(kept[i].addrs));
			assert_int_equal(kept[i].ttl_ns, before[i].ttl_ns);
			assert_in_range(kept[i].age_ns, before[i].age_ns, before[i].age_ns + 2 * SEC);
		}
		assert_int_equal(kept[N_KEPT].state, NAME_INIT);
	}
	assert_int_equal(told(""), 0);
}

static void test_nothing_there(void **state)
{
	assert_int_equal(load(), 0);
	assert_int_equal(told(""), 0);
	/* The directory is made when there is something to save. */
	strcat(dir, "/deeper");
	restore_all();
	save();
	restart();
	assert_int_equal(load(), N_KEPT);
	*strrchr(dir, '/') = '\0';
	assert_int_equal(told(""), 0);
}

/* Names that are not configured any more, and sets that are too old, are left out. */
static void test_some_do_not_fit(void **state)
{
	struct timespec now;
	char text[1024];

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(text, sizeof(text),
		 "{\"format\": \"spillway-state\", \"version\": 1, \"later\": [1], \"names\": ["
		 "{\"name\": \"other.test\", \"family\": 4, \"addresses\": [\"198.18.3.1\"], \"ttl_ms\": 1, "
		 "\"answered_ms\": %lld},"
		 "{\"name\": \"b.test\", \"family\": 4, \"addresses\": [\"198.18.3.1\"], \"ttl_ms\": 60000, "
		 "\"answered_ms\": %lld},"
		 "{\"name\": \"a.test\", \"family\": 4, \"addresses\": [\"198.18.3.1\"], \"ttl_ms\": 60000, "
		 "\"answered_ms\": %lld, \"extra\": null}]}",
		 now.tv_sec * 1000LL, (now.tv_sec - 90000) * 1000LL, (now.tv_sec + 90000) * 1000LL);
	write_text(text, strlen(text));
	assert_int_equal(load(), 1);
	look();
	assert_int_equal(kept[0].n, 1);
	assert_int_equal(kept[0].age_ns, 0);
	assert_int_equal(told(""), 0);
}

/* Whatever is cut off or turned over, nothing breaks: it is refused as a whole, or good as a whole. */
static void test_damaged(void **state)
{
	size_t len;
	char *good, *bad;

	restore_all();
	save();
	good = read_text(&len);
	bad = malloc(len);
	assert_in_range(len, 300, 1000);
	for (size_t cut = 0; cut < len - 1; cut++) {
		restart();
		write_text(good, cut);
		assert_int_equal(load(), 0);
		assert_int_equal(told("damaged"), 1);
	}
	srand(1);
	for (int i = 0; i < 2000; i++) {
		unsigned n;

		restart();
		memcpy(bad, good, len);
		bad[rand() % len] ^= 1 << rand() % 8;
		write_text(bad, len);
		n = load();
		assert_in_range(n, 0, N_KEPT);
		if (told("the gateway starts without"))
			assert_int_equal(n, 0);
	}
	free(good);
	free(bad);
}

#define ENTRY(name, family, addresses, ttl, at)                                                                        \
	"{\"format\": \"spillway-state\", \"version\": 1, \"names\": [{\"name\": " name ", \"family\": " family        \
	", \"addresses\": " addresses ", \"ttl_ms\": " ttl ", \"answered_ms\": " at "}]}"

static void test_foreign(void **state)
{
	static const char *const texts[] = {
		"",
		"[]",
		"{}",
		"null",
		"\xff\xfe",
		"{\"format\": \"spillway-state\", \"version\": 2, \"names\": []}",
		"{\"format\": \"other\", \"version\": 1, \"names\": []}",
		"{\"format\": \"spillway-state\", \"version\": 1}",
		"{\"format\": \"spillway-state\", \"version\": 1, \"names\": {}}",
		"{\"format\": \"spillway-state\", \"version\": 1, \"names\": [3]}",
		"{\"format\": \"spillway-state\", \"version\": 1, \"names\": [], \"names\": []}",
		ENTRY("\"a.test\"", "5", "[\"198.18.3.1\"]", "1", "1"),
		ENTRY("\"a.test\"", "6", "[\"198.18.3.1\"]", "1", "1"),
		ENTRY("\"a.test\"", "4", "[\"2001:db8::1\"]", "1", "1"),
		ENTRY("\"a.test\"", "4", "[\"shop\"]", "1", "1"),
		ENTRY("\"a.test\"", "4", "[]", "1", "1"),
		ENTRY("\"a.test\"", "4", "[1]", "1", "1"),
		ENTRY("\"a.test\"", "4", "\"198.18.3.1\"", "1", "1"),
		ENTRY("\"a.test\"", "4", "[\"198.18.3.1\"]", "-1", "1"),
		ENTRY("\"a.test\"", "4", "[\"198.18.3.1\"]", "1.5", "1"),
		ENTRY("\"a.test\"", "4", "[\"198.18.3.1\"]", "1", "9223372036854775807"),
		ENTRY("7", "4", "[\"198.18.3.1\"]", "1", "1"),
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		write_text(texts[i], strlen(texts[i]));
		if (load())
			fail_msg("taken: %s", texts[i]);
		assert_int_equal(told("the gateway starts without"), 1);
	}
	/* Nor is anything else read that stands there. */
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(load(), 0);
	assert_int_equal(told("no regular file"), 1);
	assert_int_equal(rmdir(path), 0);
	write_text("{", 1);
	assert_int_equal(truncate(path, (64 << 20) + 1), 0);
	assert_int_equal(load(), 0);
	assert_int_equal(told("of at most 64 MiB"), 1);
}

/* Said once, and no reason to do anything else. */
static void test_cannot_write(void **state)
{
	struct saved *saved;

	/* Root may write anywhere: a file in the directory's place stops it, too. */
	write_text("x", 1);
	saved = saved_create(path, STALE, events);
	restore_all();
	saved_write(saved, names);
	assert_int_equal(told("Not a directory"), 1);
	saved_write(saved, names);
	assert_int_equal(told(""), 0);
	assert_int_equal(unlink(path), 0);
	saved_write(saved, names);
	assert_int_equal(told(""), 0);
	saved_destroy(saved);
	snprintf(path + strlen(path), sizeof(path) - strlen(path), "/names.json");
	assert_int_equal(access(path, R_OK), 0);
}

static bool written(struct saved *saved, uint64_t n_changes, uint64_t now_ns)
{
	unlink(path);
	saved_tick(saved, names, n_changes, now_ns);
	return access(path, R_OK) == 0;
}

/* At most once a second, and when only times moved on, once a minute; with a short `stale` sooner. */
static void test_how_often(void **state)
{
	struct saved *saved = open_saved();

	restore_all();
	assert_true(written(saved, 1, BOOT));
	assert_false(written(saved, 2, BOOT + SEC / 2));
	assert_true(written(saved, 3, BOOT + SEC));
	assert_false(written(saved, 3, BOOT + 60 * SEC));
	assert_true(written(saved, 3, BOOT + 61 * SEC));
	saved_destroy(saved);
	saved = saved_create(dir, 100 * SEC, events);
	assert_true(written(saved, 1, BOOT));
	assert_false(written(saved, 1, BOOT + 9 * SEC));
	assert_true(written(saved, 1, BOOT + 10 * SEC));
	saved_destroy(saved);
}

#define SAVED_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SAVED_TEST(test_round_trip), SAVED_TEST(test_nothing_there), SAVED_TEST(test_some_do_not_fit),
		SAVED_TEST(test_damaged),    SAVED_TEST(test_foreign),       SAVED_TEST(test_cannot_write),
		SAVED_TEST(test_how_often),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
