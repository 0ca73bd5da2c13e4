/* SPDX-License-Identifier: BSD-3-Clause */
#include "talk.h"

#include "books.h"
#include "checksum.h"
#include "icmp.h"
#include "tcp_options.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

struct rig rig;
unsigned n_workers;
bool bare;

/* --- the upstream side's numbers --- */

/* The last ones. Few backends and addresses, many ports: hardly two of a test share a place. */
#define UPSTREAMS 65536

static struct upstream {
	struct ipaddr backend, snat;
	uint16_t backend_port_be, snat_port_be;
	uint32_t seq_shift, ts_shift;
} upstreams[UPSTREAMS];

static struct upstream *place_of(const struct upstream *u)
{
	return &upstreams[ntohs(u->snat_port_be) ^ (u->backend.b[15] & 31) << 11 ^ (u->snat.b[15] & 7) << 8];
}

/* NULL: no SYN left from there. */
static const struct upstream *find_upstream(const struct upstream *u)
{
	const struct upstream *at = place_of(u);

	return ipaddr_equal(&at->backend, &u->backend) && ipaddr_equal(&at->snat, &u->snat) &&
			       at->backend_port_be == u->backend_port_be && at->snat_port_be == u->snat_port_be
		       ? at
		       : NULL;
}

static struct upstream upstream_of(struct ipaddr backend, uint16_t backend_port_be, struct ipaddr snat,
				   uint16_t snat_port_be)
{
	return (struct upstream){
		.backend = backend,
		.backend_port_be = backend_port_be,
		.snat = snat,
		.snat_port_be = snat_port_be,
	};
}

/* The flow whose SYN that is, or FLOW_REF_NONE: a SYN of the gateway's own. */
static flow_ref flow_of(const struct worker *w, const struct upstream *u)
{
	const uint8_t *secret = w->dp->config.secret;
	struct flow_key4 key4 = {.src_be = ipaddr_v4_be(&u->backend),
				 .dst_be = ipaddr_v4_be(&u->snat),
				 .sport_be = u->backend_port_be,
				 .dport_be = u->snat_port_be};
	struct flow_key6 key6 = {.sport_be = u->backend_port_be, .dport_be = u->snat_port_be};

	memcpy(key6.src, u->backend.b, 16);
	memcpy(key6.dst, u->snat.b, 16);
	if (ipaddr_is_v4(&u->snat))
		return flow_lookup4(&w->flows, &key4, PROTO_TCP, flow_hash4(&key4, PROTO_TCP, secret));
	return flow_lookup6(&w->flows, &key6, PROTO_TCP, flow_hash6(&key6, PROTO_TCP, secret));
}

/* What the flow says when its SYN leaves holds for all that follows it, and for the SYN itself. */
static void learn_shifts(struct upstream *u)
{
	for (unsigned i = 0; i < n_workers; i++) {
		const struct worker *w = rig.dp->workers[i];
		flow_ref ref = flow_of(w, u);

		if (ref == FLOW_REF_NONE)
			continue;
		u->seq_shift = flow_half(&w->flows, flow_ref_other(ref))->seq_shift;
		u->ts_shift = flow_half(&w->flows, flow_ref_other(ref))->ts_shift;
	}
	*place_of(u) = *u;
}

/* Checksums by difference: what is wrong stays wrong. */
static void shift_word(uint8_t *tcp, unsigned off, uint32_t by, uint32_t *delta)
{
	uint32_t word_be;

	memcpy(&word_be, tcp + off, 4);
	word_be = htonl(ntohl(word_be) + by);
	csum_replace(tcp, off, &word_be, 4, delta);
}

static bool is_zero(const uint8_t *at)
{
	return !at[0] && !at[1] && !at[2] && !at[3];
}

