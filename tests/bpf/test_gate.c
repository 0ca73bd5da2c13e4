// SPDX-License-Identifier: BSD-3-Clause
/* The gate on a real device: what it refuses, what reaches its sockets, and what the kernel still answers. */
#include "gate.h"
#include "netlab.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cap-ng.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xdp/xsk.h>

#include <cmocka.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define HTTP          80
#define DNS           53
#define SSH           22

#define TCP4(to, port, flags)                                                                                          \
	{                                                                                                              \
		.src = CLIENT4, .dst = to, .proto = IPPROTO_TCP, .src_port = 40000, .dst_port = port,                  \
		.tcp_flags = flags                                                                                     \
	}
#define UDP6(to, port)                                                                                                 \
	{                                                                                                              \
		.src = CLIENT6, .dst = to, .proto = IPPROTO_UDP, .src_port = 40000, .dst_port = port                   \
	}

static const struct frame_spec syn_to_vip = TCP4(VIP4, HTTP, FRAME_TCP_SYN);
static const struct frame_spec ack_to_vip = TCP4(VIP4, HTTP, FRAME_TCP_ACK);
static const struct frame_spec udp_to_vip = UDP6(VIP6, DNS);
static const struct frame_spec syn_to_ssh = TCP4(VIP4, SSH, FRAME_TCP_SYN);
static const struct frame_spec syn_to_host = TCP4(HOST4, HTTP, FRAME_TCP_SYN);
static const struct frame_spec ack_to_snat = TCP4(SNAT4, 1024, FRAME_TCP_ACK);
static const struct frame_spec syn_ack_to_snat = TCP4(SNAT4, 1024, FRAME_TCP_SYN | FRAME_TCP_ACK);

static int raw_fd;

static struct gate_config config_of(const char *device)
{
	return (struct gate_config){
		.device = device,
		.n_queues = 1,
		.max_frame = 1600,
		.mode = GATE_NATIVE,
		.on_hang = GATE_DROP,
		.hang_ns = 3000000000,
		.max_listeners = 16,
		.max_snat = 4,
	};
}

/* NULL with a sentence in `err`. Asserts nothing: children call it too. */
static struct gate *try_open_gate(const struct gate_config *config, char *err, size_t err_len)
{
	struct gate_listener listeners[] = {
		{ipaddr_v4(inet_addr(VIP4)), htons(HTTP), PROTO_TCP},
		{.port_be = htons(DNS), .proto = PROTO_UDP},
	};
	struct ipaddr snat = ipaddr_v4(inet_addr(SNAT4));
	struct gate *gate = gate_open(config, err, err_len);

	if (!gate)
		return NULL;
	gate_set_mac(gate, netlab_mac);
	if (!ipaddr_parse(VIP6, &listeners[1].addr) && !gate_set_listeners(gate, listeners, ARRAY_SIZE(listeners)) &&
	    !gate_set_snat(gate, &snat, 1))
		return gate;
	snprintf(err, err_len, "the sets were not taken");
	gate_close(gate);
	return NULL;
}

static struct gate *open_gate(const struct gate_config *config)
{
	char err[256] = "";
	struct gate *gate = try_open_gate(config, err, sizeof(err));

	if (!gate)
		fail_msg("%s", err);
	return gate;
}

static void attach(struct gate *gate)
{
	char err[256] = "";

	if (gate_attach(gate, err, sizeof(err)))
		fail_msg("%s", err);
}

static void beat(struct gate *gate)
{
	*(volatile uint64_t *)gate_heartbeat(gate, 0) = monotonic_ns();
}

static int answers(const struct frame_spec *spec)
{
	struct frame frame;

	netlab_frame(&frame, spec);
	return netlab_answers(raw_fd, &frame);
}

/* Refused with this errno; the sentence's quoted command, when it is run, mends it. */
static void expect_refusal(const struct gate_config *config, int rc, bool mend)
{
	char err[256] = "", command[256];

	assert_int_equal(gate_check_device(config, err, sizeof(err)), rc);
	assert_non_null(strstr(err, config->device));
	assert_int_equal(sscanf(err, "%*[^\"]\"%255[^\"]\"", command), 1);
	print_message("%s\n", err);
	if (!mend)
		return;
	assert_int_equal(netlab_run("%s", command), 0);
	if (gate_check_device(config, err, sizeof(err)))
		fail_msg("not mended: %s", err);
}

