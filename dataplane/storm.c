/* SPDX-License-Identifier: BSD-3-Clause */
#include "storm.h"
#include "admit.h"
#include "insist.h"
#include "limit.h"
#include "outcome_worker.h"
#include "pipeline.h"
#include "syn.h"
#include "wall.h"

#include <rte_mbuf.h>

#define HOLD_BURSTS   4                  /* per turn */
#define QUEUES_MAX    256                /* looked at per millisecond */
#define JITTER_MAX_NS 20000000ull        /* more would only delay */
#define MISSES_MAX    4                  /* turns without a token, until a place in line is given up */
#define NO_BUFFER_NS  HOLD_TICK_NS       /* until one is looked for again */
#define WHY_TICKS     8                  /* between two looks at what the first of a queue lacks */
#define END_SPREAD    4                  /* of a hold, one part is when it ends */
#define FRACTION      GCRA_FRACTION_BITS /* waits are in 2^-16 ns */

#define ONE_FOR_EACH_RUNG(name)                                                                                        \
	ONE_FOR_EACH_CAP(name);                                                                                        \
	static_assert(name##_retry == name##_client + STORM_RETRY, "and the retry budget last")
#define ONE_FOR_EACH_CAP(name)                                                                                         \
	static_assert(name##_prefix == name##_client + STORM_PREFIX &&                                                 \
			      name##_service == name##_client + STORM_SERVICE &&                                       \
			      name##_limit == name##_client + STORM_LIMIT &&                                           \
			      name##_hard_max == name##_client + STORM_HARD_MAX &&                                     \
			      name##_backend == name##_client + STORM_BACKEND,                                         \
		      "one for each cap, in their order")
ONE_FOR_EACH_RUNG(VERDICT_answer_storm);
ONE_FOR_EACH_RUNG(VERDICT_shed_storm);
ONE_FOR_EACH_CAP(ACTION_hold);
ONE_FOR_EACH_RUNG(ACTION_refuse);
ONE_FOR_EACH_RUNG(ACTION_silence);

/* 0 to range - 1; splitmix64. */
static uint64_t draw(struct worker *w, uint64_t range)
{
	uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (unsigned __int128)z * range >> 64;
}

/* --- caps --- */

static struct client_table *table_of(const struct worker *w, enum storm_cap cap)
{
	return cap == STORM_CLIENT ? &w->dp->clients : &w->dp->prefixes;
}

static struct storm_caps find_caps(struct worker *w, const struct policy_service *svc, const struct ipaddr *client,
				   uint8_t proto)
{
	struct service_shared *shared = &w->cells->services[svc->ref.slot];
	struct storm_caps caps = {0};

	/* UDP waits for nobody, and says any source: it neither has a share nor takes one. */
	if (proto == PROTO_TCP) {
		const struct gcra_rate *rate = &svc->sets[!ipaddr_is_v4(client)][SET_TCP].rate;

		caps.shares = fair_find(w, &svc->ref, client);
		caps.backend = rate->interval ? rate : NULL;
	}
	for (enum storm_cap cap = STORM_CLIENT; cap <= STORM_PREFIX; cap++) {
		struct client_cell cell;

		if (!svc->storm.caps[cap].interval)
			continue;
		caps.at[cap].rate = &svc->storm.caps[cap];
		caps.at[cap].tag = client_tag(table_of(w, cap), &svc->ref, client);
		cell = client_lookup(table_of(w, cap), caps.at[cap].tag);
		caps.at[cap].bucket = cell.bucket;
		caps.at[cap].line = cell.line;
	}
	if (svc->storm.caps[STORM_SERVICE].interval) {
		caps.at[STORM_SERVICE].rate = &svc->storm.caps[STORM_SERVICE];
		caps.at[STORM_SERVICE].bucket = &shared->rate;
		caps.at[STORM_SERVICE].line = &shared->line;
	}
	return caps;
}

void storm_take(struct worker *w, const struct policy_service *svc, const struct storm_caps *caps, flow_ref up,
		uint32_t backend_slot)
{
	if (caps->class != RETRY_NONE)
		retry_take(w, svc, caps->class, up, caps->replaces);
	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++) {
		struct gcra *bucket = caps->at[cap].bucket;

		if (!caps->at[cap].rate)
			continue;
		if (!bucket)
			bucket = client_claim(table_of(w, cap), caps->at[cap].tag, w->now_ns).bucket;
		if (bucket)
			gcra_take(bucket, caps->at[cap].rate, w->now_ns);
	}
	if (caps->backend && backend_slot != SLOT_NONE && !caps->replaces) {
		struct gcra_rate rate = limit_rate(w, caps->backend, backend_slot);

		gcra_take(&w->cells->backends[backend_slot].rate, &rate, w->now_ns);
	}
	fair_take(w, &caps->shares, up);
}

