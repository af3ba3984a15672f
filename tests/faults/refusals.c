/* For LD_PRELOAD: system calls that fail, chosen ones, when hoop makes them.
 *
 * A call is hoop's if it comes from one of hoop's extension modules (csrc is linked into them); of what CPython calls
 * for hoop, a few are in reach too, since nobody else here makes them while the shim is armed: those are marked
 * ANYBODY.
 *
 *   refusals_set(name, error, first, every)   from the first-th call on (1: the next), each every-th fails with error;
 *                                             every 0: only that one. Forgets what was set for the name before.
 *   refusals_arm(on)                          nothing fails, and nothing is counted, before.
 *   refusals_made(name), refusals_seen(name)  calls that failed; calls that came, while armed.
 *
 * HOOP_REFUSE="name=error name=error ..." has all calls of these names fail from the beginning, as an old kernel would.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

/* Each name, and whether others than hoop's modules are refused, too. */
/* clang-format off */
#define CALLS(X)                                                                                                      \
    X(read, 0) X(write, 0) X(writev, 0) X(close, 0) X(fcntl, 0) X(shutdown, 0) X(setsockopt, 1) X(getsockopt, 0)      \
    X(getsockname, 0) X(getpeername, 0) X(send, 0) X(sendmsg, 0) X(sendto, 0) X(recv, 0) X(recvfrom, 0) X(accept4, 0) \
    X(eventfd, 0) X(epoll_create1, 0) X(epoll_ctl, 0) X(epoll_wait, 0) X(timerfd_create, 0) X(timerfd_settime, 0)     \
    X(poll, 0) X(ppoll, 0) X(sendmmsg, 0) X(recvmmsg, 0) X(open, 0) X(openat, 0) X(pread, 0) X(pwrite, 0) X(fsync, 0) \
    X(fstat, 0) X(statx, 0) X(openat2, 0) X(preadv2, 0) X(copy_file_range, 0) X(epoll_pwait2, 0) X(pidfd_open, 1)     \
    X(getaddrinfo, 0) X(pthread_create, 1) X(socket, 1) X(connect, 1) X(bind, 1) X(listen, 1) X(pipe2, 1) X(sendfile, 1) \
    X(io_uring_setup, 0) X(io_uring_enter, 0)
/* clang-format on */

enum call {
#define NUMBER(name, anybody) CALL_##name,
    CALLS(NUMBER) CALL_COUNT
};

static struct rule {
    const char *name;
    bool anybody;
    atomic_int error;
    atomic_long first, every, seen, made;
} rules[CALL_COUNT] = {
#define RULE(name, anybody) [CALL_##name] = {#name, anybody, 0, 0, 0, 0, 0},
    CALLS(RULE)};

static atomic_bool is_armed;

static struct rule *rule_named(const char *name)
{
    for (int i = 0; i < CALL_COUNT; i++)
        if (strcmp(rules[i].name, name) == 0)
            return &rules[i];
    abort();
}

void refusals_set(const char *name, int error, long first, long every)
{
    struct rule *rule = rule_named(name);
    rule->error = error;
    rule->first = first;
    rule->every = every;
    rule->seen = rule->made = 0;
}

void refusals_arm(int on)
{
    is_armed = on;
}

long refusals_made(const char *name)
{
    return rule_named(name)->made;
}

long refusals_seen(const char *name)
{
    return rule_named(name)->seen;
}

__attribute__((constructor)) static void begin(void)
{
    const char *wanted = getenv("HOOP_REFUSE");
    if (wanted == NULL)
        return;
    char *copy = strdup(wanted), *rest = NULL;
    if (copy == NULL)
        abort();
    for (char *item = strtok_r(copy, " ", &rest); item != NULL; item = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(item, '=');
        if (equals == NULL)
            abort();
        *equals = '\0';
        refusals_set(item, atoi(equals + 1), 1, 1);
    }
    free(copy);
    is_armed = true;
}

/* ---- who calls: address ranges of loaded objects, each looked up once */

enum { MOST_RANGES = 512 };
static struct range {
    uintptr_t start, end;
    bool is_hoop;
} ranges[MOST_RANGES];
static atomic_int range_count;
static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER;

static int add_range(struct dl_phdr_info *object, size_t size, void *address)
{
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        uintptr_t start = object->dlpi_addr + object->dlpi_phdr[i].p_vaddr;
        uintptr_t end = start + object->dlpi_phdr[i].p_memsz;
        if (object->dlpi_phdr[i].p_type != PT_LOAD || (uintptr_t)address < start || (uintptr_t)address >= end)
            continue;
        pthread_mutex_lock(&ranges_lock);
        int count = range_count;
        if (count < MOST_RANGES) {
            ranges[count] = (struct range){start, end, strstr(object->dlpi_name, "/hoop/") != NULL};
            range_count = count + 1;
        }
        pthread_mutex_unlock(&ranges_lock);
        return 1;
    }
    return 0;
}

