/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The API as its clients see it, over real sockets.
 */
#include "api_assert.h"

#include "api_query.h"

#include <curl/curl.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void test_starting_before_the_first_view(void **state)
{
	json_t *doc;

	view_publish(NULL);
	doc = get_json(*state, "/v1/status", 200);
	assert_string_equal(get_text(doc, "state"), "starting");
	assert_null_value(doc, "policy_age_s");
	json_decref(doc);
	json_decref(get_json(*state, "/v1/ready", 503));
	doc = get_json(*state, "/v1/backends", 200);
	assert_int_equal(json_array_size(json_object_get(doc, "backends")), 0);
	json_decref(doc);
	json_decref(get_json(*state, "/v1/flows", 200));
}

static void test_status_and_ready(void **state)
{
	json_t *doc = get_json(*state, "/v1/status", 200), *ports, *workers, *gates, *tables;

	assert_string_equal(get_text(doc, "state"), "ready");
	assert_string_equal(get_text(doc, "version"), "1.2.3");
	assert_int_equal(get_int(doc, "policy_number"), 7);
	assert_int_equal(get_int(doc, "publish_took_us"), 1500);
	assert_true(json_is_real(json_object_get(doc, "uptime_s")));
	workers = json_object_get(doc, "workers");
	assert_int_equal(json_array_size(workers), FAKE_WORKERS);
	assert_int_equal(get_int(json_array_get(workers, 1), "loops"), 1001);
	tables = json_object_get(doc, "tables");
	assert_int_equal(json_array_size(tables), 2);
	assert_string_equal(get_text(json_array_get(tables, 0), "family"), "ipv4");
	assert_int_equal(get_int(json_array_get(tables, 0), "flows"), FAKE_FLOWS_W0 + FAKE_FLOWS_W1);
	assert_int_equal(get_int(json_array_get(tables, 0), "capacity"), 2000);
	assert_string_equal(get_text(json_array_get(tables, 0), "level"), "known_only");
	assert_int_equal(get_int(json_array_get(tables, 1), "capacity"), 1000);
	assert_string_equal(get_text(json_array_get(tables, 1), "level"), "relaxed");
	ports = json_object_get(doc, "ports");
	assert_int_equal(json_array_size(ports), 2);
	assert_string_equal(get_text(json_array_get(ports, 0), "name"), "wan");
	gates = json_object_get(doc, "gates");
	assert_int_equal(json_array_size(gates), 2);
	assert_string_equal(get_text(json_array_get(gates, 1), "port"), "lan");
	assert_int_equal(get_int(json_array_get(gates, 1), "gate_known"), 12);
	assert_int_equal(get_int(json_object_get(doc, "kernel"), "routes_v6"), 6);
	assert_int_equal(get_int(json_object_get(doc, "kernel"), "refused"), 2);
	json_decref(doc);
	json_decref(get_json(*state, "/v1/ready", 200));
	view_publish(api_fixture_view(GATEWAY_DRAINING));
	doc = get_json(*state, "/v1/ready", 503);
	assert_string_equal(get_text(doc, "state"), "draining");
	json_decref(doc);
}

/* A gateway that runs but cannot serve says so and why, to people, balancers and monitors alike. */
static void test_trouble(void **state)
{
	struct view *view = api_fixture_view(GATEWAY_READY);
	json_t *doc = get_json(*state, "/v1/status", 200);
	struct reply r;

	assert_true(json_is_true(json_object_get(doc, "ready")));
	assert_true(json_is_null(json_object_get(doc, "reason")));
	json_decref(doc);
	snprintf(view->trouble, sizeof(view->trouble), "port wan is gone");
	view_publish(view);
	doc = get_json(*state, "/v1/status", 200);
	assert_string_equal(get_text(doc, "state"), "ready");
	assert_true(json_is_false(json_object_get(doc, "ready")));
	assert_string_equal(get_text(doc, "reason"), "port wan is gone");
	json_decref(doc);
	doc = get_json(*state, "/v1/ready", 503);
	assert_string_equal(get_text(doc, "reason"), "port wan is gone");
	json_decref(doc);
	assert_int_equal(api_fixture_request(*state, false, "GET", "/metrics", NULL, NULL, &r), 0);
	assert_non_null(strstr(r.body, "\nspillway_ready 0\n"));
	reply_free(&r);
}

static void test_services(void **state)
{
	json_t *doc = get_json(*state, "/v1/services", 200);
	json_t *shop = json_array_get(json_object_get(doc, "services"), 0);
	json_t *blog = json_array_get(json_object_get(doc, "services"), 1);

	assert_string_equal(get_text(shop, "name"), "shop");
	assert_int_equal(json_array_size(json_object_get(shop, "listen")), 2);
	assert_string_equal(json_string_value(json_array_get(json_object_get(shop, "listen"), 1)),
			    "[2001:db8:100::1]:80/tcp");
	assert_int_equal(get_int(shop, "new_flows"), 200);
	assert_int_equal(get_int(blog, "new_flows"), 201);
	assert_int_equal(get_int(shop, "attempts"), get_int(shop, "new_flows") + get_int(shop, "refused") +
							    get_int(shop, "silent") + get_int(shop, "holding"));
	assert_int_equal(get_int(shop, "refused"), 2);
	assert_int_equal(get_int(shop, "refused_storm"), 5);
	assert_int_equal(get_int(shop, "shed_early"), 89);
	assert_int_equal(get_int(blog, "shed_early"), 0);
	assert_int_equal(get_int(shop, "held"), 70);
	assert_int_equal(get_int(shop, "held_admitted"), 65);
	assert_int_equal(get_int(shop, "would_silence"), 0);
	assert_int_equal(get_int(blog, "would_silence"), 6);
	assert_int_equal(get_int(shop, "retries"), 7);
	assert_null_value(shop, "down_reason");
	assert_string_equal(get_text(blog, "down_reason"), "no usable backend \"now\"");
	json_decref(doc);
}

