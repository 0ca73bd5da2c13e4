/* SPDX-License-Identifier: BSD-3-Clause */
#include "breakers.h"
#include "breaker.h"
#include "dataplane.h"
#include "events.h"
#include "hash.h"
#include "observe.h"
#include "services.h"
#include "trial.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define SILENCE_WINDOW_NS 10000000000ull /* who fell silent within it did so together */
#define WAYS_AGAIN_NS     250000000ull   /* while there is no way to a side, it is looked for this often */
#define TOLD_AT_ONCE      3              /* openings of a backend that are told within */
#define TOLD_NS           10000000000ull /* this time: it may open and close in milliseconds */
#define REAP_SPREAD_MS    5000           /* who waits for a dead one hears so within this, not all at once */
#define TRY_EVERY_NS      100000000ull
#define DOUBT_NS          300000000ull /* two ticks of the wheel: by then the others' SYNs were due, too */

struct backend {
	uint32_t generation; /* of its slot */
	bool noted, fresh;   /* there is news; and it was not looked at yet */
	bool listed;         /* in `open`: its breaker is not closed */
	bool soft;           /* it was the application's fault when it opened last: that is capped */
	uint64_t again_ns;   /* what failed meanwhile is judged then; 0: it was */
	bool alone;          /* others of its side were heard since it was last: its silence is its own */
	bool sided;          /* it is of a side that is down; while sides are looked at */
	uint64_t doubted_ns; /* it opened on silence then, and it is not known yet whether alone; 0: no doubt */
	bool told;           /* that it is open */
	uint32_t n_told, n_untold;
	uint64_t told_ns; /* when the time began in which n_told openings were told */
	struct breaker breaker;
};

enum side_state {
	SIDE_UP,
	SIDE_SILENT, /* until one of its backends answers */
	SIDE_NO_WAY, /* until there is one */
};

struct side {
	uint32_t generation; /* of its service's slot */
	enum side_state state;
};

struct breakers {
	struct dataplane *dp;
	const struct services *services;
	struct events *events;
	struct breakers_config config;
	struct backend *backends; /* by slot */
	uint32_t *noted, n_noted;
	uint32_t *open, n_open;             /* slots whose breaker is not closed, in no order */
	struct side (*sides)[SET_FAMILIES]; /* by service slot */
	uint64_t try_ns;                    /* when those that are half-open or in the ramp are looked at next */
	uint64_t look_ns;                   /* when sides are looked at next, without any news */
};

struct breakers *breakers_create(struct dataplane *dp, const struct services *services, struct events *events,
				 const struct breakers_config *config)
{
	struct breakers *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->dp = dp;
	b->services = services;
	b->events = events;
	b->config = *config;
	b->look_ns = b->try_ns = UINT64_MAX;
	b->backends = calloc(config->n_backend_slots, sizeof(*b->backends));
	b->noted = calloc(config->n_backend_slots, sizeof(*b->noted));
	b->open = calloc(config->n_backend_slots, sizeof(*b->open));
	b->sides = calloc(config->n_service_slots, sizeof(*b->sides));
	if (b->backends && b->noted && b->open && b->sides)
		return b;
	breakers_destroy(b);
	errno = ENOMEM;
	return NULL;
}

void breakers_destroy(struct breakers *b)
{
	if (!b)
		return;
	free(b->backends);
	free(b->noted);
	free(b->open);
	free(b->sides);
	free(b);
}

/* Spreads, and is the same in every run with the same slots and times. */
static uint32_t chance(uint32_t slot, uint64_t now_ns)
{
	return hash_public(&now_ns, sizeof(now_ns), slot);
}

/* --- words --- */

/* Changes the word by `fn`, which says what is to become of what it reads. Returns what it was before. */
static struct streak change_word(struct breakers *b, uint32_t slot, struct streak (*fn)(struct streak s))
{
	uint64_t seen = dataplane_breaker(b->dp, slot);
	struct streak s, to;

	do {
		s = streak_read(seen);
		to = fn(s);
	} while (!dataplane_breaker_change(b->dp, slot, &seen, streak_word(&to)));
	return s;
}

