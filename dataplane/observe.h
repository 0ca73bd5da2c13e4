/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What workers report. Each counter is written by one worker alone, with relaxed stores; everybody may read. Nothing
 * here blocks a worker, and nothing here is a DPDK type.
 */
#pragma once

#include "cure.h"
#include "histogram.h"
#include "ipaddr.h"
#include "signal_cells.h"
#include "verdict.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dataplane;

/* Packets that the gateway made itself, rather than turned around. */
#define MADE_LIST(M)                                                                                                   \
	M(rst_idle, "RST to an endpoint of a flow that ended idle")                                                    \
	M(rst_drain, "RST to an endpoint of a flow whose removed backend had drained long enough")                     \
	M(rst_dead, "RST to an endpoint of a flow whose backend was silent to data when its breaker had opened")       \
	M(rst_stop, "RST to an endpoint of a flow that the gateway's stop ended")                                      \
	M(keepalive, "probe of an endpoint of an idle flow")                                                           \
	M(challenge, "ACK to a client whose SYN came in the middle of its connection")                                 \
	M(rst_peer_dead, "RST to an endpoint of a flow whose peer, or itself, answered no probe")                      \
	M(rst_evict, "RST to an endpoint of an idle flow that ended for want of room")                                 \
	M(rst_later, "RST to an endpoint that there was no way to when its flow ended")                                \
	M(syn_resteer, "a client's SYN, for another backend than the one that it went to first")                       \
	M(rst_time_wait, "RST to a backend that still was in TIME_WAIT of an earlier connection of these ports")       \
	M(syn_time_wait, "a client's SYN once more, after that RST")                                                   \
	M(syn_probe, "SYN of the gateway's own to a backend whose breaker is open, or that is checked")                \
	M(fragment, "fragment of a packet that was forwarded, beside the first")

enum made {
#define M(name, help) MADE_##name,
	MADE_LIST(M)
#undef M
		MADE_COUNT
};

extern const char *const made_name[MADE_COUNT];

/*
 * What cures do, beside or behind a packet's verdict: counted when done (enforce), and apart when it only would be
 * (shadow).
 */
