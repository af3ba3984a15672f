#ifndef BENCH_CLOCKS_H
#define BENCH_CLOCKS_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* The clocks of a load generator: wall time, and the CPU time of itself and of the server that it loads. */

#define NS_PER_SECOND INT64_C(1000000000)

static inline int64_t clock_read_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return -1;
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

static inline int64_t monotonic_ns(void)
{
    return clock_read_ns(CLOCK_MONOTONIC);
}

/* CPU time of all threads of a process, user and kernel; -1 if there is no such process. */
static inline int64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0)
        return -1;
    return clock_read_ns(clock);
}

static inline int64_t own_cpu_ns(void)
{
    return clock_read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static inline int64_t seconds_to_ns(double seconds)
{
    return (int64_t)(seconds * 1e9);
}

#endif
