/* SPDX-License-Identifier: BSD-3-Clause */
#include "signals.h"
#include "hash.h"
#include "memory.h"
#include "outcome.h"
#include "retry.h"
#include "tcp_options.h"
#include "trial.h"
#include "wall.h"

#include <errno.h>

#define RECORDS_MAX    4096
#define MEAN_SHIFT     4       /* of a sixteenth each, the last first bytes make up the mean */
#define GAVE_UP_FACTOR 2       /* who leaves within twice the median may have other reasons, */
#define GAVE_UP_MIN_US 1000000 /* and where there is none yet, within this time */
#define UNIT_NS        (UINT64_C(1) << SIGNAL_UNIT_SHIFT)
#define REMEMBERED     4                                       /* units, about */
#define FRESH_AT_ONCE  2                                       /* units whose handshakes are fresh at a time */
#define TRUSTED_US     (16 * UINT64_C(1000) * SIGNAL_FRESH_MS) /* a few that are unfinished mean nothing */

static_assert((SIGNAL_ONE_WAY_MS * UINT64_C(1000000) >> SIGNAL_UNIT_SHIFT) + 2 < SIGNAL_UNITS, "goes round once");
static_assert(SIGNAL_ZOMBIE_MAX_MS < SIGNAL_ONE_WAY_MS, "so does this");
static_assert((SIGNAL_FRESH_MS * UINT64_C(1000000) >> SIGNAL_UNIT_SHIFT) + 2 < SIGNAL_FRESH_UNITS, "and this");

/* --- life --- */

static uint32_t n_records(const struct dataplane_config *config)
{
	return RTE_MIN(config->n_backend_slots, (uint32_t)RECORDS_MAX);
}

uint64_t signals_bytes(const struct dataplane_config *config)
{
	return config->n_backend_slots * (uint64_t)sizeof(struct signal_counts) +
	       n_records(config) * (uint64_t)(sizeof(struct signal_record) + sizeof(uint32_t));
}

int signals_init(struct signals *s, const struct dataplane_config *config, uint64_t now_ns)
{
	s->n_records = n_records(config);
	s->counts = memory_alloc(config->n_backend_slots * sizeof(*s->counts));
	s->records = memory_alloc(s->n_records * sizeof(*s->records));
	s->free = memory_alloc(s->n_records * sizeof(*s->free));
	s->unit = s->searched = now_ns >> SIGNAL_UNIT_SHIFT;
	return s->counts && s->records && s->free ? 0 : -ENOMEM;
}

void signals_fini(struct signals *s)
{
	memory_free(s->counts);
	memory_free(s->records);
	memory_free(s->free);
}

/* --- records --- */

static bool is_used(const struct signals *s, uint32_t number)
{
	return __atomic_load_n(&s->counts[s->records[number - 1].slot].record, __ATOMIC_RELAXED) == number;
}

/* Decide resets a slot that has no flows; nobody tells its record. */
static void find_free(struct worker *w)
{
	struct signals *s = &w->signals;

	if (s->searched == s->unit)
		return;
	s->searched = s->unit;
	for (uint32_t number = 1; number <= s->n_used; number++)
		if (!is_used(s, number))
			s->free[s->n_free++] = number;
}

static uint32_t take_number(struct worker *w)
{
	struct signals *s = &w->signals;

	if (s->n_used < s->n_records)
		return ++s->n_used;
	if (!s->n_free)
		find_free(w);
	return s->n_free ? s->free[--s->n_free] : 0;
}

static struct signal_record *record_at(const struct worker *w, uint32_t number)
{
	return &w->signals.records[number - 1];
}

/* Readers may still look at what its last owner left: word by word, as they do. */
static void clear_record(struct signal_record *record, uint32_t slot)
{
	uint32_t *words = (uint32_t *)record;

	for (size_t i = 0; i < sizeof(*record) / sizeof(*words); i++)
		__atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&record->slot, slot, __ATOMIC_RELAXED);
}

/* False: there is none left. */
static bool has_record(struct worker *w, uint32_t slot)
{
	struct signal_counts *c = &w->signals.counts[slot];
	uint32_t number;

	if (c->record)
		return true;
	number = take_number(w);
	if (!number) {
		count_add(&c->unrecorded, 1);
		return false;
	}
	clear_record(record_at(w, number), slot);
	/* The slot's last owner may have been swept when it had been reset already. */
	__atomic_store_n(&c->doubt, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&c->is_doubting, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&c->record, number, __ATOMIC_RELEASE);
	return true;
}

