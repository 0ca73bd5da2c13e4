/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A sequence count around what one thread writes and any may read (Boehm, "Can seqlocks get along with programming
 * language memory models?", MSPC 2012): the data is copied with relaxed atomics, so that readers race with nothing
 * else, and a reader takes a copy only if the count was even and stayed.
 */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

static inline void seq_write_begin(uint32_t *seq)
{
	__atomic_store_n(seq, *seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void seq_write_end(uint32_t *seq)
{
	__atomic_store_n(seq, *seq + 1, __ATOMIC_RELEASE);
}

/* Waits out a writer; one that lost its CPU in the middle needs that of the reader. */
static inline uint32_t seq_read_begin(const uint32_t *seq)
{
	uint32_t now;

	for (unsigned tries = 1; (now = __atomic_load_n(seq, __ATOMIC_ACQUIRE)) & 1; tries++)
		if (tries % 64 == 0)
			sched_yield();
	return now;
}

/* False: a writer is at it. */
static inline bool seq_read_try(const uint32_t *seq, uint32_t *begin)
{
	*begin = __atomic_load_n(seq, __ATOMIC_ACQUIRE);
	return !(*begin & 1);
}

/* True: what was copied since is not to be used. */
static inline bool seq_read_again(const uint32_t *seq, uint32_t begin)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(seq, __ATOMIC_RELAXED) != begin;
}
