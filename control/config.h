/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration, checked as a whole. One schema table (config_schema.c) gives types, ranges, defaults, help and
 * messages.
 */
#pragma once

#include "cure.h"
#include "dataplane.h"
#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum config_on_fail {
	ON_FAIL_DROP,
	ON_FAIL_PASS,
};

struct config_port {
	char name[32];
	char device[64]; /* netdev; PCI address; "vdev:net_…" */
	enum port_kind kind;
	unsigned queues; /* 0: all that the device has */
	bool force_copy;
	bool skb_mode;
};

struct config_listen {
	struct ipaddr addr;
	uint16_t port_be;
	uint8_t proto;
	unsigned line, column; /* for messages that come after parsing */
};

enum config_backend_kind {
	BACKEND_ADDRESS,
	BACKEND_DNS, /* A and AAAA */
	BACKEND_SRV,
};

struct config_backend {
	enum config_backend_kind kind;
	struct ipaddr addr; /* BACKEND_ADDRESS */
	char name[256];     /* BACKEND_DNS, BACKEND_SRV: absolute, lower case, no dot at the end */
	uint16_t port_be;   /* not for BACKEND_SRV */
	unsigned weight;    /* 1..1000, default 1 */
	unsigned line, column;
};

enum config_evict {
	EVICT_OFF,
	EVICT_RST,
};

enum config_source {
	SOURCE_SNAT,
	SOURCE_CLIENT,
};

enum config_probe_side {
	PROBE_BOTH,
	PROBE_CLIENT,
	PROBE_BACKEND,
};

enum config_udp6_zero {
	UDP6_ZERO_DROP,
	UDP6_ZERO_ALLOW,
};

enum config_clamp {
	CLAMP_AUTO, /* MSS to what the path carries */
	CLAMP_OFF,
};

struct config_service {
	char name[64];
	struct config_listen *listen;
	size_t n_listen;
	struct config_backend *backends;
	size_t n_backends;
	enum config_source source;
	uint64_t idle_tcp_ns;
	uint64_t idle_udp_ns, idle_udp_unreplied_ns; /* 0: auto */
	uint64_t drain_ns;                           /* 0: off */
	uint64_t idle_probe_ns;                      /* 0: off */
	enum config_probe_side idle_probe_side;
	bool udp_oneshot;
	enum config_udp6_zero udp6_zero;
	enum config_clamp path_clamp;
	struct policy_reuse reuse;
	uint32_t breaker_consecutive;
	uint64_t breaker_window_ns;
	uint32_t breaker_ratio_ppm; /* parts per million, as every share */
	bool check_tcp;
	char check_http[128]; /* a path; "": off */
	uint64_t check_every_ns, check_timeout_ns;
	uint64_t storm_client_timeout_ns;                                            /* no hold is longer */
	uint64_t storm_hold_ns;                                                      /* 0: off */
	uint64_t storm_rate_per_s, storm_client_rate_per_s, storm_prefix_rate_per_s; /* new flows; 0: no cap */
	uint32_t storm_hard_max;                                                     /* work of a backend; 0: off */
	uint64_t storm_backend_rate_per_s;                                           /* each one's of TCP; 0: no cap */
	uint64_t storm_burst, storm_client_burst, storm_prefix_burst;                /* 0: 100 ms of the rate, >= 10 */
	uint64_t storm_backend_burst;                                                /* likewise */
	uint32_t storm_retry_budget_ppm; /* tokens that a first attempt earns */
	bool storm_early;
	/* Checked and stored, without effect yet: a file that sets one of these gets a warning. */
	bool path_blackhole;
	unsigned line, column;
};

#define CONFIG_MAX_DNS_SERVERS     8
#define CONFIG_MAX_FILE_BYTES      (16u << 20)
#define CONFIG_MAX_SERVICES        4096
#define CONFIG_MAX_LISTEN          64   /* per service */
#define CONFIG_MAX_BACKENDS        1024 /* per service */
#define CONFIG_MAX_BACKENDS_IN_ALL 65536
#define CONFIG_MAX_LISTEN_IN_ALL   16384 /* what a gate's map holds */
#define CONFIG_MAX_NAMES           4096  /* different ones, in all */

struct config {
	/* gateway */
	int workers[DATAPLANE_MAX_WORKERS]; /* CPUs */
	unsigned n_workers;
	enum idle_policy idle;
	uint64_t flows;      /* IPv4 flows */
	uint64_t flows_ipv6; /* IPv6 flows; default an eighth of `flows` */
	enum config_evict evict_idle;
	uint64_t memory_bytes;
	uint32_t routes;  /* cap, per family */
	uint32_t packets; /* buffers of the packet pool; 0: chosen from ports and queues */
	struct config_port ports[DATAPLANE_MAX_PORTS];
	unsigned n_ports;
	struct ipaddr snat[DATAPLANE_MAX_SNAT];
	unsigned n_snat;
	struct port_range snat_ports;
	enum config_on_fail on_death, on_hang;
	char api_socket[108];
	char api_http[64]; /* "127.0.0.1:9090", "" = off */
	char state_dir[256];
	/* dns */
	char dns_servers[CONFIG_MAX_DNS_SERVERS][64]; /* "198.18.3.53:53"; none: the system resolver file */
	unsigned n_dns_servers;
	uint64_t dns_min_ttl_ns, dns_max_ttl_ns, dns_stale_ns;
	/* cures; from here on a running gateway can take over another file's */
	struct cure_modes cures;
	/* services */
	struct config_service *services;
	size_t n_services;
};

/*
 * A message names file, line, column, key and what was expected: "gw.yaml:12:9: gateway.workers[0]: expected …". A
 * warning says so before the key: "gw.yaml:40:5: warning: services[0].storm: has no effect yet".
 */
typedef void config_message_fn(void *arg, const char *message);

/*
 * Parses and checks the whole file; every error found is reported through `message`, not only the first. Returns NULL
 * with errno set if there was any error (or the file could not be read). Warnings do not fail it.
 */
struct config *config_load(const char *path, config_message_fn *message, void *arg);
/* The same from memory; `name` stands for the file in messages. For tests and the fuzzer. */
struct config *config_parse(const char *name, const char *text, size_t len, config_message_fn *message, void *arg);
void config_free(struct config *config);
/* True if the gateway and dns sections are the same: then a running gateway can take over the rest. */
bool config_same_gateway(const struct config *a, const struct config *b);
/* True if nothing differs but the place in the file: then what was built from one is right for the other. */
bool config_same_service(const struct config_service *a, const struct config_service *b);
/* True if the same services stand in the same order with the same listeners. */
bool config_same_listeners(const struct config *a, const struct config *b);

/* The commented example with every key, its default, range and help, from the schema table. Writes to a stdio FILE. */
struct _IO_FILE;
void config_print_example(struct _IO_FILE *out);
/* The effective configuration, defaults filled in, as YAML. */
void config_print(const struct config *config, struct _IO_FILE *out);

/* "30s", "2h4m": as in the file. Returns 0, -EINVAL or -ERANGE; *ns is untouched on failure. */
int config_parse_duration(const char *text, uint64_t *ns);

/* Fills what the dataplane needs (not `secret`, not `max_frame`). `n_queues`: queues of all ports together. */
void config_to_dataplane(const struct config *config, unsigned n_queues, struct dataplane_config *out);
/* Addresses of a service's backends, as far as the configuration tells: names count with what slots are kept for. */
uint64_t config_addresses(const struct config_service *service);
/* How many pairs of a backend and a SNAT address of its family the configuration makes, as far as it tells. */
uint64_t config_snat_pairs(const struct config *config);
