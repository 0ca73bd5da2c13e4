/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any frames through whole workers, one and two of them: no access out of bounds, the books right after each turn, no
 * packet of the pool lost, and what leaves has right checksums exactly if it came with right ones, and its flow's
 * numbers. Flows live on from frame to frame, and time, neighbours and the policy change in between, so that all states
 * come up. Frames that the generator cannot know (replies to SNAT ports, errors that quote what left) are turned into
 * such here.
 */
#include "fuzz.h"

#include "books.h"
#include "core.h"
#include "frames.h"
#include "memport.h"
#include "rig.h"
#include "signals.h"
#include "streak.h"
#include "worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_icmp.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#define ETH          14
#define MEMORY       64 /* of frames that left; a power of two */
#define MEMORY_BYTES 160
#define N_RIGS       2
#define FLOWS        64 /* per family */
#define PROBE_MS     100

struct left {
	size_t len;
	uint8_t frame[MEMORY_BYTES];
};

/* The same frames go to both; rigs[1] has two workers. */
static struct {
	struct rig rig;
	struct policy other; /* without listeners */
	unsigned n_workers;
	struct left left[RIG_PORTS][MEMORY];
	unsigned n_left[RIG_PORTS];
	uint64_t n_waiting;
	uint64_t n_made_again; /* SYNs that left in a buffer which another packet had before */
} rigs[N_RIGS];

static uint64_t n_frames, chance;

/* Not inline, so that a trace says which one. */
static __attribute__((noinline)) void check(bool ok)
{
	if (!ok)
		__builtin_trap();
}

/* So that one sees how deep the frames went. */
static void print_verdicts(void)
{
	for (int v = 0; v < VERDICT_COUNT; v++) {
		uint64_t n[N_RIGS] = {0};

		for (int r = 0; r < N_RIGS; r++)
			for (unsigned i = 0; i < rigs[r].n_workers; i++)
				n[r] += rigs[r].rig.dp->workers[i]->ledger.verdicts[v];
		if (n[0] || n[1])
			printf("  %-24s %10" PRIu64 " %10" PRIu64 "\n", verdict_info[v].name, n[0], n[1]);
	}
	for (int m = 0; m < MADE_COUNT; m++)
		printf("  made %-19s %10" PRIu64 " %10" PRIu64 "\n", made_name[m], rigs[0].rig.worker->ledger.made[m],
		       rigs[1].rig.worker->ledger.made[m]);
	for (int r = 0; r < N_RIGS; r++) {
		struct service_report s;

		observe_service(rigs[r].rig.dp, 0, &s);
		printf("  %u workers: %" PRIu64 " attempts, %" PRIu64 " held, %" PRIu64 " of them admitted, %" PRIu64
		       " would be held, %" PRIu64 " repeated, %" PRIu64 " retries\n",
		       rigs[r].n_workers, s.attempts, s.held, s.held_admitted, s.would_hold, s.repeated, s.retries);
	}
}

/* Low enough that clients meet them, and holds that end while others come. */
static void set_caps(struct policy_storm *storm)
{
	for (int cap = 0; cap < STORM_CAPS; cap++)
		check(gcra_rate_init(&storm->caps[cap], 2 << cap, 1000000000, 1 << cap) == 0);
	storm->hold_ns = 300000000;
	storm->retry_budget_ppm = 200000;
	storm->early = true;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rig_config config = {
		.flows_v4 = FLOWS, .flows_v6 = FLOWS, .n_mbufs = 1023, .n_backends = 3, .n_snat = 2};

	check(rig_eal(N_RIGS * (rig_bytes(&config) >> 20) + 64, false, 0) == 0);
	for (int r = 0; r < N_RIGS; r++) {
		config.n_workers = rigs[r].n_workers = r + 1;
		check(rig_create(&rigs[r].rig, &config) == 0);
		set_caps(&rigs[r].rig.service.storm);
		rigs[r].rig.service.timeouts.probe_ms = PROBE_MS;
		rigs[r].rig.service.timeouts.unacked_ms = 2 * PROBE_MS;
		rigs[r].other = rigs[r].rig.policy;
		rigs[r].other.listeners = listener_table_create(NULL, 0);
		check(rigs[r].other.listeners != NULL);
	}
	check(atexit(print_verdicts) == 0);
	return 0;
}

