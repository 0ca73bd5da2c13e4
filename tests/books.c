/* SPDX-License-Identifier: BSD-3-Clause */
#include "books.h"

#include "core.h"
#include "signals.h"
#include "wall.h"

#include <stdlib.h>
#include <string.h>

#define EXPECT(condition)                                                                                              \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			return #condition;                                                                             \
	} while (0)

/* --- sums --- */

static uint64_t made(const struct ledger *l)
{
	uint64_t n = 0;

	for (int m = 0; m < MADE_COUNT; m++)
		n += l->made[m];
	return n;
}

static const char *ledger_error(const struct worker *w)
{
	const struct ledger *l = &w->ledger;

	EXPECT(ledger_balance(l) == 0);
	EXPECT(l->tx + l->tx_failed == ledger_class(l, CLASS_FORWARDED) + ledger_class(l, CLASS_ANSWERED) + made(l));
	return NULL;
}

static const char *attempts_error(const struct worker *w)
{
	uint64_t holding = 0;

	for (uint32_t i = 0; i < w->dp->config.n_service_slots; i++) {
		const struct service_cell *c = &w->services[i];

		EXPECT(c->attempts == c->new_flows + c->refused + c->silent + c->holding);
		EXPECT(c->refused_storm <= c->refused + c->silent);
		EXPECT(c->silent_many <= c->silent + c->repeated);
		EXPECT(c->silent_rate <= c->silent_many);
		holding += c->holding;
	}
	EXPECT(w->ledger.inside == holding);
	EXPECT(w->holds.n_real == holding);
	return NULL;
}

static const char *queue_error(const struct holds *hs, uint32_t queue, uint32_t *n_queued)
{
	const struct hold_queue *q = &hs->queues[queue];
	uint32_t n = 0;

	for (unsigned rank = 0; rank < HOLD_RANKS; rank++) {
		uint32_t prev = HOLD_NONE;

		for (uint32_t i = q->ranks[rank].first; i != HOLD_NONE; i = hs->holds[i].next_in_queue) {
			const struct hold *h = &hs->holds[i];

			EXPECT(h->queued && h->rank == rank && h->prev_in_queue == prev && ++n <= hs->n);
			EXPECT(hold_queue_at(h->service.slot, !ipaddr_is_v4(&h->dst)) == queue);
			prev = i;
		}
		EXPECT(q->ranks[rank].last == prev);
	}
	EXPECT(q->n == n);
	EXPECT(!n || (q->at < hs->n_waiting && hs->waiting[q->at] == queue));
	*n_queued += n;
	return NULL;
}

const char *books_holds_error(const struct worker *w)
{
	const struct holds *hs = &w->holds;
	uint32_t n = 0, n_real = 0, n_queued = 0, of_services = 0, n_queues = 0;

	EXPECT(hs->n || (!hs->n_real && !hs->n_waiting));
	if (!hs->n)
		return NULL;
	for (uint32_t slot = 0; slot < HOLD_SLOTS; slot++)
		for (uint32_t i = hs->slots[slot].first; i != HOLD_NONE; i = hs->holds[i].next) {
			EXPECT(hs->holds[i].slot == slot && ++n <= hs->n);
			n_real += !hs->holds[i].shadow;
			n_queued += hs->holds[i].queued;
		}
	EXPECT(n == hs->n && n_real == hs->n_real);
	for (uint32_t queue = 0; queue < 2 * w->dp->config.n_service_slots; queue++) {
		uint32_t of_queue = 0;
		const char *error = queue_error(hs, queue, &of_queue);

		if (error)
			return error;
		n_queues += of_queue > 0;
		EXPECT(n_queued >= of_queue);
		n_queued -= of_queue;
	}
	EXPECT(n_queued == 0 && n_queues == hs->n_waiting);
	for (uint32_t slot = 0; slot < w->dp->config.n_service_slots; slot++)
		of_services += hs->of_service[slot];
	EXPECT(of_services == hs->n);
	return NULL;
}

static const char *shares_error(const struct worker *w)
{
	uint64_t users = 0, held = 0, ports = 0, resting = 0;

	for (uint32_t i = 0; i < w->dp->config.n_backend_slots; i++) {
		users += w->backends[i].users;
		held += w->backends[i].held;
		EXPECT(w->backends[i].connects <= w->backends[i].new_flows);
	}
	for (uint32_t i = 0; i < w->snat.n_pairs; i++) {
		ports += w->snat.pairs[i].used;
		resting += w->snat.pairs[i].resting;
	}
	EXPECT(w->wheel.n_flows == w->flows.pool4.in_use + w->flows.pool6.in_use);
	EXPECT(w->wheel.n_flows == w->flows.adds - w->flows.removes);
	EXPECT(users == w->wheel.n_flows);
	EXPECT(held == tuples_count(&w->tuples));
	EXPECT(resting == snat_resting(&w->snat));
	EXPECT(ports == users + held + resting);
	return NULL;
}

