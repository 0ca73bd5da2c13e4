/* SPDX-License-Identifier: BSD-3-Clause */
/* What has left the gateway arrives at its ends: judges of RSTs and of streams, and what the ends say to it. */
#include "world.h"

#define SETTLE_MAX 64

void world_drop(int leg, unsigned place)
{
	memmove(&world.wires[leg][place], &world.wires[leg][place + 1],
		(--world.n_wires[leg] - place) * sizeof(world.wires[leg][0]));
}

/* Neither did what it sent to its peer get lost, nor what it acknowledged on its way to the gateway. */
static bool is_quiet(int conn, int leg)
{
	const struct world_conn *c = &world.conns[conn];
	const struct world_server *s = world_server_of(conn);
	const struct peer *p = leg == LEG_CLIENT ? &c->peer : &s->peer,
			  *other = leg == LEG_CLIENT ? &s->peer : &c->peer;
	uint32_t nxt = leg == LEG_CLIENT ? other->nxt : other->nxt + s->shift;

	return p->rcv == nxt && c->acked[leg] == p->rcv;
}

/*
 * D-3. A RST of the gateway's own to an end of an established connection: exact where all that was said is known to
 * all; else it makes the end ask back, and the answer to that fits.
 */
static void judge_rst(int conn, int leg, const struct peer_segment *s, enum peer_took took, bool quiet, bool acked)
{
	if (took == PEER_ENDED)
		return;
	world_check(!quiet, "D-3: a RST with seq %u to client %d's %s, which expects another", s->seq, conn,
		    leg ? "backend" : "own end");
	world_check(took == PEER_ASKED_BACK || !acked, "D-3: a RST with seq %u that client %d's %s does not heed",
		    s->seq, conn, leg ? "backend" : "own end");
}

/* RSTs that are no answers are limited: all of these are excuses for an end that asked back. */
static uint64_t sheds(void)
{
	return world_verdicts(VERDICT_shed_reset_again) + world_verdicts(VERDICT_shed_stray_limit);
}

static void receive(int conn, int leg, struct peer *p, const struct world_frame *f, const struct peer_segment *s)
{
	struct world_conn *c = &world.conns[conn];
	bool judged = f->made && s->flags & TCP_RST && c->established && !c->tainted && f->turn >= c->said_turn &&
		      f->true_cause && peer_is_open(p) && world_server_of(conn);
	bool quiet = judged && is_quiet(conn, leg), acked = judged && c->acked[leg] == p->rcv, answers;
	uint64_t shed = sheds();
	struct peer_segment answer;
	enum peer_took took = peer_receive(p, s, world_now_ms(), &answer, &answers);

	world_check(took != PEER_CHEATED || c->tainted, "D-4: client %d's %s got bytes that nobody sent", conn,
		    leg ? "backend" : "own end");
	if (judged)
		judge_rst(conn, leg, s, took, quiet, acked);
	if (!answers)
		return;
	if (!world_say(conn, leg, ORIGIN_TRUE, &answer) || !judged || took != PEER_ASKED_BACK || !world.healthy ||
	    sheds() != shed || !world.prompt)
		return;
	/* The answer to what it asked is on the wire, and nothing else of it since. */
	for (unsigned i = 0; i < world.n_wires[leg]; i++)
		if (world.wires[leg][i].turn == world.turns)
			return;
	world_check(p->state == PEER_RESET, "D-3: client %d's %s asked back about a RST, and heard nothing", conn,
		    leg ? "backend" : "own end");
}

static void arrive_at_client(const struct world_frame *f, const struct packet *p, const struct peer_segment *s)
{
	struct ipaddr dst = packet_dst(f->bytes, p);
	int conn = world_find_conn(&dst, p->dport_be, false);
	struct peer_segment answer;

	if (conn < 0 || world.conns[conn].silent)
		return;
	if (world.conns[conn].peer.state != PEER_NONE)
		receive(conn, LEG_CLIENT, &world.conns[conn].peer, f, s);
	else if (peer_refuse(s, &answer))
		world_say(conn, LEG_CLIENT, ORIGIN_TRUE, &answer);
}

static unsigned backend_number(const struct ipaddr *backend)
{
	return (backend->b[15] - 1u) % WORLD_BACKENDS;
}