/* Of a backend that has one. */
static struct signal_record *record_of(const struct worker *w, uint32_t slot)
{
	return record_at(w, w->signals.counts[slot].record);
}

static void level_add(uint32_t *level, int n)
{
	__atomic_store_n(level, *level + n, __ATOMIC_RELAXED);
}

/* --- seconds --- */

static struct signal_second *second_now(const struct worker *w, uint32_t slot)
{
	uint32_t number = w->now_ns / 1000000000 + 1;
	struct signal_second *s = &record_of(w, slot)->seconds[number % SIGNAL_SECONDS];
	uint32_t *words = (uint32_t *)s;

	if (s->number == number)
		return s;
	for (size_t i = 0; i < sizeof(*s) / sizeof(*words); i++)
		__atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&s->number, number, __ATOMIC_RELEASE);
	return s;
}

static void note_success(struct worker *w, uint32_t slot, enum signal_class class)
{
	level_add(&second_now(w, slot)->success[class], 1);
}

/* Never 0. */
static uint32_t network_of(const struct worker *w, flow_ref ref)
{
	struct flow_addrs addrs;
	struct ipaddr prefix;
	unsigned len;
	uint32_t hash;

	flow_addrs(&w->flows, flow_ref_up(ref), &addrs);
	prefix = outcome_prefix(&addrs.client, &len);
	hash = hash_keyed(&prefix, sizeof(prefix), w->dp->config.secret);
	return hash ? hash : 1;
}

static void note_network(struct signal_second *s, uint32_t network)
{
	for (unsigned i = 0; i < SIGNAL_NETWORKS; i++) {
		if (s->networks[i] == network)
			return;
		if (!s->networks[i]) {
			__atomic_store_n(&s->networks[i], network, __ATOMIC_RELAXED);
			return;
		}
	}
}

static void note_failure(struct worker *w, flow_ref ref, enum signal_failure failure)
{
	uint32_t slot = flow_track(&w->flows, ref)->backend_slot;
	struct signal_second *s = second_now(w, slot);

	level_add(&s->failed[failure], 1);
	note_network(s, network_of(w, ref));
	count_add(&w->signals.counts[slot].failures[failure], 1);
}

/* --- trials of half-open backends --- */

static uint64_t *trial_of(const struct worker *w, const struct flow_track *track)
{
	return &w->cells->backends[track->backend_slot].trial;
}

static uint8_t generation_of(const struct flow_track *track)
{
	return track->signals >> SIGNAL_GENERATION_SHIFT;
}

static_assert(TRIAL_GENERATIONS <= 1 << (16 - SIGNAL_GENERATION_SHIFT), "a flow has room for it");

bool signals_try(struct worker *w, flow_ref up, uint8_t generation)
{
	struct flow_track *track = flow_track(&w->flows, up);

	if (!(track->signals & SIGNAL_FLAG_MEASURED))
		return false;
	track->signals |= SIGNAL_FLAG_TRIAL | generation << SIGNAL_GENERATION_SHIFT;
	return true;
}

static void move_trial(struct worker *w, const struct flow_track *track, enum trial_phase phase)
{
	if (__builtin_expect(track->signals & SIGNAL_FLAG_TRIAL, 0))
		trial_move(trial_of(w, track), generation_of(track), phase, CLOCK_MS(w->now_ns));
}

static void end_trial(struct worker *w, struct flow_track *track, bool won)
{
	if (__builtin_expect(!(track->signals & SIGNAL_FLAG_TRIAL), 1))
		return;
	track->signals &= ~SIGNAL_FLAG_TRIAL;
	if (trial_end(trial_of(w, track), generation_of(track), won, CLOCK_MS(w->now_ns)) >= TRIAL_WINS)
		wall_tell(w, track->backend_slot);
}

/* --- what ends by itself --- */

static uint32_t unit_in_ms(const struct worker *w, uint32_t ms)
{
	return (w->now_ns + ms * UINT64_C(1000000) + UNIT_NS - 1) >> SIGNAL_UNIT_SHIFT;
}

/* It was not swept yet. */
static bool is_ahead(const struct worker *w, uint32_t unit)
{
	return (int32_t)(unit - w->signals.unit) > 0;
}

/* max(2 * mean, 1 s), 10 s at the most. */
static uint32_t zombie_ms(const struct signal_counts *c)
{
	uint32_t ms = c->first_byte_us16 / (1 << MEAN_SHIFT) / 1000 * 2;

	return RTE_MIN(RTE_MAX(ms, (uint32_t)SIGNAL_ZOMBIE_MIN_MS), (uint32_t)SIGNAL_ZOMBIE_MAX_MS);
}

