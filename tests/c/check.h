/* check.h: what a C test needs, and no more. A test file is one program:
 *
 *     #include "check.h"
 *     TEST(pop_of_an_empty_ring_is_null) { ... CHECK(ring.items == NULL); CHECK_EQ(hoop_ring_size(&ring), 0); }
 *     int main(void) { RUN(pop_of_an_empty_ring_is_null); return check_finish(); }
 *
 * A failed CHECK prints file, line and the values, and the test goes on; every check is an expression whose value says
 * whether it held, for `if (!CHECK(fd >= 0)) return;`. REQUIRE ends the program. Checks may be made from any thread;
 * the rest belongs to the main thread. What a test prints as its seed (check_use_seed) can be given back in the
 * environment: CHECK_SEED=123 build/ctests/address/test_ring. */
#ifndef HOOP_TESTS_CHECK_H
#define HOOP_TESTS_CHECK_H

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "alloc_fault.h"

/* A random-operation test that goes wrong goes wrong in every step; the first few lines say it all. */
#define CHECK_MAX_LINES_PER_TEST 10

static atomic_int check_failures_in_test;
static int check_passed;
static int check_failed;
static const char *check_test_name = "";
static uint64_t check_seed; /* 0: the running test has none */

static inline bool check_note_failure(void) /* whether to print it */
{
    return atomic_fetch_add(&check_failures_in_test, 1) < CHECK_MAX_LINES_PER_TEST;
}

static inline void check_print_origin(const char *file, int line)
{
    fprintf(stderr, "%s:%d: in %s", file, line, check_test_name);
    if (check_seed != 0)
        fprintf(stderr, " (CHECK_SEED=%" PRIu64 ")", check_seed);
    fputs(": ", stderr);
}

static inline bool check_that(bool holds, const char *text, const char *file, int line)
{
    if (!holds && check_note_failure()) {
        check_print_origin(file, line);
        fprintf(stderr, "not true: %s\n", text);
    }
    return holds;
}

static inline bool check_equal(long long got, long long expected, const char *text, const char *file, int line)
{
    if (got != expected && check_note_failure()) {
        check_print_origin(file, line);
        fprintf(stderr, "%s is %lld, expected %lld\n", text, got, expected);
    }
    return got == expected;
}

#define TEST(name) static void name(void)
#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)
#define CHECK_EQ(got, expected) check_equal((long long)(got), (long long)(expected), #got, __FILE__, __LINE__)
#define REQUIRE(condition)                                              \
    do {                                                                \
        if (!check_that((condition), #condition, __FILE__, __LINE__)) { \
            fputs("cannot go on without it\n", stderr);                 \
            exit(1);                                                    \
        }                                                               \
    } while (0)
#define RUN(name) check_run(#name, name)

static inline void check_run(const char *name, void (*test)(void))
{
    check_test_name = name;
    check_seed = 0;
    atomic_store(&check_failures_in_test, 0);
    alloc_fault_after(-1);
    test();
    alloc_fault_after(-1);
    int failures = atomic_load(&check_failures_in_test);
    if (failures == 0) {
        check_passed++;
        return;
    }
    check_failed++;
    fprintf(stderr, "FAILED %s: %d failed checks\n", name, failures);
}

static inline int check_finish(void) /* the exit status of main */
{
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed == 0 && fflush(stdout) == 0 ? 0 : 1;
}

/* Random operations: xorshift64*, the same sequence on every machine. */

/* The state to hand to check_random; the seed is printed on failure. */
static inline uint64_t check_use_seed(uint64_t seed)
{
    const char *wish = getenv("CHECK_SEED");
    if (wish != NULL && strtoull(wish, NULL, 10) != 0)
        seed = strtoull(wish, NULL, 10);
    check_seed = seed;
    return seed;
}

static inline uint64_t check_random(uint64_t *state) /* the state is never 0 */
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

static inline uint64_t check_random_below(uint64_t *state, uint64_t limit)
{
    return (check_random(state) >> 11) % limit;
}

#endif
