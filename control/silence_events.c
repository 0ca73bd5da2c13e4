/* SPDX-License-Identifier: BSD-3-Clause */
#include "silence_events.h"
#include "events.h"
#include "observe.h"
#include "view.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct silent {
	uint64_t clients, backends;
};

struct silence_events {
	struct silent *said; /* by backend slot */
	uint32_t n_slots;
	uint64_t ended_said, put_off_said; /* sums over the gateway */
	uint64_t ended_at_ns, put_off_at_ns;
};

struct silence_events *silence_events_create(uint32_t n_backend_slots)
{
	struct silence_events *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->n_slots = n_backend_slots;
	s->said = calloc(n_backend_slots, sizeof(*s->said));
	if (s->said)
		return s;
	free(s);
	return NULL;
}

void silence_events_destroy(struct silence_events *s)
{
	if (!s)
		return;
	free(s->said);
	free(s);
}

static uint64_t did(const struct dataplane *dp, enum action action)
{
	uint64_t sum = 0;

	for (unsigned w = 0; w < dataplane_n_workers(dp); w++) {
		struct ledger l;

		observe_ledger(dp, w, &l);
		sum += l.did[action];
	}
	return sum;
}

/* A slot that was given to another backend counts from 0 again. */
static uint64_t since(uint64_t now, uint64_t said)
{
	return now >= said ? now - said : now;
}

/* What is new of one backend, which is said with it. */
static struct silent news_of(struct silence_events *s, const struct dataplane *dp, uint32_t slot)
{
	struct silent *said = &s->said[slot], news;
	struct backend_report r;

	observe_backend(dp, slot, &r);
	news = (struct silent){since(r.silent_clients, said->clients), since(r.silent_backends, said->backends)};
	*said = (struct silent){r.silent_clients, r.silent_backends};
	return news;
}

/* One event for all of them; its subject is the backend that most of them went to. */
static void say_ended(struct silence_events *s, const struct dataplane *dp, const struct view *view,
		      struct events *events)
{
	const struct view_backend *most = NULL;
	uint64_t most_n = 0, n_backends = 0;
	struct silent sum = {0};

	for (size_t i = 0; i < view->n_backends; i++) {
		const struct view_backend *b = &view->backends[i];
		struct silent news = b->slot < s->n_slots ? news_of(s, dp, b->slot) : (struct silent){0};

		sum.clients += news.clients;
		sum.backends += news.backends;
		n_backends += news.clients + news.backends > 0;
		if (news.clients + news.backends > most_n) {
			most = b;
			most_n = news.clients + news.backends;
		}
	}
	if (most)
		events_add(events, EVENT_WARNING, "peer_dead", "silence", most->id,
			   "connections ended with RST: the client was silent on %" PRIu64 ", the backend on %" PRIu64
			   "; backends concerned: %" PRIu64,
			   sum.clients, sum.backends, n_backends);
}

void silence_events_tick(struct silence_events *s, const struct dataplane *dp, const struct view *view,
			 struct events *events, uint64_t now_ns)
{
	uint64_t ended = did(dp, ACTION_rst_peer_dead), put_off = did(dp, ACTION_put_off);

	if (ended != s->ended_said && now_ns - s->ended_at_ns >= SILENCE_EVENT_EVERY_NS) {
		say_ended(s, dp, view, events);
		s->ended_said = ended;
		s->ended_at_ns = now_ns;
	}
	if (put_off != s->put_off_said && now_ns - s->put_off_at_ns >= SILENCE_EVENT_EVERY_NS) {
		events_add(events, EVENT_WARNING, "probes_put_off", "silence", "gateway",
			   "more idle connections were due than may be probed or ended per second: put off %" PRIu64
			   " times",
			   put_off - s->put_off_said);
		s->put_off_said = put_off;
		s->put_off_at_ns = now_ns;
	}
}
