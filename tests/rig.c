/* SPDX-License-Identifier: BSD-3-Clause */
#include "rig.h"

#include "core.h"
#include "memport.h"
#include "tcp.h"
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>

const uint8_t rig_mac[RIG_PORTS][6] = {{0x02, 0, 0, 0, 0, 0x10}, {0x02, 0, 0, 0, 0, 0x11}};
const uint8_t rig_router_mac[6] = {0x02, 0, 0, 0, 0x01, 0x01};
const uint8_t rig_backend_mac[6] = {0x02, 0, 0, 0, 0x03, 0x00};

int rig_eal(uint64_t memory_mb, bool huge, unsigned max_simd_bits)
{
	char memory[24], simd[48];
	char *argv[16] = {"rig", "--no-pci", "--no-telemetry", "--lcores=0", "--log-level=4", "-m", memory};
	int argc = 7;

	snprintf(memory, sizeof(memory), "%llu", (unsigned long long)memory_mb);
	if (huge) {
		argv[argc++] = "--in-memory";
	} else {
		argv[argc++] = "--no-huge";
		argv[argc++] = "--no-shconf";
	}
	if (max_simd_bits) {
		snprintf(simd, sizeof(simd), "--force-max-simd-bitwidth=%u", max_simd_bits);
		argv[argc++] = simd;
	}
	return rte_eal_init(argc, argv) < 0 ? -rte_errno : 0;
}

/* --- addresses --- */

static struct ipaddr address(bool v6, uint32_t v4, uint16_t net, uint16_t host)
{
	const uint8_t b[16] = {0x20, 0x01, 0x0d, 0xb8, net >> 8, net, [14] = host >> 8, [15] = host};

	return v6 ? ipaddr_v6(b) : ipaddr_v4(htonl(v4));
}

struct ipaddr rig_client(uint32_t flow, bool v6)
{
	return address(v6, 0xc6130000 | (flow & 0xffff), 0x1000, flow);
}

uint16_t rig_client_port_be(uint32_t flow)
{
	return htons(1024 + (flow >> 16));
}

struct ipaddr rig_vip(bool v6)
{
	return address(v6, RIG_VIP4, 0x100, 1);
}

static struct ipaddr backend_address(bool v6, unsigned i)
{
	return address(v6, 0xc6120301 + i, 0x3, 1 + i);
}

static struct ipaddr router_address(bool v6)
{
	return address(v6, 0xc6120101, 0x1, 1);
}

/* --- policy --- */

static int make_set(struct rig *rig, int family, int proto, unsigned n)
{
	struct policy_set *set = &rig->service.sets[family][proto];
	struct policy_backend *backends = rig->backends[family][proto];
	uint32_t size = maglev_table_size(n);

	for (unsigned i = 0; i < n; i++)
		backends[i] = (struct policy_backend){
			.addr = backend_address(family == SET_V6, i),
			.ref.slot = (family * SET_PROTOS + proto) * RIG_BACKENDS_MAX + i,
			.port_be = htons(8080),
			.weight = 1,
		};
	if (!n)
		return 0;
	rig->tables[family][proto] = calloc(size, sizeof(uint16_t));
	if (!rig->tables[family][proto])
		return -ENOMEM;
	*set = (struct policy_set){n, size, rig->tables[family][proto], backends};
	return maglev_build(backends, n, rig->tables[family][proto], size);
}

static const struct cure_modes rig_modes_enforce = {
	{CURE_ENFORCE, CURE_ENFORCE, CURE_ENFORCE, CURE_ENFORCE, CURE_ENFORCE}};

