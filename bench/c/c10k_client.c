/* Holds many connections to an echo server, under command. It opens them all, each with one echo as proof that it is
 * served, then obeys lines on its standard input:
 *
 *   echo SECONDS   every connection in turn sends a message and checks its echo, `--in-flight` of them at a time, for
 *                  that long and until each has had its turn; with `--rate`, so many a second, whether the former
 *                  ones have come back or not, and latency counts from when a message was due
 *   idle           (also while it waits for a command:) sleep, but notice connections that the server closes
 *   quit           close all
 *
 * What happens is printed as lines of JSON, about ten a second while it works, so that a display can follow. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "load.h"
#include "pattern.h"

enum {
    OPENING_AT_ONCE = 256, /* well below the backlog: a full one would cost a second for each refused attempt */
    STALL_SECONDS = 5,     /* without any progress, a phase gives up */
    OTHER_DESCRIPTORS = 16,
    EVENTS_AT_ONCE = 256,
    LIFE_SECONDS = 1800,
};
#define PROGRESS_INTERVAL_NS (NS_PER_SECOND / 10)

struct connection {
    int fd; /* -1: not open yet, or lost */
    uint32_t number;
    bool in_flight;
    bool held;      /* has echoed at least once */
    uint32_t turns; /* echoes in this phase */
    uint64_t sent;
    uint64_t received;
    int64_t sent_ns;
};

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    struct connection *connections;
    int epoll_fd;
    int pace_fd; /* a timer that ticks while messages are due at a rate, for a client that sleeps */
    unsigned held;
    unsigned in_flight;
    unsigned cursor;     /* whose turn is next */
    bool echoing;        /* a finished echo makes room for another one */
    int64_t next_due_ns; /* of the next message, at a rate */
    int64_t phase_begin_ns;
    int64_t next_progress_ns;
    int64_t progress_ns; /* when an echo last arrived */
    uint64_t requests_reported;
    int64_t reported_ns;
};

static char receive_buffer[PATTERN_MAX_PIECE];

static void print_state(const struct client *client, const char *event)
{
    printf("{\"event\": \"%s\", \"held\": %u, \"errors\": %llu, \"seconds\": %.3f", event, client->held,
           (unsigned long long)client->measurement.failures.count,
           (double)(monotonic_ns() - client->phase_begin_ns) / 1e9);
}

static void print_end(const struct client *client)
{
    printf(", \"first_error\": ");
    if (client->measurement.failures.count > 0)
        json_print_string(client->measurement.failures.first);
    else
        printf("null");
    printf("}\n");
    fflush(stdout);
}

static void connection_fail(struct client *client, struct connection *connection, const char *what, int error)
{
    failures_note(&client->measurement.failures, "connection %u: %s%s%s", connection->number, what, error ? ": " : "",
                  error ? strerror(error) : "");
    close(connection->fd);
    connection->fd = -1;
    client->held -= connection->held;
    client->in_flight -= connection->in_flight;
    connection->held = connection->in_flight = false;
}

static void connection_send(struct client *client, struct connection *connection)
{
    ssize_t sent =
        send(connection->fd, pattern_at(connection->number, connection->sent), client->options.size, MSG_NOSIGNAL);
    if (sent != (ssize_t)client->options.size) { /* nothing else is in the buffer */
        connection_fail(client, connection, "send", sent < 0 ? errno : ENOBUFS);
        return;
    }
    connection->sent += client->options.size;
    if (!connection->in_flight)
        client->in_flight++;
    connection->in_flight = true;
}

/* Whether one more message may leave, and from when on its latency counts. */
static bool may_send(struct client *client, int64_t *since_ns)
{
    *since_ns = monotonic_ns();
    if (client->options.rate <= 0)
        return client->in_flight < client->options.in_flight;
    if (client->next_due_ns > *since_ns)
        return false;
    *since_ns = client->next_due_ns;
    return true;
}