#define ACTION_LIST(A)                                                                                                 \
	A(resteer, WALL, "gave a SYN that its backend did not answer, or refused, to another one")                     \
	A(divert, WALL, "sent a new flow to its next choice, the first one's breaker being open")                      \
	A(last_resort, WALL, "let a new flow through to a backend whose breaker is open, as are all of the service")   \
	A(refuse_open, WALL, "refused a new flow: the breakers of all backends are open")                              \
	A(probe, WALL, "sent a SYN of the gateway's own to a backend whose breaker is open")                           \
	A(check, WALL, "sent a SYN of the gateway's own to a backend that is checked (check.tcp)")                     \
	A(rst_dead, WALL,                                                                                              \
	  "ended a connection whose data a silent backend did not acknowledge, with RST to both sides")                \
	A(rst_idle, SILENCE, "ended a connection that idled too long, with RST to both sides")                         \
	A(rst_untold, SILENCE, "gave up on an end that should have got a RST: there was no way to it for ten seconds") \
	A(keepalive, SILENCE, "asked an end of an idle connection whether it is still there")                          \
	A(rst_peer_dead, SILENCE, "ended a connection with a silent end, with RST to both sides")                      \
	A(evict_idle, SILENCE, "ended a connection that idled for ten minutes or more, for want of room, with RSTs")   \
	A(put_off, SILENCE, "put off a probe or an end: more than the gateway may send per second")                    \
	A(refuse_rst, SILENCE, "dropped a RST that its receiver would not take either")                                \
	A(challenge, SILENCE, "kept a SYN in the middle of a connection from its backend, and asked its client")       \
	A(rst_stop, SILENCE, "ended a flow as the gateway stops: TCP with RST to both sides")                          \
	A(drain_rst, NAMES, "ended a flow of a removed backend at its drain deadline: TCP with RST to both sides")     \
	A(follow, NAMES, "sent a new flow where DNS points now, not where it pointed first (counted in shadow alone)") \
	A(clamp, PATH, "lowered the MSS of a SYN or SYN-ACK to what the path carries")                                 \
	A(hold_ptb, PATH, "held back a \"packet too big\" that says less than its connection has shown to pass")       \
	A(hold_client, STORM, "held a new connection beyond its client's cap")                                         \
	A(hold_prefix, STORM, "held a new connection beyond its prefix's cap")                                         \
	A(hold_service, STORM, "held a new connection beyond the service's cap")                                       \
	A(hold_limit, STORM, "held a new connection: its backends have all the work that they bear now")               \
	A(hold_hard_max, STORM,                                                                                        \
	  "held a new connection: its backends have all the work that they may have (storm.hard_max)")                 \
	A(hold_backend, STORM,                                                                                         \
	  "held a new connection: its backends have all that they are given (storm.backend_rate)")                     \
	A(refuse_client, STORM, "refused a new connection beyond its client's cap, with RST")                          \
	A(refuse_prefix, STORM, "refused a new connection beyond its prefix's cap, with RST")                          \
	A(refuse_service, STORM, "refused a new connection beyond the service's cap, with RST")                        \
	A(refuse_limit, STORM, "refused a new connection beyond what its backends bear now, with RST")                 \
	A(refuse_hard_max, STORM,                                                                                      \
	  "refused a new connection beyond what its backends may have (storm.hard_max), with RST")                     \
	A(refuse_backend, STORM,                                                                                       \
	  "refused a new connection beyond what its backends are given (storm.backend_rate), with RST")                \
	A(refuse_retry, STORM, "refused a retry beyond the service's retry budget, with RST")                          \
	A(silence_client, STORM, "let a new flow beyond its client's cap go unanswered")                               \
	A(silence_prefix, STORM, "let a new flow beyond its prefix's cap go unanswered")                               \
	A(silence_service, STORM, "let a new flow beyond the service's cap go unanswered")                             \
	A(silence_limit, STORM, "let a new connection beyond what its backends bear now go unanswered")                \
	A(silence_hard_max, STORM,                                                                                     \
	  "let a new connection beyond what its backends may have (storm.hard_max) go unanswered")                     \
	A(silence_backend, STORM,                                                                                      \
	  "let a new connection beyond what its backends are given (storm.backend_rate) go unanswered")                \
	A(silence_retry, STORM, "let a retry beyond the service's retry budget go unanswered")                         \
	A(withhold, STORM,                                                                                             \
	  "kept an unanswered SYN from another backend: there was no token of the retry budget for it")                \
	A(spare, STORM,                                                                                                \
	  "sent a new flow to another choice, the first one having all the work that it bears now, or may have")

enum action {
#define A(name, cure, help) ACTION_##name,
	ACTION_LIST(A)
#undef A
		ACTION_COUNT
};

struct action_info {
	const char *name; /* "rst_idle"; in shadow "would_rst_idle" */
	const char *help;
	enum cure cure;
};

/* Indexed by enum action. */
extern const struct action_info action_info[ACTION_COUNT];

/* What a "packet too big" from outside came to. Beside the verdicts: forwarded from `noted` to `off`, else dropped. */
#define PTB_LIST(P)                                                                                                    \
	P(noted, "news of a path, for decide to learn")                                                                \
	P(known, "confirmed less than a minute ago")                                                                   \
	P(larger, "says more than what is known")                                                                      \
	P(repeated, "news that this worker told less than a second ago")                                               \
	P(limited, "news beyond what a worker may tell in a second")                                                   \
	P(implausible, "quotes more than is under way: teaches nothing")                                               \
	P(unproven, "about UDP, where nothing proves that its sender saw the packet: teaches nothing")                 \
	P(off, "of a connection whose path cure is off: teaches nothing")                                              \
	P(contradicted, "says less than its connection has shown to pass: held back, or in shadow would be")           \
	P(forged, "quotes data that is not under way")                                                                 \
	P(no_flow, "about a packet of no flow")                                                                        \
	P(bad_quote, "its quote cannot be read, or would have fit")                                                    \
	P(damaged, "checksum wrong")

enum ptb {
#define P(name, help) PTB_##name,
	PTB_LIST(P)
#undef P
		PTB_COUNT
};

extern const char *const ptb_name[PTB_COUNT];

/*
 * One worker's ledger, consistent as of the end of one burst (read under a sequence count). Invariants, always:
 *   rx + taken_over = sum(verdicts) + inside          tx = forwarded + answered + sum(made) - tx_failed
 * `inside` is what the worker itself holds back. A packet in a hand-over ring is not part of it: it is the giver's
 * `handed_over` and becomes `taken_over` when the owner takes it; the sum over workers therefore has
 * sum(handed_over) - sum(taken_over) = packets in rings.
 */