struct test {
	uint64_t wait;          /* until all caps let it through, as far as can be told now; 0: they do */
	enum storm_cap first;   /* of those that do not, in their order; or what limit_reason() says, or STORM_RETRY */
	enum storm_cap longest; /* the one that `wait` is for */
	bool full;              /* caps would let it through, and its backends have no room */
	enum hold_rank rank;    /* then: when it is its turn */
	bool no_token;          /* it is a retry beyond the budget, whatever else */
};

static bool passes(const struct test *t)
{
	return !t->wait && !t->full && !t->no_token;
}

/*
 * Nobody overtakes those who stand in line for a bucket. `in_line`: bits of the caps in whose line the attempt has a
 * place, which has come.
 */
static struct test test_caps(const struct worker *w, const struct storm_caps *caps, uint8_t in_line)
{
	struct test t = {.first = STORM_CAPS};

	for (enum storm_cap cap = 0; cap < STORM_CAPS; cap++) {
		const struct gcra_rate *rate = caps->at[cap].rate;
		uint64_t wait, line = 0;

		if (!caps->at[cap].bucket)
			continue;
		wait = gcra_wait(caps->at[cap].bucket, rate, w->now_ns);
		if (!(in_line >> cap & 1))
			line = gcra_line_wait(caps->at[cap].line, rate, w->now_ns);
		wait = wait > line ? wait : line;
		if (wait && t.first == STORM_CAPS)
			t.first = cap;
		if (wait > t.wait) {
			t.wait = wait;
			t.longest = cap;
		}
	}
	return t;
}

/* A service without a backend for it, or with none that takes flows, is none that is full: others say what becomes of
 * it. */
static bool has_room_upstream(const struct worker *w, const struct policy_service *svc, bool v6, uint64_t hash,
			      bool late)
{
	const struct policy_set *set = &svc->sets[v6][SET_TCP];

	return !set->n_backends || limit_find(w, set, hash, late) || wall_is_shut(w, w->burst.policy, set, hash);
}

/* The next one of that rank has to wait for others in that queue. */
static bool is_preceded(const struct worker *w, uint32_t queue, enum hold_rank rank)
{
	return hold_is_queued(&w->holds, queue, rank) || (rank < RANK_STRANGER && fair_is_strangers_turn(w, queue));
}

/*
 * Why an attempt that lets others go first, or finds no room, has to wait. Who stands behind others waits for what the
 * first of them lacks.
 */
static enum storm_cap why_full(const struct worker *w, const struct policy_service *svc, bool v6, uint64_t hash,
			       bool room)
{
	struct hold_queue *q = &w->holds.queues[hold_queue_at(svc->ref.slot, v6)];

	if (!room)
		q->why = limit_reason(w, &svc->sets[v6][SET_TCP], hash);
	return q->why;
}

/*
 * What room the backend has is for those who wait. A soft limit leaves enough for all; and while it is their pace that
 * those wait for, there is more than they may take.
 */
static bool is_hard(const struct worker *w, const struct policy_service *svc, bool v6, uint32_t backend_slot)
{
	const struct policy_set *set = &svc->sets[v6][SET_TCP];

	return (limit_most(w, set->hard_max, backend_slot, true) || set->rate.interval) &&
	       limit_may_go(w, svc->ref.slot);
}

