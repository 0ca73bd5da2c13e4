/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slots: small numbers that name services and backends towards the dataplane, for as long as any flow may point at
 * them. A backend is (protocol, address, port), whichever services use it; it keeps its slot over DNS changes and
 * comes back to it if it returns before its last flow ended.
 */
#pragma once

#include "ipaddr.h"
#include "policy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slots;

enum slot_life {
	SLOT_FREE,
	SLOT_USED,      /* some part of the current policy names it */
	SLOT_LINGERING, /* no part names it any more; flows may */
};

struct slot_info {
	struct slot_ref ref;
	enum slot_life life;
	uint32_t uses; /* parts that name it */
	uint8_t proto;
	uint16_t port_be;
	struct ipaddr addr;
};

/* NULL with errno set. */
struct slots *slots_create(uint32_t n);
void slots_destroy(struct slots *s);

/* The backend's slot with one more use; a new one if it has none. Returns 0 or -ENOSPC. */
int slots_get(struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be, struct slot_ref *ref);
/* True if the backend has a slot, lingering or not: then slots_get() takes no free one. */
bool slots_has(const struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be);
/* Its slot, or SLOT_NONE; no use is taken. */
uint32_t slots_find(const struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be);
/* NULL if there is no such slot, or it is free. */
const struct slot_info *slots_info(const struct slots *s, uint32_t slot);
/* One use less. The last one leaves it lingering. */
void slots_put(struct slots *s, uint32_t slot);

/*
 * Frees lingering slots for which `unused` says so (called after a grace period since their last put); `freed` is told
 * of each before it can be given out again.
 */
void slots_reap(struct slots *s, bool (*unused)(void *arg, uint32_t slot), void (*freed)(void *arg, uint32_t slot),
		void *arg);

/* Writes what people and programs call it ("tcp:198.18.3.21:8080") and returns `out`. */
#define SLOT_ID_STRLEN (IPADDR_PORT_STRLEN + 8)
const char *slots_id(const struct slot_info *info, char out[static SLOT_ID_STRLEN]);

/* Every slot that is not free. */
void slots_foreach(const struct slots *s, void (*fn)(void *arg, const struct slot_info *info), void *arg);
uint32_t slots_in_use(const struct slots *s);
uint32_t slots_free(const struct slots *s);
