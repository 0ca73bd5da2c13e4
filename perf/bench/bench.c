/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cycles per packet, in memory: bursts of 32 shortest frames per port and turn, received from and sent to ports in
 * memory, by each subject in turn (A B C A B C …), so that what disturbs one disturbs all. A round is TURNS turns; the
 * figure is the median of the rounds. Subjects:
 *
 *   empty     receives and sends: what the harness itself costs, the making of each frame included
 *   macswap   swaps the MAC addresses: the least that a forwarder can do
 *   parse     parse() and nothing else
 *   rewrite   addresses, ports, TTL and checksums of a translation that is known beforehand: NAT without a lookup
 *   lookup    the same after a look into the pipeline's own flow table, its lines prefetched over the burst: the bare
 *             table, the least that a NAT with this many flows can do on this machine's memory
 *   pipeline  the worker's turn, all stages, on established flows in random order
 *
 *   bench [--kind tcp4|tcp6|udp4|udp6] [--flows N[,N…]] [--rounds N] [--huge]
 */
#include "core.h"
#include "memport.h"
#include "parse.h"
#include "stage.h"
#include "traffic.h"
#include "worker.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#define TURNS          256
#define ROUND_PACKETS  (TURNS * RIG_PORTS * TRAFFIC_BURST)
#define N_MBUFS        512 /* in hand, used in turn: what a receive ring would hold */
#define TURN_NS        10000
#define WARM_UP_ROUNDS 8
#define ROUNDS_MAX     1001

#ifdef SPILLWAY_STAGE_CYCLES
struct stage_cycles stage_cycles;
#endif

/* A translation that is known beforehand. */
struct fixed_rewrite {
	uint8_t macs[12];
	uint32_t src_be, dst_be;
	uint8_t src6[16], dst6[16];
	uint16_t sport_be, dport_be;
	uint16_t ip_delta, l4_delta;
};

struct bench {
	struct rig rig;
	struct traffic traffic;
	struct traffic_turn *turns;
	struct traffic_turn *far_turns; /* of flows that are a quarter of the walk away: see plan() */
	struct rte_mbuf *mbufs[N_MBUFS];
	unsigned next_mbuf;
	struct fixed_rewrite rewrite[RIG_PORTS]; /* of what came in through that port */
	uint64_t sum;                            /* of what was parsed, so that parsing cannot be left out */
	uint64_t lost;                           /* packets whose flow the lookup did not find */
};

/* --- subjects --- */

typedef void (*work_fn)(struct bench *b, enum rig_port port, struct rte_mbuf **m, uint16_t n);

static void work_empty(struct bench *b, enum rig_port port, struct rte_mbuf **m, uint16_t n)
{
}

static void work_macswap(struct bench *b, enum rig_port port, struct rte_mbuf **m, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m[i], struct rte_ether_hdr *);
		struct rte_ether_addr dst = ether->dst_addr;

		ether->dst_addr = ether->src_addr;
		ether->src_addr = dst;
	}
}

static void work_parse(struct bench *b, enum rig_port port, struct rte_mbuf **m, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++) {
		struct packet p;

		if (parse(rte_pktmbuf_mtod(m[i], uint8_t *), m[i]->data_len, &p) == VERDICT_NONE)
			b->sum += p.payload_off + p.dport_be;
	}
}

static inline void rewrite_l4(const struct fixed_rewrite *r, uint8_t *l4, uint8_t proto)
{
	memcpy(l4, &r->sport_be, 2);
	memcpy(l4 + 2, &r->dport_be, 2);
	if (proto == PROTO_TCP) {
		struct rte_tcp_hdr *tcp = (void *)l4;

		tcp->cksum = csum_apply(tcp->cksum, r->l4_delta);
	} else {
		struct rte_udp_hdr *udp = (void *)l4;

		udp->dgram_cksum = csum_apply_udp(udp->dgram_cksum, r->l4_delta);
	}
}

static inline void rewrite_frame(const struct fixed_rewrite *r, uint8_t *frame)
{
	struct rte_ipv4_hdr *ip4 = (void *)(frame + RTE_ETHER_HDR_LEN);
	struct rte_ipv6_hdr *ip6 = (void *)ip4;

	memcpy(frame, r->macs, sizeof(r->macs));
	if (frame[12] == 0x08) {
		ip4->time_to_live--;
		ip4->src_addr = r->src_be;
		ip4->dst_addr = r->dst_be;
		ip4->hdr_checksum = csum_apply(ip4->hdr_checksum, r->ip_delta);
		rewrite_l4(r, (uint8_t *)(ip4 + 1), ip4->next_proto_id);
	} else {
		ip6->hop_limits--;
		memcpy(ip6->src_addr, r->src6, 16);
		memcpy(ip6->dst_addr, r->dst6, 16);
		rewrite_l4(r, (uint8_t *)(ip6 + 1), ip6->proto);
	}
}

