/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sequence numbers and timestamps of a connection's upstream side. Clients that share a SNAT port have clocks of their
 * own; a backend in TIME_WAIT takes the next SYN of that port only if its numbers lie ahead of those of the one before
 * (RFC 9293 3.6.1, RFC 6191). So the upstream side has numbers of the gateway's clock: a constant is added to what the
 * client numbers, and taken off again wherever the backend speaks of that.
 *
 * All that the gateway keeps, compares and makes is in the numbers that the client has (and the backend's own, which
 * nobody changes). What comes from the backend is put into those as it is read, what goes there is shifted as it
 * leaves: rewrite.c, and segment.c for what is made.
 */
#pragma once

#include "core.h"

/* The numbers of a SYN, host order. */
struct syn_numbers {
	uint32_t isn, tsval;
	bool timestamps;
};

/* Those of the flow's kept SYN as it leaves. */
struct syn_numbers numbers_of_syn(const struct worker *w, flow_ref up);

/*
 * Chooses the shifts of a flow whose SYN was just kept. `before`: of the SYN that left from this tuple before, which
 * the new ones lie ahead of; NULL: none of this flow did.
 */
void numbers_begin(struct worker *w, flow_ref up, const struct syn_numbers *before);
/* The client's SYN came once more, and was kept: it may have timestamps that the first one had not. */
void numbers_late_timestamps(struct worker *w, flow_ref up);

/* An ISN of the gateway's own towards a backend; `down`: the key of its answers. */
uint32_t numbers_isn(const struct worker *w, const void *down, size_t len);

/* What that direction's sender acknowledges, in the numbers of who sent it. */
static inline uint32_t numbers_ack(const struct flow_half *half, enum flow_dir dir, uint32_t ack)
{
	return ack + (half->seq_shift & -(uint32_t)dir);
}
