/* SPDX-License-Identifier: BSD-3-Clause */
#include "icmp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define N_RANDOM   200000
#define PACKET_MAX 2048

/*
 * Made by scapy, which computed every checksum: an error as it comes in, and as it has to be after the translation that
 * vector_translation() describes.
 */
static const char tcp4_in[] =
	"450000e40007000040017fe2c6120901c612650a030487fd00000578450005ac123440003d0631d4c612650ac6120315"
	"9c401f90000003e8000007d080182000dd07000001080a0000006f000000de0178787878787878787878787878787878"
	"787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
	"787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
	"787878787878787878787878787878787878787878787878787878787878787878787878";

static const char tcp4_out[] =
	"450000e400070000400113f7c6126401cb0071070304f9d400000578450005ac123440003d06bffccb007107c6126401"
	"c8220050004c4f28ffffe890801820005340000001080a00000457fffffdd40178787878787878787878787878787878"
	"787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
	"787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878787878"
	"787878787878787878787878787878787878787878787878787878787878787878787878";

static const char udp4_in[] =
	"450000410007000040018671c6120315c612650a0303f15f0000000046000025123400003d11744ec612650ac6120315"
	"010101019c400035000d2b4868656c6c6f";

static const char udp4_out[] =
	"45000041000700004001149ac6126401cb007107030363370000000046000025123400003d110277cb007107c6126401"
	"01010101c82214e9000d78da68656c6c6f";

static const char udp4_zero_in[] =
	"450000410007000040018671c6120315c612650a03031ca80000000046000025123400003d11744ec612650ac6120315"
	"010101019c400035000d000068656c6c6f";

static const char udp4_zero_out[] =
	"45000041000700004001149ac6126401cb0071070303dc110000000046000025123400003d110277cb007107c6126401"
	"01010101c82214e9000d000068656c6c6f";

static const char tcp6_in[] =
	"6000000000803a4020010db800090000000000000000000120010db80101000000000000000000100200a68800000578"
	"6001234505943c3d20010db801010000000000000000001020010db80003000000000000000000150600010400000000"
	"9c401f90000003e8000007d0501020003e11000079797979797979797979797979797979797979797979797979797979"
	"797979797979797979797979797979797979797979797979";

static const char tcp6_out[] =
	"6000000000803a4020010db801000000000000000000000120010db80f00000000000000000000070200979b00000578"
	"6001234505943c3d20010db80f000000000000000000000720010db80100000000000000000000010600010400000000"
	"c8220050004c4f28ffffe89050102000f642000079797979797979797979797979797979797979797979797979797979"
	"797979797979797979797979797979797979797979797979";

static const char offender4[] =
	"4500003000010000011153a1cb007107c6126401045708ae001cc3cc7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a";

static const char unreach4[] =
	"45c0004c000040004001d3d5c6126401cb00710703036346000000004500003000010000011153a1cb007107c6126401"
	"045708ae001cc3cc7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a";

static const char offender6[] =
	"60000000001d110120010db80f000000000000000000000720010db8010000000000000000000001045708ae001d446c"
	"7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a";

static const char exceeded6[] =
	"60000000004d3a4020010db801000000000000000000000120010db80f00000000000000000000070300200e00000000"
	"60000000001d110120010db80f000000000000000000000720010db8010000000000000000000001045708ae001d446c"
	"7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a";

struct bytes {
	uint8_t at[PACKET_MAX];
	size_t len;
};

static struct bytes unhex(const char *hex)
{
	struct bytes out = {.len = strlen(hex) / 2};

	assert_true(out.len <= sizeof(out.at));
	for (size_t i = 0; i < out.len; i++) {
		unsigned v;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
		out.at[i] = (uint8_t)v;
	}
	return out;
}

static struct ipaddr addr(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

/* --- an independent checksum: byte by byte, big-endian --- */

static uint64_t sum_be(const uint8_t *p, size_t len, uint64_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += (uint64_t)p[i] << (i & 1 ? 0 : 8);
	return sum;
}

static uint16_t fold_be(uint64_t sum)
{
	while (sum > 0xffff)
		sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)sum;
}

/* Sum over a transport message with its pseudo-header: 0xffff if the checksum in it is right. */
static uint16_t l4_sum(const uint8_t *ip, size_t l4_off, size_t l4_len, uint8_t proto)
{
	uint64_t sum = ip[0] >> 4 == 4 ? sum_be(ip + 12, 8, 0) : sum_be(ip + 8, 32, 0);

	return fold_be(sum_be(ip + l4_off, l4_len, sum + l4_len + proto));
}

