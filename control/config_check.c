/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What no key can tell alone. Each check is a function; a value that could not be read is still zero and is left out,
 * so that one mistake gives one message.
 */
#include "config_schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of a rate, in one burst: a bucket that takes longer to fill is none. */
#define BURST_MAX_S 3600

struct path {
	char text[96];
};

__attribute__((format(printf, 1, 2))) static struct path path_of(const char *format, ...)
{
	struct path path;
	va_list args;

	va_start(args, format);
	vsnprintf(path.text, sizeof(path.text), format, args);
	va_end(args);
	return path;
}

#define complain(r, path, ...) config_error_at(r, config_locate(r, (path).text), (path).text, __VA_ARGS__)
#define warn(r, path, ...)     config_warning_at(r, config_locate(r, (path).text), (path).text, __VA_ARGS__)

static bool is_set(const struct ipaddr *addr)
{
	return addr->q_be[0] || addr->q_be[1];
}

/* --- values that follow from others --- */

bool config_cpu_online(unsigned cpu)
{
	FILE *f = fopen("/sys/devices/system/cpu/online", "re"); /* "0-3,5" */
	unsigned first, last;
	bool found = false;
	char between;

	if (!f)
		return (long)cpu < sysconf(_SC_NPROCESSORS_ONLN);
	while (!found && fscanf(f, "%u", &first) == 1) {
		last = first;
		between = fgetc(f);
		if (between == '-') {
			if (fscanf(f, "%u", &last) != 1)
				break;
			between = fgetc(f);
		}
		found = cpu >= first && cpu <= last;
		if (between != ',')
			break;
	}
	fclose(f);
	return found;
}

static void derive_port(struct config_port *port)
{
	/* A colon stands in every PCI address and vdev, and in no name of a netdev. */
	port->kind = strchr(port->device, ':') ? PORT_ETH : PORT_XSK;
}

void config_derive(struct config *config)
{
	if (config->n_workers == 0) {
		config->workers[0] = config_cpu_online(1) ? 1 : 0;
		config->n_workers = 1;
	}
	if (config->flows_ipv6 == 0)
		config->flows_ipv6 = config->flows / 8 < 1024 ? 1024 : config->flows / 8;
	for (unsigned i = 0; i < config->n_ports; i++)
		derive_port(&config->ports[i]);
	for (size_t i = 0; i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_backends; j++) {
			struct config_backend *b = &config->services[i].backends[j];

			b->kind = b->name[0] ? BACKEND_DNS : BACKEND_ADDRESS;
		}
}

/* --- the gateway --- */

static void check_workers(struct config_reader *r, const struct config *config)
{
	for (unsigned i = 0; i < config->n_workers; i++) {
		unsigned first = 0;

		while (config->workers[first] != config->workers[i])
			first++;
		if (config->workers[i] < 0)
			continue;
		if (first < i)
			complain(r, path_of("gateway.workers[%u]", i),
				 "expected another CPU, %d is workers[%u] already", config->workers[i], first);
		else if (!config_cpu_online(config->workers[i]))
			complain(r, path_of("gateway.workers[%u]", i),
				 "expected a CPU of this machine, %d is not online", config->workers[i]);
	}
}

static void check_port(struct config_reader *r, const struct config *config, unsigned i)
{
	const struct config_port *port = &config->ports[i];

	for (unsigned j = 0; j < i; j++) {
		const struct config_port *other = &config->ports[j];

		if (port->name[0] && strcmp(port->name, other->name) == 0)
			complain(r, path_of("gateway.ports[%u].name", i),
				 "expected another name, ports[%u] is %s already", j, port->name);
		if (port->device[0] && strcasecmp(port->device, other->device) == 0)
			complain(r, path_of("gateway.ports[%u].device", i),
				 "expected another device, ports[%u] is %s already", j, port->device);
	}
	if (port->device[0] == '\0' || port->kind == PORT_XSK)
		return;
	if (port->force_copy)
		complain(r, path_of("gateway.ports[%u].force_copy", i), "expected only with a netdev: DPDK drives %s",
			 port->device);
	if (port->skb_mode)
		complain(r, path_of("gateway.ports[%u].skb_mode", i), "expected only with a netdev: DPDK drives %s",
			 port->device);
}

