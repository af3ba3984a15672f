#include "check.h"
#include "clock.h"
#include "timers.h"

#include <string.h>

static void check_heap(const hoop_timers *timers, size_t size)
{
    CHECK_EQ(timers->size, size);
    CHECK(timers->capacity >= size);
    for (size_t i = 0; i < timers->size; i++)
        CHECK_EQ(timers->entries[i].timer->index, i);
}

TEST(an_empty_heap_has_nothing_due)
{
    hoop_timers timers;
    hoop_timers_init(&timers);
    CHECK(hoop_timers_pop_due(&timers, INT64_MAX) == NULL);
    CHECK_EQ(hoop_timers_deadline_ns(&timers, -5), -5);
    CHECK(timers.entries == NULL);
    hoop_timers_free(&timers);
}

TEST(a_timer_is_due_at_its_deadline_and_not_before)
{
    hoop_timers timers;
    hoop_timers_init(&timers);
    hoop_timer timer;
    hoop_timer_init(&timer);
    CHECK(!hoop_timer_is_pending(&timer));
    CHECK_EQ(hoop_timers_add(&timers, &timer, 1000), 0);
    CHECK(hoop_timer_is_pending(&timer));
    CHECK_EQ(hoop_timers_deadline_ns(&timers, -1), 1000);
    CHECK(hoop_timers_pop_due(&timers, 999) == NULL);
    CHECK(hoop_timer_is_pending(&timer));
    CHECK(hoop_timers_pop_due(&timers, 1000) == &timer);
    CHECK(!hoop_timer_is_pending(&timer));
    CHECK_EQ(hoop_timers_add(&timers, &timer, INT64_MIN), 0);
    CHECK(hoop_timers_pop_due(&timers, INT64_MIN) == &timer);
    CHECK_EQ(hoop_timers_add(&timers, &timer, INT64_MAX), 0);
    CHECK(hoop_timers_pop_due(&timers, INT64_MAX - 1) == NULL);
    CHECK(hoop_timers_pop_due(&timers, INT64_MAX) == &timer);
    hoop_timers_free(&timers);
}

TEST(equal_deadlines_come_in_the_order_of_adding)
{
    enum { COUNT = 500 };
    hoop_timer all[COUNT];
    hoop_timers timers;
    hoop_timers_init(&timers);
    for (size_t i = 0; i < COUNT; i++) {
        hoop_timer_init(&all[i]);
        CHECK_EQ(hoop_timers_add(&timers, &all[i], 77), 0);
    }
    for (size_t i = 0; i < COUNT; i += 2) /* added anew: behind all the others */
        CHECK_EQ(hoop_timers_remove(&timers, &all[i]), 0);
    for (size_t i = 0; i < COUNT; i += 2)
        CHECK_EQ(hoop_timers_add(&timers, &all[i], 77), 0);
    for (size_t i = 1; i < COUNT; i += 2)
        CHECK(hoop_timers_pop_due(&timers, 77) == &all[i]);
    for (size_t i = 0; i < COUNT; i += 2)
        CHECK(hoop_timers_pop_due(&timers, 77) == &all[i]);
    CHECK(hoop_timers_pop_due(&timers, INT64_MAX) == NULL);
    hoop_timers_free(&timers);
}

/* Removing from every position of heaps of every small size, so that the entry which fills the hole moves up, down and
 * not at all. */
TEST(removal_from_every_position_keeps_the_order)
{
    enum { MOST = 60 };
    uint64_t random = check_use_seed(4711);
    for (size_t size = 1; size <= MOST; size++) {
        for (size_t victim = 0; victim < size; victim++) {
            hoop_timer all[MOST];
            hoop_timers timers;
            hoop_timers_init(&timers);
            for (size_t i = 0; i < size; i++) {
                hoop_timer_init(&all[i]);
                CHECK_EQ(hoop_timers_add(&timers, &all[i], (int64_t)check_random_below(&random, 40)), 0);
            }
            hoop_timer *removed = timers.entries[victim].timer;
            CHECK_EQ(hoop_timers_remove(&timers, removed), 0);
            CHECK(!hoop_timer_is_pending(removed));
            check_heap(&timers, size - 1);
            int64_t last_ns = -1;
            for (size_t left = size - 1; left > 0; left--) {
                int64_t deadline_ns = hoop_timers_deadline_ns(&timers, -1);
                CHECK(deadline_ns >= last_ns);
                last_ns = deadline_ns;
                hoop_timer *popped = hoop_timers_pop_due(&timers, deadline_ns);
                CHECK(popped != NULL && popped != removed);
            }
            CHECK(hoop_timers_pop_due(&timers, INT64_MAX) == NULL);
            hoop_timers_free(&timers);
        }
    }
}

