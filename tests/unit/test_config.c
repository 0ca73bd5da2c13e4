/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The configuration. Broken files stand in broken/: the first line of each says what must be reported, where:
 *   # expect: LINE:COLUMN KEY SUBSTRING
 */
#include "../slower.h"
#include "config.h"
#include "config_schema.h"
#include "memory_plan.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* --- helpers --- */

struct messages {
	char *text; /* one a line */
	size_t len;
	FILE *stream;
	unsigned n;
};

static void collect(void *arg, const char *message)
{
	struct messages *m = arg;

	fprintf(m->stream, "%s\n", message);
	fflush(m->stream);
	m->n++;
}

static void messages_init(struct messages *m)
{
	*m = (struct messages){0};
	m->stream = open_memstream(&m->text, &m->len);
	assert_non_null(m->stream);
	fflush(m->stream);
}

static void messages_fini(struct messages *m)
{
	fclose(m->stream);
	free(m->text);
}

static struct config *parse(const char *text, struct messages *m)
{
	messages_init(m);
	return config_parse("t.yaml", text, strlen(text), collect, m);
}

/* The text must be accepted without a word. */
static struct config *parse_good(const char *text)
{
	struct messages m;
	struct config *config = parse(text, &m);

	if (!config || m.n)
		print_message("%s", m.text);
	assert_non_null(config);
	assert_int_equal(m.n, 0);
	messages_fini(&m);
	return config;
}

static void expect_message(const char *text, const char *message)
{
	struct messages m;
	struct config *config = parse(text, &m);

	if (config || !strstr(m.text, message))
		print_message("wanted: %s\ngot: %s", message, m.text);
	assert_null(config);
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(m.text, message));
	messages_fini(&m);
}

static char *print_to_text(const struct config *config)
{
	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);

	assert_non_null(stream);
	if (config)
		config_print(config, stream);
	else
		config_print_example(stream);
	fclose(stream);
	return text;
}

static char *read_text(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t room = 0;

	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	if (getdelim(&text, &room, EOF, f) < 0)
		fail_msg("%s: empty", path);
	fclose(f);
	return text;
}

#define GATEWAY                                                                                                        \
	"gateway:\n"                                                                                                   \
	"  flows: 10000\n"                                                                                             \
	"  workers: [0]\n"                                                                                             \
	"  ports: [{name: wan, device: eth1}]\n"                                                                       \
	"  snat: [198.18.101.10, \"2001:db8:101::10\"]\n"
#define BACKENDS "    backends: [{address: 198.18.3.21, port: 8080}]\n"
#define SERVICE                                                                                                        \
	"services:\n"                                                                                                  \
	"  - name: shop\n"                                                                                             \
	"    listen: [\"198.18.100.1:80/tcp\"]\n" BACKENDS

/* --- what a file comes to --- */

static void test_defaults(void **state)
{
	struct config *c = parse_good(GATEWAY SERVICE);
	const struct config_service *s = &c->services[0];

	assert_int_equal(c->idle, IDLE_SLEEP);
	assert_int_equal(c->flows, 10000);
	assert_int_equal(c->flows_ipv6, 1250);
	assert_int_equal(c->memory_bytes, 768ull << 20);
	assert_int_equal(c->routes, 100000);
	assert_int_equal(c->packets, 0);
	assert_int_equal(c->on_death, ON_FAIL_DROP);
	assert_int_equal(c->on_hang, ON_FAIL_DROP);
	assert_string_equal(c->api_socket, "/run/spillway/api.sock");
	assert_string_equal(c->api_http, "127.0.0.1:9090");
	assert_string_equal(c->state_dir, "/var/lib/spillway");
	assert_int_equal(c->n_dns_servers, 0);
	assert_int_equal(c->dns_min_ttl_ns, 1000000000ull);
	assert_int_equal(c->dns_max_ttl_ns, 300 * 1000000000ull);
	assert_int_equal(c->dns_stale_ns, 86400 * 1000000000ull);
	assert_int_equal(c->cures.of[CURE_STORM], CURE_ENFORCE);
	assert_int_equal(c->n_services, 1);
	assert_int_equal(s->source, SOURCE_SNAT);
	assert_int_equal(s->drain_ns, 0);
	assert_int_equal(s->idle_tcp_ns, 7440 * 1000000000ull);
	assert_int_equal(s->idle_probe_ns, 180 * 1000000000ull);
	assert_int_equal(s->idle_udp_ns, 0);
	assert_int_equal(s->idle_udp_unreplied_ns, 0);
	assert_int_equal(s->idle_probe_side, PROBE_BOTH);
	assert_false(s->udp_oneshot);
	assert_int_equal(s->udp6_zero, UDP6_ZERO_DROP);
	assert_int_equal(s->path_clamp, CLAMP_AUTO);
	assert_true(s->reuse.isn && s->reuse.timestamps && s->reuse.assist);
	assert_true(s->path_blackhole);
	assert_int_equal(s->breaker_consecutive, 5);
	assert_int_equal(s->breaker_window_ns, 10 * 1000000000ull);
	assert_int_equal(s->breaker_ratio_ppm, 500000);
	assert_int_equal(s->storm_client_timeout_ns, 1000000000ull);
	assert_int_equal(s->storm_retry_budget_ppm, 200000);
	assert_int_equal(s->storm_hold_ns, 900 * 1000000ull);
	assert_true(s->storm_early);
	assert_int_equal(s->storm_rate_per_s, 0);
	assert_int_equal(s->storm_burst, 0);
	assert_int_equal(s->backends[0].weight, 1);
	config_free(c);
}

