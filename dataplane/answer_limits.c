/* SPDX-License-Identifier: BSD-3-Clause */
#include "answer_limits.h"

#include "bucket.h"
#include "hash.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SECOND_NS        1000000000ull
#define STRAY_GRACE_NS   (60 * SECOND_NS)
#define STRAY_GRACE_RATE 20000
#define ECHO_RATE        100
#define FLOW_PTB_RATE    1
#define FLOW_PTB_BURST   3
#define LIMITER_WAYS     4
#define LIMITER_SETS     1024 /* a power of two */
#define CACHE_LINE       64

/* A source or a flow is known by its hash: sharing all 64 bits with another is a matter of 2^32 sources at once. */
struct limiter_cell {
	uint64_t tag; /* 0: empty */
	struct gcra gcra;
};

struct limiter_set {
	struct limiter_cell ways[LIMITER_WAYS];
};

static_assert(sizeof(struct limiter_set) == CACHE_LINE, "a source costs one line");

struct limiter_table {
	struct limiter_set sets[LIMITER_SETS];
};

struct limit {
	struct limiter_table sources; /* first: its lines are those of the memory */
	struct gcra_rate per_source, in_all;
	struct gcra total;
} __attribute__((aligned(CACHE_LINE)));

enum answer_kind {
	ANSWER_STRAY,
	ANSWER_REFUSED,
	ANSWER_WOULD_REFUSE,
	ANSWER_ICMP,
	ANSWER_KINDS,
};

struct answer_limits {
	struct limit kinds[ANSWER_KINDS];
	struct gcra_rate stray_grace; /* instead of in_all, until … */
	uint64_t grace_end_ns;
	struct gcra_rate backends, ends; /* of the refused ones' total, with more patience than theirs */
	struct gcra_rate echo_rate;
	struct gcra echo;
	const uint8_t *secret;
	struct limiter_table flows __attribute__((aligned(CACHE_LINE))); /* that were told "packet too big" */
	struct gcra_rate per_flow;
};

/* Of all workers together: tokens per second, and how many may go at once; 0: as share_init() says. */
static const struct {
	uint64_t per_source, at_once, in_all, in_all_at_once;
} rates[ANSWER_KINDS] = {
	[ANSWER_STRAY] = {10, 1, 1000, 0},
	[ANSWER_REFUSED] = {2, 1, 9000, 0},
	[ANSWER_WOULD_REFUSE] = {2, 1, 9000, 0},
	[ANSWER_ICMP] = {10, 10, 1000, 1000},
};

/* A worker's part of a rate. `at_once` is of all of them, too: one bucket must not hold it for each worker. */
static int share_init(struct gcra_rate *rate, uint64_t in_all, uint64_t at_once, unsigned n_workers)
{
	uint64_t per_ns = n_workers * SECOND_NS, share = at_once / n_workers;
	/* A bucket admits one more than its burst. */
	uint64_t burst = share ? share - 1 : 0;

	return gcra_rate_init(rate, in_all, per_ns, at_once ? burst : gcra_default_burst(in_all, per_ns));
}

/*
 * A flood of refusals keeps the bucket at their tolerance, one of RSTs to backends at theirs; beyond that it is the
 * ends' alone. `quarters`: of the refusals' burst, that this rate has more.
 */
static int patient_init(struct gcra_rate *rate, unsigned quarters, unsigned n_workers)
{
	uint64_t in_all = rates[ANSWER_REFUSED].in_all, per_ns = n_workers * SECOND_NS;
	uint64_t burst = gcra_default_burst(in_all, per_ns);

	return gcra_rate_init(rate, in_all, per_ns, burst + burst * quarters / 4);
}

static int limits_init(struct answer_limits *l, unsigned n_workers)
{
	int err = n_workers ? share_init(&l->stray_grace, STRAY_GRACE_RATE, 0, n_workers) : -EINVAL;

	if (!err)
		err = share_init(&l->echo_rate, ECHO_RATE, 0, n_workers);
	/* A flow has one worker. */
	if (!err)
		err = gcra_rate_init(&l->per_flow, FLOW_PTB_RATE, SECOND_NS, FLOW_PTB_BURST - 1);
	if (!err)
		err = patient_init(&l->backends, 1, n_workers);
	if (!err)
		err = patient_init(&l->ends, 2, n_workers);
	for (int k = 0; k < ANSWER_KINDS && !err; k++) {
		err = share_init(&l->kinds[k].per_source, rates[k].per_source, rates[k].at_once, n_workers);
		if (!err)
			err = share_init(&l->kinds[k].in_all, rates[k].in_all, rates[k].in_all_at_once, n_workers);
	}
	return err;
}

struct answer_limits *answer_limits_create(unsigned n_workers, const uint8_t *secret, uint64_t now_ns)
{
	struct answer_limits *l = memory_alloc(sizeof(*l));
	int err;

	if (!l)
		return NULL;
	err = limits_init(l, n_workers);
	if (err) {
		memory_free(l);
		errno = -err;
		return NULL;
	}
	l->grace_end_ns = now_ns + STRAY_GRACE_NS;
	l->secret = secret;
	return l;
}

void answer_limits_destroy(struct answer_limits *l)
{
	memory_free(l);
}

size_t answer_limits_bytes(void)
{
	return sizeof(struct answer_limits);
}

/* Whoever has one address of an IPv6 /64 has them all. */
static uint64_t source_tag(const struct answer_limits *l, const struct ipaddr *addr)
{
	struct ipaddr key = *addr;
	uint64_t tag;

	if (!ipaddr_is_v4(addr))
		key.q_be[1] = 0;
	tag = hash_keyed(key.b, sizeof(key.b), l->secret);
	return tag ? tag : 1;
}