/* --- signals --- */

/* What flows say of their backend. */
struct levels {
	uint64_t unresolved;
	uint32_t waiting, exchanges, fresh, answered_now;
};

static void add_levels(const struct worker *w, bool v6, struct levels *levels)
{
	uint32_t n = v6 ? w->flows.pool6.capacity : w->flows.pool4.capacity;

	for (uint32_t entry = 0; entry < n; entry++) {
		flow_ref up = flow_ref_make(v6, entry, DIR_UP);
		const struct flow_track *track = flow_track(&w->flows, up);

		if (flow_half(&w->flows, up)->state == FLOW_FREE)
			continue;
		levels[track->backend_slot].unresolved += !(track->signals & SIGNAL_FLAG_DECIDED);
		levels[track->backend_slot].waiting += !!(track->signals & SIGNAL_FLAG_WAITING);
		if (track->fresh && (int32_t)(track->exchange_unit - w->signals.unit) > 0)
			++*(track->begun ? &levels[track->backend_slot].fresh
					 : &levels[track->backend_slot].answered_now);
		levels[track->backend_slot].exchanges += !!(track->signals & SIGNAL_FLAG_OPEN);
	}
}

static uint32_t sum_of(const uint32_t *n)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < SIGNAL_UNITS; i++)
		sum += n[i];
	return sum;
}

static const char *backend_error(const struct worker *w, uint32_t slot, const struct levels *levels)
{
	const struct signal_counts *c = &w->signals.counts[slot];
	uint64_t known = c->outcomes[SIGNAL_SUCCESS] + c->outcomes[SIGNAL_FAILED] + c->outcomes[SIGNAL_NEUTRAL];
	uint32_t ended = 0, ended_unfinished = 0;

	EXPECT(known + levels->unresolved == w->backends[slot].new_flows);
	EXPECT(c->waiting == levels->waiting);
	EXPECT(c->fresh == levels->fresh);
	EXPECT(c->answered_now == levels->answered_now);
	EXPECT(c->doubt <= 1 << 16);
	EXPECT(c->open + c->one_way == levels->exchanges);
	if (c->record) {
		const struct signal_record *record = &w->signals.records[c->record - 1];

		EXPECT(record->slot == slot);
		EXPECT(sum_of(record->open_ends) == c->open);
		EXPECT(sum_of(record->zombie_ends) == c->zombies);
		for (unsigned i = 0; i < SIGNAL_FRESH_UNITS; i++) {
			ended += record->fresh[i].n;
			ended_unfinished += record->fresh[i].n_answered;
		}
		EXPECT(ended == c->fresh && ended_unfinished == c->answered_now);
	}
	return NULL;
}

const char *books_signals_error(const struct worker *w)
{
	struct levels *levels = calloc(w->dp->config.n_backend_slots, sizeof(*levels));
	const char *error = levels ? NULL : "no memory";

	if (levels) {
		add_levels(w, false, levels);
		add_levels(w, true, levels);
	}
	for (uint32_t i = 0; !error && i < w->dp->config.n_backend_slots; i++)
		error = backend_error(w, i, &levels[i]);
	free(levels);
	return error;
}

const char *books_error(const struct dataplane *dp)
{
	uint64_t handed_over = 0, taken_over = 0;

	for (unsigned i = 0; i < dp->config.n_workers; i++) {
		const struct worker *w = dp->workers[i];
		const char *error = ledger_error(w);

		if (!error)
			error = attempts_error(w);
		if (!error)
			error = shares_error(w);
		if (!error)
			error = books_holds_error(w);
		if (error)
			return error;
		handed_over += w->ledger.verdicts[VERDICT_handed_over];
		taken_over += w->ledger.taken_over;
	}
	/* The rest waits in rings. */
	EXPECT(handed_over >= taken_over);
	return NULL;
}

/* --- entries --- */

