/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The flow table of one worker. Single-threaded: only its worker touches it.
 *
 * An entry has one line (v4) or two (v6) per direction with all that is needed to recognise, translate and track an
 * established packet of that direction, one line shared by both directions for changes of state and the timer, and one
 * for what only birth and end need: with the index, such a packet touches two lines of memory. Entries of the two
 * families come from pools of their own, so that neither can starve the other.
 *
 * The index is one array of 64-byte buckets of eight tagged places. A key lives in its first bucket or, where that was
 * full at insertion, in its second one, which follows from the bucket and the tag alone; a bucket counts its keys that
 * live elsewhere, so that a miss reads one line nearly always. Both directions of a flow have a place of their own.
 */
#pragma once

#include "hash.h"
#include "ipaddr.h"

#include <assert.h>
#include <emmintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names a flow and one of its directions: family, entry, direction. */
typedef uint32_t flow_ref;

#define FLOW_REF_V6   (UINT32_C(1) << 31)
#define FLOW_REF_NONE UINT32_MAX

enum flow_dir {
	DIR_UP,   /* client to upstream */
	DIR_DOWN, /* upstream to client */
	DIRS,
};

enum flow_state {
	FLOW_FREE,
	FLOW_SYN_SENT,
	FLOW_SYN_RECV,
	FLOW_ESTABLISHED,
	FLOW_FIN_WAIT, /* one side sent FIN */
	FLOW_LAST_ACK, /* both sides sent FIN */
	FLOW_TIME_WAIT,
	FLOW_CLOSED,    /* by RST */
	FLOW_RESETTING, /* by our RST: whoever has not taken it yet gets it again */
	FLOW_UDP_UNREPLIED,
	FLOW_UDP_REPLIED,
	FLOW_STATES,
};

extern const char *const flow_state_name[FLOW_STATES];

/*
 * What both families' halves begin with. Times are the worker's running clock in milliseconds (it stands still while
 * the worker does not run), modulo 2^32.
 */
struct flow_half {
	uint32_t route_gen;  /* of the FIB that `neighbour` and `mtu` came from; 0: never routed */
	uint16_t neighbour;  /* cell of the next hop */
	uint16_t mtu;        /* longest IP packet that may leave */
	uint8_t state : 4;   /* enum flow_state, alike in both halves: flow_put_state() */
	bool watch : 1;      /* its sender's next new payload means something: signals.h */
	uint8_t reach : 4;   /* log2 of the widest window either side may open, in units of 64 KiB; at least 1 */
	uint8_t probes : 2;  /* that the sender did not answer yet; FLOW_RESETTING: RSTs that it got again */
	bool timestamps : 1; /* its packets carry them, and they are read */
	bool udp : 1;        /* else TCP */
	/* Of this direction's packets: */
	uint16_t window_be; /* as last advertised, unscaled */
	uint32_t last_ms;   /* last one that refreshed the flow */
	uint32_t end;       /* host order: highest sequence number + length; UDP: packets while unreplied */
	uint32_t ack;       /* host order: last acknowledgement */
	uint32_t tsval;     /* host order: newest timestamp, if `timestamps` */
	union {
		struct {
			uint32_t packets : 8; /* since the last roll-up: at most FLOW_ROLL_UP_PACKETS */
			uint32_t bytes : 24;  /* since then; of IP packets, as received */
		};
		uint32_t volume;
	};
	/* Added to the client's numbers as they pass (numbers.h): DIR_UP has them, DIR_DOWN speaks of them. */
	uint32_t seq_shift, ts_shift;
};

#define FLOW_VOLUME(bytes) ((uint32_t)(bytes) << 8 | 1) /* of one packet */

/*
 * Keys are compared and hashed by words; what is read from a frame is read as it stands there. Packed, so that two of
 * them and the above fit a line.
 */
struct flow_key4 {
	union {
		struct {
			uint32_t src_be, dst_be;
		};
		uint64_t addrs_be;
	};
	union {
		struct {
			uint16_t sport_be, dport_be;
		};
		uint32_t ports_be;
	};
} __attribute__((packed, aligned(4)));

struct flow_key6 {
	union {
		struct {
			uint8_t src[16], dst[16];
		};
		uint64_t addrs_be[4];
	};
	union {
		struct {
			uint16_t sport_be, dport_be;
		};
		uint32_t ports_be;
	};
} __attribute__((packed, aligned(4)));

struct flow_half4 {
	struct flow_half common;
	struct flow_key4 in;  /* as it arrives */
	struct flow_key4 out; /* as it leaves */
} __attribute__((aligned(64)));

