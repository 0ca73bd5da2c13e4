/* SPDX-License-Identifier: BSD-3-Clause */
#include "mtu.h"
#include "hash.h"
#include "icmp.h"
#include "memory.h"
#include "observe_worker.h"

#include <assert.h>
#include <errno.h>

#define SECOND_NS  1000000000ull
#define LIFE_NS    (MTU_LIFE_S * SECOND_NS)
#define YOUNG_S    60
#define NONE       UINT32_MAX
/* Members of a prefix that are looked at: one who owns an IPv6 /64 can fill a chain. */
#define CHAIN_LOOK 256

static_assert(sizeof(struct mtu_set) == 64, "a lookup touches one line");

enum mtu_source {
	SOURCE_PTB,
	SOURCE_MEMBERS,
};

struct mtu_entry {
	struct ipaddr addr;
	uint64_t learned_ns; /* this MTU */
	uint64_t until_ns;
	uint16_t mtu; /* 0: not in use */
	uint8_t kind, source;
	uint32_t unused;
};

static_assert(sizeof(struct mtu_entry) % 8 == 0, "copied by words");

struct mtu_record {
	uint64_t seq; /* odd: the entry is being written */
	struct mtu_entry entry;
	uint32_t older, newer;
	uint32_t chain_next, chain_prev; /* PATH_CLIENT only */
};

/* --- keys --- */

/* What stands for an address: its hash, with what it is in it. Never 0. */
static uint64_t tag_of(const struct mtu_table *t, enum path_kind kind, const struct ipaddr *addr)
{
	const uint64_t k[] = {addr->q_be[0], addr->q_be[1], kind};
	uint64_t tag = hash_keyed(k, sizeof(k), t->secret);

	return tag ? tag : 1;
}

static struct ipaddr prefix_of(const struct ipaddr *addr)
{
	struct ipaddr prefix = *addr;

	if (ipaddr_is_v4(addr))
		prefix.b[15] = 0; /* /24 */
	else
		prefix.q_be[1] = 0; /* /64 */
	return prefix;
}

/* --- workers --- */

static uint16_t cell_mtu(uint64_t value)
{
	return value;
}

static uint16_t cell_until_s(uint64_t value)
{
	return value >> 16;
}

/* The value of the tag's cell; 0: there is none, or its end has come. */
static uint64_t lookup(const struct mtu_table *t, uint64_t tag, uint64_t now_ns)
{
	const struct mtu_set *set = &t->sets[tag & t->mask];
	uint16_t now_s = now_ns / SECOND_NS;

	for (int w = 0; w < MTU_WAYS; w++) {
		uint64_t value;

		if (__atomic_load_n(&set->ways[w].tag, __ATOMIC_RELAXED) != tag)
			continue;
		value = __atomic_load_n(&set->ways[w].value, __ATOMIC_RELAXED);
		if (value >> 32 == tag >> 32 && cell_mtu(value) && (int16_t)(cell_until_s(value) - now_s) > 0)
			return value;
	}
	return 0;
}

static bool is_empty(const struct mtu_table *t)
{
	return __atomic_load_n(&t->n, __ATOMIC_RELAXED) == 0;
}

uint16_t mtu_of_client(const struct mtu_table *t, const struct ipaddr *client, uint64_t now_ns)
{
	struct ipaddr prefix = prefix_of(client);
	uint16_t mtu;

	if (is_empty(t))
		return 0;
	mtu = cell_mtu(lookup(t, tag_of(t, PATH_CLIENT, client), now_ns));
	return mtu ? mtu : cell_mtu(lookup(t, tag_of(t, PATH_PREFIX, &prefix), now_ns));
}

uint16_t mtu_of_upstream(const struct mtu_table *t, const struct ipaddr *backend, uint64_t now_ns)
{
	return is_empty(t) ? 0 : cell_mtu(lookup(t, tag_of(t, PATH_UPSTREAM, backend), now_ns));
}

uint16_t mtu_of_address(const struct mtu_table *t, bool upstream, const struct ipaddr *addr, uint64_t now_ns,
			bool *young)
{
	uint64_t value = lookup(t, tag_of(t, upstream ? PATH_UPSTREAM : PATH_CLIENT, addr), now_ns);
	uint16_t left_s = cell_until_s(value) - (uint16_t)(now_ns / SECOND_NS);

	*young = value && left_s > MTU_LIFE_S - YOUNG_S;
	return cell_mtu(value);
}

