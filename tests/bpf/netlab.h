/* SPDX-License-Identifier: BSD-3-Clause */
/* A network namespace of the test's own, which ends with the process; and raw frames on one end of a veth in it. */
#pragma once

#include "frames.h"

#include <stdbool.h>
#include <stdint.h>

/* Moves this process into a new network namespace and brings up lo. Returns 0 or -errno. */
int netlab_enter(void);
/* Runs a command line; non-zero if it failed. */
__attribute__((format(printf, 1, 2))) int netlab_run(const char *format, ...);
uint64_t monotonic_ns(void);

/* Addresses of the lab: one client beyond the veth, the host with its veth end g0. VIPs and SNAT addresses lie on lo.
 */
#define CLIENT4 "198.18.1.2"
#define HOST4   "198.18.1.1"
#define VIP4    "198.18.100.1"
#define SNAT4   "198.18.101.1"
#define CLIENT6 "2001:db8:1::2"
#define HOST6   "2001:db8:1::1"
#define VIP6    "2001:db8:100::1"
#define SNAT6   "2001:db8:101::1"

extern const uint8_t netlab_mac[6]; /* of g0 */

/*
 * Builds, in a namespace of our own,
 *
 *	c0 ======== g0 (HOST4, HOST6, SNAT6)	lo (VIP4, VIP6, SNAT4)
 *
 * where the client is no kernel but a raw socket on c0. Static neighbours; this process keeps to one CPU, so that
 *frames are received in the order in which they are sent. Returns the raw socket or -errno.
 */
int netlab_build(void);
/* Fills in the link addresses and builds the frame, as the client sends it. */
void netlab_frame(struct frame *frame, const struct frame_spec *spec);
/*
 * Sends a frame, after it a ping to the host, and reads until that is answered: by then the kernel is done with the
 * frame. Returns how many packets came to the client instead, or -errno (-ETIMEDOUT: no answer to the ping).
 */
int netlab_answers(int raw_fd, const struct frame *frame);
/* True if these bytes are an IP packet to the client. */
bool netlab_is_for_client(const uint8_t *bytes, unsigned len);

/* A raw socket on `device` for all frames that arrive there, or -errno. */
int netlab_open_raw(const char *device);
/* Sends a frame. Returns 0 or -errno. */
int netlab_send(int raw_fd, const struct frame *frame);
/* Waits for the next frame that arrived; returns its length, 0 if none came in `timeout_ms`, or -errno. */
int netlab_receive(int raw_fd, uint8_t *bytes, unsigned size, int timeout_ms);
