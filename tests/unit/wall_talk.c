/* SPDX-License-Identifier: BSD-3-Clause */
#include "wall_talk.h"

#include "select.h"

#include <netinet/in.h>
#include <string.h>

uint32_t slot_of(bool v6, const struct ipaddr *backend)
{
	return (v6 ? SET_PROTOS * RIG_BACKENDS_MAX : 0) + backend->b[15] - 1;
}

uint64_t *word_of(bool v6, const struct ipaddr *backend)
{
	return &rig.dp->cells.backends[slot_of(v6, backend)].breaker;
}

struct streak streak_of(bool v6, const struct ipaddr *backend)
{
	return streak_read(*word_of(v6, backend));
}

struct backend_report report_of(bool v6, const struct ipaddr *backend)
{
	struct backend_report r;

	observe_backend(rig.dp, slot_of(v6, backend), &r);
	return r;
}

void set_breaker(bool v6, unsigned backend, enum breaker_state st)
{
	*word_of(v6, &rig.backends[v6][SET_TCP][backend].addr) = streak_word(&(struct streak){.state = st});
}

uint64_t made(enum made m)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += rig.dp->workers[i]->ledger.made[m];
	return n;
}

uint32_t n_tuples(void)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < n_workers; i++)
		n += tuples_count(&rig.dp->workers[i]->tuples);
	return n;
}

unsigned take_notes(uint32_t *slot)
{
	struct note notes[64];
	unsigned n = 0;
	size_t got;

	while ((got = dataplane_notes(rig.dp, notes, 64)))
		for (size_t i = 0; i < got; i++)
			if (notes[i].kind == NOTE_BACKEND) {
				*slot = notes[i].backend.slot;
				n++;
			}
	return n;
}

void begin_rig_at(uint64_t now_ns, unsigned workers, unsigned n_backends)
{
	start((struct rig_config){
		.n_backends = n_backends,
		.n_workers = workers,
		.flows_v4 = 8192,
		.flows_v6 = 8192,
		.n_snat = 2,
		.now_ns = now_ns,
	});
}

void begin_rig(unsigned workers, unsigned n_backends)
{
	begin_rig_at(0, workers, n_backends);
}

/* --- what happens to SYNs --- */

void fix_tcp(uint8_t *frame, bool v6)
{
	struct rte_tcp_hdr *tcp = (void *)(frame + ETH + (v6 ? 40 : 20));

	tcp->cksum = 0;
	tcp->cksum = v6 ? rte_ipv6_udptcp_cksum((void *)(frame + ETH), tcp)
			: rte_ipv4_udptcp_cksum((void *)(frame + ETH), tcp);
}

size_t make_syn(uint8_t *frame, const struct talk *t, uint8_t flags, const uint8_t *options, unsigned len)
{
	struct frame_spec spec = with_payload(from_client(t, TCP_SYN | flags, ISN, 0), len);
	size_t frame_len = frame_make(&spec, frame);
	uint8_t *tcp = frame + ETH + (t->v6 ? 40 : 20);

	/* The payload becomes options. */
	if (len)
		memcpy(tcp + 20, options, len);
	tcp[12] = (20 + len) / 4 << 4;
	fix_tcp(frame, t->v6);
	return frame_len;
}

struct frame_spec refusal(const struct talk *t)
{
	return from_backend(t, TCP_RST | TCP_ACK, 0, ISN + 1);
}

struct frame_spec syn_ack(const struct talk *t)
{
	return from_backend(t, TCP_SYN | TCP_ACK, PEER, ISN + 1);
}

struct talk moved(const struct talk *t, const struct sent *s)
{
	struct ipaddr before = t->backend;
	struct talk now = *t;

	assert_int_equal(s->p.tcp_flags, TCP_SYN);
	assert_int_equal(seq(s), ISN);
	learn(&now, s);
	assert_false(ipaddr_equal(&before, &now.backend));
	return now;
}

struct talk take_moved(const struct talk *t)
{
	struct sent s;

	take_right(&s);
	return moved(t, &s);
}

struct talk refuse(const struct talk *t)
{
	struct sent s = exchange(RIG_LAN, refusal(t));

	return moved(t, &s);
}

void finish(const struct talk *t)
{
	struct sent s = exchange(RIG_LAN, syn_ack(t));

	assert_int_equal(s.port, RIG_WAN);
	assert_int_equal(seq(&s), PEER);
	assert_int_equal(s.p.dport_be, rig_client_port_be(t->client));
	s = exchange(RIG_WAN, from_client(t, TCP_ACK, ISN + 1, PEER + 1));
	assert_int_equal(s.port, RIG_LAN);
	assert_int_equal(s.p.sport_be, t->snat_port_be);
	s = exchange(RIG_WAN, with_payload(from_client(t, TCP_ACK, ISN + 1, PEER + 1), 100));
	assert_int_equal(s.p.sport_be, t->snat_port_be);
	s = exchange(RIG_LAN, with_payload(from_backend(t, TCP_ACK, PEER + 1, ISN + 101), 200));
	assert_int_equal(s.port, RIG_WAN);
}

unsigned warm_up(bool v6, unsigned client)
{
	for (unsigned i = 0; i < 100; i++, client++)
		establish(v6, client);
	return client;
}

uint64_t ms_until_sent(struct sent *s, uint64_t max_ms)
{
	for (uint64_t ms = 0; ms < max_ms; ms++) {
		rig.now_ns += 1000000;
		turn();
		if (take(s)) {
			assert_null(frame_checksum_error(s->frame));
			return ms + 1;
		}
	}
	return UINT64_MAX;
}

struct talk begin_to(const struct ipaddr *backend, bool v6, unsigned *client)
{
	const struct policy_set *set = &rig.service.sets[v6][SET_TCP];

	for (;; (*client)++) {
		struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = *client};
		struct frame_spec spec = from_client(&t, TCP_SYN, ISN, 0);
		const struct policy_backend *first;

		if (v6) {
			struct flow_key6 key = {.sport_be = spec.sport_be, .dport_be = spec.dport_be};

			memcpy(key.src, spec.src.b, 16);
			memcpy(key.dst, spec.dst.b, 16);
			first = select_backend(set, flow_hash6(&key, PROTO_TCP, rig.worker->flows.secret));
		} else {
			struct flow_key4 key = {.src_be = ipaddr_v4_be(&spec.src),
						.dst_be = ipaddr_v4_be(&spec.dst),
						.sport_be = spec.sport_be,
						.dport_be = spec.dport_be};

			first = select_backend(set, flow_hash4(&key, PROTO_TCP, rig.worker->flows.secret));
		}
		if (!ipaddr_equal(&first->addr, backend))
			continue;
		return begin(PROTO_TCP, v6, (*client)++);
	}
}

void order_probe(bool v6, unsigned worker, unsigned backend)
{
	const struct policy_backend *b = &rig.backends[v6][SET_TCP][backend];

	assert_true(dataplane_order(rig.dp, worker, &(struct order){ORDER_PROBE, b->ref.slot, b->addr, b->port_be}));
}
