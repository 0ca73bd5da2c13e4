/* SPDX-License-Identifier: BSD-3-Clause */
/* Any bytes into parse(): no access out of bounds, and what it says about a packet must hold. */
#include "fuzz.h"

#include "parse.h"

#include <netinet/in.h>

static void check(bool ok)
{
	if (!ok)
		__builtin_trap();
}

static void check_addresses(const uint8_t *frame, const struct packet *p)
{
	struct ipaddr src = packet_src(frame, p), dst = packet_dst(frame, p);

	check(ipaddr_is_v4(&src) == (p->family == 4));
	check(ipaddr_is_v4(&dst) == (p->family == 4));
}

static void check_l4(const struct packet *p)
{
	uint32_t header = p->payload_off - p->l4_off;

	switch (p->kind) {
	case PACKET_TCP:
		check(p->proto == IPPROTO_TCP && header >= 20 && header <= 60 && p->tcp_flags);
		break;
	case PACKET_UDP:
		check(p->proto == IPPROTO_UDP && header == 8);
		break;
	case PACKET_FRAGMENT_LATER:
		check(p->flags & PACKET_FRAGMENT && header == 0 && p->payload_len > 0);
		break;
	default:
		check(p->proto == (p->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) && header == 8);
	}
	if (p->kind != PACKET_TCP && p->kind != PACKET_UDP)
		check(p->sport_be == 0 && p->dport_be == 0 && p->tcp_flags == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	enum verdict verdict;
	struct packet p;

	verdict = parse(data, len, &p);
	if (verdict != VERDICT_NONE) {
		check(verdict < VERDICT_COUNT && verdict_info[verdict].class == CLASS_DROPPED);
		check(p.sport_be == 0 && p.dport_be == 0);
		return 0;
	}
	check(p.family == 4 || p.family == 6);
	check(p.l3_off == (p.flags & PACKET_VLAN ? 18 : 14));
	check(p.l4_off >= p.l3_off + (p.family == 4 ? 20 : 40));
	check((uint32_t)p.payload_off + p.payload_len <= (uint32_t)p.l3_off + p.ip_len);
	check((uint32_t)p.l3_off + p.ip_len <= len);
	check_l4(&p);
	check_addresses(data, &p);
	check(p.kind != PACKET_FRAGMENT_LATER || p.flags & PACKET_FRAGMENT);
	return 0;
}
