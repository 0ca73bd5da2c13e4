/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking the kernel for all of a kind, and which function takes in what it says. */
#include "netlink_mirror.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/nexthop.h>
#include <string.h>

/* Between dumps, times the length of the last one: so they take a fifth of our time at most. */
#define DUMP_PAUSE_FACTOR 4
#define DUMP_PAUSE_MIN_NS 20000000ull

static size_t header_len(uint16_t type)
{
	switch (type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return sizeof(struct ifinfomsg);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return sizeof(struct ifaddrmsg);
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return sizeof(struct rtmsg);
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		return sizeof(struct ndmsg);
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		return sizeof(struct nhmsg);
	default:
		return 0;
	}
}

void mirror_take(struct netlink *nl, const struct nlmsghdr *nlh, bool dumped)
{
	size_t len = header_len(nlh->nlmsg_type);

	if (!len || mnl_nlmsg_get_payload_len(nlh) < len)
		return;
	switch (nlh->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		links_on_message(nl, nlh);
		break;
	case RTM_NEWADDR:
	case RTM_DELADDR:
		addresses_on_message(nl, nlh);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		routes_on_message(nl, nlh, dumped);
		break;
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		neighbours_on_message(nl, nlh);
		break;
	default:
		nexthops_on_message(nl, nlh);
	}
}

static const struct {
	uint16_t type;
	uint8_t family;
	uint8_t header_len;
} dumps[N_DUMPS] = {
	[DUMP_LINKS] = {RTM_GETLINK, AF_UNSPEC, sizeof(struct ifinfomsg)},
	[DUMP_ADDRESSES_V4] = {RTM_GETADDR, AF_INET, sizeof(struct ifaddrmsg)},
	[DUMP_ADDRESSES_V6] = {RTM_GETADDR, AF_INET6, sizeof(struct ifaddrmsg)},
	[DUMP_NEXTHOPS] = {RTM_GETNEXTHOP, AF_UNSPEC, sizeof(struct nhmsg)},
	[DUMP_ROUTES_V4] = {RTM_GETROUTE, AF_INET, sizeof(struct rtmsg)},
	[DUMP_ROUTES_V6] = {RTM_GETROUTE, AF_INET6, sizeof(struct rtmsg)},
	[DUMP_NEIGHBOURS] = {RTM_GETNEIGH, AF_UNSPEC, sizeof(struct ndmsg)},
};

static int dump_ask(struct netlink *nl, enum dump dump)
{
	uint8_t buf[128];
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	uint8_t *header;

	nlh->nlmsg_type = dumps[dump].type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	nlh->nlmsg_seq = ++nl->seq;
	/* All these headers begin with the family; strict checking wants the rest 0. */
	header = mnl_nlmsg_put_extra_header(nlh, dumps[dump].header_len);
	header[0] = dumps[dump].family;
	if (dumps[dump].type == RTM_GETROUTE)
		((struct rtmsg *)header)->rtm_table = RT_TABLE_MAIN;
	if (dumps[dump].type == RTM_GETLINK)
		mnl_attr_put_u32(nlh, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	if (mnl_socket_sendto(nl->dumps, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	return 0;
}

bool dumps_routes(const struct netlink *nl)
{
	return nl->dumping == DUMP_NEXTHOPS || nl->dumping == DUMP_ROUTES_V4 || nl->dumping == DUMP_ROUTES_V6;
}

/* Asks for the next kind that is needed. */
static void dump_next(struct netlink *nl)
{
	uint64_t now_ns = clock_monotonic_ns(), pause_ns;

	nl->asked = true;
	nl->interrupted = false;
	nl->failure = 0;
	nl->sweep_at = 0;
	if (nl->need) {
		nl->dumping = (enum dump)__builtin_ctz(nl->need);
		nl->need &= ~NEED(nl->dumping);
		nl->generation++;
		nl->failure = dump_ask(nl, nl->dumping);
		if (nl->failure)
			nl->asked = false;
		return;
	}
	nl->dumping = DUMP_NONE;
	nl->need = nl->again;
	nl->again = 0;
	pause_ns = DUMP_PAUSE_FACTOR * (now_ns - nl->started_ns);
	nl->next_dump_ns = now_ns + (pause_ns > DUMP_PAUSE_MIN_NS ? pause_ns : DUMP_PAUSE_MIN_NS);
	if (nl->full)
		nl->report.last_sync_ns = now_ns - nl->started_ns;
	nl->full = false;
}

void dumps_start(struct netlink *nl)
{
	nl->started_ns = clock_monotonic_ns();
	nl->full = nl->need == NEED_ALL;
	nl->lost = false;
	nl->drained = false;
	dump_next(nl);
}

/* What the kernel does not have (IPv6 or nexthop objects off, a table not made yet) is empty. */
static bool means_empty(int err)
{
	return err == -ENOENT || err == -EOPNOTSUPP || err == -EAFNOSUPPORT;
}

/* Takes in messages of the running dump. Returns true at its end. */
static bool dump_take(struct netlink *nl, size_t n)
{
	const struct nlmsghdr *nlh = (const void *)nl->buffer;
	int len = (int)n;

	for (; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
		if (nlh->nlmsg_seq != nl->seq)
			continue;
		if (nlh->nlmsg_flags & NLM_F_DUMP_INTR)
			nl->interrupted = true;
		if (nlh->nlmsg_type == NLMSG_ERROR || nlh->nlmsg_type == NLMSG_DONE) {
			/* Both begin with 0 or -errno. */
			if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(int))
				memcpy(&nl->failure, mnl_nlmsg_get_payload(nlh), sizeof(int));
			if (means_empty(nl->failure))
				nl->failure = 0;
			return true;
		}
		mirror_take(nl, nlh, true);
	}
	return false;
}

/* Reads the answer until its end or the deadline. */
static void dump_read(struct netlink *nl, uint64_t deadline_ns)
{
	do {
		ssize_t n = mirror_receive(nl->dumps, nl->buffer, sizeof(nl->buffer));

		if (n == -EAGAIN || n == -EINTR)
			return;
		if (n < 0)
			nl->failure = (int)n;
		if (n < 0 || dump_take(nl, (size_t)n)) {
			nl->asked = false;
			return;
		}
	} while (clock_monotonic_ns() < deadline_ns);
}

/* Returns true when through. */
static bool dump_sweep(struct netlink *nl, uint64_t deadline_ns)
{
	switch (nl->dumping) {
	case DUMP_LINKS:
		links_sweep(nl);
		return true;
	case DUMP_ADDRESSES_V4:
	case DUMP_ADDRESSES_V6:
		addresses_sweep(nl, nl->dumping == DUMP_ADDRESSES_V4);
		return true;
	case DUMP_NEXTHOPS:
		nexthops_sweep(nl);
		return true;
	case DUMP_ROUTES_V4:
	case DUMP_ROUTES_V6:
		return routes_sweep(nl, nl->dumping == DUMP_ROUTES_V4, &nl->sweep_at, deadline_ns);
	default:
		neighbours_sweep(nl);
		return true;
	}
}

void dump_step(struct netlink *nl)
{
	uint64_t deadline_ns = clock_monotonic_ns() + MIRROR_SLICE_NS;

	if (nl->asked)
		dump_read(nl, deadline_ns);
	if (nl->asked)
		return;
	if (nl->interrupted || nl->failure) {
		/* Absence proves nothing now. Again, later. */
		nl->again |= NEED(nl->dumping);
		nl->error = nl->failure;
	} else if (!dump_sweep(nl, deadline_ns)) {
		return;
	}
	dump_next(nl);
}
