// SPDX-License-Identifier: BSD-3-Clause
/*
 * The XDP program on made frames, through the kernel's test run: every exit is taken by some test. One veth with three
 * receive queues, of which two are served, lends its queues' names; nothing is attached to it.
 */
#include "../slower.h"
#include "frames.h"
#include "gate.h"
#include "maps.h"
#include "netlab.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define BOTH4         "198.18.102.1" /* a VIP and a SNAT address at once */

#define N_QUEUES      2
#define UNSERVED      N_QUEUES
#define HANG_NS       3000000000
#define HTTP          80
#define DNS           53
#define OTHER         22

/* Of the port. */
static const uint8_t mac[6] = {0x02, 0, 0, 0, 0, 0x10};

struct bench {
	struct gate *gate;
	int sockets[N_QUEUES][2];
};

static bool exit_taken[SPW_EXIT_COUNT];
static unsigned ifindex;

static const char *const exit_names[] = {
#define X(name, help) #name,
	SPW_EXITS(X)
#undef X
};

static struct ipaddr address(const char *text)
{
	struct ipaddr addr;

	assert_int_equal(ipaddr_parse(text, &addr), 0);
	return addr;
}

static struct gate_listener listener(const char *addr, uint16_t port, uint8_t proto)
{
	return (struct gate_listener){address(addr), htons(port), proto};
}

static void fill_sets(struct gate *gate)
{
	struct gate_listener listeners[] = {
		listener(VIP4, HTTP, PROTO_TCP), listener(VIP4, DNS, PROTO_UDP),   listener(VIP6, HTTP, PROTO_TCP),
		listener(VIP6, DNS, PROTO_UDP),  listener(BOTH4, HTTP, PROTO_TCP),
	};
	struct ipaddr snat[] = {address(SNAT4), address(SNAT6), address(BOTH4)};

	assert_int_equal(gate_set_listeners(gate, listeners, ARRAY_SIZE(listeners)), 0);
	assert_int_equal(gate_set_snat(gate, snat, ARRAY_SIZE(snat)), 0);
}

static struct gate *open_gate(enum gate_on_hang on_hang, unsigned max_listeners)
{
	struct gate_config config = {
		.device = "v0",
		.n_queues = N_QUEUES,
		.max_frame = 1600,
		.mode = GATE_NATIVE,
		.on_hang = on_hang,
		.hang_ns = HANG_NS,
		.max_listeners = max_listeners,
		.max_snat = 4,
	};
	char err[256] = "";
	struct gate *gate = gate_open(&config, err, sizeof(err));

	if (!gate)
		fail_msg("%s", err);
	return gate;
}

static void beat(struct gate *gate, uint64_t ns)
{
	for (unsigned queue = 0; queue < N_QUEUES; queue++)
		*(volatile uint64_t *)gate_heartbeat(gate, queue) = ns;
}

static void set_sockets(struct bench *bench, bool known, bool new)
{
	for (unsigned queue = 0; queue < N_QUEUES; queue++) {
		for (int class = GATE_KNOWN; class <= GATE_NEW; class ++) {
			int *fd = &bench->sockets[queue][class];

			/* A closed socket leaves the map by itself. */
			if (*fd >= 0)
				close(*fd);
			*fd = -1;
			if (class == GATE_KNOWN ? !known : !new)
				continue;
			*fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
			assert_true(*fd >= 0);
			assert_int_equal(gate_set_socket(bench->gate, queue, class, *fd), 0);
		}
	}
}

static struct bench bench_open(enum gate_on_hang on_hang)
{
	struct bench bench = {.gate = open_gate(on_hang, 16), .sockets = {{-1, -1}, {-1, -1}}};

	fill_sets(bench.gate);
	gate_set_mac(bench.gate, mac);
	set_sockets(&bench, true, true);
	beat(bench.gate, monotonic_ns());
	return bench;
}

static void bench_close(struct bench *bench)
{
	set_sockets(bench, false, false);
	gate_close(bench->gate);
}

static void read_exits(const struct gate *gate, uint64_t out[SPW_EXIT_COUNT])
{
	struct gate_counter counters[GATE_MAX_COUNTERS];

	assert_int_equal(gate_counters(gate, counters, ARRAY_SIZE(counters)), SPW_EXIT_COUNT);
	for (int exit = 0; exit < SPW_EXIT_COUNT; exit++)
		out[exit] = counters[exit].packets;
}

static uint32_t run_bytes(struct gate *gate, unsigned queue, const void *bytes, size_t len, int repeat,
			  uint32_t *ns_per_packet)
{
	struct xdp_md ctx = {.data_end = len, .ingress_ifindex = ifindex, .rx_queue_index = queue};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = bytes, .data_size_in = len, .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .repeat = repeat);

	assert_int_equal(bpf_prog_test_run_opts(gate_program_fd(gate), &opts), 0);
	if (ns_per_packet)
		*ns_per_packet = opts.duration;
	return opts.retval;
}

/* Runs a frame once; returns the one exit that it took. */
static enum spw_exit run_queue(struct gate *gate, unsigned queue, const void *bytes, size_t len, uint32_t *action)
{
	uint64_t before[SPW_EXIT_COUNT], after[SPW_EXIT_COUNT];
	int taken = -1;

	read_exits(gate, before);
	*action = run_bytes(gate, queue, bytes, len, 1, NULL);
	read_exits(gate, after);
	for (int exit = 0; exit < SPW_EXIT_COUNT; exit++) {
		if (after[exit] == before[exit])
			continue;
		assert_int_equal(after[exit] - before[exit], 1);
		assert_int_equal(taken, -1);
		taken = exit;
	}
	assert_int_not_equal(taken, -1);
	exit_taken[taken] = true;
	return taken;
}

