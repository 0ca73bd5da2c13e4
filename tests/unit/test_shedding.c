/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What decide makes of clients that insist, and of floods: what the gates are told, for how long, and what is said. The
 * gates, the workers' counts and the services are this file's.
 */
#include "events.h"
#include "insist.h"
#include "note.h"
#include "observe.h"
#include "services.h"
#include "shed.h"
#include "shedding.h"
#include "view.h"

#include "../slower.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS        1000000ull
#define SECOND    (1000 * MS)
#define CLIENTS   8
#define SLOT      2
#define AHEAD_NS  7777777777ull /* of the dataplane's clock, CLOCK_MONOTONIC */
#define LISTENERS 2

/* --- the gates --- */

static struct shed {
	struct {
		bool tied;
		struct shed_key key;
		enum shed_cap cap;
		uint32_t slot;
		uint64_t until_ns;
		_Atomic uint64_t packets;
	} places[CLIENTS];
	struct {
		struct ipaddr vip;
		uint16_t port_be;
		uint32_t pass;
		enum shed_cap cap;
		uint64_t until_ns;
		bool set;
	} shares[LISTENERS];
	uint64_t clients_until_ns, shares_until_ns;
	struct shed_counts counts;
	unsigned n_ties, n_unties;
	unsigned at_tie; /* discarded of a client before whoever tied it does anything else */
	int tie_fails;   /* so many times from now on */
} gates;

int shed_tie(struct shed *shed, const struct shed_key *key, uint32_t place)
{
	assert_true(place < CLIENTS);
	assert_false(gates.places[place].tied);
	if (gates.tie_fails && gates.tie_fails--)
		return -E2BIG;
	gates.places[place].tied = true;
	gates.places[place].key = *key;
	gates.places[place].packets += gates.at_tie;
	gates.n_ties++;
	return 0;
}

void shed_untie(struct shed *shed, const struct shed_key *key)
{
	for (int i = 0; i < CLIENTS; i++) {
		const struct shed_key *is = &gates.places[i].key;

		if (!gates.places[i].tied || !ipaddr_equal(&is->client, &key->client) ||
		    !ipaddr_equal(&is->vip, &key->vip) || is->port_be != key->port_be)
			continue;
		gates.places[i].tied = false;
		gates.n_unties++;
		return;
	}
	fail_msg("untied, and was not tied");
}

void shed_set(struct shed *shed, uint32_t place, enum shed_cap cap, uint32_t service_slot, uint64_t until_ns)
{
	gates.places[place].cap = cap;
	gates.places[place].slot = service_slot;
	gates.places[place].until_ns = until_ns;
}

void shed_set_until(struct shed *shed, uint32_t place, uint64_t until_ns)
{
	gates.places[place].until_ns = until_ns;
}

uint64_t shed_packets(const struct shed *shed, uint32_t place)
{
	return gates.places[place].packets;
}

int shed_set_share(struct shed *shed, const struct ipaddr *vip, uint16_t port_be, enum shed_cap cap,
		   uint32_t service_slot, uint32_t pass, uint64_t until_ns)
{
	for (int i = 0; i < LISTENERS; i++) {
		if (gates.shares[i].set && !ipaddr_equal(&gates.shares[i].vip, vip))
			continue;
		assert_int_equal(service_slot, SLOT);
		gates.shares[i].vip = *vip;
		gates.shares[i].port_be = port_be;
		gates.shares[i].pass = pass;
		gates.shares[i].cap = cap;
		gates.shares[i].until_ns = until_ns;
		gates.shares[i].set = true;
		return 0;
	}
	return -E2BIG;
}

void shed_del_share(struct shed *shed, const struct ipaddr *vip, uint16_t port_be)
{
	for (int i = 0; i < LISTENERS; i++)
		if (gates.shares[i].set && ipaddr_equal(&gates.shares[i].vip, vip))
			gates.shares[i].set = false;
}

void shed_set_ends(struct shed *shed, uint64_t clients_until_ns, uint64_t shares_until_ns)
{
	gates.clients_until_ns = clients_until_ns;
	gates.shares_until_ns = shares_until_ns;
}

