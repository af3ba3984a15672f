/* Load for an HTTP/1.1 server: every connection is kept alive, sends a GET, reads the whole response by its
 * Content-Length, checks the status (200) and the body, and sends the next GET at once. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

enum { MAX_RESPONSE = (1 << 20) + 4096 };

struct connection {
    int fd; /* -1: failed */
    int64_t sent_ns;
    size_t size;      /* bytes of the response so far */
    size_t head_size; /* 0: its end has not been seen */
    size_t body_size;
    char response[MAX_RESPONSE + 1];
};

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    struct connection *connections;
    char request[1024];
    size_t request_size;
    int epoll_fd;
    unsigned alive;
    bool draining;
};

static void connection_drop(struct client *client, struct connection *connection)
{
    close(connection->fd);
    connection->fd = -1;
    client->alive--;
}

static void connection_fail(struct client *client, struct connection *connection, const char *what)
{
    connection->response[connection->size] = '\0';
    failures_note(&client->measurement.failures, "%s; response so far: %.60s", what, connection->response);
    connection_drop(client, connection);
}

static void send_request(struct client *client, struct connection *connection)
{
    connection->size = connection->head_size = 0;
    connection->sent_ns = monotonic_ns();
    ssize_t sent = send(connection->fd, client->request, client->request_size, MSG_NOSIGNAL);
    if (sent != (ssize_t)client->request_size) /* at most one small request is ever in the buffer */
        connection_fail(client, connection, sent < 0 ? strerror(errno) : "the request was sent in part");
}

/* The value of the Content-Length header of a head that ends with a null byte, or -1. */
static long content_length(const char *head)
{
    static const char name[] = "content-length:";
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, sizeof(name) - 1) == 0)
            return strtol(line + 2 + sizeof(name) - 1, NULL, 10);
    }
    return -1;
}

/* Find the end of the head. NULL while there is none or when all is well, else what is wrong. */
static const char *parse_head(struct connection *connection)
{
    connection->response[connection->size] = '\0';
    char *end = strstr(connection->response, "\r\n\r\n");
    if (!end)
        return NULL;
    connection->head_size = (size_t)(end - connection->response) + 4;
    if (strncmp(connection->response, "HTTP/1.1 200 ", 13) != 0)
        return "status is not 200";
    char first_of_body = end[4];
    end[4] = '\0';
    long length = content_length(connection->response);
    end[4] = first_of_body;
    if (length < 0)
        return "no Content-Length";
    if (connection->head_size + (size_t)length > MAX_RESPONSE)
        return "response too large for this client";
    connection->body_size = (size_t)length;
    return NULL;
}

static bool body_is_right(const struct client *client, const struct connection *connection)
{
    const char *expected = client->options.body;
    if (!expected)
        return true;
    return strlen(expected) == connection->body_size &&
           memcmp(connection->response + connection->head_size, expected, connection->body_size) == 0;
}

static void response_grew(struct client *client, struct connection *connection)
{
    const char *wrong = connection->head_size == 0 ? parse_head(connection) : NULL;
    size_t whole = connection->head_size + connection->body_size;
    if (!wrong && connection->head_size > 0 && connection->size > whole)
        wrong = "more bytes than the response has";
    if (!wrong && connection->head_size == 0 && connection->size == MAX_RESPONSE)
        wrong = "head without end";
    if (!wrong && connection->head_size > 0 && connection->size == whole && !body_is_right(client, connection))
        wrong = "unexpected body";
    if (wrong) {
        connection_fail(client, connection, wrong);
        return;
    }
    if (connection->head_size == 0 || connection->size < whole)
        return;
    measurement_count(&client->measurement, monotonic_ns() - connection->sent_ns);
    if (client->draining)
        connection_drop(client, connection);
    else
        send_request(client, connection);
}

static void connection_ready(void *context, const struct epoll_event *event)
{
    struct client *client = context;
    struct connection *connection = event->data.ptr;
    if (connection->fd < 0)
        return;
    ssize_t size = recv(connection->fd, connection->response + connection->size, MAX_RESPONSE - connection->size, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        connection_fail(client, connection, size < 0 ? strerror(errno) : "closed by the server");
        return;
    }
    connection->size += (size_t)size;
    response_grew(client, connection);
}

static bool open_all(struct client *client)
{
    for (unsigned i = 0; i < client->options.connections; i++) {
        struct connection *connection = &client->connections[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        int fd = endpoint_connect(&client->endpoint);
        if (fd < 0 || epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            failures_note(&client->measurement.failures, "connecting number %u: %s", i, strerror(fd < 0 ? -fd : errno));
            return false;
        }
        connection->fd = fd;
        client->alive++;
    }
    return true;
}

static void drain(struct client *client)
{
    client->draining = true;
    load_drain(client->epoll_fd, &client->alive, connection_ready, client);
    if (client->alive > 0)
        failures_note(&client->measurement.failures, "%u requests without a whole response", client->alive);
}

static int prepare(struct client *client)
{
    const struct load_options *options = &client->options;
    int size = snprintf(client->request, sizeof(client->request), "GET %s HTTP/1.1\r\nHost: %s:%u\r\n\r\n",
                        options->path, options->host, options->port);
    if (size < 0 || (size_t)size >= sizeof(client->request))
        return -ENAMETOOLONG;
    client->request_size = (size_t)size;
    client->connections = calloc(options->connections, sizeof(struct connection));
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!client->connections || client->epoll_fd < 0)
        return -errno;
    return endpoint_set(&client->endpoint, options->host, options->port);
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options = {.host = "127.0.0.1", .connections = 64, .warmup = 0.2, .duration = 1.0, .path = "/"},
    };
    load_options_parse(&client.options, argc, argv);
    int result = prepare(&client);
    if (result < 0) {
        fprintf(stderr, "cannot start: %s\n", strerror(-result));
        return 2;
    }
    if (!open_all(&client))
        return measurement_print(&client.measurement);
    for (unsigned i = 0; i < client.options.connections; i++)
        send_request(&client, &client.connections[i]);
    result = load_run(client.epoll_fd, &client.options, &client.measurement, &client.alive, connection_ready, &client);
    if (result < 0)
        failures_note(&client.measurement.failures, "epoll_wait: %s", strerror(-result));
    struct measurement measured = client.measurement; /* what drains no longer counts, but failures do */
    drain(&client);
    measured.failures = client.measurement.failures;
    return measurement_print(&measured);
}
