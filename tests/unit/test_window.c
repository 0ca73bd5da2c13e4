/* SPDX-License-Identifier: BSD-3-Clause */
/* What no window holds: it keeps nobody alive and moves no number, and its RSTs end nothing. */
#include "ends.h"

#include <netinet/in.h>

/* --- RSTs that nobody would take --- */

static void check_outside(enum cure_mode mode, uint32_t off)
{
	begin_rig((struct rig_config){0});
	set_mode(mode);
	handshake(false, ISN, PEER, true);
	converse();
	feed(RIG_LAN, spec_of(DIR_DOWN, TCP_RST, ends[DIR_DOWN].next + off, 0));
	if (mode == CURE_ENFORCE)
		turn();
	else
		passes(DIR_DOWN);
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_rst_window), mode == CURE_ENFORCE);
	assert_int_equal(would(ACTION_refuse_rst), mode == CURE_SHADOW);
	assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	stop();
}

static void test_rst_window(void **state)
{
	const uint32_t window = 501 << SCALE;
	const uint32_t inside[] = {1, 1000, window - 1, window};

	for (enum cure_mode mode = CURE_OFF; mode <= CURE_ENFORCE; mode++) {
		check_outside(mode, (uint32_t)-1);
		check_outside(mode, window + 1);
		check_outside(mode, UINT32_C(1) << 31);
	}
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	/* Its receiver asks back; the answer to that is exact. */
	for (unsigned i = 0; i < sizeof(inside) / sizeof(inside[0]); i++) {
		feed(RIG_LAN, spec_of(DIR_DOWN, TCP_RST, ends[DIR_DOWN].next + inside[i], 0));
		passes(DIR_DOWN);
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
	}
	feed(RIG_LAN, spec_of(DIR_DOWN, TCP_RST, ends[DIR_DOWN].next, 0));
	passes(DIR_DOWN);
	assert_int_equal(only_state(false), FLOW_CLOSED);
	stop();
}

/* --- what no window holds --- */

/* It goes on as it is, keeps nobody alive, and moves no number. */
static void test_out_of_window(void **state)
{
	const uint32_t reach = UINT32_C(65536) << SCALE;

	for (enum cure_mode mode = CURE_OFF; mode <= CURE_ENFORCE; mode++) {
		struct sent s;

		begin_rig((struct rig_config){0});
		rig.service.timeouts.established_ms = 40000;
		rig.service.timeouts.probe_ms = 0;
		set_mode(mode);
		handshake(false, ISN, PEER, true);
		converse();
		for (int i = 0; i < 38; i++) {
			uint32_t seq_off = i % 2 ? reach + 1 : 0, ack_off = i % 2 ? 0 : -reach - 1;

			pass_ms(1000);
			feed_numbers(i / 2 % 2, TCP_ACK, ends[i / 2 % 2].next + seq_off,
				     ends[!(i / 2 % 2)].next + ack_off, 0);
			s = passes(i / 2 % 2);
			assert_int_equal(seq(&s), ends[i / 2 % 2].next + seq_off);
		}
		assert_int_equal(rig.worker->out_of_window, 38);
		pass_ms(2300);
		if (mode == CURE_ENFORCE) {
			await_made(1);
			check_resets();
		} else {
			take_none();
			assert_int_equal(n_flows(), 0);
		}
		stop();
	}
}

/* What the widest window allows is right: a whole one lost on the way here, and one sent again. */
static void test_in_window(void **state)
{
	const uint32_t reach = UINT32_C(65536) << SCALE;

	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	feed_numbers(DIR_DOWN, TCP_ACK, ends[DIR_DOWN].next + reach - 10, ends[DIR_UP].next, 10);
	passes(DIR_DOWN);
	ends[DIR_DOWN].next += reach;
	feed_numbers(DIR_UP, TCP_ACK, ends[DIR_UP].next, ends[DIR_DOWN].next, 0);
	passes(DIR_UP);
	feed_numbers(DIR_DOWN, TCP_ACK, ends[DIR_DOWN].next - reach, ends[DIR_UP].next, 0);
	passes(DIR_DOWN);
	assert_int_equal(rig.worker->out_of_window, 0);
	await_probes();
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rst_window),
		cmocka_unit_test(test_out_of_window),
		cmocka_unit_test(test_in_window),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
