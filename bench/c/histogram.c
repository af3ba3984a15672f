#include "histogram.h"

#include <string.h>

/* Values below HISTOGRAM_STEPS have a bucket each. Above, the highest HISTOGRAM_STEP_BITS + 1 bits of a value name its
 * bucket: the number of bits dropped selects the group, the bits that follow the leading one the step in it. */
static unsigned bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_STEPS)
        return (unsigned)value;
    if (value >> HISTOGRAM_MAX_BITS)
        return HISTOGRAM_BUCKETS - 1;
    unsigned dropped = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;
    return dropped * HISTOGRAM_STEPS + (unsigned)(value >> dropped);
}

static uint64_t bucket_last_value(unsigned bucket)
{
    if (bucket < 2 * HISTOGRAM_STEPS)
        return bucket;
    unsigned dropped = bucket / HISTOGRAM_STEPS - 1;
    uint64_t leading = bucket % HISTOGRAM_STEPS + HISTOGRAM_STEPS;
    return ((leading + 1) << dropped) - 1;
}

void histogram_clear(struct histogram *histogram)
{
    memset(histogram, 0, sizeof(*histogram));
}

void histogram_add(struct histogram *histogram, int64_t value_ns)
{
    uint64_t value = value_ns > 0 ? (uint64_t)value_ns : 0;
    histogram->count++;
    histogram->buckets[bucket_of(value)]++;
    if (value > histogram->max_ns)
        histogram->max_ns = value;
}

uint64_t histogram_percentile_ns(const struct histogram *histogram, double fraction)
{
    if (histogram->count == 0)
        return 0;
    double exact_rank = fraction * (double)histogram->count;
    uint64_t rank = (uint64_t)exact_rank;
    if ((double)rank < exact_rank || rank == 0)
        rank++;
    uint64_t seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank) {
            uint64_t last = bucket_last_value(bucket);
            return last < histogram->max_ns ? last : histogram->max_ns;
        }
    }
    return histogram->max_ns;
}