TEST(add_and_remove_refuse_the_wrong_state)
{
    hoop_timers timers;
    hoop_timers_init(&timers);
    hoop_timer timer;
    hoop_timer_init(&timer);
    CHECK_EQ(hoop_timers_remove(&timers, &timer), -ENOENT);
    CHECK_EQ(hoop_timers_add(&timers, &timer, 10), 0);
    CHECK_EQ(hoop_timers_add(&timers, &timer, 5), -EALREADY);
    CHECK_EQ(hoop_timers_deadline_ns(&timers, -1), 10);
    check_heap(&timers, 1);
    CHECK_EQ(hoop_timers_remove(&timers, &timer), 0);
    CHECK_EQ(hoop_timers_remove(&timers, &timer), -ENOENT);
    hoop_timers_free(&timers);
}

TEST(free_makes_all_timers_idle)
{
    hoop_timer all[100];
    hoop_timers timers;
    hoop_timers_init(&timers);
    for (size_t i = 0; i < 100; i++) {
        hoop_timer_init(&all[i]);
        CHECK_EQ(hoop_timers_add(&timers, &all[i], (int64_t)(i * 37 % 100)), 0);
    }
    hoop_timers_free(&timers);
    for (size_t i = 0; i < 100; i++)
        CHECK(!hoop_timer_is_pending(&all[i]));
    CHECK_EQ(hoop_timers_deadline_ns(&timers, -1), -1);
    CHECK_EQ(hoop_timers_add(&timers, &all[3], 1), 0); /* usable again */
    CHECK(hoop_timers_pop_due(&timers, 1) == &all[3]);
    hoop_timers_free(&timers);
    hoop_timers_free(&timers);
}

TEST(a_failed_growth_changes_nothing)
{
    hoop_timer all[65];
    for (size_t i = 0; i < 65; i++)
        hoop_timer_init(&all[i]);
    hoop_timers timers;
    hoop_timers_init(&timers);
    alloc_fault_after(0);
    CHECK_EQ(hoop_timers_add(&timers, &all[0], 1), -ENOMEM);
    CHECK(!hoop_timer_is_pending(&all[0]));
    CHECK(timers.entries == NULL && timers.size == 0 && timers.capacity == 0);
    alloc_fault_after(1);
    for (size_t i = 0; i < 64; i++)
        CHECK_EQ(hoop_timers_add(&timers, &all[i], 1000 - (int64_t)i), 0);
    hoop_timers before = timers;
    CHECK_EQ(hoop_timers_add(&timers, &all[64], 0), -ENOMEM);
    CHECK(memcmp(&timers, &before, sizeof timers) == 0);
    CHECK(!hoop_timer_is_pending(&all[64]));
    check_heap(&timers, 64);
    alloc_fault_after(-1);
    CHECK_EQ(hoop_timers_add(&timers, &all[64], 0), 0);
    for (size_t i = 65; i-- > 0;)
        CHECK(hoop_timers_pop_due(&timers, INT64_MAX) == &all[i]);
    hoop_timers_free(&timers);
}

