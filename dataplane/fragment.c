/* SPDX-License-Identifier: BSD-3-Clause */
/* Not stable by DPDK's word, but there in the version that we build with: it copies, into one buffer each. */
#define ALLOW_EXPERIMENTAL_API
#include "fragment.h"
#include "tx.h"

#include <errno.h>
#include <limits.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_ip_frag.h>
#include <rte_mbuf.h>

#define FRAGMENTS_MAX 16 /* of the longest packet, at an MTU of 256 */

/*
 * Its sender numbered the packet for itself, and others behind our address use the same numbers. Ours are of one row
 * per worker, so that none comes back before all others of that worker's share were used (RFC 6864 4.3).
 */
static uint16_t next_id_be(struct worker *w)
{
	unsigned share = 65536 / w->dp->config.n_workers, id = w->index * share + w->fragmented;

	w->fragmented = w->fragmented + 1u < share ? w->fragmented + 1 : 0;
	return htons(id);
}

static void finish(struct rte_mbuf *m, const struct rte_ether_hdr *ethernet)
{
	struct rte_ipv4_hdr *ip = rte_pktmbuf_mtod(m, struct rte_ipv4_hdr *);

	ip->hdr_checksum = 0;
	ip->hdr_checksum = rte_ipv4_cksum(ip);
	memcpy(rte_pktmbuf_prepend(m, sizeof(*ethernet)), ethernet, sizeof(*ethernet));
	m->ol_flags = 0;
}

enum verdict fragment_send(struct worker *w, struct item *it)
{
	const struct rte_ether_hdr ethernet = *(const struct rte_ether_hdr *)it->frame;
	struct rte_ipv4_hdr *ip = (void *)(it->frame + RTE_ETHER_HDR_LEN);
	struct rte_mbuf *fragments[FRAGMENTS_MAX];
	int n;

	ip->packet_id = next_id_be(w);
	rte_pktmbuf_adj(it->m, RTE_ETHER_HDR_LEN);
	n = rte_ipv4_fragment_copy_nonseg_packet(it->m, fragments, FRAGMENTS_MAX, flow_half(&w->flows, it->ref)->mtu,
						 w->dp->pool);
	if (n < 0)
		return n == -ENOMEM ? VERDICT_drop_no_buffer : VERDICT_drop_too_big;
	rte_pktmbuf_free(it->m);
	for (int i = 0; i < n; i++) {
		finish(fragments[i], &ethernet);
		tx_put(w, it->out_port, fragments[i]);
	}
	w->ledger.made[MADE_fragment] += n - 1;
	return VERDICT_forwarded_fragments;
}
