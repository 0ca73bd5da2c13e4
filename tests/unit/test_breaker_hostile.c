/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients that would open a breaker, or keep one open, though the backend is well. */
#include "breakers_talk.h"
#include "wall_talk.h"

#include "trial.h"

static void fresh(unsigned workers, unsigned n)
{
	memset(says, 0, sizeof(says));
	asks_nothing = false;
	at_once = 1;
	begin_all(workers, n, CURE_ENFORCE);
}

static struct trial trial_of(bool v6, unsigned backend)
{
	return trial_read(dataplane_trial(rig.dp, slot_of_backend(v6, backend)));
}

/* The first backend refuses, is opened, and answers its probes. */
static void half_open(bool v6, unsigned *client)
{
	says[1] = REFUSES;
	for (unsigned i = 0; state_of(v6, 1) != BREAKER_OPEN; i++) {
		run(v6, client, 10, 10);
		assert_true(i < 200);
	}
	says[1] = ANSWERS;
	run(v6, client, 3500, 0);
	assert_int_equal(state_of(v6, 1), BREAKER_HALF_OPEN);
}

/* No backend answers a SYN that is damaged: whoever sends one, in whose name ever, does not try a half-open one. */
static void damaged_trial(bool v6, unsigned workers)
{
	uint8_t frame[FRAME_MAX];
	unsigned client = 0;

	fresh(workers, 1);
	half_open(v6, &client);
	for (unsigned i = 0; i < 30; i++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 1000 + i};
		size_t len = make_syn(frame, &t, 0, NULL, 0);

		frame[ETH + (v6 ? 40 : 20) + 16] ^= 1;
		feed_raw(RIG_WAN, 0, frame, len);
		pass(100);
		for (struct sent s; take(&s);)
			;
	}
	assert_int_equal(state_of(v6, 1), BREAKER_HALF_OPEN);
	assert_int_equal(trial_of(v6, 1).phase, TRIAL_FREE);
	run(v6, &client, 500, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	end_all();
}

static void test_damaged_trial(void **state)
{
	each_way(damaged_trial);
}

/* What of a request no backend that lives answers. */
enum oddity { DAMAGED, SHORT_LIVED, SIGNED, ACKS_WHAT_WAS_NOT_SENT, ODDITIES };

static void feed_odd(const struct talk *t, enum oddity how)
{
	struct frame_spec spec = with_payload(
		from_client(t, TCP_ACK, ISN + 1, PEER + 1 + (how == ACKS_WHAT_WAS_NOT_SENT ? 100 : 0)), 120);
	uint8_t frame[FRAME_MAX], *ip = frame + ETH, *tcp = ip + (t->v6 ? 40 : 20);
	size_t len = frame_make(&spec, frame);

	if (how == DAMAGED) {
		tcp[16] ^= 1;
	} else if (how == SHORT_LIVED) {
		ip[t->v6 ? 7 : 8] = 3;
		if (!t->v6)
			frame_fix_ip4(ip);
	} else if (how == SIGNED) {
		memcpy(tcp + 20, (uint8_t[20]){19, 18}, 20);
		tcp[12] = 10 << 4;
		fix_tcp(frame, t->v6);
	}
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	for (struct sent s; take(&s);)
		;
}

/* One client, alone with a backend that has nothing to say: its connections do not make that look dead. */
static void odd_stalls(bool v6, unsigned workers)
{
	for (enum oddity how = 0; how < ODDITIES; how++) {
		struct talk t[8];

		begin_rig(workers, 1);
		for (unsigned i = 0; i < 8; i++)
			t[i] = establish(v6, i + 1);
		pass_ms(2000);
		for (unsigned sent = 0; sent < 5; sent++) {
			for (unsigned i = 0; i < 8; i++)
				feed_odd(&t[i], how);
			pass_ms(400);
		}
		assert_int_equal(streak_of(v6, &t[0].backend).state, BREAKER_CLOSED);
		assert_int_equal(streak_of(v6, &t[0].backend).failures[CONNECT_STALLED], 0);
		stop();
	}
}

static void test_odd_stalls(void **state)
{
	each_way(odd_stalls);
}

/* One that could not be read, and then two that could, at once: it had no time to answer. */
static void test_late_stall(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	pass_ms(2000);
	feed_odd(&t, DAMAGED);
	pass_ms(2000);
	for (unsigned i = 0; i < 2; i++)
		feed(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), 120));
	turn();
	take_all();
	assert_int_equal(streak_of(false, &t.backend).failures[CONNECT_STALLED], 0);
	stop();
}

