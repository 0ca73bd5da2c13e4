/* SPDX-License-Identifier: BSD-3-Clause */
#include "pulse.h"
#include "events.h"
#include "observe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PERIOD_NS     (PULSE_TICK_MS * 1000000ull)
#define HUNG_NS       1000000000ull /* a worker that has nothing to do sleeps for a tenth of it */
#define TELL_AGAIN_NS 10000000000ull

void pulse_tick(struct pulse *p, uint64_t now_ns)
{
	uint64_t late_ns = now_ns - p->last_ns > PERIOD_NS ? now_ns - p->last_ns - PERIOD_NS : 0;

	if (p->last_ns) {
		p->late_us[p->next] = late_ns / 1000 < UINT32_MAX ? late_ns / 1000 : UINT32_MAX;
		p->next = (p->next + 1) % PULSE_TICKS;
		if (p->n < PULSE_TICKS)
			p->n++;
	}
	p->last_ns = now_ns;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

void pulse_late(const struct pulse *p, uint32_t *p99_us, uint32_t *max_us)
{
	uint32_t sorted[PULSE_TICKS];

	*p99_us = *max_us = 0;
	if (!p->n)
		return;
	memcpy(sorted, p->late_us, p->n * sizeof(*sorted));
	qsort(sorted, p->n, sizeof(*sorted), by_size);
	*p99_us = sorted[(p->n * 99 + 99) / 100 - 1];
	*max_us = sorted[p->n - 1];
}

static void watch_hang(struct pulse_worker *worker, const struct worker_report *r, const char *name,
		       struct events *events, uint64_t now_ns)
{
	bool hung = r->last_loop_ns && now_ns > r->last_loop_ns + HUNG_NS;

	if (hung == worker->hung)
		return;
	worker->hung = hung;
	if (hung)
		events_add(events, EVENT_CRITICAL, "worker_hung", "gateway", name, "no loop for %.1f s",
			   (now_ns - r->last_loop_ns) / 1e9);
	else
		events_add(events, EVENT_INFO, "worker_runs", "gateway", name, "it loops again");
}

static void watch_stalls(struct pulse_worker *worker, const struct worker_report *r, const char *name,
			 struct events *events, uint64_t now_ns)
{
	if (r->stalled_ns == worker->stalled_ns || (worker->told_ns && now_ns < worker->told_ns + TELL_AGAIN_NS))
		return;
	events_add(events, EVENT_WARNING, "worker_stalled", "gateway", name,
		   "it did not run for %.0f ms since this was last told, %.1f s in all: its CPU had other work",
		   (r->stalled_ns - worker->stalled_ns) / 1e6, r->stalled_ns / 1e9);
	worker->stalled_ns = r->stalled_ns;
	worker->told_ns = now_ns;
}

void pulse_workers(struct pulse *p, const struct dataplane *dp, struct events *events, uint64_t now_ns)
{
	for (unsigned i = 0; i < dataplane_n_workers(dp); i++) {
		struct worker_report r;
		char name[24];

		observe_worker(dp, i, &r);
		snprintf(name, sizeof(name), "worker%u", i);
		watch_hang(&p->workers[i], &r, name, events, now_ns);
		watch_stalls(&p->workers[i], &r, name, events, now_ns);
	}
}
