#include "check.h"
#include "clock.h"
#include "pool.h"
#include "pool_fixture.h"

TEST(sizes_are_checked_and_memory_may_be_short)
{
    hoop_pool *pool = NULL;
    CHECK_EQ(hoop_pool_open(&pool, 0, 0, NULL), -EINVAL);
    CHECK_EQ(hoop_pool_open(&pool, -4, 0, NULL), -EINVAL);
    CHECK_EQ(hoop_pool_open(&pool, HOOP_POOL_MAX_SIZE + 1, 0, NULL), -EINVAL);
    alloc_fault_after(0);
    CHECK_EQ(hoop_pool_open(&pool, 4, 0, NULL), -ENOMEM);
    alloc_fault_after(-1);
    CHECK(pool == NULL);
    CHECK_EQ(hoop_pool_open(&pool, HOOP_POOL_MAX_SIZE, 0, NULL), 0);
    hoop_pool_free(pool);
    hoop_pool_free(NULL);
}

TEST(a_job_runs_and_comes_back)
{
    stage stage;
    task task;
    open_stage(&stage, 4, 0);
    for (int i = 1; i <= 100; i++) {
        init_task(&task, HOOP_LANE_FILES);
        CHECK_EQ(put(&stage, &task), i == 1); /* later ones find an idle worker */
        receive_all(&stage.home, 1);
        CHECK_EQ(atomic_load(&task.runs), 1);
        CHECK_EQ(task.job.state, HOOP_JOB_DONE);
        hoop_pool_stats stats = stats_of(&stage.crew);
        CHECK_EQ(stats.done, i);
        CHECK_EQ(stats.running + stats.queued, 0);
        CHECK_EQ(stats.threads, 1);
        CHECK_EQ(stats.idle, 1);
        CHECK_EQ(stats.wait.count, i);
        CHECK_EQ(stats.run.count, i);
    }
    close_stage(&stage);
}

TEST(threads_are_asked_for_up_to_the_size)
{
    enum { SIZE = 3, COUNT = 10 };
    stage stage;
    task tasks[COUNT];
    open_stage(&stage, SIZE, 0);
    for (int i = 0; i < COUNT; i++) {
        init_held(&stage, &tasks[i], HOOP_LANE_FILES);
        CHECK_EQ(put(&stage, &tasks[i]), i < SIZE);
    }
    await(&stage.started, SIZE);
    hoop_pool_stats stats = stats_of(&stage.crew);
    CHECK_EQ(stats.running, SIZE);
    CHECK_EQ(stats.queued, COUNT - SIZE);
    CHECK_EQ(stats.threads, SIZE);
    give(&stage.go, COUNT);
    receive_all(&stage.home, COUNT);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(atomic_load(&tasks[i].arrivals), 1);
    close_stage(&stage);
}

/* All but one sleep; a job that wakes one of them must not be the last that runs. */
TEST(a_burst_gets_every_sleeping_worker)
{
    enum { SIZE = 8 };
    stage stage;
    task tasks[SIZE];
    open_stage(&stage, SIZE, 0);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < SIZE; i++) {
            init_held(&stage, &tasks[i], HOOP_LANE_FILES);
            put(&stage, &tasks[i]);
        }
        await(&stage.started, SIZE); /* hangs if one of them is not woken */
        give(&stage.go, SIZE);
        receive_all(&stage.home, SIZE);
    }
    close_stage(&stage);
}

TEST(trap_39_slow_dns_leaves_half_of_the_threads_to_files)
{
    enum { SIZE = 4, SLOW = 20, FILES = 30 };
    stage stage;
    task slow[SLOW], files[FILES];
    open_stage(&stage, SIZE, 0);
    for (int i = 0; i < SLOW; i++) {
        init_held(&stage, &slow[i], HOOP_LANE_DNS);
        put(&stage, &slow[i]);
    }
    await(&stage.started, SIZE / 2);
    for (int i = 0; i < FILES; i++) {
        init_task(&files[i], HOOP_LANE_FILES);
        put(&stage, &files[i]);
    }
    receive_all(&stage.home, FILES); /* hangs if lookups take every thread */
    hoop_pool_stats stats = stats_of(&stage.crew);
    CHECK_EQ(stats.dns_running, SIZE / 2);
    CHECK_EQ(stats.dns_queued, SLOW - SIZE / 2);
    CHECK_EQ(stats.running, SIZE / 2);
    CHECK_EQ(stats.done, FILES);
    give(&stage.go, SLOW);
    receive_all(&stage.home, SLOW);
    close_stage(&stage);
}