TEST(a_capacity_whose_double_overflows_is_refused)
{
    size_t capacity = SIZE_MAX / 2 / sizeof(hoop_timer_entry) + 1;
    hoop_timers timers = {.entries = NULL, .size = capacity, .capacity = capacity, .next_sequence = 9};
    hoop_timer timer;
    hoop_timer_init(&timer);
    unsigned long calls = alloc_fault_calls();
    CHECK_EQ(hoop_timers_add(&timers, &timer, 1), -ENOMEM);
    CHECK_EQ(alloc_fault_calls() - calls, 0);
    CHECK(timers.size == capacity && timers.capacity == capacity && timers.next_sequence == 9);
    CHECK(!hoop_timer_is_pending(&timer));
}

struct seen_timers {
    const hoop_timer *all;
    int seen[50];
    int left;
};

static int mark(void *timer, void *arg)
{
    struct seen_timers *seen = arg;
    seen->seen[(hoop_timer *)timer - seen->all]++;
    return --seen->left == 0 ? -3 : 0;
}

TEST(visit_hands_out_each_timer_once_and_stops_when_told)
{
    hoop_timer all[50];
    struct seen_timers seen = {.all = all, .left = 1000};
    hoop_timers timers;
    hoop_timers_init(&timers);
    for (size_t i = 0; i < 50; i++) {
        hoop_timer_init(&all[i]);
        CHECK_EQ(hoop_timers_add(&timers, &all[i], (int64_t)(i * 7 % 50)), 0);
    }
    CHECK_EQ(hoop_timers_visit(&timers, mark, &seen), 0);
    CHECK_EQ(seen.left, 950);
    for (size_t i = 0; i < 50; i++)
        CHECK_EQ(seen.seen[i], 1);
    seen.left = 10;
    CHECK_EQ(hoop_timers_visit(&timers, mark, &seen), -3);
    CHECK_EQ(seen.left, 0);
    hoop_timers_free(&timers);
}

TEST(unreferenced_timers_do_not_count_while_they_are_pending)
{
    hoop_timer first, second;
    hoop_timers timers;
    hoop_timers_init(&timers);
    hoop_timer_init(&first);
    hoop_timer_init(&second);
    hoop_timers_set_referenced(&timers, &first, false); /* idle: remembered */
    CHECK_EQ(hoop_timers_referenced(&timers), 0);
    CHECK_EQ(hoop_timers_add(&timers, &first, 1), 0);
    CHECK_EQ(hoop_timers_add(&timers, &second, 2), 0);
    CHECK_EQ(hoop_timers_referenced(&timers), 1);
    hoop_timers_set_referenced(&timers, &second, false);
    hoop_timers_set_referenced(&timers, &second, false);
    CHECK_EQ(hoop_timers_referenced(&timers), 0);
    hoop_timers_set_referenced(&timers, &first, true);
    hoop_timers_set_referenced(&timers, &first, true);
    CHECK_EQ(hoop_timers_referenced(&timers), 1);
    CHECK_EQ(hoop_timers_remove(&timers, &second), 0);
    CHECK_EQ(hoop_timers_referenced(&timers), 1);
    CHECK_EQ(hoop_timers_add(&timers, &second, 0), 0); /* still unreferenced */
    CHECK(hoop_timers_pop_due(&timers, 0) == &second);
    CHECK(hoop_timers_pop_due(&timers, 1) == &first);
    CHECK_EQ(hoop_timers_referenced(&timers), 0);
    CHECK_EQ(hoop_timers_add(&timers, &second, 0), 0);
    hoop_timers_free(&timers);
    CHECK_EQ(hoop_timers_referenced(&timers), 0);
    CHECK_EQ(timers.unreferenced, 0);
}

/* The model: an unsorted array, searched from end to end. */
enum { MODEL_TIMERS = 300 };

typedef struct model {
    hoop_timer timers[MODEL_TIMERS];
    bool pending[MODEL_TIMERS];
    bool unreferenced[MODEL_TIMERS];
    int64_t deadline_ns[MODEL_TIMERS];
    uint64_t sequence[MODEL_TIMERS];
    uint64_t next_sequence;
    size_t size;
} model;

