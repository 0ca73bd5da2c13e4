// SPDX-License-Identifier: BSD-3-Clause
/* Early shedding in the XDP program, on made frames, through the kernel's test run: what is discarded, and what never.
 */
#include "frames.h"
#include "gate.h"
#include "maps.h"
#include "netlab.h"
#include "shed.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define HTTP       80
#define HTTPS      443
#define SERVICES   4
#define CLIENTS    4
#define LATER_NS   60000000000ull
#define OTHER4     "198.18.1.99"
#define NEIGHBOUR6 "2001:db8:1::99" /* of CLIENT6's /64 */
#define STRANGER6  "2001:db8:1:1::2"
#define SYN        FRAME_TCP_SYN
#define ACK        FRAME_TCP_ACK

static const uint8_t mac[6] = {0x02, 0, 0, 0, 0, 0x10};
static unsigned ifindex;

struct bench {
	struct shed *shed;
	struct gate *gate;
	int sockets[2];
};

static struct ipaddr address(const char *text)
{
	struct ipaddr addr;

	assert_int_equal(ipaddr_parse(text, &addr), 0);
	return addr;
}

static struct gate *open_gate(const struct shed *shed)
{
	struct gate_listener listeners[] = {
		{address(VIP4), htons(HTTP), PROTO_TCP},
		{address(VIP4), htons(HTTPS), PROTO_TCP},
		{address(VIP6), htons(HTTP), PROTO_TCP},
		{address(VIP4), htons(HTTP), PROTO_UDP},
	};
	struct gate_config config = {
		.device = "v0",
		.n_queues = 1,
		.max_frame = 1600,
		.mode = GATE_NATIVE,
		.on_hang = GATE_DROP,
		.hang_ns = 3000000000,
		.max_listeners = 8,
		.max_snat = 1,
		.shed = shed,
	};
	struct ipaddr snat = address(VIP4); /* at once: its SYNs take the listener's way */
	char err[256] = "";
	struct gate *gate = gate_open(&config, err, sizeof(err));

	if (!gate)
		fail_msg("%s", err);
	assert_int_equal(gate_set_listeners(gate, listeners, 4), 0);
	assert_int_equal(gate_set_snat(gate, &snat, 1), 0);
	gate_set_mac(gate, mac);
	*(volatile uint64_t *)gate_heartbeat(gate, 0) = monotonic_ns();
	return gate;
}

static struct bench bench_open(void)
{
	struct shed_config config = {.max_clients = CLIENTS, .max_shares = 2, .n_service_slots = SERVICES};
	char err[256] = "";
	struct bench bench = {.shed = shed_open(&config, err, sizeof(err))};

	if (!bench.shed)
		fail_msg("%s", err);
	bench.gate = open_gate(bench.shed);
	for (int class = GATE_KNOWN; class <= GATE_NEW; class ++) {
		bench.sockets[class] = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
		assert_true(bench.sockets[class] >= 0);
		assert_int_equal(gate_set_socket(bench.gate, 0, class, bench.sockets[class]), 0);
	}
	return bench;
}

static void bench_close(struct bench *bench)
{
	close(bench->sockets[0]);
	close(bench->sockets[1]);
	gate_close(bench->gate);
	shed_close(bench->shed);
}

static void read_exits(const struct gate *gate, uint64_t out[SPW_EXIT_COUNT])
{
	struct gate_counter counters[GATE_MAX_COUNTERS];

	assert_int_equal(gate_counters(gate, counters, GATE_MAX_COUNTERS), SPW_EXIT_COUNT);
	for (int exit = 0; exit < SPW_EXIT_COUNT; exit++)
		out[exit] = counters[exit].packets;
}

static uint32_t run_frame(struct gate *gate, const struct frame *frame, int repeat)
{
	struct xdp_md ctx = {.data_end = frame->len, .ingress_ifindex = ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame->bytes, .data_size_in = frame->len, .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .repeat = repeat);

	assert_int_equal(bpf_prog_test_run_opts(gate_program_fd(gate), &opts), 0);
	return opts.retval;
}

static struct frame tcp(const char *from, const char *to, uint16_t port, uint8_t flags)
{
	struct frame_spec spec = {
		.src = from,
		.dst = to,
		.proto = IPPROTO_TCP,
		.src_port = 40000,
		.dst_port = port,
		.tcp_flags = flags,
	};
	struct frame frame;

	memcpy(spec.dst_mac, mac, sizeof(mac));
	frame_build(&frame, &spec);
	return frame;
}

/* The one exit that it took; a frame that is shed is dropped, every other one of these reaches a socket. */
static enum spw_exit exit_of(struct gate *gate, const struct frame *frame)
{
	uint64_t before[SPW_EXIT_COUNT], after[SPW_EXIT_COUNT];
	int taken = -1;
	uint32_t action;
	bool shed;

