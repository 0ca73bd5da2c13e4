/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiter.h"

#include <stdio.h>
#include <string.h>

#define BASE_SAMPLES  100
#define BASE_SLOT_NS  5000000000ull
#define SAMPLES_WHOLE 20 /* so many in a tick, and what was before is forgotten */
#define CALM_NS       1000000000ull
#define SECOND_NS     1000000000ull
#define STALL_FACTOR  5
#define AGAIN_FOR_NS  1000000000ull
#define PROBED_MIN    20         /* that are believed to be what it takes now */
#define RARE_FACTOR   10         /* times as long as usual between two answers: that is none that is late any more */
#define PEAK_UNEASY   UINT32_MAX /* of a second in which it had more than it bears */
#define EASY_TICKS    3          /* the first answers of a burst come early in any case */
#define WINDOW_FACTOR 2
#define WINDOW_SLACK_NS                                                                                                \
	10000000ull /* by which first bytes may be later than usual, or by a quarter, while work grows */
#define TICKS_IN_RATES (LIMITER_SECOND_TICKS * LIMITER_RATE_SECONDS)

const char *const limiter_state_name[LIMITER_STATES] = {"open", "limiting"};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* --- the rate --- */

static unsigned second_of(uint64_t tick_number)
{
	return tick_number / LIMITER_SECOND_TICKS % LIMITER_RATE_SECONDS;
}

/* Ticks that did not come had no answers; those came in one that is late. */
static void forget_ticks(struct limiter *l, uint64_t number)
{
	for (uint64_t n = max_u64(l->tick_number + 1, number > TICKS_IN_RATES ? number - TICKS_IN_RATES : 0);
	     n <= number; n++) {
		l->answers[n % LIMITER_SECOND_TICKS] = 0;
		if (n % LIMITER_SECOND_TICKS == 0)
			l->rates[second_of(n)] = l->peaks[second_of(n)] = 0;
	}
	l->tick_number = number;
}

static void learn_rate(struct limiter *l, uint32_t answered, uint64_t now_ns)
{
	uint64_t number = now_ns / LIMITER_TICK_NS;
	uint32_t second = 0, *best = &l->rates[second_of(number)];

	forget_ticks(l, number);
	l->answers[number % LIMITER_SECOND_TICKS] += answered;
	for (int i = 0; i < LIMITER_SECOND_TICKS; i++)
		second += l->answers[i];
	if (second > *best)
		*best = second;
	l->rate = 0;
	for (int i = 0; i < LIMITER_RATE_SECONDS; i++)
		l->rate = max_u64(l->rate, l->rates[i]);
}

/* --- the base --- */

static void note_base(struct limiter *l, uint64_t ns, uint64_t now_ns)
{
	uint64_t number = (now_ns - l->frozen_ns) / BASE_SLOT_NS + 1;
	typeof(&l->bases[0]) slot = &l->bases[number % LIMITER_BASE_SLOTS];

	if (slot->number == number && slot->least_ns <= ns)
		return;
	slot->number = number;
	slot->least_ns = ns;
}

/* What is too old counts until something newer is known. */
static void find_base(struct limiter *l, uint64_t now_ns)
{
	uint64_t number = (now_ns - l->frozen_ns) / BASE_SLOT_NS + 1, least_ns = UINT64_MAX;

	for (int i = 0; i < LIMITER_BASE_SLOTS; i++)
		if (l->bases[i].number && number - l->bases[i].number < LIMITER_BASE_SLOTS)
			least_ns = min_u64(least_ns, l->bases[i].least_ns);
	if (least_ns != UINT64_MAX)
		l->base_ns = least_ns;
}

/* What is slow because it is congested is not what is usual. */
static void learn_base(struct limiter *l, uint64_t n, uint64_t us, uint64_t now_ns)
{
	l->n_group += n;
	l->group_us += us;
	if (l->n_group >= BASE_SAMPLES) {
		uint64_t mean_ns = l->group_us * 1000 / l->n_group;

		if (l->state == LIMITER_OPEN || !l->base_ns || mean_ns < l->base_ns)
			note_base(l, mean_ns, now_ns);
		l->n_group = l->group_us = 0;
	}
	find_base(l, now_ns);
}

/* --- congestion --- */

static void learn_first_byte(struct limiter *l, uint64_t n, uint64_t us)
{
	int64_t change_ns;

	if (!n)
		return;
	change_ns = (int64_t)(us * 1000 / n) - (int64_t)l->first_byte_ns;
	l->first_byte_ns += n >= SAMPLES_WHOLE ? change_ns : change_ns * (int64_t)n / SAMPLES_WHOLE;
}

static uint64_t base_or_first(const struct limiter *l)
{
	return l->base_ns ? l->base_ns : LIMITER_FIRST_BASE;
}

