/* SPDX-License-Identifier: BSD-3-Clause */
#include "slots.h"
#include "hash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct slot {
	struct slot_info info;
	uint32_t next; /* in its hash chain, or in the free list */
};

struct slots {
	uint32_t n;
	uint32_t in_use;
	uint32_t free; /* head of the free list */
	uint32_t *heads;
	struct slot slots[];
};

struct slots *slots_create(uint32_t n)
{
	struct slots *s = calloc(1, sizeof(*s) + n * sizeof(s->slots[0]));

	if (!s)
		return NULL;
	s->heads = malloc(n * sizeof(*s->heads));
	if (!s->heads) {
		free(s);
		return NULL;
	}
	s->n = n;
	s->free = SLOT_NONE;
	for (uint32_t i = n; i-- > 0;) {
		s->heads[i] = SLOT_NONE;
		s->slots[i].info.ref.slot = i;
		s->slots[i].next = s->free;
		s->free = i;
	}
	return s;
}

void slots_destroy(struct slots *s)
{
	if (!s)
		return;
	free(s->heads);
	free(s);
}

static uint32_t *head_of(const struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be)
{
	return &s->heads[hash_public(addr->b, sizeof(addr->b), (uint64_t)proto << 16 | port_be) % s->n];
}

uint32_t slots_find(const struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be)
{
	uint32_t i = *head_of(s, proto, addr, port_be);

	for (; i != SLOT_NONE; i = s->slots[i].next) {
		const struct slot_info *info = &s->slots[i].info;

		if (info->proto == proto && info->port_be == port_be && ipaddr_equal(&info->addr, addr))
			break;
	}
	return i;
}

bool slots_has(const struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be)
{
	return slots_find(s, proto, addr, port_be) != SLOT_NONE;
}

const struct slot_info *slots_info(const struct slots *s, uint32_t slot)
{
	return slot >= s->n || s->slots[slot].info.life == SLOT_FREE ? NULL : &s->slots[slot].info;
}

static struct slot *take_free(struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be)
{
	uint32_t i = s->free, *head = head_of(s, proto, addr, port_be);
	struct slot *slot;

	if (i == SLOT_NONE)
		return NULL;
	slot = &s->slots[i];
	s->free = slot->next;
	s->in_use++;
	slot->info = (struct slot_info){
		.ref = {.slot = i, .generation = slot->info.ref.generation + 1},
		.proto = proto,
		.port_be = port_be,
		.addr = *addr,
	};
	slot->next = *head;
	*head = i;
	return slot;
}

int slots_get(struct slots *s, uint8_t proto, const struct ipaddr *addr, uint16_t port_be, struct slot_ref *ref)
{
	uint32_t i = slots_find(s, proto, addr, port_be);
	struct slot *slot = i != SLOT_NONE ? &s->slots[i] : take_free(s, proto, addr, port_be);

	if (!slot)
		return -ENOSPC;
	slot->info.life = SLOT_USED;
	slot->info.uses++;
	*ref = slot->info.ref;
	return 0;
}

void slots_put(struct slots *s, uint32_t slot)
{
	struct slot_info *info = &s->slots[slot].info;

	if (--info->uses == 0)
		info->life = SLOT_LINGERING;
}

static void unchain(struct slots *s, uint32_t i)
{
	const struct slot_info *info = &s->slots[i].info;
	uint32_t *at = head_of(s, info->proto, &info->addr, info->port_be);

	while (*at != i)
		at = &s->slots[*at].next;
	*at = s->slots[i].next;
}

void slots_reap(struct slots *s, bool (*unused)(void *arg, uint32_t slot), void (*freed)(void *arg, uint32_t slot),
		void *arg)
{
	for (uint32_t i = 0; i < s->n; i++) {
		struct slot *slot = &s->slots[i];

		if (slot->info.life != SLOT_LINGERING || !unused(arg, i))
			continue;
		freed(arg, i);
		unchain(s, i);
		slot->info.life = SLOT_FREE;
		slot->next = s->free;
		s->free = i;
		s->in_use--;
	}
}

const char *slots_id(const struct slot_info *info, char out[static SLOT_ID_STRLEN])
{
	char text[IPADDR_PORT_STRLEN];

	snprintf(out, SLOT_ID_STRLEN, "%s:%s", info->proto == PROTO_TCP ? "tcp" : "udp",
		 ipaddr_port_format(&info->addr, info->port_be, text));
	return out;
}

void slots_foreach(const struct slots *s, void (*fn)(void *arg, const struct slot_info *info), void *arg)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->slots[i].info.life != SLOT_FREE)
			fn(arg, &s->slots[i].info);
}

uint32_t slots_in_use(const struct slots *s)
{
	return s->in_use;
}

uint32_t slots_free(const struct slots *s)
{
	return s->n - s->in_use;
}
