/* SPDX-License-Identifier: BSD-3-Clause */
/* The path cure on whole packets: clamps, what routers say, and what comes of it for connections that begin later. */
#include "talk.h"

#include "../slower.h"
#include "checksum.h"
#include "icmp.h"
#include "lookup.h"
#include "mtu.h"
#include "pipeline.h"
#include "rewrite.h"
#include "syn.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_mbuf.h>

#define SECOND_NS 1000000000ull

/* --- SYNs with options --- */

static void fill_tcp_checksum(uint8_t *frame)
{
	uint8_t *ip = frame + ETH;
	struct rte_tcp_hdr *tcp = (void *)(ip + (ip[0] >> 4 == 6 ? 40 : 20));

	tcp->cksum = 0;
	tcp->cksum = ip[0] >> 4 == 6 ? rte_ipv6_udptcp_cksum((void *)ip, tcp) : rte_ipv4_udptcp_cksum((void *)ip, tcp);
}

/* `len`: of the options, a multiple of 4. Returns the frame's length. */
static size_t frame_with_options(const struct frame_spec *spec, const uint8_t *options, unsigned len, uint8_t *frame)
{
	struct frame_spec longer = with_payload(*spec, len);
	size_t frame_len = frame_make(&longer, frame);
	uint8_t *tcp = frame + ETH + (frame[ETH] >> 4 == 6 ? 40 : 20);

	memcpy(tcp + 20, options, len);
	tcp[12] = (20 + len) / 4 << 4;
	fill_tcp_checksum(frame);
	return frame_len;
}

/* At an odd offset, as no stack puts it, between others that must stay. */
#define OPTIONS(mss)                                                                                                   \
	{                                                                                                              \
		1, 2, 4, (mss) >> 8, (mss)&0xff, 4, 2, 1, 3, 3, 7, 1                                                   \
	}
#define OPTIONS_LEN 12

static struct sent pass_options(enum rig_port port, struct frame_spec spec, const uint8_t *options, unsigned len)
{
	uint8_t frame[FRAME_MAX];
	struct sent s;

	feed_raw(port, 0, frame, frame_with_options(&spec, options, len, frame));
	turn();
	take_right(&s);
	take_none();
	return s;
}

static struct sent pass_mss(enum rig_port port, struct frame_spec spec, uint16_t mss)
{
	const uint8_t options[] = OPTIONS(mss);

	return pass_options(port, spec, options, sizeof(options));
}

/* And nothing else of the options has changed. */
static uint16_t mss_of(const struct sent *s)
{
	const uint8_t *options = s->frame + s->p.l4_off + 20;
	uint16_t mss = options[3] << 8 | options[4];
	const uint8_t expected[] = OPTIONS(mss);

	assert_int_equal(s->p.payload_off - s->p.l4_off, 20 + OPTIONS_LEN);
	assert_memory_equal(options, expected, sizeof(expected));
	return mss;
}

/* A client's SYN on its way to the backend. */
static uint16_t syn_through(bool v6, unsigned client, uint16_t mss, struct talk *t)
{
	struct talk talk = {.v6 = v6, .proto = PROTO_TCP, .client = client};
	struct sent s = pass_mss(RIG_WAN, from_client(&talk, TCP_SYN, ISN, 0), mss);

	learn(&talk, &s);
	if (t)
		*t = talk;
	return mss_of(&s);
}

/* Its answer, on its way back. */
static uint16_t syn_ack_through(const struct talk *t, uint16_t mss)
{
	struct sent s = pass_mss(RIG_LAN, from_backend(t, TCP_SYN | TCP_ACK, PEER, ISN + 1), mss);

	return mss_of(&s);
}

static uint64_t ptbs(enum ptb result)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->ledger.ptb[result];
	return n;
}

static unsigned full(bool v6, unsigned mtu)
{
	return mtu - (v6 ? 60 : 40);
}

/* --- clamp --- */

