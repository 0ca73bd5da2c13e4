/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums by difference, RFC 1624 equation 3: HC' = ~(~HC + ~m + m'). All sums are over 16-bit words as they stand in
 * memory (network byte order): one's complement addition does not care (RFC 1071 2.B).
 *
 * What changes is the same for all packets of a flow and direction, so ~m + m' is computed once as a delta and a packet
 * costs one addition.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Adds the change of one word to a delta; deltas begin at 0 and hold 32 767 changes before they must be folded. */
static inline uint32_t csum_delta16(uint32_t delta, uint16_t from_be, uint16_t to_be)
{
	return delta + (uint16_t)~from_be + to_be;
}

static inline uint32_t csum_delta32(uint32_t delta, uint32_t from_be, uint32_t to_be)
{
	delta = csum_delta16(delta, from_be & 0xffff, to_be & 0xffff);
	return csum_delta16(delta, from_be >> 16, to_be >> 16);
}

static inline uint16_t csum_delta_fold(uint32_t delta)
{
	delta = (delta & 0xffff) + (delta >> 16);
	return (delta & 0xffff) + (delta >> 16);
}

static inline uint16_t csum_apply(uint16_t csum_be, uint16_t delta)
{
	uint32_t sum = (uint16_t)~csum_be + (uint32_t)delta;

	return ~((sum & 0xffff) + (sum >> 16));
}

/* UDP: 0 means "none" and stays; a sum that comes to 0 is sent as 0xffff (RFC 768). */
static inline uint16_t csum_apply_udp(uint16_t csum_be, uint16_t delta)
{
	uint16_t sum;

	if (csum_be == 0)
		return 0;
	sum = csum_apply(csum_be, delta);
	return sum ? sum : 0xffff;
}

/*
 * Sums that grow by whole words need no folding in between: 64 bits hold 2^32 of them. A word of 32 bits counts as its
 * two halves, for 2^16 is 1 in this arithmetic.
 */
static inline uint64_t csum_sum32(uint64_t sum, uint32_t from_be, uint32_t to_be)
{
	return sum + (uint32_t)~from_be + to_be;
}

/* What a change of 64 bits adds: at most 33 bits. */
static inline uint64_t csum_change64(uint64_t from_be, uint64_t to_be)
{
	uint64_t sum = ~from_be + to_be;

	sum += sum < to_be;
	return (sum >> 32) + (uint32_t)sum;
}

/* Each addition of the swapped halves leaves their sum in the upper one, its carry gone round. */
static inline uint16_t csum_sum_fold(uint64_t sum)
{
	uint32_t half;

	sum += sum << 32 | sum >> 32;
	half = sum >> 32;
	half += half << 16 | half >> 16;
	return half >> 16;
}

static inline uint16_t csum_apply_sum(uint16_t csum_be, uint64_t sum)
{
	return ~csum_sum_fold(sum + (csum_be ^ 0xffff));
}

/* For what changes with each packet. */
static inline uint16_t csum_update16(uint16_t csum_be, uint16_t from_be, uint16_t to_be)
{
	return csum_apply(csum_be, csum_delta_fold(csum_delta16(0, from_be, to_be)));
}

/*
 * Writes `len` bytes at base + off and adds to *delta what that changes in a checksum over words that are aligned to
 * `base`. The bytes may begin at an odd offset: their neighbours' words change then.
 */
static inline void csum_replace(uint8_t *base, size_t off, const void *bytes, size_t len, uint32_t *delta)
{
	size_t first = off & ~(size_t)1, end = (off + len + 1) & ~(size_t)1;
	uint16_t word_be;

	for (size_t i = first; i < end; i += 2) {
		memcpy(&word_be, base + i, 2);
		*delta += (uint16_t)~word_be;
	}
	memcpy(base + off, bytes, len);
	for (size_t i = first; i < end; i += 2) {
		memcpy(&word_be, base + i, 2);
		*delta += word_be;
	}
}
