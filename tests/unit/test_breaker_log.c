/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A-8, against the event log: whatever happens to backends, what is told of each breaker forms a path through its
 * machine, and says how often it was open without having been told.
 *
 * Beside the edges of semantics A.5 there are the documented ones, which an event names: an opening that is taken back
 * (the whole side was silent; half of the set is out already), an answer in shadow, a backend that is gone for long.
 * What an operator or the mode off does is told by events of its own; from there on a breaker is closed.
 */
#include "breakers_talk.h"

#include "breakers_private.h"

#define N_BACKENDS 7
#ifdef __SANITIZE_THREAD__
#define HISTORIES 4 /* each takes ten seconds */
#else
#define HISTORIES 14
#endif
#define STEPS 60

static unsigned client;
static uint64_t seed, number_now;
static unsigned n_checked[BREAKER_STATES]; /* events, by the state that they tell */

/* Of one backend; 0 is not used. */
static struct backend_log {
	enum breaker_state state; /* by what was told */
	uint32_t told, untold;    /* openings: events, and what they say of those that were none */
	/* By what decide holds. */
	uint32_t opened;
	uint64_t opened_ns; /* the last one; 0: none */
} logs[2][N_BACKENDS + 1];

static const char *id_of_number(bool v6, unsigned n)
{
	static char id[SLOT_ID_STRLEN];

	snprintf(id, sizeof(id), v6 ? "tcp:[2001:db8:3::%x]:8080" : "tcp:198.18.3.%u:8080", n);
	return id;
}

static struct backend_log *log_of(const char *id)
{
	for (unsigned i = 0; i < 2 * N_BACKENDS; i++)
		if (strcmp(id_of_number(i % 2, i / 2 + 1), id) == 0)
			return &logs[i % 2][i / 2 + 1];
	return NULL;
}

static bool begins_with(const char *text, const char *words)
{
	return strncmp(text, words, strlen(words)) == 0;
}

static bool is_documented(enum breaker_state to, const char *text)
{
	return to == BREAKER_CLOSED && (begins_with(text, "taken back: ") || begins_with(text, "answered a SYN ") ||
					begins_with(text, "forgotten: "));
}

static uint32_t untold_in(const char *text)
{
	const char *at = strstr(text, "; it was open ");
	unsigned n = 0;

	if (at)
		assert_int_equal(sscanf(at, "; it was open %u times more", &n), 1);
	return n;
}

static void take_event(const struct event_record *e)
{
	static const char *const kinds[BREAKER_STATES] = {"breaker_closed", "breaker_open", "breaker_half_open",
							  "breaker_ramp"};
	struct backend_log *log = log_of(e->subject);
	enum breaker_state to = BREAKER_CLOSED;

	if (!begins_with(e->kind, "breaker_"))
		return;
	assert_non_null(log);
	while (strcmp(kinds[to], e->kind) != 0)
		assert_true(++to < BREAKER_STATES);
	log->untold += untold_in(e->text);
	if (!breaker_may(log->state, to) && !untold_in(e->text) && !is_documented(to, e->text))
		fail_msg("seed %llu: %s: from %s to %s: %s", (unsigned long long)number_now, e->subject,
			 breaker_state_name[log->state], breaker_state_name[to], e->text);
	log->told += to == BREAKER_OPEN;
	log->state = to;
	n_checked[to]++;
}

static void check_backend(const struct slot_info *info, const struct backend *backend)
{
	char id[SLOT_ID_STRLEN];
	struct backend_log *log = log_of(slots_id(info, id));
	struct streak word = streak_read(dataplane_breaker(rig.dp, info->ref.slot));
	enum breaker_state state = backend->breaker.state;

	if (state == BREAKER_OPEN && backend->breaker.since_ns != log->opened_ns) {
		log->opened++;
		log->opened_ns = backend->breaker.since_ns;
	}
	if (log->told + log->untold + backend->n_untold != log->opened)
		fail_msg("seed %llu: %s was opened %u times, %u are told, %u were named, %u will be",
			 (unsigned long long)number_now, id, log->opened, log->told, log->untold, backend->n_untold);
	if (word.forced)
		return;
	/* One that is open by its workers alone is in doubt still. */
	if (word.state != state && !(word.state == BREAKER_OPEN && backend->noted))
		fail_msg("seed %llu: %s: workers go by %s, decide by %s", (unsigned long long)number_now, id,
			 breaker_state_name[word.state], breaker_state_name[state]);
	if (backend->told && log->state != state)
		fail_msg("seed %llu: %s is %s, and told to be %s", (unsigned long long)number_now, id,
			 breaker_state_name[state], breaker_state_name[log->state]);
}

/* */
static void check_soft(void *arg, const struct services_side *side)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		const struct backend *backend = &f.breakers->backends[side->set->backends[i].ref.slot];

		n += backend->soft &&
		     (backend->breaker.state == BREAKER_OPEN || backend->breaker.state == BREAKER_HALF_OPEN);
	}
	assert_true(n <= (side->set->n_backends / 2 ? side->set->n_backends / 2 : 1));
}

