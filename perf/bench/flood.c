// SPDX-License-Identifier: BSD-3-Clause
/*
 * Sends made packets out of a device at millions a second: 60-byte UDP of a number of flows, or SYNs of many sources.
 * The device must be an end of a veth whose other end has XDP attached (or GRO on): elsewhere the frames are dropped
 * there, silently. Bounded in time, and in rate if asked.
 */
#include "flood.h"
#include "flood.skel.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <net/if.h>
#include <netinet/ether.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#define SECONDS_MAX 60
#define BATCH       64
#define SOURCES_MAX (1 << 20)
#define SOURCES     65536

struct options {
	struct flood_plan plan;
	struct ether_addr source_mac, destination_mac;
	const char *source, *destination;
	unsigned port;
	double seconds;
};

static size_t frame_len(const struct options *o)
{
	return o->plan.mode == FLOOD_SYN6 ? FLOOD_FRAME6_LEN : FLOOD_FRAME_LEN;
}

static uint32_t sum_of(const void *bytes, size_t len)
{
	const uint8_t *b = bytes;
	uint32_t sum = 0;
	uint16_t word;

	for (size_t i = 0; i + 1 < len; i += 2) {
		memcpy(&word, &b[i], sizeof(word));
		sum += word;
	}
	return sum;
}

static size_t fill_l4(uint8_t *l4, const struct options *o)
{
	if (o->plan.mode == FLOOD_UDP) {
		struct udphdr udp = {.dest = htons(o->port)};
		size_t len = FLOOD_FRAME_LEN - sizeof(struct ethhdr) - sizeof(struct iphdr);

		udp.len = htons(len);
		memcpy(l4, &udp, sizeof(udp));
		return len;
	}
	struct tcphdr tcp = {.dest = htons(o->port), .doff = sizeof(tcp) / 4, .syn = 1, .window = htons(64240)};

	memcpy(l4, &tcp, sizeof(tcp));
	return sizeof(tcp);
}

/* Where the word of the source that counts is a zero: that comes later, as its sum does. False: no addresses. */
static bool fill_v4(struct options *o)
{
	struct flood_plan *plan = &o->plan;
	struct iphdr ip = {
		.version = 4, .ihl = 5, .ttl = 64, .protocol = plan->mode == FLOOD_UDP ? IPPROTO_UDP : IPPROTO_TCP};
	uint8_t *l4 = plan->frame + sizeof(struct ethhdr) + sizeof(ip);
	size_t len = fill_l4(l4, o);
	struct in_addr source, destination;

	if (inet_pton(AF_INET, o->source, &source) != 1 || inet_pton(AF_INET, o->destination, &destination) != 1)
		return false;
	plan->source = ntohl(source.s_addr);
	ip.daddr = destination.s_addr;
	ip.tot_len = htons(sizeof(ip) + len);
	memcpy(l4 - sizeof(ip), &ip, sizeof(ip));
	plan->ip_sum = sum_of(&ip, sizeof(ip));
	plan->l4_sum = sum_of(l4, len) + sum_of(&ip.daddr, 4) + htons(ip.protocol) + htons(len);
	return true;
}

static bool fill_v6(struct options *o)
{
	struct flood_plan *plan = &o->plan;
	struct ipv6hdr ip = {.version = 6, .hop_limit = 64, .nexthdr = IPPROTO_TCP};
	uint8_t *l4 = plan->frame + sizeof(struct ethhdr) + sizeof(ip);
	size_t len = fill_l4(l4, o);
	uint32_t source[4];

	if (inet_pton(AF_INET6, o->source, source) != 1 || inet_pton(AF_INET6, o->destination, &ip.daddr) != 1)
		return false;
	plan->source = ntohl(source[FLOOD_WORD6]);
	source[FLOOD_WORD6] = 0;
	memcpy(&ip.saddr, source, sizeof(source));
	ip.payload_len = htons(len);
	memcpy(l4 - sizeof(ip), &ip, sizeof(ip));
	plan->l4_sum = sum_of(l4, len) + sum_of(source, sizeof(source)) + sum_of(&ip.daddr, sizeof(ip.daddr)) +
		       htons(ip.nexthdr) + htons(len);
	return true;
}

static bool make_template(struct options *o)
{
	bool v6 = o->plan.mode == FLOOD_SYN6;
	struct ethhdr eth = {.h_proto = htons(v6 ? ETH_P_IPV6 : ETH_P_IP)};

	memcpy(eth.h_dest, &o->destination_mac, ETH_ALEN);
	memcpy(eth.h_source, &o->source_mac, ETH_ALEN);
	memcpy(o->plan.frame, &eth, sizeof(eth));
	return v6 ? fill_v6(o) : fill_v4(o);
}

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void on_alarm(int signal)
{
}

/*
 * One run for the whole time, ended by a signal: starting and ending a run takes the kernel tens of milliseconds, and
 * the receiver would see bursts.
 */
