/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory_plan.h"
#include "breakers.h"
#include "gate.h"
#include "limiters.h"
#include "policy.h"
#include "shedding.h"

#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MIB           (1024.0 * 1024)
#define PAIRS_MIN     1024
/* DPDK's own: pools' caches per thread, alignment, whole pages, and what drivers of network cards ask for. */
#define DPDK_BYTES    (16ULL << 20)
#define DPDK_SHARE    64 /* and one part in that many of all tables */
/* Decide's and serve's, as measured: libraries, events and a small configuration; and what grows. */
#define CONTROL_BYTES (16ULL << 20)
#define ROUTE_BYTES   160
#define BACKEND_BYTES 3072
#define SERVICE_BYTES 4096
#define POLICIES      2 /* the one that is used and the next */

int memory_plan_queues(const struct config_port *port, unsigned n_workers, char *err, size_t err_len)
{
	int n;

	if (port->kind == PORT_ETH)
		return port->queues ? port->queues : n_workers;
	n = gate_device_queues(port->device);
	if (n < 0) {
		snprintf(err, err_len, "port %s: no network device %s here (ip link shows what there is)", port->name,
			 port->device);
		return n;
	}
	if (n > DATAPLANE_MAX_QUEUES) {
		snprintf(err, err_len,
			 "port %s: %s has %d receive queues, all of which must be served, and a port has %d at most: "
			 "ethtool -L %s combined %d",
			 port->name, port->device, n, DATAPLANE_MAX_QUEUES, port->device, DATAPLANE_MAX_QUEUES);
		return -E2BIG;
	}
	return port->queues ? (int)port->queues : n;
}

static uint32_t device_mtu(const char *device)
{
	struct ifreq req = {0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return 0;
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", device);
	rc = ioctl(fd, SIOCGIFMTU, &req);
	close(fd);
	return rc ? 0 : req.ifr_mtu;
}

uint32_t memory_plan_max_frame(const struct config *config)
{
	uint32_t mtu = 1500;

	for (unsigned i = 0; i < config->n_ports; i++)
		if (config->ports[i].kind == PORT_XSK && device_mtu(config->ports[i].device) > mtu)
			mtu = device_mtu(config->ports[i].device);
	/* Beyond what a socket can carry the gate's own check has the better words. */
	return (mtu < 3400 ? mtu : 3400) + 14 + 4;
}

static uint64_t total_bytes(const struct memory_part *parts, size_t n)
{
	uint64_t total = 0;

	for (size_t i = 0; i < n; i++)
		total += parts[i].bytes;
	return total;
}

static uint64_t dpdk_bytes(const struct dataplane_config *dataplane, unsigned n_queues)
{
	struct memory_part parts[MEMORY_PARTS_MAX];
	uint64_t tables = total_bytes(parts, dataplane_memory_plan(dataplane, n_queues, parts));

	return DPDK_BYTES + tables / DPDK_SHARE;
}

static uint64_t service_bytes(const struct config_service *service)
{
	uint64_t n = config_addresses(service);

	return SERVICE_BYTES + n * BACKEND_BYTES +
	       POLICIES * SET_FAMILIES * sizeof(uint16_t) * (uint64_t)maglev_table_size(n);
}

static uint64_t control_bytes(const struct config *config, uint32_t n_backend_slots)
{
	uint64_t bytes = CONTROL_BYTES + shedding_bytes(SHEDDING_CLIENTS) + limiters_bytes(n_backend_slots) +
			 breakers_bytes(n_backend_slots) + (uint64_t)SET_FAMILIES * config->routes * ROUTE_BYTES;

	for (size_t i = 0; i < config->n_services; i++)
		bytes += service_bytes(&config->services[i]);
	return bytes;
}

static size_t plan(const struct config *config, const struct dataplane_config *dataplane, unsigned n_queues,
		   struct memory_part parts[static MEMORY_PARTS_MAX])
{
	size_t n = dataplane_memory_plan(dataplane, n_queues, parts);

	parts[n++] = (struct memory_part){"DPDK itself", dpdk_bytes(dataplane, n_queues)};
	parts[n++] = (struct memory_part){"decide and serve", control_bytes(config, dataplane->n_backend_slots)};
	return n;
}

static uint64_t planned_bytes(const struct config *config, const struct dataplane_config *dataplane, unsigned n_queues)
{
	struct memory_part parts[MEMORY_PARTS_MAX];

	return total_bytes(parts, plan(config, dataplane, n_queues, parts));
}

/* Slots are many and pairs are big: most slots will never have a backend, so they are the first to do with less. */
static void fit_pairs(const struct config *config, struct dataplane_config *dataplane, unsigned n_queues, FILE *out)
{
	uint64_t needed = config_snat_pairs(config), room;

	while (dataplane->n_snat_pairs > PAIRS_MIN && planned_bytes(config, dataplane, n_queues) > config->memory_bytes)
		dataplane->n_snat_pairs /= 2;
	room = dataplane->n_snat_pairs / 3 * 2;
	if (room < needed)
		fprintf(out,
			"warning: gateway.snat: %ju pairs of a backend and a SNAT address, and room for flows of %ju at a "
			"time, beyond which new flows may be refused: raise gateway.memory, or list fewer SNAT addresses\n",
			(uintmax_t)needed, (uintmax_t)room);
}

int memory_plan_check(const struct config *config, struct dataplane_config *dataplane, unsigned n_queues, FILE *out)
{
	struct memory_part parts[MEMORY_PARTS_MAX];
	uint64_t total;
	size_t n;

	fit_pairs(config, dataplane, n_queues, out);
	n = plan(config, dataplane, n_queues, parts);
	total = total_bytes(parts, n);
	fprintf(out, "memory plan:\n");
	for (size_t i = 0; i < n; i++)
		fprintf(out, "  %-26s %8.1f MiB\n", parts[i].name, parts[i].bytes / MIB);
	fprintf(out, "  %-26s %8.1f MiB of %.1f MiB (gateway.memory)\n", "in all", total / MIB,
		config->memory_bytes / MIB);
	if (total <= config->memory_bytes)
		return 0;
	fprintf(out, "gateway.memory: the plan needs %.0f MiB: raise it, or lower gateway.flows or gateway.routes\n",
		total / MIB);
	return -ENOMEM;
}

static uint64_t free_hugepage_bytes(void)
{
	unsigned long long pages = 0, reserved = 0, kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		sscanf(line, "HugePages_Free: %llu", &pages);
		/* Free, but promised to a process that has not touched them yet. */
		sscanf(line, "HugePages_Rsvd: %llu", &reserved);
		sscanf(line, "Hugepagesize: %llu", &kib);
	}
	fclose(f);
	return (pages > reserved ? pages - reserved : 0) * kib * 1024;
}

int memory_plan_start(const struct dataplane_config *dataplane, unsigned n_queues)
{
	struct memory_part parts[MEMORY_PARTS_MAX];
	size_t n = dataplane_memory_plan(dataplane, n_queues, parts);
	uint64_t bytes = total_bytes(parts, n) + dpdk_bytes(dataplane, n_queues);

	return dataplane_eal_init(bytes, free_hugepage_bytes() >= bytes);
}
