/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two ends of one connection through the rig, with the numbers, windows and timestamps that each has come to, and
 * what the gateway makes in their names. On top of talk.h.
 */
#pragma once

#include "talk.h"

#define PROBE_MS 20000
#define LATE_MS  (PROBE_MS + PROBE_MS / 10 + 300) /* all jitter and ticks of the wheel have passed */
#define SCALE    7                                /* of both ends' windows */

struct end {
	uint32_t next; /* sequence number */
	uint32_t tsval;
	uint16_t window;
};

/* By direction of what they send. */
extern struct end ends[DIRS];
extern const enum rig_port port_of[DIRS];
extern struct talk talk;
extern bool timestamps; /* agreed on */

/* start(), with a service that probes after PROBE_MS. */
void begin_rig(struct rig_config config);
void set_mode(enum cure_mode mode);
/* The RSTs that ends of flows may get, by others, until the next step of the clock. */
void use_up_ends(void);
/* The first backend of the connection's family. */
struct backend_report backend(void);

void put32(uint8_t *at, uint32_t value);
size_t make_frame(uint8_t *frame, struct frame_spec spec, uint16_t window, const uint8_t *options, unsigned len);
void feed_options(enum flow_dir dir, struct frame_spec spec, const uint8_t *options, unsigned len);
struct frame_spec spec_of(enum flow_dir dir, uint8_t flags, uint32_t seq, uint32_t ack);
/* As Linux would: the timestamps are there if they were agreed on. */
void feed_numbers(enum flow_dir dir, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t len);
/* The next thing that this end says. */
void feed_next(enum flow_dir dir, uint8_t flags, uint16_t len);
/* What was fed comes out at the other end, and nothing else. */
struct sent passes(enum flow_dir dir);
/* feed_next() and passes(). */
struct sent say(enum flow_dir dir, uint8_t flags, uint16_t len);

void handshake(bool v6, uint32_t isn, uint32_t peer, bool with_timestamps);
/* A request and its response; nothing is under way afterwards. Timestamps move on, one of them over its wrap. */
void converse(void);

/* --- what the gateway makes --- */

extern struct sent made[DIRS]; /* by whose name it is in */

/* One packet to either end, and no more; in steps until they come, for at most `ms`. Returns how long it took. */
uint64_t await_made(uint64_t ms);
/* In the name of `name`: one before its next number, so that the other end answers. */
void check_probe(const struct sent *s, enum flow_dir name);
void check_probes(void);
void check_reset(const struct sent *s, enum flow_dir name, uint32_t sequence);
/* Both ends learn it, each from the number that it expects. */
void check_resets(void);
/* await_made() and check_probes(), and the time is right. */
void await_probes(void);
/* The next one to a silent end, alone. */
void await_one_probe(enum flow_dir name);
/* An end answers as Linux does, and the other one does not hear of it. */
void answer_probe(enum flow_dir dir);