static uint32_t action_of(enum spw_exit exit)
{
	if (!strncmp(exit_names[exit], "pass_", 5))
		return XDP_PASS;
	return strncmp(exit_names[exit], "drop_", 5) ? XDP_REDIRECT : XDP_DROP;
}

static bool reaches_socket(enum spw_exit exit)
{
	return action_of(exit) == XDP_REDIRECT;
}

/* To the port, unless the frame says otherwise. */
static void build(struct frame *frame, const struct frame_spec *spec)
{
	static const uint8_t none[6];
	struct frame_spec addressed = *spec;

	if (memcmp(addressed.dst_mac, none, sizeof(none)) == 0)
		memcpy(addressed.dst_mac, mac, sizeof(mac));
	frame_build(frame, &addressed);
}

static void expect(struct gate *gate, unsigned queue, const char *name, const struct frame_spec *spec,
		   enum spw_exit expected)
{
	struct frame frame;
	enum spw_exit taken;
	uint32_t action;

	build(&frame, spec);
	taken = run_queue(gate, queue, frame.bytes, frame.len, &action);
	if (taken != expected)
		fail_msg("%s: took %s, expected %s", name, exit_names[taken], exit_names[expected]);
	assert_int_equal(action, action_of(expected));
}

enum owner {
	OWNER_NONE,
	OWNER_VIP,
	OWNER_SNAT,
};

struct fixture {
	const char *name;
	enum spw_exit exit;
	enum owner owner;
	struct frame_spec spec;
};

#define TCP4(to, port, flags, ...)                                                                                     \
	{                                                                                                              \
		.src = CLIENT4, .dst = to, .proto = IPPROTO_TCP, .src_port = 40000, .dst_port = port,                  \
		.tcp_flags = flags, .dst_mac = {                                                                       \
			__VA_ARGS__                                                                                    \
		}                                                                                                      \
	}
#define TCP6(to, port, flags, ...)                                                                                     \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_TCP, .src_port = 40000, .dst_port = port,                  \
		.tcp_flags = flags, .dst_mac = {                                                                       \
			__VA_ARGS__                                                                                    \
		}                                                                                                      \
	}
#define UDP4(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT4, .dst = to, .proto = IPPROTO_UDP, .src_port = 40000, .dst_port = port, .payload = "abc" \
	}
#define UDP6(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_UDP, .src_port = 40000, .dst_port = port, .payload = "abc" \
	}
#define ICMP4(to, type, quote)                                                                                         \
	{                                                                                                              \
		.src = CLIENT4, .dst = to, .proto = IPPROTO_ICMP, .icmp_type = type, .quoted = quote                   \
	}
#define ICMP6(to, type, quote)                                                                                         \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_ICMPV6, .icmp_type = type, .quoted = quote                 \
	}
#define ND6(to, type)                                                                                                  \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_ICMPV6, .icmp_type = type, .hop_limit = 255,               \
		.payload = "0123456789"                                                                                \
	}
#define SENT4(from, port, protocol, ...)                                                                               \
	{                                                                                                              \
		.src = from, .dst = CLIENT4, .proto = protocol, .src_port = port, .dst_port = 40000, __VA_ARGS__       \
	}
#define SENT6(from, port, protocol, ...)                                                                               \
	{                                                                                                              \
		.src = from, .dst = CLIENT6, .proto = protocol, .src_port = port, .dst_port = 40000, __VA_ARGS__       \
	}

static const struct frame_spec sent4_http = SENT4(VIP4, HTTP, IPPROTO_TCP);
static const struct frame_spec sent4_http_options = SENT4(VIP4, HTTP, IPPROTO_TCP, .option_words = 10);
static const struct frame_spec sent4_dns = SENT4(VIP4, DNS, IPPROTO_UDP);
static const struct frame_spec sent4_ssh = SENT4(VIP4, OTHER, IPPROTO_TCP);
static const struct frame_spec sent4_host = SENT4(HOST4, HTTP, IPPROTO_TCP);
static const struct frame_spec sent4_snat = SENT4(SNAT4, 1024, IPPROTO_TCP);
static const struct frame_spec sent4_later = SENT4(VIP4, HTTP, IPPROTO_TCP, .v4_fragment = 100);
static const struct frame_spec sent4_bad = SENT4(VIP4, HTTP, IPPROTO_TCP, .version_ihl = 0x44);
static const struct frame_spec sent6_http = SENT6(VIP6, HTTP, IPPROTO_TCP);
static const struct frame_spec sent6_http_extensions = SENT6(
	VIP6, HTTP, IPPROTO_TCP, .extensions = {{IPPROTO_HOPOPTS, true}, {IPPROTO_FRAGMENT, true, .fragment = 1}});
static const struct frame_spec sent6_later =
	SENT6(VIP6, HTTP, IPPROTO_TCP, .extensions = {{IPPROTO_FRAGMENT, true, .fragment = 1280}});
static const struct frame_spec sent6_dns = SENT6(VIP6, DNS, IPPROTO_UDP);
static const struct frame_spec sent6_ssh = SENT6(VIP6, OTHER, IPPROTO_TCP);
static const struct frame_spec sent6_snat = SENT6(SNAT6, 1024, IPPROTO_TCP);

#define SYN FRAME_TCP_SYN
#define ACK FRAME_TCP_ACK

