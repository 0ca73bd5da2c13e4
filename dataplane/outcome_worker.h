/* SPDX-License-Identifier: BSD-3-Clause */
/* The worker's side of outcome.h: who says what became of whom. Only slow paths come here. */
#pragma once

#include "action.h"
#include "core.h"
#include "outcome.h"
#include "outcome_clients.h"
#include "outcome_ended.h"
#include "outcome_seconds.h"

struct outcomes {
	struct record_table clients;
	struct seconds_table seconds;
	struct ended_ring ended;
};

uint64_t outcomes_bytes(const struct dataplane_config *config);
/* NULL with errno set. */
struct outcomes *outcomes_create(const struct dataplane_config *config);
void outcomes_destroy(struct outcomes *o);

/* An outcome of a client that has no flow. */
void outcome_note(struct worker *w, const struct ipaddr *client, uint32_t service_slot, uint32_t backend_slot,
		  outcome_reason reason);
/* An outcome of a flow, noted for its client: how its attempt ended, or what a cure did to it. */
void outcome_flow(struct worker *w, flow_ref ref, outcome_reason reason);
/* action_due() for a flow, in its own mode; what is done, or would be, is an outcome of it. */
bool outcome_action_due(struct worker *w, flow_ref ref, enum action action);
/* The same in the mode given, about the backend given: the flow may have another one by now. */
bool outcome_action_due_at(struct worker *w, flow_ref ref, enum cure_mode mode, enum action action,
			   uint32_t backend_slot);
/* action_due() for an attempt that has no flow. A refusal that is done is noted as its packet's verdict, not here. */
bool outcome_attempt_due(struct worker *w, enum cure_mode mode, const struct ipaddr *client, uint32_t service_slot,
			 uint32_t backend_slot, enum action action);
/* One of the client's connections was made within that time, or, for UDP, a query answered, at any worker. */
bool outcome_connected_lately(const struct worker *w, const struct ipaddr *client, bool udp, uint32_t within_ms);
/* The flow is about to end: who it was stays known for a while. */
void outcome_ended(struct worker *w, flow_ref ref);
/* The flow is about to get another backend: it leaves the SNAT port that it had, with its SYN unanswered. */
void outcome_moved(struct worker *w, flow_ref ref);

/* --- packets that end otherwise than forwarded --- */

/*
 * Whom a packet's verdict is an outcome of, taken down before the packet is overwritten by its answer; the client's
 * record is on its way from memory then.
 */
struct outcome_subject {
	enum {
		SUBJECT_NOBODY,
		SUBJECT_CLIENT, /* of a service, without a flow */
		SUBJECT_FLOW,
	} kind;
	flow_ref ref;
	uint32_t service_slot;
	struct ipaddr client;
	struct client_key key;
};

struct outcome_subject outcome_subject(const struct worker *w, const struct burst *b, const struct item *it);
void outcome_packet(struct worker *w, const struct outcome_subject *subject, enum verdict verdict);
