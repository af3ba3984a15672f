/* Random submitting, cancelling and closing by several loops at once, against a model.
 *
 * The model of a job: refused, cancelled, or else run once and then arrived once. A loop knows which of its jobs are in
 * flight; the pool never runs more than its size and the own places, nor more lookups than their lanes allow, nor any
 * job of a loop that has waited for it to be quiet. */
#include "check.h"
#include "pool.h"
#include "pool_fixture.h"

#include <sched.h>

enum { LOOPS = 4, JOBS = 24, STEPS = 4000, SIZE = 3, DNS_LIMIT = 1, OWN = HOOP_POOL_OWN_PLACES };

typedef enum fate { FREE, IN_FLIGHT } fate;

typedef struct player player;

typedef struct piece {
    task task;
    player *owner;
    fate fate;
    int runs_expected;
} piece;

struct player {
    crew *crew;
    home home;
    piece pieces[JOBS];
    uint64_t random;
    int in_flight;
    uint64_t arrived;
    uint64_t cancelled;
    uint64_t refused;
    atomic_bool is_quiet; /* none of its jobs may run */
};

static atomic_int running, lookups, names;

static void run_piece(hoop_job *job)
{
    piece *piece = HOOP_CONTAINER_OF(job, struct piece, task.job);
    CHECK(!atomic_load(&piece->owner->is_quiet));
    CHECK(atomic_fetch_add(&running, 1) < SIZE + OWN);
    if (job->lane == HOOP_LANE_DNS)
        CHECK(atomic_fetch_add(&lookups, 1) < DNS_LIMIT);
    if (job->lane != HOOP_LANE_FILES)
        CHECK(atomic_fetch_add(&names, 1) < DNS_LIMIT + OWN);
    if (atomic_fetch_add(&piece->task.runs, 1) % 3 == 0)
        sched_yield();
    if (job->lane == HOOP_LANE_DNS)
        atomic_fetch_sub(&lookups, 1);
    if (job->lane != HOOP_LANE_FILES)
        atomic_fetch_sub(&names, 1);
    atomic_fetch_sub(&running, 1);
}

static void submit_piece(player *player, piece *piece)
{
    if (piece->fate == IN_FLIGHT)
        return;
    uint64_t choice = check_random_below(&player->random, 2 * HOOP_LANES);
    hoop_lane lane = choice < HOOP_LANES ? (hoop_lane)choice : HOOP_LANE_FILES;
    hoop_job_init(&piece->task.job, run_piece, lane);
    int result = submit(player->crew, &player->home, &piece->task);
    if (result == -ENOBUFS) {
        player->refused++;
        return;
    }
    if (!CHECK(result == 0 || result == 1))
        return;
    piece->fate = IN_FLIGHT;
    player->in_flight++;
}

static void note_cancelled(player *player, piece *piece)
{
    CHECK_EQ(piece->fate, IN_FLIGHT);
    CHECK_EQ(atomic_load(&piece->task.runs), piece->runs_expected);
    piece->fate = FREE;
    player->in_flight--;
    player->cancelled++;
}

static void take_arrivals(player *player)
{
    hoop_inbox_node *node = hoop_inbox_take(&player->home.inbox);
    while (node != NULL) {
        hoop_inbox_node *next = node->next;
        piece *piece = HOOP_CONTAINER_OF(task_of(node), struct piece, task);
        CHECK_EQ(piece->fate, IN_FLIGHT);
        CHECK_EQ(atomic_load(&piece->task.runs), ++piece->runs_expected);
        piece->fate = FREE;
        player->in_flight--;
        player->arrived++;
        node = next;
    }
}

static void close_and_reopen(player *player)
{
    hoop_job *job = hoop_pool_cancel_all(player->crew->pool, &player->home.inbox);
    while (job != NULL) {
        hoop_job *newer = job->newer;
        note_cancelled(player, HOOP_CONTAINER_OF(job, struct piece, task.job));
        job = newer;
    }
    CHECK(hoop_pool_wait_quiet(player->crew->pool, &player->home.inbox, LOST_AFTER_MS));
    atomic_store(&player->is_quiet, true);
    take_arrivals(player);
    CHECK_EQ(player->in_flight, 0);
    hoop_waker_close(&player->home.waker); /* a job that still posted would end the program */
    open_home(&player->home);
    atomic_store(&player->is_quiet, false);
}

static void *play(void *arg)
{
    player *player = arg;
    for (int step = 0; step < STEPS; step++) {
        piece *piece = &player->pieces[check_random_below(&player->random, JOBS)];
        uint64_t choice = check_random_below(&player->random, 64);
        if (choice < 32) {
            submit_piece(player, piece);
        } else if (choice < 44) {
            if (hoop_pool_cancel(player->crew->pool, &piece->task.job))
                note_cancelled(player, piece);
        } else if (choice < 58) {
            take_arrivals(player);
        } else if (choice < 62) {
            hoop_pool_stats stats = stats_of(player->crew);
            CHECK(stats.running <= SIZE + OWN && stats.dns_running <= DNS_LIMIT + OWN && stats.threads <= SIZE + OWN);
        } else if (choice < 63) {
            sched_yield();
        } else {
            close_and_reopen(player);
        }
    }
    while (player->in_flight > 0)
        take_arrivals(player);
    return NULL;
}

