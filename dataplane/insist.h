/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients that insist: whose SYNs a cap of their own, or of their prefix, refuses in silence again and again. Decide is
 * told, and has their SYNs discarded before they come to a worker: until the bucket that refuses them has half of its
 * burst again, so that they lose nothing of what it would give them, and for a second at the most after their last one
 * that came here: who sends no more than its kernel does is heard with its second SYN.
 *
 * A note is left for one that insisted within a second, and again each time it is heard after that; so many a second,
 * which leaves the ring to others. What a client costs is a place of a few, which is another's once its second is over.
 */
#pragma once

#include "bucket.h"
#include "policy.h"

#include <stdint.h>

struct worker;

#define INSIST_PLACES 1024 /* a power of two */
#define INSIST_TIMES  64   /* silent refusals within a second */
#define INSIST_MAX_NS 1000000000ull

struct insist_place {
	uint64_t tag; /* of the client at a listener */
	uint64_t since_ns;
	uint64_t told_until_ns; /* decide knows of it */
	uint32_t n;             /* since then */
};

struct insist {
	struct gcra_rate note_rate;
	struct gcra notes;
	struct insist_place places[INSIST_PLACES];
};

/* Who was refused, and where. */
struct insist_attempt {
	struct ipaddr client, vip;
	uint16_t port_be;
	enum storm_cap cap; /* STORM_CLIENT or STORM_PREFIX */
	uint64_t ago_ns;    /* at the most: it may have been held */
};

/* 0 or -errno: a constant is wrong. */
int insist_init(struct insist *in);

/*
 * A SYN was refused in silence; `wait_ns`: until its cap lets the next one through or holds it, as far as can be told
 * now.
 */
void insist_silenced(struct worker *w, const struct policy_service *svc, const struct insist_attempt *attempt,
		     uint64_t wait_ns);
