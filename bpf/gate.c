// SPDX-License-Identifier: BSD-3-Clause
#include "gate.h"

#include "device.h"
#include "maps.h"
#include "sentence.h"
#include "shed.h"
#include "spillway.skel.h"

#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct address_entry {
	struct spw_address addr;
	uint32_t owner; /* set of enum spw_owner */
};

/* What the program's two tables hold: sorted, each key once. */
struct gate_tables {
	struct spw_listener *listeners;
	size_t n_listeners;
	struct address_entry *addresses;
	size_t n_addresses;
};

struct gate {
	struct spillway_bpf *bpf;
	struct gate_config config; /* `device` is our own copy */
	int link_fd;               /* -1: not attached */
	struct spw_beat *beats;
	size_t beats_len;
	struct gate_tables tables;
};

static_assert(SPW_EXIT_COUNT <= GATE_MAX_COUNTERS, "callers size their arrays by it");

static const char *const exit_names[SPW_EXIT_COUNT] = {
#define X(name, help) [SPW_EXIT_##name] = "gate_" #name,
	SPW_EXITS(X)
#undef X
};

static const char *const exit_helps[SPW_EXIT_COUNT] = {
#define X(name, help) [SPW_EXIT_##name] = help,
	SPW_EXITS(X)
#undef X
};

/* What libbpf says while it loads; gate_open is called by one thread. The first line names the cause. */
static char libbpf_says[256];

static int keep_first_warning(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level == LIBBPF_WARN && !libbpf_says[0]) {
		vsnprintf(libbpf_says, sizeof(libbpf_says), format, args);
		libbpf_says[strcspn(libbpf_says, "\n")] = '\0';
	}
	return 0;
}

static size_t at_least_one(size_t n)
{
	return n ? n : 1;
}

/* Twice what is asked for where sets are replaced: the new entries are added before the old ones are deleted. */
static void size_maps(struct spillway_bpf *bpf, const struct gate_config *config)
{
	size_t n_addresses = (size_t)config->max_listeners + config->max_snat;

	bpf_map__set_max_entries(bpf->maps.spw_listeners, at_least_one(2 * (size_t)config->max_listeners));
	bpf_map__set_max_entries(bpf->maps.spw_addresses, at_least_one(2 * n_addresses));
	bpf_map__set_max_entries(bpf->maps.spw_sockets, config->n_queues * SPW_SOCKETS_PER_QUEUE);
	bpf_map__set_max_entries(bpf->maps.spw_beats, config->n_queues);
	bpf->rodata->hang_ns = config->hang_ns;
	bpf->rodata->listener_otherwise = config->on_hang == GATE_PASS ? XDP_PASS : XDP_DROP;
}

static int load(struct gate *gate, char *err, size_t err_len)
{
	libbpf_print_fn_t printer = libbpf_set_print(keep_first_warning);
	int rc = -ENOMEM;

	libbpf_says[0] = '\0';
	gate->bpf = spillway_bpf__open();
	if (gate->bpf) {
		size_maps(gate->bpf, &gate->config);
		rc = gate->config.shed ? shed_share_maps(gate->config.shed, gate->bpf->obj) : 0;
		if (!rc)
			rc = spillway_bpf__load(gate->bpf);
	}
	libbpf_set_print(printer);
	if (rc)
		return sentence(err, err_len, -rc, "the XDP program was not loaded: %s (%s)", strerror(-rc),
				libbpf_says);
	return 0;
}

static int map_beats(struct gate *gate, char *err, size_t err_len)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t len = gate->config.n_queues * sizeof(struct spw_beat);
	void *beats;

	len = (len + page - 1) / page * page;
	beats = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(gate->bpf->maps.spw_beats), 0);
	if (beats == MAP_FAILED)
		return sentence(err, err_len, errno, "the heartbeats' memory was not mapped: %s", strerror(errno));
	gate->beats = beats;
	gate->beats_len = len;
	return 0;
}

struct gate *gate_open(const struct gate_config *config, char *err, size_t err_len)
{
	struct gate *gate;
	int rc;

