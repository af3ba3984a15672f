/* Sockets and addresses. The text of an address is compared with libc's own. */
#include "check.h"
#include "net.h"
#include "platform.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static void open_pair(int pair[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    REQUIRE(hoop_net_set_nonblocking(pair[0]) == 0);
    REQUIRE(hoop_net_set_nonblocking(pair[1]) == 0);
}

static void close_pair(const int pair[2])
{
    CHECK_EQ(hoop_net_close(pair[0]), 0);
    CHECK_EQ(hoop_net_close(pair[1]), 0);
}

static int open_listener(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    memset(address, 0, sizeof(*address));
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(hoop_net_set_nonblocking(fd) == 0);
    REQUIRE(bind(fd, (struct sockaddr *)address, length) == 0);
    REQUIRE(listen(fd, 16) == 0);
    REQUIRE(getsockname(fd, (struct sockaddr *)address, &length) == 0);
    return fd;
}

static int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    REQUIRE(connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0);
    return fd;
}

TEST(accept_gives_what_the_loop_wants)
{
    struct sockaddr_in address;
    int listener = open_listener(&address);
    struct sockaddr_storage peer;
    socklen_t length;
    CHECK_EQ(hoop_net_accept(listener, &peer, &length), -EAGAIN);
    int client = connect_to(&address);
    int server = hoop_net_accept(listener, &peer, &length);
    REQUIRE(server >= 0);
    CHECK_EQ(hoop_net_accept(listener, &peer, &length), -EAGAIN);
    CHECK(fcntl(server, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(server, F_GETFD) & FD_CLOEXEC);
    char byte;
    CHECK_EQ(hoop_net_recv(server, &byte, 1), -EAGAIN);
    CHECK_EQ(hoop_net_close(client), 0);
    CHECK_EQ(hoop_net_close(server), 0);
    CHECK_EQ(hoop_net_close(listener), 0);
    CHECK_EQ(hoop_net_accept(listener, &peer, &length), -EBADF);
    CHECK_EQ(hoop_net_close(listener), -EBADF);
}

/* uvloop#560: getpeername(2) is too late for a connection that was reset while it stood in the queue. */
TEST(accept_tells_the_peer_of_a_connection_that_was_reset)
{
    struct sockaddr_in address, own, seen;
    struct sockaddr_storage peer;
    socklen_t length = sizeof(own);
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    int listener = open_listener(&address);
    int client = connect_to(&address);
    REQUIRE(getsockname(client, (struct sockaddr *)&own, &length) == 0);
    REQUIRE(setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
    CHECK_EQ(hoop_net_close(client), 0);
    int server = hoop_net_accept(listener, &peer, &length);
#if defined(__linux__)
    REQUIRE(server >= 0);
#endif
    if (server >= 0) {
        CHECK_EQ(length, sizeof(own));
        memcpy(&seen, &peer, sizeof(seen));
        CHECK_EQ(seen.sin_port, own.sin_port);
        CHECK_EQ(seen.sin_addr.s_addr, own.sin_addr.s_addr);
        length = sizeof(peer);
        CHECK(getpeername(server, (struct sockaddr *)&peer, &length) < 0 && errno == ENOTCONN);
        CHECK_EQ(hoop_net_close(server), 0);
    }
    CHECK_EQ(hoop_net_close(listener), 0);
}

TEST(accept_errors_fall_in_three_classes)
{
    static const int transient[] = {ECONNABORTED, EPROTO, EHOSTUNREACH, ENETDOWN, ENETUNREACH, EHOSTDOWN};
    static const int resource[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    static const int neither[] = {EAGAIN, EBADF, EINVAL, ENOTSOCK, EOPNOTSUPP, EPERM, 0};
    for (size_t i = 0; i < sizeof(transient) / sizeof(int); i++)
        CHECK(hoop_net_is_transient_accept_error(-transient[i]) && !hoop_net_is_resource_error(-transient[i]));
    for (size_t i = 0; i < sizeof(resource) / sizeof(int); i++)
        CHECK(!hoop_net_is_transient_accept_error(-resource[i]) && hoop_net_is_resource_error(-resource[i]));
    for (size_t i = 0; i < sizeof(neither) / sizeof(int); i++)
        CHECK(!hoop_net_is_transient_accept_error(-neither[i]) && !hoop_net_is_resource_error(-neither[i]));
    CHECK(!hoop_net_is_transient_accept_error(7)); /* a descriptor */
    CHECK(!hoop_net_is_resource_error(EMFILE));
}

TEST(sending_without_a_peer_is_an_error_and_no_signal)
{
    int pair[2];
    open_pair(pair);
    struct iovec buffers[2] = {{"a", 1}, {"b", 1}};
    struct sigaction action, before;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL; /* a SIGPIPE would end this program */
    REQUIRE(sigaction(SIGPIPE, &action, &before) == 0);
    CHECK_EQ(hoop_net_close(pair[1]), 0);
    CHECK_EQ(hoop_net_send(pair[0], "x", 1), -EPIPE);
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, 2), -EPIPE);
    REQUIRE(sigaction(SIGPIPE, &before, NULL) == 0);
    char byte;
    CHECK_EQ(hoop_net_recv(pair[0], &byte, 1), 0);
    CHECK_EQ(hoop_net_close(pair[0]), 0);
}

TEST(buffers_leave_in_order)
{
    int pair[2];
    open_pair(pair);
    char letters[HOOP_NET_MAX_BUFFERS + 2], got[sizeof(letters)];
    struct iovec buffers[HOOP_NET_MAX_BUFFERS + 2];
    int many = HOOP_NET_MAX_BUFFERS + 2;
    for (int i = 0; i < many; i++) {
        letters[i] = (char)('!' + i);
        buffers[i] = (struct iovec){&letters[i], 1};
    }
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, 3), 3);
    CHECK_EQ(hoop_net_recv(pair[1], got, sizeof(got)), 3);
    CHECK(memcmp(got, letters, 3) == 0);
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, many), HOOP_NET_MAX_BUFFERS);
    CHECK_EQ(hoop_net_recv(pair[1], got, sizeof(got)), HOOP_NET_MAX_BUFFERS);
    CHECK(memcmp(got, letters, HOOP_NET_MAX_BUFFERS) == 0);
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, 1), 1);
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, 0), 0);
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, -1), -EINVAL);
    CHECK_EQ(hoop_net_writev(pair[0], buffers, 2), 2);
    CHECK_EQ(hoop_net_read(pair[1], got, sizeof(got)), 3);
    close_pair(pair);
}