struct ledger {
	uint64_t rx;
	uint64_t taken_over;
	uint64_t inside;
	uint64_t tx;
	uint64_t tx_failed; /* of forwarded + answered + made: the device did not take it (its tx_full) */
	uint64_t verdicts[VERDICT_COUNT];
	uint64_t made[MADE_COUNT];
	/* Beside the two laws: */
	uint64_t did[ACTION_COUNT], would[ACTION_COUNT];
	uint64_t ptb[PTB_COUNT];
	uint64_t mss_malformed; /* SYNs and SYN-ACKs whose options cannot be read: they passed as they came */
};

/* rx + taken_over - (everything it turned into): 0 unless the gateway lost a packet. */
int64_t ledger_balance(const struct ledger *l);
/* Sum of the verdicts of one class. */
uint64_t ledger_class(const struct ledger *l, enum verdict_class class);
void ledger_add(struct ledger *sum, const struct ledger *l);

unsigned dataplane_n_workers(const struct dataplane *dp);
/* The clock of all times here. */
uint64_t observe_now_ns(const struct dataplane *dp);
void observe_ledger(const struct dataplane *dp, unsigned worker, struct ledger *out);

/* How full a worker's pool of flows of a family is: pressure.h says what follows. */
enum pressure_level {
	PRESSURE_NONE,
	PRESSURE_SHORT, /* 90 % */
	PRESSURE_KNOWN, /* 95 % */
	PRESSURE_FULL,  /* no entry is free */
	PRESSURE_LEVELS,
};

struct worker_report {
	uint64_t loops;
	uint64_t bursts;
	uint64_t sleeps;
	uint64_t wakeups;        /* woken by another worker or by control */
	uint64_t policy_number;  /* stamp of the last burst */
	uint64_t policy_regress; /* bursts that saw an older number than the one before: must stay 0 */
	uint64_t expired;        /* flows ended by the timing wheel */
	uint64_t out_of_window;  /* TCP packets that no window holds: forwarded, and otherwise ignored */
	uint64_t damaged;        /* SYN, FIN and RST with a wrong TCP checksum: forwarded so, and otherwise ignored */
	uint64_t wants_denied;   /* neighbours that were not asked for, because too many were */
	uint32_t flows_v4, flows_v4_max;
	uint32_t flows_v6, flows_v6_max;
	uint32_t pressure_v4, pressure_v6;                                 /* enum pressure_level */
	uint64_t pressed_v4[PRESSURE_LEVELS], pressed_v6[PRESSURE_LEVELS]; /* how often each was reached */
	uint64_t last_loop_ns;                                             /* monotonic */
	uint64_t stalled_ns; /* time in which the worker did not run, ever */
	uint64_t tuples;     /* ghosts and probes now */
	uint64_t tuples_cut; /* of those: gave way to others before their time */
};

void observe_worker(const struct dataplane *dp, unsigned worker, struct worker_report *out);

/* Per port and queue; what the device lost stands beside the ledger, named. */
struct port_report {
	char name[32];
	char device[64];
	unsigned queue;
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	uint64_t lost_known_ring; /* receive ring of established traffic full */
	uint64_t lost_new_ring;   /* receive ring of SYNs full */
	uint64_t lost_no_buffer;  /* the kernel had no receive buffer, or a too short one */
	uint64_t lost_invalid;    /* invalid descriptors, both directions */
	uint64_t tx_full;
	uint64_t pool_empty; /* how often the packet pool could not refill the port; it recovers by itself */
	bool zero_copy;
};

/* Returns how many rows there are; fills at most `max`. */
size_t observe_ports(const struct dataplane *dp, struct port_report *out, size_t max);