	if (!config->n_queues) {
		errno = -sentence(err, err_len, EINVAL, "device %s: no receive queue is served", config->device);
		return NULL;
	}
	gate = calloc(1, sizeof(*gate));
	if (!gate) {
		errno = -sentence(err, err_len, ENOMEM, "out of memory");
		return NULL;
	}
	gate->link_fd = -1;
	gate->config = *config;
	gate->config.device = strdup(config->device);
	rc = gate->config.device ? load(gate, err, err_len) : sentence(err, err_len, ENOMEM, "out of memory");
	if (!rc)
		rc = map_beats(gate, err, err_len);
	if (rc) {
		gate_close(gate);
		errno = -rc;
		return NULL;
	}
	return gate;
}

static void tables_free(struct gate_tables *tables)
{
	free(tables->listeners);
	free(tables->addresses);
	*tables = (struct gate_tables){0};
}

void gate_close(struct gate *gate)
{
	if (!gate)
		return;
	gate_detach(gate);
	if (gate->beats)
		munmap(gate->beats, gate->beats_len);
	spillway_bpf__destroy(gate->bpf);
	tables_free(&gate->tables);
	free((char *)gate->config.device);
	free(gate);
}

int gate_set_socket(struct gate *gate, unsigned queue, enum gate_class class, int xsk_fd)
{
	uint32_t key = queue * SPW_SOCKETS_PER_QUEUE + (class == GATE_NEW ? SPW_SOCKET_NEW : SPW_SOCKET_KNOWN);

	if (queue >= gate->config.n_queues)
		return -EINVAL;
	return bpf_map_update_elem(bpf_map__fd(gate->bpf->maps.spw_sockets), &key, &xsk_fd, BPF_ANY);
}

static int compare_listeners(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct spw_listener));
}

static int compare_addresses(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct spw_address));
}

static struct spw_address key_of(const struct ipaddr *addr)
{
	struct spw_address key;

	memcpy(key.w_be, addr->b, sizeof(key.w_be));
	return key;
}

/* Sorts and keeps each key once. Returns how many are left. */
static size_t unique_listeners(struct spw_listener *listeners, size_t n)
{
	size_t n_unique = 0;

	qsort(listeners, n, sizeof(*listeners), compare_listeners);
	for (size_t i = 0; i < n; i++)
		if (!n_unique || compare_listeners(&listeners[n_unique - 1], &listeners[i]))
			listeners[n_unique++] = listeners[i];
	return n_unique;
}

/* Sorts and merges: an address owned twice has both owners. Returns how many are left. */
static size_t unique_addresses(struct address_entry *entries, size_t n)
{
	size_t n_unique = 0;

	qsort(entries, n, sizeof(*entries), compare_addresses);
	for (size_t i = 0; i < n; i++) {
		if (n_unique && !compare_addresses(&entries[n_unique - 1], &entries[i]))
			entries[n_unique - 1].owner |= entries[i].owner;
		else
			entries[n_unique++] = entries[i];
	}
	return n_unique;
}

static size_t count_owned(const struct gate_tables *tables, enum spw_owner owner)
{
	size_t n = 0;

	for (size_t i = 0; i < tables->n_addresses; i++)
		n += !!(tables->addresses[i].owner & owner);
	return n;
}

/* Makes `to->addresses` of the listeners and of the given addresses with SPW_OWNER_SNAT. Room for all was made. */
static void fill_addresses(struct gate_tables *to, const struct spw_address *snat, size_t n_snat)
{
	size_t n = 0;

	for (size_t i = 0; i < to->n_listeners; i++)
		to->addresses[n++] = (struct address_entry){to->listeners[i].addr, SPW_OWNER_VIP};
	for (size_t i = 0; i < n_snat; i++)
		to->addresses[n++] = (struct address_entry){snat[i], SPW_OWNER_SNAT};
	to->n_addresses = unique_addresses(to->addresses, n);
}

/* Both arrays are freed with tables_free, also after a failure. */
static int tables_alloc(struct gate_tables *tables, size_t n_listeners, size_t n_snat)
{
	*tables = (struct gate_tables){
		.listeners = calloc(at_least_one(n_listeners), sizeof(*tables->listeners)),
		.addresses = calloc(at_least_one(n_listeners + n_snat), sizeof(*tables->addresses)),
	};
	return tables->listeners && tables->addresses ? 0 : -ENOMEM;
}