/* `down`: it comes from the backend. `sign`: 1 or -1. Returns what its bytes changed by. */
static uint32_t shift_tcp(uint8_t *tcp, unsigned len, const struct upstream *u, bool down, int sign)
{
	unsigned end = len > 12 ? (tcp[12] >> 4) * 4 : 0;
	uint32_t delta = 0, seq = sign * u->seq_shift, ts = sign * u->ts_shift;
	bool acks = len > 13 && tcp[13] & TCP_ACK;
	uint16_t check_be;

	if (!down)
		shift_word(tcp, 4, seq, &delta);
	else if (acks)
		shift_word(tcp, 8, seq, &delta);
	end = end < len ? end : len;
	for (unsigned at = 20; (at = tcp_option_at(tcp, end, at)) < end; at += tcp[at + 1]) {
		if (tcp[at] == TCP_OPTION_TIMESTAMPS && tcp[at + 1] == 10 && !down)
			shift_word(tcp, at + 2, ts, &delta);
		else if (tcp[at] == TCP_OPTION_TIMESTAMPS && tcp[at + 1] == 10 && acks && !is_zero(tcp + at + 6))
			shift_word(tcp, at + 6, ts, &delta);
		for (unsigned edge = at + 2; tcp[at] == TCP_OPTION_SACK && down && edge + 4 <= at + tcp[at + 1];
		     edge += 4)
			shift_word(tcp, edge, seq, &delta);
	}
	if (len < 18)
		return delta;
	memcpy(&check_be, tcp + 16, 2);
	check_be = csum_apply(check_be, csum_delta_fold(delta));
	csum_replace(tcp, 16, &check_be, 2, &delta);
	return delta;
}

/* Left for a backend. */
static void take_back(struct sent *s)
{
	struct rte_tcp_hdr *header = (void *)(s->frame + s->p.l4_off);
	struct upstream u =
		upstream_of(packet_dst(s->frame, &s->p), s->p.dport_be, packet_src(s->frame, &s->p), s->p.sport_be);
	const struct upstream *known;

	if (s->port != RIG_LAN || bare || s->p.kind != PACKET_TCP)
		return;
	if ((s->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		learn_shifts(&u);
	known = find_upstream(&u);
	if (known)
		shift_tcp((uint8_t *)header, s->p.l3_off + s->p.ip_len - s->p.l4_off, known, false, -1);
}

/* A quoted packet went to a backend. */
static void shift_quote(uint8_t *icmp, unsigned len, uint8_t family)
{
	struct icmp_quote q;
	const struct upstream *known;
	struct upstream u;
	uint32_t delta;
	uint16_t check_be;

	if (icmp_quote_parse(icmp, len, family, &q) != ICMP_QUOTE_OK || q.proto != PROTO_TCP)
		return;
	u = upstream_of(q.dst, q.dport_be, q.src, q.sport_be);
	known = find_upstream(&u);
	if (!known)
		return;
	delta = shift_tcp(icmp + q.l4_off, q.l4_len, known, false, 1);
	memcpy(&check_be, icmp + 2, 2);
	check_be = csum_apply(check_be, csum_delta_fold(delta));
	memcpy(icmp + 2, &check_be, 2);
}

/* Comes from a backend. */
static void shift_answer(uint8_t *frame, size_t len)
{
	struct packet p;
	const struct upstream *known;
	struct upstream u;

	if (bare || parse(frame, len, &p) != VERDICT_NONE || p.flags & PACKET_FRAGMENT)
		return;
	if (p.kind == PACKET_ICMP_ERROR)
		shift_quote(frame + p.l4_off, p.l3_off + p.ip_len - p.l4_off, p.family);
	if (p.kind != PACKET_TCP)
		return;
	u = upstream_of(packet_src(frame, &p), p.sport_be, packet_dst(frame, &p), p.dport_be);
	known = find_upstream(&u);
	if (known)
		shift_tcp(frame + p.l4_off, p.l3_off + p.ip_len - p.l4_off, known, true, 1);
}

static uint64_t digest;

/* --- ends of the wire --- */

void start(struct rig_config config)
{
	config.flows_v4 = config.flows_v4 ? config.flows_v4 : 128;
	config.flows_v6 = config.flows_v6 ? config.flows_v6 : 128;
	config.n_snat = config.n_snat ? config.n_snat : 1;
	config.n_mbufs = 4095;
	memset(upstreams, 0, sizeof(upstreams));
	bare = false;
	n_workers = config.n_workers ? config.n_workers : 1;
	digest = UINT64_C(0xcbf29ce484222325);
	assert_int_equal(rig_create(&rig, &config), 0);
}

void turn(void)
{
	for (unsigned i = 0; i < n_workers; i++)
		worker_run_once(rig.dp->workers[i]);
	/* What they handed to each other. */
	for (unsigned i = 0; n_workers > 1 && i < n_workers; i++)
		worker_run_once(rig.dp->workers[i]);
}

static uint64_t made(const struct ledger *l)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < MADE_COUNT; i++)
		n += l->made[i];
	return n;
}

