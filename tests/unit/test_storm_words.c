/* SPDX-License-Identifier: BSD-3-Clause */
/* What users read of the cure storm: who is limited, since when, by what, and what would let whom in. */
#include "breakers_talk.h"

#include "api_docs.h"
#include "limiters.h"
#include "owners.h"
#include "storm_words.h"
#include "view.h"

#define TICK      LIMITER_TICK_NS
#define SECOND    1000000000ull

#define LONG_NAME "0123456789012345678901234567890123456789012345678901234567"
#define USER(n)                                                                                                        \
	"  - name: u" #n LONG_NAME "\n    listen: [\"198.18.100.1" #n ":80/tcp\"]\n"                                   \
	"    backends:\n      - {address: 198.18.3.1, port: 8080}\n"

static const struct cure_modes enforced = {.of = {[CURE_STORM] = CURE_ENFORCE, [CURE_WALL] = CURE_ENFORCE}};
static struct limiters *limiters;
static struct owners *owners;
static struct view *view;
static const struct ipaddr *const like = &(const struct ipaddr){.b = {[10] = 0xff, [11] = 0xff, [12] = 198, [13] = 18}};
static char yaml[1024];
static const char *more_users = ""; /* services beside the one that all tests have */
static bool ticked;                 /* what workers counted is made up */

static int setup_workers(unsigned n_workers)
{
	snprintf(yaml, sizeof(yaml),
		 "    storm: {hard_max: 200, backend_rate: 5000/s, client_rate: 20/s, client_burst: 1, hold: off}\n%s",
		 more_users);
	more_yaml = yaml;
	begin_all(n_workers, 2, CURE_ENFORCE);
	f.config->cures.of[CURE_STORM] = CURE_ENFORCE;
	limiters = limiters_create(rig.dp, f.services, f.events, &(struct limiters_config){N_SLOTS, 4});
	owners = owners_create(4, N_SLOTS);
	assert_true(limiters && owners);
	view = NULL;
	return 0;
}

static int setup(void **state)
{
	return setup_workers(1);
}

static int setup_many(void **state)
{
	more_users = USER(1) USER(2) USER(3);
	return setup_workers(1);
}

static int setup_two(void **state)
{
	return setup_workers(2);
}

static int teardown(void **state)
{
	if (ticked)
		memset(rig.worker->signals.counts, 0, N_SLOTS * sizeof(rig.worker->signals.counts[0]));
	ticked = false;
	view_free(view);
	limiters_destroy(limiters);
	owners_destroy(owners);
	end_all();
	more_yaml = more_users = "";
	return 0;
}

static void ticks(unsigned backend, unsigned n_ticks, unsigned n, unsigned ms, uint32_t open)
{
	struct signal_counts *c = &rig.worker->signals.counts[slot_of_backend(false, backend)];

	ticked = true;
	for (unsigned i = 0; i < n_ticks; i++) {
		rig.now_ns += TICK;
		c->answered += n;
		c->timed += n;
		c->timed_us += n * ms * 1000;
		c->open = open;
		limiters_tick(limiters, &enforced, rig.now_ns);
	}
}

static struct api_source source(void)
{
	return (struct api_source){.dp = rig.dp, .version = "test", .events = f.events, .owners = owners};
}

static void look(void)
{
	view_free(view);
	view = calloc(1, sizeof(*view));
	assert_int_equal(services_view(f.services, view), 0);
	limiters_view(limiters, view, rig.now_ns, rig.now_ns);
	owners_note(owners, view, rig.now_ns);
}

static json_t *document(api_doc_fn *fn, const char *key)
{
	const struct api_query query = {.limit = 100};
	const struct api_source src = source();
	char err[API_QUERY_ERR];
	json_t *doc, *rows;

	look();
	assert_int_equal(fn(&src, view, &query, &doc, err), 200);
	rows = json_incref(json_object_get(doc, key));
	json_decref(doc);
	assert_non_null(rows);
	return rows;
}

static const json_t *row_of(const json_t *rows, const char *key, const char *name)
{
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (strcmp(json_string_value(json_object_get(row, key)), name) == 0)
			return row;
	}
	fail_msg("no row of %s", name);
	return NULL;
}

static double number(const json_t *row, const char *key)
{
	const json_t *value = json_object_get(row, key);

	assert_true(json_is_number(value));
	return json_number_value(value);
}

static void is_null(const json_t *row, const char *key)
{
	assert_true(json_is_null(json_object_get(row, key)));
}

static void words_are(const json_t *row, const char *key, const char *words)
{
	const char *text = json_string_value(json_object_get(row, key));

	assert_non_null(text);
	if (!strstr(text, words))
		fail_msg("expected '%s' in '%s'", words, text);
}

