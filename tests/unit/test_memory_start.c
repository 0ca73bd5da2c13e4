/* SPDX-License-Identifier: BSD-3-Clause */
/* The plan against what the dataplane really takes. */
#include "dataplane.h"
#include "memory_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rte_malloc.h>

#define MIB      (UINT64_C(1) << 20)
#define N_QUEUES 4

/* More routes than anything else, because their trees are the hardest to foretell. */
static const struct dataplane_config config = {
	.n_workers = 2,
	.cpus = {-1, -1},
	.flows_v4 = 50000,
	.flows_v6 = 20000,
	.n_mbufs = 8191,
	.max_frame = 1518,
	.n_service_slots = 256,
	.n_backend_slots = 1024,
	.n_snat_pairs = 1024,
	.n_routes = 60000,
	.n_neighbours = 16384,
	.secret = {1},
};

/* The memory that DPDK is given suffices, and what is planned is what is taken, give or take little. */
static void test_plan_is_enough(void **state)
{
	struct memory_part parts[MEMORY_PARTS_MAX];
	struct rte_malloc_socket_stats stats;
	uint64_t planned = 0;
	struct dataplane *dp;

	assert_int_equal(memory_plan_start(&config, N_QUEUES), 0);
	dp = dataplane_create(&config);
	assert_non_null(dp);
	for (size_t n = dataplane_memory_plan(&config, N_QUEUES, parts); n > 0; n--)
		planned += parts[n - 1].bytes;
	assert_int_equal(rte_malloc_get_socket_stats(0, &stats), 0);
	print_message("planned %.1f MiB, taken %.1f MiB\n", (double)planned / MIB,
		      (double)stats.heap_allocsz_bytes / MIB);
	assert_in_range(stats.heap_allocsz_bytes, planned - 4 * MIB, planned + 4 * MIB);
	dataplane_destroy(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan_is_enough),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
