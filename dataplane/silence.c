/* SPDX-License-Identifier: BSD-3-Clause */
#include "silence.h"
#include "hearing.h"
#include "numbers.h"
#include "outcome_worker.h"
#include "route.h"
#include "segment.h"
#include "signals.h"
#include "tcp.h"
#include "wall.h"

#include <rte_tcp.h>

#define SECOND_NS      1000000000ull
#define PROBES_PER_S   20000 /* of the whole gateway */
#define RESETTING_MS   5000
#define RESETS_AGAIN   3     /* per side */
#define SIDE_DOUBTS    30    /* rounds of probes in which a whole side may be silent: five minutes */
#define SUSPECT_MS     60000 /* how soon a backend has to speak up for its path to be blamed */
#define STUCK_MS       60000 /* without a word from a sender whose data is not acknowledged */
#define NO_WAY_MS      1000  /* until what has no way out is tried again */
#define TELL_FOR_MS    10000 /* an end that there is no way to, that its connection is over */
#define LATE_MAX_MS    1000  /* a look that came late brings the next one forward, by this at most */
#define PUT_OFF_MIN_MS 128
#define PUT_OFF_MAX_MS 5000
#define BOTH_DIRS      (1 << DIR_UP | 1 << DIR_DOWN)

int silence_init(struct silence_pace *s, unsigned n_workers)
{
	uint64_t per_ns = n_workers * SECOND_NS;

	return gcra_rate_init(&s->probe_rate, PROBES_PER_S, per_ns, gcra_default_burst(PROBES_PER_S, per_ns));
}

/* --- when --- */

/* Below `range`, for flows that would otherwise all come at once: nobody's luck depends on it. */
static uint32_t spread(const struct worker *w, flow_ref ref, uint32_t range)
{
	uint32_t x = (ref >> 1) * 0x9e3779b1u ^ (uint32_t)w->run_ms * 0x85ebca6bu;

	x = (x ^ x >> 15) * 0x2c1b3c6du;
	x ^= x >> 12;
	return (uint64_t)x * range >> 32;
}

/* probe_ms +-10 %. */
static uint32_t interval_ms(const struct worker *w, flow_ref ref, uint32_t probe_ms)
{
	return probe_ms - probe_ms / 10 + spread(w, ref, probe_ms / 5 + 1);
}

uint32_t silence_timeout_ms(const struct worker *w, flow_ref ref, enum flow_state state,
			    const struct policy_timeouts *timeouts, uint32_t plain_ms)
{
	enum cure_mode mode = flow_mode(flow_track(&w->flows, ref), CURE_SILENCE);
	uint32_t probe_ms;

	if ((state != FLOW_ESTABLISHED && state != FLOW_FIN_WAIT) || mode == CURE_OFF || !timeouts->probe_ms)
		return plain_ms;
	probe_ms = interval_ms(w, ref, timeouts->probe_ms);
	return mode == CURE_ENFORCE && state == FLOW_ESTABLISHED ? probe_ms : RTE_MIN(probe_ms, plain_ms);
}

/* Instead of when its idle time says. */
static void look_in(const struct worker *w, struct flow_track *track, enum flow_look look, uint32_t ms)
{
	track->look = look;
	track->look_ms = (uint32_t)w->run_ms + RTE_MIN(ms, (uint32_t)INT32_MAX);
}

/* There is more to send than the gateway may: the interval stretches. */
static void put_off(struct worker *w, flow_ref up, struct flow_track *track)
{
	uint32_t ms = RTE_MIN(track->timeout_ms / 32, (uint32_t)PUT_OFF_MAX_MS);

	w->ledger.did[ACTION_put_off]++;
	look_in(w, track, track->look == LOOK_ANSWERS ? LOOK_ANSWERS : LOOK_LATER,
		PUT_OFF_MIN_MS + spread(w, up, 2 * ms));
}