static void play_round(uint64_t seed, size_t queue_limit, int64_t spin_ns)
{
    static player players[LOOPS];
    pthread_t threads[LOOPS];
    crew crew;
    open_crew(&crew, SIZE, queue_limit, NULL);
    hoop_pool_set_spin(crew.pool, spin_ns);
    for (int i = 0; i < LOOPS; i++) {
        players[i] = (player){.crew = &crew, .random = seed + (uint64_t)i * 7919};
        open_home(&players[i].home);
        for (int j = 0; j < JOBS; j++) {
            players[i].pieces[j].owner = &players[i];
            init_task(&players[i].pieces[j].task, HOOP_LANE_FILES);
        }
        REQUIRE(pthread_create(&threads[i], NULL, play, &players[i]) == 0);
    }
    uint64_t arrived = 0, cancelled = 0, refused = 0;
    for (int i = 0; i < LOOPS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        arrived += players[i].arrived;
        cancelled += players[i].cancelled;
        refused += players[i].refused;
    }
    hoop_pool_stats stats = stats_of(&crew);
    CHECK_EQ(stats.done, arrived);
    CHECK_EQ(stats.cancelled, cancelled);
    CHECK_EQ(stats.refused, refused);
    CHECK_EQ(stats.wait.count, arrived);
    CHECK_EQ(stats.run.count, arrived);
    CHECK_EQ(stats.queued + stats.running, 0);
    CHECK(arrived > 0 && cancelled > 0 && (refused > 0) == (queue_limit > 0));
    close_crew(&crew);
    for (int i = 0; i < LOOPS; i++)
        hoop_waker_close(&players[i].home.waker);
}

TEST(loops_that_share_a_pool_agree_with_the_model)
{
    uint64_t seed = check_use_seed(141421);
    for (uint64_t round = 0; round < 4; round++)
        play_round(seed + round * 1000003, 0, 0);
}

TEST(the_same_with_a_short_queue)
{
    uint64_t seed = check_use_seed(173205);
    for (uint64_t round = 0; round < 2; round++)
        play_round(seed + round * 1000003, 5, 0);
}

TEST(the_same_with_workers_that_spin)
{
    uint64_t seed = check_use_seed(223606);
    for (uint64_t round = 0; round < 2; round++)
        play_round(seed + round * 1000003, 0, 20000);
}

/* Stopped at any moment, by a thread of its own: each job is refused, or runs and is let go of, once. */

static atomic_int let_go;

static void note_let_go(hoop_job *job)
{
    CHECK(job->inbox == NULL);
    atomic_fetch_add(&let_go, 1);
}

typedef struct storm {
    crew *crew;
    home home;
    task tasks[STEPS / 10];
    int accepted;
} storm;

static void *submit_many(void *arg)
{
    storm *storm = arg;
    for (int i = 0; i < STEPS / 10; i++) {
        init_task(&storm->tasks[i], i % 3 == 0 ? HOOP_LANE_DNS : HOOP_LANE_FILES);
        int result = submit(storm->crew, &storm->home, &storm->tasks[i]);
        if (result == -ESHUTDOWN)
            continue;
        CHECK(result == 0 || result == 1);
        storm->accepted++;
        if (i % 64 == 63)
            hoop_pool_disown(storm->crew->pool, &storm->home.inbox);
    }
    hoop_pool_disown(storm->crew->pool, &storm->home.inbox);
    return NULL;
}

TEST(a_pool_that_is_stopped_in_a_storm_loses_nothing)
{
    static storm storms[LOOPS];
    uint64_t random = check_use_seed(244948);
    for (int round = 0; round < 20; round++) {
        pthread_t threads[LOOPS];
        crew crew;
        open_crew(&crew, SIZE, 0, note_let_go);
        atomic_store(&let_go, 0);
        for (int i = 0; i < LOOPS; i++) {
            storms[i] = (storm){.crew = &crew};
            open_home(&storms[i].home);
            REQUIRE(pthread_create(&threads[i], NULL, submit_many, &storms[i]) == 0);
        }
        for (uint64_t yields = check_random_below(&random, 200); yields > 0; yields--)
            sched_yield();
        hoop_pool_stop(crew.pool);
        for (int i = 0; i < LOOPS; i++)
            REQUIRE(pthread_join(threads[i], NULL) == 0);
        for (int i = 0; i < crew.thread_count; i++)
            REQUIRE(pthread_join(crew.threads[i], NULL) == 0);
        crew.thread_count = 0;
        int accepted = 0, ran = 0, arrived = 0;
        for (int i = 0; i < LOOPS; i++) {
            accepted += storms[i].accepted;
            for (int j = 0; j < STEPS / 10; j++)
                ran += atomic_load(&storms[i].tasks[j].runs);
            for (hoop_inbox_node *node = hoop_inbox_take(&storms[i].home.inbox); node != NULL; node = node->next)
                arrived++;
            hoop_waker_close(&storms[i].home.waker);
        }
        CHECK_EQ(ran, accepted);
        CHECK_EQ(arrived + atomic_load(&let_go), accepted);
        close_crew(&crew);
    }
}

int main(void)
{
    RUN(loops_that_share_a_pool_agree_with_the_model);
    RUN(the_same_with_a_short_queue);
    RUN(the_same_with_workers_that_spin);
    RUN(a_pool_that_is_stopped_in_a_storm_loses_nothing);
    return check_finish();
}
