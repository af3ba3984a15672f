/* poller.h: which descriptors are ready. The contract between the loop and a back end.
 *
 * A poller has a front (poller.c), which is the same everywhere, and a back end (poller_epoll.c, poller_kqueue.c,
 * poller_poll.c), which is one file that fills hoop_poller_backend. The front keeps one slot for each descriptor
 * number: what its owner wants, what the kernel has been told, and a generation that tells this registration from an
 * earlier one on the same number. Back ends never see a pointer of the owner: an event names descriptor and generation,
 * and an owner that finds another generation in the slot drops the event as stale.
 *
 * Interest is level-triggered, but for HOOP_EDGE. Errors and hang-ups count as every direction: a read or a write then
 * finds out what happened. A back end may therefore report a direction that the owner has not asked for (epoll reports
 * both for EPOLLERR and EPOLLHUP), and hoop_poller_wait passes it on, since it does not look at slots once it has
 * waited. The owner, who reads the slot anyhow to compare generations, masks: events & hoop_poller_interest(poller,
 * fd). An interest of 0 takes the descriptor out of the kernel's set (with an empty mask and the peer gone, epoll would
 * report EPOLLHUP for ever). Half-closure (EPOLLRDHUP) is never asked for; it is seen by reading.
 *
 * hoop_poller_add tells the kernel at once, so that a bad descriptor is an error where it was passed in.
 * hoop_poller_set only notes the wish; hoop_poller_wait applies what still differs, so pause + resume between two waits
 * cost nothing. A wish that the kernel refuses is reported as one event with HOOP_FAILED and the error, and the slot
 * then has interest 0: nothing is remembered as live that is not (zuvloop#158).
 *
 * Stale registrations. epoll keeps a registration until the last duplicate of the open file is closed, and once the
 * number itself is closed it can no longer be removed. If a user closes a watched number while a duplicate lives on
 * elsewhere (dup(2), or a child process), the old generation is reported by every wait for as long as the file is
 * ready. An owner that meets stale events in several waits in a row calls hoop_poller_rebuild.
 *
 * fork(2). The child shares the parent's epoll set: it must not add, set, rearm or remove anything there, above all not
 * remove (EPOLL_CTL_DEL takes the registration from the parent). hoop_poller_close makes no change to the set and is
 * all that a child may call. A kqueue is not inherited at all; closing it in the child is a no-op.
 *
 * All calls come from one thread at a time; only hoop_poller_wait may run without the GIL, and it does not touch a slot
 * after the kernel call has begun to block. */
#ifndef HOOP_POLLER_H
#define HOOP_POLLER_H

#include "base.h"

enum {
    HOOP_READABLE = 1,  /* interest and event */
    HOOP_WRITABLE = 2,  /* interest and event */
    HOOP_EXCLUSIVE = 4, /* interest only, with READABLE alone (else ignored), for listening sockets shared by processes:
                         * wake one of them. The one that is woken and does not accept calls hoop_net_hand_on(). A hint:
                         * where the kernel has nothing like it, all are woken. */
    HOOP_FAILED = 8,    /* event only: applying an interest change failed, see error */
    HOOP_EDGE = 16      /* interest only, with READABLE alone (else ignored): report each arrival once, though what came
                         * is never read. A hint: see hoop_poller_tells_edges. */
};

typedef struct hoop_event {
    int fd;
    uint32_t generation;
    uint32_t events; /* HOOP_READABLE | HOOP_WRITABLE, or HOOP_FAILED */
    int error;       /* a positive errno with HOOP_FAILED, else 0 */
} hoop_event;

typedef struct hoop_slot {
    uint32_t generation; /* grows with each add and rearm, also across remove; 0 never names a registration */
    uint8_t live;        /* between add and remove */
    uint8_t wanted;      /* interest asked for */
    uint8_t applied;     /* interest that the kernel knows */
    uint8_t dirty;       /* on the dirty list */
} hoop_slot;

typedef struct hoop_poller hoop_poller;

