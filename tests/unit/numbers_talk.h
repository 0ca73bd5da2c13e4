/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections on the wire itself (`bare`): segments with options, and by what their numbers leave shifted. */
#pragma once

#include "talk.h"

#define TSVAL 0xfffffffau /* of the client's SYN: wraps soon */
#define ECHO  900000u     /* of the backend's SYN-ACK */

/* A rig that shifts nothing back, at a time that is not 0; one backend unless the config says more. */
void begin_bare(struct rig_config config);

/* --- segments with options --- */

struct segment {
	uint8_t flags;
	uint32_t seq, ack;
	uint16_t len;
	uint8_t options[40], options_len;
};

void put32(uint8_t *at, uint32_t value);
uint32_t get32(const uint8_t *at);

void add_nops(struct segment *g, unsigned n);
void add_timestamps(struct segment *g, uint32_t tsval, uint32_t tsecr);
void add_sack(struct segment *g, const uint32_t *edges, unsigned n);
struct segment syn_of(uint32_t isn, uint32_t clock, bool with_timestamps);

/* `up`: from the client. Returns the frame's length. */
size_t make_segment(uint8_t *frame, const struct talk *t, bool up, const struct segment *g);
/* In, and no turn yet. */
void put(const struct talk *t, bool up, const struct segment *g);
/* The same by the backends' port, whoever it is from: what comes by one port stays in order. */
void put_behind(const struct talk *t, bool up, const struct segment *g);
/* As put(), with a bit of the TCP header, or of what follows it, turned over on the way. */
void put_damaged(const struct talk *t, bool up, const struct segment *g, unsigned offset);
/* One in, one out on the other side. */
struct sent pass(const struct talk *t, bool up, const struct segment *g);
/* The same for a damaged one, which leaves as wrong as it came. */
struct sent pass_damaged(const struct talk *t, bool up, const struct segment *g, unsigned offset);

/* NULL: it has none. */
const uint8_t *option_of(const struct sent *s, uint8_t kind);
uint32_t tsval(const struct sent *s);
uint32_t tsecr(const struct sent *s);

/* --- a connection --- */

/* What is added to the client's numbers on their way to the backend. */
struct shifts {
	uint32_t seq, ts;
};

/* Its SYN, with timestamps. */
struct shifts begin_numbers(struct talk *t, bool v6, unsigned client, uint32_t isn, uint32_t clock);
/* The whole handshake. */
struct shifts establish_numbers(struct talk *t, bool v6, uint32_t isn);