static const struct fixture fixtures[] = {
	{"arp", SPW_EXIT_pass_not_ip, OWNER_NONE, {.ethertype = ETH_P_ARP}},
	{"two vlan tags", SPW_EXIT_pass_not_ip, OWNER_NONE, {.src = CLIENT4, .dst = VIP4, .n_vlan_tags = 2}},
	{"v4 to the host", SPW_EXIT_pass_not_ours, OWNER_NONE, TCP4(HOST4, HTTP, SYN)},
	{"v6 to the host", SPW_EXIT_pass_not_ours, OWNER_NONE, TCP6(HOST6, HTTP, SYN)},
	{"v4 syn to another host", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP4(VIP4, HTTP, SYN, 2, 0, 0, 0, 0, 0x11)},
	{"v4 syn to a host alike", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP4(VIP4, HTTP, SYN, 6, 0, 0, 0, 0, 0x10)},
	{"v6 ack to another host", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP6(VIP6, HTTP, ACK, 2, 0, 0, 0, 1, 0x10)},
	{"v4 syn to all", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP4(VIP4, HTTP, SYN, 255, 255, 255, 255, 255, 255)},
	{"v6 syn to a group", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP6(VIP6, HTTP, SYN, 0x33, 0x33, 0, 0, 0, 1)},
	{"v4 snat to another host", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP4(SNAT4, 1024, ACK, 2, 0, 0, 0, 0, 1)},
	{"v6 snat to all", SPW_EXIT_pass_other_mac, OWNER_NONE, TCP6(SNAT6, 1024, ACK, 255, 255, 255, 255, 255, 255)},
	{"v4 syn", SPW_EXIT_new, OWNER_VIP, TCP4(VIP4, HTTP, SYN)},
	{"v4 ecn syn", SPW_EXIT_new, OWNER_VIP, TCP4(VIP4, HTTP, SYN | 0xc0)},
	{"v4 syn and ack", SPW_EXIT_known, OWNER_VIP, TCP4(VIP4, HTTP, SYN | ACK)},
	{"v4 ack", SPW_EXIT_known, OWNER_VIP, TCP4(VIP4, HTTP, ACK)},
	{"v4 rst", SPW_EXIT_known, OWNER_VIP, TCP4(VIP4, HTTP, FRAME_TCP_RST)},
	{"v6 syn", SPW_EXIT_new, OWNER_VIP, TCP6(VIP6, HTTP, SYN)},
	{"v6 fin", SPW_EXIT_known, OWNER_VIP, TCP6(VIP6, HTTP, FRAME_TCP_FIN | ACK)},
	{"v4 udp", SPW_EXIT_known, OWNER_VIP, UDP4(VIP4, DNS)},
	{"v6 udp", SPW_EXIT_known, OWNER_VIP, UDP6(VIP6, DNS)},
	{"v4 ssh to a vip", SPW_EXIT_pass_not_listener, OWNER_VIP, TCP4(VIP4, OTHER, SYN)},
	{"v6 ssh to a vip", SPW_EXIT_pass_not_listener, OWNER_VIP, TCP6(VIP6, OTHER, SYN)},
	{"v4 udp to a tcp port", SPW_EXIT_pass_not_listener, OWNER_VIP, UDP4(VIP4, HTTP)},
	{"v6 tcp to a udp port", SPW_EXIT_pass_not_listener, OWNER_VIP, TCP6(VIP6, DNS, SYN)},
	{"v4 gre to a vip",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_GRE, .payload = "gre"}},
	{"v6 esp to a vip",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT6, .dst = VIP6, .proto = IPPROTO_ESP, .payload = "esp"}},
	{"v4 icmpv6 to a vip",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_ICMPV6, .icmp_type = 128}},
	{"v6 icmpv4 to a vip",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT6, .dst = VIP6, .proto = IPPROTO_ICMP, .icmp_type = 8}},
	{"v4 syn on a vlan",
	 SPW_EXIT_pass_vlan,
	 OWNER_NONE,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .dst_port = HTTP, .n_vlan_tags = 1, .vlan_id = 1}},
	{"v6 snat on a vlan",
	 SPW_EXIT_pass_vlan,
	 OWNER_NONE,
	 {.src = CLIENT6, .dst = SNAT6, .proto = IPPROTO_UDP, .dst_port = 1024, .n_vlan_tags = 1, .vlan_id = 4095}},
	{"v4 to the host on a vlan",
	 SPW_EXIT_pass_not_ours,
	 OWNER_NONE,
	 {.src = CLIENT4, .dst = HOST4, .proto = IPPROTO_TCP, .dst_port = HTTP, .n_vlan_tags = 1, .vlan_id = 5}},
	{"v4 syn with a priority",
	 SPW_EXIT_new,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .dst_port = HTTP, .tcp_flags = SYN, .n_vlan_tags = 1}},
	{"v6 udp with a priority",
	 SPW_EXIT_known,
	 OWNER_VIP,
	 {.src = CLIENT6, .dst = VIP6, .proto = IPPROTO_UDP, .dst_port = DNS, .n_vlan_tags = 1}},
	{"v4 syn behind 40 bytes of options",
	 SPW_EXIT_new,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .dst_port = HTTP, .tcp_flags = SYN, .option_words = 10}},
	{"v4 header of 16 bytes",
	 SPW_EXIT_pass_malformed,
	 OWNER_NONE,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .dst_port = HTTP, .version_ihl = 0x44}},
	{"v4 ethertype, version 6",
	 SPW_EXIT_pass_malformed,
	 OWNER_NONE,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .dst_port = HTTP, .version_ihl = 0x65}},
	{"v6 ethertype, version 4",
	 SPW_EXIT_pass_malformed,
	 OWNER_NONE,
	 {.src = CLIENT6, .dst = VIP6, .proto = IPPROTO_TCP, .dst_port = HTTP, .version_ihl = 0x45}},
	{"v6 syn behind every extension",
	 SPW_EXIT_new,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_TCP,
	  .dst_port = HTTP,
	  .tcp_flags = SYN,
	  .extensions = {{IPPROTO_HOPOPTS, true, 2},
			 {IPPROTO_ROUTING, true, 1},
			 {IPPROTO_FRAGMENT, true, .fragment = 1},
			 {IPPROTO_DSTOPTS, true, 3}}}},
	{"v6 udp behind 8 extensions",
	 SPW_EXIT_known,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .dst_port = DNS,
	  .extensions = {{IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true}}}},
	{"v6 udp behind 9 extensions",
	 SPW_EXIT_pass_unreadable,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .dst_port = DNS,
	  .extensions = {{IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true},
			 {IPPROTO_DSTOPTS, true}}}},
	{"v6 udp behind 256 bytes of extensions",
	 SPW_EXIT_known,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .dst_port = DNS,
	  .extensions = {{IPPROTO_HOPOPTS, true, 15}, {IPPROTO_DSTOPTS, true, 15}}}},
	{"v6 udp behind 264 bytes of extensions",
	 SPW_EXIT_pass_unreadable,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .dst_port = DNS,
	  .extensions = {{IPPROTO_HOPOPTS, true, 16}, {IPPROTO_DSTOPTS, true, 15}}}},
	{"v4 first fragment",
	 SPW_EXIT_known,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_UDP, .dst_port = DNS, .v4_fragment = 0x2000}},
	{"v4 later fragment",
	 SPW_EXIT_fragment,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_UDP, .v4_fragment = 0x2001}},
	{"v4 last fragment",
	 SPW_EXIT_fragment,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .v4_fragment = 185}},
	{"v4 later fragment of icmp",
	 SPW_EXIT_fragment,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_ICMP, .v4_fragment = 185}},
	{"v4 later fragment of gre",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_GRE, .v4_fragment = 185, .payload = "gre"}},
	{"v4 later fragment of icmpv6",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_ICMPV6, .v4_fragment = 185}},
	{"v6 later fragment",
	 SPW_EXIT_fragment,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .extensions = {{IPPROTO_FRAGMENT, true, .fragment = 1280}}}},
	{"v6 later fragment of icmpv6",
	 SPW_EXIT_fragment,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_ICMPV6,
	  .extensions = {{IPPROTO_HOPOPTS, true}, {IPPROTO_FRAGMENT, true, .fragment = 1281}}}},
	{"v6 later fragment of icmpv4",
	 SPW_EXIT_pass_not_listener,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_ICMP,
	  .extensions = {{IPPROTO_FRAGMENT, true, .fragment = 1280}}}},
	{"v6 later fragment of options",
	 SPW_EXIT_fragment,
	 OWNER_VIP,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .extensions = {{IPPROTO_FRAGMENT, true, .fragment = 1280}, {IPPROTO_DSTOPTS, true}}}},
	{"v4 echo request to a vip", SPW_EXIT_echo, OWNER_VIP, ICMP4(VIP4, 8, NULL)},
	{"v6 echo request to a vip", SPW_EXIT_echo, OWNER_VIP, ICMP6(VIP6, 128, NULL)},
	{"v4 echo reply to a vip", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP4(VIP4, 0, NULL)},
	{"v6 echo reply to a vip", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP6(VIP6, 129, NULL)},
	{"v4 unreachable", SPW_EXIT_icmp_error, OWNER_VIP, ICMP4(VIP4, 3, &sent4_http)},
	{"v4 time exceeded", SPW_EXIT_icmp_error, OWNER_VIP, ICMP4(VIP4, 11, &sent4_dns)},
	{"v4 parameter problem", SPW_EXIT_icmp_error, OWNER_VIP, ICMP4(VIP4, 12, &sent4_http_options)},
	{"v4 unreachable about snat", SPW_EXIT_icmp_error, OWNER_VIP, ICMP4(VIP4, 3, &sent4_snat)},
	{"v4 source quench", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP4(VIP4, 4, &sent4_http)},
	{"v4 redirect", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP4(VIP4, 5, &sent4_http)},
	{"v4 error about ssh", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP4(VIP4, 3, &sent4_ssh)},
	{"v4 error about the host", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP4(VIP4, 3, &sent4_host)},
	{"v4 error about a later fragment", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP4(VIP4, 3, &sent4_later)},
	{"v4 error about nonsense", SPW_EXIT_pass_unreadable, OWNER_VIP, ICMP4(VIP4, 3, &sent4_bad)},
	{"v6 unreachable", SPW_EXIT_icmp_error, OWNER_VIP, ICMP6(VIP6, 1, &sent6_http)},
	{"v6 too big", SPW_EXIT_icmp_error, OWNER_VIP, ICMP6(VIP6, 2, &sent6_http_extensions)},
	{"v6 time exceeded", SPW_EXIT_icmp_error, OWNER_VIP, ICMP6(VIP6, 3, &sent6_dns)},
	{"v6 parameter problem", SPW_EXIT_icmp_error, OWNER_VIP, ICMP6(VIP6, 4, &sent6_snat)},
	{"v6 unknown error", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP6(VIP6, 5, &sent6_http)},
	{"v6 error about ssh", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP6(VIP6, 1, &sent6_ssh)},
	{"v6 error about a later fragment", SPW_EXIT_pass_not_listener, OWNER_VIP, ICMP6(VIP6, 1, &sent6_later)},
	{"neighbour solicitation to a vip", SPW_EXIT_pass_neighbour, OWNER_VIP, ND6(VIP6, 135)},
	{"neighbour solicitation to snat", SPW_EXIT_pass_neighbour, OWNER_SNAT, ND6(SNAT6, 135)},
	{"neighbour advertisement to snat", SPW_EXIT_pass_neighbour, OWNER_SNAT, ND6(SNAT6, 136)},
	{"neighbour solicitation from afar", SPW_EXIT_snat, OWNER_SNAT, ICMP6(SNAT6, 135, NULL)},
	{"v4 ack to snat", SPW_EXIT_snat, OWNER_SNAT, TCP4(SNAT4, 1024, ACK)},
	{"v4 syn to snat", SPW_EXIT_snat_syn, OWNER_SNAT, TCP4(SNAT4, 1024, SYN)},
	{"v4 syn and ack to snat", SPW_EXIT_snat_syn, OWNER_SNAT, TCP4(SNAT4, 1024, SYN | ACK)},
	{"v6 syn and ack to snat", SPW_EXIT_snat_syn, OWNER_SNAT, TCP6(SNAT6, 1024, SYN | ACK)},
	{"v4 reset to snat", SPW_EXIT_snat, OWNER_SNAT, TCP4(SNAT4, 1024, FRAME_TCP_RST)},
	{"v6 udp to snat", SPW_EXIT_snat, OWNER_SNAT, UDP6(SNAT6, 1024)},
	{"v4 echo request to snat", SPW_EXIT_snat, OWNER_SNAT, ICMP4(SNAT4, 8, NULL)},
	{"v4 error to snat", SPW_EXIT_snat, OWNER_SNAT, ICMP4(SNAT4, 3, &sent4_snat)},
	{"v6 error to snat", SPW_EXIT_snat, OWNER_SNAT, ICMP6(SNAT6, 2, &sent6_snat)},
	{"v4 later fragment to snat",
	 SPW_EXIT_snat,
	 OWNER_SNAT,
	 {.src = CLIENT4, .dst = SNAT4, .proto = IPPROTO_UDP, .v4_fragment = 185}},
	{"v4 gre to snat",
	 SPW_EXIT_snat,
	 OWNER_SNAT,
	 {.src = CLIENT4, .dst = SNAT4, .proto = IPPROTO_GRE, .payload = "gre"}},
	{"v6 endless extensions to snat",
	 SPW_EXIT_snat,
	 OWNER_SNAT,
	 {.src = CLIENT6,
	  .dst = SNAT6,
	  .proto = IPPROTO_UDP,
	  .extensions = {{IPPROTO_HOPOPTS, true, 16}, {IPPROTO_DSTOPTS, true, 16}}}},
	{"syn to a listener on a snat address", SPW_EXIT_new, OWNER_SNAT, TCP4(BOTH4, HTTP, SYN)},
	{"ssh to a listener's snat address", SPW_EXIT_snat_syn, OWNER_SNAT, TCP4(BOTH4, OTHER, SYN)},
};

