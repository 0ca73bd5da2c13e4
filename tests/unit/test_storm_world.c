/* SPDX-License-Identifier: BSD-3-Clause */
/* What becomes of an upstream that is hit, and of its clients, with the limiter and without: B.12. */
#include "storm_world.h"

#define LAMBDA 400
#define C      500
#define SEEDS  2

static const struct world_load usual = {.first = 1, .n_networks = 20, .hosts = 10, .rate = LAMBDA};

static void print(const char *what)
{
	print_message("%s:", what);
	for (unsigned i = 0; i < world_ms() / 1000; i++)
		print_message(" %u", world.at[i].done);
	print_message("\n  %u attempts, %u SYNs upstream, %u overflows, %u wasted\n", world.all.begun, world.all.syns,
		      world.all.overflows, world.all.wasted);
}

static struct service_report service(void)
{
	struct service_report r;

	observe_service(rig.dp, 0, &r);
	return r;
}

/* Off and on, IPv4 and IPv6. */
static void each_mode(void (*off)(void), void (*on)(void), void (*play)(bool v6, enum cure_mode mode))
{
	for (int v6 = 0; v6 < 2; v6++) {
		play(v6, CURE_OFF);
		print("off");
		off();
		world_end();
		play(v6, CURE_ENFORCE);
		print("on");
		on();
		world_end();
	}
}

static void stall(bool v6, enum cure_mode mode)
{
	world_begin(&(struct world_config){.v6 = v6, .storm = mode});
	world_run(12000, &usual, 1);
	world.n_upstream = 0;
	world_run(5000, &usual, 1);
	world.n_upstream = 10;
	world_run(30000, &usual, 1);
}

static void stall_off(void)
{
	assert_true(world_goodput(5, 12) > 0.94 * LAMBDA);
	assert_true(world_goodput(40, 47) <= 40);
}

static void stall_on(void)
{
	assert_true(world_goodput(19, 29) >= 380);
	assert_true(world.all.wasted <= 400);
}

static void test_b12_1_stall(void **state)
{
	each_mode(stall_off, stall_on, stall);
}

static void slow(bool v6, enum cure_mode mode)
{
	world_begin(&(struct world_config){.v6 = v6, .storm = mode});
	world_run(12000, &usual, 1);
	world.n_upstream = 3;
	world_run(10000, &usual, 1);
	world.n_upstream = 10;
	world_run(10000, &usual, 1);
}

static void slow_off(void)
{
	assert_true(world_goodput(12, 22) <= 60);
	assert_true(world_goodput(27, 32) <= 40);
}

static void slow_on(void)
{
	assert_true(world_goodput(12, 22) >= 135);
	assert_true(world_goodput(24, 29) >= 380);
}

static void test_b12_2_capacity(void **state)
{
	each_mode(slow_off, slow_on, slow);
}

static void surge(bool v6, enum cure_mode mode)
{
	const struct world_load more = {.first = 1, .n_networks = 20, .hosts = 10, .rate = 2.5 * LAMBDA};

	world_begin(&(struct world_config){.v6 = v6, .storm = mode});
	world_run(12000, &usual, 1);
	memset(world.took, 0, sizeof(world.took));
	world_run(10000, &more, 1);
	world_run(10000, &usual, 1);
}

static void surge_off(void)
{
	assert_true(world_goodput(12, 22) <= 150);
	assert_true(world_goodput(27, 32) <= 40);
}

static void surge_on(void)
{
	print_message("  half took %u ms, 99 of 100 no more than %u\n", world_percentile_ms(50),
		      world_percentile_ms(99));
	assert_true(world_percentile_ms(99) <= 400);
	assert_true(world_goodput(12, 22) >= 450);
	assert_true(world_goodput(24, 32) >= 380);
}

static void test_b12_3_surge(void **state)
{
	each_mode(surge_off, surge_on, surge);
}

static void test_b12_4_healthy(void **state)
{
	struct service_report r;

	world_begin(&(struct world_config){.storm = CURE_ENFORCE});
	world_run(60000, &usual, 1);
	print("healthy");
	r = service();
	assert_int_equal(r.refused + r.silent, 0);
	assert_int_equal(r.held, 0);
	world_end();
}

static void test_b12_5_nearly_full(void **state)
{
	const struct world_load load = {.first = 1, .n_networks = 20, .hosts = 10, .rate = 0.95 * C};

	world_begin(&(struct world_config){.storm = CURE_ENFORCE});
	world_run(60000, &load, 1);
	print("0.95 C");
	assert_true(world_goodput(0, 60) >= 0.97 * 0.95 * C);
	world_end();
}

