/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of very many flows, on a clock of the bench's own: all are created, kept while nobody speaks, asked whether
 * they are still there and heard, and ended when one side answers no more; then the same flows again, which close. Both
 * ends are played by a few lines that answer what leaves the gateway one loop later. What every loop of the worker
 * costs is measured by the CPU time of the thread.
 *
 * All flows begin within half a second, so that their timers are due together: no herd is worse.
 *
 *   life [--flows N] [--huge]
 *
 * The exit status says whether every flow came, stayed and went as it should, no loop ended more flows than it may, and
 * the second life took no memory that the first one had not.
 */
#include "core.h"
#include "frames.h"
#include "memport.h"
#include "rig.h"
#include "worker.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>

#define BURST         32
#define BUSY_STEP_NS  10000   /* between loops while packets come in bursts */
#define IDLE_STEP_NS  1000000 /* and otherwise: a worker looks far more often, and has less to do then */
#define LOOPS_MAX     (8 << 20)
#define ANSWERS_MAX   MEMPORT_ROOM
#define ENDS_MAX      64 /* flows that a loop may end: DUE_BUDGET */
#define PROBE_ROUNDS  3
#define SECOND_NS     1000000000ull
#define GIVE_UP_S     3000 /* of the bench's clock, in one phase */
#define RSS_SLACK_KIB 1024

#define CLIENT_ISN    1000u
#define BACKEND_ISN   70000u
#define MADE_TTL      64 /* of what the gateway sends in another's name; what it forwards has one less */
#define TS_OPTION     12 /* bytes: two NOPs and the timestamps */

struct answers {
	struct rte_mbuf *m[ANSWERS_MAX];
	uint16_t n;
};

struct life {
	struct rig rig;
	uint32_t n_flows;
	bool client_answers;               /* when it is asked */
	struct answers answers[RIG_PORTS]; /* that come in by that port with the next loop */
	uint64_t rsts[RIG_PORTS];          /* that left */
	/* of the present phase */
	uint32_t *loop_ns;
	uint64_t n_loops, packets;
	uint64_t ended_most, probes_most;
	uint64_t began_ns;
};

static void fail(const char *what)
{
	fprintf(stderr, "life: %s\n", what);
	exit(1);
}

/* --- the ends --- */

static uint32_t clock_ms(const struct life *l)
{
	return (uint32_t)(l->rig.now_ns / 1000000);
}

static struct rte_tcp_hdr *tcp_of(struct rte_mbuf *m)
{
	return rte_pktmbuf_mtod_offset(m, struct rte_tcp_hdr *, RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr));
}

static struct rte_ipv4_hdr *ip_of(struct rte_mbuf *m)
{
	return rte_pktmbuf_mtod_offset(m, struct rte_ipv4_hdr *, RTE_ETHER_HDR_LEN);
}

static uint32_t read_tsval(struct rte_mbuf *m)
{
	uint32_t tsval_be;

	memcpy(&tsval_be, (const uint8_t *)(tcp_of(m) + 1) + 4, sizeof(tsval_be));
	return ntohl(tsval_be);
}

static void put_segment(struct rte_mbuf *m, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t tsval, uint32_t tsecr)
{
	struct rte_tcp_hdr *tcp = tcp_of(m);
	uint8_t *options = (uint8_t *)(tcp + 1);
	uint32_t tsval_be = htonl(tsval), tsecr_be = htonl(tsecr);

	tcp->tcp_flags = flags;
	tcp->sent_seq = htonl(seq);
	tcp->recv_ack = htonl(ack);
	tcp->data_off = (sizeof(*tcp) + TS_OPTION) / 4 << 4;
	memcpy(options, (const uint8_t[4]){1, 1, 8, 10}, 4);
	memcpy(options + 4, &tsval_be, 4);
	memcpy(options + 8, &tsecr_be, 4);
	tcp->cksum = 0;
	tcp->cksum = rte_ipv4_udptcp_cksum(ip_of(m), tcp);
}

