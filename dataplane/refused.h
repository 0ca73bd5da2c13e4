/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SYNs that were refused lately, here or by their backend, so that the same one again is known: same five-tuple, same
 * number, within 64 s. Then it is its client's kernel that goes on, after silence (Linux: once a second, at first) or
 * after a RST (Windows: up to three times, half a second apart), and no other attempt.
 *
 * One worker's, as all SYNs of a five-tuple are: a table of fixed size, sets of eight behind a keyed hash, a full one's
 * oldest makes room. One that was forgotten early is taken for another attempt.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REFUSED_ENTRIES 65536 /* all workers together */
#define REFUSED_MS      64000

struct refused {
	uint64_t *words; /* 0: free; else when, and of which SYN */
	uint32_t mask;
	uint32_t last_ms; /* CLOCK_MS: when the last one was added */
	bool any;
};

uint64_t refused_bytes(unsigned n_workers);
/* One worker's of so many. Returns 0 or -ENOMEM. */
int refused_init(struct refused *r, unsigned n_workers);
void refused_fini(struct refused *r);

/* What is to be remembered of it. */
struct refused_syn {
	bool retry;
	bool credited; /* its client got a credit for it */
};

/* `hash`: keyed, of its flow; `isn`: its number. */
void refused_add(struct refused *r, uint64_t hash, uint32_t isn, struct refused_syn what, uint32_t now_ms);
/* False: not lately, as far as is known. Of the credit it tells once: who hears of it takes it back. */
bool refused_lookup(struct refused *r, uint64_t hash, uint32_t isn, struct refused_syn *what, uint32_t now_ms);
