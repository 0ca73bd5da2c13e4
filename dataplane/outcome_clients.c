/* SPDX-License-Identifier: BSD-3-Clause */
#include "outcome_clients.h"
#include "hash.h"
#include "memory.h"
#include "observe_worker.h"
#include "seq.h"

#include <assert.h>
#include <errno.h>

#define AHEAD_CS 100

enum record_life {
	RECORD_NONE,
	RECORD_PROBATION,
	RECORD_KEPT,
};

static_assert(sizeof(struct record_set) == 64, "one line per set");
static_assert(sizeof(struct client_record) == 248, "65536 of them and their sets are 16 MiB");
static_assert(sizeof(struct client_outcome) % 8 == 0 && offsetof(struct client_record, outcomes) % 8 == 0,
	      "copied by words");

/* --- life --- */

uint64_t record_table_bytes(uint32_t n_sets)
{
	return (uint64_t)n_sets * (sizeof(struct record_set) + RECORD_WAYS * sizeof(struct client_record));
}

int record_table_init(struct record_table *t, uint32_t n_sets, const uint8_t *secret)
{
	*t = (struct record_table){.mask = n_sets - 1, .secret = secret};
	t->sets = memory_alloc(n_sets * sizeof(*t->sets));
	t->records = memory_alloc((size_t)n_sets * RECORD_WAYS * sizeof(*t->records));
	memcpy(&t->random, secret, sizeof(t->random));
	if (t->sets && t->records)
		return 0;
	record_table_fini(t);
	return -ENOMEM;
}

void record_table_fini(struct record_table *t)
{
	memory_free(t->sets);
	memory_free(t->records);
	t->sets = NULL;
	t->records = NULL;
}

uint32_t record_places(const struct record_table *t)
{
	return (t->mask + 1) * RECORD_WAYS;
}

/* --- finding --- */

/* Whoever has one address of an IPv6 /64 has them all. */
static struct ipaddr group_of(const struct ipaddr *addr)
{
	struct ipaddr group = *addr;

	if (!ipaddr_is_v4(addr))
		group.q_be[1] = 0;
	return group;
}

struct client_key record_key(const struct record_table *t, const struct ipaddr *addr)
{
	struct client_key key = {.group = group_of(addr)};
	uint64_t hash = hash_keyed(key.group.b, sizeof(key.group.b), t->secret);

	key.set = (uint32_t)hash & t->mask;
	key.tag = hash >> 32;
	return key;
}

static bool is_of(const struct client_record *r, const struct client_key *key)
{
	struct ipaddr group = group_of(&r->addr);

	return ipaddr_equal(&group, &key->group);
}

/* --- the worker's --- */

static struct client_record *record_at(const struct record_table *t, uint32_t set, int way)
{
	return &t->records[(size_t)set * RECORD_WAYS + way];
}

/* -1: none. The writer reads what it wrote itself. */
static int find(const struct record_table *t, const struct client_key *key)
{
	const struct record_set *set = &t->sets[key->set];

	for (int way = 0; way < RECORD_WAYS; way++)
		if (set->tags[way] == key->tag && set->lives[way] != RECORD_NONE &&
		    is_of(record_at(t, key->set, way), key))
			return way;
	return -1;
}

static void put_life(struct record_set *set, int way, enum record_life life)
{
	__atomic_store_n(&set->lives[way], life, __ATOMIC_RELAXED);
}

static uint32_t quiet_cs(const struct client_record *r, uint32_t now_cs)
{
	uint32_t quiet = UINT32_MAX;

	for (int i = 0; i < OUTCOME_KINDS_KEPT; i++)
		if (r->used & 1u << i && now_cs - r->outcomes[i].last_cs < quiet)
			quiet = now_cs - r->outcomes[i].last_cs;
	return quiet;
}

/* Written only where it says something new: in a flood the line stays clean. */
static void put_new(uint32_t *to, uint32_t value)
{
	if (*to != value)
		__atomic_store_n(to, value, __ATOMIC_RELAXED);
}

static void remember_loss(struct record_table *t, struct record_set *set, uint32_t now_cs)
{
	if (!set->forgot)
		put_new(&set->first_forgot_cs, now_cs);
	put_new(&set->last_forgot_cs, now_cs);
	put_new(&set->forgot, 1);
	__atomic_store_n(&t->forgotten, t->forgotten + 1, __ATOMIC_RELAXED);
}

static uint32_t random_below(struct record_table *t, uint32_t n)
{
	t->random = t->random * 6364136223846793005 + 1442695040888963407;
	return (t->random >> 33) % n;
}

