/* SPDX-License-Identifier: BSD-3-Clause */
#include "services.h"
#include "build.h"
#include "clock.h"
#include "drain.h"
#include "events.h"
#include "services_private.h"
#include "usable.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct services *services_create(struct dataplane *dp, const struct services_config *config)
{
	struct services *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->dp = dp;
	s->config = *config;
	s->backends = slots_create(config->n_backend_slots);
	s->services = calloc(config->n_service_slots, sizeof(*s->services));
	s->known = known_create(config->events);
	s->removals = removals_create(config->n_backend_slots);
	s->drains = drains_create();
	if (s->backends && s->services && s->known && s->removals && s->drains)
		return s;
	services_destroy(s);
	errno = ENOMEM;
	return NULL;
}

uint64_t services_now_ns(const struct services *s)
{
	return s->config.now_ns ? s->config.now_ns(s->config.now_arg) : clock_monotonic_ns();
}

void services_destroy(struct services *s)
{
	if (!s)
		return;
	for (uint32_t i = 0; s->services && i < s->config.n_service_slots; i++)
		build_service_free(s->services[i].part, s->backends, false);
	known_destroy(s->known);
	removals_destroy(s->removals, s->config.n_backend_slots);
	drains_destroy(s->drains);
	usable_destroy(s->usable);
	listener_table_destroy(s->listeners);
	free(s->policy);
	slots_destroy(s->backends);
	free(s->services);
	free(s);
}

/* --- names --- */

static void watch(struct services *s, const char *name, uint8_t family)
{
	known_watch(s->known, s->resolver, name, family);
}

static void unwatch(struct services *s, const char *name, uint8_t family)
{
	known_unwatch(s->known, s->resolver, name, family);
}

static bool listens_on(const struct config_service *svc, uint8_t family)
{
	for (size_t i = 0; i < svc->n_listen; i++)
		if (ipaddr_is_v4(&svc->listen[i].addr) == (family == 4))
			return true;
	return false;
}

static void for_each_name(struct services *s, const struct config *config,
			  void (*fn)(struct services *s, const char *name, uint8_t family))
{
	for (size_t i = 0; config && i < config->n_services; i++) {
		const struct config_service *svc = &config->services[i];

		for (size_t j = 0; j < svc->n_backends; j++) {
			if (svc->backends[j].kind != BACKEND_DNS)
				continue;
			if (listens_on(svc, 4))
				fn(s, svc->backends[j].name, 4);
			if (listens_on(svc, 6))
				fn(s, svc->backends[j].name, 6);
		}
	}
}

static bool uses_name(const struct config_service *svc, const char *name)
{
	for (size_t i = 0; i < svc->n_backends; i++)
		if (svc->backends[i].kind == BACKEND_DNS && strcmp(svc->backends[i].name, name) == 0)
			return true;
	return false;
}

static void mark_users(struct services *s, const char *name)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (s->services[i].config && uses_name(s->services[i].config, name))
			s->services[i].dirty = true;
}

void services_name_changed(struct services *s, const struct name_view *view)
{
	if (known_take(s->known, view, s->names_mode))
		mark_users(s, view->name);
}

uint64_t services_name_changes(const struct services *s)
{
	return known_changes(s->known);
}

bool services_usable(const struct services *s, const struct ipaddr *addr)
{
	return !s->usable || usable_has(s->usable, addr);
}

bool services_resolved(const struct services *s)
{
	for (const struct known_name *k = known_first(s->known); k; k = k->next)
		if (k->state == NAME_INIT && !k->heard)
			return false;
	return true;
}

bool services_answered(const struct services *s)
{
	for (const struct known_name *k = known_first(s->known); k; k = k->next)
		if (!k->heard)
			return false;
	return true;
}

/* --- configuration --- */

static struct service *service_by_name(struct services *s, const char *name)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (s->services[i].in_use && strcmp(s->services[i].name, name) == 0)
			return &s->services[i];
	return NULL;
}