/* --- frames that the generator cannot know --- */

static void fix_checksums(uint8_t *frame, const struct packet *p)
{
	struct rte_ipv4_hdr *ip4 = (void *)(frame + p->l3_off);
	struct rte_ipv6_hdr *ip6 = (void *)ip4;
	uint8_t *l4 = frame + p->l4_off;
	size_t len = p->l3_off + p->ip_len - p->l4_off;
	uint16_t *sum_be = (uint16_t *)(l4 + (p->proto == PROTO_TCP ? 16 : p->proto == PROTO_UDP ? 6 : 2));
	uint32_t sum = 0;

	if (p->proto == PROTO_UDP) {
		((struct rte_udp_hdr *)l4)->dgram_len = htons(len);
		*sum_be = 0;
	}
	if (p->family == 4)
		frame_fix_ip4((uint8_t *)ip4);
	*sum_be = 0;
	if (p->family == 6)
		sum = rte_ipv6_phdr_cksum(ip6, 0);
	else if (p->proto != IPPROTO_ICMP)
		sum = rte_ipv4_phdr_cksum(ip4, 0);
	sum += rte_raw_cksum(l4, len);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	*sum_be = sum == 0xffff ? 0xffff : ~sum;
}

static void swap_addresses(uint8_t *frame, const uint8_t *from, uint8_t family)
{
	unsigned src = ETH + (family == 4 ? 12 : 8), size = family == 4 ? 4 : 16;

	memcpy(frame + src, from + src + size, size);
	memcpy(frame + src + size, from + src, size);
}

/* A packet towards whoever sent `l`, with its own flags, data and (sometimes) numbers. */
static bool make_reply(uint8_t *frame, const struct packet *p, const struct left *l)
{
	struct packet about;

	if (parse(l->frame, l->len, &about) != VERDICT_NONE || about.kind > PACKET_UDP || about.proto != p->proto ||
	    about.family != p->family)
		return false;
	swap_addresses(frame, l->frame, p->family);
	memcpy(frame + p->l4_off, &about.dport_be, 2);
	memcpy(frame + p->l4_off + 2, &about.sport_be, 2);
	if (p->kind == PACKET_TCP && frame_random(&chance) % 8) {
		const struct rte_tcp_hdr *was = (const void *)(l->frame + about.l4_off);
		struct rte_tcp_hdr *tcp = (void *)(frame + p->l4_off);
		uint32_t len = about.payload_len + !!(about.tcp_flags & TCP_SYN) + !!(about.tcp_flags & TCP_FIN);

		tcp->sent_seq = was->recv_ack;
		tcp->recv_ack = htonl(ntohl(was->sent_seq) + len);
	}
	return true;
}

/* An error about `l` to its sender, as long as the frame has room. */
static bool make_error(uint8_t *frame, struct packet *p, const struct left *l, size_t room)
{
	struct packet about;
	size_t quoted;

	if (parse(l->frame, l->len, &about) != VERDICT_NONE || about.family != p->family)
		return false;
	quoted = l->len - about.l3_off;
	if (p->payload_off + quoted > room)
		return false;
	memcpy(frame + p->payload_off, l->frame + about.l3_off, quoted);
	swap_addresses(frame, l->frame, p->family);
	if (frame_random(&chance) % 4)
		memcpy(frame + (p->family == 4 ? ETH + 12 : ETH + 8), l->frame + (p->family == 4 ? ETH + 16 : ETH + 24),
		       p->family == 4 ? 4 : 16);
	p->ip_len = p->payload_off + quoted - p->l3_off;
	if (p->family == 4)
		((struct rte_ipv4_hdr *)(frame + ETH))->total_length = htons(p->ip_len);
	else
		((struct rte_ipv6_hdr *)(frame + ETH))->payload_len = htons(p->ip_len - 40);
	return true;
}