static void check_gateway(struct config_reader *r, const struct config *config)
{
	check_workers(r, config);
	for (unsigned i = 0; i < config->n_ports; i++)
		check_port(r, config, i);
	for (unsigned i = 0; i < config->n_snat; i++)
		for (unsigned j = 0; j < i; j++)
			if (is_set(&config->snat[i]) && ipaddr_equal(&config->snat[i], &config->snat[j])) {
				complain(r, path_of("gateway.snat[%u]", i),
					 "expected another address, this is snat[%u]", j);
				break;
			}
	if (port_range_size(config->snat_ports) < config->n_workers)
		complain(
			r, path_of("gateway.snat_ports"),
			"expected at least %u ports, one for each worker, found %u: give more ports, or list fewer workers",
			config->n_workers, port_range_size(config->snat_ports));
	if (config->on_hang == ON_FAIL_PASS && config->on_death == ON_FAIL_DROP)
		complain(r, path_of("gateway.on_hang"),
			 "expected drop, as on_death is: the host would drop what a hung gateway passes to it");
	if (config->api_socket[0] == '\0' && config->api_http[0] == '\0')
		warn(r, path_of("gateway.api"), "both are off: nobody can ask this gateway anything");
}

static void check_dns(struct config_reader *r, const struct config *config)
{
	if (config->dns_min_ttl_ns > config->dns_max_ttl_ns)
		complain(r, path_of("dns.min_ttl"), "expected at most max_ttl");
	for (unsigned i = 0; i < config->n_dns_servers; i++)
		for (unsigned j = 0; j < i; j++)
			if (config->dns_servers[i][0] && strcmp(config->dns_servers[i], config->dns_servers[j]) == 0) {
				complain(r, path_of("dns.servers[%u]", i),
					 "expected another server, this is servers[%u]", j);
				break;
			}
}

/* --- services: sorted lists, for there may be a quarter of a million listeners --- */

struct listener_at {
	const struct config_listen *listen;
	unsigned service, index;
};

static int by_listen(const void *a, const void *b)
{
	const struct listener_at *x = a, *y = b;
	int order = memcmp(x->listen->addr.b, y->listen->addr.b, sizeof(x->listen->addr.b));

	if (!order)
		order = (int)x->listen->port_be - (int)y->listen->port_be;
	return order ? order : (int)x->listen->proto - (int)y->listen->proto;
}

/* Equal ones in the order of the file, so that the later one is the duplicate. */
static int by_listen_and_place(const void *a, const void *b)
{
	const struct listener_at *x = a, *y = b;
	int order = by_listen(a, b);

	if (!order)
		order = (x->service > y->service) - (x->service < y->service);
	return order ? order : (x->index > y->index) - (x->index < y->index);
}

struct listeners {
	struct listener_at *at;
	size_t n;
};

static int collect_listeners(const struct config *config, struct listeners *out)
{
	size_t n = 0;

	for (size_t i = 0; i < config->n_services; i++)
		n += config->services[i].n_listen;
	out->n = 0;
	out->at = calloc(n ? n : 1, sizeof(*out->at));
	if (!out->at)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_listen; j++)
			if (config->services[i].listen[j].proto)
				out->at[out->n++] = (struct listener_at){&config->services[i].listen[j], i, j};
	qsort(out->at, out->n, sizeof(*out->at), by_listen_and_place);
	return 0;
}

static struct path path_of_listener(const struct listener_at *at)
{
	return path_of("services[%u].listen[%u]", at->service, at->index);
}

static void check_listeners(struct config_reader *r, const struct config *config, const struct listeners *listeners)
{
	for (size_t i = 0; i < listeners->n; i++) {
		const struct listener_at *at = &listeners->at[i], *before = i ? at - 1 : NULL;

		if (before && by_listen(before, at) == 0)
			complain(r, path_of_listener(at), "expected another listener, this is %s",
				 path_of_listener(before).text);
		for (unsigned j = 0; j < config->n_snat; j++)
			if (ipaddr_equal(&at->listen->addr, &config->snat[j]))
				complain(r, path_of_listener(at),
					 "expected another address than gateway.snat[%u], which is for flows to the "
					 "upstreams alone",
					 j);
	}
}

