/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The breakers of all backends, as decide keeps them. Workers open at once and say so (NOTE_BACKEND); here that is
 * confirmed and told, or taken back because a whole side fell silent; open ones are probed until they answer.
 *
 * A side is one family of one service: its backends share what lies between. If most of them fall silent together, or
 * there is no way to them, it is not they who are dead: no breaker opens on silence until one of them answers.
 */
#pragma once

#include "breaker.h"
#include "cure.h"
#include "policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct breakers;
struct dataplane;
struct events;
struct services;
struct view;

struct breakers_config {
	uint32_t n_backend_slots, n_service_slots;
};

/* Of memory for so many slots, used or not. */
uint64_t breakers_bytes(uint32_t n_backend_slots);
/* All are borrowed; slots of the services are watched. NULL with errno set. */
struct breakers *breakers_create(struct dataplane *dp, struct services *services, struct events *events,
				 const struct breakers_config *config);
void breakers_destroy(struct breakers *b);

/* A worker says that there is news of that backend; to be settled with the next breakers_run(). */
void breakers_note(struct breakers *b, uint32_t slot);
/* Notes were lost: any backend may have news. */
void breakers_note_all(struct breakers *b);
/* A link or a set of backends changed: sides may be down, or up again. */
void breakers_look_again(struct breakers *b);

/*
 * By an operator's word, until the next one, also if DNS drops the backend meanwhile. Returns 0, -ENOENT: there is no
 * such backend, nor was one of which anything is known, or -EPERM: the wall is off, and nothing would heed it.
 */
int breakers_force(struct breakers *b, const char *backend_id, enum breaker_force force, enum cure_mode mode,
		   uint64_t now_ns);

/* What an HTTP check of a backend came to. */
enum check_result {
	CHECK_PASSED,
	CHECK_FAILED, /* it answered, and not well */
	CHECK_SILENT, /* nothing of it: while its side is down that says nothing */
};

/* `why`: "503", "Connection refused". Not of that owner of the slot any more: nothing. */
void breakers_checked(struct breakers *b, struct slot_ref ref, enum check_result result, const char *why,
		      enum cure_mode mode, uint64_t now_ns);
/* It is not checked any more: no failed check stands against it. */
void breakers_unchecked(struct breakers *b, struct slot_ref ref);

/* Settles all news, and does what is due. `mode`: of the wall, for flows that begin now. */
void breakers_run(struct breakers *b, enum cure_mode mode, uint64_t now_ns);
/* Fills what a view whose backends are there says of their breakers. Returns 0 or -ENOMEM. */
int breakers_view(const struct breakers *b, struct view *view, uint64_t now_ns);
/* When breakers_run() is due next without any news; UINT64_MAX: not. */
uint64_t breakers_due_ns(const struct breakers *b);

/* True if so many of a side's backends are silent that it must be the side: four in five, of at least three. */
bool breakers_side_is_silent(size_t n_backends, size_t n_silent);
