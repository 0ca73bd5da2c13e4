/* SPDX-License-Identifier: BSD-3-Clause */
/* Explanations from what real workers remember: the numbers are those of the ledger. */
#include "talk.h"

#include "api_docs.h"
#include "clock.h"
#include "events.h"
#include "observe.h"
#include "owners.h"
#include "view.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* What the gateway has beside the dataplane. */
static struct {
	struct view_service service;
	struct view_backend backends[SET_FAMILIES];
	struct view view;
	struct api_source source;
	_Atomic bool stop;
} gw;

static void start_gateway(struct rig_config config)
{
	char text[IPADDR_PORT_STRLEN];

	start(config);
	memset(&gw, 0, sizeof(gw));
	gw.service = (struct view_service){.name = "shop",
					   .listen = "198.18.100.1:80/tcp,[2001:db8:100::1]:80/tcp",
					   .down_reason = "no IPv4 backend"};
	for (int family = 0; family < SET_FAMILIES; family++) {
		const struct policy_backend *b = &rig.backends[family][SET_TCP][0];

		gw.backends[family] = (struct view_backend){
			.addr = b->addr, .port_be = b->port_be, .proto = PROTO_TCP, .slot = b->ref.slot};
		snprintf(gw.backends[family].id, sizeof(gw.backends[family].id), "tcp:%s",
			 ipaddr_port_format(&b->addr, b->port_be, text));
	}
	gw.view = (struct view){.n_services = 1,
				.services = &gw.service,
				.n_backends = config.n_backends ? SET_FAMILIES : 0,
				.backends = gw.backends};
	gw.source = (struct api_source){.dp = rig.dp, .events = events_create(NULL), .owners = owners_create(8, 512)};
	owners_note(gw.source.owners, &gw.view, rig.now_ns);
}

static void stop_gateway(void)
{
	events_destroy(gw.source.events);
	owners_destroy(gw.source.owners);
	stop();
}

static void *turn_on(void *arg)
{
	while (!gw.stop)
		turn();
	return NULL;
}

/* The workers turn meanwhile: they are asked for flows. Where their thread gets no CPU in time, it is asked again. */
static json_t *explain(struct ipaddr addr, uint16_t port_be)
{
	struct api_query query = {
		.given = PARAM_ADDRESS | (port_be ? PARAM_PORT : 0), .address = addr, .port_be = port_be};
	char err[API_QUERY_ERR];
	json_t *doc = NULL;
	pthread_t thread;
	unsigned tries = 0;

	gw.stop = false;
	assert_int_equal(pthread_create(&thread, NULL, turn_on, NULL), 0);
	do {
		json_decref(doc);
		assert_int_equal(api_doc_explain(&gw.source, &gw.view, &query, &doc, err), 200);
	} while (!json_is_true(json_object_get(doc, "flows_complete")) && ++tries < 100);
	gw.stop = true;
	pthread_join(thread, NULL);
	assert_true(tries < 100);
	return doc;
}

static json_int_t number(const json_t *object, const char *key)
{
	assert_true(json_is_integer(json_object_get(object, key)));
	return json_integer_value(json_object_get(object, key));
}

/* Its count; 0: there is none. */
static json_int_t found(const json_t *doc, const char *scope, const char *reason)
{
	json_t *row;
	size_t i;

	json_array_foreach(json_object_get(doc, "findings"), i, row)
	{
		if (strcmp(json_string_value(json_object_get(row, "scope")), scope) == 0 &&
		    strcmp(json_string_value(json_object_get(row, "reason")), reason) == 0)
			return number(row, "count");
	}
	return 0;
}

static void knock(bool v6, unsigned client, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client + (i << 16)};
		struct sent s;

		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		turn();
		while (take(&s))
			;
		rig.now_ns += STEP_NS;
	}
}