/* Sums over the workers, per slot. Monotonic except `flows`, which is a level. */
struct backend_report {
	uint64_t flows;           /* now */
	uint64_t new_flows;       /* ever, since the slot's generation began */
	uint64_t connects;        /* handshakes done (TCP) or first replies (UDP) */
	uint64_t failures;        /* refused or never answered */
	uint64_t resteered;       /* of those: given to another backend */
	uint64_t overloads;       /* SYNs unanswered although the backend was heard meanwhile */
	uint64_t probes;          /* SYNs of the gateway's own */
	uint64_t unfinished;      /* handshakes that it answered and the client never completed: no failures of its */
	uint64_t breaker;         /* enum breaker_state, now */
	uint64_t streak;          /* the word that it is of: streak.h */
	uint64_t checks_failed;   /* of that streak, SYNs of the gateway's own; if not more than its length */
	uint64_t streak_since_ns; /* when the first SYN of that streak was sent */
	uint64_t packets_up, packets_down, bytes_up, bytes_down;
	uint64_t silent_clients;   /* flows ended because their client was silent */
	uint64_t silent_backends;  /* flows ended because the backend was silent */
	uint64_t idle_survived_ms; /* longest idle time after which the backend answered a probe; 0: none yet */
	uint64_t idle_lost_ms;     /* shortest one after which it did not, although it lived; 0: none yet */
};
void observe_backend(const struct dataplane *dp, uint32_t slot, struct backend_report *out);

/*
 * What packets say of a backend, sums over the workers: signals.h. Flows of TCP that began while wall or storm were not
 * off; success + failed + neutral: of all flows, the others' outcomes are not known yet.
 */
struct signal_report {
	/* Levels: */
	uint64_t wip;     /* work that it has, as far as is known: the sum of the next three */
	uint64_t waiting; /* SYNs that it did not answer yet */
	uint64_t open;    /* exchanges: clients that wait for the first byte of a response */
	uint64_t zombies; /* exchanges whose client has left: it may work on */
	uint64_t one_way; /* exchanges that were open for so long that they are no work that is waited for */
	/* Ever: */
	uint64_t success, failed, neutral;
	uint64_t exchanges, answered;
	uint64_t failures[SIGNAL_FAILURES];
	uint64_t resets_before, resets_after; /* RSTs before and after the first byte of a response */
	uint64_t stalls;                      /* flows whose client sent again and again, without a word from it */
	uint64_t gave_up, gave_up_us;         /* clients that left before the first byte, after long; how long in all */
	uint64_t shut;                        /* flows that it took nothing from for five seconds */
	uint64_t retransmissions_up, retransmissions_down;
	uint64_t zombies_ever;
	uint64_t unrecorded; /* flows that could not be measured, for want of a record */
};
void observe_signals(const struct dataplane *dp, uint32_t slot, struct signal_report *out);
/* The mean of the last first bytes, of the slowest worker; 0: none yet. */
uint32_t observe_first_byte_us(const struct dataplane *dp, uint32_t slot);
/* Of that, `wip` alone. */
uint32_t observe_wip(const struct dataplane *dp, uint32_t slot);
/* The same with connections so fresh that their clients had no time to ask: what it has, or will have in a moment. */
uint32_t observe_committed(const struct dataplane *dp, uint32_t slot);

/* What a limiter goes by; sums over the workers, ever, but for `wip`. */
struct work_report {
	uint64_t answered;            /* responses that began */
	uint64_t timed, timed_us;     /* of those, where the time is known: how many, and their sum */
	uint64_t gave_up, gave_up_us; /* clients that left unanswered, and how long they had waited in all */
	uint64_t overloads;           /* SYNs that went unanswered though it was heard meanwhile */
	uint32_t wip;
};
void observe_work(const struct dataplane *dp, uint32_t slot, struct work_report *out);

enum signal_duration {
	DURATION_HANDSHAKE,  /* from the SYN to its answer, where it was sent once */
	DURATION_FIRST_BYTE, /* from the client's last payload to the response, where nothing had to be sent again */
};
void observe_durations(const struct dataplane *dp, uint32_t slot, enum signal_duration which,
		       struct histogram_sum *out);

/* The same of first bytes, ever, by octaves of the histogram alone. */
void observe_first_bytes(const struct dataplane *dp, uint32_t slot, uint64_t octaves[static HISTOGRAM_OCTAVES]);

extern const char *const signal_failure_name[SIGNAL_FAILURES]; /* "silent", … */

/* The last seconds, the present one included; at most SIGNAL_SECONDS - 1 of them. */
#define SIGNAL_WINDOW_NETWORKS 16
struct signal_window {
	uint32_t success[SIGNAL_CLASSES];
	uint32_t failed[SIGNAL_FAILURES];
	unsigned n_networks; /* that failures came from, as far as they were told apart */
	uint32_t networks[SIGNAL_WINDOW_NETWORKS];
};
void observe_window(const struct dataplane *dp, uint32_t slot, unsigned seconds, struct signal_window *out);

