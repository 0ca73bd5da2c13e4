/* SPDX-License-Identifier: BSD-3-Clause */
#include "dnsreply.h"

#include <arpa/nameser.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECTION_ANSWER    6 /* offsets of the counts in the header */
#define SECTION_AUTHORITY 8

/* A message under construction. */
struct message {
	uint8_t bytes[8192];
	size_t len;
};

static struct dnsreply reply;

static void put(struct message *m, const void *data, size_t len)
{
	assert_true(m->len + len <= sizeof(m->bytes));
	memcpy(m->bytes + m->len, data, len);
	m->len += len;
}

static void put16(struct message *m, uint16_t v)
{
	put(m, &(uint16_t){htons(v)}, 2);
}

static void put32(struct message *m, uint32_t v)
{
	put(m, &(uint32_t){htonl(v)}, 4);
}

static size_t wire_name(const char *name, uint8_t out[256])
{
	size_t len = 0;

	while (*name) {
		size_t label_len = strcspn(name, ".");

		out[len++] = (uint8_t)label_len;
		memcpy(out + len, name, label_len);
		len += label_len;
		name += label_len + (name[label_len] == '.');
	}
	out[len++] = 0;
	return len;
}

static void put_name(struct message *m, const char *name)
{
	uint8_t wire[256];

	put(m, wire, wire_name(name, wire));
}

static void begin(struct message *m, unsigned rcode, const char *name, uint16_t type)
{
	m->len = 0;
	put16(m, 0x1234);
	put16(m, (uint16_t)(0x8180 | rcode));
	put16(m, 1);
	put16(m, 0);
	put16(m, 0);
	put16(m, 0);
	put_name(m, name);
	put16(m, type);
	put16(m, ns_c_in);
}

static void put_record(struct message *m, size_t section, const char *owner, uint16_t type, uint32_t ttl_s,
		       const void *rdata, size_t len)
{
	m->bytes[section + 1]++;
	put_name(m, owner);
	put16(m, type);
	put16(m, ns_c_in);
	put32(m, ttl_s);
	put16(m, (uint16_t)len);
	put(m, rdata, len);
}

static void put_a(struct message *m, const char *owner, uint32_t ttl_s, const char *text)
{
	struct ipaddr a;
	uint32_t addr_be;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	addr_be = ipaddr_v4_be(&a);
	put_record(m, SECTION_ANSWER, owner, ns_t_a, ttl_s, &addr_be, 4);
}

static void put_cname(struct message *m, const char *owner, uint32_t ttl_s, const char *target)
{
	uint8_t wire[256];
	size_t len = wire_name(target, wire);

	put_record(m, SECTION_ANSWER, owner, ns_t_cname, ttl_s, wire, len);
}

static void put_soa(struct message *m, uint32_t ttl_s, uint32_t minimum_s)
{
	struct message soa = {0};

	put_name(&soa, "ns.test");
	put_name(&soa, "admin.test");
	for (int i = 0; i < 4; i++)
		put32(&soa, 1);
	put32(&soa, minimum_s);
	put_record(m, SECTION_AUTHORITY, "test", ns_t_soa, ttl_s, soa.bytes, soa.len);
}

/* Parses a copy that ends where its memory ends, so that a sanitizer sees a read past it. */
static enum dnsreply_kind parse(const struct message *m, size_t len, const char *name, uint8_t family)
{
	uint8_t *exact = malloc(len ? len : 1);

	assert_non_null(exact);
	memcpy(exact, m->bytes, len);
	reply.ttl_s = UINT32_MAX;
	reply.n_chain = 0;
	dnsreply_parse(&reply, exact, len, name, family);
	free(exact);
	assert_int_equal(reply.kind == DNSREPLY_ADDRESSES, reply.n_addresses > 0 && reply.error[0] == '\0');
	return reply.kind;
}