static struct streak to_closed(struct streak s)
{
	return (struct streak){0};
}

/* What it failed before is settled; a side's mark is the side's. */
static struct streak to_half_open(struct streak s)
{
	return (struct streak){.state = BREAKER_HALF_OPEN, .side_down = s.side_down};
}

static struct streak to_ramp(struct streak s)
{
	return (struct streak){.state = BREAKER_RAMP, .side_down = s.side_down};
}

/* By decide's own judgement; what led to it stays. */
static struct streak to_open(struct streak s)
{
	s.state = BREAKER_OPEN;
	s.answered = false;
	return s;
}

static struct streak to_unanswered(struct streak s)
{
	s.answered = false;
	return s;
}

/* Refusals say that it is the backend after all. */
static bool is_only_silent(const struct streak *s)
{
	uint32_t silent = s->failures[CONNECT_SILENT] + s->failures[CONNECT_STALLED];

	return silent && streak_length(s) == silent;
}

static struct streak to_side_down(struct streak s)
{
	if (s.state == BREAKER_OPEN && !is_only_silent(&s))
		return s;
	return (struct streak){.state = s.state == BREAKER_OPEN ? BREAKER_CLOSED : s.state, .side_down = true};
}

static struct streak to_side_up(struct streak s)
{
	if (s.state != BREAKER_OPEN)
		return (struct streak){.state = s.state};
	s.side_down = false;
	return s;
}

/* --- which are not closed --- */

static void list(struct breakers *b, uint32_t slot)
{
	if (!b->backends[slot].listed)
		b->open[b->n_open++] = slot;
	b->backends[slot].listed = true;
}

static void unlist_at(struct breakers *b, uint32_t i)
{
	b->backends[b->open[i]].listed = false;
	b->open[i] = b->open[--b->n_open];
}

/* The backend in that slot, which may have another owner by now; NULL: it has none. */
static struct backend *backend_at(struct breakers *b, uint32_t slot, struct slot_info *info)
{
	struct backend *backend = &b->backends[slot];

	if (!services_backend(b->services, slot, info))
		return NULL;
	if (backend->generation != info->ref.generation) {
		backend->generation = info->ref.generation;
		backend->breaker = (struct breaker){0};
		backend->told_ns = backend->n_untold = 0;
		backend->soft = false;
		backend->again_ns = 0;
	}
	return backend;
}

static double seconds(uint64_t ns)
{
	return ns / 1e9;
}

/* --- opening and closing --- */

static void tell_workers(struct breakers *b, uint32_t slot)
{
	for (unsigned w = 0; w < dataplane_n_workers(b->dp); w++)
		dataplane_order(b->dp, w, &(struct order){.kind = ORDER_OPENED, .slot = slot});
}

/*
 * It opened on silence alone, and nobody else of its side was heard since. That tells nothing if nobody else was tried;
 * if they were, their own silence will be counted soon. True: wait for that.
 */
static bool is_doubtful(struct breakers *b, uint32_t slot, const struct streak *s, uint64_t now_ns)
{
	struct backend *backend = &b->backends[slot];

	if (!is_only_silent(s) || backend->alone)
		return false;
	if (!backend->doubted_ns) {
		backend->doubted_ns = now_ns;
		tell_workers(b, slot);
	}
	return now_ns < backend->doubted_ns + DOUBT_NS;
}

/* No backend, and nobody who makes one look dead again and again, shall fill the events. */
static bool may_tell(struct backend *backend, uint64_t now_ns)
{
	if (!backend->told_ns || now_ns - backend->told_ns >= TOLD_NS) {
		backend->told_ns = now_ns;
		backend->n_told = 0;
	}
	if (backend->n_told >= TOLD_AT_ONCE) {
		backend->n_untold++;
		return false;
	}
	backend->n_told++;
	return true;
}

static void tell_open(struct breakers *b, const struct slot_info *info, struct backend *backend, const char *evidence,
		      enum cure_mode mode)
{
	char id[SLOT_ID_STRLEN], untold[80] = "";

