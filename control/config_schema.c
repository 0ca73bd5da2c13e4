/* SPDX-License-Identifier: BSD-3-Clause */
/* The schema: every key of the file, in the order in which it is printed. */
#include "config_schema.h"

#define NS_PER_MS                 1000000ull
#define NS_PER_S                  1000000000ull
#define MINUTE_NS                 (60 * NS_PER_S)
#define DAY_NS                    (24 * 60 * MINUTE_NS)

#define MEMBER_SIZE(type, member) sizeof(((type *)0)->member)
#define FIELD(type, member)       .offset = offsetof(struct type, member), .size = MEMBER_SIZE(struct type, member)
#define COUNT(type, member)                                                                                            \
	.count_offset = offsetof(struct type, member), .count_size = MEMBER_SIZE(struct type, member)
#define MAP(table) (&(const struct config_map){table, sizeof(table) / sizeof((table)[0])})

static const char *const idle_choices[] = {[IDLE_SLEEP] = "sleep", [IDLE_SPIN] = "spin", NULL};
static const char *const on_fail_choices[] = {[ON_FAIL_DROP] = "drop", [ON_FAIL_PASS] = "pass", NULL};
static const char *const evict_choices[] = {[EVICT_OFF] = "off", [EVICT_RST] = "rst", NULL};
static const char *const probe_side_choices[] = {
	[PROBE_BOTH] = "both", [PROBE_CLIENT] = "client", [PROBE_BACKEND] = "backend", NULL};
static const char *const udp6_zero_choices[] = {[UDP6_ZERO_DROP] = "drop", [UDP6_ZERO_ALLOW] = "allow", NULL};
static const char *const mode_choices[] = {
	[CURE_OFF] = "off", [CURE_SHADOW] = "shadow", [CURE_ENFORCE] = "enforce", NULL};
static const char *const source_choices[] = {[SOURCE_SNAT] = "snat", [SOURCE_CLIENT] = "client", NULL};
static const char *const clamp_choices[] = {[CLAMP_AUTO] = "auto", [CLAMP_OFF] = "off", NULL};

static const struct config_key port_keys[] = {
	{"name", TYPE_NAME, KEY_REQUIRED, FIELD(config_port, name), .example = "wan|lan",
	 .help = "what messages and metrics call it"},
	{"device", TYPE_DEVICE, KEY_REQUIRED, FIELD(config_port, device), .example = "eth1|eth2",
	 .help = "a netdev is served through AF_XDP, a PCI address (0000:03:00.0) by DPDK's poll-mode driver, and "
		 "\"vdev:net_...\" names any DPDK virtual device"},
	{"queues", TYPE_NUMBER, 0, FIELD(config_port, queues), .min = 1, .max = DATAPLANE_MAX_QUEUES,
	 .zero_word = "all", .fallback = "all",
	 .help = "receive queues to serve; all of a DPDK device are one per worker"},
	{"force_copy", TYPE_SWITCH, 0, FIELD(config_port, force_copy), .fallback = "off",
	 .help = "netdev only: do not ask the driver for zero-copy"},
	{"skb_mode", TYPE_SWITCH, 0, FIELD(config_port, skb_mode), .fallback = "off",
	 .help = "netdev only: generic XDP, for drivers without their own"},
};

static const struct config_key api_keys[] = {
	{"socket", TYPE_PATH, 0, FIELD(config, api_socket), .zero_word = "off", .fallback = "/run/spillway/api.sock",
	 .help = "Unix socket of the whole API"},
	{"http", TYPE_ENDPOINT, KEY_LOOPBACK, FIELD(config, api_http), .zero_word = "off", .fallback = "127.0.0.1:9090",
	 .help = "read-only API and metrics on loopback TCP"},
};

static const struct config_list worker_list = {
	.item = {NULL, TYPE_NUMBER, 0, .size = sizeof(int), .max = 1023, .example = "1"},
	COUNT(config, n_workers),
	.min_items = 1,
	.max_items = DATAPLANE_MAX_WORKERS,
	.examples = 1};