static void a_missing_device_is_refused(void **state)
{
	struct gate_config config = config_of("nosuch0");
	char err[256] = "";
	struct gate *gate;

	expect_refusal(&config, -ENODEV, false);
	assert_int_equal(gate_device_queues("nosuch0"), -ENODEV);
	gate = gate_open(&config, err, sizeof(err));
	assert_non_null(gate);
	assert_int_equal(gate_attach(gate, err, sizeof(err)), -ENODEV);
	gate_close(gate);
}

static void too_large_an_mtu_is_refused(void **state)
{
	struct gate_config config = config_of("g0");

	config.max_frame = 1500 + 14 + 4;
	assert_int_equal(gate_check_device(&config, NULL, 0), 0);
	config.max_frame--;
	expect_refusal(&config, -EMSGSIZE, true);
	assert_int_equal(netlab_run("ip link set dev g0 mtu 1500"), 0);
}

static void queues_that_nobody_serves_are_refused(void **state)
{
	struct gate_config config = config_of("q0");

	assert_int_equal(netlab_run("ip link add q0 numrxqueues 3 numtxqueues 3 type veth peer name q1"), 0);
	assert_int_equal(netlab_run("ethtool -L q0 rx 3"), 0);
	assert_int_equal(gate_device_queues("q0"), 3);
	assert_int_equal(gate_device_queues("g0"), 1);
	assert_int_equal(gate_device_queues("lo"), 1);
	config.n_queues = 2;
	expect_refusal(&config, -E2BIG, true);
	assert_int_equal(gate_device_queues("q0"), 2);
	config.n_queues = 3;
	expect_refusal(&config, -EINVAL, true);
	assert_int_equal(netlab_run("ip link del q0"), 0);
}

static void a_foreign_program_is_refused(void **state)
{
	static const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	struct gate_config config = config_of("g0");
	int ifindex = if_nametoindex("g0");
	int prog_fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "foreign", "GPL", pass, ARRAY_SIZE(pass), NULL);
	struct gate *gate = open_gate(&config);
	char err[256] = "";
	int link_fd;

	assert_true(prog_fd >= 0);
	assert_int_equal(bpf_xdp_attach(ifindex, prog_fd, 0, NULL), 0);
	assert_int_equal(gate_attach(gate, err, sizeof(err)), -EBUSY);
	expect_refusal(&config, -EBUSY, true);
	link_fd = bpf_link_create(prog_fd, ifindex, BPF_XDP, &opts);
	assert_true(link_fd >= 0);
	assert_int_equal(gate_attach(gate, err, sizeof(err)), -EBUSY);
	expect_refusal(&config, -EBUSY, true);
	close(link_fd);
	close(prog_fd);
	gate_close(gate);
}

static void a_driver_without_xdp_is_named(void **state)
{
	struct gate_config config = config_of("lo");
	struct gate *gate = open_gate(&config);
	char err[256] = "";

	assert_int_equal(gate_attach(gate, err, sizeof(err)), -EOPNOTSUPP);
	assert_non_null(strstr(err, "skb"));
	gate_close(gate);
}

/* Runs in a child that has no other capabilities; returns its exit status. */
static int with_capabilities(const int *caps, size_t n, int (*run)(const char *arg), const char *arg)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		capng_clear(CAPNG_SELECT_CAPS);
		for (size_t i = 0; i < n; i++)
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, caps[i]);
		_exit(capng_apply(CAPNG_SELECT_CAPS) ? 100 : run(arg));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 200;
}

static int refuses_for_lack_of(const char *capability)
{
	struct gate_config config = config_of("g0");
	char err[256] = "";
	int rc = gate_check_device(&config, err, sizeof(err));

	fprintf(stderr, "%s\n", err);
	return rc == -EPERM && strstr(err, capability) == err ? 0 : 1;
}

static int opens_and_attaches(const char *unused)
{
	struct gate_config config = config_of("g0");
	char err[256] = "";
	struct gate *gate;
	int rc = gate_check_device(&config, err, sizeof(err));

	gate = rc ? NULL : gate_open(&config, err, sizeof(err));
	rc = !gate || gate_attach(gate, err, sizeof(err));
	gate_close(gate);
	if (rc)
		fprintf(stderr, "%s\n", err);
	return rc;
}

