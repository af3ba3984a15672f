/* TLS 1.3 with OpenSSL. The certificate is not looked at: it is the server's work that is measured. */
#include "channel.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

enum { HANDSHAKE_LIMIT_MS = 5000 };

static SSL_CTX *new_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context)
        return NULL;
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_read_ahead(context, 1); /* one recv for header and body of a record */
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1) {
        SSL_CTX_free(context);
        return NULL;
    }
    return context;
}

/* What an SSL function that did not succeed means: 0 for the end of the stream, or -errno. */
static ssize_t outcome(SSL *tls, int result)
{
    switch (SSL_get_error(tls, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        return errno ? -errno : -ECONNRESET;
    default:
        return -EPROTO;
    }
}

static int shake_hands(SSL *tls, int fd)
{
    for (;;) {
        ERR_clear_error();
        int result = SSL_connect(tls);
        if (result == 1)
            return 0;
        int error = SSL_get_error(tls, result);
        short events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
        if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            return -EPROTO;
        struct pollfd waiting = {.fd = fd, .events = events};
        int ready = poll(&waiting, 1, HANDSHAKE_LIMIT_MS);
        if (ready == 0)
            return -ETIMEDOUT;
        if (ready < 0 && errno != EINTR)
            return -errno;
    }
}

int channel_open(struct channel *channel, struct endpoint *endpoint)
{
    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    channel->fd = endpoint_connect(endpoint);
    if (channel->fd < 0)
        return channel->fd;
    SSL_CTX *context = new_context();
    SSL *tls = context ? SSL_new(context) : NULL;
    SSL_CTX_free(context); /* lives on in tls */
    int result = tls && SSL_set_fd(tls, channel->fd) == 1 ? shake_hands(tls, channel->fd) : -ENOMEM;
    if (result < 0) {
        SSL_free(tls);
        close(channel->fd);
        channel->fd = -1;
        return result;
    }
    channel->tls = tls;
    return 0;
}

ssize_t channel_send(struct channel *channel, const void *bytes, size_t size)
{
    size_t sent;
    ERR_clear_error();
    int result = SSL_write_ex(channel->tls, bytes, size, &sent);
    return result == 1 ? (ssize_t)sent : outcome(channel->tls, result);
}

ssize_t channel_receive(struct channel *channel, void *bytes, size_t size)
{
    size_t received;
    ERR_clear_error();
    int result = SSL_read_ex(channel->tls, bytes, size, &received);
    return result == 1 ? (ssize_t)received : outcome(channel->tls, result);
}

bool channel_has_more(const struct channel *channel)
{
    return SSL_has_pending(channel->tls) == 1;
}

int channel_finish_sending(struct channel *channel)
{
    ERR_clear_error();
    return SSL_shutdown(channel->tls) >= 0 ? 0 : -EPROTO;
}

void channel_close(struct channel *channel)
{
    SSL_free(channel->tls);
    close(channel->fd);
}