/* Flows and tuples hold a port and a use of their backend's slot each, and nobody else does. */
static void check_holds(const struct worker *w)
{
	uint64_t users = 0, held = 0, ports = 0;

	for (uint32_t i = 0; i < w->dp->config.n_backend_slots; i++) {
		users += w->backends[i].users;
		assert_true(w->backends[i].connects <= w->backends[i].new_flows);
		held += w->backends[i].held;
	}
	for (uint32_t i = 0; i < w->snat.n_pairs; i++)
		ports += w->snat.pairs[i].used;
	assert_int_equal(users, w->wheel.n_flows);
	assert_int_equal(held, tuples_count(&w->tuples));
	assert_int_equal(ports, users + held + snat_resting(&w->snat));
}

/* A-7, and that levels are what flows say. */
static void check_signals(const struct worker *w)
{
	const char *wrong = books_signals_error(w);

	if (wrong)
		fail_msg("%s", wrong);
}

/* Attempts, per service and worker; and what is held is inside. */
static void check_attempts(const struct worker *w)
{
	uint64_t holding = 0;

	for (uint32_t i = 0; i < w->dp->config.n_service_slots; i++) {
		const struct service_cell *c = &w->services[i];

		assert_int_equal(c->attempts, c->new_flows + c->refused + c->silent + c->holding);
		holding += c->holding;
	}
	assert_int_equal(w->ledger.inside, holding);
	assert_int_equal(w->holds.n_real, holding);
}

void check_books(void)
{
	uint64_t handed_over = 0, taken_over = 0;

	for (unsigned i = 0; i < n_workers; i++) {
		const struct worker *w = rig.dp->workers[i];
		const struct ledger *l = &w->ledger;

		assert_int_equal(ledger_balance(l), 0);
		assert_int_equal(l->tx + l->tx_failed,
				 ledger_class(l, CLASS_FORWARDED) + ledger_class(l, CLASS_ANSWERED) + made(l));
		handed_over += l->verdicts[VERDICT_handed_over];
		taken_over += l->taken_over;
		assert_int_equal(w->wheel.n_flows, w->flows.pool4.in_use + w->flows.pool6.in_use);
		assert_int_equal(w->wheel.n_flows, w->flows.adds - w->flows.removes);
		check_holds(w);
		check_signals(w);
		check_attempts(w);
	}
	assert_int_equal(handed_over, taken_over);
}

void stop(void)
{
	check_books();
	assert_int_equal(rte_mempool_in_use_count(rig.dp->pool), 0);
	rig_destroy(&rig);
}

void feed_raw(enum rig_port port, unsigned queue, const uint8_t *frame, size_t len)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(rig.dp->pool);

	assert_non_null(m);
	memcpy(rte_pktmbuf_append(m, len), frame, len);
	if (port == RIG_LAN)
		shift_answer(rte_pktmbuf_mtod(m, uint8_t *), len);
	assert_int_equal(memport_feed(rig.ports[port], queue, RX_KNOWN, &m, 1), 1);
}

void feed(enum rig_port port, struct frame_spec spec)
{
	uint8_t frame[FRAME_MAX];
	size_t len = frame_make(&spec, frame);

	feed_raw(port, 0, frame, len);
}

