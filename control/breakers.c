/* SPDX-License-Identifier: BSD-3-Clause */
#include "breakers_private.h"
#include "dataplane.h"
#include "events.h"
#include "hash.h"
#include "observe.h"
#include "trial.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOLD_AT_ONCE   3              /* openings of a backend that are told within */
#define TOLD_NS        10000000000ull /* this time: it may open and close in milliseconds */
#define REAP_SPREAD_MS 5000           /* who waits for a dead one hears so within this, not all at once */
#define ONE_WAY_ENOUGH 20             /* exchanges without an answer, ever: there will be none */
#define DOUBT_NS       300000000ull   /* two ticks of the wheel: by then the others' SYNs were due, too */

uint64_t breakers_bytes(uint32_t n_backend_slots)
{
	const struct breakers *b = NULL;

	return (uint64_t)n_backend_slots * (sizeof(*b->backends) + sizeof(*b->noted) + sizeof(*b->open));
}

struct breakers *breakers_create(struct dataplane *dp, struct services *services, struct events *events,
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
	b->memory = breaker_memory_create(breakers_forgotten, b);
	if (b->backends && b->noted && b->open && b->sides && b->memory) {
		services_watch(services, &breakers_watcher, b);
		return b;
	}
	breakers_destroy(b);
	errno = ENOMEM;
	return NULL;
}

