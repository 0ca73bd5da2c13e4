/* SPDX-License-Identifier: BSD-3-Clause */
#include "ipaddr.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_text_and_back(void **state)
{
	static const struct {
		const char *text, *usual;
		bool v4;
	} cases[] = {
		{"0.0.0.0", "0.0.0.0", true},
		{"198.18.0.1", "198.18.0.1", true},
		{"255.255.255.255", "255.255.255.255", true},
		{"::ffff:198.18.0.1", "198.18.0.1", true}, /* the v4-mapped form is the IPv4 address */
		{"::", "::", false},
		{"::1", "::1", false},
		{"2001:DB8::1", "2001:db8::1", false},
		{"2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1", false},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false},
	};
	char out[IPADDR_STRLEN];
	struct ipaddr a, b;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(ipaddr_parse(cases[i].text, &a), 0);
		assert_int_equal(ipaddr_is_v4(&a), cases[i].v4);
		assert_ptr_equal(ipaddr_format(&a, out), out);
		assert_string_equal(out, cases[i].usual);
		assert_int_equal(ipaddr_parse(out, &b), 0);
		assert_true(ipaddr_equal(&a, &b));
	}
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"198.18.0",
		"198.18.0.256",
		"198.18.0.01",
		"198.18.0.1 ",
		"198.18.0.1/32",
		"198.18.0.1:80",
		"[2001:db8::1]",
		"2001:db8::1::",
		"2001:db8::g",
		"fe80::1%eth0",
		"2001:db8::/32",
		"localhost",
		"0x7f.0.0.1",
		"1",
		"12345::",
	};
	struct ipaddr a = ipaddr_v4(htonl(0xc6120001)), before = a;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(ipaddr_parse(bad[i], &a), -EINVAL);
		assert_true(ipaddr_equal(&a, &before));
	}
}

static void test_bytes(void **state)
{
	static const uint8_t mapped[16] = {[10] = 0xff, [11] = 0xff, 198, 18, 0, 1};
	static const uint8_t compatible[16] = {[12] = 198, 18, 0, 1}; /* ::198.18.0.1 is IPv6 */
	struct ipaddr a = ipaddr_v4(htonl(0xc6120001)), b = ipaddr_v6(mapped), c = ipaddr_v6(compatible);

	assert_memory_equal(a.b, mapped, 16);
	assert_true(ipaddr_equal(&a, &b));
	assert_false(ipaddr_equal(&a, &c));
	assert_false(ipaddr_is_v4(&c));
	assert_int_equal(ipaddr_v4_be(&a), htonl(0xc6120001));
	/* Each byte counts. */
	for (unsigned i = 0; i < 16; i++) {
		b = a;
		b.b[i] ^= 1;
		assert_false(ipaddr_equal(&a, &b));
		assert_int_equal(ipaddr_is_v4(&b), i >= 12);
	}
}

static void test_with_port(void **state)
{
	char out[IPADDR_PORT_STRLEN];
	struct ipaddr a;

	assert_int_equal(ipaddr_parse("198.18.3.21", &a), 0);
	assert_string_equal(ipaddr_port_format(&a, htons(8080), out), "198.18.3.21:8080");
	assert_int_equal(ipaddr_parse("2001:db8:3::15", &a), 0);
	assert_string_equal(ipaddr_port_format(&a, htons(80), out), "[2001:db8:3::15]:80");
	/* The longest. */
	memset(a.b, 0xff, sizeof(a.b));
	assert_string_equal(ipaddr_port_format(&a, htons(65535), out),
			    "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_and_back),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_with_port),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
