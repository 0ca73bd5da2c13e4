// SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause
/*
 * The gate's XDP program. What is for a listener or a SNAT address goes to the AF_XDP sockets of its receive queue;
 * everything else passes to the kernel, at the cost of one map lookup. It parses only as far as it takes to know whose
 * a frame is: what is ours and malformed is for the dataplane to refuse and count.
 */
#include "maps.h"

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

/* Set before the load, constant after. */
const volatile __u64 hang_ns = 3000000000;
const volatile __u32 listener_otherwise = XDP_DROP; /* when no worker takes what is for a listener */

/*
 * The port's link address: the first four bytes as they lie in a frame, above them the last two. 0: not known yet, so
 * no frame is ours. Written by control, while the program runs, too.
 */
__u64 port_mac;

/* Sizes are set before the load. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct spw_address);
	__type(value, __u32);
} spw_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct spw_listener);
	__type(value, __u8);
} spw_listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SPW_SOCKETS_PER_QUEUE);
	__type(key, __u32);
	__type(value, __u32);
} spw_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct spw_beat);
} spw_beats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SPW_EXIT_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} spw_exits SEC(".maps");

/* Those of early shedding are shed.c's, shared by all gates; the sizes here are for a gate without. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct spw_shed_client);
	__type(value, __u32);
} spw_shed_clients SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct spw_shed_entry);
} spw_shed_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct spw_listener);
	__type(value, struct spw_shed_share);
} spw_shed_shares SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct spw_shed_state);
} spw_shed_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SPW_SHED_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} spw_shed_counts SEC(".maps");

struct cursor {
	void *pos;
	void *end;
};

struct packet {
	struct spw_address src;
	struct spw_address dst;
	bool v6;
	bool on_vlan;
	bool later_fragment; /* not the first: carries no ports */
	__u8 proto;
	__u8 hop_limit;
};

struct vlan_header {
	__be16 tci;
	__be16 ethertype;
};

struct extension_header {
	__u8 next;
	__u8 len_words; /* 8 bytes each, the first not counted; reserved in a fragment header */
	__be16 fragment_offset;
	__u32 rest;
};

struct ports {
	__be16 src;
	__be16 dst;
};

/* Of both families. In an error, the quoted packet follows. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__u32 rest;
};

/* As far as the dataplane follows them too: beyond, a packet is refused. */
#define MAX_EXTENSIONS       8
#define MAX_EXTENSIONS_BYTES 256

#define VLAN_ID_MASK         0x0fff
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8

/* RFC 792. <linux/icmp.h> needs a libc for the BPF target. */
#define ICMPV4_UNREACHABLE   3
#define ICMPV4_ECHO_REQUEST  8
#define ICMPV4_TIME_EXCEEDED 11
#define ICMPV4_PARAMETER     12

#define ICMPV6_ND_FIRST      133 /* router solicitation, RFC 4861 4 */
#define ICMPV6_ND_LAST       137 /* redirect */
#define ND_HOP_LIMIT         255

/* The only way out: each frame is counted once, by what became of it. */
static __always_inline int leave(enum spw_exit exit, int action)
{
	__u32 key = exit;
	__u64 *packets = bpf_map_lookup_elem(&spw_exits, &key);

	if (packets)
		*packets += 1;
	return action;
}

/* Moves over a header of `size` bytes, which lies at the old position; false if the frame ends before. */
static __always_inline bool advance(struct cursor *c, __u32 size)
{
	if (c->pos + size > c->end)
		return false;
	c->pos += size;
	return true;
}

static __always_inline struct spw_address mapped_v4(__be32 addr_be)
{
	return (struct spw_address){{0, 0, bpf_htonl(0xffff), addr_be}};
}

static __always_inline struct spw_address address_v6(const struct in6_addr *a)
{
	return (struct spw_address){
		{a->in6_u.u6_addr32[0], a->in6_u.u6_addr32[1], a->in6_u.u6_addr32[2], a->in6_u.u6_addr32[3]}};
}