static void each_frame_takes_its_exit(void **state)
{
	struct bench bench = bench_open(GATE_DROP);

	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++)
		for (unsigned queue = 0; queue < N_QUEUES; queue++)
			expect(bench.gate, queue, fixtures[i].name, &fixtures[i].spec, fixtures[i].exit);
	bench_close(&bench);
}

/* With one class' sockets closed, exactly the other class still arrives; nothing of a SNAT address ever passes. */
static void each_class_has_its_socket(void **state)
{
	static const enum gate_on_hang on_hangs[] = {GATE_DROP, GATE_PASS};

	for (int round = 0; round < 4; round++) {
		enum gate_on_hang on_hang = on_hangs[round / 2];
		enum gate_class closed = round % 2 ? GATE_NEW : GATE_KNOWN;
		struct bench bench = bench_open(on_hang);

		set_sockets(&bench, closed != GATE_KNOWN, closed != GATE_NEW);
		for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
			const struct fixture *f = &fixtures[i];
			bool is_new = f->exit == SPW_EXIT_new || f->exit == SPW_EXIT_snat_syn;
			bool lost = reaches_socket(f->exit) && is_new == (closed == GATE_NEW);
			bool passes = on_hang == GATE_PASS && f->owner == OWNER_VIP;
			enum spw_exit otherwise = passes ? SPW_EXIT_pass_no_socket : SPW_EXIT_drop_no_socket;

			expect(bench.gate, 1, f->name, &f->spec, lost ? otherwise : f->exit);
		}
		bench_close(&bench);
	}
}

