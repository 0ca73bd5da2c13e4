/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limits on what the gateway answers in its own name (RST, ICMP), so that it is no reflector and a flood of strays
 * costs it no transmit capacity. One instance per worker, which alone uses it: each has its share of every rate, so
 * that all of them together keep to the figures below whatever worker a source's packets come to.
 *
 *   RST to a stray           10/s per source,       1 000/s in all; for 60 s after the start 20 000/s in all, so that
 *                                                   the flows of the last life learn at once
 *   RST to a refused SYN      2/s per client,       9 000/s in all: with the strays, 10 000 RST/s of the whole gateway
 *   RST to backends about                           of the same 9 000/s, and before them: a refusal may be silent.
 *   SYNs of the gateway's                           1 125 at once
 *   RST to ends of flows                            of the same 9 000/s, and before either: 1 350 at once. That is all
 *                                                   of them, also those that are said again: no RST leaves the gateway
 *                                                   that is not in this table
 *   ICMP                     10/s per destination, 10 at once; 1 000/s in all, 1 000 at once
 *   "packet too big"         the same buckets, and 1/s per flow, 3 at once
 *   echo replies                                      100/s in all
 *
 * A source is an IPv4 address or an IPv6 /64. The RSTs to one source are spaced evenly, without a burst: a second never
 * holds more than the rate. Sources and flows live in tables of 4096 cells of 4 ways behind a keyed hash; of a full set
 * the one that was idle longest makes room. Forgetting one early gives it an answer too many, never more than the rate
 * in all.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct answer_limits;

/* `now_ns`: of the gateway's start. `secret` must outlive it. NULL with errno set (EINVAL: no workers). */
struct answer_limits *answer_limits_create(unsigned n_workers, const uint8_t *secret, uint64_t now_ns);
void answer_limits_destroy(struct answer_limits *limits);
/* Of one instance, for the memory plan. */
size_t answer_limits_bytes(void);

/* True: answer, and that is counted. False: stay silent; nothing changed. */
bool answer_limits_stray(struct answer_limits *limits, const struct ipaddr *source, uint64_t now_ns);
bool answer_limits_refused(struct answer_limits *limits, const struct ipaddr *client, uint64_t now_ns);
/* The same limits again for what is only counted: a shadow must not use up what is really sent. */
bool answer_limits_would_refuse(struct answer_limits *limits, const struct ipaddr *client, uint64_t now_ns);
bool answer_limits_icmp(struct answer_limits *limits, const struct ipaddr *destination, uint64_t now_ns);
/* `flow_hash`: keyed, of a flow and a direction that is this worker's alone. */
bool answer_limits_ptb(struct answer_limits *limits, uint64_t flow_hash, const struct ipaddr *destination,
		       uint64_t now_ns);
/* To the ends of a flow that ends on purpose: `n_rsts`, all or none. False: later. */
bool answer_limits_ends(struct answer_limits *limits, unsigned n_rsts, uint64_t now_ns);
/* To a backend that waits for what will not come. */
bool answer_limits_backend(struct answer_limits *limits, uint64_t now_ns);
bool answer_limits_echo(struct answer_limits *limits, uint64_t now_ns);
