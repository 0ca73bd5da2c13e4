/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients, explanations and events as clients of the API see them. */
#include "api_assert.h"

#include "events.h"

#include <curl/curl.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- outcomes --- */

static void test_clients(void **state)
{
	json_t *doc = get_json(*state, "/v1/clients?address=" FAKE_VICTIM, 200), *row, *last;

	assert_int_equal(json_array_size(json_object_get(doc, "clients")), 1);
	assert_null_value(doc, "next");
	row = json_array_get(json_object_get(doc, "clients"), 0);
	assert_string_equal(get_text(row, "address"), FAKE_VICTIM);
	/* Of both workers. */
	assert_int_equal(get_int(row, "connected"), 3);
	assert_int_equal(get_int(row, "refused"), 3);
	assert_int_equal(get_int(row, "silent"), 1);
	assert_in_range((long)seconds_ago(row, "since"), 39, 42);
	last = json_object_get(row, "last");
	assert_string_equal(get_text(last, "reason"), "connected");
	assert_string_equal(get_text(last, "service"), "shop");
	assert_string_equal(get_text(last, "backend"), "tcp:198.18.3.22:8080");
	json_decref(doc);
	doc = get_json(*state, "/v1/clients?address=198.18.2.8", 200);
	assert_int_equal(json_array_size(json_object_get(doc, "clients")), 0);
	json_decref(doc);
}

/* Each client is on one page, once, however many workers know it. */
static void test_clients_are_paged(void **state)
{
	for (unsigned limit = 1; limit < 30; limit += 4) {
		char cursor[64] = "", path[160];
		unsigned n = 0, victims = 0, sum = 0;

		do {
			json_t *doc, *row;
			size_t i;

			snprintf(path, sizeof(path), "/v1/clients?limit=%u%s", limit, cursor);
			doc = get_json(*state, path, 200);
			assert_true(json_array_size(json_object_get(doc, "clients")) <= limit);
			json_array_foreach(json_object_get(doc, "clients"), i, row)
			{
				bool victim = strcmp(get_text(row, "address"), FAKE_VICTIM) == 0;

				victims += victim;
				sum += victim ? 0 : (unsigned)get_int(row, "connected");
				n++;
			}
			*cursor = '\0';
			if (json_is_string(json_object_get(doc, "next")))
				snprintf(cursor, sizeof(cursor), "&cursor=%s", get_text(doc, "next"));
			json_decref(doc);
			assert_true(n <= 2 * FAKE_CLIENTS);
		} while (*cursor);
		assert_int_equal(n, FAKE_CLIENTS + 1);
		assert_int_equal(victims, 1);
		assert_int_equal(sum, FAKE_CLIENTS * (FAKE_CLIENTS - 1) / 2);
	}
}

static void test_explain_client(void **state)
{
	struct api_fixture *f = *state;
	const json_t *row, *client, *events;
	json_t *doc;

	events_add(f->events, EVENT_WARNING, "name_stale", "names", "shop.lab.test", "late");
	events_add(f->events, EVENT_INFO, "link_up", "gateway", "wan", "MTU 1500");
	events_add(f->events, EVENT_INFO, "backend_gone", "gateway", "tcp:198.18.3.22:8080", "gone");
	doc = get_json(f, "/v1/explain?address=" FAKE_VICTIM, 200);
	assert_true(has_text(json_object_get(doc, "roles"), "client"));
	client = json_object_get(doc, "client");
	assert_int_equal(get_int(client, "refused"), 3);
	assert_int_equal(get_int(client, "connected"), 3);
	assert_int_equal(json_array_size(json_object_get(client, "outcomes")), 3);
	row = find_row(json_object_get(client, "outcomes"), "reason", "connected");
	assert_int_equal(get_int(row, "count"), 3);
	assert_string_equal(get_text(row, "backend"), "tcp:198.18.3.22:8080");
	/* What went right is no finding. */
	assert_int_equal(json_array_size(json_object_get(doc, "findings")), 3);
	row = find_row(json_object_get(doc, "findings"), "scope", "prefix");
	assert_int_equal(get_int(row, "count"), 7);
	row = find_row(json_object_get(doc, "findings"), "reason", "answer_service_down");
	assert_string_equal(get_text(row, "cure"), "names");
	assert_string_equal(get_text(row, "service"), "blog");
	assert_non_null(strstr(get_text(row, "sentence"), "blog now: no usable backend \"now\""));
	row = find_row(json_object_get(doc, "findings"), "reason", "unanswered");
	assert_string_equal(get_text(row, "cure"), "wall");
	assert_string_equal(get_text(row, "backend"), "tcp:198.18.3.22:8080");
	assert_int_equal(get_int(row, "count"), 1);
	assert_non_null(strstr(get_text(row, "sentence"), "; tcp:198.18.3.22:8080 now: breaker open: 5 SYNs in a row"));
	/* Of a cure that found something, or about whom it is about. */
	events = json_object_get(doc, "events");
	assert_int_equal(json_array_size(events), 2);
	find_row(events, "kind", "name_stale");
	find_row(events, "kind", "backend_gone");
	assert_int_equal(json_array_size(json_object_get(doc, "services")), 2);
	find_row(json_object_get(doc, "backends"), "id", "tcp:198.18.3.22:8080");
	assert_int_equal(get_int(doc, "unnamed"), 4);
	/* Its own, and its network's. */
	assert_int_equal(json_array_size(json_object_get(doc, "paths")), 2);
	find_row(json_object_get(doc, "paths"), "address", "198.18.2.0/24");
	assert_in_range((long)seconds_ago(doc, "blind_since"), 99, 102);
	assert_in_range((long)seconds_ago(doc, "blind_until"), 49, 52);
	assert_int_equal(json_array_size(json_object_get(doc, "flows")), 32);
	json_decref(doc);
	/* One flow of its own. */
	doc = get_json(f, "/v1/explain?address=" FAKE_VICTIM "&port=20003", 200);
	assert_int_equal(json_array_size(json_object_get(doc, "flows")), 1);
	assert_true(json_is_true(json_object_get(doc, "flows_complete")));
	json_decref(doc);
}