void breakers_destroy(struct breakers *b)
{
	if (!b)
		return;
	services_watch(b->services, NULL, NULL);
	breaker_memory_destroy(b->memory);
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
struct streak breakers_change_word(struct breakers *b, uint32_t slot, struct streak (*fn)(struct streak s))
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

/* These two unless a worker has opened it meanwhile, whose note is under way. */
static struct streak to_ramped(struct streak s)
{
	return s.state == BREAKER_RAMP ? (struct streak){.side_down = s.side_down} : s;
}

static struct streak to_ramp(struct streak s)
{
	if (s.state == BREAKER_OPEN)
		return s;
	return (struct streak){.state = BREAKER_RAMP, .side_down = s.side_down};
}

/* By decide's own judgement; what led to it stays. */
struct streak breakers_to_open(struct streak s)
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
bool breakers_is_only_silent(const struct streak *s)
{
	uint32_t silent = s->failures[CONNECT_SILENT] + s->failures[CONNECT_STALLED];

	return silent && streak_length(s) == silent;
}

/* --- which are not closed --- */

void breakers_list(struct breakers *b, uint32_t slot)
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
struct backend *breakers_backend_at(struct breakers *b, uint32_t slot, struct slot_info *info)
{
	struct backend *backend = &b->backends[slot];

	if (!services_backend(b->services, slot, info))
		return NULL;
	if (backend->generation != info->ref.generation) {
		backend->generation = info->ref.generation;
		backend->breaker = (struct breaker){0};
		backend->told_ns = backend->n_untold = 0;
		backend->soft = backend->told = backend->alone = false;
		backend->recalled = backend->greeted = false;
		backend->again_ns = backend->doubted_ns = backend->opened_ns = 0;
		backend->n_checks_failed = 0;
		backend->evidence[0] = '\0';
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

	if (!breakers_is_only_silent(s) || backend->alone)
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

void breakers_say_untold(uint32_t n, char out[static BREAKERS_UNTOLD_LEN])
{
	out[0] = '\0';
	if (n)
		snprintf(out, BREAKERS_UNTOLD_LEN, "; it was open %u times more since the last that was told", n);
}

static void tell_open(struct breakers *b, const struct slot_info *info, struct backend *backend, const char *evidence,
		      enum cure_mode mode)
{
	char id[SLOT_ID_STRLEN], untold[BREAKERS_UNTOLD_LEN];

	breakers_say_untold(backend->n_untold, untold);
	backend->n_untold = 0;
	events_add(b->events, EVENT_WARNING, "breaker_open", cure_name[CURE_WALL], slots_id(info, id), "%s%s%s",
		   evidence, mode == CURE_SHADOW ? " (shadow: it gets new flows all the same)" : "", untold);
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

/* Clients of a silent one would wait for a quarter of an hour. An order about its removal goes before. */
static void reap_dead(struct breakers *b, uint32_t slot, const struct streak *s)
{
	if (breakers_is_only_silent(s) && dataplane_reap_ordered(b->dp, slot) == REAP_NONE)
		dataplane_reap(b->dp, slot, &(struct reap_order){.cause = REAP_DEAD, .spread_ms = REAP_SPREAD_MS});
}

/* The word is open; here it is as well from now on. */
void breakers_open(struct breakers *b, const struct slot_info *info, struct backend *backend, enum breaker_cause cause,
		   const char *evidence, enum cure_mode mode, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	breaker_open(&backend->breaker, cause, now_ns, chance(slot, now_ns));
	snprintf(backend->evidence, sizeof(backend->evidence), "%s", evidence);
	backend->opened_ns = now_ns;
	backend->greeted = false;
	dataplane_responses_forget(b->dp, slot);
	dataplane_backend_due(b->dp, slot, backend->breaker.until_ns);
	breakers_list(b, slot);
	if (cause == BREAKER_CONNECT && !backend->doubted_ns)
		tell_workers(b, slot);
	backend->told = may_tell(backend, now_ns);
	if (backend->told)
		tell_open(b, info, backend, evidence, mode);
}

void breakers_take_back(struct breakers *b, const struct slot_info *info, struct backend *backend, const char *why,
			uint64_t now_ns)
{
	dataplane_reap_cancel(b->dp, info->ref.slot, REAP_DEAD);
	dataplane_backend_due(b->dp, info->ref.slot, 0);
	breaker_annul(&backend->breaker, now_ns);
	tell_step(b, info, backend, "taken back: %s", why);
}

static uint64_t checks_failed(const struct breakers *b, uint32_t slot)
{
	struct backend_report r;

	observe_backend(b->dp, slot, &r);
	return r.checks_failed;
}

static void confirm(struct breakers *b, const struct slot_info *info, struct backend *backend, const struct streak *s,
		    enum cure_mode mode, uint64_t now_ns)
{
	char evidence[BREAKER_EVIDENCE_LEN];

	/* From half-open it goes on as it was. */
	backend->soft &= backend->breaker.state == BREAKER_HALF_OPEN;
	if (streak_length(s))
		breaker_evidence(s, checks_failed(b, info->ref.slot), evidence, sizeof(evidence));
	else
		snprintf(evidence, sizeof(evidence), "a flow that tried it was reset before its first byte");
	reap_dead(b, info->ref.slot, s);
	breakers_open(b, info, backend, streak_length(s) ? BREAKER_CONNECT : BREAKER_RESPONSE, evidence, mode, now_ns);
}

/* In shadow nobody keeps flows from it, so that its next answer says all there is to say. */
static void close_answered(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	uint64_t since_ns = backend->breaker.since_ns;
	bool was_told = backend->breaker.state != BREAKER_CLOSED;

	dataplane_reap_cancel(b->dp, info->ref.slot, REAP_DEAD);
	dataplane_backend_due(b->dp, info->ref.slot, now_ns);
	breakers_change_word(b, info->ref.slot, to_closed);
	breaker_annul(&backend->breaker, now_ns);
	if (was_told)
		tell_step(b, info, backend, "answered a SYN %.1f s after it was opened", seconds(now_ns - since_ns));
}

/* --- half-open and ramp --- */

static void try_it(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	dataplane_reap_cancel(b->dp, slot, REAP_DEAD);
	dataplane_trial_begin(b->dp, slot, false);
	dataplane_responses_forget(b->dp, slot);
	dataplane_backend_due(b->dp, slot, now_ns);
	breakers_change_word(b, slot, to_half_open);
	tell_step(b, info, backend, "%u probes in a row answered: real flows try it, one at a time",
		  backend->breaker.answers);
}

void breakers_begin_ramp(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	breaker_ramp(&backend->breaker, now_ns);
	dataplane_backend_share(b->dp, slot, breaker_share(&backend->breaker, now_ns));
	breakers_change_word(b, slot, to_ramp);
	breakers_list(b, slot);
}

static void begin_ramp(struct breakers *b, const struct slot_info *info, struct backend *backend, uint64_t now_ns)
{
	breakers_begin_ramp(b, info, backend, now_ns);
	tell_step(b, info, backend, "%d flows in a row got a response: it gets its flows back in %llu s", TRIAL_WINS,
		  BREAKER_RAMP_NS / 1000000000);
}

static void close_ramped(struct breakers *b, const struct slot_info *info, struct backend *backend)
{
	breakers_change_word(b, info->ref.slot, to_ramped);
	tell_step(b, info, backend, "%llu s without opening again", BREAKER_RAMP_NS / 1000000000);
}

/*
 * max(1 s, ten times what first bytes take), and no longer than anybody waits for one. Who asked nothing has none of
 * that: clients that are slow to ask, or have slow answers, shall not keep the others out.
 */
static uint64_t trial_ns(const struct breakers *b, uint32_t slot, enum trial_phase phase)
{
	uint64_t ns = 10 * UINT64_C(1000) * observe_first_byte_us(b->dp, slot);

	/* That a SYN is silent, the worker says first: it knows whether the backend is. */
	if (phase == TRIAL_SYN)
		return 2 * BREAKER_TRIAL_MIN_NS;
	if (phase == TRIAL_IDLE || ns < BREAKER_TRIAL_MIN_NS)
		return BREAKER_TRIAL_MIN_NS;
	return ns < BREAKER_TRIAL_MAX_NS ? ns : BREAKER_TRIAL_MAX_NS;
}

/* Of uploads, logs and the like: that it takes a connection is all that it ever says. */
static bool never_answers(const struct breakers *b, uint32_t slot)
{
	struct signal_report r;

	observe_signals(b->dp, slot, &r);
	return !r.answered && r.exchanges >= ONE_WAY_ENOUGH;
}

/* Who only connected says nothing of it, nor does silence while its side is down: it makes room for another. */
static void run_half_open(struct breakers *b, const struct slot_info *info, struct backend *backend,
			  enum cure_mode mode, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;
	struct streak s = streak_read(dataplane_breaker(b->dp, slot));
	uint64_t word = dataplane_trial(b->dp, slot);
	struct trial trial = trial_read(word);
	uint32_t age_ms = (uint32_t)(now_ns / 1000000) - trial.since_ms;

	/* A worker opened it, and says so. */
	if (s.state != BREAKER_HALF_OPEN)
		return;
	if (trial.wins >= TRIAL_WINS) {
		begin_ramp(b, info, backend, now_ns);
		return;
	}
	if (trial.phase == TRIAL_FREE || (int32_t)age_ms < 0 ||
	    age_ms * UINT64_C(1000000) < trial_ns(b, slot, trial.phase))
		return;
	if (trial.phase != TRIAL_SYN && never_answers(b, slot)) {
		dataplane_trial_win(b->dp, slot, word);
		return;
	}
	if (trial.phase == TRIAL_IDLE || s.side_down) {
		dataplane_trial_begin(b->dp, slot, true);
		return;
	}
	breakers_change_word(b, slot, breakers_to_open);
	breakers_open(b, info, backend, BREAKER_RESPONSE,
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

/* The wall is off: nothing is measured, so nothing may be left of what was. An operator's word stands. */
static void forget(struct breakers *b, uint32_t slot)
{
	struct slot_info info;
	struct backend *backend = breakers_backend_at(b, slot, &info);

	if (!backend || streak_read(dataplane_breaker(b->dp, slot)).forced)
		return;
	dataplane_reap_cancel(b->dp, slot, REAP_DEAD);
	dataplane_backend_due(b->dp, slot, 0);
	breakers_change_word(b, slot, to_closed);
	backend->breaker = (struct breaker){0};
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

		if (s.side_down || (s.state == BREAKER_OPEN && breakers_is_only_silent(&s)))
			return true;
	}
	return false;
}

/* True: there may be more to say later. */
static bool settle(struct breakers *b, uint32_t slot, enum cure_mode mode, uint64_t now_ns)
{
	struct streak s = streak_read(dataplane_breaker(b->dp, slot));
	struct slot_info info;
	struct backend *backend = breakers_backend_at(b, slot, &info);

	if (!backend)
		return false;
	if (mode == CURE_OFF)
		forget(b, slot);
	else if (s.forced)
		return false;
	else if (mode == CURE_SHADOW && s.state == BREAKER_OPEN && s.answered)
		close_answered(b, &info, backend, now_ns);
	else if (s.state == BREAKER_OPEN && backend->breaker.state != BREAKER_OPEN) {
		if (is_doubtful(b, slot, &s, now_ns))
			return true;
		confirm(b, &info, backend, &s, mode, now_ns);
	} else if (s.state == BREAKER_OPEN && s.answered) {
		breakers_change_word(b, slot, to_unanswered);
		breaker_answered(&backend->breaker);
	} else if (s.state == BREAKER_HALF_OPEN) {
		run_half_open(b, &info, backend, mode, now_ns);
	} else if (s.state != BREAKER_OPEN) {
		return breakers_judge(b, &info, backend, mode, now_ns);
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

/* --- an operator's word --- */

static struct streak to_forced_open(struct streak s)
{
	return (struct streak){.state = BREAKER_OPEN, .forced = true};
}

static struct streak to_forced_closed(struct streak s)
{
	return (struct streak){.state = BREAKER_CLOSED, .forced = true};
}

static uint32_t find_slot(const struct breakers *b, const char *backend_id)
{
	char id[SLOT_ID_STRLEN];
	struct slot_info info;

	for (uint32_t slot = 0; slot < b->config.n_backend_slots; slot++)
		if (services_backend(b->services, slot, &info) && strcmp(slots_id(&info, id), backend_id) == 0)
			return slot;
	return SLOT_NONE;
}

/* What decide knew of it is over: from here on, or from the day on which it is left to itself again, it begins anew. */
int breakers_force(struct breakers *b, const char *backend_id, enum breaker_force force, enum cure_mode mode,
		   uint64_t now_ns)
{
	static struct streak (*const words[])(struct streak s) = {to_closed, to_forced_open, to_forced_closed};
	uint32_t slot = find_slot(b, backend_id);
	struct slot_info info;
	struct backend *backend;

	if (slot == SLOT_NONE)
		return breakers_force_gone(b, backend_id, force, now_ns);
	if (mode == CURE_OFF)
		return -EPERM;
	backend = breakers_backend_at(b, slot, &info);
	dataplane_reap_cancel(b->dp, slot, REAP_DEAD);
	dataplane_responses_forget(b->dp, slot);
	breaker_annul(&backend->breaker, now_ns);
	backend->doubted_ns = backend->again_ns = 0;
	/* Never the last resort, where others are open by themselves. */
	dataplane_backend_due(b->dp, slot, force == FORCE_OPEN ? UINT64_MAX : 0);
	breakers_change_word(b, slot, words[force]);
	return 0;
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
		try_it(b, info, backend, now_ns);
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
		/* Nobody tries it in shadow, and its probes were answered. */
		if (mode == CURE_SHADOW)
			close_answered(b, info, backend, now_ns);
		else
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
		struct backend *backend = breakers_backend_at(b, b->open[i], &info);

		if (backend && mode == CURE_OFF)
			forget(b, b->open[i]);
		if (!backend || !run_one(b, &info, backend, mode, now_ns))
			unlist_at(b, i);
		else if (backend->breaker.state != BREAKER_OPEN)
			b->try_ns = now_ns + BREAKERS_TRY_NS;
	}
}

void breakers_run(struct breakers *b, enum cure_mode mode, uint64_t now_ns)
{
	if (mode == CURE_OFF) {
		breakers_forget_sides(b);
		breaker_memory_clear(b->memory);
	} else if (concerns_sides(b) || now_ns >= b->look_ns) {
		breakers_look_at_sides(b, now_ns);
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