static const struct config_list port_list = {
	.item = {NULL, TYPE_MAP, 0, .size = sizeof(struct config_port), .map = MAP(port_keys)},
	COUNT(config, n_ports),
	.min_items = 1,
	.max_items = DATAPLANE_MAX_PORTS,
	.examples = 2};

static const struct config_list snat_list = {
	.item = {NULL, TYPE_ADDRESS, 0, .size = sizeof(struct ipaddr), .example = "198.18.101.10|2001:db8:101::10"},
	COUNT(config, n_snat),
	.max_items = DATAPLANE_MAX_SNAT,
	.examples = 2};

static const struct config_key gateway_keys[] = {
	{"workers", TYPE_LIST, 0, FIELD(config, workers), .derived = "CPU 1 where there is one, else CPU 0",
	 .list = &worker_list, .help = "CPUs, one poll-mode worker each"},
	{"idle", TYPE_ENUM, 0, FIELD(config, idle), .choices = idle_choices, .fallback = "sleep",
	 .help = "what a worker without packets does: sleep in poll(), or spin on a CPU of its own"},
	{"flows", TYPE_NUMBER, 0, FIELD(config, flows), .min = 1024, .max = 64000000, .fallback = "1000000",
	 .help = "size of the IPv4 flow table; when it is full, new flows are refused and connections stay"},
	{"flows_ipv6", TYPE_NUMBER, 0, FIELD(config, flows_ipv6), .min = 1024, .max = 64000000, .zero_word = "auto",
	 .fallback = "auto", .derived = "an eighth of `flows`", .help = "size of the IPv6 flow table"},
	{"evict_idle", TYPE_ENUM, 0, FIELD(config, evict_idle), .choices = evict_choices, .fallback = "off",
	 .help = "what makes room in a flow table that is 95% full, where new flows of clients without a success in the "
		 "last minute are refused: nothing; or connections on which nobody has said anything for ten minutes end, "
		 "the idlest first, with RST to both sides, at most 1000 a second"},
	{"memory", TYPE_SIZE, 0, FIELD(config, memory_bytes), .min = 64ull << 20, .max = 1ull << 40, .fallback = "768M",
	 .help = "the memory plan may not exceed this; hugepages where they are reserved, plain pages otherwise"},
	{"routes", TYPE_NUMBER, 0, FIELD(config, routes), .min = 16, .max = 4000000, .fallback = "100k",
	 .help = "room for the kernel's routes, per family"},
	{"packets", TYPE_NUMBER, 0, FIELD(config, packets), .min = 1024, .max = 4000000, .zero_word = "auto",
	 .fallback = "auto", .derived = "chosen from ports, queues and workers", .help = "buffers of the packet pool"},
	{"ports", TYPE_LIST, KEY_REQUIRED, FIELD(config, ports), .list = &port_list,
	 .help = "where packets come and go; one is enough (one-armed)"},
	{"snat", TYPE_LIST, 0, FIELD(config, snat), .list = &snat_list,
	 .help = "source addresses towards the upstreams, Spillway's alone: /32 or /128, secondary, preferred_lft 0"},
	{"snat_ports", TYPE_PORTS, 0, FIELD(config, snat_ports), .min = 1024, .max = 65535, .fallback = "1024-65535",
	 .help = "their ports that flows may take, each worker an equal share of them; what comes to another port belongs "
		 "to no flow"},
	{"on_death", TYPE_ENUM, 0, FIELD(config, on_death), .choices = on_fail_choices, .fallback = "drop",
	 .help = "packets to listeners while no gateway runs: drop them, so that clients retry, or pass them to the "
		 "host"},
	{"on_hang", TYPE_ENUM, 0, FIELD(config, on_hang), .choices = on_fail_choices, .fallback = "drop",
	 .help = "the same while the gateway runs but has not moved for 3 s"},
	{"api", TYPE_MAP, 0, .map = MAP(api_keys), .help = "the HTTP API"},
	{"state_dir", TYPE_PATH, 0, FIELD(config, state_dir), .fallback = "/var/lib/spillway",
	 .help = "what outlives a restart is kept here: the last good addresses of names"},
};

