/* SPDX-License-Identifier: BSD-3-Clause */
/* What SYNs and their answers say of a backend, and where new flows go then. */
#include "wall_talk.h"

#include "place.h"
#include "select.h"
#include "wall.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/* --- streaks and states --- */

static void opens(bool v6, unsigned workers)
{
	const struct ipaddr *dead;
	unsigned client = 0;
	uint32_t slot;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	dead = &rig.backends[v6][SET_TCP][1].addr;
	/* Four, an answer, and five: it takes them in a row. */
	for (int i = 0; i < 4; i++) {
		struct talk t = begin_to(dead, v6, &client);

		assert_true(ipaddr_equal(&t.backend, dead));
		refuse(&t);
	}
	assert_int_equal(streak_of(v6, dead).failures[CONNECT_REFUSED], 4);
	/* Failures are news, a few times a second. */
	assert_int_equal(take_notes(&slot), 1);
	s = exchange(RIG_LAN, syn_ack(&(struct talk[]){begin_to(dead, v6, &client)}[0]));
	assert_int_equal(s.port, RIG_WAN);
	assert_int_equal(*word_of(v6, dead), 0);
	assert_int_equal(take_notes(&slot), 0);
	for (int i = 0; i < 5; i++) {
		struct talk t = begin_to(dead, v6, &client);

		assert_int_equal(streak_of(v6, dead).state, BREAKER_CLOSED);
		refuse(&t);
	}
	assert_int_equal(streak_of(v6, dead).state, BREAKER_OPEN);
	assert_int_equal(streak_of(v6, dead).failures[CONNECT_REFUSED], 5);
	assert_int_equal(take_notes(&slot), 1);
	assert_int_equal(slot, slot_of(v6, dead));
	assert_int_equal(report_of(v6, dead).breaker, BREAKER_OPEN);
	/* none of all that follow. */
	for (int i = 0; i < 20; i++) {
		struct talk t = begin_to(dead, v6, &client);

		assert_false(ipaddr_equal(&t.backend, dead));
	}
	assert_int_equal(did(ACTION_divert), 20);
	stop();
}

static void test_opens(void **state)
{
	each_way(opens);
}

/* As many as the service says. */
static void test_limit_is_the_services(void **state)
{
	unsigned client = 0;

	begin_rig(1, N_BACKENDS);
	rig.service.breaker_consecutive = 2;
	for (int i = 0; i < 2; i++) {
		struct talk t = begin_to(&rig.backends[0][SET_TCP][0].addr, false, &client);

		refuse(&t);
	}
	assert_int_equal(streak_of(false, &rig.backends[0][SET_TCP][0].addr).state, BREAKER_OPEN);
	stop();
}

/* Flows of an open backend go to the others, each always to the same, and come back when it closes. */
static void test_next_choice(void **state)
{
	unsigned share[RIG_BACKENDS_MAX] = {0};
	const struct policy_set *set;

	begin_rig(1, 8);
	set = &rig.service.sets[SET_V4][SET_TCP];
	set_breaker(false, 3, BREAKER_OPEN);
	for (uint64_t hash = 0; hash < 80000; hash++) {
		uint64_t h = hash * UINT64_C(0x9e3779b97f4a7c15);
		const struct policy_backend *first = select_backend(set, h);
		const struct policy_backend *next = select_next(rig.worker->cells, set, h, SLOT_NONE);

		assert_ptr_equal(next, select_next(rig.worker->cells, set, h, SLOT_NONE));
		if (first != &set->backends[3]) {
			assert_ptr_equal(next, first);
			/* And if it is not to be that one: another, and not the open one. */
			next = select_next(rig.worker->cells, set, h, first->ref.slot);
			assert_true(next != first && next != &set->backends[3]);
		} else {
			share[next - set->backends]++;
		}
	}
	assert_int_equal(share[3], 0);
	for (int i = 0; i < 8; i++)
		if (i != 3)
			assert_in_range(share[i], 10000 / 7 * 8 / 10, 10000 / 7 * 12 / 10);
	/* Whichever is the only one left is found. */
	for (int left = 0; left < 8; left++) {
		for (int i = 0; i < 8; i++)
			set_breaker(false, i, i == left ? BREAKER_CLOSED : BREAKER_OPEN);
		for (uint64_t h = 1; h; h <<= 1) {
			assert_ptr_equal(select_next(rig.worker->cells, set, h, SLOT_NONE), &set->backends[left]);
			assert_null(select_next(rig.worker->cells, set, h, set->backends[left].ref.slot));
		}
	}
	stop();
}

