/* Open-loop load for an echo or an HTTP server: messages are due at random times of a fixed average rate (a Poisson
 * process, as of many independent users), go out when they are due whatever the answers do, and a message's latency
 * counts from when it was due. A server that stalls pays for every message that came due meanwhile: a closed loop would
 * stop asking, and leave them out. With --path the messages are GETs, and else they are echoed. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"
#include "pattern.h"

enum {
    DRAIN_LIMIT_SECONDS = 5,
    MAX_WAITING = 1 << 14, /* messages due and unanswered on one connection */
    MAX_ANSWER = 64 * 1024,
    REQUESTS_AT_ONCE = 64, /* copies of the request that lie one after the other */
    EVENTS_AT_ONCE = 64,
};

struct connection {
    int fd; /* -1: failed */
    uint32_t number;
    bool wants_write;
    uint64_t to_send, sent, received; /* offsets in the streams */
    uint64_t issued, answered;        /* messages */
    int64_t *due_ns;                  /* ring of MAX_WAITING times */
};

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    struct histogram lateness;
    struct connection *connections;
    char *requests; /* NULL: the echo's pattern is sent */
    uint64_t message_size, answer_size;
    char answer_end[4096]; /* of an HTTP response: what it ends with */
    size_t answer_end_size;
    int epoll_fd;
    unsigned alive, next;
    uint64_t random;
    int64_t due_ns;     /* of the next message */
    int64_t counted_ns; /* messages due before are warm-up, and not counted; 0: none is counted yet */
    int64_t end_ns;     /* none is due from then on */
};

static char receive_buffer[PATTERN_MAX_PIECE];

static void connection_fail(struct client *client, struct connection *connection, const char *what, int error)
{
    failures_note(&client->measurement.failures, "connection %u: %s%s%s", connection->number, what, error ? ": " : "",
                  error ? strerror(error) : "");
    close(connection->fd);
    connection->fd = -1;
    client->alive--;
}

/* A random time to the next message: exponential, as between events that do not know of one another. */
static int64_t next_gap_ns(struct client *client)
{
    client->random ^= client->random << 13; /* xorshift64 (Marsaglia, 2003) */
    client->random ^= client->random >> 7;
    client->random ^= client->random << 17;
    double uniform = ((double)(client->random >> 11) + 0.5) / 9007199254740992.0; /* 2^53 */
    return (int64_t)(-log(uniform) / client->options.rate * 1e9);
}

static const char *bytes_to_send(const struct client *client, const struct connection *connection, size_t *size)
{
    uint64_t left = connection->to_send - connection->sent;
    if (!client->requests) {
        *size = left < PATTERN_MAX_PIECE ? left : PATTERN_MAX_PIECE;
        return pattern_at(connection->number, connection->sent);
    }
    uint64_t begin = connection->sent % client->message_size;
    uint64_t most = client->message_size * REQUESTS_AT_ONCE - begin;
    *size = left < most ? left : most;
    return client->requests + begin;
}

static void send_due(struct client *client, struct connection *connection)
{
    while (connection->sent < connection->to_send) {
        size_t size;
        const char *bytes = bytes_to_send(client, connection, &size);
        ssize_t sent = send(connection->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            connection_fail(client, connection, "send", errno);
            return;
        }
        if (sent < 0)
            break;
        connection->sent += (uint64_t)sent;
    }
    bool unsent = connection->sent < connection->to_send;
    if (unsent == connection->wants_write)
        return;
    struct epoll_event event = {.events = EPOLLIN | (unsent ? (uint32_t)EPOLLOUT : 0), .data.ptr = connection};
    connection->wants_write = unsent;
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event) != 0)
        connection_fail(client, connection, "epoll_ctl", errno);
}

/* Send what is due by now, each message on the next connection. */
static void issue_due(struct client *client, int64_t now_ns)
{
    while (client->due_ns <= now_ns && client->due_ns < client->end_ns && client->alive > 0) {
        struct connection *connection = &client->connections[client->next++ % client->options.connections];
        int64_t due_ns = client->due_ns;
        client->due_ns += next_gap_ns(client);
        if (connection->fd < 0)
            continue;
        if (connection->issued - connection->answered == MAX_WAITING) {
            connection_fail(client, connection, "the server cannot carry this rate", 0);
            continue;
        }
        connection->due_ns[connection->issued++ % MAX_WAITING] = due_ns;
        connection->to_send += client->message_size;
        send_due(client, connection);
        if (client->counted_ns != 0)
            histogram_add(&client->lateness, now_ns - due_ns);
    }
}

