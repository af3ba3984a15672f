/* base.h: what every file of csrc may assume. csrc never includes Python.h.
 *
 * Conventions of the whole folder:
 *   - a function that can fail returns >= 0, or -errno; it never touches errno for its caller;
 *   - a structure belongs to one thread at a time unless its header says otherwise;
 *   - no global mutable state: two copies of this library in one process do not meet;
 *   - HOOP_ASSERT is for what the kernel or this code promises never happens, never for user input.
 */
#ifndef HOOP_BASE_H
#define HOOP_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__GNUC__) || defined(__clang__)
#define HOOP_LIKELY(x) __builtin_expect(!!(x), 1)
#define HOOP_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#define HOOP_LIKELY(x) (x)
#define HOOP_UNLIKELY(x) (x)
#endif

/* result = call, a system call that answers -1 and an errno, again for as long as a signal interrupts it. */
#define HOOP_RETRY(result, call) \
    do {                         \
        (result) = (call);       \
    } while (HOOP_UNLIKELY((result) < 0) && errno == EINTR)

/* What every kernel moves in one call: XNU refuses more than INT_MAX bytes with EINVAL, Linux cuts to this. */
#define HOOP_LARGEST_TRANSFER ((size_t)0x7ffff000)

static inline size_t hoop_transfer_size(size_t size)
{
    return size < HOOP_LARGEST_TRANSFER ? size : HOOP_LARGEST_TRANSFER;
}

#define HOOP_CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#define HOOP_ASSERT(condition)                                                                    \
    do {                                                                                          \
        if (HOOP_UNLIKELY(!(condition))) {                                                        \
            fprintf(stderr, "hoop: %s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

/* Called once for each item that a structure holds; a result other than 0 ends the walk and is returned. The shape is
 * that of CPython's visitproc, so that a garbage collector can be chained in. */
typedef int (*hoop_visit_fn)(void *item, void *arg);

#endif
