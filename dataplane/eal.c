/* SPDX-License-Identifier: BSD-3-Clause */
#include "dataplane.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

/* Written as "0@(0,1,…)": the calling thread is DPDK's only one, and keeps the CPUs that it may use now. */
static void list_cpus(char *out, size_t len)
{
	size_t used = snprintf(out, len, "0@(");
	const char *separator = "";
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		CPU_SET(0, &cpus);
	for (int cpu = 0; cpu < CPU_SETSIZE && used + 8 < len; cpu++) {
		if (!CPU_ISSET(cpu, &cpus))
			continue;
		used += snprintf(out + used, len - used, "%s%d", separator, cpu);
		separator = ",";
	}
	snprintf(out + used, len - used, ")");
}

/*
 * Nothing on disk, no thread of DPDK's own: workers register themselves. PCI devices are used only if asked for by
 * address: the allowed one does not exist, so the scan at start takes none.
 */
int dataplane_eal_init(uint64_t memory_bytes, bool huge)
{
	char memory[32], lcores[5 * CPU_SETSIZE], prefix[48];
	char *argv[20];
	int argc = 0;

	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)(memory_bytes >> 20) + 1);
	snprintf(prefix, sizeof(prefix), "--file-prefix=spillway%d", getpid());
	list_cpus(lcores, sizeof(lcores));
	argv[argc++] = "spillway";
	argv[argc++] = "--lcores";
	argv[argc++] = lcores;
	argv[argc++] = "-m";
	argv[argc++] = memory;
	argv[argc++] = "--iova-mode=va";
	argv[argc++] = "--no-telemetry";
	argv[argc++] = "--log-level=error";
	argv[argc++] = "--log-level=lib.eal:critical";
	argv[argc++] = "-a";
	argv[argc++] = "ffff:ff:1f.7";
	if (huge) {
		argv[argc++] = "--in-memory";
	} else {
		argv[argc++] = "--no-huge";
		argv[argc++] = "--no-shconf";
		argv[argc++] = prefix;
	}
	argv[argc] = NULL;
	if (rte_eal_init(argc, argv) >= 0)
		return 0;
	return rte_errno ? -rte_errno : -EIO;
}
