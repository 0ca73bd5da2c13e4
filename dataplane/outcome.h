/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What became of clients: outcomes, as workers remember them and as others read them. They are for the explanation
 * afterwards, so all of it is bounded, keeps what matters through a flood, and says where it may have forgotten.
 *
 * An outcome has a reason: the verdict that refused or lost a packet, what a cure did to a flow, or how an attempt to
 * connect ended. Each worker remembers them thrice:
 *   - per client (IPv4 address, IPv6 /64): the last kinds of outcome with their counts, as long as there is room;
 *   - per client prefix (IPv4 /24, IPv6 /48), service, reason and second, for OUTCOME_SECONDS;
 *   - per flow that ended, for a while: which client stood behind a SNAT port.
 *
 * Readers may be in any thread. They take no lock and hold up nobody.
 */
#pragma once

#include "cure.h"
#include "ipaddr.h"
#include "observe.h"
#include "verdict.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How an attempt to connect ended: ATTEMPT(name, class, cause, what an operator should read). */
#define ATTEMPT_LIST(A)                                                                                                \
	A(connected, CONNECTED, NONE, "connected to a backend")                                                        \
	A(refused_by_backend, REFUSED, WALL, "the backend refused the connection")                                     \
	A(unanswered, SILENT, WALL, "no answer from the backend until the attempt timed out")                          \
	A(unfinished, OTHER, NONE,                                                                                     \
	  "the backend answered, and the client never completed the handshake: it gave up, was never there, or a box " \
	  "on the way to it swallows answers")

enum attempt {
#define A(name, class, cause, help) ATTEMPT_##name,
	ATTEMPT_LIST(A)
#undef A
		ATTEMPT_COUNT
};

/* What it meant to the client. */
enum outcome_class {
	OUTCOME_CONNECTED,
	OUTCOME_REFUSED,   /* it heard a no: RST or ICMP */
	OUTCOME_SILENT,    /* it heard nothing */
	OUTCOME_RESTEERED, /* another backend took over, and it noticed nothing */
	OUTCOME_RESET,     /* its connection ended by a RST of the gateway's */
	OUTCOME_OTHER,     /* neither an attempt's end nor a connection's, or of the client's own making */
	OUTCOME_CLASSES,
};

extern const char *const outcome_class_name[OUTCOME_CLASSES];

/* A reason: a small number made by these. 0 is none. */
typedef uint16_t outcome_reason;

#define OUTCOME_VERDICT(v) ((outcome_reason)(v))
#define OUTCOME_ACTION(a)  ((outcome_reason)(VERDICT_COUNT + (a)))
#define OUTCOME_WOULD(a)   ((outcome_reason)(VERDICT_COUNT + ACTION_COUNT + (a))) /* in shadow: not done */
#define OUTCOME_ATTEMPT(a) ((outcome_reason)(VERDICT_COUNT + 2 * ACTION_COUNT + (a)))
#define OUTCOME_REASONS    (VERDICT_COUNT + 2 * ACTION_COUNT + ATTEMPT_COUNT)

struct outcome_info {
	char name[48]; /* "answer_service_down", "rst_idle", "would_rst_idle", "unanswered" */
	const char *help;
	enum cause cause;
	enum outcome_class class;
	bool shadow; /* it was not done, only counted */
};

struct outcome_info outcome_info(outcome_reason reason);
enum outcome_class outcome_class(outcome_reason reason);
/* Comes with each connection, to whichever backend: then the backend does not tell one kind of outcome from another. */
bool outcome_is_common(outcome_reason reason);

/* --- clients --- */

#define OUTCOME_KINDS_KEPT 8

/* All that happened to a client for the same reason at the same service and backend. */
struct outcome_row {
	outcome_reason reason;
	uint32_t count;
	uint32_t service_slot, backend_slot; /* or SLOT_NONE; of what is common: the last one's backend */
	uint64_t first_ns, last_ns;          /* by the dataplane's clock, to 10 ms */
};

struct client_row {
	struct ipaddr addr; /* IPv6: the last one of its /64 */
	uint64_t since_ns;  /* when its record begins */
	uint64_t counts[OUTCOME_CLASSES];
	unsigned n;
	struct outcome_row outcomes[OUTCOME_KINDS_KEPT]; /* the latest first */
};

/* From when to when an outcome may have been forgotten; both 0: none was. */
struct outcome_blind {
	uint64_t from_ns, to_ns;
};

/* False: this worker has no record of it. *blind is filled in either case. */
bool observe_client(const struct dataplane *dp, unsigned worker, const struct ipaddr *addr, struct client_row *out,
		    struct outcome_blind *blind);
/* The records of a worker stand at 0 .. n - 1, with gaps: false, then. */
uint32_t observe_client_places(const struct dataplane *dp, unsigned worker);
bool observe_client_at(const struct dataplane *dp, unsigned worker, uint32_t place, struct client_row *out);

struct clients_report {
	uint64_t records; /* now */
	uint64_t places;
	uint64_t forgotten; /* ever: newcomers that found no room, or took it from others */
};
/* Sums over the workers. */
void observe_clients(const struct dataplane *dp, struct clients_report *out);

/* --- seconds --- */

#define OUTCOME_SECONDS 120

struct second_row {
	uint64_t at_ns;       /* begin of the second */
	struct ipaddr prefix; /* IPv4 /24, IPv6 /48; not if unnamed */
	bool unnamed;         /* the second had no room for more rows: any prefix, any service */
	uint32_t service_slot;
	outcome_reason reason;
	uint64_t count;
};

/* The prefix that an address belongs to, with its length in *len. */
struct ipaddr outcome_prefix(const struct ipaddr *addr, unsigned *len);

typedef void second_row_fn(void *arg, const struct second_row *row);
void observe_seconds(const struct dataplane *dp, unsigned worker, second_row_fn *fn, void *arg);

/* --- SNAT tuples --- */

struct ended_row {
	struct ipaddr client;
	uint16_t client_port_be;
	uint8_t proto;
	const char *state; /* static text: the flow's last one */
	uint32_t service_slot, backend_slot;
	uint64_t born_ns, ended_ns;
};

/* The worker whose flows use that SNAT address and port; -ENOENT: no such SNAT address. */
int observe_snat_owner(const struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be);
/*
 * Flows with that SNAT address and port that ended lately, the latest first; at most `max`. *since_ns: all that ended
 * later is still known; 0: all that ever did.
 */
size_t observe_ended(const struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be, struct ended_row *out,
		     size_t max, uint64_t *since_ns);

struct tuple_backend {
	struct ipaddr addr;
	uint16_t port_be;
	uint8_t proto;
};

/*
 * The flows that use a SNAT address and port now, each towards another of the backends given: asks the worker that owns
 * the port. Returns how many (at most FLOW_QUERY_ROWS), -ENOENT, or -ETIMEDOUT. Called by serve threads only.
 */
int observe_tuple(struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be,
		  const struct tuple_backend *backends, size_t n, struct flow_row rows[static FLOW_QUERY_ROWS],
		  int timeout_ms);