static void test_backends(void **state)
{
	json_t *doc = get_json(*state, "/v1/backends", 200);
	json_t *rows = json_object_get(doc, "backends");
	json_t *fixed = json_array_get(rows, 0), *dns = json_array_get(rows, 1), *gone = json_array_get(rows, 2);
	double left_s = json_number_value(json_object_get(dns, "ttl_left"));

	assert_int_equal(json_array_size(rows), 3);
	assert_string_equal(get_text(fixed, "id"), "tcp:198.18.3.21:8080");
	assert_int_equal(json_array_size(json_object_get(fixed, "services")), 2);
	assert_string_equal(get_text(fixed, "breaker"), "closed");
	assert_string_equal(get_text(dns, "breaker"), "open");
	assert_string_equal(get_text(dns, "breaker_evidence"), "5 SYNs in a row failed: 2 unanswered, 3 refused");
	assert_in_range((long)(time(NULL) - (long)json_number_value(json_object_get(dns, "breaker_since"))), 11, 15);
	assert_in_range((long)json_number_value(json_object_get(dns, "breaker_next_s")), 56, 60);
	assert_null_value(fixed, "breaker_evidence");
	assert_null_value(fixed, "breaker_since");
	assert_null_value(fixed, "breaker_next_s");
	assert_int_equal(get_int(dns, "resteered"), 31);
	assert_int_equal(get_int(dns, "overloads"), 8);
	assert_int_equal(get_int(dns, "probes"), 41);
	assert_int_equal(get_int(dns, "wip"), 13);
	assert_int_equal(get_int(dns, "wip"), get_int(dns, "waiting") + get_int(dns, "open") + get_int(dns, "zombies"));
	assert_int_equal(get_int(dns, "resets_before"), 8);
	assert_int_equal(get_int(dns, "retransmissions_up"), 13);
	/* 99 of 200 us and one of 20 ms: to a quarter. */
	assert_true(json_number_value(json_object_get(dns, "handshake_p50_ms")) == 0.223);
	assert_true(json_number_value(json_object_get(dns, "handshake_p99_ms")) == 0.223);
	assert_true(json_number_value(json_object_get(dns, "first_byte_p50_ms")) == 20.479);
	assert_null_value(fixed, "handshake_p50_ms");
	assert_null_value(fixed, "first_byte_p99_ms");
	assert_null_value(fixed, "ttl_left");
	assert_true(left_s > 20 && left_s <= 30);
	assert_int_equal(get_int(dns, "weight"), 3);
	assert_int_equal(get_int(dns, "flows"), 11);
	assert_int_equal(get_int(dns, "failures"), 1);
	assert_int_equal(get_int(dns, "pinned"), 0);
	assert_string_equal(get_text(gone, "life"), "gone");
	assert_int_equal(get_int(gone, "pinned"), 12);
	assert_int_equal(get_int(gone, "silent_clients"), 4);
	assert_int_equal(get_int(gone, "silent_backends"), 5);
	assert_true(json_number_value(json_object_get(gone, "idle_survived_s")) == 108.25);
	assert_true(json_number_value(json_object_get(gone, "idle_lost_s")) == 183.0);
	/* Nothing was learned about these yet. */
	assert_null_value(fixed, "idle_survived_s");
	assert_null_value(fixed, "idle_lost_s");
	assert_null_value(dns, "removed_s");
	assert_null_value(dns, "drain_s");
	assert_true(json_number_value(json_object_get(gone, "removed_s")) > 0);
	left_s = json_number_value(json_object_get(gone, "drain_s"));
	assert_true(left_s > 10 && left_s <= 20);
	json_decref(doc);
}

static void test_names(void **state)
{
	json_t *doc = get_json(*state, "/v1/names", 200);
	json_t *shop = json_array_get(json_object_get(doc, "names"), 0);
	json_t *gone = json_array_get(json_object_get(doc, "names"), 1);

	assert_string_equal(get_text(shop, "state"), "fresh");
	assert_true(json_number_value(json_object_get(shop, "ttl_s")) == 5.0);
	assert_null_value(shop, "last_error");
	assert_int_equal(get_int(shop, "changes"), 2);
	assert_int_equal(get_int(shop, "would_changes"), 1);
	assert_int_equal(get_int(shop, "refused"), 3);
	assert_int_equal(get_int(gone, "family"), 6);
	/* Not UTF-8: null, and the answer as a whole stays whole. */
	assert_null_value(gone, "last_error");
	json_decref(doc);
}

