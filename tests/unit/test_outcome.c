/* SPDX-License-Identifier: BSD-3-Clause */
/* What workers remember of clients: each table by itself, then whole workers. */
#include "outcome_talk.h"

#include "outcome_worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t secret[HASH_SECRET_LEN] = "of the tests";

static const outcome_reason down = OUTCOME_VERDICT(VERDICT_answer_service_down);
static const outcome_reason limited = OUTCOME_VERDICT(VERDICT_shed_refused_limit);
static const outcome_reason connected = OUTCOME_ATTEMPT(ATTEMPT_connected);
static const outcome_reason unanswered = OUTCOME_ATTEMPT(ATTEMPT_unanswered);
static const outcome_reason refused_there = OUTCOME_ATTEMPT(ATTEMPT_refused_by_backend);

static struct ipaddr v4(uint32_t host_order)
{
	return ipaddr_v4(htonl(host_order));
}

static struct ipaddr v6(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

/* --- names --- */

static void test_reasons(void **state)
{
	char names[OUTCOME_REASONS][sizeof(((struct outcome_info *)0)->name)];

	for (int r = 0; r < OUTCOME_REASONS; r++) {
		struct outcome_info info = outcome_info(r);

		assert_true(*info.name && *info.help);
		assert_int_equal(info.class, outcome_class(r));
		strcpy(names[r], info.name);
		for (int other = 0; other < r; other++)
			assert_string_not_equal(names[other], info.name);
	}
	assert_string_equal(outcome_info(OUTCOME_WOULD(ACTION_rst_idle)).name, "would_rst_idle");
	assert_int_equal(outcome_class(down), OUTCOME_REFUSED);
	assert_int_equal(outcome_class(limited), OUTCOME_SILENT);
	assert_int_equal(outcome_class(OUTCOME_ACTION(ACTION_rst_idle)), OUTCOME_RESET);
	assert_int_equal(outcome_class(OUTCOME_WOULD(ACTION_rst_idle)), OUTCOME_OTHER);
	assert_int_equal(outcome_info(unanswered).cause, CAUSE_WALL);
}

/* --- records of clients --- */

#define SETS 512

static void note(struct record_table *t, const struct ipaddr *addr, outcome_reason reason, uint32_t service,
		 uint32_t backend, uint32_t now_cs)
{
	struct client_key key = record_key(t, addr);

	record_note(t, &key, addr, &(struct client_news){reason, outcome_class(reason), service, backend}, now_cs);
}

static void test_record(void **state)
{
	struct ipaddr a = v4(0xc6120065);
	struct client_record r;
	struct record_table t;
	struct record_set set;

	assert_int_equal(record_table_init(&t, SETS, secret), 0);
	assert_false(record_read(&t, &a, &r, &set));
	assert_int_equal(set.forgot, 0);
	for (uint32_t i = 0; i < 3; i++)
		note(&t, &a, down, 1, SLOT_NONE, 100 + i);
	note(&t, &a, limited, 1, SLOT_NONE, 110);
	note(&t, &a, down, 1, SLOT_NONE, 120); /* not in a row, and the same kind all the same */
	note(&t, &a, down, 2, SLOT_NONE, 130);
	note(&t, &a, connected, 1, 7, 140);
	note(&t, &a, connected, 1, 8, 150);
	assert_true(record_read(&t, &a, &r, &set));
	assert_int_equal(r.since_cs, 100);
	assert_int_equal(r.counts[OUTCOME_REFUSED], 5);
	assert_int_equal(r.counts[OUTCOME_SILENT], 1);
	assert_int_equal(r.counts[OUTCOME_CONNECTED], 2);
	assert_int_equal(r.outcomes[0].count, 4);
	assert_int_equal(r.outcomes[0].first_cs, 100);
	assert_int_equal(r.outcomes[0].last_cs, 120);
	assert_int_equal(r.outcomes[3].count, 2);
	assert_int_equal(r.outcomes[3].backend_slot, 8);
	assert_int_equal(r.used, 0xf);
	record_table_fini(&t);
}

/* More kinds than a record keeps: the one that was quiet for longest goes; the sums stay. */
static void test_kinds(void **state)
{
	struct ipaddr a = v4(0xc6120065);
	struct client_record r;
	struct record_table t;
	struct record_set set;
	uint32_t now = UINT32_MAX - 5; /* and the clock goes round */

	assert_int_equal(record_table_init(&t, SETS, secret), 0);
	for (uint32_t backend = 0; backend < OUTCOME_KINDS_KEPT; backend++)
		note(&t, &a, unanswered, 1, backend, now++);
	note(&t, &a, unanswered, 1, 0, now++);
	note(&t, &a, unanswered, 1, 100, now++);
	assert_true(record_read(&t, &a, &r, &set));
	assert_int_equal(r.counts[OUTCOME_SILENT], OUTCOME_KINDS_KEPT + 2);
	assert_int_equal(r.outcomes[0].count, 2);
	assert_int_equal(r.outcomes[1].backend_slot, 100);
	record_table_fini(&t);
}

static void test_groups(void **state)
{
	struct ipaddr a = v6("2001:db8:1:2::1"), same = v6("2001:db8:1:2:3::4"), other = v6("2001:db8:1:3::1");
	struct client_record r;
	struct record_table t;
	struct record_set set;

	assert_int_equal(record_table_init(&t, SETS, secret), 0);
	note(&t, &a, down, 1, SLOT_NONE, 1);
	note(&t, &same, down, 1, SLOT_NONE, 2);
	assert_true(record_read(&t, &a, &r, &set));
	assert_int_equal(r.counts[OUTCOME_REFUSED], 2);
	assert_true(ipaddr_equal(&r.addr, &same));
	assert_false(record_read(&t, &other, &r, &set));
	record_table_fini(&t);
}

/* A thousand ordinary clients, every second of which has connected; the others were refused twice. */
#define ORDINARY 1000

static struct ipaddr ordinary(uint32_t i)
{
	return v4(0xc6120000 + i);
}

static void note_ordinary(struct record_table *t, uint32_t now_cs)
{
	for (uint32_t i = 0; i < ORDINARY; i++) {
		struct ipaddr a = ordinary(i);

		note(t, &a, i % 2 ? connected : down, 1, 3, now_cs);
		if (i % 2 == 0)
			note(t, &a, down, 1, 3, now_cs);
	}
}

static unsigned remembered(struct record_table *t)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < ORDINARY; i++) {
		struct ipaddr a = ordinary(i);
		struct client_record r;
		struct record_set set;

		if (!record_read(t, &a, &r, &set))
			continue;
		assert_int_equal(r.counts[i % 2 ? OUTCOME_CONNECTED : OUTCOME_REFUSED], i % 2 ? 1 : 2);
		n++;
	}
	return n;
}

