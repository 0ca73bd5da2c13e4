/* SPDX-License-Identifier: BSD-3-Clause */
#include "hash.h"
#include "netlink_mirror.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Gateways that are kept resolved whether or not a backend needs them; more than that resolve on demand. */
#define MAX_GATEWAYS 256
/* A request that did not make the entry managed (an older kernel, no such link yet) is repeated after that. */
#define ASK_AGAIN_NS 10000000000ull

#define NUD_USABLE   (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT | NUD_NOARP)

/* --- the mirror --- */

static struct neighbour **neighbour_at(struct netlink *nl, uint32_t ifindex, const struct ipaddr *addr)
{
	uint32_t bucket = hash_public(addr->b, sizeof(addr->b), nl->seed + ifindex) % N_NEIGHBOUR_BUCKETS;
	struct neighbour **at = &nl->neighbours[bucket];

	while (*at && ((*at)->ifindex != ifindex || !ipaddr_equal(&(*at)->addr, addr)))
		at = &(*at)->next;
	return at;
}

/* The entry at its place in the table, made if there is none. NULL: no room. */
static struct neighbour *neighbour_get(struct netlink *nl, struct neighbour **at, uint32_t ifindex,
				       const struct ipaddr *addr)
{
	if (*at || nl->n_neighbours >= MIRROR_MAX_NEIGHBOURS)
		return *at;
	*at = calloc(1, sizeof(**at));
	if (!*at)
		return NULL;
	(*at)->addr = *addr;
	(*at)->ifindex = ifindex;
	(*at)->told = NEIGHBOUR_GONE;
	nl->n_neighbours++;
	return *at;
}

static enum neighbour_state neighbour_state(const struct neighbour *n)
{
	return n->has_mac && (n->nud & NUD_USABLE) ? NEIGHBOUR_USABLE : NEIGHBOUR_UNRESOLVED;
}

static void neighbour_tell(struct netlink *nl, struct neighbour *n, int port, enum neighbour_state state)
{
	if (n->told == state && (state != NEIGHBOUR_USABLE || memcmp(n->told_mac, n->mac, sizeof(n->mac)) == 0))
		return;
	if (dataplane_neighbour_update(nl->dp, port, &n->addr, state, n->mac) < 0) {
		nl->report.refused++;
		return;
	}
	nl->report.changes++;
	n->told = state;
	memcpy(n->told_mac, n->mac, sizeof(n->mac));
}

static void neighbour_del(struct netlink *nl, struct neighbour **at, int port)
{
	struct neighbour *n = *at;

	neighbour_tell(nl, n, port, NEIGHBOUR_GONE);
	*at = n->next;
	nl->n_neighbours--;
	free(n);
}

/* --- what is kept resolved --- */

