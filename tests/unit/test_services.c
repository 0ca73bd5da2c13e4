/* SPDX-License-Identifier: BSD-3-Clause */
/* Services over a real dataplane without threads, and names that nobody answers for. */
#include "build.h"
#include "core.h"
#include "events.h"
#include "rig.h"
#include "services.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#define N_SERVICES 4
#define N_BACKENDS 16

static const char gateway_yaml[] = "gateway:\n"
				   "  workers: [0]\n"
				   "  flows: 10000\n"
				   "  ports: [{name: wan, device: eth1}, {name: lan, device: eth2}]\n"
				   "  snat: [198.18.101.10, \"2001:db8:101::10\"]\n"
				   "services:\n";

struct fixture {
	struct rig rig;
	struct event_base *base;
	struct events *events;
	struct names *names;
	struct services *s;
	struct config *config; /* the current one, borrowed by `s` */
	struct config *before; /* the one that it replaced, borrowed until it is published */
};

static struct fixture f;

static void on_name(void *arg, const struct name_view *view)
{
}

static int setup(void **state)
{
	const struct rig_config config = {.flows_v4 = 64, .flows_v6 = 64, .n_mbufs = 255, .n_backends = 1, .n_snat = 1};
	const struct names_config names = {.servers_csv = "127.0.0.1:9"};

	if (rig_create(&f.rig, &config))
		return -1;
	f.base = event_base_new();
	f.names = names_create(f.base, &names, on_name, NULL);
	f.events = events_create(NULL);
	f.s = services_create(f.rig.dp, &(struct services_config){N_SERVICES, N_BACKENDS, true, f.events});
	return f.base && f.events && f.names && f.s ? 0 : -1;
}

static int teardown(void **state)
{
	dataplane_publish(f.rig.dp, &f.rig.policy);
	services_destroy(f.s);
	names_destroy(f.names);
	events_destroy(f.events);
	event_base_free(f.base);
	config_free(f.config);
	config_free(f.before);
	rig_destroy(&f.rig);
	f = (struct fixture){0};
	return 0;
}

static void tell(void *arg, const char *message)
{
	print_error("%s\n", message);
}

static int configure(const char *services)
{
	struct config *config;
	char text[4096];
	int len = snprintf(text, sizeof(text), "%s%s", gateway_yaml, services), err;

	config = config_parse("test", text, len, tell, NULL);
	assert_non_null(config);
	err = services_configure(f.s, config, f.names);
	if (err) {
		config_free(config);
		return err;
	}
	f.before = f.config;
	f.config = config;
	return 0;
}

static void revert(void)
{
	services_revert(f.s);
	config_free(f.config);
	f.config = f.before;
	f.before = NULL;
}

#define STATIC(name, vip, backend)                                                                                     \
	"  - {name: " name ", listen: [\"198.18.100." vip ":80/tcp\"], backends: [{address: 198.18.3." backend         \
	", port: 8080}]}\n"
#define NAMED(name, vip, dns)                                                                                          \
	"  - {name: " name ", listen: [\"198.18.100." vip ":80/tcp\"], backends: [{dns: " dns ", port: 8080}]}\n"

/* `n_starved` services get no slots for what they should have. */
static const struct policy *publish_starving(size_t n_starved)
{
	assert_true(services_dirty(f.s));
	assert_int_equal(services_publish(f.s), 0);
	assert_int_equal(services_starved(f.s), n_starved);
	assert_int_equal(services_dirty(f.s), n_starved > 0);
	config_free(f.before);
	f.before = NULL;
	return f.rig.dp->policy;
}

static const struct policy *publish(void)
{
	return publish_starving(0);
}

static uint32_t slot_at(const struct policy *policy, uint8_t vip)
{
	struct ipaddr addr = ipaddr_v4(htonl(0xc6126400 + vip));
	const struct policy_listener *l = listener_lookup(policy->listeners, &addr, htons(80), PROTO_TCP);

	return l ? l->service_slot : SLOT_NONE;
}

static const struct policy_set *set_at(const struct policy *policy, uint8_t vip)
{
	return &policy->services[slot_at(policy, vip)]->sets[SET_V4][SET_TCP];
}

static void name_answers(const char *name, const uint8_t *hosts, size_t n)
{
	struct name_address addresses[2 * N_BACKENDS];
	const struct name_view view = {
		.name = name, .family = 4, .state = NAME_FRESH, .addresses = addresses, .n_addresses = n};

	for (size_t i = 0; i < n; i++)
		addresses[i] = (struct name_address){.addr = ipaddr_v4(htonl(0xc6120300 + hosts[i]))};
	services_name_changed(f.s, &view);
}