	if (backend->n_untold)
		snprintf(untold, sizeof(untold), "; it was open %u times more since the last that was told",
			 backend->n_untold);
	backend->n_untold = 0;
	events_add(b->events, EVENT_WARNING, "breaker_open", cure_name[CURE_WALL], slots_id(info, id), "%s%s%s",
		   evidence, mode == CURE_SHADOW ? " (shadow: it gets new flows all the same)" : "", untold);
}

/* Clients of a silent one would wait for a quarter of an hour. An order about its removal goes before. */
static void reap_dead(struct breakers *b, uint32_t slot, const struct streak *s)
{
	if (is_only_silent(s) && dataplane_reap_ordered(b->dp, slot) == REAP_NONE)
		dataplane_reap(b->dp, slot, &(struct reap_order){.cause = REAP_DEAD, .spread_ms = REAP_SPREAD_MS});
}

/* The word is open; here it is as well from now on. */
static void open_breaker(struct breakers *b, const struct slot_info *info, struct backend *backend,
			 enum breaker_cause cause, const char *evidence, enum cure_mode mode, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	breaker_open(&backend->breaker, cause, now_ns, chance(slot, now_ns));
	dataplane_responses_forget(b->dp, slot);
	dataplane_backend_due(b->dp, slot, backend->breaker.until_ns);
	list(b, slot);
	if (cause == BREAKER_CONNECT && !backend->doubted_ns)
		tell_workers(b, slot);
	backend->told = may_tell(backend, now_ns);
	if (backend->told)
		tell_open(b, info, backend, evidence, mode);
}

static void confirm(struct breakers *b, const struct slot_info *info, struct backend *backend, const struct streak *s,
		    enum cure_mode mode, uint64_t now_ns)
{
	char evidence[BREAKER_EVIDENCE_LEN];

	/* From half-open it goes on as it was. */
	backend->soft &= backend->breaker.state == BREAKER_HALF_OPEN;
	if (streak_length(s))
		breaker_evidence(s, evidence, sizeof(evidence));
	else
		snprintf(evidence, sizeof(evidence), "a flow that tried it was reset before its first byte");
	reap_dead(b, info->ref.slot, s);
	open_breaker(b, info, backend, streak_length(s) ? BREAKER_CONNECT : BREAKER_RESPONSE, evidence, mode, now_ns);
}

static void tell_step(struct breakers *b, const struct slot_info *info, const struct backend *backend,
		      const char *format, ...) __attribute__((format(printf, 4, 5)));

static void tell_step(struct breakers *b, const struct slot_info *info, const struct backend *backend,
		      const char *format, ...)
{
	static const char *const kinds[BREAKER_STATES] = {
		[BREAKER_CLOSED] = "breaker_closed",
		[BREAKER_OPEN] = "breaker_open",
		[BREAKER_HALF_OPEN] = "breaker_half_open",
		[BREAKER_RAMP] = "breaker_ramp",
	};
	char id[SLOT_ID_STRLEN], text[160];
	va_list args;

	if (!backend->told)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	events_add(b->events, EVENT_INFO, kinds[backend->breaker.state], cure_name[CURE_WALL], slots_id(info, id), "%s",
		   text);
}

/* In shadow nobody keeps flows from it, so that its next answer says all there is to say. */
static void close_answered(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	uint64_t since_ns = backend->breaker.since_ns;
	bool was_told = backend->breaker.state != BREAKER_CLOSED;

	dataplane_reap_cancel(b->dp, info->ref.slot, REAP_DEAD);
	change_word(b, info->ref.slot, to_closed);
	breaker_annul(&backend->breaker, now_ns);
	if (was_told)
		tell_step(b, info, backend, "answered a SYN %.1f s after it was opened", seconds(now_ns - since_ns));
}

/* --- half-open and ramp --- */