/* From its last packet on, as any flow. */
static void rearm(struct worker *w, flow_ref up, struct flow_track *track, const struct policy_timeouts *t)
{
	enum flow_state state = flow_half(&w->flows, up)->state;

	flow_half(&w->flows, up | DIR_UP)->probes = 0;
	flow_half(&w->flows, up | DIR_DOWN)->probes = 0;
	track->look = LOOK_IDLE;
	track->marks &= ~FLOW_MARK_LAST_ASK;
	track->timeout_ms = silence_timeout_ms(w, up, state, t, flow_state_timeout_ms(t, state));
}

/* --- what is known of a flow --- */

static bool is_unacknowledged(const struct worker *w, flow_ref up)
{
	return tcp_has_unacknowledged(w, up | DIR_UP) || tcp_has_unacknowledged(w, up | DIR_DOWN);
}

/* Bit per direction whose sender is probed. */
static unsigned asked_dirs(const struct policy_timeouts *t)
{
	return t->probe_client << DIR_UP | t->probe_backend << DIR_DOWN;
}

static bool is_last_ask(const struct flow_track *track)
{
	return track->marks & FLOW_MARK_LAST_ASK;
}

static bool has_way(struct worker *w, flow_ref ref)
{
	struct fib_hop hop;

	return route_flow(w, &w->burst, ref, flow_half(&w->flows, ref),
			  flow_cold(&w->flows, ref)->hash[flow_ref_dir(ref)], &hop) == VERDICT_NONE;
}

/*
 * True: all that had come until `since_ms` was read, so that it was silence. False: look again at the next tick; what
 * the rings hold may be the answer.
 */
static bool is_proven(struct worker *w, struct flow_track *track, uint32_t since_ms)
{
	if (hearing_since(w, since_ms))
		return true;
	if (track->look == LOOK_IDLE)
		track->look = LOOK_LATER;
	track->look_ms = since_ms;
	return false;
}

/* --- the idle time that a path survives --- */

/* An answer came to a connection that had idled for timeout_ms at least. */
static void note_survived(struct backend_cell *cell, uint32_t idle_ms)
{
	if (idle_ms > cell->idle_survived_ms)
		__atomic_store_n(&cell->idle_survived_ms, idle_ms, __ATOMIC_RELAXED);
}

static void note_lost(struct backend_cell *cell, uint32_t idle_ms)
{
	if (!cell->idle_lost_ms || idle_ms < cell->idle_lost_ms)
		__atomic_store_n(&cell->idle_lost_ms, idle_ms, __ATOMIC_RELAXED);
}

/* The client answered and the backend did not. Whether it or the path is gone, others will show. */
static void suspect_path(struct worker *w, struct backend_cell *cell, uint32_t idle_ms)
{
	if (cell->alive_ms && w->run_ms - cell->alive_ms <= PROBES * PROBE_EVERY_MS) {
		note_lost(cell, idle_ms);
		return;
	}
	if (w->run_ms > cell->suspect_until_ms || idle_ms < cell->suspect_idle_ms)
		cell->suspect_idle_ms = idle_ms;
	cell->suspect_until_ms = w->run_ms + SUSPECT_MS;
}

void silence_backend_lives(struct worker *w, uint32_t backend_slot)
{
	struct backend_cell *cell = &w->backends[backend_slot];

	if (w->run_ms <= cell->suspect_until_ms)
		note_lost(cell, cell->suspect_idle_ms);
	cell->suspect_until_ms = 0;
	cell->alive_ms = w->run_ms;
}

/* --- ends --- */

/*
 * Each learns it from the sequence number that it expects. With data under way to it that is not known: from behind the
 * data, which its receiver either expects, or asks back about (RFC 5961 3.2). False: there was no way to it.
 */
static bool tell(struct worker *w, flow_ref to, enum made kind)
{
	struct segment_made rst = {
		.seq = tcp_end(w, to),
		.ack = tcp_end(w, flow_ref_other(to)),
		.flags = TCP_RST | TCP_ACK,
	};

	return segment_send_made(w, &w->burst, to, &rst, kind);
}

/* False: too many end at once, this one will later. */
static bool may_end(struct worker *w, flow_ref up, struct flow_track *track)
{
	if (answer_limits_ends(w->limits, DIRS, w->now_ns))
		return true;
	put_off(w, up, track);
	return false;
}

