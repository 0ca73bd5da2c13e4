/* SPDX-License-Identifier: BSD-3-Clause */
#include "fairness.h"
#include "lookup.h"
#include "memory.h"
#include "outcome_worker.h"
#include "retry.h"

#include <errno.h>

#define ENDED_FLOWS 65536 /* all workers together; a minute at a thousand connections a second */
#define CELLS_MIN   64

/* --- life --- */

/* The largest power of two that n workers may have each, at least `min`. */
static uint32_t share(uint32_t total, unsigned n_workers, uint32_t min)
{
	uint32_t n = min;

	while ((uint64_t)2 * n * n_workers <= total)
		n *= 2;
	return n;
}

struct outcome_sizes {
	uint32_t record_sets, cells, ended;
};

static struct outcome_sizes sizes(const struct dataplane_config *config)
{
	return (struct outcome_sizes){
		.record_sets = share(config->n_clients / RECORD_WAYS, config->n_workers, 1),
		.cells = share(SECONDS_CELLS, config->n_workers, CELLS_MIN),
		.ended = share(ENDED_FLOWS, config->n_workers, 1),
	};
}

uint64_t outcomes_bytes(const struct dataplane_config *config)
{
	struct outcome_sizes s = sizes(config);

	return sizeof(struct outcomes) + record_table_bytes(s.record_sets) + seconds_table_bytes(s.cells) +
	       ended_ring_bytes(s.ended);
}

struct outcomes *outcomes_create(const struct dataplane_config *config)
{
	struct outcomes *o = memory_alloc(sizeof(*o));
	struct outcome_sizes s = sizes(config);
	int err;

	if (!o)
		return NULL;
	err = record_table_init(&o->clients, s.record_sets, config->secret);
	if (!err)
		err = seconds_table_init(&o->seconds, s.cells, config->secret);
	if (!err)
		err = ended_ring_init(&o->ended, s.ended);
	if (!err)
		return o;
	outcomes_destroy(o);
	errno = -err;
	return NULL;
}

void outcomes_destroy(struct outcomes *o)
{
	if (!o)
		return;
	record_table_fini(&o->clients);
	seconds_table_fini(&o->seconds);
	ended_ring_fini(&o->ended);
	memory_free(o);
}

/* --- noting --- */

static uint32_t now_cs(const struct worker *w)
{
	return w->now_ns / 10000000;
}

static void note(struct worker *w, const struct client_key *key, const struct ipaddr *client,
		 const struct client_news *news)
{
	record_note(&w->outcomes->clients, key, client, news, now_cs(w));
	seconds_note(&w->outcomes->seconds, client, news->service_slot, news->reason, w->now_ns / 1000000000);
}

void outcome_note(struct worker *w, const struct ipaddr *client, uint32_t service_slot, uint32_t backend_slot,
		  outcome_reason reason)
{
	struct client_key key = record_key(&w->outcomes->clients, client);

	note(w, &key, client, &(struct client_news){reason, outcome_class(reason), service_slot, backend_slot});
}

static void note_flow(struct worker *w, flow_ref ref, uint32_t backend_slot, outcome_reason reason,
		      enum outcome_class class)
{
	uint32_t service_slot = flow_track(&w->flows, ref)->service_slot;
	struct client_key key;
	struct flow_addrs addrs;

	flow_addrs(&w->flows, flow_ref_up(ref), &addrs);
	/* UDP ends without a word. */
	if (class == OUTCOME_RESET && addrs.proto != PROTO_TCP)
		class = OUTCOME_OTHER;
	key = record_key(&w->outcomes->clients, &addrs.client);
	note(w, &key, &addrs.client,
	     &(struct client_news){reason, class, service_slot, backend_slot, addrs.proto == PROTO_UDP});
}

/* The end of an attempt, told to who tells retries apart, and shares out. */
static void note_end(struct worker *w, flow_ref ref, enum outcome_class class)
{
	if (class == OUTCOME_CONNECTED) {
		retry_served(w, ref);
		fair_connected(w, ref);
	} else if (class == OUTCOME_REFUSED || class == OUTCOME_SILENT)
		retry_failed(w, ref);
}

void outcome_flow(struct worker *w, flow_ref ref, outcome_reason reason)
{
	if (reason >= OUTCOME_ATTEMPT(0))
		note_end(w, ref, outcome_class(reason));
	note_flow(w, ref, flow_track(&w->flows, ref)->backend_slot, reason, outcome_class(reason));
}

bool outcome_action_due_at(struct worker *w, flow_ref ref, enum cure_mode mode, enum action action,
			   uint32_t backend_slot)
{
	bool due = action_due(w, mode, action);
	outcome_reason reason = due ? OUTCOME_ACTION(action) : OUTCOME_WOULD(action);

	if (mode != CURE_OFF)
		note_flow(w, ref, backend_slot, reason, outcome_class(reason));
	return due;
}

bool outcome_action_due(struct worker *w, flow_ref ref, enum action action)
{
	const struct flow_track *track = flow_track(&w->flows, ref);

	return outcome_action_due_at(w, ref, flow_mode(track, action_info[action].cure), action, track->backend_slot);
}

