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

/* What an older acknowledgement said of it, overtaken on the way, closes no window. */
static void test_old_window(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	ends[DIR_UP].window = 1;
	feed_numbers(DIR_UP, TCP_ACK, ends[DIR_UP].next, ends[DIR_DOWN].next - 100, 0);
	passes(DIR_UP);
	feed(RIG_LAN, spec_of(DIR_DOWN, TCP_RST, ends[DIR_DOWN].next + 1000, 0));
	passes(DIR_DOWN);
	say(DIR_UP, TCP_ACK, 0);
	refused(RIG_LAN, spec_of(DIR_DOWN, TCP_RST, ends[DIR_DOWN].next + 1000, 0), VERDICT_drop_rst_window);
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

/* --- forged: within what windows may become, and beyond what they are --- */

#define FAR (7u << 20) /* the true windows are 501 << SCALE and 227 << SCALE */

/* Data that its receiver has no room for, and acknowledges next to nothing. */
static void forge(enum flow_dir dir, uint8_t flags, uint16_t len)
{
	feed_numbers(dir, flags, ends[dir].next + FAR, ends[!dir].next - FAR, len);
	passes(dir);
	assert_int_equal(rig.worker->out_of_window, 0);
}

/* A RST right behind the forged data continues nothing; one behind data that is under way does. */
static void test_forged_train(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		for (int v6 = 0; v6 < 2; v6++) {
			begin_rig((struct rig_config){0});
			handshake(v6, ISN, PEER, true);
			converse();
			forge(dir, TCP_ACK | TCP_PSH, 10);
			refused(port_of[dir], spec_of(dir, TCP_RST, ends[dir].next + FAR + 10, 0),
				VERDICT_drop_rst_window);
			assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
			stop();
			begin_rig((struct rig_config){0});
			handshake(v6, ISN, PEER, true);
			converse();
			say(dir, TCP_ACK | TCP_PSH, 1000);
			say(dir, TCP_RST, 0);
			assert_int_equal(only_state(v6), FLOW_CLOSED);
			stop();
		}
}

/* Nor does an acknowledgement of what was never sent make a RST of that number fit. */
static void test_forged_acknowledgement(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		begin_rig((struct rig_config){0});
		handshake(false, ISN, PEER, true);
		converse();
		feed_numbers(!dir, TCP_ACK, ends[!dir].next, ends[dir].next + FAR, 0);
		passes(!dir);
		feed(port_of[dir], spec_of(dir, TCP_RST, ends[dir].next + FAR, 0));
		turn();
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
		while (take(&(struct sent){0}))
			;
		stop();
	}
}

static void test_forged_fin(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		begin_rig((struct rig_config){0});
		handshake(false, ISN, PEER, true);
		converse();
		forge(dir, TCP_ACK | TCP_FIN, 0);
		/* And one of long ago. */
		feed_numbers(dir, TCP_ACK | TCP_FIN, ends[dir].next - 50, ends[!dir].next, 0);
		passes(dir);
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
		/* The true ones come behind data that fills the window. */
		say(dir, TCP_ACK, 227);
		say(dir, TCP_ACK | TCP_FIN, 0);
		assert_int_equal(only_state(false), FLOW_FIN_WAIT);
		say(!dir, TCP_ACK | TCP_FIN, 0);
		assert_int_equal(only_state(false), FLOW_LAST_ACK);
		stop();
	}
}

/* A FIN needs no room: its receiver may have said that it has none left (RFC 9293 3.8.6.1). */
static void test_fin_into_closed_window(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	converse();
	ends[DIR_UP].window = 0;
	say(DIR_UP, TCP_ACK, 0);
	say(DIR_DOWN, TCP_ACK | TCP_FIN, 0);
	assert_int_equal(only_state(false), FLOW_FIN_WAIT);
	stop();
}

