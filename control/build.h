/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From what is configured and known to what is published: functions without side effects but for the uses of slots that
 * a part holds.
 */
#pragma once

#include "config.h"
#include "policy.h"
#include "slots.h"

#include <stddef.h>
#include <stdint.h>

/* One backend as it is known now: an address of a DNS name, or a static one. */
struct build_backend {
	struct ipaddr addr;
	uint16_t port_be;
	uint16_t weight;
	uint64_t expires_ns; /* 0: does not */
	uint8_t out_of;      /* bit per SET_TCP, SET_UDP: taken out by command */
};

/* Both families, without duplicates; order does not matter. */
struct build_backends {
	const struct build_backend *all;
	size_t n;
};

struct build_input {
	const struct config_service *service;
	struct slot_ref ref; /* the service's slot */
	struct build_backends is;
	/* Names in shadow, where DNS says otherwise: what would be. */
	bool would_differ;
	struct build_backends would;
};

/*
 * Makes the service's part of the policy: a set for each family and protocol that it listens on. Takes a use of each
 * backend's slot, not of those that only would be. NULL with errno set (ENOMEM; ENOSPC: too few free slots, then none
 * is taken).
 */
struct policy_service *build_service(const struct build_input *in, struct slots *slots);
/* Gives the uses back, poisons the memory if `poison`, and frees it. No worker may see the part any more. */
void build_service_free(struct policy_service *svc, struct slots *slots, bool poison);

/* The listeners of services[0..n); services[i] has slot refs[i]. NULL with errno set. */
struct listener_table *build_listeners(const struct config_service *services, const struct slot_ref *refs, size_t n);

/* A snapshot of n_slots services; parts are borrowed. Free with free(). */
struct policy *build_policy(uint64_t number, const struct cure_modes *modes, const struct listener_table *listeners,
			    struct policy_service *const *parts, uint32_t n_slots);