/* node#8436. A name that is thought to be answered finds a place, whatever else does not end. */
static void check_names_with_places_of_their_own(int size, int held_files)
{
    enum { SLOW = 20, LOCAL = 30, MOST = 8 };
    static task slow[SLOW], files[MOST], local[LOCAL], answered[LOCAL];
    stage stage;
    int dns_limit = size < 2 ? 1 : size / 2;
    open_stage(&stage, size, 0);
    for (int i = 0; i < SLOW; i++) {
        init_held(&stage, &slow[i], HOOP_LANE_DNS);
        put(&stage, &slow[i]);
    }
    await(&stage.started, dns_limit);
    for (int i = 0; i < held_files; i++) {
        init_held(&stage, &files[i], HOOP_LANE_FILES);
        put(&stage, &files[i]);
    }
    await(&stage.started, held_files);
    for (int i = 0; i < LOCAL; i++) {
        init_task(&local[i], HOOP_LANE_LOCAL_NAMES);
        put(&stage, &local[i]);
        init_task(&answered[i], HOOP_LANE_ANSWERED_NAMES);
        put(&stage, &answered[i]);
    }
    receive_all(&stage.home, 2 * LOCAL); /* hangs if they wait for the others */
    task stuck;                          /* a name server that has fallen silent, now */
    init_held(&stage, &stuck, HOOP_LANE_ANSWERED_NAMES);
    put(&stage, &stuck);
    await(&stage.started, 1);
    init_task(&local[0], HOOP_LANE_LOCAL_NAMES);
    put(&stage, &local[0]);
    receive_all(&stage.home, 1);
    hoop_pool_stats stats = stats_of(&stage.crew);
    CHECK_EQ(stats.dns_running, dns_limit + 1);
    CHECK_EQ(stats.dns_queued, SLOW - dns_limit);
    CHECK_EQ(stats.running, dns_limit + 1 + held_files);
    CHECK(stats.threads <= size + HOOP_POOL_OWN_PLACES);
    give(&stage.go, SLOW + held_files + 1);
    receive_all(&stage.home, SLOW + held_files + 1);
    close_stage(&stage);
}

TEST(trap_39_names_that_are_answered_do_not_wait_for_those_that_are_not)
{
    check_names_with_places_of_their_own(4, 2);
    check_names_with_places_of_their_own(4, 0);
    check_names_with_places_of_their_own(3, 2);
    check_names_with_places_of_their_own(2, 1);
    check_names_with_places_of_their_own(1, 0);
    check_names_with_places_of_their_own(8, 4);
}

/* One place is the lane's own, the rest are those that all names share. */
TEST(local_names_that_do_not_end_leave_files_alone)
{
    enum { SIZE = 4, COUNT = 10 };
    stage stage;
    task slow[COUNT], files[COUNT];
    open_stage(&stage, SIZE, 0);
    for (int i = 0; i < COUNT; i++) {
        init_held(&stage, &slow[i], HOOP_LANE_LOCAL_NAMES);
        put(&stage, &slow[i]);
    }
    await(&stage.started, SIZE / 2 + 1);
    for (int i = 0; i < COUNT; i++) {
        init_task(&files[i], HOOP_LANE_FILES);
        put(&stage, &files[i]);
    }
    receive_all(&stage.home, COUNT);
    CHECK_EQ(stats_of(&stage.crew).dns_running, SIZE / 2 + 1);
    give(&stage.go, COUNT);
    receive_all(&stage.home, COUNT);
    close_stage(&stage);
}

TEST(names_that_find_a_thread_need_none_of_their_own)
{
    stage stage;
    task task;
    open_stage(&stage, 2, 0);
    for (int i = 0; i < 100; i++) {
        init_task(&task, i % 2 ? HOOP_LANE_LOCAL_NAMES : HOOP_LANE_ANSWERED_NAMES);
        CHECK_EQ(put(&stage, &task), i == 0);
        receive_all(&stage.home, 1);
    }
    close_stage(&stage);
}

