#include "pool.h"

#include "clock.h"

/* What the lock protects: everything below but `waiters`, which is read without it.
 *
 * A worker that has no job stands on the idle stack from the moment it finds the queue empty, before it posts its last
 * job and long before it sleeps: the loop that awaits that job and submits the next one finds an idle worker, and
 * starts no needless thread. The thread that takes a worker off the stack sets is_called; the worker looks at that
 * under the lock before it sleeps, so the call is not lost.
 *
 * Workers post outside of the lock, since posting may write(2). Until it is over, `posting` says where to. A thread
 * that waits for a loop's jobs to end counts itself in `waiters`, then looks at every `posting`; a poster clears
 * `posting`, then looks at `waiters`. Both are sequentially consistent, so one of the two sees the other. */

enum { PAUSES_PER_CLOCK_READ = 32 };

typedef struct lane {
    hoop_job *oldest;
    hoop_job *newest;
    size_t queued;
    size_t running;
    size_t own; /* places that no other lane uses */
} lane;

/* Places that are free. */
typedef struct room {
    size_t shared; /* by all lanes */
    size_t names;  /* of these, for names */
} room;

struct hoop_pool {
    pthread_mutex_t lock;
    pthread_cond_t posted; /* for threads that wait for a loop's jobs */
    atomic_int waiters;
    atomic_bool has_spinner;
    lane lanes[HOOP_LANES];
    hoop_worker *idle; /* a stack */
    hoop_worker *workers;
    size_t idle_count;
    size_t waking;   /* called, but not yet back from their sleep */
    size_t starting; /* asked for, but not yet here */
    int size;
    int threads;        /* here or starting; with the own places this may be more than size */
    size_t names_limit; /* most shared places that names hold */
    bool stopping;
    size_t queue_limit;
    hoop_job_fn abandon;
    int64_t spin_ns;
    uint64_t submitted;
    uint64_t done;
    uint64_t cancelled;
    uint64_t refused;
    uint64_t wake_ups;
    hoop_histogram wait;
    hoop_histogram run;
};

static void lock(hoop_pool *pool)
{
    int result = pthread_mutex_lock(&pool->lock);
    HOOP_ASSERT(result == 0); /* a plain mutex, initialised, never locked twice by one thread */
}

static void unlock(hoop_pool *pool)
{
    int result = pthread_mutex_unlock(&pool->lock);
    HOOP_ASSERT(result == 0);
}

static void sleep_on(pthread_cond_t *condition, hoop_pool *pool)
{
    int result = pthread_cond_wait(condition, &pool->lock);
    HOOP_ASSERT(result == 0);
}

/* ---- the queue
 * ---------------------------------------------------------------------------------------------------- */

void hoop_job_init(hoop_job *job, hoop_job_fn run, hoop_lane lane)
{
    *job = (hoop_job){.run = run, .lane = lane, .state = HOOP_JOB_IDLE};
}