static flow_ref find(const struct flow_table *t, flow_ref ref)
{
	uint64_t hash = flow_cold(t, ref)->hash[flow_ref_dir(ref)];
	uint8_t proto = flow_proto(flow_half(t, ref));

	return flow_ref_is_v6(ref) ? flow_lookup6(t, &flow_half6(t, ref)->in, proto, hash)
				   : flow_lookup4(t, &flow_half4(t, ref)->in, proto, hash);
}

static uint64_t hash_of(const struct flow_table *t, flow_ref ref)
{
	uint8_t proto = flow_proto(flow_half(t, ref));

	return flow_ref_is_v6(ref) ? flow_hash6(&flow_half6(t, ref)->in, proto, t->secret)
				   : flow_hash4(&flow_half4(t, ref)->in, proto, t->secret);
}

/* Whoever else had one of its keys would be found by it, too. */
static const char *key_error(const struct flow_table *t, flow_ref ref)
{
	EXPECT(hash_of(t, ref) == flow_cold(t, ref)->hash[flow_ref_dir(ref)]);
	EXPECT(find(t, ref) == ref);
	return NULL;
}

/* What one direction lets out, the other one takes in. */
static const char *reverse_error(const struct flow_table *t, flow_ref up)
{
	struct flow_addrs a;

	flow_addrs(t, up, &a);
	if (flow_ref_is_v6(up)) {
		const struct flow_key6 *out = &flow_half6(t, up)->out, *back = &flow_half6(t, up | DIR_DOWN)->out;

		EXPECT(!memcmp(out->src, a.snat.b, 16) && !memcmp(out->dst, a.backend.b, 16));
		EXPECT(!memcmp(back->src, a.vip.b, 16) && !memcmp(back->dst, a.client.b, 16));
		EXPECT(out->sport_be == a.snat_port_be && out->dport_be == a.backend_port_be);
		EXPECT(back->sport_be == a.vip_port_be && back->dport_be == a.client_port_be);
	} else {
		const struct flow_key4 *out = &flow_half4(t, up)->out, *back = &flow_half4(t, up | DIR_DOWN)->out;

		EXPECT(out->src_be == ipaddr_v4_be(&a.snat) && out->dst_be == ipaddr_v4_be(&a.backend));
		EXPECT(back->src_be == ipaddr_v4_be(&a.vip) && back->dst_be == ipaddr_v4_be(&a.client));
		EXPECT(out->sport_be == a.snat_port_be && out->dport_be == a.backend_port_be);
		EXPECT(back->sport_be == a.vip_port_be && back->dport_be == a.client_port_be);
	}
	return NULL;
}

/* Place of the port in the maps of this worker; n_ports: it is not its. */
static uint32_t port_place(const struct snat_pool *pool, uint16_t port)
{
	uint32_t size = 1u << pool->partition->shift;

	for (uint32_t first = 0; first < pool->n_ports; first += size) {
		uint32_t at = port - pool->blocks[first / size];

		if (at < RTE_MIN(size, pool->n_ports - first))
			return first + at;
	}
	return pool->n_ports;
}

static const struct snat_pair *pair_of(const struct snat_pool *pool, const struct flow_track *track)
{
	uint64_t key = ((uint64_t)track->snat_index << 32 | track->backend_slot) + 1;

	for (uint32_t i = 0; i < pool->n_pairs; i++)
		if (pool->pairs[i].key == key)
			return &pool->pairs[i];
	return NULL;
}

static const char *port_error(const struct worker *w, flow_ref up)
{
	const struct flow_track *track = flow_track(&w->flows, up);
	const struct snat_pair *pair = pair_of(&w->snat, track);
	uint32_t place = port_place(&w->snat, ntohs(track->snat_port_be));
	struct flow_addrs a;

	flow_addrs(&w->flows, up, &a);
	EXPECT(a.snat_port_be == track->snat_port_be);
	EXPECT(ipaddr_equal(&a.snat, &w->dp->snat.addr[track->snat_index]));
	EXPECT(place < w->snat.n_ports);
	EXPECT(pair != NULL);
	EXPECT(pair->map[place / 64] >> place % 64 & 1);
	return NULL;
}

static const char *state_error(const struct worker *w, flow_ref up)
{
	const struct flow_half *client = flow_half(&w->flows, up), *backend = flow_half(&w->flows, up | DIR_DOWN);
	const struct flow_track *track = flow_track(&w->flows, up);
	bool udp = client->state == FLOW_UDP_UNREPLIED || client->state == FLOW_UDP_REPLIED;

	EXPECT(client->state == backend->state && client->state < FLOW_STATES);
	EXPECT(client->udp == udp && backend->udp == udp);
	EXPECT(client->seq_shift == -backend->seq_shift && client->ts_shift == -backend->ts_shift);
	EXPECT(!(track->wall & WALL_WAITING) || client->state == FLOW_SYN_SENT);
	return NULL;
}