static void rights_are_checked(void **state)
{
	static const int needed[] = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON};
	static const char *const names[] = {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"};
	static const int without_bpf[] = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN};

	for (size_t missing = 0; missing < ARRAY_SIZE(needed); missing++) {
		int caps[ARRAY_SIZE(needed)];
		size_t n = 0;

		for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
			if (i != missing)
				caps[n++] = needed[i];
		assert_int_equal(with_capabilities(caps, n, refuses_for_lack_of, names[missing]), 0);
	}
	assert_int_equal(with_capabilities(needed, ARRAY_SIZE(needed), opens_and_attaches, NULL), 0);
	assert_int_equal(with_capabilities(without_bpf, ARRAY_SIZE(without_bpf), opens_and_attaches, NULL), 0);
}

/* Two sockets on queue 0 of g0 that share one memory, as the gateway has them. */
#define N_FRAMES 64

struct sockets {
	void *memory;
	struct xsk_umem *umem;
	struct xsk_ring_prod fill, tx[2];
	struct xsk_ring_cons completion, rx[2];
	struct xsk_socket *xsk[2];
};

static void sockets_open(struct sockets *s)
{
	const size_t len = N_FRAMES * XSK_UMEM__DEFAULT_FRAME_SIZE;
	const struct xsk_socket_config config = {
		.rx_size = N_FRAMES,
		.tx_size = N_FRAMES,
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = XDP_COPY,
	};
	const struct xsk_umem_config umem_config = {
		.fill_size = N_FRAMES, .comp_size = N_FRAMES, .frame_size = XSK_UMEM__DEFAULT_FRAME_SIZE};
	uint32_t at = 0;

	*s = (struct sockets){0};
	s->memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(s->memory, MAP_FAILED);
	assert_int_equal(xsk_umem__create(&s->umem, s->memory, len, &s->fill, &s->completion, &umem_config), 0);
	for (int class = 0; class < 2; class ++)
		assert_int_equal(
			xsk_socket__create(&s->xsk[class], "g0", 0, s->umem, &s->rx[class], &s->tx[class], &config), 0);
	assert_int_equal(xsk_ring_prod__reserve(&s->fill, N_FRAMES, &at), N_FRAMES);
	for (uint32_t i = 0; i < N_FRAMES; i++)
		*xsk_ring_prod__fill_addr(&s->fill, at + i) = i * XSK_UMEM__DEFAULT_FRAME_SIZE;
	xsk_ring_prod__submit(&s->fill, N_FRAMES);
}

static void sockets_close(struct sockets *s)
{
	for (int class = 0; class < 2; class ++)
		xsk_socket__delete(s->xsk[class]);
	xsk_umem__delete(s->umem);
	munmap(s->memory, N_FRAMES * XSK_UMEM__DEFAULT_FRAME_SIZE);
}

/* The next frame of a socket is this one, whole; and it is the only one on either socket. */
static void expect_frame(struct sockets *s, enum gate_class class, const struct frame *frame)
{
	enum { PATIENCE_MS = 3000 };
	struct pollfd event = {.fd = xsk_socket__fd(s->xsk[class]), .events = POLLIN};
	const struct xdp_desc *desc;
	uint32_t at = 0;

	assert_int_equal(poll(&event, 1, PATIENCE_MS), 1);
	assert_int_equal(xsk_ring_cons__peek(&s->rx[class], N_FRAMES, &at), 1);
	desc = xsk_ring_cons__rx_desc(&s->rx[class], at);
	assert_int_equal(desc->len, frame->len);
	assert_memory_equal(xsk_umem__get_data(s->memory, desc->addr), frame->bytes, frame->len);
	xsk_ring_cons__release(&s->rx[class], 1);
	assert_int_equal(xsk_ring_cons__peek(&s->rx[!class], N_FRAMES, &at), 0);
}

static void frames_reach_their_sockets(enum gate_mode mode)
{
	static const struct {
		const struct frame_spec *spec;
		enum gate_class class;
	} ours[] = {
		{&syn_to_vip, GATE_NEW},    {&ack_to_vip, GATE_KNOWN},    {&udp_to_vip, GATE_KNOWN},
		{&ack_to_snat, GATE_KNOWN}, {&syn_ack_to_snat, GATE_NEW},
	};
	struct gate_config config = config_of("g0");
	struct sockets sockets;
	struct gate *gate;

	config.mode = mode;
	gate = open_gate(&config);
	sockets_open(&sockets);
	for (int class = 0; class < 2; class ++)
		assert_int_equal(gate_set_socket(gate, 0, class, xsk_socket__fd(sockets.xsk[class])), 0);
	assert_int_equal(answers(&syn_to_vip), 1);
	attach(gate);
	beat(gate);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++) {
		struct frame frame;

		netlab_frame(&frame, ours[i].spec);
		assert_int_equal(netlab_answers(raw_fd, &frame), 0);
		expect_frame(&sockets, ours[i].class, &frame);
	}
	assert_int_equal(answers(&syn_to_ssh), 1);
	assert_int_equal(answers(&syn_to_host), 1);
	gate_detach(gate);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		assert_int_equal(answers(ours[i].spec), 1);
	gate_close(gate);
	sockets_close(&sockets);
}

