/* SPDX-License-Identifier: BSD-3-Clause */
/* Incremental updates against full recomputation. */
#include "checksum.h"

#include "frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#define N_CASES 1000000
#define N_WORDS 20

/* Words near the ends of the range, where one's complement has its two zeros, and any other as often. */
static uint16_t edgy(uint64_t *random)
{
	static const uint16_t edges[] = {0x0000, 0x0001, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x0100, 0xff00};
	uint64_t r = frame_random(random);

	return r & 1 ? edges[r >> 1 & 7] : r >> 16;
}

/* The first word is not 0, as in every IP header and pseudo-header: only an all-zero sum has another zero. */
static void fill(uint16_t words[static N_WORDS], uint64_t *random)
{
	for (unsigned i = 0; i < N_WORDS; i++)
		words[i] = edgy(random);
	words[0] |= 0x4500;
}

static uint16_t full(const uint16_t words[static N_WORDS])
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < N_WORDS; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void update_equals_full_recomputation(void **state)
{
	uint64_t random = 1;

	for (unsigned n = 0; n < N_CASES; n++) {
		uint16_t words[N_WORDS], old_word, check;
		uint32_t old, new;
		unsigned i = 1 + n % (N_WORDS - 2);

		fill(words, &random);
		check = full(words);
		old_word = words[i];
		words[i] = edgy(&random);
		check = csum_update16(check, old_word, words[i]);
		assert_int_equal(check, full(words));
		memcpy(&old, &words[i], sizeof(old));
		words[i] = edgy(&random);
		words[i + 1] = edgy(&random);
		memcpy(&new, &words[i], sizeof(new));
		assert_int_equal(csum_apply(check, csum_delta_fold(csum_delta32(0, old, new))), full(words));
	}
}

/* A sum of changes of all widths, unfolded; the first bytes stay what fill() made sure of. */
static void sum_equals_full_recomputation(void **state)
{
	uint64_t random = 5;

	for (unsigned n = 0; n < N_CASES; n++) {
		uint16_t words[N_WORDS], check;
		uint64_t sum = 0, wide[2];
		uint32_t narrow[2];

		fill(words, &random);
		check = full(words);
		memcpy(&wide[0], &words[2], 8);
		memcpy(&narrow[0], &words[6 + n % 8], 4);
		for (unsigned i = 2; i < 6; i++)
			words[i] = edgy(&random);
		for (unsigned i = 0; i < 2; i++)
			words[6 + n % 8 + i] = edgy(&random);
		memcpy(&wide[1], &words[2], 8);
		memcpy(&narrow[1], &words[6 + n % 8], 4);
		sum = csum_sum32(csum_change64(wide[0], wide[1]), narrow[0], narrow[1]);
		for (unsigned i = 0; i < n % 16; i++)
			sum = csum_sum32(sum, 0xffffffff, 0xffffffff);
		assert_int_equal(csum_apply_sum(check, sum), full(words));
	}
}

static void delta_equals_full_recomputation(void **state)
{
	uint64_t random = 2;

	for (unsigned n = 0; n < N_CASES; n++) {
		uint16_t before[N_WORDS], after[N_WORDS];
		uint32_t delta = 0;

		fill(before, &random);
		memcpy(after, before, sizeof(after));
		for (unsigned i = 1; i < 12; i++)
			after[i] = n % 3 ? edgy(&random) : before[i];
		for (unsigned i = 1; i < 11; i += 2)
			delta = csum_delta32(delta, before[i] | (uint32_t)before[i + 1] << 16,
					     after[i] | (uint32_t)after[i + 1] << 16);
		delta = csum_delta16(delta, before[11], after[11]);
		assert_int_equal(csum_apply(full(before), csum_delta_fold(delta)), full(after));
	}
}

/* As many changes as the comment promises to hold, each as large as can be. */
static void delta_holds_what_it_promises(void **state)
{
	uint32_t delta = 0;

	for (unsigned i = 0; i < 32767; i++)
		delta = csum_delta16(delta, 0x0000, 0xffff);
	/* A change by 0xffff is one by the other zero: nothing. */
	for (uint32_t check = 0; check < 0xffff; check++)
		assert_int_equal(csum_apply(check, csum_delta_fold(delta)), check);
}

/* There and back again must be the identity, for right sums and for wrong ones, which stay wrong. */
static void wrong_checksums_stay_wrong(void **state)
{
	uint64_t random = 3;

	for (unsigned n = 0; n < N_CASES; n++) {
		uint16_t before[N_WORDS], after[N_WORDS];
		uint16_t wrong, delta;

		fill(before, &random);
		memcpy(after, before, sizeof(after));
		after[5] = edgy(&random);
		delta = csum_delta_fold(csum_delta16(0, before[5], after[5]));
		wrong = full(before) ^ (1 + frame_random(&random) % 0xfffe);
		/* 0xffff is the other zero, and so as right as 0x0000. */
		if (wrong == 0xffff || (wrong == 0 && full(before) == 0xffff))
			continue;
		assert_int_not_equal(csum_apply(wrong, delta), full(after));
	}
}

