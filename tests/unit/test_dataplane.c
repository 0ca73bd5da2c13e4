/* SPDX-License-Identifier: BSD-3-Clause */
#include "core.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

/* A port's arrays have a fixed size: whoever asks for more is refused before anything is opened. */
static void test_too_many_queues(void **state)
{
	struct port_config config = {.name = "third", .device = "eth7", .n_queues = DATAPLANE_MAX_QUEUES + 1};
	struct rig rig;
	char err[256] = "";

	assert_int_equal(rig_create(&rig, &(struct rig_config){.n_mbufs = 1023, .flows_v4 = 16, .flows_v6 = 16}), 0);
	for (enum port_kind kind = PORT_XSK; kind <= PORT_ETH; kind++) {
		config.kind = kind;
		assert_int_equal(dataplane_add_port(rig.dp, &config, err, sizeof(err)), -E2BIG);
		assert_non_null(strstr(err, "eth7: 65 queues"));
	}
	assert_int_equal(rig.dp->n_ports, RIG_PORTS);
	rig_destroy(&rig);
}

/* What to do about it depends on what the device is; whoever reports it says which port it was. */
static void test_too_few_queues(void **state)
{
	struct port_config config = {.name = "third", .device = "eth7", .kind = PORT_XSK, .n_queues = 1};
	struct rig_config two = {.n_workers = 2, .n_mbufs = 1023, .flows_v4 = 16, .flows_v6 = 16};
	struct rig rig;
	char err[256] = "";

	assert_int_equal(rig_create(&rig, &two), 0);
	assert_int_equal(dataplane_add_port(rig.dp, &config, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "ethtool -L eth7 combined 2"));
	assert_null(strstr(err, "port third"));
	config.kind = PORT_ETH;
	assert_int_equal(dataplane_add_port(rig.dp, &config, err, sizeof(err)), -EINVAL);
	assert_null(strstr(err, "ethtool"));
	assert_non_null(strstr(err, "raise the port's `queues`"));
	rig_destroy(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_too_many_queues),
		cmocka_unit_test(test_too_few_queues),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