struct shed_counts shed_counts(const struct shed *shed, uint32_t service_slot)
{
	return service_slot == SLOT ? gates.counts : (struct shed_counts){0};
}

/* --- the workers, and the service --- */

static struct service_report work;
static struct policy_service part;
static struct config_service config;
static struct config_listen listeners[3];
static struct slot_ref ref;
static bool configured;

void observe_service(const struct dataplane *dp, uint32_t slot, struct service_report *out)
{
	assert_int_equal(slot, SLOT);
	*out = work;
}

void services_foreach(const struct services *s, void (*fn)(void *arg, const struct services_row *row), void *arg)
{
	fn(arg, &(struct services_row){"shop", ref, &part, configured ? &config : NULL});
}

/* --- the test's clock --- */

static struct shedding *shedding;
static struct events *events;
static uint64_t now_ns, seen;

static uint64_t clock_of(uint64_t at_ns)
{
	return at_ns + AHEAD_NS;
}

static void tick(enum cure_mode mode)
{
	now_ns += SHEDDING_TICK_NS;
	shedding_tick(shedding, mode, now_ns, clock_of(now_ns));
}

static void begin(void)
{
	struct shedding_config c = {.shed = &gates, .max_clients = CLIENTS, .n_service_slots = 4};

	memset(&gates, 0, sizeof(gates));
	memset(&work, 0, sizeof(work));
	memset(&part, 0, sizeof(part));
	part.storm.early = true;
	part.storm.caps[STORM_SERVICE].interval = 1;
	ipaddr_parse("198.18.100.1", &listeners[0].addr);
	ipaddr_parse("2001:db8:100::1", &listeners[1].addr);
	listeners[2] = listeners[0];
	listeners[0].port_be = listeners[1].port_be = listeners[2].port_be = htons(80);
	listeners[0].proto = listeners[1].proto = PROTO_TCP;
	listeners[2].proto = PROTO_UDP;
	config = (struct config_service){.listen = listeners, .n_listen = 3};
	ref = (struct slot_ref){.slot = SLOT, .generation = 5};
	configured = true;
	seen = 0;
	now_ns = 1000 * SECOND;
	events = events_create(NULL);
	shedding = shedding_create(NULL, NULL, events, &c);
	assert_non_null(shedding);
	tick(CURE_ENFORCE);
}

static void end(void)
{
	shedding_destroy(shedding);
	events_destroy(events);
}

static struct ipaddr client(unsigned i)
{
	return ipaddr_v4(htonl(0xc6120200 + i));
}

static void insists_in(const struct ipaddr *who, uint64_t for_ns, enum cure_mode mode)
{
	struct note note = {
		.kind = NOTE_INSISTS,
		.insists = {*who, listeners[ipaddr_is_v4(who) ? 0 : 1].addr, ref, now_ns, now_ns + for_ns, htons(80),
			    STORM_CLIENT},
	};

	shedding_note(shedding, &note, mode, now_ns, clock_of(now_ns));
}

/* The same, made a moment ago by a worker that went by the policy of then. */
static void insisted(unsigned i, uint64_t ago_ns, uint64_t for_ns)
{
	struct note note = {
		.kind = NOTE_INSISTS,
		.insists = {client(i), listeners[0].addr, ref, now_ns - ago_ns, now_ns + for_ns, htons(80),
			    STORM_CLIENT},
	};

	shedding_note(shedding, &note, CURE_ENFORCE, now_ns, clock_of(now_ns));
}

static void insists(unsigned i, uint64_t for_ns)
{
	struct ipaddr who = client(i);

	insists_in(&who, for_ns, CURE_ENFORCE);
}

/* The place of a client at the gates; -1: it has none. */
static int place_of(unsigned i)
{
	struct ipaddr who = client(i);

	for (int p = 0; p < CLIENTS; p++)
		if (gates.places[p].tied && ipaddr_equal(&gates.places[p].key.client, &who))
			return p;
	return -1;
}

