/* SPDX-License-Identifier: BSD-3-Clause */
#include "netlink_mirror.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <stdlib.h>
#include <string.h>

/* linux/if.h, which does not go together with net/if.h. */
#define LINK_LOWER_UP (1u << 16)
#define LINK_FLAGS    (IFF_UP | IFF_RUNNING | LINK_LOWER_UP)

struct link_message {
	uint32_t ifindex;
	uint32_t flags;
	uint32_t mtu;
	const char *name;
	const uint8_t *mac; /* NULL: it has none of 6 bytes */
};

/* Makes room for one more of `size` bytes in a growing array. Returns 0, -ENOMEM or -ENOSPC. */
static int array_grow(void **v, size_t n, size_t *cap, size_t size, size_t max)
{
	size_t more = *cap ? 2 * *cap : 16;
	void *grown;

	if (n < *cap)
		return 0;
	if (n >= max)
		return -ENOSPC;
	grown = realloc(*v, more * size);
	if (!grown)
		return -ENOMEM;
	*v = grown;
	*cap = more;
	return 0;
}

struct mirror_port *port_of_ifindex(struct netlink *nl, uint32_t ifindex)
{
	for (size_t i = 0; ifindex && i < nl->n_ports; i++)
		if (nl->ports[i].ifindex == ifindex)
			return &nl->ports[i];
	return NULL;
}

static struct mirror_port *port_of_name(struct netlink *nl, const char *name)
{
	for (size_t i = 0; i < nl->n_ports; i++)
		if (strcmp(nl->ports[i].device, name) == 0)
			return &nl->ports[i];
	return NULL;
}

static struct link *link_find(struct netlink *nl, uint32_t ifindex)
{
	for (size_t i = 0; i < nl->n_links; i++)
		if (nl->links[i].ifindex == ifindex)
			return &nl->links[i];
	return NULL;
}

static void port_tell(struct netlink *nl, const struct mirror_port *p)
{
	struct netlink_link link = {.present = p->ifindex || p->replaced, .lost = p->lost, .up = p->up, .mtu = p->mtu};

	memcpy(link.mac, p->mac, sizeof(link.mac));
	dataplane_port_set_mac(nl->dp, p->port, p->mac);
	dataplane_port_set_link(nl->dp, p->port, p->up, p->mtu);
	if (nl->link_changed)
		nl->link_changed(nl->arg, p->port, &link);
}

/* The netdev went away or has another name now. */
static void port_unbind(struct netlink *nl, struct mirror_port *p)
{
	neighbours_forget_port(nl, p);
	p->ifindex = 0;
	p->up = false;
	port_tell(nl, p);
	routes_touch_all(nl, false);
	nl->keep_stale = true;
}

/* Another netdev has the name of the one that the port was opened on. */
static void port_replaced(struct netlink *nl, struct mirror_port *p)
{
	if (p->replaced)
		return;
	p->lost = true;
	p->replaced = true;
	if (p->ifindex)
		port_unbind(nl, p);
	else
		port_tell(nl, p);
}

static bool is_opened_on_other(const struct mirror_port *p, uint32_t ifindex)
{
	return p->opened && (p->lost || p->opened != ifindex);
}

static void port_bind(struct netlink *nl, struct mirror_port *p, const struct link_message *m)
{
	bool up = (m->flags & IFF_UP) && (m->flags & IFF_RUNNING);
	bool is_new = p->ifindex != m->ifindex;
	uint8_t mac[6] = {0};

	if (m->mac)
		memcpy(mac, m->mac, sizeof(mac));
	if (is_new && p->ifindex)
		port_unbind(nl, p);
	if (!is_new && p->up == up && p->mtu == m->mtu && memcmp(p->mac, mac, sizeof(mac)) == 0)
		return;
	p->ifindex = m->ifindex;
	p->up = up;
	p->mtu = m->mtu;
	memcpy(p->mac, mac, sizeof(mac));
	port_tell(nl, p);
	if (is_new) {
		routes_touch_all(nl, false);
		nl->keep_stale = true;
		/* Messages about its neighbours were passed over while it was no port's. */
		nl->need |= NEED(DUMP_NEIGHBOURS);
	}
}

/*
 * The kernel drops IPv4 routes and nexthop objects of a link that goes down without a word, and marks legs of multipath
 * routes dead or alive without one: ask for them again.
 */
static void link_new(struct netlink *nl, const struct link_message *m)
{
	struct link *l = link_find(nl, m->ifindex);
	struct mirror_port *was = port_of_ifindex(nl, m->ifindex);
	struct mirror_port *is = port_of_name(nl, m->name);

	if (!l) {
		if (array_grow((void **)&nl->links, nl->n_links, &nl->links_cap, sizeof(*l), MIRROR_MAX_LINKS)) {
			nl->report.refused++;
			return;
		}
		l = &nl->links[nl->n_links++];
		*l = (struct link){.ifindex = m->ifindex, .flags = m->flags};
	} else if (l->flags != m->flags) {
		nl->need |= NEED_ROUTES;
	}
	l->flags = m->flags;
	l->generation = nl->generation;
	if (was && was != is)
		port_unbind(nl, was);
	if (is && is_opened_on_other(is, m->ifindex))
		port_replaced(nl, is);
	else if (is)
		port_bind(nl, is, m);
}

