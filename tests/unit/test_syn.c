/* SPDX-License-Identifier: BSD-3-Clause */
/* A client's SYN that is kept and made again. */
#include "talk.h"

#include "syn.h"

#include <netinet/in.h>
#include <string.h>

#include <rte_mbuf.h>

/* A SYN with options in an item, as the pipeline would have it; the frame stays the caller's. */
static struct item parsed(bool v6, const uint8_t *options, unsigned len, uint8_t *frame)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = 9};
	struct frame_spec spec = with_payload(from_client(&t, TCP_SYN | TCP_ECE | TCP_CWR, 0xfffffff0, 0), len);
	struct item it = {.frame = frame, .ref = FLOW_REF_NONE};
	size_t frame_len = frame_make(&spec, frame);
	uint8_t *l4 = frame + ETH + (v6 ? 40 : 20);

	/* The payload becomes options. */
	memcpy(l4 + 20, options, len);
	l4[12] = (20 + len) / 4 << 4;
	assert_int_equal(parse(frame, frame_len, &it.p), VERDICT_NONE);
	return it;
}

static struct syn kept_of(const struct item *it)
{
	struct syn syn = {
		.src = packet_src(it->frame, &it->p),
		.dst = packet_dst(it->frame, &it->p),
		.sport_be = it->p.sport_be,
		.dport_be = it->p.dport_be,
	};

	syn_keep(&syn.kept, it);
	return syn;
}

/* All that the client said of itself is there again. */
static void check_made_again(bool v6, const uint8_t *options, unsigned len, const uint8_t *expected)
{
	uint8_t frame[FRAME_MAX];
	struct item it, again;
	struct syn syn;
	unsigned l3 = v6 ? 40 : 20;

	start((struct rig_config){.n_backends = 1});
	it = parsed(v6, options, len, frame);
	syn = kept_of(&it);
	assert_true(syn_make(rig.worker, &syn, &again));
	assert_null(frame_checksum_error(again.frame));
	assert_int_equal(again.m->data_len, ETH + l3 + 20 + len);
	assert_int_equal(again.p.tcp_flags, TCP_SYN | TCP_ECE | TCP_CWR);
	assert_int_equal(again.p.ttl, it.p.ttl);
	assert_int_equal(again.ref, FLOW_REF_NONE);
	/* Addresses, ports and numbers, window. */
	assert_memory_equal(again.frame + ETH + (v6 ? 8 : 12), frame + ETH + (v6 ? 8 : 12), v6 ? 32 : 8);
	assert_memory_equal(again.frame + ETH + l3, frame + ETH + l3, 16);
	assert_memory_equal(again.frame + ETH + l3 + 20, expected, len);
	rte_pktmbuf_free(again.m);
	stop();
}

static void test_made_again(void **state)
{
	static const uint8_t linux_options[] = {2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7};

	for (int v6 = 0; v6 < 2; v6++) {
		check_made_again(v6, linux_options, sizeof(linux_options), linux_options);
		check_made_again(v6, linux_options, 0, linux_options);
	}
}

static void test_fast_open_is_taken_out(void **state)
{
	static const uint8_t options[] = {2, 4, 5, 180, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1};
	static const uint8_t expected[] = {2, 4, 5, 180, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

	for (int v6 = 0; v6 < 2; v6++)
		check_made_again(v6, options, sizeof(options), expected);
}

/* Nothing behind the header is read, whatever an option says of its length. */
static void test_malformed_options_stay(void **state)
{
	static const uint8_t cases[][8] = {
		{34},
		{34, 0, 1, 2, 3, 4, 5, 6},
		{34, 1, 2, 3, 4, 5, 6, 7},
		{1, 1, 1, 1, 1, 1, 34, 3},
		{1, 1, 1, 1, 1, 1, 1, 34},
		{34, 9, 0, 0, 0, 0, 0, 0},
		{2, 255, 34, 2, 1, 1, 1, 1},
		{0, 34, 2, 1, 1, 1, 1, 1},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		check_made_again(false, cases[i], sizeof(cases[i]), cases[i]);
}

/* What a flow keeps is the SYN of its client, before any translation. */
static void test_of_flow(void **state)
{
	for (int v6 = 0; v6 < 2; v6++) {
		const struct worker *w;
		struct ipaddr client, vip;
		struct syn syn;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_TCP, v6, 5);
		w = rig.worker;
		syn_of_flow(&w->flows, flow_ref_make(v6, v6 ? w->flows.pool6.free[0] : w->flows.pool4.free[0], DIR_UP),
			    &syn);
		client = rig_client(t.client, v6);
		vip = rig_vip(v6);
		assert_true(ipaddr_equal(&syn.src, &client) && ipaddr_equal(&syn.dst, &vip));
		assert_int_equal(syn.sport_be, rig_client_port_be(t.client));
		assert_int_equal(syn.dport_be, htons(80));
		assert_int_equal(syn.kept.isn, ISN);
		stop();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made_again),
		cmocka_unit_test(test_fast_open_is_taken_out),
		cmocka_unit_test(test_malformed_options_stay),
		cmocka_unit_test(test_of_flow),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
