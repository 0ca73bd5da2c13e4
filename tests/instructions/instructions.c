/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What callgrind counts: the worker's turns over established flows, 64 Ki packets of each kind, and nothing else. The
 * flows, their order, the secret and the clock are the same each time, so the count is too. Each kind becomes one dump,
 * named "KIND PACKETS".
 */
#include "core.h"
#include "memport.h"
#include "traffic.h"
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <valgrind/callgrind.h>

#define N_FLOWS 1024
#define TURNS   1024
#define TURN_NS 10000

static void fail(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-err));
	exit(1);
}

static void feed(struct traffic *t, const struct traffic_turn *turn, struct rte_mbuf *m[RIG_PORTS][TRAFFIC_BURST])
{
	for (int port = 0; port < RIG_PORTS; port++) {
		for (unsigned i = 0; i < TRAFFIC_BURST; i++)
			traffic_fill(&t->template[port], &turn -> steps[port][i], m[port][i]);
		memport_feed(t->rig->ports[port], 0, RX_KNOWN, m[port], TRAFFIC_BURST);
	}
}

/* Looks at every packet, so that nobody counts the instructions of something wrong. */
static void take(struct traffic *t)
{
	for (int port = 0; port < RIG_PORTS; port++) {
		struct rte_mbuf *m[TRAFFIC_BURST];
		uint16_t n = memport_take(t->rig->ports[port], 0, m, TRAFFIC_BURST);

		for (uint16_t i = 0; i < TRAFFIC_BURST; i++) {
			const char *wrong = i < n ? traffic_check(t, port, m[i]) : "count";

			if (wrong) {
				fprintf(stderr, "%s: wrong %s\n", traffic_kind_name[t->kind], wrong);
				exit(1);
			}
		}
	}
}

static void count(struct traffic *t, const char *what, struct rte_mbuf *m[RIG_PORTS][TRAFFIC_BURST])
{
	struct traffic_turn turn;
	char name[64];

	CALLGRIND_ZERO_STATS;
	for (unsigned i = 0; i < TURNS; i++) {
		traffic_plan(t, &turn, 1);
		feed(t, &turn, m);
		CALLGRIND_TOGGLE_COLLECT;
		worker_run_once(t->rig->worker);
		CALLGRIND_TOGGLE_COLLECT;
		take(t);
		t->rig->now_ns += TURN_NS;
	}
	snprintf(name, sizeof(name), "%s %u", what, TURNS * RIG_PORTS * TRAFFIC_BURST);
	CALLGRIND_DUMP_STATS_AT(name);
}

/* All cures are enforced, but where the name says otherwise. */
static const struct variant {
	const char *name;
	enum traffic_kind kind;
	bool asks;       /* each packet of a client begins an exchange, and each of a backend ends one */
	bool unmeasured; /* wall and storm are off */
} variants[] = {
	{"tcp4", TRAFFIC_TCP4, false, false},   {"tcp4_asks", TRAFFIC_TCP4, true, false},
	{"tcp4_off", TRAFFIC_TCP4, true, true}, {"tcp6", TRAFFIC_TCP6, false, false},
	{"udp4", TRAFFIC_UDP4, false, false},   {"udp6", TRAFFIC_UDP6, false, false},
};

int main(void)
{
	const struct rig_config config = {
		.flows_v4 = 2 * N_FLOWS, .flows_v6 = 2 * N_FLOWS, .n_mbufs = 1023, .n_backends = 8, .n_snat = 1};
	int err = rig_eal((rig_bytes(&config) >> 20) + 32, false, 128);

	if (err)
		fail("DPDK", err);
	for (unsigned v = 0; v < sizeof(variants) / sizeof(variants[0]); v++) {
		const struct variant *variant = &variants[v];
		struct rte_mbuf *m[RIG_PORTS][TRAFFIC_BURST];
		struct traffic traffic;
		struct rig rig;

		err = rig_create(&rig, &config);
		if (variant->unmeasured)
			rig.policy.modes.of[CURE_WALL] = rig.policy.modes.of[CURE_STORM] = CURE_OFF;
		if (!err)
			err = traffic_start(&traffic, &rig, variant->kind, N_FLOWS);
		if (variant->kind == TRAFFIC_TCP4 && !variant->asks)
			traffic_download(&traffic);
		if (!err)
			err = rte_pktmbuf_alloc_bulk(rig.dp->pool, &m[0][0], RIG_PORTS * TRAFFIC_BURST);
		if (err)
			fail(variant->name, err);
		count(&traffic, variant->name, m);
		rte_pktmbuf_free_bulk(&m[0][0], RIG_PORTS * TRAFFIC_BURST);
		traffic_stop(&traffic);
		rig_destroy(&rig);
	}
	return 0;
}
