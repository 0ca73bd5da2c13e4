/* SPDX-License-Identifier: BSD-3-Clause */
#include "api.h"
#include "api_query.h"
#include "breakers.h"
#include "clock.h"
#include "drain.h"
#include "events.h"
#include "gateway_private.h"
#include "limiters.h"
#include "observe.h"
#include "services.h"
#include "shedding.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Into an array of JSON strings; a message that quotes bytes which are no UTF-8 is in the log alone. */
static void collect(void *arg, const char *message)
{
	json_t *text = json_string(message);

	gateway_say("%s", message);
	json_array_append_new(arg, text ? text : json_string("a message that is no UTF-8: see the log"));
}

void gateway_set_config_text(struct gateway *gw)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	config_print(gw->config, f);
	if (fclose(f) == 0)
		api_set_config_text(gw->api, text);
	free(text);
}

static void refuse(struct api_command *c, int status, const char *why)
{
	c->status = status;
	c->answer = json_pack("{s:s}", "error", why);
}

/* NULL if refused; then `c` is answered and nothing has changed. */
static struct config *load_again(struct gateway *gw, struct api_command *c)
{
	json_t *problems = json_array();
	struct config *config = config_load(gw->config_path, collect, problems);

	if (!config) {
		refuse(c, 400, "the file is refused, the last configuration stays");
		json_object_set(c->answer, "problems", problems);
	} else if (!config_same_gateway(config, gw->config)) {
		refuse(c, 409, "the gateway and dns sections cannot change while it runs: restart it");
		config_free(config);
		config = NULL;
	}
	json_decref(problems);
	return config;
}

/* What publishes nothing changes nothing: then the old configuration is back, with all that DNS said of it. */
static int take_over(struct gateway *gw, struct config *config, struct api_command *c)
{
	int err = services_configure(gw->services, config, gw->names);

	if (err) {
		refuse(c, 409, "more services than there are slots; restart with the new file");
		return err;
	}
	err = gateway_publish_now(gw);
	if (err) {
		services_revert(gw->services);
		refuse(c, 500, "it could not be published, the last configuration stays: see the log");
	}
	return err;
}

/* The first that is more than a warning; NULL: there is none. */
static const char *first_problem(const json_t *problems)
{
	const json_t *problem;
	size_t i;

	json_array_foreach(problems, i, problem)
	{
		if (!strstr(json_string_value(problem), ": warning: "))
			return json_string_value(problem);
	}
	return NULL;
}

static void tell_refused(struct gateway *gw, const struct api_command *c)
{
	const char *why = json_string_value(json_object_get(c->answer, "error"));
	const char *first = first_problem(json_object_get(c->answer, "problems"));

	events_add(gw->events, EVENT_WARNING, "reload_refused", "gateway", gw->config_path, "%s%s%s, by uid %u",
		   why ? why : "out of memory", first ? ": " : "", first ? first : "", c->uid);
}

/*
 * Everything is checked before anything changes. The policy is first: it knows a new listener before the gate sends
 * packets for it, and the gate sends those of an old one until the policy has refused them.
 */
static void reload_by(struct gateway *gw, struct api_command *c, const char *who)
{
	struct config *config = load_again(gw, c);
	bool done;

	if (!config) {
		tell_refused(gw, c);
		return;
	}
	if (take_over(gw, config, c)) {
		config_free(config);
		tell_refused(gw, c);
		return;
	}
	config_free(gw->config);
	gw->config = config;
	shedding_end_all(gw->shedding, observe_now_ns(gw->dp), clock_monotonic_ns());
	done = !gateway_guard(gw, config);
	done = !gateway_set_listeners(gw, config) && done;
	gateway_set_config_text(gw);
	gateway_publish_view(gw);
	gateway_run_breakers(gw);
	gateway_run_checks(gw);
	if (done) {
		c->status = 200;
		c->answer = json_pack("{s:I}", "services", (json_int_t)config->n_services);
	} else {
		refuse(c, 500, "loaded, but not all of it could be put to work: see the log, and restart");
	}
	events_add(gw->events, done ? EVENT_INFO : EVENT_CRITICAL, "reloaded", "gateway", gw->config_path,
		   "%zu services%s, by %s", config->n_services, done ? "" : ", in part only", who);
}

