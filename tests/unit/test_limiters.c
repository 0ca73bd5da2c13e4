/* SPDX-License-Identifier: BSD-3-Clause */
/* What decide makes of workers' counts: the limits that they see, what is told of it, and when it is forgotten. */
#include "breakers_talk.h"

#include "limiters.h"
#include "view.h"

#include <errno.h>

#define TICK   LIMITER_TICK_NS
#define IT     2 /* backend, by number; there is a configuration without it */
#define SECOND 1000000000ull

static struct limiters *limiters;

static void begin_limiters(enum cure_mode storm)
{
	begin_all(1, 2, CURE_ENFORCE);
	f.config->cures.of[CURE_STORM] = storm;
	limiters = limiters_create(rig.dp, f.services, f.events, &(struct limiters_config){N_SLOTS, 4});
	assert_non_null(limiters);
}

static void end_limiters(void)
{
	limiters_destroy(limiters);
	end_all();
}

static struct signal_counts *counts(void)
{
	return &rig.worker->signals.counts[slot_of_backend(false, IT)];
}

static void tick(void)
{
	rig.now_ns += TICK;
	limiters_tick(limiters, &f.config->cures, rig.now_ns);
}

/* Ticks in each of which `n` responses come after `ms`, while so much is under way. */
static void ticks(unsigned n_ticks, unsigned n, unsigned ms, uint32_t open)
{
	struct signal_counts *c = counts();

	for (unsigned i = 0; i < n_ticks; i++) {
		c->answered += n;
		c->timed += n;
		c->timed_us += n * ms * 1000;
		c->open = open;
		tick();
	}
}

static const struct service_shared *service(void)
{
	return &rig.dp->cells.services[0];
}

static uint32_t limit(void)
{
	uint32_t word = rig.dp->cells.backends[slot_of_backend(false, IT)].limit;

	assert_int_equal(word & LIMIT_CONGESTED, service()->n_congested ? LIMIT_CONGESTED : 0);
	return word & ~LIMIT_CONGESTED;
}

static void said_of(const char *id, const char *kind, const char *words)
{
	struct event_record e;

	assert_true(next_event_of("storm", &e));
	assert_string_equal(e.kind, kind);
	assert_string_equal(e.subject, id);
	if (!strstr(e.text, words))
		fail_msg("expected '%s' in '%s'", words, e.text);
}

static void said(const char *kind, const char *words)
{
	said_of(id_of(false, IT), kind, words);
}

static void nothing_said(void)
{
	struct event_record e;

	if (next_event_of("storm", &e))
		fail_msg("%s: %s", e.kind, e.text);
}

/* No service has it any more, and its slot is free. */
static void take_out(void)
{
	configure(1, 5);
	turn();
	services_reap(f.services);
	tick();
}

static void put_back(void)
{
	configure(2, 5);
}

/* The counts belong to nobody when the test is over. */
static void calm_down(void)
{
	memset(counts(), 0, sizeof(*counts()));
}

