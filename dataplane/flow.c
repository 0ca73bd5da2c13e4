/* SPDX-License-Identifier: BSD-3-Clause */
#include "flow.h"
#include "checksum.h"
#include "memory.h"

#include <errno.h>
#include <stdlib.h>

const char *const flow_state_name[FLOW_STATES] = {
	[FLOW_FREE] = "free",
	[FLOW_SYN_SENT] = "syn_sent",
	[FLOW_SYN_RECV] = "syn_recv",
	[FLOW_ESTABLISHED] = "established",
	[FLOW_FIN_WAIT] = "fin_wait",
	[FLOW_LAST_ACK] = "last_ack",
	[FLOW_TIME_WAIT] = "time_wait",
	[FLOW_CLOSED] = "closed",
	[FLOW_RESETTING] = "resetting",
	[FLOW_UDP_UNREPLIED] = "udp_unreplied",
	[FLOW_UDP_REPLIED] = "udp_replied",
};

/* Five keys of eight places at the most on average: then next to no key lives in its second bucket. */
static uint32_t bucket_count(uint32_t n_v4, uint32_t n_v6)
{
	uint64_t keys = 2 * ((uint64_t)n_v4 + n_v6);
	uint32_t n = 64;

	while ((uint64_t)n * 5 < keys)
		n *= 2;
	return n;
}

uint64_t flow_table_bytes(uint32_t n_v4, uint32_t n_v6)
{
	return (uint64_t)bucket_count(n_v4, n_v6) * sizeof(struct flow_bucket) +
	       (uint64_t)n_v4 * (sizeof(struct flow4) + sizeof(uint32_t)) +
	       (uint64_t)n_v6 * (sizeof(struct flow6) + sizeof(uint32_t));
}

static int pool_init(struct flow_pool *pool, uint32_t capacity)
{
	pool->capacity = capacity;
	pool->in_use = 0;
	pool->free = memory_alloc((size_t)capacity * sizeof(*pool->free));
	if (!pool->free)
		return -ENOMEM;
	for (uint32_t i = 0; i < capacity; i++)
		pool->free[i] = i;
	return 0;
}

int flow_table_init(struct flow_table *t, uint32_t n_v4, uint32_t n_v6, const uint8_t *secret)
{
	uint32_t n_buckets = bucket_count(n_v4, n_v6);

	*t = (struct flow_table){.mask = n_buckets - 1, .secret = secret};
	t->buckets = memory_alloc((size_t)n_buckets * sizeof(*t->buckets));
	t->flows4 = memory_alloc((size_t)n_v4 * sizeof(*t->flows4));
	t->flows6 = memory_alloc((size_t)n_v6 * sizeof(*t->flows6));
	if (!t->buckets || !t->flows4 || !t->flows6 || pool_init(&t->pool4, n_v4) || pool_init(&t->pool6, n_v6)) {
		flow_table_fini(t);
		return -ENOMEM;
	}
	return 0;
}

void flow_table_fini(struct flow_table *t)
{
	memory_free(t->buckets);
	memory_free(t->flows4);
	memory_free(t->flows6);
	memory_free(t->pool4.free);
	memory_free(t->pool6.free);
	*t = (struct flow_table){0};
}

/* --- index --- */

/* An involution for a given tag: the second bucket's second bucket is the first. Never the bucket itself. */
static uint32_t other_bucket(const struct flow_table *t, uint32_t b, uint16_t tag)
{
	return b ^ (((uint32_t)tag * UINT32_C(0x9e3779b1) >> 5 | 1) & t->mask);
}

static inline flow_ref search4(const struct flow_table *t, const struct flow_bucket *bucket, uint16_t tag,
			       const struct flow_key4 *key, uint8_t proto)
{
	for (uint32_t m = flow_match_tag(bucket, tag); m; m &= m - 1) {
		flow_ref ref = bucket->refs[__builtin_ctz(m)];

		if (flow_is4(t, ref, key, proto))
			return ref;
	}
	return FLOW_REF_NONE;
}

static inline flow_ref search6(const struct flow_table *t, const struct flow_bucket *bucket, uint16_t tag,
			       const struct flow_key6 *key, uint8_t proto)
{
	for (uint32_t m = flow_match_tag(bucket, tag); m; m &= m - 1) {
		flow_ref ref = bucket->refs[__builtin_ctz(m)];

		if (flow_is6(t, ref, key, proto))
			return ref;
	}
	return FLOW_REF_NONE;
}