static json_t *paths_of(struct api_fixture *f, const char *query, json_t **doc)
{
	char path[128];

	snprintf(path, sizeof(path), "/v1/paths%s", query);
	*doc = get_json(f, path, 200);
	return json_object_get(*doc, "paths");
}

static void test_paths(void **state)
{
	static const struct {
		const char *query;
		size_t n;
	} cases[] = {
		{"?address=198.18.2.7", 2}, /* itself and its prefix */
		{"?address=198.18.2.8", 1}, /* the prefix */
		{"?address=198.18.3.7", 0}, {"?address=2001:db8:3::15", 1},          {"?address=2001:db8:3::16", 0},
		{"?cursor=0.11.0", 1},      {"?cursor=0.18446744073709551614.0", 0},
	};
	json_t *doc, *rows = paths_of(*state, "", &doc);

	assert_int_equal(json_array_size(rows), 3);
	assert_null_value(doc, "next");
	assert_string_equal(get_text(json_array_get(rows, 0), "address"), "198.18.2.7");
	assert_int_equal(get_int(json_array_get(rows, 0), "mtu"), 1400);
	assert_string_equal(get_text(json_array_get(rows, 0), "side"), "client");
	assert_string_equal(get_text(json_array_get(rows, 0), "source"), "ptb");
	assert_true(json_number_value(json_object_get(json_array_get(rows, 0), "age_s")) == 1.5);
	assert_true(json_number_value(json_object_get(json_array_get(rows, 0), "expires_s")) == 598.5);
	assert_string_equal(get_text(json_array_get(rows, 1), "address"), "198.18.2.0/24");
	assert_string_equal(get_text(json_array_get(rows, 1), "side"), "client");
	assert_string_equal(get_text(json_array_get(rows, 1), "source"), "members");
	assert_string_equal(get_text(json_array_get(rows, 2), "address"), "2001:db8:3::15");
	assert_string_equal(get_text(json_array_get(rows, 2), "side"), "upstream");
	json_decref(doc);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (json_array_size(paths_of(*state, cases[i].query, &doc)) != cases[i].n)
			fail_msg("%s: not %zu rows", cases[i].query, cases[i].n);
		json_decref(doc);
	}
	/* One after the other. */
	rows = paths_of(*state, "?limit=1", &doc);
	assert_int_equal(json_array_size(rows), 1);
	assert_string_equal(get_text(doc, "next"), "0.1.0");
	json_decref(doc);
	rows = paths_of(*state, "?limit=1&cursor=0.1.0", &doc);
	assert_string_equal(get_text(json_array_get(rows, 0), "address"), "198.18.2.0/24");
	json_decref(doc);
}

static void test_ledger(void **state)
{
	struct api_fixture *f = *state;
	json_t *doc = get_json(f, "/v1/ledger", 200);
	json_t *sum = json_object_get(doc, "sum"), *workers = json_object_get(doc, "workers");

	assert_int_equal(get_int(doc, "balance"), 0);
	assert_int_equal(get_int(doc, "in_rings"), 1);
	assert_int_equal(get_int(sum, "rx"), 150);
	assert_int_equal(get_int(sum, "dropped"), 7);
	assert_int_equal(get_int(sum, "tx_balance"), 0);
	assert_int_equal(get_int(json_array_get(workers, 1), "taken_over"), 2);
	assert_int_equal(get_int(json_array_get(workers, 1), "balance"), 0);
	assert_int_equal(get_int(json_object_get(doc, "reasons"), "drop_truncated"), 6);
	assert_int_equal(json_object_size(json_object_get(doc, "reasons")), VERDICT_COUNT);
	assert_int_equal(get_int(json_object_get(doc, "made"), "rst_idle"), 1);
	assert_int_equal(get_int(json_object_get(doc, "ptb"), "noted"), 3);
	assert_int_equal(get_int(json_object_get(doc, "ptb"), "forged"), 0);
	assert_int_equal(get_int(json_object_get(doc, "lost"), "new_ring"), 8);
	assert_int_equal(get_int(json_object_get(doc, "lost"), "no_buffer"), 4);
	assert_string_equal(get_text(json_object_get(json_object_get(doc, "about"), "drop_truncated"), "cause"),
			    "gateway");
	assert_int_equal(get_int(json_object_get(doc, "early"), "gate_shed_client"), 89);
	assert_int_equal(json_object_size(json_object_get(doc, "early")), 1);
	assert_string_equal(get_text(json_object_get(json_object_get(doc, "about"), "gate_shed_client"), "class"),
			    "shed");
	json_decref(doc);

	f->dp.ledgers[1].rx++; /* a packet went missing */
	doc = get_json(f, "/v1/ledger", 200);
	assert_int_equal(get_int(doc, "balance"), 1);
	assert_int_equal(get_int(json_array_get(json_object_get(doc, "workers"), 0), "balance"), 0);
	assert_int_equal(get_int(json_array_get(json_object_get(doc, "workers"), 1), "balance"), 1);
	json_decref(doc);
}