/* Room for few of them fails in a set where too many meet: what was remembered before stays. */
static void test_flood(void **state)
{
	struct ipaddr nobody = v4(0xc6000001);
	struct client_record r;
	struct record_table t;
	struct record_set set;
	unsigned before;

	assert_int_equal(record_table_init(&t, SETS, secret), 0);
	note_ordinary(&t, 100);
	before = remembered(&t);
	assert_true(before >= ORDINARY - 5);
	/* Each address once, as a flood with forged sources has them. */
	for (uint32_t i = 0; i < 1000000; i++) {
		struct ipaddr a = v4(0x0a000000 + i);

		note(&t, &a, down, 1, SLOT_NONE, 200 + i / 1000);
	}
	assert_int_equal(remembered(&t), before);
	/* A few addresses again and again. */
	for (uint32_t i = 0; i < 1000000; i++) {
		struct ipaddr a = v4(0x0b000000 + i % 65536);

		note(&t, &a, i & 1 ? down : limited, 1, SLOT_NONE, 1200 + i / 1000);
	}
	assert_int_equal(remembered(&t), before);
	assert_int_equal(t.in_use, SETS * RECORD_WAYS);
	assert_true(t.forgotten > 1900000);
	/* And it says from when to when it forgot. */
	assert_false(record_read(&t, &nobody, &r, &set));
	assert_true(set.forgot > 0 && set.first_forgot_cs >= 200 && set.first_forgot_cs < 300);
	assert_true(set.last_forgot_cs > 2000);
	record_table_fini(&t);
}

