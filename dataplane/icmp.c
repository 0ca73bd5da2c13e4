/* SPDX-License-Identifier: BSD-3-Clause */
#include "icmp.h"
#include "checksum.h"
#include "parse.h"
#include "tcp_options.h"

#define MADE_TTL        64
/* Internetwork control, as errors of routers should have (RFC 1812 4.3.2.5). */
#define MADE_TOS4       0xc0

#define IP4_HEADER_LEN  20
#define IP6_HEADER_LEN  40
#define L4_QUOTE_MIN    8

#define IP4_DF          0x4000
#define IP4_OFFSET_MASK 0x1fff
#define IP6_OFFSET_MASK 0xfff8

/* Offsets in headers. */
enum {
	IP4_TOTAL = 2,
	IP4_FRAGMENT = 6,
	IP4_TTL = 8,
	IP4_PROTO = 9,
	IP4_CSUM = 10,
	IP4_SRC = 12,
	IP4_DST = 16,
	IP6_LEN = 4,
	IP6_NEXT = 6,
	IP6_HOPS = 7,
	IP6_SRC = 8,
	IP6_DST = 24,
	ICMP_CSUM = 2,
	ICMP4_EXT_LEN = 5, /* RFC 4884 4.1: of the quote, in 32-bit words */
	ICMP6_EXT_LEN = 4, /* in 64-bit words */
	ICMP4_MTU = 6,
	ICMP6_MTU = 4,
	TCP_SEQ = 4,
	TCP_ACK_SEQ = 8,
	TCP_OFFSET = 12,
	TCP_FLAG_BITS = 13,
	TCP_CSUM = 16,
	TCP_HEADER_LEN = 20,
	UDP_CSUM = 6,
};

enum {
	NEXT_HOP_BY_HOP = 0,
	NEXT_ICMP4 = 1,
	NEXT_ROUTING = 43,
	NEXT_FRAGMENT = 44,
	NEXT_ICMP6 = 58,
	NEXT_DEST_OPTIONS = 60,
};

#define EXT_HEADERS_MAX 8
#define EXT_BYTES_MAX   256

static uint16_t get16_be(const uint8_t *at)
{
	uint16_t v_be;

	memcpy(&v_be, at, 2);
	return v_be;
}

static uint32_t get32_be(const uint8_t *at)
{
	uint32_t v_be;

	memcpy(&v_be, at, 4);
	return v_be;
}

static uint16_t get16(const uint8_t *at)
{
	return ntohs(get16_be(at));
}

static void put16(uint8_t *at, uint16_t v)
{
	uint16_t v_be = htons(v);

	memcpy(at, &v_be, 2);
}

