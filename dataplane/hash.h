/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keyed hashing: XXH3 with a secret of 192 random bytes drawn at start, so that nobody outside can aim at a bucket.
 */
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stddef.h>
#include <stdint.h>

#define HASH_SECRET_LEN 192

static inline uint64_t hash_keyed(const void *data, size_t len, const uint8_t secret[static HASH_SECRET_LEN])
{
	return XXH3_64bits_withSecret(data, len, secret, HASH_SECRET_LEN);
}

/* Public hash with a fixed seed: for what must be equal on every gateway (Maglev). */
static inline uint64_t hash_public(const void *data, size_t len, uint64_t seed)
{
	return XXH3_64bits_withSeed(data, len, seed);
}