static int wanted_compare(const void *a, const void *b)
{
	const struct wanted *x = a, *y = b;

	if (x->ifindex != y->ifindex)
		return x->ifindex < y->ifindex ? -1 : 1;
	return memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

static struct wanted *wanted_find(struct netlink *nl, uint32_t ifindex, const struct ipaddr *addr)
{
	struct wanted key = {.ifindex = ifindex, .addr = *addr};

	if (!nl->n_wanted)
		return NULL;
	return bsearch(&key, nl->wanted, nl->n_wanted, sizeof(key), wanted_compare);
}

/* The kernel deleted or replaced an entry that it kept resolved: ask soon. */
static void wanted_again(struct netlink *nl, const struct neighbour *n)
{
	struct wanted *w = n->managed ? wanted_find(nl, n->ifindex, &n->addr) : NULL;

	if (w)
		w->asked_ns = 0;
}

/*
 * NTF_USE makes the kernel resolve as if it had a packet to send; a kernel that does not know NTF_EXT_MANAGED (before
 * 5.16) reads no more than that. Without it, a managed entry becomes a plain one. Either takes away NUD_PERMANENT: what
 * the operator made permanent must not be asked for.
 */
static int neighbour_ask(struct netlink *nl, uint32_t ifindex, const struct ipaddr *addr, unsigned flags, bool managed)
{
	uint8_t buf[128];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct ndmsg *ndm;
	const struct neighbour *n = *neighbour_at(nl, ifindex, addr);

	if (n && (n->nud & (NUD_PERMANENT | NUD_NOARP)))
		return 0;
	nlh->nlmsg_type = RTM_NEWNEIGH;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE | flags;
	ndm = mnl_nlmsg_put_extra_header(nlh, sizeof(*ndm));
	ndm->ndm_family = ipaddr_is_v4(addr) ? AF_INET : AF_INET6;
	ndm->ndm_ifindex = (int)ifindex;
	ndm->ndm_state = NUD_NONE;
	ndm->ndm_flags = NTF_USE;
	if (ipaddr_is_v4(addr))
		mnl_attr_put_u32(nlh, NDA_DST, ipaddr_v4_be(addr));
	else
		mnl_attr_put(nlh, NDA_DST, sizeof(addr->b), addr->b);
	if (managed)
		mnl_attr_put_u32(nlh, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
	return mirror_command(nl, nlh);
}

static void wanted_drop(struct netlink *nl, const struct wanted *w)
{
	const struct neighbour *n = *neighbour_at(nl, w->ifindex, &w->addr);

	/* Unknown yet: its first message may be on the way. */
	if (!n || n->managed)
		neighbour_ask(nl, w->ifindex, &w->addr, 0, false);
}

/* Appends the next hops of one address. Returns how many, at most ROUTE_MAX_NEXTHOPS. */
static size_t next_hops(struct netlink *nl, const struct ipaddr *addr, struct wanted *out)
{
	struct route_change c;
	size_t n = 0;

	if (!routes_lookup(nl, addr, &c) || c.kind != ROUTE_UNICAST)
		return 0;
	for (unsigned i = 0; i < c.n_nexthops; i++) {
		const struct route_nexthop *nh = &c.nexthops[i];

		for (size_t p = 0; p < nl->n_ports; p++) {
			if (nl->ports[p].port != nh->port || !nl->ports[p].ifindex)
				continue;
			out[n++] = (struct wanted){.addr = nh->on_link ? *addr : nh->gateway,
						   .ifindex = nl->ports[p].ifindex};
		}
	}
	return n;
}

/* Sorts, and keeps each element once. Returns how many are left. */
static size_t sort_unique(void *elements, size_t n, size_t size, int (*compare)(const void *a, const void *b))
{
	uint8_t *at = elements;
	size_t n_out = 0;

	if (n)
		qsort(at, n, size, compare);
	for (size_t i = 0; i < n; i++)
		if (!n_out || compare(at + (n_out - 1) * size, at + i * size) != 0)
			memmove(at + n_out++ * size, at + i * size, size);
	return n_out;
}

static size_t wanted_unique(struct wanted *w, size_t n)
{
	return sort_unique(w, n, sizeof(*w), wanted_compare);
}

void wanted_tick(struct netlink *nl)
{
	uint64_t start_ns = clock_monotonic_ns(), now_ns = start_ns;

	/* What there is no time for waits for the next second. */
	for (size_t i = 0; i < nl->n_wanted && now_ns - start_ns < MIRROR_SLICE_NS; i++) {
		struct wanted *w = &nl->wanted[i];
		const struct neighbour *n = *neighbour_at(nl, w->ifindex, &w->addr);

		if (n && n->managed)
			continue;
		if (w->asked_ns && now_ns - w->asked_ns < ASK_AGAIN_NS)
			continue;
		w->asked_ns = now_ns;
		neighbour_ask(nl, w->ifindex, &w->addr, NLM_F_CREATE, true);
		now_ns = clock_monotonic_ns();
	}
}

/* Walks both sorted sets: lets go what is not in `w`, and asks for what is new there. */
static void wanted_replace(struct netlink *nl, struct wanted *w, size_t n)
{
	size_t old = 0;

	for (size_t i = 0; i < n || old < nl->n_wanted;) {
		int order = i == n ? 1 : old == nl->n_wanted ? -1 : wanted_compare(&w[i], &nl->wanted[old]);

		if (order < 0)
			i++;
		else if (order > 0)
			wanted_drop(nl, &nl->wanted[old++]);
		else
			w[i++].asked_ns = nl->wanted[old++].asked_ns;
	}
	free(nl->wanted);
	nl->wanted = w;
	nl->n_wanted = n;
	wanted_tick(nl);
}

/* Appends the gateways of all routes through our ports: a client's first answer must not wait for ARP. */
static size_t gateways(struct netlink *nl, struct wanted *out, size_t max)
{
	struct neighbour_want found[MAX_GATEWAYS];
	size_t n_found = dataplane_route_gateways(nl->dp, found, MAX_GATEWAYS), n = 0;

	for (size_t i = 0; i < n_found; i++)
		for (size_t p = 0; p < nl->n_ports && n < max; p++)
			if (nl->ports[p].port == found[i].port && nl->ports[p].ifindex)
				out[n++] = (struct wanted){.addr = found[i].addr, .ifindex = nl->ports[p].ifindex};
	return n;
}

int wanted_update(struct netlink *nl)
{
	size_t cap = MAX_GATEWAYS + ROUTE_MAX_NEXTHOPS, n = 0;
	struct wanted *w = malloc(cap * sizeof(*w));
	int err = 0;

	nl->keep_stale = false;
	if (!w)
		return -ENOMEM;
	n = gateways(nl, w, MAX_GATEWAYS);
	for (size_t i = 0; i < nl->n_keep; i++) {
		if (n + ROUTE_MAX_NEXTHOPS > cap) {
			struct wanted *more = realloc(w, 2 * cap * sizeof(*w));

			if (!more) {
				err = -ENOMEM;
				break;
			}
			w = more;
			cap *= 2;
		}
		n += next_hops(nl, &nl->keep[i], &w[n]);
		/* Most addresses share their gateways. */
		if (n + ROUTE_MAX_NEXTHOPS > MIRROR_MAX_WANTED)
			n = wanted_unique(w, n);
		if (n + ROUTE_MAX_NEXTHOPS > MIRROR_MAX_WANTED) {
			err = -E2BIG;
			break;
		}
	}
	wanted_replace(nl, w, wanted_unique(w, n));
	return err;
}

void wanted_release(struct netlink *nl)
{
	wanted_replace(nl, NULL, 0);
}

static int address_compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ipaddr));
}

