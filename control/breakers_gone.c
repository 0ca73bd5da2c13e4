/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Backends that lose their slot and get one again. State is per (address, port, protocol), whatever DNS says meanwhile:
 * what was open is open when it comes back, and is probed at once; an operator's word is held until he says otherwise.
 */
#include "breakers_private.h"
#include "cure.h"
#include "dataplane.h"
#include "events.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Closed and healed, or only new to its set: there is nothing to remember. */
static bool is_worth_it(const struct breaker_past *past, uint64_t now_ns)
{
	return past->streak.forced || breaker_openings(&past->breaker, now_ns) || past->breaker.state == BREAKER_OPEN ||
	       past->breaker.state == BREAKER_HALF_OPEN;
}

/* Of the word only what decide settled, and what says why it is open: an answer or its side's mark is of its time. */
static struct streak settled(const struct breaker *breaker, const struct streak *word)
{
	struct streak s = {.state = word->forced ? word->state : breaker->state, .forced = word->forced};

	if (breaker->state == BREAKER_OPEN && word->state == BREAKER_OPEN)
		memcpy(s.failures, word->failures, sizeof(s.failures));
	return s;
}

static void remember(void *arg, const struct slot_info *info, uint64_t now_ns)
{
	struct breakers *b = arg;
	const struct backend *backend = &b->backends[info->ref.slot];
	struct streak word = streak_read(dataplane_breaker(b->dp, info->ref.slot));
	struct breaker_past past = {
		.who = *info,
		.left_ns = now_ns,
		.streak = settled(&backend->breaker, &word),
		.breaker = backend->breaker,
		.soft = backend->soft,
		.told = backend->told,
		.n_untold = backend->n_untold,
		.opened_ns = backend->opened_ns,
	};

	memcpy(past.evidence, backend->evidence, sizeof(past.evidence));
	breaker_memory_age(b->memory, now_ns);
	if (backend->generation == info->ref.generation && is_worth_it(&past, now_ns))
		breaker_memory_put(b->memory, &past);
}

void breakers_forgotten(void *arg, const struct breaker_past *past)
{
	struct breakers *b = arg;
	char id[SLOT_ID_STRLEN], untold[BREAKERS_UNTOLD_LEN];

	slots_id(&past->who, id);
	breakers_say_untold(past->n_untold, untold);
	if (past->streak.forced)
		events_add(b->events, EVENT_WARNING, "breaker_set", cure_name[CURE_WALL], id,
			   "left to itself again: more than %d backends that are gone are held by a command",
			   BREAKER_MEMORY_MAX);
	else if (past->n_untold || (past->told && past->breaker.state != BREAKER_CLOSED))
		events_add(b->events, EVENT_INFO, "breaker_closed", cure_name[CURE_WALL], id,
			   "forgotten: it is gone, and was %s when it left%s", breaker_state_name[past->breaker.state],
			   untold);
}

/* --- back again --- */

/* The slot is in no policy yet: nobody else writes. */
static void put_word(struct breakers *b, uint32_t slot, const struct streak *s)
{
	uint64_t seen = dataplane_breaker(b->dp, slot);

	while (!dataplane_breaker_change(b->dp, slot, &seen, streak_word(s)))
		;
}

static void restore(struct breakers *b, const struct slot_info *info, struct backend *backend,
		    const struct breaker_past *past, uint64_t now_ns)
{
	uint32_t slot = info->ref.slot;

	backend->breaker = past->breaker;
	backend->soft = past->soft;
	backend->told = past->told;
	backend->n_untold = past->n_untold;
	backend->opened_ns = past->opened_ns;
	memcpy(backend->evidence, past->evidence, sizeof(backend->evidence));
	put_word(b, slot, &past->streak);
	if (past->streak.forced && past->streak.state == BREAKER_OPEN)
		dataplane_backend_due(b->dp, slot, UINT64_MAX);
	switch (backend->breaker.state) {
	case BREAKER_OPEN:
		breaker_resume(&backend->breaker, now_ns);
		dataplane_backend_due(b->dp, slot, backend->breaker.until_ns);
		breakers_list(b, slot);
		break;
	case BREAKER_HALF_OPEN:
		breakers_list(b, slot);
		break;
	case BREAKER_RAMP:
		/* What it had proved is old: from the beginning. */
		backend->breaker.state = BREAKER_CLOSED;
		breakers_begin_ramp(b, info, backend, now_ns);
		break;
	default:
		break;
	}
}

/* Before a worker can choose it: no flow shall be the first to find out again. */
static void recall(void *arg, uint64_t now_ns)
{
	struct breakers *b = arg;

	breaker_memory_age(b->memory, now_ns);
	for (uint32_t slot = 0; slot < b->config.n_backend_slots && breaker_memory_count(b->memory); slot++) {
		struct breaker_past past;
		struct slot_info info;
		struct backend *backend = breakers_backend_at(b, slot, &info);

		if (backend && !backend->recalled && breaker_memory_take(b->memory, &info, &past))
			restore(b, &info, backend, &past, now_ns);
		if (backend)
			backend->recalled = true;
	}
}

const struct services_watcher breakers_watcher = {.before_publish = recall, .freed = remember};

/* --- an operator's word about one that is gone --- */

int breakers_force_gone(struct breakers *b, const char *backend_id, enum breaker_force force, uint64_t now_ns)
{
	struct breaker_past past;

	if (!breaker_memory_take_id(b->memory, backend_id, &past))
		return -ENOENT;
	if (force == FORCE_AUTO)
		return 0;
	past.streak = (struct streak){
		.state = force == FORCE_OPEN ? BREAKER_OPEN : BREAKER_CLOSED,
		.forced = true,
	};
	breaker_annul(&past.breaker, now_ns);
	breaker_memory_put(b->memory, &past);
	return 0;
}
