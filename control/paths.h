/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Decide's part of the path cure: what workers heard of paths becomes lessons for all of them, and events. One event
 * per prefix (IPv4 /24, IPv6 /64) and minute, and few enough in all that a flood of news cannot push out what else
 * happened.
 */
#pragma once

#include "cure.h"
#include "dataplane.h"

#include <stdint.h>

struct events;
struct paths;

/* NULL with errno set. */
struct paths *paths_create(struct dataplane *dp, struct events *events);
void paths_destroy(struct paths *paths);

/* `note`: of NOTE_PATH_MTU. `mode`: of the cure, as the event shall say what comes of it. */
void paths_note(struct paths *paths, const struct note *note, enum cure_mode mode, uint64_t now_ns);
/* A few times a second. */
void paths_tick(struct paths *paths);
