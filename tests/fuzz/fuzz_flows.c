/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Programs over whole connections: an input is a list of steps, four bytes each, of a few clients and backends that are
 * honest (peers.h), of wires that are not, of forgers, and of what an operator or the time does. What must hold of all
 * that leaves, of each connection and of the tables is judged after each step: world.c.
 *
 * A step is read modulo what there is, so that any bytes are a program. A program begins with two bytes that say what
 * gateway it is for. `fuzz_flows FILE` and `random_flows FILE` play one again and print it as steps if it fails.
 */
#include "fuzz.h"
#include "world.h"

#include "icmp.h"
#include "memport.h"
#include "streak.h"

#include <stdio.h>
#include <stdlib.h>

#define STEPS_MAX   256
#define HERD_CLIENT 4096 /* the first of the clients that have no model */

struct step {
	uint8_t op, who, a, b;
};

static int conn_of(const struct step *s)
{
	return s->who % WORLD_CONNS;
}

static bool is_tcp(const struct step *s)
{
	return !world.conns[conn_of(s)].udp;
}

static int leg_of(const struct step *s)
{
	return s->a & 1;
}

/* That end of the conn's connection; NULL: there is none. */
static struct peer *peer_of(int conn, int leg)
{
	struct world_server *s = world_server_of(conn);

	if (leg == LEG_CLIENT)
		return &world.conns[conn].peer;
	return s ? &s->peer : NULL;
}

static void settle(void)
{
	if (world.prompt)
		world_settle();
}

static const char *leg_name(int leg)
{
	return leg == LEG_CLIENT ? "client" : "backend";
}

/* --- connections --- */

/* Its clock is any: behind an address there may be many hosts. */
static struct peer_options options_of(uint8_t bits)
{
	return (struct peer_options){.timestamps = bits & 3,
				     .sack = bits >> 2 & 3,
				     .scaling = bits >> 4 & 1,
				     .scale = bits >> 5 & 3,
				     .ts_base = frame_random(&world.random)};
}

/* Whatever its client had before, it knows no more of it. */
static void connect_anew(int conn, uint32_t iss, uint8_t options_bits)
{
	struct world_conn *c = &world.conns[conn];
	struct peer_options options = options_of(options_bits);
	struct peer_segment syn;

	c->life++;
	c->established = c->tainted = false;
	c->told[0] = c->told[1] = c->closed[0] = c->closed[1] = false;
	if (peer_connect(&c->peer, iss, &options, world_now_ms(), &syn))
		world_say(conn, LEG_CLIENT, ORIGIN_TRUE, &syn);
	settle();
}

static void do_udp(const struct step *s)
{
	const struct world_conn *c = &world.conns[conn_of(s)];
	struct frame_spec spec = {.src = rig_client(c->client, c->v6),
				  .dst = rig_vip(c->v6),
				  .sport_be = c->port_be,
				  .dport_be = htons(53),
				  .proto = PROTO_UDP,
				  .payload_len = s->b};
	uint8_t frame[FRAME_MAX];

	world_feed(LEG_CLIENT, conn_of(s), ORIGIN_TRUE, frame, frame_make(&spec, frame));
}

/* To whom the last datagram went. */
static void do_udp_answer(const struct step *s)
{
	const struct worker *w;
	flow_ref ref = world_flow(conn_of(s), &w);
	struct flow_addrs a;
	struct frame_spec spec = {.proto = PROTO_UDP, .payload_len = s->b};
	uint8_t frame[FRAME_MAX];

	if (ref == FLOW_REF_NONE)
		return;
	flow_addrs(&w->flows, ref, &a);
	spec.src = a.backend;
	spec.dst = a.snat;
	spec.sport_be = a.backend_port_be;
	spec.dport_be = a.snat_port_be;
	world_feed(LEG_BACKEND, conn_of(s), ORIGIN_TRUE, frame, frame_make(&spec, frame));
}

static void do_open(const struct step *s)
{
	struct world_conn *c = &world.conns[conn_of(s)];

	if (c->udp) {
		do_udp(s);
		return;
	}
	if (c->peer.state == PEER_OPEN && s->b & 15)
		return;
	world_say_so("client %d opens", conn_of(s));
	connect_anew(conn_of(s), frame_random(&world.random), s->a);
}

