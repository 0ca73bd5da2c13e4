/* SPDX-License-Identifier: BSD-3-Clause */
#include "api.h"
#include "breakers.h"
#include "clock.h"
#include "dataplane.h"
#include "events.h"
#include "gate.h"
#include "gateway_private.h"
#include "guard.h"
#include "host_check.h"
#include "instance.h"
#include "memory_plan.h"
#include "names.h"
#include "netlink.h"
#include "observe.h"
#include "owners.h"
#include "paths.h"
#include "saved.h"
#include "services.h"
#include "silence_events.h"
#include "view.h"

#include <errno.h>
#include <event2/event.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#define ERR_LEN          512
#define RETRY_NS         5000000000ULL /* what could not be published is tried again after this */
#define PUBLISH_EVERY_NS 1000000000ULL /* a set that changes all the time is published this often */
#define FIRST_ANSWER_NS  3000000000ULL /* how long a start waits for DNS before it serves what it has */
#define FRESH_ANSWER_NS  300000000ULL  /* the same if it has saved addresses for all names */
#define HANG_NS          3000000000ULL
#define NOTES_AT_ONCE    64
#define STOP_MAX_MS      5000
#define STOP_PATIENCE_MS 1000            /* for the last of them */
#define STOP_FLOWS_PER_S 4500            /* what the limit on RSTs allows */
#define SAY_AGAIN_NS     600000000000ULL /* a trouble that goes on is an event this often */

