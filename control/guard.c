// SPDX-License-Identifier: BSD-3-Clause
/*
 * Where it drops: in prerouting before everything else, and once more in input.
 *
 * prerouting (raw - 10), because the kernel can answer before input: it would send ICMP errors when it routes or
 * forwards what is for an address that is routed to the host but not local on it (no route, TTL, redirect), and time
 * exceeded about a fragment that it kept. Before connection tracking, so that a flood for us costs no tracked
 * connections, and later fragments, which carry no port, are left to die in reassembly: without their first one that is
 * silent.
 *
 * input (filter - 10), because a translation rule of the host may make something ours after prerouting.
 *
 * What the gateway takes in never gets here: its XDP program comes first. So the table is idle while the gateway lives.
 */
#include "guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char table_head[] =
	"table inet spillway {\n"
	"	set listeners4 { type ipv4_addr . inet_proto . inet_service; }\n"
	"	set listeners6 { type ipv6_addr . inet_proto . inet_service; }\n"
	"	set vips4 { type ipv4_addr; }\n"
	"	set vips6 { type ipv6_addr; }\n"
	"	set snat4 { type ipv4_addr; }\n"
	"	set snat6 { type ipv6_addr; }\n"
	"	counter to_listeners { }\n"
	"	counter echo_to_vip { }\n"
	"	counter to_snat { }\n"
	"	chain guard { }\n"
	"	chain prerouting { type filter hook prerouting priority raw - 10; policy accept; }\n"
	"	chain input { type filter hook input priority filter - 10; policy accept; }\n"
	"}\n";

/*
 * Emptied and filled again in place, rather than deleted and made anew: so the chains stay hooked, and at no instant
 * does a packet fall between an old chain and a new one. The counters go on.
 */
static const char table_empty[] = "flush table inet spillway\n"
				  "flush set inet spillway listeners4\n"
				  "flush set inet spillway listeners6\n"
				  "flush set inet spillway vips4\n"
				  "flush set inet spillway vips6\n"
				  "flush set inet spillway snat4\n"
				  "flush set inet spillway snat6\n";

/*
 * Neighbour discovery (never from beyond the link: hop limit 255) passes for SNAT addresses too: the kernel answers it
 * for us. An echo reply in the name of a VIP would say that a dead gateway lives.
 */
static const char table_rules[] =
	"table inet spillway {\n"
	"	chain guard {\n"
	"		ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, "
	"nd-neighbor-advert, nd-redirect } return\n"
	"		ip daddr @snat4 counter name to_snat drop\n"
	"		ip6 daddr @snat6 counter name to_snat drop\n"
	"		ip daddr . meta l4proto . th dport @listeners4 counter name to_listeners drop\n"
	"		ip6 daddr . meta l4proto . th dport @listeners6 counter name to_listeners drop\n"
	"		ip daddr @vips4 icmp type echo-request counter name echo_to_vip drop\n"
	"		ip6 daddr @vips6 icmpv6 type echo-request counter name echo_to_vip drop\n"
	"	}\n"
	"	chain prerouting { jump guard; }\n"
	"	chain input { jump guard; }\n"
	"}\n";

/* Adding first makes deleting what is not there no error; both are one transaction. */
static const char table_delete[] = "add table inet spillway\n"
				   "delete table inet spillway\n";

/* Writes what went wrong in one line; returns -rc. */
static int refused(const char *said, int rc, char *err, size_t err_len)
{
	if (err_len)
		snprintf(err, err_len, "the nftables guard was not installed: %.*s", (int)strcspn(said, "\n"), said);
	return -rc;
}

/*
 * Kept from the first install to the removal: closing its socket waits for grace periods of the kernel, which take
 * seconds where the CPUs are busy, and a reload should not.
 */
static struct nft_ctx *kept;

static struct nft_ctx *context(void)
{
	if (kept)
		return kept;
	kept = nft_ctx_new(NFT_CTX_DEFAULT);
	if (kept) {
		nft_ctx_buffer_output(kept);
		nft_ctx_buffer_error(kept);
	}
	return kept;
}

/* Runs commands as one transaction. Returns 0 or -errno with a sentence in `err`. */
static int run(const char *commands, char *err, size_t err_len)
{
	struct nft_ctx *nft = context();
	int rc = 0;

	if (!nft)
		return refused("out of memory", ENOMEM, err, err_len);
	errno = 0;
	if (nft_run_cmd_from_buffer(nft, commands))
		rc = refused(nft_ctx_get_error_buffer(nft), errno ? errno : EIO, err, err_len);
	/* Reading a buffer empties it. */
	nft_ctx_get_error_buffer(nft);
	nft_ctx_get_output_buffer(nft);
	return rc;
}

static const char *proto_name(uint8_t proto)
{
	return proto == PROTO_TCP ? "tcp" : "udp";
}

static void add_listeners(FILE *out, const struct guard_listener *listeners, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *family = ipaddr_is_v4(&listeners[i].addr) ? "4" : "6";
		char text[IPADDR_STRLEN];

		ipaddr_format(&listeners[i].addr, text);
		fprintf(out, "add element inet spillway listeners%s { %s . %s . %u }\n", family, text,
			proto_name(listeners[i].proto), ntohs(listeners[i].port_be));
		fprintf(out, "add element inet spillway vips%s { %s }\n", family, text);
	}
}

static void add_snat(FILE *out, const struct ipaddr *snat, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char text[IPADDR_STRLEN];

		fprintf(out, "add element inet spillway snat%s { %s }\n", ipaddr_is_v4(&snat[i]) ? "4" : "6",
			ipaddr_format(&snat[i], text));
	}
}

static void write_commands(FILE *out, const struct guard_listener *listeners, size_t n_listeners,
			   const struct ipaddr *snat, size_t n_snat)
{
	fputs(table_head, out);
	fputs(table_empty, out);
	fputs(table_rules, out);
	add_listeners(out, listeners, n_listeners);
	add_snat(out, snat, n_snat);
}

int guard_install(const struct guard_listener *listeners, size_t n_listeners, const struct ipaddr *snat, size_t n_snat,
		  bool listeners_pass, char *err, size_t err_len)
{
	size_t delete_len = sizeof(table_delete) - 1;
	char *commands = NULL;
	size_t len;
	FILE *out = open_memstream(&commands, &len);
	int rc;

	if (!out)
		return refused("out of memory", ENOMEM, err, err_len);
	fputs(table_delete, out);
	write_commands(out, listeners, listeners_pass ? 0 : n_listeners, snat, n_snat);
	if (fclose(out)) {
		free(commands);
		return refused("out of memory", ENOMEM, err, err_len);
	}
	rc = run(commands + delete_len, err, err_len);
	/* A table of another make, left by another version, cannot be filled: it goes in the same transaction. */
	if (rc)
		rc = run(commands, err, err_len);
	free(commands);
	return rc;
}

bool guard_installed(void)
{
	return run("list table inet spillway\n", NULL, 0) == 0;
}

int guard_remove(void)
{
	int rc = run(table_delete, NULL, 0);

	if (kept)
		nft_ctx_free(kept);
	kept = NULL;
	return rc;
}