static struct service *service_claim(struct services *s, const char *name)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		struct service *svc = &s->services[i];

		if (svc->in_use)
			continue;
		svc->in_use = true;
		svc->ref = (struct slot_ref){.slot = i, .generation = svc->ref.generation + 1};
		snprintf(svc->name, sizeof(svc->name), "%s", name);
		return svc;
	}
	return NULL;
}

static uint32_t free_slots(const struct services *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		n += !s->services[i].in_use;
	return n;
}

static uint32_t slots_wanted(struct services *s, const struct config *config)
{
	uint32_t n = 0;

	for (size_t i = 0; i < config->n_services; i++)
		n += service_by_name(s, config->services[i].name) == NULL;
	return n;
}

/* With another mode the policy goes by other sets, or measures others beside them. */
static void take_names_mode(struct services *s)
{
	enum cure_mode before = s->names_mode;

	s->names_mode = s->current->cures.of[CURE_NAMES];
	names_hold(s->resolver, s->names_mode == CURE_OFF);
	for (const struct known_name *k = known_first(s->known); k && s->names_mode != before; k = k->next)
		if (known_differs(k))
			mark_users(s, k->name);
}

/* There are slots enough. */
static void take_services(struct services *s, const struct config *config)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		s->services[i].wanted = false;
	for (size_t i = 0; i < config->n_services; i++) {
		struct service *svc = service_by_name(s, config->services[i].name);

		if (!svc)
			svc = service_claim(s, config->services[i].name);
		/* What could not be built last time is still dirty. */
		if (!svc->part || !svc->config || !config_same_service(svc->config, &config->services[i]))
			svc->dirty = true;
		svc->config = &config->services[i];
		svc->wanted = true;
	}
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (!s->services[i].wanted)
			s->services[i].config = NULL;
	if (!s->current || !config_same_listeners(s->current, config))
		s->listeners_dirty = true;
	if (!s->current || memcmp(&s->current->cures, &config->cures, sizeof(config->cures)) != 0)
		s->modes_dirty = true;
	s->current = config;
	take_names_mode(s);
}

/* Without memory the old ones are kept: what is new among VIPs may come back in an answer until the next reload. */
static void take_usable(struct services *s)
{
	struct usable *usable = usable_create(s->current);

	if (!usable)
		return;
	usable_destroy(s->usable);
	s->usable = usable;
}

static void mark_all(struct services *s)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		s->services[i].dirty |= s->services[i].config != NULL;
}

int services_configure(struct services *s, const struct config *config, struct names *names)
{
	if (s->replaced)
		return -EBUSY;
	if (slots_wanted(s, config) > free_slots(s))
		return -ENOSPC;
	s->resolver = names;
	s->replaced = s->current;
	take_services(s, config);
	take_usable(s);
	/* A reload puts back what was taken out by command. */
	if (s->replaced && drains_any(s->drains))
		mark_all(s);
	/* Those of the old one are let go when it is: a name that both use is not asked for again. */
	for_each_name(s, config, watch);
	return 0;
}

void services_revert(struct services *s)
{
	const struct config *refused = s->current;

	if (!s->replaced)
		return;
	/* Its services have their slots still: only services_reap() takes them. */
	take_services(s, s->replaced);
	take_usable(s);
	s->replaced = NULL;
	for_each_name(s, refused, unwatch);
}

void services_modes_changed(struct services *s)
{
	s->modes_dirty = true;
	take_names_mode(s);
}

/* --- building --- */

struct gathered {
	const struct services *s;
	const struct config_service *svc;
	enum cure_mode mode; /* what DNS said as this mode of names would have it */
	struct build_backend *backends;
	size_t n, max;
};

/* While another configuration is taken over, what was taken out by command is no more. */
static uint8_t out_of(const struct gathered *g, const struct ipaddr *addr, uint16_t port_be)
{
	return g->s->replaced ? 0 : drains_out_of(g->s->drains, g->svc->name, addr, port_be);
}

