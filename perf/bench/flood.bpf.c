/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/*
 * Two programs of the veth bench: `flood` turns each frame of a live test run into one of a set of flows and sends it
 * out of a device; `count` is where packets end.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
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

/*
 * Set before the run. The template and the sums are of a frame from address 0, port 0, with sequence number 0. Not
 * const: the compiler would copy from the zeros that it sees.
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

static __always_inline void fill_syn(struct wire *w)
{
	__u32 random = bpf_get_prandom_u32();
	__u16 port_be = bpf_htons(FLOOD_FIRST_PORT + (random >> 16) % FLOOD_PORTS);

	w->ip.saddr = bpf_htonl(plan.source + (random & 0xffff) % plan.n_sources);
	w->tcp.source = port_be;
	w->tcp.seq = bpf_get_prandom_u32();
	w->tcp.check = checksum(plan.l4_sum + halves(w->ip.saddr) + halves(w->tcp.seq) + port_be);
}

/* The buffers come back as the last receiver left them: each frame is written anew. */
SEC("xdp")
int flood(struct xdp_md *ctx)
{
	struct wire *w = (void *)(long)ctx->data;

	if ((void *)(w + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	if (!is_due())
		return XDP_DROP;
	__builtin_memcpy(w, plan.frame, sizeof(*w));
	if (plan.mode == FLOOD_UDP)
		fill_udp(w);
	else
		fill_syn(w);
	w->ip.check = checksum(plan.ip_sum + halves(w->ip.saddr));
	n_made++;
	return bpf_redirect(plan.ifindex, 0);
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
