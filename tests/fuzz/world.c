/* SPDX-License-Identifier: BSD-3-Clause */
#include "world.h"

#include "action.h"
#include "books.h"
#include "icmp.h"
#include "memport.h"
#include "place.h"
#include "worker.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#define ETH        14
#define MADE_TTL   64
#define STEP_NS    50000000 /* a longer gap is one in which the worker did not run */
#define FED        256
#define BETWEEN_NS 1000000 /* two packets, that come one by one */
#define SECOND_NS  UINT64_C(1000000000)
#define WRAP_NS    (137 * SECOND_NS)
#define NEAR       (8u << 16) /* of true numbers: the widest window that the gateway takes for one, and more */

struct world world;

/* --- who is who --- */

static struct ipaddr client_address(const struct world_conn *c)
{
	return rig_client(c->client, c->v6);
}

int world_find_conn(const struct ipaddr *addr, uint16_t port_be, bool udp)
{
	for (int i = 0; i < WORLD_CONNS; i++) {
		struct ipaddr client = client_address(&world.conns[i]);

		if (ipaddr_equal(addr, &client) && port_be == world.conns[i].port_be && udp == world.conns[i].udp)
			return i;
	}
	return -1;
}

struct world_server *world_find_server(const struct ipaddr *backend, const struct ipaddr *snat, uint16_t snat_port_be)
{
	for (int i = 0; i < WORLD_SERVERS; i++) {
		struct world_server *s = &world.servers[i];

		if (s->used && s->snat_port_be == snat_port_be && ipaddr_equal(&s->backend, backend) &&
		    ipaddr_equal(&s->snat, snat))
			return s;
	}
	return NULL;
}

/* The one that was idle longest gives way. */
static struct world_server *claim_server(const struct ipaddr *backend, uint16_t backend_port_be,
					 const struct ipaddr *snat, uint16_t snat_port_be)
{
	struct world_server *s = world_find_server(backend, snat, snat_port_be), *oldest = &world.servers[0];

	if (s)
		return s;
	for (int i = 0; i < WORLD_SERVERS; i++)
		if (world.servers[i].used_ns < oldest->used_ns)
			oldest = &world.servers[i];
	for (int i = 0; i < WORLD_CONNS; i++)
		if (world.conns[i].server == oldest - world.servers) {
			world.conns[i].server = -1;
			world.conns[i].established = false;
		}
	*oldest = (struct world_server){.used = true,
					.backend = *backend,
					.snat = *snat,
					.backend_port_be = backend_port_be,
					.snat_port_be = snat_port_be,
					.conn = -1};
	return oldest;
}

struct world_server *world_server_of(int conn)
{
	struct world_conn *c = &world.conns[conn];
	struct world_server *s = c->server < 0 ? NULL : &world.servers[c->server];

	return s && s->conn == conn && s->life == c->life ? s : NULL;
}

void world_put_address(uint8_t *to, const struct ipaddr *addr)
{
	uint32_t v4_be = ipaddr_v4_be(addr);

	if (ipaddr_is_v4(addr))
		memcpy(to, &v4_be, 4);
	else
		memcpy(to, addr->b, 16);
}

struct peer_ends world_ends(int conn, int leg)
{
	const struct world_conn *c = &world.conns[conn];
	struct peer_ends ends = {.v6 = c->v6, .ttl = world.ttl ? world.ttl : PEER_TTL};
	struct ipaddr client = client_address(c), vip = rig_vip(c->v6);
	const struct world_server *s = c->server < 0 ? NULL : &world.servers[c->server];

	if (leg == LEG_CLIENT) {
		world_put_address(ends.src, &client);
		world_put_address(ends.dst, &vip);
		ends.sport_be = c->port_be;
		ends.dport_be = htons(c->udp ? 53 : 80);
	} else if (s) {
		world_put_address(ends.src, &s->backend);
		world_put_address(ends.dst, &s->snat);
		ends.sport_be = s->backend_port_be;
		ends.dport_be = s->snat_port_be;
	}
	return ends;
}

/* --- the gateway's side --- */

