// SPDX-License-Identifier: BSD-3-Clause
#include "shed.h"

#include "maps.h"
#include "sentence.h"

#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static_assert((int)SHED_CLIENT == SPW_SHED_CLIENT && (int)SHED_PREFIX == SPW_SHED_PREFIX &&
		      (int)SHED_SERVICE == SPW_SHED_SERVICE && (int)SHED_LIMIT == SPW_SHED_LIMIT,
	      "the program's caps, in their order");

enum shed_map {
	MAP_CLIENTS,
	MAP_ENTRIES,
	MAP_SHARES,
	MAP_STATE,
	MAP_COUNTS,
	MAPS,
};

struct shed {
	int fds[MAPS]; /* -1: not made */
	struct spw_shed_entry *entries;
	struct spw_shed_state *state;
	size_t entries_len, state_len;
	int n_cpus;
};

/* A map as the program declares it, and how many entries it has. */
struct map_spec {
	const char *name;
	enum bpf_map_type type;
	uint32_t key_size, value_size, n, flags;
};

static void specify(const struct shed_config *config, struct map_spec specs[static MAPS])
{
	specs[MAP_CLIENTS] = (struct map_spec){"spw_shed_clients", BPF_MAP_TYPE_HASH,   sizeof(struct spw_shed_client),
					       sizeof(uint32_t),   config->max_clients, 0};
	specs[MAP_ENTRIES] = (struct map_spec){"spw_shed_entries",  BPF_MAP_TYPE_ARRAY,
					       sizeof(uint32_t),    sizeof(struct spw_shed_entry),
					       config->max_clients, BPF_F_MMAPABLE};
	specs[MAP_SHARES] = (struct map_spec){"spw_shed_shares",           BPF_MAP_TYPE_HASH,
					      sizeof(struct spw_listener), sizeof(struct spw_shed_share),
					      config->max_shares,          0};
	specs[MAP_STATE] = (struct map_spec){
		"spw_shed_state", BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct spw_shed_state), 1,
		BPF_F_MMAPABLE};
	specs[MAP_COUNTS] = (struct map_spec){"spw_shed_counts",
					      BPF_MAP_TYPE_PERCPU_ARRAY,
					      sizeof(uint32_t),
					      sizeof(uint64_t),
					      config->n_service_slots * SPW_SHED_KINDS,
					      0};
}

static int create_maps(struct shed *shed, const struct shed_config *config)
{
	struct map_spec specs[MAPS];

	specify(config, specs);
	for (int m = 0; m < MAPS; m++) {
		LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = specs[m].flags);

		shed->fds[m] = bpf_map_create(specs[m].type, specs[m].name, specs[m].key_size, specs[m].value_size,
					      specs[m].n, &opts);
		if (shed->fds[m] < 0)
			return shed->fds[m];
	}
	return 0;
}