static int gather(struct gathered *g, const struct ipaddr *addr, const struct config_backend *b, uint64_t expires_ns)
{
	for (size_t i = 0; i < g->n; i++)
		if (g->backends[i].port_be == b->port_be && ipaddr_equal(&g->backends[i].addr, addr)) {
			if (expires_ns > g->backends[i].expires_ns && g->backends[i].expires_ns)
				g->backends[i].expires_ns = expires_ns;
			return 0;
		}
	if (g->n == g->max) {
		size_t max = g->max ? 2 * g->max : 16;
		struct build_backend *more = realloc(g->backends, max * sizeof(*more));

		if (!more)
			return -ENOMEM;
		g->backends = more;
		g->max = max;
	}
	g->backends[g->n++] = (struct build_backend){
		.addr = *addr,
		.port_be = b->port_be,
		.weight = b->weight,
		.expires_ns = expires_ns,
		.out_of = out_of(g, addr, b->port_be),
	};
	return 0;
}

/* An address that was good may be the gateway's own since the last reload. */
static int gather_name(struct gathered *g, const struct config_backend *b, uint8_t family)
{
	const struct known_name *k = known_find(g->s->known, b->name, family);
	const struct address_set *set = k ? known_set(k, g->mode) : NULL;
	int err = 0;

	for (size_t i = 0; set && i < set->n && !err; i++)
		if (services_usable(g->s, &set->addresses[i].addr))
			err = gather(g, &set->addresses[i].addr, b, set->addresses[i].expires_ns);
	return err;
}

static int gather_all(struct gathered *g)
{
	int err = 0;

	for (size_t i = 0; i < g->svc->n_backends && !err; i++) {
		const struct config_backend *b = &g->svc->backends[i];

		if (b->kind == BACKEND_ADDRESS) {
			err = gather(g, &b->addr, b, 0);
			continue;
		}
		err = gather_name(g, b, 4);
		if (!err)
			err = gather_name(g, b, 6);
	}
	return err;
}

static bool differs(const struct services *s, const struct config_service *svc)
{
	for (size_t i = 0; i < svc->n_backends; i++)
		for (uint8_t family = 4; svc->backends[i].kind == BACKEND_DNS && family <= 6; family += 2) {
			const struct known_name *k = known_find(s->known, svc->backends[i].name, family);

			if (k && known_differs(k))
				return true;
		}
	return false;
}

/* 0 or -errno. */
static int build_both(struct services *s, const struct service *svc, struct gathered *is, struct gathered *would,
		      struct policy_service **part)
{
	struct build_input in = {.service = svc->config, .ref = svc->ref};
	int err = gather_all(is);

	in.would_differ = s->names_mode == CURE_SHADOW && differs(s, svc->config);
	if (!err && in.would_differ)
		err = gather_all(would);
	if (err)
		return err;
	in.is = (struct build_backends){is->backends, is->n};
	in.would = (struct build_backends){would->backends, would->n};
	*part = build_service(&in, s->backends);
	return *part ? 0 : -errno;
}

static struct policy_service *build_one(struct services *s, const struct service *svc)
{
	struct gathered is = {.s = s, .svc = svc->config, .mode = s->names_mode};
	struct gathered would = {.s = s, .svc = svc->config, .mode = CURE_ENFORCE};
	struct policy_service *part = NULL;
	int err = build_both(s, svc, &is, &would, &part);

	free(is.backends);
	free(would.backends);
	errno = -err;
	return part;
}

/* --- publishing --- */

bool services_dirty(const struct services *s)
{
	if (s->listeners_dirty || s->modes_dirty)
		return true;
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (s->services[i].dirty)
			return true;
	return false;
}

/* A snapshot under construction: parts by slot, and which of them are new. */
struct draft {
	struct policy_service **parts;
	struct listener_table *listeners;
	struct policy *policy;
};

static struct listener_table *draft_listeners(const struct services *s)
{
	struct slot_ref *refs;
	struct listener_table *table;

