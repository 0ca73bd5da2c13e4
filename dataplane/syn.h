/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client's SYN, kept and made again: for another backend, or at the end of a hold. What is made again is what the
 * client sent, but for fast open's option and data, which would be taken twice.
 */
#pragma once

#include "core.h"

/* Addresses and ports as the client sent them. */
struct syn {
	struct ipaddr src, dst; /* of one family */
	uint16_t sport_be, dport_be;
	struct syn_kept kept;
};

/*
 * True if any backend that takes connections at all answers such a SYN: then its silence says something, and so does
 * making the SYN again. Not one that its sender, or who forges it, made so that hosts or routers pass it over: a wrong
 * checksum, IP options, a TTL that may not last, other flags than a SYN has, a tiny MSS, data without fast open, TCP
 * options of those that share a secret (RFC 2385, RFC 5925).
 */
bool syn_is_ordinary(const struct item *it);

/* `it`: a SYN. */
void syn_keep(struct syn_kept *kept, const struct item *it);
/* The SYN that made the flow `ref`. */
void syn_of_flow(const struct flow_table *t, flow_ref ref, struct syn *out);

/*
 * Makes the packet in a new buffer and `it` of it, as if it had just been parsed: it->ref is none, it->hash that of its
 * flow. False if there is no buffer.
 */
bool syn_make(const struct worker *w, const struct syn *syn, struct item *it);
