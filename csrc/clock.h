/* clock.h: the one clock of the loop, monotonic nanoseconds (clock_gettime(2), CLOCK_MONOTONIC).
 * It is the clock of Python's time.monotonic(), so the two can be compared. */
#ifndef HOOP_CLOCK_H
#define HOOP_CLOCK_H

#include "base.h"
#include <time.h>

#define HOOP_NS_PER_SECOND INT64_C(1000000000)

static inline int64_t hoop_clock_ns(void)
{
    struct timespec now;
    int result = clock_gettime(CLOCK_MONOTONIC, &now);
    HOOP_ASSERT(result == 0); /* only EFAULT and EINVAL are possible, and neither applies */
    return (int64_t)now.tv_sec * HOOP_NS_PER_SECOND + now.tv_nsec;
}

/* The time of the latest tick of the kernel, for a fifth of what the time of now costs. It is not later than now, and
 * earlier by at most HOOP_CLOCK_TICK_NS, unless the machine itself has stood still. Where there is none: now. */
#define HOOP_CLOCK_TICK_NS INT64_C(10000000) /* of a kernel that ticks a hundred times a second, the slowest there is */

static inline int64_t hoop_clock_tick_ns(void)
{
#ifdef CLOCK_MONOTONIC_COARSE /* Linux */
    struct timespec tick;
    int result = clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
    HOOP_ASSERT(result == 0);
    return (int64_t)tick.tv_sec * HOOP_NS_PER_SECOND + tick.tv_nsec;
#else
    return hoop_clock_ns();
#endif
}

static inline struct timespec hoop_timespec_of(int64_t time_ns) /* of a time or a duration */
{
    return (struct timespec){.tv_sec = (time_t)(time_ns / HOOP_NS_PER_SECOND),
                             .tv_nsec = (long)(time_ns % HOOP_NS_PER_SECOND)};
}

#endif
