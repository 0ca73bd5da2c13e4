/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Backends that leave, with real flows through real workers: services over the rig's dataplane, on the rig's clock. DNS
 * says what the tests say.
 */
#include "talk.h"

#include "drain.h"
#include "events.h"
#include "services.h"
#include "view.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_SERVICES 4
#define N_BACKENDS 128
#define N_HOSTS    8 /* 198.18.3.1 … 198.18.3.8, 2001:db8:3::1 … 2001:db8:3::8 */
#define N_FLOWS    48

static const char gateway_yaml[] = "gateway:\n"
				   "  workers: [0]\n"
				   "  flows: 10000\n"
				   "  ports: [{name: wan, device: eth1}, {name: lan, device: eth2}]\n"
				   "  snat: [198.18.101.1, \"2001:db8:101::1\"]\n";

static struct event_base *base;
static struct names *names;
static struct events *events;
static struct services *services;
static struct config *config;
static uint64_t events_seen;

static void on_name(void *arg, const struct name_view *view)
{
}

static uint64_t now_ns(void *arg)
{
	return rig.now_ns;
}

static void tell(void *arg, const char *message)
{
	print_error("%s\n", message);
}

static void publish(void)
{
	assert_int_equal(services_publish(services), 0);
}

/* The configuration, in place of the one before. */
static void load(const char *text)
{
	char whole[4096];
	int len = snprintf(whole, sizeof(whole), "%s%s", gateway_yaml, text);
	struct config *next = config_parse("test", whole, len, tell, NULL);

	assert_non_null(next);
	/* Nobody here would answer a probe. */
	next->cures.of[CURE_SILENCE] = CURE_OFF;
	assert_int_equal(services_configure(services, next, names), 0);
	publish();
	config_free(config);
	config = next;
}

static void begin_services(unsigned workers)
{
	const struct names_config dead = {.servers_csv = "127.0.0.1:9"};

	start((struct rig_config){
		.n_backends = N_HOSTS, .n_workers = workers, .flows_v4 = 4 * N_FLOWS, .flows_v6 = 4 * N_FLOWS});
	base = event_base_new();
	names = names_create(base, &dead, on_name, NULL);
	events = events_create(NULL);
	services = services_create(rig.dp, &(struct services_config){
						   .n_service_slots = N_SERVICES,
						   .n_backend_slots = N_BACKENDS,
						   .poison = true,
						   .events = events,
						   .now_ns = now_ns,
					   });
	assert_true(base && names && events && services);
	events_seen = 0;
}

static void end_services(void)
{
	rig.policy.number = 1000000;
	dataplane_publish(rig.dp, &rig.policy);
	services_destroy(services);
	names_destroy(names);
	event_base_free(base);
	events_destroy(events);
	config_free(config);
	config = NULL;
	stop();
}

/* --- what DNS says --- */

static struct ipaddr host(bool v6, unsigned i)
{
	return rig.backends[v6][SET_TCP][i - 1].addr;
}

static void say_name(const char *name, bool v6, enum name_state state, const char *hosts)
{
	struct name_address addresses[N_HOSTS];
	struct name_view view = {.name = name,
				 .family = v6 ? 6 : 4,
				 .state = state,
				 .heard = true,
				 .addresses = addresses,
				 .last_error = ""};

	for (; *hosts; hosts++)
		addresses[view.n_addresses++] = (struct name_address){.addr = host(v6, *hosts - '0')};
	services_name_changed(services, &view);
}

/* An answer with these hosts, by their digits, for both families; and what it changes. */
static void answers(const char *name, const char *hosts)
{
	say_name(name, false, NAME_FRESH, hosts);
	say_name(name, true, NAME_FRESH, hosts);
	if (services_dirty(services))
		publish();
}

static void becomes(const char *name, enum name_state state, const char *hosts)
{
	say_name(name, false, state, hosts);
	say_name(name, true, state, hosts);
	if (services_dirty(services))
		publish();
}

/* --- what is seen --- */

/* The clock moves, workers and decide with it. Returns how much left. */
static unsigned pass(uint64_t ms)
{
	unsigned n = 0;

	for (uint64_t end_ns = rig.now_ns + ms * 1000000; rig.now_ns < end_ns;) {
		pass_ms(200);
		services_reap(services);
		n += take_all();
	}
	return n;
}