static __always_inline bool parse_ipv4(struct cursor *c, struct packet *p)
{
	struct iphdr *ip = c->pos;

	if (!advance(c, sizeof(*ip)) || ip->version != 4 || ip->ihl < 5)
		return false;
	p->v6 = false;
	p->src = mapped_v4(ip->saddr);
	p->dst = mapped_v4(ip->daddr);
	p->proto = ip->protocol;
	p->hop_limit = ip->ttl;
	p->later_fragment = ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET);
	/* Options may reach beyond the frame: the next advance() finds out. */
	c->pos += ip->ihl * 4 - sizeof(*ip);
	return true;
}

static __always_inline bool parse_ipv6(struct cursor *c, struct packet *p)
{
	struct ipv6hdr *ip = c->pos;

	if (!advance(c, sizeof(*ip)) || ip->version != 6)
		return false;
	p->v6 = true;
	p->src = address_v6(&ip->saddr);
	p->dst = address_v6(&ip->daddr);
	p->proto = ip->nexthdr;
	p->hop_limit = ip->hop_limit;
	p->later_fragment = false;
	return true;
}

static __always_inline bool is_extension(__u8 proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_DSTOPTS ||
	       proto == IPPROTO_FRAGMENT;
}

/*
 * Moves on to the transport header, or to the payload of a later fragment. False if that is further than the dataplane
 * looks, or beyond the frame.
 */
static __always_inline bool skip_extensions(struct cursor *c, struct packet *p)
{
	__u32 n_bytes = 0;

	for (int i = 0; i < MAX_EXTENSIONS && is_extension(p->proto); i++) {
		struct extension_header *ext = c->pos;
		__u32 more;

		if (!advance(c, sizeof(*ext)))
			return false;
		more = p->proto == IPPROTO_FRAGMENT ? 0 : ext->len_words * 8;
		if (p->proto == IPPROTO_FRAGMENT && (ext->fragment_offset & bpf_htons(IPV6_FRAGMENT_OFFSET))) {
			p->proto = ext->next;
			p->later_fragment = true;
			return true;
		}
		p->proto = ext->next;
		n_bytes += sizeof(*ext) + more;
		if (n_bytes > MAX_EXTENSIONS_BYTES)
			return false;
		c->pos += more;
	}
	return !is_extension(p->proto);
}

static __always_inline __u32 owner_of(const struct spw_address *addr)
{
	__u32 *owner = bpf_map_lookup_elem(&spw_addresses, addr);

	return owner ? *owner : 0;
}

static __always_inline bool is_listener(const struct spw_address *addr, __be16 port_be, __u8 proto)
{
	struct spw_listener key = {.addr = *addr, .port_be = port_be, .proto = proto};

	return bpf_map_lookup_elem(&spw_listeners, &key);
}

/* --- early shedding --- */

static __always_inline enum spw_exit shed_as(__u32 service, enum spw_shed_kind kind, __u32 cap)
{
	__u32 key = service * SPW_SHED_KINDS + kind;
	__u64 *packets = bpf_map_lookup_elem(&spw_shed_counts, &key);

	if (packets)
		*packets += 1;
	return SPW_EXIT_shed_client + (cap < SPW_SHED_CAPS ? cap : SPW_SHED_CLIENT);
}

static __always_inline enum spw_exit shed_client(const struct packet *p, __be16 port_be, __u64 now_ns)
{
	struct spw_shed_client key = {.client = p->src, .vip = p->dst, .port_be = port_be};
	struct spw_shed_entry *entry;
	__u32 *place;

	if (p->v6)
		key.client.w_be[2] = key.client.w_be[3] = 0;
	place = bpf_map_lookup_elem(&spw_shed_clients, &key);
	if (!place)
		return SPW_EXIT_new;
	entry = bpf_map_lookup_elem(&spw_shed_entries, place);
	if (!entry || now_ns >= READ_ONCE(entry->until_ns))
		return SPW_EXIT_new;
	__sync_fetch_and_add(&entry->packets, 1);
	return shed_as(READ_ONCE(entry->service), SPW_SHED_OF_CLIENTS, READ_ONCE(entry->cap));
}

