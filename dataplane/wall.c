/* SPDX-License-Identifier: BSD-3-Clause */
#include "wall.h"
#include "hearing.h"
#include "note.h"
#include "order.h"
#include "outcome_worker.h"
#include "pipeline.h"
#include "port.h"
#include "pressure.h"
#include "probe.h"
#include "resteer.h"
#include "retry.h"
#include "route.h"
#include "select.h"
#include "signals.h"
#include "stray.h"
#include "syn.h"
#include "tcp.h"
#include "trial.h"

/* A SYN may be silent for ten times what handshakes usually take, within these bounds; until enough are known, max. */
#define SYN_TIMEOUT_MIN_MS 200
#define SYN_TIMEOUT_MAX_MS 1000
#define SYN_TIMEOUT_FACTOR 10
#define HANDSHAKES_ENOUGH  10
#define HANDSHAKE_MAX_MS   10000

#define LAST_RESORT_NS     1000000000 /* one flow per service in that time */
#define FAILURES_TOLD_MS   100
#define WAITING_BUDGET     64 /* flows of opened backends that are given away per loop */

/* --- a new flow --- */

/* Another worker's clock may be a loop ahead. */
static bool take_last_resort(struct worker *w, uint32_t service_slot)
{
	uint64_t *last_ns = &w->cells->services[service_slot].last_resort_ns;
	uint64_t seen_ns = __atomic_load_n(last_ns, __ATOMIC_RELAXED);

	if (seen_ns && (int64_t)(w->now_ns - seen_ns) < LAST_RESORT_NS)
		return false;
	return __atomic_compare_exchange_n(last_ns, &seen_ns, w->now_ns, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* An outcome names the backend that the flow would have had without the wall. */
static bool attempt_due(struct worker *w, enum cure_mode mode, const struct ipaddr *client,
			const struct policy_service *svc, const struct policy_backend *first, enum action action)
{
	return outcome_attempt_due(w, mode, client, svc->ref.slot, first->ref.slot, action);
}

/* Never 0. */
static uint8_t network_of(const struct worker *w, const struct item *syn)
{
	struct ipaddr client = packet_src(syn->frame, &syn->p), prefix;
	unsigned len;

	prefix = outcome_prefix(&client, &len);
	return hash_keyed(&prefix, sizeof(prefix), w->dp->config.secret) % UINT8_MAX + 1;
}

/* Not for a SYN that no backend need answer: whoever forges one would have it opened again. */
static bool take_trial(struct worker *w, const struct policy_backend *backend, const struct item *it)
{
	uint64_t *trial = &w->cells->backends[backend->ref.slot].trial;
	uint32_t now_ms = CLOCK_MS(w->now_ns);
	struct wall *wall = &w->wall;

	if (select_state(w->cells, backend->ref.slot) != BREAKER_HALF_OPEN || it->p.proto != PROTO_TCP ||
	    !syn_is_ordinary(it) || (it->attempt & ATTEMPT_RETRY && !trial_is_left(trial, now_ms)) ||
	    !trial_take(trial, network_of(w, it), now_ms, &wall->trial_generation))
		return false;
	wall->trial_slot = backend->ref.slot;
	return true;
}

void wall_placed(struct worker *w, flow_ref up)
{
	uint32_t slot = w->wall.trial_slot;

	if (__builtin_expect(slot == SLOT_NONE, 1))
		return;
	w->wall.trial_slot = SLOT_NONE;
	if (up == FLOW_REF_NONE || !signals_try(w, up, w->wall.trial_generation))
		trial_end(&w->cells->backends[slot].trial, w->wall.trial_generation, false, CLOCK_MS(w->now_ns));
}

/* splitmix64 */
static uint32_t chance(struct worker *w)
{
	uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	return (z ^ z >> 27) >> 32;
}

/* Its first choice takes it. */
static bool is_taken(struct worker *w, enum cure_mode mode, const struct policy_backend *first, const struct item *it)
{
	switch (select_state(w->cells, first->ref.slot)) {
	case BREAKER_CLOSED:
		return true;
	case BREAKER_RAMP:
		return chance(w) <= __atomic_load_n(&w->cells->backends[first->ref.slot].share, __ATOMIC_RELAXED);
	case BREAKER_HALF_OPEN:
		return mode == CURE_ENFORCE && take_trial(w, first, it);
	default:
		return false;
	}
}

/* Where nothing else is left, any half-open backend is as good. */
static const struct policy_backend *find_trial(struct worker *w, const struct policy_set *set, const struct item *it)
{
	for (uint32_t i = 0; i < set->n_backends; i++)
		if (take_trial(w, &set->backends[i], it))
			return &set->backends[i];
	return NULL;
}

const struct policy_backend *wall_choose(struct worker *w, const struct policy *policy,
					 const struct policy_service *svc, const struct policy_set *set,
					 const struct item *it)
{
	const struct policy_backend *first = select_backend(set, it->hash), *next, *last;
	enum cure_mode mode = policy->modes.of[CURE_WALL];
	struct ipaddr client;

	if (mode == CURE_OFF || is_taken(w, mode, first, it))
		return first;
	client = packet_src(it->frame, &it->p);
	next = select_next(w->cells, set, it->hash, SLOT_NONE);
	if (next == first)
		next = select_next(w->cells, set, it->hash, first->ref.slot);
	/* In the ramp, and there is no other: then its share is all. */
	if (!next && select_takes_flows(w->cells, first->ref.slot))
		return first;
	if (!next && mode == CURE_ENFORCE)
		next = find_trial(w, set, it);
	if (next)
		return attempt_due(w, mode, &client, svc, first, ACTION_divert) ? next : first;
	/* A half-open one has its trial, and no other flow. */
	last = select_first_due(w->cells, set);
	if (last && take_last_resort(w, svc->ref.slot))
		return attempt_due(w, mode, &client, svc, first, ACTION_last_resort) ? last : first;
	return attempt_due(w, mode, &client, svc, first, ACTION_refuse_open) ? NULL : first;
}

bool wall_takes_again(struct worker *w, const struct policy *policy, const struct policy_service *svc,
		      const struct item *it)
{
	uint32_t slot = flow_track(&w->flows, it->ref)->backend_slot;
	enum cure_mode mode = policy->modes.of[CURE_WALL];
	struct ipaddr client;

	/* What waits for an answer already is one flow, with one SYN or two. */
	if (mode == CURE_OFF || flow_half(&w->flows, it->ref)->state == FLOW_SYN_SENT ||
	    select_takes_flows(w->cells, slot))
		return true;
	client = packet_src(it->frame, &it->p);
	return !outcome_attempt_due(w, mode, &client, svc->ref.slot, slot, ACTION_refuse_open);
}

bool wall_is_shut(const struct worker *w, const struct policy *policy, const struct policy_set *set, uint64_t hash)
{
	return policy->modes.of[CURE_WALL] == CURE_ENFORCE &&
	       !select_takes_flows(w->cells, select_backend(set, hash)->ref.slot) &&
	       !select_next(w->cells, set, hash, SLOT_NONE);
}

/* --- flows that wait: a list per backend, linked by their DIR_DOWN, which is never 0 --- */

static void start_waiting(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	struct backend_cell *cell = &w->backends[track->backend_slot];
	flow_ref down = up | DIR_DOWN;

	track->wall |= WALL_WAITING;
	track->waiting_prev = 0;
	track->waiting_next = cell->waiting;
	if (cell->waiting)
		flow_track(&w->flows, cell->waiting)->waiting_prev = down;
	cell->waiting = down;
}

void wall_stop_waiting(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	track->wall &= ~WALL_WAITING;
	if (track->waiting_prev)
		flow_track(&w->flows, track->waiting_prev)->waiting_next = track->waiting_next;
	else
		w->backends[track->backend_slot].waiting = track->waiting_next;
	if (track->waiting_next)
		flow_track(&w->flows, track->waiting_next)->waiting_prev = track->waiting_prev;
}

void wall_watch(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	track->wall |= WALL_WATCHED;
	track->doubts = 0;
	track->syn_ms = CLOCK_MS(w->now_ns);
	track->timeout_ms = wall_syn_timeout_ms(&w->backends[track->backend_slot]);
	if (!(track->wall & WALL_SPENT))
		start_waiting(w, up);
}

/* Who can make backends silent at will shall not have it held against them, nor taken for work of theirs. */
void wall_begin(struct worker *w, const struct item *syn)
{
	struct flow_track *track = flow_track(&w->flows, syn->ref);

	if (syn_is_ordinary(syn)) {
		wall_watch(w, syn->ref);
		return;
	}
	signals_leave(w, syn->ref);
	track->wall = WALL_SPENT | WALL_BLAMED;
	track->syn_ms = CLOCK_MS(w->now_ns); /* if it is answered, how long that took is true */
}

void wall_stay(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	if (track->wall & WALL_WAITING)
		wall_stop_waiting(w, up);
	if (flow_mode(track, CURE_WALL) != CURE_OFF)
		track->wall |= WALL_SPENT;
}

void wall_again(struct worker *w, const struct item *syn)
{
	struct flow_track *track = flow_track(&w->flows, syn->ref);

	if (!track->wall || syn_is_ordinary(syn))
		return;
	wall_stay(w, syn->ref);
	track->wall |= WALL_BLAMED;
}

/* --- what is known of a backend --- */

uint32_t wall_syn_timeout_ms(const struct backend_cell *cell)
{
	uint32_t ms = cell->handshake_ms8 * SYN_TIMEOUT_FACTOR / 8;

	if (cell->handshakes < HANDSHAKES_ENOUGH || ms > SYN_TIMEOUT_MAX_MS)
		return SYN_TIMEOUT_MAX_MS;
	return ms < SYN_TIMEOUT_MIN_MS ? SYN_TIMEOUT_MIN_MS : ms;
}

void wall_heard(struct worker *w, uint32_t slot, uint32_t ago_ms)
{
	struct backend_cell *cell = &w->backends[slot];
	uint64_t at_ms = w->now_ns / 1000000 - ago_ms;

	if ((int64_t)(at_ms - cell->heard_ms) > 0)
		__atomic_store_n(&cell->heard_ms, at_ms, __ATOMIC_RELAXED);
}

/* EWMA of eighths, in eighths. */
static void learn_handshake(struct backend_cell *cell, uint32_t took_ms)
{
	uint32_t ms = took_ms < HANDSHAKE_MAX_MS ? took_ms : HANDSHAKE_MAX_MS;

	cell->handshake_ms8 = cell->handshakes ? cell->handshake_ms8 - cell->handshake_ms8 / 8 + ms : ms * 8;
	if (cell->handshakes < HANDSHAKES_ENOUGH)
		cell->handshakes++;
}

void wall_tell(struct worker *w, uint32_t slot)
{
	note_add(w, &(struct note){.kind = NOTE_BACKEND, .backend.slot = slot});
}

static void end_streak(struct worker *w, uint32_t slot)
{
	struct backend_shared *shared = &w->cells->backends[slot];

	if (!__atomic_load_n(&shared->breaker, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&shared->checks_failed, 0, __ATOMIC_RELAXED);
	if (streak_answered(&shared->breaker))
		wall_tell(w, slot);
}

void wall_heard_answer(struct worker *w, uint32_t slot, uint32_t took_ms)
{
	learn_handshake(&w->backends[slot], took_ms);
	end_streak(w, slot);
}

/* A SYN that was sent more than once gives no time: nobody knows which of them was answered (Karn). */
void wall_answered(struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);
	struct backend_cell *cell = &w->backends[track->backend_slot];

	if (flow_mode(track, CURE_WALL) == CURE_OFF)
		return;
	cell->lately[cell->connects % BACKEND_LATELY] = up | DIR_DOWN;
	if (flow_half(&w->flows, up)->packets == 1)
		learn_handshake(cell, CLOCK_MS(w->now_ns) - track->syn_ms);
	end_streak(w, track->backend_slot);
}

/* --- silence --- */

/* One of the flows that it answered lately has had a packet of it since. */
static bool moves_lately(const struct worker *w, uint32_t slot, uint32_t age_ms)
{
	for (unsigned i = 0; i < BACKEND_LATELY; i++) {
		flow_ref ref = w->backends[slot].lately[i];
		const struct flow_half *down;

		if (!ref)
			continue;
		/* The entry may be another flow's by now, which says as much if it is one of this backend. */
		down = flow_half(&w->flows, ref);
		if (!down->udp && down->state > FLOW_SYN_SENT && flow_track(&w->flows, ref)->backend_slot == slot &&
		    (uint32_t)w->run_ms - down->last_ms < age_ms)
			return true;
	}
	return false;
}

/*
 * By any worker, whose clock may be a loop ahead. A backend whose accept queue is full is silent to SYNs, and no less
 * alive.
 */
bool wall_heard_since(const struct worker *w, uint32_t slot, uint32_t age_ms)
{
	int64_t since_ms = w->now_ns / 1000000 - age_ms;

	for (unsigned i = 0; i < w->dp->config.n_workers; i++) {
		const struct backend_cell *cell = &w->dp->workers[i]->backends[slot];
		uint64_t heard_ms = __atomic_load_n(&cell->heard_ms, __ATOMIC_RELAXED);

		if (heard_ms && (int64_t)heard_ms > since_ms)
			return true;
	}
	return moves_lately(w, slot, age_ms);
}

/* The answer would come by the port that its SYN left by. A port that loses frames all the time proves nothing. */
static bool is_doubtful(struct worker *w, uint8_t *doubts, unsigned port, uint32_t age_ms)
{
	if (*doubts == HEARING_DOUBTS || !hearing_lost_lately(w, port, age_ms))
		return false;
	++*doubts;
	return true;
}

bool wall_is_deaf(struct worker *w, flow_ref up, uint32_t age_ms)
{
	struct fib_hop hop;

	return route_flow(w, &w->burst, up, flow_half(&w->flows, up), flow_cold(&w->flows, up)->hash[DIR_UP], &hop) !=
		       VERDICT_NONE ||
	       is_doubtful(w, &flow_track(&w->flows, up)->doubts, hop.port, age_ms);
}

static enum syn_silence_of judge_silence(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	const struct flow_cold *cold = flow_cold(&w->flows, up);
	struct flow_half *half = flow_half(&w->flows, up);
	uint32_t age_ms = CLOCK_MS(w->now_ns) - track->syn_ms;
	uint64_t word = __atomic_load_n(&w->cells->backends[track->backend_slot].breaker, __ATOMIC_RELAXED);
	struct fib_hop hop;

	if (streak_read(word).side_down)
		return SILENCE_OF_SIDE;
	switch (route_flow(w, &w->burst, up, half, cold->hash[DIR_UP], &hop)) {
	case VERDICT_NONE:
		break;
	case VERDICT_drop_neighbour: /* decide knows whether that is the backend itself */
		return SILENCE_OF_BACKEND;
	default:
		return SILENCE_OF_SIDE;
	}
	if ((!half->packets && !cold->packets[DIR_UP]) || is_doubtful(w, &track->doubts, hop.port, age_ms))
		return SILENCE_UNKNOWN;
	return wall_heard_since(w, track->backend_slot, age_ms) ? SILENCE_OVERLOAD : SILENCE_OF_BACKEND;
}

/* It was sent: a probe that was not is no tuple. */
enum syn_silence_of wall_judge_probe(struct worker *w, const struct tuple *t, uint8_t *doubts)
{
	uint32_t age_ms = CLOCK_MS(w->now_ns) - t->syn_ms;
	struct fib_hop hop;
	uint16_t mtu;

	if (streak_read(__atomic_load_n(&w->cells->backends[t->backend_slot].breaker, __ATOMIC_RELAXED)).side_down)
		return SILENCE_OF_SIDE;
	switch (route_address(w, &w->burst, &t->backend, t->isn, &hop, &mtu)) {
	case VERDICT_NONE:
		break;
	case VERDICT_drop_neighbour:
		return SILENCE_OF_BACKEND;
	default:
		return SILENCE_OF_SIDE;
	}
	if (is_doubtful(w, doubts, hop.port, age_ms))
		return SILENCE_UNKNOWN;
	return wall_heard_since(w, t->backend_slot, age_ms) ? SILENCE_OVERLOAD : SILENCE_OF_BACKEND;
}

/* --- failures --- */

static void note_opened(struct worker *w, uint32_t slot)
{
	struct wall *wall = &w->wall;

	for (unsigned i = 0; i < wall->n_opened; i++)
		if (wall->opened[i] == slot)
			return;
	/* Of one too many the flows wait for their own timers. */
	if (wall->n_opened < WALL_OPENED_MAX)
		wall->opened[wall->n_opened++] = slot;
}

static uint32_t streak_limit(const struct worker *w, const struct flow_track *track)
{
	const struct policy_service *svc = policy_service_at(w->burst.policy, track->service_slot);

	return svc ? svc->breaker_consecutive : BREAKER_CONSECUTIVE_DEFAULT;
}

static const enum signal_failure signal_of[CONNECT_FAILURES] = {
	[CONNECT_SILENT] = SIGNAL_SILENT,
	[CONNECT_REFUSED] = SIGNAL_REFUSED,
	[CONNECT_UNREACHABLE] = SIGNAL_UNREACHABLE,
};

/* A failure is news, ten times a second at the most. */
static void tell_of_failure(struct worker *w, uint32_t slot)
{
	uint32_t *told_ms = &w->cells->backends[slot].told_ms, now_ms = CLOCK_MS(w->now_ns);
	uint32_t seen_ms = __atomic_load_n(told_ms, __ATOMIC_RELAXED);

	if (seen_ms && now_ms - seen_ms < FAILURES_TOLD_MS)
		return;
	if (__atomic_compare_exchange_n(told_ms, &seen_ms, now_ms ? now_ms : 1, false, __ATOMIC_RELAXED,
					__ATOMIC_RELAXED))
		wall_tell(w, slot);
}

/* Of a SYN that was sent then. */
static void count_failure(struct worker *w, uint32_t slot, enum connect_failure kind, uint32_t limit, uint32_t syn_ms)
{
	struct backend_shared *shared = &w->cells->backends[slot];

	if (!__atomic_load_n(&shared->breaker, __ATOMIC_RELAXED))
		__atomic_store_n(&shared->since_ns, w->now_ns - (CLOCK_MS(w->now_ns) - syn_ms) * UINT64_C(1000000),
				 __ATOMIC_RELAXED);
	if (kind == CONNECT_SILENT)
		__atomic_store_n(&shared->silent_ns, w->now_ns, __ATOMIC_RELAXED);
	if (streak_fail(&shared->breaker, kind, limit) != STREAK_OPENED) {
		tell_of_failure(w, slot);
		return;
	}
	note_opened(w, slot);
	wall_tell(w, slot);
}

static void blame(struct worker *w, flow_ref up, enum connect_failure kind)
{
	struct flow_track *track = flow_track(&w->flows, up);

	if (track->wall & WALL_BLAMED)
		return;
	track->wall |= WALL_BLAMED;
	signals_fail(w, up, signal_of[kind]);
	count_failure(w, track->backend_slot, kind, streak_limit(w, track), track->syn_ms);
}

/* Counted before the streak is: who finds that open finds this, too. */
void wall_check_failed(struct worker *w, const struct tuple *t, enum connect_failure kind)
{
	__atomic_fetch_add(&w->cells->backends[t->backend_slot].checks_failed, 1, __ATOMIC_RELEASE);
	count_failure(w, t->backend_slot, kind, t->limit, t->syn_ms);
}

bool wall_predates(const struct worker *w, flow_ref ref)
{
	const struct backend_shared *shared = &w->cells->backends[flow_track(&w->flows, ref)->backend_slot];

	return flow_cold(&w->flows, ref)->born_ms < __atomic_load_n(&shared->due_ns, __ATOMIC_RELAXED) / 1000000;
}

void wall_response_failed(struct worker *w, flow_ref ref, uint32_t network)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	struct backend_shared *shared = &w->cells->backends[track->backend_slot];
	uint16_t hash = network ^ network >> 16;
	struct response_streak r;

	if (flow_mode(track, CURE_WALL) == CURE_OFF)
		return;
	r = response_fail(&shared->responses, hash ? hash : 1);
	if (streak_reopen(&shared->breaker) || r.n == streak_limit(w, track))
		wall_tell(w, track->backend_slot);
	else
		tell_of_failure(w, track->backend_slot);
}

void wall_stalled(struct worker *w, flow_ref ref)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	struct backend_shared *shared = &w->cells->backends[track->backend_slot];

	if (flow_mode(track, CURE_WALL) == CURE_OFF)
		return;
	__atomic_store_n(&shared->silent_ns, w->now_ns, __ATOMIC_RELAXED);
	if (streak_fail(&shared->breaker, CONNECT_STALLED, streak_limit(w, track)) != STREAK_OPENED) {
		tell_of_failure(w, track->backend_slot);
		return;
	}
	note_opened(w, track->backend_slot);
	wall_tell(w, track->backend_slot);
}

