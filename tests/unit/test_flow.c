/* SPDX-License-Identifier: BSD-3-Clause */
#include "checksum.h"
#include "flow.h"
#include "memory_heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

static const uint8_t secret[HASH_SECRET_LEN] = {1, 1, 2, 3, 5, 8, 13, 21};

/* The i-th flow of a made-up population; family by the lowest bit. */
static bool is_v6(uint32_t i)
{
	return i & 1;
}

static uint8_t proto_of(uint32_t i)
{
	return i & 2 ? PROTO_UDP : PROTO_TCP;
}

static struct flow_key4 key4(uint32_t i, enum flow_dir dir)
{
	struct flow_key4 key = {0};

	key.src_be = dir == DIR_UP ? htonl(0xc6130000 + (i >> 8)) : htonl(0xc6120301 + i % 7);
	key.dst_be = dir == DIR_UP ? htonl(0xc6126401) : htonl(0xc6126501 + (i >> 16));
	key.sport_be = dir == DIR_UP ? htons(1024 + (i & 0xff)) : htons(8080);
	key.dport_be = dir == DIR_UP ? htons(80) : htons(i & 0xffff);
	return key;
}

static struct flow_key6 key6(uint32_t i, enum flow_dir dir)
{
	struct flow_key4 from = key4(i, dir);
	struct flow_key6 key = {.src = {0x20, 0x01, 0x0d, 0xb8}, .dst = {0x20, 0x01, 0x0d, 0xb8, 1}};

	memcpy(key.src + 12, &from.src_be, 4);
	memcpy(key.dst + 12, &from.dst_be, 4);
	key.sport_be = from.sport_be;
	key.dport_be = from.dport_be;
	return key;
}

/* The flow `ref` gets the upstream side of the j-th one. */
static bool rekey(struct flow_table *t, flow_ref ref, uint32_t j)
{
	if (is_v6(j)) {
		struct flow_key6 down = key6(j, DIR_DOWN);

		return flow_rekey6(t, ref, &down);
	}
	struct flow_key4 down = key4(j, DIR_DOWN);

	return flow_rekey4(t, ref, &down);
}

static flow_ref add(struct flow_table *t, uint32_t i)
{
	if (is_v6(i)) {
		struct flow_key6 up = key6(i, DIR_UP), down = key6(i, DIR_DOWN);

		return flow_add6(t, &up, &down, proto_of(i));
	}
	struct flow_key4 up = key4(i, DIR_UP), down = key4(i, DIR_DOWN);

	return flow_add4(t, &up, &down, proto_of(i));
}

static flow_ref lookup(const struct flow_table *t, uint32_t i, enum flow_dir dir, uint8_t proto)
{
	if (is_v6(i)) {
		struct flow_key6 key = key6(i, dir);

		return flow_lookup6(t, &key, proto, flow_hash6(&key, proto, secret));
	}
	struct flow_key4 key = key4(i, dir);

	return flow_lookup4(t, &key, proto, flow_hash4(&key, proto, secret));
}

/* Both directions are found, under their protocol only. */
static void check_found(const struct flow_table *t, uint32_t i, flow_ref up)
{
	uint8_t other = proto_of(i) == PROTO_TCP ? PROTO_UDP : PROTO_TCP;

	assert_int_equal(lookup(t, i, DIR_UP, proto_of(i)), up);
	assert_int_equal(lookup(t, i, DIR_DOWN, proto_of(i)), flow_ref_other(up));
	assert_int_equal(lookup(t, i, DIR_UP, other), FLOW_REF_NONE);
}

static void check_gone(const struct flow_table *t, uint32_t i)
{
	assert_int_equal(lookup(t, i, DIR_UP, proto_of(i)), FLOW_REF_NONE);
	assert_int_equal(lookup(t, i, DIR_DOWN, proto_of(i)), FLOW_REF_NONE);
}