/* As the program sees it. */
static bool is_shed(unsigned i)
{
	int p = place_of(i);

	return p >= 0 && clock_of(now_ns) < gates.clients_until_ns && clock_of(now_ns) < gates.places[p].until_ns;
}

static struct shedding_row row_of(unsigned i)
{
	struct ipaddr who = client(i);
	struct shedding_row row;

	assert_int_equal(shedding_of_client(shedding, &who, &row, 1), 1);
	return row;
}

static bool next_said(struct event_record *e)
{
	uint64_t lost;

	if (!events_read(events, seen, e, 1, &lost, 0))
		return false;
	seen = e->number;
	return true;
}

static void said(const char *kind, const char *part_of_text)
{
	struct event_record e;

	assert_true(next_said(&e));
	assert_string_equal(e.kind, kind);
	assert_string_equal(e.cause, "storm");
	assert_string_equal(e.subject, "shop");
	if (!strstr(e.text, part_of_text))
		fail_msg("\"%s\" is not in \"%s\"", part_of_text, e.text);
}

static void said_nothing(void)
{
	struct event_record e;

	assert_false(next_said(&e));
}

/* --- clients --- */

static void test_client(void **state)
{
	struct view view = {.n_services = 1};
	struct view_service service = {.slot = SLOT, .generation = 5};
	struct ipaddr other = client(2);
	struct shedding_row row;

	begin();
	assert_int_equal(gates.clients_until_ns, 0);
	insists(1, 250 * MS);
	assert_true(is_shed(1));
	assert_int_equal(gates.places[place_of(1)].until_ns, clock_of(now_ns + 250 * MS));
	assert_int_equal(gates.places[place_of(1)].slot, SLOT);
	assert_int_equal(gates.places[place_of(1)].cap, SHED_CLIENT);
	said("early_shedding", "storm.client_rate, the first of them 198.18.2.1");
	gates.places[place_of(1)].packets += 70;
	gates.counts.of_clients += 70;
	for (int i = 0; i < 3; i++)
		tick(CURE_ENFORCE);
	/* Over, and remembered; again costs no call of the kernel's. */
	assert_false(is_shed(1));
	assert_int_equal(gates.clients_until_ns, 0);
	row = row_of(1);
	assert_int_equal(row.packets, 70);
	assert_int_equal(row.times, 1);
	insists(1, 500 * MS);
	assert_true(is_shed(1));
	gates.places[place_of(1)].packets += 5;
	gates.counts.of_clients += 5;
	row = row_of(1);
	assert_int_equal(row.packets, 75);
	assert_int_equal(row.times, 2);
	assert_int_equal(row.first_ns, now_ns - 300 * MS);
	assert_int_equal(row.until_ns, now_ns + 500 * MS);
	assert_int_equal(gates.n_ties, 1);
	/* Another worker says less of it: the longer word holds. */
	insists(1, 100 * MS);
	assert_int_equal(row_of(1).until_ns, now_ns + 500 * MS);
	assert_int_equal(shedding_of_client(shedding, &other, &row, 1), 0);
	said_nothing();
	for (uint64_t i = 0; i < 6 * SECOND / SHEDDING_TICK_NS; i++)
		tick(CURE_ENFORCE);
	said("early_shedding_over", "75 SYNs of 1 clients");
	said_nothing();
	view.services = &service;
	shedding_view(shedding, &view);
	assert_int_equal(service.early.of_clients, 75);
	assert_int_equal(service.early.clients_since_ns, 0);
	/* Some day it is forgotten. */
	for (uint64_t i = 0; i < SHEDDING_KEPT_NS / SHEDDING_TICK_NS + 1; i++)
		tick(CURE_ENFORCE);
	assert_int_equal(place_of(1), -1);
	assert_int_equal(gates.n_unties, 1);
	end();
}