	if (!s->listeners_dirty)
		return s->listeners;
	refs = calloc(s->current->n_services + 1, sizeof(*refs));
	if (!refs)
		return NULL;
	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		if (s->services[i].config)
			refs[s->services[i].config - s->current->services] = s->services[i].ref;
	table = build_listeners(s->current->services, refs, s->current->n_services);
	free(refs);
	return table;
}

/*
 * The part for a service that changed. If there are no slots for its backends, only this one suffers: it keeps the part
 * that it has, or gets one without backends, until slots are free again.
 */
static struct policy_service *draft_part(struct services *s, struct service *svc)
{
	struct policy_service *part = build_one(s, svc);

	svc->starved = !part && errno == ENOSPC;
	if (!svc->starved)
		return part;
	return svc->part ? svc->part
			 : build_service(&(struct build_input){.service = svc->config, .ref = svc->ref}, s->backends);
}

static int draft_make(struct services *s, struct draft *d)
{
	d->parts = calloc(s->config.n_service_slots, sizeof(*d->parts));
	if (!d->parts)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		struct service *svc = &s->services[i];

		if (!svc->config)
			continue;
		d->parts[i] = svc->dirty ? draft_part(s, svc) : svc->part;
		if (!d->parts[i])
			return -errno;
	}
	d->listeners = draft_listeners(s);
	if (!d->listeners)
		return -errno;
	d->policy = build_policy(s->policy ? s->policy->number + 1 : 1, &s->current->cures, d->listeners, d->parts,
				 s->config.n_service_slots);
	return d->policy ? 0 : -ENOMEM;
}

static void draft_drop(struct services *s, struct draft *d)
{
	for (uint32_t i = 0; d->parts && i < s->config.n_service_slots; i++)
		if (d->parts[i] != s->services[i].part)
			build_service_free(d->parts[i], s->backends, s->config.poison);
	if (d->listeners != s->listeners)
		listener_table_destroy(d->listeners);
	free(d->parts);
}

/* After the grace period: what the draft replaced is freed, the draft becomes what is. */
static void draft_settle(struct services *s, struct draft *d)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		struct service *svc = &s->services[i];

		if (d->parts[i] != svc->part) {
			build_service_free(svc->part, s->backends, s->config.poison);
			svc->renamed = true;
		}
		svc->part = d->parts[i];
		if (!svc->config)
			svc->starved = false;
		svc->dirty = svc->starved;
	}
	if (d->listeners != s->listeners)
		listener_table_destroy(s->listeners);
	s->listeners = d->listeners;
	s->listeners_dirty = s->modes_dirty = false;
	free(s->policy);
	s->policy = d->policy;
	free(d->parts);
}

int services_publish(struct services *s)
{
	uint64_t begin_ns = services_now_ns(s);
	struct draft d = {0};
	int err = draft_make(s, &d);

	if (err) {
		draft_drop(s, &d);
		return err;
	}
	removals_before_publish(s);
	if (s->watcher)
		s->watcher->before_publish(s->watcher_arg, begin_ns);
	dataplane_publish(s->dp, d.policy);
	draft_settle(s, &d);
	known_published(s->known, s->names_mode);
	removals_after_publish(s);
	for_each_name(s, s->replaced, unwatch);
	if (s->replaced)
		drains_clear(s->drains);
	s->replaced = NULL;
	s->published_ns = services_now_ns(s);
	s->publish_took_ns = s->published_ns - begin_ns;
	return 0;
}

int services_close(struct services *s)
{
	struct draft d = {.parts = calloc(s->config.n_service_slots, sizeof(*d.parts)),
			  .listeners = listener_table_create(NULL, 0)};

	for (uint32_t i = 0; d.parts && i < s->config.n_service_slots; i++)
		d.parts[i] = s->services[i].part;
	if (d.parts && d.listeners)
		d.policy = build_policy(s->policy->number + 1, &s->policy->modes, d.listeners, d.parts,
					s->config.n_service_slots);
	if (!d.policy) {
		draft_drop(s, &d);
		return -ENOMEM;
	}
	dataplane_publish(s->dp, d.policy);
	draft_settle(s, &d);
	return 0;
}

