#include "check.h"
#include "ring.h"

/* Items are numbers in disguise; the ring never follows them. */
static void *item(uintptr_t number)
{
    return (void *)(number + 1);
}

TEST(an_empty_ring_has_no_storage)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    CHECK(ring.items == NULL);
    CHECK_EQ(hoop_ring_size(&ring), 0);
    CHECK(hoop_ring_pop(&ring) == NULL);
    CHECK_EQ(hoop_ring_size(&ring), 0);
    hoop_ring_free(&ring);
}

TEST(first_in_is_first_out)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    for (uintptr_t i = 0; i < 1000; i++)
        CHECK_EQ(hoop_ring_push(&ring, item(i)), 0);
    CHECK_EQ(hoop_ring_size(&ring), 1000);
    CHECK_EQ(ring.capacity, 1024);
    for (uintptr_t i = 0; i < 1000; i++)
        CHECK(hoop_ring_pop(&ring) == item(i));
    CHECK(hoop_ring_pop(&ring) == NULL);
    hoop_ring_free(&ring);
}

/* Growing while full at every possible position of the head, in an even and in an odd round through the array, and when
 * the counters are about to overflow. */
TEST(growing_keeps_order_wherever_the_head_stands)
{
    const uint32_t starts[] = {0, UINT32_MAX - 127};
    for (size_t s = 0; s < 2; s++) {
        for (uint32_t shift = 0; shift < 256; shift++) {
            hoop_ring ring;
            hoop_ring_init(&ring);
            REQUIRE(hoop_ring_grow(&ring) == 0);
            ring.head = ring.tail = starts[s] + shift;
            for (uintptr_t i = 0; i < 65; i++) /* the last one grows it */
                CHECK_EQ(hoop_ring_push(&ring, item(i)), 0);
            CHECK_EQ(ring.capacity, 128);
            CHECK_EQ(hoop_ring_size(&ring), 65);
            for (uintptr_t i = 0; i < 65; i++)
                CHECK(hoop_ring_pop(&ring) == item(i));
            hoop_ring_free(&ring);
        }
    }
}

TEST(growing_a_ring_that_is_not_full_keeps_its_items)
{
    for (uint32_t start = 0; start < 128; start++) {
        hoop_ring ring;
        hoop_ring_init(&ring);
        REQUIRE(hoop_ring_grow(&ring) == 0);
        for (uintptr_t i = 0; i < 64; i++) /* so that the whole array is initialised */
            ring.items[i] = item(0);
        ring.head = ring.tail = start;
        for (uintptr_t i = 0; i < 40; i++)
            CHECK_EQ(hoop_ring_push(&ring, item(i)), 0);
        CHECK_EQ(hoop_ring_grow(&ring), 0);
        for (uintptr_t i = 0; i < 40; i++)
            CHECK(hoop_ring_pop(&ring) == item(i));
        hoop_ring_free(&ring);
    }
}

TEST(a_steady_load_allocates_nothing)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    CHECK_EQ(hoop_ring_push(&ring, item(0)), 0);
    unsigned long calls = alloc_fault_calls();
    for (uintptr_t i = 1; i < 10000; i++) {
        CHECK_EQ(hoop_ring_push(&ring, item(i)), 0);
        CHECK(hoop_ring_pop(&ring) == item(i - 1));
    }
    CHECK_EQ(alloc_fault_calls() - calls, 0);
    hoop_ring_free(&ring);
}

TEST(a_failed_growth_changes_nothing)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    alloc_fault_after(0);
    CHECK_EQ(hoop_ring_push(&ring, item(0)), -ENOMEM);
    CHECK_EQ(hoop_ring_size(&ring), 0);
    CHECK(ring.items == NULL);
    alloc_fault_after(1);
    for (uintptr_t i = 0; i < 64; i++)
        CHECK_EQ(hoop_ring_push(&ring, item(i)), 0);
    hoop_ring before = ring;
    CHECK_EQ(hoop_ring_push(&ring, item(64)), -ENOMEM);
    CHECK(ring.items == before.items);
    CHECK_EQ(ring.capacity, before.capacity);
    CHECK_EQ(ring.head, before.head);
    CHECK_EQ(ring.tail, before.tail);
    alloc_fault_after(-1);
    CHECK_EQ(hoop_ring_push(&ring, item(64)), 0);
    for (uintptr_t i = 0; i < 65; i++)
        CHECK(hoop_ring_pop(&ring) == item(i));
    hoop_ring_free(&ring);
}