static void test_addresses(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "shop.test", ns_t_a);
	put_a(&m, "SHOP.test", 60, "198.18.3.21");
	put_a(&m, "shop.test", 50, "198.18.3.22");
	put_a(&m, "other.test", 1, "198.18.3.23");
	assert_int_equal(parse(&m, m.len, "shop.test", 4), DNSREPLY_ADDRESSES);
	assert_int_equal(reply.n_addresses, 2);
	assert_int_equal(reply.ttl_s, 50);
	assert_int_equal(ipaddr_v4_be(&reply.addresses[1]), htonl(0xc6120316));
	/* The same records do not answer for AAAA. */
	assert_int_equal(parse(&m, m.len, "shop.test", 6), DNSREPLY_NO_DATA);
}

static void test_aaaa(void **state)
{
	struct ipaddr a;
	struct message m;

	assert_int_equal(ipaddr_parse("2001:db8:3::15", &a), 0);
	begin(&m, ns_r_noerror, "shop.test", ns_t_aaaa);
	put_record(&m, SECTION_ANSWER, "shop.test", ns_t_aaaa, 7, &a, 16);
	assert_int_equal(parse(&m, m.len, "shop.test", 6), DNSREPLY_ADDRESSES);
	assert_true(ipaddr_equal(&reply.addresses[0], &a));
	assert_int_equal(reply.ttl_s, 7);
}

static void test_chain_minimum(void **state)
{
	struct message m;

	/* In the wrong order on purpose. */
	begin(&m, ns_r_noerror, "www.test", ns_t_a);
	put_a(&m, "c.test", 60, "198.18.3.21");
	put_cname(&m, "b.test", 10, "c.test");
	put_cname(&m, "www.test", 300, "b.test");
	assert_int_equal(parse(&m, m.len, "www.test", 4), DNSREPLY_ADDRESSES);
	assert_int_equal(reply.ttl_s, 10);
	assert_int_equal(reply.n_chain, 2);
}

static void test_top_bit_ttl_is_large(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "www.test", ns_t_a);
	put_cname(&m, "www.test", 10, "c.test");
	put_a(&m, "c.test", 0x80000001u, "198.18.3.21");
	assert_int_equal(parse(&m, m.len, "www.test", 4), DNSREPLY_ADDRESSES);
	assert_int_equal(reply.ttl_s, 10);
}

static void test_half_chain(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "www.test", ns_t_a);
	put_cname(&m, "www.test", 30, "b.test");
	assert_int_equal(parse(&m, m.len, "www.test", 4), DNSREPLY_CHAIN);
	assert_string_equal(reply.target, "b.test");
	assert_int_equal(reply.ttl_s, 30);
	assert_int_equal(reply.n_chain, 1);
	/* With a SOA it is an answer: the target has no address. */
	put_soa(&m, 3, 60);
	assert_int_equal(parse(&m, m.len, "www.test", 4), DNSREPLY_NO_DATA);
	assert_int_equal(reply.negative_ttl_s, 3);
}

static void test_chain_limit(void **state)
{
	char owner[32], target[32];

	for (int n_links = 7; n_links <= 9; n_links++) {
		struct message m;

		begin(&m, ns_r_noerror, "n0.test", ns_t_a);
		for (int i = 0; i < n_links; i++) {
			snprintf(owner, sizeof(owner), "n%d.test", i);
			snprintf(target, sizeof(target), "n%d.test", i + 1);
			put_cname(&m, owner, 60, target);
		}
		put_a(&m, target, 60, "198.18.3.21");
		assert_int_equal(parse(&m, m.len, "n0.test", 4), n_links <= 8 ? DNSREPLY_ADDRESSES : DNSREPLY_FAILED);
	}
}

static void test_loop(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "a.test", ns_t_a);
	put_cname(&m, "a.test", 60, "b.test");
	put_cname(&m, "b.test", 60, "a.test");
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_FAILED);
	assert_string_equal(reply.error, "CNAME chain too long or a loop");
}

static void test_many_cnames(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "a.test", ns_t_a);
	for (int i = 0; i < 100; i++)
		put_cname(&m, "x.test", 60, "y.test");
	put_a(&m, "a.test", 60, "198.18.3.21");
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_FAILED);
}

