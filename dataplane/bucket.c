/* SPDX-License-Identifier: BSD-3-Clause */
#include "bucket.h"

#include "dataplane.h"

#include <errno.h>

/* Beyond the tolerance: clocks of workers that are apart (each reads its own once per burst), and the longest line. */
#define REACH ((uint64_t)4000000000 << GCRA_FRACTION_BITS)

struct gcra_rate gcra_rate_of(uint64_t interval, uint64_t burst)
{
	uint64_t tolerance = interval * burst;

	/* A take at the tolerance goes one interval beyond, and so may one of each other worker at that moment. */
	return (struct gcra_rate){interval, tolerance, tolerance + interval * (DATAPLANE_MAX_WORKERS + 1) + REACH};
}

int gcra_rate_init(struct gcra_rate *rate, uint64_t tokens, uint64_t per_ns, uint64_t burst)
{
	unsigned __int128 interval, tolerance, window;

	if (tokens == 0 || per_ns == 0)
		return -EINVAL;
	interval = (((unsigned __int128)per_ns << GCRA_FRACTION_BITS) + tokens / 2) / tokens;
	if (interval < (uint64_t)1 << GCRA_FRACTION_BITS || interval > GCRA_WINDOW_MAX || burst > GCRA_WINDOW_MAX)
		return -ERANGE;
	tolerance = interval * burst;
	window = tolerance + interval * (DATAPLANE_MAX_WORKERS + 1) + REACH;
	if (window > GCRA_WINDOW_MAX)
		return -ERANGE;
	*rate = gcra_rate_of(interval, burst);
	return 0;
}

uint64_t gcra_default_burst(uint64_t tokens, uint64_t per_ns)
{
	uint64_t burst = (uint64_t)((unsigned __int128)tokens * 100000000 / per_ns);

	return burst > 10 ? burst : 10;
}
