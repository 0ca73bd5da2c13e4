/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections whose end is there when the way to one of their ends is not: nobody is left without word for that. */
#include "ends.h"

#include "silence.h"

#define IDLE_MS 60000

static const uint8_t backend_mac[6] = {2, 0, 0, 0, 3, 1};

static void put_neighbour(enum neighbour_state state)
{
	dataplane_neighbour_update(rig.dp, RIG_LAN, &talk.backend, state, backend_mac);
}

/* Idles, and nobody asks. */
static void begin_idle(bool v6)
{
	begin_rig((struct rig_config){.n_backends = 1});
	rig.service.timeouts.established_ms = IDLE_MS;
	rig.service.timeouts.probe_ms = 0;
	handshake(v6, ISN, PEER, false);
	converse();
}

/* The client hears at once, the backend when it is back; then both may ask back as ever. */
static void test_told_later(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct sent s;

		begin_idle(v6);
		put_neighbour(NEIGHBOUR_GONE);
		pass_ms(IDLE_MS + 200);
		take_right(&s);
		check_reset(&s, DIR_DOWN, ends[DIR_DOWN].next);
		pass_ms(3000);
		take_none();
		put_neighbour(NEIGHBOUR_USABLE);
		pass_ms(1200);
		take_right(&s);
		check_reset(&s, DIR_UP, ends[DIR_UP].next);
		pass_ms(4000);
		take_none();
		assert_int_equal(only_state(v6), FLOW_RESETTING);
		pass_ms(1500);
		take_none();
		assert_int_equal(n_flows(), 0);
		assert_int_equal(rig.worker->ledger.made[MADE_rst_idle], 1);
		assert_int_equal(rig.worker->ledger.made[MADE_rst_later], 1);
		assert_int_equal(did(ACTION_rst_idle), 1);
		assert_int_equal(did(ACTION_rst_untold), 0);
		stop();
	}
}

/* It never comes back: the flow ends all the same, and that somebody was not told is counted. */
static void test_untold(void **state)
{
	struct sent s;

	begin_idle(false);
	put_neighbour(NEIGHBOUR_GONE);
	pass_ms(IDLE_MS + 9500);
	take_right(&s);
	assert_int_equal(n_flows(), 1);
	pass_ms(2000);
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(rig.worker->ledger.made[MADE_rst_idle], 1);
	assert_int_equal(did(ACTION_rst_idle), 1);
	assert_int_equal(did(ACTION_rst_untold), 1);
	stop();
}

/* The dead one's neighbour is gone with it: its peer hears at once all the same. */
static void test_peer_dead(void **state)
{
	struct sent s;

	begin_rig((struct rig_config){.n_backends = 1});
	handshake(true, ISN, PEER, true);
	converse();
	await_probes();
	answer_probe(DIR_UP);
	for (int i = 1; i < PROBES; i++)
		await_one_probe(DIR_UP);
	put_neighbour(NEIGHBOUR_GONE);
	pass_ms(PROBE_EVERY_MS + 500);
	take_right(&s);
	check_reset(&s, DIR_DOWN, ends[DIR_DOWN].next);
	pass_ms(11000);
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(did(ACTION_rst_peer_dead), 1);
	assert_int_equal(did(ACTION_rst_untold), 1);
	stop();
}

/* The way opens to many at once: no more of them are told than the limit on ends allows. */
static void test_pace(void **state)
{
	struct sent s;

	begin_idle(false);
	put_neighbour(NEIGHBOUR_GONE);
	pass_ms(IDLE_MS + 200);
	put_neighbour(NEIGHBOUR_USABLE);
	for (int ms = 0; ms < 3000; ms += 40) {
		use_up_ends();
		pass_ms(40);
	}
	assert_int_equal(rig.worker->ledger.made[MADE_rst_later], 0);
	pass_ms(2000);
	assert_int_equal(rig.worker->ledger.made[MADE_rst_later], 1);
	take_right(&s);
	take_right(&s);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told_later),
		cmocka_unit_test(test_untold),
		cmocka_unit_test(test_peer_dead),
		cmocka_unit_test(test_pace),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
