#include "check.h"
#include "inbox.h"
#include "waker.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>

/* A wake-up that takes longer than this is lost. */
#define LOST_AFTER_MS 10000

typedef struct message {
    hoop_inbox_node node;
    int producer;
    int number;
} message;

static message *message_of(hoop_inbox_node *node)
{
    return HOOP_CONTAINER_OF(node, message, node);
}

TEST(an_empty_inbox_has_nothing_to_take)
{
    hoop_inbox inbox;
    hoop_inbox_init(&inbox);
    CHECK(hoop_inbox_is_empty(&inbox));
    CHECK(hoop_inbox_take(&inbox) == NULL);
}

TEST(take_gives_everything_oldest_first)
{
    message messages[5];
    hoop_inbox inbox;
    hoop_inbox_init(&inbox);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5; i++)
            CHECK_EQ(hoop_inbox_push(&inbox, &messages[i].node), 0);
        CHECK(!hoop_inbox_is_empty(&inbox));
        hoop_inbox_node *node = hoop_inbox_take(&inbox);
        for (int i = 0; i < 5 && CHECK(node != NULL); i++, node = node->next)
            CHECK(message_of(node) == &messages[i]);
        CHECK(node == NULL);
        CHECK(hoop_inbox_is_empty(&inbox));
        CHECK(hoop_inbox_take(&inbox) == NULL);
    }
}

TEST(only_the_first_push_to_a_sleeper_asks_for_a_wake_up)
{
    message messages[6];
    hoop_inbox inbox;
    hoop_inbox_init(&inbox);
    CHECK(hoop_inbox_prepare_sleep(&inbox));
    CHECK_EQ(hoop_inbox_push(&inbox, &messages[0].node), 1);
    CHECK_EQ(hoop_inbox_push(&inbox, &messages[1].node), 0);
    hoop_inbox_awake(&inbox);
    CHECK_EQ(hoop_inbox_push(&inbox, &messages[2].node), 0);
    CHECK(!hoop_inbox_prepare_sleep(&inbox));                /* there is work */
    CHECK_EQ(hoop_inbox_push(&inbox, &messages[3].node), 0); /* so the consumer is not asleep */
    CHECK(hoop_inbox_take(&inbox) != NULL);
    CHECK(hoop_inbox_prepare_sleep(&inbox));
    hoop_inbox_awake(&inbox); /* a timer, say */
    CHECK_EQ(hoop_inbox_push(&inbox, &messages[4].node), 0);
    CHECK(hoop_inbox_take(&inbox) == &messages[4].node);
    CHECK(hoop_inbox_prepare_sleep(&inbox));
    CHECK_EQ(hoop_inbox_push(&inbox, &messages[5].node), 1);
    CHECK(hoop_inbox_take(&inbox) == &messages[5].node);
}

typedef struct walk {
    int next;
    int stop_at;
} walk;

static int step(void *item, void *arg)
{
    walk *state = arg;
    CHECK_EQ(message_of(item)->number, state->next);
    return state->next-- == state->stop_at ? 4 : 0;
}

TEST(visit_goes_from_the_newest_and_stops_when_told)
{
    message messages[20];
    hoop_inbox inbox;
    hoop_inbox_init(&inbox);
    walk state = {.next = -1, .stop_at = -1};
    CHECK_EQ(hoop_inbox_visit(&inbox, step, &state), 0);
    for (int i = 0; i < 20; i++) {
        messages[i].number = i;
        hoop_inbox_push(&inbox, &messages[i].node);
    }
    state = (walk){.next = 19, .stop_at = -1};
    CHECK_EQ(hoop_inbox_visit(&inbox, step, &state), 0);
    CHECK_EQ(state.next, -1);
    state = (walk){.next = 19, .stop_at = 7};
    CHECK_EQ(hoop_inbox_visit(&inbox, step, &state), 4);
    CHECK_EQ(state.next, 6);
}

/* One thread, the model: what is inside is the numbers [oldest, newest), and one flag. */
TEST(random_operations_agree_with_the_model)
{
    enum { MOST = 64 };
    uint64_t random = check_use_seed(31337);
    static message messages[MOST];
    hoop_inbox inbox;
    hoop_inbox_init(&inbox);
    int oldest = 0, newest = 0;
    bool sleeping = false;
    for (int i = 0; i < 200000; i++) {
        switch (check_random_below(&random, 8)) {
        case 0: {
            hoop_inbox_node *node = hoop_inbox_take(&inbox);
            for (; oldest < newest && CHECK(node != NULL); oldest++, node = node->next)
                CHECK_EQ(message_of(node)->number, oldest);
            CHECK(node == NULL);
            oldest = newest;
            break;
        }
        case 1:
            sleeping = oldest == newest;
            CHECK_EQ(hoop_inbox_prepare_sleep(&inbox), sleeping);
            break;
        case 2:
            hoop_inbox_awake(&inbox);
            sleeping = false;
            break;
        case 3: {
            walk state = {.next = newest - 1, .stop_at = -1};
            CHECK_EQ(hoop_inbox_visit(&inbox, step, &state), 0);
            CHECK_EQ(state.next, oldest - 1);
            break;
        }
        default:
            if (newest - oldest == MOST)
                break;
            messages[newest % MOST].number = newest;
            CHECK_EQ(hoop_inbox_push(&inbox, &messages[newest % MOST].node), sleeping);
            newest++;
            sleeping = false;
        }
        CHECK_EQ(hoop_inbox_is_empty(&inbox), oldest == newest);
    }
}

