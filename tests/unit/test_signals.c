/* SPDX-License-Identifier: BSD-3-Clause */
/* What packets say of a backend: each signal by itself, and all of them against a model that is slow and plain. */
#include "wall_talk.h"

#include "observe.h"
#include "signals.h"

#include <stdlib.h>
#include <string.h>

static void pass_us(uint64_t us)
{
	rig.now_ns += us % 40000 * 1000;
	turn();
	pass_ms(us / 40000 * 40);
}

static struct signal_report signals_of(const struct talk *t)
{
	struct signal_report r;

	observe_signals(rig.dp, slot_of(t->v6, &t->backend), &r);
	assert_int_equal(r.wip, observe_wip(rig.dp, slot_of(t->v6, &t->backend)));
	assert_int_equal(r.wip, r.waiting + r.open + r.zombies);
	check_books();
	return r;
}

static struct histogram_sum durations(const struct talk *t, enum signal_duration which)
{
	struct histogram_sum sum;

	observe_durations(rig.dp, slot_of(t->v6, &t->backend), which, &sum);
	return sum;
}

static struct signal_window window_of(const struct talk *t)
{
	struct signal_window window;

	observe_window(rig.dp, slot_of(t->v6, &t->backend), 10, &window);
	return window;
}

/* --- a talk goes on; bytes are counted from each side's first --- */

static struct frame_spec asks(const struct talk *t, uint32_t at, uint16_t len)
{
	return with_payload(from_client(t, TCP_ACK | TCP_PSH, ISN + 1 + at, PEER + 1), len);
}

static struct frame_spec answers(const struct talk *t, uint32_t at, uint16_t len)
{
	return with_payload(from_backend(t, TCP_ACK | TCP_PSH, PEER + 1 + at, ISN + 1), len);
}

static void ask(const struct talk *t, uint32_t at, uint16_t len)
{
	assert_int_equal(exchange(RIG_WAN, asks(t, at, len)).port, RIG_LAN);
}

static void reply(const struct talk *t, uint32_t at, uint16_t len)
{
	assert_int_equal(exchange(RIG_LAN, answers(t, at, len)).port, RIG_WAN);
}

static void client_ends(const struct talk *t, uint8_t flags, uint32_t at)
{
	assert_int_equal(exchange(RIG_WAN, from_client(t, flags, ISN + 1 + at, PEER + 1)).port, RIG_LAN);
}

static void backend_ends(const struct talk *t, uint8_t flags, uint32_t at, uint32_t acked)
{
	assert_int_equal(exchange(RIG_LAN, from_backend(t, flags, PEER + 1 + at, ISN + 1 + acked)).port, RIG_WAN);
}

/* --- handshakes --- */

static void handshake(bool v6, unsigned workers)
{
	struct talk t, again;

	begin_rig(workers, 1);
	t = begin(PROTO_TCP, v6, 1);
	assert_int_equal(signals_of(&t).waiting, 1);
	pass_us(3200);
	exchange(RIG_LAN, syn_ack(&t));
	assert_int_equal(signals_of(&t).wip, 0);
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).n, 1);
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).sum_us, 3200);
	assert_int_equal(window_of(&t).success[SIGNAL_CONNECT], 1);
	/* Nobody knows which of two SYNs is answered. */
	again = begin(PROTO_TCP, v6, 2);
	pass_us(90000);
	exchange(RIG_WAN, from_client(&again, TCP_SYN, ISN, 0));
	exchange(RIG_LAN, syn_ack(&again));
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).n, 1);
	assert_int_equal(window_of(&t).success[SIGNAL_CONNECT], 2);
	/* Neither had a byte: nothing is known of them, until they end. */
	assert_int_equal(signals_of(&t).success + signals_of(&t).neutral, 0);
	stop();
}

static void test_handshake(void **state)
{
	each_way(handshake);
}

/* A SYN that no backend need answer is none that one works at. */
static void test_handshake_odd(void **state)
{
	const struct talk t = {.proto = PROTO_TCP, .client = 1};
	struct talk learnt = t;
	uint8_t frame[FRAME_MAX];
	size_t len = make_syn(frame, &t, 0, NULL, 0);
	struct sent s;

	begin_rig(1, 1);
	frame[ETH + 20 + 16] ^= 1;
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	assert_true(take(&s));
	learn(&learnt, &s);
	assert_int_equal(signals_of(&learnt).wip, 0);
	stop();
}

/* The client resets its own attempt: that is not the backend's. */
static void handshake_left(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = begin(PROTO_TCP, v6, 1);
	exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
	assert_int_equal(signals_of(&t).wip, 0);
	pass_ms(11000);
	assert_int_equal(n_flows(), 0);
	assert_int_equal(signals_of(&t).neutral, 1);
	assert_int_equal(signals_of(&t).failed, 0);
	stop();
}

static void test_handshake_left(void **state)
{
	each_way(handshake_left);
}

/* F2 and F3: refused and called unreachable, and what another one has of it. */
static void refusals(bool v6, unsigned workers)
{
	uint8_t error[FRAME_MAX];
	struct talk first, second;
	struct sent s;
	size_t len;

	begin_rig(workers, N_BACKENDS);
	first = begin(PROTO_TCP, v6, 1);
	second = refuse(&first);
	assert_int_equal(signals_of(&first).failed, 1);
	assert_int_equal(signals_of(&first).failures[SIGNAL_REFUSED], 1);
	assert_int_equal(signals_of(&first).wip, 0);
	assert_int_equal(signals_of(&second).waiting, 1);
	assert_int_equal(signals_of(&second).failed, 0);
	assert_int_equal(window_of(&first).failed[SIGNAL_REFUSED], 1);
	assert_int_equal(window_of(&first).n_networks, 1);
	/* There is no third one for it: the client hears of that. */
	exchange(RIG_LAN, refusal(&second));
	assert_int_equal(signals_of(&second).failed, 1);
	first = begin(PROTO_TCP, v6, 2);
	s = exchange(RIG_WAN, from_client(&first, TCP_SYN, ISN, 0));
	len = make_error(error, s.frame, first.backend, v6 ? 1 : 3, v6 ? 4 : 1, 0);
	feed_raw(RIG_LAN, 0, error, len);
	turn();
	assert_int_equal(signals_of(&first).failures[SIGNAL_UNREACHABLE], 1);
	assert_int_equal(window_of(&first).failed[SIGNAL_UNREACHABLE], 1);
	take_all();
	stop();
}

