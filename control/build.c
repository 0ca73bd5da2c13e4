/* SPDX-License-Identifier: BSD-3-Clause */
#include "build.h"

#include <errno.h>
#include <stdlib.h>

#define NS_PER_MS 1000000
#define NS_PER_S  1000000000ull

static bool listens(const struct config_service *svc, unsigned family, unsigned proto)
{
	for (size_t i = 0; i < svc->n_listen; i++)
		if (ipaddr_is_v4(&svc->listen[i].addr) == (family == SET_V4) &&
		    (svc->listen[i].proto == PROTO_TCP) == (proto == SET_TCP))
			return true;
	return false;
}

static uint8_t proto_number(unsigned proto)
{
	return proto == SET_TCP ? PROTO_TCP : PROTO_UDP;
}

static bool belongs(const struct build_backend *b, unsigned family, unsigned proto)
{
	return ipaddr_is_v4(&b->addr) == (family == SET_V4) && !(b->out_of & 1 << proto);
}

static uint32_t count(const struct build_backends *from, unsigned family, unsigned proto)
{
	uint32_t n = 0;

	for (size_t i = 0; i < from->n; i++)
		n += belongs(&from->all[i], family, proto);
	return n;
}

/* `slots` NULL: the backends get none. */
static int set_fill(struct policy_set *set, struct policy_backend *backends, const struct build_backends *from,
		    unsigned family, unsigned proto, struct slots *slots)
{
	for (size_t i = 0; i < from->n; i++) {
		const struct build_backend *b = &from->all[i];
		struct policy_backend *to = &backends[set->n_backends];
		int err = 0;

		if (!belongs(b, family, proto))
			continue;
		*to = (struct policy_backend){.addr = b->addr, .port_be = b->port_be, .weight = b->weight};
		to->ref.slot = SLOT_NONE;
		if (slots)
			err = slots_get(slots, proto_number(proto), &b->addr, b->port_be, &to->ref);
		if (err)
			return err;
		set->n_backends++;
	}
	return 0;
}

static int set_build(struct policy_set *set, const struct build_backends *from, unsigned family, unsigned proto,
		     struct slots *slots)
{
	uint32_t n = count(from, family, proto);
	struct policy_backend *backends;
	uint16_t *table;
	int err;

	*set = (struct policy_set){0};
	if (n == 0)
		return 0;
	backends = calloc(n, sizeof(*backends));
	set->backends = backends;
	set->table_size = maglev_table_size(n);
	table = malloc(set->table_size * sizeof(*table));
	set->table = table;
	err = backends && table ? 0 : -ENOMEM;
	if (!err)
		err = set_fill(set, backends, from, family, proto, slots);
	if (!err)
		err = maglev_build(backends, n, table, set->table_size);
	return err;
}

static uint32_t slots_lacking(const struct build_backends *from, unsigned family, unsigned proto,
			      const struct slots *slots)
{
	uint32_t n = 0;

	for (size_t i = 0; i < from->n; i++) {
		const struct build_backend *b = &from->all[i];

		n += belongs(b, family, proto) && !slots_has(slots, proto_number(proto), &b->addr, b->port_be);
	}
	return n;
}

/* Asked before any is taken: what is taken in vain lingers until the next reap, and others would lack it. */
static bool slots_suffice(const struct build_input *in, const struct slots *slots)
{
	uint32_t n = 0;

	for (unsigned family = 0; family < SET_FAMILIES; family++)
		for (unsigned proto = 0; proto < SET_PROTOS; proto++)
			if (listens(in->service, family, proto))
				n += slots_lacking(&in->is, family, proto, slots);
	return n <= slots_free(slots);
}

/* What the operator says holds for every port. */
static uint32_t udp_ms(uint64_t ns, uint32_t auto_ms)
{
	return ns ? ns / NS_PER_MS : auto_ms;
}

static struct policy_timeouts timeouts_of(const struct config_service *svc)
{
	struct policy_timeouts t = policy_timeouts_default;

	if (svc->udp_oneshot) {
		t.udp_unreplied_ms = t.dns_unreplied_ms;
		t.udp_replied_ms = t.dns_replied_ms;
	}
	t.udp_unreplied_ms = udp_ms(svc->idle_udp_unreplied_ns, t.udp_unreplied_ms);
	t.udp_replied_ms = udp_ms(svc->idle_udp_ns, t.udp_replied_ms);
	t.dns_unreplied_ms = udp_ms(svc->idle_udp_unreplied_ns, t.dns_unreplied_ms);
	t.dns_replied_ms = udp_ms(svc->idle_udp_ns, t.dns_replied_ms);
	t.established_ms = svc->idle_tcp_ns / NS_PER_MS;
	t.probe_ms = svc->idle_probe_ns / NS_PER_MS;
	t.probe_client = svc->idle_probe_side != PROBE_BACKEND;
	t.probe_backend = svc->idle_probe_side != PROBE_CLIENT;
	return t;
}

/* The check has seen to it that a cap can be kept. */
static int cap_init(struct gcra_rate *cap, uint64_t per_s, uint64_t burst)
{
	*cap = (struct gcra_rate){0};
	if (!per_s)
		return 0;
	return gcra_rate_init(cap, per_s, NS_PER_S, burst ? burst : gcra_default_burst(per_s, NS_PER_S));
}

