/* SPDX-License-Identifier: BSD-3-Clause */
#include "icmp_flow.h"
#include "lookup.h"
#include "path.h"
#include "route.h"
#include "stray.h"
#include "tcp.h"
#include "wall.h"

#include <limits.h>
#include <rte_ether.h>
#include <rte_mbuf.h>

static const uint8_t *icmp_of(const struct item *it)
{
	return it->frame + it->p.l4_off;
}

static size_t icmp_len(const struct item *it)
{
	return it->p.ip_len - (it->p.l4_off - it->p.l3_off);
}

/*
 * A quoted packet went from one of our addresses to an endpoint. Its answers, which are what flows are keyed by, come
 * the other way.
 */
static struct flow_key4 reply_key4(const struct icmp_quote *q)
{
	return (struct flow_key4){
		.src_be = ipaddr_v4_be(&q->dst),
		.dst_be = ipaddr_v4_be(&q->src),
		.sport_be = q->dport_be,
		.dport_be = q->sport_be,
	};
}

static struct flow_key6 reply_key6(const struct icmp_quote *q)
{
	struct flow_key6 key = {.sport_be = q->dport_be, .dport_be = q->sport_be};

	memcpy(key.src, q->dst.b, 16);
	memcpy(key.dst, q->src.b, 16);
	return key;
}

uint64_t icmp_reply_hash(const struct worker *w, const struct icmp_quote *q)
{
	if (q->family == 4) {
		struct flow_key4 key = reply_key4(q);

		return flow_hash4(&key, q->proto, w->dp->config.secret);
	}
	struct flow_key6 key = reply_key6(q);

	return flow_hash6(&key, q->proto, w->dp->config.secret);
}

bool icmp_read_quote(const struct item *it, struct icmp_quote *q)
{
	return icmp_quote_parse(icmp_of(it), icmp_len(it), it->p.family, q) == ICMP_QUOTE_OK;
}

static flow_ref find_replies(const struct worker *w, const struct icmp_quote *q)
{
	uint64_t hash = icmp_reply_hash(w, q);

	if (q->family == 4) {
		struct flow_key4 key = reply_key4(q);

		return flow_lookup4(&w->flows, &key, q->proto, hash);
	}
	struct flow_key6 key = reply_key6(q);

	return flow_lookup6(&w->flows, &key, q->proto, hash);
}

/*
 * RFC 5927 4.1: the quoted sequence number must be of data that is under way, or anybody could forge the error.
 * `replies` names the direction that acknowledges the quoted one.
 */
static bool sequence_plausible(const struct worker *w, flow_ref replies, const struct icmp_quote *q)
{
	const struct flow_half *back = flow_half(&w->flows, replies);
	uint32_t una = back->ack, seq = ntohl(q->seq_be), under_way;

	if (q->proto != PROTO_TCP)
		return true;
	if (back->state == FLOW_SYN_SENT)
		return flow_ref_dir(replies) == DIR_DOWN && tcp_is_syn(w, replies, seq);
	under_way = tcp_end(w, flow_ref_other(replies)) - una;
	return seq - una < under_way;
}

/* What rewrite.c did to the numbers of the direction `quoted`, undone. */
static void unshift_numbers(const struct flow_half *half, flow_ref quoted, struct icmp_translation *t)
{
	if (flow_ref_dir(quoted) == DIR_UP) {
		t->seq_add = -half->seq_shift;
		t->tsval_add = -half->ts_shift;
	} else {
		t->ack_add = -half->seq_shift;
		t->tsecr_add = -half->ts_shift;
	}
}

/* From here on the quote's sequence number is what the endpoint sent. */
static void unshift_sequence(const struct worker *w, flow_ref replies, struct icmp_quote *q)
{
	flow_ref quoted = flow_ref_other(replies);

	if (flow_ref_dir(quoted) == DIR_UP)
		q->seq_be = htonl(ntohl(q->seq_be) - flow_half(&w->flows, quoted)->seq_shift);
}

/* What the endpoint sent, and to which of our addresses, before it was translated. */
static struct icmp_translation to_endpoint(const struct worker *w, flow_ref replies)
{
	struct icmp_translation t = {0};

	if (flow_ref_is_v6(replies)) {
		const struct flow_key6 *sent = &flow_half6(&w->flows, flow_ref_other(replies))->in;

		t.src = ipaddr_v6(sent->src);
		t.dst = ipaddr_v6(sent->dst);
		t.sport_be = sent->sport_be;
		t.dport_be = sent->dport_be;
	} else {
		const struct flow_key4 *sent = &flow_half4(&w->flows, flow_ref_other(replies))->in;

		t.src = ipaddr_v4(sent->src_be);
		t.dst = ipaddr_v4(sent->dst_be);
		t.sport_be = sent->sport_be;
		t.dport_be = sent->dport_be;
	}
	t.outer_src = t.dst;
	t.outer_dst = t.src;
	unshift_numbers(flow_half(&w->flows, flow_ref_other(replies)), flow_ref_other(replies), &t);
	return t;
}

