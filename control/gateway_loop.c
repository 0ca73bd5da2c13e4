/* SPDX-License-Identifier: BSD-3-Clause */
/* What wakes the gateway between its start and its stop: timers, notes, names, links and signals. */
#include "breakers.h"
#include "budgets.h"
#include "checks.h"
#include "clock.h"
#include "events.h"
#include "gate.h"
#include "gateway_private.h"
#include "limiters.h"
#include "names.h"
#include "netlink.h"
#include "observe.h"
#include "owners.h"
#include "paths.h"
#include "saved.h"
#include "saved_limits.h"
#include "services.h"
#include "shedding.h"
#include "silence_events.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS         5000000000ULL /* what could not be published is tried again after this */
#define PUBLISH_EVERY_NS 1000000000ULL /* a set that changes all the time is published this often */
#define NOTES_AT_ONCE    64
#define SAY_AGAIN_NS     600000000000ULL /* a trouble that goes on is an event this often */

/* --- publishing --- */

static int view_gates(const struct gateway *gw, struct view *view)
{
	view->gates = calloc(gw->n_ports + 1, sizeof(*view->gates));
	if (!view->gates)
		return -ENOMEM;
	for (unsigned i = 0; i < gw->n_ports; i++) {
		struct view_gate *g = &view->gates[view->n_gates];

		if (!gw->ports[i].gate)
			continue;
		snprintf(g->port, sizeof(g->port), "%s", gw->config->ports[i].name);
		g->n_counters = gate_counters(gw->ports[i].gate, g->counters, GATE_MAX_COUNTERS);
		view->n_gates++;
	}
	return 0;
}

static void view_trouble(const struct gateway *gw, struct view *view)
{
	for (unsigned i = gw->n_ports; i-- > 0;)
		if (gw->ports[i].lost)
			snprintf(view->trouble, sizeof(view->trouble),
				 "port %s: its netdev %s was deleted: restart the gateway when there is one again",
				 gw->config->ports[i].name, gw->config->ports[i].device);
}

void gateway_publish_view(struct gateway *gw)
{
	struct view *view = calloc(1, sizeof(*view));

	if (!view)
		return;
	view->refs = 1;
	view->state = gw->state;
	view_trouble(gw, view);
	if (gw->netlink)
		netlink_report(gw->netlink, &view->kernel);
	if (services_view(gw->services, view) || breakers_view(gw->breakers, view, clock_monotonic_ns()) ||
	    view_gates(gw, view)) {
		view_free(view);
		return;
	}
	limiters_view(gw->limiters, view, observe_now_ns(gw->dp), clock_monotonic_ns());
	shedding_view(gw->shedding, view);
	pulse_late(&gw->pulse, &view->tick_p99_us, &view->tick_max_us);
	owners_note(gw->owners, view, observe_now_ns(gw->dp));
	view_publish(view);
}

static int keep_addresses_resolved(struct gateway *gw)
{
	size_t n = services_addresses(gw->services, NULL, 0);
	struct ipaddr *addrs = calloc(n + 1, sizeof(*addrs));
	int err;

	if (!addrs)
		return -ENOMEM;
	n = services_addresses(gw->services, addrs, n);
	err = netlink_keep_resolved(gw->netlink, addrs, n);
	free(addrs);
	return err;
}

static void keep_resolved(struct gateway *gw)
{
	int err = keep_addresses_resolved(gw);

	if (err && err != gw->keep_error)
		gateway_say(
			"not all neighbours towards backends are kept resolved: %s; the first packet to one may be lost",
			strerror(-err));
	gw->keep_error = err;
}

static void say_starved(struct gateway *gw)
{
	size_t n = services_starved(gw->services);

	if (n > gw->n_starved)
		gateway_say("no free slots for the backends of %zu services: they stay as they were", n);
	else if (n < gw->n_starved)
		gateway_say("backends of %zu services have slots again", gw->n_starved - n);
	gw->n_starved = n;
}