static void put32(uint8_t *at, uint32_t v)
{
	uint32_t v_be = htonl(v);

	memcpy(at, &v_be, 4);
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* --- full checksums --- */

/* Adds to `sum`, which holds any packet of up to 64 KiB and its pseudo-header. */
static uint32_t sum_bytes(uint32_t sum, const uint8_t *bytes, size_t len)
{
	uint16_t last = 0;

	for (; len >= 2; bytes += 2, len -= 2)
		sum += get16_be(bytes);
	if (len) {
		memcpy(&last, bytes, 1);
		sum += last;
	}
	return sum;
}

static uint32_t sum_pseudo6(const uint8_t *ip, size_t icmp_len)
{
	uint32_t sum = sum_bytes(0, ip + IP6_SRC, 32);

	return sum + htons((uint16_t)icmp_len) + htons(NEXT_ICMP6);
}

static uint16_t icmp_sum(const uint8_t *ip, size_t ip_len, size_t icmp_off)
{
	size_t icmp_len = ip_len - icmp_off;
	uint32_t sum = ip[0] >> 4 == 6 ? sum_pseudo6(ip, icmp_len) : 0;

	return csum_delta_fold(sum_bytes(sum, ip + icmp_off, icmp_len));
}

bool icmp_checksum_ok(const uint8_t *ip, size_t ip_len, size_t icmp_off)
{
	return ip_len >= icmp_off + ICMP_HEADER_LEN && icmp_sum(ip, ip_len, icmp_off) == 0xffff;
}

static void fill_icmp_checksum(uint8_t *ip, size_t ip_len, size_t icmp_off)
{
	uint16_t csum_be;

	memset(ip + icmp_off + ICMP_CSUM, 0, 2);
	csum_be = ~icmp_sum(ip, ip_len, icmp_off);
	memcpy(ip + icmp_off + ICMP_CSUM, &csum_be, 2);
}

static void fill_ip4_checksum(uint8_t *ip)
{
	uint16_t csum_be;

	memset(ip + IP4_CSUM, 0, 2);
	csum_be = ~csum_delta_fold(sum_bytes(0, ip, (ip[0] & 0x0fu) * 4));
	memcpy(ip + IP4_CSUM, &csum_be, 2);
}

/* --- where the transport header of a packet begins --- */

struct headers {
	size_t l4_off; /* from the IP header */
	size_t total_len;
	uint8_t proto;
	bool later_fragment; /* then l4_off is that of its data */
};

static enum icmp_quote_result walk_ip4(const uint8_t *ip, size_t len, struct headers *h)
{
	if (len < IP4_HEADER_LEN)
		return ICMP_QUOTE_TRUNCATED;
	h->l4_off = (ip[0] & 0x0fu) * 4;
	h->total_len = get16(ip + IP4_TOTAL);
	h->proto = ip[IP4_PROTO];
	h->later_fragment = get16(ip + IP4_FRAGMENT) & IP4_OFFSET_MASK;
	if (ip[0] >> 4 != 4 || h->l4_off < IP4_HEADER_LEN || h->total_len < h->l4_off)
		return ICMP_QUOTE_MALFORMED;
	return len < h->l4_off ? ICMP_QUOTE_TRUNCATED : ICMP_QUOTE_OK;
}

static bool is_extension(uint8_t next)
{
	return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT || next == NEXT_DEST_OPTIONS;
}

static enum icmp_quote_result walk_ip6(const uint8_t *ip, size_t len, struct headers *h)
{
	unsigned n_extensions = 0;

	if (len < IP6_HEADER_LEN)
		return ICMP_QUOTE_TRUNCATED;
	if (ip[0] >> 4 != 6)
		return ICMP_QUOTE_MALFORMED;
	*h = (struct headers){.l4_off = IP6_HEADER_LEN, .proto = ip[IP6_NEXT]};
	h->total_len = IP6_HEADER_LEN + (size_t)get16(ip + IP6_LEN);
	while (is_extension(h->proto) && !h->later_fragment) {
		const uint8_t *ext = ip + h->l4_off;

		if (len < h->l4_off + 8)
			return ICMP_QUOTE_TRUNCATED;
		if (h->proto == NEXT_FRAGMENT)
			h->later_fragment = get16(ext + 2) & IP6_OFFSET_MASK;
		h->l4_off += h->proto == NEXT_FRAGMENT ? 8 : (ext[1] + 1u) * 8;
		h->proto = ext[0];
		if (++n_extensions > EXT_HEADERS_MAX || h->l4_off > IP6_HEADER_LEN + EXT_BYTES_MAX)
			return ICMP_QUOTE_MALFORMED;
	}
	if (h->total_len < h->l4_off)
		return ICMP_QUOTE_MALFORMED;
	return len < h->l4_off ? ICMP_QUOTE_TRUNCATED : ICMP_QUOTE_OK;
}

static enum icmp_quote_result walk(const uint8_t *ip, size_t len, uint8_t family, struct headers *h)
{
	return family == 4 ? walk_ip4(ip, len, h) : walk_ip6(ip, len, h);
}

/* --- reading a quote --- */

static bool may_have_extensions(const uint8_t *icmp, uint8_t family)
{
	if (family == 4)
		return icmp[0] == ICMP4_UNREACHABLE || icmp[0] == ICMP4_TIME_EXCEEDED ||
		       icmp[0] == ICMP4_PARAMETER_PROBLEM;
	return icmp[0] == ICMP6_UNREACHABLE || icmp[0] == ICMP6_HOP_LIMIT_EXCEEDED;
}

/* Bytes after the ICMP header that are quote, not extensions (RFC 4884 4). A length that cannot be is none. */
static size_t quote_room(const uint8_t *icmp, size_t len, uint8_t family)
{
	size_t room = len - ICMP_HEADER_LEN, told;

	if (!may_have_extensions(icmp, family))
		return room;
	told = family == 4 ? icmp[ICMP4_EXT_LEN] * 4u : icmp[ICMP6_EXT_LEN] * 8u;
	return told >= 128 && told < room ? told : room;
}

static void read_addresses(const uint8_t *ip, uint8_t family, struct icmp_quote *out)
{
	if (family == 4) {
		out->src = ipaddr_v4(get32_be(ip + IP4_SRC));
		out->dst = ipaddr_v4(get32_be(ip + IP4_DST));
	} else {
		out->src = ipaddr_v6(ip + IP6_SRC);
		out->dst = ipaddr_v6(ip + IP6_DST);
	}
}

enum icmp_quote_result icmp_quote_parse(const uint8_t *icmp, size_t len, uint8_t family, struct icmp_quote *out)
{
	const uint8_t *ip = icmp + ICMP_HEADER_LEN, *l4;
	enum icmp_quote_result result;
	struct headers h;
	size_t quoted;

	if (len < ICMP_HEADER_LEN)
		return ICMP_QUOTE_TRUNCATED;
	quoted = quote_room(icmp, len, family);
	result = walk(ip, quoted, family, &h);
	if (result != ICMP_QUOTE_OK)
		return result;
	if (h.later_fragment)
		return ICMP_QUOTE_FRAGMENT;
	if (h.proto != PROTO_TCP && h.proto != PROTO_UDP)
		return ICMP_QUOTE_PROTOCOL;
	if (h.total_len < h.l4_off + L4_QUOTE_MIN)
		return ICMP_QUOTE_MALFORMED;
	/* What is beyond the quoted packet's own length is padding. */
	quoted = min_size(quoted, h.total_len);
	if (quoted < h.l4_off + L4_QUOTE_MIN)
		return ICMP_QUOTE_TRUNCATED;
	l4 = ip + h.l4_off;
	*out = (struct icmp_quote){
		.sport_be = get16_be(l4),
		.dport_be = get16_be(l4 + 2),
		.seq_be = h.proto == PROTO_TCP ? get32_be(l4 + TCP_SEQ) : 0,
		.total_len = (uint32_t)h.total_len,
		.l4_off = (uint16_t)(ICMP_HEADER_LEN + h.l4_off),
		.l4_len = (uint16_t)(quoted - h.l4_off),
		.family = family,
		.proto = h.proto,
		.has_seq = h.proto == PROTO_TCP,
	};
	read_addresses(ip, family, out);
	return ICMP_QUOTE_OK;
}

static bool icmp4_error_passes(uint8_t type, uint8_t code)
{
	/* Net, host, protocol and port unreachable, too big, and the three that say "administratively". */
	static const uint32_t unreachable_codes =
		1u << 0 | 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 9 | 1u << 10 | 1u << 13;

	switch (type) {
	case ICMP4_UNREACHABLE:
		return code < 32 && unreachable_codes >> code & 1;
	case ICMP4_TIME_EXCEEDED:
		return code == 0;
	default:
		return type == ICMP4_PARAMETER_PROBLEM;
	}
}

bool icmp_error_passes(uint8_t family, uint8_t type, uint8_t code)
{
	if (family == 4)
		return icmp4_error_passes(type, code);
	switch (type) {
	case ICMP6_UNREACHABLE:
	case ICMP6_TOO_BIG:
	case ICMP6_PARAMETER_PROBLEM:
		return true;
	default:
		return type == ICMP6_HOP_LIMIT_EXCEEDED && code == 0;
	}
}

/* RFC 1191 7.1. */
static uint32_t plateau_below(uint32_t len)
{
	static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68};
	size_t i = 0;

	while (i < sizeof(plateaus) / sizeof(plateaus[0]) - 1 && plateaus[i] >= len)
		i++;
	return plateaus[i];
}