/* How often that happened since the last look at events that were passed over. */
static unsigned happened(const char *kind, const char *with)
{
	static struct event_record records[EVENTS_KEPT];
	uint64_t lost;
	size_t n = events_read(events, events_seen, records, EVENTS_KEPT, &lost, 0);
	unsigned found = 0;

	for (size_t i = 0; i < n; i++)
		if (strcmp(records[i].kind, kind) == 0 &&
		    (strstr(records[i].text, with) || strstr(records[i].subject, with)))
			found++;
	return found;
}

static void forget_events(void)
{
	events_seen = events_last(events);
}

/* The backend's row as serve would show it; life is LIFE_GONE if it has none. */
struct shown {
	enum backend_life life;
	uint64_t flows, new_flows, pinned;
	uint32_t slot;
	uint64_t deadline_ns;
};

static struct shown show(bool v6, unsigned i)
{
	struct view *view = calloc(1, sizeof(*view));
	struct shown shown = {.life = LIFE_GONE};
	struct ipaddr addr = host(v6, i);

	assert_int_equal(services_view(services, view), 0);
	for (size_t b = 0; b < view->n_backends; b++) {
		struct backend_report r;

		if (!ipaddr_equal(&view->backends[b].addr, &addr))
			continue;
		observe_backend(rig.dp, view->backends[b].slot, &r);
		shown = (struct shown){
			.life = view->backends[b].life,
			.flows = r.flows,
			.new_flows = r.new_flows,
			.pinned = view->backends[b].life == LIFE_DRAINING ? r.flows : 0,
			.slot = view->backends[b].slot,
			.deadline_ns = view->backends[b].deadline_ns,
		};
	}
	view_free(view);
	return shown;
}

struct flows {
	struct talk all[N_FLOWS];
	bool v6;
};

static unsigned next_client;

static void establish_all(struct flows *f, bool v6)
{
	f->v6 = v6;
	for (unsigned i = 0; i < N_FLOWS; i++)
		f->all[i] = establish(v6, next_client++);
}

static unsigned count_to(const struct flows *f, unsigned i)
{
	struct ipaddr addr = host(f->v6, i);
	unsigned n = 0;

	for (unsigned j = 0; j < N_FLOWS; j++)
		n += ipaddr_equal(&f->all[j].backend, &addr);
	return n;
}

/* One of those that go there. */
static struct talk *one_to(struct flows *f, unsigned i)
{
	struct ipaddr addr = host(f->v6, i);

	for (unsigned j = 0; j < N_FLOWS; j++)
		if (ipaddr_equal(&f->all[j].backend, &addr))
			return &f->all[j];
	fail_msg("no flow goes to host %u", i);
	return NULL;
}

static uint64_t counted(bool did, enum action a)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += did ? rig.dp->workers[i]->ledger.did[a] : rig.dp->workers[i]->ledger.would[a];
	return n;
}

#define A(rest)                                                                                                        \
	"  - name: a\n    listen: [\"198.18.100.1:80/tcp\", \"[2001:db8:100::1]:80/tcp\"]\n"                           \
	"    backends: [{dns: a.test, port: 8080}]\n" rest
#define B(backend)                                                                                                     \
	"  - name: b\n    listen: [\"198.18.100.1:81/tcp\", \"[2001:db8:100::1]:81/tcp\"]\n"                           \
	"    backends: [" backend "]\n"

/* --- E-4 --- */

