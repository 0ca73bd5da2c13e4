/* SPDX-License-Identifier: BSD-3-Clause */
#include "checks.h"
#include "breakers.h"
#include "check_http.h"
#include "clock.h"
#include "config.h"
#include "dataplane.h"
#include "hash.h"
#include "observe.h"
#include "services.h"
#include "streak.h"

#include <errno.h>
#include <stdlib.h>

#define TCP_PER_WORKER_S 32 /* silent for a second each, and perhaps for three more: CHECKS_MAX has room for them */
#define LOOK_NS          20000000ull /* backends are looked through so often, at the most */

struct checked {
	uint32_t generation;      /* of the slot */
	uint32_t http_round;      /* in which it was seen last with an HTTP check; 0: none that is not let go */
	uint64_t tcp_ns, http_ns; /* when the next one is due; 0: not known yet */
};

struct checks {
	struct dataplane *dp;
	const struct services *services;
	struct breakers *breakers;
	struct check_http *http;
	uint32_t n_slots;
	struct checked *slots;
	uint32_t round;
	bool any_http; /* in the last round */
	enum cure_mode mode;
	uint64_t now_ns, due_ns;
	uint64_t tcp_free_ns; /* from then on another TCP check may be ordered */
	/* The TCP check that is due for the longest time; UINT64_MAX: none is. */
	uint64_t tcp_due_ns, tcp_every_ns;
	struct slot_info tcp_due;
	uint32_t tcp_limit;
	unsigned worker; /* that ordered next */
	void (*news)(void *arg);
	void *arg;
};

static void on_http(void *arg, struct slot_ref backend, enum check_result result, const char *why)
{
	struct checks *c = arg;

	breakers_checked(c->breakers, backend, result, why, c->mode, clock_monotonic_ns());
	c->news(c->arg);
}

struct checks *checks_create(struct dataplane *dp, const struct services *services, struct breakers *breakers,
			     struct event_base *base, uint32_t n_backend_slots, void (*news)(void *arg), void *arg)
{
	struct checks *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	*c = (struct checks){.dp = dp, .services = services, .breakers = breakers, .n_slots = n_backend_slots};
	c->due_ns = UINT64_MAX;
	c->news = news;
	c->arg = arg;
	c->slots = calloc(n_backend_slots, sizeof(*c->slots));
	c->http = check_http_create(base, on_http, c);
	if (c->slots && c->http)
		return c;
	checks_destroy(c);
	errno = ENOMEM;
	return NULL;
}

void checks_destroy(struct checks *c)
{
	if (!c)
		return;
	check_http_destroy(c->http);
	free(c->slots);
	free(c);
}

/* --- when --- */

static void want(struct checks *c, uint64_t at_ns)
{
	if (at_ns < c->now_ns + LOOK_NS)
		at_ns = c->now_ns + LOOK_NS;
	if (at_ns < c->due_ns)
		c->due_ns = at_ns;
}

/* Not in step: within a tenth of `every`, the first time within all of it. */
static uint64_t spread(const struct checks *c, uint32_t slot, uint64_t within_ns)
{
	return (uint64_t)((unsigned __int128)within_ns * (uint32_t)hash_public(&c->now_ns, sizeof(c->now_ns), slot) >>
			  32);
}

/* True: it is due. Of several services the one that asks most often counts. */
static bool is_due(struct checks *c, uint32_t slot, uint64_t *next_ns, uint64_t every_ns)
{
	if (!*next_ns)
		*next_ns = c->now_ns + spread(c, slot, every_ns);
	if (*next_ns > c->now_ns + every_ns)
		*next_ns = c->now_ns + every_ns;
	if (*next_ns > c->now_ns)
		want(c, *next_ns);
	return *next_ns <= c->now_ns;
}

static void plan(struct checks *c, uint32_t slot, uint64_t *next_ns, uint64_t every_ns)
{
	*next_ns = c->now_ns + every_ns - every_ns / 10 + spread(c, slot, every_ns / 5);
	want(c, *next_ns);
}

/* --- TCP --- */

/* What is open has its probes, what is half-open its trials. */
static bool takes_tcp_checks(const struct checks *c, uint32_t slot)
{
	struct streak s = streak_read(dataplane_breaker(c->dp, slot));

	return !s.forced && (s.state == BREAKER_CLOSED || s.state == BREAKER_RAMP);
}

