/* SPDX-License-Identifier: BSD-3-Clause */
#include "limiter.h"

#include <stdio.h>
#include <string.h>

#define BASE_SAMPLES    100
#define BASE_SLOT_NS    5000000000ull
#define SAMPLES_WHOLE   20 /* so many in a tick, and what was before is forgotten */
#define CALM_NS         1000000000ull
#define SECOND_NS       1000000000ull
#define STALL_FACTOR    5
#define AGAIN_FOR_NS    1000000000ull
#define PROBED_MIN      20         /* that are believed to be what it takes now */
#define RARE_FACTOR     10         /* times as long as usual between two answers: that is none that is late any more */
#define PEAK_UNEASY     UINT32_MAX /* of a second in which it had more than it bears */
#define PATIENCE_TICKS  10         /* clients that left so long ago are forgotten, about */
#define WIDER           4          /* by one part of so many of what it answers */
#define PAYS            4          /* it answers more: a part of so many of what it did */
#define NARROWER        4          /* by one part of so many a tick */
#define WINDOW_FACTOR   2
/* By which first bytes may be later than usual, or by a quarter, while work grows. */
#define WINDOW_SLACK_NS 10000000ull
/* As long as nothing has shown that it answers more with more. */
#define YOUNG_MOST      (LIMITER_WINDOW_MIN * 3 / 2)

/* So many first bytes at least are judged at a time; where the quickest part of them took so many times less than all
 * do, on average, they differ by nature. That is believed for so long, or twice as long as they took to come. */
#define SPREAD_SAMPLES  64
#define SPREAD_PART     16
#define SPREAD_TIMES    4
#define SPREAD_NS       2000000000ull
#define SPREAD_MOST_NS  10000000000ull /* older ones are none of them */

#define TICKS_IN_RATES  (LIMITER_SECOND_TICKS * LIMITER_RATE_SECONDS)

/* Of what a client's patience leaves. The line is as long as that is; what is answered meanwhile is the same. */
#define CONGESTED_PART  4

#define RAMP_DOUBLES    10 /* times that the work in the ramp doubles; its first tenth is the least share */

const char *const limiter_state_name[LIMITER_STATES] = {"open", "limiting"};
const char *const limiter_base_name[LIMITER_BASES] = {"none", "measured", "restart", "left", "limited"};

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

/* What was in the place of ticks that are new, and of their seconds. */
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

/* What comes in a tick that is late came in all that passed since the last one; of those, a second counts. */
static void add_answers(struct limiter *l, uint64_t answered, uint64_t number)
{
	uint64_t passed = number - l->tick_number, n = max_u64(min_u64(passed, LIMITER_SECOND_TICKS), 1);

	if (passed > n)
		answered = answered * n / passed;
	forget_ticks(l, number);
	for (uint64_t ago = 0; ago < n; ago++)
		l->answers[(number - ago) % LIMITER_SECOND_TICKS] += answered / n;
	l->answers[number % LIMITER_SECOND_TICKS] += answered % n;
}

static void learn_rate(struct limiter *l, uint64_t answered, uint64_t now_ns)
{
	uint64_t number = now_ns / LIMITER_TICK_NS;
	uint32_t second = 0, *best = &l->rates[second_of(number)];

	add_answers(l, answered, number);
	for (int i = 0; i < LIMITER_SECOND_TICKS; i++)
		second += l->answers[i];
	if (second > *best)
		*best = second;
	l->rate = 0;
	for (int i = 0; i < LIMITER_RATE_SECONDS; i++)
		l->rate = max_u64(l->rate, l->rates[i]);
}

/* --- the base --- */

static void note_base(struct limiter *l, uint64_t ns, enum limiter_base from, uint64_t now_ns)
{
	uint64_t number = (now_ns - l->frozen_ns) / BASE_SLOT_NS + 1;
	typeof(&l->bases[0]) slot = &l->bases[number % LIMITER_BASE_SLOTS];

	if (slot->number == number && slot->least_ns <= ns)
		return;
	slot->number = number;
	slot->least_ns = ns;
	slot->from = from;
}