struct flow_half6 {
	struct flow_half common;
	struct flow_key6 in;
	struct flow_key6 out;
	uint16_t l4_delta; /* RFC 1624: what the change of addresses and ports adds to the transport checksum */
} __attribute__((aligned(64)));

/* Why the timer of a flow stands at look_ms, rather than at its last packet + timeout_ms. */
enum flow_look {
	LOOK_IDLE,     /* it does not */
	LOOK_ANSWERS,  /* probes are under way: were they answered? */
	LOOK_LATER,    /* what was due could not be done, or has to wait */
	LOOK_RESETTING /* our RSTs are under way */
};

#define FLOW_MARK_WOULD_END      1            /* counted as one that an order would have ended */
#define FLOW_MARK_UNTOLD(dir)    (2 << (dir)) /* FLOW_RESETTING: the receiver did not hear of it yet */
#define FLOW_MARK_RESET(dir)     (8 << (dir)) /* FLOW_CLOSED: its sender sent RST, to a connection */
#define FLOW_MARK_LAST_ASK       32           /* of LOOK_ANSWERS: its data was not acknowledged for too long */
#define FLOW_MARK_RESETS         (FLOW_MARK_RESET(DIR_UP) | FLOW_MARK_RESET(DIR_DOWN))
#define FLOW_MARK_UDP6_ZERO      64  /* UDP: born where its packets may come without checksum */
#define FLOW_MARK_ASSISTED       64  /* TCP: its SYN is not to be sent again where the backend is in TIME_WAIT */
#define FLOW_MARK_BACKEND_CLOSED 128 /* of its own accord, first or at the same time: it is in TIME_WAIT */

/* What both directions share; no established packet reads it. */
struct flow_track {
	uint32_t timeout_ms;
	uint32_t look_ms; /* of the running clock; without meaning in LOOK_IDLE */
	union {
		uint32_t asked_ms; /* when the probes of LOOK_ANSWERS left; LOOK_RESETTING: when it ended; FLOW_CLOSED:
				      when the RST to a connection came */
		uint32_t first_peer_isn; /* FLOW_SYN_RECV: of the first SYN-ACK; host order */
	};
	uint32_t wheel_next, wheel_prev; /* entry references without direction, FLOW_REF_NONE at the ends */
	uint16_t wheel_slot;
	uint8_t fin_seen : 2; /* bit per direction */
	uint8_t look : 2;     /* enum flow_look */
	uint8_t wall : 4;     /* enum wall_flag */
	uint8_t marks;        /* FLOW_MARK_* */
	uint8_t scale[DIRS];  /* log2 of the unit of that sender's windows (RFC 7323 2) */
	uint8_t doubts;       /* how often in a row its silence was none to go by: wall.c, then silence.c */
	uint8_t snat_index;
	uint16_t modes : 10; /* of the cures, at its birth: cure_pack() */
	uint16_t retry : 1;  /* retry.h: its attempt is one, */
	uint16_t failed : 1; /* and has failed, which its client has a credit for */
	uint16_t fresh : 1;  /* signals.h: it is counted as such, */
	uint16_t begun : 1;  /* its client having finished the handshake */
	uint16_t owes : 1;   /* fairness.h: its network's share, when it does that */
	uint16_t signals;    /* enum signal_flag */
	uint32_t service_slot;
	uint32_t backend_slot;
	uint8_t dscp[DIRS]; /* of that sender's SYN, where IP has it: the two low bits, ECN's, are 0 */
	uint16_t snat_port_be;
	union {
		uint32_t syn_ms;   /* while a SYN waits for its answer (wall.c): CLOCK_MS of it */
		uint32_t quiet_ms; /* then, of the running clock: see quiet_packets */
	};
	union {
		/* While it waits: DIR_DOWN of others that wait for the same backend; 0: none. */
		struct {
			flow_ref waiting_next, waiting_prev;
		};
		/* Then (signals.c): */
		struct {
			uint32_t asked_us;      /* running clock: the client's last new payload */
			uint32_t exchange_unit; /* with whose end an open exchange is one-way, or a zombie over */
		};
	};
	uint32_t challenged_ms; /* when the client was last asked about a SYN; 0: never */
	union {
		uint32_t syn_us; /* while it waits, of the running clock: when it was sent (signals.c) */
		/* What had passed when the flow was last probed; while that is all, nobody has said anything since
		   quiet_ms. */
		uint32_t quiet_packets;
	};
} __attribute__((aligned(64)));