/* Half of the frames that could be about something that left become so. Returns the new length. */
static size_t make_sense(int r, uint8_t *frame, size_t len, size_t room)
{
	uint64_t c = frame_random(&chance);
	enum rig_port port = c >> 8 & 1;
	const struct left *l = &rigs[r].left[port][c >> 16 & (MEMORY - 1)];
	struct packet p;
	bool wrong;

	if (c & 1 || !l->len || parse(frame, len, &p) != VERDICT_NONE || p.l3_off != ETH ||
	    p.flags & (PACKET_FRAGMENT | PACKET_OPTIONS))
		return len;
	wrong = frame_checksum_error(frame) != NULL;
	if (p.kind > PACKET_UDP) {
		static const uint8_t types[2][4] = {{3, 3, 11, 12}, {1, 2, 3, 4}};

		frame[p.l4_off] = types[p.family == 6][c >> 32 & 3];
		frame[p.l4_off + 1] = c >> 34 & 7;
		if (!make_error(frame, &p, l, room))
			return len;
		len = ETH + p.ip_len;
	} else if (!make_reply(frame, &p, l)) {
		return len;
	}
	fix_checksums(frame, &p);
	if (wrong && p.kind == PACKET_TCP)
		frame[p.l4_off + 16] ^= 0x10;
	return len;
}

/* --- the oracle --- */

/* Whether the checksums are right, as far as they can be judged: a tag is looked behind. */
static bool is_right(const uint8_t *frame, size_t len)
{
	uint8_t copy[2048];
	struct packet p;

	if (parse(frame, len, &p) != VERDICT_NONE || p.kind == PACKET_FRAGMENT_LATER || p.flags & PACKET_FRAGMENT)
		return true;
	memcpy(copy, frame + p.l3_off - ETH, len - (p.l3_off - ETH));
	return frame_checksum_error(copy) == NULL;
}

/*
 * Made by the gateway, so that it is right whatever came, in its place or in its buffer: answers, and SYNs; or a part,
 * which is not judged.
 */
static bool is_made(const uint8_t *frame, size_t len)
{
	struct packet p;

	check(parse(frame, len, &p) == VERDICT_NONE);
	if (p.kind != PACKET_TCP || p.payload_len)
		return p.kind == PACKET_ICMP_ERROR || p.flags & PACKET_FRAGMENT;
	return p.tcp_flags & (TCP_RST | TCP_SYN) || (p.tcp_flags == TCP_ACK && p.ttl == 64);
}

/* A SYN that was held is made again, in any buffer: as often as that happened. */
static bool is_made_again(int r, const uint8_t *frame, size_t len)
{
	uint64_t held_admitted = 0;
	struct packet p;

	for (unsigned i = 0; i < rigs[r].n_workers; i++)
		held_admitted += rigs[r].rig.dp->workers[i]->services[0].held_admitted;
	check(parse(frame, len, &p) == VERDICT_NONE);
	return p.kind == PACKET_TCP && (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && p.payload_len == 0 &&
	       rigs[r].n_made_again++ < held_admitted;
}

/* What a packet was like when it came stands in its buffer: of a TCP segment its two numbers, too. */
enum { CAME_RIGHT = 1, CAME_WRONG = 2 };

static void remember(struct rte_mbuf *m, int how)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	struct packet p;

	m->dynfield1[0] = how;
	if (parse(frame, m->data_len, &p) != VERDICT_NONE || p.kind != PACKET_TCP)
		return;
	memcpy(&m->dynfield1[1], frame + p.l4_off + 4, 4);
	memcpy(&m->dynfield1[2], frame + p.l4_off + 8, 4);
}

/* The direction whose packets leave so, or FLOW_REF_NONE. */
static flow_ref find_flow(const struct worker *w, const uint8_t *frame, const struct packet *p)
{
	const uint8_t *secret = w->dp->config.secret;
	flow_ref replies;

	if (p->family == 4) {
		struct flow_key4 key = {.src_be = packet_dst4_be(frame, p),
					.dst_be = packet_src4_be(frame, p),
					.sport_be = p->dport_be,
					.dport_be = p->sport_be};

		replies = flow_lookup4(&w->flows, &key, PROTO_TCP, flow_hash4(&key, PROTO_TCP, secret));
	} else {
		struct flow_key6 key = {.sport_be = p->dport_be, .dport_be = p->sport_be};

		memcpy(key.src, packet_ip6(frame, p)->dst_addr, 16);
		memcpy(key.dst, packet_ip6(frame, p)->src_addr, 16);
		replies = flow_lookup6(&w->flows, &key, PROTO_TCP, flow_hash6(&key, PROTO_TCP, secret));
	}
	return replies == FLOW_REF_NONE ? FLOW_REF_NONE : flow_ref_other(replies);
}

