/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cycles per stage, for the bench only: compiled in with -Dstage_cycles, nothing at all otherwise.
 */
#pragma once

#define STAGE_LIST(S) S(parse) S(steer) S(flow) S(admit) S(track) S(rewrite) S(out)

enum stage {
#define S(name) STAGE_##name,
	STAGE_LIST(S)
#undef S
		STAGE_COUNT
};

struct stage_cycles {
	unsigned long long cycles[STAGE_COUNT];
	unsigned long long packets[STAGE_COUNT];
};

#ifdef SPILLWAY_STAGE_CYCLES
#include <rte_cycles.h>

extern struct stage_cycles stage_cycles;

#define STAGE(name, call, n)                                                                                           \
	do {                                                                                                           \
		unsigned long long begin_ = rte_rdtsc();                                                               \
		call;                                                                                                  \
		stage_cycles.cycles[STAGE_##name] += rte_rdtsc() - begin_;                                             \
		stage_cycles.packets[STAGE_##name] += (n);                                                             \
	} while (0)
#else
#define STAGE(name, call, n) call
#endif
