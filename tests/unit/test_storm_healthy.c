/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Upstreams that bear all that comes, however long they take for it: from the first moment on nobody is refused, and
 * who has to wait at first does not for long (B-6).
 */
#include "storm_world.h"

/* More than ever are under way: whoever comes is served at once. */
#define PLENTY 4000

static void begin_healthy(struct world_config config)
{
	config.storm = CURE_ENFORCE;
	config.timeout_ms = 10000;
	config.no_retries = true;
	world_begin(&config);
}

static void come(unsigned ms, double rate)
{
	const struct world_load load = {.first = 1, .n_networks = 20, .hosts = 50, .rate = rate};

	world_run(ms, &load, 1);
}

/* Of a hundred attempts at most so many were left unanswered at first, for their clients' kernels to ask again. */
static void end_healthy(const char *what, unsigned silent_percent, unsigned connect_ms)
{
	struct service_report r;
	unsigned ms = world.all.connect_us / 1000 / world.all.connected;

	observe_service(rig.dp, 0, &r);
	print_message("%s: %lu of %u refused, %lu silent, %lu held, %u ms to connect\n", what, r.refused,
		      world.all.begun, r.silent, r.held, ms);
	assert_int_equal(r.refused, 0);
	assert_true(r.silent * 100 <= world.all.begun * (uint64_t)silent_percent);
	assert_true(ms <= connect_ms);
	assert_int_equal(world.all.wasted, 0);
	world_end();
}

/* What is by chance is so with others, too. */
#define SEEDS 2

static void play(const char *what, struct world_config config, double rate, unsigned ms, unsigned connect_ms)
{
	begin_healthy(config);
	come(ms, rate);
	end_healthy(what, 0, connect_ms);
}

static void test_fast(void **state)
{
	play("1 ms", (struct world_config){.n_upstream = 64, .service_us = 1000}, 5000, 3000, 0);
}

static void test_long_poll(void **state)
{
	struct world_config c = {.n_upstream = PLENTY, .service_us = 1000000, .steady = true};

	play("a second each", c, 1000, 12000, 60);
	c.steady = false;
	play("about a second", c, 1000, 12000, 25);
}

/* The first to be answered are the quick ones. */
static void test_slow_from_cold(void **state)
{
	for (unsigned seed = 1; seed <= SEEDS; seed++) {
		begin_healthy((struct world_config){.n_upstream = PLENTY, .service_us = 300000, .seed = seed});
		come(30000, 1000);
		end_healthy("300 ms", 1, 30);
	}
}

static void test_bimodal(void **state)
{
	static const unsigned slow_percents[] = {6, 10, 25}, silent_percents[] = {0, 0, 4};

	for (unsigned i = 0; i < SEEDS * 3; i++) {
		begin_healthy((struct world_config){.n_upstream = PLENTY,
						    .service_us = 1000,
						    .steady = true,
						    .slow_percent = slow_percents[i / SEEDS],
						    .slow_us = 2000000,
						    .seed = 1 + i % SEEDS});
		come(30000, 1000);
		end_healthy("1 ms or 2 s", silent_percents[i / SEEDS], 60);
	}
}

static void test_workers_and_backends(void **state)
{
	struct world_config c = {.workers = 2, .n_upstream = 200, .service_us = 20000};

	play("two workers", c, 2000, 3000, 1);
	c.n_backends = 4;
	play("and four backends", c, 2000, 3000, 1);
}

static void test_doubling(void **state)
{
	begin_healthy((struct world_config){.n_upstream = PLENTY, .service_us = 20000});
	for (unsigned rate = 50; rate <= 6400; rate *= 2)
		come(1000, rate);
	end_healthy("twice as many each second", 1, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fast),
		cmocka_unit_test(test_long_poll),
		cmocka_unit_test(test_slow_from_cold),
		cmocka_unit_test(test_bimodal),
		cmocka_unit_test(test_workers_and_backends),
		cmocka_unit_test(test_doubling),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