/* Follows the pages; returns how many rows there were, each seen once, and counts the pages. */
static unsigned walk_flows(struct api_fixture *f, const char *query, unsigned limit, unsigned *n_pages)
{
	bool seen[FAKE_WORKERS][FAKE_FLOWS_W0] = {{0}};
	char path[256], cursor[64] = "";
	unsigned n = 0;

	for (*n_pages = 0; *n_pages < 200; (*n_pages)++) {
		json_t *doc, *row;
		size_t i;

		snprintf(path, sizeof(path), "/v1/flows?limit=%u%s%s", limit, query, cursor);
		doc = get_json(f, path, 200);
		assert_true(json_array_size(json_object_get(doc, "flows")) <= limit);
		json_array_foreach(json_object_get(doc, "flows"), i, row)
		{
			unsigned w = (unsigned)get_int(row, "worker");
			unsigned port = (unsigned)atoi(strrchr(get_text(row, "client"), ':') + 1) - 20000 - w * 1000;

			assert_false(seen[w][port]);
			seen[w][port] = true;
			n++;
		}
		*cursor = '\0';
		if (json_is_string(json_object_get(doc, "next")))
			snprintf(cursor, sizeof(cursor), "&cursor=%s", get_text(doc, "next"));
		json_decref(doc);
		if (!*cursor)
			return n;
	}
	fail_msg("the pages do not end");
	return 0;
}

static void test_flows_are_paged(void **state)
{
	static const unsigned limits[] = {1, 7, 32, 33, 64, 1000};
	unsigned n_pages;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		assert_int_equal(walk_flows(*state, "", limits[i], &n_pages), FAKE_FLOWS_W0 + FAKE_FLOWS_W1);
		assert_true(n_pages <= 2 * (FAKE_FLOWS_W0 + FAKE_FLOWS_W1) / limits[i] + 1);
	}
	assert_int_equal(walk_flows(*state, "&address=2001:db8:2::7", 3, &n_pages), 8);
	assert_int_equal(walk_flows(*state, "&address=198.18.2.7&port=20003", 3, &n_pages), 1);
	assert_int_equal(walk_flows(*state, "&service=shop", 1000, &n_pages), 75);
	assert_int_equal(walk_flows(*state, "&service=blog", 1000, &n_pages), 0);
	assert_int_equal(walk_flows(*state, "&backend=tcp%3A198.18.3.22%3A8080", 1000, &n_pages), 37);
}

static void test_flow_row(void **state)
{
	json_t *doc = get_json(*state, "/v1/flows?limit=2", 200);
	json_t *v6 = json_array_get(json_object_get(doc, "flows"), 0);
	json_t *v4 = json_array_get(json_object_get(doc, "flows"), 1);

	assert_string_equal(get_text(v6, "client"), "[2001:db8:2::7]:20000");
	assert_string_equal(get_text(v4, "client"), "198.18.2.7:20001");
	assert_string_equal(get_text(v4, "vip"), "198.18.100.1:80");
	assert_string_equal(get_text(v4, "snat"), "198.18.101.10:1025");
	assert_string_equal(get_text(v4, "backend"), "tcp:198.18.3.21:8080");
	assert_string_equal(get_text(v4, "service"), "shop");
	assert_string_equal(get_text(v4, "state"), "established");
	assert_true(json_number_value(json_object_get(v4, "age_s")) == 61.5);
	json_decref(doc);
}

static void test_bad_queries(void **state)
{
	static const struct {
		const char *path, *says;
	} cases[] = {
		{"/v1/flows?colour=red", "unknown parameter 'colour'"},
		{"/v1/status?limit=3", "unknown parameter 'limit'"},
		{"/v1/flows?limit=0", "bad value '0' of 'limit'"},
		{"/v1/flows?limit=1001", "'limit'"},
		{"/v1/flows?limit=-1", "'limit'"},
		{"/v1/flows?limit=99999999999999999999999", "'limit'"},
		{"/v1/flows?limit=%31%30%00", "'limit'"},
		{"/v1/flows?limit", "'limit'"},
		{"/v1/flows?limit=3&limit=4", "twice"},
		{"/v1/flows?address=198.18.2", "bad value '198.18.2' of 'address'"},
		{"/v1/flows?address=", "'address'"},
		{"/v1/flows?address=%ff%fe", "bad value '?\?' of 'address'"},
		{"/v1/flows?port=80", "'port' needs 'address'"},
		{"/v1/flows?address=::1&port=65536", "'port'"},
		{"/v1/flows?service=nosuch", "no service 'nosuch'"},
		{"/v1/flows?backend=tcp:1.2.3.4:5", "no backend"},
		{"/v1/flows?cursor=0", "'cursor'"},
		{"/v1/flows?cursor=0.1.2.3", "'cursor'"},
		{"/v1/flows?cursor=99.0.0", "'cursor'"},
		{"/v1/flows?cursor=0.0.32", "'cursor'"},
		{"/v1/flows?=", "unknown parameter ''"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_error(*state, false, "GET", cases[i].path, NULL, 400, cases[i].says);
}

static void test_worker_that_does_not_answer(void **state)
{
	struct api_fixture *f = *state;

	f->dp.mute_worker = 1;
	assert_error(f, false, "GET", "/v1/flows", NULL, 504, "worker 1");
	json_decref(get_json(f, "/v1/flows?limit=10", 200));
}

static void test_paths_and_methods(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;

	assert_error(f, false, "GET", "/", NULL, 404, "no such path");
	assert_error(f, false, "GET", "/v1/statu", NULL, 404, "no such path");
	assert_error(f, false, "GET", "/v1/status/", NULL, 404, "no such path");
	assert_error(f, false, "POST", "/v1/nothing", NULL, 404, "no such path");
	assert_int_equal(api_fixture_request(f, false, "DELETE", "/v1/status", NULL, NULL, &r), 0);
	assert_int_equal(r.status, 405);
	assert_string_equal(r.allow, "GET, HEAD");
	reply_free(&r);
	assert_int_equal(api_fixture_request(f, false, "GET", "/v1/reload", NULL, NULL, &r), 0);
	assert_int_equal(r.status, 405);
	assert_string_equal(r.allow, "POST");
	reply_free(&r);
	assert_int_equal(api_fixture_request(f, false, "HEAD", "/v1/status", NULL, NULL, &r), 0);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.len, 0);
	reply_free(&r);
	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/reload", NULL, "{}", &r), 0);
	assert_int_equal(r.status, 413);
	reply_free(&r);
	assert_int_equal(f->taken, 0);
}

static void test_tcp_is_read_only_and_checks_host(void **state)
{
	static const char *const bad[] = {"evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:%u", ""};
	static const char *const good[] = {"localhost:%u", "LOCALHOST:%u", "127.0.0.1:%u", "[::1]:%u"};
	struct api_fixture *f = *state;
	struct reply r;
	char host[64];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(host, sizeof(host), bad[i], api_http_port(f->api));
		assert_error(f, true, "GET", "/v1/status", host, 421, "Host");
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(host, sizeof(host), good[i], api_http_port(f->api));
		assert_int_equal(api_fixture_request(f, true, "GET", "/v1/ready", host, NULL, &r), 0);
		assert_int_equal(r.status, 200);
		reply_free(&r);
	}
	assert_error(f, true, "POST", "/v1/reload", NULL, 403, "Unix socket");
	assert_error(f, true, "POST", "/v1/status", NULL, 405, "GET");
	assert_int_equal(f->taken, 0);
}

