/* SPDX-License-Identifier: BSD-3-Clause */
/* The criteria that workers cannot judge by: what all of them saw, and how many of a set may be open at once. */
#include "breakers_private.h"
#include "dataplane.h"
#include "observe.h"

#include <stdio.h>

#define RATIO_VOLUME_MIN   20
#define RATIO_NETWORKS_MIN 3
#define CHECKS_LIMIT       3 /* HTTP checks in a row */

/* The service that names it, for its parameters: the strictest. */
struct judged {
	uint32_t slot;
	bool found;
	uint32_t consecutive, window_s, ratio_ppm;
	bool may_eject; /* no set that it is of has too many softly ejected */
	const struct breakers *b;
};

static bool is_soft(const struct backend *backend)
{
	return backend->soft && (backend->breaker.state == BREAKER_OPEN || backend->breaker.state == BREAKER_HALF_OPEN);
}

/* Half of a set, but one at least. */
static uint32_t soft_max(const struct policy_set *set)
{
	return set->n_backends > 1 ? set->n_backends / 2 : 1;
}

static bool has_room(const struct breakers *b, const struct policy_set *set)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < set->n_backends; i++)
		n += is_soft(&b->backends[set->backends[i].ref.slot]);
	return n < soft_max(set);
}

static struct streak to_spared(struct streak s)
{
	return (struct streak){.side_down = s.side_down};
}

void breakers_spare(void *arg, const struct services_side *side)
{
	const struct breakers_spare *spare = arg;
	struct breakers *b = spare->b;
	uint32_t n = 0;

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;
		struct slot_info info;
		struct backend *backend = breakers_backend_at(b, slot, &info);

		if (!backend || !is_soft(backend) || n++ < soft_max(side->set))
			continue;
		breakers_change_word(b, slot, to_spared);
		breakers_take_back(b, &info, backend, "half of its set is out already", spare->now_ns);
	}
}

static void add_parameters(struct judged *j, const struct policy_service *svc)
{
	if (!j->found || svc->breaker_consecutive < j->consecutive)
		j->consecutive = svc->breaker_consecutive;
	if (!j->found || svc->breaker_window_s > j->window_s)
		j->window_s = svc->breaker_window_s;
	if (!j->found || svc->breaker_ratio_ppm < j->ratio_ppm)
		j->ratio_ppm = svc->breaker_ratio_ppm;
	j->found = true;
}

static void look_for_judged(void *arg, const struct services_side *side)
{
	struct judged *j = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		if (side->set->backends[i].ref.slot == j->slot) {
			add_parameters(j, side->part);
			j->may_eject &= has_room(j->b, side->set);
			return;
		}
}

static uint32_t hard_failures(const struct signal_window *w)
{
	return w->failed[SIGNAL_SILENT] + w->failed[SIGNAL_REFUSED] + w->failed[SIGNAL_UNREACHABLE] +
	       w->failed[SIGNAL_STALLED];
}

static void say_ratio(const struct signal_window *w, uint32_t failed, uint32_t volume, uint32_t window_s, char *out,
		      size_t size)
{
	size_t len = snprintf(out, size, "%u of %u in %u s failed:", failed, volume, window_s);

	for (int f = 0; f < SIGNAL_FAILURES && len < size; f++)
		if (w->failed[f])
			len += snprintf(out + len, size - len, " %u %s,", w->failed[f], signal_failure_name[f]);
	if (len < size)
		snprintf(out + len - 1, size - len + 1, "; %u networks", w->n_networks);
}

/* What had failed when it came into its state is settled: that second, and all before, do not count. */
static uint32_t window_s(const struct backend *backend, const struct judged *j, uint64_t now_ns)
{
	uint64_t age_s = now_ns / 1000000000 - backend->breaker.since_ns / 1000000000;

	return backend->breaker.since_ns && age_s < j->window_s ? age_s : j->window_s;
}

static bool judge_ratio(struct breakers *b, const struct slot_info *info, struct backend *backend,
			const struct judged *j, enum cure_mode mode, uint64_t now_ns)
{
	uint32_t failed = 0, volume, slot = info->ref.slot, seconds = window_s(backend, j, now_ns);
	char evidence[BREAKER_EVIDENCE_LEN];
	struct signal_window w;
	bool hard;

	observe_window(b->dp, slot, seconds, &w);
	for (int f = 0; f < SIGNAL_FAILURES; f++)
		failed += w.failed[f];
	volume = failed + w.success[SIGNAL_CONNECT] + w.success[SIGNAL_RESPONSE];
	hard = hard_failures(&w) * 2 > failed;
	if (volume < RATIO_VOLUME_MIN || failed * UINT64_C(1000000) < (uint64_t)volume * j->ratio_ppm ||
	    w.n_networks < RATIO_NETWORKS_MIN || (!hard && !j->may_eject))
		return false;
	say_ratio(&w, failed, volume, seconds, evidence, sizeof(evidence));
	backend->soft = !hard;
	breakers_change_word(b, slot, breakers_to_open);
	breakers_open(b, info, backend, hard ? BREAKER_CONNECT : BREAKER_RESPONSE, evidence, mode, now_ns);
	return true;
}

