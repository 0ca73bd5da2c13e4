/* SPDX-License-Identifier: BSD-3-Clause */
/* Notes from a worker to decide: by value, in a ring of its own. */
#pragma once

#include "core.h"

/* False if the ring is full: the note is lost and counted. */
bool note_add(struct worker *w, const struct note *note);
/* Tells decide of the notes since the last call: once per loop, for it takes a system call. */
void note_announce(struct worker *w);
