// SPDX-License-Identifier: BSD-3-Clause
/*
 * The guard against the kernel's own stack: what it answers without the table, it does not answer with it. That a frame
 * is not answered is known when a later ping is.
 */
#include "guard.h"
#include "netlab.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
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

/* Routed through the host. With a hop limit of 1 the kernel says that it ends here, if it is let. */
#define ROUTED_VIP4   "198.18.110.1"
#define ROUTED_VIP6   "2001:db8:110::1"
#define ROUTED_SNAT4  "198.18.110.2"

#define HTTP          80
#define DNS           53
#define SSH           22

static int raw_fd;

enum fate {
	ALWAYS_ANSWERED,
	LISTENERS, /* silent unless listeners pass */
	NEVER,
};

#define TCP4(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT4, .dst = to, .proto = IPPROTO_TCP, .src_port = 40000, .dst_port = port,                  \
		.tcp_flags = FRAME_TCP_SYN                                                                             \
	}
#define TCP6(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_TCP, .src_port = 40000, .dst_port = port,                  \
		.tcp_flags = FRAME_TCP_SYN                                                                             \
	}
#define UDP4(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT4, .dst = to, .proto = IPPROTO_UDP, .src_port = 40000, .dst_port = port                   \
	}
#define UDP6(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_UDP, .src_port = 40000, .dst_port = port                   \
	}

#define ROUTED(from, to, port)                                                                                         \
	{                                                                                                              \
		.src = from, .dst = to, .proto = IPPROTO_TCP, .dst_port = port, .hop_limit = 1                         \
	}

/* A solicitation's target: reserved bytes are part of the ICMP header that frames.c makes. */
static const char snat6_target[16] = {0x20, 0x01, 0x0d, (char)0xb8, 0x01, 0x01, [15] = 1};

static const struct {
	const char *name;
	enum fate fate;
	struct frame_spec spec;
} fixtures[] = {
	{"v4 syn to a listener", LISTENERS, TCP4(VIP4, HTTP)},
	{"v6 syn to a listener", LISTENERS, TCP6(VIP6, HTTP)},
	{"v4 ack to a listener",
	 LISTENERS,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_TCP, .dst_port = HTTP, .tcp_flags = FRAME_TCP_ACK}},
	{"v4 udp to a listener", LISTENERS, UDP4(VIP4, DNS)},
	{"v6 udp to a listener", LISTENERS, UDP6(VIP6, DNS)},
	{"v6 udp behind extensions",
	 LISTENERS,
	 {.src = CLIENT6,
	  .dst = VIP6,
	  .proto = IPPROTO_UDP,
	  .dst_port = DNS,
	  .extensions = {{IPPROTO_HOPOPTS, true}, {IPPROTO_DSTOPTS, true}}}},
	{"v4 udp behind options",
	 LISTENERS,
	 {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_UDP, .dst_port = DNS, .option_words = 10}},
	{"v4 echo request to a vip", LISTENERS, {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_ICMP, .icmp_type = 8}},
	{"v6 echo request to a vip",
	 LISTENERS,
	 {.src = CLIENT6, .dst = VIP6, .proto = IPPROTO_ICMPV6, .icmp_type = 128}},
	{"v4 syn to a routed listener", LISTENERS, ROUTED(CLIENT4, ROUTED_VIP4, HTTP)},
	{"v6 syn to a routed listener", LISTENERS, ROUTED(CLIENT6, ROUTED_VIP6, HTTP)},
	{"v4 ssh to a vip", ALWAYS_ANSWERED, TCP4(VIP4, SSH)},
	{"v6 ssh to a vip", ALWAYS_ANSWERED, TCP6(VIP6, SSH)},
	{"v4 udp to a vip's tcp port", ALWAYS_ANSWERED, UDP4(VIP4, HTTP)},
	{"v4 syn to the host", ALWAYS_ANSWERED, TCP4(HOST4, HTTP)},
	{"v6 syn to the host", ALWAYS_ANSWERED, TCP6(HOST6, HTTP)},
	{"v6 echo request to the host",
	 ALWAYS_ANSWERED,
	 {.src = CLIENT6, .dst = HOST6, .proto = IPPROTO_ICMPV6, .icmp_type = 128}},
	{"v4 ssh to a routed vip", ALWAYS_ANSWERED, ROUTED(CLIENT4, ROUTED_VIP4, SSH)},
	{"neighbour solicitation for snat",
	 ALWAYS_ANSWERED,
	 {.src = CLIENT6,
	  .dst = SNAT6,
	  .proto = IPPROTO_ICMPV6,
	  .icmp_type = 135,
	  .hop_limit = 255,
	  .payload = snat6_target,
	  .payload_len = 16}},
	{"v4 syn to snat", NEVER, TCP4(SNAT4, 1024)},
	{"v6 syn to snat", NEVER, TCP6(SNAT6, 1024)},
	{"v4 udp to snat", NEVER, UDP4(SNAT4, 1024)},
	{"v6 udp to snat", NEVER, UDP6(SNAT6, 1024)},
	{"v4 echo request to snat", NEVER, {.src = CLIENT4, .dst = SNAT4, .proto = IPPROTO_ICMP, .icmp_type = 8}},
	{"v6 echo request to snat", NEVER, {.src = CLIENT6, .dst = SNAT6, .proto = IPPROTO_ICMPV6, .icmp_type = 128}},
	{"v4 gre to snat", NEVER, {.src = CLIENT4, .dst = SNAT4, .proto = IPPROTO_GRE, .payload = "12345678"}},
	{"v4 syn to routed snat", NEVER, ROUTED(CLIENT4, ROUTED_SNAT4, 1024)},
};

