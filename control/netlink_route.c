/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel's main tables. A prefix has its routes in the kernel's order of preference: by priority (the metric), and
 * among equal ones by the order of the kernel's own list. The first that can be used goes to the dataplane.
 */
#include "hash.h"
#include "netlink_mirror.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- prefixes --- */

static struct prefix **prefix_at(struct netlink *nl, const struct ipaddr *addr, uint8_t len)
{
	uint32_t bucket = hash_public(addr->b, sizeof(addr->b), nl->seed + len) % N_PREFIX_BUCKETS;
	struct prefix **at = &nl->routes.buckets[bucket];

	while (*at && ((*at)->len != len || !ipaddr_equal(&(*at)->addr, addr)))
		at = &(*at)->next;
	return at;
}

static struct prefix *prefix_get(struct netlink *nl, const struct ipaddr *addr, uint8_t len)
{
	struct prefix **at = prefix_at(nl, addr, len);

	if (*at)
		return *at;
	*at = calloc(1, sizeof(**at));
	if (!*at)
		return NULL;
	(*at)->addr = *addr;
	(*at)->len = len;
	nl->routes.n_of_len[ipaddr_is_v4(addr)][len]++;
	return *at;
}

/* Prefixes are freed by routes_flush() alone, when the dataplane has forgotten them too. */
static void prefix_free(struct netlink *nl, struct prefix *p)
{
	*prefix_at(nl, &p->addr, p->len) = p->next;
	nl->routes.n_of_len[ipaddr_is_v4(&p->addr)][p->len]--;
	free(p);
}

static void prefix_touch(struct netlink *nl, struct prefix *p)
{
	struct route_table *t = &nl->routes;

	if (p->dirty)
		return;
	p->dirty = true;
	p->dirty_next = NULL;
	*t->dirty_tail = p;
	t->dirty_tail = &p->dirty_next;
	t->n_dirty++;
}

void route_touch(struct netlink *nl, struct route *r)
{
	prefix_touch(nl, r->prefix);
}

/* --- routes of a prefix --- */

static bool is_same(const struct route *r, const struct route_message *m)
{
	if (r->priority != m->priority || r->type != m->type || r->nh_id != m->nh_id || r->rest != m->rest ||
	    r->n_hops != m->n_hops)
		return false;
	for (unsigned i = 0; i < r->n_hops; i++)
		if (!hop_same(&r->hops[i], &m->hops[i]))
			return false;
	return true;
}

static struct route *find_same(const struct prefix *p, const struct route_message *m)
{
	for (struct route *r = p->routes; r; r = r->next)
		if (is_same(r, m))
			return r;
	return NULL;
}

static struct route *first_of_priority(const struct prefix *p, uint32_t priority)
{
	for (struct route *r = p->routes; r; r = r->next)
		if (r->priority == priority)
			return r;
	return NULL;
}

void route_remove(struct netlink *nl, struct route *r)
{
	struct route **at = &r->prefix->routes;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	prefix_touch(nl, r->prefix);
	nexthop_detach(nl, r);
	nl->routes.n_routes--;
	free(r);
}

/* `before`: ahead of those with the same priority. */
static void route_insert(struct netlink *nl, struct prefix *p, const struct route_message *m, bool before)
{
	struct route **at = &p->routes;
	struct route *r = NULL;

	prefix_touch(nl, p); /* also if it stays empty */
	if (nl->routes.n_routes < MIRROR_MAX_ROUTES)
		r = calloc(1, sizeof(*r) + m->n_hops * sizeof(m->hops[0]));
	if (r)
		r->nh_id = m->nh_id;
	if (!r || nexthop_attach(nl, r) < 0) {
		nl->report.refused++;
		free(r);
		return;
	}
	r->prefix = p;
	r->rest = m->rest;
	r->priority = m->priority;
	r->mtu = m->mtu;
	r->type = m->type;
	r->generation = nl->generation;
	r->n_hops = m->n_hops;
	memcpy(r->hops, m->hops, m->n_hops * sizeof(m->hops[0]));
	while (*at && ((*at)->priority < m->priority || (!before && (*at)->priority == m->priority)))
		at = &(*at)->next;
	r->next = *at;
	*at = r;
	nl->routes.n_routes++;
}