/* Once more with the number that it had (Windows does, after a RST), or another one while the first is not answered. */
static void do_syn_again(const struct step *s)
{
	struct world_conn *c = &world.conns[conn_of(s)];
	struct peer_segment syn;

	if (c->udp || c->peer.state == PEER_NONE)
		return;
	if (s->a & 1 && c->peer.state == PEER_RESET) {
		world_say_so("client %d opens with the number it had", conn_of(s));
		connect_anew(conn_of(s), c->peer.iss, s->b);
	} else if (c->peer.state == PEER_SYN_SENT && s->a & 2) {
		world_say_so("client %d opens with another number", conn_of(s));
		connect_anew(conn_of(s), s->a & 4 ? c->peer.iss + s->b + 1 : frame_random(&world.random), s->b);
	} else if (peer_repeat(&c->peer, world_now_ms(), &syn)) {
		world_say_so("client %d repeats", conn_of(s));
		world_say(conn_of(s), LEG_CLIENT, ORIGIN_TRUE, &syn);
		settle();
	}
}

static const uint16_t lengths[] = {1, 7, 100, 536, 1000, 1348, 1400, 1400};

static void say_of(const struct step *s, const char *what,
		   bool (*make)(struct peer *p, uint64_t now_ms, struct peer_segment *out))
{
	struct peer *p = peer_of(conn_of(s), leg_of(s));
	struct peer_segment out;

	if (!is_tcp(s) || !p || p->state == PEER_NONE || !make(p, world_now_ms(), &out))
		return;
	world_say_so("%s %d: %s", leg_name(leg_of(s)), conn_of(s), what);
	world_say(conn_of(s), leg_of(s), ORIGIN_TRUE, &out);
	settle();
}

static void do_data(const struct step *s)
{
	struct peer *p = peer_of(conn_of(s), leg_of(s));
	struct peer_segment out;

	if (!is_tcp(s)) {
		do_udp_answer(s);
		return;
	}
	for (unsigned n = 0; p && n <= s->b >> 6; n++) {
		if (!peer_send(p, lengths[s->b & 7], world_now_ms(), &out))
			return;
		world_say_so("%s %d sends %u", leg_name(leg_of(s)), conn_of(s), out.len);
		world_say(conn_of(s), leg_of(s), ORIGIN_TRUE, &out);
		p = peer_of(conn_of(s), leg_of(s));
	}
	settle();
}

static bool make_ack(struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	return peer_ack(p, now_ms, out);
}

static void do_ack(const struct step *s)
{
	say_of(s, "acknowledges", make_ack);
}

static void do_fin(const struct step *s)
{
	say_of(s, "closes", peer_close);
}

static void do_rst(const struct step *s)
{
	say_of(s, "aborts", peer_abort);
}

static void do_repeat(const struct step *s)
{
	say_of(s, "sends again", peer_repeat);
}

static bool make_sack(struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	if (!p->sack || !peer_ack(p, now_ms, out))
		return false;
	out->n_sacks = 2;
	for (unsigned i = 0; i < 2; i++) {
		out->sacks[i][0] = p->rcv + 1000 * (i + 1);
		out->sacks[i][1] = out->sacks[i][0] + 500;
	}
	return true;
}

static void do_sack(const struct step *s)
{
	say_of(s, "acknowledges with SACK", make_sack);
}

/* A whole connection, its end too: what a port was used for before. */
static void do_whole(const struct step *s)
{
	struct step data = *s, first = {.who = s->who, .a = s->b & 1}, second = {.who = s->who, .a = !(s->b & 1)};

	do_open(s);
	do_data(&data);
	do_fin(&first);
	do_fin(&second);
}