static void test_refusals(void **state)
{
	each_way(refusals);
}

/* F1, and that a SYN which nobody answered is work that may still be done. */
static void silence(bool v6, unsigned workers)
{
	struct talk first, second;
	struct sent s;

	begin_rig(workers, N_BACKENDS);
	first = begin(PROTO_TCP, v6, 1);
	assert_true(ms_until_sent(&s, 1500) >= 1000);
	second = moved(&first, &s);
	assert_int_equal(signals_of(&first).failures[SIGNAL_SILENT], 1);
	assert_int_equal(signals_of(&first).failed, 1);
	assert_int_equal(signals_of(&first).waiting, 0);
	assert_int_equal(signals_of(&first).zombies, 1);
	assert_int_equal(signals_of(&second).waiting, 1);
	/* Its SYN-ACK is reset: that is the end of it. */
	exchange(RIG_LAN, syn_ack(&first));
	assert_int_equal(signals_of(&first).zombies, 0);
	/* Of the next one nothing is heard, and that ends too. */
	first = begin(PROTO_TCP, v6, 1 + workers * 100);
	assert_true(ms_until_sent(&s, 1500) <= 1300);
	assert_int_equal(signals_of(&first).zombies, 1);
	pass_ms(900);
	assert_int_equal(signals_of(&first).zombies, 1);
	pass_ms(400);
	assert_int_equal(signals_of(&first).zombies, 0);
	take_all();
	stop();
}

static void test_silence(void **state)
{
	each_way(silence);
}

/* --- first bytes --- */

static void first_byte(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 100);
	pass_us(1000);
	/* The last one counts. */
	ask(&t, 100, 100);
	assert_int_equal(signals_of(&t).open, 1);
	pass_us(5000);
	/* An acknowledgement is no response. */
	exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 1, ISN + 201));
	assert_int_equal(signals_of(&t).open, 1);
	reply(&t, 0, 300);
	assert_int_equal(signals_of(&t).open, 0);
	assert_int_equal(signals_of(&t).success, 1);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 1);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 5000);
	/* The rest of the response, and the next exchange. */
	pass_us(2000);
	reply(&t, 300, 300);
	ask(&t, 200, 10);
	pass_us(40);
	reply(&t, 600, 10);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 2);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 5040);
	assert_int_equal(signals_of(&t).exchanges, 2);
	assert_int_equal(signals_of(&t).answered, 2);
	assert_int_equal(signals_of(&t).success, 1);
	assert_int_equal(window_of(&t).success[SIGNAL_RESPONSE], 2);
	assert_int_equal(signals_of(&t).retransmissions_up + signals_of(&t).retransmissions_down, 0);
	stop();
}

static void test_first_byte(void **state)
{
	each_way(first_byte);
}

/* The client's data came with the end of its handshake, as often. */
static void test_data_with_the_handshake(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = begin(PROTO_TCP, false, 1);
	exchange(RIG_LAN, syn_ack(&t));
	ask(&t, 0, 100);
	assert_int_equal(signals_of(&t).open, 1);
	pass_us(700);
	reply(&t, 0, 100);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 700);
	stop();
}

/* Karn: no sample from what was sent again; the backend's own retransmissions do not matter. */
static void sent_again(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 100);
	pass_us(30000);
	ask(&t, 0, 100);
	pass_us(1000);
	reply(&t, 0, 100);
	assert_int_equal(signals_of(&t).answered, 1);
	assert_int_equal(signals_of(&t).success, 1);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 0);
	assert_int_equal(signals_of(&t).retransmissions_up, 1);
	reply(&t, 0, 100);
	assert_int_equal(signals_of(&t).retransmissions_down, 1);
	/* The next exchange is another one. */
	ask(&t, 100, 100);
	pass_us(1000);
	reply(&t, 100, 100);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 1);
	/* What is partly new is new. */
	ask(&t, 150, 100);
	assert_int_equal(signals_of(&t).retransmissions_up, 1);
	assert_int_equal(signals_of(&t).open, 1);
	stop();
}

static void test_sent_again(void **state)
{
	each_way(sent_again);
}

static void server_first(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	pass_us(7000);
	assert_int_equal(signals_of(&t).wip, 0);
	reply(&t, 0, 50);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 1);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 7000);
	assert_int_equal(signals_of(&t).success, 1);
	assert_int_equal(signals_of(&t).exchanges, 0);
	assert_int_equal(window_of(&t).success[SIGNAL_RESPONSE], 1);
	pass_us(7000);
	reply(&t, 50, 50);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 1);
	stop();
}

static void test_server_first(void **state)
{
	each_way(server_first);
}

/* What lies outside of any window, and what is damaged where that is looked at, opens and closes nothing. */
static void test_forged(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	exchange(RIG_WAN, asks(&t, 1 << 20, 100));
	assert_int_equal(signals_of(&t).open, 0);
	ask(&t, 0, 100);
	exchange(RIG_LAN, answers(&t, 1 << 20, 100));
	assert_int_equal(signals_of(&t).open, 1);
	refused(RIG_LAN, from_backend(&t, TCP_RST, PEER + 1 + (1 << 20), 0), VERDICT_drop_rst_window);
	assert_int_equal(signals_of(&t).open, 1);
	assert_int_equal(signals_of(&t).resets_before, 0);
	stop();
}

/* --- resets --- */