static void reload(struct gateway *gw, const struct api_query *query, struct api_command *c)
{
	char who[32];

	snprintf(who, sizeof(who), "uid %u", c->uid);
	reload_by(gw, c, who);
}

void gateway_reload(struct gateway *gw)
{
	struct api_command c = {.status = 500};

	reload_by(gw, &c, "SIGHUP");
	if (c.status != 200)
		gateway_say("SIGHUP: %s", json_string_value(json_object_get(c.answer, "error")));
	json_decref(c.answer);
}

/* Until the next reload, whose file says all modes anew. */
static void set_cure(struct gateway *gw, const struct api_query *query, struct api_command *c)
{
	enum cure_mode *mode = &gw->config->cures.of[query->cure], before = *mode;

	if (!(query->given & PARAM_CURE) || !(query->given & PARAM_MODE)) {
		refuse(c, 400, "expected cure= and mode=");
		return;
	}
	*mode = query->mode;
	services_modes_changed(gw->services);
	if (gateway_publish_now(gw)) {
		*mode = before;
		services_modes_changed(gw->services);
		refuse(c, 500, "it could not be published, the mode stays: see the log");
		return;
	}
	if (query->cure == CURE_STORM && query->mode != CURE_ENFORCE)
		shedding_end_all(gw->shedding, observe_now_ns(gw->dp), clock_monotonic_ns());
	gateway_set_config_text(gw);
	gateway_run_breakers(gw);
	c->status = 200;
	c->answer = json_pack("{s:s,s:s,s:s}", "cure", cure_name[query->cure], "mode", cure_mode_name[query->mode],
			      "before", cure_mode_name[before]);
	events_add(gw->events, EVENT_INFO, "cure_mode", cure_name[query->cure], cure_name[query->cure],
		   "%s, was %s; for flows that begin from now on; by uid %u", cure_mode_name[query->mode],
		   cure_mode_name[before], c->uid);
}

static void refuse_drain(struct api_command *c, int err)
{
	switch (err) {
	case -ENOENT:
		refuse(c, 404, "no such backend, or no such service that has it, or it is not out");
		break;
	case -EALREADY:
		refuse(c, 409, "it is out already");
		break;
	case -EBUSY:
		refuse(c, 409, "it is the last backend that a service has for a listener");
		break;
	case -ENOSPC:
		refuse(c, 409, "too many backends are out");
		break;
	default:
		refuse(c, 409, "a deadline ends flows, which the cure names does in mode enforce alone");
	}
}

static void say_drained(struct gateway *gw, const struct drain_order *order, const struct drain_result *result,
			uint32_t uid)
{
	char how_long[48] = "as long as `drain` says";

	if (order->put_back) {
		events_add(gw->events, EVENT_INFO, "backend_put_back", "names", order->backend,
			   "for %zu services, by uid %u", result->n_services, uid);
		return;
	}
	if (order->deadline_ns != DRAIN_BY_SERVICE)
		snprintf(how_long, sizeof(how_long), "for %llu s",
			 (unsigned long long)(order->deadline_ns / 1000000000));
	events_add(gw->events, EVENT_INFO, "backend_taken_out", "names", order->backend,
		   "of %zu services; %llu flows stay %s; by uid %u", result->n_services,
		   (unsigned long long)result->flows, how_long, uid);
}

/* It is out until it is put back, or until the next reload. */
static void drain(struct gateway *gw, const struct api_query *query, struct api_command *c)
{
	struct drain_order order = {
		.backend = query->backend,
		.service = query->given & PARAM_SERVICE ? query->service : NULL,
		.put_back = query->given & PARAM_SET,
		.deadline_ns = query->given & PARAM_DEADLINE ? query->deadline_ns : DRAIN_BY_SERVICE,
	};
	struct drain_result result;
	int err;

	if (!(query->given & PARAM_BACKEND) || (order.put_back && query->given & PARAM_DEADLINE)) {
		refuse(c, 400, "expected backend=, service= if it is for one alone, and deadline= or set=auto");
		return;
	}
	err = services_drain(gw->services, &order, &result);
	if (err) {
		refuse_drain(c, err);
		return;
	}
	if (gateway_publish_now(gw)) {
		services_undrain(gw->services);
		refuse(c, 500, "it could not be published, nothing was done: see the log");
		return;
	}
	gateway_publish_view(gw);
	c->status = 200;
	c->answer = json_pack("{s:s,s:s,s:I,s:I}", "backend", order.backend, "set", order.put_back ? "auto" : "out",
			      "services", (json_int_t)result.n_services, "flows", (json_int_t)result.flows);
	say_drained(gw, &order, &result, c->uid);
}