static const struct config_list dns_server_list = {.item = {NULL, TYPE_ENDPOINT, 0,
							    .size = MEMBER_SIZE(struct config, dns_servers[0]),
							    .default_port = 53, .example = "198.18.3.53:53"},
						   COUNT(config, n_dns_servers),
						   .max_items = CONFIG_MAX_DNS_SERVERS,
						   .examples = 1};

static const struct config_key dns_keys[] = {
	{"servers", TYPE_LIST, 0, FIELD(config, dns_servers), .list = &dns_server_list,
	 .derived = "those of /etc/resolv.conf", .help = "asked in this order"},
	{"min_ttl", TYPE_DURATION, 0, FIELD(config, dns_min_ttl_ns), .min = NS_PER_S, .max = DAY_NS, .fallback = "1s",
	 .help = "shorter TTLs count as this"},
	{"max_ttl", TYPE_DURATION, 0, FIELD(config, dns_max_ttl_ns), .min = NS_PER_S, .max = 7 * DAY_NS,
	 .fallback = "5m", .help = "longer TTLs count as this"},
	{"stale", TYPE_DURATION, 0, FIELD(config, dns_stale_ns), .max = 30 * DAY_NS, .fallback = "24h",
	 .help = "how long the last good addresses serve while DNS fails (RFC 8767)"},
};

#define CURE(cure, index, effect, words)                                                                               \
	{                                                                                                              \
#cure, TYPE_ENUM, effect, FIELD(config, cures.of[index]), .choices = mode_choices,                     \
									  .fallback = "enforce", .help = words         \
	}
static const struct config_key cure_keys[] = {
	CURE(wall, CURE_WALL, 0, "dead upstreams: circuit breaker per backend"),
	CURE(names, CURE_NAMES, 0, "DNS moved: each record's own TTL"),
	CURE(silence, CURE_SILENCE, 0, "connections that a middlebox forgot"),
	CURE(path, CURE_PATH, 0, "links with a smaller MTU"),
	CURE(storm, CURE_STORM, 0, "synchronized retries"),
};

static const struct config_list listen_list = {.item = {NULL, TYPE_LISTEN, 0, .size = sizeof(struct config_listen),
							.position = offsetof(struct config_listen, line),
							.example = "198.18.100.1:80/tcp|[2001:db8:100::1]:80/tcp"},
					       COUNT(config_service, n_listen),
					       .min_items = 1,
					       .max_items = CONFIG_MAX_LISTEN,
					       .dynamic = true,
					       .examples = 2};

static const struct config_key backend_keys[] = {
	{"dns", TYPE_HOSTNAME, KEY_ONE_OF, FIELD(config_backend, name), .example = "shop.lab.test|",
	 .help = "every A and AAAA record of this name is a backend"},
	{"address", TYPE_ADDRESS, KEY_ONE_OF, FIELD(config_backend, addr), .example = "|198.18.3.21",
	 .help = "one backend, instead of `dns`"},
	{"srv", TYPE_HOSTNAME, KEY_ONE_OF | KEY_UNSUPPORTED, FIELD(config_backend, name),
	 .help = "SRV records: not supported yet"},
	{"port", TYPE_PORT, KEY_REQUIRED, FIELD(config_backend, port_be), .min = 1, .max = 65535, .example = "8080",
	 .help = "TCP or UDP port there"},
	{"weight", TYPE_NUMBER, 0, FIELD(config_backend, weight), .min = 1, .max = 1000, .fallback = "1",
	 .example = "|2", .help = "share of new flows, relative to the other backends"},
};

static const struct config_list backend_list = {.item = {NULL, TYPE_MAP, 0, .size = sizeof(struct config_backend),
							 .position = offsetof(struct config_backend, line),
							 .map = MAP(backend_keys)},
						COUNT(config_service, n_backends),
						.min_items = 1,
						.max_items = CONFIG_MAX_BACKENDS,
						.dynamic = true,
						.examples = 2};

