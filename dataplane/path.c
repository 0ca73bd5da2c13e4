/* SPDX-License-Identifier: BSD-3-Clause */
#include "path.h"
#include "action.h"
#include "clamp.h"
#include "hash.h"
#include "mtu.h"
#include "note.h"
#include "outcome_worker.h"
#include "route.h"

/* Of a worker's notes: far from what fills the ring, however many flows hear of a small link. */
#define NOTES_PER_S    250
#define NOTES_AT_ONCE  128
#define TOLD_MS        1000
/*
 * A second "packet too big" counts as the answer to a retransmission if it is this much later than the first: those of
 * one burst of segments come together, and no sender waits shorter for an acknowledgement (Linux: 200 ms).
 */
#define AGAIN_MIN_MS   100
#define AGAIN_MAX_MS   10000
#define TCP_HEADER_MAX 60

int path_memory_init(struct path_memory *m)
{
	return gcra_rate_init(&m->note_rate, NOTES_PER_S, 1000000000, NOTES_AT_ONCE - 1);
}

/* --- SYNs --- */

static bool service_clamps(const struct policy *policy, const struct flow_track *track)
{
	const struct policy_service *svc = policy_service_at(policy, track->service_slot);

	return !svc || svc->clamp_mss;
}

static uint32_t lower(uint32_t mtu, uint32_t other)
{
	return other && other < mtu ? other : mtu;
}

static uint32_t path_mtu(const struct worker *w, const struct burst *b, flow_ref ref)
{
	flow_ref up = flow_ref_up(ref);
	uint32_t mtu = lower(route_flow_mtu(w, b, up), route_flow_mtu(w, b, flow_ref_other(up)));
	struct flow_addrs a;

	flow_addrs(&w->flows, up, &a);
	mtu = lower(mtu, mtu_of_client(&w->dp->mtus, &a.client, w->now_ns));
	return lower(mtu, mtu_of_upstream(&w->dp->mtus, &a.backend, w->now_ns));
}

void path_clamp(struct worker *w, const struct burst *b, struct item *it)
{
	const struct flow_track *track = flow_track(&w->flows, it->ref);
	enum cure_mode mode = flow_mode(track, CURE_PATH);
	uint8_t *tcp = it->frame + it->p.l4_off;
	struct mss_options options;
	uint16_t mss_max;

	if (mode == CURE_OFF || !service_clamps(b->policy, track))
		return;
	if (!mss_find(tcp, it->p.payload_off - it->p.l4_off, &options)) {
		w->ledger.mss_malformed++;
		return;
	}
	mss_max = mss_of_mtu(it->p.family, path_mtu(w, b, it->ref));
	if (mss_exceeds(tcp, &options, mss_max) && action_due(w, mode, ACTION_clamp))
		mss_lower(tcp, &options, mss_max);
}

/* --- what routers say --- */

/*
 * RFC 5927 7.2, from what is there without a look at each packet: if every segment that was acknowledged had fit `mtu`,
 * as many packets as were sent could not have carried all that was. Then larger ones have passed, and what says that
 * they cannot is a lie, or the path has changed. What was acknowledged is known modulo 2^32, which errs towards belief;
 * so do packets without data and those that were lost.
 */
static bool is_contradicted(const struct worker *w, flow_ref quoted, uint32_t una, uint32_t mtu)
{
	const struct flow_cold *cold = flow_cold(&w->flows, quoted);
	enum flow_dir dir = flow_ref_dir(quoted);
	uint32_t acked = una - (dir == DIR_UP ? cold->isn : cold->peer_isn); /* SYN and FIN too */
	uint64_t packets = cold->packets[dir] + flow_half(&w->flows, quoted)->packets;

	return acked > 2 && acked - 2 > packets * (mtu - (flow_ref_is_v6(quoted) ? 60 : 40));
}

/*
 * The flow heard the same a while ago, and nothing was acknowledged since: its sender tried again, in vain. If not, it
 * is remembered.
 */