uint32_t icmp_ptb_mtu(const uint8_t *icmp, const struct icmp_quote *quote)
{
	uint32_t floor = quote->family == 4 ? ICMP4_MTU_FLOOR : ICMP6_MTU_FLOOR;
	uint32_t mtu = quote->family == 4 ? get16(icmp + ICMP4_MTU) : ntohl(get32_be(icmp + ICMP6_MTU));

	if (mtu == 0 && quote->family == 4)
		mtu = plateau_below(quote->total_len);
	if (mtu < floor)
		mtu = floor;
	return mtu < quote->total_len ? mtu : 0;
}

/* --- translation --- */

static void add_to_word(uint8_t *base, size_t off, uint32_t add, uint32_t *delta)
{
	uint32_t v_be = htonl(ntohl(get32_be(base + off)) + add);

	csum_replace(base, off, &v_be, 4, delta);
}

/* Returns what the transport checksum's pseudo-header changes by. */
static uint32_t translate_addresses(uint8_t *ip, uint8_t family, const struct icmp_translation *t)
{
	uint32_t delta = 0;
	uint16_t csum_be;

	if (family == 6) {
		csum_replace(ip, IP6_SRC, t->src.b, 16, &delta);
		csum_replace(ip, IP6_DST, t->dst.b, 16, &delta);
		return delta;
	}
	csum_replace(ip, IP4_SRC, &t->src.b[12], 4, &delta);
	csum_replace(ip, IP4_DST, &t->dst.b[12], 4, &delta);
	csum_be = csum_apply(get16_be(ip + IP4_CSUM), csum_delta_fold(delta));
	memcpy(ip + IP4_CSUM, &csum_be, 2);
	return delta;
}