/* Flows of `n` networks, connected to the only backend, that ask nothing yet. */
static void connect_from(bool v6, unsigned n)
{
	asks_nothing = true;
	for (unsigned i = 0; i < n; i++)
		feed(RIG_WAN, from_client(&(struct talk){.v6 = v6, .proto = PROTO_TCP, .client = (i + 1) * 256},
					  TCP_SYN, ISN, 0));
	pass(10);
	for (unsigned i = 0; i < 4; i++) {
		talk_back();
		turn();
	}
	asks_nothing = false;
	for (unsigned i = 0; i < n; i++)
		feed(RIG_WAN, from_client(&(struct talk){.v6 = v6, .proto = PROTO_TCP, .client = (i + 1) * 256},
					  TCP_ACK, ISN + 1, PEER + 1));
	turn();
	talk_back();
}

/* They ask, and what they ask resets them: it has been restarted, and does not know them. */
static void ask_again(bool v6, unsigned n)
{
	says[1] = RESETS;
	for (unsigned i = 0; i < n; i++)
		feed(RIG_WAN,
		     with_payload(from_client(&(struct talk){.v6 = v6, .proto = PROTO_TCP, .client = (i + 1) * 256},
					      TCP_ACK, ISN + 1, PEER + 1),
				  10));
	turn();
	assert_int_equal(talk_back().rsts, 0);
	turn();
	assert_int_equal(talk_back().rsts, n);
	says[1] = ANSWERS;
	pass(200);
}

