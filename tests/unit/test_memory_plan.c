/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static struct config config;
static struct config_service service;
static struct config_backend backends[CONFIG_MAX_BACKENDS];

/* One service with that many IPv4 backends, and SNAT addresses of IPv4; nothing else of interest. */
static void make_config(size_t n_backends, unsigned n_snat, uint64_t memory_bytes)
{
	config = (struct config){
		.n_workers = 2,
		.flows = 100000,
		.flows_ipv6 = 1024,
		.routes = 1000,
		.memory_bytes = memory_bytes,
		.n_snat = n_snat,
		.services = &service,
		.n_services = 1,
	};
	for (unsigned i = 0; i < n_snat; i++)
		config.snat[i] = ipaddr_v4(htonl(0xc6126501 + i));
	for (size_t i = 0; i < n_backends; i++)
		backends[i] = (struct config_backend){BACKEND_ADDRESS, ipaddr_v4(htonl(0xc6120301 + i))};
	service = (struct config_service){.backends = backends, .n_backends = n_backends};
}

/* What is printed, from malloc. */
static char *check(struct dataplane_config *d, int expected)
{
	size_t len;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	*d = (struct dataplane_config){.max_frame = 1518};
	config_to_dataplane(&config, 4, d);
	assert_int_equal(memory_plan_check(&config, d, 4, out), expected);
	assert_int_equal(fclose(out), 0);
	return text;
}

/* Each backend can have flows from each SNAT address at a time, if there is memory for it. */
static void test_pairs(void **state)
{
	struct dataplane_config d;
	char *text;

	make_config(1000, 8, 4096 * MIB);
	assert_int_equal(config_snat_pairs(&config), 8000);
	text = check(&d, 0);
	assert_true(d.n_snat_pairs >= 8000 * 3 / 2);
	assert_null(strstr(text, "warning"));
	free(text);
}

/* Too little for pairs that nobody has yet is no trouble; too little for those of the configuration is said. */
static void test_pairs_in_little_memory(void **state)
{
	struct dataplane_config d;
	uint32_t all;
	char *text;

	make_config(10, 8, 4096 * MIB);
	free(check(&d, 0));
	all = d.n_snat_pairs;
	config.memory_bytes = 221 * MIB;
	text = check(&d, 0);
	assert_true(d.n_snat_pairs < all && d.n_snat_pairs >= 1024);
	assert_null(strstr(text, "warning"));
	free(text);
	make_config(1000, 8, 235 * MIB);
	text = check(&d, 0);
	assert_non_null(
		strstr(text, "warning: gateway.snat: 8000 pairs of a backend and a SNAT address, and room for"));
	free(text);
}

/* What a plan takes is all of it: the dataplane's tables, DPDK's own share, and control's. */
static void test_every_byte_counts(void **state)
{
	struct dataplane_config d;
	double sum = 0, row, in_all;
	char *text, *line;

	make_config(10, 1, 512 * MIB);
	text = check(&d, 0);
	assert_non_null(strstr(text, "\n  DPDK itself "));
	assert_non_null(strstr(text, "\n  decide and serve "));
	for (line = strchr(text, '\n') + 1; sscanf(line, "  in all %lf MiB", &in_all) != 1;
	     line = strchr(line, '\n') + 1) {
		assert_int_equal(sscanf(line + 28, "%lf MiB", &row), 1);
		assert_true(row >= 0);
		sum += row;
	}
	assert_true(in_all > sum - 1 && in_all < sum + 1);
	free(text);
	/* One MiB less than that is refused, even with as few pairs as can be. */
	config.memory_bytes = (uint64_t)(in_all - d.n_snat_pairs * 8 / 1024.0) * MIB - MIB;
	free(check(&d, -ENOMEM));
}

static void test_too_little(void **state)
{
	struct dataplane_config d;
	char *text;

	make_config(10, 1, 64 * MIB);
	text = check(&d, -ENOMEM);
	assert_non_null(strstr(text, "gateway.memory: the plan needs"));
	free(text);
}

/* A DPDK device has as many queues as it is asked for. */
static void test_queues_of_dpdk(void **state)
{
	struct config_port port = {.name = "wan", .device = "0000:03:00.0", .kind = PORT_ETH};
	char err[256] = "";

	assert_int_equal(memory_plan_queues(&port, 3, err, sizeof(err)), 3);
	port.queues = 5;
	assert_int_equal(memory_plan_queues(&port, 3, err, sizeof(err)), 5);
	assert_string_equal(err, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_pairs_in_little_memory),
		cmocka_unit_test(test_every_byte_counts),
		cmocka_unit_test(test_too_little),
		cmocka_unit_test(test_queues_of_dpdk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