/* Few bytes are joined into one buffer on the way, more are not: nobody can tell. */
TEST(small_and_large_buffers_leave_alike)
{
    static const size_t sizes[][3] = {{1, 0, 1},       {0, 0, 0},    {700, 700, 648},
                                      {700, 700, 649}, {1, 4096, 1}, {4096, 1, 1}};
    static char bytes[3 * 4096], got[sizeof(bytes)];
    int pair[2];
    open_pair(pair);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i % 251);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct iovec buffers[3];
        size_t total = 0;
        for (int part = 0; part < 3; part++) {
            buffers[part] = (struct iovec){bytes + total, sizes[i][part]};
            total += sizes[i][part];
        }
        CHECK_EQ(hoop_net_sendv(pair[0], buffers, 3), (ssize_t)total);
        if (total > 0)
            CHECK_EQ(hoop_net_recv(pair[1], got, sizeof(got)), (ssize_t)total);
        CHECK(memcmp(got, bytes, total) == 0);
    }
    close_pair(pair);
}

/* No memory of that size is touched: the lengths only have to be too much for one call. */
TEST(too_much_for_one_call_is_cut)
{
    int pair[2];
    char byte = 'x';
    open_pair(pair);
    struct iovec buffers[2] = {{&byte, 1}, {&byte, (size_t)0x7ffff000}};
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, 2), 1);
    CHECK_EQ(hoop_net_writev(pair[0], buffers, 2), 1);
    char got[8];
    CHECK_EQ(hoop_net_recv(pair[1], got, sizeof(got)), 2);
    close_pair(pair);
}