static void check_pinned(bool v6, unsigned workers)
{
	struct flows old, new;
	unsigned pinned;

	begin_services(workers);
	load("services:\n" A(""));
	answers("a.test", "123");
	establish_all(&old, v6);
	pinned = count_to(&old, 2);
	assert_true(pinned > 3);
	assert_int_equal(show(v6, 2).pinned, 0);
	forget_events();
	answers("a.test", "13");
	assert_int_equal(show(v6, 2).life, LIFE_DRAINING);
	assert_int_equal(show(v6, 2).pinned, pinned);
	assert_int_equal(happened("backend_removed", "DNS no longer names it (a.test)"), 2);
	assert_int_equal(show(v6, 1).pinned + show(v6, 3).pinned, 0);
	/* Nothing new goes there, what is there goes on. */
	establish_all(&new, v6);
	assert_int_equal(count_to(&new, 2), 0);
	assert_int_equal(show(v6, 2).pinned, pinned);
	exchange(RIG_WAN, with_payload(from_client(one_to(&old, 2), TCP_ACK, ISN + 1, PEER + 1), 100));
	/* They end by themselves, one by one. */
	for (unsigned i = 0; i < N_FLOWS; i++) {
		struct ipaddr addr = host(v6, 2);

		if (!ipaddr_equal(&old.all[i].backend, &addr))
			continue;
		exchange(RIG_WAN,
			 from_client(&old.all[i], TCP_RST, ISN + 1 + 100 * (&old.all[i] == one_to(&old, 2)), 0));
		assert_int_equal(show(v6, 2).pinned, pinned);
		pass(11000);
		assert_int_equal(show(v6, 2).pinned, --pinned);
	}
	assert_int_equal(pinned, 0);
	assert_int_equal(happened("backend_gone", "no flows any more"), 2);
	assert_int_equal(show(v6, 2).life, LIFE_GONE);
	end_services();
}

static void test_pinned(void **state)
{
	each_way(check_pinned);
}

/* --- drain --- */

static void check_drain(bool v6, unsigned workers)
{
	struct flows f;
	unsigned pinned, sent = 0;

	begin_services(workers);
	load("services:\n" A("    drain: 8s\n"));
	answers("a.test", "12");
	establish_all(&f, v6);
	pinned = count_to(&f, 2);
	forget_events();
	answers("a.test", "1");
	assert_int_equal(show(v6, 2).deadline_ns, rig.now_ns + 8000000000);
	assert_int_equal(pass(7600), 0);
	assert_int_equal(happened("drain_deadline", ""), 0);
	/* Over a quarter of it; no more than that and a walk. */
	for (int i = 0; i < 5; i++)
		sent += pass(200);
	assert_in_range(sent, 2, 2 * pinned - 2);
	sent += pass(2000);
	assert_int_equal(sent, 2 * pinned);
	assert_int_equal(happened("drain_deadline", "flows are left after 8 s: they are ended over 2.0 s"), 1);
	assert_int_equal(happened("backend_gone", "its drain deadline ended them"), 1);
	assert_int_equal(show(v6, 2).life, LIFE_GONE);
	assert_int_equal(counted(true, ACTION_drain_rst), pinned);
	/* The others never noticed. */
	assert_int_equal(n_flows(), N_FLOWS - pinned);
	exchange(RIG_WAN, with_payload(from_client(one_to(&f, 1), TCP_ACK, ISN + 1, PEER + 1), 100));
	end_services();
}

static void test_drain(void **state)
{
	each_way(check_drain);
}

/* DNS that has doubts, or nothing to say, ends no flow; its next good answer does. */
static void test_drain_waits_for_dns(void **state)
{
	static const enum name_state states[] = {NAME_STALE, NAME_DOUBT, NAME_GONE};

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct flows f;

		begin_services(1);
		load("services:\n" A("    drain: 4s\n"));
		answers("a.test", "12");
		establish_all(&f, false);
		answers("a.test", "1");
		pass(1000);
		becomes("a.test", states[i], "1");
		assert_int_equal(pass(20000), 0);
		assert_int_equal(show(false, 2).pinned, count_to(&f, 2));
		answers("a.test", "1");
		assert_int_equal(pass(2000), 2 * count_to(&f, 2));
		end_services();
	}
}

static void test_drain_stops_when_dns_stops(void **state)
{
	struct flows f;
	unsigned sent;

	begin_services(1);
	load("services:\n" A("    drain: 40s\n"));
	answers("a.test", "12");
	establish_all(&f, false);
	answers("a.test", "1");
	sent = pass(44000);
	assert_in_range(sent, 2, 2 * count_to(&f, 2) - 2);
	becomes("a.test", NAME_STALE, "1");
	services_reap(services);
	assert_int_equal(pass(20000), 0);
	assert_int_equal(show(false, 2).pinned, count_to(&f, 2) - sent / 2);
	end_services();
}