/* As rewrite.c: an echo of 0 is none. */
static void translate_option(uint8_t *tcp, size_t off, const struct icmp_translation *t, bool acks, uint32_t *delta)
{
	if (tcp[off] == TCP_OPTION_TIMESTAMPS && tcp[off + 1] == TCP_OPTION_TIMESTAMPS_LEN) {
		add_to_word(tcp, off + 2, t->tsval_add, delta);
		if (acks && get32_be(tcp + off + 6))
			add_to_word(tcp, off + 6, t->tsecr_add, delta);
	} else if (tcp[off] == TCP_OPTION_SACK) {
		for (size_t edge = 2; edge + 4 <= tcp[off + 1]; edge += 4)
			add_to_word(tcp, off + edge, t->ack_add, delta);
	}
}

static void translate_options(uint8_t *tcp, size_t l4_len, const struct icmp_translation *t, bool acks, uint32_t *delta)
{
	size_t end = min_size((size_t)(tcp[TCP_OFFSET] >> 4) * 4, l4_len & ~(size_t)1);
	const uint8_t *options = tcp + TCP_HEADER_LEN;
	unsigned len = end > TCP_HEADER_LEN ? end - TCP_HEADER_LEN : 0;

	for (unsigned at = 0; (at = tcp_option_at(options, len, at)) < len; at += options[at + 1])
		translate_option(tcp, TCP_HEADER_LEN + at, t, acks, delta);
}

static void translate_tcp(uint8_t *tcp, size_t l4_len, const struct icmp_translation *t, uint32_t delta)
{
	bool acks = l4_len <= TCP_FLAG_BITS || tcp[TCP_FLAG_BITS] & TCP_ACK;
	uint16_t csum_be;

	add_to_word(tcp, TCP_SEQ, t->seq_add, &delta);
	if (acks && l4_len >= TCP_ACK_SEQ + 4)
		add_to_word(tcp, TCP_ACK_SEQ, t->ack_add, &delta);
	if (l4_len > TCP_HEADER_LEN)
		translate_options(tcp, l4_len, t, acks, &delta);
	if (l4_len < TCP_CSUM + 2)
		return;
	csum_be = csum_apply(get16_be(tcp + TCP_CSUM), csum_delta_fold(delta));
	memcpy(tcp + TCP_CSUM, &csum_be, 2);
}

static void translate_udp(uint8_t *udp, uint32_t delta)
{
	uint16_t csum_be = csum_apply_udp(get16_be(udp + UDP_CSUM), csum_delta_fold(delta));

	memcpy(udp + UDP_CSUM, &csum_be, 2);
}

static void translate_quote(uint8_t *icmp, const struct icmp_quote *quote, const struct icmp_translation *t)
{
	uint8_t *l4 = icmp + quote->l4_off;
	uint32_t delta = translate_addresses(icmp + ICMP_HEADER_LEN, quote->family, t);

	csum_replace(l4, 0, &t->sport_be, 2, &delta);
	csum_replace(l4, 2, &t->dport_be, 2, &delta);
	if (quote->proto == PROTO_TCP)
		translate_tcp(l4, quote->l4_len, t, delta);
	else
		translate_udp(l4, delta);
}