static __always_inline enum spw_exit shed_share(const struct packet *p, __be16 port_be, __u64 now_ns)
{
	struct spw_listener key = {.addr = p->dst, .port_be = port_be, .proto = p->proto};
	struct spw_shed_share *share = bpf_map_lookup_elem(&spw_shed_shares, &key);

	if (!share || now_ns >= share->until_ns || bpf_get_prandom_u32() < share->pass)
		return SPW_EXIT_new;
	return shed_as(share->service, SPW_SHED_OF_ALL, share->cap);
}

/* What becomes of a SYN for a listener. Where nothing is shed it costs one load. */
static __always_inline enum spw_exit shed_or_new(const struct packet *p, __be16 port_be)
{
	__u32 zero = 0;
	struct spw_shed_state *state = bpf_map_lookup_elem(&spw_shed_state, &zero);
	__u64 clients_ns = state ? READ_ONCE(state->clients_until_ns) : 0;
	__u64 shares_ns = state ? READ_ONCE(state->shares_until_ns) : 0;
	enum spw_exit exit = SPW_EXIT_new;
	__u64 now_ns;

	if (!clients_ns && !shares_ns)
		return SPW_EXIT_new;
	now_ns = bpf_ktime_get_ns();
	if (now_ns < clients_ns)
		exit = shed_client(p, port_be, now_ns);
	if (exit == SPW_EXIT_new && now_ns < shares_ns)
		exit = shed_share(p, port_be, now_ns);
	return exit;
}

static __always_inline bool is_shed(enum spw_exit exit)
{
	return exit >= SPW_EXIT_shed_client && exit <= SPW_EXIT_shed_limit;
}

static __always_inline enum spw_exit classify_tcp(struct cursor *c, const struct packet *p)
{
	struct tcphdr *tcp = c->pos;
	struct ports *ports = c->pos;

	if (!advance(c, sizeof(*ports)))
		return SPW_EXIT_pass_unreadable;
	if (!is_listener(&p->dst, ports->dst, p->proto))
		return SPW_EXIT_pass_not_listener;
	if ((void *)tcp + sizeof(*tcp) <= c->end && tcp->syn && !tcp->ack)
		return shed_or_new(p, ports->dst);
	return SPW_EXIT_known;
}

static __always_inline enum spw_exit classify_udp(struct cursor *c, const struct packet *p)
{
	struct ports *ports = c->pos;

	if (!advance(c, sizeof(*ports)))
		return SPW_EXIT_pass_unreadable;
	return is_listener(&p->dst, ports->dst, p->proto) ? SPW_EXIT_known : SPW_EXIT_pass_not_listener;
}

/*
 * An error is ours if the quoted packet was sent by a listener or from a SNAT address. Errors about the host's own
 * packets, which a VIP that is also a host address may have sent, are the kernel's.
 */
static __always_inline enum spw_exit classify_quote(struct cursor *c, bool v6)
{
	struct packet quoted = {};
	struct ports *ports;
	__u32 owner;

	if (!(v6 ? parse_ipv6(c, &quoted) && skip_extensions(c, &quoted) : parse_ipv4(c, &quoted)))
		return SPW_EXIT_pass_unreadable;
	owner = owner_of(&quoted.src);
	if (owner & SPW_OWNER_SNAT)
		return SPW_EXIT_icmp_error;
	if (!(owner & SPW_OWNER_VIP) || quoted.later_fragment)
		return SPW_EXIT_pass_not_listener;
	ports = c->pos;
	if (!advance(c, sizeof(*ports)))
		return SPW_EXIT_pass_unreadable;
	return is_listener(&quoted.src, ports->src, quoted.proto) ? SPW_EXIT_icmp_error : SPW_EXIT_pass_not_listener;
}

static __always_inline bool is_icmp_error(bool v6, __u8 type)
{
	if (v6)
		return type >= ICMPV6_DEST_UNREACH && type <= ICMPV6_PARAMPROB;
	/* Not source quench, which RFC 6633 took away, nor redirects: those are about the host's routes. */
	return type == ICMPV4_UNREACHABLE || type == ICMPV4_TIME_EXCEEDED || type == ICMPV4_PARAMETER;
}