static enum verdict send_on(struct worker *w, const struct burst *b, struct item *it, flow_ref replies,
			    const struct icmp_quote *q, uint32_t mtu)
{
	struct icmp_translation t = to_endpoint(w, replies);
	struct fib_hop hop;
	enum verdict verdict = route_flow(w, b, replies, flow_half(&w->flows, replies),
					  flow_cold(&w->flows, replies)->hash[flow_ref_dir(replies)], &hop);

	if (verdict != VERDICT_NONE)
		return verdict;
	t.mtu = mtu;
	it->p.ip_len = icmp_translate(it->frame + it->p.l3_off, it->p.ip_len, it->p.l4_off - it->p.l3_off, q, &t);
	if (it->p.ip_len > flow_half(&w->flows, replies)->mtu)
		return VERDICT_drop_too_big;
	route_put_l2(it, &hop);
	it->m->data_len = it->m->pkt_len = RTE_ETHER_HDR_LEN + it->p.ip_len;
	return VERDICT_forwarded;
}

static bool is_ptb(const struct item *it)
{
	return icmp_is_ptb(it->p.family, icmp_of(it)[0], icmp_of(it)[1]);
}

static bool is_unreachable(const struct item *it)
{
	return !is_ptb(it) && icmp_of(it)[0] == (it->p.family == 4 ? ICMP4_UNREACHABLE : ICMP6_UNREACHABLE);
}

/* What is quoted is the SYN that its flow still waits for: sequence_plausible(). */
static bool is_refusal(const struct worker *w, const struct item *it, flow_ref replies)
{
	return is_unreachable(it) && flow_half(&w->flows, replies)->state == FLOW_SYN_SENT;
}

static enum verdict about_no_flow(struct worker *w, const struct item *it, const struct icmp_quote *q)
{
	bool passes = icmp_error_passes(it->p.family, icmp_of(it)[0], icmp_of(it)[1]);
	enum verdict verdict = stray_quoted(w, q, passes && is_unreachable(it));

	return verdict == VERDICT_NONE ? VERDICT_drop_icmp_no_flow : verdict;
}

/* An error that passed all tests. */
struct heard {
	struct icmp_quote quote;
	flow_ref replies;
	uint32_t mtu; /* of a "packet too big", else 0 */
};

/* VERDICT_NONE: it is about a packet that we sent and that may still be on its way. */
static enum verdict judge(struct worker *w, const struct item *it, struct heard *h)
{
	struct ipaddr dst = packet_dst(it->frame, &it->p);

	h->mtu = 0;
	if (!icmp_checksum_ok(it->frame + it->p.l3_off, it->p.ip_len, it->p.l4_off - it->p.l3_off))
		return VERDICT_drop_icmp_checksum;
	/* It goes to whom the quoted packet came from. */
	if (!icmp_read_quote(it, &h->quote) || !ipaddr_equal(&h->quote.src, &dst))
		return VERDICT_drop_icmp_quote;
	h->replies = find_replies(w, &h->quote);
	if (h->replies == FLOW_REF_NONE)
		return about_no_flow(w, it, &h->quote);
	unshift_sequence(w, h->replies, &h->quote);
	if (!sequence_plausible(w, h->replies, &h->quote))
		return VERDICT_drop_icmp_sequence;
	if (!icmp_error_passes(it->p.family, icmp_of(it)[0], icmp_of(it)[1]))
		return VERDICT_drop_icmp_unwanted;
	if (is_ptb(it))
		h->mtu = icmp_ptb_mtu(icmp_of(it), &h->quote);
	return is_ptb(it) && h->mtu == 0 ? VERDICT_drop_icmp_quote : VERDICT_NONE;
}

static enum verdict receive_error(struct worker *w, const struct burst *b, struct item *it)
{
	struct heard h;
	enum verdict verdict = judge(w, it, &h);

	if (is_ptb(it))
		verdict = verdict == VERDICT_NONE ? path_ptb(w, h.replies, icmp_of(it), &h.quote, h.mtu)
						  : path_ptb_refused(w, verdict);
	if (verdict == VERDICT_NONE && is_refusal(w, it, h.replies) &&
	    wall_failed(w, flow_ref_other(h.replies), CONNECT_UNREACHABLE)) {
		stray_settle(w, h.replies);
		return VERDICT_absorb_unreachable;
	}
	return verdict == VERDICT_NONE ? send_on(w, b, it, h.replies, &h.quote, h.mtu) : verdict;
}

enum verdict icmp_receive(struct worker *w, const struct burst *b, struct item *it)
{
	struct ipaddr src = packet_src(it->frame, &it->p), dst = packet_dst(it->frame, &it->p);

	if (!is_ours(w, b->policy, &dst))
		return VERDICT_drop_not_ours;
	if (is_ours(w, b->policy, &src))
		return VERDICT_drop_ip_source;
	switch (it->p.kind) {
	case PACKET_ICMP_ECHO_REQUEST:
		return VERDICT_answer_echo;
	case PACKET_ICMP_ERROR:
		return receive_error(w, b, it);
	default:
		return VERDICT_drop_icmp_unwanted;
	}
}
