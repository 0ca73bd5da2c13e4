/* SPDX-License-Identifier: BSD-3-Clause */
#include "tcp.h"
#include "admit.h"
#include "numbers.h"
#include "outcome_worker.h"
#include "pressure.h"
#include "resteer.h"
#include "rewrite.h"
#include "segment.h"
#include "signals.h"
#include "silence.h"
#include "stray.h"
#include "syn.h"
#include "tcp_options.h"
#include "udp.h"
#include "wall.h"

#include <rte_tcp.h>

#define CHALLENGE_EVERY_MS   500
#define RESET_TAKEN_MS       1000 /* until what was under way when a RST came has arrived */
/* Where half of the ports are taken: as long as the last acknowledgement may have to be sent again. */
#define TIME_WAIT_PRESSED_MS 2000

const struct policy_timeouts policy_timeouts_default = {
	.syn_sent_ms = 15000,
	.syn_recv_ms = 60000,
	.established_ms = 7440000,
	.fin_wait_ms = 240000,
	.last_ack_ms = 60000,
	.time_wait_ms = 60000,
	.closed_ms = 10000,
	.udp_unreplied_ms = 30000,
	.udp_replied_ms = 300000,
	.dns_unreplied_ms = 10000,
	.dns_replied_ms = 10000,
	.probe_ms = 180000,
	.probe_client = true,
	.probe_backend = true,
	.unacked_ms = 300000,
};

const struct policy_timeouts *flow_timeouts(const struct policy *policy, const struct flow_track *track)
{
	const struct policy_service *svc = policy_service_at(policy, track->service_slot);

	return svc ? &svc->timeouts : &policy_timeouts_default;
}

uint32_t flow_state_timeout_ms(const struct policy_timeouts *t, enum flow_state state)
{
	switch (state) {
	case FLOW_SYN_SENT:
		return t->syn_sent_ms;
	case FLOW_SYN_RECV:
		return t->syn_recv_ms;
	case FLOW_ESTABLISHED:
		return t->established_ms;
	case FLOW_FIN_WAIT:
		return t->fin_wait_ms;
	case FLOW_LAST_ACK:
		return t->last_ack_ms;
	case FLOW_TIME_WAIT:
		return t->time_wait_ms;
	default:
		return t->closed_ms;
	}
}

void flow_set_state(struct worker *w, flow_ref ref, enum flow_state state, const struct policy *policy)
{
	struct flow_track *track = flow_track(&w->flows, ref);
	const struct policy_timeouts *timeouts = flow_timeouts(policy, track);
	uint32_t before_ms = track->timeout_ms, plain_ms;
	bool looking = track->look != LOOK_IDLE;

	wall_leave(w, ref);
	signals_leave(w, ref);
	flow_put_state(&w->flows, ref, state);
	track->look = LOOK_IDLE;
	plain_ms = state == FLOW_UDP_REPLIED ? udp_timeout_ms(w, ref, state, timeouts)
					     : flow_state_timeout_ms(timeouts, state);
	track->timeout_ms = silence_timeout_ms(w, ref, state, timeouts, plain_ms);
	track->timeout_ms = pressure_timeout_ms(w, flow_ref_is_v6(ref), state, track->timeout_ms);
	if (state == FLOW_TIME_WAIT && track->timeout_ms > TIME_WAIT_PRESSED_MS &&
	    snat_is_pressed(&w->snat, track->snat_index, track->backend_slot))
		track->timeout_ms = TIME_WAIT_PRESSED_MS;
	/* A longer timeout is noticed when the old slot comes; a shorter one must not wait for it. */
	if (track->timeout_ms < before_ms || looking)
		wheel_move(&w->wheel, &w->flows, flow_ref_up(ref), w->run_ms);
}

struct segment {
	/* Host order, in the numbers of whoever sent what is numbered; end: seq + what it occupies. */
	uint32_t seq, ack, end;
	uint8_t flags;
};

static inline const struct rte_tcp_hdr *tcp_of(const struct item *it)
{
	return (const void *)(it->frame + it->p.l4_off);
}

/* Of one without SYN and FIN, which occupy a number each. */
static inline struct segment read_data(const struct flow_half *half, const struct item *it)
{
	const struct rte_tcp_hdr *tcp = tcp_of(it);
	uint32_t seq = ntohl(tcp->sent_seq);

	return (struct segment){
		.seq = seq,
		.ack = numbers_ack(half, flow_ref_dir(it->ref), ntohl(tcp->recv_ack)),
		.end = seq + it->p.payload_len,
		.flags = it->p.tcp_flags,
	};
}