/* If the error is over the limit: only quote, and as much as may be. Returns the length of the IP packet. */
static size_t cut_to_limit(uint8_t *icmp, size_t ip_len, size_t icmp_off, const struct icmp_quote *quote)
{
	size_t limit = quote->family == 4 ? ICMP4_ERROR_MAX : ICMP6_ERROR_MAX;

	if (ip_len <= limit)
		return ip_len;
	if (may_have_extensions(icmp, quote->family))
		icmp[quote->family == 4 ? ICMP4_EXT_LEN : ICMP6_EXT_LEN] = 0;
	return min_size(limit, icmp_off + quote->l4_off + quote->l4_len);
}

static void translate_outer(uint8_t *ip, size_t ip_len, const struct icmp_translation *t, uint8_t family)
{
	if (family == 4) {
		put16(ip + IP4_TOTAL, (uint16_t)ip_len);
		ip[IP4_TTL] = MADE_TTL;
		memcpy(ip + IP4_SRC, &t->outer_src.b[12], 4);
		memcpy(ip + IP4_DST, &t->outer_dst.b[12], 4);
		fill_ip4_checksum(ip);
	} else {
		put16(ip + IP6_LEN, (uint16_t)(ip_len - IP6_HEADER_LEN));
		ip[IP6_HOPS] = MADE_TTL;
		memcpy(ip + IP6_SRC, t->outer_src.b, 16);
		memcpy(ip + IP6_DST, t->outer_dst.b, 16);
	}
}

size_t icmp_translate(uint8_t *ip, size_t ip_len, size_t icmp_off, const struct icmp_quote *quote,
		      const struct icmp_translation *t)
{
	uint8_t *icmp = ip + icmp_off;

	translate_quote(icmp, quote, t);
	if (t->mtu && quote->family == 4)
		put16(icmp + ICMP4_MTU, (uint16_t)t->mtu);
	else if (t->mtu)
		put32(icmp + ICMP6_MTU, t->mtu);
	ip_len = cut_to_limit(icmp, ip_len, icmp_off, quote);
	translate_outer(ip, ip_len, t, quote->family);
	fill_icmp_checksum(ip, ip_len, icmp_off);
	return ip_len;
}

/* --- making errors --- */

/* "This" network, loopback, multicast, reserved and broadcast: no single host. */
static bool ip4_is_host(const uint8_t *addr)
{
	return addr[0] != 0 && addr[0] != 127 && addr[0] < 224;
}

static bool ip6_is_host(const uint8_t *addr)
{
	static const uint8_t unspecified[16], loopback[16] = {[15] = 1};

	return addr[0] != 0xff && memcmp(addr, unspecified, 16) != 0 && memcmp(addr, loopback, 16) != 0;
}

static bool addresses_may_be_answered(const uint8_t *ip, uint8_t family, bool ptb)
{
	if (family == 4)
		return ip4_is_host(ip + IP4_SRC) && ip4_is_host(ip + IP4_DST);
	return ip6_is_host(ip + IP6_SRC) && (ip6_is_host(ip + IP6_DST) || (ptb && ip[IP6_DST] == 0xff));
}

static bool is_error_type(uint8_t family, uint8_t type)
{
	if (family == 6)
		return type < ICMP6_NOT_ERROR || type == ICMP6_REDIRECT;
	switch (type) {
	case ICMP4_UNREACHABLE:
	case ICMP4_SOURCE_QUENCH:
	case ICMP4_REDIRECT:
	case ICMP4_TIME_EXCEEDED:
	case ICMP4_PARAMETER_PROBLEM:
		return true;
	default:
		return false;
	}
}

bool icmp_may_answer(const uint8_t *ip, size_t ip_len, bool ptb)
{
	struct headers h;
	uint8_t family;

	if (ip_len < 1)
		return false;
	family = ip[0] >> 4;
	if ((family != 4 && family != 6) || walk(ip, ip_len, family, &h) != ICMP_QUOTE_OK)
		return false;
	if (h.later_fragment || !addresses_may_be_answered(ip, family, ptb))
		return false;
	if (h.proto != (family == 4 ? NEXT_ICMP4 : NEXT_ICMP6))
		return true;
	return min_size(ip_len, h.total_len) > h.l4_off && !is_error_type(family, ip[h.l4_off]);
}

