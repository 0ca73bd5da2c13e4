/* SPDX-License-Identifier: BSD-3-Clause */
#include "fib.h"
#include "hash.h"
#include "rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <urcu-qsbr.h>

#define N_ROUTES 600

static const uint8_t secret[HASH_SECRET_LEN] = {1, 6, 1, 8, 0, 3, 3};

static uint64_t draw(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
	return *state >> 20;
}

/* Close together, so that prefixes lie in each other. */
static struct ipaddr draw_address(uint64_t *state, bool v6)
{
	uint64_t r = draw(state);
	uint8_t b[16] = {0x20, 0x01, 0x0d, 0xb8};

	if (!v6)
		return ipaddr_v4(htonl(0xc6120000 | (r & 0x1ffff)));
	b[4] = r & 3;
	b[8] = r >> 8 & 3;
	b[15] = r >> 16 & 7;
	return ipaddr_v6(b);
}

static struct ipaddr masked(struct ipaddr a, bool v6, unsigned len)
{
	for (unsigned bit = (v6 ? 0 : 96) + len; bit < 128; bit++)
		a.b[bit / 8] &= ~(0x80 >> bit % 8);
	return a;
}

static struct route_change route(struct ipaddr prefix, uint8_t len, unsigned n_hops, const struct ipaddr *gateways)
{
	struct route_change c = {.prefix = prefix, .prefix_len = len, .kind = ROUTE_UNICAST, .n_nexthops = n_hops};

	for (unsigned i = 0; i < n_hops; i++)
		c.nexthops[i] = (struct route_nexthop){.port = 0, .gateway = gateways[i], .weight = 1};
	return c;
}

static struct ipaddr gateway(uint32_t i)
{
	return ipaddr_v4(htonl(0x0a000000 + i));
}

static enum fib_result look(struct fib *fib, const struct ipaddr *addr, uint64_t hash, struct ipaddr *via)
{
	struct neighbour_want want;
	uint32_t cell;
	uint16_t mtu;
	enum fib_result result = fib_lookup(fib, fib_view(fib), addr, hash, &cell, &mtu, &want);

	if (result == FIB_OK)
		*via = fib_want(fib, cell).addr;
	return result;
}

/* Random adds, replacements and removals, against a list that is searched from end to end. */
static void longest_prefix(bool v6)
{
	struct route_change model[N_ROUTES];
	struct fib *fib = fib_create(4096, 1024, secret);
	uint64_t seed = 42 + v6;
	unsigned n = 0;

	assert_non_null(fib);
	fib_port_mtu(fib, 0, 1500);
	for (unsigned step = 0; step < 3000; step++) {
		unsigned len = v6 ? 30 + draw(&seed) % 99 : 8 + draw(&seed) % 25, i;
		struct ipaddr via = gateway(draw(&seed) % 100), prefix = masked(draw_address(&seed, v6), v6, len);
		struct route_change c = route(prefix, len, 1, &via);

		for (i = 0; i < n; i++)
			if (model[i].prefix_len == len && ipaddr_equal(&model[i].prefix, &prefix))
				break;
		c.remove = draw(&seed) % 3 == 0 || (i == n && n == N_ROUTES);
		if (c.remove && i < n)
			model[i] = model[--n];
		else if (!c.remove)
			model[i == n ? n++ : i] = c;
		assert_int_equal(fib_update(fib, &c, 1), 0);
		for (unsigned k = 0; k < 20; k++) {
			struct ipaddr addr = draw_address(&seed, v6), found;
			const struct route_change *best = NULL;

			for (unsigned j = 0; j < n; j++) {
				struct ipaddr m = masked(addr, v6, model[j].prefix_len);

				if (ipaddr_equal(&m, &model[j].prefix) &&
				    (!best || model[j].prefix_len > best->prefix_len))
					best = &model[j];
			}
			if (!best) {
				assert_int_equal(look(fib, &addr, k, &found), FIB_NO_ROUTE);
				continue;
			}
			assert_int_equal(look(fib, &addr, k, &found), FIB_OK);
			assert_true(ipaddr_equal(&found, &best->nexthops[0].gateway));
		}
	}
	fib_destroy(fib);
}

