/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Watches a wire and checks every packet: IPv4 header, TCP, UDP and ICMP checksums, and counts RSTs. Live (-i) or from
 * a file (-r). A JSON line on stdout when it listens, at each SIGUSR1, and at the end (SIGTERM, SIGINT, end of file).
 * Attach it to an end where offloads are off: a checksum left for the device to fill in counts as bad.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <net/ethernet.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <pcap/pcap.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BAD_KEPT 8
#define BUFFER_BYTES (64 * 1024 * 1024)

struct watch {
	pcap_t *pcap;
	bool live;
	uint64_t packets, bytes, tcp, udp, icmp, fragments;
	uint64_t bad_ip, bad_tcp, bad_udp, bad_icmp, truncated;
	uint64_t syn, rst;
	uint32_t longest; /* bytes, whole frame */
	char bad[MAX_BAD_KEPT][160];
	unsigned n_bad;
};

static volatile sig_atomic_t stop_wanted, snapshot_wanted;

static void on_signal(int signo)
{
	if (signo == SIGUSR1)
		snapshot_wanted = 1;
	else
		stop_wanted = 1;
}

/* RFC 1071: the sum of 16-bit words in wire order, not yet folded. */
static uint64_t sum_words(const uint8_t *p, size_t len, uint64_t sum)
{
	for (; len > 1; p += 2, len -= 2)
		sum += (uint32_t)(p[0] << 8 | p[1]);
	return len ? sum + (uint32_t)(p[0] << 8) : sum;
}