static void put16(uint8_t *at, unsigned v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

/* Everything that a receiver of the error checks. */
static void assert_error_valid(const uint8_t *ip, size_t len, size_t icmp_off)
{
	uint8_t family = ip[0] >> 4;

	assert_true(icmp_checksum_ok(ip, len, icmp_off));
	if (family == 4) {
		assert_int_equal(get16(ip + 2), len);
		assert_int_equal(fold_be(sum_be(ip, (ip[0] & 15) * 4u, 0)), 0xffff);
		assert_int_equal(fold_be(sum_be(ip + icmp_off, len - icmp_off, 0)), 0xffff);
		assert_true(len <= 576);
	} else {
		assert_int_equal(get16(ip + 4), len - 40);
		assert_int_equal(l4_sum(ip, icmp_off, len - icmp_off, 58), 0xffff);
		assert_true(len <= 1280);
	}
}

/* --- vectors --- */

static struct icmp_translation vector_translation(uint8_t family, uint16_t dport)
{
	const char *outside = family == 4 ? "203.0.113.7" : "2001:db8:f00::7";
	const char *vip = family == 4 ? "198.18.100.1" : "2001:db8:100::1";

	return (struct icmp_translation){
		.outer_src = addr(vip),
		.outer_dst = addr(outside),
		.src = addr(outside),
		.dst = addr(vip),
		.sport_be = htons(51234),
		.dport_be = htons(dport),
		.seq_add = 5000000,
		.ack_add = (uint32_t)-8000,
		.tsval_add = 1000,
		.tsecr_add = (uint32_t)-778,
	};
}

static void test_vectors(void **state)
{
	static const struct {
		const char *in, *out;
		uint8_t family, proto;
		uint16_t dport_in, dport_out, quote_total;
	} cases[] = {
		{tcp4_in, tcp4_out, 4, PROTO_TCP, 8080, 80, 1452},
		{udp4_in, udp4_out, 4, PROTO_UDP, 53, 5353, 37},
		{udp4_zero_in, udp4_zero_out, 4, PROTO_UDP, 53, 5353, 37},
		{tcp6_in, tcp6_out, 6, PROTO_TCP, 8080, 80, 1468},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes in = unhex(cases[i].in), out = unhex(cases[i].out);
		struct icmp_translation t = vector_translation(cases[i].family, cases[i].dport_out);
		size_t icmp_off = cases[i].family == 4 ? 20 : 40;
		const char *snat = cases[i].family == 4 ? "198.18.101.10" : "2001:db8:101::10";
		struct ipaddr snat_addr = addr(snat);
		struct icmp_quote q;

		assert_true(icmp_checksum_ok(in.at, in.len, icmp_off));
		/* A TTL that is not yet what it has to become. */
		in.at[cases[i].family == 4 ? 8 : 7] = 3;
		assert_int_equal(icmp_quote_parse(in.at + icmp_off, in.len - icmp_off, cases[i].family, &q),
				 ICMP_QUOTE_OK);
		assert_int_equal(q.family, cases[i].family);
		assert_int_equal(q.proto, cases[i].proto);
		assert_true(ipaddr_equal(&q.src, &snat_addr));
		assert_int_equal(q.sport_be, htons(40000));
		assert_int_equal(q.dport_be, htons(cases[i].dport_in));
		assert_int_equal(q.has_seq, cases[i].proto == PROTO_TCP);
		if (q.has_seq)
			assert_int_equal(q.seq_be, htonl(1000));
		assert_int_equal(q.total_len, cases[i].quote_total);
		assert_int_equal(icmp_translate(in.at, in.len, icmp_off, &q, &t), out.len);
		assert_memory_equal(in.at, out.at, out.len);
	}
}

static void test_checksum_refused(void **state)
{
	const char *const vectors[] = {tcp4_in, udp4_in, tcp6_in};

	for (size_t v = 0; v < 3; v++) {
		struct bytes in = unhex(vectors[v]);
		size_t icmp_off = in.at[0] >> 4 == 4 ? 20 : 40;

		for (size_t i = icmp_off; i < in.len; i++) {
			in.at[i] ^= 0x10;
			assert_false(icmp_checksum_ok(in.at, in.len, icmp_off));
			in.at[i] ^= 0x10;
		}
		assert_true(icmp_checksum_ok(in.at, in.len, icmp_off));
		assert_false(icmp_checksum_ok(in.at, icmp_off + 7, icmp_off));
	}
}

/* A length that ends exactly where the memory does: a sanitizer sees any read beyond. */
static enum icmp_quote_result parse_exact(const uint8_t *icmp, size_t len, uint8_t family, struct icmp_quote *q)
{
	uint8_t *copy = malloc(len ? len : 1);
	enum icmp_quote_result result;

	assert_non_null(copy);
	memcpy(copy, icmp, len);
	result = icmp_quote_parse(copy, len, family, q);
	free(copy);
	return result;
}

static void translate_exact(const struct bytes *packet, size_t len, size_t icmp_off, const struct icmp_quote *q,
			    const struct icmp_translation *t)
{
	uint8_t *copy = malloc(len);
	size_t new_len;

	assert_non_null(copy);
	memcpy(copy, packet->at, len);
	new_len = icmp_translate(copy, len, icmp_off, q, t);
	assert_int_equal(new_len, len);
	assert_error_valid(copy, new_len, icmp_off);
	free(copy);
}

static void test_every_length(void **state)
{
	static const struct {
		const char *in;
		size_t icmp_off, min_len; /* of the IP packet: with 8 bytes of quoted transport */
	} cases[] = {{tcp4_in, 20, 56}, {udp4_in, 20, 60}, {tcp6_in, 40, 104}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes in = unhex(cases[i].in);
		uint8_t family = in.at[0] >> 4;
		struct icmp_translation t = vector_translation(family, 80);

		for (size_t len = cases[i].icmp_off; len <= in.len; len++) {
			size_t icmp_len = len - cases[i].icmp_off;
			struct icmp_quote q;
			enum icmp_quote_result result = parse_exact(in.at + cases[i].icmp_off, icmp_len, family, &q);

			assert_int_equal(result, len < cases[i].min_len ? ICMP_QUOTE_TRUNCATED : ICMP_QUOTE_OK);
			if (result == ICMP_QUOTE_OK)
				translate_exact(&in, len, cases[i].icmp_off, &q, &t);
		}
	}
}

/* --- malformed quotes --- */

static enum icmp_quote_result parse_changed(const char *vector, size_t at, unsigned v16)
{
	struct bytes in = unhex(vector);
	uint8_t family = in.at[0] >> 4;
	size_t icmp_off = family == 4 ? 20 : 40;
	struct icmp_quote q;

	put16(in.at + icmp_off + 8 + at, v16);
	return icmp_quote_parse(in.at + icmp_off, in.len - icmp_off, family, &q);
}

static void test_malformed(void **state)
{
	assert_int_equal(parse_changed(tcp4_in, 0, 0x4500), ICMP_QUOTE_OK);
	assert_int_equal(parse_changed(tcp4_in, 0, 0x6500), ICMP_QUOTE_MALFORMED);
	assert_int_equal(parse_changed(tcp4_in, 0, 0x4400), ICMP_QUOTE_MALFORMED);
	assert_int_equal(parse_changed(tcp4_in, 2, 27), ICMP_QUOTE_MALFORMED);
	assert_int_equal(parse_changed(tcp4_in, 2, 28), ICMP_QUOTE_OK);
	assert_int_equal(parse_changed(tcp4_in, 6, 0x2000), ICMP_QUOTE_OK);
	assert_int_equal(parse_changed(tcp4_in, 6, 0x2001), ICMP_QUOTE_FRAGMENT);
	assert_int_equal(parse_changed(tcp4_in, 8, 64 << 8 | 1), ICMP_QUOTE_PROTOCOL);
	assert_int_equal(parse_changed(tcp6_in, 0, 0x4500), ICMP_QUOTE_MALFORMED);
	assert_int_equal(parse_changed(tcp6_in, 4, 15), ICMP_QUOTE_MALFORMED);
	assert_int_equal(parse_changed(tcp6_in, 4, 16), ICMP_QUOTE_OK);
	assert_int_equal(parse_changed(tcp6_in, 6, 50 << 8 | 64), ICMP_QUOTE_PROTOCOL);
	/* The destination options as long as the header may say: 2 KiB that are not there. */
	assert_int_equal(parse_changed(tcp6_in, 40, 6 << 8 | 255), ICMP_QUOTE_MALFORMED);
	assert_int_equal(parse_changed(tcp6_in, 40, 6 << 8 | 20), ICMP_QUOTE_TRUNCATED);
	/* The same eight bytes as a fragment header. */
	assert_int_equal(parse_changed(tcp6_in, 6, 44 << 8 | 64), ICMP_QUOTE_FRAGMENT);
}

static void test_too_many_extensions(void **state)
{
	uint8_t icmp[8 + 40 + 9 * 8 + 20] = {[0] = 2, [8] = 0x60, [8 + 6] = 60};
	struct icmp_quote q;

	put16(icmp + 8 + 4, 9 * 8 + 20);
	for (size_t i = 0; i < 9; i++)
		icmp[48 + 8 * i] = i == 7 ? 6 : 60;
	assert_int_equal(icmp_quote_parse(icmp, sizeof(icmp), 6, &q), ICMP_QUOTE_OK);
	assert_int_equal(q.l4_off, 48 + 8 * 8);
	icmp[48 + 8 * 7] = 60;
	icmp[48 + 8 * 8] = 6;
	assert_int_equal(icmp_quote_parse(icmp, sizeof(icmp), 6, &q), ICMP_QUOTE_MALFORMED);
}

static void test_long_extension(void **state)
{
	uint8_t icmp[8 + 40 + 264 + 20] = {[0] = 2, [8] = 0x60, [8 + 6] = 60, [48] = 6};
	struct icmp_quote q;

	put16(icmp + 8 + 4, 264 + 20);
	icmp[49] = 256 / 8 - 1;
	assert_int_equal(icmp_quote_parse(icmp, sizeof(icmp), 6, &q), ICMP_QUOTE_OK);
	assert_int_equal(q.l4_off, 48 + 256);
	icmp[49] = 264 / 8 - 1;
	assert_int_equal(icmp_quote_parse(icmp, sizeof(icmp), 6, &q), ICMP_QUOTE_MALFORMED);
}

/* RFC 4884: 128 bytes of quote, padded, then an extension that is no part of it and goes when the error is cut. */
static void test_extensions(void **state)
{
	struct bytes in = unhex(udp4_in);
	struct icmp_translation t = vector_translation(4, 5353);
	struct icmp_quote q;
	size_t quoted = in.len - 28, len = 20 + 8 + 128 + 12;

	memset(in.at + in.len, 0, len - in.len);
	memset(in.at + len - 12, 0xee, 12);
	in.at[20 + 5] = 128 / 4;
	put16(in.at + 2, (unsigned)len);
	assert_int_equal(icmp_quote_parse(in.at + 20, len - 20, 4, &q), ICMP_QUOTE_OK);
	assert_int_equal(q.l4_off + q.l4_len, 8 + quoted);
	assert_int_equal(icmp_translate(in.at, len, 20, &q, &t), len);
	assert_error_valid(in.at, len, 20);
	assert_int_equal(in.at[20 + 5], 32);
	assert_int_equal(in.at[len - 1], 0xee);
	/* Over the limit: the extension goes, and with it the padding. */
	memset(in.at + len, 0xee, 577 - len);
	assert_int_equal(icmp_translate(in.at, 577, 20, &q, &t), 28 + quoted);
	assert_error_valid(in.at, 28 + quoted, 20);
	assert_int_equal(in.at[20 + 5], 0);
}

static void test_extension_inside_quote(void **state)
{
	struct bytes in = unhex(tcp4_in);
	struct icmp_quote q;

	in.at[20 + 5] = 128 / 4;
	assert_int_equal(icmp_quote_parse(in.at + 20, in.len - 20, 4, &q), ICMP_QUOTE_OK);
	assert_int_equal(q.l4_len, 128 - 20);
	/* Lengths that cannot be are none. */
	in.at[20 + 5] = 31;
	assert_int_equal(icmp_quote_parse(in.at + 20, in.len - 20, 4, &q), ICMP_QUOTE_OK);
	assert_int_equal(q.l4_len, 200 - 20);
	in.at[20 + 5] = 255;
	assert_int_equal(icmp_quote_parse(in.at + 20, in.len - 20, 4, &q), ICMP_QUOTE_OK);
	assert_int_equal(q.l4_len, 200 - 20);
}

/* --- random packets --- */

static uint64_t rng;

static uint32_t random32(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 16);
}