static void link_del(struct netlink *nl, uint32_t ifindex)
{
	struct link *l = link_find(nl, ifindex);
	struct mirror_port *p = port_of_ifindex(nl, ifindex);

	if (!l)
		return;
	*l = nl->links[--nl->n_links];
	for (size_t i = 0; i < nl->n_ports; i++)
		nl->ports[i].lost |= nl->ports[i].opened == ifindex;
	if (p)
		port_unbind(nl, p);
	nl->need |= NEED_ROUTES | NEED(DUMP_ADDRESSES_V4) | NEED(DUMP_ADDRESSES_V6);
}

void links_on_message(struct netlink *nl, const struct nlmsghdr *nlh)
{
	const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[IFLA_MTU + 1];
	struct link_message m = {.ifindex = (uint32_t)ifi->ifi_index, .flags = ifi->ifi_flags & LINK_FLAGS};

	/* A bridge tells about its members in the same words, family AF_BRIDGE. */
	if (ifi->ifi_family != AF_UNSPEC)
		return;
	if (nlh->nlmsg_type == RTM_DELLINK) {
		link_del(nl, m.ifindex);
		return;
	}
	attributes(nlh, sizeof(*ifi), tb, IFLA_MTU);
	if (!tb[IFLA_IFNAME] || mnl_attr_validate(tb[IFLA_IFNAME], MNL_TYPE_NUL_STRING) < 0)
		return;
	m.name = mnl_attr_get_str(tb[IFLA_IFNAME]);
	if (tb[IFLA_MTU] && mnl_attr_validate(tb[IFLA_MTU], MNL_TYPE_U32) == 0)
		m.mtu = mnl_attr_get_u32(tb[IFLA_MTU]);
	if (tb[IFLA_ADDRESS] && mnl_attr_get_payload_len(tb[IFLA_ADDRESS]) == 6)
		m.mac = mnl_attr_get_payload(tb[IFLA_ADDRESS]);
	link_new(nl, &m);
}

void links_sweep(struct netlink *nl)
{
	for (size_t i = nl->n_links; i-- > 0;)
		if (nl->links[i].generation != nl->generation)
			link_del(nl, nl->links[i].ifindex);
}

static struct address *address_find(const struct netlink *nl, const struct ipaddr *addr, uint32_t ifindex)
{
	for (size_t i = 0; i < nl->n_addresses; i++)
		if (nl->addresses[i].ifindex == ifindex && ipaddr_equal(&nl->addresses[i].addr, addr))
			return &nl->addresses[i];
	return NULL;
}

/* With an IPv4 address go, silently, the routes that prefer it as their source. */
static void address_del(struct netlink *nl, struct address *a)
{
	if (ipaddr_is_v4(&a->addr))
		nl->need |= NEED(DUMP_ROUTES_V4);
	*a = nl->addresses[--nl->n_addresses];
}

void addresses_on_message(struct netlink *nl, const struct nlmsghdr *nlh)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[IFA_LOCAL + 1];
	struct address *a;
	struct ipaddr addr;

	attributes(nlh, sizeof(*ifa), tb, IFA_LOCAL);
	/* On a point-to-point link IFA_ADDRESS is the other end. */
	if (!attribute_address(tb[IFA_LOCAL], &addr) && !attribute_address(tb[IFA_ADDRESS], &addr))
		return;
	a = address_find(nl, &addr, ifa->ifa_index);
	if (nlh->nlmsg_type == RTM_DELADDR) {
		if (a)
			address_del(nl, a);
		return;
	}
	if (!a) {
		if (array_grow((void **)&nl->addresses, nl->n_addresses, &nl->addresses_cap, sizeof(*a),
			       MIRROR_MAX_ADDRESSES)) {
			nl->report.refused++;
			return;
		}
		a = &nl->addresses[nl->n_addresses++];
		*a = (struct address){.addr = addr, .ifindex = ifa->ifa_index};
	}
	a->generation = nl->generation;
}

void addresses_sweep(struct netlink *nl, bool v4)
{
	for (size_t i = nl->n_addresses; i-- > 0;) {
		struct address *a = &nl->addresses[i];

		if (ipaddr_is_v4(&a->addr) == v4 && a->generation != nl->generation)
			address_del(nl, a);
	}
}

/* A link has its own IPv6 address of this kind always: it is nobody's service or source address. */
static bool is_link_local(const struct ipaddr *addr)
{
	return addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80;
}

static bool contains(const struct ipaddr *set, size_t n, const struct ipaddr *addr)
{
	for (size_t i = 0; i < n; i++)
		if (ipaddr_equal(&set[i], addr))
			return true;
	return false;
}

/* True if the link has an address of that family outside of `set`. */
static bool has_other(const struct netlink *nl, uint32_t ifindex, bool v4, const struct ipaddr *set, size_t n)
{
	for (size_t i = 0; i < nl->n_addresses; i++) {
		const struct address *a = &nl->addresses[i];

		if (a->ifindex == ifindex && ipaddr_is_v4(&a->addr) == v4 && !is_link_local(&a->addr) &&
		    !contains(set, n, &a->addr))
			return true;
	}
	return false;
}

uint32_t netlink_only_on(const struct netlink *nl, const struct ipaddr *set, size_t n, size_t i)
{
	for (size_t a = 0; a < nl->n_addresses; a++) {
		uint32_t ifindex = nl->addresses[a].ifindex;

		if (ipaddr_equal(&nl->addresses[a].addr, &set[i]) &&
		    !has_other(nl, ifindex, ipaddr_is_v4(&set[i]), set, n))
			return ifindex;
	}
	return 0;
}
