/* poller_epoll.c: the back end on epoll(7), Linux.
 *
 * What the kernel does:
 *
 *   1. A registration is keyed by (open file, number), not by number. Closing the number removes it only when no other
 *      descriptor refers to the open file. With a duplicate alive it stays, keeps reporting the number it was made
 *      under, and cannot be removed any more: EPOLL_CTL_DEL on the closed number is EBADF, and on a reused one ENOENT.
 *   2. So MOD says ENOENT when the number was reused, and ADD says EEXIST when the same file is back under the number
 *      (dup2) or when it was never gone.
 *   3. EPOLLERR and EPOLLHUP are reported whether asked for or not, also with an empty mask, and for as long as they
 *      hold.
 *   4. EPOLLEXCLUSIVE (4.5) is only valid with ADD; MOD on such a registration, or to one, is EINVAL, and so is ADD for
 *      a descriptor that is itself an epoll.
 *   5. Regular files and directories are EPERM: the kernel finds them always ready and sees no point.
 *   6. The set is an open file, so that a child of fork(2) shares it. DEL in the child is DEL in the parent. close(2)
 *      in the child leaves it alone.
 *   7. epoll_wait counts milliseconds. epoll_pwait2 (5.11) takes a timespec. glibc has a wrapper for it since 2.35 and
 *      musl has none. Sandboxes made before it refuse it with ENOSYS or EPERM.
 *   8. Timeouts go by the monotonic clock and never end early. The kernel rotates its list of ready descriptors as it
 *      reports them, so that a small array starves none.
 *   9. EPOLLRDHUP would report a half-closed peer for ever to an owner that has stopped reading.
 *  10. Of the sets that watch a file with EPOLLEXCLUSIVE and in whose epoll_wait a process sleeps, an event wakes one,
 *      the first that was added. With that the event counts as told: if the woken process takes its registration out,
 *      has no descriptor left, or dies, no other hears of the connection before the next one comes.
 *  11. Setting TCP_NOTSENT_LOWAT on a TCP socket, also to the value that it has, makes the sets that watch it for
 *      EPOLLOUT look. A listening socket is never writable; a woken set looks at all that it watches for, reports
 *      EPOLLIN if a connection waits, and else sleeps on inside of epoll_wait.
 *
 * What that means here:
 *
 *   - epoll_data carries the generation beside the number, so what rule 1 leaves behind is recognised as stale.
 *   - apply falls back from MOD to ADD and from ADD to MOD (2), and to DEL + ADD for anything with EPOLLEXCLUSIVE (4).
 *   - Interest 0 is DEL, never an empty mask (3). Nothing is asked for but EPOLLIN and EPOLLOUT (9); EPOLLERR and
 *     EPOLLHUP are passed on as both directions, and the owner masks.
 *   - close closes the set and nothing else (6).
 *   - What is watched exclusively is watched for EPOLLOUT as well, so that a woken process that does not accept can
 *     wake the next one by rule 11 (hoop_net_hand_on). That is for listening sockets alone: any other is writable for
 *     ever.
 *   - Waits that are no whole number of milliseconds use epoll_pwait2, by number (7). Refused once, this poller never
 *     asks again: a timerfd in the set then ends such waits, and where that fails too, they are rounded up. */
#include "poller_internal.h"

#if HOOP_HAVE_EPOLL

#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* The number is the same on every architecture but alpha; headers older than Linux 5.11 lack it. */
#if !defined(SYS_epoll_pwait2) && !defined(__alpha__)
#define SYS_epoll_pwait2 441
#endif

/* Events fetched by one system call. A larger capacity is served by several waits. */
#define BATCH 1024

/* The timer's token: no registration has generation 0. */
#define TIMER_TOKEN 0

/* struct __kernel_timespec, which is 64 bits wide also where time_t is not. */
typedef struct kernel_timespec {
    int64_t seconds;
    int64_t nanoseconds;
} kernel_timespec;

typedef struct epoll_state {
    hoop_epoll_wait_mode mode;
    int timer_fd;     /* -1 until the first wait that needs it */
    bool timer_armed; /* an expiry may be pending or under way */
    struct epoll_event ready[BATCH];
} epoll_state;