	read_exits(gate, before);
	action = run_frame(gate, frame, 1);
	read_exits(gate, after);
	for (int exit = 0; exit < SPW_EXIT_COUNT; exit++) {
		if (after[exit] == before[exit])
			continue;
		assert_int_equal(after[exit] - before[exit], 1);
		assert_int_equal(taken, -1);
		taken = exit;
	}
	assert_int_not_equal(taken, -1);
	shed = taken >= SPW_EXIT_shed_client && taken <= SPW_EXIT_shed_limit;
	assert_int_equal(action, shed ? XDP_DROP : XDP_REDIRECT);
	return taken;
}

static void expect(struct bench *bench, const char *from, const char *to, uint16_t port, uint8_t flags,
		   enum spw_exit expected)
{
	struct frame frame = tcp(from, to, port, flags);

	assert_int_equal(exit_of(bench->gate, &frame), expected);
}

static void enter(struct bench *bench, uint32_t place, const char *client, const char *vip, enum shed_cap cap,
		  uint64_t until_ns)
{
	struct shed_key key = {address(client), address(vip), htons(HTTP)};

	shed_set(bench->shed, place, cap, 1, until_ns);
	assert_int_equal(shed_tie(bench->shed, &key, place), 0);
}

/* A client of a listener, and nothing else of it or of others. */
static void a_client_is_shed(void **state)
{
	struct bench bench = bench_open();
	uint64_t now_ns = monotonic_ns(), until_ns = now_ns + LATER_NS;
	struct frame udp;
	struct frame_spec spec = {.src = CLIENT4, .dst = VIP4, .proto = IPPROTO_UDP, .dst_port = HTTP, .payload = "a"};

	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	enter(&bench, 0, CLIENT4, VIP4, SHED_CLIENT, until_ns);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new); /* it is told yet that there is one */
	shed_set_ends(bench.shed, until_ns, 0);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_shed_client);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN | 0xc0, SPW_EXIT_shed_client);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN | ACK, SPW_EXIT_known);
	expect(&bench, CLIENT4, VIP4, HTTP, ACK, SPW_EXIT_known);
	expect(&bench, CLIENT4, VIP4, HTTP, FRAME_TCP_RST, SPW_EXIT_known);
	expect(&bench, CLIENT4, VIP4, HTTPS, SYN, SPW_EXIT_new);
	expect(&bench, OTHER4, VIP4, HTTP, SYN, SPW_EXIT_new);
	expect(&bench, CLIENT6, VIP6, HTTP, SYN, SPW_EXIT_new);
	memcpy(spec.dst_mac, mac, sizeof(mac));
	frame_build(&udp, &spec);
	assert_int_equal(exit_of(bench.gate, &udp), SPW_EXIT_known);
	assert_int_equal(shed_packets(bench.shed, 0), 2);
	assert_int_equal(shed_counts(bench.shed, 1).of_clients, 2);
	assert_int_equal(shed_counts(bench.shed, 1).of_all, 0);
	assert_int_equal(shed_counts(bench.shed, 0).of_clients, 0);
	bench_close(&bench);
}

static void an_ipv6_client_is_its_64(void **state)
{
	struct bench bench = bench_open();
	uint64_t until_ns = monotonic_ns() + LATER_NS;

	enter(&bench, 2, CLIENT6, VIP6, SHED_PREFIX, until_ns);
	shed_set_ends(bench.shed, until_ns, 0);
	expect(&bench, CLIENT6, VIP6, HTTP, SYN, SPW_EXIT_shed_prefix);
	expect(&bench, NEIGHBOUR6, VIP6, HTTP, SYN, SPW_EXIT_shed_prefix);
	expect(&bench, STRANGER6, VIP6, HTTP, SYN, SPW_EXIT_new);
	expect(&bench, CLIENT6, VIP6, HTTP, ACK, SPW_EXIT_known);
	bench_close(&bench);
}

/* What is over is as if it were not there, whether it was taken out or not; a store revives it. */
static void an_entry_ends_by_itself(void **state)
{
	struct bench bench = bench_open();
	struct shed_key key = {address(CLIENT4), address(VIP4), htons(HTTP)};
	uint64_t now_ns = monotonic_ns();

	enter(&bench, 0, CLIENT4, VIP4, SHED_CLIENT, now_ns);
	shed_set_ends(bench.shed, now_ns + LATER_NS, 0);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	shed_set_until(bench.shed, 0, now_ns + LATER_NS);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_shed_client);
	shed_set_ends(bench.shed, now_ns, 0);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	shed_set_ends(bench.shed, now_ns + LATER_NS, 0);
	shed_untie(bench.shed, &key);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	assert_int_equal(shed_packets(bench.shed, 0), 1);
	/* Its place is another's. */
	enter(&bench, 0, OTHER4, VIP4, SHED_CLIENT, now_ns + LATER_NS);
	expect(&bench, OTHER4, VIP4, HTTP, SYN, SPW_EXIT_shed_client);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	bench_close(&bench);
}