/* Returns the unit with whose end it is over. */
static uint32_t begin_zombie(struct worker *w, uint32_t slot)
{
	struct signal_counts *c = &w->signals.counts[slot];
	uint32_t unit = unit_in_ms(w, zombie_ms(c));

	record_of(w, slot)->zombie_ends[unit % SIGNAL_UNITS]++;
	level_add(&c->zombies, 1);
	count_add(&c->zombies_ever, 1);
	return unit;
}

static void end_zombie(struct worker *w, uint32_t slot, uint32_t unit)
{
	if (!is_ahead(w, unit))
		return;
	record_of(w, slot)->zombie_ends[unit % SIGNAL_UNITS]--;
	level_add(&w->signals.counts[slot].zombies, -1);
}

static void open_exchange(struct worker *w, struct flow_track *track)
{
	struct signal_counts *c = &w->signals.counts[track->backend_slot];

	track->exchange_unit = unit_in_ms(w, SIGNAL_ONE_WAY_MS);
	track->signals = (track->signals | SIGNAL_FLAG_OPEN) & ~(SIGNAL_FLAG_AGAIN | SIGNAL_FLAG_GAVE_UP);
	record_of(w, track->backend_slot)->open_ends[track->exchange_unit % SIGNAL_UNITS]++;
	level_add(&c->open, 1);
	count_add(&c->exchanges, 1);
	move_trial(w, track, TRIAL_ASKED);
}

static void close_exchange(struct worker *w, struct flow_track *track)
{
	struct signal_counts *c = &w->signals.counts[track->backend_slot];

	track->signals &= ~SIGNAL_FLAG_OPEN;
	if (!is_ahead(w, track->exchange_unit)) {
		level_add(&c->one_way, -1);
		return;
	}
	record_of(w, track->backend_slot)->open_ends[track->exchange_unit % SIGNAL_UNITS]--;
	level_add(&c->open, -1);
}

/* --- what is fresh --- */

static struct signal_fresh *fresh_of(const struct worker *w, const struct flow_track *track)
{
	return &record_of(w, track->backend_slot)->fresh[track->exchange_unit % SIGNAL_FRESH_UNITS];
}

static uint64_t fresh_left_us(const struct worker *w, const struct flow_track *track)
{
	return (((uint64_t)track->exchange_unit << SIGNAL_UNIT_SHIFT) - w->now_ns) / 1000;
}

static void begin_fresh(struct worker *w, struct flow_track *track)
{
	struct signal_counts *c = &w->signals.counts[track->backend_slot];
	struct signal_fresh *fresh;

	track->fresh = true;
	track->begun = false;
	track->exchange_unit = unit_in_ms(w, SIGNAL_FRESH_MS);
	fresh = fresh_of(w, track);
	fresh->n_answered++;
	fresh->us += fresh_left_us(w, track);
	level_add(&c->answered_now, 1);
	__atomic_store_n(&c->is_doubting, true, __ATOMIC_RELAXED);
}

static void leave_answered(struct worker *w, const struct flow_track *track)
{
	struct signal_fresh *fresh = fresh_of(w, track);

	fresh->n_answered--;
	fresh->us -= fresh_left_us(w, track);
	level_add(&w->signals.counts[track->backend_slot].answered_now, -1);
}

static uint64_t fade(uint64_t us)
{
	return us - (us + REMEMBERED - 1) / REMEMBERED;
}

/*
 * A client far away: as long as its handshake was fresh it was doubted, and what that was counted for is in the sum of
 * units before, where it has faded since.
 */
static void trust_late(struct worker *w, const struct flow_track *track)
{
	struct signal_record *record = record_of(w, track->backend_slot);
	uint32_t n_units = w->signals.unit - track->exchange_unit;
	uint64_t past_ns = w->now_ns - ((uint64_t)track->exchange_unit << SIGNAL_UNIT_SHIFT), all_us, us;

	if (n_units >= SIGNAL_STALL_UNITS)
		return;
	/* Of the running clock, as the other. */
	past_ns -= RTE_MIN(past_ns, w->stalled_ns - w->signals.stalled_ns[track->exchange_unit % SIGNAL_STALL_UNITS]);
	all_us = w->run_us - track->asked_us;
	us = all_us > past_ns / 1000 ? all_us - past_ns / 1000 : 0;
	for (uint32_t i = 0; i < n_units; i++)
		us = fade(us);
	record->finished_us += us;
}