/* All addresses of a /64 are one client. */
static void test_ipv6(void **state)
{
	struct ipaddr a, b, c;
	struct shedding_row rows[4];

	begin();
	ipaddr_parse("2001:db8:1:2::3", &a);
	ipaddr_parse("2001:db8:1:2:ffff::9", &b);
	ipaddr_parse("2001:db8:1:3::3", &c);
	insists_in(&a, 250 * MS, CURE_ENFORCE);
	insists_in(&b, 350 * MS, CURE_ENFORCE);
	assert_int_equal(gates.n_ties, 1);
	assert_int_equal(shedding_of_client(shedding, &b, rows, 4), 1);
	assert_int_equal(rows[0].times, 2);
	assert_int_equal(shedding_of_client(shedding, &c, rows, 4), 0);
	end();
}

/* However many listeners it insists at: there are so many, and all that was discarded is in the sum. */
static void test_many_listeners(void **state)
{
	const struct ipaddr who = client(1);
	struct shedding_row rows[2];
	uint64_t sum = 0;

	begin();
	for (unsigned i = 0; i < 5; i++) {
		struct note note = {
			.kind = NOTE_INSISTS,
			.insists = {who, listeners[0].addr, ref, now_ns, now_ns + SECOND, htons(80 + i), STORM_CLIENT},
		};

		shedding_note(shedding, &note, CURE_ENFORCE, now_ns, clock_of(now_ns));
	}
	insists(2, SECOND);
	for (unsigned p = 0; p < CLIENTS; p++) {
		gates.places[p].packets += 10 + p;
		sum += gates.places[p].tied && ipaddr_equal(&gates.places[p].key.client, &who) ? 10 + p : 0;
	}
	assert_int_equal(shedding_of_client(shedding, &who, rows, 2), 5);
	assert_int_not_equal(rows[0].port_be, rows[1].port_be);
	assert_int_equal(shedding_packets_of_client(shedding, &who), sum);
	assert_int_equal(shedding_packets_of_client(NULL, &who), 0);
	end();
}

/* What comes late, in shadow, or of a service that is another by now does nothing. */
static void test_in_vain(void **state)
{
	struct ipaddr who = client(1);

	begin();
	insists(1, 0);
	insists_in(&who, 250 * MS, CURE_SHADOW);
	insists_in(&who, 250 * MS, CURE_OFF);
	ref.generation = 4;
	insists(1, 250 * MS);
	assert_int_equal(gates.n_ties, 0);
	said_nothing();
	end();
}

/* Full of clients that are shed: the next one is not, and is counted. One that was over for a while makes room. */
static void test_full(void **state)
{
	struct shedding_report report;

	begin();
	for (unsigned i = 0; i < CLIENTS; i++)
		insists(i, SECOND);
	insists(100, SECOND);
	assert_int_equal(place_of(100), -1);
	shedding_report(shedding, &report);
	assert_int_equal(report.clients, CLIENTS);
	assert_int_equal(report.full, 1);
	for (int i = 0; i < 5; i++)
		tick(CURE_ENFORCE);
	shedding_report(shedding, &report);
	assert_int_equal(report.now, CLIENTS);
	insists(0, SECOND); /* now it is the newest */
	for (int i = 0; i < 10; i++)
		tick(CURE_ENFORCE);
	/* Over, and not for long: a frame may be on its way between the program's two looks. */
	insists(100, SECOND);
	assert_int_equal(place_of(100), -1);
	shedding_report(shedding, &report);
	assert_int_equal(report.full, 2);
	for (int i = 0; i < 5; i++)
		tick(CURE_ENFORCE);
	gates.places[place_of(1)].packets = 33; /* of whoever had the place */
	insists(100, SECOND);
	assert_int_equal(place_of(1), -1);
	assert_true(is_shed(100));
	assert_int_equal(row_of(100).packets, 0);
	assert_true(place_of(0) >= 0);
	shedding_report(shedding, &report);
	assert_int_equal(report.clients, CLIENTS);
	assert_int_equal(report.now, 0); /* as of the last tick */
	assert_int_equal(report.full, 2);
	end();
}

