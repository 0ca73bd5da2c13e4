/* SPDX-License-Identifier: BSD-3-Clause */
#include "hold.h"
#include "bucket.h"
#include "memory.h"

#include <assert.h>
#include <errno.h>

static_assert(sizeof(struct hold) == 192, "three lines a hold");
static_assert((uint64_t)HOLD_SLOTS * HOLD_TICK_NS > GCRA_LINE_MAX_NS, "no hold is longer than a turn of the wheel");

static uint32_t n_chains(uint32_t capacity)
{
	uint32_t n = 1;

	while (n < capacity)
		n *= 2;
	return n;
}

uint64_t holds_bytes(uint32_t capacity, uint32_t n_services)
{
	return (uint64_t)capacity * sizeof(struct hold) +
	       ((uint64_t)n_chains(capacity) + 3 * (uint64_t)n_services) * sizeof(uint32_t) +
	       2 * (uint64_t)n_services * sizeof(struct hold_queue);
}

static uint32_t index_of(const struct holds *hs, const struct hold *h)
{
	return h - hs->holds;
}

int holds_init(struct holds *hs, uint32_t capacity, uint32_t n_services, uint64_t now_ns)
{
	*hs = (struct holds){
		.holds = memory_alloc(capacity * sizeof(*hs->holds)),
		.chains = memory_alloc(n_chains(capacity) * sizeof(*hs->chains)),
		.of_service = memory_alloc(n_services * sizeof(*hs->of_service)),
		.queues = memory_alloc(2 * n_services * sizeof(*hs->queues)),
		.waiting = memory_alloc(2 * n_services * sizeof(*hs->waiting)),
		.capacity = capacity,
		.chain_mask = n_chains(capacity) - 1,
		.free = HOLD_NONE,
		.tick = now_ns / HOLD_TICK_NS,
	};
	if (!hs->holds || !hs->chains || !hs->of_service || !hs->queues || !hs->waiting)
		return -ENOMEM;
	for (uint32_t i = 0; i < 2 * n_services; i++)
		for (unsigned rank = 0; rank < HOLD_RANKS; rank++)
			hs->queues[i].ranks[rank].first = hs->queues[i].ranks[rank].last = HOLD_NONE;
	for (uint32_t i = 0; i <= hs->chain_mask; i++)
		hs->chains[i] = HOLD_NONE;
	for (uint32_t i = 0; i < HOLD_SLOTS; i++)
		hs->slots[i].first = hs->slots[i].last = HOLD_NONE;
	for (uint32_t i = capacity; i-- > 0; hs->free = i)
		hs->holds[i].next_in_chain = hs->free;
	return 0;
}

void holds_fini(struct holds *hs)
{
	memory_free(hs->holds);
	memory_free(hs->chains);
	memory_free(hs->of_service);
	memory_free(hs->queues);
	memory_free(hs->waiting);
}

/* --- queues --- */

static uint32_t queue_of(const struct hold *h)
{
	return hold_queue_at(h->service.slot, !ipaddr_is_v4(&h->dst));
}

void hold_queue(struct holds *hs, struct hold *h)
{
	struct hold_queue *q = &hs->queues[queue_of(h)];
	uint32_t *first = &q->ranks[h->rank].first, *last = &q->ranks[h->rank].last;

	assert(!h->queued);
	h->queued = true;
	h->prev_in_queue = *last;
	h->next_in_queue = HOLD_NONE;
	if (*last != HOLD_NONE)
		hs->holds[*last].next_in_queue = index_of(hs, h);
	else
		*first = index_of(hs, h);
	*last = index_of(hs, h);
	if (q->n++ == 0) {
		q->at = hs->n_waiting;
		hs->waiting[hs->n_waiting++] = queue_of(h);
	}
}

bool hold_is_queued(const struct holds *hs, uint32_t queue, enum hold_rank rank)
{
	for (unsigned i = 0; hs->queues[queue].n && i <= rank; i++)
		if (hold_is_queued_of(hs, queue, i))
			return true;
	return false;
}

uint32_t hold_pick_queue(struct holds *hs, uint32_t at, uint32_t behind)
{
	uint32_t picked = hs->waiting[at + behind], other = hs->waiting[at];

	hs->waiting[at + behind] = other;
	hs->queues[other].at = at + behind;
	hs->waiting[at] = picked;
	hs->queues[picked].at = at;
	return picked;
}

enum hold_rank hold_first_rank(const struct holds *hs, uint32_t queue)
{
	enum hold_rank rank = 0;

	while (!hold_is_queued_of(hs, queue, rank))
		rank++;
	return rank;
}

struct hold *hold_queued(const struct holds *hs, uint32_t queue, enum hold_rank rank, bool newest)
{
	return &hs->holds[newest ? hs->queues[queue].ranks[rank].last : hs->queues[queue].ranks[rank].first];
}

static void forget_waiting(struct holds *hs, uint32_t queue)
{
	uint32_t at = hs->queues[queue].at, last = hs->waiting[--hs->n_waiting];

	hs->waiting[at] = last;
	hs->queues[last].at = at;
}

static void leave_queue(struct holds *hs, struct hold *h)
{
	struct hold_queue *q = &hs->queues[queue_of(h)];

	h->queued = false;
	if (h->prev_in_queue != HOLD_NONE)
		hs->holds[h->prev_in_queue].next_in_queue = h->next_in_queue;
	else
		q->ranks[h->rank].first = h->next_in_queue;
	if (h->next_in_queue != HOLD_NONE)
		hs->holds[h->next_in_queue].prev_in_queue = h->prev_in_queue;
	else
		q->ranks[h->rank].last = h->prev_in_queue;
	if (--q->n == 0)
		forget_waiting(hs, queue_of(h));
}