static void test_reload(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;
	json_t *doc;

	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/reload", NULL, "", &r), 0);
	assert_int_equal(r.status, 200);
	doc = json_loads(r.body, 0, NULL);
	assert_string_equal(get_text(doc, "path"), "/v1/reload");
	assert_int_equal(get_int(doc, "uid"), getuid());
	json_decref(doc);
	reply_free(&r);
	assert_int_equal(f->taken, 1);
	api_fixture_mode(f, DECIDE_REFUSE);
	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/reload", NULL, "", &r), 0);
	assert_int_equal(r.status, 422);
	doc = json_loads(r.body, 0, NULL);
	assert_string_equal(get_text(doc, "error"), "the file is refused");
	assert_int_equal(json_array_size(json_object_get(doc, "problems")), FAKE_PROBLEMS);
	json_decref(doc);
	reply_free(&r);
	assert_error(f, false, "POST", "/v1/reload?hard=1", NULL, 400, "unknown parameter 'hard'");
}

static void test_drain(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;

	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/drain?backend=tcp:198.18.3.21:8080&deadline=1m30s",
					     NULL, "", &r),
			 0);
	assert_int_equal(r.status, 200);
	reply_free(&r);
	assert_error(f, false, "POST", "/v1/drain?set=open", NULL, 400, "bad value 'open' of 'set': expected auto");
	assert_error(f, false, "POST", "/v1/drain?deadline=8d", NULL, 400, "from 1s to 7d");
	assert_error(f, false, "POST", "/v1/drain?deadline=900ms", NULL, 400, "from 1s to 7d");
	assert_error(f, true, "POST", "/v1/drain?set=auto", NULL, 403, "Unix socket");
	assert_int_equal(f->taken, 1);
}

static void test_breaker(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;

	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/breaker?backend=tcp:198.18.3.21:8080&set=open",
					     NULL, "", &r),
			 0);
	assert_int_equal(r.status, 200);
	reply_free(&r);
	assert_error(f, false, "POST", "/v1/breaker?set=ajar", NULL, 400,
		     "bad value 'ajar' of 'set': expected open, close or auto");
	assert_error(f, false, "POST", "/v1/breaker?deadline=1s", NULL, 400, "unknown parameter 'deadline'");
	assert_error(f, true, "POST", "/v1/breaker?set=auto", NULL, 403, "Unix socket");
	assert_int_equal(f->taken, 1);
}

static void test_limiter(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;

	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/limiter?backend=tcp:198.18.3.21:8080&set=reset",
					     NULL, "", &r),
			 0);
	assert_int_equal(r.status, 200);
	reply_free(&r);
	assert_error(f, false, "POST", "/v1/limiter?set=auto", NULL, 400, "bad value 'auto' of 'set': expected reset");
	assert_error(f, true, "POST", "/v1/limiter?set=reset", NULL, 403, "Unix socket");
	assert_int_equal(f->taken, 1);
}

/* Both ways in which decide can be late; afterwards the next command goes through as ever. */
static void test_command_that_is_not_answered(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;

	api_fixture_mode(f, DECIDE_DEAF);
	assert_error(f, false, "POST", "/v1/reload", NULL, 504, "nothing was done");
	assert_int_equal(f->taken, 0);
	api_fixture_mode(f, DECIDE_SLOW);
	assert_error(f, false, "POST", "/v1/reload", NULL, 504, "outcome is not known");
	assert_int_equal(f->taken, 1);
	api_fixture_mode(f, DECIDE_ANSWER);
	assert_int_equal(api_fixture_request(f, false, "POST", "/v1/reload", NULL, "", &r), 0);
	assert_int_equal(r.status, 200);
	assert_int_equal(f->taken, 2);
	reply_free(&r);
}