/* C.12.1: SYN and SYN-ACK alike, to the smaller link; never raised; and C-1. */
static void test_clamp(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
		assert_int_equal(syn_through(v6, 1, full(v6, 1500), &t), full(v6, 1400));
		assert_int_equal(syn_through(v6, 1, full(v6, 1500), &t), full(v6, 1400)); /* sent again */
		assert_int_equal(syn_ack_through(&t, 8960), full(v6, 1400));
		assert_int_equal(syn_ack_through(&t, 536), 536);
		assert_int_equal(syn_through(v6, 2, 536, NULL), 536);
		assert_int_equal(syn_through(v6, 3, full(v6, 1400), NULL), full(v6, 1400));
		assert_int_equal(did(ACTION_clamp), 3);
		assert_int_equal(would(ACTION_clamp), 0);
		stop();
		/* Where both links carry 1500, that is what counts; a floor holds it up on a tiny one. */
		start((struct rig_config){.n_backends = 1});
		assert_int_equal(syn_through(v6, 1, full(v6, 1500), &t), full(v6, 1500));
		assert_int_equal(syn_ack_through(&t, 8960), full(v6, 1500));
		stop();
		start((struct rig_config){.n_backends = 1, .lan_mtu = 200});
		assert_int_equal(syn_through(v6, 1, full(v6, 1500), &t), v6 ? 1220 : 536);
		stop();
	}
}

/* The link of the other side counts too, at the first SYN already. */
static void test_clamp_to_either_link(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		dataplane_port_set_link(rig.dp, RIG_WAN, true, 1300);
		assert_int_equal(syn_through(v6, 1, full(v6, 1500), &t), full(v6, 1300));
		assert_int_equal(syn_ack_through(&t, full(v6, 1500)), full(v6, 1300));
		dataplane_port_set_link(rig.dp, RIG_LAN, true, 1290);
		assert_int_equal(syn_ack_through(&t, full(v6, 1500)), full(v6, 1290));
		stop();
	}
}

static void unchanged(const uint8_t *options, unsigned len)
{
	struct talk t = {.proto = PROTO_TCP, .client = 1};
	struct sent s = pass_options(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0), options, len);

	assert_int_equal(s.p.payload_off - s.p.l4_off, 20 + len);
	assert_memory_equal(s.frame + s.p.l4_off + 20, options, len);
}

static void test_odd_lists(void **state)
{
	static const uint8_t cut_off[] = {2, 4, 5, 180, 1, 1, 1, 8}, endless[] = {3, 0, 2, 4, 5, 180, 1, 1};
	static const uint8_t none[] = {4, 2, 1, 1}, ended[] = {1, 1, 1, 0, 2, 4, 5, 180};
	static const uint8_t twice[] = {2, 4, 5, 180, 2, 4, 35, 40}, lowered[] = {2, 4, 5, 80, 2, 4, 5, 80};
	struct talk t = {.proto = PROTO_TCP, .client = 2};
	struct sent s;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
	unchanged(cut_off, sizeof(cut_off));
	unchanged(endless, sizeof(endless));
	assert_int_equal(rig.worker->ledger.mss_malformed, 2);
	unchanged(none, sizeof(none));
	unchanged(none, 0);
	unchanged(ended, sizeof(ended));
	assert_int_equal(rig.worker->ledger.mss_malformed, 2);
	assert_int_equal(did(ACTION_clamp), 0);
	s = pass_options(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0), twice, sizeof(twice));
	assert_memory_equal(s.frame + s.p.l4_off + 20, lowered, sizeof(lowered));
	stop();
}

/* Only with SYN: an established packet keeps what looks like an MSS. */
static void test_syn_only(void **state)
{
	static const uint8_t options[] = OPTIONS(1460);
	struct talk t;
	struct sent s;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
	t = establish(false, 1);
	s = pass_options(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), options, sizeof(options));
	assert_int_equal(mss_of(&s), 1460);
	stop();
}

static void test_service_off(void **state)
{
	start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
	rig.service.clamp_mss = false;
	assert_int_equal(syn_through(false, 1, 1460, NULL), 1460);
	assert_int_equal(did(ACTION_clamp) + would(ACTION_clamp), 0);
	stop();
}