/* A flow that begins anew keeps its backend, and is let in like any other; it has no place to wait. */
static struct test test_own_backend(const struct worker *w, const struct policy_service *svc, const struct item *it,
				    const struct storm_caps *caps)
{
	bool v6 = it->p.family == 6;
	const struct policy_set *set = &svc->sets[v6][SET_TCP];
	uint32_t slot = flow_track(&w->flows, it->ref)->backend_slot, queue = hold_queue_at(svc->ref.slot, v6);
	struct ipaddr client = packet_src(it->frame, &it->p);
	struct test t = {.first = STORM_CAPS};

	if (!limit_has_room(w, limit_caps_of(set), slot, true)) {
		t.full = true;
		t.first = limit_reason_of(w, set, slot);
	} else if (is_hard(w, svc, v6, slot) &&
		   is_preceded(w, queue, fair_rank(w, &caps->shares, &svc->ref, &client))) {
		t.full = true;
		t.first = w->holds.queues[queue].why;
	}
	return t;
}

static struct test test_all(const struct worker *w, const struct policy_service *svc, const struct item *it,
			    const struct storm_caps *caps)
{
	struct test t = test_caps(w, caps, 0);
	bool v6 = it->p.family == 6, room;
	struct ipaddr client;

	if (!retry_may_go(w, svc->ref.slot, caps->class))
		return (struct test){.first = STORM_RETRY, .no_token = true};
	if (t.wait || it->p.proto != PROTO_TCP || caps->replaces || !limit_applies(w, svc, v6))
		return t;
	if (it->ref != FLOW_REF_NONE)
		return test_own_backend(w, svc, it, caps);
	room = has_room_upstream(w, svc, v6, it->hash, false);
	if (room && !limit_is_queued(w, svc->ref.slot, v6))
		return t;
	client = packet_src(it->frame, &it->p);
	t.rank = fair_rank(w, &caps->shares, &svc->ref, &client);
	t.full = !room || is_preceded(w, hold_queue_at(svc->ref.slot, v6), t.rank);
	if (t.full)
		t.first = why_full(w, svc, v6, it->hash, room);
	return t;
}

/* --- the lower rungs --- */

/* By its service's cap, or what its backends bear: shedding.h in control goes by the sum, and names the larger part. */
static void count_silent_many(struct service_cell *cell, enum storm_cap cap)
{
	count_add(&cell->silent_many, 1);
	if (cap == STORM_SERVICE)
		count_add(&cell->silent_rate, 1);
}

/*
 * A RST, or silence. Where nothing is congested and what comes is only spread, silence: its client's kernel asks again
 * in a second, and nothing is wrong that a program should hear of. The verdict is of no use in shadow; `it`: NULL in
 * shadow of a hold.
 */
static enum verdict refuse(struct worker *w, enum cure_mode mode, uint32_t service_slot, const struct ipaddr *client,
			   const struct item *it, enum storm_cap cap)
{
	struct service_cell *cell = &w->services[service_slot];
	bool tcp = !it || it->p.proto == PROTO_TCP;
	bool quiet = !tcp || (cap == STORM_LIMIT && limit_only_spreads(w, service_slot));
	bool aloud = !quiet && (mode == CURE_ENFORCE ? answer_limits_refused(w->limits, client, w->now_ns)
						     : answer_limits_would_refuse(w->limits, client, w->now_ns));

	if (outcome_attempt_due(w, mode, client, service_slot, SLOT_NONE,
				(aloud ? ACTION_refuse_client : ACTION_silence_client) + cap)) {
		if (!(it->attempt & ATTEMPT_REPEATED))
			count_add(&cell->refused_storm, 1);
		retry_refused(w, service_slot, it, aloud, cap == STORM_RETRY);
		if (it->p.proto == PROTO_TCP && !aloud && cap >= STORM_SERVICE)
			count_silent_many(cell, cap);
	} else {
		count_add(aloud ? &cell->would_refuse : &cell->would_silence, 1);
	}
	return (aloud ? VERDICT_answer_storm_client : VERDICT_shed_storm_client) + cap;
}

/*
 * A SYN that was really refused by the first of the caps that did. What one client sends in vain to a cap of its own,
 * or of its prefix, need not come here; where all clients share a cap or the backends, each has its chance.
 */
