/* SPDX-License-Identifier: BSD-3-Clause */
/* What whole workers remember of a client: on top of talk.h. */
#pragma once

#include "talk.h"

#include "outcome.h"

/* Of all workers together. */
struct client_row client(const struct ipaddr *addr);
uint64_t count_of(const struct client_row *row, outcome_reason reason);
