/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What workers remember, gathered into findings: one per reason, service and backend, over all workers.
 */
#pragma once

#include "api_docs.h"
#include "outcome.h"

#include <jansson.h>

#define FINDINGS_MAX 64
#define PREFIXES_TOP 5

/* How wide a finding looks. */
enum finding_scope {
	SCOPE_CLIENT,  /* this very client: its record */
	SCOPE_PREFIX,  /* its network: the last OUTCOME_SECONDS */
	SCOPE_SERVICE, /* anyone at the service: the last OUTCOME_SECONDS */
};

struct finding {
	enum finding_scope scope;
	outcome_reason reason;
	uint32_t service_slot, backend_slot;
	uint64_t count;
	uint64_t first_ns, last_ns; /* the dataplane's clock */
	struct ipaddr about;        /* what was asked for */
};

struct findings {
	size_t n;
	struct finding of[FINDINGS_MAX];
	bool cut; /* there were more */
};

/* What was added up for one prefix. */
struct prefix_sum {
	struct ipaddr prefix;
	uint64_t count;
};

struct client_sum {
	bool known;
	struct client_row row; /* of all workers; its outcomes are among the findings */
	struct outcome_blind blind;
};

/* The client's records become one, its outcomes findings. */
void findings_of_client(const struct api_source *src, const struct ipaddr *addr, struct client_sum *client,
			struct findings *out);

struct seconds_sum {
	uint64_t unnamed; /* outcomes of that time whose prefix nobody knows */
	size_t n_top;
	struct prefix_sum top[PREFIXES_TOP]; /* that failed most often; not if one prefix was asked for */
};

/*
 * What the last OUTCOME_SECONDS brought the prefix of `addr` (NULL: anyone), or the `n` services given. Connections are
 * no findings.
 */
void findings_of_seconds(const struct api_source *src, const struct ipaddr *addr, const uint32_t *services, size_t n,
			 struct seconds_sum *sum, struct findings *out);

/* The latest first. */
void findings_sort(struct findings *f);

json_t *finding_json(const struct api_source *src, const struct view *view, const struct api_clock *clock,
		     const struct finding *f);