/* When it opens, all that wait for it go elsewhere at once; at other workers, when decide says so. */
static void opening_moves_all(bool v6, unsigned workers)
{
	unsigned client = 0, n_moved[2] = {0}, n_own = 0;
	const struct ipaddr *dead;
	struct talk t;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	dead = &rig.backends[v6][SET_TCP][1].addr;
	for (int i = 0; i < 200; i++)
		begin_to(dead, v6, &client);
	for (unsigned i = 0; i < workers; i++)
		n_own += rig.dp->workers[i]->backends[slot_of(v6, dead)].users > 0;
	assert_int_equal(n_own, workers);
	rig.service.breaker_consecutive = 1;
	rig.now_ns += 1000000;
	t = begin_to(dead, v6, &client);
	feed(RIG_LAN, refusal(&t));
	for (unsigned again = 0; again < 2; again++) {
		for (int i = 0; i < 5; i++) {
			turn();
			for (; take(&s); n_moved[again]++) {
				struct ipaddr to = packet_dst(s.frame, &s.p);

				assert_null(frame_checksum_error(s.frame));
				assert_int_equal(s.p.tcp_flags, TCP_SYN);
				assert_false(ipaddr_equal(&to, dead));
			}
		}
		for (unsigned i = 0; i < workers; i++)
			dataplane_order(rig.dp, i, &(struct order){.kind = ORDER_OPENED, .slot = slot_of(v6, dead)});
	}
	assert_int_equal(n_moved[0] + n_moved[1], 201);
	assert_true(workers == 1 ? n_moved[1] == 0 : n_moved[0] > 50 && n_moved[1] > 50);
	assert_int_equal(report_of(v6, dead).resteered, 201);
	assert_int_equal(report_of(v6, dead).flows, 0);
	for (unsigned i = 0; i < workers; i++)
		assert_int_equal(rig.dp->workers[i]->backends[slot_of(v6, dead)].waiting, 0);
	stop();
}

static void test_opening_moves_all(void **state)
{
	each_way(opening_moves_all);
}

/* Decide took it back before the worker came to it. */
static void test_not_opened_after_all(void **state)
{
	unsigned client = 0;
	struct ipaddr backend;

	begin_rig(1, N_BACKENDS);
	backend = rig.backends[0][SET_TCP][1].addr;
	for (int i = 0; i < 10; i++)
		begin_to(&backend, false, &client);
	dataplane_order(rig.dp, 0, &(struct order){.kind = ORDER_OPENED, .slot = slot_of(false, &backend)});
	turn();
	take_none();
	stop();
}

/* --- silence that says nothing --- */

/* As many SYNs to one backend of three that does not answer as would open it, and what is done in between. */
struct syn_silence {
	unsigned client;
	struct ipaddr backend;
	struct talk established;
};

static struct syn_silence begin_silence_at(uint64_t now_ns)
{
	struct syn_silence q = {0};

	begin_rig_at(now_ns, 1, N_BACKENDS);
	q.client = warm_up(false, 0);
	q.backend = rig.backends[0][SET_TCP][1].addr;
	q.established = begin_to(&q.backend, false, &q.client);
	finish(&q.established);
	pass_ms(3000);
	for (int i = 0; i < 8; i++)
		begin_to(&q.backend, false, &q.client);
	return q;
}

static struct syn_silence begin_silence(void)
{
	return begin_silence_at(0);
}