static void test_explain_nobody(void **state)
{
	json_t *doc = get_json(*state, "/v1/explain?address=203.0.113.7", 200);

	assert_null_value(doc, "client");
	assert_int_equal(json_array_size(json_object_get(doc, "findings")), 0);
	assert_true(has_text(json_object_get(doc, "roles"), "client"));
	json_decref(doc);
	assert_error(*state, false, "GET", "/v1/explain", NULL, 400, "expected address=");
	assert_error(*state, false, "GET", "/v1/explain?port=80", NULL, 400, "'port' needs 'address'");
}

static void test_explain_places(void **state)
{
	json_t *doc = get_json(*state, "/v1/explain?address=198.18.3.22&port=8080", 200);
	const json_t *row;

	assert_true(has_text(json_object_get(doc, "roles"), "backend"));
	row = find_row(json_object_get(doc, "findings"), "reason", "failures");
	assert_int_equal(get_int(row, "count"), 1);
	assert_string_equal(get_text(row, "backend"), "tcp:198.18.3.22:8080");
	assert_null_value(row, "first");
	assert_string_equal(
		get_text(row, "sentence"),
		"1 of 101 attempts were refused or never answered; 31 of them were given to another backend");
	row = find_row(json_object_get(doc, "findings"), "reason", "breaker");
	assert_string_equal(get_text(row, "cure"), "wall");
	assert_null_value(row, "count");
	/* For 12 s, and probed in 59, as of the second in which the view was made: it is 13 or more by now, or 58. */
	assert_non_null(strstr(get_text(row, "sentence"),
			       "breaker open: 5 SYNs in a row failed: 2 unanswered, 3 refused; for 1"));
	assert_non_null(strstr(get_text(row, "sentence"), " s, opened 2 times of late; it is probed again in 5"));
	assert_non_null(strstr(get_text(row, "sentence"), "it was sent 41 SYNs of the gateway's own"));
	row = find_row(json_object_get(doc, "findings"), "reason", "overloads");
	assert_int_equal(get_int(row, "count"), 8);
	assert_int_equal(json_array_size(json_object_get(doc, "findings")), 3);
	assert_int_equal(json_array_size(json_object_get(doc, "backends")), 1);
	json_decref(doc);
	doc = get_json(*state, "/v1/explain?address=198.18.3.22&port=8081", 200);
	assert_false(has_text(json_object_get(doc, "roles"), "backend"));
	json_decref(doc);
	doc = get_json(*state, "/v1/explain?address=2001:db8:3::15", 200);
	row = find_row(json_object_get(doc, "findings"), "reason", "pinned");
	assert_int_equal(get_int(row, "count"), 12);
	assert_string_equal(get_text(row, "cure"), "names");
	row = find_row(json_object_get(doc, "findings"), "reason", "silent_backends");
	assert_int_equal(get_int(row, "count"), 5);
	row = find_row(json_object_get(doc, "findings"), "reason", "silent_clients");
	assert_int_equal(get_int(row, "count"), 4);
	row = find_row(json_object_get(doc, "findings"), "reason", "idle_lost");
	assert_string_equal(get_text(row, "cure"), "silence");
	assert_non_null(strstr(get_text(row, "sentence"),
			       "idled for 183 s was lost though the backend lives, others survived"
			       " 108 s"));
	json_decref(doc);

	/* The VIP of one service, and its neighbour, whose address begins with the other's. */
	doc = get_json(*state, "/v1/explain?address=198.18.100.2", 200);
	assert_true(has_text(json_object_get(doc, "roles"), "vip"));
	row = find_row(json_object_get(doc, "findings"), "scope", "service");
	assert_int_equal(get_int(row, "count"), 14);
	assert_string_equal(get_text(row, "service"), "blog");
	row = find_row(json_object_get(doc, "findings"), "reason", "would");
	assert_int_equal(get_int(row, "count"), 6);
	assert_string_equal(get_text(row, "scope"), "total");
	assert_int_equal(json_array_size(json_object_get(doc, "networks")), 2);
	row = find_row(json_object_get(doc, "networks"), "network", "198.18.2.0/24");
	assert_int_equal(get_int(row, "count"), 7);
	find_row(json_object_get(doc, "networks"), "network", "2001:db8:2::/48");
	json_decref(doc);
	doc = get_json(*state, "/v1/explain?address=198.18.100.1&port=80", 200);
	assert_true(has_text(json_object_get(doc, "roles"), "vip"));
	/* Nothing within two minutes, but since it began. */
	row = find_row(json_object_get(doc, "findings"), "reason", "attempts");
	assert_string_equal(get_text(row, "sentence"),
			    "of 209 attempts 200 were let in, 2 refused aloud, 3 in silence, 4 wait now");
	row = find_row(json_object_get(doc, "findings"), "reason", "held");
	assert_int_equal(get_int(row, "count"), 70);
	assert_string_equal(get_text(row, "cure"), "storm");
	assert_string_equal(get_text(row, "service"), "shop");
	row = find_row(json_object_get(doc, "findings"), "reason", "refused_storm");
	assert_int_equal(get_int(row, "count"), 5);
	row = find_row(json_object_get(doc, "findings"), "reason", "shed_early");
	assert_int_equal(get_int(row, "count"), 89);
	assert_string_equal(get_text(row, "scope"), "total");
	assert_non_null(strstr(get_text(row, "sentence"),
			       "discarded 80 SYNs of clients that insist beyond their caps, and 9 of everybody"));
	assert_int_equal(json_array_size(json_object_get(doc, "findings")), 4);
	json_decref(doc);
	doc = get_json(*state, "/v1/explain?address=2001:db8:100::1", 200);
	assert_true(has_text(json_object_get(doc, "roles"), "vip"));
	json_decref(doc);
	doc = get_json(*state, "/v1/explain?address=198.18.100.1&port=8", 200);
	assert_false(has_text(json_object_get(doc, "roles"), "vip"));
	json_decref(doc);
	doc = get_json(*state, "/v1/explain?address=198.18.100.20", 200);
	assert_false(has_text(json_object_get(doc, "roles"), "vip"));
	json_decref(doc);
}