/* --- slots --- */

static bool backend_unused(void *arg, uint32_t slot)
{
	const struct services *s = arg;

	return dataplane_backend_unused(s->dp, slot) && removals_may_free(s, slot);
}

static void backend_freed(void *arg, uint32_t slot)
{
	struct services *s = arg;

	removals_freed(s, slot);
	if (s->watcher)
		s->watcher->freed(s->watcher_arg, slots_info(s->backends, slot), services_now_ns(s));
	dataplane_backend_reset(s->dp, slot);
}

void services_reap(struct services *s)
{
	removals_tick(s);
	slots_reap(s->backends, backend_unused, backend_freed, s);
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		struct service *svc = &s->services[i];

		if (!svc->in_use || svc->config || svc->part || !dataplane_service_unused(s->dp, i))
			continue;
		dataplane_service_reset(s->dp, i);
		svc->in_use = false;
	}
}

void services_watch(struct services *s, const struct services_watcher *watcher, void *arg)
{
	s->watcher = watcher;
	s->watcher_arg = arg;
}

size_t services_starved(const struct services *s)
{
	size_t n = 0;

	for (uint32_t i = 0; i < s->config.n_service_slots; i++)
		n += s->services[i].starved;
	return n;
}

/* --- looking --- */

bool services_backend(const struct services *s, uint32_t slot, struct slot_info *info)
{
	const struct slot_info *found = slots_info(s->backends, slot);

	if (found)
		*info = *found;
	return found;
}

void services_sides(const struct services *s, void (*fn)(void *arg, const struct services_side *side), void *arg)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		const struct service *svc = &s->services[i];

		for (unsigned family = 0; svc->part && family < SET_FAMILIES; family++) {
			const struct policy_set *set = &svc->part->sets[family][SET_TCP];

			if (set->n_backends)
				fn(arg,
				   &(struct services_side){svc->name, svc->ref, family, set, svc->part, svc->config});
		}
	}
}

void services_foreach(const struct services *s, void (*fn)(void *arg, const struct services_row *row), void *arg)
{
	for (uint32_t i = 0; i < s->config.n_service_slots; i++) {
		const struct service *svc = &s->services[i];

		if (svc->in_use)
			fn(arg, &(struct services_row){svc->name, svc->ref, svc->part, svc->config});
	}
}

struct address_list {
	struct ipaddr *out;
	size_t n, max;
};

static void add_address(void *arg, const struct slot_info *info)
{
	struct address_list *list = arg;

	if (list->n < list->max)
		list->out[list->n] = info->addr;
	list->n++;
}

size_t services_addresses(const struct services *s, struct ipaddr *out, size_t max)
{
	struct address_list list = {out, 0, max};

	slots_foreach(s->backends, add_address, &list);
	return list.n;
}

/* While a view is filled: its rows by slot, and when each address leaves DNS, sorted by address. */
struct view_filler {
	const struct services *s;
	struct view *view;
	uint32_t *row_of; /* by slot; valid for slots that have a row */
	struct name_address *expiries;
	size_t n_expiries;
};

static int by_address(const void *a, const void *b)
{
	return memcmp(((const struct name_address *)a)->addr.b, ((const struct name_address *)b)->addr.b,
		      sizeof(((const struct name_address *)a)->addr.b));
}

static int filler_init(struct view_filler *f, const struct services *s, struct view *view)
{
	size_t n = 0;

	*f = (struct view_filler){.s = s, .view = view};
	for (const struct known_name *k = known_first(s->known); k; k = k->next)
		n += k->now->n;
	f->expiries = calloc(n + 1, sizeof(*f->expiries));
	f->row_of = calloc(s->config.n_backend_slots, sizeof(*f->row_of));
	if (!f->expiries || !f->row_of)
		return -ENOMEM;
	for (const struct known_name *k = known_first(s->known); k; k = k->next)
		for (size_t i = 0; i < k->now->n; i++)
			f->expiries[f->n_expiries++] = k->now->addresses[i];
	qsort(f->expiries, f->n_expiries, sizeof(*f->expiries), by_address);
	return 0;
}