/* Refused clients that went quiet make room for others, those that connected for nobody but their like. */
static void test_who_goes_first(void **state)
{
	uint32_t later = 100 + CLIENT_QUIET_CS + 1;
	struct record_table t;
	unsigned n[2] = {0};

	assert_int_equal(record_table_init(&t, 1, secret), 0);
	for (uint32_t i = 0; i < CLIENT_KEPT_MAX; i++) {
		struct ipaddr a = ordinary(i);

		note(&t, &a, down, 1, SLOT_NONE, 100);
		note(&t, &a, i < 2 ? connected : down, 1, SLOT_NONE, 100);
	}
	for (uint32_t i = 0; i < 1000; i++) {
		struct ipaddr a = v4(0x0a000000 + i);

		note(&t, &a, down, 1, SLOT_NONE, later);
		note(&t, &a, down, 1, SLOT_NONE, later);
	}
	for (uint32_t i = 0; i < CLIENT_KEPT_MAX; i++) {
		struct ipaddr a = ordinary(i);
		struct client_record r;
		struct record_set set;

		n[i < 2] += record_read(&t, &a, &r, &set);
	}
	assert_int_equal(n[1], 2);
	assert_int_equal(n[0], 0);
	/* Clients that connect go round by how long they were quiet. */
	for (uint32_t i = 0; i < 100; i++) {
		struct ipaddr a = v4(0x0b000000 + i), before = v4(0x0b000000 + i - CLIENT_KEPT_MAX + 1);
		struct client_record r;
		struct record_set set;

		note(&t, &a, connected, 1, 3, later + 1 + i);
		assert_true(i < CLIENT_KEPT_MAX || record_read(&t, &before, &r, &set));
	}
	record_table_fini(&t);
}

/* --- a writer and readers --- */

struct racing {
	struct record_table clients;
	struct seconds_table seconds;
	struct ended_ring ended;
	_Atomic bool stop;
	_Atomic unsigned looks;
};

/* Every outcome is noted under service and backend that follow from the address; every other client connects. */
static void *write_on(void *arg)
{
	struct racing *r = arg;

	for (uint32_t i = 0; !r->stop; i++) {
		uint32_t n = i % 64;
		struct ipaddr a = ordinary(n);

		note(&r->clients, &a, n % 2 ? connected : down, n, n + 1, i);
		seconds_note(&r->seconds, &a, n, down, i / 4096);
		ended_add(&r->ended, &(struct ended_flow){.client = a, .service_slot = n, .ended_cs = i});
	}
	return NULL;
}

static void check_second(void *arg, const struct second_row *row)
{
	unsigned len;
	struct ipaddr expected = ordinary(row->service_slot);

	expected = outcome_prefix(&expected, &len);
	if (!row->unnamed && !ipaddr_equal(&expected, &row->prefix))
		abort();
}

static bool check_ended(void *arg, const struct ended_flow *flow)
{
	struct ipaddr expected = ordinary(flow->service_slot);

	if (!ipaddr_equal(&expected, &flow->client) || flow->ended_cs % 64 != flow->service_slot)
		abort();
	return true;
}

static void *read_on(void *arg)
{
	struct racing *r = arg;

	for (uint32_t i = 0; !r->stop; i++) {
		struct ipaddr a = ordinary(i % 64);
		struct client_record record;
		struct client_key key;
		struct record_set set;
		uint32_t oldest;

		if (record_read(&r->clients, &a, &record, &set) &&
		    (!ipaddr_equal(&record.addr, &a) || record.outcomes[0].service_slot != i % 64 ||
		     record.outcomes[0].backend_slot != i % 64 + 1 ||
		     record.outcomes[0].count != record.counts[i % 2 ? OUTCOME_CONNECTED : OUTCOME_REFUSED]))
			abort();
		/* At any time at all. */
		key = record_key(&r->clients, &a);
		if (record_connected_lately(&r->clients, &key, true, 0, UINT32_MAX - 100) && i % 2 == 0)
			abort();
		if (i % 64 == 0) {
			seconds_read(&r->seconds, __atomic_load_n(&r->seconds.pages[0].second, __ATOMIC_RELAXED),
				     check_second, NULL);
			ended_read(&r->ended, check_ended, NULL, &oldest);
		}
		r->looks++;
	}
	return NULL;
}