static void random_bytes(uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		at[i] = (uint8_t)random32();
}

static struct ipaddr random_addr(uint8_t family)
{
	uint8_t v6[16] = {0x20, 0x01, 0x0d, 0xb8};

	if (family == 4)
		return ipaddr_v4(htonl(0xc6120000 | (random32() & 0x1ffff)));
	random_bytes(v6 + 4, 12);
	return ipaddr_v6(v6);
}

struct made {
	struct bytes packet;
	size_t icmp_off, inner_l4_len;
	size_t inner_len; /* when whole */
	uint8_t family, proto;
	bool zero_udp, whole; /* whole: all of the inner packet is quoted */
};

static void put_addresses(uint8_t *ip, const struct ipaddr *src, const struct ipaddr *dst)
{
	if (ip[0] >> 4 == 4) {
		memcpy(ip + 12, &src->b[12], 4);
		memcpy(ip + 16, &dst->b[12], 4);
	} else {
		memcpy(ip + 8, src->b, 16);
		memcpy(ip + 24, dst->b, 16);
	}
}

/* An IP header with up to 40 bytes of options or extension headers. Returns its length. */
static size_t make_ip(uint8_t *ip, uint8_t family, uint8_t proto, size_t payload, bool with_options)
{
	size_t extra = with_options ? (family == 4 ? 4 * (1 + random32() % 10) : 8 * (1 + random32() % 5)) : 0;
	struct ipaddr src = random_addr(family), dst = random_addr(family);

	memset(ip, 0, 40 + extra);
	if (family == 4) {
		ip[0] = (uint8_t)(0x45 + extra / 4);
		put16(ip + 2, (unsigned)(20 + extra + payload));
		put16(ip + 4, random32());
		ip[8] = 64;
		ip[9] = proto;
		memset(ip + 20, 1, extra);
	} else {
		ip[0] = 0x60;
		put16(ip + 4, (unsigned)(extra + payload));
		ip[6] = extra ? 60 : proto;
		ip[7] = 64;
		for (size_t at = 40; at < 40 + extra; at += 8)
			ip[at] = at + 8 < 40 + extra ? 60 : proto;
	}
	put_addresses(ip, &src, &dst);
	if (family == 4)
		put16(ip + 10, 0xffffu ^ fold_be(sum_be(ip, 20 + extra, 0)));
	return (family == 4 ? 20 : 40) + extra;
}