static void test_longest_prefix(void **state)
{
	longest_prefix(false);
	longest_prefix(true);
}

static void test_kinds(void **state)
{
	struct ipaddr addr = ipaddr_v4(htonl(0xc6120305)), via = gateway(1), found;
	struct route_change c = route(masked(addr, false, 24), 24, 1, &via);
	struct fib *fib = fib_create(64, 64, secret);

	fib_port_mtu(fib, 0, 1500);
	assert_int_equal(look(fib, &addr, 0, &found), FIB_NO_ROUTE);
	c.kind = ROUTE_BLACKHOLE;
	fib_update(fib, &c, 1);
	assert_int_equal(look(fib, &addr, 0, &found), FIB_BLACKHOLE);
	c.kind = ROUTE_LOCAL;
	fib_update(fib, &c, 1);
	assert_int_equal(look(fib, &addr, 0, &found), FIB_NO_ROUTE);
	c.kind = ROUTE_UNICAST;
	c.nexthops[0].port = -1;
	fib_update(fib, &c, 1);
	assert_int_equal(look(fib, &addr, 0, &found), FIB_NO_ROUTE);
	c.nexthops[0] = (struct route_nexthop){.port = 0, .on_link = true, .weight = 1};
	fib_update(fib, &c, 1);
	assert_int_equal(look(fib, &addr, 0, &found), FIB_NO_NEIGHBOUR);
	assert_int_equal(fib_neighbour(fib, 0, &addr, NEIGHBOUR_USABLE, (uint8_t[6]){2}), 0);
	assert_int_equal(look(fib, &addr, 0, &found), FIB_OK);
	assert_true(ipaddr_equal(&found, &addr));
	fib_destroy(fib);
}

/* Shares as the weights say, and the same hash always the same way. */
static void test_multipath(void **state)
{
	struct ipaddr any = ipaddr_v4(0), via[3] = {gateway(1), gateway(2), gateway(3)}, found;
	struct route_change c = route(any, 0, 3, via);
	struct fib *fib = fib_create(64, 64, secret);
	unsigned n[3] = {0};
	uint64_t seed = 7;

	fib_port_mtu(fib, 0, 1500);
	c.nexthops[1].weight = 2;
	c.nexthops[2].weight = 5;
	fib_update(fib, &c, 1);
	for (unsigned i = 0; i < 80000; i++) {
		uint64_t hash = draw(&seed) << 32 | draw(&seed);
		struct ipaddr again;

		assert_int_equal(look(fib, &any, hash, &found), FIB_OK);
		look(fib, &any, hash, &again);
		assert_true(ipaddr_equal(&found, &again));
		n[ntohl(ipaddr_v4_be(&found)) - 0x0a000001]++;
	}
	assert_in_range(n[0], 9500, 10500);
	assert_in_range(n[1], 19300, 20700);
	assert_in_range(n[2], 49000, 51000);
	fib_destroy(fib);
}

/* Neighbours come and go in a table of one bucket: a cell gets another owner only under another generation. */
static void test_cells(void **state)
{
	struct ipaddr prefix = ipaddr_v4(htonl(0x0a000000)), found;
	struct route_change c = route(prefix, 8, 1, &prefix);
	struct fib *fib = fib_create(64, 5, secret);
	uint32_t owner_gen[8] = {0}, owner[8] = {0};

	fib_port_mtu(fib, 0, 1500);
	c.nexthops[0].on_link = true;
	fib_update(fib, &c, 1);
	for (uint32_t i = 1; i < 100; i++) {
		const uint8_t mac[6] = {2, 0, 0, 0, 0, i};
		struct ipaddr addr = gateway(i), old = gateway(i - 8);
		struct neighbour_want want;
		struct fib_hop hop;
		uint32_t cell;
		uint16_t mtu;

		if (i > 8) {
			assert_int_equal(fib_neighbour(fib, 0, &addr, NEIGHBOUR_USABLE, mac), -ENOSPC);
			assert_int_equal(fib_neighbour(fib, 0, &old, NEIGHBOUR_GONE, mac), 0);
		}
		assert_int_equal(fib_neighbour(fib, 0, &addr, NEIGHBOUR_USABLE, mac), 0);
		assert_int_equal(fib_lookup(fib, fib_view(fib), &addr, 0, &cell, &mtu, &want), FIB_OK);
		hop = fib_cell_read(&fib_cells(fib)[cell]);
		assert_true(hop.usable && memcmp(&hop.macs_lo, mac, 6) == 0);
		if (owner[cell])
			assert_int_not_equal(owner_gen[cell], fib_generation(fib));
		owner[cell] = i;
		owner_gen[cell] = fib_generation(fib);
		if (i > 8)
			assert_int_equal(look(fib, &old, 0, &found), FIB_NO_NEIGHBOUR);
	}
	fib_destroy(fib);
}

