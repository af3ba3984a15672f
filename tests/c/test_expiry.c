#include "check.h"
#include "expiry.h"

static bool is_waiting(const hoop_expiry_node *node)
{
    return node->next != NULL;
}

TEST(nothing_waits_at_first)
{
    hoop_expiry_queue queue;
    hoop_expiry_node node;
    hoop_expiry_queue_init(&queue, 10);
    hoop_expiry_node_init(&node, &queue);
    CHECK(hoop_expiry_is_empty(&queue));
    CHECK(!is_waiting(&node));
    CHECK(node.owner == &queue);
    CHECK_EQ(hoop_expiry_deadline_ns(&queue, -7), -7);
    CHECK(hoop_expiry_pop_due(&queue, INT64_MAX) == NULL);
    hoop_expiry_leave(&node); /* idempotent */
    CHECK(!is_waiting(&node));
}

TEST(a_node_expires_after_the_time_and_not_before)
{
    hoop_expiry_queue queue;
    hoop_expiry_node node;
    hoop_expiry_queue_init(&queue, 10);
    hoop_expiry_node_init(&node, NULL);
    hoop_expiry_touch(&queue, &node, 100);
    CHECK(is_waiting(&node));
    CHECK_EQ(hoop_expiry_deadline_ns(&queue, -1), 110);
    CHECK(hoop_expiry_pop_due(&queue, 109) == NULL);
    CHECK(hoop_expiry_pop_due(&queue, 110) == &node);
    CHECK(!is_waiting(&node));
    CHECK(hoop_expiry_is_empty(&queue));
}

TEST(activity_moves_a_node_behind_the_others)
{
    hoop_expiry_queue queue;
    hoop_expiry_node one, two;
    hoop_expiry_queue_init(&queue, 10);
    hoop_expiry_node_init(&one, NULL);
    hoop_expiry_node_init(&two, NULL);
    hoop_expiry_touch(&queue, &one, 100);
    hoop_expiry_touch(&queue, &two, 101);
    hoop_expiry_touch(&queue, &one, 105);
    CHECK_EQ(hoop_expiry_deadline_ns(&queue, -1), 111);
    CHECK(hoop_expiry_pop_due(&queue, 114) == &two);
    CHECK(hoop_expiry_pop_due(&queue, 114) == NULL);
    CHECK(hoop_expiry_pop_due(&queue, 115) == &one);
}

TEST(a_clock_that_goes_back_keeps_the_order)
{
    hoop_expiry_queue queue;
    hoop_expiry_node one, two;
    hoop_expiry_queue_init(&queue, 10);
    hoop_expiry_node_init(&one, NULL);
    hoop_expiry_node_init(&two, NULL);
    hoop_expiry_touch(&queue, &one, 100);
    hoop_expiry_touch(&queue, &two, 50);
    CHECK_EQ(two.since_ns, 100);
    CHECK(hoop_expiry_pop_due(&queue, 110) == &one);
    CHECK(hoop_expiry_pop_due(&queue, 110) == &two);
    hoop_expiry_touch(&queue, &two, 50); /* alone: there is no order to keep */
    CHECK_EQ(two.since_ns, 50);
    hoop_expiry_leave(&two);
}

TEST(a_time_that_never_comes)
{
    hoop_expiry_queue queue;
    hoop_expiry_node node;
    hoop_expiry_queue_init(&queue, INT64_MAX);
    hoop_expiry_node_init(&node, NULL);
    hoop_expiry_touch(&queue, &node, 100);
    CHECK_EQ(hoop_expiry_deadline_ns(&queue, -1), INT64_MAX);
    CHECK(hoop_expiry_pop_due(&queue, INT64_MAX - 1) == NULL);
    CHECK(hoop_expiry_pop_due(&queue, INT64_MAX) == &node);
}

/* Random operations against a model that knows only when each node was last touched. */
TEST(random_operations_agree_with_a_table_of_times)
{
    enum { NODES = 40, STEPS = 20000, TIMEOUT = 50 };
    uint64_t random = check_use_seed(20261121);
    hoop_expiry_queue queue;
    hoop_expiry_node nodes[NODES];
    int64_t touched[NODES]; /* -1: does not wait */
    int64_t now = 0;
    hoop_expiry_queue_init(&queue, TIMEOUT);
    for (int i = 0; i < NODES; i++) {
        hoop_expiry_node_init(&nodes[i], &touched[i]);
        touched[i] = -1;
    }
    for (int step = 0; step < STEPS; step++) {
        int which = (int)check_random_below(&random, NODES);
        unsigned dice = (unsigned)check_random_below(&random, 10);
        if (dice < 6) {
            hoop_expiry_touch(&queue, &nodes[which], now);
            touched[which] = now;
        } else if (dice == 6) {
            hoop_expiry_leave(&nodes[which]);
            touched[which] = -1;
        } else {
            now += (int64_t)check_random_below(&random, 20);
        }
        hoop_expiry_node *due;
        while ((due = hoop_expiry_pop_due(&queue, now)) != NULL) {
            int64_t *when = due->owner;
            CHECK(*when >= 0 && *when + TIMEOUT <= now);
            for (int i = 0; i < NODES; i++)
                CHECK(touched[i] < 0 || touched[i] >= *when);
            *when = -1;
        }
        int64_t earliest = -1;
        for (int i = 0; i < NODES; i++) {
            CHECK_EQ(is_waiting(&nodes[i]), touched[i] >= 0);
            CHECK(touched[i] < 0 || touched[i] + TIMEOUT > now);
            if (touched[i] >= 0 && (earliest < 0 || touched[i] < earliest))
                earliest = touched[i];
        }
        CHECK_EQ(hoop_expiry_deadline_ns(&queue, -1), earliest < 0 ? -1 : earliest + TIMEOUT);
    }
}

int main(void)
{
    RUN(nothing_waits_at_first);
    RUN(a_node_expires_after_the_time_and_not_before);
    RUN(activity_moves_a_node_behind_the_others);
    RUN(a_clock_that_goes_back_keeps_the_order);
    RUN(a_time_that_never_comes);
    RUN(random_operations_agree_with_a_table_of_times);
    return check_finish();
}