static void udp_zero_stays_zero(void **state)
{
	for (uint32_t sum = 0; sum <= 0xffff; sum++)
		assert_int_equal(csum_apply_udp(0, sum), 0);
}

static void udp_never_becomes_zero(void **state)
{
	for (uint32_t check = 1; check <= 0xffff; check++) {
		/* This delta brings the sum of the datagram to 0xffff, the checksum so to 0. */
		assert_int_equal(csum_apply(check, check), 0);
		assert_int_equal(csum_apply_udp(check, check), 0xffff);
		/* A delta of nothing, in either of its two forms, leaves it alone. */
		assert_int_equal(csum_apply_udp(check, 0), check);
		assert_int_equal(csum_apply_udp(check, 0xffff), check);
	}
}

static struct ipaddr random_address(uint64_t *random, bool v4)
{
	uint8_t bytes[16];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = edgy(random);
	return v4 ? ipaddr_v4(frame_random(random)) : ipaddr_v6(bytes);
}

static uint16_t *l4_checksum(uint8_t *frame, const struct frame_spec *spec)
{
	uint8_t *l4 = frame + 14 + (ipaddr_is_v4(&spec->src) ? 20 : 40);

	return (uint16_t *)(l4 + (spec->proto == PROTO_TCP ? offsetof(struct rte_tcp_hdr, cksum)
							   : offsetof(struct rte_udp_hdr, dgram_cksum)));
}

static uint16_t delta_of(const struct frame_spec *from, const struct frame_spec *to)
{
	uint32_t delta = csum_delta16(0, from->sport_be, to->sport_be);

	for (int i = 0; i < 4; i++) {
		delta = csum_delta32(delta, from->src.w_be[i], to->src.w_be[i]);
		delta = csum_delta32(delta, from->dst.w_be[i], to->dst.w_be[i]);
	}
	return csum_delta_fold(delta);
}

/* The whole of a rewrite: addresses and ports of real frames, made again from scratch with the new ones. */
static void rewritten_frames_equal_made_ones(void **state)
{
	uint64_t random = 4;

	for (unsigned n = 0; n < 200000; n++) {
		uint8_t before[FRAME_MAX], after[FRAME_MAX];
		bool v4 = n & 1, tcp = n & 2;
		struct frame_spec from = {.src = random_address(&random, v4),
					  .dst = random_address(&random, v4),
					  .sport_be = edgy(&random),
					  .dport_be = edgy(&random),
					  .proto = tcp ? PROTO_TCP : PROTO_UDP,
					  .payload_len = n % 9};
		struct frame_spec to = from;
		uint16_t check, l4;

		to.src = random_address(&random, v4);
		to.dst = random_address(&random, v4);
		to.sport_be = edgy(&random);
		frame_make(&from, before);
		frame_make(&to, after);
		l4 = delta_of(&from, &to);
		check = *l4_checksum(before, &from);
		assert_int_equal(tcp ? csum_apply(check, l4) : csum_apply_udp(check, l4), *l4_checksum(after, &to));
	}
}

/* An echo of RFC 4443's pseudo-header: the sum over it and the message must come out as ~0. */
static void icmp6_includes_the_pseudo_header(void **state)
{
	struct frame_spec spec = {.proto = 58, .sport_be = 128, .payload_len = 13};
	uint8_t frame[FRAME_MAX], pseudo[40 + 21 + 1] = {0};
	uint64_t random = 5;

	spec.src = random_address(&random, false);
	spec.dst = random_address(&random, false);
	assert_int_equal(frame_make(&spec, frame), 14 + 40 + 21);
	memcpy(pseudo, frame + 14 + 8, 32);
	pseudo[35] = 21;
	pseudo[39] = 58;
	memcpy(pseudo + 40, frame + 54, 21);
	assert_int_equal(rte_raw_cksum(pseudo, sizeof(pseudo)), 0xffff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(update_equals_full_recomputation), cmocka_unit_test(sum_equals_full_recomputation),
		cmocka_unit_test(delta_equals_full_recomputation),  cmocka_unit_test(delta_holds_what_it_promises),
		cmocka_unit_test(wrong_checksums_stay_wrong),       cmocka_unit_test(udp_zero_stays_zero),
		cmocka_unit_test(udp_never_becomes_zero),           cmocka_unit_test(rewritten_frames_equal_made_ones),
		cmocka_unit_test(icmp6_includes_the_pseudo_header),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