static struct ipaddr address(const char *text)
{
	struct ipaddr addr;

	assert_int_equal(ipaddr_parse(text, &addr), 0);
	return addr;
}

static struct guard_listener listener(const char *addr, uint16_t port, uint8_t proto)
{
	return (struct guard_listener){address(addr), htons(port), proto};
}

/* `other` is a listener of this one set alone. */
static void install(bool listeners_pass, uint16_t other_port)
{
	struct guard_listener listeners[] = {
		listener(VIP4, HTTP, PROTO_TCP),        listener(VIP6, HTTP, PROTO_TCP),
		listener(VIP4, DNS, PROTO_UDP),         listener(VIP6, DNS, PROTO_UDP),
		listener(ROUTED_VIP4, HTTP, PROTO_TCP), listener(ROUTED_VIP6, HTTP, PROTO_TCP),
		listener(VIP4, other_port, PROTO_TCP),
	};
	struct ipaddr snat[] = {address(SNAT4), address(SNAT6), address(ROUTED_SNAT4)};
	char err[256] = "";
	int rc = guard_install(listeners, ARRAY_SIZE(listeners), snat, ARRAY_SIZE(snat), listeners_pass, err,
			       sizeof(err));

	if (rc)
		fail_msg("%s", err);
}

static int answers(const struct frame_spec *spec)
{
	struct frame frame;

	netlab_frame(&frame, spec);
	return netlab_answers(raw_fd, &frame);
}

static void expect_answers(enum fate silent_from)
{
	for (size_t i = 0; i < ARRAY_SIZE(fixtures); i++) {
		int n = answers(&fixtures[i].spec);
		int expected = fixtures[i].fate < silent_from;

		if (n != expected)
			fail_msg("%s: %d answers, not %d", fixtures[i].name, n, expected);
	}
}

static void the_kernel_answers_without_guard(void **state)
{
	expect_answers(NEVER + 1);
}

static void the_guard_silences_what_is_ours(void **state)
{
	install(false, 8080);
	expect_answers(LISTENERS);
}

static void listeners_may_pass_snat_never(void **state)
{
	install(true, 8080);
	expect_answers(NEVER);
}

static void a_replaced_set_is_another(void **state)
{
	const struct frame_spec first = TCP4(VIP4, 8080), second = TCP4(VIP4, 8081);

	install(false, 8080);
	assert_int_equal(answers(&first), 0);
	assert_int_equal(answers(&second), 1);
	install(false, 8081);
	assert_int_equal(answers(&first), 1);
	assert_int_equal(answers(&second), 0);
}

