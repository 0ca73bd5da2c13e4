/* SPDX-License-Identifier: BSD-3-Clause */
#include "place.h"
#include "note.h"
#include "outcome_worker.h"
#include "pressure.h"
#include "signals.h"
#include "udp.h"
#include "wall.h"

#include <assert.h>

struct flow_key4 place_down4(const struct worker *w, const struct policy_backend *backend, unsigned snat,
			     uint16_t snat_port_be)
{
	return (struct flow_key4){
		.src_be = ipaddr_v4_be(&backend->addr),
		.dst_be = ipaddr_v4_be(&w->dp->snat.addr[snat]),
		.sport_be = backend->port_be,
		.dport_be = snat_port_be,
	};
}

struct flow_key6 place_down6(const struct worker *w, const struct policy_backend *backend, unsigned snat,
			     uint16_t snat_port_be)
{
	struct flow_key6 down = {.sport_be = backend->port_be, .dport_be = snat_port_be};

	memcpy(down.src, backend->addr.b, 16);
	memcpy(down.dst, w->dp->snat.addr[snat].b, 16);
	return down;
}

static flow_ref add_v4(struct worker *w, const struct item *it, const struct policy_backend *backend, unsigned snat,
		       uint16_t snat_port_be)
{
	const struct flow_key4 up = {
		.src_be = packet_src4_be(it->frame, &it->p),
		.dst_be = packet_dst4_be(it->frame, &it->p),
		.sport_be = it->p.sport_be,
		.dport_be = it->p.dport_be,
	};
	const struct flow_key4 down = place_down4(w, backend, snat, snat_port_be);

	return flow_add4(&w->flows, &up, &down, it->p.proto);
}

static flow_ref add_v6(struct worker *w, const struct item *it, const struct policy_backend *backend, unsigned snat,
		       uint16_t snat_port_be)
{
	const struct rte_ipv6_hdr *ip = packet_ip6(it->frame, &it->p);
	struct flow_key6 up = {.sport_be = it->p.sport_be, .dport_be = it->p.dport_be};
	const struct flow_key6 down = place_down6(w, backend, snat, snat_port_be);

	memcpy(up.src, ip->src_addr, 16);
	memcpy(up.dst, ip->dst_addr, 16);
	return flow_add6(&w->flows, &up, &down, it->p.proto);
}

bool place_take_port(struct worker *w, bool v4, uint64_t hash, uint32_t backend_slot, unsigned *snat, uint16_t *port_be)
{
	const struct snat_addresses *s = &w->dp->snat;
	enum snat_news news;

	for (unsigned i = 0; i < s->n; i++) {
		*snat = ((uint32_t)hash + i) % s->n;
		if (ipaddr_is_v4(&s->addr[*snat]) != v4)
			continue;
		*port_be = snat_take(&w->snat, *snat, backend_slot, w->run_ms, &news);
		if (__builtin_expect(news != SNAT_NO_NEWS, 0))
			note_add(w, &(struct note){
					    .kind = NOTE_PORTS,
					    .ports = {backend_slot, *snat, w->snat.n_ports, news == SNAT_EXHAUSTED}});
		if (*port_be)
			return true;
	}
	return false;
}

#define RECLAIM_LOOKS     8 /* ports of an address that are looked at, in the order in which they were taken */
#define RECLAIM_ADDRESSES 2 /* whose ports a SYN has looked at */

static flow_ref flow_at(const struct worker *w, const struct policy_backend *backend, unsigned snat, uint16_t port_be)
{
	if (ipaddr_is_v4(&backend->addr)) {
		struct flow_key4 down = place_down4(w, backend, snat, port_be);

		return flow_lookup4(&w->flows, &down, PROTO_TCP, flow_hash4(&down, PROTO_TCP, w->flows.secret));
	}
	struct flow_key6 down = place_down6(w, backend, snat, port_be);

	return flow_lookup6(&w->flows, &down, PROTO_TCP, flow_hash6(&down, PROTO_TCP, w->flows.secret));
}

