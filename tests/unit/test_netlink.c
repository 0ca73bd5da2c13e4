/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel mirror against the real kernel, in two network namespaces that die with the process:
 *
 *   gw:  eth1 198.18.1.1/24 2001:db8:1::1/64 ---- peer1 198.18.1.2/24 2001:db8:1::2/64
 *        eth2 198.18.2.1/24 2001:db8:2::1/64 ---- peer2 198.18.2.2/24 2001:db8:2::2/64   :peer
 *        eth3 (no port)                      ---- peer3
 *
 * Ports: wan (0) is eth1, lan (1) is eth2. The dataplane is a recorder: what it was told is compared with what
 * `ip route` shows.
 */
#include "../slower.h"
#include "netlink_mirror.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <sched.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WAIT_NS   30000000000ull
#define MAX_NEIGH 64

/* --- the recording dataplane --- */

struct told_neighbour {
	int port;
	struct ipaddr addr;
	enum neighbour_state state;
	uint8_t mac[6];
};

struct dataplane {
	void *routes; /* tsearch() tree of struct route_change by prefix */
	size_t n_routes, max_routes;
	uint64_t n_changes, n_removals, n_batches, longest_batch;
	struct told_neighbour neighbours[MAX_NEIGH];
	size_t n_neighbours;
	struct {
		uint8_t mac[6];
		bool up;
		uint32_t mtu;
	} ports[2];
};

static int by_prefix(const void *a, const void *b)
{
	const struct route_change *x = a, *y = b;
	int order = memcmp(&x->prefix, &y->prefix, sizeof(x->prefix));

	return order ? order : x->prefix_len - y->prefix_len;
}

static bool apply(struct dataplane *dp, const struct route_change *c)
{
	struct route_change **at = tfind(c, &dp->routes, by_prefix);

	if (c->remove) {
		struct route_change *old = at ? *at : NULL;

		dp->n_removals++;
		if (old) {
			tdelete(old, &dp->routes, by_prefix);
			free(old);
			dp->n_routes--;
		}
		/* Only what was told, or refused, may be taken back. */
		return old || dp->max_routes;
	}
	if (!at) {
		struct route_change *new = malloc(sizeof(*new));

		if (dp->max_routes && dp->n_routes == dp->max_routes) {
			free(new);
			return false;
		}
		*new = *c;
		tsearch(new, &dp->routes, by_prefix);
		dp->n_routes++;
		return true;
	}
	**at = *c;
	return true;
}

size_t dataplane_route_gateways(const struct dataplane *dp, struct neighbour_want *out, size_t max)
{
	return 0;
}

size_t dataplane_route_update(struct dataplane *dp, const struct route_change *changes, size_t n)
{
	size_t refused = 0;

	dp->n_batches++;
	dp->n_changes += n;
	if (n > dp->longest_batch)
		dp->longest_batch = n;
	for (size_t i = 0; i < n; i++)
		refused += !apply(dp, &changes[i]);
	if (!dp->max_routes)
		assert_int_equal(refused, 0);
	return refused;
}

static struct told_neighbour *neighbour_told(struct dataplane *dp, int port, const struct ipaddr *addr)
{
	for (size_t i = 0; i < dp->n_neighbours; i++)
		if (dp->neighbours[i].port == port && ipaddr_equal(&dp->neighbours[i].addr, addr))
			return &dp->neighbours[i];
	return NULL;
}

int dataplane_neighbour_update(struct dataplane *dp, int port, const struct ipaddr *addr, enum neighbour_state state,
			       const uint8_t mac[static 6])
{
	struct told_neighbour *n = neighbour_told(dp, port, addr);

	if (!n) {
		if (dp->n_neighbours == MAX_NEIGH)
			return -ENOSPC;
		n = &dp->neighbours[dp->n_neighbours++];
		*n = (struct told_neighbour){.port = port, .addr = *addr};
	}
	n->state = state;
	memcpy(n->mac, mac, sizeof(n->mac));
	if (state == NEIGHBOUR_GONE)
		*n = dp->neighbours[--dp->n_neighbours];
	return 0;
}

void dataplane_port_set_mac(struct dataplane *dp, int port, const uint8_t mac[static 6])
{
	memcpy(dp->ports[port].mac, mac, 6);
}

void dataplane_port_set_link(struct dataplane *dp, int port, bool up, uint32_t mtu)
{
	dp->ports[port].up = up;
	dp->ports[port].mtu = mtu;
}

/* --- the lab --- */

struct lab {
	int gw_fd, peer_fd; /* namespaces */
	struct event_base *base;
	struct event *pulse;
	struct dataplane dp;
	struct netlink *nl;
	unsigned n_link_changes;
	struct netlink_link links[2];
};

static void run(const char *fmt, ...)
{
	char command[512];
	va_list args;
	int status;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	status = system(command);
	if (status)
		fail_msg("`%s` ended with status %d", command, status);
}

static void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static void enter(int ns_fd)
{
	assert_int_equal(setns(ns_fd, CLONE_NEWNET), 0);
}

