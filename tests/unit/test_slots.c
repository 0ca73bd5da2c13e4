/* SPDX-License-Identifier: BSD-3-Clause */
#include "slots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

static struct ipaddr addr(uint32_t i)
{
	return ipaddr_v4(htonl(0xc6120300 + i));
}

static struct slot_ref get(struct slots *s, uint8_t proto, uint32_t i, uint16_t port)
{
	struct ipaddr a = addr(i);
	struct slot_ref ref;

	assert_int_equal(slots_get(s, proto, &a, htons(port), &ref), 0);
	return ref;
}

struct users {
	bool used[64];
	uint32_t freed[64], n_freed;
};

static bool unused(void *arg, uint32_t slot)
{
	return !((struct users *)arg)->used[slot];
}

static void freed(void *arg, uint32_t slot)
{
	struct users *u = arg;

	u->freed[u->n_freed++] = slot;
}

static void test_same_backend(void **state)
{
	struct slots *s = slots_create(8);
	struct slot_ref a, b;

	assert_non_null(s);
	a = get(s, PROTO_TCP, 1, 80);
	b = get(s, PROTO_TCP, 1, 80);
	assert_int_equal(a.slot, b.slot);
	assert_int_equal(a.generation, b.generation);
	assert_int_not_equal(get(s, PROTO_UDP, 1, 80).slot, a.slot);
	assert_int_not_equal(get(s, PROTO_TCP, 1, 81).slot, a.slot);
	assert_int_not_equal(get(s, PROTO_TCP, 2, 80).slot, a.slot);
	assert_int_equal(slots_in_use(s), 4);
	slots_destroy(s);
	slots_destroy(NULL);
}

/* It lingers while flows name it, comes back as the same one, and is given to another only after it was freed. */
static void test_lingering(void **state)
{
	struct slots *s = slots_create(2);
	struct users u = {.used = {true, true}};
	struct slot_ref a, b, c;
	struct ipaddr third = addr(3);

	a = get(s, PROTO_TCP, 1, 80);
	get(s, PROTO_TCP, 1, 80);
	b = get(s, PROTO_TCP, 2, 80);
	slots_put(s, a.slot);
	u.used[a.slot] = false;
	slots_reap(s, unused, freed, &u); /* still one use */
	assert_int_equal(u.n_freed, 0);
	slots_put(s, a.slot);
	u.used[a.slot] = true;
	slots_reap(s, unused, freed, &u); /* still flows */
	assert_int_equal(u.n_freed, 0);
	assert_int_equal(slots_get(s, PROTO_TCP, &third, htons(80), &c), -ENOSPC);
	c = get(s, PROTO_TCP, 1, 80);
	assert_int_equal(c.slot, a.slot);
	assert_int_equal(c.generation, a.generation);
	slots_put(s, a.slot);
	u.used[a.slot] = false;
	slots_reap(s, unused, freed, &u);
	assert_int_equal(u.n_freed, 1);
	assert_int_equal(u.freed[0], a.slot);
	assert_int_equal(slots_in_use(s), 1);
	assert_int_equal(slots_get(s, PROTO_TCP, &third, htons(80), &c), 0);
	assert_int_equal(c.slot, a.slot);
	assert_int_not_equal(c.generation, a.generation);
	/* The one that had it before is a new backend now, and there is no room. */
	third = addr(1);
	assert_int_equal(slots_get(s, PROTO_TCP, &third, htons(80), &c), -ENOSPC);
	slots_put(s, b.slot);
	slots_destroy(s);
}

static void count(void *arg, const struct slot_info *info)
{
	assert_int_not_equal(info->life, SLOT_FREE);
	++*(uint32_t *)arg;
}

/* Random gets, puts and reaps against counts; 64 slots, 40 of 80 backends in use on average. */
static void test_random(void **state)
{
	struct slots *s = slots_create(64);
	uint32_t uses[80] = {0}, seed = 9;
	struct slot_ref refs[80];
	struct users u = {0};

	for (int step = 0; step < 300000; step++) {
		uint32_t i = (seed = seed * 1664525 + 1013904223) >> 8, b = i % 80;
		struct ipaddr a = addr(b);

		if (i >> 12 & 1) {
			struct slot_ref ref;
			int err = slots_get(s, PROTO_TCP, &a, htons(80), &ref);

			assert_true(err == 0 || (err == -ENOSPC && slots_in_use(s) == 64 && !uses[b]));
			if (err)
				continue;
			assert_true(!uses[b] || (ref.slot == refs[b].slot && ref.generation == refs[b].generation));
			refs[b] = ref;
			uses[b]++;
		} else if (uses[b]) {
			slots_put(s, refs[b].slot);
			uses[b]--;
		}
		if (step % 16 == 0) {
			uint32_t in_use = 0, listed = 0;

			u.n_freed = 0;
			slots_reap(s, unused, freed, &u);
			for (uint32_t j = 0; j < 80; j++)
				in_use += uses[j] > 0;
			slots_foreach(s, count, &listed);
			assert_int_equal(slots_in_use(s), in_use);
			assert_int_equal(listed, in_use);
		}
	}
	slots_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_backend),
		cmocka_unit_test(test_lingering),
		cmocka_unit_test(test_random),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