/* What is too old to serve was not removed by anybody: its flows are left alone until DNS says so. */
static void test_expired(void **state)
{
	struct flows f;

	begin_services(1);
	load("services:\n" A("    drain: 4s\n"));
	answers("a.test", "12");
	establish_all(&f, false);
	becomes("a.test", NAME_EXPIRED, "");
	assert_int_equal(show(false, 2).life, LIFE_DRAINING);
	assert_int_equal(show(false, 2).deadline_ns, 0);
	assert_int_equal(pass(20000), 0);
	assert_int_equal(n_flows(), N_FLOWS);
	answers("a.test", "1");
	assert_int_equal(show(false, 1).life, LIFE_ACTIVE);
	assert_int_equal(show(false, 1).flows, count_to(&f, 1));
	assert_int_equal(pass(3800), 0);
	assert_int_equal(pass(2000), 2 * count_to(&f, 2));
	end_services();
}

/* It comes back: the same slot, the counters go on, and no flow is ended any more. */
static void test_returns(void **state)
{
	struct flows f, again;
	struct shown before, after;
	unsigned sent;

	begin_services(1);
	load("services:\n" A("    drain: 40s\n"));
	answers("a.test", "12");
	establish_all(&f, false);
	before = show(false, 2);
	answers("a.test", "1");
	sent = pass(43000);
	assert_in_range(sent, 2, 2 * before.flows - 2);
	forget_events();
	answers("a.test", "12");
	assert_int_equal(happened("backend_returned", "after 43 s"), 1);
	establish_all(&again, false);
	assert_int_equal(pass(60000), 0);
	after = show(false, 2);
	assert_int_equal(after.life, LIFE_ACTIVE);
	assert_int_equal(after.slot, before.slot);
	assert_int_equal(after.new_flows, before.new_flows + count_to(&again, 2));
	assert_int_equal(after.flows, before.flows - sent / 2 + count_to(&again, 2));
	assert_int_equal(after.deadline_ns, 0);
	end_services();
}

/* By a reload: of two services that named it, the one that waits longer decides. */
static void test_reload(void **state)
{
	struct flows f;

	begin_services(1);
	load("services:\n" A("    drain: 4s\n") B(
		"{address: 198.18.3.2, port: 8080}, {address: \"2001:db8:3::2\", port: 8080}") "    drain: 12s\n");
	answers("a.test", "12");
	establish_all(&f, false);
	/* One of them lets it go: its flows are not told apart, and nothing is removed. */
	forget_events();
	answers("a.test", "1");
	assert_int_equal(show(false, 2).life, LIFE_ACTIVE);
	assert_int_equal(show(false, 2).pinned, 0);
	assert_int_equal(pass(20000), 0);
	assert_int_equal(happened("backend_removed", ""), 0);
	answers("a.test", "12");
	load("services:\n" B("{address: 198.18.3.3, port: 8080}, {address: \"2001:db8:3::3\", port: 8080}"));
	assert_int_equal(happened("backend_removed", "the configuration no longer names it"), 4);
	/* Only a named host 1: 4 s, and 1 s of spread. */
	assert_int_equal(pass(6000), 2 * count_to(&f, 1));
	assert_int_equal(pass(5800), 0);
	assert_int_equal(pass(4000), 2 * count_to(&f, 2));
	assert_int_equal(n_flows(), 0);
	end_services();
}

/* --- modes --- */

static void set_mode(enum cure_mode mode)
{
	config->cures.of[CURE_NAMES] = mode;
	services_modes_changed(services);
	publish();
}