static void resets(bool v6, unsigned workers)
{
	struct talk before, after, idle, fin;

	begin_rig(workers, 1);
	before = establish(v6, 1);
	ask(&before, 0, 100);
	backend_ends(&before, TCP_RST | TCP_ACK, 0, 100);
	assert_int_equal(signals_of(&before).resets_before, 1);
	assert_int_equal(signals_of(&before).failed, 1);
	assert_int_equal(signals_of(&before).wip, 0);
	assert_int_equal(window_of(&before).failed[SIGNAL_RESET], 1);
	after = establish(v6, 300);
	ask(&after, 0, 100);
	reply(&after, 0, 100);
	backend_ends(&after, TCP_RST | TCP_ACK, 100, 100);
	assert_int_equal(signals_of(&before).resets_before, 1);
	assert_int_equal(signals_of(&before).resets_after, 1);
	assert_int_equal(signals_of(&before).failed, 1);
	assert_int_equal(window_of(&before).n_networks, 1);
	/* Without a word: neither. */
	idle = establish(v6, 301);
	backend_ends(&idle, TCP_RST | TCP_ACK, 0, 0);
	assert_int_equal(signals_of(&before).resets_before + signals_of(&before).resets_after, 2);
	/* A FIN instead of a response closes the exchange, and says no more. */
	fin = establish(v6, 302);
	ask(&fin, 0, 100);
	backend_ends(&fin, TCP_FIN | TCP_ACK, 0, 100);
	assert_int_equal(signals_of(&before).wip, 0);
	assert_int_equal(signals_of(&before).failed, 1);
	stop();
}

static void test_resets(void **state)
{
	each_way(resets);
}

/* --- clients that leave --- */

static void gave_up(bool v6, uint8_t how)
{
	struct talk t, answered;

	begin_rig(1, 1);
	t = establish(v6, 1);
	ask(&t, 0, 100);
	pass_ms(1500);
	client_ends(&t, how, 100);
	assert_int_equal(signals_of(&t).gave_up, 1);
	assert_int_equal(signals_of(&t).gave_up_us, 1500000);
	assert_int_equal(signals_of(&t).open, 0);
	assert_int_equal(signals_of(&t).zombies, 1);
	pass_ms(900);
	assert_int_equal(signals_of(&t).zombies, 1);
	pass_ms(400);
	assert_int_equal(signals_of(&t).zombies, 0);
	/* The backend's word ends it, too, and is no sample: it would have been a longer one. */
	answered = establish(v6, 2);
	ask(&answered, 0, 100);
	pass_ms(2000);
	client_ends(&answered, how, 100);
	reply(&answered, 0, 100);
	assert_int_equal(signals_of(&t).zombies, 0);
	assert_int_equal(signals_of(&t).answered, 1);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 0);
	assert_int_equal(signals_of(&t).gave_up, 2);
	assert_int_equal(signals_of(&t).success, 1);
	stop();
}

static void test_gave_up(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		gave_up(v6, TCP_FIN | TCP_ACK);
		gave_up(v6, TCP_RST | TCP_ACK);
	}
}

/* The client's RST, and the backend's that it crossed: nothing is left to be done, and nobody failed. */
static void reset_by_both(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 100);
	client_ends(&t, TCP_RST | TCP_ACK, 100);
	assert_int_equal(signals_of(&t).zombies, 1);
	for (unsigned i = 0; i < 2; i++) {
		backend_ends(&t, TCP_RST | TCP_ACK, 0, 100);
		assert_int_equal(signals_of(&t).zombies, 0);
	}
	assert_int_equal(signals_of(&t).resets_before + signals_of(&t).resets_after + signals_of(&t).failed, 0);
	stop();
}

static void test_reset_by_both(void **state)
{
	each_way(reset_by_both);
}

/* Whoever asks and says "that was all" waits as others do. */
static void half_closed(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 100);
	client_ends(&t, TCP_FIN | TCP_ACK, 100);
	assert_int_equal(signals_of(&t).zombies, 1);
	assert_int_equal(signals_of(&t).gave_up, 0);
	pass_us(20000);
	reply(&t, 0, 100);
	assert_int_equal(signals_of(&t).wip, 0);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 20000);
	/* FIN again: nothing is open. */
	client_ends(&t, TCP_FIN | TCP_ACK, 100);
	assert_int_equal(signals_of(&t).zombies_ever, 1);
	stop();
}

static void test_half_closed(void **state)
{
	each_way(half_closed);
}

/* Twice the median is when a client may have had enough. */
static void test_gave_up_by_the_median(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	for (uint32_t i = 0; i < 20; i++) {
		ask(&t, i * 10, 10);
		pass_us(10000);
		reply(&t, i * 10, 10);
	}
	assert_int_equal(histogram_quantile_us(&(struct histogram_sum[]){durations(&t, DURATION_FIRST_BYTE)}[0], 500),
			 10239);
	for (unsigned i = 0; i < 2; i++) {
		struct talk left = establish(false, 2 + i);

		ask(&left, 0, 10);
		pass_us(i ? 21000 : 20000);
		client_ends(&left, TCP_FIN | TCP_ACK, 10);
		assert_int_equal(signals_of(&left).gave_up, i);
	}
	stop();
}

/* A zombie lasts for twice what first bytes take, and ten seconds at the most. */
static void test_zombies_by_the_mean(void **state)
{
	static const struct {
		uint32_t mean_ms, lasts_ms;
	} cases[] = {{300, 1000}, {2000, 4000}, {8000, 10000}};

	for (size_t i = 0; i < 3; i++) {
		struct talk t, left;
		uint32_t ms = 0;

		begin_rig(1, 1);
		t = establish(false, 1);
		ask(&t, 0, 10);
		pass_ms(cases[i].mean_ms);
		reply(&t, 0, 10);
		left = establish(false, 2);
		ask(&left, 0, 10);
		client_ends(&left, TCP_RST | TCP_ACK, 10);
		for (; signals_of(&t).zombies; ms += 20)
			pass_ms(20);
		assert_in_range(ms, cases[i].lasts_ms, cases[i].lasts_ms + 290);
		stop();
	}
}

