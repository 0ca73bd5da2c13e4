/* SPDX-License-Identifier: BSD-3-Clause */
/* How full the workers' flow tables are, by family, and the news of it. */
#pragma once

#include "observe.h"
#include "policy.h"

struct events;

struct table_state {
	enum pressure_level level; /* of the worker that is pressed most */
	uint64_t flows, capacity;  /* of all of them */
	unsigned fullest;          /* the worker whose part is fullest, */
	uint32_t fullest_flows, fullest_capacity;
	uint64_t reached[PRESSURE_LEVELS]; /* how often, ever, some worker's part came to that level */
};

void tables_read(const struct dataplane *dp, struct table_state out[static SET_FAMILIES]);

extern const char *const table_level_name[PRESSURE_LEVELS];
extern const char *const table_family_name[SET_FAMILIES];

/* Decide's: what was said of a family. All zero at the start. */
struct tables {
	struct table_said {
		enum pressure_level level;
		uint64_t reached[PRESSURE_LEVELS];
		uint64_t since_ns; /* since when it is less than that; 0: it is not */
	} said[SET_FAMILIES];
};

/* Few times a second. More pressure is told at once, however short it was; less when it has lasted. */
#define TABLES_RELAX_NS 10000000000ull
void tables_tick(struct tables *t, const struct dataplane *dp, struct events *events, uint64_t now_ns);
