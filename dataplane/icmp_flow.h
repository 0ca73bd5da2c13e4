/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ICMP at its owner: echo requests to our addresses, and errors about packets that we sent.
 */
#pragma once

#include "core.h"
#include "icmp.h"

/* Reads what a PACKET_ICMP_ERROR is about; false if that cannot be told. */
bool icmp_read_quote(const struct item *it, struct icmp_quote *q);
/* Hash of the key under which answers to the quoted packet are looked up. */
uint64_t icmp_reply_hash(const struct worker *w, const struct icmp_quote *q);

/*
 * Ends an ICMP item: its verdict. VERDICT_forwarded: translated in place (RFC 5508 4.2) and routed to the endpoint
 * whose packet it quotes.
 */
enum verdict icmp_receive(struct worker *w, const struct burst *b, struct item *it);