/* An end and what comes after it, or the same twice, in one burst. */
static void do_burst(const struct step *s)
{
	struct step first = *s, second = *s;

	first.a = s->b & 1;
	second.a = !(s->b & 1);
	world_say_so("in one burst");
	world_batch(true);
	if (s->a & 1)
		do_rst(&first);
	else if (s->a & 2)
		do_fin(&first);
	if (s->a & 4)
		do_data(&second);
	if (s->a & 8)
		do_fin(&second);
	if (s->a & 16)
		do_repeat(&first);
	if (s->a & 32 && is_tcp(s))
		connect_anew(conn_of(s), frame_random(&world.random), s->b);
	if (s->a & 64)
		do_ack(&second);
	world_batch(false);
	settle();
}

/* --- wires --- */

static void do_deliver(const struct step *s)
{
	if (world.n_wires[leg_of(s)])
		world_deliver(leg_of(s), s->b % world.n_wires[leg_of(s)]);
}

static void do_drop(const struct step *s)
{
	int leg = leg_of(s);

	if (!world.n_wires[leg])
		return;
	world_say_so("what is under way to a %s is lost", leg_name(leg));
	world_drop(leg, s->b % world.n_wires[leg]);
}

static void do_settle(const struct step *s)
{
	world_settle();
}

static void do_prompt(const struct step *s)
{
	world.prompt = s->a & 3;
	world_say_so("wires are %s", world.prompt ? "prompt" : "slow");
	settle();
}

/* Comes twice, or late, or again after everything is over. */
static void do_old(const struct step *s)
{
	int leg = leg_of(s);
	unsigned n = world.n_old[leg] < WORLD_OLD ? world.n_old[leg] : WORLD_OLD;
	struct world_frame f;
	struct ipaddr src;
	struct packet p;

	if (!n)
		return;
	f = world.old[leg][s->b % n];
	if (parse(f.bytes, f.len, &p) != VERDICT_NONE)
		return;
	src = packet_src(f.bytes, &p);
	for (int i = 0; i < WORLD_CONNS; i++) {
		struct ipaddr client = rig_client(world.conns[i].client, world.conns[i].v6);
		const struct world_server *server = world_server_of(i);
		bool of_it = leg == LEG_CLIENT ? ipaddr_equal(&client, &src) && world.conns[i].port_be == p.sport_be
					       : server && ipaddr_equal(&server->backend, &src) &&
							 server->snat_port_be == p.dport_be;

		if (!of_it)
			continue;
		/* One of an earlier connection may fit this one's numbers by chance, or by repeating them. */
		world_feed(leg, i, f.turn == world.conns[i].life ? ORIGIN_REPEAT : ORIGIN_FORGED, f.bytes, f.len);
		settle();
		return;
	}
}

static void do_lose(const struct step *s)
{
	world.lose = s->b & 3;
}

static void do_damage(const struct step *s)
{
	world.flip = s->a << 8 | s->b;
	if (world.flip == 0xffff)
		world.flip = 1;
}

static void do_ttl(const struct step *s)
{
	world.ttl = 1 + (s->a & 1);
}

static void do_silence(const struct step *s)
{
	bool silent = s->b & 3;

	if (s->a & 1) {
		world.backend_silent[s->who % WORLD_BACKENDS] = silent;
		world_say_so("backend %d is %s", s->who % WORLD_BACKENDS, silent ? "silent" : "heard");
	} else {
		world.conns[conn_of(s)].silent = silent;
		world_say_so("client %d is %s", conn_of(s), silent ? "silent" : "heard");
	}
}

static void do_refuse(const struct step *s)
{
	world.backend_refuses[s->who % WORLD_BACKENDS] = s->a & 1;
	world_say_so("backend %d %s", s->who % WORLD_BACKENDS, s->a & 1 ? "refuses" : "listens");
}

/* --- forgers --- */