TEST(a_capacity_whose_double_overflows_is_refused)
{
    const uint32_t capacity = UINT32_C(1) << 31;
    hoop_ring ring = {.items = NULL, .capacity = capacity, .head = 0, .tail = capacity};
    unsigned long calls = alloc_fault_calls();
    CHECK_EQ(hoop_ring_push(&ring, item(0)), -ENOMEM);
    CHECK_EQ(alloc_fault_calls() - calls, 0);
    CHECK_EQ(ring.capacity, capacity);
}

TEST(a_freed_ring_is_usable_again)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    CHECK_EQ(hoop_ring_push(&ring, item(0)), 0);
    hoop_ring_free(&ring);
    CHECK_EQ(hoop_ring_size(&ring), 0);
    CHECK(hoop_ring_pop(&ring) == NULL);
    CHECK_EQ(hoop_ring_push(&ring, item(1)), 0);
    CHECK(hoop_ring_pop(&ring) == item(1));
    hoop_ring_free(&ring);
    hoop_ring_free(&ring);
}

typedef struct walk {
    uintptr_t next;
    uintptr_t stop_at;
} walk;

static int step(void *visited, void *arg)
{
    walk *state = arg;
    CHECK(visited == item(state->next));
    return state->next++ == state->stop_at ? 7 : 0;
}

TEST(visit_goes_from_the_oldest_and_stops_when_told)
{
    hoop_ring ring;
    hoop_ring_init(&ring);
    walk state = {.next = 0, .stop_at = 1000};
    CHECK_EQ(hoop_ring_visit(&ring, step, &state), 0);
    CHECK_EQ(state.next, 0);
    for (uintptr_t i = 0; i < 100; i++) {
        CHECK_EQ(hoop_ring_push(&ring, item(i)), 0);
        if (i < 40)
            hoop_ring_pop(&ring);
    }
    state = (walk){.next = 40, .stop_at = 1000};
    CHECK_EQ(hoop_ring_visit(&ring, step, &state), 0);
    CHECK_EQ(state.next, 100);
    state = (walk){.next = 40, .stop_at = 50};
    CHECK_EQ(hoop_ring_visit(&ring, step, &state), 7);
    CHECK_EQ(state.next, 51);
    CHECK_EQ(hoop_ring_size(&ring), 60);
    hoop_ring_free(&ring);
}

/* The model: items carry their number, so a ring that holds [oldest, newest) pops exactly oldest. Allocations fail now
 * and then. */
TEST(random_operations_agree_with_the_model)
{
    uint64_t random = check_use_seed(20240229);
    hoop_ring ring;
    hoop_ring_init(&ring);
    uintptr_t oldest = 0, newest = 0;
    unsigned push_percent = 50;
    for (int i = 0; i < 300000; i++) {
        if (i % 5000 == 0)
            push_percent = 30 + (unsigned)check_random_below(&random, 41);
        if (check_random_below(&random, 100) < push_percent) {
            bool full = newest - oldest == ring.capacity;
            bool fails = check_random_below(&random, 4) == 0;
            alloc_fault_after(fails ? 0 : -1);
            int result = hoop_ring_push(&ring, item(newest));
            CHECK_EQ(result, full && fails ? -ENOMEM : 0);
            if (result == 0)
                newest++;
        } else {
            void *expected = oldest == newest ? NULL : item(oldest++);
            CHECK(hoop_ring_pop(&ring) == expected);
        }
        CHECK_EQ(hoop_ring_size(&ring), newest - oldest);
        if (i % 1000 == 0) {
            walk state = {.next = oldest, .stop_at = UINTPTR_MAX};
            CHECK_EQ(hoop_ring_visit(&ring, step, &state), 0);
            CHECK_EQ(state.next, newest);
        }
        if (check_random_below(&random, 50000) == 0) {
            hoop_ring_free(&ring);
            oldest = newest;
        }
    }
    hoop_ring_free(&ring);
}

int main(void)
{
    RUN(an_empty_ring_has_no_storage);
    RUN(first_in_is_first_out);
    RUN(growing_keeps_order_wherever_the_head_stands);
    RUN(growing_a_ring_that_is_not_full_keeps_its_items);
    RUN(a_steady_load_allocates_nothing);
    RUN(a_failed_growth_changes_nothing);
    RUN(a_capacity_whose_double_overflows_is_refused);
    RUN(a_freed_ring_is_usable_again);
    RUN(visit_goes_from_the_oldest_and_stops_when_told);
    RUN(random_operations_agree_with_the_model);
    return check_finish();
}