/* --- decide: one entry --- */

static void add_relaxed(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

/* The same steps as worker_publish(): readers race with nothing but atomics. */
static void write_entry(struct mtu_record *r, const struct mtu_entry *entry)
{
	__atomic_store_n(&r->seq, r->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	observe_store_words(&r->entry, entry, sizeof(*entry));
	__atomic_store_n(&r->seq, r->seq + 1, __ATOMIC_RELEASE);
}

static void write_cell(struct mtu_table *t, uint32_t i, uint64_t tag, const struct mtu_entry *entry)
{
	struct mtu_cell *cell = &t->sets[i / MTU_WAYS].ways[i % MTU_WAYS];
	uint16_t until_s = entry->until_ns / SECOND_NS;
	uint64_t value = (tag >> 32) << 32 | (uint64_t)until_s << 16 | entry->mtu;

	__atomic_store_n(&cell->tag, tag, __ATOMIC_RELAXED);
	__atomic_store_n(&cell->value, value, __ATOMIC_RELAXED);
}

static void age_add(struct mtu_table *t, uint32_t i)
{
	t->records[i].older = t->newest;
	t->records[i].newer = NONE;
	*(t->newest == NONE ? &t->oldest : &t->records[t->newest].newer) = i;
	t->newest = i;
}

static void age_del(struct mtu_table *t, uint32_t i)
{
	const struct mtu_record *r = &t->records[i];

	*(r->older == NONE ? &t->oldest : &t->records[r->older].newer) = r->newer;
	*(r->newer == NONE ? &t->newest : &t->records[r->newer].older) = r->older;
}

static uint32_t *chain_of(const struct mtu_table *t, const struct ipaddr *client)
{
	struct ipaddr prefix = prefix_of(client);

	return &t->chains[tag_of(t, PATH_PREFIX, &prefix) & t->mask];
}

static void chain_add(struct mtu_table *t, uint32_t i, const struct ipaddr *client)
{
	uint32_t *head = chain_of(t, client);

	t->records[i].chain_next = *head;
	t->records[i].chain_prev = NONE;
	if (*head != NONE)
		t->records[*head].chain_prev = i;
	*head = i;
}

static void chain_del(struct mtu_table *t, uint32_t i)
{
	const struct mtu_record *r = &t->records[i];

	*(r->chain_prev == NONE ? chain_of(t, &r->entry.addr) : &t->records[r->chain_prev].chain_next) = r->chain_next;
	if (r->chain_next != NONE)
		t->records[r->chain_next].chain_prev = r->chain_prev;
}

static void entry_del(struct mtu_table *t, uint32_t i)
{
	static const struct mtu_entry none;
	struct mtu_record *r = &t->records[i];

	if (r->entry.kind == PATH_CLIENT)
		chain_del(t, i);
	age_del(t, i);
	add_relaxed(&t->of_kind[r->entry.kind], -1);
	__atomic_store_n(&t->n, t->n - 1, __ATOMIC_RELAXED);
	write_cell(t, i, 0, &none);
	write_entry(r, &none);
}

static void entry_add(struct mtu_table *t, uint32_t i, uint64_t tag, const struct mtu_entry *entry)
{
	if (entry->kind == PATH_CLIENT)
		chain_add(t, i, &entry->addr);
	age_add(t, i);
	add_relaxed(&t->of_kind[entry->kind], 1);
	write_entry(&t->records[i], entry);
	write_cell(t, i, tag, entry);
	__atomic_store_n(&t->n, t->n + 1, __ATOMIC_RELAXED);
}

/* --- decide: the table --- */

static uint32_t find(const struct mtu_table *t, enum path_kind kind, const struct ipaddr *addr, uint64_t tag)
{
	uint32_t first = (tag & t->mask) * MTU_WAYS;

	for (uint32_t i = first; i < first + MTU_WAYS; i++) {
		const struct mtu_entry *e = &t->records[i].entry;

		if (e->mtu && e->kind == kind && ipaddr_equal(&e->addr, addr))
			return i;
	}
	return NONE;
}

/* True if `a` should make room before `b`: a client's before a backend's, then what was confirmed longer ago. */
static bool goes_first(const struct mtu_entry *a, const struct mtu_entry *b)
{
	bool a_upstream = a->kind == PATH_UPSTREAM, b_upstream = b->kind == PATH_UPSTREAM;

	return a_upstream != b_upstream ? b_upstream : a->until_ns < b->until_ns;
}

/* A place in the tag's set, made free if need be; NONE: there is none for such an entry. */
static uint32_t make_room(struct mtu_table *t, enum path_kind kind, uint64_t tag)
{
	uint32_t first = (tag & t->mask) * MTU_WAYS, victim = first;

	for (uint32_t i = first; i < first + MTU_WAYS; i++) {
		if (!t->records[i].entry.mtu)
			return i;
		if (goes_first(&t->records[i].entry, &t->records[victim].entry))
			victim = i;
	}
	if (kind == PATH_PREFIX || (kind == PATH_CLIENT && t->records[victim].entry.kind == PATH_UPSTREAM))
		return NONE;
	add_relaxed(&t->evicted, 1);
	entry_del(t, victim);
	return victim;
}

static void confirm(struct mtu_table *t, uint32_t i, uint64_t tag, uint16_t mtu, uint64_t now_ns)
{
	struct mtu_entry entry = t->records[i].entry;

	entry.until_ns = now_ns + LIFE_NS;
	if (mtu < entry.mtu)
		entry.learned_ns = now_ns;
	entry.mtu = mtu;
	write_entry(&t->records[i], &entry);
	write_cell(t, i, tag, &entry);
	age_del(t, i);
	age_add(t, i);
}

static enum path_outcome put(struct mtu_table *t, const struct mtu_entry *entry, uint64_t now_ns, uint16_t *before)
{
	uint64_t tag = tag_of(t, entry->kind, &entry->addr);
	uint32_t i = find(t, entry->kind, &entry->addr, tag);

	*before = 0;
	if (i != NONE && t->records[i].entry.until_ns <= now_ns) {
		entry_del(t, i);
		i = NONE;
	}
	if (i == NONE) {
		i = make_room(t, entry->kind, tag);
		if (i == NONE)
			return PATH_NO_ROOM;
		entry_add(t, i, tag, entry);
		return PATH_LEARNED;
	}
	*before = t->records[i].entry.mtu;
	if (entry->mtu > *before)
		return PATH_LARGER;
	confirm(t, i, tag, entry->mtu, now_ns);
	return entry->mtu < *before ? PATH_LEARNED : PATH_CONFIRMED;
}

static bool prefix_agrees(const struct mtu_table *t, const struct ipaddr *client, uint16_t mtu, uint64_t now_ns)
{
	struct ipaddr prefix = prefix_of(client);
	unsigned agree = 0, looked = 0;

	for (uint32_t i = *chain_of(t, client); i != NONE && looked < CHAIN_LOOK; i = t->records[i].chain_next) {
		const struct mtu_entry *e = &t->records[i].entry;
		struct ipaddr other = prefix_of(&e->addr);

		looked++;
		agree += e->mtu == mtu && e->until_ns > now_ns && ipaddr_equal(&other, &prefix);
		if (agree == MTU_AGREE)
			return true;
	}
	return false;
}

static bool promote(struct mtu_table *t, const struct ipaddr *client, uint16_t mtu, uint64_t now_ns)
{
	const struct mtu_entry entry = {
		.addr = prefix_of(client),
		.learned_ns = now_ns,
		.until_ns = now_ns + LIFE_NS,
		.mtu = mtu,
		.kind = PATH_PREFIX,
		.source = SOURCE_MEMBERS,
	};
	uint16_t before;

	return prefix_agrees(t, client, mtu, now_ns) && put(t, &entry, now_ns, &before) == PATH_LEARNED;
}

static uint16_t within_bounds(const struct ipaddr *addr, uint32_t mtu)
{
	uint32_t floor = ipaddr_is_v4(addr) ? ICMP4_MTU_FLOOR : ICMP6_MTU_FLOOR;

	if (mtu < floor)
		return floor;
	return mtu < UINT16_MAX ? mtu : UINT16_MAX;
}

struct path_lesson mtu_learn(struct mtu_table *t, bool upstream, const struct ipaddr *addr, uint32_t mtu,
			     uint64_t now_ns)
{
	const struct mtu_entry entry = {
		.addr = *addr,
		.learned_ns = now_ns,
		.until_ns = now_ns + LIFE_NS,
		.mtu = within_bounds(addr, mtu),
		.kind = upstream ? PATH_UPSTREAM : PATH_CLIENT,
		.source = SOURCE_PTB,
	};
	struct path_lesson lesson = {.mtu = entry.mtu};

	lesson.outcome = put(t, &entry, now_ns, &lesson.before);
	if (!upstream && (lesson.outcome == PATH_LEARNED || lesson.outcome == PATH_CONFIRMED))
		lesson.prefix_too = promote(t, addr, entry.mtu, now_ns);
	return lesson;
}

void mtu_age(struct mtu_table *t, uint64_t now_ns)
{
	for (int n = 0; n < MTU_AGED_AT_ONCE && t->oldest != NONE; n++) {
		if (t->records[t->oldest].entry.until_ns > now_ns)
			return;
		entry_del(t, t->oldest);
	}
}

/* --- any thread --- */

static void read_entry(const struct mtu_record *r, struct mtu_entry *out)
{
	uint64_t seq;

	do {
		seq = __atomic_load_n(&r->seq, __ATOMIC_ACQUIRE);
		observe_load_words(out, &r->entry, sizeof(*out));
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (seq & 1 || seq != __atomic_load_n(&r->seq, __ATOMIC_RELAXED));
}

static struct path_row row_of(const struct mtu_entry *e, uint64_t now_ns)
{
	static const char *const source_name[] = {[SOURCE_PTB] = "ptb", [SOURCE_MEMBERS] = "members"};
	bool v4 = ipaddr_is_v4(&e->addr), prefix = e->kind == PATH_PREFIX;

	return (struct path_row){
		.addr = e->addr,
		.prefix_len = v4 ? (prefix ? 24 : 32) : (prefix ? 64 : 128),
		.kind = e->kind,
		.source = source_name[e->source],
		.mtu = e->mtu,
		.age_ms = now_ns > e->learned_ns ? (now_ns - e->learned_ns) / 1000000 : 0,
		.expires_ms = (e->until_ns - now_ns) / 1000000,
	};
}

size_t mtu_read(const struct mtu_table *t, uint64_t *at, struct path_row *rows, size_t max, uint64_t now_ns)
{
	uint64_t end = (t->mask + UINT64_C(1)) * MTU_WAYS;
	struct mtu_entry entry;
	size_t n = 0;

	for (; *at < end && n < max; ++*at) {
		read_entry(&t->records[*at], &entry);
		if (entry.mtu && entry.until_ns > now_ns)
			rows[n++] = row_of(&entry, now_ns);
	}
	if (*at >= end)
		*at = UINT64_MAX;
	return n;
}

/* --- life --- */

uint64_t mtu_table_bytes(uint32_t n_entries)
{
	uint64_t n_sets = n_entries / MTU_WAYS;

	return n_sets * (sizeof(struct mtu_set) + sizeof(uint32_t)) + (uint64_t)n_entries * sizeof(struct mtu_record);
}

int mtu_table_init(struct mtu_table *t, uint32_t n_entries, const uint8_t *secret)
{
	uint32_t n_sets = n_entries / MTU_WAYS;

	*t = (struct mtu_table){.mask = n_sets - 1, .secret = secret, .oldest = NONE, .newest = NONE};
	t->sets = memory_alloc(n_sets * sizeof(*t->sets));
	t->records = memory_alloc(n_entries * sizeof(*t->records));
	t->chains = memory_alloc(n_sets * sizeof(*t->chains));
	if (!t->sets || !t->records || !t->chains)
		return -ENOMEM;
	for (uint32_t i = 0; i < n_sets; i++)
		t->chains[i] = NONE;
	return 0;
}

void mtu_table_fini(struct mtu_table *t)
{
	memory_free(t->sets);
	memory_free(t->records);
	memory_free(t->chains);
}