/* A slot with zombies is not given to another backend. */
static void test_zombies_hold_their_slot(void **state)
{
	uint32_t slot;
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	slot = slot_of(false, &t.backend);
	ask(&t, 0, 10);
	pass_ms(6000);
	reply(&t, 0, 10);
	client_ends(&t, TCP_RST | TCP_ACK, 10);
	t = establish(false, 2);
	ask(&t, 0, 10);
	client_ends(&t, TCP_RST | TCP_ACK, 10);
	/* The same ports anew, so that no flow is left of it soon. */
	pass_ms(9900);
	assert_int_equal(signals_of(&t).zombies, 1);
	assert_false(dataplane_backend_unused(rig.dp, slot));
	pass_ms(900);
	assert_int_equal(n_flows(), 0);
	assert_true(dataplane_backend_unused(rig.dp, slot));
	dataplane_backend_reset(rig.dp, slot);
	assert_int_equal(signals_of(&t).exchanges, 0);
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).n, 0);
	stop();
}

/* --- one-way flows --- */

static void one_way(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	for (uint32_t i = 0; i < 32; i++) {
		ask(&t, i * 1000, 1000);
		exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 1, ISN + 1 + (i + 1) * 1000));
		assert_int_equal(signals_of(&t).open, i < 31);
		assert_int_equal(signals_of(&t).one_way, i >= 31);
		pass_ms(1000);
	}
	assert_int_equal(signals_of(&t).exchanges, 1);
	/* The upload is done, and the backend says so. */
	reply(&t, 0, 100);
	assert_int_equal(signals_of(&t).one_way, 0);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 1000000);
	/* Then it is as any other. */
	ask(&t, 32000, 100);
	assert_int_equal(signals_of(&t).open, 1);
	client_ends(&t, TCP_RST | TCP_ACK, 32100);
	pass_ms(2400);
	assert_int_equal(signals_of(&t).wip, 0);
	stop();
}

static void test_one_way(void **state)
{
	each_way(one_way);
}

/* --- stuck backends --- */

static struct frame_spec shut(const struct talk *t, uint32_t acked)
{
	struct frame_spec spec = from_backend(t, TCP_ACK, PEER + 1, ISN + 1 + acked);

	spec.shut = true;
	return spec;
}

static void shut_window(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 1000);
	exchange(RIG_LAN, shut(&t, 1000));
	pass_ms(4000);
	exchange(RIG_LAN, shut(&t, 1000));
	assert_int_equal(signals_of(&t).shut, 0);
	/* Open for a moment: it begins anew. */
	exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 1, ISN + 1001));
	exchange(RIG_LAN, shut(&t, 1000));
	pass_ms(4900);
	exchange(RIG_LAN, shut(&t, 1000));
	assert_int_equal(signals_of(&t).shut, 0);
	/* A client whose own window is shut says nothing of the backend. */
	exchange(RIG_WAN, (struct frame_spec[]){from_client(&t, TCP_ACK, ISN + 1001, PEER + 1)}[0]);
	pass_ms(200);
	exchange(RIG_LAN, shut(&t, 1000));
	assert_int_equal(signals_of(&t).shut, 1);
	/* Once per flow. */
	pass_ms(6000);
	exchange(RIG_LAN, shut(&t, 1000));
	assert_int_equal(signals_of(&t).shut, 1);
	stop();
}

static void test_shut_window(void **state)
{
	each_way(shut_window);
}

static void stalled(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 1000);
	pass_ms(300);
	ask(&t, 0, 1000);
	pass_ms(600);
	ask(&t, 0, 1000);
	/* Thrice, but not for a second. */
	assert_int_equal(signals_of(&t).stalls, 0);
	pass_ms(600);
	ask(&t, 0, 1000);
	assert_int_equal(signals_of(&t).stalls, 1);
	assert_int_equal(window_of(&t).failed[SIGNAL_STALLED], 1);
	assert_int_equal(signals_of(&t).retransmissions_up, 3);
	/* Once per flow. */
	pass_ms(2400);
	ask(&t, 0, 1000);
	assert_int_equal(signals_of(&t).stalls, 1);
	stop();
}

static void test_stalled(void **state)
{
	each_way(stalled);
}

/* Any word of the backend, on this flow or another one, and it is no stall: it is loss. */
static void not_stalled(bool v6, unsigned workers)
{
	unsigned client = 2;
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	for (unsigned how = 0; how < 2; how++) {
		ask(&t, 0, 1000);
		for (unsigned i = 0; i < 6; i++) {
			pass_ms(500);
			ask(&t, 0, 1000);
			if (i % 2)
				continue;
			if (how)
				establish(v6, client++);
			else
				exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 1, ISN + 1));
		}
	}
	assert_int_equal(signals_of(&t).stalls, 0);
	/* From the last word on, it is one as any other. */
	for (unsigned i = 0; i < 2; i++) {
		pass_ms(500);
		ask(&t, 0, 1000);
		assert_int_equal(signals_of(&t).stalls, i);
	}
	stop();
}

static void test_not_stalled(void **state)
{
	each_way(not_stalled);
}

/* An acknowledgement may have been among the frames that there was no room for: it is asked again. */
static void test_stall_not_heard(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	ask(&t, 0, 1000);
	for (unsigned i = 0; i < 4; i++) {
		pass_ms(500);
		if (i == 2)
			memport_lose(rig.ports[RIG_LAN], 0, RX_KNOWN, 1);
		ask(&t, 0, 1000);
		assert_int_equal(signals_of(&t).stalls, 0);
	}
	pass_ms(500);
	ask(&t, 0, 1000);
	assert_int_equal(signals_of(&t).stalls, 1);
	stop();
}

/* A message that comes when it comes says nothing of how long responses take. */
static void not_waited_for(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	pass_ms(31000);
	reply(&t, 0, 100);
	t = establish(v6, 2);
	ask(&t, 0, 100);
	pass_ms(31000);
	reply(&t, 0, 100);
	assert_int_equal(signals_of(&t).success, 2);
	assert_int_equal(signals_of(&t).answered, 2);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 0);
	/* Whoever asks next may well be waited for. */
	exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK | TCP_PSH, ISN + 101, PEER + 101), 100));
	pass_ms(29000);
	exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK | TCP_PSH, PEER + 101, ISN + 201), 100));
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 1);
	stop();
}

static void test_not_waited_for(void **state)
{
	each_way(not_waited_for);
}

