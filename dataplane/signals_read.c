/* SPDX-License-Identifier: BSD-3-Clause */
/* The readers of signals: sums over the workers, by any thread. */
#include "core.h"
#include "observe.h"

const char *const signal_failure_name[SIGNAL_FAILURES] = {
	[SIGNAL_SILENT] = "silent",     [SIGNAL_REFUSED] = "refused", [SIGNAL_UNREACHABLE] = "unreachable",
	[SIGNAL_OVERLOAD] = "overload", [SIGNAL_STALLED] = "stalled", [SIGNAL_RESET] = "reset",
};

static uint64_t load(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static uint32_t load_level(const uint32_t *level)
{
	return __atomic_load_n(level, __ATOMIC_RELAXED);
}

static const struct signal_counts *counts_at(const struct dataplane *dp, unsigned worker, uint32_t slot)
{
	return &dp->workers[worker]->signals.counts[slot];
}

static void add_counts(const struct signal_counts *c, struct signal_report *out)
{
	out->waiting += load_level(&c->waiting);
	out->open += load_level(&c->open);
	out->zombies += load_level(&c->zombies);
	out->one_way += load_level(&c->one_way);
	out->success += load(&c->outcomes[SIGNAL_SUCCESS]);
	out->failed += load(&c->outcomes[SIGNAL_FAILED]);
	out->neutral += load(&c->outcomes[SIGNAL_NEUTRAL]);
	out->exchanges += load(&c->exchanges);
	out->answered += load(&c->answered);
	for (int f = 0; f < SIGNAL_FAILURES; f++)
		out->failures[f] += load(&c->failures[f]);
	out->resets_before = out->failures[SIGNAL_RESET];
	out->resets_after += load(&c->resets_after);
	out->stalls = out->failures[SIGNAL_STALLED];
	out->gave_up += load(&c->gave_up);
	out->gave_up_us += load(&c->gave_up_us);
	out->shut += load(&c->shut);
	out->retransmissions_up += load(&c->retransmissions[DIR_UP]);
	out->retransmissions_down += load(&c->retransmissions[DIR_DOWN]);
	out->zombies_ever += load(&c->zombies_ever);
	out->unrecorded += load(&c->unrecorded);
}

void observe_signals(const struct dataplane *dp, uint32_t slot, struct signal_report *out)
{
	*out = (struct signal_report){0};
	for (unsigned i = 0; i < dp->config.n_workers; i++)
		add_counts(counts_at(dp, i, slot), out);
	out->wip = out->waiting + out->open + out->zombies;
}

uint32_t observe_wip(const struct dataplane *dp, uint32_t slot)
{
	uint32_t wip = 0;

	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct signal_counts *c = counts_at(dp, i, slot);

		wip += load_level(&c->waiting) + load_level(&c->open) + load_level(&c->zombies);
	}
	return wip;
}

uint32_t observe_committed(const struct dataplane *dp, uint32_t slot)
{
	uint32_t fresh = 0;

	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct signal_counts *c = counts_at(dp, i, slot);
		uint64_t trust = 65536 - load_level(&c->doubt);

		fresh += load_level(&c->fresh) + (load_level(&c->answered_now) * trust >> 16);
	}
	return observe_wip(dp, slot) + fresh;
}

void observe_work(const struct dataplane *dp, uint32_t slot, struct work_report *out)
{
	*out = (struct work_report){0};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct signal_counts *c = counts_at(dp, i, slot);

		out->answered += load(&c->answered);
		out->timed += load(&c->timed);
		out->timed_us += load(&c->timed_us);
		out->gave_up += load(&c->gave_up);
		out->gave_up_us += load(&c->gave_up_us);
		out->overloads += load(&c->failures[SIGNAL_OVERLOAD]);
	}
	out->wip = observe_wip(dp, slot);
}

uint32_t observe_first_byte_us(const struct dataplane *dp, uint32_t slot)
{
	uint32_t us16 = 0;

	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		uint32_t of_worker = load_level(&counts_at(dp, i, slot)->first_byte_us16);

		us16 = of_worker > us16 ? of_worker : us16;
	}
	return us16 / 16;
}

/* NULL: it has none. One that is given to another slot while it is read says too much, once. */
static const struct signal_record *record_at(const struct dataplane *dp, unsigned worker, uint32_t slot)
{
	uint32_t number = __atomic_load_n(&counts_at(dp, worker, slot)->record, __ATOMIC_ACQUIRE);
	const struct signal_record *record = number ? &dp->workers[worker]->signals.records[number - 1] : NULL;

	return record && load_level(&record->slot) == slot ? record : NULL;
}

void observe_durations(const struct dataplane *dp, uint32_t slot, enum signal_duration which, struct histogram_sum *out)
{
	uint64_t now_ns = dataplane_now_ns(dp);

	*out = (struct histogram_sum){0};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct signal_record *record = record_at(dp, i, slot);

		if (record)
			histogram_sum(out, which == DURATION_HANDSHAKE ? &record->handshake : &record->first_byte,
				      now_ns);
	}
}

void observe_first_bytes(const struct dataplane *dp, uint32_t slot, uint64_t octaves[static HISTOGRAM_OCTAVES])
{
	memset(octaves, 0, HISTOGRAM_OCTAVES * sizeof(*octaves));
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct signal_record *record = record_at(dp, i, slot);

		for (unsigned o = 0; record && o < HISTOGRAM_OCTAVES; o++)
			octaves[o] += __atomic_load_n(&record->first_byte.octaves[o], __ATOMIC_RELAXED);
	}
}

/* --- windows --- */

static void add_network(struct signal_window *window, uint32_t network)
{
	for (unsigned i = 0; i < window->n_networks; i++)
		if (window->networks[i] == network)
			return;
	if (network && window->n_networks < SIGNAL_WINDOW_NETWORKS)
		window->networks[window->n_networks++] = network;
}

static void add_second(const struct signal_second *s, struct signal_window *window)
{
	for (int class = 0; class < SIGNAL_CLASSES; class ++)
		window->success[class] += load_level(&s->success[class]);
	for (int f = 0; f < SIGNAL_FAILURES; f++)
		window->failed[f] += load_level(&s->failed[f]);
	for (int i = 0; i < SIGNAL_NETWORKS; i++)
		add_network(window, load_level(&s->networks[i]));
}

/* Workers may be a second ahead of the clock that was just read. */
void observe_window(const struct dataplane *dp, uint32_t slot, unsigned seconds, struct signal_window *out)
{
	uint32_t now = dataplane_now_ns(dp) / 1000000000 + 1;

	*out = (struct signal_window){0};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct signal_record *record = record_at(dp, i, slot);

		for (unsigned s = 0; record && s < SIGNAL_SECONDS; s++) {
			uint32_t number = __atomic_load_n(&record->seconds[s].number, __ATOMIC_ACQUIRE);

			if (number && (int32_t)(now - number) < (int32_t)seconds)
				add_second(&record->seconds[s], out);
		}
	}
}