static bool is_refusal(enum action action)
{
	enum outcome_class class = outcome_class(OUTCOME_ACTION(action));

	return class == OUTCOME_REFUSED || class == OUTCOME_SILENT;
}

bool outcome_attempt_due(struct worker *w, enum cure_mode mode, const struct ipaddr *client, uint32_t service_slot,
			 uint32_t backend_slot, enum action action)
{
	bool due = action_due(w, mode, action);

	if (mode == CURE_SHADOW)
		outcome_note(w, client, service_slot, backend_slot, OUTCOME_WOULD(action));
	else if (due && !is_refusal(action))
		outcome_note(w, client, service_slot, backend_slot, OUTCOME_ACTION(action));
	return due;
}

bool outcome_connected_lately(const struct worker *w, const struct ipaddr *client, bool udp, uint32_t within_ms)
{
	struct client_key key = record_key(&w->outcomes->clients, client);

	/* The tables are alike; its own first. */
	for (unsigned i = 0, at = w->index; i < w->dp->config.n_workers; i++) {
		if (record_connected_lately(&w->dp->workers[at]->outcomes->clients, &key, udp, now_cs(w),
					    within_ms / 10))
			return true;
		at = at + 1 == w->dp->config.n_workers ? 0 : at + 1;
	}
	return false;
}

static void add_ended(struct worker *w, flow_ref ref)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	uint32_t lived_cs = flow_age_ms(&w->flows, ref, w->now_ns) / 10;
	struct flow_addrs addrs;

	flow_addrs(&w->flows, flow_ref_up(ref), &addrs);
	ended_add(&w->outcomes->ended, &(struct ended_flow){
					       .client = addrs.client,
					       .born_cs = now_cs(w) - lived_cs,
					       .ended_cs = now_cs(w),
					       .service_slot = track->service_slot,
					       .backend_slot = track->backend_slot,
					       .client_port_be = addrs.client_port_be,
					       .snat_port_be = track->snat_port_be,
					       .snat_index = track->snat_index,
					       .proto = addrs.proto,
					       .state = flow_half(&w->flows, ref)->state,
				       });
}

/* An attempt that nobody answered is in no log: a flood of such must not push out what is. */
void outcome_ended(struct worker *w, flow_ref ref)
{
	if (flow_half(&w->flows, ref)->state != FLOW_SYN_SENT)
		add_ended(w, ref);
}

/* Few, as a breaker ends this; and who looks at the backend sees what still comes to that port. */
void outcome_moved(struct worker *w, flow_ref ref)
{
	add_ended(w, ref);
}

/* --- packets --- */

/* A client is whoever sends to a listener; what could not be parsed has no ports. */
static struct outcome_subject sender(const struct worker *w, const struct burst *b, const struct item *it)
{
	struct outcome_subject s = {.kind = SUBJECT_NOBODY};
	const struct policy_listener *listener;
	struct ipaddr dst;

	if (it->p.dport_be == 0 || it->p.kind > PACKET_UDP)
		return s;
	dst = packet_dst(it->frame, &it->p);
	listener = listener_lookup(b->policy->listeners, &dst, it->p.dport_be, it->p.proto);
	if (!listener)
		return s;
	s.kind = SUBJECT_CLIENT;
	s.client = packet_src(it->frame, &it->p);
	s.service_slot = listener->service_slot;
	s.key = record_key(&w->outcomes->clients, &s.client);
	record_prefetch(&w->outcomes->clients, &s.key);
	return s;
}

/*
 * A RST is no attempt, and what becomes of one is told by the cure that dropped it. What was absorbed was for the
 * gateway itself. What is to be cut may still be dropped.
 */
static bool says_something(const struct item *it)
{
	enum verdict v = it->verdict;

	return (verdict_info[v].cause != CAUSE_NONE || v == VERDICT_forwarded_fragments) &&
	       verdict_info[v].class != CLASS_ABSORBED &&
	       !(it->p.dport_be && it->p.kind == PACKET_TCP && it->p.tcp_flags & TCP_RST);
}

struct outcome_subject outcome_subject(const struct worker *w, const struct burst *b, const struct item *it)
{
	if (it->verdict == VERDICT_INSIDE || !says_something(it))
		return (struct outcome_subject){.kind = SUBJECT_NOBODY};
	if (it->ref != FLOW_REF_NONE)
		return (struct outcome_subject){.kind = SUBJECT_FLOW, .ref = it->ref};
	return sender(w, b, it);
}

/* What a flow's packet met is no attempt's end: that is told when the flow's attempt ends. */
void outcome_packet(struct worker *w, const struct outcome_subject *subject, enum verdict verdict)
{
	if (verdict_info[verdict].cause == CAUSE_NONE)
		return;
	if (subject->kind == SUBJECT_FLOW)
		note_flow(w, subject->ref, flow_track(&w->flows, subject->ref)->backend_slot, OUTCOME_VERDICT(verdict),
			  OUTCOME_OTHER);
	else if (subject->kind == SUBJECT_CLIENT)
		note(w, &subject->key, &subject->client,
		     &(struct client_news){OUTCOME_VERDICT(verdict), outcome_class(OUTCOME_VERDICT(verdict)),
					   subject->service_slot, SLOT_NONE});
}