/* A SYN that is made again passes the same place. */
static void test_made_again(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct worker *w;
		struct item *it;
		struct sent s = {0};
		struct syn syn;

		start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
		syn_through(v6, 1, full(v6, 1500), NULL);
		w = rig.worker;
		it = &w->burst.items[0];
		syn_of_flow(&w->flows, flow_ref_make(v6, v6 ? w->flows.pool6.free[0] : w->flows.pool4.free[0], DIR_UP),
			    &syn);
		assert_true(syn_make(w, &syn, it));
		it->ref = flow_find(w, it);
		w->burst.n = 1;
		pipeline_stamp(w, &w->burst);
		rewrite_burst(w, &w->burst);
		assert_int_equal(it->verdict, VERDICT_forwarded);
		s.p = it->p;
		memcpy(s.frame, it->frame, it->m->data_len);
		assert_int_equal(mss_of(&s), full(v6, 1400));
		assert_null(frame_checksum_error(s.frame));
		rte_pktmbuf_free(it->m);
		stop();
	}
}

/* --- what routers say --- */

static struct ipaddr router(bool v6)
{
	return rig_client(60000, v6);
}

/* Decide's part: what the workers' notes come to. Returns how many there were. */
static unsigned decide(void)
{
	struct note notes[256];
	unsigned n = 0;

	for (size_t i = 0, got = dataplane_notes(rig.dp, notes, 256); i < got; i++)
		if (notes[i].kind == NOTE_PATH_MTU) {
			dataplane_path_learn(rig.dp, notes[i].path.upstream, &notes[i].path.to, notes[i].path.mtu);
			n++;
		}
	return n;
}

/* A packet too big about what left, from a router on that side. */
static size_t ptb_about(const struct sent *s, uint32_t mtu, uint8_t *frame)
{
	bool v6 = s->p.family == 6;

	return make_error(frame, s->frame, router(v6), v6 ? 2 : 3, v6 ? 0 : 4, mtu);
}

static void say_ptb(const struct sent *s, uint32_t mtu)
{
	uint8_t frame[FRAME_MAX];

	feed_raw(s->port, 0, frame, ptb_about(s, mtu, frame));
	turn();
}

/* 1500 bytes from the backend, not acknowledged. */
static struct frame_spec big_down(const struct talk *t, uint32_t at)
{
	return with_payload(from_backend(t, TCP_ACK, PEER + 1 + at, ISN + 1), full(t->v6, 1500));
}

static struct frame_spec big_up(const struct talk *t)
{
	return with_payload(from_client(t, TCP_ACK, ISN + 1, PEER + 1), full(t->v6, 1500));
}

static uint32_t told_mtu(const struct sent *s)
{
	return s->frame[s->p.l4_off + 6] << 8 | s->frame[s->p.l4_off + 7];
}

/* C.12.2 and 10: the client's next connection is clamped, another client's is not; the backend hears of it. */
static void test_learn_client(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct frame_spec big;
		struct sent s, error;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = establish(v6, 1);
		big = big_down(&t, 0);
		s = exchange(RIG_LAN, big);
		say_ptb(&s, 1400);
		take_right(&error);
		check_error(&error, RIG_LAN, &big);
		assert_int_equal(told_mtu(&error), 1400);
		assert_int_equal(ptbs(PTB_noted), 1);
		assert_int_equal(decide(), 1);
		t.client += 65536; /* the same address, another port */
		assert_int_equal(syn_through(v6, t.client, full(v6, 1500), &t), full(v6, 1400));
		assert_int_equal(syn_ack_through(&t, full(v6, 1500)), full(v6, 1400));
		assert_int_equal(syn_through(v6, 2, full(v6, 1500), &t), full(v6, 1500));
		assert_int_equal(syn_ack_through(&t, full(v6, 1500)), full(v6, 1500));
		stop();
	}
}