static void test_readers(void **state)
{
	static struct racing r;
	pthread_t threads[3];

	/* One set, one line and 16 flows: they meet all the time. */
	assert_int_equal(record_table_init(&r.clients, 1, secret), 0);
	assert_int_equal(seconds_table_init(&r.seconds, SECONDS_WAYS, secret), 0);
	assert_int_equal(ended_ring_init(&r.ended, 16), 0);
	pthread_create(&threads[0], NULL, write_on, &r);
	pthread_create(&threads[1], NULL, read_on, &r);
	pthread_create(&threads[2], NULL, read_on, &r);
	while (r.looks < 20000)
		sched_yield();
	r.stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	record_table_fini(&r.clients);
	seconds_table_fini(&r.seconds);
	ended_ring_fini(&r.ended);
}

/* --- seconds --- */

struct sums {
	uint64_t named, unnamed, rows;
	uint32_t service_slot;
	struct ipaddr prefix;
	uint64_t first_ns, last_ns;
};

static void add_row(void *arg, const struct second_row *row)
{
	struct sums *s = arg;

	*(row->unnamed ? &s->unnamed : &s->named) += row->count;
	s->rows++;
	s->service_slot = row->service_slot;
	s->prefix = row->prefix;
	if (!s->first_ns || row->at_ns < s->first_ns)
		s->first_ns = row->at_ns;
	if (row->at_ns > s->last_ns)
		s->last_ns = row->at_ns;
}

static struct sums sums(const struct seconds_table *t, uint32_t now)
{
	struct sums s = {0};

	seconds_read(t, now, add_row, &s);
	return s;
}

static void test_seconds(void **state)
{
	struct ipaddr a = v4(0xc6120065), b = v4(0xc61200ff), c = v6("2001:db8:1:2::1"), d = v6("2001:db8:1:3::9");
	struct seconds_table t;
	struct sums s;
	unsigned len;

	assert_int_equal(seconds_table_init(&t, 64, secret), 0);
	seconds_note(&t, &a, 5, down, 1000);
	seconds_note(&t, &b, 5, down, 1000);
	s = sums(&t, 1000);
	assert_int_equal(s.rows, 1);
	assert_int_equal(s.named, 2);
	assert_int_equal(s.service_slot, 5);
	a = outcome_prefix(&a, &len);
	assert_true(ipaddr_equal(&s.prefix, &a) && len == 24 && ipaddr_v4_be(&a) == htonl(0xc6120000));
	seconds_note(&t, &a, 6, down, 1000);
	seconds_note(&t, &a, 5, limited, 1000);
	seconds_note(&t, &a, 5, down, 1001);
	assert_int_equal(sums(&t, 1001).rows, 4);
	seconds_note(&t, &c, 5, down, 1002);
	seconds_note(&t, &d, 5, down, 1002);
	s = sums(&t, 1002);
	assert_int_equal(s.rows, 5);
	assert_int_equal(s.first_ns, 1000000000000);
	assert_int_equal(s.last_ns, 1002000000000);
	/* Two minutes later it is no more, and its page is another second's. */
	assert_int_equal(sums(&t, 1000 + OUTCOME_SECONDS - 1).rows, 5);
	assert_int_equal(sums(&t, 1000 + OUTCOME_SECONDS).rows, 2);
	seconds_note(&t, &c, 5, down, 1000 + SECONDS_PAGES);
	s = sums(&t, 1000 + SECONDS_PAGES);
	assert_int_equal(s.rows, 1);
	c = outcome_prefix(&c, &len);
	assert_true(ipaddr_equal(&s.prefix, &c) && len == 48);
	c = v6("2001:db8:1::");
	assert_true(ipaddr_equal(&s.prefix, &c));
	seconds_table_fini(&t);
}

/* More prefixes than a second has room for: none of their outcomes is lost, only named. */
static void test_seconds_full(void **state)
{
	struct seconds_table t;
	struct sums s;

	assert_int_equal(seconds_table_init(&t, 64, secret), 0);
	for (uint32_t i = 0; i < 10000; i++) {
		struct ipaddr a = v4(0x0a000000 + (i << 8));

		seconds_note(&t, &a, 5, i % 3 ? down : limited, 77);
	}
	s = sums(&t, 77);
	assert_int_equal(s.named, 64);
	assert_int_equal(s.unnamed, 10000 - 64);
	assert_int_equal(s.rows, 64 + 2);
	seconds_table_fini(&t);
}