/* True: the set is full, it forgets all the time, and this newcomer is not let in. */
static bool turned_away(struct record_table *t, const struct record_set *set, uint32_t now_cs)
{
	if (!set->forgot || now_cs - set->last_forgot_cs >= CLIENT_FLOOD_CS || !random_below(t, CLIENT_LET_IN))
		return false;
	for (int way = 0; way < RECORD_WAYS; way++)
		if (set->lives[way] == RECORD_NONE)
			return false;
	return true;
}

/* A place for a newcomer: an empty one, or that of one on probation, of which there always is one. */
static int claim(struct record_table *t, struct record_set *set, uint32_t now_cs)
{
	int probation[RECORD_WAYS], n = 0;

	for (int way = 0; way < RECORD_WAYS; way++) {
		if (set->lives[way] == RECORD_NONE) {
			__atomic_store_n(&t->in_use, t->in_use + 1, __ATOMIC_RELAXED);
			return way;
		}
		if (set->lives[way] == RECORD_PROBATION)
			probation[n++] = way;
	}
	assert(n > 0);
	remember_loss(t, set, now_cs);
	return probation[random_below(t, n)];
}

/* The kept record that `newcomer` may take the place of; -1: none. */
static int kept_victim(const struct record_table *t, uint32_t set, bool newcomer_connected, uint32_t now_cs)
{
	uint32_t longest = 0;
	bool connected = true; /* the victim */
	int victim = -1;

	for (int way = 0; way < RECORD_WAYS; way++) {
		const struct client_record *r = record_at(t, set, way);
		bool its = r->counts[OUTCOME_CONNECTED];
		uint32_t quiet = quiet_cs(r, now_cs);

		if (t->sets[set].lives[way] != RECORD_KEPT || (its && !connected))
			continue;
		if (victim >= 0 && its == connected && quiet <= longest)
			continue;
		victim = way;
		connected = its;
		longest = quiet;
	}
	if (newcomer_connected)
		return victim;
	return connected || longest < CLIENT_QUIET_CS ? -1 : victim;
}

static uint64_t outcomes_of(const struct client_record *r)
{
	uint64_t n = 0;

	for (int c = 0; c < OUTCOME_CLASSES; c++)
		n += r->counts[c];
	return n;
}

static void promote(struct record_table *t, uint32_t set_index, int way, uint32_t now_cs)
{
	const struct client_record *r = record_at(t, set_index, way);
	struct record_set *set = &t->sets[set_index];
	int kept = 0, victim;

	if (set->lives[way] == RECORD_KEPT || (!r->counts[OUTCOME_CONNECTED] && outcomes_of(r) < 2))
		return;
	for (int i = 0; i < RECORD_WAYS; i++)
		kept += set->lives[i] == RECORD_KEPT;
	if (kept == CLIENT_KEPT_MAX) {
		victim = kept_victim(t, set_index, r->counts[OUTCOME_CONNECTED], now_cs);
		if (victim < 0)
			return;
		put_life(set, victim, RECORD_PROBATION);
	}
	put_life(set, way, RECORD_KEPT);
}

/*
 * The backend is part of the kind, except of what is common: a client that spreads over many must not push out what
 * went wrong.
 */
static bool is_kind(const struct client_outcome *o, const struct client_news *news)
{
	return o->reason == news->reason && o->service_slot == news->service_slot &&
	       (o->backend_slot == news->backend_slot || outcome_is_common(news->reason));
}

/* The place of the kind, or for it: an empty one, or that of the kind that was quiet for longest. *found: it is there.
 */
static int place_of_kind(const struct client_record *r, const struct client_news *news, uint32_t now_cs, bool *found)
{
	int best = -1;

	for (int i = 0; i < OUTCOME_KINDS_KEPT; i++) {
		const struct client_outcome *o = &r->outcomes[i];

		*found = r->used & 1u << i && is_kind(o, news);
		if (*found)
			return i;
		if (best < 0 || (r->used & 1u << best &&
				 (!(r->used & 1u << i) || now_cs - o->last_cs > now_cs - r->outcomes[best].last_cs)))
			best = i;
	}
	return best;
}

/* Returns the bit of its place. */
static uint32_t add_outcome(struct client_record *r, const struct client_news *news, uint32_t now_cs)
{
	bool found;
	int place = place_of_kind(r, news, now_cs, &found);
	struct client_outcome o = {.first_cs = now_cs, .reason = news->reason};

	if (found)
		o = r->outcomes[place];
	o.last_cs = now_cs;
	o.service_slot = news->service_slot;
	o.backend_slot = news->backend_slot;
	o.count++;
	observe_store_words(&r->outcomes[place], &o, sizeof(o));
	return 1u << place;
}

/* All of the record but its outcomes. */
static void put_head(struct client_record *r, const struct client_record *head)
{
	observe_store_words(r, head, offsetof(struct client_record, outcomes));
}