static struct rte_mbuf *client_segment(struct life *l, uint32_t flow, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct frame_spec spec = {
		.src = rig_client(flow, false),
		.dst = rig_vip(false),
		.sport_be = rig_client_port_be(flow),
		.dport_be = htons(80),
		.proto = PROTO_TCP,
		.payload_len = TS_OPTION,
	};
	struct rte_mbuf *m = rte_pktmbuf_alloc(l->rig.dp->pool);
	uint8_t *frame;

	if (!m)
		fail("no buffer");
	frame = (uint8_t *)rte_pktmbuf_append(m, RTE_ETHER_HDR_LEN + sizeof(struct rte_ipv4_hdr) +
							 sizeof(struct rte_tcp_hdr) + TS_OPTION);
	frame_make(&spec, frame);
	memcpy(frame, rig_mac[RIG_WAN], 6);
	memcpy(frame + 6, rig_router_mac, 6);
	put_segment(m, flags, seq, ack, clock_ms(l), 0);
	return m;
}

/* What went there comes back from there. */
static void turn_round(struct rte_mbuf *m)
{
	struct rte_ether_hdr *ether = rte_pktmbuf_mtod(m, struct rte_ether_hdr *);
	struct rte_ether_addr mac = ether->dst_addr;
	struct rte_ipv4_hdr *ip = ip_of(m);
	struct rte_tcp_hdr *tcp = tcp_of(m);
	uint32_t addr = ip->dst_addr;
	uint16_t port = tcp->dst_port;

	ether->dst_addr = ether->src_addr;
	ether->src_addr = mac;
	ip->dst_addr = ip->src_addr;
	ip->src_addr = addr;
	tcp->dst_port = tcp->src_port;
	tcp->src_port = port;
}

/* Makes the answer of the end behind `port` out of what it got. False: it has none. */
static bool answer(struct life *l, enum rig_port port, struct rte_mbuf *m)
{
	const struct rte_tcp_hdr *tcp = tcp_of(m);
	uint32_t seq = ntohl(tcp->sent_seq), ack = ntohl(tcp->recv_ack), tsval;
	uint8_t flags = tcp->tcp_flags;
	bool made = ip_of(m)->time_to_live == MADE_TTL;

	if (flags & TCP_RST) {
		l->rsts[port]++;
		return false;
	}
	tsval = read_tsval(m);
	if (made && port == RIG_WAN && !l->client_answers)
		return false;
	turn_round(m);
	if (made) /* a probe asks with the number before the next */
		put_segment(m, TCP_ACK, ack, seq + 1, clock_ms(l), tsval);
	else if (flags == TCP_SYN)
		put_segment(m, TCP_SYN | TCP_ACK, BACKEND_ISN, seq + 1, clock_ms(l), tsval);
	else if (flags == (TCP_SYN | TCP_ACK))
		put_segment(m, TCP_ACK, ack, seq + 1, clock_ms(l), tsval);
	else if (flags & TCP_FIN)
		put_segment(m, port == RIG_LAN ? TCP_FIN | TCP_ACK : TCP_ACK, ack, seq + 1, clock_ms(l), tsval);
	else
		return false;
	return true;
}

static void feed(struct life *l, enum rig_port port, enum rx_class class, struct rte_mbuf *const *m, uint16_t n)
{
	if (memport_feed(l->rig.ports[port], 0, class, m, n) != n)
		fail("more at once than a port takes");
	l->packets += n;
}

static void feed_answers(struct life *l)
{
	for (int port = 0; port < RIG_PORTS; port++) {
		feed(l, port, RX_KNOWN, l->answers[port].m, l->answers[port].n);
		l->answers[port].n = 0;
	}
}

static void take_sent(struct life *l)
{
	for (int port = 0; port < RIG_PORTS; port++) {
		struct rte_mbuf *m[ANSWERS_MAX];
		uint16_t n = memport_take(l->rig.ports[port], 0, m, ANSWERS_MAX);

		for (uint16_t i = 0; i < n; i++)
			if (answer(l, port, m[i]))
				l->answers[port].m[l->answers[port].n++] = m[i];
			else
				rte_pktmbuf_free(m[i]);
	}
}

/* --- one loop --- */

static uint64_t thread_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * SECOND_NS + (uint64_t)ts.tv_nsec;
}