static void test_values_and_positions(void **state)
{
	struct config *c = parse_good("gateway:\n"
				      "  workers: [0]\n"
				      "  idle: spin\n"
				      "  flows: 64k\n"
				      "  flows_ipv6: 2k\n"
				      "  memory: 2G\n"
				      "  packets: 16384\n"
				      "  ports:\n"
				      "    - {name: wan, device: \"0000:03:00.0\", queues: 4}\n"
				      "    - {name: lan, device: \"vdev:net_tap0,iface=tap0\"}\n"
				      "    - {name: mgmt, device: enp3s0f1, force_copy: on, skb_mode: true}\n"
				      "  snat: [198.18.101.10, \"2001:db8:101::10\"]\n"
				      "  on_death: pass\n"
				      "  on_hang: pass\n"
				      "  api: {http: \"[::1]:9090\", socket: off}\n"
				      "dns: {servers: [198.18.3.53, \"2001:db8::53\", \"[2001:db8::54]:5353\"]}\n"
				      "services:\n"
				      "  - name: shop\n"
				      "    listen: [\"198.18.100.1:80/tcp\",\n"
				      "             \"[2001:DB8:100::1]:53/udp\"]\n"
				      "    idle: {udp: 1h30m}\n"
				      "    backends:\n"
				      "      - {dns: Shop.Lab.Test., port: 8080, weight: 1000}\n");
	const struct config_service *s = &c->services[0];
	char text[IPADDR_PORT_STRLEN];

	assert_int_equal(c->idle, IDLE_SPIN);
	assert_int_equal(c->flows, 64000);
	assert_int_equal(c->flows_ipv6, 2000);
	assert_int_equal(c->memory_bytes, 2ull << 30);
	assert_int_equal(c->ports[0].kind, PORT_ETH);
	assert_int_equal(c->ports[0].queues, 4);
	assert_int_equal(c->ports[1].kind, PORT_ETH);
	assert_string_equal(c->ports[1].device, "vdev:net_tap0,iface=tap0");
	assert_int_equal(c->ports[2].kind, PORT_XSK);
	assert_true(c->ports[2].force_copy && c->ports[2].skb_mode && !c->ports[1].skb_mode);
	assert_string_equal(c->api_http, "[::1]:9090");
	assert_string_equal(c->api_socket, "");
	assert_string_equal(c->dns_servers[0], "198.18.3.53:53");
	assert_string_equal(c->dns_servers[1], "[2001:db8::53]:53");
	assert_string_equal(c->dns_servers[2], "[2001:db8::54]:5353");
	assert_int_equal(s->line, 18);
	assert_int_equal(s->column, 5);
	assert_int_equal(s->listen[1].line, 20);
	assert_int_equal(s->listen[1].column, 14);
	assert_int_equal(s->listen[1].proto, PROTO_UDP);
	assert_string_equal(ipaddr_port_format(&s->listen[1].addr, s->listen[1].port_be, text), "[2001:db8:100::1]:53");
	assert_int_equal(s->idle_udp_ns, 5400 * 1000000000ull);
	assert_int_equal(s->backends[0].kind, BACKEND_DNS);
	assert_string_equal(s->backends[0].name, "shop.lab.test");
	assert_int_equal(s->backends[0].port_be, htons(8080));
	assert_int_equal(s->backends[0].weight, 1000);
	assert_int_equal(s->backends[0].line, 23);
	assert_int_equal(s->backends[0].column, 9);
	config_free(c);
}