static void try_it(struct breakers *b, const struct slot_info *info, struct backend *backend)
{
	uint32_t slot = info->ref.slot;

	dataplane_reap_cancel(b->dp, slot, REAP_DEAD);
	dataplane_trial_begin(b->dp, slot, false);
	dataplane_responses_forget(b->dp, slot);
	change_word(b, slot, to_half_open);
	tell_step(b, info, backend, "%u probes in a row answered: real flows try it, one at a time",
		  backend->breaker.answers);
}

static void begin_ramp(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	breaker_ramp(&backend->breaker, now_ns);
	dataplane_backend_share(b->dp, slot, breaker_share(&backend->breaker, now_ns));
	change_word(b, slot, to_ramp);
	tell_step(b, info, backend, "%d flows in a row got a response: it gets its flows back in %llu s", TRIAL_WINS,
		  BREAKER_RAMP_NS / 1000000000);
}

static void close_ramped(struct breakers *b, const struct slot_info *info, struct backend *backend)
{
	change_word(b, info->ref.slot, to_closed);
	tell_step(b, info, backend, "%llu s without opening again", BREAKER_RAMP_NS / 1000000000);
}

/* max(1 s, ten times what first bytes take) */
static uint64_t trial_ns(const struct breakers *b, uint32_t slot)
{
	uint64_t ns = 10 * UINT64_C(1000) * observe_first_byte_us(b->dp, slot);

	return ns > BREAKER_TRIAL_MIN_NS ? ns : BREAKER_TRIAL_MIN_NS;
}

/* Who only connected says nothing of it, and makes room for another. */
static void run_half_open(struct breakers *b, const struct slot_info *info, struct backend *backend,
			  enum cure_mode mode, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;
	struct trial trial = trial_read(dataplane_trial(b->dp, slot));
	uint32_t age_ms = (uint32_t)(now_ns / 1000000) - trial.since_ms;

	if (trial.wins >= TRIAL_WINS) {
		begin_ramp(b, info, backend, now_ns);
		return;
	}
	if (trial.phase == TRIAL_FREE || (int32_t)age_ms < 0 || age_ms * UINT64_C(1000000) < trial_ns(b, slot))
		return;
	if (trial.phase == TRIAL_IDLE) {
		dataplane_trial_begin(b->dp, slot, true);
		return;
	}
	change_word(b, slot, to_open);
	open_breaker(b, info, backend, BREAKER_RESPONSE,
		     trial.phase == TRIAL_SYN ? "a flow that tried it got no answer to its SYN"
					      : "a flow that tried it got no response in time",
		     mode, now_ns);
}

static void run_ramp(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	if (breaker_step(&backend->breaker, now_ns))
		close_ramped(b, info, backend);
	else
		dataplane_backend_share(b->dp, info->ref.slot, breaker_share(&backend->breaker, now_ns));
}

/* The wall is off: nothing is measured, so nothing may be left of what was. */
static void forget(struct breakers *b, uint32_t slot)
{
	struct slot_info info;
	struct backend *backend = backend_at(b, slot, &info);

	if (!backend)
		return;
	dataplane_reap_cancel(b->dp, slot, REAP_DEAD);
	change_word(b, slot, to_closed);
	backend->breaker = (struct breaker){0};
}

/* --- criteria that only decide can judge by: the sum of the workers, and the cap on soft openings --- */

#define RATIO_VOLUME_MIN   20
#define RATIO_NETWORKS_MIN 3

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