/* --- ended flows --- */

static bool collect_ended(void *arg, const struct ended_flow *flow)
{
	uint32_t *n = arg;

	/* The latest first. */
	assert_int_equal(flow->ended_cs, 100 - ++*n);
	return true;
}

static void test_ended_ring(void **state)
{
	uint32_t n = 0, oldest = 0;
	struct ended_ring r;

	assert_int_equal(ended_ring_init(&r, 16), 0);
	assert_false(ended_read(&r, collect_ended, &n, &oldest));
	assert_int_equal(n, 0);
	for (uint32_t i = 0; i < 100; i++)
		ended_add(&r, &(struct ended_flow){.ended_cs = i});
	assert_true(ended_read(&r, collect_ended, &n, &oldest));
	assert_int_equal(n, 16);
	assert_int_equal(oldest, 84);
	ended_ring_fini(&r);
}

struct overtaken {
	struct ended_ring ring;
	unsigned told;
};

static bool write_meanwhile(void *arg, const struct ended_flow *flow)
{
	struct overtaken *o = arg;

	assert_true(flow->ended_cs < 16);
	o->told++;
	for (uint32_t i = 0; i < 5; i++)
		ended_add(&o->ring, &(struct ended_flow){.ended_cs = 1000});
	return true;
}

/* A writer that overtakes the reader ends what is read: nothing is told twice, or half. */
static void test_ended_overtaken(void **state)
{
	struct overtaken o = {.told = 0};
	uint32_t oldest;

	assert_int_equal(ended_ring_init(&o.ring, 16), 0);
	for (uint32_t i = 0; i < 16; i++)
		ended_add(&o.ring, &(struct ended_flow){.ended_cs = i});
	ended_read(&o.ring, write_meanwhile, &o, &oldest);
	assert_int_equal(o.told, 3);
	ended_ring_fini(&o.ring);
}

/* --- whole workers --- */

static uint64_t records(void)
{
	struct clients_report r;

	observe_clients(rig.dp, &r);
	return r.records;
}

static uint64_t in_seconds(outcome_reason reason);

/* The record, the seconds and the ledger agree on what happened to a client that was refused. */
static void test_refused(void **state)
{
	for (int two = 0; two < 2; two++)
		for (int is_v6 = 0; is_v6 < 2; is_v6++) {
			struct ipaddr addr = rig_client(1, is_v6);
			struct client_row row;

			start((struct rig_config){.n_backends = 0, .n_workers = 1 + two});
			for (unsigned i = 0; i < 20; i++) {
				/* Other ports, so that both workers see some. */
				struct talk t = {.v6 = is_v6, .proto = PROTO_TCP, .client = 1 + (i << 16)};
				struct sent s;

				feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
				turn();
				while (take(&s))
					;
				rig.now_ns += STEP_NS;
			}
			row = client(&addr);
			assert_true(verdicts(VERDICT_answer_service_down) > 0);
			assert_true(verdicts(VERDICT_shed_refused_limit) > 0);
			assert_int_equal(row.counts[OUTCOME_REFUSED], verdicts(VERDICT_answer_service_down));
			assert_int_equal(row.counts[OUTCOME_SILENT], verdicts(VERDICT_shed_refused_limit));
			assert_int_equal(count_of(&row, down), verdicts(VERDICT_answer_service_down));
			assert_int_equal(count_of(&row, limited), verdicts(VERDICT_shed_refused_limit));
			assert_int_equal(in_seconds(down), verdicts(VERDICT_answer_service_down));
			assert_int_equal(in_seconds(limited), verdicts(VERDICT_shed_refused_limit));
			assert_int_equal(row.outcomes[0].service_slot, 0);
			assert_int_equal(row.outcomes[0].backend_slot, SLOT_NONE);
			stop();
		}
}

struct second_search {
	outcome_reason reason;
	uint64_t n;
};

static void add_reason(void *arg, const struct second_row *row)
{
	struct second_search *s = arg;

	s->n += row->reason == s->reason ? row->count : 0;
}