/* A new namespace, entered; without IPv6 duplicate address detection, which would take a second. */
static int namespace_new(void)
{
	int fd;

	assert_int_equal(unshare(CLONE_NEWNET), 0);
	fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	write_file("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
	write_file("/proc/sys/net/ipv6/conf/default/router_solicitations", "0");
	return fd;
}

static void link_make(const struct lab *lab, int i)
{
	run("ip link add eth%d type veth peer name peer%d netns /proc/%d/fd/%d", i, i, getpid(), lab->peer_fd);
	run("ip addr add 198.18.%d.1/24 dev eth%d && ip addr add 2001:db8:%d::1/64 dev eth%d && ip link set eth%d up",
	    i, i, i, i, i);
	enter(lab->peer_fd);
	run("ip addr add 198.18.%d.2/24 dev peer%d && ip addr add 2001:db8:%d::2/64 dev peer%d && ip link set peer%d up",
	    i, i, i, i, i);
	enter(lab->gw_fd);
}

static void on_pulse(evutil_socket_t fd, short what, void *arg)
{
}

static void on_link(void *arg, int port, const struct netlink_link *link)
{
	struct lab *lab = arg;

	lab->n_link_changes++;
	lab->links[port] = *link;
}

static void mirror_start(struct lab *lab)
{
	static const struct netlink_port ports[] = {{0, "eth1"}, {1, "eth2"}};

	lab->nl = netlink_create(lab->base, &lab->dp, ports, 2, on_link, lab);
	assert_non_null(lab->nl);
}

static int setup_without_mirror(void **state)
{
	struct lab *lab = calloc(1, sizeof(*lab));
	struct timeval pulse = {.tv_usec = 2000};

	lab->peer_fd = namespace_new();
	lab->gw_fd = namespace_new();
	run("ip link set lo up");
	for (int i = 1; i <= 3; i++)
		link_make(lab, i);
	lab->base = event_base_new();
	lab->pulse = event_new(lab->base, -1, EV_PERSIST, on_pulse, NULL);
	event_add(lab->pulse, &pulse);
	*state = lab;
	return 0;
}

static int setup(void **state)
{
	setup_without_mirror(state);
	mirror_start(*state);
	return 0;
}

static int teardown(void **state)
{
	struct lab *lab = *state;

	netlink_destroy(lab->nl);
	event_free(lab->pulse);
	event_base_free(lab->base);
	tdestroy(lab->dp.routes, free);
	close(lab->gw_fd);
	close(lab->peer_fd);
	free(lab);
	return 0;
}

/* Runs the loop until the condition holds. */
#define wait_until(lab, condition)                                                                                     \
	do {                                                                                                           \
		uint64_t end_ns = clock_monotonic_ns() + WAIT_NS;                                                      \
		while (!(condition)) {                                                                                 \
			if (clock_monotonic_ns() > end_ns)                                                             \
				fail_msg("waited in vain for: %s", #condition);                                        \
			event_base_loop((lab)->base, EVLOOP_ONCE);                                                     \
		}                                                                                                      \
	} while (0)

static struct ipaddr address_of(const char *text)
{
	struct ipaddr a;

	assert_int_equal(ipaddr_parse(text, &a), 0);
	return a;
}

/* "198.18.9.0/24"; without a length a host; "default" is of IPv4. */
static struct route_change prefix_of(const char *text, bool v4)
{
	struct route_change c = {.prefix_len = 0};
	char addr[64];
	const char *slash = strchr(text, '/');

	if (strcmp(text, "default") == 0)
		text = v4 ? "0.0.0.0/0" : "::/0", slash = strchr(text, '/');
	snprintf(addr, sizeof(addr), "%.*s", slash ? (int)(slash - text) : (int)strlen(text), text);
	c.prefix = address_of(addr);
	c.prefix_len = slash ? atoi(slash + 1) : ipaddr_is_v4(&c.prefix) ? 32 : 128;
	return c;
}

static const struct route_change *told(const struct lab *lab, const char *prefix)
{
	struct route_change key = prefix_of(prefix, true), **at = tfind(&key, &lab->dp.routes, by_prefix);

	return at ? *at : NULL;
}

static bool has_leg(const struct route_change *c, int port, const char *gateway, unsigned weight)
{
	for (unsigned i = 0; c && i < c->n_nexthops; i++) {
		const struct route_nexthop *nh = &c->nexthops[i];
		struct ipaddr addr;

		if (nh->port != port || nh->weight != weight || nh->on_link != !gateway)
			continue;
		if (!gateway)
			return true;
		addr = address_of(gateway);
		if (ipaddr_equal(&addr, &nh->gateway))
			return true;
	}
	return false;
}

static bool goes(const struct lab *lab, const char *prefix, int port, const char *gateway)
{
	const struct route_change *c = told(lab, prefix);

	return c && c->kind == ROUTE_UNICAST && c->n_nexthops == 1 && has_leg(c, port, gateway, 1);
}

/* --- what `ip route` says --- */

static int port_of(const char *device)
{
	return strcmp(device, "eth1") == 0 ? 0 : strcmp(device, "eth2") == 0 ? 1 : -1;
}

static bool is_dead(json_t *leg)
{
	json_t *flag;
	size_t i;

	json_array_foreach(json_object_get(leg, "flags"), i,
			   flag) if (strcmp(json_string_value(flag), "dead") == 0) return true;
	return false;
}

static const char *gateway_of(json_t *leg)
{
	const char *gateway = json_string_value(json_object_get(leg, "gateway"));

	return gateway ? gateway : json_string_value(json_object_get(json_object_get(leg, "via"), "host"));
}

/* Living legs of a route; those through ports alone if there are such. */
static unsigned living_legs(json_t *route, json_t *out[64])
{
	json_t *legs = json_object_get(route, "nexthops"), *leg;
	unsigned n = 0, n_own = 0;
	size_t i;

	if (!legs) {
		out[0] = route;
		return !is_dead(route);
	}
	json_array_foreach(legs, i, leg) if (!is_dead(leg)) out[n++] = leg;
	for (i = 0; i < n; i++)
		if (port_of(json_string_value(json_object_get(out[i], "dev"))) >= 0)
			out[n_own++] = out[i];
	return n_own ? n_own : n;
}

static bool route_equals(json_t *route, const struct route_change *c)
{
	const char *type = json_string_value(json_object_get(route, "type"));
	json_t *legs[64], *weight;
	unsigned n;

	if (!c)
		return false;
	if (type && strcmp(type, "unicast") != 0)
		return c->kind == ROUTE_BLACKHOLE && c->n_nexthops == 0;
	n = living_legs(route, legs);
	if (c->kind != ROUTE_UNICAST || c->n_nexthops != n)
		return false;
	for (unsigned i = 0; i < n; i++) {
		weight = n > 1 ? json_object_get(legs[i], "weight") : NULL;
		if (!has_leg(c, port_of(json_string_value(json_object_get(legs[i], "dev"))), gateway_of(legs[i]),
			     weight ? json_integer_value(weight) : 1))
			return false;
	}
	return true;
}

static json_t *kernel_routes(bool v4)
{
	FILE *f = popen(v4 ? "ip -j -4 route show table main" : "ip -j -6 route show table main", "r");
	json_t *routes = json_loadf(f, 0, NULL);

	assert_int_equal(pclose(f), 0);
	return routes ? routes : json_array();
}

static void keep(void *nothing)
{
}

/* The first living route of each prefix is what the dataplane has. Returns how many there are, -1 if one differs. */
static int compare_family(const struct lab *lab, bool v4)
{
	json_t *routes = kernel_routes(v4), *route, *legs[64];
	struct route_change *seen = calloc(json_array_size(routes) + 1, sizeof(*seen));
	void *tree = NULL;
	int n = 0;
	size_t i;

	json_array_foreach(routes, i, route)
	{
		struct route_change **at;

		seen[i] = prefix_of(json_string_value(json_object_get(route, "dst")), v4);
		if (!json_object_get(route, "type") && !living_legs(route, legs))
			continue;
		at = tsearch(&seen[i], &tree, by_prefix);
		if (*at != &seen[i])
			continue;
		n++;
		at = tfind(&seen[i], &lab->dp.routes, by_prefix);
		if (!route_equals(route, at ? *at : NULL)) {
			n = -1;
			break;
		}
	}
	tdestroy(tree, keep);
	free(seen);
	json_decref(routes);
	return n;
}

static bool mirrors_kernel(const struct lab *lab)
{
	struct netlink_report report;
	int v4 = compare_family(lab, true), v6 = compare_family(lab, false);

	netlink_report(lab->nl, &report);
	return v4 >= 0 && v6 >= 0 && (size_t)(v4 + v6) == lab->dp.n_routes && report.routes_v4 == (uint64_t)v4 &&
	       report.routes_v6 == (uint64_t)v6;
}

/* --- tests --- */

static void test_start(void **state)
{
	struct lab *lab = *state;
	struct netlink_report report;

	run("ip link set eth1 address 02:00:00:00:00:01 mtu 1400");
	run("ip route add 198.18.9.0/24 via 198.18.1.2");
	run("ip -6 route add 2001:db8:9::/48 via 2001:db8:2::2");
	run("ip addr add 198.18.100.1/32 dev eth2");
	mirror_start(lab);
	assert_true(goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	assert_true(goes(lab, "2001:db8:9::/48", 1, "2001:db8:2::2"));
	assert_true(goes(lab, "198.18.1.0/24", 0, NULL));
	assert_true(goes(lab, "198.18.3.0/24", -1, NULL));
	assert_true(mirrors_kernel(lab));
	assert_memory_equal(lab->dp.ports[0].mac, "\2\0\0\0\0\1", 6);
	assert_int_equal(lab->dp.ports[0].mtu, 1400);
	assert_true(lab->dp.ports[0].up && lab->links[0].present && lab->links[1].present);
	netlink_report(lab->nl, &report);
	assert_int_equal(report.resyncs, 0);
	assert_true(report.last_sync_ns > 0);
}

static uint32_t only_on(const struct netlink *nl, const char *text)
{
	struct ipaddr addr = address_of(text);

	return netlink_only_on(nl, &addr, 1, 0);
}

static void test_addresses(void **state)
{
	struct lab *lab = *state;
	struct ipaddr both[] = {address_of("198.18.2.1"), address_of("198.18.2.99")};
	uint32_t eth1 = if_nametoindex("eth1"), eth2 = if_nametoindex("eth2");

	assert_int_equal(only_on(lab->nl, "198.18.1.1"), eth1);
	assert_int_equal(only_on(lab->nl, "198.18.1.2"), 0);
	assert_int_equal(only_on(lab->nl, "2001:db8:1::1"), eth1);
	run("ip addr add 2001:db8:1::99/128 dev eth1");
	wait_until(lab, !only_on(lab->nl, "2001:db8:1::1"));
	assert_int_equal(only_on(lab->nl, "2001:db8:1::99"), 0);
	run("ip addr del 2001:db8:1::1/64 dev eth1");
	wait_until(lab, only_on(lab->nl, "2001:db8:1::99") == eth1);
	assert_int_equal(only_on(lab->nl, "2001:db8:1::1"), 0);
	run("ip addr add 198.18.2.99/32 dev eth2");
	wait_until(lab, !only_on(lab->nl, "198.18.2.1"));
	assert_int_equal(netlink_only_on(lab->nl, both, 2, 0), eth2);
	assert_int_equal(netlink_only_on(lab->nl, both, 2, 1), eth2);
}

/* Without a dataplane behind it. */
static void test_addresses_alone(void **state)
{
	struct netlink *nl = netlink_read_addresses();

	assert_non_null(nl);
	assert_int_equal(only_on(nl, "198.18.1.1"), if_nametoindex("eth1"));
	assert_int_equal(only_on(nl, "2001:db8:2::1"), if_nametoindex("eth2"));
	assert_int_equal(only_on(nl, "127.0.0.1"), if_nametoindex("lo"));
	netlink_destroy(nl);
}

/* The kernel removes such routes without a message. */
static void test_source_address_removed(void **state)
{
	struct lab *lab = *state;

	run("ip addr add 198.18.50.1/32 dev eth2");
	run("ip route add 198.18.9.0/24 via 198.18.1.2 src 198.18.50.1");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	run("ip addr del 198.18.50.1/32 dev eth2");
	wait_until(lab, !told(lab, "198.18.9.0/24"));
	assert_true(mirrors_kernel(lab));
}

static void test_routes_v4(void **state)
{
	struct lab *lab = *state;

	run("ip route add default via 198.18.1.2");
	run("ip route add 198.18.9.0/24 via 198.18.2.2 mtu 1300");
	run("ip route add 198.18.10.0/24 via inet6 2001:db8:1::2");
	run("ip route add 198.18.11.1 via 198.18.77.1 dev eth2 onlink");
	wait_until(lab, goes(lab, "0.0.0.0/0", 0, "198.18.1.2"));
	wait_until(lab, goes(lab, "198.18.9.0/24", 1, "198.18.2.2"));
	assert_int_equal(told(lab, "198.18.9.0/24")->mtu, 1300);
	wait_until(lab, goes(lab, "198.18.10.0/24", 0, "2001:db8:1::2"));
	wait_until(lab, goes(lab, "198.18.11.1/32", 1, "198.18.77.1"));
	run("ip route replace 198.18.9.0/24 via 198.18.1.2");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	assert_int_equal(told(lab, "198.18.9.0/24")->mtu, 0);
	run("ip route del 198.18.9.0/24 && ip route del default");
	wait_until(lab, !told(lab, "198.18.9.0/24") && !told(lab, "0.0.0.0/0"));
	assert_true(mirrors_kernel(lab));
}

static void test_routes_v6(void **state)
{
	struct lab *lab = *state;

	run("ip -6 route add default via 2001:db8:1::2");
	run("ip -6 route add 2001:db8:9::/48 via 2001:db8:2::2 mtu 1300");
	wait_until(lab, goes(lab, "::/0", 0, "2001:db8:1::2"));
	wait_until(lab, goes(lab, "2001:db8:9::/48", 1, "2001:db8:2::2"));
	assert_int_equal(told(lab, "2001:db8:9::/48")->mtu, 1300);
	run("ip -6 route replace 2001:db8:9::/48 via 2001:db8:1::2");
	wait_until(lab, goes(lab, "2001:db8:9::/48", 0, "2001:db8:1::2"));
	run("ip -6 route add 2001:db8:a::/48 via fe80::1 dev eth2");
	wait_until(lab, goes(lab, "2001:db8:a::/48", 1, "fe80::1"));
	run("ip -6 route del 2001:db8:9::/48 && ip -6 route del default");
	wait_until(lab, !told(lab, "2001:db8:9::/48") && !told(lab, "::/0"));
	assert_true(mirrors_kernel(lab));
}

static void test_blackholes(void **state)
{
	static const char *const types[] = {"blackhole", "unreachable", "prohibit", "throw"};
	struct lab *lab = *state;

	for (size_t i = 0; i < 4; i++) {
		run("ip route add %s 198.18.%zu.0/24 && ip -6 route add %s 2001:db8:%zu::/48", types[i], 20 + i,
		    types[i], 20 + i);
	}
	wait_until(lab, told(lab, "198.18.23.0/24") && told(lab, "2001:db8:23::/48"));
	assert_int_equal(told(lab, "198.18.21.0/24")->kind, ROUTE_BLACKHOLE);
	assert_int_equal(told(lab, "2001:db8:20::/48")->kind, ROUTE_BLACKHOLE);
	assert_true(mirrors_kernel(lab));
}

static void check_metrics(struct lab *lab, const char *prefix, const char *via0, const char *via1)
{
	run("ip route add %s via %s metric 200", prefix, via0);
	wait_until(lab, goes(lab, prefix, 0, via0));
	run("ip route add %s via %s metric 100", prefix, via1);
	wait_until(lab, goes(lab, prefix, 1, via1));
	run("ip route add %s dev eth3 metric 300", prefix);
	run("ip route del %s metric 100", prefix);
	wait_until(lab, goes(lab, prefix, 0, via0));
	run("ip route del %s metric 200", prefix);
	wait_until(lab, goes(lab, prefix, -1, NULL));
	run("ip route del %s metric 300", prefix);
	wait_until(lab, !told(lab, prefix));
}

static void test_metrics(void **state)
{
	check_metrics(*state, "198.18.9.0/24", "198.18.1.2", "198.18.2.2");
	check_metrics(*state, "2001:db8:9::/48", "2001:db8:1::2", "2001:db8:2::2");
	assert_true(mirrors_kernel(*state));
}

/* IPv4 routes of one priority: the kernel uses the one that stands first. */
static void test_same_metric_v4(void **state)
{
	struct lab *lab = *state;

	run("ip route add 198.18.9.0/24 via 198.18.1.2");
	run("ip route append 198.18.9.0/24 via 198.18.2.2");
	run("ip route add 198.18.8.0/24 via 198.18.1.2");
	wait_until(lab, goes(lab, "198.18.8.0/24", 0, "198.18.1.2"));
	assert_true(goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	run("ip route prepend 198.18.9.0/24 via 198.18.2.3");
	wait_until(lab, goes(lab, "198.18.9.0/24", 1, "198.18.2.3"));
	run("ip route replace 198.18.9.0/24 via 198.18.1.4");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.4"));
	run("ip route del 198.18.9.0/24 via 198.18.1.4");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	run("ip route del 198.18.9.0/24 via 198.18.1.2");
	wait_until(lab, goes(lab, "198.18.9.0/24", 1, "198.18.2.2"));
	assert_true(mirrors_kernel(lab));
}

static void test_not_mirrored(void **state)
{
	struct lab *lab = *state;
	uint64_t n_changes = lab->dp.n_changes;

	run("ip route add 198.18.9.0/24 via 198.18.1.2 table 100");
	run("ip route add 198.18.9.0/24 via 198.18.1.2 tos 0x10");
	run("ip -6 route add 2001:db8:9::/48 via 2001:db8:1::2 table 100");
	run("ip route add 198.18.8.0/24 via 198.18.1.2");
	wait_until(lab, told(lab, "198.18.8.0/24"));
	assert_null(told(lab, "198.18.9.0/24"));
	assert_null(told(lab, "2001:db8:9::/48"));
	assert_int_equal(lab->dp.n_changes, n_changes + 1);
}

static void test_multipath(void **state)
{
	struct lab *lab = *state;
	const struct route_change *c;

	run("ip route add 198.18.9.0/24 nexthop via 198.18.1.2 weight 3 nexthop via 198.18.2.2 nexthop dev eth3");
	run("ip -6 route add 2001:db8:9::/48 nexthop via 2001:db8:1::2 weight 5 nexthop via 2001:db8:2::2");
	wait_until(lab, told(lab, "198.18.9.0/24") && told(lab, "2001:db8:9::/48"));
	c = told(lab, "198.18.9.0/24");
	/* The leg that leaves through no port is left out. */
	assert_true(c->n_nexthops == 2 && has_leg(c, 0, "198.18.1.2", 3) && has_leg(c, 1, "198.18.2.2", 1));
	c = told(lab, "2001:db8:9::/48");
	assert_true(c->n_nexthops == 2 && has_leg(c, 0, "2001:db8:1::2", 5) && has_leg(c, 1, "2001:db8:2::2", 1));
	assert_true(mirrors_kernel(lab));
	/* A leg dies without a message about its route, and comes back likewise. */
	run("ip link set eth2 down");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	wait_until(lab, goes(lab, "2001:db8:9::/48", 0, "2001:db8:1::2"));
	assert_true(mirrors_kernel(lab));
	run("ip link set eth2 up");
	wait_until(lab, told(lab, "198.18.9.0/24")->n_nexthops == 2);
	wait_until(lab, mirrors_kernel(lab));
}

static void test_multipath_v6_legs(void **state)
{
	struct lab *lab = *state;
	const char *prefix = "2001:db8:9::/48";

	run("ip -6 route add %s via 2001:db8:1::2", prefix);
	run("ip -6 route append %s via 2001:db8:2::2", prefix);
	run("ip -6 route append %s via 2001:db8:2::3", prefix);
	wait_until(lab, told(lab, prefix) && told(lab, prefix)->n_nexthops == 3);
	run("ip -6 route del %s via 2001:db8:2::2", prefix);
	wait_until(lab, told(lab, prefix)->n_nexthops == 2);
	assert_true(mirrors_kernel(lab));
	run("ip -6 route replace %s via 2001:db8:2::9", prefix);
	wait_until(lab, goes(lab, prefix, 1, "2001:db8:2::9"));
	run("ip -6 route append %s via 2001:db8:2::2", prefix);
	wait_until(lab, told(lab, prefix)->n_nexthops == 2);
	run("ip -6 route del %s", prefix);
	wait_until(lab, mirrors_kernel(lab));
}

static void check_nexthops(struct lab *lab)
{
	run("ip nexthop add id 1 via 198.18.1.2 dev eth1 && ip nexthop add id 2 via 198.18.2.2 dev eth2");
	run("ip nexthop add id 3 via 2001:db8:1::2 dev eth1 && ip nexthop add id 4 via 2001:db8:2::2 dev eth2");
	run("ip nexthop add id 10 group 1/3,2 && ip nexthop add id 11 group 3,4 && ip nexthop add id 5 blackhole");
	run("ip route add 198.18.9.0/24 nhid 1 && ip route add 198.18.10.0/24 nhid 10");
	run("ip -6 route add 2001:db8:9::/48 nhid 3 && ip -6 route add 2001:db8:a::/48 nhid 11");
	run("ip route add 198.18.12.0/24 nhid 5");
	wait_until(lab, told(lab, "198.18.12.0/24"));
	assert_int_equal(told(lab, "198.18.12.0/24")->kind, ROUTE_BLACKHOLE);
	assert_true(goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	assert_true(goes(lab, "2001:db8:9::/48", 0, "2001:db8:1::2"));
	assert_true(has_leg(told(lab, "198.18.10.0/24"), 0, "2001:db8:1::2", 2));
	/* Objects change under routes that stay as they are. */
	run("ip nexthop replace id 1 via 198.18.2.9 dev eth2");
	wait_until(lab, goes(lab, "198.18.9.0/24", 1, "198.18.2.9"));
	wait_until(lab, has_leg(told(lab, "198.18.10.0/24"), 1, "198.18.2.9", 1));
	run("ip nexthop replace id 10 group 2,7/3,200");
	wait_until(lab, has_leg(told(lab, "198.18.10.0/24"), 1, "198.18.2.2", 7));
	assert_true(has_leg(told(lab, "198.18.10.0/24"), 0, "2001:db8:1::2", 200));
	run("ip nexthop replace id 11 group 3/4");
	wait_until(lab, has_leg(told(lab, "2001:db8:a::/48"), 1, "2001:db8:2::2", 1));
	/* Their routes go with them. */
	run("ip nexthop del id 3");
	wait_until(lab, !told(lab, "2001:db8:9::/48"));
	wait_until(lab, told(lab, "2001:db8:a::/48")->n_nexthops == 1);
	run("ip nexthop del id 1 && ip nexthop del id 10");
	wait_until(lab, !told(lab, "198.18.9.0/24") && !told(lab, "198.18.10.0/24"));
}

static void test_nexthops(void **state)
{
	check_nexthops(*state);
	wait_until((struct lab *)*state, mirrors_kernel(*state));
}

/* Without compat mode the kernel's route messages carry the object's number alone. */
static void test_nexthops_without_compat(void **state)
{
	write_file("/proc/sys/net/ipv4/nexthop_compat_mode", "0");
	check_nexthops(*state);
}

static void test_nexthops_link_down(void **state)
{
	struct lab *lab = *state;

	run("ip nexthop add id 1 via 198.18.1.2 dev eth1 && ip nexthop add id 2 via 198.18.2.2 dev eth2");
	run("ip nexthop add id 10 group 1,2/2");
	run("ip route add 198.18.9.0/24 nhid 10 && ip route add 198.18.10.0/24 nhid 2");
	wait_until(lab, told(lab, "198.18.9.0/24") && told(lab, "198.18.10.0/24"));
	run("ip link set eth2 down");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2") && !told(lab, "198.18.10.0/24"));
	wait_until(lab, mirrors_kernel(lab));
}

static void test_link(void **state)
{
	struct lab *lab = *state;
	unsigned n = lab->n_link_changes;

	run("ip link set eth1 mtu 1400");
	wait_until(lab, lab->dp.ports[0].mtu == 1400);
	assert_true(lab->n_link_changes > n);
	run("ip link set eth1 address 02:00:00:00:00:aa");
	wait_until(lab, memcmp(lab->dp.ports[0].mac, "\2\0\0\0\0\xaa", 6) == 0);
	assert_memory_equal(lab->links[0].mac, "\2\0\0\0\0\xaa", 6);
	run("ip route add 198.18.9.0/24 via 198.18.1.2 && ip route add 198.18.9.0/24 via 198.18.2.2 metric 7");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	run("ip link set eth1 down");
	wait_until(lab, !lab->dp.ports[0].up);
	assert_true(lab->links[0].present);
	wait_until(lab, goes(lab, "198.18.9.0/24", 1, "198.18.2.2"));
	wait_until(lab, !told(lab, "198.18.1.0/24"));
	wait_until(lab, mirrors_kernel(lab));
	run("ip link set eth1 up");
	wait_until(lab, lab->dp.ports[0].up && goes(lab, "198.18.1.0/24", 0, NULL));
	wait_until(lab, mirrors_kernel(lab));
	/* Carrier lost: the kernel keeps the routes, the port is down. */
	enter(lab->peer_fd);
	run("ip link set peer1 down");
	enter(lab->gw_fd);
	wait_until(lab, !lab->dp.ports[0].up);
	assert_true(goes(lab, "198.18.1.0/24", 0, NULL));
}

static void test_link_recreated(void **state)
{
	struct lab *lab = *state;
	uint32_t ifindex = lab->nl->ports[0].ifindex;

	run("ip route add 198.18.9.0/24 via 198.18.1.2");
	run("ip neigh add 198.18.1.2 lladdr 02:00:00:00:00:09 dev eth1 nud permanent");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2") && lab->dp.n_neighbours > 0);
	run("ip link del eth1");
	wait_until(lab, !lab->links[0].present && !lab->dp.ports[0].up);
	wait_until(lab, !told(lab, "198.18.9.0/24") && !told(lab, "198.18.1.0/24"));
	for (size_t i = 0; i < lab->dp.n_neighbours; i++)
		assert_int_not_equal(lab->dp.neighbours[i].port, 0);
	link_make(lab, 1);
	run("ip route add 198.18.9.0/24 via 198.18.1.2");
	wait_until(lab, lab->links[0].present && lab->dp.ports[0].up);
	assert_int_not_equal(lab->nl->ports[0].ifindex, ifindex);
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
	wait_until(lab, mirrors_kernel(lab));
	/* Renamed: the same netdev is no port now, and one again. */
	run("ip link set eth1 name other");
	wait_until(lab, !lab->links[0].present);
	wait_until(lab, goes(lab, "198.18.9.0/24", -1, "198.18.1.2"));
	run("ip link set other name eth1");
	wait_until(lab, goes(lab, "198.18.9.0/24", 0, "198.18.1.2"));
}

/* A port that was opened on a netdev: sockets do not outlive it, whatever is made under its name. */
static void test_opened_port(void **state)
{
	struct lab *lab = *state;
	struct netlink_port ports[] = {{0, "eth1", if_nametoindex("eth1")}, {1, "eth2", if_nametoindex("eth2") + 1}};

	lab->nl = netlink_create(lab->base, &lab->dp, ports, 2, on_link, lab);
	assert_non_null(lab->nl);
	assert_true(lab->dp.ports[0].up && !lab->links[0].lost);
	/* Replaced before there was a mirror. */
	assert_true(!lab->dp.ports[1].up && lab->links[1].present && lab->links[1].lost);
	/* Another name for a while: the sockets do not care. */
	run("ip link set eth1 name other");
	wait_until(lab, !lab->links[0].present && !lab->links[0].lost);
	run("ip link set other name eth1");
	wait_until(lab, lab->links[0].present && lab->dp.ports[0].up);
	run("ip link del eth1");
	wait_until(lab, !lab->links[0].present && lab->links[0].lost);
	link_make(lab, 1);
	run("ip route add 198.18.9.0/24 via 198.18.1.2");
	wait_until(lab, lab->links[0].present && goes(lab, "198.18.9.0/24", -1, "198.18.1.2"));
	assert_true(lab->links[0].lost && !lab->dp.ports[0].up);
	run("ip link set eth1 mtu 1400");
	run("ip route add 198.18.10.0/24 via 198.18.1.2");
	wait_until(lab, told(lab, "198.18.10.0/24"));
	assert_true(lab->links[0].lost && !lab->dp.ports[0].up);
}

static enum neighbour_state state_of(struct lab *lab, int port, const char *addr)
{
	struct ipaddr a = address_of(addr);
	struct told_neighbour *n = neighbour_told(&lab->dp, port, &a);

	return n ? n->state : NEIGHBOUR_GONE;
}

static bool has_mac(struct lab *lab, int port, const char *addr, const char *mac)
{
	struct ipaddr a = address_of(addr);
	struct told_neighbour *n = neighbour_told(&lab->dp, port, &a);

	return n && n->state == NEIGHBOUR_USABLE && memcmp(n->mac, mac, 6) == 0;
}

static void resolve(struct lab *lab, int port, const char *addr)
{
	struct ipaddr a = address_of(addr);

	netlink_resolve(lab->nl, port, &a);
}

static void peer(struct lab *lab, const char *command)
{
	enter(lab->peer_fd);
	run("%s", command);
	enter(lab->gw_fd);
}

static void test_neighbours(void **state)
{
	struct lab *lab = *state;

	peer(lab, "ip link set peer1 address 02:00:00:00:00:11");
	resolve(lab, 0, "198.18.1.2");
	resolve(lab, 0, "2001:db8:1::2");
	resolve(lab, 1, "198.18.2.77");
	wait_until(lab, has_mac(lab, 0, "198.18.1.2", "\2\0\0\0\0\x11"));
	wait_until(lab, has_mac(lab, 0, "2001:db8:1::2", "\2\0\0\0\0\x11"));
	wait_until(lab, state_of(lab, 1, "198.18.2.77") == NEIGHBOUR_UNRESOLVED);
	run("ip neigh replace 198.18.1.2 lladdr 02:00:00:00:00:22 dev eth1 nud stale");
	wait_until(lab, has_mac(lab, 0, "198.18.1.2", "\2\0\0\0\0\x22"));
	run("ip neigh del 198.18.1.2 dev eth1");
	wait_until(lab, state_of(lab, 0, "198.18.1.2") != NEIGHBOUR_USABLE);
	run("ip neigh add 198.18.3.2 lladdr 02:00:00:00:00:33 dev eth3 nud permanent");
	run("ip neigh add 198.18.2.9 lladdr 02:00:00:00:00:33 dev eth2 nud permanent");
	wait_until(lab, has_mac(lab, 1, "198.18.2.9", "\2\0\0\0\0\x33"));
	assert_int_equal(state_of(lab, -1, "198.18.3.2"), NEIGHBOUR_GONE);
	/* What is permanent stays so. */
	resolve(lab, 1, "198.18.2.9");
	run("ip neigh show 198.18.2.9 nud permanent | grep -q 02:00:00:00:00:33");
	run("ip neigh del 198.18.2.9 dev eth2");
	wait_until(lab, state_of(lab, 1, "198.18.2.9") == NEIGHBOUR_GONE);
}

static bool managed(const char *addr)
{
	char command[128];

	snprintf(command, sizeof(command), "ip neigh show %s | grep -q managed", addr);
	return system(command) == 0;
}

static void keep_resolved(struct lab *lab, const char *first, const char *second)
{
	struct ipaddr addrs[2];
	size_t n = 0;

	if (first)
		addrs[n++] = address_of(first);
	if (second)
		addrs[n++] = address_of(second);
	assert_int_equal(netlink_keep_resolved(lab->nl, addrs, n), 0);
}

static void test_keep_resolved(void **state)
{
	struct lab *lab = *state;

	run("ip route add 198.18.9.0/24 via 198.18.1.2");
	wait_until(lab, told(lab, "198.18.9.0/24"));
	/* One behind a gateway, one on link. */
	keep_resolved(lab, "198.18.9.7", "2001:db8:2::2");
	assert_true(managed("198.18.1.2") && managed("2001:db8:2::2"));
	wait_until(lab, state_of(lab, 0, "198.18.1.2") == NEIGHBOUR_USABLE);
	wait_until(lab, state_of(lab, 1, "2001:db8:2::2") == NEIGHBOUR_USABLE);
	/* A question in between leaves it managed. */
	resolve(lab, 0, "198.18.1.2");
	assert_true(managed("198.18.1.2"));
	/* The route moves, and the care with it. */
	run("ip route replace 198.18.9.0/24 via 198.18.2.2");
	wait_until(lab, managed("198.18.2.2") && !managed("198.18.1.2"));
	/* Somebody deletes the entry. */
	run("ip neigh flush dev eth2");
	wait_until(lab, managed("198.18.2.2") && state_of(lab, 1, "198.18.2.2") == NEIGHBOUR_USABLE);
	wait_until(lab, managed("2001:db8:2::2"));
	/* The link comes back as another. */
	run("ip link del eth2");
	wait_until(lab, !lab->links[1].present);
	link_make(lab, 2);
	run("ip route add 198.18.9.0/24 via 198.18.2.2");
	wait_until(lab, managed("198.18.2.2") && state_of(lab, 1, "198.18.2.2") == NEIGHBOUR_USABLE);
	keep_resolved(lab, NULL, "2001:db8:2::2");
	assert_true(!managed("198.18.2.2"));
	wait_until(lab, managed("2001:db8:2::2"));
	netlink_destroy(lab->nl);
	lab->nl = NULL;
	assert_false(managed("2001:db8:2::2"));
}

/* A service has the same addresses for each of its ports: only different ones count against what can be kept. */
static void test_keep_many(void **state)
{
	enum { N = 3 * MIRROR_MAX_WANTED };
	struct lab *lab = *state;
	struct ipaddr *addrs = calloc(N, sizeof(*addrs));

	for (uint32_t i = 0; i < N; i++)
		addrs[i] = i % 3 ? address_of("198.18.1.2") : ipaddr_v4(htonl(0xc6130000 + i / 3));
	addrs[0] = address_of("2001:db8:2::2");
	run("ip route add 198.19.0.0/16 via 198.18.2.2");
	wait_until(lab, told(lab, "198.19.0.0/16"));
	assert_int_equal(netlink_keep_resolved(lab->nl, addrs, N - 3), 0);
	assert_int_equal(lab->nl->n_wanted, 3);
	wait_until(lab, managed("198.18.1.2") && managed("198.18.2.2") && managed("2001:db8:2::2"));
	/* One more is one too many. */
	assert_int_equal(netlink_keep_resolved(lab->nl, addrs, N), -E2BIG);
	free(addrs);
}

/*
 * Nobody sends to a managed entry, and still the kernel finds out that the peer has left and that it is back. It looks
 * every 5 s; that is not to be changed in a namespace.
 */
static void test_managed_is_looked_after(void **state)
{
	struct lab *lab = *state;

	write_file("/proc/sys/net/ipv4/neigh/eth1/base_reachable_time_ms", "200");
	write_file("/proc/sys/net/ipv4/neigh/eth1/delay_first_probe_time", "0");
	write_file("/proc/sys/net/ipv4/neigh/eth1/retrans_time_ms", "50");
	peer(lab, "ip link set peer1 address 02:00:00:00:00:11");
	keep_resolved(lab, "198.18.1.2", NULL);
	wait_until(lab, has_mac(lab, 0, "198.18.1.2", "\2\0\0\0\0\x11"));
	peer(lab, "ip addr del 198.18.1.2/24 dev peer1");
	wait_until(lab, state_of(lab, 0, "198.18.1.2") == NEIGHBOUR_UNRESOLVED);
	peer(lab, "ip addr add 198.18.1.2/24 dev peer1");
	wait_until(lab, has_mac(lab, 0, "198.18.1.2", "\2\0\0\0\0\x11"));
}

/* --- many changes, lost events, a full table --- */

#define N_FLOOD 10000

/* Starts `ip -batch` with one line for each of n host routes; "add %s via ..." */
static pid_t batch_start(const char *v4_line, const char *v6_line, unsigned n)
{
	FILE *f = tmpfile();
	pid_t pid;

	assert_non_null(f);
	for (unsigned i = 0; i < n; i++) {
		fprintf(f, i % 2 ? v6_line : v4_line, i >> 8, i & 255);
		fputc('\n', f);
	}
	rewind(f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(fileno(f), STDIN_FILENO);
		execlp("ip", "ip", "-batch", "-", NULL);
		_exit(127);
	}
	fclose(f);
	return pid;
}

static bool ended(pid_t *pid)
{
	int status;

	if (*pid && waitpid(*pid, &status, WNOHANG) == *pid) {
		assert_int_equal(status, 0);
		*pid = 0;
	}
	return *pid == 0;
}

#define V4_ADD "route add 198.19.%u.%u via 198.18.1.2"
#define V6_ADD "route add 2001:db8:f::%x:%x via 2001:db8:2::2"
#define V4_DEL "route del 198.19.%u.%u"
#define V6_DEL "route del 2001:db8:f::%x:%x"

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void test_flood(void **state)
{
	struct lab *lab = *state;
	size_t n_before = lab->dp.n_routes;
	struct netlink_report report;
	uint64_t start_ns = clock_monotonic_ns(), cpu_before_ns = cpu_ns(), took_ns;
	pid_t pid = batch_start(V4_ADD, V6_ADD, N_FLOOD);

	wait_until(lab, ended(&pid) && lab->dp.n_routes == n_before + N_FLOOD);
	took_ns = cpu_ns() - cpu_before_ns;
	print_message("%u route adds in %.2f s, %.2f ms CPU per 1000 changes, %" PRIu64 " batches\n", N_FLOOD,
		      (double)(clock_monotonic_ns() - start_ns) / 1e9, (double)took_ns / (N_FLOOD / 1000) / 1e6,
		      lab->dp.n_batches);
	/* 10 000 changes a second must cost little of a core. */
	assert_true(took_ns < N_FLOOD / 1000 * 20000000ull * SLOWER);
	assert_true(mirrors_kernel(lab));
	assert_true(lab->dp.longest_batch <= ROUTE_BATCH);
	/* A mirror that begins now shows the same. */
	netlink_destroy(lab->nl);
	tdestroy(lab->dp.routes, free);
	memset(&lab->dp, 0, sizeof(lab->dp));
	mirror_start(lab);
	assert_true(mirrors_kernel(lab));
	netlink_report(lab->nl, &report);
	print_message("a dump of that takes %.1f ms\n", (double)report.last_sync_ns / 1e6);
	pid = batch_start(V4_DEL, V6_DEL, N_FLOOD);
	wait_until(lab, ended(&pid) && lab->dp.n_routes == n_before);
	assert_true(mirrors_kernel(lab));
}

static void batch_run(const char *v4_line, const char *v6_line, unsigned n)
{
	pid_t pid = batch_start(v4_line, v6_line, n);
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void lose_events_from_now(struct lab *lab)
{
	int bytes = 1;

	/* The kernel makes the least it allows of this. */
	assert_int_equal(setsockopt(mnl_socket_get_fd(lab->nl->events), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)),
			 0);
}

static uint64_t resyncs(const struct lab *lab)
{
	struct netlink_report report;

	netlink_report(lab->nl, &report);
	return report.resyncs;
}

static void test_lost_events(void **state)
{
	struct lab *lab = *state;
	size_t n_before = lab->dp.n_routes;
	uint64_t n_changes;

	run("ip route add 198.18.9.0/24 via 198.18.1.2 && ip route add 198.18.10.0/24 via 198.18.1.2");
	run("ip nexthop add id 1 via 198.18.1.2 dev eth1 && ip route add 198.18.11.0/24 nhid 1");
	wait_until(lab, told(lab, "198.18.11.0/24"));
	lose_events_from_now(lab);
	n_changes = lab->dp.n_changes;
	batch_run(V4_ADD, V6_ADD, 1000);
	run("ip route replace 198.18.10.0/24 via 198.18.2.2 && ip nexthop del id 1");
	run("ip addr del 2001:db8:1::1/64 dev eth1 && ip neigh add 198.18.2.9 lladdr 02:00:00:00:00:33 dev eth2");
	wait_until(lab, lab->dp.n_routes == n_before + 1001);
	wait_until(lab, mirrors_kernel(lab));
	assert_true(resyncs(lab) >= 1);
	assert_true(has_mac(lab, 1, "198.18.2.9", "\2\0\0\0\0\x33"));
	/* 1000 added, one replaced, and removed: that of the object, that of the address. */
	assert_int_equal(lab->dp.n_changes - n_changes, 1003);
	assert_int_equal(lab->dp.n_removals, 2);
}

/* Again and again, while routes keep changing. */
static void test_lost_events_in_a_flood(void **state)
{
	struct lab *lab = *state;
	size_t n_before = lab->dp.n_routes;
	pid_t pid;

	lose_events_from_now(lab);
	pid = batch_start(V4_ADD, V6_ADD, N_FLOOD);
	wait_until(lab, ended(&pid) && lab->dp.n_routes == n_before + N_FLOOD);
	assert_true(mirrors_kernel(lab));
	pid = batch_start(V4_DEL, V6_DEL, N_FLOOD);
	wait_until(lab, ended(&pid) && lab->dp.n_routes == n_before);
	assert_true(mirrors_kernel(lab));
	assert_true(resyncs(lab) > 1);
}

/* Everything is asked for again, nothing has changed, the dataplane hears nothing. */
static void test_resync_without_difference(void **state)
{
	struct lab *lab = *state;
	uint64_t n_changes;

	run("ip -6 route add 2001:db8:9::/48 via 2001:db8:1::2");
	run("ip -6 route append 2001:db8:9::/48 via 2001:db8:2::2");
	run("ip route add 198.18.9.0/24 via 198.18.1.2 && ip route append 198.18.9.0/24 via 198.18.2.2");
	wait_until(lab, mirrors_kernel(lab));
	n_changes = lab->dp.n_changes;
	lose_events_from_now(lab);
	batch_run(V4_ADD, V6_ADD, 500);
	batch_run(V4_DEL, V6_DEL, 500);
	wait_until(lab, resyncs(lab) == 1);
	wait_until(lab, !lab->nl->lost && lab->nl->dumping == DUMP_NONE && !lab->nl->need && !lab->nl->routes.n_dirty);
	assert_int_equal(lab->dp.n_changes, n_changes);
	assert_true(mirrors_kernel(lab));
}

/* A sweep in the smallest slices misses none. */
static void test_sweep_in_slices(void **state)
{
	struct lab *lab = *state;
	struct netlink *nl = lab->nl;
	unsigned n_slices = 0;
	uint32_t at = 0;

	batch_run(V4_ADD, V6_ADD, 5000);
	wait_until(lab, nl->routes.n_routes > 5000);
	nl->generation++;
	while (!routes_sweep(nl, true, &at, 0))
		n_slices++;
	assert_true(n_slices > 1);
	for (at = 0; !routes_sweep(nl, false, &at, 0);)
		;
	assert_int_equal(nl->routes.n_routes, 0);
}

/* What the dataplane refused is told again when it has room. */
static void test_table_full(void **state)
{
	struct lab *lab = *state;
	struct netlink_report report;

	lab->dp.max_routes = lab->dp.n_routes + 10;
	batch_run(V4_ADD, V6_ADD, 20);
	wait_until(lab, (netlink_report(lab->nl, &report), report.refused == 10));
	batch_run(V4_DEL, V6_DEL, 10);
	wait_until(lab, mirrors_kernel(lab));
}

/* A neighbour that found no room is told again when the dataplane asks for it. */
static void test_neighbours_full(void **state)
{
	struct lab *lab = *state;
	struct netlink_report report;

	lab->dp.n_neighbours = MAX_NEIGH;
	run("ip neigh add 198.18.2.9 lladdr 02:00:00:00:00:33 dev eth2 nud permanent");
	wait_until(lab, (netlink_report(lab->nl, &report), report.refused > 0));
	lab->dp.n_neighbours = 0;
	resolve(lab, 1, "198.18.2.9");
	assert_true(has_mac(lab, 1, "198.18.2.9", "\2\0\0\0\0\x33"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_start, setup_without_mirror, teardown),
		cmocka_unit_test_setup_teardown(test_addresses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_addresses_alone, setup_without_mirror, teardown),
		cmocka_unit_test_setup_teardown(test_source_address_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_routes_v4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_routes_v6, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blackholes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_metrics, setup, teardown),
		cmocka_unit_test_setup_teardown(test_same_metric_v4, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_mirrored, setup, teardown),
		cmocka_unit_test_setup_teardown(test_multipath, setup, teardown),
		cmocka_unit_test_setup_teardown(test_multipath_v6_legs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nexthops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nexthops_without_compat, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nexthops_link_down, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link, setup, teardown),
		cmocka_unit_test_setup_teardown(test_link_recreated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_opened_port, setup_without_mirror, teardown),
		cmocka_unit_test_setup_teardown(test_neighbours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keep_resolved, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keep_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_managed_is_looked_after, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_events, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_events_in_a_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resync_without_difference, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sweep_in_slices, setup, teardown),
		cmocka_unit_test_setup_teardown(test_table_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_neighbours_full, setup, teardown),
	};

	if (geteuid() != 0) {
		fputs("skipped: network namespaces need root\n", stderr);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