/* A refused client among others: its own numbers, its network's and the service's are what was counted. */
static void test_refused(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (int two = 0; two < 2; two++) {
			json_int_t refused, silent;
			json_t *doc;

			start_gateway((struct rig_config){.n_backends = 0, .n_workers = 1 + two});
			knock(v6, 1, 30);
			refused = (json_int_t)verdicts(VERDICT_answer_service_down);
			silent = (json_int_t)verdicts(VERDICT_shed_refused_limit);
			assert_true(refused > 0 && silent > 0);
			doc = explain(rig_client(1, v6), 0);
			assert_int_equal(number(json_object_get(doc, "client"), "refused"), refused);
			assert_int_equal(number(json_object_get(doc, "client"), "silent"), silent);
			assert_int_equal(found(doc, "client", "answer_service_down"), refused);
			assert_int_equal(found(doc, "client", "shed_refused_limit"), silent);
			assert_int_equal(found(doc, "prefix", "answer_service_down"), refused);
			assert_true(json_is_null(json_object_get(doc, "blind_since")));
			assert_int_equal(json_array_size(json_object_get(doc, "services")), 1);
			json_decref(doc);
			/* Of another network. */
			knock(v6, v6 ? 1 : 0x0301, 10);
			doc = explain(rig_vip(v6), htons(80));
			assert_int_equal(found(doc, "service", "answer_service_down"),
					 (json_int_t)verdicts(VERDICT_answer_service_down));
			assert_int_equal(found(doc, "service", "shed_refused_limit"),
					 (json_int_t)verdicts(VERDICT_shed_refused_limit));
			json_decref(doc);
			stop_gateway();
		}
}

/* What the backend did, with its name. */
static void test_backend_refuses(void **state)
{
	json_t *doc, *row;
	struct talk t;

	start_gateway((struct rig_config){.n_backends = 1});
	t = begin(PROTO_TCP, false, 3);
	exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + 1));
	doc = explain(rig_client(3, false), 0);
	assert_int_equal(found(doc, "client", "refused_by_backend"), 1);
	row = json_array_get(json_object_get(doc, "findings"), 0);
	assert_string_equal(json_string_value(json_object_get(row, "cure")), "wall");
	assert_string_equal(json_string_value(json_object_get(row, "backend")), "tcp:198.18.3.1:8080");
	json_decref(doc);
	doc = explain(t.backend, htons(8080));
	assert_int_equal(found(doc, "backend", "failures"), 1);
	json_decref(doc);
	stop_gateway();
}

static const char *sentence(const json_t *doc, const char *scope, const char *reason)
{
	json_t *row;
	size_t i;

	json_array_foreach(json_object_get(doc, "findings"), i, row)
	{
		if (strcmp(json_string_value(json_object_get(row, "scope")), scope) == 0 &&
		    strcmp(json_string_value(json_object_get(row, "reason")), reason) == 0)
			return json_string_value(json_object_get(row, "sentence"));
	}
	fail_msg("no %s of %s", reason, scope);
	return NULL;
}

/* Why its breaker opened, and what that means to whom it sent away. */
static void test_breaker(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct backend_report r;
		struct talk t;
		json_t *doc;

		start_gateway((struct rig_config){.n_backends = 1});
		for (unsigned i = 0; i < 5; i++) {
			t = begin(PROTO_TCP, v6, 3 + (i << 16));
			exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + 1));
		}
		rig.dp->cells.services[0].last_resort_ns = rig.now_ns;
		knock(v6, 3 + (9 << 16), 1);
		doc = explain(t.backend, htons(8080));
		observe_backend(rig.dp, gw.backends[v6].slot, &r);
		assert_int_equal(found(doc, "backend", "failures"), (json_int_t)r.failures);
		assert_non_null(strstr(sentence(doc, "backend", "breaker"), "breaker open: 5 SYNs in a row refused"));
		json_decref(doc);
		doc = explain(rig_client(3, v6), 0);
		assert_int_equal(found(doc, "client", "answer_wall_open"), 1);
		assert_int_equal(found(doc, "client", "refused_by_backend"), 5);
		assert_non_null(strstr(sentence(doc, "client", "refused_by_backend"),
				       "now: breaker open: 5 SYNs in a row refused"));
		json_decref(doc);
		stop_gateway();
	}
}

static const char *now_says(struct talk *t, json_t **doc)
{
	json_decref(*doc);
	*doc = explain(t->backend, htons(8080));
	return sentence(*doc, "backend", "breaker");
}

static void set_breaker_word(struct streak s)
{
	rig.dp->cells.backends[gw.backends[0].slot].breaker = streak_word(&s);
}

