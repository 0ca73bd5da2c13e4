/* SPDX-License-Identifier: BSD-3-Clause */
#include "hash.h"
#include "policy.h"

#include <errno.h>
#include <stdlib.h>

/* Two open-addressed tables at most half full: exact (address, port, protocol), and addresses alone. */
struct listener_table {
	uint32_t mask;
	struct policy_listener *exact; /* proto 0: empty */
	struct ipaddr *addresses;      /* all zero: empty (:: is no listener) */
};

static uint32_t exact_hash(const struct ipaddr *addr, uint16_t port_be, uint8_t proto)
{
	return hash_public(addr->b, sizeof(addr->b), (uint64_t)proto << 16 | port_be);
}

static uint32_t address_hash(const struct ipaddr *addr)
{
	return hash_public(addr->b, sizeof(addr->b), 0);
}

static bool is_zero(const struct ipaddr *addr)
{
	return addr->q_be[0] == 0 && addr->q_be[1] == 0;
}

static void add_address(struct listener_table *t, const struct ipaddr *addr)
{
	uint32_t i = address_hash(addr) & t->mask;

	for (; !is_zero(&t->addresses[i]); i = (i + 1) & t->mask)
		if (ipaddr_equal(&t->addresses[i], addr))
			return;
	t->addresses[i] = *addr;
}

static int add_exact(struct listener_table *t, const struct policy_listener *l)
{
	uint32_t i = exact_hash(&l->addr, l->port_be, l->proto) & t->mask;

	for (; t->exact[i].proto; i = (i + 1) & t->mask)
		if (t->exact[i].proto == l->proto && t->exact[i].port_be == l->port_be &&
		    ipaddr_equal(&t->exact[i].addr, &l->addr))
			return -EEXIST;
	t->exact[i] = *l;
	return 0;
}

struct listener_table *listener_table_create(const struct policy_listener *listeners, size_t n)
{
	struct listener_table *t = calloc(1, sizeof(*t));
	uint32_t size = 4;
	int err = 0;

	if (!t)
		return NULL;
	while (size < 2 * n)
		size *= 2;
	t->mask = size - 1;
	t->exact = calloc(size, sizeof(*t->exact));
	t->addresses = calloc(size, sizeof(*t->addresses));
	if (!t->exact || !t->addresses)
		err = -ENOMEM;
	for (size_t i = 0; i < n && !err; i++) {
		if (listeners[i].proto == 0 || is_zero(&listeners[i].addr)) {
			err = -EINVAL;
			break;
		}
		err = add_exact(t, &listeners[i]);
		add_address(t, &listeners[i].addr);
	}
	if (err) {
		listener_table_destroy(t);
		errno = -err;
		return NULL;
	}
	return t;
}

void listener_table_destroy(struct listener_table *t)
{
	if (!t)
		return;
	free(t->exact);
	free(t->addresses);
	free(t);
}

const struct policy_listener *listener_lookup(const struct listener_table *t, const struct ipaddr *addr,
					      uint16_t port_be, uint8_t proto)
{
	uint32_t i = exact_hash(addr, port_be, proto) & t->mask;

	for (; t->exact[i].proto; i = (i + 1) & t->mask)
		if (t->exact[i].proto == proto && t->exact[i].port_be == port_be &&
		    ipaddr_equal(&t->exact[i].addr, addr))
			return &t->exact[i];
	return NULL;
}

bool listener_has_address(const struct listener_table *t, const struct ipaddr *addr)
{
	uint32_t i = address_hash(addr) & t->mask;

	if (is_zero(addr))
		return false;
	for (; !is_zero(&t->addresses[i]); i = (i + 1) & t->mask)
		if (ipaddr_equal(&t->addresses[i], addr))
			return true;
	return false;
}