struct replacer {
	atomic_int n_replaced;
	atomic_int rc;
	atomic_bool stop;
};

static void *replace_for_ever(void *arg)
{
	struct replacer *replacer = arg;
	struct guard_listener listeners[2] = {{ipaddr_v4(inet_addr(VIP4)), htons(HTTP), PROTO_TCP}};
	struct ipaddr snat = ipaddr_v4(inet_addr(SNAT4));
	cpu_set_t all;
	char err[256];

	memset(&all, 0xff, sizeof(all));
	sched_setaffinity(0, sizeof(all), &all);
	while (!replacer->stop && !replacer->rc) {
		listeners[1] = (struct guard_listener){ipaddr_v4(inet_addr(VIP4)), htons(1000 + replacer->n_replaced),
						       PROTO_TCP};
		replacer->rc = guard_install(listeners, 2, &snat, 1, false, err, sizeof(err));
		replacer->n_replaced++;
	}
	return NULL;
}

static void replacing_lets_nothing_through(void **state)
{
	enum { REPLACEMENTS = 40, BURST = 200, MAX_BURSTS = 20000 };
	const struct frame_spec specs[] = {TCP4(VIP4, HTTP), UDP4(SNAT4, 1024)};
	struct replacer replacer = {0};
	struct frame frames[2];
	pthread_t thread;
	int n_bursts = 0;

	for (int i = 0; i < 2; i++)
		netlab_frame(&frames[i], &specs[i]);
	install(false, 1000);
	assert_int_equal(pthread_create(&thread, NULL, replace_for_ever, &replacer), 0);
	while (replacer.n_replaced < REPLACEMENTS && !replacer.rc && n_bursts < MAX_BURSTS) {
		for (int i = 0; i < BURST; i++)
			netlab_send(raw_fd, &frames[i % 2]);
		n_bursts++;
	}
	replacer.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(replacer.rc, 0);
	assert_true(replacer.n_replaced >= REPLACEMENTS);
	assert_int_equal(netlab_answers(raw_fd, &frames[0]), 0);
	print_message("%d frames during %d replacements\n", n_bursts * BURST, replacer.n_replaced);
}

/* The kernel would keep the first fragment and, after its time, say so. */
static void fragments_are_not_kept_for_us(void **state)
{
	enum { PATIENCE_MS = 5000, MORE_FRAGMENTS = 0x2000, TIME_EXCEEDED = 11, LOCAL_EXPERIMENTAL = 0x88b5 };
	const char *const dsts[] = {VIP4, SNAT4, HOST4};
	uint8_t bytes[FRAME_MAX];
	int len;

	install(false, 8080);
	for (size_t i = 0; i < ARRAY_SIZE(dsts); i++) {
		struct frame frame;

		netlab_frame(&frame, &(struct frame_spec){.src = CLIENT4,
							  .dst = dsts[i],
							  .proto = IPPROTO_UDP,
							  .dst_port = DNS,
							  .payload = "01234567",
							  .v4_fragment = MORE_FRAGMENTS});
		assert_int_equal(netlab_send(raw_fd, &frame), 0);
	}
	/* Ours were sent before: by the time that the host's is due, theirs are too, in whatever order. */
	do {
		len = netlab_receive(raw_fd, bytes, sizeof(bytes), PATIENCE_MS);
		assert_true(len > 0);
	} while (!netlab_is_for_client(bytes, len));
	assert_int_equal(bytes[34], TIME_EXCEEDED);
	assert_memory_equal(&bytes[26], &address(HOST4).b[12], 4);
	assert_int_equal(answers(&(struct frame_spec){.ethertype = LOCAL_EXPERIMENTAL}), 0);
}

/* Begins a connection from the host itself; returns its end after at most `timeout_ms`, -EINPROGRESS if there is none.
 */
static int connect_locally(const char *dst, uint16_t port, int timeout_ms)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(dst)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct pollfd event = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t len = sizeof(error);

	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) && errno != EINPROGRESS)
		error = errno;
	else if (poll(&event, 1, timeout_ms) == 0)
		error = EINPROGRESS;
	else
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	close(fd);
	return -error;
}

