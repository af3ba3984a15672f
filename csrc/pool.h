/* pool.h: a fixed number of threads that run jobs for one or more loops.
 *
 * A job is embedded in a structure of its kind, with what it needs and what it finds out:
 *
 *     typedef struct stat_job { hoop_job job; const char *path; struct stat result; int error; } stat_job;
 *     hoop_job_init(&mine.job, run_stat, HOOP_LANE_FILES);
 *     int wanted = hoop_pool_submit(pool, &mine.job, &inbox, &waker, &node);
 *
 * After run() has returned, `node` arrives in `inbox`, and the loop behind it is woken if it sleeps: no lock of the
 * loop, no allocation, and one write(2) for many completions. From submit until the loop takes the node from the inbox
 * (or cancels the job) the job, the node, the inbox and the waker stay where they are.
 *
 * The pool makes no threads. Where submit returns 1, the caller starts one that calls hoop_pool_work(), or drives a
 * worker by hand (enter, next, wait, leave) if it must hold a lock while jobs run. Threads stay until hoop_pool_stop().
 *
 * Lanes: jobs leave a lane first in, first out; of the lanes' heads, the oldest goes first. As many jobs run at a time
 * as the pool is large, and names hold at most half of these places, at least one: name servers that do not answer
 * leave the rest to files. Names that should not wait for a name server have two lanes, one for each reason to think
 * so. Each of these has one place of its own besides, so that neither a name server nor a file keeps all of them
 * waiting. For these places there may be HOOP_POOL_OWN_PLACES threads more than the pool is large, started only when
 * such a name finds no idle thread.
 *
 * Wake-ups are rationed. Submitting wakes at most one sleeping worker, and none while another is still on its way; a
 * worker that finds more than it can take wakes the next. The latest to fall asleep is the first to be woken: its cache
 * is warm.
 *
 * Every function may be called from any thread, except those that take a worker, which belong to the worker's thread.
 * After fork(2) a child may do nothing with its copy but hoop_pool_free_forked(): threads and lock are the parent's. */
#ifndef HOOP_POOL_H
#define HOOP_POOL_H

#include "base.h"
#include "histogram.h"
#include "inbox.h"
#include "spin.h"
#include "waker.h"
#include <pthread.h>
#include <stdatomic.h>

#define HOOP_POOL_MAX_SIZE 1024
#define HOOP_POOL_OWN_PLACES 2

typedef enum hoop_lane {
    HOOP_LANE_FILES,          /* what is neither DNS nor unbounded: files, hashes, compression */
    HOOP_LANE_DNS,            /* names of which nothing, or nothing good, is known */
    HOOP_LANE_LOCAL_NAMES,    /* this machine answers by itself, or says that it does not (local_names.h) */
    HOOP_LANE_ANSWERED_NAMES, /* a name server answered a moment ago */
    HOOP_LANES
} hoop_lane;

typedef enum hoop_job_state {
    HOOP_JOB_IDLE, /* not submitted, or cancelled */
    HOOP_JOB_QUEUED,
    HOOP_JOB_RUNNING,
    HOOP_JOB_DONE,
    HOOP_JOB_STRANDED /* given back: there are no threads, and none can start */
} hoop_job_state;

typedef struct hoop_job hoop_job;
typedef void (*hoop_job_fn)(hoop_job *job);

struct hoop_job {
    hoop_job_fn run; /* on a worker, without any lock */
    hoop_lane lane;
    hoop_job_state state; /* this and the rest are the pool's, under its lock */
    hoop_job *older;
    hoop_job *newer;
    int64_t submitted_ns;
    uint64_t number;
    hoop_inbox *inbox; /* NULL: disowned, goes to the pool's `abandon` */
    const hoop_waker *waker;
    hoop_inbox_node *node;
};

typedef struct hoop_worker hoop_worker; /* lives on the stack of its thread */
struct hoop_worker {
    pthread_cond_t called;
    atomic_bool is_called;         /* taken off the idle stack: there is a job, or the end */
    bool is_idle;                  /* on the idle stack */
    bool is_counted;               /* in pool->waking */
    bool may_leave;                /* the pool stops, and nothing was left to take */
    hoop_job *job;                 /* running, or NULL */
    _Atomic(hoop_inbox *) posting; /* where a finished job is being posted at this moment */
    int64_t began_ns;
    hoop_spin spin;
    pthread_t thread;
    hoop_worker *next_idle;
    hoop_worker *next; /* of all */
    hoop_worker *previous;
};

typedef struct hoop_pool hoop_pool;

