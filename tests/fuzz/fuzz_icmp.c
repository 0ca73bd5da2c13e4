/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes as a packet to send an error about, and as an ICMP error to read and translate: no access out of bounds,
 * every error that we make can be read back, and what leaves is valid.
 */
#include "fuzz.h"

#include "icmp.h"

#include <stdlib.h>

#define ETH     14
#define OUT_MAX 2048

static void check(bool ok)
{
	if (!ok)
		__builtin_trap();
}

static const struct ipaddr *our_address(uint8_t family)
{
	static struct ipaddr v4, v6;

	v4 = ipaddr_v4(htonl(0xc6126401));
	v6 = ipaddr_v6("\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
	return family == 4 ? &v4 : &v6;
}

/* An error as it leaves, in memory that ends with it. */
static void check_translate(const uint8_t *ip, size_t len, size_t icmp_off, uint8_t family)
{
	struct icmp_translation t = {
		.outer_src = *our_address(family),
		.outer_dst = *our_address(family),
		.src = *our_address(family),
		.dst = *our_address(family),
		.sport_be = 0x1234,
		.dport_be = 0x5678,
		.seq_add = 0x89abcdef,
		.ack_add = 1,
		.tsval_add = 0xffffffff,
		.tsecr_add = 0x01000001,
	};
	uint8_t *copy = malloc(len);
	struct icmp_quote q;
	size_t new_len;

	memcpy(copy, ip, len);
	if (icmp_quote_parse(copy + icmp_off, len - icmp_off, family, &q) == ICMP_QUOTE_OK) {
		check((size_t)q.l4_off + q.l4_len <= len - icmp_off && q.l4_len >= 8);
		new_len = icmp_translate(copy, len, icmp_off, &q, &t);
		check(new_len <= len && new_len <= (family == 4 ? ICMP4_ERROR_MAX : ICMP6_ERROR_MAX));
		check(icmp_checksum_ok(copy, new_len, icmp_off));
		check(icmp_quote_parse(copy + icmp_off, new_len - icmp_off, family, &q) == ICMP_QUOTE_OK);
		check(ipaddr_equal(&q.src, &t.src) && q.sport_be == t.sport_be && q.dport_be == t.dport_be);
		(void)icmp_ptb_mtu(copy + icmp_off, &q);
	}
	free(copy);
}

static void check_made(const uint8_t *out, size_t len, size_t size)
{
	uint8_t family = out[0] >> 4;
	size_t icmp_off = family == 4 ? 20 : 40;

	if (len == 0)
		return;
	check(len <= size && len <= (family == 4 ? ICMP4_ERROR_MAX : ICMP6_ERROR_MAX));
	check(icmp_checksum_ok(out, len, icmp_off));
	check(!icmp_may_answer(out, len, true));
	check_translate(out, len, icmp_off, family);
}

static void make_errors(const uint8_t *ip, size_t len)
{
	const struct ipaddr *src = our_address(len && ip[0] >> 4 == 6 ? 6 : 4);
	size_t size = len % 3 ? OUT_MAX : 28 + len % 100;
	uint8_t *out = calloc(1, size);

	check_made(out, icmp_build_ptb(out, size, src, ip, len, 1400), size);
	check_made(out, icmp_build_port_unreachable(out, size, src, ip, len), size);
	check_made(out, icmp_build_time_exceeded(out, size, src, ip, len), size);
	free(out);
}

/* The bytes as an ICMP message, behind an outer header that says nothing wrong. */
static void read_error(const uint8_t *icmp, size_t len, uint8_t family)
{
	uint8_t packet[OUT_MAX + 40] = {[0] = family == 4 ? 0x45 : 0x60};
	size_t icmp_off = family == 4 ? 20 : 40;

	if (len > OUT_MAX)
		return;
	memcpy(packet + icmp_off, icmp, len);
	check_translate(packet, icmp_off + len, icmp_off, family);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	read_error(data, len, 4);
	read_error(data, len, 6);
	if (len > ETH)
		make_errors(data + ETH, len - ETH);
	return 0;
}
