/* SPDX-License-Identifier: BSD-3-Clause */
#include "policy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct ipaddr addr(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

static struct policy_listener listener(const char *text, uint16_t port, uint8_t proto, uint32_t slot)
{
	return (struct policy_listener){
		.addr = addr(text), .port_be = htons(port), .proto = proto, .service_slot = slot};
}

static void test_exact(void **state)
{
	const struct policy_listener l[] = {
		listener("198.18.100.1", 80, PROTO_TCP, 0),   listener("198.18.100.1", 80, PROTO_UDP, 1),
		listener("198.18.100.1", 443, PROTO_TCP, 2),  listener("2001:db8:100::1", 80, PROTO_TCP, 3),
		listener("2001:db8:100::1", 1, PROTO_UDP, 4), listener("198.18.100.2", 65535, PROTO_UDP, 5),
	};
	struct listener_table *t = listener_table_create(l, 6);
	struct ipaddr other = addr("198.18.100.3"), first = addr("198.18.100.1"), v6 = addr("2001:db8:100::1");

	assert_non_null(t);
	for (unsigned i = 0; i < 6; i++) {
		const struct policy_listener *found = listener_lookup(t, &l[i].addr, l[i].port_be, l[i].proto);

		assert_non_null(found);
		assert_int_equal(found->service_slot, i);
		assert_true(listener_has_address(t, &l[i].addr));
	}
	assert_null(listener_lookup(t, &other, htons(80), PROTO_TCP));
	assert_null(listener_lookup(t, &first, htons(81), PROTO_TCP));
	assert_null(listener_lookup(t, &first, htons(443), PROTO_UDP));
	assert_null(listener_lookup(t, &v6, htons(80), PROTO_UDP));
	assert_null(listener_lookup(t, &first, htons(80), 0));
	assert_false(listener_has_address(t, &other));
	listener_table_destroy(t);
}

static void test_empty(void **state)
{
	struct listener_table *t = listener_table_create(NULL, 0);
	struct ipaddr a = addr("198.18.100.1"), zero = addr("::");

	assert_non_null(t);
	assert_null(listener_lookup(t, &a, htons(80), PROTO_TCP));
	assert_false(listener_has_address(t, &a));
	assert_null(listener_lookup(t, &zero, 0, 0));
	assert_false(listener_has_address(t, &zero));
	listener_table_destroy(t);
	listener_table_destroy(NULL);
}

static void expect_refused(const struct policy_listener *l, size_t n, int err)
{
	errno = 0;
	assert_null(listener_table_create(l, n));
	assert_int_equal(errno, err);
}

static void test_refused(void **state)
{
	struct policy_listener l[] = {
		listener("198.18.100.1", 80, PROTO_TCP, 0),
		listener("198.18.100.2", 80, PROTO_TCP, 1),
		listener("198.18.100.1", 80, PROTO_TCP, 2),
	};

	expect_refused(l, 3, EEXIST);
	l[2] = listener("::", 80, PROTO_TCP, 2);
	expect_refused(l, 3, EINVAL);
	l[2] = listener("198.18.100.3", 80, 0, 2);
	expect_refused(l, 3, EINVAL);
}

/* As many as the hash tables can collide over; neighbours in address, port and protocol must stay apart. */
static void test_many(void **state)
{
	const uint32_t n = 50000;
	struct policy_listener *l = calloc(n, sizeof(*l));
	struct listener_table *t;

	assert_non_null(l);
	for (uint32_t i = 0; i < n; i++)
		l[i] = (struct policy_listener){.addr = ipaddr_v4(htonl(0xc6120000 + i / 8)),
						.port_be = htons(80 + i / 2 % 4),
						.proto = i % 2 ? PROTO_TCP : PROTO_UDP,
						.service_slot = i};
	t = listener_table_create(l, n);
	assert_non_null(t);
	for (uint32_t i = 0; i < n; i++) {
		const struct policy_listener *found = listener_lookup(t, &l[i].addr, l[i].port_be, l[i].proto);
		struct ipaddr beyond = ipaddr_v4(htonl(0xc6130000 + i));

		assert_non_null(found);
		assert_int_equal(found->service_slot, i);
		assert_null(listener_lookup(t, &l[i].addr, htons(84), l[i].proto));
		assert_false(listener_has_address(t, &beyond));
	}
	listener_table_destroy(t);
	free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
