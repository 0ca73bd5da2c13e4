/* SPDX-License-Identifier: BSD-3-Clause */
/* What the gates discarded early, as documents tell it: the gates' counts, and whose SYNs they were. */
#pragma once

#include "api_docs.h"

/* {"gate_shed_client": packets, …}: of all gates together. */
json_t *api_early_counts(const struct view *view);
/* What the ledger's readers should know of these names; into `about`. */
void api_early_about(const struct view *view, json_t *about);

/* Of a client, at whatever listener. */
uint64_t api_early_of_client(const struct api_source *src, const struct ipaddr *client);
/* Of a service, ever. */
uint64_t api_early_of_service(const struct view_service *s);

/* Findings of an explanation: into `rows`. */
void api_early_explain_client(const struct api_source *src, const struct api_clock *clock, const struct ipaddr *client,
			      json_t *rows);
void api_early_explain_service(const struct api_source *src, const struct view_service *s, json_t *rows);