static int make_policy(struct rig *rig, const struct rig_config *config)
{
	struct policy_listener listeners[4];
	unsigned n = 0;
	int err = 0;

	rig->service.timeouts = policy_timeouts_default;
	/* Port 53 of the VIP is one as any other; tests of what is particular to it say so. */
	rig->service.timeouts.dns_unreplied_ms = rig->service.timeouts.udp_unreplied_ms;
	rig->service.timeouts.dns_replied_ms = rig->service.timeouts.udp_replied_ms;
	rig->service.clamp_mss = true;
	if (!config->untranslated)
		rig->service.reuse = (struct policy_reuse){.isn = true, .timestamps = true, .assist = true};
	rig->service.breaker_consecutive = BREAKER_CONSECUTIVE_DEFAULT;
	rig->service.breaker_window_s = BREAKER_WINDOW_DEFAULT_S;
	rig->service.breaker_ratio_ppm = BREAKER_RATIO_DEFAULT_PPM;
	for (int family = 0; family < SET_FAMILIES; family++)
		for (int proto = 0; proto < SET_PROTOS && !err; proto++) {
			listeners[n++] = (struct policy_listener){
				.addr = rig_vip(family == SET_V6),
				.port_be = htons(proto == SET_TCP ? 80 : 53),
				.proto = proto == SET_TCP ? PROTO_TCP : PROTO_UDP,
			};
			err = make_set(rig, family, proto, config->n_backends);
		}
	if (err)
		return err;
	rig->services[0] = &rig->service;
	rig->policy =
		(struct policy){.number = 1, .modes = rig_modes_enforce, .n_services = 1, .services = rig->services};
	rig->policy.listeners = listener_table_create(listeners, n);
	if (!rig->policy.listeners)
		return -errno;
	dataplane_publish(rig->dp, &rig->policy);
	return 0;
}

/* --- routes --- */

static int add_route(struct rig *rig, struct ipaddr prefix, uint8_t len, int port, const struct ipaddr *gateway)
{
	struct route_change change = {
		.prefix = prefix,
		.prefix_len = len,
		.kind = ROUTE_UNICAST,
		.n_nexthops = 1,
		.nexthops = {{.port = port, .on_link = !gateway, .weight = 1}},
	};

	if (gateway)
		change.nexthops[0].gateway = *gateway;
	return dataplane_route_update(rig->dp, &change, 1) ? -ENOSPC : 0;
}

static int make_neighbours(struct rig *rig, bool v6, unsigned n_backends)
{
	struct ipaddr router = router_address(v6);
	int err = dataplane_neighbour_update(rig->dp, RIG_WAN, &router, NEIGHBOUR_USABLE, rig_router_mac);

	for (unsigned i = 0; i < n_backends && !err; i++) {
		struct ipaddr backend = backend_address(v6, i);
		uint8_t mac[6];

		memcpy(mac, rig_backend_mac, sizeof(mac));
		mac[5] = i + 1;
		err = dataplane_neighbour_update(rig->dp, RIG_LAN, &backend, NEIGHBOUR_USABLE, mac);
	}
	return err;
}

static int make_routes(struct rig *rig, unsigned n_backends)
{
	int err = 0;

	for (int v6 = 0; v6 < 2 && !err; v6++) {
		struct ipaddr any = v6 ? (struct ipaddr){0} : ipaddr_v4(0), router = router_address(v6);

		err = add_route(rig, any, 0, RIG_WAN, &router);
		if (!err)
			err = add_route(rig, address(v6, 0xc6120100, 0x1, 0), v6 ? 64 : 24, RIG_WAN, NULL);
		if (!err)
			err = add_route(rig, address(v6, 0xc6120300, 0x3, 0), v6 ? 64 : 24, RIG_LAN, NULL);
		if (!err)
			err = make_neighbours(rig, v6, n_backends);
	}
	return err;
}

/* --- life --- */

static uint64_t rig_now(void *arg)
{
	return ((const struct rig *)arg)->now_ns;
}

static uint32_t rig_pairs(const struct rig_config *config)
{
	uint32_t n = 64;

	while (n < SET_FAMILIES * SET_PROTOS * config->n_backends * config->n_snat * 3 / 2)
		n *= 2;
	return n;
}