static bool comes_again(struct worker *w, flow_ref quoted, uint32_t una)
{
	uint64_t flow = flow_cold(&w->flows, quoted)->hash[flow_ref_dir(quoted)];
	struct path_held *held = &w->path.held[flow % PATH_HELD];
	uint64_t since_ms = w->run_ms - held->at_ms;

	if (held->flow != flow || held->una != una || since_ms > AGAIN_MAX_MS) {
		*held = (struct path_held){.flow = flow, .at_ms = w->run_ms, .una = una};
		return false;
	}
	return since_ms >= AGAIN_MIN_MS;
}

/* Does all of the quoted segment lie in what is under way? Whoever saw it knows how long it was. */
static bool is_plausible(const struct worker *w, flow_ref quoted, uint32_t una, const uint8_t *icmp,
			 const struct icmp_quote *q)
{
	uint32_t tcp_len = q->l4_len > 12 ? (icmp[q->l4_off + 12] >> 4) * 4u : TCP_HEADER_MAX;
	uint32_t headers = q->l4_off - ICMP_HEADER_LEN + tcp_len;
	uint32_t payload = q->total_len > headers ? q->total_len - headers : 0;

	return ntohl(q->seq_be) - una + (uint64_t)payload <= flow_half(&w->flows, quoted)->end - una;
}

static bool told_lately(struct worker *w, const struct note *note)
{
	const uint64_t k[] = {note->path.to.q_be[0], note->path.to.q_be[1],
			      note->path.mtu | (uint64_t)note->path.upstream << 32};
	uint64_t what = hash_keyed(k, sizeof(k), w->dp->config.secret);
	struct path_told *told = &w->path.told[what % PATH_TOLD];

	if (told->what == what && w->run_ms - told->at_ms < TOLD_MS)
		return true;
	*told = (struct path_told){.what = what, .at_ms = w->run_ms};
	return false;
}

static enum ptb tell(struct worker *w, const struct note *note)
{
	bool young;
	uint16_t known = mtu_of_address(&w->dp->mtus, note->path.upstream, &note->path.to, w->now_ns, &young);

	if (known && note->path.mtu > known)
		return PTB_larger;
	if (known == note->path.mtu && young)
		return PTB_known;
	if (!gcra_test(&w->path.notes, &w->path.note_rate, w->now_ns))
		return PTB_limited;
	if (told_lately(w, note))
		return PTB_repeated;
	gcra_take(&w->path.notes, &w->path.note_rate, w->now_ns);
	return note_add(w, note) ? PTB_noted : PTB_limited;
}

enum verdict path_ptb(struct worker *w, flow_ref replies, const uint8_t *icmp, const struct icmp_quote *q, uint32_t mtu)
{
	enum cure_mode mode = flow_mode(flow_track(&w->flows, replies), CURE_PATH);
	const struct flow_half *back = flow_half(&w->flows, replies);
	flow_ref quoted = flow_ref_other(replies);
	bool upstream = flow_ref_dir(quoted) == DIR_UP;
	enum ptb result;

	if (mode == CURE_OFF) {
		result = PTB_off;
	} else if (q->proto != PROTO_TCP) {
		result = PTB_unproven;
	} else if (back->state == FLOW_SYN_SENT) {
		result = PTB_implausible;
	} else if (is_contradicted(w, quoted, back->ack, mtu) && !comes_again(w, quoted, back->ack)) {
		w->ledger.ptb[PTB_contradicted]++;
		return outcome_action_due(w, replies, ACTION_hold_ptb) ? VERDICT_drop_ptb_held : VERDICT_NONE;
	} else if (!is_plausible(w, quoted, back->ack, icmp, q)) {
		result = PTB_implausible;
	} else {
		result = tell(w, &(struct note){.kind = NOTE_PATH_MTU,
						.path = {.to = q->dst, .mtu = mtu, .upstream = upstream}});
	}
	w->ledger.ptb[result]++;
	return VERDICT_NONE;
}

enum verdict path_ptb_refused(struct worker *w, enum verdict verdict)
{
	switch (verdict) {
	case VERDICT_drop_icmp_checksum:
		w->ledger.ptb[PTB_damaged]++;
		break;
	case VERDICT_drop_icmp_no_flow:
		w->ledger.ptb[PTB_no_flow]++;
		break;
	case VERDICT_drop_icmp_sequence:
		w->ledger.ptb[PTB_forged]++;
		break;
	default:
		w->ledger.ptb[PTB_bad_quote]++;
	}
	return verdict;
}