flow_ref flow_lookup4(const struct flow_table *t, const struct flow_key4 *key, uint8_t proto, uint64_t hash)
{
	uint32_t b = (uint32_t)hash & t->mask;
	uint16_t tag = flow_tag(hash);
	flow_ref ref = search4(t, &t->buckets[b], tag, key, proto);

	if (ref == FLOW_REF_NONE && __builtin_expect(t->buckets[b].elsewhere, 0))
		ref = search4(t, &t->buckets[other_bucket(t, b, tag)], tag, key, proto);
	return ref;
}

flow_ref flow_lookup6(const struct flow_table *t, const struct flow_key6 *key, uint8_t proto, uint64_t hash)
{
	uint32_t b = (uint32_t)hash & t->mask;
	uint16_t tag = flow_tag(hash);
	flow_ref ref = search6(t, &t->buckets[b], tag, key, proto);

	if (ref == FLOW_REF_NONE && __builtin_expect(t->buckets[b].elsewhere, 0))
		ref = search6(t, &t->buckets[other_bucket(t, b, tag)], tag, key, proto);
	return ref;
}

static void put(struct flow_table *t, uint32_t b, unsigned place, uint16_t tag, flow_ref ref, bool guest)
{
	struct flow_bucket *bucket = &t->buckets[b];

	bucket->tags[place] = tag;
	bucket->refs[place] = ref;
	if (guest) {
		bucket->guests |= 1u << place;
		t->buckets[other_bucket(t, b, tag)].elsewhere++;
	}
}

static void clear(struct flow_table *t, uint32_t b, unsigned place)
{
	struct flow_bucket *bucket = &t->buckets[b];

	if (bucket->guests & 1u << place) {
		bucket->guests &= ~(1u << place);
		t->buckets[other_bucket(t, b, bucket->tags[place])].elsewhere--;
	}
	bucket->tags[place] = 0;
}

/* Frees a place of a full bucket by moving one of its keys to that key's other bucket. Returns the place or -1. */
static int make_room(struct flow_table *t, uint32_t b)
{
	struct flow_bucket *bucket = &t->buckets[b];

	for (unsigned place = 0; place < FLOW_BUCKET_PLACES; place++) {
		uint16_t tag = bucket->tags[place];
		flow_ref ref = bucket->refs[place];
		bool guest = bucket->guests & 1u << place;
		uint32_t to = other_bucket(t, b, tag);
		uint32_t empty = flow_match_tag(&t->buckets[to], 0);

		if (!empty)
			continue;
		clear(t, b, place);
		put(t, to, __builtin_ctz(empty), tag, ref, !guest);
		return place;
	}
	return -1;
}

static bool index_add(struct flow_table *t, uint64_t hash, flow_ref ref)
{
	uint32_t first = (uint32_t)hash & t->mask;
	uint16_t tag = flow_tag(hash);
	uint32_t second = other_bucket(t, first, tag);
	uint32_t empty = flow_match_tag(&t->buckets[first], 0);
	int place;

	if (empty) {
		put(t, first, __builtin_ctz(empty), tag, ref, false);
		return true;
	}
	empty = flow_match_tag(&t->buckets[second], 0);
	if (empty) {
		put(t, second, __builtin_ctz(empty), tag, ref, true);
		return true;
	}
	place = make_room(t, first);
	if (place < 0)
		return false;
	put(t, first, place, tag, ref, false);
	return true;
}

static bool index_del_from(struct flow_table *t, uint32_t b, uint16_t tag, flow_ref ref)
{
	for (uint32_t m = flow_match_tag(&t->buckets[b], tag); m; m &= m - 1) {
		unsigned place = __builtin_ctz(m);

		if (t->buckets[b].refs[place] == ref) {
			clear(t, b, place);
			return true;
		}
	}
	return false;
}

static void index_del(struct flow_table *t, uint64_t hash, flow_ref ref)
{
	uint32_t b = (uint32_t)hash & t->mask;
	uint16_t tag = flow_tag(hash);

	if (!index_del_from(t, b, tag, ref))
		index_del_from(t, other_bucket(t, b, tag), tag, ref);
}