static uint64_t in_seconds(outcome_reason reason)
{
	struct second_search s = {reason, 0};

	for (unsigned i = 0; i < n_workers; i++)
		observe_seconds(rig.dp, i, add_reason, &s);
	return s.n;
}

/* The backend answered and the client never did: told, and no failure of the backend's. */
static void test_unfinished(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct ipaddr addr = rig_client(3, is_v6);
		struct backend_report backend;
		struct client_row row;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_TCP, is_v6, 3);
		exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
		pass_ms(59000);
		assert_int_equal(records(), 0);
		pass_ms(1500);
		assert_int_equal(n_flows(), 0);
		row = client(&addr);
		assert_int_equal(row.n, 1);
		assert_int_equal(count_of(&row, OUTCOME_ATTEMPT(ATTEMPT_unfinished)), 1);
		assert_int_equal(row.counts[OUTCOME_OTHER], 1);
		observe_backend(rig.dp, row.outcomes[0].backend_slot, &backend);
		assert_int_equal(backend.unfinished, 1);
		assert_int_equal(backend.connects, 1);
		assert_int_equal(backend.failures, 0);
		stop();
	}
}

/* Refused by the backend, unanswered, and connected; a SYN alone leaves nothing. */
static void test_attempts(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct ipaddr addr = rig_client(3, is_v6);
		struct client_row row;
		struct talk t;

		start((struct rig_config){.n_backends = 1});
		t = begin(PROTO_TCP, is_v6, 3);
		assert_int_equal(records(), 0);
		exchange(RIG_LAN, from_backend(&t, TCP_RST | TCP_ACK, 0, ISN + 1));
		row = client(&addr);
		assert_int_equal(row.n, 1);
		assert_int_equal(count_of(&row, refused_there), 1);
		assert_int_equal(row.counts[OUTCOME_REFUSED], 1);
		assert_true(row.outcomes[0].backend_slot != SLOT_NONE);
		begin(PROTO_TCP, is_v6, 3 + (1 << 16));
		pass_ms(16000);
		row = client(&addr);
		assert_int_equal(count_of(&row, unanswered), 1);
		assert_int_equal(row.counts[OUTCOME_SILENT], 1);
		assert_int_equal(row.counts[OUTCOME_CONNECTED], 0);
		establish(is_v6, 3 + (2 << 16));
		t = begin(PROTO_UDP, is_v6, 3 + (3 << 16));
		exchange(RIG_LAN, from_backend(&t, 0, 0, 0));
		exchange(RIG_LAN, from_backend(&t, 0, 0, 0));
		row = client(&addr);
		assert_int_equal(row.counts[OUTCOME_CONNECTED], 2);
		assert_int_equal(count_of(&row, connected), 2);
		assert_int_equal(row.outcomes[0].reason, connected);
		stop();
	}
}

/* The client's last ACK may bring its FIN along. */
static void test_connected_and_closed(void **state)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = begin(PROTO_TCP, false, 3);
	exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	exchange(RIG_WAN, from_client(&t, TCP_ACK | TCP_FIN, ISN + 1, PEER + 1));
	assert_int_equal(only_state(false), FLOW_FIN_WAIT);
	row = client(&addr);
	assert_int_equal(row.counts[OUTCOME_CONNECTED], 1);
	stop();
}

/* Done, only counted, or not even that. */
static void test_idle_reset(void **state)
{
	static const struct {
		enum cure_mode mode;
		outcome_reason reason;
		unsigned outcomes, reset;
	} cases[] = {
		{CURE_ENFORCE, OUTCOME_ACTION(ACTION_rst_idle), 2, 1},
		{CURE_SHADOW, OUTCOME_WOULD(ACTION_rst_idle), 2, 0},
		{CURE_OFF, OUTCOME_ACTION(ACTION_rst_idle), 1, 0},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ipaddr addr = rig_client(3, false);
		struct client_row row;
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		rig.policy.modes.of[CURE_SILENCE] = cases[i].mode;
		rig.service.timeouts.established_ms = 60000;
		rig.service.timeouts.probe_ms = 0;
		establish(false, 3);
		pass_ms(66000);
		while (take(&s))
			;
		assert_int_equal(n_flows(), 0);
		row = client(&addr);
		assert_int_equal(row.n, cases[i].outcomes);
		assert_int_equal(count_of(&row, cases[i].reason), cases[i].outcomes - 1);
		assert_int_equal(row.counts[OUTCOME_RESET], cases[i].reset);
		stop();
	}
}

