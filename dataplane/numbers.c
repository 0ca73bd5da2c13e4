/* SPDX-License-Identifier: BSD-3-Clause */
#include "numbers.h"
#include "tcp_options.h"

#include <sodium/crypto_shorthash.h>

#define ISN_TICK_SHIFT 6 /* 64 ns: 2^31 of them are 137 s, which is longer than any TIME_WAIT */

static_assert(DIR_UP == 0 && DIR_DOWN == 1, "numbers_ack() makes a mask of it");

/* RFC 6528. Backends see what comes of it: of a key that tells nothing of it, nor of any other. */
uint32_t numbers_isn(const struct worker *w, const void *down, size_t len)
{
	uint32_t hash[crypto_shorthash_BYTES / sizeof(uint32_t)];

	static_assert(crypto_shorthash_KEYBYTES == sizeof(w->dp->config.isn_key), "SipHash-2-4");
	crypto_shorthash((uint8_t *)hash, down, len, w->dp->config.isn_key);
	return hash[0] + (uint32_t)(w->now_ns >> ISN_TICK_SHIFT);
}

static uint32_t isn_of(const struct worker *w, flow_ref up)
{
	flow_ref down = flow_ref_other(up);

	if (flow_ref_is_v6(down))
		return numbers_isn(w, &flow_half6(&w->flows, down)->in, sizeof(struct flow_key6));
	return numbers_isn(w, &flow_half4(&w->flows, down)->in, sizeof(struct flow_key4));
}

static struct tcp_options options_of(const struct syn_kept *syn)
{
	return tcp_options_read(syn->options, syn->options_len);
}

struct syn_numbers numbers_of_syn(const struct worker *w, flow_ref up)
{
	const struct syn_kept *syn = flow_syn(&w->flows, up);
	const struct flow_half *half = flow_half(&w->flows, up);
	struct tcp_options options = options_of(syn);

	return (struct syn_numbers){syn->isn + half->seq_shift, options.tsval + half->ts_shift, options.timestamps};
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
	uint32_t seq_shift = 0, ts_shift = 0;

	if (!svc || svc->reuse.isn)
		seq_shift = ahead_of(isn_of(w, up), before ? &before->isn : NULL) - syn->isn;
	if (options.timestamps && (!svc || svc->reuse.timestamps))
		ts_shift = ahead_of(CLOCK_MS(w->now_ns), before && before->timestamps ? &before->tsval : NULL) -
			   options.tsval;
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
