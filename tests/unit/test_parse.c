/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every frame is parsed where it ends right before a page that nobody may read, so that one byte too far is a crash.
 */
#include "parse.h"

#include "frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

#define ETH 14
#define IP4 20
#define IP6 40

static uint8_t *page_end;                /* of the last readable page */
static bool verdict_seen[VERDICT_COUNT]; /* by expect() */

static int map_pages(void **state)
{
	size_t page = sysconf(_SC_PAGESIZE);
	uint8_t *map = mmap(NULL, 32 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return -1;
	page_end = map + 31 * page;
	return mprotect(page_end, page, PROT_NONE);
}

static enum verdict parse_at_end(const uint8_t *frame, size_t len, struct packet *p)
{
	memcpy(page_end - len, frame, len);
	return parse(page_end - len, len, p);
}

#define expect(frame, len, want)                                                                                       \
	do {                                                                                                           \
		struct packet p_;                                                                                      \
		enum verdict got_ = parse_at_end(frame, len, &p_);                                                     \
		if (got_ != (want))                                                                                    \
			fail_msg("got %s, want %s", got_ == VERDICT_NONE ? "none" : verdict_info[got_].name,           \
				 (want) == VERDICT_NONE ? "none" : verdict_info[want].name);                           \
		if (got_ != VERDICT_NONE)                                                                              \
			verdict_seen[got_] = true;                                                                     \
	} while (0)

static struct frame_spec spec(bool v4, uint8_t proto)
{
	static const uint8_t src[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}, dst[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 2};

	return (struct frame_spec){
		.src = v4 ? ipaddr_v4(htonl(0xc6120101)) : ipaddr_v6(src),
		.dst = v4 ? ipaddr_v4(htonl(0xc6126401)) : ipaddr_v6(dst),
		.proto = proto,
		.sport_be = proto == IPPROTO_ICMP     ? 8
			    : proto == IPPROTO_ICMPV6 ? 128
						      : htons(40000),
		.dport_be = htons(80),
		.payload_len = 32,
	};
}

static size_t make(uint8_t *frame, bool v4, uint8_t proto)
{
	struct frame_spec s = spec(v4, proto);

	return frame_make(&s, frame);
}

static void set16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value;
}

static void set_source4(uint8_t *frame, uint32_t addr)
{
	addr = htonl(addr);
	memcpy(frame + ETH + 12, &addr, sizeof(addr));
	frame_fix_ip4(frame + ETH);
}

/* Offset field of IPv4: `units` of 8 bytes, `more` fragments. */
static void set_fragment4(uint8_t *frame, uint16_t units, bool more)
{
	set16(frame + ETH + 6, units | (more ? 0x2000 : 0));
	frame_fix_ip4(frame + ETH);
}

/* Puts IPv4 options (n a multiple of 4) behind the fixed header. */
static size_t insert4(uint8_t *frame, size_t len, const uint8_t *options, size_t n)
{
	uint8_t *ip = frame + ETH;

	memmove(ip + IP4 + n, ip + IP4, len - ETH - IP4);
	memcpy(ip + IP4, options, n);
	ip[0] = 0x45 + n / 4;
	set16(ip + 2, len - ETH + n);
	frame_fix_ip4(ip);
	return len + n;
}

static void plain_tcp4(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP);
	struct packet p;
	struct ipaddr want_src = ipaddr_v4(htonl(0xc6120101)), src;

	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.family, 4);
	assert_int_equal(p.proto, IPPROTO_TCP);
	assert_int_equal(p.tcp_flags, TCP_ACK);
	assert_int_equal(p.kind, PACKET_TCP);
	assert_int_equal(p.flags, PACKET_DF);
	assert_int_equal(p.ttl, 64);
	assert_int_equal(p.l3_off, ETH);
	assert_int_equal(p.l4_off, ETH + IP4);
	assert_int_equal(p.payload_off, ETH + IP4 + 20);
	assert_int_equal(p.ip_len, len - ETH);
	assert_int_equal(p.sport_be, htons(40000));
	assert_int_equal(p.dport_be, htons(80));
	assert_int_equal(p.payload_len, 32);
	src = packet_src(frame, &p);
	assert_true(ipaddr_equal(&src, &want_src));
	assert_int_equal(packet_dst4_be(frame, &p), htonl(0xc6126401));
}