static void the_host_itself_is_not_harmed(void **state)
{
	enum { PATIENCE_MS = 5000, SILENCE_MS = 300 };
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(guard_remove(), 0);
	assert_int_equal(connect_locally(VIP4, HTTP, PATIENCE_MS), -ECONNREFUSED);
	install(false, 8080);
	assert_int_equal(connect_locally("127.0.0.1", ntohs(addr.sin_port), PATIENCE_MS), 0);
	assert_int_equal(connect_locally(HOST4, HTTP, PATIENCE_MS), -ECONNREFUSED);
	assert_int_equal(connect_locally(VIP4, SSH, PATIENCE_MS), -ECONNREFUSED);
	assert_int_equal(connect_locally(VIP4, HTTP, SILENCE_MS), -EINPROGRESS);
	assert_int_equal(connect_locally(SNAT4, 1024, SILENCE_MS), -EINPROGRESS);
	close(fd);
}

/* A host may turn what comes in for another port into what is ours. */
static void translated_packets_are_dropped_too(void **state)
{
	const struct frame_spec translated = TCP4(HOST4, 8000);

	install(false, 8080);
	assert_int_equal(answers(&translated), 1);
	assert_int_equal(netlab_run("nft 'table ip other { chain pre { type nat hook prerouting priority dstnat; "
				    "tcp dport 8000 dnat to " VIP4 ":80; }; }'"),
			 0);
	assert_int_equal(answers(&translated), 0);
	assert_int_equal(netlab_run("nft delete table ip other"), 0);
}

static void a_table_of_another_make_is_replaced(void **state)
{
	const struct frame_spec syn = TCP4(VIP4, HTTP);

	assert_int_equal(guard_remove(), 0);
	assert_int_equal(netlab_run("nft 'table inet spillway { set snat4 { type ether_addr; }; chain input { type "
				    "filter hook input priority 5; }; }'"),
			 0);
	install(false, 8080);
	assert_int_equal(answers(&syn), 0);
}

static bool ruleset_mentions(const char *text)
{
	FILE *in = popen("nft list ruleset", "r");
	char line[256];
	bool found = false;

	assert_non_null(in);
	while (fgets(line, sizeof(line), in))
		found |= strstr(line, text) != NULL;
	assert_int_equal(pclose(in), 0);
	return found;
}

static void remove_leaves_nothing_of_ours(void **state)
{
	assert_int_equal(netlab_run("nft add table inet neighbour"), 0);
	install(false, 8080);
	assert_true(ruleset_mentions("spillway"));
	assert_int_equal(guard_remove(), 0);
	assert_false(ruleset_mentions("spillway"));
	assert_true(ruleset_mentions("neighbour"));
	assert_int_equal(guard_remove(), 0);
	expect_answers(NEVER + 1);
}

static void an_empty_guard_is_one(void **state)
{
	char err[256] = "";

	assert_int_equal(guard_install(NULL, 0, NULL, 0, false, err, sizeof(err)), 0);
	assert_true(ruleset_mentions("spillway"));
	expect_answers(NEVER + 1);
}

static int build_lab(void **state)
{
	raw_fd = netlab_build();
	if (raw_fd < 0)
		return -1;
	return netlab_run("ip route add 198.18.110.0/24 dev g0") ||
	       netlab_run("ip -6 route add 2001:db8:110::/48 dev g0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_kernel_answers_without_guard),
		cmocka_unit_test(the_guard_silences_what_is_ours),
		cmocka_unit_test(listeners_may_pass_snat_never),
		cmocka_unit_test(a_replaced_set_is_another),
		cmocka_unit_test(replacing_lets_nothing_through),
		cmocka_unit_test(fragments_are_not_kept_for_us),
		cmocka_unit_test(the_host_itself_is_not_harmed),
		cmocka_unit_test(translated_packets_are_dropped_too),
		cmocka_unit_test(a_table_of_another_make_is_replaced),
		cmocka_unit_test(remove_leaves_nothing_of_ours),
		cmocka_unit_test(an_empty_guard_is_one),
	};

	return cmocka_run_group_tests_name("guard", tests, build_lab, NULL);
}