/* Whose flow uses the SNAT port, or used it: then the client's own story follows. */
static void test_explain_snat(void **state)
{
	struct api_fixture *f = *state;
	json_t *doc = get_json(f, "/v1/explain?address=198.18.101.10&port=34567", 200);
	const json_t *row;

	assert_true(has_text(json_object_get(doc, "roles"), "snat"));
	row = json_array_get(json_object_get(doc, "tuples"), 0);
	assert_string_equal(get_text(row, "client"), FAKE_VICTIM ":20001");
	assert_string_equal(get_text(row, "state"), "established");
	assert_string_equal(get_text(row, "backend"), "tcp:198.18.3.22:8080");
	assert_null_value(row, "ended");
	assert_int_equal(get_int(json_object_get(doc, "client"), "refused"), 3);
	json_decref(doc);
	doc = get_json(f, "/v1/explain?address=198.18.101.10&port=34568", 200);
	row = json_array_get(json_object_get(doc, "tuples"), 0);
	assert_string_equal(get_text(row, "client"), FAKE_VICTIM ":40000");
	assert_string_equal(get_text(row, "state"), "time_wait");
	assert_in_range((long)seconds_ago(row, "ended"), 19, 22);
	json_decref(doc);
	doc = get_json(f, "/v1/explain?address=198.18.101.10&port=5", 200);
	assert_int_equal(json_array_size(json_object_get(doc, "tuples")), 0);
	assert_null_value(doc, "client");
	assert_true(json_is_number(json_object_get(doc, "tuples_since")));
	json_decref(doc);
	/* A worker that does not answer costs its flows, not the answer. */
	f->dp.mute_worker = 0;
	doc = get_json(f, "/v1/explain?address=198.18.101.10&port=34568", 200);
	assert_false(json_is_true(json_object_get(doc, "flows_complete")));
	assert_int_equal(json_array_size(json_object_get(doc, "tuples")), 1);
	json_decref(doc);
	doc = get_json(f, "/v1/explain?address=" FAKE_VICTIM, 200);
	assert_false(json_is_true(json_object_get(doc, "flows_complete")));
	assert_int_equal(get_int(json_object_get(doc, "client"), "refused"), 3);
	json_decref(doc);
}

