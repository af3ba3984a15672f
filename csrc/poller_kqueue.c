/* poller_kqueue.c: the back end on kqueue(2): macOS, FreeBSD, OpenBSD, NetBSD, DragonFly.
 *
 * What the kernel does:
 *
 *   1. A registration ("knote") is keyed by (number, filter). Reading and writing are two filters, so one descriptor
 *      can be two knotes, and report two events.
 *   2. A knote belongs to the number in this process. Closing the number removes it, whatever duplicates live on. So a
 *      reused number starts empty, and nothing stale stays behind, unlike with epoll.
 *   3. EV_ADD on a knote that exists updates it, udata included. EV_DELETE of one that does not is ENOENT, and EBADF
 *      when the number is closed.
 *   4. Without EV_CLEAR a knote is level-triggered. Half-closure is EV_EOF on the reading filter with whatever can
 *      still be read; a reader that is gone is EV_EOF on the writing filter. A filter that was not asked for says
 *      nothing, so an empty interest never spins.
 *   5. A failed change is an event with EV_ERROR and the errno in data, as long as there is room for it in the list;
 *      with EV_RECEIPT every change is answered so, with 0 for success, and no pending event is taken. Where EV_RECEIPT
 *      is missing, pending events may come back among the answers; being level-triggered, they come again.
 *   6. Adding the writing filter to a pipe whose reader is gone is refused with EPIPE (FreeBSD, macOS).
 *   7. Timeouts are a timespec. XNU answers EINVAL to more than 10^8 seconds.
 *   8. A kqueue is not inherited by fork(2): in the child the number is closed, or another file's by now.
 *   9. A regular file is readable while its offset is not at its end. Some devices cannot be watched: on macOS /dev/tty
 *      and /dev/null were EINVAL for long, and terminals are where its poll(2) fails as well.
 *  10. NetBSD counts list lengths in size_t, and before 10 udata was an integer there.
 *
 * What that means here:
 *
 *   - apply sends the whole wanted state, not the difference: EV_ADD for each direction in `to`, EV_DELETE for each
 *     that was only in `from`. One call, and right for a reused number too (2, 3).
 *   - wait joins both knotes of one descriptor into one event. A table by number says where in this call's events the
 *     descriptor was put; an entry is believed only when that event is about the descriptor, so it is never cleared.
 *   - udata carries the generation; the number is in ident.
 *   - HOOP_EXCLUSIVE has no counterpart.
 *   - close looks at the process id first (8). */
#include "poller_internal.h"

#if HOOP_HAVE_KQUEUE

#include <fcntl.h>
#include <string.h>
#include <sys/types.h>

#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>

#if !defined(EV_RECEIPT)
#define EV_RECEIPT 0
#endif

/* Events fetched by one system call. A larger capacity is served by several waits. */
#define BATCH 512

typedef struct kqueue_state {
    pid_t owner;
    int *places; /* by descriptor number: the event of the current wait that is about it, if that one agrees */
    int place_count;
    struct kevent ready[BATCH];
} kqueue_state;

static int kqueue_open(hoop_poller *poller)
{
    kqueue_state *state = malloc(sizeof(*state));
    if (state == NULL)
        return -ENOMEM;
    state->owner = getpid();
    state->places = NULL;
    state->place_count = 0;
    int fd = kqueue();
    if (fd < 0) {
        int error = errno;
        free(state);
        return -error;
    }
    /* Not inherited by fork, but by an exec without one. */
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        int error = errno;
        (void)close(fd);
        free(state);
        return -error;
    }
    poller->backend_fd = fd;
    poller->backend_state = state;
    return 0;
}

static void kqueue_close(hoop_poller *poller)
{
    kqueue_state *state = poller->backend_state;
    if (state->owner == getpid())
        (void)close(poller->backend_fd);
    free(state->places);
    free(state);
    poller->backend_fd = -1;
    poller->backend_state = NULL;
}

static int reserve_place(kqueue_state *state, int fd)
{
    if (fd < state->place_count)
        return 0;
    if (fcntl(fd, F_GETFD) < 0)
        return -errno;
    int *places = hoop_poller_reserve(state->places, &state->place_count, sizeof(*places), fd);
    if (places == NULL)
        return -ENOMEM;
    state->places = places;
    return 0;
}