/* What birth and end need; no established packet reads it. */
struct flow_cold {
	uint64_t hash[DIRS];
	uint32_t isn;                        /* of the client's SYN that was answered, or came last; host order */
	uint32_t peer_isn;                   /* of the backend, host order; once it answered */
	uint64_t born_ms;                    /* of the dataplane's clock, unlike the halves' times */
	uint64_t packets[DIRS], bytes[DIRS]; /* until the last roll-up; added to the backend's counters too */
} __attribute__((aligned(64)));

/*
 * What of the client's SYN is needed to send it again: later, or to another backend. Of use until the handshake is
 * done; its options and its number also where another connection of these ports follows.
 */
#define TCP_OPTIONS_MAX 40

/* What of a SYN its connection goes by. */
struct syn_facts {
	uint32_t isn; /* host order */
	uint16_t payload_len;
	uint16_t window_be;
	uint8_t scale : 4;
	bool scaling : 1;
	bool timestamps : 1;
	bool damaged : 1; /* no backend takes it */
} __attribute__((packed, aligned(2)));

struct syn_kept {
	uint8_t options[TCP_OPTIONS_MAX]; /* without fast open, and so without its data (RFC 7413 4.1.3) */
	uint8_t options_len;
	uint8_t tcp_flags; /* SYN, and what it says of ECN */
	uint8_t tos;       /* or traffic class */
	uint8_t ttl;       /* as it came */
	union {
		struct {
			uint16_t window_be;
			struct syn_facts first; /* of a flow: the SYN that it began with, where this is a later one */
		};
		/* From FLOW_ESTABLISHED on (signals.c): */
		struct {
			uint32_t stall_seq; /* first byte of what the client sent again */
			uint32_t signal_ms; /* running clock: when that was sent, or the backend closed its window */
		};
	};
	uint32_t flow_label; /* IPv6, host order */
	uint32_t isn;        /* host order */
} __attribute__((aligned(64)));

static_assert(sizeof(struct syn_kept) == 64, "one line");

struct flow4 {
	struct flow_half4 half[DIRS];
	struct flow_track track;
	struct flow_cold cold;
	struct syn_kept syn;
};

struct flow6 {
	struct flow_half6 half[DIRS];
	struct flow_track track;
	struct flow_cold cold;
	struct syn_kept syn;
};

static_assert(FLOW_STATES <= 16, "a half has four bits for it");
static_assert(sizeof(struct flow_half) == 40, "leaves room for two IPv4 keys in a line");
static_assert(sizeof(struct flow_half4) == 64, "one line per direction");
static_assert(sizeof(struct flow_half6) == 128, "two lines per direction");
static_assert(sizeof(struct flow_track) == 64, "one line for both directions");
static_assert(sizeof(struct flow4) <= 320, "IPv4 entry");
static_assert(sizeof(struct flow6) <= 448, "IPv6 entry");

#define FLOW_BUCKET_PLACES 8

struct flow_bucket {
	uint16_t tags[FLOW_BUCKET_PLACES]; /* 0: empty */
	flow_ref refs[FLOW_BUCKET_PLACES];
	uint16_t elsewhere; /* keys whose first bucket is this one and that live in their second */
	uint8_t guests;     /* bit per place: this bucket is its key's second */
	uint8_t unused[13];
} __attribute__((aligned(64)));

static_assert(sizeof(struct flow_bucket) == 64, "one line per bucket");

struct flow_pool {
	uint32_t capacity;
	uint32_t in_use;
	uint32_t *free; /* stack of free entries */
};

struct flow_table {
	struct flow_bucket *buckets;
	uint32_t mask;
	struct flow4 *flows4;
	struct flow6 *flows6;
	struct flow_pool pool4, pool6;
	const uint8_t *secret; /* HASH_SECRET_LEN */
	uint64_t adds, removes;
};

/* Bytes that a table of these sizes takes. */
uint64_t flow_table_bytes(uint32_t n_v4, uint32_t n_v6);
/* Returns 0 or -ENOMEM. `secret` must outlive the table. */
int flow_table_init(struct flow_table *t, uint32_t n_v4, uint32_t n_v6, const uint8_t *secret);
void flow_table_fini(struct flow_table *t);

/* --- references --- */

static inline flow_ref flow_ref_make(bool v6, uint32_t entry, enum flow_dir dir)
{
	return (v6 ? FLOW_REF_V6 : 0) | entry << 1 | dir;
}

static inline bool flow_ref_is_v6(flow_ref ref)
{
	return ref & FLOW_REF_V6;
}