static void test_backend_rate(void **state)
{
	struct messages m;
	struct config *c = parse(GATEWAY SERVICE "    storm: {backend_rate: 250/s, backend_burst: 7}\n", &m);

	assert_non_null(c);
	assert_int_equal(m.n, 0);
	assert_int_equal(c->services[0].storm_backend_rate_per_s, 250);
	assert_int_equal(c->services[0].storm_backend_burst, 7);
	messages_fini(&m);
	config_free(c);
	assert_null(parse(GATEWAY SERVICE "    storm: {backend_rate: 1/s, backend_burst: 4000}\n", &m));
	assert_non_null(strstr(m.text, "services[0].storm.backend_burst: expected at most what the rate gives in an "
				       "hour, 3600"));
	messages_fini(&m);
}

static void test_hard_max(void **state)
{
	struct messages m;
	struct config *c = parse(GATEWAY SERVICE "    storm: {hard_max: 250}\n", &m);

	assert_non_null(c);
	assert_int_equal(m.n, 0);
	assert_int_equal(c->services[0].storm_hard_max, 250);
	messages_fini(&m);
	config_free(c);
	c = parse(GATEWAY SERVICE "    storm: {hard_max: off}\n", &m);
	assert_non_null(c);
	assert_int_equal(c->services[0].storm_hard_max, 0);
	messages_fini(&m);
	config_free(c);
	assert_null(parse(GATEWAY SERVICE "    storm: {hard_max: 0}\n", &m));
	assert_non_null(
		strstr(m.text, "services[0].storm.hard_max: expected a whole number from 1 to 1000000, or off"));
	messages_fini(&m);
}

static void test_without_effect_is_warned(void **state)
{
	struct messages m;
	struct config *c = parse(GATEWAY "cures: {wall: shadow, path: enforce}\n" SERVICE "    breaker: {ratio: 0.5%}\n"
					 "    path: {blackhole: off}\n",
				 &m);

	/* Below the range: an error beside the warnings. */
	assert_null(c);
	assert_non_null(strstr(m.text, "t.yaml:11:22: services[0].breaker.ratio: expected a share"));
	messages_fini(&m);
	c = parse(GATEWAY "cures: {wall: shadow, path: enforce}\n" SERVICE "    breaker: {ratio: 33.25%}\n"
			  "    path: {blackhole: off}\n    storm: {rate: 5k/s, hold: off, retry_budget: 12.5%}\n",
		  &m);
	assert_non_null(c);
	assert_int_equal(m.n, 1);
	assert_non_null(strstr(m.text, "t.yaml:12:12: warning: services[0].path.blackhole: has no effect yet"));
	assert_int_equal(c->cures.of[CURE_WALL], CURE_SHADOW);
	assert_int_equal(c->services[0].breaker_ratio_ppm, 332500);
	assert_int_equal(c->services[0].storm_rate_per_s, 5000);
	assert_int_equal(c->services[0].storm_hold_ns, 0);
	assert_int_equal(c->services[0].storm_retry_budget_ppm, 125000);
	messages_fini(&m);
	config_free(c);
}

/* Keys that stand beside others which do have an effect. */
static void test_single_keys_without_effect_are_warned(void **state)
{
	struct messages m;
	struct config *c =
		parse(GATEWAY "  state_dir: /var/lib/other\ncures: {names: shadow, silence: enforce}\n" SERVICE
			      "    drain: 30s\n    idle: {tcp: 1h, probe: 1m}\n    reuse: {isn: off, assist: off}\n"
			      "    path: {clamp: off, blackhole: off}\n",
		      &m);

	assert_non_null(c);
	assert_int_equal(c->services[0].path_clamp, CLAMP_OFF);
	assert_false(c->services[0].reuse.isn || c->services[0].reuse.assist);
	assert_true(c->services[0].reuse.timestamps);
	assert_int_equal(c->services[0].idle_probe_ns, 60000000000ull);
	assert_int_equal(m.n, 1);
	assert_non_null(strstr(m.text, "warning: services[0].path.blackhole: has no effect yet"));
	messages_fini(&m);
	config_free(c);
}

static void test_storm(void **state)
{
	struct messages m;
	struct config *c = parse_good(
		GATEWAY "cures: {storm: shadow}\n" SERVICE
			"    storm: {early: off, rate: 100/s, burst: 50, client_rate: 5/s, client_burst: 18k,\n"
			"            prefix_rate: 20/s, hold: 2s800ms, client_timeout: 3s}\n"
			"    idle: {udp: 2m}\n");
	const struct config_service *s = &c->services[0];

	assert_int_equal(c->cures.of[CURE_STORM], CURE_SHADOW);
	assert_false(s->storm_early);
	assert_int_equal(s->storm_rate_per_s, 100);
	assert_int_equal(s->storm_burst, 50);
	assert_int_equal(s->storm_client_rate_per_s, 5);
	assert_int_equal(s->storm_client_burst, 18000);
	assert_int_equal(s->storm_prefix_rate_per_s, 20);
	assert_int_equal(s->storm_prefix_burst, 0);
	assert_int_equal(s->storm_hold_ns, 2800 * 1000000ull);
	config_free(c);
	c = parse(GATEWAY SERVICE "    storm: {prefix_burst: 20}\n", &m);
	assert_non_null(c);
	assert_string_equal(
		m.text, "t.yaml:10:27: warning: services[0].storm.prefix_burst: no effect: there is no such rate\n");
	messages_fini(&m);
	config_free(c);
	expect_message(GATEWAY SERVICE "    storm: {rate: 2/s, burst: 7201}\n",
		       "services[0].storm.burst: expected at most what the rate gives in an hour, 7200");
	expect_message(GATEWAY SERVICE "    storm: {burst: 0}\n", "services[0].storm.burst: expected");
}