/* Give turns until enough messages are in flight, or all connections have one. */
static void give_turns(struct client *client)
{
    unsigned passed = 0;
    int64_t since_ns;
    while (client->echoing && passed < client->options.connections && may_send(client, &since_ns)) {
        struct connection *connection = &client->connections[client->cursor];
        client->cursor = (client->cursor + 1) % client->options.connections;
        passed++;
        if (connection->fd < 0 || connection->in_flight)
            continue;
        connection->sent_ns = since_ns;
        if (client->options.rate > 0)
            client->next_due_ns += (int64_t)(1e9 / client->options.rate);
        connection_send(client, connection);
    }
}

static void connection_connected(struct client *client, struct connection *connection)
{
    int result = endpoint_connect_result(connection->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (result < 0)
        connection_fail(client, connection, "connect", -result);
    else if (epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event) != 0)
        connection_fail(client, connection, "epoll_ctl", errno);
    else
        connection_send(client, connection);
}

static void connection_receive(struct client *client, struct connection *connection)
{
    ssize_t size = recv(connection->fd, receive_buffer, sizeof(receive_buffer), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        connection_fail(client, connection, size < 0 ? "recv" : "closed by the server", size < 0 ? errno : 0);
        return;
    }
    if (connection->received + (uint64_t)size > connection->sent ||
        !pattern_matches(connection->number, connection->received, receive_buffer, (size_t)size)) {
        connection_fail(client, connection, "other bytes came back than were sent", 0);
        return;
    }
    connection->received += (uint64_t)size;
    if (connection->received < connection->sent)
        return;
    client->progress_ns = monotonic_ns();
    measurement_count(&client->measurement, client->progress_ns - connection->sent_ns);
    connection->in_flight = false;
    client->in_flight--;
    client->held += !connection->held;
    connection->held = true;
    connection->turns++;
    give_turns(client);
}

static void connection_ready(struct client *client, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    if (connection->fd < 0)
        return; /* failed earlier in this batch of events */
    if (!connection->held && connection->sent == 0)
        connection_connected(client, connection);
    else
        connection_receive(client, connection);
}

static void handle_events(struct client *client)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int count = epoll_wait(client->epoll_fd, events, EVENTS_AT_ONCE, client->options.block ? 10 : 0);
    for (int i = 0; i < count; i++) {
        uint64_t ticks;
        if (events[i].data.ptr)
            connection_ready(client, &events[i]);
        else if (read(client->pace_fd, &ticks, sizeof(ticks)) < 0 && errno != EAGAIN)
            failures_note(&client->measurement.failures, "the timer: %s", strerror(errno));
    }
    if (client->options.rate > 0)
        give_turns(client);
}

/* Wakes a sleeping client when messages are due, at most ten thousand times a second. */
static void set_pace(struct client *client, bool on)
{
    struct itimerspec ticking = {{0, 0}, {0, 0}};
    if (client->options.rate <= 0 || !client->options.block)
        return;
    if (on) {
        double seconds = 1 / (client->options.rate < 1e4 ? client->options.rate : 1e4);
        ticking.it_interval.tv_sec = ticking.it_value.tv_sec = (time_t)seconds;
        ticking.it_interval.tv_nsec = ticking.it_value.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9);
    }
    if (timerfd_settime(client->pace_fd, 0, &ticking, NULL) != 0)
        failures_note(&client->measurement.failures, "the timer: %s", strerror(errno));
}

static int open_pace(struct client *client)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    client->pace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (client->pace_fd < 0 || epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, client->pace_fd, &event) != 0)
        return -errno;
    return 0;
}

static void begin_phase(struct client *client)
{
    client->phase_begin_ns = client->reported_ns = client->progress_ns = monotonic_ns();
    client->next_progress_ns = client->phase_begin_ns;
    client->requests_reported = 0;
    measurement_begin(&client->measurement, client->options.server_pid);
    for (unsigned i = 0; i < client->options.connections; i++)
        client->connections[i].turns = 0;
}