/* What a flow's packet met is told of its client, and is no attempt. */
static void test_in_flow(void **state)
{
	struct ipaddr addr = rig_client(3, false);
	struct client_row row;
	struct talk t;

	start((struct rig_config){.n_backends = 1});
	t = establish(false, 3);
	dataplane_port_set_link(rig.dp, RIG_LAN, false, 1500);
	refused(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), VERDICT_drop_link_down);
	refused(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1), VERDICT_drop_link_down);
	row = client(&addr);
	assert_int_equal(count_of(&row, OUTCOME_VERDICT(VERDICT_drop_link_down)), 2);
	assert_int_equal(row.counts[OUTCOME_OTHER], 2);
	assert_int_equal(row.counts[OUTCOME_SILENT], 0);
	stop();
}

/* A packet in the middle of nothing is answered with RST; a RST, what is not ours and what is no packet say nothing. */
static void test_strays(void **state)
{
	struct talk t = {.proto = PROTO_TCP, .client = 5};
	struct ipaddr addr = rig_client(5, false);
	uint8_t junk[64] = {0x02, 0, 0, 0, 0, 0x10, 0x02, 0, 0, 0, 1, 1, 0x08, 0x00, 0x45};
	struct frame_spec elsewhere;
	struct client_row row;

	start((struct rig_config){.n_backends = 1});
	refused(RIG_WAN, from_client(&t, TCP_RST, ISN, 0), VERDICT_drop_stray_rst);
	elsewhere = from_client(&t, TCP_SYN, ISN, 0);
	elsewhere.dport_be = htons(81);
	refused(RIG_WAN, elsewhere, VERDICT_drop_not_ours);
	feed_raw(RIG_WAN, 0, junk, 40);
	turn();
	take_none();
	/* Malformed: its addresses may be anybody's. */
	refused(RIG_WAN, from_client(&t, TCP_SYN | TCP_FIN, ISN, 0), VERDICT_drop_tcp_flags);
	assert_int_equal(records(), 0);
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN, 1));
	row = client(&addr);
	assert_int_equal(row.counts[OUTCOME_RESET], 1);
	stop();
}

/* A flood through the pipeline: who had a few outcomes before keeps them, and the numbers are the ledger's. */
static void test_victim_in_flood(void **state)
{
	for (int two = 0; two < 2; two++) {
		struct ipaddr addr = v4(0xc0000201), vip = rig_vip(false);
		struct frame_spec syn = {.dst = vip,
					 .sport_be = htons(1000),
					 .dport_be = htons(80),
					 .proto = PROTO_TCP,
					 .tcp_flags = TCP_SYN};
		struct client_row before, after;
		struct sent s;

		start((struct rig_config){.n_backends = 0, .n_workers = 1 + two, .n_clients = 1024});
		for (unsigned i = 0; i < 6; i++) {
			syn.src = addr;
			syn.sport_be = htons(1000 + i);
			feed(RIG_WAN, syn);
			turn();
			while (take(&s))
				;
		}
		before = client(&addr);
		assert_int_equal(before.counts[OUTCOME_REFUSED] + before.counts[OUTCOME_SILENT], 6);
		for (uint32_t i = 0; i < 100000; i++) {
			syn.src = v4(0x0a000000 + i);
			feed(RIG_WAN, syn);
			if (i % 16 < 15)
				continue;
			turn();
			while (take(&s))
				;
			rig.now_ns += 100000;
		}
		after = client(&addr);
		assert_memory_equal(before.counts, after.counts, sizeof(before.counts));
		assert_int_equal(after.n, before.n);
		/* All of it happened within the seconds kept. */
		assert_int_equal(in_seconds(down), verdicts(VERDICT_answer_service_down));
		assert_int_equal(in_seconds(limited), verdicts(VERDICT_shed_refused_limit));
		stop();
	}
}