static bool is_hoops(void *address)
{
    for (int tries = 0; tries < 2; tries++) {
        for (int i = 0; i < range_count; i++)
            if ((uintptr_t)address >= ranges[i].start && (uintptr_t)address < ranges[i].end)
                return ranges[i].is_hoop;
        dl_iterate_phdr(add_range, address);
    }
    return false;
}

/* The error that this call is to have; 0 if it is to be made. */
static int refusal(enum call call, void *caller)
{
    struct rule *rule = &rules[call];
    if (!is_armed || !(rule->anybody || is_hoops(caller)))
        return 0;
    long number = ++rule->seen;
    if (rule->error == 0 || number < rule->first)
        return 0;
    if (rule->every == 0 ? number != rule->first : (number - rule->first) % rule->every != 0)
        return 0;
    rule->made++;
    return rule->error;
}

/* As refusal(), for an error that only a file of this type (S_IFREG, S_IFSOCK) can have. */
static int refusal_of(enum call call, void *caller, int fd, int rare, mode_t type)
{
    struct stat status;
    if (rules[call].error == rare && (fstat(fd, &status) < 0 || (status.st_mode & S_IFMT) != type))
        return 0;
    return refusal(call, caller);
}

#define REAL(symbol) ((__typeof__(&symbol))dlsym(RTLD_NEXT, #symbol))

