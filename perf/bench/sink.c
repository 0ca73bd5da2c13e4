// SPDX-License-Identifier: BSD-3-Clause
/*
 * Where packets of the veth bench end: drops all that a device receives. Prints "ready", "begin" after the warm-up, and
 * at the end how many packets a second there were in between.
 */
#include "flood.h"
#include "flood.skel.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CPUS_MAX 1024

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void sleep_seconds(double seconds)
{
	struct timespec left = {.tv_sec = seconds};

	left.tv_nsec = (seconds - left.tv_sec) * 1e9;
	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

static uint64_t counted(const struct flood_bpf *bpf)
{
	static uint64_t per_cpu[CPUS_MAX];
	uint32_t zero = 0;
	uint64_t sum = 0;

	memset(per_cpu, 0, sizeof(per_cpu));
	if (bpf_map_lookup_elem(bpf_map__fd(bpf->maps.counted), &zero, per_cpu))
		return 0;
	for (unsigned i = 0; i < CPUS_MAX; i++)
		sum += per_cpu[i];
	return sum;
}

static void say(const char *line)
{
	puts(line);
	fflush(stdout);
}

static void measure(const struct flood_bpf *bpf, double warm_up, double seconds)
{
	uint64_t begin, begin_ns;

	say("ready");
	sleep_seconds(warm_up);
	say("begin");
	begin_ns = monotonic_ns();
	begin = counted(bpf);
	sleep_seconds(seconds);
	printf("%.0f\n", (counted(bpf) - begin) / ((monotonic_ns() - begin_ns) * 1e-9));
}

int main(int argc, char **argv)
{
	struct flood_bpf *bpf = NULL;
	unsigned ifindex = argc == 4 ? if_nametoindex(argv[1]) : 0;
	int link_fd = -1;

	if (!ifindex) {
		fprintf(stderr, "usage: sink DEVICE WARM_UP_SECONDS SECONDS\n");
		return 2;
	}
	bpf = flood_bpf__open_and_load();
	if (bpf)
		link_fd = bpf_link_create(bpf_program__fd(bpf->progs.count), ifindex, BPF_XDP, NULL);
	if (link_fd >= 0)
		measure(bpf, atof(argv[2]), atof(argv[3]));
	else
		fprintf(stderr, "sink: %s: %s\n", argv[1], strerror(errno));
	flood_bpf__destroy(bpf);
	if (link_fd < 0)
		return 1;
	close(link_fd);
	return 0;
}