/* `untold`: bit per direction whose receiver does not know yet. */
static void begin_resetting(struct worker *w, flow_ref up, struct flow_track *track, unsigned untold)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		if (untold >> dir & 1)
			track->marks |= FLOW_MARK_UNTOLD(dir);
		flow_half(&w->flows, up | dir)->probes = 0;
	}
	signals_cut(w, up);
	flow_put_state(&w->flows, up, FLOW_RESETTING);
	track->asked_ms = w->run_ms;
	look_in(w, track, LOOK_RESETTING, untold ? NO_WAY_MS : RESETTING_MS);
}

static void end(struct worker *w, flow_ref up, struct flow_track *track, enum made kind)
{
	unsigned untold = 0;

	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		untold |= !tell(w, up | dir, kind) << dir;
	begin_resetting(w, up, track, untold);
}

void silence_tell_later(struct worker *w, flow_ref up, unsigned untold)
{
	const struct flow_half *client = flow_half(&w->flows, up | DIR_UP);

	/* What the backend expects, if it has the SYN. */
	if (client->state == FLOW_SYN_SENT)
		flow_half(&w->flows, up | DIR_DOWN)->ack = client->end;
	wall_leave(w, up);
	begin_resetting(w, up, flow_track(&w->flows, up), untold);
	wheel_move(&w->wheel, &w->flows, up, w->run_ms);
}

static bool is_untold(const struct flow_track *track)
{
	return track->marks & (FLOW_MARK_UNTOLD(DIR_UP) | FLOW_MARK_UNTOLD(DIR_DOWN));
}

/* A way may open to many ends at once. They are paced as those that had one. */
static void tell_untold(struct worker *w, flow_ref up, struct flow_track *track)
{
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		if (track->marks & FLOW_MARK_UNTOLD(dir) && has_way(w, up | dir) &&
		    answer_limits_ends(w->limits, 1, w->now_ns) && tell(w, up | dir, MADE_rst_later))
			track->marks &= ~FLOW_MARK_UNTOLD(dir);
}

bool silence_is_told(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	if (!is_untold(track))
		return true;
	tell_untold(w, up, track);
	if (is_untold(track) && (uint32_t)w->run_ms - track->asked_ms >= TELL_FOR_MS) {
		w->ledger.did[ACTION_rst_untold]++;
		outcome_flow(w, up, OUTCOME_ACTION(ACTION_rst_untold));
		return true;
	}
	look_in(w, track, LOOK_RESETTING, is_untold(track) ? NO_WAY_MS : RESETTING_MS);
	return false;
}

/* Not probed: it idled for as long as it may. */
static bool is_idle_over(struct worker *w, flow_ref up, struct flow_track *track, uint32_t plain_ms)
{
	enum cure_mode mode = flow_mode(track, CURE_SILENCE);
	uint32_t idle_ms = flow_idle_ms(&w->flows, up, w->run_ms);

	if (idle_ms < plain_ms) {
		track->look = LOOK_IDLE;
		track->timeout_ms = plain_ms;
		return false;
	}
	if (mode == CURE_OFF)
		return true;
	if (!is_proven(w, track, (uint32_t)w->run_ms - (idle_ms - plain_ms)))
		return false;
	if (mode == CURE_ENFORCE && !may_end(w, up, track))
		return false;
	if (!outcome_action_due(w, up, ACTION_rst_idle))
		return true;
	end(w, up, track, MADE_rst_idle);
	return false;
}

/* `silent`: bit per direction whose sender is. */
static void peer_dead(struct worker *w, flow_ref up, struct flow_track *track, unsigned silent)
{
	struct backend_cell *cell = &w->backends[track->backend_slot];

	if (!may_end(w, up, track) || !outcome_action_due(w, up, ACTION_rst_peer_dead))
		return;
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		if (silent >> dir & 1)
			count_add(&cell->dead[dir], 1);
	if (silent == 1 << DIR_DOWN && !is_last_ask(track))
		suspect_path(w, cell, track->timeout_ms);
	end(w, up, track, MADE_rst_peer_dead);
}

