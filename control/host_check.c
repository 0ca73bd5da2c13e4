/* SPDX-License-Identifier: BSD-3-Clause */
#include "host_check.h"
#include "netlink.h"
#include "sentence.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>

static int refuse_snat(const struct config *config, unsigned i, uint32_t ifindex, char *err, size_t err_len)
{
	char addr[IPADDR_STRLEN], device[IF_NAMESIZE] = "?";
	bool v4 = ipaddr_is_v4(&config->snat[i]);

	if_indextoname(ifindex, device);
	return sentence(
		err, err_len, EADDRINUSE,
		"gateway.snat[%u]: %s has no other IPv%d address than %s, so that the host sends from it too: name "
		"one that is Spillway's alone (ip address add ADDRESS/%d dev lo preferred_lft 0)",
		i, device, v4 ? 4 : 6, ipaddr_format(&config->snat[i], addr), v4 ? 32 : 128);
}

int host_check_snat(const struct config *config, char *err, size_t err_len)
{
	struct netlink *nl = netlink_read_addresses();
	int rc = 0;

	if (!nl)
		return sentence(err, err_len, errno, "the host's addresses cannot be read: %s", strerror(errno));
	for (unsigned i = 0; i < config->n_snat && !rc; i++) {
		uint32_t ifindex = netlink_only_on(nl, config->snat, config->n_snat, i);

		if (ifindex)
			rc = refuse_snat(config, i, ifindex, err, err_len);
	}
	netlink_destroy(nl);
	return rc;
}
