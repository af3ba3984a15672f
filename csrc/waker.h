/* waker.h: makes a descriptor readable, from any thread or signal handler, to end a poller's wait.
 *
 * eventfd(2) on Linux, a non-blocking pipe elsewhere and where a sandbox refuses it. (EVFILT_USER would save a
 * descriptor on kqueue, but only a pipe also serves the poll back end there.) */
#ifndef HOOP_WAKER_H
#define HOOP_WAKER_H

#include "base.h"

typedef struct hoop_waker {
    int read_fd;  /* watch this one for HOOP_READABLE; -1 when closed */
    int write_fd; /* equal to read_fd for an eventfd */
} hoop_waker;

int hoop_waker_open(hoop_waker *waker);        /* 0 or -errno; both descriptors are non-blocking and close-on-exec */
void hoop_waker_close(hoop_waker *waker);      /* idempotent */
int hoop_waker_wake(const hoop_waker *waker);  /* async-signal-safe; 0 also when one is already pending; or -errno */
int hoop_waker_drain(const hoop_waker *waker); /* 0, however many wake-ups were pending, or -errno */

/* Whether it never becomes full: where a poller tells edges, it then need not be drained, which saves a system call for
 * each wake-up. (An eventfd counts up to 2^64 - 2: at a million wake-ups a second that takes half a million years.) */
static inline bool hoop_waker_is_counter(const hoop_waker *waker)
{
    return waker->read_fd == waker->write_fd;
}

#endif