/* Takes over what may change in a route that stays the same one. Returns true if something did. */
static bool route_refresh(struct netlink *nl, struct route *r, const struct route_message *m)
{
	bool changed = r->mtu != m->mtu;

	r->generation = nl->generation;
	r->mtu = m->mtu;
	for (unsigned i = 0; i < r->n_hops; i++) {
		changed |= r->hops[i].dead != m->hops[i].dead;
		r->hops[i].dead = m->hops[i].dead;
	}
	if (changed)
		route_touch(nl, r);
	return changed;
}

static bool has_hop(const struct hop *hops, unsigned n, const struct hop *h)
{
	for (unsigned i = 0; i < n; i++)
		if (hop_same(&hops[i], h))
			return true;
	return false;
}

static bool is_subset(const struct hop *some, unsigned n_some, const struct hop *all, unsigned n_all)
{
	for (unsigned i = 0; i < n_some; i++)
		if (!has_hop(all, n_all, &some[i]))
			return false;
	return n_some > 0;
}

/* An IPv6 message shows a multipath route whole, however its legs came together: it stands for those before it. */
static void remove_superseded(struct netlink *nl, struct prefix *p, const struct route_message *m)
{
	struct route *r, *next;

	for (r = p->routes; r; r = next) {
		next = r->next;
		if (r->priority == m->priority && is_subset(r->hops, r->n_hops, m->hops, m->n_hops))
			route_remove(nl, r);
	}
}

/*
 * A dump shows the routes of a prefix in the kernel's order, so each goes behind those seen before. A message of an
 * event says by its flags where the kernel put it. Messages older than the dump may come after it: taking a route twice
 * must change nothing.
 */
static void route_new(struct netlink *nl, const struct route_message *m, unsigned flags, bool dumped)
{
	struct prefix *p = prefix_get(nl, &m->prefix, m->prefix_len);
	struct route *same, *first;

	if (!p) {
		nl->report.refused++;
		return;
	}
	same = find_same(p, m);
	first = first_of_priority(p, m->priority);
	if (same && (!(flags & NLM_F_REPLACE) || same == first) && !(dumped && p->routes->next)) {
		route_refresh(nl, same, m);
		return;
	}
	if (same)
		route_remove(nl, same);
	if (!dumped && (flags & NLM_F_REPLACE) && first && first != same)
		route_remove(nl, first);
	if (!m->v4)
		remove_superseded(nl, p, m);
	route_insert(nl, p, m, m->v4 && !dumped && (flags & NLM_F_REPLACE || !(flags & NLM_F_APPEND)));
}

/* Takes legs from an IPv6 multipath route. Returns false if none of the prefix has them. */
static bool remove_legs(struct netlink *nl, struct prefix *p, const struct route_message *m)
{
	struct route *r = p->routes;
	unsigned n_left = 0;

	while (r && (r->priority != m->priority || !is_subset(m->hops, m->n_hops, r->hops, r->n_hops)))
		r = r->next;
	if (!r)
		return false;
	for (unsigned i = 0; i < r->n_hops; i++)
		if (!has_hop(m->hops, m->n_hops, &r->hops[i]))
			r->hops[n_left++] = r->hops[i];
	r->n_hops = n_left;
	if (n_left)
		route_touch(nl, r);
	else
		route_remove(nl, r);
	return true;
}

