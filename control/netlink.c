/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The sockets of the kernel mirror and their order of work. Events are read as they come. A dump, at start, after lost
 * events or where the kernel changes things silently, is read while events wait in their socket: some are older
 * than what the dump shows, some younger, and all of them taken in after it end at the present. Nothing goes to the
 * dataplane between the beginning of a dump of routes and its sweep.
 */
#include "netlink.h"

#include "netlink_mirror.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* Room for events that wait: some 20 000 of them, which at 10 000 a second outlasts any dump of the routes we take. */
#define EVENTS_BUFFER_BYTES (32 << 20)

#define FLUSH_AFTER_US      20000
/* Next hops are found again that long after routes have changed. */
#define KEEP_AFTER_US       100000
/* A full dataplane is told all routes again when some were removed, but no more often than that. */
#define RETELL_PAUSE_NS     60000000000ull
#define START_TIMEOUT_MS    10000
#define START_TRIES         10

static const unsigned groups[] = {
	RTNLGRP_LINK, RTNLGRP_NEIGH, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,
};

/* --- events --- */

static void events_take(struct netlink *nl, size_t n)
{
	const struct nlmsghdr *nlh = (const void *)nl->buffer;
	int len = (int)n;

	for (; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len))
		mirror_take(nl, nlh, false);
}

static void events_lost(struct netlink *nl)
{
	if (!nl->lost)
		nl->report.resyncs++;
	nl->lost = true;
	nl->need = NEED_ALL;
}

/*
 * Until a full queue is seen empty, the kernel drops events without saying so again. So after a loss what is queued is
 * thrown away, and the dump begins when nothing is left.
 */
static void events_read(struct netlink *nl, uint64_t deadline_ns)
{
	nl->drained = false;
	do {
		ssize_t n = mirror_receive(nl->events, nl->buffer, sizeof(nl->buffer));

		if (n == -EINTR)
			continue;
		if (n == -EAGAIN) {
			nl->drained = true;
			return;
		}
		if (n < 0)
			events_lost(nl);
		else if (!nl->lost)
			events_take(nl, (size_t)n);
	} while (clock_monotonic_ns() < deadline_ns);
}

/* --- the loop --- */

static void timer_set(struct event *ev, uint64_t after_us)
{
	struct timeval tv = {.tv_sec = after_us / 1000000, .tv_usec = after_us % 1000000};

	event_add(ev, &tv);
}

/* Decides what the loop calls next. Events wait while a dump runs. */
static void arrange(struct netlink *nl)
{
	uint64_t now_ns = clock_monotonic_ns();

	if (nl->dumping != DUMP_NONE) {
		event_del(nl->on_events);
		if (nl->asked)
			event_add(nl->on_dumps, NULL);
		else
			timer_set(nl->on_step, 0);
	} else {
		event_del(nl->on_dumps);
		event_add(nl->on_events, NULL);
		if (nl->need && !event_pending(nl->on_step, EV_TIMEOUT, NULL))
			timer_set(nl->on_step, now_ns < nl->next_dump_ns ? (nl->next_dump_ns - now_ns) / 1000 : 0);
	}
	if (nl->keep_stale && nl->n_keep && !event_pending(nl->on_keep, EV_TIMEOUT, NULL))
		timer_set(nl->on_keep, KEEP_AFTER_US);
	if (!nl->routes.n_dirty || dumps_routes(nl))
		return;
	if (nl->routes.n_dirty >= ROUTE_BATCH)
		timer_set(nl->on_flush, 0);
	else if (!event_pending(nl->on_flush, EV_TIMEOUT, NULL))
		timer_set(nl->on_flush, FLUSH_AFTER_US);
}

static void on_events(evutil_socket_t fd, short what, void *arg)
{
	struct netlink *nl = arg;

	events_read(nl, clock_monotonic_ns() + MIRROR_SLICE_NS);
	arrange(nl);
}

static void on_dumps(evutil_socket_t fd, short what, void *arg)
{
	struct netlink *nl = arg;

	dump_step(nl);
	arrange(nl);
}

/* The next slice of a sweep, or the time for dumps has come. */
static void on_step(evutil_socket_t fd, short what, void *arg)
{
	struct netlink *nl = arg;

	if (nl->dumping != DUMP_NONE) {
		dump_step(nl);
	} else if (nl->need) {
		if (nl->lost)
			events_read(nl, clock_monotonic_ns() + MIRROR_SLICE_NS);
		if (!nl->lost || nl->drained)
			dumps_start(nl);
	}
	arrange(nl);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct netlink *nl = arg;

	if (!dumps_routes(nl))
		routes_flush(nl);
	arrange(nl);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct netlink *nl = arg;

	uint64_t now_ns = clock_monotonic_ns();

	if (nl->routes.removed && now_ns >= nl->retell_ns) {
		nl->retell_ns = now_ns + RETELL_PAUSE_NS;
		nl->routes.removed = false;
		nl->routes.lacking = false;
		routes_touch_all(nl, true);
	}
	wanted_tick(nl);
	arrange(nl);
}

static void on_keep(evutil_socket_t fd, short what, void *arg)
{
	wanted_update(arg);
}

/* --- life --- */

static struct mnl_socket *socket_open(void)
{
	struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (s && mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0) {
		mnl_socket_close(s);
		return NULL;
	}
	return s;
}

static int subscribe(struct netlink *nl)
{
	int fd = mnl_socket_get_fd(nl->events), bytes = EVENTS_BUFFER_BYTES;
	int group;

	/* With CAP_NET_ADMIN as much as that, else what the system allows. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		group = groups[i];
		if (mnl_socket_setsockopt(nl->events, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
			return -errno;
	}
	/* A kernel before 5.3 has no nexthop objects, and no such group. */
	group = RTNLGRP_NEXTHOP;
	mnl_socket_setsockopt(nl->events, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group));
	return 0;
}