/* Of the client's numbers in the SYN that left last. A burst may hold more of that life, and the flow have another. */
static uint32_t *shift_of_syn(int r, unsigned worker, flow_ref ref)
{
	static uint32_t shifts[N_RIGS][N_RIGS][2][FLOWS];
	uint32_t entry = flow_ref_entry(ref);

	check(entry < FLOWS);
	return &shifts[r][worker][flow_ref_is_v6(ref)][entry];
}

static uint32_t shift_of_flow(const struct worker *w, flow_ref ref)
{
	uint32_t shift = flow_half(&w->flows, flow_ref_up(ref))->seq_shift;

	check(flow_half(&w->flows, flow_ref_other(flow_ref_up(ref)))->seq_shift == -shift);
	return shift;
}

/* Also one that was made again. */
static void note_syn(int r, const uint8_t *frame, const struct packet *p)
{
	for (unsigned i = 0; i < rigs[r].n_workers; i++) {
		const struct worker *w = rigs[r].rig.dp->workers[i];
		flow_ref ref = find_flow(w, frame, p);

		if (ref != FLOW_REF_NONE)
			*shift_of_syn(r, i, ref) = shift_of_flow(w, ref);
	}
}

static bool is_shifted(const uint32_t came[2], const uint32_t left[2], bool acks, enum flow_dir dir, uint32_t shift)
{
	return left[0] == came[0] + (dir == DIR_UP ? shift : 0) &&
	       (!acks || left[1] == came[1] - (dir == DIR_DOWN ? shift : 0));
}

/* Its SYN may not have left, for want of a way, and what came after it did. */
static bool may_be_first(const struct worker *w, flow_ref ref)
{
	enum flow_state state = flow_half(&w->flows, ref)->state;

	return state == FLOW_SYN_SENT || state == FLOW_CLOSED;
}

/* D-2: what is forwarded differs from what came by the shift of its SYN, and by nothing in the other number. */
static void check_numbers(int r, const uint8_t *frame, const struct packet *p, const struct rte_mbuf *m)
{
	uint32_t came[2] = {ntohl(m->dynfield1[1]), ntohl(m->dynfield1[2])}, left[2];
	bool acks = p->tcp_flags & TCP_ACK;

	memcpy(left, frame + p->l4_off + 4, 8);
	left[0] = ntohl(left[0]);
	left[1] = ntohl(left[1]);
	for (unsigned i = 0; i < rigs[r].n_workers; i++) {
		const struct worker *w = rigs[r].rig.dp->workers[i];
		flow_ref ref = find_flow(w, frame, p);

		if (ref == FLOW_REF_NONE || is_shifted(came, left, acks, flow_ref_dir(ref), *shift_of_syn(r, i, ref)))
			continue;
		check(may_be_first(w, ref));
		*shift_of_syn(r, i, ref) = shift_of_flow(w, ref);
		check(is_shifted(came, left, acks, flow_ref_dir(ref), *shift_of_syn(r, i, ref)));
	}
}

