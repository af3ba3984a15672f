/* kqueue_on_epoll.c: a kqueue good enough to run csrc/poller_kqueue.c on Linux, where most of hoop's authors are.
 *
 * It is written from the manual pages and from the facts at the head of poller_kqueue.c, so it shows that the back end
 * does what those facts ask for, under the sanitizers; that they are true is for a real kqueue to say (the same tests
 * on macOS and FreeBSD).
 *
 * A kqueue is an epoll, so that it can be watched itself, with a table of knotes beside it: (number, filter) -> udata.
 * Closing a number drops its knotes, whatever duplicates live on, as a real kqueue does and an epoll does not; so close
 * and dup2 pass through here (the linker's --wrap). One descriptor that is ready both ways gives two events, writing
 * first or reading first in turn, and either may be left to the next call when there is no room. */
#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>

#define MAX_QUEUES 64
#define MAX_FD 2048
#define MAX_EVENTS 512

enum { READING, WRITING };

typedef struct knotes {
    bool watched[2];
    void *udata[2];
    bool writing_first;
} knotes;

typedef struct queue {
    bool used;
    int epoll_fd;
    knotes by_fd[MAX_FD];
} queue;

static queue queues[MAX_QUEUES];

int __real_close(int fd);
int __real_dup2(int from, int to);
int __wrap_close(int fd);
int __wrap_dup2(int from, int to);

static queue *find_queue(int epoll_fd)
{
    for (int i = 0; i < MAX_QUEUES; i++) {
        if (queues[i].used && queues[i].epoll_fd == epoll_fd)
            return &queues[i];
    }
    return NULL;
}

/* Have epoll watch what the knotes of fd say. 0 or an errno. */
static int update(queue *q, int fd)
{
    const knotes *k = &q->by_fd[fd];
    struct epoll_event event = {.events = (k->watched[READING] ? EPOLLIN : 0u) | (k->watched[WRITING] ? EPOLLOUT : 0u),
                                .data = {.fd = fd}};
    if (event.events == 0)
        return epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, fd, NULL) < 0 && errno != ENOENT ? errno : 0;
    if (epoll_ctl(q->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0)
        return 0;
    return epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? errno : 0;
}

/* fd is about to be closed: every queue forgets it while epoll can still be told. */
static void drop_knotes(int fd)
{
    queue *closing = find_queue(fd);
    if (closing != NULL)
        closing->used = false;
    for (int i = 0; i < MAX_QUEUES && fd >= 0 && fd < MAX_FD; i++) {
        knotes *k = &queues[i].by_fd[fd];
        if (!queues[i].used || !(k->watched[READING] || k->watched[WRITING]))
            continue;
        memset(k, 0, sizeof(*k));
        (void)update(&queues[i], fd);
    }
}

int __wrap_close(int fd)
{
    drop_knotes(fd);
    return __real_close(fd);
}

int __wrap_dup2(int from, int to)
{
    if (from != to && fcntl(from, F_GETFD) >= 0)
        drop_knotes(to);
    return __real_dup2(from, to);
}

int kqueue(void)
{
    for (int i = 0; i < MAX_QUEUES; i++) {
        if (queues[i].used)
            continue;
        int fd = epoll_create1(0);
        if (fd < 0)
            return -1;
        memset(&queues[i], 0, sizeof(queues[i]));
        queues[i].used = true;
        queues[i].epoll_fd = fd;
        return fd;
    }
    errno = EMFILE;
    return -1;
}

static int change_one(queue *q, const struct kevent *change)
{
    int fd = (int)change->ident;
    int which = change->filter == EVFILT_READ ? READING : WRITING;
    if (change->filter != EVFILT_READ && change->filter != EVFILT_WRITE)
        return EINVAL;
    if (fcntl(fd, F_GETFD) < 0)
        return EBADF;
    if (fd >= MAX_FD)
        return ENOMEM;
    knotes *k = &q->by_fd[fd];
    if (change->flags & EV_DELETE) {
        if (!k->watched[which])
            return ENOENT;
        k->watched[which] = false;
        return update(q, fd);
    }
    bool before = k->watched[which];
    k->watched[which] = true;
    k->udata[which] = change->udata;
    int error = update(q, fd);
    if (error != 0)
        k->watched[which] = before;
    return error;
}

static struct kevent make_event(const queue *q, int fd, int which, uint32_t mask)
{
    struct kevent event = {.ident = (uintptr_t)fd, .filter = which == READING ? EVFILT_READ : EVFILT_WRITE};
    event.flags = (unsigned short)(mask & (EPOLLHUP | EPOLLERR) ? EV_EOF : 0);
    event.udata = q->by_fd[fd].udata[which];
    return event;
}

static int expand(queue *q, const struct epoll_event *ready, int count, struct kevent *events, int room)
{
    int filled = 0;
    for (int i = 0; i < count; i++) {
        int fd = ready[i].data.fd;
        uint32_t mask = ready[i].events;
        knotes *k = &q->by_fd[fd];
        k->writing_first = !k->writing_first;
        for (int turn = 0; turn < 2 && filled < room; turn++) {
            int which = (turn == 0) == k->writing_first ? WRITING : READING;
            uint32_t wanted = (which == READING ? EPOLLIN : EPOLLOUT) | EPOLLHUP | EPOLLERR;
            if (k->watched[which] && (mask & wanted))
                events[filled++] = make_event(q, fd, which, mask);
        }
    }
    return filled;
}

int kevent(int kq, const struct kevent *changes, int change_count, struct kevent *events, int event_count,
           const struct timespec *timeout)
{
    struct epoll_event ready[MAX_EVENTS];
    queue *q = find_queue(kq);
    int answers = 0;
    if (q == NULL) {
        errno = EBADF;
        return -1;
    }
    for (int i = 0; i < change_count; i++) {
        int error = change_one(q, &changes[i]);
        if (error == 0 && !(changes[i].flags & EV_RECEIPT))
            continue;
        if (answers == event_count) {
            errno = error;
            return -1;
        }
        events[answers] = changes[i];
        events[answers].flags |= EV_ERROR;
        events[answers++].data = error;
    }
    if (answers > 0 || event_count == 0)
        return answers;
    struct pollfd entry = {.fd = q->epoll_fd, .events = POLLIN};
    int result = ppoll(&entry, 1, timeout, NULL);
    if (result <= 0)
        return result;
    int most = (event_count + 1) / 2;
    int count = epoll_wait(q->epoll_fd, ready, most < MAX_EVENTS ? most : MAX_EVENTS, 0);
    return count < 0 ? -1 : expand(q, ready, count, events, event_count);
}
