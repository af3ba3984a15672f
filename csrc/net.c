/* net.c: sockets and addresses. net.h says what; this file says what differs between systems.
 *
 *   - accept4(2) makes a connection non-blocking and close-on-exec in one call on Linux and the BSDs. macOS has
 *     accept(2) alone: two fcntl calls follow, and a fork between them in another thread lets a child inherit the
 *     descriptor.
 *   - Linux passes errors of the new connection on from accept(2); they are about that connection, not the listener.
 *   - macOS answers EINVAL to setsockopt(2) on a connection that the peer has reset already.
 *   - After EINTR from close(2) the descriptor is gone on Linux and the BSDs: closing again could hit a number that
 *     another thread has just opened. */
#include "net_internal.h"

#include "platform.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <unistd.h>

#if HOOP_HAVE_SIOCOUTQ
#include <linux/sockios.h>
#endif

#if HOOP_HAVE_EPOLL && !defined(TCP_NOTSENT_LOWAT)
#define TCP_NOTSENT_LOWAT 25 /* Linux 3.12; glibc's header has it since 2.24 */
#endif

/* The BSDs keep the length in the sockaddr; the macro is how <netinet/in.h> tells. */
#if defined(SIN6_LEN)
#define SET_LENGTH(member, value) ((member) = (uint8_t)(value))
#else
#define SET_LENGTH(member, value) ((void)0)
#endif

/* Best effort: what is no socket has no SIGPIPE option, and a connection that is reset already is about to be
 * closed. */
static void silence_sigpipe(int fd)
{
#if defined(SO_NOSIGPIPE)
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#else
    (void)fd;
#endif
}

int hoop_net_accept(int listener_fd, struct sockaddr_storage *peer, socklen_t *length)
{
    struct sockaddr *address = (struct sockaddr *)peer;
    int fd;
    /* The length is set for each try: some kernels leave 0 there when they fail. */
#if HOOP_HAVE_ACCEPT4
    HOOP_RETRY(fd, (*length = sizeof(*peer), accept4(listener_fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC)));
#else
    HOOP_RETRY(fd, (*length = sizeof(*peer), accept(listener_fd, address, length)));
#endif
    if (fd < 0)
        return hoop_net_negative_errno();
#if !HOOP_HAVE_ACCEPT4
    int result = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : hoop_net_set_nonblocking(fd);
    if (result < 0) {
        (void)hoop_net_close(fd);
        return result;
    }
#else
    silence_sigpipe(fd);
#endif
    if (*length > (socklen_t)sizeof(*peer)) /* the kernel says how long it would have been */
        *length = (socklen_t)sizeof(*peer);
    return fd;
}

#if HOOP_HAVE_EPOLL

int hoop_net_hand_on(int listener_fd)
{
    int protocol, lowat;
    socklen_t size = sizeof(protocol);
    if (getsockopt(listener_fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_TCP)
        return -EOPNOTSUPP;
    size = sizeof(lowat);
    if (getsockopt(listener_fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, &size) < 0 ||
        setsockopt(listener_fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat)) < 0)
        return -EOPNOTSUPP;
    return 0;
}

#else

int hoop_net_hand_on(int listener_fd)
{
    (void)listener_fd;
    return -EOPNOTSUPP;
}

#endif

/* EOPNOTSUPP and EPERM are on accept(2)'s list too, but they can also be the listener's own fault (a datagram socket, a
 * sandbox), and then trying again at once would never end. */
bool hoop_net_is_transient_accept_error(int result)
{
    switch (-result) {
    case ECONNABORTED:
    case ECONNRESET:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ETIMEDOUT:
#if defined(ENONET)
    case ENONET:
#endif
        return true;
    default:
        return false;
    }
}

bool hoop_net_is_resource_error(int result)
{
    return result == -EMFILE || result == -ENFILE || result == -ENOBUFS || result == -ENOMEM;
}

ssize_t hoop_net_recv(int fd, void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, recv(fd, buffer, hoop_transfer_size(size), 0));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_pending(int fd)
{
    int pending = 0;
    if (ioctl(fd, FIONREAD, &pending) < 0)
        return hoop_net_negative_errno();
    return pending;
}

bool hoop_net_close_may_reset(int fd)
{
    if (hoop_net_pending(fd) > 0)
        return true;
#if HOOP_HAVE_SIOCOUTQ
    int on_their_way = 0;
    return ioctl(fd, SIOCOUTQ, &on_their_way) == 0 && on_their_way > 0;
#else
    return false;
#endif
}