/* It evicts nobody: the ones in it stay, and the next one is not shed. */
static void a_full_map_takes_no_more(void **state)
{
	struct bench bench = bench_open();
	uint64_t until_ns = monotonic_ns() + LATER_NS;
	struct shed_key key = {address(CLIENT4), address(VIP4), htons(HTTP)};
	char text[32];

	for (unsigned i = 0; i < CLIENTS; i++) {
		snprintf(text, sizeof(text), "198.18.3.%u", i);
		enter(&bench, i, text, VIP4, SHED_CLIENT, until_ns);
	}
	shed_set_ends(bench.shed, until_ns, 0);
	assert_int_equal(shed_tie(bench.shed, &key, 0), -E2BIG);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	for (unsigned i = 0; i < CLIENTS; i++) {
		snprintf(text, sizeof(text), "198.18.3.%u", i);
		expect(&bench, text, VIP4, HTTP, SYN, SPW_EXIT_shed_client);
	}
	bench_close(&bench);
}

/* A share of all SYNs of one listener, whoever they are from. */
static void a_share_passes(void **state)
{
	enum { N = 40000 };
	struct bench bench = bench_open();
	struct ipaddr vip = address(VIP4);
	uint64_t until_ns = monotonic_ns() + LATER_NS, exits[SPW_EXIT_COUNT];
	struct frame syn = tcp(CLIENT4, VIP4, HTTP, SYN), ack = tcp(CLIENT4, VIP4, HTTP, ACK);

	shed_set_ends(bench.shed, 0, until_ns);
	assert_int_equal(shed_set_share(bench.shed, &vip, htons(HTTP), SHED_LIMIT, 3, UINT32_MAX / 10, until_ns), 0);
	*(volatile uint64_t *)gate_heartbeat(bench.gate, 0) = monotonic_ns();
	run_frame(bench.gate, &syn, N);
	run_frame(bench.gate, &ack, N);
	read_exits(bench.gate, exits);
	assert_int_equal(exits[SPW_EXIT_known], N);
	assert_int_equal(exits[SPW_EXIT_new] + exits[SPW_EXIT_shed_limit], N);
	/* Six standard deviations of a binomial: 60 each. */
	assert_in_range(exits[SPW_EXIT_new], N / 10 - 360, N / 10 + 360);
	assert_int_equal(shed_counts(bench.shed, 3).of_all, exits[SPW_EXIT_shed_limit]);
	assert_int_equal(shed_counts(bench.shed, 3).of_clients, 0);
	/* Another listener has none. */
	expect(&bench, CLIENT4, VIP4, HTTPS, SYN, SPW_EXIT_new);

	assert_int_equal(shed_set_share(bench.shed, &vip, htons(HTTP), SHED_SERVICE, 3, 0, until_ns), 0);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_shed_service);
	assert_int_equal(shed_set_share(bench.shed, &vip, htons(HTTP), SHED_SERVICE, 3, 0, 1), 0);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	assert_int_equal(shed_set_share(bench.shed, &vip, htons(HTTP), SHED_SERVICE, 3, 0, until_ns), 0);
	shed_set_ends(bench.shed, until_ns, 1);
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	shed_set_ends(bench.shed, 0, until_ns);
	shed_del_share(bench.shed, &vip, htons(HTTP));
	expect(&bench, CLIENT4, VIP4, HTTP, SYN, SPW_EXIT_new);
	bench_close(&bench);
}

/* All gates shed the same, and count it together. */
static void gates_share_the_maps(void **state)
{
	struct bench bench = bench_open();
	struct gate *other = open_gate(bench.shed), *alone = open_gate(NULL);
	struct frame syn = tcp(CLIENT4, VIP4, HTTP, SYN);
	uint64_t until_ns = monotonic_ns() + LATER_NS;

	enter(&bench, 1, CLIENT4, VIP4, SHED_CLIENT, until_ns);
	shed_set_ends(bench.shed, until_ns, 0);
	assert_int_equal(exit_of(bench.gate, &syn), SPW_EXIT_shed_client);
	assert_int_equal(exit_of(other, &syn), SPW_EXIT_shed_client);
	assert_int_equal(shed_packets(bench.shed, 1), 2);
	assert_int_equal(shed_counts(bench.shed, 1).of_clients, 2);
	gate_set_socket(alone, 0, GATE_NEW, bench.sockets[GATE_NEW]);
	assert_int_equal(run_frame(alone, &syn, 1), XDP_REDIRECT);
	gate_close(other);
	gate_close(alone);
	bench_close(&bench);
}