static void order_tcp(struct checks *c, const struct slot_info *info, uint32_t limit)
{
	const struct order order = {
		.kind = ORDER_CHECK,
		.slot = info->ref.slot,
		.addr = info->addr,
		.port_be = info->port_be,
		.limit = limit,
	};

	dataplane_order(c->dp, c->worker++ % dataplane_n_workers(c->dp), &order);
	c->tcp_free_ns = c->now_ns + 1000000000 / (TCP_PER_WORKER_S * dataplane_n_workers(c->dp));
}

static void run_tcp(struct checks *c, const struct slot_info *info, const struct services_side *side)
{
	uint32_t slot = info->ref.slot;
	uint64_t *next_ns = &c->slots[slot].tcp_ns;

	if (!is_due(c, slot, next_ns, side->config->check_every_ns))
		return;
	if (!takes_tcp_checks(c, slot)) {
		plan(c, slot, next_ns, side->config->check_every_ns);
		return;
	}
	want(c, c->tcp_free_ns);
	if (*next_ns >= c->tcp_due_ns)
		return;
	c->tcp_due_ns = *next_ns;
	c->tcp_every_ns = side->config->check_every_ns;
	c->tcp_due = *info;
	c->tcp_limit = side->part->breaker_consecutive;
}

/* Where more are due than may be sent, all have their turn. */
static void send_tcp(struct checks *c)
{
	uint32_t slot = c->tcp_due.ref.slot;

	if (c->tcp_due_ns == UINT64_MAX || c->now_ns < c->tcp_free_ns)
		return;
	order_tcp(c, &c->tcp_due, c->tcp_limit);
	plan(c, slot, &c->slots[slot].tcp_ns, c->tcp_every_ns);
}

/* --- HTTP --- */

static void run_http(struct checks *c, const struct slot_info *info, const struct services_side *side)
{
	const struct check_http_order order = {
		.backend = info->ref,
		.addr = info->addr,
		.port_be = info->port_be,
		.path = side->config->check_http,
		.timeout_ms = side->config->check_timeout_ns / 1000000,
	};
	uint32_t slot = info->ref.slot;
	uint64_t *next_ns = &c->slots[slot].http_ns;

	c->slots[slot].http_round = c->round;
	c->any_http = true;
	if (!is_due(c, slot, next_ns, side->config->check_every_ns))
		return;
	/* Where no place is free, as soon as one is. */
	if (c->mode == CURE_ENFORCE && check_http_start(c->http, &order)) {
		want(c, c->now_ns + LOOK_NS);
		return;
	}
	plan(c, slot, next_ns, side->config->check_every_ns);
}

static void look_at_side(void *arg, const struct services_side *side)
{
	struct checks *c = arg;
	const struct config_service *config = side->config;

	if (!config || (!config->check_tcp && !*config->check_http))
		return;
	for (uint32_t i = 0; i < side->set->n_backends; i++) {
		uint32_t slot = side->set->backends[i].ref.slot;
		struct checked *at = &c->slots[slot];
		struct slot_info info;

		if (!services_backend(c->services, slot, &info))
			continue;
		if (at->generation != info.ref.generation)
			*at = (struct checked){.generation = info.ref.generation};
		if (config->check_tcp)
			run_tcp(c, &info, side);
		/* Of several services with a path the first one's counts. */
		if (*config->check_http && at->http_round != c->round)
			run_http(c, &info, side);
	}
}

/* Who is not checked any more is as if he never had been. */
static void let_go(struct checks *c)
{
	for (uint32_t slot = 0; slot < c->n_slots; slot++) {
		struct checked *at = &c->slots[slot];

		if (!at->http_round || (at->http_round == c->round && c->mode == CURE_ENFORCE))
			continue;
		breakers_unchecked(c->breakers, (struct slot_ref){slot, at->generation});
		at->http_round = 0;
		at->http_ns = 0;
	}
}

void checks_run(struct checks *c, enum cure_mode mode, uint64_t now_ns)
{
	bool had_http = c->any_http;

	c->round++;
	c->mode = mode;
	c->now_ns = now_ns;
	c->due_ns = UINT64_MAX;
	c->any_http = false;
	c->tcp_due_ns = UINT64_MAX;
	if (mode != CURE_OFF)
		services_sides(c->services, look_at_side, c);
	send_tcp(c);
	if (had_http || c->any_http)
		let_go(c);
}

uint64_t checks_due_ns(const struct checks *c)
{
	return c->due_ns;
}