int netlink_keep_resolved(struct netlink *nl, const struct ipaddr *addrs, size_t n)
{
	struct ipaddr *keep = malloc((n ? n : 1) * sizeof(*keep));
	int err;

	if (!keep)
		return -ENOMEM;
	memcpy(keep, addrs, n * sizeof(*keep));
	n = sort_unique(keep, n, sizeof(*keep), address_compare);
	free(nl->keep);
	nl->keep = keep;
	nl->n_keep = n < MIRROR_MAX_WANTED ? n : MIRROR_MAX_WANTED;
	err = wanted_update(nl);
	return n > nl->n_keep ? -E2BIG : err;
}

void netlink_resolve(struct netlink *nl, int port, const struct ipaddr *addr)
{
	for (size_t i = 0; i < nl->n_ports; i++) {
		const struct mirror_port *p = &nl->ports[i];
		struct neighbour *n;

		if (p->port != port || !p->ifindex)
			continue;
		/* It asks for what it was told already: there was no room then. */
		n = *neighbour_at(nl, p->ifindex, addr);
		if (n)
			n->told = NEIGHBOUR_GONE;
		if (n)
			neighbour_tell(nl, n, port, neighbour_state(n));
		/* Asking plainly would end the kernel's care for it. */
		neighbour_ask(nl, p->ifindex, addr, NLM_F_CREATE, wanted_find(nl, p->ifindex, addr));
	}
}

/* --- messages --- */

static bool is_multicast(const struct ipaddr *addr)
{
	return ipaddr_is_v4(addr) ? (addr->b[12] & 0xf0) == 0xe0 : addr->b[0] == 0xff;
}

static void neighbour_read(struct neighbour *n, const struct ndmsg *ndm, const struct nlattr **tb)
{
	n->managed = tb[NDA_FLAGS_EXT] && (mnl_attr_get_u32(tb[NDA_FLAGS_EXT]) & NTF_EXT_MANAGED);
	n->nud = ndm->ndm_state;
	n->has_mac = tb[NDA_LLADDR] && mnl_attr_get_payload_len(tb[NDA_LLADDR]) == sizeof(n->mac);
	if (n->has_mac)
		memcpy(n->mac, mnl_attr_get_payload(tb[NDA_LLADDR]), sizeof(n->mac));
}

void neighbours_on_message(struct netlink *nl, const struct nlmsghdr *nlh)
{
	const struct ndmsg *ndm = mnl_nlmsg_get_payload(nlh);
	const struct mirror_port *p = port_of_ifindex(nl, (uint32_t)ndm->ndm_ifindex);
	const struct nlattr *tb[NDA_FLAGS_EXT + 1];
	struct neighbour **at, *n;
	struct ipaddr addr;

	attributes(nlh, sizeof(*ndm), tb, NDA_FLAGS_EXT);
	/* A proxy entry is an address that the host answers for. */
	if (!p || (ndm->ndm_family != AF_INET && ndm->ndm_family != AF_INET6) || (ndm->ndm_flags & NTF_PROXY) ||
	    !attribute_address(tb[NDA_DST], &addr) || is_multicast(&addr))
		return;
	at = neighbour_at(nl, p->ifindex, &addr);
	if (*at)
		wanted_again(nl, *at);
	if (nlh->nlmsg_type == RTM_DELNEIGH) {
		if (*at)
			neighbour_del(nl, at, p->port);
		return;
	}
	n = neighbour_get(nl, at, p->ifindex, &addr);
	if (!n) {
		nl->report.refused++;
		return;
	}
	neighbour_read(n, ndm, tb);
	n->generation = nl->generation;
	neighbour_tell(nl, n, p->port, neighbour_state(n));
}

void neighbours_sweep(struct netlink *nl)
{
	for (unsigned b = 0; b < N_NEIGHBOUR_BUCKETS; b++) {
		for (struct neighbour **at = &nl->neighbours[b]; *at;) {
			const struct mirror_port *p = port_of_ifindex(nl, (*at)->ifindex);

			if ((*at)->generation == nl->generation) {
				at = &(*at)->next;
				continue;
			}
			wanted_again(nl, *at);
			neighbour_del(nl, at, p ? p->port : -1);
		}
	}
}

void neighbours_forget_port(struct netlink *nl, const struct mirror_port *port)
{
	for (unsigned b = 0; b < N_NEIGHBOUR_BUCKETS; b++) {
		for (struct neighbour **at = &nl->neighbours[b]; *at;) {
			if ((*at)->ifindex == port->ifindex)
				neighbour_del(nl, at, port->port);
			else
				at = &(*at)->next;
		}
	}
}

void neighbours_free(struct netlink *nl)
{
	for (unsigned b = 0; b < N_NEIGHBOUR_BUCKETS; b++) {
		struct neighbour *n, *next;

		for (n = nl->neighbours[b]; n; n = next) {
			next = n->next;
			free(n);
		}
	}
}
