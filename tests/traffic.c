/* SPDX-License-Identifier: BSD-3-Clause */
#include "traffic.h"

#include "core.h"
#include "memport.h"
#include "worker.h"

#include <errno.h>
#include <stdlib.h>

#include <rte_ether.h>
#include <rte_mempool.h>
#include <rte_tcp.h>
#include <rte_udp.h>

const char *const traffic_kind_name[TRAFFIC_KINDS] = {"tcp4", "tcp6", "udp4", "udp6"};

static bool is_v6(const struct traffic *t)
{
	return t->kind == TRAFFIC_TCP6 || t->kind == TRAFFIC_UDP6;
}

static bool is_tcp(const struct traffic *t)
{
	return t->kind == TRAFFIC_TCP4 || t->kind == TRAFFIC_TCP6;
}

/* --- templates --- */

/* The words that a step sets are 0, and the checksums are right for that. */
static void make_template_with(struct traffic *t, enum rig_port port, uint8_t tcp_flags, uint16_t payload_len)
{
	struct traffic_template *template = &t->template[port];
	struct ipaddr zero4 = ipaddr_v4(0), net = {.b = {0x20, 0x01, 0x0d, 0xb8}};
	struct frame_spec spec = {
		.src = is_v6(t) ? net : zero4,
		.dst = is_v6(t) ? net : zero4,
		.proto = is_tcp(t) ? PROTO_TCP : PROTO_UDP,
		.tcp_flags = tcp_flags,
	};
	uint8_t frame[FRAME_MAX];

	spec.src.b[4] = is_v6(t) && port == RIG_WAN ? 0x10 : spec.src.b[4];
	spec.src.b[5] = is_v6(t) && port == RIG_LAN ? 0x03 : spec.src.b[5];
	if (is_v6(t)) {
		spec.dst.b[4] = 0x01;
		spec.dst.b[5] = port == RIG_LAN ? 0x01 : 0x00;
	}
	spec.payload_len = payload_len;
	memset(frame, 0, sizeof(frame));
	template->len = frame_make(&spec, frame);
	memcpy(template->frame, frame, sizeof(template->frame));
	memcpy(template->frame, rig_mac[port], 6);
	memcpy(template->frame + 6, port == RIG_WAN ? rig_router_mac : rig_backend_mac, 6);
	template->src_off = RTE_ETHER_HDR_LEN + (is_v6(t) ? 8 + 12 : 12);
	template->dst_off = RTE_ETHER_HDR_LEN + (is_v6(t) ? 24 + 12 : 16);
	template->l4_off = RTE_ETHER_HDR_LEN + (is_v6(t) ? 40 : 20);
	template->check_off = template->l4_off + (is_tcp(t) ? offsetof(struct rte_tcp_hdr, cksum)
							    : offsetof(struct rte_udp_hdr, dgram_cksum));
}

/* 60 bytes: the shortest frame on a wire, without its checksum. */
static void make_template(struct traffic *t, enum rig_port port, uint8_t tcp_flags)
{
	make_template_with(t, port, tcp_flags, is_v6(t) ? 0 : is_tcp(t) ? 6 : 18);
}

void traffic_download(struct traffic *t)
{
	make_template_with(t, RIG_WAN, RTE_TCP_ACK_FLAG, 0);
}

/* --- steps --- */

static uint32_t last_word(struct ipaddr addr)
{
	return addr.w_be[3];
}

static struct traffic_step step_up(const struct traffic *t, uint32_t flow, uint32_t seq)
{
	return (struct traffic_step){
		.src_be = last_word(rig_client(flow, is_v6(t))),
		.dst_be = last_word(rig_vip(is_v6(t))),
		.sport_be = rig_client_port_be(flow),
		.dport_be = htons(is_tcp(t) ? 80 : 53),
		.seq = seq,
		.ack = seq,
	};
}

static struct traffic_step step_down(const struct traffic *t, uint32_t flow, uint32_t seq)
{
	const struct traffic_flow *f = &t->flows[flow];

	return (struct traffic_step){
		.src_be = is_v6(t) ? htonl(f->backend) : htonl(0xc6120300 | f->backend),
		.dst_be = is_v6(t) ? htonl(f->snat) : htonl(0xc6126500 | f->snat),
		.sport_be = htons(8080),
		.dport_be = f->snat_port_be,
		.seq = seq,
		.ack = seq + f->shift,
	};
}