/* At most half of a set, but one at least. */
static bool has_room(const struct breakers *b, const struct policy_set *set)
{
	uint32_t n = 0, max = set->n_backends / 2;

	for (uint32_t i = 0; i < set->n_backends; i++)
		n += is_soft(&b->backends[set->backends[i].ref.slot]);
	return n < (max ? max : 1);
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

static bool judge_ratio(struct breakers *b, const struct slot_info *info, struct backend *backend,
			const struct judged *j, enum cure_mode mode, uint64_t now_ns)
{
	uint32_t failed = 0, volume, slot = info->ref.slot;
	char evidence[BREAKER_EVIDENCE_LEN];
	struct signal_window w;
	bool hard;

	observe_window(b->dp, slot, j->window_s, &w);
	for (int f = 0; f < SIGNAL_FAILURES; f++)
		failed += w.failed[f];
	volume = failed + w.success[SIGNAL_CONNECT] + w.success[SIGNAL_RESPONSE];
	hard = hard_failures(&w) * 2 > failed;
	if (volume < RATIO_VOLUME_MIN || failed * UINT64_C(1000000) < (uint64_t)volume * j->ratio_ppm ||
	    w.n_networks < RATIO_NETWORKS_MIN || (!hard && !j->may_eject))
		return false;
	say_ratio(&w, failed, volume, j->window_s, evidence, sizeof(evidence));
	backend->soft = !hard;
	change_word(b, slot, to_open);
	open_breaker(b, info, backend, hard ? BREAKER_CONNECT : BREAKER_RESPONSE, evidence, mode, now_ns);
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
	change_word(b, info->ref.slot, to_open);
	open_breaker(b, info, backend, BREAKER_RESPONSE, evidence, mode, now_ns);
	return true;
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
static bool judge_twice(struct breakers *b, const struct slot_info *info, struct backend *backend, enum cure_mode mode,
			uint64_t now_ns)
{
	bool first = backend->fresh || !backend->again_ns;

	backend->fresh = false;
	if (!first && now_ns < backend->again_ns)
		return true;
	breaker_failed(&backend->breaker, now_ns);
	backend->again_ns = first ? now_ns + TRY_EVERY_NS : 0;
	if (judge(b, info, backend, mode, now_ns))
		backend->again_ns = 0;
	return backend->again_ns;
}

/* --- sides --- */

#define SIDE_BACKENDS_MIN 3

static bool is_most(size_t n, size_t of)
{
	return n && n * 5 >= of * 4;
}

bool breakers_side_is_silent(size_t n_backends, size_t n_silent)
{
	return n_backends >= SIDE_BACKENDS_MIN && is_most(n_silent, n_backends);
}

struct side_count {
	size_t n, n_silent;
	size_t n_blocked; /* no link, no route */
	size_t n_lost;    /* no router, which may be only about to be found */
	size_t n_marked;  /* as being of a side that is down */
	bool answered;    /* one of those */
	enum way way;     /* what is wrong with it */
};

/* Silent now, and since not longer than the window: one that was opened before it fell silent alone. */
static bool fell_silent(const struct breakers *b, uint32_t slot, const struct streak *s, uint64_t now_ns)
{
	struct backend_times times;

	dataplane_backend_times(b->dp, slot, &times);
	return is_only_silent(s) && now_ns - times.silent_ns <= SILENCE_WINDOW_NS;
}

static void count_way(struct side_count *c, enum way way)
{
	c->n_blocked += way == WAY_NO_ROUTE || way == WAY_LINK_DOWN;
	c->n_lost += way == WAY_NO_ROUTER;
	if (way != WAY_OPEN && way != WAY_NO_HOST)
		c->way = way;
}

/* One that is marked is silent still: another service's side, which has it too, is no better off. */
static struct side_count count_side(const struct breakers *b, const struct services_side *side, uint64_t now_ns)
{
	struct side_count c = {.n = side->set->n_backends};

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		const struct policy_backend *backend = &side->set->backends[i];
		struct streak s = streak_read(dataplane_breaker(b->dp, backend->ref.slot));

		c.n_silent += (s.side_down && !s.answered) || fell_silent(b, backend->ref.slot, &s, now_ns);
		c.n_marked += s.side_down;
		c.answered |= s.side_down && s.answered;
		count_way(&c, dataplane_way(b->dp, &backend->addr));
	}
	return c;
}

/* A router that is not resolved is none to complain of before a SYN got no answer. */
static bool is_side_blocked(const struct side_count *c)
{
	return is_most(c->n_blocked + (c->n_silent ? c->n_lost : 0), c->n);
}

/* More than one in five was heard since: the side is there, whatever else is wrong. */
static bool others_were_heard(const struct breakers *b, const struct services_side *side, uint32_t slot)
{
	struct backend_times times, other;
	uint32_t n = 0;

	if (side->set->n_backends < SIDE_BACKENDS_MIN)
		return true;
	dataplane_backend_times(b->dp, slot, &times);
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		dataplane_backend_times(b->dp, side->set->backends[i].ref.slot, &other);
		n += other.heard_ns > times.since_ns;
	}
	return n * 5 > side->set->n_backends;
}