static void work_rewrite(struct bench *b, enum rig_port port, struct rte_mbuf **m, uint16_t n)
{
	for (uint16_t i = 0; i < n; i++)
		rewrite_frame(&b->rewrite[port], rte_pktmbuf_mtod(m[i], uint8_t *));
}

/* The key of a frame without tags, options or doubts. */
static inline uint64_t look_hash4(const struct flow_table *t, const uint8_t *frame, struct flow_key4 *key)
{
	const struct rte_ipv4_hdr *ip = (const void *)(frame + RTE_ETHER_HDR_LEN);

	memcpy(&key->addrs_be, &ip->src_addr, sizeof(key->addrs_be)); /* both addresses */
	memcpy(&key->ports_be, ip + 1, sizeof(key->ports_be));
	return flow_hash4(key, ip->next_proto_id, t->secret);
}

static inline uint64_t look_hash6(const struct flow_table *t, const uint8_t *frame, struct flow_key6 *key)
{
	const struct rte_ipv6_hdr *ip = (const void *)(frame + RTE_ETHER_HDR_LEN);

	memcpy(key->addrs_be, ip->src_addr, sizeof(key->addrs_be)); /* both addresses */
	memcpy(&key->ports_be, ip + 1, sizeof(key->ports_be));
	return flow_hash6(key, ip->proto, t->secret);
}

static void lookup4(const struct flow_table *t, struct rte_mbuf **m, uint16_t n, flow_ref *refs)
{
	uint64_t hash[TRAFFIC_BURST];
	struct flow_key4 key[TRAFFIC_BURST];

	for (uint16_t i = 0; i < n; i++) {
		hash[i] = look_hash4(t, rte_pktmbuf_mtod(m[i], uint8_t *), &key[i]);
		flow_prefetch(t, hash[i]);
	}
	for (uint16_t i = 0; i < n; i++)
		refs[i] = flow_candidate(t, hash[i]);
	for (uint16_t i = 0; i < n; i++) {
		uint8_t proto = rte_pktmbuf_mtod(m[i], const uint8_t *)[23];

		if (refs[i] == FLOW_REF_NONE || !flow_is4(t, refs[i], &key[i], proto))
			refs[i] = flow_lookup4(t, &key[i], proto, hash[i]);
	}
}

static void lookup6(const struct flow_table *t, struct rte_mbuf **m, uint16_t n, flow_ref *refs)
{
	uint64_t hash[TRAFFIC_BURST];
	struct flow_key6 key[TRAFFIC_BURST];

	for (uint16_t i = 0; i < n; i++) {
		hash[i] = look_hash6(t, rte_pktmbuf_mtod(m[i], uint8_t *), &key[i]);
		flow_prefetch(t, hash[i]);
	}
	for (uint16_t i = 0; i < n; i++)
		refs[i] = flow_candidate(t, hash[i]);
	for (uint16_t i = 0; i < n; i++) {
		uint8_t proto = rte_pktmbuf_mtod(m[i], const uint8_t *)[20];

		if (refs[i] == FLOW_REF_NONE || !flow_is6(t, refs[i], &key[i], proto))
			refs[i] = flow_lookup6(t, &key[i], proto, hash[i]);
	}
}

static void work_lookup(struct bench *b, enum rig_port port, struct rte_mbuf **m, uint16_t n)
{
	const struct flow_table *t = &b->rig.worker->flows;
	flow_ref refs[TRAFFIC_BURST];

	if (b->traffic.kind == TRAFFIC_TCP6 || b->traffic.kind == TRAFFIC_UDP6)
		lookup6(t, m, n, refs);
	else
		lookup4(t, m, n, refs);
	for (uint16_t i = 0; i < n; i++) {
		b->lost += refs[i] == FLOW_REF_NONE;
		rewrite_frame(&b->rewrite[port], rte_pktmbuf_mtod(m[i], uint8_t *));
	}
}