static const struct config_key idle_keys[] = {
	{"tcp", TYPE_DURATION, 0, FIELD(config_service, idle_tcp_ns), .min = NS_PER_S, .max = 30 * DAY_NS,
	 .fallback = "2h4m",
	 .help = "with `probe: off` an idle connection ends after this, with RST to both sides (RFC 5382 REQ-5); one that "
		 "is probed lives for as long as both its ends do. While cure silence is not enforced, an idle "
		 "connection ends after this in silence"},
	{"probe", TYPE_DURATION, 0, FIELD(config_service, idle_probe_ns), .min = NS_PER_S, .max = DAY_NS,
	 .zero_word = "off", .fallback = "3m",
	 .help = "an idle connection is asked on both sides whether it is still there after this (+-10%), and a silent "
		 "side twice more, 10s apart; if it stays silent both get a RST. Shorter than what any firewall or "
		 "balancer on the way takes to forget a connection"},
	{"probe_side", TYPE_ENUM, 0, FIELD(config_service, idle_probe_side), .choices = probe_side_choices,
	 .fallback = "both",
	 .help = "which side is asked: a client on a battery may be left in peace, and then its silence is not noticed"},
	{"udp", TYPE_DURATION, 0, FIELD(config_service, idle_udp_ns), .min = NS_PER_S, .max = DAY_NS,
	 .zero_word = "auto", .fallback = "auto",
	 .derived = "5m (RFC 4787 REQ-5); 10s to port 53 or with `udp_oneshot`",
	 .help = "an answered UDP flow ends after this idle time"},
	{"udp_unreplied", TYPE_DURATION, 0, FIELD(config_service, idle_udp_unreplied_ns), .min = NS_PER_S,
	 .max = DAY_NS, .zero_word = "auto", .fallback = "auto", .derived = "30s; 10s to port 53 or with `udp_oneshot`",
	 .help = "one that was not answered yet"},
};

static const struct config_key path_keys[] = {
	{"clamp", TYPE_ENUM, 0, FIELD(config_service, path_clamp), .choices = clamp_choices, .fallback = "auto",
	 .help = "lower the MSS of new connections to what their path is known to carry"},
	{"blackhole", TYPE_SWITCH, KEY_NO_EFFECT, FIELD(config_service, path_blackhole), .fallback = "on",
	 .help = "find paths that swallow big packets and say nothing"},
};

static const struct config_key reuse_keys[] = {
	{"isn", TYPE_SWITCH, 0, FIELD(config_service, reuse.isn), .fallback = "on",
	 .help = "initial sequence numbers of the gateway's clock"},
	{"timestamps", TYPE_SWITCH, 0, FIELD(config_service, reuse.timestamps), .fallback = "on",
	 .help = "TCP timestamps of the gateway's clock"},
	{"assist", TYPE_SWITCH, 0, FIELD(config_service, reuse.assist), .fallback = "on",
	 .help = "where a backend answers out of TIME_WAIT all the same, it gets a RST and the SYN again at once"},
};

static const struct config_key breaker_keys[] = {
	{"consecutive", TYPE_NUMBER, 0, FIELD(config_service, breaker_consecutive), .min = 1, .max = 1000,
	 .fallback = "5", .help = "SYNs in a row, unanswered or refused, that open it"},
	{"window", TYPE_DURATION, 0, FIELD(config_service, breaker_window_ns), .min = NS_PER_S, .max = MINUTE_NS,
	 .fallback = "10s", .help = "over which `ratio` is taken"},
	{"ratio", TYPE_SHARE, 0, FIELD(config_service, breaker_ratio_ppm), .min = 10000, .max = 1000000,
	 .fallback = "50%",
	 .help = "share of failures that opens it, of 20 SYNs and requests at least, from three networks"},
};

