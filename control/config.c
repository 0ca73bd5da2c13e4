/* SPDX-License-Identifier: BSD-3-Clause */
#include "config.h"

#include "config_schema.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of both families: routers, and hosts on link. */
#define NEIGHBOURS         16384
/* New connections that may wait for their turn, of all services together. */
#define HOLDS              65536
#define CLIENTS            65536 /* of which outcomes are remembered */
/* Of one name that backends follow, both families: what slots are set aside for. */
#define ADDRESSES_PER_NAME 32

struct config *config_parse(const char *name, const char *text, size_t len, config_message_fn *message, void *arg)
{
	struct config_reader reader = {.file = name, .message = message, .arg = arg};
	struct config *config = NULL;
	int err = config_reader_load(&reader, text, len);

	if (err)
		goto out;
	config = calloc(1, sizeof(*config));
	if (!config) {
		err = -ENOMEM;
		goto out;
	}
	config_decode(&reader, config);
	config_derive(config);
	config_check(&reader, config);
	err = reader.n_errors ? -EINVAL : 0;
out:
	config_reader_fini(&reader);
	if (err) {
		config_free(config);
		errno = -err;
		return NULL;
	}
	return config;
}

/* Reads up to a byte more than a file may have. Returns the length or -errno; `*text` is malloc'ed. */
static ssize_t read_file(const char *path, char **text)
{
	const size_t room = CONFIG_MAX_FILE_BYTES + 1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = 0;

	if (fd < 0)
		return -errno;
	*text = malloc(room);
	if (!*text) {
		close(fd);
		return -ENOMEM;
	}
	while (len < room && (n = read(fd, *text + len, room - len)) != 0) {
		if (n < 0 && errno != EINTR)
			break;
		len += n > 0 ? n : 0;
	}
	n = n < 0 ? -errno : (ssize_t)len;
	close(fd);
	if (n < 0)
		free(*text);
	return n;
}

struct config *config_load(const char *path, config_message_fn *message, void *arg)
{
	struct config *config;
	char *text = NULL, line[512];
	ssize_t len = read_file(path, &text);
	int err;

	if (len < 0) {
		snprintf(line, sizeof(line), "%s: cannot be read: %s", path, strerror(-len));
		message(arg, line);
		errno = -len;
		return NULL;
	}
	config = config_parse(path, text, len, message, arg);
	err = errno;
	free(text);
	errno = err;
	return config;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->n_services; i++) {
		free(config->services[i].listen);
		free(config->services[i].backends);
	}
	free(config->services);
	free(config);
}

/* Everything before `cures` is plain data in zeroed memory. */
bool config_same_gateway(const struct config *a, const struct config *b)
{
	return memcmp(a, b, offsetof(struct config, cures)) == 0;
}

static bool same_listen(const struct config_service *a, const struct config_service *b)
{
	if (a->n_listen != b->n_listen)
		return false;
	for (size_t i = 0; i < a->n_listen; i++) {
		const struct config_listen *x = &a->listen[i], *y = &b->listen[i];

		if (x->proto != y->proto || x->port_be != y->port_be || !ipaddr_equal(&x->addr, &y->addr))
			return false;
	}
	return true;
}

static bool same_backends(const struct config_service *a, const struct config_service *b)
{
	if (a->n_backends != b->n_backends)
		return false;
	for (size_t i = 0; i < a->n_backends; i++) {
		const struct config_backend *x = &a->backends[i], *y = &b->backends[i];

		if (x->kind != y->kind || x->port_be != y->port_be || x->weight != y->weight ||
		    !ipaddr_equal(&x->addr, &y->addr) || strcmp(x->name, y->name) != 0)
			return false;
	}
	return true;
}

/* Plain data in zeroed memory, as above: what points elsewhere or names a place is made equal first. */
static bool same_settings(const struct config_service *a, const struct config_service *b)
{
	struct config_service x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	y.listen = x.listen;
	y.backends = x.backends;
	y.line = x.line;
	y.column = x.column;
	return memcmp(&x, &y, sizeof(x)) == 0;
}