/* Its client finished the handshake, with data or before it. */
static void finish_handshake(struct worker *w, struct flow_track *track)
{
	if (!track->fresh || track->begun)
		return;
	track->begun = true;
	if (!is_ahead(w, track->exchange_unit)) {
		trust_late(w, track);
		return;
	}
	leave_answered(w, track);
	fresh_of(w, track)->finished_us += w->run_us - track->asked_us;
	fresh_of(w, track)->n++;
	level_add(&w->signals.counts[track->backend_slot].fresh, 1);
}

static void end_fresh(struct worker *w, struct flow_track *track)
{
	if (!track->fresh)
		return;
	track->fresh = false;
	if (!is_ahead(w, track->exchange_unit))
		return;
	if (!track->begun) {
		leave_answered(w, track);
		return;
	}
	fresh_of(w, track)->n--;
	level_add(&w->signals.counts[track->backend_slot].fresh, -1);
}

static void sweep_fresh(struct signal_counts *c, struct signal_record *record, uint32_t unit)
{
	struct signal_fresh *fresh = &record->fresh[unit % SIGNAL_FRESH_UNITS];
	bool more = false;
	uint64_t in_vain;

	level_add(&c->fresh, -(int)fresh->n);
	level_add(&c->answered_now, -(int)fresh->n_answered);
	record->us = fade(record->us) + fresh->us;
	record->finished_us = fade(record->finished_us) + fresh->finished_us;
	*fresh = (struct signal_fresh){0};
	for (unsigned i = 0; i < SIGNAL_FRESH_UNITS; i++)
		more |= record->fresh[i].us || record->fresh[i].finished_us;
	/* Either is rounded. */
	in_vain = record->us > record->finished_us ? record->us - record->finished_us : 0;
	__atomic_store_n(&c->doubt, (in_vain << 16) / (record->us + TRUSTED_US), __ATOMIC_RELAXED);
	more |= c->answered_now || record->us || record->finished_us;
	__atomic_store_n(&c->is_doubting, more, __ATOMIC_RELAXED);
}

/*
 * Time in which the worker did not run is not theirs: what may have finished them waits in the rings. Of each, all that
 * is left of its unit is in the sum still.
 */
void signals_stalled(struct worker *w, uint64_t gap_ns)
{
	struct signals *s = &w->signals;

	for (uint32_t number = 1; number <= s->n_used; number++)
		for (uint32_t u = s->unit + 1; u <= s->unit + FRESH_AT_ONCE; u++) {
			struct signal_fresh *fresh = &record_at(w, number)->fresh[u % SIGNAL_FRESH_UNITS];
			uint64_t left_ns = ((uint64_t)u << SIGNAL_UNIT_SHIFT) - w->now_ns;

			fresh->us -= fresh->n_answered * (RTE_MIN(gap_ns, left_ns) / 1000);
		}
}

static void sweep_record(struct signals *s, struct signal_record *record, uint32_t unit)
{
	struct signal_counts *c = &s->counts[record->slot];
	uint32_t *open = &record->open_ends[unit % SIGNAL_UNITS], *zombies = &record->zombie_ends[unit % SIGNAL_UNITS];

	if (*open) {
		level_add(&c->open, -(int)*open);
		level_add(&c->one_way, *open);
		*open = 0;
	}
	sweep_fresh(c, record, unit);
	if (*zombies) {
		/* With release, and last: see dataplane_backend_unused(). */
		uint32_t left = c->zombies - *zombies;

		*zombies = 0;
		__atomic_store_n(&c->zombies, left, __ATOMIC_RELEASE);
	}
}

/* Decide may reset the slot meanwhile, but then it has none but those of what is doubted. */
static bool has_ends(const struct signals *s, uint32_t number)
{
	const struct signal_counts *c = &s->counts[s->records[number - 1].slot];

	return is_used(s, number) && __atomic_load_n(&c->open, __ATOMIC_RELAXED) +
					     __atomic_load_n(&c->zombies, __ATOMIC_RELAXED) +
					     __atomic_load_n(&c->fresh, __ATOMIC_RELAXED) +
					     __atomic_load_n(&c->is_doubting, __ATOMIC_RELAXED);
}