static uint64_t places_taken(const struct flow_table *t)
{
	uint64_t n = 0;

	for (uint32_t b = 0; b <= t->mask; b++)
		for (unsigned i = 0; i < FLOW_BUCKET_PLACES; i++)
			n += t->buckets[b].tags[i] != 0;
	return n;
}

static void check_empty(const struct flow_table *t)
{
	assert_int_equal(t->pool4.in_use + t->pool6.in_use, 0);
	assert_int_equal(t->adds, t->removes);
	assert_int_equal(places_taken(t), 0);
	for (uint32_t b = 0; b <= t->mask; b++)
		assert_true(t->buckets[b].elsewhere == 0 && t->buckets[b].guests == 0);
}

/* To the last entry of either pool; the index never is what is full first. */
static void test_brim(void **state)
{
	const uint32_t n = 40000;
	flow_ref *refs = calloc(n + 2, sizeof(*refs));
	struct flow_table t;

	assert_non_null(refs);
	assert_int_equal(flow_table_init(&t, n / 2, n / 2, secret), 0);
	for (uint32_t i = 0; i < n; i++) {
		assert_true(flow_room(&t, is_v6(i)));
		refs[i] = add(&t, i);
		assert_int_not_equal(refs[i], FLOW_REF_NONE);
		assert_int_equal(flow_ref_dir(refs[i]), DIR_UP);
		assert_int_equal(flow_ref_is_v6(refs[i]), is_v6(i));
	}
	for (uint32_t i = 0; i < 2; i++) {
		assert_false(flow_room(&t, is_v6(n + i)));
		assert_int_equal(add(&t, n + i), FLOW_REF_NONE);
		check_gone(&t, n + i);
	}
	for (uint32_t i = 0; i < n; i++)
		check_found(&t, i, refs[i]);
	assert_int_equal(places_taken(&t), 2 * (uint64_t)n);
	for (uint32_t i = 0; i < n; i++) {
		flow_del(&t, flow_ref_other(refs[i])); /* either direction names it */
		check_gone(&t, i);
	}
	check_empty(&t);
	flow_table_fini(&t);
	free(refs);
}

/*
 * One pool much bigger than the index was made for: keys go to their second buckets, others are moved out of the way,
 * and in the end a flow is refused and leaves nothing behind. All that are in are found throughout.
 */
static void test_crowded(void **state)
{
	flow_ref refs[400];
	uint32_t n = 0, refused = 0;
	struct flow_table t;

	assert_int_equal(flow_table_init(&t, 8, 8, secret), 0);
	assert_int_equal(t.mask, 63);
	flow_table_fini(&t);
	assert_int_equal(flow_table_init(&t, 400, 400, secret), 0);
	/* 512 places for what could be 1600 keys. */
	t.mask = 63;
	for (uint32_t i = 0; i < 400; i++) {
		uint64_t before = places_taken(&t);

		refs[i] = add(&t, i);
		if (refs[i] == FLOW_REF_NONE) {
			refused++;
			assert_int_equal(places_taken(&t), before);
		} else {
			n++;
		}
		for (uint32_t j = 0; j <= i; j++)
			if (refs[j] != FLOW_REF_NONE)
				check_found(&t, j, refs[j]);
			else
				check_gone(&t, j);
	}
	assert_true(n >= 512 / 2 * 9 / 10 && n <= 512 / 2 && refused == 400 - n);
	assert_int_equal(t.pool4.in_use + t.pool6.in_use, n);
	for (uint32_t i = 0; i < 400; i++)
		if (refs[i] != FLOW_REF_NONE)
			flow_del(&t, refs[i]);
	check_empty(&t);
	flow_table_fini(&t);
}