static int epoll_open(hoop_poller *poller)
{
    epoll_state *state = malloc(sizeof(*state));
    if (state == NULL)
        return -ENOMEM;
    state->mode = HOOP_EPOLL_NANOSECONDS;
    state->timer_fd = -1;
    state->timer_armed = false;
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) {
        int error = errno;
        free(state);
        return -error;
    }
    poller->backend_fd = fd;
    poller->backend_state = state;
    return 0;
}

static void epoll_close(hoop_poller *poller)
{
    epoll_state *state = poller->backend_state;
    /* close(2) on our own descriptors can only say EINTR, and they are gone then too. */
    if (state->timer_fd >= 0)
        (void)close(state->timer_fd);
    (void)close(poller->backend_fd);
    free(state);
    poller->backend_fd = -1;
    poller->backend_state = NULL;
}

static int control(const hoop_poller *poller, int operation, int fd, uint64_t token, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data = {.u64 = token}};
    return epoll_ctl(poller->backend_fd, operation, fd, &event) < 0 ? -errno : 0;
}

static int take_out(const hoop_poller *poller, int fd)
{
    int result = control(poller, EPOLL_CTL_DEL, fd, 0, 0);
    return result == -ENOENT || result == -EBADF ? 0 : result;
}

/* DEL + ADD, for what MOD cannot do. EPOLLEXCLUSIVE is a hint, and given up where the kernel does not take it. */
static int put_anew(const hoop_poller *poller, int fd, uint64_t token, uint32_t mask)
{
    int result = take_out(poller, fd);
    if (result < 0)
        return result;
    result = control(poller, EPOLL_CTL_ADD, fd, token, mask);
    if (result == -EINVAL && (mask & EPOLLEXCLUSIVE) != 0)
        result = control(poller, EPOLL_CTL_ADD, fd, token, EPOLLIN);
    return result;
}

static int epoll_apply(hoop_poller *poller, int fd, uint32_t generation, unsigned from, unsigned to)
{
    if (to == 0)
        return take_out(poller, fd);
    uint64_t token = (uint64_t)generation << 32 | (uint32_t)fd;
    uint32_t mask = 0;
    if (to & HOOP_READABLE)
        mask |= EPOLLIN;
    if (to & HOOP_WRITABLE)
        mask |= EPOLLOUT;
    if (to & HOOP_EXCLUSIVE)
        mask |= EPOLLEXCLUSIVE | EPOLLOUT; /* rule 11 */
    if (to & HOOP_EDGE)
        mask |= EPOLLET;
    if ((to | from) & HOOP_EXCLUSIVE)
        return put_anew(poller, fd, token, mask);

    int first = from == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    int result = control(poller, first, fd, token, mask);
    if (result == -EEXIST)
        result = control(poller, EPOLL_CTL_MOD, fd, token, mask);
    else if (result == -ENOENT)
        result = control(poller, EPOLL_CTL_ADD, fd, token, mask);
    if (result == -EINVAL) /* an exclusive registration that the front does not know of */
        result = put_anew(poller, fd, token, mask);
    if (result < 0)
        (void)take_out(poller, fd); /* what was there before must not report: its owner has no interest now */
    return result;
}

/* The timerfd, made at the first need and kept. */
static int open_timer(hoop_poller *poller, epoll_state *state)
{
    if (state->timer_fd >= 0)
        return 0;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd < 0)
        return -errno;
    int result = control(poller, EPOLL_CTL_ADD, fd, TIMER_TOKEN, EPOLLIN);
    if (result < 0) {
        (void)close(fd);
        return result;
    }
    state->timer_fd = fd;
    return 0;
}

/* 0 disarms. Setting a timer also clears an unread expiry, so the timer is never read. */
static int set_timer(epoll_state *state, int64_t timeout_ns)
{
    struct itimerspec spec = {.it_value = hoop_timespec_of(timeout_ns)};
    if (timerfd_settime(state->timer_fd, 0, &spec, NULL) < 0)
        return -errno;
    state->timer_armed = timeout_ns != 0;
    return 0;
}

/* A timer that cannot be disarmed would end a later wait early, so it is closed for good. */
static void disarm_timer(epoll_state *state)
{
    if (set_timer(state, 0) == 0)
        return;
    (void)close(state->timer_fd);
    state->timer_fd = -1;
    state->timer_armed = false;
    state->mode = HOOP_EPOLL_MILLISECONDS;
}

