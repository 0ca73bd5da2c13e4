/* SPDX-License-Identifier: GPL-2.0-only OR BSD-3-Clause */
/* The least program that feeds a port: every frame goes to a socket of its queue, bare SYNs of IPv4 to the second one.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Slot of a socket: 2 * queue + class. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

static __always_inline int is_bare_syn(void *at, void *end)
{
	struct ethhdr *eth = at;
	struct vlan_tag *tag = (void *)(eth + 1);
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp;

	if ((void *)(tag + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_8021Q))
		ip = (void *)(tag + 1);
	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP)
		return 0;
	tcp = (void *)(ip + 1);
	return (void *)(tcp + 1) <= end && tcp->syn && !tcp->ack;
}

SEC("xdp")
int redirect(struct xdp_md *ctx)
{
	int class = is_bare_syn((void *)(long)ctx->data, (void *)(long)ctx->data_end);

	return bpf_redirect_map(&sockets, 2 * ctx->rx_queue_index + class, XDP_PASS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