/* Several threads. */

enum { PRODUCERS = 4, MESSAGES_EACH = 10000 };

typedef struct exchange {
    hoop_inbox inbox;
    hoop_waker waker;
    atomic_bool started;
    atomic_int wakes;           /* wake-ups that producers were asked for */
    atomic_int done[PRODUCERS]; /* messages taken, by producer */
    int ahead;                  /* how far a producer may be ahead of the consumer; 0: without limit */
    uint64_t seed;
} exchange;

typedef struct producer {
    exchange *shared;
    int id;
    message messages[MESSAGES_EACH];
} producer;

/* Static: large, and clean at the start of each test because each number is written before its push. */
static producer producers[PRODUCERS];

static void deliver(exchange *shared, message *sent)
{
    if (hoop_inbox_push(&shared->inbox, &sent->node)) {
        atomic_fetch_add(&shared->wakes, 1);
        CHECK_EQ(hoop_waker_wake(&shared->waker), 0);
    }
}

static void *produce(void *arg)
{
    producer *self = arg;
    exchange *shared = self->shared;
    uint64_t random = shared->seed + (uint64_t)self->id + 1;
    while (!atomic_load(&shared->started))
        sched_yield();
    for (int i = 0; i < MESSAGES_EACH; i++) {
        self->messages[i].producer = self->id;
        self->messages[i].number = i;
        deliver(shared, &self->messages[i]);
        while (shared->ahead > 0 && i + 1 - atomic_load(&shared->done[self->id]) >= shared->ahead)
            sched_yield();
        if (check_random_below(&random, 200) == 0)
            sched_yield();
    }
    return NULL;
}

static void open_exchange(exchange *shared)
{
    hoop_inbox_init(&shared->inbox);
    REQUIRE(hoop_waker_open(&shared->waker) == 0);
}

static void start_producers(exchange *shared, pthread_t *threads, void *(*run)(void *))
{
    for (int i = 0; i < PRODUCERS; i++) {
        producers[i].shared = shared;
        producers[i].id = i;
        REQUIRE(pthread_create(&threads[i], NULL, run, &producers[i]) == 0);
    }
    atomic_store(&shared->started, true);
}