static const char *entry_error(const struct worker *w, flow_ref up)
{
	const char *error = key_error(&w->flows, up);

	if (!error)
		error = key_error(&w->flows, up | DIR_DOWN);
	if (!error)
		error = reverse_error(&w->flows, up);
	if (!error)
		error = port_error(w, up);
	if (!error)
		error = state_error(w, up);
	return error;
}

/* --- pools --- */

static const struct flow_pool *pool_of(const struct flow_table *t, bool v6)
{
	return v6 ? &t->pool6 : &t->pool4;
}

static bool is_used(const struct flow_table *t, flow_ref ref)
{
	return flow_half(t, ref)->state != FLOW_FREE;
}

static const char *pool_error(const struct worker *w, bool v6)
{
	const struct flow_pool *pool = pool_of(&w->flows, v6);
	uint32_t n_used = 0;

	for (uint32_t i = pool->in_use; i < pool->capacity; i++) {
		EXPECT(pool->free[i] < pool->capacity);
		EXPECT(!is_used(&w->flows, flow_ref_make(v6, pool->free[i], DIR_UP)));
	}
	for (uint32_t entry = 0; entry < pool->capacity; entry++) {
		flow_ref up = flow_ref_make(v6, entry, DIR_UP);
		const char *error = is_used(&w->flows, up) ? entry_error(w, up) : NULL;

		if (error)
			return error;
		n_used += is_used(&w->flows, up);
	}
	/* With this, none is on the stack twice. */
	EXPECT(n_used == pool->in_use);
	return NULL;
}

/* --- index --- */

static uint32_t second_bucket(const struct flow_table *t, uint32_t b, uint16_t tag)
{
	return b ^ (((uint32_t)tag * UINT32_C(0x9e3779b1) >> 5 | 1) & t->mask);
}

/* Returns NULL, and counts the key where its first bucket is. */
static const char *place_error(const struct flow_table *t, uint32_t b, unsigned place, uint16_t *elsewhere)
{
	const struct flow_bucket *bucket = &t->buckets[b];
	flow_ref ref = bucket->refs[place];
	bool guest = bucket->guests >> place & 1;
	uint64_t hash;
	uint32_t first;

	EXPECT(flow_ref_entry(ref) < pool_of(t, flow_ref_is_v6(ref))->capacity);
	EXPECT(is_used(t, ref));
	hash = flow_cold(t, ref)->hash[flow_ref_dir(ref)];
	first = (uint32_t)hash & t->mask;
	EXPECT(bucket->tags[place] == flow_tag(hash));
	EXPECT(b == (guest ? second_bucket(t, first, flow_tag(hash)) : first));
	elsewhere[first] += guest;
	return NULL;
}

static const char *index_places_error(const struct flow_table *t, uint16_t *elsewhere)
{
	uint32_t n_places = 0;

	for (uint32_t b = 0; b <= t->mask; b++)
		for (unsigned place = 0; place < FLOW_BUCKET_PLACES; place++) {
			const char *error;

			if (!t->buckets[b].tags[place])
				continue;
			error = place_error(t, b, place, elsewhere);
			if (error)
				return error;
			n_places++;
		}
	EXPECT(n_places == DIRS * (t->pool4.in_use + t->pool6.in_use));
	for (uint32_t b = 0; b <= t->mask; b++)
		EXPECT(t->buckets[b].elsewhere == elsewhere[b]);
	return NULL;
}

static const char *index_error(const struct flow_table *t)
{
	uint16_t *elsewhere = calloc(t->mask + 1, sizeof(*elsewhere));
	const char *error;

	EXPECT(elsewhere != NULL);
	error = index_places_error(t, elsewhere);
	free(elsewhere);
	return error;
}

/* --- wheel --- */

/* The tick in which the wheel comes to that slot next. */
static uint64_t tick_of(const struct wheel *wheel, uint32_t slot)
{
	return wheel->tick + (slot - (uint32_t)wheel->tick) % WHEEL_SLOTS;
}