/* Owners of an address in sorted `tables`. An empty set has no array, which bsearch must not be given. */
static uint32_t owner_in(const struct gate_tables *tables, const struct spw_address *addr)
{
	const struct address_entry *found = NULL;

	if (tables->n_addresses)
		found = bsearch(addr, tables->addresses, tables->n_addresses, sizeof(*tables->addresses),
				compare_addresses);
	return found ? found->owner : 0;
}

static bool has_listener(const struct gate_tables *tables, const struct spw_listener *listener)
{
	return tables->n_listeners &&
	       bsearch(listener, tables->listeners, tables->n_listeners, sizeof(*tables->listeners), compare_listeners);
}

/* Adds to the program's tables, which hold `from`, what `to` has beyond. */
static int grow(const struct gate *gate, const struct gate_tables *from, const struct gate_tables *to)
{
	int listeners_fd = bpf_map__fd(gate->bpf->maps.spw_listeners);
	int addresses_fd = bpf_map__fd(gate->bpf->maps.spw_addresses);
	int rc = 0;

	for (size_t i = 0; !rc && i < to->n_listeners; i++) {
		uint8_t present = 1;

		if (!has_listener(from, &to->listeners[i]))
			rc = bpf_map_update_elem(listeners_fd, &to->listeners[i], &present, BPF_ANY);
	}
	for (size_t i = 0; !rc && i < to->n_addresses; i++) {
		uint32_t had = owner_in(from, &to->addresses[i].addr);
		uint32_t owner = had | to->addresses[i].owner;

		if (owner != had)
			rc = bpf_map_update_elem(addresses_fd, &to->addresses[i].addr, &owner, BPF_ANY);
	}
	return rc;
}

/*
 * Takes from the program's tables, which hold some or all of `from` beside `to`, what is not in `to`. Cannot fail: it
 * deletes (an entry that is not there is no error) and overwrites in place.
 */
static void shrink(const struct gate *gate, const struct gate_tables *from, const struct gate_tables *to)
{
	int listeners_fd = bpf_map__fd(gate->bpf->maps.spw_listeners);
	int addresses_fd = bpf_map__fd(gate->bpf->maps.spw_addresses);

	for (size_t i = 0; i < from->n_addresses; i++) {
		const struct address_entry *had = &from->addresses[i];
		uint32_t owner = owner_in(to, &had->addr);

		if (!owner)
			bpf_map_delete_elem(addresses_fd, &had->addr);
		else if (had->owner & ~owner)
			bpf_map_update_elem(addresses_fd, &had->addr, &owner, BPF_EXIST);
	}
	for (size_t i = 0; i < from->n_listeners; i++)
		if (!has_listener(to, &from->listeners[i]))
			bpf_map_delete_elem(listeners_fd, &from->listeners[i]);
}

/* Takes over `to`, or leaves everything as it was and frees it. */
static int replace(struct gate *gate, struct gate_tables *to)
{
	int rc = -ENOSPC;

	if (to->n_listeners <= gate->config.max_listeners && count_owned(to, SPW_OWNER_SNAT) <= gate->config.max_snat) {
		rc = grow(gate, &gate->tables, to);
		if (rc)
			shrink(gate, to, &gate->tables);
	}
	if (rc) {
		tables_free(to);
		return rc;
	}
	shrink(gate, &gate->tables, to);
	tables_free(&gate->tables);
	gate->tables = *to;
	return 0;
}

/* The SNAT addresses of the current tables; room for all of these was made. */
static size_t current_snat(const struct gate *gate, struct spw_address *snat)
{
	size_t n = 0;

	for (size_t i = 0; i < gate->tables.n_addresses; i++)
		if (gate->tables.addresses[i].owner & SPW_OWNER_SNAT)
			snat[n++] = gate->tables.addresses[i].addr;
	return n;
}