static struct dataplane_config dataplane_config(struct rig *rig, const struct rig_config *config)
{
	struct dataplane_config c = {
		.n_workers = config->n_workers ? config->n_workers : 1,
		.idle = IDLE_SPIN,
		.flows_v4 = config->flows_v4,
		.flows_v6 = config->flows_v6,
		.n_mbufs = config->n_mbufs,
		.max_frame = 1514,
		.n_service_slots = 8,
		.n_backend_slots = SET_FAMILIES * SET_PROTOS * RIG_BACKENDS_MAX,
		.n_snat_pairs = rig_pairs(config),
		.n_routes = 64,
		.n_neighbours = 512,
		.n_holds = config->n_holds ? config->n_holds : 1024,
		.n_clients = config->n_clients ? config->n_clients : 1024,
		.snat_ports = config->snat_ports,
		.now_ns = rig_now,
		.now_arg = rig,
	};

	for (unsigned i = 0; i < c.n_workers; i++)
		c.cpus[i] = -1;
	for (unsigned i = 0; i < sizeof(c.secret); i++)
		c.secret[i] = i * 167 + 13;
	for (unsigned i = 0; i < sizeof(c.isn_key); i++)
		c.isn_key[i] = i * 59 + 7;
	for (unsigned i = 0; i < config->n_snat; i++) {
		c.snat[c.n_snat++] = address(false, 0xc6126501 + i, 0, 0);
		c.snat[c.n_snat++] = address(true, 0, 0x101, 1 + i);
	}
	return c;
}

uint64_t rig_bytes(const struct rig_config *config)
{
	struct dataplane_config c = dataplane_config(NULL, config);
	struct memory_part parts[MEMORY_PARTS_MAX];
	uint64_t bytes = 64 << 20;

	for (size_t n = dataplane_memory_plan(&c, RIG_PORTS, parts); n > 0; n--)
		bytes += parts[n - 1].bytes;
	return bytes;
}

static int add_port(struct rig *rig, enum rig_port port, const char *device)
{
	const char *name = port == RIG_WAN ? "wan" : "lan";
	struct port_config config = {.kind = PORT_ETH, .n_queues = 1};
	char err[256];
	int index;

	if (!device) {
		rig->ports[port] = memport_add(rig->dp, name, rig_mac[port]);
		return rig->ports[port] ? 0 : -errno;
	}
	snprintf(config.name, sizeof(config.name), "%s", name);
	snprintf(config.device, sizeof(config.device), "%s", device);
	index = dataplane_add_port(rig->dp, &config, err, sizeof(err));
	if (index < 0) {
		fprintf(stderr, "%s\n", err);
		return index;
	}
	rig->ports[port] = rig->dp->ports[index];
	dataplane_port_set_mac(rig->dp, index, rig_mac[port]);
	dataplane_port_set_link(rig->dp, index, true, 1500);
	return 0;
}

int rig_create(struct rig *rig, const struct rig_config *config)
{
	struct dataplane_config c = dataplane_config(rig, config);
	int err;

	*rig = (struct rig){.now_ns = config->now_ns ? config->now_ns : 1000000000};
	rig->dp = dataplane_create(&c);
	if (!rig->dp)
		return -errno;
	rig->worker = rig->dp->workers[0];
	for (int i = 0; i < RIG_PORTS; i++) {
		err = add_port(rig, i, config->device[i]);
		if (err)
			return err;
	}
	if (config->lan_mtu)
		dataplane_port_set_link(rig->dp, RIG_LAN, true, config->lan_mtu);
	err = make_routes(rig, config->n_backends);
	return err ? err : make_policy(rig, config);
}

void rig_destroy(struct rig *rig)
{
	dataplane_destroy(rig->dp);
	listener_table_destroy((struct listener_table *)rig->policy.listeners);
	for (int family = 0; family < SET_FAMILIES; family++)
		for (int proto = 0; proto < SET_PROTOS; proto++)
			free(rig->tables[family][proto]);
}