static void plain_udp6(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, false, IPPROTO_UDP);
	struct ipaddr dst;
	struct packet p;

	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.family, 6);
	assert_int_equal(p.kind, PACKET_UDP);
	assert_int_equal(p.flags, 0);
	assert_int_equal(p.ttl, 64);
	assert_int_equal(p.l4_off, ETH + IP6);
	assert_int_equal(p.payload_off, ETH + IP6 + 8);
	assert_int_equal(p.payload_len, 32);
	assert_int_equal(p.ip_len, IP6 + 8 + 32);
	dst = packet_dst(frame, &p);
	assert_memory_equal(dst.b, frame + ETH + 24, 16);
}

static void icmp_kinds(void **state)
{
	static const struct {
		bool v4;
		uint8_t type;
		enum packet_kind kind;
	} cases[] = {
		{true, 8, PACKET_ICMP_ECHO_REQUEST},    {true, 0, PACKET_ICMP_OTHER},
		{true, 3, PACKET_ICMP_ERROR},           {true, 11, PACKET_ICMP_ERROR},
		{true, 12, PACKET_ICMP_ERROR},          {true, 5, PACKET_ICMP_OTHER},
		{true, 4, PACKET_ICMP_OTHER},           {false, 1, PACKET_ICMP_ERROR},
		{false, 2, PACKET_ICMP_ERROR},          {false, 4, PACKET_ICMP_ERROR},
		{false, 0, PACKET_ICMP_OTHER},          {false, 5, PACKET_ICMP_OTHER},
		{false, 135, PACKET_ICMP_OTHER},        {false, 129, PACKET_ICMP_OTHER},
		{false, 128, PACKET_ICMP_ECHO_REQUEST},
	};
	uint8_t frame[FRAME_MAX];
	struct packet p;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = make(frame, cases[i].v4, cases[i].v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);

		frame[ETH + (cases[i].v4 ? IP4 : IP6)] = cases[i].type;
		assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
		assert_int_equal(p.kind, cases[i].kind);
		assert_int_equal(p.payload_len, 32);
	}
}

/* The frame ends early although its headers promise more: at every length the same verdict, and no byte too far. */
static void cut_frames_are_truncated(void **state)
{
	static const uint8_t protos[][2] = {{4, IPPROTO_TCP}, {4, IPPROTO_UDP}, {4, IPPROTO_ICMP},
					    {6, IPPROTO_TCP}, {6, IPPROTO_UDP}, {6, IPPROTO_ICMPV6}};
	static const uint8_t destination_options[16] = {0, 1};
	uint8_t frame[FRAME_MAX], options[16];

	for (size_t i = 0; i < sizeof(protos) / sizeof(protos[0]); i++) {
		for (int variant = 0; variant < 3; variant++) {
			size_t len = make(frame, protos[i][0] == 4, protos[i][1]);

			memcpy(options, destination_options, sizeof(options));
			options[0] = protos[i][1];
			if (variant == 1)
				len = frame_tag(frame, len, 0x8100, 0xe000);
			if (variant == 2 && protos[i][0] == 6)
				len = frame_insert6(frame, len, IPPROTO_DSTOPTS, options, sizeof(options));
			expect(frame, len, VERDICT_NONE);
			for (size_t cut = 0; cut < len; cut++)
				expect(frame, cut, VERDICT_drop_truncated);
		}
	}
}

/* IP packets that end early by their own length field: nothing behind that end may be looked at. */
static void short_packets_have_no_l4_header(void **state)
{
	static const struct {
		uint8_t proto;
		size_t header;
	} cases[] = {{IPPROTO_TCP, 20}, {IPPROTO_UDP, 8}, {IPPROTO_ICMP, 8}, {IPPROTO_ICMPV6, 8}};
	uint8_t frame[FRAME_MAX];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (size_t l4 = 0; l4 < cases[i].header; l4++) {
			if (cases[i].proto != IPPROTO_ICMPV6) {
				make(frame, true, cases[i].proto);
				set16(frame + ETH + 2, IP4 + l4);
				frame_fix_ip4(frame + ETH);
				expect(frame, ETH + IP4 + l4, VERDICT_drop_l4_header);
			}
			if (cases[i].proto != IPPROTO_ICMP) {
				make(frame, false, cases[i].proto);
				set16(frame + ETH + 4, l4);
				expect(frame, ETH + IP6 + l4, l4 ? VERDICT_drop_l4_header : VERDICT_drop_truncated);
			}
		}
	}
}