/* epoll_wait or epoll_pwait2, for at most HOOP_POLLER_LONGEST_WAIT_NS: as many as ready, or -errno. */
static int wait_once(hoop_poller *poller, epoll_state *state, int capacity, int64_t timeout_ns)
{
    int timeout_ms = timeout_ns < 0 ? -1 : hoop_poller_round_up_ms(timeout_ns);
    bool whole = timeout_ns < 0 || timeout_ns % HOOP_NS_PER_MS == 0;
#if defined(SYS_epoll_pwait2)
    if (!whole && state->mode == HOOP_EPOLL_NANOSECONDS) {
        kernel_timespec timeout = {timeout_ns / HOOP_NS_PER_SECOND, timeout_ns % HOOP_NS_PER_SECOND};
        long count = syscall(SYS_epoll_pwait2, poller->backend_fd, state->ready, capacity, &timeout, NULL, (size_t)0);
        if (count >= 0)
            return (int)count;
        if (errno != ENOSYS && errno != EPERM)
            return -errno;
    }
#endif
    if (!whole && state->mode == HOOP_EPOLL_NANOSECONDS)
        state->mode = HOOP_EPOLL_TIMERFD;
    if (!whole && state->mode == HOOP_EPOLL_TIMERFD) {
        int result = open_timer(poller, state);
        if (result == 0)
            result = set_timer(state, timeout_ns);
        if (result < 0)
            state->mode = HOOP_EPOLL_MILLISECONDS;
        else
            timeout_ms = -1;
    }
    int count = epoll_wait(poller->backend_fd, state->ready, capacity, timeout_ms);
    return count < 0 ? -errno : count;
}

/* What wait_once has fetched, as events. The timer's expiry is none. */
static int translate(const epoll_state *state, int count, hoop_event *events)
{
    int filled = 0;
    for (int i = 0; i < count; i++) {
        uint64_t token = state->ready[i].data.u64;
        uint32_t mask = state->ready[i].events;
        if (HOOP_UNLIKELY(token == TIMER_TOKEN))
            continue;
        uint32_t happened = 0;
        if (mask & (EPOLLIN | EPOLLERR | EPOLLHUP))
            happened |= HOOP_READABLE;
        if (mask & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            happened |= HOOP_WRITABLE;
        events[filled++] = (hoop_event){
            .fd = (int)(uint32_t)token, .generation = (uint32_t)(token >> 32), .events = happened, .error = 0};
    }
    return filled;
}

static int epoll_wait_events(hoop_poller *poller, hoop_event *events, int capacity, int64_t timeout_ns)
{
    epoll_state *state = poller->backend_state;
    if (capacity > BATCH)
        capacity = BATCH;
    if (HOOP_UNLIKELY(state->timer_armed)) /* left over from a wait that something else ended */
        disarm_timer(state);
    while (HOOP_UNLIKELY(timeout_ns > HOOP_POLLER_LONGEST_WAIT_NS)) {
        int count = wait_once(poller, state, capacity, HOOP_POLLER_LONGEST_WAIT_NS);
        if (count != 0)
            return count < 0 ? count : translate(state, count, events);
        timeout_ns -= HOOP_POLLER_LONGEST_WAIT_NS;
    }
    int count = wait_once(poller, state, capacity, timeout_ns);
    return count < 0 ? count : translate(state, count, events);
}

int hoop_poller_epoll_force_wait(hoop_poller *poller, hoop_epoll_wait_mode mode)
{
    if (poller->backend != &hoop_poller_epoll_backend)
        return -ENOTSUP;
    epoll_state *state = poller->backend_state;
    state->mode = mode;
    return 0;
}

hoop_epoll_wait_mode hoop_poller_epoll_wait_mode(const hoop_poller *poller)
{
    const epoll_state *state = poller->backend_state;
    return state->mode;
}

const hoop_poller_backend hoop_poller_epoll_backend = {
    .name = "epoll",
    .tells_edges = true,
    .open = epoll_open,
    .close = epoll_close,
    .apply = epoll_apply,
    .forget = NULL,
    .wait = epoll_wait_events,
};

#endif