TEST(a_full_socket_says_again)
{
    static const char zeros[65536];
    int pair[2];
    open_pair(pair);
    ssize_t moved = 0;
    while (moved >= 0)
        moved = hoop_net_send(pair[0], zeros, sizeof(zeros));
    CHECK_EQ(moved, -EAGAIN);
    struct iovec buffers[2] = {{"a", 1}, {"b", 1}};
    CHECK_EQ(hoop_net_sendv(pair[0], buffers, 2), -EAGAIN);
    CHECK_EQ(hoop_net_writev(pair[0], buffers, 1), -EAGAIN);
    CHECK_EQ(hoop_net_writev(pair[0], buffers, 2), -EAGAIN);
    close_pair(pair);
}

TEST(pipes_are_read_and_written)
{
    int pipe_fds[2];
    char got[4];
    REQUIRE(pipe(pipe_fds) == 0);
    CHECK_EQ(hoop_net_set_nonblocking(pipe_fds[0]), 0);
    CHECK_EQ(hoop_net_set_nonblocking(pipe_fds[0]), 0);
    CHECK_EQ(hoop_net_read(pipe_fds[0], got, sizeof(got)), -EAGAIN);
    CHECK_EQ(hoop_net_writev(pipe_fds[1], &(struct iovec){"abc", 3}, 1), 3);
    CHECK_EQ(hoop_net_read(pipe_fds[0], got, sizeof(got)), 3);
    CHECK_EQ(hoop_net_send(pipe_fds[1], "abc", 3), -ENOTSOCK);
    CHECK_EQ(hoop_net_set_nodelay(pipe_fds[1], true), 0);
    CHECK_EQ(hoop_net_close(pipe_fds[1]), 0);
    CHECK_EQ(hoop_net_read(pipe_fds[0], got, sizeof(got)), 0);
    CHECK_EQ(hoop_net_close(pipe_fds[0]), 0);
    CHECK_EQ(hoop_net_set_nonblocking(pipe_fds[0]), -EBADF);
}

TEST(what_has_arrived_is_counted)
{
    int fds[2];
    char got[8];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    CHECK_EQ(hoop_net_pending(fds[0]), 0);
    CHECK_EQ(hoop_net_send(fds[1], "abc", 3), 3);
    CHECK_EQ(hoop_net_send(fds[1], "de", 2), 2);
    CHECK_EQ(hoop_net_pending(fds[0]), 5);
    CHECK_EQ(hoop_net_recv(fds[0], got, 4), 4);
    CHECK_EQ(hoop_net_pending(fds[0]), 1);
    CHECK_EQ(hoop_net_close(fds[1]), 0);
    CHECK_EQ(hoop_net_pending(fds[0]), 1);
    CHECK_EQ(hoop_net_recv(fds[0], got, 4), 1);
    CHECK_EQ(hoop_net_pending(fds[0]), 0);
    CHECK_EQ(hoop_net_close(fds[0]), 0);
    CHECK_EQ(hoop_net_pending(fds[0]), -EBADF);
}

