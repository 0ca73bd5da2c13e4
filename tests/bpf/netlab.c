// SPDX-License-Identifier: BSD-3-Clause
#include "netlab.h"

#include "ipaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

const uint8_t netlab_mac[6] = {0x02, 0, 0, 0, 0, 0x01};

int netlab_enter(void)
{
	if (unshare(CLONE_NEWNET)) {
		perror("unshare(CLONE_NEWNET): these tests need root");
		return -errno;
	}
	return netlab_run("ip link set lo up") ? -EIO : 0;
}

int netlab_run(const char *format, ...)
{
	char command[512];
	va_list args;
	int rc;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	rc = system(command);
	if (rc)
		fprintf(stderr, "failed: %s\n", command);
	return rc;
}

uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

int netlab_open_raw(const char *device)
{
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = if_nametoindex(device),
	};
	/* Bound before it listens to anything, so that nothing of other devices is queued. */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	int ignore_outgoing = 1;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore_outgoing, sizeof(ignore_outgoing)) ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

int netlab_send(int raw_fd, const struct frame *frame)
{
	return send(raw_fd, frame->bytes, frame->len, 0) == (ssize_t)frame->len ? 0 : -errno;
}

int netlab_receive(int raw_fd, uint8_t *bytes, unsigned size, int timeout_ms)
{
	struct pollfd fd = {.fd = raw_fd, .events = POLLIN};
	int rc = poll(&fd, 1, timeout_ms);

	if (rc <= 0)
		return rc ? -errno : 0;
	rc = recv(raw_fd, bytes, size, 0);
	return rc < 0 ? -errno : rc;
}

static const char *const lab_commands[] = {
	"ip link add g0 address 02:00:00:00:00:01 type veth peer name c0 address 02:00:00:00:00:02",
	"ip link set c0 arp off",
	"sysctl -q -w net.ipv6.conf.c0.disable_ipv6=1 net.ipv6.conf.g0.accept_dad=0 net.ipv6.conf.lo.accept_dad=0",
	/* Answers of the kernel must not be lost to its own limits: they would look like a silence of ours. */
	"sysctl -q -w net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000",
	"sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.ipfrag_time=1",
	"ip link set g0 up",
	"ip link set c0 up",
	"ip addr add " HOST4 "/24 dev g0",
	"ip addr add " HOST6 "/64 dev g0 nodad",
	"ip neigh replace " CLIENT4 " lladdr 02:00:00:00:00:02 dev g0 nud permanent",
	"ip neigh replace " CLIENT6 " lladdr 02:00:00:00:00:02 dev g0 nud permanent",
	"ip addr add " VIP4 "/32 dev lo",
	"ip addr add " SNAT4 "/32 dev lo preferred_lft 0",
	"ip addr add " VIP6 "/128 dev lo nodad",
	"ip addr add " SNAT6 "/128 dev g0 nodad preferred_lft 0",
	/* The kernel takes packets to an IPv6 address in a work of its own, which a busy machine does later. */
	"for n in $(seq 500); do ip -6 route get " SNAT6 " | grep -q ^local && exit 0; sleep 0.01; done; exit 1",
};

static int keep_to_one_cpu(void)
{
	cpu_set_t cpus, one;

	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		return -errno;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &cpus))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		break;
	}
	return sched_setaffinity(0, sizeof(one), &one) ? -errno : 0;
}

int netlab_build(void)
{
	int rc = netlab_enter();

	for (size_t i = 0; !rc && i < sizeof(lab_commands) / sizeof(lab_commands[0]); i++)
		rc = netlab_run("%s", lab_commands[i]) ? -EIO : 0;
	if (!rc)
		rc = keep_to_one_cpu();
	return rc ? rc : netlab_open_raw("c0");
}

void netlab_frame(struct frame *frame, const struct frame_spec *spec)
{
	struct frame_spec addressed = *spec;

	memcpy(addressed.dst_mac, netlab_mac, ETH_ALEN);
	memcpy(addressed.src_mac, "\x02\0\0\0\0\x02", ETH_ALEN);
	frame_build(frame, &addressed);
}

bool netlab_is_for_client(const uint8_t *bytes, unsigned len)
{
	struct ipaddr client4, client6;

	if (ipaddr_parse(CLIENT4, &client4) || ipaddr_parse(CLIENT6, &client6))
		return false;
	if (len >= 34 && bytes[12] == 0x08 && bytes[13] == 0x00)
		return !memcmp(&bytes[30], &client4.b[12], 4);
	return len >= 54 && bytes[12] == 0x86 && bytes[13] == 0xdd && !memcmp(&bytes[38], client6.b, 16);
}

/* The answer to our ping: an echo reply from the host's own address. */
static bool is_ping_answer(const uint8_t *bytes, unsigned len)
{
	struct ipaddr host;

	return !ipaddr_parse(HOST4, &host) && len >= 42 && bytes[12] == 0x08 && bytes[23] == IPPROTO_ICMP &&
	       !memcmp(&bytes[26], &host.b[12], 4) && bytes[34] == 0;
}

int netlab_answers(int raw_fd, const struct frame *frame)
{
	enum { PATIENCE_MS = 3000, ICMP_ECHO_REQUEST = 8 };
	struct frame_spec ping_spec = {
		.src = CLIENT4, .dst = HOST4, .proto = IPPROTO_ICMP, .icmp_type = ICMP_ECHO_REQUEST};
	uint8_t bytes[FRAME_MAX];
	struct frame ping;
	int n_answers = 0;
	int rc;

	netlab_frame(&ping, &ping_spec);
	rc = netlab_send(raw_fd, frame);
	if (!rc)
		rc = netlab_send(raw_fd, &ping);
	if (rc)
		return rc;
	for (;;) {
		rc = netlab_receive(raw_fd, bytes, sizeof(bytes), PATIENCE_MS);
		if (rc <= 0)
			return rc ? rc : -ETIMEDOUT;
		if (is_ping_answer(bytes, rc))
			return n_answers;
		n_answers += netlab_is_for_client(bytes, rc);
	}
}