/* Of services that share a backend and cap it; without any there is none. */
static void test_lowest_cap(void **state)
{
	const struct backend_shared *shared;
	struct gcra_rate agreed;

	more_yaml = "    storm: {backend_rate: 100/s}\n"
		    "  - name: other\n"
		    "    listen: [\"198.18.100.1:81/tcp\"]\n"
		    "    backends: [{address: 198.18.3.2, port: 8080}]\n"
		    "    storm: {backend_rate: 5/s, backend_burst: 7}\n";
	begin_limiters(CURE_ENFORCE);
	tick();
	shared = &rig.dp->cells.backends[slot_of_backend(false, IT)];
	assert_int_equal(shared->cap.interval, (SECOND << GCRA_FRACTION_BITS) / 5);
	assert_int_equal(shared->cap.tolerance, (SECOND << GCRA_FRACTION_BITS) / 5 * 7);
	assert_int_equal(shared->cap.window, gcra_rate_of(shared->cap.interval, 7).window);
	shared = &rig.dp->cells.backends[slot_of_backend(false, IT - 1)];
	assert_int_equal(shared->cap.interval, (SECOND << GCRA_FRACTION_BITS) / 100);
	more_yaml = "    storm: {backend_rate: 10/s}\n"
		    "  - name: other\n"
		    "    listen: [\"198.18.100.1:81/tcp\"]\n"
		    "    backends: [{address: 198.18.3.2, port: 8080}]\n"
		    "    storm: {backend_rate: 50/s, backend_burst: 3}\n";
	configure(2, 5);
	limiters_meet(limiters, &f.config->cures, rig.now_ns);
	agreed = rig.dp->cells.backends[slot_of_backend(false, IT)].cap;
	assert_int_equal(agreed.interval, (SECOND << GCRA_FRACTION_BITS) / 10);
	assert_int_equal(agreed.tolerance, 3 * agreed.interval);
	more_yaml = "";
	configure(2, 5);
	tick();
	assert_int_equal(shared->cap.interval, 0);
	/* Nor once the cure is off. */
	more_yaml = "    storm: {backend_rate: 10/s}\n";
	configure(2, 5);
	tick();
	more_yaml = "";
	assert_true(shared->cap.interval > 0);
	f.config->cures.of[CURE_STORM] = CURE_OFF;
	tick();
	assert_int_equal(shared->cap.interval, 0);
	end_limiters();
}

static void test_congested(void **state)
{
	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 20, 8);
	/* It is known, the others are not yet: for them, D is longer. */
	assert_int_equal(limit(), LIMITER_WINDOW_MIN);
	assert_int_equal(rig.dp->cells.backends[slot_of_backend(false, IT - 1)].limit, LIMITER_WINDOW_MIN | LIMIT_SOFT);
	assert_int_equal(service()->hold_ms, 700);
	assert_int_equal(service()->n_limits, 4);
	assert_int_equal(service()->n_congested, 0);
	assert_int_equal(service()->pace_interval, 0);
	nothing_said();
	ticks(1, 40, 200, 80);
	assert_int_equal(limit(), 400 * 140 / 1000);
	/* A quarter of what a second leaves beside 140 ms. */
	assert_int_equal(service()->hold_ms, 215);
	assert_int_equal(service()->pace_interval, (UINT64_C(1000000000) << GCRA_FRACTION_BITS) / 360);
	assert_int_equal(service()->n_congested, 1);
	said("limiting",
	     "first bytes take 200.0 ms (usually 20.0), 400 answers a second at the most, 80 under way: at most 56");
	ticks(12, 40, 20, 8);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN);
	assert_int_equal(service()->n_congested, 0);
	said("limit_over", "it may have 64 at once");
	/* Whoever waits still goes one by one, for ten seconds. */
	assert_true(service()->pace_interval > 0);
	ticks(101, 40, 20, 8);
	assert_int_equal(service()->pace_interval, 0);
	nothing_said();
	calm_down();
	end_limiters();
}

/* A herd may be there before the first tick. */
static void test_meets(void **state)
{
	begin_limiters(CURE_ENFORCE);
	assert_int_equal(limit(), 0);
	limiters_meet(limiters, &f.config->cures, rig.now_ns);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN | LIMIT_SOFT);
	assert_int_equal(service()->n_limits, 4);
	/* Those that are known are left alone, though the next tick will limit this one. */
	ticks(11, 0, 0, 100);
	counts()->gave_up += LIMITER_MIN;
	rig.now_ns += TICK;
	limiters_meet(limiters, &f.config->cures, rig.now_ns);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN | LIMIT_SOFT);
	configure(1, 5);
	limiters_meet(limiters, &f.config->cures, rig.now_ns);
	configure(2, 5);
	limiters_meet(limiters, &f.config->cures, rig.now_ns);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN | LIMIT_SOFT);
	nothing_said();
	ticks(1, 0, 0, 100);
	assert_int_equal(limit(), LIMITER_MIN);
	said("limiting", "it answers nothing");
	nothing_said();
	calm_down();
	end_limiters();
}