/* What is too old counts until something newer is known. */
static void find_base(struct limiter *l, uint64_t now_ns)
{
	uint64_t number = (now_ns - l->frozen_ns) / BASE_SLOT_NS + 1, least_ns = UINT64_MAX;

	for (int i = 0; i < LIMITER_BASE_SLOTS; i++) {
		if (!l->bases[i].number || number - l->bases[i].number >= LIMITER_BASE_SLOTS ||
		    l->bases[i].least_ns >= least_ns)
			continue;
		least_ns = l->bases[i].least_ns;
		l->base_from = l->bases[i].from;
	}
	if (least_ns != UINT64_MAX)
		l->base_ns = least_ns;
}

static bool is_base_sound(const struct limiter *l)
{
	return l->base_from != LIMITER_BASE_NONE && l->base_from != LIMITER_BASE_LIMITED;
}

static void learn_mean(struct limiter *l, uint64_t mean_ns, uint64_t now_ns)
{
	if (l->state == LIMITER_OPEN) {
		note_base(l, mean_ns, LIMITER_BASE_MEASURED, now_ns);
		l->base_seen_ns = now_ns;
	} else if (!l->base_ns || mean_ns < l->base_ns) {
		note_base(l, mean_ns, is_base_sound(l) ? LIMITER_BASE_MEASURED : LIMITER_BASE_LIMITED, now_ns);
	}
}

static void begin_group(struct limiter *l)
{
	l->n_group = l->group_us = l->n_group_answered = l->group_work_us = 0;
}

/*
 * Of a hundred that were answered the quick ones are too many at first, when the slow ones are still under way, and
 * now and then by chance. What was under way meanwhile counts those too (Little's law).
 */
static uint64_t group_mean_ns(const struct limiter *l)
{
	uint64_t us = l->group_us / l->n_group;

	if (l->n_group_answered && (l->ripe || l->n_young))
		us = max_u64(us, l->group_work_us / l->n_group_answered);
	return us * 1000;
}

/* What it was at first is no measure of what is usual, for the slow ones were still to come; and so on. */
static void ripen(struct limiter *l, uint64_t answered, uint64_t now_ns)
{
	if (l->ripe || (!l->young_ns && !answered))
		return;
	if (!l->young_ns)
		l->young_ns = now_ns;
	if (now_ns - l->young_ns < LIMITER_YOUNG_NS << l->n_young)
		return;
	memset(l->bases, 0, sizeof(l->bases));
	begin_group(l);
	l->ripe = ++l->n_young > LIMITER_YOUNG_TIMES;
}