static void a_socket_serves_its_own_queue_only(void **state)
{
	struct bench bench = bench_open(GATE_DROP);

	close(bench.sockets[0][GATE_KNOWN]);
	bench.sockets[0][GATE_KNOWN] = -1;
	expect(bench.gate, 0, "queue 0", &(struct frame_spec)UDP4(VIP4, DNS), SPW_EXIT_drop_no_socket);
	expect(bench.gate, 1, "queue 1", &(struct frame_spec)UDP4(VIP4, DNS), SPW_EXIT_known);
	assert_int_equal(gate_set_socket(bench.gate, N_QUEUES, GATE_KNOWN, bench.sockets[1][GATE_KNOWN]), -EINVAL);
	assert_null(gate_heartbeat(bench.gate, N_QUEUES));
	bench_close(&bench);
}

/* Every fixture of ours through a gate that cannot serve it. */
static void expect_unserved(struct gate *gate, unsigned queue, enum gate_on_hang on_hang, enum spw_exit drop,
			    enum spw_exit pass)
{
	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
		const struct fixture *f = &fixtures[i];
		enum spw_exit otherwise = on_hang == GATE_PASS && f->owner == OWNER_VIP ? pass : drop;

		expect(gate, queue, f->name, &f->spec, reaches_socket(f->exit) ? otherwise : f->exit);
	}
}

