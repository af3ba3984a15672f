/* board.h: memory that processes share, in which each one's loop writes what it does, for whoever watches.
 *
 * A board has places of a fixed size, one for each loop; nobody is asked, nobody is woken. The loop writes as it goes:
 * when it looks for events, falls asleep and wakes. So a watcher sees how long it has been busy with one turn even
 * while the loop cannot answer, and sees the last figures of a process that is gone.
 *
 * Every field is one atomic word. What a look writes is framed by `sequence`, odd meanwhile, so that a reader can tell
 * a mixture of two looks from one: it tries again, and takes the mixture only if the writer was stopped or killed in
 * the middle. `busy_since_ns` and `requests` stand for themselves.
 *
 * A place has one writer at a time. The memory outlives execve(2) by its descriptor, where the system has memfd_create;
 * else it is anonymous, and only children share it. */
#ifndef HOOP_BOARD_H
#define HOOP_BOARD_H

#include "base.h"
#include "meter.h"
#include <stdatomic.h>

#define HOOP_BOARD_ALIGNMENT 128 /* two cache lines: CPUs fetch them in pairs */
#define HOOP_BOARD_MOST_PLACES 65536

typedef enum hoop_board_figure {
    HOOP_BOARD_TURNS,
    HOOP_BOARD_CALLBACKS,
    HOOP_BOARD_EVENTS,
    HOOP_BOARD_POLLS,
    HOOP_BOARD_SLEEPS,
    HOOP_BOARD_BUSY_NS,
    HOOP_BOARD_IDLE_NS,
    HOOP_BOARD_ACCEPTS,     /* so far the counters, which never go back */
    HOOP_BOARD_CONNECTIONS, /* open, of all servers of the loop */
    HOOP_BOARD_JOBS,        /* a pool has, or their results are on their way back */
    HOOP_BOARD_LAG_SUM_NS,
    HOOP_BOARD_LAG_MAX_NS,
    HOOP_BOARD_FIGURES
} hoop_board_figure;

typedef struct hoop_board_place {
    _Alignas(HOOP_BOARD_ALIGNMENT) _Atomic uint64_t sequence;
    _Atomic int64_t busy_since_ns; /* since then the loop has not looked for events, or has not run; 0: it is asleep */
    _Atomic uint64_t is_running;
    _Atomic uint64_t pid; /* of the process whose loop was attached; 0: none */
    _Atomic uint64_t figures[HOOP_BOARD_FIGURES];
    _Atomic uint64_t requests; /* counted by the application */
    _Atomic uint64_t lag[HOOP_HISTOGRAM_BUCKETS];
} hoop_board_place;

typedef struct hoop_board {
    void *memory; /* NULL: closed */
    size_t size;
    hoop_board_place *places;
    int count;
    int fd; /* -1: the memory is anonymous */
} hoop_board;

/* A copy of a place. */
typedef struct hoop_board_reading {
    int64_t busy_since_ns;
    bool is_running;
    bool is_torn; /* the writer stood still in the middle of a look: figures are of that look or of the one before */
    uint64_t pid;
    uint64_t figures[HOOP_BOARD_FIGURES];
    uint64_t requests;
    hoop_histogram lag;
} hoop_board_reading;

/* A loop's own side. */
typedef struct hoop_board_writer {
    hoop_board_place *place;               /* NULL: nobody watches */
    uint64_t base[HOOP_BOARD_ACCEPTS + 1]; /* what the counters of the place are ahead of the loop's */
    uint64_t accepts;
    uint64_t connections;
} hoop_board_writer;

/* 1 to HOOP_BOARD_MOST_PLACES, all of them empty; memory is taken when a place is first used. -ENOMEM, -EMFILE, ... */
int hoop_board_open(hoop_board *board, int places);
/* The board behind a descriptor that hoop_board_open() made, in another image of this process. The board owns fd from
 * then on. -EINVAL if it is none, or one of another version; fd is the caller's then. */
int hoop_board_adopt(hoop_board *board, int fd);
void hoop_board_close(hoop_board *board); /* Idempotent. Other processes keep what they have. */

void hoop_board_clear(hoop_board_place *place); /* for the next process; the former one has ended */
void hoop_board_read(hoop_board_place *place, hoop_board_reading *reading);

/* A second loop of a process goes on from the figures of the first. */
void hoop_board_attach(hoop_board_writer *writer, hoop_board_place *place, const hoop_meter *meter, int64_t now_ns);
void hoop_board_detach(hoop_board_writer *writer); /* Idempotent. The figures stay. */
/* The meter is about to be reset; what it has counted stays. */
void hoop_board_carry(hoop_board_writer *writer, const hoop_meter *meter);

/* Tell what the meter counts, after a run has begun or ended. */
void hoop_board_tell_run(hoop_board_writer *writer, const hoop_meter *meter, bool is_running, int64_t now_ns);
/* The same after hoop_meter_looked() or hoop_meter_asleep(), with the lag that this has found. busy_since_ns: 0 if the
 * loop falls asleep. */
void hoop_board_tell_look(hoop_board_writer *writer, const hoop_meter *meter, int64_t busy_since_ns, size_t jobs);

static inline void hoop_board_woke(hoop_board_writer *writer, int64_t now_ns)
{
    atomic_store_explicit(&writer->place->busy_since_ns, now_ns, memory_order_relaxed);
}

static inline void hoop_board_count_requests(hoop_board_place *place, uint64_t count) /* from any thread */
{
    atomic_fetch_add_explicit(&place->requests, count, memory_order_relaxed);
}

#endif
