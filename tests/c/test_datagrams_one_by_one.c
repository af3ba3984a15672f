/* The same tests for the loops of single calls, also where the system has calls for batches. */
#define HOOP_DATAGRAMS_ONE_BY_ONE 1
#define ALLOC_FAULT_INJECT 1
#include "alloc_fault.h"

#include "../../csrc/datagrams.c"
#include "test_datagrams.c"