static struct segment read_segment(const struct flow_half *half, const struct item *it)
{
	struct segment s = read_data(half, it);

	s.end += !!(s.flags & TCP_SYN) + !!(s.flags & TCP_FIN);
	return s;
}

/*
 * Whether any window could hold it, seen from what the same side sent before: its data lies within the widest window
 * around the end of what it sent, and what it acknowledges moves by a window at the most. One that does not was forged
 * or comes from another life of these ports (RFC 5961 1).
 */
static inline bool in_window(const struct flow_half *half, const struct segment *s)
{
	uint32_t reach = flow_reach(half);

	return s->end - half->end + reach <= 2 * reach && s->ack - half->ack + reach <= 2 * reach;
}

/* How much its receiver will take behind what it acknowledged, as it said last. */
static uint32_t receiver_window(const struct worker *w, flow_ref ref)
{
	uint8_t scale = flow_track(&w->flows, ref)->scale[!flow_ref_dir(ref)];

	return (uint32_t)ntohs(flow_half(&w->flows, flow_ref_other(ref))->window_be) << scale;
}

/* The same, and what rounding may have taken from it: one unit (RFC 7323 2.4), or a byte that only asks. */
static uint32_t receiver_reach(const struct worker *w, flow_ref ref)
{
	return receiver_window(w, ref) + (1 << flow_track(&w->flows, ref)->scale[!flow_ref_dir(ref)]);
}

uint32_t tcp_end(const struct worker *w, flow_ref ref)
{
	uint32_t end = flow_half(&w->flows, ref)->end, acked = flow_half(&w->flows, flow_ref_other(ref))->ack;

	return end - acked <= receiver_reach(w, ref) ? end : acked;
}

bool tcp_has_unacknowledged(const struct worker *w, flow_ref ref)
{
	return tcp_end(w, ref) != flow_half(&w->flows, flow_ref_other(ref))->ack;
}

static inline void note_timestamp(struct flow_half *half, const struct item *it)
{
	uint32_t tsval;

	if (tcp_timestamp(tcp_of(it), &tsval) && (int32_t)(tsval - half->tsval) > 0)
		half->tsval = tsval;
}

/* With ACK and without SYN and RST, as everything in the middle of a stream. False: it is out of the window. */
static inline bool note_segment(struct worker *w, struct flow_half *half, const struct item *it,
				const struct segment *s)
{
	if (__builtin_expect(!in_window(half, s), 0)) {
		w->out_of_window++;
		return false;
	}
	half->last_ms = w->run_ms;
	if ((int32_t)(s->end - half->end) > 0)
		half->end = s->end;
	/* A window counts from the acknowledgement that it came with: that of an older one is too small. */
	if ((int32_t)(s->ack - half->ack) >= 0) {
		half->ack = s->ack;
		half->window_be = tcp_of(it)->rx_win;
	}
	if (half->timestamps)
		note_timestamp(half, it);
	return true;
}

/* It says something of its backend: payload that is watched for or came before, or a closed window. */
static inline bool is_signal(const struct flow_half *half, const struct item *it, const struct segment *s)
{
	return (it->p.payload_len && (half->watch || (int32_t)(s->end - half->end) <= 0)) || !tcp_of(it)->rx_win;
}

/* Of a segment that lies in the window, before its half knows of it. */
static void signal_segment(struct worker *w, const struct flow_half *half, const struct item *it,
			   const struct segment *s)
{
	uint32_t data_end = s->seq + it->p.payload_len;

	/* Where its FIN alone is new, it says nothing. */
	if (it->p.payload_len && (int32_t)(data_end - half->end) > 0 && half->watch)
		signals_data(w, it->ref);
	else if (it->p.payload_len && (int32_t)(s->end - half->end) <= 0)
		signals_again(w, it, s->seq, s->ack);
	if (!tcp_of(it)->rx_win && (int32_t)(s->ack - half->ack) >= 0)
		signals_shut(w, it->ref);
}

/* Both. */
static __rte_noinline bool note_signal(struct worker *w, struct flow_half *half, const struct item *it,
				       const struct segment *s)
{
	if (in_window(half, s))
		signal_segment(w, half, it, s);
	return note_segment(w, half, it, s);
}

