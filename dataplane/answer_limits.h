/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limits on what the gateway answers in its own name (RST, ICMP), so that it is no reflector and a flood of strays
 * costs it no transmit capacity. One instance per worker, which alone uses it: each has its share of every rate, so
 * that all of them together keep to the figures below whatever worker a source's packets come to.
 *
 *   RST to a stray           10/s per source,       1 000/s in all; for 60 s after the start 20 000/s in all, so that
 *                                                   the flows of the last life learn at once
 *   RST to a refused SYN      2/s per client,       9 000/s in all: with the strays, 10 000 RST/s of the whole gateway
 *   ICMP                     10/s per destination,  1 000/s in all
 *   echo replies                                      100/s in all
 *
 * A source is an IPv4 address or an IPv6 /64. One source's answers are spaced evenly, without a burst: a second never
 * holds more than the rate. Sources live in tables of 4096 cells of 4 ways behind a keyed hash; of a full set the one
 * that was idle longest makes room. Forgetting a source early gives it an answer too many, never more than the rate
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
bool answer_limits_icmp(struct answer_limits *limits, const struct ipaddr *destination, uint64_t now_ns);
bool answer_limits_echo(struct answer_limits *limits, uint64_t now_ns);
