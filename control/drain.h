/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking a backend out by command: it gets no new flows from then on, and its flows are treated as those of any removed
 * backend. It stays out, whatever DNS says, until it is put back or the configuration is loaded again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct services;

/* `deadline_ns`: no deadline of its own, but the `drain` of its services. */
#define DRAIN_BY_SERVICE UINT64_MAX

struct drain_order {
	const char *backend;  /* its id */
	const char *service;  /* NULL: every service */
	bool put_back;        /* instead of taking it out */
	uint64_t deadline_ns; /* after this its flows are ended; DRAIN_BY_SERVICE: as configured */
};

struct drain_result {
	size_t n_services; /* that have it: taken out of so many, or put back */
	uint64_t flows;    /* to it now */
};

/*
 * Marks the services that it concerns dirty: services_publish() is next. Returns 0; or -ENOENT: no such backend, or the
 * service does not name it; -EALREADY: it is so already; -EBUSY: a service would be left without backends for a
 * listener; -ENOSPC: too many are out; -EOPNOTSUPP: a deadline, while the mode of names ends no flows.
 */
int services_drain(struct services *s, const struct drain_order *order, struct drain_result *result);
/* Takes back the last services_drain(), which could not be published. */
void services_undrain(struct services *s);
