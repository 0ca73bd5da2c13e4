/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Two programs of the veth bench: `flood` turns each frame of a live test run into one of a set of flows and sends it
 * out of a device; `count` is where packets end.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flood.h"

struct wire {
	struct ethhdr eth;
	struct iphdr ip;
	union {
		struct udphdr udp;
		struct tcphdr tcp;
		__u8 rest[FLOOD_FRAME_LEN - sizeof(struct ethhdr) - sizeof(struct iphdr)];
	} __attribute__((packed, aligned(2)));
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct wire) == FLOOD_FRAME_LEN, "a frame");

struct wire6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct tcphdr tcp;
} __attribute__((packed, aligned(2)));

_Static_assert(sizeof(struct wire6) == FLOOD_FRAME6_LEN, "a frame");

/*
 * Set before the run. The template and the sums are of a frame whose port, sequence number, and source's counting word
 * are 0. Not const: the compiler would copy from the zeros that it sees.
 */
struct flood_plan plan;

__u64 n_made;
__u64 next_ns;

#define MISSED_MAX_NS 1000000

/* What the generator missed for long is not made up for. */
static __always_inline int is_due(void)
{
	__u64 now_ns;

	if (plan.interval_ns == 0)
		return 1;
	now_ns = bpf_ktime_get_ns();
	if (now_ns < next_ns)
		return 0;
	if (now_ns - next_ns > MISSED_MAX_NS)
		next_ns = now_ns;
	next_ns += plan.interval_ns;
	return 1;
}

static __always_inline __u16 checksum(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 halves(__u32 word)
{
	return (word & 0xffff) + (word >> 16);
}

static __always_inline void fill_udp(struct wire *w)
{
	__u64 flow = n_made % plan.n_flows;
	__u16 port_be = bpf_htons(FLOOD_FIRST_PORT + flow % FLOOD_PORTS), sum;

	w->ip.saddr = bpf_htonl(plan.source + flow / FLOOD_PORTS);
	w->udp.source = port_be;
	sum = checksum(plan.l4_sum + halves(w->ip.saddr) + port_be);
	w->udp.check = sum ? sum : 0xffff;
}

static __always_inline __u32 source_number(void)
{
	return (plan.first + (__u32)n_made) * FLOOD_TURN % plan.n_sources;
}

/* What IPv4 and IPv6 have alike. `source_be`: the word that counts. */
static __always_inline void fill_tcp(void *at, __be32 source_be)
{
	struct {
		struct tcphdr tcp;
	} __attribute__((packed, aligned(2))) *l4 = at;
	__u32 seq = bpf_get_prandom_u32();
	__u16 port_be = bpf_htons(FLOOD_FIRST_PORT + (bpf_get_prandom_u32() >> 16) % FLOOD_PORTS);

	l4->tcp.source = port_be;
	l4->tcp.seq = seq;
	l4->tcp.check = checksum(plan.l4_sum + halves(source_be) + halves(seq) + port_be);
}

static __always_inline int send_v4(struct wire *w)
{
	__builtin_memcpy(w, plan.frame, sizeof(*w));
	if (plan.mode == FLOOD_UDP) {
		fill_udp(w);
	} else {
		w->ip.saddr = bpf_htonl(plan.source + source_number());
		fill_tcp((void *)w + __builtin_offsetof(struct wire, tcp), w->ip.saddr);
	}
	w->ip.check = checksum(plan.ip_sum + halves(w->ip.saddr));
	n_made++;
	return bpf_redirect(plan.ifindex, 0);
}

static __always_inline int send_v6(struct wire6 *w)
{
	__be32 word_be = bpf_htonl(plan.source + source_number() * FLOOD_STRIDE6);

	__builtin_memcpy(w, plan.frame, sizeof(*w));
	w->ip.saddr.in6_u.u6_addr32[FLOOD_WORD6] = word_be;
	fill_tcp((void *)w + __builtin_offsetof(struct wire6, tcp), word_be);
	n_made++;
	return bpf_redirect(plan.ifindex, 0);
}

/* The buffers come back as the last receiver left them: each frame is written anew. */
SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (!is_due())
		return XDP_DROP;
	if (plan.mode == FLOOD_SYN6)
		return data + sizeof(struct wire6) <= end ? send_v6(data) : XDP_ABORTED;
	return data + sizeof(struct wire) <= end ? send_v4(data) : XDP_ABORTED;
}

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

SEC("xdp")
int count(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&counted, &zero);

	if (n)
		*n += 1;
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