ssize_t hoop_net_peek(int fd, void *buffer, size_t size)
{
    ssize_t seen;
    HOOP_RETRY(seen, recv(fd, buffer, hoop_transfer_size(size), MSG_PEEK));
    return seen < 0 ? hoop_net_negative_errno() : seen;
}

ssize_t hoop_net_send(int fd, const void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, send(fd, buffer, hoop_transfer_size(size), HOOP_NET_SEND_FLAGS));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_read(int fd, void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, read(fd, buffer, hoop_transfer_size(size)));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

static ssize_t write_buffer(int fd, const void *buffer, size_t size)
{
    ssize_t moved;
    HOOP_RETRY(moved, write(fd, buffer, hoop_transfer_size(size)));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

/* How many leading buffers one call may take: at most HOOP_NET_MAX_BUFFERS, and together at most HOOP_LARGEST_TRANSFER
 * bytes. 0 when the first alone is too much. */
static int fitting_buffers(const struct iovec *buffers, int count)
{
    if (count > HOOP_NET_MAX_BUFFERS)
        count = HOOP_NET_MAX_BUFFERS;
    size_t room = HOOP_LARGEST_TRANSFER;
    for (int i = 0; i < count; i++) {
        if (HOOP_UNLIKELY(buffers[i].iov_len > room))
            return i;
        room -= buffers[i].iov_len;
    }
    return count;
}

ssize_t hoop_net_sendv(int fd, const struct iovec *buffers, int count)
{
    if (count <= 0)
        return count == 0 ? 0 : -EINVAL;
    if (count > HOOP_NET_MAX_BUFFERS)
        count = HOOP_NET_MAX_BUFFERS;
    char joined[HOOP_NET_JOINED_MOST];
    size_t size = count == 1 ? 0 : hoop_net_join_buffers(buffers, count, joined, sizeof(joined));
    if (size > 0)
        return hoop_net_send(fd, joined, size);
    int fitting = fitting_buffers(buffers, count);
    if (fitting <= 1)
        return hoop_net_send(fd, buffers[0].iov_base, buffers[0].iov_len);
    struct msghdr message;
    memset(&message, 0, sizeof(message));
    message.msg_iov = (struct iovec *)(uintptr_t)buffers; /* sendmsg only reads it, its prototype cannot say so */
    message.msg_iovlen = (__typeof__(message.msg_iovlen))fitting; /* size_t on glibc, int elsewhere */
    ssize_t moved;
    HOOP_RETRY(moved, sendmsg(fd, &message, HOOP_NET_SEND_FLAGS));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

ssize_t hoop_net_writev(int fd, const struct iovec *buffers, int count)
{
    if (count <= 0)
        return count == 0 ? 0 : -EINVAL;
    int fitting = fitting_buffers(buffers, count);
    if (fitting <= 1)
        return write_buffer(fd, buffers[0].iov_base, buffers[0].iov_len);
    ssize_t moved;
    HOOP_RETRY(moved, writev(fd, buffers, fitting));
    return moved < 0 ? hoop_net_negative_errno() : moved;
}

int hoop_net_set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    if ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    silence_sigpipe(fd);
    return 0;
}

int hoop_net_set_nodelay(int fd, bool on)
{
    int value = on;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)) == 0)
        return 0;
    switch (errno) {
    case EOPNOTSUPP:  /* UNIX sockets on Linux */
    case ENOPROTOOPT: /* UDP */
    case ENOTSOCK:    /* pipes */
    case EINVAL:      /* macOS: UNIX sockets, and TCP that the peer has reset */
        return 0;
    default:
        return -errno;
    }
}

int hoop_net_shutdown_write(int fd)
{
    return shutdown(fd, SHUT_WR) < 0 ? -errno : 0;
}

int hoop_net_socket_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return -errno;
    return -error;
}

int hoop_net_close(int fd)
{
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static char *write_octet(char *text, unsigned octet)
{
    if (octet >= 100)
        *text++ = (char)('0' + octet / 100);
    if (octet >= 10)
        *text++ = (char)('0' + octet / 10 % 10);
    *text++ = (char)('0' + octet % 10);
    return text;
}

/* As inet_ntop(3), which takes ten times as long: C libraries format by sprintf(3). */
static void format_ipv4(const struct in_addr *address, char *text)
{
    const unsigned char *octets = (const unsigned char *)address;
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            *text++ = '.';
        text = write_octet(text, octets[i]);
    }
    *text = '\0';
}