static void note_silenced(struct worker *w, const struct policy_service *svc, const struct insist_attempt *attempt,
			  const struct storm_caps *caps, enum verdict verdict)
{
	const struct gcra_rate *rate;
	uint64_t wait, line, hold_ns = svc->storm.hold_ns;

	if ((verdict != VERDICT_shed_storm_client && verdict != VERDICT_shed_storm_prefix) || !svc->storm.early)
		return;
	rate = caps->at[attempt->cap].rate;
	wait = gcra_wait(caps->at[attempt->cap].bucket, rate, w->now_ns) >> FRACTION;
	line = gcra_line_wait(caps->at[attempt->cap].line, rate, w->now_ns) >> FRACTION;
	/* Who comes when the line is shorter than what may be held finds a place in it. */
	line = line > hold_ns ? line - hold_ns : 0;
	insist_silenced(w, svc, attempt, wait > line ? wait : line);
}

/* --- holding --- */

/*
 * No service takes more than what it leaves to the others, and half of that if its turn will not come in time: such a
 * hold only keeps its client from trying again at once. Each rank leaves half of it to the one before; but one
 * stranger may wait where the known would leave no place, for he has his turn.
 */
static bool has_room(const struct worker *w, const struct policy_service *svc, bool v6, bool hopeless,
		     enum hold_rank rank)
{
	uint32_t free = w->holds.capacity - w->holds.n;

	if (rank == RANK_STRANGER && !hold_is_queued_of(&w->holds, hold_queue_at(svc->ref.slot, v6), rank))
		return w->holds.of_service[svc->ref.slot] < free;
	return w->holds.of_service[svc->ref.slot] < free >> (hopeless + rank);
}

static bool may_hold(const struct worker *w, const struct policy *policy, const struct policy_service *svc,
		     const struct item *it, bool hopeless, enum hold_rank rank)
{
	const struct policy_set *set = &svc->sets[it->p.family == 6][SET_TCP];

	return it->p.proto == PROTO_TCP && it->ref == FLOW_REF_NONE && svc->storm.hold_ns && set->n_backends &&
	       has_room(w, svc, it->p.family == 6, hopeless, rank) && packet_tcp_is_right(it->frame, &it->p) &&
	       !wall_is_shut(w, policy, set, it->hash);
}

/* A place in the line of the cap that it waits for, or the one that it has; `*wait` becomes that place's. */
static bool has_place(struct worker *w, struct hold *h, const struct storm_caps *caps, enum storm_cap cap,
		      uint64_t max_wait, uint64_t *wait)
{
	if (*wait > max_wait)
		return false;
	if (h->in_line >> cap & 1)
		return true;
	if (!gcra_line_join(caps->at[cap].line, caps->at[cap].rate, w->now_ns, max_wait, wait))
		return false;
	h->in_line |= 1 << cap;
	return true;
}

/*
 * Until there is room, or its end. It may wait already: a wheel that stood still has it too early. Who has waited for a
 * cap may wait for a cap's time, but for room no longer than others.
 */
static void wait_for_room(struct worker *w, const struct policy_service *svc, struct hold *h)
{
	if (!h->queued)
		h->end_ns = RTE_MIN(h->end_ns, w->now_ns + limit_hold_ns(w, svc));
	hold_schedule(&w->holds, h, h->end_ns);
	if (h->queued)
		return;
	h->began_ms = CLOCK_MS(w->now_ns);
	hold_queue(&w->holds, h);
	count_add(&w->services[h->service.slot].waited, 1);
}

/*
 * When the hold is tried next, before its end. A place in line is an interval of the bucket's, in which the moment is
 * random: so a burst leaves spread over the time that the bucket needs for it, in the order in which it came. Who finds
 * no place in time is tried at its end, which is random then, too: what came together must not be sent away together,
 * to come again so.
 */