static void test_too_few_snat_ports_are_warned(void **state)
{
	struct messages m;
	struct config *c =
		parse("gateway:\n"
		      "  flows: 64513\n"
		      "  flows_ipv6: 64512\n"
		      "  workers: [0]\n"
		      "  ports: [{name: wan, device: eth1}]\n"
		      "  snat: [198.18.101.10, \"2001:db8:101::10\"]\n"
		      "services:\n"
		      "  - name: shop\n"
		      "    listen: [\"198.18.100.1:80/tcp\", \"[2001:db8:100::1]:80/tcp\"]\n"
		      "    backends: [{address: 198.18.3.21, port: 80}, {address: \"2001:db8:3::15\", port: 80}]\n",
		      &m);

	assert_non_null(c);
	assert_string_equal(m.text, "t.yaml:2:10: warning: gateway.flows: more than SNAT has ports for: 1 addresses x "
				    "1 backends x 64512 ports\n");
	messages_fini(&m);
	config_free(c);
	/* Of those that the range leaves. */
	c = parse("gateway: {flows: 20001, flows_ipv6: 1024, workers: [0], ports: [{name: wan, device: eth1}],\n"
		  "  snat: [198.18.101.10, 198.18.101.11], snat_ports: 20000-29999}\n"
		  "services:\n"
		  "  - {name: shop, listen: [\"198.18.100.1:80/tcp\"], backends: [{address: 198.18.3.21, port: 80}]}\n",
		  &m);
	assert_non_null(c);
	assert_string_equal(m.text, "t.yaml:1:18: warning: gateway.flows: more than SNAT has ports for: 2 addresses x "
				    "1 backends x 10000 ports\n");
	messages_fini(&m);
	config_free(c);
}

static void test_to_dataplane(void **state)
{
	struct config *c = parse_good(GATEWAY SERVICE);
	struct dataplane_config d = {.max_frame = 1514};

	config_to_dataplane(c, 3, &d);
	assert_int_equal(d.n_workers, 1);
	assert_int_equal(d.cpus[0], 0);
	assert_int_equal(d.flows_v4, 10000);
	assert_int_equal(d.flows_v6, 1250);
	assert_int_equal(d.n_routes, 100000);
	assert_int_equal(d.n_snat, 2);
	assert_true(ipaddr_equal(&d.snat[1], &c->snat[1]));
	assert_true(d.n_mbufs >= 3 * 4096);
	assert_true(d.n_service_slots >= 2 && d.n_backend_slots >= 2);
	assert_int_equal(d.max_frame, 1514);
	c->packets = 5000;
	config_to_dataplane(c, 3, &d);
	assert_int_equal(d.n_mbufs, 5000);
	config_free(c);
}

static void test_same_gateway(void **state)
{
	static const struct {
		const char *text;
		bool same;
	} cases[] = {
		{GATEWAY SERVICE, true},
		{GATEWAY "  api: {socket: \"/run/spillway/api.sock\"}\n  routes: 100000\n" SERVICE, true},
		{GATEWAY "cures: {}\n" SERVICE "    idle: {udp: 10s}\n", true},
		{GATEWAY "  routes: 100001\n" SERVICE, false},
		{GATEWAY "  api: {socket: off}\n" SERVICE, false},
		{GATEWAY "  on_hang: drop\n  on_death: pass\n" SERVICE, false},
		{GATEWAY "  api: {socket: /run/s}\n" SERVICE, false},
		{GATEWAY "dns: {stale: 1h}\n" SERVICE, false},
		{GATEWAY "dns: {servers: [198.18.3.53]}\n" SERVICE, false},
		{"gateway:\n  flows: 10000\n  workers: [0]\n  ports: [{name: wan, device: eth2}]\n"
		 "  snat: [198.18.101.10, \"2001:db8:101::10\"]\n" SERVICE,
		 false},
		{"gateway:\n  flows: 10000\n  workers: [0]\n  ports: [{name: wan, device: eth1}]\n"
		 "  snat: [198.18.101.10]\n" SERVICE,
		 false},
	};
	struct config *first = parse_good(cases[0].text);

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *c = parse_good(cases[i].text);

		if (config_same_gateway(first, c) != cases[i].same || config_same_gateway(c, first) != cases[i].same)
			fail_msg("case %zu", i);
		config_free(c);
	}
	config_free(first);
}