static void say_as_server(struct world_server *s, const struct peer_segment *answer)
{
	struct peer_ends ends = {.v6 = !ipaddr_is_v4(&s->backend),
				 .sport_be = s->backend_port_be,
				 .dport_be = s->snat_port_be,
				 .ttl = PEER_TTL};
	uint8_t frame[1600];

	if (s->conn >= 0 && world.conns[s->conn].server == s - world.servers && s->life == world.conns[s->conn].life) {
		world_say(s->conn, LEG_BACKEND, ORIGIN_TRUE, answer);
		return;
	}
	world_put_address(ends.src, &s->backend);
	world_put_address(ends.dst, &s->snat);
	world_feed(LEG_BACKEND, -1, ORIGIN_TRUE, frame, peer_frame(&ends, answer, 0, frame));
}

static struct peer_options some_options(void)
{
	uint64_t r = frame_random(&world.random);

	return (struct peer_options){.timestamps = r & 3,
				     .sack = r >> 2 & 3,
				     .scaling = r >> 4 & 1,
				     .scale = r >> 5 & 3,
				     .ts_base = r >> 32};
}

/* RFC 6191, and what Linux does: numbers that lie ahead, or timestamps that do. */
static bool is_ahead(const struct peer *old, const struct peer_segment *syn)
{
	return (int32_t)(syn->seq - old->rcv) > 0 ||
	       (old->timestamps && syn->timestamps && (int32_t)(syn->tsval - old->ts_recent) > 0);
}

static void listen_to(struct world_server *s, const struct peer_segment *syn)
{
	struct peer_options options = some_options();
	struct peer_segment answer;
	bool refused = world.backend_refuses[backend_number(&s->backend)];

	if (refused ? peer_refuse(syn, &answer)
		    : peer_accept(&s->peer, frame_random(&world.random), &options, syn, world_now_ms(), &answer)) {
		if (!refused)
			s->answered = (struct world_syn){.is = true,
							 .isn = syn->seq,
							 .tsval = syn->tsval,
							 .has_ts = s->peer.timestamps,
							 .is_first = syn->seq == s->first_isn,
							 .first_has_ts = s->first_has_ts,
							 .at_ns = s->syn_ns};
		s->peer.its_iss = syn->seq - s->shift;
		if (refused)
			s->peer.state = PEER_NONE;
		say_as_server(s, &answer);
	}
}

/* An old connection of that port is in the way, or not. */
static bool is_for_listener(const struct world_server *s, const struct peer_segment *seg)
{
	if ((seg->flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return false;
	if (s->peer.state == PEER_TIME_WAIT)
		return is_ahead(&s->peer, seg);
	return s->peer.state == PEER_NONE || s->peer.state == PEER_CLOSED || s->peer.state == PEER_RESET;
}

static void arrive_at_backend(const struct world_frame *f, const struct packet *p, const struct peer_segment *seg)
{
	struct ipaddr src = packet_src(f->bytes, p), dst = packet_dst(f->bytes, p);
	struct world_server *s = world_find_server(&dst, &src, p->sport_be);
	struct peer_segment answer;
	bool answers;

	if (world.backend_silent[backend_number(&dst)] || !s)
		return;
	s->used_ns = world.rig.now_ns;
	if (is_for_listener(s, seg)) {
		listen_to(s, seg);
	} else if (s->peer.state == PEER_NONE) {
		if (peer_refuse(seg, &answer))
			say_as_server(s, &answer);
	} else if (s->conn >= 0 && world_server_of(s->conn) == s) {
		receive(s->conn, LEG_BACKEND, &s->peer, f, seg);
	} else {
		peer_receive(&s->peer, seg, world_now_ms(), &answer, &answers);
		if (answers)
			say_as_server(s, &answer);
	}
}

void world_deliver(int leg, unsigned place)
{
	struct world_frame f = world.wires[leg][place];
	struct peer_segment s;
	struct packet p;

	world_drop(leg, place);
	world_check(parse(f.bytes, f.len, &p) == VERDICT_NONE, "a frame on the wire cannot be read");
	if (p.kind != PACKET_TCP || p.flags & PACKET_FRAGMENT || frame_checksum_error(f.bytes))
		return;
	peer_read(f.bytes + p.l4_off, p.payload_len, &s);
	if (leg == LEG_CLIENT)
		arrive_at_client(&f, &p, &s);
	else
		arrive_at_backend(&f, &p, &s);
}

void world_settle(void)
{
	for (unsigned i = 0; i < SETTLE_MAX; i++) {
		int leg = world.n_wires[LEG_CLIENT] ? LEG_CLIENT : LEG_BACKEND;

		if (!world.n_wires[leg])
			return;
		world_deliver(leg, 0);
	}
}