static inline void pass(struct bench *b, work_fn work)
{
	for (int i = 0; i < RIG_PORTS; i++) {
		struct port *in = b->rig.ports[i], *out = b->rig.ports[!i];
		struct rte_mbuf *m[TRAFFIC_BURST];
		uint16_t n = in->ops->rx(in->queues[0], RX_KNOWN, m, TRAFFIC_BURST);

		work(b, i, m, n);
		out->ops->tx(out->queues[0], m, n);
		out->ops->flush(out->queues[0]);
	}
}

static void turn_empty(struct bench *b)
{
	pass(b, work_empty);
}

static void turn_macswap(struct bench *b)
{
	pass(b, work_macswap);
}

static void turn_parse(struct bench *b)
{
	pass(b, work_parse);
}

static void turn_rewrite(struct bench *b)
{
	pass(b, work_rewrite);
}

static void turn_lookup(struct bench *b)
{
	pass(b, work_lookup);
}

static void turn_pipeline(struct bench *b)
{
	worker_run_once(b->rig.worker);
}

static const struct subject {
	const char *name;
	void (*turn)(struct bench *b);
} subjects[] = {
	{"empty", turn_empty},     {"macswap", turn_macswap}, {"parse", turn_parse},
	{"rewrite", turn_rewrite}, {"lookup", turn_lookup},   {"pipeline", turn_pipeline},
};
enum { EMPTY, MACSWAP, PARSE, REWRITE, LOOKUP, PIPELINE, N_SUBJECTS };

/* --- rounds --- */

static void feed(struct bench *b, const struct traffic_turn *turn)
{
	for (int port = 0; port < RIG_PORTS; port++) {
		struct rte_mbuf **m = &b->mbufs[b->next_mbuf];

		for (unsigned i = 0; i < TRAFFIC_BURST; i++)
			traffic_fill(&b->traffic.template[port], &turn -> steps[port][i], m[i]);
		memport_feed(b->rig.ports[port], 0, RX_KNOWN, m, TRAFFIC_BURST);
		b->next_mbuf = (b->next_mbuf + TRAFFIC_BURST) % N_MBUFS;
	}
}

/* Returns how many frames were sent; they are the same mbufs that feed() gave, and stay in b->mbufs. */
static unsigned take(struct bench *b)
{
	struct rte_mbuf *m[RIG_PORTS * TRAFFIC_BURST];
	unsigned n = 0;

	for (int port = 0; port < RIG_PORTS; port++)
		n += memport_take(b->rig.ports[port], 0, m, TRAFFIC_BURST);
	return n;
}