/* --- every error, each where it stands --- */

static void test_all_errors_are_reported(void **state)
{
	struct messages m;
	struct config *c = parse("gateway:\n"
				 "  wokers: [0]\n"
				 "  flows: many\n"
				 "  ports: []\n"
				 "services:\n"
				 "  - name: shop\n"
				 "    idle: {udp: 30}\n"
				 "    backends: [{address: 198.18.3.0/24, port: 0}]\n",
				 &m);

	assert_null(c);
	assert_int_equal(errno, EINVAL);
	assert_non_null(strstr(m.text, "t.yaml:2:3: gateway.wokers: unknown key, did you mean workers?\n"));
	assert_non_null(strstr(m.text, "t.yaml:3:10: gateway.flows: expected a whole number from 1024 to 64000000, "
				       "found 'many'\n"));
	assert_non_null(strstr(m.text, "t.yaml:4:10: gateway.ports: expected a list of 1 to 16 items, found 0\n"));
	assert_non_null(strstr(m.text, "t.yaml:6:5: services[0].listen: missing"));
	assert_non_null(strstr(m.text, "t.yaml:7:17: services[0].idle.udp: expected a duration such as 30s, 2h4m "
				       "or 900ms from 1s to 1d, or auto, found '30': the unit is missing"));
	assert_non_null(strstr(m.text, "t.yaml:8:26: services[0].backends[0].address: "));
	assert_non_null(strstr(m.text, "t.yaml:8:47: services[0].backends[0].port: "));
	assert_int_equal(m.n, 7);
	messages_fini(&m);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The file must be refused with the expected place, key and text in one message, and every message must name a place.
 */
static bool check_broken(const char *path)
{
	struct messages m;
	struct config *c;
	char *text = read_text(path), *line, *save, where[1024], key[128], substring[256];
	unsigned at_line, at_column;
	bool found = false;

	if (sscanf(text, "# expect: %u:%u %127s %255[^\n]", &at_line, &at_column, key, substring) != 4)
		fail_msg("%s: its first line does not say what to expect", path);
	free(text);
	snprintf(where, sizeof(where), "%s:%u:%u: %s: ", path, at_line, at_column, key);
	messages_init(&m);
	c = config_load(path, collect, &m);
	assert_true(c != NULL || errno == EINVAL);
	text = strdup(c ? "" : m.text);
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		found |= strncmp(line, where, strlen(where)) == 0 && strstr(line + strlen(where), substring);
	if (!found)
		print_error("wanted: %s...%s\ngot:    %s\n", where, substring, c ? "accepted" : m.text);
	free(text);
	messages_fini(&m);
	config_free(c);
	return found;
}

static void test_broken_files(void **state)
{
	const char *dir = SOURCE_ROOT "/tests/unit/broken";
	char *names[256], path[512];
	unsigned n = 0, wrong = 0;
	struct dirent *entry;
	DIR *d = opendir(dir);

	if (!d)
		fail_msg("%s: %s", dir, strerror(errno));
	while ((entry = readdir(d)) && n < 256)
		if (strstr(entry->d_name, ".yaml"))
			names[n++] = strdup(entry->d_name);
	closedir(d);
	qsort(names, n, sizeof(*names), by_name);
	for (unsigned i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		wrong += !check_broken(path);
		free(names[i]);
	}
	print_message("%u broken files\n", n);
	assert_true(n >= 30);
	assert_int_equal(wrong, 0);
}

static void test_units_are_asked_for(void **state)
{
	expect_message(GATEWAY SERVICE "    storm: {rate: 5000}\n", "found '5000': the unit is missing: per second");
	expect_message(GATEWAY SERVICE "    breaker: {ratio: 50}\n", "found '50': the unit is missing: a share");
	expect_message(GATEWAY "  memory: 512\n" SERVICE, "found '512': the unit is missing: K, M, G or T");
	expect_message(GATEWAY SERVICE "    drain: 1h30\n", "found '1h30': the unit is missing");
	expect_message(GATEWAY SERVICE "    drain: 30m1h\n", "expected a duration");
	expect_message(GATEWAY SERVICE "    drain: 1.5s\n", "expected a duration");
	expect_message(GATEWAY SERVICE "    drain: -1s\n", "expected a duration");
	expect_message(GATEWAY SERVICE "    drain: 99999999999999999999s\n", "expected a duration");
	expect_message(GATEWAY SERVICE "    drain: 99999999999999d\n", "expected a duration");
	expect_message(GATEWAY SERVICE "    storm: {retry_budget: 100.0001%}\n", "expected a share");
	expect_message(GATEWAY SERVICE "    storm: {rate: 0/s}\n", "expected a rate");
}

static void test_hostnames(void **state)
{
	static const char *const good[] = {"a", "A.b-c.d", "1.example", "xn--bcher-kva.test", "3com.test.", "a1.2b"};
	static const char *const bad[] = {"-a.test",     "a-.test",      "a..b",      ".a",
					  "a_b.test",    "198.18.3.21",  "1.2.3.4.5", "a b",
					  "2001:db8::1", "b\\u00fccher", "."};
	char text[1024], label[65];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		snprintf(text, sizeof(text),
			 GATEWAY "services: [{name: a, listen: [\"198.18.100.1:80/tcp\"], backends: [{dns: \"%s\", "
				 "port: 1}]}]\n",
			 good[i]);
		config_free(parse_good(text));
	}
	memset(label, 'a', 64);
	label[64] = '\0';
	for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text),
			 GATEWAY "services: [{name: a, listen: [\"198.18.100.1:80/tcp\"], backends: [{dns: \"%s\", "
				 "port: 1}]}]\n",
			 i < sizeof(bad) / sizeof(bad[0]) ? bad[i] : label);
		expect_message(text, "services[0].backends[0].dns: expected a host name");
	}
}

