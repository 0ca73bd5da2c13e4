/* SPDX-License-Identifier: BSD-3-Clause */
/* The insides of shedding.h, for shedding.c, which decides, and shedding_read.c, which others read by. */
#pragma once

#include "hash.h"
#include "seq.h"
#include "shed.h"
#include "shedding.h"

#define BEST_TICKS 10 /* of which the one that let in most counts */

/* What others read is under `seq`, stored by words. */
struct place {
	union {
		struct shedding_row row; /* its packets: those of the place before */
		uint64_t words[(sizeof(struct shedding_row) + 7) / 8];
	};
	uint32_t seq;
	uint32_t used;         /* 0: nobody's */
	uint32_t chain;        /* the next one of its hash */
	uint32_t older, newer; /* in the order in which they were entered last */
};

/* A trouble from its begin to its end, as it is told. */
struct spell {
	uint64_t since_ns; /* 0: there is none */
	uint64_t last_ns;  /* it was so */
	uint64_t packets;  /* discarded before */
	uint64_t clients;  /* entered in it */
};

struct listener {
	struct ipaddr addr;
	uint16_t port_be;
};

struct service {
	struct slot_ref ref;
	char name[64];
	struct shed_counts before; /* of whoever had the slot */
	struct shed_counts counts; /* as of the last tick */
	struct spell clients, all;
	/* Its share: */
	struct listener *listeners; /* that have it */
	size_t n_listeners;
	uint32_t pass;              /* of 2^32; only while n_listeners */
	enum shed_cap cap;          /* by which most of those in vain are refused */
	uint64_t offered, admitted; /* a second, of late */
	/* As of the last tick: */
	uint64_t syns, new_flows, silent_many, silent_rate;
	uint64_t best[BEST_TICKS];
	bool known, seen;
};

struct shedding {
	struct dataplane *dp;
	const struct services *services;
	struct events *events;
	struct shedding_config config;
	uint8_t secret[HASH_SECRET_LEN];
	struct place *places;
	uint32_t *chains; /* by hash */
	uint32_t n_chains;
	uint32_t oldest, newest, first_free;
	struct service *services_at; /* by slot */
	uint64_t clients_until_ns;   /* the dataplane's clock; 0: none */
	uint64_t ended_ns;           /* when all of it was over last; 0: never */
	bool just_ended;             /* since the last tick: the sums of that one are of what it went by before */
	bool sharing;
	uint64_t full, n_used, n_live; /* read by others */
	uint64_t ticked_ns;
	uint64_t now_ns, clock_ns; /* of this call */
};

/* Whoever has one address of a /64 has them all. */
static inline bool shedding_same_client(const struct ipaddr *a, const struct ipaddr *b)
{
	return a->q_be[0] == b->q_be[0] && (a->q_be[1] == b->q_be[1] || !(ipaddr_is_v4(a) || ipaddr_is_v4(b)));
}