/* What changes states is rare enough for a look at its checksum: an end will not go by it if that is wrong. */
static bool is_damaged(const struct item *it)
{
	return it->p.tcp_flags & (TCP_RST | TCP_SYN | TCP_FIN) && !packet_tcp_is_right(it->frame, &it->p);
}

/* --- the client's SYNs: the one that the flow began with, and the last one with another number --- */

static struct syn_facts read_syn(const struct item *it)
{
	const struct rte_tcp_hdr *tcp = tcp_of(it);
	struct tcp_options options = tcp_options_read((const uint8_t *)(tcp + 1), tcp_options_len(tcp));

	return (struct syn_facts){
		.isn = ntohl(tcp->sent_seq),
		.payload_len = it->p.payload_len,
		.window_be = tcp->rx_win,
		.scale = options.scale,
		.scaling = options.scaling,
		.timestamps = options.timestamps,
		.damaged = is_damaged(it),
	};
}

/* RFC 7413: any part of its data may be acknowledged. */
static bool is_of_syn(const struct syn_facts *syn, uint32_t seq)
{
	return seq - (syn->isn + 1) <= syn->payload_len;
}

/* The one that was kept. */
static struct syn_facts last_syn(const struct worker *w, flow_ref ref)
{
	const struct syn_kept *kept = flow_syn(&w->flows, ref);
	struct tcp_options options = tcp_options_read(kept->options, kept->options_len);
	bool is_last = flow_cold(&w->flows, ref)->isn == kept->isn;

	return (struct syn_facts){
		.isn = kept->isn,
		.payload_len = is_last ? flow_half(&w->flows, flow_ref_up(ref))->end - kept->isn - 1 : 0,
		.window_be = kept->window_be,
		.scale = options.scale,
		.scaling = options.scaling,
		.timestamps = options.timestamps,
	};
}

static void keep_syn(struct worker *w, const struct item *it)
{
	struct syn_kept *kept = flow_syn(&w->flows, it->ref);
	struct syn_facts first = kept->first;

	syn_keep(kept, it);
	kept->first = first;
	/* A SYN that nobody need answer is not made again: see syn.h. */
	if (!syn_is_ordinary(it))
		flow_track(&w->flows, it->ref)->marks |= FLOW_MARK_ASSISTED;
}

static void keep_dscp(struct worker *w, flow_ref ref, enum flow_dir dir, const struct item *it)
{
	flow_track(&w->flows, ref)->dscp[dir] = packet_tos(it->frame, &it->p) & ~TOS_ECN;
}

static void begin_syn(struct worker *w, const struct item *it)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);
	struct segment s = read_segment(half, it);

	flow_cold(&w->flows, it->ref)->isn = s.seq;
	half->end = s.end;
	flow_track(&w->flows, it->ref)->marks &= ~FLOW_MARK_ASSISTED;
	keep_syn(w, it);
	keep_dscp(w, it->ref, DIR_UP, it);
	/* Until the backend says its own. */
	keep_dscp(w, it->ref, DIR_DOWN, it);
}

/* `before`: of the SYN that the tuple had before, or NULL. */
static void begin(struct worker *w, const struct item *it, const struct syn_numbers *before)
{
	begin_syn(w, it);
	flow_syn(&w->flows, it->ref)->first = read_syn(it);
	numbers_begin(w, it->ref, before);
}

void tcp_begin(struct worker *w, const struct item *it)
{
	begin(w, it, NULL);
}

/* One of them came again, perhaps without the data that it had: what was sent once may be acknowledged. */
static void repeat_syn(struct worker *w, const struct item *it, const struct segment *s)
{
	struct syn_facts *first = &flow_syn(&w->flows, it->ref)->first;
	struct flow_half *up = flow_half(&w->flows, it->ref);

	if (s->seq == first->isn)
		first->payload_len = RTE_MAX(first->payload_len, it->p.payload_len);
	if (s->seq != flow_cold(&w->flows, it->ref)->isn)
		return;
	if ((int32_t)(s->end - up->end) > 0)
		up->end = s->end;
	keep_syn(w, it);
}

bool tcp_is_syn(const struct worker *w, flow_ref ref, uint32_t isn)
{
	return isn == flow_cold(&w->flows, ref)->isn || isn == flow_syn(&w->flows, ref)->first.isn;
}

/* Both sides sent FIN, and each has acknowledged all that the other one sent. */
static bool is_over(const struct flow_half *half, const struct flow_half *back)
{
	return half->ack == back->end && back->ack == half->end;
}

