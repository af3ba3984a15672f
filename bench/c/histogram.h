#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

/* A log-linear histogram of latencies in nanoseconds, of a fixed size and without allocation: 64 linear steps for each
 * power of two, so that a percentile is at most 1/64 (1.6 %) above the true value. The largest value is kept
 * exactly. */

enum {
    HISTOGRAM_STEP_BITS = 6,
    HISTOGRAM_STEPS = 1 << HISTOGRAM_STEP_BITS,
    HISTOGRAM_MAX_BITS = 40, /* values up to 2^40 ns = 18 minutes; longer ones are counted as that */
    HISTOGRAM_BUCKETS = (HISTOGRAM_MAX_BITS - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS,
};

struct histogram {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_add(struct histogram *histogram, int64_t value_ns);

/* The value that `fraction` (0 to 1) of all values do not exceed, rounded up to the end of its bucket; 0 if empty. */
uint64_t histogram_percentile_ns(const struct histogram *histogram, double fraction);

#endif