static int send_all(int prog_fd, const struct options *o)
{
	struct itimerval end = {.it_value = {.tv_sec = o->seconds}};
	struct sigaction action = {.sa_handler = on_alarm};
	struct xdp_md ctx = {.data_end = frame_len(o)};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = o->plan.frame, .data_size_in = frame_len(o), .ctx_in = &ctx,
		    .ctx_size_in = sizeof(ctx), .repeat = INT_MAX, .batch_size = BATCH,
		    .flags = BPF_F_TEST_XDP_LIVE_FRAMES);
	int rc;

	end.it_value.tv_usec = (o->seconds - end.it_value.tv_sec) * 1e6;
	if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &end, NULL))
		return -errno;
	rc = bpf_prog_test_run_opts(prog_fd, &opts);
	return rc == -EINTR ? 0 : rc;
}

static int flood(const struct options *o)
{
	struct flood_bpf *bpf = flood_bpf__open();
	uint64_t begin_ns;
	double seconds;
	int rc;

	if (!bpf)
		return -errno;
	bpf->bss->plan = o->plan;
	rc = flood_bpf__load(bpf);
	begin_ns = monotonic_ns();
	if (!rc)
		rc = send_all(bpf_program__fd(bpf->progs.flood), o);
	seconds = (monotonic_ns() - begin_ns) * 1e-9;
	if (!rc)
		printf("%llu frames in %.2f s, %.0f a second\n", (unsigned long long)bpf->bss->n_made, seconds,
		       bpf->bss->n_made / seconds);
	flood_bpf__destroy(bpf);
	return rc;
}

static const char usage_text[] =
	"usage: flood --device DEVICE --from MAC --to MAC --source ADDRESS --destination ADDRESS --port PORT\n"
	"             [--mode udp|syn|syn6] [--flows N] [--sources N] [--first N] [--rate PACKETS_PER_SECOND] [--seconds S]\n";

static bool take_mode(__u32 *mode, const char *name)
{
	static const char *const names[] = {[FLOOD_UDP] = "udp", [FLOOD_SYN] = "syn", [FLOOD_SYN6] = "syn6"};

	for (*mode = 0; *mode < sizeof(names) / sizeof(names[0]); ++*mode)
		if (strcmp(name, names[*mode]) == 0)
			return true;
	return false;
}

static bool take_option(struct options *o, int option)
{
	switch (option) {
	case 'd':
		o->plan.ifindex = if_nametoindex(optarg);
		return o->plan.ifindex;
	case 'f':
		return ether_aton_r(optarg, &o->source_mac);
	case 't':
		return ether_aton_r(optarg, &o->destination_mac);
	case 's':
		o->source = optarg;
		return true;
	case 'e':
		o->destination = optarg;
		return true;
	case 'p':
		o->port = atoi(optarg);
		return o->port > 0 && o->port < 65536;
	case 'm':
		return take_mode(&o->plan.mode, optarg);
	case 'n':
		o->plan.n_flows = strtoul(optarg, NULL, 10);
		return o->plan.n_flows;
	case 'o':
		o->plan.n_sources = strtoul(optarg, NULL, 10);
		return o->plan.n_sources > 0 && o->plan.n_sources <= SOURCES_MAX;
	case 'i':
		o->plan.first = strtoul(optarg, NULL, 10);
		return true;
	case 'r':
		if (strtoul(optarg, NULL, 10))
			o->plan.interval_ns = 1000000000 / strtoul(optarg, NULL, 10);
		return o->plan.interval_ns;
	case 'S':
		o->seconds = atof(optarg);
		return o->seconds > 0 && o->seconds <= SECONDS_MAX;
	default:
		return false;
	}
}

static const struct option long_options[] = {
	{"device", required_argument, NULL, 'd'},
	{"from", required_argument, NULL, 'f'},
	{"to", required_argument, NULL, 't'},
	{"source", required_argument, NULL, 's'},
	{"destination", required_argument, NULL, 'e'},
	{"port", required_argument, NULL, 'p'},
	{"mode", required_argument, NULL, 'm'},
	{"flows", required_argument, NULL, 'n'},
	{"sources", required_argument, NULL, 'o'},
	{"first", required_argument, NULL, 'i'},
	{"rate", required_argument, NULL, 'r'},
	{"seconds", required_argument, NULL, 'S'},
	{0},
};

int main(int argc, char **argv)
{
	struct options o = {.plan = {.mode = FLOOD_UDP, .n_flows = 1000, .n_sources = SOURCES}, .seconds = 5};
	int option, rc;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		if (!take_option(&o, option)) {
			fprintf(stderr, "flood: bad value of %s\n%s", argv[optind - 1], usage_text);
			return 2;
		}
	if (!o.plan.ifindex || !o.source || !o.destination || !o.port || optind != argc || !make_template(&o)) {
		fputs(usage_text, stderr);
		return 2;
	}
	rc = flood(&o);
	if (rc)
		fprintf(stderr, "flood: %s\n", strerror(-rc));
	return rc ? 1 : 0;
}
