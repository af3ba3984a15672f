/* histogram.h: counts durations in fixed memory: the basis of percentiles of waits, runs and lag.
 *
 * Log-linear, as in HDR Histogram: each power of two is cut into HOOP_HISTOGRAM_STEPS equal buckets, so a value is
 * known to within 1/32 of itself from a nanosecond to 18 minutes (longer ones are counted in the last bucket). Count,
 * sum and maximum are exact. Recording is a few instructions and never fails.
 *
 * A histogram belongs to one thread at a time; the owner of a shared one holds a lock. */
#ifndef HOOP_HISTOGRAM_H
#define HOOP_HISTOGRAM_H

#include "base.h"

#define HOOP_HISTOGRAM_STEP_BITS 5
#define HOOP_HISTOGRAM_STEPS (1 << HOOP_HISTOGRAM_STEP_BITS)
#define HOOP_HISTOGRAM_RANGE_BITS 40 /* values from 2^40 ns on share the last bucket */
#define HOOP_HISTOGRAM_BUCKETS ((HOOP_HISTOGRAM_RANGE_BITS - HOOP_HISTOGRAM_STEP_BITS + 1) * HOOP_HISTOGRAM_STEPS)

typedef struct hoop_histogram {
    uint64_t count;
    uint64_t sum_ns; /* wraps after 584 years of recorded time */
    int64_t max_ns;  /* 0 when empty */
    uint64_t buckets[HOOP_HISTOGRAM_BUCKETS];
} hoop_histogram;

void hoop_histogram_init(hoop_histogram *histogram); /* empty; also the way to reset one */
/* The least value that `percentile` per cent of the recorded ones do not exceed: rounded up to the end of its bucket,
 * but never above the maximum. 0 when empty. A percentile below 0 (or NaN) counts as 0, one above 100 as 100. */
int64_t hoop_histogram_percentile(const hoop_histogram *histogram, double percentile);
/* How many recorded values are value_ns or more; those of its bucket that are a little less are counted too. */
uint64_t hoop_histogram_count_from(const hoop_histogram *histogram, int64_t value_ns);
int64_t hoop_histogram_mean_ns(const hoop_histogram *histogram); /* 0 when empty */

static inline size_t hoop_histogram_bucket_of(uint64_t value)
{
    if (value < HOOP_HISTOGRAM_STEPS)
        return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - HOOP_HISTOGRAM_STEP_BITS;
    size_t bucket = (size_t)shift * HOOP_HISTOGRAM_STEPS + (size_t)(value >> shift);
    return bucket < HOOP_HISTOGRAM_BUCKETS ? bucket : HOOP_HISTOGRAM_BUCKETS - 1;
}

static inline void hoop_histogram_record(hoop_histogram *histogram, int64_t value_ns) /* below 0 counts as 0 */
{
    if (HOOP_UNLIKELY(value_ns < 0))
        value_ns = 0;
    histogram->count++;
    histogram->sum_ns += (uint64_t)value_ns;
    if (value_ns > histogram->max_ns)
        histogram->max_ns = value_ns;
    histogram->buckets[hoop_histogram_bucket_of((uint64_t)value_ns)]++;
}

#endif