int hoop_net_format_address(const struct sockaddr *address, socklen_t length, hoop_address *text)
{
    /* Copied before use: the caller's bytes need not be aligned. */
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    sa_family_t family;
    memset(text, 0, sizeof(*text));
    if ((size_t)length < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return -EAFNOSUPPORT;
    memcpy(&family, (const char *)address + offsetof(struct sockaddr, sa_family), sizeof(family));
    if (family == AF_INET && (size_t)length >= sizeof(ipv4)) {
        memcpy(&ipv4, address, sizeof(ipv4));
        text->family = AF_INET;
        text->port = ntohs(ipv4.sin_port);
        format_ipv4(&ipv4.sin_addr, text->host);
        return 0;
    }
    if (family == AF_INET6 && (size_t)length >= sizeof(ipv6)) {
        memcpy(&ipv6, address, sizeof(ipv6));
        text->family = AF_INET6;
        text->port = ntohs(ipv6.sin6_port);
        text->flowinfo = ntohl(ipv6.sin6_flowinfo);
        text->scope_id = ipv6.sin6_scope_id;
        return inet_ntop(AF_INET6, &ipv6.sin6_addr, text->host, sizeof(text->host)) == NULL ? -errno : 0;
    }
    return -EAFNOSUPPORT;
}

int hoop_net_host(const struct sockaddr *address, socklen_t length, uint8_t host[16])
{
    struct sockaddr_in6 ipv6;
    struct sockaddr_in ipv4;
    sa_family_t family;
    if ((size_t)length < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return 0;
    memcpy(&family, (const char *)address + offsetof(struct sockaddr, sa_family), sizeof(family));
    if (family == AF_INET && (size_t)length >= sizeof(ipv4)) {
        memcpy(&ipv4, address, sizeof(ipv4));
        memcpy(host, &ipv4.sin_addr, 4);
        return 4;
    }
    if (family != AF_INET6 || (size_t)length < sizeof(ipv6))
        return 0;
    memcpy(&ipv6, address, sizeof(ipv6));
    if (IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr)) {
        memcpy(host, (const uint8_t *)&ipv6.sin6_addr + 12, 4);
        return 4;
    }
    memcpy(host, &ipv6.sin6_addr, 16);
    return 16;
}

bool hoop_net_contains(const hoop_network *network, const uint8_t *host, int size)
{
    int bytes = network->bits / 8, rest = network->bits % 8;
    if (size != network->size || memcmp(network->host, host, (size_t)bytes) != 0)
        return false;
    return rest == 0 || (network->host[bytes] ^ host[bytes]) >> (8 - rest) == 0;
}

ssize_t hoop_net_unix_name(const struct sockaddr *address, socklen_t length, const char **name)
{
    const size_t name_at = offsetof(struct sockaddr_un, sun_path);
    sa_family_t family;
    *name = (const char *)address;
    if ((size_t)length < offsetof(struct sockaddr, sa_family) + sizeof(family))
        return -EAFNOSUPPORT;
    memcpy(&family, (const char *)address + offsetof(struct sockaddr, sa_family), sizeof(family));
    if (family != AF_UNIX)
        return -EAFNOSUPPORT;
    if ((size_t)length <= name_at)
        return 0;
    *name = (const char *)address + name_at;
    size_t size = (size_t)length - name_at;
#if HOOP_HAVE_ABSTRACT_NAMES
    if (**name == '\0')
        return (ssize_t)size;
#endif
    return (ssize_t)strnlen(*name, size);
}

/* Both forms consist of these. inet_pton(3) also takes a zone on macOS, and a blank with anything after it on
 * NetBSD. */
static const char literal_characters[] = "0123456789abcdefABCDEF:.";

int hoop_net_parse_literal(const char *host, uint16_t port, struct sockaddr_storage *address)
{
    struct sockaddr_in *ipv4 = (struct sockaddr_in *)(void *)address;
    struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)(void *)address;
    memset(address, 0, sizeof(*address));
    if (host[strspn(host, literal_characters)] != '\0')
        return -EINVAL;
    if (inet_pton(AF_INET, host, &ipv4->sin_addr) == 1) {
        ipv4->sin_family = AF_INET;
        ipv4->sin_port = htons(port);
        SET_LENGTH(ipv4->sin_len, sizeof(*ipv4));
        return (int)sizeof(*ipv4);
    }
    if (inet_pton(AF_INET6, host, &ipv6->sin6_addr) == 1) {
        ipv6->sin6_family = AF_INET6;
        ipv6->sin6_port = htons(port);
        SET_LENGTH(ipv6->sin6_len, sizeof(*ipv6));
        return (int)sizeof(*ipv6);
    }
    return -EINVAL;
}