static flow_ref lookup(const struct worker *w, const struct ipaddr *src, uint16_t sport_be, const struct ipaddr *dst,
		       uint16_t dport_be, uint8_t proto)
{
	const uint8_t *secret = w->dp->config.secret;
	struct flow_key4 key4 = {
		.src_be = ipaddr_v4_be(src), .dst_be = ipaddr_v4_be(dst), .sport_be = sport_be, .dport_be = dport_be};
	struct flow_key6 key6 = {.sport_be = sport_be, .dport_be = dport_be};

	memcpy(key6.src, src->b, 16);
	memcpy(key6.dst, dst->b, 16);
	if (ipaddr_is_v4(src))
		return flow_lookup4(&w->flows, &key4, proto, flow_hash4(&key4, proto, secret));
	return flow_lookup6(&w->flows, &key6, proto, flow_hash6(&key6, proto, secret));
}

/* Of packets that come so; FLOW_REF_NONE if there is none. */
static flow_ref find_flow(const struct ipaddr *src, uint16_t sport_be, const struct ipaddr *dst, uint16_t dport_be,
			  uint8_t proto, const struct worker **w)
{
	for (unsigned i = 0; i < world.n_workers; i++) {
		flow_ref ref;

		*w = world.rig.dp->workers[i];
		ref = lookup(*w, src, sport_be, dst, dport_be, proto);
		if (ref != FLOW_REF_NONE)
			return ref;
	}
	return FLOW_REF_NONE;
}

flow_ref world_flow(int conn, const struct worker **w)
{
	const struct world_conn *c = &world.conns[conn];
	struct ipaddr client = client_address(c), vip = rig_vip(c->v6);

	return find_flow(&client, c->port_be, &vip, htons(c->udp ? 53 : 80), c->udp ? PROTO_UDP : PROTO_TCP, w);
}

uint64_t world_verdicts(enum verdict v)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < world.n_workers; i++)
		n += world.rig.dp->workers[i]->ledger.verdicts[v];
	return n;
}

static uint64_t untold(void)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < world.n_workers; i++)
		n += world.rig.dp->workers[i]->ledger.did[ACTION_rst_untold];
	return n;
}

/* --- what came in, so that what leaves can be compared with it --- */

static struct fed {
	uint32_t id;
	bool gone, right;
	int leg;
	struct packet p;
	struct peer_segment s;
	size_t len;
	uint8_t bytes[1600];
} feds[FED];
static uint32_t last_id;

static bool is_right(const uint8_t *frame)
{
	return frame_checksum_error(frame) == NULL;
}

/* What left in that buffer is what came in it; NULL: it is another packet, that the gateway made. */
static struct fed *fed_of(const struct rte_mbuf *m, int leg, const uint8_t *frame, const struct packet *p)
{
	struct fed *f = &feds[m->dynfield1[0] % FED];

	if (f->id != m->dynfield1[0] || f->gone || f->leg == leg || p->kind != f->p.kind || p->ttl == MADE_TTL)
		return NULL;
	if (p->kind == PACKET_TCP && (p->tcp_flags != f->p.tcp_flags || p->payload_len != f->p.payload_len))
		return NULL;
	/* A SYN that was held is made again with the hops of its own, perhaps where another one was. */
	if (p->kind == PACKET_TCP && p->tcp_flags & TCP_SYN && p->ttl != f->p.ttl - 1)
		return NULL;
	return f;
}

/* --- judges of what leaves --- */

static void judge_bytes(const struct fed *f, const uint8_t *frame, const struct packet *p)
{
	world_check(p->ttl == f->p.ttl - 1, "D-7: TTL %u became %u", f->p.ttl, p->ttl);
	if (p->kind > PACKET_UDP)
		return;
	world_check(p->payload_len == f->p.payload_len, "D-4: %u bytes became %u", f->p.payload_len, p->payload_len);
	world_check(!memcmp(frame + p->payload_off, f->bytes + f->p.payload_off, p->payload_len),
		    "D-4: other bytes left than came");
}

/* Of a packet on the backends' side of the gateway. */
static const struct world_server *server_of(const uint8_t *frame, const struct packet *p, bool up)
{
	struct ipaddr src = packet_src(frame, p), dst = packet_dst(frame, p);

	return up ? world_find_server(&dst, &src, p->sport_be) : world_find_server(&src, &dst, p->dport_be);
}