static void plan(struct worker *w, const struct policy_service *svc, struct hold *h, const struct storm_caps *caps,
		 const struct test *t)
{
	uint64_t left_ns = h->end_ns - w->now_ns, wait = t->wait, due_ns, jitter_ns;

	if (t->full) {
		wait_for_room(w, svc, h);
		return;
	}
	jitter_ns = caps->at[t->longest].rate->interval >> FRACTION;

	if (has_place(w, h, caps, t->longest, left_ns << FRACTION, &wait)) {
		due_ns = w->now_ns + (wait >> FRACTION) + 1 +
			 draw(w, jitter_ns < JITTER_MAX_NS ? jitter_ns : JITTER_MAX_NS);
	} else {
		h->end_ns -= draw(w, left_ns / 2);
		due_ns = h->end_ns;
	}
	hold_schedule(&w->holds, h, due_ns < h->end_ns ? due_ns : h->end_ns);
}

static bool hold(struct worker *w, const struct policy *policy, const struct policy_service *svc, const struct item *it,
		 const struct storm_caps *caps, const struct test *t)
{
	enum cure_mode mode = policy->modes.of[CURE_STORM];
	struct service_cell *cell = &w->services[svc->ref.slot];
	uint64_t hold_ns = t->full ? limit_hold_ns(w, svc) : svc->storm.hold_ns, end_ns = w->now_ns + hold_ns;
	bool hopeless = t->full || t->wait > hold_ns << FRACTION;
	struct hold new;

	if (!hold_ns || !may_hold(w, policy, svc, it, hopeless, t->rank))
		return false;
	new = (struct hold){
		.src = packet_src(it->frame, &it->p),
		.dst = packet_dst(it->frame, &it->p),
		.sport_be = it->p.sport_be,
		.dport_be = it->p.dport_be,
		.payload_len = it->p.payload_len,
		.service = svc->ref,
		.hash = it->hash,
		/* Who hears that there is no room, and comes again, shall do so at a random moment, as with caps. */
		.end_ns = t->full && (t->first != STORM_LIMIT || !limit_only_spreads(w, svc->ref.slot))
				  ? end_ns - draw(w, hold_ns / END_SPREAD)
				  : end_ns,
		.began_ms = CLOCK_MS(w->now_ns),
		.rank = t->rank,
		.shadow = mode == CURE_SHADOW,
		.retry = caps->class == RETRY_AGAIN,
	};
	syn_keep(&new.syn, it);
	plan(w, svc, hold_add(&w->holds, &new, w->now_ns), caps, t);
	if (outcome_attempt_due(w, mode, &new.src, svc->ref.slot, SLOT_NONE, ACTION_hold_client + t->first)) {
		w->ledger.inside++;
		count_add(&cell->held, 1);
		count_add(&cell->holding, 1);
	} else {
		count_add(&cell->would_hold, 1);
	}
	return true;
}

/*
 * It has to wait for room, and cannot: so it goes where only a soft limit is in its way. What room a hard limit leaves
 * is for those who wait: else those who cannot, because too many do, would take it each time between two turns. But
 * while it is their pace that those wait for, there is more than they may take: without a user for that, less and less
 * would be answered, and the pace, which follows what is answered, sink with it.
 */
static bool goes_all_the_same(const struct worker *w, const struct policy_service *svc, const struct item *it,
			      enum hold_rank rank)
{
	bool v6 = it->p.family == 6;
	const struct policy_set *set = &svc->sets[v6][SET_TCP];
	const struct policy_backend *backend = limit_find(w, set, it->hash, true);

	if (!backend)
		return !set->n_backends || wall_is_shut(w, w->burst.policy, set, it->hash);
	return !is_hard(w, svc, v6, backend->ref.slot) || !is_preceded(w, hold_queue_at(svc->ref.slot, v6), rank);
}

enum verdict storm_admit(struct worker *w, const struct policy *policy, const struct policy_service *svc,
			 struct item *it, struct storm_caps *caps)
{
	enum cure_mode mode = policy->modes.of[CURE_STORM];
	enum verdict verdict = VERDICT_INSIDE;
	struct ipaddr client;
	struct test t;

