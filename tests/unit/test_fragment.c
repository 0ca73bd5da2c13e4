/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Packets without DF that are longer than the MTU of their way: their fragments make the very packet that a wider way
 * would have seen.
 */
#include "talk.h"

#include <string.h>

#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

static void set_mtu(uint32_t mtu)
{
	dataplane_port_set_link(rig.dp, RIG_LAN, true, mtu);
}

/* The packet may be cut; `n_options` bytes of no meaning stand in its header. Returns the frame's length. */
static size_t make(const struct frame_spec *spec, size_t n_options, uint8_t frame[static FRAME_MAX])
{
	size_t len = frame_make(spec, frame);
	uint8_t *ip = frame + ETH;
	uint16_t total_be = htons(len - ETH + n_options);

	memmove(ip + 20 + n_options, ip + 20, len - ETH - 20);
	memset(ip + 20, 1, n_options);
	ip[0] += n_options / 4;
	ip[6] &= ~0x40; /* DF */
	memcpy(ip + 2, &total_be, 2);
	frame_fix_ip4(ip);
	return len + n_options;
}

struct whole {
	size_t header, len; /* of the IP packet */
	uint16_t id_be;
	unsigned n_fragments;
	uint8_t ip[FRAME_MAX];
};

static bool add_fragment(struct whole *w, const struct sent *s, uint32_t mtu)
{
	const struct rte_ipv4_hdr *ip = (const void *)(s->frame + ETH);
	uint16_t field = ntohs(ip->fragment_offset), offset = (field & RTE_IPV4_HDR_OFFSET_MASK) * 8;
	size_t header = rte_ipv4_hdr_len(ip), len = ntohs(ip->total_length) - header;

	assert_int_equal(s->port, RIG_LAN);
	assert_true(ntohs(ip->total_length) <= mtu && s->len == (size_t)ETH + ntohs(ip->total_length));
	assert_int_equal(rte_raw_cksum(ip, header), 0xffff);
	if (w->n_fragments++ == 0) {
		assert_int_equal(offset, 0);
		w->header = header;
		w->id_be = ip->packet_id;
		memcpy(w->ip, ip, header);
	}
	/* In order, and nothing between two of them. */
	assert_int_equal(offset, w->len);
	assert_int_equal(ip->packet_id, w->id_be);
	memcpy(w->ip + w->header + offset, (const uint8_t *)ip + header, len);
	w->len += len;
	return field & RTE_IPV4_HDR_MF_FLAG;
}

/* One frame in; what came out, put together. */
static struct whole send_through(const uint8_t *frame, size_t len, uint32_t mtu)
{
	struct whole w = {0};
	struct sent s;
	bool more;

	set_mtu(mtu);
	feed_raw(RIG_WAN, 0, frame, len);
	turn();
	do {
		assert_true(take(&s));
		more = add_fragment(&w, &s, mtu);
	} while (more);
	take_none();
	return w;
}

/* All but what fragments change: total length, identification, flags, and the header's checksum. */
static void assert_same(const struct whole *a, const struct whole *b)
{
	assert_int_equal(a->len, b->len);
	assert_int_equal(a->header, b->header);
	assert_memory_equal(a->ip, b->ip, 2);
	assert_memory_equal(a->ip + 8, b->ip + 8, 2);
	assert_memory_equal(a->ip + 12, b->ip + 12, a->header - 12 + a->len);
}

static void cut_and_compare(const struct frame_spec *spec, size_t n_options, uint32_t mtu)
{
	uint64_t made = rig.worker->ledger.made[MADE_fragment];
	uint64_t forwarded = ledger_class(&rig.worker->ledger, CLASS_FORWARDED);
	uint8_t frame[FRAME_MAX];
	size_t len = make(spec, n_options, frame);
	struct whole cut = send_through(frame, len, mtu), whole = send_through(frame, len, 2000);

	assert_same(&cut, &whole);
	assert_int_equal(whole.n_fragments, 1);
	assert_int_equal(cut.n_fragments > 1, len - ETH > mtu);
	assert_int_equal(rig.worker->ledger.made[MADE_fragment], made + cut.n_fragments - 1);
	assert_int_equal(ledger_class(&rig.worker->ledger, CLASS_FORWARDED), forwarded + 2);
}