/* --- quiet --- */

/* Of both directions, ever: answers to probes end here, and are not among them. */
static uint32_t packets_passed(const struct worker *w, flow_ref up)
{
	const struct flow_cold *cold = flow_cold(&w->flows, up);

	return cold->packets[DIR_UP] + cold->packets[DIR_DOWN] + flow_half(&w->flows, up | DIR_UP)->packets +
	       flow_half(&w->flows, up | DIR_DOWN)->packets;
}

static void note_quiet(struct worker *w, flow_ref up, struct flow_track *track)
{
	uint32_t n = packets_passed(w, up);

	if (track->quiet_packets == n)
		return;
	track->quiet_packets = n;
	track->quiet_ms = (uint32_t)w->run_ms - flow_idle_ms(&w->flows, up, w->run_ms);
}

uint32_t silence_quiet_ms(const struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);

	if (track->quiet_packets && track->quiet_packets == packets_passed(w, up))
		return (uint32_t)w->run_ms - track->quiet_ms;
	return flow_idle_ms(&w->flows, up, w->run_ms);
}

/* --- probing --- */

/* What the sender of `side` is sure to have had: what it acknowledged, unless that was forged and never sent. */
static uint32_t seen_by(const struct worker *w, flow_ref side)
{
	uint32_t acked = flow_half(&w->flows, side)->ack, sent = flow_half(&w->flows, flow_ref_other(side))->end;

	return (int32_t)(sent - acked) < 0 ? sent : acked;
}

/* `side`: the direction whose sender is asked, in the name of the other one. False: there was no buffer for it. */
static bool ask(struct worker *w, flow_ref side)
{
	flow_ref to = flow_ref_other(side);
	struct flow_half *asked = flow_half(&w->flows, side);
	const struct flow_half *name = flow_half(&w->flows, to);
	struct segment_made probe = {
		.seq = seen_by(w, side) - 1,
		.ack = name->ack,
		.flags = TCP_ACK,
		.window_be = name->window_be,
		.timestamps = name->timestamps,
		.tsval = name->tsval,
		.tsecr = asked->tsval,
	};

	if (!outcome_action_due(w, side, ACTION_keepalive) ||
	    !segment_send_made(w, &w->burst, to, &probe, MADE_keepalive))
		return false;
	gcra_take(&w->silence.probes, &w->silence.probe_rate, w->now_ns);
	asked->probes++;
	return true;
}

/* False: not now. Each look sends at most two probes, so that one test is enough. */
static bool may_probe(struct worker *w, flow_ref up, struct flow_track *track)
{
	if (gcra_test(&w->silence.probes, &w->silence.probe_rate, w->now_ns))
		return true;
	put_off(w, up, track);
	return false;
}

/* Asked in the name of the other side, on that one's way. */
static bool can_ask(struct worker *w, flow_ref up, unsigned dirs)
{
	return (!(dirs >> DIR_UP & 1) || has_way(w, up | DIR_DOWN)) &&
	       (!(dirs >> DIR_DOWN & 1) || has_way(w, up | DIR_UP));
}

static bool ask_each(struct worker *w, flow_ref up, unsigned dirs)
{
	return (!(dirs >> DIR_UP & 1) || ask(w, up | DIR_UP)) && (!(dirs >> DIR_DOWN & 1) || ask(w, up | DIR_DOWN));
}

/* `dirs`: bit per direction whose sender is asked. */
static void begin_probing(struct worker *w, flow_ref up, struct flow_track *track, unsigned dirs)
{
	/* Who cannot be asked is not silent. */
	if (!can_ask(w, up, dirs)) {
		look_in(w, track, LOOK_LATER, NO_WAY_MS);
		return;
	}
	if (!may_probe(w, up, track))
		return;
	note_quiet(w, up, track);
	flow_half(&w->flows, up | DIR_UP)->probes = 0;
	flow_half(&w->flows, up | DIR_DOWN)->probes = 0;
	track->doubts = 0;
	track->asked_ms = w->run_ms;
	/* Where it is asked more often than every ten seconds, answers are looked for sooner, and silence is not. */
	if (ask_each(w, up, dirs))
		look_in(w, track, LOOK_ANSWERS, RTE_MIN(track->timeout_ms, (uint32_t)PROBE_EVERY_MS));
	else
		look_in(w, track, LOOK_LATER, NO_WAY_MS);
}