int gate_set_listeners(struct gate *gate, const struct gate_listener *listeners, size_t n)
{
	struct spw_address *snat = calloc(at_least_one(gate->tables.n_addresses), sizeof(*snat));
	struct gate_tables to;
	size_t n_snat;

	if (!snat || tables_alloc(&to, n, gate->tables.n_addresses)) {
		free(snat);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		to.listeners[i] =
			(struct spw_listener){key_of(&listeners[i].addr), listeners[i].port_be, listeners[i].proto};
	to.n_listeners = unique_listeners(to.listeners, n);
	n_snat = current_snat(gate, snat);
	fill_addresses(&to, snat, n_snat);
	free(snat);
	return replace(gate, &to);
}

int gate_set_snat(struct gate *gate, const struct ipaddr *addrs, size_t n)
{
	struct spw_address *snat = calloc(at_least_one(n), sizeof(*snat));
	struct gate_tables to;

	if (!snat || tables_alloc(&to, gate->tables.n_listeners, n)) {
		free(snat);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		snat[i] = key_of(&addrs[i]);
	to.n_listeners = gate->tables.n_listeners;
	for (size_t i = 0; i < to.n_listeners; i++)
		to.listeners[i] = gate->tables.listeners[i];
	fill_addresses(&to, snat, n);
	free(snat);
	return replace(gate, &to);
}

void gate_set_mac(struct gate *gate, const uint8_t mac[static 6])
{
	uint32_t first;
	uint16_t last;

	memcpy(&first, mac, sizeof(first));
	memcpy(&last, mac + sizeof(first), sizeof(last));
	__atomic_store_n(&gate->bpf->bss->port_mac, first | (uint64_t)last << 32, __ATOMIC_RELAXED);
}

static int attach_refused(const struct gate *gate, int rc, char *err, size_t err_len)
{
	const char *device = gate->config.device;

	switch (-rc) {
	case EOPNOTSUPP:
		return sentence(
			err, err_len, EOPNOTSUPP,
			"device %s: its driver runs no XDP programs itself: \"skb_mode: on\" for this port makes do without",
			device);
	case EBUSY:
	case EEXIST:
		return sentence(err, err_len, EBUSY,
				"device %s carries an XDP program already: \"ip link set dev %s xdp off\"", device,
				device);
	case ERANGE:
		return sentence(
			err, err_len, ERANGE,
			"device %s: its MTU is more than its driver can do with XDP: \"ip link set dev %s mtu 1500\"",
			device, device);
	default:
		return sentence(err, err_len, -rc, "device %s: the XDP program was not attached: %s", device,
				strerror(-rc));
	}
}

int gate_attach(struct gate *gate, char *err, size_t err_len)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts,
		    .flags = gate->config.mode == GATE_SKB ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);
	unsigned ifindex = if_nametoindex(gate->config.device);
	int fd;

	if (gate->link_fd >= 0)
		return sentence(err, err_len, EALREADY, "device %s: already attached", gate->config.device);
	if (!ifindex)
		return device_missing(gate->config.device, err, err_len);
	fd = bpf_link_create(gate_program_fd(gate), ifindex, BPF_XDP, &opts);
	if (fd < 0)
		return attach_refused(gate, fd, err, err_len);
	gate->link_fd = fd;
	return 0;
}

void gate_detach(struct gate *gate)
{
	if (gate->link_fd < 0)
		return;
	/* Not close() alone: a child that inherited the descriptor would keep the link alive. */
	bpf_link_detach(gate->link_fd);
	close(gate->link_fd);
	gate->link_fd = -1;
}

uint64_t *gate_heartbeat(struct gate *gate, unsigned queue)
{
	return queue < gate->config.n_queues ? (uint64_t *)&gate->beats[queue].monotonic_ns : NULL;
}

size_t gate_counters(const struct gate *gate, struct gate_counter *out, size_t max)
{
	int n_cpus = libbpf_num_possible_cpus();
	uint64_t *values = n_cpus > 0 ? calloc(n_cpus, sizeof(*values)) : NULL;
	uint32_t n = max < SPW_EXIT_COUNT ? max : SPW_EXIT_COUNT;

	for (uint32_t exit = 0; exit < n; exit++) {
		out[exit] = (struct gate_counter){.name = exit_names[exit], .help = exit_helps[exit]};
		if (!values || bpf_map_lookup_elem(bpf_map__fd(gate->bpf->maps.spw_exits), &exit, values))
			continue;
		for (int cpu = 0; cpu < n_cpus; cpu++)
			out[exit].packets += values[cpu];
	}
	free(values);
	return n;
}

int gate_program_fd(const struct gate *gate)
{
	return bpf_program__fd(gate->bpf->progs.spillway);
}