static void test_backends(void **state)
{
	json_t *rows;
	const json_t *row;

	ticks(1, 100, 40, 20, 8);
	rows = document(api_doc_backends, "backends");
	row = row_of(rows, "id", "tcp:198.18.3.1:8080");
	words_are(row, "limiter", "open");
	words_are(row, "usual_from", "measured");
	assert_int_equal(number(row, "usual_ms"), 20);
	assert_int_equal(number(row, "hard_max"), 200);
	is_null(row, "limit");
	is_null(row, "limiter_since");
	is_null(row, "calm_ms");
	is_null(row_of(rows, "id", "tcp:198.18.3.2:8080"), "usual_from");
	json_decref(rows);
	ticks(1, 3, 40, 480, 97);
	rows = document(api_doc_backends, "backends");
	row = row_of(rows, "id", "tcp:198.18.3.1:8080");
	words_are(row, "limiter", "limiting");
	assert_int_equal(number(row, "limit"), 56);
	assert_int_equal(number(row, "first_byte_ms"), 480);
	assert_int_equal(number(row, "calm_ms"), 90);
	assert_true(number(row, "limiter_since") > 0);
	json_decref(rows);
}

static void test_services(void **state)
{
	json_t *rows;
	const json_t *row;

	ticks(1, 100, 40, 20, 8);
	ticks(1, 3, 40, 480, 97);
	rows = document(api_doc_services, "services");
	row = row_of(rows, "name", "shop");
	assert_int_equal(number(row, "limiting"), 1);
	assert_true(number(row, "limiting_since") > 0);
	/* Of four backends one is. */
	is_null(row, "limit");
	assert_int_equal(number(row, "wip"), 97);
	assert_int_equal(number(row, "usual_ms"), 20);
	assert_int_equal(number(row, "first_byte_ms"), 480);
	assert_int_equal(number(row, "answers_per_s"), 400);
	assert_int_equal(number(row, "hard_max"), 200);
	assert_int_equal(number(row, "backend_rate"), 5000);
	json_decref(rows);
}

/* However many services have it, and whatever they are called: a backend's trouble is that of each. */
static void test_many_users(void **state)
{
	char text[STORM_WORDS_LEN];
	json_t *rows;

	ticks(1, 100, 40, 20, 8);
	ticks(1, 3, 40, 480, 97);
	rows = document(api_doc_services, "services");
	assert_int_equal(json_array_size(rows), 4);
	for (size_t i = 0; i < json_array_size(rows); i++) {
		const json_t *row = json_array_get(rows, i);

		assert_int_equal(number(row, "limiting"), 1);
		assert_int_equal(number(row, "wip"), 97);
		assert_int_equal(number(row, "answers_per_s"), 400);
		storm_say_lets_in(view, &view->services[i], STORM_LIMIT, like, text, sizeof(text));
		assert_non_null(strstr(text, "when tcp:198.18.3.1:8080 has less than 56 under way (97 now)"));
	}
	json_decref(rows);
}

static void ask(unsigned client, unsigned times)
{
	struct talk t = {.proto = PROTO_TCP, .client = client};

	for (unsigned i = 0; i < times; i++) {
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + i * 1000, 0));
		turn();
		take_all();
		t.client += 0x10000;
	}
}

/* By test and answer, per second, for the service; and for each client, with what would let it in. */
static void test_who_stood_in_the_way(void **state)
{
	const json_t *row, *storm;
	double refused = 0, silent = 0;
	json_t *rows;
	size_t i;

	rig.now_ns = rig.now_ns / SECOND * SECOND + SECOND;
	look();
	ask(1, 24);
	rig.now_ns += SECOND;
	rows = document(api_doc_services, "services");
	storm = json_object_get(row_of(rows, "name", "shop"), "storm");
	json_array_foreach(storm, i, row)
	{
		words_are(row, "test", "client");
		assert_true(number(row, "held_per_s") == 0);
		refused += number(row, "refused_per_s");
		silent += number(row, "silent_per_s");
	}
	json_decref(rows);
	assert_true(refused > 0 && refused + silent > 2 && refused + silent < 2.41);
	rows = document(api_doc_clients, "clients");
	assert_int_equal(json_array_size(rows), 1);
	storm = json_object_get(json_array_get(rows, 0), "storm");
	assert_int_equal(json_array_size(storm), 2);
	json_array_foreach(storm, i, row)
	{
		words_are(row, "test", "client");
		words_are(row, "service", "shop");
		words_are(row, "lets_in", "when it is its turn: its own cap lets in 20 a second");
		assert_true(json_is_false(json_object_get(row, "shadow")));
		assert_true(number(row, "last") >= number(row, "first"));
	}
	json_decref(rows);
	/* Ten seconds later nothing of it is in the rates. */
	rig.now_ns += 11 * SECOND;
	rows = document(api_doc_services, "services");
	assert_int_equal(json_array_size(json_object_get(row_of(rows, "name", "shop"), "storm")), 0);
	json_decref(rows);
}