/* Units that nobody looked at are over all the same; of more than there are, each once. */
void signals_sweep(struct worker *w, uint32_t unit)
{
	struct signals *s = &w->signals;
	uint32_t n = RTE_MIN(unit - s->unit, (uint32_t)SIGNAL_UNITS);

	for (uint32_t number = 1; number <= s->n_used; number++) {
		struct signal_record *record = record_at(w, number);

		for (uint32_t u = unit - n + 1; has_ends(s, number) && u != unit + 1; u++)
			sweep_record(s, record, u);
	}
	for (uint32_t u = unit - RTE_MIN(n, (uint32_t)SIGNAL_STALL_UNITS) + 1; u != unit + 1; u++)
		s->stalled_ns[u % SIGNAL_STALL_UNITS] = w->stalled_ns;
	s->unit = unit;
}

/* --- SYNs --- */

static bool is_measured(const struct flow_track *track)
{
	return flow_mode(track, CURE_WALL) != CURE_OFF || flow_mode(track, CURE_STORM) != CURE_OFF;
}

void signals_begin(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	flow_half(&w->flows, up)->watch = flow_half(&w->flows, flow_ref_other(up))->watch = false;
	track->signals = 0;
	track->fresh = false;
	if (!is_measured(track) || !has_record(w, track->backend_slot))
		return;
	track->signals = SIGNAL_FLAG_MEASURED | SIGNAL_FLAG_WAITING;
	track->syn_us = w->run_us;
	level_add(&w->signals.counts[track->backend_slot].waiting, 1);
}

void signals_stop_waiting(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	track->signals &= ~SIGNAL_FLAG_WAITING;
	level_add(&w->signals.counts[track->backend_slot].waiting, -1);
}

/* A SYN that was sent more than once gives no time: nobody knows which of them was answered. */
void signals_answered(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	struct flow_half *half = flow_half(&w->flows, up);

	if (!(track->signals & SIGNAL_FLAG_MEASURED))
		return;
	if (half->packets == 1)
		histogram_add(&record_of(w, track->backend_slot)->handshake, w->run_us - track->syn_us, w->now_ns);
	note_success(w, track->backend_slot, SIGNAL_CONNECT);
	signals_leave(w, up);
	move_trial(w, track, TRIAL_IDLE);
	half->watch = flow_half(&w->flows, flow_ref_other(up))->watch = true;
	/* In the place of what the SYN needed. */
	track->asked_us = w->run_us;
	begin_fresh(w, track);
	track->quiet_packets = 0;
}

void signals_connected(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	if (!(track->signals & SIGNAL_FLAG_MEASURED))
		return;
	finish_handshake(w, track);
	/* Who speaks first may do so from now on. */
	if (!(track->signals & (SIGNAL_FLAG_OPEN | SIGNAL_FLAG_ANSWERED)))
		track->asked_us = w->run_us;
	flow_syn(&w->flows, up)->signal_ms = w->run_ms;
}

/* One that said no has nothing to do; one that said nothing may have much. */
void signals_move(struct worker *w, flow_ref up, struct tuple *ghost)
{
	struct flow_track *track = flow_track(&w->flows, up);

	ghost->zombie = track->signals & SIGNAL_FLAG_WAITING;
	if (ghost->zombie)
		ghost->zombie_unit = begin_zombie(w, track->backend_slot);
	signals_leave(w, up);
	end_trial(w, track, false);
	signals_decide(w, up, SIGNAL_FAILED);
}

void signals_ghost_answered(struct worker *w, struct tuple *ghost)
{
	if (!ghost->zombie)
		return;
	ghost->zombie = false;
	end_zombie(w, ghost->backend_slot, ghost->zombie_unit);
}

void signals_fail(struct worker *w, flow_ref up, enum signal_failure failure)
{
	if (flow_track(&w->flows, up)->signals & SIGNAL_FLAG_MEASURED)
		note_failure(w, up, failure);
}

/* --- outcomes and ends --- */

void signals_decide(struct worker *w, flow_ref ref, enum signal_outcome outcome)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	if (track->signals & SIGNAL_FLAG_DECIDED)
		return;
	track->signals |= SIGNAL_FLAG_DECIDED;
	count_add(&w->signals.counts[track->backend_slot].outcomes[outcome], 1);
}

void signals_superseded(struct worker *w, flow_ref ref)
{
	count_add(&w->signals.counts[flow_track(&w->flows, ref)->backend_slot].outcomes[SIGNAL_NEUTRAL], 1);
}

void signals_cut(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	signals_leave(w, ref);
	end_trial(w, track, false);
	end_fresh(w, track);
	if (track->signals & SIGNAL_FLAG_OPEN)
		close_exchange(w, track);
}

