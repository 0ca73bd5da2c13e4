/* SPDX-License-Identifier: BSD-3-Clause */
/* Which end of an idle connection is asked. */
#include "ends.h"

#include "silence.h"

static void begin_side(enum flow_dir asked, enum cure_mode mode)
{
	begin_rig((struct rig_config){0});
	set_mode(mode);
	rig.service.timeouts.probe_client = asked == DIR_UP;
	rig.service.timeouts.probe_backend = asked == DIR_DOWN;
	handshake(false, ISN, PEER, true);
	converse();
}

/* Of that end alone, after the idle time; in steps until it comes. */
static void await_probe_of(enum flow_dir asked)
{
	struct sent s;
	unsigned ms = 0;

	for (; !take(&s); ms += 40) {
		assert_true(ms < LATE_MS);
		pass_ms(40);
	}
	take_none();
	assert_in_range(ms, PROBE_MS - PROBE_MS / 10 - 40, LATE_MS);
	check_probe(&s, !asked);
}

/* The other end is left in peace, for as long as the one that is asked answers. */
static void test_one_side(void **state)
{
	for (enum flow_dir asked = DIR_UP; asked < DIRS; asked++) {
		begin_side(asked, CURE_ENFORCE);
		for (int i = 0; i < 10; i++) {
			await_probe_of(asked);
			answer_probe(asked);
		}
		assert_int_equal(did(ACTION_keepalive), 10);
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
		assert_int_equal(backend().idle_survived_ms > 0, asked == DIR_DOWN);
		converse();
		stop();
	}
}

/* The one that is not asked has vanished: the other one's answers keep the flow for the plain idle time alone. */
static void test_unasked_vanished(void **state)
{
	enum { IDLE_MS = 5 * PROBE_MS };

	for (enum flow_dir asked = DIR_UP; asked < DIRS; asked++) {
		uint64_t begin_ns;

		begin_side(asked, CURE_ENFORCE);
		rig.service.timeouts.established_ms = IDLE_MS;
		begin_ns = rig.now_ns;
		while (!did(ACTION_rst_idle)) {
			struct sent s;

			assert_true((rig.now_ns - begin_ns) / 1000000 < IDLE_MS + LATE_MS);
			pass_ms(40);
			if (did(ACTION_rst_idle) || !take(&s))
				continue;
			check_probe(&s, !asked);
			answer_probe(asked);
		}
		assert_true((rig.now_ns - begin_ns) / 1000000 >= IDLE_MS);
		await_made(0);
		check_resets();
		stop();
	}
}

/* It is silent: both ends hear a RST, whichever was asked. */
static void test_one_side_dead(void **state)
{
	for (enum flow_dir asked = DIR_UP; asked < DIRS; asked++) {
		begin_side(asked, CURE_ENFORCE);
		await_probe_of(asked);
		for (int i = 1; i < PROBES; i++)
			await_one_probe(!asked);
		await_made(PROBE_EVERY_MS + 500);
		check_resets();
		assert_int_equal(backend().silent_backends, asked == DIR_DOWN);
		assert_int_equal(backend().silent_clients, asked == DIR_UP);
		stop();
	}
}

/* No way to the end that is not asked delays nothing. */
static void test_way_of_the_asked(void **state)
{
	begin_side(DIR_UP, CURE_ENFORCE);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &talk.backend, NEIGHBOUR_GONE, rig_backend_mac);
	await_probe_of(DIR_UP);
	answer_probe(DIR_UP);
	stop();
}

/* In shadow one question is counted, and none asked. */
static void test_one_side_in_shadow(void **state)
{
	begin_side(DIR_DOWN, CURE_SHADOW);
	pass_ms(LATE_MS);
	take_none();
	assert_int_equal(would(ACTION_keepalive), 1);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_side),           cmocka_unit_test(test_unasked_vanished),
		cmocka_unit_test(test_one_side_dead),      cmocka_unit_test(test_way_of_the_asked),
		cmocka_unit_test(test_one_side_in_shadow),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