/* NULL with errno set. */
static void *map_memory(int fd, size_t n, size_t size, size_t *len)
{
	size_t page = sysconf(_SC_PAGESIZE);
	void *memory;

	*len = (n * size + page - 1) / page * page;
	memory = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

static int map_memories(struct shed *shed, const struct shed_config *config)
{
	shed->entries =
		map_memory(shed->fds[MAP_ENTRIES], config->max_clients, sizeof(*shed->entries), &shed->entries_len);
	if (!shed->entries)
		return -errno;
	shed->state = map_memory(shed->fds[MAP_STATE], 1, sizeof(*shed->state), &shed->state_len);
	return shed->state ? 0 : -errno;
}

struct shed *shed_open(const struct shed_config *config, char *err, size_t err_len)
{
	struct shed *shed = calloc(1, sizeof(*shed));
	int rc;

	if (!shed) {
		errno = -sentence(err, err_len, ENOMEM, "out of memory");
		return NULL;
	}
	for (int m = 0; m < MAPS; m++)
		shed->fds[m] = -1;
	shed->n_cpus = libbpf_num_possible_cpus();
	rc = shed->n_cpus > 0 ? create_maps(shed, config) : shed->n_cpus;
	if (!rc)
		rc = map_memories(shed, config);
	if (rc) {
		shed_close(shed);
		errno = -sentence(err, err_len, -rc, "the maps of early shedding were not made: %s", strerror(-rc));
		return NULL;
	}
	return shed;
}

void shed_close(struct shed *shed)
{
	if (!shed)
		return;
	if (shed->entries)
		munmap(shed->entries, shed->entries_len);
	if (shed->state)
		munmap(shed->state, shed->state_len);
	for (int m = 0; m < MAPS; m++)
		if (shed->fds[m] >= 0)
			close(shed->fds[m]);
	free(shed);
}

int shed_share_maps(const struct shed *shed, struct bpf_object *gate)
{
	struct map_spec specs[MAPS];

	specify(&(struct shed_config){0}, specs);
	for (int m = 0; m < MAPS; m++) {
		struct bpf_map *map = bpf_object__find_map_by_name(gate, specs[m].name);
		int rc = map ? bpf_map__reuse_fd(map, shed->fds[m]) : -ENOENT;

		if (rc)
			return rc;
	}
	return 0;
}

static struct spw_address address_of(const struct ipaddr *addr)
{
	struct spw_address a;

	memcpy(a.w_be, addr->b, sizeof(a.w_be));
	return a;
}

static struct spw_shed_client client_of(const struct shed_key *key)
{
	struct spw_shed_client c = {address_of(&key->client), address_of(&key->vip), key->port_be, 0};

	if (!ipaddr_is_v4(&key->client))
		c.client.w_be[2] = c.client.w_be[3] = 0;
	return c;
}

int shed_tie(struct shed *shed, const struct shed_key *key, uint32_t place)
{
	struct spw_shed_client client = client_of(key);

	return bpf_map_update_elem(shed->fds[MAP_CLIENTS], &client, &place, BPF_ANY);
}

void shed_untie(struct shed *shed, const struct shed_key *key)
{
	struct spw_shed_client client = client_of(key);

	bpf_map_delete_elem(shed->fds[MAP_CLIENTS], &client);
}

void shed_set(struct shed *shed, uint32_t place, enum shed_cap cap, uint32_t service_slot, uint64_t until_ns)
{
	struct spw_shed_entry *entry = &shed->entries[place];

	__atomic_store_n(&entry->service, service_slot, __ATOMIC_RELAXED);
	__atomic_store_n(&entry->cap, cap, __ATOMIC_RELAXED);
	__atomic_store_n(&entry->until_ns, until_ns, __ATOMIC_RELEASE);
}

void shed_set_until(struct shed *shed, uint32_t place, uint64_t until_ns)
{
	__atomic_store_n(&shed->entries[place].until_ns, until_ns, __ATOMIC_RELAXED);
}

uint64_t shed_packets(const struct shed *shed, uint32_t place)
{
	return __atomic_load_n(&shed->entries[place].packets, __ATOMIC_RELAXED);
}

static struct spw_listener listener_of(const struct ipaddr *vip, uint16_t port_be)
{
	return (struct spw_listener){.addr = address_of(vip), .port_be = port_be, .proto = IPPROTO_TCP};
}

int shed_set_share(struct shed *shed, const struct ipaddr *vip, uint16_t port_be, enum shed_cap cap,
		   uint32_t service_slot, uint32_t pass, uint64_t until_ns)
{
	struct spw_listener listener = listener_of(vip, port_be);
	struct spw_shed_share share = {.until_ns = until_ns, .pass = pass, .service = service_slot, .cap = cap};

	return bpf_map_update_elem(shed->fds[MAP_SHARES], &listener, &share, BPF_ANY);
}

void shed_del_share(struct shed *shed, const struct ipaddr *vip, uint16_t port_be)
{
	struct spw_listener listener = listener_of(vip, port_be);

	bpf_map_delete_elem(shed->fds[MAP_SHARES], &listener);
}

void shed_set_ends(struct shed *shed, uint64_t clients_until_ns, uint64_t shares_until_ns)
{
	__atomic_store_n(&shed->state->clients_until_ns, clients_until_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&shed->state->shares_until_ns, shares_until_ns, __ATOMIC_RELAXED);
}

static uint64_t count_of(const struct shed *shed, uint32_t key)
{
	uint64_t *values = calloc(shed->n_cpus, sizeof(*values)), sum = 0;

	if (values && !bpf_map_lookup_elem(shed->fds[MAP_COUNTS], &key, values))
		for (int cpu = 0; cpu < shed->n_cpus; cpu++)
			sum += values[cpu];
	free(values);
	return sum;
}

struct shed_counts shed_counts(const struct shed *shed, uint32_t service_slot)
{
	return (struct shed_counts){
		.of_clients = count_of(shed, service_slot * SPW_SHED_KINDS + SPW_SHED_OF_CLIENTS),
		.of_all = count_of(shed, service_slot * SPW_SHED_KINDS + SPW_SHED_OF_ALL),
	};
}
