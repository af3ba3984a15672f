/* allocator.h: has malloc(3) know from the start what it otherwise learns late.
 *
 * glibc maps every block of 128 KiB or more by itself, and returns the free top of its heap to the kernel once that is
 * as large, so a program that moves large messages pays mmap, a page fault for each 4 KiB, and munmap again and again.
 * The first mapped block that is freed raises both limits, to its size and to twice that (mallopt(3),
 * M_MMAP_THRESHOLD): a program that has run for a while is mostly spared, a fresh one is not. So free one at once. It
 * is never written to: no memory is taken. At most twice its size stays with the process after a burst. Does nothing
 * where the operator has set the limits (MALLOC_MMAP_THRESHOLD_) or malloc is another's.
 */
#ifndef HOOP_ALLOCATOR_H
#define HOOP_ALLOCATOR_H

#include <stdlib.h>

#define HOOP_ALLOCATOR_LARGE_BLOCK ((size_t)8 * 1024 * 1024)

static inline void hoop_allocator_expect_large_blocks(void)
{
    void *volatile block = malloc(HOOP_ALLOCATOR_LARGE_BLOCK); /* volatile: else the compiler leaves both calls out */
    free(block);                                               /* NULL: the limits stay */
}

#endif