/* Both say every minute that they live. */
static void wait_long(const struct talk *t, uint32_t asked, uint64_t us)
{
	for (; us >= 60000000; us -= 60000000) {
		pass_ms(60000);
		exchange(RIG_LAN, from_backend(t, TCP_ACK, PEER + 1, ISN + 1 + asked));
		exchange(RIG_WAN, from_client(t, TCP_ACK, ISN + 1 + asked, PEER + 1));
	}
	pass_us(us);
}

/* Nor when the clock has gone round since, and it seems to be soon. */
static void test_waited_for_an_hour(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	ask(&t, 0, 100);
	wait_long(&t, 100, UINT64_C(0x100000000) + 2000000);
	reply(&t, 0, 100);
	assert_int_equal(signals_of(&t).answered, 1);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).n, 0);
	stop();
}

/* A request that crosses the FIN of a backend that had enough of an idle connection: its RST is no failure. */
static void asked_too_late(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	t = establish(v6, 1);
	ask(&t, 0, 100);
	reply(&t, 0, 100);
	exchange(RIG_LAN, from_backend(&t, TCP_FIN | TCP_ACK, PEER + 101, ISN + 101));
	exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK | TCP_PSH, ISN + 101, PEER + 101), 100));
	assert_int_equal(signals_of(&t).wip, 0);
	exchange(RIG_LAN, from_backend(&t, TCP_RST, PEER + 102, 0));
	assert_int_equal(signals_of(&t).resets_before, 0);
	assert_int_equal(window_of(&t).failed[SIGNAL_RESET], 0);
	stop();
}

static void test_asked_too_late(void **state)
{
	each_way(asked_too_late);
}

/* --- outcomes and what is not measured --- */

static void outcomes(bool v6, unsigned workers)
{
	struct talk t;

	begin_rig(workers, 1);
	/* Connected and left. */
	t = establish(v6, 1);
	client_ends(&t, TCP_RST | TCP_ACK, 0);
	/* Refused at once, and again with the same ports. */
	t = begin(PROTO_TCP, v6, 2);
	exchange(RIG_LAN, refusal(&t));
	t = begin(PROTO_TCP, v6, 2);
	assert_int_equal(signals_of(&t).failed, 1);
	assert_int_equal(signals_of(&t).waiting, 1);
	exchange(RIG_LAN, refusal(&t));
	assert_int_equal(signals_of(&t).failed, 2);
	/* Another SYN before any answer is another attempt, and the one before it led to nothing. */
	t = begin(PROTO_TCP, v6, 3);
	exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN + 5, 0));
	assert_int_equal(signals_of(&t).neutral, 1);
	pass_ms(16000);
	assert_int_equal(n_flows(), 0);
	assert_int_equal(signals_of(&t).neutral, 2);
	assert_int_equal(signals_of(&t).failed, 3);
	assert_int_equal(report_of(v6, &t.backend).new_flows, 5);
	take_all();
	stop();
}

static void test_outcomes(void **state)
{
	each_way(outcomes);
}

static void datagrams(bool v6, unsigned workers)
{
	struct signal_report r;
	struct talk t;

	begin_rig(workers, 1);
	t = begin(PROTO_UDP, v6, 1);
	exchange(RIG_LAN, with_payload(from_backend(&t, 0, 0, 0), 20));
	begin(PROTO_UDP, v6, 2);
	pass_ms(301000);
	assert_int_equal(n_flows(), 0);
	observe_signals(rig.dp, rig.backends[v6][SET_UDP][0].ref.slot, &r);
	assert_int_equal(r.success, 1);
	assert_int_equal(r.failed, 1);
	assert_int_equal(r.neutral, 0);
	assert_int_equal(r.wip, 0);
	stop();
}

static void test_datagrams(void **state)
{
	each_way(datagrams);
}

/* Wall and storm off: not even measured, whichever comes back on then; one of them is enough. */
static void test_off(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	rig.policy.modes.of[CURE_WALL] = rig.policy.modes.of[CURE_STORM] = CURE_OFF;
	t = establish(false, 1);
	rig.policy.modes.of[CURE_STORM] = CURE_SHADOW;
	ask(&t, 0, 100);
	assert_int_equal(signals_of(&t).open, 0);
	ask(&t, 0, 100);
	reply(&t, 0, 100);
	exchange(RIG_LAN, shut(&t, 100));
	assert_int_equal(signals_of(&t).exchanges + signals_of(&t).answered + signals_of(&t).retransmissions_up, 0);
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).n + durations(&t, DURATION_FIRST_BYTE).n, 0);
	client_ends(&t, TCP_RST | TCP_ACK, 100);
	t = establish(false, 2);
	ask(&t, 0, 100);
	assert_int_equal(signals_of(&t).open, 1);
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).n, 1);
	rig.policy.modes.of[CURE_STORM] = CURE_OFF;
	rig.policy.modes.of[CURE_WALL] = CURE_ENFORCE;
	t = establish(false, 3);
	assert_int_equal(durations(&t, DURATION_HANDSHAKE).n, 2);
	stop();
}

/* A backend beyond those that there is room for is not measured, and that is counted; room that comes free is used. */
static void test_records_end(void **state)
{
	struct talk first, second;
	unsigned client = 1;

	begin_rig(1, 2);
	rig.worker->signals.n_records = 1;
	first = begin_to(&rig.backends[0][SET_TCP][0].addr, false, &client);
	exchange(RIG_LAN, syn_ack(&first));
	exchange(RIG_WAN, from_client(&first, TCP_ACK, ISN + 1, PEER + 1));
	second = begin_to(&rig.backends[0][SET_TCP][1].addr, false, &client);
	exchange(RIG_LAN, syn_ack(&second));
	exchange(RIG_WAN, from_client(&second, TCP_ACK, ISN + 1, PEER + 1));
	ask(&first, 0, 100);
	ask(&second, 0, 100);
	assert_int_equal(signals_of(&first).open, 1);
	assert_int_equal(signals_of(&second).open, 0);
	assert_int_equal(signals_of(&second).unrecorded, 1);
	reply(&first, 0, 100);
	client_ends(&first, TCP_RST | TCP_ACK, 100);
	client_ends(&second, TCP_RST | TCP_ACK, 100);
	pass_ms(11000);
	assert_int_equal(n_flows(), 0);
	dataplane_backend_reset(rig.dp, slot_of(false, &first.backend));
	second = begin_to(&rig.backends[0][SET_TCP][1].addr, false, &client);
	assert_int_equal(signals_of(&second).waiting, 1);
	exchange(RIG_LAN, syn_ack(&second));
	assert_int_equal(durations(&second, DURATION_HANDSHAKE).n, 1);
	assert_int_equal(durations(&first, DURATION_HANDSHAKE).n, 0);
	stop();
}

