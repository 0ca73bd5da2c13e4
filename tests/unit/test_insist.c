/* SPDX-License-Identifier: BSD-3-Clause */
/* Clients that insist against a cap of their own: decide is told of them, and of nobody else. */
#include "note.h"
#include "talk.h"

#include <netinet/in.h>

#define MS     1000000ull
#define SECOND (1000 * MS)
#define RATE   20
#define BURST  10
#define BLOCK  (SECOND / RATE * BURST / 2) /* half of the burst */

static uint16_t next_port;

static void syn(bool v6, uint8_t proto, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = proto};
	struct frame_spec spec = from_client(&t, TCP_SYN, ISN, 0);

	spec.src = rig_client(client, v6);
	spec.sport_be = htons(1024 + next_port++ % 60000);
	feed(RIG_WAN, spec);
	turn();
	take_all();
}

static void flood(bool v6, unsigned client, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		syn(v6, PROTO_TCP, client);
}

static void begin_capped(enum storm_cap cap, unsigned workers, uint64_t hold_ns)
{
	start((struct rig_config){
		.n_backends = 1, .n_workers = workers, .flows_v4 = 4096, .flows_v6 = 4096, .n_holds = 4096});
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	rig.service.storm.hold_ns = hold_ns;
	rig.service.storm.early = true;
	assert_int_equal(gcra_rate_init(&rig.service.storm.caps[cap], RATE, SECOND, BURST), 0);
	rig.now_ns += 345678;
}

/* Of the one kind; the last of them stays in `note`. */
static unsigned take_notes(struct note *note)
{
	struct note n;
	unsigned told = 0;

	while (dataplane_notes(rig.dp, &n, 1)) {
		if (n.kind != NOTE_INSISTS)
			continue;
		told++;
		*note = n;
	}
	return told;
}

static void check_note(const struct note *note, bool v6, unsigned client, enum storm_cap cap, uint64_t from_ns)
{
	struct ipaddr who = rig_client(client, v6);

	assert_true(ipaddr_equal(&note->insists.client, &who));
	assert_true(ipaddr_is_v4(&note->insists.vip) == !v6);
	assert_int_equal(note->insists.port_be, htons(80));
	assert_int_equal(note->insists.cap, cap);
	assert_int_equal(note->insists.service.slot, rig.service.ref.slot);
	assert_int_equal(note->insists.service.generation, rig.service.ref.generation);
	assert_in_range(note->insists.at_ns, from_ns, rig.now_ns);
	/* Until half of the burst is there again, and the next token. */
	assert_in_range(note->insists.until_ns, from_ns + BLOCK, from_ns + BLOCK + SECOND / RATE);
}

/* Each worker tells of what it sees. */
static void told(bool v6, unsigned workers)
{
	for (enum storm_cap cap = STORM_CLIENT; cap <= STORM_PREFIX; cap++) {
		struct note note;

		begin_capped(cap, workers, 0);
		flood(v6, 7, BURST + INSIST_TIMES);
		assert_int_equal(take_notes(&note), 0);
		flood(v6, 7, 3 * workers * INSIST_TIMES);
		assert_int_equal(take_notes(&note), workers);
		check_note(&note, v6, 7, cap, rig.now_ns);
		/* It is told once; who still comes then was under way. */
		flood(v6, 7, 200);
		assert_int_equal(take_notes(&note), 0);
		/* It comes again after that. */
		pass_ms(BLOCK / MS + SECOND / MS / RATE);
		flood(v6, 7, workers * (BURST + 20));
		assert_int_equal(take_notes(&note), workers);
		check_note(&note, v6, 7, cap, rig.now_ns);
		stop();
	}
}

static void test_told(void **state)
{
	each_way(told);
}

/* 40 a second beyond the cap do no harm, for however long. */
static void test_patience(void **state)
{
	struct note note;

	begin_capped(STORM_CLIENT, 1, 0);
	for (int i = 0; i < 300; i++) {
		syn(false, PROTO_TCP, 7);
		pass_ms(1000 / (RATE + 40));
	}
	assert_true(verdicts(VERDICT_shed_storm_client) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 0);
	stop();
}