bool tcp_is_reborn(const struct worker *w, const struct item *it)
{
	enum flow_state state = flow_half(&w->flows, it->ref)->state;

	if ((it->p.tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN || flow_ref_dir(it->ref) != DIR_UP || is_damaged(it))
		return false;
	/* Refused or reset: also one that tries again with the number it had, as Windows does. */
	if (state == FLOW_CLOSED || state == FLOW_RESETTING)
		return true;
	/* While something is not acknowledged, the old life has something to lose. */
	if (state != FLOW_TIME_WAIT &&
	    !(state == FLOW_LAST_ACK &&
	      is_over(flow_half(&w->flows, it->ref), flow_half(&w->flows, flow_ref_other(it->ref)))))
		return false;
	return ntohl(tcp_of(it)->sent_seq) != flow_cold(&w->flows, it->ref)->isn;
}

/* What follows one of the client's SYNs, or any part of its data. */
static bool in_syn(const struct worker *w, flow_ref ref, uint32_t seq)
{
	const struct syn_kept *kept = flow_syn(&w->flows, ref);
	uint32_t next = flow_cold(&w->flows, ref)->isn + 1;

	return seq - next <= flow_half(&w->flows, flow_ref_up(ref))->end - next || is_of_syn(&kept->first, seq) ||
	       seq == kept->isn + 1;
}

/*
 * A RST ends the flow if its receiver will take it: RFC 5961 3.2 wants exactly the next expected number. One that
 * merely lies in the window makes the receiver ask back; the answer to that will match.
 */
static bool rst_is_valid(const struct worker *w, flow_ref ref, const struct segment *s)
{
	const struct flow_half *half = flow_half(&w->flows, ref), *back = flow_half(&w->flows, flow_ref_other(ref));
	enum flow_dir dir = flow_ref_dir(ref);

	if (half->state == FLOW_SYN_SENT)
		return in_syn(w, ref, dir == DIR_UP ? s->seq : s->ack) && (dir == DIR_UP || s->flags & TCP_ACK);
	/* An acknowledgement of what was never sent was forged, and so was data beyond the window. */
	return s->seq == half->end ? s->seq - back->ack <= receiver_reach(w, ref)
				   : s->seq == back->ack && (int32_t)(half->end - back->ack) > 0;
}

/* The backend refused the SYN. True: another one has it now, and the client is not to know. */
static bool on_refusal(struct worker *w, struct item *it)
{
	uint32_t slot = flow_track(&w->flows, it->ref)->backend_slot;

	if (wall_failed(w, flow_ref_up(it->ref), CONNECT_REFUSED)) {
		it->verdict = VERDICT_absorb_refusal;
		stray_settle(w, it->ref);
		return true;
	}
	count_add(&w->backends[slot].failures, 1);
	signals_decide(w, it->ref, SIGNAL_FAILED);
	outcome_flow(w, it->ref, OUTCOME_ATTEMPT(ATTEMPT_refused_by_backend));
	return false;
}

/*
 * Of one that is not valid: its receiver will ignore it. What a client sends before the handshake is for an earlier
 * connection of these ports, which the backend still knows, and has to get there.
 */
static bool rst_is_outside(const struct worker *w, flow_ref ref, const struct segment *s)
{
	const struct flow_half *back = flow_half(&w->flows, flow_ref_other(ref));

	if (back->state == FLOW_SYN_SENT)
		return flow_ref_dir(ref) == DIR_DOWN;
	return s->seq - back->ack > receiver_window(w, ref);
}

/* Of a connection, not of an attempt. */
static void note_reset(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	if (flow_half(&w->flows, ref)->state < FLOW_ESTABLISHED)
		return;
	track->marks |= FLOW_MARK_RESET(flow_ref_dir(ref));
	track->asked_ms = w->run_ms;
}

static void on_rst(struct worker *w, struct item *it, const struct segment *s, const struct policy *policy)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);

	if (half->state == FLOW_CLOSED) {
		struct flow_track *track = flow_track(&w->flows, it->ref);

		if (!rst_is_valid(w, it->ref, s))
			return;
		if (track->marks & FLOW_MARK_RESETS)
			track->marks |= FLOW_MARK_RESET(flow_ref_dir(it->ref));
		signals_fin(w, it->ref); /* there is nothing more to say of the connection, but its work is over */
		return;
	}
	if (!rst_is_valid(w, it->ref, s)) {
		if (rst_is_outside(w, it->ref, s) && outcome_action_due(w, it->ref, ACTION_refuse_rst))
			it->verdict = VERDICT_drop_rst_window;
		return;
	}
	if (half->state == FLOW_SYN_SENT && flow_ref_dir(it->ref) == DIR_DOWN && on_refusal(w, it))
		return;
	half->last_ms = w->run_ms;
	signals_reset(w, it->ref);
	note_reset(w, it->ref);
	flow_set_state(w, it->ref, FLOW_CLOSED, policy);
}