/* The connection idles as any other: both ends are asked with numbers that they know, and the answers end here. */
static void test_forged_data_and_silence(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		begin_rig((struct rig_config){0});
		handshake(false, ISN, PEER, true);
		converse();
		forge(dir, TCP_ACK | TCP_PSH, 10);
		for (int i = 0; i < 20; i++) {
			await_probes();
			answer_probe(dir);
			answer_probe(!dir);
		}
		converse();
		assert_int_equal(only_state(false), FLOW_ESTABLISHED);
		stop();
	}
}

/* And when it ends, each end hears the number that it expects. */
static void test_forged_data_and_end(void **state)
{
	begin_rig((struct rig_config){0});
	rig.service.timeouts.probe_ms = 0;
	rig.service.timeouts.established_ms = 20000;
	handshake(false, ISN, PEER, true);
	converse();
	forge(DIR_UP, TCP_ACK | TCP_PSH, 10);
	forge(DIR_DOWN, TCP_ACK | TCP_PSH, 10);
	await_made(21000);
	check_resets();
	stop();
}

/* --- RSTs that were not taken --- */

static void reset_by(enum flow_dir dir)
{
	feed(port_of[dir], spec_of(dir, TCP_RST, ends[dir].next, 0));
	passes(dir);
	assert_int_equal(only_state(talk.v6), FLOW_CLOSED);
}

static void begin_reset(bool v6, enum flow_dir dir)
{
	begin_rig((struct rig_config){0});
	handshake(v6, ISN, PEER, true);
	converse();
	reset_by(dir);
}

/* Who should have taken it goes on: what was under way says nothing, what comes later does. */
static void test_outlived_reset(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		for (int v6 = 0; v6 < 2; v6++) {
			begin_reset(v6, dir);
			pass_ms(900);
			say(!dir, TCP_ACK | TCP_PSH, 10);
			assert_int_equal(only_state(v6), FLOW_CLOSED);
			pass_ms(200);
			say(!dir, TCP_ACK | TCP_PSH, 10);
			assert_int_equal(only_state(v6), FLOW_ESTABLISHED);
			say(dir, TCP_ACK, 0);
			await_probes();
			/* The next one counts as the first did. */
			answer_probe(DIR_UP);
			reset_by(dir);
			pass_ms(10300);
			assert_int_equal(n_flows(), 0);
			stop();
		}
}

/* Neither its sender's own packets nor those of who was reset, too, say that anybody took none. */
static void test_reset_is_the_end(void **state)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		begin_reset(false, dir);
		pass_ms(2000);
		say(dir, TCP_ACK | TCP_PSH, 10);
		assert_int_equal(only_state(false), FLOW_CLOSED);
		feed(port_of[!dir], spec_of(!dir, TCP_RST, ends[!dir].next, 0));
		passes(!dir);
		pass_ms(2000);
		say(!dir, TCP_ACK | TCP_PSH, 10);
		assert_int_equal(only_state(false), FLOW_CLOSED);
		stop();
	}
}

/* It goes on as what it was. */
static void test_outlived_reset_half_closed(void **state)
{
	begin_rig((struct rig_config){0});
	handshake(false, ISN, PEER, true);
	say(DIR_UP, TCP_ACK | TCP_FIN, 0);
	say(DIR_DOWN, TCP_ACK, 0);
	reset_by(DIR_UP);
	pass_ms(1100);
	say(DIR_DOWN, TCP_ACK | TCP_PSH, 10);
	assert_int_equal(only_state(false), FLOW_FIN_WAIT);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rst_window),
		cmocka_unit_test(test_old_window),
		cmocka_unit_test(test_out_of_window),
		cmocka_unit_test(test_in_window),
		cmocka_unit_test(test_forged_train),
		cmocka_unit_test(test_forged_acknowledgement),
		cmocka_unit_test(test_forged_fin),
		cmocka_unit_test(test_fin_into_closed_window),
		cmocka_unit_test(test_forged_data_and_silence),
		cmocka_unit_test(test_forged_data_and_end),
		cmocka_unit_test(test_outlived_reset),
		cmocka_unit_test(test_reset_is_the_end),
		cmocka_unit_test(test_outlived_reset_half_closed),
	};

	if (rig_eal(256, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