/* Around the numbers that the true end would use. */
static void do_forged(const struct step *s)
{
	static const uint8_t flags[] = {TCP_RST, TCP_RST | TCP_ACK, TCP_ACK,           TCP_ACK | TCP_PSH,
					TCP_SYN, TCP_SYN | TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST};
	static const uint32_t offsets[] = {0,          1,     (uint32_t)-1,     100,       (uint32_t)-100, 1000,
					   20000,      70000, (uint32_t)-70000, 0x100000,  0x40000000,     0x80000000,
					   0xc0000000, 5,     (uint32_t)-20000, 0x7fffffff};
	struct peer *p = peer_of(conn_of(s), leg_of(s));
	struct peer_segment forged;

	if (!is_tcp(s) || !p || p->state == PEER_NONE)
		return;
	forged = (struct peer_segment){.flags = flags[s->a >> 1 & 7],
				       .seq = p->nxt + offsets[s->b & 15],
				       .ack = p->rcv + offsets[s->b >> 4],
				       .window = 1000,
				       .timestamps = p->timestamps && s->a & 0x10,
				       .tsval = p->ts_recent};
	forged.len = (forged.flags & TCP_PSH) ? 10 : 0;
	if (!(forged.flags & TCP_ACK))
		forged.ack = 0;
	world_say_so("somebody forges a segment of %s %d", leg_name(leg_of(s)), conn_of(s));
	world_say(conn_of(s), leg_of(s), ORIGIN_FORGED, &forged);
	settle();
}

/* Of no connection, or of one that was. */
static void do_stray(const struct step *s)
{
	struct peer_segment stray = {.flags = s->a & 2 ? TCP_ACK : TCP_ACK | TCP_FIN,
				     .seq = frame_random(&world.random),
				     .ack = frame_random(&world.random),
				     .window = 1000};
	int conn = conn_of(s);
	const struct worker *w;

	if (!is_tcp(s) || world_flow(conn, &w) != FLOW_REF_NONE)
		return;
	for (unsigned i = 0; i < 1 + (s->b & 31u); i++)
		world_say(conn, LEG_CLIENT, ORIGIN_FORGED, &stray);
	settle();
}

/* An error about what left there, true or not, from who it was sent to. */
static void do_icmp(const struct step *s)
{
	static const uint8_t types4[][2] = {{3, 1}, {3, 3}, {3, 4}, {11, 0}, {3, 13}, {12, 0}};
	static const uint8_t types6[][2] = {{1, 0}, {1, 4}, {2, 0}, {3, 0}, {1, 1}, {4, 0}};
	int leg = leg_of(s);
	unsigned n = world.n_sent[leg] < WORLD_OLD ? world.n_sent[leg] : WORLD_OLD;
	const struct world_frame *about;
	uint8_t frame[FRAME_MAX];
	struct packet p;
	struct frame_spec spec = {0};
	uint16_t quoted;
	uint8_t *icmp;

	if (!n)
		return;
	/* What is still under way is what a true error is about. */
	about = world.n_wires[leg] ? &world.wires[leg][s->b % world.n_wires[leg]] : &world.sent[leg][s->b % n];
	if (parse(about->bytes, about->len, &p) != VERDICT_NONE || p.kind > PACKET_UDP)
		return;
	quoted = p.ip_len < 120 ? p.ip_len : 120;
	spec.src = packet_dst(about->bytes, &p);
	spec.dst = packet_src(about->bytes, &p);
	spec.proto = p.family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	spec.payload_len = quoted;
	memcpy(&spec.sport_be, (p.family == 4 ? types4 : types6)[(s->a >> 2) % 6], 2);
	frame_make(&spec, frame);
	icmp = frame + 14 + (p.family == 4 ? 20 : 40);
	memcpy(icmp + 8, about->bytes + p.l3_off, quoted);
	icmp[4] = icmp[5] = 0;
	icmp[6] = 1280 >> 8;
	icmp[7] = (uint8_t)1280;
	if (s->a & 2 && p.kind == PACKET_TCP) {
		uint32_t wrong = frame_random(&world.random);

		memcpy(icmp + 8 + p.l4_off - p.l3_off + 4, &wrong, 4);
	}
	memset(icmp + 2, 0, 2);
	if (p.family == 4) {
		uint16_t sum = ~rte_raw_cksum(icmp, quoted + 8);

		memcpy(icmp + 2, &sum, 2);
	} else {
		uint32_t sum = rte_ipv6_phdr_cksum((void *)(frame + 14), 0) + rte_raw_cksum(icmp, quoted + 8);
		uint16_t folded = ~((sum & 0xffff) + (sum >> 16));

		memcpy(icmp + 2, &folded, 2);
	}
	world_say_so("an ICMP error%s", s->a & 2 ? " with another number" : "");
	world_feed(leg, -1, ORIGIN_FORGED, frame, 14 + (p.family == 4 ? 20 : 40) + 8 + quoted);
	settle();
}

