/* SPDX-License-Identifier: BSD-3-Clause */
#include "peers.h"

#include "parse.h"
#include "tcp_options.h"

#include <string.h>

#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>

#define ETH    14
#define WINDOW 16384

/* --- what is in a stream --- */

static uint8_t byte_of(uint32_t iss, uint32_t offset)
{
	return (offset * 0x9e3779b1u ^ iss * 0x85ebca6bu) >> 24;
}

/* --- what is sent --- */

static uint32_t ts_now(const struct peer *p, uint64_t now_ms)
{
	return p->mine.ts_base + (uint32_t)now_ms;
}

static struct peer_segment segment(const struct peer *p, uint8_t flags, uint32_t seq, uint64_t now_ms)
{
	return (struct peer_segment){
		.seq = seq,
		.ack = flags & TCP_ACK ? p->rcv : 0,
		.flags = flags,
		.window = p->window >> p->my_scale,
		.timestamps = p->timestamps && !(flags & TCP_RST),
		.tsval = ts_now(p, now_ms),
		.tsecr = flags & TCP_ACK ? p->ts_recent : 0,
	};
}

static void offer(const struct peer *p, struct peer_segment *syn)
{
	syn->timestamps = p->mine.timestamps;
	syn->sack_permitted = p->mine.sack;
	syn->scaling = p->mine.scaling;
	syn->scale = p->mine.scale;
	syn->window = p->window < 65535 ? p->window : 65535;
}

bool peer_connect(struct peer *p, uint32_t iss, const struct peer_options *options, uint64_t now_ms,
		  struct peer_segment *out)
{
	*p = (struct peer){.state = PEER_SYN_SENT,
			   .mine = *options,
			   .iss = iss,
			   .una = iss,
			   .nxt = iss + 1,
			   .window = WINDOW,
			   .its_window = 0};
	*out = segment(p, TCP_SYN, iss, now_ms);
	offer(p, out);
	return true;
}

/* What both said. */
static void agree(struct peer *p, const struct peer_segment *syn)
{
	bool scaling = p->mine.scaling && syn->scaling;

	p->timestamps = p->mine.timestamps && syn->timestamps;
	p->sack = p->mine.sack && syn->sack_permitted;
	p->my_scale = scaling ? p->mine.scale : 0;
	p->its_scale = scaling ? syn->scale : 0;
	p->its_window = syn->window;
	p->ts_recent = syn->tsval;
	p->irs = syn->seq;
	p->rcv = syn->seq + 1;
}

static void answer_syn(struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	*out = segment(p, TCP_SYN | TCP_ACK, p->iss, now_ms);
	offer(p, out);
	out->timestamps = p->timestamps;
	out->sack_permitted = p->sack;
}

bool peer_accept(struct peer *p, uint32_t iss, const struct peer_options *options, const struct peer_segment *syn,
		 uint64_t now_ms, struct peer_segment *out)
{
	*p = (struct peer){.state = PEER_SYN_RECEIVED,
			   .mine = *options,
			   .iss = iss,
			   .una = iss,
			   .nxt = iss + 1,
			   .window = WINDOW,
			   .its_iss = p->its_iss};
	p->mine.scaling &= syn->scaling;
	agree(p, syn);
	answer_syn(p, now_ms, out);
	return true;
}

static bool may_send(const struct peer *p, uint32_t n)
{
	return p->state == PEER_OPEN && !p->fin_sent && p->nxt + n - p->una <= p->its_window;
}

bool peer_send(struct peer *p, uint16_t len, uint64_t now_ms, struct peer_segment *out)
{
	if (!len || len > sizeof(out->data) || !may_send(p, len))
		return false;
	*out = segment(p, TCP_ACK | TCP_PSH, p->nxt, now_ms);
	out->len = len;
	for (uint16_t i = 0; i < len; i++)
		out->data[i] = byte_of(p->iss, p->nxt - p->iss - 1 + i);
	p->nxt += len;
	return true;
}

bool peer_close(struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	if (!may_send(p, 0))
		return false;
	*out = segment(p, TCP_ACK | TCP_FIN, p->nxt, now_ms);
	p->nxt++;
	p->fin_sent = true;
	p->closed_first = !p->fin_taken;
	return true;
}

bool peer_abort(struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	if (p->state != PEER_OPEN && p->state != PEER_SYN_RECEIVED)
		return false;
	*out = segment(p, TCP_ACK | TCP_RST, p->nxt, now_ms);
	p->state = PEER_RESET;
	return true;
}