static void a_hung_gateway_obeys_on_hang(void **state)
{
	for (enum gate_on_hang on_hang = GATE_DROP; on_hang <= GATE_PASS; on_hang++) {
		struct bench bench = bench_open(on_hang);

		beat(bench.gate, monotonic_ns() - HANG_NS - 50000000);
		expect_unserved(bench.gate, 0, on_hang, SPW_EXIT_drop_hung, SPW_EXIT_pass_hung);
		beat(bench.gate, 0);
		expect_unserved(bench.gate, 1, on_hang, SPW_EXIT_drop_hung, SPW_EXIT_pass_hung);
		beat(bench.gate, monotonic_ns());
		expect_unserved(bench.gate, UNSERVED, on_hang, SPW_EXIT_drop_unserved_queue,
				SPW_EXIT_pass_unserved_queue);
		bench_close(&bench);
	}
}

static void each_queue_has_its_heartbeat(void **state)
{
	struct bench bench = bench_open(GATE_DROP);
	const struct frame_spec syn = TCP4(VIP4, HTTP, SYN);

	*gate_heartbeat(bench.gate, 0) = 1;
	expect(bench.gate, 0, "stale queue", &syn, SPW_EXIT_drop_hung);
	expect(bench.gate, 1, "fresh queue", &syn, SPW_EXIT_new);
	bench_close(&bench);
}

/* The program's clock is coarse: a beat of just now, or from ahead of it, is fresh; the limit is exact to a few ticks.
 */
static void heartbeats_are_compared_signed(void **state)
{
	static const struct {
		int64_t age_ns;
		enum spw_exit exit;
	} cases[] = {
		{0, SPW_EXIT_new},
		{-20000000, SPW_EXIT_new},
		{-HANG_NS, SPW_EXIT_new},
		{HANG_NS - 500000000, SPW_EXIT_new},
		{HANG_NS + 50000000, SPW_EXIT_drop_hung},
	};
	struct bench bench = bench_open(GATE_DROP);

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		beat(bench.gate, monotonic_ns() - cases[i].age_ns);
		expect(bench.gate, 0, "heartbeat", &(struct frame_spec)TCP4(VIP4, HTTP, SYN), cases[i].exit);
	}
	bench_close(&bench);
}

/* What a frame cut off after `len` bytes may do. */
static bool cut_may_take(const struct fixture *f, const struct frame *whole, size_t len, enum spw_exit exit)
{
	if (exit == f->exit)
		return true;
	if (len < whole->ip_end || f->exit == SPW_EXIT_pass_not_ip)
		return exit == SPW_EXIT_pass_malformed || exit == SPW_EXIT_pass_not_ip;
	switch (f->owner) {
	case OWNER_NONE:
		return false;
	case OWNER_SNAT:
		return exit == SPW_EXIT_snat || (f->exit == SPW_EXIT_new && exit == SPW_EXIT_known);
	default:
		return exit == SPW_EXIT_pass_unreadable || (f->exit == SPW_EXIT_new && exit == SPW_EXIT_known);
	}
}

static void a_truncated_frame_never_takes_a_wrong_exit(void **state)
{
	struct bench bench = bench_open(GATE_DROP);
	size_t n_runs = 0;

	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
		const struct fixture *f = &fixtures[i];
		bool settled = false;
		struct frame whole;

		build(&whole, &f->spec);
		for (size_t len = ETH_HLEN; len <= whole.len; len++, n_runs++) {
			uint32_t action;
			enum spw_exit exit = run_queue(bench.gate, 0, whole.bytes, len, &action);

			assert_int_equal(action, action_of(exit));
			if (!cut_may_take(f, &whole, len, exit))
				fail_msg("%s cut to %zu: took %s", f->name, len, exit_names[exit]);
			/* More bytes do not change what is settled, except for a SNAT address, settled from the first.
			 */
			if (f->owner == OWNER_VIP && settled && exit != f->exit)
				fail_msg("%s at %zu: changed to %s", f->name, len, exit_names[exit]);
			settled = exit == f->exit;
		}
		assert_true(settled);
	}
	print_message("%zu truncated frames\n", n_runs);
	bench_close(&bench);
}

/* Deterministic; damages 1..4 bytes of each fixture many times over. A SNAT address' frames must not reach the kernel.
 */
static void damaged_frames_are_safe(void **state)
{
	enum { ROUNDS = 200 };
	struct bench bench = bench_open(GATE_PASS);
	unsigned seed = 1;

	for (size_t i = 0; i < ARRAY_SIZE(fixtures) * ROUNDS; i++) {
		const struct fixture *f = &fixtures[i % ARRAY_SIZE(fixtures)];
		struct frame frame;
		enum spw_exit exit;
		uint32_t action;

		build(&frame, &f->spec);
		for (int damage = rand_r(&seed) % 4; damage >= 0; damage--) {
			/* Beyond the addresses for SNAT, so that it stays one. */
			size_t from = f->owner == OWNER_SNAT ? frame.ip_end : 12;

			if (from < frame.len)
				frame.bytes[from + rand_r(&seed) % (frame.len - from)] = rand_r(&seed);
		}
		exit = run_queue(bench.gate, 0, frame.bytes, frame.len, &action);
		assert_int_equal(action, action_of(exit));
		if (f->owner == OWNER_SNAT && action == XDP_PASS)
			assert_int_equal(exit, SPW_EXIT_pass_neighbour);
	}
	bench_close(&bench);
}