/* Before there is a view. */
static void test_explain_starting(void **state)
{
	view_publish(NULL);
	json_decref(get_json(*state, "/v1/explain?address=" FAKE_VICTIM, 200));
	json_decref(get_json(*state, "/v1/explain?address=198.18.101.10&port=34567", 200));
	json_decref(get_json(*state, "/v1/explain?address=198.18.3.22", 200));
	json_decref(get_json(*state, "/v1/clients", 200));
}

/* --- events --- */

static void add_events(struct api_fixture *f, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		events_add(f->events, EVENT_INFO, "test", "gateway", "it", "event %u of %u", i + 1, n);
}

static void test_events(void **state)
{
	struct api_fixture *f = *state;
	json_t *doc = get_json(f, "/v1/events", 200), *rows;

	assert_int_equal(json_array_size(json_object_get(doc, "events")), 0);
	assert_int_equal(get_int(doc, "last"), 0);
	json_decref(doc);
	add_events(f, 100);
	doc = get_json(f, "/v1/events?limit=70", 200);
	rows = json_object_get(doc, "events");
	assert_int_equal(json_array_size(rows), 70);
	assert_int_equal(get_int(json_array_get(rows, 0), "number"), 31);
	assert_int_equal(get_int(doc, "last"), 100);
	assert_string_equal(get_text(json_array_get(rows, 69), "text"), "event 100 of 100");
	assert_string_equal(get_text(json_array_get(rows, 69), "severity"), "info");
	assert_string_equal(get_text(json_array_get(rows, 69), "cure"), "gateway");
	assert_true(seconds_ago(json_array_get(rows, 69), "at") < 5);
	json_decref(doc);
	doc = get_json(f, "/v1/events?since=98", 200);
	assert_int_equal(json_array_size(json_object_get(doc, "events")), 2);
	json_decref(doc);
	/* Of a gateway before this one. */
	doc = get_json(f, "/v1/events?since=5000", 200);
	assert_int_equal(json_array_size(json_object_get(doc, "events")), 100);
	json_decref(doc);
	add_events(f, EVENTS_KEPT);
	doc = get_json(f, "/v1/events?since=20&limit=3", 200);
	assert_int_equal(get_int(doc, "lost"), 80);
	assert_int_equal(get_int(doc, "last"), 103);
	json_decref(doc);
	assert_error(f, false, "GET", "/v1/events?since=x", NULL, 400, "'since'");
	assert_error(f, false, "GET", "/v1/events?follow=yes", NULL, 400, "'follow'");
	json_decref(get_json(f, "/v1/events?follow=0", 200));
}

/* --- events as a stream --- */

/* A connection that asked for the stream, up to its first bytes. */
static int open_stream(struct api_fixture *f, const char *query)
{
	char request[256];
	int fd = raw_connect(f, false);

	snprintf(request, sizeof(request), "GET /v1/events?follow=1%s HTTP/1.1\r\nHost: x\r\n\r\n", query);
	send_text(fd, request, strlen(request));
	return fd;
}

/* Reads on until `text` has come, for a while. */
static void read_until(int fd, const char *text, char *out, size_t size, size_t *len)
{
	struct pollfd p = {fd, POLLIN, 0};

	while (!strstr(out, text)) {
		ssize_t n;

		if (poll(&p, 1, 8000) != 1)
			fail_msg("no '%s' in: %s", text, out);
		n = read(fd, out + *len, size - 1 - *len);
		if (n <= 0)
			fail_msg("it ended before '%s': %s", text, out);
		*len += (size_t)n;
		out[*len] = '\0';
	}
}