static void test_config_text(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;

	assert_error(f, false, "GET", "/v1/config", NULL, 503, "not there yet");
	api_set_config_text(f->api, "gateway:\n  workers: [1]\n");
	api_set_config_text(f->api, "gateway:\n  workers: [1, 2]\n");
	assert_int_equal(api_fixture_request(f, true, "GET", "/v1/config", NULL, NULL, &r), 0);
	assert_int_equal(r.status, 200);
	assert_string_equal(r.body, "gateway:\n  workers: [1, 2]\n");
	assert_memory_equal(r.type, "text/yaml", 9);
	reply_free(&r);
}

static bool is_of_family(const char *line, size_t len, const char *family, const char *type)
{
	size_t n = strlen(family);

	if (len < n || strncmp(line, family, n) != 0)
		return false;
	if (strcmp(type, "histogram") != 0)
		return len == n;
	return (len == n + 7 && strncmp(line + n, "_bucket", 7) == 0) ||
	       (len == n + 4 && strncmp(line + n, "_sum", 4) == 0) ||
	       (len == n + 6 && strncmp(line + n, "_count", 6) == 0);
}

/* Each sample line belongs to a family announced above it, and ends in a number. */
static void check_metrics_form(char *text)
{
	char family[128] = "", type[16] = "", *rest = text;

	for (char *line = strsep(&rest, "\n"); rest; line = strsep(&rest, "\n")) {
		size_t len = strcspn(line, "{ ");
		char *end;

		if (sscanf(line, "# TYPE %127s %15s", family, type) == 2 || strncmp(line, "# HELP ", 7) == 0)
			continue;
		if (!is_of_family(line, len, family, type))
			fail_msg("'%s' under '%s'", line, family);
		strtod(strrchr(line, ' ') + 1, &end);
		assert_int_equal(*end, 0);
	}
}

static void test_metrics(void **state)
{
	static const char *const lines[] = {
		"\nspillway_client_records_forgotten_total 17\n",
		"\nspillway_tick_late_max_seconds 0.022500\n",
		"\nspillway_ready 1\n",
		"\nspillway_flow_table_capacity{family=\"ipv4\"} 2000\n",
		"\nspillway_flow_table_pressure{family=\"ipv4\"} 2\n",
		"\nspillway_flow_table_pressure{family=\"ipv6\"} 0\n",
		"\nspillway_flow_table_pressed_total{family=\"ipv4\",level=\"known_only\"} 3\n",
		"\nspillway_rx_packets_total 150\n",
		"\nspillway_ledger_balance_packets 0\n",
		"\n# HELP spillway_verdict_drop_truncated_packets_total shorter than its headers",
		"\nspillway_verdict_drop_truncated_packets_total{class=\"dropped\",cause=\"gateway\"} 6\n",
		"\nspillway_backend_flows{backend=\"tcp:198.18.3.22:8080\"} 11\n",
		"\nspillway_backend_pinned_flows{backend=\"tcp:[2001:db8:3::15]:8080\"} 12\n",
		"\nspillway_service_new_flows_total{service=\"blog\"} 201\n",
		"\nspillway_service_attempts_total{service=\"shop\"} 209\n",
		"\nspillway_service_refused_storm_total{service=\"shop\"} 5\n",
		"\nspillway_service_shed_early_total{service=\"shop\"} 89\n",
		"\nspillway_gate_shed_client_packets_total{port=\"wan\"} 84\n",
		"\nspillway_early_clients 0\n",
		"\nspillway_service_holding{service=\"shop\"} 4\n",
		"\nspillway_service_would_silence_total{service=\"blog\"} 6\n",
		"\nspillway_port_lost_packets_total{port=\"lan\",queue=\"1\",reason=\"no_buffer\"} 4\n",
		"\nspillway_gate_known_packets_total{port=\"wan\"} 11\n",
		"\nspillway_learned_path_mtus{of=\"client_prefix\"} 1\n",
		"\nspillway_learned_path_mtus_evicted_total 4\n",
		"\nspillway_ptb_received_total{result=\"noted\"} 3\n",
		"\nspillway_mss_malformed_total 9\n",
		"\nspillway_kernel_refused_total 2\n",
		"\nspillway_backend_work{backend=\"tcp:198.18.3.22:8080\"} 13\n",
		"\nspillway_backend_retransmissions_down_total{backend=\"tcp:198.18.3.22:8080\"} 14\n",
		"\n# TYPE spillway_backend_handshake_seconds histogram\n",
		"\nspillway_backend_first_byte_seconds_bucket{backend=\"tcp:198.18.3.22:8080\",le=\"0.016384\"} 0\n",
		"\nspillway_backend_first_byte_seconds_bucket{backend=\"tcp:198.18.3.22:8080\",le=\"0.032768\"} 99\n",
		"\nspillway_backend_first_byte_seconds_bucket{backend=\"tcp:198.18.3.22:8080\",le=\"+Inf\"} 100\n",
		"\nspillway_backend_first_byte_seconds_sum{backend=\"tcp:198.18.3.22:8080\"} 3.980000\n",
		"\nspillway_backend_first_byte_seconds_count{backend=\"tcp:198.18.3.22:8080\"} 100\n",
	};
	struct reply r;

	assert_int_equal(api_fixture_request(*state, true, "GET", "/metrics", NULL, NULL, &r), 0);
	assert_int_equal(r.status, 200);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (!strstr(r.body, lines[i]))
			fail_msg("no '%s' in %s", lines[i], r.body);
	check_metrics_form(r.body);
	reply_free(&r);
}