/* What a back end is. Every function returns >= 0 or -errno. */
typedef struct hoop_poller_backend {
    const char *name;
    bool tells_edges;                   /* heeds HOOP_EDGE */
    int (*open)(hoop_poller *poller);   /* sets poller->backend_fd and/or poller->backend_state */
    void (*close)(hoop_poller *poller); /* releases both; called once */
    /* Tell the kernel that fd's interest goes from `from` to `to` (either may be 0, not both). A change from 0 that
     * finds the descriptor already known, or one from non-0 that finds it unknown, must succeed in the end: the number
     * may have been closed and reused behind our back. `from` is what the kernel knows at most, not a promise: rearm
     * says READABLE | WRITABLE for "unknown". From now on, events carry `generation` for every direction in `to`.
     * A change to 0 that finds the descriptor unknown or closed succeeds. After a failure the kernel knows nothing
     * of fd. */
    int (*apply)(hoop_poller *poller, int fd, uint32_t generation, unsigned from, unsigned to);
    /* fd has been closed: drop what is kept in user space about it, without a kernel call. NULL when nothing is. */
    void (*forget)(hoop_poller *poller, int fd);
    /* Fill at most capacity events; block until there is one or timeout_ns has passed (< 0: for ever, 0: not at all;
     * never return early without an event, except for a signal: -EINTR). A registration appears at most once per call.
     * With more ready descriptors than capacity, those left out come first in one of the next calls: none starves. */
    int (*wait)(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns);
} hoop_poller_backend;

struct hoop_poller {
    const hoop_poller_backend *backend; /* NULL when closed */
    hoop_slot *slots;                   /* by descriptor number */
    int slot_count;
    int live_count; /* registrations */
    int *dirty;     /* descriptor numbers whose wanted and applied may differ, each once: see hoop_slot.dirty */
    int dirty_count;
    int dirty_capacity; /* slot_count at least, so that noting a wish cannot fail */
    int backend_fd;
    void *backend_state;
};

/* The back end called name ("epoll", "kqueue", "poll"), or the platform's best when name is NULL.
 * 0, -ENOTSUP for a name unknown here, or -errno. */
int hoop_poller_open(hoop_poller *poller, const char *name);
/* Idempotent; the registered descriptors stay open. Afterwards nothing is live, and add, rebuild and wait are
 * -EBADF. */
void hoop_poller_close(hoop_poller *poller);

/* Register fd and tell the kernel now. 0; -EEXIST when fd is live here; -EBADF for a negative or closed number; -EPERM
 * for a regular file (epoll; poll finds it always ready, kqueue while it is not at its end); -ENOMEM; else the kernel's
 * error. On failure fd is not registered. interest may be 0: then the kernel is told later, and may refuse later. */
int hoop_poller_add(hoop_poller *poller, int fd, unsigned interest);
/* Wish for another interest, applied by the next wait. 0 or -ENOENT. */
int hoop_poller_set(hoop_poller *poller, int fd, unsigned interest);
/* As set, but applied now and without trusting what the kernel was told before: for descriptors that a user may have
 * closed and reopened under the same number. Gives the slot a new generation. 0, -ENOENT when fd is not live, or the
 * kernel's error: then fd is no longer live. */
int hoop_poller_rearm(hoop_poller *poller, int fd, unsigned interest);
/* Forget fd and tell the kernel now (before the owner closes it). 0 or -ENOENT. A descriptor that is already closed is
 * no error. */
int hoop_poller_remove(hoop_poller *poller, int fd);
/* Forget fd without a kernel call: the number has been closed, and another file may have it by now. */
void hoop_poller_forget(hoop_poller *poller, int fd);

/* Start over with a fresh kernel object: the way out of stale registrations that cannot be removed. Every live slot
 * keeps its generation and interest; whatever the new object refuses, the next wait reports as HOOP_FAILED. backend_fd
 * changes. 0, or -errno, and then the poller is as it was: also where the new object has no room for all that the old
 * one holds (ENOMEM, ENOSPC), since that is no fault of those it would refuse. */
int hoop_poller_rebuild(hoop_poller *poller);

/* Apply wishes, then the back end's wait. The number of events, or -errno (-EINTR among them; -EINVAL when capacity is
 * not positive). With a refused wish to report it does not block. */
int hoop_poller_wait(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns);

static inline uint32_t hoop_poller_generation(const hoop_poller *poller, int fd) /* 0 when not live */
{
    if (fd < 0 || fd >= poller->slot_count || !poller->slots[fd].live)
        return 0;
    return poller->slots[fd].generation;
}

static inline unsigned hoop_poller_interest(const hoop_poller *poller, int fd) /* what is wanted; 0 when not live */
{
    return hoop_poller_generation(poller, fd) == 0 ? 0 : poller->slots[fd].wanted;
}

static inline bool hoop_poller_tells_edges(const hoop_poller *poller) /* else what came must be read, as without */
{
    return poller->backend != NULL && poller->backend->tells_edges;
}

/* Whether the kernel has been told to report fd. An event of a live descriptor for which this is false is stale,
 * too. */
static inline bool hoop_poller_is_applied(const hoop_poller *poller, int fd)
{
    return hoop_poller_generation(poller, fd) != 0 && poller->slots[fd].applied != 0;
}

#endif
