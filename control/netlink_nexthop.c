/* SPDX-License-Identifier: BSD-3-Clause */
#include "netlink_mirror.h"

#include <errno.h>
#include <linux/nexthop.h>
#include <stdlib.h>
#include <string.h>

static struct nexthop **nexthop_at(struct netlink *nl, uint32_t id)
{
	struct nexthop **at = &nl->nexthops[id % N_NEXTHOP_BUCKETS];

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

/* Finds or makes the object. NULL: no room. */
static struct nexthop *nexthop_get(struct netlink *nl, uint32_t id)
{
	struct nexthop **at = nexthop_at(nl, id);

	if (!*at && nl->n_nexthops < MIRROR_MAX_NEXTHOPS) {
		*at = calloc(1, sizeof(**at));
		if (*at) {
			(*at)->id = id;
			nl->n_nexthops++;
		}
	}
	return *at;
}

static void nexthop_free_if_unused(struct netlink *nl, uint32_t id)
{
	struct nexthop **at = nexthop_at(nl, id);
	struct nexthop *nh = *at;

	if (!nh || nh->known || nh->routes)
		return;
	*at = nh->next;
	nl->n_nexthops--;
	free(nh->members);
	free(nh);
}

int nexthop_attach(struct netlink *nl, struct route *r)
{
	struct nexthop *nh;

	if (!r->nh_id)
		return 0;
	nh = nexthop_get(nl, r->nh_id);
	if (!nh)
		return -ENOMEM;
	r->nh_next = nh->routes;
	r->nh_pprev = &nh->routes;
	if (nh->routes)
		nh->routes->nh_pprev = &r->nh_next;
	nh->routes = r;
	return 0;
}

void nexthop_detach(struct netlink *nl, struct route *r)
{
	if (!r->nh_id)
		return;
	*r->nh_pprev = r->nh_next;
	if (r->nh_next)
		r->nh_next->nh_pprev = r->nh_pprev;
	nexthop_free_if_unused(nl, r->nh_id);
}

static void touch_routes(struct netlink *nl, const struct nexthop *nh)
{
	for (struct route *r = nh->routes; r; r = r->nh_next)
		route_touch(nl, r);
}

static bool is_member(const struct nexthop *group, uint32_t id)
{
	for (unsigned i = 0; i < group->n_members; i++)
		if (group->members[i].id == id)
			return true;
	return false;
}

/* The routes of the object itself and of the groups with it are looked at again. Groups do not nest. */
static void nexthop_touch(struct netlink *nl, const struct nexthop *nh)
{
	touch_routes(nl, nh);
	if (nh->n_members)
		return;
	for (unsigned b = 0; b < N_NEXTHOP_BUCKETS; b++)
		for (struct nexthop *group = nl->nexthops[b]; group; group = group->next)
			if (is_member(group, nh->id))
				touch_routes(nl, group);
}

static void nexthop_del(struct netlink *nl, uint32_t id)
{
	struct nexthop *nh = *nexthop_at(nl, id);
	struct route *r, *next;

	if (!nh || !nh->known)
		return;
	nexthop_touch(nl, nh);
	/* The kernel removes the routes with their object, of IPv4 silently. The object must outlive the list. */
	for (r = nh->routes; r; r = next) {
		next = r->nh_next;
		route_remove(nl, r);
	}
	nh->known = false;
	nexthop_free_if_unused(nl, id);
}

static int read_group(struct nexthop *nh, const struct nlattr *attr)
{
	const uint8_t *entry = mnl_attr_get_payload(attr);
	unsigned n = mnl_attr_get_payload_len(attr) / sizeof(struct nexthop_grp);
	struct nexthop_member *members = calloc(n ? n : 1, sizeof(*members));

	if (!members)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++, entry += sizeof(struct nexthop_grp)) {
		/* Weight less one: low byte, then the high byte that kernels before 6.12 leave 0. */
		uint32_t weight = (entry[5] << 8 | entry[4]) + 1u;

		memcpy(&members[i].id, entry, sizeof(members[i].id));
		members[i].weight = weight < UINT16_MAX ? weight : UINT16_MAX;
	}
	nh->members = members;
	nh->n_members = n;
	return 0;
}