/* How long the gateway has run: milliseconds wrap their sign, and themselves, in 32 bits. */
static const uint64_t uptimes_ns[] = {
	0,
	20 * DAY_NS,
	(UINT64_C(1) << 31) * 1000000 - 3500000000,
	30 * DAY_NS,
	(UINT64_C(1) << 32) * 1000000 - 3500000000,
	60 * DAY_NS,
};

#define N_UPTIMES (sizeof(uptimes_ns) / sizeof(uptimes_ns[0]))

static void silence_opens(uint64_t now_ns)
{
	struct syn_silence q = begin_silence_at(now_ns);
	struct backend_times times;

	pass_ms(400);
	assert_int_equal(take_all(), 8);
	assert_int_equal(streak_of(false, &q.backend).state, BREAKER_OPEN);
	assert_int_equal(streak_of(false, &q.backend).failures[CONNECT_SILENT], 5);
	dataplane_backend_times(rig.dp, slot_of(false, &q.backend), &times);
	assert_in_range(rig.now_ns - times.since_ns, 400000000, 410000000);
	assert_in_range(rig.now_ns - times.silent_ns, 1, 200000000);
	assert_in_range(rig.now_ns - times.heard_ns, 3400000000, 3410000000);
	stop();
}

static void test_silence_opens(void **state)
{
	for (unsigned i = 0; i < N_UPTIMES; i++)
		silence_opens(uptimes_ns[i]);
}

/* It was heard last a whole turn of 32 bits ago, and is as silent as any; after half of one it is heard again. */
static void test_unheard_for_long(void **state)
{
	for (int wraps = 0; wraps < 2; wraps++) {
		struct syn_silence q;
		struct backend_times times;

		q = begin_silence();
		pass_ms(400);
		take_all();
		*word_of(false, &q.backend) = 0;
		rig.now_ns += ((UINT64_C(1) << (31 + wraps)) + 5000) * 1000000;
		turn();
		pass_ms(200);
		dataplane_backend_times(rig.dp, slot_of(false, &q.backend), &times);
		assert_true(rig.now_ns - times.heard_ns > (UINT64_C(1) << (31 + wraps)) * 1000000);
		for (int i = 0; i < 8; i++)
			begin_to(&q.backend, false, &q.client);
		pass_ms(400);
		assert_int_equal(take_all(), 8);
		assert_int_equal(streak_of(false, &q.backend).state, BREAKER_OPEN);
		wall_heard(rig.worker, slot_of(false, &q.backend), 0);
		dataplane_backend_times(rig.dp, slot_of(false, &q.backend), &times);
		assert_in_range(rig.now_ns - times.heard_ns, 0, 999999);
		stop();
	}
}

/* A full accept queue is silent, too: while the backend speaks to others, it is not dead, only too busy. */
static void overload(uint64_t now_ns)
{
	struct syn_silence q = begin_silence_at(now_ns);

	pass_ms(100);
	exchange(RIG_LAN, with_payload(from_backend(&q.established, TCP_ACK, PEER + 201, ISN + 101), 9));
	pass_ms(300);
	assert_int_equal(take_all(), 8);
	assert_int_equal(*word_of(false, &q.backend), 0);
	assert_int_equal(report_of(false, &q.backend).overloads, 8);
	assert_int_equal(did(ACTION_resteer), 8);
	stop();
}

static void test_overload(void **state)
{
	for (unsigned i = 0; i < N_UPTIMES; i++)
		overload(uptimes_ns[i]);
}

/* The same where the flow that moves is not among the latest, but moves a lot. */
static void overload_by_count(uint64_t now_ns)
{
	struct syn_silence q = begin_silence_at(now_ns);

	memset(rig.worker->backends[slot_of(false, &q.backend)].lately, 0, BACKEND_LATELY * sizeof(flow_ref));
	pass_ms(100);
	for (uint32_t i = 0; i < FLOW_ROLL_UP_PACKETS; i++)
		exchange(RIG_LAN, with_payload(from_backend(&q.established, TCP_ACK, PEER + 201 + i, ISN + 101), 1));
	pass_ms(300);
	take_all();
	assert_int_equal(*word_of(false, &q.backend), 0);
	assert_int_equal(report_of(false, &q.backend).overloads, 8);
	stop();
}

