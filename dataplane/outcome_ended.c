/* SPDX-License-Identifier: BSD-3-Clause */
#include "outcome_ended.h"
#include "memory.h"
#include "observe_worker.h"

#include <errno.h>

static_assert(sizeof(struct ended_flow) % 8 == 0, "copied by words");

uint64_t ended_ring_bytes(uint32_t n)
{
	return (uint64_t)n * sizeof(struct ended_flow);
}

int ended_ring_init(struct ended_ring *r, uint32_t n)
{
	*r = (struct ended_ring){.flows = memory_alloc(n * sizeof(*r->flows)), .mask = n - 1};
	return r->flows ? 0 : -ENOMEM;
}

void ended_ring_fini(struct ended_ring *r)
{
	memory_free(r->flows);
	r->flows = NULL;
}

void ended_add(struct ended_ring *r, const struct ended_flow *flow)
{
	uint64_t n = r->done;

	__atomic_store_n(&r->begun, n + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	observe_store_words(&r->flows[n & r->mask], flow, sizeof(*flow));
	__atomic_store_n(&r->done, n + 1, __ATOMIC_RELEASE);
}

/* The n-th ever. False: overwritten, or about to be. */
static bool copy_flow(const struct ended_ring *r, uint64_t n, struct ended_flow *out)
{
	observe_load_words(out, &r->flows[n & r->mask], sizeof(*out));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(&r->begun, __ATOMIC_RELAXED) <= n + r->mask + 1;
}

bool ended_read(const struct ended_ring *r, bool (*fn)(void *arg, const struct ended_flow *flow), void *arg,
		uint32_t *oldest_cs)
{
	uint64_t done = __atomic_load_n(&r->done, __ATOMIC_ACQUIRE), size = (uint64_t)r->mask + 1;
	uint64_t first = done > size ? done - size : 0;
	struct ended_flow flow;
	bool more = true;

	for (uint64_t n = done; n > first && copy_flow(r, n - 1, &flow); n--) {
		*oldest_cs = flow.ended_cs;
		if (more)
			more = fn(arg, &flow);
	}
	return done > size;
}
