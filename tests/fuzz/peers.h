/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Honest ends of TCP connections, as far as a gateway can tell them from a kernel: numbers, a window, timestamps, SACK,
 * and what RFC 9293 and RFC 5961 say of segments that do not fit. They know of no gateway. What is out of order is not
 * kept, so that each byte is taken in its turn; nothing is sent but as an answer or when asked to.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEER_SACKS 2

enum peer_state {
	PEER_NONE,
	PEER_SYN_SENT,
	PEER_SYN_RECEIVED,
	PEER_OPEN,      /* and while it is closed, one side after the other */
	PEER_TIME_WAIT, /* it closed first */
	PEER_CLOSED,
	PEER_RESET,
};

struct peer_segment {
	uint32_t seq, ack;
	uint8_t flags;
	uint16_t window;
	bool timestamps, sack_permitted, scaling;
	uint8_t scale, n_sacks;
	uint32_t tsval, tsecr;
	uint32_t sacks[PEER_SACKS][2];
	uint16_t len;
	uint8_t data[1400];
};

struct peer_options {
	bool timestamps, sack, scaling;
	uint8_t scale;
	uint32_t ts_base; /* its clock when all began */
};

struct peer {
	enum peer_state state;
	struct peer_options mine;
	bool timestamps, sack; /* both do */
	uint8_t my_scale, its_scale;
	uint32_t iss, irs;
	uint32_t una, nxt; /* of what it sends */
	uint32_t rcv;      /* what it expects */
	uint32_t its_iss;  /* as its sender has it: the bytes of a stream follow from that */
	uint32_t ts_recent;
	uint32_t window, its_window; /* bytes */
	bool fin_sent, fin_taken, closed_first;
};

enum peer_took {
	PEER_NOTHING,    /* neither said nor changed anything */
	PEER_TOOK,       /* as it should be */
	PEER_ASKED_BACK, /* RFC 5961: a challenge ACK, or an acknowledgement of what it expects */
	PEER_ENDED,      /* by RST */
	PEER_CHEATED,    /* bytes that the other one did not send */
};

/* Each fills *out with what it sends; false: nothing. `now_ms` is everybody's time. */
bool peer_connect(struct peer *p, uint32_t iss, const struct peer_options *options, uint64_t now_ms,
		  struct peer_segment *out);
/* A SYN came to a listener. */
bool peer_accept(struct peer *p, uint32_t iss, const struct peer_options *options, const struct peer_segment *syn,
		 uint64_t now_ms, struct peer_segment *out);
bool peer_send(struct peer *p, uint16_t len, uint64_t now_ms, struct peer_segment *out);
bool peer_close(struct peer *p, uint64_t now_ms, struct peer_segment *out);
bool peer_abort(struct peer *p, uint64_t now_ms, struct peer_segment *out);
bool peer_repeat(struct peer *p, uint64_t now_ms, struct peer_segment *out);
bool peer_ack(const struct peer *p, uint64_t now_ms, struct peer_segment *out);

/* Of a peer that is not PEER_NONE. *out: its answer, if `*answers`. */
enum peer_took peer_receive(struct peer *p, const struct peer_segment *s, uint64_t now_ms, struct peer_segment *out,
			    bool *answers);
/* What a host says to a segment of no connection. */
bool peer_refuse(const struct peer_segment *s, struct peer_segment *out);

/* It knows of the connection, and the other one's numbers. */
static inline bool peer_is_open(const struct peer *p)
{
	return p->state == PEER_OPEN;
}

/* With right checksums; returns the length. `flip`: 0, or what is done to the TCP checksum. */
struct peer_ends {
	bool v6;
	uint8_t src[16], dst[16]; /* IPv4: the first four */
	uint16_t sport_be, dport_be;
	uint8_t ttl;
};
size_t peer_frame(const struct peer_ends *ends, const struct peer_segment *s, uint16_t flip, uint8_t *frame);
/* Of a TCP header of a parsed frame. */
void peer_read(const uint8_t *tcp, uint16_t payload_len, struct peer_segment *out);
