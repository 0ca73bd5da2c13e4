/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Traffic of many established flows over a rig, both directions, in an order that is random and yet the same each time:
 * a permutation of the flows is walked again and again, so each flow comes once per cycle. What a packet shall be is
 * worked out beforehand (a step); making the frame itself is a copy of a template and a few words.
 */
#pragma once

#include "frames.h"
#include "rig.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <rte_mbuf.h>

#include "checksum.h"

enum traffic_kind { TRAFFIC_TCP4, TRAFFIC_TCP6, TRAFFIC_UDP4, TRAFFIC_UDP6, TRAFFIC_KINDS };

extern const char *const traffic_kind_name[TRAFFIC_KINDS];

#define TRAFFIC_BURST 32 /* packets per port and turn */

/* What the backend sees of a flow. */
struct traffic_flow {
	uint16_t snat_port_be;
	uint8_t snat, backend; /* last bytes of the addresses */
	uint32_t shift;        /* of the client's sequence numbers there */
};

struct traffic_step {
	uint32_t src_be, dst_be; /* the last 32 bits of the addresses */
	uint16_t sport_be, dport_be;
	uint32_t seq, ack; /* host order */
};

/* Steps of one turn: first those for the wan port, then for the lan port. */
struct traffic_turn {
	struct traffic_step steps[RIG_PORTS][TRAFFIC_BURST];
};

/* Long enough for any frame that is copied in whole 16-byte pieces. */
struct traffic_template {
	uint8_t frame[96];
	uint16_t len;
	uint16_t src_off, dst_off, l4_off, check_off;
};

struct traffic {
	struct rig *rig;
	enum traffic_kind kind;
	uint32_t n_flows; /* a power of two, at least 64 */
	struct traffic_flow *flows;
	struct traffic_template template[RIG_PORTS];
	uint64_t position; /* of the walk, in packets per direction */
};

/* Opens n_flows flows through the rig's pipeline. Returns 0 or -errno (-EIO: a packet did not come through). */
int traffic_start(struct traffic *t, struct rig *rig, enum traffic_kind kind, uint32_t n_flows);
void traffic_stop(struct traffic *t);
/*
 * TCP over IPv4: each packet has payload, which makes it a question or its answer. From now on only backends have
 * something to say.
 */
void traffic_download(struct traffic *t);

/* Works out the next n turns. */
void traffic_plan(struct traffic *t, struct traffic_turn *turns, unsigned n);

/* Checks a frame that left through `port`: headers, checksums, addresses. Returns NULL or what is wrong. */
const char *traffic_check(const struct traffic *t, enum rig_port port, struct rte_mbuf *m);

#define TRAFFIC_ISN 1000

static inline void traffic_fill(const struct traffic_template *t, const struct traffic_step *s, struct rte_mbuf *m)
{
	uint8_t *frame;
	uint32_t sum = 0, seq_be = htonl(s->seq), ack_be = htonl(s->ack);
	uint16_t check;

	m->data_off = RTE_PKTMBUF_HEADROOM;
	m->data_len = t->len;
	m->pkt_len = t->len;
	frame = rte_pktmbuf_mtod(m, uint8_t *);
	memcpy(frame, t->frame, sizeof(t->frame));
	memcpy(frame + t->src_off, &s->src_be, 4);
	memcpy(frame + t->dst_off, &s->dst_be, 4);
	memcpy(frame + t->l4_off, &s->sport_be, 2);
	memcpy(frame + t->l4_off + 2, &s->dport_be, 2);
	/* In the template these words are 0. */
	sum = csum_delta32(csum_delta32(0, 0, s->src_be), 0, s->dst_be);
	if (t->src_off == 26) {
		memcpy(&check, frame + 24, 2);
		check = csum_apply(check, csum_delta_fold(sum));
		memcpy(frame + 24, &check, 2);
	}
	sum = csum_delta16(csum_delta16(sum, 0, s->sport_be), 0, s->dport_be);
	if (t->check_off - t->l4_off == 16) {
		memcpy(frame + t->l4_off + 4, &seq_be, 4);
		memcpy(frame + t->l4_off + 8, &ack_be, 4);
		sum = csum_delta32(csum_delta32(sum, 0, seq_be), 0, ack_be);
	}
	memcpy(&check, frame + t->check_off, 2);
	check = csum_apply(check, csum_delta_fold(sum));
	if (check == 0 && t->check_off - t->l4_off == 6)
		check = 0xffff; /* a UDP checksum of 0 means none (RFC 768), and is refused over IPv6 */
	memcpy(frame + t->check_off, &check, 2);
}