static void expect_now(struct talk *t, json_t **doc, const char *words)
{
	const char *says = now_says(t, doc);

	if (!strstr(says, words))
		fail_msg("expected '%s' in '%s'", words, says);
}

/* Each state names its evidence, since when, and what comes next; what is over is still known. */
static void test_breaker_evidence(void **state)
{
	struct view_breaker b = {
		.state = BREAKER_OPEN,
		.cause = BREAKER_RESPONSE,
		.openings = 3,
		.share = UINT32_MAX,
		.evidence = "5 flows in a row reset before their first byte, of at least 3 networks",
	};
	json_t *doc = NULL;
	uint64_t now_ns;
	struct talk t;

	start_gateway((struct rig_config){.n_backends = 1});
	gw.service.backends = (uint32_t[]){0};
	gw.service.n_backends = 1;
	t = begin(PROTO_TCP, false, 3);
	gw.backends[0].breaker = &b;
	set_breaker_word((struct streak){.state = BREAKER_OPEN});
	/* The answer is made by the clock itself: it has most of a second for it. */
	now_ns = clock_monotonic_ns();
	b.since_ns = b.opened_ns = now_ns - 2050000000;
	b.probe_ns = now_ns + 50950000000;
	b.until_ns = now_ns + 60950000000;
	expect_now(&t, &doc,
		   "breaker open: 5 flows in a row reset before their first byte, of at least 3 networks; for 2.");
	expect_now(&t, &doc, " s, opened 3 times of late; it is probed again in 50.");
	expect_now(&t, &doc, " s, and real flows try it in 60.");
	/* Whom it was refused for hears of it, too. */
	rig.dp->cells.services[0].last_resort_ns = rig.now_ns;
	knock(false, 3 + (9 << 16), 1);
	json_decref(doc);
	doc = explain(rig_client(3, false), 0);
	assert_non_null(strstr(sentence(doc, "client", "answer_wall_open"),
			       "; tcp:198.18.3.1:8080 now: breaker open: 5 flows in a row reset"));
	/* What the view has not seen yet is not said of what is now. */
	set_breaker_word((struct streak){.state = BREAKER_OPEN, .failures = {[CONNECT_REFUSED] = 5}});
	b.state = BREAKER_CLOSED;
	expect_now(&t, &doc, "breaker open: 5 SYNs in a row refused, the first ");
	b.state = BREAKER_HALF_OPEN;
	set_breaker_word((struct streak){.state = BREAKER_HALF_OPEN});
	expect_now(&t, &doc, "breaker half_open: 5 flows in a row reset");
	expect_now(&t, &doc, "; real flows try it, one at a time");
	b.state = BREAKER_RAMP;
	b.share = UINT32_MAX / 4;
	b.closes_ns = clock_monotonic_ns() + 20950000000;
	set_breaker_word((struct streak){.state = BREAKER_RAMP});
	expect_now(&t, &doc, "it gets 25% of its flows, and all of them in 20.");
	b.is_new = true;
	expect_now(&t, &doc, "breaker ramp: new to its set, which has others; for ");
	b.state = BREAKER_CLOSED;
	set_breaker_word((struct streak){.state = BREAKER_CLOSED});
	expect_now(&t, &doc, "takes new flows; it was opened last ");
	expect_now(&t, &doc, " s ago: 5 flows in a row reset before their first byte");
	json_decref(doc);
	doc = explain(rig_client(3, false), 0);
	assert_non_null(strstr(sentence(doc, "client", "answer_wall_open"), "; no breaker of shop is open now"));
	b.forced = true;
	b.state = BREAKER_OPEN;
	set_breaker_word((struct streak){.state = BREAKER_OPEN, .forced = true});
	expect_now(&t, &doc, "breaker open: an operator says so, for ");
	b.forced = false;
	b.state = BREAKER_CLOSED;
	b.side_ns = clock_monotonic_ns() - 1500000000;
	snprintf(b.side, sizeof(b.side), "shop, IPv4: 4 of 4 backends fell silent within 10 s");
	set_breaker_word((struct streak){.side_down = true});
	expect_now(&t, &doc, "breaker closed; its whole side is silent or out of reach, which opens none, for ");
	expect_now(&t, &doc, " s: shop, IPv4: 4 of 4 backends fell silent within 10 s");
	json_decref(doc);
	stop_gateway();
}