static int sockets_open(struct netlink *nl)
{
	int one = 1;

	nl->events = socket_open();
	nl->dumps = nl->events ? socket_open() : NULL;
	nl->commands = nl->dumps ? socket_open() : NULL;
	if (!nl->commands)
		return -errno;
	/* Without strict checking (before 4.20) we get all tables and take what we want. */
	mnl_socket_setsockopt(nl->dumps, NETLINK_GET_STRICT_CHK, &one, sizeof(one));
	return subscribe(nl);
}

static int loop_join(struct netlink *nl)
{
	struct timeval second = {.tv_sec = 1};

	nl->on_events = event_new(nl->base, mnl_socket_get_fd(nl->events), EV_READ | EV_PERSIST, on_events, nl);
	nl->on_dumps = event_new(nl->base, mnl_socket_get_fd(nl->dumps), EV_READ | EV_PERSIST, on_dumps, nl);
	nl->on_step = event_new(nl->base, -1, 0, on_step, nl);
	nl->on_flush = event_new(nl->base, -1, 0, on_flush, nl);
	nl->on_keep = event_new(nl->base, -1, 0, on_keep, nl);
	nl->on_tick = event_new(nl->base, -1, EV_PERSIST, on_tick, nl);
	if (!nl->on_events || !nl->on_dumps || !nl->on_step || !nl->on_flush || !nl->on_keep || !nl->on_tick)
		return -ENOMEM;
	event_add(nl->on_tick, &second);
	arrange(nl);
	return 0;
}

/* Runs the needed dumps to their end, without the loop. */
static int dumps_run(struct netlink *nl)
{
	struct pollfd fd = {.fd = mnl_socket_get_fd(nl->dumps), .events = POLLIN};

	for (dumps_start(nl); nl->dumping != DUMP_NONE; dump_step(nl))
		if (nl->asked && poll(&fd, 1, START_TIMEOUT_MS) == 0)
			return -ETIMEDOUT;
	return 0;
}

/* The same again for what a busy system interrupted; what is still needed after that is no error. */
static int needs_run(struct netlink *nl)
{
	for (unsigned i = 0; nl->need && i < START_TRIES; i++) {
		int err = dumps_run(nl);

		if (err)
			return err;
	}
	return nl->need ? nl->error : 0;
}

static int mirror_all(struct netlink *nl)
{
	int err;

	nl->need = NEED_ALL;
	/* What was only interrupted the loop goes on trying. */
	err = needs_run(nl);
	if (err)
		return err;
	while (nl->routes.n_dirty)
		routes_flush(nl);
	return 0;
}

struct netlink *netlink_create(struct event_base *base, struct dataplane *dp, const struct netlink_port *ports,
			       size_t n_ports, netlink_link_fn *link_changed, void *arg)
{
	struct netlink *nl = n_ports <= DATAPLANE_MAX_PORTS ? calloc(1, sizeof(*nl)) : NULL;
	int err;

	if (!nl) {
		errno = n_ports <= DATAPLANE_MAX_PORTS ? ENOMEM : E2BIG;
		return NULL;
	}
	nl->base = base;
	nl->dp = dp;
	nl->link_changed = link_changed;
	nl->arg = arg;
	nl->n_ports = n_ports;
	nl->dumping = DUMP_NONE;
	for (size_t i = 0; i < n_ports; i++) {
		nl->ports[i].port = ports[i].port;
		nl->ports[i].opened = ports[i].ifindex;
		strncpy(nl->ports[i].device, ports[i].device, IFNAMSIZ - 1);
	}
	routes_init(nl);
	err = getrandom(&nl->seed, sizeof(nl->seed), 0) == sizeof(nl->seed) ? sockets_open(nl) : -EIO;
	if (!err)
		err = mirror_all(nl);
	if (!err)
		err = loop_join(nl);
	if (err) {
		netlink_destroy(nl);
		errno = -err;
		return NULL;
	}
	return nl;
}

struct netlink *netlink_read_addresses(void)
{
	struct netlink *nl = calloc(1, sizeof(*nl));
	int err = -ENOMEM;

	if (nl) {
		nl->dumping = DUMP_NONE;
		nl->need = NEED(DUMP_ADDRESSES_V4) | NEED(DUMP_ADDRESSES_V6);
		nl->dumps = socket_open();
		err = nl->dumps ? needs_run(nl) : -errno;
	}
	if (!err)
		return nl;
	netlink_destroy(nl);
	errno = -err;
	return NULL;
}

static void event_drop(struct event *ev)
{
	if (ev)
		event_free(ev);
}

static void socket_drop(struct mnl_socket *s)
{
	if (s)
		mnl_socket_close(s);
}

void netlink_destroy(struct netlink *nl)
{
	if (!nl)
		return;
	wanted_release(nl);
	event_drop(nl->on_events);
	event_drop(nl->on_dumps);
	event_drop(nl->on_step);
	event_drop(nl->on_flush);
	event_drop(nl->on_keep);
	event_drop(nl->on_tick);
	socket_drop(nl->events);
	socket_drop(nl->dumps);
	socket_drop(nl->commands);
	nexthops_free(nl);
	routes_free(nl);
	neighbours_free(nl);
	free(nl->links);
	free(nl->addresses);
	free(nl->keep);
	free(nl);
}

void netlink_report(const struct netlink *nl, struct netlink_report *out)
{
	*out = nl->report;
	out->neighbours = nl->n_neighbours;
}