static size_t queued(const hoop_pool *pool)
{
    size_t sum = 0;
    for (int i = 0; i < HOOP_LANES; i++)
        sum += pool->lanes[i].queued;
    return sum;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t own_room(const lane *lane)
{
    return lane->own - smaller(lane->own, lane->running);
}

static room shared_room(const hoop_pool *pool)
{
    room taken = {0, 0};
    for (int i = 0; i < HOOP_LANES; i++) {
        const lane *lane = &pool->lanes[i];
        size_t shared = lane->running - smaller(lane->own, lane->running);
        taken.shared += shared;
        taken.names += i == HOOP_LANE_FILES ? 0 : shared;
    }
    return (room){(size_t)pool->size - taken.shared, pool->names_limit - taken.names};
}

/* How many of the queued jobs could run now, were there threads enough. */
static size_t runnable(const hoop_pool *pool)
{
    size_t sum = 0;
    room room = shared_room(pool);
    for (int i = 0; i < HOOP_LANES; i++) {
        const lane *lane = &pool->lanes[i];
        size_t own = smaller(lane->queued, own_room(lane));
        size_t shared = smaller(lane->queued - own, room.shared);
        if (i != HOOP_LANE_FILES) {
            shared = smaller(shared, room.names);
            room.names -= shared;
        }
        room.shared -= shared;
        sum += own + shared;
    }
    return sum;
}

static bool may_run(const hoop_pool *pool, hoop_lane lane, room room)
{
    return own_room(&pool->lanes[lane]) > 0 || (room.shared > 0 && (lane == HOOP_LANE_FILES || room.names > 0));
}

static void append(hoop_pool *pool, hoop_job *job)
{
    lane *lane = &pool->lanes[job->lane];
    job->older = lane->newest;
    job->newer = NULL;
    if (lane->newest != NULL)
        lane->newest->newer = job;
    else
        lane->oldest = job;
    lane->newest = job;
    lane->queued++;
    job->state = HOOP_JOB_QUEUED;
}

static void unlink_job(hoop_pool *pool, hoop_job *job)
{
    lane *lane = &pool->lanes[job->lane];
    if (job->older != NULL)
        job->older->newer = job->newer;
    else
        lane->oldest = job->newer;
    if (job->newer != NULL)
        job->newer->older = job->older;
    else
        lane->newest = job->older;
    job->older = job->newer = NULL;
    lane->queued--;
}

/* Take the oldest job of a lane that may run another one; it is running from now on. NULL if there is none. */
static hoop_job *take(hoop_pool *pool, int64_t now_ns)
{
    hoop_job *job = NULL;
    room room = shared_room(pool);
    for (int i = 0; i < HOOP_LANES; i++) {
        hoop_job *oldest = pool->lanes[i].oldest;
        if (oldest != NULL && may_run(pool, i, room) && (job == NULL || oldest->number < job->number))
            job = oldest;
    }
    if (job == NULL)
        return NULL;
    unlink_job(pool, job);
    pool->lanes[job->lane].running++;
    job->state = HOOP_JOB_RUNNING;
    hoop_histogram_record(&pool->wait, now_ns - job->submitted_ns);
    return job;
}

/* ---- calling workers
 * ---------------------------------------------------------------------------------------------- */

static void call(hoop_pool *pool)
{
    hoop_worker *worker = pool->idle;
    pool->idle = worker->next_idle;
    pool->idle_count--;
    worker->is_idle = false;
    worker->is_counted = true;
    pool->waking++;
    pool->wake_ups++;
    atomic_store_explicit(&worker->is_called, true, memory_order_release);
    /* Under the lock: as soon as it is released, the worker may leave, and its stack goes with it. */
    int result = pthread_cond_signal(&worker->called);
    HOOP_ASSERT(result == 0);
}

static void call_if_useful(hoop_pool *pool)
{
    if (pool->idle != NULL && pool->waking + pool->starting == 0 && runnable(pool) > 0)
        call(pool);
}

int hoop_pool_submit(hoop_pool *pool, hoop_job *job, hoop_inbox *inbox, const hoop_waker *waker, hoop_inbox_node *node)
{
    int result = 0;
    job->submitted_ns = hoop_clock_ns();
    job->inbox = inbox;
    job->waker = waker;
    job->node = node;
    lock(pool);
    if (pool->stopping) {
        result = -ESHUTDOWN;
    } else if (pool->queue_limit != 0 && queued(pool) >= pool->queue_limit) {
        pool->refused++;
        result = -ENOBUFS;
    } else {
        job->number = pool->submitted++;
        append(pool, job);
        call_if_useful(pool);
        if (pool->threads < pool->size + HOOP_POOL_OWN_PLACES &&
            runnable(pool) > pool->idle_count + pool->waking + pool->starting) {
            pool->threads++;
            pool->starting++;
            result = 1;
        }
    }
    unlock(pool);
    return result;
}

int hoop_pool_worker_failed(hoop_pool *pool)
{
    lock(pool);
    pool->starting--;
    int threads = --pool->threads;
    call_if_useful(pool); /* a wake-up may have been left to the worker that did not come */
    unlock(pool);
    return threads;
}

/* ---- taking jobs back
 * --------------------------------------------------------------------------------------------- */

static void mark_cancelled(hoop_pool *pool, hoop_job *job)
{
    unlink_job(pool, job);
    job->state = HOOP_JOB_IDLE;
    pool->cancelled++;
}

bool hoop_pool_cancel(hoop_pool *pool, hoop_job *job)
{
    lock(pool);
    bool was_queued = job->state == HOOP_JOB_QUEUED;
    if (was_queued)
        mark_cancelled(pool, job);
    unlock(pool);
    return was_queued;
}

hoop_job *hoop_pool_cancel_all(hoop_pool *pool, const hoop_inbox *inbox)
{
    hoop_job *first = NULL;
    hoop_job **end = &first;
    lock(pool);
    for (int i = 0; i < HOOP_LANES; i++) {
        hoop_job *job = pool->lanes[i].oldest;
        while (job != NULL) {
            hoop_job *newer = job->newer;
            if (inbox == NULL || job->inbox == inbox) {
                mark_cancelled(pool, job);
                *end = job;
                end = &job->newer;
            }
            job = newer;
        }
    }
    unlock(pool);
    return first;
}

/* Under the lock, which the thread that closes a loop takes to ask for what is queued: so it either finds the job in
 * the queue or has it in the inbox already. Nothing here waits. */
static hoop_job *give_back(hoop_pool *pool, hoop_job_state state)
{
    hoop_job *without_inbox = NULL;
    hoop_job **end = &without_inbox;
    for (int i = 0; i < HOOP_LANES; i++) {
        hoop_job *job;
        while ((job = pool->lanes[i].oldest) != NULL) {
            hoop_inbox *inbox = job->inbox;
            const hoop_waker *waker = job->waker;
            mark_cancelled(pool, job);
            job->state = state;
            if (inbox == NULL) {
                *end = job;
                end = &job->newer;
            } else if (hoop_inbox_push(inbox, job->node)) {
                (void)hoop_waker_wake(waker); /* a failure keeps none of the others */
            }
        }
    }
    return without_inbox;
}

hoop_job *hoop_pool_give_back(hoop_pool *pool)
{
    lock(pool);
    hoop_job *without_inbox = give_back(pool, HOOP_JOB_IDLE);
    unlock(pool);
    return without_inbox;
}

hoop_job *hoop_pool_give_back_stranded(hoop_pool *pool)
{
    lock(pool);
    hoop_job *without_inbox = pool->threads == 0 ? give_back(pool, HOOP_JOB_STRANDED) : NULL;
    unlock(pool);
    return without_inbox;
}

static bool is_posting(hoop_pool *pool, const hoop_inbox *inbox)
{
    for (const hoop_worker *worker = pool->workers; worker != NULL; worker = worker->next) {
        if (atomic_load(&worker->posting) == inbox)
            return true;
    }
    return false;
}

static bool is_running(hoop_pool *pool, const hoop_inbox *inbox)
{
    for (const hoop_worker *worker = pool->workers; worker != NULL; worker = worker->next) {
        if (worker->job != NULL && worker->job->inbox == inbox)
            return true;
    }
    return false;
}

bool hoop_pool_is_inside(hoop_pool *pool, const hoop_inbox *inbox)
{
    bool is_inside = false;
    lock(pool);
    for (const hoop_worker *worker = pool->workers; worker != NULL && !is_inside; worker = worker->next)
        is_inside = worker->job != NULL && worker->job->inbox == inbox && pthread_equal(worker->thread, pthread_self());
    unlock(pool);
    return is_inside;
}

static struct timespec deadline_after(int timeout_ms)
{
    struct timespec deadline; /* of the clock of conditions; only Linux lets them have another */
    int result = clock_gettime(CLOCK_REALTIME, &deadline);
    HOOP_ASSERT(result == 0);
    int64_t nanoseconds = deadline.tv_nsec + (int64_t)timeout_ms * (HOOP_NS_PER_SECOND / 1000);
    deadline.tv_sec += (time_t)(nanoseconds / HOOP_NS_PER_SECOND);
    deadline.tv_nsec = (long)(nanoseconds % HOOP_NS_PER_SECOND);
    return deadline;
}

bool hoop_pool_wait_quiet(hoop_pool *pool, const hoop_inbox *inbox, int timeout_ms)
{
    struct timespec deadline = deadline_after(timeout_ms);
    int result = 0;
    lock(pool);
    atomic_fetch_add(&pool->waiters, 1);
    bool is_busy = is_running(pool, inbox) || is_posting(pool, inbox);
    while (is_busy && result == 0) {
        result = pthread_cond_timedwait(&pool->posted, &pool->lock, &deadline);
        HOOP_ASSERT(result == 0 || result == ETIMEDOUT);
        is_busy = is_running(pool, inbox) || is_posting(pool, inbox);
    }
    atomic_fetch_sub(&pool->waiters, 1);
    unlock(pool);
    return !is_busy;
}

void hoop_pool_disown(hoop_pool *pool, const hoop_inbox *inbox)
{
    HOOP_ASSERT(pool->abandon != NULL);
    lock(pool);
    for (int i = 0; i < HOOP_LANES; i++) {
        for (hoop_job *job = pool->lanes[i].oldest; job != NULL; job = job->newer) {
            if (job->inbox == inbox)
                job->inbox = NULL;
        }
    }
    for (hoop_worker *worker = pool->workers; worker != NULL; worker = worker->next) {
        if (worker->job != NULL && worker->job->inbox == inbox)
            worker->job->inbox = NULL;
    }
    atomic_fetch_add(&pool->waiters, 1);
    while (is_posting(pool, inbox))
        sleep_on(&pool->posted, pool);
    atomic_fetch_sub(&pool->waiters, 1);
    unlock(pool);
}

/* ---- workers
 * ------------------------------------------------------------------------------------------------------ */

int hoop_pool_enter(hoop_pool *pool, hoop_worker *worker)
{
    *worker = (hoop_worker){.thread = pthread_self()};
    atomic_init(&worker->is_called, false);
    atomic_init(&worker->posting, NULL);
    int result = pthread_cond_init(&worker->called, NULL);
    if (result != 0) {
        hoop_pool_worker_failed(pool);
        return -result;
    }
    lock(pool);
    pool->starting--;
    worker->spin.limit_ns = pool->spin_ns;
    worker->next = pool->workers;
    if (pool->workers != NULL)
        pool->workers->previous = worker;
    pool->workers = worker;
    unlock(pool);
    return 0;
}

static void account(hoop_pool *pool, hoop_worker *worker, int64_t now_ns)
{
    hoop_job *job = worker->job;
    pool->lanes[job->lane].running--;
    pool->done++;
    hoop_histogram_record(&pool->run, now_ns - worker->began_ns);
    job->state = HOOP_JOB_DONE;
    worker->job = NULL;
    atomic_store(&worker->posting, job->inbox);
}

/* From the push on, the job belongs to its loop and may be gone. */
static void post(hoop_pool *pool, hoop_worker *worker, hoop_job *job)
{
    hoop_inbox *inbox = atomic_load_explicit(&worker->posting, memory_order_relaxed);
    if (inbox == NULL) {
        pool->abandon(job);
        return;
    }
    const hoop_waker *waker = job->waker;
    if (hoop_inbox_push(inbox, job->node)) {
        int result = hoop_waker_wake(waker);
        HOOP_ASSERT(result >= 0); /* an open eventfd or pipe; a full one is no error */
    }
    atomic_store(&worker->posting, NULL);
    if (HOOP_UNLIKELY(atomic_load(&pool->waiters) > 0)) {
        lock(pool);
        int result = pthread_cond_broadcast(&pool->posted);
        HOOP_ASSERT(result == 0);
        unlock(pool);
    }
}

static void become_idle(hoop_pool *pool, hoop_worker *worker)
{
    atomic_store_explicit(&worker->is_called, false, memory_order_relaxed);
    worker->is_idle = true;
    worker->next_idle = pool->idle;
    pool->idle = worker;
    pool->idle_count++;
}

hoop_job *hoop_pool_next(hoop_pool *pool, hoop_worker *worker)
{
    hoop_job *ended = worker->job;
    int64_t now_ns = hoop_clock_ns();
    lock(pool);
    if (worker->is_counted) {
        worker->is_counted = false;
        pool->waking--;
    }
    if (ended != NULL)
        account(pool, worker, now_ns);
    hoop_job *job = take(pool, now_ns);
    worker->job = job;
    worker->began_ns = now_ns;
    if (job != NULL)
        call_if_useful(pool);
    else if (pool->stopping)
        worker->may_leave = true;
    else
        become_idle(pool, worker);
    unlock(pool);
    if (ended != NULL)
        post(pool, worker, ended);
    return job;
}

/* Look for a call without sleeping. */
static void spin(hoop_pool *pool, hoop_worker *worker)
{
    if (!hoop_spin_may(&worker->spin) || atomic_exchange(&pool->has_spinner, true))
        return;
    int64_t deadline_ns = hoop_clock_ns() + worker->spin.limit_ns;
    bool is_called = false;
    do {
        for (int i = 0; i < PAUSES_PER_CLOCK_READ && !is_called; i++) {
            hoop_spin_pause();
            is_called = atomic_load_explicit(&worker->is_called, memory_order_acquire);
        }
    } while (!is_called && hoop_clock_ns() < deadline_ns);
    atomic_store(&pool->has_spinner, false);
    hoop_spin_ended(&worker->spin, is_called);
}

bool hoop_pool_wait(hoop_pool *pool, hoop_worker *worker)
{
    if (worker->may_leave)
        return false;
    spin(pool, worker);
    lock(pool);
    worker->spin.limit_ns = pool->spin_ns;
    while (worker->is_idle)
        sleep_on(&worker->called, pool);
    unlock(pool);
    return true;
}

void hoop_pool_leave(hoop_pool *pool, hoop_worker *worker)
{
    lock(pool);
    if (worker->previous != NULL)
        worker->previous->next = worker->next;
    else
        pool->workers = worker->next;
    if (worker->next != NULL)
        worker->next->previous = worker->previous;
    pool->threads--;
    unlock(pool);
    int result = pthread_cond_destroy(&worker->called);
    HOOP_ASSERT(result == 0);
}

int hoop_pool_work(hoop_pool *pool)
{
    hoop_worker worker;
    int result = hoop_pool_enter(pool, &worker);
    if (result < 0)
        return result;
    do {
        hoop_job *job;
        while ((job = hoop_pool_next(pool, &worker)) != NULL)
            job->run(job);
    } while (hoop_pool_wait(pool, &worker));
    hoop_pool_leave(pool, &worker);
    return 0;
}

/* ---- the whole
 * ---------------------------------------------------------------------------------------------------- */

int hoop_pool_open(hoop_pool **result, int size, size_t queue_limit, hoop_job_fn abandon)
{
    if (size < 1 || size > HOOP_POOL_MAX_SIZE)
        return -EINVAL;
    hoop_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return -ENOMEM;
    int error = pthread_mutex_init(&pool->lock, NULL);
    if (error == 0) {
        error = pthread_cond_init(&pool->posted, NULL);
        if (error != 0)
            pthread_mutex_destroy(&pool->lock);
    }
    if (error != 0) {
        free(pool);
        return -error;
    }
    atomic_init(&pool->waiters, 0);
    atomic_init(&pool->has_spinner, false);
    pool->size = size;
    pool->queue_limit = queue_limit;
    pool->abandon = abandon;
    pool->names_limit = size < 2 ? 1 : (size_t)size / 2;
    pool->lanes[HOOP_LANE_LOCAL_NAMES].own = 1;
    pool->lanes[HOOP_LANE_ANSWERED_NAMES].own = 1;
    _Static_assert(HOOP_POOL_OWN_PLACES == 2, "one for each of these lanes");
    hoop_histogram_init(&pool->wait);
    hoop_histogram_init(&pool->run);
    *result = pool;
    return 0;
}

void hoop_pool_free(hoop_pool *pool)
{
    if (pool == NULL)
        return;
    HOOP_ASSERT(pool->workers == NULL && queued(pool) == 0);
    int result = pthread_cond_destroy(&pool->posted);
    HOOP_ASSERT(result == 0);
    result = pthread_mutex_destroy(&pool->lock);
    HOOP_ASSERT(result == 0);
    free(pool);
}

void hoop_pool_free_forked(hoop_pool *pool)
{
    free(pool);
}

void hoop_pool_stop(hoop_pool *pool)
{
    lock(pool);
    pool->stopping = true;
    while (pool->idle != NULL)
        call(pool);
    unlock(pool);
}

void hoop_pool_set_spin(hoop_pool *pool, int64_t spin_ns)
{
    lock(pool);
    pool->spin_ns = spin_ns;
    unlock(pool);
}

void hoop_pool_get_stats(hoop_pool *pool, hoop_pool_stats *stats)
{
    lock(pool);
    stats->size = pool->size;
    stats->threads = pool->threads;
    stats->idle = (int)pool->idle_count;
    stats->queued = queued(pool);
    stats->dns_queued = stats->queued - pool->lanes[HOOP_LANE_FILES].queued;
    stats->dns_running = 0;
    for (int i = 0; i < HOOP_LANES; i++)
        stats->dns_running += i == HOOP_LANE_FILES ? 0 : pool->lanes[i].running;
    stats->running = pool->lanes[HOOP_LANE_FILES].running + stats->dns_running;
    stats->done = pool->done;
    stats->cancelled = pool->cancelled;
    stats->refused = pool->refused;
    stats->wake_ups = pool->wake_ups;
    stats->wait = pool->wait;
    stats->run = pool->run;
    unlock(pool);
}