/* Since the last round. */
static bool spoke(const struct worker *w, flow_ref side, const struct flow_track *track)
{
	return (int32_t)(flow_half(&w->flows, side)->last_ms - track->asked_ms) >= 0;
}

/*
 * Once more to who was silent. Data that is under way to it and was sent since the last round asks no worse than a
 * probe, which a receiver in the middle of a stream need not answer.
 */
static void ask_again(struct worker *w, flow_ref up, struct flow_track *track)
{
	/* By ticks of the wheel, which shall not add up. */
	uint32_t late_ms = (uint32_t)w->run_ms - track->look_ms;

	if (!may_probe(w, up, track))
		return;
	/* From now on, what gets lost counts. */
	hearing_ask(w);
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		flow_ref side = up | dir, other = flow_ref_other(side);
		struct flow_half *half = flow_half(&w->flows, side);

		if (!half->probes)
			continue;
		if (tcp_has_unacknowledged(w, other) && !is_last_ask(track))
			half->probes += spoke(w, other, track);
		else if (has_way(w, other))
			ask(w, side);
	}
	track->asked_ms = w->run_ms;
	look_in(w, track, LOOK_ANSWERS, PROBE_EVERY_MS - RTE_MIN(late_ms, (uint32_t)LATE_MAX_MS));
}

/* Bit per direction whose sender has at least `n` probes to answer. */
static unsigned owing(const struct worker *w, flow_ref up, uint8_t n)
{
	return (flow_half(&w->flows, up | DIR_UP)->probes >= n) << DIR_UP |
	       (flow_half(&w->flows, up | DIR_DOWN)->probes >= n) << DIR_DOWN;
}

static bool is_side_down(const struct worker *w, const struct flow_track *track)
{
	return streak_read(__atomic_load_n(&w->cells->backends[track->backend_slot].breaker, __ATOMIC_RELAXED))
		.side_down;
}

/*
 * The silence of that sender may not be its own: frames were lost meanwhile at the port that its answer comes by, or
 * all of its side is silent. For a while.
 */
static bool is_doubtful(struct worker *w, flow_ref side, const struct flow_track *track, uint32_t waited_ms)
{
	flow_ref to = flow_ref_other(side);
	struct fib_hop hop;

	if (flow_ref_dir(side) == DIR_DOWN && track->doubts < SIDE_DOUBTS && is_side_down(w, track))
		return true;
	return track->doubts < HEARING_DOUBTS &&
	       route_flow(w, &w->burst, to, flow_half(&w->flows, to), flow_cold(&w->flows, to)->hash[flow_ref_dir(to)],
			  &hop) == VERDICT_NONE &&
	       hearing_lost_lately(w, hop.port, waited_ms);
}

/* Every question is answered with silence. If that may have another reason than its death: the last one again. */
static void settle(struct worker *w, flow_ref up, struct flow_track *track, unsigned dead, uint32_t waited_ms)
{
	unsigned certain = dead;

	if (!is_proven(w, track, track->look_ms))
		return;
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		if (dead >> dir & 1 && is_doubtful(w, up | dir, track, waited_ms))
			certain &= ~(1u << dir);
	if (certain) {
		peer_dead(w, up, track, certain);
		return;
	}
	track->doubts++;
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		if (dead >> dir & 1)
			flow_half(&w->flows, up | dir)->probes--;
	ask_again(w, up, track);
}

