/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What limiters knew of backends that have none just now: those of the gateway's last life, and those that left their
 * services, perhaps for seconds. A bounded table by (protocol, address, port).
 */
#pragma once

#include "limiter.h"
#include "slots.h"

#define LIMITER_MEMORY_MAX 4096             /* the oldest goes first */
#define LIMITER_MEMORY_NS  3600000000000ull /* what was last seen to be so that long ago is worth nothing */

struct limiter_memory;

struct limiter_known {
	struct slot_info who; /* as of the slot that it had, or none */
	enum limiter_base from;
	struct limiter_past past;
};

/* NULL: out of memory. */
struct limiter_memory *limiter_memory_create(void);
void limiter_memory_destroy(struct limiter_memory *m);

/* Takes a copy, in place of what is known of the same backend, unless it is too old. True: it did. */
bool limiter_memory_put(struct limiter_memory *m, const struct limiter_known *known, uint64_t now_ns);
/* What is known of the backend, as old as it is now, is the caller's; false: nothing is, or it is too old. */
bool limiter_memory_take(struct limiter_memory *m, const struct slot_info *who, uint64_t now_ns,
			 struct limiter_known *out);
/* The same by what people call it ("tcp:198.18.3.21:8080"). */
bool limiter_memory_take_id(struct limiter_memory *m, const char *id, uint64_t now_ns, struct limiter_known *out);
/* All that is not too old, the oldest first; `fn` must leave the memory alone. */
void limiter_memory_foreach(const struct limiter_memory *m, uint64_t now_ns,
			    void (*fn)(void *arg, const struct limiter_known *known), void *arg);
void limiter_memory_clear(struct limiter_memory *m);