/* One that is limited every other second is not told of each time. */
static void test_told_now_and_then(void **state)
{
	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 20, 8);
	for (int i = 0; i < 4; i++) {
		ticks(1, 40, 200, 80);
		ticks(12, 40, 20, 8);
	}
	said("limiting", "at most");
	said("limit_over", "at once");
	nothing_said();
	ticks(100, 40, 20, 8);
	ticks(1, 40, 200, 80);
	said("limiting", "; it was limited 3 times more since the last that was told");
	calm_down();
	end_limiters();
}

/* One that begins soon after the last that was told is told when it lasts. */
static void test_told_when_it_lasts(void **state)
{
	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 20, 8);
	ticks(1, 40, 200, 80);
	ticks(29, 40, 20, 8);
	said("limiting", "at most");
	said("limit_over", "at once");
	ticks(1, 40, 200, 80);
	ticks(12, 40, 20, 8);
	ticks(57, 40, 200, 80);
	nothing_said();
	ticks(1, 40, 200, 80);
	said("limiting", "; it was limited 1 times more since the last that was told");
	ticks(300, 40, 200, 80);
	nothing_said();
	ticks(12, 40, 20, 8);
	said("limit_over", "at once");
	ticks(100, 40, 20, 8);
	ticks(1, 40, 200, 80);
	said("limiting", "80 under way: at most 56");
	calm_down();
	end_limiters();
}

static void all_ticks(unsigned n_ticks, unsigned n, unsigned ms, uint32_t open)
{
	for (unsigned i = 0; i < n_ticks; i++) {
		for (unsigned slot = 0; slot < N_SLOTS; slot++) {
			struct signal_counts *c = &rig.worker->signals.counts[slot];

			c->answered += n;
			c->timed += n;
			c->timed_us += n * ms * 1000;
			c->open = open;
		}
		tick();
	}
}

static unsigned count_said(const char *kind)
{
	struct event_record e;
	unsigned n = 0;

	while (next_event_of("storm", &e)) {
		assert_string_equal(e.kind, kind);
		n++;
	}
	return n;
}

/* Of all that are limited at once some are told now, and the others later: others have something to tell, too. */
static void test_many_at_once(void **state)
{
	begin_limiters(CURE_ENFORCE);
	configure(8, 5);
	all_ticks(100, 40, 20, 8);
	rig.now_ns += SECOND - rig.now_ns % SECOND - TICK;
	all_ticks(9, 40, 200, 80);
	assert_int_equal(count_said("limiting"), 10);
	all_ticks(1, 40, 200, 80);
	assert_int_equal(count_said("limiting"), 0);
	all_ticks(1, 40, 200, 80);
	assert_int_equal(count_said("limiting"), 6);
	/* So with the end, which all hear of once. */
	rig.now_ns += SECOND - rig.now_ns % SECOND - TICK;
	all_ticks(20, 40, 20, 8);
	assert_int_equal(count_said("limit_over"), 10);
	all_ticks(1, 40, 20, 8);
	assert_int_equal(count_said("limit_over"), 6);
	all_ticks(100, 40, 20, 8);
	nothing_said();
	memset(rig.worker->signals.counts, 0, N_SLOTS * sizeof(rig.worker->signals.counts[0]));
	end_limiters();
}

static void test_many_impatient(void **state)
{
	begin_limiters(CURE_ENFORCE);
	configure(8, 5);
	rig.now_ns += SECOND - rig.now_ns % SECOND - TICK;
	all_ticks(10, 40, 300, 120);
	assert_int_equal(count_said("client_timeout_short"), 10);
	all_ticks(1, 40, 300, 120);
	assert_int_equal(count_said("client_timeout_short"), 6);
	memset(rig.worker->signals.counts, 0, N_SLOTS * sizeof(rig.worker->signals.counts[0]));
	end_limiters();
}