TEST(nodelay_is_for_tcp_and_harmless_elsewhere)
{
    struct sockaddr_in address;
    int listener = open_listener(&address);
    int client = connect_to(&address);
    int value = -1;
    socklen_t length = sizeof(value);
    CHECK_EQ(hoop_net_set_nodelay(client, true), 0);
    REQUIRE(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0);
    CHECK(value != 0);
    CHECK_EQ(hoop_net_set_nodelay(client, false), 0);
    REQUIRE(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0);
    CHECK_EQ(value, 0);
    int pair[2];
    open_pair(pair);
    CHECK_EQ(hoop_net_set_nodelay(pair[0], true), 0);
    close_pair(pair);
    int datagram = socket(AF_INET, SOCK_DGRAM, 0);
    REQUIRE(datagram >= 0);
    CHECK_EQ(hoop_net_set_nodelay(datagram, true), 0);
    CHECK_EQ(hoop_net_close(datagram), 0);
    CHECK_EQ(hoop_net_set_nodelay(datagram, true), -EBADF);
    hoop_net_close(client);
    hoop_net_close(listener);
}

TEST(shutdown_ends_the_peer_s_reading)
{
    int pair[2];
    char byte;
    open_pair(pair);
    CHECK_EQ(hoop_net_shutdown_write(pair[0]), 0);
    CHECK_EQ(hoop_net_recv(pair[1], &byte, 1), 0);
    CHECK_EQ(hoop_net_send(pair[1], "x", 1), 1);
    CHECK_EQ(hoop_net_recv(pair[0], &byte, 1), 1);
    close_pair(pair);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    CHECK_EQ(hoop_net_shutdown_write(fd), -ENOTCONN);
    hoop_net_close(fd);
}

TEST(a_socket_error_is_told_once)
{
    struct sockaddr_in address;
    int listener = open_listener(&address);
    hoop_net_close(listener); /* the port is free again, and refuses */
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(fd >= 0);
    CHECK_EQ(hoop_net_socket_error(fd), 0);
    REQUIRE(hoop_net_set_nonblocking(fd) == 0);
    int result = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    if (result == -EINPROGRESS) {
        fd_set writable;
        FD_ZERO(&writable);
        FD_SET(fd, &writable);
        REQUIRE(select(fd + 1, NULL, &writable, NULL, NULL) == 1);
        CHECK_EQ(hoop_net_socket_error(fd), -ECONNREFUSED);
    } else {
        CHECK_EQ(result, -ECONNREFUSED);
    }
    CHECK_EQ(hoop_net_socket_error(fd), 0);
    hoop_net_close(fd);
    CHECK_EQ(hoop_net_socket_error(fd), -EBADF);
}

static atomic_int alarms_seen;

static void note_alarm(int number)
{
    (void)number;
    atomic_fetch_add(&alarms_seen, 1);
}

static void *send_after_three_alarms(void *arg)
{
    sigset_t alarms;
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarms, NULL);
    while (atomic_load(&alarms_seen) < 3)
        sched_yield();
    hoop_net_send(*(int *)arg, "x", 1);
    return NULL;
}

TEST(a_signal_does_not_end_a_blocking_call)
{
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    struct sigaction action, before;
    memset(&action, 0, sizeof(action));
    action.sa_handler = note_alarm;
    REQUIRE(sigaction(SIGALRM, &action, &before) == 0);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, send_after_three_alarms, &pair[1]) == 0);
    struct itimerval every_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    REQUIRE(setitimer(ITIMER_REAL, &every_ms, NULL) == 0);
    char byte;
    CHECK_EQ(hoop_net_recv(pair[0], &byte, 1), 1);
    REQUIRE(setitimer(ITIMER_REAL, &never, NULL) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    REQUIRE(sigaction(SIGALRM, &before, NULL) == 0);
    close_pair(pair);
}

static socklen_t make_ipv6(struct sockaddr_in6 *address, const char *host, uint32_t scope_id)
{
    memset(address, 0, sizeof(*address));
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(443);
    address->sin6_flowinfo = htonl(0x12345);
    address->sin6_scope_id = scope_id;
    REQUIRE(inet_pton(AF_INET6, host, &address->sin6_addr) == 1);
    return sizeof(*address);
}