static bool judge_responses(struct breakers *b, const struct slot_info *info, struct backend *backend,
			    const struct judged *j, enum cure_mode mode, uint64_t now_ns)
{
	struct response_streak r = response_read(dataplane_responses(b->dp, info->ref.slot));
	bool ramp = backend->breaker.state == BREAKER_RAMP;
	uint32_t limit = ramp && j->consecutive > STREAK_RAMP_LIMIT ? STREAK_RAMP_LIMIT : j->consecutive;
	uint32_t networks = limit < RESPONSE_NETWORKS ? limit : RESPONSE_NETWORKS;
	char evidence[BREAKER_EVIDENCE_LEN];

	if (r.n < limit || r.n_networks < (networks > 1 ? networks : 2) || !j->may_eject)
		return false;
	snprintf(evidence, sizeof(evidence), "%u flows in a row reset before their first byte, of %s%u networks", r.n,
		 r.n_networks == RESPONSE_NETWORKS ? "at least " : "", r.n_networks);
	backend->soft = true;
	breakers_change_word(b, info->ref.slot, breakers_to_open);
	breakers_open(b, info, backend, BREAKER_RESPONSE, evidence, mode, now_ns);
	return true;
}

/* --- HTTP checks --- */

/* Packets open, checks may open too; a check alone never closes what packets opened. */
static void judge_checks(struct breakers *b, const struct slot_info *info, struct backend *backend, const char *why,
			 enum cure_mode mode, uint64_t now_ns)
{
	struct judged j = {.slot = info->ref.slot, .may_eject = true, .b = b};
	unsigned limit = backend->breaker.state == BREAKER_RAMP ? STREAK_RAMP_LIMIT : CHECKS_LIMIT;
	enum breaker_state word = streak_state(dataplane_breaker(b->dp, info->ref.slot));
	char evidence[BREAKER_EVIDENCE_LEN];

	if (backend->n_checks_failed < limit || word != backend->breaker.state ||
	    (word != BREAKER_CLOSED && word != BREAKER_RAMP))
		return;
	services_sides(b->services, look_for_judged, &j);
	if (!j.found || !j.may_eject)
		return;
	snprintf(evidence, sizeof(evidence), "%u checks in a row failed: %s", backend->n_checks_failed, why);
	backend->soft = true;
	breakers_change_word(b, info->ref.slot, breakers_to_open);
	breakers_open(b, info, backend, BREAKER_RESPONSE, evidence, mode, now_ns);
}

static struct backend *find_checked(struct breakers *b, struct slot_ref ref, struct slot_info *info)
{
	struct backend *backend = breakers_backend_at(b, ref.slot, info);

	return backend && info->ref.generation == ref.generation ? backend : NULL;
}

void breakers_checked(struct breakers *b, struct slot_ref ref, enum check_result result, const char *why,
		      enum cure_mode mode, uint64_t now_ns)
{
	struct slot_info info;
	struct backend *backend = find_checked(b, ref, &info);
	struct streak s = streak_read(dataplane_breaker(b->dp, ref.slot));

	if (!backend || (result == CHECK_SILENT && s.side_down))
		return;
	backend->breaker.barred = result != CHECK_PASSED;
	if (result == CHECK_PASSED) {
		backend->n_checks_failed = 0;
		return;
	}
	backend->n_checks_failed++;
	snprintf(backend->check_why, sizeof(backend->check_why), "%s", why);
	if (mode == CURE_ENFORCE && !s.forced)
		judge_checks(b, &info, backend, why, mode, now_ns);
}

void breakers_unchecked(struct breakers *b, struct slot_ref ref)
{
	struct slot_info info;
	struct backend *backend = find_checked(b, ref, &info);

	if (!backend)
		return;
	backend->breaker.barred = false;
	backend->n_checks_failed = 0;
}

/* It is closed, or in the ramp, and something failed. */
static bool judge(struct breakers *b, const struct slot_info *info, struct backend *backend, enum cure_mode mode,
		  uint64_t now_ns)
{
	struct judged j = {.slot = info->ref.slot, .may_eject = true, .b = b};

	services_sides(b->services, look_for_judged, &j);
	return j.found &&
	       (judge_responses(b, info, backend, &j, mode, now_ns) || judge_ratio(b, info, backend, &j, mode, now_ns));
}

/* Workers tell of a failure ten times a second at the most: once more for those that came since. */
bool breakers_judge(struct breakers *b, const struct slot_info *info, struct backend *backend, enum cure_mode mode,
		    uint64_t now_ns)
{
	bool first = backend->fresh || !backend->again_ns;

	backend->fresh = false;
	if (!first && now_ns < backend->again_ns)
		return true;
	breaker_failed(&backend->breaker, now_ns);
	backend->again_ns = first ? now_ns + BREAKERS_TRY_NS : 0;
	if (judge(b, info, backend, mode, now_ns))
		backend->again_ns = 0;
	return backend->again_ns;
}