static inline uint32_t flow_ref_entry(flow_ref ref)
{
	return (ref & ~FLOW_REF_V6) >> 1;
}

static inline enum flow_dir flow_ref_dir(flow_ref ref)
{
	return ref & 1;
}

/* Of the flow, whichever direction was given. */
static inline flow_ref flow_ref_up(flow_ref ref)
{
	return ref & ~UINT32_C(1);
}

static inline flow_ref flow_ref_other(flow_ref ref)
{
	return ref ^ 1;
}

static inline struct flow_half4 *flow_half4(const struct flow_table *t, flow_ref ref)
{
	return &t->flows4[flow_ref_entry(ref)].half[flow_ref_dir(ref)];
}

static inline struct flow_half6 *flow_half6(const struct flow_table *t, flow_ref ref)
{
	return &t->flows6[flow_ref_entry(ref)].half[flow_ref_dir(ref)];
}

static inline struct flow_half *flow_half(const struct flow_table *t, flow_ref ref)
{
	return flow_ref_is_v6(ref) ? &flow_half6(t, ref)->common : &flow_half4(t, ref)->common;
}

static inline uint8_t flow_proto(const struct flow_half *half)
{
	return half->udp ? PROTO_UDP : PROTO_TCP;
}

static_assert(!(PROTO_TCP & 1) && PROTO_UDP & 1, "told apart by that bit");

/* `proto`: one of the two. */
static inline bool flow_is_proto(const struct flow_half *half, uint8_t proto)
{
	return half->udp == (proto & 1);
}

static inline struct flow_track *flow_track(const struct flow_table *t, flow_ref ref)
{
	return flow_ref_is_v6(ref) ? &t->flows6[flow_ref_entry(ref)].track : &t->flows4[flow_ref_entry(ref)].track;
}

static inline struct flow_cold *flow_cold(const struct flow_table *t, flow_ref ref)
{
	return flow_ref_is_v6(ref) ? &t->flows6[flow_ref_entry(ref)].cold : &t->flows4[flow_ref_entry(ref)].cold;
}

static inline struct syn_kept *flow_syn(const struct flow_table *t, flow_ref ref)
{
	return flow_ref_is_v6(ref) ? &t->flows6[flow_ref_entry(ref)].syn : &t->flows4[flow_ref_entry(ref)].syn;
}

static inline uint64_t flow_age_ms(const struct flow_table *t, flow_ref ref, uint64_t now_ns)
{
	return now_ns / 1000000 - flow_cold(t, ref)->born_ms;
}

static inline void flow_put_state(const struct flow_table *t, flow_ref ref, enum flow_state state)
{
	flow_half(t, ref)->state = state;
	flow_half(t, flow_ref_other(ref))->state = state;
}

/* The widest window that either side may open, or a bit more: what lies further off is none of its packets. */
static inline uint32_t flow_reach(const struct flow_half *half)
{
	return UINT32_C(65536) << half->reach;
}

/*
 * Since the last packet of either direction that refreshed the flow. A direction that was silent for 2^32 ms while the
 * other one was not looks young again, which may lengthen a life by one timeout and shortens none.
 */
static inline uint32_t flow_idle_ms(const struct flow_table *t, flow_ref ref, uint64_t now_ms)
{
	uint32_t idle_ms = (uint32_t)now_ms - flow_half(t, ref)->last_ms;
	uint32_t other_ms = (uint32_t)now_ms - flow_half(t, flow_ref_other(ref))->last_ms;

	return idle_ms < other_ms ? idle_ms : other_ms;
}

/* --- hashing and lookup --- */

static inline uint64_t flow_hash4(const struct flow_key4 *key, uint8_t proto, const uint8_t *secret)
{
	const uint64_t k[] = {key->addrs_be, key->ports_be | (uint64_t)proto << 32};

	return hash_keyed(k, sizeof(k), secret);
}

static inline uint64_t flow_hash6(const struct flow_key6 *key, uint8_t proto, const uint8_t *secret)
{
	const uint64_t k[] = {key->addrs_be[0], key->addrs_be[1], key->addrs_be[2], key->addrs_be[3],
			      key->ports_be | (uint64_t)proto << 32};

	return hash_keyed(k, sizeof(k), secret);
}

static inline uint16_t flow_tag(uint64_t hash)
{
	uint16_t tag = hash >> 48;

	return tag ? tag : 1;
}

static inline void flow_prefetch(const struct flow_table *t, uint64_t hash)
{
	__builtin_prefetch(&t->buckets[(uint32_t)hash & t->mask]);
}