/* FNV-1a. */
static void add_to_digest(const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		digest = (digest ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
}

uint64_t taken(void)
{
	return digest;
}

/* The next frame that left through any port, headers and checksums right; false: none. */
bool take(struct sent *s)
{
	for (unsigned q = 0; q < n_workers; q++)
		for (int port = 0; port < RIG_PORTS; port++) {
			struct rte_mbuf *m;

			if (!memport_take(rig.ports[port], q, &m, 1))
				continue;
			s->port = port;
			s->len = m->data_len;
			memcpy(s->frame, rte_pktmbuf_mtod(m, void *), s->len);
			rte_pktmbuf_free(m);
			assert_int_equal(parse(s->frame, s->len, &s->p), VERDICT_NONE);
			assert_memory_equal(s->frame + 6, rig_mac[port], 6);
			add_to_digest(s->frame, s->len);
			add_to_digest(&rig.now_ns, sizeof(rig.now_ns));
			take_back(s);
			return true;
		}
	return false;
}

void take_right(struct sent *s)
{
	assert_true(take(s));
	assert_null(frame_checksum_error(s->frame));
}

void take_none(void)
{
	struct sent s;

	assert_false(take(&s));
}

struct sent exchange(enum rig_port port, struct frame_spec spec)
{
	struct sent s;

	feed(port, spec);
	turn();
	take_right(&s);
	take_none();
	return s;
}

/* Until the limits allow a source its next answer. */
void rest(void)
{
	for (int i = 0; i < 30; i++) {
		rig.now_ns += STEP_NS;
		turn();
	}
}

unsigned take_all(void)
{
	unsigned n = 0;

	for (struct sent s; take(&s); n++)
		assert_null(frame_checksum_error(s.frame));
	return n;
}

void each_way(void (*test)(bool v6, unsigned workers))
{
	for (unsigned workers = 1; workers <= 2; workers++)
		for (int v6 = 0; v6 < 2; v6++)
			test(v6, workers);
}

uint64_t did(enum action a)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->ledger.did[a];
	return n;
}

uint64_t would(enum action a)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->ledger.would[a];
	return n;
}

uint64_t verdicts(enum verdict v)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->ledger.verdicts[v];
	return n;
}

/* Nothing leaves, and that is why. */
void refused(enum rig_port port, struct frame_spec spec, enum verdict why)
{
	uint64_t before = verdicts(why);

	feed(port, spec);
	turn();
	take_none();
	assert_int_equal(verdicts(why), before + 1);
}

const struct rte_tcp_hdr *tcp(const struct sent *s)
{
	return (const void *)(s->frame + s->p.l4_off);
}

uint32_t seq(const struct sent *s)
{
	return ntohl(tcp(s)->sent_seq);
}

uint32_t ack(const struct sent *s)
{
	return ntohl(tcp(s)->recv_ack);
}

void check_rst(const struct sent *s, enum rig_port port, uint8_t flags, uint32_t want_seq, uint32_t want_ack)
{
	assert_int_equal(s->port, port);
	assert_int_equal(s->p.kind, PACKET_TCP);
	assert_int_equal(s->p.tcp_flags, flags);
	assert_int_equal(seq(s), want_seq);
	assert_int_equal(ack(s), want_ack);
	assert_int_equal(s->p.payload_len, 0);
}

/* --- a conversation --- */

struct frame_spec from_client(const struct talk *t, uint8_t flags, uint32_t seq, uint32_t ack)
{
	return (struct frame_spec){
		.src = rig_client(t->client, t->v6),
		.dst = rig_vip(t->v6),
		.sport_be = rig_client_port_be(t->client),
		.dport_be = htons(t->proto == PROTO_TCP ? 80 : 53),
		.proto = t->proto,
		.tcp_flags = flags,
		.seq_be = htonl(seq),
		.ack_be = htonl(ack),
	};
}

struct frame_spec from_backend(const struct talk *t, uint8_t flags, uint32_t seq, uint32_t ack)
{
	return (struct frame_spec){
		.src = t->backend,
		.dst = t->snat,
		.sport_be = htons(8080),
		.dport_be = t->snat_port_be,
		.proto = t->proto,
		.tcp_flags = flags,
		.seq_be = htonl(seq),
		.ack_be = htonl(ack),
	};
}