static void test_shadow_and_off(void **state)
{
	begin_limiters(CURE_SHADOW);
	ticks(100, 40, 20, 8);
	ticks(1, 40, 200, 80);
	/* Workers ask the mode, and count. */
	assert_int_equal(limit(), 56);
	said("limiting", "(shadow: it gets more all the same)");
	f.config->cures.of[CURE_STORM] = CURE_OFF;
	ticks(1, 40, 200, 80);
	assert_int_equal(limit(), 0);
	assert_int_equal(service()->n_limits, 0);
	assert_int_equal(service()->pace_interval, 0);
	/* What was known is of another time. */
	f.config->cures.of[CURE_STORM] = CURE_ENFORCE;
	ticks(1, 40, 200, 80);
	assert_true(limit() & LIMIT_SOFT);
	nothing_said();
	calm_down();
	end_limiters();
}

static bool is_limiting_in_view(bool v6, unsigned backend)
{
	const uint32_t slot = slot_of_backend(v6, backend);
	struct view *view = calloc(1, sizeof(*view));
	int limiting = -1;

	assert_int_equal(services_view(f.services, view), 0);
	limiters_view(limiters, view, rig.now_ns, rig.now_ns);
	for (size_t i = 0; i < view->n_backends; i++)
		if (view->backends[i].slot == slot)
			limiting = view->backends[i].limiter.limiting;
	view_free(view);
	assert_in_range(limiting, 0, 1);
	return limiting;
}

/* One that no service names any more is left alone, with what it still has: nobody is limited there. */
static void test_removed(void **state)
{
	uint32_t slot;

	begin_limiters(CURE_ENFORCE);
	slot = slot_of_backend(false, 2);
	ticks(11, 0, 0, 100);
	counts()->gave_up += LIMITER_MIN;
	ticks(1, 0, 0, 100);
	assert_int_equal(rig.dp->cells.backends[slot].limit & LIMIT_WORK, LIMITER_MIN);
	assert_true(is_limiting_in_view(false, 2));
	said("limiting", "it answers nothing");
	configure(1, 5);
	tick();
	assert_int_equal(rig.dp->cells.backends[slot].limit, 0);
	assert_false(is_limiting_in_view(false, 2));
	said("limit_over", "no service names it any more");
	/* Named again, it is what it was. */
	rig.now_ns += 10 * SECOND;
	configure(2, 5);
	tick();
	assert_true(is_limiting_in_view(false, 2));
	said("limiting", "at most 16");
	nothing_said();
	calm_down();
	end_limiters();
}

/* Between two ticks its flows ended as well, and its slot is free. */
static void test_gone_while_limited(void **state)
{
	char id[SLOT_ID_STRLEN];

	begin_limiters(CURE_ENFORCE);
	snprintf(id, sizeof(id), "%s", id_of(false, IT));
	ticks(100, 40, 20, 8);
	ticks(1, 40, 200, 80);
	said("limiting", "at most 56");
	calm_down();
	take_out();
	said_of(id, "limit_over", "no service names it any more");
	put_back();
	ticks(1, 0, 0, 0);
	assert_int_equal(service()->hold_ms, 700);
	nothing_said();
	end_limiters();
}

/* Its clients wait for less than it takes. */
static void test_impatient(void **state)
{
	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 300, 120);
	said("client_timeout_short", "a first byte usually takes 300 ms: with clients that wait for 1000 ms");
	nothing_said();
	calm_down();
	end_limiters();
}