/* Timestamps behind 0 to 3 NOPs, so at every alignment. */
static size_t make_tcp(uint8_t *tcp)
{
	size_t nops = random32() % 4, header = random32() % 2 ? 20 : 36;

	random_bytes(tcp, 20);
	tcp[12] = (uint8_t)(header / 4 << 4);
	if (header == 36) {
		memset(tcp + 20, 1, 16);
		tcp[20 + nops] = 8;
		tcp[21 + nops] = 10;
		random_bytes(tcp + 22 + nops, 8);
	}
	return header;
}

static void fill_l4_checksum(uint8_t *ip, size_t l4_off, size_t l4_len, uint8_t proto)
{
	uint8_t *at = ip + l4_off + (proto == PROTO_TCP ? 16 : 6);
	unsigned sum;

	put16(at, 0);
	sum = 0xffffu ^ l4_sum(ip, l4_off, l4_len, proto);
	put16(at, proto == PROTO_UDP && sum == 0 ? 0xffff : sum);
}

/* The packet that some router did not like, whole and with right checksums. Returns its length. */
static size_t make_inner(uint8_t *ip, struct made *m)
{
	size_t payload = random32() % 4 ? random32() % 64 : random32() % 1400;
	uint8_t l4[1500];
	size_t header, l4_off;

	m->proto = random32() % 2 ? PROTO_TCP : PROTO_UDP;
	header = m->proto == PROTO_TCP ? make_tcp(l4) : 8;
	random_bytes(l4 + header, payload);
	m->inner_l4_len = header + payload;
	if (m->proto == PROTO_UDP) {
		random_bytes(l4, 4);
		put16(l4 + 4, (unsigned)m->inner_l4_len);
	}
	l4_off = make_ip(ip, m->family, m->proto, m->inner_l4_len, random32() % 3 == 0);
	memcpy(ip + l4_off, l4, m->inner_l4_len);
	fill_l4_checksum(ip, l4_off, m->inner_l4_len, m->proto);
	m->zero_udp = m->proto == PROTO_UDP && random32() % 4 == 0;
	if (m->zero_udp)
		put16(ip + l4_off + 6, 0);
	return l4_off + m->inner_l4_len;
}

