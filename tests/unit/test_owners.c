/* SPDX-License-Identifier: BSD-3-Clause */
#include "owners.h"
#include "view.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S 1000000000ull

/* One backend 198.18.3.N and one service in slot 2 of that generation; N = 0: neither. */
static void note(struct owners *o, unsigned n, uint32_t generation, uint64_t now_ns)
{
	struct view_backend b = {.addr = ipaddr_v4(htonl(0xc6120300 + n)),
				 .port_be = htons(8080),
				 .proto = n % 2 ? PROTO_UDP : PROTO_TCP,
				 .slot = 2,
				 .generation = generation};
	struct view_service s = {.slot = 2, .generation = generation};
	struct view view = {.n_backends = n > 0, .n_services = n > 0, .backends = &b, .services = &s};

	snprintf(s.name, sizeof(s.name), "service%u", n);
	owners_note(o, &view, now_ns);
}

static void assert_owner(struct owners *o, uint64_t at_ns, const char *backend, const char *service)
{
	char text[OWNER_BACKEND_LEN], name[OWNER_SERVICE_LEN];

	assert_int_equal(owners_backend(o, 2, at_ns, text), backend != NULL);
	assert_int_equal(owners_service(o, 2, at_ns, name), service != NULL);
	if (backend) {
		assert_string_equal(text, backend);
		assert_string_equal(name, service);
	}
}

static void test_two_owners(void **state)
{
	struct owners *o = owners_create(4, 4);

	assert_owner(o, 100 * S, NULL, NULL);
	note(o, 22, 1, 100 * S);
	note(o, 22, 1, 101 * S);
	assert_owner(o, 90 * S, NULL, NULL);
	assert_owner(o, 100 * S, "tcp:198.18.3.22:8080", "service22");
	/* Nobody has it, and it is known all the same whose it was. */
	note(o, 0, 0, 110 * S);
	assert_owner(o, 105 * S, "tcp:198.18.3.22:8080", "service22");
	note(o, 23, 2, 200 * S);
	assert_owner(o, 199 * S, "tcp:198.18.3.22:8080", "service22");
	assert_owner(o, 201 * S, "udp:198.18.3.23:8080", "service23");
	/* A slot may be in use a little before its owner is noted. */
	assert_owner(o, 200 * S - S / 4, "udp:198.18.3.23:8080", "service23");
	note(o, 24, 3, 300 * S);
	assert_owner(o, 199 * S, NULL, NULL);
	assert_owner(o, 250 * S, "udp:198.18.3.23:8080", "service23");
	assert_owner(o, 400 * S, "tcp:198.18.3.24:8080", "service24");
	owners_destroy(o);
	owners_destroy(NULL);
}

static void test_no_such_slot(void **state)
{
	struct owners *o = owners_create(1, 1);
	char text[OWNER_BACKEND_LEN];

	note(o, 22, 1, 100 * S);
	assert_false(owners_backend(o, 2, 100 * S, text));
	assert_false(owners_service(o, UINT32_MAX, 100 * S, text));
	owners_destroy(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_owners),
		cmocka_unit_test(test_no_such_slot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
