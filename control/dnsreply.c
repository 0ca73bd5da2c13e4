/* SPDX-License-Identifier: BSD-3-Clause */
#include "dnsreply.h"

#include <arpa/nameser.h>
#include <netinet/in.h>

#include <stdio.h>
#include <strings.h>

/* CNAMEs that are worth looking at; a reply with more is nonsense. */
#define CNAMES_MAX 16

struct cname {
	char owner[DNSREPLY_NAME_LEN];
	char target[DNSREPLY_NAME_LEN];
	uint32_t ttl_s;
};

static void fail(struct dnsreply *reply, const char *error)
{
	reply->kind = DNSREPLY_FAILED;
	reply->error = error;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Returns how many CNAMEs the answer section has, or -1 if it cannot be read or has too many. */
static int read_cnames(ns_msg *message, struct cname cnames[static CNAMES_MAX])
{
	int n = 0;
	ns_rr rr;

	for (int i = 0; i < ns_msg_count(*message, ns_s_an); i++) {
		if (ns_parserr(message, ns_s_an, i, &rr) < 0)
			return -1;
		if (ns_rr_class(rr) != ns_c_in || ns_rr_type(rr) != ns_t_cname)
			continue;
		if (n == CNAMES_MAX)
			return -1;
		if (ns_name_uncompress(ns_msg_base(*message), ns_msg_end(*message), ns_rr_rdata(rr), cnames[n].target,
				       sizeof(cnames[n].target)) < 0)
			return -1;
		snprintf(cnames[n].owner, sizeof(cnames[n].owner), "%s", ns_rr_name(rr));
		cnames[n++].ttl_s = ns_rr_ttl(rr);
	}
	return n;
}

/* Moves reply->target along the CNAMEs, which may stand in any order. A loop ends at the limit of the chain. */
static bool follow_cnames(struct dnsreply *reply, const struct cname *cnames, int n)
{
	for (int i = 0; i < n; i++) {
		if (strcasecmp(cnames[i].owner, reply->target) != 0)
			continue;
		if (++reply->n_chain > DNSREPLY_CHAIN_MAX)
			return false;
		reply->ttl_s = min_u32(reply->ttl_s, cnames[i].ttl_s);
		memcpy(reply->target, cnames[i].target, sizeof(reply->target));
		i = -1;
	}
	return true;
}

/* Collects the addresses of reply->target. False if the section cannot be read. */
static bool read_addresses(struct dnsreply *reply, ns_msg *message, uint8_t family)
{
	ns_type type = family == 4 ? ns_t_a : ns_t_aaaa;
	size_t len = family == 4 ? 4 : 16;
	uint32_t v4_be;
	ns_rr rr;

	for (int i = 0; i < ns_msg_count(*message, ns_s_an); i++) {
		if (ns_parserr(message, ns_s_an, i, &rr) < 0)
			return false;
		if (ns_rr_class(rr) != ns_c_in || ns_rr_type(rr) != type || strcasecmp(ns_rr_name(rr), reply->target))
			continue;
		if (ns_rr_rdlen(rr) != len)
			return false;
		if (reply->n_addresses == DNSREPLY_MAX_ADDRESSES)
			break;
		/* TTLs with the top bit set are large, not negative (RFC 8767 4). */
		reply->ttl_s = min_u32(reply->ttl_s, ns_rr_ttl(rr));
		memcpy(&v4_be, ns_rr_rdata(rr), sizeof(v4_be));
		reply->addresses[reply->n_addresses++] = family == 4 ? ipaddr_v4(v4_be) : ipaddr_v6(ns_rr_rdata(rr));
	}
	return true;
}

enum authority {
	AUTHORITY_UNREADABLE,
	AUTHORITY_NONE,
	AUTHORITY_SOA,
	AUTHORITY_REFERRAL, /* NS without SOA: that server knows somebody who may know */
};

static enum authority read_authority(struct dnsreply *reply, ns_msg *message)
{
	enum authority found = AUTHORITY_NONE;
	ns_rr rr;

	for (int i = 0; i < ns_msg_count(*message, ns_s_ns); i++) {
		if (ns_parserr(message, ns_s_ns, i, &rr) < 0)
			return AUTHORITY_UNREADABLE;
		if (ns_rr_type(rr) == ns_t_soa && ns_rr_rdlen(rr) >= 22) {
			/* MINIMUM is the last of the five numbers that end the SOA (RFC 2308 5). */
			uint32_t minimum_s = ns_get32(ns_rr_rdata(rr) + ns_rr_rdlen(rr) - 4);

			reply->negative_ttl_s = min_u32(ns_rr_ttl(rr), minimum_s);
			return AUTHORITY_SOA;
		}
		if (ns_rr_type(rr) == ns_t_ns)
			found = AUTHORITY_REFERRAL;
	}
	return found;
}

static void read_sections(struct dnsreply *reply, ns_msg *message, uint8_t family)
{
	unsigned n_chain_before = reply->n_chain;
	struct cname cnames[CNAMES_MAX];
	enum authority authority;
	int n_cnames;

	n_cnames = read_cnames(message, cnames);
	if (n_cnames < 0)
		return fail(reply, "malformed answer");
	if (!follow_cnames(reply, cnames, n_cnames))
		return fail(reply, "CNAME chain too long or a loop");
	if (!read_addresses(reply, message, family))
		return fail(reply, "malformed answer");
	if (reply->n_addresses > 0 && ns_msg_getflag(*message, ns_f_rcode) == ns_r_noerror) {
		reply->kind = DNSREPLY_ADDRESSES;
		return;
	}
	authority = read_authority(reply, message);
	if (authority == AUTHORITY_UNREADABLE)
		return fail(reply, "malformed answer");
	if (ns_msg_getflag(*message, ns_f_rcode) == ns_r_nxdomain) {
		reply->kind = DNSREPLY_NO_NAME;
		reply->error = "no such name";
	} else if (authority == AUTHORITY_SOA) {
		reply->kind = DNSREPLY_NO_DATA;
		reply->error = "name without an address of this family";
	} else if (reply->n_chain > n_chain_before) {
		reply->kind = DNSREPLY_CHAIN;
	} else if (authority == AUTHORITY_REFERRAL) {
		fail(reply, "referral: the server is no resolver for this name");
	} else {
		reply->kind = DNSREPLY_NO_DATA;
		reply->error = "name without an address of this family";
	}
}

static const char *rcode_error(int rcode)
{
	switch (rcode) {
	case ns_r_formerr:
		return "FORMERR";
	case ns_r_servfail:
		return "SERVFAIL";
	case ns_r_notimpl:
		return "NOTIMP";
	case ns_r_refused:
		return "REFUSED";
	default:
		return "unexpected RCODE";
	}
}

void dnsreply_parse(struct dnsreply *reply, const uint8_t *message, size_t len, const char *name, uint8_t family)
{
	ns_msg parsed;
	int rcode;

	reply->n_addresses = 0;
	reply->negative_ttl_s = UINT32_MAX;
	reply->error = "";
	/* ns_name_uncompress() writes the absolute name without its last dot. */
	snprintf(reply->target, sizeof(reply->target), "%s", name);
	if (len > NS_MAXMSG || ns_initparse(message, (int)len, &parsed) < 0 || !ns_msg_getflag(parsed, ns_f_qr) ||
	    ns_msg_getflag(parsed, ns_f_tc))
		return fail(reply, "malformed answer");
	rcode = ns_msg_getflag(parsed, ns_f_rcode);
	if (rcode != ns_r_noerror && rcode != ns_r_nxdomain)
		return fail(reply, rcode_error(rcode));
	read_sections(reply, &parsed, family);
}