/* All that is discarded of a client is counted as its own, from the first SYN on; what was of another is not. */
static void test_counted_from_the_first(void **state)
{
	begin();
	for (int p = 0; p < CLIENTS; p++)
		gates.places[p].packets = 1000;
	gates.at_tie = 7;
	insists(1, SECOND);
	assert_int_equal(row_of(1).packets, 7);
	end();
}

/* The gates have no room for it: it is not shed, it is counted, and its place is there for the next one. */
static void test_not_tied(void **state)
{
	struct ipaddr who = client(1);
	struct shedding_report report;
	struct shedding_row row;

	begin();
	gates.tie_fails = 1;
	insists(1, SECOND);
	assert_false(is_shed(1));
	assert_int_equal(shedding_of_client(shedding, &who, &row, 1), 0);
	shedding_report(shedding, &report);
	assert_int_equal(report.clients, 0);
	assert_int_equal(report.full, 1);
	for (unsigned i = 1; i <= CLIENTS; i++) {
		insists(i, SECOND);
		assert_true(is_shed(i));
	}
	shedding_report(shedding, &report);
	assert_int_equal(report.clients, CLIENTS);
	assert_int_equal(report.full, 1);
	end();
}

/* The cure switched off, or a new configuration: at once, and nothing of it comes back. */
static void test_ends_at_once(void **state)
{
	begin();
	insists(1, SECOND);
	insists(2, 100 * MS);
	shedding_end_all(shedding, now_ns, clock_of(now_ns));
	assert_int_equal(gates.clients_until_ns, 0);
	assert_int_equal(row_of(1).until_ns, now_ns);
	now_ns += 2 * MS;
	/* What waited in a ring meanwhile is of the caps that are gone. */
	insisted(4, 3 * MS, SECOND);
	insisted(1, 2 * MS, SECOND);
	assert_int_equal(place_of(4), -1);
	assert_false(is_shed(1));
	insists(3, SECOND);
	assert_true(is_shed(3));
	assert_false(is_shed(1));
	assert_false(is_shed(2));
	tick(CURE_SHADOW);
	assert_false(is_shed(3));
	assert_int_equal(gates.clients_until_ns, 0);
	end();
}

/* --- a share of all --- */

static unsigned by_rate = 100; /* percent of what is refused in silence, by the service's cap; the rest by limits */

static void silence(uint64_t n)
{
	work.silent_many += n;
	work.silent_rate += n * by_rate / 100;
}

/* So many attempts a second come, so many of them are let in, and the others refused in silence or aloud. */
static void flood_ticks(unsigned n, uint64_t offered, uint64_t admitted, uint64_t aloud)
{
	for (unsigned i = 0; i < n; i++) {
		bool on = gates.shares[0].set && gates.shares_until_ns > clock_of(now_ns);
		uint64_t come = offered / 10, passed = on ? come * gates.shares[0].pass >> 32 : come;

		gates.counts.of_all += come - passed;
		work.attempts += passed;
		work.new_flows += admitted / 10;
		if (passed > (admitted + aloud) / 10)
			silence(passed - (admitted + aloud) / 10);
		tick(CURE_ENFORCE);
	}
}