bool config_same_service(const struct config_service *a, const struct config_service *b)
{
	return same_settings(a, b) && same_listen(a, b) && same_backends(a, b);
}

bool config_same_listeners(const struct config *a, const struct config *b)
{
	if (a->n_services != b->n_services)
		return false;
	for (size_t i = 0; i < a->n_services; i++)
		if (strcmp(a->services[i].name, b->services[i].name) != 0 ||
		    !same_listen(&a->services[i], &b->services[i]))
			return false;
	return true;
}

static uint32_t power_of_two(uint64_t at_least, uint32_t min, uint32_t max)
{
	uint32_t n = min;

	while (n < at_least && n < max)
		n *= 2;
	return n;
}

uint64_t config_addresses(const struct config_service *service)
{
	uint64_t n = 0;

	for (size_t i = 0; i < service->n_backends; i++)
		n += service->backends[i].kind == BACKEND_ADDRESS ? 1 : ADDRESSES_PER_NAME;
	return n;
}

/* Slots are fixed at start: room for a reload to double the services, and for names to move while old flows drain. */
static uint32_t backend_slots(const struct config *config)
{
	uint64_t n = 0;

	for (size_t i = 0; i < config->n_services; i++)
		n += config_addresses(&config->services[i]);
	return power_of_two(2 * n, 1024, 1u << 18);
}

static unsigned count_snat(const struct config *config, bool v4)
{
	unsigned n = 0;

	for (unsigned i = 0; i < config->n_snat; i++)
		n += ipaddr_is_v4(&config->snat[i]) == v4;
	return n;
}

/* Of the family that has more. */
static unsigned most_snat(const struct config *config)
{
	unsigned v4 = count_snat(config, true), v6 = count_snat(config, false);

	return v4 > v6 ? v4 : v6;
}

uint64_t config_snat_pairs(const struct config *config)
{
	uint64_t n = 0;

	for (size_t i = 0; i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_backends; j++) {
			const struct config_backend *b = &config->services[i].backends[j];

			if (b->kind == BACKEND_ADDRESS)
				n += count_snat(config, ipaddr_is_v4(&b->addr));
			else
				n += ADDRESSES_PER_NAME * most_snat(config);
		}
	return n;
}

/* Each slot has a backend of one family; and half as many again, so that all of them find a place. */
static uint32_t snat_pairs(const struct config *config, uint32_t n_backend_slots)
{
	return power_of_two((uint64_t)n_backend_slots * most_snat(config) * 3 / 2, 64, 1u << 24);
}

void config_to_dataplane(const struct config *config, unsigned n_queues, struct dataplane_config *out)
{
	out->n_workers = config->n_workers;
	for (unsigned i = 0; i < config->n_workers; i++)
		out->cpus[i] = config->workers[i];
	out->idle = config->idle;
	out->flows_v4 = config->flows;
	out->flows_v6 = config->flows_ipv6;
	out->evict_idle = config->evict_idle == EVICT_RST;
	/* A queue's fill and transmit ring and 1024 frames on their way; the bursts and caches of a worker. */
	out->n_mbufs = config->packets ? config->packets : 7168 * n_queues + 1024 * config->n_workers;
	out->n_service_slots = power_of_two(2 * config->n_services, 256, 2 * CONFIG_MAX_SERVICES);
	out->n_backend_slots = backend_slots(config);
	out->n_snat_pairs = snat_pairs(config, out->n_backend_slots);
	out->n_routes = config->routes;
	out->n_neighbours = NEIGHBOURS;
	out->n_holds = HOLDS;
	out->n_clients = CLIENTS;
	out->n_snat = config->n_snat;
	memcpy(out->snat, config->snat, sizeof(out->snat));
	out->snat_ports = config->snat_ports;
}