static struct made make_error(uint8_t family)
{
	struct made m = {.family = family};
	uint8_t inner[PACKET_MAX];
	size_t limit = family == 4 ? 400 : 1000, least, quoted;
	uint8_t *icmp;

	m.inner_len = make_inner(inner, &m);
	least = m.inner_len - m.inner_l4_len + 8;
	quoted = random32() % 2 ? m.inner_len : least + random32() % (m.inner_len - least + 1);
	quoted = quoted > limit ? limit : quoted;
	m.whole = quoted == m.inner_len;
	m.icmp_off = make_ip(m.packet.at, family, family == 4 ? 1 : 58, 8 + quoted, random32() % 8 == 0);
	m.packet.len = m.icmp_off + 8 + quoted;
	icmp = m.packet.at + m.icmp_off;
	memset(icmp, 0, 8);
	icmp[0] = family == 4 ? 3 : 2;
	icmp[1] = family == 4 ? 4 : 0;
	put16(icmp + 6, 1400);
	memcpy(icmp + 8, inner, quoted);
	put16(icmp + 2, 0xffffu ^ (family == 4 ? fold_be(sum_be(icmp, 8 + quoted, 0))
					       : l4_sum(m.packet.at, m.icmp_off, 8 + quoted, 58)));
	return m;
}

static struct icmp_translation random_translation(uint8_t family)
{
	return (struct icmp_translation){
		.outer_src = random_addr(family),
		.outer_dst = random_addr(family),
		.src = random_addr(family),
		.dst = random_addr(family),
		.sport_be = (uint16_t)random32(),
		.dport_be = (uint16_t)random32(),
		.seq_add = random32(),
		.ack_add = random32(),
		.tsval_add = random32(),
		.tsecr_add = random32(),
	};
}

