/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading the kernel's route messages.
 *
 * Not mirrored: other tables, IPv4 routes for one TOS and IPv6 routes for one source prefix (policy routing, which the
 * dataplane does not know), cached clones.
 */
#include "hash.h"
#include "netlink_mirror.h"

#include <stdlib.h>
#include <string.h>

bool hop_same(const struct hop *a, const struct hop *b)
{
	return a->ifindex == b->ifindex && a->weight == b->weight && a->has_gateway == b->has_gateway &&
	       (!a->has_gateway || ipaddr_equal(&a->gateway, &b->gateway));
}

static bool type_is_mirrored(uint8_t type)
{
	switch (type) {
	case RTN_UNICAST:
	case RTN_LOCAL:
	case RTN_BLACKHOLE:
	case RTN_UNREACHABLE:
	case RTN_PROHIBIT:
	case RTN_THROW:
		return true;
	default:
		return false;
	}
}

static void read_hop(struct hop *h, int ifindex, unsigned flags, unsigned weight, const struct nlattr **tb)
{
	*h = (struct hop){
		.ifindex = tb[RTA_ENCAP] ? 0 : (uint32_t)ifindex, .weight = weight, .dead = flags & RTNH_F_DEAD};
	h->has_gateway = attribute_address(tb[RTA_GATEWAY], &h->gateway);
	if (!h->has_gateway && tb[RTA_VIA]) {
		const uint8_t *via = mnl_attr_get_payload(tb[RTA_VIA]);
		uint16_t family_len = sizeof(((struct rtvia *)NULL)->rtvia_family);

		/* A gateway of the other family (RFC 5549). */
		if (mnl_attr_get_payload_len(tb[RTA_VIA]) == family_len + sizeof(struct in6_addr)) {
			h->gateway = ipaddr_v6(via + family_len);
			h->has_gateway = true;
		}
	}
}

static void read_multipath(struct route_message *m, const struct nlattr *multipath)
{
	const struct rtnexthop *leg = mnl_attr_get_payload(multipath);
	int left = mnl_attr_get_payload_len(multipath);

	for (; RTNH_OK(leg, left) && m->n_hops < ROUTE_MAX_HOPS; leg = RTNH_NEXT(leg)) {
		const struct nlattr *tb[RTA_ENCAP + 1];

		attributes_of(RTNH_DATA(leg), leg->rtnh_len - RTNH_LENGTH(0), tb, RTA_ENCAP);
		read_hop(&m->hops[m->n_hops++], leg->rtnh_ifindex, leg->rtnh_flags, leg->rtnh_hops + 1u, tb);
		left -= RTNH_ALIGN(leg->rtnh_len);
	}
}

static int hop_compare(const void *a, const void *b)
{
	const struct hop *x = a, *y = b;

	if (x->ifindex != y->ifindex)
		return x->ifindex < y->ifindex ? -1 : 1;
	return memcmp(&x->gateway, &y->gateway, sizeof(x->gateway));
}

static uint32_t read_mtu(const struct nlattr *metrics)
{
	const struct nlattr *tb[RTAX_MTU + 1];

	if (!metrics)
		return 0;
	attributes_of(mnl_attr_get_payload(metrics), mnl_attr_get_payload_len(metrics), tb, RTAX_MTU);
	return tb[RTAX_MTU] ? mnl_attr_get_u32(tb[RTAX_MTU]) : 0;
}

/* IPv4 routes may differ in nothing else. IPv6 has one route per prefix, priority and next hop. */
static uint64_t read_rest(const struct rtmsg *rtm, const struct nlattr **tb, uint32_t mtu)
{
	struct {
		struct ipaddr source;
		uint32_t mtu;
		uint8_t protocol, scope;
	} rest;

	if (rtm->rtm_family != AF_INET)
		return 0;
	memset(&rest, 0, sizeof(rest));
	attribute_address(tb[RTA_PREFSRC], &rest.source);
	rest.mtu = mtu;
	rest.protocol = rtm->rtm_protocol;
	rest.scope = rtm->rtm_scope;
	return hash_public(&rest, sizeof(rest), 0);
}

static bool read_prefix(struct route_message *m, const struct rtmsg *rtm, const struct nlattr *dst)
{
	static const uint8_t zero[16];

	m->v4 = rtm->rtm_family == AF_INET;
	m->prefix_len = rtm->rtm_dst_len;
	m->prefix = m->v4 ? ipaddr_v4(0) : ipaddr_v6(zero);
	if (rtm->rtm_dst_len > (m->v4 ? 32 : 128))
		return false;
	if (rtm->rtm_dst_len && !attribute_address(dst, &m->prefix))
		return false;
	/* The mapped form belongs to IPv4 in here; a real IPv6 route to it matches nothing on the wire. */
	return ipaddr_is_v4(&m->prefix) == m->v4;
}

static bool is_ours(const struct rtmsg *rtm, const struct nlattr **tb)
{
	uint32_t table = tb[RTA_TABLE] ? mnl_attr_get_u32(tb[RTA_TABLE]) : rtm->rtm_table;

	return table == RT_TABLE_MAIN && (rtm->rtm_family == AF_INET || rtm->rtm_family == AF_INET6) &&
	       type_is_mirrored(rtm->rtm_type) && !rtm->rtm_tos && !rtm->rtm_src_len &&
	       !(rtm->rtm_flags & RTM_F_CLONED);
}

bool route_read(const struct nlmsghdr *nlh, struct route_message *m)
{
	const struct rtmsg *rtm = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *tb[RTA_NH_ID + 1];

	attributes(nlh, sizeof(*rtm), tb, RTA_NH_ID);
	if (!is_ours(rtm, tb) || !read_prefix(m, rtm, tb[RTA_DST]))
		return false;
	m->type = rtm->rtm_type;
	m->priority = tb[RTA_PRIORITY] ? mnl_attr_get_u32(tb[RTA_PRIORITY]) : 0;
	m->mtu = read_mtu(tb[RTA_METRICS]);
	m->rest = read_rest(rtm, tb, m->mtu);
	m->nh_id = tb[RTA_NH_ID] ? mnl_attr_get_u32(tb[RTA_NH_ID]) : 0;
	m->n_hops = 0;
	if (m->nh_id || m->type != RTN_UNICAST)
		return true;
	if (tb[RTA_MULTIPATH])
		read_multipath(m, tb[RTA_MULTIPATH]);
	else if (tb[RTA_OIF])
		read_hop(&m->hops[m->n_hops++], mnl_attr_get_u32(tb[RTA_OIF]), rtm->rtm_flags, 1, tb);
	/* IPv6 shows the same legs in an order that depends on the occasion. */
	if (!m->v4)
		qsort(m->hops, m->n_hops, sizeof(m->hops[0]), hop_compare);
	return true;
}