	*caps = (struct storm_caps){0};
	if (mode == CURE_OFF)
		return VERDICT_NONE;
	client = packet_src(it->frame, &it->p);
	*caps = find_caps(w, svc, &client, it->p.proto);
	caps->class = retry_classify(w, svc, it, mode);
	caps->replaces = it->ref != FLOW_REF_NONE && flow_half(&w->flows, it->ref)->state == FLOW_SYN_SENT;
	t = test_all(w, svc, it, caps);
	if (passes(&t))
		return VERDICT_NONE;
	if (t.no_token || !hold(w, policy, svc, it, caps, &t)) {
		if (t.full && it->ref == FLOW_REF_NONE && goes_all_the_same(w, svc, it, t.rank))
			return VERDICT_NONE;
		verdict = refuse(w, mode, svc->ref.slot, &client, it, t.first);
		if (mode == CURE_ENFORCE && it->p.proto == PROTO_TCP)
			note_silenced(w, svc,
				      &(struct insist_attempt){client, packet_dst(it->frame, &it->p), it->p.dport_be,
							       t.first, 0},
				      caps, verdict);
	}
	*caps = (struct storm_caps){0};
	return mode == CURE_ENFORCE ? verdict : VERDICT_NONE;
}

/* A SYN with another number takes the first one's place, in line too: the client has begun anew on the same ports. */
bool storm_absorb_syn(struct worker *w, const struct item *it)
{
	struct ipaddr src = packet_src(it->frame, &it->p), dst = packet_dst(it->frame, &it->p);
	struct hold *h = hold_lookup(&w->holds, it->hash, &src, &dst, it->p.sport_be, it->p.dport_be);

	if (!h)
		return false;
	if (packet_tcp_is_right(it->frame, &it->p)) {
		syn_keep(&h->syn, it);
		h->payload_len = it->p.payload_len;
	}
	return true;
}

/* --- release --- */

/* Last, and with release: when decide reads 0, this worker is through with the slot. */
static void end_hold(struct worker *w, struct hold *h)
{
	uint64_t *holding = &w->services[h->service.slot].holding;

	if (!h->shadow) {
		w->ledger.inside--;
		__atomic_store_n(holding, *holding - 1, __ATOMIC_RELEASE);
	}
	hold_del(&w->holds, h);
}

/* The service for which it is held, unless that is gone, or no longer listens there. */
static const struct policy_service *service_of(const struct policy *policy, const struct hold *h)
{
	const struct policy_service *svc = policy_service_at(policy, h->service.slot);
	const struct policy_listener *listener = listener_lookup(policy->listeners, &h->dst, h->dport_be, PROTO_TCP);

	if (!svc || svc->ref.generation != h->service.generation)
		return NULL;
	return listener && listener->service_slot == h->service.slot ? svc : NULL;
}

/* Makes the packet again, as the burst's next. NULL if there is no buffer. */
static struct item *make_item(struct worker *w, struct burst *b, const struct hold *h)
{
	const struct syn syn = {h->src, h->dst, h->sport_be, h->dport_be, h->syn};
	struct item *it = &b->items[b->n];

	if (!syn_make(w, &syn, it))
		return NULL;
	it->attempt = h->retry ? ATTEMPT_RETRY : 0;
	b->n++;
	return it;
}

/* What becomes of the attempt, now that its time has come; without a packet it can only be forgotten. */
static void settle(struct worker *w, struct burst *b, const struct hold *h, struct item *it,
		   const struct policy_service *svc, const struct storm_caps *caps, const struct test *t)
{
	struct service_cell *cell = &w->services[h->service.slot];

	if (!it) {
		w->ledger.verdicts[VERDICT_drop_no_buffer]++;
		outcome_note(w, &h->src, h->service.slot, SLOT_NONE, OUTCOME_VERDICT(VERDICT_drop_no_buffer));
		count_add(&cell->silent, 1);
		return;
	}
	if (!svc) {
		it->verdict = admit_refuse(w, h->service.slot, it, VERDICT_answer_service_down, VERDICT_NONE);
	} else if (!passes(t)) {
		it->verdict = refuse(w, CURE_ENFORCE, h->service.slot, &h->src, it, t->first);
		note_silenced(w, svc,
			      &(struct insist_attempt){h->src, h->dst, h->dport_be, t->first, svc->storm.hold_ns}, caps,
			      it->verdict);
	} else {
		it->verdict = admit_room(w, svc, it);
		if (it->verdict == VERDICT_NONE)
			it->verdict = admit_serve(w, b->policy, svc, it, caps);
	}
	if (it->verdict == VERDICT_NONE)
		count_add(&cell->held_admitted, 1);
	else
		it->p.payload_len = h->payload_len; /* a RST acknowledges it, though it is not here */
}