static void check_left(int r, enum rig_port port, struct rte_mbuf *m)
{
	struct left *l = &rigs[r].left[port][rigs[r].n_left[port]++ & (MEMORY - 1)];
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	bool right = is_right(frame, m->data_len);
	struct packet p;

	check(m->nb_segs == 1 && m->pkt_len == m->data_len && m->data_len >= ETH);
	check(memcmp(frame + 6, rig_mac[port], 6) == 0);
	if (right)
		check(m->dynfield1[0] != CAME_WRONG || is_made(frame, m->data_len) ||
		      is_made_again(r, frame, m->data_len));
	else
		check(m->dynfield1[0] == CAME_WRONG);
	if (parse(frame, m->data_len, &p) == VERDICT_NONE && p.kind == PACKET_TCP) {
		if ((p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			note_syn(r, frame, &p);
		if (!is_made(frame, m->data_len))
			check_numbers(r, frame, &p, m);
	}
	l->len = m->data_len < MEMORY_BYTES ? m->data_len : MEMORY_BYTES;
	memcpy(l->frame, frame, l->len);
	rte_pktmbuf_free(m);
}

static void take_all(int r)
{
	struct rte_mbuf *m;

	for (unsigned q = 0; q < rigs[r].n_workers; q++)
		for (int port = 0; port < RIG_PORTS; port++)
			while (memport_take(rigs[r].rig.ports[port], q, &m, 1))
				check_left(r, port, m);
}

/* every flow that a backend was assigned has one outcome, or none yet. And levels are what flows say. */
static void check_signals(const struct worker *w)
{
	check(books_signals_error(w) == NULL);
	for (uint32_t i = 0; i < w->dp->config.n_backend_slots; i++) {
		const struct signal_counts *c = &w->signals.counts[i];

		check(c->zombies <= c->zombies_ever && c->answered <= w->backends[i].connects + c->exchanges);
	}
}

static void check_worker(const struct worker *w, uint64_t *handed_over)
{
	const struct ledger *l = &w->ledger;
	const struct service_cell *service = &w->services[0];
	uint64_t users = 0, held = 0, ports = 0, made = 0;

	for (int m = 0; m < MADE_COUNT; m++)
		made += l->made[m];
	check(ledger_balance(l) == 0);
	check(l->tx + l->tx_failed == ledger_class(l, CLASS_FORWARDED) + ledger_class(l, CLASS_ANSWERED) + made);
	check(service->attempts == service->new_flows + service->refused + service->silent + service->holding);
	check(service->refused_storm <= service->refused + service->silent);
	check(service->silent_many <= service->silent + service->repeated);
	check(service->silent_rate <= service->silent_many);
	check(books_holds_error(w) == NULL);
	check(l->inside == service->holding && w->holds.n_real == service->holding);
	check(w->wheel.n_flows == w->flows.pool4.in_use + w->flows.pool6.in_use);
	check(w->wheel.n_flows == w->flows.adds - w->flows.removes);
	for (uint32_t i = 0; i < w->dp->config.n_backend_slots; i++) {
		users += w->backends[i].users;
		held += w->backends[i].held;
	}
	for (uint32_t i = 0; i < w->snat.n_pairs; i++)
		ports += w->snat.pairs[i].used;
	check(users == w->wheel.n_flows && users == w->services[0].users);
	check(held == tuples_count(&w->tuples) && ports == users + held + snat_resting(&w->snat));
	check_signals(w);
	*handed_over += l->verdicts[VERDICT_handed_over] - l->taken_over;
}

static void run(int r)
{
	uint64_t handed_over = 0;

	for (unsigned turn = 0; turn < rigs[r].n_workers; turn++)
		for (unsigned i = 0; i < rigs[r].n_workers; i++)
			worker_run_once(rigs[r].rig.dp->workers[i]);
	take_all(r);
	for (unsigned i = 0; i < rigs[r].n_workers; i++)
		check_worker(rigs[r].rig.dp->workers[i], &handed_over);
	check(handed_over == 0);
	check(rte_mempool_in_use_count(rigs[r].rig.dp->pool) == 0);
}

/* --- what changes in between --- */

static enum order_kind order_kind(unsigned bits)
{
	return bits & 1 ? ORDER_OPENED : bits & 2 ? ORDER_CHECK : ORDER_PROBE;
}

/* What decide might do at any time: open, close, order, and listen. */
static void decide(struct rig *rig, unsigned n_workers, const struct policy_backend *b, uint64_t c)
{
	const struct streak s = {.state = c & 3, .side_down = (c & 0xe) == 0};
	struct note notes[64];

	if (c >> 8 & 1)
		rig->dp->cells.backends[b->ref.slot].breaker = streak_word(&s);
	else if (c >> 9 & 1)
		dataplane_trial_begin(rig->dp, b->ref.slot, c >> 10 & 1);
	else
		dataplane_order(rig->dp, (c >> 16) % n_workers,
				&(struct order){order_kind(c >> 24), b->ref.slot, b->addr, b->port_be, .limit = 5});
	while (dataplane_notes(rig->dp, notes, 64))
		;
}

static void limit(struct rig *rig, const struct policy_backend *b, uint64_t c)
{
	const struct service_limit of_service = {
		.n_limits = c & 3,
		.n_congested = c >> 2 & 3,
		.hold_ms = (c >> 8) % 1000,
		.pace = c >> 24 & 1 ? 0 : 1 + (c >> 32) % 1000,
		.shares = {c >> 25 & 3, c >> 27 & 3},
	};

	dataplane_backend_limit(rig->dp, b->ref.slot,
				c >> 48 & 1 ? 0 : (1 + (c >> 52) % 8) | (c >> 49 & 1 ? LIMIT_SOFT : 0));
	dataplane_service_limit(rig->dp, 0, &of_service);
	rig->service.sets[c >> 50 & 1][SET_TCP].hard_max = c >> 56 & 3 ? 0 : 1 + (c >> 58) % 8;
}

static void budget(struct rig *rig, uint64_t c)
{
	dataplane_service_budget(rig->dp, 0, c & 1 ? (c >> 8) % 20 : 0, (c >> 16) % 5000000);
}

static void change(int r)
{
	const uint8_t mac[6] = {2, 0, 0, 0, 3, 1};
	struct rig *rig = &rigs[r].rig;
	uint64_t c = frame_random(&chance);
	const struct policy_backend *backend = &rig->backends[c >> 8 & 1][SET_TCP][(c >> 16) % 3];

	switch (c % 8) {
	case 0:
		dataplane_neighbour_update(rig->dp, RIG_LAN, &backend->addr,
					   c >> 32 & 3 ? NEIGHBOUR_USABLE : NEIGHBOUR_GONE, mac);
		break;
	case 1:
		dataplane_port_set_link(rig->dp, RIG_LAN, c >> 32 & 7, c >> 40 & 1 ? 1500 : 150);
		break;
	case 2:
		rig->policy.number = rigs[r].other.number = rig->policy.number + 1;
		dataplane_publish(rig->dp, c >> 32 & 3 ? &rig->policy : &rigs[r].other);
		break;
	case 3:
		rig->policy.modes.of[CURE_STORM] = rigs[r].other.modes.of[CURE_STORM] =
			(c >> 32) % 8 < 6 ? CURE_ENFORCE : (c >> 40) % 2;
		rig->policy.modes.of[CURE_SILENCE] = (c >> 48) % 4 ? CURE_ENFORCE : (c >> 56) % 2;
		break;
	case 4:
		rig->now_ns += 10000000000ull; /* it did not run for ten seconds */
		break;
	case 5:
		limit(rig, backend, frame_random(&chance));
		budget(rig, frame_random(&chance));
		break;
	default:
		decide(rig, rigs[r].n_workers, backend, frame_random(&chance));
	}
}

/* --- a connection that begins as it should, which chance alone hardly ever makes --- */

#define ISN 1000

static void put(int r, enum rig_port port, const uint8_t *frame, size_t len)
{
	struct rig *rig = &rigs[r].rig;
	struct rte_mbuf *m = rte_pktmbuf_alloc(rig->dp->pool);

	check(m != NULL);
	memcpy(rte_pktmbuf_append(m, len), frame, len);
	remember(m, CAME_RIGHT);
	check(memport_feed(rig->ports[port], 0, RX_KNOWN, &m, 1) == 1);
	run(r);
}

/* With the timestamps of its options, what would have been payload. */
static size_t make_segment(uint8_t *frame, struct frame_spec spec, bool syn)
{
	static const uint8_t options[16] = {1, 3, 3, 7, 1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 1, 0};
	struct packet p;
	size_t len;

	spec.proto = PROTO_TCP;
	spec.payload_len = syn ? 16 : 12;
	len = frame_make(&spec, frame);
	check(parse(frame, len, &p) == VERDICT_NONE);
	memcpy(frame + p.payload_off, options + (syn ? 0 : 4), spec.payload_len);
	frame[p.l4_off + 12] = (20 + spec.payload_len) / 4 << 4;
	fix_checksums(frame, &p);
	return len;
}

static void open_flow(int r)
{
	uint64_t c = frame_random(&chance);
	bool v6 = c & 1;
	uint32_t client = c >> 8 & 15;
	uint8_t frame[FRAME_MAX];
	const struct left *left;
	struct packet syn;
	struct frame_spec up = {.src = rig_client(client, v6),
				.dst = rig_vip(v6),
				.sport_be = rig_client_port_be(client),
				.dport_be = htons(80),
				.tcp_flags = TCP_SYN,
				.seq_be = htonl(ISN)};
	struct frame_spec down = {.tcp_flags = TCP_SYN | TCP_ACK, .seq_be = htonl(ISN)};
	uint32_t isn_be; /* as the backend sees it */

	put(r, RIG_WAN, frame, make_segment(frame, up, true));
	left = &rigs[r].left[RIG_LAN][(rigs[r].n_left[RIG_LAN] - 1) & (MEMORY - 1)];
	/* Perhaps it was refused, or there is no way. */
	if (!left->len || parse(left->frame, left->len, &syn) != VERDICT_NONE || syn.tcp_flags != TCP_SYN)
		return;
	memcpy(&isn_be, left->frame + syn.l4_off + 4, 4);
	down.ack_be = htonl(ntohl(isn_be) + 1);
	down.src = packet_dst(left->frame, &syn);
	down.dst = packet_src(left->frame, &syn);
	down.sport_be = syn.dport_be;
	down.dport_be = syn.sport_be;
	put(r, RIG_LAN, frame, make_segment(frame, down, true));
	up.tcp_flags = TCP_ACK;
	up.seq_be = up.ack_be = htonl(ISN + 1);
	put(r, RIG_WAN, frame, make_segment(frame, up, false));
}

/* The end that was asked answers, as a kernel would that knows the connection. */
static void answer_probe(int r, enum rig_port port)
{
	const struct left *left = &rigs[r].left[port][(rigs[r].n_left[port] - 1) & (MEMORY - 1)];
	const struct rte_tcp_hdr *probe;
	struct packet p;
	uint8_t frame[FRAME_MAX];
	size_t len;

	if (!left->len || parse(left->frame, left->len, &p) != VERDICT_NONE || p.kind != PACKET_TCP || p.ttl != 64 ||
	    p.tcp_flags != TCP_ACK)
		return;
	probe = (const void *)(left->frame + p.l4_off);
	len = frame_make(&(struct frame_spec){.src = packet_dst(left->frame, &p),
					      .dst = packet_src(left->frame, &p),
					      .sport_be = p.dport_be,
					      .dport_be = p.sport_be,
					      .proto = PROTO_TCP,
					      .seq_be = probe->recv_ack,
					      .ack_be = htonl(ntohl(probe->sent_seq) + 1)},
			 frame);
	put(r, port, frame, len);
}

/* Nothing comes for a while but answers, and not all of them: attempts end, connections are asked, and die. */
static void pass_time(int r)
{
	for (unsigned turn = 0; turn < 400; turn++) {
		rigs[r].rig.now_ns += 40000000;
		run(r);
		if (frame_random(&chance) % 4 == 0)
			answer_probe(r, frame_random(&chance) & 1);
	}
}

static void feed(int r, const uint8_t *data, size_t len)
{
	struct rig *rig = &rigs[r].rig;
	struct rte_mbuf *m = rte_pktmbuf_alloc(rig->dp->pool);
	uint64_t c = frame_random(&chance);
	uint8_t *frame;

	check(m != NULL);
	frame = (uint8_t *)rte_pktmbuf_append(m, len);
	check(frame != NULL);
	memcpy(frame, data, len);
	len = make_sense(r, frame, len, 1514);
	m->data_len = m->pkt_len = len;
	remember(m, is_right(frame, len) ? CAME_RIGHT : CAME_WRONG);
	check(memport_feed(rig->ports[c & 1], (c >> 1) % rigs[r].n_workers, c & 4 ? RX_NEW : RX_KNOWN, &m, 1) == 1);
	/* Bursts of one to a few; mostly packets come close together, now and then timers fire in between. */
	if (++rigs[r].n_waiting < (c >> 8 & 7))
		return;
	rigs[r].n_waiting = 0;
	rig->now_ns += c >> 16 & 63 ? 100000 : 40000000;
	run(r);
	if ((c >> 24 & 255) == 0)
		change(r);
	if ((c >> 32 & 255) == 0)
		open_flow(r);
	if ((c >> 40 & 1023) == 0) {
		pass_time(r);
		for (int i = 0; i < 4; i++)
			open_flow(r);
		pass_time(r);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len > 1514)
		return 0;
	chance = ++n_frames * UINT64_C(0xd1342543de82ef95) + len;
	for (int r = 0; r < N_RIGS; r++)
		feed(r, data, len);
	return 0;
}
