/* Load for an echo server: every connection keeps `--depth` messages in flight, checks each echoed byte, and answers
 * what came back with new messages at once. It spins on epoll_wait(0): a client that sleeps adds a wake-up across
 * cores to each reply, which has nothing to do with the server. tls_echo_client is the same program over TLS. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "load.h"
#include "pattern.h"

enum { CONNECT_LIMIT_SECONDS = 10, DRAIN_LIMIT_SECONDS = 3, CLOSE_LIMIT_SECONDS = 1 };

struct connection {
    struct channel channel;
    bool is_open; /* neither closed nor failed */
    uint32_t number;
    bool wants_write; /* EPOLLOUT is registered: the kernel took only a part */
    uint64_t to_send; /* offset in the stream up to which messages have been issued */
    uint64_t sent;
    uint64_t received;
    uint64_t issued;    /* messages begun, ... */
    uint64_t completed; /* ... and echoed: at most depth apart */
    int64_t *issued_ns; /* ring of `depth` times */
};

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    struct connection *connections;
    int epoll_fd;
    unsigned alive;
    bool draining; /* no new messages */
};

static char receive_buffer[PATTERN_MAX_PIECE];

static void connection_drop(struct client *client, struct connection *connection)
{
    channel_close(&connection->channel);
    connection->is_open = false;
    client->alive--;
}

static void connection_fail(struct client *client, struct connection *connection, const char *what, int error)
{
    failures_note(&client->measurement.failures, "connection %u: %s%s%s (sent %llu, received %llu bytes)",
                  connection->number, what, error ? ": " : "", error ? strerror(error) : "",
                  (unsigned long long)connection->sent, (unsigned long long)connection->received);
    connection_drop(client, connection);
}

static int watch(struct client *client, struct connection *connection, int operation, bool wants_write)
{
    struct epoll_event event = {.events = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0), .data.ptr = connection};
    connection->wants_write = wants_write;
    return epoll_ctl(client->epoll_fd, operation, connection->channel.fd, &event) == 0 ? 0 : -errno;
}

static void issue(struct client *client, struct connection *connection, int64_t now_ns)
{
    while (!client->draining && connection->issued - connection->completed < client->options.depth) {
        connection->issued_ns[connection->issued++ % client->options.depth] = now_ns;
        connection->to_send += client->options.size;
    }
}

static void send_issued(struct client *client, struct connection *connection)
{
    while (connection->sent < connection->to_send) {
        uint64_t size = connection->to_send - connection->sent;
        if (size > PATTERN_MAX_PIECE)
            size = PATTERN_MAX_PIECE;
        ssize_t sent = channel_send(&connection->channel, pattern_at(connection->number, connection->sent), size);
        if (sent == -EINTR)
            continue;
        if (sent == -EAGAIN)
            break;
        if (sent < 0) {
            connection_fail(client, connection, "send", (int)-sent);
            return;
        }
        connection->sent += (uint64_t)sent;
        client->measurement.moved += (uint64_t)sent;
    }
    bool unsent = connection->sent < connection->to_send;
    if (unsent != connection->wants_write)
        watch(client, connection, EPOLL_CTL_MOD, unsent);
}

static void count_completed(struct client *client, struct connection *connection, int64_t now_ns)
{
    while (connection->received >= (connection->completed + 1) * client->options.size) {
        int64_t issued_ns = connection->issued_ns[connection->completed++ % client->options.depth];
        measurement_count(&client->measurement, now_ns - issued_ns);
    }
}

static void receive(struct client *client, struct connection *connection)
{
    ssize_t size = channel_receive(&connection->channel, receive_buffer, sizeof(receive_buffer));
    if (size < 0) {
        if (size != -EAGAIN && size != -EINTR)
            connection_fail(client, connection, "recv", (int)-size);
        return;
    }
    if (size == 0) {
        if (client->draining && connection->received == connection->to_send)
            connection_drop(client, connection);
        else
            connection_fail(client, connection, "closed by the server", 0);
        return;
    }
    if (connection->received + (uint64_t)size > connection->sent) {
        connection_fail(client, connection, "more bytes came back than were sent", 0);
        return;
    }
    if (!pattern_matches(connection->number, connection->received, receive_buffer, (size_t)size)) {
        connection_fail(client, connection, "other bytes came back than were sent", 0);
        return;
    }
    int64_t now_ns = monotonic_ns();
    connection->received += (uint64_t)size;
    client->measurement.moved += (uint64_t)size;
    count_completed(client, connection, now_ns);
    issue(client, connection, now_ns);
    send_issued(client, connection);
}

