// SPDX-License-Identifier: BSD-3-Clause
/* What the plan makes of the devices that are there. */
#include "memory_plan.h"
#include "netlab.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct config_port port = {.name = "wan", .device = "many0", .kind = PORT_XSK};

static void make_device(unsigned n_queues)
{
	assert_int_equal(netlab_run("ip link add many0 numrxqueues %u numtxqueues %u type veth peer name many1",
				    n_queues, n_queues),
			 0);
}

static void all_queues_of_the_device(void **state)
{
	char err[256] = "";

	make_device(DATAPLANE_MAX_QUEUES);
	assert_int_equal(memory_plan_queues(&port, 1, err, sizeof(err)), DATAPLANE_MAX_QUEUES);
	assert_string_equal(err, "");
	netlab_run("ip link del many0");
}

static void more_queues_than_a_port_has(void **state)
{
	char err[256] = "";

	make_device(DATAPLANE_MAX_QUEUES + 1);
	assert_int_equal(memory_plan_queues(&port, 1, err, sizeof(err)), -E2BIG);
	assert_non_null(strstr(err, "port wan: many0 has 65 receive queues"));
	assert_non_null(strstr(err, "ethtool -L many0 combined 64"));
	netlab_run("ip link del many0");
}

static void no_such_device(void **state)
{
	char err[256] = "";

	assert_int_equal(memory_plan_queues(&port, 1, err, sizeof(err)), -ENODEV);
	assert_non_null(strstr(err, "no network device many0"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_queues_of_the_device),
		cmocka_unit_test(more_queues_than_a_port_has),
		cmocka_unit_test(no_such_device),
	};

	if (netlab_enter())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