static void padding_is_not_payload(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct frame_spec s = spec(true, IPPROTO_TCP);
	struct packet p;

	s.payload_len = 0;
	memset(frame, 0xee, sizeof(frame));
	assert_int_equal(frame_make(&s, frame), 54);
	assert_int_equal(parse_at_end(frame, 60, &p), VERDICT_NONE);
	assert_int_equal(p.payload_len, 0);
	assert_int_equal(p.ip_len, 40);
}

static void vlan_tags(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct packet p;
	size_t len = frame_tag(frame, make(frame, true, IPPROTO_TCP), 0x8100, 0xe000);

	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.flags, PACKET_VLAN | PACKET_DF);
	assert_int_equal(p.l3_off, ETH + 4);
	assert_int_equal(p.l4_off, ETH + 4 + IP4);
	assert_int_equal(p.dport_be, htons(80));
	len = frame_tag(frame, make(frame, false, IPPROTO_UDP), 0x88a8, 0xe000);
	expect(frame, len, VERDICT_NONE);
	len = frame_tag(frame, len, 0x8100, 0xe000);
	expect(frame, len, VERDICT_drop_not_ip);
	len = frame_tag(frame, make(frame, true, IPPROTO_TCP), 0x8100, 1);
	expect(frame, len, VERDICT_drop_vlan);
	len = frame_tag(frame, make(frame, false, IPPROTO_TCP), 0x88a8, 0x8fff);
	expect(frame, len, VERDICT_drop_vlan);
}

static void not_ip(void **state)
{
	static const uint16_t types[] = {0x0806, 0x88cc, 0x8847, 0x0000, 0x05dc, 0xffff, 0x0008};
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP);

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		set16(frame + 12, types[i]);
		expect(frame, len, VERDICT_drop_not_ip);
	}
}

static void ip_version(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP);

	frame[ETH] = 0x65;
	expect(frame, len, VERDICT_drop_ip_version);
	len = make(frame, false, IPPROTO_TCP);
	frame[ETH] = 0x45;
	expect(frame, len, VERDICT_drop_ip_version);
}

static void ip4_header(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP);

	for (uint8_t ihl = 0; ihl < 5; ihl++) {
		frame[ETH] = 0x40 | ihl;
		expect(frame, len, VERDICT_drop_ip_header);
	}
	frame[ETH] = 0x45;
	for (uint16_t total = 0; total < IP4; total++) {
		set16(frame + ETH + 2, total);
		expect(frame, len, VERDICT_drop_ip_header);
	}
	frame[ETH] = 0x4f;
	set16(frame + ETH + 2, 59);
	expect(frame, len, VERDICT_drop_ip_header);
}

/* 16 bits cannot say how long this is; only a caller's buffer of more than 64 KiB can hold it. */
static void ip6_too_long_for_16_bits(void **state)
{
	static uint8_t frame[0x11000];
	size_t len = make(frame, false, IPPROTO_TCP);

	set16(frame + ETH + 4, 0xffff);
	expect(frame, ETH + IP6 + 0xffff, VERDICT_drop_ip_header);
	set16(frame + ETH + 4, 0xffff - IP6);
	expect(frame, ETH + 0xffff, VERDICT_NONE);
	set16(frame + ETH + 4, 0);
	expect(frame, len, VERDICT_drop_truncated);
}

/* Each single-bit error in the header's 20 bytes is noticed as something. */
static void ip4_checksum(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP);
	struct packet p;

	frame[ETH + 10] ^= 1;
	expect(frame, len, VERDICT_drop_ip_checksum);
	frame[ETH + 10] ^= 1;
	for (unsigned bit = 0; bit < IP4 * 8; bit++) {
		frame[ETH + bit / 8] ^= 1 << bit % 8;
		assert_int_not_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
		frame[ETH + bit / 8] ^= 1 << bit % 8;
	}
	expect(frame, len, VERDICT_NONE);
}