/* D-8: ten million flows come and go in a table that is nearly full, and none stays. */
static void test_churn(void **state)
{
	const uint32_t n = 20000, window = n - 2;
	flow_ref *refs = calloc(n, sizeof(*refs));
	struct flow_table t;

	assert_non_null(refs);
	assert_int_equal(flow_table_init(&t, n / 2, n / 2, secret), 0);
	for (uint32_t i = 0; i < 10000000; i++) {
		if (i >= window) {
			if (i % 1024 == 0)
				check_found(&t, i - window, refs[(i - window) % n]);
			flow_del(&t, refs[(i - window) % n]);
		}
		refs[i % n] = add(&t, i);
		assert_int_not_equal(refs[i % n], FLOW_REF_NONE);
	}
	assert_int_equal(t.adds - t.removes, window);
	assert_int_equal(t.pool4.in_use + t.pool6.in_use, window);
	assert_int_equal(places_taken(&t), 2 * (uint64_t)window);
	for (uint32_t i = 10000000 - window; i < 10000000; i++)
		flow_del(&t, refs[i % n]);
	check_empty(&t);
	flow_table_fini(&t);
	free(refs);
}

/* Half of the population, whose flows take the upstream sides of the other half, and of the next, and so on. */
static void test_rekey(void **state)
{
	const uint32_t n = 4096;
	flow_ref *refs = calloc(n, sizeof(*refs));
	struct flow_table t;

	assert_non_null(refs);
	assert_int_equal(flow_table_init(&t, n / 2, n / 2, secret), 0);
	for (uint32_t i = 0; i < n; i++)
		refs[i] = add(&t, i);
	for (uint32_t round = 1; round < 10; round++) {
		for (uint32_t i = 0; i < n; i++) {
			uint32_t j = i + round * n, before = j - n;

			flow_half(&t, refs[i])->route_gen = flow_half(&t, flow_ref_other(refs[i]))->route_gen = 7;
			assert_true(rekey(&t, refs[i], j));
			assert_int_equal(lookup(&t, i, DIR_UP, proto_of(i)), refs[i]);
			assert_int_equal(lookup(&t, j, DIR_DOWN, proto_of(i)), flow_ref_other(refs[i]));
			assert_int_equal(lookup(&t, before, DIR_DOWN, proto_of(i)), FLOW_REF_NONE);
			/* Only towards the upstream the way is another one. */
			assert_int_equal(flow_half(&t, refs[i])->route_gen, 0);
			assert_int_equal(flow_half(&t, flow_ref_other(refs[i]))->route_gen, 7);
		}
		assert_int_equal(places_taken(&t), 2 * (uint64_t)n);
	}
	for (uint32_t i = 0; i < n; i++)
		flow_del(&t, refs[i]);
	check_empty(&t);
	flow_table_fini(&t);
	free(refs);
}

/* In an index without room a flow stays as it was, and what could move is found. */
static void test_rekey_crowded(void **state)
{
	uint32_t n = 0, n_refused = 0, down_of[400];
	flow_ref refs[400];
	struct flow_table t;

	assert_int_equal(flow_table_init(&t, 400, 400, secret), 0);
	t.mask = 63;
	for (uint32_t i = 0; i < 400; i++) {
		refs[n] = add(&t, i);
		down_of[n] = i;
		n += refs[n] != FLOW_REF_NONE;
	}
	for (uint32_t j = 400; j < 4000; j++) {
		uint32_t k = j % n;
		bool moved;

		if (is_v6(down_of[k]) != is_v6(j) || proto_of(down_of[k]) != proto_of(j))
			continue;
		moved = rekey(&t, refs[k], j);
		n_refused += !moved;
		assert_int_equal(lookup(&t, moved ? j : down_of[k], DIR_DOWN, proto_of(j)), refs[k] | DIR_DOWN);
		assert_int_equal(lookup(&t, moved ? down_of[k] : j, DIR_DOWN, proto_of(j)), FLOW_REF_NONE);
		down_of[k] = moved ? j : down_of[k];
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(lookup(&t, down_of[i], DIR_DOWN, proto_of(down_of[i])), refs[i] | DIR_DOWN);
	}
	assert_true(n_refused > 10);
	for (uint32_t i = 0; i < n; i++)
		flow_del(&t, refs[i]);
	check_empty(&t);
	flow_table_fini(&t);
}