static void settle_shadow(struct worker *w, const struct hold *h, const struct policy_service *svc,
			  const struct storm_caps *caps, const struct test *t)
{
	const struct policy_backend *backend;

	if (!svc)
		return;
	if (!passes(t)) {
		refuse(w, CURE_SHADOW, h->service.slot, &h->src, NULL, t->first);
		return;
	}
	backend = limit_find(w, &svc->sets[!ipaddr_is_v4(&h->dst)][SET_TCP], h->hash, true);
	storm_take(w, svc, caps, FLOW_REF_NONE, backend ? backend->ref.slot : SLOT_NONE);
}

/*
 * True: it waits on. Its turn may come without a token: another worker took one too many, or this one did not run for a
 * while. A token late is no harm; but of many that are late not all can be tried at each token, so they line up anew.
 */
static bool waits_on(struct worker *w, const struct policy_service *svc, struct hold *h, const struct storm_caps *caps,
		     const struct test *t)
{
	if (passes(t) || t->no_token || w->now_ns >= h->end_ns)
		return false;
	if (!t->full && h->in_line >> t->longest & 1 && ++h->n_missed == MISSES_MAX) {
		h->in_line &= ~(1 << t->longest);
		h->n_missed = 0;
	}
	plan(w, svc, h, caps, t);
	return true;
}

/*
 * Caps let it through: whether its backends do. Who has waited for a cap only has no rank and stands in no queue,
 * unless he has waited for as long as he may; `its_turn`: it comes from there.
 */
static bool has_to_wait(struct worker *w, const struct policy_service *svc, const struct storm_caps *caps,
			struct hold *h, bool its_turn, enum storm_cap *why)
{
	bool v6 = !ipaddr_is_v4(&h->dst), late = w->now_ns >= h->end_ns, room;

	if (!limit_applies(w, svc, v6))
		return false;
	if (!its_turn && !h->queued)
		h->rank = fair_rank(w, &caps->shares, &svc->ref, &h->src);
	room = has_room_upstream(w, svc, v6, h->hash, late);
	if (room && (its_turn || late || !is_preceded(w, hold_queue_at(svc->ref.slot, v6), h->rank)))
		return false;
	*why = why_full(w, svc, v6, h->hash, room);
	return true;
}

/* Returns true if it was let through, or would have been. */
static bool try_again(struct worker *w, struct burst *b, struct hold *h, bool its_turn)
{
	const struct policy_service *svc = service_of(b->policy, h);
	struct storm_caps caps = {0};
	bool v6 = !ipaddr_is_v4(&h->dst), went;
	struct item *it = NULL;
	struct test t = {0};

	if (svc) {
		caps = find_caps(w, svc, &h->src, PROTO_TCP);
		caps.class = h->retry ? RETRY_AGAIN : RETRY_FIRST;
		t = test_caps(w, &caps, h->in_line);
		t.full = !t.wait && has_to_wait(w, svc, &caps, h, its_turn, &t.first);
		t.no_token = !t.wait && !t.full && !retry_may_go(w, h->service.slot, caps.class);
		if (t.no_token)
			t.first = STORM_RETRY;
		if (waits_on(w, svc, h, &caps, &t))
			return false;
	}
	if (!h->shadow) {
		it = make_item(w, b, h);
		if (!it && w->now_ns < h->end_ns) {
			hold_schedule(&w->holds, h, w->now_ns + NO_BUFFER_NS);
			return false;
		}
		settle(w, b, h, it, svc, &caps, &t);
		went = it && it->verdict == VERDICT_NONE;
	} else {
		settle_shadow(w, h, svc, &caps, &t);
		went = svc && passes(&t);
	}
	if (went && h->rank == RANK_STRANGER)
		fair_stranger_went(w, hold_queue_at(h->service.slot, v6));
	end_hold(w, h);
	return went;
}