/* A zombie outlives its flow: it is over when its time is. */
void signals_over(struct worker *w, flow_ref ref)
{
	signals_cut(w, ref);
	signals_decide(w, ref, SIGNAL_NEUTRAL);
}

/* --- exchanges --- */

static void client_data(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);

	finish_handshake(w, track);
	track->asked_us = w->run_us;
	/* Behind the backend's FIN, or any RST, nothing is answered but by a RST, which is its right. */
	if (track->signals & (SIGNAL_FLAG_OPEN | SIGNAL_FLAG_ZOMBIE) || track->fin_seen & 1 << DIR_DOWN ||
	    flow_half(&w->flows, up)->state == FLOW_CLOSED)
		return;
	end_fresh(w, track);
	open_exchange(w, track);
	flow_half(&w->flows, flow_ref_other(up))->watch = true;
}

static void learn_first_byte(struct worker *w, struct flow_track *track)
{
	struct signal_counts *c = &w->signals.counts[track->backend_slot];
	uint32_t us = RTE_MIN(w->run_us - track->asked_us, HISTOGRAM_MAX_US);

	histogram_add(&record_of(w, track->backend_slot)->first_byte, us, w->now_ns);
	count_add(&c->timed, 1);
	count_add(&c->timed_us, us);
	__atomic_store_n(&c->first_byte_us16,
			 c->first_byte_us16 ? c->first_byte_us16 - (c->first_byte_us16 >> MEAN_SHIFT) + us
					    : us << MEAN_SHIFT,
			 __ATOMIC_RELAXED);
}

static_assert((uint64_t)HISTOGRAM_MAX_US << MEAN_SHIFT <= UINT32_MAX, "holds the mean of the longest");

/*
 * What took longer than anybody waits is no response, but a message; the end of an upload is one to its last part. The
 * clock of asked_us goes round in 71 minutes: after an hour nobody knows. Of zombies the time is limited otherwise.
 */
static bool was_waited_for(const struct worker *w, const struct flow_track *track)
{
	uint32_t units = w->signals.unit - track->exchange_unit,
		 hour = 3600 * UINT64_C(1000000000) >> SIGNAL_UNIT_SHIFT;

	if (track->signals & SIGNAL_FLAG_ZOMBIE || is_ahead(w, track->exchange_unit))
		return true;
	return units < hour && w->run_us - track->asked_us < SIGNAL_ONE_WAY_MS * 1000;
}

static void upstream_data(struct worker *w, flow_ref down)
{
	struct flow_track *track = flow_track(&w->flows, down);

	flow_half(&w->flows, down)->watch = false;
	end_fresh(w, track);
	if (was_waited_for(w, track) && !(track->signals & (SIGNAL_FLAG_AGAIN | SIGNAL_FLAG_GAVE_UP)))
		learn_first_byte(w, track);
	/* Other workers ask for it, whose own flows of the backend may be silent. */
	wall_heard(w, track->backend_slot, 0);
	note_success(w, track->backend_slot, SIGNAL_RESPONSE);
	response_began(&w->cells->backends[track->backend_slot].responses);
	end_trial(w, track, true);
	signals_decide(w, down, SIGNAL_SUCCESS);
	if (track->signals & SIGNAL_FLAG_ZOMBIE)
		end_zombie(w, track->backend_slot, track->exchange_unit);
	if (track->signals & SIGNAL_FLAG_OPEN)
		close_exchange(w, track);
	count_add(&w->signals.counts[track->backend_slot].answered, 1);
	track->signals &= ~(SIGNAL_FLAG_ZOMBIE | SIGNAL_FLAG_AGAIN | SIGNAL_FLAG_GAVE_UP);
	track->signals |= SIGNAL_FLAG_ANSWERED;
}

void signals_data(struct worker *w, flow_ref ref)
{
	if (flow_ref_dir(ref) == DIR_UP)
		client_data(w, ref);
	else
		upstream_data(w, ref);
}

static uint32_t gave_up_us(const struct worker *w, uint32_t slot)
{
	uint32_t median_us = histogram_median_us(&record_of(w, slot)->first_byte, w->now_ns);

	return median_us ? GAVE_UP_FACTOR * median_us : GAVE_UP_MIN_US;
}

/* How long it waited is no more than what it would have taken. */
static void give_up(struct worker *w, struct flow_track *track, uint32_t waited_us)
{
	struct signal_counts *c = &w->signals.counts[track->backend_slot];

	track->signals |= SIGNAL_FLAG_GAVE_UP;
	count_add(&c->gave_up, 1);
	count_add(&c->gave_up_us, waited_us);
}

