/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cure storm in words and numbers: which of its tests held or refused attempts, how many a second, and what would
 * let them in.
 */
#pragma once

#include "api_docs.h"
#include "outcome.h"
#include "policy.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const char *const storm_test_name[STORM_TESTS]; /* "client", …: by enum storm_cap */

enum storm_answer {
	STORM_HELD,
	STORM_REFUSED, /* with RST */
	STORM_SILENT,
	STORM_ANSWERS,
};

extern const char *const storm_answer_name[STORM_ANSWERS]; /* "held", "refused", "silent" */

/* What an outcome says of it. */
struct storm_outcome {
	enum storm_cap test;
	enum storm_answer answer;
	bool shadow; /* it was not done */
};

/* False: it is of something else. */
bool storm_outcome_read(outcome_reason reason, struct storm_outcome *out);

/* Per second, on the mean of the last ten whole ones; what was not done, in shadow, too. */
struct storm_rates {
	double per_s[STORM_TESTS][STORM_ANSWERS];
};

/* Of all services of the view, in their order; from malloc, NULL if out of memory. */
struct storm_rates *storm_rates_read(const struct api_source *src, const struct view *view);
/* A row for each test that stood in anybody's way. */
json_t *storm_rates_json(const struct storm_rates *rates);

/*
 * "when it is its turn: its own cap lets in 20 a second", "when tcp:198.18.3.21:8080 has less than 56 under way (97
 * now), or first bytes of it take less than 90 ms again": what lets in who came to that test at that service. `like`:
 * of its family.
 */
#define STORM_WORDS_LEN 512
void storm_say_lets_in(const struct view *view, const struct view_service *svc, enum storm_cap test,
		       const struct ipaddr *like, char *out, size_t size);
/* "it is congested, for 4.2 s: first bytes take 480.0 ms instead of 20.0, and …" or "" if it is not. */
void storm_say_limited(const struct view_backend *b, uint64_t now_ns, char *out, size_t size);