static void frames_reach_their_sockets_natively(void **state)
{
	frames_reach_their_sockets(GATE_NATIVE);
}

static void frames_reach_their_sockets_generically(void **state)
{
	frames_reach_their_sockets(GATE_SKB);
}

/* A hung gateway's listeners do as they were told; SNAT addresses are silent. */
static void a_hung_gateway_lets_the_kernel_have_what_it_may(void **state)
{
	struct gate_config config = config_of("g0");

	for (config.on_hang = GATE_DROP; config.on_hang <= GATE_PASS; config.on_hang++) {
		struct gate *gate = open_gate(&config);

		attach(gate);
		assert_int_equal(answers(&syn_to_vip), config.on_hang == GATE_PASS);
		assert_int_equal(answers(&udp_to_vip), config.on_hang == GATE_PASS);
		assert_int_equal(answers(&ack_to_snat), 0);
		assert_int_equal(answers(&syn_to_host), 1);
		gate_close(gate);
	}
	assert_int_equal(answers(&ack_to_snat), 1);
}

/* Never returns; ends with its parent at the latest. */
static void be_a_gateway(int ready_fd)
{
	struct gate_config config = config_of("g0");
	char err[256] = "";
	struct gate *gate;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	gate = try_open_gate(&config, err, sizeof(err));
	if (!gate || gate_attach(gate, err, sizeof(err)) || write(ready_fd, "", 1) != 1) {
		fprintf(stderr, "%s\n", err);
		_exit(1);
	}
	for (;;)
		pause();
}

static pid_t start_gateway(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		be_a_gateway(ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return pid;
}

static void a_killed_gateway_leaves_nothing(void **state)
{
	enum { ROUNDS = 5 };
	struct gate_config config = config_of("g0");
	char err[256] = "";

	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid = start_gateway();
		int while_alive = gate_check_device(&config, err, sizeof(err));
		int answered = answers(&syn_to_vip);

		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_int_equal(while_alive, -EBUSY);
		assert_int_equal(answered, 0);
		if (gate_check_device(&config, err, sizeof(err)))
			fail_msg("%s", err);
		assert_int_equal(answers(&syn_to_vip), 1);
	}
}

static void attaching_twice_is_refused(void **state)
{
	struct gate_config config = config_of("g0");
	struct gate *first = open_gate(&config);
	struct gate *second = open_gate(&config);
	char err[256] = "";

	attach(first);
	assert_int_equal(gate_attach(first, err, sizeof(err)), -EALREADY);
	assert_int_equal(gate_attach(second, err, sizeof(err)), -EBUSY);
	gate_detach(first);
	gate_detach(first);
	attach(second);
	gate_close(second);
	attach(first);
	gate_close(first);
	gate_close(NULL);
}

static void a_gate_without_queues_is_refused(void **state)
{
	struct gate_config config = config_of("g0");
	char err[256] = "";

	config.n_queues = 0;
	assert_null(gate_open(&config, err, sizeof(err)));
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(err, "g0"));
}

static int build_lab(void **state)
{
	raw_fd = netlab_build();
	return raw_fd < 0 ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_missing_device_is_refused),
		cmocka_unit_test(too_large_an_mtu_is_refused),
		cmocka_unit_test(queues_that_nobody_serves_are_refused),
		cmocka_unit_test(a_foreign_program_is_refused),
		cmocka_unit_test(a_driver_without_xdp_is_named),
		cmocka_unit_test(rights_are_checked),
		cmocka_unit_test(frames_reach_their_sockets_natively),
		cmocka_unit_test(frames_reach_their_sockets_generically),
		cmocka_unit_test(a_hung_gateway_lets_the_kernel_have_what_it_may),
		cmocka_unit_test(a_killed_gateway_leaves_nothing),
		cmocka_unit_test(attaching_twice_is_refused),
		cmocka_unit_test(a_gate_without_queues_is_refused),
	};

	return cmocka_run_group_tests_name("gate", tests, build_lab, NULL);
}