/* D-2, of a forwarded segment whose connection's SYN was seen. */
static void judge_numbers(const struct fed *f, int leg, const uint8_t *frame, const struct packet *p)
{
	bool up = leg == LEG_BACKEND;
	const struct world_server *s = up ? server_of(frame, p, true) : server_of(f->bytes, &f->p, false);
	struct ipaddr client = up ? packet_src(f->bytes, &f->p) : packet_dst(frame, p);
	int conn = world_find_conn(&client, up ? f->p.sport_be : p->dport_be, false);
	struct peer_segment left;
	uint32_t shift, ts_shift;

	/* The SYN of this life did not get through, or the port's one is not this client's. */
	if (!s || s->conn < 0 || s->life != world.conns[s->conn].life || s->conn != conn)
		return;
	peer_read(frame + p->l4_off, p->payload_len, &left);
	shift = s->shift;
	ts_shift = s->ts_shift;
	world_check(left.seq == f->s.seq + (up ? shift : 0), "D-2: seq %u became %u, shifted by %u", f->s.seq, left.seq,
		    shift);
	if (f->s.flags & TCP_ACK)
		world_check(left.ack == f->s.ack - (up ? 0 : shift), "D-2: ack %u became %u, shifted by %u", f->s.ack,
			    left.ack, shift);
	world_check(left.n_sacks == f->s.n_sacks && left.timestamps == f->s.timestamps, "D-2: options were lost");
	for (unsigned i = 0; i < left.n_sacks; i++)
		for (unsigned edge = 0; edge < 2; edge++)
			world_check(left.sacks[i][edge] == f->s.sacks[i][edge] - (up ? 0 : shift),
				    "D-2: SACK edge %u became %u, shifted by %u", f->s.sacks[i][edge],
				    left.sacks[i][edge], shift);
	if (!left.timestamps || !s->has_ts)
		return;
	world_check(left.tsval == f->s.tsval + (up ? ts_shift : 0), "D-2: TSval %u became %u, shifted by %u",
		    f->s.tsval, left.tsval, ts_shift);
	if (f->s.flags & TCP_ACK && f->s.tsecr)
		world_check(left.tsecr == f->s.tsecr - (up ? 0 : ts_shift), "D-2: TSecr %u became %u, shifted by %u",
			    f->s.tsecr, left.tsecr, ts_shift);
}

static bool quote_of(const uint8_t *frame, const struct packet *p, struct icmp_quote *q)
{
	return icmp_quote_parse(frame + p->l4_off, p->l3_off + p->ip_len - p->l4_off, p->family, q) == ICMP_QUOTE_OK;
}

/* C-3: what is quoted is what the receiver of the error had sent, in its numbers. */
static void judge_quote(const struct fed *f, int leg, const uint8_t *frame, const struct packet *p)
{
	const struct world_server *s;
	struct icmp_quote was, is;

	world_check(quote_of(frame, p, &is), "C-3: an error left whose quote cannot be read");
	if (!quote_of(f->bytes, &f->p, &was) || is.proto != PROTO_TCP)
		return;
	s = leg == LEG_CLIENT ? world_find_server(&was.dst, &was.src, was.sport_be)
			      : world_find_server(&is.src, &is.dst, is.dport_be);
	/* Quoted is what went to the backend, or what it sent, which nobody shifts. */
	if (leg == LEG_CLIENT && s && s->conn >= 0)
		world_check(ntohl(is.seq_be) == ntohl(was.seq_be) - s->shift, "C-3: quoted seq %u became %u",
			    ntohl(was.seq_be), ntohl(is.seq_be));
	else if (leg == LEG_BACKEND)
		world_check(is.seq_be == was.seq_be, "C-3: quoted seq %u became %u", ntohl(was.seq_be),
			    ntohl(is.seq_be));
}

/* D-10: a port's next connection lies ahead of the one before, as long as that may be remembered. */
static void judge_successor(const struct world_server *s, uint32_t isn, bool has_ts, uint32_t tsval)
{
	if (!s->before.is || world.options.untranslated || world.rig.now_ns - s->before.at_ns >= WRAP_NS)
		return;
	/* Another number of the same attempt is shifted as the first one, and lies anywhere. */
	world_check(!s->before.is_first || (int32_t)(isn - s->before.isn) > 0,
		    "D-10: ISN %u follows %u at the same port", isn, s->before.isn);
	if (has_ts && s->before.has_ts && (s->before.is_first || !s->before.first_has_ts))
		world_check((int32_t)(tsval - s->before.tsval) > 0, "D-10: TSval %u follows %u at the same port", tsval,
			    s->before.tsval);
}