TEST(an_ipv4_address_is_text)
{
    struct sockaddr_in address;
    hoop_address text;
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_port = htons(65535);
    address.sin_addr.s_addr = htonl(0xfffefd00);
    CHECK_EQ(hoop_net_format_address((struct sockaddr *)&address, sizeof(address), &text), 0);
    CHECK(strcmp(text.host, "255.254.253.0") == 0);
    CHECK_EQ(text.family, AF_INET);
    CHECK_EQ(text.port, 65535);
    CHECK_EQ(hoop_net_format_address((struct sockaddr *)&address, sizeof(address) - 1, &text), -EAFNOSUPPORT);
    CHECK_EQ(hoop_net_format_address((struct sockaddr *)&address, 0, &text), -EAFNOSUPPORT);
}

TEST(every_octet_of_ipv4_is_text_as_inet_ntop_has_it)
{
    struct sockaddr_in address;
    hoop_address text;
    char expected[INET_ADDRSTRLEN];
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    for (uint32_t octet = 0; octet < 256; octet++) {
        address.sin_addr.s_addr = htonl(octet << 24 | (255 - octet) << 16 | (octet ^ 0x55) << 8 | octet);
        CHECK_EQ(hoop_net_format_address((struct sockaddr *)&address, sizeof(address), &text), 0);
        CHECK(inet_ntop(AF_INET, &address.sin_addr, expected, sizeof(expected)) != NULL);
        CHECK(strcmp(text.host, expected) == 0);
    }
}

TEST(an_ipv6_address_is_text_without_a_zone)
{
    struct sockaddr_in6 address;
    hoop_address text;
    socklen_t length = make_ipv6(&address, "fe80::a:b", 1);
    CHECK_EQ(hoop_net_format_address((struct sockaddr *)&address, length, &text), 0);
    CHECK(strcmp(text.host, "fe80::a:b") == 0);
    CHECK_EQ(text.family, AF_INET6);
    CHECK_EQ(text.port, 443);
    CHECK_EQ(text.flowinfo, 0x12345);
    CHECK_EQ(text.scope_id, 1);
    CHECK_EQ(hoop_net_format_address((struct sockaddr *)&address, length - 1, &text), -EAFNOSUPPORT);
    struct sockaddr_un path;
    memset(&path, 0, sizeof(path));
    path.sun_family = AF_UNIX;
    CHECK_EQ(hoop_net_format_address((struct sockaddr *)&path, sizeof(path), &text), -EAFNOSUPPORT);
    /* Misaligned, as it may lie in the middle of a caller's buffer. */
    _Alignas(16) char buffer[sizeof(address) + 1];
    memcpy(buffer + 1, &address, sizeof(address));
    struct sockaddr *shifted;
    char *where = buffer + 1;
    memcpy(&shifted, &where, sizeof(where));
    CHECK_EQ(hoop_net_format_address(shifted, length, &text), 0);
}

/* What hoop takes, getaddrinfo must read the same: then a look-up may be left out. */
static bool literal_agrees(const char *host, bool *taken)
{
    struct addrinfo hints, *info = NULL;
    struct sockaddr_storage address;
    int length = hoop_net_parse_literal(host, 4321, &address);
    *taken = length > 0;
    if (length < 0)
        return length == -EINVAL;
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = address.ss_family;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    if (getaddrinfo(host, "4321", &hints, &info) != 0)
        return false;
    bool agrees = (int)info->ai_addrlen == length && memcmp(info->ai_addr, &address, (size_t)length) == 0;
    freeaddrinfo(info);
    return agrees;
}

TEST(literals_are_taken)
{
    /* clang-format off */
    static const char *const hosts[] = {
        "0.0.0.0", "127.0.0.1", "255.255.255.255", "1.20.255.0", "::", "::1", "1::", "fe80::1", "FE80::aBcD",
        "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "1:2::7:8", "0001:0:0:0:0:0:0:0",
        "::ffff:1.2.3.4", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "64:ff9b::192.0.2.33", "::3:4:5:6:1.2.3.4", "1::1.2.3.4",
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        bool taken;
        if (!CHECK(literal_agrees(hosts[i], &taken)) || !CHECK(taken))
            fprintf(stderr, "\"%s\"\n", hosts[i]);
    }
}

