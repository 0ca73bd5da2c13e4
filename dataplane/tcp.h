/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * TCP state of a flow as its packets show it (RFC 9293 3.3.2, seen from the middle). What lies outside of any window
 * changes nothing here and goes on: an endpoint judges its packets better than the middle can. Dropped are RSTs that
 * their receiver would not take either, and answers to the gateway's own probes.
 */
#pragma once

#include "core.h"

/*
 * A packet of a known TCP flow. Updates state, timeout and last_ms, and the backend's counters. The packet may end
 * here: it then has its verdict.
 */
void tcp_track(struct worker *w, struct item *it, const struct policy *policy);
/* Notes the sequence numbers of the client's SYN that made the flow. */
void tcp_begin(struct worker *w, const struct item *it);
/* True if the client's SYN of that number was sent to the backend, as far as that is remembered: the first and last. */
bool tcp_is_syn(const struct worker *w, flow_ref ref, uint32_t isn);
/* True if this packet is a SYN that begins a new life of a four-tuple whose old flow is over. */
bool tcp_is_reborn(const struct worker *w, const struct item *it);

/*
 * What the sender of that direction has sent, host order: up to the furthest number that came here, unless that is
 * beyond what its receiver said that it takes, and so was forged or damaged; then what was acknowledged.
 */
uint32_t tcp_end(const struct worker *w, flow_ref ref);
/* The receiver has not acknowledged all of that. */
bool tcp_has_unacknowledged(const struct worker *w, flow_ref ref);

/* The timeouts of the flow's service, or the defaults if the slot has another owner by now. */
const struct policy_timeouts *flow_timeouts(const struct policy *policy, const struct flow_track *track);
/* What a flow of TCP in that state may idle, cures aside; of UDP: udp.h. */
uint32_t flow_state_timeout_ms(const struct policy_timeouts *timeouts, enum flow_state state);

/* Puts the flow into a state with its timeout and moves its timer if that became shorter. */
void flow_set_state(struct worker *w, flow_ref ref, enum flow_state state, const struct policy *policy);
