/* The same tests for the pipe, also where the waker would be an eventfd. */
#define HOOP_HAVE_EVENTFD 0
#include "../../csrc/waker.c"
#include "test_waker.c"