static void test_first(void **state)
{
	const struct policy *policy;

	assert_int_equal(configure(STATIC("a", "1", "21") STATIC("b", "2", "22")), 0);
	policy = publish();
	assert_int_equal(policy->number, 1);
	assert_int_not_equal(slot_at(policy, 1), slot_at(policy, 2));
	assert_int_equal(set_at(policy, 1)->n_backends, 1);
	assert_int_equal(ipaddr_v4_be(&set_at(policy, 1)->backends[0].addr), htonl(0xc6120315));
	/* No IPv6 and no UDP: it does not listen there. */
	assert_int_equal(policy->services[slot_at(policy, 1)]->sets[SET_V6][SET_TCP].n_backends, 0);
	assert_int_equal(policy->services[slot_at(policy, 1)]->sets[SET_V4][SET_UDP].n_backends, 0);
	assert_int_equal(slot_at(policy, 3), SLOT_NONE);
}

/* DNS changes one service: the others and the listeners are the same memory as before. */
static void test_shares(void **state)
{
	const struct policy_service *a, *b;
	const struct listener_table *listeners;
	const struct policy *policy;

	assert_int_equal(configure(NAMED("a", "1", "a.test") NAMED("b", "2", "b.test")), 0);
	policy = publish();
	assert_int_equal(set_at(policy, 1)->n_backends, 0);
	assert_false(services_resolved(f.s));
	name_answers("a.test", (uint8_t[]){21, 22}, 2);
	assert_true(services_dirty(f.s));
	b = policy->services[slot_at(policy, 2)];
	listeners = policy->listeners;
	policy = publish();
	assert_int_equal(policy->number, 2);
	assert_ptr_equal(policy->services[slot_at(policy, 2)], b);
	assert_ptr_equal(policy->listeners, listeners);
	assert_int_equal(set_at(policy, 1)->n_backends, 2);
	/* The same answer again changes nothing. */
	name_answers("a.test", (uint8_t[]){21, 22}, 2);
	name_answers("c.test", (uint8_t[]){21, 22}, 2);
	assert_false(services_dirty(f.s));
	a = policy->services[slot_at(policy, 1)];
	name_answers("b.test", (uint8_t[]){22}, 1);
	policy = publish();
	assert_ptr_equal(policy->services[slot_at(policy, 1)], a);
	assert_true(services_resolved(f.s));
	/* One backend, whichever services use it. */
	assert_int_equal(set_at(policy, 2)->backends[0].ref.slot, set_at(policy, 1)->backends[1].ref.slot);
}

static void test_reload_keeps_slots(void **state)
{
	const struct policy *policy;
	uint32_t a, b, backend;

	assert_int_equal(configure(STATIC("a", "1", "21") STATIC("b", "2", "22")), 0);
	policy = publish();
	a = slot_at(policy, 1);
	b = slot_at(policy, 2);
	backend = set_at(policy, 2)->backends[0].ref.slot;
	assert_int_equal(configure(STATIC("b", "2", "22") STATIC("c", "3", "23") STATIC("a", "4", "21")), 0);
	policy = publish();
	assert_int_equal(slot_at(policy, 1), SLOT_NONE);
	assert_int_equal(slot_at(policy, 4), a);
	assert_int_equal(slot_at(policy, 2), b);
	assert_int_equal(set_at(policy, 2)->backends[0].ref.slot, backend);
}

/* A flow holds its service's and backend's slots over their removal; they come back to them, or are given away. */
static void test_lingering(void **state)
{
	struct worker *w = f.rig.worker;
	const struct policy *policy;
	struct slot_ref service, backend;

	assert_int_equal(configure(STATIC("a", "1", "21")), 0);
	policy = publish();
	service = policy->services[slot_at(policy, 1)]->ref;
	backend = set_at(policy, 1)->backends[0].ref;
	w->services[service.slot].users = w->backends[backend.slot].users = 1;
	for (int round = 0; round < 2; round++) {
		assert_int_equal(configure(STATIC("b", "2", "22")), 0);
		services_reap(f.s); /* before the publication: nothing may be given away */
		publish();
		services_reap(f.s);
		if (round)
			w->services[service.slot].users = w->backends[backend.slot].users = 0;
		services_reap(f.s);
		assert_int_equal(configure(STATIC("b", "2", "22") STATIC("a", "1", "21")), 0);
		policy = publish();
		if (round == 0) {
			assert_int_equal(slot_at(policy, 1), service.slot);
			assert_int_equal(policy->services[service.slot]->ref.generation, service.generation);
			assert_int_equal(set_at(policy, 1)->backends[0].ref.slot, backend.slot);
			assert_int_equal(set_at(policy, 1)->backends[0].ref.generation, backend.generation);
		} else {
			/* The same place, as it is the first free one, but nobody's heir. */
			assert_int_not_equal(policy->services[slot_at(policy, 1)]->ref.generation, service.generation);
			assert_int_not_equal(set_at(policy, 1)->backends[0].ref.generation, backend.generation);
		}
	}
}