static int begin_record(struct record_table *t, const struct client_key *key, uint32_t now_cs)
{
	struct record_set *set = &t->sets[key->set];
	struct client_record head = {.since_cs = now_cs};
	int way = claim(t, set, now_cs);

	put_head(record_at(t, key->set, way), &head);
	__atomic_store_n(&set->tags[way], key->tag, __ATOMIC_RELAXED);
	put_life(set, way, RECORD_PROBATION);
	return way;
}

static void write_news(struct record_table *t, const struct client_key *key, int way, const struct ipaddr *addr,
		       const struct client_news *news, uint32_t now_cs)
{
	struct client_record *r = record_at(t, key->set, way), head;

	memcpy(&head, r, offsetof(struct client_record, outcomes));
	head.addr = *addr;
	head.counts[news->class]++;
	if (news->class == OUTCOME_CONNECTED)
		head.connected_cs[news->udp] = now_cs ? now_cs : 1;
	head.used |= add_outcome(r, news, now_cs);
	put_head(r, &head);
	promote(t, key->set, way, now_cs);
}

void record_note(struct record_table *t, const struct client_key *key, const struct ipaddr *addr,
		 const struct client_news *news, uint32_t now_cs)
{
	struct record_set *set = &t->sets[key->set];
	int way = find(t, key);

	if (way < 0 && news->class != OUTCOME_CONNECTED && turned_away(t, set, now_cs)) {
		/* Two words that say the same alone or together: no sequence. */
		remember_loss(t, set, now_cs);
		return;
	}
	seq_write_begin(&set->seq);
	if (way < 0)
		way = begin_record(t, key, now_cs);
	write_news(t, key, way, addr, news, now_cs);
	seq_write_end(&set->seq);
}

/* --- anyone's --- */

static bool copy_found(const struct record_table *t, const struct client_key *key, const struct record_set *set,
		       struct client_record *out)
{
	for (int way = 0; way < RECORD_WAYS; way++) {
		if (set->tags[way] != key->tag || set->lives[way] == RECORD_NONE)
			continue;
		observe_load_words(out, record_at(t, key->set, way), sizeof(*out));
		if (is_of(out, key))
			return true;
	}
	return false;
}

bool record_read(const struct record_table *t, const struct ipaddr *addr, struct client_record *out,
		 struct record_set *set)
{
	struct client_key key = record_key(t, addr);
	uint32_t begin;
	bool found;

	do {
		begin = seq_read_begin(&t->sets[key.set].seq);
		observe_load_words(set, &t->sets[key.set], sizeof(*set));
		found = copy_found(t, &key, set, out);
	} while (seq_read_again(&t->sets[key.set].seq, begin));
	return found;
}

static bool find_head(const struct record_table *t, const struct client_key *key, struct client_record *head)
{
	const struct record_set *set = &t->sets[key->set];

	for (int way = 0; way < RECORD_WAYS; way++) {
		if (__atomic_load_n(&set->tags[way], __ATOMIC_RELAXED) != key->tag ||
		    __atomic_load_n(&set->lives[way], __ATOMIC_RELAXED) == RECORD_NONE)
			continue;
		observe_load_words(head, record_at(t, key->set, way), offsetof(struct client_record, outcomes));
		if (is_of(head, key))
			return true;
	}
	return false;
}

/* By the clock of another worker, which may be a bit ahead. */
static bool is_lately(uint32_t connected_cs, uint32_t now_cs, uint32_t within_cs)
{
	return connected_cs && now_cs - connected_cs + AHEAD_CS <= within_cs + AHEAD_CS;
}

bool record_connected_lately(const struct record_table *t, const struct client_key *key, bool udp, uint32_t now_cs,
			     uint32_t within_cs)
{
	const uint32_t *seq = &t->sets[key->set].seq;
	struct client_record head;
	uint32_t begin;

	if (!seq_read_try(seq, &begin) || !find_head(t, key, &head) || seq_read_again(seq, begin))
		return false;
	return is_lately(head.connected_cs[false], now_cs, within_cs) ||
	       (udp && is_lately(head.connected_cs[true], now_cs, within_cs));
}

bool record_read_at(const struct record_table *t, uint32_t place, struct client_record *out)
{
	const struct record_set *set = &t->sets[place / RECORD_WAYS];
	uint32_t begin;
	bool there;

	do {
		begin = seq_read_begin(&set->seq);
		there = __atomic_load_n(&set->lives[place % RECORD_WAYS], __ATOMIC_RELAXED) != RECORD_NONE;
		if (there)
			observe_load_words(out, &t->records[place], sizeof(*out));
	} while (seq_read_again(&set->seq, begin));
	return there;
}
