/* SPDX-License-Identifier: BSD-3-Clause */
#include "numbers_talk.h"
#include "tcp_options.h"

#include <string.h>

void begin_bare(struct rig_config config)
{
	config.n_backends = config.n_backends ? config.n_backends : 1;
	start(config);
	bare = true;
	rig.now_ns += 123456789012345;
	turn();
}

/* --- segments with options --- */

void put32(uint8_t *at, uint32_t value)
{
	uint32_t value_be = htonl(value);

	memcpy(at, &value_be, 4);
}

uint32_t get32(const uint8_t *at)
{
	uint32_t value_be;

	memcpy(&value_be, at, 4);
	return ntohl(value_be);
}

void add_nops(struct segment *g, unsigned n)
{
	memset(g->options + g->options_len, TCP_OPTION_NOP, n);
	g->options_len += n;
}

void add_timestamps(struct segment *g, uint32_t tsval, uint32_t tsecr)
{
	uint8_t *at = g->options + g->options_len;

	at[0] = TCP_OPTION_TIMESTAMPS;
	at[1] = TCP_OPTION_TIMESTAMPS_LEN;
	put32(at + 2, tsval);
	put32(at + 6, tsecr);
	g->options_len += TCP_OPTION_TIMESTAMPS_LEN;
}

void add_sack(struct segment *g, const uint32_t *edges, unsigned n)
{
	uint8_t *at = g->options + g->options_len;

	at[0] = TCP_OPTION_SACK;
	at[1] = 2 + 4 * n;
	for (unsigned i = 0; i < n; i++)
		put32(at + 2 + 4 * i, edges[i]);
	g->options_len += at[1];
}

size_t make_segment(uint8_t *frame, const struct talk *t, bool up, const struct segment *g)
{
	struct frame_spec spec =
		up ? from_client(t, g->flags, g->seq, g->ack) : from_backend(t, g->flags, g->seq, g->ack);
	unsigned pad = -g->options_len & 3, options_len = g->options_len + pad;
	uint8_t *ip = frame + ETH;
	struct rte_tcp_hdr *header = (void *)(ip + (t->v6 ? 40 : 20));
	size_t len;

	len = frame_make(&(struct frame_spec){.src = spec.src,
					      .dst = spec.dst,
					      .sport_be = spec.sport_be,
					      .dport_be = spec.dport_be,
					      .proto = PROTO_TCP,
					      .tcp_flags = g->flags,
					      .seq_be = spec.seq_be,
					      .ack_be = spec.ack_be,
					      .payload_len = g->len + options_len},
			 frame);
	memcpy(header + 1, g->options, g->options_len);
	memset((uint8_t *)(header + 1) + g->options_len, TCP_OPTION_END, pad);
	header->data_off = (20 + options_len) / 4 << 4;
	header->cksum = 0;
	header->cksum = t->v6 ? rte_ipv6_udptcp_cksum((void *)ip, header) : rte_ipv4_udptcp_cksum((void *)ip, header);
	return len;
}

void put(const struct talk *t, bool up, const struct segment *g)
{
	uint8_t frame[FRAME_MAX];

	feed_raw(up ? RIG_WAN : RIG_LAN, 0, frame, make_segment(frame, t, up, g));
}

void put_behind(const struct talk *t, bool up, const struct segment *g)
{
	uint8_t frame[FRAME_MAX];

	feed_raw(RIG_LAN, 0, frame, make_segment(frame, t, up, g));
}

void put_damaged(const struct talk *t, bool up, const struct segment *g, unsigned offset)
{
	uint8_t frame[FRAME_MAX];
	size_t len = make_segment(frame, t, up, g);

	frame[ETH + (t->v6 ? 40 : 20) + offset] ^= 0x40;
	assert_non_null(frame_checksum_error(frame));
	feed_raw(up ? RIG_WAN : RIG_LAN, 0, frame, len);
}

struct sent pass(const struct talk *t, bool up, const struct segment *g)
{
	struct sent s;

	put(t, up, g);
	turn();
	take_right(&s);
	take_none();
	assert_int_equal(s.port, up ? RIG_LAN : RIG_WAN);
	return s;
}

struct sent pass_damaged(const struct talk *t, bool up, const struct segment *g, unsigned offset)
{
	struct sent s;

	put_damaged(t, up, g, offset);
	turn();
	assert_true(take(&s));
	assert_non_null(frame_checksum_error(s.frame));
	take_none();
	assert_int_equal(s.port, up ? RIG_LAN : RIG_WAN);
	return s;
}

const uint8_t *option_of(const struct sent *s, uint8_t kind)
{
	const uint8_t *options = (const uint8_t *)(tcp(s) + 1);
	unsigned len = tcp_options_len(tcp(s));

	for (unsigned at = 0; (at = tcp_option_at(options, len, at)) < len; at += options[at + 1])
		if (options[at] == kind)
			return options + at;
	return NULL;
}

uint32_t tsval(const struct sent *s)
{
	return get32(option_of(s, TCP_OPTION_TIMESTAMPS) + 2);
}

uint32_t tsecr(const struct sent *s)
{
	return get32(option_of(s, TCP_OPTION_TIMESTAMPS) + 6);
}

/* --- a connection --- */

struct segment syn_of(uint32_t isn, uint32_t clock, bool with_timestamps)
{
	struct segment syn = {.flags = TCP_SYN, .seq = isn};

	if (with_timestamps) {
		add_timestamps(&syn, clock, 0);
		add_nops(&syn, 1);
	}
	return syn;
}

struct shifts begin_numbers(struct talk *t, bool v6, unsigned client, uint32_t isn, uint32_t clock)
{
	struct segment syn = syn_of(isn, clock, true);
	struct sent s;

	*t = (struct talk){.v6 = v6, .proto = PROTO_TCP, .client = client};
	s = pass(t, true, &syn);
	learn(t, &s);
	return (struct shifts){seq(&s) - isn, tsval(&s) - clock};
}

struct shifts establish_numbers(struct talk *t, bool v6, uint32_t isn)
{
	struct shifts d = begin_numbers(t, v6, 3, isn, TSVAL);
	struct segment syn_ack = {.flags = TCP_SYN | TCP_ACK, .seq = PEER, .ack = isn + 1 + d.seq};
	struct segment ack_of_it = {.flags = TCP_ACK, .seq = isn + 1, .ack = PEER + 1};
	struct sent s;

	add_timestamps(&syn_ack, ECHO, TSVAL + d.ts);
	s = pass(t, false, &syn_ack);
	assert_int_equal(ack(&s), isn + 1);
	assert_int_equal(tsecr(&s), TSVAL);
	add_nops(&ack_of_it, 2);
	add_timestamps(&ack_of_it, TSVAL, ECHO);
	pass(t, true, &ack_of_it);
	return d;
}