/* How often the kernel took the CPU away from us. */
static long preemptions(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

/* Cycles per packet of one round. Ends the program if a packet was lost: the figure would be of something else. */
static double run_round(struct bench *b, const struct subject *subject)
{
	unsigned n = 0;
	uint64_t begin = rte_rdtsc_precise();

	for (unsigned i = 0; i < TURNS; i++) {
		feed(b, subject == &subjects[LOOKUP] ? &b->far_turns[i] : &b->turns[i]);
		subject->turn(b);
		n += take(b);
		if (subject == &subjects[PIPELINE])
			b->rig.now_ns += TURN_NS;
	}
	if (n != ROUND_PACKETS || b->lost) {
		fprintf(stderr, "%s: %u of %u packets came through, %llu without their flow\n", subject->name, n,
			ROUND_PACKETS, (unsigned long long)b->lost);
		exit(1);
	}
	return (double)(rte_rdtsc_precise() - begin) / ROUND_PACKETS;
}

/*
 * What the next round sends. Two subjects read the flow table: they shall not find the lines that the other one has
 * just brought into the cache, so one of them walks far from the other.
 */
static void plan(struct bench *b)
{
	uint64_t position = b->traffic.position;

	b->traffic.position += b->traffic.n_flows / 4;
	traffic_plan(&b->traffic, b->far_turns, TURNS);
	b->traffic.position = position;
	traffic_plan(&b->traffic, b->turns, TURNS);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double quantile(double *values, unsigned n, double q)
{
	qsort(values, n, sizeof(*values), compare);
	return values[(unsigned)(q * (n - 1))];
}

/* One turn of the pipeline whose every packet is looked at: a bench of a pipeline that errs would mean nothing. */
static void verify(struct bench *b)
{
	traffic_plan(&b->traffic, b->turns, 1);
	feed(b, &b->turns[0]);
	worker_run_once(b->rig.worker);
	for (int port = 0; port < RIG_PORTS; port++) {
		struct rte_mbuf *m[TRAFFIC_BURST];
		uint16_t n = memport_take(b->rig.ports[port], 0, m, TRAFFIC_BURST);

		for (uint16_t i = 0; i < TRAFFIC_BURST; i++) {
			const char *wrong = i < n ? traffic_check(&b->traffic, port, m[i]) : "missing";

			if (wrong) {
				fprintf(stderr, "pipeline: packet %u out of port %d: wrong %s\n", i, port, wrong);
				exit(1);
			}
		}
	}
}

/* --- set-up --- */

static void make_rewrite(struct fixed_rewrite *r, int port)
{
	memset(r, 0x5a, sizeof(*r));
	memcpy(r->macs + 6, rig_mac[!port], 6);
}

/* What comes: clients that acknowledge, or (tcp4_asks) that ask, with each packet, and are answered. */
struct kind {
	const char *name;
	enum traffic_kind traffic;
	bool asks;
};

static const struct kind kinds[] = {
	{"tcp4", TRAFFIC_TCP4, false}, {"tcp4_asks", TRAFFIC_TCP4, true}, {"tcp6", TRAFFIC_TCP6, false},
	{"udp4", TRAFFIC_UDP4, false}, {"udp6", TRAFFIC_UDP6, false},
};

static bool is_v6(const struct kind *kind)
{
	return kind->traffic == TRAFFIC_TCP6 || kind->traffic == TRAFFIC_UDP6;
}

static void open_bench(struct bench *b, const struct kind *kind, uint32_t n_flows)
{
	bool v6 = is_v6(kind);
	uint32_t room = n_flows + n_flows / 8;
	struct rig_config config = {
		.flows_v4 = v6 ? 64 : room, .flows_v6 = v6 ? room : 64, .n_mbufs = 4095, .n_backends = 64, .n_snat = 4};
	int err = rig_create(&b->rig, &config);

	if (!err)
		err = traffic_start(&b->traffic, &b->rig, kind->traffic, n_flows);
	if (!err && kind->traffic == TRAFFIC_TCP4 && !kind->asks)
		traffic_download(&b->traffic);
	if (!err)
		err = rte_pktmbuf_alloc_bulk(b->rig.dp->pool, b->mbufs, N_MBUFS);
	if (err) {
		fprintf(stderr, "%u flows: %s\n", n_flows, strerror(-err));
		exit(1);
	}
	b->next_mbuf = 0;
	for (int port = 0; port < RIG_PORTS; port++)
		make_rewrite(&b->rewrite[port], port);
}

static void close_bench(struct bench *b)
{
	rte_pktmbuf_free_bulk(b->mbufs, N_MBUFS);
	traffic_stop(&b->traffic);
	rig_destroy(&b->rig);
}

/* --- report --- */

static void print_stages(unsigned rounds)
{
#ifdef SPILLWAY_STAGE_CYCLES
	static const char *const names[] = {
#define S(name) #name,
		STAGE_LIST(S)
#undef S
	};

	for (int i = 0; i < STAGE_COUNT; i++)
		if (stage_cycles.packets[i])
			printf("    %-10s %7.1f\n", names[i], (double)stage_cycles.cycles[i] / stage_cycles.packets[i]);
#endif
}

static void bench_flows(struct bench *b, const struct kind *kind, uint32_t n_flows, unsigned rounds)
{
	static double cycles[N_SUBJECTS][ROUNDS_MAX], net[N_SUBJECTS][ROUNDS_MAX];

	unsigned disturbed = 0;

	open_bench(b, kind, n_flows);
	verify(b);
	for (unsigned round = 0; round < WARM_UP_ROUNDS + rounds; round++) {
		unsigned r = round < WARM_UP_ROUNDS ? 0 : round - WARM_UP_ROUNDS;
		long before = preemptions();

#ifdef SPILLWAY_STAGE_CYCLES
		if (r == 0)
			stage_cycles = (struct stage_cycles){0};
#endif
		plan(b);
		for (int s = 0; s < N_SUBJECTS; s++) {
			cycles[s][r] = run_round(b, &subjects[s]);
			net[s][r] = cycles[s][r] - cycles[EMPTY][r];
		}
		/* Somebody else's cycles are in it: once more, as long as there is hope. */
		if (preemptions() != before && disturbed < 10 * rounds) {
			disturbed++;
			round--;
		}
	}
	verify(b);
	printf("%s, %u flows, %u rounds of %u packets, %u preempted and repeated\n", kind->name, n_flows, rounds,
	       ROUND_PACKETS, disturbed);
	printf("  (cycles per packet; net: less the empty harness)\n");
	printf("  %-10s %8s %8s %8s %8s\n", "subject", "median", "10 %", "90 %", "net");
	for (int s = 0; s < N_SUBJECTS; s++)
		printf("  %-10s %8.1f %8.1f %8.1f %8.1f\n", subjects[s].name, quantile(cycles[s], rounds, 0.5),
		       quantile(cycles[s], rounds, 0.1), quantile(cycles[s], rounds, 0.9),
		       quantile(net[s], rounds, 0.5));
	print_stages(rounds);
	for (int s = REWRITE; s <= LOOKUP; s++)
		printf("  pipeline / %s: %.2f gross, %.2f net\n", subjects[s].name,
		       quantile(cycles[PIPELINE], rounds, 0.5) / quantile(cycles[s], rounds, 0.5),
		       quantile(net[PIPELINE], rounds, 0.5) / quantile(net[s], rounds, 0.5));
	printf("  one core at this clock: %.2f Mpps\n\n",
	       rte_get_tsc_hz() / quantile(net[PIPELINE], rounds, 0.5) / 1e6);
	fflush(stdout);
	close_bench(b);
}

struct options {
	const struct kind *kind;
	uint32_t flows[8];
	unsigned n_flows;
	unsigned rounds;
	bool huge;
};

static int parse_kind(const char *text, const struct kind **kind)
{
	for (size_t k = 0; k < RTE_DIM(kinds); k++)
		if (strcmp(text, kinds[k].name) == 0) {
			*kind = &kinds[k];
			return 0;
		}
	return -EINVAL;
}

static int parse_flows(char *text, struct options *o)
{
	o->n_flows = 0;
	for (char *part = strtok(text, ","); part && o->n_flows < 8; part = strtok(NULL, ",")) {
		unsigned long n = strtoul(part, NULL, 10);

		if (n < 64 || n > 1 << 24 || n & (n - 1))
			return -EINVAL;
		o->flows[o->n_flows++] = n;
	}
	return o->n_flows ? 0 : -EINVAL;
}

static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"kind", required_argument, NULL, 'k'},
		{"flows", required_argument, NULL, 'f'},
		{"rounds", required_argument, NULL, 'r'},
		{"huge", no_argument, NULL, 'h'},
		{},
	};
	int c, err = 0;

	while (!err && (c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'k')
			err = parse_kind(optarg, &o->kind);
		else if (c == 'f')
			err = parse_flows(optarg, o);
		else if (c == 'r')
			o->rounds = strtoul(optarg, NULL, 10);
		else if (c == 'h')
			o->huge = true;
		else
			err = -EINVAL;
	}
	return err || o->rounds < 1 || o->rounds > ROUNDS_MAX ? -EINVAL : 0;
}

