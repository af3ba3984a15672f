#include "channel.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int channel_open(struct channel *channel, struct endpoint *endpoint)
{
    channel->fd = endpoint_connect(endpoint);
    return channel->fd < 0 ? channel->fd : 0;
}

ssize_t channel_send(struct channel *channel, const void *bytes, size_t size)
{
    ssize_t sent = send(channel->fd, bytes, size, MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

ssize_t channel_receive(struct channel *channel, void *bytes, size_t size)
{
    ssize_t received = recv(channel->fd, bytes, size, 0);
    return received < 0 ? -errno : received;
}

bool channel_has_more(const struct channel *channel)
{
    (void)channel;
    return false;
}

int channel_finish_sending(struct channel *channel)
{
    return shutdown(channel->fd, SHUT_WR) == 0 ? 0 : -errno;
}

void channel_close(struct channel *channel)
{
    close(channel->fd);
}