TEST(everything_else_is_left_to_getaddrinfo)
{
    /* clang-format off */
    static const char *const hosts[] = {
        "", "localhost", "127.1", "127.0.1", "1.2.3", "1.2.3.4.", ".1.2.3.4", "1.2.3.4.5", "1..2.3", "01.2.3.4",
        "1.2.3.04", "010.0.0.1", "00.0.0.0", "256.0.0.1", "1.2.3.999", "1.2.3.1000", "0x7f.0.0.1", "0x7f000001",
        "2130706433", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4\n", "+1.2.3.4", "-1.2.3.4", ":", ":::", "1", "1:", ":1",
        "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8:", ":1:2:3:4:5:6:7:8", "1::2::3", "1:::2", "::1:",
        ":::1", "1:2:3:4::5:6:7:8", "::1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8::", "12345::", "00001::", "g::",
        "fe80::1%eth0", "fe80::1%1", "::1%", "[::1]", "::1 ", " ::1", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:1.2.3.4",
        "1.2.3.4::", "::1.2.3", "::1.2.3.4.5", "::1.2.3.04", "::1.2.3.256", "::1.2.3.4:5", "1.2.3.4:5::", "::01.2.3.4",
        "127.0.0.1:80", "\xef\xbc\x91.2.3.4",
    };
    /* clang-format on */
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        struct sockaddr_storage address;
        if (!CHECK_EQ(hoop_net_parse_literal(hosts[i], 80, &address), -EINVAL))
            fprintf(stderr, "\"%s\"\n", hosts[i]);
    }
}

/* Texts near an address. What hoop refuses inet_pton refuses too, but for zones (macOS) and blanks (NetBSD). */
TEST(random_texts_are_read_as_libc_does)
{
    static const char alphabet[] = "0123456789abF::::....%";
    uint64_t random = check_use_seed(4711);
    int taken_count = 0;
    for (int round = 0; round < 200000; round++) {
        struct in6_addr address;
        char host[INET6_ADDRSTRLEN + 4];
        for (size_t i = 0; i < sizeof(address); i++)
            address.s6_addr[i] = (uint8_t)(check_random_below(&random, 3) == 0 ? check_random(&random) : 0);
        int family = check_random_below(&random, 4) == 0 ? AF_INET : AF_INET6;
        REQUIRE(inet_ntop(family, &address, host, INET6_ADDRSTRLEN) != NULL);
        size_t length = strlen(host);
        for (uint64_t edits = check_random_below(&random, 3); edits > 0; edits--) {
            char letter = alphabet[check_random_below(&random, sizeof(alphabet) - 1)];
            size_t where = (size_t)check_random_below(&random, length + 1);
            if (check_random_below(&random, 2) == 0 && length < sizeof(host) - 1) {
                memmove(host + where + 1, host + where, length - where + 1);
                host[where] = letter;
                length++;
            } else if (where < length) {
                host[where] = letter;
            }
        }
        bool taken;
        unsigned char bytes[16];
        bool agrees = literal_agrees(host, &taken);
        bool is_address = inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
        if (!CHECK(agrees && (taken || !is_address || strchr(host, '%') != NULL)))
            fprintf(stderr, "\"%s\"\n", host);
        taken_count += taken;
    }
    CHECK(taken_count > 50000 && taken_count < 190000); /* the edits are neither too wild nor too tame */
}

