/* SPDX-License-Identifier: BSD-3-Clause */
/* Who goes first where not all can: shares, ranks, and turns. */
#include "limit_talk.h"

#include "fairness.h"

#include <netinet/in.h>

/* Clients. */
enum { OTHER = 1 << 8, KNOWN = 2 << 8, STRANGER = 3 << 8 };

/* One of them was served; it has nothing under way. */
static void begin_known(uint32_t n_holds)
{
	begin_limits(1, 1, n_holds);
	(void)establish(false, KNOWN);
	pass_ms(600);
}

/*
 * Who is known and within its share goes before who is not, however much later it came; but for one stranger, after so
 * many that went.
 */
static void test_ranks(void **state)
{
	enum { HOG = 1 << 8, KNOWN = 2 << 8, STRANGER = 3 << 8, IN_TURN = 4 << 8 };
	const unsigned order[] = {IN_TURN, KNOWN | 1 << 16, STRANGER, HOG + 14};
	struct service_limit limit = {.n_limits = 1, .n_congested = 1, .hold_ms = HOLD_MS};
	struct ipaddr asked, hears;
	struct talk working;
	struct sent s;

	begin_known(0);
	limit_all(100, 0);
	limit.shares[FAIR_CLIENT] = limit.shares[FAIR_NETWORK] = 2;
	dataplane_service_limit(rig.dp, 0, &limit);
	/* 1 and 10 more are its burst; each that connects counts, though there is room. */
	for (unsigned i = 0; i < 13; i++)
		(void)establish(false, HOG + i);
	working = begin(PROTO_TCP, false, HOG + 13);
	dataplane_backend_limit(rig.dp, rig.backends[0][SET_TCP][0].ref.slot, 14);
	ask(false, HOG + 14);
	ask(false, KNOWN | 1 << 16);
	ask(false, IN_TURN);
	ask(false, STRANGER);
	take_none();
	assert_int_equal(did(ACTION_hold_limit), 4);
	feed(RIG_LAN, from_backend(&working, TCP_RST | TCP_ACK, 0, ISN + 1));
	turn();
	take_right(&s);
	assert_int_equal(s.port, RIG_WAN);
	for (unsigned i = 0; i < 4; i++) {
		rig.now_ns += MS;
		turn();
		take_right(&s);
		working = (struct talk){.proto = PROTO_TCP, .client = order[i]};
		learn(&working, &s);
		feed(RIG_LAN, from_backend(&working, TCP_SYN | TCP_ACK, PEER, ISN + 1));
		turn();
		take_right(&s);
		assert_int_equal(s.port, RIG_WAN);
		assert_int_equal(s.p.dport_be, rig_client_port_be(order[i]));
		asked = rig_client(order[i], false);
		hears = packet_dst(s.frame, &s.p);
		assert_true(ipaddr_equal(&hears, &asked));
		exchange(RIG_WAN, from_client(&working, TCP_RST, ISN + 1, 0));
	}
	stop();
}

static enum hold_rank takes(const struct ipaddr *client)
{
	struct fair_shares shares = fair_find(rig.worker, &rig.service.ref, client);
	enum hold_rank rank = fair_rank(rig.worker, &shares, &rig.service.ref, client);

	fair_take(rig.worker, &shares, FLOW_REF_NONE);
	return rank;
}

static void share_out(uint32_t share)
{
	const struct service_limit limit = {.n_limits = 1, .hold_ms = HOLD_MS, .shares = {share, share}};

	dataplane_service_limit(rig.dp, 0, &limit);
}

static bool is_turn(bool v6)
{
	return fair_is_strangers_turn(rig.worker, hold_queue_at(rig.service.ref.slot, v6));
}

/* A stranger that waits is next after eight that went, and a tenth of a second, and until he goes. */
static void test_turns(void **state)
{
	struct ipaddr known;
	uint32_t most = 1;

	begin_known(0);
	limit_all(100, 0);
	(void)begin(PROTO_TCP, false, OTHER);
	limit_all(most, 0);
	share_out(1000);
	known = rig_client(KNOWN, false);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 8; i++) {
			assert_false(is_turn(false));
			(void)takes(&known);
		}
		/* None waits. */
		assert_false(is_turn(false));
		ask(false, KNOWN | (round + 1) << 16);
		ask(false, STRANGER + round);
		take_none();
		assert_true(is_turn(false));
		assert_false(is_turn(true));
		pass_ms(20);
		assert_true(is_turn(false));
		if (round == 2)
			break;
		limit_all(++most, 0);
		share_out(1000);
		pass_ms(1);
		assert_int_equal(take_all(), 1);
		assert_false(is_turn(false));
		pass_ms(90);
		for (unsigned i = 0; i < 8; i++)
			(void)takes(&known);
		assert_false(is_turn(false));
		ask(false, STRANGER + 100 + round);
		assert_false(is_turn(false));
		pass_ms(10);
		assert_true(is_turn(false));
		limit_all(++most, 0);
		share_out(1000);
		pass_ms(1);
		assert_int_equal(take_all(), 1);
		pass_ms(100);
	}
	stop();
}

