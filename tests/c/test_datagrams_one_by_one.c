/* The same tests for the loops of single calls, also where the system has calls for batches. */
#define HOOP_HAVE_MMSG 0
#define HOOP_HAVE_UDP_SEGMENT 0
#define ALLOC_FAULT_INJECT 1
#include "alloc_fault.h"

#include "../../csrc/datagrams.c"
#include "test_datagrams.c"