/* What is wrong with bytes that came in, or NULL. All but the time in the head of an HTTP response is compared. */
static const char *check_bytes(const struct client *client, const struct connection *connection, size_t size)
{
    if (connection->received + size > connection->issued * client->answer_size)
        return "more came back than was asked for";
    if (!client->requests)
        return pattern_matches(connection->number, connection->received, receive_buffer, size) ? NULL
                                                                                               : "the echo differs";
    static const char status[] = "HTTP/1.1 200 ";
    for (size_t i = 0; i < size;) {
        uint64_t at = (connection->received + i) % client->answer_size;
        size_t left = size - i, rest = client->answer_size - at;
        if (at == 0 && memcmp(receive_buffer + i, status, left < sizeof(status) - 1 ? left : sizeof(status) - 1) != 0)
            return "a response is not where it should begin, or not 200";
        if (rest <= left && rest >= client->answer_end_size &&
            memcmp(receive_buffer + i + rest - client->answer_end_size, client->answer_end, client->answer_end_size))
            return "a response ends otherwise than the first one";
        i += rest < left ? rest : left;
    }
    return NULL;
}

static void receive(struct client *client, struct connection *connection)
{
    ssize_t size = recv(connection->fd, receive_buffer, sizeof(receive_buffer), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    const char *wrong =
        size <= 0 ? (size < 0 ? "recv" : "closed by the server") : check_bytes(client, connection, (size_t)size);
    if (wrong) {
        connection_fail(client, connection, wrong, size < 0 ? errno : 0);
        return;
    }
    int64_t now_ns = monotonic_ns();
    connection->received += (uint64_t)size;
    while (connection->received >= (connection->answered + 1) * client->answer_size) {
        int64_t due_ns = connection->due_ns[connection->answered++ % MAX_WAITING];
        if (client->counted_ns != 0 && due_ns >= client->counted_ns)
            measurement_count(&client->measurement, now_ns - due_ns);
    }
}

/* Handle what is there. Between two events, messages that are due by then go out: a batch of answers delays none. */
static int handle_events(struct client *client)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(client->epoll_fd, events, EVENTS_AT_ONCE, client->options.block ? 1 : 0);
    if (count < 0 && errno != EINTR)
        return -errno;
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection->fd >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            receive(client, connection);
        if (connection->fd >= 0 && events[i].events & EPOLLOUT)
            send_due(client, connection);
        issue_due(client, monotonic_ns());
    }
    issue_due(client, monotonic_ns());
    return 0;
}

static bool is_waiting(const struct client *client)
{
    for (unsigned i = 0; i < client->options.connections; i++) {
        const struct connection *connection = &client->connections[i];
        if (connection->fd >= 0 && connection->answered < connection->issued)
            return true;
    }
    return false;
}

static uint64_t unanswered(const struct client *client)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < client->options.connections; i++)
        count += client->connections[i].issued - client->connections[i].answered;
    return count;
}

/* A warm-up and the window; then no more is due, and what was due in the window must be answered. */
static int run_window(struct client *client, double warmup)
{
    int result = 0;
    int64_t begin_ns = monotonic_ns() + seconds_to_ns(warmup);
    client->counted_ns = 0;
    histogram_clear(&client->lateness);
    client->due_ns = monotonic_ns();
    client->end_ns = begin_ns + seconds_to_ns(client->options.duration);
    while (result == 0 && client->alive > 0 && monotonic_ns() < begin_ns)
        result = handle_events(client);
    measurement_begin(&client->measurement, client->options.server_pid);
    client->counted_ns = client->measurement.begin_ns;
    while (result == 0 && client->alive > 0 && monotonic_ns() < client->end_ns)
        result = handle_events(client);
    measurement_end(&client->measurement, client->options.server_pid);
    int64_t limit_ns = monotonic_ns() + DRAIN_LIMIT_SECONDS * NS_PER_SECOND;
    while (result == 0 && client->alive > 0 && is_waiting(client) && monotonic_ns() < limit_ns)
        result = handle_events(client);
    if (unanswered(client) > 0)
        failures_note(&client->measurement.failures, "%llu messages were never answered",
                      (unsigned long long)unanswered(client));
    return result;
}