/*
 * The RST was forged, or was not quite what its receiver expected: that goes on sending, long after what had been under
 * way to the sender of the RST.
 */
static bool outlives_reset(const struct worker *w, flow_ref ref)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	enum flow_dir dir = flow_ref_dir(ref);

	return (track->marks & FLOW_MARK_RESETS) == FLOW_MARK_RESET(!dir) &&
	       (uint32_t)w->run_ms - track->asked_ms >= RESET_TAKEN_MS;
}

static void reopen(struct worker *w, flow_ref ref, const struct policy *policy)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	track->marks &= ~FLOW_MARK_RESETS;
	if (track->fin_seen)
		flow_set_state(w, ref, track->fin_seen == 3 ? FLOW_LAST_ACK : FLOW_FIN_WAIT, policy);
	else
		flow_set_state(w, ref, FLOW_ESTABLISHED, policy);
}

/* A SYN, or the answer to one, that belongs to the handshake; the deadline of the SYN stays. */
static void refresh_handshake(struct worker *w, flow_ref ref)
{
	struct flow_half *half = flow_half(&w->flows, ref);

	if (half->state == FLOW_SYN_SENT)
		wall_keep_deadline(w, ref);
	half->last_ms = w->run_ms;
}

/* Another attempt, that has a flow already. False: it is refused, and not of that flow. */
static bool is_admitted(struct worker *w, struct item *it, const struct policy *policy)
{
	it->verdict = admit_again(w, policy, it);
	if (it->verdict != VERDICT_NONE)
		it->ref = FLOW_REF_NONE;
	return it->verdict == VERDICT_NONE;
}

/* What the burst has of its old life leaves with the numbers of that. */
static void leave_old_life(struct worker *w, const struct item *syn)
{
	for (struct item *it = w->burst.items; it < syn; it++)
		if (it->verdict == VERDICT_NONE && it->ref != FLOW_REF_NONE && flow_ref_up(it->ref) == syn->ref)
			it->verdict = rewrite_item(w, &w->burst, it);
}

/* A SYN that reopens a flow whose end came in the same burst finds it still in its old life. */
static void begin_anew(struct worker *w, struct item *it, const struct policy *policy)
{
	struct syn_numbers before = numbers_of_syn(w, it->ref);

	if (!is_admitted(w, it, policy))
		return;
	leave_old_life(w, it);
	signals_over(w, it->ref);
	flow_track(&w->flows, it->ref)->fin_seen = 0;
	flow_track(&w->flows, it->ref)->marks = 0;
	flow_half(&w->flows, it->ref)->last_ms = w->run_ms;
	flow_set_state(w, it->ref, FLOW_SYN_SENT, policy);
	signals_begin(w, it->ref);
	if (flow_mode(flow_track(&w->flows, it->ref), CURE_WALL) != CURE_OFF) {
		wall_begin(w, it);
		wheel_move(&w->wheel, &w->flows, it->ref, w->run_ms);
	}
	begin(w, it, &before);
}

/*
 * A client's SYN while nothing answered. With another number it may be of a client that began anew, or of who would
 * take its place: the backend's answer says which of them counts, so no third party gets to see either.
 */
static void on_syn_again(struct worker *w, struct item *it, const struct segment *s, const struct policy *policy)
{
	bool known = tcp_is_syn(w, it->ref, s->seq);

	if (!known) {
		if (!is_admitted(w, it, policy))
			return;
		signals_superseded(w, it->ref);
	}
	refresh_handshake(w, it->ref);
	wall_again(w, it);
	if (flow_syn(&w->flows, it->ref)->first.damaged) {
		begin(w, it, NULL);
		return;
	}
	if (known) {
		repeat_syn(w, it, s);
	} else {
		wall_stay(w, it->ref);
		/* Shifted as the first one, so that the answer to either is understood. */
		begin_syn(w, it);
	}
	numbers_late_timestamps(w, it->ref);
}