static void test_overload_by_count(void **state)
{
	for (unsigned i = 0; i < N_UPTIMES; i++)
		overload_by_count(uptimes_ns[i]);
}

/* The one that moves is the first that it ever answered. */
static void test_overload_of_few(void **state)
{
	struct talk established;
	struct ipaddr backend;
	unsigned client = 0;

	begin_rig(1, N_BACKENDS);
	backend = rig.backends[0][SET_TCP][1].addr;
	established = begin_to(&backend, false, &client);
	finish(&established);
	for (int i = 0; i < 8; i++)
		begin_to(&backend, false, &client);
	pass_ms(900);
	exchange(RIG_LAN, with_payload(from_backend(&established, TCP_ACK, PEER + 1, ISN + 1), 1));
	pass_ms(500);
	take_all();
	assert_int_equal(*word_of(false, &backend), 0);
	assert_int_equal(report_of(false, &backend).overloads, 8);
	stop();
}

/* Heard all the time, by a worker whose clock is a loop ahead. */
static void test_overload_seen_ahead(void **state)
{
	struct worker *ahead;
	struct ipaddr backend;
	unsigned client = 0;

	begin_rig(2, N_BACKENDS);
	ahead = rig.dp->workers[1];
	backend = rig.backends[0][SET_TCP][1].addr;
	for (int i = 0; i < 40; i++)
		begin_to(&backend, false, &client);
	for (int ms = 0; ms < 1400; ms++) {
		rig.now_ns += 2000000;
		worker_run_once(ahead);
		wall_heard(ahead, slot_of(false, &backend), 0);
		rig.now_ns -= 1000000;
		worker_run_once(rig.worker);
		take_all();
	}
	assert_int_equal(*word_of(false, &backend), 0);
	assert_int_equal(report_of(false, &backend).overloads, 40);
	rig.now_ns += 1000000;
	stop();
}

/* What another worker heard counts as well. */
static void overload_seen_by_another_worker(uint64_t now_ns)
{
	struct ipaddr backend;
	unsigned client = 0;

	begin_rig_at(now_ns, 2, N_BACKENDS);
	backend = rig.backends[0][SET_TCP][1].addr;
	for (int i = 0; i < 40; i++)
		begin_to(&backend, false, &client);
	for (unsigned i = 0; i < 2; i++)
		assert_true(rig.dp->workers[i]->backends[slot_of(false, &backend)].users > 5);
	pass_ms(100);
	wall_heard(rig.dp->workers[1], slot_of(false, &backend), 0);
	pass_ms(1300);
	take_all();
	assert_int_equal(*word_of(false, &backend), 0);
	assert_int_equal(report_of(false, &backend).overloads, 40);
	stop();
}

static void test_overload_seen_by_another_worker(void **state)
{
	for (unsigned i = 0; i < N_UPTIMES; i++)
		overload_seen_by_another_worker(uptimes_ns[i]);
}

static void lose(enum rig_port port, bool buffers, enum rx_class class)
{
	if (buffers)
		memport_lose_buffers(rig.ports[port], 0, 1);
	else
		memport_lose(rig.ports[port], 0, class, 1);
}

/* An answer may have been among what there was no room for: nobody is blamed, and the client tries again. */
static void lost_answer(bool buffers)
{
	struct syn_silence q = begin_silence();

	lose(RIG_LAN, buffers, RX_KNOWN);
	pass_ms(900);
	assert_int_equal(take_all(), 0);
	assert_int_equal(*word_of(false, &q.backend), 0);
	/* Once more, and long enough for both ends to have sent again. */
	pass_ms(600);
	assert_int_equal(take_all(), 8);
	assert_int_equal(streak_of(false, &q.backend).state, BREAKER_OPEN);
	stop();
}