static __always_inline enum spw_exit classify_icmp(struct cursor *c, const struct packet *p)
{
	struct icmp_header *icmp = c->pos;

	if (!advance(c, sizeof(*icmp)))
		return SPW_EXIT_pass_unreadable;
	if (icmp->type == (p->v6 ? ICMPV6_ECHO_REQUEST : ICMPV4_ECHO_REQUEST))
		return SPW_EXIT_echo;
	if (is_icmp_error(p->v6, icmp->type))
		return classify_quote(c, p->v6);
	return SPW_EXIT_pass_not_listener;
}

static __always_inline bool is_neighbour_discovery(const struct cursor *c, const struct packet *p)
{
	const __u8 *type = c->pos;

	return p->v6 && !p->later_fragment && p->proto == IPPROTO_ICMPV6 && p->hop_limit == ND_HOP_LIMIT &&
	       (void *)(type + 1) <= c->end && *type >= ICMPV6_ND_FIRST && *type <= ICMPV6_ND_LAST;
}

/*
 * A later fragment names no port, so the protocol must do: fragments of tunnels (GRE, ESP) that end on a VIP stay the
 * kernel's.
 */
static __always_inline enum spw_exit classify_fragment(const struct packet *p)
{
	switch (p->proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
		return SPW_EXIT_fragment;
	case IPPROTO_ICMP:
		return p->v6 ? SPW_EXIT_pass_not_listener : SPW_EXIT_fragment;
	case IPPROTO_ICMPV6:
	case IPPROTO_DSTOPTS: /* options after the fragment header, before the transport */
		return p->v6 ? SPW_EXIT_fragment : SPW_EXIT_pass_not_listener;
	default:
		return SPW_EXIT_pass_not_listener;
	}
}

static __always_inline enum spw_exit classify_vip(struct cursor *c, const struct packet *p)
{
	if (p->later_fragment)
		return classify_fragment(p);
	switch (p->proto) {
	case IPPROTO_TCP:
		return classify_tcp(c, p);
	case IPPROTO_UDP:
		return classify_udp(c, p);
	case IPPROTO_ICMP:
		return p->v6 ? SPW_EXIT_pass_not_listener : classify_icmp(c, p);
	case IPPROTO_ICMPV6:
		return p->v6 ? classify_icmp(c, p) : SPW_EXIT_pass_not_listener;
	default:
		return SPW_EXIT_pass_not_listener;
	}
}

static __always_inline bool is_ours(enum spw_exit exit)
{
	return exit >= SPW_EXIT_new && exit <= SPW_EXIT_snat;
}

/*
 * Backends answer a flood of SYNs with as many SYN-ACKs: those must not take the ring of established flows either. None
 * of them overtakes what follows it in its flow, for the client has not heard of it yet.
 */
static __always_inline enum spw_exit classify_snat(struct cursor *c, const struct packet *p)
{
	struct tcphdr *tcp = c->pos;

	if (p->later_fragment || p->proto != IPPROTO_TCP || !advance(c, sizeof(*tcp)))
		return SPW_EXIT_snat;
	return tcp->syn ? SPW_EXIT_snat_syn : SPW_EXIT_snat;
}

static __always_inline enum spw_exit classify(struct cursor *c, struct packet *p, __u32 owner)
{
	bool readable = !p->v6 || skip_extensions(c, p);
	struct cursor transport = *c;
	enum spw_exit exit = SPW_EXIT_pass_unreadable;

	/* Neighbours are the kernel's, for SNAT addresses too: unanswered, the peers would forget our link address. */
	if (readable && is_neighbour_discovery(c, p))
		return SPW_EXIT_pass_neighbour;
	if (readable && (owner & SPW_OWNER_VIP))
		exit = classify_vip(c, p);
	if (!is_ours(exit) && (owner & SPW_OWNER_SNAT))
		exit = readable ? classify_snat(&transport, p) : SPW_EXIT_snat;
	return exit;
}

static __always_inline bool is_hung(const struct spw_beat *beat)
{
	__u64 beat_ns = READ_ONCE(beat->monotonic_ns);

	/* Signed: the coarse clock lags the worker's by up to a tick, so a fresh beat may lie in the future. */
	return !beat_ns || (__s64)(bpf_ktime_get_coarse_ns() - beat_ns) > (__s64)hang_ns;
}

