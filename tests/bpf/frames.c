// SPDX-License-Identifier: BSD-3-Clause
#include "frames.h"

#include "ipaddr.h"

#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>

static void put(struct frame *f, const void *bytes, size_t len)
{
	if (f->len + len > sizeof(f->bytes))
		abort();
	if (bytes)
		memcpy(&f->bytes[f->len], bytes, len);
	else
		memset(&f->bytes[f->len], 0, len);
	f->len += len;
}

static void put_u8(struct frame *f, uint8_t value)
{
	put(f, &value, 1);
}

static void put_u16(struct frame *f, uint16_t value)
{
	uint16_t value_be = htons(value);

	put(f, &value_be, 2);
}

static void set_u16(struct frame *f, size_t at, uint16_t value)
{
	uint16_t value_be = htons(value);

	memcpy(&f->bytes[at], &value_be, 2);
}

static uint64_t sum(const uint8_t *bytes, size_t len, uint64_t total)
{
	for (size_t i = 0; i < len; i++)
		total += i % 2 ? bytes[i] : bytes[i] << 8;
	return total;
}

static uint16_t fold(uint64_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total;
}

static struct ipaddr address(const char *text)
{
	struct ipaddr addr;

	if (ipaddr_parse(text, &addr))
		abort();
	return addr;
}

static size_t payload_len(const struct frame_spec *spec)
{
	if (!spec->payload)
		return 0;
	return spec->payload_len ? spec->payload_len : strlen(spec->payload);
}

static void put_packet(struct frame *f, const struct frame_spec *spec);

/* Returns where the checksum goes; 0: nowhere. */
static size_t put_transport(struct frame *f, const struct frame_spec *spec)
{
	size_t start = f->len;

	switch (spec->proto) {
	case IPPROTO_TCP:
		put_u16(f, spec->src_port);
		put_u16(f, spec->dst_port);
		put(f, "\0\0\0\1\0\0\0\2", 8);
		put_u8(f, 5 << 4);
		put_u8(f, spec->tcp_flags);
		put_u16(f, 0xffff);
		put(f, NULL, 4);
		return start + 16;
	case IPPROTO_UDP:
		put_u16(f, spec->src_port);
		put_u16(f, spec->dst_port);
		put_u16(f, 8 + payload_len(spec));
		put(f, NULL, 2);
		return start + 6;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		put_u8(f, spec->icmp_type);
		put_u8(f, spec->icmp_code);
		put(f, NULL, 6);
		if (spec->quoted)
			put_packet(f, spec->quoted);
		return start + 2;
	default:
		return 0;
	}
}

static void put_ipv4(struct frame *f, const struct frame_spec *spec)
{
	struct ipaddr src = address(spec->src), dst = address(spec->dst);

	put_u8(f, 0x45 + spec->option_words);
	put_u8(f, 0);
	put_u16(f, 0); /* total length: later */
	put_u16(f, 0x1234);
	put_u16(f, spec->v4_fragment);
	put_u8(f, spec->hop_limit ? spec->hop_limit : 64);
	put_u8(f, spec->proto);
	put_u16(f, 0);
	put(f, &src.b[12], 4);
	put(f, &dst.b[12], 4);
	f->ip_end = f->len;
	for (unsigned i = 0; i < spec->option_words * 4u; i++)
		put_u8(f, 1); /* no operation */
}

static void put_extensions(struct frame *f, const struct frame_spec *spec)
{
	for (const struct frame_extension *ext = spec->extensions; ext->present; ext++) {
		put_u8(f, ext[1].present ? ext[1].type : spec->proto);
		if (ext->type == IPPROTO_FRAGMENT) {
			put_u8(f, 0);
			put_u16(f, ext->fragment);
			put(f, "\0\0\x12\x34", 4);
			continue;
		}
		put_u8(f, ext->extra_words);
		put_u8(f, 1); /* PadN over the rest, which is less than 256 bytes */
		put_u8(f, 4 + ext->extra_words * 8);
		put(f, NULL, 4 + ext->extra_words * 8);
	}
}

static void put_ipv6(struct frame *f, const struct frame_spec *spec)
{
	struct ipaddr src = address(spec->src), dst = address(spec->dst);

	put(f, "\x60\0\0\0", 4);
	put_u16(f, 0); /* payload length: later */
	put_u8(f, spec->extensions[0].present ? spec->extensions[0].type : spec->proto);
	put_u8(f, spec->hop_limit ? spec->hop_limit : 64);
	put(f, src.b, 16);
	put(f, dst.b, 16);
	f->ip_end = f->len;
	put_extensions(f, spec);
}

/* UDP and TCP of both families and ICMPv6 sum the addresses; ICMPv4 does not. */
static void put_checksum(struct frame *f, const struct frame_spec *spec, size_t transport, size_t at)
{
	struct ipaddr src = address(spec->src), dst = address(spec->dst);
	bool v4 = ipaddr_is_v4(&dst);
	uint64_t total = 0;

	if (spec->proto != IPPROTO_ICMP) {
		size_t skip = v4 ? 12 : 0;

		total = spec->proto + f->len - transport;
		total = sum(&src.b[skip], 16 - skip, total);
		total = sum(&dst.b[skip], 16 - skip, total);
	}
	set_u16(f, at, fold(sum(&f->bytes[transport], f->len - transport, total)));
}

static void put_packet(struct frame *f, const struct frame_spec *spec)
{
	struct ipaddr dst = address(spec->dst);
	bool v4 = ipaddr_is_v4(&dst);
	size_t start = f->len, outer_ip_end = f->ip_end;
	size_t transport, checksum_at, ip_end;

	if (v4)
		put_ipv4(f, spec);
	else
		put_ipv6(f, spec);
	ip_end = f->ip_end;
	transport = f->len;
	checksum_at = put_transport(f, spec);
	if (spec->payload)
		put(f, spec->payload, payload_len(spec));
	if (checksum_at)
		put_checksum(f, spec, transport, checksum_at);
	if (v4) {
		set_u16(f, start + 2, f->len - start);
		set_u16(f, start + 10, fold(sum(&f->bytes[start], transport - start, 0)));
	} else {
		set_u16(f, start + 4, f->len - start - 40);
	}
	if (spec->version_ihl)
		f->bytes[start] = spec->version_ihl;
	f->ip_end = outer_ip_end ? outer_ip_end : ip_end;
}

void frame_build(struct frame *f, const struct frame_spec *spec)
{
	*f = (struct frame){0};
	put(f, spec->dst_mac, 6);
	put(f, spec->src_mac, 6);
	for (unsigned i = 0; i < spec->n_vlan_tags; i++) {
		put_u16(f, i ? ETH_P_8021AD : ETH_P_8021Q);
		put_u16(f, 7 << 13 | spec->vlan_id);
	}
	if (spec->ethertype) {
		put_u16(f, spec->ethertype);
		put(f, NULL, 46);
		return;
	}
	put_u16(f, strchr(spec->dst, ':') ? ETH_P_IPV6 : ETH_P_IP);
	put_packet(f, spec);
}