static bool all_are_told;

bool __real_answer_limits_refused(struct answer_limits *limits, const struct ipaddr *client, uint64_t now_ns);
bool __wrap_answer_limits_refused(struct answer_limits *limits, const struct ipaddr *client, uint64_t now_ns);

/* How often a client hears that it is refused is no setting: the control takes the limit away. */
bool __wrap_answer_limits_refused(struct answer_limits *limits, const struct ipaddr *client, uint64_t now_ns)
{
	return all_are_told || __real_answer_limits_refused(limits, client, now_ns);
}

/* Attempts a second at the gateway, at most, of clients that try again at once twenty times while nothing answers. */
static unsigned attempts_of_impatient(void)
{
	unsigned most = 0;

	world_begin(&(struct world_config){.storm = CURE_ENFORCE, .retries = 20});
	world_run(12000, &usual, 1);
	world.n_upstream = 0;
	world_run(5000, &usual, 1);
	world.n_upstream = 10;
	world_run(8000, &usual, 1);
	print(all_are_told ? "all are told" : "two a second are told");
	for (unsigned s = 12; s < 25; s++)
		most = world.at[s].attempts > most ? world.at[s].attempts : most;
	assert_true(world_goodput(19, 25) >= 380);
	world_end();
	return most;
}

static void test_b12_6_impatient(void **state)
{
	unsigned most = attempts_of_impatient(), most_told;

	all_are_told = true;
	most_told = attempts_of_impatient();
	all_are_told = false;
	print_message("  %u attempts a second at most, %u if each hears that it is refused\n", most, most_told);
	assert_true(most <= 4000);
	assert_true(most_told > 8000);
}

/* All at once, to an upstream with a short backlog. */
static void herd(const char *what, struct world_config config)
{
	config.storm = CURE_ENFORCE;
	config.backlog = 128;
	config.timeout_ms = 60000;
	config.no_retries = true;
	world_begin(&config);
	world_run(1000, NULL, 0);
	for (unsigned n = 0; n < 2000; n++)
		world_request(1 + n % 20, 1 + n / 20);
	world_run(7000, NULL, 0);
	print(what);
	assert_int_equal(world.all.connected, 2000);
	assert_int_equal(world.all.overflows, 0);
	world_end();
}

static void test_b12_7_herd(void **state)
{
	const unsigned asks_after_ms[] = {0, 20, 50};

	for (unsigned i = 0; i < 3 * SEEDS; i++)
		herd("herd", (struct world_config){.seed = 1 + i / 3, .asks_after_ms = asks_after_ms[i % 3]});
}

/* All that it does takes as long, and it does so many at a time: the quickest in line are as slow as all. */
static void test_herd_steady(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		herd("steady herd", (struct world_config){.steady = true, .n_upstream = 10 << i});
}

/* Handshakes that nobody finishes open the gates for no herd that takes its time to finish its own. */
static void test_herd_from_afar(void **state)
{
	const struct world_load spoofed = {.rate = 100, .spoofed = true};

	for (unsigned i = 0; i < 2; i++) {
		world_begin(&(struct world_config){.storm = CURE_ENFORCE,
						   .timeout_ms = 60000,
						   .no_retries = true,
						   .asks_after_ms = 50,
						   .acks_late = true});
		world_run(12000, &usual, 1);
		world_run(4000, (struct world_load[]){usual, spoofed}, 1 + i);
		for (unsigned n = 0; n < 1000; n++)
			world_request(21 + n % 20, 1 + n / 20);
		world_run(15000, &usual, 1);
		print("herd from afar");
		print_message("  at most %u in line\n", world.all.longest);
		assert_true(world.all.longest <= 128);
		world_end();
	}
}

/* Requests of the networks 1 to `n`. */
static void count(unsigned n, unsigned *done, unsigned *requests)
{
	*done = *requests = 0;
	for (unsigned i = 1; i <= n; i++) {
		*done += world.of[i].done;
		*requests += world.of[i].requests;
	}
}

