/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes as a reply to a question for www.test: no access out of bounds, and no answer that is none. */
#include "fuzz.h"

#include "dnsreply.h"

#include <stdlib.h>

static void check(bool ok)
{
	if (!ok)
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct dnsreply reply;

	for (uint8_t family = 4; family <= 6; family += 2) {
		reply.ttl_s = UINT32_MAX;
		reply.n_chain = 0;
		dnsreply_parse(&reply, data, len, "www.test", family);
		check(reply.kind <= DNSREPLY_FAILED);
		check((reply.kind == DNSREPLY_ADDRESSES) == (reply.n_addresses > 0 && reply.error[0] == '\0'));
		check((reply.error[0] == '\0') == (reply.kind == DNSREPLY_ADDRESSES || reply.kind == DNSREPLY_CHAIN));
		check(reply.kind == DNSREPLY_FAILED || reply.n_chain <= DNSREPLY_CHAIN_MAX);
		check(reply.n_addresses <= DNSREPLY_MAX_ADDRESSES);
		check(memchr(reply.target, 0, sizeof(reply.target)));
	}
	return 0;
}
