/* SPDX-License-Identifier: BSD-3-Clause */
/* The reasons of outcomes as text, and what each meant to the client. */
#include "outcome.h"

#include <assert.h>
#include <stdio.h>

static_assert(OUTCOME_REASONS <= 1024, "the seconds' tables have a counter for each");

static const struct attempt_info {
	const char *name, *help;
	enum cause cause;
	enum outcome_class class;
} attempt_info[ATTEMPT_COUNT] = {
#define A(name_, class_, cause_, help_) {#name_, help_, CAUSE_##cause_, OUTCOME_##class_},
	ATTEMPT_LIST(A)
#undef A
};

const char *const outcome_class_name[OUTCOME_CLASSES] = {
	[OUTCOME_CONNECTED] = "connected", [OUTCOME_REFUSED] = "refused", [OUTCOME_SILENT] = "silent",
	[OUTCOME_RESTEERED] = "resteered", [OUTCOME_RESET] = "reset",     [OUTCOME_OTHER] = "other",
};

static enum outcome_class class_of_verdict(enum verdict v)
{
	switch (v) {
	case VERDICT_answer_stray_rst:
		return OUTCOME_RESET;
	case VERDICT_answer_too_big:
	case VERDICT_shed_stray_limit:
	case VERDICT_drop_too_big:
		return OUTCOME_OTHER;
	default:
		break;
	}
	switch (verdict_info[v].class) {
	case CLASS_ANSWERED:
		return OUTCOME_REFUSED;
	case CLASS_SHED:
	case CLASS_DROPPED:
		return OUTCOME_SILENT;
	default:
		return OUTCOME_OTHER;
	}
}

static enum outcome_class class_of_action(enum action a)
{
	switch (a) {
	case ACTION_resteer:
		return OUTCOME_RESTEERED;
	case ACTION_refuse_open:
	case ACTION_refuse_client:
	case ACTION_refuse_prefix:
	case ACTION_refuse_service:
	case ACTION_refuse_limit:
	case ACTION_refuse_hard_max:
	case ACTION_refuse_backend:
	case ACTION_refuse_retry:
		return OUTCOME_REFUSED;
	case ACTION_silence_client:
	case ACTION_silence_prefix:
	case ACTION_silence_service:
	case ACTION_silence_limit:
	case ACTION_silence_hard_max:
	case ACTION_silence_backend:
	case ACTION_silence_retry:
		return OUTCOME_SILENT;
	case ACTION_rst_dead:
	case ACTION_rst_idle:
	case ACTION_rst_peer_dead:
	case ACTION_evict_idle:
	case ACTION_rst_stop:
	case ACTION_drain_rst:
		return OUTCOME_RESET;
	case ACTION_divert:
	case ACTION_last_resort:
	case ACTION_probe:
	case ACTION_check:
	case ACTION_keepalive:
	case ACTION_put_off:
	case ACTION_rst_untold:
	case ACTION_refuse_rst:
	case ACTION_challenge:
	case ACTION_follow:
	case ACTION_clamp:
	case ACTION_hold_ptb:
	case ACTION_hold_client:
	case ACTION_hold_prefix:
	case ACTION_hold_service:
	case ACTION_hold_limit:
	case ACTION_hold_hard_max:
	case ACTION_hold_backend:
	case ACTION_withhold:
	case ACTION_spare:
	case ACTION_COUNT:
		break;
	}
	return OUTCOME_OTHER;
}

bool outcome_is_common(outcome_reason reason)
{
	return reason == OUTCOME_ATTEMPT(ATTEMPT_connected) || reason == OUTCOME_ACTION(ACTION_keepalive) ||
	       reason == OUTCOME_WOULD(ACTION_keepalive);
}

static enum cause cause_of_cure(enum cure cure)
{
	static const enum cause causes[CURES] = {
		[CURE_WALL] = CAUSE_WALL, [CURE_NAMES] = CAUSE_NAMES, [CURE_SILENCE] = CAUSE_SILENCE,
		[CURE_PATH] = CAUSE_PATH, [CURE_STORM] = CAUSE_STORM,
	};
	return causes[cure];
}

enum outcome_class outcome_class(outcome_reason reason)
{
	if (reason < VERDICT_COUNT)
		return class_of_verdict(reason);
	if (reason < OUTCOME_WOULD(0))
		return class_of_action(reason - OUTCOME_ACTION(0));
	if (reason < OUTCOME_ATTEMPT(0))
		return OUTCOME_OTHER;
	return attempt_info[reason - OUTCOME_ATTEMPT(0)].class;
}

static void action_info_of(outcome_reason reason, struct outcome_info *out)
{
	bool would = reason >= OUTCOME_WOULD(0);
	const struct action_info *info = &action_info[reason - (would ? OUTCOME_WOULD(0) : OUTCOME_ACTION(0))];

	snprintf(out->name, sizeof(out->name), "%s%s", would ? "would_" : "", info->name);
	out->help = info->help;
	out->shadow = would;
	out->cause = cause_of_cure(info->cure);
}

struct outcome_info outcome_info(outcome_reason reason)
{
	struct outcome_info out = {.class = outcome_class(reason)};

	if (reason < VERDICT_COUNT) {
		snprintf(out.name, sizeof(out.name), "%s", verdict_info[reason].name);
		out.help = verdict_info[reason].help;
		out.cause = verdict_info[reason].cause;
	} else if (reason < OUTCOME_ATTEMPT(0)) {
		action_info_of(reason, &out);
	} else {
		const struct attempt_info *info = &attempt_info[reason - OUTCOME_ATTEMPT(0)];

		snprintf(out.name, sizeof(out.name), "%s", info->name);
		out.help = info->help;
		out.cause = info->cause;
	}
	return out;
}