static void find_lonely(struct breakers *b, const struct services_side *side)
{
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;

		if (b->backends[slot].noted && others_were_heard(b, side, slot))
			b->backends[slot].alone = true;
	}
}

static void take_back(struct breakers *b, uint32_t slot, uint64_t now_ns)
{
	char id[SLOT_ID_STRLEN];
	struct slot_info info;
	struct backend *backend = backend_at(b, slot, &info);

	if (!backend || backend->breaker.state != BREAKER_OPEN)
		return;
	dataplane_reap_cancel(b->dp, slot, REAP_DEAD);
	breaker_annul(&backend->breaker, now_ns);
	if (backend->told)
		events_add(b->events, EVENT_INFO, "breaker_closed", cure_name[CURE_WALL], slots_id(&info, id),
			   "taken back: it is not alone in its silence");
}

/* What workers opened on silence alone is taken back, confirmed or not. */
static void mark_side_down(struct breakers *b, const struct services_side *side, uint64_t now_ns)
{
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;
		struct streak s = streak_read(dataplane_breaker(b->dp, slot));

		if (s.state != BREAKER_CLOSED && !fell_silent(b, slot, &s, now_ns))
			continue;
		change_word(b, slot, to_side_down);
		take_back(b, slot, now_ns);
	}
}

static const char *const way_words[] = {
	[WAY_OPEN] = "",
	[WAY_NO_ROUTE] = "no route",
	[WAY_LINK_DOWN] = "its link is down",
	[WAY_NO_ROUTER] = "the next hop does not answer",
	[WAY_NO_HOST] = "",
};

static struct side *side_at(struct breakers *b, const struct services_side *of)
{
	struct side *side = &b->sides[of->service_ref.slot][of->family];

	if (side->generation != of->service_ref.generation)
		*side = (struct side){.generation = of->service_ref.generation};
	return side;
}

static void side_down(struct breakers *b, const struct services_side *side, const struct side_count *c, uint64_t now_ns)
{
	bool blocked = is_side_blocked(c);

	mark_side_down(b, side, now_ns);
	side_at(b, side)->state = blocked ? SIDE_NO_WAY : SIDE_SILENT;
	if (blocked)
		events_add(b->events, EVENT_CRITICAL, "side_down", cure_name[CURE_WALL], side->service,
			   "%s: no way to %zu of %zu backends (%s): silence opens no breaker until there is one",
			   side->family == SET_V4 ? "IPv4" : "IPv6", c->n_blocked + c->n_lost, c->n, way_words[c->way]);
	else
		events_add(
			b->events, EVENT_CRITICAL, "side_down", cure_name[CURE_WALL], side->service,
			"%s: %zu of %zu backends fell silent within %llu s: silence opens no breaker until one answers",
			side->family == SET_V4 ? "IPv4" : "IPv6", c->n_silent, c->n, SILENCE_WINDOW_NS / 1000000000);
}

static void side_up(struct breakers *b, const struct services_side *side)
{
	enum side_state was = side_at(b, side)->state;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		change_word(b, side->set->backends[i].ref.slot, to_side_up);
	events_add(b->events, EVENT_INFO, "side_up", cure_name[CURE_WALL], side->service, "%s: %s",
		   side->family == SET_V4 ? "IPv4" : "IPv6",
		   was == SIDE_NO_WAY ? "there is a way again" : "it is measured again");
	side_at(b, side)->state = SIDE_UP;
}

struct side_look {
	struct breakers *b;
	uint64_t now_ns;
	unsigned n_without_way, n_marked;
};

/* Also where none of those that fell silent is left: DNS may have brought others. */
static bool is_up_again(enum side_state state, const struct side_count *c)
{
	if (c->answered)
		return true;
	return state == SIDE_NO_WAY ? !is_most(c->n_blocked + c->n_lost, c->n) : !c->n_marked;
}