/* Old and new key in one pair of buckets with one tag, which is all that tells places apart. */
static void test_rekey_alike(void **state)
{
	struct flow_key4 up = key4(0, DIR_UP), down, other;
	uint32_t n_pairs = 0;
	struct flow_table t;
	flow_ref ref;

	assert_int_equal(flow_table_init(&t, 64, 1, secret), 0);
	/* One bucket pair for all keys: two buckets, and the second of either is the other one. */
	t.mask = 1;
	down = key4(0, DIR_DOWN);
	ref = flow_add4(&t, &up, &down, PROTO_TCP);
	for (uint32_t i = 1; n_pairs < 4 && i < 40000000; i++) {
		other = down;
		other.src_be = htonl(i);
		if (flow_tag(flow_hash4(&other, PROTO_TCP, secret)) != flow_tag(flow_hash4(&down, PROTO_TCP, secret)))
			continue;
		assert_true(flow_rekey4(&t, ref, &other));
		assert_int_equal(flow_lookup4(&t, &other, PROTO_TCP, flow_hash4(&other, PROTO_TCP, secret)), ref | 1);
		assert_int_equal(flow_lookup4(&t, &down, PROTO_TCP, flow_hash4(&down, PROTO_TCP, secret)),
				 FLOW_REF_NONE);
		assert_int_equal(places_taken(&t), 2);
		down = other;
		n_pairs++;
	}
	assert_int_equal(n_pairs, 4);
	flow_del(&t, ref);
	check_empty(&t);
	flow_table_fini(&t);
}

static uint16_t fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint16_t sum_words(const void *words, size_t bytes)
{
	const uint8_t *p = words;
	uint64_t sum = 0;
	uint16_t word;

	for (size_t i = 0; i < bytes; i += 2) {
		memcpy(&word, p + i, 2);
		sum += word;
	}
	return fold(sum);
}

/* One's complement difference; 0 and 0xffff are one number. */
static void check_delta(uint16_t delta, uint16_t before, uint16_t after)
{
	uint16_t want = fold((uint32_t)(uint16_t)~before + after);

	assert_int_equal(delta % 0xffff, want % 0xffff);
}

/* What leaves is the reverse of what comes the other way; the deltas are the difference of the sums. */
static void test_deltas(void **state)
{
	struct flow_table t;

	assert_int_equal(flow_table_init(&t, 1, 1, secret), 0);
	for (uint32_t i = 0; i < 2000; i++) {
		flow_ref up = add(&t, i * 977);
		struct flow_addrs a;

		/* Every third of them has been given another upstream side. */
		if (i % 3 == 0)
			assert_true(rekey(&t, up, i * 977 + 4));

		flow_addrs(&t, up, &a);
		assert_int_equal(a.proto, proto_of(i * 977));
		for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
			flow_ref ref = up | dir;

			if (flow_ref_is_v6(ref)) {
				const struct flow_half6 *half = flow_half6(&t, ref), *back = flow_half6(&t, ref ^ 1);

				assert_memory_equal(half->out.src, back->in.dst, 16);
				assert_memory_equal(half->out.dst, back->in.src, 16);
				assert_int_equal(half->out.sport_be, back->in.dport_be);
				assert_int_equal(half->out.dport_be, back->in.sport_be);
				check_delta(half->l4_delta, sum_words(half->in.src, 36), sum_words(half->out.src, 36));
			} else {
				const struct flow_half4 *half = flow_half4(&t, ref), *back = flow_half4(&t, ref ^ 1);

				assert_int_equal(half->out.src_be, back->in.dst_be);
				assert_int_equal(half->out.dst_be, back->in.src_be);
				assert_int_equal(half->out.sport_be, back->in.dport_be);
				assert_int_equal(half->out.dport_be, back->in.sport_be);
			}
		}
		flow_del(&t, up);
	}
	flow_table_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_brim),   cmocka_unit_test(test_crowded),       cmocka_unit_test(test_churn),
		cmocka_unit_test(test_rekey),  cmocka_unit_test(test_rekey_crowded), cmocka_unit_test(test_rekey_alike),
		cmocka_unit_test(test_deltas),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