static void read_single(struct nexthop *nh, const struct nlattr **tb, unsigned flags)
{
	nh->blackhole = tb[NHA_BLACKHOLE];
	nh->hop.dead = flags & RTNH_F_DEAD;
	nh->hop.weight = 1;
	if (tb[NHA_OIF] && !tb[NHA_ENCAP])
		nh->hop.ifindex = mnl_attr_get_u32(tb[NHA_OIF]);
	nh->hop.has_gateway = attribute_address(tb[NHA_GATEWAY], &nh->hop.gateway);
}

static bool same_content(const struct nexthop *a, const struct nexthop *b)
{
	if (a->known != b->known || a->blackhole != b->blackhole || a->n_members != b->n_members)
		return false;
	for (unsigned i = 0; i < a->n_members; i++)
		if (a->members[i].id != b->members[i].id || a->members[i].weight != b->members[i].weight)
			return false;
	return hop_same(&a->hop, &b->hop) && a->hop.dead == b->hop.dead;
}

/* Takes over the members of `content`. */
static void nexthop_set(struct netlink *nl, struct nexthop *nh, const struct nexthop *content)
{
	bool changed = !same_content(nh, content);

	free(nh->members);
	nh->known = true;
	nh->generation = nl->generation;
	nh->blackhole = content->blackhole;
	nh->hop = content->hop;
	nh->n_members = content->n_members;
	nh->members = content->members;
	if (changed)
		nexthop_touch(nl, nh);
}

void nexthops_on_message(struct netlink *nl, const struct nlmsghdr *nlh)
{
	const struct nhmsg *nhm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[NHA_FDB + 1];
	struct nexthop content = {.known = true};
	struct nexthop *nh;
	uint32_t id;

	attributes(nlh, sizeof(*nhm), tb, NHA_FDB);
	if (!tb[NHA_ID] || tb[NHA_FDB])
		return;
	id = mnl_attr_get_u32(tb[NHA_ID]);
	if (nlh->nlmsg_type == RTM_DELNEXTHOP) {
		nexthop_del(nl, id);
		return;
	}
	if (!tb[NHA_GROUP])
		read_single(&content, tb, nhm->nh_flags);
	nh = nexthop_get(nl, id);
	if (!nh || (tb[NHA_GROUP] && read_group(&content, tb[NHA_GROUP]) < 0)) {
		nl->report.refused++;
		return;
	}
	nexthop_set(nl, nh, &content);
}

void nexthops_sweep(struct netlink *nl)
{
	for (unsigned b = 0; b < N_NEXTHOP_BUCKETS; b++) {
		struct nexthop *nh, *next;

		for (nh = nl->nexthops[b]; nh; nh = next) {
			next = nh->next;
			if (nh->generation != nl->generation)
				nexthop_del(nl, nh->id);
		}
	}
}

void nexthops_free(struct netlink *nl)
{
	for (unsigned b = 0; b < N_NEXTHOP_BUCKETS; b++) {
		struct nexthop *nh, *next;

		for (nh = nl->nexthops[b]; nh; nh = next) {
			next = nh->next;
			free(nh->members);
			free(nh);
		}
	}
}

static unsigned add_hop(const struct nexthop *nh, uint16_t weight, struct hop *out, bool *blackhole)
{
	*blackhole |= nh->blackhole;
	if (!nh->known || nh->blackhole || nh->hop.dead)
		return 0;
	*out = nh->hop;
	out->weight = weight;
	return 1;
}

unsigned nexthop_resolve(struct netlink *nl, uint32_t id, struct hop *out, unsigned max, bool *blackhole)
{
	const struct nexthop *nh = *nexthop_at(nl, id);
	unsigned n = 0;

	*blackhole = false;
	if (!nh)
		return 0;
	if (!nh->n_members)
		return add_hop(nh, 1, out, blackhole);
	for (unsigned i = 0; i < nh->n_members && n < max; i++) {
		const struct nexthop *member = *nexthop_at(nl, nh->members[i].id);

		if (member)
			n += add_hop(member, nh->members[i].weight, &out[n], blackhole);
	}
	return n;
}
