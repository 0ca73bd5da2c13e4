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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_trial),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
