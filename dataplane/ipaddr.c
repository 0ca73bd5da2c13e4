/* SPDX-License-Identifier: BSD-3-Clause */
#include "ipaddr.h"

#include <errno.h>
#include <stdio.h>

const char *ipaddr_format(const struct ipaddr *a, char out[static IPADDR_STRLEN])
{
	if (ipaddr_is_v4(a))
		inet_ntop(AF_INET, &a->b[12], out, IPADDR_STRLEN);
	else
		inet_ntop(AF_INET6, a->b, out, IPADDR_STRLEN);
	return out;
}

int ipaddr_parse(const char *text, struct ipaddr *out)
{
	uint32_t v4_be;
	uint8_t v6[16];

	if (inet_pton(AF_INET, text, &v4_be) == 1) {
		*out = ipaddr_v4(v4_be);
		return 0;
	}
	if (inet_pton(AF_INET6, text, v6) == 1) {
		*out = ipaddr_v6(v6);
		return 0;
	}
	return -EINVAL;
}

const char *ipaddr_port_format(const struct ipaddr *a, uint16_t port_be, char out[static IPADDR_PORT_STRLEN])
{
	char text[IPADDR_STRLEN];

	snprintf(out, IPADDR_PORT_STRLEN, ipaddr_is_v4(a) ? "%s:%u" : "[%s]:%u", ipaddr_format(a, text),
		 ntohs(port_be));
	return out;
}