TEST(a_pool_of_one_runs_dns_too)
{
    stage stage;
    task task;
    open_stage(&stage, 1, 0);
    init_task(&task, HOOP_LANE_DNS);
    CHECK_EQ(put(&stage, &task), 1);
    receive_all(&stage.home, 1);
    close_stage(&stage);
}

TEST(lanes_take_turns_by_age)
{
    enum { COUNT = 6 };
    hoop_pool *pool;
    home home;
    task tasks[COUNT];
    hoop_worker worker;
    REQUIRE(hoop_pool_open(&pool, 2, 0, NULL) == 0);
    open_home(&home);
    for (int i = 0; i < COUNT; i++) {
        init_task(&tasks[i], i % 3 == 1 ? HOOP_LANE_DNS : HOOP_LANE_FILES);
        CHECK_EQ(hoop_pool_submit(pool, &tasks[i].job, &home.inbox, &home.waker, &tasks[i].node), i < 2);
    }
    REQUIRE(hoop_pool_enter(pool, &worker) == 0);
    CHECK_EQ(hoop_pool_worker_failed(pool), 1); /* the other one */
    for (int i = 0; i < COUNT; i++)
        CHECK(hoop_pool_next(pool, &worker) == &tasks[i].job);
    CHECK(hoop_pool_next(pool, &worker) == NULL);
    receive_all(&home, COUNT);
    hoop_pool_stop(pool);
    CHECK(hoop_pool_wait(pool, &worker)); /* it was called, to see that there is an end */
    CHECK(hoop_pool_next(pool, &worker) == NULL);
    CHECK(!hoop_pool_wait(pool, &worker));
    hoop_pool_leave(pool, &worker);
    hoop_pool_free(pool);
    hoop_waker_close(&home.waker);
}

TEST(trap_40_cancel_while_queued_running_and_done)
{
    enum { COUNT = 5 };
    stage stage;
    task tasks[COUNT];
    open_stage(&stage, 1, 0);
    for (int i = 0; i < COUNT; i++) {
        init_held(&stage, &tasks[i], HOOP_LANE_FILES);
    }
    CHECK(!hoop_pool_cancel(stage.crew.pool, &tasks[0].job)); /* never submitted */
    for (int i = 0; i < COUNT; i++)
        put(&stage, &tasks[i]);
    await(&stage.started, 1);
    CHECK(!hoop_pool_cancel(stage.crew.pool, &tasks[0].job)); /* it runs */
    CHECK(hoop_pool_cancel(stage.crew.pool, &tasks[4].job));  /* the last, the first and one in the middle */
    CHECK(hoop_pool_cancel(stage.crew.pool, &tasks[1].job));
    CHECK(hoop_pool_cancel(stage.crew.pool, &tasks[3].job));
    CHECK(!hoop_pool_cancel(stage.crew.pool, &tasks[3].job));
    give(&stage.go, 2);
    receive_all(&stage.home, 2);
    CHECK(!hoop_pool_cancel(stage.crew.pool, &tasks[2].job)); /* it is done */
    CHECK_EQ(stats_of(&stage.crew).cancelled, 3);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(atomic_load(&tasks[i].runs), i == 0 || i == 2);
    close_stage(&stage);
}

TEST(a_full_queue_refuses)
{
    stage stage;
    task tasks[4];
    open_stage(&stage, 1, 2);
    for (int i = 0; i < 4; i++) {
        init_held(&stage, &tasks[i], HOOP_LANE_FILES);
        CHECK_EQ(put(&stage, &tasks[i]), i == 0 ? 1 : i == 3 ? -ENOBUFS : 0);
        if (i == 0)
            await(&stage.started, 1); /* out of the queue */
    }
    CHECK_EQ(stats_of(&stage.crew).refused, 1);
    CHECK(hoop_pool_cancel(stage.crew.pool, &tasks[1].job));
    CHECK_EQ(put(&stage, &tasks[3]), 0); /* there is room again */
    give(&stage.go, 3);
    receive_all(&stage.home, 3);
    close_stage(&stage);
}

