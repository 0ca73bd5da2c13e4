/* SPDX-License-Identifier: BSD-3-Clause */
#include "cells.h"
#include "memory.h"
#include "observe_worker.h"

#include <assert.h>
#include <errno.h>

static_assert(sizeof(struct service_shared) == 128, "two lines per service");

uint64_t cells_bytes(uint32_t n_backends, uint32_t n_services)
{
	return (uint64_t)n_backends * sizeof(struct backend_shared) +
	       (uint64_t)n_services * sizeof(struct service_shared) + (uint64_t)n_backends * sizeof(uint64_t);
}

int cells_init(struct cells *c, uint32_t n_backends, uint32_t n_services)
{
	c->backends = memory_alloc(n_backends * sizeof(*c->backends));
	c->services = memory_alloc(n_services * sizeof(*c->services));
	c->reap.orders = memory_alloc(n_backends * sizeof(*c->reap.orders));
	return c->backends && c->services && c->reap.orders ? 0 : -ENOMEM;
}

void cells_fini(struct cells *c)
{
	memory_free(c->backends);
	memory_free(c->services);
	memory_free(c->reap.orders);
}

/* Others may be reading them meanwhile: word by word. */
void cells_reset_backend(struct cells *c, uint32_t slot)
{
	static const struct backend_shared zero;

	observe_store_words(&c->backends[slot], &zero, sizeof(zero));
}

void cells_reset_service(struct cells *c, uint32_t slot)
{
	static const struct service_shared zero;

	observe_store_words(&c->services[slot], &zero, sizeof(zero));
}