/* Gone from DNS and its slot with it, it is the same backend when it comes back, unless that takes too long. */
static void test_comes_back(void **state)
{
	char id[SLOT_ID_STRLEN];

	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 20, 8);
	calm_down();
	take_out();
	rig.now_ns += 1800 * SECOND;
	tick();
	put_back();
	ticks(1, 0, 0, 0);
	ticks(1, 4, 900, 80);
	said("limiting", "first bytes take 180.0 ms (usually 20.0, from before it left), 4 answers a second");
	calm_down();
	/* What came in congestion is not added to it, and it becomes too old. */
	snprintf(id, sizeof(id), "%s", id_of(false, IT));
	take_out();
	said_of(id, "limit_over", "no service names it any more");
	rig.now_ns += 1800 * SECOND;
	put_back();
	ticks(1, 0, 0, 0);
	ticks(1, 4, 900, 80);
	nothing_said();
	calm_down();
	end_limiters();
}

/* More than fits is no little. */
static void test_absurd_rates(void **state)
{
	begin_limiters(CURE_ENFORCE);
	for (unsigned i = 1; i <= 2; i++)
		limiters_remember(limiters,
				  &(struct limiter_known){
					  .who = {.proto = IPPROTO_TCP,
						  .addr = ipaddr_v4(htonl(0xc6120300 + i)),
						  .port_be = htons(8080)},
					  .from = LIMITER_BASE_RESTART,
					  .past = {.base_ns = 20000000, .rate = UINT32_MAX},
				  },
				  rig.now_ns);
	ticks(1, 0, 0, 0);
	ticks(1, 40, 200, 80);
	said("limiting", "(usually 20.0, from before the restart), 4294967295 answers a second");
	assert_int_equal(service()->pace_interval, (SECOND << GCRA_FRACTION_BITS) / UINT32_MAX);
	assert_int_equal(service()->share_intervals[0], (SECOND << GCRA_FRACTION_BITS) / UINT32_MAX);
	calm_down();
	end_limiters();
}

static struct streak in_state(enum breaker_state state)
{
	return (struct streak){.state = state};
}

static void set_breaker(enum breaker_state state)
{
	uint32_t slot = slot_of_backend(false, IT);
	uint64_t seen = dataplane_breaker(rig.dp, slot);
	struct streak s = in_state(state);

	while (!dataplane_breaker_change(rig.dp, slot, &seen, streak_word(&s)))
		;
}

/* Its work grows in the ramp, by a limit that refuses nobody; and who waits goes at a pace for a while. */
static void test_ramp(void **state)
{
	uint32_t slot;

	begin_limiters(CURE_ENFORCE);
	slot = slot_of_backend(false, IT);
	ticks(100, 40, 20, 8);
	set_breaker(BREAKER_OPEN);
	ticks(10, 40, 20, 8);
	assert_int_equal(service()->pace_interval, 0);
	set_breaker(BREAKER_RAMP);
	dataplane_backend_share(rig.dp, slot, UINT32_MAX / 10);
	ticks(1, 40, 20, 8);
	assert_int_equal(limit(), LIMITER_MIN | LIMIT_SOFT);
	assert_int_equal(service()->pace_interval, (UINT64_C(1000000000) << GCRA_FRACTION_BITS) / 360);
	dataplane_backend_share(rig.dp, slot, UINT32_MAX / 10 * 2 + 10);
	ticks(1, 40, 20, 8);
	assert_int_equal(limit(), 2 * LIMITER_MIN | LIMIT_SOFT);
	set_breaker(BREAKER_CLOSED);
	ticks(1, 40, 20, 8);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN);
	assert_true(service()->pace_interval > 0);
	ticks(98, 40, 20, 8);
	assert_int_equal(service()->pace_interval, 0);
	nothing_said();
	calm_down();
	end_limiters();
}

