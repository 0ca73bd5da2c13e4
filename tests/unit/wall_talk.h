/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of the wall share: SYNs to backends that fail, and what is known of them then. */
#pragma once

#include "talk.h"

#include "streak.h"

#define N_BACKENDS 3
#define DAY_NS     86400000000000ull

uint32_t slot_of(bool v6, const struct ipaddr *backend);
uint64_t *word_of(bool v6, const struct ipaddr *backend);
struct streak streak_of(bool v6, const struct ipaddr *backend);
struct backend_report report_of(bool v6, const struct ipaddr *backend);
void set_breaker(bool v6, unsigned backend, enum breaker_state st);
uint64_t made(enum made m);
uint32_t n_tuples(void);
/* How many notes about backends there are, the last of them about *slot; all are taken. */
unsigned take_notes(uint32_t *slot);
void begin_rig(unsigned workers, unsigned n_backends);
/* The same on a clock that begins there; 0: one second. */
void begin_rig_at(uint64_t now_ns, unsigned workers, unsigned n_backends);
/* A client's SYN with those TCP options, all checksums right; returns its length. */
size_t make_syn(uint8_t *frame, const struct talk *t, uint8_t flags, const uint8_t *options, unsigned len);
void fix_tcp(uint8_t *frame, bool v6);
struct frame_spec refusal(const struct talk *t);
struct frame_spec syn_ack(const struct talk *t);
/* The client's SYN, made again, on its way to another backend than `t` had. */
struct talk moved(const struct talk *t, const struct sent *s);
/* What the next frame is. */
struct talk take_moved(const struct talk *t);
/* `t`'s backend refuses; the SYN goes elsewhere, the client hears nothing. */
struct talk refuse(const struct talk *t);
/* From SYN-ACK to data, both ways. */
void finish(const struct talk *t);
/* Enough handshakes with each backend for the shortest timeout. */
unsigned warm_up(bool v6, unsigned client);
/* Until the next frame leaves: how long that takes. */
uint64_t ms_until_sent(struct sent *s, uint64_t max_ms);
/* A client whose first choice is that backend, and which has no flow yet. */
struct talk begin_to(const struct ipaddr *backend, bool v6, unsigned *client);
void order_probe(bool v6, unsigned worker, unsigned backend);