static int storm_build(struct policy_storm *storm, const struct config_service *svc)
{
	int err = cap_init(&storm->caps[STORM_CLIENT], svc->storm_client_rate_per_s, svc->storm_client_burst);

	if (!err)
		err = cap_init(&storm->caps[STORM_PREFIX], svc->storm_prefix_rate_per_s, svc->storm_prefix_burst);
	if (!err)
		err = cap_init(&storm->caps[STORM_SERVICE], svc->storm_rate_per_s, svc->storm_burst);
	storm->early = svc->storm_early;
	storm->hold_ns = svc->storm_hold_ns;
	storm->client_timeout_ns = svc->storm_client_timeout_ns;
	storm->retry_budget_ppm = svc->storm_retry_budget_ppm;
	return err;
}

static int sets_build(struct policy_service *svc, const struct build_input *in, unsigned family, unsigned proto,
		      struct slots *slots)
{
	int err = set_build(&svc->sets[family][proto], &in->is, family, proto, slots);

	if (proto == SET_TCP) {
		svc->sets[family][proto].hard_max = in->service->storm_hard_max;
		if (!err)
			err = cap_init(&svc->sets[family][proto].rate, in->service->storm_backend_rate_per_s,
				       in->service->storm_backend_burst);
	}
	if (!err && in->would_differ)
		err = set_build(&svc->would[family][proto], &in->would, family, proto, NULL);
	return err;
}

struct policy_service *build_service(const struct build_input *in, struct slots *slots)
{
	struct policy_service *svc;
	int err = 0;

	if (!slots_suffice(in, slots)) {
		errno = ENOSPC;
		return NULL;
	}
	svc = calloc(1, sizeof(*svc));
	if (!svc)
		return NULL;
	svc->ref = in->ref;
	svc->timeouts = timeouts_of(in->service);
	svc->clamp_mss = in->service->path_clamp == CLAMP_AUTO;
	svc->reuse = in->service->reuse;
	svc->udp_oneshot = in->service->udp_oneshot;
	svc->udp6_zero = in->service->udp6_zero == UDP6_ZERO_ALLOW;
	svc->breaker_consecutive = in->service->breaker_consecutive;
	svc->breaker_window_s = in->service->breaker_window_ns / 1000000000;
	svc->breaker_ratio_ppm = in->service->breaker_ratio_ppm;
	err = storm_build(&svc->storm, in->service);
	svc->would_differ = in->would_differ;
	for (unsigned family = 0; family < SET_FAMILIES && !err; family++)
		for (unsigned proto = 0; proto < SET_PROTOS && !err; proto++)
			if (listens(in->service, family, proto))
				err = sets_build(svc, in, family, proto, slots);
	if (!err)
		return svc;
	build_service_free(svc, slots, false);
	errno = -err;
	return NULL;
}

static void set_free(struct policy_set *set, struct slots *slots, bool poison)
{
	for (uint32_t i = 0; i < set->n_backends; i++)
		if (set->backends[i].ref.slot != SLOT_NONE)
			slots_put(slots, set->backends[i].ref.slot);
	if (poison && set->n_backends) {
		memset((void *)set->backends, POLICY_POISON, set->n_backends * sizeof(*set->backends));
		memset((void *)set->table, POLICY_POISON, set->table_size * sizeof(*set->table));
	}
	free((void *)set->backends);
	free((void *)set->table);
}

void build_service_free(struct policy_service *svc, struct slots *slots, bool poison)
{
	if (!svc)
		return;
	for (unsigned family = 0; family < SET_FAMILIES; family++)
		for (unsigned proto = 0; proto < SET_PROTOS; proto++) {
			set_free(&svc->sets[family][proto], slots, poison);
			set_free(&svc->would[family][proto], slots, poison);
		}
	if (poison)
		memset(svc, POLICY_POISON, sizeof(*svc));
	free(svc);
}

struct listener_table *build_listeners(const struct config_service *services, const struct slot_ref *refs, size_t n)
{
	struct policy_listener *all;
	struct listener_table *table;
	size_t n_all = 0;

	for (size_t i = 0; i < n; i++)
		n_all += services[i].n_listen;
	all = calloc(n_all ? n_all : 1, sizeof(*all));
	if (!all)
		return NULL;
	n_all = 0;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < services[i].n_listen; j++) {
			const struct config_listen *l = &services[i].listen[j];

			all[n_all++] = (struct policy_listener){l->addr, refs[i].slot, l->port_be, l->proto};
		}
	table = listener_table_create(all, n_all);
	free(all);
	return table;
}

struct policy *build_policy(uint64_t number, const struct cure_modes *modes, const struct listener_table *listeners,
			    struct policy_service *const *parts, uint32_t n_slots)
{
	struct policy *policy = malloc(sizeof(*policy) + n_slots * sizeof(*parts));
	const struct policy_service **services;

	if (!policy)
		return NULL;
	services = (const struct policy_service **)(policy + 1);
	memcpy(services, parts, n_slots * sizeof(*parts));
	*policy = (struct policy){
		.number = number,
		.modes = *modes,
		.listeners = listeners,
		.n_services = n_slots,
		.services = services,
	};
	for (uint32_t i = 0; i < n_slots; i++)
		policy->udp6_zero |= parts[i] && parts[i]->udp6_zero;
	return policy;
}