/* A packet that waits to be tracked goes by the entry that it found. */
static bool is_in_burst(const struct worker *w, flow_ref ref)
{
	for (unsigned i = 0; i < w->burst.n; i++)
		if (w->burst.items[i].ref != FLOW_REF_NONE && flow_ref_up(w->burst.items[i].ref) == flow_ref_up(ref))
			return true;
	return false;
}

static bool is_over(const struct worker *w, flow_ref ref)
{
	enum flow_state state = flow_half(&w->flows, ref)->state;

	return state == FLOW_TIME_WAIT || state == FLOW_CLOSED;
}

/* False: none of the next few. Then they are not looked at again before all others. */
static bool reclaim_of(struct worker *w, const struct policy_backend *backend, unsigned snat)
{
	for (uint32_t i = 0; i < RECLAIM_LOOKS; i++) {
		flow_ref ref = flow_at(w, backend, snat, snat_taken(&w->snat, snat, backend->ref.slot, i));

		if (ref != FLOW_REF_NONE && is_over(w, ref) && !is_in_burst(w, ref)) {
			flow_end(w, flow_ref_up(ref), true);
			return true;
		}
	}
	snat_skip(&w->snat, snat, backend->ref.slot, RECLAIM_LOOKS);
	return false;
}

/*
 * Where every port is taken, one whose connection is over may be used again at once: its entry only waits for what
 * might come late, and the numbers of the next one lie ahead. Some are looked at for each SYN, by turns of the
 * addresses: a flood costs no more than that, and whoever comes again finds others looked at.
 */
static void reclaim_port(struct worker *w, const struct policy_backend *backend)
{
	const struct snat_addresses *s = &w->dp->snat;
	bool v4 = ipaddr_is_v4(&backend->addr);
	unsigned looked_at = 0;

	for (unsigned snat = 0; snat < s->n; snat++)
		if (ipaddr_is_v4(&s->addr[snat]) == v4 && !snat_is_exhausted(&w->snat, snat, backend->ref.slot))
			return;
	for (unsigned i = 0; i < s->n && looked_at < RECLAIM_ADDRESSES; i++) {
		unsigned snat = w->reclaim_turn++ % s->n;

		if (ipaddr_is_v4(&s->addr[snat]) != v4)
			continue;
		if (reclaim_of(w, backend, snat))
			return;
		looked_at++;
	}
}

static uint32_t first_timeout_ms(const struct worker *w, const struct item *it, const struct policy_timeouts *t)
{
	if (it->p.proto == PROTO_UDP)
		return udp_timeout_ms(w, it->ref, FLOW_UDP_UNREPLIED, t);
	return pressure_timeout_ms(w, it->p.family == 6, FLOW_SYN_SENT, t->syn_sent_ms);
}

static_assert(2 * CURES <= 10, "the modes of all cures: flow_track");

/* The entry is made; the rest cannot fail. */
static void begin(struct worker *w, const struct item *it, const struct policy *policy,
		  const struct policy_service *svc, uint32_t backend_slot, unsigned snat, uint16_t snat_port_be)
{
	struct flow_track *track = flow_track(&w->flows, it->ref);

	track->modes = cure_pack(&policy->modes);
	track->service_slot = svc->ref.slot;
	track->backend_slot = backend_slot;
	track->snat_index = snat;
	track->snat_port_be = snat_port_be;
	if (svc->udp6_zero && it->p.proto == PROTO_UDP && it->p.family == 6)
		udp_begin_zero(w, track);
	flow_half(&w->flows, it->ref)->last_ms = w->run_ms;
	flow_half(&w->flows, flow_ref_other(it->ref))->last_ms = w->run_ms;
	flow_cold(&w->flows, it->ref)->born_ms = w->now_ns / 1000000;
	flow_put_state(&w->flows, it->ref, it->p.proto == PROTO_TCP ? FLOW_SYN_SENT : FLOW_UDP_UNREPLIED);
	track->timeout_ms = first_timeout_ms(w, it, &svc->timeouts);
	if (it->p.proto == PROTO_TCP)
		signals_begin(w, it->ref);
	if (it->p.proto == PROTO_TCP && policy->modes.of[CURE_WALL] != CURE_OFF)
		wall_begin(w, it);
	wheel_add(&w->wheel, &w->flows, it->ref, w->run_ms);
	count_add(&w->backends[track->backend_slot].users, 1);
	count_add(&w->backends[track->backend_slot].new_flows, 1);
	count_add(&w->services[track->service_slot].users, 1);
	count_add(&w->services[track->service_slot].new_flows, 1);
}