/* With off and shadow the first answer stays; with enforce the current one holds, however long it took. */
static void test_modes(void **state)
{
	for (enum cure_mode mode = CURE_OFF; mode <= CURE_SHADOW; mode++) {
		struct flows f;
		uint64_t elsewhere;

		begin_services(1);
		load(mode == CURE_OFF ? "cures: {names: off}\nservices:\n" A("")
				      : "cures: {names: shadow}\nservices:\n" A(""));
		/* What was saved serves until the first answer, which stays. */
		becomes("a.test", NAME_STALE, "7");
		answers("a.test", "12");
		answers("a.test", "345");
		establish_all(&f, false);
		assert_int_equal(count_to(&f, 1) + count_to(&f, 2), N_FLOWS);
		assert_int_equal(counted(false, ACTION_follow), mode == CURE_SHADOW ? N_FLOWS : 0);
		assert_int_equal(show(false, 1).life, LIFE_ACTIVE);
		/* One of two is there still: only the flows that would go to the new one are counted. */
		answers("a.test", "13");
		elsewhere = counted(false, ACTION_follow);
		establish_all(&f, true);
		elsewhere = counted(false, ACTION_follow) - elsewhere;
		if (mode == CURE_SHADOW)
			assert_in_range(elsewhere, count_to(&f, 2), N_FLOWS - 5);
		else
			assert_int_equal(elsewhere, 0);
		set_mode(CURE_ENFORCE);
		elsewhere = counted(false, ACTION_follow);
		establish_all(&f, false);
		assert_int_equal(count_to(&f, 1) + count_to(&f, 3), N_FLOWS);
		assert_int_equal(counted(false, ACTION_follow), elsewhere);
		assert_int_equal(show(false, 2).life, LIFE_DRAINING);
		/* And back: what is current stays. */
		set_mode(mode);
		answers("a.test", "4");
		establish_all(&f, true);
		assert_int_equal(count_to(&f, 1) + count_to(&f, 3), N_FLOWS);
		assert_int_equal(counted(true, ACTION_drain_rst), 0);
		end_services();
	}
}

struct story {
	uint64_t taken, n_flows;
	uint64_t did_drain, would_drain, did_follow, would_follow;
	struct flows before, after;
};

/* One host of two leaves DNS, another one comes; flows of before and after, and all that becomes of them. */
static void tell_story(enum cure_mode mode, bool v6, unsigned workers, struct story *out)
{
	char text[512];

	next_client = 0;
	begin_services(workers);
	snprintf(text, sizeof(text), "cures: {names: %s}\nservices:\n%s", cure_mode_name[mode], A("    drain: 8s\n"));
	load(text);
	answers("a.test", "12");
	establish_all(&out->before, v6);
	pass(3000);
	answers("a.test", "13");
	pass(3000);
	establish_all(&out->after, v6);
	pass(60000);
	out->taken = taken();
	out->n_flows = n_flows();
	out->did_drain = counted(true, ACTION_drain_rst);
	out->would_drain = counted(false, ACTION_drain_rst);
	out->did_follow = counted(true, ACTION_follow);
	out->would_follow = counted(false, ACTION_follow);
	end_services();
}

static unsigned elsewhere(const struct flows *a, const struct flows *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < N_FLOWS; i++)
		n += !ipaddr_equal(&a->all[i].backend, &b->all[i].backend);
	return n;
}

/* P-4: shadow changes no byte and no moment, and counts each flow that enforce ends or sends elsewhere. */
static void check_would_is_did(bool v6, unsigned workers)
{
	static struct story off, shadow, enforced;

	tell_story(CURE_OFF, v6, workers, &off);
	tell_story(CURE_SHADOW, v6, workers, &shadow);
	tell_story(CURE_ENFORCE, v6, workers, &enforced);
	assert_int_equal(off.did_drain + off.would_drain + off.did_follow + off.would_follow, 0);
	assert_true(shadow.taken == off.taken);
	assert_true(shadow.taken != enforced.taken);
	assert_int_equal(shadow.n_flows, off.n_flows);
	assert_int_equal(shadow.did_drain + shadow.did_follow + enforced.would_drain + enforced.would_follow, 0);
	assert_true(enforced.did_drain > 3);
	assert_int_equal(shadow.would_drain, enforced.did_drain);
	assert_int_equal(elsewhere(&shadow.before, &enforced.before), 0);
	assert_true(elsewhere(&shadow.after, &enforced.after) > 3);
	assert_int_equal(shadow.would_follow, elsewhere(&shadow.after, &enforced.after));
}

static void test_would_is_did(void **state)
{
	each_way(check_would_is_did);
}

/* Shadow counts the flows that the drain would have ended: those of before, once each. */
static void test_would_drain(void **state)
{
	struct flows before, after;

	begin_services(1);
	load("cures: {names: shadow}\nservices:\n" A("    drain: 8s\n"));
	answers("a.test", "12");
	establish_all(&before, false);
	pass(3000);
	answers("a.test", "1");
	pass(3000);
	establish_all(&after, false);
	assert_true(count_to(&after, 2) > 0);
	assert_int_equal(pass(60000), 0);
	assert_int_equal(counted(false, ACTION_drain_rst), count_to(&before, 2));
	assert_int_equal(n_flows(), 2 * N_FLOWS);
	/* Enforce begins anew: flows of shadow's time are not its own. */
	set_mode(CURE_ENFORCE);
	assert_int_equal(pass(60000), 0);
	assert_int_equal(show(false, 2).pinned, count_to(&before, 2) + count_to(&after, 2));
	end_services();
}