static void connection_ready(void *context, const struct epoll_event *event)
{
    struct client *client = context;
    struct connection *connection = event->data.ptr;
    if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        uint64_t before;
        do {
            before = connection->received;
            receive(client, connection);
        } while (connection->is_open && connection->received > before && channel_has_more(&connection->channel));
    }
    if (connection->is_open && (event->events & EPOLLOUT))
        send_issued(client, connection);
}

static int open_connection(struct client *client, struct connection *connection, uint32_t number)
{
    connection->number = number;
    connection->issued_ns = calloc(client->options.depth, sizeof(int64_t));
    if (!connection->issued_ns)
        return -ENOMEM;
    int result = channel_open(&connection->channel, &client->endpoint);
    if (result < 0)
        return result;
    connection->is_open = true;
    client->alive++;
    return watch(client, connection, EPOLL_CTL_ADD, false);
}

/* With no message unanswered, the end of our stream must be answered by the end of theirs, and by nothing else. */
static void finish_sending(struct client *client)
{
    for (unsigned i = 0; i < client->options.connections; i++) {
        struct connection *connection = &client->connections[i];
        int result = connection->is_open ? channel_finish_sending(&connection->channel) : 0;
        if (result < 0)
            connection_fail(client, connection, "shutdown", -result);
    }
}

static uint64_t bytes_missing(const struct client *client)
{
    uint64_t missing = 0;
    for (unsigned i = 0; i < client->options.connections; i++) {
        const struct connection *connection = &client->connections[i];
        if (connection->is_open)
            missing += connection->to_send - connection->received;
    }
    return missing;
}

/* After the measured window: collect what is in flight, then expect the server to close each connection. */
static void drain(struct client *client)
{
    struct epoll_event events[64];
    int64_t deadline_ns = monotonic_ns() + DRAIN_LIMIT_SECONDS * NS_PER_SECOND;
    bool finished = false;
    client->draining = true;
    while (client->alive > 0 && monotonic_ns() < deadline_ns) {
        if (!finished && bytes_missing(client) == 0) {
            finish_sending(client);
            finished = true;
            deadline_ns = monotonic_ns() + CLOSE_LIMIT_SECONDS * NS_PER_SECOND;
        }
        int count = epoll_wait(client->epoll_fd, events, 64, finished ? 10 : 0);
        for (int i = 0; i < count; i++)
            connection_ready(client, &events[i]);
    }
    for (unsigned i = 0; i < client->options.connections; i++) {
        struct connection *connection = &client->connections[i];
        if (connection->is_open && finished)
            client->measurement.unclosed++;
        else if (connection->is_open)
            connection_fail(client, connection, "echo missing", 0);
    }
}

/* All connections exist before the first message, so that the server sees the full set at once. */
static bool open_all(struct client *client)
{
    int64_t deadline_ns = monotonic_ns() + CONNECT_LIMIT_SECONDS * NS_PER_SECOND;
    for (unsigned i = 0; i < client->options.connections; i++) {
        int result = open_connection(client, &client->connections[i], i);
        if (result == 0 && monotonic_ns() > deadline_ns)
            result = -ETIMEDOUT;
        if (result < 0) {
            failures_note(&client->measurement.failures, "connecting number %u: %s", i, strerror(-result));
            return false;
        }
    }
    return true;
}

static void start_all(struct client *client)
{
    for (unsigned i = 0; i < client->options.connections; i++) {
        issue(client, &client->connections[i], monotonic_ns());
        send_issued(client, &client->connections[i]);
    }
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options = {.host = "127.0.0.1", .connections = 10, .size = 1024, .depth = 1, .warmup = 0.2, .duration = 1.0},
    };
    load_options_parse(&client.options, argc, argv);
    client.measurement.moved_at_each = 2 * (uint64_t)client.options.size;
    if (client.options.line > 0)
        pattern_prepare_lines(client.options.line);
    else
        pattern_prepare();
    struct descriptor_limits limits;
    (void)descriptor_limits_raise(&limits); /* if that is too few, connecting says so */
    int result = endpoint_set(&client.endpoint, client.options.host, client.options.port);
    client.endpoint.source_count = client.options.sources;
    client.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client.connections = calloc(client.options.connections, sizeof(struct connection));
    if (result < 0 || client.epoll_fd < 0 || !client.connections) {
        fprintf(stderr, "cannot start: %s\n", strerror(result < 0 ? -result : errno));
        return 2;
    }
    if (open_all(&client)) {
        start_all(&client);
        result =
            load_run(client.epoll_fd, &client.options, &client.measurement, &client.alive, connection_ready, &client);
        if (result < 0)
            failures_note(&client.measurement.failures, "epoll_wait: %s", strerror(-result));
        struct measurement measured = client.measurement; /* what drains no longer counts, but failures do */
        drain(&client);
        measured.failures = client.measurement.failures;
        measured.unclosed = client.measurement.unclosed;
        client.measurement = measured;
    }
    return measurement_print(&client.measurement);
}
