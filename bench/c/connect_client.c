/* Load for accepting: each slot connects, sends one message, checks its echo, closes, and begins again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"
#include "pattern.h"

enum { MAX_FAILURES = 100 };

struct slot {
    int fd;          /* -1: none */
    uint32_t stream; /* a new one for each connection */
    bool connected;
    size_t received;
    int64_t begin_ns;
};

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    struct slot *slots;
    int epoll_fd;
    unsigned alive;
    uint32_t streams;
    bool draining;
};

static char receive_buffer[PATTERN_MAX_PIECE];

static void slot_begin(struct client *client, struct slot *slot)
{
    slot->connected = false;
    slot->received = 0;
    slot->stream = client->streams++;
    slot->begin_ns = monotonic_ns();
    slot->fd = endpoint_start_connect(&client->endpoint);
    if (slot->fd < 0) {
        failures_note(&client->measurement.failures, "connect: %s", strerror(-slot->fd));
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = slot};
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, slot->fd, &event) != 0) {
        failures_note(&client->measurement.failures, "epoll_ctl: %s", strerror(errno));
        close(slot->fd);
        slot->fd = -1;
        return;
    }
    client->alive++;
}

static void slot_end(struct client *client, struct slot *slot)
{
    close(slot->fd);
    slot->fd = -1;
    client->alive--;
    if (!client->draining)
        slot_begin(client, slot);
}

/* A server that refuses everything must not be tried for ever. */
static void slot_fail(struct client *client, struct slot *slot, const char *what, int error)
{
    failures_note(&client->measurement.failures, "%s: %s", what, strerror(error));
    if (client->measurement.failures.count >= MAX_FAILURES)
        client->draining = true;
    slot_end(client, slot);
}

static void slot_connected(struct client *client, struct slot *slot)
{
    int result = endpoint_connect_result(slot->fd);
    if (result < 0) {
        slot_fail(client, slot, "connect", -result);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = slot};
    ssize_t sent = send(slot->fd, pattern_at(slot->stream, 0), client->options.size, MSG_NOSIGNAL);
    if (sent != (ssize_t)client->options.size) /* the buffer of a new connection is empty */
        slot_fail(client, slot, "send", sent < 0 ? errno : ENOBUFS);
    else if (epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, slot->fd, &event) != 0)
        slot_fail(client, slot, "epoll_ctl", errno);
    else
        slot->connected = true;
}

static void slot_receive(struct client *client, struct slot *slot)
{
    ssize_t size = recv(slot->fd, receive_buffer, sizeof(receive_buffer), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        slot_fail(client, slot, "recv", size < 0 ? errno : ECONNRESET);
        return;
    }
    if (slot->received + (size_t)size > client->options.size ||
        !pattern_matches(slot->stream, slot->received, receive_buffer, (size_t)size)) {
        slot_fail(client, slot, "the echo differs", EBADMSG);
        return;
    }
    slot->received += (size_t)size;
    if (slot->received < client->options.size)
        return;
    measurement_count(&client->measurement, monotonic_ns() - slot->begin_ns);
    slot_end(client, slot);
}

static void slot_ready(void *context, const struct epoll_event *event)
{
    struct client *client = context;
    struct slot *slot = event->data.ptr;
    if (slot->connected)
        slot_receive(client, slot);
    else
        slot_connected(client, slot);
}

static void drain(struct client *client)
{
    client->draining = true;
    load_drain(client->epoll_fd, &client->alive, slot_ready, client);
    if (client->alive > 0)
        failures_note(&client->measurement.failures, "%u connections without an answer", client->alive);
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options = {.host = "127.0.0.1", .connections = 16, .size = 64, .warmup = 0.2, .duration = 1.0, .sources = 100},
    };
    load_options_parse(&client.options, argc, argv);
    pattern_prepare();
    int result = endpoint_set(&client.endpoint, client.options.host, client.options.port);
    client.endpoint.source_count = client.options.sources;
    client.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client.slots = calloc(client.options.connections, sizeof(struct slot));
    if (result < 0 || client.epoll_fd < 0 || !client.slots || client.options.size > PATTERN_MAX_PIECE) {
        fprintf(stderr, "cannot start: %s\n", strerror(result < 0 ? -result : errno ? errno : EINVAL));
        return 2;
    }
    for (unsigned i = 0; i < client.options.connections; i++)
        slot_begin(&client, &client.slots[i]);
    result = load_run(client.epoll_fd, &client.options, &client.measurement, &client.alive, slot_ready, &client);
    if (result < 0)
        failures_note(&client.measurement.failures, "epoll_wait: %s", strerror(-result));
    struct measurement measured = client.measurement; /* what drains no longer counts, but failures do */
    drain(&client);
    measured.failures = client.measurement.failures;
    return measurement_print(&measured);
}