/* More services than slots: refused, and neither the configuration nor what is published has changed. */
static void test_no_room(void **state)
{
	const struct policy *policy;
	char many[2048] = NAMED("a", "1", "a.test");

	assert_int_equal(configure(NAMED("a", "1", "a.test")), 0);
	policy = publish();
	for (int i = 2; i <= N_SERVICES + 1; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many),
			 "  - {name: s%d, listen: [\"198.18.100.%d:80/tcp\"], backends: [{dns: n%d.test, port: 80}]}\n",
			 i, i, i);
	assert_int_equal(configure(many), -ENOSPC);
	assert_false(services_dirty(f.s));
	assert_ptr_equal(f.rig.dp->policy, policy);
}

/* `n` addresses from 198.18.3.`first` on. */
static void name_has(const char *name, uint8_t first, size_t n)
{
	uint8_t hosts[2 * N_BACKENDS];

	assert_true(n <= sizeof(hosts));
	for (size_t i = 0; i < n; i++)
		hosts[i] = first + i;
	name_answers(name, hosts, n);
}

/* What `look` gets to see of the services. */
static void with_view(void (*look)(const struct view *view, const void *arg), const void *arg)
{
	struct view *view = calloc(1, sizeof(*view));

	assert_non_null(view);
	assert_int_equal(services_view(f.s, view), 0);
	look(view, arg);
	view_free(view);
}

static void is_starved(const struct view *view, const void *name)
{
	for (size_t i = 0; i < view->n_services; i++)
		assert_int_equal(strcmp(view->services[i].name, name) == 0,
				 strstr(view->services[i].down_reason, "no free slots") != NULL);
}

static void has_names(const struct view *view, const void *n)
{
	assert_int_equal(view->n_names, *(const size_t *)n);
}

/* A name with more addresses than there are slots costs no other service anything. */
static void test_starved(void **state)
{
	const struct policy *policy;

	assert_int_equal(configure(NAMED("a", "1", "a.test") NAMED("b", "2", "b.test")), 0);
	name_has("a.test", 1, 4);
	name_has("b.test", 101, 1);
	publish();
	name_has("a.test", 1, N_BACKENDS);
	name_has("b.test", 101, 3);
	policy = publish_starving(1);
	assert_int_equal(set_at(policy, 1)->n_backends, 4);
	assert_int_equal(set_at(policy, 2)->n_backends, 3);
	with_view(is_starved, "a");
	name_has("a.test", 1, N_BACKENDS - 3);
	policy = publish();
	assert_int_equal(set_at(policy, 1)->n_backends, N_BACKENDS - 3);
	with_view(is_starved, "");
}

/* Nor does it keep the gateway from starting. */
static void test_starved_at_once(void **state)
{
	const struct policy *policy;

	assert_int_equal(configure(NAMED("a", "1", "a.test") STATIC("b", "2", "22")), 0);
	name_has("a.test", 101, N_BACKENDS + 1);
	policy = publish_starving(1);
	assert_int_equal(set_at(policy, 1)->n_backends, 0);
	assert_int_equal(set_at(policy, 2)->n_backends, 1);
	/* Without that service nothing waits any more. */
	assert_int_equal(configure(STATIC("b", "2", "22")), 0);
	policy = publish();
	assert_int_equal(slot_at(policy, 1), SLOT_NONE);
}

/* A reload that could not be published: what DNS said of the old names is still known. */
static void test_revert(void **state)
{
	const struct policy *policy;

	assert_int_equal(configure(NAMED("a", "1", "a.test") STATIC("b", "2", "22")), 0);
	name_has("a.test", 101, 2);
	publish();
	assert_int_equal(configure(NAMED("c", "3", "c.test") STATIC("b", "2", "22")), 0);
	assert_int_equal(services_configure(f.s, f.config, f.names), -EBUSY);
	name_has("c.test", 111, 1);
	revert();
	services_reap(f.s);
	policy = publish();
	assert_int_equal(slot_at(policy, 3), SLOT_NONE);
	assert_int_equal(set_at(policy, 1)->n_backends, 2);
	assert_int_equal(set_at(policy, 2)->n_backends, 1);
	with_view(has_names, &(size_t){1});
	/* The same once more, and published: the old name is let go then, and not before. */
	assert_int_equal(configure(NAMED("c", "3", "c.test") STATIC("b", "2", "22")), 0);
	with_view(has_names, &(size_t){2});
	policy = publish();
	with_view(has_names, &(size_t){1});
	assert_int_equal(slot_at(policy, 1), SLOT_NONE);
	assert_int_equal(set_at(policy, 3)->n_backends, 0);
}

#define LONG_NAME "0123456789012345678901234567890123456789012345678901234567"

