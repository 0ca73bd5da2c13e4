/* SPDX-License-Identifier: BSD-3-Clause */
#include "owners.h"
#include "ipaddr.h"
#include "view.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Slots are given at a publish, and noted with the next view. */
#define NOTED_LATE_NS 500000000ull

struct service_owner {
	uint64_t since_ns; /* 0: none */
	uint32_t generation;
	char name[OWNER_SERVICE_LEN];
};

struct backend_owner {
	uint64_t since_ns; /* 0: none */
	uint32_t generation;
	uint16_t port_be;
	uint8_t proto;
	struct ipaddr addr;
};

struct owners {
	pthread_mutex_t lock; /* for a look or a note, never for a wait */
	uint32_t n_services, n_backends;
	struct service_owner (*services)[2]; /* by slot: the latest, the one before */
	struct backend_owner (*backends)[2];
};

struct owners *owners_create(uint32_t n_services, uint32_t n_backends)
{
	struct owners *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	pthread_mutex_init(&o->lock, NULL);
	o->n_services = n_services;
	o->n_backends = n_backends;
	o->services = calloc(n_services + 1, sizeof(*o->services));
	o->backends = calloc(n_backends + 1, sizeof(*o->backends));
	if (o->services && o->backends)
		return o;
	owners_destroy(o);
	errno = ENOMEM;
	return NULL;
}

void owners_destroy(struct owners *o)
{
	if (!o)
		return;
	free(o->services);
	free(o->backends);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static void note_service(struct owners *o, const struct view_service *s, uint64_t now_ns)
{
	struct service_owner *of = s->slot < o->n_services ? o->services[s->slot] : NULL;

	if (!of || (of[0].since_ns && of[0].generation == s->generation))
		return;
	of[1] = of[0];
	of[0] = (struct service_owner){.since_ns = now_ns, .generation = s->generation};
	snprintf(of[0].name, sizeof(of[0].name), "%s", s->name);
}

static void note_backend(struct owners *o, const struct view_backend *b, uint64_t now_ns)
{
	struct backend_owner *of = b->slot < o->n_backends ? o->backends[b->slot] : NULL;

	if (!of || (of[0].since_ns && of[0].generation == b->generation))
		return;
	of[1] = of[0];
	of[0] = (struct backend_owner){now_ns, b->generation, b->port_be, b->proto, b->addr};
}

void owners_note(struct owners *o, const struct view *view, uint64_t now_ns)
{
	pthread_mutex_lock(&o->lock);
	for (size_t i = 0; i < view->n_services; i++)
		note_service(o, &view->services[i], now_ns);
	for (size_t i = 0; i < view->n_backends; i++)
		note_backend(o, &view->backends[i], now_ns);
	pthread_mutex_unlock(&o->lock);
}

/* 0 or 1; -1: nobody that is known. */
static int whose(uint64_t since0_ns, uint64_t since1_ns, uint64_t at_ns)
{
	if (since0_ns && at_ns + NOTED_LATE_NS >= since0_ns)
		return 0;
	return since1_ns && at_ns + NOTED_LATE_NS >= since1_ns ? 1 : -1;
}

bool owners_service(struct owners *o, uint32_t slot, uint64_t at_ns, char out[static OWNER_SERVICE_LEN])
{
	int i = -1;

	if (slot >= o->n_services)
		return false;
	pthread_mutex_lock(&o->lock);
	i = whose(o->services[slot][0].since_ns, o->services[slot][1].since_ns, at_ns);
	if (i >= 0)
		snprintf(out, OWNER_SERVICE_LEN, "%s", o->services[slot][i].name);
	pthread_mutex_unlock(&o->lock);
	return i >= 0;
}

bool owners_backend(struct owners *o, uint32_t slot, uint64_t at_ns, char out[static OWNER_BACKEND_LEN])
{
	struct backend_owner owner = {0};
	char text[IPADDR_PORT_STRLEN];
	int i = -1;

	if (slot >= o->n_backends)
		return false;
	pthread_mutex_lock(&o->lock);
	i = whose(o->backends[slot][0].since_ns, o->backends[slot][1].since_ns, at_ns);
	if (i >= 0)
		owner = o->backends[slot][i];
	pthread_mutex_unlock(&o->lock);
	if (i >= 0)
		snprintf(out, OWNER_BACKEND_LEN, "%s:%s", owner.proto == PROTO_TCP ? "tcp" : "udp",
			 ipaddr_port_format(&owner.addr, owner.port_be, text));
	return i >= 0;
}