/* An attempt is the first packet of a flow that is new: attempts = new_flows + refused + silent + holding. */
struct service_report {
	uint64_t flows; /* now */
	uint64_t attempts;
	uint64_t repeated;       /* SYNs of attempts that had been refused, refused again: none of these (retry.h) */
	uint64_t new_flows;      /* admitted */
	uint64_t refused;        /* aloud, whatever for: the client was told */
	uint64_t silent;         /* refused, and nobody was told */
	uint64_t holding;        /* now */
	uint64_t held;           /* ever */
	uint64_t held_admitted;  /* of held */
	uint64_t refused_storm;  /* of refused and silent: because of a cap */
	uint64_t first_attempts; /* of new_flows: of TCP, while storm is not off, those that were not, and replaced no
				    SYN */
	uint64_t retries;        /* of new_flows: those that were told to be retries (retry.h) */
	uint64_t silent_many;    /* of silent and repeated: beyond the service's cap, or what its backends bear now */
	uint64_t silent_rate;    /* of silent_many: beyond the service's cap */
	/* In shadow, where all of them were admitted: */
	uint64_t would_hold, would_refuse, would_silence;
	uint64_t waited; /* of held and would_hold: because there was no room at its backends */
};
void observe_service(const struct dataplane *dp, uint32_t slot, struct service_report *out);

/* --- flows: a query is a command to one worker, answered with at most FLOW_QUERY_ROWS rows per loop of it --- */

#define FLOW_QUERY_ROWS 32

struct flow_row {
	struct ipaddr client, vip, snat, backend;
	uint16_t client_port_be, vip_port_be, snat_port_be, backend_port_be;
	uint8_t proto;
	uint8_t worker;
	const char *state; /* static text: "syn_sent", "established", … */
	uint32_t service_slot, backend_slot;
	uint64_t age_ms;
	uint32_t idle_ms, expires_ms;
	uint64_t packets_up, packets_down, bytes_up, bytes_down;
};

/* Where a query waits for its worker: an explanation does not queue behind pages of flows. */
enum query_lane {
	QUERY_PAGES,
	QUERY_EXPLAIN,
	QUERY_LANES,
};

struct flow_filter {
	enum query_lane lane;
	bool by_addr; /* client, VIP, SNAT or backend address equals addr */
	struct ipaddr addr;
	bool by_port; /* and the port beside that address equals port_be */
	uint16_t port_be;
	uint32_t service_slot; /* SLOT_NONE: any */
	uint32_t backend_slot; /* SLOT_NONE: any */
};

/*
 * Asks `worker` for the rows from `*cursor` (0: the first) on and waits for its answer, at most timeout_ms. Returns the
 * number of rows (0 .. FLOW_QUERY_ROWS; it may be 0 although there are more) and moves *cursor, to UINT64_MAX after the
 * last; or -ETIMEDOUT, -EINVAL. One caller at a time per lane: others wait, within timeout_ms too. Called by serve
 * threads only.
 */
int observe_flows(struct dataplane *dp, unsigned worker, const struct flow_filter *filter, uint64_t *cursor,
		  struct flow_row rows[static FLOW_QUERY_ROWS], int timeout_ms);

/* --- learned path MTUs --- */

enum path_kind {
	PATH_CLIENT,
	PATH_PREFIX, /* of clients */
	PATH_UPSTREAM,
	PATH_KINDS,
};

struct path_row {
	struct ipaddr addr; /* PATH_PREFIX: its first */
	uint8_t prefix_len; /* of its own family; of an address all of it */
	enum path_kind kind;
	const char *source; /* static text: "ptb", a router said so; "members", clients of the prefix agree */
	uint16_t mtu;
	uint64_t age_ms; /* since this MTU was learned */
	uint64_t expires_ms;
};

/*
 * Any thread: up to `max` rows from `*cursor` (0: the first) on; moves *cursor, to UINT64_MAX after the last. Waits for
 * nobody.
 */
#define PATH_QUERY_ROWS 64
size_t observe_paths(const struct dataplane *dp, uint64_t *cursor, struct path_row *rows, size_t max);

struct path_report {
	uint64_t learned[PATH_KINDS]; /* now */
	uint64_t evicted;             /* for want of room, ever */
};

void observe_path(const struct dataplane *dp, struct path_report *out);