/* What is slow because it is congested is not what is usual; what is fast though it is congested is. */
static void learn_base(struct limiter *l, uint64_t answered, uint64_t n, uint64_t us, uint64_t now_ns)
{
	l->n_group += n;
	l->group_us += us;
	l->n_group_answered += answered;
	if (l->n_group >= BASE_SAMPLES) {
		learn_mean(l, group_mean_ns(l), now_ns);
		begin_group(l);
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

uint64_t limiter_calm_ns(const struct limiter *l)
{
	return l->base_ns ? longest_ns(l) * 3 / 4 : UINT64_MAX;
}

static bool is_calm(const struct limiter *l)
{
	return !l->stalled && l->first_byte_ns < limiter_calm_ns(l);
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
	/* Half of them in congestion, half of them not, they would be neither. */
	begin_group(l);
}

static void learn_patience(struct limiter *l, uint64_t gave_up, uint64_t elapsed_ns)
{
	uint64_t ticks = (elapsed_ns + LIMITER_TICK_NS / 2) / LIMITER_TICK_NS;

	l->n_left = (ticks < PATIENCE_TICKS ? l->n_left - l->n_left * ticks / PATIENCE_TICKS : 0) + gave_up;
}

/* As long as it is not known how slow it may be, its clients say whether it is too slow. */
static bool is_believed(const struct limiter *l)
{
	return l->ripe || l->n_left >= LIMITER_MIN;
}

/* True: it changed. */
static bool judge(struct limiter *l, uint64_t now_ns)
{
	if (l->state == LIMITER_OPEN) {
		if ((!is_slow(l) && !l->stalled) || !is_believed(l))
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
	l->n_again++;
	l->refuted_ns = 0;
	if (l->n_probed < PROBED_MIN)
		return;
	l->refuted_ns = base_or_first(l);
	memset(l->bases, 0, sizeof(l->bases));
	note_base(l, l->probed_us * 1000 / l->n_probed, LIMITER_BASE_LIMITED, now_ns);
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

/* Of what it answers, so much that first bytes are half of what is tolerated beyond the usual. */
static uint32_t narrowed(const struct limiter *l, uint64_t answered, uint64_t elapsed_ns)
{
	uint64_t wanted = answered * (l->base_ns + l->slack_ns / 2) / max_u64(elapsed_ns, LIMITER_TICK_NS);

	return wanted < l->window ? max_u64(l->window - (l->window - wanted) / NARROWER, LIMITER_MIN) : l->window;
}

/* Within which the quickest part of those was answered. */
static uint64_t quickest_us(const struct limiter_spread *s)
{
	uint64_t n = 0;

	for (unsigned octave = 0; octave < HISTOGRAM_OCTAVES; octave++) {
		n += s->octaves[octave];
		if (n * SPREAD_PART >= s->n)
			return UINT64_C(2) << octave;
	}
	return UINT64_MAX;
}

/*
 * In a line all wait, and the quickest hardly less than the others (as CoDel looks at the least delay: Nichols and
 * Jacobson, "Controlling Queue Delay", ACM Queue 10/5, 2012). So where the quickest are much quicker than the mean it
 * is no line that makes the mean, which says little then; of the slow ones that are still to come Little's law says so.
 * What is quick is not remembered, so it cannot be learnt wrong; what is quick by itself, as an error is, hides a line
 * from this, but not from the mean.
 */
static void look_for_spread(struct limiter *l, const struct limiter_counts *now, uint64_t elapsed_ns, uint64_t now_ns)
{
	struct limiter_spread *s = &l->spread;

	/* Of a slot with another owner, its record as new. */
	for (unsigned i = 0; i < HISTOGRAM_OCTAVES; i++)
		s->octaves[i] += now->octaves[i] - min_u64(l->seen.octaves[i], now->octaves[i]);
	s->n += now->timed - l->seen.timed;
	s->us += now->timed_us - l->seen.timed_us;
	s->n_left += now->gave_up - l->seen.gave_up;
	s->n_answered += now->answered - l->seen.answered;
	s->work_us += l->wip * (min_u64(elapsed_ns, 2 * LIMITER_TICK_NS) / 1000);
	if (s->n >= SPREAD_SAMPLES) {
		/* Who gave up was not answered late by nature, so where many do this says nothing. */
		uint64_t mean_us = max_u64(s->us / s->n, s->n_answered ? s->work_us / s->n_answered : 0);
		bool differ = quickest_us(s) <= mean_us / SPREAD_TIMES && s->n_left * SPREAD_PART <= s->n;

		*s = (struct limiter_spread){.in_a_row = differ ? s->in_a_row + s->n : 0,
					     .judged_ns = now_ns,
					     .took_ns = now_ns - s->judged_ns};
	} else if (now_ns - s->judged_ns > SPREAD_MOST_NS) {
		*s = (struct limiter_spread){.judged_ns = now_ns};
	}
	if (l->stalled || l->state == LIMITER_LIMITING ||
	    now_ns - s->judged_ns > max_u64(SPREAD_NS, min_u64(2 * s->took_ns, SPREAD_MOST_NS)))
		s->in_a_row = 0;
}

static uint32_t answered_of_late(const struct limiter *l)
{
	uint32_t sum = 0;

	for (uint64_t ago = 0; ago < LIMITER_EASY_TICKS; ago++)
		sum += l->answers[(l->tick_number + LIMITER_SECOND_TICKS - ago) % LIMITER_SECOND_TICKS];
	return sum;
}

/*
 * What is known of a young one may have been measured while all that it had stood in line, and be as long as that line:
 * by such a measure any line is at ease. So it may have half as much again as at first, and if with more it answers
 * more, then twice that. What was answered in the last ticks is of the work before them.
 */
static uint32_t most_of_young(struct limiter *l)
{
	uint32_t now = answered_of_late(l), *had = &l->had[l->tick_number % LIMITER_EASY_TICKS];

	if (l->n_answering >= LIMITER_EASY_TICKS && now > l->paid + l->paid / PAYS) {
		l->paid_work = l->paid ? max_u64(*had, l->wip) : *had;
		l->paid = now;
	}
	l->n_answering += now > 0;
	*had = max_u64(l->window, l->wip);
	return l->paid_work > LIMITER_WINDOW_MIN ? WINDOW_FACTOR * l->paid_work : YOUNG_MOST;
}

static void find_window(struct limiter *l, uint64_t answered, uint64_t elapsed_ns)
{
	uint32_t *peak = &l->peaks[second_of(l->tick_number)], usual, most;
	bool at_ease = is_at_ease(l) || l->spread.in_a_row, has_much = l->wip > l->window / 2;

	if (answered) {
		l->n_easy = at_ease ? l->n_easy + 1 : 0;
		l->n_tried = at_ease && has_much ? l->n_tried + 1 : 0;
	}
	if (!at_ease)
		*peak = PEAK_UNEASY;
	else if (*peak != PEAK_UNEASY && l->n_easy >= LIMITER_EASY_TICKS)
		*peak = max_u64(*peak, l->wip);
	usual = max_u64(WINDOW_FACTOR * usual_peak(l), LIMITER_WINDOW_MIN);
	if (!has_much)
		l->window = l->spread.in_a_row ? max_u64(usual, WINDOW_FACTOR * l->wip) : usual;
	else if (!at_ease && l->ripe)
		l->window = narrowed(l, answered, elapsed_ns);
	else if (l->base_ns && l->n_tried >= LIMITER_EASY_TICKS)
		l->window = max_u64(max_u64(l->window, l->wip) + answered / WIDER, usual);
	else
		l->window = max_u64(l->window, usual);
	if (l->ripe)
		return;
	/* And all that it had when that was last done has been answered since. */
	if (has_much && l->spread.in_a_row >= max_u64(l->wip, 2 * SPREAD_SAMPLES)) {
		l->spread.in_a_row = 1;
		l->paid_work = max_u64(l->paid_work, l->wip);
		l->window = max_u64(l->window, WINDOW_FACTOR * l->wip);
	}
	most = most_of_young(l);
	if (l->base_ns)
		l->window = min_u64(l->window, most);
}

static uint32_t find_limit(const struct limiter *l, const struct limiter_parameters *p)
{
	uint64_t budget_us = (LIMITER_GAIN * base_or_first(l) + l->slack_ns) / 1000, limit = l->window;

	if (l->state == LIMITER_LIMITING)
		limit = max_u64(l->rate * budget_us / 1000000, LIMITER_MIN);
	if (l->probing_until_ns)
		limit /= 2;
	return min_u64(limit, p->most ? p->most : UINT32_MAX);
}

/* Twice as much with each tenth of the way: it need not be known how much it will be in the end. */
uint32_t limiter_ramp(uint32_t share)
{
	uint64_t tenths = (uint64_t)share * RAMP_DOUBLES, done, least;

	tenths -= min_u64(tenths, UINT64_C(1) << 32);
	done = tenths >> 32;
	least = (uint64_t)LIMITER_MIN << done;
	return least + (least * (uint32_t)tenths >> 32);
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
	look_for_spread(l, counts, elapsed_ns, now_ns);
	l->seen = *counts;
	l->wip = counts->wip;
	l->tick_ns = now_ns;

	learn_rate(l, answered, now_ns);
	ripen(l, answered, now_ns);
	l->group_work_us += l->wip * (elapsed_ns / 1000);
	learn_base(l, answered, timed, timed_us, now_ns);
	find_delays(l, p);
	learn_first_byte(l, timed + gave_up, timed_us + gave_up_us);
	look_for_stall(l, answered, elapsed_ns, now_ns);
	learn_patience(l, gave_up, elapsed_ns);
	changed = judge(l, now_ns);
	run_probing(l, timed, timed_us, now_ns, chance);
	find_window(l, answered, elapsed_ns);
	l->limit = find_limit(l, p);
	l->soft = l->state == LIMITER_OPEN && (!l->base_ns || l->impatient || l->stalled || p->most);
	if (l->state == LIMITER_LIMITING)
		l->hold_ns /= CONGESTED_PART;
	return changed;
}

/* --- from one life to the next --- */

void limiter_recall(struct limiter *l, const struct limiter_past *past, enum limiter_base from, uint64_t now_ns)
{
	note_base(l, past->base_ns, from, now_ns);
	find_base(l, now_ns);
	l->base_seen_ns = now_ns - past->base_age_ns;
	l->ripe = true;
	if (past->rate_age_ns >= LIMITER_RATE_WORTH_NS)
		return;
	forget_ticks(l, now_ns / LIMITER_TICK_NS);
	l->rate = l->rates[second_of(l->tick_number)] = min_u64(past->rate, UINT32_MAX);
}

/*
 * What takes longer than clients wait for may be a congestion that was there when the gateway began, and is no use
 * else; of one that is young, the quick ones may have been measured alone.
 */
bool limiter_past(const struct limiter *l, uint64_t now_ns, struct limiter_past *out)
{
	if (!is_base_sound(l) || !l->base_ns || !l->ripe || l->impatient)
		return false;
	*out = (struct limiter_past){
		.base_ns = l->base_ns,
		.base_age_ns = now_ns - l->base_seen_ns,
		.rate = l->rate,
		.rate_age_ns = now_ns - l->tick_ns,
	};
	return true;
}

bool limiter_reset(struct limiter *l, uint64_t now_ns)
{
	if (l->state == LIMITER_LIMITING && l->base_ns) {
		l->again_ns = now_ns;
		return true;
	}
	memset(l->bases, 0, sizeof(l->bases));
	l->base_ns = l->young_ns = 0;
	l->n_young = l->n_answering = l->paid = l->paid_work = 0;
	memset(l->had, 0, sizeof(l->had));
	l->spread = (struct limiter_spread){0};
	l->ripe = false;
	begin_group(l);
	l->base_from = LIMITER_BASE_NONE;
	return false;
}

/* --- words for people --- */

void limiter_say_usual(uint64_t base_ns, enum limiter_base from, char out[static LIMITER_USUAL_LEN])
{
	static const char *const words[LIMITER_BASES] = {
		[LIMITER_BASE_NONE] = "",
		[LIMITER_BASE_MEASURED] = "",
		[LIMITER_BASE_RESTART] = ", from before the restart",
		[LIMITER_BASE_LEFT] = ", from before it left",
		[LIMITER_BASE_LIMITED] = ", measured while it was limited",
	};

	snprintf(out, LIMITER_USUAL_LEN, "%.1f%s", base_ns / 1e6, words[from]);
}

void limiter_describe(const struct limiter *l, char *out, size_t size)
{
	char base[LIMITER_USUAL_LEN], usual[LIMITER_USUAL_LEN + 16] = "", limit[32];

	limiter_say_usual(l->base_ns, l->base_from, base);
	if (l->base_ns)
		snprintf(usual, sizeof(usual), " (usually %s)", base);
	snprintf(limit, sizeof(limit), l->state == LIMITER_OPEN ? "it may have %u at once" : "at most %u", l->limit);
	snprintf(out, size, "%sfirst bytes take %.1f ms%s, %llu answers a second at the most, %u under way: %s",
		 l->stalled ? "it answers nothing; " : "", l->first_byte_ns / 1e6, usual, (unsigned long long)l->rate,
		 l->wip, limit);
}