static struct icmp_translation inverse(const struct made *m, const struct icmp_quote *q,
				       const struct icmp_translation *t)
{
	const uint8_t *ip = m->packet.at;

	return (struct icmp_translation){
		.outer_src = m->family == 4 ? ipaddr_v4(htonl(get32(ip + 12))) : ipaddr_v6(ip + 8),
		.outer_dst = m->family == 4 ? ipaddr_v4(htonl(get32(ip + 16))) : ipaddr_v6(ip + 24),
		.src = q->src,
		.dst = q->dst,
		.sport_be = q->sport_be,
		.dport_be = q->dport_be,
		.seq_add = -t->seq_add,
		.ack_add = -t->ack_add,
		.tsval_add = -t->tsval_add,
		.tsecr_add = -t->tsecr_add,
	};
}

/* What the quote must be after the translation `t` of the quote `before`. */
static void assert_translated(const struct made *m, const uint8_t *ip, const struct icmp_quote *before,
			      const struct icmp_translation *t)
{
	const uint8_t *icmp = ip + m->icmp_off, *inner = icmp + 8;
	struct icmp_quote q;

	assert_int_equal(icmp_quote_parse(icmp, m->packet.len - m->icmp_off, m->family, &q), ICMP_QUOTE_OK);
	assert_true(ipaddr_equal(&q.src, &t->src) && ipaddr_equal(&q.dst, &t->dst));
	assert_int_equal(q.sport_be, t->sport_be);
	assert_int_equal(q.dport_be, t->dport_be);
	if (q.has_seq)
		assert_int_equal(ntohl(q.seq_be), (uint32_t)(ntohl(before->seq_be) + t->seq_add));
	if (m->family == 4)
		assert_int_equal(fold_be(sum_be(inner, (inner[0] & 15) * 4u, 0)), 0xffff);
	if (m->zero_udp)
		assert_int_equal(get16(icmp + q.l4_off + 6), 0);
	else if (m->whole)
		assert_int_equal(l4_sum(inner, q.l4_off - 8u, q.l4_len, m->proto), 0xffff);
}

static void test_there_and_back(void **state)
{
	rng = 88172645463325252ull;
	for (unsigned n = 0; n < N_RANDOM; n++) {
		struct made m = make_error(n & 1 ? 4 : 6);
		struct icmp_translation t = random_translation(m.family), back;
		struct bytes work = m.packet;
		struct icmp_quote q;

		assert_error_valid(work.at, work.len, m.icmp_off);
		assert_int_equal(icmp_quote_parse(work.at + m.icmp_off, work.len - m.icmp_off, m.family, &q),
				 ICMP_QUOTE_OK);
		assert_int_equal(q.total_len, m.inner_len);
		back = inverse(&m, &q, &t);
		assert_int_equal(icmp_translate(work.at, work.len, m.icmp_off, &q, &t), work.len);
		assert_error_valid(work.at, work.len, m.icmp_off);
		assert_translated(&m, work.at, &q, &t);
		assert_int_equal(icmp_quote_parse(work.at + m.icmp_off, work.len - m.icmp_off, m.family, &q),
				 ICMP_QUOTE_OK);
		assert_int_equal(icmp_translate(work.at, work.len, m.icmp_off, &q, &back), work.len);
		assert_memory_equal(work.at, m.packet.at, work.len);
	}
}

/* Whatever the bytes are: no read or write out of bounds (sanitizers), and valid if the quote could be read. */
static void test_mutations(void **state)
{
	rng = 362436069;
	for (unsigned n = 0; n < N_RANDOM; n++) {
		struct made m = make_error(n & 1 ? 4 : 6);
		struct icmp_translation t = random_translation(m.family);
		size_t icmp_len = 8 + random32() % (m.packet.len - m.icmp_off - 7);
		struct icmp_quote q;

		for (unsigned i = 1 + random32() % 4; i > 0; i--)
			m.packet.at[m.icmp_off + 1 + random32() % (icmp_len - 1)] = (uint8_t)random32();
		if (parse_exact(m.packet.at + m.icmp_off, icmp_len, m.family, &q) != ICMP_QUOTE_OK)
			continue;
		assert_true(q.l4_off + q.l4_len <= icmp_len);
		translate_exact(&m.packet, m.icmp_off + icmp_len, m.icmp_off, &q, &t);
	}
}

static void test_cut_to_limit(void **state)
{
	for (int family = 4; family <= 6; family += 2) {
		struct bytes in = unhex(family == 4 ? tcp4_in : tcp6_in);
		size_t icmp_off = family == 4 ? 20 : 40, limit = family == 4 ? 576 : 1280;
		struct icmp_translation t = vector_translation((uint8_t)family, 80);
		struct icmp_quote q;

		memset(in.at + in.len, 'x', 1460 - in.len);
		t.mtu = family == 4 ? 1300 : 0x12345;
		assert_int_equal(icmp_quote_parse(in.at + icmp_off, 1460 - icmp_off, (uint8_t)family, &q),
				 ICMP_QUOTE_OK);
		assert_int_equal(icmp_translate(in.at, 1460, icmp_off, &q, &t), limit);
		assert_error_valid(in.at, limit, icmp_off);
		if (family == 4)
			assert_int_equal(get16(in.at + icmp_off + 6), 1300);
		else
			assert_int_equal(get32(in.at + icmp_off + 4), 0x12345);
	}
}