TEST(trap_41_a_stopped_pool_finishes_its_queue)
{
    enum { COUNT = 20 };
    stage stage;
    task tasks[COUNT + 1];
    open_stage(&stage, 2, 0);
    for (int i = 0; i <= COUNT; i++) {
        init_task(&tasks[i], i % 2 ? HOOP_LANE_DNS : HOOP_LANE_FILES);
        tasks[i].release = &stage.go;
    }
    for (int i = 0; i < COUNT; i++)
        put(&stage, &tasks[i]);
    hoop_pool_stop(stage.crew.pool);
    hoop_pool_stop(stage.crew.pool);
    CHECK_EQ(put(&stage, &tasks[COUNT]), -ESHUTDOWN);
    give(&stage.go, COUNT);
    close_crew(&stage.crew); /* hangs if a worker misses the end */
    receive_all(&stage.home, COUNT);
    hoop_waker_close(&stage.home.waker);
}

/* Two loops share a pool; one closes with work queued and running, then its inbox goes away. */
TEST(a_loop_that_closes_takes_only_its_own_jobs_back)
{
    enum { COUNT = 12 };
    crew crew;
    home closing, other;
    task tasks[COUNT];
    tokens started, go;
    open_tokens(&started);
    open_tokens(&go);
    open_crew(&crew, 2, 0, NULL);
    open_home(&closing);
    open_home(&other);
    for (int i = 0; i < COUNT; i++) {
        init_task(&tasks[i], i % 4 == 3 ? HOOP_LANE_DNS : HOOP_LANE_FILES);
        tasks[i].started = &started;
        tasks[i].release = &go;
        submit(&crew, i % 2 ? &other : &closing, &tasks[i]);
    }
    await(&started, 2); /* one of each */
    int cancelled = 0;
    for (hoop_job *job = hoop_pool_cancel_all(crew.pool, &closing.inbox); job != NULL; job = job->newer) {
        CHECK(job->inbox == &closing.inbox);
        cancelled++;
    }
    CHECK_EQ(cancelled, COUNT / 2 - 1);
    CHECK(!hoop_pool_wait_quiet(crew.pool, &closing.inbox, 1)); /* it still runs */
    give(&go, 1 + COUNT / 2);
    CHECK(hoop_pool_wait_quiet(crew.pool, &closing.inbox, LOST_AFTER_MS));
    receive_all(&closing, 1);
    hoop_waker_close(&closing.waker);
    receive_all(&other, COUNT / 2);
    CHECK(hoop_pool_cancel_all(crew.pool, NULL) == NULL);
    close_crew(&crew);
    hoop_waker_close(&other.waker);
}

static tokens abandoned;

static void note_abandoned(hoop_job *job)
{
    CHECK(job->inbox == NULL);
    give(&abandoned, 1);
}

TEST(disowned_jobs_run_and_are_abandoned)
{
    enum { COUNT = 6 };
    crew crew;
    home closing;
    task tasks[COUNT];
    tokens started, go;
    open_tokens(&started);
    open_tokens(&go);
    open_tokens(&abandoned);
    open_crew(&crew, 2, 0, note_abandoned);
    open_home(&closing);
    for (int i = 0; i < COUNT; i++) {
        init_task(&tasks[i], HOOP_LANE_FILES);
        tasks[i].started = &started;
        tasks[i].release = &go;
        submit(&crew, &closing, &tasks[i]);
    }
    await(&started, 2);
    hoop_pool_disown(crew.pool, &closing.inbox);
    hoop_waker_close(&closing.waker);
    give(&go, COUNT);
    await(&abandoned, COUNT);
    CHECK(hoop_inbox_take(&closing.inbox) == NULL);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQ(atomic_load(&tasks[i].runs), 1);
    close_crew(&crew);
}

static crew *own_crew;
static home *own_home;

static void look_where_it_runs(hoop_job *job)
{
    home elsewhere;
    CHECK(hoop_pool_is_inside(own_crew->pool, &own_home->inbox));
    CHECK(!hoop_pool_is_inside(own_crew->pool, &elsewhere.inbox));
    run_task(job);
}