static void test_share(void **state)
{
	struct view view = {.n_services = 1};
	struct view_service service = {.slot = SLOT, .generation = 5};
	uint64_t before;

	begin();
	flood_ticks(20, 18000, 500, 2000);
	assert_false(gates.shares[0].set);
	assert_int_equal(gates.shares_until_ns, 0);
	flood_ticks(1, 200000, 500, 2000);
	/* 20 000 of 200 000 a second. */
	for (int i = 0; i < LISTENERS; i++) {
		assert_true(gates.shares[i].set);
		assert_in_range(gates.shares[i].pass, UINT32_MAX / 10 - 10, UINT32_MAX / 10 + 10);
		assert_int_equal(gates.shares[i].cap, SHED_SERVICE);
		assert_int_equal(gates.shares[i].until_ns, clock_of(now_ns) + SHARE_NS);
		assert_int_equal(gates.shares[i].port_be, htons(80));
	}
	assert_int_equal(gates.shares_until_ns, clock_of(now_ns) + SHARE_NS);
	said("early_shedding_all", "200000 SYNs a second come and 500 are let in, the others are beyond storm.rate");
	before = work.attempts;
	flood_ticks(100, 200000, 500, 9000);
	/* It stays what it is: what is discarded counts as what comes. */
	assert_in_range(work.attempts - before, 10 * 19990, 10 * 20010);
	said_nothing();
	view.services = &service;
	shedding_view(shedding, &view);
	assert_int_equal(service.early.of_all, gates.counts.of_all);
	assert_int_equal(service.early.offered, 200000);
	assert_int_equal(service.early.admitted, 500);
	assert_true(service.early.pass > 0 && service.early.all_since_ns);
	/* Ten times what is let in are there to choose from. */
	flood_ticks(20, 200000, 5000, 9000);
	assert_in_range(gates.shares[0].pass, UINT32_MAX / 4 - 10, UINT32_MAX / 4 + 10);
	flood_ticks(1, 15000, 5000, 0);
	assert_false(gates.shares[0].set || gates.shares[1].set);
	assert_int_equal(gates.shares_until_ns, 0);
	flood_ticks(60, 400, 400, 0);
	said("early_shedding_all_over", "SYNs were discarded by the XDP program within 12.0 s");
	said_nothing();
	end();
}

/* A flood may be of few SYNs, each sent again and again. */
static void test_share_of_repeated(void **state)
{
	begin();
	for (unsigned i = 0; i < 3; i++) {
		work.repeated += 20000;
		silence(19000);
		tick(CURE_ENFORCE);
	}
	assert_true(gates.shares[0].set);
	assert_in_range(gates.shares[0].pass, UINT32_MAX / 10 - 10, UINT32_MAX / 10 + 10);
	end();
}

/* Many, and served; or refused aloud in the main; or with `early: off`. */
static void test_no_share(void **state)
{
	begin();
	flood_ticks(20, 200000, 190000, 0);
	assert_int_equal(gates.shares_until_ns, 0);
	end();
	begin();
	flood_ticks(20, 30000, 500, 20000);
	assert_int_equal(gates.shares_until_ns, 0);
	end();
	begin();
	part.storm.early = false;
	flood_ticks(20, 200000, 500, 2000);
	assert_int_equal(gates.shares_until_ns, 0);
	end();
}