static void filler_fini(struct view_filler *f)
{
	free(f->expiries);
	free(f->row_of);
}

static void add_backend(void *arg, const struct slot_info *info)
{
	struct view_filler *f = arg;
	struct view_backend *row = &f->view->backends[f->view->n_backends];
	const struct name_address key = {.addr = info->addr}, *expiry;

	expiry = bsearch(&key, f->expiries, f->n_expiries, sizeof(key), by_address);
	*row = (struct view_backend){
		.addr = info->addr,
		.port_be = info->port_be,
		.proto = info->proto,
		.slot = info->ref.slot,
		.generation = info->ref.generation,
		.life = info->life == SLOT_USED ? LIFE_ACTIVE : LIFE_DRAINING,
		.expires_ns = expiry ? expiry->expires_ns : 0,
		.removed_ns = removals_since_ns(f->s, info->ref.slot),
		.deadline_ns = removals_deadline_ns(f->s, info->ref.slot),
	};
	slots_id(info, row->id);
	f->row_of[info->ref.slot] = f->view->n_backends++;
}

/* Who names the backend, and with which weight. */
static void add_user(struct view_filler *f, const char *service, const struct policy_backend *b, uint32_t hard_max)
{
	static const char more[] = ",...";
	struct view_backend *row = &f->view->backends[f->row_of[b->ref.slot]];
	size_t len = strlen(row->services), room = sizeof(row->services) - sizeof(more) - len;

	row->weight = b->weight;
	if (hard_max && (!row->hard_max || hard_max < row->hard_max))
		row->hard_max = hard_max;
	if (len >= sizeof(more) && strcmp(row->services + len - strlen(more), more) == 0)
		return;
	/* Whole names: half of one would be another service. */
	if (strlen(service) + 1 > room)
		service = more + 1;
	snprintf(row->services + len, sizeof(row->services) - len, "%s%s", len ? "," : "", service);
}

static void add_users(struct view_filler *f, const struct service *svc)
{
	for (unsigned i = 0; svc->part && i < SET_FAMILIES * SET_PROTOS; i++) {
		const struct policy_set *set = &svc->part->sets[i / SET_PROTOS][i % SET_PROTOS];

		for (uint32_t b = 0; b < set->n_backends; b++)
			add_user(f, svc->name, &set->backends[b], set->hard_max);
	}
}

/* From malloc; NULL if out of memory. */
static char *format_listeners(const struct config_service *svc)
{
	const size_t item = IPADDR_PORT_STRLEN + sizeof(",/tcp");
	char *out = malloc(svc->n_listen * item + 1);
	size_t len = 0;

	if (!out)
		return NULL;
	out[0] = '\0';
	for (size_t i = 0; i < svc->n_listen; i++) {
		char text[IPADDR_PORT_STRLEN];

		len += snprintf(out + len, item, "%s%s/%s", i ? "," : "",
				ipaddr_port_format(&svc->listen[i].addr, svc->listen[i].port_be, text),
				svc->listen[i].proto == PROTO_TCP ? "tcp" : "udp");
	}
	return out;
}

/* The first listener whose set is empty, in words. */
static void explain_down(const struct service *svc, char *out, size_t size)
{
	out[0] = '\0';
	if (svc->starved) {
		snprintf(out, size, "no free slots for its backends: it stays as it was");
		return;
	}
	for (size_t i = 0; i < svc->config->n_listen; i++) {
		const struct config_listen *l = &svc->config->listen[i];
		bool v6 = !ipaddr_is_v4(&l->addr);

		if (svc->part && svc->part->sets[v6][l->proto == PROTO_UDP].n_backends)
			continue;
		snprintf(out, size, "no %s backend", v6 ? "IPv6" : "IPv4");
		return;
	}
}