/* Ten seconds are what a window sees. */
static void test_window_moves_on(void **state)
{
	struct talk t = {0};

	begin_rig(1, 1);
	for (unsigned i = 0; i < 40; i++) {
		t = establish(false, 1 + i);
		assert_int_equal(window_of(&t).success[SIGNAL_CONNECT], i < 10 ? i + 1 : 10);
		pass_ms(1000);
	}
	pass_ms(9000);
	assert_int_equal(window_of(&t).success[SIGNAL_CONNECT], 0);
	stop();
}

/* Four networks a second, and all that are told apart in the window. */
static void test_networks(void **state)
{
	struct talk t = {0};

	begin_rig(1, 1);
	for (unsigned i = 0; i < 6; i++) {
		t = establish(false, 1 + i / 2 * 256 + i);
		ask(&t, 0, 10);
		backend_ends(&t, TCP_RST | TCP_ACK, 0, 10);
	}
	assert_int_equal(window_of(&t).failed[SIGNAL_RESET], 6);
	assert_int_equal(window_of(&t).n_networks, 3);
	for (unsigned i = 3; i < 12; i++) {
		t = establish(false, 1 + i * 256);
		ask(&t, 0, 10);
		backend_ends(&t, TCP_RST | TCP_ACK, 0, 10);
	}
	assert_int_equal(window_of(&t).n_networks, SIGNAL_NETWORKS);
	stop();
}

/* A worker that did not run makes nobody slow. */
static void test_stalled_worker(void **state)
{
	struct talk t;

	begin_rig(1, 1);
	t = establish(false, 1);
	ask(&t, 0, 100);
	pass_us(3000);
	rig.now_ns += 700 * UINT64_C(1000000);
	reply(&t, 0, 100);
	assert_int_equal(durations(&t, DURATION_FIRST_BYTE).sum_us, 3000);
	stop();
}

/* --- histograms --- */

static void test_histogram(void **state)
{
	static const uint32_t times_us[] = {0,   1,    2,     3,     4,      5,       7,       8,        100,       127,
					    128, 1000, 10239, 10240, 999999, 1000000, 1 << 25, 66999999, UINT32_MAX};

	for (size_t i = 0; i < sizeof(times_us) / sizeof(times_us[0]); i++) {
		struct histogram h = {0};
		struct histogram_sum sum = {0};
		uint32_t us = times_us[i] < HISTOGRAM_MAX_US ? times_us[i] : HISTOGRAM_MAX_US, found;

		histogram_add(&h, times_us[i], 1);
		histogram_sum(&sum, &h, 1);
		found = histogram_quantile_us(&sum, 500);
		assert_int_equal(sum.n, 1);
		assert_int_equal(sum.sum_us, us);
		assert_true(found >= us && found <= us + us / 4);
		for (unsigned octave = 0; octave < HISTOGRAM_OCTAVES; octave++)
			assert_int_equal(sum.octaves[octave],
					 us < (UINT64_C(2) << octave) && (us >= UINT64_C(1) << octave || !octave));
	}
}

/* Lately is 30 to 60 seconds; ever is ever. */
static void test_histogram_lately(void **state)
{
	struct histogram h = {0};

	for (unsigned s = 1; s <= 200; s++) {
		struct histogram_sum sum = {0};

		histogram_add(&h, s, s * UINT64_C(1000000000));
		histogram_sum(&sum, &h, s * UINT64_C(1000000000));
		assert_int_equal(sum.n, s);
		assert_int_equal(sum.n_lately, s < 60 ? s : 30 + s % 30 + 1);
	}
	for (unsigned s = 230; s < 300; s += 30) {
		struct histogram_sum sum = {0};

		histogram_sum(&sum, &h, s * UINT64_C(1000000000));
		assert_int_equal(sum.n_lately, s == 230 ? 21 : 0);
		assert_int_equal(histogram_quantile_us(&sum, 990) != 0, s == 230);
	}
}

/* --- random conversations, against a model that looks through all that was said each time --- */

enum said { C_NEW, C_AGAIN, C_FIN, C_RST, B_NEW, B_AGAIN, B_FIN, B_RST, SAID_KINDS };

#define TALKS  6
#define EVENTS 500
#define BYTES  10 /* of each segment */

struct event {
	uint64_t at_ns;
	unsigned talk;
	enum said said;
};

static struct model {
	struct talk talks[TALKS];
	unsigned worker[TALKS]; /* that has it */
	uint64_t begun_ns[TALKS];
	struct event events[EVENTS];
	unsigned n;
} model;

static bool was_said(const struct event *e, unsigned talk, enum said said)
{
	return e->talk == talk && e->said == said;
}

/* The last time before event n; -1: never. */
static int last(unsigned n, unsigned talk, enum said said)
{
	for (int i = (int)n - 1; i >= 0; i--)
		if (was_said(&model.events[i], talk, said))
			return i;
	return -1;
}

static unsigned count(unsigned n, unsigned talk, enum said said)
{
	unsigned found = 0;

	for (unsigned i = 0; i < n; i++)
		found += was_said(&model.events[i], talk, said);
	return found;
}

static int max(int a, int b)
{
	return a > b ? a : b;
}

/* The last thing that ends an exchange. */
static int last_end(unsigned n, unsigned talk)
{
	return max(max(max(last(n, talk, B_NEW), last(n, talk, B_FIN)), last(n, talk, B_RST)),
		   max(last(n, talk, C_FIN), last(n, talk, C_RST)));
}