static void test_rcodes(void **state)
{
	static const struct {
		unsigned rcode;
		enum dnsreply_kind kind;
		const char *error;
	} cases[] = {
		{ns_r_formerr, DNSREPLY_FAILED, "FORMERR"}, {ns_r_servfail, DNSREPLY_FAILED, "SERVFAIL"},
		{ns_r_notimpl, DNSREPLY_FAILED, "NOTIMP"},  {ns_r_refused, DNSREPLY_FAILED, "REFUSED"},
		{9, DNSREPLY_FAILED, "unexpected RCODE"},   {ns_r_nxdomain, DNSREPLY_NO_NAME, "no such name"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct message m;

		begin(&m, cases[i].rcode, "a.test", ns_t_a);
		assert_int_equal(parse(&m, m.len, "a.test", 4), cases[i].kind);
		assert_string_equal(reply.error, cases[i].error);
		assert_int_equal(reply.negative_ttl_s, UINT32_MAX);
	}
}

static void test_negative_ttl(void **state)
{
	struct message m;

	begin(&m, ns_r_nxdomain, "a.test", ns_t_a);
	put_soa(&m, 60, 3);
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_NO_NAME);
	assert_int_equal(reply.negative_ttl_s, 3);
	begin(&m, ns_r_noerror, "a.test", ns_t_a);
	put_soa(&m, 2, 3600);
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_NO_DATA);
	assert_int_equal(reply.negative_ttl_s, 2);
}

static void test_referral(void **state)
{
	struct message m;
	uint8_t wire[256];
	size_t len = wire_name("ns.test", wire);

	begin(&m, ns_r_noerror, "a.test", ns_t_a);
	put_record(&m, SECTION_AUTHORITY, "test", ns_t_ns, 60, wire, len);
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_FAILED);
}

static void test_wrong_length(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "a.test", ns_t_a);
	put_record(&m, SECTION_ANSWER, "a.test", ns_t_a, 60, "abc", 3);
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_FAILED);
}

static void test_not_a_reply(void **state)
{
	struct message m;

	begin(&m, ns_r_noerror, "a.test", ns_t_a);
	put_a(&m, "a.test", 60, "198.18.3.21");
	m.bytes[2] &= 0x7f;
	assert_int_equal(parse(&m, m.len, "a.test", 4), DNSREPLY_FAILED);
}

static void sample(struct message *m)
{
	begin(m, ns_r_noerror, "www.test", ns_t_a);
	put_cname(m, "www.test", 300, "b.test");
	put_cname(m, "b.test", 10, "c.test");
	for (int i = 0; i < 5; i++)
		put_a(m, "c.test", 60, "198.18.3.21");
	put_soa(m, 60, 60);
}

static void test_every_length(void **state)
{
	struct message m;

	sample(&m);
	assert_int_equal(parse(&m, m.len, "www.test", 4), DNSREPLY_ADDRESSES);
	for (size_t len = 0; len < m.len; len++)
		assert_int_equal(parse(&m, len, "www.test", 4), DNSREPLY_FAILED);
}

static void test_mutations(void **state)
{
	struct message m;
	unsigned seed = 3;

	for (int i = 0; i < 100000; i++) {
		sample(&m);
		for (int n = rand_r(&seed) % 4; n >= 0; n--)
			m.bytes[(size_t)rand_r(&seed) % m.len] = (uint8_t)rand_r(&seed);
		parse(&m, m.len, "www.test", i & 1 ? 4 : 6);
		assert_true(reply.n_chain <= DNSREPLY_CHAIN_MAX + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),     cmocka_unit_test(test_aaaa),
		cmocka_unit_test(test_chain_minimum), cmocka_unit_test(test_top_bit_ttl_is_large),
		cmocka_unit_test(test_half_chain),    cmocka_unit_test(test_chain_limit),
		cmocka_unit_test(test_loop),          cmocka_unit_test(test_many_cnames),
		cmocka_unit_test(test_rcodes),        cmocka_unit_test(test_negative_ttl),
		cmocka_unit_test(test_referral),      cmocka_unit_test(test_wrong_length),
		cmocka_unit_test(test_not_a_reply),   cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_mutations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