/* Clients that ask and do not answer: they take entries, ports, and the patience of caps. */
static void do_herd(const struct step *s)
{
	bool v6 = s->a & 1;

	world_say_so("%u SYNs of others", 1 + s->b % 40);
	for (unsigned i = 0; i < 1 + s->b % 40u; i++) {
		struct frame_spec spec = {.src = rig_client(HERD_CLIENT + (frame_random(&world.random) & 0xfff), v6),
					  .dst = rig_vip(v6),
					  .sport_be = htons(30000 + i),
					  .dport_be = htons(80),
					  .proto = PROTO_TCP,
					  .tcp_flags = TCP_SYN,
					  .seq_be = (uint32_t)frame_random(&world.random)};
		uint8_t frame[FRAME_MAX];

		world_feed(LEG_CLIENT, -1, ORIGIN_TRUE, frame, frame_make(&spec, frame));
		settle();
	}
}

/* --- time --- */

static void pass(uint64_t ms)
{
	if (world.passed_ms + ms > world.options.pass_max_ms)
		return;
	world_say_so("%llu ms pass", (unsigned long long)ms);
	world_pass_ms(ms);
	settle();
}

static void do_ms(const struct step *s)
{
	pass(1 + s->b);
}

static void do_seconds(const struct step *s)
{
	pass(250u * (1 + s->b % 64));
}

static void do_minutes(const struct step *s)
{
	pass(10000u * (1 + s->b % 12));
}

static void do_hours(const struct step *s)
{
	if (s->a % 16 == 0)
		pass(7200000);
	else
		pass(30000u * (1 + s->b % 24));
}

static void do_stall(const struct step *s)
{
	world_say_so("the workers do not run");
	world_stall_ms(100 * (1 + s->b));
	settle();
}

/* --- operators, neighbours and devices --- */

static void publish(const struct policy *policy)
{
	world.rig.policy.number = world.without.number = world.rig.policy.number + 1;
	dataplane_publish(world.rig.dp, policy);
}

static void do_modes(const struct step *s)
{
	enum cure cure = s->a % CURES;
	enum cure_mode mode = s->b & 3 ? CURE_ENFORCE : s->b >> 2 & 1;

	world.rig.policy.modes.of[cure] = world.without.modes.of[cure] = mode;
	world_say_so("cure %d is in mode %d", cure, mode);
	publish(&world.rig.policy);
}

static void do_reload(const struct step *s)
{
	world_say_so("reload%s", s->a & 7 ? "" : ", without listeners");
	publish(s->a & 7 ? &world.rig.policy : &world.without);
}

/* A set of those that are not removed; at least one stays. */
static void build_set(int family, int proto)
{
	struct policy_set *set = &world.rig.service.sets[family][proto];
	struct policy_backend *backends = world.rig.backends[family][proto];
	unsigned n = 0;

	for (unsigned i = 0; i < WORLD_BACKENDS; i++)
		if (!world.removed[i])
			backends[n++] = world.all[family][proto][i];
	set->n_backends = n;
	if (n)
		maglev_build(backends, n, world.rig.tables[family][proto], set->table_size);
}

static void do_backend(const struct step *s)
{
	unsigned backend = s->who % WORLD_BACKENDS;
	bool removed[WORLD_BACKENDS] = {0};

	memcpy(removed, world.removed, sizeof(removed));
	removed[backend] = s->a & 1;
	if (removed[0] && removed[1] && removed[2])
		return;
	world_say_so("backend %u %s", backend, s->a & 1 ? "is removed" : "is added");
	memcpy(world.removed, removed, sizeof(removed));
	for (int family = 0; family < SET_FAMILIES; family++)
		for (int proto = 0; proto < SET_PROTOS; proto++)
			build_set(family, proto);
	publish(&world.rig.policy);
}

