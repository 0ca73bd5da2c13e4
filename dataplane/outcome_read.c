/* SPDX-License-Identifier: BSD-3-Clause */
/* The readers of outcome.h: copies of what workers remember, on the dataplane's clock. */
#include "outcome_worker.h"

#include <errno.h>

/* --- times --- */

struct clock {
	uint64_t now_ns;
	uint32_t now_cs;
};

static struct clock read_clock(const struct dataplane *dp)
{
	uint64_t now_ns = dataplane_now_ns(dp);

	return (struct clock){now_ns, now_ns / 10000000};
}

/* A worker may be a little ahead of the clock that was just read. */
static uint64_t from_cs(const struct clock *c, uint32_t at_cs)
{
	return c->now_ns - (int64_t)(int32_t)(c->now_cs - at_cs) * 10000000;
}

/* --- clients --- */

static void convert_outcome(const struct clock *c, const struct client_outcome *from, struct outcome_row *to)
{
	*to = (struct outcome_row){
		.reason = from->reason,
		.count = from->count,
		.service_slot = from->service_slot,
		.backend_slot = from->backend_slot,
		.first_ns = from_cs(c, from->first_cs),
		.last_ns = from_cs(c, from->last_cs),
	};
}

static void sort_latest_first(struct client_row *row)
{
	for (unsigned i = 1; i < row->n; i++)
		for (unsigned j = i; j > 0 && row->outcomes[j - 1].last_ns < row->outcomes[j].last_ns; j--) {
			struct outcome_row later = row->outcomes[j];

			row->outcomes[j] = row->outcomes[j - 1];
			row->outcomes[j - 1] = later;
		}
}

static void convert_record(const struct clock *c, const struct client_record *from, struct client_row *to)
{
	*to = (struct client_row){.addr = from->addr, .since_ns = from_cs(c, from->since_cs)};
	for (int i = 0; i < OUTCOME_CLASSES; i++)
		to->counts[i] = from->counts[i];
	for (int i = 0; i < OUTCOME_KINDS_KEPT; i++)
		if (from->used & 1u << i)
			convert_outcome(c, &from->outcomes[i], &to->outcomes[to->n++]);
	sort_latest_first(to);
}

/* What the set forgot while it had a record of this client was others'. */
static struct outcome_blind blindness(const struct clock *c, const struct record_set *set,
				      const struct client_record *record)
{
	struct outcome_blind blind = {0};

	if (!set->forgot)
		return blind;
	blind.from_ns = from_cs(c, set->first_forgot_cs);
	blind.to_ns = from_cs(c, set->last_forgot_cs);
	if (!record)
		return blind;
	if (from_cs(c, record->since_cs) < blind.from_ns)
		return (struct outcome_blind){0};
	if (from_cs(c, record->since_cs) < blind.to_ns)
		blind.to_ns = from_cs(c, record->since_cs);
	return blind;
}

bool observe_client(const struct dataplane *dp, unsigned worker, const struct ipaddr *addr, struct client_row *out,
		    struct outcome_blind *blind)
{
	struct clock clock = read_clock(dp);
	struct client_record record;
	struct record_set set;
	bool found = record_read(&dp->workers[worker]->outcomes->clients, addr, &record, &set);

	if (found)
		convert_record(&clock, &record, out);
	*blind = blindness(&clock, &set, found ? &record : NULL);
	return found;
}

uint32_t observe_client_places(const struct dataplane *dp, unsigned worker)
{
	return record_places(&dp->workers[worker]->outcomes->clients);
}

bool observe_client_at(const struct dataplane *dp, unsigned worker, uint32_t place, struct client_row *out)
{
	struct clock clock = read_clock(dp);
	struct client_record record;

	if (!record_read_at(&dp->workers[worker]->outcomes->clients, place, &record))
		return false;
	convert_record(&clock, &record, out);
	return true;
}

void observe_clients(const struct dataplane *dp, struct clients_report *out)
{
	*out = (struct clients_report){0};
	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct record_table *t = &dp->workers[i]->outcomes->clients;

		out->records += __atomic_load_n(&t->in_use, __ATOMIC_RELAXED);
		out->forgotten += __atomic_load_n(&t->forgotten, __ATOMIC_RELAXED);
		out->places += record_places(t);
	}
}

/* --- seconds --- */

void observe_seconds(const struct dataplane *dp, unsigned worker, second_row_fn *fn, void *arg)
{
	seconds_read(&dp->workers[worker]->outcomes->seconds, dataplane_now_ns(dp) / 1000000000, fn, arg);
}

/* --- SNAT tuples --- */

int observe_snat_owner(const struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be)
{
	return snat_index(&dp->snat, snat) < 0 ? -ENOENT : (int)snat_owner(&dp->partition, port_be);
}

struct ended_search {
	struct clock clock;
	int snat_index;
	uint16_t port_be;
	struct ended_row *out;
	size_t n, max;
};

static bool take_ended(void *arg, const struct ended_flow *flow)
{
	struct ended_search *s = arg;

	if (flow->snat_port_be != s->port_be || flow->snat_index != s->snat_index)
		return true;
	s->out[s->n++] = (struct ended_row){
		.client = flow->client,
		.client_port_be = flow->client_port_be,
		.proto = flow->proto,
		.state = flow_state_name[flow->state],
		.service_slot = flow->service_slot,
		.backend_slot = flow->backend_slot,
		.born_ns = from_cs(&s->clock, flow->born_cs),
		.ended_ns = from_cs(&s->clock, flow->ended_cs),
	};
	return s->n < s->max;
}

size_t observe_ended(const struct dataplane *dp, const struct ipaddr *snat, uint16_t port_be, struct ended_row *out,
		     size_t max, uint64_t *since_ns)
{
	struct ended_search s = {read_clock(dp), snat_index(&dp->snat, snat), port_be, out, 0, max};
	int owner = observe_snat_owner(dp, snat, port_be);
	uint32_t oldest_cs = 0;

	*since_ns = 0;
	if (owner >= 0 && max > 0 && ended_read(&dp->workers[owner]->outcomes->ended, take_ended, &s, &oldest_cs))
		*since_ns = from_cs(&s.clock, oldest_cs);
	return s.n;
}