typedef struct hoop_pool_stats {
    int size;    /* most threads, but for those of the own places */
    int threads; /* started so far */
    int idle;    /* of them, waiting for jobs */
    size_t queued;
    size_t running;
    size_t dns_queued;  /* of the queued, names in any lane */
    size_t dns_running; /* of the running */
    uint64_t done;
    uint64_t cancelled;  /* while queued */
    uint64_t refused;    /* the queue was full */
    uint64_t wake_ups;   /* of sleeping workers */
    hoop_histogram wait; /* from submit to run */
    hoop_histogram run;
} hoop_pool_stats;

void hoop_job_init(hoop_job *job, hoop_job_fn run, hoop_lane lane);

/* size: 1 to HOOP_POOL_MAX_SIZE threads. queue_limit: most jobs that wait, 0 for no limit. abandon: called on a worker
 * with each job that ends after hoop_pool_disown(); NULL if that is never called. 0, -EINVAL, -ENOMEM or -EAGAIN. */
int hoop_pool_open(hoop_pool **pool, int size, size_t queue_limit, hoop_job_fn abandon);
void hoop_pool_free(hoop_pool *pool); /* NULL is allowed. No worker is inside, nothing is queued. */
void hoop_pool_free_forked(hoop_pool *pool);

/* 0; 1: the caller starts one more worker (or calls hoop_pool_worker_failed); -ENOBUFS: the queue is full; -ESHUTDOWN:
 * stopped. */
int hoop_pool_submit(hoop_pool *pool, hoop_job *job, hoop_inbox *inbox, const hoop_waker *waker, hoop_inbox_node *node);
/* The worker that submit asked for could not be started. How many there are, or are on their way, without it. */
int hoop_pool_worker_failed(hoop_pool *pool);
/* true: the job was still queued, is the caller's again and will not be posted. false: it runs or has run. */
bool hoop_pool_cancel(hoop_pool *pool, hoop_job *job);
/* Cancel all that is queued for inbox (NULL: for any): the list of them by `newer`, oldest first of each lane. */
hoop_job *hoop_pool_cancel_all(hoop_pool *pool, const hoop_inbox *inbox);
/* Take back all that is queued, for any loop, and post it without having run it: its state is HOOP_JOB_IDLE. Returns
 * those without an inbox, which are the caller's, as a list by `newer`. */
hoop_job *hoop_pool_give_back(hoop_pool *pool);
/* The same if there are no workers, nor any on their way; NULL else. For a caller that could not start one: other
 * threads may have submitted meanwhile and relied on it. The state is HOOP_JOB_STRANDED. */
hoop_job *hoop_pool_give_back_stranded(hoop_pool *pool);
/* Whether the calling thread is a worker that runs a job for inbox. */
bool hoop_pool_is_inside(hoop_pool *pool, const hoop_inbox *inbox);
/* Wait until no job for inbox runs or is being posted, at most about timeout_ms: whether that is so. Not for a thread
 * that is inside. */
bool hoop_pool_wait_quiet(hoop_pool *pool, const hoop_inbox *inbox, int timeout_ms);
/* Let what is queued or running for inbox go on, but post it nowhere: from the return on, inbox and waker may go. */
void hoop_pool_disown(hoop_pool *pool, const hoop_inbox *inbox);
/* Take no more jobs. Workers finish what is queued and leave. Does not wait for that; idempotent. */
void hoop_pool_stop(hoop_pool *pool);
void hoop_pool_get_stats(hoop_pool *pool, hoop_pool_stats *stats);
/* How long a worker that has run out of jobs looks for more before it sleeps (see spin.h); 0, the default: not at all.
 * Only one worker of a pool does so at a time. */
void hoop_pool_set_spin(hoop_pool *pool, int64_t spin_ns);

/* A thread of the pool: returns after hoop_pool_stop() with 0, or at once with -EAGAIN or -ENOMEM. */
int hoop_pool_work(hoop_pool *pool);

/* The same by hand: enter; then next until it gives NULL, then wait, until that gives false; then leave. The job that
 * next gave has been run when next is called again. */
int hoop_pool_enter(hoop_pool *pool, hoop_worker *worker); /* 0, -EAGAIN or -ENOMEM, and then it counts as failed */
hoop_job *hoop_pool_next(hoop_pool *pool, hoop_worker *worker);
bool hoop_pool_wait(hoop_pool *pool, hoop_worker *worker);
void hoop_pool_leave(hoop_pool *pool, hoop_worker *worker);

#endif