static const struct policy_backend *next_choice(const struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);
	const struct policy_service *svc = policy_service_at(w->burst.policy, track->service_slot);

	if (!svc)
		return NULL;
	return select_next(w->cells, &svc->sets[flow_ref_is_v6(up)][SET_TCP], flow_cold(&w->flows, up)->hash[DIR_UP],
			   track->backend_slot);
}

/*
 * Counted when it is done: a flow for which there is no port stays where it is. `overload`: its backend is silent, but
 * alive.
 */
static bool move_on(struct worker *w, flow_ref up, bool overload)
{
	struct flow_track *track = flow_track(&w->flows, up);
	enum cure_mode mode = flow_mode(track, CURE_WALL);
	uint32_t from = track->backend_slot;
	const struct policy_backend *to;

	if (track->wall & WALL_SPENT)
		return false;
	to = next_choice(w, up);
	if (!to || (mode == CURE_ENFORCE && (!retry_may_move(w, up, overload) || !resteer(w, up, to))))
		return false;
	if (track->wall & WALL_WAITING)
		wall_stop_waiting(w, up);
	track->wall |= WALL_SPENT;
	if (mode == CURE_ENFORCE)
		retry_moved(w, up);
	return outcome_action_due_at(w, up, mode, ACTION_resteer, from);
}