/* --- pool and index --- */

struct hold *hold_add(struct holds *hs, const struct hold *h, uint64_t now_ns)
{
	uint32_t *chain = &hs->chains[h->hash & hs->chain_mask], i = hs->free;
	struct hold *new;

	if (i == HOLD_NONE)
		return NULL;
	/* Nobody looks at an empty wheel, so it may have stood still. */
	if (hs->n == 0)
		hs->tick = now_ns / HOLD_TICK_NS;
	new = &hs->holds[i];
	hs->free = new->next_in_chain;
	*new = *h;
	new->next_in_chain = HOLD_NONE;
	if (!h->shadow) {
		new->next_in_chain = *chain;
		*chain = i;
		hs->n_real++;
	}
	hs->n++;
	hs->of_service[h->service.slot]++;
	return new;
}

static void leave_chain(struct holds *hs, const struct hold *h)
{
	uint32_t *at = &hs->chains[h->hash & hs->chain_mask];

	while (*at != index_of(hs, h))
		at = &hs->holds[*at].next_in_chain;
	*at = h->next_in_chain;
	hs->n_real--;
}

void hold_del(struct holds *hs, struct hold *h)
{
	if (h->queued)
		leave_queue(hs, h);
	if (!h->shadow)
		leave_chain(hs, h);
	hs->n--;
	hs->of_service[h->service.slot]--;
	h->next_in_chain = hs->free;
	hs->free = index_of(hs, h);
}

struct hold *hold_lookup(const struct holds *hs, uint64_t hash, const struct ipaddr *src, const struct ipaddr *dst,
			 uint16_t sport_be, uint16_t dport_be)
{
	for (uint32_t i = hs->chains[hash & hs->chain_mask]; i != HOLD_NONE; i = hs->holds[i].next_in_chain) {
		struct hold *h = &hs->holds[i];

		if (h->hash == hash && h->sport_be == sport_be && h->dport_be == dport_be &&
		    ipaddr_equal(&h->src, src) && ipaddr_equal(&h->dst, dst))
			return h;
	}
	return NULL;
}

/* --- the wheel --- */

void hold_schedule(struct holds *hs, struct hold *h, uint64_t due_ns)
{
	uint64_t tick = (due_ns + HOLD_TICK_NS - 1) / HOLD_TICK_NS;
	uint32_t before, after = HOLD_NONE;

	if (tick < hs->tick)
		tick = hs->tick;
	if (tick >= hs->tick + HOLD_SLOTS)
		tick = hs->tick + HOLD_SLOTS - 1;
	h->slot = tick % HOLD_SLOTS;
	/* Most often it is the latest of its slot. */
	for (before = hs->slots[h->slot].last; before != HOLD_NONE && hs->holds[before].end_ns > h->end_ns;
	     before = hs->holds[before].prev)
		after = before;
	h->prev = before;
	h->next = after;
	if (before != HOLD_NONE)
		hs->holds[before].next = index_of(hs, h);
	else
		hs->slots[h->slot].first = index_of(hs, h);
	if (after != HOLD_NONE)
		hs->holds[after].prev = index_of(hs, h);
	else
		hs->slots[h->slot].last = index_of(hs, h);
}

static struct hold *pop(struct holds *hs, uint32_t slot)
{
	struct hold *h = &hs->holds[hs->slots[slot].first];

	hs->slots[slot].first = h->next;
	if (h->next != HOLD_NONE)
		hs->holds[h->next].prev = HOLD_NONE;
	else
		hs->slots[slot].last = HOLD_NONE;
	return h;
}

static void leave_slot(struct holds *hs, const struct hold *h)
{
	if (h->prev != HOLD_NONE)
		hs->holds[h->prev].next = h->next;
	else
		hs->slots[h->slot].first = h->next;
	if (h->next != HOLD_NONE)
		hs->holds[h->next].prev = h->prev;
	else
		hs->slots[h->slot].last = h->prev;
}

void hold_unqueue(struct holds *hs, struct hold *h)
{
	leave_queue(hs, h);
	leave_slot(hs, h);
}

uint32_t hold_due(struct holds *hs, uint64_t now_ns, uint32_t max, struct hold **due)
{
	uint64_t now = now_ns / HOLD_TICK_NS, last = now;
	uint32_t n = 0;

	/* After a long time without a look all have come, and one turn finds them. */
	if (last >= hs->tick + HOLD_SLOTS)
		last = hs->tick + HOLD_SLOTS - 1;
	for (; hs->n && hs->tick <= last; hs->tick++)
		while (hs->slots[hs->tick % HOLD_SLOTS].first != HOLD_NONE) {
			if (n == max)
				return n;
			due[n++] = pop(hs, hs->tick % HOLD_SLOTS);
		}
	hs->tick = now + 1;
	return n;
}

uint32_t hold_sleep_ms(const struct holds *hs, uint64_t now_ns, uint32_t max_ms)
{
	uint64_t now = now_ns / HOLD_TICK_NS;

	if (hs->n_waiting)
		return max_ms ? 1 : 0;
	for (uint64_t tick = hs->tick; hs->n && tick < now + max_ms; tick++)
		if (hs->slots[tick % HOLD_SLOTS].first != HOLD_NONE)
			return tick > now ? tick - now : 0;
	return max_ms;
}