static void ip4_checksum_covers_options(void **state)
{
	static const uint8_t nops[40] = {[0 ... 39] = 1};
	uint8_t frame[FRAME_MAX];
	size_t len;

	for (size_t n = 4; n <= sizeof(nops); n += 4) {
		len = insert4(frame, make(frame, true, IPPROTO_UDP), nops, n);
		expect(frame, len, VERDICT_NONE);
		frame[ETH + IP4 + n - 1] = 0;
		expect(frame, len, VERDICT_drop_ip_checksum);
	}
}

static void ip4_sources(void **state)
{
	static const struct {
		uint32_t addr;
		enum verdict want;
	} cases[] = {
		{0x00000000, VERDICT_drop_ip_source}, {0x00ffffff, VERDICT_drop_ip_source},
		{0x01000000, VERDICT_NONE},           {0x7effffff, VERDICT_NONE},
		{0x7f000001, VERDICT_drop_ip_source}, {0x7fffffff, VERDICT_drop_ip_source},
		{0x80000000, VERDICT_NONE},           {0xdfffffff, VERDICT_NONE},
		{0xe0000000, VERDICT_drop_ip_source}, {0xefffffff, VERDICT_drop_ip_source},
		{0xf0000000, VERDICT_NONE},           {0xfffffffe, VERDICT_NONE},
		{0xffffffff, VERDICT_drop_ip_source},
	};
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		set_source4(frame, cases[i].addr);
		expect(frame, len, cases[i].want);
	}
}

static void ip6_sources(void **state)
{
	static const struct {
		const char *addr;
		enum verdict want;
	} cases[] = {
		{"::", VERDICT_drop_ip_source},
		{"::1", VERDICT_drop_ip_source},
		{"::2", VERDICT_NONE},
		{"ff02::1", VERDICT_drop_ip_source},
		{"ff0e::1", VERDICT_drop_ip_source},
		{"fe80::1", VERDICT_NONE},
		{"64:ff9b::1.2.3.4", VERDICT_NONE},
		{"::ffff:198.18.0.1", VERDICT_drop_ip_source},
	};
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, false, IPPROTO_TCP);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(inet_pton(AF_INET6, cases[i].addr, frame + ETH + 8), 1);
		expect(frame, len, cases[i].want);
	}
	len = make(frame, false, IPPROTO_TCP);
	assert_int_equal(inet_pton(AF_INET6, "::ffff:198.18.100.1", frame + ETH + 24), 1);
	expect(frame, len, VERDICT_drop_not_ours);
}

static void ip4_options(void **state)
{
	static const struct {
		uint8_t bytes[8];
		enum verdict want;
	} cases[] = {
		{{1, 1, 1, 1, 1, 1, 1, 1}, VERDICT_NONE},
		{{7, 7, 4, 0, 0, 0, 0, 0}, VERDICT_NONE},                   /* record route, then the end */
		{{0, 131, 9, 9, 9, 9, 9, 9}, VERDICT_NONE},                 /* nothing counts behind the end */
		{{148, 4, 0, 0, 1, 1, 1, 0}, VERDICT_NONE},                 /* router alert */
		{{1, 131, 7, 4, 198, 18, 0, 1}, VERDICT_drop_source_route}, /* loose */
		{{137, 7, 4, 198, 18, 0, 1, 0}, VERDICT_drop_source_route}, /* strict */
		{{148, 4, 0, 0, 131, 0, 0, 0}, VERDICT_drop_source_route},  /* malformed as well */
		{{7, 0, 0, 0, 0, 0, 0, 0}, VERDICT_drop_ip_options},        /* length 0: an endless loop for some */
		{{7, 1, 0, 0, 0, 0, 0, 0}, VERDICT_drop_ip_options},        /* length 1 */
		{{1, 1, 1, 1, 7, 5, 0, 0}, VERDICT_drop_ip_options},        /* past the header */
		{{1, 1, 1, 1, 1, 1, 1, 7}, VERDICT_drop_ip_options},        /* no room for the length */
	};
	uint8_t frame[FRAME_MAX];
	struct packet p;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = insert4(frame, make(frame, true, IPPROTO_TCP), cases[i].bytes, 8);

		expect(frame, len, cases[i].want);
		if (cases[i].want != VERDICT_NONE)
			continue;
		assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
		assert_int_equal(p.l4_off, ETH + IP4 + 8);
		assert_true(p.flags & PACKET_OPTIONS);
		assert_int_equal(p.dport_be, htons(80));
	}
}

