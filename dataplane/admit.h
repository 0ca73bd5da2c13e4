/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What belongs to no flow: first packets are admitted, given a backend and placed; strays are refused by name.
 */
#pragma once

#include "storm.h"

void admit_burst(struct worker *w, struct burst *b);

/*
 * Whether the table has room for an attempt, or it is refused: asked before anything is taken for it, a place among
 * those that are held included, and again when its hold is over. VERDICT_NONE: it has.
 */
enum verdict admit_room(struct worker *w, const struct policy_service *svc, const struct item *it);

/*
 * What comes after that and the caps for an attempt that they let through: a backend, a place, and only then what the
 * buckets give. VERDICT_NONE: it->ref is its flow.
 */
enum verdict admit_serve(struct worker *w, const struct policy *policy, const struct policy_service *svc,
			 struct item *it, const struct storm_caps *caps);

/* An attempt cannot be served, and that is counted. Its client hears it as often as the limits on answers allow. */
enum verdict admit_refuse(struct worker *w, uint32_t service_slot, const struct item *it, enum verdict for_tcp,
			  enum verdict for_udp);

/*
 * A client's SYN with another number, or after the end, whose flow is there: an attempt as any other, but that it is
 * not held, and has its place. VERDICT_NONE: it has been charged for.
 */
enum verdict admit_again(struct worker *w, const struct policy *policy, struct item *it);