static void judge_side(struct breakers *b, const struct services_side *side, const struct side_count *c,
		       uint64_t now_ns)
{
	enum side_state state = side_at(b, side)->state;

	if (state != SIDE_UP && is_up_again(state, c))
		side_up(b, side);
	else if (state == SIDE_UP && (is_side_blocked(c) || breakers_side_is_silent(c->n, c->n_silent)))
		side_down(b, side, c, now_ns);
	else
		find_lonely(b, side);
}

static void look_at_side(void *arg, const struct services_side *side)
{
	struct side_look *look = arg;
	struct breakers *b = look->b;
	struct side_count c = count_side(b, side, look->now_ns);

	judge_side(b, side, &c, look->now_ns);
	look->n_without_way += side_at(b, side)->state == SIDE_NO_WAY;
	look->n_marked += c.n_marked;
	for (uint32_t i = 0; i < side->set->n_backends; i++)
		b->backends[side->set->backends[i].ref.slot].sided |= side_at(b, side)->state != SIDE_UP;
}

/* A mark that outlived its side, or came back with its backend: nobody else would take it away. */
static void unmark(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;

		if (!b->backends[slot].sided && streak_read(dataplane_breaker(b->dp, slot)).side_down)
			change_word(b, slot, to_side_up);
	}
}

static void unside(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	for (uint32_t i = 0; i < side->set->n_backends; i++)
		b->backends[side->set->backends[i].ref.slot].sided = false;
}

static void look_at_sides(struct breakers *b, uint64_t now_ns)
{
	struct side_look look = {.b = b, .now_ns = now_ns};

	services_sides(b->services, look_at_side, &look);
	if (look.n_marked)
		services_sides(b->services, unmark, b);
	services_sides(b->services, unside, b);
	b->look_ns = look.n_without_way ? now_ns + WAYS_AGAIN_NS : UINT64_MAX;
}

/* The wall is off. */
static void forget_side(void *arg, const struct services_side *side)
{
	struct breakers *b = arg;

	side_at(b, side)->state = SIDE_UP;
	for (uint32_t i = 0; i < side->set->n_backends; i++)
		change_word(b, side->set->backends[i].ref.slot, to_side_up);
}

/* --- news --- */

void breakers_note(struct breakers *b, uint32_t slot)
{
	if (slot >= b->config.n_backend_slots)
		return;
	b->backends[slot].fresh = true;
	if (b->backends[slot].noted)
		return;
	b->backends[slot].noted = true;
	b->noted[b->n_noted++] = slot;
}

void breakers_note_all(struct breakers *b)
{
	for (uint32_t slot = 0; slot < b->config.n_backend_slots; slot++)
		if (dataplane_breaker(b->dp, slot))
			breakers_note(b, slot);
}

void breakers_look_again(struct breakers *b)
{
	b->look_ns = 0;
}

/* Sides first: what they take back was never open. */
static bool concerns_sides(struct breakers *b)
{
	for (uint32_t i = 0; i < b->n_noted; i++) {
		struct streak s = streak_read(dataplane_breaker(b->dp, b->noted[i]));

		if (s.side_down || (s.state == BREAKER_OPEN && is_only_silent(&s)))
			return true;
	}
	return false;
}

/* True: there may be more to say later. */
static bool settle(struct breakers *b, uint32_t slot, enum cure_mode mode, uint64_t now_ns)
{
	struct streak s = streak_read(dataplane_breaker(b->dp, slot));
	struct slot_info info;
	struct backend *backend = backend_at(b, slot, &info);

	if (!backend)
		return false;
	if (mode == CURE_OFF)
		forget(b, slot);
	else if (mode == CURE_SHADOW && s.state == BREAKER_OPEN && s.answered)
		close_answered(b, &info, backend, now_ns);
	else if (s.state == BREAKER_OPEN && backend->breaker.state != BREAKER_OPEN) {
		if (is_doubtful(b, slot, &s, now_ns))
			return true;
		confirm(b, &info, backend, &s, mode, now_ns);
	} else if (s.state == BREAKER_OPEN && s.answered) {
		change_word(b, slot, to_unanswered);
		breaker_answered(&backend->breaker);
	} else if (s.state == BREAKER_HALF_OPEN) {
		run_half_open(b, &info, backend, mode, now_ns);
	} else if (s.state != BREAKER_OPEN) {
		return judge_twice(b, &info, backend, mode, now_ns);
	}
	backend->again_ns = 0;
	backend->doubted_ns = 0;
	backend->alone = false;
	return false;
}

