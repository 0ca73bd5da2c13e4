/* SPDX-License-Identifier: BSD-3-Clause */
#include "lookup.h"
#include "memory.h"
#include "outcome_worker.h"

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
	uint32_t client_sets, cells, ended;
};

static struct outcome_sizes sizes(const struct dataplane_config *config)
{
	return (struct outcome_sizes){
		.client_sets = share(config->n_clients / CLIENT_WAYS, config->n_workers, 1),
		.cells = share(SECONDS_CELLS, config->n_workers, CELLS_MIN),
		.ended = share(ENDED_FLOWS, config->n_workers, 1),
	};
}

uint64_t outcomes_bytes(const struct dataplane_config *config)
{
	struct outcome_sizes s = sizes(config);

	return sizeof(struct outcomes) + client_table_bytes(s.client_sets) + seconds_table_bytes(s.cells) +
	       ended_ring_bytes(s.ended);
}

struct outcomes *outcomes_create(const struct dataplane_config *config)
{
	struct outcomes *o = memory_alloc(sizeof(*o));
	struct outcome_sizes s = sizes(config);
	int err;

	if (!o)
		return NULL;
	err = client_table_init(&o->clients, s.client_sets, config->secret);
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
	client_table_fini(&o->clients);
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
	client_note(&w->outcomes->clients, key, client, news, now_cs(w));
	seconds_note(&w->outcomes->seconds, client, news->service_slot, news->reason, w->now_ns / 1000000000);
}

void outcome_note(struct worker *w, const struct ipaddr *client, uint32_t service_slot, uint32_t backend_slot,
		  outcome_reason reason)
{
	struct client_key key = client_key(&w->outcomes->clients, client);

	note(w, &key, client, &(struct client_news){reason, outcome_class(reason), service_slot, backend_slot});
}

static void note_flow(struct worker *w, flow_ref ref, outcome_reason reason, enum outcome_class class)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	struct client_key key;
	struct flow_addrs addrs;

	flow_addrs(&w->flows, ref & ~UINT32_C(1), &addrs);
	key = client_key(&w->outcomes->clients, &addrs.client);
	note(w, &key, &addrs.client, &(struct client_news){reason, class, track->service_slot, track->backend_slot});
}

void outcome_flow(struct worker *w, flow_ref ref, outcome_reason reason)
{
	note_flow(w, ref, reason, outcome_class(reason));
}

bool outcome_action_due(struct worker *w, flow_ref ref, enum action action)
{
	enum cure_mode mode = flow_mode(flow_track(&w->flows, ref), action_info[action].cure);
	bool due = action_due(w, mode, action);

	if (mode != CURE_OFF)
		outcome_flow(w, ref, due ? OUTCOME_ACTION(action) : OUTCOME_WOULD(action));
	return due;
}

/* An attempt that nobody answered is in no log: a flood of such must not push out what is. */
void outcome_ended(struct worker *w, flow_ref ref)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	enum flow_state state = flow_half(&w->flows, ref)->state;
	uint32_t lived_cs = ((uint32_t)w->run_ms - flow_cold(&w->flows, ref)->born_ms) / 10;
	struct flow_addrs addrs;

	if (state == FLOW_SYN_SENT)
		return;
	flow_addrs(&w->flows, ref & ~UINT32_C(1), &addrs);
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
					       .state = state,
				       });
}

/* --- packets --- */

/*
 * A client is whoever sends to a listener. A RST of no flow is no attempt; what could not be parsed has no ports.
 */
static struct outcome_subject sender(const struct worker *w, const struct burst *b, const struct item *it)
{
	struct outcome_subject s = {.kind = SUBJECT_NOBODY};
	const struct policy_listener *listener;
	struct ipaddr dst;

	if (it->p.dport_be == 0 || it->p.kind > PACKET_UDP || it->p.tcp_flags & TCP_RST)
		return s;
	dst = packet_dst(it->frame, &it->p);
	listener = listener_lookup(b->policy->listeners, &dst, it->p.dport_be, it->p.proto);
	if (!listener)
		return s;
	s.kind = SUBJECT_CLIENT;
	s.client = packet_src(it->frame, &it->p);
	s.service_slot = listener->service_slot;
	s.key = client_key(&w->outcomes->clients, &s.client);
	client_prefetch(&w->outcomes->clients, &s.key);
	return s;
}

struct outcome_subject outcome_subject(const struct worker *w, const struct burst *b, const struct item *it)
{
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
		note_flow(w, subject->ref, OUTCOME_VERDICT(verdict), OUTCOME_OTHER);
	else if (subject->kind == SUBJECT_CLIENT)
		note(w, &subject->key, &subject->client,
		     &(struct client_news){OUTCOME_VERDICT(verdict), outcome_class(OUTCOME_VERDICT(verdict)),
					   subject->service_slot, SLOT_NONE});
}