TEST(a_job_can_tell_that_it_is_one)
{
    stage stage;
    task task;
    open_stage(&stage, 1, 0);
    own_crew = &stage.crew;
    own_home = &stage.home;
    init_task(&task, HOOP_LANE_FILES);
    task.job.run = look_where_it_runs;
    put(&stage, &task);
    CHECK(!hoop_pool_is_inside(stage.crew.pool, &stage.home.inbox));
    receive_all(&stage.home, 1);
    CHECK_EQ(atomic_load(&task.runs), 1);
    close_stage(&stage);
}

TEST(a_worker_that_fails_to_start_leaves_its_call_to_another)
{
    stage stage;
    task tasks[3];
    open_stage(&stage, 3, 0);
    for (int i = 0; i < 3; i++)
        init_task(&tasks[i], HOOP_LANE_FILES);
    CHECK_EQ(hoop_pool_submit(stage.crew.pool, &tasks[0].job, &stage.home.inbox, &stage.home.waker, &tasks[0].node), 1);
    CHECK_EQ(hoop_pool_worker_failed(stage.crew.pool), 0);
    CHECK(hoop_pool_cancel(stage.crew.pool, &tasks[0].job));
    CHECK_EQ(put(&stage, &tasks[0]), 1);
    receive_all(&stage.home, 1);
    /* Two at once: one wakes the sleeper, the other asks for a thread, which fails. */
    tasks[1].started = &stage.started;
    tasks[1].release = &stage.go;
    CHECK_EQ(put(&stage, &tasks[1]), 0);
    await(&stage.started, 1);
    CHECK_EQ(hoop_pool_submit(stage.crew.pool, &tasks[2].job, &stage.home.inbox, &stage.home.waker, &tasks[2].node), 1);
    CHECK_EQ(hoop_pool_worker_failed(stage.crew.pool), 1);
    give(&stage.go, 1);
    receive_all(&stage.home, 2);
    close_stage(&stage);
}

/* Two ask for a thread at once, a third relies on one of them; neither comes. */
TEST(jobs_that_no_worker_will_run_are_given_back)
{
    enum { COUNT = 4 };
    stage stage;
    home other;
    task tasks[COUNT];
    open_stage(&stage, 2, 0);
    open_home(&other);
    hoop_pool *pool = stage.crew.pool;
    for (int i = 0; i < COUNT; i++) {
        home *home = i == 3 ? &other : &stage.home;
        init_task(&tasks[i], i == 2 ? HOOP_LANE_DNS : HOOP_LANE_FILES);
        CHECK_EQ(hoop_pool_submit(pool, &tasks[i].job, &home->inbox, &home->waker, &tasks[i].node), i < 2);
    }
    CHECK_EQ(hoop_pool_worker_failed(pool), 1);
    CHECK(hoop_pool_give_back_stranded(pool) == NULL);
    CHECK(hoop_inbox_take(&other.inbox) == NULL); /* there may yet be a worker */
    CHECK_EQ(hoop_pool_worker_failed(pool), 0);
    CHECK(hoop_pool_cancel(pool, &tasks[1].job)); /* its caller gets the error */
    CHECK(hoop_pool_give_back_stranded(pool) == NULL);
    receive_all(&stage.home, 2);
    receive_all(&other, 1);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(tasks[i].job.state, i == 1 ? HOOP_JOB_IDLE : HOOP_JOB_STRANDED);
        CHECK_EQ(atomic_load(&tasks[i].runs), 0);
    }
    CHECK_EQ(stats_of(&stage.crew).queued, 0);
    hoop_waker_close(&other.waker);
    close_stage(&stage);
}

TEST(what_is_queued_is_given_back_to_its_loops)
{
    enum { COUNT = 6 };
    stage stage;
    home closed;
    task tasks[COUNT];
    open_tokens(&abandoned);
    open_stage(&stage, 1, 0);
    close_crew(&stage.crew);
    open_crew(&stage.crew, 1, 0, note_abandoned);
    open_home(&closed);
    for (int i = 0; i < COUNT; i++) {
        init_held(&stage, &tasks[i], HOOP_LANE_FILES);
        submit(&stage.crew, i % 3 == 2 ? &closed : &stage.home, &tasks[i]);
    }
    await(&stage.started, 1);
    hoop_pool_disown(stage.crew.pool, &closed.inbox);
    hoop_waker_close(&closed.waker);
    int without_inbox = 0;
    for (hoop_job *job = hoop_pool_give_back(stage.crew.pool); job != NULL; job = job->newer) {
        CHECK(job->inbox == NULL);
        without_inbox++;
    }
    CHECK_EQ(without_inbox, 2);
    receive_all(&stage.home, 3);
    for (int i = 1; i < COUNT; i++)
        CHECK_EQ(tasks[i].job.state, HOOP_JOB_IDLE);
    CHECK_EQ(stats_of(&stage.crew).cancelled, COUNT - 1);
    give(&stage.go, 1);
    receive_all(&stage.home, 1);
    close_stage(&stage);
}

