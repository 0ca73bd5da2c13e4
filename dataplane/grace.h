/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Publishing to the workers, and waiting until none of them sees what was published before: liburcu's QSBR, with what
 * it promises said to ThreadSanitizer, which knows nothing of barriers in a library that it did not build.
 */
#pragma once

#include <urcu-qsbr.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GRACE_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define GRACE_TSAN 1
#endif

#ifdef GRACE_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
extern char grace_anchor;
#define grace_happens_before(addr) __tsan_release((void *)(addr))
#define grace_happens_after(addr)  __tsan_acquire((void *)(addr))
#else
#define grace_happens_before(addr) ((void)0)
#define grace_happens_after(addr)  ((void)0)
#endif

/* Who finds the pointer sees all that was written before. */
#define grace_publish(pointer, value)                                                                                  \
	do {                                                                                                           \
		grace_happens_before(&(pointer));                                                                      \
		rcu_assign_pointer(pointer, value);                                                                    \
	} while (0)

#define grace_find(pointer)                                                                                            \
	({                                                                                                             \
		__typeof__(pointer) found = rcu_dereference(pointer);                                                  \
		grace_happens_after(&(pointer));                                                                       \
		found;                                                                                                 \
	})

/* Returns when each worker has let go of what it had found before. Not for workers. */
static inline void grace_wait(void)
{
	synchronize_rcu();
	grace_happens_after(&grace_anchor);
}

/* A worker holds nothing that it found. */
static inline void grace_let_go(void)
{
	grace_happens_before(&grace_anchor);
	urcu_qsbr_quiescent_state();
}

/* A worker holds nothing, and will look for nothing until it is back. */
static inline void grace_leave(void)
{
	grace_happens_before(&grace_anchor);
	urcu_qsbr_thread_offline();
}

static inline void grace_come_back(void)
{
	urcu_qsbr_thread_online();
}
