/* SPDX-License-Identifier: BSD-3-Clause */
#include "drain.h"
#include "dataplane.h"
#include "observe.h"
#include "services_private.h"

#include <errno.h>
#include <stdlib.h>

#define DRAINS_MAX 256

struct drain {
	char service[64]; /* "": every one */
	uint8_t proto;
	uint16_t port_be;
	struct ipaddr addr;
	uint64_t deadline_ns;
};

struct table {
	size_t n;
	struct drain drains[DRAINS_MAX];
};

struct drains {
	struct table now;
	struct table before; /* the last command */
};

struct drains *drains_create(void)
{
	return calloc(1, sizeof(struct drains));
}

void drains_destroy(struct drains *d)
{
	free(d);
}

bool drains_any(const struct drains *d)
{
	return d->now.n > 0;
}

void drains_clear(struct drains *d)
{
	d->now.n = 0;
}

uint8_t drains_out_of(const struct drains *d, const char *service, const struct ipaddr *addr, uint16_t port_be)
{
	uint8_t out_of = 0;

	for (size_t i = 0; i < d->now.n; i++) {
		const struct drain *e = &d->now.drains[i];

		if (e->port_be == port_be && ipaddr_equal(&e->addr, addr) &&
		    (!e->service[0] || strcmp(e->service, service) == 0))
			out_of |= 1 << (e->proto == PROTO_UDP ? SET_UDP : SET_TCP);
	}
	return out_of;
}

static bool is_backend(const struct drain *e, const struct slot_info *backend)
{
	return e->proto == backend->proto && e->port_be == backend->port_be && ipaddr_equal(&e->addr, &backend->addr);
}

bool drains_has(const struct drains *d, const struct slot_info *backend)
{
	for (size_t i = 0; i < d->now.n; i++)
		if (is_backend(&d->now.drains[i], backend))
			return true;
	return false;
}

uint64_t drains_deadline_ns(const struct drains *d, const struct slot_info *backend)
{
	uint64_t deadline_ns = DRAIN_BY_SERVICE;

	for (size_t i = 0; i < d->now.n; i++)
		if (is_backend(&d->now.drains[i], backend))
			deadline_ns = d->now.drains[i].deadline_ns;
	return deadline_ns;
}

/* --- the command --- */

/* A slot, or an entry of the table, by the backend's id. */
struct search {
	const char *id;
	const struct slot_info *found;
};

static void look_for(void *arg, const struct slot_info *info)
{
	struct search *search = arg;
	char id[SLOT_ID_STRLEN];

	slots_id(info, id);
	if (strcmp(id, search->id) == 0)
		search->found = info;
}

/* The set of the service's part that names the slot. */
static const struct policy_set *set_with(const struct service *svc, uint32_t slot)
{
	for (unsigned i = 0; svc->part && i < SET_FAMILIES * SET_PROTOS; i++) {
		const struct policy_set *set = &svc->part->sets[i / SET_PROTOS][i % SET_PROTOS];

		for (uint32_t b = 0; b < set->n_backends; b++)
			if (set->backends[b].ref.slot == slot)
				return set;
	}
	return NULL;
}

/* Marks those that would lose it; or says that one of them would lose its last. */
static int mark_losers(struct services *s, uint32_t slot, const char *service, size_t *n)
{
	*n = 0;
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		struct service *svc = &s->services[i];
		const struct policy_set *set;

		if (!svc->config || (service && strcmp(svc->name, service) != 0))
			continue;
		set = set_with(svc, slot);
		if (!set)
			continue;
		if (set->n_backends == 1)
			return -EBUSY;
		svc->dirty = true;
		++*n;
	}
	return *n ? 0 : -ENOENT;
}

static int take_out(struct services *s, const struct drain_order *order, struct drain_result *result)
{
	struct table *t = &s->drains->now;
	struct search search = {.id = order->backend};
	struct drain *e = &t->drains[t->n];
	int err;

	slots_foreach(s->backends, look_for, &search);
	if (!search.found)
		return -ENOENT;
	if (search.found->life != SLOT_USED)
		return drains_has(s->drains, search.found) ? -EALREADY : -ENOENT;
	if (t->n == DRAINS_MAX)
		return -ENOSPC;
	err = mark_losers(s, search.found->ref.slot, order->service, &result->n_services);
	if (err)
		return err;
	*e = (struct drain){
		.proto = search.found->proto,
		.port_be = search.found->port_be,
		.addr = search.found->addr,
		.deadline_ns = order->deadline_ns,
	};
	if (order->service)
		strncpy(e->service, order->service, sizeof(e->service) - 1);
	t->n++;
	return 0;
}

static bool may_name(const struct config_service *svc, const struct drain *e)
{
	for (size_t i = 0; i < svc->n_backends; i++)
		if (svc->backends[i].port_be == e->port_be &&
		    (svc->backends[i].kind != BACKEND_ADDRESS || ipaddr_equal(&svc->backends[i].addr, &e->addr)))
			return true;
	return false;
}

static size_t mark_winners(struct services *s, const struct drain *e)
{
	size_t n = 0;

	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		struct service *svc = &s->services[i];

		if (!svc->config || (e->service[0] && strcmp(e->service, svc->name) != 0) || !may_name(svc->config, e))
			continue;
		svc->dirty = true;
		n++;
	}
	return n;
}

/* The backend may have no slot by now. */
static bool is_meant(const struct drain *e, const struct drain_order *order)
{
	const struct slot_info as_slot = {.proto = e->proto, .port_be = e->port_be, .addr = e->addr};
	char id[SLOT_ID_STRLEN];

	slots_id(&as_slot, id);
	return strcmp(id, order->backend) == 0 && (!order->service || strcmp(e->service, order->service) == 0);
}

static int put_back(struct services *s, const struct drain_order *order, struct drain_result *result)
{
	struct table *t = &s->drains->now;
	size_t n = 0;

	for (size_t i = 0; i < t->n; i++) {
		if (is_meant(&t->drains[i], order))
			result->n_services += mark_winners(s, &t->drains[i]);
		else
			t->drains[n++] = t->drains[i];
	}
	if (n == t->n)
		return -ENOENT;
	t->n = n;
	return 0;
}

int services_drain(struct services *s, const struct drain_order *order, struct drain_result *result)
{
	struct search search = {.id = order->backend};
	struct backend_report report;
	int err;

	*result = (struct drain_result){0};
	if (order->deadline_ns != DRAIN_BY_SERVICE && s->names_mode != CURE_ENFORCE)
		return -EOPNOTSUPP;
	s->drains->before = s->drains->now;
	err = order->put_back ? put_back(s, order, result) : take_out(s, order, result);
	if (err)
		return err;
	slots_foreach(s->backends, look_for, &search);
	if (search.found) {
		observe_backend(s->dp, search.found->ref.slot, &report);
		result->flows = report.flows;
	}
	return 0;
}

/* The services stay dirty: they are built once more, as they were. */
void services_undrain(struct services *s)
{
	s->drains->now = s->drains->before;
}
