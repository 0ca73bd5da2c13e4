/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is known of backends that have no slot just now: DNS may drop one for seconds, and it is no less dead when it
 * comes back. A bounded table by (protocol, address, port), which says what goes.
 */
#pragma once

#include "breaker.h"
#include "slots.h"
#include "streak.h"

#define BREAKER_MEMORY_MAX 1024            /* the oldest goes first; an operator's word last */
#define BREAKER_MEMORY_NS  600000000000ull /* that long they are kept; an operator's word until he takes it back */

struct breaker_memory;

struct breaker_past {
	struct slot_info who; /* as of the slot that it had */
	uint64_t left_ns;     /* when that was given away */
	struct streak streak; /* without answers, and without its side's mark */
	struct breaker breaker;
	bool soft, told; /* as in struct backend */
	uint32_t n_untold;
	uint64_t opened_ns;
	char evidence[BREAKER_EVIDENCE_LEN];
};

/* Told of each that is forgotten before it came back. */
typedef void breaker_forgotten_fn(void *arg, const struct breaker_past *past);

/* NULL with errno set. */
struct breaker_memory *breaker_memory_create(breaker_forgotten_fn *forgotten, void *arg);
void breaker_memory_destroy(struct breaker_memory *m);

/* Takes a copy, in place of what is known of the same backend. */
void breaker_memory_put(struct breaker_memory *m, const struct breaker_past *past);
/* Forgets those whose time is over. */
void breaker_memory_age(struct breaker_memory *m, uint64_t now_ns);
/* What is known of the backend is the caller's now; false: nothing is. */
bool breaker_memory_take(struct breaker_memory *m, const struct slot_info *who, struct breaker_past *out);
/* The same by what people call it ("tcp:198.18.3.21:8080"). */
bool breaker_memory_take_id(struct breaker_memory *m, const char *id, struct breaker_past *out);
/* All but an operator's words, and nobody is told: nothing is measured any more. */
void breaker_memory_clear(struct breaker_memory *m);
size_t breaker_memory_count(const struct breaker_memory *m);
