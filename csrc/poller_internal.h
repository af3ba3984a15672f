/* poller_internal.h: what the front and the back ends share, and the knob with which tests reach the ways of waiting
 * that this machine's kernel would never choose. Only the poller and its tests include it. */
#ifndef HOOP_POLLER_INTERNAL_H
#define HOOP_POLLER_INTERNAL_H

#include "clock.h"
#include "platform.h"
#include "poller.h"

extern const hoop_poller_backend hoop_poller_poll_backend;
#if HOOP_HAVE_EPOLL
extern const hoop_poller_backend hoop_poller_epoll_backend;
#endif
#if HOOP_HAVE_KQUEUE
extern const hoop_poller_backend hoop_poller_kqueue_backend;
#endif

/* The back ends of this build, the platform's best first; NULL from the end of the list on. */
const hoop_poller_backend *hoop_poller_backend_at(int index);

#define HOOP_NS_PER_MS INT64_C(1000000)

/* No single kernel wait is longer than this; longer ones are repeated. A day keeps clear of every limit: an int of
 * milliseconds ends after 24 days, and XNU refuses a timespec of more than 10^8 seconds. */
#define HOOP_POLLER_LONGEST_WAIT_NS (INT64_C(86400) * HOOP_NS_PER_SECOND)

/* A table by descriptor number, with an item for fd: grown by doubling, the new items zero, and *count set to how many
 * it has. NULL without memory; then `table` is as it was. The caller has checked that fd is open: the table is as large
 * as the largest number, and a made-up one must not cost gigabytes. */
void *hoop_poller_reserve(void *table, int *count, size_t item_size, int fd);

static inline int64_t hoop_poller_deadline_ns(int64_t timeout_ns) /* INT64_MAX for "never" */
{
    if (timeout_ns < 0)
        return INT64_MAX;
    int64_t now_ns = hoop_clock_ns();
    return timeout_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + timeout_ns;
}

static inline int64_t hoop_poller_one_wait_ns(int64_t timeout_ns) /* what to ask the kernel for */
{
    return timeout_ns < HOOP_POLLER_LONGEST_WAIT_NS ? timeout_ns : HOOP_POLLER_LONGEST_WAIT_NS;
}

/* Milliseconds, rounded up, so that a wait told in them is never short. */
static inline int hoop_poller_round_up_ms(int64_t timeout_ns)
{
    return (int)((hoop_poller_one_wait_ns(timeout_ns) + HOOP_NS_PER_MS - 1) / HOOP_NS_PER_MS);
}

#if HOOP_HAVE_EPOLL
typedef enum hoop_epoll_wait_mode {
    HOOP_EPOLL_NANOSECONDS, /* epoll_pwait2(2); where every poller starts */
    HOOP_EPOLL_TIMERFD,     /* epoll_wait(2), and a timerfd in the set for what is not a whole number of milliseconds */
    HOOP_EPOLL_MILLISECONDS /* epoll_wait(2), rounded up */
} hoop_epoll_wait_mode;

/* Have this epoll poller wait as if the kernel had refused the modes before `mode`. 0, or -ENOTSUP for another back
 * end. */
int hoop_poller_epoll_force_wait(hoop_poller *poller, hoop_epoll_wait_mode mode);
hoop_epoll_wait_mode hoop_poller_epoll_wait_mode(const hoop_poller *poller); /* the poller is an open epoll one */
#endif

#endif