static size_t put_ip4_header(uint8_t *out, size_t len, const struct ipaddr *src, const uint8_t *about)
{
	memset(out, 0, IP4_HEADER_LEN);
	out[0] = 0x45;
	out[1] = MADE_TOS4;
	put16(out + IP4_TOTAL, (uint16_t)len);
	put16(out + IP4_FRAGMENT, IP4_DF);
	out[IP4_TTL] = MADE_TTL;
	out[IP4_PROTO] = NEXT_ICMP4;
	memcpy(out + IP4_SRC, &src->b[12], 4);
	memcpy(out + IP4_DST, about + IP4_SRC, 4);
	fill_ip4_checksum(out);
	return IP4_HEADER_LEN;
}

static size_t put_ip6_header(uint8_t *out, size_t len, const struct ipaddr *src, const uint8_t *about)
{
	memset(out, 0, IP6_HEADER_LEN);
	out[0] = 0x60;
	put16(out + IP6_LEN, (uint16_t)(len - IP6_HEADER_LEN));
	out[IP6_NEXT] = NEXT_ICMP6;
	out[IP6_HOPS] = MADE_TTL;
	memcpy(out + IP6_SRC, src->b, 16);
	memcpy(out + IP6_DST, about + IP6_SRC, 16);
	return IP6_HEADER_LEN;
}

struct error_kind {
	uint8_t type, code;
	uint32_t word; /* the second half of the ICMP header */
};

/* icmp_may_answer() has been asked. */
static size_t build(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip, size_t ip_len,
		    struct error_kind kind)
{
	uint8_t family = ip[0] >> 4;
	size_t overhead = (family == 4 ? IP4_HEADER_LEN : IP6_HEADER_LEN) + ICMP_HEADER_LEN;
	size_t limit = min_size(size, family == 4 ? ICMP4_ERROR_MAX : ICMP6_ERROR_MAX);
	size_t quoted, icmp_off;
	struct headers h;

	if (walk(ip, ip_len, family, &h) != ICMP_QUOTE_OK)
		return 0;
	quoted = min_size(ip_len, h.total_len);
	if (limit < overhead + min_size(quoted, h.l4_off + L4_QUOTE_MIN))
		return 0;
	quoted = min_size(quoted, limit - overhead);
	icmp_off = family == 4 ? put_ip4_header(out, overhead + quoted, src, ip)
			       : put_ip6_header(out, overhead + quoted, src, ip);
	out[icmp_off] = kind.type;
	out[icmp_off + 1] = kind.code;
	put32(out + icmp_off + 4, kind.word);
	memcpy(out + overhead, ip, quoted);
	fill_icmp_checksum(out, overhead + quoted, icmp_off);
	return overhead + quoted;
}

size_t icmp_build_ptb(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip, size_t ip_len,
		      uint32_t mtu)
{
	struct error_kind v4 = {ICMP4_UNREACHABLE, ICMP4_CODE_TOO_BIG, mtu < UINT16_MAX ? mtu : UINT16_MAX};
	struct error_kind v6 = {ICMP6_TOO_BIG, 0, mtu};

	if (!icmp_may_answer(ip, ip_len, true))
		return 0;
	return build(out, size, src, ip, ip_len, ip[0] >> 4 == 4 ? v4 : v6);
}

size_t icmp_build_port_unreachable(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip,
				   size_t ip_len)
{
	struct error_kind v4 = {ICMP4_UNREACHABLE, ICMP4_CODE_PORT, 0};
	struct error_kind v6 = {ICMP6_UNREACHABLE, ICMP6_CODE_PORT, 0};

	if (!icmp_may_answer(ip, ip_len, false))
		return 0;
	return build(out, size, src, ip, ip_len, ip[0] >> 4 == 4 ? v4 : v6);
}

size_t icmp_build_time_exceeded(uint8_t *out, size_t size, const struct ipaddr *src, const uint8_t *ip, size_t ip_len)
{
	struct error_kind v4 = {ICMP4_TIME_EXCEEDED, 0, 0};
	struct error_kind v6 = {ICMP6_HOP_LIMIT_EXCEEDED, 0, 0};

	if (!icmp_may_answer(ip, ip_len, false))
		return 0;
	return build(out, size, src, ip, ip_len, ip[0] >> 4 == 4 ? v4 : v6);
}