static bool may_challenge(const struct worker *w, struct flow_track *track)
{
	uint32_t now_ms = (uint32_t)w->run_ms;

	if (track->challenged_ms && now_ms - track->challenged_ms < CHALLENGE_EVERY_MS)
		return false;
	track->challenged_ms = now_ms ? now_ms : 1;
	return true;
}

/*
 * RFC 5961 4.2, in the backend's name: a client that lives ignores the ACK; one that has begun anew answers with a RST
 * that its backend will take, and then its next SYN is a new attempt. Forged, it has done nothing.
 */
static void challenge(struct worker *w, struct item *it)
{
	flow_ref down = flow_ref_other(it->ref);
	const struct flow_half *up_half = flow_half(&w->flows, it->ref), *down_half = flow_half(&w->flows, down);
	struct segment_made ask = {
		.seq = tcp_end(w, down),
		.ack = tcp_end(w, it->ref),
		.flags = TCP_ACK,
		.window_be = down_half->window_be,
		.timestamps = down_half->timestamps,
		.tsval = down_half->tsval,
		.tsecr = up_half->tsval,
	};

	if (!outcome_action_due(w, it->ref, ACTION_challenge))
		return;
	it->verdict = VERDICT_absorb_syn;
	if (may_challenge(w, flow_track(&w->flows, it->ref)))
		segment_send_made(w, &w->burst, down, &ask, MADE_challenge);
}

static void on_syn(struct worker *w, struct item *it, const struct segment *s, const struct policy *policy)
{
	enum flow_state state = flow_half(&w->flows, it->ref)->state;

	if (tcp_is_reborn(w, it))
		begin_anew(w, it, policy);
	else if (state == FLOW_SYN_SENT)
		on_syn_again(w, it, s, policy);
	else if (state == FLOW_SYN_RECV && tcp_is_syn(w, it->ref, s->seq))
		refresh_handshake(w, it->ref);
	else if (state != FLOW_TIME_WAIT && state != FLOW_CLOSED)
		challenge(w, it);
}

/* What both said in their SYNs: an option of one alone is none (RFC 7323 1.3, 3.2). */
static void note_options(struct worker *w, const struct item *it, const struct syn_facts *client)
{
	struct tcp_options backend = tcp_options_read((const uint8_t *)(tcp_of(it) + 1), tcp_options_len(tcp_of(it)));
	struct flow_half *down = flow_half(&w->flows, it->ref), *up = flow_half(&w->flows, flow_ref_other(it->ref));
	struct flow_track *track = flow_track(&w->flows, it->ref);
	bool scaling = client->scaling && backend.scaling;

	track->scale[DIR_UP] = scaling ? client->scale : 0;
	track->scale[DIR_DOWN] = scaling ? backend.scale : 0;
	up->reach = down->reach = RTE_MAX(RTE_MAX(track->scale[DIR_UP], track->scale[DIR_DOWN]), 1);
	up->probes = down->probes = 0;
	up->window_be = client->window_be;
	down->window_be = tcp_of(it)->rx_win;
	/* Read for what is sent in their names. */
	up->timestamps = down->timestamps =
		client->timestamps && backend.timestamps && flow_mode(track, CURE_SILENCE) == CURE_ENFORCE;
	down->tsval = backend.tsval;
}

/* What the backend's SYN-ACK says, the first one or another: the last one that it sent is what it goes by. */
static void take_syn_ack(struct worker *w, const struct item *it, const struct segment *s)
{
	struct flow_half *down = flow_half(&w->flows, it->ref), *up = flow_half(&w->flows, flow_ref_other(it->ref));
	struct syn_facts syn = last_syn(w, it->ref);

	if (!is_of_syn(&syn, s->ack) && is_of_syn(&flow_syn(&w->flows, it->ref)->first, s->ack))
		syn = flow_syn(&w->flows, it->ref)->first;
	flow_cold(&w->flows, it->ref)->isn = syn.isn;
	up->end = syn.isn + 1 + syn.payload_len;
	up->ack = s->seq;
	down->end = s->end;
	down->ack = s->ack;
	flow_cold(&w->flows, it->ref)->peer_isn = s->seq;
	keep_dscp(w, it->ref, DIR_DOWN, it);
	note_options(w, it, &syn);
}