static uint64_t bytes_needed(const struct options *o)
{
	struct rig_config config = {.n_mbufs = 4095, .n_backends = 64, .n_snat = 4};
	uint32_t most = 0;

	for (unsigned i = 0; i < o->n_flows; i++)
		most = o->flows[i] > most ? o->flows[i] : most;
	if (is_v6(o->kind))
		config.flows_v6 = most + most / 8;
	else
		config.flows_v4 = most + most / 8;
	return rig_bytes(&config);
}

int main(int argc, char **argv)
{
	struct options o = {.kind = kinds, .flows = {1 << 10, 1 << 16, 1 << 20, 1 << 22}, .n_flows = 4, .rounds = 101};
	struct bench *b = calloc(1, sizeof(*b));
	int err;

	if (!b || parse_options(argc, argv, &o)) {
		fprintf(stderr, "usage: bench [--kind tcp4|tcp4_asks|tcp6|udp4|udp6] [--flows N,N (powers of two)] "
				"[--rounds N] [--huge]\n");
		return 2;
	}
	err = rig_eal((bytes_needed(&o) >> 20) + 64, o.huge, 0);
	if (err) {
		fprintf(stderr, "DPDK: %s\n", strerror(-err));
		return 1;
	}
	b->turns = calloc(TURNS, sizeof(*b->turns));
	b->far_turns = calloc(TURNS, sizeof(*b->far_turns));
	if (!b->turns || !b->far_turns)
		return 1;
	for (unsigned i = 0; i < o.n_flows; i++)
		bench_flows(b, o.kind, o.flows[i], o.rounds);
	free(b->turns);
	free(b->far_turns);
	free(b);
	return 0;
}