bool peer_ack(const struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	if (p->state != PEER_OPEN && p->state != PEER_SYN_RECEIVED && p->state != PEER_TIME_WAIT)
		return false;
	*out = segment(p, TCP_ACK, p->nxt, now_ms);
	return true;
}

/* The oldest that is not acknowledged. */
bool peer_repeat(struct peer *p, uint64_t now_ms, struct peer_segment *out)
{
	uint32_t left = p->nxt - p->una - p->fin_sent;

	if (p->state == PEER_SYN_SENT) {
		*out = segment(p, TCP_SYN, p->iss, now_ms);
		offer(p, out);
		return true;
	}
	if (p->state == PEER_SYN_RECEIVED) {
		answer_syn(p, now_ms, out);
		return true;
	}
	if (p->state != PEER_OPEN || p->una == p->nxt)
		return false;
	*out = segment(p, left ? TCP_ACK | TCP_PSH : TCP_ACK | TCP_FIN, p->una, now_ms);
	out->len = left < sizeof(out->data) ? left : sizeof(out->data);
	for (uint16_t i = 0; i < out->len; i++)
		out->data[i] = byte_of(p->iss, p->una - p->iss - 1 + i);
	return true;
}

bool peer_refuse(const struct peer_segment *s, struct peer_segment *out)
{
	uint32_t occupies = s->len + !!(s->flags & TCP_SYN) + !!(s->flags & TCP_FIN);

	if (s->flags & TCP_RST)
		return false;
	*out = (struct peer_segment){.flags = TCP_RST};
	if (s->flags & TCP_ACK) {
		out->seq = s->ack;
	} else {
		out->flags |= TCP_ACK;
		out->ack = s->seq + occupies;
	}
	return true;
}

/* --- what comes --- */

static enum peer_took ask_back(const struct peer *p, uint64_t now_ms, struct peer_segment *out, bool *answers)
{
	*out = segment(p, TCP_ACK, p->nxt, now_ms);
	*answers = true;
	return PEER_ASKED_BACK;
}

static enum peer_took receive_syn_sent(struct peer *p, const struct peer_segment *s, uint64_t now_ms,
				       struct peer_segment *out, bool *answers)
{
	bool fits = s->flags & TCP_ACK && s->ack == p->nxt;

	if (s->flags & TCP_ACK && !fits) {
		*answers = peer_refuse(s, out);
		return PEER_NOTHING;
	}
	if (s->flags & TCP_RST) {
		if (!fits)
			return PEER_NOTHING;
		p->state = PEER_RESET;
		return PEER_ENDED;
	}
	if (!fits || !(s->flags & TCP_SYN))
		return PEER_NOTHING;
	agree(p, s);
	p->its_iss = s->seq;
	p->una = p->nxt;
	p->state = PEER_OPEN;
	*out = segment(p, TCP_ACK, p->nxt, now_ms);
	*answers = true;
	return PEER_TOOK;
}

/* RFC 5961 3.2. */
static enum peer_took receive_rst(struct peer *p, const struct peer_segment *s, uint64_t now_ms,
				  struct peer_segment *out, bool *answers)
{
	if (s->seq == p->rcv) {
		p->state = PEER_RESET;
		return PEER_ENDED;
	}
	return s->seq - p->rcv < p->window ? ask_back(p, now_ms, out, answers) : PEER_NOTHING;
}

/* RFC 9293 3.10.7.4, first; and RFC 7323 5.3. */
static bool is_acceptable(const struct peer *p, const struct peer_segment *s)
{
	uint32_t occupies = s->len + !!(s->flags & TCP_FIN);

	if (p->timestamps && s->timestamps && (int32_t)(s->tsval - p->ts_recent) < 0)
		return false;
	return (int32_t)(s->seq + occupies - p->rcv) >= 0 && s->seq - p->rcv + p->window <= 2 * p->window &&
	       (occupies == 0 ? s->seq - p->rcv <= p->window : true);
}

/* RFC 5961 5.2. False: it was never sent, or so long ago that who says so makes it up. */
static bool take_ack(struct peer *p, const struct peer_segment *s)
{
	if (s->ack - p->una + 4 * WINDOW > p->nxt - p->una + 4 * WINDOW)
		return false;
	if ((int32_t)(s->ack - p->una) >= 0) {
		p->una = s->ack;
		p->its_window = (uint32_t)s->window << p->its_scale;
	}
	return true;
}