static void hear_out(struct worker *w, flow_ref up, struct flow_track *track, const struct policy_timeouts *t)
{
	unsigned silent = owing(w, up, 1), dead = owing(w, up, PROBES);
	uint32_t waited_ms = (uint32_t)w->run_ms - track->asked_ms;

	if (!(silent >> DIR_DOWN & 1) && (t->probe_backend || is_last_ask(track)))
		note_survived(&w->backends[track->backend_slot], track->timeout_ms);
	if (!silent)
		rearm(w, up, track, t);
	else if (waited_ms < PROBE_EVERY_MS - LATE_MAX_MS)
		look_in(w, track, LOOK_ANSWERS, PROBE_EVERY_MS - waited_ms);
	else if (dead)
		settle(w, up, track, dead, waited_ms);
	else if (is_unacknowledged(w, up) && !is_last_ask(track) && flow_idle_ms(&w->flows, up, w->run_ms) >= STUCK_MS)
		rearm(w, up, track, t);
	else
		ask_again(w, up, track);
}

/*
 * Its sender's own timer is the probe, until that must have given up. Then both are asked after all: data that was
 * forged or damaged on its way is never acknowledged, and its connection may be well. What each answers says where it
 * is: silence_hear().
 */
static void wait_for_sender(struct worker *w, flow_ref up, struct flow_track *track, uint32_t idle_ms,
			    uint32_t unacked_ms)
{
	if (idle_ms < unacked_ms) {
		look_in(w, track, LOOK_LATER, unacked_ms - idle_ms);
		return;
	}
	track->marks |= FLOW_MARK_LAST_ASK;
	begin_probing(w, up, track, BOTH_DIRS);
}

static void probe(struct worker *w, flow_ref up, struct flow_track *track, unsigned dirs)
{
	track->marks &= ~FLOW_MARK_LAST_ASK;
	begin_probing(w, up, track, dirs);
}

/* Who is not asked may be silent for as long as where nobody is. */
static bool is_unasked_over(const struct worker *w, flow_ref up, const struct policy_timeouts *t)
{
	uint32_t plain_ms = flow_state_timeout_ms(t, flow_half(&w->flows, up)->state);

	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
		if (!(asked_dirs(t) >> dir & 1) &&
		    (uint32_t)w->run_ms - flow_half(&w->flows, up | dir)->last_ms >= plain_ms)
			return true;
	return false;
}

static void end_idle(struct worker *w, flow_ref up, struct flow_track *track, uint32_t idle_ms)
{
	if (is_proven(w, track, (uint32_t)w->run_ms - (idle_ms - track->timeout_ms)) && may_end(w, up, track) &&
	    outcome_action_due(w, up, ACTION_rst_idle))
		end(w, up, track, MADE_rst_idle);
}

static void enforce(struct worker *w, flow_ref up, struct flow_track *track, const struct policy_timeouts *t)
{
	uint32_t idle_ms = flow_idle_ms(&w->flows, up, w->run_ms);

	if (track->look == LOOK_ANSWERS)
		hear_out(w, up, track, t);
	else if (idle_ms < track->timeout_ms)
		track->look = LOOK_IDLE;
	else if (is_unacknowledged(w, up))
		wait_for_sender(w, up, track, idle_ms, t->unacked_ms);
	else if (is_unasked_over(w, up, t))
		end_idle(w, up, track, idle_ms);
	else
		probe(w, up, track, asked_dirs(t));
}

/* `ago_ms`: since the last ask would have begun. Nobody answers: data is not acknowledged for so long by the dead. */
static void would_ask_last(struct worker *w, flow_ref up, struct flow_track *track, uint32_t ago_ms, uint32_t left_ms)
{
	if (ago_ms >= PROBES * PROBE_EVERY_MS) {
		outcome_action_due(w, up, ACTION_rst_peer_dead);
		look_in(w, track, LOOK_LATER, left_ms);
		return;
	}
	outcome_action_due(w, up, ACTION_keepalive);
	outcome_action_due(w, up, ACTION_keepalive);
	look_in(w, track, LOOK_LATER, RTE_MIN(PROBE_EVERY_MS - ago_ms % PROBE_EVERY_MS, left_ms));
}

/*
 * What enforce would do, as far as that can be known without doing it: nobody is asked, so everybody counts as having
 * answered, and the flow ends when its plain idle time is over.
 */
