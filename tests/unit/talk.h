/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tests of whole workers share: one rig between ports in memory on a clock of the test's own, frames that go in
 * and come out one by one, and conversations of a client with a backend. Failures end the test (cmocka).
 */
#pragma once

#include "core.h"
#include "frames.h"
#include "memport.h"
#include "rig.h"
#include "worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rte_tcp.h>

#define ETH     14
#define ISN     1000u
#define PEER    70000u /* ISN of the backends */
#define STEP_NS 40000000ull

extern struct rig rig;
extern unsigned n_workers;

/* Makes the rig; what is 0 gets a small default. */
void start(struct rig_config config);
/* Whatever a test did, every packet is accounted for, and so are every flow and every attempt. */
void check_books(void);
/* Checks the books, that no buffer is missing, and unmakes it. */
void stop(void);

/*
 * The upstream side of a connection has numbers of its own (numbers.h). Tests speak of them as of the client's: what
 * leaves for a backend is taken back by what its SYN was shifted, what comes from there is shifted alike, echoes, SACK
 * and quotes too. A packet that was shifted by anything else shows wrong numbers. `bare`: not so, the wire itself.
 */
extern bool bare;

/* --- the wire --- */

/* What left: the frame and where. */
struct sent {
	enum rig_port port;
	size_t len;
	struct packet p;
	uint8_t frame[FRAME_MAX];
};

/* One turn of each worker, and one more for what they handed to each other. */
void turn(void);
void feed_raw(enum rig_port port, unsigned queue, const uint8_t *frame, size_t len);
void feed(enum rig_port port, struct frame_spec spec);
/* The next frame that left through any port; false: none. */
bool take(struct sent *s);
/* There is one, and its checksums are right. */
void take_right(struct sent *s);
void take_none(void);
/* Whatever left, its checksums right; returns how much it was. */
unsigned take_all(void);
/* A digest of all frames that were taken since start(): what, where and when. */
uint64_t taken(void);
/* One in, one out. */
struct sent exchange(enum rig_port port, struct frame_spec spec);
/* One in, nothing out, and `why` was counted. */
void refused(enum rig_port port, struct frame_spec spec, enum verdict why);
/* Until the limits allow a source its next answer. */
void rest(void);
/* Moves the clock, a step and a turn at a time. */
void pass_ms(uint64_t ms);
/* Both families, one worker and two. */
void each_way(void (*test)(bool v6, unsigned workers));
/* Of all workers. */
uint64_t verdicts(enum verdict v);
uint64_t did(enum action a);
uint64_t would(enum action a);

const struct rte_tcp_hdr *tcp(const struct sent *s);
uint32_t seq(const struct sent *s);
uint32_t ack(const struct sent *s);
/* A segment without data that left there, with these flags and numbers. */
void check_rst(const struct sent *s, enum rig_port port, uint8_t flags, uint32_t want_seq, uint32_t want_ack);

/* --- a conversation --- */

struct talk {
	bool v6;
	uint8_t proto;
	unsigned client;
	struct ipaddr snat, backend; /* as the backend's side saw them */
	uint16_t snat_port_be;
};

struct frame_spec from_client(const struct talk *t, uint8_t flags, uint32_t seq, uint32_t ack);
struct frame_spec from_backend(const struct talk *t, uint8_t flags, uint32_t seq, uint32_t ack);
struct frame_spec with_payload(struct frame_spec spec, uint16_t len);
/* Takes the backend's side from a packet on its way there. */
void learn(struct talk *t, const struct sent *s);
/* The first packet of a flow. */
struct talk begin(uint8_t proto, bool v6, unsigned client);
/* A whole handshake. */
struct talk establish(bool v6, unsigned client);
uint32_t n_flows(void);
/* The state of the first worker's only flow. */
enum flow_state only_state(bool v6);

/* --- ICMP errors --- */

/* An error of type and code from `from` about the frame that it saw, to the sender of that; returns its length. */
size_t make_error(uint8_t *out, const uint8_t *about, struct ipaddr from, uint8_t type, uint8_t code, uint32_t word);
/* The error that left quotes `about` as its sender sent it, and comes from whom that was sent to. */
void check_error(const struct sent *s, enum rig_port port, const struct frame_spec *about);