/* Each step of it can be undone, so no two numbers meet. */
static uint32_t permute(uint64_t x, uint32_t n)
{
	const uint32_t mask = n - 1;
	const int shift = (32 - __builtin_clz(mask)) / 2;

	for (int i = 0; i < 3; i++) {
		x = (x * 0x9e3779b1 + 0x7f4a7c15) & mask;
		x ^= x >> shift;
	}
	return x;
}

void traffic_plan(struct traffic *t, struct traffic_turn *turns, unsigned n)
{
	const uint32_t mask = t->n_flows - 1;

	for (unsigned turn = 0; turn < n; turn++)
		for (unsigned i = 0; i < TRAFFIC_BURST; i++) {
			uint32_t seq = TRAFFIC_ISN + 1 + 6 * (t->position / t->n_flows);
			uint32_t up = permute(t->position & mask, t->n_flows);
			uint32_t down = permute((t->position + t->n_flows / 2) & mask, t->n_flows);

			turns[turn].steps[RIG_WAN][i] = step_up(t, up, seq);
			turns[turn].steps[RIG_LAN][i] = step_down(t, down, seq);
			t->position++;
		}
}

/* --- opening the flows --- */

typedef struct traffic_step (*step_fn)(const struct traffic *t, uint32_t flow, uint32_t seq);

/* Sends a packet of each of n flows, beginning with `first`, into `port`, and takes what leaves through the other. */
static int exchange(struct traffic *t, enum rig_port port, enum rx_class class, step_fn step, uint32_t first,
		    uint32_t seq, struct rte_mbuf *out[TRAFFIC_BURST])
{
	struct rte_mbuf *in[TRAFFIC_BURST];
	uint16_t n;

	if (rte_pktmbuf_alloc_bulk(t->rig->dp->pool, in, TRAFFIC_BURST))
		return -ENOMEM;
	for (unsigned i = 0; i < TRAFFIC_BURST; i++) {
		struct traffic_step s = step(t, first + i, seq);

		traffic_fill(&t->template[port], &s, in[i]);
	}
	memport_feed(t->rig->ports[port], 0, class, in, TRAFFIC_BURST);
	worker_run_once(t->rig->worker);
	t->rig->now_ns += 10000;
	n = memport_take(t->rig->ports[!port], 0, out, TRAFFIC_BURST);
	if (n == TRAFFIC_BURST)
		return 0;
	rte_pktmbuf_free_bulk(out, n);
	return -EIO;
}

static void learn(struct traffic *t, uint32_t first, struct rte_mbuf *const out[TRAFFIC_BURST])
{
	const struct traffic_template *template = &t->template[RIG_WAN];

	for (unsigned i = 0; i < TRAFFIC_BURST; i++) {
		const uint8_t *frame = rte_pktmbuf_mtod(out[i], const uint8_t *);
		struct traffic_flow *f = &t->flows[first + i];
		uint32_t seq_be;

		f->snat = frame[template->src_off + 3];
		f->backend = frame[template->dst_off + 3];
		memcpy(&f->snat_port_be, frame + template->l4_off, 2);
		memcpy(&seq_be, frame + template->l4_off + 4, 4);
		f->shift = is_tcp(t) ? ntohl(seq_be) - TRAFFIC_ISN : 0;
	}
}

static int open_flows(struct traffic *t, enum rig_port port, uint8_t flags, enum rx_class class, uint32_t seq)
{
	make_template(t, port, flags);
	for (uint32_t first = 0; first < t->n_flows; first += TRAFFIC_BURST) {
		struct rte_mbuf *out[TRAFFIC_BURST];
		int err = exchange(t, port, class, port == RIG_WAN ? step_up : step_down, first, seq, out);

		if (err)
			return err;
		if (class == RX_NEW)
			learn(t, first, out);
		rte_pktmbuf_free_bulk(out, TRAFFIC_BURST);
	}
	return 0;
}