/* A stranger who waits is next; there is no room. */
static void make_turn_due(void)
{
	struct ipaddr known = rig_client(KNOWN, false);

	limit_all(100, 0);
	(void)begin(PROTO_TCP, false, OTHER);
	limit_all(1, 0);
	share_out(1000);
	for (unsigned i = 0; i < 8; i++)
		(void)takes(&known);
}

/* Where the known leave no place, one stranger may wait all the same, and no more of them. */
static void test_place_for_one(void **state)
{
	begin_known(8);
	(void)begin(PROTO_TCP, false, OTHER);
	limit_all(1, 0);
	for (unsigned i = 1; i <= 3; i++)
		ask(false, KNOWN | i << 16);
	take_none();
	assert_int_equal(did(ACTION_hold_limit), 3);
	ask(false, KNOWN | 4 << 16);
	assert_int_equal(take_all(), 1);
	ask(false, STRANGER);
	take_none();
	assert_int_equal(did(ACTION_hold_limit), 4);
	ask(false, STRANGER + 1);
	assert_int_equal(take_all(), 1);
	assert_int_equal(did(ACTION_hold_limit), 4);
	assert_int_equal(did(ACTION_refuse_limit), 2);
	stop();
}

/* While it is a stranger's turn, a known client does not go past him, though it finds room. */
static void test_turn_is_kept(void **state)
{
	begin_known(0);
	make_turn_due();
	ask(false, STRANGER);
	assert_true(is_turn(false));
	limit_all(2, 0);
	share_out(1000);
	ask(false, KNOWN | 1 << 16);
	take_none();
	assert_int_equal(did(ACTION_hold_limit), 2);
	rig.now_ns += MS;
	turn();
	(void)went(false, STRANGER);
	take_none();
	stop();
}

static void cap_clients(void)
{
	assert_int_equal(gcra_rate_init(&rig.service.storm.caps[STORM_CLIENT], 50, SECOND, 0), 0);
}

/*
 * Who has waited for his cap waits for room like all others then: he is counted once, and has his rank, whoever waits
 * there already.
 */
static void room_after_cap(bool late_is_known)
{
	unsigned capped = late_is_known ? KNOWN : STRANGER, other = late_is_known ? STRANGER : KNOWN;

	begin_known(0);
	cap_clients();
	limit_all(2, 0);
	(void)begin(PROTO_TCP, false, OTHER);
	(void)begin(PROTO_TCP, false, capped | 1 << 16);
	ask(false, capped | 2 << 16);
	take_none();
	assert_int_equal(did(ACTION_hold_client), 1);
	assert_int_equal(rig.worker->services[0].waited, 0);
	if (late_is_known)
		ask(false, other | 3 << 16);
	/* So short that the first in line goes first still. */
	pass_ms(40);
	take_none();
	if (!late_is_known)
		ask(false, other | 3 << 16);
	take_none();
	assert_int_equal(rig.worker->services[0].waited, 2);
	assert_int_equal(did(ACTION_hold_limit), 1);
	limit_all(3, 0);
	rig.now_ns += MS;
	turn();
	(void)went(false, late_is_known ? capped | 2 << 16 : other | 3 << 16);
	take_none();
	limit_all(100, 0);
	rig.now_ns += MS;
	turn();
	(void)went(false, late_is_known ? other | 3 << 16 : capped | 2 << 16);
	stop();
}

/* He may wait for his cap for longer than for room, and not for the longer of both. */
static void no_room_after_cap(void)
{
	begin_limits(1, 1, 0);
	cap_clients();
	limit_all(2, 0);
	(void)begin(PROTO_TCP, false, OTHER);
	(void)begin(PROTO_TCP, false, KNOWN);
	ask(false, KNOWN | 1 << 16);
	take_none();
	pass_ms(HOLD_MS);
	take_none();
	pass_ms(80);
	assert_int_equal(take_all(), 1);
	assert_int_equal(did(ACTION_hold_client), 1);
	assert_int_equal(did(ACTION_refuse_limit), 1);
	stop();
}

static void test_room_after_cap(void **state)
{
	room_after_cap(false);
	room_after_cap(true);
	no_room_after_cap();
}

/* A stranger whose turn it is, and whom something else keeps, keeps nobody. */
static void test_turn_in_vain(void **state)
{
	struct ipaddr stranger = rig_client(STRANGER, false);
	uint64_t tag;

	begin_known(0);
	cap_clients();
	make_turn_due();
	ask(false, STRANGER);
	ask(false, KNOWN | 1 << 16);
	assert_true(is_turn(false));
	tag = client_tag(&rig.dp->clients, &rig.service.ref, &stranger);
	gcra_take(client_claim(&rig.dp->clients, tag, rig.now_ns).bucket, &rig.service.storm.caps[STORM_CLIENT],
		  rig.now_ns);
	limit_all(2, 0);
	share_out(1000);
	rig.now_ns += MS;
	turn();
	(void)went(false, KNOWN | 1 << 16);
	limit_all(3, 0);
	share_out(1000);
	pass_ms(200);
	(void)went(false, STRANGER);
	stop();
}