struct name_at {
	const char *name;
	unsigned service;
};

static int by_name(const void *a, const void *b)
{
	const struct name_at *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->service > y->service) - (x->service < y->service);
}

static int check_names(struct config_reader *r, const struct config *config)
{
	struct name_at *names = calloc(config->n_services + 1, sizeof(*names));

	if (!names)
		return -ENOMEM;
	for (size_t i = 0; i < config->n_services; i++)
		names[i] = (struct name_at){config->services[i].name, i};
	qsort(names, config->n_services, sizeof(*names), by_name);
	for (size_t i = 1; i < config->n_services; i++)
		if (names[i].name[0] && strcmp(names[i].name, names[i - 1].name) == 0)
			complain(r, path_of("services[%u].name", names[i].service),
				 "expected another name, services[%u] is %s already", names[i - 1].service,
				 names[i].name);
	free(names);
	return 0;
}

/* --- one service --- */

static int by_backend(const void *a, const void *b)
{
	const struct config_backend *x = *(const struct config_backend *const *)a;
	const struct config_backend *y = *(const struct config_backend *const *)b;
	int order = strcmp(x->name, y->name);

	if (!order)
		order = memcmp(x->addr.b, y->addr.b, sizeof(x->addr.b));
	return order ? order : (int)x->port_be - (int)y->port_be;
}

static int by_backend_and_place(const void *a, const void *b)
{
	const struct config_backend *x = *(const struct config_backend *const *)a;
	const struct config_backend *y = *(const struct config_backend *const *)b;
	int order = by_backend(a, b);

	return order ? order : (x > y) - (x < y);
}

static bool is_read(const struct config_backend *b)
{
	return (b->name[0] || is_set(&b->addr)) && b->port_be;
}

static int check_duplicate_backends(struct config_reader *r, const struct config_service *s, unsigned service)
{
	const struct config_backend **sorted = calloc(s->n_backends + 1, sizeof(const struct config_backend *));

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < s->n_backends; i++)
		sorted[i] = &s->backends[i];
	qsort(sorted, s->n_backends, sizeof(*sorted), by_backend_and_place);
	for (size_t i = 1; i < s->n_backends; i++)
		if (is_read(sorted[i]) && by_backend(&sorted[i - 1], &sorted[i]) == 0)
			complain(r, path_of("services[%u].backends[%td]", service, sorted[i] - s->backends),
				 "expected another backend, this is backends[%td]: use weight to give it more",
				 sorted[i - 1] - s->backends);
	free(sorted);
	return 0;
}

/* A backend that leads back into the gateway. */
static void check_loops(struct config_reader *r, const struct config *config, unsigned service,
			const struct listeners *listeners)
{
	const struct config_service *s = &config->services[service];

	for (size_t i = 0; i < s->n_backends; i++) {
		const struct config_backend *b = &s->backends[i];
		struct config_listen listen = {.addr = b->addr, .port_be = b->port_be};

		if (!is_set(&b->addr) || b->name[0])
			continue;
		for (unsigned j = 0; j < config->n_snat; j++)
			if (ipaddr_equal(&b->addr, &config->snat[j]))
				complain(r, path_of("services[%u].backends[%zu].address", service, i),
					 "expected an upstream, this is gateway.snat[%u]", j);
		for (size_t j = 0; j < s->n_listen; j++) {
			struct listener_at key = {.listen = &listen};
			const struct listener_at *found;

			listen.proto = s->listen[j].proto;
			found = bsearch(&key, listeners->at, listeners->n, sizeof(key), by_listen);
			if (found) {
				complain(r, path_of("services[%u].backends[%zu].address", service, i),
					 "expected an upstream, this is the gateway's own %s",
					 path_of_listener(found).text);
				break;
			}
		}
	}
}