static struct limiter_cell *cell_lookup(struct limiter_set *set, uint64_t tag)
{
	for (int w = 0; w < LIMITER_WAYS; w++)
		if (set->ways[w].tag == tag)
			return &set->ways[w];
	return NULL;
}

/* The cell with the most room, now the tag's and idle. */
static struct limiter_cell *cell_claim(struct limiter_set *set, uint64_t tag, uint64_t now_ns)
{
	uint64_t now = now_ns << GCRA_FRACTION_BITS;
	struct limiter_cell *oldest = NULL;
	int64_t oldest_ahead = INT64_MAX;

	for (int w = 0; w < LIMITER_WAYS; w++) {
		struct limiter_cell *cell = &set->ways[w];
		uint64_t tat = atomic_load_explicit(&cell->gcra.tat, memory_order_relaxed);
		int64_t ahead = cell->tag ? (int64_t)(tat - now) : INT64_MIN;

		if (!oldest || ahead < oldest_ahead) {
			oldest = cell;
			oldest_ahead = ahead;
		}
	}
	oldest->tag = tag;
	atomic_store_explicit(&oldest->gcra.tat, now, memory_order_relaxed);
	return oldest;
}

/* One bucket of a table: its cell if the tag has one. */
struct seat {
	struct limiter_set *set;
	struct limiter_cell *cell;
	const struct gcra_rate *rate;
	uint64_t tag;
};

static struct seat seat_find(struct limiter_table *table, const struct gcra_rate *rate, uint64_t tag)
{
	struct limiter_set *set = &table->sets[tag & (LIMITER_SETS - 1)];

	return (struct seat){.set = set, .cell = cell_lookup(set, tag), .rate = rate, .tag = tag};
}

static bool seat_test(const struct seat *seat, uint64_t now_ns)
{
	return !seat->cell || gcra_test(&seat->cell->gcra, seat->rate, now_ns);
}

static void seat_take(const struct seat *seat, uint64_t now_ns)
{
	struct limiter_cell *cell = seat->cell ? seat->cell : cell_claim(seat->set, seat->tag, now_ns);

	gcra_take(&cell->gcra, seat->rate, now_ns);
}

static struct seat source_seat(struct answer_limits *l, enum answer_kind kind, const struct ipaddr *addr)
{
	return seat_find(&l->kinds[kind].sources, &l->kinds[kind].per_source, source_tag(l, addr));
}

static bool allow(struct answer_limits *l, enum answer_kind kind, const struct gcra_rate *in_all,
		  const struct ipaddr *addr, uint64_t now_ns)
{
	struct seat source = source_seat(l, kind, addr);
	struct gcra *total = &l->kinds[kind].total;

	if (!seat_test(&source, now_ns) || !gcra_test(total, in_all, now_ns))
		return false;
	seat_take(&source, now_ns);
	gcra_take(total, in_all, now_ns);
	return true;
}

bool answer_limits_stray(struct answer_limits *l, const struct ipaddr *source, uint64_t now_ns)
{
	const struct gcra_rate *in_all = &l->kinds[ANSWER_STRAY].in_all;

	return allow(l, ANSWER_STRAY, now_ns < l->grace_end_ns ? &l->stray_grace : in_all, source, now_ns);
}

bool answer_limits_refused(struct answer_limits *l, const struct ipaddr *client, uint64_t now_ns)
{
	return allow(l, ANSWER_REFUSED, &l->kinds[ANSWER_REFUSED].in_all, client, now_ns);
}

bool answer_limits_would_refuse(struct answer_limits *l, const struct ipaddr *client, uint64_t now_ns)
{
	return allow(l, ANSWER_WOULD_REFUSE, &l->kinds[ANSWER_WOULD_REFUSE].in_all, client, now_ns);
}

bool answer_limits_icmp(struct answer_limits *l, const struct ipaddr *destination, uint64_t now_ns)
{
	return allow(l, ANSWER_ICMP, &l->kinds[ANSWER_ICMP].in_all, destination, now_ns);
}

bool answer_limits_ptb(struct answer_limits *l, uint64_t flow_hash, const struct ipaddr *destination, uint64_t now_ns)
{
	struct seat flow = seat_find(&l->flows, &l->per_flow, flow_hash ? flow_hash : 1);

	if (!seat_test(&flow, now_ns) || !answer_limits_icmp(l, destination, now_ns))
		return false;
	seat_take(&flow, now_ns);
	return true;
}

static bool allow_rsts(struct answer_limits *l, const struct gcra_rate *rate, unsigned n_rsts, uint64_t now_ns)
{
	struct gcra *total = &l->kinds[ANSWER_REFUSED].total;

	if (!gcra_test(total, rate, now_ns))
		return false;
	for (unsigned i = 0; i < n_rsts; i++)
		gcra_take(total, rate, now_ns);
	return true;
}

bool answer_limits_ends(struct answer_limits *l, unsigned n_rsts, uint64_t now_ns)
{
	return allow_rsts(l, &l->ends, n_rsts, now_ns);
}

bool answer_limits_backend(struct answer_limits *l, uint64_t now_ns)
{
	return allow_rsts(l, &l->backends, 1, now_ns);
}

bool answer_limits_echo(struct answer_limits *l, uint64_t now_ns)
{
	if (!gcra_test(&l->echo, &l->echo_rate, now_ns))
		return false;
	gcra_take(&l->echo, &l->echo_rate, now_ns);
	return true;
}