/* --- entries --- */

static bool take(struct flow_pool *pool, uint32_t *entry)
{
	if (pool->in_use == pool->capacity)
		return false;
	*entry = pool->free[pool->in_use++];
	return true;
}

static void give_back(struct flow_pool *pool, uint32_t entry)
{
	pool->free[--pool->in_use] = entry;
}

/* Both directions or none. */
static bool index_both(struct flow_table *t, const struct flow_cold *cold, flow_ref up)
{
	if (!index_add(t, cold->hash[DIR_UP], up))
		return false;
	if (!index_add(t, cold->hash[DIR_DOWN], flow_ref_other(up))) {
		index_del(t, cold->hash[DIR_UP], up);
		return false;
	}
	return true;
}

static void set_half4(struct flow_half4 *half, const struct flow_key4 *in, const struct flow_key4 *reply, uint8_t proto)
{
	half->common.udp = proto == PROTO_UDP;
	half->in = *in;
	half->out = (struct flow_key4){
		.src_be = reply->dst_be,
		.dst_be = reply->src_be,
		.sport_be = reply->dport_be,
		.dport_be = reply->sport_be,
	};
}

static uint32_t delta_addr6(uint32_t delta, const uint8_t from[16], const uint8_t to[16])
{
	for (unsigned i = 0; i < 16; i += 4) {
		uint32_t from_be, to_be;

		memcpy(&from_be, from + i, 4);
		memcpy(&to_be, to + i, 4);
		delta = csum_delta32(delta, from_be, to_be);
	}
	return delta;
}

static void set_half6(struct flow_half6 *half, const struct flow_key6 *in, const struct flow_key6 *reply, uint8_t proto)
{
	uint32_t delta = 0;

	half->common.udp = proto == PROTO_UDP;
	half->in = *in;
	memcpy(half->out.src, reply->dst, 16);
	memcpy(half->out.dst, reply->src, 16);
	half->out.sport_be = reply->dport_be;
	half->out.dport_be = reply->sport_be;
	delta = delta_addr6(delta, half->in.src, half->out.src);
	delta = delta_addr6(delta, half->in.dst, half->out.dst);
	delta = csum_delta16(delta, half->in.sport_be, half->out.sport_be);
	delta = csum_delta16(delta, half->in.dport_be, half->out.dport_be);
	half->l4_delta = csum_delta_fold(delta);
}

flow_ref flow_add4(struct flow_table *t, const struct flow_key4 *up, const struct flow_key4 *down, uint8_t proto)
{
	struct flow4 *flow;
	uint32_t entry;

	if (!take(&t->pool4, &entry))
		return FLOW_REF_NONE;
	flow = &t->flows4[entry];
	*flow = (struct flow4){0};
	set_half4(&flow->half[DIR_UP], up, down, proto);
	set_half4(&flow->half[DIR_DOWN], down, up, proto);
	flow->cold.hash[DIR_UP] = flow_hash4(up, proto, t->secret);
	flow->cold.hash[DIR_DOWN] = flow_hash4(down, proto, t->secret);
	if (!index_both(t, &flow->cold, flow_ref_make(false, entry, DIR_UP))) {
		give_back(&t->pool4, entry);
		return FLOW_REF_NONE;
	}
	t->adds++;
	return flow_ref_make(false, entry, DIR_UP);
}

flow_ref flow_add6(struct flow_table *t, const struct flow_key6 *up, const struct flow_key6 *down, uint8_t proto)
{
	struct flow6 *flow;
	uint32_t entry;

	if (!take(&t->pool6, &entry))
		return FLOW_REF_NONE;
	flow = &t->flows6[entry];
	*flow = (struct flow6){0};
	set_half6(&flow->half[DIR_UP], up, down, proto);
	set_half6(&flow->half[DIR_DOWN], down, up, proto);
	flow->cold.hash[DIR_UP] = flow_hash6(up, proto, t->secret);
	flow->cold.hash[DIR_DOWN] = flow_hash6(down, proto, t->secret);
	if (!index_both(t, &flow->cold, flow_ref_make(true, entry, DIR_UP))) {
		give_back(&t->pool6, entry);
		return FLOW_REF_NONE;
	}
	t->adds++;
	return flow_ref_make(true, entry, DIR_UP);
}

