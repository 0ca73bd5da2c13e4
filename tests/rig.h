/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A whole dataplane, mostly with one worker, between two ports in memory, for tests and benches that drive it turn by
 * turn with a clock and a secret of their own:
 *
 *   clients 198.19.0.0/16 --- 198.18.1.1 [wan  VIP 198.18.100.1  SNAT 198.18.101.1…  lan] 198.18.3.1… backends
 *           2001:db8:1000::/36 - fe80::1      2001:db8:100::1    2001:db8:101::1…         2001:db8:3::1…
 *
 * One service: TCP port 80 and UDP port 53 of the VIPs, TCP and UDP port 8080 of the backends.
 */
#pragma once

#include "dataplane.h"
#include "policy.h"
#include "port.h"

#include <stdbool.h>
#include <stdint.h>

enum rig_port { RIG_WAN, RIG_LAN, RIG_PORTS };

#define RIG_BACKENDS_MAX 64
#define RIG_VIP4         0xc6126401 /* host order */

/* Destination of what the gateway's neighbours send: the last byte tells the port. */
extern const uint8_t rig_mac[RIG_PORTS][6];
/* The router on the wan side, and (last byte = number) the backends. */
extern const uint8_t rig_router_mac[6];
extern const uint8_t rig_backend_mac[6];

struct rig_config {
	uint32_t flows_v4, flows_v6;
	uint32_t n_mbufs;
	unsigned n_backends;           /* per family and protocol, at most RIG_BACKENDS_MAX */
	unsigned n_snat;               /* per family */
	unsigned n_workers;            /* 0: 1; in memory only */
	uint32_t n_holds;              /* of all workers; 0: 1024 */
	uint32_t lan_mtu;              /* 0: 1500 */
	uint64_t now_ns;               /* of the clock, when it begins; 0: one second */
	uint32_t untranslated;         /* upstreams have the numbers of their clients */
	uint32_t n_clients;            /* records of clients; 0: 1024 */
	struct port_range snat_ports;  /* all zero: the default */
	const char *device[RIG_PORTS]; /* DPDK devices instead of ports in memory; NULL: memory */
};

struct rig {
	struct dataplane *dp;
	struct worker *worker; /* the first */
	struct port *ports[RIG_PORTS];
	uint64_t now_ns; /* the dataplane's clock: move it as the test needs */
	struct policy policy;
	struct policy_service service;
	const struct policy_service *services[1];
	struct policy_backend backends[SET_FAMILIES][SET_PROTOS][RIG_BACKENDS_MAX];
	uint16_t *tables[SET_FAMILIES][SET_PROTOS];
};

/*
 * DPDK for this process, without PCI, shared files or helpers. `max_simd_bits`: 0, or what a CPU simulator can do.
 * Returns 0 or -errno.
 */
int rig_eal(uint64_t memory_mb, bool huge, unsigned max_simd_bits);

/* Bytes of DPDK memory that such a rig takes, with some to spare. */
uint64_t rig_bytes(const struct rig_config *config);

/* Returns 0 or -errno; rig_destroy() is due in either case. */
int rig_create(struct rig *rig, const struct rig_config *config);
void rig_destroy(struct rig *rig);

/* Address and port of the client of a flow, by number; up to 2^26 differ. */
struct ipaddr rig_client(uint32_t flow, bool v6);
uint16_t rig_client_port_be(uint32_t flow);
struct ipaddr rig_vip(bool v6);