static void on_syn_ack(struct worker *w, const struct item *it, const struct segment *s, const struct policy *policy)
{
	struct flow_half *down = flow_half(&w->flows, it->ref);
	enum flow_state state = down->state;

	if (flow_ref_dir(it->ref) != DIR_DOWN || (state != FLOW_SYN_SENT && state != FLOW_SYN_RECV) ||
	    !in_syn(w, it->ref, s->ack))
		return;
	/* A backend says it again for a minute, whether or not there is a client: under pressure that is no news. */
	if (state == FLOW_SYN_SENT || !pressure_is_felt(w, flow_ref_is_v6(it->ref)))
		refresh_handshake(w, it->ref);
	if (state == FLOW_SYN_RECV) {
		/* SYN cookies of another minute, or a firewall in its place: the first one may not have arrived. */
		if (s->seq != flow_cold(&w->flows, it->ref)->peer_isn)
			take_syn_ack(w, it, s);
		return;
	}
	take_syn_ack(w, it, s);
	flow_track(&w->flows, it->ref)->first_peer_isn = s->seq;
	silence_backend_lives(w, flow_track(&w->flows, it->ref)->backend_slot);
	count_add(&w->backends[flow_track(&w->flows, it->ref)->backend_slot].connects, 1);
	wall_answered(w, flow_ref_other(it->ref));
	wall_leave(w, it->ref);
	signals_answered(w, flow_ref_other(it->ref));
	flow_set_state(w, it->ref, FLOW_SYN_RECV, policy);
}

/*
 * The client's first acknowledgement says which SYN-ACK it took, the last one or the first: only who has seen one knows
 * its number, and who sends in another's name has not. False: it is of neither.
 */
static bool choose_syn_ack(struct worker *w, const struct item *it, const struct segment *s)
{
	struct flow_half *up = flow_half(&w->flows, it->ref), *down = flow_half(&w->flows, flow_ref_other(it->ref));
	uint32_t last = flow_cold(&w->flows, it->ref)->peer_isn + 1;

	if (s->ack - last <= down->end - last)
		return true;
	if (s->seq != down->ack || s->ack != flow_track(&w->flows, it->ref)->first_peer_isn + 1)
		return false;
	flow_cold(&w->flows, it->ref)->peer_isn = s->ack - 1;
	down->end = s->ack;
	up->ack = s->ack;
	return true;
}

/* The client's side of the handshake. */
static void on_connected(struct worker *w, const struct item *it, const struct policy *policy)
{
	struct flow_half *up = flow_half(&w->flows, it->ref);

	/* From here on, only newer ones count. */
	if (up->timestamps)
		(void)tcp_timestamp(tcp_of(it), &up->tsval);
	outcome_flow(w, it->ref, OUTCOME_ATTEMPT(ATTEMPT_connected));
	signals_connected(w, it->ref);
	flow_set_state(w, it->ref, FLOW_ESTABLISHED, policy);
}

static void on_fin(struct worker *w, const struct item *it, const struct segment *s, const struct policy *policy)
{
	struct flow_track *track = flow_track(&w->flows, it->ref);
	enum flow_state state = flow_half(&w->flows, it->ref)->state;

	if (flow_ref_dir(it->ref) == DIR_DOWN)
		wall_heard(w, track->backend_slot, 0);
	/* Of its own accord: before it knew of the client's end, which may have come here first. */
	if (flow_ref_dir(it->ref) == DIR_DOWN &&
	    (!track->fin_seen || s->ack != flow_half(&w->flows, flow_ref_other(it->ref))->end))
		track->marks |= FLOW_MARK_BACKEND_CLOSED;
	if (!(track->fin_seen >> flow_ref_dir(it->ref) & 1))
		signals_fin(w, it->ref);
	track->fin_seen |= 1 << flow_ref_dir(it->ref);
	if (state == FLOW_TIME_WAIT || state == FLOW_CLOSED)
		return;
	flow_set_state(w, it->ref, track->fin_seen == 3 ? FLOW_LAST_ACK : FLOW_FIN_WAIT, policy);
}

/* False: its receiver will not take it, or acknowledged what follows it. */
static bool fin_is_valid(const struct worker *w, flow_ref ref, const struct segment *s)
{
	uint32_t acked = flow_half(&w->flows, flow_ref_other(ref))->ack;

	return (int32_t)(s->end - acked) >= 0 && (int32_t)(s->seq - acked) <= (int32_t)receiver_reach(w, ref);
}

/* Beyond the handshake it is out of any window: whoever forges one shall not keep the flow alive. */
static void track_syn(struct worker *w, struct item *it, const struct segment *s, const struct policy *policy)
{
	/* Upstreams do not open towards the gateway: not at the same time either (RFC 9293 3.5). */
	if (flow_ref_dir(it->ref) == DIR_DOWN && !(s->flags & TCP_ACK)) {
		it->verdict = VERDICT_drop_snat_syn;
		return;
	}
	if (s->flags & TCP_ACK)
		on_syn_ack(w, it, s, policy);
	else
		on_syn(w, it, s, policy);
}

