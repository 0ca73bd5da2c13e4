/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A long way: packets that are routed into a TUN device come back out of it, unchanged and in order, `--us` later.
 * A line on stdout says that the device is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define N_PACKETS 8192 /* under way at a time */
#define MTU_MAX   1600

struct under_way {
	uint64_t due_ns;
	ssize_t len;
	uint8_t bytes[MTU_MAX];
};

static struct under_way packets[N_PACKETS];

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int open_tun(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request)) {
		fprintf(stderr, "delay: %s: %s\n", name, strerror(errno));
		exit(1);
	}
	return fd;
}

static void carry(int fd, uint64_t delay_ns)
{
	unsigned first = 0, next = 0;

	for (;;) {
		struct pollfd in = {.fd = fd, .events = next - first < N_PACKETS ? POLLIN : 0};
		struct under_way *p = &packets[first % N_PACKETS];
		uint64_t now = now_ns(), wait_ns = p->due_ns > now ? p->due_ns - now : 0;
		struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
					.tv_nsec = (long)(wait_ns % 1000000000)};

		ppoll(&in, 1, first == next ? NULL : &wait, NULL);
		now = now_ns();
		for (; first != next && packets[first % N_PACKETS].due_ns <= now; first++)
			if (write(fd, packets[first % N_PACKETS].bytes, (size_t)packets[first % N_PACKETS].len) < 0)
				perror("delay: write");
		while (next - first < N_PACKETS) {
			p = &packets[next % N_PACKETS];
			p->len = read(fd, p->bytes, MTU_MAX);
			if (p->len <= 0)
				break;
			p->due_ns = now_ns() + delay_ns;
			next++;
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"device", 1, NULL, 'd'}, {"us", 1, NULL, 'u'}, {NULL, 0, NULL, 0}};
	const char *name = NULL;
	unsigned long us = 0;
	int c, fd;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'd')
			name = optarg;
		else if (c == 'u')
			us = strtoul(optarg, NULL, 10);
		else
			name = NULL, optind = argc;
	}
	if (!name || us < 1 || us > 10000000) {
		fputs("usage: delay --device NAME --us MICROSECONDS\n", stderr);
		return 2;
	}
	fd = open_tun(name);
	puts("ready");
	fflush(stdout);
	carry(fd, us * 1000);
}
