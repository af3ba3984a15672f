#include "histogram.h"

#include <string.h>

void hoop_histogram_init(hoop_histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

static int64_t greatest_in_bucket(size_t bucket)
{
    if (bucket < HOOP_HISTOGRAM_STEPS)
        return (int64_t)bucket;
    size_t shift = bucket / HOOP_HISTOGRAM_STEPS - 1;
    uint64_t step = bucket - shift * HOOP_HISTOGRAM_STEPS;
    return (int64_t)(((step + 1) << shift) - 1);
}

/* How many of count values are the given per cent, rounded up, at least 1. Not by ceil(): csrc does without libm. */
static uint64_t rank_of(uint64_t count, double percentile)
{
    if (!(percentile > 0))
        return 1;
    if (percentile >= 100)
        return count;
    double exact = (double)count * percentile / 100;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact)
        rank++;
    return rank < 1 ? 1 : rank > count ? count : rank;
}

int64_t hoop_histogram_percentile(const hoop_histogram *histogram, double percentile)
{
    if (histogram->count == 0)
        return 0;
    uint64_t rank = rank_of(histogram->count, percentile);
    uint64_t seen = 0;
    for (size_t i = 0; i < HOOP_HISTOGRAM_BUCKETS - 1; i++) {
        seen += histogram->buckets[i];
        if (seen >= rank) {
            int64_t value = greatest_in_bucket(i);
            return value < histogram->max_ns ? value : histogram->max_ns;
        }
    }
    return histogram->max_ns; /* the last bucket has no end of its own */
}

int64_t hoop_histogram_mean_ns(const hoop_histogram *histogram)
{
    return histogram->count == 0 ? 0 : (int64_t)(histogram->sum_ns / histogram->count);
}

uint64_t hoop_histogram_count_from(const hoop_histogram *histogram, int64_t value_ns)
{
    size_t first = hoop_histogram_bucket_of(value_ns < 0 ? 0 : (uint64_t)value_ns);
    uint64_t count = 0;
    for (size_t bucket = first; bucket < HOOP_HISTOGRAM_BUCKETS; bucket++)
        count += histogram->buckets[bucket];
    return count;
}
