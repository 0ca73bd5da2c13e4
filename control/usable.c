/* SPDX-License-Identifier: BSD-3-Clause */
#include "usable.h"

#include <stdlib.h>

struct usable {
	size_t n_own;
	struct ipaddr own[]; /* VIPs and SNAT addresses, sorted */
};

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ipaddr));
}

struct usable *usable_create(const struct config *config)
{
	size_t max = config->n_snat;
	struct usable *u;

	for (size_t i = 0; i < config->n_services; i++)
		max += config->services[i].n_listen;
	u = malloc(sizeof(*u) + max * sizeof(u->own[0]));
	if (!u)
		return NULL;
	u->n_own = 0;
	for (unsigned i = 0; i < config->n_snat; i++)
		u->own[u->n_own++] = config->snat[i];
	for (size_t i = 0; i < config->n_services; i++)
		for (size_t j = 0; j < config->services[i].n_listen; j++)
			u->own[u->n_own++] = config->services[i].listen[j].addr;
	qsort(u->own, u->n_own, sizeof(u->own[0]), by_bytes);
	return u;
}

void usable_destroy(struct usable *u)
{
	free(u);
}

/* RFC 6890: this network, loopback, multicast, and what is reserved, with the broadcast. */
static bool is_host4(uint32_t addr)
{
	uint8_t first = addr >> 24;

	return first != 0 && first != 127 && first < 224;
}

/* Not unspecified, loopback, multicast, nor of one link alone. A mapped IPv4 address counts as that. */
static bool is_host6(const struct ipaddr *addr)
{
	bool is_low = addr->q_be[0] == 0 && addr->w_be[2] == 0 && ntohl(addr->w_be[3]) <= 1;

	return !is_low && addr->b[0] != 0xff && !(addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80);
}

bool usable_has(const struct usable *u, const struct ipaddr *addr)
{
	if (!(ipaddr_is_v4(addr) ? is_host4(ntohl(ipaddr_v4_be(addr))) : is_host6(addr)))
		return false;
	return !bsearch(addr, u->own, u->n_own, sizeof(u->own[0]), by_bytes);
}
