/* SPDX-License-Identifier: BSD-3-Clause */
/* What workers leave for decide: not too much at a time, of no worker alone, and none forgotten. */
#include "note.h"
#include "talk.h"

#include <poll.h>

#include <rte_ring.h>

static bool readable(void)
{
	struct pollfd fd = {.fd = dataplane_notes_fd(rig.dp), .events = POLLIN};

	return poll(&fd, 1, 0) == 1;
}

static void leave(unsigned worker, uint32_t slot)
{
	struct note note = {.kind = NOTE_BACKEND, .backend = {slot}};

	assert_true(note_add(rig.dp->workers[worker], &note));
	note_announce(rig.dp->workers[worker]);
}

/* Whoever takes few at a time is called again until none is left. */
static void test_readable_to_the_last(void **state)
{
	struct note notes[8];

	start((struct rig_config){.n_backends = 1});
	assert_false(readable());
	for (uint32_t i = 0; i < 20; i++)
		leave(0, i);
	for (uint32_t taken = 0; taken < 20; taken += 8) {
		assert_true(readable());
		assert_int_equal(dataplane_notes(rig.dp, notes, 8), taken < 16 ? 8 : 4);
		assert_int_equal(notes[0].backend.slot, taken);
	}
	assert_false(readable());
	assert_int_equal(dataplane_notes(rig.dp, notes, 8), 0);
	stop();
}

/* A worker whose ring is always full does not keep another one's notes from decide. */
static void test_each_worker_has_a_turn(void **state)
{
	struct note notes[8];
	bool seen = false;

	start((struct rig_config){.n_backends = 1, .n_workers = 2});
	leave(1, 77);
	for (int turn = 0; turn < 2; turn++) {
		while (rte_ring_count(rig.dp->workers[0]->notes) < 8)
			leave(0, 1);
		for (size_t n = dataplane_notes(rig.dp, notes, 8); n > 0; n--)
			seen |= notes[n - 1].backend.slot == 77;
	}
	assert_true(seen);
	stop();
}

/* A client on the wan's own network, number i of many. */
static struct ipaddr on_link(uint32_t i)
{
	const uint8_t b[16] = {0x20, 0x01, 0x0d, 0xb8, 0, 1, [13] = 1, [14] = i >> 8, [15] = i};

	return ipaddr_v6(b);
}

/* A flow of a client on link whom nobody knows yet: the answer wishes for it. */
static void wish(uint32_t i)
{
	struct talk t = {.v6 = true, .proto = PROTO_TCP};
	struct frame_spec syn = from_client(&t, TCP_SYN, ISN, 0);
	struct sent s;

	syn.src = on_link(i);
	s = exchange(RIG_WAN, syn);
	learn(&t, &s);
	refused(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1), VERDICT_drop_neighbour);
}

static unsigned take_wishes(void)
{
	struct note note;
	unsigned n = 0;

	for (; dataplane_notes(rig.dp, &note, 1); n++)
		assert_int_equal(note.kind, NOTE_NEIGHBOUR);
	return n;
}

/* A flood of sources that do not exist asks the kernel for no more than so many of them. */
static void test_forged_sources(void **state)
{
	enum { FORGED = NEIGHBOUR_WANTS_BURST + 100 };
	struct worker_report report;

	start((struct rig_config){.n_backends = 1, .flows_v6 = 4096});
	for (uint32_t i = 0; i < FORGED; i++)
		wish(i);
	assert_int_equal(take_wishes(), NEIGHBOUR_WANTS_BURST + 1);
	rig.now_ns += 50000000;
	for (uint32_t i = 0; i < FORGED; i++)
		wish(FORGED + i);
	assert_int_equal(take_wishes(), NEIGHBOUR_WANTS_PER_S / 20);
	turn();
	observe_worker(rig.dp, 0, &report);
	assert_int_equal(report.wants_denied, 2 * FORGED - NEIGHBOUR_WANTS_BURST - 1 - NEIGHBOUR_WANTS_PER_S / 20);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readable_to_the_last),
		cmocka_unit_test(test_each_worker_has_a_turn),
		cmocka_unit_test(test_forged_sources),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