/* What most of them are refused by has its name: a service may have a cap that refuses nobody. */
static void test_share_of_what(void **state)
{
	static const struct {
		unsigned by_rate;
		enum shed_cap cap;
		const char *words;
	} cases[] = {{100, SHED_SERVICE, "beyond storm.rate"},
		     {60, SHED_SERVICE, "beyond storm.rate"},
		     {40, SHED_LIMIT, "beyond what the backends bear"},
		     {0, SHED_LIMIT, "beyond what the backends bear"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		begin();
		by_rate = cases[i].by_rate;
		flood_ticks(1, 200000, 500, 2000);
		assert_int_equal(gates.shares[0].cap, cases[i].cap);
		said("early_shedding_all", cases[i].words);
		by_rate = 100 - by_rate;
		flood_ticks(1, 200000, 500, 2000);
		assert_true((gates.shares[0].cap == SHED_SERVICE) == (by_rate > 50));
		by_rate = 100;
		end();
	}
}

/* Without the cap nothing is discarded by what was refused when there was one; the next tick knows its own sums. */
static void test_share_ends_at_once(void **state)
{
	begin();
	flood_ticks(3, 200000, 500, 2000);
	assert_true(gates.shares[0].set);
	work.attempts += 19000;
	silence(19000);
	shedding_end_all(shedding, now_ns, clock_of(now_ns));
	assert_false(gates.shares[0].set);
	part.storm.caps[STORM_SERVICE].interval = 0;
	tick(CURE_ENFORCE);
	assert_false(gates.shares[0].set);
	assert_int_equal(gates.shares_until_ns, 0);
	flood_ticks(1, 200000, 190000, 0);
	assert_false(gates.shares[0].set);
	end();
	/* Where it is as bad without it, it is for one tick. */
	begin();
	flood_ticks(3, 200000, 500, 2000);
	shedding_end_all(shedding, now_ns, clock_of(now_ns));
	flood_ticks(1, 200000, 500, 2000);
	assert_false(gates.shares[0].set);
	flood_ticks(1, 200000, 500, 2000);
	assert_true(gates.shares[0].set);
	end();
}

/* The service goes while it shares, or another one has its slot: its listeners have no share any more. */
static void test_service_goes(void **state)
{
	begin();
	flood_ticks(3, 200000, 500, 2000);
	assert_true(gates.shares[0].set && gates.shares[1].set);
	configured = false;
	config = (struct config_service){0};
	tick(CURE_ENFORCE);
	assert_false(gates.shares[0].set || gates.shares[1].set);
	assert_int_equal(gates.shares_until_ns, 0);
	end();
	begin();
	flood_ticks(3, 200000, 500, 2000);
	ref.generation = 6;
	tick(CURE_ENFORCE);
	assert_false(gates.shares[0].set || gates.shares[1].set);
	end();
	begin();
	flood_ticks(3, 200000, 500, 2000);
	tick(CURE_OFF);
	assert_false(gates.shares[0].set || gates.shares[1].set);
	assert_int_equal(gates.shares_until_ns, 0);
	end();
}

/* Without a gate nothing happens, and nothing is known. */
static void test_no_gate(void **state)
{
	struct shedding_config c = {.n_service_slots = 4};
	struct ipaddr who = client(1);
	struct shedding_row row;

	begin();
	shedding_destroy(shedding);
	shedding = shedding_create(NULL, NULL, events, &c);
	tick(CURE_ENFORCE);
	insists(1, SECOND);
	flood_ticks(5, 200000, 500, 2000);
	shedding_end_all(shedding, now_ns, clock_of(now_ns));
	assert_int_equal(shedding_of_client(shedding, &who, &row, 1), 0);
	assert_int_equal(shedding_of_client(NULL, &who, &row, 1), 0);
	assert_int_equal(gates.n_ties, 0);
	end();
}

/* --- readers --- */

static atomic_bool reading_ends;

static void *read_rows(void *arg)
{
	atomic_uint *n = arg;

	while (!reading_ends)
		for (unsigned i = 0; i < 2 * CLIENTS; i++) {
			struct ipaddr who = client(i);
			struct shedding_row row;

			if (!shedding_of_client(shedding, &who, &row, 1))
				continue;
			/* All of one client, or nothing. */
			if (!ipaddr_equal(&row.client, &who) || row.port_be != htons(80) ||
			    row.until_ns < row.first_ns || !row.times)
				return (void *)1;
			(*n)++;
		}
	return NULL;
}

/* Serve reads a row as it was at some time, whatever decide does. */
static void test_readers(void **state)
{
	atomic_uint n = 0;
	pthread_t thread;
	void *torn;

	begin();
	reading_ends = false;
	assert_int_equal(pthread_create(&thread, NULL, read_rows, &n), 0);
	for (unsigned i = 0; i < 20000 / SLOWER || !n; i++) {
		insists(i * 7 % (2 * CLIENTS), 1 + i % SECOND);
		if (i % 3 == 0)
			tick(CURE_ENFORCE);
	}
	reading_ends = true;
	pthread_join(thread, &torn);
	assert_null(torn);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_many_listeners),
		cmocka_unit_test(test_in_vain),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_counted_from_the_first),
		cmocka_unit_test(test_not_tied),
		cmocka_unit_test(test_ends_at_once),
		cmocka_unit_test(test_share),
		cmocka_unit_test(test_share_of_repeated),
		cmocka_unit_test(test_no_share),
		cmocka_unit_test(test_share_of_what),
		cmocka_unit_test(test_share_ends_at_once),
		cmocka_unit_test(test_service_goes),
		cmocka_unit_test(test_no_gate),
		cmocka_unit_test(test_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