static struct kevent make_change(int fd, unsigned direction, unsigned flags, uint32_t generation)
{
    struct kevent change;
    memset(&change, 0, sizeof(change));
    change.ident = (__typeof__(change.ident))fd;
    change.filter = (__typeof__(change.filter))(direction == HOOP_READABLE ? EVFILT_READ : EVFILT_WRITE);
    change.flags = (__typeof__(change.flags))(flags | EV_RECEIPT);
    change.udata = (__typeof__(change.udata))(uintptr_t)generation;
    return change;
}

/* EV_ADD for `to`, EV_DELETE for the rest of `from`. 0, or the first refusal of an EV_ADD; those of EV_DELETE only say
 * that there was nothing to delete. */
static int change_filters(hoop_poller *poller, int fd, uint32_t generation, unsigned from, unsigned to)
{
    static const unsigned directions[] = {HOOP_READABLE, HOOP_WRITABLE};
    struct kevent changes[2];
    struct kevent answers[2];
    struct timespec at_once = {0, 0};
    int count = 0;
    for (int i = 0; i < 2; i++) {
        if (to & directions[i])
            changes[count++] = make_change(fd, directions[i], EV_ADD, generation);
        else if (from & directions[i])
            changes[count++] = make_change(fd, directions[i], EV_DELETE, generation);
    }
    if (count == 0)
        return 0;
    int answered;
    /* After a signal the changes are made a second time, which is as good. */
    HOOP_RETRY(answered, kevent(poller->backend_fd, changes, (unsigned)count, answers, (unsigned)count, &at_once));
    if (answered < 0)
        return -errno;
    for (int i = 0; i < answered; i++) {
        unsigned direction = answers[i].filter == EVFILT_READ ? HOOP_READABLE : HOOP_WRITABLE;
        if ((answers[i].flags & EV_ERROR) && answers[i].data != 0 && (to & direction))
            return -(int)answers[i].data;
    }
    return 0;
}

static int kqueue_apply(hoop_poller *poller, int fd, uint32_t generation, unsigned from, unsigned to)
{
    int result = to == 0 ? 0 : reserve_place(poller->backend_state, fd);
    if (result == 0)
        result = change_filters(poller, fd, generation, from, to);
    if (result < 0)
        (void)change_filters(poller, fd, generation, HOOP_READABLE | HOOP_WRITABLE, 0);
    return result;
}

/* The kernel's events as ours, both filters of one registration joined. At most one for each kevent, so they fit. */
static int translate(kqueue_state *state, int count, hoop_event *events)
{
    int filled = 0;
    for (int i = 0; i < count; i++) {
        const struct kevent *ready = &state->ready[i];
        int fd = (int)ready->ident;
        uint32_t generation = (uint32_t)(uintptr_t)ready->udata;
        uint32_t happened = ready->filter == EVFILT_READ ? HOOP_READABLE : HOOP_WRITABLE;
        HOOP_ASSERT(fd >= 0 && fd < state->place_count); /* apply has seen every number that is registered */
        int place = state->places[fd];
        if (place < filled && events[place].fd == fd && events[place].generation == generation) {
            events[place].events |= happened;
            continue;
        }
        state->places[fd] = filled;
        events[filled++] = (hoop_event){.fd = fd, .generation = generation, .events = happened, .error = 0};
    }
    return filled;
}

static int call_kevent(hoop_poller *poller, int capacity, int64_t timeout_ns)
{
    kqueue_state *state = poller->backend_state;
    struct timespec timeout = hoop_timespec_of(hoop_poller_one_wait_ns(timeout_ns));
    int count = kevent(poller->backend_fd, NULL, 0, state->ready, (unsigned)capacity, timeout_ns < 0 ? NULL : &timeout);
    return count < 0 ? -errno : count;
}

static int kqueue_wait(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns)
{
    kqueue_state *state = poller->backend_state;
    if (capacity > BATCH)
        capacity = BATCH;
    int64_t deadline_ns = timeout_ns > 0 ? hoop_poller_deadline_ns(timeout_ns) : 0;
    int64_t left_ns = timeout_ns;
    for (;;) {
        int count = call_kevent(poller, capacity, left_ns);
        if (count != 0)
            return count < 0 ? count : translate(state, count, events);
        if (timeout_ns == 0)
            return 0;
        if (timeout_ns < 0)
            continue;
        left_ns = deadline_ns - hoop_clock_ns();
        if (left_ns <= 0)
            return 0;
    }
}

const hoop_poller_backend hoop_poller_kqueue_backend = {
    .name = "kqueue",
    .open = kqueue_open,
    .close = kqueue_close,
    .apply = kqueue_apply,
    .forget = NULL,
    .wait = kqueue_wait,
};

#endif