static uint64_t longest_ns(const struct limiter *l)
{
	return max_u64(LIMITER_TOLERANCE * l->base_ns, l->base_ns + l->slack_ns);
}

static bool is_slow(const struct limiter *l)
{
	return l->base_ns && l->first_byte_ns > longest_ns(l);
}

static bool is_calm(const struct limiter *l)
{
	return !l->stalled && (!l->base_ns || l->first_byte_ns < longest_ns(l) * 3 / 4);
}

/*
 * A delay that is safely below the clients' patience, whatever that is. Who waited for longer than it takes beside that
 * would be work that is stale before it is begun.
 */
static void find_delays(struct limiter *l, const struct limiter_parameters *p)
{
	uint64_t usual_ns = LIMITER_GAIN * base_or_first(l), half_ns = p->client_timeout_ns / 2;
	uint64_t left_ns = half_ns > usual_ns ? half_ns - usual_ns : 0;

	l->impatient = l->base_ns && usual_ns > half_ns;
	l->slack_ns = max_u64(min_u64(LIMITER_SLACK_NS, left_ns), LIMITER_SLACK_MIN_NS);
	usual_ns += l->slack_ns;
	l->hold_ns = p->client_timeout_ns > usual_ns ? p->client_timeout_ns - usual_ns : 0;
}

/* Where answers are rare, a few that take their time are no stall. */
static uint64_t stall_ns(const struct limiter *l)
{
	uint64_t ns = max_u64(LIMITER_STALL_NS, STALL_FACTOR * base_or_first(l));

	return l->rate ? max_u64(ns, RARE_FACTOR * SECOND_NS / l->rate) : ns;
}

static void look_for_stall(struct limiter *l, uint64_t answered, uint64_t elapsed_ns, uint64_t now_ns)
{
	if (answered || l->wip < LIMITER_MIN || !l->answered_ns)
		l->answered_ns = now_ns;
	/* Time in which nobody looked, or ran, says nothing. */
	else if (elapsed_ns > 2 * LIMITER_TICK_NS)
		l->answered_ns = min_u64(l->answered_ns + elapsed_ns - LIMITER_TICK_NS, now_ns);
	l->stalled = now_ns - l->answered_ns >= stall_ns(l);
}

static void enter(struct limiter *l, enum limiter_state state, uint64_t now_ns)
{
	l->state = state;
	l->since_ns = now_ns;
	l->calm_ns = l->again_ns = l->probing_until_ns = 0;
}

/* True: it changed. */
static bool judge(struct limiter *l, uint64_t now_ns)
{
	if (l->state == LIMITER_OPEN) {
		if (!is_slow(l) && !l->stalled)
			return false;
		enter(l, LIMITER_LIMITING, now_ns);
		return true;
	}
	if (!is_calm(l))
		l->calm_ns = 0;
	else if (!l->calm_ns)
		l->calm_ns = now_ns;
	if (!l->calm_ns || now_ns - l->calm_ns < CALM_NS)
		return false;
	enter(l, LIMITER_OPEN, now_ns);
	return true;
}

/* --- when it lasts: is that what it takes now? --- */

static uint64_t again_at(uint64_t now_ns, uint32_t chance)
{
	return now_ns + LIMITER_AGAIN_NS - LIMITER_AGAIN_NS * 15 / 100 +
	       (LIMITER_AGAIN_NS * 30 / 100 / 1000 * chance >> 32) * 1000;
}

static void begin_probing(struct limiter *l, uint64_t now_ns)
{
	l->probing_until_ns = now_ns + max_u64(AGAIN_FOR_NS, STALL_FACTOR * base_or_first(l));
	l->n_probed = l->probed_us = 0;
}

static void end_probing(struct limiter *l, uint64_t now_ns, uint32_t chance)
{
	l->probing_until_ns = 0;
	l->again_ns = again_at(now_ns, chance);
	if (l->n_probed < PROBED_MIN)
		return;
	memset(l->bases, 0, sizeof(l->bases));
	note_base(l, l->probed_us * 1000 / l->n_probed, now_ns);
	find_base(l, now_ns);
}

static void run_probing(struct limiter *l, uint64_t n, uint64_t us, uint64_t now_ns, uint32_t chance)
{
	if (l->state != LIMITER_LIMITING)
		return;
	if (!l->again_ns)
		l->again_ns = again_at(now_ns, chance);
	if (l->probing_until_ns) {
		l->n_probed += n;
		l->probed_us += us;
		if (now_ns >= l->probing_until_ns)
			end_probing(l, now_ns, chance);
	} else if (now_ns >= l->again_ns) {
		begin_probing(l, now_ns);
	}
}

/* --- the limit --- */