int gateway_publish_now(struct gateway *gw)
{
	int err = services_publish(gw->services);

	gw->last_publish_ns = clock_monotonic_ns();
	if (err && err != gw->publish_error)
		gateway_say("cannot publish: %s; the last policy stays", strerror(-err));
	gw->publish_error = err;
	if (err)
		return err;
	say_starved(gw);
	if (gw->netlink)
		keep_resolved(gw);
	breakers_look_again(gw->breakers);
	limiters_meet(gw->limiters, &gw->config->cures, observe_now_ns(gw->dp));
	if (gw->breakers_due) {
		gateway_run_breakers(gw);
		gateway_run_checks(gw);
	}
	return 0;
}

static void on_publish(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;

	if (gw->state != GATEWAY_READY || !services_dirty(gw->services))
		return;
	gateway_publish_now(gw);
	/* What left is shown as such from now on, not from the next tick. */
	gateway_publish_view(gw);
}

/* Soon, but not more often than once in PUBLISH_EVERY_NS. */
static void publish_soon(struct gateway *gw)
{
	uint64_t now_ns = clock_monotonic_ns(), due_ns = gw->last_publish_ns + PUBLISH_EVERY_NS;
	uint64_t wait_us = due_ns > now_ns ? (due_ns - now_ns) / 1000 : 1000;
	struct timeval tv = {.tv_sec = wait_us / 1000000, .tv_usec = wait_us % 1000000};

	if (!event_pending(gw->publish, EV_TIMEOUT, NULL))
		event_add(gw->publish, &tv);
}

void gateway_on_name(void *arg, const struct name_view *view)
{
	struct gateway *gw = arg;

	services_name_changed(gw->services, view);
	if (services_dirty(gw->services) && gw->state == GATEWAY_READY)
		publish_soon(gw);
}

/* --- breakers --- */

void gateway_run_breakers(struct gateway *gw)
{
	uint64_t now_ns = clock_monotonic_ns(), due_ns;
	struct timeval tv;

	breakers_run(gw->breakers, gw->config->cures.of[CURE_WALL], now_ns);
	due_ns = breakers_due_ns(gw->breakers);
	if (due_ns == UINT64_MAX) {
		event_del(gw->breakers_due);
		return;
	}
	due_ns = due_ns > now_ns ? due_ns - now_ns : 0;
	tv = (struct timeval){.tv_sec = due_ns / 1000000000, .tv_usec = due_ns % 1000000000 / 1000};
	event_add(gw->breakers_due, &tv);
}

static void on_breakers_due(evutil_socket_t fd, short what, void *arg)
{
	gateway_run_breakers(arg);
}

/* --- checks --- */

void gateway_run_checks(struct gateway *gw)
{
	uint64_t now_ns = clock_monotonic_ns(), due_ns;
	struct timeval tv;

	checks_run(gw->checks, gw->config->cures.of[CURE_WALL], now_ns);
	due_ns = checks_due_ns(gw->checks);
	if (due_ns == UINT64_MAX) {
		event_del(gw->checks_due);
		return;
	}
	due_ns = due_ns > now_ns ? due_ns - now_ns : 0;
	tv = (struct timeval){.tv_sec = due_ns / 1000000000, .tv_usec = due_ns % 1000000000 / 1000};
	event_add(gw->checks_due, &tv);
}

static void on_checks_due(evutil_socket_t fd, short what, void *arg)
{
	gateway_run_checks(arg);
}

void gateway_on_check(void *arg)
{
	gateway_run_breakers(arg);
}

bool gateway_is_usable(void *arg, const struct ipaddr *addr)
{
	return services_usable(((struct gateway *)arg)->services, addr);
}

/* --- events of the loop --- */

/* Whatever they were about. */
static void make_up_for_lost_notes(struct gateway *gw)
{
	uint64_t lost = dataplane_notes_lost(gw->dp);

	if (lost == gw->notes_lost)
		return;
	gw->notes_lost = lost;
	breakers_note_all(gw->breakers);
	gateway_run_breakers(gw);
}