/* Or it is something else that is measured. */
static bool all_established(const struct traffic *t)
{
	const struct flow_table *flows = &t->rig->worker->flows;
	const struct flow_pool *pool = is_v6(t) ? &flows->pool6 : &flows->pool4;

	for (uint32_t entry = 0; entry < pool->capacity; entry++) {
		enum flow_state state = flow_half(flows, flow_ref_make(is_v6(t), entry, DIR_UP))->state;

		if (state != FLOW_FREE && state != FLOW_ESTABLISHED)
			return false;
	}
	return true;
}

int traffic_start(struct traffic *t, struct rig *rig, enum traffic_kind kind, uint32_t n_flows)
{
	int err;

	*t = (struct traffic){.rig = rig, .kind = kind, .n_flows = n_flows};
	t->flows = calloc(n_flows, sizeof(*t->flows));
	if (!t->flows)
		return -ENOMEM;
	/*
	 * Both sides acknowledge the other one's number as if it were their own, which means nothing in a SYN. The
	 * SYN-ACK acknowledges what it should because backends begin one after their clients, and the ACK because it
	 * comes from one further on, as if a byte had been lost before it.
	 */
	err = open_flows(t, RIG_WAN, RTE_TCP_SYN_FLAG, RX_NEW, TRAFFIC_ISN);
	if (!err)
		err = open_flows(t, RIG_LAN, RTE_TCP_SYN_FLAG | RTE_TCP_ACK_FLAG, RX_KNOWN, TRAFFIC_ISN + 1);
	if (!err)
		err = open_flows(t, RIG_WAN, RTE_TCP_ACK_FLAG, RX_KNOWN, TRAFFIC_ISN + 2);
	make_template(t, RIG_WAN, RTE_TCP_ACK_FLAG | RTE_TCP_PSH_FLAG);
	make_template(t, RIG_LAN, RTE_TCP_ACK_FLAG | RTE_TCP_PSH_FLAG);
	return err || !is_tcp(t) || all_established(t) ? err : -EIO;
}

void traffic_stop(struct traffic *t)
{
	free(t->flows);
	t->flows = NULL;
}

/* --- checking --- */

static bool l4_checksum_ok(const uint8_t *ip, bool v6, bool tcp)
{
	const uint8_t *l4 = ip + (v6 ? 40 : 20);
	uint8_t copy[256];
	uint16_t *check = (uint16_t *)(copy + (tcp ? 16 : 6)), want;
	uint16_t len = v6 ? ntohs(((const struct rte_ipv6_hdr *)ip)->payload_len)
			  : ntohs(((const struct rte_ipv4_hdr *)ip)->total_length) - 20;

	memcpy(copy, ip, (v6 ? 40 : 20) + len);
	check = (uint16_t *)(copy + (l4 - ip) + (tcp ? 16 : 6));
	want = *check;
	*check = 0;
	return want ==
	       (v6 ? rte_ipv6_udptcp_cksum((void *)copy, copy + 40) : rte_ipv4_udptcp_cksum((void *)copy, copy + 20));
}

const char *traffic_check(const struct traffic *t, enum rig_port port, struct rte_mbuf *m)
{
	const struct traffic_template *template = &t->template[port];
	const uint8_t *frame = rte_pktmbuf_mtod(m, const uint8_t *), *ip = frame + RTE_ETHER_HDR_LEN;
	uint16_t sport_be, dport_be;

	memcpy(&sport_be, frame + template->l4_off, 2);
	memcpy(&dport_be, frame + template->l4_off + 2, 2);
	if (m->data_len != t->template[!port].len)
		return "length";
	if (memcmp(frame + 6, rig_mac[port], 6))
		return "source MAC";
	if (memcmp(frame, port == RIG_WAN ? rig_router_mac : rig_backend_mac, 5))
		return "destination MAC";
	if (ip[is_v6(t) ? 7 : 8] != 63)
		return "TTL";
	if (!is_v6(t) && rte_raw_cksum(ip, 20) != 0xffff)
		return "IPv4 checksum";
	if (!l4_checksum_ok(ip, is_v6(t), is_tcp(t)))
		return "transport checksum";
	if (port == RIG_LAN)
		return dport_be == htons(8080) ? NULL : "backend port";
	return sport_be == htons(is_tcp(t) ? 80 : 53) ? NULL : "VIP port";
}