/* The most that it bore. What came in this second and the last one may be a surge still. */
static uint32_t usual_peak(const struct limiter *l)
{
	uint32_t most = 0;

	for (uint64_t ago = 2; ago < LIMITER_RATE_SECONDS; ago++) {
		uint32_t peak = l->peaks[second_of(l->tick_number - ago * LIMITER_SECOND_TICKS)];

		if (peak != PEAK_UNEASY)
			most = max_u64(most, peak);
	}
	return most;
}

/* First bytes say that it bears what it has; of one that is not known, they say nothing against it. */
static bool is_at_ease(const struct limiter *l)
{
	return !l->base_ns || l->first_byte_ns < l->base_ns + max_u64(l->base_ns / 4, WINDOW_SLACK_NS);
}

static void find_window(struct limiter *l, uint64_t answered)
{
	uint32_t *peak = &l->peaks[second_of(l->tick_number)], usual;

	if (answered)
		l->n_easy = is_at_ease(l) ? l->n_easy + 1 : 0;
	if (!is_at_ease(l))
		*peak = PEAK_UNEASY;
	else if (*peak != PEAK_UNEASY && l->n_easy >= EASY_TICKS)
		*peak = max_u64(*peak, l->wip);
	usual = max_u64(WINDOW_FACTOR * usual_peak(l), LIMITER_WINDOW_MIN);
	if (l->wip <= l->window / 2)
		l->window = usual;
	else if (l->base_ns && l->n_easy >= EASY_TICKS)
		l->window += answered;
	l->window = max_u64(l->window, usual);
}

static uint32_t find_limit(const struct limiter *l)
{
	uint64_t budget_us = (LIMITER_GAIN * base_or_first(l) + l->slack_ns) / 1000, limit;

	if (l->state == LIMITER_OPEN)
		return l->window;
	limit = max_u64(l->rate * budget_us / 1000000, LIMITER_MIN);
	return l->probing_until_ns ? limit / 2 : limit;
}

/* The slot has another owner, or a worker's counts began anew. */
static bool went_back(const struct limiter_counts *seen, const struct limiter_counts *counts)
{
	return counts->answered < seen->answered || counts->timed < seen->timed || counts->gave_up < seen->gave_up ||
	       counts->timed_us < seen->timed_us || counts->gave_up_us < seen->gave_up_us;
}

bool limiter_tick(struct limiter *l, const struct limiter_counts *counts, const struct limiter_parameters *p,
		  uint64_t now_ns, uint32_t chance)
{
	uint64_t answered, timed, timed_us, gave_up, gave_up_us, elapsed_ns;
	bool changed;

	if (!l->tick_ns || went_back(&l->seen, counts))
		l->seen = *counts;
	answered = counts->answered - l->seen.answered;
	timed = counts->timed - l->seen.timed;
	timed_us = counts->timed_us - l->seen.timed_us;
	gave_up = counts->gave_up - l->seen.gave_up;
	gave_up_us = counts->gave_up_us - l->seen.gave_up_us;
	/* No client is said to wait for longer: one that does speaks for itself alone. */
	gave_up_us = min_u64(gave_up_us, gave_up * p->client_timeout_ns / 1000);
	elapsed_ns = l->tick_ns ? now_ns - l->tick_ns : LIMITER_TICK_NS;
	if (l->tick_ns && l->state == LIMITER_LIMITING)
		l->frozen_ns += elapsed_ns;
	l->seen = *counts;
	l->wip = counts->wip;
	l->tick_ns = now_ns;

	/* What came in a tick that is late came in all of that time. */
	learn_rate(l, elapsed_ns > LIMITER_TICK_NS ? answered * LIMITER_TICK_NS / elapsed_ns : answered, now_ns);
	learn_base(l, timed, timed_us, now_ns);
	find_delays(l, p);
	learn_first_byte(l, timed + gave_up, timed_us + gave_up_us);
	look_for_stall(l, answered, elapsed_ns, now_ns);
	changed = judge(l, now_ns);
	run_probing(l, timed, timed_us, now_ns, chance);
	find_window(l, answered);
	l->limit = find_limit(l);
	l->soft = l->state == LIMITER_OPEN && !l->base_ns;
	if (l->state == LIMITER_LIMITING)
		l->hold_ns /= 2;
	return changed;
}

/* --- words for people --- */

void limiter_describe(const struct limiter *l, char *out, size_t size)
{
	char usual[48] = "", limit[32];

	if (l->base_ns)
		snprintf(usual, sizeof(usual), " (usually %.1f)", l->base_ns / 1e6);
	snprintf(limit, sizeof(limit), l->state == LIMITER_OPEN ? "it may have %u at once" : "at most %u", l->limit);
	snprintf(out, size, "%sfirst bytes take %.1f ms%s, %llu answers a second at the most, %u under way: %s",
		 l->stalled ? "it answers nothing; " : "", l->first_byte_ns / 1e6, usual, (unsigned long long)l->rate,
		 l->wip, limit);
}