bool wall_failed(struct worker *w, flow_ref up, enum connect_failure kind)
{
	if (flow_mode(flow_track(&w->flows, up), CURE_WALL) == CURE_OFF)
		return false;
	blame(w, up, kind);
	signals_leave(w, up);
	if (!move_on(w, up, false)) {
		retry_failed(w, up);
		return false;
	}
	wheel_move(&w->wheel, &w->flows, up, w->run_ms);
	return true;
}

static uint32_t syn_sent_ms(const struct worker *w, flow_ref up)
{
	const struct policy_timeouts *t = flow_timeouts(w->burst.policy, flow_track(&w->flows, up));

	return pressure_timeout_ms(w, flow_ref_is_v6(up), FLOW_SYN_SENT, t->syn_sent_ms);
}

/* From now on it has the time that its state gives it, since its last SYN. True if there is some left. */
static bool wait_on(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	track->wall &= ~WALL_WATCHED;
	if (track->wall & WALL_WAITING)
		wall_stop_waiting(w, up);
	track->timeout_ms = syn_sent_ms(w, up);
	return flow_idle_ms(&w->flows, up, w->run_ms) < track->timeout_ms;
}

/* Once more, and long enough for both ends to have sent again. */
static bool wait_again(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	uint32_t idle_ms = flow_idle_ms(&w->flows, up, w->run_ms);
	uint32_t end_ms = syn_sent_ms(w, up);

	track->syn_ms = CLOCK_MS(w->now_ns);
	track->timeout_ms = idle_ms + SYN_TIMEOUT_MAX_MS < end_ms ? idle_ms + SYN_TIMEOUT_MAX_MS : end_ms;
	return idle_ms < end_ms;
}