static const struct config_key check_keys[] = {
	{"tcp", TYPE_SWITCH, 0, FIELD(config_service, check_tcp), .fallback = "off",
	 .help = "send each backend a SYN, and reset its answer; one that fails counts like a client's, for `consecutive`. At "
		 "most 32 a second per worker: of many backends each is checked less often"},
	{"http", TYPE_PATH, 0, FIELD(config_service, check_http), .zero_word = "off", .fallback = "off",
	 .help = "GET this of each backend, from an address of the host; three failures in a row (no connection, no whole "
		 "answer, 500 and above) open its breaker, for its application's fault, and while they go on it is not tried "
		 "again. At most 64 at a time"},
	{"every", TYPE_DURATION, 0, FIELD(config_service, check_every_ns), .min = NS_PER_S, .max = 60 * MINUTE_NS,
	 .fallback = "5s", .help = "between two checks of a backend, +-10%"},
	{"timeout", TYPE_DURATION, 0, FIELD(config_service, check_timeout_ns), .min = 100 * NS_PER_MS, .max = MINUTE_NS,
	 .fallback = "1s", .help = "of `http`; a SYN has the time that clients' have"},
};

#define STORM_RATE(key, field, words)                                                                                  \
	{                                                                                                              \
		key, TYPE_RATE, 0, FIELD(config_service, field), .min = 1, .max = 100000000, .zero_word = "off",       \
								 .fallback = "off", .help = words                      \
	}
#define STORM_BURST(key, field, words)                                                                                 \
	{                                                                                                              \
		key, TYPE_NUMBER, 0, FIELD(config_service, field),                                                     \
			.min = 1, .max = 100000000, .zero_word = "auto", .fallback = "auto",                           \
			.derived = "100 ms of the rate, at least 10", .help = words                                    \
	}
static const struct config_key storm_keys[] = {
	{"client_timeout", TYPE_DURATION, 0, FIELD(config_service, storm_client_timeout_ns), .min = 10 * NS_PER_MS,
	 .max = 10 * MINUTE_NS, .fallback = "1s",
	 .help = "after this a client gives up and tries again: `hold` may not be longer"},
	{"retry_budget", TYPE_SHARE, 0, FIELD(config_service, storm_retry_budget_ppm), .max = 1000000,
	 .fallback = "20%",
	 .help = "retries admitted while a backend is congested or open, relative to first attempts; and 5/s"},
	{"hold", TYPE_DURATION, 0, FIELD(config_service, storm_hold_ns), .min = NS_PER_MS, .max = 2800 * NS_PER_MS,
	 .zero_word = "off", .fallback = "900ms",
	 .help = "a new connection may wait this long before it is refused; clients notice from 1 s on (RFC 6298)"},
	{"hard_max", TYPE_NUMBER, 0, FIELD(config_service, storm_hard_max), .min = 1, .max = 1000000,
	 .zero_word = "off", .fallback = "off",
	 .help = "work that each backend may have under way at a time, of TCP: unanswered connections and questions, whatever "
		 "it could bear. Where services share a backend each looks at all of its work"},
	{"early", TYPE_SWITCH, 0, FIELD(config_service, storm_early), .fallback = "on",
	 .help = "SYNs that would be refused in silence all the same are discarded at once, by the XDP program: for a second "
		 "at most, those of a client that insists beyond `client_rate` or `prefix_rate`; and where 20000/s and more come to "
		 "what serves less than a tenth of them, a share of all"},
	STORM_RATE("rate", storm_rate_per_s, "cap on new flows of the service"),
	STORM_BURST("burst", storm_burst, "new flows of the service that may come at once beyond `rate`"),
	STORM_RATE("client_rate", storm_client_rate_per_s, "cap on new flows of one client: an IPv4 address, a /64"),
	STORM_BURST("client_burst", storm_client_burst, "the same as `burst`, for `client_rate`"),
	STORM_RATE("prefix_rate", storm_prefix_rate_per_s, "cap on new flows of one /24 or /48"),
	STORM_BURST("prefix_burst", storm_prefix_burst, "the same as `burst`, for `prefix_rate`"),
	STORM_RATE(
		"backend_rate", storm_backend_rate_per_s,
		"cap on new TCP connections that each backend is given: of services that share it and cap it the lowest, for all of "
		"theirs together; those of others are not counted"),
	STORM_BURST("backend_burst", storm_backend_burst, "the same as `burst`, for `backend_rate`"),
};

