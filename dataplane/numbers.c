/* SPDX-License-Identifier: BSD-3-Clause */
#include "numbers.h"
#include "hash.h"
#include "tcp_options.h"

#define ISN_TICK_SHIFT 6 /* 64 ns: 2^31 of them are 137 s, which is longer than any TIME_WAIT */

static_assert(DIR_UP == 0 && DIR_DOWN == 1, "numbers_ack() makes a mask of it");

/* Of RFC 6528. Its secret is another than the tables': backends see what comes of it. */
uint32_t numbers_isn(const struct worker *w, uint64_t down_hash)
{
	return (uint32_t)hash_keyed(&down_hash, sizeof(down_hash), w->dp->isn_secret) +
	       (uint32_t)(w->now_ns >> ISN_TICK_SHIFT);
}

static struct tcp_options options_of(const struct syn_kept *syn)
{
	return tcp_options_read(syn->options, syn->options_len);
}

struct syn_numbers numbers_of_syn(const struct worker *w, flow_ref up)
{
	const struct syn_kept *syn = flow_syn(&w->flows, up);
	const struct flow_half *half = flow_half(&w->flows, up);

	return (struct syn_numbers){syn->isn + half->seq_shift, options_of(syn).tsval + half->ts_shift};
}

static void put_shifts(struct worker *w, flow_ref up, uint32_t seq_shift, uint32_t ts_shift)
{
	struct flow_half *client = flow_half(&w->flows, up), *backend = flow_half(&w->flows, flow_ref_other(up));

	client->seq_shift = seq_shift;
	client->ts_shift = ts_shift;
	backend->seq_shift = -seq_shift;
	backend->ts_shift = -ts_shift;
}

static uint32_t ahead_of(uint32_t number, const uint32_t *before)
{
	return before && (int32_t)(number - *before) <= 0 ? *before + 1 : number;
}

void numbers_begin(struct worker *w, flow_ref up, const struct syn_numbers *before)
{
	const struct policy_service *svc = policy_service_at(w->burst.policy, flow_track(&w->flows, up)->service_slot);
	const struct syn_kept *syn = flow_syn(&w->flows, up);
	struct tcp_options options = options_of(syn);
	uint64_t down_hash = flow_cold(&w->flows, up)->hash[DIR_DOWN];
	uint32_t seq_shift = 0, ts_shift = 0;

	if (!svc || svc->reuse.isn)
		seq_shift = ahead_of(numbers_isn(w, down_hash), before ? &before->isn : NULL) - syn->isn;
	if (options.timestamps && (!svc || svc->reuse.timestamps))
		ts_shift = ahead_of(CLOCK_MS(w->now_ns), before ? &before->tsval : NULL) - options.tsval;
	put_shifts(w, up, seq_shift, ts_shift);
}

/* Nothing that left until now had any: the shift is free to choose. */
void numbers_late_timestamps(struct worker *w, flow_ref up)
{
	const struct policy_service *svc = policy_service_at(w->burst.policy, flow_track(&w->flows, up)->service_slot);
	const struct syn_kept *syn = flow_syn(&w->flows, up);
	const struct flow_half *half = flow_half(&w->flows, up);
	struct tcp_options options = options_of(syn);

	if (options.timestamps && !syn->first.timestamps && !half->ts_shift && (!svc || svc->reuse.timestamps))
		put_shifts(w, up, half->seq_shift, CLOCK_MS(w->now_ns) - options.tsval);
}

void numbers_without_timestamps(struct worker *w, flow_ref ref)
{
	put_shifts(w, flow_ref_up(ref), flow_half(&w->flows, flow_ref_up(ref))->seq_shift, 0);
}
