/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who goes first when not all can: while backends of a service have all the work that they bear, those who wait are
 * let through by rank, and those of the last ranks find the pool of holds full first. Nobody is refused for his rank as
 * long as others leave something.
 *
 *   known            its client and its network are within their fair shares, and it was served in the last minute
 *   stranger         the same of one that has not, as far as is known
 *   client beyond    its client is beyond its share, its network is not
 *   network beyond   its network is
 *
 * A fair share is twice what the service's backends answer, divided by the number of clients, or networks, that
 * connected within the last second, and at least one a second; decide says so ten times a second, and only while
 * somebody must go without. A SYN alone makes nobody one of those: in the names of however many sources a flood of them
 * comes, nobody's share is the less. What was let through at all is taken, also what found room without waiting: so
 * whoever takes what others leave is the first to make way, until it has taken less than its share for a while: it owes
 * a second's worth at the most. From a client's share a SYN takes, lest there be more in its name than it may send;
 * from a network's a SYN of a known client within its share, and of others who connects, lest SYNs in the names of
 * addresses where nobody is, or of a single one, be all that it has. Where all are within their shares, or there are
 * none, the known go first.
 *
 * Else a known client that asks for all that is borne would be the only one that connects, and all of it its share. So
 * a stranger that waits is next after eight that went, no sooner than a tenth of a second after the one before, at each
 * worker and family; and one may always wait. Who of them is there connects, counts, and has a share, and the others
 * like him with him; where all of them are made up, that is all that they take.
 *
 * Nothing but an admitted flow makes an entry (client_buckets.h), so what a flood of SYNs from everywhere leaves behind
 * is what it was given. Who is not known there is within its share.
 */
#pragma once

#include "core.h"

struct fair_shares {
	struct {
		struct gcra_rate rate; /* its interval 0: not shared out */
		struct client_cell cell;
		uint64_t tag;
	} at[FAIR_LEVELS];
	uint32_t queue; /* of the service and the family: hold.h */
};

struct fair_shares fair_find(const struct worker *w, const struct slot_ref *service, const struct ipaddr *client);
enum hold_rank fair_rank(const struct worker *w, const struct fair_shares *shares, const struct slot_ref *service,
			 const struct ipaddr *client);
/* The attempt has its place: that flow; in shadow of a hold FLOW_REF_NONE. */
void fair_take(struct worker *w, const struct fair_shares *shares, flow_ref up);
/* Whether one of the strangers that wait there is next. */
bool fair_is_strangers_turn(const struct worker *w, uint32_t queue);
void fair_stranger_went(struct worker *w, uint32_t queue);
/* Its client has finished the handshake. */
void fair_connected(struct worker *w, flow_ref ref);
