/* The limit: a single-threaded echo server on level-triggered epoll that does nothing but the system calls. It answers
 * from the buffer that it received into; only what the kernel refuses to take is copied and kept. With --copy it answers
 * from a new block, as a BufferedProtocol must. Prints its port as JSON and exits when its standard input ends. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "endpoint.h"

enum { BACKLOG = 4096, EVENTS_AT_ONCE = 256, ACCEPTS_AT_ONCE = 64, BUFFER_SIZE = 256 * 1024 };

struct connection {
    int fd;
    char *unsent; /* NULL, or what the kernel did not take; then nothing is read until it has gone */
    size_t unsent_begin;
    size_t unsent_end;
};

static char buffer[BUFFER_SIZE];
static bool copies;
static int epoll_fd;
static int listen_fd;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int operation, int fd, uint32_t events, void *owner)
{
    struct epoll_event event = {.events = events, .data.ptr = owner};
    if (epoll_ctl(epoll_fd, operation, fd, &event) != 0)
        fail("epoll_ctl");
}

static void connection_close(struct connection *connection)
{
    close(connection->fd);
    free(connection->unsent);
    free(connection);
}

static void connection_keep(struct connection *connection, const char *bytes, size_t size)
{
    connection->unsent = malloc(size);
    if (!connection->unsent)
        fail("malloc");
    memcpy(connection->unsent, bytes, size);
    connection->unsent_begin = 0;
    connection->unsent_end = size;
    watch(EPOLL_CTL_MOD, connection->fd, EPOLLOUT, connection);
}

static void connection_flush(struct connection *connection)
{
    ssize_t sent = send(connection->fd, connection->unsent + connection->unsent_begin,
                        connection->unsent_end - connection->unsent_begin, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            connection_close(connection);
        return;
    }
    connection->unsent_begin += (size_t)sent;
    if (connection->unsent_begin < connection->unsent_end)
        return;
    free(connection->unsent);
    connection->unsent = NULL;
    watch(EPOLL_CTL_MOD, connection->fd, EPOLLIN, connection);
}

static ssize_t answer(const struct connection *connection, size_t size)
{
    if (!copies)
        return send(connection->fd, buffer, size, MSG_NOSIGNAL);
    char *copy = malloc(size);
    if (!copy)
        fail("malloc");
    memcpy(copy, buffer, size);
    ssize_t sent = send(connection->fd, copy, size, MSG_NOSIGNAL);
    int error = errno;
    free(copy);
    errno = error;
    return sent;
}

static void connection_echo(struct connection *connection)
{
    ssize_t size = recv(connection->fd, buffer, sizeof(buffer), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        connection_close(connection);
        return;
    }
    ssize_t sent = answer(connection, (size_t)size);
    if (sent == size)
        return;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        connection_close(connection);
        return;
    }
    if (sent < 0)
        sent = 0;
    connection_keep(connection, buffer + sent, (size_t)(size - sent));
}

static void accept_some(void)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return; /* none left, or one that its client has given up; too many descriptors: the client notices */
        int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        struct connection *connection = calloc(1, sizeof(*connection));
        if (!connection)
            fail("calloc");
        connection->fd = fd;
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, connection);
    }
}

static unsigned listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *)&address, size) != 0 || listen(listen_fd, BACKLOG) != 0 ||
        getsockname(listen_fd, (struct sockaddr *)&address, &size) != 0)
        fail("listen");
    return ntohs(address.sin_port);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    copies = argc > 1 && strcmp(argv[1], "--copy") == 0;
    struct descriptor_limits limits = {0};
    (void)descriptor_limits_raise(&limits);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        fail("epoll_create1");
    unsigned port = listen_on_loopback();
    watch(EPOLL_CTL_ADD, listen_fd, EPOLLIN, &listen_fd);
    watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
    printf("{\"port\": %u, \"pid\": %ld, \"loop\": \"c\", \"version\": \"epoll\", \"descriptor_limit\": %llu}\n", port,
           (long)getpid(), (unsigned long long)limits.soft);
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, -1);
        if (count < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                return 0;
            struct connection *connection = events[i].data.ptr;
            if (events[i].data.ptr == &listen_fd)
                accept_some();
            else if (connection->unsent)
                connection_flush(connection);
            else
                connection_echo(connection);
        }
    }
}
