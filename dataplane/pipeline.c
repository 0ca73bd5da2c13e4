/* SPDX-License-Identifier: BSD-3-Clause */
#include "pipeline.h"
#include "admit.h"
#include "answer.h"
#include "fragment.h"
#include "grace.h"
#include "icmp_flow.h"
#include "lookup.h"
#include "outcome_worker.h"
#include "place.h"
#include "rewrite.h"
#include "signals.h"
#include "stage.h"
#include "steer.h"
#include "tcp.h"
#include "tx.h"

#include <rte_mbuf.h>

#define PREFETCH_AHEAD (BURST_MAX / 2) /* packets between asking for a bucket and looking into it */

/* --- parse --- */

static inline void parse_item(const struct worker *w, struct item *it)
{
	it->frame = rte_pktmbuf_mtod(it->m, uint8_t *);
	it->ref = FLOW_REF_NONE;
	it->hash = 0;
	it->verdict = parse(it->frame, it->m->data_len, &it->p);
	if (it->verdict != VERDICT_NONE)
		return;
	if (it->p.flags & PACKET_FRAGMENT)
		it->verdict = VERDICT_drop_fragment;
	if (it->verdict != VERDICT_NONE || it->p.kind > PACKET_UDP)
		return;
	it->hash = item_hash(w, it);
	flow_prefetch(&w->flows, it->hash);
}

/* The bucket should be there by now; the entry will be when flow_burst() looks at it. */
static inline void find_candidate(const struct worker *w, struct item *it)
{
	if (it->verdict == VERDICT_NONE && it->p.kind <= PACKET_UDP)
		it->ref = flow_candidate(&w->flows, it->hash);
}

/* Memory works while we do: entries of the first half of a burst come while the second half is parsed. */
static void parse_burst(const struct worker *w, struct burst *b)
{
	unsigned half = b->n < PREFETCH_AHEAD ? b->n : PREFETCH_AHEAD;

	for (unsigned i = 0; i < b->n; i++) {
		parse_item(w, &b->items[i]);
		if (i >= half)
			find_candidate(w, &b->items[i - half]);
	}
	for (unsigned i = b->n - half; i < b->n; i++)
		find_candidate(w, &b->items[i]);
}

/* --- flow --- */

static inline bool is_candidate(const struct worker *w, const struct item *it)
{
	if (it->p.family == 4) {
		struct flow_key4 key = item_key4(it);

		return flow_is4(&w->flows, it->ref, &key, it->p.proto);
	}
	struct flow_key6 key = item_key6(it);

	return flow_is6(&w->flows, it->ref, &key, it->p.proto);
}

/* Returns true if a packet belongs to no flow, or begins one anew. */
static bool flow_burst(struct worker *w, struct burst *b)
{
	bool first = false;

	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (it->verdict != VERDICT_NONE)
			continue;
		if (it->p.kind > PACKET_UDP)
			it->verdict = icmp_receive(w, b, it);
		else if (it->ref == FLOW_REF_NONE || !is_candidate(w, it))
			it->ref = flow_find(w, it);
		first |= it->ref == FLOW_REF_NONE || it->p.tcp_flags & TCP_SYN;
	}
	return first;
}

/* --- track --- */

static void track_udp(struct worker *w, const struct item *it, const struct policy *policy)
{
	struct flow_half *half = flow_half(&w->flows, it->ref);

	half->last_ms = w->run_ms;
	if (half->state == FLOW_UDP_UNREPLIED && flow_ref_dir(it->ref) == DIR_DOWN) {
		count_add(&w->backends[flow_track(&w->flows, it->ref)->backend_slot].connects, 1);
		signals_decide(w, it->ref, SIGNAL_SUCCESS);
		flow_set_state(w, it->ref, FLOW_UDP_REPLIED, policy);
		outcome_flow(w, it->ref, OUTCOME_ATTEMPT(ATTEMPT_connected));
	}
}

static void track_burst(struct worker *w, struct burst *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (it->verdict != VERDICT_NONE)
			continue;
		if (it->p.kind == PACKET_TCP)
			tcp_track(w, it, b->policy);
		else
			track_udp(w, it, b->policy);
	}
}

/* --- out --- */

/* Out of line, so that what is forwarded has the registers. */
static __attribute__((noinline)) void end_otherwise(struct worker *w, struct burst *b, struct item *it,
						    const struct outcome_subject *subject)
{
	if (it->verdict == VERDICT_INSIDE) {
		rte_pktmbuf_free(it->m);
		return;
	}
	if (verdict_info[it->verdict].class == CLASS_ANSWERED)
		answer(w, b, it);
	else if (it->verdict == VERDICT_forwarded_fragments)
		it->verdict = fragment_send(w, it);
	w->ledger.verdicts[it->verdict]++;
	outcome_packet(w, subject, it->verdict);
	if (verdict_info[it->verdict].class == CLASS_ANSWERED)
		tx_put(w, it->out_port, it->m);
	else if (verdict_info[it->verdict].class != CLASS_FORWARDED)
		rte_pktmbuf_free(it->m);
}

/* What memory has to bring for the one is asked for while the others are looked at. */
static void out_others(struct worker *w, struct burst *b, struct item *const *others, unsigned n)
{
	struct outcome_subject subjects[BURST_MAX];

	for (unsigned i = 0; i < n; i++)
		subjects[i] = outcome_subject(w, b, others[i]);
	for (unsigned i = 0; i < n; i++)
		end_otherwise(w, b, others[i], &subjects[i]);
}

static void out_burst(struct worker *w, struct burst *b)
{
	struct item *others[BURST_MAX];
	unsigned forwarded = 0, n_others = 0;

	for (unsigned i = 0; i < b->n; i++) {
		struct item *it = &b->items[i];

		if (__builtin_expect(it->verdict == VERDICT_forwarded, 1)) {
			forwarded++;
			tx_put(w, it->out_port, it->m);
		} else if (it->verdict == VERDICT_handed_over) {
			w->ledger.verdicts[VERDICT_handed_over]++;
		} else {
			others[n_others++] = it;
		}
	}
	if (n_others)
		out_others(w, b, others, n_others);
	w->ledger.verdicts[VERDICT_forwarded] += forwarded;
}

void pipeline_stamp(struct worker *w, struct burst *b)
{
	b->policy = grace_find(w->dp->policy);
	b->fib_gen = fib_generation(w->dp->fib);
	b->fib = fib_view(w->dp->fib);
	b->cells = fib_cells(w->dp->fib);
	b->ports_up = __atomic_load_n(&w->dp->ports_up, __ATOMIC_RELAXED);
	if (b->policy->number < w->policy_number)
		w->policy_regress++;
	w->policy_number = b->policy->number;
}

void pipeline_finish(struct worker *w)
{
	struct burst *b = &w->burst;

	STAGE(track, track_burst(w, b), b->n);
	STAGE(rewrite, rewrite_burst(w, b), b->n);
	STAGE(out, out_burst(w, b), b->n);
}

void pipeline_run(struct worker *w)
{
	struct burst *b = &w->burst;
	bool first;

	pipeline_stamp(w, b);
	w->bursts++;
	if (b->taken_over)
		w->ledger.taken_over += b->n;
	else
		w->ledger.rx += b->n;
	STAGE(parse, parse_burst(w, b), b->n);
	if (w->dp->config.n_workers > 1 && !b->taken_over)
		STAGE(steer, steer_burst(w, b), b->n);
	STAGE(flow, first = flow_burst(w, b), b->n);
	if (first)
		STAGE(admit, admit_burst(w, b), b->n);
	pipeline_finish(w);
}
