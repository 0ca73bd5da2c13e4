/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fuzz target is one function, linked either with libFuzzer (which searches) or with a driver that repeats the same
 * inputs from the same seed, and needs no clang: random.c for frames, programs.c for programs.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* One packet of a target. It ends the process if something is wrong; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
/* Once, before the first packet. Targets without any preparation leave it out. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
