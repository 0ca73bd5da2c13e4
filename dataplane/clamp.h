/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The MSS option of a SYN or SYN-ACK, lowered and never raised or put in (RFC 9293 3.7.1). Pure functions over the
 * bytes of a TCP header, which needs no alignment. The MSS counts neither IP nor TCP options (RFC 6691 2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More do not fit a TCP header. */
#define MSS_OPTIONS_MAX 10

struct mss_options {
	uint8_t n;
	uint8_t at[MSS_OPTIONS_MAX]; /* offsets of their values from the TCP header; any parity */
};

/*
 * Finds the MSS options of the TCP header at `tcp`, which has `header_len` bytes with its options. False: an option's
 * length is impossible or reaches beyond the header, or an MSS is not 4 bytes long; then nobody can say what the
 * receiver will read, and the packet is best left alone.
 */
bool mss_find(const uint8_t *tcp, size_t header_len, struct mss_options *out);

/* True if one of them is above `mss_max`. */
bool mss_exceeds(const uint8_t *tcp, const struct mss_options *options, uint16_t mss_max);

/* Lowers each that is above `mss_max`, and the TCP checksum by difference: one that was wrong stays wrong. */
void mss_lower(uint8_t *tcp, const struct mss_options *options, uint16_t mss_max);

/* The MSS that fills packets of `mtu` bytes; not below what every host takes (536 and 1220). */
uint16_t mss_of_mtu(uint8_t family, uint32_t mtu);
