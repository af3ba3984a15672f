#include "check.h"
#include "clock.h"
#include "spin_before_sleep.h"

#include <pthread.h>
#include <unistd.h>

enum { CAPACITY = 4 };

TEST(a_limit_of_zero_never_spins)
{
    hoop_spin spin = {0};
    for (int i = 0; i < 10; i++)
        CHECK(!hoop_spin_may(&spin));
}

TEST(spinning_in_vain_becomes_rare)
{
    hoop_spin spin = {.limit_ns = 1000};
    int spins = 0;
    for (int i = 0; i < 100000; i++) {
        if (hoop_spin_may(&spin)) {
            spins++;
            hoop_spin_ended(&spin, false);
        }
    }
    CHECK(spins >= 100000 / 257 && spins <= 100000 / 257 + 10);
}

TEST(an_occasion_that_is_put_off_brings_the_next_look_no_nearer)
{
    hoop_spin spin = {.limit_ns = 1};
    CHECK(hoop_spin_may(&spin));
    hoop_spin_ended(&spin, false);
    for (int i = 0; i < 1000; i++) {
        CHECK(!hoop_spin_may(&spin));
        hoop_spin_put_off(&spin);
    }
    CHECK(!hoop_spin_may(&spin));
    CHECK(hoop_spin_may(&spin));
    for (int i = 0; i < 1000; i++)
        hoop_spin_put_off(&spin);
    CHECK_EQ(spin.to_skip, 1U << HOOP_SPIN_MOST_FUTILE);
}

TEST(success_makes_it_frequent_again)
{
    hoop_spin spin = {.limit_ns = 1000};
    for (int i = 0; i < 5; i++) {
        while (!hoop_spin_may(&spin))
            ;
        hoop_spin_ended(&spin, false);
    }
    while (!hoop_spin_may(&spin))
        ;
    hoop_spin_ended(&spin, true);
    for (int i = 0; i < 10; i++) {
        CHECK(hoop_spin_may(&spin));
        hoop_spin_ended(&spin, true);
    }
    CHECK(hoop_spin_may(&spin));
    hoop_spin_ended(&spin, false);
    CHECK(!hoop_spin_may(&spin)); /* one is skipped */
    CHECK(hoop_spin_may(&spin));
}

typedef struct place {
    hoop_spin spin;
    hoop_inbox inbox;
    hoop_inbox_node node;
    hoop_poller poller;
    hoop_event events[CAPACITY];
    int64_t left_ns; /* of the latest timeout */
    hoop_spin_for what;
    int pipe[2];
} place;

static void open_place(place *place)
{
    *place = (struct place){.spin = {.limit_ns = 3600 * HOOP_NS_PER_SECOND}, .what = HOOP_SPIN_FOR_NODES};
    hoop_inbox_init(&place->inbox);
    REQUIRE(hoop_poller_open(&place->poller, NULL) == 0);
    REQUIRE(pipe(place->pipe) == 0);
    REQUIRE(hoop_poller_add(&place->poller, place->pipe[0], HOOP_READABLE) == 0);
}

static int spin_in(place *place, int64_t timeout_ns)
{
    int64_t left_ns = timeout_ns;
    int count = hoop_spin_before_sleep(&place->spin, &place->inbox, &place->poller, place->events, CAPACITY, &left_ns,
                                       place->what);
    CHECK(timeout_ns > 0 ? left_ns >= 0 && left_ns <= timeout_ns : left_ns == timeout_ns);
    place->left_ns = left_ns;
    return count;
}

static void close_place(place *place)
{
    hoop_poller_close(&place->poller);
    REQUIRE(close(place->pipe[0]) == 0 && close(place->pipe[1]) == 0);
}

static void *push(void *arg)
{
    place *place = arg;
    CHECK_EQ(hoop_inbox_push(&place->inbox, &place->node), 0); /* a spinning loop needs no wake-up */
    return NULL;
}

TEST(a_node_ends_it)
{
    place place;
    pthread_t thread;
    open_place(&place);
    place.spin.futile = 3;
    REQUIRE(pthread_create(&thread, NULL, push, &place) == 0);
    CHECK_EQ(spin_in(&place, -1), 0); /* for an hour, were there no node */
    CHECK(hoop_inbox_take(&place.inbox) == &place.node);
    CHECK_EQ(place.spin.futile, 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    close_place(&place);
}

TEST(an_event_ends_it_and_says_nothing)
{
    place place;
    open_place(&place);
    place.spin.futile = 3;
    REQUIRE(write(place.pipe[1], "x", 1) == 1);
    CHECK_EQ(spin_in(&place, -1), 1);
    CHECK_EQ(place.events[0].fd, place.pipe[0]);
    CHECK_EQ(place.spin.futile, 3);
    CHECK_EQ(place.spin.to_skip, 0);
    close_place(&place);
}

TEST(an_event_pays_where_events_are_waited_for)
{
    place place;
    open_place(&place);
    place.what = HOOP_SPIN_FOR_BOTH;
    place.spin.futile = 3;
    REQUIRE(write(place.pipe[1], "x", 1) == 1);
    CHECK_EQ(spin_in(&place, -1), 1);
    CHECK_EQ(place.spin.futile, 0);
    close_place(&place);
}

TEST(a_node_does_not_pay_where_events_alone_are_waited_for)
{
    place place;
    open_place(&place);
    place.what = HOOP_SPIN_FOR_EVENTS;
    place.spin.futile = 3;
    push(&place);
    CHECK_EQ(spin_in(&place, -1), 0);
    CHECK_EQ(place.spin.futile, 4);
    CHECK_EQ(place.spin.to_skip, 8);
    REQUIRE(write(place.pipe[1], "x", 1) == 1);
    CHECK(hoop_inbox_take(&place.inbox) == &place.node);
    CHECK_EQ(spin_in(&place, -1), 1);
    CHECK_EQ(place.spin.futile, 0);
    close_place(&place);
}

TEST(it_ends_by_the_timeout_or_by_its_own_limit)
{
    place place;
    open_place(&place);
    CHECK_EQ(spin_in(&place, 0), 0);
    CHECK_EQ(place.spin.futile, 1);
    CHECK_EQ(spin_in(&place, 1000), 0);
    CHECK_EQ(place.left_ns, 0);
    CHECK_EQ(place.spin.futile, 2);
    place.spin.limit_ns = 1000;
    CHECK_EQ(spin_in(&place, -1), 0);
    CHECK_EQ(spin_in(&place, INT64_MAX), 0);
    CHECK(place.left_ns <= INT64_MAX - 1000);
    CHECK_EQ(place.spin.futile, 4);
    close_place(&place);
}

int main(void)
{
    RUN(a_limit_of_zero_never_spins);
    RUN(spinning_in_vain_becomes_rare);
    RUN(an_occasion_that_is_put_off_brings_the_next_look_no_nearer);
    RUN(success_makes_it_frequent_again);
    RUN(a_node_ends_it);
    RUN(an_event_ends_it_and_says_nothing);
    RUN(an_event_pays_where_events_are_waited_for);
    RUN(a_node_does_not_pay_where_events_alone_are_waited_for);
    RUN(it_ends_by_the_timeout_or_by_its_own_limit);
    return check_finish();
}