/* Whenever decide has had its turn. */
static void check(void)
{
	struct event_record e;

	while (next_event(&e))
		take_event(&e);
	for (uint32_t slot = 0; slot < N_SLOTS; slot++) {
		const struct backend *backend = &f.breakers->backends[slot];
		struct slot_info info;

		if (services_backend(f.services, slot, &info) && backend->generation == info.ref.generation)
			check_backend(&info, backend);
	}
	services_sides(f.services, check_soft, NULL);
	/* Its event is the gateway's. */
	for (unsigned i = 0; f.mode == CURE_OFF && i < 2 * N_BACKENDS; i++)
		logs[i % 2][i / 2 + 1].state = BREAKER_CLOSED;
}

/* --- histories --- */

static unsigned chance(unsigned n)
{
	return frame_random(&seed) % n;
}

static void force_one(void)
{
	bool v6 = chance(2);
	unsigned n = 1 + chance(N_BACKENDS);
	const char *id = id_of_number(v6, n);

	if (breakers_force(f.breakers, id, chance(4) ? FORCE_AUTO : 1 + chance(2), f.mode, rig.now_ns) == 0)
		logs[v6][n].state = BREAKER_CLOSED; /* `breaker_set` says so */
}

static void set_link(bool up)
{
	dataplane_port_set_link(rig.dp, RIG_LAN, up, 1500);
	breakers_look_again(f.breakers);
}

static void set_mode(unsigned n)
{
	static const enum cure_mode modes[] = {CURE_ENFORCE, CURE_ENFORCE, CURE_SHADOW};

	f.mode = modes[chance(3)];
	configure(n, 5);
}

/* What nobody does together: all backends, or one of them, change what they say. */
static void change_backends(void)
{
	static const enum says often[] = {ANSWERS, ANSWERS, ANSWERS, REFUSES, SILENT, RESETS, STALLS, SLOW};
	enum says all = often[chance(8)];
	bool together = chance(4) == 0;

	for (unsigned i = 1; i <= N_BACKENDS; i++)
		if (together || chance(3) == 0)
			says[i] = together ? all : often[chance(8)];
}

static void step(bool v6, unsigned *n)
{
	static const unsigned every_ms[] = {0, 10, 10, 20, 50, 200};

	switch (chance(8)) {
	case 0:
		*n = 1 + chance(N_BACKENDS);
		configure(*n, 5);
		break;
	case 1:
		force_one();
		break;
	case 2:
		set_link(chance(3));
		break;
	case 3:
		if (chance(3) == 0)
			set_mode(*n);
		break;
	default:
		change_backends();
	}
	/* Now and then all is well, for long enough to come back. */
	if (chance(8) == 0) {
		memset(says, 0, sizeof(says));
		run(v6, &client, 35000, 50);
	}
	services_reap(f.services);
	at_once = 1 + chance(3);
	run(v6, &client, (1 + chance(20)) * 100 * (chance(6) ? 1 : 10), every_ms[chance(6)]);
	at_once = 1;
}

static void history(uint64_t number)
{
	unsigned n = 1 + number % N_BACKENDS;

	seed = number_now = number;
	memset(logs, 0, sizeof(logs));
	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1 + number % 2, n, CURE_ENFORCE);
	f.decided = check;
	for (unsigned i = 0; i < STEPS; i++)
		step(number % 3 == 0, &n);
	set_link(true);
	run(false, &client, 11000, 0);
	end_all();
}

static void test_a8_event_log(void **state)
{
	for (uint64_t number = 1; number <= HISTORIES; number++)
		history(number);
	/* There was something to check. */
	for (int s = 0; s < BREAKER_STATES; s++)
		assert_true(n_checked[s] >= 20);
}

static void fresh(unsigned n, enum cure_mode mode)
{
	number_now = client = 0;
	memset(logs, 0, sizeof(logs));
	memset(says, 0, sizeof(says));
	asks_nothing = false;
	begin_all(1, n, mode);
	f.decided = check;
}

/* In shadow it opens and closes within milliseconds: three are told, the next that is says how many were not. */
static void test_untold_openings(void **state)
{
	fresh(2, CURE_SHADOW);
	for (unsigned i = 0; i < 40; i++) {
		says[1] = i % 2 ? ANSWERS : REFUSES;
		run(false, &client, 500, 10);
	}
	assert_in_range(logs[0][1].opened, 15, 20);
	assert_in_range(logs[0][1].told, 3, 9);
	assert_true(logs[0][1].untold >= 5);
	end_all();
}

/* Of a set that shrinks no more than its half stays out for its applications' faults. */
static void test_a4_smaller_set(void **state)
{
	unsigned n_open = 0, n_events = 0;

	fresh(7, CURE_ENFORCE);
	for (unsigned i = 0; i < 200; i++) {
		for (unsigned b = 1; b <= 7; b++)
			says[b] = b <= 3 ? RESETS : ANSWERS;
		run(false, &client, 10, 10);
		client += 256;
	}
	for (unsigned b = 1; b <= 3; b++)
		n_open += state_of(false, b) == BREAKER_OPEN;
	assert_int_equal(n_open, 3);
	configure(3, 5);
	decide();
	for (unsigned b = 1; b <= 3; b++) {
		n_events += state_of(false, b) == BREAKER_CLOSED;
		assert_int_equal(logs[0][b].state, state_of(false, b));
	}
	assert_int_equal(n_events, 2);
	end_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a8_event_log),
		cmocka_unit_test(test_untold_openings),
		cmocka_unit_test(test_a4_smaller_set),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
