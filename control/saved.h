/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What outlives a restart: the last good address sets, so that a gateway that starts while DNS is down serves. One JSON
 * file in state_dir, replaced as a whole:
 *
 *   {"format": "spillway-state", "version": 1,
 *    "names": [{"name": "shop.lab.test", "family": 4, "addresses": ["198.18.3.21"], "ttl_ms": 5000,
 *               "answered_ms": 1700000000000}]}
 *
 * Times of answers are wall-clock: they have to mean something to the next life. Members that are not known are
 * ignored; a file that is not like this is refused as a whole.
 */
#pragma once

#include <stdint.h>

struct events;
struct names;
struct saved;

/*
 * `stale_ns`: how old a set may be and still serve; the file's times are a small part of it off at most. NULL: out of
 * memory.
 */
struct saved *saved_create(const char *dir, uint64_t stale_ns, struct events *events);
void saved_destroy(struct saved *saved);

/* Gives each watched name without an answer what the file has of it. Returns how many got something. */
unsigned saved_load(struct saved *saved, struct names *names);
/*
 * Writes the file if the sets changed since the last time, at most once a second, or if only the times of their answers
 * moved on, now and then. `n_changes` counts changes of the sets.
 */
void saved_tick(struct saved *saved, struct names *names, uint64_t n_changes, uint64_t now_ns);
/* Writes it in any case: at stop. */
void saved_write(struct saved *saved, struct names *names);