static int run(struct client *client)
{
    double warmup;
    int result = 0;
    if (!client->options.turns)
        return run_window(client, client->options.warmup);
    while (result == 0 && load_next_turn(&warmup)) {
        result = run_window(client, warmup);
        if (result == 0)
            measurement_print(&client->measurement);
    }
    return result;
}

/* Ask once, and learn how long an answer is and how it ends. Returns 0 or -errno. */
static int learn_answer(struct client *client, int fd)
{
    static char answer[MAX_ANSWER + 1];
    size_t size = 0, head_size = 0;
    if (send(fd, client->requests, client->message_size, MSG_NOSIGNAL) != (ssize_t)client->message_size)
        return -EIO;
    int64_t limit_ns = monotonic_ns() + DRAIN_LIMIT_SECONDS * NS_PER_SECOND;
    while (head_size == 0 || size < client->answer_size) {
        ssize_t received = recv(fd, answer + size, MAX_ANSWER - size, 0);
        if (received == 0 || size == MAX_ANSWER)
            return -EPROTO;
        if (received < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        if (monotonic_ns() > limit_ns)
            return -ETIMEDOUT;
        size += received > 0 ? (size_t)received : 0;
        answer[size] = '\0';
        const char *end = strstr(answer, "\r\n\r\n");
        const char *length = strcasestr(answer, "\r\ncontent-length:");
        if (head_size > 0 || !end)
            continue;
        if (!length || length > end)
            return -EPROTO;
        head_size = (size_t)(end - answer) + 4;
        client->answer_size = head_size + strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
    }
    client->answer_end_size = client->answer_size - head_size;
    if (size != client->answer_size || client->answer_end_size > sizeof(client->answer_end))
        return -EPROTO;
    memcpy(client->answer_end, answer + head_size, client->answer_end_size);
    const char *body = client->options.body;
    bool is_right = !body || (strlen(body) == client->answer_end_size &&
                              memcmp(body, client->answer_end, client->answer_end_size) == 0);
    return is_right ? 0 : -EBADMSG;
}

static int open_all(struct client *client)
{
    for (unsigned i = 0; i < client->options.connections; i++) {
        struct connection *connection = &client->connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        connection->number = i;
        connection->due_ns = calloc(MAX_WAITING, sizeof(int64_t));
        connection->fd = endpoint_connect(&client->endpoint);
        if (connection->fd < 0)
            return connection->fd;
        if (!connection->due_ns || epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
            return -errno;
        client->alive++;
    }
    return client->requests ? learn_answer(client, client->connections[0].fd) : 0;
}

static int prepare_requests(struct client *client)
{
    char request[1024];
    const struct load_options *options = &client->options;
    int size = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %s:%u\r\n\r\n", options->path,
                        options->host, options->port);
    if (size < 0 || (size_t)size >= sizeof(request))
        return -ENAMETOOLONG;
    client->requests = malloc((size_t)size * REQUESTS_AT_ONCE);
    if (!client->requests)
        return -ENOMEM;
    for (int i = 0; i < REQUESTS_AT_ONCE; i++)
        memcpy(client->requests + i * size, request, (size_t)size);
    client->message_size = (uint64_t)size;
    return 0;
}

static int prepare(struct client *client)
{
    pattern_prepare();
    client->message_size = client->answer_size = client->options.size;
    client->random = UINT64_C(0x2545f4914f6cdd1d);
    client->measurement.lateness = &client->lateness;
    client->connections = calloc(client->options.connections, sizeof(struct connection));
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!client->connections || client->epoll_fd < 0)
        return -errno;
    int result = client->options.path ? prepare_requests(client) : 0;
    return result < 0 ? result : endpoint_set(&client->endpoint, client->options.host, client->options.port);
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options =
            {.host = "127.0.0.1", .connections = 64, .size = 1024, .rate = 10000, .warmup = 0.2, .duration = 1.0},
    };
    load_options_parse(&client.options, argc, argv);
    int result = client.options.rate > 0 ? prepare(&client) : -EINVAL;
    if (result < 0) {
        fprintf(stderr, "cannot start: %s\n", strerror(-result));
        return 2;
    }
    result = open_all(&client);
    if (result < 0) {
        failures_note(&client.measurement.failures, "connecting: %s", strerror(-result));
        return measurement_print(&client.measurement);
    }
    result = run(&client);
    if (result < 0)
        failures_note(&client.measurement.failures, "epoll_wait: %s", strerror(-result));
    return measurement_print(&client.measurement);
}