static bool shadow(struct worker *w, flow_ref up, struct flow_track *track, const struct policy_timeouts *t,
		   uint32_t plain_ms)
{
	uint32_t idle_ms = flow_idle_ms(&w->flows, up, w->run_ms);
	bool unacked = is_unacknowledged(w, up);

	if (idle_ms >= plain_ms) {
		if (!unacked)
			outcome_action_due(w, up, ACTION_rst_idle);
		return true;
	}
	if (idle_ms < track->timeout_ms) {
		track->look = LOOK_IDLE;
	} else if (!unacked) {
		for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++)
			if (asked_dirs(t) >> dir & 1)
				outcome_action_due(w, up, ACTION_keepalive);
		look_in(w, track, LOOK_LATER, RTE_MIN(interval_ms(w, up, t->probe_ms), plain_ms - idle_ms));
	} else if (idle_ms < t->unacked_ms) {
		look_in(w, track, LOOK_LATER, RTE_MIN(t->unacked_ms, plain_ms) - idle_ms);
	} else {
		would_ask_last(w, up, track, idle_ms - t->unacked_ms, plain_ms - idle_ms);
	}
	return false;
}

bool silence_is_over(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	const struct policy_timeouts *t = flow_timeouts(w->burst.policy, track);
	uint32_t plain_ms = flow_state_timeout_ms(t, flow_half(&w->flows, up)->state);
	enum cure_mode mode = flow_mode(track, CURE_SILENCE);

	if (mode == CURE_OFF || !t->probe_ms)
		return is_idle_over(w, up, track, plain_ms);
	if (mode == CURE_SHADOW)
		return shadow(w, up, track, t, plain_ms);
	enforce(w, up, track, t);
	return false;
}

/* --- what comes back --- */

/*
 * Nothing has been under way for minutes, so that the answer's own number is the next that its sender will use: what
 * came from beyond it was none of its data.
 */
static void take_back_end(struct worker *w, const struct item *it, uint32_t seq)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);
	uint32_t acked = flow_half(&w->flows, flow_ref_other(it->ref))->ack;

	if (it->p.tcp_flags == TCP_ACK && it->p.payload_len == 0 && seq - acked < half->end - acked)
		half->end = seq;
}

/* Of a side that was asked: nothing that the other one does not know. */
static bool says_nothing(const struct worker *w, const struct item *it)
{
	const struct rte_tcp_hdr *tcp = (const void *)(it->frame + it->p.l4_off);
	const struct flow_half *half = flow_half(&w->flows, it->ref);

	return it->p.tcp_flags == TCP_ACK && it->p.payload_len == 0 && ntohl(tcp->sent_seq) == tcp_end(w, it->ref) &&
	       numbers_ack(half, flow_ref_dir(it->ref), ntohl(tcp->recv_ack)) == half->ack &&
	       half->ack == tcp_end(w, flow_ref_other(it->ref)) && tcp->rx_win == half->window_be;
}

enum verdict silence_hear(struct worker *w, const struct item *it)
{
	const struct rte_tcp_hdr *tcp = (const void *)(it->frame + it->p.l4_off);
	struct flow_half *half = flow_half(&w->flows, it->ref);

	if (is_last_ask(flow_track(&w->flows, it->ref)))
		take_back_end(w, it, ntohl(tcp->sent_seq));
	half->probes = 0;
	if (flow_ref_dir(it->ref) == DIR_DOWN)
		silence_backend_lives(w, flow_track(&w->flows, it->ref)->backend_slot);
	return says_nothing(w, it) ? VERDICT_absorb_probe_answer : VERDICT_NONE;
}

enum verdict silence_tell_again(struct worker *w, const struct item *it)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);

	if (flow_ref_dir(it->ref) == DIR_DOWN)
		silence_backend_lives(w, flow_track(&w->flows, it->ref)->backend_slot);
	if (!(it->p.tcp_flags & TCP_ACK) || half->probes == RESETS_AGAIN ||
	    !answer_limits_ends(w->limits, 1, w->now_ns))
		return VERDICT_shed_reset_again;
	half->probes++;
	return VERDICT_answer_reset_again;
}