static bool sums_to_zero(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static void keep_bad(struct watch *w, const char *what, int family, const uint8_t *src, const uint8_t *dst, size_t len)
{
	char s[INET6_ADDRSTRLEN], d[INET6_ADDRSTRLEN];

	if (w->n_bad == MAX_BAD_KEPT)
		return;
	inet_ntop(family, src, s, sizeof(s));
	inet_ntop(family, dst, d, sizeof(d));
	snprintf(w->bad[w->n_bad++], sizeof(w->bad[0]), "%s %s > %s, %zu bytes of transport", what, s, d, len);
}

struct segment {
	int family;
	uint8_t proto;
	const uint8_t *src, *dst, *l4;
	size_t len; /* of the transport header and data */
};

static void check_l4(struct watch *w, const struct segment *s)
{
	size_t addr_len = s->family == AF_INET ? 4 : 16;
	uint64_t pseudo = sum_words(s->dst, addr_len, sum_words(s->src, addr_len, s->len + s->proto));
	bool good = sums_to_zero(sum_words(s->l4, s->len, pseudo));

	if (s->proto == IPPROTO_TCP && s->len >= sizeof(struct tcphdr)) {
		w->tcp++;
		w->syn += (s->l4[13] & TH_SYN) && !(s->l4[13] & TH_ACK);
		w->rst += !!(s->l4[13] & TH_RST);
		w->bad_tcp += !good;
	} else if (s->proto == IPPROTO_UDP && s->len >= sizeof(struct udphdr)) {
		bool none = s->family == AF_INET && !s->l4[6] && !s->l4[7];

		w->udp++;
		good = good || none;
		w->bad_udp += !good;
	} else if (s->proto == IPPROTO_ICMP && s->family == AF_INET) {
		w->icmp++;
		good = sums_to_zero(sum_words(s->l4, s->len, 0));
		w->bad_icmp += !good;
	} else if (s->proto == IPPROTO_ICMPV6 && s->family == AF_INET6) {
		w->icmp++;
		w->bad_icmp += !good;
	} else {
		return;
	}
	if (!good)
		keep_bad(w, "transport checksum", s->family, s->src, s->dst, s->len);
}

static void check_v4(struct watch *w, const uint8_t *p, size_t len)
{
	const struct iphdr *ip = (const struct iphdr *)p;
	size_t header, total;

	if (len < sizeof(*ip) || (header = ip->ihl * 4u) < sizeof(*ip) || (total = ntohs(ip->tot_len)) > len ||
	    total < header) {
		w->truncated++;
		return;
	}
	if (!sums_to_zero(sum_words(p, header, 0))) {
		w->bad_ip++;
		keep_bad(w, "header checksum", AF_INET, p + 12, p + 16, total - header);
	}
	if (ntohs(ip->frag_off) & (IP_MF | IP_OFFMASK)) {
		w->fragments++;
		return;
	}
	check_l4(w, &(struct segment){AF_INET, ip->protocol, p + 12, p + 16, p + header, total - header});
}

static void check_v6(struct watch *w, const uint8_t *p, size_t len)
{
	const struct ip6_hdr *ip = (const struct ip6_hdr *)p;
	size_t payload;

	if (len < sizeof(*ip) || (payload = ntohs(ip->ip6_plen)) > len - sizeof(*ip)) {
		w->truncated++;
		return;
	}
	if (ip->ip6_nxt == IPPROTO_FRAGMENT) {
		w->fragments++;
		return;
	}
	check_l4(w, &(struct segment){AF_INET6, ip->ip6_nxt, p + 8, p + 24, p + sizeof(*ip), payload});
}

static void on_packet(uint8_t *arg, const struct pcap_pkthdr *h, const uint8_t *p)
{
	struct watch *w = (struct watch *)arg;
	uint16_t type;

	w->packets++;
	w->bytes += h->len;
	if (h->len > w->longest)
		w->longest = h->len;
	if (h->caplen < h->len || h->caplen < ETHER_HDR_LEN) {
		w->truncated++;
		return;
	}
	type = (uint16_t)(p[12] << 8 | p[13]);
	if (type == ETHERTYPE_IP)
		check_v4(w, p + ETHER_HDR_LEN, h->caplen - ETHER_HDR_LEN);
	else if (type == ETHERTYPE_IPV6)
		check_v6(w, p + ETHER_HDR_LEN, h->caplen - ETHER_HDR_LEN);
}

static void put(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void report(const struct watch *w)
{
	json_t *o = json_object(), *examples = json_array();
	struct pcap_stat st = {0};

	if (w->live)
		pcap_stats(w->pcap, &st);
	for (unsigned i = 0; i < w->n_bad; i++)
		json_array_append_new(examples, json_string(w->bad[i]));
	put(o, "packets", w->packets);
	put(o, "bytes", w->bytes);
	put(o, "longest", w->longest);
	put(o, "tcp", w->tcp);
	put(o, "udp", w->udp);
	put(o, "icmp", w->icmp);
	put(o, "fragments", w->fragments);
	put(o, "bad", w->bad_ip + w->bad_tcp + w->bad_udp + w->bad_icmp);
	put(o, "truncated", w->truncated);
	put(o, "syn", w->syn);
	put(o, "rst", w->rst);
	put(o, "missed", st.ps_drop);
	json_object_set_new(o, "examples", examples);
	json_dumpf(o, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
	putchar('\n');
	fflush(stdout);
	json_decref(o);
}

static pcap_t *open_live(const char *device, pcap_direction_t direction)
{
	char err[PCAP_ERRBUF_SIZE];
	pcap_t *p = pcap_create(device, err);

	if (!p) {
		fprintf(stderr, "wirecheck: %s\n", err);
		return NULL;
	}
	pcap_set_snaplen(p, 65535);
	pcap_set_promisc(p, 1);
	pcap_set_immediate_mode(p, 1);
	pcap_set_buffer_size(p, BUFFER_BYTES);
	if (pcap_activate(p) < 0 || pcap_setdirection(p, direction) || pcap_setnonblock(p, 1, err)) {
		fprintf(stderr, "wirecheck: %s: %s\n", device, pcap_geterr(p));
		pcap_close(p);
		return NULL;
	}
	return p;
}

static int apply_filter(pcap_t *p, const char *filter)
{
	struct bpf_program prog;

	if (pcap_compile(p, &prog, filter, 1, PCAP_NETMASK_UNKNOWN) || pcap_setfilter(p, &prog)) {
		fprintf(stderr, "wirecheck: filter: %s\n", pcap_geterr(p));
		return -EINVAL;
	}
	pcap_freecode(&prog);
	return 0;
}

/* Signals are blocked except inside ppoll(), so that a snapshot covers all that arrived before it was asked for. */
static void watch_live(struct watch *w, const sigset_t *while_waiting)
{
	struct pollfd fd = {.fd = pcap_get_selectable_fd(w->pcap), .events = POLLIN};

	report(w);
	while (!stop_wanted) {
		ppoll(&fd, 1, NULL, while_waiting);
		while (pcap_dispatch(w->pcap, 512, on_packet, (uint8_t *)w) > 0)
			;
		if (snapshot_wanted) {
			snapshot_wanted = 0;
			report(w);
		}
	}
}

static void usage(void)
{
	fputs("usage: wirecheck (-i INTERFACE [-d in|out] | -r FILE) [FILTER]\n", stderr);
	exit(2);
}

static void catch_signals(sigset_t *unblocked)
{
	static const int signals[] = {SIGUSR1, SIGTERM, SIGINT};
	struct sigaction sa = {.sa_handler = on_signal};
	sigset_t block;

	sigemptyset(&block);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		sigaddset(&block, signals[i]);
		sigaction(signals[i], &sa, NULL);
	}
	sigprocmask(SIG_BLOCK, &block, unblocked);
}

int main(int argc, char **argv)
{
	const char *device = NULL, *file = NULL;
	pcap_direction_t direction = PCAP_D_INOUT;
	char err[PCAP_ERRBUF_SIZE] = "";
	struct watch w = {0};
	sigset_t unblocked;
	int c;

	while ((c = getopt(argc, argv, "i:r:d:")) != -1) {
		if (c == 'i')
			device = optarg;
		else if (c == 'r')
			file = optarg;
		else if (c == 'd' && (!strcmp(optarg, "in") || !strcmp(optarg, "out")))
			direction = *optarg == 'i' ? PCAP_D_IN : PCAP_D_OUT;
		else
			usage();
	}
	if (!device == !file || argc - optind > 1)
		usage();
	catch_signals(&unblocked);
	w.live = device;
	w.pcap = device ? open_live(device, direction) : pcap_open_offline(file, err);
	if (file && !w.pcap)
		fprintf(stderr, "wirecheck: %s\n", err);
	if (!w.pcap || (optind < argc && apply_filter(w.pcap, argv[optind])))
		return 1;
	if (w.live)
		watch_live(&w, &unblocked);
	else
		pcap_loop(w.pcap, -1, on_packet, (uint8_t *)&w);
	report(&w);
	pcap_close(w.pcap);
	return 0;
}