/* A device may be given another address while it runs. */
static void the_link_address_can_change(void **state)
{
	static const uint8_t other[6] = {0x02, 0, 0, 0, 0, 0x11};
	struct bench bench = bench_open(GATE_DROP);
	const struct frame_spec to_port = TCP4(VIP4, HTTP, SYN), to_other = TCP4(VIP4, HTTP, SYN, 2, 0, 0, 0, 0, 0x11);

	gate_set_mac(bench.gate, other);
	expect(bench.gate, 0, "new address", &to_other, SPW_EXIT_new);
	expect(bench.gate, 0, "old address", &to_port, SPW_EXIT_pass_other_mac);
	gate_set_mac(bench.gate, (uint8_t[6]){0});
	expect(bench.gate, 0, "not known", &to_port, SPW_EXIT_pass_other_mac);
	bench_close(&bench);
}

static void nothing_is_ours_without_listeners(void **state)
{
	struct bench bench = bench_open(GATE_DROP);

	assert_int_equal(gate_set_listeners(bench.gate, NULL, 0), 0);
	expect(bench.gate, 0, "vip", &(struct frame_spec)TCP4(VIP4, HTTP, SYN), SPW_EXIT_pass_not_ours);
	expect(bench.gate, 0, "both", &(struct frame_spec)TCP4(BOTH4, HTTP, SYN), SPW_EXIT_snat_syn);
	fill_sets(bench.gate);
	assert_int_equal(gate_set_snat(bench.gate, NULL, 0), 0);
	expect(bench.gate, 0, "snat", &(struct frame_spec)TCP4(SNAT4, HTTP, SYN), SPW_EXIT_pass_not_ours);
	expect(bench.gate, 0, "both", &(struct frame_spec)TCP4(BOTH4, HTTP, SYN), SPW_EXIT_new);
	expect(bench.gate, 0, "both", &(struct frame_spec)TCP4(BOTH4, OTHER, SYN), SPW_EXIT_pass_not_listener);
	bench_close(&bench);
}