static void loop(struct life *l, uint64_t step_ns)
{
	struct worker *w = l->rig.worker;
	uint64_t expired = w->expired, probes = w->ledger.did[ACTION_keepalive], begin_ns;

	feed_answers(l);
	begin_ns = thread_ns();
	worker_run_once(w);
	if (l->n_loops == LOOPS_MAX)
		fail("more loops than there is room for");
	l->loop_ns[l->n_loops++] = thread_ns() - begin_ns;
	l->ended_most = RTE_MAX(l->ended_most, w->expired - expired);
	l->probes_most = RTE_MAX(l->probes_most, w->ledger.did[ACTION_keepalive] - probes);
	take_sent(l);
	l->rig.now_ns += step_ns;
}

/* --- phases --- */

static uint32_t n_flows(const struct life *l)
{
	return l->rig.worker->flows.pool4.in_use;
}

static long rss_kib(void)
{
	unsigned long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%lu %lu", &size, &resident) != 2)
		fail("/proc/self/statm");
	fclose(f);
	return (long)resident * sysconf(_SC_PAGESIZE) / 1024;
}

static void begin_phase(struct life *l)
{
	l->n_loops = l->packets = l->ended_most = l->probes_most = 0;
	l->began_ns = l->rig.now_ns;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void end_phase(struct life *l, const char *name)
{
	const double quantiles[] = {0.5, 0.99, 0.999, 0.9999, 1};

	qsort(l->loop_ns, l->n_loops, sizeof(*l->loop_ns), compare);
	printf("%-12s %8.1f %9llu %9llu %9u %9.1f", name, (double)(l->rig.now_ns - l->began_ns) / SECOND_NS,
	       (unsigned long long)l->n_loops, (unsigned long long)l->packets, n_flows(l), rss_kib() / 1024.0);
	for (size_t i = 0; i < RTE_DIM(quantiles); i++)
		printf(" %8.2f", l->loop_ns[(uint64_t)(quantiles[i] * (double)(l->n_loops - 1))] / 1000.0);
	printf(" %6llu %6llu\n", (unsigned long long)l->ended_most, (unsigned long long)l->probes_most);
	fflush(stdout);
	if (l->ended_most > ENDS_MAX)
		fail("a loop ended more flows than it may");
}

static void check_all(const struct life *l, enum flow_state state)
{
	uint32_t n = 0;

	for (uint32_t entry = 0; entry < l->rig.worker->flows.pool4.capacity; entry++)
		n += flow_half(&l->rig.worker->flows, flow_ref_make(false, entry, DIR_UP))->state == state;
	if (n != l->n_flows)
		fail("not every flow is what it should be");
}

/* A segment of each flow's client, a burst per loop, until all that follows has been said. */
static void each_client(struct life *l, enum rx_class class, uint8_t flags, uint32_t seq, uint32_t ack)
{
	for (uint32_t first = 0; first < l->n_flows; first += BURST) {
		struct rte_mbuf *m[BURST];

		for (uint32_t i = 0; i < BURST; i++)
			m[i] = client_segment(l, first + i, flags, seq, ack);
		feed(l, RIG_WAN, class, m, BURST);
		loop(l, BUSY_STEP_NS);
	}
	for (int i = 0; i < 8; i++)
		loop(l, BUSY_STEP_NS);
}

static void create(struct life *l, const char *name)
{
	begin_phase(l);
	each_client(l, RX_NEW, TCP_SYN, CLIENT_ISN, 0);
	check_all(l, FLOW_ESTABLISHED);
	end_phase(l, name);
}

static bool goes_on(const struct life *l)
{
	if (l->rig.now_ns - l->began_ns > GIVE_UP_S * SECOND_NS)
		fail("it does not come to an end");
	return true;
}

/* Until the first of them is asked. */
static void keep(struct life *l)
{
	uint64_t probes = l->rig.worker->ledger.did[ACTION_keepalive];

	begin_phase(l);
	while (l->rig.worker->ledger.did[ACTION_keepalive] == probes && goes_on(l))
		loop(l, IDLE_STEP_NS);
	end_phase(l, "kept");
}

static void probed(struct life *l)
{
	uint64_t until = l->rig.worker->ledger.did[ACTION_keepalive] + 2ull * PROBE_ROUNDS * l->n_flows;

	begin_phase(l);
	while (l->rig.worker->ledger.did[ACTION_keepalive] < until && goes_on(l))
		loop(l, IDLE_STEP_NS);
	check_all(l, FLOW_ESTABLISHED);
	end_phase(l, "probed");
}

static void expired(struct life *l, const char *name)
{
	begin_phase(l);
	while (n_flows(l) && goes_on(l))
		loop(l, IDLE_STEP_NS);
	end_phase(l, name);
}

static void closed(struct life *l)
{
	begin_phase(l);
	each_client(l, RX_KNOWN, TCP_FIN | TCP_ACK, CLIENT_ISN + 1, BACKEND_ISN + 1);
	check_all(l, FLOW_TIME_WAIT);
	end_phase(l, "closed");
}

static void live(struct life *l)
{
	const uint64_t *made = l->rig.worker->ledger.made;
	long before_kib;

	printf("%u flows; CPU time of the worker's thread per loop, in us\n", l->n_flows);
	printf("%-12s %8s %9s %9s %9s %9s %8s %8s %8s %8s %8s %6s %6s\n", "phase", "clock s", "loops", "packets",
	       "flows", "RSS MiB", "p50", "p99", "p99.9", "p99.99", "max", "ended", "probes");
	l->client_answers = true;
	create(l, "created");
	keep(l);
	probed(l);
	l->client_answers = false;
	expired(l, "expired");
	if (l->rsts[RIG_WAN] != l->n_flows || l->rsts[RIG_LAN] != l->n_flows ||
	    made[MADE_rst_peer_dead] != 2ull * l->n_flows)
		fail("not every end was told");
	before_kib = rss_kib();
	l->client_answers = true;
	create(l, "again");
	closed(l);
	expired(l, "expired");
	if (rss_kib() - before_kib > RSS_SLACK_KIB)
		fail("the second life took more memory");
}

/* --- set-up --- */

static void print_clock_cost(void)
{
	static uint32_t cost[10001];

	for (size_t i = 0; i < RTE_DIM(cost); i++) {
		uint64_t begin_ns = thread_ns();

		cost[i] = thread_ns() - begin_ns;
	}
	qsort(cost, RTE_DIM(cost), sizeof(*cost), compare);
	printf("reading the clock costs %.2f us of it (median)\n", cost[RTE_DIM(cost) / 2] / 1000.0);
}

static int parse_options(int argc, char **argv, uint32_t *flows, bool *huge)
{
	static const struct option options[] = {{"flows", 1, NULL, 'f'}, {"huge", 0, NULL, 'h'}, {}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		unsigned long n = c == 'f' ? strtoul(optarg, NULL, 10) : 0;

		if (c == 'h')
			*huge = true;
		else if (c == 'f' && n >= BURST && n <= 1 << 24 && n % BURST == 0)
			*flows = n;
		else
			return -EINVAL;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct rig_config config = {.flows_v6 = 64, .n_mbufs = 8191, .n_backends = 64, .n_snat = 4};
	struct life *l = calloc(1, sizeof(*l));
	bool huge = false;
	int err;

	if (!l)
		return 1;
	l->n_flows = 1000000;
	if (parse_options(argc, argv, &l->n_flows, &huge)) {
		fprintf(stderr, "usage: life [--flows N (a multiple of %d)] [--huge]\n", BURST);
		return 2;
	}
	config.flows_v4 = l->n_flows + l->n_flows / 8;
	l->loop_ns = malloc(LOOPS_MAX * sizeof(*l->loop_ns));
	if (!l->loop_ns)
		return 1;
	/* All of it now: what grows later is the gateway's. */
	memset(l->loop_ns, 1, LOOPS_MAX * sizeof(*l->loop_ns));
	err = rig_eal((rig_bytes(&config) >> 20) + 64, huge, 0);
	if (!err)
		err = rig_create(&l->rig, &config);
	if (err) {
		fprintf(stderr, "life: %s\n", strerror(-err));
		return 1;
	}
	print_clock_cost();
	live(l);
	rig_destroy(&l->rig);
	free(l->loop_ns);
	free(l);
	return 0;
}
