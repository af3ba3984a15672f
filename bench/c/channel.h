#ifndef BENCH_CHANNEL_H
#define BENCH_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "endpoint.h"

/* A byte stream to the server: channel_plain.c is a TCP connection, channel_tls.c is TLS 1.3 over one. A program is
 * linked with one of them. Functions return >= 0, or -errno; -EAGAIN says that the descriptor must be waited for. */

struct channel {
    int fd; /* non-blocking */
    void *tls;
};

/* Connect, and shake hands if there is a handshake; this call waits. */
int channel_open(struct channel *channel, struct endpoint *endpoint);

ssize_t channel_send(struct channel *channel, const void *bytes, size_t size);

/* 0: the end of the server's stream. */
ssize_t channel_receive(struct channel *channel, void *bytes, size_t size);

/* Whether channel_receive() has something to look at that the descriptor no longer shows. */
bool channel_has_more(const struct channel *channel);

/* Tell the server that nothing more comes. */
int channel_finish_sending(struct channel *channel);

void channel_close(struct channel *channel);

#endif