/* What decide says of backends and of retries, while they have too much to do or not. */
static void do_limits(const struct step *s)
{
	bool v6 = s->a & 1;
	uint32_t slot = world.all[v6][SET_TCP][s->who % WORLD_BACKENDS].ref.slot, work = s->a >> 1 & 3;
	const struct service_limit limit = {
		.n_limits = work > 0,
		.n_congested = s->a >> 3 & 1,
		.hold_ms = 4u * s->b,
		.pace = s->a >> 4 & 1 ? 1 + s->b : 0,
		.shares = {s->a >> 5 & 1, s->a >> 6 & 1},
	};

	world_say_so("slot %u may have work %u", slot, work);
	world.rig.service.sets[v6][SET_TCP].rate = (struct gcra_rate){0};
	if (s->a >> 6 & 1 && s->b >> 3 & 1)
		gcra_rate_init(&world.rig.service.sets[v6][SET_TCP].rate, 1 + (s->b & 7), 1000000000, s->b >> 4);
	dataplane_backend_limit(world.rig.dp, slot, work | (s->b & 1 ? LIMIT_SOFT : 0));
	dataplane_service_limit(world.rig.dp, 0, &limit);
	dataplane_service_budget(world.rig.dp, 0, s->b >> 1 & 1 ? 1 + s->b : 0, 1000000 * (s->b & 3));
	world.rig.service.sets[v6][SET_TCP].hard_max = s->a >> 7 && s->b >> 2 & 1 ? 1 + (s->b & 3) : 0;
}

static void do_reap(const struct step *s)
{
	const struct reap_order drain = {.cause = REAP_DRAIN, .spread_ms = 100u * s->b},
				stop = {.cause = REAP_STOP, .spread_ms = 100u * s->b};
	uint32_t slot = world.all[s->a >> 1 & 1][SET_TCP][s->who % WORLD_BACKENDS].ref.slot;

	if (s->a & 0x30) {
		world_say_so("slot %u is drained", slot);
		dataplane_reap(world.rig.dp, slot, &drain);
	} else if (s->a & 0x40) {
		world_say_so("all flows are to end");
		dataplane_reap_all(world.rig.dp, &stop);
	} else {
		dataplane_reap_cancel(world.rig.dp, slot, REAP_DRAIN);
	}
}

static void do_breaker(const struct step *s)
{
	const struct policy_backend *b = &world.all[s->a >> 1 & 1][SET_TCP][s->who % WORLD_BACKENDS];
	const struct streak streak = {.state = s->a >> 2 & 3, .side_down = s->a >> 4 == 15};
	struct order order = {s->b & 2 ? ORDER_OPENED : ORDER_PROBE, b->ref.slot, b->addr, b->port_be};

	world_say_so("breaker of slot %u is %d; order %d", b->ref.slot, streak.state, order.kind);
	if (s->b & 1)
		world.rig.dp->cells.backends[b->ref.slot].breaker = streak_word(&streak);
	else
		dataplane_order(world.rig.dp, s->b >> 2 & (world.n_workers - 1), &order);
	pass(1);
}

static void note_health(void)
{
	world.healthy = world.rig.dp->ports_up == 3 && world.neighbours_gone == 0 && !world.small_mtu;
}

static void do_neighbour(const struct step *s)
{
	unsigned i = s->who % WORLD_BACKENDS;
	bool v6 = s->a & 2, gone = s->a & 1;
	uint8_t mac[6];

	memcpy(mac, rig_backend_mac, 6);
	mac[5] = i + 1;
	world_say_so("neighbour %u, IPv%d, is %s", i, v6 ? 6 : 4, gone ? "gone" : "there");
	dataplane_neighbour_update(world.rig.dp, RIG_LAN, &world.all[v6][SET_TCP][i].addr,
				   gone ? s->a & 4 ? NEIGHBOUR_GONE : NEIGHBOUR_UNRESOLVED : NEIGHBOUR_USABLE, mac);
	world.neighbours_gone &= ~(1u << (i * 2 + v6));
	world.neighbours_gone |= (unsigned)gone << (i * 2 + v6);
	note_health();
}