/* A SYN left for a backend. */
static void note_syn(const uint8_t *frame, const struct packet *p)
{
	struct ipaddr src = packet_src(frame, p), dst = packet_dst(frame, p);
	struct world_server *s = claim_server(&dst, p->dport_be, &src, p->sport_be);
	const struct worker *w;
	flow_ref ref = find_flow(&dst, p->dport_be, &src, p->sport_be, PROTO_TCP, &w);
	struct peer_segment syn;
	struct flow_addrs a;
	const struct flow_half *half;
	int conn;

	peer_read(frame + p->l4_off, p->payload_len, &syn);
	s->used_ns = world.rig.now_ns;
	if (ref == FLOW_REF_NONE) {
		s->conn = -1;
		return;
	}
	half = flow_half(&w->flows, flow_ref_up(ref));
	flow_addrs(&w->flows, ref, &a);
	conn = world_find_conn(&a.client, a.client_port_be, false);
	if (s->shift != half->seq_shift || s->conn != conn) {
		if (s->answered.is)
			s->before = s->answered;
		s->answered.is = false;
		/* Where there was no way for the first one, it is another that leaves first. */
		s->first_isn = flow_syn(&w->flows, ref)->first.isn + half->seq_shift;
		s->first_has_ts = flow_syn(&w->flows, ref)->first.timestamps;
		if (syn.seq == s->first_isn)
			judge_successor(s, syn.seq, syn.timestamps, syn.tsval);
	}
	s->conn = conn;
	s->shift = half->seq_shift;
	s->ts_shift = half->ts_shift;
	s->has_ts = syn.timestamps;
	s->syn_ns = world.rig.now_ns;
	if (conn < 0)
		return;
	s->life = world.conns[conn].life;
	world.conns[conn].server = s - world.servers;
	world.conns[conn].established = false;
}

/* Its backend takes no timestamps: there are none to shift. */
static void note_syn_ack(const struct fed *f)
{
	struct ipaddr src = packet_src(f->bytes, &f->p), dst = packet_dst(f->bytes, &f->p);
	struct world_server *s = world_find_server(&src, &dst, f->p.dport_be);

	if (s)
		s->has_ts &= f->s.timestamps;
}

static void note_end(int leg, const uint8_t *frame, const struct packet *p)
{
	struct ipaddr src = packet_src(frame, p), dst = packet_dst(frame, p);
	const struct world_server *s = leg == LEG_BACKEND ? world_find_server(&dst, &src, p->sport_be) : NULL;
	int conn = leg == LEG_CLIENT ? world_find_conn(&dst, p->dport_be, false) : s ? s->conn : -1;

	if (conn < 0 || (s && s->life != world.conns[conn].life))
		return;
	world.conns[conn].told[leg] |= !!(p->tcp_flags & TCP_RST);
	world.conns[conn].closed[leg] |= !!(p->tcp_flags & TCP_FIN);
}

static const char *flags_text(uint8_t flags)
{
	static char text[4][8];
	static unsigned n;
	char *t = text[n++ & 3];

	snprintf(t, 8, "%s%s%s%s", flags & TCP_SYN ? "S" : "", flags & TCP_FIN ? "F" : "", flags & TCP_RST ? "R" : "",
		 flags & TCP_ACK ? "." : "");
	return t;
}

static const char *options_text(const struct peer_segment *s)
{
	static char text[80];

	text[0] = 0;
	if (s->timestamps)
		snprintf(text, sizeof(text), " ts %u/%u", s->tsval, s->tsecr);
	if (s->n_sacks)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), " sack %u-%u", s->sacks[0][0],
			 s->sacks[0][1]);
	return text;
}