static void test_stream(void **state)
{
	struct api_fixture *f = *state;
	static char out[64 * 1024];
	size_t len = 0;
	int fd;

	*out = '\0';
	add_events(f, 5);
	fd = open_stream(f, "&limit=2");
	read_until(fd, "event 5 of 5", out, sizeof(out), &len);
	assert_non_null(strstr(out, "HTTP/1.1 200"));
	assert_non_null(strstr(out, "chunked"));
	assert_non_null(strstr(out, "event 4 of 5"));
	assert_null(strstr(out, "event 3 of 5"));
	/* Then what happens, as it does. */
	events_add(f->events, EVENT_CRITICAL, "late", "wall", "it", "something new");
	read_until(fd, "something new\"}\n", out, sizeof(out), &len);
	/* The gateway's stop ends it, in good form. */
	events_wake(f->events);
	len = read_to_end(fd, out, sizeof(out));
	assert_string_equal(out + len - 5, "0\r\n\r\n");
}

/* So many and no more; one whose client has gone makes room, though nothing happens. */
static void test_streams_are_few(void **state)
{
	struct api_fixture *f = *state;
	char out[4096];
	int fds[9];

	add_events(f, 1);
	for (int i = 0; i < 8; i++) {
		size_t len = 0;

		*out = '\0';
		fds[i] = open_stream(f, "");
		read_until(fds[i], "event 1 of 1", out, sizeof(out), &len);
	}
	assert_error(f, false, "GET", "/v1/events?follow=1", NULL, 503, "too many streams");
	json_decref(get_json(f, "/v1/events", 200));
	close(fds[0]);
	for (int tries = 0;; tries++) {
		size_t len = 0;

		*out = '\0';
		fds[0] = open_stream(f, "");
		read_until(fds[0], "}", out, sizeof(out), &len);
		if (strstr(out, "event 1 of 1"))
			break;
		close(fds[0]);
		assert_true(tries < 150); /* an empty line each five seconds finds out */
		poll(NULL, 0, 100);
	}
	for (int i = 0; i < 8; i++)
		close(fds[i]);
}

/* A reader that is too slow is told how many it lost, and gets the newest; nobody waits for it. */
static void test_slow_reader(void **state)
{
	struct api_fixture *f = *state;
	static char out[8 * 1024 * 1024];
	unsigned long lost = 0, numbers = 0, last = 0;
	int fd = open_stream(f, "&since=0");

	for (unsigned i = 0; i < 10; i++)
		add_events(f, EVENTS_KEPT);
	events_add(f->events, EVENT_INFO, "test", "gateway", "it", "the last one");
	for (size_t len = 0; !strstr(out + (len > 1000 ? len - 1000 : 0), "the last one");) {
		ssize_t n = read(fd, out + len, sizeof(out) - 1 - len);

		assert_true(n > 0);
		len += (size_t)n;
	}
	for (const char *at = out; (at = strstr(at, "{\"")); at++) {
		if (strncmp(at, "{\"lost\":", 8) == 0) {
			unsigned long n = strtoul(at + 8, NULL, 10);

			lost += n;
			last += n;
		} else if (strncmp(at, "{\"number\":", 10) == 0) {
			assert_int_equal(strtoul(at + 10, NULL, 10), last + 1);
			last++;
			numbers++;
		}
	}
	assert_true(lost > 0);
	assert_int_equal(lost + numbers, 10 * EVENTS_KEPT + 1);
	close(fd);
}

/* Stopping the API does not wait for a stream that nobody reads or ends. */
static void test_stop_with_a_stream(void **state)
{
	struct api_fixture *f = *state, second = *f;
	struct api_config config = {second.socket_path, "", "2", 0, f->notify_fd, 600, f->events, f->owners};
	struct timespec begin, end;
	char err[256], out[4096] = "";
	size_t len = 0;
	int quiet, deaf;

	snprintf(second.socket_path, sizeof(second.socket_path), "%s/second.sock", f->dir);
	second.api = api_start(&config, &f->dp, err, sizeof(err));
	assert_non_null(second.api);
	add_events(f, 1);
	quiet = open_stream(&second, "");
	read_until(quiet, "event 1 of 1", out, sizeof(out), &len);
	deaf = open_stream(&second, "&since=0");
	add_events(f, EVENTS_KEPT);
	poll(NULL, 0, 200);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	api_stop(second.api);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_in_range(end.tv_sec - begin.tv_sec, 0, 4);
	close(quiet);
	close(deaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		API_TEST(test_clients),          API_TEST(test_clients_are_paged),
		API_TEST(test_explain_client),   API_TEST(test_explain_nobody),
		API_TEST(test_explain_places),   API_TEST(test_explain_snat),
		API_TEST(test_explain_starting), API_TEST(test_events),
		API_TEST(test_stream),           API_TEST(test_streams_are_few),
		API_TEST(test_slow_reader),      API_TEST(test_stop_with_a_stream),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