static void fragments4(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct packet p;
	size_t len = make(frame, true, IPPROTO_UDP);

	set_fragment4(frame, 0, true);
	set16(frame + ETH + IP4 + 4, 3000);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.kind, PACKET_UDP);
	assert_int_equal(p.flags, PACKET_FRAGMENT);
	assert_int_equal(p.payload_len, 32);

	set_fragment4(frame, 5, true);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.kind, PACKET_FRAGMENT_LATER);
	assert_int_equal(p.proto, IPPROTO_UDP);
	assert_int_equal(p.sport_be, 0);
	assert_int_equal(p.payload_off, ETH + IP4);
	assert_int_equal(p.payload_len, 40);

	set_fragment4(frame, 5, false);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	frame[ETH + 9] = 47;
	frame_fix_ip4(frame + ETH);
	expect(frame, len, VERDICT_drop_protocol);
}

static void bad_fragments4(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_UDP);

	set_fragment4(frame, 8187, false); /* 65 496 + 40 */
	expect(frame, len, VERDICT_drop_fragment);
	set_fragment4(frame, 8186, false);
	expect(frame, len, VERDICT_NONE);
	set16(frame + ETH + 2, IP4 + 39);
	set_fragment4(frame, 5, true);
	expect(frame, len, VERDICT_drop_fragment);
	set16(frame + ETH + 2, IP4);
	set_fragment4(frame, 5, false);
	expect(frame, ETH + IP4, VERDICT_drop_fragment);

	len = make(frame, true, IPPROTO_TCP);
	set16(frame + ETH + 2, IP4 + 16);
	set_fragment4(frame, 0, true);
	expect(frame, ETH + IP4 + 16, VERDICT_drop_l4_header);
	len = make(frame, true, IPPROTO_TCP);
	set_fragment4(frame, 1, false);
	expect(frame, len, VERDICT_drop_l4_header);
}

/* A fragment header in front of UDP. */
static size_t make_fragment6(uint8_t *frame, uint16_t offset, bool more)
{
	uint8_t header[8] = {IPPROTO_UDP, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef};

	set16(header + 2, offset | more);
	return frame_insert6(frame, make(frame, false, IPPROTO_UDP), IPPROTO_FRAGMENT, header, sizeof(header));
}

static void fragments6(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct packet p;
	size_t len = make_fragment6(frame, 0, true);

	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.kind, PACKET_UDP);
	assert_int_equal(p.flags, PACKET_FRAGMENT | PACKET_OPTIONS);
	assert_int_equal(p.l4_off, ETH + IP6 + 8);
	set16(frame + p.l4_off + 6, 0); /* judged by who has the whole datagram */
	expect(frame, len, VERDICT_NONE);

	len = make_fragment6(frame, 1280, false);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.kind, PACKET_FRAGMENT_LATER);

	/* RFC 6946: a whole packet, so what holds for whole packets holds. */
	len = make_fragment6(frame, 0, false);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.flags, PACKET_OPTIONS);
	set16(frame + p.l4_off + 6, 0);
	expect(frame, len, VERDICT_drop_udp6_zero_checksum);
}

static void bad_fragments6(void **state)
{
	uint8_t frame[FRAME_MAX], header[8] = {IPPROTO_FRAGMENT};
	size_t len = make_fragment6(frame, 0xfff8, false);

	expect(frame, len, VERDICT_drop_fragment);
	/* The chain of headers goes on in the next fragment: RFC 7112. */
	len = make_fragment6(frame, 0, true);
	frame[ETH + IP6] = IPPROTO_DSTOPTS;
	frame[ETH + IP6 + 9] = 20;
	expect(frame, len, VERDICT_drop_l4_header);
	len = frame_insert6(frame, make_fragment6(frame, 0, false), IPPROTO_FRAGMENT, header, sizeof(header));
	expect(frame, len, VERDICT_drop_ip_options);
}

