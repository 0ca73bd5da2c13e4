/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads a DNS reply to an A or AAAA question: follows the CNAMEs inside it, takes the minimum of the TTLs on the way
 * (RFC 2181 5.2), and tells "no" (RFC 2308) from "cannot say". The message is input: it may be anything.
 */
#pragma once

#include "ipaddr.h"

#include <stddef.h>
#include <stdint.h>

#define DNSREPLY_CHAIN_MAX     8
/* More A records than a 64 KiB message can hold. */
#define DNSREPLY_MAX_ADDRESSES 4096
/* The longest name as text, every byte escaped. */
#define DNSREPLY_NAME_LEN      1025

enum dnsreply_kind {
	DNSREPLY_ADDRESSES, /* n_addresses >= 1 and ttl_s */
	DNSREPLY_CHAIN,     /* the reply stops at a CNAME: ask for `target`, with n_chain and ttl_s kept */
	DNSREPLY_NO_NAME,   /* authoritative, as far as a resolver can tell; negative_ttl_s */
	DNSREPLY_NO_DATA,   /* likewise: the name exists without an address of this family */
	DNSREPLY_FAILED,    /* nothing learned; another server may know */
};

/* ~65 KiB: one per resolver, not one per query. */
struct dnsreply {
	enum dnsreply_kind kind;
	const char *error;       /* literal; "" for ADDRESSES and CHAIN */
	uint32_t ttl_s;          /* minimum so far; start a new question with UINT32_MAX */
	uint32_t negative_ttl_s; /* UINT32_MAX if the reply carried no SOA */
	unsigned n_chain;        /* CNAMEs followed so far; start with 0 */
	char target[DNSREPLY_NAME_LEN];
	size_t n_addresses;
	struct ipaddr addresses[DNSREPLY_MAX_ADDRESSES];
};

/*
 * `name` is what was asked; reply->ttl_s and reply->n_chain say where an earlier part of the chain stands. Always sets
 * `kind` and what belongs to it.
 */
void dnsreply_parse(struct dnsreply *reply, const uint8_t *message, size_t len, const char *name, uint8_t family);