/* --- an earlier connection of these ports, in TIME_WAIT at the backend --- */

static bool may_assist(const struct worker *w, const struct flow_track *track)
{
	const struct policy_service *svc = policy_service_at(w->burst.policy, track->service_slot);

	return (!svc || svc->reuse.assist) && !(track->marks & FLOW_MARK_ASSISTED);
}

/* It answers our SYN with its last acknowledgement, for the SYN does not lie ahead (RFC 9293 3.10.7.4). */
static bool is_time_wait(const struct worker *w, const struct item *it, const struct segment *s)
{
	return flow_ref_dir(it->ref) == DIR_DOWN && (it->p.tcp_flags & ~TCP_PSH) == TCP_ACK && !it->p.payload_len &&
	       !in_syn(w, it->ref, s->ack) && may_assist(w, flow_track(&w->flows, it->ref)) &&
	       packet_tcp_is_right(it->frame, &it->p);
}

/* What the client itself would do a second later: a RST that the backend believes, and the SYN again. Once. */
static void assist(struct worker *w, struct item *it, const struct segment *s)
{
	flow_ref up = flow_ref_other(it->ref);

	/* Beyond the limit its client does the same, a second later. */
	if (!answer_limits_backend(w->limits, w->now_ns) ||
	    !segment_send(w, &w->burst, up, s->ack, 0, TCP_RST, MADE_rst_time_wait))
		return;
	it->verdict = VERDICT_absorb_time_wait;
	flow_track(&w->flows, up)->marks |= FLOW_MARK_ASSISTED;
	resteer_send_syn(w, up, MADE_syn_time_wait);
}

static void track_stream(struct worker *w, struct item *it, const struct segment *s, const struct policy *policy)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);

	/* Left over from an earlier connection of these ports: it says nothing about this one. */
	if (half->state == FLOW_SYN_SENT) {
		if (is_time_wait(w, it, s))
			assist(w, it, s);
		return;
	}
	if (half->state == FLOW_SYN_RECV && flow_ref_dir(it->ref) == DIR_UP && !choose_syn_ack(w, it, s))
		return;
	if (half->probes && in_window(half, s))
		it->verdict = silence_hear(w, it);
	if (!note_signal(w, half, it, s))
		return;
	if (half->state == FLOW_CLOSED && outlives_reset(w, it->ref))
		reopen(w, it->ref, policy);
	if (half->state == FLOW_SYN_RECV && flow_ref_dir(it->ref) == DIR_UP)
		on_connected(w, it, policy);
	if (s->flags & TCP_FIN && fin_is_valid(w, it->ref, s))
		on_fin(w, it, s, policy);
	else if (half->state == FLOW_LAST_ACK && is_over(half, flow_half(&w->flows, flow_ref_other(it->ref))))
		flow_set_state(w, it->ref, FLOW_TIME_WAIT, policy);
}

/* All but data of an established connection. Apart, so that such data need not make room for all that is done here. */
static __rte_noinline void track_change(struct worker *w, struct item *it, const struct policy *policy)
{
	struct segment s = read_segment(flow_half(&w->flows, it->ref), it);

	wall_hear(w, it->ref);
	if (flow_half(&w->flows, it->ref)->state == FLOW_RESETTING)
		it->verdict = s.flags & TCP_RST ? VERDICT_drop_stray_rst : silence_tell_again(w, it);
	else if (is_damaged(it))
		w->damaged++;
	else if (s.flags & TCP_RST)
		on_rst(w, it, &s, policy);
	else if (s.flags & TCP_SYN)
		track_syn(w, it, &s, policy);
	else
		track_stream(w, it, &s, policy);
}

void tcp_track(struct worker *w, struct item *it, const struct policy *policy)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);
	bool changes = it->p.tcp_flags & (TCP_RST | TCP_SYN | TCP_FIN) || half->state != FLOW_ESTABLISHED;

	if (__builtin_expect(changes || half->probes, 0)) {
		track_change(w, it, policy);
	} else {
		struct segment s = read_data(half, it);

		if (__builtin_expect(is_signal(half, it, &s), 0))
			note_signal(w, half, it, &s);
		else
			note_segment(w, half, it, &s);
	}
}