/* C.5: about the way to a backend, it clamps whoever connects there. */
static void test_learn_upstream(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct frame_spec big;
		struct sent s, error;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = establish(v6, 1);
		big = big_up(&t);
		s = exchange(RIG_WAN, big);
		say_ptb(&s, 1300);
		take_right(&error);
		check_error(&error, RIG_WAN, &big);
		assert_int_equal(decide(), 1);
		assert_int_equal(syn_through(v6, 2, full(v6, 1500), &t), full(v6, 1300));
		assert_int_equal(syn_ack_through(&t, full(v6, 1500)), full(v6, 1300));
		/* 600 s later it is gone (C-5). */
		rig.now_ns += 600 * SECOND_NS;
		assert_int_equal(syn_through(v6, 3, full(v6, 1500), &t), full(v6, 1500));
		stop();
	}
}

/* C.12.9: one lie does as much harm as the floor allows, to one client, for ten minutes. */
static void test_forged_mtu(void **state)
{
	struct sent s, error;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 1);
	s = exchange(RIG_LAN, big_down(&t, 0));
	say_ptb(&s, 68);
	take_right(&error);
	assert_int_equal(told_mtu(&error), 576);
	decide();
	assert_int_equal(syn_through(false, 65537, 1460, NULL), 536);
	assert_int_equal(syn_through(false, 2, 1460, NULL), 1460);
	rig.now_ns += 600 * SECOND_NS;
	assert_int_equal(syn_through(false, 2 * 65536 + 1, 1460, NULL), 1460);
	stop();
}

/* Repeated news is told once a second, confirmed again after a minute; more than is known is not told. */
static void test_told_once(void **state)
{
	struct sent s, error;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 1);
	s = exchange(RIG_LAN, big_down(&t, 0));
	for (int i = 0; i < 5; i++) {
		say_ptb(&s, 1400);
		take_right(&error);
	}
	assert_int_equal(ptbs(PTB_repeated), 4);
	assert_int_equal(decide(), 1);
	say_ptb(&s, 1400);
	take_right(&error);
	assert_int_equal(ptbs(PTB_known), 1);
	say_ptb(&s, 1450);
	take_right(&error);
	assert_int_equal(ptbs(PTB_larger), 1);
	say_ptb(&s, 1300);
	take_right(&error);
	pass_ms(62000);
	say_ptb(&s, 1400);
	take_right(&error);
	assert_int_equal(ptbs(PTB_noted), 3);
	assert_int_equal(decide(), 2);
	stop();
}

/* However many flows hear of a small link at once, the ring to decide keeps room. */
static void test_notes_are_limited(void **state)
{
	struct sent s, error;
	struct talk t;
	uint64_t before;

	start((struct rig_config){.n_backends = 1, .flows_v4 = 2048});
	for (unsigned i = 0; i < 1500; i++) {
		t = establish(false, i);
		s = exchange(RIG_LAN, big_down(&t, 0));
		say_ptb(&s, 1400);
		take_right(&error);
	}
	assert_int_equal(rig.worker->notes_lost, 0);
	assert_int_equal(ptbs(PTB_limited), 1500 - ptbs(PTB_noted));
	assert_in_range(ptbs(PTB_noted), 128, 129);
	while (decide())
		;
	assert_int_equal(rig.dp->mtus.of_kind[PATH_CLIENT], ptbs(PTB_noted));
	/* A while later there is room for some more. */
	rig.now_ns += SECOND_NS / 50;
	before = ptbs(PTB_noted);
	for (unsigned i = 1500; i < 1600; i++) {
		t = establish(false, i);
		s = exchange(RIG_LAN, big_down(&t, 0));
		say_ptb(&s, 1400);
		take_right(&error);
	}
	assert_int_equal(ptbs(PTB_noted), before + 5);
	stop();
}

/* --- who may be believed --- */