static int model_first(const model *model)
{
    int first = -1;
    for (int i = 0; i < MODEL_TIMERS; i++) {
        if (!model->pending[i])
            continue;
        if (first < 0 || model->deadline_ns[i] < model->deadline_ns[first] ||
            (model->deadline_ns[i] == model->deadline_ns[first] && model->sequence[i] < model->sequence[first]))
            first = i;
    }
    return first;
}

static void random_add(model *model, hoop_timers *timers, uint64_t *random, int64_t range_ns)
{
    size_t i = check_random_below(random, MODEL_TIMERS);
    int64_t deadline_ns = (int64_t)check_random_below(random, (uint64_t)range_ns) - range_ns / 2;
    bool full = timers->size == timers->capacity;
    bool fails = check_random_below(random, 4) == 0;
    alloc_fault_after(fails ? 0 : -1);
    int result = hoop_timers_add(timers, &model->timers[i], deadline_ns);
    CHECK_EQ(result, model->pending[i] ? -EALREADY : full && fails ? -ENOMEM : 0);
    if (result < 0)
        return;
    model->pending[i] = true;
    model->deadline_ns[i] = deadline_ns;
    model->sequence[i] = model->next_sequence++;
    model->size++;
}

static void random_remove(model *model, hoop_timers *timers, uint64_t *random)
{
    size_t i = check_random_below(random, MODEL_TIMERS);
    CHECK_EQ(hoop_timers_remove(timers, &model->timers[i]), model->pending[i] ? 0 : -ENOENT);
    model->size -= model->pending[i];
    model->pending[i] = false;
}

static void random_pop(model *model, hoop_timers *timers, uint64_t *random, int64_t range_ns)
{
    int64_t now_ns = (int64_t)check_random_below(random, (uint64_t)range_ns) - range_ns / 2;
    int first = model_first(model);
    CHECK_EQ(hoop_timers_deadline_ns(timers, -1), first < 0 ? -1 : model->deadline_ns[first]);
    bool due = first >= 0 && model->deadline_ns[first] <= now_ns;
    CHECK(hoop_timers_pop_due(timers, now_ns) == (due ? &model->timers[first] : NULL));
    if (due) {
        model->pending[first] = false;
        model->size--;
    }
}

static void random_reference(model *model, hoop_timers *timers, uint64_t *random)
{
    size_t i = check_random_below(random, MODEL_TIMERS);
    model->unreferenced[i] = check_random_below(random, 2) == 0;
    hoop_timers_set_referenced(timers, &model->timers[i], !model->unreferenced[i]);
}

static size_t model_referenced(const model *model)
{
    size_t count = 0;
    for (size_t i = 0; i < MODEL_TIMERS; i++)
        count += model->pending[i] && !model->unreferenced[i];
    return count;
}

TEST(random_operations_agree_with_the_model)
{
    uint64_t random = check_use_seed(19770525);
    const int64_t ranges_ns[] = {2, 50, INT64_C(1) << 50};
    static model model;
    hoop_timers timers;
    hoop_timers_init(&timers);
    for (size_t i = 0; i < MODEL_TIMERS; i++)
        hoop_timer_init(&model.timers[i]);
    uint64_t weights[3] = {1, 1, 1};
    for (int i = 0; i < 120000; i++) {
        if (i % 3000 == 0) {
            for (int w = 0; w < 3; w++)
                weights[w] = 1 + check_random_below(&random, 8);
        }
        int64_t range_ns = ranges_ns[check_random_below(&random, 3)];
        uint64_t pick = check_random_below(&random, weights[0] + weights[1] + weights[2]);
        if (pick < weights[0])
            random_add(&model, &timers, &random, range_ns);
        else if (pick < weights[0] + weights[1])
            random_remove(&model, &timers, &random);
        else
            random_pop(&model, &timers, &random, range_ns);
        if (i % 3 == 0)
            random_reference(&model, &timers, &random);
        CHECK_EQ(timers.size, model.size);
        if (i % 50 == 0)
            CHECK_EQ(hoop_timers_referenced(&timers), model_referenced(&model));
        if (i % 500 == 0) {
            check_heap(&timers, model.size);
            for (size_t t = 0; t < MODEL_TIMERS; t++)
                CHECK_EQ(hoop_timer_is_pending(&model.timers[t]), model.pending[t]);
        }
    }
    hoop_timers_free(&timers);
}