static uint64_t n_active(enum fair_level level)
{
	return rig.dp->cells.services[0].active[level];
}

/* There is one. */
static flow_ref the_flow(bool v6)
{
	uint32_t entry = 0;

	while (flow_half(&rig.worker->flows, flow_ref_make(v6, entry, DIR_UP))->state == FLOW_FREE)
		entry++;
	return flow_ref_make(v6, entry, DIR_UP);
}

/* Of UDP any source can be said, and all of it goes: it takes from nobody's share. */
static void test_udp_takes_no_share(bool v6, unsigned workers)
{
	struct ipaddr client = rig_client(1, v6);

	begin_limits(workers, 1, 0);
	share_out(1);
	for (unsigned i = 0; i < 30; i++) {
		struct talk t = {.v6 = v6, .proto = PROTO_UDP, .client = 1};
		struct frame_spec spec = from_client(&t, 0, 0, 0);

		spec.sport_be = htons(1000 + i);
		assert_int_equal(exchange(RIG_WAN, spec).port, RIG_LAN);
	}
	assert_int_equal(n_active(FAIR_CLIENT), 0);
	assert_int_equal(takes(&client), RANK_STRANGER);
	stop();
}

/* Once a second, at whatever workers, of which one is a little behind. */
static void test_counted_once(void **state)
{
	begin_limits(1, 1, 0);
	share_out(1);
	(void)begin(PROTO_TCP, false, 1);
	assert_int_equal(n_active(FAIR_CLIENT), 0);
	for (unsigned second = 1; second < 4; second++) {
		for (unsigned i = 0; i < 5; i++) {
			rig.worker->now_ns = rig.now_ns + (i & 1 ? 0 : 100000);
			fair_connected(rig.worker, the_flow(false));
			assert_int_equal(n_active(FAIR_CLIENT), second);
			assert_int_equal(n_active(FAIR_NETWORK), second);
		}
		rig.now_ns += SECOND + MS;
		turn();
	}
	stop();
}

/* SYNs take from their network's share where they are of a client that is known; of others only who connects does. */
static void test_network_owes(void **state)
{
	enum { KNOWN = 2 << 8, STRANGERS = 3 << 8, CONNECTED = 4 << 8 };
	struct ipaddr neighbour;

	begin_known(0);
	limit_all(100, 0);
	share_out(1);
	for (unsigned i = 0; i < 13; i++) {
		(void)begin(PROTO_TCP, false, KNOWN | (i + 1) << 16);
		(void)begin(PROTO_TCP, false, STRANGERS + i);
		(void)establish(false, CONNECTED + i);
	}
	neighbour = rig_client(KNOWN + 99, false);
	assert_int_equal(takes(&neighbour), RANK_NETWORK_BEYOND);
	neighbour = rig_client(STRANGERS + 99, false);
	assert_int_equal(takes(&neighbour), RANK_STRANGER);
	neighbour = rig_client(CONNECTED + 99, false);
	assert_int_equal(takes(&neighbour), RANK_NETWORK_BEYOND);
	stop();
}

/* However much it takes of what others leave, and however shares change: it is beyond its own until it takes less. */
static void test_hog(void **state)
{
	struct ipaddr hog = rig_client(1, false);

	begin_limits(1, 1, 0);
	share_out(1);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(takes(&hog), i < 11 ? RANK_STRANGER : RANK_NETWORK_BEYOND);
		rig.now_ns += MS;
		turn();
	}
	for (uint32_t share = 20; share <= 100; share += 80) {
		share_out(share);
		for (unsigned i = 0; i < 1000; i++) {
			assert_int_equal(takes(&hog), RANK_NETWORK_BEYOND);
			rig.now_ns += SECOND / 2 / share;
			turn();
		}
	}
	/* What it owes is bounded. */
	rig.now_ns += 2 * SECOND;
	turn();
	assert_int_equal(takes(&hog), RANK_STRANGER);
	stop();
}

static void test_udp_takes_no_share_each(void **state)
{
	each_way(test_udp_takes_no_share);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranks),         cmocka_unit_test(test_turns),
		cmocka_unit_test(test_turn_is_kept),  cmocka_unit_test(test_turn_in_vain),
		cmocka_unit_test(test_place_for_one), cmocka_unit_test(test_room_after_cap),
		cmocka_unit_test(test_network_owes),  cmocka_unit_test(test_hog),
		cmocka_unit_test(test_counted_once),  cmocka_unit_test(test_udp_takes_no_share_each),
	};

	if (rig_eal(512, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
