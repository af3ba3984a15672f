#include "waker.h"

#include "platform.h"

#include <fcntl.h>
#include <unistd.h>

#if HOOP_HAVE_EVENTFD
#include <sys/eventfd.h>
#endif

#if HOOP_HAVE_PIPE2

static int open_pipe(hoop_waker *waker)
{
    int fds[2];
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0)
        return -errno;
    waker->read_fd = fds[0];
    waker->write_fd = fds[1];
    return 0;
}

#else

static int set_flags(int fd)
{
    int status = fcntl(fd, F_GETFL);
    if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

static int open_pipe(hoop_waker *waker) /* a fork + exec in another thread may fall into the gap */
{
    int fds[2];
    if (pipe(fds) < 0)
        return -errno;
    waker->read_fd = fds[0];
    waker->write_fd = fds[1];
    int result = set_flags(fds[0]);
    if (result == 0)
        result = set_flags(fds[1]);
    if (result < 0)
        hoop_waker_close(waker);
    return result;
}

#endif

int hoop_waker_open(hoop_waker *waker)
{
    *waker = (hoop_waker){.read_fd = -1, .write_fd = -1};
#if HOOP_HAVE_EVENTFD
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd >= 0) {
        waker->read_fd = waker->write_fd = fd;
        return 0;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
        return -errno;
    /* else the kernel lacks the call, or a sandbox refuses it: a pipe does as well */
#endif
    return open_pipe(waker);
}

void hoop_waker_close(hoop_waker *waker)
{
    int read_fd = waker->read_fd;
    int write_fd = waker->write_fd;
    *waker = (hoop_waker){.read_fd = -1, .write_fd = -1};
    /* The only error that an open pipe or eventfd can give is EINTR, and then too the descriptor is gone. */
    if (read_fd >= 0)
        (void)close(read_fd);
    if (write_fd >= 0 && write_fd != read_fd)
        (void)close(write_fd);
}

/* A signal handler may interrupt a thread between a failed call and its look at errno: errno is kept. */
int hoop_waker_wake(const hoop_waker *waker)
{
    const uint64_t one = 1; /* an eventfd takes eight bytes; to a pipe, one says as much */
    const size_t size = hoop_waker_is_counter(waker) ? sizeof(one) : 1;
    const int saved_errno = errno;
    ssize_t written;
    HOOP_RETRY(written, write(waker->write_fd, &one, size));
    /* EAGAIN: the counter or the pipe is full, so a wake-up is pending. */
    int result = written >= 0 || errno == EAGAIN ? 0 : -errno;
    errno = saved_errno;
    return result;
}

/* One read empties an eventfd. A pipe is read until a read comes back short, which also ends in finite time beside
 * threads that keep waking: what they add is a new wake-up. */
int hoop_waker_drain(const hoop_waker *waker)
{
    char buffer[512];
    const size_t size = hoop_waker_is_counter(waker) ? sizeof(uint64_t) : sizeof(buffer);
    for (;;) {
        ssize_t count;
        HOOP_RETRY(count, read(waker->read_fd, buffer, size));
        if (count < 0)
            return errno == EAGAIN ? 0 : -errno;
        if (hoop_waker_is_counter(waker) || (size_t)count < size)
            return 0;
    }
}