#define FLOOD_RUNS   60
#define FLOOD_REPEAT 4000

struct flood {
	struct gate *gate;
	struct frame syn;
};

static void *flood(void *arg)
{
	struct flood *f = arg;

	for (int i = 0; i < FLOOD_RUNS; i++)
		run_frame(f->gate, &f->syn, FLOOD_REPEAT);
	return NULL;
}

/* While ends move and clients come and go: each frame takes one exit, and is counted in each account once. */
static void no_frame_is_lost_between_the_accounts(void **state)
{
	struct bench bench = bench_open();
	struct flood f = {bench.gate, tcp(CLIENT4, VIP4, HTTP, SYN)};
	struct shed_key key = {address(CLIENT4), address(VIP4), htons(HTTP)};
	uint64_t exits[SPW_EXIT_COUNT], entries = 0;
	unsigned n = 0;
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, flood, &f), 0);
	shed_set_ends(bench.shed, UINT64_MAX, 0);
	/* One place after the other, as control does: a place rests before it is another's. */
	for (int i = 0; i < 400; i++) {
		uint32_t place = n++ % CLIENTS;

		*(volatile uint64_t *)gate_heartbeat(bench.gate, 0) = monotonic_ns();
		shed_set(bench.shed, place, SHED_CLIENT, 2, monotonic_ns() + 200000);
		assert_int_equal(shed_tie(bench.shed, &key, place), 0);
		usleep(100);
		shed_set_until(bench.shed, place, monotonic_ns() + 200000);
		usleep(400);
		shed_untie(bench.shed, &key);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t place = 0; place < CLIENTS; place++)
		entries += shed_packets(bench.shed, place);
	read_exits(bench.gate, exits);
	assert_int_equal(exits[SPW_EXIT_new] + exits[SPW_EXIT_shed_client] + exits[SPW_EXIT_drop_hung],
			 2 * FLOOD_RUNS * FLOOD_REPEAT);
	assert_int_equal(exits[SPW_EXIT_drop_hung], 0);
	assert_true(exits[SPW_EXIT_new] > 0 && exits[SPW_EXIT_shed_client] > 0);
	assert_int_equal(entries, exits[SPW_EXIT_shed_client]);
	assert_int_equal(shed_counts(bench.shed, 2).of_clients, exits[SPW_EXIT_shed_client]);
	bench_close(&bench);
}

/* For information: the machine decides. */
static void the_cost_is_printed(void **state)
{
	enum { REPEAT = 300000 };
	struct bench bench = bench_open();
	struct frame syn = tcp(CLIENT4, VIP4, HTTP, SYN), other = tcp(OTHER4, VIP4, HTTP, SYN);
	uint64_t until_ns = monotonic_ns() + LATER_NS, begin_ns;
	const struct {
		const char *name;
		const struct frame *frame;
		bool shedding;
	} runs[] = {{"nothing is shed", &syn, false}, {"another client", &other, true}, {"discarded", &syn, true}};

	enter(&bench, 0, CLIENT4, VIP4, SHED_CLIENT, until_ns);
	for (size_t i = 0; i < 3; i++) {
		shed_set_ends(bench.shed, runs[i].shedding ? until_ns : 0, 0);
		*(volatile uint64_t *)gate_heartbeat(bench.gate, 0) = monotonic_ns();
		begin_ns = monotonic_ns();
		run_frame(bench.gate, runs[i].frame, REPEAT);
		print_message("SYN, %-16s %3u ns\n", runs[i].name, (unsigned)((monotonic_ns() - begin_ns) / REPEAT));
	}
	bench_close(&bench);
}

static int enter_namespace(void **state)
{
	if (netlab_enter() || netlab_run("ip link add v0 type veth peer name v1"))
		return -1;
	ifindex = if_nametoindex("v0");
	return ifindex ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_client_is_shed),
		cmocka_unit_test(an_ipv6_client_is_its_64),
		cmocka_unit_test(an_entry_ends_by_itself),
		cmocka_unit_test(a_full_map_takes_no_more),
		cmocka_unit_test(a_share_passes),
		cmocka_unit_test(gates_share_the_maps),
		cmocka_unit_test(no_frame_is_lost_between_the_accounts),
		cmocka_unit_test(the_cost_is_printed),
	};

	return cmocka_run_group_tests_name("shed", tests, enter_namespace, NULL);
}
