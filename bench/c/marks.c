/* Marks for valgrind's callgrind, as functions that Python can call: between two marks it counts instructions. A client
 * request is a few instructions that do nothing on the machine itself, so without valgrind the marks do nothing. */

#include <stddef.h>
#include <stdlib.h>

#include <valgrind/callgrind.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { LARGEST = 96 * 1024, STEP = 16, SMALLEST = 24 }; /* of blocks, in bytes; larger ones are mapped */

/* Count from here on. Until then the program runs several times as fast. */
void marks_start(void)
{
    CALLGRIND_START_INSTRUMENTATION;
}

/* Count from zero. */
void marks_zero(void)
{
    CALLGRIND_ZERO_STATS;
}

/* Write what was counted to the next file of figures. */
void marks_write(void)
{
    CALLGRIND_DUMP_STATS;
}

/* Use up what is free in the middle of malloc's heap, for good. How long malloc searches depends on what lies free
 * there, and that on the length of every path and variable: the same echo took up to two per cent more in another
 * folder. After this, blocks are cut from the end of the heap. */
void marks_fill_heap(void)
{
#ifdef __GLIBC__
    for (size_t size = LARGEST; size >= SMALLEST; size -= STEP) {
        for (;;) {
            struct mallinfo2 before = mallinfo2();
            if (before.fordblks - before.keepcost < size)
                break;
            void *block = malloc(size);
            struct mallinfo2 after = mallinfo2();
            if (!block || after.keepcost != before.keepcost) {
                free(block);
                break;
            }
        }
    }
#endif
}
