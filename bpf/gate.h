/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The gate: our XDP program on one netdev. It sends the gateway's traffic to AF_XDP sockets and passes everything else
 * to the kernel. The program is held by a bpf_link whose file descriptor this object owns: when the process dies, the
 * kernel detaches it, and an immediate restart finds no leftovers.
 */
#pragma once

#include "ipaddr.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gate;
struct shed;

enum gate_mode {
	GATE_NATIVE,
	GATE_SKB,
};

/* What a hung gateway's listeners do. SNAT addresses never pass. */
enum gate_on_hang {
	GATE_DROP,
	GATE_PASS,
};

struct gate_config {
	const char *device;
	unsigned n_queues;  /* that we serve: must be all that the device has */
	uint32_t max_frame; /* longest frame that the sockets can carry */
	enum gate_mode mode;
	enum gate_on_hang on_hang;
	uint64_t hang_ns; /* heartbeat limit: 3 s */
	uint32_t max_listeners;
	uint32_t max_snat;
	const struct shed *shed; /* what SYNs are discarded; NULL: none */
};

/*
 * Looks at the device and refuses what cannot work, with a sentence in `err` that names the mending command: no such
 * device, MTU above what AF_XDP carries, a foreign XDP program, missing rights, more rx queues than we serve.
 * Returns 0 or -errno. Attaches nothing.
 */
int gate_check_device(const struct gate_config *config, char *err, size_t err_len);

/* Number of rx queues of a netdev, or -errno. */
int gate_device_queues(const char *device);

/* True if frames come from a stack on the same machine, which leaves checksums to its device unless told otherwise. */
bool gate_device_is_veth(const char *device);

/* Loads the program and its maps; nothing is attached yet. NULL with errno set and a sentence in `err`. */
struct gate *gate_open(const struct gate_config *config, char *err, size_t err_len);
/* Detaches (if attached) and frees. NULL is fine. */
void gate_close(struct gate *gate);

enum gate_class {
	GATE_KNOWN,
	GATE_NEW,
};

int gate_set_socket(struct gate *gate, unsigned queue, enum gate_class class, int xsk_fd);

struct gate_listener {
	struct ipaddr addr;
	uint16_t port_be;
	uint8_t proto;
};

/*
 * Replace the sets, so that at no instant an entry that is in both the old and the new set is missing. Returns 0 or
 * -errno (-ENOSPC: more than max_*), then the old set stays.
 */
int gate_set_listeners(struct gate *gate, const struct gate_listener *listeners, size_t n);
int gate_set_snat(struct gate *gate, const struct ipaddr *addrs, size_t n);

/* The device's link address: only frames to it are ours. Before it was told, none is. Also while attached. */
void gate_set_mac(struct gate *gate, const uint8_t mac[static 6]);

int gate_attach(struct gate *gate, char *err, size_t err_len);
/* Traffic passes to the kernel at once from here on. */
void gate_detach(struct gate *gate);

/* Where the worker that serves `queue` writes CLOCK_MONOTONIC ns in each loop (memory shared with the program). */
uint64_t *gate_heartbeat(struct gate *gate, unsigned queue);

/*
 * Program's own counters, by exit, summed over CPUs. Returns how many were written: at most `max`, never more than
 * GATE_MAX_COUNTERS.
 */
#define GATE_MAX_COUNTERS 32
struct gate_counter {
	const char *name; /* "gate_pass_not_ours", "gate_known", "gate_new", … */
	const char *help;
	uint64_t packets;
};
size_t gate_counters(const struct gate *gate, struct gate_counter *out, size_t max);

/* The loaded program, for the kernel's test run; owned by the gate. */
int gate_program_fd(const struct gate *gate);