/* No answer is among what comes by another port, nor among SYNs: however much of that is lost. */
static void lost_otherwise(enum rig_port port, bool buffers, enum rx_class class)
{
	struct syn_silence q = begin_silence();

	for (int ms = 0; ms < 400; ms += 40) {
		lose(port, buffers, class);
		pass_ms(40);
	}
	assert_int_equal(take_all(), 8);
	assert_int_equal(streak_of(false, &q.backend).state, BREAKER_OPEN);
	stop();
}

static void test_lost_frames(void **state)
{
	lost_answer(false);
	lost_answer(true);
	lost_otherwise(RIG_LAN, false, RX_NEW);
	lost_otherwise(RIG_WAN, false, RX_NEW);
	lost_otherwise(RIG_WAN, false, RX_KNOWN);
	lost_otherwise(RIG_WAN, true, RX_KNOWN);
}

/* Who loses frames all the time has no excuse: three times a second more, and the dead one is found. */
static void test_lost_frames_all_the_time(void **state)
{
	struct syn_silence q = begin_silence();

	for (int ms = 0; ms < 3100; ms += 100) {
		lose(RIG_LAN, false, RX_KNOWN);
		pass_ms(100);
	}
	assert_int_equal(take_all(), 0);
	for (int ms = 0; ms < 500; ms += 100) {
		lose(RIG_LAN, false, RX_KNOWN);
		pass_ms(100);
	}
	assert_int_equal(take_all(), 8);
	assert_int_equal(streak_of(false, &q.backend).state, BREAKER_OPEN);
	stop();
}

/* A worker that did not run has read no answer. */
static void test_stalled(void **state)
{
	struct syn_silence q = begin_silence();

	rig.now_ns += 5000000000;
	turn();
	take_none();
	pass_ms(150);
	assert_int_equal(take_all(), 0);
	assert_int_equal(*word_of(false, &q.backend), 0);
	pass_ms(250);
	assert_int_equal(take_all(), 8);
	stop();
}

static void test_link_down(void **state)
{
	struct syn_silence q = begin_silence();
	uint64_t n = n_flows();

	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	pass_ms(2000);
	assert_int_equal(take_all(), 0);
	assert_int_equal(*word_of(false, &q.backend), 0);
	assert_int_equal(did(ACTION_resteer), 0);
	/* The flows are there still, for the client's next SYN. */
	assert_int_equal(n_flows(), n);
	stop();
}

static void test_side_down(void **state)
{
	struct syn_silence q = begin_silence();
	struct talk t;
	uint32_t slot;

	*word_of(false, &q.backend) = streak_word(&(struct streak){.side_down = true});
	pass_ms(2000);
	assert_int_equal(take_all(), 0);
	assert_int_equal(streak_length(&(struct streak[]){streak_of(false, &q.backend)}[0]), 0);
	assert_int_equal(take_notes(&slot), 0);
	/* A refusal is no silence, and the first answer is news. */
	t = begin_to(&q.backend, false, &q.client);
	refuse(&t);
	assert_int_equal(streak_of(false, &q.backend).failures[CONNECT_REFUSED], 1);
	take_notes(&slot);
	t = begin_to(&q.backend, false, &q.client);
	finish(&t);
	assert_true(streak_of(false, &q.backend).answered);
	assert_int_equal(take_notes(&slot), 1);
	stop();
}

/* A host that nobody answers for on the link is silent, too, though the SYN never left. */
static void test_unresolved_host(void **state)
{
	const uint8_t mac[6] = {2, 0, 0, 0, 3, 2};
	struct ipaddr backend;
	unsigned client = 0;

	begin_rig(1, N_BACKENDS);
	backend = rig.backends[0][SET_TCP][1].addr;
	dataplane_neighbour_update(rig.dp, RIG_LAN, &backend, NEIGHBOUR_UNRESOLVED, mac);
	for (; verdicts(VERDICT_drop_neighbour) < 6; client++) {
		struct talk t = {.proto = PROTO_TCP, .client = client};

		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		turn();
		take_all();
	}
	pass_ms(1200);
	assert_true(take_all() > 5);
	assert_int_equal(streak_of(false, &backend).state, BREAKER_OPEN);
	stop();
}