static void test_bytes_that_are_no_text(void **state)
{
	static const char nul[] = "gateway:\n  fl\0ws: 1\n";
	struct messages m;

	messages_init(&m);
	assert_null(config_parse("t.yaml", nul, sizeof(nul) - 1, collect, &m));
	assert_non_null(strstr(m.text, "t.yaml:2:5: yaml: expected UTF-8 text"));
	messages_fini(&m);
	messages_init(&m);
	assert_null(config_parse("t.yaml", NULL, 0, collect, &m));
	assert_non_null(strstr(m.text, "t.yaml:1:1: yaml: expected the keys"));
	messages_fini(&m);
}

static void test_unreadable_file(void **state)
{
	struct messages m;

	messages_init(&m);
	assert_null(config_load("/nonexistent/gw.yaml", collect, &m));
	assert_int_equal(errno, ENOENT);
	assert_non_null(strstr(m.text, "/nonexistent/gw.yaml: cannot be read: No such file"));
	assert_null(config_load("/", collect, &m));
	assert_int_equal(errno, EISDIR);
	messages_fini(&m);
}

/* --- bounds --- */

static void test_bounds(void **state)
{
	size_t len = CONFIG_MAX_FILE_BYTES + 1;
	char *text = malloc(len + 1);
	struct messages m;

	assert_non_null(text);
	memset(text, '[', len);
	messages_init(&m);
	assert_null(config_parse("t.yaml", text, len, collect, &m));
	assert_int_equal(errno, EFBIG);
	assert_int_equal(m.n, 1);
	/* As deep as a file can be, */
	assert_null(config_parse("t.yaml", text, len - 1, collect, &m));
	assert_int_equal(m.n, 2);
	/* and with as many values. */
	for (size_t i = 0; i < len; i++)
		text[i] = "-\n"[i % 2];
	assert_null(config_parse("t.yaml", text, len - 1, collect, &m));
	assert_int_equal(m.n, 3);
	assert_non_null(strstr(m.text, "t.yaml:1:17: yaml: expected at most 16 levels"));
	assert_non_null(strstr(m.text, "yaml: expected at most 1000000 values"));
	messages_fini(&m);
	free(text);
}

static void test_messages_are_bounded(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);
	struct messages m;

	fputs("gateway:\n", stream);
	for (unsigned i = 0; i < 5000; i++)
		fprintf(stream, "  key%u: 1\n", i);
	fclose(stream);
	assert_null(parse(text, &m));
	assert_int_equal(m.n, 501);
	assert_non_null(strstr(m.text, "t.yaml: and 4502 more errors"));
	messages_fini(&m);
	free(text);
}

/* An error behind a thousand warnings is said all the same. */
static void test_warnings_hide_no_error(void **state)
{
	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);
	struct messages m;

	fputs(GATEWAY "services:\n", stream);
	for (unsigned i = 0; i < 1000; i++)
		fprintf(stream,
			"  - {name: s%u, listen: [\"198.18.100.1:%u/tcp\"], path: {blackhole: on},\n"
			"     backends: [{address: 198.18.3.21, port: %u}]}\n",
			i, 1000 + i, i == 999 ? 0 : 80);
	fclose(stream);
	assert_null(parse(text, &m));
	assert_int_equal(m.n, 102);
	assert_non_null(strstr(m.text, "t.yaml:2006:46: services[999].backends[0].port: expected a port"));
	assert_non_null(strstr(m.text, "t.yaml: and 900 more warnings"));
	messages_fini(&m);
	free(text);
}

