/* net_internal.h: what every call on a socket needs; for net.c and datagrams.c. */
#ifndef HOOP_NET_INTERNAL_H
#define HOOP_NET_INTERNAL_H

#include "net.h"

#if defined(MSG_NOSIGNAL)
#define HOOP_NET_SEND_FLAGS MSG_NOSIGNAL
#else
#define HOOP_NET_SEND_FLAGS 0 /* hoop_net_set_nonblocking has set SO_NOSIGPIPE */
#endif

static inline int hoop_net_negative_errno(void) /* with EWOULDBLOCK said as EAGAIN where the two differ */
{
#if EWOULDBLOCK != EAGAIN
    if (errno == EWOULDBLOCK)
        return -EAGAIN;
#endif
    return -errno;
}

#endif