/* n headers of `units` x 8 bytes each, of kind `type`, in front of TCP. */
static size_t make_extensions(uint8_t *frame, uint8_t type, unsigned n, uint8_t units)
{
	size_t len = make(frame, false, IPPROTO_TCP);
	uint8_t header[2048] = {0};

	for (unsigned i = 0; i < n; i++) {
		header[0] = i ? type : IPPROTO_TCP;
		header[1] = units - 1;
		header[2] = 4; /* of a routing header: the type, segment routing */
		len = frame_insert6(frame, len, type, header, units * 8);
	}
	return len;
}

static void extensions6(void **state)
{
	uint8_t frame[FRAME_MAX];
	struct packet p;
	size_t len;

	len = make_extensions(frame, IPPROTO_DSTOPTS, 8, 4);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.kind, PACKET_TCP);
	assert_int_equal(p.l4_off, ETH + IP6 + 256);
	assert_int_equal(p.payload_len, 32);
	expect(frame, make_extensions(frame, IPPROTO_DSTOPTS, 9, 1), VERDICT_drop_ip_options);
	expect(frame, make_extensions(frame, IPPROTO_DSTOPTS, 1, 32), VERDICT_NONE);
	expect(frame, make_extensions(frame, IPPROTO_DSTOPTS, 1, 33), VERDICT_drop_ip_options);
	expect(frame, make_extensions(frame, IPPROTO_DSTOPTS, 3, 11), VERDICT_drop_ip_options);
	expect(frame, make_extensions(frame, IPPROTO_HOPOPTS, 1, 1), VERDICT_NONE);
	expect(frame, make_extensions(frame, IPPROTO_HOPOPTS, 2, 1), VERDICT_drop_ip_options);
	len = make_extensions(frame, IPPROTO_ROUTING, 1, 3);
	expect(frame, len, VERDICT_NONE);
	frame[ETH + IP6 + 3] = 1;
	expect(frame, len, VERDICT_drop_source_route);
	frame[ETH + IP6 + 3] = 0;
	frame[ETH + IP6 + 2] = 0;
	expect(frame, len, VERDICT_drop_source_route);
}

/* Extension headers that run past the packet by their own length. */
static void extensions6_cut_short(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make_extensions(frame, IPPROTO_DSTOPTS, 1, 4);

	for (uint16_t payload = 1; payload < 32; payload++) {
		set16(frame + ETH + 4, payload);
		expect(frame, ETH + IP6 + payload, VERDICT_drop_truncated);
	}
	set16(frame + ETH + 4, 32);
	expect(frame, ETH + IP6 + 32, VERDICT_drop_l4_header);
	set16(frame + ETH + 4, len - ETH - IP6);
	expect(frame, len, VERDICT_NONE);
}

/* Every protocol number but the few that have a meaning. */
static void protocols(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len4 = make(frame, true, IPPROTO_TCP), len6;

	for (unsigned proto = 0; proto < 256; proto++) {
		if (proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_ICMP)
			continue;
		frame[ETH + 9] = proto;
		frame_fix_ip4(frame + ETH);
		expect(frame, len4, VERDICT_drop_protocol);
	}
	len6 = make(frame, false, IPPROTO_TCP);
	for (unsigned proto = 0; proto < 256; proto++) {
		if (proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_ICMPV6 ||
		    proto == IPPROTO_HOPOPTS || proto == IPPROTO_DSTOPTS || proto == IPPROTO_ROUTING ||
		    proto == IPPROTO_FRAGMENT)
			continue;
		frame[ETH + 6] = proto;
		expect(frame, len6, VERDICT_drop_protocol);
	}
}

static void tcp_header_length(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_TCP); /* 20 + 32 bytes: a header of 13 words just fits */
	struct packet p;

	for (unsigned words = 0; words < 16; words++) {
		frame[ETH + IP4 + 12] = words << 4 | 0x0f; /* the reserved bits do not count */
		expect(frame, len, words >= 5 && words <= 13 ? VERDICT_NONE : VERDICT_drop_l4_header);
		if (words < 5 || words > 13)
			continue;
		assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
		assert_int_equal(p.payload_len, 52 - words * 4);
		assert_int_equal(p.payload_off, ETH + IP4 + words * 4);
	}
}