/* What shadow counted as due is not done because the mode changes meanwhile. */
static void test_would_drain_is_not_done(void **state)
{
	struct flows f;

	begin_services(1);
	load("services:\n" A("    drain: 40s\n"));
	answers("a.test", "12");
	establish_all(&f, false);
	set_mode(CURE_SHADOW);
	pass(1000);
	answers("a.test", "1");
	assert_int_equal(pass(44000), 0);
	assert_in_range(counted(false, ACTION_drain_rst), 1, count_to(&f, 2) - 1);
	set_mode(CURE_ENFORCE);
	assert_int_equal(pass(39000), 0);
	assert_int_equal(pass(12000), 2 * count_to(&f, 2));
	end_services();
}

/* --- commands --- */

static int drain(const char *backend, const char *service, bool put_back, uint64_t deadline_ns)
{
	struct drain_result result;
	int err = services_drain(services, &(struct drain_order){backend, service, put_back, deadline_ns}, &result);

	if (!err)
		publish();
	return err;
}

#define BY_SERVICE DRAIN_BY_SERVICE

static void test_command(void **state)
{
	struct flows f, new;

	begin_services(2);
	load("services:\n" A(""));
	answers("a.test", "123");
	establish_all(&f, false);
	forget_events();
	assert_int_equal(drain("tcp:198.18.3.2:8080", NULL, false, BY_SERVICE), 0);
	assert_int_equal(happened("backend_removed", "taken out by command (a.test)"), 1);
	assert_int_equal(show(false, 2).pinned, count_to(&f, 2));
	assert_int_equal(drain("tcp:198.18.3.2:8080", NULL, false, BY_SERVICE), -EALREADY);
	assert_int_equal(drain("tcp:198.18.3.9:8080", NULL, false, BY_SERVICE), -ENOENT);
	assert_int_equal(drain("tcp:198.18.3.1:8080", "b", false, BY_SERVICE), -ENOENT);
	assert_int_equal(drain("tcp:198.18.3.1:8080", NULL, true, BY_SERVICE), -ENOENT);
	/* DNS changes nothing about it; its flows stay, as drain is off. */
	answers("a.test", "12");
	establish_all(&new, false);
	assert_int_equal(count_to(&new, 1), N_FLOWS);
	assert_int_equal(pass(30000), 0);
	/* The last one of a service is not taken from it. */
	assert_int_equal(drain("tcp:198.18.3.1:8080", NULL, false, BY_SERVICE), -EBUSY);
	assert_int_equal(drain("tcp:198.18.3.2:8080", NULL, true, BY_SERVICE), 0);
	assert_int_equal(show(false, 2).life, LIFE_ACTIVE);
	/* With a deadline of its own. */
	assert_int_equal(drain("tcp:198.18.3.2:8080", "a", false, 4000000000), 0);
	assert_int_equal(pass(3800), 0);
	assert_int_equal(pass(2000), 2 * count_to(&f, 2));
	/* It is shown until it is put back; a reload does that. */
	pass(2000);
	assert_int_equal(show(false, 2).life, LIFE_DRAINING);
	load("services:\n" A(""));
	assert_int_equal(show(false, 2).life, LIFE_ACTIVE);
	answers("a.test", "123");
	assert_int_equal(show(false, 2).life, LIFE_ACTIVE);
	set_mode(CURE_SHADOW);
	assert_int_equal(drain("tcp:198.18.3.2:8080", NULL, false, 4000000000), -EOPNOTSUPP);
	assert_int_equal(drain("tcp:198.18.3.2:8080", NULL, false, BY_SERVICE), 0);
	assert_int_equal(show(false, 2).life, LIFE_DRAINING);
	end_services();
}