/* As a download goes: 1500 bytes at a time, each acknowledged. Returns what was acknowledged. */
static uint32_t download(const struct talk *t, unsigned segments)
{
	uint32_t at = 0, len = full(t->v6, 1500);

	for (unsigned i = 0; i < segments; i++) {
		exchange(RIG_LAN, big_down(t, at));
		at += len;
		exchange(RIG_WAN, from_client(t, TCP_ACK, ISN + 1, PEER + 1 + at));
	}
	return at;
}

/*
 * RFC 5927 7.2: what contradicts a connection's own segments waits until they fail. Progress proves it a lie; a second
 * one while nothing moved is the truth.
 */
static void test_contradiction(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct sent s, error;
		uint32_t at;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = establish(v6, 1);
		at = download(&t, 60);
		s = exchange(RIG_LAN, big_down(&t, at));
		for (int i = 0; i < 3; i++)
			say_ptb(&s, 1400);
		take_none();
		assert_int_equal(verdicts(VERDICT_drop_ptb_held), 3);
		assert_int_equal(ptbs(PTB_contradicted), 3);
		assert_int_equal(did(ACTION_hold_ptb), 3);
		/* It arrived after all. */
		at += full(v6, 1500);
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1 + at));
		pass_ms(200);
		s = exchange(RIG_LAN, big_down(&t, at));
		say_ptb(&s, 1400);
		take_none();
		assert_int_equal(decide(), 0);
		/* This one does not: its sender tries again. */
		pass_ms(200);
		exchange(RIG_LAN, big_down(&t, at));
		say_ptb(&s, 1400);
		take_right(&error);
		assert_int_equal(decide(), 1);
		assert_int_equal(verdicts(VERDICT_drop_ptb_held), 4);
		stop();
	}
}

/* What was lost on the way proves nothing: a connection that never got a big segment through is believed at once. */
static void test_no_contradiction(void **state)
{
	struct sent s, error;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 1);
	for (unsigned i = 0; i < 200; i++)
		s = exchange(RIG_LAN, big_down(&t, i % 10 * 1460));
	say_ptb(&s, 1400);
	take_right(&error);
	/* Nor do segments that fit. */
	t = establish(false, 2);
	for (uint32_t at = 0; at < 60 * 1360; at += 1360) {
		exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1 + at, ISN + 1), 1360));
		exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1 + at + 1360));
	}
	s = exchange(RIG_LAN, big_down(&t, 60 * 1360));
	say_ptb(&s, 1400);
	take_right(&error);
	assert_int_equal(ptbs(PTB_noted), 2);
	stop();
}

/* The other way round it is the client's numbers that count. */
static void test_contradiction_upwards(void **state)
{
	struct sent s;
	struct talk t;
	uint32_t at = 0;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 1);
	for (unsigned i = 0; i < 60; i++, at += 1460) {
		exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1 + at, PEER + 1), 1460));
		exchange(RIG_LAN, from_backend(&t, TCP_ACK, PEER + 1, ISN + 1 + at + 1460));
	}
	s = exchange(RIG_WAN, with_payload(from_client(&t, TCP_ACK, ISN + 1 + at, PEER + 1), 1460));
	say_ptb(&s, 1400);
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_ptb_held), 1);
	stop();
}

/* A quote that is longer than all that is under way was never seen by its sender; the endpoint may judge, too. */
static void test_implausible(void **state)
{
	struct sent s, error;
	struct talk t;
	uint16_t longer = htons(1400);

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 1);
	s = exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 600));
	say_ptb(&s, 576);
	take_right(&error);
	assert_int_equal(ptbs(PTB_noted), 1);
	decide();
	t = establish(false, 2);
	s = exchange(RIG_LAN, with_payload(from_backend(&t, TCP_ACK, PEER + 1, ISN + 1), 600));
	memcpy(s.frame + ETH + 2, &longer, 2);
	frame_fix_ip4(s.frame + ETH);
	say_ptb(&s, 576);
	take_right(&error);
	assert_int_equal(ptbs(PTB_implausible), 1);
	assert_int_equal(decide(), 0);
	stop();
}