TEST(a_unix_name_is_a_path_or_abstract_or_nothing)
{
    struct sockaddr_un address;
    const struct sockaddr *any = (const struct sockaddr *)(const void *)&address;
    const socklen_t name_at = (socklen_t)offsetof(struct sockaddr_un, sun_path);
    const char *name;
    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;
    CHECK(hoop_net_unix_name(any, name_at, &name) == 0);
    strcpy(address.sun_path, "/run/s");
    CHECK(hoop_net_unix_name(any, name_at + 6, &name) == 6 && name == address.sun_path);
    CHECK(hoop_net_unix_name(any, name_at + 7, &name) == 6); /* the kernel may count the NUL */
    CHECK(hoop_net_unix_name(any, sizeof(address), &name) == 6);
    memset(address.sun_path, 'x', sizeof(address.sun_path)); /* the longest path has no NUL */
    CHECK(hoop_net_unix_name(any, sizeof(address), &name) == (ssize_t)sizeof(address.sun_path));
#if HOOP_HAVE_ABSTRACT_NAMES
    memcpy(address.sun_path, "\0a\0b", 4);
    CHECK(hoop_net_unix_name(any, name_at + 4, &name) == 4 && memcmp(name, "\0a\0b", 4) == 0);
#endif
    CHECK(hoop_net_unix_name(any, 0, &name) == -EAFNOSUPPORT);
    address.sun_family = AF_INET;
    CHECK(hoop_net_unix_name(any, sizeof(address), &name) == -EAFNOSUPPORT);
}

static int host_of_peer(int fd, uint8_t host[16])
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    REQUIRE(getpeername(fd, (struct sockaddr *)&peer, &length) == 0);
    return hoop_net_host((const struct sockaddr *)&peer, length, host);
}

TEST(a_peer_s_host_is_its_address)
{
    uint8_t host[16];
    struct sockaddr_in address;
    int listener = open_listener(&address);
    int client = connect_to(&address);
    CHECK_EQ(host_of_peer(client, host), 4);
    CHECK(memcmp(host, "\x7f\0\0\1", 4) == 0);
    CHECK_EQ(close(client), 0);
    CHECK_EQ(close(listener), 0);
    int pair[2];
    open_pair(pair);
    CHECK_EQ(host_of_peer(pair[0], host), 0); /* a UNIX socket */
    close_pair(pair);
    CHECK_EQ(hoop_net_host((const struct sockaddr *)&address, 0, host), 0);
    CHECK_EQ(hoop_net_host((const struct sockaddr *)&address, sizeof(address) - 1, host), 0);
}