/* Out of one of two services, the backend has not left. */
static void test_command_for_one_service(void **state)
{
	struct flows f;

	begin_services(1);
	load("services:\n" A("") B("{dns: a.test, port: 8080}"));
	answers("a.test", "12");
	assert_int_equal(drain("tcp:198.18.3.2:8080", "a", false, BY_SERVICE), 0);
	assert_int_equal(show(false, 2).life, LIFE_ACTIVE);
	establish_all(&f, false);
	assert_int_equal(count_to(&f, 1), N_FLOWS);
	/* A command that could not be published leaves nothing behind. */
	services_drain(services, &(struct drain_order){"tcp:198.18.3.1:8080", "b", false, BY_SERVICE},
		       &(struct drain_result){0});
	services_undrain(services);
	publish();
	assert_int_equal(drain("tcp:198.18.3.2:8080", "b", false, BY_SERVICE), 0);
	assert_int_equal(show(false, 2).life, LIFE_DRAINING);
	end_services();
}

/* --- words --- */

/* Once a minute, with the age of the oldest. */
static void test_round(void **state)
{
	struct flows f;

	begin_services(2);
	load("services:\n" A(""));
	answers("a.test", "12");
	establish_all(&f, false);
	pass(30000);
	answers("a.test", "1");
	forget_events();
	pass(59000);
	assert_int_equal(happened("backend_pinned", ""), 0);
	pass(2000);
	assert_int_equal(happened("backend_pinned", "flows are there 60 s after it left, the oldest began 90 s ago"),
			 1);
	pass(180000);
	assert_int_equal(happened("backend_pinned", "tcp:198.18.3.2:8080"), 4);
	end_services();
}

/* Many at once: the first are told, the others counted. */
static void test_many(void **state)
{
	char text[4096] = "services:\n" A("") "  - name: b\n    listen: [\"198.18.100.1:81/tcp\"]\n    backends:\n";

	begin_services(1);
	for (unsigned i = 1; i <= 50; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "      - {address: 198.18.4.%u, port: 80}\n",
			 i);
	load(text);
	answers("a.test", "1");
	forget_events();
	load("services:\n" A(""));
	assert_int_equal(happened("backend_removed", "0 flows stay"), 32);
	assert_int_equal(happened("backends_more", "the same of 18 more"), 1);
	pass(200);
	assert_int_equal(happened("backend_gone", ""), 32);
	end_services();
}

/* States of names, and answers that change much. */
static void test_names(void **state)
{
	begin_services(1);
	load("services:\n" A(""));
	answers("a.test", "1234");
	assert_int_equal(events_last(events), 0);
	becomes("a.test", NAME_STALE, "1234");
	becomes("a.test", NAME_STALE, "1234");
	assert_int_equal(happened("name_stale", "a.test AAAA"), 1);
	assert_int_equal(happened("name_stale", ""), 2);
	becomes("a.test", NAME_DOUBT, "1234");
	becomes("a.test", NAME_GONE, "1234");
	becomes("a.test", NAME_EXPIRED, "");
	assert_int_equal(happened("name_doubt", "last good 4 addresses serve on"), 2);
	assert_int_equal(happened("name_gone", "last good 4 addresses serve on"), 2);
	assert_int_equal(happened("name_expired", "new flows are refused"), 2);
	answers("a.test", "1234");
	assert_int_equal(happened("name_fresh", "it was expired"), 2);
	answers("a.test", "1256");
	assert_int_equal(happened("mass_change", ""), 0);
	answers("a.test", "1378");
	assert_int_equal(happened("mass_change", "removes 3 of 4 addresses, and has 4 now"), 2);
	answers("a.test", "1");
	assert_int_equal(happened("mass_change", "removes 3 of 4 addresses, and has 1 now"), 2);
	answers("a.test", "2");
	assert_int_equal(happened("mass_change", ""), 4);
	end_services();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_drain_waits_for_dns),
		cmocka_unit_test(test_drain_stops_when_dns_stops),
		cmocka_unit_test(test_expired),
		cmocka_unit_test(test_returns),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_would_is_did),
		cmocka_unit_test(test_would_drain),
		cmocka_unit_test(test_would_drain_is_not_done),
		cmocka_unit_test(test_command),
		cmocka_unit_test(test_command_for_one_service),
		cmocka_unit_test(test_round),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_names),
	};

	if (rig_eal(320, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