static void do_link(const struct step *s)
{
	bool up = s->b & 3, lan = s->a & 1;

	if (lan)
		world.small_mtu = (s->a >> 1) % 4 == 1;
	world_say_so("link %d is %s, MTU %d", lan, up ? "up" : "down", world.small_mtu ? 1300 : 1500);
	dataplane_port_set_link(world.rig.dp, lan ? RIG_LAN : RIG_WAN, up, world.small_mtu && lan ? 1300 : 1500);
	note_health();
}

static void do_losses(const struct step *s)
{
	world_say_so("a device lost %u frames", s->b);
	memport_lose(world.rig.ports[leg_of(s)], (s->a >> 1) % world.n_workers, s->a >> 2 & 1, s->b);
}

/* --- programs --- */

static const struct {
	void (*run)(const struct step *s);
	unsigned weight;
} ops[] = {
	{do_open, 12},   {do_syn_again, 3}, {do_data, 12},   {do_ack, 4},     {do_sack, 3},      {do_fin, 7},
	{do_rst, 3},     {do_repeat, 4},    {do_whole, 4},   {do_burst, 5},   {do_deliver, 6},   {do_drop, 3},
	{do_settle, 4},  {do_prompt, 3},    {do_old, 5},     {do_lose, 2},    {do_damage, 2},    {do_ttl, 1},
	{do_silence, 4}, {do_refuse, 2},    {do_forged, 8},  {do_stray, 2},   {do_icmp, 4},      {do_herd, 2},
	{do_ms, 6},      {do_seconds, 8},   {do_minutes, 3}, {do_hours, 1},   {do_stall, 1},     {do_modes, 2},
	{do_reload, 1},  {do_backend, 2},   {do_reap, 2},    {do_breaker, 2}, {do_neighbour, 3}, {do_link, 2},
	{do_losses, 2},  {do_limits, 2},
};

#define N_OPS (sizeof(ops) / sizeof(ops[0]))

static uint8_t op_of[256]; /* by the first byte of a step: as often as it weighs */

static void weigh_ops(void)
{
	unsigned total = 0, at = 0;

	for (unsigned i = 0; i < N_OPS; i++)
		total += ops[i].weight;
	for (unsigned i = 0, sum = 0; i < N_OPS; i++) {
		sum += ops[i].weight;
		for (; at < sum * 256 / total; at++)
			op_of[at] = i;
	}
}

static struct world_options options_from(const uint8_t data[2])
{
	static const uint64_t starts_ns[] = {1000000000, UINT64_C(4294900000000000), UINT64_C(274800000000),
					     77000000000};

	return (struct world_options){
		.n_workers = 1 + (data[0] & 1),
		.tiny_table = (data[0] >> 1 & 7) == 0,
		.caps = (data[0] >> 4 & 7) == 0,
		.short_times = data[1] >> 5 & 3,
		.untranslated = (data[1] & 7) == 0,
		/* A turn each 50 ms: hours take their time. */
		.pass_max_ms = data[1] >> 5 & 3 ? 150000
			       : data[0] >> 7   ? 3 * 3600000
						: 15 * 60000,
		.now_ns = starts_ns[data[1] >> 3 & 3],
	};
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rig_config config = {.flows_v4 = 32, .flows_v6 = 32, .n_mbufs = 1023, .n_backends = 3, .n_snat = 1};

	weigh_ops();
	return rig_eal(2 * (rig_bytes(&config) >> 20) + 64, false, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct world_options options;

	if (len < 2)
		return 0;
	options = options_from(data);
	world_create(&options);
	for (size_t at = 2, n = 0; at + 4 <= len && n < STEPS_MAX; at += 4, n++) {
		struct step step = {data[at], data[at + 1], data[at + 2], data[at + 3]};

		world_say_so("-- step %zu: %u %u %u %u", n, op_of[step.op], step.who, step.a, step.b);
		ops[op_of[step.op]].run(&step);
		world_judge();
	}
	world_destroy();
	return 0;
}
