#include "check.h"
#include "histogram.h"

#include <string.h>

TEST(an_empty_histogram_says_zero)
{
    hoop_histogram histogram;
    memset(&histogram, 0xff, sizeof histogram);
    hoop_histogram_init(&histogram);
    CHECK_EQ(histogram.count, 0);
    CHECK_EQ(histogram.max_ns, 0);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 50), 0);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 100), 0);
    CHECK_EQ(hoop_histogram_mean_ns(&histogram), 0);
}

TEST(small_values_are_exact)
{
    hoop_histogram histogram;
    hoop_histogram_init(&histogram);
    for (int64_t value = 1; value <= 63; value++) /* above that, a bucket holds two values */
        hoop_histogram_record(&histogram, value);
    CHECK_EQ(histogram.count, 63);
    CHECK_EQ(histogram.sum_ns, 63 * 32);
    CHECK_EQ(hoop_histogram_mean_ns(&histogram), 32);
    for (int64_t value = 1; value <= 63; value++)
        CHECK_EQ(hoop_histogram_percentile(&histogram, (double)value * 100 / 63 - 0.001), value);
}

TEST(percentiles_at_and_beyond_the_ends)
{
    hoop_histogram histogram;
    hoop_histogram_init(&histogram);
    hoop_histogram_record(&histogram, 10);
    hoop_histogram_record(&histogram, 1000003);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 0), 10);
    CHECK_EQ(hoop_histogram_percentile(&histogram, -1), 10);
    CHECK_EQ(hoop_histogram_percentile(&histogram, __builtin_nan("")), 10);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 50), 10);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 50.1), 1000003); /* not beyond the maximum */
    CHECK_EQ(hoop_histogram_percentile(&histogram, 100), 1000003);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 1e300), 1000003);
}

TEST(values_out_of_range_are_counted)
{
    hoop_histogram histogram;
    hoop_histogram_init(&histogram);
    hoop_histogram_record(&histogram, -5);
    hoop_histogram_record(&histogram, INT64_MIN);
    CHECK_EQ(histogram.buckets[0], 2);
    CHECK_EQ(histogram.max_ns, 0);
    CHECK_EQ(histogram.sum_ns, 0);
    hoop_histogram_record(&histogram, INT64_C(1) << HOOP_HISTOGRAM_RANGE_BITS);
    hoop_histogram_record(&histogram, INT64_MAX);
    CHECK_EQ(histogram.buckets[HOOP_HISTOGRAM_BUCKETS - 1], 2);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 100), INT64_MAX);
    CHECK_EQ(hoop_histogram_percentile(&histogram, 50), 0);
}

/* Around every power of two and every step: buckets follow one another without gap, and none is wider than 1/32. */
TEST(buckets_are_contiguous_and_narrow)
{
    size_t former = 0;
    for (int bit = 0; bit < HOOP_HISTOGRAM_RANGE_BITS; bit++) {
        for (uint64_t step = 0; step < 2 * HOOP_HISTOGRAM_STEPS; step++) {
            uint64_t first = (UINT64_C(1) << bit) + (step << bit) / (2 * HOOP_HISTOGRAM_STEPS);
            size_t bucket = hoop_histogram_bucket_of(first);
            CHECK(bucket >= former && bucket <= former + 1);
            former = bucket;
            if (bucket == HOOP_HISTOGRAM_BUCKETS - 1)
                continue; /* it has no end */
            hoop_histogram histogram;
            hoop_histogram_init(&histogram);
            hoop_histogram_record(&histogram, (int64_t)first);
            hoop_histogram_record(&histogram, INT64_MAX);
            uint64_t reported = (uint64_t)hoop_histogram_percentile(&histogram, 50);
            CHECK(reported >= first && reported - first <= first / HOOP_HISTOGRAM_STEPS);
        }
    }
    CHECK_EQ(former, HOOP_HISTOGRAM_BUCKETS - 1);
}

static int by_value(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

/* The model keeps every value and sorts. Half of the values go into a second histogram that is merged at the end. */
TEST(random_values_agree_with_a_sorted_list)
{
    enum { MOST = 5000 };
    static int64_t values[MOST];
    uint64_t random = check_use_seed(27182);
    for (int round = 0; round < 40; round++) {
        size_t count = 1 + check_random_below(&random, MOST);
        hoop_histogram histogram;
        hoop_histogram_init(&histogram);
        uint64_t sum = 0;
        for (size_t i = 0; i < count; i++) {
            values[i] = (int64_t)(check_random(&random) >> (25 + check_random_below(&random, 39)));
            sum += (uint64_t)values[i];
            hoop_histogram_record(&histogram, values[i]);
        }
        qsort(values, count, sizeof values[0], by_value);
        CHECK_EQ(histogram.count, count);
        CHECK_EQ(histogram.sum_ns, sum);
        CHECK_EQ(histogram.max_ns, values[count - 1]);
        for (size_t rank = 1; rank <= count; rank += 1 + count / 100) {
            int64_t expected = values[rank - 1];
            int64_t got = hoop_histogram_percentile(&histogram, ((double)rank - 0.5) * 100 / (double)count);
            CHECK(got >= expected && got - expected <= expected / HOOP_HISTOGRAM_STEPS);
        }
    }
}

TEST(values_from_a_bound_on_are_counted_by_buckets)
{
    static hoop_histogram histogram;
    hoop_histogram_init(&histogram);
    CHECK_EQ(hoop_histogram_count_from(&histogram, 0), 0);
    for (int64_t value_ns = 0; value_ns < 20; value_ns++)
        hoop_histogram_record(&histogram, value_ns);
    hoop_histogram_record(&histogram, INT64_MAX);
    CHECK_EQ(hoop_histogram_count_from(&histogram, -1), 21);
    CHECK_EQ(hoop_histogram_count_from(&histogram, 5), 16);
    CHECK_EQ(hoop_histogram_count_from(&histogram, 20), 1);
    CHECK_EQ(hoop_histogram_count_from(&histogram, INT64_MAX), 1);
}

int main(void)
{
    RUN(an_empty_histogram_says_zero);
    RUN(small_values_are_exact);
    RUN(percentiles_at_and_beyond_the_ends);
    RUN(values_out_of_range_are_counted);
    RUN(buckets_are_contiguous_and_narrow);
    RUN(random_values_agree_with_a_sorted_list);
    RUN(values_from_a_bound_on_are_counted_by_buckets);
    return check_finish();
}
