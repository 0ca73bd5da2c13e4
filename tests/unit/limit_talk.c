/* SPDX-License-Identifier: BSD-3-Clause */
#include "limit_talk.h"

void begin_limits(unsigned workers, unsigned n_backends, uint32_t n_holds)
{
	start((struct rig_config){.flows_v4 = 1024,
				  .flows_v6 = 1024,
				  .n_backends = n_backends,
				  .n_workers = workers,
				  .n_holds = n_holds});
	rig.service.storm.hold_ns = 900 * MS;
}

void limit_all(uint32_t limit, uint32_t pace)
{
	const uint32_t n = limit ? rig.dp->config.n_backend_slots : 0;
	const struct service_limit of_service = {
		.n_limits = n, .n_congested = limit & LIMIT_SOFT ? 0 : n, .hold_ms = HOLD_MS, .pace = pace};

	for (uint32_t slot = 0; slot < rig.dp->config.n_backend_slots; slot++)
		dataplane_backend_limit(rig.dp, slot, limit);
	dataplane_service_limit(rig.dp, 0, &of_service);
}

void ask(bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};

	feed(RIG_WAN, from_client(&t, TCP_SYN, ISN, 0));
	turn();
}

struct talk went(bool v6, unsigned client)
{
	struct talk t = {.v6 = v6, .proto = PROTO_TCP, .client = client};
	struct ipaddr asked = rig_client(client, v6), hears;
	struct sent s;

	take_right(&s);
	learn(&t, &s);
	assert_int_equal(s.p.tcp_flags, TCP_SYN);
	/* It is that client's: it alone hears the answer. */
	s = exchange(RIG_LAN, from_backend(&t, TCP_SYN | TCP_ACK, PEER, ISN + 1));
	hears = packet_dst(s.frame, &s.p);
	assert_true(ipaddr_equal(&hears, &asked));
	exchange(RIG_WAN, from_client(&t, TCP_ACK, ISN + 1, PEER + 1));
	return t;
}