/* To the socket of the frame's queue and class, if somebody serves it; a SNAT address's frames never reach the kernel.
 */
static __always_inline int deliver(struct xdp_md *ctx, enum spw_exit exit, __u32 owner)
{
	int otherwise = owner & SPW_OWNER_SNAT ? XDP_DROP : listener_otherwise;
	bool passes = otherwise == XDP_PASS;
	__u32 queue = ctx->rx_queue_index;
	bool is_new = exit == SPW_EXIT_new || exit == SPW_EXIT_snat_syn;
	__u32 class = is_new ? SPW_SOCKET_NEW : SPW_SOCKET_KNOWN;
	struct spw_beat *beat = bpf_map_lookup_elem(&spw_beats, &queue);

	if (!beat)
		return leave(passes ? SPW_EXIT_pass_unserved_queue : SPW_EXIT_drop_unserved_queue, otherwise);
	if (is_hung(beat))
		return leave(passes ? SPW_EXIT_pass_hung : SPW_EXIT_drop_hung, otherwise);
	if (bpf_redirect_map(&spw_sockets, queue * SPW_SOCKETS_PER_QUEUE + class, otherwise) != XDP_REDIRECT)
		return leave(passes ? SPW_EXIT_pass_no_socket : SPW_EXIT_drop_no_socket, otherwise);
	return leave(exit, XDP_REDIRECT);
}

/*
 * A frame to another host is seen where a switch floods it, and where the device listens to all; its IP packet is that
 * host's to forward. A group of hosts has no use for what is ours: one answer, not many (RFC 1122 3.3.6).
 */
static __always_inline bool is_for_port(const struct xdp_md *ctx)
{
	const __u8 *mac = (void *)(long)ctx->data;

	if (mac + ETH_ALEN > (const __u8 *)(long)ctx->data_end)
		return false;
	return (*(const __u32 *)mac | (__u64) * (const __u16 *)(mac + 4) << 32) == READ_ONCE(port_mac);
}

/*
 * The EtherType after at most one VLAN tag; 0 if the frame ends before. A tag that names no VLAN is a priority alone
 * (IEEE 802.1Q 6.9).
 */
static __always_inline __be16 parse_ethernet(struct cursor *c, struct packet *p)
{
	struct ethhdr *eth = c->pos;
	struct vlan_header *vlan;

	if (!advance(c, sizeof(*eth)))
		return 0;
	if (eth->h_proto != bpf_htons(ETH_P_8021Q) && eth->h_proto != bpf_htons(ETH_P_8021AD))
		return eth->h_proto;
	vlan = c->pos;
	if (!advance(c, sizeof(*vlan)))
		return 0;
	p->on_vlan = vlan->tci & bpf_htons(VLAN_ID_MASK);
	return vlan->ethertype;
}

SEC("xdp")
int spillway(struct xdp_md *ctx)
{
	struct cursor c = {.pos = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
	struct packet p = {};
	enum spw_exit exit;
	__u32 owner;

	switch (parse_ethernet(&c, &p)) {
	case bpf_htons(ETH_P_IP):
		if (!parse_ipv4(&c, &p))
			return leave(SPW_EXIT_pass_malformed, XDP_PASS);
		break;
	case bpf_htons(ETH_P_IPV6):
		if (!parse_ipv6(&c, &p))
			return leave(SPW_EXIT_pass_malformed, XDP_PASS);
		break;
	default:
		return leave(SPW_EXIT_pass_not_ip, XDP_PASS);
	}
	owner = owner_of(&p.dst);
	if (!owner)
		return leave(SPW_EXIT_pass_not_ours, XDP_PASS);
	if (p.on_vlan)
		return leave(SPW_EXIT_pass_vlan, XDP_PASS);
	if (!is_for_port(ctx))
		return leave(SPW_EXIT_pass_other_mac, XDP_PASS);
	exit = classify(&c, &p, owner);
	if (!is_ours(exit))
		return leave(exit, XDP_PASS);
	if (is_shed(exit))
		return leave(exit, XDP_DROP);
	return deliver(ctx, exit, owner);
}

/* The kernel knows only its own list of names; the SPDX line above is the licence. */
char spw_license[] SEC("license") = "Dual BSD/GPL";