TEST(a_network_has_the_hosts_that_begin_as_it_does)
{
    const hoop_network all = {.size = 4, .bits = 0}, odd = {.host = {10, 1, 0xa0}, .size = 4, .bits = 19};
    const hoop_network one = {.host = {10, 1, 2, 3}, .size = 4, .bits = 32},
                       ipv6 = {.host = {0xfe, 0x80}, .size = 16, .bits = 10};
    const uint8_t long_host[16] = {0xfe, 0xbf, 1};
    CHECK(hoop_net_contains(&all, (const uint8_t *)"\1\2\3\4", 4));
    CHECK(!hoop_net_contains(&all, long_host, 16));
    CHECK(hoop_net_contains(&odd, (const uint8_t *)"\12\1\xbf\4", 4));
    CHECK(!hoop_net_contains(&odd, (const uint8_t *)"\12\1\xc0\4", 4));
    CHECK(!hoop_net_contains(&odd, (const uint8_t *)"\12\2\xa0\4", 4));
    CHECK(hoop_net_contains(&one, (const uint8_t *)"\12\1\2\3", 4));
    CHECK(!hoop_net_contains(&one, (const uint8_t *)"\12\1\2\4", 4));
    CHECK(hoop_net_contains(&ipv6, long_host, 16));
    CHECK(!hoop_net_contains(&ipv6, (const uint8_t *)"\xfe\x7f\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16));
    CHECK(!hoop_net_contains(&ipv6, (const uint8_t *)"\xfe\x80\0\0", 4));
}

TEST(a_peek_leaves_the_bytes)
{
    char buffer[8];
    int pair[2];
    open_pair(pair);
    CHECK_EQ(hoop_net_set_nonblocking(pair[1]), 0);
    CHECK_EQ(hoop_net_peek(pair[1], buffer, sizeof(buffer)), -EAGAIN);
    CHECK_EQ(hoop_net_send(pair[0], "abc", 3), 3);
    CHECK_EQ(hoop_net_peek(pair[1], buffer, 2), 2);
    CHECK_EQ(hoop_net_recv(pair[1], buffer, sizeof(buffer)), 3);
    CHECK(memcmp(buffer, "abc", 3) == 0);
    CHECK_EQ(close(pair[0]), 0);
    CHECK_EQ(hoop_net_peek(pair[1], buffer, sizeof(buffer)), 0);
    CHECK_EQ(close(pair[1]), 0);
}

TEST(an_ipv6_peer_s_host_is_16_bytes_unless_it_is_ipv4)
{
    uint8_t host[16];
    struct sockaddr_in6 any, mapped;
    socklen_t length = sizeof(any);
    int off = 0;
    int listener = socket(AF_INET6, SOCK_STREAM, 0);
    memset(&any, 0, sizeof(any));
    any.sin6_family = AF_INET6;
    if (listener < 0 || setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0 ||
        bind(listener, (struct sockaddr *)&any, sizeof(any)) < 0) {
        fputs("no IPv6 here\n", stderr);
        if (listener >= 0)
            CHECK_EQ(close(listener), 0);
        return;
    }
    REQUIRE(listen(listener, 4) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&any, &length) == 0);
    mapped = any;
    mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
    memcpy(mapped.sin6_addr.s6_addr + 12, "\x7f\0\0\1", 4);
    any.sin6_addr = in6addr_loopback;
    const struct sockaddr_in6 *targets[] = {&any, &mapped};
    for (int i = 0; i < 2; i++) {
        int client = socket(AF_INET6, SOCK_STREAM, 0);
        REQUIRE(client >= 0);
        if (CHECK(connect(client, (const struct sockaddr *)targets[i], sizeof(any)) == 0)) {
            CHECK_EQ(host_of_peer(client, host), i == 0 ? 16 : 4);
            CHECK(memcmp(host, i == 0 ? (const void *)&in6addr_loopback : "\x7f\0\0\1", i == 0 ? 16 : 4) == 0);
        }
        CHECK_EQ(close(client), 0);
    }
    CHECK_EQ(close(listener), 0);
}

int main(void)
{
    RUN(accept_gives_what_the_loop_wants);
    RUN(accept_tells_the_peer_of_a_connection_that_was_reset);
    RUN(accept_errors_fall_in_three_classes);
    RUN(sending_without_a_peer_is_an_error_and_no_signal);
    RUN(buffers_leave_in_order);
    RUN(small_and_large_buffers_leave_alike);
    RUN(too_much_for_one_call_is_cut);
    RUN(a_full_socket_says_again);
    RUN(pipes_are_read_and_written);
    RUN(what_has_arrived_is_counted);
    RUN(nodelay_is_for_tcp_and_harmless_elsewhere);
    RUN(shutdown_ends_the_peer_s_reading);
    RUN(a_socket_error_is_told_once);
    RUN(a_signal_does_not_end_a_blocking_call);
    RUN(an_ipv4_address_is_text);
    RUN(every_octet_of_ipv4_is_text_as_inet_ntop_has_it);
    RUN(an_ipv6_address_is_text_without_a_zone);
    RUN(a_unix_name_is_a_path_or_abstract_or_nothing);
    RUN(a_peer_s_host_is_its_address);
    RUN(a_network_has_the_hosts_that_begin_as_it_does);
    RUN(a_peek_leaves_the_bytes);
    RUN(an_ipv6_peer_s_host_is_16_bytes_unless_it_is_ipv4);
    RUN(literals_are_taken);
    RUN(everything_else_is_left_to_getaddrinfo);
    RUN(random_texts_are_read_as_libc_does);
    return check_finish();
}
