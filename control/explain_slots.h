/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the numbers of a backend or a service say about it now, in sentences: findings without a time, for they count
 * since the slot has its owner.
 */
#pragma once

#include "api_docs.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Each adds its findings to `rows`. */
void explain_backend(const struct api_source *src, const struct view_backend *b, json_t *rows);
void explain_service(const struct api_source *src, const struct view_service *s, json_t *rows);

/*
 * "breaker open: 5 SYNs in a row refused; for 12.1 s; it is probed again in 0.4 s"; "takes new flows" where nothing
 * stands against it.
 */
#define EXPLAIN_BREAKER_LEN 480
void explain_breaker(const struct api_source *src, const struct view_backend *b, char *out, size_t size);
/* It takes no new flows, but one at a time perhaps. */
bool explain_is_open(const struct api_source *src, const struct view_backend *b);
