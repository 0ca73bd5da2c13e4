/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Serve: the HTTP API on a Unix socket (all of it) and on loopback TCP (read only, `Host` checked). libmicrohttpd's own
 * threads; reads published views and counters only. A POST is queued to decide and answered when decide has done it.
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct api;
struct dataplane;
struct events;
struct owners;
struct shedding;

/* A request that changes something. Decide fills the answer and calls api_command_done(). */
struct api_command {
	char path[64];   /* "/v1/reload" */
	char query[512]; /* "backend=…&set=open" */
	uint32_t uid;    /* of the peer (SO_PEERCRED) */
	int status;      /* HTTP status of the answer */
	json_t *answer;  /* from decide, the command's from then on; NULL: out of memory */
};

struct api_config {
	const char *socket_path; /* "" = off */
	const char *http;        /* "127.0.0.1:9090", "" = off */
	const char *version;
	uint64_t started_ns; /* monotonic */
	int notify_fd;       /* an eventfd that api writes when a command waits */
	unsigned timeout_s;  /* of silent connections and of commands; 0: 10 s */
	struct events *events;
	struct owners *owners;
	const struct shedding *shedding; /* NULL: nothing is shed early */
};

/* NULL with errno set and a sentence in `err`. */
struct api *api_start(const struct api_config *config, struct dataplane *dp, char *err, size_t err_len);
/* Decide has answered every command that it took. NULL is fine. */
void api_stop(struct api *api);

/* The port that `http` came to (":0" asks for any), host order; 0: off. */
uint16_t api_http_port(const struct api *api);

/* Decide: takes the next waiting command (NULL: none) and must answer it with api_command_done(). */
struct api_command *api_command_take(struct api *api);
void api_command_done(struct api *api, struct api_command *command);

/* The effective configuration as text for GET /v1/config, replaced at each reload (copied). */
void api_set_config_text(struct api *api, const char *yaml);
