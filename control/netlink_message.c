/* SPDX-License-Identifier: BSD-3-Clause */
#include "netlink_mirror.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

struct attribute_table {
	const struct nlattr **tb;
	uint16_t max;
};

static int take_attribute(const struct nlattr *attr, void *data)
{
	const struct attribute_table *t = data;
	uint16_t type = mnl_attr_get_type(attr);

	if (type <= t->max)
		t->tb[type] = attr;
	return MNL_CB_OK;
}

void attributes(const struct nlmsghdr *nlh, size_t header_len, const struct nlattr **tb, uint16_t max)
{
	struct attribute_table t = {.tb = tb, .max = max};

	memset(tb, 0, (max + 1u) * sizeof(*tb));
	mnl_attr_parse(nlh, header_len, take_attribute, &t);
}

void attributes_of(const void *payload, size_t len, const struct nlattr **tb, uint16_t max)
{
	struct attribute_table t = {.tb = tb, .max = max};

	memset(tb, 0, (max + 1u) * sizeof(*tb));
	mnl_attr_parse_payload(payload, len, take_attribute, &t);
}

bool attribute_address(const struct nlattr *attr, struct ipaddr *out)
{
	if (!attr)
		return false;
	switch (mnl_attr_get_payload_len(attr)) {
	case 4:
		*out = ipaddr_v4(mnl_attr_get_u32(attr));
		return true;
	case 16:
		*out = ipaddr_v6(mnl_attr_get_payload(attr));
		return true;
	default:
		return false;
	}
}

ssize_t mirror_receive(const struct mnl_socket *s, void *buf, size_t size)
{
	struct sockaddr_nl from;
	socklen_t from_len = sizeof(from);
	ssize_t n = recvfrom(mnl_socket_get_fd(s), buf, size, MSG_TRUNC, (struct sockaddr *)&from, &from_len);

	if (n < 0)
		return -errno;
	if ((size_t)n > size)
		return -ENOBUFS;
	return from.nl_pid == 0 ? n : 0;
}

int mirror_command(struct netlink *nl, struct nlmsghdr *nlh)
{
	/* Not nl->buffer: a callback may ask while a message of it is being taken in. */
	_Alignas(struct nlmsghdr) uint8_t buf[1024];
	const struct nlmsghdr *answer = (const void *)buf;
	ssize_t n;

	nlh->nlmsg_seq = ++nl->command_seq;
	if (mnl_socket_sendto(nl->commands, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	/* The kernel has done it, and answered, when the call returns. */
	do {
		n = mirror_receive(nl->commands, buf, sizeof(buf));
		if (n < 0 && n != -EINTR)
			return (int)n;
	} while (n < (ssize_t)(sizeof(*answer) + sizeof(int)) || answer->nlmsg_seq != nl->command_seq ||
		 answer->nlmsg_type != NLMSG_ERROR);
	return ((const struct nlmsgerr *)mnl_nlmsg_get_payload(answer))->error;
}