/* Nothing in it proves that its sender saw the packet: it is passed on and teaches nothing. */
static void test_udp(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct frame_spec big;
		struct sent s, error;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_UDP, v6, 1);
		big = with_payload(from_backend(&t, 0, 0, 0), 1400);
		s = exchange(RIG_LAN, big);
		say_ptb(&s, 1300);
		take_right(&error);
		check_error(&error, RIG_LAN, &big);
		assert_int_equal(ptbs(PTB_unproven), 1);
		assert_int_equal(decide(), 0);
		stop();
	}
}

/* An error goes to whom the quoted packet came from. */
static void test_wrong_receiver(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct sent s;
	struct talk t;
	uint32_t snat_be, was_be;
	size_t len;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 1);
	snat_be = ipaddr_v4_be(&t.snat);
	s = exchange(RIG_LAN, big_down(&t, 0));
	len = ptb_about(&s, 1400, frame);
	memcpy(&was_be, frame + ETH + 16, 4);
	memcpy(frame + ETH + 16, &snat_be, 4);
	frame_fix_ip4(frame + ETH);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_icmp_quote), 1);
	assert_int_equal(ptbs(PTB_bad_quote), 1);
	memcpy(frame + ETH + 16, &was_be, 4);
	frame_fix_ip4(frame + ETH);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	take_right(&s);
	stop();
}

/* An error about the quoted header alone, checksums right. Returns the frame's length. */
static size_t shorten(uint8_t *frame, bool v6)
{
	size_t l3 = v6 ? 40 : 20, icmp_len = 8 + l3 + 20;
	uint16_t len_be = htons(v6 ? icmp_len : l3 + icmp_len), sum;
	uint8_t *icmp = frame + ETH + l3;

	memcpy(frame + ETH + (v6 ? 4 : 2), &len_be, 2);
	memset(icmp + 2, 0, 2);
	if (v6) {
		uint32_t all = rte_ipv6_phdr_cksum((void *)(frame + ETH), 0) + rte_raw_cksum(icmp, icmp_len);

		sum = ~((all & 0xffff) + (all >> 16));
	} else {
		frame_fix_ip4(frame + ETH);
		sum = ~rte_raw_cksum(icmp, icmp_len);
	}
	memcpy(icmp + 2, &sum, 2);
	assert_null(frame_checksum_error(frame));
	return ETH + l3 + icmp_len;
}

static void set_quoted_seq(uint8_t *frame, bool v6, uint32_t seq)
{
	uint8_t *icmp = frame + ETH + (v6 ? 40 : 20), *quoted = icmp + 8 + (v6 ? 40 : 20) + 4;
	uint32_t was_be, seq_be = htonl(seq);
	uint16_t sum;

	memcpy(&was_be, quoted, 4);
	memcpy(quoted, &seq_be, 4);
	memcpy(&sum, icmp + 2, 2);
	sum = csum_apply(sum, csum_delta_fold(csum_delta32(0, was_be, seq_be)));
	memcpy(icmp + 2, &sum, 2);
}

/* C-4: a million with the right tuple and random numbers change not a byte, but for the few that hit the window. */
static void test_random_numbers(void **state)
{
	const unsigned n = 1000000 / SLOWER;

	for (int v6 = 0; v6 < 2; v6++) {
		uint8_t frame[FRAME_MAX], before[sizeof(struct flow6)];
		uint64_t random = 42 + v6;
		unsigned passed = 0;
		struct sent s;
		struct talk t;
		size_t len, entry_len = v6 ? sizeof(struct flow6) : sizeof(struct flow4);
		void *entry;

		start((struct rig_config){.n_backends = 1});
		t = establish(v6, 1);
		s = exchange(RIG_LAN, big_down(&t, 0));
		ptb_about(&s, 1400, frame);
		len = shorten(frame, v6);
		entry = v6 ? (void *)&rig.worker->flows.flows6[rig.worker->flows.pool6.free[0]]
			   : (void *)&rig.worker->flows.flows4[rig.worker->flows.pool4.free[0]];
		memcpy(before, entry, entry_len);
		for (unsigned i = 0; i < n; i++) {
			set_quoted_seq(frame, v6, frame_random(&random));
			feed_raw(RIG_WAN, 0, frame, len);
			if (i % BURST_MAX == BURST_MAX - 1 || i == n - 1)
				turn();
			while (take(&s))
				passed++;
		}
		assert_int_equal(ptbs(PTB_forged), n - passed);
		assert_true(passed <= 3); /* 1500 / 2^32 of them: 0.3 */
		assert_int_equal(decide(), passed ? 1 : 0);
		assert_memory_equal(entry, before, entry_len);
		/* The same frame with the right number is taken. */
		set_quoted_seq(frame, v6, PEER + 1);
		feed_raw(RIG_WAN, 0, frame, len);
		turn();
		take_right(&s);
		assert_memory_equal(entry, before, entry_len);
		stop();
	}
}