/* What is new of it, if nothing is missing before. */
static enum peer_took take_data(struct peer *p, const struct peer_segment *s, uint64_t now_ms, struct peer_segment *out,
				bool *answers)
{
	uint32_t skip = p->rcv - s->seq;

	if ((int32_t)skip < 0) {
		ask_back(p, now_ms, out, answers);
		out->n_sacks = p->sack && s->len;
		out->sacks[0][0] = s->seq;
		out->sacks[0][1] = s->seq + s->len;
		return PEER_TOOK;
	}
	for (uint32_t i = skip; i < s->len; i++, p->rcv++)
		if (s->data[i] != byte_of(p->its_iss, p->rcv - p->irs - 1))
			return PEER_CHEATED;
	if (s->flags & TCP_FIN && p->rcv == s->seq + s->len && !p->fin_taken) {
		p->fin_taken = true;
		p->rcv++;
	}
	if (p->timestamps && s->timestamps && (int32_t)(s->tsval - p->ts_recent) > 0)
		p->ts_recent = s->tsval;
	*out = segment(p, TCP_ACK, p->nxt, now_ms);
	*answers = true;
	return PEER_TOOK;
}

static void note_end(struct peer *p)
{
	if (p->fin_sent && p->fin_taken && p->una == p->nxt)
		p->state = p->closed_first ? PEER_TIME_WAIT : PEER_CLOSED;
}

static enum peer_took receive_open(struct peer *p, const struct peer_segment *s, uint64_t now_ms,
				   struct peer_segment *out, bool *answers)
{
	enum peer_took took = PEER_TOOK;

	if (s->flags & TCP_RST)
		return receive_rst(p, s, now_ms, out, answers);
	if (s->flags & TCP_SYN || !is_acceptable(p, s))
		return ask_back(p, now_ms, out, answers);
	if (!(s->flags & TCP_ACK))
		return PEER_NOTHING;
	if (p->state == PEER_SYN_RECEIVED && s->ack != p->nxt) {
		*answers = peer_refuse(s, out);
		return PEER_NOTHING;
	}
	if (!take_ack(p, s))
		return ask_back(p, now_ms, out, answers);
	if (p->state == PEER_SYN_RECEIVED) {
		p->state = PEER_OPEN;
		p->its_window = (uint32_t)s->window << p->its_scale;
	}
	if (s->len || s->flags & TCP_FIN)
		took = take_data(p, s, now_ms, out, answers);
	else if (p->timestamps && s->timestamps && (int32_t)(s->tsval - p->ts_recent) > 0)
		p->ts_recent = s->tsval;
	note_end(p);
	return took;
}

/* RFC 9293 3.10.7.4, RFC 6191: a SYN that lies ahead is for the listener, and its caller's. */
static enum peer_took receive_time_wait(struct peer *p, const struct peer_segment *s, uint64_t now_ms,
					struct peer_segment *out, bool *answers)
{
	if (s->flags & TCP_RST) {
		if (s->seq == p->rcv)
			p->state = PEER_RESET;
		return PEER_NOTHING;
	}
	return ask_back(p, now_ms, out, answers);
}

