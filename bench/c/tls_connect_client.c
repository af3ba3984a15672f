/* Load for TLS handshakes: each slot connects, shakes hands in full (TLS 1.3, no ticket is ever used), says close_notify,
 * waits for the end of the server's stream, and begins again. Only that end shows that the server has checked the client's
 * Finished, which is the last message of a handshake. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

enum { MAX_FAILURES = 100 };

struct slot {
    SSL *tls; /* NULL: none */
    int fd;
    bool is_shaken; /* the handshake is over on this side, and close_notify is sent */
    int64_t begin_ns;
};

struct client {
    struct load_options options;
    struct endpoint endpoint;
    struct measurement measurement;
    SSL_CTX *context;
    struct slot *slots;
    int epoll_fd;
    unsigned alive;
    bool draining;
};

/* The certificate is not looked at, but its signature in the handshake is checked. */
static SSL_CTX *new_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context)
        return NULL;
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

static int slot_open(struct client *client, struct slot *slot)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = slot};
    slot->fd = endpoint_start_connect(&client->endpoint);
    if (slot->fd < 0)
        return slot->fd;
    slot->tls = SSL_new(client->context);
    int result = 0;
    if (!slot->tls || SSL_set_fd(slot->tls, slot->fd) != 1)
        result = -ENOMEM;
    else if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, slot->fd, &event) != 0)
        result = -errno;
    if (result < 0) {
        SSL_free(slot->tls);
        slot->tls = NULL;
        close(slot->fd);
    }
    return result;
}

static void slot_begin(struct client *client, struct slot *slot)
{
    slot->is_shaken = false;
    slot->begin_ns = monotonic_ns();
    int result = slot_open(client, slot);
    if (result < 0)
        failures_note(&client->measurement.failures, "connect: %s", strerror(-result));
    else
        client->alive++;
}

static void slot_end(struct client *client, struct slot *slot)
{
    SSL_free(slot->tls);
    slot->tls = NULL;
    close(slot->fd);
    client->alive--;
    if (!client->draining)
        slot_begin(client, slot);
}

/* A server that refuses everything must not be tried for ever. */
static void slot_fail(struct client *client, struct slot *slot, const char *what, int tls_error)
{
    unsigned long reason = ERR_peek_last_error();
    const char *text = reason ? ERR_reason_error_string(reason) : NULL;
    failures_note(&client->measurement.failures, "%s: TLS error %d, %s", what, tls_error,
                  text    ? text
                  : errno ? strerror(errno)
                          : "the stream ended");
    if (client->measurement.failures.count >= MAX_FAILURES)
        client->draining = true;
    slot_end(client, slot);
}

static bool must_wait(int tls_error)
{
    return tls_error == SSL_ERROR_WANT_READ || tls_error == SSL_ERROR_WANT_WRITE;
}

/* The server answers with its own close_notify, or only closes. Session tickets come first; they are dropped. */
static void slot_await_end(struct client *client, struct slot *slot)
{
    char byte;
    errno = 0;
    ERR_clear_error();
    int result = SSL_read(slot->tls, &byte, 1);
    int error = SSL_get_error(slot->tls, result);
    if (result <= 0 && must_wait(error))
        return;
    if (result > 0) {
        slot_fail(client, slot, "bytes that nobody asked for", error);
        return;
    }
    bool is_end = error == SSL_ERROR_ZERO_RETURN || (error == SSL_ERROR_SYSCALL && errno == 0) ||
                  (error == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
    if (!is_end) {
        slot_fail(client, slot, "closing", error);
        return;
    }
    measurement_count(&client->measurement, monotonic_ns() - slot->begin_ns);
    slot_end(client, slot);
}

static void slot_ready(void *context, const struct epoll_event *event)
{
    struct client *client = context;
    struct slot *slot = event->data.ptr;
    if (!slot->is_shaken) {
        errno = 0;
        ERR_clear_error();
        int result = SSL_connect(slot->tls);
        int error = SSL_get_error(slot->tls, result);
        if (result != 1 && must_wait(error))
            return;
        if (result != 1 || SSL_session_reused(slot->tls) || SSL_shutdown(slot->tls) < 0) {
            slot_fail(client, slot, "handshake", error);
            return;
        }
        slot->is_shaken = true;
    }
    slot_await_end(client, slot);
}

static void drain(struct client *client)
{
    client->draining = true;
    load_drain(client->epoll_fd, &client->alive, slot_ready, client);
    if (client->alive > 0)
        failures_note(&client->measurement.failures, "%u handshakes without an end", client->alive);
}

int main(int argc, char **argv)
{
    static struct client client = {
        .options = {.host = "127.0.0.1", .connections = 16, .warmup = 0.2, .duration = 1.0, .sources = 100},
    };
    load_options_parse(&client.options, argc, argv);
    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    int result = endpoint_set(&client.endpoint, client.options.host, client.options.port);
    client.endpoint.source_count = client.options.sources;
    client.context = new_context();
    client.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client.slots = calloc(client.options.connections, sizeof(struct slot));
    if (result < 0 || client.epoll_fd < 0 || !client.slots || !client.context) {
        fprintf(stderr, "cannot start: %s\n", strerror(result < 0 ? -result : errno));
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