/* Bit per place whose tag is `tag`; tag 0 finds the empty ones. */
static inline uint32_t flow_match_tag(const struct flow_bucket *bucket, uint16_t tag)
{
	__m128i tags = _mm_load_si128((const __m128i *)bucket->tags);
	__m128i eq = _mm_cmpeq_epi16(tags, _mm_set1_epi16((short)tag));

	return _mm_movemask_epi8(_mm_packs_epi16(eq, _mm_setzero_si128()));
}

/*
 * The first step of a lookup: the first entry of the first bucket whose tag fits, its lines prefetched, or
 * FLOW_REF_NONE. It is only a candidate: flow_is4() or flow_is6() says whether it is the one, and if not,
 * flow_lookup*() looks further. The line of the bucket should have been prefetched a while ago.
 */
static inline flow_ref flow_candidate(const struct flow_table *t, uint64_t hash)
{
	const struct flow_bucket *bucket = &t->buckets[(uint32_t)hash & t->mask];
	uint32_t match = flow_match_tag(bucket, flow_tag(hash));
	flow_ref ref;

	if (!match)
		return FLOW_REF_NONE;
	ref = bucket->refs[__builtin_ctz(match)];
	if (flow_ref_is_v6(ref)) {
		const char *half = (const char *)flow_half6(t, ref);

		__builtin_prefetch(half, 1);
		__builtin_prefetch(half + 64, 1);
	} else {
		__builtin_prefetch(flow_half4(t, ref), 1);
	}
	return ref;
}

static inline bool flow_is4(const struct flow_table *t, flow_ref ref, const struct flow_key4 *key, uint8_t proto)
{
	const struct flow_half4 *half = flow_half4(t, ref);

	return !flow_ref_is_v6(ref) && half->in.addrs_be == key->addrs_be && half->in.ports_be == key->ports_be &&
	       flow_is_proto(&half->common, proto);
}

static inline bool flow_is6(const struct flow_table *t, flow_ref ref, const struct flow_key6 *key, uint8_t proto)
{
	const struct flow_half6 *half = flow_half6(t, ref);
	const struct flow_key6 *in = &half->in;

	return flow_ref_is_v6(ref) && in->addrs_be[0] == key->addrs_be[0] && in->addrs_be[1] == key->addrs_be[1] &&
	       in->addrs_be[2] == key->addrs_be[2] && in->addrs_be[3] == key->addrs_be[3] &&
	       in->ports_be == key->ports_be && flow_is_proto(&half->common, proto);
}

/* FLOW_REF_NONE if there is none. */
flow_ref flow_lookup4(const struct flow_table *t, const struct flow_key4 *key, uint8_t proto, uint64_t hash);
flow_ref flow_lookup6(const struct flow_table *t, const struct flow_key6 *key, uint8_t proto, uint64_t hash);

/* --- birth and end --- */

/* True if flow_add() of that family would find an entry. */
static inline bool flow_room(const struct flow_table *t, bool v6)
{
	const struct flow_pool *pool = v6 ? &t->pool6 : &t->pool4;

	return pool->in_use < pool->capacity;
}

/*
 * Adds a flow: `up` and `down` are the packets of either direction as they arrive; what leaves follows from the other
 * one's reverse. Fills keys, deltas and hashes and zeroes the rest. Returns the reference of its DIR_UP, or
 * FLOW_REF_NONE if the table or both buckets of a key and all their ways out are full; nothing has changed then.
 */
flow_ref flow_add4(struct flow_table *t, const struct flow_key4 *up, const struct flow_key4 *down, uint8_t proto);
flow_ref flow_add6(struct flow_table *t, const struct flow_key6 *up, const struct flow_key6 *down, uint8_t proto);
void flow_del(struct flow_table *t, flow_ref ref);

/*
 * Gives the flow another upstream side: `down` is what its packets are like from now on as they arrive. The client's
 * side stays; both directions' translations are worked out anew, and DIR_UP has to be routed again. False if the index
 * has no place for the new key: nothing has changed then.
 */
bool flow_rekey4(struct flow_table *t, flow_ref ref, const struct flow_key4 *down);
bool flow_rekey6(struct flow_table *t, flow_ref ref, const struct flow_key6 *down);

/* The address forms of a flow's keys, for the slow paths. */
struct flow_addrs {
	struct ipaddr client, vip, snat, backend;
	uint16_t client_port_be, vip_port_be, snat_port_be, backend_port_be;
	uint8_t proto;
};
void flow_addrs(const struct flow_table *t, flow_ref ref, struct flow_addrs *out);