/* result name(parameters), which passes arguments on. symbol is what libc calls it. */
#define WRAP(result, call, symbol, parameters, arguments) \
    WRAP_IF(refusal(CALL_##call, __builtin_return_address(0)), result, symbol, parameters, arguments)
#define WRAP_IF(condition, result, symbol, parameters, arguments) \
    result symbol parameters                                      \
    {                                                             \
        static __typeof__(&symbol) real;                          \
        int error = condition;                                    \
        if (error != 0) {                                         \
            errno = error;                                        \
            return -1;                                            \
        }                                                         \
        if (real == NULL)                                         \
            real = REAL(symbol);                                  \
        return real arguments;                                    \
    }

WRAP_IF(refusal_of(CALL_read, __builtin_return_address(0), fd, EIO, S_IFREG), ssize_t, read,
        (int fd, void *to, size_t size), (fd, to, size))
WRAP_IF(refusal_of(CALL_write, __builtin_return_address(0), fd, EIO, S_IFREG), ssize_t, write,
        (int fd, const void *from, size_t size), (fd, from, size))
WRAP_IF(refusal_of(CALL_sendfile, __builtin_return_address(0), to, EAGAIN, S_IFSOCK), ssize_t, sendfile64,
        (int to, int from, off64_t *offset, size_t size), (to, from, offset, size))
WRAP(ssize_t, writev, writev, (int fd, const struct iovec *from, int count), (fd, from, count))
WRAP(ssize_t, send, send, (int fd, const void *from, size_t size, int flags), (fd, from, size, flags))
WRAP(ssize_t, sendmsg, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, sendto, sendto,
     (int fd, const void *from, size_t size, int flags, const struct sockaddr *to, socklen_t length),
     (fd, from, size, flags, to, length))
WRAP(ssize_t, recv, recv, (int fd, void *to, size_t size, int flags), (fd, to, size, flags))
WRAP(ssize_t, recvfrom, recvfrom,
     (int fd, void *restrict to, size_t size, int flags, struct sockaddr *restrict from, socklen_t *restrict length),
     (fd, to, size, flags, from, length))
WRAP(int, sendmmsg, sendmmsg, (int fd, struct mmsghdr *messages, unsigned count, int flags),
     (fd, messages, count, flags))
WRAP(int, recvmmsg, recvmmsg, (int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout),
     (fd, messages, count, flags, timeout))
WRAP(int, shutdown, shutdown, (int fd, int how), (fd, how))
WRAP(int, setsockopt, setsockopt, (int fd, int level, int name, const void *value, socklen_t length),
     (fd, level, name, value, length))
WRAP(int, getsockopt, getsockopt, (int fd, int level, int name, void *restrict value, socklen_t *restrict length),
     (fd, level, name, value, length))
WRAP(int, getsockname, getsockname, (int fd, struct sockaddr *restrict to, socklen_t *restrict length),
     (fd, to, length))
WRAP(int, getpeername, getpeername, (int fd, struct sockaddr *restrict to, socklen_t *restrict length),
     (fd, to, length))
WRAP(int, accept4, accept4, (int fd, struct sockaddr *restrict from, socklen_t *restrict length, int flags),
     (fd, from, length, flags))
WRAP(int, socket, socket, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, connect, connect, (int fd, const struct sockaddr *to, socklen_t length), (fd, to, length))
WRAP(int, bind, bind, (int fd, const struct sockaddr *to, socklen_t length), (fd, to, length))
WRAP(int, listen, listen, (int fd, int backlog), (fd, backlog))
WRAP(int, pipe2, pipe2, (int fds[2], int flags), (fds, flags))
WRAP(int, eventfd, eventfd, (unsigned initial, int flags), (initial, flags))
WRAP(int, epoll_create1, epoll_create1, (int flags), (flags))
WRAP(int, epoll_ctl, epoll_ctl, (int set, int operation, int fd, struct epoll_event *event),
     (set, operation, fd, event))
WRAP(int, epoll_wait, epoll_wait, (int set, struct epoll_event *events, int most, int timeout),
     (set, events, most, timeout))
WRAP(int, timerfd_create, timerfd_create, (clockid_t clock, int flags), (clock, flags))
WRAP(int, timerfd_settime, timerfd_settime,
     (int fd, int flags, const struct itimerspec *value, struct itimerspec *former), (fd, flags, value, former))
WRAP(int, poll, poll, (struct pollfd fds[], nfds_t count, int timeout), (fds, count, timeout))
WRAP(int, ppoll, ppoll, (struct pollfd fds[], nfds_t count, const struct timespec *timeout, const sigset_t *mask),
     (fds, count, timeout, mask))
WRAP(ssize_t, pread, pread64, (int fd, void *to, size_t size, off64_t offset), (fd, to, size, offset))
WRAP(ssize_t, pwrite, pwrite64, (int fd, const void *from, size_t size, off64_t offset), (fd, from, size, offset))
WRAP(int, fsync, fsync, (int fd), (fd))
WRAP(int, fstat, fstat64, (int fd, struct stat64 *status), (fd, status))

/* After a failed close(2) the descriptor is gone all the same. */
int close(int fd)
{
    int error = refusal(CALL_close, __builtin_return_address(0));
    int result = REAL(close)(fd);
    if (error == 0)
        return result;
    errno = error;
    return -1;
}

int fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    int error = refusal(CALL_fcntl, __builtin_return_address(0));
    if (error == 0)
        return REAL(fcntl64)(fd, command, argument);
    errno = error;
    return -1;
}

int open64(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, unsigned) : 0;
    va_end(list);
    int error = refusal(CALL_open, __builtin_return_address(0));
    if (error == 0)
        return REAL(open64)(path, flags, mode);
    errno = error;
    return -1;
}

int openat64(int folder, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    unsigned mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, unsigned) : 0;
    va_end(list);
    int error = refusal(CALL_openat, __builtin_return_address(0));
    if (error == 0)
        return REAL(openat64)(folder, path, flags, mode);
    errno = error;
    return -1;
}

/* Answers with the number itself, EAI_... */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    int error = refusal(CALL_getaddrinfo, __builtin_return_address(0));
    return error != 0 ? error : REAL(getaddrinfo)(host, service, hints, found);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    int error = refusal(CALL_pthread_create, __builtin_return_address(0));
    return error != 0 ? error : REAL(pthread_create)(thread, attributes, start, argument);
}

static int call_of(long number)
{
    switch (number) {
    case SYS_statx:
        return CALL_statx;
    case SYS_openat2:
        return CALL_openat2;
    case SYS_io_uring_setup:
        return CALL_io_uring_setup;
    case SYS_io_uring_enter:
        return CALL_io_uring_enter;
    case SYS_preadv2:
        return CALL_preadv2;
    case SYS_copy_file_range:
        return CALL_copy_file_range;
    case SYS_epoll_pwait2:
        return CALL_epoll_pwait2;
    case SYS_pidfd_open:
        return CALL_pidfd_open;
    default:
        return -1;
    }
}

long syscall(long number, ...)
{
    va_list list;
    long arguments[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        arguments[i] = va_arg(list, long);
    va_end(list);
    int call = call_of(number);
    int error = call < 0 ? 0 : refusal((enum call)call, __builtin_return_address(0));
    if (error == 0)
        return REAL(syscall)(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                             arguments[5]);
    errno = error;
    return -1;
}