/* A breaker that only would have been open opens nothing when it is over. */
static void test_ramp_in_shadow(void **state)
{
	uint32_t slot;

	begin_limiters(CURE_ENFORCE);
	f.config->cures.of[CURE_WALL] = CURE_SHADOW;
	slot = slot_of_backend(false, IT);
	ticks(100, 40, 20, 8);
	set_breaker(BREAKER_OPEN);
	ticks(10, 40, 20, 8);
	set_breaker(BREAKER_RAMP);
	dataplane_backend_share(rig.dp, slot, UINT32_MAX / 10);
	ticks(1, 40, 20, 8);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN);
	assert_int_equal(service()->pace_interval, 0);
	limiters_meet(limiters, &f.config->cures, rig.now_ns);
	ticks(1, 40, 20, 8);
	assert_int_equal(limit(), LIMITER_WINDOW_MIN);
	/* It is enforced, from now on. */
	f.config->cures.of[CURE_WALL] = CURE_ENFORCE;
	ticks(1, 40, 20, 8);
	assert_int_equal(limit(), LIMITER_MIN | LIMIT_SOFT);
	set_breaker(BREAKER_CLOSED);
	ticks(1, 40, 20, 8);
	assert_int_equal(service()->pace_interval, 0);
	calm_down();
	end_limiters();
}

static void test_reset(void **state)
{
	char id[SLOT_ID_STRLEN];

	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 20, 8);
	assert_int_equal(limiters_reset(limiters, "tcp:198.18.3.77:8080", CURE_ENFORCE, rig.now_ns), -ENOENT);
	assert_int_equal(limiters_reset(limiters, id_of(false, IT), CURE_OFF, rig.now_ns), -EPERM);
	ticks(20, 40, 200, 80);
	said("limiting", "at most 56");
	assert_int_equal(limiters_reset(limiters, id_of(false, IT), CURE_ENFORCE, rig.now_ns), 1);
	ticks(11, 40, 200, 80);
	said("usual_measured_again",
	     "; asked with half as much, first bytes take 200.0 ms, which is usual from now on (it was 20.0): "
	     "slower for good?");
	ticks(20, 40, 200, 80);
	said("limit_over", "(usually 200.0, measured while it was limited)");
	assert_int_equal(limiters_reset(limiters, id_of(false, IT), CURE_ENFORCE, rig.now_ns), 0);
	ticks(1, 0, 0, 0);
	calm_down();
	/* It is forgotten of one that is gone, too. */
	snprintf(id, sizeof(id), "%s", id_of(false, IT));
	ticks(100, 40, 20, 8);
	calm_down();
	take_out();
	assert_int_equal(limiters_reset(limiters, id, CURE_ENFORCE, rig.now_ns), 0);
	assert_int_equal(limiters_reset(limiters, id, CURE_ENFORCE, rig.now_ns), -ENOENT);
	nothing_said();
	end_limiters();
}

/* Ten minutes of congestion: it may be so for good. */
static void test_measured_again(void **state)
{
	begin_limiters(CURE_ENFORCE);
	ticks(100, 40, 20, 8);
	ticks(5600, 40, 200, 80);
	said("limiting", "at most 56");
	ticks(1600, 40, 200, 80);
	said("usual_measured_again", "which is usual from now on (it was 20.0): slower for good?");
	said("limit_over", "it may have");
	calm_down();
	/* One that says nothing then leaves it at that. */
	ticks(100, 0, 0, 80);
	said("limiting", "it answers nothing; ");
	ticks(7200, 0, 0, 80);
	said("usual_measured_again", "it answered too little to say what first bytes take now: what was usual stays");
	calm_down();
	end_limiters();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_congested),
		cmocka_unit_test(test_lowest_cap),
		cmocka_unit_test(test_meets),
		cmocka_unit_test(test_told_now_and_then),
		cmocka_unit_test(test_told_when_it_lasts),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_many_impatient),
		cmocka_unit_test(test_shadow_and_off),
		cmocka_unit_test(test_removed),
		cmocka_unit_test(test_gone_while_limited),
		cmocka_unit_test(test_impatient),
		cmocka_unit_test(test_comes_back),
		cmocka_unit_test(test_absurd_rates),
		cmocka_unit_test(test_ramp),
		cmocka_unit_test(test_ramp_in_shadow),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_measured_again),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