struct frame_spec with_payload(struct frame_spec spec, uint16_t len)
{
	spec.payload_len = len;
	return spec;
}

void learn(struct talk *t, const struct sent *s)
{
	assert_int_equal(s->port, RIG_LAN);
	t->snat = packet_src(s->frame, &s->p);
	t->backend = packet_dst(s->frame, &s->p);
	t->snat_port_be = s->p.sport_be;
	assert_int_equal(s->p.dport_be, htons(8080));
}

struct talk begin(uint8_t proto, bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = proto, .client = client};
	struct sent s = exchange(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));

	learn(&t, &s);
	return t;
}

struct talk establish(bool v6, unsigned client)
{
	struct talk t = begin(PROTO_TCP, v6, client);

	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	return t;
}

uint32_t n_flows(void)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->wheel.n_flows;
	return n;
}

/* The state of the first worker's only flow. */
enum flow_state only_state(bool v6)
{
	const struct worker *w = rig.worker;

	assert_int_equal(v6 ? w->flows.pool6.in_use : w->flows.pool4.in_use, 1);
	return flow_half(&w->flows, flow_ref_make(v6, v6 ? w->flows.pool6.free[0] : w->flows.pool4.free[0], DIR_UP))
		->state;
}

void pass_ms(uint64_t ms)
{
	for (uint64_t end_ns = rig.now_ns + ms * 1000000; rig.now_ns < end_ns;) {
		rig.now_ns += end_ns - rig.now_ns < STEP_NS ? end_ns - rig.now_ns : STEP_NS;
		turn();
	}
}

/* --- ICMP errors --- */

size_t make_error(uint8_t *out, const uint8_t *about, struct ipaddr from, uint8_t type, uint8_t code, uint32_t word)
{
	struct packet p;
	struct frame_spec spec = {.src = from, .sport_be = htons(type << 8 | code)};
	uint8_t *icmp, quoted[FRAME_MAX];
	size_t len;

	assert_int_equal(parse(about, FRAME_MAX, &p), VERDICT_NONE);
	spec.dst = packet_src(about, &p);
	spec.proto = p.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	spec.payload_len = p.ip_len;
	memcpy(quoted, about + p.l3_off, p.ip_len);
	len = frame_make(&spec, out);
	icmp = out + ETH + (p.family == 4 ? 20 : 40);
	word = htonl(word);
	memcpy(icmp + 4, &word, 4);
	memcpy(icmp + 8, quoted, p.ip_len);
	memset(icmp + 2, 0, 2);
	if (p.family == 4) {
		uint16_t sum = ~rte_raw_cksum(icmp, p.ip_len + 8);

		memcpy(icmp + 2, &sum, 2);
	} else {
		uint32_t sum = rte_ipv6_phdr_cksum((void *)(out + ETH), 0) + rte_raw_cksum(icmp, p.ip_len + 8);
		uint16_t folded = ~((sum & 0xffff) + (sum >> 16));

		memcpy(icmp + 2, &folded, 2);
	}
	assert_null(frame_checksum_error(out));
	return len;
}

void check_error(const struct sent *s, enum rig_port port, const struct frame_spec *about)
{
	struct ipaddr src = packet_src(s->frame, &s->p), dst = packet_dst(s->frame, &s->p);
	struct icmp_quote q;

	assert_int_equal(s->port, port);
	assert_int_equal(s->p.kind, PACKET_ICMP_ERROR);
	assert_int_equal(icmp_quote_parse(s->frame + s->p.l4_off, s->p.payload_len + ETH - 6, s->p.family, &q),
			 ICMP_QUOTE_OK);
	assert_true(ipaddr_equal(&q.src, &about->src) && ipaddr_equal(&q.dst, &about->dst));
	assert_int_equal(q.sport_be, about->sport_be);
	assert_int_equal(q.dport_be, about->dport_be);
	if (about->proto == PROTO_TCP)
		assert_int_equal(q.seq_be, about->seq_be);
	assert_true(ipaddr_equal(&src, &about->dst) && ipaddr_equal(&dst, &about->src));
}