static void is_whole(const struct view *view, const void *arg)
{
	assert_int_equal(view->n_services, 4);
	/* The longest address, and the last of many listeners. */
	assert_non_null(strstr(view->services[0].listen, ",[2001:db8:100:1111:2222:3333:4444:5555]:65535/tcp,"));
	assert_non_null(strstr(view->services[0].listen, ",198.18.100.1:1063/tcp"));
	assert_int_equal(view->n_backends, 2);
	for (size_t i = 0; i < view->n_backends; i++)
		if (ipaddr_is_v4(&view->backends[i].addr))
			assert_string_equal(view->backends[i].services, "s1" LONG_NAME ",s2" LONG_NAME ",...");
	/* Whatever has no room in those words, each service has its backends. */
	for (size_t i = 0; i < view->n_services; i++) {
		const struct view_service *svc = &view->services[i];
		bool has[2] = {false};

		assert_int_equal(svc->n_backends, i ? 1 : 2);
		for (unsigned b = 0; b < svc->n_backends; b++) {
			assert_true(svc->backends[b] < view->n_backends);
			has[ipaddr_is_v4(&view->backends[svc->backends[b]].addr)] = true;
		}
		assert_true(has[true] && has[false] == (i == 0));
	}
}

/* Lists in the view are whole, or say that they are not. */
static void test_long_lists(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	for (unsigned i = 1; i <= 4; i++) {
		fprintf(out, "  - name: s%u" LONG_NAME "\n    listen: [\"198.18.100.%u:80/tcp\"", i, i);
		for (unsigned j = 2; i == 1 && j < 63; j++)
			fprintf(out, ",\"198.18.100.1:%u/tcp\"", 1000 + j);
		if (i == 1)
			fputs(",\"[2001:db8:100:1111:2222:3333:4444:5555]:65535/tcp\",\"198.18.100.1:1063/tcp\"", out);
		fputs("]\n    backends:\n      - {address: 198.18.3.21, port: 80}\n", out);
		if (i == 1)
			fputs("      - {address: \"2001:db8:3::21\", port: 80}\n", out);
	}
	fclose(out);
	assert_int_equal(configure(text), 0);
	free(text);
	publish();
	with_view(is_whole, NULL);
}

/* What the file says of idle times and UDP is what the workers go by; what it leaves open depends on the port. */
static void test_udp_and_probes(void **state)
{
	static const struct {
		const char *keys;
		uint32_t unreplied_ms, replied_ms, dns_unreplied_ms, dns_replied_ms;
		bool oneshot, zero, client, backend;
	} cases[] = {
		{"", 30000, 300000, 10000, 10000, false, false, true, true},
		{", udp_oneshot: on", 10000, 10000, 10000, 10000, true, false, true, true},
		{", idle: {udp: 2m, udp_unreplied: 7s}", 7000, 120000, 7000, 120000, false, false, true, true},
		{", udp6_zero: allow, idle: {probe_side: client}", 30000, 300000, 10000, 10000, false, true, true,
		 false},
		{", udp6_zero: drop, idle: {probe_side: backend}", 30000, 300000, 10000, 10000, false, false, false,
		 true},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct policy_service *svc = NULL;
		char yaml[512];

		snprintf(
			yaml, sizeof(yaml),
			"  - {name: dns, listen: [\"198.18.100.1:53/udp\"], backends: [{address: 198.18.3.1, port: 53}]%s}\n",
			cases[i].keys);
		assert_int_equal(configure(yaml), 0);
		assert_int_equal(services_publish(f.s), 0);
		for (uint32_t slot = 0; slot < f.rig.dp->policy->n_services && !svc; slot++)
			svc = f.rig.dp->policy->services[slot];
		assert_non_null(svc);
		assert_int_equal(svc->timeouts.udp_unreplied_ms, cases[i].unreplied_ms);
		assert_int_equal(svc->timeouts.udp_replied_ms, cases[i].replied_ms);
		assert_int_equal(svc->timeouts.dns_unreplied_ms, cases[i].dns_unreplied_ms);
		assert_int_equal(svc->timeouts.dns_replied_ms, cases[i].dns_replied_ms);
		assert_int_equal(svc->udp_oneshot, cases[i].oneshot);
		assert_int_equal(svc->udp6_zero, cases[i].zero);
		assert_int_equal(f.rig.dp->policy->udp6_zero, cases[i].zero);
		assert_int_equal(svc->timeouts.probe_client, cases[i].client);
		assert_int_equal(svc->timeouts.probe_backend, cases[i].backend);
		config_free(f.before);
		f.before = NULL;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shares, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reload_keeps_slots, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lingering, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_udp_and_probes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_starved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_starved_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_revert, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_lists, setup, teardown),
	};

	if (rig_eal(192, false, 0))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
