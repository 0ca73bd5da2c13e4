/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A gateway between clients and backends that are honest models (peers.h), the wires behind it, and judges of all that
 * leaves it and of what becomes of the connections. Any promise that is broken ends the process, after printing what
 * had happened until then.
 */
#pragma once

#include "frames.h"
#include "peers.h"
#include "rig.h"

#include "core.h"

#define WORLD_CONNS    12 /* half of them IPv6; of each eight one is UDP */
#define WORLD_BACKENDS 3
#define WORLD_SERVERS  128 /* connections at backends */
#define WORLD_WIRE     64
#define WORLD_OLD      32 /* frames that are remembered, to come again or to be quoted */

enum { LEG_CLIENT, LEG_BACKEND, LEGS }; /* behind RIG_WAN, behind RIG_LAN */

static_assert((int)LEG_CLIENT == (int)RIG_WAN && (int)LEG_BACKEND == (int)RIG_LAN, "one number for both");

struct world_frame {
	size_t len;
	bool made;       /* by the gateway */
	bool true_cause; /* an end said something, or time passed */
	uint64_t turn;   /* in which it left; of what came in: the life that it was of */
	uint8_t bytes[1600];
};

/* A client's port, and its connections one after the other. */
struct world_conn {
	bool v6, udp;
	unsigned client;
	uint16_t port_be;
	struct peer peer;
	unsigned life;        /* counts its connections */
	int server;           /* whose SYN came of it, or -1 */
	bool silent;          /* what comes is lost */
	bool established;     /* both ends are, of this life */
	bool tainted;         /* a forged segment may have been taken for a true one: no end of it is its fault */
	bool told[LEGS];      /* a RST left for it, or it sent one */
	bool closed[LEGS];    /* a FIN left for it */
	uint64_t untold;      /* ends that the gateway gave up on, when it began */
	uint32_t acked[LEGS]; /* what that end acknowledged, as the gateway knows */
	uint16_t udp_sent;
	uint64_t said_turn; /* when something came of it last */
};

struct world_syn {
	bool is, has_ts, is_first, first_has_ts; /* of the SYN that the shift was chosen for */
	uint32_t isn, tsval;
	uint64_t at_ns;
};

/* A connection as a backend knows it, which is its SNAT address and port. */
struct world_server {
	bool used;
	struct ipaddr backend, snat;
	uint16_t backend_port_be, snat_port_be;
	struct peer peer;
	int conn; /* the client's, or -1: the gateway's own, or of a herd */
	unsigned life;
	uint32_t shift, ts_shift; /* of the client's numbers */
	bool has_ts;
	bool first_has_ts;
	uint32_t first_isn;                /* of the SYN that the shift was chosen for */
	struct world_syn answered, before; /* the SYNs that were, of this connection and of the last one */
	uint64_t used_ns, syn_ns;          /* when its last SYN left */
};

struct world_options {
	unsigned n_workers;
	bool tiny_table, caps, short_times, untranslated;
	uint64_t now_ns, pass_max_ms;
};

struct world {
	struct rig rig;
	struct world_options options;
	unsigned n_workers;
	bool prompt;     /* wires deliver at once */
	bool true_cause; /* of what leaves now */
	bool batch;      /* what comes waits for the rest of its burst */
	bool healthy;    /* links, neighbours and MTUs are as they should be */
	struct world_conn conns[WORLD_CONNS];
	struct world_server servers[WORLD_SERVERS];
	bool backend_silent[WORLD_BACKENDS], backend_refuses[WORLD_BACKENDS];
	struct world_frame wires[LEGS][WORLD_WIRE];
	unsigned n_wires[LEGS];
	struct world_frame old[LEGS][WORLD_OLD];  /* that came into the gateway from there */
	struct world_frame sent[LEGS][WORLD_OLD]; /* that left it for there */
	unsigned n_old[LEGS], n_sent[LEGS];
	unsigned lose; /* of the next frames towards the gateway: they get lost before it */
	uint16_t flip; /* of the next frame's TCP checksum */
	uint8_t ttl;   /* of the next frame; 0: the usual one */
	uint64_t random, turns;
	struct policy_backend all[SET_FAMILIES][SET_PROTOS][WORLD_BACKENDS];
	bool removed[WORLD_BACKENDS];
	unsigned neighbours_gone; /* a bit each */
	bool small_mtu;           /* of the backends' link */
	struct policy without;    /* listeners */
	uint64_t passed_ms;
	uint64_t strays_ns[2 * WORLD_CONNS][10]; /* when the last RSTs to strays left, by source */
	uint64_t stray_n[2 * WORLD_CONNS];
};

#define PEER_TTL 50 /* of what ends send */

extern struct world world;

/* -1: of a client without a model. */
int world_find_conn(const struct ipaddr *addr, uint16_t port_be, bool udp);
/* NULL: nothing left from there. */
struct world_server *world_find_server(const struct ipaddr *backend, const struct ipaddr *snat, uint16_t snat_port_be);
void world_put_address(uint8_t *to, const struct ipaddr *addr);

/* --- life --- */

void world_create(const struct world_options *options);
/* Everything ends, and all must be given back. */
void world_destroy(void);
/* Every turn's judges, and those of the tables. */
void world_judge(void);

/* --- what comes to the gateway --- */

enum origin {
	ORIGIN_TRUE,   /* an end says it, now */
	ORIGIN_REPEAT, /* it was said before */
	ORIGIN_FORGED,
};

/* By whom: `conn` or -1; the leg that it comes from. */
void world_feed(int leg, int conn, enum origin origin, const uint8_t *frame, size_t len);
/* What is fed between the two calls comes in one burst. */
void world_batch(bool begins);
/* A segment of one of the two ends of a conn's connection. True: it went out, and undamaged. */
bool world_say(int conn, int leg, enum origin origin, const struct peer_segment *s);
struct peer_ends world_ends(int conn, int leg);
/* The backend's end of it; NULL: there is none. */
struct world_server *world_server_of(int conn);

/* --- what leaves it --- */

void world_deliver(int leg, unsigned place);
void world_drop(int leg, unsigned place);
/* Until the wires are empty, or for as long as frames make new ones. */
void world_settle(void);

/* --- time --- */

void world_pass_ms(uint64_t ms);
/* The worker does not run. */
void world_stall_ms(uint64_t ms);

static inline uint64_t world_now_ms(void)
{
	return world.rig.now_ns / 1000000;
}

/* Reports what happened; printed if something is wrong. */
void world_say_so(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A new story begins. */
void world_forget(void);
/* Prints all that was said since world_create(). */
void world_print(void);
_Noreturn void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define world_check(ok, ...)                                                                                           \
	do {                                                                                                           \
		if (!(ok))                                                                                             \
			world_fail(__VA_ARGS__);                                                                       \
	} while (0)

/* The gateway's flow of a conn; FLOW_REF_NONE if there is none. */
flow_ref world_flow(int conn, const struct worker **w);
uint64_t world_verdicts(enum verdict v);
