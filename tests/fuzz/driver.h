/* SPDX-License-Identifier: BSD-3-Clause */
/* What those share that feed a fuzz target without libFuzzer. */
#pragma once

#include "fuzz.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A copy of exactly that length on the heap, so that a sanitizer sees the first byte too far. */
static inline void driver_play(const uint8_t *input, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	memcpy(copy, input, len);
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
}

/* DIR/KIND_NUMBER, for a corpus. Returns 0, or 1 and has said why not. */
static inline int driver_write(const char *dir, const char *kind, unsigned number, const uint8_t *input, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s_%02u", dir, kind, number);
	f = fopen(path, "wb");
	if (f && fwrite(input, 1, len, f) == len && !fclose(f))
		return 0;
	perror(path);
	return 1;
}