/* Which bucket held and refused, as often as the workers counted; in shadow it says that nothing was done. */
static void storm(enum cure_mode mode, unsigned workers)
{
	const char *held = mode == CURE_SHADOW ? "would_hold_client" : "hold_client";
	struct service_report r;
	json_int_t beyond;
	struct sent s;
	json_t *doc;

	start_gateway((struct rig_config){.n_backends = 1, .n_workers = workers});
	rig.policy.modes.of[CURE_STORM] = mode;
	rig.service.storm.hold_ns = 900000000;
	assert_int_equal(gcra_rate_init(&rig.service.storm.caps[STORM_CLIENT], 2, 1000000000, 1), 0);
	knock(false, 1, 20);
	pass_ms(2000);
	while (take(&s))
		;
	observe_service(rig.dp, 0, &r);
	doc = explain(rig_client(1, false), 0);
	assert_int_equal(found(doc, "client", held), (json_int_t)(mode == CURE_SHADOW ? r.would_hold : r.held));
	beyond = mode == CURE_SHADOW
			 ? found(doc, "client", "would_refuse_client") + found(doc, "client", "would_silence_client")
			 : found(doc, "client", "answer_storm_client") + found(doc, "client", "shed_storm_client");
	assert_true(beyond > 0);
	assert_int_equal(beyond,
			 (json_int_t)(mode == CURE_SHADOW ? r.would_refuse + r.would_silence : r.refused_storm));
	assert_int_equal(!!strstr(sentence(doc, "client", held), "in shadow, so not done: held"), mode == CURE_SHADOW);
	json_decref(doc);
	doc = explain(rig_vip(false), htons(80));
	assert_int_equal(found(doc, "total", "held"), (json_int_t)r.held);
	assert_int_equal(found(doc, "total", "refused_storm"), (json_int_t)r.refused_storm);
	assert_int_equal(found(doc, "total", "would"), (json_int_t)(r.would_hold + r.would_refuse + r.would_silence));
	json_decref(doc);
	stop_gateway();
}

static void test_storm(void **state)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		storm(CURE_ENFORCE, workers);
		storm(CURE_SHADOW, workers);
	}
}

/* A SNAT port from a backend's log: during the flow and after it. */
static void test_snat(void **state)
{
	for (int v6 = 0; v6 < 2; v6++)
		for (int two = 0; two < 2; two++) {
			char client[IPADDR_PORT_STRLEN];
			struct ipaddr addr = rig_client(3, v6);
			json_t *doc, *row;
			struct talk t;
			struct sent s;

			start_gateway((struct rig_config){.n_backends = 1, .n_workers = 1 + two});
			t = establish(v6, 3);
			ipaddr_port_format(&addr, rig_client_port_be(3), client);
			doc = explain(t.snat, t.snat_port_be);
			row = json_array_get(json_object_get(doc, "tuples"), 0);
			assert_string_equal(json_string_value(json_object_get(row, "client")), client);
			assert_true(json_is_null(json_object_get(row, "ended")));
			assert_int_equal(json_array_size(json_object_get(doc, "flows")), 1);
			assert_int_equal(number(json_object_get(doc, "client"), "connected"), 1);
			json_decref(doc);
			doc = explain(addr, 0);
			assert_int_equal(json_array_size(json_object_get(doc, "flows")), 1);
			json_decref(doc);
			exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
			pass_ms(11000);
			while (take(&s))
				;
			assert_int_equal(n_flows(), 0);
			doc = explain(t.snat, t.snat_port_be);
			row = json_array_get(json_object_get(doc, "tuples"), 0);
			assert_string_equal(json_string_value(json_object_get(row, "client")), client);
			assert_string_equal(json_string_value(json_object_get(row, "state")), "closed");
			assert_true(json_is_number(json_object_get(row, "ended")));
			assert_int_equal(json_array_size(json_object_get(doc, "flows")), 0);
			json_decref(doc);
			stop_gateway();
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused), cmocka_unit_test(test_backend_refuses),
		cmocka_unit_test(test_breaker), cmocka_unit_test(test_breaker_evidence),
		cmocka_unit_test(test_storm),   cmocka_unit_test(test_snat),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