/* --- modes --- */

struct wire {
	struct sent sent[8];
	unsigned n;
};

static void keep(struct wire *wire, struct sent s)
{
	wire->sent[wire->n++] = s;
}

/* All that the path cure would touch: a clamp of either side, news, and what is held back. */
static struct wire story(bool v6, enum cure_mode mode)
{
	struct wire wire = {.n = 0};
	struct sent s, error;
	uint32_t at;
	struct talk t;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 1490});
	rig.policy.modes.of[CURE_PATH] = mode;
	t = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = 1};
	s = pass_mss(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0), full(v6, 1500));
	keep(&wire, s);
	learn(&t, &s);
	keep(&wire, pass_mss(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1), full(v6, 1500)));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	s = exchange(RIG_LAN, big_down(&t, 0));
	say_ptb(&s, 1400);
	take_right(&error);
	keep(&wire, error);
	decide();
	t.client += 65536;
	s = pass_mss(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0), full(v6, 1500));
	keep(&wire, s);
	learn(&t, &s);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	at = download(&t, 60);
	s = exchange(RIG_LAN, big_down(&t, at));
	say_ptb(&s, 1300);
	if (take(&error))
		keep(&wire, error);
	decide();
	return wire;
}

/* Not a byte differs from off; what would have been done is counted, and learned. */
static void test_shadow(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct wire off, shadow;
		struct ipaddr client = rig_client(1, v6);

		off = story(v6, CURE_OFF);
		assert_int_equal(ptbs(PTB_off), 2);
		assert_int_equal(rig.dp->mtus.n, 0);
		assert_int_equal(did(ACTION_clamp) + would(ACTION_clamp) + would(ACTION_hold_ptb), 0);
		stop();
		shadow = story(v6, CURE_SHADOW);
		assert_int_equal(did(ACTION_clamp) + did(ACTION_hold_ptb), 0);
		assert_int_equal(would(ACTION_clamp), 3);
		assert_int_equal(would(ACTION_hold_ptb), 1);
		assert_int_equal(mtu_of_client(&rig.dp->mtus, &client, rig.now_ns), 1400);
		stop();
		assert_int_equal(off.n, 5);
		assert_int_equal(shadow.n, off.n);
		for (unsigned i = 0; i < off.n; i++) {
			assert_int_equal(shadow.sent[i].len, off.sent[i].len);
			assert_int_equal(shadow.sent[i].port, off.sent[i].port);
			assert_memory_equal(shadow.sent[i].frame, off.sent[i].frame, off.sent[i].len);
		}
		assert_int_equal(story(v6, CURE_ENFORCE).n, 4);
		assert_int_equal(did(ACTION_clamp), 3);
		assert_int_equal(did(ACTION_hold_ptb), 1);
		stop();
	}
}