static void tell_frame(const char *what, int leg, const uint8_t *frame, const struct packet *p)
{
	char a[IPADDR_STRLEN], b[IPADDR_STRLEN];
	struct ipaddr src = packet_src(frame, p), dst = packet_dst(frame, p);

	ipaddr_format(&src, a);
	ipaddr_format(&dst, b);
	if (p->kind == PACKET_TCP) {
		struct peer_segment seg;

		peer_read(frame + p->l4_off, p->payload_len, &seg);
		world_say_so("%s %s %s:%u > %s:%u %s seq %u ack %u len %u win %u%s", what, leg ? "lan" : "wan", a,
			     ntohs(p->sport_be), b, ntohs(p->dport_be), flags_text(p->tcp_flags), seg.seq, seg.ack,
			     p->payload_len, seg.window, options_text(&seg));
	} else {
		world_say_so("%s %s %s > %s %s %u bytes", what, leg ? "lan" : "wan", a, b,
			     p->kind == PACKET_UDP ? "UDP" : "ICMP", p->ip_len);
	}
}

static void put_on_wire(int leg, const uint8_t *frame, size_t len, bool made)
{
	struct world_frame *f, *memory = &world.sent[leg][world.n_sent[leg]++ % WORLD_OLD];

	if (world.n_wires[leg] == WORLD_WIRE)
		world_drop(leg, 0);
	f = &world.wires[leg][world.n_wires[leg]++];
	*f = (struct world_frame){.len = len, .made = made, .true_cause = world.true_cause, .turn = world.turns};
	memcpy(f->bytes, frame, len);
	*memory = *f;
}