/* Who stood behind a SNAT port: now, afterwards, and never. */
static void test_tuple(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct ipaddr addr = rig_client(3, is_v6);
		struct ended_row ended[4];
		uint64_t since_ns;
		struct talk t;
		struct sent s;

		start((struct rig_config){.n_backends = 1});
		t = establish(is_v6, 3);
		assert_int_equal(observe_ended(rig.dp, &t.snat, t.snat_port_be, ended, 4, &since_ns), 0);
		assert_int_equal(since_ns, 0);
		assert_int_equal(observe_snat_owner(rig.dp, &t.backend, t.snat_port_be), -ENOENT);
		pass_ms(1000);
		exchange(RIG_WAN, from_client(&t, TCP_RST, ISN + 1, 0));
		pass_ms(11000);
		while (take(&s))
			;
		assert_int_equal(n_flows(), 0);
		assert_int_equal(observe_ended(rig.dp, &t.snat, t.snat_port_be, ended, 4, &since_ns), 1);
		assert_true(ipaddr_equal(&ended[0].client, &addr));
		assert_int_equal(ended[0].client_port_be, rig_client_port_be(3));
		assert_string_equal(ended[0].state, "closed");
		assert_in_range(ended[0].ended_ns - ended[0].born_ns, 11000000000, 11200000000);
		assert_int_equal(observe_ended(rig.dp, &t.snat, htons(2), ended, 4, &since_ns), 0);
		/* One that nobody answered is in no log. */
		begin(PROTO_TCP, is_v6, 4);
		pass_ms(16000);
		assert_int_equal(rig.worker->outcomes->ended.done, 1);
		stop();
	}
}

struct turning {
	_Atomic bool stop;
};

static void *turn_on(void *arg)
{
	struct turning *t = arg;

	while (!t->stop)
		turn();
	return NULL;
}

/* Asks the worker that owns the port, however many backends there are. */
static void test_live_tuple(void **state)
{
	for (int is_v6 = 0; is_v6 < 2; is_v6++) {
		struct flow_row rows[FLOW_QUERY_ROWS], none_rows[FLOW_QUERY_ROWS];
		struct tuple_backend *backends = calloc(1000, sizeof(*backends));
		struct turning turning = {false};
		struct ipaddr addr;
		pthread_t thread;
		struct talk t;
		int n, none;

		start((struct rig_config){.n_backends = 1, .n_workers = 2});
		t = establish(is_v6, 3);
		addr = rig_client(3, is_v6);
		for (unsigned i = 0; i < 1000; i++)
			backends[i] = (struct tuple_backend){v4(0x0a000000 + i), htons(8080), PROTO_TCP};
		backends[999].addr = t.backend;
		pthread_create(&thread, NULL, turn_on, &turning);
		n = observe_tuple(rig.dp, &t.snat, t.snat_port_be, backends, 1000, rows, 5000);
		none = observe_tuple(rig.dp, &t.snat, htons(ntohs(t.snat_port_be) ^ 1), backends, 1000, none_rows,
				     5000);
		turning.stop = true;
		pthread_join(thread, NULL);
		assert_int_equal(n, 1);
		assert_int_equal(none, 0);
		assert_true(ipaddr_equal(&rows[0].client, &addr));
		assert_int_equal(rows[0].client_port_be, rig_client_port_be(3));
		assert_int_equal(observe_tuple(rig.dp, &t.backend, htons(1), backends, 1, rows, 10), -ENOENT);
		/* Nobody turns: it gives up in time. */
		assert_int_equal(observe_tuple(rig.dp, &t.snat, t.snat_port_be, backends, 1, rows, 10), -ETIMEDOUT);
		stop();
		free(backends);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_who_goes_first),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_seconds),
		cmocka_unit_test(test_seconds_full),
		cmocka_unit_test(test_ended_ring),
		cmocka_unit_test(test_ended_overtaken),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_attempts),
		cmocka_unit_test(test_unfinished),
		cmocka_unit_test(test_connected_and_closed),
		cmocka_unit_test(test_idle_reset),
		cmocka_unit_test(test_in_flow),
		cmocka_unit_test(test_strays),
		cmocka_unit_test(test_victim_in_flood),
		cmocka_unit_test(test_tuple),
		cmocka_unit_test(test_live_tuple),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
