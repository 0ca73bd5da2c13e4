/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Any bytes as the options of a SYN: no access out of bounds, nothing but an MSS above the limit changes, none is
 * raised, and the checksum goes with it.
 */
#include "fuzz.h"

#include "clamp.h"

#include <stdlib.h>
#include <string.h>

#define HEADER 20

static void check(bool ok)
{
	if (!ok)
		__builtin_trap();
}

static uint32_t sum_of(const uint8_t *tcp, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += tcp[i] << 8 | tcp[i + 1];
	return sum % 0xffff;
}

static uint16_t mss_at(const uint8_t *tcp, uint8_t at)
{
	return tcp[at] << 8 | tcp[at + 1];
}

static void check_lowered(const uint8_t *before, uint8_t *tcp, size_t len, const struct mss_options *found,
			  uint16_t mss_max)
{
	mss_lower(tcp, found, mss_max);
	check(!mss_exceeds(tcp, found, mss_max));
	check(sum_of(tcp, len) == sum_of(before, len));
	for (uint8_t i = 0; i < found->n; i++) {
		uint16_t was = mss_at(before, found->at[i]);

		check(mss_at(tcp, found->at[i]) == (was > mss_max ? mss_max : was));
		memcpy(tcp + found->at[i], before + found->at[i], 2);
	}
	check(memcmp(tcp, before, 16) == 0 && memcmp(tcp + 18, before + 18, len - 18) == 0);
}

/* The first two bytes are the limit, the others the header, in memory that ends with it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct mss_options found;
	uint8_t *tcp;

	if (len < 2 + HEADER)
		return 0;
	len = (len - 2) / 4 * 4;
	len = len > 60 ? 60 : len;
	tcp = malloc(len);
	memcpy(tcp, data + 2, len);
	if (mss_find(tcp, len, &found)) {
		check(found.n <= MSS_OPTIONS_MAX);
		check_lowered(data + 2, tcp, len, &found, data[0] << 8 | data[1]);
	}
	free(tcp);
	return 0;
}