struct families {
	bool v4, v6;
};

static void add_family(struct families *f, const struct ipaddr *addr)
{
	if (ipaddr_is_v4(addr))
		f->v4 = true;
	else
		f->v6 = true;
}

/* The families that new flows of this service can go to; both if any backend could not be read. */
static struct families backend_families(const struct config_service *s)
{
	struct families f = {0};

	for (size_t i = 0; i < s->n_backends; i++) {
		if (!is_set(&s->backends[i].addr) || s->backends[i].name[0])
			return (struct families){true, true};
		add_family(&f, &s->backends[i].addr);
	}
	return s->n_backends ? f : (struct families){true, true};
}

/* There is no translation between families: a listener needs a backend and a SNAT address of its own. */
static void check_families(struct config_reader *r, const struct config *config, unsigned service, struct families snat)
{
	const struct config_service *s = &config->services[service];
	struct families backends = backend_families(s);

	for (size_t i = 0; i < s->n_listen; i++) {
		bool v4 = ipaddr_is_v4(&s->listen[i].addr);
		const char *family = v4 ? "IPv4" : "IPv6";
		struct path path = path_of("services[%u].listen[%zu]", service, i);

		if (!s->listen[i].proto)
			continue;
		if (v4 ? !backends.v4 : !backends.v6)
			complain(r, path,
				 "expected a backend of the same family: this service has none with an %s address",
				 family);
		if (s->source == SOURCE_SNAT && (v4 ? !snat.v4 : !snat.v6))
			complain(r, path, "expected a SNAT address of the same family: gateway.snat has no %s address",
				 family);
	}
}

static struct families snat_families(const struct config *config)
{
	struct families f = {0};

	for (unsigned i = 0; i < config->n_snat; i++) {
		/* One that could not be read may be of either family. */
		if (!is_set(&config->snat[i]))
			return (struct families){true, true};
		add_family(&f, &config->snat[i]);
	}
	return f;
}

static void check_burst(struct config_reader *r, unsigned service, const char *key, uint64_t burst, uint64_t rate_per_s)
{
	struct path path = path_of("services[%u].storm.%s", service, key);

	if (burst && !rate_per_s)
		warn(r, path, "no effect: there is no such rate");
	else if (burst > rate_per_s * BURST_MAX_S)
		complain(r, path, "expected at most what the rate gives in an hour, %ju",
			 (uintmax_t)rate_per_s * BURST_MAX_S);
}

static void check_storm(struct config_reader *r, const struct config_service *s, unsigned service)
{
	if (s->storm_hold_ns > s->storm_client_timeout_ns)
		complain(r, path_of("services[%u].storm.hold", service),
			 "expected at most client_timeout: the client would be gone");
	check_burst(r, service, "burst", s->storm_burst, s->storm_rate_per_s);
	check_burst(r, service, "client_burst", s->storm_client_burst, s->storm_client_rate_per_s);
	check_burst(r, service, "prefix_burst", s->storm_prefix_burst, s->storm_prefix_rate_per_s);
	check_burst(r, service, "backend_burst", s->storm_backend_burst, s->storm_backend_rate_per_s);
}

/* A path as it stands in a request. */
static bool is_request_path(const char *path)
{
	for (; *path; path++)
		if (*path <= ' ' || *path >= 0x7f || *path == '#')
			return false;
	return true;
}

static void check_checks(struct config_reader *r, const struct config_service *s, unsigned service)
{
	if (!is_request_path(s->check_http))
		complain(r, path_of("services[%u].check.http", service),
			 "expected a path of printable ASCII without spaces and '#'");
	if (s->check_timeout_ns > s->check_every_ns)
		complain(r, path_of("services[%u].check.timeout", service), "expected at most `every`");
}