/*
 * Where the first in line has waited for a quarter of what it may, the line is no burst that will be worked off, but
 * more than can be served: in their order all would be served late. So the last one goes first then, and those who can
 * be helped are helped at once ("adaptive LIFO": Maurer, "Fail at Scale", ACM Queue 13/8, 2015).
 */
static bool is_old(const struct worker *w, const struct policy_service *svc, const struct hold *h)
{
	uint32_t waited_ms = CLOCK_MS(w->now_ns) - h->began_ms;

	return waited_ms * UINT64_C(4000000) > limit_hold_ns(w, svc);
}

/* Returns how many were tried, at most `max`. */
static uint32_t try_queue(struct worker *w, struct burst *b, uint32_t queue, uint32_t max)
{
	bool turn = true;
	uint32_t n = 0;

	while (n < max && w->holds.queues[queue].n) {
		/* One that cannot go at his turn is enough for this time. */
		enum hold_rank rank =
			turn && fair_is_strangers_turn(w, queue) ? RANK_STRANGER : hold_first_rank(&w->holds, queue);
		struct hold *h = hold_queued(&w->holds, queue, rank, false);
		const struct policy_service *svc = service_of(b->policy, h);
		uint32_t service_slot = h->service.slot;

		if (!limit_may_go(w, service_slot))
			break;
		if (svc && is_old(w, svc, h))
			h = hold_queued(&w->holds, queue, rank, true);
		if (svc && !has_room_upstream(w, svc, !ipaddr_is_v4(&h->dst), h->hash, false)) {
			if (w->holds.queue_tick % WHY_TICKS == 0)
				(void)why_full(w, svc, !ipaddr_is_v4(&h->dst), h->hash, false);
			break;
		}
		hold_unqueue(&w->holds, h);
		n++;
		if (try_again(w, b, h, true))
			limit_went(w, service_slot);
		else
			turn = false;
	}
	return n;
}

static void run_queues(struct worker *w)
{
	struct holds *hs = &w->holds;
	struct burst *b = &w->burst;
	uint32_t n = 0, n_queues = hs->n_waiting < QUEUES_MAX ? hs->n_waiting : QUEUES_MAX;

	hs->queue_tick = w->now_ns / HOLD_TICK_NS;
	pipeline_stamp(w, b);
	b->n = 0;
	/* In random order: what several of them wait for may come by the same clock as their turns. */
	for (uint32_t i = 0, at = 0; i < n_queues && at < hs->n_waiting && n < BURST_MAX; i++) {
		uint32_t others = hs->n_waiting - at, queue = hold_pick_queue(hs, at, others > 1 ? draw(w, others) : 0);

		n += try_queue(w, b, queue, BURST_MAX - n);
		at += hs->queues[queue].n > 0;
	}
	pipeline_finish(w);
}

void storm_run_due(struct worker *w)
{
	struct hold *due[BURST_MAX];
	struct burst *b = &w->burst;
	uint32_t n = BURST_MAX;

	if (w->holds.n_waiting && w->now_ns / HOLD_TICK_NS != w->holds.queue_tick)
		run_queues(w);
	for (unsigned i = 0; i < HOLD_BURSTS && n == BURST_MAX; i++) {
		n = hold_due(&w->holds, w->now_ns, BURST_MAX, due);
		if (!n)
			return;
		pipeline_stamp(w, b);
		b->n = 0;
		for (uint32_t j = 0; j < n; j++)
			try_again(w, b, due[j], false);
		pipeline_finish(w);
	}
}

void storm_stop(struct worker *w)
{
	struct hold *due[BURST_MAX];
	uint32_t n;

	while ((n = hold_due(&w->holds, UINT64_MAX, BURST_MAX, due)))
		for (uint32_t i = 0; i < n; i++) {
			if (!due[i]->shadow) {
				w->ledger.verdicts[VERDICT_drop_stopped]++;
				count_add(&w->services[due[i]->service.slot].silent, 1);
			}
			end_hold(w, due[i]);
		}
}