static void client_left(struct worker *w, flow_ref up)
{
	struct flow_track *track = flow_track(&w->flows, up);
	uint32_t waited_us = w->run_us - track->asked_us;

	end_trial(w, track, false);
	end_fresh(w, track);
	if (!(track->signals & SIGNAL_FLAG_OPEN))
		return;
	/* Of an upload or a log nobody waited for an answer. */
	if (!is_ahead(w, track->exchange_unit)) {
		close_exchange(w, track);
		return;
	}
	if (waited_us > gave_up_us(w, track->backend_slot)) {
		give_up(w, track, waited_us);
		retry_failed(w, up);
	}
	close_exchange(w, track);
	track->signals |= SIGNAL_FLAG_ZOMBIE;
	track->exchange_unit = begin_zombie(w, track->backend_slot);
}

static void upstream_left(struct worker *w, struct flow_track *track)
{
	end_trial(w, track, false);
	end_fresh(w, track);
	if (track->signals & SIGNAL_FLAG_ZOMBIE)
		end_zombie(w, track->backend_slot, track->exchange_unit);
	if (track->signals & SIGNAL_FLAG_OPEN)
		close_exchange(w, track);
	track->signals &= ~SIGNAL_FLAG_ZOMBIE;
}

void signals_fin(struct worker *w, flow_ref ref)
{
	if (flow_ref_dir(ref) == DIR_UP)
		client_left(w, ref);
	else
		upstream_left(w, flow_track(&w->flows, ref));
}

static void upstream_reset(struct worker *w, flow_ref down)
{
	struct flow_track *track = flow_track(&w->flows, down);

	if (track->signals & SIGNAL_FLAG_OPEN) {
		if (wall_predates(w, down)) {
			count_add(&w->signals.counts[track->backend_slot].failures[SIGNAL_RESET], 1);
		} else {
			note_failure(w, down, SIGNAL_RESET);
			wall_response_failed(w, down, network_of(w, down));
		}
		retry_failed(w, down);
		signals_decide(w, down, SIGNAL_FAILED);
	} else if (track->signals & SIGNAL_FLAG_ANSWERED && !(track->signals & SIGNAL_FLAG_ZOMBIE)) {
		count_add(&w->signals.counts[track->backend_slot].resets_after, 1);
	}
	upstream_left(w, track);
}

void signals_reset(struct worker *w, flow_ref ref)
{
	if (flow_ref_dir(ref) == DIR_UP)
		client_left(w, ref);
	else
		upstream_reset(w, ref);
}

uint32_t signals_waited_ms(const struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);
	uint64_t end_ns = (uint64_t)track->exchange_unit << SIGNAL_UNIT_SHIFT;
	uint64_t begun_ns = end_ns - SIGNAL_ONE_WAY_MS * UINT64_C(1000000);

	return track->signals & SIGNAL_FLAG_OPEN && w->now_ns > begun_ns ? (w->now_ns - begun_ns) / 1000000 : 0;
}

/* --- retransmissions and windows --- */

/* From its handshake's end on. */
static bool is_watched(const struct worker *w, flow_ref ref)
{
	const struct flow_half *up = flow_half(&w->flows, flow_ref_up(ref));

	return up->watch && up->state >= FLOW_ESTABLISHED;
}

#define TTL_ENOUGH 16 /* hops between the gateway and any backend */

static bool are_options_common(const struct rte_tcp_hdr *tcp)
{
	const uint8_t *options = (const uint8_t *)(tcp + 1);
	unsigned len = tcp_options_len(tcp);

	for (unsigned at = tcp_option_at(options, len, 0); at < len;
	     at = tcp_option_at(options, len, at + options[at + 1]))
		if (options[at] != TCP_OPTION_TIMESTAMPS && options[at] != TCP_OPTION_SACK)
			return false;
	return true;
}

/*
 * Any backend that lives acknowledges it: a client shall not make one look dead by what hosts and routers pass over in
 * silence. `ack`: what it acknowledges, which is nothing that was never sent.
 */
static bool is_ordinary(const struct worker *w, const struct item *it, uint32_t ack)
{
	const struct flow_half *up = flow_half(&w->flows, it->ref);
	const struct flow_half *down = flow_half(&w->flows, flow_ref_other(it->ref));
	const struct rte_tcp_hdr *tcp = (const void *)(it->frame + it->p.l4_off);
	uint32_t tsval;

	return it->p.ttl > TTL_ENOUGH && !(it->p.flags & PACKET_OPTIONS) && (int32_t)(ack - down->end) <= 0 &&
	       are_options_common(tcp) && (!up->timestamps || tcp_timestamp(tcp, &tsval)) &&
	       packet_tcp_is_right(it->frame, &it->p);
}

