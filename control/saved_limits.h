/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What outlives a restart of what is usual of each backend: a gateway that begins in the middle of a storm must not
 * take for usual what it meets there. A file of its own in state_dir, beside that of saved.h and by the same rules:
 *
 *   {"format": "spillway-limits", "version": 1, "written_ms": 1700000000000,
 *    "backends": [{"address": "198.18.3.21", "port": 8080, "base_us": 20000, "seen_ms": 1700000000000, "rate": 412}]}
 *
 * All are of TCP. `seen_ms`: when that base was last found to be so, without congestion.
 */
#pragma once

#include <stdint.h>

struct events;
struct limiters;
struct saved_limits;

/* NULL: out of memory. */
struct saved_limits *saved_limits_create(const char *dir, struct events *events);
void saved_limits_destroy(struct saved_limits *s);

/* Gives what the file has to the limiters. Returns of how many backends something was recent enough. */
unsigned saved_limits_load(struct saved_limits *s, struct limiters *limiters, uint64_t now_ns);
/* Writes the file if what it should say changed, at most every five seconds, else once a minute. */
void saved_limits_tick(struct saved_limits *s, struct limiters *limiters, uint64_t now_ns);
/* Writes it in any case: at stop. */
void saved_limits_write(struct saved_limits *s, struct limiters *limiters, uint64_t now_ns);