static void a_set_too_large_changes_nothing(void **state)
{
	struct bench bench = bench_open(GATE_DROP);
	struct gate_listener many[17];
	struct ipaddr addrs[5];

	for (unsigned i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = listener("198.18.103.1", 1000 + i, PROTO_TCP);
	for (unsigned i = 0; i < ARRAY_SIZE(addrs); i++)
		addrs[i] = ipaddr_v4(htonl(0xc6126800 + i));
	assert_int_equal(gate_set_listeners(bench.gate, many, 17), -ENOSPC);
	assert_int_equal(gate_set_snat(bench.gate, addrs, 5), -ENOSPC);
	expect(bench.gate, 0, "old vip", &(struct frame_spec)TCP4(VIP4, HTTP, SYN), SPW_EXIT_new);
	expect(bench.gate, 0, "old snat", &(struct frame_spec)TCP4(SNAT4, HTTP, SYN), SPW_EXIT_snat_syn);
	expect(bench.gate, 0, "refused", &(struct frame_spec)TCP4("198.18.103.1", 1000, SYN), SPW_EXIT_pass_not_ours);
	/* Twice the same is one. */
	many[16] = many[15];
	assert_int_equal(gate_set_listeners(bench.gate, many, 17), 0);
	expect(bench.gate, 0, "taken", &(struct frame_spec)TCP4("198.18.103.1", 1015, SYN), SPW_EXIT_new);
	expect(bench.gate, 0, "gone", &(struct frame_spec)TCP4(VIP4, HTTP, SYN), SPW_EXIT_pass_not_ours);
	bench_close(&bench);
}

struct replacer {
	struct gate *gate;
	atomic_bool stop;
	unsigned n_replaced;
	int rc;
};

/* Full sets that share only one listener and one SNAT address. */
static void *replace_for_ever(void *arg)
{
	struct replacer *replacer = arg;
	struct gate_listener sets[2][16];
	struct ipaddr snat[2][2];

	for (unsigned s = 0; s < 2; s++) {
		sets[s][15 * s] = (struct gate_listener){ipaddr_v4(htonl(0xc6126401)), htons(HTTP), PROTO_TCP};
		for (unsigned i = 0; i < 15; i++)
			sets[s][i + !s] =
				(struct gate_listener){ipaddr_v4(htonl(0xc6126701 + s)), htons(1000 + i), PROTO_TCP};
		snat[s][s] = ipaddr_v4(htonl(0xc6126501));
		snat[s][!s] = ipaddr_v4(htonl(0xc6126601 + s));
	}
	while (!replacer->stop && !replacer->rc) {
		unsigned s = replacer->n_replaced++ % 2;

		replacer->rc = gate_set_listeners(replacer->gate, sets[s], 16);
		if (!replacer->rc)
			replacer->rc = gate_set_snat(replacer->gate, snat[s], 2);
	}
	return NULL;
}

static void an_entry_of_both_sets_is_never_missing(void **state)
{
	enum { RUNS = 10, REPEAT = 80000 };
	/* Few and long: the kernel waits for a grace period at each end of a repeated run. */
	struct bench bench = bench_open(GATE_DROP);
	struct replacer replacer = {.gate = bench.gate};
	uint64_t exits[SPW_EXIT_COUNT];
	struct frame syn, snat;
	pthread_t thread;

	build(&syn, &(struct frame_spec)TCP4(VIP4, HTTP, SYN));
	build(&snat, &(struct frame_spec)TCP4(SNAT4, 1024, ACK));
	assert_int_equal(pthread_create(&thread, NULL, replace_for_ever, &replacer), 0);
	for (int i = 0; i < RUNS; i++) {
		beat(bench.gate, monotonic_ns());
		run_bytes(bench.gate, 0, syn.bytes, syn.len, REPEAT, NULL);
		run_bytes(bench.gate, 0, snat.bytes, snat.len, REPEAT, NULL);
	}
	replacer.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(replacer.rc, 0);
	assert_true(replacer.n_replaced > 10);
	read_exits(bench.gate, exits);
	for (int exit = 0; exit < SPW_EXIT_COUNT; exit++) {
		bool expected = exit == SPW_EXIT_new || exit == SPW_EXIT_snat;

		assert_int_equal(exits[exit], expected ? RUNS * REPEAT : 0);
	}
	print_message("%d frames during %u replacements\n", 2 * RUNS * REPEAT, replacer.n_replaced);
	bench_close(&bench);
}

static void thousands_of_listeners_take_milliseconds(void **state)
{
	enum { N = 4000 };
	struct gate *gate = open_gate(GATE_DROP, N);
	struct gate_listener *listeners = calloc(N, sizeof(*listeners));
	uint64_t start, filled, same, moved;

	assert_non_null(listeners);
	for (unsigned i = 0; i < N; i++)
		listeners[i] = (struct gate_listener){ipaddr_v4(htonl(0xc6120000 + i / 4)), htons(i % 4), PROTO_TCP};
	start = monotonic_ns();
	assert_int_equal(gate_set_listeners(gate, listeners, N), 0);
	filled = monotonic_ns();
	assert_int_equal(gate_set_listeners(gate, listeners, N), 0);
	same = monotonic_ns();
	for (unsigned i = 0; i < N; i++)
		listeners[i].port_be = htons(100 + i % 4);
	assert_int_equal(gate_set_listeners(gate, listeners, N), 0);
	moved = monotonic_ns();
	print_message("%d listeners: filled in %.2f ms, set again in %.2f ms, all replaced in %.2f ms\n", N,
		      (filled - start) / 1e6, (same - filled) / 1e6, (moved - same) / 1e6);
	assert_true(moved - start < 1000000000ull * SLOWER);
	free(listeners);
	gate_close(gate);
}

/* For information: the machine decides. */
static void the_cost_is_printed(void **state)
{
	enum { REPEAT = 300000 };
	static const struct fixture costs[] = {
		{"not ours (v4)", SPW_EXIT_pass_not_ours, OWNER_NONE, TCP4(HOST4, HTTP, ACK)},
		{"not ours (v6)", SPW_EXIT_pass_not_ours, OWNER_NONE, TCP6(HOST6, HTTP, ACK)},
		{"listener (v4)", SPW_EXIT_known, OWNER_VIP, TCP4(VIP4, HTTP, ACK)},
		{"listener (v6)", SPW_EXIT_known, OWNER_VIP, TCP6(VIP6, HTTP, ACK)},
		{"snat (v4)", SPW_EXIT_snat, OWNER_SNAT, TCP4(SNAT4, 1024, ACK)},
		{"snat (v6)", SPW_EXIT_snat, OWNER_SNAT, TCP6(SNAT6, 1024, ACK)},
	};
	struct bench bench = bench_open(GATE_DROP);

	for (size_t i = 0; i < ARRAY_SIZE(costs); i++) {
		uint64_t exits[SPW_EXIT_COUNT], before[SPW_EXIT_COUNT];
		struct frame frame;
		uint32_t ns;

		build(&frame, &costs[i].spec);
		read_exits(bench.gate, before);
		beat(bench.gate, monotonic_ns());
		run_bytes(bench.gate, 0, frame.bytes, frame.len, REPEAT, &ns);
		read_exits(bench.gate, exits);
		assert_int_equal(exits[costs[i].exit] - before[costs[i].exit], REPEAT);
		print_message("%-14s %3u ns/packet\n", costs[i].name, ns);
	}
	bench_close(&bench);
}

/* Last: a new exit without a test is found here. Those of early shedding are test_shed.c's. */
static void every_exit_was_taken(void **state)
{
	for (int exit = 0; exit < SPW_EXIT_COUNT; exit++)
		if (!exit_taken[exit] && strncmp(exit_names[exit], "shed_", 5))
			fail_msg("no test took %s", exit_names[exit]);
}

static int enter_namespace(void **state)
{
	if (netlab_enter() || netlab_run("ip link add v0 numrxqueues 3 numtxqueues 3 type veth peer name v1 "
					 "numrxqueues 3 numtxqueues 3"))
		return -1;
	ifindex = if_nametoindex("v0");
	return ifindex ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_frame_takes_its_exit),
		cmocka_unit_test(each_class_has_its_socket),
		cmocka_unit_test(a_socket_serves_its_own_queue_only),
		cmocka_unit_test(a_hung_gateway_obeys_on_hang),
		cmocka_unit_test(each_queue_has_its_heartbeat),
		cmocka_unit_test(heartbeats_are_compared_signed),
		cmocka_unit_test(a_truncated_frame_never_takes_a_wrong_exit),
		cmocka_unit_test(damaged_frames_are_safe),
		cmocka_unit_test(the_link_address_can_change),
		cmocka_unit_test(nothing_is_ours_without_listeners),
		cmocka_unit_test(a_set_too_large_changes_nothing),
		cmocka_unit_test(an_entry_of_both_sets_is_never_missing),
		cmocka_unit_test(thousands_of_listeners_take_milliseconds),
		cmocka_unit_test(the_cost_is_printed),
		cmocka_unit_test(every_exit_was_taken),
	};

	return cmocka_run_group_tests_name("gate_program", tests, enter_namespace, NULL);
}