static void judge_left(int leg, struct rte_mbuf *m)
{
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *);
	struct packet p;
	struct fed *f;

	world_check(m->nb_segs == 1 && m->pkt_len == m->data_len && m->data_len <= 1600, "a frame in pieces");
	world_check(parse(frame, m->data_len, &p) == VERDICT_NONE, "a frame left that cannot be read");
	world_check(!memcmp(frame + 6, rig_mac[leg], 6), "a frame left with another port's address");
	f = fed_of(m, leg, frame, &p);
	tell_frame(f ? "  out" : "  made", leg, frame, &p);
	world_check(is_right(frame) == (f ? f->right : true), "D-6: checksums %s: %s",
		    f ? "of what was forwarded" : "made",
		    frame_checksum_error(frame) ? frame_checksum_error(frame) : "right, and came wrong");
	if (p.kind == PACKET_TCP && leg == LEG_BACKEND && (p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		note_syn(frame, &p);
	if (f) {
		f->gone = true;
		judge_bytes(f, frame, &p);
		if (p.kind == PACKET_TCP)
			judge_numbers(f, leg, frame, &p);
		else if (p.kind == PACKET_ICMP_ERROR)
			judge_quote(f, leg, frame, &p);
	}
	if (p.kind == PACKET_TCP && p.tcp_flags & (TCP_RST | TCP_FIN))
		note_end(leg, frame, &p);
	put_on_wire(leg, frame, m->data_len, !f);
	rte_pktmbuf_free(m);
}

/* --- turns --- */

static bool take_all(void)
{
	struct rte_mbuf *m;
	bool any = false;

	for (unsigned q = 0; q < world.n_workers; q++)
		for (int leg = 0; leg < LEGS; leg++)
			while (memport_take(world.rig.ports[leg], q, &m, 1)) {
				judge_left(leg, m);
				any = true;
			}
	return any;
}

static void forget_fed(void)
{
	for (unsigned i = 0; i < FED; i++)
		feds[i].gone = true;
}

static void judge_books(void)
{
	const char *error = books_error(world.rig.dp);

	world_check(!error, "the books: %s", error);
	world_check(rte_mempool_in_use_count(world.rig.dp->pool) == 0, "a buffer is lost");
}

/* Returns whether anything left. */
static bool turn(void)
{
	bool any;

	world.turns++;
	for (unsigned i = 0; i < world.n_workers * world.n_workers; i++)
		worker_run_once(world.rig.dp->workers[i % world.n_workers]);
	any = take_all();
	return any;
}

static void take_notes(void)
{
	struct note notes[64];
	size_t n;

	while ((n = dataplane_notes(world.rig.dp, notes, 64)))
		for (size_t i = 0; i < n; i++)
			if (notes[i].kind == NOTE_PATH_MTU)
				dataplane_path_learn(world.rig.dp, notes[i].path.upstream, &notes[i].path.to,
						     notes[i].path.mtu);
}

static void run(void)
{
	turn();
	forget_fed();
	judge_books();
}

void world_batch(bool begins)
{
	world.batch = begins;
	if (!begins)
		run();
	world.true_cause = true;
}

/* --- judges of connections --- */

/* D-1. The model knows both ends; the gateway may only let go of what ended for both. */
static void judge_life(int i)
{
	struct world_conn *c = &world.conns[i];
	const struct world_server *s = world_server_of(i);
	const struct worker *w;
	struct flow_addrs a;
	flow_ref ref;

	if (c->udp)
		return;
	if (!c->established) {
		c->established = s && peer_is_open(&c->peer) && peer_is_open(&s->peer) && c->peer.irs == s->peer.iss &&
				 s->peer.irs == c->peer.iss + s->shift;
		if (!c->established)
			return;
		c->untold = untold();
		ref = world_flow(i, &w);
		/* It has the modes of its birth. */
		c->tainted |=
			ref == FLOW_REF_NONE || flow_mode(flow_track(&w->flows, ref), CURE_SILENCE) != CURE_ENFORCE;
	}
	if (!s || c->tainted || c->untold != untold() || (c->told[0] && c->told[1]) || (c->closed[0] && c->closed[1]))
		return;
	ref = world_flow(i, &w);
	world_check(ref != FLOW_REF_NONE, "D-1: the connection of client %d is gone, and %s%s was not told", i,
		    c->told[0] ? "" : "its client", c->told[1] ? "" : " its backend");
	flow_addrs(&w->flows, ref, &a);
	world_check(ipaddr_equal(&a.snat, &s->snat) && a.snat_port_be == s->snat_port_be &&
			    ipaddr_equal(&a.backend, &s->backend),
		    "D-1: the connection of client %d went to another backend", i);
}

void world_judge(void)
{
	judge_books();
	for (unsigned i = 0; i < world.n_workers; i++) {
		const char *error = books_flows_error(world.rig.dp->workers[i]);

		world_check(!error, "D-8: the tables of worker %u: %s", i, error);
		error = books_signals_error(world.rig.dp->workers[i]);
		world_check(!error, "A-7: what worker %u counts of backends: %s", i, error);
	}
	for (int i = 0; i < WORLD_CONNS; i++)
		judge_life(i);
}

/* --- what comes in --- */

/* Whether the gateway might take it for a true one. */
static void taint_by(int conn, int leg, const struct peer_segment *s, enum origin origin)
{
	struct world_conn *c = &world.conns[conn];
	const struct worker *w;
	flow_ref ref = world_flow(conn, &w);
	const struct flow_half *half, *back;
	uint32_t ack;

	if (origin == ORIGIN_TRUE)
		return;
	if (ref == FLOW_REF_NONE) {
		c->tainted = true;
		return;
	}
	ref = leg == LEG_CLIENT ? ref : flow_ref_other(ref);
	half = flow_half(&w->flows, ref);
	back = flow_half(&w->flows, flow_ref_other(ref));
	ack = leg == LEG_CLIENT ? s->ack : s->ack + half->seq_shift;
	if (s->flags & TCP_RST)
		c->tainted |= half->state < FLOW_ESTABLISHED || s->seq == half->end || s->seq == back->ack;
	else if (s->flags & TCP_SYN)
		c->tainted |= half->state != FLOW_ESTABLISHED && half->state != FLOW_FIN_WAIT;
	else if (origin == ORIGIN_FORGED)
		c->tainted |= s->seq + s->len - half->end + NEAR <= 2 * NEAR && ack - half->ack + NEAR <= 2 * NEAR;
}

/* Promises about a single packet that comes: what is told of strays, and what must not be lost. */
struct before {
	uint64_t strays, forwarded, absorbed;
};

static struct before look(void)
{
	return (struct before){world_verdicts(VERDICT_answer_stray_rst), world_verdicts(VERDICT_forwarded),
			       world_verdicts(VERDICT_absorb_probe_answer)};
}

/* D-9: ten a second to one source. */
static void judge_stray(int conn, const struct before *b)
{
	unsigned source = conn < 0 ? 0 : world.conns[conn].client * 2 + world.conns[conn].v6;
	uint64_t *last = &world.strays_ns[source][world.stray_n[source] % 10];

	if (world_verdicts(VERDICT_answer_stray_rst) == b->strays || conn < 0)
		return;
	world_check(world.stray_n[source] < 10 || world.rig.now_ns - *last >= SECOND_NS * 9 / 10,
		    "D-9: more than ten RSTs a second to client %d", conn);
	*last = world.rig.now_ns;
	world.stray_n[source]++;
}

static bool is_translated(int conn)
{
	const struct worker *w;
	flow_ref ref = world_flow(conn, &w);

	return ref != FLOW_REF_NONE && flow_half(&w->flows, ref)->state >= FLOW_ESTABLISHED &&
	       flow_half(&w->flows, ref)->state <= FLOW_TIME_WAIT;
}

/* D-4, the half that counts what is lost: in the middle of a connection, what an end says gets there. */
static bool must_pass(int conn, int leg, enum origin origin, const uint8_t *frame, const struct packet *p)
{
	const struct world_conn *c = &world.conns[conn];

	if (origin != ORIGIN_TRUE || !world.healthy || !c->established || c->tainted || p->kind != PACKET_TCP ||
	    p->tcp_flags & (TCP_SYN | TCP_RST) || p->ttl < 2 || !is_right(frame) || !world_server_of(conn))
		return false;
	return is_translated(conn);
}

static void note_said(int conn, int leg, enum origin origin, const struct packet *p, const uint8_t *frame)
{
	struct world_conn *c = &world.conns[conn];
	struct peer_segment s;

	if (p->kind != PACKET_TCP)
		return;
	peer_read(frame + p->l4_off, p->payload_len, &s);
	taint_by(conn, leg, &s, origin);
	if (origin != ORIGIN_TRUE)
		return;
	if (s.flags & TCP_RST)
		c->told[0] = c->told[1] = true;
	/* If there is no way for it, the connection is over all the same. */
	if (s.flags & TCP_FIN)
		c->closed[!leg] = true;
	if (s.flags & TCP_ACK)
		c->acked[leg] = s.ack;
}

void world_feed(int leg, int conn, enum origin origin, const uint8_t *frame, size_t len)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(world.rig.dp->pool);
	struct world_frame *old = &world.old[leg][world.n_old[leg]++ % WORLD_OLD];
	struct fed *f = &feds[++last_id % FED];
	struct before before = look();
	bool passes;
	unsigned queue;

	world_check(m != NULL, "no buffer");
	*f = (struct fed){.id = last_id, .leg = leg, .len = len, .right = true};
	memcpy(f->bytes, frame, len);
	old->len = len;
	old->turn = conn < 0 ? 0 : world.conns[conn].life;
	memcpy(old->bytes, frame, len);
	if (parse(frame, len, &f->p) == VERDICT_NONE) {
		f->right = is_right(frame);
		tell_frame(origin == ORIGIN_TRUE     ? "in"
			   : origin == ORIGIN_REPEAT ? "in again"
						     : "in forged",
			   leg, frame, &f->p);
		if (f->p.kind == PACKET_TCP)
			peer_read(frame + f->p.l4_off, f->p.payload_len, &f->s);
		if (leg == LEG_BACKEND && f->p.kind == PACKET_TCP && f->p.tcp_flags & TCP_SYN)
			note_syn_ack(f);
	}
	passes = conn >= 0 && must_pass(conn, leg, origin, frame, &f->p);
	if (conn >= 0)
		note_said(conn, leg, origin, &f->p, frame);
	memcpy(rte_pktmbuf_append(m, len), frame, len);
	m->dynfield1[0] = last_id;
	world.true_cause = origin == ORIGIN_TRUE;
	if (conn >= 0)
		world.conns[conn].said_turn = world.turns + 1;
	queue = frame_random(&world.random) % world.n_workers;
	memport_feed(world.rig.ports[leg], world.batch ? 0 : queue,
		     f->p.kind == PACKET_TCP && (f->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN ? RX_NEW : RX_KNOWN,
		     &m, 1);
	/* What comes together is judged by less: which packet led to what is not told apart. */
	if (world.batch)
		return;
	world.rig.now_ns += BETWEEN_NS;
	run();
	world.true_cause = true;
	judge_stray(leg == LEG_CLIENT ? conn : -1, &before);
	/* Unless an order ended its connection in that very turn: D-1 says whether that was as it should be. */
	if (passes && is_translated(conn))
		world_check(world_verdicts(VERDICT_forwarded) > before.forwarded ||
				    (f->p.payload_len == 0 &&
				     world_verdicts(VERDICT_absorb_probe_answer) > before.absorbed),
			    "D-4: a segment of an established connection was lost");
}

bool world_say(int conn, int leg, enum origin origin, const struct peer_segment *s)
{
	struct peer_ends ends = world_ends(conn, leg);
	bool whole = !world.flip;
	uint8_t frame[1600];
	size_t len;

	if (leg == LEG_BACKEND && world.conns[conn].server < 0)
		return false;
	len = peer_frame(&ends, s, world.flip, frame);
	world.flip = 0;
	world.ttl = 0;
	if (world.lose) {
		world.lose--;
		world_say_so("lost before the gateway: %s of client %d", leg ? "the backend's" : "a segment", conn);
		return false;
	}
	world_feed(leg, conn, origin, frame, len);
	return whole;
}

/* --- time --- */

void world_pass_ms(uint64_t ms)
{
	uint64_t end_ns = world.rig.now_ns + ms * 1000000;

	world.passed_ms += ms;
	while (world.rig.now_ns < end_ns) {
		world.rig.now_ns += RTE_MIN(end_ns - world.rig.now_ns, (uint64_t)STEP_NS);
		if (!turn())
			continue;
		judge_books();
		if (world.prompt)
			world_settle();
	}
	judge_books();
	take_notes();
}

void world_stall_ms(uint64_t ms)
{
	world.rig.now_ns += ms * 1000000;
	run();
}

/* --- life --- */

static void set_caps(struct policy_storm *storm)
{
	for (int cap = 0; cap < STORM_CAPS; cap++)
		world_check(gcra_rate_init(&storm->caps[cap], 2 << cap, 1000000000, 1 << cap) == 0, "caps");
	storm->early = true;
}

static void set_short_times(struct policy_timeouts *t)
{
	t->probe_ms = 2000;
	t->unacked_ms = 4000;
	t->established_ms = 60000;
	t->fin_wait_ms = 20000;
	t->time_wait_ms = 8000;
	t->last_ack_ms = 8000;
}

static void make_conns(void)
{
	for (int i = 0; i < WORLD_CONNS; i++)
		world.conns[i] = (struct world_conn){.v6 = i & 1,
						     .udp = i >= WORLD_CONNS - 2,
						     .client = 1 + i / 4,
						     .port_be = htons(20000 + i / 2 % 2),
						     .server = -1};
}

void world_create(const struct world_options *options)
{
	struct rig_config config = {.flows_v4 = options->tiny_table ? 8 : 32,
				    .flows_v6 = options->tiny_table ? 8 : 32,
				    .n_mbufs = 1023,
				    .n_backends = WORLD_BACKENDS,
				    .n_snat = 1,
				    .n_workers = options->n_workers,
				    .n_holds = 64,
				    .n_clients = 64,
				    .now_ns = options->now_ns,
				    .untranslated = options->untranslated};

	memset(&world, 0, sizeof(world));
	forget_fed();
	world_forget();
	world.options = *options;
	world.n_workers = options->n_workers;
	world.prompt = world.healthy = world.true_cause = true;
	world.random = options->now_ns;
	if (rig_create(&world.rig, &config)) {
		fprintf(stderr, "no rig\n");
		abort();
	}
	for (int family = 0; family < SET_FAMILIES; family++)
		for (int proto = 0; proto < SET_PROTOS; proto++)
			memcpy(world.all[family][proto], world.rig.backends[family][proto],
			       sizeof(world.all[family][proto]));
	world.rig.service.storm.hold_ns = 300000000;
	world.rig.service.storm.retry_budget_ppm = 200000;
	if (options->caps)
		set_caps(&world.rig.service.storm);
	if (options->short_times)
		set_short_times(&world.rig.service.timeouts);
	world.without = world.rig.policy;
	world.without.listeners = listener_table_create(NULL, 0);
	make_conns();
}

void world_destroy(void)
{
	listener_table_destroy((struct listener_table *)world.without.listeners);
	rig_destroy(&world.rig);
}