static void route_del(struct netlink *nl, const struct route_message *m)
{
	struct prefix *p = *prefix_at(nl, &m->prefix, m->prefix_len);
	struct route *same;

	if (!p)
		return;
	same = find_same(p, m);
	if (same)
		route_remove(nl, same);
	else if (!m->v4 && remove_legs(nl, p, m))
		return;
	else if (first_of_priority(p, m->priority))
		/* Another than we know: see what there is. */
		nl->need |= NEED(m->v4 ? DUMP_ROUTES_V4 : DUMP_ROUTES_V6);
}

void routes_on_message(struct netlink *nl, const struct nlmsghdr *nlh, bool dumped)
{
	struct route_message m;

	if (!route_read(nlh, &m))
		return;
	if (nlh->nlmsg_type == RTM_DELROUTE)
		route_del(nl, &m);
	else
		route_new(nl, &m, nlh->nlmsg_flags, dumped);
}

static void prefix_sweep(struct netlink *nl, struct prefix *p)
{
	struct route *r, *next;

	for (r = p->routes; r; r = next) {
		next = r->next;
		if (r->generation != nl->generation)
			route_remove(nl, r);
	}
}

bool routes_sweep(struct netlink *nl, bool v4, uint32_t *at, uint64_t deadline_ns)
{
	while (*at < N_PREFIX_BUCKETS) {
		for (struct prefix *p = nl->routes.buckets[*at]; p; p = p->next)
			if (ipaddr_is_v4(&p->addr) == v4)
				prefix_sweep(nl, p);
		if (++*at % 1024 == 0 && clock_monotonic_ns() > deadline_ns)
			break;
	}
	return *at == N_PREFIX_BUCKETS;
}

/* --- to the dataplane --- */

static void add_nexthop(struct netlink *nl, struct route_change *c, const struct hop *h)
{
	const struct mirror_port *p = port_of_ifindex(nl, h->ifindex);
	struct route_nexthop *nh = &c->nexthops[c->n_nexthops++];

	nh->port = p ? p->port : -1;
	nh->on_link = !h->has_gateway;
	nh->weight = h->weight;
	if (h->has_gateway)
		nh->gateway = h->gateway;
}

/* While one leg leaves through a port, the others that do not would only lose packets. */
static bool keep_own_legs(struct netlink *nl, struct hop *hops, unsigned *n)
{
	unsigned n_own = 0;

	for (unsigned i = 0; i < *n; i++)
		if (port_of_ifindex(nl, hops[i].ifindex))
			hops[n_own++] = hops[i];
	if (n_own)
		*n = n_own;
	return *n > 0;
}

static bool unicast_change(struct netlink *nl, const struct route *r, struct route_change *c)
{
	struct hop hops[ROUTE_MAX_HOPS];
	bool blackhole = false;
	unsigned n = 0;

	if (r->nh_id)
		n = nexthop_resolve(nl, r->nh_id, hops, ROUTE_MAX_HOPS, &blackhole);
	for (unsigned i = 0; i < r->n_hops; i++)
		if (!r->hops[i].dead)
			hops[n++] = r->hops[i];
	if (blackhole) {
		c->kind = ROUTE_BLACKHOLE;
		return true;
	}
	if (!keep_own_legs(nl, hops, &n))
		return false;
	c->kind = ROUTE_UNICAST;
	c->mtu = r->mtu;
	for (unsigned i = 0; i < n && i < ROUTE_MAX_NEXTHOPS; i++)
		add_nexthop(nl, c, &hops[i]);
	if (n == 1)
		c->nexthops[0].weight = 1;
	return true;
}

/* Writes what the dataplane should have for the prefix. False: nothing; the kernel goes on to a shorter prefix. */
static bool prefix_change(struct netlink *nl, const struct prefix *p, struct route_change *c)
{
	/* All bytes are set: a fingerprint is taken of them. */
	memset(c, 0, sizeof(*c));
	c->prefix = p->addr;
	c->prefix_len = p->len;
	for (const struct route *r = p->routes; r; r = r->next) {
		switch (r->type) {
		case RTN_UNICAST:
			if (unicast_change(nl, r, c))
				return true;
			break;
		case RTN_LOCAL:
			c->kind = ROUTE_LOCAL;
			return true;
		default:
			c->kind = ROUTE_BLACKHOLE;
			return true;
		}
	}
	c->remove = true;
	return false;
}