/* What a scraper accepts decides; only the families of counters and the end differ. */
static void test_openmetrics(void **state)
{
	static const struct {
		const char *accept;
		bool openmetrics;
	} cases[] = {
		{"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", true},
		{"text/plain, application/openmetrics-text ; version=1.0.0", true},
		{"APPLICATION/OpenMetrics-Text", true},
		{"application/openmetrics-text;version=0.0.1,text/plain", false},
		{"application/openmetrics-text;q=0,text/plain", false},
		{"application/openmetrics-textual", false},
		{"text/plain;version=0.0.4", false},
		{"*/*", false},
		{"", false},
		{",;,;q=", false},
	};
	struct api_fixture *f = *state;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct reply r;

		f->accept = cases[i].accept;
		assert_int_equal(api_fixture_request(f, true, "GET", "/metrics", NULL, NULL, &r), 0);
		assert_int_equal(r.status, 200);
		assert_string_equal(r.type, cases[i].openmetrics
						    ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
						    : "text/plain; version=0.0.4; charset=utf-8");
		assert_non_null(strstr(r.body, "\nspillway_rx_packets_total 150\n"));
		assert_non_null(strstr(r.body, cases[i].openmetrics ? "_packets \\\"packet too big\\\" less than"
								    : "_packets_total \"packet too big\" less than"));
		assert_int_equal(strcmp(r.body + r.len - 6, "# EOF\n") == 0, cases[i].openmetrics);
		assert_int_equal(strstr(r.body, "\n# TYPE spillway_rx_packets counter\n") != NULL,
				 cases[i].openmetrics);
		assert_int_equal(strstr(r.body, "\n# TYPE spillway_rx_packets_total counter\n") == NULL,
				 cases[i].openmetrics);
		reply_free(&r);
	}
}

/* --- the socket file --- */

static struct api *start_another(struct api_fixture *f, const char *socket_path, const char *http, char err[static 256])
{
	struct api_config config = {socket_path, http, "2", 0, f->notify_fd, 1};

	return api_start(&config, &f->dp, err, 256);
}