/* Until the next word about it. */
static void set_breaker(struct gateway *gw, const struct api_query *query, struct api_command *c)
{
	enum cure_mode mode = gw->config->cures.of[CURE_WALL];
	int err;

	if (!(query->given & PARAM_BACKEND) || !(query->given & PARAM_FORCE)) {
		refuse(c, 400, "expected backend= and set=open, close or auto");
		return;
	}
	err = breakers_force(gw->breakers, query->backend, query->force, mode, clock_monotonic_ns());
	if (err) {
		refuse(c, err == -ENOENT ? 404 : 409,
		       err == -ENOENT ? "no such backend"
				      : "the cure wall is off: no breaker keeps flows from anybody");
		return;
	}
	gateway_run_breakers(gw);
	c->status = 200;
	c->answer = json_pack("{s:s,s:s}", "backend", query->backend, "set", breaker_force_name[query->force]);
	events_add(gw->events, EVENT_INFO, "breaker_set", "wall", query->backend, "%s%s, by uid %u",
		   query->force == FORCE_AUTO   ? "left to itself again"
		   : query->force == FORCE_OPEN ? "held open: no new flows"
						: "held closed, whatever fails",
		   mode == CURE_SHADOW ? " (shadow: it gets new flows all the same)" : "", c->uid);
}

/* A base is what first bytes usually take: the words of B.10. */
static void reset_limiter(struct gateway *gw, const struct api_query *query, struct api_command *c)
{
	int result;

	if (!(query->given & PARAM_BACKEND) || !(query->given & PARAM_RESET)) {
		refuse(c, 400, "expected backend= and set=reset");
		return;
	}
	result = limiters_reset(gw->limiters, query->backend, gw->config->cures.of[CURE_STORM], observe_now_ns(gw->dp));
	if (result < 0) {
		refuse(c, result == -ENOENT ? 404 : 409,
		       result == -ENOENT ? "no such backend"
					 : "the cure storm is off: nothing is known of any backend");
		return;
	}
	c->status = 200;
	c->answer = json_pack("{s:s,s:s}", "backend", query->backend, "set", result ? "measuring" : "forgotten");
	events_add(gw->events, EVENT_INFO, "usual_reset", cure_name[CURE_STORM], query->backend, "%s, by uid %u",
		   result ? "limited as it is, it is asked with half as much at once, for what first bytes take now"
			  : "what first bytes usually take is forgotten, and measured anew",
		   c->uid);
}

static const struct command {
	const char *path;
	unsigned params; /* enum api_param */
	void (*run)(struct gateway *gw, const struct api_query *query, struct api_command *c);
} commands[] = {
	{"/v1/reload", 0, reload},
	{"/v1/cure", PARAM_CURE | PARAM_MODE, set_cure},
	{"/v1/breaker", PARAM_BACKEND | PARAM_FORCE, set_breaker},
	{"/v1/limiter", PARAM_BACKEND | PARAM_RESET, reset_limiter},
	{"/v1/drain", PARAM_SERVICE | PARAM_BACKEND | PARAM_SET | PARAM_DEADLINE, drain},
};

static void run_command(struct gateway *gw, struct api_command *c)
{
	char err[API_QUERY_ERR];
	struct api_query query;

	/* Nothing is to be published any more. */
	if (gw->state != GATEWAY_READY) {
		refuse(c, 503, "the gateway is stopping");
		return;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(c->path, commands[i].path) != 0)
			continue;
		if (api_query_parse(c->query, commands[i].params, &query, err) < 0)
			refuse(c, 400, err);
		else
			commands[i].run(gw, &query, c);
		return;
	}
	refuse(c, 404, "no such command");
}

void gateway_on_commands(evutil_socket_t fd, short what, void *arg)
{
	struct gateway *gw = arg;
	struct api_command *c;
	uint64_t count;

	if (read(gw->command_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	while ((c = api_command_take(gw->api))) {
		run_command(gw, c);
		api_command_done(gw->api, c);
	}
}
