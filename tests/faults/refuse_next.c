/* For LD_PRELOAD: system calls that fail when the program says so.
 *
 * refuse(call, descriptor, error, times) has the next `times` calls of that name on that descriptor (-1: any) fail with
 * `error`. epoll_ctl is refused for EPOLL_CTL_ADD and EPOLL_CTL_MOD alone. refused() tells how many have been. One call
 * is refused at a time: the next refuse() takes the place of the last. */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

static char refused_call[32];
static int refused_descriptor, refused_error, times_left, times_refused;

void refuse(const char *call, int descriptor, int error, int times)
{
    strncpy(refused_call, call, sizeof(refused_call) - 1);
    refused_descriptor = descriptor;
    refused_error = error;
    times_left = times;
    times_refused = 0;
}

int refused(void)
{
    return times_refused;
}

static int is_refused(const char *call, int descriptor)
{
    if (times_left == 0 || strcmp(call, refused_call) != 0 ||
        (refused_descriptor >= 0 && refused_descriptor != descriptor))
        return 0;
    times_left--;
    times_refused++;
    errno = refused_error;
    return 1;
}

static void *original(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL)
        abort();
    return function;
}

int epoll_ctl(int set, int operation, int fd, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *) = original("epoll_ctl");
    return operation != EPOLL_CTL_DEL && is_refused("epoll_ctl", fd) ? -1 : real(set, operation, fd, event);
}

int accept4(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    int (*real)(int, struct sockaddr *, socklen_t *, int) = original("accept4");
    return is_refused("accept4", listener) ? -1 : real(listener, address, length, flags);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags)
{
    ssize_t (*real)(int, void *, size_t, int) = original("recv");
    return is_refused("recv", fd) ? -1 : real(fd, buffer, size, flags);
}

ssize_t send(int fd, const void *buffer, size_t size, int flags)
{
    ssize_t (*real)(int, const void *, size_t, int) = original("send");
    return is_refused("send", fd) ? -1 : real(fd, buffer, size, flags);
}

int shutdown(int fd, int how)
{
    int (*real)(int, int) = original("shutdown");
    return is_refused("shutdown", fd) ? -1 : real(fd, how);
}

int ppoll(struct pollfd *entries, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    int (*real)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *) = original("ppoll");
    return is_refused("ppoll", -1) ? -1 : real(entries, count, timeout, mask);
}

int eventfd(unsigned value, int flags)
{
    int (*real)(unsigned, int) = original("eventfd");
    return is_refused("eventfd", -1) ? -1 : real(value, flags);
}