/* No timer comes later than in the first tick after it is due, or than in a turn of the wheel. */
static const char *timer_error(const struct worker *w, flow_ref ref, uint32_t slot)
{
	const struct flow_track *track = flow_track(&w->flows, ref);
	uint64_t due_tick = (w->run_ms + wheel_left_ms(&w->flows, ref, w->run_ms)) / WHEEL_TICK_MS + 1;

	EXPECT(is_used(&w->flows, ref) && flow_ref_dir(ref) == DIR_UP);
	EXPECT(track->wheel_slot == slot);
	EXPECT(tick_of(&w->wheel, slot) <= RTE_MAX(due_tick, w->wheel.tick));
	return NULL;
}

static const char *wheel_error(const struct worker *w)
{
	uint32_t n = 0;

	for (uint32_t slot = 0; slot < WHEEL_SLOTS; slot++) {
		flow_ref prev = FLOW_REF_NONE;

		for (flow_ref ref = w->wheel.heads[slot]; ref != FLOW_REF_NONE;
		     ref = flow_track(&w->flows, ref)->wheel_next) {
			const char *error = timer_error(w, ref, slot);

			if (error)
				return error;
			EXPECT(flow_track(&w->flows, ref)->wheel_prev == prev);
			EXPECT(++n <= w->wheel.n_flows);
			prev = ref;
		}
	}
	EXPECT(n == w->wheel.n_flows);
	return NULL;
}

/* --- what backends hold --- */

/* Flows that wait for the backend, all of them and no others. */
static const char *waiting_error(const struct worker *w, uint32_t slot, uint32_t n_waiting)
{
	flow_ref prev = 0;
	uint32_t n = 0;

	for (flow_ref ref = w->backends[slot].waiting; ref; ref = flow_track(&w->flows, ref)->waiting_next) {
		const struct flow_track *track = flow_track(&w->flows, ref);

		EXPECT(++n <= n_waiting);
		EXPECT(is_used(&w->flows, ref) && flow_ref_dir(ref) == DIR_DOWN);
		EXPECT(track->backend_slot == slot && track->wall & WALL_WAITING);
		EXPECT(track->waiting_prev == prev);
		prev = ref;
	}
	EXPECT(n == n_waiting);
	return NULL;
}

struct counted {
	uint32_t users, waiting;
};

static void count(const struct worker *w, bool v6, struct counted *backends, uint64_t *services)
{
	const struct flow_pool *pool = pool_of(&w->flows, v6);

	for (uint32_t entry = 0; entry < pool->capacity; entry++) {
		flow_ref up = flow_ref_make(v6, entry, DIR_UP);
		const struct flow_track *track = flow_track(&w->flows, up);

		if (!is_used(&w->flows, up))
			continue;
		backends[track->backend_slot].users++;
		backends[track->backend_slot].waiting += !!(track->wall & WALL_WAITING);
		services[track->service_slot]++;
	}
}

static const char *counted_error(const struct worker *w, const struct counted *backends, const uint64_t *services)
{
	for (uint32_t i = 0; i < w->dp->config.n_service_slots; i++)
		EXPECT(w->services[i].users == services[i]);
	for (uint32_t i = 0; i < w->dp->config.n_backend_slots; i++) {
		const char *error;

		EXPECT(w->backends[i].users == backends[i].users);
		error = waiting_error(w, i, backends[i].waiting);
		if (error)
			return error;
	}
	return NULL;
}

static const char *slots_error(const struct worker *w)
{
	struct counted *backends = calloc(w->dp->config.n_backend_slots, sizeof(*backends));
	uint64_t *services = calloc(w->dp->config.n_service_slots, sizeof(*services));
	const char *error = "no memory";

	if (backends && services) {
		count(w, false, backends, services);
		count(w, true, backends, services);
		error = counted_error(w, backends, services);
	}
	free(backends);
	free(services);
	return error;
}

/* A port that two gave back is free while a flow or nobody's rest still counts. */
static const char *maps_error(const struct snat_pool *pool)
{
	for (uint32_t i = 0; i < pool->n_pairs; i++) {
		const struct snat_pair *pair = &pool->pairs[i];
		uint32_t n = 0;

		if (!pair->key)
			continue;
		for (uint32_t word = 0; word < pool->n_ports / 64; word++)
			n += __builtin_popcountll(pair->map[word]);
		EXPECT(n == pair->used);
		EXPECT(pair->resting <= pair->used);
	}
	return NULL;
}

const char *books_flows_error(const struct worker *w)
{
	const char *error = pool_error(w, false);

	if (!error)
		error = pool_error(w, true);
	if (!error)
		error = index_error(&w->flows);
	if (!error)
		error = wheel_error(w);
	if (!error)
		error = slots_error(w);
	if (!error)
		error = maps_error(&w->snat);
	return error;
}
