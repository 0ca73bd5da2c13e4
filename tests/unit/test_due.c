/* SPDX-License-Identifier: BSD-3-Clause */
/* Flows whose time has come: nobody is left without word because the way was closed at that very moment. */
#include "talk.h"

#define IDLE_MS 60000

static const uint8_t backend_mac[6] = {2, 0, 0, 0, 3, 1};

static uint64_t made(enum made kind)
{
	return rig.worker->ledger.made[kind];
}

static uint64_t did(enum action action)
{
	return rig.worker->ledger.did[action];
}

static struct talk begin_idle(bool v6)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	rig.service.timeouts.established_ms = IDLE_MS;
	t = establish(v6, 3);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &t.backend, NEIGHBOUR_GONE, backend_mac);
	return t;
}

/* The backend's neighbour is gone when the flow ends: the client hears at once, the backend when it is back. */
static void test_told_later(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = begin_idle(v6);
		struct sent s;

		pass_ms(IDLE_MS + 200);
		take_right(&s);
		assert_int_equal(s.port, RIG_WAN);
		take_none();
		assert_int_equal(n_flows(), 1);
		/* Asked for, and told as soon as it is there; the client not again. */
		dataplane_neighbour_update(rig.dp, RIG_LAN, &t.backend, NEIGHBOUR_USABLE, backend_mac);
		pass_ms(1200);
		take_right(&s);
		assert_int_equal(s.port, RIG_LAN);
		assert_int_equal(seq(&s), ISN + 1);
		take_none();
		assert_int_equal(n_flows(), 0);
		assert_int_equal(made(MADE_rst_idle), 2);
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
	pass_ms(IDLE_MS + 9500);
	take_right(&s);
	take_none();
	assert_int_equal(n_flows(), 1);
	pass_ms(2000);
	assert_int_equal(n_flows(), 0);
	assert_int_equal(made(MADE_rst_idle), 1);
	assert_int_equal(did(ACTION_rst_idle), 1);
	assert_int_equal(did(ACTION_rst_untold), 1);
	stop();
}

/* A packet comes before both were told: the flow goes on, and its next end is told to both anew. */
static void test_goes_on_after_all(void **state)
{
	struct talk t = begin_idle(false);
	struct sent s;

	pass_ms(IDLE_MS + 200);
	take_right(&s);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &t.backend, NEIGHBOUR_USABLE, backend_mac);
	s = exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 10));
	assert_int_equal(s.port, RIG_WAN);
	pass_ms(IDLE_MS - 200);
	take_none();
	assert_int_equal(n_flows(), 1);
	pass_ms(2000);
	take_right(&s);
	take_right(&s);
	take_none();
	assert_int_equal(n_flows(), 0);
	assert_int_equal(did(ACTION_rst_idle), 2);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told_later),
		cmocka_unit_test(test_untold),
		cmocka_unit_test(test_goes_on_after_all),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