enum place_result place(struct worker *w, struct item *it, const struct policy *policy,
			const struct policy_service *svc, const struct policy_backend *backend)
{
	bool v6 = it->p.family == 6;
	uint16_t port_be;
	unsigned snat;

	if (!flow_room(&w->flows, v6))
		return PLACE_TABLE_FULL;
	if (__builtin_expect(w->snat.n_full && it->p.proto == PROTO_TCP, 0))
		reclaim_port(w, backend);
	if (!place_take_port(w, !v6, it->hash, backend->ref.slot, &snat, &port_be))
		return PLACE_PORTS_EXHAUSTED;
	it->ref = v6 ? add_v6(w, it, backend, snat, port_be) : add_v4(w, it, backend, snat, port_be);
	if (it->ref == FLOW_REF_NONE) {
		snat_give_back(&w->snat, snat, backend->ref.slot, port_be);
		return PLACE_TABLE_FULL;
	}
	begin(w, it, policy, svc, backend->ref.slot, snat, port_be);
	return PLACE_OK;
}

void flow_roll_up(struct worker *w, flow_ref ref)
{
	uint32_t slot = flow_track(&w->flows, ref)->backend_slot;
	const struct flow_half *down = flow_half(&w->flows, ref | DIR_DOWN);
	struct backend_cell *cell = &w->backends[slot];
	struct flow_cold *cold = flow_cold(&w->flows, ref);

	if (down->packets)
		wall_heard(w, slot, (uint32_t)w->run_ms - down->last_ms);
	for (enum flow_dir dir = DIR_UP; dir < DIRS; dir++) {
		struct flow_half *half = flow_half(&w->flows, flow_ref_up(ref) | dir);

		count_add(&cell->packets[dir], half->packets);
		count_add(&cell->bytes[dir], half->bytes);
		cold->packets[dir] += half->packets;
		cold->bytes[dir] += half->bytes;
		half->packets = 0;
		half->bytes = 0;
	}
}

/* The backend closed first, and its TIME_WAIT is not over: most flows last as long as that themselves. */
static bool is_time_wait_left(const struct worker *w, flow_ref ref, const struct flow_track *track)
{
	enum flow_state state = flow_half(&w->flows, ref)->state;

	return track->marks & FLOW_MARK_BACKEND_CLOSED && state >= FLOW_FIN_WAIT && state <= FLOW_TIME_WAIT &&
	       flow_idle_ms(&w->flows, ref, w->run_ms) < SNAT_REST_MS;
}

static void leave_port(struct worker *w, flow_ref ref, const struct flow_track *track)
{
	if (is_time_wait_left(w, ref, track))
		snat_lay_to_rest(&w->snat, track->snat_index, track->backend_slot, track->snat_port_be, w->run_ms);
	else
		snat_give_back(&w->snat, track->snat_index, track->backend_slot, track->snat_port_be);
}

void flow_end(struct worker *w, flow_ref ref, bool wheel)
{
	struct flow_track *track = flow_track(&w->flows, ref);

	flow_roll_up(w, ref);
	wall_leave(w, ref);
	signals_over(w, ref);
	outcome_ended(w, ref);
	if (wheel)
		wheel_del(&w->wheel, &w->flows, flow_ref_up(ref));
	leave_port(w, ref, track);
	place_leave_slot(&w->services[track->service_slot].users);
	place_leave_slot(&w->backends[track->backend_slot].users);
	flow_del(&w->flows, ref);
}