/* A loop that closes while another thread empties the queue has its jobs in the inbox, or takes them itself. */
static void *empty_queue(void *pool)
{
    CHECK(hoop_pool_give_back(pool) == NULL);
    return NULL;
}

TEST(a_loop_that_closes_while_the_queue_is_given_back)
{
    enum { ROUNDS = 300, COUNT = 20 };
    stage stage;
    task holding, tasks[COUNT];
    open_stage(&stage, 1, 0);
    init_held(&stage, &holding, HOOP_LANE_FILES);
    put(&stage, &holding);
    await(&stage.started, 1);
    for (int round = 0; round < ROUNDS; round++) {
        home closing;
        pthread_t thread;
        int count = 0;
        open_home(&closing);
        for (int i = 0; i < COUNT; i++) {
            init_task(&tasks[i], HOOP_LANE_FILES);
            CHECK_EQ(submit(&stage.crew, &closing, &tasks[i]), 0);
        }
        REQUIRE(pthread_create(&thread, NULL, empty_queue, stage.crew.pool) == 0);
        for (hoop_job *job = hoop_pool_cancel_all(stage.crew.pool, &closing.inbox); job != NULL; job = job->newer)
            count++;
        CHECK(hoop_pool_wait_quiet(stage.crew.pool, &closing.inbox, LOST_AFTER_MS));
        for (hoop_inbox_node *node = hoop_inbox_take(&closing.inbox); node != NULL; node = node->next)
            count++;
        CHECK_EQ(count, COUNT);
        hoop_waker_close(&closing.waker);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
    give(&stage.go, 1);
    receive_all(&stage.home, 1);
    close_stage(&stage);
}

TEST(a_spinning_worker_hears_the_call)
{
    stage stage;
    task task;
    open_stage(&stage, 1, 0);
    hoop_pool_set_spin(stage.crew.pool, HOOP_NS_PER_SECOND / 1000);
    for (int i = 0; i < 500; i++) {
        init_task(&task, HOOP_LANE_FILES);
        put(&stage, &task);
        receive_all(&stage.home, 1);
    }
    close_stage(&stage);
}

int main(void)
{
    RUN(sizes_are_checked_and_memory_may_be_short);
    RUN(a_job_runs_and_comes_back);
    RUN(threads_are_asked_for_up_to_the_size);
    RUN(a_burst_gets_every_sleeping_worker);
    RUN(trap_39_slow_dns_leaves_half_of_the_threads_to_files);
    RUN(trap_39_names_that_are_answered_do_not_wait_for_those_that_are_not);
    RUN(local_names_that_do_not_end_leave_files_alone);
    RUN(names_that_find_a_thread_need_none_of_their_own);
    RUN(a_pool_of_one_runs_dns_too);
    RUN(lanes_take_turns_by_age);
    RUN(trap_40_cancel_while_queued_running_and_done);
    RUN(a_full_queue_refuses);
    RUN(trap_41_a_stopped_pool_finishes_its_queue);
    RUN(a_loop_that_closes_takes_only_its_own_jobs_back);
    RUN(disowned_jobs_run_and_are_abandoned);
    RUN(a_job_can_tell_that_it_is_one);
    RUN(a_worker_that_fails_to_start_leaves_its_call_to_another);
    RUN(jobs_that_no_worker_will_run_are_given_back);
    RUN(what_is_queued_is_given_back_to_its_loops);
    RUN(a_loop_that_closes_while_the_queue_is_given_back);
    RUN(a_spinning_worker_hears_the_call);
    return check_finish();
}