static void check_service(struct config_reader *r, const struct config *config, unsigned service,
			  const struct listeners *listeners, struct families snat)
{
	const struct config_service *s = &config->services[service];

	if (s->source == SOURCE_CLIENT)
		complain(r, path_of("services[%u].source", service), "expected snat: client is not supported yet");
	if (s->idle_probe_ns >= s->idle_tcp_ns && s->idle_tcp_ns)
		complain(r, path_of("services[%u].idle.probe", service),
			 "expected less than idle.tcp: the connection would end before its probe");
	check_storm(r, s, service);
	check_checks(r, s, service);
	check_families(r, config, service, snat);
	check_loops(r, config, service, listeners);
	if (check_duplicate_backends(r, s, service) < 0)
		complain(r, path_of("services[%u]", service), "out of memory");
}

/* --- all together --- */

static void check_in_all(struct config_reader *r, const struct config *config)
{
	size_t n_backends = 0, n_listen = 0;

	for (size_t i = 0; i < config->n_services; i++) {
		size_t backends_before = n_backends, listen_before = n_listen;

		n_backends += config->services[i].n_backends;
		n_listen += config->services[i].n_listen;
		if (n_backends > CONFIG_MAX_BACKENDS_IN_ALL && backends_before <= CONFIG_MAX_BACKENDS_IN_ALL)
			complain(r, path_of("services[%zu].backends", i),
				 "expected at most %u backends in all services", CONFIG_MAX_BACKENDS_IN_ALL);
		if (n_listen > CONFIG_MAX_LISTEN_IN_ALL && listen_before <= CONFIG_MAX_LISTEN_IN_ALL)
			complain(r, path_of("services[%zu].listen", i), "expected at most %u listeners in all services",
				 CONFIG_MAX_LISTEN_IN_ALL);
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_names_in_all(struct config_reader *r, const struct config *config)
{
	size_t n = 0, n_different = 0;
	const char **names;

	for (size_t i = 0; i < config->n_services; i++)
		n += config->services[i].n_backends;
	names = calloc(n + 1, sizeof(*names));
	if (!names)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_backends; j++)
			if (config->services[i].backends[j].name[0])
				names[n++] = config->services[i].backends[j].name;
	qsort(names, n, sizeof(*names), by_text);
	for (size_t i = 0; i < n; i++)
		n_different += i == 0 || strcmp(names[i - 1], names[i]) != 0;
	free(names);
	if (n_different > CONFIG_MAX_NAMES)
		complain(r, path_of("services"), "expected at most %u different DNS names, found %zu", CONFIG_MAX_NAMES,
			 n_different);
	return 0;
}

/* Each SNAT address gives its ports once per backend. A name counts as one backend, so this is only a warning. */
static void check_snat_ports(struct config_reader *r, const struct config *config, bool v4, uint64_t flows,
			     const char *key)
{
	uint64_t n_backends = 0, n_snat = 0, n_ports = port_range_size(config->snat_ports);

	for (size_t i = 0; i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_backends; j++) {
			const struct config_backend *b = &config->services[i].backends[j];

			n_backends += b->kind == BACKEND_DNS || ipaddr_is_v4(&b->addr) == v4;
		}
	for (unsigned i = 0; i < config->n_snat; i++)
		n_snat += ipaddr_is_v4(&config->snat[i]) == v4;
	if (n_snat && n_backends && flows > n_ports * n_snat * n_backends)
		warn(r, path_of("%s", key), "more than SNAT has ports for: %ju addresses x %ju backends x %ju ports",
		     (uintmax_t)n_snat, (uintmax_t)n_backends, (uintmax_t)n_ports);
}

void config_check(struct config_reader *r, const struct config *config)
{
	struct families snat = snat_families(config);
	struct listeners listeners;

	check_gateway(r, config);
	check_dns(r, config);
	if (check_names(r, config) < 0 || check_names_in_all(r, config) < 0 ||
	    collect_listeners(config, &listeners) < 0) {
		config_error_at(r, (yaml_mark_t){0}, "services", "out of memory");
		return;
	}
	check_listeners(r, config, &listeners);
	for (size_t i = 0; i < config->n_services; i++)
		check_service(r, config, i, &listeners, snat);
	free(listeners.at);
	check_in_all(r, config);
	check_snat_ports(r, config, true, config->flows, "gateway.flows");
	check_snat_ports(r, config, false, config->flows_ipv6, "gateway.flows_ipv6");
}