void gateway_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("spillway: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

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
	if (services_view(gw->services, view) || view_gates(gw, view)) {
		view_free(view);
		return;
	}
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
	if (gw->breakers_due)
		gateway_run_breakers(gw);
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

static void on_name(void *arg, const struct name_view *view)
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

static bool is_usable(void *arg, const struct ipaddr *addr)
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
	services_reap(gw->services);
	paths_tick(gw->paths);
	say_refused(gw);
	gateway_publish_view(gw);
	watch_silence(gw);
	if (gw->state == GATEWAY_READY)
		saved_tick(gw->saved, gw->names, services_name_changes(gw->services), clock_monotonic_ns());
	if (gw->state == GATEWAY_READY && services_dirty(gw->services) &&
	    clock_monotonic_ns() - gw->last_publish_ns > RETRY_NS)
		publish_soon(gw);
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

static void on_link(void *arg, int port, const struct netlink_link *link)
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

/* --- gates and guard --- */

static size_t count_listeners(const struct config *config)
{
	size_t n = 0;

	for (size_t i = 0; i < config->n_services; i++)
		n += config->services[i].n_listen;
	return n;
}

int gateway_set_listeners(struct gateway *gw, const struct config *config)
{
	size_t n = 0;
	struct gate_listener *l = calloc(count_listeners(config) + 1, sizeof(*l));
	int err = l ? 0 : -ENOMEM;

	for (size_t i = 0; !err && i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_listen; j++) {
			const struct config_listen *c = &config->services[i].listen[j];

			l[n++] = (struct gate_listener){c->addr, c->port_be, c->proto};
		}
	for (unsigned i = 0; i < gw->n_ports && !err; i++)
		if (gw->ports[i].gate)
			err = gate_set_listeners(gw->ports[i].gate, l, n);
	if (err)
		gateway_say("cannot tell the gates of all listeners: %s", strerror(-err));
	free(l);
	return err;
}

int gateway_guard(struct gateway *gw, const struct config *config)
{
	size_t n = 0;
	struct guard_listener *l = calloc(count_listeners(config) + 1, sizeof(*l));
	char text[ERR_LEN] = "out of memory";
	int err = l ? 0 : -ENOMEM;

	for (size_t i = 0; !err && i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_listen; j++) {
			const struct config_listen *c = &config->services[i].listen[j];

			l[n++] = (struct guard_listener){c->addr, c->port_be, c->proto};
		}
	if (!err)
		err = guard_install(l, n, config->snat, config->n_snat, config->on_death == ON_FAIL_PASS, text,
				    sizeof(text));
	if (err)
		gateway_say("%s", text);
	else
		gw->guarded = true;
	free(l);
	return err;
}

/* --- start --- */

static int start_dataplane(struct gateway *gw)
{
	struct dataplane_config config = {0};
	unsigned n_queues = 0;
	char err[ERR_LEN];
	int rc;

	for (unsigned i = 0; i < gw->config->n_ports; i++) {
		rc = memory_plan_queues(&gw->config->ports[i], gw->config->n_workers, err, sizeof(err));
		if (rc < 0) {
			gateway_say("%s", err);
			return rc;
		}
		gw->ports[i].n_queues = rc;
		n_queues += rc;
	}
	config_to_dataplane(gw->config, n_queues, &config);
	config.max_frame = memory_plan_max_frame(gw->config);
	if (getrandom(config.secret, sizeof(config.secret), 0) != sizeof(config.secret))
		return -EIO;
	rc = memory_plan_check(gw->config, &config, n_queues, stderr);
	if (rc)
		return rc;
	rc = memory_plan_start(&config, n_queues);
	if (rc) {
		gateway_say(
			"cannot get memory for packets and tables: %s (did another process take hugepages just now?)",
			strerror(-rc));
		return rc;
	}
	gw->dp = dataplane_create(&config);
	if (!gw->dp) {
		rc = -errno;
		gateway_say("cannot create the dataplane: %s", strerror(-rc));
		return rc;
	}
	gw->services = services_create(gw->dp, &(struct services_config){
						       .n_service_slots = config.n_service_slots,
						       .n_backend_slots = config.n_backend_slots,
						       .poison = getenv("SPILLWAY_POISON") != NULL,
						       .events = gw->events,
					       });
	gw->paths = paths_create(gw->dp, gw->events);
	gw->silence_events = silence_events_create(config.n_backend_slots);
	gw->owners = owners_create(config.n_service_slots, config.n_backend_slots);
	if (!gw->services || !gw->paths || !gw->silence_events || !gw->owners)
		return -ENOMEM;
	gw->breakers = breakers_create(gw->dp, gw->services, gw->events,
				       &(struct breakers_config){config.n_backend_slots, config.n_service_slots});
	return gw->breakers ? 0 : -errno;
}

static int start_gate(struct gateway *gw, const struct config_port *port, struct gateway_port *gp)
{
	char err[ERR_LEN];
	struct gate_config config = {
		.device = port->device,
		.n_queues = gp->n_queues,
		.max_frame = memory_plan_max_frame(gw->config),
		.mode = port->skb_mode ? GATE_SKB : GATE_NATIVE,
		.on_hang = gw->config->on_hang == ON_FAIL_PASS ? GATE_PASS : GATE_DROP,
		.hang_ns = HANG_NS,
		.max_listeners = CONFIG_MAX_LISTEN_IN_ALL,
		.max_snat = DATAPLANE_MAX_SNAT,
	};
	int rc = gate_check_device(&config, err, sizeof(err));

	if (rc == 0) {
		gp->gate = gate_open(&config, err, sizeof(err));
		rc = gp->gate ? 0 : -errno;
	}
	if (rc)
		gateway_say("port %s: %s", port->name, err);
	else if (gate_device_is_veth(port->device))
		gateway_say(
			"port %s: %s is a veth: its peer must not leave checksums to it (ethtool -K PEER tx off tso off gso off)",
			port->name, port->device);
	return rc;
}

static int wire_gate(struct gateway *gw, struct gateway_port *gp)
{
	int rc = 0;

	for (unsigned q = 0; q < gp->n_queues && !rc; q++) {
		dataplane_port_set_heartbeat(gw->dp, gp->index, q, gate_heartbeat(gp->gate, q));
		rc = gate_set_socket(gp->gate, q, GATE_KNOWN, dataplane_port_fd(gw->dp, gp->index, q, RX_KNOWN));
		if (!rc)
			rc = gate_set_socket(gp->gate, q, GATE_NEW, dataplane_port_fd(gw->dp, gp->index, q, RX_NEW));
	}
	return rc ? rc : gate_set_snat(gp->gate, gw->config->snat, gw->config->n_snat);
}

static int start_port(struct gateway *gw, unsigned i)
{
	const struct config_port *port = &gw->config->ports[i];
	struct gateway_port *gp = &gw->ports[i];
	struct port_config config = {
		.kind = port->kind,
		.n_queues = gp->n_queues,
		.force_copy = port->force_copy,
		.skb_mode = port->skb_mode,
	};
	char err[ERR_LEN];
	int rc;

	/* Before anything is opened: if the netdev is replaced meanwhile, that shows. */
	gp->ifindex = port->kind == PORT_XSK ? if_nametoindex(port->device) : 0;
	snprintf(config.name, sizeof(config.name), "%s", port->name);
	snprintf(config.device, sizeof(config.device), "%s", port->device);
	if (port->kind == PORT_XSK) {
		rc = start_gate(gw, port, gp);
		if (rc)
			return rc;
	}
	gp->index = dataplane_add_port(gw->dp, &config, err, sizeof(err));
	if (gp->index < 0) {
		gateway_say("port %s: %s", port->name, err);
		return gp->index;
	}
	gw->n_ports = i + 1;
	if (!gp->gate)
		gateway_say(
			"port %s: a DPDK port has no way to the kernel yet: no route or neighbour leads out through it",
			port->name);
	rc = gp->gate ? wire_gate(gw, gp) : 0;
	if (rc)
		gateway_say("port %s: cannot fill the gate's maps: %s", port->name, strerror(-rc));
	return rc;
}

static int start_netlink(struct gateway *gw)
{
	struct netlink_port ports[DATAPLANE_MAX_PORTS];
	size_t n = 0;
	int rc;

	for (unsigned i = 0; i < gw->n_ports; i++)
		if (gw->ports[i].gate)
			ports[n++] = (struct netlink_port){gw->ports[i].index, gw->config->ports[i].device,
							   gw->ports[i].ifindex};
	gw->netlink = netlink_create(gw->base, gw->dp, ports, n, on_link, gw);
	rc = gw->netlink ? 0 : -errno;
	if (rc)
		gateway_say("cannot follow the kernel's routes: %s", strerror(-rc));
	return rc;
}

/* The names are watched, and none has an answer yet. */
static int start_saved(struct gateway *gw)
{
	unsigned n;

	gw->saved = saved_create(gw->config->state_dir, gw->config->dns_stale_ns, gw->events);
	if (!gw->saved)
		return -ENOMEM;
	n = saved_load(gw->saved, gw->names);
	if (n)
		gateway_say("%u sets of addresses from before, in %s", n, gw->config->state_dir);
	return 0;
}

static int start_names(struct gateway *gw)
{
	char servers[CONFIG_MAX_DNS_SERVERS * 65] = "";
	struct names_config config = {
		.servers_csv = gw->config->n_dns_servers ? servers : NULL,
		.min_ttl_ns = gw->config->dns_min_ttl_ns,
		.max_ttl_ns = gw->config->dns_max_ttl_ns,
		.stale_ns = gw->config->dns_stale_ns,
		.usable = is_usable,
	};
	int rc;

	for (unsigned i = 0; i < gw->config->n_dns_servers; i++) {
		strcat(servers, i ? "," : "");
		strcat(servers, gw->config->dns_servers[i]);
	}
	gw->names = names_create(gw->base, &config, on_name, gw);
	if (!gw->names) {
		rc = -errno;
		gateway_say("cannot start the resolver: %s", strerror(-rc));
		return rc;
	}
	rc = services_configure(gw->services, gw->config, gw->names);
	if (rc)
		gateway_say("more services than there are slots");
	return rc ? rc : start_saved(gw);
}

static void run_for_10ms(struct gateway *gw)
{
	struct timeval tick = {.tv_usec = 10000};

	event_base_loopexit(gw->base, &tick);
	event_base_dispatch(gw->base);
}

/*
 * Serving begins with the answers that came in time; the others change the policy when they come. Who has something
 * saved for every name waits for a moment only, so as not to begin with what is not true any more.
 */
static bool waits_for_names(const struct gateway *gw, uint64_t waited_ns)
{
	if (gw->n_signals || services_answered(gw->services))
		return false;
	return waited_ns < (services_resolved(gw->services) ? FRESH_ANSWER_NS : FIRST_ANSWER_NS);
}

static void wait_for_names(struct gateway *gw)
{
	uint64_t begin_ns = clock_monotonic_ns();

	while (waits_for_names(gw, clock_monotonic_ns() - begin_ns))
		run_for_10ms(gw);
	if (!services_resolved(gw->services))
		gateway_say("some names are not resolved yet; their services refuse until they are");
}

static int start_api(struct gateway *gw)
{
	char err[ERR_LEN];
	struct api_config config = {
		.socket_path = gw->config->api_socket,
		.http = gw->config->api_http,
		.version = SPILLWAY_VERSION,
		.started_ns = gw->started_ns,
		.notify_fd = gw->command_fd,
		.events = gw->events,
		.owners = gw->owners,
	};

	gw->api = api_start(&config, gw->dp, err, sizeof(err));
	if (!gw->api) {
		gateway_say("%s", err);
		return -EIO;
	}
	gateway_set_config_text(gw);
	return 0;
}

static int attach_gates(struct gateway *gw)
{
	char err[ERR_LEN];

	for (unsigned i = 0; i < gw->n_ports; i++) {
		if (!gw->ports[i].gate)
			continue;
		if (gate_attach(gw->ports[i].gate, err, sizeof(err))) {
			gateway_say("port %s: %s", gw->config->ports[i].name, err);
			return -EIO;
		}
	}
	return 0;
}

/* From the beginning to the end: a signal during the start or the stop must not leave half of either behind. */
static int start_signals(struct gateway *gw)
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

static int start_events(struct gateway *gw)
{
	struct timeval tick = {.tv_usec = PULSE_TICK_MS * 1000};

	gw->tick = event_new(gw->base, -1, EV_PERSIST, on_tick, gw);
	gw->publish = event_new(gw->base, -1, 0, on_publish, gw);
	gw->notes = event_new(gw->base, dataplane_notes_fd(gw->dp), EV_READ | EV_PERSIST, on_notes, gw);
	gw->commands = event_new(gw->base, gw->command_fd, EV_READ | EV_PERSIST, gateway_on_commands, gw);
	gw->breakers_due = event_new(gw->base, -1, 0, on_breakers_due, gw);
	if (!gw->tick || !gw->publish || !gw->notes || !gw->commands || !gw->breakers_due)
		return -ENOMEM;
	event_add(gw->tick, &tick);
	event_add(gw->notes, NULL);
	event_add(gw->commands, NULL);
	return 0;
}

static int start_host_check(struct gateway *gw)
{
	char err[ERR_LEN];
	int rc = host_check_snat(gw->config, err, sizeof(err));

	if (rc)
		gateway_say("%s", err);
	return rc;
}

static int start_instance(struct gateway *gw)
{
	char err[ERR_LEN];

	gw->instance_fd = instance_claim(err, sizeof(err));
	if (gw->instance_fd < 0)
		gateway_say("%s", err);
	return gw->instance_fd < 0 ? gw->instance_fd : 0;
}

/*
 * The guard comes before everything that could let a packet reach the kernel, the gates last: until then clients hear
 * nothing, and try again.
 */
static int start_all(struct gateway *gw)
{
	int rc = start_signals(gw);

	if (!rc)
		rc = start_instance(gw);
	if (!rc)
		rc = start_host_check(gw);
	if (!rc)
		rc = start_dataplane(gw);
	for (unsigned i = 0; i < gw->config->n_ports && !rc; i++)
		rc = start_port(gw, i);
	if (!rc) {
		gw->guard_was_there = guard_installed();
		rc = gateway_guard(gw, gw->config);
	}
	if (!rc)
		rc = gateway_set_listeners(gw, gw->config);
	if (!rc)
		rc = start_netlink(gw);
	if (!rc)
		rc = start_names(gw);
	if (!rc)
		rc = start_events(gw);
	if (rc)
		return rc;
	wait_for_names(gw);
	rc = gateway_publish_now(gw);
	if (!rc)
		rc = dataplane_start(gw->dp);
	if (!rc)
		gateway_publish_view(gw);
	if (!rc)
		rc = start_api(gw);
	if (!rc)
		rc = attach_gates(gw);
	return rc;
}

struct gateway *gateway_start(struct config *config, const char *config_path)
{
	struct gateway *gw = calloc(1, sizeof(*gw));
	int rc;

	if (!gw) {
		config_free(config);
		return NULL;
	}
	gw->config = config;
	gw->instance_fd = -1;
	gw->started_ns = clock_monotonic_ns();
	gw->config_path = config_path;
	gw->command_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	gw->base = event_base_new();
	gw->events = events_create(stderr);
	rc = gw->command_fd >= 0 && gw->base && gw->events ? start_all(gw) : -ENOMEM;
	if (rc) {
		/* What failed has said more. */
		gateway_say("not started: %s", strerror(-rc));
		gateway_stop(gw);
		return NULL;
	}
	gw->state = GATEWAY_READY;
	gateway_publish_view(gw);
	events_add(gw->events, EVENT_INFO, "started", "gateway", config_path, "%zu services, %u workers, in %.1f s",
		   config->n_services, config->n_workers, (clock_monotonic_ns() - gw->started_ns) / 1e9);
	gateway_say("ready");
	if (gw->reload_due)
		gateway_reload(gw);
	return gw;
}

void gateway_run(struct gateway *gw)
{
	/* A break that came while the start ran its loop is over with it. */
	if (!gw->n_signals)
		event_base_dispatch(gw->base);
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

/* --- stop --- */

static uint64_t count_flows(const struct gateway *gw)
{
	struct worker_report r;
	uint64_t n = 0;

	for (unsigned i = 0; i < dataplane_n_workers(gw->dp); i++) {
		observe_worker(gw->dp, i, &r);
		n += r.flows_v4 + r.flows_v6;
	}
	return n;
}

/*
 * Both ends of every flow learn that it is over: the next gateway will not know them. As fast as the limit on RSTs
 * allows, for STOP_MAX_MS at most. New flows do not begin any more: whoever comes now hears nothing, and tries again.
 */
static void end_flows(struct gateway *gw)
{
	uint64_t begin_ns = clock_monotonic_ns(), flows = count_flows(gw), want_ms = flows * 1000 / STOP_FLOWS_PER_S;
	uint32_t spread_ms = want_ms < STOP_MAX_MS ? want_ms : STOP_MAX_MS;

	if (!flows || gw->config->cures.of[CURE_SILENCE] != CURE_ENFORCE || services_close(gw->services))
		return;
	gateway_publish_view(gw);
	gateway_say("ending %llu flows", (unsigned long long)flows);
	dataplane_reap_all(gw->dp, &(struct reap_order){.cause = REAP_STOP, .spread_ms = spread_ms});
	while (gw->n_signals < 2 && count_flows(gw) &&
	       clock_monotonic_ns() - begin_ns < (spread_ms + STOP_PATIENCE_MS) * 1000000ULL)
		run_for_10ms(gw);
}

/*
 * Nothing new comes in, then the workers end, then the kernel may answer for our addresses again. After a start that
 * failed it may not, if a gateway that died had left the guard.
 */
void gateway_stop(struct gateway *gw)
{
	bool remove_guard, was_ready;

	if (!gw)
		return;
	remove_guard = gw->guarded && (gw->state != GATEWAY_STARTING || !gw->guard_was_there);
	was_ready = gw->state == GATEWAY_READY;
	gw->state = GATEWAY_DRAINING;
	if (was_ready)
		end_flows(gw);
	if (gw->events)
		events_wake(gw->events);
	api_stop(gw->api);
	view_publish(NULL);
	for (unsigned i = 0; i < gw->config->n_ports; i++)
		if (gw->ports[i].gate)
			gate_detach(gw->ports[i].gate);
	if (gw->dp)
		dataplane_stop(gw->dp);
	/* Before the descriptors that they watch are closed. */
	free_event(gw->tick);
	free_event(gw->publish);
	free_event(gw->notes);
	free_event(gw->commands);
	free_event(gw->breakers_due);
	/* Only now: workers beat in the gates' memory. */
	for (unsigned i = 0; i < gw->config->n_ports; i++)
		gate_close(gw->ports[i].gate);
	if (was_ready)
		saved_write(gw->saved, gw->names);
	saved_destroy(gw->saved);
	names_destroy(gw->names);
	netlink_destroy(gw->netlink);
	breakers_destroy(gw->breakers);
	services_destroy(gw->services);
	paths_destroy(gw->paths);
	silence_events_destroy(gw->silence_events);
	owners_destroy(gw->owners);
	dataplane_destroy(gw->dp);
	if (remove_guard)
		guard_remove();
	free_event(gw->sigterm);
	free_event(gw->sigint);
	free_event(gw->sighup);
	if (gw->base)
		event_base_free(gw->base);
	if (gw->command_fd >= 0)
		close(gw->command_fd);
	if (gw->instance_fd >= 0)
		close(gw->instance_fd);
	events_destroy(gw->events);
	config_free(gw->config);
	free(gw);
}