static void watch_silence(struct gateway *gw)
{
	const struct view *view = view_get();

	if (view)
		silence_events_tick(gw->silence_events, gw->dp, view, gw->events, clock_monotonic_ns());
	view_put(view);
}

/* Packets are dropped for want of a route or neighbour that the kernel has. */
static void say_refused(struct gateway *gw)
{
	uint64_t now_ns = clock_monotonic_ns();
	struct netlink_report r;

	netlink_report(gw->netlink, &r);
	if (r.refused == gw->n_refused || (gw->refused_said_ns && now_ns - gw->refused_said_ns < SAY_AGAIN_NS))
		return;
	events_add(
		gw->events, EVENT_CRITICAL, "table_full", "gateway", "routes and neighbours",
		"%llu times one of the kernel's %llu routes to IPv4, %llu to IPv6 and %llu neighbours found no room: "
		"raise gateway.routes",
		(unsigned long long)(r.refused - gw->n_refused), (unsigned long long)r.routes_v4,
		(unsigned long long)r.routes_v6, (unsigned long long)r.neighbours);
	gw->n_refused = r.refused;
	gw->refused_said_ns = now_ns;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;

	make_up_for_lost_notes(gw);
	pulse_tick(&gw->pulse, clock_monotonic_ns());
	pulse_workers(&gw->pulse, gw->dp, gw->events, observe_now_ns(gw->dp));
	tables_tick(&gw->tables, gw->dp, gw->events, clock_monotonic_ns());
	services_reap(gw->services);
	paths_tick(gw->paths);
	say_refused(gw);
	gateway_publish_view(gw);
	watch_silence(gw);
	if (gw->state == GATEWAY_READY) {
		saved_tick(gw->saved, gw->names, services_name_changes(gw->services), clock_monotonic_ns());
		saved_limits_tick(gw->saved_limits, gw->limiters, observe_now_ns(gw->dp));
	}
	if (gw->state == GATEWAY_READY && services_dirty(gw->services) &&
	    clock_monotonic_ns() - gw->last_publish_ns > RETRY_NS)
		publish_soon(gw);
}

static void on_limiters(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;

	limiters_tick(gw->limiters, &gw->config->cures, observe_now_ns(gw->dp));
	budgets_tick(gw->budgets, &gw->config->cures, observe_now_ns(gw->dp));
	shedding_tick(gw->shedding, gw->config->cures.of[CURE_STORM], observe_now_ns(gw->dp), clock_monotonic_ns());
}

/* Each worker tells of its own share of the ports. */
static void say_ports(struct gateway *gw, const struct note *note)
{
	char snat[IPADDR_STRLEN], id[SLOT_ID_STRLEN];
	struct slot_info info;

	if (!services_backend(gw->services, note->ports.backend_slot, &info))
		return;
	ipaddr_format(&gw->config->snat[note->ports.snat], snat);
	if (note->ports.exhausted)
		events_add(
			gw->events, EVENT_CRITICAL, "ports_exhausted", "gateway", slots_id(&info, id),
			"none of a worker's %u ports of %s is free: new flows to it are refused, unless another address "
			"has one; add addresses to gateway.snat",
			note->ports.n_ports, snat);
	else
		events_add(gw->events, EVENT_WARNING, "ports_scarce", "gateway", slots_id(&info, id),
			   "four fifths of a worker's %u ports of %s are taken: add addresses to gateway.snat",
			   note->ports.n_ports, snat);
}

static void take_note(struct gateway *gw, const struct note *note)
{
	switch (note->kind) {
	case NOTE_NEIGHBOUR:
		netlink_resolve(gw->netlink, note->want.port, &note->want.addr);
		break;
	case NOTE_BACKEND:
		breakers_note(gw->breakers, note->backend.slot);
		break;
	case NOTE_PORTS:
		say_ports(gw, note);
		break;
	case NOTE_PATH_MTU:
		paths_note(gw->paths, note, gw->config->cures.of[CURE_PATH], clock_monotonic_ns());
		break;
	case NOTE_INSISTS:
		shedding_note(gw->shedding, note, gw->config->cures.of[CURE_STORM], observe_now_ns(gw->dp),
			      clock_monotonic_ns());
		break;
	}
}