static void test_socket_file(void **state)
{
	struct api_fixture *f = *state;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char err[256], path[96];
	struct stat st;
	struct api *api;
	int fd;

	assert_int_equal(stat(f->socket_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_null(start_another(f, f->socket_path, "", err));
	assert_int_equal(errno, EADDRINUSE);
	assert_non_null(strstr(err, "another gateway is running"));
	json_decref(get_json(f, "/v1/ready", 200)); /* and it was left alone */

	snprintf(path, sizeof(path), "%s/stale.sock", f->dir);
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(fd);
	api = start_another(f, path, "", err);
	assert_non_null(api);
	api_stop(api);
	assert_int_equal(access(path, F_OK), -1);
}

static void test_socket_file_of_others(void **state)
{
	struct api_fixture *f = *state;
	char err[256], path[96];
	struct api *api;
	FILE *file;
	int plain;

	snprintf(path, sizeof(path), "%s/other", f->dir);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	assert_null(start_another(f, path, "", err));
	plain = access(path, F_OK);
	unlink(path);
	assert_int_equal(plain, 0);

	/* Replaced while it ran: what stands there now is not ours to remove. */
	api = start_another(f, path, "", err);
	assert_non_null(api);
	unlink(path);
	file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	api_stop(api);
	plain = access(path, F_OK);
	unlink(path);
	assert_int_equal(plain, 0);
}

static void test_bad_addresses(void **state)
{
	static const char *const bad[] = {"0.0.0.0:9090", "198.18.0.1:9090", "[::]:9090",       "127.0.0.1",
					  "localhost",    "127.0.0.1:",      "127.0.0.1:65536", "[2001:db8::1]:9090",
					  ":9090",        "127.0.0.1:-1"};
	struct api_fixture *f = *state;
	char err[256], path[200];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_null(start_another(f, "", bad[i], err));
		assert_non_null(strstr(err, "loopback"));
	}
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	assert_null(start_another(f, path, "", err));
	assert_int_equal(errno, ENAMETOOLONG);
}

/* --- clients that misbehave --- */

static void test_oversized_request(void **state)
{
	struct api_fixture *f = *state;
	static char request[64 * 1024], out[64 * 1024];
	int fd = raw_connect(f, false);

	memset(request, 'a', sizeof(request));
	memcpy(request, "GET /v1/flows?service=", 22);
	send_text(fd, request, sizeof(request));
	if (read_to_end(fd, out, sizeof(out)) > 0)
		assert_non_null(strstr(out, "HTTP/1.1 4"));
	assert_error(f, false, "GET", "/v1/ready?x=1", NULL, 400, "unknown");

	/* Too long for us, not for libmicrohttpd. */
	memcpy(request, "/v1/flows?service=", 18);
	request[1024] = '\0';
	assert_error(f, false, "GET", request, NULL, 400, "query longer than 511 bytes");
}

static void test_pipelined_junk(void **state)
{
	static const char two[] = "GET /v1/ready HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/ready HTTP/1.1\r\nHost: x\r\n\r\n"
				  "\x01\x02 junk \xff\r\n\r\n\r\n";
	static const char body[] = "POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n"
				   "POST /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n";
	static char out[64 * 1024];
	struct api_fixture *f = *state;
	int fd = raw_connect(f, false);
	const char *second;

	send_text(fd, two, sizeof(two) - 1);
	read_to_end(fd, out, sizeof(out));
	second = strstr(out, "{\"state\":\"ready\"}");
	assert_non_null(second);
	assert_non_null(strstr(second + 1, "{\"state\":\"ready\"}"));

	/* The hidden request in the body must not be carried out. */
	fd = raw_connect(f, false);
	send_text(fd, body, sizeof(body) - 1);
	read_to_end(fd, out, sizeof(out));
	assert_non_null(strstr(out, "HTTP/1.1 413"));
	assert_int_equal(f->taken, 0);
	json_decref(get_json(f, "/v1/ready", 200));
}

static void test_slow_client(void **state)
{
	struct api_fixture *f = *state;
	int fd = raw_connect(f, true);
	char out[4096];

	send_text(fd, "GET /v1/status HT", 17);
	json_decref(get_json(f, "/v1/ready", 200)); /* nobody waits for it */
	read_to_end(fd, out, sizeof(out));          /* and it is cut off */
}

/* Over the limit a connection is closed at once; room comes back when the idle ones have been cut off. */
static void test_flood_of_connections(void **state)
{
	struct api_fixture *f = *state;
	struct reply r;
	char out[4096];
	int fds[48], tries = 0;

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		fds[i] = raw_connect(f, true);
	json_decref(get_json(f, "/v1/ready", 200)); /* the Unix socket has room of its own */
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		assert_int_equal(read_to_end(fds[i], out, sizeof(out)), 0);
	/* A closed socket is seen a little earlier than its place is free. */
	while (api_fixture_request(f, true, "GET", "/v1/ready", NULL, NULL, &r) != 0) {
		assert_true(tries++ < 500);
		poll(NULL, 0, 10);
		reply_free(&r);
	}
	assert_int_equal(r.status, 200);
	reply_free(&r);
}

struct poster {
	struct api_fixture *f;
	struct reply reply;
	int code;
};

static void *post_reload(void *arg)
{
	struct poster *p = arg;

	p->code = api_fixture_request(p->f, false, "POST", "/v1/reload", NULL, "", &p->reply);
	return NULL;
}

/* Stopping does not wait for a command's timeout, and does not let its client wait either. */
static void test_stop_with_a_waiting_command(void **state)
{
	struct api_fixture *f = *state, second = *f;
	struct pollfd notified = {eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), POLLIN, 0};
	struct api_config config = {second.socket_path, "", "2", 0, notified.fd, 600};
	struct poster p = {.f = &second};
	char err[256];
	pthread_t thread;
	int waited;

	snprintf(second.socket_path, sizeof(second.socket_path), "%s/second.sock", f->dir);
	second.api = api_start(&config, &f->dp, err, sizeof(err));
	assert_non_null(second.api);
	assert_int_equal(pthread_create(&thread, NULL, post_reload, &p), 0);
	waited = poll(&notified, 1, 10000);
	api_stop(second.api);
	pthread_join(thread, NULL);
	close(notified.fd);
	assert_int_equal(waited, 1);
	/* The client's own limit is 20 s. Its answer races with the closing of its connection. */
	assert_true(p.code == 0 ? p.reply.status == 503 : p.code != CURLE_OPERATION_TIMEDOUT);
	reply_free(&p.reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		API_TEST(test_starting_before_the_first_view),
		API_TEST(test_status_and_ready),
		API_TEST(test_trouble),
		API_TEST(test_services),
		API_TEST(test_backends),
		API_TEST(test_names),
		API_TEST(test_paths),
		API_TEST(test_ledger),
		API_TEST(test_flows_are_paged),
		API_TEST(test_flow_row),
		API_TEST(test_bad_queries),
		API_TEST(test_worker_that_does_not_answer),
		API_TEST(test_paths_and_methods),
		API_TEST(test_tcp_is_read_only_and_checks_host),
		API_TEST(test_reload),
		API_TEST(test_drain),
		API_TEST(test_breaker),
		API_TEST(test_limiter),
		API_TEST(test_command_that_is_not_answered),
		API_TEST(test_config_text),
		API_TEST(test_metrics),
		API_TEST(test_openmetrics),
		API_TEST(test_socket_file),
		API_TEST(test_socket_file_of_others),
		API_TEST(test_bad_addresses),
		API_TEST(test_oversized_request),
		API_TEST(test_pipelined_junk),
		API_TEST(test_slow_client),
		API_TEST(test_flood_of_connections),
		API_TEST(test_stop_with_a_waiting_command),
	};

	curl_global_init(CURL_GLOBAL_DEFAULT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