bool wall_due(struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);

	if (!(track->wall & WALL_WATCHED))
		return false;
	switch (judge_silence(w, up)) {
	case SILENCE_UNKNOWN:
		return wait_again(w, up);
	case SILENCE_OF_SIDE:
		break;
	case SILENCE_OVERLOAD:
		count_add(&w->backends[track->backend_slot].overloads, 1);
		signals_fail(w, up, SIGNAL_OVERLOAD);
		if (move_on(w, up, true))
			return true;
		retry_failed(w, up);
		break;
	case SILENCE_OF_BACKEND:
		blame(w, up, CONNECT_SILENT);
		if (move_on(w, up, false))
			return true;
		retry_failed(w, up);
	}
	/* Whatever became of it, nobody works on it: its client may have left long ago, and says nothing. */
	signals_leave(w, up);
	return wait_on(w, up);
}

/* --- once per loop --- */

/* All that wait for a backend that opened, without waiting for their own timers. Returns what is left of `budget`. */
static unsigned give_away(struct worker *w, uint32_t slot, unsigned budget)
{
	struct backend_cell *cell = &w->backends[slot];

	while (cell->waiting && budget) {
		flow_ref up = flow_ref_up(cell->waiting);

		budget--;
		if (move_on(w, up, false))
			wheel_move(&w->wheel, &w->flows, up, w->run_ms);
		else if (flow_track(&w->flows, up)->wall & WALL_WAITING)
			wall_stop_waiting(w, up); /* nobody takes it: its own timer says how it goes on */
	}
	return budget;
}

static void give_away_all(struct worker *w)
{
	struct wall *wall = &w->wall;
	unsigned budget = WAITING_BUDGET;

	while (wall->n_opened && budget) {
		uint32_t slot = wall->opened[wall->n_opened - 1];

		/* Decide may have found that it is not the backend. */
		if (!select_takes_flows(w->cells, slot))
			budget = give_away(w, slot, budget);
		if (budget)
			wall->n_opened--;
	}
}

static void obey(struct worker *w)
{
	struct order order;

	while (order_take(w, &order)) {
		if (order.kind == ORDER_OPENED)
			note_opened(w, order.slot);
		else
			probe_run(w, &order);
		order_done(w);
	}
}

unsigned wall_run(struct worker *w)
{
	bool ordered = order_pending(w);

	if (ordered || w->wall.n_opened || probe_checks_due(w)) {
		pipeline_stamp(w, &w->burst);
		if (ordered)
			obey(w);
		if (probe_checks_due(w))
			probe_judge_checks(w);
		give_away_all(w);
	}
	return stray_expire(w) + w->wall.n_opened;
}
