/* pool_fixture.h: threads behind a pool, a loop that does nothing but wait for its jobs, and jobs that can be held. */
#ifndef HOOP_TESTS_POOL_FIXTURE_H
#define HOOP_TESTS_POOL_FIXTURE_H

#include "check.h"
#include "pool.h"

#include <poll.h>
#include <pthread.h>

/* What takes longer than this never comes. */
#define LOST_AFTER_MS 20000

enum { MOST_WORKERS = 64 };

/* A counting semaphore: macOS has no unnamed ones. */
typedef struct tokens {
    pthread_mutex_t lock;
    pthread_cond_t more;
    int count;
} tokens;

static inline void open_tokens(tokens *tokens)
{
    REQUIRE(pthread_mutex_init(&tokens->lock, NULL) == 0);
    REQUIRE(pthread_cond_init(&tokens->more, NULL) == 0);
    tokens->count = 0;
}

static inline void give(tokens *tokens, int count)
{
    REQUIRE(pthread_mutex_lock(&tokens->lock) == 0);
    tokens->count += count;
    REQUIRE(pthread_cond_broadcast(&tokens->more) == 0);
    REQUIRE(pthread_mutex_unlock(&tokens->lock) == 0);
}

static inline void await(tokens *tokens, int count)
{
    REQUIRE(pthread_mutex_lock(&tokens->lock) == 0);
    while (tokens->count < count)
        REQUIRE(pthread_cond_wait(&tokens->more, &tokens->lock) == 0);
    tokens->count -= count;
    REQUIRE(pthread_mutex_unlock(&tokens->lock) == 0);
}

/* A pool with real threads behind it. */
typedef struct crew {
    hoop_pool *pool;
    pthread_t threads[MOST_WORKERS];
    int thread_count;
    pthread_mutex_t hiring; /* for tests that submit from several threads */
} crew;

static inline void *work(void *pool)
{
    CHECK_EQ(hoop_pool_work(pool), 0);
    return NULL;
}

static inline void open_crew(crew *crew, int size, size_t queue_limit, hoop_job_fn abandon)
{
    *crew = (struct crew){0};
    REQUIRE(pthread_mutex_init(&crew->hiring, NULL) == 0);
    REQUIRE(hoop_pool_open(&crew->pool, size, queue_limit, abandon) == 0);
}

static inline void hire(crew *crew)
{
    REQUIRE(pthread_mutex_lock(&crew->hiring) == 0);
    REQUIRE(crew->thread_count < MOST_WORKERS);
    REQUIRE(pthread_create(&crew->threads[crew->thread_count++], NULL, work, crew->pool) == 0);
    REQUIRE(pthread_mutex_unlock(&crew->hiring) == 0);
}

static inline void close_crew(crew *crew)
{
    hoop_pool_stop(crew->pool);
    for (int i = 0; i < crew->thread_count; i++)
        REQUIRE(pthread_join(crew->threads[i], NULL) == 0);
    hoop_pool_free(crew->pool);
    REQUIRE(pthread_mutex_destroy(&crew->hiring) == 0);
}

/* A loop that does nothing but wait for its jobs. */
typedef struct home {
    hoop_inbox inbox;
    hoop_waker waker;
} home;

typedef struct task {
    hoop_job job;
    hoop_inbox_node node;
    tokens *started; /* given one when it runs, if there are any */
    tokens *release; /* waits for one, if there are any */
    atomic_int runs;
    atomic_int arrivals;
} task;

static inline task *task_of(hoop_inbox_node *node)
{
    return HOOP_CONTAINER_OF(node, task, node);
}

static inline void open_home(home *home)
{
    hoop_inbox_init(&home->inbox);
    REQUIRE(hoop_waker_open(&home->waker) == 0);
}

/* Wait for at least one job to come back; how many did. */
static inline int receive(home *home)
{
    hoop_inbox_node *node = hoop_inbox_take(&home->inbox);
    while (node == NULL) {
        if (hoop_inbox_prepare_sleep(&home->inbox)) {
            struct pollfd fd = {.fd = home->waker.read_fd, .events = POLLIN};
            REQUIRE(poll(&fd, 1, LOST_AFTER_MS) == 1);
            hoop_inbox_awake(&home->inbox);
        }
        REQUIRE(hoop_waker_drain(&home->waker) >= 0);
        node = hoop_inbox_take(&home->inbox);
    }
    int count = 0;
    while (node != NULL) {
        hoop_inbox_node *next = node->next;
        atomic_fetch_add(&task_of(node)->arrivals, 1);
        count++;
        node = next;
    }
    return count;
}

static inline void receive_all(home *home, int count)
{
    while (count > 0)
        count -= receive(home);
    CHECK_EQ(count, 0);
}

static inline void run_task(hoop_job *job)
{
    task *task = HOOP_CONTAINER_OF(job, struct task, job);
    atomic_fetch_add(&task->runs, 1);
    if (task->started != NULL)
        give(task->started, 1);
    if (task->release != NULL)
        await(task->release, 1);
}

static inline void init_task(task *task, hoop_lane lane)
{
    *task = (struct task){0};
    hoop_job_init(&task->job, run_task, lane);
}

static inline int submit(crew *crew, home *home, task *task)
{
    int result = hoop_pool_submit(crew->pool, &task->job, &home->inbox, &home->waker, &task->node);
    if (result == 1)
        hire(crew);
    return result;
}

/* One pool, one loop, and what held tasks wait for. */
typedef struct stage {
    crew crew;
    home home;
    tokens started;
    tokens go;
} stage;

static inline void open_stage(stage *stage, int size, size_t queue_limit)
{
    open_tokens(&stage->started);
    open_tokens(&stage->go);
    open_crew(&stage->crew, size, queue_limit, NULL);
    open_home(&stage->home);
}

static inline void close_stage(stage *stage)
{
    close_crew(&stage->crew);
    hoop_waker_close(&stage->home.waker);
}

static inline int put(stage *stage, task *task)
{
    return submit(&stage->crew, &stage->home, task);
}

static inline void init_held(stage *stage, task *task, hoop_lane lane)
{
    init_task(task, lane);
    task->started = &stage->started;
    task->release = &stage->go;
}

static inline hoop_pool_stats stats_of(crew *crew)
{
    hoop_pool_stats stats;
    hoop_pool_get_stats(crew->pool, &stats);
    return stats;
}

#endif