/* One network sends four of five SYNs. */
static void test_b12_8_hog(void **state)
{
	const struct world_load loads[] = {
		{.first = 1, .n_networks = 20, .hosts = 10, .rate = 300},
		{.first = 100, .n_networks = 1, .hosts = 100, .rate = 1200},
	};
	unsigned done, requests;

	for (int v6 = 0; v6 < 2; v6++) {
		world_begin(&(struct world_config){.v6 = v6, .storm = CURE_ENFORCE});
		world_run(12000, loads, 1);
		memset(world.of, 0, sizeof(world.of));
		world_run(20000, loads, 2);
		print("hog");
		count(20, &done, &requests);
		print_message("  the others: %u of %u, the hog: %u of %u\n", done, requests, world.of[100].done,
			      world.of[100].requests);
		assert_true(done >= 0.98 * requests);
		assert_true(world_goodput(12, 32) >= 0.85 * C);
		world_end();
	}
}

/* One client that was served asks for more than all that is borne, and others come, most of them only once. */
static void hog_and_strangers(bool v6, const char *yaml)
{
	const struct world_load loads[] = {
		{.first = 200, .n_networks = 1, .hosts = 1, .rate = 300},
		{.first = 200, .n_networks = 1, .hosts = 1, .rate = 1200},
		{.first = 1, .n_networks = 150, .hosts = 250, .rate = 100},
	};
	unsigned done, requests;

	world_begin(&(struct world_config){.v6 = v6, .storm = CURE_ENFORCE, .yaml = yaml});
	world_run(12000, loads, 1);
	world_run(5000, loads + 1, 1);
	world_run(2000, loads + 1, 2);
	count(150, &done, &requests);
	print_message("  of the first two seconds' %u of %u\n", done, requests);
	world_run(20000, loads + 1, 2);
	print("hog and strangers");
	count(150, &done, &requests);
	print_message("  strangers: %u of %u, the hog: %u of %u\n", done, requests, world.of[200].done,
		      world.of[200].requests);
	assert_true(done >= 0.95 * requests);
	assert_true(world_goodput(17, 37) >= 0.85 * C);
	world_end();
}

static void test_hog_and_strangers(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		hog_and_strangers(v6, NULL);
		hog_and_strangers(v6, "    storm: {hard_max: 12}\n");
	}
}

static void test_b12_10_short_patience(void **state)
{
	world_begin(&(struct world_config){.storm = CURE_ENFORCE,
					   .timeout_ms = 300,
					   .retries = 10,
					   .yaml = "    storm: {client_timeout: 300ms, hold: 250ms}\n"});
	world_run(12000, &usual, 1);
	world.n_upstream = 0;
	world_run(5000, &usual, 1);
	world.n_upstream = 10;
	world_run(15000, &usual, 1);
	print("300 ms");
	assert_true(world_goodput(19, 29) >= 380);
	world_end();
}

static void spoofed(struct world_load load)
{
	const struct world_load loads[] = {usual, load};

	for (int v6 = 0; v6 < 2; v6++) {
		unsigned done, requests;

		world_begin(&(struct world_config){.v6 = v6, .storm = CURE_ENFORCE, .no_retries = true});
		world_run(12000, &usual, 1);
		memset(world.of, 0, sizeof(world.of));
		world_run(20000, loads, 2);
		print("spoofed");
		count(20, &done, &requests);
		print_message("  %u of %u, beside %u spoofed\n", done, requests, world.all.spoofed);
		assert_true(done >= 0.98 * requests);
		world_end();
	}
}

/* SYNs of sources that are not there take no place of those that are, of a backend that bears them all. */
static void test_spoofed(void **state)
{
	spoofed((struct world_load){.rate = 4000, .spoofed = true});
}

/* Nor do those in the name of their neighbours. */
static void test_spoofed_neighbours(void **state)
{
	spoofed((struct world_load){.first = 1, .n_networks = 20, .rate = 4000, .spoofed = true});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_b12_1_stall),       cmocka_unit_test(test_b12_2_capacity),
		cmocka_unit_test(test_b12_3_surge),       cmocka_unit_test(test_b12_4_healthy),
		cmocka_unit_test(test_b12_5_nearly_full), cmocka_unit_test(test_b12_6_impatient),
		cmocka_unit_test(test_b12_7_herd),        cmocka_unit_test(test_herd_steady),
		cmocka_unit_test(test_herd_from_afar),    cmocka_unit_test(test_b12_8_hog),
		cmocka_unit_test(test_hog_and_strangers), cmocka_unit_test(test_b12_10_short_patience),
		cmocka_unit_test(test_spoofed),           cmocka_unit_test(test_spoofed_neighbours),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