TEST(all_are_taken_at_once_only_where_that_is_the_order_of_taking_one_by_one)
{
    enum { MOST = 12 };
    uint64_t random = check_use_seed(20261201);
    size_t taken_at_once = 0;
    for (int i = 0; i < 20000; i++) {
        hoop_timers timers;
        hoop_timers_init(&timers);
        hoop_timer some[MOST];
        int64_t deadline_ns = 0;
        size_t count = check_random_below(&random, MOST + 1);
        for (size_t t = 0; t < count; t++) {
            hoop_timer_init(&some[t]);
            deadline_ns += (int64_t)check_random_below(&random, 8) - 1; /* rises as a rule */
            CHECK_EQ(hoop_timers_add(&timers, &some[t], deadline_ns), 0);
            if (check_random_below(&random, 8) == 0)
                CHECK(hoop_timers_remove(&timers, &some[check_random_below(&random, t + 1)]) <= 0);
        }
        int64_t now_ns = (int64_t)check_random_below(&random, 60);
        hoop_timer *in_order[MOST];
        size_t all = hoop_timers_all_due(&timers, now_ns);
        for (size_t t = 0; t < all; t++)
            in_order[t] = timers.entries[t].timer;
        taken_at_once += all > 1;
        CHECK(all == 0 || all == timers.size);
        for (size_t t = 0; t < all; t++)
            CHECK(hoop_timers_pop_due(&timers, now_ns) == in_order[t]);
        CHECK(all == 0 || timers.size == 0);
        hoop_timers_free(&timers);
    }
    CHECK(taken_at_once > 100);
}

TEST(letting_go_makes_all_timers_idle_and_the_heap_empty)
{
    hoop_timers timers;
    hoop_timers_init(&timers);
    hoop_timer some[3];
    for (int round = 0; round < 2; round++) {
        for (int t = 0; t < 3; t++) {
            hoop_timer_init(&some[t]);
            hoop_timers_set_referenced(&timers, &some[t], t != 1);
            CHECK_EQ(hoop_timers_add(&timers, &some[t], t), 0);
        }
        CHECK_EQ(hoop_timers_all_due(&timers, 1), 0);
        CHECK_EQ(hoop_timers_all_due(&timers, 2), 3);
        hoop_timers_let_go(&timers);
        CHECK_EQ(timers.size, 0);
        CHECK_EQ(hoop_timers_referenced(&timers), 0);
        for (int t = 0; t < 3; t++)
            CHECK(!hoop_timer_is_pending(&some[t]));
    }
    hoop_timers_free(&timers);
}

TEST(the_latest_tick_is_not_after_now)
{
    int64_t tick_ns = hoop_clock_tick_ns();
    for (int i = 0; i < 1000; i++) {
        int64_t next_ns = hoop_clock_tick_ns();
        CHECK(tick_ns <= next_ns);
        CHECK(next_ns <= hoop_clock_ns());
        tick_ns = next_ns;
    }
}

int main(void)
{
    RUN(an_empty_heap_has_nothing_due);
    RUN(a_timer_is_due_at_its_deadline_and_not_before);
    RUN(equal_deadlines_come_in_the_order_of_adding);
    RUN(removal_from_every_position_keeps_the_order);
    RUN(add_and_remove_refuse_the_wrong_state);
    RUN(free_makes_all_timers_idle);
    RUN(a_failed_growth_changes_nothing);
    RUN(a_capacity_whose_double_overflows_is_refused);
    RUN(visit_hands_out_each_timer_once_and_stops_when_told);
    RUN(unreferenced_timers_do_not_count_while_they_are_pending);
    RUN(random_operations_agree_with_the_model);
    RUN(all_are_taken_at_once_only_where_that_is_the_order_of_taking_one_by_one);
    RUN(letting_go_makes_all_timers_idle_and_the_heap_empty);
    RUN(the_latest_tick_is_not_after_now);
    return check_finish();
}