/* It was sent once before, but nobody knows whether that could be read. */
static void begin_stall(struct worker *w, flow_ref up, struct flow_track *track, uint32_t seq)
{
	flow_syn(&w->flows, up)->stall_seq = seq;
	flow_syn(&w->flows, up)->signal_ms = w->run_ms;
	track->signals |= SIGNAL_FLAG_SENT | SIGNAL_FLAG_RESENT;
}

/* On this flow or another one; what came in the same millisecond may have come after. */
static bool said_nothing(const struct worker *w, flow_ref up, const struct flow_track *track)
{
	const struct flow_half *down = flow_half(&w->flows, flow_ref_other(up));
	uint32_t since_ms = (uint32_t)w->run_ms - flow_syn(&w->flows, up)->signal_ms + 1;

	return (uint32_t)w->run_ms - down->last_ms >= since_ms && !wall_heard_since(w, track->backend_slot, since_ms);
}

static void restart_stall(struct worker *w, flow_ref up, struct flow_track *track)
{
	flow_syn(&w->flows, up)->signal_ms = w->run_ms;
	track->signals &= ~SIGNAL_FLAG_RESENT;
}

/* Three times, for a second, and not a word from the backend meanwhile. Any word, and it begins anew. */
static void go_on_stall(struct worker *w, flow_ref up, struct flow_track *track)
{
	uint32_t since_ms;

	if (!said_nothing(w, up, track)) {
		restart_stall(w, up, track);
		return;
	}
	if (!(track->signals & SIGNAL_FLAG_RESENT)) {
		track->signals |= SIGNAL_FLAG_RESENT;
		return;
	}
	since_ms = (uint32_t)w->run_ms - flow_syn(&w->flows, up)->signal_ms;
	if (since_ms < SIGNAL_STALL_MS)
		return;
	if (wall_is_deaf(w, up, since_ms)) {
		restart_stall(w, up, track);
		return;
	}
	track->signals |= SIGNAL_FLAG_STALLED;
	note_failure(w, up, SIGNAL_STALLED);
	wall_stalled(w, up);
}

static void client_again(struct worker *w, const struct item *it, uint32_t seq, uint32_t ack)
{
	flow_ref up = it->ref;
	struct flow_track *track = flow_track(&w->flows, up);
	const struct flow_half *down = flow_half(&w->flows, flow_ref_other(up));

	track->signals |= SIGNAL_FLAG_AGAIN;
	/* A client that asks about a closed window is answered. */
	if (track->signals & SIGNAL_FLAG_STALLED || !down->window_be || (int32_t)(down->ack - seq) > 0 ||
	    !is_ordinary(w, it, ack))
		return;
	if (track->signals & SIGNAL_FLAG_SENT && flow_syn(&w->flows, up)->stall_seq == seq)
		go_on_stall(w, up, track);
	else
		begin_stall(w, up, track, seq);
}

void signals_again(struct worker *w, const struct item *it, uint32_t seq, uint32_t ack)
{
	const struct flow_track *track = flow_track(&w->flows, it->ref);

	if (!is_watched(w, it->ref))
		return;
	count_add(&w->signals.counts[track->backend_slot].retransmissions[flow_ref_dir(it->ref)], 1);
	if (flow_ref_dir(it->ref) == DIR_UP)
		client_again(w, it, seq, ack);
}

/*
 * A client that waits asks again and again whether the window is still closed, and these are the answers: a backend
 * that nobody asks says it once.
 */
void signals_shut(struct worker *w, flow_ref ref)
{
	struct flow_track *track = flow_track(&w->flows, ref);
	uint32_t *since_ms = &flow_syn(&w->flows, ref)->signal_ms;

	if (flow_ref_dir(ref) == DIR_UP || !is_watched(w, ref))
		return;
	if (flow_half(&w->flows, ref)->window_be) {
		*since_ms = w->run_ms;
		track->signals &= ~SIGNAL_FLAG_SENT;
		return;
	}
	if (track->signals & SIGNAL_FLAG_SHUT || (uint32_t)w->run_ms - *since_ms < SIGNAL_SHUT_MS)
		return;
	track->signals |= SIGNAL_FLAG_SHUT;
	count_add(&w->signals.counts[track->backend_slot].shut, 1);
}