/* The event that opened the exchange which is open before event n; -1: none is, or can be any more. */
static int opened(unsigned n, unsigned talk)
{
	if (count(n, talk, B_FIN))
		return -1;
	for (unsigned i = last_end(n, talk) + 1; i < n; i++)
		if (was_said(&model.events[i], talk, C_NEW))
			return i;
	return -1;
}

/* The event with which the client left an exchange that nobody has ended since. */
static int left(unsigned n, unsigned talk)
{
	int ended = max(max(last(n, talk, B_NEW), last(n, talk, B_FIN)), last(n, talk, B_RST));

	for (unsigned i = ended + 1; i < n; i++)
		if ((was_said(&model.events[i], talk, C_FIN) || was_said(&model.events[i], talk, C_RST)) &&
		    opened(i, talk) >= 0)
			return i;
	return -1;
}

static uint64_t asked_ns(unsigned n, unsigned talk)
{
	int at = last(n, talk, C_NEW);

	return at < 0 ? model.begun_ns[talk] : model.events[at].at_ns;
}

static uint64_t waited_us(unsigned n)
{
	const struct event *e = &model.events[n];

	return (e->at_ns - asked_ns(n, e->talk)) / 1000;
}

static bool has_given_up(unsigned n);

/* Event n is the first byte of a response, or of a server that speaks first. */
static bool is_first_byte(unsigned n)
{
	unsigned talk = model.events[n].talk;
	int before = last(n, talk, B_NEW);

	return model.events[n].said == B_NEW && (before < 0 || last(n, talk, C_NEW) > before);
}

