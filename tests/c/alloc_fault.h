/* alloc_fault.h: lets a test make the allocations of csrc fail.
 *
 * The Makefile puts this header in front of every csrc file (-include), so that malloc, calloc and realloc there pass
 * through alloc_fault.c; the tests' own allocations do not. A linker's --wrap would do the same, but only GNU's has
 * it. */
#ifndef HOOP_TESTS_ALLOC_FAULT_H
#define HOOP_TESTS_ALLOC_FAULT_H

#include <stddef.h>
#include <stdlib.h>

/* Let the next `count` allocations made by this thread succeed and every later one fail; negative: none fails. */
void alloc_fault_after(long count);
/* How many allocations this thread has asked for, failed ones included. */
unsigned long alloc_fault_calls(void);

void *alloc_fault_malloc(size_t size);
void *alloc_fault_calloc(size_t count, size_t size);
void *alloc_fault_realloc(void *block, size_t size);

#ifdef ALLOC_FAULT_INJECT
#define malloc(size) alloc_fault_malloc(size)
#define calloc(count, size) alloc_fault_calloc(count, size)
#define realloc(block, size) alloc_fault_realloc(block, size)
#endif

#endif