/* Each worker counts what came to it, and the document counts all, however the client's ports spread over them. */
static void test_of_both_workers(void **state)
{
	const struct ipaddr who = rig_client(1, false);
	const json_t *row, *client, *last;
	double sum = 0, latest = 0;
	json_t *rows;
	size_t i;

	look();
	ask(1, 40);
	for (unsigned w = 0; w < 2; w++) {
		struct outcome_blind blind;
		struct client_row of;

		assert_true(observe_client(rig.dp, w, &who, &of, &blind));
		assert_true(of.n && of.counts[OUTCOME_REFUSED] + of.counts[OUTCOME_SILENT] > 0);
	}
	rows = document(api_doc_clients, "clients");
	assert_int_equal(json_array_size(rows), 1);
	client = json_array_get(rows, 0);
	json_array_foreach(json_object_get(client, "storm"), i, row)
	{
		const json_t *other;
		size_t j;

		sum += number(row, "count");
		latest = number(row, "last") > latest ? number(row, "last") : latest;
		json_array_foreach(json_object_get(client, "storm"), j, other)
		{
			assert_true(i == j || strcmp(json_string_value(json_object_get(row, "answer")),
						     json_string_value(json_object_get(other, "answer"))) != 0);
		}
	}
	assert_true(sum > 0 && sum == number(client, "refused") + number(client, "silent"));
	last = json_object_get(client, "last");
	assert_true(number(last, "at") >= latest - 0.02);
	json_decref(rows);
}

static void test_lets_in(void **state)
{
	char text[STORM_WORDS_LEN];
	const struct view_service *shop;

	ticks(1, 100, 40, 20, 8);
	look();
	shop = &view->services[0];
	storm_say_lets_in(view, shop, STORM_LIMIT, like, text, sizeof(text));
	assert_string_equal(text, "at once: no backend of shop is congested now");
	storm_say_lets_in(view, shop, STORM_PREFIX, like, text, sizeof(text));
	assert_string_equal(text, "at once: there is no such cap any more");
	ticks(1, 3, 40, 480, 97);
	look();
	shop = &view->services[0];
	storm_say_lets_in(view, shop, STORM_LIMIT, like, text, sizeof(text));
	assert_string_equal(text, "when tcp:198.18.3.1:8080 has less than 56 under way (97 now), or first bytes of it "
				  "take less than 90 ms again");
	storm_say_lets_in(view, shop, STORM_HARD_MAX, like, text, sizeof(text));
	assert_string_equal(text, "when tcp:198.18.3.1:8080 has less than 200 under way (97 now), or when "
				  "tcp:198.18.3.2:8080 has less than 200 under way (0 now)");
	storm_say_lets_in(view, shop, STORM_BACKEND, like, text, sizeof(text));
	assert_string_equal(text, "when it is its turn: each backend is given 5000 a second");
	storm_say_limited(&view->backends[0], rig.now_ns, text, sizeof(text));
	assert_string_equal(text,
			    "it is congested, for 0.2 s: first bytes take 480.0 ms instead of 20.0, and it answered "
			    "400 a second at the most of late; it is given no more than 56 at a time, of which it "
			    "has 97, until first bytes of it take less than 90 ms again");
	/* Without an answer there is no first byte that could be less. */
	ticks(1, 20, 0, 0, 97);
	look();
	storm_say_lets_in(view, &view->services[0], STORM_LIMIT, like, text, sizeof(text));
	assert_non_null(strstr(text, "under way (97 now), or it answers again"));
}

static void test_metrics(void **state)
{
	static const char *const lines[] = {
		"\nspillway_backend_limiter_limiting{backend=\"tcp:198.18.3.1:8080\"} 1\n",
		"\nspillway_backend_limiter_limit{backend=\"tcp:198.18.3.1:8080\"} 56\n",
		"\nspillway_backend_limiter_limit{backend=\"tcp:198.18.3.2:8080\"} 0\n",
		"\nspillway_backend_limiter_hard_max{backend=\"tcp:198.18.3.1:8080\"} 200\n",
		"\nspillway_backend_limiter_hard_max{backend=\"tcp:198.18.3.2:8080\"} 200\n",
		"\nspillway_backend_limiter_wip{backend=\"tcp:198.18.3.1:8080\"} 97\n",
		"\nspillway_backend_limiter_base_seconds{backend=\"tcp:198.18.3.1:8080\"} 0.02\n",
		"\nspillway_backend_limiter_base_seconds{backend=\"tcp:198.18.3.2:8080\"} 0\n",
		"\nspillway_backend_limiter_first_byte_seconds{backend=\"tcp:198.18.3.1:8080\"} 0.48\n",
		"\nspillway_backend_limiter_answers_per_second{backend=\"tcp:198.18.3.1:8080\"} 400\n",
		"\n# TYPE spillway_backend_limiter_limiting gauge\n",
	};
	const struct api_source src = source();
	size_t len;
	char *text;

	ticks(1, 100, 40, 20, 8);
	ticks(1, 3, 40, 480, 97);
	look();
	text = api_metrics(&src, view, METRICS_PROMETHEUS, &len);
	assert_non_null(text);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		if (!strstr(text, lines[i]))
			fail_msg("not there: %s", lines[i]);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_backends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_services, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_users, setup_many, teardown),
		cmocka_unit_test_setup_teardown(test_who_stood_in_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_of_both_workers, setup_two, teardown),
		cmocka_unit_test_setup_teardown(test_lets_in, setup, teardown),
		cmocka_unit_test_setup_teardown(test_metrics, setup, teardown),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