static void tcp_flags(void **state)
{
	static const uint8_t sent[] = {TCP_SYN,           TCP_SYN | TCP_URG, TCP_SYN | TCP_ACK,
				       TCP_RST,           TCP_RST | TCP_ACK, TCP_ACK,
				       TCP_ACK | TCP_URG, TCP_FIN | TCP_ACK, TCP_FIN | TCP_ACK | TCP_URG};
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, false, IPPROTO_TCP);

	for (unsigned flags = 0; flags < 256; flags++) {
		bool ok = false;

		for (size_t i = 0; i < sizeof(sent); i++)
			ok = ok || (flags & ~(TCP_PSH | TCP_ECE | TCP_CWR)) == sent[i];
		frame[ETH + IP6 + 13] = flags;
		expect(frame, len, ok ? VERDICT_NONE : VERDICT_drop_tcp_flags);
	}
}

static void udp_length(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_UDP); /* 8 + 32 */
	struct packet p;

	for (unsigned length = 0; length < 64; length++) {
		set16(frame + ETH + IP4 + 4, length);
		expect(frame, len, length >= 8 && length <= 40 ? VERDICT_NONE : VERDICT_drop_l4_header);
	}
	set16(frame + ETH + IP4 + 4, 20);
	assert_int_equal(parse_at_end(frame, len, &p), VERDICT_NONE);
	assert_int_equal(p.payload_len, 12);
}

static void udp_without_checksum(void **state)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make(frame, true, IPPROTO_UDP);

	set16(frame + ETH + IP4 + 6, 0);
	expect(frame, len, VERDICT_NONE);
	len = make(frame, false, IPPROTO_UDP);
	set16(frame + ETH + IP6 + 6, 0);
	expect(frame, len, VERDICT_drop_udp6_zero_checksum);
}

/* Last of all: the tests above saw every verdict that parse.c can give, and none that it should not. */
static void all_verdicts_were_seen(void **state)
{
	static const enum verdict given[] = {
		VERDICT_drop_truncated,    VERDICT_drop_not_ip,
		VERDICT_drop_ip_version,   VERDICT_drop_ip_header,
		VERDICT_drop_ip_checksum,  VERDICT_drop_ip_source,
		VERDICT_drop_source_route, VERDICT_drop_ip_options,
		VERDICT_drop_fragment,     VERDICT_drop_protocol,
		VERDICT_drop_l4_header,    VERDICT_drop_tcp_flags,
		VERDICT_drop_not_ours,     VERDICT_drop_udp6_zero_checksum,
		VERDICT_drop_vlan,
	};
	bool expected[VERDICT_COUNT] = {false};

	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
		expected[given[i]] = true;
	for (int v = 0; v < VERDICT_COUNT; v++)
		if (verdict_seen[v] != expected[v])
			fail_msg("%s: %s", verdict_info[v].name, expected[v] ? "never given" : "given");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_tcp4),
		cmocka_unit_test(plain_udp6),
		cmocka_unit_test(icmp_kinds),
		cmocka_unit_test(cut_frames_are_truncated),
		cmocka_unit_test(short_packets_have_no_l4_header),
		cmocka_unit_test(padding_is_not_payload),
		cmocka_unit_test(vlan_tags),
		cmocka_unit_test(not_ip),
		cmocka_unit_test(ip_version),
		cmocka_unit_test(ip4_header),
		cmocka_unit_test(ip6_too_long_for_16_bits),
		cmocka_unit_test(ip4_checksum),
		cmocka_unit_test(ip4_checksum_covers_options),
		cmocka_unit_test(ip4_sources),
		cmocka_unit_test(ip6_sources),
		cmocka_unit_test(ip4_options),
		cmocka_unit_test(fragments4),
		cmocka_unit_test(bad_fragments4),
		cmocka_unit_test(fragments6),
		cmocka_unit_test(bad_fragments6),
		cmocka_unit_test(extensions6),
		cmocka_unit_test(extensions6_cut_short),
		cmocka_unit_test(protocols),
		cmocka_unit_test(tcp_header_length),
		cmocka_unit_test(tcp_flags),
		cmocka_unit_test(udp_length),
		cmocka_unit_test(udp_without_checksum),
		cmocka_unit_test(all_verdicts_were_seen),
	};
	return cmocka_run_group_tests_name("parse", tests, map_pages, NULL);
}