/* And says how long it took. */
static bool is_sample(unsigned n)
{
	unsigned talk = model.events[n].talk;
	bool asked = false;

	if (!is_first_byte(n))
		return false;
	for (unsigned i = last(n, talk, B_NEW) + 1; i < n; i++) {
		asked |= was_said(&model.events[i], talk, C_NEW);
		if (asked && was_said(&model.events[i], talk, C_AGAIN))
			return false;
		if ((was_said(&model.events[i], talk, C_FIN) || was_said(&model.events[i], talk, C_RST)) &&
		    has_given_up(i))
			return false;
	}
	return true;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Of the worker's samples of this half minute and the one before it; to the end of a quarter of an octave. */
static uint64_t median_us(unsigned n)
{
	uint64_t samples[EVENTS], step = 1;
	size_t n_samples = 0;

	for (unsigned i = 0; i < n; i++)
		if (is_sample(i) && model.worker[model.events[i].talk] == model.worker[model.events[n].talk] &&
		    model.events[i].at_ns / 30000000000 + 1 >= model.events[n].at_ns / 30000000000)
			samples[n_samples++] = waited_us(i);
	if (!n_samples)
		return 0;
	qsort(samples, n_samples, sizeof(samples[0]), compare);
	while (samples[(n_samples - 1) / 2] >= 8 * step)
		step *= 2;
	return (samples[(n_samples - 1) / 2] / step + 1) * step - 1;
}

/* Event n ends the client's side. */
static bool has_given_up(unsigned n)
{
	uint64_t median = median_us(n);

	return opened(n, model.events[n].talk) >= 0 && waited_us(n) > (median ? 2 * median : 1000000);
}

static uint64_t zombie_us(unsigned n)
{
	uint64_t mean16 = 0, us;

	for (unsigned i = 0; i < n; i++)
		if (is_sample(i) && model.worker[model.events[i].talk] == model.worker[model.events[n].talk])
			mean16 = mean16 ? mean16 - mean16 / 16 + waited_us(i) : waited_us(i) * 16;
	us = mean16 / 16 / 1000 * 2000;
	return us < 1000000 ? 1000000 : us > 10000000 ? 10000000 : us;
}

/* What began then and lasts so long is not over yet, by the units that time is looked at in. */
static bool lasts(uint64_t from_ns, uint64_t us)
{
	const uint64_t unit_ns = UINT64_C(1) << 28;

	return rig.now_ns / unit_ns < (from_ns + us * 1000 + unit_ns - 1) / unit_ns;
}

static struct signal_report expected(void)
{
	struct signal_report r = {0};

	for (unsigned i = 0; i < model.n; i++) {
		const struct event *e = &model.events[i];
		bool is_open = opened(i, e->talk) >= 0;

		r.exchanges += e->said == C_NEW && !is_open && !count(i, e->talk, B_FIN);
		r.answered += is_first_byte(i);
		r.gave_up += (e->said == C_FIN || e->said == C_RST) && has_given_up(i);
		r.resets_before += e->said == B_RST && is_open;
		r.resets_after += e->said == B_RST && !is_open && left(i, e->talk) < 0 && count(i, e->talk, B_NEW);
		r.retransmissions_up += e->said == C_AGAIN;
		r.retransmissions_down += e->said == B_AGAIN;
	}
	for (unsigned t = 0; t < TALKS; t++) {
		int began = opened(model.n, t), went = left(model.n, t);
		bool reset = count(model.n, t, B_RST);

		r.success += count(model.n, t, B_NEW) > 0;
		r.failed += reset && !count(model.n, t, B_NEW) && opened(last(model.n, t, B_RST), t) >= 0;
		r.open += began >= 0 && lasts(model.events[began].at_ns, 30000000);
		r.one_way += began >= 0 && !lasts(model.events[began].at_ns, 30000000);
		r.zombies += went >= 0 && lasts(model.events[went].at_ns, zombie_us(went));
	}
	return r;
}

static void compare_with_model(void)
{
	struct signal_report want = expected(), r = signals_of(&model.talks[0]);
	struct histogram_sum first_byte = durations(&model.talks[0], DURATION_FIRST_BYTE);
	uint64_t n = 0, sum_us = 0;

	for (unsigned i = 0; i < model.n; i++) {
		n += is_sample(i);
		sum_us += is_sample(i) ? waited_us(i) : 0;
	}
	assert_int_equal(r.exchanges, want.exchanges);
	assert_int_equal(r.answered, want.answered);
	assert_int_equal(r.gave_up, want.gave_up);
	assert_int_equal(r.resets_before, want.resets_before);
	assert_int_equal(r.resets_after, want.resets_after);
	assert_int_equal(r.retransmissions_up, want.retransmissions_up);
	assert_int_equal(r.retransmissions_down, want.retransmissions_down);
	assert_int_equal(r.open, want.open);
	assert_int_equal(r.one_way, want.one_way);
	assert_int_equal(r.zombies, want.zombies);
	assert_int_equal(r.success, want.success);
	assert_int_equal(r.failed, want.failed);
	assert_int_equal(first_byte.n, n);
	assert_int_equal(first_byte.sum_us, sum_us);
}

/* What has been sent of a side's numbers: data, and the FIN. */
static uint32_t sent_by(unsigned t, bool client)
{
	return count(model.n, t, client ? C_NEW : B_NEW) * BYTES + count(model.n, t, client ? C_FIN : B_FIN);
}

static bool may_say(unsigned t, enum said said)
{
	bool client = said <= C_RST, fin = count(model.n, t, client ? C_FIN : B_FIN);

	if (count(model.n, t, C_RST) || count(model.n, t, B_RST))
		return false;
	if (said == C_AGAIN || said == B_AGAIN)
		return count(model.n, t, client ? C_NEW : B_NEW);
	return !fin || said == C_RST || said == B_RST;
}

static void say(unsigned t, enum said said)
{
	static const uint8_t flags[SAID_KINDS] = {
		[C_NEW] = TCP_ACK, [C_AGAIN] = TCP_ACK, [C_FIN] = TCP_FIN | TCP_ACK, [C_RST] = TCP_RST | TCP_ACK,
		[B_NEW] = TCP_ACK, [B_AGAIN] = TCP_ACK, [B_FIN] = TCP_FIN | TCP_ACK, [B_RST] = TCP_RST | TCP_ACK,
	};
	const struct talk *talk = &model.talks[t];
	bool client = said <= C_RST, again = said == C_AGAIN || said == B_AGAIN;
	uint32_t at = sent_by(t, client);
	struct frame_spec spec;

	if (again)
		at = (count(model.n, t, client ? C_NEW : B_NEW) - 1) * BYTES;
	spec = client ? from_client(talk, flags[said], ISN + 1 + at, PEER + 1)
		      : from_backend(talk, flags[said], PEER + 1 + at, ISN + 1);
	exchange(client ? RIG_WAN : RIG_LAN,
		 said == C_NEW || said == B_NEW || again ? with_payload(spec, BYTES) : spec);
	model.events[model.n++] = (struct event){rig.now_ns, t, said};
}

/* The worker whose flow the next one is. */
static void begin_talk(bool v6, unsigned t)
{
	uint64_t before[2] = {0};

	for (unsigned i = 0; i < n_workers; i++)
		before[i] = rig.dp->workers[i]->wheel.n_flows;
	model.talks[t] = establish(v6, 7 * t);
	model.begun_ns[t] = rig.now_ns;
	for (unsigned i = 0; i < n_workers; i++)
		if (rig.dp->workers[i]->wheel.n_flows > before[i])
			model.worker[t] = i;
}

/* Mostly data; ends seldom enough for talks to be long. */
static enum said draw(uint64_t *random)
{
	static const enum said from[] = {C_NEW, C_NEW, C_NEW, C_NEW, B_NEW, B_NEW, B_NEW, B_NEW, C_AGAIN, B_AGAIN};
	uint64_t r = frame_random(random);

	if (r % 16 == 0)
		return (enum said[]){C_FIN, C_RST, B_FIN, B_RST}[r >> 32 & 3];
	return from[(r >> 32) % (sizeof(from) / sizeof(from[0]))];
}

static uint64_t pause_us(uint64_t *random)
{
	uint64_t r = frame_random(random);

	switch (r % 16) {
	case 0:
		return (r >> 32) % 4000000;
	case 1 ... 4:
		return (r >> 32) % 400000;
	default:
		return (r >> 32) % 20000;
	}
}

static void random_talks(bool v6, unsigned workers)
{
	for (uint64_t seed = 0; seed < 30; seed++) {
		uint64_t random = seed * 4 + v6 * 2 + workers;

		start((struct rig_config){.n_backends = 1, .n_workers = workers});
		memset(&model, 0, sizeof(model));
		for (unsigned t = 0; t < TALKS; t++)
			begin_talk(v6, t);
		for (unsigned i = 0; i < 150; i++) {
			unsigned t = frame_random(&random) % TALKS;
			enum said said = draw(&random);

			pass_us(pause_us(&random));
			if (!may_say(t, said))
				continue;
			say(t, said);
			compare_with_model();
		}
		/* Long enough for all that ends by itself. */
		for (unsigned i = 0; i < 8; i++) {
			pass_ms(5100);
			compare_with_model();
		}
		stop();
	}
}

static void test_random_talks(void **state)
{
	each_way(random_talks);
}

static int setup(void **state)
{
	return rig_eal(192, false, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_handshake_left),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_first_byte),
		cmocka_unit_test(test_data_with_the_handshake),
		cmocka_unit_test(test_sent_again),
		cmocka_unit_test(test_server_first),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_gave_up),
		cmocka_unit_test(test_reset_by_both),
		cmocka_unit_test(test_half_closed),
		cmocka_unit_test(test_gave_up_by_the_median),
		cmocka_unit_test(test_zombies_by_the_mean),
		cmocka_unit_test(test_zombies_hold_their_slot),
		cmocka_unit_test(test_one_way),
		cmocka_unit_test(test_shut_window),
		cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_not_stalled),
		cmocka_unit_test(test_stall_not_heard),
		cmocka_unit_test(test_outcomes),
		cmocka_unit_test(test_datagrams),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_records_end),
		cmocka_unit_test(test_window_moves_on),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_stalled_worker),
		cmocka_unit_test(test_histogram),
		cmocka_unit_test(test_histogram_lately),
		cmocka_unit_test(test_random_talks),
		cmocka_unit_test(test_not_waited_for),
		cmocka_unit_test(test_waited_for_an_hour),
		cmocka_unit_test(test_asked_too_late),
		cmocka_unit_test(test_handshake_odd),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