static void join_producers(pthread_t *threads)
{
    for (int i = 0; i < PRODUCERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* One wait as the loop does it. false: nothing came in time. */
static bool sleep_until_woken(exchange *shared, int *sleeps)
{
    bool may_block = hoop_inbox_prepare_sleep(&shared->inbox);
    ++*sleeps;
    struct pollfd watched = {.fd = shared->waker.read_fd, .events = POLLIN};
    int count = poll(&watched, 1, may_block ? LOST_AFTER_MS : 0);
    hoop_inbox_awake(&shared->inbox);
    CHECK(count >= 0);
    if (count > 0)
        CHECK(hoop_waker_drain(&shared->waker) >= 0);
    return !may_block || count != 0;
}

/* The list that a visitor sees beside producers: of each of them, ever older messages, ending with the oldest that has
 * not been taken. */
typedef struct crowd {
    int previous[PRODUCERS]; /* -1: none seen */
} crowd;

static int check_older(void *item, void *arg)
{
    crowd *seen = arg;
    message *visited = message_of(item);
    int *previous = &seen->previous[visited->producer];
    CHECK(*previous < 0 || visited->number == *previous - 1);
    *previous = visited->number;
    return 0;
}

static void check_visit(exchange *shared, const int *expected)
{
    crowd seen;
    for (int i = 0; i < PRODUCERS; i++)
        seen.previous[i] = -1;
    CHECK_EQ(hoop_inbox_visit(&shared->inbox, check_older, &seen), 0);
    for (int i = 0; i < PRODUCERS; i++)
        CHECK(seen.previous[i] < 0 || seen.previous[i] == expected[i]);
}

/* Consume until everything has come; every producer's messages in order, none lost, none twice. */
static void exchange_everything(int ahead)
{
    exchange shared = {.ahead = ahead, .seed = check_use_seed(271828)};
    open_exchange(&shared);
    pthread_t threads[PRODUCERS];
    start_producers(&shared, threads, produce);
    int expected[PRODUCERS] = {0};
    int received = 0, sleeps = 0;
    while (received < PRODUCERS * MESSAGES_EACH) {
        REQUIRE(sleep_until_woken(&shared, &sleeps)); /* else a wake-up was lost */
        if (sleeps % 16 == 0)
            check_visit(&shared, expected);
        for (hoop_inbox_node *node = hoop_inbox_take(&shared.inbox); node != NULL;) {
            hoop_inbox_node *next = node->next;
            message *taken = message_of(node);
            CHECK_EQ(taken->number, expected[taken->producer]);
            expected[taken->producer]++;
            received++;
            *taken = (message){.producer = -1, .number = -1}; /* the node is ours: no producer may look at it again */
            node = next;
        }
        for (int i = 0; i < PRODUCERS; i++)
            atomic_store(&shared.done[i], expected[i]);
    }
    join_producers(threads);
    CHECK(hoop_inbox_is_empty(&shared.inbox));
    CHECK(atomic_load(&shared.wakes) <= sleeps); /* coalesced: at most one for each sleep */
    hoop_waker_close(&shared.waker);
}

TEST(producers_at_full_speed_lose_nothing_and_keep_their_order)
{
    exchange_everything(0);
}

/* Each producer waits for each of its messages to arrive: the consumer goes to sleep all the time. */
TEST(a_consumer_that_keeps_falling_asleep_is_always_woken)
{
    exchange_everything(1);
}

TEST(a_consumer_that_often_falls_asleep_is_always_woken)
{
    exchange_everything(10);
}

/* The protocol's crucial instant, again and again: of a push and a prepare_sleep that run at the same time, at least
 * one must notice the other. (With a relaxed store in prepare_sleep, x86 gets one round in some hundreds wrong.) */
enum { DUELS = 60000, DUELS_PER_MEETING = 64 };

typedef struct duel {
    hoop_inbox inbox;
    hoop_inbox_node node;
    int asked; /* what push returned */
} duel;

typedef struct arena {
    duel *duels;
    atomic_int pusher_at;
    atomic_int sleeper_at;
} arena;

/* Both fight DUELS_PER_MEETING rounds side by side, then wait for each other: spinning, or else they hardly ever meet,
 * and yielding when the other one has no processor. */
static void meet(atomic_int *mine, atomic_int *other)
{
    int meeting = atomic_fetch_add(mine, 1) + 1;
    for (int spins = 0; atomic_load(other) < meeting; spins++) {
        if (spins > 1000)
            sched_yield();
    }
}

static void *push_in_each(void *arg)
{
    arena *shared = arg;
    for (int i = 0; i < DUELS; i++) {
        if (i % DUELS_PER_MEETING == 0)
            meet(&shared->pusher_at, &shared->sleeper_at);
        shared->duels[i].asked = hoop_inbox_push(&shared->duels[i].inbox, &shared->duels[i].node);
    }
    return NULL;
}

TEST(of_a_push_and_a_falling_asleep_one_notices_the_other)
{
    arena shared = {.duels = calloc(DUELS, sizeof(duel))};
    bool *blocks = calloc(DUELS, sizeof *blocks);
    REQUIRE(shared.duels != NULL && blocks != NULL);
    for (int i = 0; i < DUELS; i++)
        hoop_inbox_init(&shared.duels[i].inbox);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, push_in_each, &shared) == 0);
    for (int i = 0; i < DUELS; i++) {
        if (i % DUELS_PER_MEETING == 0)
            meet(&shared.sleeper_at, &shared.pusher_at);
        blocks[i] = hoop_inbox_prepare_sleep(&shared.duels[i].inbox);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (int i = 0; i < DUELS; i++)
        CHECK(!blocks[i] || shared.duels[i].asked == 1);
    free(blocks);
    free(shared.duels);
}

enum { BURST = 500 };

static void *burst(void *arg)
{
    producer *self = arg;
    while (!atomic_load(&self->shared->started))
        sched_yield();
    for (int i = 0; i < BURST; i++)
        deliver(self->shared, &self->messages[i]);
    return NULL;
}

TEST(a_burst_from_several_threads_asks_for_one_wake_up)
{
    for (int round = 0; round < 20; round++) {
        exchange shared = {.ahead = 0};
        open_exchange(&shared);
        CHECK(hoop_inbox_prepare_sleep(&shared.inbox));
        pthread_t threads[PRODUCERS];
        start_producers(&shared, threads, burst);
        join_producers(threads);
        CHECK_EQ(atomic_load(&shared.wakes), 1);
        hoop_inbox_awake(&shared.inbox);
        int received = 0;
        for (hoop_inbox_node *node = hoop_inbox_take(&shared.inbox); node != NULL; node = node->next)
            received++;
        CHECK_EQ(received, PRODUCERS * BURST);
        hoop_waker_close(&shared.waker);
    }
}

int main(void)
{
    RUN(an_empty_inbox_has_nothing_to_take);
    RUN(take_gives_everything_oldest_first);
    RUN(only_the_first_push_to_a_sleeper_asks_for_a_wake_up);
    RUN(visit_goes_from_the_newest_and_stops_when_told);
    RUN(random_operations_agree_with_the_model);
    RUN(producers_at_full_speed_lose_nothing_and_keep_their_order);
    RUN(a_consumer_that_keeps_falling_asleep_is_always_woken);
    RUN(a_consumer_that_often_falls_asleep_is_always_woken);
    RUN(of_a_push_and_a_falling_asleep_one_notices_the_other);
    RUN(a_burst_from_several_threads_asks_for_one_wake_up);
    return check_finish();
}
