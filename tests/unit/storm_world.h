/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A storm on the passed-in clock: whole workers and decide between many clients that retry and upstreams that bear
 * no more than they bear, both as their kernels and programs behave.
 *
 * Clients come when they come, however long others wait (open loop). Each connects, asks, and has its deadline; what
 * failed by then is tried again at once on a new connection, N times. A SYN is sent again each second.
 *
 * Each upstream takes connections while its backlog has room (else it is silent), and so many workers serve them in
 * order, each for an exponential time, or for a fixed one; a share of what is asked may take another. It does not
 * notice that a client has gone: what was asked is worked on.
 */
#pragma once

#include "breakers_talk.h"

#define WORLD_SECONDS  128
#define WORLD_MS_MAX   2000
#define WORLD_BACKENDS 4
#define WORLD_WORKERS  4096 /* of an upstream */

struct world_config {
	bool v6;
	unsigned workers; /* of the gateway */
	enum cure_mode storm;
	const char *yaml;    /* of the service, below `storm:`; NULL: nothing */
	unsigned n_backends; /* 0: one */
	/* 0: of each upstream 10 workers, 20 ms, a backlog of 4096; of clients 1 s and 3 retries */
	unsigned n_upstream, service_us, backlog;
	bool steady;                    /* it takes just as long */
	unsigned slow_percent, slow_us; /* so many of a hundred take so long */
	unsigned timeout_ms, retries;
	bool no_retries;
	unsigned asks_after_ms; /* clients are so slow to ask, once they are connected, */
	bool acks_late;         /* and to finish the handshake: they are far away */
	unsigned seed;
};

/* Of the requests of one second, by when they began; of attempts by when they were made. */
struct world_second {
	unsigned requests, attempts;
	unsigned done;   /* answered in time */
	unsigned failed; /* requests that were given up for good */
};

struct world_totals {
	unsigned wasted;     /* responses for clients that had gone */
	unsigned overflows;  /* SYNs that the backlog had no room for */
	unsigned longest;    /* line of connections that nobody serves yet */
	unsigned syns;       /* that reached the upstream */
	unsigned connected;  /* attempts */
	unsigned begun;      /* attempts */
	unsigned spoofed;    /* SYNs of sources that are not there */
	uint64_t connect_us; /* of all those, in sum */
};

struct world {
	struct world_second at[WORLD_SECONDS];
	/* The same of clients of each network, over all seconds: */
	struct world_second of[256];
	struct world_totals all;
	unsigned took[WORLD_MS_MAX + 1]; /* attempts that were answered in time, by how many ms they took, or more */
	unsigned n_upstream;             /* of workers of each: may be changed while it runs; 0: they stall */
};

extern struct world world;

void world_begin(const struct world_config *config);
void world_end(void);
/* A request of a client, now. */
void world_request(unsigned network, unsigned host);
/*
 * Random requests of clients of `n_networks` from `first` on, `rate` a second in all. Spoofed ones are SYNs, each of a
 * network of its own, or of those, where nobody hears the answer.
 */
struct world_load {
	unsigned first, n_networks, hosts; /* hosts: of each network */
	double rate;
	bool spoofed;
};
void world_run(unsigned ms, const struct world_load *loads, unsigned n_loads);
/* Milliseconds since the begin. */
unsigned world_ms(void);
/* So many of a hundred of those in `took` were not slower. */
unsigned world_percentile_ms(unsigned percent);
/* What was answered a second, of those seconds. */
double world_goodput(unsigned from_s, unsigned to_s);