/* Resolved only just: that SYN was never sent, and says nothing. */
static void test_resolved_too_late(void **state)
{
	const uint8_t mac[6] = {2, 0, 0, 0, 3, 2};
	struct ipaddr backend;

	begin_rig(1, 1);
	backend = rig.backends[0][SET_TCP][0].addr;
	dataplane_neighbour_update(rig.dp, RIG_LAN, &backend, NEIGHBOUR_UNRESOLVED, mac);
	refused(RIG_WAN, from_client(&(struct talk){.proto = PROTO_TCP}, TCP_SYN, ISN, 0), VERDICT_drop_neighbour);
	pass_ms(500);
	dataplane_neighbour_update(rig.dp, RIG_LAN, &backend, NEIGHBOUR_USABLE, mac);
	pass_ms(1000);
	assert_int_equal(*word_of(false, &backend), 0);
	assert_int_equal(only_state(false), FLOW_SYN_SENT);
	stop();
}

/* --- no usable backend --- */

static void open_all(bool v6)
{
	for (unsigned i = 0; i < N_BACKENDS; i++)
		set_breaker(v6, i, BREAKER_OPEN);
}

static void all_open(bool v6, unsigned workers)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP};
	unsigned n_sent = 0, n_rst = 0;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	open_all(v6);
	/* Decide will try the third one first. */
	for (unsigned i = 0; i < N_BACKENDS; i++)
		dataplane_backend_due(rig.dp, slot_of(v6, &rig.backends[v6][SET_TCP][i].addr), 9000 - i);
	/* Five seconds, with twenty clients in each. */
	for (; t.client < 100; t.client++) {
		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		turn();
		pass_ms(50);
		if (!take(&s))
			continue;
		assert_null(frame_checksum_error(s.frame));
		take_none();
		if (s.port == RIG_LAN) {
			struct ipaddr to = packet_dst(s.frame, &s.p);

			assert_int_equal(s.p.tcp_flags, TCP_SYN);
			assert_true(ipaddr_equal(&to, &rig.backends[v6][SET_TCP][N_BACKENDS - 1].addr));
			n_sent++;
		} else {
			assert_int_equal(s.p.tcp_flags, TCP_RST | TCP_ACK);
			assert_int_equal(ack(&s), ISN + 1);
			n_rst++;
		}
	}
	assert_int_equal(n_sent, 5);
	assert_int_equal(did(ACTION_last_resort), 5);
	assert_int_equal(did(ACTION_refuse_open), 95);
	/* The rig's IPv6 clients are of one /64, which is one source: two RSTs a second. */
	assert_int_equal(n_rst, verdicts(VERDICT_answer_wall_open));
	assert_int_equal(n_rst + verdicts(VERDICT_shed_refused_limit), 95);
	assert_true(v6 ? n_rst >= 8 : n_rst == 95);
	assert_int_equal(n_flows(), 5);
	stop();
}

static void test_all_open(void **state)
{
	each_way(all_open);
}

/* A client that insists is answered twice a second. */
static void test_refusals_are_limited(void **state)
{
	struct talk t = {.proto = PROTO_TCP, .client = 7};

	begin_rig(1, N_BACKENDS);
	open_all(false);
	rig.dp->cells.services[0].last_resort_ns = rig.now_ns;
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	refused(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0), VERDICT_shed_refused_limit);
	stop();
}

static void test_all_open_udp(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t = {.v6 = v6, .proto = PROTO_UDP, .client = 7};
		struct sent s;

		begin_rig(1, N_BACKENDS);
		for (unsigned i = 0; i < N_BACKENDS; i++)
			rig.dp->cells.backends[rig.backends[v6][SET_UDP][i].ref.slot].breaker =
				streak_word(&(struct streak){.state = BREAKER_OPEN});
		rig.dp->cells.services[0].last_resort_ns = rig.now_ns;
		s = exchange(RIG_WAN, with_payload(from_client(&t, 0, 0, 0), 30));
		assert_int_equal(s.port, RIG_WAN);
		assert_int_equal(s.p.kind, PACKET_ICMP_ERROR);
		assert_int_equal(s.frame[s.p.l4_off], v6 ? 1 : 3);
		assert_int_equal(s.frame[s.p.l4_off + 1], v6 ? 4 : 3);
		assert_int_equal(verdicts(VERDICT_answer_wall_unreachable), 1);
		stop();
	}
}

