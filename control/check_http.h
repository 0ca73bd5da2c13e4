/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * GET requests of the gateway's own, through the kernel, by libcurl on the loop of decide. Bounded: CHECK_HTTP_MAX at a
 * time, each with the memory of one handle and CHECK_HTTP_BODY_MAX of an answer, which nobody reads.
 */
#pragma once

#include "breakers.h"
#include "ipaddr.h"
#include "policy.h"

#include <stdint.h>

#define CHECK_HTTP_MAX      64
#define CHECK_HTTP_BODY_MAX 65536
#define CHECK_WHY_LEN       80

struct check_http;
struct event_base;

/* `why`: what failed, "503" or "Connection refused"; "" if nothing did. */
typedef void check_http_done_fn(void *arg, struct slot_ref backend, enum check_result result, const char *why);

/* Borrows the base. NULL with errno set. */
struct check_http *check_http_create(struct event_base *base, check_http_done_fn *done, void *arg);
/* Ends what is under way; nobody is told. */
void check_http_destroy(struct check_http *h);

struct check_http_order {
	struct slot_ref backend;
	struct ipaddr addr;
	uint16_t port_be;
	const char *path;
	uint32_t timeout_ms;
};

/* Returns 0, -EBUSY: as many as may be are under way, or -ENOMEM. A result may come within the call's loop only. */
int check_http_start(struct check_http *h, const struct check_http_order *order);
unsigned check_http_under_way(const struct check_http *h);