static void count_installed(struct netlink *nl, const struct prefix *p, int by)
{
	if (ipaddr_is_v4(&p->addr))
		nl->report.routes_v4 += by;
	else
		nl->report.routes_v6 += by;
}

/* Takes a prefix off the dirty list. Returns true if `c` must be told to the dataplane. */
static bool next_change(struct netlink *nl, struct route_change *c)
{
	struct route_table *t = &nl->routes;
	struct prefix *p = t->dirty_head;
	uint64_t fingerprint = 0, was = p->installed;

	t->dirty_head = p->dirty_next;
	if (!t->dirty_head)
		t->dirty_tail = &t->dirty_head;
	t->n_dirty--;
	p->dirty = false;
	if (prefix_change(nl, p, c))
		fingerprint = hash_public(c, sizeof(*c), nl->seed) | 1;
	p->installed = fingerprint;
	count_installed(nl, p, (fingerprint != 0) - (was != 0));
	if (!p->routes)
		prefix_free(nl, p);
	return fingerprint != was;
}

void routes_flush(struct netlink *nl)
{
	struct route_table *t = &nl->routes;
	bool removed = false;
	size_t n = 0, refused;

	for (unsigned i = 0; i < ROUTE_BATCH && t->n_dirty; i++) {
		if (!next_change(nl, &t->batch[n]))
			continue;
		removed |= t->batch[n].remove;
		n++;
	}
	if (!n)
		return;
	refused = dataplane_route_update(nl->dp, t->batch, n);
	nl->report.changes += n;
	nl->report.refused += refused;
	nl->keep_stale = true;
	t->lacking |= refused > 0;
	t->removed |= removed && t->lacking;
}

void routes_touch_all(struct netlink *nl, bool forget)
{
	for (uint32_t b = 0; b < N_PREFIX_BUCKETS; b++) {
		for (struct prefix *p = nl->routes.buckets[b]; p; p = p->next) {
			/* A dirty one is told anyway, its removal too. */
			if (forget && p->installed && !p->dirty) {
				p->installed = 0;
				count_installed(nl, p, -1);
			}
			prefix_touch(nl, p);
		}
	}
}

static struct ipaddr masked(const struct ipaddr *addr, unsigned bits)
{
	struct ipaddr a = *addr;

	for (unsigned i = bits / 8; i < sizeof(a.b); i++)
		a.b[i] &= i == bits / 8 ? 0xff00 >> bits % 8 : 0;
	return a;
}

bool routes_lookup(struct netlink *nl, const struct ipaddr *addr, struct route_change *out)
{
	bool v4 = ipaddr_is_v4(addr);

	for (int len = v4 ? 32 : 128; len >= 0; len--) {
		struct ipaddr prefix;
		const struct prefix *p;

		if (!nl->routes.n_of_len[v4][len])
			continue;
		prefix = masked(addr, v4 ? 96 + len : len);
		p = *prefix_at(nl, &prefix, len);
		if (p && prefix_change(nl, p, out))
			return true;
	}
	return false;
}

void routes_init(struct netlink *nl)
{
	nl->routes.dirty_tail = &nl->routes.dirty_head;
}

void routes_free(struct netlink *nl)
{
	for (uint32_t b = 0; b < N_PREFIX_BUCKETS; b++) {
		struct prefix *p, *next_prefix;

		for (p = nl->routes.buckets[b]; p; p = next_prefix) {
			struct route *r, *next;

			next_prefix = p->next;
			for (r = p->routes; r; r = next) {
				next = r->next;
				free(r);
			}
			free(p);
		}
	}
}