/* The answer to a last resort is as good as that to a probe. */
static void test_last_resort_is_answered(void **state)
{
	struct talk t;
	uint32_t slot;

	begin_rig(1, 1);
	set_breaker(false, 0, BREAKER_OPEN);
	t = begin(PROTO_TCP, false, 4);
	finish(&t);
	assert_true(streak_of(false, &t.backend).answered);
	assert_int_equal(take_notes(&slot), 1);
	stop();
}

/* --- modes --- */

/* Frames that left in a scenario, one behind the other. */
struct wire {
	size_t len;
	uint8_t bytes[1 << 20];
};

static struct wire wires[2];

static void record(struct wire *wire)
{
	for (struct sent s; take(&s);) {
		assert_true(wire->len + s.len + 1 < sizeof(wire->bytes));
		wire->bytes[wire->len++] = s.port;
		memcpy(wire->bytes + wire->len, s.frame, s.len);
		wire->len += s.len;
	}
}

/*
 * A backend refuses, another one is silent, and the third one answers; clients send again, some SYNs come twice, and
 * time passes until all is over. What the upstream says depends on nothing that the gateway did but NAT.
 */
static void scenario(enum cure_mode mode, struct wire *wire, bool v6)
{
	unsigned client = 0;

	begin_rig(1, N_BACKENDS);
	rig.policy.modes.of[CURE_WALL] = mode;
	wire->len = 0;
	for (unsigned round = 0; round < 150; round++, client++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
		struct sent s;

		feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		turn();
		assert_true(take(&s));
		assert_true(wire->len + s.len < sizeof(wire->bytes));
		memcpy(wire->bytes + wire->len, s.frame, s.len);
		wire->len += s.len;
		if (s.port == RIG_LAN) {
			learn(&t, &s);
			if (t.backend.b[15] == 1)
				feed(RIG_LAN, refusal(&t));
			if (t.backend.b[15] == 2 && client % 3 == 0)
				feed(RIG_LAN, syn_ack(&t));
			if (t.backend.b[15] == 3)
				feed(RIG_LAN, syn_ack(&t));
		}
		turn();
		if (client % 4 == 0)
			feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
		pass_ms(round % 10 == 0 ? 700 : 20);
		record(wire);
	}
	pass_ms(120000);
	record(wire);
	assert_int_equal(n_flows(), 0);
}

/* In shadow nothing is done, and not a byte on the wire is another one. */
static void test_shadow_changes_nothing(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		uint32_t slot;

		scenario(CURE_OFF, &wires[0], v6);
		assert_int_equal(did(ACTION_resteer) + would(ACTION_resteer), 0);
		assert_int_equal(take_notes(&slot), 0);
		for (int i = 0; i < N_BACKENDS; i++)
			assert_int_equal(*word_of(v6, &rig.backends[v6][SET_TCP][i].addr), 0);
		stop();
		scenario(CURE_SHADOW, &wires[1], v6);
		assert_true(wires[0].len > 10000);
		assert_int_equal(wires[0].len, wires[1].len);
		assert_memory_equal(wires[0].bytes, wires[1].bytes, wires[0].len);
		assert_true(would(ACTION_resteer) > 10);
		assert_true(would(ACTION_divert) > 10);
		assert_int_equal(did(ACTION_resteer) + did(ACTION_divert) + did(ACTION_refuse_open), 0);
		assert_true(take_notes(&slot) > 0);
		assert_int_equal(streak_of(v6, &rig.backends[v6][SET_TCP][0].addr).state, BREAKER_OPEN);
		stop();
	}
}