static char *many_services(unsigned n_services, unsigned n_backends)
{
	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);

	assert_non_null(stream);
	fputs(GATEWAY "services:\n", stream);
	for (unsigned i = 0; i < n_services; i++) {
		fprintf(stream, "  - name: s%u\n    listen: [\"198.18.%u.%u:80/tcp\"]\n    backends:\n", i, i >> 8,
			i & 255);
		for (unsigned j = 0; j < n_backends; j++)
			fprintf(stream, "      - {address: 198.19.%u.%u, port: %u, weight: 2}\n", j >> 8, j & 255,
				8000 + i);
	}
	fclose(stream);
	return text;
}

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void test_thousand_services_are_quick(void **state)
{
	char *text = many_services(1000, 16);
	double before = cpu_ms(), took;
	struct config *c = parse_good(text);

	took = cpu_ms() - before;
	print_message("1000 services x 16 backends, %zu bytes: %.1f ms of CPU\n", strlen(text), took);
	assert_int_equal(c->n_services, 1000);
	assert_int_equal(c->services[999].n_backends, 16);
	assert_true(took < 200 * SLOWER);
	config_free(c);
	free(text);
}

static char *many_listeners(unsigned n_services)
{
	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);

	assert_non_null(stream);
	fputs(GATEWAY "services:\n", stream);
	for (unsigned i = 0; i < n_services; i++) {
		fprintf(stream, "  - name: s%u\n" BACKENDS "    listen: [", i);
		for (unsigned j = 0; j < CONFIG_MAX_LISTEN; j++)
			fprintf(stream, "\"198.18.%u.%u:%u/tcp\",", i >> 8, i & 255, 1000 + j);
		fputs("]\n", stream);
	}
	fclose(stream);
	return text;
}

static char *many_names(unsigned n_services, unsigned n_zones)
{
	char *text = NULL;
	size_t len;
	FILE *stream = open_memstream(&text, &len);

	assert_non_null(stream);
	fputs(GATEWAY "services:\n", stream);
	for (unsigned i = 0; i < n_services; i++) {
		fprintf(stream, "  - name: s%u\n    listen: [\"198.18.100.1:%u/tcp\"]\n    backends:\n", i, 1000 + i);
		for (unsigned j = 0; j < CONFIG_MAX_BACKENDS; j++)
			fprintf(stream, "      - {dns: n%u.s%u.test, port: 80}\n", j, i % n_zones);
	}
	fclose(stream);
	return text;
}

static void test_too_many(void **state)
{
	char *text = many_services(4097, 1);

	expect_message(text, "t.yaml:7:3: services: expected a list of 1 to 4096 items, found 4097");
	free(text);
	text = many_services(1, 1025);
	expect_message(text, "services[0].backends: expected a list of 1 to 1024 items, found 1025");
	free(text);
	text = many_services(65, 1024);
	expect_message(text, "services[64].backends: expected at most 65536 backends in all services");
	free(text);
	text = many_listeners(257);
	expect_message(text, "services[256].listen: expected at most 16384 listeners in all services");
	free(text);
	text = many_names(5, 5);
	expect_message(text, "services: expected at most 4096 different DNS names, found 5120");
	free(text);
	/* The same names again are no more names. */
	text = many_names(5, 4);
	config_free(parse_good(text));
	free(text);
}

/* --- printing --- */

static void check_round_trip(const char *path)
{
	struct messages m;
	struct config *a, *b;
	char *text_a, *text_b;

	messages_init(&m);
	a = config_load(path, collect, &m);
	if (!a)
		fail_msg("%s", m.text);
	text_a = print_to_text(a);
	b = config_parse("printed", text_a, strlen(text_a), collect, &m);
	if (!b)
		fail_msg("%s%s", text_a, m.text);
	text_b = print_to_text(b);
	assert_string_equal(text_a, text_b);
	/* Nothing is lost on the way but the positions. */
	assert_int_equal(a->n_services, b->n_services);
	for (size_t i = 0; i < a->n_services; i++) {
		a->services[i].line = b->services[i].line;
		a->services[i].column = b->services[i].column;
		assert_int_equal(a->services[i].n_backends, b->services[i].n_backends);
		for (size_t j = 0; j < a->services[i].n_backends; j++) {
			struct config_backend *x = &a->services[i].backends[j], *y = &b->services[i].backends[j];

			x->line = y->line;
			x->column = y->column;
			assert_memory_equal(x, y, sizeof(*x));
		}
		for (size_t j = 0; j < a->services[i].n_listen; j++)
			assert_true(ipaddr_equal(&a->services[i].listen[j].addr, &b->services[i].listen[j].addr));
		free(a->services[i].listen);
		free(a->services[i].backends);
		a->services[i].listen = b->services[i].listen;
		a->services[i].backends = b->services[i].backends;
		assert_memory_equal(&a->services[i], &b->services[i], sizeof(a->services[i]));
	}
	free(a->services);
	a->services = b->services;
	assert_memory_equal(a, b, sizeof(*a));
	config_free(a);
	free(b);
	free(text_a);
	free(text_b);
	messages_fini(&m);
}

