/* SPDX-License-Identifier: BSD-3-Clause */
/* What still comes for SNAT tuples that belong to no flow: ghosts and probes. */
#pragma once

#include "core.h"
#include "icmp.h"

/* Keeps the tuple, its SNAT port and its backend's slot; of a full ring the oldest gives way. */
void stray_keep(struct worker *w, const struct tuple *tuple);
/* Lets go of those whose time is over. Returns how many could not be looked at in this loop, or 0. */
unsigned stray_expire(struct worker *w);

/* A TCP packet to SNAT address `snat` that belongs to no flow: its verdict, or VERDICT_NONE if to no tuple either. */
enum verdict stray_packet(struct worker *w, const struct item *it, unsigned snat);
/* The same for an ICMP error about a packet of no flow. `refusal`: it says that its destination cannot be reached. */
enum verdict stray_quoted(struct worker *w, const struct icmp_quote *q, bool refusal);

/*
 * In the middle of a burst a flow was given to another backend: what else came from the one before, and was found to be
 * of the flow's direction `down` then, gets its verdict.
 */
void stray_settle(struct worker *w, flow_ref down);