static void test_same_packet(void **state)
{
	static const uint32_t mtus[] = {296, 576, 1006, 1299, 1300};
	static const uint16_t payloads[] = {0, 1, 500, 1271, 1272, 1273, 1400, 1452};

	start((struct rig_config){.n_backends = 1});
	for (int proto = 0; proto < 2; proto++) {
		struct talk t = proto ? establish(false, 3) : begin(PROTO_UDP, false, 4);

		for (size_t m = 0; m < sizeof(mtus) / sizeof(mtus[0]); m++)
			for (size_t p = 0; p < sizeof(payloads) / sizeof(payloads[0]); p++)
				for (size_t n_options = 0; n_options <= 40; n_options += 20) {
					struct frame_spec spec =
						with_payload(from_client(&t, TCP_ACK, ISN + 1, PEER + 1), payloads[p]);

					cut_and_compare(&spec, n_options, mtus[m]);
				}
	}
	set_mtu(1500);
	stop();
}

/* Two packets never have the same identification at a time, whichever worker cuts them. */
static void test_identification(void **state)
{
	static bool seen[65536];
	uint8_t frame[FRAME_MAX];
	unsigned n_of[2] = {0};

	start((struct rig_config){.n_backends = 1, .n_workers = 2});
	for (unsigned i = 0; i < 40; i++) {
		struct talk t = begin(PROTO_UDP, false, i);
		struct frame_spec spec = with_payload(from_client(&t, 0, 0, 0), 1400);
		uint16_t id = ntohs(send_through(frame, make(&spec, 0, frame), 1000).id_be);

		assert_false(seen[id]);
		seen[id] = true;
		set_mtu(1500);
	}
	for (unsigned i = 0; i < 2; i++)
		n_of[i] = rig.dp->workers[i]->ledger.verdicts[VERDICT_forwarded_fragments];
	assert_int_equal(n_of[0] + n_of[1], 40);
	assert_true(n_of[0] && n_of[1]);
	stop();
}

/* One worker of three, beyond 2^16 packets: no identification comes back before all others of its share were used. */
static void test_identification_wraps(void **state)
{
	static unsigned used[65536]; /* by which packet, last */
	const unsigned share = 65536 / 3;
	unsigned first = 65536, last = 0;
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec;
	struct talk t;
	size_t len;

	start((struct rig_config){.n_backends = 1, .n_workers = 3});
	t = begin(PROTO_UDP, false, 4);
	spec = with_payload(from_client(&t, 0, 0, 0), 1400);
	len = make(&spec, 0, frame);
	set_mtu(1000);
	for (unsigned i = 1; i <= 65536 + share + 10; i++) {
		struct sent s;
		unsigned id;

		feed_raw(RIG_WAN, 0, frame, len);
		turn();
		assert_true(take(&s));
		id = ntohs(((const struct rte_ipv4_hdr *)(s.frame + ETH))->packet_id);
		assert_true(take(&s));
		assert_true(!used[id] || i - used[id] >= share);
		used[id] = i;
		first = id < first ? id : first;
		last = id > last ? id : last;
	}
	assert_int_equal(last - first + 1, share);
	stop();
}

/* Without buffers nothing leaves of it, and it has a name. */
static void test_no_buffer(void **state)
{
	struct rte_mbuf *all[4095];
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec;
	unsigned n = 0;
	struct talk t;
	size_t len;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_UDP, false, 4);
	spec = with_payload(from_client(&t, 0, 0, 0), 1400);
	len = make(&spec, 0, frame);
	set_mtu(600);
	feed_raw(RIG_WAN, 0, frame, len);
	while ((all[n] = rte_pktmbuf_alloc(rig.dp->pool)))
		n++;
	/* Room for the first, but not for all three. */
	rte_pktmbuf_free(all[--n]);
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_no_buffer), 1);
	rte_pktmbuf_free_bulk(all, n);
	stop();
}

/* A way so narrow that a packet would become very many. */
static void test_too_many(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct frame_spec spec;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_UDP, false, 4);
	spec = with_payload(from_client(&t, 0, 0, 0), 1400);
	set_mtu(100);
	feed_raw(RIG_WAN, 0, frame, make(&spec, 0, frame));
	turn();
	take_none();
	assert_int_equal(verdicts(VERDICT_drop_too_big), 1);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_packet),
		cmocka_unit_test(test_identification),
		cmocka_unit_test(test_identification_wraps),
		cmocka_unit_test(test_no_buffer),
		cmocka_unit_test(test_too_many),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
