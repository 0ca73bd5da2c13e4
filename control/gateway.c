/* SPDX-License-Identifier: BSD-3-Clause */
#include "api.h"
#include "breakers.h"
#include "budgets.h"
#include "checks.h"
#include "clock.h"
#include "dataplane.h"
#include "events.h"
#include "gate.h"
#include "gateway_private.h"
#include "guard.h"
#include "host_check.h"
#include "instance.h"
#include "limiters.h"
#include "memory_plan.h"
#include "names.h"
#include "netlink.h"
#include "observe.h"
#include "owners.h"
#include "paths.h"
#include "saved.h"
#include "saved_limits.h"
#include "services.h"
#include "shed.h"
#include "shedding.h"
#include "silence_events.h"
#include "view.h"

#include <errno.h>
#include <event2/event.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#define ERR_LEN          512
#define FIRST_ANSWER_NS  3000000000ULL /* how long a start waits for DNS before it serves what it has */
#define FRESH_ANSWER_NS  300000000ULL  /* the same if it has saved addresses for all names */
#define HANG_NS          3000000000ULL
#define STOP_MAX_MS      5000
#define STOP_PATIENCE_MS 1000 /* for the last of them */
#define STOP_FLOWS_PER_S 4500 /* what the limit on RSTs allows */

void gateway_say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("spillway: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
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

static bool has_gate(const struct config *config)
{
	for (unsigned i = 0; i < config->n_ports; i++)
		if (config->ports[i].kind == PORT_XSK)
			return true;
	return false;
}

static int start_shedding(struct gateway *gw, uint32_t n_service_slots)
{
	struct shedding_config config = {.max_clients = SHEDDING_CLIENTS, .n_service_slots = n_service_slots};
	struct shed_config maps = {SHEDDING_CLIENTS, SHEDDING_LISTENERS, n_service_slots};
	char err[ERR_LEN];

	if (has_gate(gw->config)) {
		gw->shed = shed_open(&maps, err, sizeof(err));
		if (!gw->shed) {
			int rc = -errno;

			gateway_say("%s", err);
			return rc;
		}
	}
	config.shed = gw->shed;
	gw->shedding = shedding_create(gw->dp, gw->services, gw->events, &config);
	return gw->shedding ? 0 : -errno;
}

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
	if (getrandom(config.secret, sizeof(config.secret), 0) != sizeof(config.secret) ||
	    getrandom(config.isn_key, sizeof(config.isn_key), 0) != sizeof(config.isn_key))
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
	if (!gw->breakers)
		return -errno;
	gw->limiters = limiters_create(gw->dp, gw->services, gw->events,
				       &(struct limiters_config){config.n_backend_slots, config.n_service_slots});
	gw->budgets = budgets_create(gw->dp, gw->services, config.n_service_slots);
	gw->checks = checks_create(gw->dp, gw->services, gw->breakers, gw->base, config.n_backend_slots,
				   gateway_on_check, gw);
	return gw->checks && gw->limiters && gw->budgets ? start_shedding(gw, config.n_service_slots) : -ENOMEM;
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
		.shed = gw->shed,
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
	gw->netlink = netlink_create(gw->base, gw->dp, ports, n, gateway_on_link, gw);
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
	gw->saved_limits = saved_limits_create(gw->config->state_dir, gw->events);
	if (!gw->saved_limits)
		return -ENOMEM;
	n = saved_limits_load(gw->saved_limits, gw->limiters, observe_now_ns(gw->dp));
	if (n)
		gateway_say("what is usual of %u backends is known from before, in %s", n, gw->config->state_dir);
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
		.usable = gateway_is_usable,
	};
	int rc;

	for (unsigned i = 0; i < gw->config->n_dns_servers; i++) {
		strcat(servers, i ? "," : "");
		strcat(servers, gw->config->dns_servers[i]);
	}
	gw->names = names_create(gw->base, &config, gateway_on_name, gw);
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
		.shedding = gw->shedding,
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
	int rc = gateway_start_signals(gw);

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
		rc = gateway_start_events(gw);
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
	free_event(gw->limiters_due);
	free_event(gw->publish);
	free_event(gw->notes);
	free_event(gw->commands);
	free_event(gw->breakers_due);
	free_event(gw->checks_due);
	/* Only now: workers beat in the gates' memory. */
	for (unsigned i = 0; i < gw->config->n_ports; i++)
		gate_close(gw->ports[i].gate);
	if (was_ready) {
		saved_write(gw->saved, gw->names);
		saved_limits_write(gw->saved_limits, gw->limiters, observe_now_ns(gw->dp));
	}
	saved_destroy(gw->saved);
	saved_limits_destroy(gw->saved_limits);
	names_destroy(gw->names);
	netlink_destroy(gw->netlink);
	checks_destroy(gw->checks);
	breakers_destroy(gw->breakers);
	limiters_destroy(gw->limiters);
	budgets_destroy(gw->budgets);
	shedding_destroy(gw->shedding);
	shed_close(gw->shed);
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
