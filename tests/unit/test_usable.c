/* SPDX-License-Identifier: BSD-3-Clause */
#include "usable.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const char yaml[] = "gateway:\n"
			   "  workers: [0]\n"
			   "  ports: [{name: wan, device: eth1}, {name: lan, device: eth2}]\n"
			   "  snat: [198.18.101.10, \"2001:db8:101::10\"]\n"
			   "services:\n"
			   "  - {name: a, listen: [\"198.18.100.1:80/tcp\", \"[2001:db8:100::1]:80/tcp\"],"
			   " backends: [{dns: a.test, port: 80}]}\n"
			   "  - {name: b, listen: [\"198.18.100.2:53/udp\", \"198.18.100.1:81/tcp\"],"
			   " backends: [{address: 198.18.3.21, port: 53}]}\n";

static void tell(void *arg, const char *message)
{
	print_error("%s\n", message);
}

static void test_all(void **state)
{
	static const struct {
		const char *addr;
		bool usable;
	} cases[] = {
		{"198.18.3.21", true},
		{"10.0.0.1", true},
		{"192.168.1.1", true},
		{"223.255.255.255", true},
		{"1.0.0.0", true},
		{"0.0.0.0", false},
		{"0.1.2.3", false},
		{"127.0.0.1", false},
		{"127.255.255.255", false},
		{"224.0.0.1", false},
		{"240.0.0.1", false},
		{"255.255.255.255", false},
		{"2001:db8:3::21", true},
		{"fc00::1", true},
		{"fec0::1", true},
		{"::2", true},
		{"::", false},
		{"::1", false},
		{"ff02::1", false},
		{"fe80::1", false},
		{"febf::1", false},
		{"::ffff:127.0.0.1", false},
		/* the gateway's own */
		{"198.18.100.1", false},
		{"198.18.100.2", false},
		{"198.18.100.3", true},
		{"2001:db8:100::1", false},
		{"198.18.101.10", false},
		{"2001:db8:101::10", false},
	};
	struct config *config = config_parse("test", yaml, sizeof(yaml) - 1, tell, NULL);
	struct usable *u;

	assert_non_null(config);
	u = usable_create(config);
	assert_non_null(u);
	config_free(config);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipaddr addr;

		assert_int_equal(ipaddr_parse(cases[i].addr, &addr), 0);
		if (usable_has(u, &addr) != cases[i].usable)
			fail_msg("%s", cases[i].addr);
	}
	usable_destroy(u);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