/* --- MTU and types --- */

static void test_ptb_mtu(void **state)
{
	static const struct {
		uint8_t family;
		uint32_t told, total, expected;
	} cases[] = {
		{4, 1400, 1500, 1400}, {4, 1500, 1500, 0},   {4, 1499, 1500, 1499}, {4, 68, 1500, 576},
		{4, 400, 500, 0},      {4, 576, 577, 576},   {4, 0, 1500, 1492},    {4, 0, 1492, 1006},
		{4, 0, 9000, 8166},    {4, 0, 65535, 32000}, {4, 0, 600, 576},      {4, 0, 68, 0},
		{6, 1400, 1500, 1400}, {6, 100, 1500, 1280}, {6, 0, 1500, 1280},    {6, 1280, 1280, 0},
		{6, 70000, 1500, 0},   {6, 0, 1000, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct icmp_quote q = {.family = cases[i].family, .total_len = cases[i].total};
		uint8_t icmp[8] = {0};

		if (q.family == 6)
			put16(icmp + 4, cases[i].told >> 16);
		put16(icmp + 6, cases[i].told & 0xffff);
		assert_int_equal(icmp_ptb_mtu(icmp, &q), cases[i].expected);
	}
}

static void test_which_pass(void **state)
{
	unsigned n4 = 0, n6 = 0;

	for (unsigned type = 0; type < 256; type++) {
		for (unsigned code = 0; code < 256; code++) {
			n4 += icmp_error_passes(4, (uint8_t)type, (uint8_t)code);
			n6 += icmp_error_passes(6, (uint8_t)type, (uint8_t)code);
		}
	}
	/* 3/0-4,9,10,13, 11/0, 12/any; 1/any, 2/any, 3/0, 4/any. */
	assert_int_equal(n4, 8 + 1 + 256);
	assert_int_equal(n6, 256 + 256 + 1 + 256);
	assert_true(icmp_error_passes(4, 3, 13));
	assert_false(icmp_error_passes(4, 3, 5));
	assert_false(icmp_error_passes(4, 3, 32 + 4));
	assert_false(icmp_error_passes(4, ICMP4_REDIRECT, 0));
	assert_false(icmp_error_passes(6, ICMP6_REDIRECT, 0));
	assert_true(icmp_is_ptb(4, 3, 4) && icmp_is_ptb(6, 2, 0));
	assert_false(icmp_is_ptb(4, 3, 3) || icmp_is_ptb(6, 1, 4) || icmp_is_ptb(4, 2, 4));
}

/* --- making --- */

static void test_builders_vectors(void **state)
{
	struct bytes offender = unhex(offender4), expected = unhex(unreach4);
	struct ipaddr vip = addr("198.18.100.1");
	uint8_t out[1500];

	assert_int_equal(icmp_build_port_unreachable(out, sizeof(out), &vip, offender.at, offender.len), expected.len);
	assert_memory_equal(out, expected.at, expected.len);
	/* Padding of the frame is not quoted. */
	assert_int_equal(icmp_build_port_unreachable(out, sizeof(out), &vip, offender.at, offender.len + 9),
			 expected.len);
	offender = unhex(offender6);
	expected = unhex(exceeded6);
	vip = addr("2001:db8:100::1");
	assert_int_equal(icmp_build_time_exceeded(out, sizeof(out), &vip, offender.at, offender.len), expected.len);
	assert_memory_equal(out, expected.at, expected.len);
}

static size_t build_exact(unsigned which, size_t size, const struct ipaddr *src, const uint8_t *inner, size_t len)
{
	uint8_t *out = malloc(size ? size : 1);
	size_t icmp_off = inner[0] >> 4 == 4 ? 20 : 40, out_len;
	struct icmp_quote q;

	assert_non_null(out);
	out_len = which == 0   ? icmp_build_ptb(out, size, src, inner, len, 1400)
		  : which == 1 ? icmp_build_port_unreachable(out, size, src, inner, len)
			       : icmp_build_time_exceeded(out, size, src, inner, len);
	assert_true(out_len <= size);
	if (out_len) {
		assert_error_valid(out, out_len, icmp_off);
		assert_int_equal(icmp_quote_parse(out + icmp_off, out_len - icmp_off, inner[0] >> 4, &q),
				 ICMP_QUOTE_OK);
		assert_memory_equal(out + icmp_off + 8, inner, out_len - icmp_off - 8);
		assert_int_equal(icmp_is_ptb(q.family, out[icmp_off], out[icmp_off + 1]), which == 0);
		if (which == 0)
			assert_int_equal(icmp_ptb_mtu(out + icmp_off, &q), q.total_len > 1400 ? 1400 : 0);
		/* Nobody answers an answer. */
		assert_false(icmp_may_answer(out, out_len, true));
	}
	free(out);
	return out_len;
}

static void test_builders_sizes(void **state)
{
	rng = 521288629;
	for (unsigned n = 0; n < 3000; n++) {
		struct made m = {.family = n & 1 ? 4 : 6};
		uint8_t inner[PACKET_MAX];
		size_t len = make_inner(inner, &m), limit = m.family == 4 ? 576 : 1280;
		size_t overhead = m.family == 4 ? 28 : 48, least = overhead + len - m.inner_l4_len + 8;
		struct ipaddr src = random_addr(m.family);

		for (unsigned which = 0; which < 3; which++) {
			assert_int_equal(build_exact(which, least - 1, &src, inner, len), 0);
			assert_int_equal(build_exact(which, least, &src, inner, len), least);
			assert_int_equal(build_exact(which, 1500, &src, inner, len),
					 len + overhead < limit ? len + overhead : limit);
		}
	}
}

static bool may4(const char *src, const char *dst, uint8_t proto, unsigned fragment, uint8_t type)
{
	struct ipaddr s = addr(src), d = addr(dst);
	uint8_t ip[28] = {[0] = 0x45, [9] = proto, [20] = type};

	put16(ip + 2, sizeof(ip));
	put16(ip + 6, fragment);
	put_addresses(ip, &s, &d);
	assert_false(icmp_may_answer(ip, 19, false));
	return icmp_may_answer(ip, sizeof(ip), false);
}

static bool may6(const char *src, const char *dst, uint8_t proto, uint8_t type, bool ptb)
{
	struct ipaddr s = addr(src), d = addr(dst);
	uint8_t ip[48] = {[0] = 0x60, [5] = 8, [6] = proto, [40] = type};

	put_addresses(ip, &s, &d);
	assert_false(icmp_may_answer(ip, 39, ptb));
	return icmp_may_answer(ip, sizeof(ip), ptb);
}

static void test_may_answer4(void **state)
{
	static const char *const bad[] = {"0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"};

	assert_true(may4("203.0.113.7", "198.18.100.1", 6, 0, 0));
	assert_true(may4("203.0.113.7", "198.18.100.1", 17, 0x2000, 0));
	assert_false(may4("203.0.113.7", "198.18.100.1", 17, 0x0001, 0));
	for (size_t i = 0; i < 5; i++) {
		assert_false(may4(bad[i], "198.18.100.1", 6, 0, 0));
		assert_false(may4("203.0.113.7", bad[i], 6, 0, 0));
	}
	for (unsigned type = 0; type < 256; type++)
		assert_int_equal(may4("203.0.113.7", "198.18.100.1", 1, 0, (uint8_t)type),
				 type != 3 && type != 4 && type != 5 && type != 11 && type != 12);
}

static void test_may_answer6(void **state)
{
	assert_true(may6("2001:db8::1", "2001:db8::2", 6, 0, false));
	assert_false(may6("::", "2001:db8::2", 6, 0, false));
	assert_false(may6("::1", "2001:db8::2", 6, 0, false));
	assert_false(may6("ff02::1", "2001:db8::2", 6, 0, true));
	assert_false(may6("2001:db8::1", "ff05::2", 17, 0, false));
	assert_true(may6("2001:db8::1", "ff05::2", 17, 0, true));
	for (unsigned type = 0; type < 256; type++)
		assert_int_equal(may6("2001:db8::1", "2001:db8::2", 58, (uint8_t)type, true),
				 type >= 128 && type != 137);
}

static void test_may_answer_unreadable(void **state)
{
	uint8_t ip[64] = {[0] = 0x50};

	assert_false(icmp_may_answer(ip, 0, false));
	assert_false(icmp_may_answer(ip, sizeof(ip), false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_checksum_refused),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_too_many_extensions),
		cmocka_unit_test(test_long_extension),
		cmocka_unit_test(test_extensions),
		cmocka_unit_test(test_extension_inside_quote),
		cmocka_unit_test(test_there_and_back),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_cut_to_limit),
		cmocka_unit_test(test_ptb_mtu),
		cmocka_unit_test(test_which_pass),
		cmocka_unit_test(test_builders_vectors),
		cmocka_unit_test(test_builders_sizes),
		cmocka_unit_test(test_may_answer4),
		cmocka_unit_test(test_may_answer6),
		cmocka_unit_test(test_may_answer_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
