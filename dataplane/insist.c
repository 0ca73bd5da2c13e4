/* SPDX-License-Identifier: BSD-3-Clause */
#include "insist.h"
#include "core.h"
#include "hash.h"
#include "note.h"

#include <string.h>

#define SECOND_NS     1000000000ull
#define NOTES_PER_S   4000
#define NOTES_AT_ONCE 64

int insist_init(struct insist *in)
{
	return gcra_rate_init(&in->note_rate, NOTES_PER_S, SECOND_NS, NOTES_AT_ONCE - 1);
}

static uint64_t tag_of(const struct worker *w, const struct insist_attempt *a)
{
	struct {
		struct ipaddr client, vip;
		uint64_t port_be;
	} key = {a->client, a->vip, a->port_be};

	/* Whoever has one address of a /64 has them all. */
	if (!ipaddr_is_v4(&a->client))
		key.client.q_be[1] = 0;
	return hash_keyed(&key, sizeof(key), w->dp->config.secret);
}

/* Whose second is over has the place no longer, and who is refused more often than others keeps it from them. */
static struct insist_place *place_of(struct insist *in, uint64_t tag, uint64_t now_ns)
{
	struct insist_place *p = &in->places[tag & (INSIST_PLACES - 1)];

	if (p->tag == tag || (now_ns - p->since_ns < SECOND_NS && p->n && p->n--))
		return p;
	*p = (struct insist_place){.tag = tag, .since_ns = now_ns};
	return p;
}

static bool tell(struct worker *w, const struct policy_service *svc, const struct insist_attempt *a, uint64_t until_ns)
{
	struct note note = {
		.kind = NOTE_INSISTS,
		.insists = {a->client, a->vip, svc->ref, w->now_ns, until_ns, a->port_be, a->cap},
	};

	if (!gcra_test(&w->insist.notes, &w->insist.note_rate, w->now_ns) || !note_add(w, &note))
		return false;
	gcra_take(&w->insist.notes, &w->insist.note_rate, w->now_ns);
	return true;
}

void insist_silenced(struct worker *w, const struct policy_service *svc, const struct insist_attempt *attempt,
		     uint64_t wait_ns)
{
	uint64_t burst_ns = svc->storm.caps[attempt->cap].tolerance >> GCRA_FRACTION_BITS;
	uint64_t tag = tag_of(w, attempt), shed_ns = wait_ns + burst_ns / 2;
	struct insist_place *p = place_of(&w->insist, tag, w->now_ns);

	if (p->tag != tag)
		return;
	if (w->now_ns - p->since_ns >= SECOND_NS) {
		p->since_ns = w->now_ns;
		p->n = 0;
	}
	if (++p->n < INSIST_TIMES || w->now_ns < p->told_until_ns)
		return;
	if (attempt->ago_ns >= INSIST_MAX_NS)
		return;
	if (shed_ns > INSIST_MAX_NS - attempt->ago_ns)
		shed_ns = INSIST_MAX_NS - attempt->ago_ns;
	if (tell(w, svc, attempt, w->now_ns + shed_ns))
		p->told_until_ns = w->now_ns + shed_ns;
}
