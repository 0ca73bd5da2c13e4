/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The five cures and their modes. What is always on, whatever the mode: NAT, table limits, ICMP translation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum cure {
	CURE_WALL,    /* retries pile into a dead upstream */
	CURE_NAMES,   /* DNS moved, the traffic did not */
	CURE_SILENCE, /* a middlebox forgot an idle connection */
	CURE_PATH,    /* a link with a smaller MTU, ICMP filtered */
	CURE_STORM,   /* synchronized retries kill a recovering upstream */
	CURES,
};

enum cure_mode {
	CURE_OFF,     /* not even measured */
	CURE_SHADOW,  /* measured, and what would be done is counted */
	CURE_ENFORCE, /* done */
};

/* One mode per cure. A flow keeps those of its birth: a change binds new flows. */
struct cure_modes {
	enum cure_mode of[CURES];
};

/* The same in a flow: two bits per cure. */
static inline uint16_t cure_pack(const struct cure_modes *modes)
{
	uint16_t packed = 0;

	for (int c = 0; c < CURES; c++)
		packed |= modes->of[c] << 2 * c;
	return packed;
}

static inline enum cure_mode cure_packed_mode(uint16_t packed, enum cure cure)
{
	return packed >> 2 * cure & 3;
}

extern const char *const cure_name[CURES];  /* "wall", … */
extern const char *const cure_mode_name[3]; /* "off", "shadow", "enforce" */