/* What began before it was opened, and is reset now, is of another life: half-open, in the ramp, or closed. */
static void old_flows(bool v6, unsigned workers)
{
	unsigned client = 1;

	fresh(workers, 1);
	connect_from(v6, 40);
	half_open(v6, &client);
	ask_again(v6, 1);
	assert_int_equal(state_of(v6, 1), BREAKER_HALF_OPEN);
	run(v6, &client, 200, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	end_all();

	fresh(workers, 1);
	connect_from(v6, 40);
	half_open(v6, &client);
	run(v6, &client, 200, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	ask_again(v6, 40);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	end_all();
}

static void test_old_flows(void **state)
{
	each_way(old_flows);
}

/* What opened it is settled: one client's reset in the ramp does not call it up again. */
static void test_old_window(void **state)
{
	unsigned client = 5000;

	fresh(1, 1);
	says[1] = REFUSES;
	for (unsigned i = 0; i < 40; i++)
		feed(RIG_WAN,
		     from_client(&(struct talk){.proto = PROTO_TCP, .client = (i % 5 + 1) * 256 + i}, TCP_SYN, ISN, 0));
	turn();
	talk_back();
	turn();
	pass(10);
	talk_back();
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	says[1] = ANSWERS;
	run(false, &client, 3500, 0);
	run(false, &client, 100, 10);
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	says[1] = RESETS;
	run(false, &client, 10, 10);
	says[1] = ANSWERS;
	run(false, &client, 300, 10);
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	end_all();
}

/* that there is no other backend is no reason to send a half-open one more than the flow that tries it. */
static void alone_half_open(bool v6, unsigned workers)
{
	unsigned client = 0;

	fresh(workers, 1);
	half_open(v6, &client);
	asks_nothing = true;
	assert_int_equal(run(v6, &client, 900, 10).syns[1], 1);
	assert_int_equal(trial_of(v6, 1).phase, TRIAL_IDLE);
	end_all();
}

static void test_alone_half_open(void **state)
{
	each_way(alone_half_open);
}

/* However long responses take: who asks nothing has the place for a second, who asks for half a minute. */
static void test_long_trials(void **state)
{
	unsigned client = 0;

	fresh(1, 2);
	half_open(false, &client);
	rig.dp->workers[0]->signals.counts[slot_of_backend(false, 1)].first_byte_us16 = 16 * 60 * 1000000u;
	asks_nothing = true;
	assert_in_range(run(false, &client, 3000, 10).syns[1], 2, 4);
	asks_nothing = false;
	says[1] = STALLS;
	run(false, &client, 28000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_HALF_OPEN);
	run(false, &client, 4000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	end_all();
}

/* A whole side falls silent while one of it is in the ramp: there it stays, and marked, until an answer comes. */
static void side_in_ramp(bool v6, unsigned workers)
{
	unsigned client = 0;

	fresh(workers, 3);
	half_open(v6, &client);
	run(v6, &client, 2000, 10);
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	run(v6, &client, 18000, 10);
	says[1] = says[2] = says[3] = SILENT;
	run(v6, &client, 3000, 10);
	for (unsigned i = 1; i <= 3; i++)
		assert_true(is_marked(v6, i));
	assert_int_equal(state_of(v6, 1), BREAKER_RAMP);
	run(v6, &client, 40000, 10);
	for (unsigned i = 1; i <= 3; i++)
		assert_true(is_marked(v6, i));
	end_all();
}

static void test_side_in_ramp(void **state)
{
	each_way(side_in_ramp);
}

/* Workers opened it from the ramp, or the flow that tries it waits: then its side is found to be silent. */
static void test_side_takes_back(void **state)
{
	unsigned client = 0;

	for (enum breaker_state was = BREAKER_HALF_OPEN; was <= BREAKER_RAMP; was++) {
		fresh(1, 3);
		half_open(false, &client);
		run(false, &client, was == BREAKER_RAMP ? 2000 : 0, 10);
		says[1] = says[2] = says[3] = SILENT;
		for (unsigned i = 0; i < 60 && state_of(false, 1) != BREAKER_OPEN; i++)
			run(false, &client, 10, 10);
		run(false, &client, 2000, 10);
		for (unsigned i = 1; i <= 3; i++)
			assert_true(is_marked(false, i));
		assert_int_equal(state_of(false, 1), was);
		end_all();
	}
}

/* The wall is put into shadow while it is half-open: where nobody keeps flows from it, nobody tries it. */
static void test_half_open_in_shadow(void **state)
{
	unsigned client = 0;

	fresh(1, 2);
	half_open(false, &client);
	f.mode = CURE_SHADOW;
	configure(2, 5);
	run(false, &client, 300, 10);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	f.mode = CURE_ENFORCE;
	configure(2, 5);
	assert_in_range(run(false, &client, 1000, 10).syns[1], 20, 80);
	assert_int_equal(state_of(false, 1), BREAKER_CLOSED);
	end_all();
}

static void put_wall(enum cure_mode mode)
{
	f.mode = mode;
	configure(1, 5);
	decide();
}

/* Off and on again: an operator's word stands. */
static void test_off_and_on(void **state)
{
	fresh(1, 1);
	assert_int_equal(breakers_force(f.breakers, id_of(false, 1), FORCE_OPEN, f.mode, rig.now_ns), 0);
	put_wall(CURE_OFF);
	breakers_note(f.breakers, slot_of_backend(false, 1));
	decide();
	put_wall(CURE_ENFORCE);
	assert_int_equal(state_of(false, 1), BREAKER_OPEN);
	end_all();
}

/* an end and a new beginning in one burst go past no breaker. */
static void again_at_once(bool v6, unsigned workers)
{
	struct talk t;

	for (enum breaker_state st = BREAKER_CLOSED; st < BREAKER_STATES; st++) {
		bool taken = st == BREAKER_CLOSED || st == BREAKER_RAMP;
		struct sent s;

		begin_rig(workers, 1);
		t = establish(v6, 3);
		set_breaker(v6, 0, st);
		feed(RIG_WAN, from_client(&t, TCP_RST | TCP_ACK, ISN + 1, PEER + 1));
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN + 90000, 0));
		turn();
		take_right(&s);
		take_right(&s);
		take_none();
		assert_int_equal(did(ACTION_refuse_open), !taken);
		assert_int_equal(verdicts(VERDICT_answer_wall_open), !taken);
		stop();
	}
}

static void test_again_at_once(void **state)
{
	each_way(again_at_once);
}

/* A backend that takes uploads and never says a word: that it takes connections again is enough. */
static void test_never_answers(void **state)
{
	unsigned client = 0;

	fresh(1, 2);
	says[1] = says[2] = SLOW;
	run(false, &client, 1000, 10);
	half_open(false, &client);
	says[1] = SLOW;
	run(false, &client, 4000, 10);
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	end_all();
}

/* One network holds the place for nothing, a hundred times a second: others have it all the same. */
static void test_place_holders(void **state)
{
	unsigned idle = 0, other = 256;

	fresh(1, 1);
	half_open(false, &other);
	for (unsigned i = 0; i < 40 && state_of(false, 1) == BREAKER_HALF_OPEN; i++) {
		asks_nothing = true;
		run(false, &idle, 480, 10);
		asks_nothing = trial_of(false, 1).phase == TRIAL_IDLE;
		run(false, &other, 20, 20);
		idle %= 200;
	}
	assert_int_equal(state_of(false, 1), BREAKER_RAMP);
	end_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_trial),   cmocka_unit_test(test_odd_stalls),
		cmocka_unit_test(test_old_flows),       cmocka_unit_test(test_old_window),
		cmocka_unit_test(test_late_stall),      cmocka_unit_test(test_alone_half_open),
		cmocka_unit_test(test_long_trials),     cmocka_unit_test(test_side_in_ramp),
		cmocka_unit_test(test_side_takes_back), cmocka_unit_test(test_half_open_in_shadow),
		cmocka_unit_test(test_off_and_on),      cmocka_unit_test(test_again_at_once),
		cmocka_unit_test(test_never_answers),   cmocka_unit_test(test_place_holders),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