/*
 * The old key goes first: keys are told apart by tag and reference, and the two may share both. If there is no place
 * for the new one, that which the old one left is still free.
 */
static bool index_move(struct flow_table *t, struct flow_cold *cold, flow_ref down, uint64_t hash)
{
	index_del(t, cold->hash[DIR_DOWN], down);
	if (index_add(t, hash, down)) {
		cold->hash[DIR_DOWN] = hash;
		return true;
	}
	index_add(t, cold->hash[DIR_DOWN], down);
	return false;
}

bool flow_rekey4(struct flow_table *t, flow_ref ref, const struct flow_key4 *down)
{
	struct flow4 *flow = &t->flows4[flow_ref_entry(ref)];
	const struct flow_key4 up = flow->half[DIR_UP].in;
	uint8_t proto = flow_proto(&flow->half[DIR_UP].common);

	if (!index_move(t, &flow->cold, ref | DIR_DOWN, flow_hash4(down, proto, t->secret)))
		return false;
	set_half4(&flow->half[DIR_UP], &up, down, proto);
	set_half4(&flow->half[DIR_DOWN], down, &up, proto);
	flow->half[DIR_UP].common.route_gen = 0;
	return true;
}

bool flow_rekey6(struct flow_table *t, flow_ref ref, const struct flow_key6 *down)
{
	struct flow6 *flow = &t->flows6[flow_ref_entry(ref)];
	const struct flow_key6 up = flow->half[DIR_UP].in;
	uint8_t proto = flow_proto(&flow->half[DIR_UP].common);

	if (!index_move(t, &flow->cold, ref | DIR_DOWN, flow_hash6(down, proto, t->secret)))
		return false;
	set_half6(&flow->half[DIR_UP], &up, down, proto);
	set_half6(&flow->half[DIR_DOWN], down, &up, proto);
	flow->half[DIR_UP].common.route_gen = 0;
	return true;
}

void flow_del(struct flow_table *t, flow_ref ref)
{
	const struct flow_cold *cold = flow_cold(t, ref);
	flow_ref up = flow_ref_up(ref);

	index_del(t, cold->hash[DIR_UP], up);
	index_del(t, cold->hash[DIR_DOWN], flow_ref_other(up));
	flow_put_state(t, ref, FLOW_FREE);
	give_back(flow_ref_is_v6(ref) ? &t->pool6 : &t->pool4, flow_ref_entry(ref));
	t->removes++;
}

static void addrs4(const struct flow_half4 half[DIRS], struct flow_addrs *out)
{
	out->client = ipaddr_v4(half[DIR_UP].in.src_be);
	out->vip = ipaddr_v4(half[DIR_UP].in.dst_be);
	out->backend = ipaddr_v4(half[DIR_DOWN].in.src_be);
	out->snat = ipaddr_v4(half[DIR_DOWN].in.dst_be);
	out->client_port_be = half[DIR_UP].in.sport_be;
	out->vip_port_be = half[DIR_UP].in.dport_be;
	out->backend_port_be = half[DIR_DOWN].in.sport_be;
	out->snat_port_be = half[DIR_DOWN].in.dport_be;
	out->proto = flow_proto(&half[DIR_UP].common);
}

static void addrs6(const struct flow_half6 half[DIRS], struct flow_addrs *out)
{
	out->client = ipaddr_v6(half[DIR_UP].in.src);
	out->vip = ipaddr_v6(half[DIR_UP].in.dst);
	out->backend = ipaddr_v6(half[DIR_DOWN].in.src);
	out->snat = ipaddr_v6(half[DIR_DOWN].in.dst);
	out->client_port_be = half[DIR_UP].in.sport_be;
	out->vip_port_be = half[DIR_UP].in.dport_be;
	out->backend_port_be = half[DIR_DOWN].in.sport_be;
	out->snat_port_be = half[DIR_DOWN].in.dport_be;
	out->proto = flow_proto(&half[DIR_UP].common);
}

void flow_addrs(const struct flow_table *t, flow_ref ref, struct flow_addrs *out)
{
	if (flow_ref_is_v6(ref))
		addrs6(t->flows6[flow_ref_entry(ref)].half, out);
	else
		addrs4(t->flows4[flow_ref_entry(ref)].half, out);
}