static void test_examples_load(void **state)
{
	check_round_trip(SOURCE_ROOT "/config/minimal.yaml");
	check_round_trip(SOURCE_ROOT "/config/appliance.yaml");
	check_round_trip(SOURCE_ROOT "/config/full.yaml");
}

/* Defaults that the memory plan refuses would be a contradiction of our own. */
static void check_memory(const char *path)
{
	struct dataplane_config d = {.max_frame = 1514};
	struct messages m;
	struct config *c;
	uint32_t pairs;

	messages_init(&m);
	c = config_load(path, collect, &m);
	assert_non_null(c);
	config_to_dataplane(c, 4, &d);
	pairs = d.n_snat_pairs;
	assert_int_equal(memory_plan_check(c, &d, 4, stdout), 0);
	assert_int_equal(d.n_snat_pairs, pairs);
	config_free(c);
	messages_fini(&m);
}

static void test_examples_fit_their_memory(void **state)
{
	check_memory(SOURCE_ROOT "/config/minimal.yaml");
	check_memory(SOURCE_ROOT "/config/appliance.yaml");
	check_memory(SOURCE_ROOT "/config/full.yaml");
}

static void test_full_example_is_the_schema(void **state)
{
	char *file = read_text(SOURCE_ROOT "/config/full.yaml"), *printed = print_to_text(NULL);

	if (strcmp(file, printed) != 0)
		fail_msg("config/full.yaml is not what the schema says: spillway --example > config/full.yaml");
	for (char *line = strtok(printed, "\n"); line; line = strtok(NULL, "\n"))
		assert_in_range(strlen(line), 0, 120);
	free(file);
	free(printed);
}

/* Each default must parse as a value of its own key, or a key would silently begin at 0. */
static void check_schema(const struct config_map *map)
{
	uint64_t field[64];
	char text[CONFIG_TEXT_MAX];
	const char *hint;

	assert_in_range(map->n_keys, 1, 32);
	for (size_t i = 0; i < map->n_keys; i++) {
		const struct config_key *key = &map->keys[i];

		assert_non_null(key->help);
		if (key->map)
			check_schema(key->map);
		if (key->list && key->list->item.map)
			check_schema(key->list->item.map);
		if (key->map || key->list)
			continue;
		assert_in_range(key->size, 1, sizeof(field));
		config_value_describe(key, text);
		assert_true(strlen(text) > 5);
		assert_true((key->flags & (KEY_REQUIRED | KEY_ONE_OF)) || key->fallback);
		if (!key->fallback)
			continue;
		memset(field, 0xa5, sizeof(field));
		assert_int_equal(config_value_parse(key, key->fallback, field, &hint), 0);
		config_value_format(key, field, text);
		assert_int_equal(config_value_parse(key, text, field, &hint), 0);
	}
}

static void test_schema_is_sound(void **state)
{
	check_schema(&config_root);
}

static void test_cpus(void **state)
{
	assert_true(config_cpu_online(0));
	assert_false(config_cpu_online(1023));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values_and_positions),
		cmocka_unit_test(test_backend_rate),
		cmocka_unit_test(test_hard_max),
		cmocka_unit_test(test_without_effect_is_warned),
		cmocka_unit_test(test_single_keys_without_effect_are_warned),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_too_few_snat_ports_are_warned),
		cmocka_unit_test(test_to_dataplane),
		cmocka_unit_test(test_same_gateway),
		cmocka_unit_test(test_all_errors_are_reported),
		cmocka_unit_test(test_broken_files),
		cmocka_unit_test(test_units_are_asked_for),
		cmocka_unit_test(test_hostnames),
		cmocka_unit_test(test_bytes_that_are_no_text),
		cmocka_unit_test(test_unreadable_file),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_messages_are_bounded),
		cmocka_unit_test(test_warnings_hide_no_error),
		cmocka_unit_test(test_thousand_services_are_quick),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_examples_load),
		cmocka_unit_test(test_examples_fit_their_memory),
		cmocka_unit_test(test_full_example_is_the_schema),
		cmocka_unit_test(test_schema_is_sound),
		cmocka_unit_test(test_cpus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