/* As many neighbours as were asked for find a place, whatever the secret; all of them are found again. */
static void test_neighbours_fit(void **state)
{
	/* The last two fill two cells of three, the others less. */
	static const uint32_t sizes[] = {64, 500, 16384, 682, 10922};
	uint8_t any_secret[HASH_SECRET_LEN];
	uint64_t seed = 11;

	for (unsigned round = 0; round < 50; round++) {
		uint32_t n = sizes[round % 5];
		struct fib *fib = fib_create(64, n, any_secret);
		struct ipaddr prefix = ipaddr_v4(htonl(0x0a000000)), found;
		struct route_change c = route(prefix, 8, 1, &prefix);

		assert_non_null(fib);
		for (unsigned i = 0; i < sizeof(any_secret); i++)
			any_secret[i] = draw(&seed);
		fib_port_mtu(fib, 0, 1500);
		c.nexthops[0].on_link = true;
		fib_update(fib, &c, 1);
		for (uint32_t i = 0; i < n; i++) {
			struct ipaddr addr = gateway(i);

			assert_int_equal(fib_neighbour(fib, 0, &addr, NEIGHBOUR_USABLE, (uint8_t[6]){2}), 0);
		}
		for (uint32_t i = 0; i < n; i++) {
			struct ipaddr addr = gateway(i);

			assert_int_equal(look(fib, &addr, 0, &found), FIB_OK);
			assert_true(ipaddr_equal(&addr, &found));
		}
		fib_destroy(fib);
	}
}

static void test_full(void **state)
{
	struct fib *fib = fib_create(16, 64, secret);
	struct ipaddr via = gateway(1), found;
	size_t refused = 0;

	fib_port_mtu(fib, 0, 1500);
	for (uint32_t i = 0; i < 64; i++) {
		struct ipaddr host = ipaddr_v4(htonl(0xc6120000 + 4 * i));
		struct route_change c = route(host, 32, 1, &via);
		size_t n = fib_update(fib, &c, 1);

		refused += n;
		assert_int_equal(look(fib, &host, 0, &found), n ? FIB_NO_ROUTE : FIB_OK);
	}
	assert_true(refused > 0 && refused <= 64 - 16);
	fib_destroy(fib);
}

/* --- with a reader --- */

struct reader {
	struct fib *fib;
	_Atomic bool stop;
	_Atomic uint64_t n_lookups;
	_Atomic unsigned n_bad;
};

/*
 * Like a worker: keeps a cell while the generation stands. Neighbour 10.0.0.i has i as the last byte of its MAC
 * address, so a cell of another owner shows.
 */
