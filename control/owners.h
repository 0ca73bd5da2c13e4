/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has and who had a slot: outcomes name slots, and may be read when the slot's owner is long gone or another one
 * has it. Kept per slot are the last two owners. Written by decide, read by any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct owners;
struct view;

#define OWNER_SERVICE_LEN 64
#define OWNER_BACKEND_LEN 80

/* NULL with errno set. */
struct owners *owners_create(uint32_t n_services, uint32_t n_backends);
void owners_destroy(struct owners *o);

/* Decide: `view` says who has which slot from `now_ns` on, by the dataplane's clock. */
void owners_note(struct owners *o, const struct view *view, uint64_t now_ns);

/* Whose slot it was at `at_ns`: a service's name, a backend's id. False: not known any more. */
bool owners_service(struct owners *o, uint32_t slot, uint64_t at_ns, char out[static OWNER_SERVICE_LEN]);
bool owners_backend(struct owners *o, uint32_t slot, uint64_t at_ns, char out[static OWNER_BACKEND_LEN]);
