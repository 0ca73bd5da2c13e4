/* SPDX-License-Identifier: BSD-3-Clause */
/* What is particular to flows of UDP: when they end, and checksums that are none. */
#pragma once

#include "core.h"

/* For how long it may idle in that state, the port that the client sends to being what it is. */
uint32_t udp_timeout_ms(const struct worker *w, flow_ref ref, enum flow_state state,
			const struct policy_timeouts *timeouts);

/* A packet of a flow in FLOW_UDP_UNREPLIED. */
void udp_track_unreplied(struct worker *w, const struct item *it, const struct policy *policy);

/*
 * An item whose packet the parser refused as UDP over IPv6 without checksum, in a policy that allows such to some
 * service: parsed again, and marked.
 */
enum verdict udp_parse_zero(struct item *it);
/* A flow begins that may have such packets, whatever becomes of its service. */
void udp_begin_zero(struct worker *w, struct flow_track *track);
/* Some flow or service may have them. */
bool udp_may_be_zero(const struct worker *w, const struct policy *policy);
/* Of those in the burst whose flows were looked for: they go on if they are of a service that allows it. */
void udp_judge_zero(const struct worker *w, struct burst *b);
