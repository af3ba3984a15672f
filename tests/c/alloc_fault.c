#include "alloc_fault.h"

#include <errno.h>
#include <stdbool.h>

/* Per thread, so that a test which fails its own allocations leaves worker threads alone. */
static _Thread_local long calls_left = -1;
static _Thread_local unsigned long calls_made;

void alloc_fault_after(long count)
{
    calls_left = count < 0 ? -1 : count;
}

unsigned long alloc_fault_calls(void)
{
    return calls_made;
}

static bool must_fail(void)
{
    calls_made++;
    if (calls_left < 0)
        return false;
    if (calls_left > 0) {
        calls_left--;
        return false;
    }
    errno = ENOMEM;
    return true;
}

void *alloc_fault_malloc(size_t size)
{
    return must_fail() ? NULL : malloc(size);
}

void *alloc_fault_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : calloc(count, size);
}

void *alloc_fault_realloc(void *block, size_t size)
{
    return must_fail() ? NULL : realloc(block, size);
}