/* Those of its sets, each once: a set has an address and port once, and they differ in family or protocol. */
static int add_backends_of(const struct view_filler *f, const struct service *svc, struct view_service *row)
{
	unsigned n = 0;

	for (unsigned i = 0; svc->part && i < SET_FAMILIES * SET_PROTOS; i++)
		row->n_backends += svc->part->sets[i / SET_PROTOS][i % SET_PROTOS].n_backends;
	row->backends = calloc(row->n_backends + 1, sizeof(*row->backends));
	for (unsigned i = 0; svc->part && row->backends && i < SET_FAMILIES * SET_PROTOS; i++) {
		const struct policy_set *set = &svc->part->sets[i / SET_PROTOS][i % SET_PROTOS];

		for (uint32_t b = 0; b < set->n_backends; b++)
			row->backends[n++] = f->row_of[set->backends[b].ref.slot];
	}
	return row->backends ? 0 : -ENOMEM;
}

static int add_service(const struct view_filler *f, const struct service *svc)
{
	struct view *view = f->view;
	struct view_service *row = &view->services[view->n_services++];

	*row = (struct view_service){
		.slot = svc->ref.slot,
		.generation = svc->ref.generation,
		.caps =
			{
				[STORM_CLIENT] = svc->config->storm_client_rate_per_s,
				[STORM_PREFIX] = svc->config->storm_prefix_rate_per_s,
				[STORM_SERVICE] = svc->config->storm_rate_per_s,
			},
		.hard_max = svc->config->storm_hard_max,
		.backend_rate = svc->config->storm_backend_rate_per_s,
	};
	snprintf(row->name, sizeof(row->name), "%s", svc->name);
	row->listen = format_listeners(svc->config);
	explain_down(svc, row->down_reason, sizeof(row->down_reason));
	return row->listen ? add_backends_of(f, svc, row) : -ENOMEM;
}

static void add_name(struct view *view, const struct known_name *k)
{
	struct view_name *row = &view->names[view->n_names++];

	*row = (struct view_name){
		.family = k->family,
		.state = name_state_text(k->state),
		.n_addresses = k->now->n,
		.ttl_ns = k->ttl_ns,
		.changes = k->changes,
		.would_changes = k->would_changes,
		.refused = k->refused,
		.next_query_ns = k->next_query_ns,
		.queries = k->queries,
		.failures = k->failures,
	};
	snprintf(row->name, sizeof(row->name), "%s", k->name);
	snprintf(row->last_error, sizeof(row->last_error), "%s", k->last_error);
}

static int view_alloc(const struct services *s, struct view *view)
{
	size_t n_names = 0;

	for (const struct known_name *k = known_first(s->known); k; k = k->next)
		n_names++;
	view->backends = calloc(slots_in_use(s->backends) + 1, sizeof(*view->backends));
	view->services = calloc(s->config.n_service_slots, sizeof(*view->services));
	view->names = calloc(n_names + 1, sizeof(*view->names));
	return view->backends && view->services && view->names ? 0 : -ENOMEM;
}

int services_view(const struct services *s, struct view *view)
{
	struct view_filler f;
	int err = view_alloc(s, view);

	if (err)
		return err;
	err = filler_init(&f, s, view);
	if (err)
		goto out;
	slots_foreach(s->backends, add_backend, &f);
	for (uint32_t i = 0; i < s->config.n_service_slots && !err; i++) {
		add_users(&f, &s->services[i]);
		if (s->services[i].config)
			err = add_service(&f, &s->services[i]);
	}
	for (const struct known_name *k = known_first(s->known); k; k = k->next)
		add_name(view, k);
	view->policy_number = s->policy ? s->policy->number : 0;
	view->published_ns = s->published_ns;
	view->publish_took_ns = s->publish_took_ns;
out:
	filler_fini(&f);
	return err;
}