/* One batch: what is left keeps the descriptor readable, and waits for its turn among all that decide has to do. */
static void on_notes(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;
	struct note notes[NOTES_AT_ONCE];
	size_t n = dataplane_notes(gw->dp, notes, NOTES_AT_ONCE);

	for (size_t i = 0; i < n; i++)
		take_note(gw, &notes[i]);
	gateway_run_breakers(gw);
}

static void say_link(struct gateway *gw, int port, const struct netlink_link *link)
{
	const struct config_port *config = &gw->config->ports[port];
	const uint8_t *m = link->mac;

	if (link->lost && link->present)
		events_add(gw->events, EVENT_CRITICAL, "port_replaced", "gateway", config->name,
			   "%s was deleted and made again, the port's sockets died with it: restart the gateway",
			   config->device);
	else
		events_add(gw->events, link->up ? EVENT_INFO : EVENT_CRITICAL,
			   !link->present ? "link_gone"
			   : link->up     ? "link_up"
					  : "link_down",
			   "gateway", config->name, "MTU %u, %02x:%02x:%02x:%02x:%02x:%02x", link->mtu, m[0], m[1],
			   m[2], m[3], m[4], m[5]);
}

void gateway_on_link(void *arg, int port, const struct netlink_link *link)
{
	struct gateway *gw = arg;

	gate_set_mac(gw->ports[port].gate, link->mac);
	gw->ports[port].lost = link->lost;
	say_link(gw, port, link);
	/* The first time, nothing is served yet. */
	if (!gw->breakers_due)
		return;
	breakers_look_again(gw->breakers);
	gateway_run_breakers(gw);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;

	gw->n_signals++;
	event_base_loopbreak(gw->base);
}

static void on_hangup(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;

	if (gw->state == GATEWAY_READY)
		gateway_reload(gw);
	else
		gw->reload_due = true;
}

/* --- what the loop waits for --- */

/* From the beginning to the end: a signal during the start or the stop must not leave half of either behind. */
int gateway_start_signals(struct gateway *gw)
{
	gw->sigterm = evsignal_new(gw->base, SIGTERM, on_signal, gw);
	gw->sigint = evsignal_new(gw->base, SIGINT, on_signal, gw);
	gw->sighup = evsignal_new(gw->base, SIGHUP, on_hangup, gw);
	if (!gw->sigterm || !gw->sigint || !gw->sighup)
		return -ENOMEM;
	event_add(gw->sigterm, NULL);
	event_add(gw->sigint, NULL);
	event_add(gw->sighup, NULL);
	return 0;
}

int gateway_start_events(struct gateway *gw)
{
	struct timeval tick = {.tv_usec = PULSE_TICK_MS * 1000}, limiters_tick = {.tv_usec = LIMITER_TICK_NS / 1000};

	gw->tick = event_new(gw->base, -1, EV_PERSIST, on_tick, gw);
	gw->limiters_due = event_new(gw->base, -1, EV_PERSIST, on_limiters, gw);
	gw->publish = event_new(gw->base, -1, 0, on_publish, gw);
	gw->notes = event_new(gw->base, dataplane_notes_fd(gw->dp), EV_READ | EV_PERSIST, on_notes, gw);
	gw->commands = event_new(gw->base, gw->command_fd, EV_READ | EV_PERSIST, gateway_on_commands, gw);
	gw->breakers_due = event_new(gw->base, -1, 0, on_breakers_due, gw);
	gw->checks_due = event_new(gw->base, -1, 0, on_checks_due, gw);
	if (!gw->tick || !gw->publish || !gw->notes || !gw->commands || !gw->breakers_due || !gw->checks_due ||
	    !gw->limiters_due)
		return -ENOMEM;
	event_add(gw->tick, &tick);
	event_add(gw->limiters_due, &limiters_tick);
	event_add(gw->notes, NULL);
	event_add(gw->commands, NULL);
	return 0;
}