/* Flows to one backend of three: some refused, some silent, until it opens and all are given away. */
static void attempts(enum cure_mode mode)
{
	unsigned client = 0;
	struct ipaddr dead;

	begin_rig(1, N_BACKENDS);
	rig.policy.modes.of[CURE_WALL] = mode;
	dead = rig.backends[0][SET_TCP][1].addr;
	for (int i = 0; i < 4; i++) {
		struct talk t = begin_to(&dead, false, &client);

		feed(RIG_LAN, refusal(&t));
		turn();
		take_all();
	}
	for (int i = 0; i < 30; i++)
		begin_to(&dead, false, &client);
	pass_ms(1200);
	take_all();
	/* And now that it is open. */
	for (int i = 0; i < 10; i++) {
		begin_to(&dead, false, &client);
		take_all();
	}
	for (int i = 0; i < N_BACKENDS; i++)
		set_breaker(false, i, BREAKER_OPEN);
	rig.dp->cells.services[0].last_resort_ns = 0;
	for (int i = 0; i < 10; i++) {
		feed(RIG_WAN, from_client(&(struct talk){.proto = PROTO_TCP, .client = 5000 + i}, TCP_SYN, ISN, 0));
		turn();
		take_all();
	}
	order_probe(false, 0, 1);
	turn();
	take_all();
}

/* The same input: what shadow would have done is what enforce did. */
static void test_would_is_did(void **state)
{
	uint64_t done[ACTION_COUNT];

	attempts(CURE_ENFORCE);
	for (int a = 0; a < ACTION_COUNT; a++) {
		done[a] = did(a);
		assert_int_equal(would(a), 0);
	}
	assert_int_equal(done[ACTION_resteer], 34);
	assert_int_equal(done[ACTION_divert], 10);
	assert_int_equal(done[ACTION_last_resort], 1);
	assert_int_equal(done[ACTION_refuse_open], 9);
	assert_int_equal(done[ACTION_probe], 1);
	stop();
	attempts(CURE_SHADOW);
	for (int a = 0; a < ACTION_COUNT; a++) {
		assert_int_equal(would(a), done[a]);
		assert_int_equal(did(a), 0);
	}
	assert_int_equal(n_tuples(), 0);
	assert_int_equal(verdicts(VERDICT_answer_wall_open), 0);
	stop();
	attempts(CURE_OFF);
	for (int a = 0; a < ACTION_COUNT; a++)
		assert_int_equal(would(a) + did(a), 0);
	stop();
}

/* A flow keeps the mode of its birth. */
static void test_mode_of_birth(void **state)
{
	struct talk t, u;
	struct sent s;

	begin_rig(1, N_BACKENDS);
	t = begin(PROTO_TCP, false, 1);
	rig.policy.modes.of[CURE_WALL] = CURE_OFF;
	u = begin(PROTO_TCP, false, 2);
	refuse(&t);
	s = exchange(RIG_LAN, refusal(&u));
	assert_int_equal(s.port, RIG_WAN);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opens),
		cmocka_unit_test(test_limit_is_the_services),
		cmocka_unit_test(test_next_choice),
		cmocka_unit_test(test_opening_moves_all),
		cmocka_unit_test(test_not_opened_after_all),
		cmocka_unit_test(test_silence_opens),
		cmocka_unit_test(test_unheard_for_long),
		cmocka_unit_test(test_overload),
		cmocka_unit_test(test_overload_by_count),
		cmocka_unit_test(test_overload_of_few),
		cmocka_unit_test(test_overload_seen_ahead),
		cmocka_unit_test(test_overload_seen_by_another_worker),
		cmocka_unit_test(test_lost_frames),
		cmocka_unit_test(test_lost_frames_all_the_time),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_link_down),
		cmocka_unit_test(test_side_down),
		cmocka_unit_test(test_unresolved_host),
		cmocka_unit_test(test_resolved_too_late),
		cmocka_unit_test(test_all_open),
		cmocka_unit_test(test_refusals_are_limited),
		cmocka_unit_test(test_all_open_udp),
		cmocka_unit_test(test_last_resort_is_answered),
		cmocka_unit_test(test_shadow_changes_nothing),
		cmocka_unit_test(test_would_is_did),
		cmocka_unit_test(test_mode_of_birth),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
