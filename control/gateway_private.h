/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The gateway's insides, for gateway*.c alone: its start and stop are in gateway.c, what wakes it in between in
 * gateway_loop.c, what users command in gateway_command.c.
 */
#pragma once

#include "config.h"
#include "dataplane.h"
#include "gateway.h"
#include "pulse.h"
#include "tables.h"
#include "view.h"

#include <event2/event.h>
#include <stdbool.h>

struct breakers;
struct checks;
struct events;
struct ipaddr;
struct budgets;
struct limiters;
struct name_view;
struct netlink_link;
struct shed;
struct shedding;
struct silence_events;

struct gateway_port {
	int index;
	unsigned n_queues;
	struct gate *gate; /* NULL: a port of DPDK's own */
	uint32_t ifindex;  /* of the netdev that it was opened on */
	bool lost;         /* that netdev is gone: only a restart opens the port anew */
};

struct gateway {
	struct config *config;
	const char *config_path;
	struct event_base *base;
	struct dataplane *dp;
	struct gateway_port ports[DATAPLANE_MAX_PORTS];
	unsigned n_ports;
	struct netlink *netlink;
	struct names *names;
	struct services *services;
	struct paths *paths;
	struct breakers *breakers;
	struct checks *checks;
	struct limiters *limiters;
	struct budgets *budgets;
	struct shed *shed;         /* what the gates discard; NULL: there is no gate */
	struct shedding *shedding; /* decides that */
	struct saved *saved;
	struct saved_limits *saved_limits;
	struct api *api;
	struct events *events;
	struct silence_events *silence_events;
	struct owners *owners;
	struct pulse pulse;
	struct tables tables;
	int command_fd;
	int instance_fd;
	uint64_t started_ns, last_publish_ns;
	enum gateway_state state;
	bool guarded;
	bool guard_was_there; /* before the start: a start that fails leaves it */
	unsigned n_signals;   /* to stop, perhaps before gateway_run(); a second one is impatient */
	bool reload_due;      /* a SIGHUP came during the start */
	int publish_error;    /* of the last publish: each is said once */
	int keep_error;       /* the same of the neighbours */
	size_t n_starved;
	uint64_t notes_lost;
	uint64_t n_refused;       /* of the mirror: what was said of it */
	uint64_t refused_said_ns; /* 0: never */
	struct event *tick, *publish, *notes, *commands, *breakers_due, *checks_due, *limiters_due;
	struct event *sigterm, *sigint, *sighup;
};

__attribute__((format(printf, 1, 2))) void gateway_say(const char *format, ...);

/* Each returns 0 or -errno after having said why. */
int gateway_publish_now(struct gateway *gw);
int gateway_set_listeners(struct gateway *gw, const struct config *config);
int gateway_guard(struct gateway *gw, const struct config *config);

/* After anything that may concern breakers: settles it, and sets the timer for what is due next. */
void gateway_run_breakers(struct gateway *gw);
/* After anything that may concern what is checked, and how. */
void gateway_run_checks(struct gateway *gw);
/* A check came to something; `arg` is the gateway. */
void gateway_on_check(void *arg);
/* What a user's reload does; what becomes of it is said on the log. */
void gateway_reload(struct gateway *gw);
void gateway_publish_view(struct gateway *gw);
void gateway_set_config_text(struct gateway *gw);
void gateway_on_commands(evutil_socket_t fd, short what, void *arg);

/* All that the loop waits for; each returns 0 or -ENOMEM. Signals come first, and the rest when there is a dataplane.
 */
int gateway_start_signals(struct gateway *gw);
int gateway_start_events(struct gateway *gw);

/* Of names.h and netlink.h; `arg` is the gateway. */
void gateway_on_name(void *arg, const struct name_view *view);
bool gateway_is_usable(void *arg, const struct ipaddr *addr);
void gateway_on_link(void *arg, int port, const struct netlink_link *link);