/* Where all share what they are beyond, nobody is told on; nor where nothing is refused, or told not to be. */
static void test_nobody_else(void **state)
{
	struct note note;

	begin_capped(STORM_SERVICE, 1, 0);
	flood(false, 7, 400);
	assert_true(verdicts(VERDICT_shed_storm_service) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 0);
	stop();

	begin_capped(STORM_CLIENT, 1, 0);
	rig.policy.modes.of[CURE_STORM] = CURE_SHADOW;
	flood(false, 7, 400);
	assert_true(would(ACTION_silence_client) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 0);
	stop();

	begin_capped(STORM_CLIENT, 1, 0);
	rig.service.storm.early = false;
	flood(false, 7, 400);
	assert_true(verdicts(VERDICT_shed_storm_client) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 0);
	stop();

	begin_capped(STORM_CLIENT, 1, 0);
	for (int i = 0; i < 400; i++)
		syn(false, PROTO_UDP, 7);
	assert_true(verdicts(VERDICT_shed_storm_client) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 0);
	stop();
}

/* What is refused at the end of its hold counts, too, from when it came: a client that left is free a second later. */
static void test_held(void **state)
{
	struct note note = {0};
	uint64_t came_ns;

	begin_capped(STORM_CLIENT, 1, 100 * MS);
	flood(false, 7, 400);
	assert_int_equal(take_notes(&note), 0);
	pass_ms(200);
	take_all();
	assert_true(verdicts(VERDICT_shed_storm_client) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 1);
	assert_in_range(note.insists.until_ns, rig.now_ns, rig.now_ns + BLOCK + SECOND / RATE);
	stop();

	begin_capped(STORM_CLIENT, 1, 900 * MS);
	flood(false, 7, 400);
	came_ns = rig.now_ns;
	for (int i = 0; i < 30; i++) {
		pass_ms(40);
		take_all();
		while (take_notes(&note))
			assert_true(note.insists.until_ns <= came_ns + SECOND + 50 * MS);
	}
	assert_true(verdicts(VERDICT_shed_storm_client) > INSIST_TIMES);
	assert_int_equal(note.kind, NOTE_INSISTS);
	stop();

	begin_capped(STORM_CLIENT, 1, 2000 * MS);
	flood(false, 7, 400);
	pass_ms(2100);
	take_all();
	assert_true(verdicts(VERDICT_shed_storm_client) > INSIST_TIMES);
	assert_int_equal(take_notes(&note), 0);
	stop();
}

/* A slow cap's burst takes long to come back: a second is enough. */
static void test_a_second_at_most(void **state)
{
	struct note note;

	begin_capped(STORM_CLIENT, 1, 0);
	assert_int_equal(gcra_rate_init(&rig.service.storm.caps[STORM_CLIENT], 1, SECOND, 100), 0);
	flood(false, 7, 400);
	assert_int_equal(take_notes(&note), 1);
	assert_int_equal(note.insists.until_ns, rig.now_ns + INSIST_MAX_NS);
	stop();
}

/* Many that insist at once: each that has a place is told, no more than so many at a time, and the ring stays others'.
 */
static void test_many(void **state)
{
	enum { CLIENTS = 300 };
	struct note note;
	unsigned n;

	begin_capped(STORM_CLIENT, 1, 0);
	for (unsigned round = 0; round < 2 * INSIST_TIMES; round++)
		for (unsigned c = 0; c < CLIENTS; c++)
			syn(false, PROTO_TCP, c);
	n = take_notes(&note);
	assert_in_range(n, 30, 64);
	assert_int_equal(dataplane_notes_lost(rig.dp), 0);
	stop();
}

/* Who comes once takes no place from who comes all the time. */
static void test_strangers(void **state)
{
	struct note note;

	begin_capped(STORM_PREFIX, 1, 0);
	for (unsigned i = 0; i < 4 * INSIST_TIMES; i++) {
		flood(false, 7, 2);
		syn(false, PROTO_TCP, 20 + i % 200);
	}
	assert_true(take_notes(&note) >= 1);
	check_note(&note, false, 7, STORM_PREFIX, rig.now_ns);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told),        cmocka_unit_test(test_patience),
		cmocka_unit_test(test_nobody_else), cmocka_unit_test(test_held),
		cmocka_unit_test(test_many),        cmocka_unit_test(test_a_second_at_most),
		cmocka_unit_test(test_strangers),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