enum peer_took peer_receive(struct peer *p, const struct peer_segment *s, uint64_t now_ms, struct peer_segment *out,
			    bool *answers)
{
	*answers = false;
	switch (p->state) {
	case PEER_SYN_SENT:
		return receive_syn_sent(p, s, now_ms, out, answers);
	case PEER_SYN_RECEIVED:
		if ((s->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && s->seq == p->irs) {
			answer_syn(p, now_ms, out);
			*answers = true;
			return PEER_TOOK;
		}
		return receive_open(p, s, now_ms, out, answers);
	case PEER_OPEN:
		return receive_open(p, s, now_ms, out, answers);
	case PEER_TIME_WAIT:
		return receive_time_wait(p, s, now_ms, out, answers);
	default:
		*answers = peer_refuse(s, out);
		return PEER_NOTHING;
	}
}

/* --- frames --- */

static uint8_t *put_word(uint8_t *at, uint32_t word)
{
	word = htonl(word);
	memcpy(at, &word, 4);
	return at + 4;
}

/* Returns where they end, at a multiple of four. */
static uint8_t *put_options(uint8_t *at, const struct peer_segment *s)
{
	if (s->flags & TCP_SYN)
		at = put_word(at, 0x020405b4); /* MSS 1460 */
	if (s->sack_permitted)
		at = put_word(at, 0x01010402);
	if (s->scaling)
		at = put_word(at, 0x01030300 | s->scale);
	if (s->timestamps) {
		at = put_word(at, TCP_TIMESTAMP_LAYOUT);
		at = put_word(at, s->tsval);
		at = put_word(at, s->tsecr);
	}
	if (s->n_sacks) {
		at = put_word(at, 0x01010500 | (2 + 8 * s->n_sacks));
		for (unsigned i = 0; i < s->n_sacks; i++)
			at = put_word(put_word(at, s->sacks[i][0]), s->sacks[i][1]);
	}
	return at;
}

static size_t put_ip(uint8_t *ip, const struct peer_ends *ends, uint16_t len)
{
	if (ends->v6) {
		struct rte_ipv6_hdr *ip6 = (void *)ip;

		*ip6 = (struct rte_ipv6_hdr){.vtc_flow = htonl(6U << 28),
					     .payload_len = htons(len),
					     .proto = IPPROTO_TCP,
					     .hop_limits = ends->ttl};
		memcpy(ip6->src_addr, ends->src, 16);
		memcpy(ip6->dst_addr, ends->dst, 16);
		return sizeof(*ip6);
	}
	struct rte_ipv4_hdr *ip4 = (void *)ip;

	*ip4 = (struct rte_ipv4_hdr){.version_ihl = RTE_IPV4_VHL_DEF,
				     .total_length = htons(sizeof(*ip4) + len),
				     .fragment_offset = htons(RTE_IPV4_HDR_DF_FLAG),
				     .time_to_live = ends->ttl,
				     .next_proto_id = IPPROTO_TCP};
	memcpy(&ip4->src_addr, ends->src, 4);
	memcpy(&ip4->dst_addr, ends->dst, 4);
	ip4->hdr_checksum = rte_ipv4_cksum(ip4);
	return sizeof(*ip4);
}

size_t peer_frame(const struct peer_ends *ends, const struct peer_segment *s, uint16_t flip, uint8_t *frame)
{
	const uint16_t type_be = htons(ends->v6 ? RTE_ETHER_TYPE_IPV6 : RTE_ETHER_TYPE_IPV4);
	uint8_t *ip = frame + ETH, *l4 = ip + (ends->v6 ? sizeof(struct rte_ipv6_hdr) : sizeof(struct rte_ipv4_hdr));
	struct rte_tcp_hdr *tcp = (void *)l4;
	uint8_t *data = put_options((uint8_t *)(tcp + 1), s);

	memcpy(frame, "\2\0\0\0\0\1\2\0\0\0\0\2", 12);
	memcpy(frame + 12, &type_be, 2);
	*tcp = (struct rte_tcp_hdr){.src_port = ends->sport_be,
				    .dst_port = ends->dport_be,
				    .sent_seq = htonl(s->seq),
				    .recv_ack = htonl(s->ack),
				    .data_off = (data - l4) / 4 << 4,
				    .tcp_flags = s->flags,
				    .rx_win = htons(s->window)};
	memcpy(data, s->data, s->len);
	put_ip(ip, ends, data + s->len - l4);
	tcp->cksum = ends->v6 ? rte_ipv6_udptcp_cksum((void *)ip, tcp) : rte_ipv4_udptcp_cksum((void *)ip, tcp);
	tcp->cksum ^= flip;
	return data + s->len - frame;
}

static uint32_t word_at(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, 4);
	return ntohl(word);
}

static void read_option(const uint8_t *o, struct peer_segment *s)
{
	if (o[0] == TCP_OPTION_TIMESTAMPS && o[1] == TCP_OPTION_TIMESTAMPS_LEN) {
		s->timestamps = true;
		s->tsval = word_at(o + 2);
		s->tsecr = word_at(o + 6);
	} else if (o[0] == TCP_OPTION_SCALE && o[1] == 3) {
		s->scaling = true;
		s->scale = o[2];
	} else if (o[0] == 4 && o[1] == 2) {
		s->sack_permitted = true;
	} else if (o[0] == TCP_OPTION_SACK) {
		for (unsigned at = 2; at + 8 <= o[1] && s->n_sacks < PEER_SACKS; at += 8, s->n_sacks++) {
			s->sacks[s->n_sacks][0] = word_at(o + at);
			s->sacks[s->n_sacks][1] = word_at(o + at + 4);
		}
	}
}

void peer_read(const uint8_t *header, uint16_t payload_len, struct peer_segment *out)
{
	const struct rte_tcp_hdr *tcp = (const void *)header;
	const uint8_t *options = header + sizeof(*tcp);
	unsigned len = tcp_options_len(tcp);

	*out = (struct peer_segment){.seq = ntohl(tcp->sent_seq),
				     .ack = ntohl(tcp->recv_ack),
				     .flags = tcp->tcp_flags,
				     .window = ntohs(tcp->rx_win),
				     .len = payload_len};
	for (unsigned at = 0; (at = tcp_option_at(options, len, at)) < len; at += options[at + 1])
		read_option(options + at, out);
	memcpy(out->data, options + len, payload_len < sizeof(out->data) ? payload_len : sizeof(out->data));
}