static void *read_on(void *arg)
{
	uint32_t gens[64] = {0}, cells[64] = {0};
	struct reader *r = arg;

	urcu_qsbr_register_thread();
	for (uint64_t n = 0; !r->stop; n++) {
		uint32_t gen = fib_generation(r->fib);
		const struct fib_view *view = fib_view(r->fib);

		for (uint32_t i = 1; i < 32; i++) {
			struct ipaddr addr = gateway(i);
			struct neighbour_want want;
			struct fib_hop hop;
			uint16_t mtu;

			if (gens[i] != gen) {
				if (fib_lookup(r->fib, view, &addr, n, &cells[i], &mtu, &want) != FIB_OK)
					continue;
				gens[i] = gen;
			}
			hop = fib_cell_read(&fib_cells(r->fib)[cells[i]]);
			if (hop.usable && ((const uint8_t *)&hop.macs_lo)[5] != i)
				r->n_bad++;
		}
		r->n_lookups++;
		urcu_qsbr_quiescent_state();
	}
	urcu_qsbr_unregister_thread();
	return NULL;
}

static void test_reader(void **state)
{
	struct ipaddr prefix = ipaddr_v4(htonl(0x0a000000));
	struct route_change on_link = route(prefix, 8, 1, &prefix), other = route(prefix, 16, 1, &prefix);
	struct reader r = {.fib = fib_create(64, 5, secret)};
	uint64_t seed = 3;
	pthread_t thread;

	fib_port_mtu(r.fib, 0, 1500);
	on_link.nexthops[0].on_link = other.nexthops[0].on_link = true;
	fib_update(r.fib, &on_link, 1);
	assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0);
	for (unsigned i = 0; i < 3000 || r.n_lookups < 1000; i++) {
		uint8_t mac[6] = {2, 0, 0, 0, 0, 1 + draw(&seed) % 31};
		struct ipaddr addr = gateway(mac[5]);

		fib_neighbour(r.fib, 0, &addr, draw(&seed) % 2 ? NEIGHBOUR_USABLE : NEIGHBOUR_GONE, mac);
		if (i % 16 == 0) {
			other.remove = i % 32;
			fib_update(r.fib, &other, 1);
		}
	}
	r.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(r.n_bad, 0);
	fib_destroy(r.fib);
}

struct late_reader {
	struct fib *fib;
	struct ipaddr old;
	uint32_t gen;
	_Atomic bool online;
	enum fib_result result;
};

/* A burst that begins as soon as the generation has moved, while the writer waits for those before it. */
static void *read_late(void *arg)
{
	struct late_reader *r = arg;
	struct ipaddr via;

	urcu_qsbr_register_thread();
	r->online = true;
	while (fib_generation(r->fib) == r->gen)
		;
	r->result = look(r->fib, &r->old, 0, &via);
	urcu_qsbr_unregister_thread();
	return NULL;
}

/* Under the new generation nobody finds the owner that a cell is just losing. */
static void test_release(void **state)
{
	struct ipaddr prefix = ipaddr_v4(htonl(0x0a000000)), next = gateway(9);
	struct route_change on_link = route(prefix, 8, 1, &prefix);
	struct late_reader r = {.fib = fib_create(64, 5, secret), .old = gateway(5)};
	const uint8_t mac[6] = {2};
	pthread_t thread;

	fib_port_mtu(r.fib, 0, 1500);
	on_link.nexthops[0].on_link = true;
	fib_update(r.fib, &on_link, 1);
	for (uint32_t i = 1; i <= 8; i++) {
		struct ipaddr addr = gateway(i);

		assert_int_equal(fib_neighbour(r.fib, 0, &addr, NEIGHBOUR_USABLE, mac), 0);
	}
	fib_neighbour(r.fib, 0, &r.old, NEIGHBOUR_GONE, mac);
	r.gen = fib_generation(r.fib);
	assert_int_equal(pthread_create(&thread, NULL, read_late, &r), 0);
	while (!r.online)
		;
	assert_int_equal(fib_neighbour(r.fib, 0, &next, NEIGHBOUR_USABLE, mac), 0);
	pthread_join(thread, NULL);
	assert_int_equal(r.result, FIB_NO_NEIGHBOUR);
	fib_destroy(r.fib);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_longest_prefix), cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_multipath),      cmocka_unit_test(test_cells),
		cmocka_unit_test(test_full),           cmocka_unit_test(test_neighbours_fit),
		cmocka_unit_test(test_reader),         cmocka_unit_test(test_release),
	};

	if (rig_eal(128, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