/* A flow keeps the mode of its birth. */
static void test_mode_change(void **state)
{
	struct talk t;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
	rig.policy.modes.of[CURE_PATH] = CURE_OFF;
	assert_int_equal(syn_through(false, 1, 1460, &t), 1460);
	rig.policy.modes.of[CURE_PATH] = CURE_ENFORCE;
	assert_int_equal(syn_ack_through(&t, 1460), 1460);
	assert_int_equal(syn_through(false, 2, 1460, &t), 1360);
	rig.policy.modes.of[CURE_PATH] = CURE_OFF;
	assert_int_equal(syn_ack_through(&t, 1460), 1360);
	stop();
}

/* --- made by us --- */

/* C.7: three at once to a flow, then one a second; ten at once to whom many flows belong. */
static void test_answer_limits(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		struct talk t, other;
		struct sent s;
		unsigned n = 0;

		start((struct rig_config){.n_backends = 1, .lan_mtu = 1400});
		t = establish(v6, 1);
		other = establish(v6, 65537);
		for (int i = 0; i < 10; i++) {
			feed(RIG_WAN, big_up(&t));
			feed(RIG_WAN, big_up(&other));
		}
		turn();
		while (take(&s)) {
			assert_int_equal(s.p.kind, PACKET_ICMP_ERROR);
			n++;
		}
		assert_int_equal(n, 6);
		assert_int_equal(verdicts(VERDICT_shed_icmp_limit), 14);
		for (n = 0; n < 5; n++) {
			pass_ms(1000);
			feed(RIG_WAN, big_up(&t));
			feed(RIG_WAN, big_up(&t));
			turn();
			assert_true(take(&s));
			take_none();
		}
		stop();
	}
}

/* C-2: nor does an ICMP error. */
static void test_error_too_big(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct sent s;
	struct talk t;

	start((struct rig_config){.n_backends = 1, .lan_mtu = 500});
	t = establish(false, 1);
	s = exchange(RIG_LAN, big_down(&t, 0));
	feed_raw(RIG_WAN, 0, frame, ptb_about(&s, 1400, frame));
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_too_big), 1);
	stop();
}

/* --- two workers --- */

/* Whichever worker hears of it, and whichever has the next connection. */
static void test_two_workers(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		unsigned n = 0;

		start((struct rig_config){.n_backends = 1, .n_workers = 2});
		for (unsigned i = 0; i < 8; i++) {
			struct talk t = establish(v6, i << 16 | i);
			struct frame_spec big = big_down(&t, 0);
			struct sent s = exchange(RIG_LAN, big), error;

			say_ptb(&s, 1400);
			take_right(&error);
			check_error(&error, RIG_LAN, &big);
			n += decide();
		}
		assert_int_equal(n, 8);
		for (unsigned i = 0; i < 8; i++)
			for (unsigned port = 20; port < 24; port++)
				assert_int_equal(syn_through(v6, port << 16 | i, full(v6, 1500), NULL), full(v6, 1400));
		for (unsigned w = 0; w < 2; w++)
			assert_true(rig.dp->workers[w]->ledger.ptb[PTB_noted] > 0 &&
				    rig.dp->workers[w]->ledger.did[ACTION_clamp] > 0);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clamp),
		cmocka_unit_test(test_clamp_to_either_link),
		cmocka_unit_test(test_odd_lists),
		cmocka_unit_test(test_syn_only),
		cmocka_unit_test(test_service_off),
		cmocka_unit_test(test_made_again),
		cmocka_unit_test(test_learn_client),
		cmocka_unit_test(test_learn_upstream),
		cmocka_unit_test(test_forged_mtu),
		cmocka_unit_test(test_told_once),
		cmocka_unit_test(test_notes_are_limited),
		cmocka_unit_test(test_contradiction),
		cmocka_unit_test(test_no_contradiction),
		cmocka_unit_test(test_contradiction_upwards),
		cmocka_unit_test(test_implausible),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_wrong_receiver),
		cmocka_unit_test(test_random_numbers),
		cmocka_unit_test(test_shadow),
		cmocka_unit_test(test_mode_change),
		cmocka_unit_test(test_answer_limits),
		cmocka_unit_test(test_error_too_big),
		cmocka_unit_test(test_two_workers),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