static bool stalled(const struct client *client)
{
    return monotonic_ns() - client->progress_ns > STALL_SECONDS * NS_PER_SECOND;
}

static void report_progress(struct client *client, const char *event)
{
    int64_t now_ns = monotonic_ns();
    if (now_ns < client->next_progress_ns)
        return;
    const struct measurement *measurement = &client->measurement;
    double seconds = (double)(now_ns - client->reported_ns) / 1e9;
    double rate = seconds > 0 ? (double)(measurement->requests - client->requests_reported) / seconds : 0;
    print_state(client, event);
    printf(", \"rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f", rate,
           (double)histogram_percentile_ns(&measurement->latency, 0.50) / 1e3,
           (double)histogram_percentile_ns(&measurement->latency, 0.99) / 1e3);
    print_end(client);
    client->requests_reported = measurement->requests;
    client->reported_ns = now_ns;
    client->next_progress_ns = now_ns + PROGRESS_INTERVAL_NS;
}

static int start_connection(struct client *client, struct connection *connection)
{
    connection->sent_ns = monotonic_ns();
    int fd = endpoint_start_connect(&client->endpoint);
    if (fd < 0)
        return fd;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = connection};
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        int result = -errno;
        close(fd);
        return result;
    }
    connection->fd = fd;
    connection->in_flight = true;
    client->in_flight++;
    return 0;
}

static void drop_unanswered(struct client *client, const char *what)
{
    for (unsigned i = 0; i < client->options.connections; i++) {
        if (client->connections[i].in_flight)
            connection_fail(client, &client->connections[i], what, 0);
    }
}

static void open_all(struct client *client, unsigned wanted)
{
    unsigned started = 0;
    begin_phase(client);
    while ((started < client->options.connections || client->in_flight > 0) && !stalled(client)) {
        while (started < client->options.connections && client->in_flight < OPENING_AT_ONCE) {
            int result = start_connection(client, &client->connections[started++]);
            if (result < 0)
                failures_note(&client->measurement.failures, "connection %u: %s", started - 1, strerror(-result));
        }
        handle_events(client);
        report_progress(client, "opening");
    }
    drop_unanswered(client, "not served");
    print_state(client, "opened");
    printf(", \"wanted\": %u", wanted);
    print_end(client);
}

static uint32_t fewest_turns(const struct client *client)
{
    uint32_t fewest = UINT32_MAX;
    for (unsigned i = 0; i < client->options.connections; i++) {
        const struct connection *connection = &client->connections[i];
        if (connection->held && connection->turns < fewest)
            fewest = connection->turns;
    }
    return client->held > 0 ? fewest : 0;
}

static void print_echoed(struct client *client, uint32_t fewest)
{
    const struct measurement *measurement = &client->measurement;
    double seconds = (double)(measurement->end_ns - measurement->begin_ns) / 1e9;
    print_state(client, "echoed");
    printf(", \"messages\": %llu, \"rate\": %.1f, \"fewest_per_connection\": %u, \"in_flight\": %u",
           (unsigned long long)measurement->requests, (double)measurement->requests / seconds, fewest,
           client->options.in_flight);
    printf(", \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f",
           (double)histogram_percentile_ns(&measurement->latency, 0.50) / 1e3,
           (double)histogram_percentile_ns(&measurement->latency, 0.99) / 1e3,
           (double)measurement->latency.max_ns / 1e3);
    printf(", \"client_cpu_seconds\": %.6f", (double)measurement->client_cpu_ns / 1e9);
    if (measurement->server_cpu_ns >= 0)
        printf(", \"server_cpu_seconds\": %.6f", (double)measurement->server_cpu_ns / 1e9);
    print_end(client);
}