static const struct config_key service_keys[] = {
	{"name", TYPE_NAME, KEY_REQUIRED, FIELD(config_service, name), .example = "shop",
	 .help = "what messages, metrics and the API call it"},
	{"listen", TYPE_LIST, KEY_REQUIRED, FIELD(config_service, listen), .list = &listen_list,
	 .help = "addresses that clients connect to"},
	{"source", TYPE_ENUM, 0, FIELD(config_service, source), .choices = source_choices, .fallback = "snat",
	 .help = "whose address the upstream sees: a SNAT address; or the client's own, which is not supported yet"},
	{"backends", TYPE_LIST, KEY_REQUIRED, FIELD(config_service, backends), .list = &backend_list,
	 .help = "the upstreams"},
	{"drain", TYPE_DURATION, 0, FIELD(config_service, drain_ns), .min = NS_PER_S, .max = 7 * DAY_NS,
	 .zero_word = "off", .fallback = "off",
	 .help = "flows of a backend that left are ended after this, with RST to both sides; off: they end by themselves"},
	{"idle", TYPE_MAP, 0, .map = MAP(idle_keys), .help = "idle times"},
	{"udp_oneshot", TYPE_SWITCH, 0, FIELD(config_service, udp_oneshot), .fallback = "off",
	 .help = "a UDP flow ends when each of its queries has had a reply: for DNS, not for what sends more than one"},
	{"udp6_zero", TYPE_ENUM, 0, FIELD(config_service, udp6_zero), .choices = udp6_zero_choices, .fallback = "drop",
	 .help = "UDP over IPv6 without checksum: drop it (RFC 8200 8.1), or pass it as it is, for tunnels (RFC 6935)"},
	{"path", TYPE_MAP, 0, .map = MAP(path_keys), .help = "path MTU"},
	{"reuse", TYPE_MAP, 0, .map = MAP(reuse_keys),
	 .help = "clients share SNAT ports, and a backend in TIME_WAIT takes only a SYN whose numbers lie ahead: without "
		 "these, connects take a second longer now and then"},
	{"breaker", TYPE_MAP, 0, .map = MAP(breaker_keys), .help = "circuit breaker of each backend"},
	{"check", TYPE_MAP, 0, .map = MAP(check_keys),
	 .help = "checks of the gateway's own, for backends without traffic: packets open, checks may open too; a check alone "
		 "never closes what packets opened. In mode enforce of cure wall alone"},
	{"storm", TYPE_MAP, 0, .map = MAP(storm_keys), .help = "retries and overload"},
};

static const struct config_list service_list = {.item = {NULL, TYPE_MAP, 0, .size = sizeof(struct config_service),
							 .position = offsetof(struct config_service, line),
							 .map = MAP(service_keys)},
						COUNT(config, n_services),
						.min_items = 1,
						.max_items = CONFIG_MAX_SERVICES,
						.dynamic = true,
						.examples = 1};

static const struct config_key root_keys[] = {
	{"gateway", TYPE_MAP, KEY_REQUIRED | KEY_FIXED, .map = MAP(gateway_keys), .help = "the gateway itself"},
	{"dns", TYPE_MAP, KEY_FIXED, .map = MAP(dns_keys), .help = "how names of backends are resolved"},
	{"cures", TYPE_MAP, 0, .map = MAP(cure_keys),
	 .help = "enforce: act; shadow: count what would be done; off: do not even measure"},
	{"services", TYPE_LIST, KEY_REQUIRED, FIELD(config, services), .list = &service_list, .help = "what is served"},
};

const struct config_map config_root = {root_keys, sizeof(root_keys) / sizeof(root_keys[0])};

size_t config_list_count(const struct config_list *list, const void *base)
{
	const char *count = (const char *)base + list->count_offset;

	return list->count_size == sizeof(size_t) ? *(const size_t *)count : *(const unsigned *)count;
}

const char *config_list_items(const struct config_key *key, const void *base)
{
	const char *field = (const char *)base + key->offset;

	return key->list->dynamic ? *(const char *const *)field : field;
}