static void settle_all(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	uint32_t n_left = 0;

	for (uint32_t i = 0; i < b->n_noted; i++) {
		uint32_t slot = b->noted[i];

		b->backends[slot].noted = settle(b, slot, mode, now_ns);
		if (b->backends[slot].noted)
			b->noted[n_left++] = slot;
	}
	b->n_noted = n_left;
}

/* --- what is due --- */

static void order_probe(struct breakers *b, const struct slot_info *info, const struct breaker *breaker)
{
	const struct order order = {
		.kind = ORDER_PROBE,
		.slot = info->ref.slot,
		.addr = info->addr,
		.port_be = info->port_be,
	};

	dataplane_order(b->dp, (order.slot + breaker->probes) % dataplane_n_workers(b->dp), &order);
}

/* One that nothing names any more is not probed: a probe would hold its slot. */
static void run_open(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	if (breaker_step(&backend->breaker, now_ns)) {
		try_it(b, info, backend);
		return;
	}
	if (breaker_probe(&backend->breaker, now_ns, chance(info->ref.slot, now_ns)) && info->life == SLOT_USED)
		order_probe(b, info, &backend->breaker);
}

/* False: it is closed. */
static bool run_one(struct breakers *b, const struct slot_info *info, struct backend *backend, enum cure_mode mode,
		    uint64_t now_ns)
{
	switch (backend->breaker.state) {
	case BREAKER_OPEN:
		run_open(b, info, backend, now_ns);
		break;
	case BREAKER_HALF_OPEN:
		run_half_open(b, info, backend, mode, now_ns);
		break;
	case BREAKER_RAMP:
		run_ramp(b, info, backend, now_ns);
		break;
	default:
		break;
	}
	return backend->breaker.state != BREAKER_CLOSED;
}

static void run_all_open(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	b->try_ns = UINT64_MAX;
	for (uint32_t i = b->n_open; i-- > 0;) {
		struct slot_info info;
		struct backend *backend = backend_at(b, b->open[i], &info);

		if (backend && mode == CURE_OFF)
			forget(b, b->open[i]);
		if (!backend || !run_one(b, &info, backend, mode, now_ns))
			unlist_at(b, i);
		else if (backend->breaker.state != BREAKER_OPEN)
			b->try_ns = now_ns + TRY_EVERY_NS;
	}
}

void breakers_run(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	if (mode == CURE_OFF) {
		services_sides(b->services, forget_side, b);
		b->look_ns = UINT64_MAX;
	} else if (concerns_sides(b) || now_ns >= b->look_ns) {
		look_at_sides(b, now_ns);
	}
	settle_all(b, mode, now_ns);
	run_all_open(b, mode, now_ns);
}

uint64_t breakers_due_ns(const struct breakers *b)
{
	uint64_t due_ns = b->look_ns < b->try_ns ? b->look_ns : b->try_ns;

	for (uint32_t i = 0; i < b->n_noted; i++) {
		const struct backend *backend = &b->backends[b->noted[i]];
		uint64_t at_ns = backend->again_ns ? backend->again_ns : backend->doubted_ns + DOUBT_NS;

		due_ns = at_ns < due_ns ? at_ns : due_ns;
	}

	for (uint32_t i = 0; i < b->n_open; i++) {
		uint64_t at_ns = breaker_due_ns(&b->backends[b->open[i]].breaker);

		due_ns = at_ns < due_ns ? at_ns : due_ns;
	}
	return due_ns;
}