static void echo_for(struct client *client, double duration)
{
    begin_phase(client);
    client->echoing = true;
    client->next_due_ns = client->phase_begin_ns;
    set_pace(client, true);
    give_turns(client);
    int64_t deadline_ns = client->phase_begin_ns + seconds_to_ns(duration);
    /* Turns go round: when twice as many messages as connections have come back, each connection has had one. */
    while (client->held > 0 && !stalled(client) &&
           (monotonic_ns() < deadline_ns || client->measurement.requests < 2 * (uint64_t)client->held)) {
        handle_events(client);
        report_progress(client, "echoing");
    }
    client->echoing = false;
    set_pace(client, false);
    measurement_end(&client->measurement, client->options.server_pid);
    struct measurement measured = client->measurement;
    while (client->in_flight > 0 && !stalled(client))
        handle_events(client);
    drop_unanswered(client, "echo missing");
    measured.failures = client->measurement.failures;
    client->measurement = measured;
    print_echoed(client, fewest_turns(client));
}

/* Sleeps until there is a command: an idle client must not keep the machine busy. False at the end of stdin. */
static bool read_command(struct client *client, char *line, size_t size)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    struct epoll_event command = {.events = EPOLLIN, .data.ptr = NULL};
    size_t length = 0;
    if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &command) != 0)
        return false;
    while (length + 1 < size && (length == 0 || line[length - 1] != '\n')) {
        int count = epoll_wait(client->epoll_fd, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                connection_ready(client, &events[i]);
            else if (read(STDIN_FILENO, line + length++, 1) != 1)
                return false;
        }
    }
    line[length] = '\0';
    (void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    return true;
}

static void obey(struct client *client)
{
    char line[64];
    while (read_command(client, line, sizeof(line))) {
        double seconds;
        if (sscanf(line, "echo %lf", &seconds) == 1 && seconds > 0 && seconds <= 600) {
            echo_for(client, seconds);
        } else if (strcmp(line, "idle\n") == 0) {
            print_state(client, "idle");
            print_end(client);
        } else if (strcmp(line, "quit\n") == 0) {
            print_state(client, "quit");
            print_end(client);
            return;
        } else {
            fprintf(stderr, "unknown command: %s", line);
            return;
        }
    }
}

/* As many connections as there may be descriptors; says what the limits are. */
static unsigned connections_possible(unsigned wanted)
{
    struct descriptor_limits limits = {0};
    (void)descriptor_limits_raise(&limits);
    uint64_t possible = limits.soft > OTHER_DESCRIPTORS ? limits.soft - OTHER_DESCRIPTORS : 1;
    printf("{\"event\": \"limits\", \"soft\": %llu, \"hard\": %llu}\n", (unsigned long long)limits.soft,
           (unsigned long long)limits.hard);
    fflush(stdout);
    return possible < wanted ? (unsigned)possible : wanted;
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options = {.host = "127.0.0.1", .connections = 10000, .size = 64, .in_flight = 256, .sources = 4},
    };
    load_options_parse(&client.options, argc, argv);
    alarm(LIFE_SECONDS);
    pattern_prepare();
    unsigned wanted = client.options.connections;
    client.options.connections = connections_possible(wanted);
    int result = endpoint_set(&client.endpoint, client.options.host, client.options.port);
    client.endpoint.source_count = client.options.sources;
    client.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client.connections = calloc(client.options.connections, sizeof(struct connection));
    if (result == 0 && client.epoll_fd >= 0)
        result = open_pace(&client);
    if (result < 0 || client.epoll_fd < 0 || !client.connections || client.options.size > 4096) {
        fprintf(stderr, "cannot start: %s\n", strerror(result < 0 ? -result : errno ? errno : EINVAL));
        return 2;
    }
    for (unsigned i = 0; i < client.options.connections; i++) {
        client.connections[i].number = i;
        client.connections[i].fd = -1;
    }
    open_all(&client, wanted);
    obey(&client);
    return client.measurement.failures.count > 0;
}
