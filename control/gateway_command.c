/* SPDX-License-Identifier: BSD-3-Clause */
#include "api.h"
#include "api_query.h"
#include "events.h"
#include "gateway_private.h"
#include "services.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

/*
 * Everything is checked before anything changes. The policy is first: it knows a new listener before the gate sends
 * packets for it, and the gate sends those of an old one until the policy has refused them.
 */
static void reload_by(struct gateway *gw, struct api_command *c, const char *who)
{
	struct config *config = load_again(gw, c);
	bool done;

	if (!config)
		return;
	if (take_over(gw, config, c)) {
		config_free(config);
		return;
	}
	config_free(gw->config);
	gw->config = config;
	done = !gateway_guard(gw, config);
	done = !gateway_set_listeners(gw, config) && done;
	gateway_set_config_text(gw);
	gateway_publish_view(gw);
	gateway_run_breakers(gw);
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
		refuse(c, 500, "it could not be published, the mode stays: see the log");
		return;
	}
	gateway_set_config_text(gw);
	gateway_run_breakers(gw);
	c->status = 200;
	c->answer = json_pack("{s:s,s:s,s:s}", "cure", cure_name[query->cure], "mode", cure_mode_name[query->mode],
			      "before", cure_mode_name[before]);
	events_add(gw->events, EVENT_INFO, "cure_mode", cure_name[query->cure], cure_name[query->cure],
		   "%s, was %s; for flows that begin from now on; by uid %u", cure_mode_name[query->mode],
		   cure_mode_name[before], c->uid);
}

static const struct command {
	const char *path;
	unsigned params; /* enum api_param */
	void (*run)(struct gateway *gw, const struct api_query *query, struct api_command *c);
} commands[] = {
	{"/v1/reload", 0, reload},
	{"/v1/cure", PARAM_CURE | PARAM_MODE, set_cure},
};

static void run_command(struct gateway *gw, struct api_command *c)
{
	char err[API_QUERY_ERR];
	struct api_query query;

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
